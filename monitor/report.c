/* monitor/report.c - the crash report: guest state, the CCF that was running, the last log lines; registers for the log. Not nofpu. */
#include "base/log.h"
#include "monitor/vm_int.h"
#include <inttypes.h>
#include <stdio.h>

static void dump_regs(FILE *f, const struct cpu *c)
{
    static const char *const name[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                       "r8 ", "r9 ", "r10", "r11", "r12", "r13", "r14", "r15"};
    static const char *const seg[] = {"es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr"};
    for (unsigned i = 0; i < 16; i++)
        fprintf(f, "%s %016" PRIx64 "%s", name[i], c->gpr[i], i % 4 == 3 ? "\n" : "  ");
    fprintf(f, "rip %016" PRIx64 "  eflags %08x  cpl %u  key %05x\n", c->rip, cpu_get_eflags(c), c->cpl, c->key);
    for (unsigned i = 0; i < S_COUNT; i++)
        fprintf(f, "%-4s %04x base %016" PRIx64 " limit %08x attr %05x\n", seg[i], c->seg[i].sel, c->seg[i].base,
                c->seg[i].limit, c->seg[i].attr);
    fprintf(f, "cr0 %08" PRIx64 "  cr2 %016" PRIx64 "  cr3 %016" PRIx64 "  cr4 %08" PRIx64 "  efer %05" PRIx64 "\n",
            c->cr0, c->cr2, c->cr3, c->cr4, c->efer);
    fprintf(f, "gdt %016" PRIx64 "/%x  idt %016" PRIx64 "/%x\n", c->gdtr.base, c->gdtr.limit, c->idtr.base,
            c->idtr.limit);
}

void vcpu_dump_state(const struct vcpu *v, FILE *f) { dump_regs(f, &v->c); }

void vcpu_log_entry(struct vcpu *v, const struct cc_block *b)
{
    fpu_leave(v);
    LOGF(EXEC, "block %016" PRIx64 " key %05x, host code at %#x", b->key.rip, b->key.mode, b->d.hot_pc);
    if (log_on(CPU))
        vcpu_dump_state(v, log_stream());
}

/* The block again, for its listing: translation is repeatable. */
static void dump_block(FILE *f, struct vcpu *v, struct cc_block *b)
{
    const uint8_t *host = gpmem_ptr(v->mem, b->key.phys);
    if (!host)
        return;
    struct xl_result *r = &v->priv->result;
    struct xl_input in = {.code = host,
                          .code_bytes = 4096 - (unsigned)(b->key.phys & 4095),
                          .rip = b->key.rip,
                          .cs_base = b->key.cs_base,
                          .cs_limit = b->key.cs_limit,
                          .key = b->key.mode,
                          .max_insns = b->d.n_insns,
                          .count = v->vm->cfg.count,
                          .in_place = b->d.in_place};
    if (b->phys2 != ~0ull) {
        in.next = gpmem_ptr(v->mem, b->phys2);
        in.next_bytes = 15;
    }
    static uint8_t hot[XL_HOT_BYTES], cold[XL_COLD_BYTES];
    struct emit eh = {.p = hot, .start = hot, .end = hot + sizeof hot, .pc = b->d.start_pc};
    struct emit ec = {.p = cold, .start = cold, .end = cold + sizeof cold, .pc = b->d.cold_pc};
    if (xl_translate(v->priv->xl, &in, &eh, &ec, r) == XL_OK)
        xl_dump(f, &in, r, cc_writable(v->priv->cc, b->d.hot_pc), cc_writable(v->priv->cc, b->d.cold_pc));
}

void vcpu_report(struct vcpu *v, const char *why)
{
    struct vcpu_priv *p = v->priv;
    v->exit.reason = VM_EXIT_INTERNAL;
    snprintf(v->exit.text, sizeof v->exit.text, "%s", why);
    FILE *f = stderr;
    fprintf(f, "ringdown: internal error: %s\n", why);
    fprintf(f, "host pc %#" PRIx64 ", trap %d, address %#" PRIx64 "\n", p->fault_pc, p->fault_trap, p->fault_addr);
    dump_regs(f, &v->c);
    struct cc_block *b = cc_find(p->cc, p->fault_pc);
    if (b)
        dump_block(f, v, b);
    fprintf(f, "last log lines:\n");
    fflush(f);
    log_dump_ring(2);
}
