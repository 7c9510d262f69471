/* bench/linux/scale.c - how costs grow: the same operation with more and more of something. Natively and in guests.
 *
 * usage: scale [dir=DIR] [quick=1] [samples=N] [maps=LAST] [only=CURVE,...]. One line for each point, numbers after the first hexadecimal, as of work.c:
 *     BENCH <curve>@<point> 0 <operations in each sample> <TSC ticks of each sample>...
 * Curves: ring (processes that pass a token on), set (KiB that user code reads at random), kset (KiB of a file on tmpfs of which the kernel
 * reads at random), code (KiB of code that is run from one end to the other), maps (single pages of a process, scattered over guest RAM).
 */
#define _GNU_SOURCE
#include "lines.h"
#include "ring.h"
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_SAMPLES 64u
#define PAGE 4096ul

static const char *dir = "/tmp", *only;
static unsigned samples = 5, last_maps = 131072;
static bool quick;

static uint32_t next_random(void)
{
    static uint64_t s = 88172645463325252ull;
    s ^= s << 13, s ^= s >> 7, s ^= s << 17; /* Marsaglia's xorshift64 */
    return (uint32_t)(s >> 32);
}

/* A cyclic order of n things that visits each once. */
static uint32_t *cycle(size_t n)
{
    uint32_t *order = malloc(n * sizeof *order), *next = malloc(n * sizeof *next);
    if (!order || !next)
        fail("malloc");
    for (size_t i = 0; i < n; i++)
        order[i] = (uint32_t)i;
    for (size_t i = n - 1; i > 0; i--) {
        size_t k = next_random() % (i + 1);
        uint32_t t = order[i];
        order[i] = order[k];
        order[k] = t;
    }
    for (size_t i = 0; i < n; i++)
        next[order[i]] = order[(i + 1) % n];
    free(order);
    return next;
}

static void *map(size_t bytes, int prot)
{
    void *p = mmap(NULL, bytes, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        fail("mmap");
    madvise(p, bytes, MADV_NOHUGEPAGE);
    return p;
}

/* One warm run, then the samples. */
static void measure(const char *curve, unsigned point, void (*run)(uint64_t n), uint64_t n)
{
    uint64_t took[MAX_SAMPLES];
    run(n);
    for (unsigned i = 0; i < samples; i++) {
        uint64_t start = ticks();
        run(n);
        took[i] = ticks() - start;
    }
    printf("BENCH %s@%u 0 %llx", curve, point, (unsigned long long)n);
    print_samples(took, samples);
}

/* ---- set, maps: a chain of pointers ---- */

static void **chain;
static void chase(uint64_t n)
{
    void **p = chain;
    while (n--)
        p = *p;
    chain = p;
}

/* Links the first words of n pieces of stride bytes. */
static void *make_chain(size_t n, size_t stride)
{
    uint8_t *base = map(n * stride, PROT_READ | PROT_WRITE);
    uint32_t *next = cycle(n);
    for (size_t i = 0, at = 0; i < n; i++, at = next[at]) /* in the order of the chain: so do pages get their frames */
        *(void **)(base + at * stride) = base + (size_t)next[at] * stride;
    free(next);
    chain = (void **)base;
    return base;
}

static void set_point(unsigned kib)
{
    size_t n = kib * 1024ul / 64;
    void *base = make_chain(n, 64);
    chase(n);
    measure("set", kib, chase, n < 100000 ? 100000 : 400000);
    munmap(base, n * 64);
}

/* Every other page of a range stays untouched, so that no two pages can share a mapping of the host. */
static void maps_point(unsigned pages)
{
    uint8_t *base = make_chain(pages, 2 * PAGE);
    chase(pages);
    measure("maps", pages, chase, pages);
    munmap(base, pages * 2 * PAGE);
}

/* ---- kset: the kernel reads ---- */

static int file;
static unsigned file_kib;
static void read_around(uint64_t n)
{
    char buf[64];
    while (n--)
        if (pread(file, buf, sizeof buf, (off_t)(next_random() % (file_kib * 16)) * 64) != sizeof buf)
            fail("pread");
}

static void kset_point(unsigned kib)
{
    char path[256], block[1024] = {1};
    snprintf(path, sizeof path, "%s/kset", dir);
    file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (file < 0)
        fail(path);
    for (unsigned i = 0; i < kib; i++)
        if (write(file, block, sizeof block) != sizeof block)
            fail("write");
    file_kib = kib;
    read_around(kib / 4);
    measure("kset", kib, read_around, 2000);
    close(file);
    unlink(path);
}

/* ---- code: blocks of 64 bytes, each jumps to another one ---- */

#define BLOCK 64u
static uint8_t *code;
static uint64_t code_blocks;
static void run_code(uint64_t blocks)
{
    for (uint64_t n = 0; n < blocks; n += code_blocks)
        ((void (*)(void))(void *)code)();
}

static void put_block(uint8_t *p, uint8_t *to)
{
    static const uint8_t body[] = {0x8d, 0x44, 0x08, 0x01, 0x31, 0xc1,
                                   0xd1, 0xc0, 0x8d, 0x0c, 0x41}; /* lea, xor, rol, lea on EAX, ECX */
    memcpy(p, body, sizeof body);
    p += sizeof body;
    if (!to) {
        *p = 0xc3;
        return;
    }
    int32_t rel = (int32_t)(to - (p + 5));
    *p = 0xe9;
    memcpy(p + 1, &rel, 4);
}

static void code_point(unsigned kib)
{
    size_t n = kib * 1024ul / BLOCK, at = 0;
    uint32_t *next = cycle(n);
    code = map(n * BLOCK, PROT_READ | PROT_WRITE | PROT_EXEC);
    for (size_t i = 0; i < n; i++, at = next[at])
        put_block(code + at * BLOCK, next[at] ? code + (size_t)next[at] * BLOCK : NULL);
    free(next);
    code_blocks = n;
    run_code(n);
    measure("code", kib, run_code, n < 20000 ? 20000 / n * n : n);
    munmap(code, n * BLOCK);
}

/* ---- ring ---- */

static struct ring ring;
static unsigned ring_size;
static void round_trips(uint64_t n)
{
    char c = 0;
    for (; n >= ring_size; n -= ring_size)
        if (write(ring.out, &c, 1) != 1 || read(ring.in, &c, 1) != 1)
            fail("ring");
}

static pid_t start_member(void)
{
    pid_t pid = fork();
    if (pid < 0)
        fail("fork");
    return pid;
}

static _Noreturn void member(int in, int out)
{
    char c;
    while (read(in, &c, 1) == 1)
        if (write(out, &c, 1) != 1)
            break;
    _exit(0);
}

static void ring_point(unsigned n)
{
    if (!ring_make(&ring, n, start_member, member))
        fail("pipe");
    ring_size = n;
    measure("ring", n, round_trips, n < 200 ? 400 / n * n : n);
    close(ring.out);
    for (unsigned i = 1; i < n; i++)
        wait(NULL);
    close(ring.in);
}

/* ---- */

static const struct curve {
    const char *name;
    void (*point)(unsigned);
    unsigned first, last, quick_last; /* doubling */
} curves[] = {
    {"ring", ring_point, 2, 256, 32},          {"set", set_point, 16, 131072, 16384},
    {"kset", kset_point, 64, 131072, 16384},   {"code", code_point, 2, 16384, 1024},
    {"maps", maps_point, 1024, 131072, 16384},
};

static void run_curve(const struct curve *c)
{
    unsigned last = quick ? c->quick_last : c->last;
    if (c->point == maps_point && last > last_maps)
        last = last_maps;
    for (unsigned n = c->first; n <= last; n *= 2)
        c->point(n);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (!strncmp(argv[i], "dir=", 4))
            dir = argv[i] + 4;
        else if (!strncmp(argv[i], "only=", 5))
            only = argv[i] + 5;
        else if (!strncmp(argv[i], "samples=", 8))
            samples = (unsigned)atoi(argv[i] + 8);
        else if (!strncmp(argv[i], "maps=", 5))
            last_maps = (unsigned)atoi(argv[i] + 5);
        else if (!strcmp(argv[i], "quick=1"))
            quick = true;
    }
    samples = samples && samples <= MAX_SAMPLES ? samples : 5;
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGPIPE, SIG_IGN);
    for (unsigned i = 0; i < sizeof curves / sizeof curves[0]; i++)
        if (in_list(only, curves[i].name))
            run_curve(curves + i);
    printf("DONE\n");
    return 0;
}
