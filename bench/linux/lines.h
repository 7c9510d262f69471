/* bench/linux/lines.h - what the benchmark programs for Linux have in common: the clock, the selection, the lines they print. */
#ifndef BENCH_LINUX_LINES_H
#define BENCH_LINUX_LINES_H
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline uint64_t ticks(void)
{
    uint32_t lo, hi;
    __asm__ volatile("lfence; rdtsc; lfence" : "=a"(lo), "=d"(hi) : : "memory");
    return (uint64_t)hi << 32 | lo;
}

/* Is name in the list NAME,NAME...? NULL: everything is. */
static inline bool in_list(const char *list, const char *name)
{
    size_t n = strlen(name);
    for (const char *p = list; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
        if (!strncmp(p, name, n) && (p[n] == ',' || p[n] == 0))
            return true;
    return !list;
}

static inline _Noreturn void fail(const char *what)
{
    printf("FAILED %s: %s\n", what, strerror(errno));
    exit(1);
}

/* The rest of a BENCH line. */
static inline void print_samples(const uint64_t *took, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        printf(" %llx", (unsigned long long)took[i]);
    printf("\n");
}
#endif
