#include "base/check.h"
#include <stdio.h>
#include <stdlib.h>

void (*check_report_hook)(void);

void check_failed(const char *expr, const char *file, int line)
{
    static int once;
    fprintf(stderr, "ringdown: internal error: %s at %s:%d\n", expr, file, line);
    if (check_report_hook && !once++)
        check_report_hook();
    abort();
}
