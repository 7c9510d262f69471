/* monitor/mem.h - guest memory as the instructions of the guest see it, for C code that carries out instructions.
 *
 * Role:    linear or segmented access with every check (segment type and limit, canonical, alignment, paging, U/S, WP), traced
 *          pages, MMIO, page crossing. Either the whole access succeeds or nothing was written.
 * Returns: 0, or SYS_FAULT with v->fault filled, or SYS_EXIT (MMIO that the embedder must serve; instruction restarts).
 * nofpu:   yes, unless a device has to be called (then fpu_leave happens inside).
 */
#ifndef MONITOR_MEM_H
#define MONITOR_MEM_H
#include "monitor/vcpu.h"

#define MEM_R 0x00u
#define MEM_W 0x01u
#define MEM_X 0x02u
/* Implicit supervisor access (descriptor tables, TSS, exception stack): U/S = S whatever the CPL. */
#define MEM_SUPER 0x04u
#define MEM_UNALIGNED 0x10u /* never #AC: part of a vector */
#define MEM_RW 0x08u        /* read that will be followed by a write: checked as a write */

/* seg:off -> linear, with limit, type, null, canonical checks for n bytes; fault #GP(0) or #SS(0). In 64-bit mode only
 * FS/GS bases and canonicality count. off must already be truncated to the address size. */
int mem_linear(struct vcpu *v, unsigned seg, uint64_t off, unsigned n, unsigned how, uint64_t *lin);
/* Linear accesses, n <= 8192. */
int mem_read(struct vcpu *v, uint64_t lin, void *buf, unsigned n, unsigned how);
int mem_write(struct vcpu *v, uint64_t lin, const void *buf, unsigned n, unsigned how);
/* Would the access be allowed? Sets A (and D for writes, as hardware may). 0 or SYS_FAULT. */
int mem_probe(struct vcpu *v, uint64_t lin, unsigned n, unsigned how);
/* Little-endian integers of n = 1, 2, 4, 8 bytes. */
int mem_read_u(struct vcpu *v, uint64_t lin, unsigned n, unsigned how, uint64_t *val);
int mem_write_u(struct vcpu *v, uint64_t lin, unsigned n, unsigned how, uint64_t val);
/* Direct host pointer for a run of plain RAM inside one page, or NULL (MMIO, traced for writes, watched). On a fault returns
 * NULL with *fault = SYS_FAULT. For string instructions. */
uint8_t *mem_direct(struct vcpu *v, uint64_t lin, unsigned how, int *fault);
/* After mem_direct has refused a write to lin, of which n bytes from lin - below on, in the same page, are about to be written at
 * once: if all that is in the way is translated code, what came from these bytes is dropped. Host pointer of lin, or NULL. */
uint8_t *mem_direct_over_code(struct vcpu *v, uint64_t lin, unsigned below, unsigned n);
/* One page: what the byte at lin is, with paging checks as for a real access (A and D are set, the soft TLB is filled).
 * *host is NULL for MMIO, and for writes (MEM_W, MEM_RW) to ROM: mem_write drops those. Alignment, data breakpoints and
 * traced pages are the caller's: mem_check_align before, vcpu_trace_write and mem_check_watch when the access happens. */
int mem_translate(struct vcpu *v, uint64_t lin, unsigned how, uint64_t *gpa, uint8_t **host);
/* The same for instruction fetch; *global = the translation survives a CR3 load; *bytes = size of the guest's page. Host NULL:
 * code in MMIO. */
int mem_fetch_page(struct vcpu *v, uint64_t lin, uint64_t *gpa, uint8_t **host, bool *global, uint64_t *bytes);
/* #AC(0) if alignment checks are live and lin is not aligned for n bytes (SDM 3A table 6-7). 0 or SYS_FAULT. */
int mem_check_align(struct vcpu *v, uint64_t lin, unsigned n, unsigned how);
/* Data breakpoints: ors the B bits of enabled matching DR0-DR3 into v->dr6_pending. */
void mem_check_watch(struct vcpu *v, uint64_t lin, unsigned n, unsigned how);
/* Is an enabled data breakpoint in this page? Such a page is never in the soft TLB: flush it when DR0-3 or DR7 change. */
bool mem_page_watched(const struct vcpu *v, uint64_t lin);

/* -- provided by the rest of the monitor to this code -- */
/* A page with trace flags is about to be written (bytes do not cross the page). nofpu. */
void vcpu_trace_write(struct vcpu *v, uint64_t gpa, unsigned bytes);
/* A device's memory, size 1, 2, 4 or 8, within a page. Returns 0 or SYS_EXIT. */
int vcpu_mmio(struct vcpu *v, uint64_t gpa, unsigned size, bool is_write, uint8_t *data);
#endif
