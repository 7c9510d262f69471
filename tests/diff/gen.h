/* tests/diff/gen.h - makes cases: instruction sequences with a state in which they have something to do.
 *
 * Role:   random instructions come from the catalogue; this file gives them addresses that hit the data window (aligned, odd,
 *         page-crossing, faulting), jump targets inside the case, selectors that exist, and FPU contents that matter. It also
 *         keeps the account of undefined flags, so that no instruction reads one.
 */
#ifndef TESTS_DIFF_GEN_H
#define TESTS_DIFF_GEN_H
#include "tests/diff/catalog.h"

struct gen_options {
    uint64_t seed;
    int pick;           /* mnemonic of the first instruction, or -1 */
    unsigned max_insns; /* 1 .. DT_MAX_INSNS */
    bool ring0;         /* cases for CPL 0 */
};
/* Contents of the data window before patches. */
void gen_golden(uint64_t seed, uint8_t *golden);
/* Case number of a mode; the same arguments give the same case always. */
void gen_case(const struct catalog *cat, const struct gen_options *o, enum dt_mode mode, uint64_t number,
              struct dt_case *c);
#endif
