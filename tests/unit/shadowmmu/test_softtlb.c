/* The soft TLB: what a flush takes with it, and that its list of filled entries does not grow with use. */
#include "shadowmmu/softtlb.h"
#include <criterion/criterion.h>

static struct softtlb t;
static uint8_t ram[4096];

static void setup(void) { softtlb_init(&t); }
TestSuite(softtlb, .init = setup);

static void fill(uint64_t lin, uint64_t page_bytes, bool global)
{
    softtlb_fill(&t, lin, ram, page_bytes, true, global);
}
static bool has(uint64_t lin) { return t.tag_r[stlb_index(lin)] == -(int64_t)lin; }

Test(softtlb, a_page_entered_again_after_each_flush_of_it_takes_no_room)
{
    for (unsigned i = 0; i < 3 * STLB_LISTED; i++) {
        fill(0x5000, 4096, false);
        softtlb_flush_page(&t, 0x5000);
    }
    cr_expect_eq(t.fleeting.n, 0);
}

Test(softtlb, pages_by_turns_do_not_fill_the_list_where_large_pages_are)
{
    fill(0x40000000, 1u << 30, true);
    for (unsigned i = 0; i < 3 * STLB_LISTED; i++)
        for (uint64_t lin = 0x5000; lin < 0x9000; lin += 0x1000) {
            fill(lin, 4096, false);
            softtlb_flush_page(&t, lin ^ 0x1000);
        }
    cr_expect_lt(t.fleeting.n + t.lasting.n, 16);
}

Test(softtlb, flushing_one_page_of_a_large_one_drops_all_of_it_and_no_more)
{
    fill(0x200000, 2u << 20, false);
    fill(0x3ff000, 2u << 20, false);
    fill(0xa00000, 4096, false);
    softtlb_flush_page(&t, 0x2ab000);
    cr_expect(!has(0x200000));
    cr_expect(!has(0x3ff000));
    cr_expect(has(0xa00000));
    softtlb_flush_all(&t);
    cr_expect(!has(0xa00000));
}

Test(softtlb, global_entries_survive_an_address_space_switch)
{
    fill(0x1000, 4096, true);
    fill(0x2000, 4096, false);
    softtlb_flush_page(&t, 0x3000);
    softtlb_flush_nonglobal(&t);
    cr_expect(has(0x1000));
    cr_expect(!has(0x2000));
    softtlb_flush_all(&t);
    cr_expect(!has(0x1000));
}

static void use_stack(uint64_t lin)
{
    unsigned i = stlb_index(lin);
    t.stack_r = t.stack_w = (struct stlb_stack){t.tag_r[i], t.addend[i]}; /* as generated code does */
}
static bool stack_empty(void) { return t.stack_r.tag == STLB_STACK_NONE && t.stack_w.tag == STLB_STACK_NONE; }

Test(softtlb, every_change_forgets_the_page_of_the_stack)
{
    cr_expect(stack_empty());
    fill(0x1000, 4096, true);
    use_stack(0x1000);
    fill(0x2000, 4096, false);
    cr_expect(stack_empty(), "it may be another page of the same index");
    use_stack(0x1000);
    softtlb_flush_page(&t, 0x1000);
    cr_expect(stack_empty());
    use_stack(0x2000);
    softtlb_protect(&t, ram);
    cr_expect(stack_empty());
    use_stack(0x2000);
    softtlb_flush_nonglobal(&t);
    cr_expect(stack_empty());
    fill(0x2000, 4096, false);
    use_stack(0x2000);
    softtlb_flush_all(&t);
    cr_expect(stack_empty());
}

static struct stlb_park park;

static void write_tags(void *opaque, uint64_t lin, const uint8_t *host, bool write, bool global)
{
    *(unsigned *)opaque += write && !global && host == ram;
}
static unsigned parked_writable(void)
{
    unsigned n = 0;
    softtlb_park_each(&park, write_tags, &n);
    return n;
}

Test(softtlb, what_was_parked_comes_back_and_global_entries_never_left)
{
    fill(0x1000, 4096, true);
    fill(0x2000, 4096, false);
    fill(0x3000, 4096, false);
    use_stack(0x2000);
    softtlb_park(&t, &park);
    cr_expect(stack_empty());
    cr_expect(has(0x1000) && !has(0x2000) && !has(0x3000));
    cr_expect_eq(parked_writable(), 2);
    fill(0x4000, 4096, false);
    softtlb_flush_nonglobal(&t);
    softtlb_unpark(&t, &park);
    cr_expect(has(0x1000) && has(0x2000) && has(0x3000) && !has(0x4000));
    cr_expect_eq(parked_writable(), 0, "it is empty");
    softtlb_flush_nonglobal(&t);
    cr_expect(!has(0x2000) && !has(0x3000), "they are not global now either");
}

Test(softtlb, the_newest_entries_are_parked_and_what_is_in_the_way_stays)
{
    for (uint64_t i = 0; i < STLB_PARKED + 10; i++)
        fill(0x100000 + 4096 * i, 4096, false);
    softtlb_park(&t, &park);
    cr_expect_eq(park.n, STLB_PARKED);
    uint64_t other = 0x100000 + 4096ull * (STLB_PARKED + 5) + (uint64_t)STLB_SIZE * 4096; /* of the same index */
    fill(other, 4096, true);
    softtlb_unpark(&t, &park);
    cr_expect(!has(0x100000 + 4096 * 9));
    cr_expect(has(0x100000 + 4096 * 10));
    cr_expect(has(0x100000 + 4096ull * (STLB_PARKED + 9)));
    cr_expect(has(other));
}

Test(softtlb, a_page_that_becomes_traced_is_not_writable_when_it_comes_back)
{
    fill(0x2000, 4096, false);
    softtlb_park(&t, &park);
    softtlb_park_protect(&park, ram);
    cr_expect_eq(parked_writable(), 0);
    softtlb_unpark(&t, &park);
    cr_expect(has(0x2000));
    cr_expect_neq(t.tag_w[stlb_index(0x2000)], -0x2000);
}

Test(softtlb, a_parked_piece_of_a_large_page_is_still_one_when_everything_was_flushed_in_between)
{
    fill(0x200000, 2u << 20, false);
    softtlb_park(&t, &park);
    softtlb_flush_all(&t);
    softtlb_unpark(&t, &park);
    softtlb_flush_page(&t, 0x2ab000);
    cr_expect(!has(0x200000));
}
