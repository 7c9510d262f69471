/* tests/user/guest/hostile.h - what the attackers share: attempts in child processes, probing of memory. Included once by each program. */
#ifndef HOSTILE_H
#define HOSTILE_H
#define LIMIT_S 600
#include "../../boot/guest/bt_main.c"
#include "ut.h"
#include <sys/resource.h>

/* shadowmmu/uworld_int.h: where the stub lies, and what it is made of. Nothing of this exists on hardware. */
#define STUB 0x7e2aa0000000ull
#define STUB_CONST 0x1000
#define STUB_RO 0x2000
#define STUB_RW 0x6000
#define STUB_ALT 0x7000
#define STUB_END 0xb000
#define CANARY "/tmp/rd-hostile-canary" /* must never appear on the host */

/* With HOSTILE_WARM=MS every fourth attempt is made by a process that has computed for so long: user=auto runs it directly by then. */
static void warm_up(unsigned n)
{
    const char *ms = getenv("HOSTILE_WARM");
    struct timespec now, end;
    if (!ms || n % 4)
        return;
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_nsec += atoi(ms) * 1000000l;
    end.tv_sec += end.tv_nsec / 1000000000;
    end.tv_nsec %= 1000000000;
    do {
        for (volatile unsigned i = 0; i < 1000000; i++)
            ;
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while (now.tv_sec < end.tv_sec || (now.tv_sec == end.tv_sec && now.tv_nsec < end.tv_nsec));
}

/* Runs f in a child that has `ms` to live. Returns its wait status, 9 if it had to be killed. */
static int attempt_ms(void (*f)(uint64_t), uint64_t arg, unsigned ms)
{
    int status = 0;
    bool ended = false;
    sigset_t chld, before;
    struct timespec t = {ms / 1000, ms % 1000 * 1000000l};
    sigemptyset(&chld);
    sigaddset(&chld, SIGCHLD);
    sigprocmask(SIG_BLOCK, &chld, &before);
    static unsigned attempts;
    attempts++;
    pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        sigprocmask(SIG_SETMASK, &before, NULL);
        warm_up(attempts);
        f(arg);
        _exit(0);
    }
    while (!ended && sigtimedwait(&chld, NULL, &t) > 0)
        ended = waitpid(child, &status, WNOHANG) == child && !WIFSTOPPED(status); /* it may have become traced */
    if (!ended) {
        kill(child, SIGKILL);
        REQUIRE(waitpid(child, &status, 0) == child);
    }
    sigprocmask(SIG_SETMASK, &before, NULL);
    return status;
}
static int attempt(void (*f)(uint64_t), uint64_t arg) { return attempt_ms(f, arg, 1000); }
static bool died_of(int status, int sig) { return WIFSIGNALED(status) && WTERMSIG(status) == sig; }
static void must_die(const char *what, void (*f)(uint64_t), uint64_t arg, int sig)
{
    int status = attempt(f, arg);
    REQUIRE_MSG(died_of(status, sig), "%s 0x%llx: status 0x%x, not signal %d", what, (unsigned long long)arg, status,
                sig);
}

/* Does the machine still work? */
static void sane(void)
{
    int fd[2], status;
    char text[32] = "";
    REQUIRE(pipe(fd) == 0);
    pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        volatile double x = 1;
        for (int i = 0; i < 1000; i++)
            x = x * 1.001;
        dprintf(fd[1], "%.6f", x);
        _exit(x > 2.716 && x < 2.718 ? 0 : 1);
    }
    REQUIRE(waitpid(child, &status, 0) == child && status == 0);
    REQUIRE(read(fd[0], text, sizeof text - 1) > 0 && !strncmp(text, "2.71", 4));
    close(fd[0]);
    close(fd[1]);
}
#endif
