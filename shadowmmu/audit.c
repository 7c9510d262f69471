/* shadowmmu/audit.c - see audit.h. nofpu.
 *
 * The walk here is on purpose not ptwalk.c's: it shares no line with what it is to find wrong.
 * Flushes are numbered. A record bears the number of the flush before it, so later flushes have larger ones; for INVLPG, numbers
 * are kept by page in each of the page sizes, since INVLPG of any address in a page removes all of it (SDM 3A 4.10.4.1).
 */
#define _GNU_SOURCE
#include "shadowmmu/audit.h"
#include "base/err.h"
#include "shadowmmu/hostcall.h"
#include "shadowmmu/ptwalk.h"
#include <sys/mman.h>

#define RECORD_BITS 17
#define RECORDS (1u << RECORD_BITS)
#define EVENT_BITS 15
#define EVENTS (1u << EVENT_BITS)
#define SMALL 12u
#define LARGE 21u /* the windows enter larger pages by 2 MiB */

struct record {
    uint64_t page;   /* linear address, multiple of 1 << shift */
    uint64_t gpa;    /* of its first byte */
    uint64_t serial; /* when it was entered; 0 = free */
    uint32_t mode;
    uint8_t where, shift, page_shift; /* size of the record; of the guest's page */
    bool write, global, seen;
    uint16_t pcid; /* NO_PCID if it is global */
};
/* The last INVLPG of a page of this size, in this context or (NO_PCID) in any. */
struct event {
    uint64_t page, serial;
    unsigned shift; /* 0 = free */
    uint16_t pcid;
};
#define NO_PCID AUDIT_PCIDS
struct audit {
    struct gpmem *mem;
    uint64_t serial, fills;
    uint64_t flushed_all, flushed_nonglobal[AUDIT_PCIDS];
    uint16_t pcid; /* current */
    enum audit_flush last;
    uint64_t last_lin;
    unsigned n_records, n_events;
    bool compacting, violated;
    struct audit_violation violation;
    struct event event[EVENTS];
    struct record record[RECORDS];
};

/* What the guest's tables say. */
struct path {
    unsigned n;
    uint64_t gpa[AUDIT_LEVELS], pte[AUDIT_LEVELS];
    bool present, w, u, nx, a, leaf_a, d, g;
    unsigned shift; /* of the page */
    uint64_t frame; /* guest physical address of lin's 4 KiB page */
};

const char *audit_where_text(enum audit_where w)
{
    static const char *const text[] = {
#define X(name, text) text,
        AUDIT_WHERES(X)
#undef X
    };
    return text[w];
}

const char *audit_rule_text(enum audit_rule r)
{
    static const char *const text[] = {"",
#define X(name, text) text,
                                       AUDIT_RULES(X)
#undef X
    };
    return text[r];
}

int audit_create(struct audit **out, struct gpmem *mem)
{
    int64_t p = host_mmap(0, sizeof(struct audit), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (host_mmap_failed(p))
        return -RD_E_NOMEM;
    *out = (struct audit *)(uintptr_t)p;
    (*out)->mem = mem;
    (*out)->serial = 1;
    return 0;
}

void audit_destroy(struct audit *a)
{
    if (a)
        host_munmap((uint64_t)(uintptr_t)a, sizeof *a);
}

const struct audit_violation *audit_violation(const struct audit *a) { return a->violated ? &a->violation : NULL; }
uint64_t audit_fills(const struct audit *a) { return a->fills; }

/* ---- the tables ---- */

#define PHYS_MASK ((1ull << GUEST_MAXPHYADDR) - 0x1000)

/* Reserved in an entry of an 8-byte format; address bits of large pages apart (SDM 3A tables 4-8 ff.). */
static uint64_t reserved_bits(const struct cpu *c)
{
    uint64_t r = cpu_long_mode(c) ? 0x000fffffffffffffull : 0x7fffffffffffffffull;
    r &= ~((1ull << GUEST_MAXPHYADDR) - 1);
    return c->efer & EFER_NXE ? r : r | PTE_NX;
}

static bool is_leaf(const struct cpu *c, unsigned level, uint64_t e)
{
    if (level == 0)
        return true;
    if (!(e & PTE_PS) || level == 3)
        return false;
    return (c->cr4 & CR4_PAE) || (c->cr4 & CR4_PSE);
}

static void leaf(const struct cpu *c, uint64_t lin, uint64_t e, struct path *p)
{
    bool pae = c->cr4 & CR4_PAE;
    uint64_t within = (1ull << p->shift) - 1, base = pae ? e & PHYS_MASK : e & 0xfffff000u;
    if (!pae && p->shift > SMALL) /* PSE-36 */
        base = (e & 0xffc00000u) | (e >> 13 & 0xff) << 32;
    p->present = p->shift == SMALL || !pae || !(base & within & ~0x1fffull);
    p->frame = (base & ~within) | (lin & within & PAGE_MASK);
    p->d = e & PTE_D;
    p->leaf_a = e & PTE_A;
    p->g = (e & PTE_G) && (c->cr4 & CR4_PGE);
}

static void walk(struct audit *a, const struct cpu *c, uint64_t lin, struct path *p)
{
    bool pae = c->cr4 & CR4_PAE, lma = cpu_long_mode(c);
    unsigned bits = pae ? 9 : 10, level = lma ? 3 : 1;
    *p = (struct path){.w = true, .u = true, .a = true};
    if (!(c->cr0 & CR0_PG)) {
        *p = (struct path){.present = true, .w = true, .u = true, .a = true, .d = true, .g = true, .shift = 30};
        p->frame = lin & 0xfffff000u;
        return;
    }
    if (!lma)
        lin &= 0xffffffffu;
    uint64_t table = pae && !lma ? c->pdpte[lin >> 30 & 3] : c->cr3;
    if (pae && !lma && !(table & PTE_P))
        return;
    for (;; level--) {
        p->shift = SMALL + level * bits;
        uint64_t index = lin >> p->shift & ((1u << bits) - 1);
        uint64_t at = (table & (pae ? PHYS_MASK : 0xfffff000u)) + index * (pae ? 8 : 4);
        const uint8_t *host = gpmem_ptr(a->mem, at);
        uint64_t e = pae ? ~0ull : 0xffffffffu;
        if (host)
            e = pae ? *(const volatile uint64_t *)host : *(const volatile uint32_t *)host;
        p->gpa[p->n] = at;
        p->pte[p->n++] = e;
        if (!(e & PTE_P) || (pae && (e & reserved_bits(c))) || (level == 3 && (e & PTE_PS)))
            return;
        p->w &= (e & PTE_W) != 0;
        p->u &= (e & PTE_U) != 0;
        p->nx |= pae && (e & PTE_NX);
        const struct gpmem_slot *s = gpmem_find(a->mem, at);
        p->a &= (e & PTE_A) || !s || s->rom; /* where nothing can be written, nothing is */
        if (is_leaf(c, level, e)) {
            leaf(c, lin, e, p);
            p->d |= !s || s->rom;
            p->leaf_a |= !s || s->rom;
            return;
        }
        table = e;
    }
}

/* The bits that decide what an entry means; a change of any must flush. */
static uint32_t mode_of(const struct cpu *c)
{
    uint32_t cr4 = (uint32_t)c->cr4 & (CR4_PSE | CR4_PAE | CR4_PGE | CR4_SMAP);
    return (uint32_t)(c->cr0 & (CR0_PG | CR0_WP)) | cr4 | (uint32_t)(c->efer & (EFER_NXE | EFER_LMA));
}

/* ---- violations ---- */

void audit_blame(struct audit *a, const struct cpu *c, enum audit_where where, enum audit_rule rule,
                 const struct audit_entry *e)
{
    struct path p;
    struct audit_violation *v = &a->violation;
    if (a->violated)
        return;
    walk(a, c, e->lin, &p);
    *v = (struct audit_violation){.rule = rule, .where = where, .entry = *e, .levels = p.n};
    for (unsigned i = 0; i < p.n; i++) {
        v->pte_gpa[i] = p.gpa[i];
        v->pte[i] = p.pte[i];
    }
    v->flush = a->last;
    v->flush_lin = a->last_lin;
    v->serial = a->serial;
    a->violated = true;
}

static bool blame(struct audit *a, const struct cpu *c, enum audit_where where, enum audit_rule rule,
                  const struct audit_entry *e, uint64_t entered)
{
    bool first = !a->violated;
    audit_blame(a, c, where, rule, e);
    if (first)
        a->violation.entered = entered;
    return false;
}

/* ---- the model ---- */

static unsigned record_slot(enum audit_where where, uint16_t pcid, uint64_t page, unsigned shift)
{
    return (unsigned)((((page >> shift) * 8 + where) * 0x9e3779b97f4a7c15ull + pcid * 0xd6e8feb86659fd93ull) >>
                      (64 - RECORD_BITS));
}

/* The record of this page, or the free one where it would go. One slot is always free. */
static struct record *find(struct audit *a, enum audit_where where, uint16_t pcid, uint64_t page, unsigned shift)
{
    unsigned i = record_slot(where, pcid, page, shift);
    for (;; i = (i + 1) & (RECORDS - 1)) {
        struct record *r = &a->record[i];
        if (!r->serial || (r->page == page && r->shift == shift && r->where == where && r->pcid == pcid))
            return r;
    }
}

static struct event *find_event(struct audit *a, uint16_t pcid, uint64_t page, unsigned shift)
{
    unsigned i = (unsigned)((((page >> shift) * 4 + shift) * 0x9e3779b97f4a7c15ull + pcid * 0xd6e8feb86659fd93ull) >>
                            (64 - EVENT_BITS));
    for (;; i = (i + 1) & (EVENTS - 1)) {
        struct event *e = &a->event[i];
        if (!e->shift || (e->page == page && e->shift == shift && e->pcid == pcid))
            return e;
    }
}

bool audit_is_full(const struct audit *a) { return a->n_records > RECORDS / 4 * 3 || a->n_events > EVENTS / 4 * 3; }

static void note_event(struct audit *a, uint16_t pcid, uint64_t lin)
{
    static const uint8_t size[] = {12, 21, 22, 30};
    for (unsigned i = 0; i < 4 && a->n_events < EVENTS - 4; i++) {
        uint64_t page = lin >> size[i] << size[i];
        struct event *e = find_event(a, pcid, page, size[i]);
        a->n_events += !e->shift;
        *e = (struct event){page, a->serial, size[i], pcid};
    }
}

void audit_flush(struct audit *a, enum audit_flush what, uint64_t lin)
{
    a->last = what;
    a->last_lin = lin;
    a->serial++;
    if (what == AUDIT_FLUSH_ALL)
        a->flushed_all = a->serial;
    else if (what == AUDIT_FLUSH_NONGLOBAL)
        a->flushed_nonglobal[a->pcid] = a->serial;
    if (what != AUDIT_FLUSH_PAGE)
        return;
    note_event(a, a->pcid, lin);
    note_event(a, NO_PCID, lin);
}

void audit_switch(struct audit *a, uint16_t pcid) { a->pcid = pcid; }

void audit_flush_pcid(struct audit *a, uint16_t pcid)
{
    a->last = AUDIT_FLUSH_NONGLOBAL;
    a->serial++;
    for (unsigned i = 0; i < AUDIT_PCIDS; i++)
        if (i == pcid || pcid == AUDIT_PCIDS)
            a->flushed_nonglobal[i] = a->serial;
}

/* Has a flush covered the record? */
static bool is_flushed(struct audit *a, const struct record *r)
{
    if (r->serial < a->flushed_all || (!r->global && r->serial < a->flushed_nonglobal[r->pcid]))
        return true;
    const struct event *e = find_event(a, r->pcid, r->page >> r->page_shift << r->page_shift, r->page_shift);
    return e->shift && e->serial > r->serial;
}

static enum audit_rule allowed(const struct cpu *c, enum audit_where where, const struct path *p,
                               const struct audit_entry *e)
{
    bool user = where == AUDIT_TLB_USER || where == AUDIT_WORLD || (where == AUDIT_FETCH && c->cpl == 3);
    bool window = where == AUDIT_WIN64 || where == AUDIT_WIN32;
    if (!p->present)
        return AUDIT_FILL_ABSENT;
    if (p->frame != e->gpa)
        return AUDIT_FILL_FRAME;
    if (user && !p->u)
        return AUDIT_FILL_USER;
    if (e->exec && !user && p->u && (c->cr0 & CR0_PG) && (c->cr4 & CR4_SMEP))
        return AUDIT_FILL_USER;
    if ((c->cr0 & CR0_PG) && p->u && (window || (where == AUDIT_TLB_SUPER && (c->cr4 & CR4_SMAP))))
        return AUDIT_FILL_USER;
    if (e->write && (!p->d || (!p->w && (user || (c->cr0 & CR0_WP)))))
        return AUDIT_FILL_WRITE;
    if (e->global && !p->g)
        return AUDIT_FILL_GLOBAL;
    if (e->exec && p->nx)
        return AUDIT_FILL_NX;
    /* Worlds are compared entry by entry of the last level only. */
    return (where == AUDIT_WORLD ? p->leaf_a : p->a) ? AUDIT_OK : AUDIT_FILL_ACCESSED;
}

static enum audit_rule frame_rule(struct audit *a, const struct audit_entry *e)
{
    const struct gpmem_slot *s = gpmem_find(a->mem, e->gpa);
    if (!s)
        return AUDIT_NO_MEMORY;
    bool kept = s->rom || (s->flags[(e->gpa - s->gpa) >> 12] & GP_TRACED_MASK);
    return e->write && kept ? AUDIT_TRACED : AUDIT_OK;
}

bool audit_compare(struct audit *a, const struct cpu *c, enum audit_where where, const struct audit_entry *e)
{
    struct path p;
    walk(a, c, e->lin, &p);
    enum audit_rule rule = allowed(c, where, &p, e);
    if (rule == AUDIT_OK)
        rule = frame_rule(a, e);
    return rule == AUDIT_OK || blame(a, c, where, rule, e, a->serial);
}

bool audit_fill(struct audit *a, const struct cpu *c, enum audit_where where, const struct audit_entry *e)
{
    struct path p;
    walk(a, c, e->lin, &p);
    a->fills++;
    enum audit_rule rule = allowed(c, where, &p, e);
    if (rule != AUDIT_OK)
        return blame(a, c, where, rule, e, a->serial);
    bool window = where == AUDIT_WIN64 || where == AUDIT_WIN32;
    unsigned shift = window && p.shift >= LARGE ? LARGE : SMALL;
    uint64_t page = e->lin >> shift << shift;
    uint16_t pcid = p.g ? NO_PCID : e->pcid;
    struct record *r = find(a, where, pcid, page, shift);
    if (!r->serial && a->n_records < RECORDS - 1)
        a->n_records++;
    else if (!r->serial) /* nobody compacted: leave what does not fit unchecked rather than call it unknown */
        return true;
    uint64_t gpa = p.frame - ((e->lin & PAGE_MASK) - page);
    /* A large page is entered with all of the guest's rights: which pieces the window made writable is not the guest's affair. */
    bool write = e->write || (shift == LARGE && p.d && (p.w || !(c->cr0 & CR0_WP)));
    *r = (struct record){page,  gpa, a->serial, mode_of(c), (uint8_t)where, (uint8_t)shift, (uint8_t)p.shift,
                         write, p.g, true,      pcid};
    return true;
}

/* Does record r allow entry e? */
static enum audit_rule allows(struct audit *a, const struct cpu *c, struct record *r, const struct audit_entry *e)
{
    if (!r->serial)
        return AUDIT_UNKNOWN;
    if (is_flushed(a, r))
        return AUDIT_FLUSHED;
    if (r->mode != mode_of(c))
        return AUDIT_MODE;
    if (r->gpa + (e->lin - r->page) != e->gpa)
        return AUDIT_FRAME;
    if (e->write && !r->write)
        return AUDIT_WRITE;
    r->seen = true;
    return AUDIT_OK;
}

bool audit_check(struct audit *a, const struct cpu *c, enum audit_where where, const struct audit_entry *e)
{
    /* A structure may take a global page for one of this address space only; and a large page may have been cut to pieces. */
    const uint16_t pcid[] = {e->pcid, NO_PCID};
    static const uint8_t shift[] = {SMALL, LARGE};
    enum audit_rule rule = AUDIT_UNKNOWN;
    uint64_t entered = 0;
    bool full = a->n_records >= RECORDS - 1 || a->n_events >= EVENTS - 4;
    for (unsigned i = 0; i < 4; i++) {
        struct record *r = find(a, where, pcid[i / 2], e->lin >> shift[i % 2] << shift[i % 2], shift[i % 2]);
        enum audit_rule other = allows(a, c, r, e);
        if (rule == AUDIT_UNKNOWN || other == AUDIT_OK)
            rule = other;
        entered = entered ? entered : r->serial;
    }
    if (rule != AUDIT_OK && !full)
        return blame(a, c, where, rule, e, entered);
    rule = frame_rule(a, e);
    return rule == AUDIT_OK || blame(a, c, where, rule, e, entered);
}

void audit_compact_begin(struct audit *a)
{
    a->compacting = true;
    for (unsigned i = 0; i < RECORDS; i++)
        a->record[i].seen = false;
}

/* Everything that is left was checked against all flushes: the events may go, and what was not seen is not there any more. */
void audit_compact_end(struct audit *a)
{
    for (unsigned i = 0; i < EVENTS; i++)
        a->event[i].shift = 0;
    a->n_events = 0;
    a->compacting = false;
    /* Linear probing: drop and enter again what is kept, run by run, starting behind a free slot. */
    unsigned start = 0;
    while (a->record[start].serial)
        start++;
    a->n_records = 0;
    for (unsigned k = 1; k <= RECORDS; k++) {
        struct record *at = &a->record[(start + k) & (RECORDS - 1)], r = *at;
        if (!r.serial)
            continue;
        at->serial = 0;
        if (!r.seen)
            continue;
        *find(a, (enum audit_where)r.where, r.pcid, r.page, r.shift) = r;
        a->n_records++;
    }
}
