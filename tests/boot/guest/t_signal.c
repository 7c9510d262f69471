/* tests/boot/guest/t_signal.c - signals: delivery, nesting, alternate stacks, contexts, timers. */
#include "bt.h"
#include <setjmp.h>
#include <sys/time.h>
#include <ucontext.h>

static volatile sig_atomic_t hits;
static void count_hit(int sig) { hits++; }

static void storm(void)
{
    signal(SIGUSR1, count_hit);
    for (int i = 0; i < 20000; i++)
        raise(SIGUSR1);
    REQUIRE_MSG(hits == 20000, "%d signals", (int)hits);
}

static void between_processes(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    pid_t parent = getpid(), child = fork();
    int sig;
    for (int i = 0; i < 500; i++) {
        if (child == 0) {
            kill(parent, SIGUSR1);
            REQUIRE(sigwait(&set, &sig) == 0);
        } else {
            REQUIRE(sigwait(&set, &sig) == 0);
            kill(child, SIGUSR1);
        }
    }
    if (child == 0)
        _exit(0);
    bt_wait(child);
}

static char *volatile stack_low, *volatile stack_high;
static volatile bool on_alt_stack;
static void on_overflow(int sig, siginfo_t *info, void *context)
{
    char here;
    on_alt_stack = &here > stack_low && &here < stack_high;
    hits++;
    siglongjmp(*(sigjmp_buf *)(stack_high - sizeof(sigjmp_buf)), 1);
}
static int __attribute__((noinline)) recurse(volatile char *p)
{
    volatile char page[4096];
    page[0] = p ? p[0] : 1;
    return page[0] ? recurse(page) + page[0] : 0; /* page[0] is 1: only the end of the stack ends this */
}
static void alternate_stack(void)
{
    enum { BYTES = 65536 };
    stack_low = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    stack_high = stack_low + BYTES;
    stack_t ss = {.ss_sp = stack_low, .ss_size = BYTES - 4096};
    REQUIRE(sigaltstack(&ss, NULL) == 0);
    struct sigaction sa = {.sa_sigaction = on_overflow, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigaction(SIGSEGV, &sa, NULL);
    for (volatile int i = 0; i < 3; i++)
        if (!sigsetjmp(*(sigjmp_buf *)(stack_high - sizeof(sigjmp_buf)), 1))
            recurse(NULL);
    REQUIRE(hits == 3 && on_alt_stack);
}

/* The handler sees the registers of the faulting instruction and may change them: here it skips over it. */
extern char fault_at[], fault_next[];
static void on_fault(int sig, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
#ifdef __x86_64__
    greg_t *ip = &uc->uc_mcontext.gregs[REG_RIP], *cx = &uc->uc_mcontext.gregs[REG_RCX];
#else
    greg_t *ip = &uc->uc_mcontext.gregs[REG_EIP], *cx = &uc->uc_mcontext.gregs[REG_ECX];
#endif
    if ((uintptr_t)*ip == (uintptr_t)fault_at && *cx == 0x77 && (uintptr_t)info->si_addr == 0x40)
        hits++;
    *ip = (greg_t)(uintptr_t)fault_next;
    *cx = 0x99;
}
static void context_is_exact(void)
{
    struct sigaction sa = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &sa, NULL);
    for (int i = 0; i < 1000; i++) {
        uintptr_t cx = 0x77, carry;
        __asm__ volatile("stc; .globl fault_at, fault_next; fault_at: movl $1, 0x40; fault_next: sbb %1, %1"
                         : "+c"(cx), "=r"(carry)::"memory", "cc");
        REQUIRE(cx == 0x99 && carry == (uintptr_t)-1);
    }
    REQUIRE_MSG(hits == 1000, "%d of 1000 exact", (int)hits);
}

static void interval_timer(void)
{
    struct itimerval t = {.it_interval = {0, 5000}, .it_value = {0, 5000}}, off = {0};
    signal(SIGALRM, count_hit);
    signal(SIGVTALRM, count_hit);
    setitimer(ITIMER_REAL, &t, NULL);
    volatile unsigned long work = 0;
    uint64_t begun = bt_now_ns(), took = 0;
    while (hits < 100 && took < 20000000000ull) { /* a starved guest misses many */
        work++;
        took = bt_now_ns() - begun;
    }
    setitimer(ITIMER_REAL, &off, NULL);
    alarm(90);
    REQUIRE_MSG(hits >= 100 && took >= 480000000, "%d ticks of 5 ms in %llu ns", (int)hits, (unsigned long long)took);
}

static volatile int depth, deepest;
static void nest(int sig)
{
    if (++depth > deepest)
        deepest = depth;
    if (sig < SIGRTMIN + 7)
        raise(sig + 1);
    depth--;
}
static void nested(void)
{
    for (int i = 0; i < 8; i++)
        signal(SIGRTMIN + i, nest);
    for (int i = 0; i < 500; i++)
        raise(SIGRTMIN);
    REQUIRE(deepest == 8 && depth == 0);
}

const struct bt_test bt_signal[] = {
    {"signal-storm", storm},
    {"signal-between-processes", between_processes},
    {"signal-alt-stack", alternate_stack},
    {"signal-context", context_is_exact},
    {"signal-timer", interval_timer},
    {"signal-nested", nested},
    {NULL, NULL},
};
