/* translator/xl_rewrite.c - emits a guest instruction again for 64-bit host code: the same opcode, ModRM.reg and immediates,
 * with the memory operand (if any) replaced by the site's, and the prefixes that mean the same in 64-bit mode. */
#include "translator/xl_int.h"

static bool names_vector(const struct xl_insn *n)
{
    for (unsigned k = 0; k < n->i.operand_count; k++) {
        if (n->op[k].type != ZYDIS_OPERAND_TYPE_REGISTER)
            continue;
        switch (ZydisRegisterGetClass(n->op[k].reg.value)) {
        case ZYDIS_REGCLASS_MMX:
        case ZYDIS_REGCLASS_XMM:
        case ZYDIS_REGCLASS_YMM:
        case ZYDIS_REGCLASS_ZMM: return true;
        default: break;
        }
    }
    return false;
}

/* In 16-bit code: does 66h choose the operand size (and so has to be inverted), or has it no or another meaning? */
static bool osize_matters(const struct xl_insn *n)
{
    if (names_vector(n))
        return false;
    switch (n->i.mnemonic) {
    case ZYDIS_MNEMONIC_MOVNTI:
    case ZYDIS_MNEMONIC_MOVDIRI:
    case ZYDIS_MNEMONIC_LDMXCSR:
    case ZYDIS_MNEMONIC_STMXCSR:
    case ZYDIS_MNEMONIC_EMMS:
    case ZYDIS_MNEMONIC_LFENCE:
    case ZYDIS_MNEMONIC_MFENCE:
    case ZYDIS_MNEMONIC_SFENCE:
    case ZYDIS_MNEMONIC_CLFLUSH:
    case ZYDIS_MNEMONIC_CLFLUSHOPT:
    case ZYDIS_MNEMONIC_CLWB:
    case ZYDIS_MNEMONIC_SERIALIZE:
    case ZYDIS_MNEMONIC_PAUSE: return false;
    default: return true;
    }
}

/* F2 and F3 that do not choose the instruction are left out: they mean nothing in what is copied, but for the hints of lock
 * elision, which would start a transaction that the guest was not offered. */
static bool keep_prefix(const struct xl_insn *n, unsigned k)
{
    return n->i.raw.prefixes[k].type == ZYDIS_PREFIX_TYPE_MANDATORY || n->i.mnemonic == ZYDIS_MNEMONIC_PAUSE;
}

static void emit_legacy_prefixes(struct xl *x, const struct xl_insn *n)
{
    struct emit *e = x->hot;
    bool have66 = false, mandatory66 = false, seen[3] = {false, false, false};
    for (unsigned k = 0; k < n->i.raw.prefix_count; k++) {
        uint8_t v = n->i.raw.prefixes[k].value;
        if (v == 0x66) {
            have66 = true;
            mandatory66 |= n->i.raw.prefixes[k].type == ZYDIS_PREFIX_TYPE_MANDATORY;
        }
        unsigned which = v == 0xf0 ? 0 : v == 0xf2 ? 1 : v == 0xf3 ? 2 : 3;
        if (which < 3 && !seen[which] && (which == 0 || keep_prefix(n, k))) {
            seen[which] = true;
            em8(e, v);
        }
    }
    if ((x->in->key & CPU_KEY_CODE16) && !mandatory66 && osize_matters(n))
        have66 = !have66;
    if (have66)
        em8(e, 0x66);
}

/* VEX.W and EVEX.W choose 64-bit general registers only in 64-bit mode; elsewhere they are ignored for these. */
static bool w_means_gpr(const struct xl_insn *n)
{
    switch (n->i.mnemonic) {
    case ZYDIS_MNEMONIC_VMOVD:
    case ZYDIS_MNEMONIC_VPINSRD:
    case ZYDIS_MNEMONIC_VPEXTRD:
    case ZYDIS_MNEMONIC_VCVTSI2SS:
    case ZYDIS_MNEMONIC_VCVTSI2SD:
    case ZYDIS_MNEMONIC_VCVTUSI2SS:
    case ZYDIS_MNEMONIC_VCVTUSI2SD:
    case ZYDIS_MNEMONIC_VPCMPESTRI: /* the lengths in EAX and EDX */
    case ZYDIS_MNEMONIC_VPCMPESTRM: return true;
    default: break;
    }
    for (unsigned k = 0; k < n->i.operand_count_visible; k++)
        if (n->op[k].type == ZYDIS_OPERAND_TYPE_REGISTER && xl_gpr(n->op[k].reg.value) != NO_REG)
            return true;
    return false;
}

/* VEX (C4, C5) or XOP (8F): always written in the three-byte form. */
static void emit_vex(struct xl *x, const struct xl_insn *n, const struct xl_site *s, int reg)
{
    const uint8_t *b =
        n->bytes + (n->i.encoding == ZYDIS_INSTRUCTION_ENCODING_XOP ? n->i.raw.xop.offset : n->i.raw.vex.offset);
    uint8_t b1, b2;
    if (b[0] == 0xc5) {
        b1 = (b[1] & 0x80) | 0x60 | 1;
        b2 = b[1] & 0x7f;
    } else {
        b1 = b[1];
        b2 = b[2];
    }
    if (!x->m64) {
        b1 |= 0xe0; /* R, X, B (inverted) have no effect outside 64-bit mode ... */
        b2 |= 0x40; /* ... nor has the highest bit of vvvv */
        if (w_means_gpr(n))
            b2 &= 0x7f;
    }
    if (s)
        b1 = (uint8_t)((b1 & 0x9f) | (s->index >= 8 ? 0 : 0x40) | (s->base >= 8 ? 0 : 0x20));
    if (reg >= 0)
        b1 = (uint8_t)((b1 & 0x7f) | (reg & 8 ? 0 : 0x80));
    em8(x->hot, b[0] == 0xc5 ? 0xc4 : b[0]);
    em8(x->hot, b1);
    em8(x->hot, b2);
}

static void emit_evex(struct xl *x, const struct xl_insn *n, const struct xl_site *s)
{
    const uint8_t *b = n->bytes + n->i.raw.evex.offset;
    uint8_t p0 = b[1], p1 = b[2], p2 = b[3];
    if (!x->m64) {
        p0 |= 0xf0;
        p1 |= 0x40;
        p2 |= 0x08;
        if (w_means_gpr(n))
            p1 &= 0x7f;
    }
    if (s)
        p0 = (uint8_t)((p0 & 0x9f) | (s->index >= 8 ? 0 : 0x40) | (s->base >= 8 ? 0 : 0x20));
    em8(x->hot, 0x62);
    em8(x->hot, p0);
    em8(x->hot, p1);
    em8(x->hot, p2);
}

static void emit_rex(struct xl *x, const struct xl_insn *n, const struct xl_site *s, int reg)
{
    bool had = x->m64 && (n->i.attributes & ZYDIS_ATTRIB_HAS_REX);
    unsigned rex = had ? 0x40 | n->i.raw.rex.W << 3 | n->i.raw.rex.R << 2 | n->i.raw.rex.X << 1 | n->i.raw.rex.B : 0;
    if (s) {
        rex &= ~3u;
        rex |= (s->base >= 8 ? 1u : 0) | (s->index >= 8 ? 2u : 0);
    }
    if (reg >= 0)
        rex = (rex & ~4u) | (unsigned)(reg >> 3 & 1) << 2;
    if (rex || had)
        em8(x->hot, 0x40 | rex);
}

static void emit_opcode(struct xl *x, const struct xl_insn *n)
{
    struct emit *e = x->hot;
    switch (n->i.encoding) {
    case ZYDIS_INSTRUCTION_ENCODING_LEGACY:
        if (n->i.opcode_map != ZYDIS_OPCODE_MAP_DEFAULT)
            em8(e, 0x0f);
        if (n->i.opcode_map == ZYDIS_OPCODE_MAP_0F38)
            em8(e, 0x38);
        if (n->i.opcode_map == ZYDIS_OPCODE_MAP_0F3A)
            em8(e, 0x3a);
        /* 82 is an alias of 80 that 64-bit mode does not have. */
        em8(e, n->i.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && n->i.opcode == 0x82 ? 0x80 : n->i.opcode);
        break;
    case ZYDIS_INSTRUCTION_ENCODING_3DNOW: /* the opcode proper is the last byte */
        em8(e, 0x0f);
        em8(e, 0x0f);
        break;
    default: em8(e, n->i.opcode);
    }
}

static void rewrite_modrm(struct emit *e, const ZydisDecodedInstruction *i, unsigned field, const struct xl_site *s)
{
    if (i->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX && s->disp) /* an 8-bit displacement would be scaled */
        em_modrm_mem32(e, field, s->base, s->index, s->scale, s->disp);
    else
        xl_site_modrm(e, field, s);
}

/* A register in imm8[7:4]; outside 64-bit mode bit 7 is ignored (SDM 2A 2.3.8). */
static bool has_is4(const struct xl_insn *n)
{
    for (unsigned k = 0; k < n->i.operand_count; k++)
        if (n->op[k].encoding == ZYDIS_OPERAND_ENCODING_IS4)
            return true;
    return false;
}

/* Would each byte come out as it is? */
static bool is_copy(const struct xl *x, const struct xl_insn *n)
{
    const ZydisDecodedInstruction *i = &n->i;
    return x->m64 && i->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY &&
           (i->raw.prefix_count == 0 || (i->raw.prefix_count == 1 && i->raw.prefixes[0].value >> 4 == 4));
}

static void emit_tail(struct xl *x, const struct xl_insn *n, unsigned tail)
{
    if (x->m64)
        em_bytes(x->hot, n->bytes + tail, n->i.length - tail);
    else
        for (; tail < n->i.length; tail++)
            em8(x->hot, n->bytes[tail] & (tail + 1u == n->i.length && has_is4(n) ? 0x7f : 0xff));
}

/* reg >= 0 replaces ModRM.reg. */
void xl_rewrite_reg(struct xl *x, const struct xl_insn *n, const struct xl_site *s, int reg)
{
    struct emit *e = x->hot;
    const ZydisDecodedInstruction *i = &n->i;
    bool modrm = i->attributes & ZYDIS_ATTRIB_HAS_MODRM;
    if (!s && reg < 0 && is_copy(x, n)) {
        em_bytes(e, n->bytes, i->length);
        return;
    }
    if (!x->m64 && i->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY && i->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT &&
        (i->opcode & 0xf0) == 0x40) { /* one-byte INC/DEC are REX prefixes in 64-bit mode */
        emit_legacy_prefixes(x, n);
        em8(e, 0xff);
        em8(e, 0xc0 | (i->opcode & 0x0f));
        return;
    }
    if (s)
        xl_site_prefixes(e, s);
    switch (i->encoding) {
    case ZYDIS_INSTRUCTION_ENCODING_VEX:
    case ZYDIS_INSTRUCTION_ENCODING_XOP: emit_vex(x, n, s, reg); break;
    case ZYDIS_INSTRUCTION_ENCODING_EVEX: emit_evex(x, n, s); break;
    default:
        emit_legacy_prefixes(x, n);
        emit_rex(x, n, s, reg);
        break;
    }
    emit_opcode(x, n);
    unsigned tail = i->length;
    if (modrm) {
        unsigned field = reg >= 0 ? (unsigned)reg : i->raw.modrm.reg;
        if (s)
            rewrite_modrm(e, i, field, s);
        else
            em8(e, i->raw.modrm.mod << 6 | (field & 7) << 3 | i->raw.modrm.rm);
        tail = i->raw.modrm.offset + 1u + (i->attributes & ZYDIS_ATTRIB_HAS_SIB ? 1 : 0) + i->raw.disp.size / 8u;
    } else if (i->raw.imm[0].size) {
        tail = i->raw.imm[0].offset;
    }
    emit_tail(x, n, tail);
}

void xl_rewrite(struct xl *x, const struct xl_insn *n, const struct xl_site *s) { xl_rewrite_reg(x, n, s, -1); }
