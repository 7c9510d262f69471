/* Hardware task switches by JMP, CALL, IRET and task gates (SDM 3A chapter 7). */
#include "tests/unit/monitor/test_segment_env.h"
#include <criterion/criterion.h>

TestSuite(taskswitch, .fini = env_free);

#define OFF 0x21000u
#define NEW_SP 0x1c000u

/* The 32-bit TSS at TSS2: registers 0x1001.., ring cpl. */
static void new_tss(unsigned cs, unsigned ss, unsigned ds, uint32_t flags)
{
    put(TSS2 + 32, 4, OFF);
    put(TSS2 + 36, 4, flags);
    for (unsigned i = 0; i < 8; i++)
        put(TSS2 + 40 + 4 * i, 4, i == R_RSP ? NEW_SP : 0x1000 + i);
    put(TSS2 + 72, 4, ds);
    put(TSS2 + 76, 4, cs);
    put(TSS2 + 80, 4, ss);
    put(TSS2 + 84, 4, ds);
    put(TSS2 + 88, 4, 0);
    put(TSS2 + 92, 4, 0);
    put(TSS2 + 96, 2, SEL_LDT);
    put(TSS2 + 4, 4, STACK0);
    put(TSS2 + 8, 2, SEL_D0);
}
static void env_task(unsigned cpl)
{
    env_prot(cpl);
    new_tss(SEL_C0, SEL_D0, SEL_D0, EFLAGS_IF);
    for (unsigned i = 0; i < 8; i++)
        if (i != R_RSP)
            v->c.gpr[i] = 0x2000 + i;
    cpu_set_eflags(&v->c, EFLAGS_CF);
}
static void tss_desc(uint32_t limit, uint32_t attr) { set_gdt(SEL_TSS2, TSS2, limit, attr); }

Test(taskswitch, jmp_saves_the_old_task_and_takes_over_the_new)
{
    env_task(0);
    v->c.dr[7] = 0x455;
    cr_expect_eq(far_imm(false, 4, SEL_TSS2, 0), SYS_JUMP);
    cr_expect(v->c.rip == OFF && v->c.gpr[R_RAX] == 0x1000 && v->c.gpr[R_RDI] == 0x1007 && v->c.gpr[R_RSP] == NEW_SP);
    cr_expect(v->c.seg[S_TR].sel == SEL_TSS2 && (v->c.seg[S_TR].attr & SEG_TYPE) == DT_TSS_BUSY);
    cr_expect((v->c.cr0 & CR0_TS) && v->c.dr[7] == 0x400 && cpu_get_eflags(&v->c) == (EFLAGS_IF | EFLAGS_R1));
    cr_expect(v->c.seg[S_FS].sel == 0 && (v->c.seg[S_FS].attr & SEG_UNUSABLE) && v->c.seg[S_DS].sel == SEL_D0);
    cr_expect_eq(gdt_attr(SEL_TSS), SEG_P | DT_TSS, "old task is available again");
    cr_expect_eq(gdt_attr(SEL_TSS2), SEG_P | DT_TSS_BUSY);
    cr_expect(get(TSS + 32, 4) == CODE + 7 && get(TSS + 36, 4) == (EFLAGS_CF | EFLAGS_R1) &&
              get(TSS + 40, 4) == 0x2000);
    cr_expect(get(TSS + 76, 2) == SEL_C0 && get(TSS + 80, 2) == SEL_D0 && get(TSS + 56, 4) == STACK0);
    cr_expect_eq(get(TSS2, 2), 0, "no link");
}

Test(taskswitch, call_links_and_iret_returns)
{
    env_task(0);
    cr_expect_eq(far_imm(true, 4, SEL_TSS2, 0), SYS_JUMP);
    cr_expect(v->c.eflags_sys & EFLAGS_NT);
    cr_expect_eq(get(TSS2, 2), SEL_TSS);
    cr_expect_eq(gdt_attr(SEL_TSS), SEG_P | DT_TSS_BUSY, "the caller stays busy");
    cr_expect_eq(do_iret(4), SYS_JUMP);
    cr_expect(v->c.rip == CODE + 7 && v->c.gpr[R_RAX] == 0x2000 && !(v->c.eflags_sys & EFLAGS_NT));
    cr_expect(v->c.seg[S_TR].sel == SEL_TSS && gdt_attr(SEL_TSS2) == (SEG_P | DT_TSS));
    cr_expect(get(TSS2 + 32, 4) == OFF + 1 && !(get(TSS2 + 36, 4) & EFLAGS_NT));
}

Test(taskswitch, task_gate_of_jmp_checks_its_own_dpl)
{
    env_task(3);
    put(GDT + SEL_GATE, 8, (uint64_t)SEL_TSS2 << 16 | (uint64_t)(SEG_P | DT_TASK_GATE) << 40);
    expect_fault("dpl", far_imm(false, 4, SEL_GATE + 3, 0), EXC_GP, SEL_GATE);
    put(GDT + SEL_GATE + 5, 1, SEG_P | A_DPL(3) | DT_TASK_GATE);
    cr_expect_eq(far_imm(false, 4, SEL_GATE + 3, 0), SYS_JUMP);
    cr_expect(v->c.cpl == 0 && v->c.seg[S_TR].sel == SEL_TSS2);
    env_task(3);
    expect_fault("tss dpl", far_imm(false, 4, SEL_TSS2 + 3, 0), EXC_GP, SEL_TSS2);
}

/* Faults that belong to the old task: nothing has changed. */
static const struct {
    const char *what;
    uint32_t limit, attr, old_limit;
    uint8_t vector;
    uint16_t error;
} early[] = {
    {"busy", 0x67, SEG_P | DT_TSS_BUSY, 0x67, EXC_GP, SEL_TSS2},
    {"not present", 0x67, DT_TSS, 0x67, EXC_NP, SEL_TSS2},
    {"too small", 0x66, SEG_P | DT_TSS, 0x67, EXC_TS, SEL_TSS2},
    {"16 bits, too small", 0x2a, SEG_P | DT_TSS16, 0x67, EXC_TS, SEL_TSS2},
    {"old one too small", 0x67, SEG_P | DT_TSS, 0x5e, EXC_TS, SEL_TSS},
};

Test(taskswitch, faults_before_the_switch_belong_to_the_old_task)
{
    for (unsigned i = 0; i < sizeof early / sizeof early[0]; i++) {
        env_task(0);
        tss_desc(early[i].limit, early[i].attr);
        v->c.seg[S_TR].limit = early[i].old_limit;
        expect_fault(early[i].what, far_imm(true, 4, SEL_TSS2, 0), early[i].vector, early[i].error);
        cr_expect(v->c.rip == CODE && v->c.seg[S_TR].sel == SEL_TSS && !(v->c.cr0 & CR0_TS), "%s", early[i].what);
        cr_expect_eq(get(TSS + 32, 4), 0, "%s: saved", early[i].what);
        cr_expect_eq(gdt_attr(SEL_TSS2), early[i].attr, "%s", early[i].what);
    }
}

Test(taskswitch, unmapped_new_tss_faults_in_the_old_task)
{
    env_task(0);
    /* 32-bit paging with one 4 MiB identity page; the new TSS lies beyond it. */
    put(TABLES, 4, 0x87);
    v->c.cr3 = TABLES;
    v->c.cr4 = CR4_PSE;
    v->c.cr0 |= CR0_PG;
    set_gdt(SEL_TSS2, 0x800000, 0x67, SEG_P | DT_TSS);
    expect_fault("page", far_imm(false, 4, SEL_TSS2, 0), EXC_PF, 0);
    cr_expect_eq(v->fault.cr2, 0x800000);
    cr_expect(v->c.rip == CODE && gdt_attr(SEL_TSS) == (SEG_P | DT_TSS_BUSY) && get(TSS + 32, 4) == 0);
}

Test(taskswitch, cr3_comes_from_the_new_tss_when_paging_is_on)
{
    env_task(0);
    put(TABLES, 4, 0x87);
    put(TABLES + 0x1000, 4, 0x87);
    v->c.cr3 = TABLES;
    v->c.cr4 = CR4_PSE;
    v->c.cr0 |= CR0_PG;
    put(TSS2 + 28, 4, TABLES + 0x1000);
    cr_expect_eq(far_imm(false, 4, SEL_TSS2, 0), SYS_JUMP);
    cr_expect_eq(v->c.cr3, TABLES + 0x1000);
}

/* Faults in the new task. The handler runs there, through an interrupt gate to ring 0. */
static const struct {
    const char *what;
    uint16_t cs, ss, ds;
    uint32_t attr; /* of SEL_FREE */
    uint8_t vector;
    uint16_t error;
} lates[] = {
    {"CS null", 3, SEL_D3 + 3, 0, 0, EXC_TS, 0},
    {"CS is data", SEL_D3 + 3, SEL_D3 + 3, 0, 0, EXC_TS, SEL_D3},
    {"CS DPL", SEL_C0 + 3, SEL_D3 + 3, 0, 0, EXC_TS, SEL_C0},
    {"CS not present", SEL_FREE + 3, SEL_D3 + 3, 0, (A_CODE & ~SEG_P) | A_DPL(3), EXC_NP, SEL_FREE},
    {"SS null", SEL_C3 + 3, 3, 0, 0, EXC_TS, 0},
    {"SS DPL", SEL_C3 + 3, SEL_D0 + 3, 0, 0, EXC_TS, SEL_D0},
    {"SS not present", SEL_C3 + 3, SEL_FREE + 3, 0, (A_DATA & ~SEG_P) | A_DPL(3), EXC_SS, SEL_FREE},
    {"DS of ring 0", SEL_C3 + 3, SEL_D3 + 3, SEL_D0, 0, EXC_TS, SEL_D0},
    {"DS not present", SEL_C3 + 3, SEL_D3 + 3, SEL_FREE + 3, (A_DATA & ~SEG_P) | A_DPL(3), EXC_NP, SEL_FREE},
    {"DS beyond table", SEL_C3 + 3, SEL_D3 + 3, GDT_BYTES, 0, EXC_TS, GDT_BYTES},
};

Test(taskswitch, bad_segments_fault_in_the_new_task)
{
    for (unsigned i = 0; i < sizeof lates / sizeof lates[0]; i++) {
        env_task(0);
        new_tss(lates[i].cs, lates[i].ss, lates[i].ds, 0);
        set_gdt(SEL_FREE, 0, ~0u, lates[i].attr);
        set_idt(lates[i].vector, DT_INT, 0, SEL_C0, OFF + 0x800, 0);
        cr_expect_eq(far_imm(false, 4, SEL_TSS2, 0), SYS_JUMP, "%s", lates[i].what);
        cr_expect_eq(v->c.rip, OFF + 0x800, "%s", lates[i].what);
        cr_expect_eq(v->c.seg[S_TR].sel, SEL_TSS2, "%s", lates[i].what);
        EXPECT_STACK(STACK0 - 24, 4, lates[i].error, OFF, lates[i].cs, EFLAGS_R1 | EFLAGS_RF, NEW_SP, lates[i].ss);
    }
}

Test(taskswitch, interrupt_through_a_task_gate_nests_and_pushes_the_error_code)
{
    env_task(3);
    set_idt(EXC_GP, DT_TASK_GATE, 0, SEL_TSS2, 0, 0);
    cr_expect_eq(deliver_fault(EXC_GP, true, 0x5678), SYS_JUMP);
    cr_expect(v->c.rip == OFF && v->c.cpl == 0 && v->c.gpr[R_RSP] == NEW_SP - 4);
    cr_expect_eq(get(NEW_SP - 4, 4), 0x5678);
    cr_expect(v->c.eflags_sys & EFLAGS_NT);
    cr_expect(get(TSS + 32, 4) == CODE && (get(TSS + 36, 4) & EFLAGS_RF),
              "the faulting instruction is restarted with RF");
    v->c.gpr[R_RSP] += 4;
    cr_expect_eq(do_iret(4), SYS_JUMP);
    cr_expect(v->c.cpl == 3 && v->c.rip == CODE && v->c.seg[S_SS].sel == SEL_D3 + 3);
}

Test(taskswitch, int_n_through_a_task_gate_saves_the_next_instruction)
{
    env_task(0);
    set_idt(0x40, DT_TASK_GATE, 0, SEL_TSS2, 0, 0);
    cr_expect_eq(do_int(0x40), SYS_JUMP);
    cr_expect_eq(get(TSS + 32, 4), CODE + 2);
}

Test(taskswitch, into_vm86_and_trap_bit)
{
    env_task(0);
    new_tss(0x2000, 0x1800, 0x123, EFLAGS_VM);
    put(TSS2 + 32, 4, 0x55);
    put(TSS2 + 100, 2, 1);
    set_idt(EXC_DB, DT_INT, 0, SEL_C0, OFF + 0x800, 0);
    cr_expect_eq(far_imm(false, 4, SEL_TSS2, 0), SYS_JUMP);
    cr_expect(v->c.rip == OFF + 0x800 && !cpu_vm86(&v->c) && (v->c.dr[6] & 0x8000));
    EXPECT_STACK(STACK0 - 36, 4, 0x55, 0x2000, EFLAGS_VM | EFLAGS_R1, NEW_SP, 0x1800, 0x123, 0x123, 0, 0);
}

Test(taskswitch, trap_bit_of_the_debug_handlers_own_task_does_not_recurse)
{
    env_task(0);
    put(TSS2 + 100, 2, 1);
    set_idt(EXC_DB, DT_TASK_GATE, 0, SEL_TSS2, 0, 0);
    set_idt(EXC_GP, DT_INT, 0, SEL_C0, OFF + 0x800, 0);
    struct guest_fault f = {.vector = EXC_DB};
    cr_expect_eq(exc_deliver(v, EXC_TRAP, &f), SYS_JUMP);
    cr_expect_eq(v->c.rip, OFF + 0x800, "busy by then: #GP");
    EXPECT_STACK(NEW_SP - 16, 4, SEL_TSS2 + ERR_EXT, OFF, SEL_C0);
}

Test(taskswitch, between_16_and_32_bit_tasks)
{
    env_task(0);
    tss_desc(0x2b, SEG_P | DT_TSS16);
    put(TSS2 + 14, 2, 0x1000);
    put(TSS2 + 16, 2, EFLAGS_IF);
    for (unsigned i = 0; i < 8; i++)
        put(TSS2 + 18 + 2 * i, 2, 0x100 + i);
    put(TSS2 + 34, 2, SEL_D0);
    put(TSS2 + 36, 2, SEL_C16);
    put(TSS2 + 38, 2, SEL_S16);
    put(TSS2 + 40, 2, SEL_D0);
    put(TSS2 + 42, 2, 0);
    cr_expect_eq(far_imm(true, 4, SEL_TSS2, 0), SYS_JUMP);
    cr_expect(v->c.rip == 0x1000 && (uint16_t)v->c.gpr[R_RBX] == 0x103 && v->c.seg[S_SS].sel == SEL_S16);
    cr_expect(v->c.key & CPU_KEY_CODE16);
    cr_expect_eq(do_iret(2), SYS_JUMP);
    cr_expect(v->c.rip == CODE + 7 && v->c.gpr[R_RAX] == 0x2000);
    cr_expect_eq(get(TSS2 + 14, 2), 0x1001);
}

Test(taskswitch, iret_checks_the_link)
{
    env_task(0);
    v->c.eflags_sys |= EFLAGS_NT;
    put(TSS, 2, SEL_TSS2);
    expect_fault("not busy", do_iret(4), EXC_TS, SEL_TSS2);
    put(TSS, 2, SEL_TSS2 | SEL_TI);
    expect_fault("ldt", do_iret(4), EXC_TS, SEL_TSS2 | SEL_TI);
    put(TSS, 2, GDT_BYTES);
    expect_fault("table", do_iret(4), EXC_TS, GDT_BYTES);
    put(TSS, 2, SEL_TSS2);
    tss_desc(0x67, DT_TSS_BUSY);
    expect_fault("absent", do_iret(4), EXC_NP, SEL_TSS2);
}

Test(taskswitch, eip_beyond_the_new_code_segment_is_gp_in_the_new_task)
{
    env_task(0);
    new_tss(SEL_C16, SEL_D0, SEL_D0, 0);
    set_idt(EXC_GP, DT_INT, 0, SEL_C0, OFF + 0x800, 0);
    cr_expect_eq(far_imm(false, 4, SEL_TSS2, 0), SYS_JUMP);
    cr_expect(v->c.rip == OFF + 0x800 && v->c.seg[S_TR].sel == SEL_TSS2);
    EXPECT_STACK(NEW_SP - 16, 4, 0, OFF, SEL_C16);
}
