/* translator/xl_site.c - memory sites: from an effective address to a host pointer in [s1 + s2].
 *
 * Soft TLB strategy, inline and without touching EFLAGS (PEXT and LEA compute, JRCXZ decides):
 *     s1  = linear address, where it is more than a register and a displacement
 *     s2  = RORX(s1, 12), zero-extended from 16 bits
 *     rcx = tag[s2] + s1 + size - 1           tag = minus the page address: 0..4095 if the whole access is in that page
 *     rcx = PEXT(rcx, page bits)              0 = hit
 *     jrcxz hit; jmp miss
 * hit: s2 = addend[s2]
 * The miss, out of line, calls C with the site's descriptor; it comes back to the access with s2 set, or leaves the TC.
 *
 * An access relative to RSP, in 64-bit code, first tries the page that the last one was on, and needs no index:
 *     rcx = stack.tag + rsp + disp + size - 1; rcx = PEXT(rcx, bits of half a page); jrcxz hit; jmp table
 * hit: s2 = stack.addend; s2 may be rcx
 * The table's way, out of line, enters what it finds as the stack's page.
 *
 * Segments of 16/32-bit code that are not flat add, before that: ok = sign(offset + size - 1 - (limit + 1)), the base is added,
 * and the test becomes ok + 2 * rcx - 1 == 0, which also fails when the limit is exceeded.
 *
 * Window strategy: the instruction's own operand with a GS prefix; the host MMU walks the shadow (shadowmmu/window.h).
 *
 * Callout strategy (MMIO, traced pages, alignment checks, page-crossing accesses): C returns a pointer to RAM or to a bounce
 * buffer before the access, and takes the bounce buffer's new contents after it.
 */
#include "translator/xl_int.h"

static unsigned seg_index(ZydisRegister s)
{
    switch (s) {
    case ZYDIS_REGISTER_ES: return S_ES;
    case ZYDIS_REGISTER_CS: return S_CS;
    case ZYDIS_REGISTER_SS: return S_SS;
    case ZYDIS_REGISTER_FS: return S_FS;
    case ZYDIS_REGISTER_GS: return S_GS;
    default: return S_DS;
    }
}

void xl_ea_of(struct xl *x, const struct xl_insn *n, struct xl_ea *ea)
{
    const ZydisDecodedOperand *o = NULL;
    for (unsigned k = 0; k < n->i.operand_count; k++)
        if (n->op[k].type == ZYDIS_OPERAND_TYPE_MEMORY && (!o || n->mem == (int)k))
            o = &n->op[k];
    CHECK(o);
    *ea = (struct xl_ea){.base = xl_gpr(o->mem.base),
                         .index = xl_gpr(o->mem.index),
                         .asize = n->i.address_width / 8u,
                         .seg = seg_index(o->mem.segment)};
    ea->scale = o->mem.scale ? (unsigned)__builtin_ctz(o->mem.scale) : 0;
    uint64_t disp = o->mem.disp.has_displacement ? (uint64_t)o->mem.disp.value : 0;
    if (o->mem.base == ZYDIS_REGISTER_RIP || o->mem.base == ZYDIS_REGISTER_EIP) {
        ea->abs = xl_next_rip(x, n) + disp;
        ea->abs_valid = true;
    } else if (ea->base < 0 && ea->index < 0) {
        ea->abs = disp;
        ea->abs_valid = true;
    }
    if (ea->abs_valid && ea->asize < 8)
        ea->abs &= ea->asize == 4 ? 0xffffffffu : 0xffffu;
    ea->disp = (int32_t)disp;
}

void xl_ea_stack(struct xl *x, int32_t disp, struct xl_ea *ea)
{
    *ea = (struct xl_ea){.base = R_RSP, .index = NO_REG, .disp = disp + x->sp_ahead, .seg = S_SS};
    ea->asize = x->m64 ? 8 : x->in->key & CPU_KEY_SS32 ? 4 : 2;
}

static uint64_t seg_field(struct xl *x, unsigned seg, size_t off)
{
    return xl_cpu(x, offsetof(struct cpu, seg) + seg * sizeof(struct seg) + off);
}

/* dst = offset, truncated to the address size. */
void xl_emit_ea(struct xl *x, const struct xl_ea *ea, unsigned dst)
{
    struct emit *e = x->hot;
    bool w = ea->asize == 8;
    int base = ea->base, index = ea->index;
    unsigned scale = ea->scale;
    if (base < 0 && index >= 0 && scale == 0)
        base = index, index = NO_REG;      /* shorter, and no disp32 */
    if (index == R_RSP && base != R_RSP) { /* RSP cannot be an index; scale is 1 then */
        index = base;
        base = R_RSP;
    }
    if (ea->abs_valid)
        em_movi(e, dst, ea->abs);
    else
        em_lea(e, w, dst, base, index, scale, ea->disp);
    if (ea->asize == 2 && !ea->abs_valid)
        em_movzx16_rr(e, dst, dst);
}

static uint32_t describe(struct xl *x, const struct xl_ea *ea, unsigned s1, unsigned s2, unsigned size, unsigned how,
                         unsigned flags)
{
    return size | how << 7 | ea->seg << 9 | s1 << 12 | s2 << 16 | flags | (x->m64 ? XL_SITE_64 : 0);
}

static bool needs_segment(const struct xl *x, const struct xl_ea *ea)
{
    if (x->m64)
        return false;
    return !((x->in->key & CPU_KEY_FLAT) && (ea->seg == S_DS || ea->seg == S_ES || ea->seg == S_SS));
}

/* s1 = offset -> linear address; returns the register that holds 1 if the limit allows the access. */
static unsigned emit_segment(struct xl *x, const struct xl_ea *ea, unsigned s1, unsigned s2, unsigned size,
                             unsigned how, unsigned avoid)
{
    struct emit *e = x->hot;
    size_t nlim = how == XL_READ ? offsetof(struct seg, nlim_r) : offsetof(struct seg, nlim_w);
    unsigned ok = xl_pick(x, avoid | BIT(s1) | BIT(s2), false);
    em_ld64(e, ok, seg_field(x, ea->seg, nlim));
    em_lea(e, 1, ok, (int)ok, (int)s1, 0, (int32_t)size - 1);
    em_pext_abs(e, ok, ok, x->l->const_sign);
    em_ld64(e, s2, seg_field(x, ea->seg, offsetof(struct seg, base)));
    em_lea(e, 0, s1, (int)s1, (int)s2, 0, 0);
    return ok;
}

/* One look-up: size bytes at base + disp; s2 becomes the addend. */
struct lookup {
    int base;
    int32_t disp;
    unsigned s2, size;
    int ok; /* register with the result of the segment check, or NO_REG */
    uint32_t desc;
};

/* Out of line: C finds the addend, or does not come back. */
static void emit_call_miss(struct xl *x, const struct xl_insn *n, const struct lookup *k)
{
    struct emit *c = x->cold;
    if (k->disp) /* C wants the address in a register */
        em_lea(c, 1, k->s2, k->base, NO_REG, 0, k->disp);
    em_sti32(c, x->l->site, k->desc);
    if (!XL_SITE_SIZE(k->desc))
        em_sti32(c, x->l->op_imm, k->size);
    xl_call_glue(x, c, x->g->site_miss, n->off);
}

/* rcx == 0: go on here; otherwise out of line to C. */
static void emit_miss(struct xl *x, const struct xl_insn *n, const struct lookup *k)
{
    struct emit *e = x->hot;
    em_jmp_unless_rcx0(e, em_pc(x->cold));
    emit_call_miss(x, n, k);
}

/* Is the last byte in the page, or the window of the stack, whose tag is in RCX? Zero if so. */
static void emit_compare(struct emit *e, const struct lookup *k, uint64_t mask)
{
    em_lea(e, 1, R_RCX, k->base, R_RCX, 0, k->disp + (int32_t)k->size - 1);
    em_pext_abs(e, R_RCX, R_RCX, mask);
}

static void emit_lookup(struct xl *x, const struct xl_insn *n, const struct lookup *k)
{
    struct emit *e = x->hot;
    const struct xl_tlb_layout *t = &x->l->tlb[xl_user(x)];
    unsigned s2 = k->s2;
    if (k->disp)
        em_lea(e, 1, s2, k->base, NO_REG, 0, k->disp);
    em_rorx(e, s2, k->disp ? s2 : (unsigned)k->base, PAGE_SHIFT);
    em_movzx16_rr(e, s2, s2);
    em_ldm(e, 1, R_RCX, NO_REG, (int)s2, 3, (int32_t)(XL_SITE_HOW(k->desc) == XL_READ ? t->tag_r : t->tag_w));
    emit_compare(e, k, x->l->const_page); /* the base may be RSP, which is no index */
    if (k->ok != NO_REG)
        em_lea(e, 1, R_RCX, k->ok, R_RCX, 1, -1);
    emit_miss(x, n, k);
    em_ldm(e, 1, s2, NO_REG, (int)s2, 3, (int32_t)t->addend);
    em_jmp(x->cold, em_pc(e));
}

/* Out of line: the stack's page is another one. RDX lends itself, and is itself again where C is called. */
static void emit_stack_change(struct xl *x, const struct xl_insn *n, const struct lookup *k, uint64_t back)
{
    struct emit *c = x->cold;
    const struct xl_tlb_layout *t = &x->l->tlb[xl_user(x)];
    bool rd = XL_SITE_HOW(k->desc) == XL_READ;
    int32_t tag = (int32_t)(rd ? t->tag_r : t->tag_w);
    uint64_t stack = rd ? t->stack_r : t->stack_w;
    em_st64(c, R_RDX, x->l->keep);
    em_lea(c, 1, R_RDX, k->base, NO_REG, 0, k->disp);
    em_rorx(c, R_RDX, R_RDX, PAGE_SHIFT);
    em_movzx16_rr(c, R_RDX, R_RDX);
    em_ldm(c, 1, R_RCX, NO_REG, R_RDX, 3, tag);
    emit_compare(c, k, x->l->const_page);
    uint8_t *hit = em_jrcxz(c);
    em_ld64(c, R_RDX, x->l->keep);
    emit_call_miss(x, n, k);
    em_jmp(c, back);
    em_here8(c, hit);
    em_ldm(c, 1, R_RCX, NO_REG, R_RDX, 3, (int32_t)t->addend);
    em_st64(c, R_RCX, stack + 8);
    em_ldm(c, 1, R_RCX, NO_REG, R_RDX, 3, tag);
    em_lea(c, 1, R_RDX, k->base, NO_REG, 0, k->disp + (int32_t)k->size - 1);
    em_pext_abs(c, R_RDX, R_RDX, x->l->const_window);
    em_ldm(c, 1, R_RDX, NO_REG, R_RDX, 3, (int32_t)x->l->stack_from);
    em_lea(c, 1, R_RCX, R_RCX, R_RDX, 0, 0);
    em_st64(c, R_RCX, stack);
    em_ld64(c, R_RDX, x->l->keep);
    em_ld64(c, k->s2, stack + 8);
    em_jmp(c, back);
}

static void emit_stack_lookup(struct xl *x, const struct xl_insn *n, const struct lookup *k)
{
    struct emit *e = x->hot;
    const struct xl_tlb_layout *t = &x->l->tlb[xl_user(x)];
    uint64_t stack = XL_SITE_HOW(k->desc) == XL_READ ? t->stack_r : t->stack_w;
    em_ld64(e, R_RCX, stack);
    emit_compare(e, k, x->l->const_stack);
    em_jmp_unless_rcx0(e, em_pc(x->cold));
    em_ld64(e, k->s2, stack + 8);
    emit_stack_change(x, n, k, em_pc(e));
}

static void emit_pre(struct xl *x, const struct xl_insn *n, unsigned how, uint32_t desc)
{
    struct emit *e = x->hot;
    em_sti32(e, x->l->site, desc);
    xl_call_glue(x, e, x->g->site_pre, n->off);
    if (how != XL_READ)
        x->post_pending = true;
}

/* ---- window strategy: the operand as it is, relative to GS ---- */

/* 64-bit code: a canonical upper-half address plus the GS base is the host address; anything else faults. */
static void window64(struct xl *x, const struct xl_insn *n, const struct xl_ea *ea, unsigned avoid, struct xl_site *s)
{
    *s = (struct xl_site){.base = ea->base, .index = ea->index, .scale = ea->scale, .disp = ea->disp, .gs = true};
    bool based = ea->seg == S_FS || ea->seg == S_GS;
    if (ea->abs_valid && !based && (int64_t)(int32_t)ea->abs == (int64_t)ea->abs) {
        *s = (struct xl_site){.base = NO_REG, .index = NO_REG, .disp = (int32_t)ea->abs, .gs = true};
        return;
    }
    if (!ea->abs_valid && !based && ea->asize == 8)
        return;
    unsigned at = xl_pick(x, avoid, n->high_byte);
    if (based && !ea->abs_valid && ea->asize == 8 && ea->index < 0) { /* base register + disp + segment base */
        em_ld64(x->hot, at, seg_field(x, ea->seg, offsetof(struct seg, base)));
        *s = (struct xl_site){.base = (int)at, .index = ea->base, .disp = ea->disp, .gs = true};
        if (ea->base == R_RSP)
            *s = (struct xl_site){.base = R_RSP, .index = (int)at, .disp = ea->disp, .gs = true};
        return;
    }
    if (based && ea->abs_valid && (int64_t)(int32_t)ea->abs == (int64_t)ea->abs) { /* per-CPU variables */
        em_ld64(x->hot, at, seg_field(x, ea->seg, offsetof(struct seg, base)));
        *s = (struct xl_site){.base = (int)at, .index = NO_REG, .disp = (int32_t)ea->abs, .gs = true};
        return;
    }
    xl_emit_ea(x, ea, at);
    *s = (struct xl_site){.base = (int)at, .index = NO_REG, .gs = true};
    if (based) {
        unsigned b = xl_pick(x, avoid | BIT(at), n->high_byte);
        em_ld64(x->hot, b, seg_field(x, ea->seg, offsetof(struct seg, base)));
        s->index = (int)b;
    }
}

/* 16/32-bit code: the effective address is cut to 32 bits, so it cannot leave the 4 GiB window. */
static void window32(struct xl *x, const struct xl_insn *n, const struct xl_ea *ea, unsigned size, unsigned how,
                     unsigned avoid, unsigned flags, struct xl_site *s)
{
    *s = (struct xl_site){
        .base = ea->base, .index = ea->index, .scale = ea->scale, .disp = ea->disp, .gs = true, .a32 = true};
    bool seg = needs_segment(x, ea);
    if (!seg && ea->asize == 4) {
        if (ea->abs_valid)
            *s = (struct xl_site){.base = NO_REG, .index = NO_REG, .disp = (int32_t)ea->abs, .gs = true, .a32 = true};
        return;
    }
    unsigned at = xl_pick(x, avoid, n->high_byte);
    xl_emit_ea(x, ea, at);
    *s = (struct xl_site){.base = (int)at, .index = NO_REG, .gs = true, .a32 = true};
    if (!seg)
        return;
    unsigned tmp = xl_pick(x, avoid | BIT(at), false);
    xl_spill(x, R_RCX);
    unsigned ok = emit_segment(x, ea, at, tmp, size, how, avoid);
    em_lea(x->hot, 1, R_RCX, (int)ok, NO_REG, 0, -1);
    emit_miss(x, n, &(struct lookup){.desc = describe(x, ea, at, tmp, size, how, flags | XL_SITE_DIRECT)});
    em8(x->cold, 0x0f), em8(x->cold, 0x0b); /* never comes back */
}

/* Can the address stay what it is, a register and a displacement? RCX is overwritten by the look-up. */
static bool stays(const struct xl *x, const struct xl_ea *ea, unsigned size)
{
    return x->m64 && ea->base >= 0 && ea->base != R_RCX && ea->index < 0 && !ea->abs_valid && ea->asize == 8 &&
           ea->seg != S_FS && ea->seg != S_GS && ea->disp < INT32_MAX - (int)size;
}

/* Not with flags that let something happen before the access faults: it may, see softtlb.h. */
static bool on_stack(const struct xl *x, const struct xl_ea *ea, unsigned size, unsigned flags)
{
    return ea->base == R_RSP && size <= x->l->stack_span && stays(x, ea, size) && !(flags & ~XL_SITE_ALIGN);
}

static struct xl_site callout_site(struct xl *x, const struct xl_insn *n, const struct xl_ea *ea, unsigned size,
                                   unsigned how, unsigned avoid, unsigned flags)
{
    unsigned s1 = xl_pick(x, avoid, n->high_byte), s2 = xl_pick(x, avoid | BIT(s1), n->high_byte);
    xl_emit_ea(x, ea, s1);
    if (flags & XL_SITE_MASKED)
        em_sti32(x->hot, x->l->op_imm, xl_mask_of(n, size));
    emit_pre(x, n, how, describe(x, ea, s1, s2, size & 0x7f, how, flags | XL_SITE_OFFSET));
    return (struct xl_site){.base = (int)s1, .index = (int)s2};
}

/* at: where in the looked-up bytes the access is; size 0 in the descriptor stands for a group. */
static struct xl_site soft_site(struct xl *x, const struct xl_insn *n, const struct xl_ea *ea, struct lookup *k,
                                unsigned desc_size, unsigned how, unsigned avoid, unsigned flags, int32_t at)
{
    k->ok = NO_REG;
    if (stays(x, ea, k->size)) {
        xl_spill(x, R_RCX);
        k->base = ea->base;
        k->disp = ea->disp;
        k->desc = describe(x, ea, k->disp ? k->s2 : (unsigned)k->base, k->s2, desc_size, how, flags);
        (on_stack(x, ea, k->size, flags) ? emit_stack_lookup : emit_lookup)(x, n, k);
        return (struct xl_site){.base = ea->base, .index = (int)k->s2, .disp = ea->disp + at};
    }
    unsigned s1 = xl_pick(x, avoid | BIT(k->s2), n->high_byte);
    xl_emit_ea(x, ea, s1); /* before RCX, which may be part of it, is overwritten */
    xl_spill(x, R_RCX);
    if (x->m64 && (ea->seg == S_FS || ea->seg == S_GS)) {
        em_ld64(x->hot, R_RCX, seg_field(x, ea->seg, offsetof(struct seg, base)));
        em_lea(x->hot, 1, s1, (int)s1, R_RCX, 0, 0);
    }
    if (needs_segment(x, ea))
        k->ok = (int)emit_segment(x, ea, s1, k->s2, k->size, how, avoid);
    k->base = (int)s1;
    k->disp = 0;
    k->desc = describe(x, ea, s1, k->s2, desc_size, how, flags);
    emit_lookup(x, n, k);
    return (struct xl_site){.base = (int)s1, .index = (int)k->s2, .disp = at};
}

/* Looks the group's range up; its first access is somewhere in it. */
static struct xl_site leader_site(struct xl *x, const struct xl_insn *n, const struct xl_group *g, struct xl_ea ea,
                                  unsigned avoid)
{
    struct lookup k = {.s2 = (unsigned)g->reg, .size = (unsigned)(g->hi - g->lo)};
    int32_t into = (int32_t)(n->at - g->lo);
    ea.disp -= into;
    ea.abs -= (uint64_t)(int64_t)into;
    if (!x->m64)
        ea.abs = (uint32_t)ea.abs;
    if (x->m64) /* elsewhere it is not the guest's */
        xl_spill(x, g->reg);
    return soft_site(x, n, &ea, &k, 0, g->how, avoid, 0, into);
}

static struct xl_site group_site(struct xl *x, const struct xl_insn *n, const struct xl_ea *ea, unsigned avoid)
{
    const struct xl_group *g = &x->group[n->group - 1];
    if (g->first == x->cur)
        return leader_site(x, n, g, *ea, avoid);
    if (x->m64 && !ea->abs_valid && ea->index < 0)
        return (struct xl_site){.base = ea->base, .index = g->reg, .disp = ea->disp};
    unsigned s1 = xl_pick(x, avoid, false);
    xl_emit_ea(x, ea, s1);
    return (struct xl_site){.base = (int)s1, .index = g->reg};
}

/* Emits the way to the operand. The registers in avoid are left alone; all that n uses hold their guest values, but for RCX,
 * which may be scratch: xl_unspill(n->regs) what the access itself needs afterwards. */
struct xl_site xl_site(struct xl *x, const struct xl_insn *n, const struct xl_ea *ea, unsigned size, unsigned how,
                       unsigned avoid, unsigned flags)
{
    struct xl_site s;
    bool callout = x->careful || n->strategy == XL_SITE_CALLOUT || (x->in->key & CPU_KEY_AC) || size > 127 ||
                   xl_site_stores_env(flags, size, how);
    xl_unspill(x, n->use & ~(unsigned)n->wronly & ~avoid);
    avoid |= BIT(R_RCX) | BIT(R_RSP);
    unsigned dead = n->wronly & ~avoid & 0xffff; /* its old value is wanted only if the access faults */
    avoid |= n->use & ~dead;
    if (ea->base >= 0)
        avoid |= BIT(ea->base);
    if (ea->index >= 0)
        avoid |= BIT(ea->index);
    if (n->group)
        return group_site(x, n, ea, avoid);
    if (callout)
        return callout_site(x, n, ea, size, how, avoid, flags);
    if (n->strategy == XL_SITE_SOFT || (flags & XL_SITE_MASKED)) {
        bool rcx = on_stack(x, ea, size, flags) && !(n->use & ~(unsigned)n->wronly & BIT(R_RCX));
        struct lookup k = {.s2 = rcx ? R_RCX : xl_pick(x, avoid, n->high_byte), .size = size};
        return soft_site(x, n, ea, &k, size, how, avoid, flags, 0);
    }
    if (x->m64)
        window64(x, n, ea, avoid, &s);
    else
        window32(x, n, ea, size, how, avoid, flags, &s);
    return s;
}

/* Closes the instruction's callout-strategy site, if it has one: everything else of the instruction is done. */
void xl_site_done(struct xl *x, const struct xl_insn *n)
{
    if (!x->post_pending)
        return;
    x->post_pending = false;
    xl_call_glue(x, x->hot, x->g->site_post, n->off + n->i.length);
}
