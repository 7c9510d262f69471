/* tests/guest/ac_user64.c - ac_user.c in 64-bit code. */
#include "ac_user.c"
