/* tests/boot/guest/t_fpu.c - x87, SSE, AVX, AVX-512: results, and registers kept across context switches and signals. */
#include "bt.h"
#include <fenv.h>
#include <math.h>
#include <sched.h>

#ifdef __x86_64__
#define N_REGS 16
#define YIELD "mov $24, %%eax; syscall"
#define YIELD_CLOBBERS "rax", "rcx", "r11"
#define UPPER(x) x
#else
#define N_REGS 8
#define YIELD "mov $158, %%eax; int $0x80"
#define YIELD_CLOBBERS "eax", "ecx"
#define UPPER(x)
#endif
#define SPIN "mov $3000, %%ecx; 1: dec %%ecx; jnz 1b;"

/* Loads all registers from in, gives the CPU away and burns some time, stores them to out. */
#define LOAD(op, r, n, w) op " " #n "*" w "(%0), %%" r #n ";"
#define STORE(op, r, n, w) op " %%" r #n ", " #n "*" w "(%1);"
#define EACH8(M, op, r, w)                                                                                             \
    M(op, r, 0, w)                                                                                                     \
    M(op, r, 1, w) M(op, r, 2, w) M(op, r, 3, w) M(op, r, 4, w) M(op, r, 5, w) M(op, r, 6, w) M(op, r, 7, w)
#define EACH16(M, op, r, w)                                                                                            \
    EACH8(M, op, r, w)                                                                                                 \
    UPPER(M(op, r, 8, w) M(op, r, 9, w) M(op, r, 10, w) M(op, r, 11, w) M(op, r, 12, w) M(op, r, 13, w)                \
              M(op, r, 14, w) M(op, r, 15, w))

static void sse_round(const void *in, void *out)
{
    __asm__ volatile(EACH16(LOAD, "movups", "xmm", "16") YIELD ";" SPIN EACH16(STORE, "movups", "xmm", "16")::"r"(in),
                     "r"(out)
                     : YIELD_CLOBBERS, "memory", "cc");
}
__attribute__((target("avx"))) static void avx_round(const void *in, void *out)
{
    __asm__ volatile(EACH16(LOAD, "vmovups", "ymm", "32") YIELD
                     ";" SPIN EACH16(STORE, "vmovups", "ymm", "32") "vzeroupper" ::"r"(in),
                     "r"(out)
                     : YIELD_CLOBBERS, "memory", "cc");
}
__attribute__((target("avx512f"))) static void avx512_round(const void *in, void *out)
{
    __asm__ volatile(EACH16(LOAD, "vmovups", "zmm", "64") YIELD
                     ";" SPIN EACH16(STORE, "vmovups", "zmm", "64") "vzeroupper" ::"r"(in),
                     "r"(out)
                     : YIELD_CLOBBERS, "memory", "cc");
}
static void x87_round(const void *in, void *out)
{
    __asm__ volatile("fldl 0(%0); fldl 8(%0); fldl 16(%0); fldl 24(%0); fldl 32(%0); fldl 40(%0);" YIELD ";" SPIN
                     "fstpl 40(%1); fstpl 32(%1); fstpl 24(%1); fstpl 16(%1); fstpl 8(%1); fstpl 0(%1);" ::"r"(in),
                     "r"(out)
                     : YIELD_CLOBBERS, "memory", "cc");
}

static void ignore(int sig) {}

/* Six processes with different register contents take turns; one of them is also interrupted by signals. */
static void keep_registers(void (*round)(const void *, void *), size_t bytes, bool doubles)
{
    pid_t child[6];
    for (int k = 0; k < 6; k++) {
        child[k] = fork();
        if (child[k])
            continue;
        static uint8_t in[16 * 64], out[16 * 64];
        uint32_t s = 1234567u * (unsigned)(k + 1);
        signal(SIGUSR1, ignore);
        for (int i = 0; i < 150; i++) {
            for (size_t j = 0; j < bytes; j++)
                in[j] = (uint8_t)bt_random(&s);
            for (size_t j = 0; doubles && j < bytes / 8; j++)
                ((double *)in)[j] = (double)bt_random(&s) / 3.0;
            if (k == 0 && i % 10 == 0)
                raise(SIGUSR1);
            round(in, out);
            REQUIRE_MSG(!memcmp(in, out, bytes), "process %d, turn %d: registers changed", k, i);
        }
        _exit(0);
    }
    for (int k = 0; k < 6; k++)
        bt_wait(child[k]);
}

static void keep_x87(void) { keep_registers(x87_round, 48, true); }
static void keep_sse(void) { keep_registers(sse_round, N_REGS * 16, false); }
/* The widest registers that the machine has. */
static void keep_avx(void)
{
    if (bt_cpu_has("avx512f"))
        keep_registers(avx512_round, N_REGS * 64, false);
    else if (bt_cpu_has("avx"))
        keep_registers(avx_round, N_REGS * 32, false);
    else
        bt_skip("no AVX");
}

static void results(void)
{
    /* Sums that are exact in binary floating point whatever the order of evaluation. */
    volatile double third = 1.0, sum = 0;
    for (int i = 1; i <= 1000; i++)
        sum += i * 0.25;
    third /= 3;
    REQUIRE(sum == 125125.0);
    REQUIRE(third * 3 == 1.0 && third > 0.3333333333333333 - 1e-16);
    volatile double two = 2, big = 1e300;
    REQUIRE(fabs(sqrt(two) - 1.41421356237309504880) < 1e-15);
    REQUIRE(isinf(big * big) && isnan(big * big - big * big));
    REQUIRE(fabs(sin(0.5) - 0.479425538604203) < 1e-14 && fabs(exp(1.0) - 2.718281828459045) < 1e-14);
    volatile long double l = 1.0L;
    for (int i = 0; i < 60; i++)
        l /= 2;
    REQUIRE(1.0L + l > 1.0L); /* 64 bits of mantissa: x87 */
}

__attribute__((target("avx"))) static void avx_results(void)
{
    if (!bt_cpu_has("avx"))
        bt_skip("no AVX");
    typedef float v8 __attribute__((vector_size(32)));
    v8 a = {1, 2, 3, 4, 5, 6, 7, 8}, b = a;
    for (int i = 0; i < 10; i++) {
        __asm__ volatile("vaddps %1, %0, %0" : "+x"(b) : "x"(a));
        sched_yield();
    }
    for (int i = 0; i < 8; i++)
        REQUIRE(b[i] == 11.0f * (float)(i + 1));
}

/* Rounding mode and exception masks belong to the process and its children. */
static void divide_rounded(int mode, float want)
{
    volatile float one = 1, three = 3, third;
    fesetround(mode);
    for (int i = 0; i < 200; i++) {
        sched_yield();
        third = one / three;
        REQUIRE(fegetround() == mode && third == want);
    }
}
static void control_words(void)
{
    fesetround(FE_UPWARD);
    pid_t child = fork();
    if (child == 0) {
        REQUIRE(fegetround() == FE_UPWARD);
        divide_rounded(FE_DOWNWARD, 0x1.555554p-2f);
        _exit(0);
    }
    divide_rounded(FE_UPWARD, 0x1.555556p-2f);
    bt_wait(child);
}

static void do_trap(void *arg)
{
    volatile double zero = 0, one = 1;
    feenableexcept(FE_DIVBYZERO);
    volatile double bad = one / zero;
    (void)bad;
    volatile long double lzero = 0, lone = 1;
    volatile long double lbad = lone / lzero;
    (void)lbad;
    __asm__ volatile("fwait");
}
static void exceptions(void)
{
    siginfo_t info;
    for (int i = 0; i < 20; i++) {
        REQUIRE(bt_catch(do_trap, NULL, &info) == SIGFPE && info.si_code == FPE_FLTDIV);
        feclearexcept(FE_ALL_EXCEPT);
    }
}

const struct bt_test bt_fpu[] = {
    {"fp-results", results},       {"fp-avx-results", avx_results},
    {"fp-keep-x87", keep_x87},     {"fp-keep-sse", keep_sse},
    {"fp-keep-avx", keep_avx},     {"fp-control-words", control_words},
    {"fp-exceptions", exceptions}, {NULL, NULL},
};
