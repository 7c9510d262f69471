/* shadowmmu/uworld_cpu.c - on which CPU a world's threads run, and what a switch between them and the monitor costs there.
 *
 * A hand-off to a thread that spins on another CPU takes nothing; one to a thread that sleeps there takes an interrupt to that CPU, tens of us
 * in a virtual machine; one to a thread that sleeps on this CPU takes two switches. So a world whose turns are short and follow one
 * another closely is kept apart from the monitor, and both spin (uworld_run.c); one whose turns, or what is between them, are longer than
 * anybody spins for shares the monitor's CPU, and leaves the others alone. So do new ones: most programs do not live long.
 */
#define _GNU_SOURCE
#include "shadowmmu/uworld_int.h"
#include <sched.h>

#define SHORT_TURNS 32u /* in a row, of a world that shares; doubled by each try to be apart that did not last */
#define MAX_RETRIES 6u
#define GOOD_TURNS 256u /* of a world that is apart: it was right */
/* A turn apart that ended with one side asleep costs as much as so many that did not save: two interrupts to idle CPUs, and the spinning. */
#define SLOW_TURN 32u
/* ... and one that came after another world's, whose thread may spin where this one's is to run. */
#define TAKING_TURNS 8u
#define DEBT_LIMIT (3 * SLOW_TURN)
#define SETTLING 4u /* turns until both spin: the first ones wait for CPUs to wake up */

static bool bind_to(pid_t tid, int cpu)
{
    cpu_set_t here;
    CPU_ZERO(&here);
    CPU_SET((unsigned)cpu, &here);
    return sched_setaffinity(tid, sizeof here, &here) == 0;
}

void uw_cpu_init(struct uw_pool *p)
{
    p->shared_cpu = -1;
    if (sched_getaffinity(0, sizeof p->cpus, &p->cpus))
        CPU_ZERO(&p->cpus);
    p->several_cpus = CPU_COUNT(&p->cpus) > 1;
}

void uw_rest(struct uw_pool *p)
{
    if (p->shared_cpu >= 0) {
        sched_setaffinity(0, sizeof p->cpus, &p->cpus);
        p->shared_cpu = -1;
    }
}

void uw_cpu_mapper(struct uworld *w)
{
    int cpu = sched_getcpu();
    if (cpu != w->mapper_cpu && cpu >= 0 && cpu < CPU_SETSIZE && bind_to(w->mapper, cpu))
        w->mapper_cpu = cpu;
}

static void come_together(struct uworld *w)
{
    struct uw_pool *p = w->pool;
    if (p->shared_cpu < 0) {
        int cpu = sched_getcpu();
        if (cpu < 0 || cpu >= CPU_SETSIZE || sched_getaffinity(0, sizeof p->cpus, &p->cpus) || !bind_to(0, cpu))
            return;
        p->shared_cpu = cpu;
    }
    if (w->guest_cpu != p->shared_cpu && bind_to(w->pid, p->shared_cpu)) {
        w->guest_cpu = p->shared_cpu;
        w->away = false;
    }
}

/* The guest thread goes to another CPU than the monitor is on now. It must be told: it sleeps where it ran last, that is here, and a thread that
 * is woken need not be put elsewhere, and if both are here none of the two can spin for the other. Where the monitor goes from now on is up to the
 * host. If it comes after the guest thread, spinning fails, and they meet again. */
static void go_apart(struct uworld *w)
{
    struct uw_pool *p = w->pool;
    if (!w->away) {
        cpu_set_t others = p->cpus;
        int cpu = sched_getcpu();
        if (cpu >= 0 && cpu < CPU_SETSIZE)
            CPU_CLR((unsigned)cpu, &others);
        sched_setaffinity(w->pid, sizeof others, &others);
        w->guest_cpu = -1;
        w->away = true;
    }
    if (p->shared_cpu >= 0 && sched_setaffinity(0, sizeof p->cpus, &p->cpus) == 0)
        p->shared_cpu = -1;
}

void uw_cpu_before(struct uworld *w)
{
    struct uw_pool *p = w->pool;
    if (!p->several_cpus)
        return;
    w->pause = uw_tsc() - w->back;
    w->follows = p->last == w;
    p->last = w;
    if (w->shares)
        come_together(w);
    else
        go_apart(w);
}

uint64_t uw_cpu_spin(const struct uworld *w)
{
    return w->shares ? 0 : w->settling ? SETTLING * w->pool->spin_max : w->pool->spin_max;
}

bool uw_shares(const struct uworld *w) { return w->shares || !w->pool->several_cpus; }

void uw_cpu_share(struct uworld *w)
{
    w->shares = true;
    w->streak = 0;
}

static void part(struct uworld *w)
{
    /* Where the other CPUs are busy it does not pay, however short the turns are: tried again after twice as many. */
    w->retries += w->retries < MAX_RETRIES;
    w->shares = w->away = false;
    w->streak = w->debt = 0;
    w->settling = SETTLING;
    w->pool->counts.parted++;
}

static void after_apart(struct uworld *w, bool slow)
{
    if (w->settling) {
        w->settling--;
        return;
    }
    if (slow)
        w->debt += SLOW_TURN;
    else if (!w->follows)
        w->debt += TAKING_TURNS;
    else
        w->debt -= w->debt > 0;
    if (w->debt >= DEBT_LIMIT) {
        uw_cpu_share(w);
        return;
    }
    if (w->streak < GOOD_TURNS && ++w->streak == GOOD_TURNS)
        w->retries = 0;
}

void uw_cpu_after(struct uworld *w, uint64_t ticks)
{
    uint64_t max = w->pool->spin_max;
    w->back = uw_tsc();
    if (!w->pool->several_cpus)
        return;
    if (!w->shares) {
        after_apart(w, ticks > max || w->pause > max);
        return;
    }
    w->streak = w->follows && ticks < max / 2 && w->pause < max / 2 ? w->streak + 1 : 0;
    if (w->streak >= SHORT_TURNS << w->retries)
        part(w);
}
