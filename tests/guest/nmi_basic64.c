/* tests/guest/nmi_basic64.c - nmi_basic.c in 64-bit code. */
#include "nmi_basic.c"
