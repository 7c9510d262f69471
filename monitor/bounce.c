/* monitor/bounce.c - the callout strategy of a memory site: C finds or makes the operand, the instruction runs on it, C takes it
 * back. nofpu.
 *
 *   tc_site_pre    -> the operand in RAM itself (*at = host pointer, nothing to do afterwards), or in the bounce buffer
 *   (the instruction)
 *   tc_site_post   -> bounce buffer to guest memory
 *
 * An operand is a list of pieces, each checked and moved as an access of its own: all of it; the runs of bytes that a mask leaves
 * (need); or the words and registers of an x87 environment, whose offsets wrap one by one under 16-bit addresses.
 * Everything is checked before the instruction runs, but for XL_SITE_LATE.
 */
#include "monitor/site_int.h"

struct piece {
    unsigned at, bytes; /* in the operand */
};

/* FLDENV, FNSTENV: 7 words of 2 or 4 bytes; FRSTOR, FNSAVE: then eight registers (SDM 1 figures 8-9 to 8-12), each as 8 and 2
 * bytes, as is one alone (seen on the CPU). */
static bool is_x87_register(const struct bounce *b) { return b->size == 10; }
static unsigned x87_word(const struct bounce *b)
{
    return is_x87_register(b) ? 8 : b->size == 14 || b->size == 94 ? 2 : 4;
}
static bool next_x87_piece(const struct bounce *b, struct piece *p)
{
    unsigned word = x87_word(b), env = is_x87_register(b) ? 0 : 7 * word;
    p->at += p->bytes;
    p->bytes = p->at < env ? word : (p->at - env) % 10 ? 2 : 8;
    return p->at < b->size;
}

/* The piece after *p; {0, 0} to begin. False at the end. */
static bool next_piece(const struct bounce *b, struct piece *p)
{
    if (b->desc & XL_SITE_X87ENV)
        return next_x87_piece(b, p);
    p->at += p->bytes;
    if (b->whole) {
        p->bytes = b->size;
        return p->at == 0;
    }
    if (p->at >= 64 || !(b->need >> p->at))
        return false;
    p->at += (unsigned)__builtin_ctzll(b->need >> p->at);
    uint64_t rest = ~(b->need >> p->at);
    p->bytes = rest ? (unsigned)__builtin_ctzll(rest) : 64;
    return true;
}

static int piece_linear(struct vcpu *v, const struct bounce *b, unsigned at, unsigned n, uint64_t *lin)
{
    uint64_t addr = b->addr + at, base = 0;
    unsigned seg = XL_SITE_SEG(b->desc);
    bool long_mode = b->desc & XL_SITE_64, wraps = b->desc & XL_SITE_WRAP;
    if (long_mode && !(b->desc & XL_SITE_OFFSET) && (seg == S_FS || seg == S_GS))
        base = v->c.seg[seg].base;
    if (!long_mode || wraps)
        addr = base + ((addr - base) & (wraps && !long_mode ? 0xffff : 0xffffffffu));
    return site_linear(v, b->desc, addr, n, lin);
}

static bool is_pure_write(const struct bounce *b) { return b->how & MEM_W; }

static unsigned piece_how(const struct bounce *b)
{
    bool env = (b->desc & XL_SITE_X87ENV) && !is_x87_register(b);
    return b->whole && !env ? b->how : b->how | MEM_UNALIGNED;
}

/* Page faults of a masked store are looked for at the first byte that is written, then, if that is on the next page, at the last
 * one (seen on the CPU; loads report the first byte of each page that is touched). */
static int probe_masked_store(struct vcpu *v, const struct bounce *b)
{
    uint64_t lo, hi;
    if (!b->need)
        return 0;
    for (struct piece p = {0, 0}; next_piece(b, &p);)
        if (piece_linear(v, b, p.at, p.bytes, &lo))
            return SYS_FAULT;
    unsigned first = (unsigned)__builtin_ctzll(b->need), last = 63u - (unsigned)__builtin_clzll(b->need);
    if (piece_linear(v, b, first, 1, &lo) || mem_probe(v, lo, 1, MEM_W) || piece_linear(v, b, last, 1, &hi))
        return SYS_FAULT;
    return (lo ^ hi) >> PAGE_SHIFT ? mem_probe(v, hi, 1, MEM_W) : 0;
}

static int probe_store(struct vcpu *v, const struct bounce *b)
{
    uint64_t lin;
    if (!b->whole)
        return probe_masked_store(v, b);
    for (struct piece p = {0, 0}; next_piece(b, &p);)
        if (piece_linear(v, b, p.at, p.bytes, &lin) || mem_probe(v, lin, p.bytes, piece_how(b) | MEM_W))
            return SYS_FAULT;
    return 0;
}

/* A pure write only has to be allowed; reading a device first would be wrong. */
static int take_piece(struct vcpu *v, const struct bounce *b, const struct piece *p, uint64_t lin)
{
    if (is_pure_write(b))
        return mem_probe(v, lin, p->bytes, piece_how(b));
    return mem_read(v, lin, (uint8_t *)b->buf + p->at, p->bytes, piece_how(b));
}

/* What a mask leaves of the operand. */
static int bounce_masked(struct vcpu *v, const struct bounce *b)
{
    uint64_t lin, all = b->addr;
    if (b->need && site_align(v, b->desc, b->addr, b->size))
        return SYS_FAULT;
    if (!(b->desc & XL_SITE_64) || XL_SITE_SEG(b->desc) >= S_FS)
        all += v->c.seg[XL_SITE_SEG(b->desc)].base;
    for (struct piece p = {0, 0}; next_piece(b, &p);)
        if (piece_linear(v, b, p.at, p.bytes, &lin))
            return SYS_FAULT;
    if (b->need && mem_check_align(v, all, b->size, b->how))
        return SYS_FAULT;
    if (is_pure_write(b))
        return probe_masked_store(v, b);
    for (struct piece p = {0, 0}; next_piece(b, &p);) {
        int err = piece_linear(v, b, p.at, p.bytes, &lin);
        err = err ? err : take_piece(v, b, &p, lin);
        if (err)
            return err;
    }
    return 0;
}

/* The x87 environment: its first word, then the page of its last byte, then word by word (seen on the CPU). The registers
 * in it are never misaligned, and when one word is, so is the first. */
static int bounce_x87(struct vcpu *v, const struct bounce *b)
{
    uint64_t lin;
    unsigned word = x87_word(b);
    int err = piece_linear(v, b, 0, word, &lin);
    err = err ? err : mem_check_align(v, lin, word, b->how);
    if (!is_x87_register(b)) {
        err = err ? err : mem_probe(v, lin, word, piece_how(b));
        err = err ? err : piece_linear(v, b, b->size - 1, 1, &lin);
        err = err ? err : mem_probe(v, lin, 1, piece_how(b));
    }
    for (struct piece p = {0, 0}; !err && next_piece(b, &p);) {
        err = piece_linear(v, b, p.at, p.bytes, &lin);
        err = err ? err : take_piece(v, b, &p, lin);
    }
    return err;
}

/* The operand at one go. *at = where the instruction finds it. */
static int bounce_whole(struct vcpu *v, struct bounce *b, uint8_t **at)
{
    uint64_t lin;
    if (site_align(v, b->desc, b->addr, b->size) || site_linear(v, b->desc, b->addr, b->size, &lin) ||
        mem_check_align(v, lin, b->size, b->how))
        return SYS_FAULT;
    if ((lin & 0xfff) + b->size <= PAGE_SIZE && !(v->c.key & CPU_KEY_AC)) {
        int fault;
        uint8_t *host = mem_direct(v, lin, b->how, &fault);
        if (fault)
            return fault;
        if (host) {
            b->write = false;
            *at = host;
            return 0;
        }
    }
    b->shift = lin & 63;
    *at = b->buf + b->shift; /* as aligned as in the guest */
    return is_pure_write(b) ? mem_probe(v, lin, b->size, b->how) : mem_read(v, lin, *at, b->size, b->how);
}

static bool stores_env(const struct bounce *b) { return xl_site_stores_env(b->desc, b->size, XL_SITE_HOW(b->desc)); }

/* Afterwards may be too late: FNSAVE clears them. */
static void env_pointers(struct vcpu *v, struct bounce *b)
{
    fpu_own_pointers(v);
    fpu_image_own(v, XCR0_X87);
    b->fip = *(uint64_t *)(v->xsave + FPU_FIP);
    b->fdp = *(uint64_t *)(v->xsave + FPU_FDP);
}

/* The host has stored its own pointers in protected mode's format, 16 or 32 bits wide (SDM 1 figures 8-9 to 8-12). CS and DS are
 * zero on CPUs that do not keep them, and those of others would be the host's. */
static void env_fix(struct vcpu *v, struct bounce *b)
{
    bool real = cpu_real_selectors(&v->c);
    if (x87_word(b) == 2) {
        uint16_t *w = (uint16_t *)b->buf;
        w[3] = (uint16_t)b->fip;
        w[4] = real ? (uint16_t)(b->fip >> 4 & 0xf000) : 0;
        w[5] = (uint16_t)b->fdp;
        w[6] = real ? (uint16_t)(b->fdp >> 4 & 0xf000) : 0;
        return;
    }
    uint32_t *d = (uint32_t *)b->buf, opcode = d[4] >> 16 & 0x7ff;
    d[3] = real ? 0xffff0000u | (uint16_t)b->fip : (uint32_t)b->fip;
    d[4] = real ? (uint32_t)(b->fip >> 4 & 0xffff000) | opcode : opcode << 16;
    d[5] = real ? 0xffff0000u | (uint16_t)b->fdp : (uint32_t)b->fdp;
    d[6] = real ? (uint32_t)(b->fdp >> 4 & 0xffff000) : 0xffff0000u;
}

static int prepare(struct vcpu *v, uint64_t ret_pc, struct bounce *b, uint8_t **at)
{
    *at = b->buf;
    if (b->desc & XL_SITE_LATE) {
        const struct cc_block *blk = cc_find(v->priv->cc, ret_pc);
        b->rip = blk->key.rip + cc_find_point(blk, ret_pc)->guest_off;
        if (b->desc & XL_SITE_X87) /* the image is then what the x87 goes back to */
            fpu_leave(v);
        return 0;
    }
    if (stores_env(b))
        env_pointers(v, b);
    if (b->desc & XL_SITE_X87ENV)
        return bounce_x87(v, b);
    return b->whole ? bounce_whole(v, b, at) : bounce_masked(v, b);
}

/* Whole or in parts? A store with a mask of all ones reports faults like any other masked store, but for scalars. */
static void open_mask(struct vcpu *v, struct bounce *b)
{
    uint32_t mask = (uint32_t)v->op_imm;
    uint64_t all = b->size < 64 ? (1ull << b->size) - 1 : ~0ull;
    b->need = site_mask_bytes(v, mask);
    b->whole = b->need == all && (!is_pure_write(b) || XL_MASK_BITS(mask) == 1);
}

static int site_pre(struct vcpu *v, uint64_t ret_pc)
{
    uint64_t desc = v->site, *s1 = site_reg(v, XL_SITE_S1(desc), desc);
    struct bounce *b = &v->priv->bounce;
    uint8_t *at;
    v->stats->site_bounce++;
    b->desc = desc;
    b->addr = *s1;
    b->size = XL_SITE_SIZE(desc);
    b->how = site_how(desc);
    b->write = b->how & (MEM_W | MEM_RW);
    b->shift = 0;
    b->whole = true;
    b->need = ~0ull;
    if (desc & XL_SITE_MASKED)
        open_mask(v, b);
    int err = prepare(v, ret_pc, b, &at);
    if (!(v->priv->enter_block && (v->priv->enter_block->key.mode & (CPU_KEY_CAREFUL | CPU_KEY_STEP))))
        site_note_callout(v, ret_pc, at != b->buf && at != b->buf + b->shift);
    if (err) {
        b->write = false;
        return site_leave(v, ret_pc, err == SYS_FAULT ? TC_EXIT_FAULT : TC_EXIT_OUT);
    }
    *s1 = (uint64_t)(uintptr_t)at;
    *site_reg(v, XL_SITE_S2(desc), desc) = 0;
    return 0;
}

static int bounce_out(struct vcpu *v, const struct bounce *b)
{
    uint64_t lin;
    if ((b->desc & XL_SITE_LATE) && probe_store(v, b))
        return SYS_FAULT;
    for (struct piece p = {0, 0}; next_piece(b, &p);) {
        int err = piece_linear(v, b, p.at, p.bytes, &lin);
        err = err ? err : mem_write(v, lin, b->buf + b->shift + p.at, p.bytes, piece_how(b) | MEM_W);
        if (err)
            return err;
    }
    return 0;
}

/* Has an unmasked exception kept the x87 from storing? All do but inexactness (SDM 1 8.5). */
static bool x87_did_not_store(struct vcpu *v, const struct bounce *b)
{
    uint16_t fcw;
    if (!(b->desc & XL_SITE_LATE) || !(b->desc & XL_SITE_X87))
        return false;
    __asm__ volatile("fnstcw %0" : "=m"(fcw));
    return site_fsw(v) & ~fcw & 0x1f;
}

/* The instruction is done, and somebody waits: an event, the embedder (deferred_out), or the block has been invalidated. Leaving is
 * possible in front of the next instruction, whose rip the recovery point has. A branch's target is known at the block's exit
 * only: then the block is made to leave there. */
static int stop_after(struct vcpu *v, uint64_t ret_pc, struct cc_block *b)
{
    const struct ccf_point *p = cc_find_point(b, ret_pc);
    if (p->guest_off != b->d.tu_bytes)
        return site_leave(v, ret_pc, TC_EXIT_DISPATCH);
    /* A signal that kicks must not come in between; if one does come, this leaves soon enough. */
    __atomic_store_n(&v->in_tc, 0, __ATOMIC_SEQ_CST);
    cc_kick(v->priv->cc, b, 0);
    __atomic_store_n(&v->in_tc, 1, __ATOMIC_SEQ_CST);
    return 0;
}

static int site_post(struct vcpu *v, uint64_t ret_pc)
{
    struct bounce *b = &v->priv->bounce;
    if (!b->write || x87_did_not_store(v, b))
        return 0;
    b->write = false;
    if (stores_env(b))
        env_fix(v, b);
    int err = bounce_out(v, b);
    if (err == SYS_FAULT) { /* XL_SITE_LATE only: of the others everything has been checked before */
        tc_recover(v, ret_pc);
        v->c.rip = b->rip;
        if (b->desc & XL_SITE_X87)
            fpu_discard(v);
        return TC_EXIT_FAULT;
    }
    if (err) {
        v->priv->deferred_out = true;
        v->priv->io_restart = false; /* the instruction has happened */
    }
    if (err || v->priv->invalidated || vcpu_deliverable(v))
        return stop_after(v, ret_pc, cc_find(v->priv->cc, ret_pc));
    return 0;
}

/* The FPU state is as live afterwards as before: the rest of the block may rely on it. */
static int from_tc(struct vcpu *v, uint64_t ret_pc, int (*part)(struct vcpu *, uint64_t))
{
    uint32_t before = acct_enter(&v->stats->acct, ACCT_site);
    bool live = v->fpu_live;
    int code = part(v, ret_pc);
    if (code == 0 && live)
        fpu_enter(v);
    acct_enter(&v->stats->acct, before);
    return code;
}

int tc_site_pre(struct vcpu *v, uint64_t ret_pc) { return from_tc(v, ret_pc, site_pre); }
int tc_site_post(struct vcpu *v, uint64_t ret_pc) { return from_tc(v, ret_pc, site_post); }
