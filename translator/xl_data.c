/* translator/xl_data.c - instructions that are copied: as they are, or with their memory operand moved. */
#include "translator/xl_int.h"

/* Outside 64-bit mode VZEROUPPER and VZEROALL leave registers 8-15 alone (SDM 2C). */
static void emit_vzero(struct xl *x, bool all)
{
    for (unsigned r = 0; r < 8; r++) {
        em8(x->hot, 0xc5);
        em8(x->hot, all ? 0x80 | (~r & 15) << 3 | 1 : 0xf8);
        em8(x->hot, all ? 0xef : 0x28); /* vpxor xmm, xmm, xmm; vmovaps xmm, xmm: what is above bit 127 becomes zero */
        em8(x->hot, 0xc0 | r << 3 | r);
    }
}

void xl_emit_ident(struct xl *x, struct xl_insn *n)
{
    bool all = n->i.mnemonic == ZYDIS_MNEMONIC_VZEROALL;
    if (!x->m64 && (all || n->i.mnemonic == ZYDIS_MNEMONIC_VZEROUPPER)) {
        emit_vzero(x, all);
        return;
    }
    xl_unspill(x, n->use & ~(unsigned)n->wronly);
    xl_add_point(x, em_pc(x->hot), n->off);
    xl_rewrite(x, n, NULL);
    x->spilled &= (uint16_t)~n->wronly;
}

/* Does a misaligned operand raise #GP(0), and before any page fault (SDM 2A tables 2-21 ff.)? */
unsigned xl_align_flag(const struct xl_insn *n, unsigned size)
{
    switch (n->i.mnemonic) {
    case ZYDIS_MNEMONIC_MOVUPS:
    case ZYDIS_MNEMONIC_MOVUPD:
    case ZYDIS_MNEMONIC_MOVDQU:
    case ZYDIS_MNEMONIC_LDDQU:
    case ZYDIS_MNEMONIC_PCMPESTRI:
    case ZYDIS_MNEMONIC_PCMPESTRM:
    case ZYDIS_MNEMONIC_PCMPISTRI:
    case ZYDIS_MNEMONIC_PCMPISTRM: return 0;
    case ZYDIS_MNEMONIC_CVTPD2PI: /* of no exception class */
    case ZYDIS_MNEMONIC_CVTTPD2PI:
    case ZYDIS_MNEMONIC_CMPXCHG16B: return XL_SITE_ALIGN;
    default: break;
    }
    switch (n->i.meta.exception_class) {
    case ZYDIS_EXCEPTION_CLASS_SSE1:
    case ZYDIS_EXCEPTION_CLASS_SSE2:
    case ZYDIS_EXCEPTION_CLASS_SSE4: return size == 16 ? XL_SITE_ALIGN : 0;
    case ZYDIS_EXCEPTION_CLASS_AVX1:
    case ZYDIS_EXCEPTION_CLASS_E1:
    case ZYDIS_EXCEPTION_CLASS_E1NF: return XL_SITE_ALIGN;
    default: return 0;
    }
}

static bool names_mmx(const struct xl_insn *n)
{
    for (unsigned k = 0; k < n->i.operand_count_visible; k++)
        if (n->op[k].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            ZydisRegisterGetClass(n->op[k].reg.value) == ZYDIS_REGCLASS_MMX)
            return true;
    return false;
}

/* Do addresses end before the segment may? */
static bool short_address(const struct xl_insn *n)
{
    return n->i.address_width == 16 || (n->i.machine_mode == ZYDIS_MACHINE_MODE_LONG_64 && n->i.address_width == 32);
}

static unsigned site_flags(const struct xl_insn *n, unsigned size)
{
    unsigned flags = xl_align_flag(n, size);
    if (xl_mask_of(n, size))
        flags |= XL_SITE_MASKED;
    if (names_mmx(n))
        flags |= n->how == XL_READ ? XL_SITE_X87 : XL_SITE_X87 | XL_SITE_MMX;
    if (n->i.meta.category == ZYDIS_CATEGORY_X87_ALU && xl_x87_waits(n))
        flags |= n->how == XL_READ ? XL_SITE_X87 : XL_SITE_X87 | XL_SITE_LATE;
    if (size == 10)
        flags |= XL_SITE_X87ENV | (short_address(n) ? XL_SITE_WRAP : 0);
    switch (n->i.mnemonic) {
    case ZYDIS_MNEMONIC_VCVTPH2PS: return flags | XL_SITE_UNALIGNED; /* seen on the CPU; the manual says otherwise */
    case ZYDIS_MNEMONIC_VCVTPS2PH: /* converts, and sets MXCSR, before it looks at the destination */
        return flags | XL_SITE_UNALIGNED | XL_SITE_LATE;
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FRSTOR:
    case ZYDIS_MNEMONIC_FNSAVE: return flags | XL_SITE_X87ENV | (short_address(n) ? XL_SITE_WRAP : 0);
    case ZYDIS_MNEMONIC_CLFLUSH:
    case ZYDIS_MNEMONIC_CLFLUSHOPT:
    case ZYDIS_MNEMONIC_CLWB: return flags | XL_SITE_FLUSH;
    default: return flags;
    }
}

static unsigned accessed_bytes(const struct xl_insn *n)
{
    switch (n->i.mnemonic) {
    case ZYDIS_MNEMONIC_CLFLUSH:
    case ZYDIS_MNEMONIC_CLFLUSHOPT:
    case ZYDIS_MNEMONIC_CLWB: return 1; /* the line that holds the byte */
    case ZYDIS_MNEMONIC_MOVSXD:         /* with 66h, Intel's reads 16 bits, whatever the decoder says */
        if (n->i.operand_width == 16)
            return 2;
        break;
    default: break;
    }
    return xl_operand_bytes(&n->op[n->mem]);
}

unsigned xl_mem_access(const struct xl_insn *n, unsigned *size)
{
    *size = accessed_bytes(n);
    return site_flags(n, *size);
}

void xl_emit_mem(struct xl *x, struct xl_insn *n)
{
    unsigned size, flags = xl_mem_access(n, &size);
    struct xl_ea ea;
    xl_ea_of(x, n, &ea);
    struct xl_site s = xl_site(x, n, &ea, size ? size : 1, n->how, 0, flags);
    xl_unspill(x, n->regs & ~(unsigned)n->wronly);
    xl_add_point(x, em_pc(x->hot), n->off);
    xl_rewrite(x, n, &s);
    x->spilled &= (uint16_t)~n->wronly;
    xl_site_done(x, n);
}

static void move_result(struct xl *x, unsigned dst, unsigned src, unsigned size)
{
    if (size == 2)
        em_mov16_rr(x->hot, dst, src);
    else
        em_mov_rr(x->hot, size == 8, dst, src);
}

void xl_emit_lea(struct xl *x, struct xl_insn *n)
{
    struct xl_ea ea;
    unsigned dst = (unsigned)xl_gpr(n->op[0].reg.value), size = n->i.operand_width / 8u;
    xl_ea_of(x, n, &ea);
    xl_unspill(x, n->use & ~(unsigned)n->wronly);
    if (size >= 4 && ea.asize >= 4) {
        if (size == 4 && ea.asize == 8) {
            if (ea.abs_valid)
                ea.abs &= 0xffffffffu;
            ea.asize = 4;
        }
        xl_emit_ea(x, &ea, dst);
    } else {
        unsigned t = xl_pick(x, n->use, false);
        xl_emit_ea(x, &ea, t);
        move_result(x, dst, t, size);
    }
    x->spilled &= (uint16_t)~n->wronly;
}

static void access(struct xl *x, unsigned op8, unsigned reg, const struct xl_site *s, unsigned size)
{
    struct emit *e = x->hot;
    xl_site_prefixes(e, s);
    if (size == 2)
        em8(e, 0x66);
    em_rex(e, size == 8, reg, em_x(s->index), em_x(s->base), false);
    em8(e, size == 1 ? op8 : op8 + 1);
    xl_site_modrm(e, reg, s);
}
void xl_load(struct xl *x, unsigned reg, const struct xl_site *s, unsigned size) { access(x, 0x8a, reg, s, size); }
void xl_store(struct xl *x, unsigned reg, const struct xl_site *s, unsigned size) { access(x, 0x88, reg, s, size); }

/* MOV accumulator, [absolute offset] and back: opcodes A0-A3. */
void xl_emit_moffs(struct xl *x, struct xl_insn *n)
{
    struct xl_ea ea;
    unsigned size = xl_operand_bytes(&n->op[n->mem]);
    xl_ea_of(x, n, &ea);
    struct xl_site s = xl_site(x, n, &ea, size, n->how, 0, 0);
    xl_add_point(x, em_pc(x->hot), n->off);
    if (n->how == XL_READ)
        xl_load(x, R_RAX, &s, size);
    else
        xl_store(x, R_RAX, &s, size);
    x->spilled &= (uint16_t)~n->wronly;
    xl_site_done(x, n);
}

/* BT, BTS, BTR, BTC with a register bit offset: a signed index into a bit string in memory (SDM 2A 3.1.1.9). The word that
 * holds the bit is addressed here, and the instruction repeated with the offset reduced to that word. */
void xl_emit_bitstr(struct xl *x, struct xl_insn *n)
{
    struct emit *e = x->hot;
    unsigned size = xl_operand_bytes(&n->op[1]), bit = (unsigned)xl_gpr(n->op[1].reg.value);
    unsigned avoid = n->use | BIT(R_RCX);
    struct xl_ea ea;
    xl_ea_of(x, n, &ea);
    xl_unspill(x, n->use);
    unsigned word = xl_pick(x, avoid, false), count = xl_pick(x, avoid | BIT(word), false);
    unsigned at = xl_pick(x, avoid | BIT(word) | BIT(count), false);
    if (size == 8) {
        em_movi(e, count, 6);
        em_sarx(e, word, bit, count);
    } else { /* movsx word, bit16 / movsxd word, bit32 */
        em_rex(e, 1, word, 0, bit, false);
        if (size == 2)
            em8(e, 0x0f), em8(e, 0xbf);
        else
            em8(e, 0x63);
        em8(e, 0xc0 | (word & 7) << 3 | (bit & 7));
        em_movi(e, count, size == 2 ? 4 : 5);
        em_sarx(e, word, word, count);
    }
    xl_emit_ea(x, &ea, at);
    ea = (struct xl_ea){
        .base = (int)at, .index = (int)word, .scale = (unsigned)__builtin_ctz(size), .asize = ea.asize, .seg = ea.seg};
    struct xl_site s = xl_site(x, n, &ea, size, n->how, 0, 0);
    xl_unspill(x, n->regs);
    unsigned low = xl_pick(x, avoid | BIT(em_x(s.base)) | BIT(em_x(s.index)), false);
    em_pext_abs(e, low, bit, size == 8 ? x->l->const_63 : size == 4 ? x->l->const_31 : x->l->const_15);
    xl_add_point(x, em_pc(e), n->off);
    xl_rewrite_reg(x, n, &s, (int)low);
    xl_site_done(x, n);
}
