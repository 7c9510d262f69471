/* tests/boot/guest/bench.c - micro benchmarks: the same binary runs natively, under QEMU and under Ringdown.
 *
 * usage: bench [-t SECONDS] [NAME...]. Prints "BENCH name value unit" a line, smaller is better. Each benchmark repeats its
 * operation for about a quarter of a second (or -t) after a warm-up and reports the mean over the best of three runs.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double seconds = 0.25;
static volatile uint64_t sink;
static const char *self;

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const char *what)
{
    fprintf(stderr, "bench: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void getppid_loop(uint64_t n)
{
    while (n--)
        syscall(SYS_getppid);
}

/* One operation = one step of three shifts. */
static void xorshift(uint64_t n)
{
    uint64_t x = 88172645463325252ull;
    while (n--) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
    }
    sink += x;
}

static int compare_ints(const void *a, const void *b)
{
    int x = *(const int *)a, y = *(const int *)b;
    return (x > y) - (x < y);
}
/* One operation = sorting 20000 numbers with the library's function and a callback. */
static void sorting(uint64_t n)
{
    enum { COUNT = 20000 };
    static int v[COUNT];
    while (n--) {
        uint32_t x = 12345;
        for (int i = 0; i < COUNT; i++)
            v[i] = (int)(x = x * 1664525u + 1013904223u);
        qsort(v, COUNT, sizeof v[0], compare_ints);
        sink += (uint64_t)v[COUNT / 2];
    }
}

/* One operation = 1000 steps of a dependent multiply, add and divide. */
static void floating(uint64_t n)
{
    double s = 1.0;
    while (n--)
        for (int i = 1; i <= 1000; i++)
            s = s * 0.999999 + 1.0 / (i + s);
    sink += (uint64_t)(s * 1000);
}

/* One operation = trial division of one number near 10000. */
static void primes(uint64_t n)
{
    for (uint64_t k = 0; k < n; k++) {
        int a = 10007 + (int)(k & 1), prime = 1;
        for (int i = 2; i < a; i++)
            if (a % i == 0) {
                prime = 0;
                break;
            }
        sink += (uint64_t)prime;
    }
}

static uint64_t __attribute__((noinline)) fib(unsigned k) { return k < 2 ? k : fib(k - 1) + fib(k - 2); }
/* One operation = fib(20), about 22000 calls. */
static void calls(uint64_t n)
{
    while (n--)
        sink += fib(20);
}

/* One operation = the first touch of one page. */
static void page_faults(uint64_t n)
{
    enum { PAGES = 2048 };
    while (n) {
        uint8_t *p = mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED)
            die("mmap");
        madvise(p, PAGES * 4096, MADV_NOHUGEPAGE);
        for (size_t i = 0; i < PAGES && n; i++, n--)
            p[i * 4096] = 1;
        munmap(p, PAGES * 4096);
    }
}

static void reap(pid_t child)
{
    int status;
    if (child < 0 || waitpid(child, &status, 0) != child || status)
        die("child");
}
static void fork_wait(uint64_t n)
{
    while (n--) {
        pid_t child = fork();
        if (child == 0)
            _exit(0);
        reap(child);
    }
}
static void fork_exec(uint64_t n)
{
    while (n--) {
        pid_t child = fork();
        if (child == 0) {
            execl(self, self, "-x", NULL);
            _exit(1);
        }
        reap(child);
    }
}

/* One operation = a byte there and a byte back between two processes. */
static void ping_pong(uint64_t n)
{
    int there[2], back[2];
    char c = 0;
    if (pipe(there) || pipe(back))
        die("pipe");
    pid_t child = fork();
    if (child == 0) {
        for (uint64_t i = 0; i < n; i++)
            if (read(there[0], &c, 1) != 1 || write(back[1], &c, 1) != 1)
                _exit(1);
        _exit(0);
    }
    for (uint64_t i = 0; i < n; i++)
        if (write(there[1], &c, 1) != 1 || read(back[0], &c, 1) != 1)
            die("ping");
    reap(child);
    for (int i = 0; i < 2; i++) {
        close(there[i]);
        close(back[i]);
    }
}

static void read_zero(uint64_t n)
{
    static uint8_t buf[65536];
    int fd = open("/dev/zero", O_RDONLY);
    while (n--)
        if (read(fd, buf, sizeof buf) != sizeof buf)
            die("/dev/zero");
    close(fd);
}

static void create_unlink(uint64_t n)
{
    while (n--) {
        int fd = open("/tmp/bench-file", O_CREAT | O_EXCL | O_RDWR, 0600);
        if (fd < 0)
            die("/tmp/bench-file");
        close(fd);
        unlink("/tmp/bench-file");
    }
}

static const struct bench {
    const char *name, *unit;
    void (*run)(uint64_t n);
    double scale; /* of nanoseconds */
} benches[] = {
    {"getppid", "ns", getppid_loop, 1},       {"xorshift", "ns", xorshift, 1},
    {"qsort20000", "us", sorting, 1e-3},      {"float1000", "us", floating, 1e-3},
    {"prime10007", "us", primes, 1e-3},       {"fib20", "us", calls, 1e-3},
    {"pagefault", "ns", page_faults, 1},      {"fork-wait", "us", fork_wait, 1e-3},
    {"fork-exec", "us", fork_exec, 1e-3},     {"pipe-pingpong", "us", ping_pong, 1e-3},
    {"read-zero-64k", "us", read_zero, 1e-3}, {"create-unlink", "us", create_unlink, 1e-3},
};

static double measure(const struct bench *b)
{
    uint64_t n = 1, target = (uint64_t)(seconds * 1e9);
    /* Doubling finds the count, and warms everything up. */
    for (;;) {
        uint64_t start = now_ns();
        b->run(n);
        uint64_t took = now_ns() - start;
        if (took > target / 4) {
            n = (uint64_t)((double)n * (double)target / (double)took) + 1;
            break;
        }
        n *= 2;
    }
    double best = 0;
    for (int i = 0; i < 3; i++) {
        uint64_t start = now_ns();
        b->run(n);
        double mean = (double)(now_ns() - start) / (double)n;
        if (i == 0 || mean < best)
            best = mean;
    }
    return best;
}

int main(int argc, char **argv)
{
    self = "/proc/self/exe";
    int first = 1;
    if (argc > 1 && !strcmp(argv[1], "-x"))
        return 0;
    if (argc > 2 && !strcmp(argv[1], "-t")) {
        seconds = atof(argv[2]);
        first = 3;
    }
    for (size_t i = 0; i < sizeof benches / sizeof benches[0]; i++) {
        const struct bench *b = &benches[i];
        int wanted = first == argc;
        for (int a = first; a < argc; a++)
            wanted = wanted || !strcmp(argv[a], b->name);
        if (!wanted)
            continue;
        printf("BENCH %s %.4g %s\n", b->name, measure(b) * b->scale, b->unit);
        fflush(stdout);
    }
    return 0;
}
