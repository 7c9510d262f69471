/* tests/user/guest/u_cpu.c - what user code sees of the CPU: CPUID as the kernel sees it, clocks, selectors, mode switches, vsyscalls. */
#define _GNU_SOURCE
#include "ut.h"
#include <cpuid.h>
#include <sched.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>

/* Features that user code can use, where the kernel must not have another opinion. */
static const struct {
    const char *name;
    unsigned leaf, sub;
    char reg;
    unsigned bit;
} features[] = {
    {"fpu", 1, 0, 'd', 0},       {"tsc", 1, 0, 'd', 4},         {"cx8", 1, 0, 'd', 8},
    {"cmov", 1, 0, 'd', 15},     {"clflush", 1, 0, 'd', 19},    {"mmx", 1, 0, 'd', 23},
    {"fxsr", 1, 0, 'd', 24},     {"sse", 1, 0, 'd', 25},        {"sse2", 1, 0, 'd', 26},
    {"pni", 1, 0, 'c', 0},       {"pclmulqdq", 1, 0, 'c', 1},   {"ssse3", 1, 0, 'c', 9},
    {"fma", 1, 0, 'c', 12},      {"cx16", 1, 0, 'c', 13},       {"sse4_1", 1, 0, 'c', 19},
    {"sse4_2", 1, 0, 'c', 20},   {"movbe", 1, 0, 'c', 22},      {"popcnt", 1, 0, 'c', 23},
    {"aes", 1, 0, 'c', 25},      {"xsave", 1, 0, 'c', 26},      {"avx", 1, 0, 'c', 28},
    {"f16c", 1, 0, 'c', 29},     {"rdrand", 1, 0, 'c', 30},     {"hypervisor", 1, 0, 'c', 31},
    {"bmi1", 7, 0, 'b', 3},      {"avx2", 7, 0, 'b', 5},        {"bmi2", 7, 0, 'b', 8},
    {"erms", 7, 0, 'b', 9},      {"avx512f", 7, 0, 'b', 16},    {"avx512dq", 7, 0, 'b', 17},
    {"rdseed", 7, 0, 'b', 18},   {"adx", 7, 0, 'b', 19},        {"clflushopt", 7, 0, 'b', 23},
    {"clwb", 7, 0, 'b', 24},     {"avx512cd", 7, 0, 'b', 28},   {"sha_ni", 7, 0, 'b', 29},
    {"avx512bw", 7, 0, 'b', 30}, {"avx512vl", 7, 0, 'b', 31},   {"gfni", 7, 0, 'c', 8},
    {"vaes", 7, 0, 'c', 9},      {"vpclmulqdq", 7, 0, 'c', 10}, {"avx512_vnni", 7, 0, 'c', 11},
};
static void cpuid_is_the_kernels(void)
{
    bool kernel_has[sizeof features / sizeof features[0]];
    for (unsigned i = 0; i < sizeof features / sizeof features[0]; i++)
        kernel_has[i] = bt_cpu_has(features[i].name);
    for (unsigned n = 0; n < 100; n++)
        for (unsigned i = 0; i < sizeof features / sizeof features[0]; i++) {
            unsigned a = 0, b = 0, c = 0, d = 0;
            if (!__get_cpuid_count(features[i].leaf, features[i].sub, &a, &b, &c, &d))
                b = c = d = 0;
            unsigned v = features[i].reg == 'b' ? b : features[i].reg == 'c' ? c : d;
            REQUIRE_MSG((v >> features[i].bit & 1) == kernel_has[i], "%s: CPUID says %u, the kernel %d",
                        features[i].name, v >> features[i].bit & 1, kernel_has[i]);
        }
}
/* Strings and family as in /proc/cpuinfo; the sizes of leaf 0Dh as XSAVE uses them. */
static void cpuid_identity(void)
{
    unsigned r[12], a, b, c, d;
    char brand[49] = "", line[4096], vendor[13] = "", seen_vendor[64] = "", seen_brand[128] = "";
    unsigned family = 0, model = 0, stepping = 0;
    FILE *f = fopen("/proc/cpuinfo", "r");
    while (f && fgets(line, sizeof line, f) && line[0] != '\n') {
        sscanf(line, "vendor_id : %63[^\n]", seen_vendor);
        sscanf(line, "cpu family : %u", &family);
        sscanf(line, "model : %u", &model);
        sscanf(line, "stepping : %u", &stepping);
        sscanf(line, "model name : %127[^\n]", seen_brand);
    }
    __cpuid(0, a, b, c, d);
    memcpy(vendor, &b, 4);
    memcpy(vendor + 4, &d, 4);
    memcpy(vendor + 8, &c, 4);
    REQUIRE_MSG(!strcmp(vendor, seen_vendor), "vendor %s, the kernel says %s", vendor, seen_vendor);
    for (unsigned i = 0; i < 3; i++)
        __cpuid(0x80000002 + i, r[4 * i], r[4 * i + 1], r[4 * i + 2], r[4 * i + 3]);
    memcpy(brand, r, 48);
    char *p = brand + strlen(brand);
    while (p > brand && p[-1] == ' ')
        *--p = 0;
    p = brand;
    while (*p == ' ')
        p++;
    REQUIRE_MSG(!strcmp(p, seen_brand), "brand '%s', the kernel says '%s'", p, seen_brand);
    __cpuid(1, a, b, c, d);
    unsigned fam = (a >> 8 & 15) + ((a >> 8 & 15) == 15 ? a >> 20 & 255 : 0);
    unsigned mod = (a >> 4 & 15) | (fam == 6 || (a >> 8 & 15) == 15 ? a >> 12 & 0xf0 : 0);
    REQUIRE_MSG(fam == family && mod == model && (a & 15) == stepping, "family %u/%u", fam, family);
    if (ut_xfeatures()) {
        uint32_t lo, hi;
        __cpuid_count(0xd, 0, a, b, c, d);
        __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
        REQUIRE_MSG((lo & ~a) == 0, "XCR0 0x%x has what leaf 0Dh (0x%x) has not", lo, a);
        unsigned end = 576;
        for (unsigned n = 2; n < 32; n++)
            if (lo >> n & 1) {
                unsigned bytes, at = ut_component(n, &bytes);
                end = at + bytes > end ? at + bytes : end;
            }
        REQUIRE_MSG(b == end, "leaf 0Dh: %u bytes for XCR0 0x%x, not %u", b, lo, end);
    }
}

static uint64_t rdtsc(void)
{
    uint32_t lo, hi;
    __asm__ volatile("lfence; rdtsc" : "=a"(lo), "=d"(hi));
    return (uint64_t)hi << 32 | lo;
}
static void tsc(void)
{
    uint64_t last = 0;
    for (int i = 0; i < 200000; i++) {
        uint64_t now = rdtsc();
        REQUIRE_MSG(now >= last, "back by %llu", (unsigned long long)(last - now));
        last = now;
    }
    /* A steady rate: two halves of 200 ms, best of five. */
    double best = 9;
    for (int i = 0; i < 5; i++) {
        uint64_t n0 = bt_now_ns(), t0 = rdtsc(), n1, n2, t1, t2;
        while ((n1 = bt_now_ns()) - n0 < 50000000)
            ;
        t1 = rdtsc();
        while ((n2 = bt_now_ns()) - n1 < 50000000)
            ;
        t2 = rdtsc();
        double ratio = ((double)(t1 - t0) / (double)(n1 - n0)) / ((double)(t2 - t1) / (double)(n2 - n1));
        double off = ratio > 1 ? ratio - 1 : 1 - ratio;
        best = off < best ? off : best;
    }
    REQUIRE_MSG(best < 0.02, "rates differ by %f", best);
}

static void cpu_number(void)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    for (int i = 0; i < 1000; i++) {
        unsigned cpu = 999, node = 999;
        int by_library = sched_getcpu();
        REQUIRE(syscall(SYS_getcpu, &cpu, &node, NULL) == 0);
        REQUIRE_MSG(cpu < (unsigned)cpus && by_library >= 0 && by_library < cpus, "CPU %u and %d of %ld", cpu,
                    by_library, cpus);
        if (cpus == 1)
            REQUIRE(cpu == 0 && by_library == 0 && node == 0);
    }
    /* RDPID and RDTSCP, where CPUID offers them, agree with the kernel. */
    unsigned a, b, c, d;
    if (cpus == 1 && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (c >> 22 & 1)) {
        uintptr_t v;
#ifdef __x86_64__
        __asm__ volatile("rdpid %0" : "=r"(v));
#else
        __asm__ volatile(".byte 0xf3, 0x0f, 0xc7, 0xf8" : "=a"(v));
#endif
        REQUIRE_MSG((v & 0xfff) == 0, "RDPID 0x%lx", (long)v);
    }
    if (cpus == 1 && __get_cpuid(0x80000001, &a, &b, &c, &d) && (d >> 27 & 1)) {
        __asm__ volatile("rdtscp" : "=a"(a), "=d"(d), "=c"(c));
        REQUIRE_MSG((c & 0xfff) == 0, "RDTSCP 0x%x", c);
    }
}

/* Flags that user code may and may not change. */
static uintptr_t set_flags(uintptr_t v)
{
    uintptr_t got;
#ifdef __x86_64__
    __asm__ volatile("lea -128(%%rsp), %%rsp; pushf; push %1; popf; pushf; pop %0; popf; lea 128(%%rsp), %%rsp"
                     : "=&r"(got)
                     : "r"(v)
                     : "cc", "memory");
#else
    __asm__ volatile("pushf; push %1; popf; pushf; pop %0; popf" : "=&r"(got) : "r"(v) : "cc", "memory");
#endif
    return got;
}
static void flags(void)
{
    for (int i = 0; i < 100; i++) {
        REQUIRE_MSG(set_flags(0x3) == 0x203, "IF cleared: 0x%lx", (long)set_flags(0x3)); /* IF stays */
        REQUIRE(set_flags(0x3202) == 0x202);                                             /* IOPL stays */
        REQUIRE(set_flags(0x200202) == 0x200202);                                        /* ID */
        REQUIRE(set_flags(0xcd7) == 0xed7);
        REQUIRE(set_flags(0x10202) == 0x202); /* RF is not pushed */
        REQUIRE(set_flags(0x4202) == 0x4202); /* NT */
    }
    /* ID and DF across a system call. */
    for (int i = 0; i < 100; i++) {
        uintptr_t got;
#ifdef __x86_64__
        __asm__ volatile("lea -128(%%rsp), %%rsp; pushf; push $0x200603; popf; mov $39, %%eax; syscall; pushf; pop %0;"
                         "popf; lea 128(%%rsp), %%rsp; cld"
                         : "=&r"(got)::"rax", "rcx", "r11", "cc", "memory");
#else
        __asm__ volatile("pushf; push $0x200603; popf; mov $20, %%eax; int $0x80; pushf; pop %0; popf; cld"
                         : "=&r"(got)::"eax", "cc", "memory");
#endif
        REQUIRE_MSG((got & 0x200603) == 0x200603, "after a system call 0x%lx", (long)got);
    }
}

#ifdef __x86_64__
/* 64-bit code calls 32-bit code through a far pointer and comes back; the 32-bit part faults, and makes system calls. */
static const uint8_t code32[] = {
    0x31, 0xc0,                         /* xor eax, eax */
    0x48,                               /* dec eax (REX.W in 64-bit code) */
    0x05, 0x02, 0x00, 0x00, 0x00,       /* add eax, 2 */
    0x89, 0x81, 0x00, 0x00, 0x00, 0x00, /* mov [ecx], eax: ecx points to a fresh page */
    0x48,                               /* dec eax */
    0x05, 0x05, 0x00, 0x00, 0x00,       /* add eax, 5 */
    0xcb,                               /* retf */
};
static void mode_switch(void)
{
    uint8_t *low =
        mmap(NULL, 4 * UT_PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    REQUIRE(low != MAP_FAILED);
    for (uint32_t i = 0; i < 200; i++) {
        memcpy(low, code32, sizeof code32);
        static struct {
            uint32_t offset;
            uint16_t selector;
        } __attribute__((packed)) target;
        target.offset = (uint32_t)(uintptr_t)low;
        target.selector = 0x23;
        uint32_t eax;
        uint8_t *data = low + 2 * UT_PAGE;
        madvise(data, UT_PAGE, MADV_DONTNEED);
        /* 64-bit programs start with a null DS: 32-bit code could not use it. */
        __asm__ volatile("mov $0x2b, %%edx; mov %%edx, %%ds; mov %%rsp, %%r15; lea (%3), %%rsp; lcall *%1;"
                         "mov %%r15, %%rsp; xor %%edx, %%edx; mov %%edx, %%ds"
                         : "=&a"(eax)
                         : "m"(target), "c"(data), "r"((uintptr_t)low + 2 * UT_PAGE - 64)
                         : "rbx", "rdx", "r15", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "memory", "cc");
        REQUIRE_MSG(eax == 5 && *(uint32_t *)data == 1, "round %u: eax 0x%x, [ecx] 0x%x", i, eax, *(uint32_t *)data);
    }
}
static void mode_switch_system_call(void)
{
    static const uint8_t code[] = {
        0xb8, 20,   0, 0, 0, /* mov eax, getpid */
        0xcd, 0x80,          /* int 80h */
        0x48,                /* dec eax (REX.W in 64-bit code) */
        0x05, 3,    0, 0, 0, /* add eax, 3 */
        0xcb,                /* retf */
    };
    uint8_t *low =
        mmap(NULL, 4 * UT_PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    REQUIRE(low != MAP_FAILED);
    memcpy(low, code, sizeof code);
    for (uint32_t i = 0; i < 200; i++) {
        static struct {
            uint32_t offset;
            uint16_t selector;
        } __attribute__((packed)) target;
        target.offset = (uint32_t)(uintptr_t)low;
        target.selector = 0x23;
        uint32_t eax;
        __asm__ volatile("mov %%rsp, %%r15; lea (%2), %%rsp; lcall *%1; mov %%r15, %%rsp"
                         : "=&a"(eax)
                         : "m"(target), "r"((uintptr_t)low + 2 * UT_PAGE - 64)
                         : "rbx", "rcx", "rdx", "r15", "r8", "r9", "r10", "r11", "memory", "cc");
        REQUIRE_MSG(eax == (uint32_t)getpid() + 2, "round %u: eax 0x%x", i, eax);
    }
}

/* The vsyscall page: three calls work if the kernel says that there is such a page, and fault otherwise. */
typedef long (*vsys_gettimeofday)(struct timeval *, void *);
typedef time_t (*vsys_time)(time_t *);
static void call_vsyscall(void *arg) { ((vsys_gettimeofday)0xffffffffff600000)(arg, NULL); }
static void read_vsyscall(void *arg) { (void)*(volatile uint8_t *)0xffffffffff600000; }
static void call_vsyscall_inside(void *arg) { ((vsys_time)0xffffffffff600410)(NULL); }
static void vsyscall(void)
{
    char line[256];
    bool executable = false, readable = false;
    FILE *f = fopen("/proc/self/maps", "r");
    while (f && fgets(line, sizeof line, f))
        if (strstr(line, "[vsyscall]")) {
            executable = strstr(line, "xp") != NULL;
            readable = strstr(line, " r-") != NULL;
        }
    fclose(f);
    for (int i = 0; i < 50; i++) {
        struct timeval tv = {0}, now;
        int sig = bt_catch(call_vsyscall, &tv, NULL);
        REQUIRE_MSG(sig == (executable ? 0 : SIGSEGV), "gettimeofday: signal %d", sig);
        gettimeofday(&now, NULL);
        if (executable) {
            REQUIRE(now.tv_sec - tv.tv_sec <= 1 && now.tv_sec >= tv.tv_sec);
            time_t t = ((vsys_time)0xffffffffff600400)(NULL);
            REQUIRE(now.tv_sec - t <= 1 && t - now.tv_sec <= 1);
        }
        sig = bt_catch(read_vsyscall, NULL, NULL);
        REQUIRE_MSG(sig == (readable ? 0 : SIGSEGV), "reading it: signal %d", sig);
        REQUIRE(bt_catch(call_vsyscall_inside, NULL, NULL) == SIGSEGV);
    }
}

static void segment_bases(void)
{
    if (!bt_cpu_has("fsgsbase"))
        bt_skip("no FSGSBASE");
    uint64_t fs, v;
    __asm__ volatile("rdfsbase %0" : "=r"(fs));
    for (uint64_t i = 0; i < 500; i++) {
        uint64_t want = i * 0x123456789 & 0x7fffffffffff;
        __asm__ volatile("wrgsbase %0" ::"r"(want));
        if (i % 4 == 0)
            sched_yield();
        __asm__ volatile("rdgsbase %0" : "=r"(v));
        REQUIRE_MSG(v == want, "GS base 0x%llx, not 0x%llx", (long long)v, (long long)want);
        /* FS: no C in between, the thread pointer is gone. */
        __asm__ volatile("wrfsbase %1; mov $39, %%eax; syscall; rdfsbase %0; wrfsbase %2"
                         : "=&r"(v)
                         : "r"(want), "r"(fs)
                         : "rax", "rcx", "r11", "memory");
        REQUIRE(v == want);
    }
    /* A selector load clears the base (Intel) or not (AMD, old); the null selector reads back. */
    uint16_t sel;
    __asm__ volatile("mov %1, %%gs; mov %%gs, %0" : "=r"(sel) : "r"(0));
    REQUIRE(sel == 0);
}
#endif

const struct bt_test u_cpu[] = {
    {"u-cpu-cpuid", cpuid_is_the_kernels},
    {"u-cpu-identity", cpuid_identity},
    {"u-cpu-tsc", tsc},
    {"u-cpu-number", cpu_number},
    {"u-cpu-flags", flags},
#ifdef __x86_64__
    {"u-cpu-mode-switch", mode_switch},
    {"u-cpu-mode-switch-call", mode_switch_system_call},
    {"u-cpu-vsyscall", vsyscall},
    {"u-cpu-segment-bases", segment_bases},
#endif
    {NULL, NULL},
};
