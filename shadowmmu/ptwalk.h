/* shadowmmu/ptwalk.h - the guest's own page tables, walked as the MMU walks them (SDM 3A chapter 4).
 *
 * Role:    linear address -> guest physical address for one access, with permission and reserved-bit checks, setting accessed
 *          and dirty bits as hardware does (only when the access is allowed). No caching here.
 * nofpu.   No host state is touched but guest RAM (through gpmem) and, via the trace hook, nothing else.
 */
#ifndef SHADOWMMU_PTWALK_H
#define SHADOWMMU_PTWALK_H
#include "arch/cpu.h"
#include "shadowmmu/gpmem.h"
#include <stdbool.h>
#include <stdint.h>

enum pt_access { PT_READ = 0, PT_WRITE = 1, PT_EXEC = 2 };
#define PT_USER 0x10u /* ored in: a user-mode access (CPL 3 and not an implicit supervisor access) */
/* ored in: an implicit supervisor access (descriptor, TSS): SMAP applies whatever EFLAGS.AC */
#define PT_IMPLICIT 0x40u
#define PT_PROBE 0x20u /* ored in: do not set accessed/dirty bits (debugger, audit) */

struct pt_result {
    uint64_t gpa;        /* of the byte asked for */
    uint64_t page_bytes; /* size of the leaf page: 4K, 2M, 4M, 1G (or 4 GiB.. when paging is off: 1G) */
    bool writable;       /* a write by the same kind of access would be allowed now (U/S, CR0.WP considered) ... */
    bool dirty;          /* ... and the D bit is already set, so a write entry may be cached */
    bool user;           /* U/S all along the walk */
    bool global;         /* G in the leaf and CR4.PGE (or paging off: true) */
    bool nx;
    unsigned n_tables;     /* tables visited ... */
    uint64_t table_gpa[5]; /* ... their pages, root first: what a shadow must trace */
};
/* Returns 0 and *r, or 1 with *pf_error = the #PF error code (SDM 3A 4.7). lin must be canonical in long mode. */
int pt_walk(struct gpmem *m, const struct cpu *c, uint64_t lin, unsigned access, struct pt_result *r,
            uint32_t *pf_error);
/* No reserved bit set in what MOV CR3 would load? */
bool pt_pdptes_valid(const uint64_t pdpte[4]);
/* Loads c->pdpte[] for PAE paging from CR3 as MOV CR3 does. Returns 0, or 1 if a reserved bit is set (#GP(0)). */
int pt_load_pdptes(struct gpmem *m, struct cpu *c, uint64_t cr3);
/* Physical-address width offered to the guest (CPUID 0x80000008), for reserved bits. */
#define GUEST_MAXPHYADDR 40
#endif
