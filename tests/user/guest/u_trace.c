/* tests/user/guest/u_trace.c - debuggers: registers and FPU state of a tracee, stepping, patched code, system calls; core dumps. */
#define _GNU_SOURCE
#include "ut.h"
#include <elf.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/procfs.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/user.h>

#ifdef __x86_64__
#define IP rip
#define AX rax
#define BX rbx
#define CX rcx
#define SI rsi
#define DI rdi
#define ORIG orig_rax
#define FLAGS eflags
#else
#define IP eip
#define AX eax
#define BX ebx
#define CX ecx
#define SI esi
#define DI edi
#define ORIG orig_eax
#define FLAGS eflags
#endif

static struct user_regs_struct regs(pid_t child)
{
    struct user_regs_struct r;
    REQUIRE(ptrace(PTRACE_GETREGS, child, NULL, &r) == 0);
    return r;
}
static int wait_stop(pid_t child)
{
    int status;
    REQUIRE(waitpid(child, &status, __WALL) == child);
    REQUIRE_MSG(WIFSTOPPED(status), "status 0x%x", status);
    return status >> 8;
}
static void go(pid_t child, int how)
{
    REQUIRE(ptrace(how, child, NULL, NULL) == 0);
    int stop = wait_stop(child);
    REQUIRE_MSG((stop & 0x7f) == SIGTRAP, "stopped by 0x%x", stop);
}
static pid_t start(void (*f)(void))
{
    pid_t child = fork();
    if (child == 0) {
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        raise(SIGSTOP);
        for (;;)
            f();
    }
    REQUIRE((wait_stop(child) & 0xff) == SIGSTOP);
    return child;
}
static void stop(pid_t child)
{
    kill(child, SIGKILL);
    waitpid(child, NULL, __WALL);
}

/* All registers, FPU included, arrive in the tracee and come back. INT3 stops it in between. */
static void computes_and_stops(void)
{
    __asm__ volatile("1: int3; mov $100000, %%ecx; 2: dec %%ecx; jnz 2b; jmp 1b" ::: "ecx", "cc");
}
static void registers(void)
{
    pid_t child = start(computes_and_stops);
    static uint8_t image[UT_XSAVE_BYTES] __attribute__((aligned(64)));
    static uint8_t now[UT_XSAVE_BYTES] __attribute__((aligned(64)));
    struct iovec set = {image, sizeof image};
    bool xsave = ut_xfeatures() != 0;
    go(child, PTRACE_CONT);
    if (xsave)
        REQUIRE(ptrace(PTRACE_GETREGSET, child, (void *)NT_X86_XSTATE, &set) == 0);
    size_t bytes = set.iov_len;
    for (uint32_t i = 1; i <= 60; i++) {
        struct user_regs_struct r = regs(child), back;
        r.AX = i * 3;
        r.BX = (unsigned long)0x123456789abcdefull * i;
        r.SI = ~i;
        r.DI = i << 20;
#ifdef __x86_64__
        r.r8 = r.BX * 3;
        r.r15 = ~r.BX;
        r.fs_base = 0x7000000 + i * 8;
        r.gs_base = 0x12345678000 + i;
#endif
        r.FLAGS = (r.FLAGS & ~0xcd5ul) | (i & 1) | (i & 2 ? 0x800 : 0);
        REQUIRE(ptrace(PTRACE_SETREGS, child, NULL, &r) == 0);
        if (xsave) {
            uint8_t tail[48];
            memcpy(tail, image + 464, 48);
            ut_fill_image(image, i);
            memcpy(image + 464, tail, 48); /* the kernel's own words */
            set = (struct iovec){image, bytes};
            REQUIRE(ptrace(PTRACE_SETREGSET, child, (void *)NT_X86_XSTATE, &set) == 0);
        }
        go(child, PTRACE_CONT);
        back = regs(child);
        REQUIRE(back.AX == r.AX && back.BX == r.BX && back.SI == r.SI && back.DI == r.DI && back.CX == 0);
#ifdef __x86_64__
        REQUIRE(back.r8 == r.r8 && back.r15 == r.r15 && back.fs_base == r.fs_base && back.gs_base == r.gs_base);
#endif
        REQUIRE((back.FLAGS & 0x41) == (0x40 | (i & 1)));
        if (xsave) {
            set = (struct iovec){now, bytes};
            REQUIRE(ptrace(PTRACE_GETREGSET, child, (void *)NT_X86_XSTATE, &set) == 0);
            *(uint64_t *)(image + 512) &= ut_xfeatures();
            int at = ut_image_differs(image, now);
            REQUIRE_MSG(at < 0, "round %u: byte %d of the FPU state differs", i, at);
            struct user_fpregs_struct f;
            REQUIRE(ptrace(PTRACE_GETFPREGS, child, NULL, &f) == 0);
        }
    }
    stop(child);
}

/* Steps over instructions that do much: REP MOVS, system calls. */
extern char st_begin[], st_copied[], st_called[], st_popped[], st_end[];
static char step_from[64], step_to[64];
static void stepped(void)
{
    char *from = step_from, *to = step_to;
    size_t n = sizeof step_from;
#ifdef __x86_64__
    __asm__ volatile(
        ".globl st_begin, st_copied, st_called, st_popped, st_end; lea -128(%%rsp), %%rsp\n"
        "st_begin: rep movsb\n st_copied: mov $39, %%eax; syscall\n st_called: pushf; pop %%rax\n st_popped: nop\n"
        "st_end: lea 128(%%rsp), %%rsp"
        : "+S"(from), "+D"(to), "+c"(n)::"rax", "r11", "memory", "cc");
#else
    __asm__ volatile(
        ".globl st_begin, st_copied, st_called, st_popped, st_end\n"
        "st_begin: rep movsb\n st_copied: mov $20, %%eax; int $0x80\n st_called: pushf; pop %%eax\n st_popped: nop\n"
        "st_end: nop"
        : "+S"(from), "+D"(to), "+c"(n)::"eax", "memory", "cc");
#endif
}
static void breakpoint(pid_t child, char *at)
{
    errno = 0;
    long word = ptrace(PTRACE_PEEKTEXT, child, at, NULL);
    REQUIRE(errno == 0 && ptrace(PTRACE_POKETEXT, child, at, (void *)((word & ~0xffl) | 0xcc)) == 0);
    go(child, PTRACE_CONT);
    struct user_regs_struct r = regs(child);
    REQUIRE_MSG((uintptr_t)r.IP == (uintptr_t)at + 1, "stopped at 0x%lx", (long)r.IP);
    r.IP = (uintptr_t)at;
    REQUIRE(ptrace(PTRACE_POKETEXT, child, at, (void *)word) == 0 && ptrace(PTRACE_SETREGS, child, NULL, &r) == 0);
}
static void single_steps(void)
{
    pid_t child = start(stepped);
    for (unsigned round = 0; round < 10; round++) {
        breakpoint(child, st_begin);
        unsigned steps = 0;
        while ((uintptr_t)regs(child).IP != (uintptr_t)st_copied && ++steps < 200)
            go(child, PTRACE_SINGLESTEP);
        /* One trap for each iteration of a string instruction (SDM 3B, 18.3.1.4). */
        REQUIRE_MSG(steps == sizeof step_from, "%u steps through REP MOVSB", steps);
        go(child, PTRACE_SINGLESTEP);
        go(child, PTRACE_SINGLESTEP);
        REQUIRE((uintptr_t)regs(child).IP == (uintptr_t)st_called && (pid_t)regs(child).AX == child);
        go(child, PTRACE_SINGLESTEP);
        go(child, PTRACE_SINGLESTEP);
        REQUIRE((uintptr_t)regs(child).IP == (uintptr_t)st_popped);
        go(child, PTRACE_SINGLESTEP);
        REQUIRE((uintptr_t)regs(child).IP == (uintptr_t)st_end);
        REQUIRE((regs(child).FLAGS & 0x100) == 0);
    }
    stop(child);
}

/* Steps over what changes how steps go: POPF with and without TF, loads of SS, faults that have a handler, instructions that the monitor
 * carries out, and those that change the mode. Each piece of code ends at a HLT; the numbers are where each step ends. */
static uint8_t *piece;
static void on_piece(int sig, siginfo_t *info, void *context)
{
    ((ucontext_t *)context)->uc_mcontext.gregs[UT_IP] += 2;
}
static void spin_for_ever(void)
{
    for (;;)
        ;
}
static void odd_steps(void)
{
    static const struct {
        const char *name;
        uint8_t code[24], at[10];
    } pieces[] = {
        {"popf", {0x9c, 0x90, 0x9d, 0x90, 0x90, 0xf4}, {1, 2, 3, 4, 5}},
        {"mov ss", {0x8c, 0xd0, 0x8e, 0xd0, 0x90, 0x90, 0xf4}, {2, 5, 6}},
        {"int 80h", {0xb8, 64, 0, 0, 0, 0xcd, 0x80, 0x90, 0xf4}, {5, 7, 8}},
#ifdef __x86_64__
        {"syscall", {0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0x90, 0xf4}, {5, 7, 8}},
#endif
        {"cpuid, rdtsc", {0x31, 0xc0, 0x0f, 0xa2, 0x0f, 0x31, 0x90, 0xf4}, {2, 4, 6, 7}},
        {"rep stosb of nothing", {0x31, 0xc9, 0xf3, 0xaa, 0x90, 0xf4}, {2, 4, 5}},
        {"enter, leave", {0xc8, 16, 0, 0, 0xc9, 0x90, 0xf4}, {4, 5, 6}},
        {"call, ret", {0xe8, 1, 0, 0, 0, 0xf4, 0xc3}, {6, 5}},
        {"loop", {0xb9, 3, 0, 0, 0, 0xe2, 0xfe, 0x90, 0xf4}, {5, 5, 5, 7, 8}},
        {"fninit", {0xdb, 0xe3, 0x90, 0xf4}, {2, 3}},
    };
    piece = mmap(NULL, UT_PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    REQUIRE(piece != MAP_FAILED);
    pid_t child = start(spin_for_ever);
    struct user_regs_struct r0 = regs(child);
    for (unsigned n = 0; n < 5; n++)
        for (unsigned i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
            memcpy(piece, pieces[i].code, sizeof pieces[i].code);
            struct user_regs_struct r = r0;
            r.IP = (uintptr_t)piece;
            r.ORIG = (unsigned long)-1;
            r.FLAGS = 0x246;
            REQUIRE(ptrace(PTRACE_SETREGS, child, NULL, &r) == 0);
            for (unsigned k = 0; k < 10 && pieces[i].at[k]; k++) {
                go(child, PTRACE_SINGLESTEP);
                uintptr_t ip = (uintptr_t)regs(child).IP;
                REQUIRE_MSG(ip == (uintptr_t)piece + pieces[i].at[k], "%s: step %u ends at +%ld, not +%u",
                            pieces[i].name, k, (long)(ip - (uintptr_t)piece), pieces[i].at[k]);
            }
        }
    stop(child);
    /* A step into a fault stops at the fault; the next one, in the handler's first instruction. */
    piece[0] = 0x0f, piece[1] = 0x0b, piece[2] = 0xc3;
    child = fork();
    if (child == 0) {
        ut_handle(SIGILL, on_piece, 0);
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        raise(SIGSTOP);
        for (;;)
            ((void (*)(void))(uintptr_t)piece)();
    }
    REQUIRE((wait_stop(child) & 0xff) == SIGSTOP);
    for (unsigned n = 0; n < 5; n++) {
        REQUIRE(ptrace(PTRACE_CONT, child, NULL, NULL) == 0 && (wait_stop(child) & 0xff) == SIGILL);
        REQUIRE((uintptr_t)regs(child).IP == (uintptr_t)piece);
        REQUIRE(ptrace(PTRACE_SINGLESTEP, child, NULL, (void *)SIGILL) == 0 && (wait_stop(child) & 0xff) == SIGTRAP);
        REQUIRE((uintptr_t)regs(child).IP == (uintptr_t)on_piece);
    }
    stop(child);
}

/* Data breakpoints of every kind, while the tracee computes. */
static volatile uint32_t watched[8];
extern char wa_stored[], wa_read[];
static void writes_and_reads(void)
{
    __asm__ volatile(".globl wa_stored, wa_read\n mov $5000, %%ecx; 1: dec %%ecx; jnz 1b\n"
                     "movl $1, %0\n wa_stored: nop\n mov %1, %%eax\n wa_read: nop"
                     : "=m"(watched[1])
                     : "m"(watched[3])
                     : "eax", "ecx", "cc", "memory");
}
#define DR(n) ((void *)(offsetof(struct user, u_debugreg) + (n) * sizeof(long)))
static void poke_dr(pid_t child, int n, unsigned long v)
{
    REQUIRE_MSG(ptrace(PTRACE_POKEUSER, child, DR(n), (void *)v) == 0, "DR%d: errno %d", n, errno);
}
static void data_breakpoints(void)
{
    pid_t child = start(writes_and_reads);
    poke_dr(child, 0, (unsigned long)&watched[1]);
    poke_dr(child, 3, (unsigned long)&watched[3]);
    poke_dr(child, 7, 0x41 | 0xdul << 16 | 0xful << 28); /* L0 writes, L3 reads and writes, 4 bytes each */
    for (int i = 0; i < 40; i++) {
        go(child, PTRACE_CONT);
        uintptr_t want = (uintptr_t)(i % 2 ? wa_read : wa_stored), ip = (uintptr_t)regs(child).IP;
        long dr6 = ptrace(PTRACE_PEEKUSER, child, DR(6), NULL);
        REQUIRE_MSG(ip == want && (dr6 & 0xf) == (i % 2 ? 8 : 1), "stop %d at 0x%lx, DR6 0x%lx", i, (long)ip, dr6);
    }
    poke_dr(child, 7, 0);
    stop(child);
}

/* Attach to a process that computes, look, change a variable, let go. */
static volatile uint32_t *spin_word;
static void attach(void)
{
    spin_word = bt_shared(UT_PAGE);
    pid_t child = fork();
    if (child == 0) {
        volatile unsigned long work = 0;
        while (spin_word[0] != 40)
            work++;
        _exit(0);
    }
    for (uint32_t i = 1; i <= 40; i++) {
        REQUIRE(ptrace(PTRACE_ATTACH, child, NULL, NULL) == 0);
        REQUIRE((wait_stop(child) & 0xff) == SIGSTOP);
        struct user_regs_struct r = regs(child);
        REQUIRE((long)r.IP != 0);
        REQUIRE(ptrace(PTRACE_POKEDATA, child, (void *)&spin_word[0], (void *)(uintptr_t)i) == 0);
        REQUIRE(ptrace(PTRACE_DETACH, child, NULL, NULL) == 0);
    }
    bt_wait(child);
}

/* The tracer answers system calls itself. */
static void calls(void)
{
    for (int i = 0; i < 100; i++)
        if (syscall(SYS_getppid) != 1000 + i)
            _exit(1);
    _exit(0);
}
static void emulated_calls(void)
{
    pid_t child = start(calls);
    int status;
    REQUIRE(ptrace(PTRACE_SETOPTIONS, child, NULL, (void *)(PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL)) == 0);
    for (int i = 0;;) {
        REQUIRE(ptrace(PTRACE_SYSEMU, child, NULL, NULL) == 0 && waitpid(child, &status, 0) == child);
        if (!WIFSTOPPED(status))
            break;
        struct user_regs_struct r = regs(child);
        if ((long)r.ORIG == SYS_getppid)
            r.AX = (unsigned long)(1000 + i++);
        else if ((long)r.ORIG == SYS_exit_group) {
            REQUIRE(i == 100);
            long code = (long)(sizeof(long) == 8 ? r.DI : r.BX);
            REQUIRE_MSG(code == 0, "the tracee saw something else");
            break;
        }
        REQUIRE(ptrace(PTRACE_SETREGS, child, NULL, &r) == 0);
    }
    stop(child);
}

/* ---- core dumps ---- */
static uint8_t core_image[UT_XSAVE_BYTES] __attribute__((aligned(64)));
static uint8_t core_expected[UT_XSAVE_BYTES] __attribute__((aligned(64)));
static volatile uint32_t core_mark[4];
extern char dies_here[];
_Noreturn static void die_with_known_registers(void)
{
    memset(core_expected, 0, sizeof core_expected);
#ifdef __x86_64__
    __asm__ volatile(".globl dies_here\n xrstor (%0); mov $0x1111111111111111, %%rbx; mov $0x2222222222222222, %%r12;"
                     "mov $0x3333, %%r15d; mov $0x4444, %%ebp; stc; dies_here: ud2" ::"r"(core_image),
                     "a"(0xe7), "d"(0));
#else
    __asm__ volatile(".globl dies_here\n xrstor (%0); mov $0x11111111, %%ebx; mov $0x22222222, %%esi;"
                     "mov $0x3333, %%edi; mov $0x4444, %%ebp; stc; dies_here: ud2" ::"r"(core_image),
                     "a"(0xe7), "d"(0));
#endif
    __builtin_unreachable();
}

#ifdef __x86_64__
typedef Elf64_Ehdr ehdr;
typedef Elf64_Phdr phdr;
#else
typedef Elf32_Ehdr ehdr;
typedef Elf32_Phdr phdr;
#endif
struct core {
    const uint8_t *file;
    size_t bytes;
};
static const void *note(const struct core *c, unsigned type, size_t *bytes)
{
    const ehdr *e = (const void *)c->file;
    const phdr *p = (const void *)(c->file + e->e_phoff);
    for (unsigned i = 0; i < e->e_phnum; i++) {
        if (p[i].p_type != PT_NOTE)
            continue;
        const uint8_t *at = c->file + p[i].p_offset, *end = at + p[i].p_filesz;
        while (at + 12 <= end) {
            uint32_t h[3];
            memcpy(h, at, 12);
            const uint8_t *data = at + 12 + ((h[0] + 3) & ~3u);
            if (h[2] == type) {
                *bytes = h[1];
                return data;
            }
            at = data + ((h[1] + 3) & ~3u);
        }
    }
    return NULL;
}
static const void *memory(const struct core *c, uintptr_t address)
{
    const ehdr *e = (const void *)c->file;
    const phdr *p = (const void *)(c->file + e->e_phoff);
    for (unsigned i = 0; i < e->e_phnum; i++)
        if (p[i].p_type == PT_LOAD && address >= p[i].p_vaddr && address < p[i].p_vaddr + p[i].p_filesz)
            return c->file + p[i].p_offset + (address - p[i].p_vaddr);
    return NULL;
}
static void check_core(const struct core *c)
{
    size_t bytes;
    REQUIRE(c->bytes > sizeof(ehdr) && !memcmp(c->file, ELFMAG, 4) && ((const ehdr *)c->file)->e_type == ET_CORE);
    const struct elf_prstatus *s = note(c, NT_PRSTATUS, &bytes);
    REQUIRE(s && bytes == sizeof *s);
    struct user_regs_struct r;
    memcpy(&r, &s->pr_reg, sizeof r);
    REQUIRE(s->pr_cursig == SIGILL && (uintptr_t)r.IP == (uintptr_t)dies_here && (r.FLAGS & 1));
#ifdef __x86_64__
    REQUIRE(r.rbx == 0x1111111111111111 && r.r12 == 0x2222222222222222 && r.r15 == 0x3333 && r.rbp == 0x4444);
    REQUIRE(r.cs == 0x33 && r.ss == 0x2b);
#else
    REQUIRE(r.ebx == 0x11111111 && r.esi == 0x22222222 && r.edi == 0x3333 && r.ebp == 0x4444);
#endif
    const void *x = note(c, NT_X86_XSTATE, &bytes);
    REQUIRE(x);
    static uint8_t seen[UT_XSAVE_BYTES] __attribute__((aligned(64)));
    memcpy(seen, x, bytes < sizeof seen ? bytes : sizeof seen);
    int at = ut_image_differs(core_image, seen);
    REQUIRE_MSG(at < 0, "byte %d of the FPU state differs", at);
    const uint32_t *mark = memory(c, (uintptr_t)&core_mark);
    REQUIRE(mark && mark[0] == 0xc0de && mark[3] == 0xdead);
}
static void core_dump(void)
{
    char pattern[64] = "", dir[] = "/tmp/u-core-XXXXXX";
    FILE *f = fopen("/proc/sys/kernel/core_pattern", "r");
    if (!f || !fgets(pattern, sizeof pattern, f) || strcmp(pattern, "core\n"))
        bt_skip("core dumps go elsewhere");
    fclose(f);
    if (!ut_xfeatures())
        bt_skip("no XSAVE");
    REQUIRE(mkdtemp(dir) && chdir(dir) == 0);
    for (uint32_t i = 1; i <= 3; i++) {
        ut_fill_image(core_image, i);
        int status;
        pid_t child = fork();
        if (child == 0) {
            struct rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY};
            if (setrlimit(RLIMIT_CORE, &unlimited))
                _exit(7);
            core_mark[0] = 0xc0de;
            core_mark[3] = 0xdead;
            die_with_known_registers();
        }
        REQUIRE(waitpid(child, &status, 0) == child);
        if (WIFEXITED(status) && WEXITSTATUS(status) == 7)
            bt_skip("no permission for core dumps");
        REQUIRE_MSG(WIFSIGNALED(status) && WTERMSIG(status) == SIGILL, "status 0x%x", status);
        if (!WCOREDUMP(status))
            bt_skip("the kernel writes no core dumps");
        char other[64];
        snprintf(other, sizeof other, "core.%d", child);
        int fd = open(access("core", R_OK) == 0 ? "core" : other, O_RDONLY);
        struct stat st;
        REQUIRE(fd >= 0 && fstat(fd, &st) == 0);
        struct core c = {mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0), (size_t)st.st_size};
        REQUIRE(c.file != MAP_FAILED);
        close(fd);
        unlink("core");
        unlink(other);
        check_core(&c);
        munmap((void *)c.file, c.bytes);
    }
    REQUIRE(rmdir(dir) == 0);
}

const struct bt_test u_trace[] = {
    {"u-trace-registers", registers}, {"u-trace-steps", single_steps},
    {"u-trace-odd-steps", odd_steps}, {"u-trace-data-breakpoints", data_breakpoints},
    {"u-trace-attach", attach},       {"u-trace-emulated-calls", emulated_calls},
    {"u-core-dump", core_dump},       {NULL, NULL},
};
