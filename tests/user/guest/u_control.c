/* tests/user/guest/u_control.c - control flow that leaves the beaten track: longjmp, contexts, C++ exceptions; process creation. */
#include "ut.h"
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <spawn.h>

static jmp_buf env;
static sigjmp_buf sigenv;
static void (*volatile jump_on)(int);
static void jump_from(int depth)
{
    volatile char room[100];
    room[0] = (char)depth;
    if (room[0])
        jump_on(depth - 1);
    longjmp(env, 42 + room[0]);
}
static void jump_out(int sig) { siglongjmp(sigenv, sig); }
static void long_jumps(void)
{
    volatile unsigned kept = 0;
    for (volatile int i = 0; i < 2000; i++) {
        int r = setjmp(env);
        jump_on = jump_from;
        if (!r)
            jump_on(i % 20);
        REQUIRE(r == 42 && kept == (unsigned)i);
        kept++;
    }
    /* Out of a handler, with the mask as it was at sigsetjmp. */
    signal(SIGUSR1, jump_out);
    for (volatile int i = 0; i < 500; i++) {
        if (!sigsetjmp(sigenv, 1)) {
            raise(SIGUSR1);
            REQUIRE(false);
        }
        sigset_t now;
        sigprocmask(SIG_SETMASK, NULL, &now);
        REQUIRE(!sigismember(&now, SIGUSR1));
    }
}

static ucontext_t main_context, routine[2];
static int switches;
static void coroutine(int me)
{
    volatile double x = me + 0.5;
    for (int i = 0; i < 300; i++) {
        switches++;
        x = x * 1.0000001;
        swapcontext(&routine[me], &routine[!me]);
    }
    setcontext(&main_context);
}
static void contexts(void)
{
    for (int i = 0; i < 2; i++) {
        getcontext(&routine[i]);
        routine[i].uc_stack.ss_sp = ut_anon(16 * UT_PAGE, PROT_READ | PROT_WRITE);
        routine[i].uc_stack.ss_size = 16 * UT_PAGE;
        routine[i].uc_link = NULL;
        makecontext(&routine[i], (void (*)(void))coroutine, 1, i);
    }
    REQUIRE(swapcontext(&main_context, &routine[0]) == 0);
    REQUIRE_MSG(switches >= 599, "%d", switches);
}

#ifdef UT_CXX
const char *ut_cxx_throw(void), *ut_cxx_nested(void), *ut_cxx_threads(void), *ut_cxx_from_signal(void),
    *ut_cxx_standard(void);
static void no_complaint(const char *why) { REQUIRE_MSG(!why, "%s", why); }
static void cxx_throw(void) { no_complaint(ut_cxx_throw()); }
static void cxx_nested(void) { no_complaint(ut_cxx_nested()); }
static void cxx_threads(void) { no_complaint(ut_cxx_threads()); }
static void cxx_from_signal(void) { no_complaint(ut_cxx_from_signal()); }
static void cxx_standard(void) { no_complaint(ut_cxx_standard()); }
#endif

/* vfork: one address space, the parent waits. */
static volatile int vfork_word;
static void vfork_shares(void)
{
    for (volatile int i = 1; i <= 100; i++) {
        pid_t child = vfork();
        if (child == 0) {
            vfork_word = i;
            _exit(3);
        }
        REQUIRE(vfork_word == i);
        int status;
        REQUIRE(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 3);
    }
}

static int clone_main(void *arg)
{
    *(volatile int *)arg += 5;
    return 7;
}
static void clone_shares(void)
{
    uint8_t *stack = ut_anon(16 * UT_PAGE, PROT_READ | PROT_WRITE);
    volatile int word = 0;
    for (int i = 0; i < 50; i++) {
        int status, vm = i % 2 ? CLONE_VM : 0;
        pid_t child = clone(clone_main, stack + 16 * UT_PAGE, SIGCHLD | vm, (void *)&word);
        REQUIRE(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 7);
        REQUIRE_MSG(word == (i + 1) / 2 * 5, "round %d: %d", i, word);
    }
}

extern char **environ;
static void spawning(void)
{
    char *argv[] = {"user-test", "none-of-this-name", NULL};
    for (int i = 0; i < 20; i++) {
        pid_t child;
        posix_spawn_file_actions_t a;
        posix_spawn_file_actions_init(&a);
        posix_spawn_file_actions_addopen(&a, 0, "/dev/null", O_RDONLY, 0);
        REQUIRE(posix_spawn(&child, "/proc/self/exe", &a, NULL, argv, environ) == 0);
        posix_spawn_file_actions_destroy(&a);
        bt_wait(child);
        REQUIRE(posix_spawn(&child, "/no/such/file", NULL, NULL, argv, environ) == ENOENT);
    }
}

/* A large argument list arrives whole: the child sums it up. */
static void exec_arguments(void)
{
    static char *argv[600];
    argv[0] = "user-test";
    argv[1] = "-a";
    unsigned sum = 0;
    for (int i = 2; i < 599; i++) {
        size_t n = 50 + (size_t)i % 150;
        argv[i] = malloc(n + 1);
        memset(argv[i], 'a' + i % 26, n);
        argv[i][n] = 0;
        for (size_t k = 0; k < n; k++)
            sum = sum * 31 + (uint8_t)argv[i][k];
    }
    char want[16];
    snprintf(want, sizeof want, "%u", sum);
    setenv("UT_SUM", want, 1);
    for (int i = 0; i < 5; i++) {
        pid_t child = fork();
        if (child == 0) {
            execv("/proc/self/exe", argv);
            _exit(9);
        }
        bt_wait(child);
    }
}
/* Runs before main: a child of exec_arguments. */
__attribute__((constructor)) static void sum_arguments(int argc, char **argv)
{
    if (argc < 3 || strcmp(argv[1], "-a"))
        return;
    unsigned sum = 0;
    for (int i = 2; i < argc; i++)
        for (const char *p = argv[i]; *p; p++)
            sum = sum * 31 + (uint8_t)*p;
    const char *want = getenv("UT_SUM");
    _exit(want && (unsigned)strtoul(want, NULL, 10) == sum ? 0 : 1);
}

const struct bt_test u_control[] = {
    {"u-control-longjmp", long_jumps},
    {"u-control-contexts", contexts},
#ifdef UT_CXX
    {"u-cxx-throw", cxx_throw},
    {"u-cxx-nested", cxx_nested},
    {"u-cxx-threads", cxx_threads},
    {"u-cxx-from-signal", cxx_from_signal},
    {"u-cxx-standard", cxx_standard},
#endif
    {"u-proc-vfork", vfork_shares},
    {"u-proc-clone", clone_shares},
    {"u-proc-spawn", spawning},
    {"u-proc-arguments", exec_arguments},
    {NULL, NULL},
};
