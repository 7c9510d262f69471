/* tests/guest/priv_rings.c - what ring 3 may do, gates into ring 0 and back, returns outward, IOPL and the I/O bitmap. */
#include "rt.h"

enum {
    F_GATE32 = SEL_FREE, /* call gate, 2 parameters, ring 3 may use it */
    F_GATE16 = F_GATE32 + 8,
    F_GATE0 = F_GATE16 + 8,      /* DPL 0 */
    F_GATENP = F_GATE0 + 8,      /* not present */
    F_GATENULL = F_GATENP + 8,   /* to a null selector */
    F_GATEDATA = F_GATENULL + 8, /* to a data segment */
    F_CONF = F_GATEDATA + 8,     /* conforming code of ring 0 */
    F_CODE1 = F_CONF + 8,        /* ring 1 */
    F_DATA1 = F_CODE1 + 8,
    F_CNP = F_DATA1 + 8,        /* ring 3 code, not present */
    F_GATESAME = F_CNP + 8,     /* gate to ring 3 code */
    F_STACK16 = F_GATESAME + 8, /* ring 3, 16-bit stack of 64 KiB */
};

/* ---- what the gates lead to: record what arrived, return ---- */
static volatile uint32_t seen[12] __attribute__((used));
__asm__(".text\n"
        "gate32_entry: movl %esp, seen\n movl %ss, %eax\n movl %eax, seen+4\n movl %cs, %eax\n movl %eax, seen+8\n"
        "movl 4(%esp), %eax\n movl %eax, seen+12\n movl 8(%esp), %eax\n movl %eax, seen+16\n"
        "movl 12(%esp), %eax\n movl %eax, seen+20\n movl 16(%esp), %eax\n movl %eax, seen+24\n"
        "movl 20(%esp), %eax\n movl %eax, seen+28\n"
        "movl $0x10, %eax\n movl %eax, %fs\n" /* ring 0 data: the return outward must null it */
        "lret $8\n"
        "gate16_entry: movl %esp, seen\n movzwl 2(%esp), %eax\n movl %eax, seen+4\n movzwl 4(%esp), %eax\n movl %eax, "
        "seen+8\n"
        "movzwl 6(%esp), %eax\n movl %eax, seen+12\n movzwl 10(%esp), %eax\n movl %eax, seen+16\n"
        "int $0x80\n" /* there is no way back to above 64 KiB */
        "conf_entry: movl %cs, %eax\n movl %eax, seen\n lret\n"
        "same_entry: movl %cs, %eax\n movl %eax, seen\n movl %esp, seen+4\n lret\n"
        "ring1_entry: movl %cs, %eax\n movl %eax, seen\n int $0x80\n"
        "ring1_sti: movl $771f, rt_at\n 771: sti\n int $0x80\n");
extern void gate32_entry(void), gate16_entry(void), conf_entry(void), same_entry(void), ring1_entry(void),
    ring1_sti(void);

static uint64_t gate(unsigned sel, void (*to)(void), unsigned type, unsigned params)
{
    uint32_t off = (uint32_t)to;
    return (off & 0xffff) | (uint64_t)sel << 16 | (uint64_t)params << 32 | (uint64_t)type << 40 |
           (uint64_t)(off >> 16) << 48;
}

static void build(void)
{
    rt_gdt[F_GATE32 / 8] = gate(SEL_KCODE, gate32_entry, 0xec, 2);
    /* A 16-bit gate has a 16-bit offset: the entry is copied low. */
    memcpy((void *)0x9000, (void *)gate16_entry, 64);
    rt_gdt[F_GATE16 / 8] = gate(SEL_KCODE, (void (*)(void))0x9000, 0xe4, 2);
    rt_gdt[F_GATE0 / 8] = gate(SEL_KCODE, gate32_entry, 0x8c, 0);
    rt_gdt[F_GATENP / 8] = gate(SEL_KCODE, gate32_entry, 0x6c, 0);
    rt_gdt[F_GATENULL / 8] = gate(0, gate32_entry, 0xec, 0);
    rt_gdt[F_GATEDATA / 8] = gate(SEL_KDATA, gate32_entry, 0xec, 0);
    rt_gdt[F_GATESAME / 8] = gate(SEL_UCODE, same_entry, 0xec, 3);
    rt_gdt[F_CONF / 8] = rt_desc(0, 0xfffff, 0xc09e);
    rt_gdt[F_CODE1 / 8] = rt_desc(0, 0xfffff, 0xc0ba);
    rt_gdt[F_DATA1 / 8] = rt_desc(0, 0xfffff, 0xc0b2);
    rt_gdt[F_CNP / 8] = rt_desc(0, 0xfffff, 0xc07a);
    rt_gdt[F_STACK16 / 8] = rt_desc(0, 0xffff, 0x00f2);
    rt_tss.ss1 = F_DATA1 | 1;
    rt_tss.esp1 = 0x380000;
}

static void privileged(void)
{
    TRY_USER_ASM("nothing", "nop");
    TRY_USER_ASM("hlt", "hlt");
    TRY_USER_ASM("cli", "cli");
    TRY_USER_ASM("sti", "sti");
    TRY_USER_ASM("mov from cr0", "movl %%cr0, %%eax");
    TRY_USER_ASM("mov to cr0", "movl %%eax, %%cr0");
    TRY_USER_ASM("mov from cr2", "movl %%cr2, %%eax");
    TRY_USER_ASM("mov from dr0", "movl %%dr0, %%eax");
    TRY_USER_ASM("mov to dr7", "movl %%eax, %%dr7");
    TRY_USER_ASM("clts", "clts");
    TRY_USER_ASM("lmsw", "lmsw %%ax");
    TRY_USER_ASM("lgdt", "lgdt 0x300000");
    TRY_USER_ASM("lidt", "lidt 0x300000");
    TRY_USER_ASM("lldt", "lldt %%ax");
    TRY_USER_ASM("ltr", "ltr %%ax");
    TRY_USER_ASM("invlpg", "invlpg 0x300000");
    TRY_USER_ASM("invd", "invd");
    TRY_USER_ASM("wbinvd", "wbinvd");
    TRY_USER_ASM("rdmsr", "rdmsr");
    TRY_USER_ASM("wrmsr", "wrmsr");
    TRY_USER_ASM("sysexit", "sysexit");
    TRY_USER_ASM("in", "inb $0x61, %%al");
    TRY_USER_ASM("out", "outb %%al, $0x80");
    TRY_USER_ASM("sgdt", "sgdt 0x300000");
    TRY_USER_ASM("sidt", "sidt 0x300000");
    TRY_USER_ASM("sldt", "sldt %%ax");
    TRY_USER_ASM("str", "str %%ax");
    TRY_USER_ASM("smsw", "smsw %%ax");
    TRY_USER_ASM("rdtsc", "rdtsc");
    TRY_USER_ASM("cpuid", "pushl %%ebx\n xorl %%eax, %%eax\n cpuid\n popl %%ebx");
    TRY_USER_ASM("int3", "int3");
    TRY_USER_ASM("int 0x80", "int $0x80");
    TRY_USER_ASM("int 0x21 with a ring 0 gate", "int $0x21");
    TRY_USER_ASM("int 13 with a ring 0 gate", "int $13");
    TRY_USER_ASM("div by zero from ring 3", "xorl %%ecx, %%ecx\n divl %%ecx");
    write_cr4(read_cr4() | 4);
    TRY_USER_ASM("rdtsc with TSD", "rdtsc");
    TRY_ASM("rdtsc with TSD at ring 0", "rdtsc", "a"(0));
    write_cr4(read_cr4() & ~4ul);
    TRY_USER_ASM("load ds with ring 0 data", "movl $0x10, %%eax\n movl %%eax, %%ds");
    TRY_USER_ASM("load ss with ring 0 data", "movl $0x10, %%eax\n movl %%eax, %%ss");
    TRY_USER_ASM("load ss with RPL 0", "movl $0x20, %%eax\n movl %%eax, %%ss");
    TRY_USER_ASM("load es with null", "xorl %%eax, %%eax\n movl %%eax, %%es");
    TRY_USER("load es with conforming ring 0 code", __asm__ volatile(AT "movl %0, %%eax\n movl %%eax, %%es"
                                                                     :
                                                                     : "i"(F_CONF)
                                                                     : "memory", "eax"));
}

static void io_and_flags(void)
{
    rt_iomap[0x80 / 8] &= (uint8_t)~1;
    TRY_USER_ASM("out to an allowed port", "outb %%al, $0x80");
    TRY_USER_ASM("word out, second port denied", "outw %%ax, $0x80");
    rt_iomap[0x80 / 8] &= (uint8_t)~2;
    TRY_USER_ASM("word out, both allowed", "outw %%ax, $0x80");
    rt_gdt[SEL_TSS / 8] = rt_desc((uint32_t)&rt_tss, sizeof rt_tss + 0x10 - 1, 0x89);
    __asm__ volatile("ltr %w0" : : "r"(SEL_TSS));
    TRY_USER_ASM("bitmap ends before the port", "outb %%al, $0x80");
    rt_gdt[SEL_TSS / 8] = rt_desc((uint32_t)&rt_tss, sizeof rt_tss + 8192, 0x89);
    __asm__ volatile("ltr %w0" : : "r"(SEL_TSS));
    TRY_USER_ASM("bitmap is whole again", "outb %%al, $0x80");
    TRY(
        "out with IOPL 3", void f(void) {
            __asm__ volatile(AT "outb %al, $0x81\n ud2");
        } rt_user_at(SEL_UCODE, (word)f, SEL_UDATA, (word)rt_user_stack_top - 64, 0x3002));
    TRY(
        "cli with IOPL 3", void f(void) {
            __asm__ volatile(AT "cli\n ud2");
        } rt_user_at(SEL_UCODE, (word)f, SEL_UDATA, (word)rt_user_stack_top - 64, 0x3002));
    TRY(
        "cli with IOPL 2", void f(void) {
            __asm__ volatile(AT "cli\n ud2");
        } rt_user_at(SEL_UCODE, (word)f, SEL_UDATA, (word)rt_user_stack_top - 64, 0x2002));
    TRY("cli at ring 1 with IOPL 1", rt_user_at(F_CODE1 | 1, (word)ring1_sti, F_DATA1 | 1, 0x390000, 0x1002));
    TRY("cli at ring 1 with IOPL 0", rt_user_at(F_CODE1 | 1, (word)ring1_sti, F_DATA1 | 1, 0x390000, 0x0002));
    /* POPF at ring 3 silently keeps IF and IOPL (SDM 2B POPF). */
    TRY_USER("popf at ring 3, IOPL 0", __asm__ volatile("pushl $0x3202\n popfl\n pushfl\n popl seen\n"
                                                        :
                                                        :
                                                        : "memory", "cc"));
    rt_printf("flags %08x\n", seen[0]);
    TRY(
        "popf at ring 3, IOPL 3", void f(void) {
            __asm__ volatile("pushl $0x0ed7\n popfl\n pushfl\n popl seen\n pushl $0x3002\n popfl\n int $0x80"
                             :
                             :
                             : "memory", "cc");
        } rt_user_at(SEL_UCODE, (word)f, SEL_UDATA, (word)rt_user_stack_top - 64, 0x3002));
    rt_printf("flags %08x\n", seen[0]);
    set_flags(0x3246);
    rt_printf("popf at ring 0: %08lx\n", get_flags() & ~0x8d5ul);
    set_flags(2);
}

static void frame(const char *name)
{
    rt_printf("%s: cs %lx ss %lx flags %lx\n", name, rt_exc.cs & 0xffff, rt_exc.ss & 0xffff, rt_exc.flags & ~0x108d5ul);
}

static void gates(void)
{
    const uint32_t top = (uint32_t)rt_tss.esp0;
    TRY_USER("call gate with parameters",
             __asm__ volatile("pushl $0x22222222\n pushl $0x11111111\n lcall %0, $0x12345678\n"
                              "movl %%fs, %%eax\n movl %%eax, seen+32\n"
                              :
                              : "i"(F_GATE32 | 3)
                              : "eax", "memory"));
    rt_printf("esp0-esp %u ss %x cs %x return cs %x params %08x %08x old ss %x, fs after return %x\n", top - seen[0],
              seen[1], seen[2], seen[3], seen[4], seen[5], seen[7], seen[8]);
    rt_printf("old esp: top-%x, afterwards top-%lx\n", (uint32_t)rt_user_stack_top - seen[6],
              (word)rt_user_stack_top - rt_exc.sp);
    TRY_USER("16-bit call gate", __asm__ volatile("pushw $0x2222\n pushw $0x1111\n lcall %0, $0\n ud2"
                                                  :
                                                  : "i"(F_GATE16 | 3)
                                                  : "eax", "memory"));
    rt_printf("esp0-esp %u return cs %x params %04x %04x old ss %x\n", top - seen[0], seen[1], seen[2], seen[3],
              seen[4]);
    TRY_USER("gate of ring 0", __asm__ volatile(AT "lcall %0, $0" : : "i"(F_GATE0 | 3) : "memory", "eax"));
    TRY_USER("gate with RPL 3 of ring 0, jmp", __asm__ volatile(AT "ljmp %0, $0"
                                                                :
                                                                : "i"(F_GATE0 | 3)
                                                                : "memory", "eax"));
    TRY_USER("absent gate", __asm__ volatile(AT "lcall %0, $0" : : "i"(F_GATENP | 3) : "memory", "eax"));
    TRY_USER("gate to null", __asm__ volatile(AT "lcall %0, $0" : : "i"(F_GATENULL | 3) : "memory", "eax"));
    TRY_USER("gate to data", __asm__ volatile(AT "lcall %0, $0" : : "i"(F_GATEDATA | 3) : "memory", "eax"));
    TRY_USER("jmp through a gate inward", __asm__ volatile(AT "ljmp %0, $0" : : "i"(F_GATE32 | 3) : "memory", "eax"));
    TRY_USER("call to ring 0 code", __asm__ volatile(AT "lcall %0, $0" : : "i"(SEL_KCODE) : "memory", "eax"));
    TRY_USER("call to absent code", __asm__ volatile(AT "lcall %0, $0" : : "i"(F_CNP | 3) : "memory", "eax"));
    TRY_USER("call to data", __asm__ volatile(AT "lcall %0, $0" : : "i"(SEL_UDATA) : "memory", "eax"));
    TRY_USER_ASM("call to null", "lcall $0, $0");
    TRY_USER("call beyond the GDT", __asm__ volatile(AT "lcall %0, $0"
                                                     :
                                                     : "i"(RT_GDT_SLOTS * 8 + 3)
                                                     : "memory", "eax"));
    seen[0] = 0;
    TRY_USER("call to conforming code of ring 0", __asm__ volatile(AT "lcall %0, $conf_entry"
                                                                   :
                                                                   : "i"(F_CONF)
                                                                   : "memory", "eax"));
    rt_printf("cs there %x\n", seen[0]);
    TRY_USER("gate to the same ring", __asm__ volatile("lcall %0, $0" : : "i"(F_GATESAME | 3) : "eax", "memory"));
    rt_printf("cs there %x, no stack switch: %d\n", seen[0],
              seen[1] > (uint32_t)rt_user_stack_top - 8192 && seen[1] < (uint32_t)rt_user_stack_top);
    TRY_ASM("ring 0 calls ring 3 code", "lcall %0, $0", "i"(SEL_UCODE));
    TRY_ASM("ring 0 calls a gate to ring 3", "lcall %0, $0", "i"(F_GATESAME));
}

static void returns(void)
{
    TRY("iret to ring 1", rt_user_at(F_CODE1 | 1, (word)ring1_entry, F_DATA1 | 1, 0x390000, 2));
    rt_printf("cs %x\n", seen[0]);
    frame("ring 1 frame");
    TRY("iret with ss of another ring", rt_user_at(SEL_UCODE, 0, SEL_KDATA, 0x390000, 2));
    TRY("iret with ss RPL 0", rt_user_at(SEL_UCODE, 0, 0x20, 0x390000, 2));
    TRY("iret with null ss", rt_user_at(SEL_UCODE, 0, 0, 0x390000, 2));
    TRY("iret with code in ss", rt_user_at(SEL_UCODE, 0, SEL_UCODE, 0x390000, 2));
    TRY("iret to data", rt_user_at(SEL_UDATA, 0, SEL_UDATA, 0x390000, 2));
    TRY("iret to null", rt_user_at(0, 0, SEL_UDATA, 0x390000, 2));
    TRY("iret to absent code", rt_user_at(F_CNP | 3, 0, SEL_UDATA, 0x390000, 2));
    TRY("iret, RPL differs from DPL", rt_user_at(F_CODE1 | 3, 0, SEL_UDATA, 0x390000, 2));
    TRY_USER("iret inward from ring 3", __asm__ volatile("pushl $2\n pushl $8\n pushl $0\n" AT "iretl" : : : "memory"));
    TRY_USER("retf inward from ring 3", __asm__ volatile("pushl $8\n pushl $0\n" AT "lret" : : : "memory"));
    TRY_USER("iret at ring 3 to ring 3",
             __asm__ volatile("pushl $0x3203\n pushl %0\n pushl $1f\n iretl\n 1: pushfl\n popl seen"
                              :
                              : "i"(SEL_UCODE)
                              : "memory", "cc"));
    rt_printf("flags %08x\n", seen[0]);
    TRY(
        "segments of ring 0 are nulled by the way out",
        void f(void) {
            __asm__ volatile(
                "movl %%ds, %%eax\n movl %%es, %%ecx\n movl %%fs, %%edx\n movl %%gs, %%esi\n"
                "movl %0, %%edi\n movl %%edi, %%ds\n movl %%eax, seen\n movl %%ecx, seen+4\n movl %%edx, seen+8\n"
                "movl %%esi, seen+12\n int $0x80"
                :
                : "i"(SEL_UDATA)
                : "memory");
        } __asm__ volatile("movl %0, %%fs\n movl %1, %%gs"
                           :
                           : "r"(SEL_UDATA), "r"(F_CONF));
        rt_user_at(SEL_UCODE, (word)f, SEL_UDATA, (word)rt_user_stack_top - 64, 2));
    rt_printf("ds %x es %x fs %x gs %x\n", seen[0], seen[1], seen[2], seen[3]);
    TRY(
        "16-bit stack at ring 3", void f(void) {
            __asm__ volatile("movl %esp, seen\n pushw $7\n" AT "int $0x80");
        } rt_user_at(SEL_UCODE, (word)f, F_STACK16 | 3, 0xabcd0000, 2));
    rt_printf("sp after a push %04lx\n", rt_exc.sp & 0xffff);
    TRY(
        "push over the end of a 16-bit stack",
        void f(void) { __asm__ volatile(AT "pushl $7\n ud2"); } rt_user_at(SEL_UCODE, (word)f, F_STACK16 | 3, 2, 2));
}

static void idt_gates(void)
{
    rt_gate_default(0x40, 0xee);
    TRY_USER_ASM("ring 3 gate", "int $0x40");
    rt_gate_default(0x40, 0x6e);
    TRY_USER_ASM("absent gate", "int $0x40");
    TRY_ASM("absent gate from ring 0", "int $0x40", "a"(0));
    rt_gate_default(0x40, 0xec);
    TRY_USER_ASM("call gate in the IDT", "int $0x40");
    rt_gate(0x40, (void (*)(void))rt_stubs, SEL_KDATA, 0xee);
    TRY_USER_ASM("gate to data", "int $0x40");
    rt_gate(0x40, (void (*)(void))rt_stubs, 0, 0xee);
    TRY_USER_ASM("gate to null", "int $0x40");
    rt_gate(0x40, (void (*)(void))rt_stubs, SEL_UCODE, 0xee);
    TRY_ASM("gate outward", "int $0x40", "a"(0));
    rt_gate(0x40, (void (*)(void))rt_stubs, F_CNP, 0xee);
    TRY_USER_ASM("gate to absent code", "int $0x40");
    rt_gate(0x40, (void (*)(void))(rt_stubs + 16 * 0x40), RT_GDT_SLOTS * 8, 0xee);
    TRY_USER_ASM("gate beyond the GDT", "int $0x40");
    rt_gate(0x40, (void (*)(void))(rt_stubs + 16 * 0x40), SEL_KCODE, 0xef);
    TRY_USER_ASM("trap gate", "int $0x40");
    rt_load_idt(0x81 * 8 - 1);
    TRY_ASM("int within the IDT's limit", "int $0x80", "a"(0));
    TRY_ASM("int beyond the IDT's limit", "int $0x81", "a"(0));
    rt_load_idt(0x82 * 8 - 2);
    TRY_ASM("int across the IDT's limit", "int $0x81", "a"(0));
    rt_load_idt(0x7ff);
}

int main(void)
{
    build();
    privileged();
    frame("frame from ring 3");
    io_and_flags();
    gates();
    returns();
    idt_gates();
    return 0;
}
