/* monitor/taskswitch.c - hardware task switching (SDM 3A chapter 7). nofpu.
 *
 * Everything that can go wrong in the old task is checked, read or probed first (7.3, steps 1-5). Then the old state is saved
 * and the new one taken over (steps 6-12). What is wrong with the new task's segments is a fault in the new task: its
 * registers are all there, the segments not yet checked are unusable. */
#include "monitor/sys_int.h"
#include "shadowmmu/ptwalk.h"

/* Offsets inside a TSS (figures 7-2 and 7-10). */
enum {
    TSS_LINK = 0,
    TSS_CR3 = 28,
    TSS_EIP = 32,
    TSS_SEG = 72,
    TSS_LDT = 96,
    TSS_TRAP = 100,
    TSS_BYTES = 104,
    TSS16_IP = 14,
    TSS16_SEG = 34,
    TSS16_LDT = 42,
    TSS16_BYTES = 44
};

/* The dynamic part of a TSS, order as in memory. */
struct tss {
    uint32_t cr3, eip, eflags, gpr[8];
    uint16_t seg[6]; /* ES CS SS DS FS GS */
    uint16_t ldt;
    bool trap;
};

static uint32_t get_le(const uint8_t *p, unsigned n)
{
    uint32_t x = 0;
    for (unsigned i = 0; i < n; i++)
        x |= (uint32_t)p[i] << (8 * i);
    return x;
}
static void put_le(uint8_t *p, unsigned n, uint32_t x)
{
    for (unsigned i = 0; i < n; i++)
        p[i] = (uint8_t)(x >> (8 * i));
}

static bool tss_is32(uint32_t attr) { return attr & 8; }

/* ---- old task ---- */

static uint64_t tr_desc(const struct cpu *c) { return lin_wrap(c, c->gdtr.base + (c->seg[S_TR].sel & ~7u)); }

/* Writes the registers into buf, an image of the saved part of the TSS from EIP on, in units of n bytes. */
static void save_registers(const struct cpu *c, const struct task_switch *t, uint8_t *buf, unsigned n)
{
    uint32_t f = t->eflags;
    if (t->reason == TASK_IRET)
        f &= ~EFLAGS_NT;
    put_le(buf, n, (uint32_t)t->rip);
    put_le(buf + n, n, f);
    for (unsigned i = 0; i < 8; i++)
        put_le(buf + (2 + i) * n, n, (uint32_t)c->gpr[i]);
    for (unsigned i = 0; i < (n == 4 ? 6u : 4u); i++)
        put_le(buf + (10 + i) * n, 2, c->seg[i].sel);
}

struct old_task {
    uint64_t lin, desc; /* of the saved part; of its descriptor's type byte */
    unsigned bytes, n;
    uint8_t buf[TSS_LDT - TSS_EIP];
    uint64_t type;
};

/* Reads with intent to write: whatever could fault when the old state is saved faults here. */
static int old_prepare(struct vcpu *v, const struct task_switch *t, struct old_task *o)
{
    struct cpu *c = &v->c;
    const struct seg *tr = &c->seg[S_TR];
    bool wide = tss_is32(tr->attr);
    unsigned from = wide ? TSS_EIP : TSS16_IP;
    o->n = wide ? 4 : 2;
    o->bytes = wide ? TSS_LDT - TSS_EIP : TSS16_LDT - TSS16_IP;
    if ((tr->attr & SEG_UNUSABLE) || from + o->bytes - 1 > tr->limit)
        return fault_sel(v, EXC_TS, tr->sel, t->ext);
    o->lin = lin_wrap(c, tr->base + from);
    o->desc = tr_desc(c) + 5;
    int rc = mem_read(v, o->lin, o->buf, o->bytes, MEM_RW | MEM_SUPER);
    if (!rc)
        rc = mem_read_u(v, o->desc, 1, MEM_RW | MEM_SUPER, &o->type);
    save_registers(c, t, o->buf, o->n);
    return rc;
}

static int old_save(struct vcpu *v, const struct task_switch *t, struct old_task *o)
{
    int rc = mem_write(v, o->lin, o->buf, o->bytes, MEM_W | MEM_SUPER);
    if (!rc && (t->reason == TASK_JMP || t->reason == TASK_IRET))
        rc = mem_write_u(v, o->desc, 1, MEM_W | MEM_SUPER, o->type & ~2ull); /* no longer busy */
    return rc;
}

/* ---- new task ---- */

static int new_read(struct vcpu *v, const struct task_switch *t, struct tss *n)
{
    uint8_t buf[TSS_BYTES];
    bool wide = tss_is32(t->d.attr);
    unsigned u = wide ? 4 : 2, segs = wide ? 6 : 4;
    const uint8_t *p = buf + (wide ? TSS_EIP : TSS16_IP), *sp = buf + (wide ? TSS_SEG : TSS16_SEG);
    int rc = mem_read(v, lin_wrap(&v->c, desc_base(&t->d)), buf, wide ? TSS_BYTES : TSS16_BYTES, MEM_R | MEM_SUPER);
    if (rc)
        return rc;
    n->cr3 = wide ? get_le(buf + TSS_CR3, 4) : 0;
    n->eip = get_le(p, u);
    n->eflags = get_le(p + u, u);
    for (unsigned i = 0; i < 8;
         i++) /* a 16-bit TSS leaves the upper halves undefined: ones, as CPUs have been seen to do */
        n->gpr[i] = get_le(p + (2 + i) * u, u) | (wide ? 0 : 0xffff0000u);
    for (unsigned i = 0; i < 6; i++)
        n->seg[i] = i < segs ? (uint16_t)get_le(sp + i * u, 2) : 0;
    n->ldt = (uint16_t)get_le(buf + (wide ? TSS_LDT : TSS16_LDT), 2);
    n->trap = wide && (buf[TSS_TRAP] & 1);
    return 0;
}

/* The writes to the new TSS and its descriptor. */
static int new_probe(struct vcpu *v, const struct task_switch *t)
{
    int rc = 0;
    if (t->reason == TASK_CALL || t->reason == TASK_INT)
        rc = mem_probe(v, lin_wrap(&v->c, desc_base(&t->d) + TSS_LINK), 2, MEM_W | MEM_SUPER);
    if (!rc && t->reason != TASK_IRET)
        rc = mem_probe(v, lin_wrap(&v->c, t->d.lin + 5), 1, MEM_W | MEM_SUPER);
    return rc;
}

static int new_mark(struct vcpu *v, struct task_switch *t)
{
    int rc = 0;
    if (t->reason == TASK_CALL || t->reason == TASK_INT)
        rc = mem_write_u(v, lin_wrap(&v->c, desc_base(&t->d) + TSS_LINK), 2, MEM_W | MEM_SUPER, v->c.seg[S_TR].sel);
    if (!rc && t->reason != TASK_IRET)
        rc = desc_set_type(v, &t->d, desc_type(&t->d) | 2);
    return rc;
}

/* Paging of the new task. With PAE the PDPTEs must be valid, as for MOV CR3: the last check in the old task. */
static bool loads_cr3(const struct cpu *c, const struct task_switch *t)
{
    return (c->cr0 & CR0_PG) && tss_is32(t->d.attr);
}

/* Steps 8-12: registers and selectors, no descriptor yet. */
static void new_take(struct vcpu *v, const struct task_switch *t, const struct tss *n)
{
    struct cpu *c = &v->c;
    uint32_t f = n->eflags;
    if (t->reason == TASK_CALL || t->reason == TASK_INT)
        f |= EFLAGS_NT;
    seg_set(c, S_TR, t->sel, &t->d);
    c->cr0 |= CR0_TS;
    c->dr[7] &= ~0x155ull; /* L0-L3, LE: breakpoints local to a task */
    if (loads_cr3(c, t) && c->cr3 != n->cr3) {
        c->cr3 = n->cr3;
        vcpu_mmu_flush(v, MMU_FLUSH_NONGLOBAL);
    }
    cpu_set_eflags(c, f);
    c->rip = n->eip;
    for (unsigned i = 0; i < 8; i++)
        c->gpr[i] = n->gpr[i];
    c->cpl = (uint8_t)(f & EFLAGS_VM ? 3 : SEL_RPL(n->seg[S_CS]));
    for (unsigned i = 0; i < 6; i++)
        seg_set_null(c, i, n->seg[i]);
    seg_set_null(c, S_LDTR, n->ldt);
    cpu_update_key(c);
}

static int load_ldt(struct vcpu *v, uint16_t sel, uint32_t ext)
{
    struct desc d;
    if (SEL_NULL(sel))
        return 0;
    if (sel & SEL_TI)
        return fault_sel(v, EXC_TS, sel, ext);
    int rc = desc_read(v, sel, EXC_TS, ext, &d);
    if (rc)
        return rc;
    if (!desc_is_sys(&d, DT_LDT) || !(d.attr & SEG_P))
        return fault_sel(v, EXC_TS, sel, ext);
    seg_set(&v->c, S_LDTR, sel, &d);
    return 0;
}

static int load_cs(struct vcpu *v, uint16_t sel, uint32_t ext)
{
    struct desc d;
    if (SEL_NULL(sel))
        return fault_sel(v, EXC_TS, sel, ext);
    int rc = desc_read(v, sel, EXC_TS, ext, &d);
    if (rc)
        return rc;
    bool ok = desc_is_conforming(&d) ? desc_dpl(&d) <= SEL_RPL(sel) : desc_dpl(&d) == SEL_RPL(sel);
    if (!desc_is_code(&d) || !ok)
        return fault_sel(v, EXC_TS, sel, ext);
    if (!(d.attr & SEG_P))
        return fault_sel(v, EXC_NP, sel, ext);
    rc = desc_set_accessed(v, &d);
    if (!rc)
        seg_set(&v->c, S_CS, sel, &d);
    return rc;
}

static int load_ss(struct vcpu *v, uint16_t sel, uint32_t ext)
{
    struct desc d;
    unsigned cpl = v->c.cpl;
    if (SEL_NULL(sel))
        return fault_sel(v, EXC_TS, sel, ext);
    int rc = desc_read(v, sel, EXC_TS, ext, &d);
    if (rc)
        return rc;
    if (SEL_RPL(sel) != cpl || desc_dpl(&d) != cpl || !desc_is_writable(&d))
        return fault_sel(v, EXC_TS, sel, ext);
    if (!(d.attr & SEG_P))
        return fault_sel(v, EXC_SS, sel, ext);
    rc = desc_set_accessed(v, &d);
    if (!rc)
        seg_set(&v->c, S_SS, sel, &d);
    return rc;
}

static int load_data(struct vcpu *v, unsigned seg, uint16_t sel, uint32_t ext)
{
    struct desc d;
    if (SEL_NULL(sel))
        return 0;
    int rc = desc_read(v, sel, EXC_TS, ext, &d);
    if (!rc)
        rc = desc_check_data(v, sel, &d, EXC_TS, ext);
    if (!rc)
        rc = desc_set_accessed(v, &d);
    if (!rc)
        seg_set(&v->c, seg, sel, &d);
    return rc;
}

/* Step 13: descriptors, checked in the new task's context. */
static int new_segments(struct vcpu *v, const struct tss *n, uint32_t ext)
{
    int rc = load_ldt(v, n->ldt, ext);
    if (rc)
        return rc;
    if (cpu_vm86(&v->c)) {
        for (unsigned i = 0; i < 6; i++)
            seg_load_real(v, i, n->seg[i]);
        return 0;
    }
    rc = load_cs(v, n->seg[S_CS], ext);
    if (!rc)
        rc = load_ss(v, n->seg[S_SS], ext);
    static const uint8_t data[] = {S_DS, S_ES, S_FS, S_GS};
    for (unsigned i = 0; i < sizeof data && !rc; i++)
        rc = load_data(v, data[i], n->seg[data[i]], ext);
    return rc;
}

/* The error code of the exception that came through a task gate goes onto the new stack. */
static int push_error(struct vcpu *v, const struct task_switch *t)
{
    struct stk s;
    stk_open(v, &s, tss_is32(t->d.attr) ? 4 : 2);
    s.err = t->ext;
    int rc = stk_push(v, &s, t->error);
    if (!rc)
        rc = stk_flush(v, &s);
    if (!rc)
        stack_set(&v->c, s.mask, s.sp);
    return rc;
}

static int late(int rc) { return rc == SYS_FAULT ? SYS_LATE_FAULT : rc; }

/* From here on the new task runs. */
static int new_begin(struct vcpu *v, const struct task_switch *t, const struct tss *n)
{
    struct cpu *c = &v->c;
    int rc = new_segments(v, n, t->ext);
    cpu_update_key(c);
    if (!rc && t->has_error)
        rc = push_error(v, t);
    if (!rc && c->rip > c->seg[S_CS].limit)
        rc = sys_fault_err(v, EXC_GP, t->ext);
    if (rc)
        return late(rc);
    return n->trap ? SYS_TASK_TRAP : SYS_JUMP;
}

int task_switch(struct vcpu *v, struct task_switch *t)
{
    struct cpu *c = &v->c;
    struct old_task o;
    struct tss n;
    if (desc_limit(&t->d) < (tss_is32(t->d.attr) ? TSS_BYTES : TSS16_BYTES) - 1u)
        return fault_sel(v, EXC_TS, t->sel, t->ext);
    int rc = old_prepare(v, t, &o);
    if (!rc)
        rc = new_read(v, t, &n);
    if (!rc)
        rc = new_probe(v, t);
    if (rc)
        return rc;
    if (loads_cr3(c, t) && (c->cr4 & CR4_PAE) && pt_load_pdptes(v->mem, c, n.cr3))
        return sys_fault_err(v, EXC_GP, 0);
    rc = old_save(v, t, &o);
    if (!rc)
        rc = new_mark(v, t);
    if (rc)
        return rc;
    new_take(v, t, &n);
    return new_begin(v, t, &n);
}

int task_find(struct vcpu *v, uint16_t sel, uint32_t ext, struct desc *d)
{
    if (sel & SEL_TI)
        return fault_sel(v, EXC_GP, sel, ext);
    int rc = desc_read(v, sel, EXC_GP, ext, d);
    if (rc)
        return rc;
    if (!desc_is_sys(d, DT_TSS) && !desc_is_sys(d, DT_TSS16))
        return fault_sel(v, EXC_GP, sel, ext);
    return d->attr & SEG_P ? 0 : fault_sel(v, EXC_NP, sel, ext);
}

int task_return(struct vcpu *v, uint64_t rip)
{
    struct cpu *c = &v->c;
    struct task_switch t = {.reason = TASK_IRET, .rip = rip, .eflags = cpu_get_eflags(c) & ~EFLAGS_RF};
    uint64_t link;
    int rc = mem_read_u(v, lin_wrap(c, c->seg[S_TR].base + TSS_LINK), 2, MEM_R | MEM_SUPER, &link);
    if (rc)
        return rc;
    t.sel = (uint16_t)link;
    if (t.sel & SEL_TI)
        return fault_sel(v, EXC_TS, t.sel, 0);
    rc = desc_read(v, t.sel, EXC_TS, 0, &t.d);
    if (rc)
        return rc;
    if (!desc_is_sys(&t.d, DT_TSS_BUSY) && !desc_is_sys(&t.d, DT_TSS16_BUSY))
        return fault_sel(v, EXC_TS, t.sel, 0);
    if (!(t.d.attr & SEG_P))
        return fault_sel(v, EXC_NP, t.sel, 0);
    return task_switch(v, &t);
}
