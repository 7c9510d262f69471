/* tests/guest/string_irq64.c - string_irq.c in 64-bit code. */
#include "string_irq.c"
