/* monitor/sites.c - what has been learnt about memory sites: by guest physical address of the instruction, the strategy that its
 * sites must have. Innocent until proven guilty: no entry means the fastest one. nofpu. */
#include "monitor/vm_int.h"

static unsigned slot(uint64_t phys) { return (unsigned)(phys * 0x9e3779b97f4a7c15ull >> (64 - SITE_BITS)); }

/* The entry of an instruction, or the free one where it would go. */
static struct site_entry *find(struct vcpu *v, uint64_t phys)
{
    struct site_table *t = &v->priv->sites;
    unsigned i = slot(phys);
    while (t->entry[i].used && t->entry[i].phys != phys)
        i = (i + 1) & ((1u << SITE_BITS) - 1);
    return &t->entry[i];
}

static struct site_entry *make(struct vcpu *v, uint64_t phys)
{
    struct site_table *t = &v->priv->sites;
    struct site_entry *e = find(v, phys);
    if (e->used)
        return e;
    if (t->n == (1u << SITE_BITS) / 4 * 3) { /* start learning again */
        for (unsigned i = 0; i < 1u << SITE_BITS; i++)
            t->entry[i].used = false;
        t->n = 0;
        v->stats->sites_soft = v->stats->sites_callout = 0;
        for (unsigned i = 0; i < 64; i++)
            t->pages[i] = 0;
        e = find(v, phys);
    }
    t->n++;
    t->pages[phys >> 18 & 63] |= 1ull << (phys >> 12 & 63);
    *e = (struct site_entry){.phys = phys, .used = true, .strategy = XL_SITE_WINDOW};
    return e;
}

enum xl_strategy site_strategy(struct vcpu *v, uint64_t phys, bool *alone)
{
    *alone = false;
    if (!(v->priv->sites.pages[phys >> 18 & 63] >> (phys >> 12 & 63) & 1))
        return XL_SITE_WINDOW;
    const struct site_entry *e = find(v, phys);
    *alone = e->used && e->alone;
    return e->used ? (enum xl_strategy)e->strategy : XL_SITE_WINDOW;
}

static void count(struct stats *s, enum xl_strategy is, uint64_t by)
{
    s->sites_soft += is == XL_SITE_SOFT ? by : 0;
    s->sites_callout += is == XL_SITE_CALLOUT ? by : 0;
}

/* The block is made again when it is reached next. */
void site_set_strategy(struct vcpu *v, uint64_t phys, enum xl_strategy s)
{
    struct site_entry *e = make(v, phys);
    count(v->stats, (enum xl_strategy)e->strategy, ~0ull);
    count(v->stats, s, 1);
    e->strategy = (uint8_t)s;
    cc_invalidate(v->priv->cc, phys, 1);
    v->stats->sites_changed++;
}

/* How often in this period the site was left. */
static unsigned exits_now(struct site_entry *e)
{
    uint8_t now = (uint8_t)(__builtin_ia32_rdtsc() >> SITE_PERIOD_SHIFT);
    if (e->period != now)
        e->exits = 0;
    e->period = now;
    return ++e->exits;
}

void site_note_careful(struct vcpu *v, uint64_t phys)
{
    struct site_entry *e = make(v, phys);
    if (e->strategy == XL_SITE_CALLOUT)
        return;
    if (exits_now(e) >= SITE_CAREFUL_LIMIT)
        site_set_strategy(v, phys, XL_SITE_CALLOUT);
}

void site_note_alone(struct vcpu *v, uint64_t phys)
{
    struct site_entry *e = make(v, phys);
    if (e->alone || exits_now(e) < SITE_ALONE_LIMIT)
        return;
    e->alone = true;
    site_set_strategy(v, phys, (enum xl_strategy)e->strategy);
}

/* A site that runs as a callout found what it is one for, or plain memory. After many times of the latter in a row it goes back to
 * the fast way; each return makes the next later. */
void site_note_callout(struct vcpu *v, uint64_t ret_pc, bool plain)
{
    uint16_t *n = &v->priv->easy[ret_pc >> 3 & (SITE_EASY_SLOTS - 1)];
    v->stats->site_callouts++;
    v->stats->site_callouts_plain += plain;
    *n = plain ? *n + 1u : 0;
    if (*n < SITE_EASY_RUN)
        return;
    *n = 0;
    struct cc_block *b = cc_find(v->priv->cc, ret_pc);
    const struct ccf_point *p = b ? cc_find_point(b, ret_pc) : NULL;
    struct site_entry *e = p ? find(v, b->key.phys + p->guest_off) : NULL;
    if (!e || !e->used || e->strategy != XL_SITE_CALLOUT || ++e->easy < 1u << e->returns)
        return;
    e->easy = e->exits = 0;
    e->returns += e->returns < 15;
    v->stats->sites_returned++;
    site_set_strategy(v, e->phys, XL_SITE_WINDOW);
}
