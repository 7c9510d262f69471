/* codecache/cc_int.h - private to codecache/.
 *
 * CC-1  A live block is in the hash table, in the list of each guest page it was made from, and in its sector's array.
 * CC-2  A dead block is in its sector's array only, has no links in or out, and nothing jumps to it.
 * CC-3  An exit is either unlinked (its jump goes to its stub) or linked (its jump goes to the target's entry for it, or hot_skip behind
 *       that, or to its own jump-cache stub) and then is in the target's list of incoming links. Kicked blocks break this until cc_unkick.
 * CC-4  Only a link to another guest page that does not go through the jump cache is in the cross list.
 * CC-5  Within a sector, hot and cold code of blocks lie in order of commitment, without overlap but for the jump that a block
 *       in place has overwritten.
 * CC-6  Linked blocks have the same mode and CS base.
 */
#ifndef CODECACHE_CC_INT_H
#define CODECACHE_CC_INT_H
#include "base/check.h"
#include "codecache/codecache.h"

#define CC_HASH_BITS 17
#define CC_PAGE_BITS 14
#define CC_CROSS_BITS 10
#define CC_GLUE_BYTES 16384u
#define CC_MAX_KICKED 8

struct cc_link {
    struct cc_block *from, *to;
    bool via_jc, cross;
    bool
        in_place; /* no jump: the target starts where it was. Undoing it writes the jump over the target, which is dead then */
    struct cc_link *in_next, **in_prev;       /* list of to's incoming links */
    struct cc_link *cross_next, **cross_prev; /* list of unchecked links across pages */
};
struct cc_links {
    struct cc_link out[2];
    struct cc_link *in;
};
struct cc_sector {
    uint64_t pc;                        /* executable address */
    uint32_t hot, cold;                 /* used bytes of each half */
    uint32_t hot_touched, cold_touched; /* bytes of each half that have pages */
    struct cc_block **block;
    unsigned n, cap;
    struct cc_chunk *first_chunk, *chunk; /* of descriptions (cc_mem.c); the current one, NULL: the first is next */
};
struct cc_kicked {
    struct cc_block *b;
    uint8_t ij_bytes[5], fall_bytes[5];
};
/* Names of exits: block, sector, exit. */
#define CC_MAX_SECTORS 32u
static inline uint32_t cc_exit_name(unsigned sector, unsigned block, unsigned i)
{
    return block << 6 | sector << 1 | i;
}
struct codecache {
    uint8_t *w;   /* writable mapping */
    uint64_t x;   /* executable mapping */
    size_t bytes; /* of both */
    uint32_t sector_bytes;
    unsigned n_sectors, cur;
    struct cc_sector *sector;
    struct stats *stats;
    struct cc_block *hash[1u << CC_HASH_BITS];
    struct cc_block *page[1u << CC_PAGE_BITS];
    struct cc_link *cross[1u << CC_CROSS_BITS]; /* by linear page of the target */
    struct cc_kicked kicked[CC_MAX_KICKED];
    unsigned n_kicked;
    void (*dropped)(void *opaque, struct cc_block *b);
    void (*evicting)(void *opaque);
    void *opaque;
};

/* Blocks of one page are near each other in the table, as they are used together. */
static inline unsigned cc_hash(const struct cc_key *k)
{
    uint64_t page =
        (k->phys >> 12 ^ k->rip >> 12 << 20 ^ (uint64_t)k->mode << 40 ^ k->cs_base << 3) * 0x9e3779b97f4a7c15ull;
    return ((unsigned)(page >> (64 - CC_HASH_BITS)) + (unsigned)(k->phys >> 2 & 0x3ff)) & ((1u << CC_HASH_BITS) - 1);
}
static inline unsigned cc_page_hash(uint64_t phys)
{
    return (unsigned)((phys >> 12) * 0x9e3779b97f4a7c15ull >> (64 - CC_PAGE_BITS));
}

static inline unsigned cc_cross_hash(uint64_t lin) { return (unsigned)(lin >> 12) & ((1u << CC_CROSS_BITS) - 1); }
static inline uint64_t cc_linear(const struct cc_block *b) { return b->key.rip + b->key.cs_base; }

/* cc_mem.c: room for the description of a block (not cleared), NULL if there is none; gives all back; and to the host */
void *cc_describe(struct cc_sector *s, size_t bytes);
void cc_forget_all(struct cc_sector *s);
void cc_free_chunks(struct cc_sector *s);
void cc_touch(const struct codecache *cc, uint64_t pc, uint32_t end, uint32_t *touched);
/* cc_link.c */
void cc_unlink(struct codecache *cc, struct cc_link *l);
/* Where a link leads. */
uint32_t cc_goal(const struct cc_link *l);
void cc_unlink_all(struct codecache *cc, struct cc_block *b);
/* cc_table.c */
void cc_kill(struct codecache *cc, struct cc_block *b);
#endif
