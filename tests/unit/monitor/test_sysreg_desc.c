/* LLDT LTR SLDT STR LAR LSL VERR VERW ARPL. */
#include "monitor/sysfn_int.h"
#include "tests/unit/monitor/test_segment_env.h"
#include <criterion/criterion.h>

TestSuite(sysreg_desc, .fini = env_free);

static struct sys_op reg_op(unsigned code, unsigned opsize)
{
    return (struct sys_op){.op = (uint8_t)code, .opsize = (uint8_t)opsize, .reg = R_RDX, .rm = R_RCX, .len = 3};
}
static int run(int (*fn)(struct vcpu *, struct sys_op), unsigned code, unsigned sel)
{
    v->c.gpr[R_RCX] = sel;
    return fn(v, reg_op(code, 4));
}
static bool zf(void) { return v->c.flags & EFLAGS_ZF; }

Test(sysreg_desc, all_are_undefined_in_real_and_virtual_8086_mode)
{
    env_real();
    expect_fault("lldt", run(sys_lldt, SYS_OP_LLDT, 0), EXC_UD, 0);
    expect_fault("lar", run(sys_lar_lsl, SYS_OP_LAR, 8), EXC_UD, 0);
    env_vm86(3);
    expect_fault("str", run(sys_store_sel, SYS_OP_STR, 0), EXC_UD, 0);
    expect_fault("verr", run(sys_verify, SYS_OP_VERR, 8), EXC_UD, 0);
    expect_fault("arpl", run(sys_arpl, SYS_OP_ARPL, 8), EXC_UD, 0);
}

Test(sysreg_desc, lldt_checks_table_type_and_presence)
{
    env_prot(0);
    cr_expect_eq(run(sys_lldt, SYS_OP_LLDT, 0), SYS_NEXT);
    cr_expect_neq(v->c.seg[S_LDTR].attr & SEG_UNUSABLE, 0);
    expect_fault("in the LDT", run(sys_lldt, SYS_OP_LLDT, 4 | 8), EXC_GP, 0xc);
    expect_fault("a data segment", run(sys_lldt, SYS_OP_LLDT, SEL_D0), EXC_GP, SEL_D0);
    expect_fault("outside the GDT", run(sys_lldt, SYS_OP_LLDT, GDT_BYTES), EXC_GP, GDT_BYTES);
    set_gdt(SEL_FREE, 0, 7, DT_LDT);
    expect_fault("absent", run(sys_lldt, SYS_OP_LLDT, SEL_FREE + 3), EXC_NP, SEL_FREE);
    cr_expect_eq(run(sys_lldt, SYS_OP_LLDT, SEL_LDT), SYS_NEXT);
    cr_expect_eq(v->c.seg[S_LDTR].base, LDT);
    v->c.cpl = 1;
    expect_fault("ring 1", run(sys_lldt, SYS_OP_LLDT, 0), EXC_GP, 0);
}

Test(sysreg_desc, ltr_marks_the_task_busy)
{
    env_prot(0);
    expect_fault("null", run(sys_ltr, SYS_OP_LTR, 3), EXC_GP, 0);
    expect_fault("already busy", run(sys_ltr, SYS_OP_LTR, SEL_TSS), EXC_GP, SEL_TSS);
    cr_expect_eq(run(sys_ltr, SYS_OP_LTR, SEL_TSS2), SYS_NEXT);
    cr_expect_eq(gdt_attr(SEL_TSS2) & SEG_TYPE, DT_TSS_BUSY);
    cr_expect_eq(v->c.seg[S_TR].base, TSS2);
    cr_expect_eq(v->c.seg[S_TR].attr & SEG_TYPE, DT_TSS_BUSY);
    set_gdt(SEL_FREE, 0, 0x2b, SEG_P | DT_TSS16);
    cr_expect_eq(run(sys_ltr, SYS_OP_LTR, SEL_FREE), SYS_NEXT, "16-bit");
}

Test(sysreg_desc, ltr_in_long_mode_reads_16_bytes)
{
    env_long(0);
    set_gdt(SEL_FREE, TSS2, 0x67, SEG_P | DT_TSS);
    put(GDT + SEL_FREE + 8, 8, 0xffff8000);
    cr_expect_eq(run(sys_ltr, SYS_OP_LTR, SEL_FREE), SYS_NEXT);
    cr_expect_eq(v->c.seg[S_TR].base, 0xffff800000000000ull | TSS2);
    set_gdt(SEL_FREE, TSS2, 0x67, SEG_P | DT_TSS);
    put(GDT + SEL_FREE + 8, 8, 0x00009000);
    expect_fault("not canonical", run(sys_ltr, SYS_OP_LTR, SEL_FREE), EXC_GP, SEL_FREE);
    put(GDT + SEL_FREE + 8, 8, 0x0100000000000ull);
    expect_fault("type of the upper half", run(sys_ltr, SYS_OP_LTR, SEL_FREE), EXC_GP, SEL_FREE);
    set_gdt(SEL_FREE, TSS2, 0x67, SEG_P | DT_TSS16);
    put(GDT + SEL_FREE + 8, 8, 0);
    expect_fault("16-bit TSS", run(sys_ltr, SYS_OP_LTR, SEL_FREE), EXC_GP, SEL_FREE);
    v->c.gdtr.limit = SEL_FREE + 7;
    expect_fault("half of it", run(sys_ltr, SYS_OP_LTR, SEL_FREE), EXC_GP, SEL_FREE);
}

Test(sysreg_desc, str_and_sldt_store_words_to_memory_and_zero_extend_registers)
{
    env_prot(3);
    v->c.gpr[R_RCX] = ~0ull;
    cr_expect_eq(sys_store_sel(v, reg_op(SYS_OP_STR, 4)), SYS_NEXT);
    cr_expect_eq(v->c.gpr[R_RCX], SEL_TSS);
    v->ea = 0x30000;
    put(0x30000, 4, ~0u);
    struct sys_op op = mk_op(4, 3);
    op.op = SYS_OP_SLDT;
    cr_expect_eq(sys_store_sel(v, op), SYS_NEXT);
    cr_expect_eq(get(0x30000, 4), 0xffff0000u | v->c.seg[S_LDTR].sel);
}

Test(sysreg_desc, lar_shows_rights_of_what_is_visible)
{
    env_prot(0);
    cr_expect_eq(run(sys_lar_lsl, SYS_OP_LAR, SEL_C0), SYS_NEXT);
    cr_expect(zf());
    cr_expect_eq(v->c.gpr[R_RDX], 0x00cf9a00);
    v->c.gpr[R_RDX] = 5;
    run(sys_lar_lsl, SYS_OP_LAR, SEL_C0 + 1);
    cr_expect(!zf(), "RPL above DPL");
    cr_expect_eq(v->c.gpr[R_RDX], 5, "the destination stays");
    run(sys_lar_lsl, SYS_OP_LAR, SEL_CONF0 + 3);
    cr_expect(zf(), "conforming code is open to all");
    run(sys_lar_lsl, SYS_OP_LAR, 3);
    cr_expect(!zf(), "null");
    run(sys_lar_lsl, SYS_OP_LAR, GDT_BYTES);
    cr_expect(!zf(), "beyond the limit");
    v->c.gpr[R_RCX] = SEL_C0;
    sys_lar_lsl(v, reg_op(SYS_OP_LAR, 2));
    cr_expect_eq((uint16_t)v->c.gpr[R_RDX], 0x9a00);
}

/* Valid system types (SDM 2A): by mode and instruction, bit t = type t. */
static unsigned shown(int code)
{
    unsigned types = 0;
    for (unsigned t = 0; t < 16; t++) {
        set_gdt(SEL_FREE, 0, 0x67, SEG_P | t);
        run(sys_lar_lsl, (unsigned)code, SEL_FREE);
        types |= zf() ? 1u << t : 0;
    }
    return types;
}
Test(sysreg_desc, lar_and_lsl_know_the_system_types)
{
    env_prot(0);
    cr_expect_eq(shown(SYS_OP_LAR), 0x1a3e);
    cr_expect_eq(shown(SYS_OP_LSL), 0x0a0e);
    env_long(0);
    cr_expect_eq(shown(SYS_OP_LAR), 0x1a04);
    cr_expect_eq(shown(SYS_OP_LSL), 0x0a04);
}

Test(sysreg_desc, lsl_scales_by_granularity)
{
    env_prot(0);
    run(sys_lar_lsl, SYS_OP_LSL, SEL_D0);
    cr_expect_eq(v->c.gpr[R_RDX], 0xffffffff);
    run(sys_lar_lsl, SYS_OP_LSL, SEL_TSS);
    cr_expect_eq(v->c.gpr[R_RDX], 0x67);
}

Test(sysreg_desc, verr_and_verw_by_type_and_privilege)
{
    env_prot(3);
    run(sys_verify, SYS_OP_VERR, SEL_D3 + 3);
    cr_expect(zf());
    run(sys_verify, SYS_OP_VERW, SEL_D3 + 3);
    cr_expect(zf());
    run(sys_verify, SYS_OP_VERR, SEL_D0);
    cr_expect(!zf(), "DPL 0");
    run(sys_verify, SYS_OP_VERR, SEL_CONF0);
    cr_expect(zf(), "readable conforming code");
    run(sys_verify, SYS_OP_VERW, SEL_CONF0);
    cr_expect(!zf(), "code is never writable");
    run(sys_verify, SYS_OP_VERR, SEL_TSS);
    cr_expect(!zf(), "system segment");
    set_gdt(SEL_FREE, 0, ~0u, (A_CODE & ~SEG_RW) | A_DPL(3));
    run(sys_verify, SYS_OP_VERR, SEL_FREE + 3);
    cr_expect(!zf(), "execute-only");
    set_gdt(SEL_FREE, 0, ~0u, (A_DATA & ~SEG_RW) | A_DPL(3));
    run(sys_verify, SYS_OP_VERW, SEL_FREE + 3);
    cr_expect(!zf(), "read-only");
}

Test(sysreg_desc, arpl_raises_but_never_lowers)
{
    env_prot(0);
    v->c.gpr[R_RDX] = 3;
    run(sys_arpl, SYS_OP_ARPL, 0x21);
    cr_expect(zf());
    cr_expect_eq(v->c.gpr[R_RCX], 0x23);
    v->c.gpr[R_RDX] = 1;
    run(sys_arpl, SYS_OP_ARPL, 0x22);
    cr_expect(!zf());
    cr_expect_eq(v->c.gpr[R_RCX], 0x22);
}
