/* bench/guest/drive.c - times the work of compute.c; compiled into the native runner and into the bare guest.
 *
 * Output, all numbers hexadecimal; a START line goes before work that is timed by CPU time:
 *     BENCH <name> <result> <operations in each sample> <TSC ticks of each sample>...
 * Machines are shared and noisy: samples are short, so that most are left alone by the host's scheduler, and many.
 * In the guest the work runs through an alias of all memory in the upper half of the address space, as kernels do, because
 * that is what the window can map; HIGH is its distance from the addresses the guest was linked for.
 * Command words: samples=N only=NAME,NAME...
 */
#include "compute.h"
#include <stdbool.h>
#include <stddef.h>
#ifdef BENCH_NATIVE
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#define OUT printf
#define HIGH 0ul
#else
#include "rt.h"
#define OUT rt_printf
#define HIGH 0xffff888000000000ul
#endif

#define CODE_INSNS 2500u
#define CODE_BYTES (64u << 10)
#define MAX_SAMPLES 64u
#define SAMPLE_TICKS 3000000u /* about a millisecond: a scheduler's time slice is some three */

static uint8_t *area;
static const char *only;
static unsigned samples = 15;

static inline uint64_t ticks(void)
{
    uint32_t lo, hi;
    __asm__ volatile("lfence; rdtsc; lfence" : "=a"(lo), "=d"(hi) : : "memory");
    return (uint64_t)hi << 32 | lo;
}

/* In guest.S; natively a plain call. */
uint64_t call_high(uint64_t fn, uint64_t a, uint64_t b);
#ifdef BENCH_NATIVE
uint64_t call_high(uint64_t fn, uint64_t a, uint64_t b) { return ((uint64_t(*)(uint64_t, uint64_t))fn)(a, b); }
#endif

static bool starts(const char *s, const char *with)
{
    while (*with)
        if (*s++ != *with++)
            return false;
    return true;
}
static size_t length(const char *s)
{
    size_t n = 0;
    while (s[n])
        n++;
    return n;
}

static bool wanted(const char *name)
{
    if (!only)
        return true;
    size_t n = length(name);
    for (const char *p = only;; p++) {
        if (starts(p, name) && (p[n] == ',' || p[n] == 0 || p[n] == ' '))
            return true;
        while (*p && *p != ',' && *p != ' ')
            p++;
        if (*p != ',')
            return false;
    }
}

static void options(const char *line)
{
    for (const char *p = line; *p; p++) {
        if (p != line && p[-1] != ' ')
            continue;
        if (starts(p, "only="))
            only = p + 5;
        if (starts(p, "samples=")) {
            samples = 0;
            for (p += 8; *p >= '0' && *p <= '9'; p++)
                samples = samples * 10 + (unsigned)(*p - '0');
            p--;
        }
    }
    if (samples == 0 || samples > MAX_SAMPLES)
        samples = 15;
}

static void report(const char *name, uint64_t result, uint64_t ops, const uint64_t *took, unsigned n)
{
    OUT("BENCH %s %lx %lx", name, (unsigned long)result, (unsigned long)ops);
    for (unsigned i = 0; i < n; i++)
        OUT(" %lx", (unsigned long)took[i]);
    OUT("\n");
}

/* Runs w once; its result and what it took. */
static uint64_t run(const struct work *w, uint64_t n, uint64_t *took)
{
    if (w->prepare)
        call_high((uint64_t)w->prepare + HIGH, n, 0);
    uint64_t start = ticks(), result = call_high((uint64_t)w->run + HIGH, n, 0);
    *took = ticks() - start;
    return result;
}

static void measure(const struct work *w)
{
    uint64_t took[MAX_SAMPLES], n = w->n;
    if (w->flags & WORK_LONG)
        OUT("START %s\n", w->name);
    uint64_t result = run(w, n, took);
    if (w->flags & WORK_LONG) {
        report(w->name, result, n, took, 1);
        return;
    }
    run(w, n, took); /* warm: this one tells how long it takes */
    if (w->flags & WORK_SCALES && took[0] > SAMPLE_TICKS)
        n = n * SAMPLE_TICKS / took[0] + 1;
    for (unsigned i = 0; i < samples; i++)
        run(w, n, took + i);
    report(w->name, result, n, took, samples);
}

/* Every sample is code at an address that never held code; its second run, which finds the translations, is subtracted. */
static void measure_translation(void)
{
    uint64_t took[MAX_SAMPLES], result = 0, insns = 0, used;
    uint64_t *data = (uint64_t *)(area + WORK_AREA_BYTES - 4096);
    for (unsigned i = 0; i < samples; i++) {
        uint8_t *code = area + i * CODE_BYTES;
        for (unsigned k = 0; k < 512; k++)
            data[k] = k;
        insns = gencode(code, CODE_INSNS, 1000 + i, &used);
        uint64_t begun = ticks();
        uint64_t value = call_high((uint64_t)gencode_call + HIGH, (uint64_t)code + HIGH, (uint64_t)data + HIGH);
        uint64_t first = ticks() - begun;
        begun = ticks();
        value ^= call_high((uint64_t)gencode_call + HIGH, (uint64_t)code + HIGH, (uint64_t)data + HIGH);
        uint64_t second = ticks() - begun;
        if (i == 0)
            result = value;
        took[i] = first > second ? first - second : 0;
    }
    report("translate", result, insns, took, samples);
}

static void drive(const char *line)
{
    options(line);
    call_high((uint64_t)compute_init + HIGH, (uint64_t)area + HIGH, 0);
    for (const struct work *w = compute_works; w->name; w++)
        if (wanted(w->name))
            measure(w);
    if (wanted("translate"))
        measure_translation();
    OUT("DONE\n");
}

#ifdef BENCH_NATIVE
int main(int argc, char **argv)
{
    static char line[1024];
    size_t used = 0;
    for (int i = 1; i < argc; i++)
        used += (size_t)snprintf(line + used, used < sizeof line ? sizeof line - used : 0, " %s", argv[i]);
    area = mmap(NULL, WORK_AREA_BYTES, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (area == MAP_FAILED) {
        perror("bench: mmap");
        return 1;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    drive(line);
    return 0;
}
#else
extern uint32_t bench_multiboot_info;
extern uint64_t rt_pml4[512], rt_pdpt[512];

int main(void)
{
    /* The alias is for the supervisor only: kernels' own memory is. */
    rt_pml4[HIGH >> 39 & 511] = (uint64_t)rt_pdpt + 3;
    write_cr3(read_cr3());
    write_cr0((read_cr0() & ~4ul) | 2);
    write_cr4(read_cr4() | 0x600);
    area = (uint8_t *)(32ul << 20);
    const uint32_t *info = (const uint32_t *)(uint64_t)bench_multiboot_info;
    drive(info && info[0] & 4 ? (const char *)(uint64_t)info[4] : "");
    return 0;
}
#endif
