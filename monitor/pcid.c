/* monitor/pcid.c - see pcid.h. nofpu. */
#include "monitor/pcid.h"
#include "monitor/vm_int.h"

uint16_t pcid_of_cr3(const struct vcpu *v) { return v->c.cr4 & CR4_PCIDE ? v->c.cr3 & 0xfff : 0; }

static struct pcid_park *find(struct pcids *p, uint16_t pcid)
{
    for (unsigned i = 0; i < PCID_PARKS; i++)
        if (p->park[i].used && p->park[i].pcid == pcid)
            return &p->park[i];
    return NULL;
}

/* A free place, or that of the address space that was left first. */
static struct pcid_park *place(struct pcids *p)
{
    struct pcid_park *oldest = &p->park[0];
    for (unsigned i = 0; i < PCID_PARKS; i++) {
        if (!p->park[i].used)
            return &p->park[i];
        if (p->park[i].stamp < oldest->stamp)
            oldest = &p->park[i];
    }
    return oldest;
}

bool pcid_take_cr3(struct vcpu *v)
{
    struct pcids *p = &v->priv->pcids;
    uint64_t had = p->root;
    p->current = pcid_of_cr3(v);
    p->root = v->c.cr3 & PAGE_MASK;
    return p->root == had;
}

void pcid_leave(struct vcpu *v)
{
    struct vcpu_priv *p = v->priv;
    struct pcid_park *k = place(&p->pcids);
    k->used = true;
    k->pcid = p->pcids.current;
    k->root = p->pcids.root;
    k->generation = p->generation;
    k->stamp = ++p->pcids.stamp;
    softtlb_park(&v->tlb[0], &k->tlb[0]);
    softtlb_park(&v->tlb[1], &k->tlb[1]);
    vcpu_jc_park(v, k);
}

void pcid_enter(struct vcpu *v, bool keep)
{
    struct vcpu_priv *p = v->priv;
    pcid_take_cr3(v);
    struct pcid_park *k = find(&p->pcids, p->pcids.current);
    bool same = k && k->root == p->pcids.root;
    if (k)
        k->used = false;
    if (!same || !keep) {
        p->generation = ++p->last_generation;
        v->stats->pcid_lost += keep;
        return;
    }
    p->generation = k->generation;
    softtlb_unpark(&v->tlb[0], &k->tlb[0]);
    softtlb_unpark(&v->tlb[1], &k->tlb[1]);
    vcpu_jc_unpark(v, k);
    v->stats->pcid_kept++;
}

void pcid_forget(struct vcpu *v, uint16_t pcid)
{
    struct pcid_park *k = find(&v->priv->pcids, pcid);
    if (k)
        k->used = false;
}

void pcid_forget_all(struct vcpu *v)
{
    for (unsigned i = 0; i < PCID_PARKS; i++)
        v->priv->pcids.park[i].used = false;
}

void pcid_protect(struct vcpu *v, const uint8_t *host_page)
{
    for (unsigned i = 0; i < PCID_PARKS; i++) {
        struct pcid_park *k = &v->priv->pcids.park[i];
        if (!k->used)
            continue;
        softtlb_park_protect(&k->tlb[0], host_page);
        softtlb_park_protect(&k->tlb[1], host_page);
    }
}

void pcid_drop_blocks(struct vcpu *v)
{
    for (unsigned i = 0; i < PCID_PARKS; i++)
        v->priv->pcids.park[i].jc.n = 0;
}
