/* tests/guest/sysregs_gp.c - values that control registers and MSRs refuse. QEMU takes most of them and falls over. */
#include "rt.h"

static void cr(const char *name, unsigned n, word v)
{
    switch (n) {
    case 0: TRY(name, __asm__ volatile(AT "movl %0, %%cr0" : : "r"(v) : "memory")); break;
    case 4: TRY(name, __asm__ volatile(AT "movl %0, %%cr4" : : "r"(v) : "memory")); break;
    }
}

static void msr(const char *name, uint32_t n, uint64_t v)
{
    TRY(name, __asm__ volatile(AT "wrmsr" : : "c"(n), "a"((uint32_t)v), "d"((uint32_t)(v >> 32)) : "memory"));
}

int main(void)
{
    cr("PG without PE", 0, 0x80000010);
    cr("NW without CD", 0, 0x20000011);
    cr("reserved bits of cr0 are ignored", 0, 0x00000011 | 0x1000);
    rt_printf("  cr0 %lx\n", read_cr0());
    cr("bit 31 of cr4", 4, 0x80000000);
    cr("LA57 or bit 15 of cr4", 4, 0x8000);
    cr("PCIDE outside long mode", 4, 0x20000);
    rt_printf("cr4 %lx\n", read_cr4());
    msr("efer bit 1", 0xc0000080, 2);
    msr("efer bit 9", 0xc0000080, 0x200);
    msr("pat type 2", 0x277, 0x0007040600070402);
    msr("pat type 8", 0x277, 0x0807040600070406);
    TRY("rdmsr of nothing", __asm__ volatile(AT "rdmsr" : : "c"(0x12345) : "eax", "edx"));
    msr("wrmsr of nothing", 0x12345, 0);
    TRY("xsetbv without OSXSAVE", __asm__ volatile(AT "xsetbv" : : "c"(0), "a"(1), "d"(0)));
    write_cr4(read_cr4() | 0x40200);
    TRY("xsetbv", __asm__ volatile(AT "xsetbv" : : "c"(0), "a"(3), "d"(0)));
    TRY("xcr0 without x87", __asm__ volatile(AT "xsetbv" : : "c"(0), "a"(2), "d"(0)));
    TRY("xcr0: AVX without SSE", __asm__ volatile(AT "xsetbv" : : "c"(0), "a"(5), "d"(0)));
    TRY("xcr0 bit 63", __asm__ volatile(AT "xsetbv" : : "c"(0), "a"(3), "d"(0x80000000)));
    TRY("xcr1", __asm__ volatile(AT "xsetbv" : : "c"(1), "a"(3), "d"(0)));
    TRY("xgetbv", uint32_t a = 0; __asm__ volatile(AT "xgetbv" : "=a"(a) : "c"(0) : "edx"); rt_printf("%x ", a));
    return 0;
}
