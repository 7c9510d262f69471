/* tests/guest/ac_user.c - alignment checks at CPL 3: CR0.AM and EFLAGS.AC, every kind of data and stack access, what is exempt
 * (SDM 3A 6.15 interrupt 17, table 6-7). ac_user64.c is the same in 64-bit code. */
#include "rt.h"

/* Every test sees %b = an address that is a multiple of 64, in the middle of zeros that it may write. */
static uint8_t area[1024] __attribute__((aligned(64), used));

#ifdef __x86_64__
#define B "%%rbx"
#define SP "%%rsp"
#define CX "%%rcx"
#define SI "%%rsi"
#define DI "%%rdi"
#define BP "%%rbp"
#define WB "8" /* bytes of a push */
#define AC_ON "pushfq\n orl $0x40000, (%%rsp)\n popfq\n"
#define BASE "movq $area + 256, %%rbx\n"
#define CLOBBERS "memory", "cc", "rax", "rbx", "rcx", "rdx", "rsi", "rdi"
#else
#define B "%%ebx"
#define SP "%%esp"
#define CX "%%ecx"
#define SI "%%esi"
#define DI "%%edi"
#define BP "%%ebp"
#define WB "4"
#define AC_ON "pushfl\n orl $0x40000, (%%esp)\n popfl\n"
#define BASE "movl $area + 256, %%ebx\n"
#define CLOBBERS "memory", "cc", "eax", "ebx", "ecx", "edx", "esi", "edi"
#endif

/* Ends at ring 3 by itself: the stack pointer may be anywhere by then. */
#define CASE(name, before, insn)                                                                                       \
    TRY_USER(name, __asm__ volatile(AC_ON BASE before "\n" AT insn "\n int $0x80" : : : CLOBBERS))
#define DATA(name, insn) CASE(name, "", insn)

static void integers(void)
{
    DATA("byte at 1", "movb 1(" B "), %%al");
    DATA("word at 1", "movw 1(" B "), %%ax");
    DATA("word at 2", "movw 2(" B "), %%ax");
    DATA("word store at 3", "movw %%ax, 3(" B ")");
    DATA("dword at 2", "movl 2(" B "), %%eax");
    DATA("dword at 4", "movl 4(" B "), %%eax");
    DATA("dword store at 1", "movl %%eax, 1(" B ")");
    DATA("dword store at 4", "movl %%eax, 4(" B ")");
    DATA("add to memory at 2", "addl $1, 2(" B ")");
    DATA("inc at 3", "incl 3(" B ")");
    DATA("cmp at 1", "cmpl $0, 1(" B ")");
    DATA("movzx of a word at 1", "movzwl 1(" B "), %%eax");
    DATA("movzx of a byte at 1", "movzbl 1(" B "), %%eax");
    DATA("imul at 2", "imull 2(" B "), %%eax");
    DATA("cmov not taken at 2", "cmovncl 2(" B "), %%eax");
    DATA("lea is no access", "leal 1(" B "), %%eax");
    DATA("nop is no access", "nopl 1(" B ")");
    DATA("setc at 1", "setc 1(" B ")");
    DATA("bt at 2", "btl $1, 2(" B ")");
    CASE("bts far away from 2", "movl $64, %%eax", "btsl %%eax, 2(" B ")");
    DATA("xchg at 2", "xchgl %%eax, 2(" B ")");
    DATA("lock add at 2", "lock addl %%eax, 2(" B ")");
    DATA("cmpxchg at 2", "cmpxchgl %%ecx, 2(" B ")");
    DATA("xadd at 2", "xaddl %%ecx, 2(" B ")");
    DATA("cmpxchg8b at 4", "cmpxchg8b 4(" B ")");
    DATA("cmpxchg8b at 8", "cmpxchg8b 8(" B ")");
    DATA("movbe at 2", "movbe 2(" B "), %%eax");
    DATA("moffs at 1", "movl area + 257, %%eax");
    DATA("sgdt at 4", "sgdt 4(" B ")");
    DATA("lfs of 16:16 at 1", "lfsw 1(" B "), %%ax");
    DATA("lfs of 16:32 at 2", "lfsl 2(" B "), %%eax");
    DATA("clflush at 1", "clflush 1(" B ")");
    DATA("prefetch at 1", "prefetcht0 1(" B ")");
    DATA("over a cache line", "movl 62(" B "), %%eax");
#ifdef __x86_64__
    DATA("qword at 4", "movq 4(" B "), %%rax");
    DATA("qword at 8", "movq 8(" B "), %%rax");
    DATA("qword store at 1", "movq %%rax, 1(" B ")");
    DATA("movsxd at 2", "movslq 2(" B "), %%rax");
    DATA("movnti at 4", "movntiq %%rax, 4(" B ")");
    DATA("rip-relative", "movl area + 257(%%rip), %%eax");
#else
    DATA("bound at 2", "boundl %%eax, 2(" B ")");
    CASE("bound at 4", "xorl %%eax, %%eax", "boundl %%eax, 4(" B ")");
    DATA("les at 2", "les 2(" B "), %%eax");
    DATA("arpl at 1", "arpl %%ax, 1(" B ")");
#endif
}

static void stack(void)
{
    CASE("push at 2", "lea 66(" B "), " SP, "push " CX);
    CASE("push at " WB, "lea 64+" WB "(" B "), " SP, "push " CX);
    CASE("push of a word at 2", "lea 66(" B "), " SP, "pushw %%cx");
    CASE("push of a word at 1", "lea 65(" B "), " SP, "pushw %%cx");
    CASE("push of memory at 2", "", "push 2(" B ")");
    CASE("pop at 2", "lea 66(" B "), " SP, "pop " CX);
    CASE("pop to memory at 2", "lea 64(" B "), " SP, "pop 2(" B ")");
    CASE("pushf at 1", "lea 65(" B "), " SP, "pushf");
    CASE("popf at 1", "lea 65(" B "), " SP, "popf");
    CASE("call at 2", "lea 66(" B "), " SP, "call 1f\n 1:");
    CASE("indirect call at 2", "lea 66(" B "), " SP "\n mov $1f, " CX, "call *" CX "\n 1:");
    CASE("call through 2", "mov $1f, " CX "\n mov " CX ", 66(" B ")", "call *66(" B ")\n 1:");
    CASE("ret at 2", "lea 66(" B "), " SP, "ret");
    CASE("ret n at 2", "lea 66(" B "), " SP, "ret $8");
    CASE("enter at 2", "lea 66(" B "), " SP, "enter $8, $0");
    CASE("leave at 2", "lea 66(" B "), " BP, "leave");
    CASE("int n with a misaligned stack", "lea 65(" B "), " SP, "int $0x80");
#ifndef __x86_64__
    CASE("pusha at 2", "lea 130(" B "), " SP, "pusha");
    CASE("popa at 2", "lea 66(" B "), " SP, "popa");
#endif
}

static void strings(void)
{
/* The address registers of string instructions. */
#define SRC(n) "lea " #n "(" B "), " SI "\n"
#define DST(n) "lea " #n "(" B "), " DI "\n"
    CASE("movsb at 1", SRC(1) DST(65), "movsb");
    CASE("movsw from 1", SRC(1) DST(64), "movsw");
    CASE("movsl to 2", SRC(0) DST(66), "movsl");
    CASE("rep movsb at 1", SRC(1) DST(65) "movl $16, %%ecx", "rep movsb");
    CASE("rep movsl from 2", SRC(2) DST(64) "movl $4, %%ecx", "rep movsl");
    CASE("rep movsl to 2", SRC(0) DST(66) "movl $4, %%ecx", "rep movsl");
    CASE("rep movsl to 2, 0 times", SRC(0) DST(66) "xorl %%ecx, %%ecx", "rep movsl");
    CASE("rep stosl to 1", DST(65) "movl $4, %%ecx", "rep stosl");
    CASE("rep stosl to 4", DST(68) "movl $4, %%ecx", "rep stosl");
    CASE("stosw to 1", DST(65), "stosw");
    CASE("lodsl from 2", SRC(2), "lodsl");
    CASE("scasw at 1", DST(1), "scasw");
    CASE("cmpsl at 4, 2", SRC(4) DST(66), "cmpsl");
    CASE("repe cmpsl at 4, 4", SRC(4) DST(68) "movl $4, %%ecx", "repe cmpsl");
    CASE("outs needs rights first", SRC(1) "movl $0x80, %%edx", "outsl");
}

static void x87(void)
{
    DATA("fld m32 at 2", "flds 2(" B ")");
    DATA("fld m32 at 4", "flds 4(" B ")");
    DATA("fld m64 at 4", "fldl 4(" B ")");
    DATA("fld m64 at 8", "fldl 8(" B ")");
    DATA("fld m80 at 4", "fldt 4(" B ")");
    DATA("fld m80 at 8", "fldt 8(" B ")");
    DATA("fild m16 at 1", "filds 1(" B ")");
    DATA("fild m64 at 4", "fildll 4(" B ")");
    CASE("fst m64 at 4", "fldz", "fstl 4(" B ")");
    DATA("fbld at 4", "fbld 4(" B ")");
    DATA("fnstcw at 1", "fnstcw 1(" B ")");
    DATA("fldcw at 2", "fnstcw 2(" B ")\n fldcw 2(" B ")");
    DATA("fnstsw at 1", "fnstsw 1(" B ")");
    DATA("fnstenv at 2", "fnstenv 2(" B ")");
    DATA("fnstenv at 4", "fnstenv 4(" B ")");
    DATA("fnsave at 2", "fnsave 2(" B ")");
    DATA("stmxcsr at 2", "stmxcsr 2(" B ")");
    DATA("ldmxcsr at 2", "ldmxcsr 2(" B ")");
}

/* 16-byte operands: an instruction that demands alignment raises #GP. One that does not may or may not raise #AC, so none is here. */
static void sse(void)
{
    DATA("movd at 2", "movd 2(" B "), %%xmm0");
    DATA("movq at 4", "movq 4(" B "), %%xmm0");
    DATA("movq at 8", "movq 8(" B "), %%xmm0");
    DATA("movss at 2", "movss 2(" B "), %%xmm0");
    DATA("movss at 4", "movss 4(" B "), %%xmm0");
    DATA("movsd at 4", "movsd 4(" B "), %%xmm0");
    DATA("movsd store at 4", "movsd %%xmm0, 4(" B ")");
    DATA("movlps at 4", "movlps %%xmm0, 4(" B ")");
    DATA("addss at 2", "addss 2(" B "), %%xmm0");
    DATA("cvtsi2sd at 2", "cvtsi2sdl 2(" B "), %%xmm0");
    DATA("pinsrw at 1", "pinsrw $0, 1(" B "), %%xmm0");
    DATA("movaps at 8", "movaps 8(" B "), %%xmm0");
    DATA("movaps at 16", "movaps 16(" B "), %%xmm0");
    DATA("movaps store at 1", "movaps %%xmm0, 1(" B ")");
    DATA("movntps at 4", "movntps %%xmm0, 4(" B ")");
    DATA("addps at 4", "addps 4(" B "), %%xmm0");
    DATA("movups at 16", "movups 16(" B "), %%xmm0");
    DATA("mmx movq at 4", "movq 4(" B "), %%mm0\n");
#ifdef __x86_64__
    DATA("cmpxchg16b at 8", "cmpxchg16b 8(" B ")");
#endif
}

/* Exempt: accesses that the CPU makes as a supervisor, whatever the CPL is. */
static void implicit(void)
{
    struct {
        uint16_t limit;
        word base;
    } __attribute__((packed)) old, g = {sizeof rt_gdt - 1, 0};
    static uint8_t copy[sizeof rt_gdt + 8] __attribute__((aligned(8)));
    memcpy(copy + 1, rt_gdt, sizeof rt_gdt);
    g.base = (word)copy + 1;
    __asm__ volatile("sgdt %0" : "=m"(old));
    __asm__ volatile("lgdt %0" : : "m"(g));
    DATA("selector load, GDT at an odd address", "movl $0x23, %%eax\n movl %%eax, %%fs");
    DATA("lar, GDT at an odd address", "movl $0x23, %%eax\n larl %%eax, %%eax");
    __asm__ volatile("lgdt %0" : : "m"(old));
}

static void switches(void)
{
    rt_printf("-- without AC\n");
    TRY_USER("dword at 1", __asm__ volatile(BASE AT "movl 1(" B "), %%eax\n int $0x80" : : : CLOBBERS));
    rt_printf("-- ring 0 with AC\n");
    TRY("dword at 1", __asm__ volatile(AC_ON BASE AT "movl 1(" B "), %%eax" : : : CLOBBERS));
    set_flags(2);
    rt_printf("-- AC changes between two instructions\n");
    TRY_USER("cleared again",
             __asm__ volatile(AC_ON BASE "pushf\n and"
                                         "l $~0x40000, (" SP ")\n popf\n" AT "movl 1(" B "), %%eax\n int $0x80"
                              :
                              :
                              : CLOBBERS));
    TRY_USER("the same instruction, before and after",
             __asm__ volatile(BASE "1: " AT "movl 1(" B "), %%eax\n" AC_ON "jmp 1b"
                              :
                              :
                              : CLOBBERS));
    rt_printf("  flags AC %lx\n", rt_exc.flags >> 18 & 1);
    write_cr0(read_cr0() & ~0x40000ul);
    rt_printf("-- AC with AM = 0\n");
    DATA("dword at 1", "movl 1(" B "), %%eax");
    CASE("push at 2", "lea 66(" B "), " SP, "push " CX);
    write_cr0(read_cr0() | 0x40000);
    rt_printf("-- AM again\n");
    DATA("dword at 1", "movl 1(" B "), %%eax");
}

static bool skip_it(struct rt_frame *f)
{
    if (f->vec != 17)
        return false;
    f->flags &= ~0x40000ul; /* the instruction starts again without the check */
    return true;
}

static void resumed(void)
{
    rt_hook = skip_it;
    *(uint32_t *)(area + 257) = 0x11223344;
    DATA("handler clears AC: the load is done again", "movl 1(" B "), %%eax");
    rt_printf("  eax %lx, AC %lx\n", rt_exc.ax & 0xffffffff, rt_exc.flags >> 18 & 1);
    CASE("rep movsl goes on from where it was", SRC(1) DST(64) "movl $4, %%ecx", "rep movsl");
    rt_printf("  ecx %lx copied %x\n", rt_exc.cx, *(uint32_t *)(area + 320));
    rt_hook = NULL;
}

int main(void)
{
    write_cr0((read_cr0() | 0x40022) & ~0xcul); /* AM, NE, MP */
    write_cr4(read_cr4() | 0x600);
    __asm__ volatile("fninit");
    integers();
    stack();
    strings();
    x87();
    __asm__ volatile("fninit");
    sse();
    implicit();
    switches();
    resumed();
    return 0;
}
