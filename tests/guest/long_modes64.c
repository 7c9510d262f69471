/* tests/guest/long_modes64.c - 64-bit and compatibility mode: transfers between them, IST, IRET, gates, what is gone. */
#include "rt.h"

static volatile uint64_t seen[16] __attribute__((used));
enum {
    F_BADCS = SEL_FREE,        /* code with L and D */
    F_CALL64 = F_BADCS + 8,    /* 64-bit call gate, two slots, ring 3 may use it */
    F_CALL32 = F_CALL64 + 16,  /* a gate whose upper type bits are not zero */
    F_CODE16C = F_CALL32 + 16, /* 16-bit compatibility code of ring 0 */
};

__asm__(
    ".text\n"
    ".code32\n"
    "compat: movl %cs, %eax\n movl %eax, seen\n pushl $0x11223344\n movl %esp, seen+8\n popl %eax\n movl %eax, "
    "seen+16\n"
    "xorl %eax, %eax\n decl %eax\n movl %eax, seen+24\n" /* 48 is dec here, REX in 64-bit mode */
    ".byte 0x40\n movl %eax, seen+32\n lretl\n"
    "compat_ud: ud2\n"
    "compat_sel: movl $0x300000, %ecx\n movl %fs:(%ecx), %eax\n movl %eax, seen+8\n lretl\n"
    ".code16\n compat16: movw %cs, %ax\n addr32 movl %eax, seen\n movw $0x1234, %bx\n pushw %bx\n popw %cx\n lretl\n"
    ".code64\n"
    "gate_target: movq %rsp, seen\n movl %cs, %eax\n movq %rax, seen+8\n movl %ss, %eax\n movq %rax, seen+16\n"
    "movq (%rsp), %rax\n movq %rax, seen+24\n movq 8(%rsp), %rax\n movq %rax, seen+32\n movq 16(%rsp), %rax\n movq "
    "%rax, seen+40\n"
    "movq 24(%rsp), %rax\n movq %rax, seen+48\n lretq\n");
extern void compat(void), compat_ud(void), compat_sel(void), compat16(void), gate_target(void);

static struct {
    uint32_t off;
    uint16_t sel;
} __attribute__((packed)) far32;
static struct {
    uint64_t off;
    uint16_t sel;
} __attribute__((packed)) far64;
static uint8_t low_stack[4096] __attribute__((aligned(16), used));

static uint64_t u(uint64_t x) { return x; }

static void call_far(unsigned sel, word to)
{
    far32.off = (uint32_t)to;
    far32.sel = (uint16_t)sel;
    __asm__ volatile("lcall *%0" : : "m"(far32) : "rax", "rbx", "rcx", "rdx", "memory", "cc");
}

static void compatibility(void)
{
    word sp;
    __asm__ volatile("movq %%rsp, %0" : "=r"(sp));
    TRY("far call to compatibility mode", call_far(SEL_KCODE32, (word)compat));
    rt_printf("  cs %lx pushed 4 bytes, popped %lx, dec %lx inc %lx\n", u(seen[0]), u(seen[2]), u(seen[3]),
              u(seen[4]) & 0xffffffff);
    TRY("#UD in compatibility mode", call_far(SEL_KCODE32, (word)compat_ud));
    rt_printf("  frame cs %lx ss %lx\n", rt_exc.cs, rt_exc.ss);
    rt_gdt[F_CODE16C / 8] = rt_desc(0x100000, 0xffff, 0x009b);
    seen[0] = 0;
    TRY("16-bit compatibility mode", call_far(F_CODE16C, (word)compat16 - 0x100000));
    rt_printf("  cs %lx\n", u(seen[0]) & 0xffff);
    /* In compatibility mode FS has a base and a limit again. */
    rt_gdt[63] = rt_desc(0x1000, 0x300, 0xc093);
    *(volatile uint32_t *)0x301000 = 0x77;
    __asm__ volatile("movl %0, %%fs" : : "r"(63 * 8));
    TRY("fs with a base in compatibility mode", call_far(SEL_KCODE32, (word)compat_sel));
    rt_printf("  %lx\n", u(seen[1]) & 0xffffffff);
    rt_gdt[63] = rt_desc(0x1000, 0x2ff, 0xc093);
    __asm__ volatile("movl %0, %%fs" : : "r"(63 * 8));
    TRY("fs limit in compatibility mode", call_far(SEL_KCODE32, (word)compat_sel));
    TRY("fs limit in 64-bit mode", __asm__ volatile(AT "movl %%fs:0x300000, %%eax" : : : "rax"));
    __asm__ volatile("movl %0, %%fs" : : "r"(SEL_KDATA));
    rt_gdt[F_BADCS / 8] = rt_desc(0, 0xfffff, 0xe09b);
    TRY("code with both L and D", rt_at = 0; call_far(F_BADCS, (word)compat_ud));
}

static void transfers(void)
{
    far64.off = (word)compat_ud;
    far64.sel = SEL_KCODE;
    TRY("ljmp m16:64 to 64-bit code", __asm__ volatile("movq $1f, %0\n rex.W ljmp *%0\n 1:"
                                                       : "+m"(far64)
                                                       :
                                                       : "memory"));
    far64.off = 0x800000000000ull;
    TRY("ljmp to non-canonical", __asm__ volatile(AT "rex.W ljmp *%0" : : "m"(far64)));
    far64.sel = SEL_UCODE64;
    TRY("ljmp to ring 3", __asm__ volatile(AT "rex.W ljmp *%0" : : "m"(far64)));
    TRY_ASM("direct far jmp is gone", ".byte 0xea, 0, 0, 0, 0, 8, 0", "a"(0));
    TRY_ASM("push es is gone", ".byte 0x06", "a"(0));
    TRY_ASM("aaa is gone", ".byte 0x37", "a"(0));
    TRY_ASM("pusha is gone", ".byte 0x60", "a"(0));
    TRY_ASM("bound is gone", ".byte 0x62, 0x00, 0, 0, 0, 0", "a"(0));
    TRY_ASM("into is gone", ".byte 0xce", "a"(0));
    TRY_ASM("les is gone", ".byte 0xc4, 0x00, 0, 0, 0, 0", "a"(0));
    TRY_ASM("salc is gone", ".byte 0xd6", "a"(0));
    TRY_ASM("82 /0 is gone", ".byte 0x82, 0xc0, 0", "a"(0));
    TRY_ASM("rex before a prefix is ignored", ".byte 0x48, 0x66, 0x90", "a"(0));
    TRY_ASM("lret with an unused frame", "pushq %0\n pushq $1f\n lretq\n 1:", "i"(SEL_KCODE));
    TRY_ASM("lldt needs 16 bytes", "lldt %%ax", "a"(RT_GDT_SLOTS * 8 - 8));
    TRY("null ss at ring 0", __asm__ volatile("movl %0, %%ss\n pushq $1\n popq %%rax\n movl %1, %%ss"
                                              :
                                              : "r"(0), "r"(SEL_KDATA)
                                              : "rax"));
    TRY("null ss with RPL 1 at ring 0", __asm__ volatile(AT "movl %0, %%ss" : : "r"(1)));
    TRY("ds of ring 3 rules", __asm__ volatile(AT "movl %0, %%ds\n movl %1, %%ds" : : "r"(SEL_UDATA), "r"(SEL_KDATA)));
    TRY("null ds is usable", __asm__ volatile("movl %0, %%ds\n movl rt_at, %%eax\n movl %1, %%ds"
                                              :
                                              : "r"(0), "r"(SEL_KDATA)
                                              : "rax"));
}

static void frames(void)
{
    /* RSP is aligned to 16 before the frame is pushed (SDM 3A 6.14.2); SS:RSP are pushed always. */
    TRY("int with an odd stack", __asm__ volatile("movq %rsp, seen\n subq $5, %rsp\n movq %rsp, seen+8\n int $0x30"));
    rt_printf("  pushed rsp is the old %d, ss %lx\n", rt_exc.sp == seen[1], rt_exc.ss);
    rt_gate_default(0x30, 0x8e);
    rt_idt[2 * 0x30] |= 1ull << 32;
    rt_tss.ist[0] = (word)low_stack + 4096 - 3;
    TRY("int on IST 1", __asm__ volatile("int $0x30"));
    rt_idt[2 * 0x30] ^= 3ull << 32;
    rt_tss.ist[1] = 0x900000000000ull;
    TRY("int on a non-canonical IST", __asm__ volatile(AT "int $0x30"));
    rt_gate_default(0x30, 0x8e);
    rt_gate(0x31, (void (*)(void))(rt_stubs + 16 * 0x31), SEL_KCODE32, 0x8e);
    TRY("gate to compatibility code", __asm__ volatile(AT "int $0x31"));
    rt_gate(0x31, (void (*)(void))0x800000000000ul, SEL_KCODE, 0x8e);
    TRY("gate to non-canonical", __asm__ volatile(AT "int $0x31"));
    rt_gate_default(0x31, 0x85);
    TRY("task gate", __asm__ volatile(AT "int $0x31"));
    rt_gate_default(0x31, 0x86);
    TRY("16-bit interrupt gate", __asm__ volatile(AT "int $0x31"));
    rt_load_idt(0x31 * 16 + 14);
    TRY("gate across the IDT's limit", __asm__ volatile(AT "int $0x31"));
    rt_load_idt(0xfff);
    const word rsp0 = rt_tss.rsp[0];
    rt_tss.rsp[0] = rsp0 - 5;
    TRY_USER("from ring 3", __asm__ volatile("ud2"));
    rt_printf("  ss %lx cs %lx\n", rt_exc.ss, rt_exc.cs);
    rt_tss.rsp[0] = rsp0;
}

static void irets(void)
{
    TRY("iretq within ring 0",
        __asm__ volatile("movq %%rsp, %%rax\n pushq %0\n pushq %%rax\n pushq $2\n pushq %1\n pushq $1f\n iretq\n 1:"
                         :
                         : "i"(SEL_KDATA), "i"(SEL_KCODE)
                         : "rax", "memory", "cc"));
    TRY("iretq to a null ss at ring 0",
        __asm__ volatile("movq %%rsp, %%rax\n pushq $0\n pushq %%rax\n pushq $2\n pushq %1\n pushq $1f\n iretq\n 1: "
                         "movl %0, %%eax\n movl %%eax, %%ss"
                         :
                         : "i"(SEL_KDATA), "i"(SEL_KCODE)
                         : "rax", "memory", "cc"));
    TRY("iretq to ring 3", rt_user_at(SEL_UCODE64, (word) "\xcd\x80", SEL_UDATA, 0x380000, 2));
    TRY("iretq to compatibility ring 3", rt_user_at(SEL_UCODE, (word) "\xcd\x80", SEL_UDATA, 0x380000, 2));
    rt_printf("  frame cs %lx ss %lx sp %lx\n", rt_exc.cs, rt_exc.ss, rt_exc.sp);
    TRY("iretq to a null ss at ring 3", rt_user_at(SEL_UCODE64, (word) "\xcd\x80", 3, 0x380000, 2));
    TRY("iretq to ss of ring 0", rt_user_at(SEL_UCODE64, (word) "\xcd\x80", SEL_KDATA, 0x380000, 2));
    TRY("iretq to non-canonical", rt_user_at(SEL_UCODE64, 0x800000000000ul, SEL_UDATA, 0x380000, 2));
    TRY("pop at 2^63", rt_user_at(SEL_UCODE64, (word) "\x58\xcd\x80", SEL_UDATA, 1ul << 63, 2));
    rt_printf("  sp %lx\n", rt_exc.sp);
    TRY("push below 2^63 + 20h", rt_user_at(SEL_UCODE64, (word) "\x50\x50\xcd\x80", SEL_UDATA, (1ul << 63) + 32, 2));
    rt_printf("  sp %lx\n", rt_exc.sp);
    TRY("iretq with NT", set_flags(0x4002); __asm__ volatile(AT "iretq"));
    TRY("iretq with VM in the image", rt_user_at(SEL_UCODE64, (word) "\xcd\x80", SEL_UDATA, 0x380000, 0x20002));
    rt_printf("  flags %lx\n", rt_exc.flags & ~0x8d5ul);
    TRY("iretl", __asm__ volatile("movq %%rsp, %%rax\n subq $20, %%rsp\n movl %1, 4(%%rsp)\n movl $2, 8(%%rsp)\n movl "
                                  "%%eax, 12(%%rsp)\n movl %0, 16(%%rsp)\n"
                                  "movl $1f, (%%rsp)\n iretl\n 1:"
                                  :
                                  : "i"(SEL_KDATA), "i"(SEL_KCODE)
                                  : "rax", "memory", "cc"));
}

static void gates(void)
{
    word to = (word)gate_target;
    rt_gdt[F_CALL64 / 8] = (to & 0xffff) | (uint64_t)SEL_KCODE << 16 | 0xecull << 40 | (to >> 16 & 0xffff) << 48;
    rt_gdt[F_CALL64 / 8 + 1] = to >> 32;
    far32.sel = F_CALL64;
    TRY("call gate at ring 0", __asm__ volatile("lcall *%0" : : "m"(far32) : "rax", "memory"));
    rt_printf("  cs %lx ss %lx return cs %lx\n", u(seen[1]), u(seen[2]), u(seen[4]));
    far32.sel = F_CALL64 | 3;
    TRY_USER("call gate from ring 3", __asm__ volatile("lcall *%0" : : "m"(far32) : "rax", "memory"));
    rt_printf("  esp0-esp %lx cs %lx ss %lx return cs %lx old ss %lx\n", rt_tss.rsp[0] - seen[0], u(seen[1]),
              u(seen[2]), u(seen[4]), u(seen[6]));
    rt_gdt[F_CALL64 / 8 + 1] |= 1ull << 40;
    TRY_USER("call gate with type bits above", __asm__ volatile(AT "lcall *%0" : : "m"(far32) : "rax", "memory"));
    rt_gdt[F_CALL64 / 8 + 1] = to >> 32;
    rt_gdt[F_CALL64 / 8] ^= (uint64_t)(SEL_KCODE ^ SEL_KCODE32) << 16;
    TRY_USER("call gate to compatibility code", __asm__ volatile(AT "lcall *%0" : : "m"(far32) : "rax", "memory"));
    far32.sel = SEL_TSS;
    TRY("far call to a TSS", __asm__ volatile(AT "lcall *%0" : : "m"(far32) : "rax", "memory"));
    TRY_ASM("ltr busy", "ltr %%ax", "a"(SEL_TSS));
    uint32_t ar = 0;
    uint8_t ok;
    __asm__ volatile("larl %2, %0\n setz %1" : "+r"(ar), "=qm"(ok) : "r"(F_CALL64));
    rt_printf("lar of a call gate %d %x\n", ok, ar & 0xff00);
    __asm__ volatile("lsll %2, %0\n setz %1" : "+r"(ar), "=qm"(ok) : "r"(SEL_TSS));
    rt_printf("lsl of the TSS %d %x\n", ok, ar);
}

int main(void)
{
    compatibility();
    transfers();
    frames();
    irets();
    gates();
    return 0;
}
