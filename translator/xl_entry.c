/* translator/xl_entry.c - the ways into a block.
 *
 * Between two guest instructions of a block RCX and RDX may be scratch, with the guest's values in their spill slots; to bring them
 * back at a block's end only for the next one to store them again costs instructions and, worse, makes a chain of loads that wait
 * for stores through all blocks. So there are three states in which a block can be left and entered, and each block's own code
 * starts in the one that suits it:
 *     CCF_ENTRY       all registers hold guest values
 *     CCF_ENTRY_RCX   RCX is in its slot
 *     CCF_ENTRY_BOTH  RCX and RDX are; so does one come from the jump cache, with the target in RDX
 * The entries for other states lie in front of the code and fall into it, storing or loading one register each:
 *     code wants all:   BOTH: load rdx;    RCX: load rcx;    ENTRY: code
 *     code wants RCX:   BOTH: load rdx;    RCX: code         out of line: ENTRY
 *     code wants BOTH:  ENTRY: store rcx;  RCX: store rdx;   BOTH: code
 * A block in place of a jump starts with the entry for the state that the jump's exit is in; the entries that have no place between
 * it and the code are out of line.
 */
#include "translator/xl_int.h"

/* Does the instruction access memory through a look-up of its own? */
static bool looks_up(const struct xl *x, const struct xl_insn *n, unsigned k)
{
    if (n->strategy != XL_SITE_SOFT || (n->group && x->group[n->group - 1].first != k))
        return false;
    switch (n->act) {
    case XL_ACT_MEM:
    case XL_ACT_MOFFS:
    case XL_ACT_BITSTR:
    case XL_ACT_PUSH_R:
    case XL_ACT_PUSH_I:
    case XL_ACT_PUSH_M:
    case XL_ACT_POP_R:
    case XL_ACT_LEAVE:
    case XL_ACT_CALL: return true;
    default: return false;
    }
}

static bool is_stack(const struct xl_insn *n)
{
    return n->act != XL_ACT_LEAVE && (n->mem < 0 || n->op[n->mem].mem.base == ZYDIS_REGISTER_RSP);
}

/* Does the k-th instruction want the register for itself before it does anything? */
static bool takes(const struct xl *x, unsigned k, unsigned r)
{
    const struct xl_insn *n = &x->insn[k];
    bool soft = n->strategy == XL_SITE_SOFT;
    if (n->act == XL_ACT_RET || n->act == XL_ACT_JMP_IND || n->act == XL_ACT_CALL_IND)
        return soft; /* RCX and RDX look the target up */
    if (!looks_up(x, n, k))
        return false;
    if (r == R_RCX)
        return true;
    if (n->group)
        return x->group[n->group - 1].reg == R_RDX;
    if (n->act == XL_ACT_CALL) /* the return address, if it is no immediate operand */
        return (int64_t)(int32_t)xl_next_rip(x, n) != (int64_t)xl_next_rip(x, n);
    return !is_stack(n);
}

/* Is r scratch before the guest's value of it is wanted? Where all sites are soft its value stays in the slot over blocks that have
 * no use for it. */
static bool scratch_first(const struct xl *x, unsigned r)
{
    for (unsigned k = 0; k < x->n; k++) {
        const struct xl_insn *n = &x->insn[k];
        if (n->use & ~(unsigned)n->wronly & BIT(r))
            return false;
        if (takes(x, k, r))
            return true;
        if (n->act >= XL_ACT_PUSHF)
            return false;
        if (n->use & BIT(r))
            break;
    }
    return !x->in->window;
}

/* From one state to the next one on the way to another, which is returned. */
static unsigned step(struct xl *x, struct emit *e, unsigned from, unsigned to)
{
    unsigned next = from < to ? from + 1 : from - 1;
    unsigned r = from + next == CCF_ENTRY + CCF_ENTRY_RCX ? R_RCX : R_RDX;
    if (r == R_RCX || x->m64) /* elsewhere the target is in R8 */
        (from < next ? em_st64 : em_ld64)(e, r, xl_slot(x, (int)r));
    return next;
}

/* The entries from one state to another, exclusive, where the code of at[to] is not next. */
static void out_of_line(struct xl *x, unsigned from, unsigned to, uint64_t at[CCF_ENTRIES])
{
    if (from == to)
        return;
    for (unsigned s = from; s != to; s = step(x, x->cold, s, to))
        at[s] = em_pc(x->cold);
    em_jmp(x->cold, at[to]);
}

static void emit_entries(struct xl *x, unsigned wants)
{
    struct emit *e = x->hot;
    struct ccf_desc *d = &x->r->d;
    unsigned first = x->in->in_place ? x->in->in_place - 1u : wants == CCF_ENTRY_BOTH ? CCF_ENTRY : CCF_ENTRY_BOTH;
    uint64_t at[CCF_ENTRIES];
    for (unsigned s = first; s != wants; s = step(x, e, s, wants))
        at[s] = em_pc(e);
    at[wants] = em_pc(e);
    out_of_line(x, CCF_ENTRY, first < wants ? first : wants, at);
    out_of_line(x, CCF_ENTRY_BOTH, first > wants ? first : wants, at);
    for (unsigned s = 0; s < CCF_ENTRIES; s++)
        d->entry[s] = (int32_t)((int64_t)at[s] - (int64_t)d->hot_pc);
    d->entry_indirect_pc = (uint32_t)at[CCF_ENTRY_BOTH];
    if (x->in->count) {
        d->entry_indirect_pc = (uint32_t)em_pc(x->cold);
        xl_count_rcx(x, x->cold, x->l->count.indirect);
        em_jmp(x->cold, at[CCF_ENTRY_BOTH]);
    }
}

void xl_emit_entries(struct xl *x, bool may_want_scratch)
{
    static const uint16_t spilled[CCF_ENTRIES] = {0, BIT(R_RCX), BIT(R_RCX) | BIT(R_RDX)};
    struct ccf_desc *d = &x->r->d;
    unsigned wants = CCF_ENTRY;
    d->start_pc = d->hot_pc = (uint32_t)em_pc(x->hot);
    d->in_place = x->in->in_place;
    if (may_want_scratch && x->m64 && !(x->in->key & (CPU_KEY_STEP | CPU_KEY_CAREFUL)) && scratch_first(x, R_RCX))
        wants = scratch_first(x, R_RDX) ? CCF_ENTRY_BOTH : CCF_ENTRY_RCX;
    emit_entries(x, wants);
    x->spilled = spilled[wants];
}
