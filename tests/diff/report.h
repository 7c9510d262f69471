/* tests/diff/report.h - printing of cases for people, and the counts by mnemonic. */
#ifndef TESTS_DIFF_REPORT_H
#define TESTS_DIFF_REPORT_H
#include "tests/diff/catalog.h"
#include <stdio.h>

void report_case(FILE *f, const struct catalog *cat, const struct dt_case *c);

struct coverage {
    uint64_t generated[ZYDIS_MNEMONIC_MAX_VALUE + 1]; /* in a case */
    uint64_t reached[ZYDIS_MNEMONIC_MAX_VALUE + 1];   /* ran, or was the one that faulted */
    uint64_t completed[ZYDIS_MNEMONIC_MAX_VALUE + 1]; /* ran without a fault */
    uint64_t vectors[32];
};
void coverage_add(struct coverage *v, const struct dt_case *c, const struct dt_result *r);
/* All counts, and the mnemonics that no case reached. */
void coverage_print(FILE *f, const struct coverage *v, const struct catalog *cat);
unsigned coverage_missing(const struct coverage *v, const struct catalog *cat);
#endif
