/* tests/guest/paging_hammer64.c - paging_hammer.c with 4-level paging, from code in both halves. */
#include "paging_hammer.c"
