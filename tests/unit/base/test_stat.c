#include "base/err.h"
#include "base/stat.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static const char *kind_name(unsigned kind) { return kind == 3 ? "three" : "other"; }

static const char *json_of(const struct stats *s, const char *(*names)(unsigned))
{
    static char text[16384];
    FILE *f = fmemopen(text, sizeof text, "w");
    cr_assert_eq(stat_write_json(s, f, names), 0);
    fclose(f);
    return text;
}

Test(stat, every_counter_is_written_under_its_name)
{
    struct stats s = {.tu_translated = 1, .exits = 18446744073709551615u};
    const char *text = json_of(&s, NULL);
    cr_assert(strstr(text, "\"tu_translated\": 1,"));
    cr_assert(strstr(text, "\"exits\": 18446744073709551615,"));
#define STAT(name, comment) cr_assert(strstr(text, "\"" #name "\": "));
#include "base/stat.def"
#undef STAT
}

Test(stat, shares_of_nothing_are_zero_not_nan)
{
    struct stats s = {0};
    const char *text = json_of(&s, NULL);
    cr_assert(strstr(text, "\"ident_share\": 0.0000,"));
    cr_assert(strstr(text, "\"ccf_per_tu_byte\": 0.000,"));
}

Test(stat, ident_share_counts_copies_with_and_without_memory)
{
    struct stats s = {.insn_translated = 8, .insn_ident = 4, .insn_mem = 2, .tu_bytes = 10, .ccf_bytes = 25};
    const char *text = json_of(&s, NULL);
    cr_assert(strstr(text, "\"ident_share\": 0.7500,"));
    cr_assert(strstr(text, "\"ccf_per_tu_byte\": 2.500,"));
}

Test(stat, callouts_and_vectors_list_only_what_happened)
{
    struct stats s = {0};
    s.callout_kind[3] = 5;
    s.callout_kind[4] = 6;
    s.exception_vec[14] = 2;
    const char *text = json_of(&s, kind_name);
    cr_assert(strstr(text, "\"callouts_by_kind\": {\"three\": 5, \"other\": 6}"));
    cr_assert(strstr(text, "\"exceptions_by_vector\": {\"14\": 2}"));
}

Test(stat, full_disk_is_an_error)
{
    struct stats s = {0};
    FILE *f = fopen("/dev/full", "w");
    setvbuf(f, NULL, _IONBF, 0);
    cr_assert_eq(stat_write_json(&s, f, NULL), -RD_E_IO);
}
