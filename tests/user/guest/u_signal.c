/* tests/user/guest/u_signal.c - signals: FPU state kept, shown and changed by handlers, contexts, nesting, what each trap reports. */
#include "ut.h"
#include <sched.h>
#include <sys/time.h>

/* What XSAVE leaves of the registers after a signal, against what it leaves without one. */
static uint8_t before[UT_XSAVE_BYTES] __attribute__((aligned(64)));
static uint8_t expected[UT_XSAVE_BYTES] __attribute__((aligned(64)));
static uint8_t got[UT_XSAVE_BYTES] __attribute__((aligned(64)));
static uint8_t other[UT_XSAVE_BYTES] __attribute__((aligned(64)));
static uint8_t inner[UT_XSAVE_BYTES] __attribute__((aligned(64)));
static uint8_t dead[UT_XSAVE_BYTES] __attribute__((aligned(64))); /* XSTATE_BV 0: everything initial */
static volatile int hits;

#define XSTATE "a"(0xe7), "d"(0)
static void xrstor(const void *image) { __asm__ volatile("xrstor (%0)" ::"r"(image), XSTATE : "memory"); }
/* Leaves the FPU as a C program wants it. */
static void settle(void)
{
    *(uint32_t *)(dead + 24) = 0x1f80;
    xrstor(dead);
    __asm__ volatile("fninit");
}
static void load_and_save(const void *in, void *out)
{
    memset(out, 0, UT_XSAVE_BYTES);
    __asm__ volatile("xrstor (%0); xsave (%1)" ::"r"(in), "r"(out), XSTATE : "memory");
    settle();
}
/* The same with UD2 between, which the handler skips; and with a loop that other processes and timers interrupt. */
static void load_trap_save(const void *in, void *out)
{
    memset(out, 0, UT_XSAVE_BYTES);
    __asm__ volatile("xrstor (%0); ud2; xsave (%1)" ::"r"(in), "r"(out), XSTATE : "memory");
    settle();
}
static void load_spin_save(const void *in, void *out, unsigned rounds)
{
    memset(out, 0, UT_XSAVE_BYTES);
    __asm__ volatile("xrstor (%0); 1: dec %2; jnz 1b; xsave (%1)"
                     : "+r"(in), "+r"(out), "+r"(rounds)
                     : XSTATE
                     : "memory", "cc");
    settle();
}

static void skip_and_clobber(int sig, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    uc->uc_mcontext.gregs[UT_IP] += 2;
    hits++;
    load_and_save(other, inner); /* other registers: what the interrupted code has must come back */
}

static void fpu_across_handler(void)
{
    if (!ut_xfeatures())
        bt_skip("no XSAVE");
    ut_handle(SIGILL, skip_and_clobber, 0);
    for (uint32_t i = 1; i <= 100; i++) {
        ut_fill_image(before, i);
        ut_fill_image(other, ~i);
        load_and_save(before, expected);
        load_trap_save(before, got);
        int at = ut_image_differs(expected, got);
        REQUIRE_MSG(at < 0, "round %u: byte %d of the XSAVE image differs", i, at);
    }
    REQUIRE(hits == 100);
}

static void count_and_clobber(int sig, siginfo_t *info, void *context)
{
    hits++;
    load_and_save(other, inner);
}
static void fpu_across_timers(void)
{
    if (!ut_xfeatures())
        bt_skip("no XSAVE");
    ut_handle(SIGALRM, count_and_clobber, SA_RESTART);
    struct itimerval t = {.it_interval = {0, 1000}, .it_value = {0, 1000}}, off = {0};
    setitimer(ITIMER_REAL, &t, NULL);
    ut_fill_image(other, 99);
    uint32_t i = 1;
    for (; hits < 100; i++) {
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGALRM);
        sigprocmask(SIG_BLOCK, &set, NULL);
        ut_fill_image(before, i);
        load_and_save(before, expected);
        sigprocmask(SIG_UNBLOCK, &set, NULL);
        load_spin_save(before, got, 3000000);
        int at = ut_image_differs(expected, got);
        REQUIRE_MSG(at < 0, "round %u: byte %d of the XSAVE image differs", i, at);
    }
    setitimer(ITIMER_REAL, &off, NULL);
    alarm(90);
}

/* The frame shows the registers, and what the handler writes there is what the program goes on with. */
struct frame_check {
    uint32_t seed;
    bool right;
} frame_check;
static void change_frame(int sig, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    uint8_t *fp = (uint8_t *)uc->uc_mcontext.fpregs;
#ifndef __x86_64__
    uint8_t *st0 = fp + 28; /* of the old-style image, which counts for x87; the FXSAVE image follows */
    fp += 112;
#else
    uint8_t *st0 = fp + 32;
#endif
    unsigned bytes, ymm = ut_xfeatures() & 4 ? ut_component(2, &bytes) : 0;
    frame_check.right = !memcmp(fp + 160, before + 160, 128) && !memcmp(st0, before + 32, 10) &&
                        (!ymm || !memcmp(fp + ymm, before + ymm, 128));
    memset(fp + 160, 0x5a, 16);
    if (ymm)
        memset(fp + ymm + 16, 0xa5, 16);
    *st0 ^= 1;
    *(uint32_t *)(fp + 24) ^= 0x2000;
    uc->uc_mcontext.gregs[UT_IP] += 2;
    hits++;
}
static void fpu_in_frame(void)
{
    if (!ut_xfeatures())
        bt_skip("no XSAVE");
    ut_handle(SIGILL, change_frame, 0);
    unsigned bytes, ymm = ut_xfeatures() & 4 ? ut_component(2, &bytes) : 0;
    for (uint32_t i = 1; i <= 50; i++) {
        ut_fill_image(before, i);
        load_and_save(before, expected);
        memset(expected + 160, 0x5a, 16);
        if (ymm)
            memset(expected + ymm + 16, 0xa5, 16);
        expected[32] ^= 1;
        *(uint32_t *)(expected + 24) ^= 0x2000;
        load_trap_save(before, got);
        REQUIRE_MSG(frame_check.right, "round %u: the frame does not show the registers", i);
        int at = ut_image_differs(expected, got);
        REQUIRE_MSG(at < 0, "round %u: byte %d of the XSAVE image differs", i, at);
    }
}

/* Handlers inside handlers, each with registers of its own. */
static uint8_t deep[21][2][UT_XSAVE_BYTES] __attribute__((aligned(64)));
static int depth;
static void nest(int sig, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    uc->uc_mcontext.gregs[UT_IP] += 2;
    int mine = ++depth;
    hits++;
    if (mine < 20) {
        ut_fill_image(before, (uint32_t)mine);
        load_and_save(before, deep[mine][0]);
        load_trap_save(before, deep[mine][1]);
        int at = ut_image_differs(deep[mine][0], deep[mine][1]);
        REQUIRE_MSG(at < 0, "depth %d: byte %d of the XSAVE image differs", mine, at);
    }
}
static void nodefer_nesting(void)
{
    if (!ut_xfeatures())
        bt_skip("no XSAVE");
    ut_handle(SIGILL, nest, SA_NODEFER);
    ut_fill_image(before, 77);
    load_and_save(before, deep[0][0]);
    load_trap_save(before, deep[0][1]);
    REQUIRE(ut_image_differs(deep[0][0], deep[0][1]) < 0);
    REQUIRE_MSG(hits == 20, "%d handlers ran", hits);
}

/* The handler gives every register a new value and another place to go on. */
static uintptr_t regs_after[16] __attribute__((used)), flags_after __attribute__((used));
static void set_all(int sig, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    greg_t *g = uc->uc_mcontext.gregs;
#ifdef __x86_64__
    extern char redirected[];
    static const int all[] = {REG_RAX, REG_RBX, REG_RCX, REG_RDX, REG_RSI, REG_RDI, REG_RBP, REG_R8,
                              REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
    for (unsigned i = 0; i < 15; i++)
        g[all[i]] = (greg_t)(0x1111111111111111 * (uint64_t)i + 0x8000000000000000);
    g[REG_RIP] = (greg_t)redirected;
#else
    extern char redirected[];
    static const int all[] = {REG_EAX, REG_EBX, REG_ECX, REG_EDX, REG_ESI, REG_EDI, REG_EBP};
    for (unsigned i = 0; i < 7; i++)
        g[all[i]] = (greg_t)(0x11111111u * i + 0x80000000u);
    g[REG_EIP] = (greg_t)(uintptr_t)redirected;
#endif
    g[REG_EFL] = (g[REG_EFL] & ~0xcd5) | 0x841; /* OF, ZF, CF; IF and IOPL as they were */
}
static void redirection(void)
{
    ut_handle(SIGSEGV, set_all, 0);
    for (int n = 0; n < 200; n++) {
        memset(regs_after, 0, sizeof regs_after);
#ifdef __x86_64__
        /* No red zone below: the return address of nothing lies there. */
        __asm__ volatile("lea -128(%%rsp), %%rsp; push %%rbp; push %%rbx; movl $1, 0x10;"
                         "ud2; redirected: mov %%rax, regs_after(%%rip); mov %%rbx, regs_after+8(%%rip);"
                         "mov %%rcx, regs_after+16(%%rip); mov %%rdx, regs_after+24(%%rip);"
                         "mov %%rsi, regs_after+32(%%rip); mov %%rdi, regs_after+40(%%rip);"
                         "mov %%rbp, regs_after+48(%%rip); mov %%r8, regs_after+56(%%rip);"
                         "mov %%r9, regs_after+64(%%rip); mov %%r10, regs_after+72(%%rip);"
                         "mov %%r11, regs_after+80(%%rip); mov %%r12, regs_after+88(%%rip);"
                         "mov %%r13, regs_after+96(%%rip); mov %%r14, regs_after+104(%%rip);"
                         "mov %%r15, regs_after+112(%%rip); pushf; popq flags_after(%%rip);"
                         "pop %%rbx; pop %%rbp; lea 128(%%rsp), %%rsp" ::
                             : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
                               "memory", "cc");
        for (unsigned i = 0; i < 15; i++)
            REQUIRE_MSG(regs_after[i] == 0x1111111111111111 * (uintptr_t)i + 0x8000000000000000, "register %u", i);
#else
        __asm__ volatile("push %%ebp; push %%ebx; movl $1, 0x10; ud2;"
                         "redirected: mov %%eax, regs_after; mov %%ebx, regs_after+4; mov %%ecx, regs_after+8;"
                         "mov %%edx, regs_after+12; mov %%esi, regs_after+16; mov %%edi, regs_after+20;"
                         "mov %%ebp, regs_after+24; pushf; popl flags_after; pop %%ebx; pop %%ebp" ::
                             : "eax", "ecx", "edx", "esi", "edi", "memory", "cc");
        for (unsigned i = 0; i < 7; i++)
            REQUIRE_MSG(regs_after[i] == 0x11111111u * i + 0x80000000u, "register %u", i);
#endif
        REQUIRE_MSG((flags_after & 0xcd5) == 0x841, "flags 0x%lx", (long)flags_after);
    }
}

/* ---- what each trap reports ---- */
static struct trap {
    int sig, code;
    uintptr_t addr, ip;
    unsigned long trapno, err;
} trap;
static ucontext_t resume_at;
static volatile int trapped;
static void on_trap(int sig, siginfo_t *info, void *context)
{
    ut_clear_ac();
    ucontext_t *uc = context;
    trap = (struct trap){sig,
                         info->si_code,
                         (uintptr_t)info->si_addr,
                         (uintptr_t)uc->uc_mcontext.gregs[UT_IP],
                         (unsigned long)uc->uc_mcontext.gregs[REG_TRAPNO],
                         (unsigned long)uc->uc_mcontext.gregs[REG_ERR]};
    trapped = 1;
    __asm__ volatile("fninit");
    setcontext(&resume_at);
}
static uintptr_t insn_at __attribute__((used)); /* where the instruction under test lies */
#define AT_LABEL(insn) "lea 99f(%%rip), %%rax; mov %%rax, insn_at(%%rip); 99: " insn
#ifndef __x86_64__
#undef AT_LABEL
#define AT_LABEL(insn) "movl $99f, insn_at; 99: " insn
#endif
#ifdef __x86_64__
#define CLOBBERED "rax", "rcx", "rdx", "memory", "cc"
#else
#define CLOBBERED "eax", "ecx", "edx", "memory", "cc"
#endif
#define RAISES(name, insn)                                                                                             \
    static void name(void) { __asm__ volatile(AT_LABEL(insn)::: CLOBBERED); }
static uint8_t *hole, *read_only, *past_end;
RAISES(do_ud2, "ud2")
RAISES(do_div0, "xor %%ecx, %%ecx; div %%ecx")
RAISES(do_overflow, "mov $0x80000000, %%eax; cltd; mov $-1, %%ecx; idiv %%ecx")
RAISES(do_int3, "int3")
RAISES(do_int_3, ".byte 0xcd, 3")
RAISES(do_int1, ".byte 0xf1")
RAISES(do_hlt, "hlt")
RAISES(do_in, "inb $0x71, %%al")
RAISES(do_int_20, "int $0x20")
RAISES(do_lgdt, "lgdt insn_at")
RAISES(do_bad_selector, "mov $0x1234, %%ecx; mov %%ecx, %%es")
RAISES(do_null_ss, "xor %%ecx, %%ecx; mov %%ecx, %%ss")
RAISES(do_wrmsr, "wrmsr")
RAISES(do_long, ".byte 0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x90")
RAISES(do_lock, ".byte 0xf0, 0x89, 0xc0")
static uint32_t mxcsr_open = 0x1f80 & ~0x1e80u, zero_words[4] __attribute__((aligned(16))),
                big[4] = {0x7f7fffff, 0x7f7fffff, 0x7f7fffff, 0x7f7fffff};
static uint32_t one_words[4] = {0x3f800000, 0x3f800000, 0x3f800000, 0x3f800000}, tiny[4] = {0x00800000, 1, 1, 1};
static void do_sse_div(void)
{
    __asm__ volatile("movups %1, %%xmm0; ldmxcsr %2;" AT_LABEL("divps %0, %%xmm0")::"m"(zero_words), "m"(one_words),
                     "m"(mxcsr_open)
                     : CLOBBERED);
}
static void do_sse_invalid(void)
{
    __asm__ volatile("movups %1, %%xmm0; ldmxcsr %2;" AT_LABEL("divps %0, %%xmm0")::"m"(zero_words), "m"(zero_words),
                     "m"(mxcsr_open)
                     : CLOBBERED);
}
static void do_sse_overflow(void)
{
    __asm__ volatile("movups %0, %%xmm0; ldmxcsr %1;" AT_LABEL("mulps %%xmm0, %%xmm0")::"m"(big), "m"(mxcsr_open)
                     : CLOBBERED);
}
static void do_sse_denormal(void)
{
    __asm__ volatile("movups %0, %%xmm0; ldmxcsr %1;" AT_LABEL("addps %%xmm0, %%xmm0")::"m"(tiny),
                     "m"((uint32_t){0x1e80})
                     : CLOBBERED);
}
static uint16_t fcw_open = 0x340;
static void do_x87_div(void)
{
    __asm__ volatile("fninit; fldcw %0; fld1; fldz; fdivrp;" AT_LABEL("fwait")::"m"(fcw_open) : CLOBBERED);
}
static void do_x87_stack(void)
{
    __asm__ volatile("fninit; fldcw %0; fstp %%st(0);" AT_LABEL("fwait")::"m"(fcw_open) : CLOBBERED);
}
static void do_write_ro(void) { *(volatile uint8_t *)(read_only + 5) = 1; }
static void do_read_hole(void) { (void)*(volatile uint8_t *)(hole + 7); }
static void do_exec_nx(void) { ((void (*)(void))(read_only + 16))(); }
static void do_jump_hole(void) { ((void (*)(void))(hole + 32))(); }
static void do_bus(void) { (void)*(volatile uint8_t *)(past_end + UT_PAGE + 3); }
static void do_kernel_page(void)
{
#ifdef __x86_64__
    (void)*(volatile uint8_t *)0xffffffff81000000;
#else
    (void)*(volatile uint8_t *)0xfffff000;
#endif
}
#ifdef __x86_64__
RAISES(do_noncanonical, "mov $0x8000000000000000, %%rcx; mov (%%rcx), %%al")
static void do_noncanonical_stack(void)
{
    __asm__ volatile("mov %%rsp, %%rdx; mov $0x8000000000000000, %%rsp;" AT_LABEL("push %%rdx")::: CLOBBERED);
}
RAISES(do_noncanonical_jump, "mov $0x8000000000000000, %%rcx; jmp *%%rcx")
RAISES(do_old_opcode, ".byte 0x06")
#else
static uint32_t bounds[2] __attribute__((used)) = {3, 5};
RAISES(do_bound, "mov $9, %%ecx; bound %%ecx, bounds")
RAISES(do_into, "mov $0x7fffffff, %%eax; inc %%eax; into")
#endif
static void do_unaligned(void)
{
    static uint32_t words[4];
#ifdef __x86_64__
    __asm__ volatile("lea -128(%%rsp), %%rsp; pushf; orl $0x40000, (%%rsp); popf;" AT_LABEL("mov %0, %%ecx")::"m"(
                         *(uint32_t *)((char *)words + 1))
                     : CLOBBERED);
#else
    __asm__ volatile(
        "pushf; orl $0x40000, (%%esp); popf;" AT_LABEL("mov %0, %%ecx")::"m"(*(uint32_t *)((char *)words + 1))
        : CLOBBERED);
#endif
}
/* The step comes after the instruction that follows POPF. */
static void do_trap_flag(void)
{
#ifdef __x86_64__
    __asm__ volatile("lea 99f(%%rip), %%rax; mov %%rax, insn_at(%%rip); lea -128(%%rsp), %%rsp;"
                     "pushf; orl $0x100, (%%rsp); popf; nop; 99: nop" ::
                         : CLOBBERED);
#else
    __asm__ volatile("movl $99f, insn_at; pushf; orl $0x100, (%%esp); popf; nop; 99: nop" ::: CLOBBERED);
#endif
}

struct expect {
    const char *name;
    void (*f)(void);
    int sig, code;
    int trapno; /* -1: not compared */
    long err;   /* -1: not compared */
    int after;  /* -1: not compared; bytes behind the instruction */
    uintptr_t *addr, addr_offset;
};
#define PF_USER 4
static uintptr_t addr_ip = 1, addr_hole, addr_ro, addr_bus;
static void one_trap(const struct expect *e, int round)
{
    insn_at = 0;
    trapped = 0;
    getcontext(&resume_at);
    if (!trapped) {
        e->f();
        REQUIRE_MSG(false, "%s did not trap", e->name);
    }
    static const uint32_t usual = 0x1f80;
    __asm__ volatile("ldmxcsr %0" ::"m"(usual));
    REQUIRE_MSG(trap.sig == e->sig && trap.code == e->code, "%s: signal %d code %d, not %d code %d (round %d)", e->name,
                trap.sig, trap.code, e->sig, e->code, round);
    REQUIRE_MSG(e->trapno < 0 || trap.trapno == (unsigned long)e->trapno, "%s: trap number %lu, not %d", e->name,
                trap.trapno, e->trapno);
    REQUIRE_MSG(e->err < 0 || trap.err == (unsigned long)e->err, "%s: error code 0x%lx, not 0x%lx", e->name, trap.err,
                e->err);
    if (e->after >= 0)
        REQUIRE_MSG(trap.ip == insn_at + (unsigned)e->after, "%s: at %ld after the instruction, not %d", e->name,
                    (long)(trap.ip - insn_at), e->after);
    if (e->addr) {
        uintptr_t want = (*e->addr == 1 ? trap.ip : *e->addr) + e->addr_offset;
        REQUIRE_MSG(trap.addr == want, "%s: si_addr 0x%lx, not 0x%lx", e->name, (long)trap.addr, (long)want);
    }
}

static void run_traps(const struct expect *e, size_t n)
{
    static const int all[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
    char name[] = "/tmp/u-trap-XXXXXX";
    int fd = mkstemp(name);
    unlink(name);
    REQUIRE(fd >= 0 && ftruncate(fd, 100) == 0);
    past_end = mmap(NULL, 2 * UT_PAGE, PROT_READ, MAP_SHARED, fd, 0);
    REQUIRE(past_end != MAP_FAILED);
    hole = ut_anon(3 * UT_PAGE, PROT_READ | PROT_WRITE);
    munmap(hole, UT_PAGE);
    munmap(hole + 2 * UT_PAGE, UT_PAGE);
    read_only = hole + UT_PAGE;
    *read_only = 0xc3;
    mprotect(read_only, UT_PAGE, PROT_READ);
    addr_hole = (uintptr_t)hole;
    addr_ro = (uintptr_t)read_only;
    addr_bus = (uintptr_t)past_end + UT_PAGE;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        ut_handle(all[i], on_trap, SA_NODEFER | SA_ONSTACK);
    static uint8_t stack[16 * UT_PAGE]; /* not mapped now: it could land in the hole */
    stack_t ss = {.ss_sp = stack, .ss_size = sizeof stack};
    REQUIRE(sigaltstack(&ss, NULL) == 0);
    for (int round = 0; round < 20; round++)
        for (size_t i = 0; i < n; i++)
            one_trap(&e[i], round);
}

static void trap_reports(void)
{
    static const struct expect e[] = {
        {"ud2", do_ud2, SIGILL, ILL_ILLOPN, 6, 0, 0, &addr_ip, 0},
        {"divide by zero", do_div0, SIGFPE, FPE_INTDIV, 0, 0, 2, &addr_ip, 0},
        {"quotient overflow", do_overflow, SIGFPE, FPE_INTDIV, 0, 0, 11, &addr_ip, 0},
        {"int3", do_int3, SIGTRAP, SI_KERNEL, 3, 0, 1, NULL, 0},
        {"int 3", do_int_3, SIGTRAP, SI_KERNEL, 3, 0, 2, NULL, 0},
        {"int1", do_int1, SIGTRAP, TRAP_BRKPT, 1, 0, 1, NULL, 0},
        {"hlt", do_hlt, SIGSEGV, SI_KERNEL, 13, 0, 0, NULL, 0},
        {"in", do_in, SIGSEGV, SI_KERNEL, 13, 0, 0, NULL, 0},
        {"int 20h", do_int_20, SIGSEGV, SI_KERNEL, 13, 0x20 * 8 + 2, 0, NULL, 0},
        {"lgdt", do_lgdt, SIGSEGV, SI_KERNEL, 13, 0, 0, NULL, 0},
        {"wrmsr", do_wrmsr, SIGSEGV, SI_KERNEL, 13, 0, 0, NULL, 0},
        {"selector", do_bad_selector, SIGSEGV, SI_KERNEL, 13, 0x1234, 5, NULL, 0},
        {"null ss", do_null_ss, SIGSEGV, SI_KERNEL, 13, 0, 2, NULL, 0},
        {"16 bytes", do_long, SIGSEGV, SI_KERNEL, 13, 0, 0, NULL, 0},
        {"lock mov", do_lock, SIGILL, ILL_ILLOPN, 6, 0, 0, NULL, 0},
        {"write to read-only", do_write_ro, SIGSEGV, SEGV_ACCERR, 14, PF_USER | 3, -1, &addr_ro, 5},
        {"read of a hole", do_read_hole, SIGSEGV, SEGV_MAPERR, 14, PF_USER, -1, &addr_hole, 7},
        {"jump to a hole", do_jump_hole, SIGSEGV, SEGV_MAPERR, 14, -1, -1, &addr_hole, 32},
        {"beyond the file", do_bus, SIGBUS, BUS_ADRERR, 14, PF_USER, -1, &addr_bus, 3},
        {"kernel page", do_kernel_page, SIGSEGV, SEGV_MAPERR, 14, sizeof(long) == 8 ? PF_USER | 1 : -1, -1, NULL, 0},
        {"unaligned", do_unaligned, SIGBUS, BUS_ADRALN, 17, 0, 0, NULL, 0},
        {"trap flag", do_trap_flag, SIGTRAP, TRAP_TRACE, 1, 0, 0, &addr_ip, 0},
#ifdef __x86_64__
        {"noncanonical", do_noncanonical, SIGSEGV, SI_KERNEL, 13, 0, 10, NULL, 0},
        {"noncanonical stack", do_noncanonical_stack, SIGBUS, SI_KERNEL, 12, 0, 0, NULL, 0},
        {"opcode 6", do_old_opcode, SIGILL, ILL_ILLOPN, 6, 0, 0, NULL, 0},
#else
        {"bound", do_bound, SIGSEGV, SI_KERNEL, 5, 0, 5, NULL, 0},
        {"into", do_into, SIGSEGV, SI_KERNEL, 4, 0, 7, NULL, 0},
#endif
    };
    run_traps(e, sizeof e / sizeof e[0]);
}
#ifdef __x86_64__
static void trap_wild_jump(void)
{
    static const struct expect e[] = {
        {"noncanonical jump", do_noncanonical_jump, SIGSEGV, SI_KERNEL, 13, 0, -1, NULL, 0},
    };
    run_traps(e, 1);
}
#endif
static void trap_no_execute(void)
{
    /* A 32-bit kernel without PAE has no NX. */
    if (!bt_cpu_has("nx") || !bt_cpu_has("pae"))
        bt_skip("no NX");
    static const struct expect e[] = {
        {"execute data", do_exec_nx, SIGSEGV, SEGV_ACCERR, 14, PF_USER | 0x11, -1, &addr_ro, 16},
    };
    if (sizeof(long) == 4) {
        FILE *f = popen("uname -m", "r");
        char m[32] = "";
        REQUIRE(f && fgets(m, sizeof m, f));
        pclose(f);
        if (strncmp(m, "x86_64", 6))
            bt_skip("Linux 6.1 gives 32-bit processes no NX");
    }
    run_traps(e, 1);
}
static void fp_traps(void)
{
    static const struct expect e[] = {
        {"SSE divide", do_sse_div, SIGFPE, FPE_FLTDIV, 19, 0, 0, &addr_ip, 0},
        {"SSE invalid", do_sse_invalid, SIGFPE, FPE_FLTINV, 19, 0, 0, &addr_ip, 0},
        {"SSE overflow", do_sse_overflow, SIGFPE, FPE_FLTOVF, 19, 0, 0, &addr_ip, 0},
        {"SSE denormal", do_sse_denormal, SIGFPE, FPE_FLTUND, 19, 0, 0, &addr_ip, 0},
        {"x87 divide", do_x87_div, SIGFPE, FPE_FLTDIV, 16, 0, -1, NULL, 0},
        {"x87 stack", do_x87_stack, SIGFPE, FPE_FLTINV, 16, 0, -1, NULL, 0},
    };
    run_traps(e, sizeof e / sizeof e[0]);
}

/* A signal frame with selectors that do not exist: the kernel cannot return there. It kills, 64-bit kernels by
 * SIGSEGV, 32-bit ones (whose IRET faults) by SIGILL. */
static void bad_return(int sig, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
#ifdef __x86_64__
    uc->uc_mcontext.gregs[REG_CSGSFS] = (uc->uc_mcontext.gregs[REG_CSGSFS] & ~0xffffll) | 0x10;
#else
    uc->uc_mcontext.gregs[REG_CS] = 0x1234;
#endif
}
static void forged_frames(void)
{
    for (int i = 0; i < 20; i++) {
        pid_t child = fork();
        if (child == 0) {
            ut_handle(SIGUSR1, bad_return, 0);
            raise(SIGUSR1);
            _exit(0);
        }
        int status;
        REQUIRE(waitpid(child, &status, 0) == child);
        REQUIRE_MSG(WIFSIGNALED(status) && (WTERMSIG(status) == SIGSEGV || WTERMSIG(status) == SIGILL), "status 0x%x",
                    status);
    }
}

static volatile uintptr_t on_stack_at;
static volatile int on_stack_flags;
static void note_stack(int sig, siginfo_t *info, void *context)
{
    char here;
    stack_t now;
    on_stack_at = (uintptr_t)&here;
    sigaltstack(NULL, &now);
    on_stack_flags = now.ss_flags;
    hits++;
}
static void alternate_stacks(void)
{
    size_t bytes = 65536;
    uint8_t *stack = ut_anon(bytes, PROT_READ | PROT_WRITE);
    stack_t ss = {.ss_sp = stack, .ss_size = bytes}, now;
    REQUIRE(sigaltstack(&ss, NULL) == 0);
    ut_handle(SIGUSR1, note_stack, SA_ONSTACK);
    ut_handle(SIGUSR2, note_stack, 0);
    for (int i = 0; i < 200; i++) {
        raise(SIGUSR1);
        REQUIRE(on_stack_at >= (uintptr_t)stack && on_stack_at < (uintptr_t)stack + bytes);
        REQUIRE(on_stack_flags == SS_ONSTACK);
        raise(SIGUSR2);
        REQUIRE(on_stack_at < (uintptr_t)stack || on_stack_at >= (uintptr_t)stack + bytes);
        REQUIRE(sigaltstack(NULL, &now) == 0 && now.ss_flags == 0);
        if (i % 10 == 0)
            madvise(stack, bytes, MADV_DONTNEED); /* the next frame meets missing pages */
    }
    REQUIRE(hits == 400);
}

/* Real-time signals are queued, in order, with their values. */
static volatile int next_value;
static volatile bool in_order = true;
static void on_queued(int sig, siginfo_t *info, void *context)
{
    in_order = in_order && info->si_code == SI_QUEUE && info->si_value.sival_int == next_value;
    next_value++;
}
static void queued_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN);
    ut_handle(SIGRTMIN, on_queued, 0);
    sigprocmask(SIG_BLOCK, &set, NULL);
    for (int i = 0; i < 100; i++)
        REQUIRE(sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = i}) == 0);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    REQUIRE_MSG(next_value == 100 && in_order, "%d", next_value);
}

const struct bt_test u_signal[] = {
    {"u-signal-fpu-kept", fpu_across_handler}, {"u-signal-fpu-timers", fpu_across_timers},
    {"u-signal-fpu-frame", fpu_in_frame},      {"u-signal-nodefer", nodefer_nesting},
    {"u-signal-redirect", redirection},        {"u-signal-traps", trap_reports},
#ifdef __x86_64__
    {"u-signal-wild-jump", trap_wild_jump},
#endif
    {"u-signal-no-execute", trap_no_execute},  {"u-signal-fp-traps", fp_traps},
    {"u-signal-forged-frame", forged_frames},  {"u-signal-alt-stack", alternate_stacks},
    {"u-signal-queued", queued_signals},       {NULL, NULL},
};
