/* monitor/cpumodel.h - the CPU that the guest is told it has: CPUID leaves, offered features, what XSAVE may hold.
 *
 * Role:    made once per VM out of the host's CPUID, monitor/cpufeat.def and the -cpu option; constant afterwards, but for the
 *          parts of CPUID that mirror the guest's own state (OSXSAVE, APIC, XSAVE size), which sys_cpuid adds.
 * Owner:   cpumodel_create/cpumodel_destroy by the VM, before the first vCPU is reset; struct vcpu points to it.
 * nofpu:   cpumodel_has, cpumodel_arch_capabilities. The rest needs fpu_leave.
 */
#ifndef MONITOR_CPUMODEL_H
#define MONITOR_CPUMODEL_H
#include <stdbool.h>
#include <stdint.h>

enum cpu_feat {
#define FEAT(id, name, leaf, sub, reg, bit, how, text) CPU_FEAT_##id,
#include "monitor/cpufeat.def"
#undef FEAT
    CPU_FEAT_COUNT
};
struct cpuid_leaf {
    uint32_t leaf, sub, out[4]; /* eax, ebx, ecx, edx */
};
#define CPUMODEL_LEAVES 80
#define CPUMODEL_HV_LEAVES 24
struct cpumodel {
    uint64_t has[(CPU_FEAT_COUNT + 63) / 64];
    bool intel, amd;
    uint32_t max_basic, max_ext;
    uint64_t xcr0;                 /* bits that XSETBV may set; 0 without XSAVE */
    uint32_t xsave_bytes;          /* standard-format area for all of them */
    uint32_t xoffset[8], xsize[8]; /* of extended components, standard format */
    uint32_t xaligned;             /* bit i: component i starts at a multiple of 64 in the compacted format */
    uint32_t tsc_khz;              /* of leaves 0x15 and 0x16; 0: not told */
    unsigned n, n_hv;
    struct cpuid_leaf leaf[CPUMODEL_LEAVES];
    struct cpuid_leaf hv[CPUMODEL_HV_LEAVES];
};
static inline bool cpumodel_has(const struct cpumodel *m, enum cpu_feat f) { return m->has[f / 64] >> (f % 64) & 1; }

/* How a host answers CPUID; tests put another one in. */
typedef void cpuid_fn(uint32_t leaf, uint32_t sub, uint32_t out[4]);
void cpumodel_host_cpuid(uint32_t leaf, uint32_t sub, uint32_t out[4]);
/* spec = "MODEL[,+feat][,-feat][,feat=on|off]..." with MODEL host, max, qemu64, kvm64 (NULL = host). Refused with -RD_E_INVAL
 * or -RD_E_UNSUPPORTED: *bad = the word that was wrong, in a buffer of bad_bytes. */
int cpumodel_create(struct cpumodel **out, const char *spec, cpuid_fn *host, char *bad, unsigned bad_bytes);
void cpumodel_destroy(struct cpumodel *m);
/* Puts the hypervisor's leaves (0x40000000 up; leaf, eax, ebx, ecx, edx) in. -RD_E_RANGE if there are too many. */
int cpumodel_set_hv(struct cpumodel *m, const uint32_t (*leaves)[5], unsigned n);
/* Fills leaves 0x15 and 0x16. crystal_hz must be the LAPIC timer's input clock: stock kernels take it for that. */
void cpumodel_set_tsc(struct cpumodel *m, uint32_t tsc_khz, uint32_t crystal_hz);
/* One static leaf, as it stands before the guest's own state is added. Highest-leaf rule of the vendor applied. */
void cpumodel_leaf(const struct cpumodel *m, uint32_t leaf, uint32_t sub, uint32_t out[4]);
/* Feature names for -cpu help: name and whether it is on. NULL past the end. */
const char *cpumodel_feature(const struct cpumodel *m, unsigned i, bool *on);
/* IA32_ARCH_CAPABILITIES as offered (msr.c). */
uint64_t cpumodel_arch_capabilities(const struct cpumodel *m);
#endif
