/* tests/guest/vm86_vme.c - virtual-8086 mode extensions (SDM 3B 20.3): software interrupt redirection, VIF and VIP. */
#include "v86.h"

enum { IOPL3 = 0x3000, IF = 0x200, VIF = 0x80000, VIP = 0x100000 };

/* The redirection bitmap lies below the I/O bitmap: one bit a vector, 0 = to the program's own table. */
static void redirect(unsigned vec, bool to_program)
{
    uint8_t *map = rt_iomap;
    if (to_program)
        map[vec / 8] &= (uint8_t) ~(1u << vec % 8);
    else
        map[vec / 8] |= (uint8_t)(1u << vec % 8);
}

static void own_handler(unsigned vec, uint16_t cs, uint16_t ip)
{
    *(volatile uint32_t *)(vec * 4) = (uint32_t)cs << 16 | ip;
}

static void interrupts(void)
{
    redirect(0x21, true);
    own_handler(0x21, 0x1008, 0x10); /* 1000:0090 */
    V86("int to the program, IOPL 0", IF | VIF,
        "int $0x21\n .org 7b + 0x90\n popw %%ax\n popw %%bx\n popw %%cx\n int3");
    rt_printf("  pushed ip %04lx cs %04lx flags %04lx\n", rt_exc.ax & 0xffff, rt_exc.bx & 0xffff, rt_exc.cx & 0xf72a);
    V86("with VIF clear", IF, "int $0x21\n .org 7b + 0x90\n popw %%ax\n popw %%bx\n popw %%cx\n int3");
    rt_printf("  pushed flags %04lx\n", rt_exc.cx & 0xf72a);
    V86("to the program, IOPL 3", IOPL3 | IF, "int $0x21\n .org 7b + 0x90\n popw %%ax\n popw %%bx\n popw %%cx\n int3");
    rt_printf("  pushed flags %04lx\n", rt_exc.cx & 0xf72a);
    V86("back by iret", IF | VIF, "int $0x21\n int3\n .org 7b + 0x90\n iret");
    redirect(0x21, false);
    V86("not redirected, IOPL 0", IF, "int $0x21");
    V86("not redirected, IOPL 3, gate of ring 0", IOPL3, "int $0x21");
    redirect(0x80, false);
    V86("not redirected, IOPL 3, gate of ring 3", IOPL3, "int $0x80");
    redirect(3, true);
    V86("int3 is never redirected", 0, "int3");
}

static void flags(void)
{
    V86("cli", IF | VIF, "cli\n int3");
    V86("sti", IF, "sti\n nop\n int3");
    V86("sti with VIP", IF | VIP, "sti\n nop\n int3");
    V86("cli with VIP", IF | VIP, "cli\n int3");
    V86("pushf", IF | VIF, "pushf\n popw %%ax\n int3");
    rt_printf("  ax %04lx\n", rt_exc.ax & 0xf72a);
    V86("pushf without VIF", IF, "pushf\n popw %%ax\n int3");
    rt_printf("  ax %04lx\n", rt_exc.ax & 0xf72a);
    V86("popf that sets IF", IF, "pushw $0x7202\n popf\n int3");
    V86("popf that clears IF", IF | VIF, "pushw $0x0002\n popf\n int3");
    V86("popf that sets IF with VIP", IF | VIP, "pushw $0x0202\n popf\n int3");
    V86("popf that clears IF with VIP", IF | VIP, "pushw $0x0002\n popf\n int3");
    V86("popf that sets TF", IF, "pushw $0x0102\n popf\n nop\n int3");
    V86("popfl", IF, "pushl $2\n popfl\n int3");
    V86("pushfl", IF, "pushfl\n int3");
    V86("iret that sets IF", IF, "pushw $0x0202\n pushw $0x1000\n pushw $0x40\n iret\n .org 7b + 0x40\n int3");
    V86("iret that sets IF with VIP", IF | VIP, "pushw $0x0202\n pushw $0x1000\n pushw $0x40\n iret");
    V86("iretl", IF, "pushl $2\n pushl $0x1000\n pushl $0x40\n iretl");
    V86("IOPL 3 knows no VIF", IOPL3 | IF, "cli\n pushf\n popw %%ax\n int3");
}

int main(void)
{
    rt_tss.iomap = sizeof rt_tss + 32;
    write_cr4(read_cr4() | 1);
    interrupts();
    flags();
    return 0;
}
