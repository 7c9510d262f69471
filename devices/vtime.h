/* devices/vtime.h - virtual time, timers, and the event loop of the machine thread.
 *
 * Role:     the virtual clock counts ns from the machine's start; it follows CLOCK_MONOTONIC, can be paused, and is set
 *           when a snapshot is restored. Timers are armed for an absolute virtual time. File descriptors are watched for the devices.
 *           Nothing polls: while the guest runs, the earliest deadline is a POSIX timer that sends the kick signal to the machine
 *           thread, and a small helper thread sleeps in poll() and kicks once per batch of ready descriptors. While the guest is
 *           halted the machine thread sleeps in evloop_wait itself.
 * Threads:  everything on the machine thread, but for evloop_wake (any thread or signal handler). Callbacks always run on the
 *           machine thread, from evloop_run or evloop_wait; never from within vtimer_arm, vtimer_cancel or evfd_*.
 * Use:      for (;;) { r = vcpu_run(v);  r == KICK: evloop_run(l);  r == HLT: while (!interrupt pending) evloop_wait(l, -1); }
 * Late:     a callback may run any time after its deadline. Devices compute their state from vtime_now(), and coalesce (or
 *           count) events that were missed; a callback that re-arms for the past is called again in the same evloop_run, but
 *           a run is bounded, so that a guest that asks for absurd rates still runs and can still be stopped.
 */
#ifndef DEVICES_VTIME_H
#define DEVICES_VTIME_H
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define VTIME_NEVER UINT64_MAX
#define NS_PER_SEC 1000000000ull

struct evloop;
struct evloop_config {
    /* Makes the machine thread leave the TC soon: called by the helper thread (when descriptors are ready) and by
     * evloop_wake, so it must be async-signal-safe. May be NULL in tests. */
    void (*kick)(void *opaque);
    void *opaque;
    /* Signal that the run-time timer sends to the thread that calls evloop_create. Its handler belongs to the caller and
     * does what kick does. 0: no timer while the guest runs (tests). */
    int timer_signal;
    bool test_clock; /* time stands still but for vtime_test_advance */
};
int evloop_create(struct evloop **out, const struct evloop_config *cfg); /* 0, -RD_E_NOMEM, -RD_E_HOST */
void evloop_destroy(struct evloop *l); /* timers and evfds must not be used afterwards */

/* -- clock -- */
uint64_t vtime_now(const struct evloop *l);
void vtime_pause(
    struct evloop *l); /* the clock stands, no timer fires; descriptors still work. Nested calls do not count. */
void vtime_resume(struct evloop *l);
bool vtime_is_paused(const struct evloop *l);
/* Restoring: the clock continues from now. Call before devices are restored; armed timers keep their absolute deadlines. */
void vtime_set(struct evloop *l, uint64_t now);
/* CLOCK_REALTIME ns that belongs to virtual time 0 at the present rate (for RTC and kvm-clock). Test clock: a fixed date,
 * 2000-01-01 00:00:00 UTC, unless vtime_test_set_wall was called. */
int64_t vtime_wall_offset(const struct evloop *l);

/* -- timers -- */
struct vtimer {
    struct evloop *loop;
    void (*fn)(void *opaque);
    void *opaque;
    uint64_t deadline;
    uint32_t pos; /* 1 + index in the heap; 0 = not armed */
};
void vtimer_init(struct vtimer *t, struct evloop *l, void (*fn)(void *opaque), void *opaque);
/* (Re)arms; one shot. VTIME_NEVER cancels. A deadline in the past fires at the next evloop_run, and a kick is sent for it. */
void vtimer_arm(struct vtimer *t, uint64_t deadline);
void vtimer_cancel(struct vtimer *t);
static inline bool vtimer_is_armed(const struct vtimer *t) { return t->pos != 0; }
uint64_t vtime_next_deadline(const struct evloop *l); /* VTIME_NEVER if none */

/* -- descriptors -- */
#define EVFD_READ 1u
#define EVFD_WRITE 2u
#define EVFD_HUP 4u /* only in ready: peer gone or error; reported together with the wanted directions */
struct evfd {
    struct evloop *loop;
    void (*fn)(void *opaque, unsigned ready);
    void *opaque;
    int fd;
    uint8_t want, kernel; /* EVFD_*; what epoll knows */
    bool always;          /* epoll refuses it (regular file): always ready */
    struct evfd *next;
};
/* Level-triggered. The owner keeps fd open until evfd_remove and should set it non-blocking. Returns 0 or -RD_E_HOST. */
int evfd_add(struct evfd *e, struct evloop *l, int fd, void (*fn)(void *opaque, unsigned ready), void *opaque);
/* Directions to watch; none = asleep (hang-ups are not reported either). A callback that does not consume what is ready must
 * clear that direction, or the loop spins. */
void evfd_want(struct evfd *e, unsigned want);
void evfd_remove(struct evfd *e); /* also from within its own callback; idempotent */

/* -- running -- */
/* Runs due timers in order of their deadlines, then ready descriptors. Cheap when nothing is due. */
void evloop_run(struct evloop *l);
/* Sleeps until a timer is due, a descriptor is ready, evloop_wake, a signal, or max_ns (< 0: no limit; 0: do not sleep);
 * then as evloop_run. The caller looks at its conditions again after each return. */
void evloop_wait(struct evloop *l, int64_t max_ns);
/* Its two halves, for who wants to know how long each takes: the second takes the first one's result. */
bool evloop_sleep(struct evloop *l, int64_t max_ns);
void evloop_serve(struct evloop *l, bool ready);
/* For start-up, when nothing runs yet: sleeps until the descriptor is readable (true), or evloop_wake (false). */
bool evloop_await(struct evloop *l, int fd);
/* Makes the present or the next evloop_wait return, and kicks. Any thread; async-signal-safe. */
void evloop_wake(struct evloop *l);

/* -- test clock -- */
/* Steps from deadline to deadline, running timers at exactly their time, until ns have passed. */
void vtime_test_advance(struct evloop *l, uint64_t ns);
/* Jumps without running anything, as if the host had been starved; then evloop_run. */
void vtime_test_starve(struct evloop *l, uint64_t ns);
void vtime_test_set_wall(struct evloop *l, int64_t realtime_ns);
#endif
