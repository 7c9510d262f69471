/* monitor/pttrace.c - see pttrace.h. nofpu. */
#include "monitor/pttrace.h"
#include "base/err.h"
#include "monitor/vm_int.h"
#include "shadowmmu/hostcall.h"
#include <sys/mman.h>

#define MAX 16384u
#define HASH 4096u
#define NONE 0xffffu

struct table {
    uint64_t gpa, lin; /* lin: of its first entry */
    uint16_t next;
    uint8_t shift; /* an entry stands for 1 << shift bytes */
    bool keep;     /* global translations come from it */
    bool many;     /* part of several address ranges, or of several levels */
};
struct pttrace {
    unsigned n;
    uint16_t head[HASH];
    struct table t[MAX];
};

static unsigned slot(uint64_t gpa) { return (unsigned)((gpa >> 12) * 0x9e3779b97f4a7c15ull >> 52); }

static void forget_all(struct pttrace *p)
{
    p->n = 0;
    for (unsigned i = 0; i < HASH; i++)
        p->head[i] = NONE;
}

int pttrace_create(struct pttrace **out)
{
    int64_t at = host_mmap(0, sizeof **out, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (host_mmap_failed(at))
        return -RD_E_NOMEM;
    *out = (struct pttrace *)(uintptr_t)at;
    forget_all(*out);
    return 0;
}

void pttrace_destroy(struct pttrace *t)
{
    if (t)
        host_munmap((uint64_t)(uintptr_t)t, sizeof *t);
}

static struct table *find(struct pttrace *p, uint64_t gpa)
{
    unsigned i = p->head[slot(gpa)];
    while (i != NONE && p->t[i].gpa != gpa)
        i = p->t[i].next;
    return i == NONE ? NULL : &p->t[i];
}

static uint16_t *link_to(struct pttrace *p, unsigned i)
{
    uint16_t *at = &p->head[slot(p->t[i].gpa)];
    while (*at != i)
        at = &p->t[*at].next;
    return at;
}

static void untrace(struct vcpu *v, unsigned i)
{
    struct pttrace *p = v->pttrace;
    *gpmem_page_flags(v->mem, p->t[i].gpa) &= (uint8_t)~GP_PT;
    *link_to(p, i) = p->t[i].next;
    unsigned last = --p->n;
    if (i == last)
        return;
    *link_to(p, last) = (uint16_t)i;
    p->t[i] = p->t[last];
}

void pttrace_flush(struct vcpu *v, bool global_too)
{
    struct pttrace *p = v->pttrace;
    for (unsigned i = p ? p->n : 0; i-- > 0;)
        if (global_too || !p->t[i].keep)
            untrace(v, i);
}

static void note(struct vcpu *v, uint64_t gpa, uint64_t lin, unsigned shift, bool keep)
{
    struct pttrace *p = v->pttrace;
    struct table *t = find(p, gpa);
    lin &= ~(((uint64_t)PAGE_SIZE / cpu_pte_bytes(&v->c) << shift) - 1);
    if (t) {
        t->keep |= keep;
        t->many |= t->lin != lin || t->shift != shift;
        return;
    }
    if (!gpmem_page_flags(v->mem, gpa))
        return;
    if (p->n == MAX)
        vcpu_mmu_flush(v, MMU_FLUSH_ALL);
    p->t[p->n] =
        (struct table){.gpa = gpa, .lin = lin, .next = p->head[slot(gpa)], .shift = (uint8_t)shift, .keep = keep};
    p->head[slot(gpa)] = (uint16_t)p->n++;
    v->stats->trap_pt_traced++;
    vcpu_trace_page(v, gpa, GP_PT);
}

void pttrace_note(struct vcpu *v, uint64_t lin, const struct pt_result *r)
{
    if (!v->pttrace || !r->n_tables)
        return;
    unsigned shift = (unsigned)__builtin_ctzll(r->page_bytes), bits = cpu_pte_bytes(&v->c) == 8 ? 9 : 10;
    /* The root goes with its address space, whatever its entries lead to: it is found again at the next walk. */
    for (unsigned k = r->n_tables; k-- > 0; shift += bits)
        note(v, r->table_gpa[k], lin, shift, r->global && k);
}

/* The entry's translations leave the shadow. Upper entries change seldom. */
static void drop(struct vcpu *v, uint64_t lin, unsigned shift)
{
    struct window *w[2] = {v->priv->win64, v->priv->win32};
    for (unsigned i = 0; i < 2 && shift > 12; i++)
        for (uint64_t at = lin; at < lin + (1ull << shift); at += PAGE_SIZE)
            if (window_has(w[i], at, false))
                window_invalidate(w[i], at);
    vcpu_mmu_invlpg(v, lin);
}

void pttrace_written(struct vcpu *v, uint64_t gpa, unsigned bytes)
{
    struct table *t = v->pttrace ? find(v->pttrace, gpa & PAGE_MASK) : NULL;
    if (!t)
        return;
    v->stats->trap_pt_writes++;
    unsigned size = cpu_pte_bytes(&v->c), first = (gpa & 0xfff) / size, last = ((gpa & 0xfff) + bytes - 1) / size,
             shift = t->shift;
    uint64_t lin = t->lin;
    if (t->many || shift > 22) {
        vcpu_mmu_flush(v, t->many || (int64_t)lin < 0 ? MMU_FLUSH_ALL : MMU_FLUSH_NONGLOBAL);
        return;
    }
    for (unsigned i = first; i <= last; i++)
        drop(v, lin + ((uint64_t)i << shift), shift);
}
