/* base/clock.h - the host's clocks in nanoseconds.
 *
 * Signals: safe. Not nofpu (the C library and the vdso may use vector registers), but for clock_ns_of.
 */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H
#include <stdint.h>
#include <time.h>

static inline uint64_t clock_ns_of(const struct timespec *t)
{
    return (uint64_t)t->tv_sec * 1000000000u + (uint64_t)t->tv_nsec;
}
/* 0 if there is no such clock (any more). */
static inline uint64_t clock_ns(clockid_t id)
{
    struct timespec t;
    return clock_gettime(id, &t) ? 0 : clock_ns_of(&t);
}
static inline uint64_t clock_now_ns(void) { return clock_ns(CLOCK_MONOTONIC); }
#endif
