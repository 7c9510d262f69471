/* tests/guest/real_basic.c - real-address mode: segments, 64 KiB wraps and limits, INT and IRET, exceptions, flags, HLT with a
 * timer, unreal mode. 16-bit code leaves words at 0:500, which are printed here. */
#include "rt.h"

#define RES rt_real_words

/* Assembles 16-bit code and runs it in real mode at 800:0; results by "movw %ax, %fs:0x500+2*n" (FS = 0). */
#define REAL(insns)                                                                                                    \
    do {                                                                                                               \
        const void *from_, *to_;                                                                                       \
        __asm__ volatile("jmp 79f\n .code16\n 70: " insns "\n lret\n .code32\n 79: movl $70b, %0\n movl $79b, %1"      \
                         : "=r"(from_), "=r"(to_));                                                                    \
        memset((void *)0x500, 0, 64);                                                                                  \
        rt_real(from_, to_);                                                                                           \
    } while (0)
#define PUT(n, reg) "movw %%" reg ", %%fs:0x500+2*" #n "\n "

static void show(const char *name, unsigned n)
{
    rt_printf("%s:", name);
    for (unsigned i = 0; i < n; i++)
        rt_printf(" %04x", RES[i]);
    rt_printf("\n");
}

static void segments(void)
{
    REAL("movw %%cs, %%ax\n" PUT(0, "ax") "movw %%ss, %%ax\n" PUT(1, "ax") PUT(2, "sp"));
    show("cs ss sp", 3);
    *(volatile uint16_t *)0x12345 = 0xbeef;
    REAL("movw $0x1234, %%ax\n movw %%ax, %%es\n movw %%es:5, %%bx\n" PUT(
        0, "bx") "movw $0x1000, %%ax\n movw %%ax, %%es\n movw %%es:0x2345, %%bx\n" PUT(1, "bx"));
    show("two ways to 12345", 2);
    *(volatile uint16_t *)0x100000 = 0x7788;
    *(volatile uint16_t *)0 = 0x1122;
    REAL("movw $0xffff, %%ax\n movw %%ax, %%es\n movw %%es:0x10, %%bx\n" PUT(0, "bx"));
    RES[1] = *(volatile uint16_t *)0x100000;
    rt_printf("ffff:0010 with A20 on is above 1 MiB: %d\n", RES[0] == RES[1]);
    REAL("pushw $0x1357\n popw %%es\n movw %%es, %%ax\n" PUT(0, "ax") "pushw %%cs\n popw %%ds\n movw %%ds, %%ax\n" PUT(
        1, "ax"));
    show("push, pop of segments", 2);
    REAL("movw $7f - 70b, %%bx\n lesw %%cs:(%%bx), %%di\n movw %%es, %%ax\n" PUT(0, "ax")
             PUT(1, "di") "jmp 8f\n 7: .word 0x1111, 0x2222\n 8:");
    show("les", 2);
    REAL("ljmp $0x801, $0x10\n .org 70b + 0x20\n movw %%cs, %%ax\n" PUT(
        0, "ax") "lcall $0x800, $(6f - 70b)\n jmp 5f\n 6: movw %%cs, %%ax\n" PUT(1, "ax") "lret\n 5:");
    show("far jump and call", 2);
    REAL("movw $0x1234, %%ax\n movl $0x5678abcd, %%ecx\n addl %%ecx, %%eax\n rorl $16, %%eax\n" PUT(
        0, "ax") "pushl %%ecx\n popw %%ax\n" PUT(1, "ax") "popw %%ax\n" PUT(2, "ax"));
    show("32-bit operands", 3);
    REAL("movw $0x40, %%si\n movl $0x10020, %%eax\n leaw 0x10(%%bx,%%si), %%ax\n movw $0xfff0, %%bx\n leaw 0x30(%%bx), "
         "%%ax\n" PUT(0, "ax") "movl $0x12345, %%ebx\n leal 1(%%ebx), %%ecx\n shrl $4, %%ecx\n" PUT(1, "cx"));
    show("addresses", 2);
}

static void stack_and_wrap(void)
{
    REAL("movw %%sp, %%bp\n xorw %%sp, %%sp\n movw $0xaaaa, %%ax\n pushw %%ax\n movw %%sp, %%cx\n movw %%ss:0xfffe, "
         "%%dx\n popw %%bx\n movw %%sp, %%si\n movw %%bp, %%sp\n" PUT(0, "cx") PUT(1, "dx") PUT(2, "bx") PUT(3, "si"));
    show("sp wraps", 4);
    /* The instruction pointer runs over the end of the segment's 64 KiB: inc at ffff, the rest at 0 would need a wrap. */
    REAL("pushw $0x9000\n popw %%es\n movw $0xffff, %%di\n movb $0x90, %%es:(%%di)\n movb $0xcb, %%es:0\n movw "
         "$0x1111, %%ax\n" PUT(0, "ax"));
    show("segments are 64 KiB", 1);
    REAL("pushw %%ds\n movw $0x800, %%ax\n movw %%ax, %%ds\n movw $0xfffd, %%si\n movw $0x900, %%ax\n movw %%ax, "
         "%%es\n xorw %%di, %%di\n movw $3, %%cx\n cld\n rep movsb\n popw %%ds\n" PUT(0, "si") PUT(1, "di"));
    show("si wraps", 2);
    /* A register of the x87 is stored and loaded as 8 bytes and 2, each inside the segment (seen on the CPU). */
    REAL("pushw $0x8000\n popw %%es\n movw $0, %%es:0\n movw $0xfff8, %%di\n fninit\n fldpi\n fstpt %%es:(%%di)\n movw "
         "%%es:0, %%ax\n" PUT(0, "ax") "movw %%es:0xfffe, %%ax\n" PUT(1, "ax") "fldt %%es:(%%di)\n fldpi\n fcompp\n "
                                                                               "fnstsw %%ax\n" PUT(2, "ax"));
    show("x87 register wraps", 3);
}

static void interrupts(void)
{
    /* Handler at 800:h stores what was pushed and returns. */
    REAL(
        "movw $(6f - 70b), %%fs:0x60*4\n movw %%cs, %%fs:0x60*4+2\n stc\n sti\n int $0x60\n 5: pushfw\n popw %%ax\n "
        "andw $0x301, %%ax\n" PUT(4, "ax") "cli\n jmp 8f\n 6: pushfw\n popw %%ax\n andw $0x301, %%ax\n" PUT(
            0,
            "ax") "popw %%ax\n subw $(5b - 70b), %%ax\n" PUT(1,
                                                             "ax") "addw $(5b - 70b), %%ax\n popw %%bx\n" PUT(2,
                                                                                                              "bx") "po"
                                                                                                                    "pw"
                                                                                                                    " %"
                                                                                                                    "%c"
                                                                                                                    "x"
                                                                                                                    "\n"
                                                                                                                    " p"
                                                                                                                    "us"
                                                                                                                    "hw"
                                                                                                                    " %"
                                                                                                                    "%c"
                                                                                                                    "x"
                                                                                                                    "\n"
                                                                                                                    " p"
                                                                                                                    "us"
                                                                                                                    "hw"
                                                                                                                    " %"
                                                                                                                    "%b"
                                                                                                                    "x"
                                                                                                                    "\n"
                                                                                                                    " p"
                                                                                                                    "us"
                                                                                                                    "hw"
                                                                                                                    " %"
                                                                                                                    "%a"
                                                                                                                    "x"
                                                                                                                    "\n"
                                                                                                                    " a"
                                                                                                                    "nd"
                                                                                                                    "w "
                                                                                                                    "$0"
                                                                                                                    "x3"
                                                                                                                    "01"
                                                                                                                    ", "
                                                                                                                    "%%"
                                                                                                                    "cx"
                                                                                                                    "\n" PUT(
                                                                                                                        3,
                                                                                                                        "cx") "iret\n 8:");
    show("int 60: flags in, ip, cs, pushed flags, flags after", 5);
    REAL("movw $(6f - 70b), %%fs:0\n movw %%cs, %%fs:2\n xorw %%ax, %%ax\n xorw %%cx, %%cx\n 5: divw %%cx\n jmp 8f\n "
         "6: popw %%ax\n subw $(5b - 70b), %%ax\n" PUT(0, "ax") "popw %%ax\n" PUT(
             1, "ax") "popw %%ax\n movw $1, %%ax\n" PUT(2, "ax") "8:");
    show("#DE: ip, cs, seen", 3);
    REAL("movw $(6f - 70b), %%fs:6*4\n movw %%cs, %%fs:6*4+2\n 5: ud2\n 6: popw %%ax\n subw $(5b - 70b), %%ax\n" PUT(
        0, "ax") "addw $4, %%sp\n movw %%sp, %%ax\n" PUT(1, "ax"));
    show("#UD: ip, sp after dropping the frame", 2);
    /* #GP has no error code here: the frame is three words. */
    REAL("movw $(6f - 70b), %%fs:13*4\n movw %%cs, %%fs:13*4+2\n movw %%sp, %%bp\n 5: movw 0xffff, %%ax\n jmp 8f\n 6: "
         "popw %%ax\n addw $(0xf000 - (5b - 70b)), %%ax\n" PUT(0, "ax") "addw $4, %%sp\n subw %%sp, %%bp\n" PUT(
             1, "bp") "8:");
    show("word at ffff: ip, stack left", 2);
    REAL("movw $(6f - 70b), %%fs:12*4\n movw %%cs, %%fs:12*4+2\n movw %%sp, %%bp\n movw $0xffff, %%bx\n 5: movw "
         "%%ss:(%%bx), %%ax\n jmp 8f\n 6: popw %%ax\n addw $(0xf000 - (5b - 70b)), %%ax\n" PUT(
             0, "ax") "addw $4, %%sp\n 8:");
    show("word at ss:ffff: ip", 1);
    REAL("movw $(6f - 70b), %%fs:13*4\n movw %%cs, %%fs:13*4+2\n movl $0x10000, %%ebx\n 5: movb (%%ebx), %%al\n jmp "
         "8f\n 6: popw %%ax\n addw $(0xf000 - (5b - 70b)), %%ax\n" PUT(0, "ax") "addw $4, %%sp\n 8:");
    show("byte at 10000: ip", 1);
    REAL("movw $(6f - 70b), %%fs:3*4\n movw %%cs, %%fs:3*4+2\n movw $(6f - 70b), %%fs:4*4\n movw %%cs, %%fs:4*4+2\n 5: "
         "int3\n 4: movb $0x7f, %%al\n incb %%al\n into\n 3: jmp 8f\n"
         "6: popw %%ax\n pushw %%ax\n subw $(5b - 70b), %%ax\n movw %%fs:0x520, %%di\n movw %%ax, %%fs:0x500(%%di)\n "
         "addw $2, %%fs:0x520\n iret\n 8:");
    show("int3, into: ip", 2);
    REAL(
        "movw $(6f - 70b), %%fs:1*4\n movw %%cs, %%fs:1*4+2\n xorw %%di, %%di\n pushfw\n movw %%sp, %%bx\n orw $0x100, "
        "%%ss:(%%bx)\n popfw\n 5: nop\n nop\n movw %%ss, %%ax\n movw %%ax, %%ss\n nop\n pushfw\n movw %%sp, %%bx\n "
        "andw $0xfeff, %%ss:(%%bx)\n popfw\n jmp 8f\n"
        "6: popw %%cx\n pushw %%cx\n subw $(5b - 70b), %%cx\n movw %%cx, %%fs:0x500(%%di)\n addw $2, %%di\n iret\n 8:");
    show("single steps", 9);
}

static void privileged(void)
{
    REAL("movl %%cr0, %%eax\n andw $1, %%ax\n" PUT(0, "ax") "smsw %%ax\n andw $1, %%ax\n" PUT(
        1, "ax") "pushfw\n popw %%ax\n orw $0x7000, %%ax\n pushw %%ax\n popfw\n pushfw\n popw %%ax\n andw $0x7000, "
                 "%%ax\n" PUT(2, "ax") "pushw $0x2\n popfw\n");
    show("cr0.pe, smsw, IOPL and NT by popf", 3);
    REAL("movw $(6f - 70b), %%fs:6*4\n movw %%cs, %%fs:6*4+2\n xorw %%di, %%di\n"
         "5: sldt %%ax\n str %%ax\n verr %%ax\n larw %%ax, %%ax\n .byte 0x63, 0xc0\n lldt %%ax\n jmp 8f\n"
         "6: movw %%sp, %%bx\n movw %%ss:(%%bx), %%ax\n subw $(5b - 70b), %%ax\n movw %%ax, %%fs:0x500(%%di)\n addw "
         "$2, %%di\n addw $3, %%ss:(%%bx)\n cmpw $12, %%ax\n jne 4f\n decw %%ss:(%%bx)\n 4: iret\n 8:");
    show("protected-mode instructions are #UD at", 6);
    REAL("sgdt %%fs:0x540\n sidt %%fs:0x548\n movw %%fs:0x548, %%ax\n" PUT(0, "ax") "movw %%fs:0x54a, %%ax\n" PUT(
        1, "ax"));
    show("IDT limit and base", 2);
}

/* A limit loaded in protected mode stays in real mode. */
static void unreal(void)
{
    *(volatile uint32_t *)0x345678 = 0xfeedface;
    static const uint64_t gdt[3] = {0, 0, 0x00cf92000000ffffull};
    memcpy((void *)0x600, gdt, sizeof gdt);
    REAL("movw $23, %%fs:0x540\n movl $0x600, %%fs:0x542\n lgdtl %%fs:0x540\n movl %%cr0, %%eax\n incw %%ax\n movl "
         "%%eax, %%cr0\n movw $16, %%bx\n movw %%bx, %%gs\n decw %%ax\n movl %%eax, %%cr0\n"
         "movl $0x345678, %%ebx\n movl %%gs:(%%ebx), %%ecx\n" PUT(0, "cx") "shrl $16, %%ecx\n" PUT(
             1, "cx") "movw $0x1000, %%ax\n movw %%ax, %%gs\n movl $0x335678, %%ebx\n "
                      "movl %%gs:(%%ebx), %%ecx\n" PUT(2, "cx"));
    show("unreal mode, also after a reload", 3);
}

/* The timer wakes HLT through the interrupt table. On a busy host a late tick may come with the last one: up to 6 count as 3. */
static void halted(void)
{
    REAL(
        "movw $(6f - 70b), %%fs:8*4\n movw %%cs, %%fs:8*4+2\n xorw %%bx, %%bx\n"
        "movb $0x11, %%al\n outb %%al, $0x20\n movb $8, %%al\n outb %%al, $0x21\n movb $4, %%al\n outb %%al, $0x21\n "
        "movb $1, %%al\n outb %%al, $0x21\n movb $0xfe, %%al\n outb %%al, $0x21\n"
        "movb $0x34, %%al\n outb %%al, $0x43\n movb $0, %%al\n outb %%al, $0x40\n movb $0x10, %%al\n outb %%al, $0x40\n"
        "5: sti\n hlt\n cli\n cmpw $3, %%bx\n jb 5b\n movb $0xff, %%al\n outb %%al, $0x21\n "
        "cmpw $6, %%bx\n ja 9f\n movw $3, %%bx\n 9:\n" PUT(
            0, "bx") "jmp 8f\n"
                     "6: incw %%bx\n pushw %%ax\n movb $0x20, %%al\n outb %%al, $0x20\n popw %%ax\n iret\n 8:");
    show("timer ticks through HLT", 1);
}

int main(void)
{
    segments();
    stack_and_wrap();
    interrupts();
    privileged();
    unreal();
    halted();
    rt_printf("and back in protected mode\n");
    return 0;
}
