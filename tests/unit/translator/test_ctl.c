/* Branches, and system instructions as they are handed to C: run, not only looked at. */
#include "tests/unit/translator/xl_env.h"
#include <criterion/criterion.h>
#include <string.h>

static struct xl_cpu cpu;
static uint64_t stack_top;
static void setup(void)
{
    cpu = env_everything();
    env_open(&cpu);
    stack_top = (uint64_t)(uintptr_t)env->data + 4096;
    env->c.gpr[R_RSP] = stack_top;
}
TestSuite(xl_ctl, .init = setup, .fini = env_close);

#define BYTES(...)                                                                                                     \
    (const uint8_t[]){__VA_ARGS__}, sizeof(const uint8_t[]) { __VA_ARGS__ }
static uint64_t run(uint32_t key, const void *code, unsigned bytes)
{
    cr_assert_eq(env_translate(key, code, bytes), XL_OK);
    return env_run();
}
static uint64_t left_for(void) { return env_result.d.exit[env->link_pc == env_result.d.exit[1].stub_pc].target; }

Test(xl_ctl, jcc_goes_both_ways)
{
    env->c.flags = EFLAGS_ZF;
    cr_assert_eq(run(ENV_KEY64, BYTES(0x74, 0x10)), ENV_LINK); /* jz +10h */
    cr_expect_eq(left_for(), 0x1012);
    env->c.flags = 0;
    cr_assert_eq(env_run(), ENV_LINK);
    cr_expect_eq(left_for(), 0x1002);
}

Test(xl_ctl, call_pushes_and_ret_pops)
{
    uint64_t back;
    cr_assert_eq(run(ENV_KEY64, BYTES(0xe8, 0x10, 0x00, 0x00, 0x00)), ENV_LINK);
    memcpy(&back, env->data + 4088, 8);
    cr_expect_eq(back, 0x1005);
    cr_expect_eq(env->c.gpr[R_RSP], stack_top - 8);
    cr_assert_eq(run(ENV_KEY64, BYTES(0xc3)), ENV_INDIRECT);
    cr_expect_eq(env->c.rip, 0x1005);
    cr_expect_eq(env->c.gpr[R_RSP], stack_top);
}

/* What a RET releases is undone when its target turns out to be forbidden; 16 bits are not enough for it. */
Test(xl_ctl, ret_with_a_large_immediate_can_be_undone)
{
    cr_assert_eq(env_translate(ENV_KEY64, BYTES(0xc2, 0x60, 0xc1)), XL_OK);
    cr_expect_eq(env_result.d.rsp_undo, 0xc168);
}

/* A direct branch out of the code segment is #GP(0) at the branch, its other way is not. */
static struct xl_input small_segment(const uint8_t *code, unsigned bytes)
{
    return (struct xl_input){.code = code, .code_bytes = bytes, .rip = 0x1000, .cs_limit = 0x1fff, .key = ENV_KEY32};
}
Test(xl_ctl, taken_branch_beyond_the_limit_faults)
{
    const uint8_t code[] = {0x0f, 0x84, 0x00, 0x20, 0x00, 0x00, 0x90, 0x90};
    struct xl_input in = small_segment(code, sizeof code);
    cr_assert_eq(env_translate_in(&in), XL_OK);
    env->c.flags = EFLAGS_ZF;
    cr_assert_eq(env_run(), ENV_CALLOUT);
    cr_expect_eq(env_op().op, SYS_OP_GP0);
    cr_expect_eq(env->c.rip, 0x1000);
    env->c.flags = 0;
    cr_expect_eq(env_run(), ENV_LINK);
}
Test(xl_ctl, loop_beyond_the_limit_keeps_its_count)
{
    const uint8_t code[] = {0xe2, 0x80, 0x90, 0x90};
    struct xl_input in = small_segment(code, sizeof code);
    in.cs_limit = 0xf00;
    env->c.gpr[R_RCX] = 7;
    cr_assert_eq(env_translate_in(&in), XL_OK);
    cr_assert_eq(env_run(), ENV_CALLOUT);
    cr_expect_eq(env->c.gpr[R_RCX], 7);
}
Test(xl_ctl, call_beyond_the_limit_leaves_the_stack_pointer)
{
    const uint8_t code[] = {0xe8, 0x00, 0x20, 0x00, 0x00, 0x90};
    struct xl_input in = small_segment(code, sizeof code);
    cr_assert_eq(env_translate_in(&in), XL_OK);
    cr_assert_eq(env_run(), ENV_CALLOUT);
    cr_expect_eq(env->c.gpr[R_RSP], stack_top);
}

/* A stepped indirect branch must be checked like any other: it leaves as an indirect exit, not as a plain one. */
Test(xl_ctl, stepped_ret_leaves_as_indirect) { cr_expect_eq(run(ENV_KEY64 | CPU_KEY_STEP, BYTES(0xc3)), ENV_INDIRECT); }

Test(xl_ctl, salc_sets_al_and_no_flag)
{
    const uint32_t set = EFLAGS_CF | EFLAGS_ZF | EFLAGS_PF;
    env->c.gpr[R_RAX] = 0x12345678;
    env->c.flags = set;
    cr_assert_eq(run(ENV_KEY32, BYTES(0xd6, 0xeb, 0x00)), ENV_LINK);
    cr_expect_eq(env->c.gpr[R_RAX], 0x123456ff);
    cr_expect_eq(env->c.flags, set);
    env->c.flags = EFLAGS_ZF;
    cr_assert_eq(env_run(), ENV_LINK);
    cr_expect_eq(env->c.gpr[R_RAX], 0x12345600);
    cr_expect_eq(env->c.flags, EFLAGS_ZF);
}

/* ---- hand-over to C ---- */

Test(xl_ctl, far_return_without_immediate_releases_nothing)
{
    env->op_imm = 0x2000; /* of the callout before */
    cr_assert_eq(run(ENV_KEY32, BYTES(0xcb)), ENV_CALLOUT);
    cr_expect_eq(env_op().op, SYS_OP_RET_FAR);
    cr_expect_eq(env->op_imm, 0);
}

Test(xl_ctl, rdgsbase_ignores_66)
{
    cr_assert_eq(run(ENV_KEY64, BYTES(0x66, 0xf3, 0x0f, 0xae, 0xcb)), ENV_CALLOUT);
    cr_expect_eq(env_op().opsize, 4);
}

/* The address of POP m is made with the stack pointer already increased (SDM 2B POP). */
Test(xl_ctl, pop_to_memory_by_the_stack_pointer)
{
    cr_assert_eq(run(ENV_KEY32, BYTES(0x8f, 0x44, 0x24, 0x10)), ENV_CALLOUT);
    cr_expect_eq(env->ea, stack_top + 0x10 + 4);
}

Test(xl_ctl, vmaskmovdqu_names_registers_by_vex)
{
    cr_assert_eq(run(ENV_KEY64, BYTES(0xc5, 0x79, 0xf7, 0xec)), ENV_CALLOUT); /* vmaskmovdqu xmm13, xmm4 */
    cr_expect_eq(env_op().reg, 13);
    cr_expect_eq(env_op().rm, 4);
}
