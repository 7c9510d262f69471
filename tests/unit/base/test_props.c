#include "base/err.h"
#include "base/props.h"
#include <criterion/criterion.h>

static struct props p;
static void parse(const char *text, const char *implied)
{
    cr_assert_eq(props_parse(&p, text, implied), 0, "%s", text);
}
static void done(void) { props_free(&p); }
TestSuite(props, .fini = done);

Test(props, first_bare_element_is_the_implied_key)
{
    parse("virtio-net-pci,netdev=n0", "driver");
    cr_assert_str_eq(props_get(&p, "driver"), "virtio-net-pci");
    cr_assert_str_eq(props_get(&p, "netdev"), "n0");
    cr_assert_null(props_get(&p, "mac"));
}

Test(props, implied_key_may_also_be_written_out_anywhere)
{
    parse("netdev=n0,driver=e1000", "driver");
    cr_assert_str_eq(props_get(&p, "driver"), "e1000");
}

Test(props, doubled_comma_is_one_comma_in_the_value)
{
    parse("file=a,,b,,,c=d", NULL);
    cr_assert_str_eq(props_get(&p, "file"), "a,b,");
    cr_assert_str_eq(props_get(&p, "c"), "d");
    props_free(&p);
    parse("x,,", "file");
    cr_assert_str_eq(props_get(&p, "file"), "x,");
}

Test(props, value_keeps_further_equal_signs)
{
    parse("hostfwd=tcp::22-:22,opt=a=b", NULL);
    cr_assert_str_eq(props_get(&p, "opt"), "a=b");
}

Test(props, last_of_several_values_counts_and_all_are_there)
{
    parse("hostfwd=1,hostfwd=2", NULL);
    cr_assert_str_eq(props_get(&p, "hostfwd"), "2");
    cr_assert_eq(p.n, 2);
}

Test(props, empty_elements_and_keys_are_refused)
{
    cr_assert_eq(props_parse(&p, "pc,", "type"), -RD_E_INVAL);
    cr_assert_eq(props_parse(&p, ",a=b", "type"), -RD_E_INVAL);
    cr_assert_eq(props_parse(&p, "=b", NULL), -RD_E_INVAL);
}

Test(props, empty_text_has_no_elements)
{
    parse("", "type");
    cr_assert_eq(p.n, 0);
}

Test(props, booleans_in_every_spelling)
{
    bool a = false, b = true, c = false, d = true, e = true;
    parse("a=on,b=no,server,nowait", NULL);
    cr_assert_eq(props_bool(&p, "a", &a), 0);
    cr_assert_eq(props_bool(&p, "b", &b), 0);
    cr_assert_eq(props_bool(&p, "server", &c), 0);
    cr_assert_eq(props_bool(&p, "wait", &d), 0);
    cr_assert_eq(props_bool(&p, "absent", &e), 0);
    cr_assert(a && !b && c && !d && e);
}

Test(props, malformed_boolean_is_an_error)
{
    bool a;
    parse("a=maybe", NULL);
    cr_assert_eq(props_bool(&p, "a", &a), -RD_E_INVAL);
}

Test(props, numbers_have_a_range)
{
    uint64_t x = 5;
    parse("iobase=0xf4,iosize=70000", NULL);
    cr_assert_eq(props_u64(&p, "iobase", 0xffff, &x), 0);
    cr_assert_eq(x, 0xf4);
    cr_assert_eq(props_u64(&p, "iosize", 0xffff, &x), -RD_E_INVAL);
    cr_assert_eq(props_u64(&p, "absent", 0xffff, &x), 0);
    cr_assert_eq(x, 0xf4);
}

Test(props, unknown_key_is_named)
{
    parse("path=x,server,nowait,pat=1", NULL);
    cr_assert_str_eq(props_unknown(&p, "path server wait"), "pat");
    cr_assert_null(props_unknown(&p, "path server wait pat"));
}

Test(parse, integers_use_up_the_whole_text)
{
    uint64_t x;
    cr_assert_eq(parse_u64("0x10", &x), 0);
    cr_assert_eq(x, 16);
    cr_assert_eq(parse_u64("18446744073709551615", &x), 0);
    cr_assert_eq(x, UINT64_MAX);
    cr_assert_eq(parse_u64("18446744073709551616", &x), -RD_E_INVAL);
    cr_assert_eq(parse_u64("12x", &x), -RD_E_INVAL);
    cr_assert_eq(parse_u64("-1", &x), -RD_E_INVAL);
    cr_assert_eq(parse_u64(" 1", &x), -RD_E_INVAL);
    cr_assert_eq(parse_u64("", &x), -RD_E_INVAL);
}

Test(parse, sizes_with_and_without_suffix)
{
    uint64_t x;
    cr_assert_eq(parse_size("512", 1 << 20, &x), 0);
    cr_assert_eq(x, 512ull << 20);
    cr_assert_eq(parse_size("2048M", 1, &x), 0);
    cr_assert_eq(x, 2048ull << 20);
    cr_assert_eq(parse_size("1.5g", 1, &x), 0);
    cr_assert_eq(x, 3ull << 29);
    cr_assert_eq(parse_size("64k", 1 << 20, &x), 0);
    cr_assert_eq(x, 65536);
    cr_assert_eq(parse_size("10b", 1 << 20, &x), 0);
    cr_assert_eq(x, 10);
}

Test(parse, malformed_and_oversized_sizes_are_refused)
{
    uint64_t x;
    cr_assert_eq(parse_size("16E", 1, &x), -RD_E_INVAL);
    cr_assert_eq(parse_size("15.9999E", 1, &x), 0);
    cr_assert_eq(parse_size("3Q", 1, &x), -RD_E_INVAL);
    cr_assert_eq(parse_size("3MM", 1, &x), -RD_E_INVAL);
    cr_assert_eq(parse_size("1.", 1, &x), -RD_E_INVAL);
    cr_assert_eq(parse_size("-1", 1, &x), -RD_E_INVAL);
    cr_assert_eq(parse_size("", 1, &x), -RD_E_INVAL);
}
