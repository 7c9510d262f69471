/* tests/diff/compare.h - are two results of one case the same, as far as the architecture defines them? */
#ifndef TESTS_DIFF_COMPARE_H
#define TESTS_DIFF_COMPARE_H
#include "tests/diff/dcase.h"
#include <stdbool.h>
#include <stdio.h>

/* True if equal, or if the difference says nothing. With a stream, prints one line for each difference. */
bool dt_compare(const struct dt_case *c, const struct dt_result *a, const struct dt_result *b, FILE *out);
/* Does the case say anything? Not if it ran into the host kernel, or by a stray jump into an instruction that is left out
 * (exclude.def; at CPL 0 any may be), or did not end. */
bool dt_usable(const struct dt_case *c, const struct dt_result *r);
/* May the case have run into an instruction that is left out, by a jump into the middle of another? Then a difference says nothing. */
bool dt_may_have_left(const struct dt_case *c, const struct dt_result *r);
/* Does the instruction store x87 pointers, which are not compared? Nothing may be made of them either. */
bool dt_stores_pointers(unsigned mnemonic);
/* What of such a result is compared: the masks and the account of undefined flags hide the rest. */
struct dt_compared {
    bool memory, memory_exact; /* exact: every byte */
    uint64_t comps;            /* state components, DT_COMP_* */
    uint32_t flags;
};
struct dt_compared dt_compared(const struct dt_case *c, const struct dt_result *r);
/* Index of the instruction a result stopped at: n_insns = the end, -1 = elsewhere. */
int dt_stopped_at(const struct dt_case *c, const struct dt_result *r);
#endif
