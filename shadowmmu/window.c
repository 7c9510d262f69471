/* shadowmmu/window.c - see window.h. nofpu.
 *
 * Book-keeping is per 2 MiB of linear addresses (a chunk). A chunk is either one large mapping or up to 512 single pages; each
 * page of a chunk has its guest frame, so that a traced frame's aliases are found through a hash by frame.
 */
#define _GNU_SOURCE
#include "shadowmmu/window.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/err.h"
#include "shadowmmu/hostcall.h"
#include <errno.h>
#include <sys/mman.h>

#define CHUNK_SHIFT 21
#define CHUNK_BYTES (1ull << CHUNK_SHIFT)
#define CHUNK_PAGES 512u
#define MAX_CHUNKS 16384u
#define LIN_HASH 4096u
#define GFN_HASH 65536u
#define NONE 0xffffffffu
#define MAX_MAPPINGS 40000u /* vm.max_map_count is 65530 by default; others need some too */
#define EMPTY_AGAIN_NS 5000000000ull
#define FEW_CHUNKS 16u
#define SPAN32 0x100000000ull
#define GUARD 0x10000ull
#define HUGE_SHIFT 30
#define HUGE_MAX 8u

struct chunk {
    uint64_t lin; /* start; meaningful while in a hash list */
    uint32_t lin_next;
    uint16_t pages, fleeting; /* entries in use; of which not global */
    bool large;               /* has (a part of) a page larger than 4 KiB */
    uint64_t global[8], writable[8];
    uint32_t gfn[CHUNK_PAGES];      /* NONE = empty */
    uint32_t gfn_next[CHUNK_PAGES]; /* as in gfn_hash */
};
struct window {
    struct gpmem *mem;
    struct stats *stats;
    bool wide;
    unsigned n_huge; /* 1 GiB pages of which there are parts; more than HUGE_MAX: not known which */
    uint64_t huge[HUGE_MAX];
    uint64_t base;
    struct chunk *chunk;
    uint32_t n_chunks, free_list;
    unsigned mappings, fleeting;
    uint64_t emptied_ns; /* when it was last emptied because it was full; 0: never */
    uint32_t lin_hash[LIN_HASH] __attribute__((aligned(4096)));
    uint32_t gfn_hash[GFN_HASH]; /* complement of chunk index * 512 + page, so that memory never used means NONE */
};

static inline bool bit(const uint64_t *m, unsigned i) { return m[i / 64] >> (i % 64) & 1; }
static inline void set_bit_to(uint64_t *m, unsigned i, bool on)
{
    m[i / 64] = on ? m[i / 64] | 1ull << (i % 64) : m[i / 64] & ~(1ull << (i % 64));
}
static inline unsigned lin_slot(uint64_t lin) { return (unsigned)((lin >> CHUNK_SHIFT) * 0x9e3779b97f4a7c15ull >> 52); }
static inline unsigned gfn_slot(uint32_t gfn) { return (unsigned)(gfn * 0x9e3779b1u) >> 16; }
static inline uint64_t host_of(const struct window *w, uint64_t lin) { return w->base + lin; }
static inline unsigned page_of(uint64_t lin) { return (unsigned)(lin >> 12) & (CHUNK_PAGES - 1); }

uint64_t window_base(const struct window *w) { return w->base; }
unsigned window_mappings(const struct window *w) { return w->mappings; }

void window_tables(const struct window *w, const void *at[2], size_t bytes[2])
{
    at[0] = w;
    bytes[0] = sizeof *w;
    at[1] = w->chunk;
    bytes[1] = MAX_CHUNKS * sizeof(struct chunk);
}

bool window_linear(const struct window *w, uint64_t host, uint64_t *lin)
{
    *lin = host - w->base;
    return w->wide ? *lin >> 47 == 0x1ffff : *lin < SPAN32 + GUARD;
}

static void clear_tables(struct window *w)
{
    for (unsigned i = 0; i < LIN_HASH; i++)
        w->lin_hash[i] = NONE;
    for (unsigned i = 0; i < GFN_HASH && w->n_chunks; i++)
        w->gfn_hash[i] = 0;
    w->n_chunks = 0;
    w->free_list = NONE;
    w->mappings = w->fleeting = 0;
    w->n_huge = 0;
}

static void *reserve(uint64_t want, uint64_t bytes, int prot)
{
    int64_t p = host_mmap(want, bytes, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return host_mmap_failed(p) ? NULL : (void *)(uintptr_t)p;
}

static void release(void *p, uint64_t bytes)
{
    if (p)
        host_munmap((uint64_t)(uintptr_t)p, bytes);
}

int window_create(struct window **out, struct gpmem *mem, bool wide, struct stats *stats)
{
    struct window *w = reserve(0, sizeof *w, PROT_READ | PROT_WRITE);
    if (!w)
        return -RD_E_NOMEM;
    w->mem = mem;
    w->stats = stats;
    w->wide = wide;
    w->base = WINDOW64_BASE;
    w->chunk = reserve(0, MAX_CHUNKS * sizeof(struct chunk), PROT_READ | PROT_WRITE);
    if (!wide) /* in the low 8 TiB with the rest of the monitor: the 64-bit window's hypervisor hole */
        w->base = (uint64_t)(uintptr_t)reserve(0x30000000000ull, SPAN32 + 2 * GUARD, PROT_NONE);
    if (!w->chunk || !w->base) {
        release((void *)(uintptr_t)(wide ? 0 : w->base), SPAN32 + 2 * GUARD);
        release(w->chunk, MAX_CHUNKS * sizeof(struct chunk));
        release(w, sizeof *w);
        return -RD_E_NOMEM;
    }
    clear_tables(w);
    *out = w;
    return 0;
}

/* ---- chunks ---- */

static struct chunk *find_chunk(const struct window *w, uint64_t lin)
{
    uint64_t start = lin & ~(CHUNK_BYTES - 1);
    uint32_t i = w->lin_hash[lin_slot(lin)];
    while (i != NONE && w->chunk[i].lin != start)
        i = w->chunk[i].lin_next;
    return i == NONE ? NULL : &w->chunk[i];
}

static struct chunk *new_chunk(struct window *w, uint64_t lin)
{
    uint32_t i = w->free_list;
    if (i != NONE)
        w->free_list = w->chunk[i].lin_next;
    else if (w->n_chunks < MAX_CHUNKS)
        i = w->n_chunks++;
    else
        return NULL;
    struct chunk *c = &w->chunk[i];
    c->lin = lin & ~(CHUNK_BYTES - 1);
    c->pages = c->fleeting = 0;
    c->large = false;
    for (unsigned k = 0; k < 8; k++)
        c->global[k] = c->writable[k] = 0;
    for (unsigned k = 0; k < CHUNK_PAGES; k++)
        c->gfn[k] = NONE;
    uint32_t *head = &w->lin_hash[lin_slot(lin)];
    c->lin_next = *head;
    *head = i;
    return c;
}

static void free_chunk(struct window *w, struct chunk *c)
{
    uint32_t i = (uint32_t)(c - w->chunk), *p = &w->lin_hash[lin_slot(c->lin)];
    while (*p != i)
        p = &w->chunk[*p].lin_next;
    *p = c->lin_next;
    c->lin_next = w->free_list;
    w->free_list = i;
}

static void enter_page(struct window *w, struct chunk *c, unsigned page, uint32_t gfn, bool writable, bool global)
{
    uint32_t id = (uint32_t)(c - w->chunk) * CHUNK_PAGES + page, *head = &w->gfn_hash[gfn_slot(gfn)];
    c->gfn[page] = gfn;
    c->gfn_next[page] = *head;
    *head = ~id;
    set_bit_to(c->writable, page, writable);
    set_bit_to(c->global, page, global);
    c->pages++;
    c->fleeting += !global;
    w->fleeting += !global;
}

static void drop_page(struct window *w, struct chunk *c, unsigned page)
{
    uint32_t id = (uint32_t)(c - w->chunk) * CHUNK_PAGES + page, *p = &w->gfn_hash[gfn_slot(c->gfn[page])];
    while (*p != ~id)
        p = &w->chunk[~*p / CHUNK_PAGES].gfn_next[~*p % CHUNK_PAGES];
    *p = c->gfn_next[page];
    c->gfn[page] = NONE;
    c->pages--;
    if (!bit(c->global, page)) {
        c->fleeting--;
        w->fleeting--;
    }
}

/* ---- host mappings ---- */

/* The host's calls, on the account of time. */
static int64_t call_mmap(struct window *w, uint64_t at, uint64_t bytes, int prot, int flags, int fd, uint64_t offset)
{
    struct acct_span span = acct_begin(&w->stats->acct, ACCT_host_call);
    int64_t r = host_mmap(at, bytes, prot, flags, fd, offset);
    acct_end(&w->stats->acct, &span, ACCT_host_call);
    return r;
}
static int64_t call_munmap(struct window *w, uint64_t at, uint64_t bytes)
{
    struct acct_span span = acct_begin(&w->stats->acct, ACCT_host_call);
    int64_t r = host_munmap(at, bytes);
    acct_end(&w->stats->acct, &span, ACCT_host_call);
    return r;
}
static int64_t call_mprotect(struct window *w, uint64_t at, uint64_t bytes, int prot)
{
    struct acct_span span = acct_begin(&w->stats->acct, ACCT_host_call);
    int64_t r = host_mprotect(at, bytes, prot);
    acct_end(&w->stats->acct, &span, ACCT_host_call);
    return r;
}

static bool reserve_again(struct window *w, uint64_t at, uint64_t bytes)
{
    return !host_mmap_failed(
        call_mmap(w, at, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0));
}

/* Takes a range out of the host's tables; a 32-bit window keeps the addresses reserved. False: it is still there. A host at its
 * limit of mappings refuses to split one. */
static bool host_unmap(struct window *w, uint64_t lin, uint64_t bytes)
{
    w->stats->window_unmaps++;
    return w->wide ? !call_munmap(w, host_of(w, lin), bytes) : reserve_again(w, host_of(w, lin), bytes);
}

static bool host_protect(struct window *w, uint64_t lin)
{
    w->mappings += 2;
    return !call_mprotect(w, host_of(w, lin & ~0xfffull), 4096, PROT_READ);
}

static enum window_status host_map(struct window *w, uint64_t lin, const struct gpmem_slot *s, uint64_t gpa,
                                   uint64_t bytes, bool writable, bool fresh)
{
    int prot = PROT_READ | (writable ? PROT_WRITE : 0);
    int fixed = w->wide && fresh ? MAP_FIXED_NOREPLACE : MAP_FIXED;
    int64_t want = (int64_t)host_of(w, lin);
    int64_t p = call_mmap(w, host_of(w, lin), bytes, prot, MAP_SHARED | fixed, gpmem_fd(w->mem),
                          s->memfd_offset + (gpa - s->gpa));
    w->stats->window_maps++;
    if (p == want) {
        w->mappings += w->wide ? 1 : 2; /* in a reservation the rest of it is another */
        return WINDOW_OK;
    }
    if (!host_mmap_failed(p)) { /* an old kernel that takes the address for a hint */
        call_munmap(w, (uint64_t)p, bytes);
        return WINDOW_CONFLICT;
    }
    return p == -EEXIST ? WINDOW_CONFLICT : WINDOW_REFUSED;
}

/* Drops the chunk's pages (all, or those that do not survive a CR3 load) in runs: what lies between them is not ours. False: some
 * are still there. */
static bool empty_chunk(struct window *w, struct chunk *c, bool global_too)
{
    bool done = true;
    for (unsigned i = 0; i < CHUNK_PAGES; i++) {
        unsigned n = 0;
        while (i + n < CHUNK_PAGES && c->gfn[i + n] != NONE && (global_too || !bit(c->global, i + n)))
            n++;
        if (n && host_unmap(w, c->lin + (uint64_t)i * 4096, (uint64_t)n * 4096))
            for (unsigned k = 0; k < n; k++)
                drop_page(w, c, i + k);
        else if (n)
            done = false;
        i += n ? n - 1 : 0;
    }
    if (!c->pages)
        free_chunk(w, c);
    return done;
}

static bool empty_chunks(struct window *w, bool global_too, bool *progress)
{
    bool done = true;
    for (unsigned s = 0; s < LIN_HASH; s++)
        for (uint32_t i = w->lin_hash[s], next; i != NONE; i = next) {
            next = w->chunk[i].lin_next;
            if (!global_too && !w->chunk[i].fleeting)
                continue;
            unsigned pages = w->chunk[i].pages;
            bool gone = empty_chunk(w, &w->chunk[i], global_too);
            done = done && gone;
            *progress |= w->chunk[i].pages < pages;
        }
    return done;
}

/* Takes everything out. What the host refuses to split off becomes an end of its mapping once its neighbours have gone, and taking
 * off an end needs nothing: so there is progress until there is nothing left. */
static void flush_all(struct window *w)
{
    bool done = !w->n_chunks, progress = true;
    if (!w->wide && !done) /* in one piece; at the host's limit even that is refused until something has gone */
        done = reserve_again(w, w->base, SPAN32 + 2 * GUARD) ||
               (!call_munmap(w, w->base, SPAN32 + 2 * GUARD) && reserve_again(w, w->base, SPAN32 + 2 * GUARD));
    while (!done) {
        CHECK(progress);
        progress = false;
        done = empty_chunks(w, true, &progress);
    }
    if (!w->wide &&
        w->n_chunks >= FEW_CHUNKS) { /* back to the host: after the decompressor a 32-bit window is hardly used */
        host_madvise((uint64_t)(uintptr_t)w->chunk, MAX_CHUNKS * sizeof(struct chunk), MADV_DONTNEED);
        host_madvise((uint64_t)(uintptr_t)w->gfn_hash, sizeof w->gfn_hash, MADV_DONTNEED);
        w->n_chunks = 0;
    }
    clear_tables(w);
}

void window_flush(struct window *w, bool global_too)
{
    bool progress = false;
    if (!global_too && !w->fleeting)
        return;
    w->stats->window_flushes++;
    if (global_too || !empty_chunks(w, false, &progress))
        flush_all(w);
}

static bool in_huge(const struct window *w, uint64_t lin)
{
    for (unsigned i = 0; i < w->n_huge && i < HUGE_MAX; i++)
        if (w->huge[i] == lin >> HUGE_SHIFT)
            return true;
    return w->n_huge > HUGE_MAX;
}

static void note_huge(struct window *w, uint64_t lin)
{
    if (in_huge(w, lin))
        return;
    if (w->n_huge < HUGE_MAX)
        w->huge[w->n_huge] = lin >> HUGE_SHIFT;
    w->n_huge++;
}

void window_invalidate(struct window *w, uint64_t lin)
{
    /* A large page is one translation to the guest: all of it goes, whichever address in it is named (SDM 3A 4.10.4.1). */
    if (in_huge(w, lin)) {
        window_flush(w, true);
        return;
    }
    bool done = true;
    unsigned page = page_of(lin);
    struct chunk *c = w->wide ? NULL : find_chunk(w, lin ^ CHUNK_BYTES); /* the other half of a 4 MiB page */
    if (c && c->large)
        done = empty_chunk(w, c, true);
    c = find_chunk(w, lin);
    if (c && c->large)
        done = empty_chunk(w, c, true) && done;
    else if (c && c->gfn[page] != NONE && !host_unmap(w, lin & ~0xfffull, 4096))
        done = false;
    else if (c && c->gfn[page] != NONE) {
        drop_page(w, c, page);
        if (!c->pages)
            free_chunk(w, c);
    }
    if (!done)
        window_flush(w, true);
}

void window_protect(struct window *w, uint64_t gpa)
{
    uint32_t gfn = (uint32_t)(gpa >> 12);
    for (uint32_t id = ~w->gfn_hash[gfn_slot(gfn)]; id != NONE;) {
        struct chunk *c = &w->chunk[id / CHUNK_PAGES];
        unsigned page = id % CHUNK_PAGES;
        id = ~c->gfn_next[page];
        if (c->gfn[page] != gfn || !bit(c->writable, page))
            continue;
        w->stats->window_protects++;
        if (!host_protect(w, c->lin + (uint64_t)page * 4096)) {
            window_flush(w, true);
            return;
        }
        set_bit_to(c->writable, page, false);
    }
}

bool window_has(const struct window *w, uint64_t lin, bool write)
{
    const struct chunk *c = find_chunk(w, lin);
    unsigned page = page_of(lin);
    return c && c->gfn[page] != NONE && (!write || bit(c->writable, page));
}

bool window_lookup(const struct window *w, uint64_t lin, uint64_t *gpa, bool *write)
{
    const struct chunk *c = find_chunk(w, lin);
    unsigned page = page_of(lin);
    if (!c || c->gfn[page] == NONE)
        return false;
    *gpa = (uint64_t)c->gfn[page] << 12;
    *write = bit(c->writable, page);
    return true;
}

void window_each(const struct window *w, void (*f)(void *opaque, uint64_t lin, uint64_t gpa, bool write, bool global),
                 void *opaque)
{
    for (unsigned s = 0; s < LIN_HASH; s++)
        for (uint32_t i = w->lin_hash[s]; i != NONE; i = w->chunk[i].lin_next) {
            const struct chunk *c = &w->chunk[i];
            for (unsigned k = 0; k < CHUNK_PAGES; k++)
                if (c->gfn[k] != NONE)
                    f(opaque, c->lin + (uint64_t)k * 4096, (uint64_t)c->gfn[k] << 12, bit(c->writable, k),
                      bit(c->global, k));
        }
}

/* ---- entering ---- */

static enum window_status map_page(struct window *w, struct chunk *c, const struct gpmem_slot *s, uint64_t lin,
                                   uint64_t gpa, bool writable, bool global)
{
    unsigned page = page_of(lin);
    bool had = c->gfn[page] != NONE;
    if (had && c->gfn[page] == gpa >> 12 && writable && !bit(c->writable, page)) {
        if (call_mprotect(w, host_of(w, lin), 4096, PROT_READ | PROT_WRITE))
            return WINDOW_REFUSED;
        set_bit_to(c->writable, page, true);
        return WINDOW_OK;
    }
    enum window_status st = host_map(w, lin, s, gpa, 4096, writable, !had);
    if (st != WINDOW_OK)
        return st;
    if (had)
        drop_page(w, c, page);
    enter_page(w, c, page, (uint32_t)(gpa >> 12), writable, global);
    return WINDOW_OK;
}

/* The whole chunk at once; traced pages of it are made read-only again. */
static enum window_status map_large(struct window *w, struct chunk *c, const struct gpmem_slot *s, uint64_t gpa,
                                    bool writable, bool global)
{
    enum window_status st = host_map(w, c->lin, s, gpa, CHUNK_BYTES, writable, true);
    if (st != WINDOW_OK)
        return st;
    for (unsigned i = 0; i < CHUNK_PAGES; i++) {
        bool traced = s->flags[((gpa - s->gpa) >> 12) + i] & GP_TRACED_MASK;
        enter_page(w, c, i, (uint32_t)(gpa >> 12) + i, writable && !traced, global);
        if (traced && writable && !host_protect(w, c->lin + (uint64_t)i * 4096))
            st = WINDOW_REFUSED;
    }
    return st;
}

static enum window_status try_map(struct window *w, uint64_t lin, uint64_t gpa, uint64_t page_bytes, bool writable,
                                  bool global)
{
    bool large = page_bytes >= CHUNK_BYTES;
    const struct gpmem_slot *s = gpmem_find(w->mem, gpa);
    CHECK(s);
    writable = writable && !s->rom;
    struct chunk *c = find_chunk(w, lin);
    uint64_t in = lin & (CHUNK_BYTES - 1), first = gpa - in;
    bool whole = large && !c && gpa >= in && first >= s->gpa && first + CHUNK_BYTES <= s->gpa + s->bytes;
    bool made = !c;
    if (!c && !(c = new_chunk(w, lin)))
        return WINDOW_REFUSED;
    enum window_status st = WINDOW_CONFLICT;
    if (whole)
        st = map_large(w, c, s, first, writable, global);
    if (whole && st == WINDOW_REFUSED && c->pages) /* in part writable where it must not be: the caller flushes */
        made = false;
    if (st == WINDOW_CONFLICT) {
        bool traced = s->flags[(gpa - s->gpa) >> 12] & GP_TRACED_MASK;
        st = map_page(w, c, s, lin, gpa, writable && !traced, global);
    }
    if (st != WINDOW_OK && made)
        free_chunk(w, c);
    else if (large) {
        c->large = true;
        if (page_bytes >> HUGE_SHIFT)
            note_huge(w, lin);
    }
    return st;
}

static unsigned small_pages(const struct window *w)
{
    unsigned n = 0;
    for (unsigned s = 0; s < LIN_HASH; s++)
        for (uint32_t i = w->lin_hash[s]; i != NONE; i = w->chunk[i].lin_next)
            n += w->chunk[i].large ? 0 : w->chunk[i].pages;
    return n;
}

/* Full: is emptied, unless that was not long ago. Then more pages are in use than fit, and each would come back by a signal and two
 * system calls, forty times the cost of a soft site: those that are not in yet are refused. (The count of mappings also grows when
 * pages come and go: then few are there, and it starts anew.) */
static bool stays_full(struct window *w)
{
    struct timespec t = {0};
    hostcall6(SYS_clock_gettime, CLOCK_MONOTONIC, (int64_t)(uintptr_t)&t, 0, 0, 0, 0);
    uint64_t now = clock_ns_of(&t);
    if (w->emptied_ns && now - w->emptied_ns < EMPTY_AGAIN_NS && small_pages(w) > MAX_MAPPINGS / 2)
        return true;
    w->emptied_ns = now;
    window_flush(w, true);
    return false;
}

enum window_status window_map(struct window *w, uint64_t lin, uint64_t gpa, uint64_t page_bytes, bool writable,
                              bool global)
{
    lin &= ~0xfffull;
    gpa &= ~0xfffull;
    if (w->mappings > MAX_MAPPINGS && !window_has(w, lin, false) && stays_full(w))
        return WINDOW_REFUSED;
    enum window_status st = try_map(w, lin, gpa, page_bytes, writable, global);
    if (st != WINDOW_REFUSED)
        return st;
    window_flush(w, true);
    st = try_map(w, lin, gpa, page_bytes, writable, global);
    if (st == WINDOW_REFUSED)
        window_flush(w, true);
    return st;
}

void window_destroy(struct window *w)
{
    if (!w)
        return;
    window_flush(w, true);
    if (!w->wide)
        release((void *)(uintptr_t)w->base, SPAN32 + 2 * GUARD);
    release(w->chunk, MAX_CHUNKS * sizeof(struct chunk));
    release(w, sizeof *w);
}
