/* monitor/msr.c - model-specific registers (SDM vol. 4; AMD64 APM vol. 2 appendix A): msr.def made to work. nofpu.
 *
 * A write is checked completely before anything changes. Reads and writes of what msr.def does not list go to the embedder,
 * behind fpu_leave.
 */
#include "monitor/fpu.h"
#include "monitor/msr.h"
#include "base/log.h"
#include "monitor/cpumodel.h"
#include "monitor/engine.h"
#include "monitor/sysinsn.h"
#include "shadowmmu/ptwalk.h"

enum when { ANY, INTEL, AMD, TSC_AUX, ARCH_CAP, SPEC_CTRL };
enum kind { CPU, CONST, IGNORE, STORE, TYPES, FUNC };
enum check { CANON, LOW32, FREE };
enum type_set { PAT, MTRR };
struct msr_desc {
    uint32_t num;
    uint8_t when, kind, slot;
    uint8_t check;
    uint16_t field;      /* CPU: offset in struct cpu */
    uint64_t init, mask; /* CONST, IGNORE, STORE, TYPES */
    int (*rd)(struct vcpu *v, uint32_t msr, uint64_t *val);
    int (*wr)(struct vcpu *v, uint32_t msr, uint64_t val);
};

/* 0 or SYS_FAULT without v->fault: the callers fill that in. */
#define BAD SYS_FAULT

/* ---- time ---- */

static inline uint64_t rdtsc(void)
{
    uint32_t lo, hi;
    __asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi));
    return lo | (uint64_t)hi << 32;
}

static int msr_rd_tsc(struct vcpu *v, uint32_t msr, uint64_t *val)
{
    *val = rdtsc() + v->c.tsc_offset;
    return 0;
}

/* SDM 3B 18.17.3: a write of either register moves the other by the same amount. */
static void shift_tsc(struct vcpu *v, uint64_t delta)
{
    v->c.tsc_offset += delta;
    v->msr.val[MSR_SLOT_TSC_ADJUST] += delta;
    cpu_update_key(&v->c);
}

static int msr_wr_tsc(struct vcpu *v, uint32_t msr, uint64_t val)
{
    shift_tsc(v, val - (rdtsc() + v->c.tsc_offset));
    return 0;
}

static int msr_rd_tsc_adjust(struct vcpu *v, uint32_t msr, uint64_t *val)
{
    *val = v->msr.val[MSR_SLOT_TSC_ADJUST];
    return 0;
}

static int msr_wr_tsc_adjust(struct vcpu *v, uint32_t msr, uint64_t val)
{
    shift_tsc(v, val - v->msr.val[MSR_SLOT_TSC_ADJUST]);
    return 0;
}

/* ---- identification ---- */

static int ignore_write(struct vcpu *v, uint32_t msr, uint64_t val) { return 0; }
static int refuse_write(struct vcpu *v, uint32_t msr, uint64_t val) { return BAD; }

/* A microcode revision that no quirk table knows; writing is how the revision is asked for (SDM 3A 9.11.7). */
static int msr_rd_sign_id(struct vcpu *v, uint32_t msr, uint64_t *val)
{
    *val = v->cpu && v->cpu->amd ? 0x01000065 : 1ull << 32;
    return 0;
}
#define msr_wr_sign_id ignore_write

/* Bits 15:8: the TSC's frequency in units of 100 MHz; no CPUID faulting. */
static int msr_rd_platform_info(struct vcpu *v, uint32_t msr, uint64_t *val)
{
    uint64_t ratio = v->cpu ? (v->cpu->tsc_khz + 50000) / 100000 : 0;
    *val = (ratio & 0xff) << 8;
    return 0;
}
#define msr_wr_platform_info refuse_write

/* SDM vol. 4, IA32_ARCH_CAPABILITIES. docs/CPUID.md says what these promises mean here. */
uint64_t cpumodel_arch_capabilities(const struct cpumodel *m)
{
    uint64_t caps = 1ull << 0     /* RDCL_NO */
                    | 1ull << 3   /* SKIP_L1DFL_VMENTRY */
                    | 1ull << 4   /* SSB_NO */
                    | 1ull << 5   /* MDS_NO */
                    | 1ull << 6   /* IF_PSCHANGE_MC_NO */
                    | 1ull << 8   /* TAA_NO */
                    | 1ull << 13  /* SBDR_SSDP_NO */
                    | 1ull << 14  /* FBSDP_NO */
                    | 1ull << 15  /* PSDP_NO */
                    | 1ull << 20  /* BHI_NO */
                    | 1ull << 24  /* PBRSB_NO */
                    | 1ull << 26  /* GDS_NO */
                    | 1ull << 27  /* RFDS_NO */
                    | 1ull << 62; /* ITS_NO */
    if (cpumodel_has(m, CPU_FEAT_SPEC_CTRL))
        caps |= 1ull << 1; /* IBRS_ALL */
    return cpumodel_has(m, CPU_FEAT_ARCH_CAPABILITIES) ? caps : 0;
}

static int msr_rd_arch_cap(struct vcpu *v, uint32_t msr, uint64_t *val)
{
    *val = cpumodel_arch_capabilities(v->cpu);
    return 0;
}
#define msr_wr_arch_cap refuse_write

/* Fast strings may be switched off and on; branch trace and precise events are not available (bits 11, 12); the rest is 0. */
#define MISC_FAST_STRINGS 1ull
#define MISC_FIXED 0x1800ull
static int msr_rd_misc_enable(struct vcpu *v, uint32_t msr, uint64_t *val)
{
    *val = v->c.misc_enable | MISC_FIXED;
    return 0;
}
static int msr_wr_misc_enable(struct vcpu *v, uint32_t msr, uint64_t val)
{
    v->c.misc_enable = (val & MISC_FAST_STRINGS) | MISC_FIXED;
    return 0;
}

/* Last-branch records and branch stepping (bits 0, 1) do not stick: a guest that looks finds them off. */
static int msr_rd_debugctl(struct vcpu *v, uint32_t msr, uint64_t *val)
{
    *val = 0;
    return 0;
}
static int msr_wr_debugctl(struct vcpu *v, uint32_t msr, uint64_t val) { return val & ~3ull ? BAD : 0; }

/* ---- memory types: checked, kept, without effect ---- */

static bool is_type(unsigned t, enum type_set set) { return t <= 7 && ((set == PAT ? 0xf3u : 0x73u) >> t & 1); }
static bool are_types(uint64_t val, enum type_set set)
{
    for (unsigned i = 0; i < 64; i += 8)
        if (!is_type(val >> i & 0xff, set))
            return false;
    return true;
}

static int msr_rd_pat(struct vcpu *v, uint32_t msr, uint64_t *val)
{
    *val = v->c.pat;
    return 0;
}
static int msr_wr_pat(struct vcpu *v, uint32_t msr, uint64_t val)
{
    if (!are_types(val, PAT))
        return BAD;
    v->c.pat = val;
    return 0;
}

static int msr_rd_mtrr_var(struct vcpu *v, uint32_t msr, uint64_t *val)
{
    *val = v->msr.val[MSR_SLOT_MTRR_BASE0 + (msr & 0xf)];
    return 0;
}
static int msr_wr_mtrr_var(struct vcpu *v, uint32_t msr, uint64_t val)
{
    bool mask = msr & 1;
    if (val >> GUEST_MAXPHYADDR || (mask ? val & 0x7ff : (val & 0xf00) || !is_type(val & 0xff, MTRR)))
        return BAD;
    v->msr.val[MSR_SLOT_MTRR_BASE0 + (msr & 0xf)] = val;
    return 0;
}

static int msr_rd_mtrr_def(struct vcpu *v, uint32_t msr, uint64_t *val)
{
    *val = v->msr.val[MSR_SLOT_MTRR_DEF_TYPE];
    return 0;
}
static int msr_wr_mtrr_def(struct vcpu *v, uint32_t msr, uint64_t val)
{
    if ((val & ~0xcffull) || !is_type(val & 0xff, MTRR))
        return BAD;
    v->msr.val[MSR_SLOT_MTRR_DEF_TYPE] = val;
    return 0;
}

/* ---- EFER ---- */

static int msr_rd_efer(struct vcpu *v, uint32_t msr, uint64_t *val)
{
    *val = v->c.efer;
    return 0;
}

static int msr_wr_efer(struct vcpu *v, uint32_t msr, uint64_t val)
{
    struct cpu *c = &v->c;
    uint64_t allowed = EFER_LMA;
    if (cpumodel_has(v->cpu, CPU_FEAT_SYSCALL))
        allowed |= EFER_SCE;
    if (cpumodel_has(v->cpu, CPU_FEAT_LM))
        allowed |= EFER_LME;
    if (cpumodel_has(v->cpu, CPU_FEAT_NX))
        allowed |= EFER_NXE;
    if ((val & ~allowed) || (((val ^ c->efer) & EFER_LME) && (c->cr0 & CR0_PG)))
        return BAD;
    val = (val & ~(uint64_t)EFER_LMA) | (c->efer & EFER_LMA); /* LMA is the CPU's */
    bool nx = (val ^ c->efer) & EFER_NXE;
    c->efer = val;
    cpu_update_key(c);
    if (nx)
        vcpu_mmu_flush(v, MMU_FLUSH_ALL);
    return 0;
}

/* ---- the table ---- */

#define ROW_CPU(n, a, b) .check = b, .field = offsetof(struct cpu, a)
#define ROW_CONST(n, a, b) .init = a
#define ROW_IGNORE(n, a, b) .init = a
#define ROW_STORE(n, a, b) .init = a, .mask = b
#define ROW_TYPES(n, a, b) .init = a, .mask = b
#define ROW_FUNC(n, a, b) .rd = msr_rd_##a, .wr = msr_wr_##a
static const struct msr_desc msrs[] = {
#define MSR(num_, name_, when_, kind_, a_, b_)                                                                         \
    {.num = num_, .when = when_, .kind = kind_, .slot = MSR_SLOT_##name_, ROW_##kind_(name_, a_, b_)},
#include "monitor/msr.def"
#undef MSR
};
#define N_MSRS (sizeof(msrs) / sizeof(msrs[0]))
_Static_assert(MSR_SLOT_COUNT <= 255, "slot is a byte");
_Static_assert(MSR_SLOT_MTRR_MASK7 == MSR_SLOT_MTRR_BASE0 + 15, "msr_rd_mtrr_var counts from the first");

static bool exists(const struct vcpu *v, const struct msr_desc *d)
{
    switch (d->when) {
    case INTEL: return v->cpu && v->cpu->intel;
    case AMD: return v->cpu && v->cpu->amd;
    case TSC_AUX: return v->cpu && (cpumodel_has(v->cpu, CPU_FEAT_RDTSCP) || cpumodel_has(v->cpu, CPU_FEAT_RDPID));
    case ARCH_CAP: return v->cpu && cpumodel_has(v->cpu, CPU_FEAT_ARCH_CAPABILITIES);
    case SPEC_CTRL: return v->cpu && cpumodel_has(v->cpu, CPU_FEAT_SPEC_CTRL);
    }
    return true;
}

static const struct msr_desc *find(const struct vcpu *v, uint32_t msr)
{
    unsigned lo = 0, hi = N_MSRS;
    while (lo < hi) {
        unsigned mid = (lo + hi) / 2;
        if (msrs[mid].num < msr)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < N_MSRS && msrs[lo].num == msr && exists(v, &msrs[lo]) ? &msrs[lo] : NULL;
}

static uint64_t *cpu_field(struct vcpu *v, const struct msr_desc *d) { return (uint64_t *)((char *)&v->c + d->field); }

static int unknown(struct vcpu *v, uint32_t msr, bool write, uint64_t *val)
{
    int r = 1;
    uint32_t before = ops_begin(v);
    if (v->ops && (write ? v->ops->wrmsr != NULL : v->ops->rdmsr != NULL))
        r = write ? v->ops->wrmsr(v->opaque, msr, *val) : v->ops->rdmsr(v->opaque, msr, val);
    ops_end(v, before);
    if (r == 0)
        return 0;
    if (log_on(UNIMP))
        fpu_leave(v);
    if (r > 0 && write)
        LOGF(UNIMP, "wrmsr 0x%x <- 0x%llx: no such MSR (rip 0x%llx)", msr, (unsigned long long)*val,
             (unsigned long long)v->c.rip);
    else if (r > 0)
        LOGF(UNIMP, "rdmsr 0x%x: no such MSR (rip 0x%llx)", msr, (unsigned long long)v->c.rip);
    return sys_fault_err(v, EXC_GP, 0);
}

int sys_rdmsr(struct vcpu *v, uint32_t msr, uint64_t *val)
{
    const struct msr_desc *d = find(v, msr);
    if (!d)
        return unknown(v, msr, false, val);
    switch (d->kind) {
    case CPU: *val = *cpu_field(v, d); break;
    case CONST:
    case IGNORE: *val = d->init; break;
    case STORE:
    case TYPES: *val = v->msr.val[d->slot]; break;
    case FUNC: d->rd(v, msr, val); break;
    }
    return 0;
}

static int write_known(struct vcpu *v, const struct msr_desc *d, uint64_t val)
{
    switch (d->kind) {
    case CPU:
        if ((d->check == CANON && !x86_is_canonical(val)) || (d->check == LOW32 && val >> 32))
            return BAD;
        *cpu_field(v, d) = val;
        return 0;
    case IGNORE: return 0;
    case STORE:
        if (val & ~d->mask)
            return BAD;
        v->msr.val[d->slot] = val;
        return 0;
    case TYPES:
        if (!are_types(val, (enum type_set)d->mask))
            return BAD;
        v->msr.val[d->slot] = val;
        return 0;
    case FUNC: return d->wr(v, d->num, val);
    }
    return BAD;
}

int sys_wrmsr(struct vcpu *v, uint32_t msr, uint64_t val)
{
    const struct msr_desc *d = find(v, msr);
    if (!d)
        return unknown(v, msr, true, &val);
    if (write_known(v, d, val) == 0)
        return 0;
    if (log_on(GUEST_ERRORS)) {
        fpu_leave(v);
        LOGF(GUEST_ERRORS, "wrmsr 0x%x <- 0x%llx: refused (rip 0x%llx)", msr, (unsigned long long)val,
             (unsigned long long)v->c.rip);
    }
    return sys_fault_err(v, EXC_GP, 0);
}

void msr_reset(struct vcpu *v, bool init)
{
    struct cpu *c = &v->c;
    /* INIT leaves the MTRRs, the PAT, the TSC and the machine-check registers alone. */
    if (!init) {
        for (unsigned i = 0; i < N_MSRS; i++)
            v->msr.val[msrs[i].slot] = msrs[i].kind == STORE || msrs[i].kind == TYPES ? msrs[i].init : 0;
        c->pat = 0x0007040600070406ull;
        c->tsc_aux = 0;
    }
    c->misc_enable = MISC_FAST_STRINGS | MISC_FIXED;
    c->sysenter_cs = c->sysenter_esp = c->sysenter_eip = 0;
    c->star = c->lstar = c->cstar = c->sfmask = c->kernel_gs_base = c->efer = 0;
}

int msr_saved(const struct vcpu *v, unsigned i, uint32_t *msr, bool *there)
{
    if (i >= N_MSRS)
        return 0;
    const struct msr_desc *d = &msrs[i];
    *msr = d->num;
    /* A TSC is saved by whoever knows how much time has passed; see vcpu_get_state's tsc_offset. */
    bool changes = d->kind != CONST && d->kind != IGNORE && d->wr != refuse_write && d->wr != ignore_write;
    *there = exists(v, d) && changes && d->num != MSR_TSC;
    return 1;
}
