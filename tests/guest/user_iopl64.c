/* tests/guest/user_iopl64.c - flags that ring 3 sees and changes with IOPL 3 in long mode. user=direct must not run such code on the
 * CPU, whose own IOPL is 0 and whose IF is the host's. */
#include "rt.h"

static volatile uint64_t seen[4] __attribute__((used));

static void plain(void) { __asm__ volatile("pushfq\n popq seen\n" : : : "memory"); }

static void interrupts(void)
{
    __asm__ volatile("pushfq\n popq seen\n cli\n pushfq\n popq seen+8\n sti\n pushfq\n popq seen+16\n"
                     "pushq $0x0002\n popfq\n pushfq\n popq seen+24\n int $0x80"
                     :
                     :
                     : "memory", "cc");
}

static void ports(void)
{
    __asm__ volatile("outb %%al, $0x80\n inb $0x61\n pushfq\n popq seen\n int $0x80" : : : "eax", "memory", "cc");
}

static void at_iopl(const char *name, void (*f)(void), unsigned iopl)
{
    for (unsigned i = 0; i < 4; i++)
        seen[i] = 0;
    TRY(name, rt_user_at(SEL_UCODE64, (word)f, SEL_UDATA, (word)rt_user_stack_top - 64, 0x202 | iopl << 12));
    for (unsigned i = 0; i < 4; i++)
        rt_printf(" %llx", (unsigned long long)(seen[i] & 0x3202));
    rt_printf("\n");
}

int main(void)
{
    write_cr4(read_cr4() | 1u << 9); /* OSFXSR: without it nothing runs directly */
    TRY_USER("plain", plain());
    at_iopl("IOPL 0, then CLI", interrupts, 0);
    at_iopl("IOPL 3", interrupts, 3);
    at_iopl("ports with IOPL 3", ports, 3);
    at_iopl("ports with IOPL 1", ports, 1);
    at_iopl("IOPL 2, then CLI", interrupts, 2);
    return 0;
}
