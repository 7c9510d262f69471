/* devices/debugcon.h - port e9: every byte written goes to a character stream; reads give e9, by which guests detect it. */
#ifndef DEVICES_DEBUGCON_H
#define DEVICES_DEBUGCON_H
#include "devices/bus.h"
#include "devices/chardev.h"

enum { DEBUGCON_BACKLOG = 4096 };
/* Has no status to hold the guest back with: what a blocked stream does not take is kept up to the backlog, then dropped. */
struct debugcon {
    struct chardev_user *chr;
    uint8_t readback, backlog[DEBUGCON_BACKLOG];
    size_t len;
};
void debugcon_init(struct debugcon *d, struct chardev *chr);
extern const struct bus_ops debugcon_ops;
#endif
