/* translator/xl_regs.c - scratch registers: 64-bit guests own all sixteen, so values are parked in cpu.spill[] lazily.
 *
 * A spilled register stays spilled over as many instructions as do not need it; every exit and callout brings all back. */
#include "translator/xl_int.h"

void xl_spill(struct xl *x, int r)
{
    if (x->spilled & BIT(r))
        return;
    em_st64(x->hot, (unsigned)r, xl_slot(x, r));
    x->spilled |= (uint16_t)BIT(r);
}

void xl_unspill(struct xl *x, unsigned mask)
{
    for (unsigned m = mask & x->spilled; m; m &= m - 1) {
        unsigned r = (unsigned)__builtin_ctz(m);
        em_ld64(x->hot, r, xl_slot(x, (int)r));
        x->spilled &= (uint16_t)~BIT(r);
    }
}

/* How soon register r is needed again. */
static unsigned next_use(const struct xl *x, unsigned r)
{
    unsigned k = x->cur + 1;
    while (k < x->n && !(x->insn[k].use & BIT(r)))
        k++;
    return k - x->cur;
}

/* Chooses a scratch register outside avoid and makes it free. legacy: one that needs no REX prefix. */
unsigned xl_pick(struct xl *x, unsigned avoid, bool legacy)
{
    int best = NO_REG;
    unsigned best_score = 0;
    avoid |= x->pinned;
    if (!x->m64 && !legacy) {
        for (unsigned r = R_R8; r <= R_R15; r++)
            if (!(avoid & BIT(r)))
                return r;
    }
    avoid |= BIT(R_RSP);
    for (unsigned r = 0; r < (x->m64 && !legacy ? 16u : 8u); r++) {
        if (avoid & BIT(r))
            continue;
        unsigned score = (x->spilled & BIT(r) ? 1000 : 0) + next_use(x, r);
        /* RBP and R13 as a base cost a displacement byte. */
        score = score * 2 + ((r & 7) != R_RBP);
        if (best == NO_REG || score > best_score)
            best = (int)r, best_score = score;
    }
    CHECK(best != NO_REG);
    xl_spill(x, best);
    return (unsigned)best;
}

void xl_add_point(struct xl *x, uint64_t pc, unsigned guest_off)
{
    struct xl_result *r = x->r;
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
