/* tests/guest/exc_double.c - faults while a fault is being delivered: served one after the other, or #DF (SDM 3A table 6-5). */
#include "rt.h"

#define PD ((volatile uint32_t *)0x400000)
#define PT ((volatile uint32_t *)0x401000)
#define LIN(n) (0x800000u + (n)*0x1000u)
enum { P = 1, W = 2, U = 4, PS = 0x80 };
enum { F_T1 = SEL_FREE };

static void spoil(unsigned vec) { rt_gate_default(vec, 0x0e); } /* not present */
static void repair(void)
{
    for (unsigned v = 0; v < 32; v++)
        rt_gate_default(v, 0x8e);
}

static void contributory(void)
{
    spoil(0);
    TRY_ASM("#DE, gate absent", "divl %%ecx", "a"(1), "d"(0), "c"(0));
    spoil(11);
    TRY_ASM("#DE, gate absent, #NP's too", "divl %%ecx", "a"(1), "d"(0), "c"(0));
    repair();
    spoil(13);
    TRY_ASM("#GP, gate absent", "movw %%ax, %%es", "a"(0x1238));
    spoil(11);
    TRY_ASM("#GP, gate absent, #NP's too", "movw %%ax, %%es", "a"(0x1238));
    repair();
    spoil(6);
    TRY_ASM("#UD, gate absent", "ud2", "a"(0));
    spoil(11);
    TRY_ASM("#UD, gate absent, #NP's too", "ud2", "a"(0));
    repair();
    spoil(3);
    TRY_ASM("int3, gate absent", "int3", "a"(0));
    repair();
    rt_load_idt(13 * 8 - 1);
    TRY_ASM("#GP beyond the IDT", "movw %%ax, %%es", "a"(0x1238));
    rt_load_idt(6 * 8 - 1 + 8 * 8);
    TRY_ASM("#UD within a short IDT", "ud2", "a"(0));
    TRY_ASM("int 14 beyond a short IDT", "int $14", "a"(0));
    rt_load_idt(0x7ff);
    rt_gate(0, (void (*)(void))rt_stubs, SEL_KDATA, 0x8e);
    TRY_ASM("#DE, gate to data", "divl %%ecx", "a"(1), "d"(0), "c"(0));
    rt_gate(6, (void (*)(void))rt_stubs, SEL_KDATA, 0x8e);
    TRY_ASM("#UD, gate to data", "ud2", "a"(0));
    rt_gate(6, (void (*)(void))rt_stubs, 0x1000, 0x8e);
    TRY_ASM("#UD, gate beyond the GDT", "ud2", "a"(0));
    repair();
}

static void paging_on(void)
{
    memset((void *)PD, 0, 8192);
    PD[0] = P | W | U | PS;
    PD[1] = 0x400000 | P | W | U | PS;
    PD[2] = (uint32_t)PT | P | W | U;
    write_cr4(read_cr4() | 0x10);
    write_cr3((word)PD);
    write_cr0(read_cr0() | 0x80000000);
}

static struct rt_tss t1;
static uint8_t t1_stack[4096];
static volatile uint32_t seen[4] __attribute__((used));
__asm__(
    ".text\n df_entry: popl seen\n movl %cr2, %eax\n movl %eax, seen+4\n movzwl t1, %eax\n movl %eax, seen+8\n ud2\n");
extern void df_entry(void);

static void page_faults(void)
{
    spoil(14);
    TRY_ASM("#PF, gate absent", "cmpl $0, (%%ecx)", "c"(LIN(3)));
    rt_printf("  cr2 %lx\n", read_cr2());
    repair();
    /* The ring 0 stack is absent: #UD from ring 3 ends in #PF, then #DF, whose handler is a task. */
    memset(&t1, 0, sizeof t1);
    t1.cr3 = (uint32_t)PD;
    t1.eip = (uint32_t)df_entry;
    t1.eflags = 2;
    t1.esp = (uint32_t)t1_stack + sizeof t1_stack;
    t1.cs = SEL_KCODE;
    t1.es = t1.ss = t1.ds = t1.fs = t1.gs = SEL_KDATA;
    rt_gdt[F_T1 / 8] = rt_desc((uint32_t)&t1, sizeof t1 - 1, 0x89);
    rt_idt[8] = (uint64_t)F_T1 << 16 | 0x85ull << 40;
    const uint32_t esp0 = rt_tss.esp0;
    rt_tss.esp0 = LIN(9);
    TRY_USER("ring 3 #UD with an absent ring 0 stack", __asm__ volatile(AT "ud2"));
    rt_printf("  code %x cr2 %x link %x, saved cs %x eip is the instruction's %d\n", seen[0], seen[1], seen[2],
              rt_tss.cs, rt_tss.eip == rt_exc.ip ? 2 : rt_tss.cs == SEL_UCODE);
    rt_tss.esp0 = esp0;
    rt_gdt[SEL_TSS / 8] &= ~(0x200ull << 32);
    __asm__ volatile("ltr %w0; clts" : : "r"(SEL_TSS));
    repair();
    /* A page fault while another fault is delivered is served; it is the stack that must be there. */
    rt_gdt[SEL_FREE / 8 + 1] = rt_desc(0, 0xfffff, 0xc09a);
    rt_gate(6, (void (*)(void))LIN(4), SEL_KCODE, 0x8e);
    TRY_ASM("#UD whose handler is in an absent page", "ud2", "a"(0));
    rt_printf("  eip is the handler's: %d\n", rt_exc.ip == LIN(4));
    repair();
}

int main(void)
{
    contributory();
    paging_on();
    page_faults();
    return 0;
}
