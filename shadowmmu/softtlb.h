/* shadowmmu/softtlb.h - the software TLB that translated code looks up inline.
 *
 * Role:    direct-mapped by linear page number. tag_r/tag_w hold MINUS the page's linear address if a read / a write of that
 *          page may go straight to memory, else a value that can never match at that index. addend = host - linear.
 * Who:     generated code reads, and enters stack_r and stack_w; softtlb_* (nofpu, vCPU thread) write.
 * Rule:    a write tag exists only if the guest's PTE allows it, its D bit is set, and the page has no trace flags; no tag at
 *          all for MMIO, for pages with a data breakpoint, for non-canonical addresses. Audit: softtlb_verify.
 */
#ifndef SHADOWMMU_SOFTTLB_H
#define SHADOWMMU_SOFTTLB_H
#include <stdbool.h>
#include <stdint.h>

/* Large, because generated code makes the index with a rotation and a 16-bit zero extension, which is cheaper than cutting out
 * fewer bits; what is filled is listed, so that emptying it costs by content, not by size. */
#define STLB_BITS 16
#define STLB_SIZE (1u << STLB_BITS)
#define STLB_LISTED 16384u /* full: everything is flushed */
/* The page that an access on the stack was on last, found without an index. The tag is minus the start of a window of half a page,
 * in which the access's last byte must be: the window starts STLB_STACK_SPAN bytes into the page or later, so that the first byte
 * of what is no longer than that is in the page, too. An empty one is at 2^63, which is never canonical, and its host address is
 * not either: the access itself faults, and is done again with care. */
#define STLB_STACK_SPAN 128
#define STLB_STACK_WINDOW 2048
struct stlb_stack {
    int64_t tag;
    uint64_t addend;
};
/* Notes of large pages of which a part was entered, for each half of the address space: kernels have many, INVLPG is mostly for
 * programs, and has to look at all entries where there may be a large page. */
struct stlb_large {
    uint64_t mega[2]; /* bit n: one of 2 or 4 MiB with (linear >> 21) & 63 == n */
    uint64_t giga[2]; /* bit n: a larger one with (linear >> 30) & 63 == n */
};
/* Indexes of filled entries (and of some emptied or refilled ones). */
struct stlb_list {
    uint32_t n;
    uint16_t at[STLB_LISTED];
};
struct softtlb {
    struct stlb_stack stack_r,
        stack_w; /* of what the tables have, for reads and for writes; emptied at every change of them */
    int64_t tag_r[STLB_SIZE];
    int64_t tag_w[STLB_SIZE];
    uint64_t addend[STLB_SIZE];
    uint64_t global[STLB_SIZE / 64];    /* survives a CR3 load */
    struct stlb_list fleeting, lasting; /* of entries that are not global; of those that are */
    struct stlb_large large;
};
#define STLB_STACK_NONE INT64_MIN /* minus 2^63, which is 2^63 */
/* Minus the window's distance from the page for a last byte whose bits 9 to 11 are n: the access is around its middle if it can be. */
static inline int64_t stlb_stack_from(unsigned n)
{
    int64_t from = ((int64_t)n - 2) * 512;
    return -(from < STLB_STACK_SPAN ? STLB_STACK_SPAN : from > STLB_STACK_WINDOW ? STLB_STACK_WINDOW : from);
}
/* What an address space had that is not current: kept for when it is again (PCIDs, SDM 3A 4.10.1). */
/* A refill costs 200 ns, taking an entry away and back a tenth: worth it for those used at one in ten switches. */
#define STLB_PARKED 64u
struct stlb_park {
    uint32_t n;
    struct stlb_large large;
    struct {
        int64_t tag_r, tag_w;
        uint64_t addend;
    } entry[STLB_PARKED];
};
static inline bool stlb_stack_is(const struct stlb_stack *s, uint64_t lin)
{
    return s->tag != STLB_STACK_NONE && ((uint64_t)-s->tag ^ lin) >> 12 == 0;
}
static inline unsigned stlb_index(uint64_t lin) { return (unsigned)(lin >> 12) & (STLB_SIZE - 1); }

/* *t must be zero, as fresh memory is: what is never filled then costs no memory. */
void softtlb_init(struct softtlb *t);
/* Enters a page: 4 KiB of a guest page of page_bytes. */
void softtlb_fill(struct softtlb *t, uint64_t lin, const uint8_t *host_page, uint64_t page_bytes, bool write,
                  bool global);
void softtlb_flush_all(struct softtlb *t);
void softtlb_flush_nonglobal(struct softtlb *t);
/* One guest page, all of it if it may be a large one. */
void softtlb_flush_page(struct softtlb *t, uint64_t lin);
/* Everything that is not global leaves t, the entries made last for *park, as many as it holds. What was in it is forgotten. */
void softtlb_park(struct softtlb *t, struct stlb_park *park);
/* ... and comes back. t has nothing but global entries. *park is empty afterwards. */
void softtlb_unpark(struct softtlb *t, struct stlb_park *park);
void softtlb_park_protect(struct stlb_park *park, const uint8_t *host_page);
/* As softtlb_each. */
void softtlb_park_each(const struct stlb_park *park,
                       void (*f)(void *opaque, uint64_t lin, const uint8_t *host, bool write, bool global),
                       void *opaque);
/* Calls f for every entry, whatever the list of filled ones says: for the audit. */
void softtlb_each(const struct softtlb *t,
                  void (*f)(void *opaque, uint64_t lin, const uint8_t *host, bool write, bool global), void *opaque);
/* Takes away every write tag that leads to a page of guest memory (it has become traced). */
void softtlb_protect(struct softtlb *t, const uint8_t *host_page);
#endif
