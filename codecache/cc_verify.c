/* codecache/cc_verify.c - the invariants of cc_int.h, walked. */
#include "codecache/cc_int.h"
#include <string.h>

static uint32_t read32(const struct codecache *cc, uint64_t pc)
{
    uint32_t val;
    memcpy(&val, cc_writable(cc, pc), sizeof val);
    return val;
}

static uint32_t aimed_at(const struct codecache *cc, const struct ccf_exit *e)
{
    return e->jmp_pc + e->rel_at + 4 + read32(cc, (uint64_t)e->jmp_pc + e->rel_at);
}

static bool in_list(const struct cc_link *head, const struct cc_link *l)
{
    while (head && head != l)
        head = head->in_next;
    return head;
}

static void verify_block(const struct codecache *cc, struct cc_block *b)
{
    if (b->dead) {
        CHECK(!b->links->in && !b->links->out[0].to && !b->links->out[1].to); /* CC-2 */
        return;
    }
    CHECK(cc_lookup((struct codecache *)cc, &b->key)); /* CC-1 */
    CHECK(cc_page_has_code(cc, b->key.phys));
    for (unsigned i = 0; i < b->d.n_exits; i++) { /* CC-3, CC-4, CC-6 */
        const struct cc_link *l = &b->links->out[i];
        const struct ccf_exit *e = &b->d.exit[i];
        unsigned k;
        CHECK(cc_find_exit(cc, read32(cc, e->name_pc), &k) == b && k == i);
        if (!l->to) {
            CHECK(aimed_at(cc, e) == e->stub_pc);
            continue;
        }
        CHECK(!l->to->dead && in_list(l->to->links->in, l));
        if (l->in_place) {
            CHECK(l->to->d.hot_pc == e->jmp_pc && cc_entry(l->to, e->entry) == e->jmp_pc && !l->via_jc);
            continue;
        }
        CHECK(aimed_at(cc, e) == cc_goal(l));
        CHECK(l->cross == (e->cross_page && !l->via_jc));
        CHECK(l->to->key.mode == b->key.mode && cc_same_segment(&l->to->key, &b->key));
        CHECK(l->to->key.rip == e->target);
    }
}

static bool enters(const struct cc_block *b, uint64_t pc, uint64_t rip)
{
    return !b->dead && b->d.entry_indirect_pc == pc && b->key.rip == rip;
}

bool cc_is_entry(const struct codecache *cc, uint64_t pc, uint64_t rip)
{
    const struct cc_block *b = cc_find(cc, pc);
    while (b && !enters(b, pc, rip)) {
        const struct cc_link *l = b->d.hot_pc == pc ? b->links->in : NULL;
        while (l && !l->in_place)
            l = l->in_next;
        b = l ? l->from : NULL;
    }
    /* A block that is nothing but its jump, and whose successor in place has died, leads there still. */
    for (unsigned s = 0; !b && s < cc->n_sectors; s++)
        for (unsigned i = 0; !b && i < cc->sector[s].n; i++)
            b = enters(cc->sector[s].block[i], pc, rip) ? cc->sector[s].block[i] : NULL;
    return b;
}

void cc_verify(const struct codecache *cc)
{
    CHECK(cc->n_kicked == 0);
    for (unsigned s = 0; s < cc->n_sectors; s++) {
        uint64_t hot = cc->sector[s].pc, cold = hot + cc->sector_bytes / 2;
        for (unsigned i = 0; i < cc->sector[s].n; i++) {
            struct cc_block *b = cc->sector[s].block[i];
            CHECK(b->d.start_pc + 5 >= hot && b->d.cold_pc >= cold); /* CC-5 */
            hot = (uint64_t)b->d.hot_pc + b->d.hot_bytes;
            cold = (uint64_t)b->d.cold_pc + b->d.cold_bytes;
            verify_block(cc, b);
        }
    }
}
