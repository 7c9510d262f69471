/* codecache/codecache.h - owns translated code and every jump between blocks.
 *
 * Role:     executable memory (one memfd mapped twice: executable in the low 2 GiB, writable elsewhere), the look-up table,
 *           direct links and their undoing, invalidation by guest physical address, eviction by sectors (FIFO). Knows keys and
 *           host addresses, not x86.
 * Owner:    cc_create/cc_destroy. A struct cc_block stays valid until the next cc_reserve or cc_flush (eviction); a block that was
 *           invalidated is dead (cc_block.dead) but its code stays where it is until then.
 * Threads:  the vCPU's thread. Signals: cc_find, cc_kick and cc_kick_target are safe in the handler while the TC runs (nothing else
 *           runs then).
 * Invariants: CC-1..6, see cc_int.h; checked by cc_verify().
 */
#ifndef CODECACHE_CODECACHE_H
#define CODECACHE_CODECACHE_H
#include "base/stat.h"
#include "codecache/ccf.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct codecache;

struct cc_key {
    uint64_t phys; /* guest physical address of the first byte */
    uint64_t rip;  /* as the guest sees it (offset in CS) */
    uint32_t mode; /* CPU_KEY_* */
    uint64_t cs_base;
    uint32_t cs_limit; /* 16/32-bit code: branches out of the segment are faults */
};
/* Do blocks with these keys run in the same code segment? */
static inline bool cc_same_segment(const struct cc_key *a, const struct cc_key *b)
{
    return a->cs_base == b->cs_base && a->cs_limit == b->cs_limit;
}
struct cc_block {
    struct cc_key key;
    struct cc_block *hash_next; /* private to codecache; here because a look-up reads both */
    uint64_t phys2;             /* second page of an instruction that crosses, or ~0 */
    struct ccf_desc d;
    const struct ccf_point *point; /* ascending by construction within hot, then cold: see cc_find_point */
    bool dead, dying;
    struct cc_links *links; /* private to codecache */
    struct cc_block *page_next[2];
};
/* Where b is entered; CCF_ENTRY*. */
static inline uint32_t cc_entry(const struct cc_block *b, unsigned kind)
{
    return b->d.hot_pc + (uint32_t)b->d.entry[kind];
}
/* Space to write a translation: host addresses where it will execute and where to write. */
struct cc_space {
    uint8_t *hot, *hot_end, *cold, *cold_end; /* writable view */
    uint64_t hot_pc, cold_pc;                 /* executable view */
};

/* bytes is rounded to whole sectors. -RD_E_HOST if no executable memory in the low 2 GiB is to be had. */
int cc_create(struct codecache **out, size_t bytes, struct stats *stats);
void cc_destroy(struct codecache *cc);
/* A permanent area at the start for glue code. */
void cc_glue_space(struct codecache *cc, struct cc_space *s);

struct cc_block *cc_lookup(struct codecache *cc, const struct cc_key *k);
/* Room for hot_bytes and cold_bytes; evicts the oldest sector when the current one is full: every cc_block pointer may die. */
void cc_reserve(struct codecache *cc, uint32_t hot_bytes, uint32_t cold_bytes, struct cc_space *s);
/* The same, with hot_pc at the jump that ends from (its fall_exit): the new block continues it in place, beginning with the entry that
 * the exit has. False if from is not the
 * last one, or there is no room.
 * Before cc_commit, ask cc_fits_in_place:
 * a block that rewrites its own first bytes does not (cc_restore_jump, and reserve again). */
bool cc_reserve_in_place(struct codecache *cc, const struct cc_block *from, uint32_t hot_bytes, uint32_t cold_bytes,
                         struct cc_space *s);
bool cc_fits_in_place(const struct ccf_desc *d);
void cc_restore_jump(struct codecache *cc, const struct cc_block *from);
/* Takes over the code just written. Returns the block, or NULL when out of host memory (nothing changed). */
struct cc_block *cc_commit(struct codecache *cc, const struct cc_key *k, uint64_t phys2, const struct ccf_desc *d,
                           const struct ccf_point *points);
/* Chains exit i of from to the target's entry, or, via_jc, to its own jump-cache stub. */
void cc_link(struct codecache *cc, struct cc_block *from, unsigned i, struct cc_block *to, bool via_jc);
/* The block whose code contains pc, or NULL. */
struct cc_block *cc_find(const struct codecache *cc, uint64_t pc);
/* The block, and the number of its exit, that goes by this name (ccf_exit.name_pc), or NULL. */
struct cc_block *cc_find_exit(const struct codecache *cc, uint32_t name, unsigned *i);
/* What exit i of from is linked to, if that is the block of this key: an exit is left in spite of a link through the jump cache. */
struct cc_block *cc_linked(const struct cc_block *from, unsigned i, const struct cc_key *k);
/* The recovery point of exactly this host pc, or NULL. */
const struct ccf_point *cc_find_point(const struct cc_block *b, uint64_t pc);

/* Guest bytes change: blocks that were made from any of them die. Returns how many. dropped(opaque, block) is called for each
 * before (the jump cache must forget it). */
unsigned cc_invalidate(struct codecache *cc, uint64_t phys, uint64_t bytes);
bool cc_page_has_code(const struct codecache *cc, uint64_t phys);
/* evicting(opaque) is called before blocks are evicted: the last time that cc_find knows their addresses. Either may be NULL. */
void cc_set_hooks(struct codecache *cc, void (*dropped)(void *opaque, struct cc_block *b),
                  void (*evicting)(void *opaque), void *opaque);
/* The mapping of a linear page (or, ~0, of all) changed: undo links across pages that rely on it. */
void cc_unlink_cross(struct codecache *cc, uint64_t page_lin);
void cc_flush(struct codecache *cc);

/* Makes the running block leave at its end: undoes its exits until cc_unkick. Returns the pc to continue at (a rewound one if pc
 * is inside the inline indirect look-up). */
uint64_t cc_kick(struct codecache *cc, struct cc_block *b, uint64_t pc);
void cc_unkick(struct codecache *cc);

/* Walks everything; CHECKs the invariants. */
void cc_verify(const struct codecache *cc);
/* Does the jump cache's way into a live block at rip lead to pc? A block that was nothing but its jump may have another one in its place. */
bool cc_is_entry(const struct codecache *cc, uint64_t pc, uint64_t rip);
unsigned cc_block_count(const struct codecache *cc);
size_t cc_bytes_used(const struct codecache *cc);
/* Writable view of code at pc. */
uint8_t *cc_writable(const struct codecache *cc, uint64_t pc);
#endif
