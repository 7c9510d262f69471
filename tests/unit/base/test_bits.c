#include "base/bits.h"
#include <criterion/criterion.h>

Test(bits, power_of_two_excludes_zero)
{
    cr_assert(bits_is_pow2(1));
    cr_assert(bits_is_pow2(1ull << 63));
    cr_assert_not(bits_is_pow2(0));
    cr_assert_not(bits_is_pow2(6));
}

Test(bits, alignment_at_and_around_a_multiple)
{
    cr_assert_eq(bits_align_down(0x1fff, 0x1000), 0x1000);
    cr_assert_eq(bits_align_up(0x1001, 0x1000), 0x2000);
    cr_assert_eq(bits_align_up(0x1000, 0x1000), 0x1000);
    cr_assert_eq(bits_align_up(~0ull, 0x1000), 0);
    cr_assert(bits_is_aligned(0, 8));
    cr_assert_not(bits_is_aligned(4, 8));
}

Test(bits, field_as_the_manuals_count)
{
    cr_assert_eq(bits_field(0xabcd1234, 15, 12), 0x1);
    cr_assert_eq(bits_field(~0ull, 63, 0), ~0ull);
    cr_assert_eq(bits_mask(0), 0);
    cr_assert_eq(bits_mask(64), ~0ull);
}

Test(bits, sign_extension_of_every_width)
{
    cr_assert_eq(bits_sign_extend(0x80, 8), -128);
    cr_assert_eq(bits_sign_extend(0x17f, 8), 127);
    cr_assert_eq(bits_sign_extend(1, 1), -1);
    cr_assert_eq(bits_sign_extend(~0ull, 64), -1);
}

Test(bits, fits_in_signed_immediates)
{
    cr_assert(bits_fits_s8(-128));
    cr_assert_not(bits_fits_s8(128));
    cr_assert(bits_fits_s32(INT32_MIN));
    cr_assert_not(bits_fits_s32(0x80000000ll));
}

Test(bits, ranges_that_touch_do_not_overlap)
{
    cr_assert_not(bits_ranges_overlap(0, 16, 16, 16));
    cr_assert_not(bits_ranges_overlap(16, 16, 0, 16));
    cr_assert(bits_ranges_overlap(0, 17, 16, 16));
    cr_assert(bits_ranges_overlap(20, 1, 16, 16));
    cr_assert(bits_ranges_overlap(~0ull - 1, 2, ~0ull, 1));
}

Test(bits, empty_range_overlaps_nothing)
{
    cr_assert_not(bits_ranges_overlap(8, 0, 0, 16));
    cr_assert_not(bits_ranges_overlap(0, 16, 8, 0));
    cr_assert_not(bits_ranges_overlap(8, 0, 8, 0));
}
