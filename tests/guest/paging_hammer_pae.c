/* tests/guest/paging_hammer_pae.c - paging_hammer.c with PAE paging. */
#define PAE
#include "paging_hammer.c"
