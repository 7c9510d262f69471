/* Delivery of exceptions and interrupts through every kind of gate; double and triple faults; INT and its kin. */
#include "tests/unit/monitor/test_segment_env.h"
#include <criterion/criterion.h>
#include <string.h>

TestSuite(exception, .fini = env_free);

#define OK 0xffu
#define OFF 0x21000u
#define PUSHED (EFLAGS_R1 | EFLAGS_RF) /* flags of a fresh vCPU in the frame of a fault */

static int deliver_kind(enum exc_kind kind, unsigned vector)
{
    struct guest_fault f = {.vector = (uint8_t)vector};
    return exc_deliver(v, kind, &f);
}

/* -- real mode and VM86 -- */

Test(exception, real_mode_pushes_flags_cs_ip_without_error_code)
{
    env_real();
    cpu_set_eflags(&v->c, EFLAGS_IF | EFLAGS_TF | EFLAGS_CF | EFLAGS_AC);
    put(13 * 4, 4, 0x30000055);
    cr_expect_eq(deliver_fault(EXC_GP, true, 0x1234), SYS_JUMP);
    cr_expect(v->c.rip == 0x55 && v->c.seg[S_CS].base == 0x30000 && v->c.gpr[R_RSP] == 0x7fa);
    EXPECT_STACK(0x107fa, 2, 0x100, 0x2000, EFLAGS_IF | EFLAGS_TF | EFLAGS_CF | EFLAGS_R1);
    cr_expect_eq(cpu_get_eflags(&v->c), EFLAGS_CF | EFLAGS_R1);
}

Test(exception, real_mode_vector_outside_idt_limit_is_gp_then_shutdown)
{
    env_real();
    v->c.idtr.limit = 0x7f;
    expect_fault("int 0x80", do_int(0x80), EXC_GP, 0);
    cr_expect_eq(v->c.rip, 0x100);
    v->c.idtr.limit = 0;
    cr_expect_eq(deliver_kind(EXC_INTERRUPT, 0x80), SYS_EXIT);
    cr_expect_eq(v->exit.reason, VM_EXIT_SHUTDOWN);
}

Test(exception, vm86_goes_to_ring_0_with_all_segments_pushed)
{
    env_vm86(0);
    set_idt(EXC_GP, DT_INT, 0, SEL_C0, OFF, 0);
    cr_expect_eq(deliver_fault(EXC_GP, true, 0x18), SYS_JUMP);
    cr_expect(!cpu_vm86(&v->c) && v->c.cpl == 0 && v->c.rip == OFF && v->c.seg[S_SS].sel == SEL_D0);
    cr_expect_eq(v->c.gpr[R_RSP], STACK0 - 40);
    EXPECT_STACK(STACK0 - 40, 4, 0x18, 0x100, 0x2000, PUSHED | EFLAGS_VM, 0x800, 0x1800, 0x456, 0x123, 0x789, 0xabc);
    cr_expect(v->c.seg[S_DS].sel == 0 && (v->c.seg[S_GS].attr & SEG_UNUSABLE));
    v->c.gpr[R_RSP] += 4;
    cr_expect_eq(do_iret(4), SYS_JUMP);
    cr_expect(cpu_vm86(&v->c) && v->c.rip == 0x100 && v->c.seg[S_GS].base == 0xabc0 && v->c.gpr[R_RSP] == 0x800);
}

Test(exception, vm86_handler_must_be_in_ring_0)
{
    env_vm86(3);
    set_idt(0x40, DT_INT, 3, SEL_C1, OFF, 0);
    expect_fault("ring 1", do_int(0x40), EXC_GP, SEL_C1);
    set_idt(0x40, DT_INT, 3, SEL_CONF0, OFF, 0);
    expect_fault("conforming", do_int(0x40), EXC_GP, SEL_CONF0);
}

/* INT 0x21 in VM86: SDM 3A table 20-2. */
static const struct {
    const char *what;
    bool vme;
    uint8_t iopl;
    bool bit;
    bool faults, redirected;
} methods[] = {
    {"method 1", false, 3, false, false, false}, {"method 2", false, 0, false, true, false},
    {"method 3", true, 0, true, true, false},    {"method 4", true, 3, true, false, false},
    {"method 5", true, 3, false, false, true},   {"method 6", true, 0, false, false, true},
};

Test(exception, int_in_vm86_follows_iopl_vme_and_the_redirection_map)
{
    for (unsigned i = 0; i < sizeof methods / sizeof methods[0]; i++) {
        env_vm86(methods[i].iopl);
        v->c.cr4 = methods[i].vme ? CR4_VME : 0;
        v->c.eflags_sys |= methods[i].iopl == 3 ? 0 : EFLAGS_VIF;
        v->c.if_flag = methods[i].iopl == 3;
        put(TSS + 102, 2, 104 + 32);
        v->c.seg[S_TR].limit = 0x100;
        memset(gpmem_ptr(v->mem, TSS + 104), 0, 32);
        put(TSS + 104 + 0x21 / 8, 1, methods[i].bit ? 2 : 0);
        put(0x21 * 4, 4, 0x30000055);
        set_idt(0x21, DT_TRAP, 3, SEL_C0, OFF, 0);
        int rc = do_int(0x21);
        if (methods[i].faults) {
            expect_fault(methods[i].what, rc, EXC_GP, 0);
            cr_expect_eq(v->c.rip, 0x100, "%s", methods[i].what);
            continue;
        }
        cr_expect_eq(rc, SYS_JUMP, "%s", methods[i].what);
        cr_expect_eq(cpu_vm86(&v->c), methods[i].redirected, "%s", methods[i].what);
        cr_expect_eq(v->c.rip, methods[i].redirected ? 0x55 : OFF, "%s", methods[i].what);
        if (methods[i].redirected) {
            EXPECT_STACK(0x187fa, 2, 0x102, 0x2000, EFLAGS_IF | EFLAGS_IOPL | EFLAGS_R1);
            cr_expect(!v->c.if_flag && !(v->c.eflags_sys & EFLAGS_VIF), "%s: masked", methods[i].what);
        }
    }
}

Test(exception, int3_in_vm86_is_not_iopl_sensitive)
{
    env_vm86(0);
    set_idt(EXC_BP, DT_INT, 3, SEL_C0, OFF, 0);
    cr_expect_eq(sys_exc_int3(v, mk_op(2, 1)), SYS_JUMP);
    cr_expect_eq(v->c.rip, OFF);
}

/* -- protected mode -- */

/* INT 0x40 or an external interrupt 0x40 through a gate of `type` to `target`. The error code of an external event has EXT. */
static const struct {
    const char *what;
    uint8_t cpl, type, gate_dpl;
    uint16_t target;
    bool soft;
    uint8_t vector;
    uint16_t error;
    uint8_t new_cpl;
} gates[] = {
    {"interrupt, same ring", 0, DT_INT, 0, SEL_C0, true, OK, 0, 0},
    {"trap, same ring", 0, DT_TRAP, 0, SEL_C0, true, OK, 0, 0},
    {"inner ring", 3, DT_INT, 3, SEL_C0, true, OK, 0, 0},
    {"ring 3 to 1", 3, DT_TRAP, 3, SEL_C1, true, OK, 0, 1},
    {"ring 3 to 3", 3, DT_INT, 3, SEL_C3, true, OK, 0, 3},
    {"conforming", 3, DT_INT, 3, SEL_CONF0, true, OK, 0, 3},
    {"INT against the gate's DPL", 3, DT_INT, 0, SEL_C0, true, EXC_GP, 0x40 * 8 + 2, 0},
    {"hardware ignores the gate's DPL", 3, DT_INT, 0, SEL_C0, false, OK, 0, 0},
    {"call gate", 0, DT_CALL, 0, SEL_C0, true, EXC_GP, 0x40 * 8 + 2, 0},
    {"null target", 0, DT_INT, 0, 3, true, EXC_GP, 0, 0},
    {"data target", 0, DT_INT, 0, SEL_D0, true, EXC_GP, SEL_D0, 0},
    {"outer ring", 0, DT_INT, 0, SEL_C3, true, EXC_GP, SEL_C3, 0},
    {"beyond table", 0, DT_INT, 0, GDT_BYTES, true, EXC_GP, GDT_BYTES, 0},
    {"TSS in the LDT", 0, DT_TASK_GATE, 0, SEL_TSS2 + SEL_TI, true, EXC_GP, SEL_TSS2 + SEL_TI, 0},
    {"busy TSS", 0, DT_TASK_GATE, 0, SEL_TSS, true, EXC_GP, SEL_TSS, 0},
};

Test(exception, gates_check_their_target)
{
    for (unsigned i = 0; i < sizeof gates / sizeof gates[0]; i++) {
        env_prot(gates[i].cpl);
        set_idt(0x40, gates[i].type, gates[i].gate_dpl, gates[i].target, OFF, 0);
        cpu_set_eflags(&v->c, EFLAGS_IF | EFLAGS_NT | EFLAGS_AC);
        uint64_t sp = v->c.gpr[R_RSP], rip = CODE + (gates[i].soft ? 2 : 0);
        uint16_t cs = v->c.seg[S_CS].sel, ss = v->c.seg[S_SS].sel;
        int rc = gates[i].soft ? do_int(0x40) : deliver_kind(EXC_INTERRUPT, 0x40);
        if (gates[i].vector != OK) {
            expect_fault(gates[i].what, rc, gates[i].vector, gates[i].error);
            cr_expect(v->c.rip == CODE && v->c.gpr[R_RSP] == sp && v->c.if_flag, "%s: changed", gates[i].what);
            continue;
        }
        bool inner = gates[i].new_cpl < gates[i].cpl;
        uint64_t top = inner ? (gates[i].new_cpl ? STACK1 : STACK0) : sp, bytes = inner ? 20 : 12;
        cr_expect_eq(rc, SYS_JUMP, "%s", gates[i].what);
        cr_expect(v->c.rip == OFF && v->c.cpl == gates[i].new_cpl, "%s: cpl %u", gates[i].what, v->c.cpl);
        cr_expect_eq(v->c.seg[S_CS].sel, (gates[i].target & ~3) + gates[i].new_cpl, "%s", gates[i].what);
        cr_expect_eq(v->c.gpr[R_RSP], top - bytes, "%s", gates[i].what);
        EXPECT_STACK(top - bytes, 4, rip, cs, EFLAGS_IF | EFLAGS_NT | EFLAGS_AC | EFLAGS_R1);
        if (inner)
            EXPECT_STACK(top - 8, 4, sp, ss);
        cr_expect_eq(v->c.if_flag, gates[i].type == DT_TRAP, "%s: IF", gates[i].what);
        cr_expect_eq(v->c.eflags_sys, EFLAGS_AC, "%s: NT is cleared, AC stays", gates[i].what);
    }
}

Test(exception, absent_gate_and_handler_are_np)
{
    env_prot(0);
    set_idt(0x40, DT_INT, 0, SEL_C0, OFF, 0);
    put(IDT + 0x40 * 8 + 5, 1, DT_INT);
    expect_fault("gate", do_int(0x40), EXC_NP, 0x40 * 8 + 2);
    set_gdt(SEL_FREE, 0, ~0u, A_CODE & ~SEG_P);
    set_idt(0x40, DT_INT, 0, SEL_FREE, OFF, 0);
    expect_fault("handler", do_int(0x40), EXC_NP, SEL_FREE);
    v->c.idtr.limit = 0x40 * 8 + 6;
    expect_fault("limit", do_int(0x40), EXC_GP, 0x40 * 8 + 2);
    v->c.idtr.limit = 0x7ff;
    set_idt(0x40, DT_INT, 0, SEL_C16, 0x10000, 0);
    expect_fault("offset", do_int(0x40), EXC_GP, 0);
}

Test(exception, error_code_of_a_fault_on_the_way_has_ext_unless_software_asked)
{
    env_prot(0);
    set_idt(0x40, DT_INT, 0, SEL_D0, OFF, 0);
    set_idt(EXC_GP, DT_INT, 0, SEL_C0, OFF, 0);
    cr_expect_eq(deliver_kind(EXC_INTERRUPT, 0x40), SYS_JUMP);
    EXPECT_STACK(STACK0 - 16, 4, SEL_D0 + ERR_EXT, CODE, SEL_C0, PUSHED);
}

Test(exception, fault_pushes_its_error_code_and_rf)
{
    env_prot(3);
    set_idt(EXC_NP, DT_INT, 0, SEL_C0, OFF, 0);
    cr_expect_eq(deliver_fault(EXC_NP, true, 0xabcd), SYS_JUMP);
    EXPECT_STACK(STACK0 - 24, 4, 0xabcd, CODE, SEL_C3 + 3, PUSHED, STACK3, SEL_D3 + 3);
    cr_expect_eq(v->stats->exceptions, 1);
    cr_expect_eq(v->stats->exception_vec[EXC_NP], 1);
}

Test(exception, rf_in_the_frame_depends_on_the_kind)
{
    env_prot(0);
    set_idt(EXC_DB, DT_INT, 3, SEL_C0, OFF, 0);
    set_idt(0x40, DT_INT, 3, SEL_C0, OFF, 0);
    cr_expect_eq(deliver_kind(EXC_FAULT, EXC_DB), SYS_JUMP);
    cr_expect_eq(get(STACK0 - 4, 4) & EFLAGS_RF, 0, "instruction breakpoint");
    v->c.eflags_sys |= EFLAGS_RF;
    v->c.gpr[R_RSP] = STACK0;
    cr_expect_eq(do_int(0x40), SYS_JUMP);
    cr_expect_eq(get(STACK0 - 4, 4) & EFLAGS_RF, 0, "INT n");
    cr_expect_eq(v->c.eflags_sys & EFLAGS_RF, 0);
    v->c.eflags_sys |= EFLAGS_RF;
    v->c.gpr[R_RSP] = STACK0;
    cr_expect_eq(deliver_kind(EXC_TRAP, EXC_DB), SYS_JUMP);
    cr_expect_eq(get(STACK0 - 4, 4) & EFLAGS_RF, EFLAGS_RF, "a trap after IRET, or inside a string instruction");
}

Test(exception, sixteen_bit_gate_pushes_words)
{
    env_prot(3);
    set_idt(EXC_GP, DT_TRAP16, 0, SEL_C0, 0x55551000, 0);
    cr_expect_eq(deliver_fault(EXC_GP, true, 0x1238), SYS_JUMP);
    cr_expect_eq(v->c.rip, 0x1000);
    EXPECT_STACK(STACK0 - 12, 2, 0x1238, CODE & 0xffff, SEL_C3 + 3, EFLAGS_R1, STACK3 & 0xffff, SEL_D3 + 3);
}

Test(exception, ext_is_set_for_icebp_and_its_gate_dpl_does_not_count)
{
    env_prot(3);
    set_idt(EXC_DB, DT_INT, 0, SEL_C0, OFF, 0);
    set_idt(EXC_BP, DT_INT, 0, SEL_C0, OFF, 0);
    expect_fault("int3", sys_exc_int3(v, mk_op(4, 1)), EXC_GP, EXC_BP * 8 + 2);
    cr_expect_eq(v->c.rip, CODE);
    cr_expect_eq(sys_exc_int1(v, mk_op(4, 1)), SYS_JUMP);
    cr_expect_eq(get(STACK0 - 20, 4), CODE + 1);
}

Test(exception, into_and_bound)
{
    env_prot(0);
    struct sys_op op = mk_op(4, 1);
    set_idt(EXC_OF, DT_INT, 0, SEL_C0, OFF, 0);
    cr_expect_eq(sys_exc_into(v, op), SYS_NEXT);
    v->c.flags |= EFLAGS_OF;
    cr_expect_eq(sys_exc_into(v, op), SYS_JUMP);
    v->ea = 0x7000;
    put(0x7000, 4, (uint32_t)-5);
    put(0x7004, 4, 5);
    op.reg = R_RDX;
    v->c.gpr[R_RDX] = (uint32_t)-5;
    cr_expect_eq(sys_exc_bound(v, op), SYS_NEXT);
    v->c.gpr[R_RDX] = 6;
    cr_expect_eq(sys_exc_bound(v, op), SYS_FAULT);
    cr_expect(v->fault.vector == EXC_BR && !v->fault.has_error);
    v->c.gpr[R_RDX] = (uint32_t)-6;
    cr_expect_eq(sys_exc_bound(v, op), SYS_FAULT);
    v->c.seg[S_DS].limit = 0x7005;
    expect_fault("below the lower bound, the upper one is not read", sys_exc_bound(v, op), EXC_BR, 0);
    v->c.gpr[R_RDX] = 0;
    expect_fault("the upper bound", sys_exc_bound(v, op), EXC_GP, 0);
}

/* -- long mode -- */

Test(exception, long_mode_aligns_the_stack_and_always_pushes_it)
{
    env_long(0);
    set_idt(EXC_GP, DT_INT, 0, SEL_C64, 0xffff800000021000ull, 0);
    v->c.gpr[R_RSP] = STACK0 - 5;
    cr_expect_eq(deliver_fault(EXC_GP, true, 0), SYS_JUMP);
    cr_expect_eq(v->c.rip, 0xffff800000021000ull);
    EXPECT_STACK(STACK0 - 16 - 48, 8, 0, CODE, SEL_C64, PUSHED, STACK0 - 5, SEL_D0);
    cr_expect_eq(v->c.seg[S_SS].sel, SEL_D0, "same ring: SS stays");
}

Test(exception, long_mode_inner_ring_gets_null_ss)
{
    env_compat(3);
    set_idt(0x80, DT_INT, 3, SEL_C64, OFF, 0);
    cr_expect_eq(do_int(0x80), SYS_JUMP);
    cr_expect(cpu_code64(&v->c) && v->c.cpl == 0 && v->c.seg[S_SS].sel == 0);
    EXPECT_STACK(STACK0 - 40, 8, CODE + 2, SEL_C3 + 3, EFLAGS_R1, STACK3, SEL_D3 + 3);
    cr_expect_eq(do_iret(8), SYS_JUMP);
    cr_expect(!cpu_code64(&v->c) && v->c.cpl == 3 && v->c.rip == CODE + 2);
}

Test(exception, long_mode_ist_counts_in_every_ring)
{
    for (unsigned cpl = 0; cpl <= 3; cpl += 3) {
        env_long(cpl);
        set_idt(EXC_NMI, DT_INT, 0, SEL_C64, OFF, 1);
        cr_expect_eq(deliver_kind(EXC_INTERRUPT, EXC_NMI), SYS_JUMP);
        cr_expect_eq(v->c.gpr[R_RSP], STACK0 - 0x800 - 40);
        cr_expect(v->nmi_blocked);
    }
}

Test(exception, long_mode_faults)
{
    env_long(0);
    set_idt(0x40, DT_INT, 0, SEL_C0, OFF, 0);
    expect_fault("32-bit handler", do_int(0x40), EXC_GP, SEL_C0);
    set_idt(0x40, DT_TASK_GATE, 0, SEL_TSS2, OFF, 0);
    expect_fault("task gate", do_int(0x40), EXC_GP, 0x40 * 8 + 2);
    set_idt(0x40, DT_INT, 0, SEL_C64, 0x800000000000ull, 0);
    expect_fault("non-canonical handler", do_int(0x40), EXC_GP, 0);
    set_idt(0x40, DT_INT, 0, SEL_C64, OFF, 7);
    v->c.seg[S_TR].limit = 7 * 8 + 28 + 6;
    expect_fault("IST beyond TSS", do_int(0x40), EXC_TS, SEL_TSS);
    set_idt(0x40, DT_INT, 0, SEL_C64, OFF, 0);
    v->c.gpr[R_RSP] = 0x800000000010ull;
    expect_fault("non-canonical stack", do_int(0x40), EXC_SS, 0);
    v->c.idtr.limit = 0x40 * 16 + 14;
    expect_fault("limit", do_int(0x40), EXC_GP, 0x40 * 8 + 2);
}

/* -- double faults -- */

/* First exception whose handler faults with #GP (gate missing) or, in long mode with an IST stack that is not mapped, #PF. */
static const struct {
    uint8_t first, delivered;
} after_gp[] = {
    {EXC_DE, EXC_DF}, {EXC_TS, EXC_DF}, {EXC_NP, EXC_DF}, {EXC_SS, EXC_DF}, {EXC_PF, EXC_DF},
    {EXC_DB, EXC_GP}, {EXC_UD, EXC_GP}, {EXC_NM, EXC_GP}, {EXC_BR, EXC_GP}, {EXC_AC, EXC_GP},
};

Test(exception, contributory_faults_make_double_faults)
{
    for (unsigned i = 0; i < sizeof after_gp / sizeof after_gp[0]; i++) {
        env_prot(0);
        set_idt(EXC_GP, DT_INT, 0, SEL_C0, OFF, 0);
        set_idt(EXC_DF, DT_INT, 0, SEL_C0, OFF + 1, 0);
        cr_expect_eq(deliver_fault(after_gp[i].first, false, 0), SYS_JUMP);
        bool df = after_gp[i].delivered == EXC_DF;
        cr_expect_eq(v->c.rip, df ? OFF + 1 : OFF, "vector %u", after_gp[i].first);
        cr_expect_eq(get(STACK0 - 16, 4), df ? 0u : after_gp[i].first * 8u + 3, "vector %u", after_gp[i].first);
    }
}

Test(exception, page_fault_on_the_way)
{
    /* The handler's IST stack is not mapped; #PF and #DF have good ones. */
    static const struct {
        uint8_t first, delivered;
    } rows[] = {{EXC_UD, EXC_PF}, {EXC_GP, EXC_PF}, {EXC_PF, EXC_DF}};
    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        env_long(0);
        put(TSS + 44, 8, 0x500000);
        set_idt(EXC_PF, DT_INT, 0, SEL_C64, OFF + EXC_PF, 0);
        set_idt(EXC_DF, DT_INT, 0, SEL_C64, OFF + EXC_DF, 0);
        set_idt(rows[i].first, DT_INT, 0, SEL_C64, OFF, 2);
        struct guest_fault f = {.vector = rows[i].first, .cr2 = 0x1234};
        cr_expect_eq(exc_deliver(v, EXC_FAULT, &f), SYS_JUMP);
        cr_expect_eq(v->c.rip, OFF + rows[i].delivered, "vector %u", rows[i].first);
        cr_expect(v->c.cr2 >= 0x500000 - 48 && v->c.cr2 < 0x500000, "cr2 %lx", v->c.cr2);
    }
}

Test(exception, fault_in_double_fault_shuts_down)
{
    env_prot(0);
    cr_expect_eq(deliver_fault(EXC_GP, true, 0), SYS_EXIT);
    cr_expect_eq(v->exit.reason, VM_EXIT_SHUTDOWN);
    cr_expect(v->shutdown);
    cr_expect(strstr(v->exit.text, "triple fault") && strstr(v->exit.text, "vector 0x8"), "%s", v->exit.text);
}

Test(exception, page_fault_sets_cr2_and_counts)
{
    env_prot(0);
    set_idt(EXC_PF, DT_INT, 0, SEL_C0, OFF, 0);
    struct guest_fault f = {.vector = EXC_PF, .has_error = true, .error = 2, .cr2 = 0xdead0000};
    cr_expect_eq(exc_deliver(v, EXC_FAULT, &f), SYS_JUMP);
    cr_expect(v->c.cr2 == 0xdead0000 && v->stats->page_faults == 1);
}

Test(exception, debug_exception_reports_in_dr6_and_drops_gd)
{
    env_prot(0);
    set_idt(EXC_DB, DT_INT, 0, SEL_C0, OFF, 0);
    v->c.dr[7] = 0x2400;
    v->c.shadow = 1;
    struct guest_fault f = {.vector = EXC_DB, .dr6 = 0x4001};
    cr_expect_eq(exc_deliver(v, EXC_TRAP, &f), SYS_JUMP);
    cr_expect(v->c.dr[6] == (0xffff0ff0 | 0x4001) && v->c.dr[7] == 0x400 && v->c.shadow == 0);
}

Test(exception, misaligned_stack_in_ring_3_ends_in_shutdown_not_in_a_loop)
{
    env_prot(3);
    for (unsigned i = 0; i < 32; i++)
        set_idt(i, DT_INT, 3, SEL_C3, OFF, 0);
    v->c.cr0 |= CR0_AM;
    v->c.eflags_sys |= EFLAGS_AC;
    v->c.gpr[R_RSP] = STACK3 - 1;
    cpu_update_key(&v->c);
    cr_expect_eq(deliver_fault(EXC_AC, true, 0), SYS_EXIT);
    cr_expect_eq(v->exit.reason, VM_EXIT_SHUTDOWN);
}
