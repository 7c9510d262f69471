#include "devices/pit.h"
#include "base/err.h"
#include "base/log.h"

enum { REFRESH_TICKS = 18 }; /* the refresh toggle of port 61h flips about every 15 us */
static const uint64_t REPAY_MIN_NS = 50000;
static const int64_t TICK_LIMIT = INT64_C(1) << 56; /* bound for restored times: sums stay far from overflow */

/* -- ticks ---- */

static int64_t ticks_at(uint64_t ns) { return (int64_t)((unsigned __int128)ns * PIT_HZ / NS_PER_SEC); }

/* First ns at which ticks_at() is tick. */
static uint64_t ns_of(int64_t tick) { return (uint64_t)(((unsigned __int128)tick * NS_PER_SEC + PIT_HZ - 1) / PIT_HZ); }

static int64_t now_ticks(const struct pit *p) { return ticks_at(vtime_now(p->loop)); }

static uint32_t modulus(const struct pit_channel *c) { return c->bcd ? 10000 : 65536; }

static bool periodic(const struct pit_channel *c) { return c->mode == 2 || c->mode == 3; }

static bool triggered(const struct pit_channel *c) { return c->mode == 1 || c->mode == 5; }

/* -- counting: everything follows from the progress e = ticks since the load ---- */

static int64_t progress(const struct pit_channel *c, int64_t t)
{
    int64_t e = c->halted ? c->held : t - c->start;
    return e < 0 ? 0 : e; /* the load itself happens one clock after the write */
}

/* Mode 3: clocks of the high half. */
static uint32_t high_half(uint32_t count) { return (count + 1) / 2; }

/* A count written to a running periodic counter takes effect at the end of the cycle (mode 2) or half-cycle (mode 3). */
static void settle(struct pit_channel *c, int64_t t)
{
    if (!periodic(c) || !c->next || c->halted || t < c->switch_at)
        return;
    bool low_half = c->mode == 3 && (c->switch_at - c->start) % c->count != 0;
    c->count = c->next;
    c->next = 0;
    c->start = c->switch_at - (low_half ? high_half(c->count) : 0);
}

static int64_t end_of_cycle(const struct pit_channel *c, int64_t t)
{
    int64_t e = progress(c, t), cycle = e - e % c->count;
    if (c->mode == 3 && e % c->count < high_half(c->count))
        return c->start + cycle + high_half(c->count);
    return c->start + cycle + c->count;
}

static uint32_t value_at(const struct pit_channel *c, int64_t t)
{
    if (!c->loaded)
        return c->idle;
    int64_t e = progress(c, t);
    uint32_t m = modulus(c), phase = (uint32_t)(e % c->count);
    if (c->mode == 2)
        return (c->count - phase) % m;
    if (c->mode == 3) {
        uint32_t high = high_half(c->count);
        return ((c->count & ~1u) - 2 * (phase < high ? phase : phase - high)) % m;
    }
    return (uint32_t)((c->count + m - (uint32_t)(e % m)) % m); /* one-shots go on counting past zero */
}

static bool out_at(const struct pit_channel *c, int64_t t)
{
    int64_t e = progress(c, t);
    if (!c->loaded)
        return c->mode != 0;
    switch (c->mode) {
    case 0:
    case 1: return e >= c->count;
    case 2: return !c->gate || c->count == 1 || e % c->count != c->count - 1;
    case 3: return !c->gate || e % c->count < high_half(c->count);
    default: return e != c->count;
    }
}

static bool null_count(const struct pit_channel *c, int64_t t)
{
    return !c->loaded || c->next || (!c->halted && t < c->start);
}

/* The k-th rising edge after the load is at start + first + k * period; period 0 = there is only one. */
static void edges(const struct pit_channel *c, int64_t *first, uint32_t *period)
{
    *first = c->mode >= 4 ? (int64_t)c->count + 1 : c->count;
    *period = periodic(c) ? c->count : 0;
}

static bool makes_edges(const struct pit_channel *c) { return c->loaded && !c->halted; }

static int64_t count_edges(const struct pit_channel *c, int64_t after, int64_t upto)
{
    int64_t first;
    uint32_t period;
    edges(c, &first, &period);
    first += c->start;
    if (!makes_edges(c) || upto < first)
        return 0;
    if (!period)
        return after < first;
    int64_t before = after < first ? 0 : (after - first) / period + 1;
    return (upto - first) / period + 1 - before;
}

static int64_t next_edge(const struct pit_channel *c, int64_t after)
{
    int64_t first;
    uint32_t period;
    edges(c, &first, &period);
    first += c->start;
    if (!makes_edges(c))
        return -1;
    if (after < first)
        return first;
    return period ? first + ((after - first) / period + 1) * period : -1;
}

/* -- channel 0's interrupt ---- */

static uint64_t period_ns(const struct pit_channel *c) { return ns_of(c->count); }

static uint32_t one_second(const struct pit_channel *c)
{
    uint32_t n = c->count ? PIT_HZ / c->count : 0;
    return n < 1 ? 1 : n > PIT_OWED_MAX ? PIT_OWED_MAX : n;
}

static bool gated_by_ack(const struct pit *p) { return p->ack_known && p->s.unanswered <= one_second(&p->s.ch[0]); }

static void rearm(struct pit *p)
{
    const struct pit_channel *c = &p->s.ch[0];
    int64_t edge = next_edge(c, p->s.counted);
    if (c->next && periodic(c) && c->switch_at > p->s.counted && (edge < 0 || edge > c->switch_at))
        edge = c->switch_at; /* the schedule changes there */
    uint64_t at = edge < 0 ? VTIME_NEVER : ns_of(edge);
    vtimer_arm(&p->timer, at < p->s.repay_at ? at : p->s.repay_at);
}

static void owe(struct pit *p, uint64_t n)
{
    uint64_t sum = p->s.owed + n;
    p->s.owed = sum > PIT_OWED_MAX ? PIT_OWED_MAX : (uint32_t)sum;
}

static void plan_repayment(struct pit *p)
{
    if (!p->s.owed || p->s.repay_at != VTIME_NEVER || (gated_by_ack(p) && p->s.unanswered))
        return;
    uint64_t gap = period_ns(&p->s.ch[0]) / 4;
    p->s.repay_at = vtime_now(p->loop) + (gap > REPAY_MIN_NS ? gap : REPAY_MIN_NS);
}

static void raise_edge(struct pit *p)
{
    if (p->s.unanswered < UINT32_MAX)
        p->s.unanswered++;
    irq_pulse(&p->irq);
}

/* Counts the edges of channel 0 up to t and delivers one for them. */
static void catch_up(struct pit *p, int64_t t)
{
    struct pit_channel *c = &p->s.ch[0];
    bool gated = gated_by_ack(p);
    bool switches = c->next && periodic(c) && !c->halted && t >= c->switch_at;
    int64_t split = switches ? c->switch_at : t;
    int64_t n = count_edges(c, p->s.counted, split);
    settle(c, t);
    if (switches)
        n += count_edges(c, split, t);
    p->s.counted = t;
    if (n > 0) {
        bool merged = gated && p->s.unanswered; /* the CPU has not seen the previous one: this edge is lost in it */
        owe(p, (uint64_t)(n - 1) + merged);
        raise_edge(p);
        if (p->ack_known && !gated_by_ack(p))
            p->s.owed = 0;
    }
}

static void on_timer(void *opaque)
{
    struct pit *p = opaque;
    uint64_t now = vtime_now(p->loop);
    catch_up(p, ticks_at(now));
    if (now >= p->s.repay_at) {
        p->s.repay_at = VTIME_NEVER;
        if (p->s.owed && !(gated_by_ack(p) && p->s.unanswered)) {
            p->s.owed--;
            raise_edge(p);
        }
    }
    plan_repayment(p);
    rearm(p);
}

void pit_irq_acked(struct pit *p)
{
    p->s.unanswered = 0;
    plan_repayment(p);
    if (p->s.owed)
        rearm(p);
}

/* Brings a channel's lazy state up to date before a register access. */
static int64_t sync(struct pit *p, unsigned n)
{
    int64_t t = now_ticks(p);
    if (n == 0)
        catch_up(p, t);
    else
        settle(&p->s.ch[n], t);
    return t;
}

/* After channel 0 was reprogrammed: edges of the past are gone, its output has the level given. */
static void restart_irq(struct pit *p, int64_t t, bool level)
{
    p->s.counted = t;
    p->s.owed = 0;
    p->s.repay_at = VTIME_NEVER;
    if (!level) /* an edge that waits is forgotten with its line */
        p->s.unanswered = 0;
    irq_set(&p->irq, level);
    rearm(p);
}

/* -- programming ---- */

static void load(struct pit_channel *c, int64_t t, uint32_t count)
{
    c->count = count;
    c->next = 0;
    c->start = t + 1;
    c->held = 0;
    c->loaded = true;
    c->halted = !c->gate && !triggered(c);
}

static uint32_t decode(const struct pit_channel *c, uint16_t raw)
{
    uint32_t v = raw;
    if (c->bcd)
        v = (raw >> 12) * 1000u + (raw >> 8 & 15) * 100u + (raw >> 4 & 15) * 10u + (raw & 15);
    return v ? v : modulus(c);
}

static uint16_t encode(const struct pit_channel *c, uint32_t v)
{
    if (!c->bcd)
        return (uint16_t)v;
    return (uint16_t)((v / 1000 % 10) << 12 | (v / 100 % 10) << 8 | (v / 10 % 10) << 4 | v % 10);
}

static void write_count(struct pit *p, unsigned n, int64_t t, uint16_t raw)
{
    struct pit_channel *c = &p->s.ch[n];
    uint32_t count = decode(c, raw);
    LOGF(TIMER, "pit: channel %u mode %u count %u", n, c->mode, count);
    if (triggered(c)) {
        c->next = count; /* waits for the gate */
    } else if (periodic(c) && c->loaded) {
        c->next = count;
        if (!c->halted)
            c->switch_at = end_of_cycle(c, t);
        if (n == 0) {
            p->s.owed = 0; /* ticks of the old rate mean nothing at the new one */
            rearm(p);
        }
    } else {
        load(c, t, count);
        if (n == 0)
            restart_irq(p, t, c->mode != 0);
    }
}

/* The first byte of a two-byte count stops mode 0 and drops its output. */
static void half_count(struct pit *p, unsigned n, int64_t t)
{
    struct pit_channel *c = &p->s.ch[n];
    if (c->mode != 0 || !c->loaded)
        return;
    c->idle = encode(c, value_at(c, t));
    c->loaded = false;
    if (n == 0)
        restart_irq(p, t, false);
}

static void write_data(struct pit *p, unsigned n, uint8_t val)
{
    struct pit_channel *c = &p->s.ch[n];
    int64_t t = sync(p, n);
    if (c->access == 3 && !c->write_msb) {
        c->write_lsb = val;
        c->write_msb = true;
        half_count(p, n, t);
        return;
    }
    uint16_t raw = c->access == 1 ? val : (uint16_t)(val << 8);
    if (c->access == 3)
        raw |= c->write_lsb;
    c->write_msb = false;
    write_count(p, n, t, raw);
}

static void latch_count(struct pit *p, unsigned n)
{
    struct pit_channel *c = &p->s.ch[n];
    int64_t t = sync(p, n);
    if (c->latched)
        return; /* a latch holds until it is read */
    uint16_t v = c->loaded ? encode(c, value_at(c, t)) : c->idle;
    c->latched = c->access == 3 ? 2 : 1;
    c->latch = c->access == 2 ? v >> 8 : v;
}

static void latch_status(struct pit *p, unsigned n)
{
    struct pit_channel *c = &p->s.ch[n];
    int64_t t = sync(p, n);
    if (c->status_latched)
        return;
    c->status_latched = true;
    c->status = (uint8_t)(out_at(c, t) << 7 | null_count(c, t) << 6 | c->control);
}

static void read_back(struct pit *p, uint8_t val)
{
    for (unsigned n = 0; n < 3; n++) {
        if (!(val >> (n + 1) & 1))
            continue;
        if (!(val & 0x20))
            latch_count(p, n);
        if (!(val & 0x10))
            latch_status(p, n);
    }
}

static void write_control(struct pit *p, uint8_t val)
{
    unsigned n = val >> 6;
    if (n == 3) {
        read_back(p, val);
        return;
    }
    if (!(val & 0x30)) {
        latch_count(p, n);
        return;
    }
    struct pit_channel *c = &p->s.ch[n];
    int64_t t = sync(p, n);
    uint16_t idle = c->loaded ? encode(c, value_at(c, t)) : c->idle;
    uint8_t mode = val >> 1 & 7;
    *c = (struct pit_channel){
        .gate = c->gate,
        .mode = mode > 5 ? mode - 4 : mode,
        .control = val & 0x3f,
        .bcd = val & 1,
        .access = val >> 4 & 3,
        .idle = idle,
    };
    if (n == 0)
        restart_irq(p, t, c->mode != 0);
}

static uint8_t read_data(struct pit *p, unsigned n)
{
    struct pit_channel *c = &p->s.ch[n];
    int64_t t = sync(p, n);
    if (c->status_latched) {
        c->status_latched = false;
        return c->status;
    }
    if (c->latched) {
        uint8_t val = (uint8_t)c->latch;
        c->latch >>= 8;
        c->latched--;
        return val;
    }
    uint16_t v = c->loaded ? encode(c, value_at(c, t)) : c->idle;
    bool msb = c->access == 2 || (c->access == 3 && c->read_msb);
    if (c->access == 3)
        c->read_msb = !c->read_msb;
    return (uint8_t)(msb ? v >> 8 : v);
}

static void set_gate(struct pit *p, unsigned n, bool gate)
{
    struct pit_channel *c = &p->s.ch[n];
    int64_t t = sync(p, n);
    if (c->gate == gate)
        return;
    c->gate = gate;
    if (triggered(c)) {
        if (gate && (c->next || c->loaded))
            load(c, t, c->next ? c->next : c->count);
    } else if (c->loaded && !gate) {
        c->held = progress(c, t);
        c->halted = true;
    } else if (c->loaded && periodic(c)) {
        load(c, t, c->next ? c->next : c->count); /* a trigger reloads */
    } else if (c->loaded) {
        c->start = t - c->held;
        c->halted = false;
    }
}

/* -- ports ---- */

static uint64_t pit_read(void *opaque, uint64_t offset, unsigned size)
{
    return offset == 3 ? 0xff : read_data(opaque, (unsigned)offset); /* the control register cannot be read */
}

static void pit_write(void *opaque, uint64_t offset, unsigned size, uint64_t val)
{
    if (offset == 3)
        write_control(opaque, (uint8_t)val);
    else
        write_data(opaque, (unsigned)offset, (uint8_t)val);
}

static uint64_t port61_read(void *opaque, uint64_t offset, unsigned size)
{
    struct pit *p = opaque;
    int64_t t = sync(p, 2);
    return (uint64_t)(p->s.port61 | (t / REFRESH_TICKS & 1) << 4 | out_at(&p->s.ch[2], t) << 5);
}

static void port61_write(void *opaque, uint64_t offset, unsigned size, uint64_t val)
{
    struct pit *p = opaque;
    p->s.port61 = val & 0x0f;
    set_gate(p, 2, val & 1);
}

bool pit_speaker_level(const struct pit *p)
{
    struct pit_channel c = p->s.ch[2];
    int64_t t = now_ticks(p);
    settle(&c, t);
    return (p->s.port61 & 3) == 3 && out_at(&c, t);
}

const struct bus_ops pit_ops = {.read = pit_read, .write = pit_write, .max_size = 1};
const struct bus_ops pit_port61_ops = {.read = port61_read, .write = port61_write, .max_size = 1};

/* -- life ---- */

static void reset(void *dev)
{
    struct pit *p = dev;
    p->s = (struct pit_state){.repay_at = VTIME_NEVER, .counted = now_ticks(p)};
    for (unsigned n = 0; n < 3; n++) {
        p->s.ch[n].gate = n != 2;
        p->s.ch[n].access = 3;
        p->s.ch[n].control = 0x30;
    }
    vtimer_cancel(&p->timer);
    irq_set(&p->irq, false);
}

void pit_init(struct pit *p, struct evloop *loop, struct irq_line irq0, bool ack_known)
{
    *p = (struct pit){.loop = loop, .irq = irq0, .ack_known = ack_known};
    vtimer_init(&p->timer, loop, on_timer, p);
    reset(p);
}

#define C(m) DEV_FIELD(struct pit_channel, m)
static const struct dev_field channel_fields[] = {
    C(mode),      C(control),        C(bcd),     C(access), C(gate),      C(write_msb), C(read_msb),
    C(write_lsb), C(status_latched), C(latched), C(status), C(latch),     C(loaded),    C(halted),
    C(count),     C(next),           C(start),   C(held),   C(switch_at), C(idle),
};
#define S(m) DEV_FIELD(struct pit_state, m)
static const struct dev_field state_fields[] = {S(port61), S(counted), S(owed), S(unanswered), S(repay_at)};
#undef C
#undef S

static void save(const void *dev, struct dev_writer *w)
{
    const struct pit *p = dev;
    for (unsigned n = 0; n < 3; n++)
        dev_put_fields(w, &p->s.ch[n], channel_fields, DEV_COUNT(channel_fields));
    dev_put_fields(w, &p->s, state_fields, DEV_COUNT(state_fields));
}

static bool in_range(int64_t t) { return t > -TICK_LIMIT && t < TICK_LIMIT; }

static bool channel_ok(const struct pit_channel *c)
{
    /* A BCD count may be written with digits above 9: 15 * 1111 at most. */
    bool counts = c->next <= 65536 && c->count <= 65536 && (c->count || !c->loaded);
    return c->mode <= 5 && c->control <= 0x3f && c->access >= 1 && c->access <= 3 && c->latched <= 2 && counts &&
           in_range(c->start) && in_range(c->held) && in_range(c->switch_at);
}

static int restore(void *dev, struct dev_reader *r, uint16_t version)
{
    struct pit *p = dev;
    struct pit_state s = {0};
    bool ok = true;
    for (unsigned n = 0; n < 3; n++) {
        dev_get_fields(r, &s.ch[n], channel_fields, DEV_COUNT(channel_fields));
        ok &= channel_ok(&s.ch[n]);
    }
    dev_get_fields(r, &s, state_fields, DEV_COUNT(state_fields));
    if (r->failed || !ok || !in_range(s.counted) || s.owed > PIT_OWED_MAX || s.port61 > 0x0f)
        return -RD_E_FORMAT;
    p->s = s;
    rearm(p);
    return 0;
}

const struct dev_ops pit_dev_ops = {.type = "pit", .version = 1, .reset = reset, .save = save, .restore = restore};
