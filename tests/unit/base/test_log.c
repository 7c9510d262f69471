#include "base/err.h"
#include "base/log.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static char path[64], text[32768];

static void log_to_file(void)
{
    snprintf(path, sizeof path, "/tmp/rd_test_log.%d", (int)getpid());
    cr_assert_eq(log_open(path), 0);
    log_mask = 0;
}
static void remove_file(void) { unlink(path); }

static const char *slurp(const char *name)
{
    FILE *f = fopen(name, "r");
    cr_assert(f);
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    return text;
}

TestSuite(log, .init = log_to_file, .fini = remove_file);

Test(log, category_that_is_off_writes_nothing)
{
    LOGF(IRQ, "not seen");
    cr_assert_str_empty(slurp(path));
}

Test(log, category_that_is_on_writes_its_name_and_the_line)
{
    const char *bad;
    cr_assert_eq(log_set_mask("irq", &bad), 0);
    LOGF(IRQ, "block %d", 7);
    LOGF(PIO, "not seen");
    cr_assert_str_eq(slurp(path), "irq: block 7\n");
}

Test(log, list_of_names_adds_up)
{
    const char *bad;
    uint32_t mask;
    cr_assert_eq(log_parse_mask("in_asm,int", &mask, &bad), 0);
    cr_assert_eq(mask, 1u << LOG_IN_ASM | 1u << LOG_INT);
}

Test(log, all_is_everything)
{
    const char *bad;
    cr_assert_eq(log_set_mask("all", &bad), 0);
    cr_assert(log_on(BOOT));
    cr_assert(log_on(IN_ASM));
}

Test(log, unknown_name_is_named_and_changes_nothing)
{
    const char *bad = NULL;
    cr_assert_eq(log_set_mask("int,in_as,cpu", &bad), -RD_E_INVAL);
    cr_assert_str_eq(bad, "in_as");
    cr_assert_eq(log_mask, 0);
}

Test(log, every_category_is_listed_with_its_meaning)
{
    char name[80];
    snprintf(name, sizeof name, "%s.list", path);
    FILE *f = fopen(name, "w");
    log_list(f);
    fclose(f);
    slurp(name);
    unlink(name);
    unsigned lines = 0;
    for (const char *p = text; (p = strchr(p, '\n')); p++)
        lines++;
    cr_assert_eq(lines, LOG_COUNT);
    cr_assert(strstr(text, "\nint            exceptions"));
}

Test(log, ring_keeps_the_last_lines_oldest_first)
{
    char name[80];
    log_mask = ~0u;
    for (int i = 0; i < 100; i++)
        LOGF(CPU, "line %d", i);
    snprintf(name, sizeof name, "%s.ring", path);
    FILE *f = fopen(name, "w");
    log_dump_ring(fileno(f));
    fclose(f);
    slurp(name);
    unlink(name);
    cr_assert_eq(strncmp(text, "  cpu: line 36\n", 15), 0, "%.40s", text);
    cr_assert(strstr(text, "  cpu: line 99\n"));
}

Test(log, line_longer_than_a_slot_is_cut_not_overrun)
{
    char big[1000];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = 0;
    log_mask = ~0u;
    LOGF(CPU, "%s", big);
    size_t n = strlen(slurp(path));
    cr_assert(n > 100 && n <= 200, "%zu", n);
}

Test(log, file_that_cannot_be_made_is_an_error) { cr_assert_eq(log_open("/nonexistent/x"), -RD_E_IO); }
