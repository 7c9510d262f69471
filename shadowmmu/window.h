/* shadowmmu/window.h - the shadow of the guest's supervisor mappings that the host MMU walks for translated kernel code.
 *
 * Role:     a large TLB made of host mappings: guest page at linear address L <-> piece of guest memory's memfd mapped at
 *           base + L. It holds what the guest's tables allowed when it was entered, like a TLB; whoever sees INVLPG, a CR3 load or
 *           a global flush says so here. Pages with trace flags are never writable in it.
 *           64-bit: base = 0x00007ffffffff000 wraps the guest's upper half onto the host's lower half; the lower half is never
 *           in it. 32-bit: one reserved 4 GiB range.
 * Owner:    window_create/window_destroy, per vCPU.   Threads: the vCPU's. nofpu. Signals: all but create/destroy may be
 *           called from the fault handler while translated code runs (nothing else runs then).
 * Limits:   never maps over anything it has not mapped itself: WINDOW_CONFLICT. Keeps under a number of host mappings by
 *           emptying itself.
 */
#ifndef SHADOWMMU_WINDOW_H
#define SHADOWMMU_WINDOW_H
#include "base/stat.h"
#include "shadowmmu/gpmem.h"
#include <stdbool.h>
#include <stdint.h>

struct window;
#define WINDOW64_BASE 0x00007ffffffff000ull
/* Host addresses that can stand for a guest upper-half address. */
#define WINDOW64_HOST_END 0x00007fffffffefffull

enum window_status {
    WINDOW_OK,
    WINDOW_CONFLICT, /* the host already has something there */
    WINDOW_REFUSED   /* the host would not map it, even after the window was emptied; or full again too soon */
};

/* wide: the 64-bit kind. 0 or -RD_E_*. */
int window_create(struct window **out, struct gpmem *mem, bool wide, struct stats *stats);
void window_destroy(struct window *w);
uint64_t window_base(const struct window *w); /* what GS base must be */
/* Linear address that a host fault address stands for; false if it is none of this window's. */
bool window_linear(const struct window *w, uint64_t host, uint64_t *lin);

/* Enters a translation: the 4 KiB page at lin, or, if the guest's page is larger, the 2 MiB around it where that is plain memory. */
enum window_status window_map(struct window *w, uint64_t lin, uint64_t gpa, uint64_t page_bytes, bool writable,
                              bool global);
bool window_has(const struct window *w, uint64_t lin, bool write);
/* What is entered for a page: false, or its guest frame and whether writes go through. */
bool window_lookup(const struct window *w, uint64_t lin, uint64_t *gpa, bool *write);
/* Calls f for every page entered: for the audit. */
void window_each(const struct window *w, void (*f)(void *opaque, uint64_t lin, uint64_t gpa, bool write, bool global),
                 void *opaque);
/* The translation of the page (and of the large page around it) is gone. */
void window_invalidate(struct window *w, uint64_t lin);
void window_flush(struct window *w, bool global_too);
/* A guest physical page has become traced: no alias may be written any more. */
void window_protect(struct window *w, uint64_t gpa);
/* Where its own two tables lie, for those who account for memory. */
void window_tables(const struct window *w, const void *at[2], size_t bytes[2]);
/* Host mappings in use, about. */
unsigned window_mappings(const struct window *w);
#endif
