/* monitor/segment.c - operands, stack, descriptors, and the instructions that load segment registers. nofpu.
 *
 * Order of checks everywhere: null, table limit, (reading the descriptor may page-fault,) type, privilege, present; then the
 * accessed bit is set in the descriptor, then the register changes (SDM 2B, MOV, operation section). */
#include "monitor/sys_int.h"

/* ---- operands ---- */

int rm_read(struct vcpu *v, struct sys_op op, unsigned n, uint64_t *val)
{
    uint64_t lin;
    if (op.rm != SYS_RM_MEM) {
        *val = gpr_read(&v->c, op.rm, n, op.flags);
        return 0;
    }
    int rc = mem_linear(v, op.seg, v->ea, n, MEM_R, &lin);
    return rc ? rc : mem_read_u(v, lin, n, MEM_R, val);
}

int rm_write(struct vcpu *v, struct sys_op op, unsigned n, uint64_t val)
{
    uint64_t lin;
    if (op.rm != SYS_RM_MEM) {
        gpr_write(&v->c, op.rm, n, op.flags, val);
        return 0;
    }
    int rc = mem_linear(v, op.seg, v->ea, n, MEM_W, &lin);
    return rc ? rc : mem_write_u(v, lin, n, MEM_W, val);
}

int far_pointer(struct vcpu *v, struct sys_op op, uint16_t *sel, uint64_t *off)
{
    unsigned n = op.opsize;
    uint64_t lin, val = 0, mask = addr_mask(op.asize);
    int rc = mem_linear(v, op.seg, v->ea, n, MEM_R, &lin);
    if (!rc)
        rc = mem_read_u(v, lin, n, MEM_R, off);
    if (!rc)
        rc = mem_linear(v, op.seg, (v->ea + n) & mask, 2, MEM_R, &lin);
    if (!rc)
        rc = mem_read_u(v, lin, 2, MEM_R, &val);
    *sel = (uint16_t)val;
    return rc;
}

/* ---- stack ---- */

void stk_open(const struct vcpu *v, struct stk *s, unsigned size) { stk_open_in(v, s, size, cpu_code64(&v->c)); }

void stk_open_in(const struct vcpu *v, struct stk *s, unsigned size, bool code64)
{
    const struct seg *ss = &v->c.seg[S_SS];
    s->ss = code64 ? NULL : ss;
    s->mask = code64 ? ~0ull : (ss->attr & SEG_DB) ? 0xffffffffull : 0xffffull;
    s->sp = v->c.gpr[R_RSP] & s->mask;
    s->err = 0;
    s->how = 0;
    s->size = size;
    s->n = 0;
}

/* Would n bytes at off lie inside the stack segment? (SDM 3A 5.3) */
static bool stk_fits(const struct stk *s, uint64_t off, unsigned n)
{
    const struct seg *ss = s->ss;
    uint64_t last = off + n - 1;
    if (!ss)
        return x86_is_canonical(off) && x86_is_canonical(last);
    if (ss->attr & SEG_UNUSABLE)
        return false;
    if (!(ss->attr & SEG_CODE) && (ss->attr & SEG_EC))
        return off > ss->limit && last <= (ss->attr & SEG_DB ? 0xffffffffu : 0xffffu);
    /* A flat segment wraps at 4 GiB, one that starts elsewhere does not, as in mem_linear. */
    return last <= ss->limit || (ss->limit == 0xffffffffu && !ss->base);
}

static uint64_t stk_lin(const struct stk *s, uint64_t off) { return s->ss ? (uint32_t)(s->ss->base + off) : off; }

int stk_push(struct vcpu *v, struct stk *s, uint64_t val)
{
    uint64_t sp = (s->sp - s->size) & s->mask;
    if (!stk_fits(s, sp, s->size))
        return sys_fault_err(v, EXC_SS, s->err);
    s->sp = sp;
    s->val[s->n++] = val;
    return 0;
}

/* Alignment checks look at each element, and a stack pointer that wraps scatters them: then one access is not enough. */
static bool stk_is_run(const struct vcpu *v, const struct stk *s, uint64_t low, unsigned bytes)
{
    return low + bytes - 1 <= s->mask && low + bytes > low && !((v->c.key & CPU_KEY_AC) && !(s->how & MEM_SUPER));
}

static int stk_each(struct vcpu *v, const struct stk *s, bool probe)
{
    int rc = 0;
    for (unsigned i = 0; i < s->n && !rc; i++) {
        uint64_t lin = stk_lin(s, (s->sp + (uint64_t)(s->n - 1 - i) * s->size) & s->mask);
        rc = probe ? mem_probe(v, lin, s->size, MEM_W | s->how)
                   : mem_write_u(v, lin, s->size, MEM_W | s->how, s->val[i]);
    }
    return rc;
}

/* A fault is that of the element pushed first, and nothing is written then. */
int stk_flush(struct vcpu *v, struct stk *s)
{
    uint8_t buf[STK_MAX * 8];
    unsigned bytes = s->n * s->size;
    int rc;
    if (!s->n)
        return 0;
    if (!stk_is_run(v, s, s->sp, bytes)) {
        rc = stk_each(v, s, true);
        return rc ? rc : stk_each(v, s, false);
    }
    for (unsigned i = 0; i < s->n; i++)
        for (unsigned k = 0; k < s->size; k++)
            buf[(s->n - 1 - i) * s->size + k] = (uint8_t)(s->val[i] >> (8 * k));
    rc = mem_write(v, stk_lin(s, s->sp), buf, bytes, MEM_W | s->how);
    return rc == SYS_FAULT ? stk_each(v, s, true) : rc;
}

int stk_peek(struct vcpu *v, struct stk *s, unsigned skip, unsigned n)
{
    uint8_t buf[STK_MAX * 8];
    uint64_t low = (s->sp + skip) & s->mask;
    for (unsigned i = 0; i < n; i++)
        if (!stk_fits(s, (low + (uint64_t)i * s->size) & s->mask, s->size))
            return sys_fault_err(v, EXC_SS, s->err);
    if (!stk_is_run(v, s, low, n * s->size)) {
        for (unsigned i = 0; i < n; i++) {
            uint64_t off = (low + (uint64_t)i * s->size) & s->mask;
            int rc = mem_read_u(v, stk_lin(s, off), s->size, MEM_R | s->how, &s->val[i]);
            if (rc)
                return rc;
        }
        return 0;
    }
    int rc = mem_read(v, stk_lin(s, low), buf, n * s->size, MEM_R | s->how);
    if (rc)
        return rc;
    for (unsigned i = 0; i < n; i++) {
        s->val[i] = 0;
        for (unsigned k = 0; k < s->size; k++)
            s->val[i] |= (uint64_t)buf[i * s->size + k] << (8 * k);
    }
    return 0;
}

int stack_push(struct vcpu *v, unsigned n, uint64_t val)
{
    struct stk s;
    stk_open(v, &s, n);
    uint64_t sp = (s.sp - n) & s.mask;
    if (!stk_fits(&s, sp, n))
        return sys_fault_err(v, EXC_SS, 0);
    int rc = mem_write_u(v, stk_lin(&s, sp), n, MEM_W, val);
    if (!rc)
        stack_set(&v->c, s.mask, sp);
    return rc;
}

int stack_pop(struct vcpu *v, unsigned n, uint64_t *val)
{
    struct stk s;
    stk_open(v, &s, n);
    if (!stk_fits(&s, s.sp, n))
        return sys_fault_err(v, EXC_SS, 0);
    int rc = mem_read_u(v, stk_lin(&s, s.sp), n, MEM_R, val);
    if (!rc)
        stack_set(&v->c, s.mask, s.sp + n);
    return rc;
}

/* ---- descriptors ---- */

bool desc_locate(const struct cpu *c, uint16_t sel, unsigned n, uint64_t *lin)
{
    const struct seg *ldt = &c->seg[S_LDTR];
    uint32_t off = sel & ~7u, limit = c->gdtr.limit;
    uint64_t base = c->gdtr.base;
    if (sel & SEL_TI) {
        if ((ldt->attr & SEG_UNUSABLE) || !(ldt->attr & SEG_P))
            return false;
        base = ldt->base;
        limit = ldt->limit;
    }
    *lin = lin_wrap(c, base + off);
    return (uint64_t)off + n - 1 <= limit;
}

int desc_read(struct vcpu *v, uint16_t sel, uint8_t vector, uint32_t ext, struct desc *d)
{
    if (!desc_locate(&v->c, sel, 8, &d->lin))
        return fault_sel(v, vector, sel, ext);
    d->hi = 0;
    int rc = mem_read_u(v, d->lin, 8, MEM_R | MEM_SUPER, &d->lo);
    d->attr = (uint32_t)(d->lo >> 40) & 0xf0ff;
    return rc;
}

int desc_read_hi(struct vcpu *v, uint16_t sel, uint8_t vector, uint32_t ext, struct desc *d)
{
    uint64_t lin;
    if (!desc_locate(&v->c, sel, 16, &lin))
        return fault_sel(v, vector, sel, ext);
    return mem_read_u(v, lin_wrap(&v->c, d->lin + 8), 8, MEM_R | MEM_SUPER, &d->hi);
}

int desc_set_type(struct vcpu *v, struct desc *d, unsigned type)
{
    uint32_t attr = (d->attr & ~SEG_TYPE) | type;
    int rc = mem_write_u(v, lin_wrap(&v->c, d->lin + 5), 1, MEM_W | MEM_SUPER, attr & 0xff);
    if (!rc)
        d->attr = attr;
    return rc;
}

int desc_set_accessed(struct vcpu *v, struct desc *d)
{
    return d->attr & SEG_A ? 0 : desc_set_type(v, d, desc_type(d) | SEG_A);
}

void seg_from_desc(struct seg *s, uint16_t sel, const struct desc *d)
{
    s->sel = sel;
    s->base = desc_base(d) | (uint64_t)(uint32_t)d->hi << 32;
    s->limit = desc_limit(d);
    s->attr = d->attr;
    cpu_seg_cache(s);
}

void seg_set(struct cpu *c, unsigned seg, uint16_t sel, const struct desc *d) { seg_from_desc(&c->seg[seg], sel, d); }

void seg_null(struct seg *s, uint16_t sel)
{
    s->sel = sel;
    s->base = 0;
    s->limit = 0;
    s->attr = SEG_UNUSABLE | SEL_RPL(sel) << SEG_DPL_SHIFT;
    cpu_seg_cache(s);
}

void seg_set_null(struct cpu *c, unsigned seg, uint16_t sel) { seg_null(&c->seg[seg], sel); }

void seg_set_flat(struct seg *s, uint16_t sel, uint32_t attr)
{
    s->sel = sel;
    s->base = 0;
    s->limit = 0xffffffffu;
    s->attr = attr;
    cpu_seg_cache(s);
}

void seg_drop_privileged(struct cpu *c)
{
    static const uint8_t data[] = {S_ES, S_DS, S_FS, S_GS};
    for (unsigned i = 0; i < sizeof data; i++) {
        struct seg *s = &c->seg[data[i]];
        bool conforming = (s->attr & (SEG_CODE | SEG_EC)) == (SEG_CODE | SEG_EC);
        if ((s->attr & SEG_UNUSABLE) || conforming || seg_dpl(s) >= c->cpl)
            continue;
        /* The base survives: 64-bit code may have set it through an MSR. */
        s->sel = 0;
        s->attr = SEG_UNUSABLE;
        cpu_seg_cache(s);
    }
}

/* ---- loading ---- */

void seg_load_real(struct vcpu *v, unsigned seg, uint16_t sel)
{
    struct cpu *c = &v->c;
    struct seg *s = &c->seg[seg];
    s->sel = sel;
    s->base = (uint64_t)sel << 4;
    if (cpu_vm86(c)) { /* SDM 3A 20.2.1: fixed values */
        s->limit = 0xffff;
        s->attr = SEG_P | SEG_S | SEG_RW | SEG_A | 3u << SEG_DPL_SHIFT;
    } else if (s->attr & SEG_UNUSABLE) {
        s->limit = 0xffff;
        s->attr = SEG_P | SEG_S | SEG_RW | SEG_A;
    } else {
        /* Limit and size stay as protected mode left them ("unreal mode"). CS is a writable data segment here (table 9-1). */
        s->attr = (s->attr & ~SEG_DPL) | SEG_P | SEG_S;
        if (seg == S_CS)
            s->attr = (s->attr & ~SEG_TYPE) | SEG_RW | SEG_A;
    }
    cpu_seg_cache(s);
    cpu_update_key(c);
}

/* A null selector in SS is for 64-bit code below CPL 3 only (SDM 3A 5.4.1.1). */
static int load_null(struct vcpu *v, unsigned seg, uint16_t sel)
{
    struct cpu *c = &v->c;
    if (seg == S_SS && !(cpu_code64(c) && c->cpl < 3 && SEL_RPL(sel) == c->cpl))
        return sys_fault_err(v, EXC_GP, 0);
    seg_set_null(c, seg, sel);
    cpu_update_key(c);
    return 0;
}

static int check_ss(struct vcpu *v, uint16_t sel, const struct desc *d)
{
    unsigned cpl = v->c.cpl;
    if (SEL_RPL(sel) != cpl || !desc_is_writable(d) || desc_dpl(d) != cpl)
        return fault_sel(v, EXC_GP, sel, 0);
    return d->attr & SEG_P ? 0 : fault_sel(v, EXC_SS, sel, 0);
}

int desc_check_data(struct vcpu *v, uint16_t sel, const struct desc *d, uint8_t vector, uint32_t ext)
{
    bool exec_only = (d->attr & (SEG_CODE | SEG_RW)) == SEG_CODE;
    if (!(d->attr & SEG_S) || exec_only)
        return fault_sel(v, vector, sel, ext);
    if (!desc_is_conforming(d) && (SEL_RPL(sel) > desc_dpl(d) || v->c.cpl > desc_dpl(d)))
        return fault_sel(v, vector, sel, ext);
    return d->attr & SEG_P ? 0 : fault_sel(v, EXC_NP, sel, ext);
}

int seg_load(struct vcpu *v, unsigned seg, uint16_t sel)
{
    struct desc d;
    if (SEL_NULL(sel))
        return load_null(v, seg, sel);
    int rc = desc_read(v, sel, EXC_GP, 0, &d);
    if (rc)
        return rc;
    rc = seg == S_SS ? check_ss(v, sel, &d) : desc_check_data(v, sel, &d, EXC_GP, 0);
    if (rc)
        return rc;
    rc = desc_set_accessed(v, &d);
    if (rc)
        return rc;
    seg_set(&v->c, seg, sel, &d);
    cpu_update_key(&v->c);
    return 0;
}

static int load_any(struct vcpu *v, unsigned seg, uint16_t sel)
{
    if (!cpu_real_selectors(&v->c))
        return seg_load(v, seg, sel);
    seg_load_real(v, seg, sel);
    return 0;
}

/* ---- instructions ---- */

#define SHADOW_SS 2 /* MOV SS, POP SS: see arch/cpu.h */

int sys_seg_mov_to(struct vcpu *v, struct sys_op op)
{
    uint64_t sel;
    if (op.reg == S_CS || op.reg > S_GS)
        return sys_fault(v, EXC_UD);
    int rc = rm_read(v, op, 2, &sel);
    if (!rc)
        rc = load_any(v, op.reg, (uint16_t)sel);
    if (!rc && op.reg == S_SS)
        v->c.shadow = SHADOW_SS;
    return rc;
}

int sys_seg_mov_from(struct vcpu *v, struct sys_op op)
{
    if (op.reg > S_GS)
        return sys_fault(v, EXC_UD);
    return rm_write(v, op, op.rm == SYS_RM_MEM ? 2 : op.opsize, v->c.seg[op.reg].sel);
}

/* Intel's processors move 2 bytes of 4 and leave the others alone (SDM 2B, PUSH); AMD's write zeros there. */
int sys_seg_push(struct vcpu *v, struct sys_op op)
{
    struct stk s;
    uint16_t sel = v->c.seg[op.reg].sel;
    if (op.opsize != 4 || !sys_vendor_intel(v))
        return stack_push(v, op.opsize, sel);
    stk_open(v, &s, 4);
    uint64_t sp = (s.sp - 4) & s.mask;
    if (!stk_fits(&s, sp, 2))
        return sys_fault_err(v, EXC_SS, 0);
    int rc = mem_write_u(v, stk_lin(&s, sp), 2, MEM_W, sel);
    if (!rc)
        stack_set(&v->c, s.mask, sp);
    return rc;
}

int sys_seg_pop(struct vcpu *v, struct sys_op op)
{
    struct stk s;
    if (op.reg == S_CS || op.reg > S_GS)
        return sys_fault(v, EXC_UD);
    stk_open(v, &s, sys_vendor_intel(v) ? 2 : op.opsize); /* as for PUSH (measured) */
    int rc = stk_peek(v, &s, 0, 1);
    if (!rc)
        rc = load_any(v, op.reg, (uint16_t)s.val[0]);
    if (rc)
        return rc;
    stack_set(&v->c, s.mask, s.sp + op.opsize);
    if (op.reg == S_SS)
        v->c.shadow = SHADOW_SS;
    return SYS_NEXT;
}

int sys_seg_lxs(struct vcpu *v, struct sys_op op)
{
    uint64_t off;
    uint16_t sel;
    int rc = far_pointer(v, op, &sel, &off);
    if (!rc)
        rc = load_any(v, v->op_imm & 7, sel);
    if (rc)
        return rc;
    gpr_write(&v->c, op.reg, op.opsize, SYS_F_REX, off);
    return SYS_NEXT;
}
