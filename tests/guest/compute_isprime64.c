/* tests/guest/compute_isprime64.c - the same in long mode. */
#include "compute_isprime.c"
