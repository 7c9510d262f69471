#include "codecache/jumpcache.h"
#include <criterion/criterion.h>

static struct jump_cache jc;

static bool hits(uint64_t rip) { return jc.tag[jc_index(rip)] + (int64_t)rip == 0; }

static void fill(unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        jc_fill(&jc, 0x400000 + (uint64_t)i * 52, 0x1000 + i);
}

static unsigned count_hits(unsigned n)
{
    unsigned found = 0;
    for (unsigned i = 0; i < n; i++)
        found += hits(0x400000 + (uint64_t)i * 52);
    return found;
}

Test(jumpcache, empty_slots_match_no_address_that_is_looked_up_there)
{
    jc_init(&jc);
    for (uint64_t rip = 0; rip < 4ull << (JC_BITS + JC_SHIFT); rip++)
        cr_assert(!hits(rip), "rip %lx", rip);
    for (uint64_t rip = ~0ull; rip > ~0ull - 4096; rip--)
        cr_assert(!hits(rip), "rip %lx", rip);
}

Test(jumpcache, flush_forgets_few_entries)
{
    jc_init(&jc);
    fill(100);
    cr_assert_eq(count_hits(100), 100);
    jc_flush(&jc);
    cr_assert_eq(count_hits(100), 0);
}

Test(jumpcache, is_empty_in_memory_of_zeros)
{
    memset(&jc, 0, sizeof jc);
    jc_create(&jc);
    for (uint64_t rip = 0; rip < 4ull << (JC_BITS + JC_SHIFT); rip++)
        if (hits(rip))
            cr_assert(false, "%#llx", (unsigned long long)rip);
}

Test(jumpcache, flush_forgets_more_entries_than_are_noted)
{
    const unsigned exact = JC_LOG, more = JC_LOG + 1, many = 3 * JC_LOG;
    const unsigned counts[] = {exact, more, many};
    for (unsigned i = 0; i < 3; i++) {
        jc_init(&jc);
        fill(counts[i]);
        cr_assert_eq(count_hits(counts[i]), counts[i]);
        jc_flush(&jc);
        cr_assert_eq(count_hits(counts[i]), 0, "%u", counts[i]);
        fill(5); /* and again */
        jc_flush(&jc);
        cr_assert_eq(count_hits(5), 0);
    }
}

Test(jumpcache, flush_forgets_slots_that_were_filled_twice_or_dropped)
{
    jc_init(&jc);
    uint64_t a = 0x400000, b = a + (1ull << (JC_BITS + JC_SHIFT)); /* the same slot */
    jc_fill(&jc, a, 1);
    jc_fill(&jc, b, 2);
    cr_assert(!hits(a) && hits(b));
    jc_drop(&jc, a);
    cr_assert(hits(b));
    jc_drop(&jc, b);
    cr_assert(!hits(b));
    jc_fill(&jc, a, 3);
    jc_flush(&jc);
    cr_assert(!hits(a) && !hits(b));
}

Test(jumpcache, a_page_is_forgotten_and_its_neighbours_are_not)
{
    const uint64_t page = 0x7000, mask = 0xffffffff;
    const uint64_t inside[] = {page - 15, page, page + 5, page + 0xfff},
                   outside[] = {page - 16, page - 64, page + 0x1000};
    jc_init(&jc);
    for (unsigned i = 0; i < 4; i++)
        jc_fill(&jc, inside[i], 1);
    for (unsigned i = 0; i < 3; i++)
        jc_fill(&jc, outside[i], 1);
    jc_drop_range(&jc, page - 15, 0x1000 + 15, mask);
    for (unsigned i = 0; i < 4; i++)
        cr_expect(!hits(inside[i]), "%lx", inside[i]);
    for (unsigned i = 0; i < 3; i++)
        cr_expect(hits(outside[i]), "%lx", outside[i]);
}

Test(jumpcache, a_page_at_the_start_of_the_address_space_reaches_back_over_its_end)
{
    jc_init(&jc);
    jc_fill(&jc, 0xfffffff8, 1);
    jc_fill(&jc, 0x10, 1);
    jc_fill(&jc, 0x12340, 1);
    jc_drop_range(&jc, (0ull - 15) & 0xffffffff, 0x1000 + 15, 0xffffffff);
    cr_expect(!hits(0xfffffff8) && !hits(0x10));
    cr_expect(hits(0x12340));
}

static struct jc_park park;

Test(jumpcache, what_was_parked_comes_back)
{
    jc_init(&jc);
    fill(100);
    jc_drop(&jc, 0x400000);
    jc_park(&jc, &park);
    cr_expect_eq(count_hits(100), 0);
    jc_fill(&jc, 0x900000, 7);
    jc_flush(&jc);
    jc_unpark(&jc, &park);
    cr_expect_eq(count_hits(100), 99);
    cr_expect(!hits(0x400000) && !hits(0x900000));
    jc_flush(&jc);
    cr_expect_eq(count_hits(100), 0);
}

Test(jumpcache, the_newest_are_parked_and_none_if_it_is_not_known_which)
{
    jc_init(&jc);
    fill(JC_PARKED + 100);
    jc_park(&jc, &park);
    cr_expect_eq(park.n, JC_PARKED);
    jc_unpark(&jc, &park);
    cr_expect_eq(count_hits(JC_PARKED + 100), JC_PARKED);
    cr_expect(!hits(0x400000));
    for (unsigned i = 0; i <= JC_LOG; i++)
        jc_fill(&jc, 0x400000, 1);
    jc_park(&jc, &park);
    cr_expect_eq(park.n, 0);
    cr_expect(!hits(0x400000));
}
