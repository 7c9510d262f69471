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

#define LONG_TURNS 2u  /* in a row, of a world that is apart */
#define SHORT_TURNS 8u /* ... that shares; doubled by each try to be apart */
#define MAX_RETRIES 7u
#define GOOD_TURNS 64u /* of a world that is apart: it was right */

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
    if (w->guest_cpu != p->shared_cpu && bind_to(w->pid, p->shared_cpu))
        w->guest_cpu = p->shared_cpu;
}

static void go_apart(struct uworld *w)
{
    struct uw_pool *p = w->pool;
    if (w->guest_cpu >= 0 && sched_setaffinity(w->pid, sizeof p->cpus, &p->cpus) == 0)
        w->guest_cpu = -1;
    if (p->shared_cpu >= 0 && sched_setaffinity(0, sizeof p->cpus, &p->cpus) == 0)
        p->shared_cpu = -1;
}

void uw_cpu_before(struct uworld *w)
{
    struct uw_pool *p = w->pool;
    if (!p->several_cpus)
        return;
    w->pause = uw_tsc() - w->back;
    if (w->shares)
        come_together(w);
    else
        go_apart(w);
}

void uw_cpu_after(struct uworld *w, uint64_t ticks)
{
    uint64_t max = w->pool->spin_max;
    /* Apart and asleep is the worst of all. */
    bool failed = w->spin_monitor.skip || ticks > max || w->pause > max;
    bool against = w->shares ? ticks < max / 2 && w->pause < max / 2 : failed;
    w->back = uw_tsc();
    w->streak = against ? w->streak + 1 : 0;
    if (w->streak < (w->shares ? SHORT_TURNS << w->retries : LONG_TURNS)) {
        if (!w->shares && !failed && w->spun < GOOD_TURNS && ++w->spun == GOOD_TURNS)
            w->retries = 0;
        return;
    }
    /* Where the other CPUs are busy it does not pay, however short the turns are: tried again after twice as many. */
    if (w->shares)
        w->retries += w->retries < MAX_RETRIES;
    w->shares = !w->shares;
    w->streak = w->spun = 0;
    w->spin_monitor = w->spin_guest = (struct uw_spinner){0};
}
