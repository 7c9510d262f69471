/* Model-specific registers: what is there, what is refused, what goes to the embedder.
 * Compiles its own copy of msr.c under other names, so that TLB flushes can be counted. */
#define sys_rdmsr t_rdmsr
#define sys_wrmsr t_wrmsr
#define msr_reset t_reset
#define msr_saved t_saved
#define cpumodel_arch_capabilities t_arch_capabilities
#define vcpu_mmu_flush t_msr_flush
#include "monitor/msr.c"
#include <criterion/criterion.h>
#include <string.h>

static struct vcpu u;
static struct cpumodel model;
static struct stats stats;
static unsigned flushes;
void vcpu_mmu_flush(struct vcpu *w, enum mmu_flush what) { flushes++; }

static void start(bool amd)
{
    memset(&u, 0, sizeof u);
    memset(&model, 0, sizeof model);
    memset(model.has, 0xff, sizeof model.has);
    model.has[CPU_FEAT_SPEC_CTRL / 64] &= ~(1ull << (CPU_FEAT_SPEC_CTRL % 64));
    model.intel = !amd;
    model.amd = amd;
    u.cpu = &model;
    u.stats = &stats;
    flushes = 0;
    msr_reset(&u, false);
}
static uint64_t rd(uint32_t msr)
{
    uint64_t val = 0xdead;
    cr_expect_eq(sys_rdmsr(&u, msr, &val), 0, "rdmsr %x", msr);
    return val;
}
static void refused(uint32_t msr, uint64_t val)
{
    cr_expect_eq(sys_wrmsr(&u, msr, val), SYS_FAULT, "wrmsr %x <- %lx", msr, val);
    cr_expect_eq(u.fault.vector, EXC_GP);
    cr_expect(u.fault.has_error && u.fault.error == 0);
}
static void taken(uint32_t msr, uint64_t val) { cr_expect_eq(sys_wrmsr(&u, msr, val), 0, "wrmsr %x <- %lx", msr, val); }

Test(msr, table_is_ascending)
{
    for (unsigned i = 1; i < N_MSRS; i++)
        cr_expect_lt(msrs[i - 1].num, msrs[i].num);
}

Test(msr, efer_refuses_reserved_bits_and_lme_under_paging)
{
    start(false);
    refused(MSR_EFER, 1ull << 12); /* SVME */
    refused(MSR_EFER, 2);
    taken(MSR_EFER, EFER_LME | EFER_SCE);
    u.c.cr0 = CR0_PG | CR0_PE;
    u.c.efer |= EFER_LMA;
    refused(MSR_EFER, EFER_SCE);
    cr_expect_eq(flushes, 0);
    taken(MSR_EFER, EFER_LME | EFER_NXE); /* LMA in the value does not matter */
    cr_expect_eq(u.c.efer, EFER_LME | EFER_NXE | EFER_LMA);
    cr_expect_eq(flushes, 1, "NXE changes what entries mean");
}

Test(msr, bases_must_be_canonical)
{
    start(false);
    refused(MSR_LSTAR, 0x0000800000000000ull);
    refused(MSR_FS_BASE, 0x8000000000000000ull);
    refused(MSR_KERNEL_GS_BASE, 0x1000000000000000ull);
    refused(MSR_SYSENTER_EIP, 0x0000800000000000ull);
    taken(MSR_GS_BASE, 0xffff888000000000ull);
    cr_expect_eq(u.c.seg[S_GS].base, 0xffff888000000000ull);
    cr_expect_eq(rd(MSR_GS_BASE), 0xffff888000000000ull);
}

Test(msr, upper_halves_that_are_reserved)
{
    start(false);
    refused(MSR_SFMASK, 1ull << 32);
    refused(MSR_TSC_AUX, 1ull << 32);
    taken(MSR_TSC_AUX, 0xffffffff);
    cr_expect_eq(u.c.tsc_aux, 0xffffffff);
}

Test(msr, tsc_aux_is_absent_without_rdtscp_and_rdpid)
{
    uint64_t val;
    start(false);
    model.has[CPU_FEAT_RDTSCP / 64] &= ~(1ull << (CPU_FEAT_RDTSCP % 64));
    cr_expect_eq(sys_rdmsr(&u, MSR_TSC_AUX, &val), 0);
    model.has[CPU_FEAT_RDPID / 64] &= ~(1ull << (CPU_FEAT_RDPID % 64));
    cr_expect_eq(sys_rdmsr(&u, MSR_TSC_AUX, &val), SYS_FAULT);
}

Test(msr, pat_takes_only_memory_types)
{
    start(false);
    cr_expect_eq(rd(MSR_PAT), 0x0007040600070406ull);
    refused(MSR_PAT, 0x0007040600070402ull);
    refused(MSR_PAT, 0x0807040600070406ull);
    taken(MSR_PAT, 0x0407050600070106ull);
}

Test(msr, mtrrs_are_checked_and_kept)
{
    start(false);
    cr_expect_eq(rd(MSR_MTRRCAP), 0x508);
    refused(MSR_MTRRCAP, 0);
    refused(0x200, 0x2);        /* type 2 */
    refused(0x200, 1ull << 40); /* beyond the physical address */
    refused(0x201, 0x400);
    taken(0x20f, 0xff80000800ull);
    cr_expect_eq(rd(0x20f), 0xff80000800ull);
    cr_expect_eq(rd(0x20d), 0);
    refused(0x26f, 0x0606060606060607ull);
    taken(0x250, 0x0606060606060606ull);
    refused(MSR_MTRR_DEF_TYPE, 0x1006);
    taken(MSR_MTRR_DEF_TYPE, 0xc06);
    cr_expect_eq(rd(MSR_MTRR_DEF_TYPE), 0xc06);
    uint64_t val;
    cr_expect_eq(sys_rdmsr(&u, 0x210, &val), SYS_FAULT, "there are eight");
}

Test(msr, tsc_and_tsc_adjust_move_together)
{
    start(false);
    taken(MSR_TSC_ADJUST, 1000);
    cr_expect_eq(u.c.tsc_offset, 1000);
    taken(MSR_TSC, 0);
    cr_expect_lt(rd(MSR_TSC), 1ull << 32);
    cr_expect_eq(u.c.tsc_offset, u.msr.val[MSR_SLOT_TSC_ADJUST]);
    cr_expect_neq(u.c.key & CPU_KEY_SLOWTSC, 0);
    taken(MSR_TSC_ADJUST, 0);
    cr_expect_eq(u.c.tsc_offset, 0);
    cr_expect_eq(u.c.key & CPU_KEY_SLOWTSC, 0);
}

Test(msr, vendors_have_their_own)
{
    uint64_t val;
    start(false);
    cr_expect_eq(rd(0x3a), 1);
    cr_expect_eq(sys_rdmsr(&u, 0xc0010015, &val), SYS_FAULT);
    start(true);
    cr_expect_eq(sys_rdmsr(&u, 0x3a, &val), SYS_FAULT);
    cr_expect_eq(rd(0xc0011029) & 2, 2, "LFENCE serialises");
    cr_expect_eq(rd(0xc0010015), 0x1000000);
}

Test(msr, speculation_controls_only_when_offered)
{
    uint64_t val;
    start(false);
    cr_expect_eq(sys_rdmsr(&u, 0x48, &val), SYS_FAULT);
    model.has[CPU_FEAT_SPEC_CTRL / 64] |= 1ull << (CPU_FEAT_SPEC_CTRL % 64);
    taken(0x48, 1);
    cr_expect_eq(rd(0x48), 1);
    cr_expect_eq(rd(MSR_ARCH_CAPABILITIES) & 2, 2);
}

static uint64_t dev_val;
static int dev_rd(void *opaque, uint32_t msr, uint64_t *val)
{
    *val = 77;
    return msr == 0x1b ? 0 : msr == 0x801 ? -1 : 1;
}
static int dev_wr(void *opaque, uint32_t msr, uint64_t val)
{
    dev_val = val;
    return msr == 0x1b ? 0 : msr == 0x801 ? -1 : 1;
}
Test(msr, others_go_to_the_embedder_then_fault)
{
    static const struct vm_ops ops = {.rdmsr = dev_rd, .wrmsr = dev_wr};
    uint64_t val;
    start(false);
    u.ops = &ops;
    cr_expect_eq(rd(0x1b), 77);
    taken(0x1b, 5);
    cr_expect_eq(dev_val, 5);
    cr_expect_eq(sys_rdmsr(&u, 0x801, &val), SYS_FAULT);
    refused(0x801, 1);
    refused(0x12345, 1);
}

Test(msr, init_keeps_memory_types_reset_does_not)
{
    start(false);
    taken(MSR_PAT, 0);
    taken(0x250, 0x0606060606060606ull);
    taken(MSR_STAR, 5);
    msr_reset(&u, true);
    cr_expect_eq(rd(MSR_PAT), 0);
    cr_expect_eq(rd(0x250), 0x0606060606060606ull);
    cr_expect_eq(rd(MSR_STAR), 0);
    msr_reset(&u, false);
    cr_expect_eq(rd(MSR_PAT), 0x0007040600070406ull);
    cr_expect_eq(rd(0x250), 0);
}

/* Everything that msr_saved names can be read and written back unchanged. */
Test(msr, saved_ones_round_trip)
{
    uint32_t msr;
    bool there;
    unsigned n = 0;
    start(false);
    for (unsigned i = 0; msr_saved(&u, i, &msr, &there); i++) {
        if (!there)
            continue;
        taken(msr, rd(msr));
        n++;
    }
    cr_expect_gt(n, 30);
}
