/* shadowmmu/softtlb.c - see softtlb.h. nofpu. */
#include "shadowmmu/softtlb.h"

#define PAGE(lin) ((lin) & ~0xfffull)

/* MINUS a page that has another index, and is not the neighbour that a page-crossing access could reach. */
static inline int64_t never_tag(unsigned i) { return -(int64_t)(((uint64_t)(i ^ (STLB_SIZE / 2))) << 12); }
static inline bool is_global(const struct softtlb *t, unsigned i) { return t->global[i / 64] >> (i % 64) & 1; }

/* A read tag is there whenever a write tag is. */
static inline uint64_t page_at(const struct softtlb *t, unsigned i) { return (uint64_t)-t->tag_r[i]; }
static inline bool is_filled(const struct softtlb *t, unsigned i) { return stlb_index(page_at(t, i)) == i; }

static void forget_stack(struct softtlb *t) { t->stack_r = t->stack_w = (struct stlb_stack){STLB_STACK_NONE, 0}; }
static void drop(struct softtlb *t, unsigned i) { t->tag_r[i] = t->tag_w[i] = never_tag(i); }

void softtlb_init(struct softtlb *t)
{
    /* A tag of 0 is that of page 0: of another index everywhere else, but also one past the end of the address space. */
    drop(t, 0);
    drop(t, STLB_SIZE - 1);
    forget_stack(t);
    t->n_listed = 0;
    t->large = 0;
    t->huge = false;
}

void softtlb_flush_all(struct softtlb *t)
{
    for (unsigned k = 0; k < t->n_listed; k++)
        drop(t, t->listed[k]);
    forget_stack(t);
    t->n_listed = 0;
    t->large = 0;
    t->huge = false;
}

void softtlb_flush_nonglobal(struct softtlb *t)
{
    unsigned kept = 0;
    forget_stack(t);
    for (unsigned k = 0; k < t->n_listed; k++) {
        unsigned i = t->listed[k];
        if (!is_filled(t, i))
            continue;
        if (is_global(t, i))
            t->listed[kept++] = (uint16_t)i;
        else
            drop(t, i);
    }
    t->n_listed = kept;
}

void softtlb_fill(struct softtlb *t, uint64_t lin, const uint8_t *host_page, uint64_t page_bytes, bool write,
                  bool global)
{
    unsigned i = stlb_index(lin);
    uint64_t bit = 1ull << (i % 64);
    forget_stack(t);
    if (!is_filled(t, i)) {
        if (t->n_listed == STLB_LISTED)
            softtlb_flush_all(t);
        t->listed[t->n_listed++] = (uint16_t)i;
    }
    t->tag_r[i] = -(int64_t)PAGE(lin);
    t->tag_w[i] = write ? -(int64_t)PAGE(lin) : never_tag(i);
    t->addend[i] = (uint64_t)(uintptr_t)host_page - PAGE(lin);
    t->global[i / 64] = global ? t->global[i / 64] | bit : t->global[i / 64] & ~bit;
    if (page_bytes > 4096) {
        t->large |= 1ull << (lin >> 21 & 63) | 1ull << ((lin >> 21 & 63) ^ 1); /* 4 MiB pages have two */
        t->huge |= page_bytes > 4u << 20;
    }
}

void softtlb_flush_page(struct softtlb *t, uint64_t lin)
{
    unsigned i = stlb_index(lin), shift = t->huge ? 30 : 22, kept = 0;
    forget_stack(t);
    if (t->tag_r[i] == -(int64_t)PAGE(lin)) {
        drop(t, i);
        if (t->n_listed && t->listed[t->n_listed - 1] == i) /* one page again and again must not fill the list */
            t->n_listed--;
    }
    if (!t->huge && !(t->large >> (lin >> 21 & 63) & 1))
        return;
    for (unsigned k = 0; k < t->n_listed; k++) {
        i = t->listed[k];
        if (!is_filled(t, i))
            continue;
        if (((uint64_t)-t->tag_r[i] ^ lin) >> shift == 0)
            drop(t, i);
        else
            t->listed[kept++] = (uint16_t)i;
    }
    t->n_listed = kept;
}

void softtlb_protect(struct softtlb *t, const uint8_t *host_page)
{
    forget_stack(t);
    for (unsigned k = 0; k < t->n_listed; k++) {
        unsigned i = t->listed[k];
        if (page_at(t, i) + t->addend[i] == (uintptr_t)host_page)
            t->tag_w[i] = never_tag(i);
    }
}

typedef void entry_fn(void *opaque, uint64_t lin, const uint8_t *host, bool write, bool global);

static void each_stack(const struct softtlb *t, const struct stlb_stack *s, bool write, entry_fn *f, void *opaque)
{
    uint64_t lin = PAGE((uint64_t)-s->tag);
    if (s->tag != STLB_STACK_NONE)
        f(opaque, lin, (const uint8_t *)(uintptr_t)(lin + s->addend), write, is_global(t, stlb_index(lin)));
}

void softtlb_each(const struct softtlb *t,
                  void (*f)(void *opaque, uint64_t lin, const uint8_t *host, bool write, bool global), void *opaque)
{
    for (unsigned i = 0; i < STLB_SIZE; i++) {
        uint64_t r = page_at(t, i), w = (uint64_t)-t->tag_w[i];
        bool rd = stlb_index(r) == i, wr = stlb_index(w) == i;
        if (rd)
            f(opaque, r, (const uint8_t *)(uintptr_t)(r + t->addend[i]), wr && r == w, is_global(t, i));
        if (wr && (!rd || r != w))
            f(opaque, w, (const uint8_t *)(uintptr_t)(w + t->addend[i]), true, is_global(t, i));
    }
    each_stack(t, &t->stack_r, false, f, opaque);
    each_stack(t, &t->stack_w, true, f, opaque);
}
