#include "base/check.h"
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

void (*check_report_hook)(void);
static uint64_t run_seed;
static bool has_seed;

void check_note_seed(uint64_t seed)
{
    run_seed = seed;
    has_seed = true;
}

void check_failed(const char *expr, const char *file, int line)
{
    static bool reported;
    fprintf(stderr, "ringdown: internal error: %s at %s:%d\n", expr, file, line);
    if (has_seed)
        fprintf(stderr, "ringdown: seed of this run: %" PRIu64 "\n", run_seed);
    /* The report may itself run into a failed check. */
    if (check_report_hook && !reported) {
        reported = true;
        check_report_hook();
    }
    abort();
}
