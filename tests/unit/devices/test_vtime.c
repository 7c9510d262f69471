#define _GNU_SOURCE
#include "tests/unit/devices/fixture.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static struct evloop *loop;
static unsigned order[64], fired;
struct ev {
    struct vtimer t;
    unsigned id;
    uint64_t at, period;
};
static void on_timer(void *opaque)
{
    struct ev *e = opaque;
    order[fired++ % 64] = e->id;
    e->at = vtime_now(loop);
    if (e->period)
        vtimer_arm(&e->t, e->t.deadline + e->period);
}
static void ev_init(struct ev *e, unsigned id)
{
    *e = (struct ev){.id = id};
    vtimer_init(&e->t, loop, on_timer, e);
}
static void setup(void)
{
    loop = test_loop();
    fired = 0;
}
static void teardown(void) { evloop_destroy(loop); }
TestSuite(vtime, .init = setup, .fini = teardown);

Test(vtime, timers_run_in_order_at_their_time)
{
    struct ev e[5];
    static const uint64_t at[] = {50, 10, 40, 20, 30};
    for (unsigned i = 0; i < 5; i++) {
        ev_init(&e[i], i);
        vtimer_arm(&e[i].t, at[i]);
    }
    vtime_test_advance(loop, 45);
    cr_assert_eq(fired, 4);
    static const unsigned want[] = {1, 3, 4, 2};
    cr_assert_arr_eq(order, want, sizeof want);
    cr_assert_eq(e[4].at, 30);
    cr_assert_eq(vtime_now(loop), 45);
    cr_assert_eq(vtime_next_deadline(loop), 50);
}

Test(vtime, cancelled_and_rearmed_timers_do_not_fire_at_the_old_time)
{
    struct ev a, b;
    ev_init(&a, 0), ev_init(&b, 1);
    vtimer_arm(&a.t, 10), vtimer_arm(&b.t, 20);
    vtimer_cancel(&a.t);
    vtimer_arm(&b.t, 30);
    cr_assert_not(vtimer_is_armed(&a.t));
    vtime_test_advance(loop, 25);
    cr_assert_eq(fired, 0);
    vtimer_arm(&b.t, VTIME_NEVER);
    cr_assert_not(vtimer_is_armed(&b.t));
    cr_assert_eq(vtime_next_deadline(loop), VTIME_NEVER);
}

Test(vtime, heap_holds_under_random_use)
{
    static struct ev e[200];
    srand(1);
    for (unsigned i = 0; i < 200; i++)
        ev_init(&e[i], i);
    for (unsigned step = 0; step < 20000; step++) {
        struct ev *x = &e[rand() % 200];
        if (rand() % 3)
            vtimer_arm(&x->t, (uint64_t)(rand() % 100000));
        else
            vtimer_cancel(&x->t);
        uint64_t min = VTIME_NEVER;
        for (unsigned i = 0; i < 200; i++)
            if (vtimer_is_armed(&e[i].t) && e[i].t.deadline < min)
                min = e[i].t.deadline;
        cr_assert_eq(min, vtime_next_deadline(loop));
    }
}

Test(vtime, a_starved_loop_is_bounded_per_run)
{
    struct ev e;
    ev_init(&e, 0);
    e.period = 1;
    vtimer_arm(&e.t, 1);
    vtime_test_starve(loop, 1000000);
    evloop_run(loop);
    cr_assert_leq(fired, 1000);
    cr_assert_gt(fired, 10);
}

Test(vtime, paused_clock_fires_nothing_and_set_continues_elsewhere)
{
    struct ev e;
    ev_init(&e, 0);
    vtimer_arm(&e.t, 10);
    vtime_pause(loop);
    vtime_test_advance(loop, 0);
    evloop_run(loop);
    cr_assert_eq(fired, 0);
    vtime_resume(loop);
    vtime_set(loop, 1000);
    evloop_run(loop);
    cr_assert_eq(fired, 1);
    cr_assert_eq(e.at, 1000);
}

/* -- the real clock ---- */

static atomic_uint kicks, signals;
static void kick(void *opaque) { atomic_fetch_add(&kicks, 1); }
static void on_signal(int sig) { atomic_fetch_add(&signals, 1); }

static struct evloop *real_loop(void)
{
    struct evloop *l;
    struct sigaction sa = {.sa_handler = on_signal};
    sigaction(SIGRTMIN + 1, &sa, NULL);
    cr_assert_eq(evloop_create(&l, &(struct evloop_config){.kick = kick, .timer_signal = SIGRTMIN + 1}), 0);
    return l;
}

static uint64_t mono(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec;
}

Test(evloop, running_thread_is_signalled_at_the_deadline)
{
    struct ev e;
    loop = real_loop();
    ev_init(&e, 0);
    uint64_t deadline = vtime_now(loop) + 20000000, limit = mono() + 5 * NS_PER_SEC;
    vtimer_arm(&e.t, deadline);
    while (!atomic_load(&signals) && mono() < limit)
        ;
    cr_assert_geq(vtime_now(loop), deadline);
    evloop_run(loop);
    cr_assert_eq(fired, 1);
    evloop_destroy(loop);
}

Test(evloop, deadline_in_the_past_signals_at_once)
{
    struct ev e;
    loop = real_loop();
    ev_init(&e, 0);
    vtimer_arm(&e.t, 0);
    uint64_t limit = mono() + 5 * NS_PER_SEC;
    while (!atomic_load(&signals) && mono() < limit)
        ;
    cr_assert_geq(atomic_load(&signals), 1);
    evloop_destroy(loop);
}

Test(evloop, wait_sleeps_until_the_timer_without_using_the_cpu)
{
    struct ev e;
    struct rusage a, b;
    loop = real_loop();
    ev_init(&e, 0);
    vtimer_arm(&e.t, vtime_now(loop) + 200000000);
    getrusage(RUSAGE_SELF, &a);
    unsigned turns = 0;
    for (; !fired && turns < 1000; turns++)
        evloop_wait(loop, -1);
    getrusage(RUSAGE_SELF, &b);
    cr_assert_lt(turns, 10);
    cr_assert_eq(fired, 1);
    cr_assert_lt((b.ru_utime.tv_usec + b.ru_stime.tv_usec) - (a.ru_utime.tv_usec + a.ru_stime.tv_usec) +
                     1000000 * ((b.ru_utime.tv_sec + b.ru_stime.tv_sec) - (a.ru_utime.tv_sec + a.ru_stime.tv_sec)),
                 50000);
    evloop_destroy(loop);
}

Test(evloop, wait_honours_its_limit)
{
    loop = real_loop();
    uint64_t t = mono();
    evloop_wait(loop, 30000000);
    cr_assert_geq(mono() - t, 29000000);
    t = mono();
    evloop_wait(loop, 0);
    cr_assert_lt(mono() - t, NS_PER_SEC);
    evloop_destroy(loop);
}

static char got[256];
static size_t got_len;
static int calls;
static void on_readable(void *opaque, unsigned ready)
{
    struct evfd *e = opaque;
    calls++;
    ssize_t n = read(e->fd, got + got_len, 1);
    if (n > 0)
        got_len += (size_t)n;
    else
        evfd_remove(e);
}

Test(evloop, ready_descriptor_kicks_once_and_is_served_from_run)
{
    int fd[2];
    struct evfd e;
    loop = real_loop();
    cr_assert_eq(pipe2(fd, O_NONBLOCK), 0);
    cr_assert_eq(evfd_add(&e, loop, fd[0], on_readable, &e), 0);
    evfd_want(&e, EVFD_READ);
    cr_assert_eq(write(fd[1], "ab", 2), 2);
    for (unsigned i = 0; i < 1000 && !atomic_load(&kicks); i++)
        usleep(1000);
    usleep(20000);
    cr_assert_eq(atomic_load(&kicks), 1, "one kick until the machine thread has looked");
    cr_assert_eq(calls, 0, "no callback but from the machine thread");
    evloop_run(loop);
    cr_assert_eq(calls, 1);
    for (unsigned i = 0; i < 1000 && atomic_load(&kicks) < 2; i++)
        usleep(1000);
    evloop_run(loop);
    cr_assert_eq(got_len, 2);
    cr_assert(!memcmp(got, "ab", 2));
    close(fd[1]);
    for (unsigned i = 0; i < 100 && e.loop; i++)
        evloop_wait(loop, 100000000);
    cr_assert_null(e.loop, "end of file was seen");
    evloop_destroy(loop);
}

Test(evloop, sleeping_descriptor_is_left_alone)
{
    int fd[2];
    struct evfd e;
    loop = real_loop();
    cr_assert_eq(pipe2(fd, O_NONBLOCK), 0);
    cr_assert_eq(evfd_add(&e, loop, fd[0], on_readable, &e), 0);
    cr_assert_eq(write(fd[1], "ab", 2), 2);
    close(fd[1]);
    evloop_wait(loop, 20000000);
    cr_assert_eq(calls, 0);
    cr_assert_eq(atomic_load(&kicks), 0);
    evfd_want(&e, EVFD_READ);
    evloop_wait(loop, NS_PER_SEC);
    cr_assert_eq(calls, 1);
    evfd_remove(&e);
    evfd_remove(&e);
    evloop_destroy(loop);
}

Test(evloop, regular_file_is_always_ready)
{
    struct evfd e;
    char name[] = "/tmp/rd_evloop_XXXXXX";
    int fd = mkstemp(name);
    unlink(name);
    loop = real_loop();
    cr_assert_eq(write(fd, "xyz", 3), 3);
    lseek(fd, 0, SEEK_SET);
    cr_assert_eq(evfd_add(&e, loop, fd, on_readable, &e), 0);
    evfd_want(&e, EVFD_READ);
    for (unsigned i = 0; i < 10 && e.loop; i++)
        evloop_wait(loop, NS_PER_SEC);
    cr_assert_eq(got_len, 3);
    evloop_destroy(loop);
}

static struct evfd pair[2];
static void remove_both(void *opaque, unsigned ready)
{
    calls++;
    evfd_remove(&pair[0]);
    evfd_remove(&pair[1]);
}

Test(evloop, descriptor_removed_by_a_neighbour_is_not_called)
{
    int fd[2];
    loop = real_loop();
    for (unsigned i = 0; i < 2; i++) {
        cr_assert_eq(pipe2(fd, O_NONBLOCK), 0);
        cr_assert_eq(write(fd[1], "a", 1), 1);
        cr_assert_eq(evfd_add(&pair[i], loop, fd[0], remove_both, NULL), 0);
        evfd_want(&pair[i], EVFD_READ);
    }
    evloop_wait(loop, NS_PER_SEC);
    cr_assert_eq(calls, 1);
    evloop_destroy(loop);
}

static void *waker(void *arg)
{
    usleep(30000);
    evloop_wake(loop);
    return NULL;
}

Test(evloop, wake_ends_the_wait)
{
    pthread_t t;
    loop = real_loop();
    uint64_t start = mono();
    pthread_create(&t, NULL, waker, NULL);
    evloop_wait(loop, 20 * (int64_t)NS_PER_SEC);
    cr_assert_lt(mono() - start, 10 * NS_PER_SEC);
    cr_assert_geq(atomic_load(&kicks), 1);
    pthread_join(t, NULL);
    evloop_destroy(loop);
}

Test(evloop, pause_holds_real_time_back)
{
    loop = real_loop();
    vtime_pause(loop);
    uint64_t t = vtime_now(loop);
    usleep(20000);
    cr_assert_eq(vtime_now(loop), t);
    vtime_resume(loop);
    cr_assert_lt(vtime_now(loop) - t, 10000000);
    evloop_destroy(loop);
}
