/* devices/port92.h - system control port A: fast A20 gate and fast reset. */
#ifndef DEVICES_PORT92_H
#define DEVICES_PORT92_H
#include "devices/bus.h"
#include "devices/dev.h"
#include "devices/irq.h"

/* The A20 line is driven by the keyboard controller and by port 92: address bit 20 works if either enables it. Feed both into an irq_or
 * whose output is the CPU's A20 gate. */
struct port92 {
    uint8_t val;
    struct irq_line a20, reset;
};
/* reset rises when the guest asks for a reset. A20 is enabled at start, as firmware leaves it. */
void port92_init(struct port92 *p, struct irq_line a20, struct irq_line reset);
extern const struct bus_ops port92_ops; /* port 92 */
extern const struct dev_ops port92_dev_ops;
#endif
