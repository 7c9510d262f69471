/* Multi-access and decimal instructions. */
#include "monitor/fpu.h"
#include "monitor/sysfn_int.h"
#include "tests/unit/monitor/test_segment_env.h"
#include <criterion/criterion.h>
#include <string.h>

static void done(void)
{
    if (v && v->xsave)
        fpu_destroy(v);
    env_free();
}
TestSuite(legacy, .fini = done);

static void set_regs(void)
{
    for (unsigned i = 0; i < 8; i++)
        if (i != R_RSP)
            v->c.gpr[i] = 0x11111111u * (i + 1);
}

Test(legacy, pusha_stores_in_order_with_the_old_stack_pointer)
{
    env_prot(0);
    set_regs();
    cr_expect_eq(sys_pusha(v, mk_op(4, 1)), SYS_NEXT);
    cr_expect_eq(v->c.gpr[R_RSP], STACK0 - 32);
    EXPECT_STACK(STACK0 - 32, 4, 0x88888888u, 0x77777777u, 0x66666666u, STACK0, 0x44444444u, 0x33333333u, 0x22222222u,
                 0x11111111u);
    memset(v->c.gpr, 0, 4 * 8);
    v->c.gpr[R_RSI] = 0;
    cr_expect_eq(sys_popa(v, mk_op(4, 1)), SYS_NEXT);
    cr_expect_eq(v->c.gpr[R_RSP], STACK0);
    cr_expect(v->c.gpr[R_RAX] == 0x11111111 && v->c.gpr[R_RBX] == 0x44444444 && v->c.gpr[R_RSI] == 0x77777777);
}

Test(legacy, pusha_wraps_in_a_16_bit_stack_or_faults_whole)
{
    env_real();
    set_regs();
    v->c.gpr[R_RSP] = 8;
    cr_expect_eq(sys_pusha(v, mk_op(2, 1)), SYS_NEXT);
    cr_expect_eq(v->c.gpr[R_RSP], 0xfff8);
    cr_expect_eq(get(0x1fff8, 2), 0x8888);
    cr_expect_eq(get(0x10006, 2), 0x1111);
    v->c.gpr[R_RSP] = 7;
    put(0x10005, 2, 0x5a5a);
    expect_fault("a word at ffff", sys_pusha(v, mk_op(2, 1)), EXC_SS, 0);
    cr_expect_eq(v->c.gpr[R_RSP], 7);
    cr_expect_eq(get(0x10005, 2), 0x5a5a, "nothing written");
}

Test(legacy, popa_keeps_what_it_popped_before_a_fault)
{
    env_prot(0);
    set_regs();
    v->c.seg[S_SS].limit = STACK0 + 11;
    put(STACK0, 4, 0xd1);
    put(STACK0 + 4, 4, 0x51);
    put(STACK0 + 8, 4, 0xb9);
    expect_fault("ESP's element", sys_popa(v, mk_op(4, 1)), EXC_SS, 0);
    cr_expect(v->c.gpr[R_RDI] == 0xd1 && v->c.gpr[R_RSI] == 0x51 && v->c.gpr[R_RBP] == 0xb9);
    cr_expect(v->c.gpr[R_RBX] == 0x44444444 && v->c.gpr[R_RSP] == STACK0);
}

static int enter(unsigned size, unsigned bytes, unsigned level)
{
    v->op_imm = level << 16 | bytes;
    return sys_enter(v, mk_op(size, 4));
}
Test(legacy, enter_without_nesting)
{
    env_prot(0);
    v->c.gpr[R_RBP] = 0x12345678;
    cr_expect_eq(enter(4, 0x20, 0), SYS_NEXT);
    cr_expect_eq(v->c.gpr[R_RBP], STACK0 - 4);
    cr_expect_eq(v->c.gpr[R_RSP], STACK0 - 0x24);
    cr_expect_eq(get(STACK0 - 4, 4), 0x12345678);
}

Test(legacy, enter_copies_the_display)
{
    env_prot(0);
    v->c.gpr[R_RBP] = 0x30020;
    put(0x3001c, 4, 0xa1);
    put(0x30018, 4, 0xa2);
    cr_expect_eq(enter(4, 8, 3), SYS_NEXT);
    EXPECT_STACK(STACK0 - 16, 4, STACK0 - 4, 0xa2, 0xa1, 0x30020);
    cr_expect_eq(v->c.gpr[R_RBP], STACK0 - 4);
    cr_expect_eq(v->c.gpr[R_RSP], STACK0 - 16 - 8);
    cr_expect_eq(enter(4, 0, 33), SYS_NEXT, "the level counts modulo 32");
}

/* A frame that lies on top of the stack: ENTER reads what it has just pushed. */
Test(legacy, enter_sees_its_own_pushes)
{
    env_prot(0);
    v->c.gpr[R_RBP] = STACK0 + 2; /* first display entry straddles the pushed RBP */
    put(STACK0 - 4, 8, 0);
    cr_expect_eq(enter(4, 0, 2), SYS_NEXT);
    /* pushed RBP = 00010002 at STACK0-4; read at STACK0-2: its upper half, then old memory */
    EXPECT_STACK(STACK0 - 12, 4, STACK0 - 4, 0x00000001, STACK0 + 2);
}

Test(legacy, enter_touches_its_final_stack_pointer)
{
    env_real();
    v->c.seg[S_SS].limit = 0x7ff;
    cr_expect_eq(enter(2, 0x10, 0), SYS_NEXT);
    v->c.gpr[R_RSP] = 0x20;
    v->c.gpr[R_RBP] = 0x777;
    expect_fault("final SP outside", enter(2, 0x100, 0), EXC_SS, 0);
    cr_expect(v->c.gpr[R_RSP] == 0x20 && v->c.gpr[R_RBP] == 0x777);
}

Test(legacy, enter_faults_at_its_first_push_and_frames_are_as_wide_as_the_operand)
{
    env_prot(0);
    v->c.seg[S_SS].limit = STACK0 - 5;
    v->c.gpr[R_RBP] = 0x30020;
    v->c.seg[S_SS].base = 0x100000;
    expect_fault("push of EBP", enter(4, 0x8000, 3), EXC_SS, 0);
    env_prot(0);
    v->c.seg[S_SS].attr &= ~SEG_DB;
    v->c.seg[S_SS].limit = 0xffff;
    v->c.gpr[R_RSP] = 0;
    cr_expect_eq(enter(4, 0, 1), SYS_NEXT);
    cr_expect_eq(v->c.gpr[R_RBP], 0xfffffffc, "although SP has 16 bits");
    cr_expect_eq(get(0xfff8, 4), 0xfffffffc);
}

/* The display lies in another view of the stack's page: what ENTER has pushed shows there. */
Test(legacy, enter_reads_pushes_through_an_alias)
{
    env_long(0);
    uint64_t pt = TABLES + 0x3000;
    for (unsigned i = 0; i < 512; i++)
        put(pt + 8 * i, 8, 0x210007);
    put(TABLES + 0x2008, 8, pt | 7);
    v->c.gpr[R_RSP] = 0x211800;
    v->c.gpr[R_RBP] = 0x212800;
    cr_expect_eq(enter(8, 0, 2), SYS_NEXT);
    EXPECT_STACK(0x2107e8, 8, 0x2117f8, 0x212800, 0x212800);
}

Test(legacy, enter_with_16_bit_operands_changes_bp_only)
{
    env_long(0);
    v->c.gpr[R_RBP] = 0x1122334455667788ull;
    cr_expect_eq(enter(2, 0x10, 0), SYS_NEXT);
    cr_expect_eq(v->c.gpr[R_RBP], 0x112233445566fffeull);
    cr_expect_eq(v->c.gpr[R_RSP], STACK0 - 0x12);
}

Test(legacy, push_and_pop_of_memory_are_whole)
{
    env_prot(0);
    v->ea = 0x30000;
    put(0x30000, 4, 0xcafe0001);
    cr_expect_eq(sys_push_mem(v, mk_op(4, 2)), SYS_NEXT);
    cr_expect_eq(get(STACK0 - 4, 4), 0xcafe0001);
    v->ea = 0x30010;
    cr_expect_eq(sys_pop_mem(v, mk_op(4, 2)), SYS_NEXT);
    cr_expect_eq(get(0x30010, 4), 0xcafe0001);
    cr_expect_eq(v->c.gpr[R_RSP], STACK0);
    v->c.seg[S_DS].limit = 0x1000;
    expect_fault("pop into nothing", sys_pop_mem(v, mk_op(4, 2)), EXC_GP, 0);
    cr_expect_eq(v->c.gpr[R_RSP], STACK0);
}

Test(legacy, call_through_memory)
{
    env_prot(0);
    v->ea = 0x30000;
    put(0x30000, 4, 0x4444);
    cr_expect_eq(sys_call_mem(v, mk_op(4, 6)), SYS_JUMP);
    cr_expect_eq(v->c.rip, 0x4444);
    cr_expect_eq(get(STACK0 - 4, 4), CODE + 6);
    v->c.seg[S_CS].limit = 0x3fff;
    expect_fault("target outside", sys_call_mem(v, mk_op(4, 6)), EXC_GP, 0);
    env_long(0);
    v->ea = 0x30000;
    put(0x30000, 8, 0x0000800000000000ull);
    expect_fault("not canonical", sys_call_mem(v, mk_op(8, 2)), EXC_GP, 0);
    cr_expect_eq(v->c.gpr[R_RSP], STACK0);
}

Test(legacy, xlat_truncates_to_the_address_size)
{
    struct sys_op op = mk_op(1, 1);
    env_real();
    seg_load_real(v, S_DS, 0x3000);
    op.asize = 2;
    v->c.gpr[R_RBX] = 0xfff0;
    v->c.gpr[R_RAX] = 0x1220;
    put(0x30010, 1, 0x99);
    cr_expect_eq(sys_xlat(v, op), SYS_NEXT);
    cr_expect_eq(v->c.gpr[R_RAX], 0x1299);
}

/* ---- decimal arithmetic ---- */

static void adjust(unsigned code, unsigned ax, uint32_t flags)
{
    struct sys_op op = mk_op(1, 1);
    op.op = (uint8_t)code;
    v->c.gpr[R_RAX] = ax;
    v->c.flags = flags;
    cr_expect_eq(code == SYS_OP_AAA || code == SYS_OP_AAS ? sys_ascii_adjust(v, op) : sys_decimal_adjust(v, op),
                 SYS_NEXT);
}
static void expect_ax(const char *what, unsigned ax, uint32_t flags, uint32_t mask)
{
    cr_expect_eq(v->c.gpr[R_RAX], ax, "%s: ax %lx, wanted %x", what, v->c.gpr[R_RAX], ax);
    cr_expect_eq(v->c.flags & mask, flags, "%s: flags %x", what, v->c.flags & mask);
}
#define AC_CF (EFLAGS_AF | EFLAGS_CF)
#define DEFINED (EFLAGS_ARITH & ~EFLAGS_OF)

Test(legacy, ascii_adjust)
{
    env_prot(0);
    adjust(SYS_OP_AAA, 0x0039, 0);
    expect_ax("9", 0x0009, 0, AC_CF);
    adjust(SYS_OP_AAA, 0x000b, 0);
    expect_ax("11", 0x0101, AC_CF, AC_CF);
    adjust(SYS_OP_AAA, 0x00fa, 0);
    expect_ax("carry out of AL goes to AH", 0x0200, AC_CF, AC_CF);
    adjust(SYS_OP_AAS, 0x0203, EFLAGS_AF);
    expect_ax("borrow", 0x000d, AC_CF, AC_CF);
}

/* Adding and subtracting every pair of packed decimals and adjusting gives the decimal result. */
Test(legacy, decimal_adjust_of_all_pairs)
{
    env_prot(0);
    for (unsigned a = 0; a < 100; a++)
        for (unsigned b = 0; b < 100; b++) {
            unsigned x = a / 10 << 4 | a % 10, y = b / 10 << 4 | b % 10, sum = a + b, dif = (a + 100 - b) % 100;
            uint32_t af = (x & 15) + (y & 15) > 15 ? EFLAGS_AF : 0, cf = x + y > 255 ? EFLAGS_CF : 0;
            adjust(SYS_OP_DAA, (x + y) & 255, af | cf);
            cr_assert_eq(v->c.gpr[R_RAX], (sum % 100) / 10 << 4 | sum % 10, "%u + %u", a, b);
            cr_assert_eq(v->c.flags & EFLAGS_CF, sum > 99);
            af = (x & 15) < (y & 15) ? EFLAGS_AF : 0, cf = x < y ? EFLAGS_CF : 0;
            adjust(SYS_OP_DAS, (x - y) & 255, af | cf);
            cr_assert_eq(v->c.gpr[R_RAX], dif / 10 << 4 | dif % 10, "%u - %u", a, b);
            cr_assert_eq(v->c.flags & EFLAGS_CF, a < b);
        }
}

Test(legacy, decimal_adjust_flags_of_manual_examples)
{
    env_prot(0);
    adjust(SYS_OP_DAA, 0xae, 0); /* SDM 2A, DAA: 79H + 35H */
    expect_ax("daa", 0x14, EFLAGS_AF | EFLAGS_CF | EFLAGS_PF, DEFINED);
    adjust(SYS_OP_DAS, 0x02, EFLAGS_AF);
    expect_ax("das 2 with AF", 0xfc, EFLAGS_AF | EFLAGS_CF | EFLAGS_SF | EFLAGS_PF, DEFINED);
}

Test(legacy, aam_divides_and_faults_on_zero)
{
    env_prot(0);
    v->c.gpr[R_RAX] = 0xff63;
    v->op_imm = 10;
    cr_expect_eq(sys_aam(v, mk_op(1, 2)), SYS_NEXT);
    expect_ax("aam", 0x0909, EFLAGS_PF, EFLAGS_SF | EFLAGS_ZF | EFLAGS_PF);
    v->op_imm = 10;
    cr_expect_eq(sys_aad(v, mk_op(1, 2)), SYS_NEXT);
    expect_ax("aad", 0x0063, EFLAGS_PF, EFLAGS_SF | EFLAGS_ZF | EFLAGS_PF);
    v->c.gpr[R_RAX] = 0x1f70; /* 0x70 + 0x1f * 3: what is left of the flags is the addition's */
    v->op_imm = 3;
    cr_expect_eq(sys_aad(v, mk_op(1, 2)), SYS_NEXT);
    expect_ax("aad, flags of the addition", 0x00cd, EFLAGS_SF | EFLAGS_OF, EFLAGS_ARITH);
    v->op_imm = 0;
    expect_fault("aam 0", sys_aam(v, mk_op(1, 2)), EXC_DE, 0);
}

/* ---- MASKMOV, MOVDIR64B ---- */

Test(legacy, maskmovdqu_writes_the_chosen_bytes)
{
    struct sys_op op = {.op = SYS_OP_MASKMOV, .opsize = 16, .reg = 1, .rm = 2, .seg = S_DS, .asize = 4};
    env_prot(0);
    cr_assert_eq(fpu_create(v), 0);
    v->c.cr4 = CR4_OSFXSR;
    uint8_t *data = fpu_image_part(v, FPU_PART_XMM, 1), *mask = fpu_image_part(v, FPU_PART_XMM, 2);
    for (unsigned i = 0; i < 16; i++) {
        data[i] = (uint8_t)(0x40 + i);
        mask[i] = i == 0 || i == 5 || i == 6 || i == 15 ? 0x80 : 0x7f;
    }
    put(0x30000, 8, 0);
    put(0x30008, 8, 0);
    v->c.gpr[R_RDI] = 0x30000;
    cr_expect_eq(sys_maskmov(v, op), SYS_NEXT);
    cr_expect_eq(get(0x30000, 8), 0x0046450000000040ull);
    cr_expect_eq(get(0x30008, 8), 0x4f00000000000000ull);
    v->c.cr0 |= CR0_TS;
    expect_fault("TS", sys_maskmov(v, op), EXC_NM, 0);
}

Test(legacy, maskmovdqu_is_two_stores_that_wrap_upper_first)
{
    struct sys_op op = {.op = SYS_OP_MASKMOV, .opsize = 16, .reg = 1, .rm = 1, .seg = S_DS, .asize = 2};
    env_prot(0);
    cr_assert_eq(fpu_create(v), 0);
    v->c.cr4 = CR4_OSFXSR;
    memset(fpu_image_part(v, FPU_PART_XMM, 1), 0x80, 16);
    put(0, 8, 0);
    v->c.gpr[R_RDI] = 0xfff8;
    cr_expect_eq(sys_maskmov(v, op), SYS_NEXT);
    cr_expect_eq(get(0, 8), 0x8080808080808080ull);
    env_long(0);
    cr_assert_eq(fpu_create(v), 0);
    v->c.cr4 |= CR4_OSFXSR;
    op.asize = 8;
    v->c.gpr[R_RDI] = 0x40000000;
    cr_expect_eq(sys_maskmov(v, op), SYS_FAULT, "mask all clear");
    cr_expect(v->fault.vector == EXC_PF && v->fault.cr2 == 0x40000008);
}

Test(legacy, maskmovq_turns_the_x87_stack)
{
    struct sys_op op = {.op = SYS_OP_MASKMOV, .opsize = 8, .reg = 3, .rm = 4, .seg = S_DS, .asize = 4};
    env_prot(0);
    cr_assert_eq(fpu_create(v), 0);
    v->xsave[FPU_FSW + 1] = 2 << 3; /* TOP 2: MM3 is ST1, MM4 is ST2 */
    memset(v->xsave + FPU_ST + 16, 0xab, 8);
    memset(v->xsave + FPU_ST + 32, 0xff, 4);
    put(0x30000, 8, 0);
    v->c.gpr[R_RDI] = 0x30000;
    cr_expect_eq(sys_maskmov(v, op), SYS_NEXT);
    cr_expect_eq(get(0x30000, 8), 0xabababab);
    cr_expect_eq(v->xsave[FPU_FSW + 1], 0);
    cr_expect_eq(v->xsave[FPU_FTW], 0xff);
    cr_expect_eq(v->xsave[FPU_ST + 3 * 16], 0xab, "MM3 is ST3 now");
    v->xsave[FPU_FSW + 1] = 2 << 3;
    v->c.gpr[R_RDI] = 0x30000;
    v->c.seg[S_DS].limit = 0x2ffff;
    expect_fault("no room", sys_maskmov(v, op), EXC_GP, 0);
    cr_expect_eq(v->xsave[FPU_FSW + 1], 0, "the stack has turned all the same");
    v->xsave[FPU_FSW] = 0x80;
    expect_fault("pending x87 exception", sys_maskmov(v, op), EXC_MF, 0);
}

Test(legacy, movdir64b_needs_an_aligned_destination)
{
    struct sys_op op = {.op = SYS_OP_MOVDIR64B, .reg = R_RCX, .rm = SYS_RM_MEM, .seg = S_DS, .asize = 4};
    env_prot(0);
    v->ea = 0x30001;
    put(0x30001 + 56, 8, 0x1234567890abcdefull);
    v->c.gpr[R_RCX] = 0x31000;
    expect_fault("not offered", sys_movdir64b(v, op), EXC_UD, 0);
    env_model.has[CPU_FEAT_MOVDIR64B / 64] |= 1ull << (CPU_FEAT_MOVDIR64B % 64);
    cr_expect_eq(sys_movdir64b(v, op), SYS_NEXT);
    cr_expect_eq(get(0x31000 + 56, 8), 0x1234567890abcdefull);
    v->c.gpr[R_RCX] = 0x31020;
    expect_fault("unaligned", sys_movdir64b(v, op), EXC_GP, 0);
    v->c.seg[S_SS].limit = 0x30000;
    op.seg = S_SS;
    expect_fault("the source's faults come first", sys_movdir64b(v, op), EXC_SS, 0);
}
