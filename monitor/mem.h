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
#define MEM_SUPER 0x04u /* implicit supervisor access (descriptor tables, TSS, exception stack): U/S = S whatever the CPL */
#define MEM_RW 0x08u    /* read that will be followed by a write: checked as a write */

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
#endif
