/* translator/xl_stack.c - implicit stack accesses as explicit ones: the access first, then the stack pointer moves, so that a
 * fault finds it unchanged. */
#include "translator/xl_int.h"

unsigned xl_stack_bytes(const struct xl_insn *n)
{
    for (unsigned k = 0; k < n->i.operand_count; k++)
        if (n->op[k].type == ZYDIS_OPERAND_TYPE_MEMORY && n->op[k].visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN)
            return xl_operand_bytes(&n->op[k]);
    return n->i.operand_width / 8u;
}

/* sp = base + by, in the width of the stack. */
static void set_sp(struct xl *x, int base, int32_t by)
{
    struct emit *e = x->hot;
    if (base == R_RSP)
        by += x->sp_ahead;
    x->sp_ahead = 0;
    if (x->m64 || (x->in->key & CPU_KEY_SS32)) {
        em_lea(e, x->m64, R_RSP, base, NO_REG, 0, by);
    } else {
        em_lea(e, 0, R_R8, base, NO_REG, 0, by);
        em_mov16_rr(e, R_RSP, R_R8);
    }
}
void xl_adjust_sp(struct xl *x, int32_t by) { set_sp(x, R_RSP, by); }

void xl_settle_sp(struct xl *x)
{
    if (x->sp_ahead)
        xl_adjust_sp(x, 0);
}

/* An instruction that raises no exception and does not use RSP. */
static bool harmless(const struct xl_insn *n)
{
    if (n->use & BIT(R_RSP))
        return false;
    if (n->act == XL_ACT_DROP || n->act == XL_ACT_LEA)
        return true;
    if (n->act != XL_ACT_IDENT)
        return false;
    switch (n->i.mnemonic) {
    case ZYDIS_MNEMONIC_MOV:
    case ZYDIS_MNEMONIC_MOVZX:
    case ZYDIS_MNEMONIC_MOVSX:
    case ZYDIS_MNEMONIC_MOVSXD:
    case ZYDIS_MNEMONIC_ADD:
    case ZYDIS_MNEMONIC_SUB:
    case ZYDIS_MNEMONIC_AND:
    case ZYDIS_MNEMONIC_OR:
    case ZYDIS_MNEMONIC_XOR:
    case ZYDIS_MNEMONIC_TEST:
    case ZYDIS_MNEMONIC_CMP: return true;
    default: return false;
    }
}

/* Is the next thing that matters a push or a pop that shares n's look-up? Nothing can leave the block before it then. */
static bool moves_again(const struct xl *x, const struct xl_insn *n)
{
    unsigned k = x->cur + 1;
    while (k < x->n && harmless(&x->insn[k]))
        k++;
    if (k == x->n || !n->group || x->insn[k].group != n->group)
        return false;
    const struct xl_insn *m = &x->insn[k];
    switch (m->act) {
    case XL_ACT_PUSH_R:
    case XL_ACT_POP_R: return xl_gpr(m->op[0].reg.value) != R_RSP;
    case XL_ACT_PUSH_I:
    case XL_ACT_CALL:
    case XL_ACT_RET: return true;
    default: return false;
    }
}

/* The stack pointer after a push or a pop: several in a row move it once. */
static void move_sp(struct xl *x, const struct xl_insn *n, int32_t by)
{
    if (x->m64 && moves_again(x, n))
        x->sp_ahead += by;
    else
        xl_adjust_sp(x, by);
}

void xl_push(struct xl *x, struct xl_insn *n, int src, uint64_t imm, unsigned size, unsigned avoid)
{
    struct emit *e = x->hot;
    struct xl_ea ea;
    xl_ea_stack(x, -(int32_t)size, &ea);
    if (src < 0 && (int64_t)(int32_t)imm != (int64_t)imm && size == 8) {
        src = (int)xl_pick(x, avoid | n->use | BIT(R_RCX), false);
        em_movi(e, (unsigned)src, imm);
        avoid |= BIT(src);
    } else if (src >= 0 && !(avoid & BIT(src))) {
        xl_unspill(x, BIT(src));
    }
    struct xl_site s = xl_site(x, n, &ea, size, XL_WRITE, avoid, 0);
    if (src >= 0 && !(avoid & BIT(src)))
        xl_unspill(x, BIT(src));
    xl_add_point(x, em_pc(e), n->off);
    if (src >= 0) {
        xl_store(x, (unsigned)src, &s, size);
    } else {
        xl_site_prefixes(e, &s);
        if (size == 2)
            em8(e, 0x66);
        em_rex(e, size == 8, 0, em_x(s.index), em_x(s.base), false);
        em8(e, 0xc7);
        xl_site_modrm(e, 0, &s);
        if (size == 2)
            em16(e, (unsigned)imm & 0xffff);
        else
            em32(e, (uint32_t)imm);
    }
    move_sp(x, n, -(int32_t)size);
}

/* PUSH m: the value is read through one site, written through another. */
static void push_mem(struct xl *x, struct xl_insn *n, unsigned size)
{
    struct xl_ea ea;
    xl_ea_of(x, n, &ea);
    unsigned val = xl_pick(x, n->use | BIT(R_RCX), false);
    struct xl_site s = xl_site(x, n, &ea, size, XL_READ, BIT(val), 0);
    xl_add_point(x, em_pc(x->hot), n->off);
    xl_load(x, val, &s, size);
    xl_push(x, n, (int)val, 0, size, BIT(val));
}

void xl_emit_push(struct xl *x, struct xl_insn *n)
{
    unsigned size = xl_stack_bytes(n);
    if (n->act == XL_ACT_PUSH_R)
        xl_push(x, n, xl_gpr(n->op[0].reg.value), 0, size, 0);
    else if (n->act == XL_ACT_PUSH_I)
        xl_push(x, n, NO_REG, (uint64_t)n->op[0].imm.value.s, size, 0);
    else
        push_mem(x, n, size);
    xl_site_done(x, n);
}

void xl_emit_pop(struct xl *x, struct xl_insn *n)
{
    unsigned size = xl_stack_bytes(n), dst = (unsigned)xl_gpr(n->op[0].reg.value);
    struct xl_ea ea;
    xl_ea_stack(x, 0, &ea);
    struct xl_site s = xl_site(x, n, &ea, size, XL_READ, 0, 0);
    if (size == 2)
        xl_unspill(x, BIT(dst));
    xl_add_point(x, em_pc(x->hot), n->off);
    xl_load(x, dst, &s, size);
    if (size > 2)
        x->spilled &= (uint16_t)~BIT(dst);
    if (dst != R_RSP)
        move_sp(x, n, (int32_t)size);
    xl_site_done(x, n);
}

void xl_emit_leave(struct xl *x, struct xl_insn *n)
{
    unsigned size = xl_stack_bytes(n);
    struct xl_ea ea;
    xl_ea_stack(x, 0, &ea);
    ea.base = R_RBP;
    xl_unspill(x, BIT(R_RBP));
    unsigned val = x->m64 ? xl_pick(x, n->use | BIT(R_RCX), false) : R_R14; /* R8 moves a 16-bit stack pointer */
    struct xl_site s = xl_site(x, n, &ea, size, XL_READ, BIT(R_RBP) | BIT(val), 0);
    xl_add_point(x, em_pc(x->hot), n->off);
    xl_load(x, val, &s, size);
    set_sp(x, R_RBP, (int32_t)size);
    if (size == 2)
        em_mov16_rr(x->hot, R_RBP, val);
    else
        em_mov_rr(x->hot, size == 8, R_RBP, val);
    xl_site_done(x, n);
}
