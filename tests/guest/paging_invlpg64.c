/* tests/guest/paging_invlpg64.c - INVLPG of any address in a large page makes all of it new (SDM 3A 4.10.4.1): data and code, reached
 * by indirect calls and by direct ones from another page. */
#include "rt.h"

extern volatile uint64_t rt_pml4[512];
#define PDPT ((volatile uint64_t *)0x400000)
#define PD ((volatile uint64_t *)0x401000)
#define PT ((volatile uint64_t *)0x402000)
#define PD2 ((volatile uint64_t *)0x403000)
#define LIN 0xffff800000000000ul
#define FRAME1 0x800000ul
#define FRAME2 0xa00000ul
#define NEAR 0x200000ul   /* 4 KiB page with a call into the large page */
#define GIGA 0x40000000ul /* a 1 GiB page */
#define CODE 0x1100ul
enum { P = 1, W = 2, A = 0x20, D = 0x40, PS = 0x80 };
#define ALL (P | W | A | D)

static void invlpg(uint64_t lin) { __asm__ volatile("invlpg (%0)" : : "r"(lin) : "memory"); }
static int call(uint64_t lin)
{
    int n;
    __asm__ volatile("call *%1" : "=a"(n) : "r"(lin) : "memory", "cc");
    return n;
}
/* mov eax, n; ret */
static void put_code(uint64_t at, int n)
{
    *(volatile uint8_t *)at = 0xb8;
    *(volatile int *)(at + 1) = n;
    *(volatile uint8_t *)(at + 5) = 0xc3;
    *(volatile int *)(at + 0x1000) = n;
}
static int data(uint64_t lin) { return *(volatile int *)(lin + 0x1000); }

/* Often enough for whatever is remembered of jumps. */
static void show(const char *name, uint64_t lin)
{
    int n = 0;
    for (int i = 0; i < 5; i++)
        n = n * 10 + call(lin);
    rt_printf("%s: %d\n", name, n);
}

int main(void)
{
    put_code(FRAME1 + CODE, 1);
    put_code(FRAME2 + CODE, 2);
    rt_pml4[256] = (uint64_t)PDPT | ALL;
    PDPT[0] = (uint64_t)PD | ALL;
    PDPT[1] = ALL | PS;
    PD[0] = FRAME1 | ALL | PS;
    PD[1] = (uint64_t)PT | ALL;
    PT[0] = 0xc00000 | ALL;
    write_cr3(read_cr3());
    *(volatile uint8_t *)0xc00000 = 0xe9; /* jmp to CODE of the large page */
    *(volatile int *)0xc00001 = (int)(CODE - (NEAR + 5));
    show("before, indirect", LIN + CODE);
    show("before, direct", LIN + NEAR);
    rt_printf("data: %d\n", data(LIN + CODE));
    PD[0] = FRAME2 | ALL | PS;
    invlpg(LIN);
    show("2 MiB page, indirect", LIN + CODE);
    show("2 MiB page, direct", LIN + NEAR);
    rt_printf("data: %d\n", data(LIN + CODE));
    PD[0] = FRAME1 | ALL | PS;
    invlpg(LIN + 0x1ff000);
    show("and back by its end, direct", LIN + NEAR);
    show("and back by its end, indirect", LIN + CODE);
    rt_printf("data: %d\n", data(LIN + CODE));
    show("1 GiB page", LIN + GIGA + FRAME1 + CODE);
    rt_printf("data: %d\n", data(LIN + GIGA + FRAME1 + CODE));
    PD2[FRAME1 >> 21] = FRAME2 | ALL | PS;
    PDPT[1] = (uint64_t)PD2 | ALL;
    invlpg(LIN + GIGA);
    show("1 GiB page split", LIN + GIGA + FRAME1 + CODE);
    rt_printf("data: %d\n", data(LIN + GIGA + FRAME1 + CODE));
    return 0;
}
