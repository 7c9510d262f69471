/* tests/guest/string_faults.c - string instructions: directions, sizes, counts, faults in the middle with exact registers. */
#include "rt.h"

#define PD ((volatile uint32_t *)0x400000)
#define PT ((volatile uint32_t *)0x401000)
#define LIN(n) (0x800000u + (n)*0x1000u)
#define PAGE(n) (0x500000u + (n)*0x1000u)
enum { P = 1, W = 2, U = 4, PS = 0x80 };

static void paging_on(void)
{
    memset((void *)PD, 0, 8192);
    for (unsigned i = 0; i < 16; i++)
        PD[i] = i << 22 | P | W | PS;
    PD[2] = (uint32_t)PT | P | W;
    for (unsigned i = 0; i < 8; i++)
        PT[i] = PAGE(i) | P | W;
    PT[4] = 0;           /* absent */
    PT[6] = PAGE(6) | P; /* read-only */
    write_cr4(read_cr4() | 0x10);
    write_cr3((word)PD);
    write_cr0(read_cr0() | 0x80010000);
}

static uint32_t a, c, s, d, f;

/* Runs insn with given registers; prints them afterwards, from the frame if it faulted. */
#define STR(name, insn, a_, c_, s_, d_)                                                                                \
    do {                                                                                                               \
        a = (a_), c = (c_), s = (s_), d = (d_);                                                                        \
        if (rt_setjmp() == 0) {                                                                                        \
            __asm__ volatile(AT insn "\n pushfl\n cld\n popl %4"                                                       \
                             : "+a"(a), "+c"(c), "+S"(s), "+D"(d), "=m"(f)                                             \
                             :                                                                                         \
                             : "memory", "cc");                                                                        \
            rt_disarm();                                                                                               \
            rt_printf("%s: ok a %x c %x s %x d %x zf %u\n", name, a, c, s, d, f >> 6 & 1);                             \
        } else {                                                                                                       \
            rt_report(name);                                                                                           \
            rt_printf("  a %lx c %lx s %lx d %lx\n", rt_exc.ax, rt_exc.cx, rt_exc.si, rt_exc.di);                      \
        }                                                                                                              \
    } while (0)

static void plain(void)
{
    memcpy((void *)PAGE(0), "0123456789abcdef0123456789abcdef", 33);
    STR("movsb", "movsb", 0, 5, LIN(0), LIN(1));
    STR("rep movsd", "rep movsl", 0, 4, LIN(0), LIN(1));
    STR("rep movsw backwards", "std\n rep movsw", 0, 3, LIN(0) + 6, LIN(1) + 6);
    STR("rep movsb of nothing", "rep movsb", 0, 0, 1, 2);
    STR("overlapping forwards", "rep movsb", 0, 8, LIN(0), LIN(0) + 1);
    rt_printf("%s\n", (char *)PAGE(0));
    memcpy((void *)PAGE(0), "0123456789abcdef0123456789abcdef", 33);
    STR("stosd", "rep stosl", 0x41424344, 2, 0, LIN(1));
    STR("lodsw", "lodsw", 0xffffffff, 0, LIN(0), 0);
    STR("lodsb backwards", "std\n lodsb", 0, 0, LIN(0), 0);
    STR("rep lodsb", "rep lodsb", 0, 3, LIN(0), 0);
    STR("repne scasb finds", "repne scasb", 'a', 100, 0, LIN(0));
    STR("repne scasb misses", "repne scasb", 'z', 16, 0, LIN(0));
    STR("repe scasb", "repe scasb", '0', 16, 0, LIN(0));
    STR("repe cmpsb equal", "repe cmpsb", 0, 16, LIN(0), LIN(0) + 16);
    STR("repe cmpsb differs", "repe cmpsb", 0, 16, LIN(0), LIN(0) + 1);
    STR("repe cmpsd of nothing", "cmpl $0, %%esi\n repe cmpsl", 0, 0, LIN(0), LIN(0));
    STR("16-bit addresses", "addr16 rep stosb", 'x', 0x70003, 0, 0x1234fffe);
}

static void faults(void)
{
    STR("rep movsb into an absent page", "rep movsb", 0, 32, LIN(0), LIN(4) - 8);
    STR("rep movsd across into it", "rep movsl", 0, 8, LIN(0), LIN(4) - 6);
    STR("rep movsb from an absent page", "rep movsb", 0, 32, LIN(4) - 3, LIN(0));
    STR("rep movsb backwards", "std\n rep movsb", 0, 32, LIN(0) + 31, LIN(5) + 2);
    STR("rep stosd into a read-only page", "rep stosl", 0, 5000, 0, LIN(6) - 16);
    STR("rep stosb of pages", "rep stosb", 'p', 0x3000, 0, LIN(1));
    STR("rep stosb of pages until absent", "rep stosb", 'q', 0x10000, 0, LIN(1));
    STR("repne scasb runs into it", "repne scasb", 'z', 0x5000, 0, LIN(2));
    STR("repe cmpsb, source absent", "repe cmpsb", 0, 8, LIN(4), LIN(0));
    STR("repe cmpsb, destination absent", "repe cmpsb", 0, 8, LIN(0), LIN(4));
    STR("rep lodsd runs into it", "rep lodsl", 0, 8, LIN(4) - 8, 0);
    rt_printf("last bytes before the absent page: %02x\n", *(uint8_t *)(PAGE(3) + 0xfff));
}

static bool repair(struct rt_frame *fr)
{
    if (fr->vec != 14)
        return false;
    rt_printf("  repaired at c %lx s %lx d %lx cr2 %lx\n", fr->cx, fr->si, fr->di, read_cr2());
    PT[(read_cr2() - LIN(0)) >> 12] = ((uint32_t)read_cr2() - LIN(0) + PAGE(0)) & ~0xfffu;
    PT[(read_cr2() - LIN(0)) >> 12] |= P | W;
    __asm__ volatile("invlpg (%0)" : : "r"(read_cr2()) : "memory");
    return true;
}

static void resumed(void)
{
    rt_hook = repair;
    STR("rep stosb over all pages", "rep stosb", 'r', 0x7000, 0, LIN(1));
    PT[4] = PT[5] = 0;
    write_cr3((word)PD);
    STR("rep movsd, both sides", "rep movsl", 0, 0x600, LIN(3) + 0x800, LIN(4) + 0x802);
    rt_hook = NULL;
    bool whole = true;
    for (unsigned i = 0x1000; i < 0x8000; i++)
        whole = whole && (*(uint8_t *)(PAGE(0) + i) == 'r');
    rt_printf("whole: %d\n", whole);
}

int main(void)
{
    paging_on();
    plain();
    faults();
    resumed();
    return 0;
}
