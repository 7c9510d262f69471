/* monitor/run.c - the run loop: enters the TC, looks at why it came back, delivers events. nofpu: going round this loop to chain
 * two blocks must not cost the guest's FPU state a round trip.
 *
 *   vcpu_run: events -> block (block.c) -> enter (glue) -> tc_exit reason -> events ...
 *
 * Everything that leaves to C that may use the FPU (translation, callbacks, the embedder) goes through fpu_leave.
 */
#include "base/check.h"
#include "base/log.h"
#include "monitor/vm_int.h"

/* In rf_rip: RF was not set. Not canonical. */
#define NO_RF (1ull << 63)

/* What one step of the loop says. */
enum step { STEP_GO_ON, STEP_OUT };

/* How the last block was left is of no use: nothing is chained to it. */
static void forget_exit(struct vcpu *v)
{
    v->priv->link_from = NULL;
    v->priv->want_jc = false;
}

/* Makes a rare path common (-accel bt,force-exit=N): the block is left at its end. */
static void force_exit(struct vcpu *v, struct cc_block *b)
{
    struct vcpu_priv *p = v->priv;
    if (rng_small(&p->force_lcg) % v->vm->cfg.force_exit == 0)
        cc_kick(p->cc, b, 0);
}

static uint64_t enter(struct vcpu *v, struct cc_block *b)
{
    struct vcpu_priv *p = v->priv;
    const struct xl_entry *e = b->key.mode & CPU_KEY_CODE64 ? &p->enter64 : &p->enter32;
    uint64_t (*go)(uint64_t) = (uint64_t(*)(uint64_t))(uintptr_t)e->enter;
    p->invalidated = 0;
    p->enter_block = b;
    p->enter_pc = 0;
    p->stay = !v->vm->cfg.no_chain && !v->vm->cfg.force_exit && !(b->key.mode & (CPU_KEY_STEP | CPU_KEY_CAREFUL));
    window_switch(v, b->key.mode);
    if (b->d.hot_skip || (b->key.mode & CPU_KEY_CPL) == CPU_KEY_CPL)
        fpu_enter(v);
    if (v->vm->cfg.force_exit)
        force_exit(v, b);
    __atomic_store_n(&v->in_tc, 1, __ATOMIC_SEQ_CST);
    uint64_t code = TC_EXIT_DISPATCH;
    acct_enter(&v->stats->acct, b->key.mode & (CPU_KEY_STEP | CPU_KEY_CAREFUL) ? ACCT_tc_careful : tc_class(v));
    /* A kick from here on finds in_tc set and undoes the exits of enter_block. */
    if (!vcpu_deliverable(v) || (b->key.mode & (CPU_KEY_STEP | CPU_KEY_CAREFUL))) {
        v->stats->tc_entries++;
        /* RF lasts one instruction (SDM 3B 17.3.1.1), so not before it is sure that one runs. Without breakpoints only an interrupt
         * in front of it could show RF. */
        p->rf_rip = v->c.eflags_sys & EFLAGS_RF ? b->key.rip : NO_RF;
        if (!(b->key.mode & CPU_KEY_STEP))
            v->c.eflags_sys &= ~EFLAGS_RF;
        code = go(cc_entry(b, CCF_ENTRY));
    }
    __atomic_store_n(&v->in_tc, 0, __ATOMIC_SEQ_CST);
    acct_enter(&v->stats->acct, ACCT_loop);
    cc_unkick(p->cc);
    return code;
}

static enum step deliver(struct vcpu *v, enum exc_kind kind, const struct guest_fault *f)
{
    uint32_t before = acct_enter(&v->stats->acct, ACCT_deliver);
    int result = exc_deliver(v, kind, f);
    acct_enter(&v->stats->acct, before);
    return result == SYS_EXIT ? STEP_OUT : STEP_GO_ON;
}

/* Delivers v->fault as an exception at c.rip. */
static enum step raise_fault(struct vcpu *v)
{
    struct guest_fault f = v->fault;
    v->c.shadow = 0;
    return deliver(v, EXC_FAULT, &f);
}

static enum step error_step(struct vcpu *v, int err) { return err == SYS_FAULT ? raise_fault(v) : STEP_OUT; }

/* #GP(0) at the branch that ends b, as if it had not moved the stack pointer (SDM 2A JMP, CALL, RET). */
static enum step branch_fault(struct vcpu *v, const struct cc_block *b)
{
    struct cpu *c = &v->c;
    uint64_t sp = c->gpr[R_RSP] - (uint64_t)(int64_t)b->d.rsp_undo;
    c->rip = b->key.rip + b->d.last_off;
    if (cpu_code64(c))
        c->gpr[R_RSP] = sp;
    else if (c->seg[S_SS].attr & SEG_DB)
        c->gpr[R_RSP] = (uint32_t)sp;
    else
        c->gpr[R_RSP] = (c->gpr[R_RSP] & ~0xffffull) | (sp & 0xffff);
    sys_fault_err(v, EXC_GP, 0);
    return raise_fault(v);
}

/* The block came to a direct exit: remember it, so that it can be chained once the target is known. */
static void took_exit(struct vcpu *v)
{
    struct vcpu_priv *p = v->priv;
    unsigned i;
    struct cc_block *b = cc_find_exit(p->cc, (uint32_t)v->link_pc, &i);
    CHECK(b);
    v->c.rip = b->d.exit[i].target;
    if (v->c.rip == p->rf_rip) /* a kick had overwritten the block's start with another one's exit: nothing ran */
        v->c.eflags_sys |= EFLAGS_RF;
    if (!b->dead) {
        p->link_from = b;
        p->link_index = (int)i;
    }
}

/* An indirect branch missed the jump cache. A target that no branch may have faults at the branch (SDM 2A JMP, CALL, RET). */
static enum step took_indirect(struct vcpu *v)
{
    struct cpu *c = &v->c;
    /* AMD's go to a non-canonical address and fault there. */
    bool bad = cpu_code64(c) ? !x86_is_canonical(c->rip) && !v->cpu->amd : c->rip > c->seg[S_CS].limit;
    if (!bad) {
        v->priv->want_jc = true;
        return STEP_GO_ON;
    }
    struct cc_block *b = cc_find(v->priv->cc, v->link_pc);
    CHECK(b);
    return branch_fault(v, b);
}

static enum step careful(struct vcpu *v);
static enum step alone(struct vcpu *v);

static enum step host_fault(struct vcpu *v)
{
    struct vcpu_priv *p = v->priv;
    struct cc_block *b = tc_recover(v, p->fault_pc);
    v->stats->host_faults++;
    const struct ccf_point *at = b ? cc_find_point(b, p->fault_pc) : NULL;
    if (at && (at->spilled & CCF_STRING)) /* between two iterations, whatever comes next */
        v->c.eflags_sys |= EFLAGS_RF;
    switch (p->fault_action) {
    case FA_SOFTEN:
        if (v->vm->cfg.no_adapt)
            return careful(v);
        site_set_strategy(v, p->soften_phys, p->soften_strategy);
        return STEP_GO_ON;
    case FA_CAREFUL: return careful(v);
    case FA_RAISE: return raise_fault(v);
    case FA_RESTART: return STEP_GO_ON;
    default: break;
    }
    if (!b || p->fault_trap < 0) {
        fpu_leave(v);
        vcpu_report(v, "a fault in translated code that no guest instruction explains");
        return STEP_OUT;
    }
    if ((p->fault_trap == EXC_GP || p->fault_trap == EXC_SS) && !(b->key.mode & CPU_KEY_CAREFUL))
        return careful(v); /* the address may be that of an empty entry of the soft TLB's: was it the guest's? */
    switch (p->fault_trap) {
    case EXC_GP:
    case EXC_SS: sys_fault_err(v, EXC_GP, 0); break;
    case EXC_AC: sys_fault_err(v, EXC_AC, 0); break;
    default: sys_fault(v, (uint8_t)p->fault_trap); break;
    }
    if (p->fault_trap == EXC_XM && !(v->c.cr4 & CR4_OSXMMEXCPT))
        sys_fault(v, EXC_UD);
    return raise_fault(v);
}

static void chain(struct vcpu *v, struct cc_block *b, bool global)
{
    struct vcpu_priv *p = v->priv;
    struct cc_block *from = p->link_from;
    bool chaining = !v->vm->cfg.no_chain && !(b->key.mode & (CPU_KEY_STEP | CPU_KEY_CAREFUL));
    p->link_from = NULL;
    if (from && chaining && !from->dead && from->key.mode == b->key.mode && cc_same_segment(&from->key, &b->key) &&
        from->d.exit[p->link_index].target == b->key.rip) {
        bool via_jc = from->d.exit[p->link_index].cross_page && !global;
        cc_link(p->cc, from, (unsigned)p->link_index, b, via_jc);
        p->want_jc |= via_jc;
    }
    if (p->want_jc && chaining) {
        vcpu_jc_enter(v, b, global);
    }
    p->want_jc = false;
}

static bool page_global(struct vcpu *v, const struct cc_block *b)
{
    uint64_t gpa, lin = b->key.rip + b->key.cs_base;
    uint8_t *host;
    bool global;
    if (vcpu_fetch(v, lin, &gpa, &host, &global) || !global)
        return false;
    return b->phys2 == ~0ull || (!vcpu_fetch(v, (lin & PAGE_MASK) + PAGE_SIZE, &gpa, &host, &global) && global);
}

/* Finds, chains and enters the block at rip. Returns the tc_exit code, or -1 with *err. */
static int run_block(struct vcpu *v, uint32_t mode, int *err)
{
    struct vcpu_priv *p = v->priv;
    mode = cpu_block_mode(mode, v->c.rip);
    if (!(mode & (CPU_KEY_STEP | CPU_KEY_CAREFUL)))
        vcpu_jc_check(v, mode);
    struct cc_block *b = vcpu_block(v, mode, err);
    if (!b) {
        forget_exit(v);
        return -1;
    }
    if (p->link_from || p->want_jc)
        chain(v, b, page_global(v, b));
    if (log_on(EXEC) || log_on(CPU))
        vcpu_log_entry(v, b);
    return (int)enter(v, b);
}

/* HLT waits for an interrupt that may be there already: STI; HLT is how kernels sleep. */
static enum step left(struct vcpu *v)
{
    if (v->exit.reason != VM_EXIT_HLT)
        return STEP_OUT;
    v->halted = true;
    return STEP_GO_ON;
}

static void count_exit(struct stats *s, int code)
{
    switch (code) {
    case TC_EXIT_LINK: s->exit_link++; break;
    case TC_EXIT_INDIRECT: s->exit_indirect++; break;
    case TC_EXIT_DISPATCH: s->exit_dispatch++; break;
    case TC_EXIT_HOSTFAULT:
    case TC_EXIT_FAULT: s->exit_fault++; break;
    case TC_EXIT_CAREFUL: s->exit_careful++; break;
    case TC_EXIT_ALONE: s->exit_alone++; break;
    case TC_EXIT_RESTART: s->exit_restart++; break;
    default: s->exit_out++; break;
    }
}

static enum step after_exit(struct vcpu *v, int code)
{
    switch (code) {
    case TC_EXIT_LINK: took_exit(v); return STEP_GO_ON;
    case TC_EXIT_INDIRECT: return took_indirect(v);
    case TC_EXIT_DISPATCH: return STEP_GO_ON;
    case TC_EXIT_RESTART: /* an interrupt between iterations pushes RF = 1 (SDM 3B 17.3.1.1) */
        v->c.eflags_sys |= EFLAGS_RF;
        return STEP_GO_ON;
    case TC_EXIT_HOSTFAULT: return host_fault(v);
    case TC_EXIT_FAULT: return raise_fault(v);
    case TC_EXIT_CAREFUL: return careful(v);
    case TC_EXIT_ALONE: return alone(v);
    default: return left(v);
    }
}

static enum step after_tc(struct vcpu *v, int code)
{
    struct vcpu_priv *p = v->priv;
    count_exit(v->stats, code);
    enum step s = after_exit(v, code);
    if (!p->deferred_out)
        return s;
    p->deferred_out = false;
    forget_exit(v);
    return STEP_OUT;
}

/* Tells what learns about sites that the one at rip has been left. */
static void note_site(struct vcpu *v, void (*note)(struct vcpu *, uint64_t))
{
    uint64_t gpa, lin = v->c.rip + (cpu_code64(&v->c) ? 0 : v->c.seg[S_CS].base);
    uint8_t *host;
    bool global;
    if (!vcpu_fetch(v, lin, &gpa, &host, &global))
        note(v, gpa);
}

/* Runs one block from rip in a mode of its own; such blocks are not chained. */
static enum step run_apart(struct vcpu *v, uint32_t mode)
{
    int err;
    forget_exit(v);
    struct cc_block *b = vcpu_block(v, mode, &err);
    if (!b)
        return error_step(v, err);
    int code = (int)enter(v, b);
    if (code == TC_EXIT_CAREFUL && (mode & CPU_KEY_CAREFUL)) {
        fpu_leave(v);
        vcpu_report(v, "a careful block asked for care");
        return STEP_OUT;
    }
    enum step s = after_tc(v, code);
    forget_exit(v);
    return s;
}

/* The one instruction at rip with its memory sites as callouts. */
static enum step careful(struct vcpu *v)
{
    if (!v->vm->cfg.no_adapt && !v->vm->cfg.trap)
        note_site(v, site_note_careful);
    return run_apart(v, v->c.key | CPU_KEY_CAREFUL);
}

/* The block at rip with a look-up for each site. */
static enum step alone(struct vcpu *v)
{
    if (!v->vm->cfg.no_adapt && !v->vm->cfg.trap)
        note_site(v, site_note_alone);
    return run_apart(v, cpu_block_mode(v->c.key | CPU_KEY_ALONE, v->c.rip));
}

/* ---- debugging: TF, DR0-DR3 execution breakpoints ---- */

/* DR6 bits of the execution breakpoints at rip. */
static uint32_t exec_breakpoints(const struct vcpu *v)
{
    const struct cpu *c = &v->c;
    uint64_t lin = c->rip + (cpu_code64(c) ? 0 : c->seg[S_CS].base);
    uint32_t hit = 0;
    if (!(c->dr[7] & 0xff) || (c->eflags_sys & EFLAGS_RF))
        return 0;
    for (unsigned i = 0; i < 4; i++)
        if ((c->dr[7] >> (2 * i) & 3) && !(c->dr[7] >> (16 + 4 * i) & 3) && c->dr[i] == lin)
            hit |= 1u << i;
    return hit;
}

static enum step debug_trap(struct vcpu *v, uint32_t dr6)
{
    struct guest_fault f = {.vector = EXC_DB, .dr6 = dr6};
    return deliver(v, EXC_TRAP, &f);
}

/* One instruction, with everything that happens around an instruction. */
static enum step single_step(struct vcpu *v)
{
    struct cpu *c = &v->c;
    uint8_t shadow = c->shadow;
    bool tf = c->eflags_sys & EFLAGS_TF, user = c->cpl == 3;
    uint32_t hit = shadow == 2 ? 0 : exec_breakpoints(v);
    if (hit) {
        v->fault = (struct guest_fault){.vector = EXC_DB, .dr6 = hit};
        return raise_fault(v);
    }
    c->shadow = 0;
    c->eflags_sys &= ~EFLAGS_RF; /* before, not after: IRET sets it for the next instruction */
    uint64_t before = v->stats->exceptions;
    if (shadow != 2) /* what MOV SS put off */
        v->dr6_pending = 0;
    int err;
    int code = run_block(v, c->key | CPU_KEY_STEP, &err);
    enum step s = code < 0 ? error_step(v, err) : after_tc(v, code);
    forget_exit(v);
    if (s == STEP_OUT || v->stats->exceptions != before)
        return s;
    if (user && c->cpl < 3 && !(c->eflags_sys & EFLAGS_TF)) /* SYSCALL that masks TF does not trap */
        tf = false;
    /* MOV SS and POP SS put a debug trap off until the next instruction is done; a single-step trap is lost. */
    if (c->shadow == 2)
        return s;
    uint32_t dr6 = v->dr6_pending | (tf ? 1u << 14 : 0);
    v->dr6_pending = 0;
    /* Between the iterations of a string instruction the trap pushes RF = 1 (the CPU does, in spite of what SDM 3B 17.3.1.1 says of
     * traps): TC_EXIT_RESTART has set it. */
    return dr6 ? debug_trap(v, dr6) : s;
}

/* ---- events between instructions ---- */

/* Translated user code has ended that way; system calls that do not leave the TC see to it themselves (callout.c). */
static void account_user(struct vcpu *v, enum tier_end how)
{
    struct vcpu_priv *p = v->priv;
    user_clock_stop(v);
    if (!p->user_ticks && how == TIER_FAULT)
        return;
    p->user_skip = p->user_skipped = 0; /* only stretches of a kind stand for one another */
    if (p->user_ticks)
        direct_account(v, p->user_ticks, how);
}

static enum step deliver_interrupt(struct vcpu *v, int vector)
{
    struct guest_fault f = {.vector = (uint8_t)vector};
    v->halted = false;
    v->stats->interrupts++;
    account_user(v, TIER_OTHER); /* its handler may return without leaving the TC: nobody else would */
    return deliver(v, EXC_INTERRUPT, &f);
}

static enum step deliver_nmi(struct vcpu *v)
{
    struct guest_fault f = {.vector = EXC_NMI};
    v->halted = false;
    v->nmi_pending = false;
    vcpu_clear_event(v, EV_NMI);
    v->nmi_blocked = true;
    return deliver(v, EXC_INTERRUPT, &f);
}

static int acknowledge(struct vcpu *v)
{
    if (v->priv->inject_vector >= 0) {
        int vector = v->priv->inject_vector;
        v->priv->inject_vector = -1;
        vcpu_clear_event(v, EV_INJECT);
        return vector;
    }
    if (!(v->event_pending & EV_INTR) || !v->ops || !v->ops->intr_ack)
        return -1;
    uint32_t before = ops_begin(v);
    int vector = v->ops->intr_ack(v->opaque);
    ops_end(v, before);
    return vector;
}

static enum step out(struct vcpu *v, enum vm_exit_reason why)
{
    v->exit.reason = why;
    return STEP_OUT;
}

/* Something may be deliverable. */
static enum step events(struct vcpu *v)
{
    uint32_t ev = __atomic_load_n(&v->event_pending, __ATOMIC_SEQ_CST);
    if (ev & EV_KICK) {
        vcpu_clear_event(v, EV_KICK);
        v->stats->kicks++;
        return out(v, VM_EXIT_KICK);
    }
    if ((ev & EV_NMI) && !v->nmi_blocked)
        return deliver_nmi(v);
    if (!v->c.if_flag)
        return STEP_GO_ON;
    if (ev & EV_WINDOW) {
        vcpu_clear_event(v, EV_WINDOW);
        return out(v, VM_EXIT_INTR_WINDOW);
    }
    if (!(ev & (EV_INTR | EV_INJECT)))
        return STEP_GO_ON;
    int vector = acknowledge(v);
    if (vector < 0) { /* gone again: the pin's owner lowers it, or has; do not ask for ever */
        vcpu_clear_event(v, EV_INTR);
        return STEP_GO_ON;
    }
    return deliver_interrupt(v, vector);
}

static enum step block_step(struct vcpu *v, uint32_t apart)
{
    int err;
    int code = run_block(v, v->c.key | apart, &err);
    return code < 0 ? error_step(v, err) : after_tc(v, code);
}

/* The system call or CPUID that ended a turn of direct execution. */
static enum step direct_sys(struct vcpu *v)
{
    struct sys_op op;
    __builtin_memcpy(&op, &v->op, sizeof op);
    v->stats->callout_kind[op.op]++;
    uint32_t before = acct_enter(&v->stats->acct, ACCT_CALLOUT(op.op));
    int result = sys_exec(v, op);
    acct_enter(&v->stats->acct, before);
    switch (result) {
    case SYS_FAULT: return raise_fault(v);
    case SYS_EXIT: return STEP_OUT;
    case SYS_NEXT: v->c.rip = cpu_code64(&v->c) ? v->c.rip + op.len : (uint32_t)(v->c.rip + op.len); return STEP_GO_ON;
    default: return STEP_GO_ON;
    }
}

/* User code: directly where that is wanted, else translated, with an account of its time. */
static enum step user_step(struct vcpu *v)
{
    struct vcpu_priv *p = v->priv;
    if (direct_wanted(v)) {
        p->user_since = p->user_ticks = 0;
        forget_exit(v);
        fpu_leave(v);
        acct_enter(&v->stats->acct, ACCT_world_switch);
        enum direct_result result = direct_run(v);
        acct_enter(&v->stats->acct, ACCT_loop);
        switch (result) {
        case DIRECT_NO: break;
        case DIRECT_GO_ON: return STEP_GO_ON;
        case DIRECT_STEP: return single_step(v);
        case DIRECT_FAULT: return raise_fault(v);
        case DIRECT_TRAP: return debug_trap(v, 1u << 14);
        case DIRECT_SYS: return direct_sys(v);
        }
    }
    if (!p->user_since && !p->user_skip) /* else it goes on, or is not timed */
        p->user_since = __builtin_ia32_rdtsc();
    return block_step(v, direct_careful(v) ? CPU_KEY_APART : 0);
}

/* With user worlds there is an account of how user code spends its time. The TC may be entered on one side of a system call and left
 * on the other (tc_go_on). */
static enum step counted_step(struct vcpu *v)
{
    struct vcpu_priv *p = v->priv;
    if (v->c.cpl != 3 && p->user_since) /* it was left by an NMI, a single step */
        account_user(v, TIER_OTHER);
    enum step s = v->c.cpl == 3 ? user_step(v) : block_step(v, 0);
    if (v->c.cpl != 3)
        account_user(v, TIER_FAULT);
    return s;
}

static enum step step(struct vcpu *v)
{
    struct vcpu_priv *p = v->priv;
    if (v->c.shadow)
        return single_step(v);
    if (vcpu_deliverable(v)) {
        forget_exit(v);
        return events(v);
    }
    if (v->halted)
        return out(v, VM_EXIT_HLT);
    if (v->c.key & CPU_KEY_STEP)
        return single_step(v);
    return p->direct ? counted_step(v) : block_step(v, 0);
}

enum vm_exit_reason vcpu_run(struct vcpu *v)
{
    vcpu_complete_io(v);
    v->exit.reason = VM_EXIT_NONE;
    if (v->shutdown) {
        v->exit.reason = VM_EXIT_SHUTDOWN;
        return VM_EXIT_SHUTDOWN;
    }
    if (hostsig_thread_enter(v)) {
        v->exit.reason = VM_EXIT_INTERNAL;
        return VM_EXIT_INTERNAL;
    }
    forget_exit(v);
    while (step(v) == STEP_GO_ON)
        if (v->priv->check.on && selfcheck_due(v)) {
            fpu_leave(v);
            if (!selfcheck_run(v))
                break;
        }
    user_clock_stop(v);
    fpu_leave(v);
    direct_rest(v);
    hostsig_thread_leave(v);
    v->stats->exits++;
    if (v->exit.reason == VM_EXIT_SHUTDOWN)
        v->shutdown = true;
    return v->exit.reason;
}
