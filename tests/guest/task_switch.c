/* tests/guest/task_switch.c - hardware task switches (SDM 3A ch. 7): JMP, CALL, gates, interrupts, IRET, busy bits, links,
 * the TS and NT flags, the debug trap, and what can go wrong. */
#include "rt.h"

enum {
    F_T1 = SEL_FREE,      /* TSS of the second task */
    F_T2 = F_T1 + 8,      /* and of a third one */
    F_GATE = F_T2 + 8,    /* task gate to T1, ring 3 may use it */
    F_SHORT = F_GATE + 8, /* TSS whose limit is too small */
    F_NP = F_SHORT + 8,
    F_T16 = F_NP + 8, /* 16-bit TSS */
    F_LDT = F_T16 + 8,
    F_GATENP = F_LDT + 8,
    F_UT = F_GATENP + 8, /* TSS of DPL 3 */
};

static struct rt_tss t1, t2;
static struct {
    uint16_t back, sp0, ss0, sp1, ss1, sp2, ss2, ip, flags, ax, cx, dx, bx, sp, bp, si, di, es, cs, ss, ds, ldt;
} t16;
static uint64_t ldt[2];
static uint8_t stack1[4096], stack2[4096];
static volatile uint32_t seen[16] __attribute__((used));

__asm__(
    ".text\n"
    "task_entry: movl %eax, seen\n str %eax\n movl %eax, seen+4\n pushfl\n popl seen+8\n movl %cr0, %eax\n"
    "movl %eax, seen+12\n sldt %eax\n movl %eax, seen+16\n movl %esp, seen+20\n movl %ds, %eax\n movl %eax, seen+24\n"
    "movl %edi, seen+28\n movzwl t1, %eax\n movl %eax, seen+32\n"
    "clts\n jmpl *task_way_out\n"
    "out_iret: iretl\n jmp task_entry\n"
    "out_jmp: ljmp $0x48, $0\n jmp task_entry\n"
    "out_ud: ud2\n"
    /* The handler's task: note code and place, repair the register that was at fault, return. */
    "out_repair: popl seen+36\n movl rt_tss+0x20, %eax\n movl %eax, seen+40\n movl $0x10, rt_tss+0x28\n iretl\n"
    ".data\n task_way_out: .long 0\n .text\n");
extern uint32_t task_way_out;
extern void task_entry(void), out_iret(void), out_jmp(void), out_ud(void), out_repair(void);

static void fill(struct rt_tss *t, uint8_t *stack)
{
    memset(t, 0, sizeof *t);
    t->esp0 = (uint32_t)rt_tss.esp0 - 4096;
    t->ss0 = SEL_KDATA;
    t->eip = (uint32_t)task_entry;
    t->eflags = 2;
    t->esp = (uint32_t)stack + 4096;
    t->cs = SEL_KCODE;
    t->es = t->ss = t->ds = t->fs = t->gs = SEL_KDATA;
    t->eax = 0xaaaa0001;
    t->edi = 0xdddd0007;
    t->iomap = sizeof *t;
}

static void build(void (*way_out)(void))
{
    set_flags(2);
    fill(&t1, stack1);
    fill(&t2, stack2);
    memset(&t16, 0, sizeof t16);
    ldt[0] = rt_desc(0, 0xfffff, 0xc093);
    rt_gdt[F_T1 / 8] = rt_desc((uint32_t)&t1, sizeof t1 - 1, 0x89);
    rt_gdt[F_T2 / 8] = rt_desc((uint32_t)&t2, sizeof t2 - 1, 0x89);
    rt_gdt[F_GATE / 8] = (uint64_t)F_T1 << 16 | 0xe5ull << 40;
    rt_gdt[F_SHORT / 8] = rt_desc((uint32_t)&t1, 0x66, 0x89);
    rt_gdt[F_NP / 8] = rt_desc((uint32_t)&t1, sizeof t1 - 1, 0x09);
    rt_gdt[F_T16 / 8] = rt_desc((uint32_t)&t16, sizeof t16 - 1, 0x81);
    rt_gdt[F_LDT / 8] = rt_desc((uint32_t)ldt, sizeof ldt - 1, 0x82);
    rt_gdt[F_GATENP / 8] = (uint64_t)F_T1 << 16 | 0x65ull << 40;
    rt_gdt[F_UT / 8] = rt_desc((uint32_t)&t1, sizeof t1 - 1, 0xe9);
    rt_gdt[SEL_TSS / 8] &= ~(0x200ull << 32);
    __asm__ volatile("ltr %w0; lldt %w1; clts" : : "r"(SEL_TSS), "r"(0) : "memory");
    rt_tss.eflags = rt_tss.back = 0;
    task_way_out = (uint32_t)way_out;
    memset((void *)seen, 0, sizeof seen);
}

static unsigned busy(unsigned sel) { return (unsigned)(rt_gdt[sel / 8] >> 41) & 1; }

static void show(void)
{
    uint32_t tr, cr0 = read_cr0();
    __asm__ volatile("str %0" : "=r"(tr));
    rt_printf("  there: eax %x tr %x flags %x ts %x ldt %x esp %s ds %x edi %x link %x\n", seen[0], seen[1],
              seen[2] & ~0x8d5u, seen[3] >> 3 & 1, seen[4],
              seen[5] == (uint32_t)stack1 + 4096   ? "top"
              : seen[5] == (uint32_t)stack1 + 4092 ? "top-4"
                                                   : "?",
              seen[6], seen[7], seen[8]);
    rt_printf("  back: tr %x busy %u/%u flags %lx ts %x\n", tr, busy(SEL_TSS), busy(F_T1), get_flags() & ~0x8d5ul,
              cr0 >> 3 & 1);
    rt_printf("  saved in T1: flags %x eip %s ldt %x\n", t1.eflags & ~0x8d5u,
              t1.eip == (uint32_t)task_entry     ? "entry"
              : t1.eip == (uint32_t)out_iret + 1 ? "after iret"
              : t1.eip == (uint32_t)out_jmp + 7  ? "after jmp"
                                                 : "?",
              t1.ldt);
}

static void switches(void)
{
    build(out_jmp);
    TRY_ASM("jmp to a TSS", "ljmp %0, $0x12345678", "i"(F_T1));
    show();
    build(out_iret);
    TRY_ASM("call to a TSS", "lcall %0, $0", "i"(F_T1));
    show();
    TRY_ASM("and once more, from where it was", "lcall %0, $0", "i"(F_T1));
    show();
    build(out_iret);
    TRY_ASM("call a task gate", "lcall %0, $0", "i"(F_GATE));
    show();
    build(out_jmp);
    TRY_ASM("jmp to a task gate", "ljmp %0, $0", "i"(F_GATE));
    show();
    build(out_iret);
    rt_idt[0x41] = (uint64_t)F_T1 << 16 | 0xe5ull << 40;
    TRY_ASM("int to a task gate", "int $0x41", "a"(0));
    show();
    build(out_iret);
    TRY_USER_ASM("int to a task gate from ring 3", "int $0x41");
    show();
    build(out_iret);
    TRY_USER("call a task gate from ring 3", __asm__ volatile(AT "lcall %0, $0" : : "i"(F_GATE) : "memory", "eax"));
    build(out_iret);
    t1.ldt = F_LDT;
    t1.ds = 4;
    TRY_ASM("the new task has an LDT", "lcall %0, $0", "i"(F_T1));
    show();
    build(out_jmp);
    set_flags(0x4002);
    TRY_ASM("jmp with NT set", "ljmp %0, $0", "i"(F_T1));
    show();
    set_flags(2);
}

/* An exception with an error code through a task gate leaves the code on the new task's stack. */
static void exception_task(void)
{
    build(out_repair);
    uint64_t old = rt_idt[13];
    rt_idt[13] = (uint64_t)F_T1 << 16 | 0x85ull << 40;
    TRY("fault through a task gate", __asm__ volatile("movl $2f, rt_at\n movl $0x1238, %%eax\n"
                                                      "2: movl %%eax, %%es\n jmp 4f\n"
                                                      "4: movl $0x10, %%eax\n movl %%eax, %%es"
                                                      :
                                                      :
                                                      : "eax", "memory"));
    rt_idt[13] = old;
}

static void show_error(void)
{
    rt_printf("  error code %x, saved eip is the instruction's: %d\n", seen[9], seen[10] == rt_at);
}

static void errors(void)
{
    build(out_ud);
    TRY_ASM("jmp to the busy TSS", "ljmp %0, $0", "i"(SEL_TSS));
    TRY_ASM("call to the busy TSS", "lcall %0, $0", "i"(SEL_TSS));
    TRY_ASM("absent TSS", "ljmp %0, $0", "i"(F_NP));
    TRY_ASM("short TSS", "ljmp %0, $0", "i"(F_SHORT));
    TRY_ASM("absent gate", "lcall %0, $0", "i"(F_GATENP));
    TRY_USER("TSS of ring 0 from ring 3", __asm__ volatile(AT "lcall %0, $0" : : "i"(F_T1 | 3) : "memory", "eax"));
    TRY_ASM("gate with RPL above DPL is fine", "nop", "a"(0));
    rt_gdt[F_GATE / 8] = (uint64_t)(F_T1 | 4) << 16 | 0xe5ull << 40;
    TRY_ASM("gate to an LDT selector", "lcall %0, $0", "i"(F_GATE));
    rt_gdt[F_GATE / 8] = (uint64_t)SEL_KDATA << 16 | 0xe5ull << 40;
    TRY_ASM("gate to data", "lcall %0, $0", "i"(F_GATE));
    rt_gdt[F_GATE / 8] = (uint64_t)F_NP << 16 | 0xe5ull << 40;
    TRY_ASM("gate to an absent TSS", "lcall %0, $0", "i"(F_GATE));
    rt_tss.back = SEL_KDATA;
    TRY("iret with NT and a bad link", set_flags(0x4002); __asm__ volatile(AT "iretl" : : : "memory"));
    rt_tss.back = F_T1;
    TRY("iret with NT to a task that is not busy", set_flags(0x4002); __asm__ volatile(AT "iretl" : : : "memory"));
    TRY_USER("TSS of ring 3 from ring 3", __asm__ volatile(AT "lcall %0, $0" : : "i"(F_UT | 3) : "memory", "eax"));
}

/* Faults after the switch belong to the new task: its TR, CS and EIP. Its stack may be no good, so their handler is a
 * task of its own (SDM 3A 6.15, #TS). */
static const struct {
    const char *name;
    uint16_t cs, ss, ds, ldt;
} bad_tasks[] = {
    {"null cs", 0, SEL_KDATA, SEL_KDATA, 0},
    {"data in cs", SEL_KDATA, SEL_KDATA, SEL_KDATA, 0},
    {"cs beyond the GDT", 0x200, SEL_KDATA, SEL_KDATA, 0},
    {"ring 3 cs with RPL 0", SEL_UCODE & ~3, SEL_KDATA, SEL_KDATA, 0},
    {"absent cs", 59 * 8, SEL_KDATA, SEL_KDATA, 0},
    {"null ss", SEL_KCODE, 0, SEL_KDATA, 0},
    {"read-only ss", SEL_KCODE, 62 * 8, SEL_KDATA, 0},
    {"ss of another ring", SEL_KCODE, SEL_UDATA, SEL_KDATA, 0},
    {"absent ss", SEL_KCODE, 60 * 8, SEL_KDATA, 0},
    {"absent ds", SEL_KCODE, SEL_KDATA, 60 * 8, 0},
    {"ds beyond the GDT", SEL_KCODE, SEL_KDATA, 64 * 8, 0},
    {"execute-only ds", SEL_KCODE, SEL_KDATA, 61 * 8, 0},
    {"data in ldtr", SEL_KCODE, SEL_KDATA, SEL_KDATA, SEL_KDATA},
    {"eip beyond the limit", 63 * 8, SEL_KDATA, SEL_KDATA, 0},
    {"good", SEL_KCODE, SEL_KDATA, SEL_KDATA, 0},
};

__asm__(".text\n handler_entry: popl seen+36\n str %eax\n movl %eax, seen+40\n ud2\n");
extern void handler_entry(void);

static void new_task_faults(void)
{
    uint64_t old[4];
    memcpy(old, &rt_idt[10], sizeof old);
    rt_gdt[59] = rt_desc(0, 0xfffff, 0xc01a);
    rt_gdt[60] = rt_desc(0, 0xfffff, 0xc012);
    rt_gdt[61] = rt_desc(0, 0xfffff, 0xc098);
    rt_gdt[62] = rt_desc(0, 0xfffff, 0xc090);
    rt_gdt[63] = rt_desc(0, 0xff, 0x409a);
    for (unsigned i = 0; i < sizeof bad_tasks / sizeof bad_tasks[0]; i++) {
        build(out_ud);
        t1.cs = bad_tasks[i].cs;
        t1.ss = bad_tasks[i].ss;
        t1.ds = bad_tasks[i].ds;
        t1.ldt = bad_tasks[i].ldt;
        t2.eip = (uint32_t)handler_entry;
        for (unsigned v = 10; v <= 13; v++)
            rt_idt[v] = (uint64_t)F_T2 << 16 | 0x85ull << 40;
        TRY_ASM(bad_tasks[i].name, "ljmp %0, $0", "i"(F_T1));
        memcpy(&rt_idt[10], old, sizeof old);
        if (seen[10])
            rt_printf(
                "  handler: tr %x error %x link %x; saved: cs %x ss %x ds %x eip is the entry's %d, busy %u/%u/%u\n",
                seen[10], seen[9], t2.back, t1.cs, t1.ss, t1.ds, t1.eip == (uint32_t)task_entry, busy(SEL_TSS),
                busy(F_T1), busy(F_T2));
    }
}

static void debug_trap(void)
{
    build(out_ud);
    t1.trap = 1;
    write_dr6(0xffff0ff0);
    TRY_ASM("T bit", "ljmp %0, $0", "i"(F_T1));
    rt_printf("  dr6 %lx, eip is the entry's: %d\n", read_dr6(), rt_exc.ip == (word)task_entry);
    write_dr6(0xffff0ff0);
}

/* The old task's registers land in a 16-bit TSS and come back from it. */
static void tss16(void)
{
    build(out_jmp);
    __asm__ volatile("ltr %w0" : : "r"(F_T16));
    memcpy((void *)0x9000, "\x0f\x0b", 2);
    t16.cs = SEL_KCODE;
    /* Leaving a 16-bit task saves 16-bit registers; IP has only 16 bits, so it is not resumed. */
    task_way_out = (uint32_t)out_ud;
    t1.eax = 0x55;
    TRY("jmp from a 16-bit task", __asm__ volatile("movl $0x1234abcd, %%esi\n movl $0x5555cafe, %%ebx\n ljmp %0, $0"
                                                   :
                                                   : "i"(F_T1)
                                                   : "esi", "ebx", "memory"));
    rt_printf("  saved si %04x bx %04x cs %x ss %x busy %u\n", t16.si, t16.bx, t16.cs, t16.ss, busy(F_T16));
    build(out_ud);
    memcpy((void *)0x9000, (void *)out_ud, 2);
    t16.ip = 0x9000;
    t16.flags = 2;
    t16.ax = 0x1111;
    t16.sp = 0x8ff0;
    t16.cs = SEL_KCODE;
    t16.es = t16.ds = SEL_KDATA;
    t16.ss = SEL_DATA16; /* the upper half of ESP is undefined */
    TRY_ASM("jmp to a 16-bit task", "ljmp %0, $0", "i"(F_T16));
    rt_printf("  eip %lx ax %lx fs %lx gs %lx sp %lx\n", rt_exc.ip, rt_exc.ax & 0xffff, rt_exc.fs & 0xffff,
              rt_exc.gs & 0xffff, rt_exc.handler_sp & 0xffff);
}

int main(void)
{
    switches();
    exception_task();
    show_error();
    errors();
    new_task_faults();
    debug_trap();
    tss16();
    return 0;
}
