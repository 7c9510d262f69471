/* devices/bus.h - who answers at which I/O port and which physical address.
 *
 * Role:     one registrar for both spaces. Chips see (offset in their range, size); splitting of accesses is done here, as a PC's
 *           bus does it: an access is cut into naturally aligned pieces of at most the chip's max_size, lowest address first,
 *           and may be answered by several chips. What nobody decodes reads all-ones, ignores writes and is logged (-d unimp).
 * Refused:  zero length, wrap-around, ranges outside the space, overlap with another range of the same space.
 * Owner:    bus_create/bus_destroy; ops and opaque must outlive the range. Names are not copied.
 * Threads:  machine thread. Callbacks may add and remove ranges, their own included (PCI BARs): nothing of a range is
 *           touched after its callback was called.
 */
#ifndef DEVICES_BUS_H
#define DEVICES_BUS_H
#include "devices/fpu_hook.h"
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct bus;
enum bus_space { BUS_PIO, BUS_MMIO };

struct bus_ops {
    /* size is 1, 2, 4 or 8, at most max_size; offset is a multiple of it if the range's base is. Bits of the value above size
     * are ignored on reads and zero on writes. A NULL read gives all-ones, a NULL write is ignored (both silently). */
    uint64_t (*read)(void *opaque, uint64_t offset, unsigned size);
    void (*write)(void *opaque, uint64_t offset, unsigned size, uint64_t val);
    uint8_t max_size; /* 1, 2, 4, 8 (8: MMIO only); 0 means 1 */
    bool nofpu;       /* the callbacks are nofpu code: fpu_hook.h */
};
struct bus_range {
    const char *name;
    enum bus_space space;
    uint64_t base, len;
    const struct bus_ops *ops;
    void *opaque;
};

int bus_create(struct bus **out);
void bus_destroy(struct bus *b);
/* What to call before callbacks that are not nofpu. */
void bus_set_fpu(struct bus *b, struct fpu_hook hook);
/* Returns a handle >= 0 for bus_remove, or -RD_E_INVAL (length, wrap, max_size), -RD_E_BUSY (overlap), -RD_E_NOMEM. Guest-driven
 * callers (BARs) treat BUSY as "not decoded for now" and try again when another range has moved. */
int bus_add(struct bus *b, const struct bus_range *r);
void bus_remove(struct bus *b, int handle);
/* The range that decodes an address, or NULL; valid until the next add or remove. */
const struct bus_range *bus_find(const struct bus *b, enum bus_space space, uint64_t addr);

/* size 1, 2, 4. Always complete: there is no port that exits to the embedder. */
uint32_t bus_pio_read(struct bus *b, uint16_t port, unsigned size);
void bus_pio_write(struct bus *b, uint16_t port, unsigned size, uint32_t val);
/* n = 1..64 bytes, guest byte order. */
void bus_mmio_read(struct bus *b, uint64_t gpa, void *data, unsigned n);
void bus_mmio_write(struct bus *b, uint64_t gpa, const void *data, unsigned n);

/* Map of both spaces in address order, for people. */
void bus_dump(const struct bus *b, FILE *f);
#endif
