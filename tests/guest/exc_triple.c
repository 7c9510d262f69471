/* tests/guest/exc_triple.c - a triple fault shuts the machine down; with -no-reboot the VMM ends with status 0. */
#include "rt.h"

int main(void)
{
    rt_printf("no IDT, then ud2\n");
    rt_load_idt(0);
    __asm__ volatile("lidt %0\n ud2" : : "m"(*(const uint64_t[1]){0}));
    rt_printf("still here\n");
    return 1;
}
