/* translator/xl_string.c - REP MOVS and REP STOS through the window: the host's own string instruction on host addresses.
 *
 * The destination of a string instruction cannot have a GS prefix, so RDI and RSI become host addresses for its duration. Recovery
 * points inside it say so by the RSP bit of the spill mask (RSP is never spilled), with the bits of the registers concerned.
 * Backward moves meet UD2: the site is softened and becomes a callout.
 * 32-bit code with flat segments: the same in its 4 GiB window. A run over 4 GiB meets the window's guard, is softened, and goes
 * on as a callout at address 0.
 */
#include "translator/xl_int.h"

bool xl_string_direct(const struct xl *x, const struct xl_insn *n)
{
    bool movs = n->sys == SYS_OP_MOVS;
    if (x->careful || n->strategy != XL_SITE_WINDOW || n->i.address_width != (x->m64 ? 64 : 32) ||
        (!movs && n->sys != SYS_OP_STOS))
        return false;
    if (!(n->i.attributes & ZYDIS_ATTRIB_HAS_REP) || (x->in->key & (CPU_KEY_STEP | CPU_KEY_AC)))
        return false;
    if (!x->m64 && ((x->in->key & (CPU_KEY_FLAT | CPU_KEY_REAL)) != CPU_KEY_FLAT ||
                    (n->i.attributes & ZYDIS_ATTRIB_HAS_SEGMENT_CS)))
        return false;
    return !(n->i.attributes & (ZYDIS_ATTRIB_HAS_SEGMENT_FS | ZYDIS_ATTRIB_HAS_SEGMENT_GS));
}

void xl_emit_string(struct xl *x, struct xl_insn *n)
{
    struct emit *e = x->hot;
    bool movs = n->sys == SYS_OP_MOVS;
    unsigned size = xl_operand_bytes(&n->op[0]), use = BIT(R_RCX) | BIT(R_RDI) | BIT(R_RSI) | BIT(R_RAX);
    xl_unspill(x, use);
    em_st64(e, R_RCX, xl_slot(x, R_RCX));
    em8(e, 0x0f), em8(e, 0xb6); /* movzx ecx, byte [df_flag] */
    em_modrm_abs(e, R_RCX, xl_cpu(x, offsetof(struct cpu, df_flag)), 0);
    uint8_t *forward = em_jrcxz(e);
    em_ld64(e, R_RCX, xl_slot(x, R_RCX));
    xl_add_point(x, em_pc(e), n->off);
    em8(e, 0x0f), em8(e, 0x0b);
    em_here8(e, forward);
    em_ld64(e, R_RCX, xl_slot(x, R_RCX));
    int t = (int)xl_pick(x, use, false);
    if (!x->m64) { /* what is above 32 bits does not count */
        em_lea(e, 0, R_RCX, R_RCX, NO_REG, 0, 0);
        em_lea(e, 0, R_RDI, R_RDI, NO_REG, 0, 0);
        em_lea(e, 0, R_RSI, R_RSI, NO_REG, 0, 0);
    }
    em_ld64(e, (unsigned)t, x->l->gs_base);
    em_lea(e, 1, R_RDI, R_RDI, t, 0, 0);
    if (movs)
        em_lea(e, 1, R_RSI, R_RSI, t, 0, 0);
    uint16_t spilled = x->spilled;
    x->spilled |= BIT(R_RSP) | BIT(R_RDI) | (movs ? BIT(R_RSI) : 0);
    xl_add_point(x, em_pc(e), n->off);
    x->spilled = spilled;
    em8(e, 0xf3);
    if (size == 2)
        em8(e, 0x66);
    if (size == 8)
        em8(e, 0x48);
    em8(e, (movs ? 0xa4u : 0xaau) + (size > 1));
    em_ld64(e, (unsigned)t, x->l->gs_base_neg);
    em_lea(e, x->m64, R_RDI, R_RDI, t, 0, 0);
    if (movs)
        em_lea(e, x->m64, R_RSI, R_RSI, t, 0, 0);
}
