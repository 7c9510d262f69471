/* tests/diff/record.h - results kept in a file: what the CPU gave on one machine, to be compared with on another.
 *
 * The cases are not in the file: they follow from mode and seed. Whoever reads must ask for the ones that were written, in order,
 * on a machine with the same XSAVE components (the generator uses no other property of it).
 */
#ifndef TESTS_DIFF_RECORD_H
#define TESTS_DIFF_RECORD_H
#include "tests/diff/dcase.h"

struct dt_record;
/* NULL with a line on stderr. golden as for dt_native_open. */
struct dt_record *dt_record_create(const char *path, enum dt_mode mode, uint64_t seed, const uint8_t *golden);
void dt_record_put(struct dt_record *w, const struct dt_case *c, const struct dt_result *r);
/* 0, or -1 with a line on stderr if not everything was written. */
int dt_record_close(struct dt_record *w);

/* A backend that returns what was recorded. 0, or -1 with a line on stderr. A case that is not in the file has "died". */
int dt_recorded_open(struct dt_backend *b, const char *path, enum dt_mode mode, uint64_t seed, const uint8_t *golden);
#endif
