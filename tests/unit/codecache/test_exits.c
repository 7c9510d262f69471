/* Exits and their names: what an exit hands over when it is taken leads to its block without a search. */
#include "codecache/codecache.h"
#include <criterion/criterion.h>
#include <string.h>

#define BLOCKS 1000u
#define CODE_BYTES 64u
static struct stats stats;
static struct codecache *cc;

static void setup(void) { cr_assert_eq(cc_create(&cc, 2 << 20, &stats), 0); }
static void teardown(void) { cc_destroy(cc); }
TestSuite(cc_exits, .init = setup, .fini = teardown);

static struct cc_key key(unsigned k)
{
    return (struct cc_key){.phys = 0x1000 + 16 * k, .rip = 0x401000 + 16 * k, .mode = 1};
}

/* A block of nothing but two jumps and two stubs. */
static struct cc_block *make(unsigned k)
{
    struct cc_space s;
    struct cc_key id = key(k);
    cc_reserve(cc, 16384, 16384, &s);
    memset(s.hot, 0xcc, CODE_BYTES);
    memset(s.cold, 0xcc, CODE_BYTES);
    struct ccf_desc d = {.tu_bytes = 16,
                         .hot_pc = (uint32_t)s.hot_pc,
                         .start_pc = (uint32_t)s.hot_pc,
                         .hot_bytes = CODE_BYTES,
                         .cold_pc = (uint32_t)s.cold_pc,
                         .cold_bytes = CODE_BYTES,
                         .n_exits = 2,
                         .fall_exit = 2};
    for (unsigned i = 0; i < 2; i++)
        d.exit[i] = (struct ccf_exit){.target = key(k + 1 + i).rip,
                                      .jmp_pc = d.hot_pc + 8 * i,
                                      .rel_at = 1,
                                      .stub_pc = d.cold_pc + 16 * i,
                                      .name_pc = d.cold_pc + 16 * i + 6};
    return cc_commit(cc, &id, ~0ull, &d, NULL);
}

static uint32_t name_of(const struct cc_block *b, unsigned i)
{
    uint32_t name;
    memcpy(&name, cc_writable(cc, b->d.exit[i].name_pc), 4);
    return name;
}

Test(cc_exits, each_name_leads_to_its_block_and_exit)
{
    static struct cc_block *b[BLOCKS];
    for (unsigned k = 0; k < BLOCKS; k++)
        b[k] = make(k);
    for (unsigned k = 0; k < BLOCKS; k++)
        for (unsigned i = 0; i < 2; i++) {
            unsigned exit = 7;
            cr_assert_eq(cc_find_exit(cc, name_of(b[k], i), &exit), b[k], "block %u", k);
            cr_assert_eq(exit, i);
        }
}

Test(cc_exits, names_that_nobody_has_lead_nowhere)
{
    unsigned i;
    struct cc_block *b = make(0);
    uint32_t name = name_of(b, 1);
    cr_expect_null(cc_find_exit(cc, ~0u, &i));
    cr_expect_null(cc_find_exit(cc, b->d.exit[0].stub_pc, &i));
    cc_flush(cc);
    cr_expect_null(cc_find_exit(cc, name, &i));
}

/* A description that was given back is given out again. */
Test(cc_exits, memory_of_descriptions_is_used_again_after_a_flush)
{
    struct cc_block *first = make(0);
    for (unsigned k = 1; k < 3 * BLOCKS; k++)
        cr_assert_not_null(make(k));
    cc_flush(cc);
    cr_expect_eq(make(0), first);
    cr_expect_eq(cc_block_count(cc), 1);
}

Test(cc_exits, a_link_is_known_by_the_key_of_its_target)
{
    struct cc_block *a = make(0), *b = make(1);
    struct cc_key right = key(1), other = key(1);
    other.mode = 2;
    cr_expect_null(cc_linked(a, 0, &right));
    cc_link(cc, a, 0, b, false);
    cr_expect_eq(cc_linked(a, 0, &right), b);
    cr_expect_null(cc_linked(a, 0, &other));
    cr_expect_null(cc_linked(a, 1, &right));
    cc_invalidate(cc, right.phys, 1);
    cr_expect_null(cc_linked(a, 0, &right));
}

/* A block of nothing but one jump, at whose place the next one starts: both are entered there, and the first alone when the other has died. */
Test(cc_exits, a_block_that_is_nothing_but_its_jump_is_entered_there_whatever_becomes_of_the_next_one)
{
    struct cc_block *b[2];
    uint32_t at = 0;
    for (unsigned k = 0; k < 2; k++) {
        struct cc_space s;
        struct cc_key id = key(k);
        if (k)
            cr_assert(cc_reserve_in_place(cc, b[0], 16384, 16384, &s));
        else
            cc_reserve(cc, 16384, 16384, &s);
        at = (uint32_t)s.hot_pc;
        memset(s.hot, 0xcc, CODE_BYTES);
        struct ccf_desc d = {.tu_bytes = 16,
                             .hot_pc = at,
                             .start_pc = at,
                             .hot_bytes = k ? CODE_BYTES : 5,
                             .cold_pc = (uint32_t)s.cold_pc,
                             .cold_bytes = CODE_BYTES,
                             .entry_indirect_pc = at,
                             .n_exits = 1,
                             .fall_exit = k ? 2 : 0};
        d.exit[0] = (struct ccf_exit){.target = key(k + 1).rip,
                                      .jmp_pc = d.hot_pc + (k ? 8 : 0),
                                      .rel_at = 1,
                                      .stub_pc = d.cold_pc,
                                      .name_pc = d.cold_pc + 6};
        b[k] = cc_commit(cc, &id, ~0ull, &d, NULL);
    }
    cr_assert_eq(b[0]->d.hot_pc, b[1]->d.hot_pc);
    cc_link(cc, b[0], 0, b[1], false);
    cr_expect(cc_is_entry(cc, at, key(0).rip));
    cr_expect(cc_is_entry(cc, at, key(1).rip));
    cc_invalidate(cc, key(1).phys, 1);
    cr_expect(cc_is_entry(cc, at, key(0).rip), "it is as alive as before");
    cr_expect(!cc_is_entry(cc, at, key(1).rip));
}
