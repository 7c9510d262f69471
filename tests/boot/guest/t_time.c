/* tests/boot/guest/t_time.c - clocks and timers. Whether they run at the host's rate, a host-side test tells. */
#include "bt.h"
#include <poll.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>

static void monotonic(void)
{
    struct timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    for (int i = 0; i < 200000; i++) {
        clock_gettime(CLOCK_MONOTONIC, &b);
        REQUIRE(b.tv_sec > a.tv_sec || (b.tv_sec == a.tv_sec && b.tv_nsec >= a.tv_nsec));
        a = b;
    }
}

/* The library's way (vDSO) and the kernel's must agree. */
static void vdso_agrees(void)
{
    for (int i = 0; i < 2000; i++) {
        struct timespec a, b, c;
        clock_gettime(CLOCK_MONOTONIC, &a);
        REQUIRE(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &b) == 0);
        clock_gettime(CLOCK_MONOTONIC, &c);
        int64_t ab = (b.tv_sec - a.tv_sec) * 1000000000ll + b.tv_nsec - a.tv_nsec;
        int64_t bc = (c.tv_sec - b.tv_sec) * 1000000000ll + c.tv_nsec - b.tv_nsec;
        REQUIRE_MSG(ab >= 0 && bc >= 0, "%lld %lld", (long long)ab, (long long)bc);
    }
}

static void sleeping(void)
{
    for (int i = 0; i < 20; i++) {
        uint64_t start = bt_now_ns();
        struct timespec t = {0, 10000000};
        REQUIRE(nanosleep(&t, NULL) == 0);
        uint64_t took = bt_now_ns() - start;
        /* Never too short; how much too long depends on the host's load. */
        REQUIRE_MSG(took >= 10000000 && took < 2000000000, "10 ms took %llu ns", (unsigned long long)took);
    }
}

static void timer_fd(void)
{
    int fd = timerfd_create(CLOCK_MONOTONIC, 0);
    struct itimerspec t = {.it_interval = {0, 4000000}, .it_value = {0, 4000000}};
    uint64_t start = bt_now_ns(), total = 0;
    REQUIRE(fd >= 0 && timerfd_settime(fd, 0, &t, NULL) == 0);
    while (total < 50) {
        uint64_t n;
        REQUIRE(read(fd, &n, sizeof n) == sizeof n);
        total += n;
    }
    uint64_t took = bt_now_ns() - start;
    REQUIRE_MSG(took >= 200000000 && took < 3000000000u, "50 x 4 ms took %llu ns", (unsigned long long)took);
}

static void poll_timeout(void)
{
    int fd[2];
    REQUIRE(pipe(fd) == 0);
    struct pollfd p = {.fd = fd[0], .events = POLLIN};
    uint64_t start = bt_now_ns();
    REQUIRE(poll(&p, 1, 50) == 0);
    uint64_t took = bt_now_ns() - start;
    REQUIRE_MSG(took >= 49000000, "%llu ns", (unsigned long long)took);
}

/* Wall-clock time less monotonic time over 300 ms. */
static int64_t drift_once(void)
{
    struct timespec r0, r1;
    uint64_t m0 = bt_now_ns();
    clock_gettime(CLOCK_REALTIME, &r0);
    usleep(300000);
    uint64_t m1 = bt_now_ns();
    clock_gettime(CLOCK_REALTIME, &r1);
    REQUIRE_MSG(r0.tv_sec > 1600000000, "the clock says %lld", (long long)r0.tv_sec);
    return (r1.tv_sec - r0.tv_sec) * 1000000000ll + r1.tv_nsec - r0.tv_nsec - (int64_t)(m1 - m0);
}

static void wall_clock(void)
{
    /* The battery-backed clock gave a sensible date, and the two clocks advance together. A busy host may stop the program between two
     * readings, but not each time. */
    int64_t drift = 0;
    for (int i = 0; i < 5; i++) {
        drift = drift_once();
        if (drift > -20000000 && drift < 20000000)
            return;
    }
    REQUIRE_MSG(false, "drift %lld ns", (long long)drift);
}

const struct bt_test bt_time[] = {
    {"time-monotonic", monotonic},
    {"time-vdso", vdso_agrees},
    {"time-sleep", sleeping},
    {"time-timerfd", timer_fd},
    {"time-poll-timeout", poll_timeout},
    {"time-wall-clock", wall_clock},
    {NULL, NULL},
};
