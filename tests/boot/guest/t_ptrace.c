/* tests/boot/guest/t_ptrace.c - a small tracer: single steps, breakpoints, hardware break- and watchpoints. */
#include "bt.h"
#include <sys/ptrace.h>
#include <sys/user.h>

#ifdef __x86_64__
#define IP rip
#define AX rax
#define CX rcx
#define ORIG orig_rax
#else
#define IP eip
#define AX eax
#define CX ecx
#define ORIG orig_eax
#endif
#define DR(n) ((void *)(offsetof(struct user, u_debugreg) + (n) * sizeof(long)))

/* What the tracee runs: known instructions between labels. */
extern char steps_begin[], steps_loop[], steps_after[], steps_store[], steps_stored[], steps_end[];
static volatile uint32_t watched[4];
static void __attribute__((noinline)) tracee_code(void)
{
    __asm__ volatile(".globl steps_begin, steps_loop, steps_after, steps_store, steps_stored, steps_end\n"
                     "steps_begin: mov $3, %%ecx\n"
                     "steps_loop: dec %%ecx\n"
                     "jnz steps_loop\n"
                     "steps_after: mov $0x1234, %%eax\n"
                     "steps_store: movl %%eax, %0\n"
                     "steps_stored: nop\n"
                     "steps_end: nop\n"
                     : "=m"(watched[1])::"eax", "ecx", "cc", "memory");
}

static pid_t start(void)
{
    pid_t child = fork();
    if (child == 0) {
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        raise(SIGSTOP);
        for (;;)
            tracee_code();
    }
    int status;
    REQUIRE(waitpid(child, &status, 0) == child && WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
    return child;
}

static void stop(pid_t child)
{
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
}

static void go(pid_t child, int how)
{
    int status;
    REQUIRE(ptrace(how, child, NULL, NULL) == 0);
    REQUIRE(waitpid(child, &status, 0) == child);
    REQUIRE_MSG(WIFSTOPPED(status) && (WSTOPSIG(status) & 0x7f) == SIGTRAP, "status 0x%x", status);
}

static struct user_regs_struct regs(pid_t child)
{
    struct user_regs_struct r;
    REQUIRE(ptrace(PTRACE_GETREGS, child, NULL, &r) == 0);
    return r;
}

static void poke_dr(pid_t child, int n, unsigned long v)
{
    REQUIRE_MSG(ptrace(PTRACE_POKEUSER, child, DR(n), (void *)v) == 0, "DR%d: errno %d", n, errno);
}

static void run_to(pid_t child, void *where)
{
    poke_dr(child, 0, (unsigned long)where);
    poke_dr(child, 7, 1);
    go(child, PTRACE_CONT);
    REQUIRE_MSG((uintptr_t)regs(child).IP == (uintptr_t)where, "stopped at 0x%lx", (long)regs(child).IP);
    poke_dr(child, 7, 0);
}

static void single_step(void)
{
    pid_t child = start();
    run_to(child, steps_begin);
    /* mov, then dec and jnz three times, mov, store, nop. Where jnz lies is learnt at the first pass. */
    enum { LOOP, JNZ, AFTER, STORE, STORED, END };
    static const uint8_t order[] = {LOOP, JNZ, LOOP, JNZ, LOOP, JNZ, AFTER, STORE, STORED, END};
    uintptr_t at[] = {[LOOP] = (uintptr_t)steps_loop,
                      [AFTER] = (uintptr_t)steps_after,
                      [STORE] = (uintptr_t)steps_store,
                      [STORED] = (uintptr_t)steps_stored,
                      [END] = (uintptr_t)steps_end};
    for (size_t i = 0; i < sizeof order; i++) {
        go(child, PTRACE_SINGLESTEP);
        uintptr_t ip = (uintptr_t)regs(child).IP;
        if (i == 1)
            at[JNZ] = ip;
        REQUIRE_MSG(ip == at[order[i]], "step %zu at 0x%lx, not 0x%lx", i, (long)ip, (long)at[order[i]]);
    }
    REQUIRE(at[JNZ] > at[LOOP] && at[JNZ] < at[AFTER]);
    stop(child);
}

static void software_breakpoint(void)
{
    pid_t child = start();
    long word = ptrace(PTRACE_PEEKTEXT, child, steps_after, NULL);
    for (int i = 0; i < 50; i++) {
        REQUIRE(ptrace(PTRACE_POKETEXT, child, steps_after, (void *)((word & ~0xffl) | 0xcc)) == 0);
        go(child, PTRACE_CONT);
        struct user_regs_struct r = regs(child);
        REQUIRE((uintptr_t)r.IP == (uintptr_t)steps_after + 1 && (uint32_t)r.CX == 0);
        REQUIRE(ptrace(PTRACE_POKETEXT, child, steps_after, (void *)word) == 0);
        r.IP = (uintptr_t)steps_after;
        REQUIRE(ptrace(PTRACE_SETREGS, child, NULL, &r) == 0);
        go(child, PTRACE_SINGLESTEP);
        REQUIRE((uint32_t)regs(child).AX == 0x1234 && (uintptr_t)regs(child).IP == (uintptr_t)steps_store);
    }
    stop(child);
}

static void hardware_breakpoint(void)
{
    pid_t child = start();
    poke_dr(child, 0, (unsigned long)steps_after);
    poke_dr(child, 1, (unsigned long)steps_end);
    poke_dr(child, 7, 0x5);
    for (int i = 0; i < 100; i++) {
        go(child, PTRACE_CONT);
        uintptr_t want = (uintptr_t)(i % 2 ? steps_end : steps_after);
        REQUIRE_MSG((uintptr_t)regs(child).IP == want, "stop %d at 0x%lx, not 0x%lx", i, (long)regs(child).IP,
                    (long)want);
        long dr6 = ptrace(PTRACE_PEEKUSER, child, DR(6), NULL);
        REQUIRE_MSG((dr6 & 3) == (i % 2 ? 2 : 1), "DR6 0x%lx", dr6);
    }
    stop(child);
}

static void watchpoint(void)
{
    pid_t child = start();
    poke_dr(child, 0, (unsigned long)&watched[1]);
    poke_dr(child, 7, 1 | 0xdu << 16); /* L0, on writes, 4 bytes */
    for (int i = 0; i < 50; i++) {
        go(child, PTRACE_CONT);
        /* A trap: the store is done. */
        REQUIRE_MSG((uintptr_t)regs(child).IP == (uintptr_t)steps_stored, "stopped at 0x%lx", (long)regs(child).IP);
        REQUIRE((uint32_t)ptrace(PTRACE_PEEKDATA, child, &watched[1], NULL) == 0x1234);
        REQUIRE(ptrace(PTRACE_PEEKUSER, child, DR(6), NULL) & 1);
    }
    stop(child);
}

static void system_calls(void)
{
    pid_t child = fork();
    if (child == 0) {
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        raise(SIGSTOP);
        for (;;)
            syscall(SYS_getppid);
    }
    int status;
    REQUIRE(waitpid(child, &status, 0) == child);
    REQUIRE(ptrace(PTRACE_SETOPTIONS, child, NULL, (void *)PTRACE_O_TRACESYSGOOD) == 0);
    int seen = 0;
    for (int i = 0; i < 400; i++) {
        REQUIRE(ptrace(PTRACE_SYSCALL, child, NULL, NULL) == 0 && waitpid(child, &status, 0) == child);
        REQUIRE(WIFSTOPPED(status) && WSTOPSIG(status) == (SIGTRAP | 0x80));
        struct user_regs_struct r = regs(child);
        seen += (long)r.ORIG == SYS_getppid && (long)r.AX == getpid();
    }
    REQUIRE_MSG(seen > 150, "%d", seen);
    stop(child);
}

const struct bt_test bt_ptrace[] = {
    {"ptrace-single-step", single_step},
    {"ptrace-breakpoint", software_breakpoint},
    {"ptrace-hw-breakpoint", hardware_breakpoint},
    {"ptrace-watchpoint", watchpoint},
    {"ptrace-syscalls", system_calls},
    {NULL, NULL},
};
