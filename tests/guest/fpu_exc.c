/* tests/guest/fpu_exc.c - floating-point exceptions: #MF when it becomes pending and when it is taken, #XM, masks, state. */
#include "rt.h"

static uint8_t area[512] __attribute__((aligned(16)));
static uint16_t fsw(void)
{
    uint16_t x;
    __asm__ volatile("fnstsw %0" : "=a"(x));
    return x;
}
static void fcw(uint16_t x) { __asm__ volatile("fldcw %0" : : "m"(x)); }

static void x87(void)
{
    __asm__ volatile("fninit");
    rt_printf("fninit: sw %04x\n", fsw());
    TRY("masked division by zero", __asm__ volatile("fld1\n fldz\n fdivrp"));
    rt_printf("  sw %04x\n", fsw() & 0xff);
    __asm__ volatile("fninit");
    fcw(0x37b); /* unmask ZE */
    TRY("unmasked: the next instruction faults", __asm__ volatile("fld1\n fldz\n fdivrp\n" AT "fld1"));
    rt_printf("  sw %04x\n", fsw() & 0x80ff);
    TRY("fwait", __asm__ volatile(AT "fwait"));
    TRY("fnstsw, fnclex do not", uint16_t s; __asm__ volatile("fnstsw %0\n fnclex\n fwait"
                                                              : "=a"(s));
        rt_printf("%04x ", s & 0x80ff));
    TRY("integer code does not", __asm__ volatile("fld1\n fldz\n fdivrp\n nop\n nop\n fnclex"));
    TRY("fninit does not", __asm__ volatile("fld1\n fldz\n fdivrp\n fninit"));
    fcw(0x37e);
    TRY("invalid", __asm__ volatile("fldz\n fldz\n fdivrp\n" AT "fldz"));
    __asm__ volatile("fnclex\n fninit");
    TRY("pending through fldcw", __asm__ volatile("fldz\n fldz\n fdivrp")); /* IE set, masked */
    static const uint16_t unmask = 0x37e;
    TRY("unmasking makes it pending", __asm__ volatile("fldcw %0\n" AT "fldz" : : "m"(unmask)));
    __asm__ volatile("fninit");
    TRY("stack overflow", uint16_t u = 0x37e;
        __asm__ volatile("fldcw %0\n fldz\n fldz\n fldz\n fldz\n fldz\n fldz\n fldz\n fldz\n fldz\n" AT "fwait"
                         :
                         : "m"(u)));
    rt_printf("  sw %04x\n", fsw() & 0x8241);
    __asm__ volatile("fninit");
    write_cr0(read_cr0() & ~0x20ul);
    TRY("NE=0: FERR, no #MF", uint16_t u = 0x37b; __asm__ volatile("fldcw %0\n fld1\n fldz\n fdivrp\n fnclex\n"
                                                                   :
                                                                   : "m"(u)));
    write_cr0(read_cr0() | 0x20);
    __asm__ volatile("fninit");
}

static void state(void)
{
    struct {
        uint32_t cw, sw, tw, ip, cs, dp, ds;
    } env;
    static double two = 2.0;
    __asm__ volatile("fninit\n fldl %1\n fnstenv %0" : "=m"(env) : "m"(two) : "memory");
    rt_printf("fnstenv: cw %04x sw %04x tw %04x\n", env.cw & 0xffff, env.sw & 0xffff, env.tw & 0xffff);
    __asm__ volatile("fninit\n fld1\n fldpi\n fxsave %0\n fninit" : "=m"(area) : : "memory");
    rt_printf("fxsave: cw %02x%02x sw %02x%02x tag %02x\n", area[1], area[0], area[3], area[2], area[4]);
    static uint8_t first[512] __attribute__((aligned(16)));
    memcpy(first, area, sizeof first);
    /* Instruction pointers are the guest's, in every form (SDM 1 8.1.8, figures 8-9 and 8-11). */
    uint32_t want, fx[2];
    static struct {
        uint32_t env[7];
        uint8_t st[80];
    } save;
    static uint16_t env16[7];
    __asm__ volatile("fninit\n mov $1f, %0\n1: fldl %1\n fnstenv %2" : "=&r"(want), "+m"(two), "=m"(env) : : "memory");
    rt_printf("fnstenv: instruction pointer %s\n", env.ip == want ? "ok" : "bad");
    __asm__ volatile("fninit\n mov $1f, %0\n1: fldpi\n fxsave %2\n data16 fnstenv %1\n"
                     : "=&r"(want), "=m"(env16), "=m"(area)
                     :
                     : "memory");
    rt_printf("16-bit: %s\n", env16[3] == (uint16_t)want && env16[1] == (uint16_t)(7 << 11) ? "ok" : "bad");
    memcpy(fx, area + 8, 8);
    rt_printf("fxsave: %s\n", fx[0] == want ? "ok" : "bad");
    __asm__ volatile("mov $1f, %0\n1: fld1\n fnsave %1\n" : "=&r"(want), "=m"(save) : : "memory");
    rt_printf("fnsave: %s sw %04x st(1) %02x%02x\n", save.env[3] == want ? "ok" : "bad", save.env[1] & 0xffff,
              save.st[19], save.st[18]);
    __asm__ volatile("fnstenv %0\n" : "=m"(env) : : "memory");
    rt_printf("  and then: cw %04x ip %x\n", env.cw & 0xffff, env.ip);
    /* What was loaded is what is stored. */
    save.env[3] = 0x12345678;
    __asm__ volatile("frstor %1\n fnstenv %0\n fninit" : "=m"(env) : "m"(save) : "memory");
    rt_printf("frstor: ip %x\n", env.ip);
    uint64_t m;
    uint32_t mm;
    __asm__ volatile("fxrstor %1\n fistpll %0" : "=m"(m) : "m"(first));
    rt_printf("fxrstor: pi is %llu, ", (unsigned long long)m);
    __asm__ volatile("fistpll %0\n fninit" : "=m"(m));
    rt_printf("one is %llu\n", (unsigned long long)m);
    __asm__ volatile("movl $0x12345678, %%eax\n movd %%eax, %%mm3\n movd %%mm3, %0\n fnstenv %1\n emms"
                     : "=r"(mm), "=m"(env)
                     :
                     : "eax");
    rt_printf("mmx: %08x tw %04x\n", mm, env.tw & 0xffff);
}

static void sse(void)
{
    uint32_t csr;
    write_cr4(read_cr4() | 0x200);
    __asm__ volatile("stmxcsr %0" : "=m"(csr));
    rt_printf("mxcsr %x\n", csr & 0xffff);
    static const uint32_t unmasked = 0x1d80, plain = 0x1f80;
    static const float one = 1, zero;
    __asm__ volatile("ldmxcsr %0" : : "m"(unmasked));
    TRY("divss by zero without OSXMMEXCPT", __asm__ volatile("movss %0, %%xmm0\n" AT "divss %1, %%xmm0"
                                                             :
                                                             : "m"(one), "m"(zero)));
    write_cr4(read_cr4() | 0x400);
    __asm__ volatile("ldmxcsr %0" : : "m"(unmasked));
    TRY("divss by zero", __asm__ volatile("movss %0, %%xmm0\n" AT "divss %1, %%xmm0" : : "m"(one), "m"(zero)));
    __asm__ volatile("stmxcsr %0" : "=m"(csr));
    rt_printf("  mxcsr %x\n", csr & 0xffff);
    __asm__ volatile("ldmxcsr %0" : : "m"(plain));
    TRY("divss by zero, masked", __asm__ volatile("movss %0, %%xmm0\n divss %1, %%xmm0" : : "m"(one), "m"(zero)));
    __asm__ volatile("stmxcsr %0" : "=m"(csr));
    rt_printf("  mxcsr %x\n", csr & 0xffff);
    __asm__ volatile("ldmxcsr %0" : : "m"(plain));
    /* Registers keep their values over exceptions and interrupts. */
    uint64_t lo, hi;
    static uint8_t v[16] __attribute__((aligned(16))) = "registers stay";
    __asm__ volatile("movaps %0, %%xmm5" : : "m"(v));
    TRY_ASM("an exception in between", "ud2", "a"(0));
    static uint64_t out[2] __attribute__((aligned(16)));
    __asm__ volatile("movaps %%xmm5, %0" : "=m"(out));
    lo = out[0], hi = out[1];
    rt_printf("xmm5 %016llx %016llx\n", (unsigned long long)hi, (unsigned long long)lo);
}

int main(void)
{
    write_cr0((read_cr0() & ~0xcul) | 0x22);
    x87();
    state();
    sse();
    return 0;
}
