/* devices/hpet.c - see hpet.h. Register numbers and bits: IA-PC HPET specification 1.0a, section 2.3. */
#include "devices/hpet.h"
#include "base/check.h"
#include "base/err.h"
#include "devices/bus.h"
#include <string.h>

enum { REG_ID = 0x00, REG_CONFIG = 0x10, REG_STATUS = 0x20, REG_COUNTER = 0xf0, REG_TIMER = 0x100 };
enum { TIMER_CONFIG = 0x00, TIMER_COMPARATOR = 0x08, TIMER_STRIDE = 0x20 };
#define CONFIG_ENABLE 1u
#define CONFIG_LEGACY 2u
#define T_LEVEL 0x0002u
#define T_ENABLE 0x0004u
#define T_PERIODIC 0x0008u
#define T_SET_ACCUMULATOR 0x0040u
#define T_32BIT 0x0100u
#define T_ROUTE_SHIFT 9
#define T_WRITABLE 0x3f0eu
#define T_CAPS 0x0030u /* periodic, 64 bits */
#define ROUTE_CAPS (((1u << HPET_PINS) - 1) << HPET_PIN_FIRST)
#define MIN_REARM_NS 50000u

static bool running(const struct hpet *h) { return h->s.config & CONFIG_ENABLE; }
static bool legacy(const struct hpet *h) { return h->s.config & CONFIG_LEGACY; }

static uint64_t elapsed_ticks(const struct hpet *h) { return (vtime_now(h->loop) - h->s.start_ns) / HPET_TICK_NS; }

static uint64_t counter(const struct hpet *h) { return running(h) ? h->s.counter + elapsed_ticks(h) : h->s.counter; }

static uint64_t width_mask(const struct hpet *h, unsigned n)
{
    return h->s.tconfig[n] & T_32BIT ? UINT32_MAX : UINT64_MAX;
}

/* -- outputs -- */
static void update_pins(struct hpet *h)
{
    unsigned active = 0;
    for (unsigned n = 0; n < HPET_TIMERS; n++) {
        unsigned route = h->s.tconfig[n] >> T_ROUTE_SHIFT & 31;
        bool own = !(legacy(h) && n < 2);
        if (own && (h->s.status >> n & 1) && (h->s.tconfig[n] & T_ENABLE) && route - HPET_PIN_FIRST < HPET_PINS)
            active |= 1u << (route - HPET_PIN_FIRST);
    }
    for (unsigned i = 0; i < HPET_PINS; i++)
        irq_set(&h->pin[i], active >> i & 1);
}

static void interrupt(struct hpet *h, unsigned n)
{
    uint32_t c = h->s.tconfig[n];
    unsigned route = c >> T_ROUTE_SHIFT & 31;
    if (c & T_LEVEL) {
        h->s.status |= 1u << n;
        update_pins(h);
    } else if (c & T_ENABLE) {
        if (legacy(h) && n < 2)
            irq_pulse(&h->legacy[n]);
        else if (route - HPET_PIN_FIRST < HPET_PINS)
            irq_pulse(&h->pin[route - HPET_PIN_FIRST]);
    }
}

/* -- matching -- */
static void arm(struct hpet *h, unsigned n, uint64_t not_before)
{
    uint64_t mask = width_mask(h, n), at = VTIME_NEVER;
    if (running(h)) {
        uint64_t done = elapsed_ticks(h), left = (h->s.comparator[n] - (h->s.counter + done)) & mask;
        if (left == 0 && mask == UINT32_MAX)
            left = 1ull << 32; /* just matched: once round */
        unsigned __int128 ns = ((unsigned __int128)done + left) * HPET_TICK_NS + h->s.start_ns;
        if (left && ns < VTIME_NEVER)
            at = (uint64_t)ns < not_before ? not_before : (uint64_t)ns;
    }
    vtimer_arm(&h->timer[n].vtimer, at);
}

/* The match that the host timer was armed for has come, perhaps long ago. */
static void match(struct hpet *h, unsigned n)
{
    uint64_t mask = width_mask(h, n), not_before = 0, period = h->s.period[n] & mask;
    if ((h->s.tconfig[n] & T_PERIODIC) && period) {
        uint64_t late = (counter(h) - h->s.comparator[n]) & mask;
        h->s.comparator[n] = (h->s.comparator[n] + (late / period + 1) * period) & mask;
        not_before = vtime_now(h->loop) + MIN_REARM_NS;
    }
    arm(h, n, not_before);
    interrupt(h, n);
}

static void timer_fired(void *opaque)
{
    struct hpet_timer *t = opaque;
    match(t->hpet, (unsigned)(t - t->hpet->timer));
}

/* Before registers change: a match that is due but whose host timer has not run yet must not be forgotten. */
static void run_due(struct hpet *h)
{
    uint64_t now = vtime_now(h->loop);
    for (unsigned n = 0; n < HPET_TIMERS; n++) {
        if (vtimer_is_armed(&h->timer[n].vtimer) && h->timer[n].vtimer.deadline <= now)
            match(h, n);
    }
}

static void arm_all(struct hpet *h)
{
    for (unsigned n = 0; n < HPET_TIMERS; n++)
        arm(h, n, 0);
}

/* -- registers -- */
static uint64_t read_timer(const struct hpet *h, unsigned n, unsigned reg)
{
    if (reg == TIMER_CONFIG)
        return (uint64_t)ROUTE_CAPS << 32 | T_CAPS | h->s.tconfig[n];
    return reg == TIMER_COMPARATOR ? h->s.comparator[n] : 0;
}

static uint64_t read_reg(const struct hpet *h, unsigned reg)
{
    switch (reg) {
    case REG_ID: return (uint64_t)HPET_TICK_NS * 1000000 << 32 | HPET_BLOCK_ID; /* period in fs */
    case REG_CONFIG: return h->s.config;
    case REG_STATUS: return h->s.status;
    case REG_COUNTER: return counter(h);
    default: break;
    }
    unsigned n = (reg - REG_TIMER) / TIMER_STRIDE;
    return reg >= REG_TIMER && n < HPET_TIMERS ? read_timer(h, n, reg % TIMER_STRIDE) : 0;
}

static void write_config(struct hpet *h, uint32_t val)
{
    bool was_legacy = legacy(h);
    uint64_t c = counter(h);
    h->s.config = val & (CONFIG_ENABLE | CONFIG_LEGACY);
    h->s.counter = c;
    h->s.start_ns = vtime_now(h->loop);
    arm_all(h);
    for (unsigned i = 0; i < 2 && legacy(h) != was_legacy; i++)
        irq_set(&h->legacy[i], !legacy(h) && h->s.legacy_in[i]);
    update_pins(h);
}

static void write_comparator(struct hpet *h, unsigned n, uint64_t val, uint64_t mask)
{
    uint64_t width = width_mask(h, n);
    bool periodic = h->s.tconfig[n] & T_PERIODIC;
    if (!periodic || (h->s.set_accumulator >> n & 1))
        h->s.comparator[n] = ((h->s.comparator[n] & ~mask) | (val & mask)) & width;
    if (periodic)
        h->s.period[n] = ((h->s.period[n] & ~mask) | (val & mask)) & width;
    h->s.set_accumulator &= (uint8_t) ~(1u << n);
    arm(h, n, 0);
}

static void write_timer(struct hpet *h, unsigned n, unsigned reg, uint64_t val, uint64_t mask)
{
    if (reg == TIMER_COMPARATOR) {
        write_comparator(h, n, val, mask);
        return;
    }
    if (reg != TIMER_CONFIG)
        return;
    uint32_t c = (uint32_t)((h->s.tconfig[n] & ~mask) | (val & mask));
    if (val & mask & T_SET_ACCUMULATOR)
        h->s.set_accumulator |= (uint8_t)(1u << n);
    h->s.tconfig[n] = c & T_WRITABLE;
    h->s.comparator[n] &= width_mask(h, n);
    h->s.period[n] &= width_mask(h, n);
    if (!(c & T_LEVEL))
        h->s.status &= ~(1u << n);
    arm(h, n, 0);
    update_pins(h);
}

static uint64_t block_read(void *opaque, uint64_t offset, unsigned size)
{
    return read_reg(opaque, (unsigned)offset & ~7u) >> 8 * (offset & 7);
}

static void block_write(void *opaque, uint64_t offset, unsigned size, uint64_t val)
{
    struct hpet *h = opaque;
    unsigned reg = (unsigned)offset & ~7u, shift = 8 * (offset & 7), n = (reg - REG_TIMER) / TIMER_STRIDE;
    uint64_t mask = (size == 8 ? UINT64_MAX : (1ull << 8 * size) - 1) << shift;
    val <<= shift;
    run_due(h);
    if (reg == REG_CONFIG) {
        write_config(h, (uint32_t)((h->s.config & ~mask) | (val & mask)));
    } else if (reg == REG_STATUS) {
        h->s.status &= ~(uint32_t)(val & mask);
        update_pins(h);
    } else if (reg == REG_COUNTER) {
        if (!running(h)) /* undefined while it runs */
            h->s.counter = (h->s.counter & ~mask) | (val & mask);
    } else if (reg >= REG_TIMER && n < HPET_TIMERS) {
        write_timer(h, n, reg % TIMER_STRIDE, val, mask);
    }
}

static const struct bus_ops block_ops = {.read = block_read, .write = block_write, .max_size = 8};

static void legacy_input(void *opaque, int n, bool level)
{
    struct hpet *h = opaque;
    h->s.legacy_in[n] = level;
    if (!legacy(h))
        irq_set(&h->legacy[n], level);
}

struct irq_line hpet_legacy_in(struct hpet *h, unsigned n)
{
    CHECK(n < 2);
    return (struct irq_line){.fn = legacy_input, .opaque = h, .n = (int)n};
}

/* -- reset and saved state -- */
static void hpet_reset(void *dev)
{
    struct hpet *h = dev;
    bool in[2] = {h->s.legacy_in[0], h->s.legacy_in[1]}, was_legacy = legacy(h);
    memset(&h->s, 0, sizeof(h->s));
    for (unsigned i = 0; i < HPET_TIMERS; i++)
        h->s.comparator[i] = UINT64_MAX;
    arm_all(h);
    update_pins(h);
    for (unsigned i = 0; i < 2; i++) {
        h->s.legacy_in[i] = in[i];
        if (was_legacy)
            irq_set(&h->legacy[i], in[i]);
    }
}

int hpet_init(struct hpet *h, struct bus *b, struct evloop *loop, const struct irq_line legacy_out[2],
              const struct irq_line pin[HPET_PINS])
{
    memset(h, 0, sizeof(*h));
    h->loop = loop;
    memcpy(h->legacy, legacy_out, sizeof(h->legacy));
    memcpy(h->pin, pin, sizeof(h->pin));
    for (unsigned i = 0; i < HPET_TIMERS; i++) {
        h->timer[i].hpet = h;
        vtimer_init(&h->timer[i].vtimer, loop, timer_fired, &h->timer[i]);
    }
    hpet_reset(h);
    struct bus_range r = {"hpet", BUS_MMIO, HPET_BASE, HPET_BYTES, &block_ops, h};
    int handle = bus_add(b, &r);
    return handle < 0 ? handle : 0;
}

#define F(m) DEV_FIELD(__typeof__(((struct hpet *)0)->s), m)
#define A(m) DEV_ARRAY(__typeof__(((struct hpet *)0)->s), m)
static const struct dev_field fields[] = {
    F(config),     F(status), F(start_ns),        F(counter),   A(tconfig),
    A(comparator), A(period), F(set_accumulator), A(legacy_in),
};

static void hpet_save(const void *dev, struct dev_writer *w)
{
    const struct hpet *h = dev;
    dev_put_fields(w, &h->s, fields, DEV_COUNT(fields));
}

static int hpet_restore(void *dev, struct dev_reader *r, uint16_t version)
{
    struct hpet *h = dev;
    __typeof__(h->s) in = h->s;
    dev_get_fields(r, &in, fields, DEV_COUNT(fields));
    if (r->failed || in.config & ~(CONFIG_ENABLE | CONFIG_LEGACY) || in.status >> HPET_TIMERS ||
        in.set_accumulator >> HPET_TIMERS || in.start_ns > vtime_now(h->loop))
        return -RD_E_FORMAT;
    for (unsigned i = 0; i < HPET_TIMERS; i++) {
        if (in.tconfig[i] & ~T_WRITABLE)
            return -RD_E_FORMAT;
    }
    h->s = in;
    arm_all(h);
    return 0;
}

const struct dev_ops hpet_dev_ops = {
    .type = "hpet",
    .version = 1,
    .reset = hpet_reset,
    .save = hpet_save,
    .restore = hpet_restore,
};
