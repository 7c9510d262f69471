/* tests/unit/devices/dev_ram.h - a little RAM for devices that do DMA, a recording interrupt sink, save/restore round trips. */
#ifndef TESTS_UNIT_DEVICES_DEV_RAM_H
#define TESTS_UNIT_DEVICES_DEV_RAM_H
#include "base/err.h"
#include "devices/dev.h"
#include "devices/gmem.h"
#include "devices/irq.h"
#include <criterion/criterion.h>
#include <string.h>

#define RAM_BYTES 0x20000u
struct dev_ram {
    uint8_t b[RAM_BYTES];
    unsigned writes;
};
static inline int dev_ram_read(void *opaque, uint64_t gpa, void *buf, size_t n)
{
    struct dev_ram *r = opaque;
    if (gpa > RAM_BYTES || n > RAM_BYTES - gpa)
        return -RD_E_RANGE;
    memcpy(buf, r->b + gpa, n);
    return 0;
}
static inline int dev_ram_write(void *opaque, uint64_t gpa, const void *buf, size_t n)
{
    struct dev_ram *r = opaque;
    if (gpa > RAM_BYTES || n > RAM_BYTES - gpa)
        return -RD_E_RANGE;
    memcpy(r->b + gpa, buf, n);
    r->writes++;
    return 0;
}
static inline struct gmem dev_ram_mem(struct dev_ram *r) { return (struct gmem){dev_ram_read, dev_ram_write, r}; }

/* Level and rising edges of up to 32 wires. */
struct dev_wires {
    uint32_t level;
    unsigned edges[32], calls;
};
static inline void dev_wires_set(void *opaque, int n, bool level)
{
    struct dev_wires *w = opaque;
    w->calls++;
    w->edges[n] += level && !(w->level >> n & 1);
    w->level = (w->level & ~(1u << n)) | (uint32_t)level << n;
}
static inline struct irq_line dev_wire(struct dev_wires *w, int n) { return (struct irq_line){dev_wires_set, w, n}; }

/* Saves, lets the caller's device be reset, restores, saves again: both images must be the same and not empty. */
static inline void dev_round_trip(const struct dev *d)
{
    struct dev_writer a = {0}, b = {0};
    cr_assert_eq(dev_save(&a, d), 0);
    d->ops->reset(d->state);
    struct dev_reader r = {.buf = a.buf, .len = a.len};
    cr_assert_eq(dev_restore(&r, d), 0);
    cr_assert_eq(dev_save(&b, d), 0);
    cr_assert_eq(a.len, b.len);
    cr_assert_eq(memcmp(a.buf, b.buf, a.len), 0, "%s: state changed in the round trip", d->ops->type);
    dev_writer_free(&a);
    dev_writer_free(&b);
}
/* Every truncation of an image must be refused and leave the device as it was. */
static inline void dev_refuses_truncation(const struct dev *d)
{
    struct dev_writer a = {0}, b = {0};
    cr_assert_eq(dev_save(&a, d), 0);
    for (size_t n = 0; n < a.len; n++) {
        struct dev_reader r = {.buf = a.buf, .len = n};
        cr_assert_neq(dev_restore(&r, d), 0, "%s: accepted %zu of %zu bytes", d->ops->type, n, a.len);
    }
    cr_assert_eq(dev_save(&b, d), 0);
    cr_assert(a.len == b.len && !memcmp(a.buf, b.buf, a.len));
    dev_writer_free(&a);
    dev_writer_free(&b);
}
#endif
