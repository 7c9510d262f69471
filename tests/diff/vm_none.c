/* tests/diff/vm_none.c - stands in for vm.c in a tree without the engine: only --self works. */
#include "tests/diff/dcase.h"
#include <stdio.h>

int dt_vm_open(struct dt_backend *b, const uint8_t *golden, const struct dt_vm_config *cfg)
{
    fputs("diff: built without the engine; only --self works\n", stderr);
    return -1;
}
