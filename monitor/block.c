/* monitor/block.c - finds the block at the current rip. nofpu: this is on the way of every chaining. */
#include "monitor/vm_int.h"

/* An instruction that crosses is looked up by its first page; is the second still the one it was made from? */
static bool second_page_same(struct vcpu *v, const struct cc_block *b, uint64_t lin, int *err)
{
    uint64_t phys, next = (lin & PAGE_MASK) + PAGE_SIZE;
    uint8_t *host;
    bool global;
    if (!cpu_code64(&v->c))
        next = (uint32_t)next;
    *err = vcpu_fetch(v, next, &phys, &host, &global);
    return !*err && phys == b->phys2;
}

struct cc_block *vcpu_block(struct vcpu *v, uint32_t mode, int *err)
{
    struct cpu *c = &v->c;
    struct vcpu_priv *p = v->priv;
    uint64_t lin = c->rip;
    uint8_t *host;
    bool global;
    struct cc_key k = {.rip = c->rip, .mode = mode};
    *err = 0;
    if (mode & CPU_KEY_CODE64) {
        if (!x86_is_canonical(lin)) {
            *err = sys_fault_err(v, EXC_GP, 0);
            return NULL;
        }
    } else {
        k.cs_base = c->seg[S_CS].base;
        k.cs_limit = c->seg[S_CS].limit;
        lin = (uint32_t)(lin + k.cs_base);
        if (c->rip > c->seg[S_CS].limit) {
            *err = sys_fault_err(v, EXC_GP, 0);
            return NULL;
        }
    }
    *err = vcpu_fetch(v, lin, &k.phys, &host, &global);
    if (*err)
        return NULL;
    v->stats->tc_lookups++;
    struct cc_block *b = p->link_from ? cc_linked(p->link_from, (unsigned)p->link_index, &k) : NULL;
    if (!b)
        b = cc_lookup(p->cc, &k);
    if (b && (b->phys2 == ~0ull || second_page_same(v, b, lin, err))) {
        v->stats->tc_lookup_hits++;
        return b;
    }
    if (*err)
        return NULL;
    if (b) /* same first page, other second page: make it again */
        cc_invalidate(v->priv->cc, k.phys, 1);
    fpu_leave(v); /* here: the callee may use vector registers from its first instruction */
    struct acct_span span = acct_begin(&v->stats->acct, ACCT_translate);
    b = vcpu_make_block(v, &k, host, lin, err);
    acct_end(&v->stats->acct, &span, ACCT_translate);
    return b;
}
