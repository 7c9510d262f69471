/* base/stat.h - counters, one struct per VM, written as JSON by -stats. Plain increments by the thread that owns the VM. */
#ifndef BASE_STAT_H
#define BASE_STAT_H
#include "base/acct.h"
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
struct stats {
#define STAT(name, text) uint64_t name;
#include "base/stat.def"
#undef STAT
    uint64_t callout_kind[160]; /* by SYS_OP_* */
    uint64_t exception_vec[32];
    /* Counted by translated code itself, and only if it was told to (-accel bt,count=on): else written as null. */
    bool counted;
#define STAT(name, text) uint64_t name;
#include "base/stat_counted.def"
#undef STAT
    struct acct acct; /* where the time goes; written if it was started */
};
/* Writes {"name": count, ...}; kind_name may be NULL. Returns 0 or -RD_E_IO. */
int stat_write_json(const struct stats *s, FILE *f, const char *(*kind_name)(unsigned));
#endif
