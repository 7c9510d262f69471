/* monitor/wintax.c - does the window pay? Kernels whose pages are not global (page-table isolation, no CR4.PGE) lose them from the window
 * at every CR3 load and fault on each again: a host signal, a walk and two system calls, for what the soft TLB does in a call. nofpu.
 *
 * The tax, time spent on such faults, is compared with the CPU time that passes. A guest for which it is too high several times in a
 * row gets no more window sites, and those there are become soft as they fault on pages that are not global. Until reset.
 */
#include "base/clock.h"
#include "monitor/vm_int.h"
#include "shadowmmu/hostcall.h"

#define FAULT_NS 12000u /* what a hidden fault with its share of the flush costs (bench/run, ctx-switch) */
#define FLUSHES 128u    /* between two looks at the clock, which is a system call */
#define PERIOD_NS 5000000u
#define MAX_SHARE 4 /* a quarter */
#define STRIKES 4

void wintax_fault(struct vcpu *v) { v->priv->tax.faults++; }

static uint64_t cpu_ns(void)
{
    struct timespec t = {0};
    hostcall6(SYS_clock_gettime, CLOCK_THREAD_CPUTIME_ID, (int64_t)(uintptr_t)&t, 0, 0, 0, 0);
    return clock_ns_of(&t);
}

/* A flush of what is not global. */
void wintax_flush(struct vcpu *v)
{
    struct wintax *t = &v->priv->tax;
    if (!t->faults || t->too_high || v->vm->cfg.trap || ++t->flushes % FLUSHES)
        return;
    uint64_t now = cpu_ns(), passed = now - t->since;
    if (passed < PERIOD_NS)
        return;
    bool high = t->faults * FAULT_NS > passed / MAX_SHARE;
    t->strikes = t->since && high ? t->strikes + 1 : 0;
    t->faults = 0;
    t->since = now;
    if (t->strikes < STRIKES)
        return;
    t->too_high = true;
    v->stats->window_given_up++;
}

void wintax_reset(struct vcpu *v) { v->priv->tax = (struct wintax){0}; }
