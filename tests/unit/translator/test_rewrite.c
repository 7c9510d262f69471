/* The host instruction that a guest instruction becomes: prefixes, fields that mean another thing in 64-bit mode. */
#include "tests/unit/translator/xl_env.h"
#include <criterion/criterion.h>

static struct xl_cpu cpu;
static void setup(void)
{
    cpu = env_everything();
    env_open(&cpu);
}
TestSuite(xl_rewrite, .init = setup, .fini = env_close);

#define BYTES(...)                                                                                                     \
    (const uint8_t[]){__VA_ARGS__}, sizeof(const uint8_t[]) { __VA_ARGS__ }

static struct env_host host(uint32_t key, const void *code, unsigned bytes, ZydisMnemonic m)
{
    struct env_host h;
    cr_assert_eq(env_translate(key, code, bytes), XL_OK);
    cr_assert(env_host(m, 0, &h), "no %s in the translation", ZydisMnemonicGetString(m));
    return h;
}

Test(xl_rewrite, vex_in_16_bit_code_gets_no_66)
{
    struct env_host h = host(ENV_KEY16, BYTES(0xc5, 0xdc, 0x41, 0xc5), ZYDIS_MNEMONIC_KANDW);
    cr_expect_eq(h.bytes[0], 0xc4);
}

Test(xl_rewrite, operand_size_is_inverted_in_16_bit_code)
{
    cr_expect_eq(host(ENV_KEY16, BYTES(0x01, 0xc8), ZYDIS_MNEMONIC_ADD).i.operand_width, 16);
    cr_expect_eq(host(ENV_KEY16, BYTES(0x66, 0x01, 0xc8), ZYDIS_MNEMONIC_ADD).i.operand_width, 32);
}

Test(xl_rewrite, lock_elision_hints_are_dropped)
{
    struct env_host h = host(ENV_KEY64, BYTES(0xf2, 0xf0, 0x01, 0x08), ZYDIS_MNEMONIC_ADD);
    cr_expect(h.i.attributes & ZYDIS_ATTRIB_HAS_LOCK);
    cr_expect(!(h.i.attributes & (ZYDIS_ATTRIB_HAS_XACQUIRE | ZYDIS_ATTRIB_HAS_REPNE)));
}

Test(xl_rewrite, pause_stays_pause) { host(ENV_KEY64, BYTES(0xf3, 0x90), ZYDIS_MNEMONIC_PAUSE); }

Test(xl_rewrite, one_byte_inc_gets_a_modrm)
{
    struct env_host h = host(ENV_KEY32, BYTES(0x43), ZYDIS_MNEMONIC_INC);
    cr_expect_eq(h.op[0].reg.value, ZYDIS_REGISTER_EBX);
}

/* vpblendvb ymm2, ymm3, ymm7, ymm3 with bit 7 of the immediate set: ignored in 32-bit code, XMM11 in 64-bit mode. */
Test(xl_rewrite, register_in_immediate_loses_bit_7_outside_64_bit_mode)
{
    struct env_host h = host(ENV_KEY32, BYTES(0xc4, 0xe3, 0x65, 0x4c, 0xd7, 0xbe), ZYDIS_MNEMONIC_VPBLENDVB);
    cr_expect_eq(h.op[3].reg.value, ZYDIS_REGISTER_YMM3);
}

/* VEX.W makes the lengths 64-bit ones in 64-bit mode only. */
Test(xl_rewrite, lengths_of_vpcmpestri_stay_32_bit)
{
    struct env_host h = host(ENV_KEY32, BYTES(0xc4, 0xe3, 0xf9, 0x61, 0xc1, 0x0c), ZYDIS_MNEMONIC_VPCMPESTRI);
    cr_expect_eq(h.bytes[2] & 0x80, 0);
}

/* The copies would clear registers 8-15, which outside 64-bit mode are out of reach. */
Test(xl_rewrite, vzeroupper_and_vzeroall_leave_high_registers_outside_64_bit_mode)
{
    struct env_host h;
    host(ENV_KEY64, BYTES(0xc5, 0xf8, 0x77), ZYDIS_MNEMONIC_VZEROUPPER);
    host(ENV_KEY32, BYTES(0xc5, 0xf8, 0x77), ZYDIS_MNEMONIC_VMOVAPS);
    cr_expect(!env_host(ZYDIS_MNEMONIC_VZEROUPPER, 0, &h));
    host(ENV_KEY32, BYTES(0xc5, 0xfc, 0x77), ZYDIS_MNEMONIC_VPXOR);
    cr_expect(!env_host(ZYDIS_MNEMONIC_VZEROALL, 0, &h));
}

Test(xl_rewrite, memory_operand_moves_and_the_rest_stays)
{
    struct env_host h =
        host(ENV_KEY64, BYTES(0x48, 0x81, 0x44, 0x8d, 0x10, 0x78, 0x56, 0x34, 0x12), ZYDIS_MNEMONIC_ADD);
    cr_expect_eq(h.op[1].imm.value.u, 0x12345678);
    cr_expect_eq(h.op[0].size, 64);
    cr_expect(!h.op[0].mem.disp.has_displacement || !h.op[0].mem.disp.value);
}
