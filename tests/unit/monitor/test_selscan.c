/* The scan for instructions on selectors: lengths and verdicts against Zydis. */
#include "monitor/selscan.h"
#include "base/rng.h"
#include <Zydis/Zydis.h>
#include <criterion/criterion.h>
#include <string.h>

static bool zydis_says_selectors(const ZydisDecodedInstruction *i, const ZydisDecodedOperand *op)
{
    switch (i->mnemonic) {
    case ZYDIS_MNEMONIC_LAR:
    case ZYDIS_MNEMONIC_LSL:
    case ZYDIS_MNEMONIC_VERR:
    case ZYDIS_MNEMONIC_VERW:
    case ZYDIS_MNEMONIC_SLDT:
    case ZYDIS_MNEMONIC_STR:
    case ZYDIS_MNEMONIC_LLDT:
    case ZYDIS_MNEMONIC_LTR:
    case ZYDIS_MNEMONIC_SGDT:
    case ZYDIS_MNEMONIC_SIDT:
    case ZYDIS_MNEMONIC_SMSW:
    case ZYDIS_MNEMONIC_LDS:
    case ZYDIS_MNEMONIC_LES:
    case ZYDIS_MNEMONIC_LFS:
    case ZYDIS_MNEMONIC_LGS:
    case ZYDIS_MNEMONIC_LSS:
    case ZYDIS_MNEMONIC_IRET:
    case ZYDIS_MNEMONIC_IRETD:
    case ZYDIS_MNEMONIC_SYSENTER: return true;
    default: break;
    }
    if (i->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR && i->mnemonic != ZYDIS_MNEMONIC_SYSCALL)
        return true;
    bool data =
        i->mnemonic == ZYDIS_MNEMONIC_MOV || i->mnemonic == ZYDIS_MNEMONIC_PUSH || i->mnemonic == ZYDIS_MNEMONIC_POP;
    for (unsigned k = 0; data && k < i->operand_count_visible; k++)
        if (op[k].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            ZydisRegisterGetClass(op[k].reg.value) == ZYDIS_REGCLASS_SEGMENT)
            return true;
    return false;
}

Test(selscan, lengths_and_verdicts_are_those_of_zydis)
{
    struct rng r;
    ZydisDecoder d;
    uint8_t b[16];
    unsigned decoded = 0, hits = 0;
    rng_init(&r, 20);
    cr_assert(ZYAN_SUCCESS(ZydisDecoderInit(&d, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32)));
    for (unsigned n = 0; n < 2000000; n++) {
        ZydisDecodedInstruction i;
        ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
        bool selectors;
        for (unsigned k = 0; k < sizeof b; k++)
            b[k] = (uint8_t)rng_next(&r);
        if (n & 1)
            b[0] = (const uint8_t[]){0x0f, 0x66, 0x67, 0xc5, 0xc4, 0x62, 0xff, 0xf7}[n >> 1 & 7];
        if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&d, b, sizeof b, &i, op)))
            continue;
        /* XOP (AMD) shares POP's opcode; segment overrides may stand anywhere in front. */
        if (i.encoding == ZYDIS_INSTRUCTION_ENCODING_XOP)
            continue;
        unsigned len = selscan_insn(b, sizeof b, &selectors);
        cr_assert_eq(len, i.length, "%s: %02x %02x %02x %02x %02x: %u, Zydis %u", ZydisMnemonicGetString(i.mnemonic),
                     b[0], b[1], b[2], b[3], b[4], len, i.length);
        bool want = zydis_says_selectors(&i, op);
        cr_assert_eq(selectors, want, "%s: %02x %02x %02x %02x %02x", ZydisMnemonicGetString(i.mnemonic), b[0], b[1],
                     b[2], b[3], b[4]);
        decoded++;
        hits += want;
    }
    cr_expect_gt(decoded, 800000);
    cr_expect_gt(hits, 20000);
}

Test(selscan, what_does_not_end_within_the_bytes_has_no_length)
{
    static const uint8_t mov[] = {0x8b, 0x05, 1, 2, 3}, prefixes[] = {0x66, 0x2e}, escape[] = {0x0f};
    bool selectors;
    cr_expect_eq(selscan_insn(mov, sizeof mov, &selectors), 0);
    cr_expect_not(selectors);
    cr_expect_eq(selscan_insn(prefixes, sizeof prefixes, &selectors), 0);
    cr_expect(selectors, "undecided counts");
    cr_expect_eq(selscan_insn(escape, sizeof escape, &selectors), 0);
    cr_expect(selectors, "undecided counts");
}

Test(selscan, a_range_has_its_own_instructions_only)
{
    /* push es; mov eax, 0x06060606; mov gs, eax */
    static const uint8_t code[] = {0x06, 0xb8, 6, 6, 6, 6, 0x8e, 0xe8, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90};
    cr_expect(selscan_range(code, sizeof code, 0, 0, 1));
    cr_expect_not(selscan_range(code, sizeof code, 0, 1, 6));
    cr_expect(selscan_range(code, sizeof code, 0, 1, 7));
    cr_expect_not(selscan_range(code, sizeof code, 8, 8, sizeof code));
    cr_expect(selscan_range(code, sizeof code, 2, 2, 3), "a wrong start is taken at its word");
}
