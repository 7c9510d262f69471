/* translator/xl_regs.c - scratch registers: 64-bit guests own all sixteen, so values are parked in cpu.spill[] lazily.
 *
 * A spilled register stays spilled over as many instructions as do not need it; every exit and callout brings all back. */
#include "translator/xl_int.h"

void xl_spill(struct xl *x, int r)
{
    if (x->spilled & BIT(r))
        return;
    if (!(x->clean & BIT(r)))
        em_st64(x->hot, (unsigned)r, xl_slot(x, r));
    x->spilled |= (uint16_t)BIT(r);
}

void xl_unspill(struct xl *x, unsigned mask)
{
    for (unsigned m = mask & x->spilled; m; m &= m - 1) {
        unsigned r = (unsigned)__builtin_ctz(m);
        em_ld64(x->hot, r, xl_slot(x, (int)r));
        x->spilled &= (uint16_t)~BIT(r);
        x->clean |= (uint16_t)BIT(r);
    }
}

unsigned xl_bring_back(struct xl *x, struct emit *e)
{
    unsigned n = 0;
    for (unsigned m = x->spilled; m; m &= m - 1, n++)
        em_ld64(e, (unsigned)__builtin_ctz(m), xl_slot(x, __builtin_ctz(m)));
    return n;
}

/* The instruction has been emitted: which slots still hold what their registers do? */
void xl_changed(struct xl *x, const struct xl_insn *n)
{
    switch (n->act) {
    case XL_ACT_IDENT:
    case XL_ACT_DROP:
    case XL_ACT_LEA:
    case XL_ACT_MEM:
    case XL_ACT_MOFFS:
    case XL_ACT_PUSH_R:
    case XL_ACT_PUSH_I:
    case XL_ACT_PUSH_M:
    case XL_ACT_POP_R: x->clean &= (uint16_t)~n->writes; break;
    default: x->clean = 0; break;
    }
}

/* Those of the registers that are needed last of all, from instruction k on. */
unsigned xl_needed_last(const struct xl *x, unsigned regs, unsigned k)
{
    for (unsigned left; k < x->n && (left = regs & ~(unsigned)x->use[k]); k++)
        regs = left;
    return regs;
}

/* The lowest of them; RBP and R13 as a base cost a displacement byte. */
static unsigned first_of(unsigned regs)
{
    unsigned cheap = regs & ~(BIT(R_RBP) | BIT(R_R13));
    return (unsigned)__builtin_ctz(cheap ? cheap : regs);
}

/* Chooses a scratch register outside avoid and makes it free. legacy: one that needs no REX prefix. */
unsigned xl_pick(struct xl *x, unsigned avoid, bool legacy)
{
    avoid |= x->pinned;
    if (!x->m64 && !legacy && (~avoid & 0xff00))
        return (unsigned)__builtin_ctz(~avoid & 0xff00);
    unsigned regs = (x->m64 && !legacy ? 0xffffu : 0xffu) & ~(avoid | BIT(R_RSP));
    CHECK(regs);
    if (regs & x->spilled) /* costs nothing */
        regs &= x->spilled;
    unsigned best = first_of(xl_needed_last(x, regs, x->cur + 1));
    xl_spill(x, (int)best);
    return best;
}

void xl_add_point(struct xl *x, uint64_t pc, unsigned guest_off)
{
    struct xl_result *r = x->r;
    if (x->sp_ahead) /* nothing faults here: xl_stack.c */
        return;
    if (r->d.n_points == XL_MAX_POINTS) {
        x->hot->overflow = true;
        return;
    }
    r->point[r->d.n_points++] = (struct ccf_point){(uint32_t)pc, (uint16_t)guest_off, x->spilled};
}

void xl_set_rip(struct xl *x, struct emit *e, uint64_t rip) { em_sti64(e, xl_cpu(x, offsetof(struct cpu, rip)), rip); }

/* Calls a glue routine on the host stack; the return address is a point with the current spill mask. */
void xl_call_glue(struct xl *x, struct emit *e, uint64_t glue, unsigned guest_off)
{
    uint64_t rsp = xl_cpu(x, offsetof(struct cpu, gpr) + 8 * R_RSP);
    em_st64(e, R_RSP, rsp);
    em_ld64(e, R_RSP, x->l->host_sp);
    em_call(e, glue);
    xl_add_point(x, em_pc(e), guest_off);
    em_ld64(e, R_RSP, rsp);
}
