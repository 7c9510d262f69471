/* monitor/pcid.h - process-context identifiers (SDM 3A 4.10.1): what an address space had in the monitor's TLBs, kept for when it is
 * current again.
 *
 * Role:    with CR4.PCIDE a MOV to CR3 may leave the translations of both PCIDs in place. Generated code knows one address space, the
 *          current one: those of others are *parked*, out of its sight, in a few places for the PCIDs that were current last.
 *          What is parked may be thrown away at any time, as from any TLB: whatever is not sure that it still holds, is.
 * What:    entries of the soft TLBs that are not global; the jump cache of user code; and a number, the translations' generation,
 *          by which the fetch TLB and user worlds see whether what they have is of now.
 * Threads: the vCPU's. nofpu.
 */
#ifndef MONITOR_PCID_H
#define MONITOR_PCID_H
#include "codecache/jumpcache.h"
#include "shadowmmu/softtlb.h"
#include <stdbool.h>

#define PCID_PARKS 8u

struct vcpu;
struct pcid_park {
    bool used;
    uint16_t pcid;
    uint64_t root, generation, stamp;
    struct stlb_park tlb[2]; /* supervisor, user */
    struct jc_park jc;       /* of CPL 3: kernels' blocks are global, or else not worth it */
    uint32_t jc_key, jc_cs_limit;
    uint64_t jc_cs_base;
};
struct pcids {
    uint16_t current;
    uint64_t root; /* that CR3 has */
    uint64_t stamp;
    struct pcid_park park[PCID_PARKS];
};

/* The one that CR3 and CR4 say is current. */
uint16_t pcid_of_cr3(const struct vcpu *v);
/* The current address space's translations leave what generated code sees, for a parking place. */
void pcid_leave(struct vcpu *v);
/* CR3's is current from now on; what is parked comes back if keep is set and its root is the same, else it is forgotten. */
void pcid_enter(struct vcpu *v, bool keep);
/* The same without a look at what is parked: for what flushes. False: its root is another one than CR3 had before. */
bool pcid_take_cr3(struct vcpu *v);
/* Parked translations of one PCID; all there are. */
void pcid_forget(struct vcpu *v, uint16_t pcid);
void pcid_forget_all(struct vcpu *v);
/* Nobody may write to this host page through a parked translation. */
void pcid_protect(struct vcpu *v, const uint8_t *host_page);
/* A block dies: parked jumps must not lead to it. */
void pcid_drop_blocks(struct vcpu *v);
#endif
