/* monitor/sysmisc.c - flags, time, segment bases, caches, halting, CPUID, RDMSR/WRMSR, hypercalls. nofpu.
 *
 * CLI and STI come here only where they cannot be inlined; PUSHF and POPF in any mode. The rules for IF are SDM 3A 6.8.1 and,
 * for virtual-8086 mode and PVI, 21.3 and table 21-2.
 */
#include "monitor/cpumodel.h"
#include "monitor/engine.h"
#include "monitor/sysfn_int.h"
#include "monitor/vm_int.h"

/* ---- IF and its virtual twin ---- */

/* Who answers for interrupts at this privilege? */
enum if_owner { IF_REAL, IF_VIRTUAL, IF_NOBODY };
static enum if_owner if_owner(const struct cpu *c)
{
    if (!cpu_protected(c) || cpu_iopl(c) >= c->cpl)
        return IF_REAL;
    if (cpu_vm86(c))
        return c->cr4 & CR4_VME ? IF_VIRTUAL : IF_NOBODY;
    return c->cpl == 3 && (c->cr4 & CR4_PVI) ? IF_VIRTUAL : IF_NOBODY;
}

int sys_cli(struct vcpu *v, struct sys_op op)
{
    struct cpu *c = &v->c;
    switch (if_owner(c)) {
    case IF_REAL: c->if_flag = 0; return SYS_NEXT;
    case IF_VIRTUAL: c->eflags_sys &= ~EFLAGS_VIF; return SYS_NEXT;
    default: return fault_gp0(v);
    }
}

int sys_sti(struct vcpu *v, struct sys_op op)
{
    struct cpu *c = &v->c;
    switch (if_owner(c)) {
    case IF_REAL:
        if (!c->if_flag)
            c->shadow = 1;
        c->if_flag = 1;
        return SYS_NEXT;
    case IF_VIRTUAL:
        if (c->eflags_sys & EFLAGS_VIP)
            return fault_gp0(v);
        c->eflags_sys |= EFLAGS_VIF;
        return SYS_NEXT;
    default: return fault_gp0(v);
    }
}

int sys_pushf(struct vcpu *v, struct sys_op op)
{
    struct cpu *c = &v->c;
    uint32_t f = cpu_get_eflags(c) & ~(EFLAGS_VM | EFLAGS_RF);
    if (cpu_vm86(c) && cpu_iopl(c) < 3) {
        if (!(c->cr4 & CR4_VME) || op.opsize != 2)
            return fault_gp0(v);
        f = (f & ~EFLAGS_IF) | EFLAGS_IOPL | (f & EFLAGS_VIF ? EFLAGS_IF : 0);
    }
    return stack_push(v, op.opsize, f);
}

#define POPF_LOW (EFLAGS_ARITH | EFLAGS_TF | EFLAGS_DF | EFLAGS_NT)
#define POPF_HIGH (EFLAGS_AC | EFLAGS_ID)

/* VM86 with VME and IOPL < 3: IF in the image means VIF. Checked against the popped image before RSP moves. */
static int popf_vme(struct vcpu *v, uint32_t img)
{
    struct cpu *c = &v->c;
    if ((img & EFLAGS_TF) || ((img & EFLAGS_IF) && (c->eflags_sys & EFLAGS_VIP)))
        return fault_gp0(v);
    uint32_t f = (cpu_get_eflags(c) & ~(POPF_LOW | EFLAGS_VIF)) | (img & POPF_LOW);
    cpu_set_eflags(c, f | (img & EFLAGS_IF ? EFLAGS_VIF : 0));
    return SYS_NEXT;
}

int sys_popf(struct vcpu *v, struct sys_op op)
{
    struct cpu *c = &v->c;
    bool vme = cpu_vm86(c) && cpu_iopl(c) < 3;
    if (vme && (!(c->cr4 & CR4_VME) || op.opsize != 2))
        return fault_gp0(v);
    uint64_t img, rsp = c->gpr[R_RSP];
    int err = stack_pop(v, op.opsize, &img);
    if (err)
        return err;
    if (vme) {
        err = popf_vme(v, (uint32_t)img);
        if (err)
            c->gpr[R_RSP] = rsp;
        cpu_update_key(c);
        return err;
    }
    uint32_t change = POPF_LOW | (op.opsize == 2 ? 0 : POPF_HIGH);
    if (c->cpl == 0)
        change |= EFLAGS_IOPL;
    if (cpu_iopl(c) >= c->cpl) /* CPL 0 included */
        change |= EFLAGS_IF;
    /* RF is cleared; VM, VIF, VIP stay (SDM 2B, POPF). */
    uint32_t old = cpu_get_eflags(c) & ~EFLAGS_RF, now = (old & ~change) | ((uint32_t)img & change);
    cpu_set_eflags(c, now);
    if ((now ^ old) & (EFLAGS_TF | EFLAGS_AC))
        cpu_update_key(c);
    return SYS_NEXT;
}

/* ---- TLB, caches, halt ---- */

int sys_invlpg(struct vcpu *v, struct sys_op op)
{
    const struct cpu *c = &v->c;
    int err = need_cpl0(v);
    if (err)
        return err;
    bool wide = cpu_code64(c);
    uint64_t base = wide && op.seg != S_FS && op.seg != S_GS ? 0 : c->seg[op.seg].base;
    uint64_t lin = base + v->ea;
    if (!wide)
        lin = (uint32_t)lin;
    if (x86_is_canonical(lin)) /* otherwise a no-op (SDM 2A, INVLPG) */
        vcpu_mmu_invlpg(v, lin);
    return SYS_NEXT;
}

/* SDM 2A, INVPCID. The descriptor: PCID in bits 0-11, linear address in bits 64-127. */
int sys_invpcid(struct vcpu *v, struct sys_op op)
{
    enum { ADDRESS, CONTEXT, ALL, ALL_NONGLOBAL };
    const struct cpu *c = &v->c;
    uint64_t lin, desc[2], type = gpr_read(c, op.reg, cpu_code64(c) ? 8 : 4, 0);
    if (!cpumodel_has(v->cpu, CPU_FEAT_INVPCID))
        return sys_fault(v, EXC_UD);
    int err = need_cpl0(v);
    if (!err)
        err = mem_linear(v, op.seg, v->ea, sizeof desc, MEM_R, &lin);
    if (!err)
        err = mem_read(v, lin, desc, sizeof desc, MEM_R);
    if (err)
        return err;
    uint16_t pcid = desc[0] & 0xfff;
    if (type > ALL_NONGLOBAL || desc[0] >> 12 || (type <= CONTEXT && pcid && !(c->cr4 & CR4_PCIDE)) ||
        (type == ADDRESS && !x86_is_canonical(desc[1])))
        return fault_gp0(v);
    if (type == ALL)
        vcpu_mmu_flush(v, MMU_FLUSH_ALL);
    else if (type == ALL_NONGLOBAL)
        vcpu_mmu_flush_pcids(v);
    else if (type == ADDRESS && pcid == pcid_of_cr3(v))
        vcpu_mmu_invlpg(v, desc[1]);
    else
        vcpu_mmu_invpcid(v, pcid);
    return SYS_NEXT;
}

/* Guest memory is coherent; nothing to write back, and nothing that INVD could lose. */
int sys_cache(struct vcpu *v, struct sys_op op)
{
    int err = need_cpl0(v);
    return err ? err : SYS_NEXT;
}

int sys_hlt(struct vcpu *v, struct sys_op op)
{
    int err = need_cpl0(v);
    if (err)
        return err;
    v->c.rip = next_rip(&v->c, op.len);
    v->c.shadow = 0;
    v->c.eflags_sys &= ~EFLAGS_RF;
    /* A single-step trap wakes the CPU at once (SDM 2A, HLT). */
    v->halted = !(v->c.eflags_sys & EFLAGS_TF);
    /* STI; HLT with an interrupt pending: the embedder must not be told to sleep, it may already have nothing to wait for. */
    if (!v->halted || vcpu_deliverable(v))
        return SYS_JUMP;
    v->exit.reason = VM_EXIT_HLT;
    return SYS_EXIT;
}

/* ---- time, counters ---- */

static inline uint64_t tsc(const struct vcpu *v)
{
    uint32_t lo, hi;
    __asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi));
    return (lo | (uint64_t)hi << 32) + v->c.tsc_offset;
}

int sys_rdtsc(struct vcpu *v, struct sys_op op)
{
    struct cpu *c = &v->c;
    if (op.op == SYS_OP_RDTSCP && !cpumodel_has(v->cpu, CPU_FEAT_RDTSCP))
        return sys_fault(v, EXC_UD);
    if ((c->cr4 & CR4_TSD) && c->cpl)
        return fault_gp0(v);
    write_edx_eax(c, tsc(v));
    if (op.op == SYS_OP_RDTSCP)
        c->gpr[R_RCX] = (uint32_t)c->tsc_aux;
    return SYS_NEXT;
}

/* There are no counters, so every index is wrong. */
int sys_rdpmc(struct vcpu *v, struct sys_op op) { return fault_gp0(v); }

int sys_rdpid(struct vcpu *v, struct sys_op op)
{
    if (!cpumodel_has(v->cpu, CPU_FEAT_RDPID))
        return sys_fault(v, EXC_UD);
    gpr_write(&v->c, op.rm, cpu_code64(&v->c) ? 8 : 4, 0, (uint32_t)v->c.tsc_aux);
    return SYS_NEXT;
}

/* ---- identification, MSRs ---- */

int sys_cpuid_insn(struct vcpu *v, struct sys_op op)
{
    struct cpu *c = &v->c;
    uint32_t out[4];
    sys_cpuid(v, (uint32_t)c->gpr[R_RAX], (uint32_t)c->gpr[R_RCX], out);
    c->gpr[R_RAX] = out[0];
    c->gpr[R_RBX] = out[1];
    c->gpr[R_RCX] = out[2];
    c->gpr[R_RDX] = out[3];
    return SYS_NEXT;
}

int sys_rdmsr_insn(struct vcpu *v, struct sys_op op)
{
    uint64_t val = 0;
    int err = need_cpl0(v);
    if (!err)
        err = sys_rdmsr(v, (uint32_t)v->c.gpr[R_RCX], &val);
    if (err)
        return err;
    write_edx_eax(&v->c, val);
    return SYS_NEXT;
}

int sys_wrmsr_insn(struct vcpu *v, struct sys_op op)
{
    int err = need_cpl0(v);
    return err ? err : sys_wrmsr(v, (uint32_t)v->c.gpr[R_RCX], read_edx_eax(&v->c));
}

/* ---- FS and GS bases ---- */

int sys_segbase(struct vcpu *v, struct sys_op op)
{
    struct cpu *c = &v->c;
    if (!cpu_code64(c) || !(c->cr4 & CR4_FSGSBASE))
        return sys_fault(v, EXC_UD);
    bool fs = op.op == SYS_OP_RDFSBASE || op.op == SYS_OP_WRFSBASE;
    bool read = op.op == SYS_OP_RDFSBASE || op.op == SYS_OP_RDGSBASE;
    uint64_t *base = &c->seg[fs ? S_FS : S_GS].base;
    if (read) {
        gpr_write(c, op.rm, op.opsize, 0, *base);
        return SYS_NEXT;
    }
    uint64_t val = gpr_read(c, op.rm, op.opsize, 0);
    if (!x86_is_canonical(val))
        return fault_gp0(v);
    *base = val;
    return SYS_NEXT;
}

int sys_swapgs(struct vcpu *v, struct sys_op op)
{
    struct cpu *c = &v->c;
    if (!cpu_code64(c))
        return sys_fault(v, EXC_UD);
    int err = need_cpl0(v);
    if (err)
        return err;
    uint64_t base = c->seg[S_GS].base;
    c->seg[S_GS].base = c->kernel_gs_base;
    c->kernel_gs_base = base;
    return SYS_NEXT;
}

/* ---- hypercalls: KVM's convention ---- */

#define HC_EPERM (-1ll)
#define HC_ENOSYS (-1000ll)
int sys_hypercall(struct vcpu *v, struct sys_op op)
{
    struct cpu *c = &v->c;
    if (!v->ops || !v->ops->hypercall)
        return sys_fault(v, EXC_UD);
    uint64_t mask = cpu_code64(c) ? ~0ull : 0xffffffffull, ret = (uint64_t)HC_EPERM;
    uint64_t args[4] = {c->gpr[R_RBX] & mask, c->gpr[R_RCX] & mask, c->gpr[R_RDX] & mask, c->gpr[R_RSI] & mask};
    fpu_leave(v);
    if (c->cpl == 0 && v->ops->hypercall(v->opaque, c->gpr[R_RAX] & mask, args, &ret))
        ret = (uint64_t)HC_ENOSYS;
    c->gpr[R_RAX] = ret & mask;
    return SYS_NEXT;
}
