/* codecache/cc_link.c - direct jumps between blocks: patching, undoing, and the temporary undoing of a kick. nofpu. */
#include "codecache/cc_int.h"

static void poke32(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)v, p[1] = (uint8_t)(v >> 8), p[2] = (uint8_t)(v >> 16), p[3] = (uint8_t)(v >> 24);
}

static void aim(struct codecache *cc, const struct ccf_exit *e, uint32_t target)
{
    uint64_t at = (uint64_t)e->jmp_pc + e->rel_at;
    poke32(cc_writable(cc, at), (uint32_t)(target - (at + 4)));
}

static unsigned index_of(const struct cc_link *l) { return (unsigned)(l - l->from->links->out); }
static const struct ccf_exit *exit_of(const struct cc_link *l) { return &l->from->d.exit[index_of(l)]; }
uint32_t cc_goal(const struct cc_link *l)
{
    const struct ccf_exit *e = exit_of(l);
    if (l->via_jc)
        return e->jc_pc;
    /* Where the FPU state is needed at the end of one block it is there at the start of the next. */
    bool skip = e->entry == CCF_ENTRY && l->from->d.hot_skip;
    return cc_entry(l->to, e->entry) + (skip ? l->to->d.hot_skip : 0);
}

static void write_jump(struct codecache *cc, uint32_t pc, uint32_t target)
{
    uint8_t *p = cc_writable(cc, pc);
    p[0] = 0xe9;
    poke32(p + 1, target - (pc + 5));
}

void cc_restore_jump(struct codecache *cc, const struct cc_block *from)
{
    const struct ccf_exit *e = &from->d.exit[from->d.fall_exit];
    write_jump(cc, e->jmp_pc, e->stub_pc);
}

/* Makes the exit lead out again. Over a target in place that is possible only when it is dead; a live one is left alone, as the
 * block that fell into it is the one that dies. */
static void aim_at_stub(struct codecache *cc, struct cc_link *l)
{
    const struct ccf_exit *e = exit_of(l);
    if (!l->in_place)
        aim(cc, e, e->stub_pc);
    else if (!l->from->dying)
        write_jump(cc, e->jmp_pc, e->stub_pc);
}

void cc_link(struct codecache *cc, struct cc_block *from, unsigned i, struct cc_block *to, bool via_jc)
{
    struct cc_link *l = &from->links->out[i];
    ASSERT(i < from->d.n_exits && !from->dead && !to->dead);
    ASSERT(from->key.mode == to->key.mode && cc_same_segment(&from->key, &to->key));
    if (l->to == to && l->via_jc == via_jc)
        return; /* a kick led past the link: it is there. Undoing it would overwrite a target in place */
    if (l->to)
        cc_unlink(cc, l);
    l->from = from;
    l->to = to;
    l->via_jc = via_jc;
    l->in_next = to->links->in;
    l->in_prev = &to->links->in;
    if (l->in_next)
        l->in_next->in_prev = &l->in_next;
    to->links->in = l;
    l->cross = from->d.exit[i].cross_page && !via_jc;
    if (l->cross) {
        struct cc_link **head = &cc->cross[cc_cross_hash(cc_linear(to))];
        l->cross_next = *head;
        l->cross_prev = head;
        if (l->cross_next)
            l->cross_next->cross_prev = &l->cross_next;
        *head = l;
    }
    /* A block that is nothing but a jump to itself starts at its own jump, too. */
    l->in_place = exit_of(l)->jmp_pc == to->d.hot_pc && to != from;
    if (!l->in_place)
        aim(cc, exit_of(l), cc_goal(l));
    cc->stats->chain_links++;
}

void cc_unlink(struct codecache *cc, struct cc_link *l)
{
    if (!l->to)
        return;
    aim_at_stub(cc, l);
    *l->in_prev = l->in_next;
    if (l->in_next)
        l->in_next->in_prev = l->in_prev;
    if (l->cross) {
        *l->cross_prev = l->cross_next;
        if (l->cross_next)
            l->cross_next->cross_prev = l->cross_prev;
    }
    l->to = NULL;
    l->cross = l->in_place = false;
    cc->stats->chain_unlinks++;
}

void cc_unlink_all(struct codecache *cc, struct cc_block *b)
{
    for (unsigned i = 0; i < b->d.n_exits; i++)
        cc_unlink(cc, &b->links->out[i]);
    while (b->links->in)
        cc_unlink(cc, b->links->in);
}

/* Undoes the links of one list whose target lies on (or, second, runs into) the page; all of them if page_lin is ~0. */
static void unlink_bucket(struct codecache *cc, unsigned bucket, uint64_t page_lin, bool second)
{
    for (struct cc_link *l = cc->cross[bucket], *next; l; l = next) {
        next = l->cross_next;
        uint64_t target = cc_linear(l->to) + (second ? 4096 : 0);
        if (page_lin == ~0ull || ((target ^ page_lin) >> 12 == 0 && (!second || l->to->phys2 != ~0ull)))
            cc_unlink(cc, l);
    }
}

void cc_unlink_cross(struct codecache *cc, uint64_t page_lin)
{
    if (page_lin == ~0ull) {
        for (unsigned i = 0; i < 1u << CC_CROSS_BITS; i++)
            unlink_bucket(cc, i, page_lin, false);
        return;
    }
    unlink_bucket(cc, cc_cross_hash(page_lin), page_lin, false);
    unlink_bucket(cc, cc_cross_hash(page_lin - 4096), page_lin, true);
}

static void save5(uint8_t *to, const uint8_t *from)
{
    for (unsigned i = 0; i < 5; i++)
        to[i] = from[i];
}

uint64_t cc_kick(struct codecache *cc, struct cc_block *b, uint64_t pc)
{
    for (unsigned i = 0; i < cc->n_kicked; i++)
        if (cc->kicked[i].b == b)
            return pc;
    if (cc->n_kicked == CC_MAX_KICKED)
        return pc;
    struct cc_kicked *k = &cc->kicked[cc->n_kicked++];
    k->b = b;
    for (unsigned i = 0; i < b->d.n_exits; i++) {
        const struct ccf_exit *e = &b->d.exit[i];
        if (!b->links->out[i].to)
            continue;
        if (b->links->out[i]
                .in_place) { /* whoever else enters the target now leaves for the same rip: right, if slow */
            save5(k->fall_bytes, cc_writable(cc, e->jmp_pc));
            write_jump(cc, e->jmp_pc, e->stub_pc);
        } else {
            aim(cc, e, e->stub_pc);
        }
    }
    if (!b->d.ij_pc)
        return pc;
    save5(k->ij_bytes, cc_writable(cc, b->d.ij_pc));
    write_jump(cc, b->d.ij_pc, b->d.ij_miss_pc);
    return pc > b->d.ij_pc && pc < b->d.ij_end ? b->d.ij_pc : pc;
}

void cc_unkick(struct codecache *cc)
{
    for (unsigned n = cc->n_kicked; n-- > 0;) {
        struct cc_kicked *k = &cc->kicked[n];
        for (unsigned i = 0; i < k->b->d.n_exits; i++) {
            const struct cc_link *l = &k->b->links->out[i];
            if (l->to && l->in_place)
                save5(cc_writable(cc, k->b->d.exit[i].jmp_pc), k->fall_bytes);
            else if (l->to)
                aim(cc, &k->b->d.exit[i], cc_goal(l));
        }
        if (k->b->d.ij_pc)
            save5(cc_writable(cc, k->b->d.ij_pc), k->ij_bytes);
    }
    cc->n_kicked = 0;
}
