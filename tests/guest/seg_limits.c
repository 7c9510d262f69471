/* tests/guest/seg_limits.c - accesses through segments with limits, types, bases and 16-bit stacks. QEMU checks neither
 * limits nor types of data accesses; the expected file follows SDM 3A 5.3 and 5.5. */
#include "rt.h"

#define MEM 0x300000u
enum {
    F_SMALL = SEL_FREE, /* base MEM, limit 0xfff */
    F_RO = F_SMALL + 8, /* the same, read-only */
    F_XR = F_RO + 8,    /* the same, readable code */
    F_XO = F_XR + 8,    /* flat execute-only code */
    F_DOWN = F_XO + 8,  /* base MEM, expand-down, limit 0xfff, 32-bit */
    F_DOWN16 = F_DOWN + 8,
    F_ZERO = F_DOWN16 + 8, /* limit 0 */
    F_HIGH = F_ZERO + 8,   /* base 0xfffff000, 4 GiB */
    F_SS16 = F_HIGH + 8,   /* base 0, 64 KiB, 16-bit stack */
    F_C16 = F_SS16 + 8,    /* 16-bit code, base 0x200000 */
    F_CSMALL = F_C16 + 8,  /* 32-bit code, base 0x200000, limit 0xff */
};

static void build(void)
{
    rt_gdt[F_SMALL / 8] = rt_desc(MEM, 0xfff, 0x4092);
    rt_gdt[F_RO / 8] = rt_desc(MEM, 0xfff, 0x4090);
    rt_gdt[F_XR / 8] = rt_desc(MEM, 0xfff, 0x409a);
    rt_gdt[F_XO / 8] = rt_desc(0, 0xfffff, 0xc098);
    rt_gdt[F_DOWN / 8] = rt_desc(MEM, 0xfff, 0x4096);
    rt_gdt[F_DOWN16 / 8] = rt_desc(MEM, 0xfff, 0x0096);
    rt_gdt[F_ZERO / 8] = rt_desc(MEM, 0, 0x4092);
    rt_gdt[F_HIGH / 8] = rt_desc(0xfffff000, 0xfffff, 0xc092);
    rt_gdt[F_SS16 / 8] = rt_desc(0, 0xffff, 0x0092);
    rt_gdt[F_C16 / 8] = rt_desc(0x200000, 0xffff, 0x009a);
    rt_gdt[F_CSMALL / 8] = rt_desc(0x200000, 0xff, 0x409a);
    for (unsigned i = 0; i < 0x4000; i++)
        ((volatile uint32_t *)MEM)[i] = 0x1000000 + i * 4;
}

/* Everything through FS, so that C is not disturbed. */
#define USE(sel) __asm__ volatile("movl %0, %%fs" : : "r"(sel))

static void limits(const char *name, unsigned sel)
{
    static const uint32_t off[] = {0, 0xffc, 0xffd, 0xfff, 0x1000, 0xfffc, 0xfffd, 0xffff, 0x10000};
    for (unsigned i = 0; i < sizeof off / sizeof off[0]; i++) {
        USE(sel);
        rt_printf("%s %05x read ", name, off[i]);
        TRY_ASM("dword", "movl %%fs:(%%ecx), %%eax", "c"(off[i]));
        USE(sel);
        rt_printf("%s %05x write ", name, off[i]);
        TRY_ASM("byte", "movb %%al, %%fs:(%%ecx)", "c"(off[i]), "a"(0));
    }
}

static void operations(void)
{
    unsigned sel = F_SMALL;
    USE(sel);
    TRY_ASM("rmw across the limit", "addl $1, %%fs:0xffe", "a"(0));
    USE(sel);
    TRY_ASM("xchg across the limit", "xchgl %%eax, %%fs:0xffd", "a"(0));
    USE(sel);
    TRY_ASM("lock inc beyond", "lock incl %%fs:0x1000", "a"(0));
    USE(sel);
    TRY_ASM("push mem beyond", "pushl %%fs:0x1000", "a"(0));
    USE(sel);
    TRY_ASM("cmpxchg8b across", "cmpxchg8b %%fs:0xffc", "a"(0), "d"(0), "b"(0), "c"(0));
    USE(sel);
    TRY_ASM("bt beyond", "btl %%eax, %%fs:0", "a"(0x8000));
    USE(sel);
    TRY_ASM("bt inside", "btl %%eax, %%fs:0", "a"(0x7fff));
    USE(sel);
    TRY_ASM("bt negative", "btl %%eax, %%fs:0x10", "a"(-1));
    USE(sel);
    TRY_ASM("bt below zero", "btl %%eax, %%fs:0", "a"(-1));
    USE(sel);
    TRY_ASM("lodsb beyond", "lodsb %%fs:(%%esi), %%al", "S"(0x1000));
    USE(sel);
    TRY_ASM("xlat beyond", "xlat %%fs:(%%ebx)", "b"(0xff0), "a"(0x10));
    USE(sel);
    TRY_ASM("lea checks nothing", ".byte 0x64, 0x8d, 0x05, 0, 0, 0x10, 0", "a"(0));
    USE(sel);
    TRY_ASM("far pointer across", "lgs %%fs:0xffb, %%eax", "a"(0));
    USE(sel);
    TRY_ASM("jmp through memory beyond", "jmpl *%%fs:0xffd", "a"(0));
    sel = F_RO;
    USE(sel);
    TRY_ASM("read-only: cmpxchg that fails still writes", "cmpxchgl %%ecx, %%fs:0", "a"(0), "c"(0));
    USE(sel);
    TRY_ASM("read-only: test", "testl %%eax, %%fs:0", "a"(0));
    USE(sel);
    TRY_ASM("read-only: inc", "incl %%fs:0", "a"(0));
    USE(sel);
    TRY_ASM("read-only: bts", "btsl $1, %%fs:0", "a"(0));
    USE(sel);
    TRY_ASM("read-only: setc", "setc %%fs:0", "a"(0));
    USE(sel);
    TRY_ASM("read-only: pop", "pushl $0\n popl %%fs:0\n", "a"(0));
}

static void bases(void)
{
    uint32_t x;
    USE(F_SMALL);
    __asm__ volatile("movl %%fs:0x10, %0" : "=r"(x));
    rt_printf("base added: %08x\n", x);
    USE(F_HIGH);
    __asm__ volatile("movl %%fs:%1, %0" : "=r"(x) : "m"(*(uint32_t *)(MEM + 0x1000)));
    rt_printf("base wraps at 4 GiB: %08x\n", x);
    __asm__ volatile("movw %%cx, %%gs\n movl %%gs:(%%bx), %0" : "=r"(x) : "c"(F_SMALL), "b"(0xabc0020));
    rt_printf("16-bit address in 32-bit code: %08x\n", x);
    __asm__ volatile("movl %%gs:0x10(%%bx,%%si), %0" : "=r"(x) : "b"(0xfff0), "S"(0x20));
    rt_printf("16-bit address wraps at 64 KiB: %08x\n", x);
    __asm__ volatile("movl %0, %%gs" : : "r"(SEL_KDATA));
}

/* A 16-bit stack segment: SP wraps, the upper half of ESP stays. */
static volatile uint32_t s16_before __attribute__((used)), s16_top __attribute__((used)),
    s16_popped __attribute__((used)), s16_after __attribute__((used));
static void stack16(void)
{
    __asm__ volatile("movl %%esp, %%esi\n"
                     "movl %0, %%ss\n movl $0xabcd0000, %%esp\n"
                     "pushl $0x12345678\n movl %%esp, s16_before\n"
                     "movl 0xfffc, %%eax\n movl %%eax, s16_top\n"
                     "popl s16_popped\n movl %%esp, s16_after\n"
                     "movl %1, %%ss\n movl %%esi, %%esp"
                     :
                     : "r"(F_SS16), "r"(SEL_KDATA)
                     : "eax", "esi", "memory");
    rt_printf("16-bit stack: esp %08x [fffc]=%08x popped %08x esp %08x\n", s16_before, s16_top, s16_popped, s16_after);
}

extern uint8_t code16[], code16_end[], code_small[], code_small_end[];
__asm__(".text\n"
        "code16: .code16\n"
        "movl $0x11112222, %eax\n movw $0x3333, %ax\n pushw %ax\n popw %bx\n"
        "movw $0x1234, %cx\n loop 1f\n 1: jcxz 2f\n 2:\n"
        "lretl\n"
        "code16_end: .code32\n"
        "code_small: jmp 1f\n .skip 0xf8\n 1: nop\n nop\n nop\n nop\n nop\n nop\n nop\n lret\n"
        "code_small_end:\n");

static void code(void)
{
    /* Execute-only code runs, but cannot be read through CS. */
    TRY("execute-only code",
        __asm__ volatile("lcall %0, $1f\n jmp 2f\n 1: nop\n" AT "movl %%cs:0x300000, %%eax\n lret\n 2:"
                         :
                         : "i"(F_XO)
                         : "eax", "memory"));
    TRY("readable code", __asm__ volatile("lcall %0, $1f\n jmp 2f\n 1: nop\n" AT "movl %%cs:0x300000, %%eax\n lret\n 2:"
                                          :
                                          : "i"(SEL_KCODE)
                                          : "eax", "memory"));
    TRY("write through CS", __asm__ volatile(AT "movl %%eax, %%cs:0x300000" : : : "memory"));
    uint32_t a, b, c;
    memcpy((void *)0x200000, code16, (size_t)(code16_end - code16));
    __asm__ volatile("lcall %3, $0" : "=a"(a), "=b"(b), "=c"(c) : "i"(F_C16) : "memory");
    rt_printf("16-bit code: eax %08x bx %04x cx %04x\n", a, b & 0xffff, c & 0xffff);
    memcpy((void *)0x200000, code_small, (size_t)(code_small_end - code_small));
    TRY_ASM("code runs over its limit", "lcall %0, $0", "i"(F_CSMALL));
    rt_printf("faulting eip %lx\n", rt_exc.ip);
    TRY_ASM("far call beyond the limit", "lcall %0, $0x100", "i"(F_CSMALL));
    *(volatile uint8_t *)0x2000fe = 0xeb; /* jmp short beyond the limit */
    *(volatile uint8_t *)0x2000ff = 0x10;
    TRY_ASM("short jump beyond the limit", "lcall %0, $0xfe", "i"(F_CSMALL));
    rt_printf("faulting eip %lx\n", rt_exc.ip);
    *(volatile uint8_t *)0x2000ff = 0xb8; /* mov $imm32 cut off by the limit */
    TRY_ASM("instruction across the limit", "lcall %0, $0xff", "i"(F_CSMALL));
    rt_printf("faulting eip %lx\n", rt_exc.ip);
}

int main(void)
{
    build();
    limits("up", F_SMALL);
    limits("down", F_DOWN);
    limits("down16", F_DOWN16);
    limits("read-only", F_RO);
    limits("code", F_XR);
    limits("null", 0);
    operations();
    build();
    bases();
    stack16();
    code();
    return 0;
}
