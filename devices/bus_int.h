/* devices/bus_int.h - insides of the bus, shared by bus.c (who is where) and bus_access.c (accesses; nofpu). */
#ifndef DEVICES_BUS_INT_H
#define DEVICES_BUS_INT_H
#include "devices/bus.h"

enum { BUS_PORTS = 0x10000, BUS_MAX_RANGES = 1024, BUS_MMIO_LOG_LIMIT = 1000 };

struct bus {
    struct fpu_hook fpu;
    uint16_t port[BUS_PORTS];              /* 1 + slot, 0 = nobody */
    struct bus_range slot[BUS_MAX_RANGES]; /* free: ops == NULL */
    uint16_t mmio[BUS_MAX_RANGES];         /* slots of the MMIO ranges by ascending base */
    unsigned mmio_count;
    unsigned mmio_logged;
    uint8_t port_logged[2][BUS_PORTS / 8]; /* [is_write]: a guest must not fill the log by probing in a loop */
};

/* Position in b->mmio of the first range that ends above addr. */
unsigned bus_mmio_lower(const struct bus *b, uint64_t addr);
#endif
