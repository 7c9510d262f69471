/* RETF and IRET in every mode. */
#include "tests/unit/monitor/test_segment_env.h"
#include <criterion/criterion.h>

TestSuite(transfer_ret, .fini = env_free);

#define OK 0xffu
#define OFF 0x21000u

static void frame(unsigned n, const uint64_t *val, unsigned count)
{
    uint64_t sp = (v->c.gpr[R_RSP] & stack_mask(&v->c)) + (cpu_code64(&v->c) ? 0 : v->c.seg[S_SS].base);
    for (unsigned i = 0; i < count; i++)
        put(sp + i * n, n, val[i]);
}
#define FRAME(n, ...)                                                                                                  \
    do {                                                                                                               \
        const uint64_t val_[] = {__VA_ARGS__};                                                                         \
        frame(n, val_, sizeof val_ / sizeof val_[0]);                                                                  \
    } while (0)

/* Return from CPL cpl to cs:OFF with ss:STACK3, SEL_FREE being a segment with attr. */
static const struct {
    const char *what;
    uint8_t cpl;
    uint16_t cs, ss;
    uint32_t attr;
    uint8_t vector;
    uint16_t error;
} returns[] = {
    {"same ring", 0, SEL_C0, 0, 0, OK, 0},
    {"outer ring", 0, SEL_C3 + 3, SEL_D3 + 3, 0, OK, 0},
    {"ring 0 to 1", 0, SEL_C1 + 1, SEL_D1 + 1, 0, OK, 0},
    {"ring 1 to 3", 1, SEL_C3 + 3, SEL_D3 + 3, 0, OK, 0},
    {"null CS", 0, 0, 0, 0, EXC_GP, 0},
    {"CS beyond table", 0, GDT_BYTES, 0, 0, EXC_GP, GDT_BYTES},
    {"inner ring", 3, SEL_C0, 0, 0, EXC_GP, SEL_C0},
    {"CS is data", 0, SEL_D0, 0, 0, EXC_GP, SEL_D0},
    {"RPL above DPL", 0, SEL_C0 + 3, SEL_D3 + 3, 0, EXC_GP, SEL_C0},
    {"conforming, outer RPL", 0, SEL_CONF0 + 3, SEL_D3 + 3, 0, OK, 0},
    {"conforming of outer ring", 0, SEL_FREE, 0, A_CONF | A_DPL(3), EXC_GP, SEL_FREE},
    {"CS not present", 0, SEL_FREE + 3, SEL_D3 + 3, (A_CODE & ~SEG_P) | A_DPL(3), EXC_NP, SEL_FREE},
    {"null SS", 0, SEL_C3 + 3, 3, 0, EXC_GP, 0},
    {"SS RPL", 0, SEL_C3 + 3, SEL_D3, 0, EXC_GP, SEL_D3},
    {"SS DPL", 0, SEL_C3 + 3, SEL_D0 + 3, 0, EXC_GP, SEL_D0},
    {"SS read-only", 0, SEL_C3 + 3, SEL_FREE + 3, (A_DATA & ~SEG_RW) | A_DPL(3), EXC_GP, SEL_FREE},
    {"SS not present", 0, SEL_C3 + 3, SEL_FREE + 3, (A_DATA & ~SEG_P) | A_DPL(3), EXC_SS, SEL_FREE},
};

static void check_returned(unsigned i, int rc, uint64_t sp)
{
    unsigned rpl = returns[i].cs & 3;
    if (returns[i].vector != OK) {
        expect_fault(returns[i].what, rc, returns[i].vector, returns[i].error);
        cr_expect(v->c.cpl == returns[i].cpl && v->c.rip == CODE && v->c.gpr[R_RSP] == sp, "%s: changed",
                  returns[i].what);
        return;
    }
    cr_expect_eq(rc, SYS_JUMP, "%s", returns[i].what);
    cr_expect(v->c.rip == OFF && v->c.cpl == rpl, "%s: rip %lx cpl %u", returns[i].what, v->c.rip, v->c.cpl);
    cr_expect_eq(v->c.seg[S_CS].sel, returns[i].cs, "%s", returns[i].what);
    if (rpl > returns[i].cpl)
        cr_expect(v->c.seg[S_SS].sel == returns[i].ss && v->c.gpr[R_RSP] == STACK3, "%s: stack", returns[i].what);
}

Test(transfer_ret, retf_and_iret_check_what_is_on_the_stack)
{
    for (unsigned k = 0; k < 2 * (sizeof returns / sizeof returns[0]); k++) {
        unsigned i = k / 2;
        env_prot(returns[i].cpl);
        set_gdt(SEL_FREE, 0, ~0u, returns[i].attr);
        uint64_t sp = v->c.gpr[R_RSP];
        if (k & 1)
            FRAME(4, OFF, returns[i].cs, EFLAGS_R1, STACK3, returns[i].ss);
        else
            FRAME(4, OFF, returns[i].cs, STACK3, returns[i].ss);
        check_returned(i, k & 1 ? do_iret(4) : do_retf(4, 0), sp);
    }
}

Test(transfer_ret, outer_return_nulls_what_the_ring_may_not_see)
{
    env_prot(0);
    set_gdt(SEL_FREE, 0, ~0u, A_CONF);
    cr_assert_eq(seg_load(v, S_ES, SEL_FREE), 0);
    cr_assert_eq(seg_load(v, S_FS, SEL_D3 + 3), 0);
    FRAME(4, OFF, SEL_C3 + 3, STACK3, SEL_D3 + 3);
    cr_expect_eq(do_retf(4, 0), SYS_JUMP);
    cr_expect(v->c.seg[S_DS].sel == 0 && (v->c.seg[S_DS].attr & SEG_UNUSABLE), "ring 0 data goes");
    cr_expect_eq(v->c.seg[S_GS].sel, 0, "ring 0 data goes");
    cr_expect_eq(v->c.seg[S_ES].sel, SEL_FREE, "conforming code stays");
    cr_expect_eq(v->c.seg[S_FS].sel, SEL_D3 + 3, "ring 3 data stays");
}

Test(transfer_ret, retf_checks_stack_room_and_offset)
{
    env_prot(0);
    v->c.seg[S_SS].limit = STACK0 + 4;
    FRAME(4, OFF, SEL_C0);
    expect_fault("room", do_retf(4, 0), EXC_SS, 0);
    v->c.seg[S_SS].limit = STACK0 + 5;
    cr_expect_eq(do_retf(4, 0), SYS_JUMP, "two bytes of the selector's element are enough");
    env_prot(0);
    env_model.intel = false;
    v->c.seg[S_SS].limit = STACK0 + 6;
    FRAME(4, OFF, SEL_C0);
    expect_fault("the whole element", do_retf(4, 0), EXC_SS, 0);
    env_prot(0);
    FRAME(4, 0x10000, SEL_C16);
    expect_fault("offset", do_retf(4, 0), EXC_GP, 0);
    FRAME(4, 0x1000, SEL_C0);
    cr_expect_eq(do_retf(4, 0x20), SYS_JUMP);
    cr_expect_eq(v->c.gpr[R_RSP], STACK0 + 0x28);
}

Test(transfer_ret, return_to_a_16_bit_stack_leaks_the_upper_half_of_esp)
{
    env_prot(0);
    set_gdt(SEL_FREE, STACK3, 0xffff, (A_DATA & ~(SEG_DB | SEG_G)) | A_DPL(3));
    FRAME(4, OFF, SEL_C3 + 3, EFLAGS_R1, 0x12345678, SEL_FREE + 3);
    cr_expect_eq(do_iret(4), SYS_JUMP);
    cr_expect_eq(v->c.gpr[R_RSP], (STACK0 & 0xffff0000) | 0x5678);
}

Test(transfer_ret, retf_and_iret_in_real_mode)
{
    env_real();
    FRAME(2, 0x55, 0x3000, 0);
    cr_expect_eq(do_retf(2, 4), SYS_JUMP);
    cr_expect(v->c.rip == 0x55 && v->c.seg[S_CS].base == 0x30000 && v->c.gpr[R_RSP] == 0x808);
    FRAME(2, 0x66, 0x4000, EFLAGS_IF | EFLAGS_CF | EFLAGS_NT | EFLAGS_IOPL);
    cr_expect_eq(do_iret(2), SYS_JUMP);
    cr_expect_eq(cpu_get_eflags(&v->c), EFLAGS_IF | EFLAGS_CF | EFLAGS_NT | EFLAGS_IOPL | EFLAGS_R1);
    cr_expect_eq(v->c.gpr[R_RSP], 0x80e);
    FRAME(4, 0x66, 0x4000, ~0u);
    cr_expect_eq(do_iret(4), SYS_JUMP);
    cr_expect_eq(cpu_get_eflags(&v->c), 0x257fd7, "VM, VIF and VIP stay");
    FRAME(4, 0x10000, 0x4000, 0);
    expect_fault("ip", do_iret(4), EXC_GP, 0);
}

/* EFLAGS after IRET of image ~0 or 0, by CPL, IOPL, operand size. */
static const struct {
    uint8_t cpl, iopl, opsize;
    uint32_t may_change;
} flag_rules[] = {
    {0, 0, 4, EFLAGS_ALL & ~EFLAGS_VM},
    {0, 0, 2, 0x7fd5},
    {3, 0, 4, EFLAGS_ALL & ~(EFLAGS_VM | EFLAGS_IOPL | EFLAGS_IF | EFLAGS_VIF | EFLAGS_VIP)},
    {3, 3, 4, EFLAGS_ALL & ~(EFLAGS_VM | EFLAGS_IOPL | EFLAGS_VIF | EFLAGS_VIP)},
    {3, 2, 2, 0x7fd5 & ~(EFLAGS_IOPL | EFLAGS_IF)},
    {1, 1, 2, 0x7fd5 & ~EFLAGS_IOPL},
};

Test(transfer_ret, iret_changes_only_the_flags_it_may)
{
    for (unsigned i = 0; i < sizeof flag_rules / sizeof flag_rules[0]; i++) {
        env_prot(flag_rules[i].cpl);
        uint32_t was = (uint32_t)flag_rules[i].iopl << EFLAGS_IOPL_SHIFT;
        uint32_t image = flag_rules[i].cpl ? ~0u : ~EFLAGS_VM;
        cpu_set_eflags(&v->c, was);
        v->c.seg[S_CS].limit = ~0u;
        FRAME(flag_rules[i].opsize, 0x1000, v->c.seg[S_CS].sel, image);
        cr_expect_eq(do_iret(flag_rules[i].opsize), SYS_JUMP, "row %u", i);
        uint32_t want = (was & ~flag_rules[i].may_change) | flag_rules[i].may_change | EFLAGS_R1;
        cr_expect_eq(cpu_get_eflags(&v->c), want, "row %u: %x, wanted %x", i, cpu_get_eflags(&v->c), want);
    }
}

Test(transfer_ret, iret_to_vm86_loads_everything)
{
    env_prot(0);
    FRAME(4, 0x12345, 0x2000, EFLAGS_VM | EFLAGS_IOPL | EFLAGS_IF, 0x11000800, 0x1800, 0x456, 0x123, 0x789, 0xabc);
    cr_expect_eq(do_iret(4), SYS_JUMP);
    cr_expect(cpu_vm86(&v->c) && v->c.cpl == 3 && v->c.rip == 0x2345 && v->c.gpr[R_RSP] == 0x11000800);
    cr_expect(v->c.seg[S_CS].base == 0x20000 && v->c.seg[S_SS].base == 0x18000 && v->c.seg[S_ES].base == 0x4560);
    cr_expect(v->c.seg[S_DS].base == 0x1230 && v->c.seg[S_FS].base == 0x7890 && v->c.seg[S_GS].base == 0xabc0);
    cr_expect_eq(v->c.seg[S_CS].limit, 0xffff);
    cr_expect((v->c.key & CPU_KEY_REAL) && (v->c.key & CPU_KEY_CODE16));
}

Test(transfer_ret, iret_with_vm_bit_in_ring_3_ignores_it)
{
    env_prot(3);
    FRAME(4, OFF, SEL_C3 + 3, EFLAGS_VM);
    cr_expect_eq(do_iret(4), SYS_JUMP);
    cr_expect(!cpu_vm86(&v->c));
}

Test(transfer_ret, iret_in_vm86_depends_on_iopl_and_vme)
{
    env_vm86(3);
    FRAME(2, 0x66, 0x4000, EFLAGS_IF | EFLAGS_CF);
    cr_expect_eq(do_iret(2), SYS_JUMP);
    cr_expect(v->c.rip == 0x66 && v->c.seg[S_CS].base == 0x40000 && v->c.if_flag && cpu_iopl(&v->c) == 3);
    env_vm86(0);
    expect_fault("iopl", do_iret(2), EXC_GP, 0);
    v->c.cr4 |= CR4_VME;
    expect_fault("32 bits", do_iret(4), EXC_GP, 0);
    FRAME(2, 0x66, 0x4000, EFLAGS_IF | EFLAGS_CF | EFLAGS_IOPL);
    cr_expect_eq(do_iret(2), SYS_JUMP);
    cr_expect((v->c.eflags_sys & EFLAGS_VIF) && !v->c.if_flag && cpu_iopl(&v->c) == 0 && (v->c.flags & EFLAGS_CF));
    FRAME(2, 0x66, 0x4000, EFLAGS_TF);
    expect_fault("tf", do_iret(2), EXC_GP, 0);
    v->c.eflags_sys |= EFLAGS_VIP;
    FRAME(2, 0x66, 0x4000, EFLAGS_IF);
    expect_fault("vip", do_iret(2), EXC_GP, 0);
}

Test(transfer_ret, iret_unblocks_nmi_even_when_it_faults)
{
    env_prot(0);
    v->nmi_blocked = true;
    FRAME(4, OFF, 0, 0);
    expect_fault("null cs", do_iret(4), EXC_GP, 0);
    cr_expect(!v->nmi_blocked);
}

Test(transfer_ret, iretq_always_takes_the_stack)
{
    env_long(0);
    FRAME(8, OFF, SEL_C64, EFLAGS_IF, 0xffff800000012340ull, 0);
    cr_expect_eq(do_iret(8), SYS_JUMP);
    cr_expect(v->c.gpr[R_RSP] == 0xffff800000012340ull && v->c.seg[S_SS].sel == 0 && v->c.if_flag);
    env_long(0);
    FRAME(8, OFF, SEL_C64U + 3, EFLAGS_IF, STACK3, SEL_D3 + 3);
    cr_expect_eq(do_iret(8), SYS_JUMP);
    cr_expect(v->c.cpl == 3 && cpu_code64(&v->c) && v->c.gpr[R_RSP] == STACK3);
    env_long(0);
    FRAME(8, OFF, SEL_C3 + 3, EFLAGS_IF, STACK3, SEL_D3 + 3);
    cr_expect_eq(do_iret(8), SYS_JUMP);
    cr_expect(v->c.cpl == 3 && !cpu_code64(&v->c));
}

Test(transfer_ret, iretq_faults)
{
    env_long(0);
    FRAME(8, OFF, SEL_C64U + 3, 0, STACK3, 3);
    expect_fault("null ss at ring 3", do_iret(8), EXC_GP, 0);
    FRAME(8, OFF, SEL_C0, 0, STACK3, 0);
    expect_fault("null ss for compatibility code", do_iret(8), EXC_GP, 0);
    FRAME(8, 0x800000000000ull, SEL_C64U + 3, 0, STACK3, SEL_D3 + 3);
    expect_fault("non-canonical rip", do_iret(8), EXC_GP, 0);
    v->c.eflags_sys |= EFLAGS_NT;
    expect_fault("nested task", do_iret(8), EXC_GP, 0);
    v->c.eflags_sys = 0;
    v->c.gpr[R_RSP] = 0x7ffffffffff0ull;
    expect_fault("flags are read first, from a non-canonical address", do_iret(8), EXC_SS, 0);
    env_long(0);
    FRAME(8, OFF, SEL_TSS, 0);
    v->c.gpr[R_RSP] = 0x400000 - 24; /* nothing is mapped above */
    put(0x400000 - 16, 8, SEL_TSS);
    expect_fault("the code segment is checked before the stack is read", do_iret(8), EXC_GP, SEL_TSS);
}

Test(transfer_ret, returns_to_other_than_64_bit_code_take_32_bits_of_rip)
{
    env_long(0);
    FRAME(8, 0x300000000ull + OFF, SEL_C3 + 3, EFLAGS_IF, STACK3, SEL_D3 + 3);
    cr_expect_eq(do_iret(8), SYS_JUMP);
    cr_expect_eq(v->c.rip, OFF);
    env_long(0);
    FRAME(8, 0x300000000ull + OFF, SEL_C0);
    cr_expect_eq(do_retf(8, 0), SYS_JUMP);
    cr_expect_eq(v->c.rip, OFF);
}

/* What is released is summed in the width of the old stack, and added as the new code sees it. */
Test(transfer_ret, retf_to_64_bit_code_adds_to_all_of_rsp)
{
    env_compat(0);
    v->c.seg[S_SS].attr &= ~SEG_DB;
    v->c.gpr[R_RSP] = 0xfff0;
    put(0xfff0, 4, OFF);
    put(0xfff4, 2, SEL_C64);
    cr_expect_eq(do_retf(4, 0xff00), SYS_JUMP);
    cr_expect_eq(v->c.gpr[R_RSP], 0x1fef8);
    env_compat(0);
    v->c.seg[S_SS].attr &= ~SEG_DB;
    v->c.gpr[R_RSP] = 0xfff0;
    put(0xfff0, 4, OFF);
    put(0xfff4, 2, SEL_C64);
    cr_expect_eq(do_retf(4, 0xffff), SYS_JUMP);
    cr_expect_eq(v->c.gpr[R_RSP], 0xfff7);
}

Test(transfer_ret, iret_in_compatibility_mode_of_same_ring_leaves_the_stack)
{
    env_compat(0);
    FRAME(4, OFF, SEL_C0, EFLAGS_IF);
    cr_expect_eq(do_iret(4), SYS_JUMP);
    cr_expect_eq(v->c.gpr[R_RSP], STACK0 + 12);
}
