/* tests/guest/paging_2level.c - 32-bit paging: permissions, A and D bits, 4 MiB pages, WP, global pages, TLB and INVLPG. */
#include "rt.h"

/* Tables and pages at fixed places, so that CR2 and entries print the same everywhere. */
#define PD ((volatile uint32_t *)0x400000)
#define PT ((volatile uint32_t *)0x401000) /* maps 0x800000-0xbfffff */
#define PAGE(n) (0x500000u + (n)*0x1000u)  /* physical pages of the tests */
#define LIN(n) (0x800000u + (n)*0x1000u)
enum { P = 1, W = 2, U = 4, A = 0x20, D = 0x40, PS = 0x80, G = 0x100 };

static void build(void)
{
    memset((void *)PD, 0, 4096);
    memset((void *)PT, 0, 4096);
    PD[0] = P | W | U | PS;        /* the guest itself, one to one */
    PD[1] = 0x400000 | P | W | PS; /* tables, pages */
    PD[2] = (uint32_t)PT | P | W | U;
    for (unsigned i = 0; i < 64; i++)
        *(volatile uint32_t *)PAGE(i) = 0x1000 + i;
}

static void flush(void) { write_cr3((word)PD); }

static uint32_t peek(uint32_t a) { return *(volatile uint32_t *)a; }

#define TRY_READ(name, lin) TRY_ASM(name, "cmpl $0, (%%ecx)", "c"(lin))
#define TRY_WRITE(name, lin) TRY_ASM(name, "movl $7, (%%ecx)", "c"(lin))

static uint32_t user_lin;
static void user_read(void) { __asm__ volatile(AT "movl (%%ecx), %%eax" : : "c"(user_lin) : "eax"); }
static void user_write(void) { __asm__ volatile(AT "movl %%eax, (%%ecx)" : : "c"(user_lin), "a"(7) : "memory"); }
static void user_exec(void) { __asm__ volatile(AT "jmp *%%ecx" : : "c"(user_lin)); }

/* Whether a faulting access leaves A set in the upper entry is the processor's affair: not printed then. */
static void bits(unsigned n)
{
    if (rt_exc.vec == 14)
        rt_printf("  pte %x\n", PT[n] & 0xfff);
    else
        rt_printf("  pde %x pte %x\n", PD[2] & 0xfff, PT[n] & 0xfff);
    PD[2] &= ~(uint32_t)(A | D);
    rt_exc.vec = 0;
}

static void each(const char *name, unsigned n, uint32_t pde, uint32_t pte)
{
    rt_printf("-- %s\n", name);
    PD[2] = (uint32_t)PT | pde;
    PT[n] = PAGE(n) | pte;
    user_lin = LIN(n);
    *(volatile uint16_t *)PAGE(n) = 0x80cd; /* int 0x80 */
    flush();
    rt_exc.vec = 0;
    TRY_READ("read", LIN(n));
    bits(n);
    TRY_WRITE("write", LIN(n));
    bits(n);
    PT[n] = PAGE(n) | pte;
    *(volatile uint16_t *)PAGE(n) = 0x80cd;
    flush();
    TRY("user read", rt_user(user_read));
    bits(n);
    TRY("user write", rt_user(user_write));
    bits(n);
    *(volatile uint16_t *)PAGE(n) = 0x80cd;
    TRY("user fetch", rt_user(user_exec));
}

static void permissions(void)
{
    for (int wp = 0; wp < 2; wp++) {
        rt_printf("== WP=%d\n", wp);
        write_cr0(wp ? read_cr0() | 0x10000 : read_cr0() & ~0x10000ul);
        each("user, writable", 0, P | W | U, P | W | U);
        each("user, read-only", 1, P | W | U, P | U);
        each("user, read-only directory", 2, P | U, P | W | U);
        each("supervisor, writable", 3, P | W | U, P | W);
        each("supervisor, read-only", 4, P | W | U, P);
        each("supervisor directory", 5, P | W, P | W | U);
        each("absent", 6, P | W | U, W | U);
        each("absent table", 7, W | U, P | W | U);
    }
    PD[2] = (uint32_t)PT | P | W | U;
}

static void crossing(void)
{
    PT[10] = PAGE(10) | P | W;
    PT[11] = 0;
    flush();
    TRY_ASM("read across into an absent page", "cmpl $0, (%%ecx)", "c"(LIN(11) - 2));
    TRY_ASM("write across into an absent page", "movl %%eax, (%%ecx)", "c"(LIN(11) - 2), "a"(-1));
    rt_printf("nothing was written: %d\n", *(volatile uint16_t *)(PAGE(11) - 2) == 0);
    TRY_ASM("write of 8 bytes by movs", "rep movsl", "c"(4), "S"(PAGE(20)), "D"(LIN(11) - 8));
    PT[11] = PAGE(30) | P;
    flush();
    TRY_ASM("write across into a read-only page", "addl %%eax, (%%ecx)", "c"(LIN(11) - 1), "a"(-1));
    TRY(
        "push into a read-only page",
        void f(void) { __asm__ volatile(AT "pushl $1"); } rt_user_at(SEL_UCODE, (word)f, SEL_UDATA, LIN(12), 2));
    PT[11] = PAGE(30) | P | U;
    flush();
    TRY(
        "push into a read-only user page",
        void f(void) { __asm__ volatile(AT "pushl $1"); } rt_user_at(SEL_UCODE, (word)f, SEL_UDATA, LIN(12), 2));
    TRY(
        "popa over the end of a page",
        void f(void) { __asm__ volatile(AT "popa"); } rt_user_at(SEL_UCODE, (word)f, SEL_UDATA, LIN(12) - 16, 2));
    PT[11] = PAGE(30) | P | W;
    PT[10] = 0;
    flush();
    TRY_ASM("read across from an absent page", "cmpl $0, (%%ecx)", "c"(LIN(11) - 2));
    PT[10] = PAGE(10) | P | W;
    flush();
    TRY_ASM("write across two pages", "movl %%eax, (%%ecx)", "c"(LIN(11) - 1), "a"(0x44332211));
    rt_printf("%02x %02x%02x%02x\n", *(uint8_t *)(PAGE(11) - 1), *(uint8_t *)(PAGE(30) + 2), *(uint8_t *)(PAGE(30) + 1),
              *(uint8_t *)PAGE(30));
}

static void big_pages(void)
{
    write_cr4(read_cr4() | 0x10);
    PD[8] = 0x800000 | P | W | U | PS;
    PD[9] = 0x800000 | P | PS;
    flush();
    *(volatile uint32_t *)0x2000010 = 0x1234;
    rt_printf("4 MiB page: %x, entry %x\n", peek(0x2400010), PD[8]);
    TRY_ASM("write of a read-only 4 MiB page", "movl %%eax, (%%ecx)", "c"(0x2400020), "a"(0));
    PD[9] = 0xa00000 | P | W | PS;
    flush();
    TRY_ASM("4 MiB page with reserved bit 21", "cmpl $0, (%%ecx)", "c"(0x2400020));
    TRY_ASM("write of one", "movl %%eax, (%%ecx)", "c"(0x2400020), "a"(0));
    rt_printf("entry %x\n", PD[9]);
    PD[9] = 0;
    flush();
}

static void tlb(void)
{
    PT[12] = PAGE(12) | P | W;
    flush();
    (void)peek(LIN(12));
    *(volatile uint32_t *)PAGE(12) = 0xaaaa;
    *(volatile uint32_t *)PAGE(13) = 0xbbbb;
    PT[12] = PAGE(13) | P | W;
    __asm__ volatile("invlpg (%0)" : : "r"(LIN(12)) : "memory");
    rt_printf("after invlpg: %x\n", peek(LIN(12)));
    PT[12] = PAGE(12) | P | W;
    flush();
    rt_printf("after mov cr3: %x\n", peek(LIN(12)));
    PT[12] = 0;
    __asm__ volatile("invlpg (%0)" : : "r"(LIN(12)) : "memory");
    TRY_READ("after it was taken away", LIN(12));
    write_cr4(read_cr4() | 0x80);
    PT[14] = PAGE(12) | P | W | G;
    flush();
    (void)peek(LIN(14));
    PT[14] = PAGE(13) | P | W | G;
    write_cr4(read_cr4() & ~0x80ul);
    rt_printf("global page after PGE went off: %x\n", peek(LIN(14)));
    write_cr4(read_cr4() | 0x80);
    PT[14] = PAGE(12) | P | W | G;
    __asm__ volatile("invlpg (%0)" : : "r"(LIN(14)) : "memory");
    rt_printf("global page after invlpg: %x\n", peek(LIN(14)));
    write_cr4(read_cr4() & ~0x80ul);
    /* Permissions only grow: no flush is needed after a fault (SDM 3A 4.10.4.3). */
    PT[15] = 0;
    flush();
    TRY_READ("absent", LIN(15));
    PT[15] = PAGE(15) | P;
    rt_printf("present now: %x\n", peek(LIN(15)));
    write_cr0(read_cr0() | 0x10000);
    TRY_WRITE("read-only", LIN(15));
    PT[15] = PAGE(15) | P | W;
    TRY_WRITE("writable now", LIN(15));
    write_cr0(read_cr0() & ~0x10000ul);
}

/* The directory as its own table: entries are data and are walked. */
static void self_map(void)
{
    PD[1023] = (uint32_t)PD | P | W;
    flush();
    volatile uint32_t *pte = (volatile uint32_t *)(0xffc00000 + (LIN(20) >> 12) * 4);
    *pte = PAGE(20) | P | W;
    *(volatile uint32_t *)LIN(20) = 0x5555;
    rt_printf("through the self map: pte %x, page %x, pd[1023] %x\n", *pte, peek(PAGE(20)),
              *(volatile uint32_t *)0xfffffffc);
    PD[1023] = 0;
    flush();
}

/* Descriptor tables that continue in an absent page: the implicit accesses fault as supervisor reads. */
static void tables_in_absent_pages(void)
{
    PT[15] = PAGE(15) | P | W;
    PT[16] = 0;
    flush();
    memcpy((void *)(LIN(16) - 0x100), rt_idt, 0x100);
    TRY(
        "IDT entry in an absent page",
        struct {
            uint16_t limit;
            uint32_t base;
        } __attribute__((packed)) d = {0x7ff, LIN(16) - 0x100};
        __asm__ volatile("lidt %0\n" AT "int $0x30"
                         :
                         : "m"(d)
                         : "memory"));
    rt_load_idt(0x7ff);
    TRY(
        "GDT entry in an absent page",
        struct {
            uint16_t limit;
            uint32_t base;
        } __attribute__((packed)) d = {0x1ff, LIN(16) - 0x100},
        o;
        __asm__ volatile("sgdt %0"
                         : "=m"(o));
        memcpy((void *)(LIN(16) - 0x100), rt_gdt, 0x100); __asm__ volatile("lgdt %0\n" AT "movl %2, %%es\n lgdt %1"
                                                                           :
                                                                           : "m"(d), "m"(o), "r"(0x108)
                                                                           : "memory"));
    struct {
        uint16_t limit;
        uint32_t base;
    } __attribute__((packed)) o = {0x1ff, (uint32_t)rt_gdt};
    __asm__ volatile("lgdt %0" : : "m"(o));
}

int main(void)
{
    build();
    write_cr4(read_cr4() | 0x10);
    flush();
    write_cr0(read_cr0() | 0x80000000);
    rt_printf("paging is on\n");
    permissions();
    crossing();
    big_pages();
    tlb();
    self_map();
    tables_in_absent_pages();
    write_cr0(read_cr0() & 0x7ffeffff);
    rt_printf("after paging: %x\n", peek(PAGE(13)));
    return 0;
}
