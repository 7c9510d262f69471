/* tests/unit/devices/fixture.h - what most device tests need: a loop with a test clock, a probe at the end of a line, a save/restore
 * round trip through the portable format. */
#ifndef TESTS_DEVICES_FIXTURE_H
#define TESTS_DEVICES_FIXTURE_H
#include "devices/bus.h"
#include "devices/dev.h"
#include "devices/irq.h"
#include "devices/vtime.h"
#include <criterion/criterion.h>
#include <string.h>

struct probe { /* sink that counts rising edges */
    bool level;
    unsigned rises, falls;
};

static inline void probe_set(void *opaque, int n, bool level)
{
    struct probe *p = opaque;
    p->rises += level && !p->level;
    p->falls += !level && p->level;
    p->level = level;
}

static inline struct irq_line probe_line(struct probe *p) { return (struct irq_line){.fn = probe_set, .opaque = p}; }

static inline struct evloop *test_loop(void)
{
    struct evloop *l;
    cr_assert_eq(evloop_create(&l, &(struct evloop_config){.test_clock = true}), 0);
    return l;
}

static inline void out8(const struct bus_ops *ops, void *dev, unsigned offset, uint8_t val)
{
    ops->write(dev, offset, 1, val);
}

static inline uint8_t in8(const struct bus_ops *ops, void *dev, unsigned offset)
{
    return (uint8_t)ops->read(dev, offset, 1);
}

/* Saves a, restores into b, and checks that b saves the same bytes. */
static inline void round_trip(const struct dev_ops *ops, void *a, void *b)
{
    struct dev_writer w = {0}, w2 = {0};
    struct dev da = {.ops = ops, .state = a}, db = {.ops = ops, .state = b};
    cr_assert_eq(dev_save(&w, &da), 0);
    struct dev_reader r = {.buf = w.buf, .len = w.len};
    cr_assert_eq(dev_restore(&r, &db), 0);
    cr_assert_eq(r.pos, w.len);
    cr_assert_eq(dev_save(&w2, &db), 0);
    cr_assert_eq(w.len, w2.len);
    cr_assert_arr_eq(w.buf, w2.buf, w.len);
    dev_writer_free(&w);
    dev_writer_free(&w2);
}

/* Every truncation and every byte set to 0xff must be refused or accepted, never crash; returns how many were refused. */
static inline unsigned forge(const struct dev_ops *ops, void *a, void *scratch)
{
    struct dev_writer w = {0};
    struct dev da = {.ops = ops, .state = a}, ds = {.ops = ops, .state = scratch};
    unsigned refused = 0;
    cr_assert_eq(dev_save(&w, &da), 0);
    for (size_t n = 0; n < w.len; n++) {
        struct dev_reader r = {.buf = w.buf, .len = n};
        cr_assert_neq(dev_restore(&r, &ds), 0, "truncated to %zu of %zu", n, w.len);
    }
    for (size_t i = 0; i < w.len; i++) {
        uint8_t was = w.buf[i];
        w.buf[i] = 0xff;
        struct dev_reader r = {.buf = w.buf, .len = w.len};
        refused += dev_restore(&r, &ds) != 0;
        w.buf[i] = was;
    }
    dev_writer_free(&w);
    return refused;
}
#endif
