/* shadowmmu/gpmem_int.h - what gpmem.c (set-up, bulk copies) and gpmem_nofpu.c (look-ups) share. Private to shadowmmu.
 *
 * Invariants:
 *  GP-1  slots are ascending by gpa, do not overlap, and each [gpa, gpa + bytes) lies below GPMEM_GPA_END.
 *  GP-2  host and memfd_offset are congruent to gpa modulo 2 MiB, so that a large guest page can be one large host page.
 *  GP-3  every slot's mapping has GPMEM_GUARD_BYTES of inaccessible addresses on both sides.
 *  GP-4  mappings lie in [4 GiB, 8 TiB): low enough to be out of every guest's way (DESIGN.md, kernel window).
 */
#ifndef SHADOWMMU_GPMEM_INT_H
#define SHADOWMMU_GPMEM_INT_H
#include "shadowmmu/gpmem.h"

#define GPMEM_GPA_END (1ull << 52)
#define GPMEM_GUARD_BYTES (2ull << 20)

struct gpmem {
    unsigned n_slots;
    struct gpmem_slot slots[GPMEM_MAX_SLOTS];
    int fd;
    uint64_t max_bytes;  /* backing promised to the caller */
    uint64_t used_bytes; /* ... and given to slots */
    uint64_t file_bytes, next_offset;
    void (*trace_hook)(void *opaque, uint64_t gpa, size_t bytes);
    void *trace_opaque;
};

/* Tells the hook that bytes of one page are about to change, if the page has any of the flags in mask. nofpu. */
void gpmem_trace(const struct gpmem *m, uint64_t gpa, size_t bytes, uint8_t mask);
#endif
