/* tests/guest/smc_basic.c - code that changes code: the next instruction, its own loop, other pages, through other mappings,
 * by string instructions; mappings that change under code. */
#include "rt.h"

#define PD ((volatile uint32_t *)0x400000)
#define PT ((volatile uint32_t *)0x401000)
#define CODE(n) (0x500000u + (n)*0x1000u)
#define LIN(n) (0x800000u + (n)*0x1000u)
enum { P = 1, W = 2, U = 4, PS = 0x80 };

static unsigned call(uint32_t at)
{
    unsigned r;
    __asm__ volatile("call *%1" : "=a"(r) : "r"(at) : "ecx", "edx", "memory", "cc");
    return r;
}

/* mov $imm, %eax; ret */
static void make(uint32_t at, uint32_t imm)
{
    volatile uint8_t *p = (volatile uint8_t *)at;
    p[0] = 0xb8;
    memcpy((void *)(at + 1), &imm, 4);
    p[5] = 0xc3;
}

static void next_instruction(void)
{
    unsigned r;
    /* Writes the immediate of the instruction right behind it. */
    __asm__ volatile("movl $0x22222222, 1f+1\n 1: movl $0x11111111, %0" : "=a"(r) : : "memory");
    rt_printf("next instruction: %x\n", r);
    __asm__ volatile("movl $0x11111111, 1f+1\n nop\n nop\n nop\n nop\n 1: movl $0x33333333, %0" : "=a"(r) : : "memory");
    rt_printf("a few later: %x\n", r);
    __asm__ volatile("movb $0x42, 1f\n 1: incl %0" : "=a"(r) : "0"(5), "d"(0) : "memory", "cc"); /* becomes inc %edx */
    rt_printf("opcode: %x\n", r);
    __asm__ volatile("xorl %0, %0\n movl $3, %%ecx\n 1: addl $1, %0\n addb $1, 1b+2\n loop 1b\n movb $1, 1b+2"
                     : "=&a"(r)
                     :
                     : "ecx", "memory", "cc");
    rt_printf("own loop: %x\n", r);
    __asm__ volatile("movl $1f, %%edi\n movl $6, %%ecx\n movb $0x90, %%al\n xorl %%edx, %%edx\n rep stosb\n 1: movl "
                     "$7, %%edx\n nop\n movl %%edx, %0"
                     : "=a"(r)
                     :
                     : "ecx", "edx", "edi", "memory");
    rt_printf("rep stosb over what follows: %x\n", r);
    __asm__ volatile("movl $1f, %%ecx\n movl %%esp, %%edx\n leal 4(%%ecx), %%esp\n pushl $0xc3909090\n movl %%edx, "
                     "%%esp\n movl $0, %0\n call 1f\n jmp 2f\n 1: .byte 0xb0, 1, 0x90, 0xc3\n 2:"
                     : "=a"(r)
                     :
                     : "ecx", "edx", "memory");
    rt_printf("by push: %x\n", r);
}

static void copy_down(uint32_t to, uint32_t from, uint32_t n)
{
    __asm__ volatile("std; rep movsb; cld" : "+D"(to), "+S"(from), "+c"(n) : : "memory", "cc");
}
static void clear(uint32_t at, uint32_t n) { __asm__ volatile("rep stosb" : "+D"(at), "+c"(n) : "a"(0x90) : "memory"); }
static unsigned sum_of_calls(uint32_t first, unsigned n)
{
    unsigned sum = 0;
    for (unsigned i = 0; i < n; i++)
        sum = sum * 3 + call(first + i * 16);
    return sum;
}
/* Many functions of which some are overwritten, by one string instruction, up and down, inside a page and over its end. */
static void strings(void)
{
    for (unsigned i = 0; i < 512; i++)
        make(CODE(16) + i * 16, i);
    for (unsigned i = 0; i < 512; i++)
        make(CODE(20) + i * 16, 2 * i + 1);
    rt_printf("strings %x %x ", sum_of_calls(CODE(16), 512), sum_of_calls(CODE(20), 512));
    memcpy((void *)(CODE(16) + 32), (void *)(CODE(20) + 32), 1000);
    rt_printf("%x ", sum_of_calls(CODE(16), 512));
    copy_down(CODE(17) + 99, CODE(21) + 99, 200);
    rt_printf("%x ", sum_of_calls(CODE(16), 512));
    clear(CODE(16) + 5, 16 * 511); /* all but the first byte and the last return */
    rt_printf("%x ", call(CODE(16)) & 0xffffff);
    memset((void *)(CODE(16)), 0x90, 0x1ff0); /* the first byte too */
    rt_printf("%x\n", call(CODE(16)));
}

static void functions(void)
{
    make(CODE(0), 1);
    rt_printf("first %x ", call(CODE(0)));
    make(CODE(0), 2);
    rt_printf("changed %x ", call(CODE(0)));
    for (unsigned i = 0; i < 1000; i++) {
        *(volatile uint32_t *)(CODE(0) + 1) = i;
        if (call(CODE(0)) != i)
            rt_printf("stale at %u ", i);
    }
    rt_printf("1000 times\n");
    /* An instruction that lies across two pages, changed in either. */
    make(CODE(2) - 3, 0x11223344);
    rt_printf("across pages %x ", call(CODE(2) - 3));
    *(volatile uint8_t *)(CODE(2)) = 0x55;
    rt_printf("%x ", call(CODE(2) - 3));
    *(volatile uint8_t *)(CODE(2) - 1) = 0x66;
    rt_printf("%x\n", call(CODE(2) - 3));
    /* Data next to code in one page. */
    make(CODE(3), 5);
    unsigned sum = 0;
    for (unsigned i = 0; i < 1000; i++) {
        *(volatile uint32_t *)(CODE(3) + 64) = i;
        sum += call(CODE(3)) + *(volatile uint32_t *)(CODE(3) + 64);
    }
    rt_printf("data beside code %u\n", sum);
    /* Two blocks in a chain, the second one changes. */
    memcpy((void *)CODE(4), "\xe9\xfb\x0f\x00\x00", 5); /* jmp CODE(5) */
    make(CODE(5), 10);
    rt_printf("chain %x ", call(CODE(4)));
    make(CODE(5), 11);
    rt_printf("%x ", call(CODE(4)));
    memcpy((void *)CODE(4), "\xe9\xfb\x1f\x00\x00", 5); /* jmp CODE(6) */
    make(CODE(6), 12);
    rt_printf("%x\n", call(CODE(4)));
}

static void mappings(void)
{
    memset((void *)PD, 0, 8192);
    for (unsigned i = 0; i < 4; i++)
        PD[i] = i << 22 | P | W | U | PS;
    PD[2] = (uint32_t)PT | P | W | U;
    write_cr4(read_cr4() | 0x10);
    write_cr3((word)PD);
    write_cr0(read_cr0() | 0x80000000);
    make(CODE(0), 100);
    make(CODE(1), 200);
    PT[0] = CODE(0) | P | W;
    PT[1] = CODE(0) | P | W;
    rt_printf("alias %u ", call(LIN(0)));
    make(LIN(1), 101);
    rt_printf("written through another %u ", call(LIN(0)));
    make(CODE(0), 102);
    rt_printf("%u ", call(LIN(1)));
    PT[0] = CODE(1) | P | W;
    __asm__ volatile("invlpg (%0)" : : "r"(LIN(0)) : "memory");
    rt_printf("remapped %u ", call(LIN(0)));
    PT[0] = CODE(0) | P | W;
    write_cr3((word)PD);
    rt_printf("and back %u\n", call(LIN(0)));
    /* A block that goes over into the next page, which is then mapped elsewhere. */
    PT[2] = CODE(7) | P | W;
    PT[3] = CODE(8) | P | W;
    make(LIN(3) - 3, 0x11223344);
    rt_printf("two pages %x ", call(LIN(3) - 3));
    memcpy((void *)CODE(9), "\xaa\xbb\xc3", 3);
    memcpy((void *)(CODE(9)), (void *)CODE(8), 4096);
    *(volatile uint8_t *)(CODE(9)) = 0x99;
    PT[3] = CODE(9) | P | W;
    __asm__ volatile("invlpg (%0)" : : "r"(LIN(3)) : "memory");
    rt_printf("second one remapped %x\n", call(LIN(3) - 3));
    PT[3] = 0;
    __asm__ volatile("invlpg (%0)" : : "r"(LIN(3)) : "memory");
    TRY_ASM("second one absent", "call *%%ecx", "c"(LIN(3) - 3));
    rt_printf("  eip %lx\n", rt_exc.ip);
    /* A chained jump from one page into another that is remapped. */
    PT[4] = CODE(10) | P | W;
    PT[5] = CODE(11) | P | W;
    memcpy((void *)CODE(10), "\xe9\xfb\x0f\x00\x00", 5);
    make(CODE(11), 1);
    make(CODE(12), 2);
    for (unsigned i = 0; i < 6; i++) {
        rt_printf("%u ", call(LIN(4)));
        PT[5] = CODE(11 + (i & 1 ? 0 : 1)) | P | W;
        __asm__ volatile("invlpg (%0)" : : "r"(LIN(5)) : "memory");
    }
    rt_printf("chained jump, target remapped\n");
    PT[5] = 0;
    __asm__ volatile("invlpg (%0)" : : "r"(LIN(5)) : "memory");
    TRY_ASM("target absent", "call *%%ecx", "c"(LIN(4)));
    rt_printf("  eip %lx\n", rt_exc.ip);
}

int main(void)
{
    next_instruction();
    functions();
    strings();
    mappings();
    return 0;
}
