/* Far JMP and CALL through every kind of descriptor; SYSCALL and its kin. Returns: test_transfer_ret.c. */
#include "tests/unit/monitor/test_segment_env.h"
#include <criterion/criterion.h>

TestSuite(transfer, .fini = env_free);

#define OK 0xffu
#define OFF 0x21000u

/* Direct transfers to a code segment in SEL_FREE. */
static const struct {
    const char *what;
    uint8_t cpl, rpl;
    uint32_t attr;
    uint8_t vector;
} direct[] = {
    {"own ring", 0, 0, A_CODE, OK},
    {"ring 3", 3, 3, A_CODE | A_DPL(3), OK},
    {"RPL below CPL", 3, 0, A_CODE | A_DPL(3), OK},
    {"RPL above CPL", 0, 3, A_CODE, EXC_GP},
    {"outer ring", 0, 0, A_CODE | A_DPL(3), EXC_GP},
    {"inner ring", 3, 3, A_CODE, EXC_GP},
    {"conforming inner ring", 3, 3, A_CONF, OK},
    {"conforming outer ring", 0, 0, A_CONF | A_DPL(3), EXC_GP},
    {"conforming, RPL does not matter", 1, 3, A_CONF, OK},
    {"data", 0, 0, A_DATA, EXC_GP},
    {"LDT", 0, 0, SEG_P | DT_LDT, EXC_GP},
    {"interrupt gate", 0, 0, SEG_P | DT_INT, EXC_GP},
    {"not present", 0, 0, A_CODE & ~SEG_P, EXC_NP},
};

Test(transfer, far_jmp_and_call_check_code_segments)
{
    for (unsigned i = 0; i < 2 * (sizeof direct / sizeof direct[0]); i++) {
        unsigned k = i / 2;
        env_prot(direct[k].cpl);
        set_gdt(SEL_FREE, 0, ~0u, direct[k].attr);
        uint64_t sp = v->c.gpr[R_RSP], cs = v->c.seg[S_CS].sel;
        int rc = far_imm(i & 1, 4, SEL_FREE + direct[k].rpl, OFF);
        if (direct[k].vector != OK) {
            expect_fault(direct[k].what, rc, direct[k].vector, SEL_FREE);
            cr_expect(v->c.rip == CODE && v->c.gpr[R_RSP] == sp, "%s: changed", direct[k].what);
            continue;
        }
        cr_expect_eq(rc, SYS_JUMP, "%s", direct[k].what);
        cr_expect_eq(v->c.rip, OFF);
        cr_expect_eq(v->c.seg[S_CS].sel, SEL_FREE + direct[k].cpl, "%s: cs %x", direct[k].what, v->c.seg[S_CS].sel);
        cr_expect_eq(v->c.cpl, direct[k].cpl);
        cr_expect_eq(v->c.gpr[R_RSP], sp - (i & 1) * 8);
        if (i & 1)
            EXPECT_STACK(sp - 8, 4, CODE + 7, cs);
    }
}

Test(transfer, far_jmp_faults_on_null_limit_and_offset)
{
    env_prot(0);
    expect_fault("null", far_imm(false, 4, 3, OFF), EXC_GP, 0);
    expect_fault("table", far_imm(false, 4, GDT_BYTES, OFF), EXC_GP, GDT_BYTES);
    expect_fault("offset", far_imm(false, 4, SEL_C16, 0x10000), EXC_GP, 0);
    cr_expect_eq(far_imm(false, 2, SEL_C16, 0x12345), SYS_JUMP);
    cr_expect_eq(v->c.rip, 0x2345);
    cr_expect(v->c.key & CPU_KEY_CODE16);
}

Test(transfer, far_call_without_room_is_ss_before_the_offset_is_looked_at)
{
    env_prot(0);
    v->c.seg[S_SS].limit = 0xfff;
    expect_fault("stack", far_imm(true, 4, SEL_C16, 0x10000), EXC_SS, 0);
}

Test(transfer, far_jmp_in_real_mode_sets_base_and_checks_ip)
{
    env_real();
    cr_expect_eq(far_imm(false, 2, 0xf000, 0xfff0), SYS_JUMP);
    cr_expect(v->c.seg[S_CS].base == 0xf0000 && v->c.rip == 0xfff0);
    expect_fault("limit", far_imm(false, 4, 0x1000, 0x10000), EXC_GP, 0);
}

Test(transfer, far_call_in_real_mode_pushes_cs_and_ip)
{
    env_real();
    cr_expect_eq(far_mem(true, 2, 0x3000, 0x10), SYS_JUMP);
    cr_expect_eq(v->c.gpr[R_RSP], 0x7fc);
    EXPECT_STACK(0x107fc, 2, 0x107, 0x2000);
    v->c.gpr[R_RSP] = 1;
    expect_fault("odd sp", far_imm(true, 2, 0x3000, 0), EXC_SS, 0);
}

/* Call gate in SEL_GATE to the code segment `target`. */
static const struct {
    const char *what;
    bool call;
    uint8_t cpl, rpl, gate_dpl;
    uint16_t target;
    uint8_t vector;
    uint16_t error;
    uint8_t new_cpl;
} gates[] = {
    {"call, same ring", true, 0, 0, 0, SEL_C0, OK, 0, 0},
    {"jmp, same ring", false, 0, 0, 0, SEL_C0, OK, 0, 0},
    {"call, gate DPL below CPL", true, 3, 0, 0, SEL_C0, EXC_GP, SEL_GATE, 0},
    {"call, RPL above gate DPL", true, 0, 3, 1, SEL_C0, EXC_GP, SEL_GATE, 0},
    {"call, outer ring", true, 0, 0, 3, SEL_C3, EXC_GP, SEL_C3, 0},
    {"call, inner ring", true, 3, 3, 3, SEL_C0, OK, 0, 0},
    {"call, ring 1", true, 3, 3, 3, SEL_C1, OK, 0, 1},
    {"call, ring 1 to 0", true, 1, 1, 3, SEL_C0, OK, 0, 0},
    {"jmp, inner ring", false, 3, 3, 3, SEL_C0, EXC_GP, SEL_C0, 0},
    {"jmp, conforming", false, 3, 3, 3, SEL_CONF0, OK, 0, 3},
    {"call, conforming", true, 3, 3, 3, SEL_CONF0, OK, 0, 3},
    {"call, target RPL ignored", true, 3, 3, 3, SEL_C0 + 3, OK, 0, 0},
    {"call, null target", true, 0, 0, 0, 2, EXC_GP, 0, 0},
    {"call, data target", true, 0, 0, 0, SEL_D0, EXC_GP, SEL_D0, 0},
    {"call, target beyond table", true, 0, 0, 0, GDT_BYTES + 8, EXC_GP, GDT_BYTES + 8, 0},
};

Test(transfer, call_gates_check_both_descriptors)
{
    for (unsigned i = 0; i < sizeof gates / sizeof gates[0]; i++) {
        env_prot(gates[i].cpl);
        set_call_gate(SEL_GATE, DT_CALL, gates[i].gate_dpl, gates[i].target, OFF, 0);
        int rc = far_imm(gates[i].call, 4, SEL_GATE + gates[i].rpl, 0xbad);
        if (gates[i].vector != OK) {
            expect_fault(gates[i].what, rc, gates[i].vector, gates[i].error);
            continue;
        }
        cr_expect_eq(rc, SYS_JUMP, "%s", gates[i].what);
        cr_expect_eq(v->c.rip, OFF, "%s", gates[i].what);
        cr_expect_eq(v->c.cpl, gates[i].new_cpl, "%s: cpl %u", gates[i].what, v->c.cpl);
        cr_expect_eq(v->c.seg[S_CS].sel, (gates[i].target & ~3) + gates[i].new_cpl, "%s", gates[i].what);
        cr_expect_eq(SEL_RPL(v->c.seg[S_SS].sel), gates[i].new_cpl, "%s", gates[i].what);
    }
}

Test(transfer, gate_to_inner_ring_copies_parameters)
{
    env_prot(3);
    set_call_gate(SEL_GATE, DT_CALL, 3, SEL_C0, OFF, 3);
    for (unsigned i = 0; i < 3; i++)
        put(STACK3 + 4 * i, 4, 0x100 + i);
    cr_expect_eq(far_imm(true, 4, SEL_GATE + 3, 0), SYS_JUMP);
    cr_expect_eq(v->c.gpr[R_RSP], STACK0 - 28);
    EXPECT_STACK(STACK0 - 28, 4, CODE + 7, SEL_C3 + 3, 0x100, 0x101, 0x102, STACK3, SEL_D3 + 3);
    cr_expect_eq(v->c.seg[S_SS].sel, SEL_D0);
    /* And the way back releases them on both stacks. */
    cr_expect_eq(do_retf(4, 12), SYS_JUMP);
    cr_expect(v->c.cpl == 3 && v->c.gpr[R_RSP] == STACK3 + 12 && v->c.rip == CODE + 7);
    cr_expect_eq(v->c.seg[S_SS].sel, SEL_D3 + 3);
}

Test(transfer, sixteen_bit_gate_pushes_words)
{
    env_prot(3);
    set_call_gate(SEL_GATE, DT_CALL16, 3, SEL_C0, 0xffff1000, 1);
    put(STACK3, 2, 0x7777);
    cr_expect_eq(far_imm(true, 4, SEL_GATE + 3, 0), SYS_JUMP);
    cr_expect_eq(v->c.rip, 0x1000);
    EXPECT_STACK(STACK0 - 10, 2, (CODE + 7) & 0xffff, SEL_C3 + 3, 0x7777, STACK3 & 0xffff, SEL_D3 + 3);
}

/* The stack that the TSS offers for ring 0. */
static const struct {
    const char *what;
    uint16_t ss, tss_limit;
    uint32_t attr; /* of SEL_FREE */
    uint8_t vector;
    uint16_t error;
} stacks[] = {
    {"null", 3, 0x67, A_DATA, EXC_TS, 0},
    {"beyond table", GDT_BYTES, 0x67, A_DATA, EXC_TS, GDT_BYTES},
    {"RPL", SEL_FREE + 3, 0x67, A_DATA, EXC_TS, SEL_FREE},
    {"DPL", SEL_FREE, 0x67, A_DATA | A_DPL(3), EXC_TS, SEL_FREE},
    {"read-only", SEL_FREE, 0x67, A_DATA & ~SEG_RW, EXC_TS, SEL_FREE},
    {"not present", SEL_FREE, 0x67, A_DATA & ~SEG_P, EXC_SS, SEL_FREE},
    {"TSS too small", SEL_FREE, 8, A_DATA, EXC_TS, SEL_TSS},
    {"TSS just large enough", SEL_FREE, 9, A_DATA, OK, 0},
};

Test(transfer, stack_of_the_inner_ring_is_checked_for_calls_and_exceptions)
{
    for (unsigned i = 0; i < 2 * (sizeof stacks / sizeof stacks[0]); i++) {
        unsigned k = i / 2, ext = i & 1;
        env_prot(3);
        set_gdt(SEL_FREE, 0, ~0u, stacks[k].attr);
        put(TSS + 8, 2, stacks[k].ss);
        v->c.seg[S_TR].limit = stacks[k].tss_limit;
        set_call_gate(SEL_GATE, DT_CALL, 3, SEL_C0, OFF, 0);
        set_idt(0x40, DT_INT, 3, SEL_C0, OFF, 0);
        int rc = ext ? do_int(0x40) : far_imm(true, 4, SEL_GATE + 3, 0);
        if (stacks[k].vector == OK)
            cr_expect_eq(rc, SYS_JUMP, "%s", stacks[k].what);
        else
            expect_fault(stacks[k].what, rc, stacks[k].vector, stacks[k].error);
    }
}

Test(transfer, inner_stack_without_room_is_ss_with_its_selector)
{
    env_prot(3);
    set_gdt(SEL_FREE, 0, 0xfff, A_DATA & ~SEG_G);
    put(TSS + 8, 2, SEL_FREE);
    set_call_gate(SEL_GATE, DT_CALL, 3, SEL_C0, OFF, 0);
    expect_fault("room", far_imm(true, 4, SEL_GATE + 3, 0), EXC_SS, SEL_FREE);
    cr_expect_eq(v->c.cpl, 3);
}

Test(transfer, sixteen_bit_tss_has_its_own_layout)
{
    env_prot(3);
    v->c.seg[S_TR].attr = SEG_P | DT_TSS16_BUSY;
    put(TSS + 2, 2, 0x8000);
    put(TSS + 4, 2, SEL_S16);
    set_call_gate(SEL_GATE, DT_CALL, 3, SEL_C0, OFF, 0);
    cr_expect_eq(far_imm(true, 4, SEL_GATE + 3, 0), SYS_JUMP);
    cr_expect_eq(v->c.seg[S_SS].sel, SEL_S16);
    cr_expect_eq(v->c.gpr[R_RSP] & 0xffff, 0x7ff0);
    EXPECT_STACK(STACK0 + 0x7ff0, 4, CODE + 7, SEL_C3 + 3, STACK3, SEL_D3 + 3);
}

/* -- long mode -- */

Test(transfer, long_mode_jumps_between_64_bit_and_compatibility_code)
{
    env_long(0);
    cr_expect_eq(far_mem(false, 4, SEL_C0, OFF), SYS_JUMP);
    cr_expect(!cpu_code64(&v->c) && (v->c.key & CPU_KEY_CODE32));
    cr_expect_eq(far_imm(false, 4, SEL_C64, OFF + 1), SYS_JUMP);
    cr_expect(cpu_code64(&v->c) && v->c.rip == OFF + 1);
    cr_expect_eq(far_mem(false, 8, SEL_C64, 0xffff800000021000ull), SYS_JUMP);
    cr_expect_eq(v->c.rip, 0xffff800000021000ull);
    expect_fault("non-canonical", far_mem(false, 8, SEL_C64, 0x800000000000ull), EXC_GP, 0);
    cr_expect_eq(far_mem(false, 8, SEL_C0, 0x100000000ull + OFF), SYS_JUMP);
    cr_expect_eq(v->c.rip, OFF, "32 bits count outside 64-bit code");
    env_long(0);
    set_gdt(SEL_FREE, 0, ~0u, A_CODE | SEG_L);
    expect_fault("L and D", far_mem(false, 8, SEL_FREE, OFF), EXC_GP, SEL_FREE);
    expect_fault("TSS", far_mem(false, 8, SEL_TSS2, OFF), EXC_GP, SEL_TSS2);
}

Test(transfer, far_call_in_long_mode_pushes_as_its_target_sees_the_stack)
{
    env_compat(0);
    v->c.seg[S_SS].base = 0x1000;
    v->c.seg[S_SS].attr &= ~SEG_DB;
    v->c.gpr[R_RSP] = STACK0;
    cr_expect_eq(far_imm(true, 4, SEL_C64, OFF), SYS_JUMP);
    EXPECT_STACK(STACK0 - 8, 4, CODE + 7, SEL_C0);
    cr_expect_eq(v->c.gpr[R_RSP], STACK0 - 8);
    env_long(0);
    v->c.seg[S_SS].base = 0x1000;
    v->c.gpr[R_RSP] = 0xffff800000000000ull + STACK0;
    cr_expect_eq(far_mem(true, 4, SEL_C0, OFF), SYS_JUMP);
    EXPECT_STACK(STACK0 + 0x1000 - 8, 4, CODE + 7, SEL_C64);
}

/* Where a far pointer ends is looked at when its selector is read, at an offset that wraps with the address size. */
Test(transfer, far_pointer_is_two_accesses_and_wraps)
{
    struct sys_op op = mk_op(2, 4);
    env_prot(0);
    op.asize = 2;
    v->ea = 0xfffe;
    put(0xfffe, 2, 0x123);
    put(0, 2, SEL_C0);
    cr_expect_eq(sys_xfer_jmp_far(v, op), SYS_JUMP);
    cr_expect_eq(v->c.rip, 0x123);
    env_prot(3);
    put(0x30002, 4, SEL_C3 + 3);
    put(0x30002, 2, 0x123);
    put(0x30004, 2, SEL_C3 + 3);
    v->ea = 0x30002;
    v->c.cr0 |= CR0_AM;
    v->c.eflags_sys |= EFLAGS_AC;
    cpu_update_key(&v->c);
    cr_expect_eq(sys_xfer_jmp_far(v, mk_op(2, 4)), SYS_JUMP, "aligned for words");
}

Test(transfer, long_call_gate_switches_stacks_with_null_ss)
{
    env_long(3);
    set_call_gate(SEL_GATE, DT_CALL, 3, SEL_C64, 0xffff800000021000ull, 5);
    cr_expect_eq(far_mem(true, 8, SEL_GATE + 3, 0), SYS_JUMP);
    cr_expect(v->c.cpl == 0 && v->c.rip == 0xffff800000021000ull && v->c.seg[S_SS].sel == 0);
    cr_expect_eq(v->c.gpr[R_RSP], STACK0 - 32);
    EXPECT_STACK(STACK0 - 32, 8, CODE + 7, SEL_C64U + 3, STACK3, SEL_D3 + 3);
    cr_expect_eq(do_retf(8, 0), SYS_JUMP);
    cr_expect(v->c.cpl == 3 && v->c.rip == CODE + 7 && v->c.gpr[R_RSP] == STACK3);
}

Test(transfer, long_call_gate_wants_64_bit_code_and_a_clean_upper_half)
{
    env_long(0);
    set_call_gate(SEL_GATE, DT_CALL, 0, SEL_C0, OFF, 0);
    expect_fault("32-bit code", far_mem(true, 8, SEL_GATE, 0), EXC_GP, SEL_C0);
    set_call_gate(SEL_GATE, DT_CALL, 0, SEL_C64, OFF, 0);
    put(GDT + SEL_GATE + 13, 1, 1);
    expect_fault("type", far_mem(true, 8, SEL_GATE, 0), EXC_GP, SEL_GATE);
    set_call_gate(SEL_GATE, DT_CALL16, 0, SEL_C64, OFF, 0);
    expect_fault("16-bit gate", far_mem(true, 8, SEL_GATE, 0), EXC_GP, SEL_GATE);
    v->c.gdtr.limit = SEL_GATE + 7;
    set_call_gate(SEL_GATE, DT_CALL, 0, SEL_C64, OFF, 0);
    expect_fault("half outside", far_mem(true, 8, SEL_GATE, 0), EXC_GP, SEL_GATE);
}

Test(transfer, compatibility_code_calls_64_bit_gate_of_same_ring_with_8_byte_pushes)
{
    env_compat(0);
    set_call_gate(SEL_GATE, DT_CALL, 0, SEL_C64, OFF, 0);
    cr_expect_eq(far_imm(true, 4, SEL_GATE, 0), SYS_JUMP);
    cr_expect(cpu_code64(&v->c) && v->c.gpr[R_RSP] == STACK0 - 16);
    EXPECT_STACK(STACK0 - 16, 8, CODE + 7, SEL_C0);
}

/* -- SYSCALL, SYSENTER -- */

static void set_msrs(void)
{
    v->c.star = (uint64_t)0x23 << 48 | (uint64_t)0x08 << 32 | 0x1234;
    v->c.lstar = 0xffff800000020000ull;
    v->c.cstar = 0xffff800000020100ull;
    v->c.sfmask = EFLAGS_IF | EFLAGS_TF | EFLAGS_DF;
    v->c.sysenter_cs = 0x08;
    v->c.sysenter_esp = 0xffff800000010000ull;
    v->c.sysenter_eip = 0xffff800000020200ull;
}

Test(transfer, syscall_saves_rip_and_flags_and_masks)
{
    env_long(3);
    set_msrs();
    cpu_set_eflags(&v->c, EFLAGS_IF | EFLAGS_CF | EFLAGS_DF | EFLAGS_RF);
    cr_expect_eq(sys_xfer_syscall(v, mk_op(8, 2)), SYS_JUMP);
    cr_expect_eq(v->c.gpr[R_RCX], CODE + 2);
    cr_expect_eq(v->c.gpr[R_R11], EFLAGS_IF | EFLAGS_CF | EFLAGS_DF | EFLAGS_R1);
    cr_expect_eq(cpu_get_eflags(&v->c), EFLAGS_CF | EFLAGS_R1);
    cr_expect(v->c.rip == v->c.lstar && v->c.cpl == 0 && cpu_code64(&v->c));
    cr_expect(v->c.seg[S_CS].sel == 0x08 && v->c.seg[S_SS].sel == 0x10);
    cr_expect_eq(v->c.gpr[R_RSP], STACK3);
    v->c.efer &= ~(uint64_t)EFER_SCE;
    expect_fault("SCE", sys_xfer_syscall(v, mk_op(8, 2)), EXC_UD, 0);
}

Test(transfer, syscall_from_compatibility_mode_is_amds_alone)
{
    env_compat(3);
    set_msrs();
    expect_fault("intel", sys_xfer_syscall(v, mk_op(4, 2)), EXC_UD, 0);
    env_model.intel = false;
    cr_expect_eq(sys_xfer_syscall(v, mk_op(4, 2)), SYS_JUMP);
    cr_expect(v->c.rip == v->c.cstar && cpu_code64(&v->c));
}

Test(transfer, syscall_in_legacy_mode_goes_to_star)
{
    env_prot(3);
    env_model.intel = false;
    v->c.efer = EFER_SCE;
    set_msrs();
    cpu_set_eflags(&v->c, EFLAGS_IF | EFLAGS_CF);
    cr_expect_eq(sys_xfer_syscall(v, mk_op(4, 2)), SYS_JUMP);
    cr_expect(v->c.rip == 0x1234 && v->c.gpr[R_RCX] == CODE + 2 && v->c.cpl == 0);
    cr_expect_eq(cpu_get_eflags(&v->c), EFLAGS_CF | EFLAGS_R1);
    cr_expect_eq(sys_xfer_sysret(v, mk_op(4, 2)), SYS_JUMP);
    cr_expect(v->c.rip == CODE + 2 && v->c.cpl == 3 && v->c.if_flag && v->c.seg[S_CS].sel == 0x23);
}

Test(transfer, sysret_to_64_and_32_bits)
{
    env_long(0);
    set_msrs();
    v->c.gpr[R_RCX] = 0x700000021000ull;
    v->c.gpr[R_R11] = ~0x100ull; /* TF would trap */
    cr_expect_eq(sys_xfer_sysret(v, mk_op(8, 2)), SYS_JUMP);
    cr_expect(v->c.rip == 0x700000021000ull && cpu_code64(&v->c) && v->c.cpl == 3);
    cr_expect(v->c.seg[S_CS].sel == 0x33 && v->c.seg[S_SS].sel == 0x2b);
    cr_expect_eq(cpu_get_eflags(&v->c), 0x3c7ed7);
    env_long(0);
    set_msrs();
    v->c.gpr[R_RCX] = 0x700000021000ull;
    cr_expect_eq(sys_xfer_sysret(v, mk_op(4, 2)), SYS_JUMP);
    cr_expect(v->c.rip == 0x21000 && !cpu_code64(&v->c) && (v->c.key & CPU_KEY_CODE32));
    cr_expect_eq(v->c.seg[S_CS].sel, 0x23);
}

Test(transfer, sysret_to_non_canonical_address_faults_in_ring_0_on_intel_only)
{
    env_long(0);
    set_msrs();
    v->c.gpr[R_RCX] = 0x800000000000ull;
    expect_fault("intel", sys_xfer_sysret(v, mk_op(8, 2)), EXC_GP, 0);
    cr_expect_eq(v->c.cpl, 0);
    env_model.intel = false;
    cr_expect_eq(sys_xfer_sysret(v, mk_op(8, 2)), SYS_JUMP);
    cr_expect(v->c.cpl == 3 && v->c.rip == 0x800000000000ull);
    expect_fault("ring 3", sys_xfer_sysret(v, mk_op(8, 2)), EXC_GP, 0);
}

Test(transfer, sysenter_and_sysexit_in_protected_mode)
{
    env_prot(3);
    set_msrs();
    env_model.intel = false;
    cpu_set_eflags(&v->c, EFLAGS_IF | EFLAGS_ZF);
    cr_expect_eq(sys_xfer_sysenter(v, mk_op(4, 2)), SYS_JUMP);
    cr_expect(v->c.rip == 0x20200 && v->c.gpr[R_RSP] == 0x10000 && v->c.cpl == 0 && !v->c.if_flag);
    cr_expect(v->c.seg[S_CS].sel == 0x08 && v->c.seg[S_SS].sel == 0x10);
    v->c.gpr[R_RCX] = STACK3;
    v->c.gpr[R_RDX] = OFF;
    cr_expect_eq(sys_xfer_sysexit(v, mk_op(4, 2)), SYS_JUMP);
    cr_expect(v->c.rip == OFF && v->c.gpr[R_RSP] == STACK3 && v->c.cpl == 3);
    cr_expect(v->c.seg[S_CS].sel == 0x1b && v->c.seg[S_SS].sel == 0x23);
    expect_fault("ring 3", sys_xfer_sysexit(v, mk_op(4, 2)), EXC_GP, 0);
    v->c.sysenter_cs = 3;
    expect_fault("null", sys_xfer_sysenter(v, mk_op(4, 2)), EXC_GP, 0);
    env_real();
    set_msrs();
    expect_fault("real", sys_xfer_sysenter(v, mk_op(4, 2)), EXC_GP, 0);
}

Test(transfer, sysenter_in_long_mode_is_intels_alone)
{
    env_long(3);
    set_msrs();
    cr_expect_eq(sys_xfer_sysenter(v, mk_op(4, 2)), SYS_JUMP);
    cr_expect(v->c.rip == v->c.sysenter_eip && v->c.gpr[R_RSP] == v->c.sysenter_esp && cpu_code64(&v->c));
    v->c.gpr[R_RCX] = STACK3;
    v->c.gpr[R_RDX] = 0x800000000000ull;
    expect_fault("non-canonical", sys_xfer_sysexit(v, mk_op(8, 2)), EXC_GP, 0);
    v->c.gpr[R_RDX] = OFF;
    cr_expect_eq(sys_xfer_sysexit(v, mk_op(8, 2)), SYS_JUMP);
    cr_expect(cpu_code64(&v->c) && v->c.seg[S_CS].sel == 0x2b && v->c.seg[S_SS].sel == 0x33);
    env_model.intel = false;
    expect_fault("amd enter", sys_xfer_sysenter(v, mk_op(4, 2)), EXC_UD, 0);
    expect_fault("amd exit", sys_xfer_sysexit(v, mk_op(4, 2)), EXC_UD, 0);
}
