/* monitor/exception.c - delivery of exceptions and interrupts, and the instructions that ask for it. nofpu.
 *
 * SDM 3A chapter 6; operation section of INT n (2A) for the order of checks. One attempt (deliver) either changes everything
 * or nothing; exc_deliver turns a fault inside an attempt into the next attempt, by table 6-5, up to the triple fault. */
#include "monitor/sys_int.h"
#include "base/log.h"
#include "monitor/engine.h"

struct event {
    enum exc_kind kind;
    struct guest_fault f;
};

/* INT n, INT3, INTO: the gate's DPL counts, and faults on the way are not "external". */
static bool is_soft(enum exc_kind k) { return k == EXC_SOFT_INT || k == EXC_SOFT_INT3; }
static uint32_t event_ext(const struct event *e) { return is_soft(e->kind) ? 0 : ERR_EXT; }

/* The image of EFLAGS that goes onto the stack. RF = 1 makes the handler's IRET skip an instruction breakpoint at the faulting
 * instruction (SDM 3B 17.3.1.1). Otherwise it is as the instruction left it: 0 but after IRET and between two iterations of a
 * string instruction. INT n and its kin have ended when they push. */
static uint32_t event_eflags(const struct cpu *c, const struct event *e)
{
    uint32_t f = cpu_get_eflags(c);
    if (e->kind == EXC_FAULT)
        return e->f.vector == EXC_DB || e->f.vector == EXC_DF ? f : f | EFLAGS_RF;
    return is_soft(e->kind) ? f & ~EFLAGS_RF : f;
}

/* ---- real-address mode, and VM86 through the program's own vector table ---- */

/* Pushes FLAGS, CS, IP; takes the new CS:IP from the 4 bytes at lin (SDM 3A 20.1.4). */
static int deliver_vector(struct vcpu *v, uint64_t lin, uint32_t image, uint32_t flags)
{
    struct cpu *c = &v->c;
    struct stk s;
    uint64_t entry;
    int rc = mem_read_u(v, lin, 4, MEM_R | MEM_SUPER, &entry);
    stk_open(v, &s, 2);
    if (!rc)
        rc = stk_push(v, &s, image);
    if (!rc)
        rc = stk_push(v, &s, c->seg[S_CS].sel);
    if (!rc)
        rc = stk_push(v, &s, c->rip);
    if (rc)
        return rc;
    if ((entry & 0xffff) > c->seg[S_CS].limit)
        return sys_fault_err(v, EXC_GP, 0);
    rc = stk_flush(v, &s);
    if (rc)
        return rc;
    stack_set(c, s.mask, s.sp);
    cpu_set_eflags(c, flags);
    c->rip = entry & 0xffff;
    seg_load_real(v, S_CS, (uint16_t)(entry >> 16));
    return SYS_JUMP;
}

static int deliver_real(struct vcpu *v, const struct event *e)
{
    struct cpu *c = &v->c;
    uint32_t f = event_eflags(c, e), off = e->f.vector * 4u;
    if (off + 3 > c->idtr.limit)
        return sys_fault_err(v, EXC_GP, 0);
    return deliver_vector(v, lin_wrap(c, c->idtr.base + off), f, f & ~(EFLAGS_IF | EFLAGS_TF | EFLAGS_AC | EFLAGS_RF));
}

/* Looks up the vector in the TSS's software-interrupt redirection map, which ends where the I/O map begins (SDM 3A 20.3.3). */
static int vme_redirects(struct vcpu *v, uint8_t vector, bool *redirect)
{
    const struct seg *tr = &v->c.seg[S_TR];
    uint64_t iomap, byte;
    if (!(tr->attr & SEG_TYPE & 8) || tr->limit < 103)
        return sys_fault_err(v, EXC_GP, 0);
    int rc = mem_read_u(v, lin_wrap(&v->c, tr->base + 102), 2, MEM_R | MEM_SUPER, &iomap);
    if (rc)
        return rc;
    if (iomap < 32 || iomap - 32 + vector / 8 > tr->limit)
        return sys_fault_err(v, EXC_GP, 0);
    rc = mem_read_u(v, lin_wrap(&v->c, tr->base + iomap - 32 + vector / 8), 1, MEM_R | MEM_SUPER, &byte);
    *redirect = !(byte >> (vector & 7) & 1);
    return rc;
}

/* INT n in VM86: methods 2-6 of SDM 3A table 20-2. Result SYS_NEXT: go on through the IDT. */
static int deliver_soft_vm86(struct vcpu *v, const struct event *e)
{
    struct cpu *c = &v->c;
    bool redirect = false, sensitive = cpu_iopl(c) < 3;
    uint32_t f = event_eflags(c, e), image = f;
    int rc = c->cr4 & CR4_VME ? vme_redirects(v, e->f.vector, &redirect) : 0;
    if (rc)
        return rc;
    if (!redirect)
        return sensitive ? sys_fault_err(v, EXC_GP, 0) : SYS_NEXT;
    if (sensitive) {
        image = (f & ~EFLAGS_IF) | EFLAGS_IOPL | (f & EFLAGS_VIF ? EFLAGS_IF : 0);
        f &= ~EFLAGS_VIF;
    } else
        f &= ~EFLAGS_IF;
    return deliver_vector(v, e->f.vector * 4u, image, f & ~EFLAGS_TF);
}

/* ---- through the IDT ---- */

struct idt_gate {
    struct desc g;
    uint16_t sel;
    uint64_t off;
    unsigned size, ist; /* bytes of one push; long mode: index of a stack in the TSS, or 0 */
    bool trap;          /* leaves IF alone */
    struct desc cs;
    unsigned cpl; /* of the handler */
    bool inner;   /* stack and privilege change */
};

static int gate_read(struct vcpu *v, const struct event *e, struct idt_gate *g)
{
    struct cpu *c = &v->c;
    bool wide = cpu_long_mode(c);
    unsigned n = wide ? 16 : 8;
    uint32_t off = e->f.vector * n, err = e->f.vector * 8u | ERR_IDT | event_ext(e);
    uint64_t lin = lin_wrap(c, c->idtr.base + off);
    if (off + n - 1 > c->idtr.limit)
        return sys_fault_err(v, EXC_GP, err);
    int rc = mem_read_u(v, lin, 8, MEM_R | MEM_SUPER, &g->g.lo);
    g->g.hi = 0;
    if (!rc && wide)
        rc = mem_read_u(v, lin + 8, 8, MEM_R | MEM_SUPER, &g->g.hi);
    if (rc)
        return rc;
    g->g.attr = (uint32_t)(g->g.lo >> 40) & 0xff;
    unsigned type = g->g.attr & (SEG_S | SEG_TYPE);
    bool ok = type == DT_INT || type == DT_TRAP;
    if (!wide)
        ok |= type == DT_INT16 || type == DT_TRAP16 || type == DT_TASK_GATE;
    if (!ok || (is_soft(e->kind) && desc_dpl(&g->g) < c->cpl))
        return sys_fault_err(v, EXC_GP, err);
    if (!(g->g.attr & SEG_P))
        return sys_fault_err(v, EXC_NP, err);
    g->sel = (uint16_t)(g->g.lo >> 16);
    g->off = (g->g.lo & 0xffff) | (type & 8 ? g->g.lo >> 32 & 0xffff0000u : 0) | g->g.hi << 32;
    g->size = wide ? 8 : type & 8 ? 4 : 2;
    g->ist = wide ? g->g.lo >> 32 & 7 : 0;
    g->trap = type == DT_TRAP || type == DT_TRAP16;
    return 0;
}

static int gate_check_cs(struct vcpu *v, uint32_t ext, struct idt_gate *g)
{
    struct cpu *c = &v->c;
    if (SEL_NULL(g->sel))
        return sys_fault_err(v, EXC_GP, ext);
    int rc = desc_read(v, g->sel, EXC_GP, ext, &g->cs);
    if (rc)
        return rc;
    unsigned dpl = desc_dpl(&g->cs);
    bool wrong_size = cpu_long_mode(c) && (g->cs.attr & (SEG_L | SEG_DB)) != SEG_L;
    if (!desc_is_code(&g->cs) || dpl > c->cpl || wrong_size)
        return fault_sel(v, EXC_GP, g->sel, ext);
    if (!(g->cs.attr & SEG_P))
        return fault_sel(v, EXC_NP, g->sel, ext);
    g->inner = !desc_is_conforming(&g->cs) && dpl < c->cpl;
    g->cpl = g->inner ? dpl : c->cpl;
    /* Out of VM86 there is only the way to ring 0. */
    if (cpu_vm86(c) && !(g->inner && dpl == 0))
        return fault_sel(v, EXC_GP, g->sel, ext);
    return 0;
}

/* Chooses the handler's stack. *ss is what SS becomes if g->inner. */
static int gate_stack(struct vcpu *v, uint32_t ext, const struct idt_gate *g, struct seg *ss, struct stk *s)
{
    struct cpu *c = &v->c;
    const struct seg *tr = &c->seg[S_TR];
    uint64_t sp = c->gpr[R_RSP];
    int rc = 0;
    *ss = c->seg[S_SS];
    if (g->ist) {
        unsigned off = g->ist * 8 + 28;
        if ((tr->attr & SEG_UNUSABLE) || off + 7 > tr->limit)
            return fault_sel(v, EXC_TS, tr->sel, ext);
        seg_null(ss, (uint16_t)g->cpl);
        rc = mem_read_u(v, tr->base + off, 8, MEM_R | MEM_SUPER, &sp);
    } else if (g->inner)
        rc = tss_stack(v, g->cpl, ext, ss, &sp);
    if (rc)
        return rc;
    if (cpu_long_mode(c)) {
        stk_open_new(v, s, ss, sp & ~15ull, g->size, ext);
        s->err = ext;
    } else if (g->inner)
        stk_open_new(v, s, ss, sp, g->size, ext);
    else {
        stk_open(v, s, g->size);
        s->err = ext;
    }
    s->how = g->inner ? MEM_SUPER : 0; /* CPL still says 3 then */
    return 0;
}

static int push_frame(struct vcpu *v, const struct event *e, const struct idt_gate *g, struct stk *s)
{
    static const uint8_t data[] = {S_GS, S_FS, S_DS, S_ES};
    const struct cpu *c = &v->c;
    uint64_t val[10];
    unsigned n = 0;
    if (cpu_vm86(c))
        for (unsigned i = 0; i < sizeof data; i++)
            val[n++] = c->seg[data[i]].sel;
    if (g->inner || cpu_long_mode(c)) {
        val[n++] = c->seg[S_SS].sel;
        val[n++] = c->gpr[R_RSP];
    }
    val[n++] = event_eflags(c, e);
    val[n++] = c->seg[S_CS].sel;
    val[n++] = c->rip;
    if (e->f.has_error)
        val[n++] = e->f.error;
    for (unsigned i = 0; i < n; i++) {
        int rc = stk_push(v, s, val[i]);
        if (rc)
            return rc;
    }
    return 0;
}

static void gate_enter(struct cpu *c, const struct idt_gate *g, const struct seg *ss, const struct stk *s)
{
    static const uint8_t data[] = {S_GS, S_FS, S_DS, S_ES};
    if (cpu_vm86(c))
        for (unsigned i = 0; i < sizeof data; i++)
            seg_set_null(c, data[i], 0);
    if (g->inner)
        c->seg[S_SS] = *ss;
    stack_set(c, s->mask, s->sp);
    code_enter(c, g->sel, &g->cs, g->cpl, g->off);
    c->eflags_sys &= ~(EFLAGS_TF | EFLAGS_VM | EFLAGS_RF | EFLAGS_NT);
    if (!g->trap)
        c->if_flag = 0;
}

static int deliver_task(struct vcpu *v, const struct event *e, const struct idt_gate *g)
{
    struct task_switch t = {.reason = TASK_INT, .sel = g->sel, .rip = v->c.rip, .ext = event_ext(e)};
    t.eflags = event_eflags(&v->c, e);
    t.has_error = e->f.has_error;
    t.error = e->f.error;
    int rc = task_find(v, t.sel, t.ext, &t.d);
    return rc ? rc : task_switch(v, &t);
}

static int deliver_idt(struct vcpu *v, const struct event *e)
{
    uint32_t ext = event_ext(e);
    struct idt_gate g;
    struct seg ss;
    struct stk s;
    int rc = gate_read(v, e, &g);
    if (rc)
        return rc;
    if (desc_is_sys(&g.g, DT_TASK_GATE))
        return deliver_task(v, e, &g);
    rc = gate_check_cs(v, ext, &g);
    if (!rc)
        rc = gate_stack(v, ext, &g, &ss, &s);
    if (!rc)
        rc = push_frame(v, e, &g, &s);
    if (!rc)
        rc = code_check_rip(v, &g.cs, g.off, ext);
    if (!rc)
        rc = desc_set_accessed(v, &g.cs);
    if (!rc)
        rc = stk_flush(v, &s);
    if (rc)
        return rc;
    gate_enter(&v->c, &g, &ss, &s);
    cpu_update_key(&v->c);
    return SYS_JUMP;
}

static int deliver(struct vcpu *v, const struct event *e)
{
    if (!cpu_protected(&v->c))
        return deliver_real(v, e);
    if (cpu_vm86(&v->c) && e->kind == EXC_SOFT_INT) {
        int rc = deliver_soft_vm86(v, e);
        if (rc != SYS_NEXT)
            return rc;
    }
    return deliver_idt(v, e);
}

/* ---- double and triple faults ---- */

enum exc_class { BENIGN, CONTRIBUTORY, PAGE, DOUBLE };

static enum exc_class event_class(const struct event *e)
{
    if (e->kind != EXC_FAULT)
        return BENIGN;
    switch (e->f.vector) {
    case EXC_DE:
    case EXC_TS:
    case EXC_NP:
    case EXC_SS:
    case EXC_GP: return CONTRIBUTORY;
    case EXC_PF: return PAGE;
    case EXC_DF: return DOUBLE;
    }
    return BENIGN;
}

/* Replaces *e by what the CPU delivers after a second fault (SDM 3A table 6-5); false: shutdown. */
static bool event_combine(struct event *e, const struct guest_fault *second)
{
    struct event next = {EXC_FAULT, *second};
    enum exc_class a = event_class(e), b = event_class(&next);
    if (a == DOUBLE)
        return false;
    if (b != BENIGN && ((a == CONTRIBUTORY && b == CONTRIBUTORY) || a == PAGE))
        next.f = (struct guest_fault){.vector = EXC_DF, .has_error = true};
    *e = next;
    return true;
}

static char *put_text(char *p, const char *s)
{
    while (*s)
        *p++ = *s++;
    return p;
}
static char *put_hex(char *p, uint64_t x)
{
    int shift = 60;
    while (shift && !(x >> shift))
        shift -= 4;
    for (; shift >= 0; shift -= 4)
        *p++ = "0123456789abcdef"[x >> shift & 15];
    return p;
}

/* The text is written by hand: the guest's FPU state is live and snprintf might use it. */
static int shutdown(struct vcpu *v, const struct event *e)
{
    const struct cpu *c = &v->c;
    char *p = v->exit.text;
    v->shutdown = true;
    v->exit.reason = VM_EXIT_SHUTDOWN;
    p = put_text(p, "triple fault: vector 0x");
    p = put_hex(p, v->fault.vector);
    p = put_text(p, " error 0x");
    p = put_hex(p, v->fault.error);
    p = put_text(p, " while delivering vector 0x");
    p = put_hex(p, e->f.vector);
    p = put_text(p, " at ");
    p = put_hex(p, c->seg[S_CS].sel);
    p = put_text(p, ":");
    p = put_hex(p, c->rip);
    p = put_text(p, " cr2 0x");
    p = put_hex(p, c->cr2);
    *p = 0;
    return SYS_EXIT;
}

/* ---- exc_deliver ---- */

/* CR2 and the debug registers change when the exception is recognised, delivered or not. */
static void event_registers(struct cpu *c, const struct event *e)
{
    if (e->kind == EXC_INTERRUPT || is_soft(e->kind))
        return;
    if (e->f.vector == EXC_PF)
        c->cr2 = e->f.cr2;
    if (e->f.vector == EXC_DB) {
        c->dr[6] |= e->f.dr6;
        c->dr[7] &= ~0x2000ull; /* GD: the handler may use the debug registers */
    }
}

static void event_done(struct vcpu *v, const struct event *e)
{
    uint8_t vector = e->f.vector;
    v->c.shadow = 0;
    if (e->kind == EXC_INTERRUPT) {
        if (vector == EXC_NMI)
            v->nmi_blocked = true;
        return;
    }
    v->stats->exceptions++; /* INT n included: the run loop tells by this that a step ended in a handler */
    if (e->kind == EXC_SOFT_INT)
        return;
    v->stats->exception_vec[vector & 31]++;
    v->stats->page_faults += vector == EXC_PF;
}

static void event_log(struct vcpu *v, const struct event *e)
{
    const struct cpu *c = &v->c;
    if (!log_on(INT))
        return;
    fpu_leave(v);
    log_line(LOG_INT, "vector %02x kind %d error %x cpl %u at %x:%llx sp %x:%llx cr2 %llx", e->f.vector, (int)e->kind,
             e->f.error, c->cpl, c->seg[S_CS].sel, (unsigned long long)c->rip, c->seg[S_SS].sel,
             (unsigned long long)c->gpr[R_RSP], (unsigned long long)c->cr2);
}

/* Faults at CPL 3 while pushing onto a misaligned stack (#AC) are benign, and tasks with the T bit may be chained: table 6-5
 * alone does not end. */
#define MAX_ATTEMPTS 8

int exc_deliver(struct vcpu *v, enum exc_kind kind, const struct guest_fault *f)
{
    struct event e = {kind, *f};
    for (unsigned i = 0; i < MAX_ATTEMPTS; i++) {
        event_registers(&v->c, &e);
        event_log(v, &e);
        int rc = deliver(v, &e);
        if (rc == SYS_JUMP || rc == SYS_TASK_TRAP)
            event_done(v, &e);
        if (rc == SYS_JUMP || rc == SYS_EXIT)
            return rc;
        if (rc == SYS_TASK_TRAP) {
            e = (struct event){EXC_TRAP, {.vector = EXC_DB, .dr6 = TASK_TRAP_DR6}};
            continue;
        }
        if (rc == SYS_FAULT && is_soft(e.kind))
            return rc;
        struct event second = {EXC_FAULT, v->fault};
        event_registers(&v->c, &second);
        if (!event_combine(&e, &v->fault))
            break;
    }
    return shutdown(v, &e);
}

/* ---- instructions ---- */

/* Traps push the address after the instruction; a fault on the way belongs to the instruction. */
static int soft_interrupt(struct vcpu *v, struct sys_op op, enum exc_kind kind, uint8_t vector)
{
    struct guest_fault f = {.vector = vector};
    uint64_t rip = v->c.rip;
    v->c.rip = next_rip(&v->c, op.len);
    int rc = exc_deliver(v, kind, &f);
    if (rc == SYS_FAULT)
        v->c.rip = rip;
    return rc;
}

int sys_exc_int(struct vcpu *v, struct sys_op op) { return soft_interrupt(v, op, EXC_SOFT_INT, (uint8_t)v->op_imm); }
int sys_exc_int3(struct vcpu *v, struct sys_op op) { return soft_interrupt(v, op, EXC_SOFT_INT3, EXC_BP); }
int sys_exc_int1(struct vcpu *v, struct sys_op op) { return soft_interrupt(v, op, EXC_INT1, EXC_DB); }

int sys_exc_into(struct vcpu *v, struct sys_op op)
{
    if (cpu_code64(&v->c))
        return sys_fault(v, EXC_UD);
    if (!(v->c.flags & EFLAGS_OF))
        return SYS_NEXT;
    return soft_interrupt(v, op, EXC_SOFT_INT3, EXC_OF);
}

/* One of the two bounds, sign-extended. */
static int bound_read(struct vcpu *v, struct sys_op op, unsigned at, int32_t *val)
{
    uint64_t lin, x, off = v->ea + at;
    int rc = mem_linear(v, op.seg, op.asize == 2 ? (uint16_t)off : (uint32_t)off, op.opsize, MEM_R, &lin);
    if (!rc)
        rc = mem_read_u(v, lin, op.opsize, MEM_R, &x);
    if (!rc)
        *val = op.opsize == 2 ? (int16_t)x : (int32_t)x;
    return rc;
}

/* Below the lower bound the upper one is not read (measured). */
int sys_exc_bound(struct vcpu *v, struct sys_op op)
{
    int32_t lo, hi;
    uint64_t reg = gpr_read(&v->c, op.reg, op.opsize, 0);
    int32_t index = op.opsize == 2 ? (int16_t)reg : (int32_t)reg;
    if (cpu_code64(&v->c))
        return sys_fault(v, EXC_UD);
    int rc = bound_read(v, op, 0, &lo);
    if (rc)
        return rc;
    if (index < lo)
        return sys_fault(v, EXC_BR);
    rc = bound_read(v, op, op.opsize, &hi);
    if (rc)
        return rc;
    return index > hi ? sys_fault(v, EXC_BR) : SYS_NEXT;
}
