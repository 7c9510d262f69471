/* translator/xl_group.c - soft sites that share one look-up.
 *
 * Accesses of a block whose addresses differ by constants (a function's pushes and pops, the fields of a structure) are mostly on
 * one page. The first of them, the leader, looks that page up for the whole range that they cover and keeps the addend in a
 * register; the others add it to their address and need nothing else. If the range is not in one page, or anything else is wrong
 * with it, the block is left and runs once with every site for itself (CPU_KEY_ALONE), so faults are as precise as ever.
 *
 * What makes it right: between the leader and the last member nothing can take the translation back, as no callout is in
 * between (a callout ends all groups); a store joins only a group whose leader stores, so no D bit is set too early.
 *
 * Addresses are followed symbolically: each register is a symbol plus a constant.
 */
#include "translator/xl_int.h"

#define MAX_SPAN 256 /* bytes that a group covers: the more, the likelier it has a page end in it */
#define MAX_PINNED 2 /* groups alive at one time: other sites need scratch registers too */
#define MAX_DISP (1 << 30)

struct value {
    unsigned sym;
    int64_t add;
};
/* Addresses with equal keys differ by a known constant. */
struct addr {
    unsigned base, index, scale; /* symbols; 0 = none */
    int64_t at;
};
struct plan {
    struct xl *x;
    struct value reg[16];
    unsigned next_sym;
    struct addr addr[XL_MAX_GROUPS];
    bool open[XL_MAX_GROUPS];
};

static unsigned native_size(const struct xl *x) { return x->m64 ? 8 : 4; }

/* ---- what instructions do to registers ---- */

static void unknown(struct plan *p, unsigned r) { p->reg[r] = (struct value){p->next_sym++, 0}; }

static void start_again(struct plan *p)
{
    for (unsigned r = 0; r < 16; r++)
        unknown(p, r);
    for (unsigned k = 0; k < p->x->n_groups; k++)
        p->open[k] = false;
}

static bool whole(const struct plan *p, const ZydisDecodedOperand *o)
{
    return o->type == ZYDIS_OPERAND_TYPE_REGISTER && o->size == native_size(p->x) * 8 && xl_gpr(o->reg.value) >= 0;
}

/* Moves and sums of whole registers; false for everything else. */
static bool follow_arithmetic(struct plan *p, const struct xl_insn *n)
{
    const ZydisDecodedOperand *d = &n->op[0], *s = &n->op[1];
    if (n->i.operand_count_visible < 1 || !whole(p, d))
        return false;
    struct value *to = &p->reg[xl_gpr(d->reg.value)];
    bool imm = n->i.operand_count_visible == 2 && s->type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
    switch (n->i.mnemonic) {
    case ZYDIS_MNEMONIC_MOV:
        if (!whole(p, s))
            return false;
        *to = p->reg[xl_gpr(s->reg.value)];
        return true;
    case ZYDIS_MNEMONIC_ADD:
    case ZYDIS_MNEMONIC_SUB:
        if (!imm)
            return false;
        to->add += n->i.mnemonic == ZYDIS_MNEMONIC_ADD ? s->imm.value.s : -s->imm.value.s;
        return true;
    case ZYDIS_MNEMONIC_INC: to->add++; return true;
    case ZYDIS_MNEMONIC_DEC: to->add--; return true;
    case ZYDIS_MNEMONIC_LEA: {
        int base = xl_gpr(s->mem.base);
        if (base < 0 || s->mem.index != ZYDIS_REGISTER_NONE || n->i.address_width / 8u != native_size(p->x))
            return false;
        *to = p->reg[base];
        to->add += s->mem.disp.has_displacement ? s->mem.disp.value : 0;
        return true;
    }
    default: return false;
    }
}

static void follow(struct plan *p, const struct xl_insn *n)
{
    struct value *sp = &p->reg[R_RSP];
    switch (n->act) {
    case XL_ACT_PUSH_R:
    case XL_ACT_PUSH_I:
    case XL_ACT_PUSH_M: sp->add -= xl_stack_bytes(n); return;
    case XL_ACT_POP_R:
        sp->add += xl_stack_bytes(n);
        unknown(p, (unsigned)xl_gpr(n->op[0].reg.value));
        return;
    case XL_ACT_LEAVE:
        *sp = p->reg[R_RBP];
        sp->add += xl_stack_bytes(n);
        unknown(p, R_RBP);
        return;
    default: break;
    }
    if (follow_arithmetic(p, n))
        return;
    for (unsigned k = 0; k < n->i.operand_count; k++) {
        const ZydisDecodedOperand *o = &n->op[k];
        if (o->type != ZYDIS_OPERAND_TYPE_REGISTER || !(o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
            continue;
        int r = xl_gpr(o->reg.value);
        if (r >= 0)
            unknown(p, (unsigned)r);
    }
}

/* ---- what they access ---- */

struct access {
    struct xl_ea ea;
    unsigned size, how;
    bool follows; /* may be a member only: its own exception comes before any fault of the page */
};

static void stack_access(struct xl *x, const struct xl_insn *n, bool push, struct access *a)
{
    a->size = xl_stack_bytes(n);
    a->how = push ? XL_WRITE : XL_READ;
    xl_ea_stack(x, push ? -(int32_t)a->size : 0, &a->ea);
}

/* The one access of an instruction that has one which can be in a group. */
static bool access_of(struct xl *x, const struct xl_insn *n, struct access *a)
{
    unsigned flags = 0;
    switch (n->act) {
    case XL_ACT_MEM:
        flags = xl_mem_access(n, &a->size);
        a->how = n->how;
        xl_ea_of(x, n, &a->ea);
        break;
    case XL_ACT_PUSH_R:
    case XL_ACT_PUSH_I:
    case XL_ACT_CALL: stack_access(x, n, true, a); break;
    case XL_ACT_POP_R:
    case XL_ACT_RET: stack_access(x, n, false, a); break;
    case XL_ACT_LEAVE:
        stack_access(x, n, false, a);
        a->ea.base = R_RBP;
        break;
    default: return false;
    }
    a->follows = flags & XL_SITE_ALIGN;
    bool flat = a->ea.seg == S_SS || a->ea.seg == S_DS || a->ea.seg == S_ES || (x->m64 && a->ea.seg == S_CS);
    return flat && !n->high_byte && n->strategy == XL_SITE_SOFT && a->size && a->size <= 64 &&
           !(flags & ~XL_SITE_ALIGN) && a->ea.asize == native_size(x) && a->ea.disp < MAX_DISP &&
           a->ea.disp > -MAX_DISP;
}

static void symbolic(const struct plan *p, const struct xl_ea *ea, struct addr *s)
{
    *s = (struct addr){.at = ea->abs_valid ? (int64_t)ea->abs : ea->disp};
    if (!ea->abs_valid && ea->base >= 0) {
        s->base = p->reg[ea->base].sym;
        s->at += p->reg[ea->base].add;
    }
    if (!ea->abs_valid && ea->index >= 0) {
        s->index = p->reg[ea->index].sym;
        s->scale = ea->scale;
        s->at += (int64_t)((uint64_t)p->reg[ea->index].add << ea->scale);
    }
    if (!p->x->m64)
        s->at = (int32_t)s->at;
}

/* ---- groups ---- */

/* Nothing that a callout might change is relied on after it. */
static bool ends_groups(const struct xl_insn *n)
{
    switch (n->act) {
    case XL_ACT_IDENT:
    case XL_ACT_DROP:
    case XL_ACT_LEA:
    case XL_ACT_RDTSC:
    case XL_ACT_PUSH_R:
    case XL_ACT_PUSH_I:
    case XL_ACT_PUSH_M:
    case XL_ACT_POP_R:
    case XL_ACT_LEAVE:
    case XL_ACT_MEM:
    case XL_ACT_BITSTR:
    case XL_ACT_CALL:
    case XL_ACT_RET: return n->strategy == XL_SITE_CALLOUT;
    default: return true;
    }
}

static bool joins(const struct plan *p, unsigned k, const struct access *a, const struct addr *s)
{
    const struct xl_group *g = &p->x->group[k];
    const struct addr *t = &p->addr[k];
    if (!p->open[k] || t->base != s->base || t->index != s->index || t->scale != s->scale ||
        (a->how != XL_READ && g->how == XL_READ))
        return false;
    int64_t lo = s->at < g->lo ? s->at : g->lo, hi = s->at + a->size > g->hi ? s->at + a->size : g->hi;
    return hi - lo <= (g->stack ? (int64_t)p->x->l->stack_span : MAX_SPAN);
}

static void enter_group(struct plan *p, unsigned cur, const struct access *a)
{
    struct xl *x = p->x;
    struct xl_insn *n = &x->insn[cur];
    struct addr s;
    symbolic(p, &a->ea, &s);
    n->at = s.at;
    for (unsigned k = x->n_groups; k-- > 0;) {
        if (!joins(p, k, a, &s))
            continue;
        struct xl_group *g = &x->group[k];
        g->lo = s.at < g->lo ? s.at : g->lo;
        g->hi = s.at + a->size > g->hi ? s.at + a->size : g->hi;
        g->last = (uint8_t)cur;
        n->group = (uint8_t)(k + 1);
        return;
    }
    if (x->n_groups == XL_MAX_GROUPS || a->follows || n->alone)
        return;
    p->addr[x->n_groups] = s;
    p->open[x->n_groups] = true;
    x->group[x->n_groups++] = (struct xl_group){.first = (uint8_t)cur,
                                                .last = (uint8_t)cur,
                                                .how = (uint8_t)a->how,
                                                .stack = a->ea.base == R_RSP && a->ea.index < 0 && !a->ea.abs_valid,
                                                .lo = s.at,
                                                .hi = s.at + a->size};
    n->group = (uint8_t)x->n_groups;
}

static unsigned pinned_between(const struct xl *x, unsigned first, unsigned last, unsigned *count)
{
    unsigned m = 0;
    *count = 0;
    for (unsigned k = 0; k < x->n_groups; k++) {
        const struct xl_group *g = &x->group[k];
        if (g->reg == NO_REG || g->last < first || g->first > last)
            continue;
        m |= BIT(g->reg);
        ++*count;
    }
    return m;
}

/* RCX, which the look-up on the stack leaves alone once it is done, if nothing else in the group's span wants it. */
static bool can_be_rcx(const struct xl *x, const struct xl_group *g)
{
    if (!g->stack)
        return false;
    for (unsigned k = g->first; k <= g->last; k++) {
        const struct xl_insn *n = &x->insn[k];
        bool member = n->group && &x->group[n->group - 1] == g;
        if ((n->use & BIT(R_RCX)) ||
            !(member || n->act == XL_ACT_IDENT || n->act == XL_ACT_DROP || n->act == XL_ACT_LEA))
            return false;
    }
    return true;
}

/* A register that no instruction of the group's span wants; R8 to R11 and R14 have uses of their own in 16/32-bit code. */
static int find_register(const struct xl *x, const struct xl_group *g)
{
    unsigned count, busy = pinned_between(x, g->first, g->last, &count) | BIT(R_RSP) | BIT(R_RCX);
    if (count == MAX_PINNED)
        return NO_REG;
    if (!x->m64)
        return busy & BIT(R_R12) ? R_R13 : R_R12;
    if (can_be_rcx(x, g))
        return R_RCX;
    for (unsigned k = g->first; k <= g->last; k++)
        busy |= x->use[k] | (x->insn[k].high_byte ? 0xffu : 0);
    /* RDX, which need not be brought back at the block's end, or the one that is wanted last. */
    unsigned free = ~busy & 0xffff;
    if (free & BIT(R_RDX))
        return R_RDX;
    return free ? __builtin_ctz(xl_needed_last(x, free, g->last + 1u)) : NO_REG;
}

static void dissolve(struct xl *x, unsigned k, unsigned from)
{
    for (unsigned i = from; i <= x->group[k].last; i++)
        if (x->insn[i].group == k + 1)
            x->insn[i].group = 0;
}

/* Gives the group a register, shortening it until there is one. */
static void settle(struct xl *x, unsigned k)
{
    struct xl_group *g = &x->group[k];
    while (g->last > g->first && (g->reg = (int8_t)find_register(x, g)) == NO_REG) {
        x->insn[g->last].group = 0;
        while (x->insn[g->last].group != k + 1)
            g->last--;
    }
    if (g->last == g->first)
        dissolve(x, k, g->first);
}

static bool few_soft_sites(const struct xl *x)
{
    unsigned n = 0;
    for (unsigned k = 0; k < x->n && n < 2; k++)
        n += x->insn[k].strategy == XL_SITE_SOFT && x->insn[k].act != XL_ACT_IDENT;
    return n < 2;
}

void xl_group_sites(struct xl *x)
{
    struct plan p;
    struct access a;
    x->n_groups = 0;
    x->pinned = 0;
    if (x->careful || x->in->key & (CPU_KEY_AC | CPU_KEY_ALONE) || few_soft_sites(x) ||
        (!x->m64 && (~x->in->key & (CPU_KEY_FLAT | CPU_KEY_SS32 | CPU_KEY_CODE32))))
        return;
    p.x = x;
    p.next_sym = 1;
    start_again(&p);
    for (unsigned cur = 0; cur < x->n; cur++) {
        struct xl_insn *n = &x->insn[cur];
        if (ends_groups(n)) {
            start_again(&p);
            continue;
        }
        if (access_of(x, n, &a))
            enter_group(&p, cur, &a);
        follow(&p, n);
    }
    for (unsigned k = 0; k < x->n_groups; k++)
        x->group[k].reg = NO_REG;
    for (unsigned k = 0; k < x->n_groups; k++)
        settle(x, k);
}

void xl_group_pin(struct xl *x)
{
    for (unsigned k = 0; k < x->n_groups; k++)
        if (x->group[k].reg != NO_REG && x->group[k].first == x->cur)
            x->pinned |= (uint16_t)BIT(x->group[k].reg);
}

void xl_group_release(struct xl *x)
{
    for (unsigned k = 0; k < x->n_groups; k++)
        if (x->group[k].reg != NO_REG && x->group[k].last == x->cur)
            x->pinned &= (uint16_t)~BIT(x->group[k].reg);
}
