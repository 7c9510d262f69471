/* monitor/selfcheck.c - see selfcheck.h: what runs with the guest's vector registers live. nofpu. */
#include "monitor/selfcheck.h"
#include "monitor/vm_int.h"

/* Fills are far more frequent than flushes. */
#define FILLS_PER_FLUSH 8u
#define WALKS_PER_HOST 8u

struct walker {
    struct vcpu *v;
    enum audit_where where;
    uint16_t pcid;
};

static bool once_in(struct vcpu *v, unsigned n) { return rng_small(&v->priv->check.lcg) % n == 0; }

/* Guest physical address of a host pointer into guest memory; all ones if it is none. */
static uint64_t gpa_of(const struct vcpu *v, const uint8_t *host)
{
    unsigned n;
    const struct gpmem_slot *s = gpmem_slots(v->mem, &n);
    for (unsigned i = 0; i < n; i++)
        if (host >= s[i].host && host < s[i].host + s[i].bytes)
            return s[i].gpa + (uint64_t)(host - s[i].host);
    return ~0ull;
}

static void check_tlb(void *opaque, uint64_t lin, const uint8_t *host, bool write, bool global)
{
    const struct walker *k = opaque;
    struct audit_entry e = {.lin = lin, .gpa = gpa_of(k->v, host), .write = write, .global = global, .pcid = k->pcid};
    audit_check(k->v->audit, &k->v->c, k->where, &e);
}

static void check_window(void *opaque, uint64_t lin, uint64_t gpa, bool write, bool global)
{
    const struct walker *k = opaque;
    struct audit_entry e = {.lin = lin, .gpa = gpa, .write = write, .global = global, .pcid = k->pcid};
    audit_check(k->v->audit, &k->v->c, k->where, &e);
}

static void check_fetch(struct vcpu *v)
{
    const struct pcids *p = &v->priv->pcids;
    for (unsigned i = 0; i < 1u << ITLB_BITS; i++) {
        const struct itlb_entry *t = &v->priv->itlb[i];
        struct audit_entry e = {.lin = t->lin, .gpa = t->gpa, .global = t->global, .exec = true, .pcid = p->current};
        if (vcpu_itlb_holds(v, t) && t->host)
            audit_check(v->audit, &v->c, AUDIT_FETCH, &e);
    }
}

static void check_parked(struct vcpu *v)
{
    for (unsigned i = 0; i < PCID_PARKS; i++) {
        const struct pcid_park *k = &v->priv->pcids.park[i];
        struct walker super = {v, AUDIT_TLB_SUPER, k->pcid}, user = {v, AUDIT_TLB_USER, k->pcid};
        if (!k->used)
            continue;
        softtlb_park_each(&k->tlb[0], check_tlb, &super);
        softtlb_park_each(&k->tlb[1], check_tlb, &user);
    }
}

/* Every entry of every structure. */
static void walk_all(struct vcpu *v)
{
    struct vcpu_priv *p = v->priv;
    struct walker k = {v, AUDIT_TLB_SUPER, p->pcids.current};
    bool compact = audit_is_full(v->audit);
    if (compact)
        audit_compact_begin(v->audit);
    softtlb_each(&v->tlb[0], check_tlb, &k);
    k.where = AUDIT_TLB_USER;
    softtlb_each(&v->tlb[1], check_tlb, &k);
    k.where = AUDIT_WIN64;
    if (p->win64)
        window_each(p->win64, check_window, &k);
    k.where = AUDIT_WIN32;
    if (p->win32)
        window_each(p->win32, check_window, &k);
    check_fetch(v);
    check_parked(v);
    if (compact)
        audit_compact_end(v->audit);
    v->stats->audit_walks++;
    if (v->stats->audit_walks % WALKS_PER_HOST == 0)
        p->check.host_due = true;
}

static void conclude(struct vcpu *v)
{
    if (!audit_violation(v->audit) || v->priv->check.reported)
        return;
    v->priv->check.reported = true;
    vcpu_kick(v); /* wherever this is: the run loop reports it */
}

void selfcheck_entered(struct vcpu *v, enum audit_where where, const struct audit_entry *e)
{
    struct audit_entry mine = *e;
    mine.pcid = v->priv->pcids.current;
    audit_fill(v->audit, &v->c, where, &mine);
    v->stats->audit_fills++;
    if (audit_is_full(v->audit) || once_in(v, v->vm->cfg.check_shadow * FILLS_PER_FLUSH))
        walk_all(v);
    conclude(v);
}

static bool in_window(const struct window *w, uint64_t lin)
{
    uint64_t gpa;
    bool write;
    return w && window_lookup(w, lin, &gpa, &write);
}

static bool in_tlb(const struct softtlb *t, uint64_t lin)
{
    unsigned i = stlb_index(lin);
    int64_t tag = -(int64_t)(lin & PAGE_MASK);
    return t->tag_r[i] == tag || t->tag_w[i] == tag || stlb_stack_is(&t->stack_r, lin) ||
           stlb_stack_is(&t->stack_w, lin);
}

/* After INVLPG the page itself must be nowhere: cheap enough to look each time. */
static void check_gone(struct vcpu *v, uint64_t lin)
{
    struct vcpu_priv *p = v->priv;
    struct audit_entry e = {.lin = lin & PAGE_MASK};
    const struct itlb_entry *t = &p->itlb[lin >> 12 & ((1u << ITLB_BITS) - 1)];
    const struct {
        enum audit_where where;
        bool there;
    } look[] = {{AUDIT_TLB_SUPER, in_tlb(&v->tlb[0], lin)},
                {AUDIT_TLB_USER, in_tlb(&v->tlb[1], lin)},
                {AUDIT_WIN64, in_window(p->win64, lin)},
                {AUDIT_WIN32, in_window(p->win32, lin)},
                {AUDIT_FETCH, t->lin == (lin & PAGE_MASK) && vcpu_itlb_holds(v, t)}};
    for (unsigned i = 0; i < sizeof look / sizeof look[0]; i++)
        if (look[i].there)
            audit_blame(v->audit, &v->c, look[i].where, AUDIT_FLUSHED, &e);
}

static void walk_at_times(struct vcpu *v)
{
    if (audit_is_full(v->audit) || once_in(v, v->vm->cfg.check_shadow))
        walk_all(v);
    conclude(v);
}

void selfcheck_flushed(struct vcpu *v, enum audit_flush what, uint64_t lin)
{
    audit_flush(v->audit, what, lin);
    v->stats->audit_flushes++;
    if (what == AUDIT_FLUSH_PAGE)
        check_gone(v, lin);
    if (what == AUDIT_FLUSH_ALL) /* PCIDE may have changed */
        audit_switch(v->audit, v->priv->pcids.current);
    walk_at_times(v);
}

void selfcheck_switched(struct vcpu *v, uint16_t pcid, bool keep)
{
    audit_switch(v->audit, pcid);
    if (!keep)
        audit_flush(v->audit, AUDIT_FLUSH_NONGLOBAL, 0);
    v->stats->audit_flushes += !keep;
    walk_at_times(v);
}

void selfcheck_flushed_pcid(struct vcpu *v, uint16_t pcid)
{
    audit_flush_pcid(v->audit, pcid);
    v->stats->audit_flushes++;
    walk_at_times(v);
}

bool selfcheck_wants_world(struct vcpu *v) { return once_in(v, v->vm->cfg.check_shadow / 8 + 1); }

void selfcheck_world_page(struct vcpu *v, const struct audit_entry *e)
{
    v->stats->audit_world_pages++;
    audit_compare(v->audit, &v->c, AUDIT_WORLD, e);
    conclude(v);
}

bool selfcheck_sabotages(struct vcpu *v, uint64_t lin)
{
    struct vcpu_priv *p = v->priv;
    if (!p->check.sabotage ||
        !(in_window(p->win64, lin) || in_window(p->win32, lin) || in_tlb(&v->tlb[0], lin) || in_tlb(&v->tlb[1], lin)))
        return false;
    return --p->check.sabotage == 0;
}

bool selfcheck_due(struct vcpu *v)
{
    struct vcpu_priv *p = v->priv;
    unsigned tc = v->vm->cfg.check_tc;
    if (tc && ++p->check.tc_steps >= tc) {
        p->check.tc_steps = 0;
        p->check.tc_due = true;
    }
    return p->check.tc_due || p->check.host_due || p->check.reported;
}
