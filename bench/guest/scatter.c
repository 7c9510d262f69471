/* bench/guest/scatter.c - kernel code that reads single pages, scattered so that no two can share a mapping of the host: a curve over
 * their number, up to and past the host's limit of mappings.
 *
 *     BENCH kmaps@<pages> <result> <reads in each sample> <TSC ticks of each sample>...
 * Every other page of a range in the upper half is mapped, to frames out of order; there are fewer frames than pages. Each pass
 * reads a word of every page once. Command words, besides the harness's: quick
 */
#include "harness.h"
#include <stddef.h>

#define BASE (HIGH + (3ul << 39))
#define TABLES (32ul << 20) /* page directory pointers, page directory, page tables */
#define FRAMES (40ul << 20)
#define FRAME_COUNT 16384u
#define MOST 131072u
#define FEWEST 1024u
#define SAMPLES 5u

extern uint64_t rt_pml4[512];

static void map_all(void)
{
    uint64_t *pdpt = (uint64_t *)TABLES, *pd = pdpt + 512, *pt = pd + 512;
    memset(pdpt, 0, 8192);
    rt_pml4[BASE >> 39 & 511] = (uint64_t)pdpt + 3;
    pdpt[0] = (uint64_t)pd + 3;
    for (unsigned i = 0; i < 512; i++)
        pd[i] = (uint64_t)(pt + i * 512ul) + 3;
    for (uint64_t i = 0; i < MOST; i++) {
        pt[2 * i] = FRAMES + (i * 7919 % FRAME_COUNT) * 4096 + 0x63; /* A and D are set */
        pt[2 * i + 1] = 0;
    }
    for (uint64_t i = 0; i < FRAME_COUNT; i++)
        *(uint64_t *)(FRAMES + i * 4096) = i + 1;
    write_cr3(read_cr3());
}

/* All of n = 2^k pages, in the order of a linear congruential generator of that period (Hull and Dobell, 1962). */
static uint64_t pass(uint64_t n, uint64_t base)
{
    uint64_t sum = 0, x = 0;
    for (uint64_t i = 0; i < n; i++) {
        x = (x * 1664525u + 1013904223u) & (n - 1);
        sum += *(volatile uint64_t *)(base + x * 8192);
    }
    return sum;
}

static void measure(uint64_t n)
{
    uint64_t took[SAMPLES], result = call_high((uint64_t)pass + HIGH, n, BASE);
    for (unsigned i = 0; i < SAMPLES; i++) {
        uint64_t start = ticks();
        call_high((uint64_t)pass + HIGH, n, BASE);
        took[i] = ticks() - start;
    }
    OUT("BENCH kmaps@%u %lx %lx", (unsigned)n, (unsigned long)result, (unsigned long)n);
    for (unsigned i = 0; i < SAMPLES; i++)
        OUT(" %lx", (unsigned long)took[i]);
    OUT("\n");
}

void bench_main(void)
{
    map_all();
    for (uint64_t n = FEWEST; n <= (harness_quick ? MOST / 8 : MOST); n *= 2)
        measure(n);
}
