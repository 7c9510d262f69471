/* tests/user/guest/u_fpu.c - the FPU state of a process over system calls and switches to others: none lost, none leaked. What the monitor
 * leaves in user worlds shows here (docs/DIRECT.md, FPU state). */
#include "ut.h"
#include <pthread.h>
#include <sys/syscall.h>

static __thread uint8_t pattern[UT_XSAVE_BYTES] __attribute__((aligned(64)));
static __thread uint8_t expected[UT_XSAVE_BYTES] __attribute__((aligned(64)));
static __thread uint8_t got[UT_XSAVE_BYTES] __attribute__((aligned(64)));
static uint8_t dead[UT_XSAVE_BYTES] __attribute__((aligned(64))); /* XSTATE_BV 0: everything initial */

/* System calls that are made with the pattern in the registers. */
struct calls {
    unsigned long nr, arg[3], times;
    const void *in;
    void *out;
    long result; /* of the last one */
};

#ifdef __x86_64__
static void make(struct calls *c)
{
    register struct calls *at __asm__("rbx") = c;
    __asm__ volatile("mov %c[in](%%rbx), %%r8\n mov $0xe7, %%eax\n xor %%edx, %%edx\n xrstor (%%r8)\n"
                     "mov %c[times](%%rbx), %%r9\n"
                     "1: mov %c[nr](%%rbx), %%rax\n mov %c[arg](%%rbx), %%rdi\n mov %c[arg]+8(%%rbx), %%rsi\n"
                     "mov %c[arg]+16(%%rbx), %%rdx\n syscall\n dec %%r9\n jnz 1b\n mov %%rax, %c[result](%%rbx)\n"
                     "mov %c[out](%%rbx), %%r8\n mov $0xe7, %%eax\n xor %%edx, %%edx\n xsave (%%r8)\n"
                     : "+r"(at)
                     : [in] "i"(offsetof(struct calls, in)), [out] "i"(offsetof(struct calls, out)),
                       [times] "i"(offsetof(struct calls, times)), [nr] "i"(offsetof(struct calls, nr)),
                       [arg] "i"(offsetof(struct calls, arg)), [result] "i"(offsetof(struct calls, result))
                     : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r11", "memory", "cc");
}
#else
static void make(struct calls *c)
{
    register struct calls *at __asm__("esi") = c;
    __asm__ volatile("push %%ebx\n push %%edi\n"
                     "mov %c[in](%%esi), %%edi\n mov $0xe7, %%eax\n xor %%edx, %%edx\n xrstor (%%edi)\n"
                     "mov %c[times](%%esi), %%edi\n"
                     "1: mov %c[nr](%%esi), %%eax\n mov %c[arg](%%esi), %%ebx\n mov %c[arg]+4(%%esi), %%ecx\n"
                     "mov %c[arg]+8(%%esi), %%edx\n int $0x80\n dec %%edi\n jnz 1b\n mov %%eax, %c[result](%%esi)\n"
                     "mov %c[out](%%esi), %%edi\n mov $0xe7, %%eax\n xor %%edx, %%edx\n xsave (%%edi)\n"
                     "pop %%edi\n pop %%ebx\n"
                     : "+r"(at)
                     : [in] "i"(offsetof(struct calls, in)), [out] "i"(offsetof(struct calls, out)),
                       [times] "i"(offsetof(struct calls, times)), [nr] "i"(offsetof(struct calls, nr)),
                       [arg] "i"(offsetof(struct calls, arg)), [result] "i"(offsetof(struct calls, result))
                     : "eax", "ecx", "edx", "memory", "cc");
}
#endif

/* Leaves the FPU as a C program wants it. */
static void settle(void)
{
    *(uint32_t *)(dead + 24) = 0x1f80;
    __asm__ volatile("xrstor (%0)\n fninit" ::"r"(dead), "a"(0xe7), "d"(0) : "memory");
}

static long call_with(uint32_t seed, unsigned long times, long nr, unsigned long a, const void *b, unsigned long c)
{
    struct calls k = {(unsigned long)nr, {a, (unsigned long)b, c}, times, pattern, got, 0};
    ut_fill_image(pattern, seed);
    memset(expected, 0, sizeof expected);
    memset(got, 0, sizeof got);
    __asm__ volatile("xrstor (%0)\n xsave (%1)" ::"r"(pattern), "r"(expected), "a"(0xe7), "d"(0) : "memory");
    make(&k);
    settle();
    int at = ut_image_differs(expected, got);
    REQUIRE_MSG(at < 0, "seed %u: byte %d of the XSAVE image differs", seed, at);
    return k.result;
}

/* The test that counts the monitor's copies (fpu_lazy.sh) is this one. */
static void over_calls(void)
{
    if (!ut_xfeatures())
        bt_skip("no XSAVE");
    for (uint32_t i = 1; i <= 20; i++)
        REQUIRE(call_with(i, 2000, SYS_getppid, 0, NULL, 0) == getppid());
}

/* A byte goes round; whoever waits for it or passes it on has a pattern of its own in the registers. */
enum { RING = 4, ROUNDS = 300 };
static void in_ring(int (*fd)[2], unsigned me)
{
    uint8_t byte = 0;
    for (uint32_t i = 0; i < ROUNDS; i++) {
        if (me || i)
            REQUIRE(call_with(i * RING + me, 1, SYS_read, (unsigned long)fd[me][0], &byte, 1) == 1);
        byte++;
        REQUIRE(call_with(~(i * RING + me), 1, SYS_write, (unsigned long)fd[(me + 1) % RING][1], &byte, 1) == 1);
    }
}
static void over_switches(void)
{
    int fd[RING][2];
    pid_t child[RING];
    if (!ut_xfeatures())
        bt_skip("no XSAVE");
    for (unsigned i = 0; i < RING; i++)
        REQUIRE(pipe(fd[i]) == 0);
    for (unsigned i = 1; i < RING; i++) {
        child[i] = fork();
        REQUIRE(child[i] >= 0);
        if (child[i] == 0) {
            in_ring(fd, i);
            _exit(0);
        }
    }
    in_ring(fd, 0);
    for (unsigned i = 1; i < RING; i++)
        bt_wait(child[i]);
}

/* Threads share a world, and have registers of their own. */
static void *in_turns(void *arg)
{
    uint32_t me = (uint32_t)(uintptr_t)arg;
    for (uint32_t i = 0; i < 1000; i++)
        REQUIRE(call_with(3 * i + me, 1, SYS_sched_yield, 0, NULL, 0) == 0);
    return NULL;
}
static void over_threads(void)
{
    pthread_t t[3];
    if (!ut_xfeatures())
        bt_skip("no XSAVE");
    for (uintptr_t i = 0; i < 3; i++)
        REQUIRE(pthread_create(&t[i], NULL, in_turns, (void *)i) == 0);
    for (unsigned i = 0; i < 3; i++)
        REQUIRE(pthread_join(t[i], NULL) == 0);
}

/* A child has its parent's registers, a program that was just started has none of them. */
static void dump(void)
{
    memset(got, 0, sizeof got);
    __asm__ volatile("xsave (%0)" ::"r"(got), "a"(0xe7), "d"(0) : "memory");
}
__attribute__((constructor)) static void when_started(void)
{
    const char *fd = getenv("UT_FPU_DUMP");
    if (!fd)
        return;
    dump();
    _exit(write(atoi(fd), got, sizeof got) == sizeof got ? 0 : 1);
}
static void of_children(void)
{
    if (!ut_xfeatures())
        bt_skip("no XSAVE");
    for (uint32_t i = 1; i <= 50; i++) {
        long parent = getpid(), child = call_with(i, 1, SYS_fork, 0, NULL, 0);
        REQUIRE(child >= 0);
        if (getpid() != parent)
            _exit(0);
        bt_wait((pid_t)child);
    }
}

/* Words of eight bytes of the pattern that are in the image too. Small ones may be anybody's. */
static unsigned words_shared(const uint8_t *image)
{
    unsigned n = 0;
    for (unsigned i = 160; i + 8 <= UT_XSAVE_BYTES; i += 8)
        for (unsigned k = 160; k + 8 <= UT_XSAVE_BYTES; k += 8) {
            uint64_t w;
            memcpy(&w, pattern + k, 8);
            n += w >> 32 && (i < 416 || i >= 576) && (k < 416 || k >= 576) && !memcmp(image + i, &w, 8);
        }
    return n;
}
static void of_new_programs(void)
{
    static char self[] = "/proc/self/exe", name[] = "user-test", var[32];
    static char *args[] = {name, NULL}, *env[] = {var, NULL};
    int fd[2];
    if (!ut_xfeatures())
        bt_skip("no XSAVE");
    REQUIRE(pipe(fd) == 0);
    snprintf(var, sizeof var, "UT_FPU_DUMP=%d", fd[1]);
    for (uint32_t i = 1; i <= 10; i++) {
        ut_fill_image(pattern, i);
        pid_t child = vfork();
        if (child == 0) {
            struct calls k = {
                SYS_execve, {(unsigned long)self, (unsigned long)args, (unsigned long)env}, 1, pattern, got, 0};
            make(&k);
            _exit(2);
        }
        bt_wait(child);
        REQUIRE(read(fd[0], got, sizeof got) == sizeof got);
        REQUIRE_MSG(words_shared(got) == 0, "round %u: registers of the caller in a new program", i);
        REQUIRE(*(uint16_t *)got == 0x37f && *(uint32_t *)(got + 24) == 0x1f80);
    }
}

const struct bt_test u_fpu[] = {
    {"u-fpu-calls", over_calls},     {"u-fpu-switches", over_switches},       {"u-fpu-threads", over_threads},
    {"u-fpu-children", of_children}, {"u-fpu-new-programs", of_new_programs}, {NULL, NULL},
};
