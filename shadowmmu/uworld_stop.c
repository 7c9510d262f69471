/* shadowmmu/uworld_stop.c - has a guest thread stopped? nofpu.
 *
 * What it writes to its pages proves nothing: a hostile program can say that it has handed over, with a frame that looks like an event,
 * and run on with whatever is mapped. Only the host's kernel is believed here.
 */
#define _GNU_SOURCE
#include "shadowmmu/uworld_int.h"
#include "base/clock.h"
#include "shadowmmu/hostcall.h"
#include <linux/futex.h>
#include <sys/wait.h>
#include <time.h>

#define SPIN_TRIES 64u /* system calls: what a thread that spins on another CPU takes to fall asleep */
#define PAUSE_NS 20000 /* then it is given time: its CPU may be busy, or this one */
#define LIMIT_NS                                                                                                       \
    200000000ull /* nobody is kept waiting longer; the memory and registers of a world that is killed are all there */

/* Whether the guest thread sleeps in the stub's futex call: then it goes through the stub and our frame before it executes anything else
 * (UW-1), whatever it has done before and whatever is mapped. Only the host's kernel can make this answer 1: a waiter that is moved from
 * the turn word to the turn word stays where it is, and is counted. The filter lets the guest thread wait for this word by one instruction,
 * and nobody else waits for it while the monitor asks. */
bool uw_is_waiting(struct uworld *w)
{
    int64_t turn = (int64_t)(uintptr_t)&w->mb->turn, move = 1;
    return hostcall6(SYS_futex, turn, FUTEX_CMP_REQUEUE, 0, move, turn, UW_TURN_MONITOR) == 1;
}

static uint64_t now_ns(void)
{
    struct timespec t = {0};
    hostcall6(SYS_clock_gettime, CLOCK_MONOTONIC, (int64_t)(uintptr_t)&t, 0, 0, 0, 0);
    return clock_ns_of(&t);
}

/* Dead when this returns; reaped by whoever looks next. */
static void end(const struct uworld *w)
{
    siginfo_t info;
    hostcall6(SYS_kill, w->pid, SIGKILL, 0, 0, 0, 0);
    hostcall6(SYS_waitid, P_PID, w->pid, (int64_t)(uintptr_t)&info, WEXITED | WNOWAIT | __WALL, 0, 0);
}

bool uw_stop(struct uworld *w)
{
    if (w->life == UW_GONE || w->pid <= 0 || uw_is_waiting(w))
        return true;
    atomic_store(&w->hdr->stop, 1);
    for (unsigned i = 0; i < SPIN_TRIES && !w->shares; i++)
        if (uw_is_waiting(w))
            return true;
    /* One that shares this CPU has been interrupted on its way, by us: it woke us before it fell asleep. */
    for (unsigned i = 0; i < 4 && w->shares; i++) {
        hostcall6(SYS_sched_yield, 0, 0, 0, 0, 0, 0);
        if (uw_is_waiting(w))
            return true;
    }
    for (uint64_t until = now_ns() + LIMIT_NS; now_ns() < until;) {
        struct timespec t = {0, PAUSE_NS};
        hostcall6(SYS_nanosleep, (int64_t)(uintptr_t)&t, 0, 0, 0, 0, 0);
        siginfo_t info = {0};
        if (uw_is_waiting(w))
            return true;
        hostcall6(SYS_waitid, P_PID, w->pid, (int64_t)(uintptr_t)&info, WEXITED | WNOWAIT | WNOHANG | __WALL, 0, 0);
        if (info.si_pid)
            return true;
    }
    end(w);
    return false;
}
