/* monitor/cpuid_insn.c - what CPUID returns: the model's leaves, and what in them follows the CPU's state. nofpu. */
#include "monitor/cpumodel.h"
#include "monitor/engine.h"
#include "monitor/fpu.h"
#include "monitor/sysinsn.h"

enum { EAX, EBX, ECX, EDX };

static bool find_leaf(const struct cpumodel *m, uint32_t leaf, uint32_t sub, uint32_t out[4])
{
    for (unsigned i = 0; i < m->n; i++)
        if (m->leaf[i].leaf == leaf && m->leaf[i].sub == sub) {
            __builtin_memcpy(out, m->leaf[i].out, 16);
            return true;
        }
    return false;
}

static bool has_subleaves(uint32_t leaf)
{
    return leaf == 4 || leaf == 7 || leaf == 0xb || leaf == 0xd || leaf == 0x1f || leaf == 0x8000001du;
}

static void hv_leaf(const struct cpumodel *m, uint32_t leaf, uint32_t out[4])
{
    for (unsigned i = 0; i < m->n_hv; i++)
        if (m->hv[i].leaf == leaf && cpumodel_has(m, CPU_FEAT_HYPERVISOR))
            __builtin_memcpy(out, m->hv[i].out, 16);
}

void cpumodel_leaf(const struct cpumodel *m, uint32_t leaf, uint32_t sub, uint32_t out[4])
{
    __builtin_memset(out, 0, 16);
    if (leaf >> 28 == 4) {
        hv_leaf(m, leaf, out);
        return;
    }
    /* SDM 2A, CPUID: above the highest leaf of either range Intel's give the highest basic one's data, AMD's zeros. */
    if (leaf > m->max_basic && !(leaf >> 31 && leaf <= m->max_ext)) {
        if (!m->intel)
            return;
        leaf = m->max_basic;
    }
    if (!has_subleaves(leaf))
        sub = 0;
    if (!find_leaf(m, leaf, sub, out) && (leaf == 0xb || leaf == 0x1f))
        out[ECX] = sub & 0xff; /* invalid level: the input comes back, type 0 */
}

/* ---- the instruction's view ---- */

static uint32_t xsave_size(const struct cpumodel *m, uint64_t xcr0, bool compact)
{
    uint32_t end = 576;
    for (unsigned i = 2; i < 8; i++) {
        if (!(xcr0 & m->xcr0 & (1u << i)))
            continue;
        if (compact)
            end = (m->xaligned >> i & 1 ? (end + 63) & ~63u : end) + m->xsize[i];
        else if (end < m->xoffset[i] + m->xsize[i])
            end = m->xoffset[i] + m->xsize[i];
    }
    return end;
}

static void leaf1_state(struct vcpu *v, uint32_t out[4], uint8_t apic_id)
{
    uint64_t base;
    out[EBX] |= (uint32_t)apic_id << 24;
    if ((v->c.cr4 & CR4_OSXSAVE) && cpumodel_has(v->cpu, CPU_FEAT_XSAVE))
        out[ECX] |= 1u << 27;
    fpu_leave_for_ops(v);
    if (v->ops && v->ops->rdmsr && v->ops->rdmsr(v->opaque, MSR_APIC_BASE, &base) == 0 && !(base & 0x800))
        out[EDX] &= ~(1u << 9);
}

void sys_cpuid(struct vcpu *v, uint32_t leaf, uint32_t sub, uint32_t out[4])
{
    const struct cpumodel *m = v->cpu;
    uint8_t apic_id = v->ops && v->ops->apic_id ? v->ops->apic_id(v->opaque) : 0;
    cpumodel_leaf(m, leaf, sub, out);
    /* Above the highest leaf Intel's answer as for the highest, state included. */
    if (m->intel && leaf >> 28 != 4 && leaf > m->max_basic && !(leaf >> 31 && leaf <= m->max_ext))
        leaf = m->max_basic;
    switch (leaf) {
    case 1: leaf1_state(v, out, apic_id); break;
    case 0xb:
    case 0x1f: out[EDX] = apic_id; break;
    case 0xd:
        if (m->xcr0 && sub == 0)
            out[EBX] = xsave_size(m, v->c.xcr0, false);
        else if (sub == 1 && cpumodel_has(m, CPU_FEAT_XSAVEC))
            out[EBX] = xsave_size(m, v->c.xcr0, true);
        break;
    case 0x8000001eu:
        if (cpumodel_has(m, CPU_FEAT_TOPOEXT))
            out[EAX] = apic_id;
        break;
    }
}
