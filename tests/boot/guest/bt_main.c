/* tests/boot/guest/bt_main.c - runs the tests: boot-test [-p PREFIX] [NAME...] */
#include "bt.h"
#include <setjmp.h>
#include <stdarg.h>
#include <time.h>

#ifndef LIMIT_S
#define LIMIT_S 240
#endif
static struct report {
    int state; /* 0 nothing, 1 failed, 2 skipped */
    char why[256];
} * report;

void bt_fail(const char *file, int line, const char *fmt, ...)
{
    char why[200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(why, sizeof why, fmt, ap);
    va_end(ap);
    const char *base = strrchr(file, '/');
    if (!report->state) {
        snprintf(report->why, sizeof report->why, "%s:%d: %s", base ? base + 1 : file, line, why);
        report->state = 1;
    }
    _exit(1);
}

void bt_skip(const char *why)
{
    snprintf(report->why, sizeof report->why, "%s", why);
    report->state = 2;
    _exit(0);
}

void bt_wait(pid_t child)
{
    int status;
    pid_t got;
    while ((got = waitpid(child, &status, 0)) < 0 && errno == EINTR)
        ;
    REQUIRE(got == child);
    REQUIRE_MSG(status == 0, "a child ended with status 0x%x", status);
}

void *bt_shared(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    REQUIRE(p != MAP_FAILED);
    return p;
}

uint64_t bt_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static sigjmp_buf catch_env;
static siginfo_t catch_info;
static void on_catch(int sig, siginfo_t *info, void *context)
{
    catch_info = *info;
    siglongjmp(catch_env, sig);
}

int bt_catch(void (*f)(void *), void *arg, siginfo_t *info)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
    struct sigaction sa = {.sa_sigaction = on_catch, .sa_flags = SA_SIGINFO | SA_NODEFER};
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
        sigaction(signals[i], &sa, NULL);
    int sig = sigsetjmp(catch_env, 1);
    if (!sig)
        f(arg);
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
        signal(signals[i], SIG_DFL);
    if (info)
        *info = catch_info;
    return sig;
}

bool bt_cpu_has(const char *flag)
{
    char line[8192], *word, *save;
    FILE *f = fopen("/proc/cpuinfo", "r");
    bool found = false;
    while (f && !found && fgets(line, sizeof line, f))
        if (!strncmp(line, "flags", 5))
            for (word = strtok_r(line, " \t\n", &save); word && !found; word = strtok_r(NULL, " \t\n", &save))
                found = !strcmp(word, flag);
    if (f)
        fclose(f);
    return found;
}

uint32_t bt_random(uint32_t *state)
{
    uint32_t x = *state;
    x ^= x << 13;
    x ^= x >> 17;
    return *state = x ^ x << 5;
}

/* Returns 0 ok, 1 failed. */
static int run_one(const struct bt_test *t, const char *prefix)
{
    int status = 0;
    memset(report, 0, sizeof *report);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        setpgid(0, 0);
        alarm(LIMIT_S);
        t->run();
        _exit(0);
    }
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    kill(-child, SIGKILL); /* what the test may have left behind */
    if (status == 0 && report->state == 2) {
        printf("skip %s%s %s\n", prefix, t->name, report->why);
        return 0;
    }
    if (status == 0 && report->state == 0) {
        printf("ok %s%s\n", prefix, t->name);
        return 0;
    }
    if (!report->state && WIFSIGNALED(status))
        snprintf(report->why, sizeof report->why,
                 WTERMSIG(status) == SIGALRM ? "timed out (signal %d)" : "died of signal %d", WTERMSIG(status));
    printf("FAIL %s%s %s\n", prefix, t->name, report->why[0] ? report->why : "exited with a failure");
    return 1;
}

int main(int argc, char **argv)
{
    const char *prefix = "";
    int failed = 0;
    if (argc > 2 && !strcmp(argv[1], "-p")) {
        prefix = argv[2];
        argc -= 2;
        argv += 2;
    }
    report = mmap(NULL, sizeof *report, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (const struct bt_test *const *table = bt_tables; *table; table++)
        for (const struct bt_test *t = *table; t->name; t++) {
            bool wanted = argc == 1;
            for (int a = 1; a < argc; a++)
                wanted = wanted || !strcmp(argv[a], t->name);
            if (wanted)
                failed += run_one(t, prefix);
        }
    fflush(stdout);
    return failed != 0;
}
