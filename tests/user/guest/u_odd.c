/* tests/user/guest/u_odd.c - what no compiler writes: system calls with odd numbers and flags, flags kept across every way into the kernel,
 * RDTSC forbidden, memory where others would not map any, vsyscalls with a bad stack, storms of traps and signals. */
#define _GNU_SOURCE
#include "ut.h"
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <sys/utsname.h>

/* ---- a piece of code run with all registers chosen, and what they are at the trap that ends it ---- */

#ifdef __x86_64__
enum { GREGS = 16 };
static const int greg[GREGS] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
#else
enum { GREGS = 8 };
static const int greg[GREGS] = {REG_EAX, REG_ECX, REG_EDX, REG_EBX, REG_ESP, REG_EBP, REG_ESI, REG_EDI};
#endif
enum { AX, CX, DX, BX, SP, BP, SI, DI };
struct shot {
    uintptr_t g[GREGS], ip, flags;
    unsigned cs; /* 0: as it is */
    int sig, code;
    uintptr_t addr;
    unsigned long trapno, err;
};
static struct shot *shot;
static ucontext_t shooter;
static uint8_t *code_page, *stack_page, *trap_stack;
static volatile bool in_flight;

static unsigned get_cs(const ucontext_t *uc)
{
#ifdef __x86_64__
    return (unsigned)uc->uc_mcontext.gregs[REG_CSGSFS] & 0xffff;
#else
    return (unsigned)uc->uc_mcontext.gregs[REG_CS] & 0xffff;
#endif
}
static void set_cs(ucontext_t *uc, unsigned cs)
{
#ifdef __x86_64__
    uc->uc_mcontext.gregs[REG_CSGSFS] = (uc->uc_mcontext.gregs[REG_CSGSFS] & ~0xffffll) | cs;
#else
    uc->uc_mcontext.gregs[REG_CS] = (greg_t)cs;
#endif
}
static void take_off(int sig, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    memcpy(&shooter, uc, sizeof shooter);
    for (unsigned i = 0; i < GREGS; i++)
        uc->uc_mcontext.gregs[greg[i]] = (greg_t)shot->g[i];
    uc->uc_mcontext.gregs[UT_IP] = (greg_t)shot->ip;
    uc->uc_mcontext.gregs[REG_EFL] = (greg_t)shot->flags;
    if (shot->cs)
        set_cs(uc, shot->cs);
    in_flight = true;
}
static void land(int sig, siginfo_t *info, void *context)
{
    ut_clear_ac();
    ucontext_t *uc = context;
    REQUIRE_MSG(in_flight, "signal %d at 0x%lx, address %p", sig, (long)uc->uc_mcontext.gregs[UT_IP], info->si_addr);
    in_flight = false;
    for (unsigned i = 0; i < GREGS; i++) {
        shot->g[i] = (uintptr_t)uc->uc_mcontext.gregs[greg[i]];
        uc->uc_mcontext.gregs[greg[i]] = shooter.uc_mcontext.gregs[greg[i]];
    }
    shot->ip = (uintptr_t)uc->uc_mcontext.gregs[UT_IP];
    shot->flags = (uintptr_t)uc->uc_mcontext.gregs[REG_EFL];
    shot->cs = get_cs(uc);
    shot->sig = sig;
    shot->code = info->si_code;
    shot->addr = (uintptr_t)info->si_addr;
    shot->trapno = (unsigned long)uc->uc_mcontext.gregs[REG_TRAPNO];
    shot->err = (unsigned long)uc->uc_mcontext.gregs[REG_ERR];
    uc->uc_mcontext.gregs[UT_IP] = shooter.uc_mcontext.gregs[UT_IP];
    uc->uc_mcontext.gregs[REG_EFL] = shooter.uc_mcontext.gregs[REG_EFL];
    set_cs(uc, get_cs(&shooter));
}
/* Code, stack and handlers; all below 4 GiB, so that 32-bit code can use them. */
static void range(void)
{
    static const int traps[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS};
    int low = 0;
#ifdef __x86_64__
    low = MAP_32BIT;
#endif
    code_page = mmap(NULL, 2 * UT_PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | low, -1, 0);
    stack_page = mmap(NULL, 2 * UT_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | low, -1, 0);
    trap_stack = ut_anon(16 * UT_PAGE, PROT_READ | PROT_WRITE);
    REQUIRE(code_page != MAP_FAILED && stack_page != MAP_FAILED);
    stack_t ss = {.ss_sp = trap_stack, .ss_size = 16 * UT_PAGE};
    REQUIRE(sigaltstack(&ss, NULL) == 0);
    for (unsigned i = 0; i < sizeof traps / sizeof traps[0]; i++)
        ut_handle(traps[i], land, SA_ONSTACK);
    ut_handle(SIGUSR2, take_off, SA_ONSTACK);
}
static void aim(struct shot *s, uintptr_t at, const uint8_t *code, size_t n)
{
    memset(s, 0, sizeof *s);
    for (unsigned i = 0; i < GREGS; i++)
        s->g[i] = (uintptr_t)0x0123456789abcdefull * (i + 3);
    s->g[SP] = (uintptr_t)stack_page + UT_PAGE;
    s->ip = at;
    s->flags = 0x202;
    memcpy((void *)at, code, n);
}
static void fire(struct shot *s)
{
    shot = s;
    raise(SIGUSR2);
}
#define AIM(s, ...)                                                                                                    \
    do {                                                                                                               \
        static const uint8_t bytes_[] = {__VA_ARGS__};                                                                 \
        aim(s, (uintptr_t)code_page, bytes_, sizeof bytes_);                                                           \
    } while (0)
#define UD2 0x0f, 0x0b
#define INT80 0xcd, 0x80
#define SYSCALL 0x0f, 0x05
#define NOP 0x90
#define CODE(n) ((uintptr_t)code_page + (n))

/* ---- system calls ---- */

enum { FLAGS_SEEN = 0x244dd7 }; /* all that user code can change; RF comes and goes */
static void check_call(const char *what, const struct shot *before, const struct shot *s, unsigned clobbered)
{
    REQUIRE_MSG(s->sig == SIGILL && s->ip == CODE(2), "%s: signal %d at +0x%lx", what, s->sig, (long)(s->ip - CODE(0)));
    for (unsigned i = 0; i < GREGS; i++)
        if (!(clobbered >> i & 1))
            REQUIRE_MSG(s->g[i] == before->g[i], "%s: register %u 0x%llx, not 0x%llx", what, i,
                        (unsigned long long)s->g[i], (unsigned long long)before->g[i]);
    REQUIRE_MSG((s->flags & FLAGS_SEEN) == (before->flags & FLAGS_SEEN), "%s: flags 0x%lx, not 0x%lx", what,
                (long)s->flags, (long)before->flags);
}
static const uintptr_t call_flags[] = {0x202, 0x602, 0xed7, 0x40202};
static void calls_keep_registers(void)
{
    struct shot s, before;
    range();
    for (unsigned n = 0; n < 40; n++)
        for (unsigned f = 0; f < sizeof call_flags / sizeof call_flags[0]; f++) {
#ifdef __x86_64__
            AIM(&s, SYSCALL, UD2);
            s.g[AX] = SYS_getppid | 0xabcdef0000000000;
            s.flags = call_flags[f];
            before = s;
            fire(&s);
            check_call("SYSCALL", &before, &s, 1u << AX | 1u << CX | 1u << 11);
            REQUIRE(s.g[AX] == (uintptr_t)getppid() && s.g[CX] == CODE(2));
            REQUIRE_MSG((s.g[11] & FLAGS_SEEN) == (call_flags[f] & FLAGS_SEEN), "R11 0x%lx", (long)s.g[11]);
#endif
            AIM(&s, INT80, UD2);
            s.g[AX] = (uintptr_t)0xabcdef0000000000ull | 64; /* getppid */
            s.flags = call_flags[f];
            before = s;
            fire(&s);
            check_call("INT 80h", &before, &s, 1u << AX);
            REQUIRE_MSG(s.g[AX] == (uintptr_t)getppid(), "INT 80h: 0x%lx", (long)s.g[AX]);
        }
}

static bool kernel_from(unsigned major, unsigned minor)
{
    struct utsname u;
    unsigned a = 0, b = 0;
    REQUIRE(uname(&u) == 0 && sscanf(u.release, "%u.%u", &a, &b) == 2);
    return a > major || (a == major && b >= minor);
}
/* Numbers that this kernel does not have, though the one below may: 335 and 336 are Linux 6.11's uretprobe and 6.18's uprobe. */
static void unknown_calls(void)
{
    static const long odd[] = {335, 336, 337, 423, 511, 548, 599, 600, 1023, 4096, 65535, 0x7fffffff, -1, -2, -4096};
    for (unsigned n = 0; n < 10; n++)
        for (unsigned i = 0; i < sizeof odd / sizeof odd[0]; i++) {
            if (sizeof(long) == 8 ? odd[i] < 337 && odd[i] > 0 && kernel_from(6, 11) : odd[i] > 0 && odd[i] < 1023)
                continue;
            for (unsigned x32 = 0; x32 < (odd[i] >= 599 && sizeof(long) == 8 ? 2 : 1); x32++) {
                long got = syscall(odd[i] | (x32 ? 0x40000000 : 0), 1, 2, 3, 4, 5, 6);
                REQUIRE_MSG(got == -1 && errno == ENOSYS, "call 0x%lx, %u: %ld, errno %d", odd[i], x32, got, errno);
            }
        }
}

#ifndef __x86_64__
/* SYSENTER of one's own making: EBP points to what the vDSO would have pushed, in a page that nobody but the kernel has touched. */
static void own_sysenter(void)
{
    struct shot s;
    range();
    int fd[2];
    REQUIRE(pipe(fd) == 0);
    for (unsigned n = 0; n < 40; n++) {
        uintptr_t frame[4] = {0x1111, 0x2222, 0x3333, CODE(16)}; /* ebp edx ecx, return address */
        uint8_t *fresh = ut_anon(UT_PAGE, PROT_READ | PROT_WRITE);
        REQUIRE(write(fd[1], frame, sizeof frame) == sizeof frame &&
                read(fd[0], fresh + 64, sizeof frame) == sizeof frame);
        AIM(&s, 0x0f, 0x34, 0xf4);
        memcpy(code_page + 16, (uint8_t[]){UD2}, 2);
        s.g[AX] = SYS_getppid;
        s.g[BP] = (uintptr_t)fresh + 64;
        fire(&s);
        if (n == 0 && s.sig == SIGILL && s.ip == CODE(0))
            bt_skip("no SYSENTER");
        REQUIRE_MSG(s.sig == SIGILL && s.ip == CODE(16), "signal %d at 0x%lx", s.sig, (long)s.ip);
        REQUIRE_MSG(s.g[AX] == (uintptr_t)getppid() && s.g[BP] == 0x1111 && s.g[DX] == 0x2222 && s.g[CX] == 0x3333 &&
                        s.g[SP] == (uintptr_t)fresh + 80,
                    "EAX 0x%lx, ESP 0x%lx", (long)s.g[AX], (long)s.g[SP]);
        munmap(fresh, UT_PAGE);
    }
}
#endif

/* ---- flags ---- */

/* TF set by POPF: the step comes after the next instruction; after a system call, after the one behind it. */
static void trap_flag(void)
{
    struct shot s;
    range();
    for (unsigned n = 0; n < 40; n++) {
        AIM(&s, 0x9d, NOP, NOP, UD2); /* popf */
        s.g[SP] -= 64;
        *(uintptr_t *)s.g[SP] = 0x302;
        fire(&s);
        REQUIRE_MSG(s.sig == SIGTRAP && s.ip == CODE(2) && s.trapno == 1 && (s.flags & 0x100),
                    "POPF: signal %d at +%ld", s.sig, (long)(s.ip - CODE(0)));
        AIM(&s, 0x9d, INT80, NOP, NOP, UD2);
        s.g[SP] -= 64;
        *(uintptr_t *)s.g[SP] = 0x302;
        s.g[AX] = 64;
        fire(&s);
        REQUIRE_MSG(s.sig == SIGTRAP && s.ip == CODE(4) && s.g[AX] == (uintptr_t)getppid(),
                    "INT 80h: signal %d at +%ld", s.sig, (long)(s.ip - CODE(0)));
#ifdef __x86_64__
        AIM(&s, 0x9d, SYSCALL, NOP, NOP, UD2);
        s.g[SP] -= 64;
        *(uintptr_t *)s.g[SP] = 0x302;
        s.g[AX] = SYS_getppid;
        fire(&s);
        REQUIRE_MSG(s.sig == SIGTRAP && s.ip == CODE(4) && s.g[AX] == (uintptr_t)getppid(),
                    "SYSCALL: signal %d at +%ld", s.sig, (long)(s.ip - CODE(0)));
#endif
        /* In the frame of a signal: the step comes after the first instruction. */
        AIM(&s, NOP, NOP, UD2);
        s.flags = 0x302;
        fire(&s);
        REQUIRE_MSG(s.sig == SIGTRAP && s.ip == CODE(1), "sigreturn: signal %d at +%ld", s.sig, (long)(s.ip - CODE(0)));
        /* PUSHF shows it; loads of SS hold the step back. */
        AIM(&s, 0x9d, 0x9c, NOP, UD2);
        s.g[SP] -= 64;
        *(uintptr_t *)s.g[SP] = 0x302;
        fire(&s);
        REQUIRE(s.sig == SIGTRAP && s.ip == CODE(2) && (*(uintptr_t *)s.g[SP] & 0x100));
        AIM(&s, 0x8c, 0xd0, 0x9d, 0x8e, 0xd0, NOP, NOP, UD2); /* mov eax, ss; popf; mov ss, eax */
        s.g[SP] -= 64;
        *(uintptr_t *)s.g[SP] = 0x302;
        fire(&s);
        REQUIRE_MSG(s.sig == SIGTRAP && s.ip == CODE(6), "MOV SS: signal %d at +%ld", s.sig, (long)(s.ip - CODE(0)));
    }
}

/* NT, ID and AC are the program's: they stay over system calls, faults and interrupts, and come back after a signal. */
static void sticky_flags(void)
{
    static const uintptr_t sticky[] = {0x4202, 0x200202, 0x40202, 0x244202};
    struct shot s;
    range();
    for (unsigned n = 0; n < 20; n++)
        for (unsigned i = 0; i < 4; i++)
            for (unsigned how = 0; how < 4; how++) {
                static const uint8_t middle[4][6] = {{INT80, NOP, NOP, NOP, NOP},
                                                     {0x88, 0x06, NOP, NOP, NOP, NOP},   /* mov [esi], al */
                                                     {0xff, 0xc9, 0x75, 0xfc, NOP, NOP}, /* 1: dec ecx; jnz 1b */
                                                     {SYSCALL, NOP, NOP, NOP, NOP}};
                if (sizeof(long) == 4 && how == 3)
                    continue;
                AIM(&s, 0x9d, 0, 0, 0, 0, 0, 0, 0x9c, UD2);
                memcpy(code_page + 1, middle[how], 6);
                uint8_t *fresh = ut_anon(UT_PAGE, PROT_READ | PROT_WRITE);
                s.g[SP] -= 64;
                *(uintptr_t *)s.g[SP] = sticky[i];
                s.g[AX] = how == 3 ? SYS_getppid : 64;
                s.g[SI] = (uintptr_t)fresh;
                s.g[CX] = 10000000;
                if (how == 2 && n > 1)
                    s.g[CX] = 1000;
                fire(&s);
                REQUIRE_MSG(s.sig == SIGILL, "flags 0x%lx, way %u: signal %d", (long)sticky[i], how, s.sig);
                uintptr_t got = *(uintptr_t *)s.g[SP];
                REQUIRE_MSG((got & 0x244300) == (sticky[i] & 0x244300), "flags 0x%lx, way %u: 0x%lx", (long)sticky[i],
                            how, (long)got);
                munmap(fresh, UT_PAGE);
            }
}

/* ---- what the kernel forbids or allows ---- */

static void read_tsc(void *arg) { __asm__ volatile("rdtsc" ::: "eax", "edx"); }
static void forbidden_tsc(void)
{
    for (int n = 0; n < 20; n++) {
        REQUIRE(bt_catch(read_tsc, NULL, NULL) == 0);
        REQUIRE(prctl(PR_SET_TSC, PR_TSC_SIGSEGV) == 0);
        int sig = bt_catch(read_tsc, NULL, NULL);
        REQUIRE_MSG(sig == SIGSEGV, "forbidden RDTSC: signal %d", sig);
        sched_yield();
        REQUIRE(bt_catch(read_tsc, NULL, NULL) == SIGSEGV);
        REQUIRE(prctl(PR_SET_TSC, PR_TSC_ENABLE) == 0);
    }
}

static void fill_by_kernel(uint8_t *p, size_t bytes, uint32_t seed)
{
    static uint32_t words[UT_PAGE / 4];
    int fd[2];
    REQUIRE(pipe(fd) == 0);
    for (size_t at = 0; at < bytes; at += UT_PAGE) {
        for (unsigned i = 0; i < UT_PAGE / 4; i++)
            words[i] = bt_random(&seed);
        REQUIRE(write(fd[1], words, UT_PAGE) == UT_PAGE && read(fd[0], p + at, UT_PAGE) == UT_PAGE);
    }
    close(fd[0]);
    close(fd[1]);
}
static bool filled(const uint8_t *p, size_t bytes, uint32_t seed)
{
    for (size_t at = 0; at < bytes; at += 4)
        if (*(const volatile uint32_t *)(p + at) != bt_random(&seed))
            return false;
    return true;
}
/* Memory at a given place: the kernel fills it, then it is read, written, executed. */
static void place(uintptr_t at, size_t bytes)
{
    for (uint32_t n = 1; n <= 3; n++) {
        uint8_t *p = mmap((void *)at, bytes, PROT_READ | PROT_WRITE | PROT_EXEC,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
        if (p == MAP_FAILED && (errno == EPERM || errno == EACCES))
            bt_skip("not allowed");
        REQUIRE(p == (uint8_t *)at);
        fill_by_kernel(p, bytes, n);
        REQUIRE_MSG(filled(p, bytes, n), "0x%lx: other bytes than the kernel wrote", (long)at);
        for (size_t i = 0; i < bytes; i += 64) {
            p[i] = 0xb8; /* mov eax, i; ret */
            *(volatile uint32_t *)(p + i + 1) = (uint32_t)i + n;
            p[i + 5] = 0xc3;
        }
        for (size_t i = 0; i < bytes; i += 64) {
            uint32_t got = ((uint32_t(*)(void))(at + i))();
            REQUIRE_MSG(got == (uint32_t)i + n, "0x%lx: code gives 0x%x", (long)(at + i), got);
        }
        REQUIRE(munmap(p, bytes) == 0);
    }
}
static void low_pages(void) { place(0x1000, 0x1f000); }

#ifdef __x86_64__
/* Where the stub of user worlds lies (docs/USERWORLDS.md): nothing is there on hardware. */
static void at_the_stub(void)
{
    uintptr_t stub = 0x7e2aa0000000;
    pid_t child = fork();
    if (child == 0) {
        place(stub, 0x10000);
        _exit(0);
    }
    bt_wait(child);
    place(stub - 0x10000, 0x30000);
    place(stub + 0x3000, 0x2000);
}

/* A vsyscall whose stack only the kernel has touched, or nobody: a return address there is a return address. After a page fault or a #GP, whose
 * traces must not be taken for the new fault. */
static bool vsyscall_executable(void)
{
    char line[256];
    bool found = false;
    FILE *f = fopen("/proc/self/maps", "r");
    while (f && fgets(line, sizeof line, f))
        found = found || (strstr(line, "[vsyscall]") && strstr(line, "xp"));
    fclose(f);
    return found;
}
static void vsyscall_stack(void)
{
    struct shot s;
    if (!vsyscall_executable())
        bt_skip("no vsyscall page");
    range();
    int fd[2];
    REQUIRE(pipe(fd) == 0);
    for (unsigned n = 0; n < 60; n++) {
        uint8_t *fresh = ut_anon(UT_PAGE, PROT_READ | PROT_WRITE);
        uintptr_t back = CODE(16);
        if (n % 3)
            REQUIRE(write(fd[1], &back, 8) == 8 && read(fd[0], fresh + 128, 8) == 8);
        AIM(&s, 0xff, 0xe3); /* jmp rbx */
        memcpy(code_page + 16, (uint8_t[]){UD2}, 2);
        if (n & 1) {
            AIM(&s, 0x8a, 0x06, 0xff, 0xe3); /* mov al, [rsi] first: a page fault of this process's own making */
            s.g[SI] = (uintptr_t)ut_anon(UT_PAGE, PROT_READ | PROT_WRITE);
        }
        memcpy(code_page + 16, (uint8_t[]){UD2}, 2);
        s.g[BX] = 0xffffffffff600400;
        s.g[DI] = 0;
        s.g[SP] = (uintptr_t)fresh + 128;
        fire(&s);
        if (n % 3)
            REQUIRE_MSG(s.sig == SIGILL && s.ip == CODE(16) && s.g[SP] == (uintptr_t)fresh + 136 && s.g[AX] > 1000000,
                        "round %u: signal %d at 0x%lx", n, s.sig, (long)s.ip);
        else
            REQUIRE_MSG(s.sig == SIGSEGV && s.ip == 0, "untouched stack, round %u: signal %d at 0x%lx", n, s.sig,
                        (long)s.ip);
        /* No stack at all. */
        AIM(&s, 0xff, 0xe3);
        s.g[BX] = 0xffffffffff600400;
        s.g[DI] = 0;
        s.g[SP] = 0x10000;
        fire(&s);
        REQUIRE_MSG(s.sig == SIGSEGV, "no stack: signal %d", s.sig);
        munmap(fresh, UT_PAGE);
    }
}
#endif

/* ---- storms ---- */

static volatile unsigned storm_hits;
static void skip_two(int sig, siginfo_t *info, void *context)
{
    ((ucontext_t *)context)->uc_mcontext.gregs[UT_IP] += 2;
    storm_hits++;
}
static void count_hit(int sig) { storm_hits++; }
static void trap_storm(void)
{
    enum { ROUNDS = 4000 };
    ut_handle(SIGILL, skip_two, 0);
    ut_handle(SIGFPE, skip_two, 0);
    signal(SIGALRM, count_hit);
    struct itimerval every = {{0, 5000}, {0, 5000}}, off = {{0, 0}, {0, 0}};
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint32_t dx = i;
        storm_hits = 0;
        __asm__ volatile("ud2; xor %%ecx, %%ecx; div %%ecx; ud2" : "+d"(dx)::"eax", "ecx", "cc");
        REQUIRE(storm_hits == 3 && dx == i);
    }
    setitimer(ITIMER_REAL, &every, NULL);
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint32_t dx = i;
        __asm__ volatile("ud2; ud2" : "+d"(dx));
        REQUIRE(dx == i);
    }
    setitimer(ITIMER_REAL, &off, NULL);
    alarm(90);
}

/* Threads that signal one another while they compute; each finds its own registers and its own thread-local word again. */
enum { STORMERS = 24, STORM_ROUNDS = 150 };
static pthread_t stormer[STORMERS];
static __thread volatile uint32_t my_word;
static volatile uint32_t all_hits;
static pthread_barrier_t storm_barrier;
static void on_storm(int sig)
{
    my_word++;
    __atomic_add_fetch(&all_hits, 1, __ATOMIC_SEQ_CST);
}
static void *storm_thread(void *arg)
{
    uintptr_t me = (uintptr_t)arg;
    double x = (double)me, y = (double)me;
    pthread_barrier_wait(&storm_barrier);
    for (unsigned i = 0; i < STORM_ROUNDS; i++) {
        pthread_kill(stormer[(me * 7 + i) % STORMERS], SIGUSR1);
        for (unsigned k = 0; k < 200; k++) {
            x = x * 1.0000001 + 1e-9;
            __asm__ volatile("" : "+x"(x));
        }
        for (unsigned k = 0; k < 200; k++)
            y = y * 1.0000001 + 1e-9;
        REQUIRE_MSG(x == y, "thread %u: %.17g, not %.17g", (unsigned)me, x, y);
    }
    pthread_barrier_wait(&storm_barrier);
    return NULL;
}
static void signal_storm(void)
{
    pthread_attr_t a;
    pthread_attr_init(&a);
    pthread_attr_setstacksize(&a, 1 << 18);
    signal(SIGUSR1, on_storm);
    REQUIRE(pthread_barrier_init(&storm_barrier, NULL, STORMERS + 1) == 0);
    for (uintptr_t i = 0; i < STORMERS; i++)
        REQUIRE(pthread_create(&stormer[i], &a, storm_thread, (void *)i) == 0);
    pthread_barrier_wait(&storm_barrier);
    pthread_barrier_wait(&storm_barrier);
    for (unsigned i = 0; i < STORMERS; i++)
        REQUIRE(pthread_join(stormer[i], NULL) == 0);
    REQUIRE_MSG(all_hits >= STORMERS && all_hits <= STORMERS * STORM_ROUNDS, "%u signals", all_hits);
}

/* Handlers on an alternate stack that has no room left, or no memory: the process dies, and nothing else. */
static void dig(int sig) { __asm__ volatile("ud2"); }
static void overflow(int how)
{
    uint8_t *stack = ut_anon(18 * UT_PAGE, PROT_READ | PROT_WRITE);
    mprotect(stack, UT_PAGE, PROT_NONE);
    stack_t ss = {.ss_sp = stack + UT_PAGE, .ss_size = 16 * UT_PAGE};
    struct sigaction sa = {.sa_handler = dig, .sa_flags = SA_ONSTACK | SA_NODEFER};
    REQUIRE(sigaltstack(&ss, NULL) == 0);
    sigaction(SIGILL, &sa, NULL);
    if (how == 1)
        munmap(stack, 18 * UT_PAGE);
    if (how == 2)
        mprotect(stack, 18 * UT_PAGE, PROT_READ);
    if (how == 3)
        munmap(stack + 16 * UT_PAGE, UT_PAGE); /* a hole in the middle of the frame */
    __asm__ volatile("ud2");
}
static void stack_overflows(void)
{
    for (int i = 0; i < 40; i++) {
        int status;
        pid_t child = fork();
        if (child == 0) {
            overflow(i % 4);
            _exit(0);
        }
        REQUIRE(waitpid(child, &status, 0) == child);
        REQUIRE_MSG(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV, "way %d: status 0x%x", i % 4, status);
    }
}

/* A loop that never enters the kernel is interrupted all the same, and in time. */
static volatile uint64_t late[100];
static volatile unsigned n_late;
static uint64_t due;
static void on_time(int sig)
{
    if (n_late < 100)
        late[n_late] = bt_now_ns() - (due + n_late * 10000000ull);
    n_late++;
}
static void loops_are_interrupted(void)
{
    signal(SIGALRM, on_time);
    timer_t t;
    struct itimerspec every = {{0, 10000000}, {0, 0}};
    REQUIRE(timer_create(CLOCK_MONOTONIC, &(struct sigevent){.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM},
                         &t) == 0);
    due = bt_now_ns() + 10000000;
    every.it_value = (struct timespec){(time_t)(due / 1000000000), (long)(due % 1000000000)};
    REQUIRE(timer_settime(t, TIMER_ABSTIME, &every, NULL) == 0);
    while (n_late < 100)
        ;
    timer_delete(t);
    uint64_t best = ~0ull;
    for (unsigned i = 0; i < 100; i++)
        best = late[i] < best ? late[i] : best;
    REQUIRE_MSG(best < 20000000, "the best of 100 came %llu us late", (unsigned long long)best / 1000);
}

/* ---- mappings that move while another thread works ---- */

static uint8_t *volatile moving;
static volatile unsigned moves; /* odd while it moves */
static volatile bool moving_on;
static volatile uint32_t moved_bad;
static sigjmp_buf moved_env;
static void on_moved(int sig) { siglongjmp(moved_env, 1); }
static void *watch_moving(void *arg)
{
    uint32_t seed = 5;
    volatile uint32_t reads = 0;
    while (moving_on) {
        if (sigsetjmp(moved_env, 1))
            continue;
        unsigned before = moves, page = bt_random(&seed) % 16;
        uint32_t v = *(volatile uint32_t *)(moving + page * UT_PAGE);
        if (before == moves && !(before & 1) && v != 0x5000 + page)
            moved_bad = v + 1;
        reads++;
    }
    return NULL;
}
static void mremap_under_a_thread(void)
{
    enum { BYTES = 16 * UT_PAGE };
    struct sigaction sa = {.sa_handler = on_moved, .sa_flags = SA_NODEFER};
    sigaction(SIGSEGV, &sa, NULL);
    uint8_t *room = ut_anon(4 * BYTES, PROT_NONE), *at = room;
    REQUIRE(mmap(at, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == at);
    for (uint32_t i = 0; i < 16; i++)
        *(uint32_t *)(at + i * UT_PAGE) = 0x5000 + i;
    moving = at;
    moving_on = true;
    pthread_t t;
    REQUIRE(pthread_create(&t, NULL, watch_moving, NULL) == 0);
    for (unsigned n = 0; n < 600; n++) {
        uint8_t *to = room + (n + 1) % 4 * BYTES;
        moves++;
        REQUIRE(mremap(at, BYTES, BYTES, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to);
        /* What was there is gone at once, for every thread; something else takes its place. */
        if (n & 1) {
            REQUIRE(mmap(at, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == at);
            REQUIRE_MSG(*(volatile uint32_t *)(at + n % 16 * UT_PAGE) == 0, "the old place shows 0x%x",
                        *(volatile uint32_t *)(at + n % 16 * UT_PAGE));
        }
        moving = at = to;
        moves++;
        if (n % 7 == 0)
            sched_yield();
        REQUIRE(*(volatile uint32_t *)(at + n % 16 * UT_PAGE) == 0x5000 + n % 16);
        for (volatile unsigned i = 0; i < 2000; i++)
            ;
    }
    moving_on = false;
    pthread_join(t, NULL);
    REQUIRE_MSG(!moved_bad, "the other thread saw 0x%x", moved_bad - 1);
}

/* An instruction that lies across two pages: either half changes, and its other half is in a page that comes and goes. */
static void straddling_code(void)
{
    range();
    uint8_t *insn = code_page + UT_PAGE - 3; /* mov eax, imm32; ret: opcode and two bytes here, the rest there */
    for (uint32_t n = 0; n < 1500; n++) {
        uint32_t want = n * 2654435761u;
        insn[0] = 0xb8;
        if (n & 1) {
            memcpy(insn + 1, &want, 4);
        } else { /* the second half first, by another mapping's worth of zeroes */
            memcpy(insn + 3, (uint8_t *)&want + 2, 2);
            memcpy(insn + 1, &want, 2);
        }
        insn[5] = 0xc3;
        if (n % 50 == 0) {
            madvise(code_page + UT_PAGE, UT_PAGE, MADV_DONTNEED);
            memcpy(insn + 3, (uint8_t *)&want + 2, 2);
            insn[5] = 0xc3;
        }
        if (n % 70 == 0)
            REQUIRE(mprotect(code_page + (n & 1) * UT_PAGE, UT_PAGE, PROT_READ | PROT_EXEC) == 0);
        uint32_t got = ((uint32_t(*)(void))(uintptr_t)insn)();
        REQUIRE_MSG(got == want, "round %u: 0x%x, not 0x%x", n, got, want);
        if (n % 70 == 0)
            REQUIRE(mprotect(code_page, 2 * UT_PAGE, PROT_READ | PROT_WRITE | PROT_EXEC) == 0);
    }
}

const struct bt_test u_odd[] = {
    {"u-odd-call-registers", calls_keep_registers},
    {"u-odd-call-numbers", unknown_calls},
#ifdef __x86_64__
    {"u-odd-at-stub", at_the_stub},
    {"u-odd-vsyscall-stack", vsyscall_stack},
#else
    {"u-odd-own-sysenter", own_sysenter},
#endif
    {"u-odd-trap-flag", trap_flag},
    {"u-odd-sticky-flags", sticky_flags},
    {"u-odd-forbidden-tsc", forbidden_tsc},
    {"u-odd-low-pages", low_pages},
    {"u-odd-trap-storm", trap_storm},
    {"u-odd-signal-storm", signal_storm},
    {"u-odd-stack-overflows", stack_overflows},
    {"u-odd-loops-interrupted", loops_are_interrupted},
    {"u-odd-mremap-thread", mremap_under_a_thread},
    {"u-odd-straddling-code", straddling_code},
    {NULL, NULL},
};
