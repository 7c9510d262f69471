/* translator/xl_mask.c - which bytes of a memory operand a mask leaves out. Elements that are masked off do not fault and are
 * not accessed (SDM 2A 2.7.5 for EVEX, VMASKMOV/VPMASKMOV in 2C); C needs to know them when the whole operand is not at hand. */
#include "translator/xl_int.h"

static bool is_vector(const ZydisDecodedOperand *o)
{
    if (o->type != ZYDIS_OPERAND_TYPE_REGISTER)
        return false;
    ZydisRegisterClass c = ZydisRegisterGetClass(o->reg.value);
    return c == ZYDIS_REGCLASS_XMM || c == ZYDIS_REGCLASS_YMM || c == ZYDIS_REGCLASS_ZMM;
}

/* Exception classes without fault suppression: the whole operand is accessed whatever the mask (SDM 2A tables 2-45 ff.). */
static bool suppresses_faults(const struct xl_insn *n)
{
    switch (n->i.mnemonic) { /* the decoder's tables do not say it of these */
    case ZYDIS_MNEMONIC_VGF2P8AFFINEQB:
    case ZYDIS_MNEMONIC_VGF2P8AFFINEINVQB:
    case ZYDIS_MNEMONIC_VDBPSADBW:
    case ZYDIS_MNEMONIC_VCVTNE2PS2BF16: return false;
    default: break;
    }
    switch (n->i.meta.exception_class) {
    case ZYDIS_EXCEPTION_CLASS_E1NF:
    case ZYDIS_EXCEPTION_CLASS_E2NF:
    case ZYDIS_EXCEPTION_CLASS_E3NF:
    case ZYDIS_EXCEPTION_CLASS_E4NF:
    case ZYDIS_EXCEPTION_CLASS_E5NF:
    case ZYDIS_EXCEPTION_CLASS_E6NF:
    case ZYDIS_EXCEPTION_CLASS_E9NF:
    case ZYDIS_EXCEPTION_CLASS_E10NF:
    case ZYDIS_EXCEPTION_CLASS_E11NF: return false;
    default: return true;
    }
}

static bool is_scalar(const struct xl_insn *n)
{
    switch (n->i.meta.isa_set) {
    case ZYDIS_ISA_SET_AVX512F_SCALAR:
    case ZYDIS_ISA_SET_AVX512DQ_SCALAR:
    case ZYDIS_ISA_SET_AVX512_FP16_SCALAR: return true;
    default: return false;
    }
}

/* Number of elements that the mask counts: the smaller of what the registers and the memory operand hold, because narrowing
 * and widening leave part of a register unused, and some sources are listed in smaller parts than the mask knows. */
static unsigned mask_elements(const struct xl_insn *n)
{
    unsigned count = n->op[n->mem].element_count;
    for (unsigned k = 0; k < n->i.operand_count_visible; k++)
        if (is_vector(&n->op[k]) && n->op[k].element_count < count)
            count = n->op[k].element_count;
    if (n->i.mnemonic == ZYDIS_MNEMONIC_VPSHUFBITQMB) /* its memory operand is a vector of byte indexes */
        return xl_operand_bytes(&n->op[n->mem]);
    switch (n->i.mnemonic) { /* pairs of halves */
    case ZYDIS_MNEMONIC_VFMULCPH:
    case ZYDIS_MNEMONIC_VFCMULCPH:
    case ZYDIS_MNEMONIC_VFMADDCPH:
    case ZYDIS_MNEMONIC_VFCMADDCPH: return count > xl_operand_bytes(&n->op[n->mem]) / 4 ? count / 2 : count;
    default: return count ? count : 1;
    }
}

static void broadcast(ZydisBroadcastMode mode, unsigned *from, unsigned *to)
{
    static const uint8_t modes[][2] = {
        [ZYDIS_BROADCAST_MODE_1_TO_2] = {1, 2},   [ZYDIS_BROADCAST_MODE_1_TO_4] = {1, 4},
        [ZYDIS_BROADCAST_MODE_1_TO_8] = {1, 8},   [ZYDIS_BROADCAST_MODE_1_TO_16] = {1, 16},
        [ZYDIS_BROADCAST_MODE_1_TO_32] = {1, 32}, [ZYDIS_BROADCAST_MODE_1_TO_64] = {1, 64},
        [ZYDIS_BROADCAST_MODE_2_TO_4] = {2, 4},   [ZYDIS_BROADCAST_MODE_2_TO_8] = {2, 8},
        [ZYDIS_BROADCAST_MODE_2_TO_16] = {2, 16}, [ZYDIS_BROADCAST_MODE_4_TO_8] = {4, 8},
        [ZYDIS_BROADCAST_MODE_4_TO_16] = {4, 16}, [ZYDIS_BROADCAST_MODE_8_TO_16] = {8, 16},
    };
    *from = modes[mode][0];
    *to = modes[mode][1];
}

static uint32_t encode(unsigned kind, unsigned reg, unsigned bytes, unsigned bits, unsigned elements)
{
    return kind | reg << 4 | (unsigned)__builtin_ctz(bytes) << 12 | bits << 16 | elements << 24;
}

static uint32_t evex_mask(const struct xl_insn *n, unsigned size)
{
    unsigned k = (unsigned)(n->i.avx.mask.reg - ZYDIS_REGISTER_K0), from, to;
    ZydisInstructionCategory c = n->i.meta.category;
    if (is_scalar(n))
        return encode(XL_MASK_K, k, size, 1, 1);
    if (c == ZYDIS_CATEGORY_COMPRESS || c == ZYDIS_CATEGORY_EXPAND) {
        to = mask_elements(n);
        return encode(XL_MASK_PACKED, k, size / to, to, to);
    }
    if (n->i.avx.broadcast.mode != ZYDIS_BROADCAST_MODE_INVALID) {
        broadcast(n->i.avx.broadcast.mode, &from, &to);
        return encode(XL_MASK_K, k, size / from, to, from);
    }
    to = mask_elements(n);
    return encode(XL_MASK_K, k, size / to, to, to);
}

/* 0: not masked. Else the description that C needs, see XL_MASK_*. */
uint32_t xl_mask_of(const struct xl_insn *n, unsigned size)
{
    switch (n->i.mnemonic) {
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
        return encode(XL_MASK_SIGNS, (unsigned)ZydisRegisterGetId(n->op[1].reg.value), 4, size / 4, size / 4);
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ:
        return encode(XL_MASK_SIGNS, (unsigned)ZydisRegisterGetId(n->op[1].reg.value), 8, size / 8, size / 8);
    default: break;
    }
    if (n->i.encoding != ZYDIS_INSTRUCTION_ENCODING_EVEX || n->i.avx.mask.mode == ZYDIS_MASK_MODE_INVALID ||
        n->i.avx.mask.mode == ZYDIS_MASK_MODE_DISABLED || !suppresses_faults(n))
        return 0;
    return evex_mask(n, size);
}
