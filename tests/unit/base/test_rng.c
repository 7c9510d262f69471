#include "base/rng.h"
#include <criterion/criterion.h>
#include <stdlib.h>

Test(rng, first_numbers_of_a_known_state_are_those_of_the_published_algorithm)
{
    /* By hand from state 1, 2, 3, 4: rotl(2 * 5, 7) * 9 = 11520; the state becomes 7, 0, 2^18 + 2, 6 << 45. */
    struct rng r = {.s = {1, 2, 3, 4}};
    cr_assert_eq(rng_next(&r), 11520);
    cr_assert_eq(rng_next(&r), 0);
    cr_assert_eq(rng_next(&r), 1509978240);
}

Test(rng, same_seed_gives_same_numbers)
{
    struct rng a, b;
    rng_init(&a, 42);
    rng_init(&b, 42);
    for (int i = 0; i < 100; i++)
        cr_assert_eq(rng_next(&a), rng_next(&b));
}

Test(rng, seed_zero_is_a_seed_like_any_other)
{
    struct rng r;
    rng_init(&r, 0);
    cr_assert_neq(rng_next(&r) | rng_next(&r), 0);
}

Test(rng, below_stays_below_and_reaches_every_value)
{
    struct rng r;
    unsigned seen = 0;
    rng_init(&r, 7);
    for (int i = 0; i < 1000; i++) {
        uint64_t x = rng_below(&r, 10);
        cr_assert_lt(x, 10);
        seen |= 1u << x;
    }
    cr_assert_eq(seen, 0x3ff);
}

Test(rng, below_is_even_where_a_plain_remainder_is_not)
{
    /* 3 * 2^62 is three quarters of the range: x % n would hit the lowest third twice as often as each other. */
    struct rng r;
    int low = 0;
    rng_init(&r, 11);
    for (int i = 0; i < 30000; i++)
        low += rng_below(&r, 3ull << 62) < 1ull << 62;
    cr_assert(low > 9500 && low < 10500, "%d of 30000", low);
}

Test(rng, once_in_zero_is_never_and_once_in_one_is_always)
{
    struct rng r;
    rng_init(&r, 1);
    for (int i = 0; i < 100; i++) {
        cr_assert_not(rng_once_in(&r, 0));
        cr_assert(rng_once_in(&r, 1));
    }
}

Test(rng, seed_comes_from_the_environment_if_set)
{
    setenv("RD_SEED", "0x1234", 1);
    cr_assert_eq(rng_pick_seed(), 0x1234);
}

Test(rng, unset_environment_gives_new_seeds)
{
    unsetenv("RD_SEED");
    cr_assert_neq(rng_pick_seed(), rng_pick_seed());
}
