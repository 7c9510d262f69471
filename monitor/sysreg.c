/* monitor/sysreg.c - control, debug and descriptor-table registers, XCR0 (SDM 3A chapter 2; 3B chapter 18.2). nofpu.
 *
 * A write to CR0, CR4 or XCR0 checks everything, then changes the register, then drops what the soft TLB may have from the
 * old mode, then recomputes the key. The flush is not exact but generous: these writes are rare, and a stale entry is a
 * silently wrong access.
 */
#include "monitor/fpu.h"
#include "monitor/cpumodel.h"
#include "monitor/engine.h"
#include "monitor/sysfn_int.h"
#include "shadowmmu/ptwalk.h"

/* ---- CR0 ---- */

#define CR0_DEFINED (CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG)
#define DR6_BD 0x2000u

/* Switching paging on with EFER.LME set: SDM 3A 9.8.5. */
static bool may_enter_long_mode(const struct cpu *c)
{
    unsigned tr = c->seg[S_TR].attr & SEG_TYPE;
    return (c->cr4 & CR4_PAE) && !(c->seg[S_CS].attr & SEG_L) && tr != DT_TSS16 && tr != DT_TSS16_BUSY;
}

/* The PDPTE registers are loaded by whatever could change them (SDM 3A 4.4.1); a reserved bit is #GP(0). */
static int load_pdptes(struct vcpu *v, uint64_t cr3) { return pt_load_pdptes(v->mem, &v->c, cr3) ? fault_gp0(v) : 0; }

int cr0_write(struct vcpu *v, uint64_t val)
{
    struct cpu *c = &v->c;
    if (val >> 32 || ((val & CR0_PG) && !(val & CR0_PE)) || ((val & CR0_NW) && !(val & CR0_CD)))
        return fault_gp0(v);
    val = (val & CR0_DEFINED) | CR0_ET;
    uint64_t changed = val ^ c->cr0, efer = c->efer;
    if (changed & CR0_PG) {
        if (!(val & CR0_PG) && (cpu_code64(c) || (c->cr4 & CR4_PCIDE)))
            return fault_gp0(v);
        if ((val & CR0_PG) && (efer & EFER_LME)) {
            if (!may_enter_long_mode(c))
                return fault_gp0(v);
            efer |= EFER_LMA;
        } else
            efer &= ~(uint64_t)EFER_LMA;
    }
    if ((changed & (CR0_PG | CR0_CD | CR0_NW)) && (val & CR0_PG) && (c->cr4 & CR4_PAE) && !(efer & EFER_LMA)) {
        int err = load_pdptes(v, c->cr3);
        if (err)
            return err;
    }
    c->cr0 = val;
    c->efer = efer;
    if (changed & (CR0_PG | CR0_WP | CR0_PE))
        vcpu_mmu_flush(v, MMU_FLUSH_ALL);
    cpu_update_key(c);
    return SYS_NEXT;
}

/* ---- CR3, CR4, CR8 ---- */

static int cr3_write(struct vcpu *v, uint64_t val)
{
    struct cpu *c = &v->c;
    bool keep = (c->cr4 & CR4_PCIDE) && val >> 63;
    if (keep)
        val &= ~(1ull << 63);
    if (cpu_long_mode(c)) {
        if (val >> GUEST_MAXPHYADDR)
            return fault_gp0(v);
    } else if ((c->cr0 & CR0_PG) && (c->cr4 & CR4_PAE)) {
        int err = load_pdptes(v, val);
        if (err)
            return err;
    }
    c->cr3 = val;
    vcpu_mmu_cr3(v, keep);
    return SYS_NEXT;
}

/* The bits that exist, by what CPUID offers (SDM 3A 2.5). */
static uint64_t cr4_allowed(const struct vcpu *v)
{
    static const struct {
        uint32_t bits;
        uint16_t feat;
    } by_feat[] = {
        {CR4_VME | CR4_PVI, CPU_FEAT_VME}, {CR4_TSD, CPU_FEAT_TSC},           {CR4_DE, CPU_FEAT_DE},
        {CR4_PSE, CPU_FEAT_PSE},           {CR4_PAE, CPU_FEAT_PAE},           {CR4_MCE, CPU_FEAT_MCE},
        {CR4_PGE, CPU_FEAT_PGE},           {CR4_OSFXSR, CPU_FEAT_FXSR},       {CR4_OSXMMEXCPT, CPU_FEAT_SSE},
        {CR4_UMIP, CPU_FEAT_UMIP},         {CR4_FSGSBASE, CPU_FEAT_FSGSBASE}, {CR4_OSXSAVE, CPU_FEAT_XSAVE},
        {CR4_SMEP, CPU_FEAT_SMEP},         {CR4_SMAP, CPU_FEAT_SMAP},         {CR4_PCIDE, CPU_FEAT_PCID},
    };
    uint64_t bits = CR4_PCE;
    for (unsigned i = 0; i < sizeof(by_feat) / sizeof(by_feat[0]); i++)
        if (cpumodel_has(v->cpu, (enum cpu_feat)by_feat[i].feat))
            bits |= by_feat[i].bits;
    return bits;
}

#define CR4_PAGING (CR4_PSE | CR4_PAE | CR4_PGE | CR4_SMEP | CR4_SMAP)
static int cr4_write(struct vcpu *v, uint64_t val)
{
    struct cpu *c = &v->c;
    uint64_t changed = val ^ c->cr4;
    if ((val & ~cr4_allowed(v)) || (cpu_long_mode(c) && !(val & CR4_PAE)))
        return fault_gp0(v);
    if ((changed & CR4_PAGING) && (val & CR4_PAE) && (c->cr0 & CR0_PG) && !cpu_long_mode(c)) {
        int err = load_pdptes(v, c->cr3);
        if (err)
            return err;
    }
    if ((changed & val & CR4_PCIDE) && (!cpu_long_mode(c) || (c->cr3 & 0xfff)))
        return fault_gp0(v);
    c->cr4 = val;
    if (changed & (CR4_PAGING | CR4_PCIDE))
        vcpu_mmu_flush(v, MMU_FLUSH_ALL);
    cpu_update_key(c);
    return SYS_NEXT;
}

static int cr8_write(struct vcpu *v, uint64_t val)
{
    if (val >> 4)
        return fault_gp0(v);
    v->c.cr8 = val;
    if (v->ops && v->ops->write_cr8) {
        fpu_leave_for_ops(v);
        v->ops->write_cr8(v->opaque, val);
    }
    return SYS_NEXT;
}

static uint64_t cr8_read(struct vcpu *v)
{
    if (!v->ops || !v->ops->read_cr8)
        return v->c.cr8;
    fpu_leave_for_ops(v);
    return v->ops->read_cr8(v->opaque);
}

static bool is_cr(const struct cpu *c, unsigned n) { return n == 0 || (n >= 2 && n <= 4) || (n == 8 && cpu_code64(c)); }
static unsigned cr_size(const struct cpu *c) { return cpu_code64(c) ? 8 : 4; }

int sys_mov_to_cr(struct vcpu *v, struct sys_op op)
{
    struct cpu *c = &v->c;
    if (!is_cr(c, op.reg))
        return sys_fault(v, EXC_UD);
    int err = need_cpl0(v);
    if (err)
        return err;
    uint64_t val = gpr_read(c, op.rm, cr_size(c), 0);
    switch (op.reg) {
    case 0: return cr0_write(v, val);
    case 2: c->cr2 = val; return SYS_NEXT;
    case 3: return cr3_write(v, val);
    case 4: return cr4_write(v, val);
    }
    return cr8_write(v, val);
}

int sys_mov_from_cr(struct vcpu *v, struct sys_op op)
{
    struct cpu *c = &v->c;
    if (!is_cr(c, op.reg))
        return sys_fault(v, EXC_UD);
    int err = need_cpl0(v);
    if (err)
        return err;
    uint64_t val = 0;
    switch (op.reg) {
    case 0: val = c->cr0; break;
    case 2: val = c->cr2; break;
    case 3: val = c->cr3; break;
    case 4: val = c->cr4; break;
    case 8: val = cr8_read(v); break;
    }
    gpr_write(c, op.rm, cr_size(c), 0, val);
    return SYS_NEXT;
}

int sys_clts(struct vcpu *v, struct sys_op op)
{
    int err = need_cpl0(v);
    if (err)
        return err;
    v->c.cr0 &= ~(uint64_t)CR0_TS;
    cpu_update_key(&v->c);
    return SYS_NEXT;
}

/* LMSW can set PE but not clear it. */
int sys_lmsw(struct vcpu *v, struct sys_op op)
{
    uint64_t val;
    int err = need_cpl0(v);
    if (!err)
        err = rm_read(v, op, 2, &val);
    if (err)
        return err;
    uint64_t low = CR0_MP | CR0_EM | CR0_TS;
    return cr0_write(v, (v->c.cr0 & ~low) | (val & (low | CR0_PE)));
}

/* A register gets as much of CR0 as it holds, memory 16 bits. */
int sys_smsw(struct vcpu *v, struct sys_op op)
{
    return rm_write(v, op, op.rm == SYS_RM_MEM ? 2 : op.opsize, (uint32_t)v->c.cr0);
}

/* ---- debug registers (SDM 3B 18.2) ---- */

#define DR6_FIXED 0xffff0ff0u
#define DR6_BITS 0xe00fu
#define DR7_FIXED 0x400u
#define DR7_BITS 0xffff23ffu

/* Which register is meant; faults of every access to one. */
static int dr_access(struct vcpu *v, unsigned *reg)
{
    struct cpu *c = &v->c;
    if (*reg > 7 || ((c->cr4 & CR4_DE) && (*reg == 4 || *reg == 5)))
        return sys_fault(v, EXC_UD);
    int err = need_cpl0(v);
    if (err)
        return err;
    if (c->dr[7] & 0x2000) { /* GD; delivery of the #DB clears it */
        v->fault = (struct guest_fault){.vector = EXC_DB, .dr6 = DR6_BD};
        return SYS_FAULT;
    }
    if (*reg == 4 || *reg == 5)
        *reg += 2;
    return 0;
}

int sys_mov_to_dr(struct vcpu *v, struct sys_op op)
{
    struct cpu *c = &v->c;
    unsigned reg = op.reg;
    int err = dr_access(v, &reg);
    if (err)
        return err;
    uint64_t val = gpr_read(c, op.rm, cr_size(c), 0);
    if (reg >= 6 && val >> 32)
        return fault_gp0(v);
    bool watched = c->dr[7] & 0xff;
    switch (reg) {
    case 6: c->dr[6] = (val & DR6_BITS) | DR6_FIXED; return SYS_NEXT;
    case 7: c->dr[7] = (val & DR7_BITS) | DR7_FIXED; break;
    default: c->dr[reg] = val;
    }
    /* Watched pages are never in the soft TLB, so that their accesses come to C. */
    if (watched || (c->dr[7] & 0xff))
        vcpu_mmu_flush(v, MMU_FLUSH_ALL);
    cpu_update_key(c);
    return SYS_NEXT;
}

int sys_mov_from_dr(struct vcpu *v, struct sys_op op)
{
    struct cpu *c = &v->c;
    unsigned reg = op.reg;
    int err = dr_access(v, &reg);
    if (err)
        return err;
    uint64_t val = c->dr[reg];
    if (reg == 6)
        val = (val & DR6_BITS) | DR6_FIXED;
    if (reg == 7)
        val |= DR7_FIXED;
    gpr_write(c, op.rm, cr_size(c), 0, val);
    return SYS_NEXT;
}

/* ---- GDTR, IDTR ---- */

int sys_load_table(struct vcpu *v, struct sys_op op)
{
    struct cpu *c = &v->c;
    bool wide = cpu_code64(c);
    uint8_t buf[10];
    uint64_t lin, base = 0;
    uint16_t limit;
    int err = need_cpl0(v);
    if (!err)
        err = mem_linear(v, op.seg, v->ea, wide ? 10 : 6, MEM_R, &lin);
    if (!err)
        err = mem_read(v, lin, buf, wide ? 10 : 6, MEM_R);
    if (err)
        return err;
    __builtin_memcpy(&limit, buf, 2);
    if (wide)
        __builtin_memcpy(&base, buf + 2, 8);
    else
        __builtin_memcpy(&base, buf + 2, 4);
    if (!wide && op.opsize == 2)
        base &= 0xffffff;
    if (wide && !x86_is_canonical(base))
        return fault_gp0(v);
    *(op.op == SYS_OP_LGDT ? &c->gdtr : &c->idtr) = (struct dtable){.base = base, .limit = limit};
    return SYS_NEXT;
}

int sys_store_table(struct vcpu *v, struct sys_op op)
{
    const struct cpu *c = &v->c;
    const struct dtable *t = op.op == SYS_OP_SGDT ? &c->gdtr : &c->idtr;
    unsigned n = cpu_code64(c) ? 10 : 6;
    uint8_t buf[10];
    uint64_t lin, base = t->base;
    uint16_t limit = (uint16_t)t->limit;
    if (n == 6 && op.opsize == 2)
        base &= 0xffffff; /* SDM 2B, SGDT: the sixth byte is zero */
    __builtin_memcpy(buf, &limit, 2);
    __builtin_memcpy(buf + 2, &base, 8);
    int err = mem_linear(v, op.seg, v->ea, n, MEM_W, &lin);
    if (!err)
        err = mem_check_align(v, lin, 4, MEM_W); /* of either size: SDM 3A table 6-7 */
    return err ? err : mem_write(v, lin, buf, n, MEM_W | MEM_UNALIGNED);
}

/* ---- XCR0 (SDM 1 13.3) ---- */

/* Components in use: asked of the processor while the guest's state is in its registers, else of the saved image. */
static uint64_t xinuse(struct vcpu *v)
{
    if (v->fpu_live) {
        uint32_t lo, hi;
        __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(1));
        return lo;
    }
    uint64_t bv;
    fpu_bring(v);
    __builtin_memcpy(&bv, v->xsave + 512, 8);
    return bv;
}

int sys_xgetbv(struct vcpu *v, struct sys_op op)
{
    struct cpu *c = &v->c;
    if (!(c->cr4 & CR4_OSXSAVE))
        return sys_fault(v, EXC_UD);
    uint32_t n = (uint32_t)c->gpr[R_RCX];
    if (n == 0)
        write_edx_eax(c, c->xcr0);
    else if (n == 1 && cpumodel_has(v->cpu, CPU_FEAT_XGETBV1))
        write_edx_eax(c, xinuse(v) & c->xcr0);
    else
        return fault_gp0(v);
    return SYS_NEXT;
}

int sys_xsetbv(struct vcpu *v, struct sys_op op)
{
    struct cpu *c = &v->c;
    if (!(c->cr4 & CR4_OSXSAVE))
        return sys_fault(v, EXC_UD);
    uint64_t val = read_edx_eax(c), avx512 = val & XCR0_AVX512;
    if (c->cpl || (uint32_t)c->gpr[R_RCX] || (val & ~v->cpu->xcr0) || !(val & XCR0_X87))
        return fault_gp0(v);
    if (((val & XCR0_AVX) && !(val & XCR0_SSE)) || (avx512 && (avx512 != XCR0_AVX512 || !(val & XCR0_AVX))))
        return fault_gp0(v);
    c->xcr0 = val;
    cpu_update_key(c);
    return SYS_NEXT;
}
