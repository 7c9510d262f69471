/* tests/guest/exc_vectors.c - every exception that ring 0 code can raise in flat 32-bit mode: vector, error code, saved EIP. */
#include "rt.h"

static void divide(void)
{
    TRY_ASM("div by zero", "divl %%ecx", "a"(1), "d"(0), "c"(0));
    TRY_ASM("div overflow", "divl %%ecx", "a"(0), "d"(1), "c"(1));
    TRY_ASM("div fits", "divl %%ecx", "a"(0xffffffff), "d"(0), "c"(1));
    TRY_ASM("idiv overflow", "idivl %%ecx", "a"(0x80000000), "d"(0xffffffff), "c"(-1));
    TRY_ASM("div16 overflow", "divw %%cx", "a"(0), "d"(5), "c"(5));
    TRY_ASM("div8 overflow", "divb %%cl", "a"(0x500), "c"(5));
    TRY_ASM("idiv8 overflow", "idivb %%cl", "a"(0x80), "c"(1));
    TRY_ASM("aam 0", "aam $0", "a"(5));
}

static void software(void)
{
    TRY_ASM("int1", ".byte 0xf1", "a"(0));
    TRY_ASM("int3", "int3", "a"(0));
    TRY_ASM("int 3 in two bytes", ".byte 0xcd, 3", "a"(0));
    TRY_ASM("into without OF", "into", "a"(0));
    TRY("into after overflow", __asm__ volatile("movb $0x7f, %%al\n incb %%al\n" AT "into"
                                                :
                                                :
                                                : "eax", "memory", "cc"));
    TRY_ASM("int 0x21", "int $0x21", "a"(0));
    TRY_ASM("int 0x80", "int $0x80", "a"(0));
}

static void bound(void)
{
    static const int32_t b32[2] = {-5, 10};
    static const int16_t b16[2] = {-5, 10};
    TRY_ASM("bound inside", "boundl %%eax, %1", "a"(10), "m"(b32));
    TRY_ASM("bound at the lower end", "boundl %%eax, %1", "a"(-5), "m"(b32));
    TRY_ASM("bound above", "boundl %%eax, %1", "a"(11), "m"(b32));
    TRY_ASM("bound below", "boundl %%eax, %1", "a"(-6), "m"(b32));
    TRY_ASM("bound 16-bit above", "boundw %%ax, %1", "a"(0x7000b), "m"(b16));
    TRY_ASM("bound 16-bit inside", "boundw %%ax, %1", "a"(0x7000a), "m"(b16));
    TRY_ASM("bound with a register", ".byte 0x62, 0xc0, 0, 0, 0, 0", "a"(0));
}

static void undefined(void)
{
    TRY_ASM("ud2", "ud2", "a"(0));
    TRY_ASM("ud1", ".byte 0x0f, 0xb9, 0xc0", "a"(0));
    TRY_ASM("0f ff", ".byte 0x0f, 0xff, 0xc0", "a"(0));
    TRY_ASM("lock nop", ".byte 0xf0, 0x90", "a"(0));
    TRY_ASM("lock mov", ".byte 0xf0, 0x89, 0x01", "c"(&rt_at));
    TRY_ASM("lock add register", ".byte 0xf0, 0x01, 0xc0", "a"(0));
    TRY_ASM("lock cmp memory", ".byte 0xf0, 0x39, 0x01", "c"(&rt_at), "a"(0));
    TRY_ASM("lea register", ".byte 0x8d, 0xc0", "a"(0));
    TRY_ASM("les register", ".byte 0xc4, 0xc0",
            "a"(0)); /* VEX in 32-bit mode needs more bytes: opcode map 0 is undefined */
    TRY_ASM("mov cs, ax", ".byte 0x8e, 0xc8", "a"(8));
    TRY_ASM("mov sreg 6", ".byte 0x8e, 0xf0", "a"(8));
    TRY_ASM("mov eax, sreg 7", ".byte 0x8c, 0xf8", "a"(8));
    TRY_ASM("mov cr1", ".byte 0x0f, 0x20, 0xc8", "a"(0));
    TRY_ASM("mov cr5", ".byte 0x0f, 0x22, 0xe8", "a"(0));
    TRY_ASM("mov cr7", ".byte 0x0f, 0x22, 0xf8", "a"(0));
    TRY_ASM("fe /7", ".byte 0xfe, 0xf8", "a"(0));
    TRY_ASM("ff /7", ".byte 0xff, 0xf8", "a"(0));
    TRY_ASM("8f /1", ".byte 0x8f, 0xc8", "a"(0));
    TRY_ASM("rsm outside SMM", ".byte 0x0f, 0xaa", "a"(0));
    TRY_ASM("jmp far register", ".byte 0xff, 0xe8", "a"(0));
    TRY_ASM("call far register", ".byte 0xff, 0xd8", "a"(0));
    TRY_ASM("sgdt register", ".byte 0x0f, 0x01, 0xc0", "a"(0), "c"(0));
    TRY_ASM("lidt register", ".byte 0x0f, 0x01, 0xd8", "a"(0)); /* SVM's VMRUN when that is offered */
    TRY_ASM("invlpg register", ".byte 0x0f, 0x01, 0xfa + 5", "a"(0), "c"(0));
    TRY_ASM("cmpxchg8b register", ".byte 0x0f, 0xc7, 0xc8", "a"(0));
    TRY_ASM("salc exists", ".byte 0xd6", "a"(0));
    TRY_ASM("c6 /1", ".byte 0xc6, 0xc8, 0", "a"(0));
}

/* 15 bytes is the longest instruction (SDM 2A 2.3.11); one more is #GP(0). */
static void too_long(void)
{
    TRY_ASM("15 bytes", ".byte 0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x90", "a"(0));
    TRY_ASM("16 bytes", ".byte 0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x90",
            "a"(0));
}

static void not_available(void)
{
    word cr0 = read_cr0() & ~0xeul;
    write_cr0(cr0 | 8);
    TRY_ASM("fld1 with TS", "fld1", "a"(0));
    TRY_ASM("wait with TS, MP=0", "fwait", "a"(0));
    write_cr0(cr0 | 8 | 2);
    TRY_ASM("wait with TS, MP=1", "fwait", "a"(0));
    write_cr0(cr0 | 4);
    TRY_ASM("fld1 with EM", "fld1", "a"(0));
    TRY_ASM("wait with EM", "fwait", "a"(0));
    TRY_ASM("emms with EM", "emms", "a"(0));
    write_cr0(cr0 | 8);
    TRY_ASM("emms with TS", "emms", "a"(0));
    TRY_ASM("fxsave with TS", "fxsave (%%ecx)", "c"(0x300000));
    TRY_ASM("movaps without OSFXSR and TS", "movaps %%xmm0, %%xmm1", "a"(0));
    write_cr4(read_cr4() | 0x200);
    TRY_ASM("movaps with TS", "movaps %%xmm0, %%xmm1", "a"(0));
    TRY_ASM("clts", "clts", "a"(0));
    TRY_ASM("movaps after clts", "movaps %%xmm0, %%xmm1", "a"(0));
    write_cr0(cr0 | 4);
    TRY_ASM("movaps with EM", "movaps %%xmm0, %%xmm1", "a"(0));
    write_cr0(cr0);
    TRY_ASM("movaps unaligned", "movaps 4(%%ecx), %%xmm1", "c"(0x300000));
    TRY_ASM("movups unaligned", "movups 4(%%ecx), %%xmm1", "c"(0x300000));
    TRY_ASM("fxsave unaligned", "fxsave 8(%%ecx)", "c"(0x300000));
    TRY_ASM("ldmxcsr reserved bit", "ldmxcsr (%%ecx)", "c"(memset((void *)0x300000, 0xff, 4)));
    TRY_ASM("xgetbv without OSXSAVE", "xgetbv", "c"(0));
    write_cr4(read_cr4() & ~0x200ul);
}

int main(void)
{
    divide();
    software();
    bound();
    undefined();
    too_long();
    not_available();
    return 0;
}
