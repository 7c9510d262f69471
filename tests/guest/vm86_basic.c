/* tests/guest/vm86_basic.c - virtual-8086 mode without VME (SDM 3B ch. 20): what is sensitive to IOPL, what never works,
 * frames, segments, returns. */
#include "v86.h"

enum { IOPL3 = 0x3000, IF = 0x200 };

static void plain(unsigned iopl)
{
    rt_printf("== IOPL %u\n", iopl >> 12);
    V86("hlt", iopl, "hlt");
    V86("int 0x80", iopl, "int $0x80");
    V86("int3", iopl, "int3");
    V86("two-byte int 3", iopl, ".byte 0xcd, 3");
    V86("into", iopl, "movb $0x7f, %%al\n incb %%al\n into");
    V86("int 0x21, gate of ring 0", iopl, "int $0x21");
    V86("int1", iopl, ".byte 0xf1");
    V86("cli", iopl | IF, "cli\n nop\n int3");
    V86("sti", iopl, "sti\n nop\n int3");
    V86("pushf", iopl, "pushf\n popw %%ax\n int3");
    if (iopl == IOPL3)
        rt_printf("  ax %04lx\n", rt_exc.ax & 0xffff & ~0x8d5ul);
    V86("popf", iopl, "pushw $0x4202\n popf\n int3");
    V86("popfl", iopl, "pushl $0x3f7202 & ~0x30000\n popfl\n int3");
    V86("iret", iopl, "pushw $0x4202\n pushw $0x1000\n pushw $0x40\n iret\n .org 7b + 0x40\n int3");
    V86("in", iopl, "inb $0x61, %%al");
    V86("out", iopl, "outb %%al, $0x80\n int3");
}

static void never(void)
{
    V86("mov cr0", IOPL3, "movl %%cr0, %%eax");
    V86("mov dr7", IOPL3, "movl %%eax, %%dr7");
    V86("lgdt", IOPL3, "lgdtw 0");
    V86("lmsw", IOPL3, "lmsw %%ax");
    V86("clts", IOPL3, "clts");
    V86("invlpg", IOPL3, "invlpg 0");
    V86("rdmsr", IOPL3, "rdmsr");
    V86("wbinvd", IOPL3, "wbinvd");
    V86("sldt", IOPL3, "sldt %%ax");
    V86("str", IOPL3, "str %%ax");
    V86("lldt", IOPL3, "lldt %%ax");
    V86("ltr", IOPL3, "ltr %%ax");
    V86("lar", IOPL3, "larw %%ax, %%bx");
    V86("lsl", IOPL3, "lslw %%ax, %%bx");
    V86("verr", IOPL3, "verr %%ax");
    V86("arpl", IOPL3, ".byte 0x63, 0xc0");
    V86("sysenter without MSRs", IOPL3, "sysenter");
    V86("smsw works", IOPL3, "smsw %%ax\n int3");
    V86("sgdt works", IOPL3, "sgdtw 0x100\n int3");
    V86("ud2", IOPL3, "ud2");
    V86("lock nop", IOPL3, ".byte 0xf0, 0x90");
}

static void segments(void)
{
    *(volatile uint32_t *)0x56780 = 0x11223344;
    V86("mov ds", IOPL3, "movw $0x5678, %%ax\n movw %%ax, %%ds\n movl 0, %%ebx\n int3");
    rt_printf("  ebx %lx, pushed es %lx ds %lx fs %lx gs %lx, now es %lx ds %lx fs %lx gs %lx\n", rt_exc.bx,
              rt_exc.v_es & 0xffff, rt_exc.v_ds & 0xffff, rt_exc.v_fs & 0xffff, rt_exc.v_gs & 0xffff,
              rt_exc.es & 0xffff, rt_exc.ds & 0xffff, rt_exc.fs & 0xffff, rt_exc.gs & 0xffff);
    V86("far jump", IOPL3, "ljmp $0x1001, $0x10\n .org 7b + 0x20\n int3");
    V86("far call and return", IOPL3, "lcall $0x1001, $0x10\n int3\n .org 7b + 0x20\n lret");
    V86("word at ffff", IOPL3, "movw $0x5678, %%ax\n movw %%ax, %%ds\n movw 0xffff, %%bx\n int3");
    V86("byte at ffff", IOPL3, "movb 0xffff, %%bl\n int3");
    V86("32-bit offset beyond 64 KiB", IOPL3, "movl $0x10000, %%esi\n addr32 movb (%%esi), %%bl\n int3");
    V86("push with sp 1", IOPL3, "movw $1, %%sp\n pushw %%ax\n int3");
    V86("push with sp 0", IOPL3, "movw $0, %%sp\n pushw %%ax\n int3");
    *(volatile uint8_t *)0x20000 = 0xcc;
    V86("jump beyond 64 KiB", IOPL3, "movl $0x10000, %%eax\n .byte 0x66\n jmp *%%ax");
    *(volatile uint8_t *)0x1fff0 = 0xcc;
    V86("near jump wraps in 16 bits", IOPL3, ".byte 0xe9, 0xed, 0xff");
}

static void other_gates(void)
{
    rt_iomap[0x80 / 8] &= (uint8_t)~1;
    V86("out to an allowed port, IOPL 0", 0, "outb %%al, $0x80\n int3");
    V86("out to an allowed port, IOPL 3", IOPL3, "outb %%al, $0x80\n int3");
    /* The target of a gate must be ring 0: conforming code is not (SDM 3B 20.3.1). */
    rt_gdt[SEL_FREE / 8] = rt_desc(0, 0xfffff, 0xc09e);
    rt_gate(0x40, (void (*)(void))(rt_stubs + 16 * 0x40), SEL_FREE, 0xee);
    V86("gate to conforming code", IOPL3, "int $0x40");
    rt_gate(0x40, (void (*)(void))(rt_stubs + 16 * 0x40), SEL_UCODE, 0xee);
    V86("gate to ring 3 code", IOPL3, "int $0x40");
    rt_gate_default(0x40, 0xef);
    V86("trap gate keeps IF", IOPL3 | IF, "int $0x40");
    V86("NT and IOPL in flags", 0x7000, "int $0x40");
}

/* The handler changes the frame and returns into virtual-8086 mode. */
static bool resume(struct rt_frame *f)
{
    if (f->vec != 13 || !(f->flags & 0x20000))
        return false;
    f->ip += 1;
    f->ax = 0xcafe;
    f->v_ds = 0x7777;
    return true;
}

static void returns(void)
{
    rt_hook = resume;
    V86("resumed after hlt", IOPL3, "hlt\n movw %%ds, %%bx\n movw %%ax, %%cx\n int3");
    rt_hook = NULL;
    rt_printf("  bx %lx cx %lx\n", rt_exc.bx & 0xffff, rt_exc.cx & 0xffff);
}

int main(void)
{
    plain(IOPL3);
    plain(0);
    plain(0x2000);
    never();
    segments();
    other_gates();
    returns();
    return 0;
}
