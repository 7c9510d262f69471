/* tests/guest/paging_pae.c - PAE paging in 32-bit mode: PDPTE registers, NX, 2 MiB pages, reserved bits, addresses above 4 GiB. */
#include "rt.h"

#define PDPT ((volatile uint64_t *)0x400000)
#define PD0 ((volatile uint64_t *)0x401000)
#define PD1 ((volatile uint64_t *)0x402000)
#define PT ((volatile uint64_t *)0x403000) /* maps 0x40000000-0x401fffff */
#define PAGE(n) (0x500000u + (n)*0x1000u)
#define LIN(n) (0x40000000u + (n)*0x1000u)
enum { P = 1, W = 2, U = 4, A = 0x20, D = 0x40, PS = 0x80, G = 0x100 };
#define NX (1ull << 63)

#define TRY_READ(name, lin) TRY_ASM(name, "cmpl $0, (%%ecx)", "c"(lin))
#define TRY_WRITE(name, lin) TRY_ASM(name, "movl $7, (%%ecx)", "c"(lin))
#define TRY_CALL(name, lin) TRY_ASM(name, "call *%%ecx", "c"(lin))

static void flush(void) { write_cr3((word)PDPT); }

static void build(void)
{
    memset((void *)PDPT, 0, 0x4000);
    PDPT[0] = (uint32_t)PD0 | P;
    PDPT[1] = (uint32_t)PD1 | P;
    for (unsigned i = 0; i < 8; i++)
        PD0[i] = i * 0x200000 | P | W | U | PS;
    PD1[0] = (uint32_t)PT | P | W | U;
    for (unsigned i = 0; i < 16; i++)
        *(volatile uint8_t *)PAGE(i) = 0xc3; /* ret */
}

static uint32_t user_lin;
static void user_exec(void) { __asm__ volatile(AT "jmp *%%ecx" : : "c"(user_lin)); }

static void entry(const char *name, uint64_t pde, uint64_t pte)
{
    PD1[0] = pde;
    PT[0] = pte;
    flush();
    rt_printf("-- %s\n", name);
    TRY_READ("read", LIN(0));
    TRY_WRITE("write", LIN(0) + 8);
    TRY_CALL("fetch", LIN(0));
    user_lin = LIN(0);
    TRY("user fetch", rt_user(user_exec));
    rt_printf("  pte %llx\n", (unsigned long long)PT[0]);
}

static void entries(void)
{
    const uint64_t pt = (uint32_t)PT;
    *(volatile uint16_t *)PAGE(0) = 0x80cd; /* int 0x80 */
    entry("plain", pt | P | W | U, PAGE(0) | P | W | U);
    entry("NX", pt | P | W | U, PAGE(0) | P | W | U | NX);
    entry("NX in the directory", pt | P | W | U | NX, PAGE(0) | P | W | U);
    entry("supervisor", pt | P | W | U, PAGE(0) | P | W);
    entry("reserved bit 62 in the table", pt | P | W | U, PAGE(0) | P | W | U | 1ull << 62);
    entry("reserved bit 52 in the directory", pt | P | W | U | 1ull << 52, PAGE(0) | P | W | U);
    entry("reserved address bit 51", pt | P | W | U, PAGE(0) | P | W | U | 1ull << 51);
    entry("absent, other bits set", pt | P | W | U, ~1ull);
    PT[0] = 0;
    *(volatile uint16_t *)0x600000 = 0x80cd;
    entry("2 MiB page", 0x600000 | P | W | U | PS, 0);
    *(volatile uint16_t *)0x600000 = 0x80cd;
    entry("2 MiB page with NX", 0x600000 | P | W | U | PS | NX, 0);
    entry("2 MiB page with bit 13", 0x600000 | 0x2000 | P | W | U | PS, 0);
    entry("2 MiB page with bit 20", 0x700000 | P | W | U | PS, 0);
    entry("2 MiB page with PAT", 0x600000 | 0x1000 | P | W | U | PS, 0);
    rt_printf("pde %llx\n", (unsigned long long)(PD1[0]));
}

static void pdptes(void)
{
    PD1[0] = (uint32_t)PT | P | W | U;
    PT[1] = PAGE(1) | P | W;
    flush();
    TRY_READ("through PDPTE 1", LIN(1));
    /* The PDPTEs are registers: changes count at the next MOV CR3 (SDM 3A 4.4.1). */
    PDPT[1] = 0;
    __asm__ volatile("invlpg (%0)" : : "r"(LIN(1)) : "memory");
    TRY_READ("PDPTE changed in memory only", LIN(1));
    flush();
    TRY_READ("after mov cr3", LIN(1));
    for (unsigned i = 0; i < 3; i++) {
        static const uint64_t bad[3] = {W, U, 1ull << 52};
        PDPT[1] = (uint32_t)PD1 | P | bad[i];
        TRY("mov cr3 with a bad PDPTE", __asm__ volatile(AT "movl %0, %%cr3" : : "r"(PDPT) : "memory"));
    }
    PDPT[1] = ~(uint64_t)P;
    TRY("mov cr3 with an absent one full of bits", __asm__ volatile(AT "movl %0, %%cr3" : : "r"(PDPT) : "memory"));
    PDPT[1] = (uint32_t)PD1 | P;
    memcpy((void *)0x400fe0, (void *)PDPT, 32);
    TRY("PDPT at any 32 bytes", __asm__ volatile(AT "movl %0, %%cr3" : : "r"(0x400fe0) : "memory"));
    TRY_READ("and it works", LIN(1));
    flush();
    TRY_READ("beyond the directories in use", 0x80000000);
    TRY_WRITE("absent page of PDPTE 1", LIN(0x200));
    write_cr4(read_cr4() | 0x80);
    TRY_READ("PGE on and off", LIN(1));
    write_cr4(read_cr4() & ~0x80ul);
}

static void toggles(void)
{
    PT[2] = PAGE(2) | P | W | NX;
    flush();
    TRY_READ("NX page with NXE", LIN(2));
    wrmsr(0xc0000080, 0);
    flush();
    TRY_READ("NX page without NXE: reserved", LIN(2));
    TRY_CALL("fetch without NXE has no I bit", LIN(2));
    wrmsr(0xc0000080, 0x800);
}

int main(void)
{
    build();
    write_cr4(read_cr4() | 0x20);
    wrmsr(0xc0000080, 0x800);
    flush();
    write_cr0(read_cr0() | 0x80010000);
    entries();
    pdptes();
    toggles();
    write_cr0(read_cr0() & 0x7ffeffff);
    write_cr4(read_cr4() & ~0x20ul);
    rt_printf("paging is off\n");
    return 0;
}
