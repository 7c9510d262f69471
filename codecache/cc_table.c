/* codecache/cc_table.c - finding blocks: by key, by guest page, by host pc; and their end by invalidation. nofpu. */
#include "codecache/cc_int.h"

static bool same_key(const struct cc_key *a, const struct cc_key *b)
{
    return a->phys == b->phys && a->rip == b->rip && a->mode == b->mode && cc_same_segment(a, b);
}

struct cc_block *cc_lookup(struct codecache *cc, const struct cc_key *k)
{
    struct cc_block *b = cc->hash[cc_hash(k)];
    while (b && !same_key(&b->key, k))
        b = b->hash_next;
    return b;
}

static const struct cc_sector *sector_of(const struct codecache *cc, uint64_t pc)
{
    uint64_t off = pc - cc->x;
    if (off < CC_GLUE_BYTES || off >= cc->bytes)
        return NULL;
    return &cc->sector[(off - CC_GLUE_BYTES) / cc->sector_bytes];
}

struct cc_block *cc_find(const struct codecache *cc, uint64_t pc)
{
    const struct cc_sector *s = sector_of(cc, pc);
    if (!s)
        return NULL;
    bool cold = pc - s->pc >= cc->sector_bytes / 2;
    unsigned lo = 0, hi = s->n;
    /* New code is run as it is made: mostly it is the last one. */
    if (hi && (cold ? s->block[hi - 1]->d.cold_pc : s->block[hi - 1]->d.start_pc) <= pc)
        lo = hi;
    while (lo < hi) { /* the last block that starts at or before pc */
        unsigned mid = (lo + hi) / 2;
        const struct cc_block *b = s->block[mid];
        if ((cold ? b->d.cold_pc : b->d.start_pc) <= pc)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (!lo)
        return NULL;
    struct cc_block *b = s->block[lo - 1];
    uint64_t end = cold ? (uint64_t)b->d.cold_pc + b->d.cold_bytes : (uint64_t)b->d.hot_pc + b->d.hot_bytes;
    return pc <= end ? b : NULL; /* a return address may be the end */
}

struct cc_block *cc_find_exit(const struct codecache *cc, uint32_t name, unsigned *i)
{
    unsigned sector = name >> 1 & (CC_MAX_SECTORS - 1), k = name >> 6;
    if (sector >= cc->n_sectors || k >= cc->sector[sector].n)
        return NULL;
    *i = name & 1;
    struct cc_block *b = cc->sector[sector].block[k];
    return *i < b->d.n_exits ? b : NULL;
}

struct cc_block *cc_linked(const struct cc_block *from, unsigned i, const struct cc_key *k)
{
    struct cc_block *to = from->links->out[i].to;
    return to && same_key(&to->key, k) ? to : NULL;
}

const struct ccf_point *cc_find_point(const struct cc_block *b, uint64_t pc)
{
    for (unsigned i = b->d.n_points; i-- > 0;)
        if (b->point[i].pc == pc)
            return &b->point[i];
    return NULL;
}

static void unhash(struct codecache *cc, struct cc_block *b)
{
    struct cc_block **p = &cc->hash[cc_hash(&b->key)];
    while (*p != b)
        p = &(*p)->hash_next;
    *p = b->hash_next;
}

/* A block is in a bucket's list once, for its first page if that page's bucket it is, else for its second. */
static struct cc_block **link_in_bucket(struct cc_block *b, uint64_t phys)
{
    return &b->page_next[cc_page_hash(b->key.phys) == cc_page_hash(phys) ? 0 : 1];
}

static void unpage(struct codecache *cc, struct cc_block *b, uint64_t phys)
{
    struct cc_block **p = &cc->page[cc_page_hash(phys)];
    while (*p != b)
        p = link_in_bucket(*p, phys);
    *p = *link_in_bucket(b, phys);
}

void cc_kill(struct codecache *cc, struct cc_block *b)
{
    if (b->dead)
        return;
    if (cc->dropped)
        cc->dropped(cc->opaque, b);
    b->dying = true;
    cc_unlink_all(cc, b);
    unhash(cc, b);
    unpage(cc, b, b->key.phys);
    if (b->phys2 != ~0ull && cc_page_hash(b->phys2) != cc_page_hash(b->key.phys))
        unpage(cc, b, b->phys2);
    b->dead = true;
}

static bool covers(const struct cc_block *b, uint64_t phys, uint64_t bytes)
{
    uint64_t in_first = b->phys2 == ~0ull ? b->d.tu_bytes : 4096 - (b->key.phys & 4095);
    if (b->key.phys < phys + bytes && phys < b->key.phys + in_first)
        return true;
    return b->phys2 != ~0ull && b->phys2 < phys + bytes && phys < b->phys2 + (b->d.tu_bytes - in_first);
}

static struct cc_block *next_on_page(const struct cc_block *b, uint64_t phys)
{
    return b->page_next[cc_page_hash(b->key.phys) == cc_page_hash(phys) ? 0 : 1];
}

unsigned cc_invalidate(struct codecache *cc, uint64_t phys, uint64_t bytes)
{
    unsigned n = 0;
    for (uint64_t page = phys & ~4095ull; page < phys + bytes; page += 4096)
        for (struct cc_block *b = cc->page[cc_page_hash(page)], *next; b; b = next) {
            next = next_on_page(b, page);
            if (covers(b, phys, bytes)) {
                cc_kill(cc, b);
                n++;
            }
        }
    cc->stats->invalidated += n;
    return n;
}

bool cc_page_has_code(const struct codecache *cc, uint64_t phys)
{
    uint64_t page = phys & ~4095ull;
    for (const struct cc_block *b = cc->page[cc_page_hash(page)]; b; b = next_on_page(b, page))
        if ((b->key.phys & ~4095ull) == page || b->phys2 == page)
            return true;
    return false;
}
