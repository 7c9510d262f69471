/* devices/lapic_timer.c - the LAPIC's timer: one-shot, periodic, TSC deadline (SDM 3A 11.5.4). Policy: see lapic.h. nofpu: the clock
 * and the timers are not, and are called behind fpu_hook_leave. */
#include "devices/lapic_int.h"
#include "devices/tsc.h"

/* The host timer is not set finer than this; expiries in between are counted, not waited for. */
#define MIN_REARM_NS 50000u

static uint64_t divisor(const struct lapic *l)
{
    unsigned code = (l->s.divide & 3) | (l->s.divide >> 1 & 4); /* bits 0, 1 and 3 */
    return 1ull << ((code + 1) & 7);
}

static unsigned mode(const struct lapic *l) { return LVT_TIMER_MODE(l->s.lvt[LVT_TIMER]); }
static uint64_t now(const struct lapic *l)
{
    fpu_hook_leave(&l->cfg.fpu);
    return vtime_now(l->cfg.loop);
}

static void deliver(struct lapic *l)
{
    if (!(l->s.lvt[LVT_TIMER] & LVT_MASKED))
        lapic_accept(l, LVT_VECTOR(l->s.lvt[LVT_TIMER]), false);
}

/* n periods have passed: one interrupt, the others are owed. */
static void ticks(struct lapic *l, uint64_t n)
{
    uint32_t lvt = l->s.lvt[LVT_TIMER];
    if (lvt & LVT_MASKED) {
        l->s.owed = 0;
        return;
    }
    lapic_sync_pv_eoi(l);
    if (!lapic_has_irr(l, LVT_VECTOR(lvt))) {
        lapic_accept(l, LVT_VECTOR(lvt), false);
        n--;
    }
    if (l->s.period_ns < LAPIC_OWED_MIN_PERIOD_NS)
        return;
    l->s.owed = n > LAPIC_MAX_OWED - l->s.owed ? LAPIC_MAX_OWED : l->s.owed + (uint32_t)n;
}

void lapic_timer_eoi(struct lapic *l, uint8_t vector)
{
    uint32_t lvt = l->s.lvt[LVT_TIMER];
    if (!l->s.owed || LVT_VECTOR(lvt) != vector || (lvt & LVT_MASKED) || lapic_has_irr(l, vector))
        return;
    l->s.owed--;
    lapic_accept(l, vector, false);
}

void lapic_timer_rearm(struct lapic *l)
{
    uint64_t t = now(l), at = VTIME_NEVER;
    if (mode(l) == TIMER_TSC_DEADLINE) {
        if (l->s.tsc_deadline) {
            uint64_t tsc = guest_tsc_read(l->cfg.tsc), left = l->s.tsc_deadline > tsc ? l->s.tsc_deadline - tsc : 0;
            uint64_t ns = tsc_ticks_to_ns(left, l->cfg.tsc->hz);
            at = ns > VTIME_NEVER - 1 - t ? VTIME_NEVER - 1 : t + ns;
        }
    } else if (l->s.next_ns) {
        at = l->s.next_ns;
    }
    vtimer_arm(&l->timer, at);
}

static void periodic_fired(struct lapic *l, uint64_t t)
{
    uint64_t n = 1 + (t - l->s.next_ns) / l->s.period_ns;
    l->s.next_ns += n * l->s.period_ns;
    vtimer_arm(&l->timer, l->s.next_ns > t + MIN_REARM_NS ? l->s.next_ns : t + MIN_REARM_NS);
    ticks(l, n);
}

void lapic_timer_fired(void *opaque)
{
    struct lapic *l = opaque;
    uint64_t t = now(l);
    if (mode(l) == TIMER_TSC_DEADLINE) {
        if (!l->s.tsc_deadline)
            return;
        if (guest_tsc_read(l->cfg.tsc) < l->s.tsc_deadline) {
            lapic_timer_rearm(l);
            return;
        }
        l->s.tsc_deadline = 0;
        deliver(l);
    } else if (l->s.next_ns > t) {
        lapic_timer_rearm(l);
    } else if (l->s.next_ns && mode(l) == TIMER_PERIODIC) {
        periodic_fired(l, t);
    } else if (l->s.next_ns) {
        l->s.next_ns = 0;
        deliver(l);
    }
}

uint32_t lapic_timer_current(struct lapic *l)
{
    uint64_t t = now(l), left;
    if (!l->s.next_ns || mode(l) == TIMER_TSC_DEADLINE)
        return 0;
    if (l->s.next_ns > t)
        left = l->s.next_ns - t;
    else if (mode(l) == TIMER_PERIODIC) /* the host is late: what hardware would show */
        left = l->s.period_ns - (t - l->s.next_ns) % l->s.period_ns;
    else
        left = 0;
    return (uint32_t)((left + divisor(l) - 1) / divisor(l));
}

void lapic_timer_set_count(struct lapic *l, uint32_t count)
{
    if (mode(l) == TIMER_TSC_DEADLINE)
        return; /* ignored in this mode */
    l->s.initial_count = count;
    l->s.owed = 0;
    l->s.period_ns = count * divisor(l);
    l->s.next_ns = count ? now(l) + l->s.period_ns : 0;
    lapic_timer_rearm(l);
}

void lapic_timer_set_divide(struct lapic *l, uint32_t divide)
{
    uint64_t left = lapic_timer_current(l);
    l->s.divide = divide;
    if (!l->s.next_ns)
        return;
    l->s.period_ns = l->s.initial_count * divisor(l);
    l->s.next_ns = now(l) + left * divisor(l);
    lapic_timer_rearm(l);
}

void lapic_timer_set_deadline(struct lapic *l, uint64_t deadline)
{
    if (mode(l) != TIMER_TSC_DEADLINE)
        return; /* the write has no effect, the MSR reads as zero (SDM 11.5.4.1) */
    l->s.tsc_deadline = deadline;
    fpu_hook_leave(&l->cfg.fpu);
    if (deadline && guest_tsc_read(l->cfg.tsc) >= deadline)
        lapic_timer_fired(l);
    lapic_timer_rearm(l);
}

void lapic_timer_lvt_changed(struct lapic *l, uint32_t old)
{
    unsigned was = LVT_TIMER_MODE(old), is = mode(l);
    if (LVT_VECTOR(old) != LVT_VECTOR(l->s.lvt[LVT_TIMER]) || (l->s.lvt[LVT_TIMER] & LVT_MASKED))
        l->s.owed = 0;
    if (was == is)
        return;
    l->s.owed = 0;
    if (was == TIMER_TSC_DEADLINE || is == TIMER_TSC_DEADLINE) { /* entering or leaving disarms */
        l->s.tsc_deadline = 0;
        l->s.next_ns = 0;
        l->s.initial_count = 0;
    }
    lapic_timer_rearm(l);
}

void lapic_time_changed(struct lapic *l) { lapic_timer_rearm(l); }
