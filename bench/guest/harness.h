/* bench/guest/harness.h - what the timed programs share: options, clock, output; for bare guests and native programs alike.
 *
 * Output, all numbers hexadecimal:
 *     BENCH <name> <result> <operations in each sample> <TSC ticks of each sample>...
 * Machines are shared and noisy: samples are short, so that most are left alone by the host's scheduler, and many.
 * In a guest the work runs through an alias of all memory in the upper half of the address space, as kernels do, because
 * that is what the window can map; HIGH is its distance from the addresses the guest was linked for.
 * Command words: samples=N only=NAME,NAME... outside
 * "outside" is for machines whose TSC is no clock: samples are longer, and each stands between two lines, BEGIN <name> and
 * END <name>, by which the runner takes the time. What cannot be timed so is left out.
 */
#ifndef BENCH_GUEST_HARNESS_H
#define BENCH_GUEST_HARNESS_H
#include <stdbool.h>
#include <stdint.h>

#ifdef BENCH_NATIVE
#include <stdio.h>
#define OUT printf
#define HIGH 0ul
#else
#include "rt.h"
#define OUT rt_printf
#define HIGH 0xffff888000000000ul
#endif

#define MAX_SAMPLES 64u
#define SAMPLE_TICKS 3000000u /* about a millisecond: a scheduler's time slice is some three */
#define OUTSIDE_TICKS 10000000u

/* Calls fn(a, b) at its alias, on the same stack at its alias. Natively a plain call. */
uint64_t call_high(uint64_t fn, uint64_t a, uint64_t b);

static inline uint64_t ticks(void)
{
    uint32_t lo, hi;
    __asm__ volatile("lfence; rdtsc; lfence" : "=a"(lo), "=d"(hi) : : "memory");
    return (uint64_t)hi << 32 | lo;
}

extern unsigned harness_samples;
extern bool harness_outside, harness_quick;
static inline uint64_t sample_ticks(void) { return harness_outside ? OUTSIDE_TICKS : SAMPLE_TICKS; }
void harness_begin(const char *name);
void harness_end(const char *name);
bool harness_wanted(const char *name);
void harness_report(const char *name, uint64_t result, uint64_t ops, const uint64_t *took);
void harness_report_n(const char *name, uint64_t result, uint64_t ops, const uint64_t *took, unsigned n);

/* Each program has one: called once, with the options read and, in a guest, the alias and SSE set up. */
void bench_main(void);
#endif
