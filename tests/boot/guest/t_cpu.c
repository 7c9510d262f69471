/* tests/boot/guest/t_cpu.c - what user code sees of the CPU: CPUID, flags, traps, system-call entries, segments. */
#include "bt.h"
#include <asm/ldt.h>
#include <asm/prctl.h>
#include <cpuid.h>
#include <sched.h>

static void cpuid_agrees(void)
{
    unsigned a, b, c, d;
    REQUIRE(__get_cpuid(1, &a, &b, &c, &d));
    REQUIRE((d & 1) && (d >> 4 & 1)); /* FPU, TSC */
    REQUIRE((d >> 25 & 1) == bt_cpu_has("sse"));
    REQUIRE((d >> 26 & 1) == bt_cpu_has("sse2"));
    /* OSXSAVE shows what the kernel did; it must agree with XGETBV working. */
    if (c >> 27 & 1) {
        uint32_t lo, hi;
        __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
        REQUIRE((lo & 3) == 3);
    }
}

static void integer_arithmetic(void)
{
    /* A checksum over mixed operations with a known result: wrong flags or operands change it. */
    uint32_t s = 0x2545f491, sum = 0;
    for (int i = 0; i < 200000; i++) {
        uint32_t a = bt_random(&s), b = bt_random(&s) | 1;
        sum = (sum << 5 | sum >> 27) ^ (a / b) ^ (a % b) ^ (uint32_t)((uint64_t)a * b >> 32);
        sum += a > b ? a - b : (uint32_t)((int32_t)a >> (b & 31));
        sum ^= (uint32_t)__builtin_popcount(a) + (a ? (uint32_t)__builtin_ctz(a) : 0);
    }
    REQUIRE_MSG(sum == 0xce7d58ffu, "checksum 0x%08x", sum);
}

static void flags_survive_preemption(void)
{
    /* Carry and direction flag through many time slices, with a competitor for the CPU. */
    pid_t busy = fork();
    if (busy == 0)
        for (uint64_t end = bt_now_ns() + 600000000; bt_now_ns() < end;)
            ;
    if (busy == 0)
        _exit(0);
    for (uint64_t end = bt_now_ns() + 400000000; bt_now_ns() < end;) {
        uintptr_t before, after;
        __asm__ volatile("std; stc; pushf; pop %0; mov $20000, %%ecx; 1: dec %%ecx; jnz 1b; pushf; pop %1; cld"
                         : "=&r"(before), "=&r"(after)::"ecx", "cc", "memory");
        REQUIRE((before & 0x401) == 0x401 && (after & 0x401) == 0x401);
    }
    bt_wait(busy);
}

static void do_divide(void *arg)
{
    __asm__ volatile("xor %%edx, %%edx; mov $1, %%eax; div %0" ::"r"(*(unsigned *)arg) : "eax", "edx");
}
static void do_ud2(void *arg) { __asm__ volatile("ud2"); }
static void do_int3(void *arg) { __asm__ volatile("int3"); }
static void do_hlt(void *arg) { __asm__ volatile("hlt"); }
static void do_cli(void *arg) { __asm__ volatile("cli"); }
static void do_mov_cr(void *arg)
{
    uintptr_t v;
    __asm__ volatile("mov %%cr0, %0" : "=r"(v));
}
static void do_in(void *arg) { __asm__ volatile("inb $0x80, %%al" ::: "eax"); }
static void do_wrmsr(void *arg) { __asm__ volatile("wrmsr" ::"a"(0), "c"(0x10), "d"(0)); }
static void do_bad_int(void *arg) { __asm__ volatile("int $0x20"); }

static void traps_are_signals(void)
{
    static unsigned zero;
    static const struct {
        void (*f)(void *);
        int sig;
    } cases[] = {{do_divide, SIGFPE},  {do_ud2, SIGILL},    {do_int3, SIGTRAP},
                 {do_hlt, SIGSEGV},    {do_cli, SIGSEGV},   {do_in, SIGSEGV},
                 {do_mov_cr, SIGSEGV}, {do_wrmsr, SIGSEGV}, {do_bad_int, SIGSEGV}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (int n = 0; n < 50; n++) {
            int sig = bt_catch(cases[i].f, &zero, NULL);
            REQUIRE_MSG(sig == cases[i].sig, "case %zu raised signal %d, not %d", i, sig, cases[i].sig);
        }
}

static void int80_entry(void)
{
    long pid;
    __asm__ volatile("int $0x80" : "=a"(pid) : "0"(20) : "memory"); /* i386 getpid */
    REQUIRE_MSG(pid == getpid(), "int 0x80 returned %ld", pid);
}

static void syscall_preserves_registers(void)
{
#ifdef __x86_64__
    register uint64_t r8 __asm__("r8") = 0x8888, r9 __asm__("r9") = 0x9999, r10 __asm__("r10") = 0xaaaa,
                         r12 __asm__("r12") = 0xcccc;
    register uint64_t r15 __asm__("r15") = 0xffff;
    uint64_t rax = SYS_getppid, rbx = 0xb0b, rdx = 0xd0d;
    for (int i = 0; i < 1000; i++) {
        rax = SYS_getppid;
        __asm__ volatile("syscall"
                         : "+a"(rax), "+b"(rbx), "+d"(rdx), "+r"(r8), "+r"(r9), "+r"(r10), "+r"(r12), "+r"(r15)::"rcx",
                           "r11", "memory");
        REQUIRE(rax == (uint64_t)getppid() && rbx == 0xb0b && rdx == 0xd0d && r8 == 0x8888 && r12 == 0xcccc &&
                r15 == 0xffff);
        r9 = 0x9999;
        r10 = 0xaaaa;
        r8 = 0x8888;
    }
#else
    uint32_t eax, ecx = 0xc0c, edx = 0xd0d, esi = 0x51, edi = 0xd1;
    for (int i = 0; i < 1000; i++) {
        __asm__ volatile("int $0x80" : "=a"(eax), "+c"(ecx), "+d"(edx), "+S"(esi), "+D"(edi) : "0"(64) : "memory");
        REQUIRE((pid_t)eax == getppid() && ecx == 0xc0c && edx == 0xd0d && esi == 0x51 && edi == 0xd1);
    }
#endif
}

/* A data segment of the process's own table: base and limit must count. 64-bit code only uses the base of FS and GS. */
static void ldt_segment(void)
{
    static uint32_t words[4] = {0x11111111, 0x22222222, 0x33333333, 0x44444444};
#ifdef __x86_64__
    uint32_t *low = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    REQUIRE(low != MAP_FAILED);
    memcpy(low, words, sizeof words);
#else
    uint32_t *low = words;
#endif
    struct user_desc d = {
        .entry_number = 3, .base_addr = (unsigned)(uintptr_t)low, .limit = 15, .seg_32bit = 1, .useable = 1};
    if (syscall(SYS_modify_ldt, 1, &d, sizeof d) && errno == ENOSYS)
        bt_skip("no modify_ldt");
    uint32_t v;
    unsigned sel = 3 << 3 | 7, old;
    __asm__ volatile("mov %%fs, %1; mov %2, %%fs; mov %%fs:8, %0; mov %1, %%fs" : "=&r"(v), "=&r"(old) : "r"(sel));
#ifndef __x86_64__
    REQUIRE_MSG(v == 0x33333333, "read 0x%x", v);
#else
    (void)v;
    (void)old;
    /* Loading FS cleared the thread pointer: this process may only leave now. */
    _exit(v == 0x33333333 ? 0 : 1);
#endif
}

#ifdef __x86_64__
static void fs_gs_base(void)
{
    static uint64_t cell = 0x1234567890abcdef;
    uint64_t v, got;
    REQUIRE(syscall(SYS_arch_prctl, ARCH_SET_GS, &cell) == 0);
    for (int i = 0; i < 200; i++) {
        sched_yield();
        __asm__ volatile("mov %%gs:0, %0" : "=r"(v));
        REQUIRE(v == cell);
    }
    REQUIRE(syscall(SYS_arch_prctl, ARCH_GET_GS, &got) == 0 && got == (uint64_t)&cell);
    if (bt_cpu_has("fsgsbase")) {
        static uint64_t other = 42;
        __asm__ volatile("wrgsbase %0" ::"r"(&other));
        sched_yield();
        __asm__ volatile("mov %%gs:0, %0; rdgsbase %1" : "=r"(v), "=r"(got));
        REQUIRE(v == 42 && got == (uint64_t)&other);
    }
}
#endif

static void string_instructions(void)
{
    enum { N = 3 * 4096 };
    static uint8_t a[N + 64], b[N + 64];
    uint32_t s = 7;
    for (int i = 0; i < N; i++)
        a[i] = (uint8_t)bt_random(&s);
    for (unsigned off = 0; off < 9; off++) {
        void *di = b + off, *si = a + 3;
        size_t n = N - 16;
        memset(b, 0, sizeof b);
        __asm__ volatile("rep movsb" : "+D"(di), "+S"(si), "+c"(n)::"memory");
        REQUIRE(n == 0 && !memcmp(b + off, a + 3, N - 16) && b[off + N - 16] == 0);
        n = N - 16;
        di = b + off;
        si = a + 3;
        b[off + 5000] ^= 1;
        __asm__ volatile("repe cmpsb" : "+D"(di), "+S"(si), "+c"(n)::"memory", "cc");
        REQUIRE((uint8_t *)di == b + off + 5001);
        di = b + 100;
        n = 5;
        __asm__ volatile("rep stosl" : "+D"(di), "+c"(n) : "a"(0x5a5a5a5a) : "memory");
        REQUIRE(b[100] == 0x5a && b[119] == 0x5a);
    }
}

static void atomic_operations(void)
{
    /* Two processes, one counter; also a locked operation across a page border. */
    uint8_t *mem = bt_shared(8192);
    uint32_t *count = (uint32_t *)mem;
    volatile uint32_t *split = (volatile uint32_t *)(mem + 4094);
    pid_t child = fork();
    for (int i = 0; i < 20000; i++) {
        __asm__ volatile("lock incl %0" : "+m"(*count)::"cc", "memory");
        if (i % 64 == 0)
            __asm__ volatile("lock addl $3, %0" : "+m"(*split)::"cc", "memory");
    }
    if (child == 0)
        _exit(0);
    bt_wait(child);
    REQUIRE_MSG(*count == 40000 && *split == 3 * 2 * 313, "%u %u", *count, *split);
    uint64_t *wide = (uint64_t *)(mem + 64), expect = 5;
    *wide = 5;
    REQUIRE(__atomic_compare_exchange_n(wide, &expect, 0x100000007ull, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
    REQUIRE(*wide == 0x100000007ull);
}

const struct bt_test bt_cpu[] = {
    {"cpuid", cpuid_agrees},
    {"integer", integer_arithmetic},
    {"flags", flags_survive_preemption},
    {"traps", traps_are_signals},
    {"int80", int80_entry},
    {"syscall-registers", syscall_preserves_registers},
    {"ldt", ldt_segment},
#ifdef __x86_64__
    {"fs-gs-base", fs_gs_base},
#endif
    {"strings", string_instructions},
    {"atomics", atomic_operations},
    {NULL, NULL},
};
