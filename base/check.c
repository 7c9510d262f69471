#include "base/check.h"
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

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

/* vsnprintf with integers and strings stays on the stack; dprintf would allocate. */
void check_say(const char *fmt, ...)
{
    char line[256];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    if (n > 0 && write(STDERR_FILENO, line, n < (int)sizeof line ? (size_t)n : sizeof line - 1) < 0) {
        /* nowhere to say it */
    }
}
