/* bench/linux/tsc_rate.c - prints the rate of the time stamp counter in Hz, measured against the clock for a fifth of a second. */
#include <stdint.h>
#include <stdio.h>
#include <time.h>

static uint64_t tsc(void)
{
    uint32_t lo, hi;
    __asm__ volatile("lfence; rdtsc" : "=a"(lo), "=d"(hi));
    return (uint64_t)hi << 32 | lo;
}
/* Both clocks at one moment: the closest pair of several. */
static uint64_t both(uint64_t *ns)
{
    uint64_t best = ~0ull, at = 0;
    for (int i = 0; i < 50; i++) {
        struct timespec t;
        uint64_t a = tsc();
        clock_gettime(CLOCK_MONOTONIC_RAW, &t);
        uint64_t b = tsc();
        if (b - a < best) {
            best = b - a;
            at = a + (b - a) / 2;
            *ns = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
        }
    }
    return at;
}

int main(void)
{
    uint64_t ns0, ns1, t0 = both(&ns0);
    nanosleep(&(struct timespec){0, 200000000}, NULL);
    uint64_t t1 = both(&ns1);
    printf("%.0f\n", (double)(t1 - t0) * 1e9 / (double)(ns1 - ns0));
    return 0;
}
