/* tests/user/guest/hostile.c - programs that try to get out of their process, or to bring the machine down with them.
 *
 * Each attack runs in child processes. Where hardware has one answer (a fault), that is required; where direct execution may show
 * itself (its stub can be read), the attacker may die or go on. Afterwards the guest must work as before; what happened on
 * the host is for watch.py to see. Prints "ok NAME" or "FAIL NAME why".
 */
#include "hostile.h"
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>

/* Every register is the attacker's choice. */
struct regs {
    uint64_t rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15, rsp;
};
static struct regs *volatile jump_regs;
static volatile uint64_t jump_to;
_Noreturn static void jump(uint64_t where, struct regs *r)
{
    jump_regs = r;
    jump_to = where;
    __asm__ volatile(
        "mov %0, %%rax; mov 8(%%rax), %%rbx; mov 16(%%rax), %%rcx; mov 24(%%rax), %%rdx; mov 32(%%rax), %%rsi;"
        "mov 40(%%rax), %%rdi; mov 48(%%rax), %%rbp; mov 56(%%rax), %%r8; mov 64(%%rax), %%r9;"
        "mov 72(%%rax), %%r10; mov 80(%%rax), %%r11; mov 88(%%rax), %%r12; mov 96(%%rax), %%r13;"
        "mov 104(%%rax), %%r14; mov 112(%%rax), %%r15; mov 120(%%rax), %%rsp; mov (%%rax), %%rax;"
        "jmp *%1" ::"m"(jump_regs),
        "m"(jump_to));
    __builtin_unreachable();
}

/* ---- the stub ---- */

static uint8_t *scratch;
static void hostile_regs(struct regs *r, uint32_t seed)
{
    static const uint64_t addresses[] = {
        0, STUB, STUB + STUB_RO, STUB + STUB_RW, STUB + STUB_ALT, 0x2aaaaaaab000, ~0ull, 0x10000000000};
    uint64_t *word = (uint64_t *)r;
    for (unsigned i = 0; i < sizeof *r / 8; i++) {
        uint32_t v = bt_random(&seed);
        word[i] = v % 3 == 0 ? (uint64_t)(uintptr_t)scratch + v % 4096 : v % 3 == 1 ? addresses[v / 3 % 8] : v;
    }
    r->rsp = seed % 4 ? (uint64_t)(uintptr_t)scratch + 4096 : r->rsp;
}
static void enter_stub(uint64_t offset)
{
    static struct regs r;
    hostile_regs(&r, (uint32_t)offset * 2654435761u + 1);
    jump(STUB + (offset & 0xffff), &r);
}
static void stub_every_offset(void)
{
    scratch = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (uint64_t i = 0; i < 0x400; i++)
        attempt_ms(enter_stub, i, 100);
    for (uint64_t i = 0x1000; i < STUB_END; i += 0x177)
        attempt_ms(enter_stub, i, 100);
    sane();
}

/* System calls that would be seen on the host, made by the stub's own instructions. */
static const struct {
    uint32_t nr;
    uint64_t a, b, c;
} calls[] = {
    {2, (uint64_t)(uintptr_t)CANARY, O_CREAT | O_RDWR, 0600}, /* open */
    {257, (uint64_t)-100, (uint64_t)(uintptr_t)CANARY, O_CREAT | O_RDWR},
    {85, (uint64_t)(uintptr_t)CANARY, 0600, 0}, /* creat */
    {83, (uint64_t)(uintptr_t)CANARY, 0700, 0}, /* mkdir */
    {57, 0, 0, 0},                              /* fork */
    {58, 0, 0, 0},
    {56, 0x11, 0, 0}, /* clone */
    {41, 1, 1, 0},    /* socket */
    {32, 0, 0, 0},    /* dup */
    {33, 0, 77, 0},   /* dup2 */
    {9, 0, 0x100000, 7},
    {11, STUB, 0x1000, 0}, /* munmap */
    {10, STUB + STUB_RO, 0x1000, 3},
    {10, STUB, 0x1000, 7},
    {3, 0, 0, 0}, /* close */
    {3, 1, 0, 0},
    {1, 0, STUB, 100}, /* write */
    {18, 1, STUB, 100},
    {157, 38, 0, 0}, /* prctl */
    {157, 59, 0, 0}, /* ... Syscall User Dispatch off */
    {317, 0, 0, 0},
    {319, (uint64_t)(uintptr_t) "x", 0, 0}, /* memfd_create */
    {101, 0, 1, 0},                         /* ptrace */
    {59, (uint64_t)(uintptr_t) "/no/such", 0, 0},
    {335, 0, 0, 0}, /* uretprobe */
    {336, 0, 0, 0},
    {425, 8, 0, 0}, /* io_uring_setup */
    {202, STUB + STUB_RW, 129, 1},
    {15, 0, 0, 0},  /* rt_sigreturn */
    {60, 99, 0, 0}, /* exit */
    {231, 99, 0, 0},
    {0x40000000 | 39, 0, 0, 0},
};
enum { CALLS = sizeof calls / sizeof calls[0] };
static uint64_t call_at;
static void call_from_stub(uint64_t n)
{
    static struct regs r;
    hostile_regs(&r, (uint32_t)n + 7);
    r.rax = calls[n].nr;
    r.rdi = calls[n].a;
    r.rsi = calls[n].b;
    r.rdx = calls[n].c;
    r.r10 = 0x22;
    r.r8 = ~0ull;
    r.r9 = 0;
    jump(call_at, &r);
}
static sigjmp_buf probe_env;
static void probe_failed(int sig) { siglongjmp(probe_env, sig); }
static void probe_signals(void (*f)(int))
{
    struct sigaction sa = {.sa_handler = f, .sa_flags = SA_NODEFER};
    sigaction(SIGSEGV, &sa, NULL);
    sigaction(SIGBUS, &sa, NULL);
}
static int probe(uint64_t at, uint8_t *value)
{
    int sig = sigsetjmp(probe_env, 0);
    if (!sig)
        *value = *(volatile uint8_t *)at;
    return sig;
}
static void stub_system_calls(void)
{
    /* Wherever 0F 05 stands in the stub; on hardware nowhere. */
    uint64_t found[32];
    unsigned n = 0;
    uint8_t last = 0, now;
    scratch = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    probe_signals(probe_failed);
    for (uint64_t i = 0; i < 0x1000 && n < 32; i++) {
        if (probe(STUB + i, &now))
            break;
        if (last == 0x0f && now == 0x05)
            found[n++] = STUB + i - 1;
        last = now;
    }
    probe_signals(SIG_DFL);
    for (unsigned i = 0; i < n; i++)
        for (unsigned k = 0; k < CALLS; k++) {
            if ((i + k) % 4)
                continue; /* each call from some of them */
            call_at = found[i];
            attempt_ms(call_from_stub, k, 100);
        }
    sane();
}

/* Pages of the stub that the world may write: everything in them is hearsay. */
static void scribble(uint64_t seed)
{
    uint32_t s = (uint32_t)seed * 2654435761u + 1;
    volatile uint32_t *rw = (volatile uint32_t *)(STUB + STUB_RW);
    for (int i = 0; i < 40; i++) {
        uint32_t at = seed % 2 ? bt_random(&s) % 20 : bt_random(&s) % (0x5000 / 4), v = bt_random(&s);
        rw[at] = v % 4 ? v % 3 : v;
    }
    for (int i = 0; i < 20; i++)
        getppid();
    if (seed % 4 == 0) { /* the frames that the host's kernel left there */
        volatile uint64_t *frame = (volatile uint64_t *)(STUB + STUB_ALT);
        for (int i = 0; i < 0x4000 / 8; i++)
            frame[i] = seed % 8 ? ~0ull : 0;
        getppid();
    }
}
static void stub_mailbox(void)
{
    for (uint64_t i = 0; i < 120; i++)
        attempt_ms(scribble, i, 300);
    sane();
}
static void write_at(uint64_t at) { *(volatile uint32_t *)at = 1; }
static void stub_read_only(void)
{
    must_die("write to", write_at, STUB + STUB_RO, SIGSEGV);
    must_die("write to", write_at, STUB + STUB_RO + 64, SIGSEGV);
    must_die("write to", write_at, STUB, SIGSEGV);
    must_die("write to", write_at, STUB + STUB_CONST, SIGSEGV);
    sane();
}
/* A stack in the stub's own pages, then everything that makes the host's kernel write a frame. */
static void stack_in_stub(uint64_t n)
{
    uint64_t sp = STUB + (n % 2 ? STUB_ALT : STUB_RW) + 0x100 * (n / 2 % 64) + 0x800;
    switch (n % 5) {
    case 0: __asm__ volatile("mov %0, %%rsp; mov $39, %%eax; syscall; ud2" ::"r"(sp)); break;
    case 1: __asm__ volatile("mov %0, %%rsp; push %%rax; push %%rax; call *%%rax" ::"r"(sp)); break;
    case 2: __asm__ volatile("mov %0, %%rsp; ud2" ::"r"(sp)); break;
    case 3: __asm__ volatile("mov %0, %%rsp; mov $20, %%eax; int $0x80; int3" ::"r"(sp)); break;
    default: __asm__ volatile("mov %0, %%rsp; mov $100000000, %%ecx; 1: dec %%ecx; jnz 1b; hlt" ::"r"(sp)); break;
    }
}
static void stub_stack(void)
{
    for (uint64_t i = 0; i < 40; i++)
        attempt_ms(stack_in_stub, i, 300);
    sane();
}
/* A signal frame of the attacker's own, returned from by the stub's instruction: all signals blocked, and an endless loop. */
static void forge_frame(uint64_t n)
{
    uint64_t *f = (uint64_t *)scratch;
    memset(f, 0, 4096);
    /* struct ucontext: flags, link, stack; registers r8..r15, rdi rsi rbp rbx rdx rax rcx rsp rip eflags, selectors; mask */
    f[4] = n & 1 ? 4096 : 0;
    f[5 + 15] = (uint64_t)(uintptr_t)scratch + 4096;
    static const uint8_t loop[] = {0xeb, 0xfe};
    uint8_t *code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(code, loop, 2);
    f[5 + 16] = (uint64_t)(uintptr_t)code;
    f[5 + 17] = n & 2 ? 0x202 : 0x40302;
    f[5 + 18] = 0x002b000000000033ull;
    f[5 + 23] = 0;
    for (int i = 29; i < 40; i++)
        f[i] = ~0ull; /* the mask */
    static struct regs r;
    r.rsp = (uint64_t)(uintptr_t)scratch;
    r.rax = 15;
    jump(call_at, &r);
}
static void stub_forged_frame(void)
{
    uint8_t last = 0, now;
    scratch = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    probe_signals(probe_failed);
    call_at = STUB;
    /* mov $15, %eax; syscall */
    for (uint64_t i = 0; i < 0x1000; i++) {
        if (probe(STUB + i, &now))
            break;
        if (last == 0xb8 && now == 15)
            call_at = STUB + i - 1;
        last = now;
    }
    probe_signals(SIG_DFL);
    for (uint64_t i = 0; i < 4; i++)
        attempt_ms(forge_frame, i, 300);
    sane();
}

/* ---- what is mapped ---- */

static uint64_t ranges[512][2];
static unsigned n_ranges;
static void read_maps(void)
{
    char line[512];
    unsigned long a, b;
    FILE *f = fopen("/proc/self/maps", "r");
    REQUIRE(f);
    n_ranges = 0;
    while (fgets(line, sizeof line, f) && n_ranges < 512)
        if (sscanf(line, "%lx-%lx", &a, &b) == 2) {
            ranges[n_ranges][0] = a;
            ranges[n_ranges++][1] = b;
        }
    fclose(f);
}
static bool mine(uint64_t at)
{
    for (unsigned i = 0; i < n_ranges; i++)
        if (at >= ranges[i][0] && at < ranges[i][1])
            return true;
    return at >= STUB && at < STUB + STUB_END; /* known: docs/USERWORLDS.md */
}
static void probe_one(uint64_t at)
{
    uint8_t v;
    if (!mine(at) && !probe(at, &v))
        bt_fail(__FILE__, __LINE__, "0x%llx can be read and is none of ours", (unsigned long long)at);
}
static void nothing_else_mapped(void)
{
    static const uint64_t around[] = {0,
                                      0x400000,
                                      0x10000000,
                                      0x80000000,
                                      0x100000000,
                                      0x10000000000,
                                      0x20000000000,
                                      0x80000000000,
                                      0x2aaaaaaaa000,
                                      0x555555554000,
                                      STUB - 0x100000,
                                      STUB + STUB_END,
                                      0x7e2900000000,
                                      0x7ffff7000000,
                                      0x7fffffe00000};
    probe_signals(probe_failed);
    uint32_t s = 1;
    read_maps();
    for (unsigned i = 0; i < sizeof around / sizeof around[0]; i++)
        for (uint64_t k = 0; k < 256; k++)
            probe_one(around[i] + k * 4096);
    for (unsigned bit = 12; bit < 47; bit++)
        for (unsigned k = 0; k < 8; k++)
            probe_one(((1ull << bit) + (uint64_t)k * 0x200000 - 4096) & 0x7fffffffffff);
    for (int i = 0; i < 4000; i++)
        probe_one((((uint64_t)bt_random(&s) << 32 | bt_random(&s)) & 0x7ffffffff000));
    probe_signals(SIG_DFL);
}
static void read_at(uint64_t at) { (void)*(volatile uint8_t *)at; }
static void call(uint64_t at) { ((void (*)(void))at)(); }
static void kernel_memory(void)
{
    static const uint64_t at[] = {0xffff888000000000, 0xffff888000100000, 0xffffffff81000000, 0xffffffff82000000,
                                  0xffffc90000000000, 0xffffea0000000000, 0xfffffe0000000000, 0xffff800000000000,
                                  0xffffffffffffffff, 0x8000000000000000, 0x0000800000000000, 0x00007ffffffff000};
    for (unsigned i = 0; i < sizeof at / sizeof at[0]; i++) {
        must_die("read of", read_at, at[i], SIGSEGV);
        must_die("write to", write_at, at[i] & ~7ull, SIGSEGV);
        must_die("call of", call, at[i], SIGSEGV);
    }
    sane();
}

/* Frames that this process has given back belong to others: it must not see what they write there. */
static void given_back(void)
{
    enum { PAGES = 2000 };
    volatile uint32_t *turn = bt_shared(4096);
    uint8_t *p = mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int round = 0; round < 4; round++) {
        for (size_t i = 0; i < PAGES; i++)
            *(uint32_t *)(p + i * 4096) = 0x1111;
        turn[0] = 0;
        pid_t child = fork();
        if (child == 0) {
            uint8_t *q = NULL;
            while (turn[0] != 1)
                usleep(100);
            for (int k = 0; k < 3; k++) {
                q = mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
                for (size_t i = 0; i < PAGES; i++)
                    *(uint32_t *)(q + i * 4096 + 8) = 0x5ec7e7;
            }
            turn[0] = 2;
            while (turn[0] != 3)
                usleep(100);
            for (size_t i = 0; i < PAGES; i++)
                REQUIRE(*(uint32_t *)(q + i * 4096 + 8) == 0x5ec7e7 && *(uint32_t *)(q + i * 4096) == 0);
            _exit(0);
        }
        REQUIRE((round & 1 ? munmap(p, PAGES * 4096) : madvise(p, PAGES * 4096, MADV_DONTNEED)) == 0);
        turn[0] = 1;
        while (turn[0] != 2)
            usleep(100);
        if (round & 1) {
            uint8_t v;
            probe_signals(probe_failed);
            for (size_t i = 0; i < PAGES; i += 7)
                REQUIRE_MSG(probe((uint64_t)(uintptr_t)p + i * 4096, &v) == SIGSEGV, "page %zu is still there", i);
            probe_signals(SIG_DFL);
            REQUIRE(mmap(p, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == p);
        }
        for (size_t i = 0; i < PAGES; i++)
            for (size_t k = 0; k < 4096; k += 8)
                REQUIRE_MSG(*(uint64_t *)(p + i * 4096 + k) == 0, "page %zu shows what others wrote", i);
        turn[0] = 3;
        bt_wait(child);
    }
}

/* Tells the monitor that it has made a system call (exit), with a frame that looks like it, and runs on: what its pages' frames
 * are used for after its kernel has freed them it must not see. */
#define STUB_FRAME_SP (STUB + STUB_RO + 40) /* UW_H_FRAME; the handler has the stack pointer 8 lower */
#define STUB_FRAME (STUB + STUB_RW + 16)    /* UW_M_FRAME */
enum { RUN_ON_PAGES = 3000 };
static volatile uint32_t *run_on_seen;
static void run_on(uint64_t unused)
{
    uint8_t *p = mmap(NULL, RUN_ON_PAGES * 4096ul, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    madvise(p, RUN_ON_PAGES * 4096ul, MADV_NOHUGEPAGE);
    for (size_t i = 0; i < RUN_ON_PAGES; i++)
        *(volatile uint32_t *)(p + i * 4096) = 0x1111;
    volatile uint32_t *seen = run_on_seen;
    for (int i = 0; i < 300; i++) { /* until such turns are spun for */
        syscall(SYS_getppid);
        seen[1] = 1;
    }
    uint64_t frame = *(volatile uint64_t *)STUB_FRAME_SP - 8;
    volatile uint64_t *reg = (volatile uint64_t *)(frame + 8 + 40); /* r8 ... r15 rdi rsi rbp rbx rdx rax */
    reg[8] = 0;
    reg[13] = SYS_exit_group;
    *(volatile uint64_t *)STUB_FRAME = frame;
    __atomic_store_n((uint32_t *)(STUB + STUB_RW), 0, __ATOMIC_SEQ_CST); /* the monitor's turn */
    for (;;)
        for (size_t i = 0; i < RUN_ON_PAGES; i++)
            if (*(volatile uint32_t *)(p + i * 4096) != 0x1111)
                seen[0] = *(volatile uint32_t *)(p + i * 4096 + 8) == 0x5ec7e7 ? 2 : 1;
}
static void stub_run_on(void)
{
    run_on_seen = bt_shared(4096);
    for (int round = 0; round < 3; round++) {
        attempt_ms(run_on, 0, 1500);
        uint8_t *q = mmap(NULL, 2ul * RUN_ON_PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        madvise(q, 2ul * RUN_ON_PAGES * 4096, MADV_NOHUGEPAGE);
        for (size_t i = 0; i < 2 * RUN_ON_PAGES; i++)
            *(uint32_t *)(q + i * 4096 + 8) = 0x5ec7e7;
        usleep(300000);
        munmap(q, 2ul * RUN_ON_PAGES * 4096);
        REQUIRE_MSG(run_on_seen[1], "the attacker did not even begin");
        REQUIRE_MSG(run_on_seen[0] == 0, "a program that had ended saw %s",
                    run_on_seen[0] == 2 ? "what another one wrote" : "what the kernel did with its pages");
    }
    sane();
}

/* ---- system calls from every place ---- */

static void odd_system_calls(void)
{
    /* The last two bytes before a hole; INT 80h and SYSENTER there too; numbers that the host's kernel knows and others. */
    uint8_t *p = mmap(NULL, 2 * 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(munmap(p + 4096, 4096) == 0);
    static const uint8_t insn[2] = {0x0f, 0x05};
    memcpy(p + 4094, insn, 2);
    call_at = (uint64_t)(uintptr_t)p + 4094;
    scratch = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (uint64_t k = 0; k < CALLS; k++) {
        int status = attempt_ms(call_from_stub, k, 300);
        if (calls[k].nr == 231 || calls[k].nr == 60)
            REQUIRE_MSG(WIFEXITED(status) && WEXITSTATUS(status) == 99, "exit: status 0x%x", status);
        else if (calls[k].nr == 335)
            REQUIRE(died_of(status, SIGSEGV) || died_of(status, SIGILL)); /* uretprobe, if the kernel has it */
        else if (calls[k].nr != 57 && calls[k].nr != 58 && calls[k].nr != 56 && calls[k].nr != 59 && calls[k].nr != 101)
            REQUIRE_MSG(died_of(status, SIGSEGV), "call %u: status 0x%x", calls[k].nr, status);
    }
    unlink(CANARY);
    rmdir(CANARY);
    for (long nr = 330; nr < 345; nr++) {
        long got = syscall(nr, 0, 0, 0, 0, 0, 0);
        REQUIRE_MSG(nr == 332 || nr == 333 || nr == 334 || nr < 335 || (got == -1 && errno == ENOSYS), "call %ld: %ld",
                    nr, got);
    }
    sane();
}
static void do_sysenter(uint64_t n)
{
    __asm__ volatile("mov %0, %%rax; mov %%rsp, %%rbp; sysenter" ::"r"(n) : "rcx", "rdx", "memory");
}
static void sysenters(void)
{
    for (uint64_t n = 0; n < 40; n++)
        attempt_ms(do_sysenter, n * 11, 300);
    unlink(CANARY);
    sane();
}

/* ---- instructions ---- */

static uint8_t xsave_area[8192] __attribute__((aligned(64)));
static void odd_instruction(uint64_t n)
{
    uint32_t lo, hi;
    static const struct {
        uint32_t offset;
        uint16_t sel;
    } __attribute__((packed)) far[] = {{0x1000, 0x23}, {0, 0x33}, {0x1000, 0x10}, {0x1000, 0x2b}, {0, 0}, {4, 0xfff7}};
    switch (n) {
    case 0: __asm__ volatile("wrfsbase %0" ::"r"(0x8000000000000000)); break;
    case 1: __asm__ volatile("wrgsbase %0" ::"r"(0x0000800000000000)); break;
    case 2: /* reserved bit of the header */
        *(uint64_t *)(xsave_area + 520) = ~0ull;
        __asm__ volatile("xrstor %0" ::"m"(xsave_area), "a"(-1), "d"(-1));
        break;
    case 3: /* components that nobody has */
        *(uint64_t *)(xsave_area + 512) = 1ull << 62;
        __asm__ volatile("xrstor %0" ::"m"(xsave_area), "a"(-1), "d"(-1));
        break;
    case 4: /* reserved MXCSR */
        *(uint64_t *)(xsave_area + 512) = 3;
        *(uint32_t *)(xsave_area + 24) = 0xffff0000;
        __asm__ volatile("xrstor %0" ::"m"(xsave_area), "a"(-1), "d"(-1));
        break;
    case 5: __asm__ volatile("xrstor 8(%0)" ::"r"(xsave_area), "a"(-1), "d"(-1)); break;
    case 6: __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(77)); break;
    case 7: __asm__ volatile("xsetbv" ::"a"(7), "d"(0), "c"(0)); break;
    case 8: __asm__ volatile("rdpmc" : "=a"(lo), "=d"(hi) : "c"(0)); break;
    case 9: __asm__ volatile("ljmpl *%0" ::"m"(far[0])); break; /* 32-bit code at an unmapped page */
    case 10: __asm__ volatile("ljmpl *%0" ::"m"(far[2])); break;
    case 11: __asm__ volatile("ljmpl *%0" ::"m"(far[3])); break;
    case 12: __asm__ volatile("ljmpl *%0" ::"m"(far[4])); break;
    case 13: __asm__ volatile("ljmpl *%0" ::"m"(far[5])); break;
    case 14: __asm__ volatile("sysretq" ::"c"(0), "r"(0) : "r11"); break;
    case 15: __asm__ volatile("mov %0, %%ss" ::"r"(0x10)); break;
    case 16: __asm__ volatile("mov %0, %%ds" ::"r"(0x18)); break;
    case 17: __asm__ volatile("push $0x10; push %%rsp; push $0x202; push $0x10; push $0; iretq" ::: "memory"); break;
    case 18: __asm__ volatile("pushf; orl $0x4000, (%%rsp); popf; iretq" ::: "memory"); break; /* NT */
    case 19: __asm__ volatile("clts"); break;
    case 20: __asm__ volatile("mov %0, %%dr7" ::"r"(0x400ull)); break;
    case 21: __asm__ volatile("invlpg %0" ::"m"(xsave_area)); break;
    case 22: __asm__ volatile("swapgs"); break;
    case 23: __asm__ volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(0xc0000080)); break;
    case 24: __asm__ volatile("lldt %w0" ::"r"(0)); break;
    case 25: __asm__ volatile("wbinvd"); break;
    case 26: __asm__ volatile("monitor" ::"a"(xsave_area), "c"(0), "d"(0)); break;
    case 27: __asm__ volatile("sti"); break;
    case 28: __asm__ volatile("outb %%al, $0x64" ::"a"(0xfe)); break; /* reset the machine */
    case 29: __asm__ volatile("insb" ::"d"(0x60), "D"(xsave_area) : "memory"); break;
    default: break;
    }
}
enum { ODD = 30 };
static void instructions(void)
{
    for (uint64_t n = 0; n < ODD; n++) {
        int status = attempt(odd_instruction, n), want = n == 26 ? SIGILL : SIGSEGV;
        REQUIRE_MSG(died_of(status, want), "instruction %llu: status 0x%x, not signal %d", (unsigned long long)n,
                    status, want);
    }
    sane();
}
/* What may work or be undefined, but must hurt nobody. */
static void may_work(uint64_t n)
{
    uint32_t lo, hi, c;
    switch (n) {
    case 0: __asm__ volatile("rdtscp" : "=a"(lo), "=d"(hi), "=c"(c)); break;
    case 1: __asm__ volatile("rdpid %0" : "=r"(n)); break;
    case 2: /* WRPKRU: no access to anything */
        __asm__ volatile(".byte 0x0f, 0x01, 0xef" ::"a"(~0u), "c"(0), "d"(0));
        getppid();
        scratch[0] = 1;
        break;
    case 3: __asm__ volatile(".byte 0x0f, 0x01, 0xee" : "=a"(lo), "=d"(hi) : "c"(0)); break;
    case 4: /* the same by XRSTOR */
        memset(xsave_area, 0, sizeof xsave_area);
        *(uint32_t *)(xsave_area + 24) = 0x1f80;
        *(uint64_t *)(xsave_area + 512) = 0x200;
        memset(xsave_area + 576, 0xff, 4096);
        __asm__ volatile("xrstor %0" ::"m"(xsave_area), "a"(0x200), "d"(0));
        getppid();
        break;
    case 5: __asm__ volatile("pushf; orl $0x100, (%%rsp); popf; nop; nop" ::: "memory", "cc"); break;
    case 6:
        __asm__ volatile("pushf; orl $0x40000, (%%rsp); popf; mov $39, %%eax; syscall; movl $1, 1(%%rsp)" ::: "memory");
        break;
    case 7:
        __asm__ volatile("pushf; orl $0x247000, (%%rsp); popf; mov $39, %%eax; syscall" ::
                             : "memory", "rax", "rcx", "r11");
        break;
    case 8: __asm__ volatile(".byte 0xf2, 0x0f, 0xae, 0xf1" ::"a"(~0u), "d"(~0u), "c"(0)); break; /* umwait ecx */
    case 9: __asm__ volatile(".byte 0xf3, 0x0f, 0xae, 0xf0"); break;                              /* umonitor */
    case 10: __asm__ volatile("clflush %0" ::"m"(xsave_area)); break;
    case 11: __asm__ volatile(".byte 0x0f, 0x01, 0xcf"); break;                               /* encls */
    case 12: __asm__ volatile(".byte 0x0f, 0x01, 0xd7" ::"a"(0)); break;                      /* enclu */
    case 13: __asm__ volatile(".byte 0x0f, 0x01, 0xc1"); break;                               /* vmcall */
    case 14: __asm__ volatile(".byte 0x0f, 0x01, 0xd9"); break;                               /* vmmcall */
    case 15: __asm__ volatile(".byte 0xc7, 0xf8, 0, 0, 0, 0; .byte 0x0f, 0x01, 0xd5"); break; /* xbegin, xend */
    case 16: __asm__ volatile(".byte 0xf3, 0x0f, 0x1e, 0xc8"); break;                         /* rdsspd */
    case 17: __asm__ volatile(".byte 0xc4, 0xe2, 0x78, 0x49, 0xc0"); break;                   /* tilerelease */
    case 18: __asm__ volatile("sgdt %0" : "=m"(xsave_area)); break;
    case 19: __asm__ volatile("sidt %0" : "=m"(xsave_area)); break;
    case 20: __asm__ volatile("smsw %0" : "=r"(n)); break;
    case 21: __asm__ volatile("lsl %1, %0" : "=r"(lo) : "r"(0x7b)); break;
    case 22: __asm__ volatile(".byte 0xf3, 0x0f, 0xc7, 0xf0"); break; /* senduipi */
    case 23: __asm__ volatile(".byte 0xf3, 0x0f, 0x01, 0xef"); break; /* stui */
    default: break;
    }
}
static void doubtful_instructions(void)
{
    scratch = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int round = 0; round < 3; round++)
        for (uint64_t n = 0; n < 24; n++) {
            attempt_ms(may_work, n, 500);
            if (n == 2 || n == 4)
                sane(); /* the next one in this world has its rights */
        }
    sane();
}
/* Every selector of the first 4 KiB of both tables, and some beyond, in every data segment register. */
static void all_selectors(uint64_t seg)
{
    probe_signals(probe_failed);
    for (volatile uint32_t sel = 0; sel < 0x10000; sel += sel < 0x200 ? 1 : 0x3fb) {
        if (sigsetjmp(probe_env, 0))
            continue;
        switch (seg) {
        case 0: __asm__ volatile("mov %0, %%ds" ::"r"(sel)); break;
        case 1: __asm__ volatile("mov %0, %%es" ::"r"(sel)); break;
        default: __asm__ volatile("mov %0, %%gs" ::"r"(sel)); break;
        }
        getppid();
    }
}
static void selectors(void)
{
    for (uint64_t seg = 0; seg < 3; seg++) {
        int status = attempt_ms(all_selectors, seg, 5000);
        REQUIRE_MSG(status == 0, "segment register %llu: status 0x%x", (unsigned long long)seg, status);
    }
    sane();
}

/* ---- too much of everything ---- */

static void many_mappings(uint64_t pages)
{
    uint8_t *p =
        mmap(NULL, pages * 2 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        _exit(1);
    madvise(p, pages * 2 * 4096, MADV_NOHUGEPAGE);
    for (uint64_t i = 0; i < pages; i++)
        *(volatile uint32_t *)(p + i * 8192) = (uint32_t)i;
    for (uint64_t i = 0; i < pages; i++)
        if (*(volatile uint32_t *)(p + i * 8192) != i)
            _exit(2);
}
static void scattered_pages(void)
{
    /* More than vm.max_map_count of the host. */
    int status = attempt_ms(many_mappings, 68000, 500000);
    REQUIRE_MSG(status == 0, "status 0x%x", status);
    sane();
}
static void eat_memory(uint64_t arg)
{
    struct rlimit lim = {1ull << 40, 1ull << 40};
    setrlimit(RLIMIT_AS, &lim);
    FILE *f = fopen("/proc/self/oom_score_adj", "w");
    if (f) {
        fputs("1000", f);
        fclose(f);
    }
    for (;;) {
        uint8_t *p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED)
            _exit(0);
        for (size_t i = 0; i < 1 << 20; i += 4096)
            p[i] = 1;
    }
}
static void memory_exhaustion(void)
{
    int status = attempt_ms(eat_memory, 0, 200000);
    REQUIRE_MSG(status == 0 || died_of(status, SIGKILL), "status 0x%x", status);
    sane();
}
static void fork_bomb(uint64_t arg)
{
    struct rlimit lim = {400, 400};
    if (setuid(1000) || setrlimit(RLIMIT_NPROC, &lim))
        _exit(1);
    setpgid(0, 0);
    volatile unsigned long work = 0;
    for (uint64_t end = bt_now_ns() + 1500000000ull; bt_now_ns() < end; work++) {
        pid_t child = fork();
        if (child == 0)
            for (int i = 0; i < 1000; i++)
                work++;
        /* Linux gives the stack of a refused process back after an RCU grace period only. 400 processes that ask with too short a
           pause keep RCU's thread from the one CPU, and the memory of the guest goes into stacks: a guest's fault, not ours. */
        if (child < 0)
            usleep(20000);
    }
    usleep(100000);
    kill(0, SIGKILL);
}
static void bomb(void)
{
    int status = attempt_ms(fork_bomb, 0, 30000);
    REQUIRE_MSG(died_of(status, SIGKILL), "status 0x%x", status);
    usleep(200000);
    sane();
}

static const struct bt_test hostile[] = {
    {"hostile-stub-offsets", stub_every_offset},
    {"hostile-stub-calls", stub_system_calls},
    {"hostile-stub-mailbox", stub_mailbox},
    {"hostile-stub-run-on", stub_run_on},
    {"hostile-stub-read-only", stub_read_only},
    {"hostile-stub-stack", stub_stack},
    {"hostile-stub-frame", stub_forged_frame},
    {"hostile-probe", nothing_else_mapped},
    {"hostile-kernel-memory", kernel_memory},
    {"hostile-given-back", given_back},
    {"hostile-calls", odd_system_calls},
    {"hostile-sysenter", sysenters},
    {"hostile-instructions", instructions},
    {"hostile-doubtful", doubtful_instructions},
    {"hostile-selectors", selectors},
    {"hostile-scattered", scattered_pages},
    {"hostile-memory", memory_exhaustion},
    {"hostile-fork-bomb", bomb},
    {NULL, NULL},
};
const struct bt_test *const bt_tables[] = {hostile, NULL};
