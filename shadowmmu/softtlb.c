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

static unsigned half(uint64_t lin) { return lin >> 63 || (!(lin >> 32) && lin >> 31); }

static void empty_lists(struct softtlb *t)
{
    forget_stack(t);
    t->fleeting.n = t->lasting.n = 0;
    t->large = (struct stlb_large){{0}, {0}};
}

void softtlb_init(struct softtlb *t)
{
    /* A tag of 0 is that of page 0: of another index everywhere else, but also one past the end of the address space. */
    drop(t, 0);
    drop(t, STLB_SIZE - 1);
    empty_lists(t);
}

static void drop_all(struct softtlb *t, const struct stlb_list *l)
{
    for (unsigned k = 0; k < l->n; k++)
        drop(t, l->at[k]);
}

void softtlb_flush_all(struct softtlb *t)
{
    drop_all(t, &t->fleeting);
    drop_all(t, &t->lasting);
    empty_lists(t);
}

void softtlb_flush_nonglobal(struct softtlb *t)
{
    forget_stack(t);
    for (unsigned k = 0; k < t->fleeting.n; k++)
        if (!is_global(t, t->fleeting.at[k]))
            drop(t, t->fleeting.at[k]);
    t->fleeting.n = 0;
}

static void enlist(struct softtlb *t, unsigned i, bool global)
{
    struct stlb_list *l = global ? &t->lasting : &t->fleeting;
    if (l->n == STLB_LISTED)
        softtlb_flush_all(t);
    l->at[l->n++] = (uint16_t)i;
}

void softtlb_fill(struct softtlb *t, uint64_t lin, const uint8_t *host_page, uint64_t page_bytes, bool write,
                  bool global)
{
    unsigned i = stlb_index(lin);
    uint64_t bit = 1ull << (i % 64);
    forget_stack(t);
    if (!is_filled(t, i) || is_global(t, i) != global)
        enlist(t, i, global);
    t->tag_r[i] = -(int64_t)PAGE(lin);
    t->tag_w[i] = write ? -(int64_t)PAGE(lin) : never_tag(i);
    t->addend[i] = (uint64_t)(uintptr_t)host_page - PAGE(lin);
    t->global[i / 64] = global ? t->global[i / 64] | bit : t->global[i / 64] & ~bit;
    if (page_bytes > 4u << 20)
        t->large.giga[half(lin)] |= 1ull << (lin >> 30 & 63);
    else if (page_bytes > 4096)
        t->large.mega[half(lin)] |= 1ull << (lin >> 21 & 63) | 1ull
                                                                   << ((lin >> 21 & 63) ^ 1); /* 4 MiB pages have two */
}

/* One page again and again must not fill the list. */
static void delist_last(struct stlb_list *l, unsigned i)
{
    if (l->n && l->at[l->n - 1] == i)
        l->n--;
}

static void drop_large(struct softtlb *t, struct stlb_list *l, uint64_t lin, unsigned shift)
{
    unsigned kept = 0;
    for (unsigned k = 0; k < l->n; k++) {
        unsigned i = l->at[k];
        if (!is_filled(t, i))
            continue;
        if (((uint64_t)-t->tag_r[i] ^ lin) >> shift == 0)
            drop(t, i);
        else
            l->at[kept++] = (uint16_t)i;
    }
    l->n = kept;
}

void softtlb_flush_page(struct softtlb *t, uint64_t lin)
{
    unsigned i = stlb_index(lin);
    forget_stack(t);
    if (t->tag_r[i] == -(int64_t)PAGE(lin)) {
        drop(t, i);
        delist_last(is_global(t, i) ? &t->lasting : &t->fleeting, i);
    }
    bool giga = t->large.giga[half(lin)] >> (lin >> 30 & 63) & 1,
         mega = t->large.mega[half(lin)] >> (lin >> 21 & 63) & 1;
    if (!giga && !mega)
        return;
    drop_large(t, &t->fleeting, lin, giga ? 30 : 22);
    drop_large(t, &t->lasting, lin, giga ? 30 : 22);
}

static void protect_listed(struct softtlb *t, const struct stlb_list *l, const uint8_t *host_page)
{
    for (unsigned k = 0; k < l->n; k++) {
        unsigned i = l->at[k];
        if (page_at(t, i) + t->addend[i] == (uintptr_t)host_page)
            t->tag_w[i] = never_tag(i);
    }
}

void softtlb_protect(struct softtlb *t, const uint8_t *host_page)
{
    forget_stack(t);
    protect_listed(t, &t->fleeting, host_page);
    protect_listed(t, &t->lasting, host_page);
}

void softtlb_park(struct softtlb *t, struct stlb_park *park)
{
    park->n = 0;
    park->large = t->large;
    for (unsigned k = t->fleeting.n; k-- > 0 && park->n < STLB_PARKED;) {
        unsigned i = t->fleeting.at[k];
        if (!is_filled(t, i) || is_global(t, i))
            continue;
        park->entry[park->n].tag_r = t->tag_r[i];
        park->entry[park->n].tag_w = t->tag_w[i];
        park->entry[park->n++].addend = t->addend[i];
        drop(t, i); /* it may be listed twice */
    }
    softtlb_flush_nonglobal(t);
}

void softtlb_unpark(struct softtlb *t, struct stlb_park *park)
{
    forget_stack(t);
    for (unsigned k = park->n; k-- > 0;) { /* the first is the one made last */
        unsigned i = stlb_index((uint64_t)-park->entry[k].tag_r);
        if (is_filled(t, i))
            continue;
        t->tag_r[i] = park->entry[k].tag_r;
        t->tag_w[i] = park->entry[k].tag_w;
        t->addend[i] = park->entry[k].addend;
        t->global[i / 64] &= ~(1ull << (i % 64));
        enlist(t, i, false);
    }
    for (unsigned h = 0; h < 2; h++) {
        t->large.mega[h] |= park->large.mega[h];
        t->large.giga[h] |= park->large.giga[h];
    }
    park->n = 0;
}

void softtlb_park_protect(struct stlb_park *park, const uint8_t *host_page)
{
    for (unsigned k = 0; k < park->n; k++) {
        uint64_t lin = (uint64_t)-park->entry[k].tag_r;
        if (lin + park->entry[k].addend == (uintptr_t)host_page)
            park->entry[k].tag_w = never_tag(stlb_index(lin));
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

void softtlb_park_each(const struct stlb_park *park,
                       void (*f)(void *opaque, uint64_t lin, const uint8_t *host, bool write, bool global),
                       void *opaque)
{
    for (unsigned k = 0; k < park->n; k++) {
        uint64_t lin = (uint64_t)-park->entry[k].tag_r;
        f(opaque, lin, (const uint8_t *)(uintptr_t)(lin + park->entry[k].addend),
          park->entry[k].tag_w == park->entry[k].tag_r, false);
    }
}
