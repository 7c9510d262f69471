/* monitor/blockmake.c - has the block at the current rip translated. Not nofpu: the caller has done fpu_leave. */
#include "base/log.h"
#include "monitor/vm_int.h"
#include <stdio.h>

static enum xl_strategy strategy(void *opaque, unsigned off, bool *alone)
{
    struct vcpu *v = opaque;
    enum xl_strategy s = site_strategy(v, v->priv->translating_phys + off, alone);
    return s == XL_SITE_WINDOW && !v->priv->translating_window ? XL_SITE_SOFT : s;
}

/* Bytes that may be fetched at rip before the end of the page or of the code segment. */
static unsigned fetchable(const struct vcpu *v, uint64_t lin)
{
    uint64_t n = PAGE_SIZE - (lin & 0xfff);
    const struct seg *cs = &v->c.seg[S_CS];
    if (!cpu_code64(&v->c) && cs->limit - v->c.rip + 1 < n && cs->limit != 0xffffffffu)
        n = cs->limit - v->c.rip + 1;
    return (unsigned)n;
}

static void count(struct vcpu *v, const struct xl_result *r)
{
    struct stats *s = v->stats;
    s->tu_translated++;
    s->insn_translated += r->d.n_insns;
    s->tu_bytes += r->d.tu_bytes;
    s->ccf_bytes += r->d.hot_bytes + r->d.cold_bytes;
    const uint32_t *c = r->class_count;
    s->insn_ident += c[XL_IDENT];
    s->insn_mem += c[XL_MEM];
    s->insn_ctl += c[XL_JCC] + c[XL_JMP] + c[XL_CALL] + c[XL_RET] + c[XL_JMP_IND] + c[XL_CALL_IND];
    s->insn_stack += c[XL_STACK];
    s->insn_priv_inline += c[XL_INLINE];
    s->insn_callout += c[XL_CALLOUT];
    s->insn_ud += c[XL_UD];
}

static void log_block(const struct xl_input *in, const struct xl_result *r, const struct codecache *cc)
{
    xl_dump(log_stream(), in, r, cc_writable(cc, r->d.hot_pc), cc_writable(cc, r->d.cold_pc));
}

/* The page after an instruction that crosses; SYS_FAULT if it cannot be fetched. */
static int second_page(struct vcpu *v, struct xl_input *in, uint64_t lin, uint64_t *phys2)
{
    uint64_t next = (lin & PAGE_MASK) + PAGE_SIZE;
    const struct seg *cs = &v->c.seg[S_CS];
    uint8_t *host;
    bool global;
    if (!cpu_code64(&v->c)) {
        if (in->code_bytes != PAGE_SIZE - (lin & 0xfff)) /* the segment ended first */
            return sys_fault_err(v, EXC_GP, 0);
        next = (uint32_t)next;
        uint64_t left = cs->limit - (v->c.rip + in->code_bytes) + 1;
        if (cs->limit == 0xffffffffu)
            left = 15;
        else if (v->c.rip + in->code_bytes > cs->limit)
            return sys_fault_err(v, EXC_GP, 0);
        in->next_bytes = left < 15 ? (unsigned)left : 15;
    } else {
        in->next_bytes = 15;
    }
    int err = vcpu_fetch(v, next, phys2, &host, &global);
    if (err)
        return err;
    in->next = host;
    return host ? 0 : sys_fault_err(v, EXC_GP, 0);
}

/* May the block for k take the place of the jump at the end of the block that was just left? */
static struct cc_block *fallen_from(struct vcpu *v, const struct cc_key *k)
{
    const struct vcpu_priv *p = v->priv;
    struct cc_block *from = p->link_from;
    if (!from || from->dead || v->vm->cfg.no_chain || (k->mode & (CPU_KEY_STEP | CPU_KEY_CAREFUL)))
        return NULL;
    const struct ccf_exit *e = &from->d.exit[p->link_index];
    bool same = from->key.mode == k->mode && cc_same_segment(&from->key, k) && e->target == k->rip && !e->cross_page;
    return same && (unsigned)p->link_index == from->d.fall_exit ? from : NULL;
}

static enum xl_status write_block(struct vcpu *v, const struct xl_input *in, const struct cc_space *sp)
{
    struct emit hot = {.p = sp->hot, .start = sp->hot, .end = sp->hot_end, .pc = sp->hot_pc};
    struct emit cold = {.p = sp->cold, .start = sp->cold, .end = sp->cold_end, .pc = sp->cold_pc};
    return xl_translate(v->priv->xl, in, &hot, &cold, &v->priv->result);
}

/* Tries to continue the block that fell through in place. */
static bool write_in_place(struct vcpu *v, struct xl_input *in, const struct cc_block *from)
{
    struct cc_space sp;
    struct vcpu_priv *p = v->priv;
    if (!cc_reserve_in_place(p->cc, from, XL_HOT_BYTES, XL_COLD_BYTES, &sp))
        return false;
    in->in_place = (uint8_t)(1 + from->d.exit[from->d.fall_exit].entry);
    if (write_block(v, in, &sp) == XL_OK && !p->result.crosses && cc_fits_in_place(&p->result.d))
        return true;
    in->in_place = 0;
    cc_restore_jump(p->cc, from);
    return false;
}

/* host: the bytes at lin, NULL if they are no memory. */
struct cc_block *vcpu_make_block(struct vcpu *v, const struct cc_key *k, const uint8_t *host, uint64_t lin, int *err)
{
    struct vcpu_priv *p = v->priv;
    const struct vm_config *cfg = &v->vm->cfg;
    bool single = k->mode & (CPU_KEY_STEP | CPU_KEY_CAREFUL);
    struct xl_input in = {.code = host,
                          .code_bytes = fetchable(v, lin),
                          .rip = k->rip,
                          .cs_base = k->cs_base,
                          .cs_limit = k->cs_limit,
                          .key = k->mode,
                          .max_insns = single           ? 1
                                       : cfg->max_insns ? cfg->max_insns
                                                        : 32,
                          .trap = cfg->trap,
                          .count = cfg->count,
                          .strategy = strategy,
                          .opaque = v};
    struct cc_space sp;
    uint64_t phys2 = ~0ull;
    if (!host) {
        v->exit.reason = VM_EXIT_INTERNAL;
        snprintf(v->exit.text, sizeof v->exit.text, "code fetch from address %#llx, which is no memory",
                 (unsigned long long)k->phys);
        *err = SYS_EXIT;
        return NULL;
    }
    if (cfg->evict_random && rng_once_in(&p->rng, cfg->evict_random))
        cc_flush(p->cc);
    p->translating_phys = k->phys;
    p->translating_window = in.window = window_usable(v, k->mode);
    struct cc_block *from = fallen_from(v, k);
    if (from && !write_in_place(v, &in, from))
        from = NULL;
    enum xl_status s = XL_OK;
    for (unsigned tries = 0; !from; tries++) {
        cc_reserve(p->cc, XL_HOT_BYTES, XL_COLD_BYTES, &sp);
        s = write_block(v, &in, &sp);
        if (s != XL_NEED_NEXT || tries)
            break;
        *err = second_page(v, &in, lin, &phys2);
        if (*err)
            return NULL;
    }
    if (s == XL_TOO_LONG || s == XL_NEED_NEXT) {
        *err = sys_fault_err(v, EXC_GP, 0);
        return NULL;
    }
    CHECK(s == XL_OK);
    if (!p->result.crosses)
        phys2 = ~0ull;
    count(v, &p->result);
    if (log_on(IN_ASM) || log_on(OUT_ASM))
        log_block(&in, &p->result, p->cc);
    vcpu_mark_code(v, k->phys);
    if (phys2 != ~0ull)
        vcpu_mark_code(v, phys2);
    struct cc_block *b = cc_commit(p->cc, k, phys2 == ~0ull ? phys2 : phys2 & PAGE_MASK, &p->result.d, p->result.point);
    CHECK(b);
    if (from) {
        cc_link(p->cc, from, from->d.fall_exit, b, false);
        p->link_from = NULL;
    }
    return b;
}
