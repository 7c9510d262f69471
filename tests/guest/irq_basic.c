/* tests/guest/irq_basic.c - 8259 and 8254: HLT woken by a timer, shadows of STI and MOV SS, masking, interrupted strings. */
#include "rt.h"

static volatile unsigned ticks;
static volatile word last_ip, last_flags, last_cx;
static word base __attribute__((used));

static bool on_irq(struct rt_frame *f)
{
    if (f->vec < 0x20 || f->vec > 0x2f)
        return false;
    ticks++;
    last_ip = f->ip - base;
    last_flags = f->flags;
    last_cx = f->cx;
    rt_eoi();
    return true;
}

static void halt_and_wake(void)
{
    rt_pic_init(0xfe);
    rt_pit(11932, 2); /* 100 Hz */
    ticks = 0;
    for (unsigned i = 0; i < 5; i++)
        __asm__ volatile("sti\n hlt\n cli" : : : "memory");
    rt_printf("5 halts, at least 5 ticks: %d\n", ticks >= 5);
    ticks = 0;
    __asm__ volatile("sti" : : : "memory");
    while (ticks < 3)
        __asm__ volatile("pause" : : : "memory");
    __asm__ volatile("cli" : : : "memory");
    rt_printf("a loop is interrupted\n");
    outb(0x21, 0xff);
}

/* An edge is made pending with interrupts off; where is it taken after STI? */
static void make_pending(void)
{
    outb(0x21, 0xfe);
    rt_pit(1193, 0);  /* one shot, 1 ms */
    outb(0x20, 0x0a); /* read IRR */
    while (!(inb(0x20) & 1))
        ;
    ticks = 0;
    last_ip = 0xdead;
}

#define SHADOW(name, insns)                                                                                            \
    do {                                                                                                               \
        make_pending();                                                                                                \
        __asm__ volatile("movl $1f, base\n 1: " insns "\n cli" : : "c"(SEL_KDATA) : "memory", "eax");                  \
        rt_printf("%s: %u at +%lx\n", name, ticks, last_ip);                                                           \
    } while (0)

static void shadows(void)
{
    SHADOW("sti nop nop", "sti\n nop\n nop");
    SHADOW("sti cli", "sti\n cli\n nop");
    SHADOW("sti sti nop", "sti\n sti\n nop\n nop");
    SHADOW("popf", "pushl $0x202\n popfl\n nop\n nop");
    SHADOW("iret", "pushl $0x202\n pushl $8\n pushl $2f\n iretl\n 2: nop\n nop");
    SHADOW("sti hlt", "sti\n hlt\n nop");
    SHADOW("sti with IF already set", "pushl $0x202\n popfl\n sti\n nop");
    SHADOW("mov ss with interrupts on", "nop\n pushl $0x202\n popfl\n movl %%ecx, %%ss\n nop");
    make_pending();
    rt_printf("pending while off: %u ticks\n", ticks);
    outb(0x21, 0xff);
    __asm__ volatile("sti\n nop\n nop\n cli" : : : "memory");
    rt_printf("masked at the 8259: %u ticks\n", ticks);
    outb(0x21, 0xfe);
    __asm__ volatile("sti\n nop\n nop\n cli" : : : "memory");
    rt_printf("unmasked: %u ticks\n", ticks);
}

/* A long string instruction is interrupted between iterations and resumed. */
static void strings(void)
{
    enum { BYTES = 0x400000 };
    uint8_t *to = (uint8_t *)0x1000000;
    bool inside = false, rf = false;
    rt_pit(1193, 2);
    outb(0x21, 0xfe);
    for (unsigned i = 0; i < 50 && !inside; i++) {
        uint32_t n = BYTES;
        void *d = to;
        last_cx = 0;
        __asm__ volatile("movl $1f, base\n sti\n nop\n 1: rep stosb\n cli" : "+c"(n), "+D"(d) : "a"(i) : "memory");
        inside = last_ip == 0 && last_cx > 0 && last_cx < BYTES;
        rf = last_flags & 0x10000;
        if (n != 0 || d != to + BYTES || to[0] != (uint8_t)i || to[BYTES - 1] != (uint8_t)i)
            rt_printf("round %u: wrong registers or memory\n", i);
    }
    rt_printf("interrupted inside rep stosb: %d\n", inside);
    rt_printf("RF pushed: %d\n", rf);
    outb(0x21, 0xff);
}

int main(void)
{
    rt_hook = on_irq;
    halt_and_wake();
    shadows();
    strings();
    return 0;
}
