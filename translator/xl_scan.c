/* translator/xl_scan.c - finds the end of a TU and what each of its instructions touches. */
#include "translator/xl_int.h"
#include <string.h>

unsigned xl_operand_bytes(const ZydisDecodedOperand *o) { return (o->size + 7) / 8; }

static void note_register(struct xl_insn *n, const ZydisDecodedOperand *o, uint16_t *read, uint16_t *full)
{
    int r = xl_gpr(o->reg.value);
    if (r == NO_REG)
        return;
    n->use |= BIT(r);
    n->regs |= BIT(r);
    if (o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
        n->writes |= BIT(r);
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

/* Which registers and memory the instruction touches. */
void xl_note_operands(struct xl_insn *n)
{
    uint16_t read = 0, full = 0;
    n->use = n->regs = n->writes = 0;
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

enum xl_status xl_scan(struct xl *x)
{
    unsigned off = 0, max = x->in->max_insns;
    if (max == 0 || max > XL_MAX_INSNS)
        max = XL_MAX_INSNS;
    x->n = 0;
    x->r->crosses = false;
    while (x->n < max && off < x->in->code_bytes) {
        struct xl_insn *n = &x->insn[x->n];
        enum xl_status s = xl_decode(x, n, off);
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
            n->strategy = (uint8_t)x->in->strategy(x->in->opaque, off, &n->alone);
        off += n->i.length;
        x->use[x->n++] = n->use;
        if (n->ends || x->r->crosses)
            break;
    }
    x->r->d.tu_bytes = off;
    return x->n ? XL_OK : XL_NEED_NEXT;
}
