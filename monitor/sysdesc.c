/* monitor/sysdesc.c - instructions that look at descriptors: LLDT LTR SLDT STR LAR LSL VERR VERW ARPL (SDM 2A-2C; 3A 5.10).
 * nofpu. All of them are #UD in real and virtual-8086 mode. */
#include "monitor/sysfn_int.h"

static int need_protected(struct vcpu *v) { return cpu_real_selectors(&v->c) ? sys_fault(v, EXC_UD) : 0; }

/* LDT and TSS descriptors have 16 bytes in long mode; bits 12:8 of the last dword must be 0 (SDM 3A 3.5.2). */
static int read_system(struct vcpu *v, uint16_t sel, struct desc *d)
{
    if (sel & SEL_TI)
        return fault_sel(v, EXC_GP, sel, 0);
    int err = desc_read(v, sel, EXC_GP, 0, d);
    if (err || !cpu_long_mode(&v->c))
        return err;
    err = desc_read_hi(v, sel, EXC_GP, 0, d);
    if (err)
        return err;
    uint64_t base = desc_base(d) | d->hi << 32;
    return (d->hi >> 40 & 0x1f) || !x86_is_canonical(base) ? fault_sel(v, EXC_GP, sel, 0) : 0;
}

/* The common beginning of LLDT and LTR. */
static int load_sel(struct vcpu *v, struct sys_op op, uint64_t *sel)
{
    int err = need_protected(v);
    if (!err)
        err = need_cpl0(v);
    return err ? err : rm_read(v, op, 2, sel);
}

int sys_lldt(struct vcpu *v, struct sys_op op)
{
    struct desc d;
    uint64_t sel;
    int err = load_sel(v, op, &sel);
    if (err)
        return err;
    if (SEL_NULL((uint16_t)sel)) {
        seg_set_null(&v->c, S_LDTR, (uint16_t)sel);
        return SYS_NEXT;
    }
    err = read_system(v, (uint16_t)sel, &d);
    if (err)
        return err;
    if (!desc_is_sys(&d, DT_LDT))
        return fault_sel(v, EXC_GP, (uint16_t)sel, 0);
    if (!(d.attr & SEG_P))
        return fault_sel(v, EXC_NP, (uint16_t)sel, 0);
    seg_set(&v->c, S_LDTR, (uint16_t)sel, &d);
    return SYS_NEXT;
}

int sys_ltr(struct vcpu *v, struct sys_op op)
{
    struct desc d;
    uint64_t sel;
    int err = load_sel(v, op, &sel);
    if (err)
        return err;
    if (SEL_NULL((uint16_t)sel))
        return fault_gp0(v);
    err = read_system(v, (uint16_t)sel, &d);
    if (err)
        return err;
    if (!desc_is_sys(&d, DT_TSS) && !(desc_is_sys(&d, DT_TSS16) && !cpu_long_mode(&v->c)))
        return fault_sel(v, EXC_GP, (uint16_t)sel, 0);
    if (!(d.attr & SEG_P))
        return fault_sel(v, EXC_NP, (uint16_t)sel, 0);
    err = desc_set_type(v, &d, desc_type(&d) | 2); /* busy */
    if (err)
        return err;
    seg_set(&v->c, S_TR, (uint16_t)sel, &d);
    return SYS_NEXT;
}

int sys_store_sel(struct vcpu *v, struct sys_op op)
{
    int err = need_protected(v);
    if (err)
        return err;
    const struct seg *s = &v->c.seg[op.op == SYS_OP_SLDT ? S_LDTR : S_TR];
    return rm_write(v, op, op.rm == SYS_RM_MEM ? 2 : op.opsize, s->sel);
}

/* ---- what the selector shows: LAR LSL VERR VERW set ZF instead of faulting ---- */

/* Reads a descriptor without limit faults. *found: there is one; a page fault is still a fault. */
static int peek(struct vcpu *v, uint16_t sel, struct desc *d, bool *found)
{
    uint64_t lin;
    *found = !SEL_NULL(sel) && desc_locate(&v->c, sel, 8, &lin);
    return *found ? desc_read(v, sel, EXC_GP, 0, d) : 0;
}

static bool privilege_allows(const struct cpu *c, uint16_t sel, const struct desc *d)
{
    return desc_is_conforming(d) || (desc_dpl(d) >= c->cpl && desc_dpl(d) >= SEL_RPL(sel));
}

/* SDM 2A, tables of LAR and LSL: bit t set = system type t is valid. */
static bool type_shows(const struct cpu *c, const struct desc *d, bool lsl)
{
    if (d->attr & SEG_S)
        return true;
    unsigned lar_legacy = 1u << DT_TSS16 | 1u << DT_LDT | 1u << DT_TSS16_BUSY | 1u << DT_CALL16 | 1u << DT_TASK_GATE |
                          1u << DT_TSS | 1u << DT_TSS_BUSY | 1u << DT_CALL;
    unsigned lar_long = 1u << DT_LDT | 1u << DT_TSS | 1u << DT_TSS_BUSY | 1u << DT_CALL;
    unsigned gates = 1u << DT_CALL16 | 1u << DT_TASK_GATE | 1u << DT_CALL;
    unsigned valid = cpu_long_mode(c) ? lar_long : lar_legacy;
    return (lsl ? valid & ~gates : valid) >> desc_type(d) & 1;
}

int sys_lar_lsl(struct vcpu *v, struct sys_op op)
{
    struct cpu *c = &v->c;
    struct desc d;
    uint64_t sel;
    bool ok, lsl = op.op == SYS_OP_LSL;
    int err = need_protected(v);
    if (!err)
        err = rm_read(v, op, 2, &sel);
    if (!err)
        err = peek(v, (uint16_t)sel, &d, &ok);
    if (err)
        return err;
    ok = ok && type_shows(c, &d, lsl) && privilege_allows(c, (uint16_t)sel, &d);
    set_zf(c, ok);
    /* The limit's bits 19:16 come along in LAR's result: undefined by Intel (x of 00FxFF00H), so by AMD and on silicon. */
    if (ok)
        gpr_write(c, op.reg, op.opsize, op.flags, lsl ? desc_limit(&d) : d.lo >> 32 & 0x00ffff00);
    return SYS_NEXT;
}

int sys_verify(struct vcpu *v, struct sys_op op)
{
    struct cpu *c = &v->c;
    struct desc d;
    uint64_t sel;
    bool ok;
    int err = need_protected(v);
    if (!err)
        err = rm_read(v, op, 2, &sel);
    if (!err)
        err = peek(v, (uint16_t)sel, &d, &ok);
    if (err)
        return err;
    if (ok && op.op == SYS_OP_VERW)
        ok = desc_is_writable(&d) && privilege_allows(c, (uint16_t)sel, &d);
    else if (ok)
        ok = (d.attr & SEG_S) && (!desc_is_code(&d) || (d.attr & SEG_RW)) && privilege_allows(c, (uint16_t)sel, &d);
    set_zf(c, ok);
    return SYS_NEXT;
}

int sys_arpl(struct vcpu *v, struct sys_op op)
{
    uint64_t sel, rpl = v->c.gpr[op.reg & 15] & 3;
    int err = need_protected(v);
    if (!err)
        err = rm_read(v, op, 2, &sel);
    if (err)
        return err;
    bool raise = (sel & 3) < rpl;
    err = raise ? rm_write(v, op, 2, (sel & ~3ull) | rpl) : 0;
    if (err)
        return err;
    set_zf(&v->c, raise);
    return SYS_NEXT;
}
