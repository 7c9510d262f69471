/* bench/guest/harness.c - see harness.h. */
#include "harness.h"
#include <stddef.h>

unsigned harness_samples = 15;
bool harness_outside, harness_quick;
static const char *only;

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

bool harness_wanted(const char *name)
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
    unsigned n = 0;
    for (const char *p = line; *p; p++) {
        if (p != line && p[-1] != ' ')
            continue;
        if (starts(p, "only="))
            only = p + 5;
        if (starts(p, "outside"))
            harness_outside = true;
        if (starts(p, "quick"))
            harness_quick = true;
        if (starts(p, "samples="))
            for (const char *d = p + 8; *d >= '0' && *d <= '9'; d++)
                n = n * 10 + (unsigned)(*d - '0');
    }
    if (n > 0 && n <= MAX_SAMPLES)
        harness_samples = n;
}

void harness_begin(const char *name)
{
    if (harness_outside)
        OUT("BEGIN %s\n", name);
}
void harness_end(const char *name)
{
    if (harness_outside)
        OUT("END %s\n", name);
}

void harness_report_n(const char *name, uint64_t result, uint64_t ops, const uint64_t *took, unsigned n)
{
    OUT("BENCH %s %lx %lx", name, (unsigned long)result, (unsigned long)ops);
    for (unsigned i = 0; i < n; i++)
        OUT(" %lx", (unsigned long)took[i]);
    OUT("\n");
}
void harness_report(const char *name, uint64_t result, uint64_t ops, const uint64_t *took)
{
    harness_report_n(name, result, ops, took, harness_samples);
}

#ifdef BENCH_NATIVE
uint64_t call_high(uint64_t fn, uint64_t a, uint64_t b) { return ((uint64_t(*)(uint64_t, uint64_t))fn)(a, b); }

int main(int argc, char **argv)
{
    static char line[1024];
    size_t used = 0;
    for (int i = 1; i < argc && used < sizeof line; i++)
        used += (size_t)snprintf(line + used, sizeof line - used, " %s", argv[i]);
    setvbuf(stdout, NULL, _IOLBF, 0);
    options(line);
    bench_main();
    OUT("DONE\n");
    return 0;
}
#else
extern uint32_t bench_multiboot_info;
extern uint64_t rt_pml4[512], rt_pdpt[512], rt_pd[2048];

/* How Bochs is told to end; the run-time's way is another one, which it does not know. */
static void end_bochs(void)
{
    while (!(inb(0x3fd) & 0x40)) /* what was printed is to go out */
        ;
    for (const char *p = "Shutdown"; *p; p++)
        outb(0x8900, (uint8_t)*p);
}

int main(void)
{
    /* The alias is for the supervisor only and global, as kernels' own memory is. */
    rt_pml4[HIGH >> 39 & 511] = (uint64_t)rt_pdpt + 3;
    for (unsigned i = 0; i < 2048; i++)
        rt_pd[i] |= 0x100;
    write_cr3(read_cr3());
    write_cr0((read_cr0() & ~4ul) | 2); /* SSE: not EM, but MP */
    write_cr4(read_cr4() | 0x680);      /* PGE, OSFXSR, OSXMMEXCPT */
    const uint32_t *info = (const uint32_t *)(uint64_t)bench_multiboot_info;
    options(info && info[0] & 4 ? (const char *)(uint64_t)info[4] : "");
    bench_main();
    OUT("DONE\n");
    if (harness_outside)
        end_bochs();
    return 0;
}
#endif
