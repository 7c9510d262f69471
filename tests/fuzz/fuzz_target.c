/* tests/fuzz/fuzz_target.c - libFuzzer's entry. libfuzzer.sh builds it; see docs/TESTING.md. */
#include "tests/fuzz/machine.h"
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fuzz_result r;
    fuzz_run(data, size, NULL, 50, &r);
    if (r.broken[0]) {
        fprintf(stderr, "fuzz: %s\n", r.broken);
        abort();
    }
    return 0;
}
