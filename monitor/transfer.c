/* monitor/transfer.c - far JMP, CALL and RET, IRET, and the fast system calls. nofpu.
 *
 * Each path follows the operation section of its instruction (SDM 2A-2B): checks in that order, then memory is written, then
 * CS, CPL, SS, RSP and flags change together. Where Intel and AMD differ: docs/PROTECTION.md. */
#include "monitor/sys_int.h"
#include "monitor/cpumodel.h"

/* ---- shared steps ---- */

bool sys_vendor_intel(const struct vcpu *v) { return v->cpu->intel; }

int code_check_rip(struct vcpu *v, const struct desc *d, uint64_t rip, uint32_t ext)
{
    bool ok = desc_is_code64(&v->c, d) ? x86_is_canonical(rip) : rip <= desc_limit(d);
    return ok ? 0 : sys_fault_err(v, EXC_GP, ext);
}

/* The instruction pointer as code segment d takes it: other than 64-bit code has 32 bits of it (measured). */
static uint64_t code_rip(const struct cpu *c, const struct desc *d, uint64_t rip)
{
    return desc_is_code64(c, d) ? rip : (uint32_t)rip;
}

void code_enter(struct cpu *c, uint16_t sel, const struct desc *d, unsigned cpl, uint64_t rip)
{
    seg_set(c, S_CS, (uint16_t)((sel & ~3u) | cpl), d);
    if (desc_is_code64(c, d))
        c->seg[S_CS].base = 0;
    c->cpl = (uint8_t)cpl;
    c->rip = rip;
}

/* A 16- or 32-bit TSS keeps SP/ESP and SS of rings 0-2 in pairs from offset 2 or 4 (SDM 3A figures 7-2, 7-10). */
static int tss_read_stack(struct vcpu *v, unsigned dpl, uint32_t ext, uint16_t *sel, uint64_t *sp)
{
    const struct seg *tr = &v->c.seg[S_TR];
    unsigned n = (tr->attr & SEG_TYPE & 8) ? 4 : 2, off = dpl * 2 * n + n;
    uint64_t ss;
    if ((tr->attr & SEG_UNUSABLE) || off + n + 1 > tr->limit)
        return fault_sel(v, EXC_TS, tr->sel, ext);
    int rc = mem_read_u(v, lin_wrap(&v->c, tr->base + off), n, MEM_R | MEM_SUPER, sp);
    if (!rc)
        rc = mem_read_u(v, lin_wrap(&v->c, tr->base + off + n), 2, MEM_R | MEM_SUPER, &ss);
    if (!rc)
        *sel = (uint16_t)ss;
    return rc;
}

static int tss_stack64(struct vcpu *v, unsigned dpl, uint32_t ext, struct seg *ss, uint64_t *sp)
{
    const struct seg *tr = &v->c.seg[S_TR];
    unsigned off = dpl * 8 + 4;
    if ((tr->attr & SEG_UNUSABLE) || off + 7 > tr->limit)
        return fault_sel(v, EXC_TS, tr->sel, ext);
    seg_null(ss, (uint16_t)dpl);
    return mem_read_u(v, tr->base + off, 8, MEM_R | MEM_SUPER, sp);
}

int tss_stack(struct vcpu *v, unsigned dpl, uint32_t ext, struct seg *ss, uint64_t *sp)
{
    uint16_t sel;
    struct desc d;
    if (cpu_long_mode(&v->c))
        return tss_stack64(v, dpl, ext, ss, sp);
    int rc = tss_read_stack(v, dpl, ext, &sel, sp);
    if (rc)
        return rc;
    if (SEL_NULL(sel))
        return fault_sel(v, EXC_TS, sel, ext);
    rc = desc_read(v, sel, EXC_TS, ext, &d);
    if (rc)
        return rc;
    if (SEL_RPL(sel) != dpl || desc_dpl(&d) != dpl || !desc_is_writable(&d))
        return fault_sel(v, EXC_TS, sel, ext);
    if (!(d.attr & SEG_P))
        return fault_sel(v, EXC_SS, sel, ext);
    rc = desc_set_accessed(v, &d);
    if (!rc)
        seg_from_desc(ss, sel, &d);
    return rc;
}

void stk_open_new(const struct vcpu *v, struct stk *s, const struct seg *ss, uint64_t sp, unsigned size, uint32_t ext)
{
    bool wide = cpu_long_mode(&v->c);
    s->ss = wide ? NULL : ss;
    s->mask = wide ? ~0ull : (ss->attr & SEG_DB) ? 0xffffffffull : 0xffffull;
    s->sp = sp & s->mask;
    s->err = (ss->sel & ~3u) | ext;
    s->how = MEM_SUPER;
    s->size = size;
    s->n = 0;
}

/* Switches tasks for JMP, CALL and IRET; what goes wrong in the new task is delivered there. */
static int finish_task_switch(struct vcpu *v, int rc)
{
    struct guest_fault trap = {.vector = EXC_DB, .dr6 = TASK_TRAP_DR6};
    if (rc == SYS_TASK_TRAP)
        return exc_deliver(v, EXC_TRAP, &trap);
    return rc == SYS_LATE_FAULT ? exc_deliver(v, EXC_FAULT, &v->fault) : rc;
}

/* ---- far JMP and CALL ---- */

struct far {
    struct sys_op op;
    bool call;
    uint16_t sel;
    uint64_t off;
};

static int far_operand(struct vcpu *v, struct far *f)
{
    if (!(f->op.flags & SYS_F_IMM))
        return far_pointer(v, f->op, &f->sel, &f->off);
    f->sel = (uint16_t)(v->op_imm >> 32);
    f->off = f->op.opsize == 2 ? (uint16_t)v->op_imm : (uint32_t)v->op_imm;
    return 0;
}

static int push_return(struct vcpu *v, struct stk *s, const struct far *f)
{
    int rc = stk_push(v, s, v->c.seg[S_CS].sel);
    return rc ? rc : stk_push(v, s, next_rip(&v->c, f->op.len));
}

static int far_real(struct vcpu *v, const struct far *f)
{
    struct cpu *c = &v->c;
    struct stk s;
    int rc;
    stk_open(v, &s, f->op.opsize);
    if (f->call && (rc = push_return(v, &s, f)))
        return rc;
    if (f->off > c->seg[S_CS].limit)
        return sys_fault_err(v, EXC_GP, 0);
    rc = stk_flush(v, &s);
    if (rc)
        return rc;
    if (f->call)
        stack_set(c, s.mask, s.sp);
    c->rip = f->off;
    seg_load_real(v, S_CS, f->sel);
    return SYS_JUMP;
}

/* Ends a transfer that stays at this privilege and on this stack. */
static int far_same(struct vcpu *v, const struct far *f, uint16_t sel, struct desc *d, uint64_t rip, struct stk *s)
{
    struct cpu *c = &v->c;
    int rc;
    if (f->call && (rc = push_return(v, s, f)))
        return rc;
    rc = code_check_rip(v, d, rip, 0);
    if (!rc)
        rc = desc_set_accessed(v, d);
    if (!rc)
        rc = stk_flush(v, s);
    if (rc)
        return rc;
    if (f->call)
        stack_set(c, s->mask, s->sp);
    code_enter(c, sel, d, c->cpl, rip);
    cpu_update_key(c);
    return SYS_JUMP;
}

static int far_code(struct vcpu *v, const struct far *f, struct desc *d)
{
    unsigned cpl = v->c.cpl, dpl = desc_dpl(d);
    struct stk s;
    bool ok = desc_is_conforming(d) ? dpl <= cpl : SEL_RPL(f->sel) <= cpl && dpl == cpl;
    if (!desc_is_code(d) || !ok || (desc_is_code64(&v->c, d) && (d->attr & SEG_DB)))
        return fault_sel(v, EXC_GP, f->sel, 0);
    if (!(d->attr & SEG_P))
        return fault_sel(v, EXC_NP, f->sel, 0);
    stk_open_in(v, &s, f->op.opsize, desc_is_code64(&v->c, d));
    return far_same(v, f, f->sel, d, code_rip(&v->c, d, f->off), &s);
}

struct gate {
    uint16_t sel;
    uint64_t off;
    unsigned size, params; /* of one push: 2, 4, 8; parameters in that unit */
    struct desc d;         /* of the code segment */
};

/* CALL through a gate to an inner ring: its stack comes from the TSS, the parameters move over (SDM 3A 5.8.5). */
static int gate_inner(struct vcpu *v, const struct far *f, struct gate *g)
{
    struct cpu *c = &v->c;
    unsigned cpl = desc_dpl(&g->d);
    struct seg ss;
    struct stk s, old;
    uint64_t sp;
    int rc = tss_stack(v, cpl, 0, &ss, &sp);
    if (rc)
        return rc;
    stk_open_new(v, &s, &ss, sp, g->size, 0);
    stk_open(v, &old, g->size);
    rc = stk_push(v, &s, c->seg[S_SS].sel);
    if (!rc)
        rc = stk_push(v, &s, c->gpr[R_RSP]);
    if (!rc && g->params)
        rc = stk_peek(v, &old, 0, g->params);
    for (unsigned i = g->params; i-- && !rc;)
        rc = stk_push(v, &s, old.val[i]);
    if (!rc)
        rc = push_return(v, &s, f);
    if (!rc)
        rc = code_check_rip(v, &g->d, g->off, 0);
    if (!rc)
        rc = desc_set_accessed(v, &g->d);
    if (!rc)
        rc = stk_flush(v, &s);
    if (rc)
        return rc;
    c->seg[S_SS] = ss;
    code_enter(c, g->sel, &g->d, cpl, g->off);
    stack_set(c, s.mask, s.sp);
    cpu_update_key(c);
    return SYS_JUMP;
}

/* Takes the gate apart and checks the code segment it names. */
static int gate_open(struct vcpu *v, const struct far *f, struct desc *d, struct gate *g)
{
    struct cpu *c = &v->c;
    bool wide = cpu_long_mode(c);
    if (desc_dpl(d) < c->cpl || SEL_RPL(f->sel) > desc_dpl(d))
        return fault_sel(v, EXC_GP, f->sel, 0);
    int rc = wide ? desc_read_hi(v, f->sel, EXC_GP, 0, d) : 0;
    if (rc)
        return rc;
    if (wide && (d->hi >> 40 & 0x1f)) /* the type field of the upper half must be 0 (SDM 3A 5.8.3.1) */
        return fault_sel(v, EXC_GP, f->sel, 0);
    if (!(d->attr & SEG_P))
        return fault_sel(v, EXC_NP, f->sel, 0);
    g->sel = (uint16_t)(d->lo >> 16);
    g->off = d->lo & 0xffff;
    g->size = 2;
    g->params = d->lo >> 32 & 31;
    if (desc_type(d) == DT_CALL) {
        g->off |= d->lo >> 32 & 0xffff0000u;
        g->size = 4;
    }
    if (wide) {
        g->off |= d->hi << 32;
        g->size = 8;
        g->params = 0;
    }
    if (SEL_NULL(g->sel))
        return sys_fault_err(v, EXC_GP, 0);
    rc = desc_read(v, g->sel, EXC_GP, 0, &g->d);
    if (rc)
        return rc;
    bool jmp_ok = desc_is_conforming(&g->d) || desc_dpl(&g->d) == c->cpl;
    if (!desc_is_code(&g->d) || desc_dpl(&g->d) > c->cpl || !(f->call || jmp_ok) ||
        (wide && (g->d.attr & (SEG_L | SEG_DB)) != SEG_L))
        return fault_sel(v, EXC_GP, g->sel, 0);
    return g->d.attr & SEG_P ? 0 : fault_sel(v, EXC_NP, g->sel, 0);
}

static int far_gate(struct vcpu *v, const struct far *f, struct desc *d)
{
    struct gate g;
    struct stk s;
    int rc = gate_open(v, f, d, &g);
    if (rc)
        return rc;
    if (f->call && !desc_is_conforming(&g.d) && desc_dpl(&g.d) < v->c.cpl)
        return gate_inner(v, f, &g);
    stk_open_in(v, &s, g.size, desc_is_code64(&v->c, &g.d));
    return far_same(v, f, g.sel, &g.d, g.off, &s);
}

/* A TSS, or a task gate that names one. */
static int far_task(struct vcpu *v, const struct far *f, struct desc *d)
{
    struct cpu *c = &v->c;
    struct task_switch t = {.reason = f->call ? TASK_CALL : TASK_JMP, .sel = f->sel};
    if (desc_dpl(d) < c->cpl || SEL_RPL(f->sel) > desc_dpl(d))
        return fault_sel(v, EXC_GP, f->sel, 0);
    if (desc_is_sys(d, DT_TASK_GATE)) {
        if (!(d->attr & SEG_P))
            return fault_sel(v, EXC_NP, f->sel, 0);
        t.sel = (uint16_t)(d->lo >> 16);
    }
    int rc = task_find(v, t.sel, 0, &t.d);
    if (rc)
        return rc;
    t.rip = next_rip(c, f->op.len);
    t.eflags = cpu_get_eflags(c) & ~EFLAGS_RF;
    return finish_task_switch(v, task_switch(v, &t));
}

static int far_protected(struct vcpu *v, const struct far *f)
{
    struct desc d;
    if (SEL_NULL(f->sel))
        return sys_fault_err(v, EXC_GP, 0);
    int rc = desc_read(v, f->sel, EXC_GP, 0, &d);
    if (rc)
        return rc;
    if (d.attr & SEG_S)
        return far_code(v, f, &d);
    bool wide = cpu_long_mode(&v->c);
    switch (desc_type(&d)) {
    case DT_CALL: return far_gate(v, f, &d);
    case DT_CALL16:
        if (!wide)
            return far_gate(v, f, &d);
        break;
    case DT_TASK_GATE:
    case DT_TSS16:
    case DT_TSS:
    case DT_TSS16_BUSY:
    case DT_TSS_BUSY:
        if (!wide)
            return far_task(v, f, &d);
        break;
    }
    return fault_sel(v, EXC_GP, f->sel, 0);
}

static int far_transfer(struct vcpu *v, struct sys_op op, bool call)
{
    struct far f = {.op = op, .call = call};
    int rc = far_operand(v, &f);
    if (rc)
        return rc;
    return cpu_real_selectors(&v->c) ? far_real(v, &f) : far_protected(v, &f);
}

int sys_xfer_jmp_far(struct vcpu *v, struct sys_op op) { return far_transfer(v, op, false); }
int sys_xfer_call_far(struct vcpu *v, struct sys_op op) { return far_transfer(v, op, true); }

/* ---- returns ---- */

/* The code segment on the stack of a RETF or IRET. */
static int return_check_cs(struct vcpu *v, uint16_t sel, struct desc *d)
{
    if (SEL_NULL(sel))
        return sys_fault_err(v, EXC_GP, 0);
    int rc = desc_read(v, sel, EXC_GP, 0, d);
    if (rc)
        return rc;
    unsigned rpl = SEL_RPL(sel), dpl = desc_dpl(d);
    bool ok = desc_is_conforming(d) ? dpl <= rpl : dpl == rpl;
    if (!desc_is_code(d) || rpl < v->c.cpl || !ok || (desc_is_code64(&v->c, d) && (d->attr & SEG_DB)))
        return fault_sel(v, EXC_GP, sel, 0);
    return d->attr & SEG_P ? 0 : fault_sel(v, EXC_NP, sel, 0);
}

/* The stack segment that comes with it; rpl and cs are those of the code segment returned to. */
static int return_check_ss(struct vcpu *v, uint16_t sel, unsigned rpl, const struct desc *cs, struct seg *ss)
{
    struct desc d;
    if (SEL_NULL(sel)) {
        if (!desc_is_code64(&v->c, cs) || rpl == 3)
            return sys_fault_err(v, EXC_GP, 0);
        seg_null(ss, sel);
        return 0;
    }
    int rc = desc_read(v, sel, EXC_GP, 0, &d);
    if (rc)
        return rc;
    if (SEL_RPL(sel) != rpl || !desc_is_writable(&d) || desc_dpl(&d) != rpl)
        return fault_sel(v, EXC_GP, sel, 0);
    if (!(d.attr & SEG_P))
        return fault_sel(v, EXC_SS, sel, 0);
    rc = desc_set_accessed(v, &d);
    if (!rc)
        seg_from_desc(ss, sel, &d);
    return rc;
}

/* RSP after a return that also loaded SS. A 16-bit stack leaves bits 16-31 alone, which Linux's espfix exists for. */
static void return_set_sp(struct cpu *c, uint64_t sp)
{
    stack_set(c, stack_mask(c), sp);
    if (!cpu_code64(c))
        c->gpr[R_RSP] = (uint32_t)c->gpr[R_RSP];
}

/* Pops what a return at the same privilege has read. The sum is made in the width of the stack it was read from, RSP changes
 * as the code that now runs sees it (measured). */
static void return_release(struct cpu *c, const struct stk *s, uint64_t bytes)
{
    stack_set(c, stack_mask(c), c->gpr[R_RSP] + (bytes & s->mask));
}

/* A pointer on the stack into val[at], its selector into val[at + 1]: the selector is read first, and Intel's processors read
 * 2 bytes of its element (measured). */
static int far_peek(struct vcpu *v, struct stk *s, unsigned skip, unsigned at)
{
    struct stk t = *s;
    t.size = sys_vendor_intel(v) ? 2 : s->size;
    int rc = stk_peek(v, &t, skip + s->size, 1);
    s->val[at + 1] = t.val[0];
    t.size = s->size;
    if (!rc)
        rc = stk_peek(v, &t, skip, 1);
    s->val[at] = t.val[0];
    return rc;
}

static int retf_real(struct vcpu *v, struct stk *s, unsigned release)
{
    struct cpu *c = &v->c;
    int rc = far_peek(v, s, 0, 0);
    if (rc)
        return rc;
    if (s->val[0] > c->seg[S_CS].limit)
        return sys_fault_err(v, EXC_GP, 0);
    c->rip = s->val[0];
    stack_set(c, s->mask, s->sp + 2 * s->size + release);
    seg_load_real(v, S_CS, (uint16_t)s->val[1]);
    return SYS_JUMP;
}

static int retf_outer(struct vcpu *v, struct stk *s, unsigned release, uint16_t cs, struct desc *d, uint64_t rip)
{
    struct cpu *c = &v->c;
    struct seg ss;
    int rc = far_peek(v, s, 2 * s->size + release, 0);
    if (!rc)
        rc = return_check_ss(v, (uint16_t)s->val[1], SEL_RPL(cs), d, &ss);
    if (!rc)
        rc = code_check_rip(v, d, rip, 0);
    if (!rc)
        rc = desc_set_accessed(v, d);
    if (rc)
        return rc;
    code_enter(c, cs, d, SEL_RPL(cs), rip);
    c->seg[S_SS] = ss;
    return_set_sp(c, s->val[0] + release);
    seg_drop_privileged(c);
    cpu_update_key(c);
    return SYS_JUMP;
}

int sys_xfer_ret_far(struct vcpu *v, struct sys_op op)
{
    struct cpu *c = &v->c;
    unsigned release = v->op_imm & 0xffff;
    struct stk s;
    struct desc d;
    stk_open(v, &s, op.opsize);
    if (cpu_real_selectors(c))
        return retf_real(v, &s, release);
    int rc = far_peek(v, &s, 0, 0);
    if (rc)
        return rc;
    uint64_t rip = s.val[0];
    uint16_t cs = (uint16_t)s.val[1];
    rc = return_check_cs(v, cs, &d);
    if (rc)
        return rc;
    rip = code_rip(c, &d, rip);
    if (SEL_RPL(cs) > c->cpl)
        return retf_outer(v, &s, release, cs, &d, rip);
    rc = code_check_rip(v, &d, rip, 0);
    if (!rc)
        rc = desc_set_accessed(v, &d);
    if (rc)
        return rc;
    code_enter(c, cs, &d, c->cpl, rip);
    return_release(c, &s, 2 * s.size + release);
    cpu_update_key(c);
    return SYS_JUMP;
}

/* ---- IRET ---- */

/* EFLAGS after an IRET of opsize bytes executed at CPL cpl that does not enter VM86 (SDM 2A, IRET). */
static void iret_set_flags(struct cpu *c, uint32_t image, unsigned opsize, unsigned cpl)
{
    uint32_t mask = EFLAGS_ARITH | EFLAGS_TF | EFLAGS_DF | EFLAGS_NT;
    if (opsize > 2)
        mask |= EFLAGS_RF | EFLAGS_AC | EFLAGS_ID;
    if (cpl <= cpu_iopl(c))
        mask |= EFLAGS_IF;
    if (cpl == 0)
        mask |= EFLAGS_IOPL | (opsize > 2 ? EFLAGS_VIF | EFLAGS_VIP : 0);
    cpu_set_eflags(c, (cpu_get_eflags(c) & ~mask) | (image & mask));
}

/* Flags an IRET in virtual-8086 mode leaves alone, besides VM. */
#define V86_KEEP (EFLAGS_VM | EFLAGS_IOPL | EFLAGS_VIP | EFLAGS_VIF)

/* IRET in VM86 with CR4.VME and IOPL < 3: IF of the image goes to VIF (SDM 3A 20.3.3.1). */
static int iret_vme_flags(struct vcpu *v, uint32_t image, uint32_t *flags)
{
    uint32_t f = cpu_get_eflags(&v->c), mask = 0xffffu & ~(EFLAGS_IF | EFLAGS_IOPL);
    if ((image & EFLAGS_TF) || ((image & EFLAGS_IF) && (f & EFLAGS_VIP)))
        return sys_fault_err(v, EXC_GP, 0);
    *flags = (f & ~(mask | EFLAGS_VIF)) | (image & mask) | (image & EFLAGS_IF ? EFLAGS_VIF : 0);
    return 0;
}

/* EIP CS EFLAGS into val[]: EFLAGS first (measured). */
static int iret_peek(struct vcpu *v, struct stk *s)
{
    int rc = stk_peek(v, s, 2 * s->size, 1);
    s->val[2] = s->val[0];
    return rc ? rc : far_peek(v, s, 0, 0);
}

/* Real-address and virtual-8086 mode. */
static int iret_real(struct vcpu *v, unsigned opsize)
{
    struct cpu *c = &v->c;
    struct stk s;
    uint32_t f = cpu_get_eflags(c), mask = opsize == 2 ? 0x7fd5u : 0x257fd5u;
    bool vme = false;
    if (cpu_vm86(c)) {
        vme = cpu_iopl(c) < 3;
        if (vme && !((c->cr4 & CR4_VME) && opsize == 2))
            return sys_fault_err(v, EXC_GP, 0);
        mask &= ~V86_KEEP;
    }
    stk_open(v, &s, opsize);
    int rc = iret_peek(v, &s);
    if (rc)
        return rc;
    if (s.val[0] > c->seg[S_CS].limit)
        return sys_fault_err(v, EXC_GP, 0);
    f = (f & ~mask) | ((uint32_t)s.val[2] & mask);
    if (vme && (rc = iret_vme_flags(v, (uint32_t)s.val[2], &f)))
        return rc;
    stack_set(c, s.mask, s.sp + 3 * s.size);
    cpu_set_eflags(c, f);
    c->rip = s.val[0];
    seg_load_real(v, S_CS, (uint16_t)s.val[1]);
    return SYS_JUMP;
}

/* To virtual-8086 mode from ring 0 (SDM 3A 20.2.5). val[]: EIP CS EFLAGS ESP SS ES DS FS GS. */
static int iret_to_vm86(struct vcpu *v, struct stk *s)
{
    static const uint8_t order[] = {S_CS, 0, 0, S_SS, S_ES, S_DS, S_FS, S_GS};
    struct cpu *c = &v->c;
    int rc = stk_peek(v, s, 0, 9);
    if (rc)
        return rc;
    cpu_set_eflags(c, (uint32_t)s->val[2]);
    c->cpl = 3;
    c->rip = s->val[0] & 0xffff;
    for (unsigned i = 0; i < sizeof order; i++)
        if (i != 1 && i != 2)
            seg_load_real(v, order[i], (uint16_t)s->val[i + 1]);
    c->gpr[R_RSP] = (uint32_t)s->val[3];
    cpu_update_key(c);
    /* A pending virtual interrupt that is not masked shows before the first instruction (SDM 3A 20.3.2). */
    if ((c->cr4 & CR4_VME) && (~s->val[2] & (EFLAGS_VIF | EFLAGS_VIP)) == 0) {
        struct guest_fault f = {.vector = EXC_GP, .has_error = true};
        return exc_deliver(v, EXC_FAULT, &f);
    }
    return SYS_JUMP;
}

/* Return that loads SS:RSP: to an outer ring, and every return out of 64-bit code. val[]: RIP CS RFLAGS RSP SS. */
static int iret_with_stack(struct vcpu *v, struct stk *s, struct desc *d)
{
    struct cpu *c = &v->c;
    unsigned cpl = c->cpl;
    uint16_t cs = (uint16_t)s->val[1];
    struct seg ss;
    int rc = return_check_ss(v, (uint16_t)s->val[4], SEL_RPL(cs), d, &ss);
    if (!rc)
        rc = code_check_rip(v, d, s->val[0], 0);
    if (!rc)
        rc = desc_set_accessed(v, d);
    if (rc)
        return rc;
    iret_set_flags(c, (uint32_t)s->val[2], s->size, cpl);
    code_enter(c, cs, d, SEL_RPL(cs), s->val[0]);
    c->seg[S_SS] = ss;
    return_set_sp(c, s->val[3]);
    if (c->cpl > cpl)
        seg_drop_privileged(c);
    cpu_update_key(c);
    return SYS_JUMP;
}

static int iret_same(struct vcpu *v, struct stk *s, struct desc *d)
{
    struct cpu *c = &v->c;
    int rc = code_check_rip(v, d, s->val[0], 0);
    if (!rc)
        rc = desc_set_accessed(v, d);
    if (rc)
        return rc;
    iret_set_flags(c, (uint32_t)s->val[2], s->size, c->cpl);
    code_enter(c, (uint16_t)s->val[1], d, c->cpl, s->val[0]);
    return_release(c, s, 3 * s->size);
    cpu_update_key(c);
    return SYS_JUMP;
}

static int iret_protected(struct vcpu *v, struct sys_op op)
{
    struct cpu *c = &v->c;
    bool from64 = cpu_code64(c);
    struct stk s;
    struct desc d;
    if (c->eflags_sys & EFLAGS_NT) {
        if (cpu_long_mode(c))
            return sys_fault_err(v, EXC_GP, 0);
        return finish_task_switch(v, task_return(v, next_rip(c, op.len)));
    }
    stk_open(v, &s, op.opsize);
    int rc = iret_peek(v, &s);
    if (rc)
        return rc;
    if (op.opsize == 4 && (s.val[2] & EFLAGS_VM) && c->cpl == 0 && !cpu_long_mode(c))
        return iret_to_vm86(v, &s);
    rc = return_check_cs(v, (uint16_t)s.val[1], &d);
    if (rc)
        return rc;
    if (!from64 && SEL_RPL(s.val[1]) == c->cpl)
        return iret_same(v, &s, &d);
    rc = far_peek(v, &s, 3 * s.size, 3);
    if (rc)
        return rc;
    s.val[0] = code_rip(c, &d, s.val[0]);
    return iret_with_stack(v, &s, &d);
}

int sys_xfer_iret(struct vcpu *v, struct sys_op op)
{
    v->nmi_blocked = false; /* even if the IRET faults (SDM 3A 6.7.1) */
    return cpu_real_selectors(&v->c) ? iret_real(v, op.opsize) : iret_protected(v, op);
}

/* ---- fast system calls ---- */

#define ATTR_CODE (SEG_P | SEG_S | SEG_CODE | SEG_RW | SEG_A | SEG_G)
#define ATTR_DATA (SEG_P | SEG_S | SEG_RW | SEG_A | SEG_G | SEG_DB)

/* Loads flat CS and SS of ring cpl without looking at any descriptor. */
static void fast_enter(struct cpu *c, unsigned cs, unsigned ss, unsigned cpl, bool wide)
{
    uint32_t dpl = cpl << SEG_DPL_SHIFT;
    seg_set_flat(&c->seg[S_CS], (uint16_t)((cs & ~3u) | cpl), ATTR_CODE | dpl | (wide ? SEG_L : SEG_DB));
    seg_set_flat(&c->seg[S_SS], (uint16_t)((ss & ~3u) | cpl), ATTR_DATA | dpl);
    c->cpl = (uint8_t)cpl;
}

int sys_xfer_syscall(struct vcpu *v, struct sys_op op)
{
    struct cpu *c = &v->c;
    bool from64 = cpu_code64(c), wide = cpu_long_mode(c);
    unsigned cs = c->star >> 32 & 0xffff;
    uint32_t f = cpu_get_eflags(c) & ~EFLAGS_RF;
    /* Outside 64-bit mode only AMD has it. */
    if (!(c->efer & EFER_SCE) || (!from64 && sys_vendor_intel(v)))
        return sys_fault(v, EXC_UD);
    c->gpr[R_RCX] = next_rip(c, op.len);
    if (wide) {
        c->gpr[R_R11] = f;
        f &= ~(uint32_t)c->sfmask;
        c->rip = from64 ? c->lstar : c->cstar;
    } else {
        f &= ~(EFLAGS_VM | EFLAGS_IF);
        c->rip = (uint32_t)c->star;
    }
    cpu_set_eflags(c, f);
    fast_enter(c, cs, (cs & ~3u) + 8, 0, wide);
    cpu_update_key(c);
    return SYS_JUMP;
}

int sys_xfer_sysret(struct vcpu *v, struct sys_op op)
{
    struct cpu *c = &v->c;
    bool wide = op.opsize == 8;
    unsigned base = c->star >> 48;
    if (!(c->efer & EFER_SCE) || (!cpu_code64(c) && sys_vendor_intel(v)))
        return sys_fault(v, EXC_UD);
    if (!cpu_protected(c) || c->cpl)
        return sys_fault_err(v, EXC_GP, 0);
    /* AMD takes the address and faults at CPL 3 on the fetch, on the user's own stack and so much the safer. */
    if (wide && !x86_is_canonical(c->gpr[R_RCX]) && sys_vendor_intel(v))
        return sys_fault_err(v, EXC_GP, 0);
    if (cpu_long_mode(c))
        cpu_set_eflags(c, (uint32_t)c->gpr[R_R11] & 0x3c7fd7);
    else
        c->if_flag = 1;
    c->rip = wide ? c->gpr[R_RCX] : (uint32_t)c->gpr[R_RCX];
    fast_enter(c, wide ? base + 16 : base, base + 8, 3, wide);
    cpu_update_key(c);
    if (!(c->eflags_sys & EFLAGS_TF))
        return SYS_JUMP;
    /* Unlike after POPF and IRET the trap comes at once, as if the SYSCALL itself had been stepped. No manual says so; all
     * CPUs do it. */
    const struct guest_fault step = {.vector = EXC_DB, .dr6 = 1u << 14};
    return exc_deliver(v, EXC_TRAP, &step);
}

int sys_xfer_sysenter(struct vcpu *v, struct sys_op op)
{
    struct cpu *c = &v->c;
    bool wide = cpu_long_mode(c);
    unsigned cs = c->sysenter_cs & 0xfffc;
    if (wide && !sys_vendor_intel(v))
        return sys_fault(v, EXC_UD);
    if (!cpu_protected(c) || !cs)
        return sys_fault_err(v, EXC_GP, 0);
    cpu_set_eflags(c, cpu_get_eflags(c) & ~(EFLAGS_VM | EFLAGS_IF | EFLAGS_RF));
    c->gpr[R_RSP] = wide ? c->sysenter_esp : (uint32_t)c->sysenter_esp;
    c->rip = wide ? c->sysenter_eip : (uint32_t)c->sysenter_eip;
    fast_enter(c, cs, cs + 8, 0, wide);
    cpu_update_key(c);
    return SYS_JUMP;
}

int sys_xfer_sysexit(struct vcpu *v, struct sys_op op)
{
    struct cpu *c = &v->c;
    bool wide = op.opsize == 8;
    unsigned cs = c->sysenter_cs & 0xfffc;
    uint64_t rip = c->gpr[R_RDX], rsp = c->gpr[R_RCX];
    if (cpu_long_mode(c) && !sys_vendor_intel(v))
        return sys_fault(v, EXC_UD);
    if (!cpu_protected(c) || c->cpl || !cs)
        return sys_fault_err(v, EXC_GP, 0);
    if (wide && !(x86_is_canonical(rip) && x86_is_canonical(rsp)))
        return sys_fault_err(v, EXC_GP, 0);
    cs += wide ? 32 : 16;
    c->rip = wide ? rip : (uint32_t)rip;
    c->gpr[R_RSP] = wide ? rsp : (uint32_t)rsp;
    fast_enter(c, cs, cs + 8, 3, wide);
    cpu_update_key(c);
    return SYS_JUMP;
}
