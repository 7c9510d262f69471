/* monitor/msr.h - storage of the model-specific registers that struct cpu has no field for.
 * A slot per MSR of kind STORE or TYPES, and a few for those with functions of their own; saved by number, never by slot. */
#ifndef MONITOR_MSR_H
#define MONITOR_MSR_H
#include <stdbool.h>
#include <stdint.h>

enum msr_slot {
    MSR_SLOT_NONE,
#define MSR(num, name, when, kind, a, b) MSR_SLOT_##name,
#include "monitor/msr.def"
#undef MSR
    MSR_SLOT_COUNT
};
struct msr_store {
    uint64_t val[MSR_SLOT_COUNT];
};

struct vcpu;
/* Values at RESET (init = false) or INIT, which keeps most (SDM 3A table 9-1). */
void msr_reset(struct vcpu *v, bool init);
/* The MSRs whose values are state, ascending, for snapshots and migration: read with sys_rdmsr, written back with sys_wrmsr.
 * Those that do not exist on this CPU model are left out by *exists = false. 0 past the end, else 1. */
int msr_saved(const struct vcpu *v, unsigned i, uint32_t *msr, bool *exists);
#endif
