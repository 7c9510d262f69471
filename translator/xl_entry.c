/* translator/xl_entry.c - the ways into a block.
 *
 * Between two guest instructions of a block RCX and RDX may be scratch, with the guest's values in their spill slots; to bring them
 * back at a block's end only for the next one to store them again costs instructions and, worse, makes a chain of loads that wait
 * for stores through all blocks. So a block is entered in one of three ways, and decides in which state its own code starts:
 *     CCF_ENTRY      all registers hold guest values
 *     CCF_ENTRY_RCX  RCX is in its slot: exits of blocks that have left it there
 *     indirect       RCX and RDX are: from the jump cache
 * Entries lie in front of the code, so that the likeliest state falls into it:
 *     no scratch wanted:   indirect: load rdx;              ENTRY_RCX: load rcx;                    ENTRY: code
 *     RCX:                 indirect: load rdx; jmp code;    ENTRY: store rcx;                       ENTRY_RCX: code
 *     RCX and RDX:                                          ENTRY: store rcx; ENTRY_RCX: store rdx; indirect: code
 * A block in place of a jump starts with the entry that the jump's exit has; what does not fit behind it is out of line.
 */
#include "translator/xl_int.h"

/* Does the instruction need a register for itself before it does anything? */
static bool takes(const struct xl *x, const struct xl_insn *n, unsigned r)
{
    bool soft = n->strategy == XL_SITE_SOFT;
    switch (n->act) {
    case XL_ACT_RET:
    case XL_ACT_JMP_IND:
    case XL_ACT_CALL_IND: return soft; /* RCX and RDX look the target up */
    case XL_ACT_CALL:                  /* the return address, if it is no immediate operand */
        return r == R_RCX ? soft : (int64_t)(int32_t)xl_next_rip(x, n) != (int64_t)xl_next_rip(x, n);
    case XL_ACT_MEM:
    case XL_ACT_MOFFS:
    case XL_ACT_BITSTR:
    case XL_ACT_PUSH_R:
    case XL_ACT_PUSH_I:
    case XL_ACT_PUSH_M:
    case XL_ACT_POP_R:
    case XL_ACT_LEAVE: return r == R_RCX && soft;
    default: return false;
    }
}

/* Is r scratch before the guest's value of it is wanted? */
static bool scratch_first(const struct xl *x, unsigned r)
{
    for (unsigned k = 0; k < x->n; k++) {
        const struct xl_insn *n = &x->insn[k];
        if (n->use & ~(unsigned)n->wronly & BIT(r))
            return false;
        if (takes(x, n, r))
            return true;
        if ((n->use & BIT(r)) || n->act >= XL_ACT_PUSHF)
            return false;
    }
    return false;
}

#define SLOT_BYTES 7 /* of a load or a store of a spill slot */

static void load(struct xl *x, struct emit *e, unsigned r) { em_ld64(e, r, xl_slot(x, (int)r)); }
static void store(struct xl *x, struct emit *e, unsigned r) { em_st64(e, r, xl_slot(x, (int)r)); }

static void emit_indirect(struct xl *x, struct emit *e, unsigned wants)
{
    x->r->d.entry_indirect_pc = (uint32_t)em_pc(e);
    xl_count_rcx(x, e, x->l->count.indirect);
    if (x->m64 && !(wants & BIT(R_RDX)))
        load(x, e, R_RDX);
}

/* What has no place in front of the code: the indirect entry of a block in place, and the entry that its jump's exit does not have. */
static void emit_out_of_line(struct xl *x, unsigned wants, bool indirect, uint64_t at[CCF_ENTRIES], uint64_t code)
{
    struct emit *c = x->cold;
    unsigned inner = wants ? CCF_ENTRY_RCX : CCF_ENTRY, outer = wants ? CCF_ENTRY : CCF_ENTRY_RCX;
    if (indirect) {
        emit_indirect(x, c, wants);
        if (!wants)
            load(x, c, R_RCX);
        em_jmp(c, code);
    }
    if (x->m64 && x->in->in_place == 1 + inner) {
        at[outer] = em_pc(c);
        (wants ? store : load)(x, c, R_RCX);
        em_jmp(c, at[inner]);
    }
}

/* The code has the registers in wants as scratch from the start: none, RCX, or RCX and RDX. */
static void emit_entries(struct xl *x, unsigned wants)
{
    struct emit *e = x->hot;
    struct ccf_desc *d = &x->r->d;
    unsigned inner = wants ? CCF_ENTRY_RCX : CCF_ENTRY, outer = wants ? CCF_ENTRY : CCF_ENTRY_RCX;
    bool rdx = wants & BIT(R_RDX), in_place = x->in->in_place;
    bool falls = rdx && !x->in->count; /* the indirect entry is the code itself */
    uint64_t at[CCF_ENTRIES];
    if (!in_place && !falls)
        emit_indirect(x, e, wants);
    if (!in_place && !falls && wants)
        em_jmp(e, em_pc(e) + 5 + SLOT_BYTES * (rdx ? 2 : 1));
    d->hot_pc = (uint32_t)em_pc(e);
    at[outer] = em_pc(e);
    if (x->in->in_place != 1 + inner)
        (wants ? store : load)(x, e, R_RCX);
    at[inner] = em_pc(e);
    if (rdx)
        store(x, e, R_RDX);
    if (falls)
        d->entry_indirect_pc = (uint32_t)em_pc(e);
    if (in_place)
        emit_out_of_line(x, wants, !falls, at, em_pc(e));
    for (unsigned k = 0; k < CCF_ENTRIES; k++)
        d->entry[k] = (int32_t)((int64_t)at[k] - (int64_t)d->hot_pc);
}

void xl_emit_entries(struct xl *x, bool may_want_scratch)
{
    struct ccf_desc *d = &x->r->d;
    unsigned wants = 0;
    d->start_pc = (uint32_t)em_pc(x->hot);
    d->in_place = x->in->in_place;
    if (may_want_scratch && x->m64 && !(x->in->key & (CPU_KEY_STEP | CPU_KEY_CAREFUL)) && scratch_first(x, R_RCX))
        wants = BIT(R_RCX) | (scratch_first(x, R_RDX) ? BIT(R_RDX) : 0);
    emit_entries(x, wants);
    x->spilled = (uint16_t)wants;
}
