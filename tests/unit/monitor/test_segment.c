/* Loading segment registers, stack accesses, operands. */
#include "tests/unit/monitor/test_segment_env.h"
#include <criterion/criterion.h>

TestSuite(segment, .fini = env_free);

#define OK 0xffu
#define A16 (SEG_P | SEG_S | SEG_RW)

/* One descriptor in SEL_FREE, loaded by CPL cpl with RPL rpl into seg: vector, or OK. Error codes are the selector. */
static const struct {
    const char *what;
    uint8_t cpl, rpl, seg;
    uint32_t attr;
    uint8_t vector;
} loads[] = {
    {"DS, own ring", 0, 0, S_DS, A16, OK},
    {"DS, ring 3 data from ring 0", 0, 0, S_DS, A16 | A_DPL(3), OK},
    {"DS, ring 3 data, RPL 3", 0, 3, S_DS, A16 | A_DPL(3), OK},
    {"DS, ring 0 data, RPL 3", 0, 3, S_DS, A16, EXC_GP},
    {"DS, ring 0 data from ring 3", 3, 0, S_DS, A16, EXC_GP},
    {"ES, not present", 0, 0, S_ES, A16 & ~SEG_P, EXC_NP},
    {"ES, privilege before presence", 3, 3, S_ES, A16 & ~SEG_P, EXC_GP},
    {"FS, readable code", 3, 3, S_FS, A16 | SEG_CODE | A_DPL(3), OK},
    {"FS, execute-only code", 0, 0, S_FS, SEG_P | SEG_S | SEG_CODE, EXC_GP},
    {"GS, readable conforming code of ring 0 from ring 3", 3, 3, S_GS, A16 | SEG_CODE | SEG_EC, OK},
    {"GS, readable non-conforming code of ring 0 from ring 3", 3, 3, S_GS, A16 | SEG_CODE, EXC_GP},
    {"DS, read-only data", 0, 0, S_DS, SEG_P | SEG_S, OK},
    {"DS, system descriptor", 0, 0, S_DS, SEG_P | DT_LDT, EXC_GP},
    {"SS, own ring", 0, 0, S_SS, A16, OK},
    {"SS, ring 3", 3, 3, S_SS, A16 | A_DPL(3), OK},
    {"SS, RPL differs", 0, 3, S_SS, A16, EXC_GP},
    {"SS, DPL differs", 0, 0, S_SS, A16 | A_DPL(3), EXC_GP},
    {"SS, read-only", 0, 0, S_SS, SEG_P | SEG_S, EXC_GP},
    {"SS, code", 0, 0, S_SS, A16 | SEG_CODE, EXC_GP},
    {"SS, not present", 0, 0, S_SS, A16 & ~SEG_P, EXC_SS},
};

Test(segment, load_checks_type_privilege_and_presence)
{
    for (unsigned i = 0; i < sizeof loads / sizeof loads[0]; i++) {
        env_prot(loads[i].cpl);
        set_gdt(SEL_FREE, 0x12345678, 0x1234, loads[i].attr);
        struct seg before = v->c.seg[loads[i].seg];
        uint16_t sel = SEL_FREE + loads[i].rpl;
        int rc = seg_load(v, loads[i].seg, sel);
        if (loads[i].vector != OK) {
            expect_fault(loads[i].what, rc, loads[i].vector, SEL_FREE);
            cr_expect_eq(v->c.seg[loads[i].seg].sel, before.sel, "%s: changed", loads[i].what);
            cr_expect_eq(gdt_attr(SEL_FREE) & SEG_A, 0, "%s: accessed", loads[i].what);
            continue;
        }
        const struct seg *s = &v->c.seg[loads[i].seg];
        cr_expect_eq(rc, 0, "%s: %d", loads[i].what, rc);
        cr_expect(s->sel == sel && s->base == 0x12345678 && s->limit == 0x1234, "%s: hidden part", loads[i].what);
        cr_expect_eq(gdt_attr(SEL_FREE), (loads[i].attr | SEG_A) & 0xff, "%s: accessed bit", loads[i].what);
    }
}

Test(segment, selector_beyond_table_is_gp_with_its_index)
{
    env_prot(0);
    expect_fault("gdt", seg_load(v, S_DS, GDT_BYTES + 3), EXC_GP, GDT_BYTES);
    expect_fault("ldt", seg_load(v, S_DS, 0x40 | SEL_TI), EXC_GP, 0x44);
    set_desc(LDT + 0x38, 0, 0xfff, A16);
    cr_expect_eq(seg_load(v, S_DS, 0x38 | SEL_TI), 0);
    seg_set_null(&v->c, S_LDTR, 0);
    expect_fault("no ldt", seg_load(v, S_DS, 0x8 | SEL_TI), EXC_GP, 0xc);
}

Test(segment, null_is_fine_for_data_but_not_for_ss_in_32_bit_mode)
{
    env_prot(0);
    cr_expect_eq(seg_load(v, S_ES, 3), 0);
    cr_expect_eq(v->c.seg[S_ES].sel, 3);
    cr_expect(v->c.seg[S_ES].attr & SEG_UNUSABLE);
    cr_expect_eq(v->c.seg[S_ES].nlim_r, 0);
    expect_fault("ss", seg_load(v, S_SS, 0), EXC_GP, 0);
}

Test(segment, null_ss_in_64_bit_mode_needs_ring_below_3_and_matching_rpl)
{
    env_long(0);
    cr_expect_eq(seg_load(v, S_SS, 0), 0);
    expect_fault("rpl", seg_load(v, S_SS, 1), EXC_GP, 0);
    env_long(3);
    expect_fault("cpl 3", seg_load(v, S_SS, 3), EXC_GP, 0);
    env_compat(0);
    expect_fault("compat", seg_load(v, S_SS, 0), EXC_GP, 0);
}

Test(segment, null_fs_clears_its_base)
{
    env_long(0);
    v->c.seg[S_FS].base = 0xffff800000000000ull;
    cr_expect_eq(seg_load(v, S_FS, 0), 0);
    cr_expect_eq(v->c.seg[S_FS].base, 0);
}

Test(segment, granularity_and_expand_down_reach_the_hidden_part)
{
    env_prot(0);
    set_gdt(SEL_FREE, 0, 0x5000, A16 | SEG_G | SEG_EC | SEG_DB);
    cr_expect_eq(seg_load(v, S_DS, SEL_FREE), 0);
    cr_expect_eq(v->c.seg[S_DS].limit, 0x5fff);
    cr_expect_eq(v->c.seg[S_DS].nlim_r, 0);
    cr_expect_eq(v->c.key & CPU_KEY_FLAT, 0);
}

Test(segment, real_mode_load_keeps_the_limit_vm86_does_not)
{
    env_real();
    v->c.seg[S_DS].limit = 0xffffffff;
    seg_load_real(v, S_DS, 0x1234);
    cr_expect_eq(v->c.seg[S_DS].base, 0x12340);
    cr_expect_eq(v->c.seg[S_DS].limit, 0xffffffff);
    env_vm86(3);
    v->c.seg[S_DS].limit = 0xffffffff;
    seg_load_real(v, S_DS, 0x1234);
    cr_expect_eq(v->c.seg[S_DS].limit, 0xffff);
    cr_expect_eq(seg_dpl(&v->c.seg[S_DS]), 3);
}

Test(segment, mov_and_pop_ss_start_the_interrupt_shadow)
{
    env_prot(0);
    struct sys_op op = mk_op(4, 2);
    op.reg = S_SS;
    op.rm = R_RAX;
    v->c.gpr[R_RAX] = SEL_D0;
    cr_expect_eq(sys_seg_mov_to(v, op), SYS_NEXT);
    cr_expect_eq(v->c.shadow, 2);
    v->c.shadow = 0;
    put(STACK0, 4, SEL_D0);
    cr_expect_eq(sys_seg_pop(v, op), SYS_NEXT);
    cr_expect_eq(v->c.shadow, 2);
    cr_expect_eq(v->c.gpr[R_RSP], STACK0 + 4);
}

Test(segment, pop_of_a_bad_selector_leaves_the_stack_pointer)
{
    env_prot(0);
    struct sys_op op = mk_op(4, 2);
    op.reg = S_DS;
    put(STACK0, 4, SEL_TSS);
    expect_fault("pop ds", sys_seg_pop(v, op), EXC_GP, SEL_TSS);
    cr_expect_eq(v->c.gpr[R_RSP], STACK0);
}

Test(segment, cs_and_registers_that_do_not_exist_are_ud)
{
    env_prot(0);
    struct sys_op op = mk_op(4, 2);
    op.reg = S_CS;
    cr_expect_eq(sys_seg_mov_to(v, op), SYS_FAULT);
    cr_expect_eq(v->fault.vector, EXC_UD);
    op.reg = 6;
    cr_expect_eq(sys_seg_mov_from(v, op), SYS_FAULT);
    cr_expect_eq(v->fault.vector, EXC_UD);
}

Test(segment, mov_from_sreg_extends_registers_and_stores_words)
{
    env_prot(0);
    struct sys_op op = mk_op(4, 2);
    op.reg = S_DS;
    op.rm = R_RBX;
    v->c.gpr[R_RBX] = ~0ull;
    cr_expect_eq(sys_seg_mov_from(v, op), SYS_NEXT);
    cr_expect_eq(v->c.gpr[R_RBX], SEL_D0);
    op.opsize = 2;
    v->c.gpr[R_RBX] = ~0ull;
    cr_expect_eq(sys_seg_mov_from(v, op), SYS_NEXT);
    cr_expect_eq(v->c.gpr[R_RBX], 0xffffffffffff0000ull | SEL_D0);
    op.opsize = 4;
    op.rm = SYS_RM_MEM;
    v->ea = 0x30000;
    put(0x30000, 4, 0xaaaaaaaa);
    cr_expect_eq(sys_seg_mov_from(v, op), SYS_NEXT);
    cr_expect_eq(get(0x30000, 4), 0xaaaa0000u | SEL_D0);
}

Test(segment, lxs_loads_both_or_nothing)
{
    env_prot(0);
    struct sys_op op = mk_op(4, 2);
    op.reg = R_RSI;
    v->op_imm = S_ES;
    v->ea = 0x30000;
    put(0x30000, 4, 0xdeadbeef);
    put(0x30004, 2, SEL_TSS);
    expect_fault("les", sys_seg_lxs(v, op), EXC_GP, SEL_TSS);
    cr_expect_eq(v->c.gpr[R_RSI], 0);
    put(0x30004, 2, SEL_D3 + 3);
    cr_expect_eq(sys_seg_lxs(v, op), SYS_NEXT);
    cr_expect_eq(v->c.gpr[R_RSI], 0xdeadbeef);
    cr_expect_eq(v->c.seg[S_ES].sel, SEL_D3 + 3);
}

Test(segment, push_and_pop_move_two_bytes_of_four_on_intel)
{
    struct sys_op op = mk_op(4, 1);
    env_prot(0);
    op.reg = S_ES;
    put(STACK0 - 4, 4, 0xdeadbeef);
    cr_expect_eq(sys_seg_push(v, op), SYS_NEXT);
    cr_expect_eq(get(STACK0 - 4, 4), 0xdead0000u + SEL_D0);
    cr_expect_eq(v->c.gpr[R_RSP], STACK0 - 4);
    v->c.seg[S_SS].limit = STACK0 - 3;
    cr_expect_eq(sys_seg_pop(v, op), SYS_NEXT);
    cr_expect_eq(v->c.gpr[R_RSP], STACK0);
    env_prot(0);
    env_model.intel = false;
    put(STACK0 - 4, 4, 0xdeadbeef);
    cr_expect_eq(sys_seg_push(v, op), SYS_NEXT);
    cr_expect_eq(get(STACK0 - 4, 4), SEL_D0);
}

/* Stack pointer, push size; #SS or OK. */
static const struct {
    const char *what;
    uint32_t limit, attr;
    uint64_t sp;
    uint8_t size;
    bool ok;
} pushes[] = {
    {"inside", 0xffff, A16, 0x100, 4, true},
    {"wraps at 64 KiB", 0xffff, A16, 0, 4, true},
    {"straddles 64 KiB", 0xffff, A16, 1, 2, false},
    {"beyond the limit", 0xfff, A16, 0x1002, 4, false},
    {"up to the limit", 0xfff, A16, 0x1000, 4, true},
    {"expand-down above", 0xfff, A16 | SEG_EC, 0x1004, 4, true},
    {"expand-down below", 0xfff, A16 | SEG_EC, 0x1002, 4, false},
    {"expand-down, 64 KiB end", 0xfff, A16 | SEG_EC, 0, 4, true},
    {"ESP uses 32 bits", 0x1ffff, A16 | SEG_DB, 0x10010, 4, true},
};

Test(segment, stack_accesses_obey_limit_and_size)
{
    for (unsigned i = 0; i < sizeof pushes / sizeof pushes[0]; i++) {
        env_prot(0);
        struct seg *ss = &v->c.seg[S_SS];
        ss->base = 0x100000;
        ss->limit = pushes[i].limit;
        ss->attr = pushes[i].attr;
        v->c.gpr[R_RSP] = pushes[i].sp;
        int rc = stack_push(v, pushes[i].size, 0x55667788);
        uint64_t mask = ss->attr & SEG_DB ? 0xffffffff : 0xffff, sp = (pushes[i].sp - pushes[i].size) & mask;
        if (!pushes[i].ok) {
            expect_fault(pushes[i].what, rc, EXC_SS, 0);
            cr_expect_eq(v->c.gpr[R_RSP], pushes[i].sp, "%s: SP changed", pushes[i].what);
            continue;
        }
        cr_expect_eq(rc, 0, "%s", pushes[i].what);
        cr_expect_eq(v->c.gpr[R_RSP], sp, "%s: SP %lx", pushes[i].what, v->c.gpr[R_RSP]);
        cr_expect_eq(get(0x100000 + sp, pushes[i].size), 0x55667788, "%s: memory", pushes[i].what);
    }
}

Test(segment, sixteen_bit_stack_keeps_the_upper_half_of_esp)
{
    env_prot(0);
    v->c.seg[S_SS].attr &= ~SEG_DB;
    v->c.gpr[R_RSP] = 0xabcd0100;
    cr_expect_eq(stack_push(v, 2, 1), 0);
    cr_expect_eq(v->c.gpr[R_RSP], 0xabcd00fe);
}

Test(segment, non_canonical_stack_is_ss)
{
    env_long(0);
    v->c.gpr[R_RSP] = 0x800000000004ull;
    expect_fault("push", stack_push(v, 8, 1), EXC_SS, 0);
    v->c.gpr[R_RSP] = 0x7ffffffffffcull;
    uint64_t val;
    expect_fault("pop", stack_pop(v, 8, &val), EXC_SS, 0);
}

/* The page below the stack page is missing: the fault is that of the element pushed first, and nothing is written. */
Test(segment, frame_faults_at_the_element_pushed_first)
{
    struct stk s;
    env_long(0);
    uint64_t pt = TABLES + 0x3000;
    for (unsigned i = 0; i < 512; i++)
        put(pt + 8 * i, 8, (0x200000 + i * 0x1000ull) | (i == 0x10 || i == 0x0f ? 0 : 7));
    put(TABLES + 0x2008, 8, pt | 7);
    v->c.gpr[R_RSP] = 0x210ff8;
    stk_open(v, &s, 8);
    for (unsigned i = 0; i < 3; i++)
        cr_assert_eq(stk_push(v, &s, i), 0);
    cr_expect_eq(stk_flush(v, &s), SYS_FAULT);
    cr_expect_eq(v->fault.cr2, 0x210ff0);
    v->c.gpr[R_RSP] = 0x211008;
    put(0x211000, 8, 0x5a5a);
    stk_open(v, &s, 8);
    for (unsigned i = 0; i < 3; i++)
        cr_assert_eq(stk_push(v, &s, i), 0);
    cr_expect_eq(stk_flush(v, &s), SYS_FAULT);
    cr_expect_eq(v->fault.cr2, 0x210ff8);
    cr_expect_eq(get(0x211000, 8), 0x5a5a);
}

Test(segment, frame_that_wraps_lands_on_both_ends)
{
    env_prot(0);
    struct stk s;
    v->c.seg[S_SS] = (struct seg){.base = 0x100000, .limit = 0xffff, .attr = A16};
    v->c.gpr[R_RSP] = 2;
    stk_open(v, &s, 2);
    cr_expect_eq(stk_push(v, &s, 0x1111), 0);
    cr_expect_eq(stk_push(v, &s, 0x2222), 0);
    cr_expect_eq(stk_flush(v, &s), 0);
    cr_expect_eq(get(0x100000, 2), 0x1111);
    cr_expect_eq(get(0x10fffe, 2), 0x2222);
    cr_expect_eq(stk_peek(v, &s, 0, 2), 0);
    cr_expect(s.val[0] == 0x2222 && s.val[1] == 0x1111);
}

Test(segment, byte_registers_follow_the_rex_rule)
{
    struct cpu *c = (env_prot(0), &v->c);
    c->gpr[R_RAX] = 0x1234;
    c->gpr[R_RSP] = 0x5678;
    cr_expect_eq(gpr_read(c, 4, 1, 0), 0x12);
    cr_expect_eq(gpr_read(c, 4, 1, SYS_F_REX), 0x78);
    gpr_write(c, 4, 1, 0, 0xff);
    cr_expect_eq(c->gpr[R_RAX], 0xff34);
    c->gpr[R_RBX] = ~0ull;
    gpr_write(c, R_RBX, 4, 0, 5);
    cr_expect_eq(c->gpr[R_RBX], 5);
}
