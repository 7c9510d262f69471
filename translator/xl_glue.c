/* translator/xl_glue.c - the hand-written parts of the TC: the way in, the ways out, and the bridge to C.
 *
 * Host stack: enter leaves host_sp = 8 mod 16, so that a glue routine called on it (return address pushed) is 16-byte aligned
 * where it calls C. Callees may use the whole host stack below host_sp. The C helper's result: 0 = reload and go on, code_jump =
 * go on at another block, anything else = the exit code that enter returns. The general registers and arithmetic flags are in struct cpu while C runs.
 */
#include "arch/cpu.h"
#include "translator/translator.h"

struct glue {
    struct emit *e;
    const struct xl_layout *l;
    const struct xl_helpers *h;
    bool m64;
};

static uint64_t gpr(const struct glue *g, unsigned r) { return g->l->cpu + 8 * r; }
static uint64_t flags(const struct glue *g) { return g->l->cpu + offsetof(struct cpu, flags); }

/* 16/32-bit code: r8-r15 are the translator's scratch, kept apart from the guest's r8-r15. */
static uint64_t slot(const struct glue *g, unsigned r)
{
    return g->m64 || r < 8 ? gpr(g, r) : g->l->cpu + offsetof(struct cpu, hscratch) + 8 * (r - 8);
}

static void store_regs(const struct glue *g, bool with_rsp)
{
    struct emit *e = g->e;
    for (unsigned r = 0; r < 16; r++)
        if (r != R_RSP || with_rsp)
            em_st64(e, r, slot(g, r));
    em8(e, 0x9f);                                      /* lahf */
    em8(e, 0x0f), em8(e, 0x90), em8(e, 0xc0);          /* seto al */
    em8(e, 0x80), em8(e, 0xe4), em8(e, 0xd5);          /* and ah, SF|ZF|AF|PF|CF */
    em8(e, 0xc0), em8(e, 0xe0), em8(e, 3);             /* shl al, 3: OF is bit 11 */
    em8(e, 0x88), em_modrm_abs(e, 4, flags(g), 0);     /* mov [flags], ah */
    em8(e, 0x88), em_modrm_abs(e, 0, flags(g) + 1, 0); /* mov [flags + 1], al */
}

static void load_regs(const struct glue *g, bool with_rsp)
{
    struct emit *e = g->e;
    em8(e, 0x8a), em_modrm_abs(e, 4, flags(g), 0);     /* mov ah, [flags] */
    em8(e, 0x8a), em_modrm_abs(e, 0, flags(g) + 1, 0); /* mov al, [flags + 1] */
    em8(e, 0xc0), em8(e, 0xe8), em8(e, 3);             /* shr al, 3 */
    em8(e, 0x24), em8(e, 1);                           /* and al, 1 */
    em8(e, 0x04), em8(e, 0x7f);                        /* add al, 127: OF = al */
    em8(e, 0x9e);                                      /* sahf */
    for (unsigned r = 0; r < 16; r++)
        if (r != R_RSP || with_rsp)
            em_ld64(e, r, slot(g, r));
}

static const uint8_t saved[] = {R_RBX, R_RBP, R_R12, R_R13, R_R14, R_R15};

static void push_reg(struct emit *e, unsigned r)
{
    em_rex(e, 0, 0, 0, r, false);
    em8(e, 0x50 | (r & 7));
}
static void pop_reg(struct emit *e, unsigned r)
{
    em_rex(e, 0, 0, 0, r, false);
    em8(e, 0x58 | (r & 7));
}

/* uint64_t enter(uint64_t pc) */
static uint64_t emit_enter(const struct glue *g)
{
    struct emit *e = g->e;
    uint64_t pc = em_pc(e);
    for (unsigned i = 0; i < sizeof saved; i++)
        push_reg(e, saved[i]);
    em_st64(e, R_RSP, g->l->host_sp);
    em_st64(e, R_RDI, g->h->jump_target);
    load_regs(g, true);
    em8(e, 0xff), em_modrm_abs(e, 4, g->h->jump_target, 0);
    return pc;
}

/* The common end: registers are saved, exit_code is set. */
static uint64_t emit_leave(const struct glue *g)
{
    struct emit *e = g->e;
    uint64_t pc = em_pc(e);
    em_ld64(e, R_RSP, g->l->host_sp);
    em_ld64(e, R_RAX, g->h->exit_code);
    for (unsigned i = sizeof saved; i-- > 0;)
        pop_reg(e, saved[i]);
    em8(e, 0xc3);
    return pc;
}

static uint64_t emit_exit(const struct glue *g, uint64_t code, uint64_t leave)
{
    struct emit *e = g->e;
    uint64_t pc = em_pc(e);
    em_sti64(e, g->h->exit_code, code);
    store_regs(g, true);
    em_jmp(e, leave);
    return pc;
}

static uint64_t emit_bridge(const struct glue *g, uint64_t helper, uint64_t leave)
{
    struct emit *e = g->e;
    uint64_t pc = em_pc(e);
    store_regs(g, false);
    em_movi(e, R_RDI, g->h->vcpu);
    em_ldm(e, 1, R_RSI, R_RSP, -1, 0, 0);
    em_movi(e, R_RAX, helper);
    em8(e, 0xff), em8(e, 0xd0); /* call rax */
    em8(e, 0x85), em8(e, 0xc0); /* test eax, eax */
    em8(e, 0x75), em8(e, 0);    /* jnz out */
    uint8_t *out = e->p - 1;
    load_regs(g, false);
    em8(e, 0xc3);
    em_here8(e, out);
    em8(e, 0x83), em8(e, 0xf8), em8(e, (uint8_t)g->h->code_jump); /* cmp eax, code_jump */
    em8(e, 0x74), em8(e, 0);                                      /* je jump */
    uint8_t *jump = e->p - 1;
    em_st64(e, R_RAX, g->h->exit_code);
    em_jmp(e, leave);
    em_here8(e, jump);
    load_regs(g, true); /* the return address stays below host_sp, for nobody */
    em8(e, 0xff), em_modrm_abs(e, 4, g->h->jump_target, 0);
    return pc;
}

static void emit_set(struct emit *e, struct xl_layout *l, const struct xl_helpers *h, bool m64, struct xl_glue *out,
                     struct xl_entry *entry)
{
    struct glue g = {e, l, h, m64};
    entry->enter = emit_enter(&g);
    uint64_t leave = emit_leave(&g);
    out->exit_link = emit_exit(&g, h->code_link, leave);
    out->exit_indirect = emit_exit(&g, h->code_indirect, leave);
    out->exit_dispatch = emit_exit(&g, h->code_dispatch, leave);
    entry->exit_hostfault = emit_exit(&g, h->code_hostfault, leave);
    out->callout = emit_bridge(&g, h->callout, leave);
    out->site_miss = emit_bridge(&g, h->site_miss, leave);
    out->site_pre = emit_bridge(&g, h->site_pre, leave);
    out->site_post = emit_bridge(&g, h->site_post, leave);
    entry->end = em_pc(e);
}

void xl_emit_glue(struct emit *e, struct xl_layout *layout, const struct xl_helpers *h, struct xl_entry *enter64,
                  struct xl_entry *enter32)
{
    emit_set(e, layout, h, true, &layout->glue64, enter64);
    emit_set(e, layout, h, false, &layout->glue32, enter32);
}
