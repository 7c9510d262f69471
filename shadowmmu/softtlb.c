/* shadowmmu/softtlb.c - see softtlb.h. nofpu. */
#include "shadowmmu/softtlb.h"

#define PAGE(lin) ((lin) & ~0xfffull)

/* MINUS a page that has another index, and is not the neighbour that a page-crossing access could reach. */
static inline int64_t never_tag(unsigned i) { return -(int64_t)(((uint64_t)(i ^ (STLB_SIZE / 2))) << 12); }

static void drop(struct softtlb *t, unsigned i)
{
    t->tag_r[i] = t->tag_w[i] = never_tag(i);
    t->gpa[i] = ~0ull;
}

void softtlb_flush_all(struct softtlb *t)
{
    for (unsigned i = 0; i < STLB_SIZE; i++)
        drop(t, i);
    t->n_ng = 0;
    t->large = 0;
    t->huge = false;
}

void softtlb_init(struct softtlb *t)
{
    for (unsigned i = 0; i < STLB_SIZE; i++)
        t->addend[i] = 0;
    softtlb_flush_all(t);
}

void softtlb_fill(struct softtlb *t, uint64_t lin, uint64_t gpa, uint8_t *host_page, uint64_t page_bytes, bool write,
                  bool global)
{
    unsigned i = stlb_index(lin);
    t->tag_r[i] = -(int64_t)PAGE(lin);
    t->tag_w[i] = write ? -(int64_t)PAGE(lin) : never_tag(i);
    t->addend[i] = (uint64_t)(uintptr_t)host_page - PAGE(lin);
    t->gpa[i] = PAGE(gpa);
    if (page_bytes > 4096) {
        t->large |= 1ull << (lin >> 21 & 63) | 1ull << ((lin >> 21 & 63) ^ 1); /* 4 MiB pages have two */
        t->huge |= page_bytes > 4u << 20;
    }
    if (!global) {
        if (t->n_ng < STLB_NG_MAX)
            t->ng[t->n_ng++] = (uint16_t)i;
        else
            t->n_ng = STLB_NG_MAX + 1;
    }
}

void softtlb_flush_nonglobal(struct softtlb *t)
{
    if (t->n_ng > STLB_NG_MAX) {
        softtlb_flush_all(t);
        return;
    }
    for (unsigned k = 0; k < t->n_ng; k++)
        drop(t, t->ng[k]);
    t->n_ng = 0;
}

void softtlb_flush_page(struct softtlb *t, uint64_t lin)
{
    unsigned i = stlb_index(lin), shift = t->huge ? 30 : 22;
    if (t->tag_r[i] == -(int64_t)PAGE(lin))
        drop(t, i);
    if (!t->huge && !(t->large >> (lin >> 21 & 63) & 1))
        return;
    for (i = 0; i < STLB_SIZE; i++)
        if (((uint64_t)-t->tag_r[i] ^ lin) >> shift == 0)
            drop(t, i);
}

void softtlb_protect_gpa(struct softtlb *t, uint64_t gpa)
{
    for (unsigned i = 0; i < STLB_SIZE; i++)
        if (t->gpa[i] == PAGE(gpa))
            t->tag_w[i] = never_tag(i);
}
