/* devices/tsc.c - see tsc.h. */
#include "devices/tsc.h"
#include "base/log.h"
#include <cpuid.h>
#include <stdbool.h>
#include <time.h>
#include <x86intrin.h>

#define NS_SEC 1000000000ull
#define QUICK_NS 2000000ull
#define MEASURE_NS 50000000ull
#define MEASURE_TRIES 8
#define TRUST_PPM 5000
#define GOOD_PPM 20

uint64_t guest_tsc_read(const struct guest_tsc *t)
{
    return (t->read_host ? t->read_host(t->opaque) : __rdtsc()) + t->offset;
}

uint64_t tsc_ticks_to_ns(uint64_t ticks, uint64_t hz)
{
    unsigned __int128 ns = ((unsigned __int128)ticks * NS_SEC + hz - 1) / hz;
    return ns > UINT64_MAX ? UINT64_MAX : (uint64_t)ns;
}

uint64_t tsc_ns_to_ticks(uint64_t ns, uint64_t hz)
{
    unsigned __int128 ticks = (unsigned __int128)ns * hz / NS_SEC;
    return ticks > UINT64_MAX ? UINT64_MAX : (uint64_t)ticks;
}

struct sample {
    uint64_t tsc, ns, width; /* width: TSC ticks that the clock read was between */
};

/* The tightest of several reads: a read that was preempted in between is wide and loses. */
static struct sample take_sample(void)
{
    struct sample best = {.width = UINT64_MAX};
    for (int i = 0; i < 16; i++) {
        struct timespec ts;
        uint64_t before = __rdtsc();
        clock_gettime(CLOCK_MONOTONIC_RAW, &ts);
        uint64_t after = __rdtsc();
        if (after - before < best.width) {
            best.width = after - before;
            best.tsc = before + best.width / 2;
            best.ns = (uint64_t)ts.tv_sec * NS_SEC + (uint64_t)ts.tv_nsec;
        }
    }
    return best;
}

static uint64_t measure(uint64_t duration_ns, uint32_t *error_ppm)
{
    struct sample a = take_sample();
    struct timespec left = {.tv_nsec = (long)duration_ns};
    while (nanosleep(&left, &left))
        ; /* interrupted by a signal: sleep the rest */
    struct sample b = take_sample();
    uint64_t ticks = b.tsc - a.tsc, ns = b.ns - a.ns;
    *error_ppm = ticks ? (uint32_t)((a.width + b.width) / 2 * 1000000 / ticks) : UINT32_MAX;
    return ns ? (uint64_t)((unsigned __int128)ticks * NS_SEC / ns) : 0;
}

static uint64_t from_cpuid(enum tsc_source *source)
{
    uint32_t a, b, c, d;
    __cpuid(1, a, b, c, d);
    if (c >> 31) {
        __cpuid(0x40000000, a, b, c, d);
        if (a >= 0x40000010 && a < 0x40010000) { /* beyond the maximum the answer is that of another leaf */
            __cpuid(0x40000010, a, b, c, d);
            *source = TSC_FROM_HYPERVISOR_LEAF;
            if (a)
                return (uint64_t)a * 1000;
        }
    }
    __cpuid(0, a, b, c, d);
    if (a < 0x15)
        return 0;
    __cpuid_count(0x15, 0, a, b, c, d);
    *source = TSC_FROM_CPUID_15;
    return a && b && c ? (uint64_t)c * b / a : 0;
}

static bool plausible(uint64_t claimed, uint64_t seen)
{
    uint64_t diff = claimed > seen ? claimed - seen : seen - claimed;
    return diff < seen / 1000000 * TRUST_PPM;
}

void tsc_calibrate(struct tsc_calibration *out)
{
    uint32_t ppm;
    uint64_t claimed = from_cpuid(&out->source);
    if (claimed) {
        uint64_t seen = measure(QUICK_NS, &ppm);
        if (ppm > 2000) /* disturbed: look again, longer */
            seen = measure(4 * QUICK_NS, &ppm);
        if (plausible(claimed, seen)) {
            out->hz = claimed;
            out->error_ppm = 0;
            return;
        }
        LOGF(TIMER, "CPUID gives a TSC of %llu Hz, the clock shows %llu Hz: measuring", (unsigned long long)claimed,
             (unsigned long long)seen);
    }
    out->source = TSC_MEASURED;
    out->hz = NS_SEC; /* only if the clock never moved */
    out->error_ppm = UINT32_MAX;
    for (int i = 0; i < MEASURE_TRIES && out->error_ppm > GOOD_PPM; i++) {
        uint64_t hz = measure(MEASURE_NS << (i / 2), &ppm);
        if (hz && ppm < out->error_ppm) {
            out->hz = hz;
            out->error_ppm = ppm;
        }
    }
    /* to the kHz, which is what guests are told */
    out->hz = (out->hz + 500) / 1000 * 1000;
}
