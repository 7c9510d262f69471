/* translator/xl_feature.c - does the guest's CPU have this instruction at all? What CPUID does not offer is #UD, whatever the
 * host would make of it; a feature of the host that the guest was not told of must not show either. */
#include "translator/xl_int.h"

static const struct need {
    uint8_t a, b;
} needs[ZYDIS_ISA_SET_MAX_VALUE + 1] = {
#define ISA(set, a, b) [ZYDIS_ISA_SET_##set] = {XL_FEAT_##a, XL_FEAT_##b},
#include "translator/xl_isa.def"
#undef ISA
};

static bool has(const struct xl *x, unsigned f) { return f == XL_FEAT_ALWAYS || xl_cpu_has(&x->cpu, f); }

bool xl_offered(const struct xl *x, const struct xl_insn *n)
{
    switch (n->i.meta.isa_set) {
    case ZYDIS_ISA_SET_LAHF: return !x->m64 || has(x, XL_FEAT_LAHF_LM);
    case ZYDIS_ISA_SET_MOVDIR:
        return has(x, n->i.mnemonic == ZYDIS_MNEMONIC_MOVDIRI ? XL_FEAT_MOVDIRI : XL_FEAT_MOVDIR64B);
    default: break;
    }
    const struct need *q = &needs[n->i.meta.isa_set];
    /* The 128-bit VEX form carries no set of its own in the decoder's tables. */
    if (n->i.mnemonic == ZYDIS_MNEMONIC_VPCLMULQDQ && n->i.meta.isa_set == ZYDIS_ISA_SET_AVX &&
        !has(x, XL_FEAT_PCLMULQDQ))
        return false;
    return q->a != XL_FEAT_NEVER && has(x, q->a) && has(x, q->b);
}
