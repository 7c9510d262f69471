/* Where the decoder alone is not enough: its mistakes, what differs outside 64-bit mode, instructions cut by the end of a page. */
#include "tests/unit/translator/xl_env.h"
#include <criterion/criterion.h>
#include <string.h>

static struct xl_cpu cpu;
static void setup(void)
{
    cpu = env_everything();
    env_open(&cpu);
}
TestSuite(xl_decode, .init = setup, .fini = env_close);

#define BYTES(...)                                                                                                     \
    (const uint8_t[]){__VA_ARGS__}, sizeof(const uint8_t[]) { __VA_ARGS__ }

static uint64_t missed;
static int note_miss(uint64_t ret_pc)
{
    missed = env->c.gpr[XL_SITE_S1(env->site)];
    return ENV_FAULT;
}

/* SIB with base = 5 and mod = 0 has a disp32 and no base, also under VEX.B (SDM 2A table 2-3). */
Test(xl_decode, sib_without_base_under_vex_b)
{
    env_on_miss = note_miss;
    env->c.gpr[R_R12] = 0x100;
    env->c.gpr[R_R13] = 0x70000000;
    cr_assert_eq(env_translate(ENV_KEY64, BYTES(0xc4, 0x01, 0xf8, 0xae, 0x14, 0x25, 0x00, 0x20, 0x00, 0x00)),
                 XL_OK); /* vldmxcsr */
    cr_expect_eq(env_run(), ENV_FAULT);
    cr_expect_eq(missed, 0x2100, "address %#llx", (unsigned long long)missed);
}

Test(xl_decode, evex_register_extensions_do_not_count_in_32_bit_code)
{
    struct env_host h;
    cr_assert_eq(env_translate(ENV_KEY32, BYTES(0x62, 0xc1, 0x3c, 0x08, 0x58, 0xc1)),
                 XL_OK); /* vaddps xmm0, xmm0, xmm1 */
    cr_assert(env_host(ZYDIS_MNEMONIC_VADDPS, 0, &h));
    cr_expect_eq(h.op[0].reg.value, ZYDIS_REGISTER_XMM0);
}

static enum xl_status cut(const void *code, unsigned bytes)
{
    struct xl_input in = {.code = code, .code_bytes = bytes, .rip = 0x1ff0, .key = ENV_KEY64};
    return env_translate_in(&in);
}

Test(xl_decode, an_instruction_cut_by_the_page_asks_for_the_next)
{
    cr_expect_eq(cut(BYTES(0x48, 0xb8, 0x11)), XL_NEED_NEXT);
}

Test(xl_decode, three_d_now_is_undefined_before_its_end_is_fetched)
{
    cr_expect_eq(cut(BYTES(0x0f, 0x0f, 0xf9)), XL_OK);
    cr_expect_eq(env_class(0), XL_UD);
}

/* Without XOP, 8F is POP with a reserved ModRM.reg, and as long as that. */
Test(xl_decode, xop_without_xop_is_as_long_as_pop)
{
    struct xl_cpu none = {0};
    env_close();
    env_open(&none);
    cr_expect_eq(cut(BYTES(0x8f, 0xc9, 0x78, 0xc1)), XL_OK);
    cr_expect_eq(env_class(0), XL_UD);
    cr_expect_eq(cut(BYTES(0x8f, 0x89, 0x78, 0xc1, 0xc8)), XL_NEED_NEXT); /* mod 2: a disp32 follows */
}

/* Conversions between scalars and general registers, as the CPU takes them: W counts in 64-bit mode only, rounding of what is exact
 * never does. */
Test(xl_decode, evex_w_of_scalar_conversions_does_not_count_in_32_bit_code)
{
    struct env_host h;
    cr_assert_eq(env_translate(ENV_KEY32, BYTES(0x62, 0xf1, 0xfe, 0x18, 0x2a, 0xca)), XL_OK);
    cr_assert(env_host(ZYDIS_MNEMONIC_VCVTSI2SS, 0, &h));
    cr_expect_eq(h.op[2].reg.value, ZYDIS_REGISTER_EDX);
    cr_assert_eq(env_translate(ENV_KEY32, BYTES(0x62, 0xf1, 0xff, 0x18, 0x2d, 0xca)), XL_OK);
    cr_assert(env_host(ZYDIS_MNEMONIC_VCVTSD2SI, 0, &h));
    cr_expect_eq(h.op[0].reg.value, ZYDIS_REGISTER_ECX);
}

Test(xl_decode, rounding_of_an_exact_conversion_does_not_count)
{
    struct env_host h;
    cr_assert_eq(env_translate(ENV_KEY64, BYTES(0x62, 0xf1, 0x7f, 0x18, 0x2a, 0xca)), XL_OK);
    cr_assert(env_host(ZYDIS_MNEMONIC_VCVTSI2SD, 0, &h));
    cr_assert_eq(env_translate(ENV_KEY32, BYTES(0x62, 0xf1, 0xff, 0x18, 0x7b, 0xca)), XL_OK);
    cr_assert(env_host(ZYDIS_MNEMONIC_VCVTUSI2SD, 0, &h));
    cr_assert_eq(env_translate(ENV_KEY32, BYTES(0x62, 0xf1, 0xff, 0x18, 0x2a, 0x09)), XL_OK);
    cr_expect_eq(env_class(0), XL_UD, "memory operand");
}

Test(xl_decode, evex_w_of_other_conversions_counts)
{
    cr_assert_eq(env_translate(ENV_KEY32, BYTES(0x62, 0xf1, 0xfe, 0x08, 0x5a, 0xca)),
                 XL_OK); /* VCVTSS2SD has W0 only */
    cr_expect_eq(env_class(0), XL_UD);
}

/* In maps where everything has a ModRM byte the CPU fetches it, and what belongs to it, before it looks what the opcode is. */
Test(xl_decode, undefined_opcodes_are_fetched_with_their_modrm)
{
    cr_expect_eq(cut(BYTES(0x0f, 0x38, 0x0c)), XL_NEED_NEXT);
    cr_expect_eq(cut(BYTES(0x0f, 0x38, 0x0c, 0xc0)), XL_OK);
    cr_expect_eq(env_class(0), XL_UD);
    cr_expect_eq(cut(BYTES(0x62, 0xf2, 0x7d, 0x48, 0xef, 0x80)), XL_NEED_NEXT); /* a disp32 follows */
    cr_expect_eq(cut(BYTES(0x0f, 0x04)), XL_OK); /* in the two-byte map not everything has one */
    cr_expect_eq(env_class(0), XL_UD);
    cr_expect_eq(cut(BYTES(0x66, 0x0f, 0x20, 0x75)),
                 XL_OK); /* ModRM.mod means nothing to MOV from CR6, which there is not */
    cr_expect_eq(env_class(0), XL_UD);
}

Test(xl_decode, undefined_opcodes_are_fetched_with_their_immediates)
{
    cr_expect_eq(cut(BYTES(0xc7, 0xd1, 0, 0, 0)), XL_NEED_NEXT); /* group 11, ModRM.reg = 2 */
    cr_expect_eq(cut(BYTES(0xc7, 0xd1, 0, 0, 0, 0)), XL_OK);
    cr_expect_eq(cut(BYTES(0x66, 0xc7, 0xd1, 0, 0)), XL_OK);
    cr_expect_eq(cut(BYTES(0x41, 0x2e, 0x0f, 0x3b, 0xb9, 0x91, 0, 0, 0, 0)), XL_NEED_NEXT); /* a byte, as in map 0F3A */
    cr_expect_eq(cut(BYTES(0x41, 0x2e, 0x0f, 0x3b, 0x01, 0xc1, 0)), XL_OK);
    cr_expect_eq(cut(BYTES(0xc5, 0xf8, 0x80, 0, 0, 0)), XL_NEED_NEXT); /* JO without VEX */
    cr_expect_eq(cut(BYTES(0xc5, 0xf8, 0x80, 0, 0, 0, 0)), XL_OK);
}

Test(xl_decode, reserved_maps_are_undefined_before_their_opcode_is_fetched)
{
    cr_expect_eq(cut(BYTES(0xc4, 0xe4)), XL_OK);
    cr_expect_eq(env_class(0), XL_UD);
    cr_expect_eq(cut(BYTES(0x62, 0xf0)), XL_OK);
    cr_expect_eq(env_class(0), XL_UD);
    cr_expect_eq(cut(BYTES(0xc4, 0xe5, 0x78)), XL_NEED_NEXT);
    cr_expect_eq(cut(BYTES(0xc4, 0x68)), XL_NEED_NEXT); /* as LES, which is not there in 64-bit mode, but has a disp8 */
    cr_expect_eq(cut(BYTES(0xc4, 0x68, 0x00)), XL_OK);
}

Test(xl_decode, sixteen_bytes_are_too_long)
{
    uint8_t code[16];
    memset(code, 0x66, sizeof code);
    cr_expect_eq(cut(code, sizeof code), XL_TOO_LONG);
}

/* C decodes a gather again: the copy it gets must not make a base of VEX.B. */
Test(xl_decode, copy_of_a_gather_without_base_has_no_vex_b)
{
    cr_assert_eq(env_translate(ENV_KEY64, BYTES(0xc4, 0xc2, 0x79, 0x92, 0x14, 0x25, 0x00, 0x20, 0x00, 0x00)), XL_OK);
    cr_assert_eq(env_run(), ENV_CALLOUT);
    cr_expect_eq(env_op().op, SYS_OP_VSIB);
    const uint8_t *copy = (const uint8_t *)(uintptr_t)env->op_imm;
    cr_expect_eq(copy[1], 0xe2);
    cr_expect_eq(copy[5], 0x25);
}
