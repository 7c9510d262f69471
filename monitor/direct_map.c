/* monitor/direct_map.c - what user worlds have mapped, and keeping it coherent with the guest's tables by TLB rules. */
#include "base/err.h"
#include "monitor/direct_int.h"
#include "monitor/selscan.h"
#include <stdlib.h>
#include <string.h>

#define AROUND 16u
#define AROUND_CODE 4u /* looking through a page costs about as much as a fault */
#define MIN_ADDRESS 0x10000u
#define APART_LIMIT 64u
#define APART_NS 100000u
/* Decoders are in step with the code after this many bytes. */
#define RUN_UP 128u
#define INSN_MAX 15u
#define ADOPT_WRITTEN 6u
#define PTE_FRAME 0xffffffffff000ull

/* ---- what is mapped ---- */

static struct chunk *find_chunk(const struct space *s, uint64_t lin)
{
    struct chunk *c = s->chunk[lin >> CHUNK_SHIFT & (CHUNK_HASH - 1)];
    while (c && c->lin != lin >> CHUNK_SHIFT)
        c = c->next;
    return c;
}

static unsigned page_index(uint64_t lin) { return (unsigned)(lin >> PAGE_SHIFT) & (CHUNK_PAGES - 1); }

static struct chunk *make_chunk(struct space *s, uint64_t lin)
{
    struct chunk *c = find_chunk(s, lin);
    if (c)
        return c;
    c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    struct chunk **head = &s->chunk[lin >> CHUNK_SHIFT & (CHUNK_HASH - 1)];
    c->lin = lin >> CHUNK_SHIFT;
    c->table = ~0ull;
    c->next = *head;
    *head = c;
    return c;
}

void direct_forget(struct space *s)
{
    for (unsigned i = 0; i < CHUNK_HASH; i++)
        for (struct chunk *c = s->chunk[i], *next; c; c = next) {
            next = c->next;
            free(c);
        }
    memset(s->chunk, 0, sizeof s->chunk);
    s->n_invalid = 0;
    s->giant = false;
}

void direct_unmap_all(struct space *s)
{
    direct_forget(s);
    if (s->world)
        uw_unmap_all(s->world);
}

bool direct_is_careful(const struct space *s, uint64_t rip)
{
    const struct chunk *c = s->narrow ? find_chunk(s, rip) : NULL;
    return c && (c->prot[page_index(rip)] & PAGE_CAREFUL);
}

/* Code that goes to and fro between a page that runs translated and one that need not is better off translated altogether: a turn
 * costs as much as thousands of instructions. */
void direct_note_apart(struct space *s, uint64_t rip, uint64_t ns)
{
    uint8_t *n = &s->apart[rip >> PAGE_SHIFT & (APART_SLOTS - 1)];
    struct chunk *c = find_chunk(s, rip);
    *n = ns < APART_NS ? *n + 1 : 0;
    if (*n < APART_LIMIT || !c || !c->pte[page_index(rip)])
        return;
    *n = 0;
    c->prot[page_index(rip)] |= PAGE_CAREFUL;
}

static uint64_t page_lin(const struct chunk *c, unsigned page)
{
    return (c->lin << CHUNK_SHIFT) + (uint64_t)page * PAGE_SIZE;
}

static void unmap_page(struct space *s, struct chunk *c, unsigned page)
{
    if (!c->pte[page])
        return;
    uw_unmap(s->world, page_lin(c, page), PAGE_SIZE);
    c->pte[page] = 0;
    c->prot[page] = 0;
    c->pages--;
}

static void take_write_away(struct space *s, struct chunk *c, unsigned page)
{
    if (!(c->prot[page] & UW_W))
        return;
    c->prot[page] &= (uint8_t)~UW_W;
    uw_protect(s->world, page_lin(c, page), PAGE_SIZE, c->prot[page] & (UW_R | UW_X));
}

static void unmap_chunk(struct space *s, struct chunk *c)
{
    uw_unmap(s->world, c->lin << CHUNK_SHIFT, CHUNK_PAGES * PAGE_SIZE);
    memset(c->pte, 0, sizeof c->pte);
    memset(c->prot, 0, sizeof c->prot);
    c->pages = 0;
}

static uint64_t read_pte(const struct vcpu *v, uint64_t table, uint64_t lin)
{
    unsigned n = cpu_pte_bytes(&v->c);
    uint64_t index = lin >> PAGE_SHIFT & (n == 8 ? 511 : 1023);
    const uint8_t *p = gpmem_ptr(v->mem, table + index * n);
    return !p ? 0 : n == 8 ? *(const volatile uint64_t *)p : *(const volatile uint32_t *)p;
}

/* The leaf of a walk: the table that holds the entry (or ~0 for large pages) and a value that changes when the translation does. */
static uint64_t leaf_of(struct vcpu *v, uint64_t lin, const struct pt_result *r, uint64_t *table)
{
    if (r->page_bytes != PAGE_SIZE || !r->n_tables) {
        *table = ~0ull;
        return (r->gpa & ~0xfffull) | PTE_P | (r->writable ? PTE_W : 0) | (r->dirty ? PTE_D : 0) | (r->nx ? PTE_NX : 0);
    }
    *table = r->table_gpa[r->n_tables - 1];
    return read_pte(v, *table, lin);
}

static int probe(struct vcpu *v, uint64_t lin, struct pt_result *r)
{
    uint32_t err;
    return pt_walk(v->mem, &v->c, lin, PT_READ | PT_USER | PT_PROBE, r, &err);
}

/* The same, and sets A, as a CPU may that looks ahead (SDM 3A 4.8): after fork the child's entries have it clear. */
static int look_ahead(struct vcpu *v, uint64_t lin, struct pt_result *r)
{
    uint32_t err;
    return pt_walk(v->mem, &v->c, lin, PT_READ | PT_USER, r, &err);
}

/* ---- coherence ---- */

/* A page to walk to for the tables above: one whose world has the most rights, which these tables must still grant. */
static unsigned strongest_page(const struct chunk *c)
{
    unsigned best = CHUNK_PAGES;
    for (unsigned i = 0; i < CHUNK_PAGES; i++) {
        if (!c->pte[i])
            continue;
        if (c->prot[i] & UW_W)
            return i;
        if (best == CHUNK_PAGES || (c->prot[i] & UW_X))
            best = i;
    }
    return best;
}

/* An entry that gave up write access, as all do at fork, costs one protection change for a run of pages, and no fault. */
static void sync_page(struct space *s, struct chunk *c, unsigned page, uint64_t now)
{
    const uint64_t harmless = PTE_A | PTE_G | 7u << 9, rights = PTE_W | PTE_D | harmless;
    uint64_t diff = now ^ c->pte[page];
    bool aged = c->pte[page] & ~now & PTE_A; /* the next access must set it again */
    if (!(diff & ~harmless) && !aged)
        return;
    if ((diff & ~rights) || aged) {
        unmap_page(s, c, page);
        return;
    }
    c->pte[page] = now;
    if ((now & (PTE_W | PTE_D)) != (PTE_W | PTE_D))
        take_write_away(s, c, page);
}

/* Every table above the leaf may have changed as well: walk once per chunk, then compare entries. */
static void sync_chunk(struct vcpu *v, struct space *s, struct chunk *c)
{
    uint64_t table = ~0ull;
    struct pt_result r;
    unsigned best = strongest_page(c);
    if (best == CHUNK_PAGES)
        return;
    uint64_t lin = page_lin(c, best);
    bool there = !probe(v, lin, &r);
    uint64_t leaf = there ? leaf_of(v, lin, &r, &table) : 0;
    if (!there || table != c->table) {
        /* This page alone may be gone; its table tells of the others only if it is still in use. */
        if (there || c->table == ~0ull || c->pages == 1) {
            unmap_chunk(s, c);
            return;
        }
        unmap_page(s, c, best);
        sync_chunk(v, s, c);
        return;
    }
    bool less = ((c->prot[best] & UW_W) && (leaf & PTE_W) && !r.writable) ||
                (r.nx && (c->prot[best] & UW_X) && !(leaf & PTE_NX));
    if (less || (table == ~0ull && leaf != c->pte[best])) {
        unmap_chunk(s, c);
        return;
    }
    if (table == ~0ull)
        return;
    for (unsigned i = 0; i < CHUNK_PAGES; i++)
        if (c->pte[i])
            sync_page(s, c, i, read_pte(v, table, page_lin(c, i)));
}

void direct_sync(struct vcpu *v, struct space *s)
{
    v->stats->uw_syncs++;
    for (unsigned i = 0; i < CHUNK_HASH; i++)
        for (struct chunk *c = s->chunk[i]; c; c = c->next)
            sync_chunk(v, s, c);
    s->stale = false;
    s->n_invalid = 0;
}

static bool is_piece(const struct chunk *c) { return c && c->pages && c->table == ~0ull; }

void direct_invalidate(struct space *s, uint64_t lin)
{
    const struct chunk *c = find_chunk(s, lin);
    /* A large page is one translation to the guest, and INVLPG may name any address in it (SDM 3A 4.10.4.1). One of 4 MiB is two chunks. */
    if (s->giant || is_piece(c) || is_piece(find_chunk(s, lin ^ 1ull << CHUNK_SHIFT)))
        s->stale = true;
    else if (c && c->pte[page_index(lin)]) {
        if (s->n_invalid < INVALID_MAX)
            s->invalid[s->n_invalid++] = lin;
        else
            s->stale = true;
    }
}

static void sync_alone(struct vcpu *v, struct space *s, uint64_t lin)
{
    struct chunk *c = find_chunk(s, lin);
    struct pt_result r;
    unsigned i = page_index(lin);
    uint64_t table;
    if (!c || !c->pte[i])
        return;
    v->stats->uw_page_syncs++;
    bool there = !probe(v, lin, &r);
    uint64_t leaf = there ? leaf_of(v, lin, &r, &table) : 0;
    /* What another table says of the other pages there is not known yet: they may stay as they are, no INVLPG spoke of them. */
    bool less = !there || table != c->table || ((c->prot[i] & UW_X) && r.nx) ||
                ((c->prot[i] & UW_W) && !r.writable && (leaf & PTE_W));
    if (less)
        unmap_page(s, c, i);
    else
        sync_page(s, c, i, leaf);
}

void direct_sync_pages(struct vcpu *v, struct space *s)
{
    for (unsigned i = 0; i < s->n_invalid; i++)
        sync_alone(v, s, s->invalid[i]);
    s->n_invalid = 0;
}

void direct_audit(struct vcpu *v, const struct space *s)
{
    for (unsigned k = 0; k < CHUNK_HASH; k++)
        for (const struct chunk *c = s->chunk[k]; c; c = c->next)
            for (unsigned i = 0; i < CHUNK_PAGES; i++) {
                struct audit_entry e = {.lin = page_lin(c, i),
                                        .gpa = c->pte[i] & PAGE_MASK & ((1ull << GUEST_MAXPHYADDR) - 1),
                                        .write = c->prot[i] & UW_W,
                                        .exec = c->prot[i] & UW_X};
                if (c->pte[i])
                    selfcheck_world_page(v, &e);
            }
}

void direct_protect(struct vcpu *v, uint64_t gpa)
{
    struct direct *d = v->priv->direct;
    for (unsigned k = 0; k < d->n_live; k++) {
        struct space *s = d->live[k];
        for (unsigned i = 0; i < CHUNK_HASH; i++)
            for (struct chunk *c = s->chunk[i]; c; c = c->next)
                for (unsigned n = 0; n < CHUNK_PAGES; n++)
                    if (c->pte[n] && (c->prot[n] & UW_W) && ((c->pte[n] ^ gpa) & PTE_FRAME) == 0)
                        unmap_page(s, c, n);
    }
}

/* ---- entering pages ---- */

/* The user page at lin, or NULL. */
static const uint8_t *user_page(struct vcpu *v, uint64_t lin)
{
    struct pt_result r;
    if (lin >> 32 || probe(v, lin, &r))
        return NULL;
    return gpmem_ptr(v->mem, r.gpa & PAGE_MASK);
}

/* Selscan over a page of 32-bit code, with the end of the page before it as run-up and the beginning of the next one for what runs
 * into it. What runs into a page that is not there counts: there is no telling. */
static bool has_selectors(struct vcpu *v, uint64_t page, const uint8_t *code)
{
    uint8_t buf[RUN_UP + PAGE_SIZE + INSN_MAX];
    const uint8_t *before = user_page(v, page - PAGE_SIZE), *after = user_page(v, page + PAGE_SIZE);
    size_t end = RUN_UP + PAGE_SIZE;
    if (before)
        memcpy(buf, before + PAGE_SIZE - RUN_UP, RUN_UP);
    memcpy(buf + RUN_UP, code, PAGE_SIZE);
    if (after)
        memcpy(buf + end, after, INSN_MAX);
    v->stats->uw_scans++;
    return selscan_range(buf, after ? end + INSN_MAX : end, before ? 0 : RUN_UP, RUN_UP, end);
}

/* DIR-2: what a page of a space with 32-bit code may be, from what it may be in general. */
static unsigned narrow_prot(struct vcpu *v, const struct chunk *c, unsigned i, unsigned prot, unsigned how,
                            const uint8_t *host)
{
    unsigned old = c->pte[i] ? c->prot[i] : 0, flips = old & PAGE_FLIPS;
    bool exec = prot & UW_X;
    prot &= ~UW_X;
    if (old & PAGE_CAREFUL)
        return prot | PAGE_CAREFUL;
    if (how == PT_WRITE && (old & UW_X)) {
        if (flips == PAGE_FLIPS)
            return prot | PAGE_CAREFUL;
        flips += PAGE_FLIP;
    }
    if (how != PT_EXEC || !exec)
        return prot | flips;
    if (has_selectors(v, page_lin(c, i), host)) {
        v->stats->uw_careful++;
        return prot | PAGE_CAREFUL;
    }
    return (prot & ~UW_W) | UW_X | flips;
}

/* Enters a translation for an access of this kind (PT_READ, PT_WRITE, PT_EXEC). */
static int map_page(struct vcpu *v, struct space *s, uint64_t lin, const struct pt_result *r, unsigned how)
{
    const struct gpmem_slot *slot = gpmem_find(v->mem, r->gpa);
    uint64_t page = lin & PAGE_MASK, gpa = r->gpa & PAGE_MASK, table;
    uint64_t leaf = leaf_of(v, lin, r, &table);
    /* Below vm.mmap_min_addr the host maps nothing. */
    if (!slot || page < MIN_ADDRESS || uw_conflicts(v->priv->direct->pool, page, PAGE_SIZE))
        return -RD_E_UNSUPPORTED;
    struct chunk *c = make_chunk(s, lin);
    if (!c)
        return -RD_E_NOMEM;
    if (c->pages && c->table != table)
        unmap_chunk(s, c);
    c->table = table;
    s->giant |= r->page_bytes > 2 * CHUNK_PAGES * PAGE_SIZE;
    uint8_t *flags = &slot->flags[(gpa - slot->gpa) >> PAGE_SHIFT];
    bool write = r->writable && r->dirty && !slot->rom && !(*flags & GP_TRACED_MASK);
    unsigned prot = UW_R | (write ? UW_W : 0) | (r->nx ? 0 : UW_X), i = page_index(lin);
    if (s->narrow)
        prot = narrow_prot(v, c, i, prot, how, slot->host + (gpa - slot->gpa));
    c->pages += !c->pte[i];
    c->pte[i] = leaf;
    c->prot[i] = (uint8_t)prot;
    s->global |= r->global;
    if (prot & UW_W)
        *flags |= GP_WORLD;
    v->stats->uw_maps++;
    return uw_map(s->world, page, slot->memfd_offset + (gpa - slot->gpa), PAGE_SIZE,
                  (prot & (UW_R | UW_W | UW_X)) | UW_POPULATE);
}

/* Pages beside the one that faulted that the guest has used before (A is set: nothing changes for it). */
static void map_around(struct vcpu *v, struct space *s, uint64_t lin, unsigned how)
{
    uint64_t start = lin & ~(uint64_t)(AROUND * PAGE_SIZE - 1);
    struct chunk *c = find_chunk(s, lin);
    if (!c || c->table == ~0ull)
        return;
    for (unsigned i = 0; i < AROUND; i++) {
        uint64_t at = start + (uint64_t)i * PAGE_SIZE;
        struct pt_result r;
        if (c->pte[page_index(at)])
            continue;
        uint64_t pte = read_pte(v, c->table, at);
        if ((pte & (PTE_P | PTE_U | PTE_A)) != (PTE_P | PTE_U | PTE_A))
            continue;
        if (probe(v, at, &r) || !gpmem_find(v->mem, r.gpa))
            continue;
        bool code = how == PT_EXEC && !r.writable && (at ^ lin) >> PAGE_SHIFT < AROUND_CODE;
        map_page(v, s, at, &r, code ? PT_EXEC : PT_READ);
    }
}

/* The host faulted on what the guest's tables allow. */
static enum direct_result hidden_fault(struct vcpu *v, struct space *s, uint64_t lin, const struct pt_result *r,
                                       unsigned how)
{
    const struct gpmem_slot *slot = gpmem_find(v->mem, r->gpa);
    /* Its translations are of no use any more: this space runs directly. */
    if (how == PT_WRITE && (slot->flags[(r->gpa - slot->gpa) >> PAGE_SHIFT] & GP_CODE))
        vcpu_trace_write_page(v, r->gpa);
    if (map_page(v, s, lin, r, how)) {
        s->refused = true;
        v->stats->uw_refused++;
        return DIRECT_NO;
    }
    map_around(v, s, lin, how);
    v->stats->uw_hidden++;
    return DIRECT_GO_ON;
}

enum direct_result direct_page_fault(struct vcpu *v, struct space *s, uint64_t lin, uint32_t error)
{
    struct pt_result r;
    uint32_t err;
    unsigned how = error & PF_W ? PT_WRITE : error & PF_I ? PT_EXEC : PT_READ;
    if ((v->c.key & CPU_KEY_CODE64) && (int64_t)lin < 0)
        return DIRECT_STEP; /* upper half: the engine knows what it is */
    if (pt_walk(v->mem, &v->c, lin, how | PT_USER, &r, &err)) {
        v->fault = (struct guest_fault){.vector = EXC_PF, .has_error = true, .error = err, .cr2 = lin};
        s->fault_lin = lin;
        return DIRECT_FAULT;
    }
    const struct gpmem_slot *slot = gpmem_find(v->mem, r.gpa);
    if (!slot || (slot->rom && (error & PF_W))) {
        v->stats->uw_mmio++;
        v->stats->uw_steps++;
        return DIRECT_STEP;
    }
    if (how == PT_EXEC && direct_is_careful(s, lin)) {
        v->stats->uw_apart++;
        return DIRECT_NO;
    }
    return hidden_fault(v, s, lin, &r, how);
}

static void map_stack(struct vcpu *v, struct space *s)
{
    uint64_t lin = (uint32_t)v->c.gpr[R_RSP];
    const struct chunk *c = find_chunk(s, lin);
    struct pt_result r;
    if ((!c || !c->pte[page_index(lin)]) && !look_ahead(v, lin, &r) && gpmem_find(v->mem, r.gpa))
        map_page(v, s, lin, &r, PT_READ);
}

void direct_map_expected(struct vcpu *v, struct space *s)
{
    struct pt_result r;
    uint64_t lin = s->fault_lin;
    s->fault_lin = ~0ull;
    if (!(v->c.key & CPU_KEY_CODE64))
        map_stack(v, s);
    if (lin == ~0ull || look_ahead(v, lin, &r) || !gpmem_find(v->mem, r.gpa))
        return;
    unsigned how = !r.nx && page_index(lin) == page_index(v->c.rip) ? PT_EXEC : PT_READ;
    map_page(v, s, lin, &r, how);
    map_around(v, s, lin, how);
}

/* ---- a world that was another space's ---- */

bool direct_has_frame(const struct space *s, uint64_t lin, uint64_t gpa)
{
    const struct chunk *c = find_chunk(s, lin);
    uint64_t pte = c ? c->pte[page_index(lin)] : 0;
    return pte && !((pte ^ gpa) & PTE_FRAME);
}

/* A page that the world has from its last space. What both spaces have at the same place stays: after fork that is most. Where this one has
 * another frame, that is what it is likely to use too; but what the last one wrote to, this one is likely to write to before it reads much
 * of it, and then the guest's kernel gives it a frame of its own: few of these are entered. */
static void adopt_page(struct vcpu *v, struct space *s, struct chunk *c, unsigned i, unsigned *n_written)
{
    struct pt_result r;
    uint64_t table, lin = page_lin(c, i);
    const struct gpmem_slot *slot = NULL;
    if (look_ahead(v, lin, &r) || !(slot = gpmem_find(v->mem, r.gpa)) || r.page_bytes != PAGE_SIZE) {
        unmap_page(s, c, i);
        return;
    }
    uint64_t leaf = leaf_of(v, lin, &r, &table);
    c->table = table;
    if (((leaf ^ c->pte[i]) & PTE_FRAME) || !(c->prot[i] & UW_X) != r.nx) {
        if ((c->prot[i] & UW_W) && !r.writable && ++*n_written > ADOPT_WRITTEN)
            unmap_page(s, c, i);
        else
            map_page(v, s, lin, &r, PT_READ);
        return;
    }
    c->pte[i] = leaf;
    s->global |= r.global;
    uint8_t *flags = &slot->flags[(r.gpa - slot->gpa) >> PAGE_SHIFT];
    if (!r.writable || !r.dirty || slot->rom || (*flags & GP_TRACED_MASK))
        take_write_away(s, c, i);
    else if (c->prot[i] & UW_W)
        *flags |= GP_WORLD;
    v->stats->uw_kept++;
}

void direct_adopt(struct vcpu *v, struct space *s)
{
    unsigned n_written = 0;
    for (unsigned k = 0; k < CHUNK_HASH; k++)
        for (struct chunk *c = s->chunk[k]; c; c = c->next) {
            if (c->table == ~0ull && c->pages)
                unmap_chunk(s, c);
            for (unsigned i = 0; i < CHUNK_PAGES && c->pages; i++)
                if (c->pte[i])
                    adopt_page(v, s, c, i, &n_written);
        }
}
