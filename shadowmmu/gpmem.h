/* shadowmmu/gpmem.h - guest physical memory: RAM, ROM, holes, and what the monitor knows about each page.
 *
 * Role:     one memfd backs all RAM and ROM; it is mapped linearly and read/write in the monitor, so a GPA inside a slot is
 *           one addition away from a host pointer. Everything outside slots is MMIO. Per 4 KiB page there is one byte of
 *           flags: every alias (soft TLB, window, user worlds, device DMA) must honour them.
 * Owner:    gpmem_create/gpmem_destroy by the VM; host pointers live until gpmem_destroy.
 * Threads:  slots are fixed before the first vCPU runs; flags belong to the vCPU thread. nofpu: gpmem_ptr, gpmem_page_flags.
 */
#ifndef SHADOWMMU_GPMEM_H
#define SHADOWMMU_GPMEM_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct gpmem;
#define GPMEM_MAX_SLOTS 16
struct gpmem_slot {
    uint64_t gpa, bytes; /* multiples of 4 KiB */
    uint64_t memfd_offset;
    uint8_t *host;  /* linear mapping of this slot */
    uint8_t *flags; /* one GP_* byte per page */
    bool rom;       /* guest writes are dropped (and logged) */
};
/* Page flags. A page with any of GP_TRACED_MASK set never gets a write entry in a TLB or a writable mapping. */
#define GP_CODE 0x01u /* holds translated code: writes invalidate CCFs */
#define GP_PT 0x02u   /* a guest page table the shadow depends on */
#define GP_DIRTYLOG 0x04u
#define GP_WORLD 0x08u /* may be writable in a user world: look there before tracing it */
#define GP_TRACED_MASK 0x07u

/* Creates an empty address space of at most max_bytes of backing. 0 or -RD_E_*. */
int gpmem_create(struct gpmem **out, uint64_t max_bytes);
void gpmem_destroy(struct gpmem *m);
/* Adds RAM or ROM at gpa (page aligned, no overlap: -RD_E_INVAL). Contents are zero. */
int gpmem_add(struct gpmem *m, uint64_t gpa, uint64_t bytes, bool rom);
/* The slots, ascending by gpa, for generated-code contracts, window and snapshot. */
const struct gpmem_slot *gpmem_slots(const struct gpmem *m, unsigned *count);
int gpmem_fd(const struct gpmem *m);
uint64_t gpmem_ram_bytes(const struct gpmem *m);

/* Slot of a GPA or NULL (MMIO). */
const struct gpmem_slot *gpmem_find(const struct gpmem *m, uint64_t gpa);
/* Host pointer of a GPA inside RAM/ROM or NULL. Valid up to the end of the 4 KiB page at least. */
uint8_t *gpmem_ptr(const struct gpmem *m, uint64_t gpa);
/* Flags byte of the page of a GPA or NULL (MMIO). */
uint8_t *gpmem_page_flags(const struct gpmem *m, uint64_t gpa);
/* Bulk copies for loaders and devices. They skip nothing: whole range must be in slots, else -RD_E_RANGE, nothing copied.
 * gpmem_write is how DMA enters guest memory: it calls the trace hook for pages with flags before the bytes change. */
int gpmem_read(const struct gpmem *m, uint64_t gpa, void *buf, size_t bytes);
int gpmem_write(struct gpmem *m, uint64_t gpa, const void *buf, size_t bytes);
/* The hook must be nofpu: the page walker calls it before it sets accessed/dirty bits in a page that also holds code.
 * Called as hook(opaque, gpa, bytes) for writes into a page that has trace flags (bytes never crosses a page). */
void gpmem_set_trace_hook(struct gpmem *m, void (*hook)(void *opaque, uint64_t gpa, size_t bytes), void *opaque);
#endif
