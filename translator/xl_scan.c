/* translator/xl_scan.c - finds the end of a TU and what each of its instructions touches. */
#include "translator/xl_int.h"
#include <string.h>

int xl_gpr(ZydisRegister reg)
{
    switch (ZydisRegisterGetClass(reg)) {
    case ZYDIS_REGCLASS_GPR8:
        if (reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH)
            return reg - ZYDIS_REGISTER_AH;
        if (reg >= ZYDIS_REGISTER_SPL && reg <= ZYDIS_REGISTER_DIL)
            return reg - ZYDIS_REGISTER_SPL + 4;
        return reg <= ZYDIS_REGISTER_BL ? reg - ZYDIS_REGISTER_AL : reg - ZYDIS_REGISTER_R8B + 8;
    case ZYDIS_REGCLASS_GPR16: return reg - ZYDIS_REGISTER_AX;
    case ZYDIS_REGCLASS_GPR32: return reg - ZYDIS_REGISTER_EAX;
    case ZYDIS_REGCLASS_GPR64: return reg - ZYDIS_REGISTER_RAX;
    default: return NO_REG;
    }
}

unsigned xl_operand_bytes(const ZydisDecodedOperand *o) { return (o->size + 7) / 8; }

static void note_register(struct xl_insn *n, const ZydisDecodedOperand *o, uint16_t *read, uint16_t *full)
{
    int r = xl_gpr(o->reg.value);
    if (r == NO_REG)
        return;
    n->use |= BIT(r);
    n->regs |= BIT(r);
    if (o->reg.value >= ZYDIS_REGISTER_AH && o->reg.value <= ZYDIS_REGISTER_BH)
        n->high_byte = true;
    if ((o->actions & ZYDIS_OPERAND_ACTION_WRITE) && !(o->actions & ~(unsigned)ZYDIS_OPERAND_ACTION_WRITE) &&
        o->size >= 32)
        *full |= BIT(r);
    else
        *read |= BIT(r);
}

/* Does an x87 instruction look for a pending exception first (SDM 1 8.7)? */
bool xl_x87_waits(const struct xl_insn *n)
{
    switch (n->i.mnemonic) {
    case ZYDIS_MNEMONIC_FNSTCW:
    case ZYDIS_MNEMONIC_FNSTSW:
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FNSAVE: return false;
    default: return true;
    }
}

static void note_memory(struct xl_insn *n, const ZydisDecodedOperand *o, unsigned index, uint16_t *read)
{
    int b = xl_gpr(o->mem.base), x = xl_gpr(o->mem.index);
    uint16_t m = (uint16_t)((b >= 0 ? BIT(b) : 0) | (x >= 0 ? BIT(x) : 0));
    n->use |= m;
    *read |= m;
    if (o->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN)
        return;
    if (o->mem.type != ZYDIS_MEMOP_TYPE_MEM)
        return;
    bool wr = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE, rd = o->actions & ZYDIS_OPERAND_ACTION_MASK_READ;
    n->mem = (int8_t)index;
    /* A conditional write leaves bytes as they were: without a mask that tells which, a bounce buffer must hold the old ones. */
    if ((o->actions & ZYDIS_OPERAND_ACTION_CONDWRITE) && !xl_mask_of(n, xl_operand_bytes(o)))
        rd = true;
    /* An unmasked exception keeps the x87 from storing; the program learns of it at its next x87 instruction (SDM 1 8.7). */
    if (wr && n->i.meta.category == ZYDIS_CATEGORY_X87_ALU && xl_x87_waits(n))
        rd = true;
    n->how = wr ? (rd ? XL_RW : XL_WRITE) : XL_READ;
}

/* The decoder takes R13 for a base that a SIB byte with mod = 0 and base = 5 does not have when VEX.B or EVEX.B is set; there is
 * a disp32 instead (SDM 2A table 2-3). */
static void correct_sib(struct xl_insn *n)
{
    if (!(n->i.attributes & ZYDIS_ATTRIB_HAS_SIB) || n->i.raw.modrm.mod != 0 || n->i.raw.sib.base != 5)
        return;
    for (unsigned k = 0; k < n->i.operand_count; k++) {
        ZydisDecodedOperand *o = &n->op[k];
        if (o->type != ZYDIS_OPERAND_TYPE_MEMORY || o->visibility != ZYDIS_OPERAND_VISIBILITY_EXPLICIT)
            continue;
        o->mem.base = ZYDIS_REGISTER_NONE;
        o->mem.disp.has_displacement = true;
        o->mem.disp.value = n->i.raw.disp.value;
        if (o->mem.segment == ZYDIS_REGISTER_SS && !(n->i.attributes & ZYDIS_ATTRIB_HAS_SEGMENT))
            o->mem.segment = ZYDIS_REGISTER_DS;
    }
}

static void note_operands(struct xl_insn *n)
{
    uint16_t read = 0, full = 0;
    n->use = n->regs = 0;
    n->mem = -1;
    n->high_byte = false;
    for (unsigned k = 0; k < n->i.operand_count; k++) {
        const ZydisDecodedOperand *o = &n->op[k];
        if (o->type == ZYDIS_OPERAND_TYPE_REGISTER)
            note_register(n, o, &read, &full);
        else if (o->type == ZYDIS_OPERAND_TYPE_MEMORY)
            note_memory(n, o, k, &read);
    }
    /* With a zero source these leave the destination alone on every CPU there is. */
    if (n->i.mnemonic == ZYDIS_MNEMONIC_BSF || n->i.mnemonic == ZYDIS_MNEMONIC_BSR)
        read |= full;
    n->wronly = full & (uint16_t)~read;
}

static const ZydisDecoder *decoder(const struct xl *x)
{
    if (x->in->key & CPU_KEY_CODE64)
        return &x->dec64;
    if (x->in->key & CPU_KEY_CODE32)
        return &x->dec32;
    return x->in->key & CPU_KEY_REAL ? &x->dec_real : &x->dec16;
}

/* Bytes of the instruction at off: in place, or assembled from both pages. Returns how many there are. */
static unsigned fetch(const struct xl *x, struct xl_insn *n, unsigned off)
{
    unsigned here = x->in->code_bytes - off;
    if (here >= 15) {
        n->bytes = x->in->code + off;
        return 15;
    }
    memcpy(n->raw, x->in->code + off, here);
    unsigned more = x->in->next ? 15 - here : 0;
    if (more > x->in->next_bytes)
        more = x->in->next_bytes;
    if (more)
        memcpy(n->raw + here, x->in->next, more);
    n->bytes = n->raw;
    return here + more;
}

static void undecodable(struct xl_insn *n, uint8_t sys)
{
    memset(&n->i, 0, sizeof n->i);
    n->i.length = 1;
    n->use = n->wronly = n->regs = 0;
    n->mem = -1;
    n->cls = XL_UD;
    n->act = XL_ACT_SYS;
    n->sys = sys;
    n->ends = true;
}

static unsigned after_prefixes(const struct xl_insn *n, unsigned have)
{
    unsigned k = 0;
    while (k < have && memchr("\x66\x67\xf0\xf2\xf3\x26\x2e\x36\x3e\x64\x65", n->bytes[k], 11))
        k++;
    return k;
}

/* Outside 64-bit mode the CPU ignores EVEX.B and EVEX.R'; the decoder does not. */
static void correct_evex(struct xl_insn *n, unsigned have)
{
    unsigned k = after_prefixes(n, have);
    if (k + 2 > have || n->bytes[k] != 0x62 || n->bytes[k + 1] < 0xc0 || (n->bytes[k + 1] & 0x30) == 0x30)
        return;
    if (n->bytes != n->raw)
        memcpy(n->raw, n->bytes, have);
    n->bytes = n->raw;
    n->raw[k + 1] |= 0x30;
}

/* Is this in an opcode map that the CPU has not got? Then it is #UD as soon as *cut (more bytes are needed to know) is false, which
 * is not when the decoder would know: without XOP, 8F is POP with a reserved ModRM.reg, and as long as its address needs; 0F 0F is
 * reserved as it is (seen on the CPU). */
static bool reserved_map(const struct xl *x, const struct xl_insn *n, unsigned have, bool *cut)
{
    uint8_t pop[16];
    ZydisDecodedInstruction i;
    unsigned k = after_prefixes(n, have);
    *cut = false;
    if (x->m64 && k < have && (n->bytes[k] & 0xf0) == 0x40)
        k++;
    if (k + 2 > have)
        return false;
    if (n->bytes[k] == 0x0f)
        return n->bytes[k + 1] == 0x0f;
    if (n->bytes[k] != 0x8f || (n->bytes[k + 1] & 0x1f) < 8 || xl_cpu_has(&x->cpu, XL_FEAT_XOP))
        return false;
    memcpy(pop, n->bytes, have);
    pop[k] = 0x8b;
    *cut = ZydisDecoderDecodeInstruction(decoder(x), NULL, pop, have, &i) == ZYDIS_STATUS_NO_MORE_DATA;
    return true;
}

/* Decodes one instruction at off. XL_NEED_NEXT if its bytes are not all there. */
static enum xl_status decode(struct xl *x, struct xl_insn *n, unsigned off)
{
    bool cut;
    unsigned have = fetch(x, n, off);
    const ZydisDecoder *d = decoder(x);
    ZydisDecoderContext ctx;
    memset(n->op, 0, sizeof n->op);
    n->off = (uint16_t)off;
    n->strategy = x->in->window ? XL_SITE_WINDOW : XL_SITE_SOFT;
    if (!x->m64)
        correct_evex(n, have);
    ZyanStatus s = ZydisDecoderDecodeInstruction(d, &ctx, n->bytes, have, &n->i);
    if (reserved_map(x, n, have, &cut))
        s = cut ? ZYDIS_STATUS_NO_MORE_DATA : ZYDIS_STATUS_DECODING_ERROR;
    if (s == ZYDIS_STATUS_NO_MORE_DATA)
        return have >= 15 ? XL_TOO_LONG : XL_NEED_NEXT;
    if (s == ZYDIS_STATUS_INSTRUCTION_TOO_LONG)
        return XL_TOO_LONG;
    if (ZYAN_FAILED(s)) {
        /* Zydis has no SYSENTER in real mode, and knows no other 16-bit mode for virtual-8086 code: there it exists. */
        bool sysenter = d == &x->dec_real && have >= 2 && n->bytes[0] == 0x0f && n->bytes[1] == 0x34;
        undecodable(n, sysenter ? SYS_OP_SYSENTER : SYS_OP_UD);
        if (sysenter)
            n->i.length = 2;
        return XL_OK;
    }
    ZydisDecoderDecodeOperands(d, &ctx, &n->i, n->op, n->i.operand_count);
    correct_sib(n);
    note_operands(n);
    n->ends = false;
    n->sys = SYS_OP_NONE;
    xl_classify(x, n);
    return XL_OK;
}

enum xl_status xl_scan(struct xl *x)
{
    unsigned off = 0, max = x->in->max_insns;
    if (max == 0 || max > XL_MAX_INSNS)
        max = XL_MAX_INSNS;
    x->n = 0;
    x->r->crosses = false;
    while (x->n < max && off < x->in->code_bytes) {
        struct xl_insn *n = &x->insn[x->n];
        enum xl_status s = decode(x, n, off);
        if (s != XL_OK) {
            if (x->n)
                break; /* the block ends in front of it; it is looked at when it is reached */
            return s;
        }
        if (off + n->i.length > x->in->code_bytes) {
            if (x->n)
                break;
            x->r->crosses = true;
        }
        if (x->in->strategy)
            n->strategy = (uint8_t)x->in->strategy(x->in->opaque, off);
        off += n->i.length;
        x->n++;
        if (n->ends || x->r->crosses)
            break;
    }
    x->r->d.tu_bytes = off;
    return x->n ? XL_OK : XL_NEED_NEXT;
}
