/* monitor/callout.c - from the TC to a system instruction and back. nofpu. */
#include "base/log.h"
#include "monitor/vm_int.h"

static int go_on(struct vcpu *v, uint32_t old_key, enum tier_end how);

static int after(struct vcpu *v, struct sys_op op, uint32_t old_key)
{
    struct cpu *c = &v->c;
    c->rip += op.len;
    if (!cpu_code64(c))
        c->rip = (uint32_t)c->rip;
    if (op.op == SYS_OP_MOV_TO_DR) { /* watched pages must not be in the soft TLB */
        softtlb_flush_all(&v->tlb[0]);
        softtlb_flush_all(&v->tlb[1]);
    }
    if ((op.flags & SYS_F_END) || c->key != old_key)
        return tc_go_on(v, old_key);
    if (c->shadow || v->priv->invalidated || vcpu_deliverable(v))
        return TC_EXIT_DISPATCH;
    return 0;
}

/* Tiering follows user code's time over system calls that do not leave the TC. False: what comes next is not for the TC. Of programs that
 * do little else it takes samples: reading the clock twice would be a fifth of the shortest system calls. */
static bool account(struct vcpu *v, uint32_t old_key, enum tier_end how)
{
    struct vcpu_priv *p = v->priv;
    if (p->user_skip && !p->user_since) {
        if (v->c.cpl != 3)
            return true;
        p->user_skipped++;
        if (--p->user_skip)
            return true;
    }
    if ((old_key & CPU_KEY_CPL) == CPU_KEY_CPL) {
        user_clock_stop(v);
        if (v->c.cpl != 3) {
            direct_account(v, p->user_ticks, how);
        }
    }
    if (v->c.cpl == 3) {
        if (direct_wanted(v) || direct_careful(v))
            return false;
        p->user_since = __builtin_ia32_rdtsc();
    }
    return true;
}

static int go_on(struct vcpu *v, uint32_t old_key, enum tier_end how)
{
    struct vcpu_priv *p = v->priv;
    struct cpu *c = &v->c;
    unsigned user = c->cpl == 3;
    uint32_t mode = cpu_block_mode(c->key, c->rip);
    const struct seg *cs = &c->seg[S_CS];
    const struct jump_cache *jc = &v->jc[user];
    /* The bridge that we return to is one for 64-bit or for 16/32-bit code. */
    if (!p->stay || c->shadow || p->invalidated || (mode & CPU_KEY_STEP) || ((mode ^ old_key) & CPU_KEY_CODE64))
        return TC_EXIT_DISPATCH;
    if (p->direct && !account(v, old_key, how))
        return TC_EXIT_DISPATCH;
    unsigned i = jc_index(c->rip);
    if (jc->tag[i] != (int64_t)-c->rip || p->jc_key[user] != mode || p->jc_cs_base[user] != cs->base ||
        (!(mode & CPU_KEY_CODE64) && p->jc_cs_limit[user] != cs->limit)) {
        p->want_jc = true;
        return TC_EXIT_DISPATCH;
    }
    window_switch(v, mode);
    /* From here on a kick stops this block; one that came before is found. */
    __atomic_store_n(&p->enter_pc, jc->pc[i], __ATOMIC_SEQ_CST);
    if (vcpu_deliverable(v))
        return TC_EXIT_DISPATCH;
    c->eflags_sys &= ~EFLAGS_RF; /* as the run loop does */
    if (user)                    /* blocks of kernel code look for themselves */
        fpu_enter(v);
    c->spill[R_RCX] = c->gpr[R_RCX];
    c->spill[R_RDX] = c->gpr[R_RDX];
    v->jump_target = jc->pc[i];
    v->stats->jumps++;
    return TC_EXIT_JUMP;
}

int tc_go_on(struct vcpu *v, uint32_t old_key) { return go_on(v, old_key, TIER_CALL); }

int tc_raise(struct vcpu *v, uint32_t old_key)
{
    struct guest_fault f = v->fault;
    if (!v->priv->stay)
        return TC_EXIT_FAULT;
    v->c.shadow = 0;
    acct_enter(&v->stats->acct, ACCT_deliver);
    return exc_deliver(v, EXC_FAULT, &f) == SYS_EXIT ? TC_EXIT_OUT : go_on(v, old_key, TIER_FAULT);
}

static int callout(struct vcpu *v, struct sys_op op)
{
    uint32_t old_key = v->c.key;
    switch (sys_exec(v, op)) {
    case SYS_NEXT: return after(v, op, old_key);
    case SYS_JUMP: return tc_go_on(v, old_key);
    case SYS_FAULT: return tc_raise(v, old_key);
    case SYS_RESTART: return TC_EXIT_RESTART;
    default: return TC_EXIT_OUT;
    }
}

int tc_callout(struct vcpu *v, uint64_t ret_pc)
{
    struct sys_op op;
    __builtin_memcpy(&op, &v->op, sizeof op);
    v->stats->callouts++;
    v->stats->callout_kind[op.op]++;
    acct_enter(&v->stats->acct, ACCT_CALLOUT(op.op));
    bool live = v->fpu_live;
    int code = callout(v, op);
    if (code == 0 && live) /* the rest of the block may rely on it */
        fpu_enter(v);
    tc_account(v, code);
    return code;
}

/* ---- what system instructions need of the engine ---- */

/* Data that the embedder has completed for exactly this access? */
static bool completed(struct vcpu *v, bool mmio, uint64_t addr, unsigned size, bool is_write)
{
    struct vcpu_priv *p = v->priv;
    if (!p->io_have || p->io_mmio != mmio || p->io_addr != addr || p->io_size != size || p->io_is_write != is_write)
        return false;
    p->io_have = false;
    return true;
}

void vcpu_complete_io(struct vcpu *v)
{
    struct vcpu_priv *p = v->priv;
    const struct vcpu_exit *e = &v->exit;
    if (!p->io_restart)
        return;
    p->io_restart = false;
    p->io_have = true;
    p->io_mmio = e->reason == VM_EXIT_MMIO;
    p->io_addr = e->addr;
    p->io_size = e->size;
    p->io_is_write = e->is_write;
    for (unsigned i = 0; i < sizeof p->io_data; i++)
        p->io_data[i] = e->data[i];
}

/* The access goes to the embedder; the instruction runs again afterwards and finds it completed. */
static int ask(struct vcpu *v, enum vm_exit_reason reason, uint64_t addr, unsigned size, bool is_write,
               const uint8_t *data)
{
    v->exit.reason = reason;
    v->priv->io_restart = true;
    v->exit.size = (uint8_t)size;
    v->exit.is_write = is_write;
    v->exit.addr = addr;
    v->exit.port = (uint16_t)addr;
    v->exit.count = 1;
    for (unsigned i = 0; i < size; i++)
        v->exit.data[i] = is_write ? data[i] : 0xff;
    return SYS_EXIT;
}

int vcpu_pio(struct vcpu *v, uint16_t port, unsigned size, bool is_write, uint32_t *val)
{
    if (completed(v, false, port, size, is_write)) {
        if (!is_write)
            __builtin_memcpy(val, v->priv->io_data, 4);
        return 0;
    }
    uint32_t before = ops_begin(v);
    bool done = v->ops && v->ops->pio && v->ops->pio(v->opaque, port, size, is_write, val) == VM_IO_DONE;
    ops_end(v, before);
    if (done)
        return 0;
    return ask(v, VM_EXIT_IO, port, size, is_write, (const uint8_t *)val);
}

int vcpu_mmio(struct vcpu *v, uint64_t gpa, unsigned size, bool is_write, uint8_t *data)
{
    v->stats->site_mmio++;
    if (completed(v, true, gpa, size, is_write)) {
        for (unsigned i = 0; i < size && !is_write; i++)
            data[i] = v->priv->io_data[i];
        return 0;
    }
    uint32_t before = ops_begin(v);
    bool done = v->ops && v->ops->mmio && v->ops->mmio(v->opaque, gpa, size, is_write, data) == VM_IO_DONE;
    ops_end(v, before);
    if (done)
        return 0;
    return ask(v, VM_EXIT_MMIO, gpa, size, is_write, data);
}
