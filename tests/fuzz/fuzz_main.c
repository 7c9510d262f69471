/* tests/fuzz/fuzz_main.c - the fuzz target without a fuzzer: random machines with random but decodable code, for ./check.
 *
 * Each input runs in a child process, many to a child; the parent sees crashes and hangs and says which input it was. Inputs
 * that come to an end by themselves run a second time with other engine settings and must end in the same state.
 * Usage: fuzz_engine [--seed S] [--seconds N] [--runs N] [--case N [--save FILE]] [FILE...]     Exit: 0 clean, 1 finding, 2 usage.
 */
#include "tests/diff/catalog.h"
#include "tests/fuzz/machine.h"
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define INPUT_MAX 2048u
#define HEADER_BYTES 420u /* enough for what machine.c reads before the code */
#define RUN_MS 30
#define HANG_SECONDS 20
#define PER_CHILD 400u

struct shared {
    volatile uint64_t current; /* input being run */
    volatile uint64_t done, ended, compared;
};
struct options {
    uint64_t seed, first, runs;
    unsigned seconds;
    const char *save;
    bool single;
};
static struct shared *shared;
static struct catalog *cats[DT_MODES];

/* System instructions that the differential test excludes, or that need a fixed form to be met often. */
static const char *const extra[] = {
    "\x0f\x05",     "\x0f\x34",     "\x0f\xa2",     "\xcd\x20",    "\xcd\x0d",     "\xf4",         "\xfb",
    "\xfa",         "\x9d",         "\xcf",         "\x48\xcf",    "\x0f\x01\xf8", "\x0f\x22\xc0", "\x0f\x22\xd8",
    "\x0f\x22\xe0", "\x0f\x20\xc0", "\x0f\x30",     "\x0f\x32",    "\x0f\x23\xf8", "\x8e\xd0",     "\x8e\xd8",
    "\xcb",         "\xec",         "\xee",         "\x6c",        "\xf3\x6e",     "\x0f\x01\xe0", "\x0f\x06",
    "\xf1",         "\x0f\x0b",     "\x0f\x01\xd0", "\x0f\xae\x20"};

static enum dt_mode code_mode(unsigned kind)
{
    switch (kind) {
    case FUZZ_LONG: return DT_64;
    case FUZZ_PM32:
    case FUZZ_PAGED:
    case FUZZ_PAE:
    case FUZZ_COMPAT32: return DT_32;
    default: return DT_16;
    }
}

static size_t make_input(uint64_t seed, uint64_t number, uint8_t *buf)
{
    struct dice d = {seed * 0x9e3779b97f4a7c15ull ^ number * 0xd1342543de82ef95ull};
    dice_u64(&d);
    size_t n = 0;
    while (n < HEADER_BYTES) {
        uint64_t x = dice_chance(&d, 50) ? dice_u64(&d) : dice_u64(&d) & dice_u64(&d) & 0x0101010101010101ull;
        memcpy(buf + n, &x, 4);
        n += 4;
    }
    buf[0] = (uint8_t)dice_below(&d, FUZZ_KINDS);
    /* How much of this the machine takes for its header depends on the header itself: a run of NOPs joins it to the code. */
    n = HEADER_BYTES - 160;
    memset(buf + n, 0x90, 160);
    n += 160;
    const struct catalog *c = cats[code_mode(buf[0])];
    unsigned insns = 1 + dice_below(&d, 60);
    for (unsigned i = 0; i < insns && n + 16 < INPUT_MAX; i++) {
        struct cat_insn in;
        unsigned dice = dice_below(&d, 100);
        if (dice < 80 && cat_random(c, &d, -1, &in)) {
            memcpy(buf + n, in.bytes, in.d.length);
            n += in.d.length;
        } else if (dice < 95) {
            const char *e = extra[dice_below(&d, sizeof extra / sizeof *extra)];
            size_t len = strlen(e);
            memcpy(buf + n, e, len);
            n += len;
        } else {
            uint64_t x = dice_u64(&d);
            memcpy(buf + n, &x, 8);
            n += 8;
        }
    }
    return n;
}

/* Would two runs differ for a good reason? Clocks, random numbers and x87 pointers. */
static bool reads_chance(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i + 2 < n; i++) {
        if (p[i] != 0x0f)
            continue;
        uint8_t b = p[i + 1], m = p[i + 2];
        if (b == 0x31 || b == 0x33 || b == 0x32 || b == 0x30 || (b == 0x01 && (m == 0xf9 || m == 0xd0)) ||
            (b == 0xc7 && m >= 0xf0) || b == 0xae || (b == 0xc7 && (m & 0x38) >= 0x20))
            return true;
    }
    for (size_t i = 0; i + 1 < n; i++)
        if ((p[i] == 0xd9 || p[i] == 0xdd) && (p[i + 1] & 0x38) == 0x30)
            return true;
    return false;
}

static bool differ(bool yes, const char *what, uint64_t x, uint64_t y)
{
    if (yes)
        printf("  %s: %llx, with the other settings %llx\n", what, (unsigned long long)x, (unsigned long long)y);
    return yes;
}

/* Prints what is not the same. */
static bool same_end(const struct fuzz_result *a, const struct fuzz_result *b)
{
    const struct cpu *x = &a->cpu, *y = &b->cpu;
    bool bad = differ(a->memory != b->memory, "memory's hash", a->memory, b->memory);
    char name[24];
    for (unsigned i = 0; i < 16; i++) {
        snprintf(name, sizeof name, "register %u", i);
        bad |= differ(x->gpr[i] != y->gpr[i], name, x->gpr[i], y->gpr[i]);
    }
    for (unsigned i = 0; i < sizeof a->exits / sizeof *a->exits; i++) {
        snprintf(name, sizeof name, "exits of kind %u", i);
        bad |= differ(a->exits[i] != b->exits[i], name, a->exits[i], b->exits[i]);
    }
    bad |= differ(x->rip != y->rip, "rip", x->rip, y->rip);
    bad |= differ(x->cr0 != y->cr0, "cr0", x->cr0, y->cr0);
    bad |= differ(x->cr2 != y->cr2, "cr2", x->cr2, y->cr2);
    bad |= differ(x->cr3 != y->cr3, "cr3", x->cr3, y->cr3);
    bad |= differ(cpu_get_eflags(x) != cpu_get_eflags(y), "eflags", cpu_get_eflags(x), cpu_get_eflags(y));
    return !bad;
}

static bool finding(uint64_t number, const char *what)
{
    printf("FINDING: case %llu: %s\n", (unsigned long long)number, what);
    fflush(stdout);
    return true;
}

static bool run_input(uint64_t number, const uint8_t *buf, size_t n)
{
    static struct fuzz_result a, b;
    fuzz_run(buf, n, NULL, RUN_MS, &a);
    shared->done++;
    if (a.broken[0])
        return finding(number, a.broken);
    if (!a.finished)
        return false;
    shared->ended++;
    if (reads_chance(buf, n) || a.tables_changed)
        return false;
    static const struct vm_config other[] = {
        {.max_insns = 1, .tc_bytes = FUZZ_TC_BYTES, .cpu_model = "host"},
        {.no_chain = true, .tc_bytes = FUZZ_TC_BYTES, .cpu_model = "host"},
        {.evict_random = 3, .force_exit = 3, .seed = 5, .tc_bytes = FUZZ_TC_BYTES, .cpu_model = "host"}};
    fuzz_run(buf, n, &other[number % 3], RUN_MS * 4, &b);
    if (b.broken[0])
        return finding(number, b.broken);
    if (!b.finished)
        return false; /* slower settings, the clock came first */
    shared->compared++;
    return same_end(&a, &b) ? false : finding(number, "other engine settings end in another state");
}

static int child(const struct options *o, uint64_t first, unsigned count)
{
    uint8_t buf[INPUT_MAX + 16];
    int bad = 0;
    for (uint64_t i = first; i < first + count; i++) {
        shared->current = i;
        bad |= run_input(i, buf, make_input(o->seed, i, buf));
    }
    return bad;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Waits for a child. Returns 0, 1 = it had findings, 2 = it crashed or hung in shared->current. */
static int watch(pid_t pid, double deadline)
{
    uint64_t last = ~0ull;
    double since = now();
    int status;
    for (;;) {
        pid_t got = waitpid(pid, &status, WNOHANG);
        if (got == pid)
            return WIFEXITED(status) && WEXITSTATUS(status) < 2 ? WEXITSTATUS(status) : 2;
        if (got < 0 && errno != EINTR)
            return 2;
        if (shared->current != last)
            last = shared->current, since = now();
        bool hung = now() - since > HANG_SECONDS;
        if (hung || now() > deadline) {
            kill(pid, SIGKILL);
            waitpid(pid, &status, 0);
            return hung ? 2 : 0;
        }
        usleep(5000);
    }
}

static int campaign(const struct options *o)
{
    double start = now(), deadline = start + o->seconds;
    uint64_t next = o->first;
    int bad = 0;
    unsigned crashes = 0;
    while (now() < deadline && next < o->first + o->runs && crashes < 5) {
        unsigned count = o->first + o->runs - next < PER_CHILD ? (unsigned)(o->first + o->runs - next) : PER_CHILD;
        shared->current = next;
        fflush(stdout);
        pid_t pid = fork();
        if (pid == 0)
            _exit(child(o, next, count));
        int r = watch(pid, deadline);
        next += count;
        if (r == 2) {
            finding(shared->current, "crash or hang");
            next = shared->current + 1;
            crashes++;
        }
        bad |= r != 0;
    }
    printf(
        "fuzz: seed %llu: %llu machines in %.0f s, %llu ended by themselves, %llu compared with other settings, %s\n",
        (unsigned long long)o->seed, (unsigned long long)shared->done, now() - start, (unsigned long long)shared->ended,
        (unsigned long long)shared->compared, bad ? "FINDINGS" : "no finding");
    return bad;
}

static int one_file(const char *name)
{
    static uint8_t buf[1 << 16];
    FILE *f = fopen(name, "rb");
    if (!f) {
        perror(name);
        return 2;
    }
    size_t n = fread(buf, 1, sizeof buf, f);
    fclose(f);
    return run_input(0, buf, n);
}

static int one_case(const struct options *o)
{
    uint8_t buf[INPUT_MAX + 16];
    size_t n = make_input(o->seed, o->first, buf);
    if (o->save) {
        FILE *f = fopen(o->save, "wb");
        if (!f || fwrite(buf, 1, n, f) != n || fclose(f)) {
            perror(o->save);
            return 2;
        }
    }
    return run_input(o->first, buf, n);
}

static int usage(void)
{
    fputs("usage: fuzz_engine [--seed S] [--seconds N] [--runs N] [--case N [--save FILE]] [FILE...]\n", stderr);
    return 2;
}

int main(int argc, char **argv)
{
    enum { O_SEED = 1, O_SECONDS, O_RUNS, O_CASE, O_SAVE };
    static const struct option longs[] = {{"seed", 1, NULL, O_SEED}, {"seconds", 1, NULL, O_SECONDS},
                                          {"runs", 1, NULL, O_RUNS}, {"case", 1, NULL, O_CASE},
                                          {"save", 1, NULL, O_SAVE}, {NULL, 0, NULL, 0}};
    const char *seed = getenv("RD_SEED");
    struct options o = {.seed = seed && *seed ? strtoull(seed, NULL, 0) : 1, .runs = UINT64_MAX / 2, .seconds = 60};
    int opt, bad = 0;
    while ((opt = getopt_long(argc, argv, "", longs, NULL)) != -1)
        switch (opt) {
        case O_SEED: o.seed = strtoull(optarg, NULL, 0); break;
        case O_SECONDS: o.seconds = (unsigned)strtoul(optarg, NULL, 0); break;
        case O_RUNS: o.runs = strtoull(optarg, NULL, 0); break;
        case O_CASE: o.first = strtoull(optarg, NULL, 0), o.single = true; break;
        case O_SAVE: o.save = optarg; break;
        default: return usage();
        }
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return 2;
    for (unsigned i = 0; i < DT_MODES; i++)
        cats[i] = cat_open((enum dt_mode)i);
    if (optind < argc)
        for (int i = optind; i < argc; i++)
            bad |= one_file(argv[i]);
    else
        bad = o.single ? one_case(&o) : campaign(&o);
    for (unsigned i = 0; i < DT_MODES; i++)
        cat_close(cats[i]);
    return bad;
}
