/* tests/guest/legacy_insns.c - 32-bit instructions that are gone from 64-bit mode or have a life of their own: BCD, PUSHA,
 * ENTER, XLAT, SALC, LOOP, segment pushes, stack forms of every size. */
#include "rt.h"

static uint32_t out[12] __attribute__((used));

/* Adjustments: AX and CF, AF as named. */
#define BCD(name, insn, ax, fl)                                                                                        \
    do {                                                                                                               \
        uint32_t a_ = (ax), f_ = (fl) | 2;                                                                             \
        __asm__ volatile("pushl %1\n popfl\n " insn "\n pushfl\n popl %1" : "+a"(a_), "+r"(f_) : : "cc");              \
        rt_printf("%s %04x cf %u af %u: %04x cf %u af %u\n", name, (ax), (fl)&1, (fl) >> 4 & 1, a_ & 0xffff, f_ & 1,   \
                  f_ >> 4 & 1);                                                                                        \
    } while (0)

static void bcd(void)
{
    BCD("daa", "daa", 0x9a, 0);
    BCD("daa", "daa", 0x9a, 1);
    BCD("daa", "daa", 0x33, 0x10);
    BCD("das", "das", 0x9f, 0);
    BCD("das", "das", 0x05, 0x10);
    BCD("das", "das", 0x33, 1);
    BCD("aaa", "aaa", 0x010b, 0);
    BCD("aaa", "aaa", 0x02f4, 0x10);
    BCD("aaa", "aaa", 0x00fa, 0);
    BCD("aas", "aas", 0x0205, 0x10);
    BCD("aas", "aas", 0x0001, 0x10);
    BCD("aas", "aas", 0x0109, 0);
    uint32_t a = 0x00ff, f;
    __asm__ volatile("aam\n pushfl\n popl %1" : "+a"(a), "=r"(f));
    rt_printf("aam 10: %04x sf %u zf %u pf %u\n", a, f >> 7 & 1, f >> 6 & 1, f >> 2 & 1);
    a = 0x0204;
    __asm__ volatile("aad" : "+a"(a));
    rt_printf("aad 10: %04x\n", a);
    a = 0x12ff;
    __asm__ volatile("aam $16" : "+a"(a));
    rt_printf("aam 16: %04x\n", a);
    __asm__ volatile("stc\n .byte 0xd6" : "=a"(a));
    rt_printf("salc %02x\n", a & 0xff);
}

static void stack(void)
{
    __asm__ volatile("movl $0xa0, %%eax\n movl $0xc0, %%ecx\n movl $0xd0, %%edx\n pushal\n movl (%%esp), %%eax\n movl "
                     "%%eax, out\n movl 28(%%esp), %%eax\n movl %%eax, out+4\n"
                     "movl 12(%%esp), %%eax\n subl %%esp, %%eax\n movl %%eax, out+8\n xorl %%ecx, %%ecx\n popal\n movl "
                     "%%ecx, out+12\n"
                     :
                     :
                     : "eax", "ecx", "edx", "memory");
    rt_printf("pusha: eax %x, esp pushed is esp before %d, ecx back %x\n", out[1], out[2] == 32, out[3]);
    __asm__ volatile("movl %%esp, out\n pushaw\n movl %%esp, out+4\n popaw\n movl %%esp, out+8" : : : "memory");
    rt_printf("pusha 16: %x, popa 16: %x\n", out[0] - out[1], out[0] - out[2]);
    __asm__ volatile("movl %%esp, out\n pushl %%esp\n popl out+4\n pushl $0x1234\n popl (%%esp)\n" : : : "memory");
    rt_printf("push esp pushes the old one %d\n", out[0] == out[1]);
    __asm__ volatile("movl $0x99, -8(%%esp)\n movl %%esp, %%ecx\n pushl $0x77\n popl -4(%%esp)\n movl -8(%%ecx), "
                     "%%eax\n movl %%eax, out\n movl -4(%%ecx), %%eax\n movl %%eax, out+4"
                     :
                     :
                     : "eax", "ecx", "memory");
    rt_printf("pop -4(esp) uses the increased esp: %x %x\n", out[0], out[1]);
    __asm__ volatile(
        "movl %%esp, %%ecx\n movl %%esp, %%eax\n pushl %%eax\n popl %%esp\n subl %%esp, %%ecx\n movl %%ecx, out"
        :
        :
        : "eax", "ecx", "memory");
    rt_printf("pop esp: %x\n", out[0]);
    __asm__ volatile("movl %%esp, %%ecx\n pushw $0x1234\n movl %%esp, %%edx\n popw %%ax\n subl %%edx, %%ecx\n movl "
                     "%%ecx, out\n movw %%ax, out+4"
                     :
                     :
                     : "eax", "ecx", "edx", "memory");
    rt_printf("pushw moves esp by %x: %04x\n", out[0], out[1] & 0xffff);
    __asm__ volatile("movl $-1, -4(%%esp)\n pushl %%ds\n popl %%eax\n movl %%eax, out\n movl %%esp, %%ecx\n pushw "
                     "%%ds\n subl %%esp, %%ecx\n movl %%ecx, out+4\n popw %%ax"
                     :
                     :
                     : "eax", "ecx", "memory");
    rt_printf("push ds %x, 16-bit moves esp by %x\n", out[0] & 0xffff, out[1]);
    __asm__ volatile(
        "movl %%ebp, %%esi\n movl %%esp, %%edi\n enter $16, $0\n movl %%edi, %%eax\n subl %%esp, %%eax\n movl %%eax, "
        "out\n subl %%ebp, %%edi\n movl %%edi, out+4\n leave\n cmpl %%ebp, %%esi\n sete %%al\n movb %%al, out+8"
        :
        :
        : "eax", "esi", "edi", "memory");
    rt_printf("enter 16, 0: esp -%x ebp -%x, leave restores %u\n", out[0], out[1], out[2] & 0xff);
    __asm__ volatile("pushl %%ebp\n pushl $0x33\n pushl $0x22\n pushl $0x11\n leal 12(%%esp), %%ebp\n movl %%esp, "
                     "%%edi\n enter $8, $3\n movl %%edi, %%eax\n subl %%esp, %%eax\n movl %%eax, out\n"
                     "movl -4(%%ebp), %%eax\n movl %%eax, out+4\n movl -8(%%ebp), %%eax\n movl %%eax, out+8\n movl "
                     "-12(%%ebp), %%eax\n subl %%ebp, %%eax\n movl %%eax, out+12\n leave\n addl $12, %%esp\n popl %%ebp"
                     :
                     :
                     : "eax", "edi", "memory");
    rt_printf("enter 8, 3: esp -%x, display %x %x, own frame %x\n", out[0], out[1], out[2], out[3]);
    __asm__ volatile(
        "pushl $1f\n pushl $5\n pushl $6\n movl %%esp, %%ecx\n addl $8, %%ecx\n movl %%esp, %%edx\n movl 8(%%esp), "
        "%%eax\n movl %%eax, (%%esp)\n ret $4\n 1: subl %%esp, %%edx\n negl %%edx\n movl %%edx, out\n addl $4, %%esp"
        :
        :
        : "eax", "ecx", "edx", "memory");
    rt_printf("ret 4 moves esp by %x\n", out[0]);
}

static void misc(void)
{
    static const uint8_t table[256] = {[5] = 0x55, [255] = 0x66};
    uint32_t a = 0x12345605, b = 0;
    __asm__ volatile("xlat" : "+a"(a) : "b"(table));
    rt_printf("xlat %08x\n", a);
    uint32_t c = 3, n = 0;
    __asm__ volatile("1: incl %1\n loop 1b" : "+c"(c), "+r"(n));
    rt_printf("loop %u\n", n);
    c = 0x10003, n = 0;
    __asm__ volatile("1: incl %1\n .byte 0x67\n loop 1b" : "+c"(c), "+r"(n));
    rt_printf("loop with cx %u, ecx %x\n", n, c);
    c = 5, n = 0;
    __asm__ volatile("1: incl %1\n cmpl $3, %1\n loopne 1b" : "+c"(c), "+r"(n));
    rt_printf("loopne %u, ecx %u\n", n, c);
    c = 0x10000;
    __asm__ volatile("xorl %1, %1\n jcxz 1f\n incl %1\n 1:" : "+c"(c), "=r"(n));
    rt_printf("jcxz in 16 bits %u\n", n);
    a = 0xff01;
    __asm__ volatile("lahf\n xchgb %%ah, %%al\n movb $0xd7, %%ah\n sahf\n pushfl\n popl %1" : "+a"(a), "=r"(b));
    rt_printf("sahf %02x\n", b & 0xff);
    static const struct {
        uint32_t off;
        uint16_t sel;
    } __attribute__((packed)) p = {0x13572468, SEL_KDATA};
    __asm__ volatile("les %1, %0" : "=r"(a) : "m"(p));
    rt_printf("les %x\n", a);
    __asm__ volatile("lds %1, %0" : "=r"(a) : "m"(p));
    rt_printf("lds %x\n", a);
    uint16_t sel = 0x1234;
    a = 0xffffffff;
    __asm__ volatile("movl %%ds, %0\n movw %%ds, %1" : "=r"(a), "=m"(sel));
    rt_printf("mov r32, ds %x; m16 %x\n", a & 0xffff, sel);
    __asm__ volatile("ljmp $8, $1f\n 1: lcall $8, $2f\n jmp 3f\n 2: movl 4(%%esp), %0\n lret\n 3:" : "=r"(a));
    rt_printf("far call pushed cs %x\n", a & 0xffff);
    __asm__ volatile("movl $0x87654321, %%eax\n bswap %%eax\n movl %%eax, out\n movl $0x1ff, %%ecx\n movl $1, %%edx\n "
                     "shldl %%cl, %%edx, %%eax\n movl %%eax, out+4"
                     :
                     :
                     : "eax", "ecx", "edx", "memory", "cc");
    rt_printf("bswap %x shld by 31 %x\n", out[0], out[1]);
    uint32_t lo = 5, hi = 6;
    static uint64_t m = 0x0000000600000005ull;
    uint8_t z;
    __asm__ volatile("lock cmpxchg8b %2\n setz %3"
                     : "+a"(lo), "+d"(hi), "+m"(m), "=q"(z)
                     : "b"(0x11), "c"(0x22)
                     : "cc");
    rt_printf("cmpxchg8b zf %u: %llx\n", z, (unsigned long long)m);
    __asm__ volatile("lock cmpxchg8b %2\n setz %3"
                     : "+a"(lo), "+d"(hi), "+m"(m), "=q"(z)
                     : "b"(0x33), "c"(0x44)
                     : "cc");
    rt_printf("cmpxchg8b zf %u: edx:eax %x:%x\n", z, hi, lo);
}

int main(void)
{
    bcd();
    stack();
    misc();
    return 0;
}
