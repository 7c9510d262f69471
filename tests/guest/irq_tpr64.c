/* tests/guest/irq_tpr64.c - CR8 and the local APIC's task priority: one register, what it holds back, what it lets through. */
#include "rt.h"

#define APIC(reg) (*(volatile uint32_t *)(0xfee00000ul + (reg)))
enum { TPR = 0x80, PPR = 0xa0, EOI = 0xb0, SVR = 0xf0, ICR = 0x300 };
#define VECTOR 0x51u

static volatile unsigned taken;
static volatile word taken_cr8;

static word cr8(void)
{
    word x;
    __asm__ volatile("movq %%cr8, %0" : "=r"(x) : : "memory");
    return x;
}
static void set_cr8(word x) { __asm__ volatile("movq %0, %%cr8" : : "r"(x) : "memory"); }

static bool on_irq(struct rt_frame *f)
{
    if (f->vec != VECTOR)
        return false;
    taken++;
    taken_cr8 = cr8();
    APIC(EOI) = 0;
    return true;
}

/* What the APIC was told may take a moment to arrive. */
static void moment(void)
{
    (void)APIC(PPR);
    __asm__ volatile("jmp 1f\n 1: nop" : : : "memory");
}

/* Edge, fixed, to itself. */
static void send(void)
{
    APIC(ICR) = 0x44000 | VECTOR;
    moment();
}

static void one_register(void)
{
    set_cr8(5);
    rt_printf("CR8 5: TPR %x PPR %x\n", APIC(TPR), APIC(PPR));
    APIC(TPR) = 0x73;
    rt_printf("TPR 73: CR8 %lx\n", cr8());
    set_cr8(7);
    rt_printf("CR8 7 over TPR 73: TPR %x\n", APIC(TPR));
    set_cr8(3), set_cr8(9);
    rt_printf("CR8 3, then 9: TPR %x CR8 %lx\n", APIC(TPR), cr8());
    set_cr8(15);
    rt_printf("CR8 15: TPR %x\n", APIC(TPR));
    TRY_ASM("CR8 16", "movq %%rcx, %%cr8", "c"(16ul));
    TRY_ASM("CR8 1 << 63", "movq %%rcx, %%cr8", "c"(1ul << 63));
    rt_printf("unchanged: %lx\n", cr8());
    word flags;
    __asm__ volatile("cmpl $-1, %%ecx\n movq %%rax, %%cr8\n movq %%cr8, %%rdx\n pushfq\n popq %0"
                     : "=r"(flags)
                     : "a"(2ul), "c"(3)
                     : "rdx", "cc");
    rt_printf("CR8 from RAX: %lx\n", cr8());
    __asm__ volatile("movq %0, %%cr8" : : "c"(4ul));
    rt_printf("CR8 from RCX: %lx\n", cr8());
}

static void what_it_holds_back(void)
{
    set_cr8(VECTOR >> 4);
    taken = 0;
    send();
    rt_printf("own class: %u taken\n", taken);
    set_cr8(8);
    rt_printf("higher: %u taken\n", taken);
    set_cr8((VECTOR >> 4) - 1);
    rt_printf("lower: %u taken, CR8 %lx in the handler\n", taken, taken_cr8);
    set_cr8(0);
    send();
    rt_printf("nothing held back: %u taken\n", taken);
    set_cr8(9);
    send();
    __asm__ volatile("cli" : : : "memory");
    set_cr8(0);
    rt_printf("interrupts off: %u taken\n", taken);
    __asm__ volatile("sti\n nop" : : : "memory");
    rt_printf("and on: %u taken\n", taken);
    set_cr8(9);
    send();
    APIC(TPR) = 0x10;
    moment();
    rt_printf("let through by a write of the TPR: %u taken, CR8 %lx\n", taken, taken_cr8);
}

/* The same instructions many times: what is remembered of them must not go stale. */
static void loop(void)
{
    taken = 0;
    unsigned early = 0;
    for (unsigned i = 0; i < 2000; i++) {
        bool ask = i % 7 == 0;
        unsigned before = taken;
        set_cr8(10);
        if (ask)
            send();
        early += taken != before;
        set_cr8(0);
        if (taken != before + ask)
            rt_printf("turn %u: %u taken\n", i, taken - before);
    }
    rt_printf("2000 turns: %u taken, %u early\n", taken, early);
}

int main(void)
{
    rt_hook = on_irq;
    APIC(SVR) = 0x1ff;
    one_register();
    set_cr8(0);
    __asm__ volatile("sti" : : : "memory");
    what_it_holds_back();
    loop();
    __asm__ volatile("cli" : : : "memory");
    return 0;
}
