/* bench/linux/work.c - the benchmarks of a Linux user process: the same static program natively and in guests.
 *
 * usage: work [dir=DIR] [busybox=FILE] [samples=N] [warm=MS] [outside=1] [only=NAME,...]. A line each, numbers hexadecimal:
 *     BENCH <name> <result or 0> <operations in each sample> <TSC ticks of each sample>...
 * A sample lasts about 1 ms (or one operation): short enough that most samples are left alone by the host's scheduler.
 * outside=1: for machines whose TSC is no clock. Samples are longer, and each stands between the lines BEGIN <name> and END <name>,
 * by which the runner takes the time.
 * warm: each piece of work runs that long first, for engines that adapt to what a process does.
 */
#include "lines.h"
#include "work.h"
#include <termios.h>
#include <time.h>

#define SAMPLE_TICKS 2500000u
#define OUTSIDE_TICKS 10000000u
#define MAX_SAMPLES 64u

const char *work_dir = "/tmp", *work_busybox = "/bin/busybox";
static const char *only;
static unsigned samples = 11, warm_ms;
static uint64_t sample_ticks = SAMPLE_TICKS;
static bool outside;

void work_die(const char *what)
{
    fprintf(stderr, "work: %s: %s\n", what, strerror(errno));
    fail(what);
}

static struct timespec clock_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t;
}
static long ms_between(struct timespec a, struct timespec b)
{
    return (long)(b.tv_sec - a.tv_sec) * 1000 + (b.tv_nsec - a.tv_nsec) / 1000000;
}

static uint64_t run(const struct work *w, uint64_t n)
{
    uint64_t start = ticks();
    w->run(n);
    return ticks() - start;
}

/* Doubles n until a run is long enough to extrapolate from; that also warms everything up. The better of two runs counts. */
static uint64_t calibrate(const struct work *w)
{
    for (uint64_t n = 1;; n *= 2) {
        uint64_t took = run(w, n);
        if (took > sample_ticks / 4) {
            uint64_t again = run(w, n);
            took = again < took ? again : took;
        }
        if (took > sample_ticks / 4)
            return n * sample_ticks / took + 1;
    }
}

static void mark(const char *what, const struct work *w)
{
    if (!outside)
        return;
    printf("%s %s\n", what, w->name);
    tcdrain(1); /* it has left the machine when this returns */
}

static void measure(const struct work *w)
{
    uint64_t took[MAX_SAMPLES];
    if (w->open)
        w->open();
    uint64_t check = w->check ? w->check() : 0, n = calibrate(w);
    if (warm_ms) {
        for (struct timespec now, begun = clock_now(); now = clock_now(), ms_between(begun, now) < (long)warm_ms;)
            w->run(n);
        n = calibrate(w);
    }
    for (unsigned i = 0; i < samples; i++) {
        mark("BEGIN", w);
        took[i] = run(w, n);
        mark("END", w);
    }
    if (w->close)
        w->close();
    printf("BENCH %s %llx %llx", w->name, (unsigned long long)check, (unsigned long long)n);
    print_samples(took, samples);
}

int main(int argc, char **argv)
{
    if (argc > 1 && !strcmp(argv[1], "-x"))
        return 0;
    for (int i = 1; i < argc; i++) {
        const char *value = strchr(argv[i], '=');
        if (!value)
            continue;
        value++;
        if (!strncmp(argv[i], "dir=", 4))
            work_dir = value;
        else if (!strncmp(argv[i], "busybox=", 8))
            work_busybox = value;
        else if (!strncmp(argv[i], "only=", 5))
            only = value;
        else if (!strncmp(argv[i], "warm=", 5))
            warm_ms = (unsigned)atoi(value);
        else if (!strncmp(argv[i], "outside=", 8)) {
            outside = *value == '1';
            sample_ticks = outside ? OUTSIDE_TICKS : SAMPLE_TICKS;
        } else if (!strncmp(argv[i], "samples=", 8))
            samples = (unsigned)atoi(value);
    }
    if (samples == 0 || samples > MAX_SAMPLES)
        samples = 11;
    setvbuf(stdout, NULL, _IOLBF, 0);
    bool has_avx = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const struct work *const lists[] = {
        user_works, has_avx ? avx_works : NULL, memory_works, system_works, process_works, switch_works, network_works,
    };
    for (unsigned k = 0; k < sizeof lists / sizeof lists[0]; k++)
        for (const struct work *w = lists[k]; w && w->name; w++)
            if (in_list(only, w->name))
                measure(w);
    printf("DONE\n");
    return 0;
}
