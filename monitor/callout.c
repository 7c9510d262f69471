/* monitor/callout.c - from the TC to a system instruction and back. nofpu. */
#include "base/log.h"
#include "monitor/vm_int.h"

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
    if ((op.flags & SYS_F_END) || c->key != old_key || c->shadow || v->priv->invalidated || vcpu_deliverable(v))
        return TC_EXIT_DISPATCH;
    fpu_enter(v);
    return 0;
}

int tc_callout(struct vcpu *v, uint64_t ret_pc)
{
    struct sys_op op;
    uint32_t old_key = v->c.key;
    __builtin_memcpy(&op, &v->op, sizeof op);
    v->stats->callouts++;
    v->stats->callout_kind[op.op]++;
    switch (sys_exec(v, op)) {
    case SYS_NEXT: return after(v, op, old_key);
    case SYS_JUMP: return TC_EXIT_DISPATCH;
    case SYS_FAULT: return TC_EXIT_FAULT;
    case SYS_RESTART: return TC_EXIT_RESTART;
    default: return TC_EXIT_OUT;
    }
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
    fpu_leave(v);
    if (v->ops && v->ops->pio && v->ops->pio(v->opaque, port, size, is_write, val) == VM_IO_DONE)
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
    fpu_leave(v);
    if (v->ops && v->ops->mmio && v->ops->mmio(v->opaque, gpa, size, is_write, data) == VM_IO_DONE)
        return 0;
    return ask(v, VM_EXIT_MMIO, gpa, size, is_write, data);
}
