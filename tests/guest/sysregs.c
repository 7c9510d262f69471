/* tests/guest/sysregs.c - control registers, CPUID basics, MSRs, descriptor-table registers at ring 0. */
#include "rt.h"

static void cpuid(uint32_t leaf, uint32_t sub, uint32_t r[4])
{
    __asm__ volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "a"(leaf), "c"(sub));
}

static void cpuids(void)
{
    uint32_t a[4], b[4];
    cpuid(0, 0, a);
    rt_printf("leaves: at least 7 %d\n", a[0] >= 7);
    cpuid(1, 0, a);
    static const struct {
        const char *name;
        uint8_t reg, bit;
    } one[] = {{"fpu", 3, 0},        {"pse", 3, 3},  {"tsc", 3, 4},   {"msr", 3, 5},   {"pae", 3, 6},
               {"cx8", 3, 8},        {"apic", 3, 9}, {"sep", 3, 11},  {"pge", 3, 13},  {"cmov", 3, 15},
               {"pat", 3, 16},       {"mmx", 3, 23}, {"fxsr", 3, 24}, {"sse", 3, 25},  {"sse2", 3, 26},
               {"sse3", 2, 0},       {"vmx", 2, 5},  {"ssse3", 2, 9}, {"cx16", 2, 13}, {"popcnt", 2, 23},
               {"hypervisor", 2, 31}};
    rt_printf("leaf 1:");
    for (unsigned i = 0; i < sizeof one / sizeof one[0]; i++)
        if (a[one[i].reg] >> one[i].bit & 1)
            rt_printf(" %s", one[i].name);
    rt_printf("\n");
    rt_printf("osxsave follows cr4: %d", a[2] >> 27 & 1);
    if (a[2] >> 26 & 1) {
        write_cr4(read_cr4() | 0x40200);
        cpuid(1, 0, a);
        rt_printf(" %d\n", a[2] >> 27 & 1);
    }
    cpuid(0x80000000, 0, a);
    rt_printf("extended leaves: at least 80000008 %d\n", a[0] >= 0x80000008);
    cpuid(0x80000001, 0, a);
    rt_printf("nx %d long mode %d 1 GiB pages %d lahf64 %d\n", a[3] >> 20 & 1, a[3] >> 29 & 1, a[3] >> 26 & 1,
              a[2] & 1);
    cpuid(0x80000008, 0, a);
    rt_printf("physical address bits %u\n", a[0] & 0xff);
    cpuid(0, 0, a);
    cpuid(a[0] + 1, 0, b);
    cpuid(0xd, 0, a);
    rt_printf("xsave: x87 and sse %d\n", (a[0] & 3) == 3);
}

static void msrs(void)
{
    rt_printf("efer %llx\n", (unsigned long long)rdmsr(0xc0000080) & ~0x800ull);
    wrmsr(0xc0000080, 0x100);
    rt_printf("efer %llx: LME without LMA\n", (unsigned long long)rdmsr(0xc0000080));
    wrmsr(0xc0000080, 0);
    wrmsr(0x174, 0x5678);
    wrmsr(0x175, 0x9abcdef0);
    rt_printf("sysenter %llx %llx\n", (unsigned long long)rdmsr(0x174), (unsigned long long)rdmsr(0x175));
    wrmsr(0xc0000081, 0x1122334455667788);
    rt_printf("star %llx\n", (unsigned long long)rdmsr(0xc0000081));
    rt_printf("pat %llx\n", (unsigned long long)rdmsr(0x277));
    uint64_t a = rdmsr(0x10), b;
    __asm__ volatile("rdtsc" : "=A"(b));
    rt_printf("the TSC runs: %d\n", b > a);
    rt_printf("apic base: enabled %d, bsp %d\n", (int)(rdmsr(0x1b) >> 11 & 1), (int)(rdmsr(0x1b) >> 8 & 1));
}

static void control(void)
{
    rt_printf("cr0 %lx cr4 %lx\n", read_cr0() & ~0x26ul, read_cr4() & ~0x40200ul);
    TRY("CD and NW", __asm__ volatile(AT "movl %0, %%cr0\n movl %1, %%cr0" : : "r"(0x60000011), "r"(0x11)));
    TRY("ET cannot be cleared", write_cr0(read_cr0() & ~0x10ul));
    rt_printf("  %lx\n", read_cr0() & 0x10);
    uint32_t x = 0xffffffff;
    __asm__ volatile("smsw %0" : "+r"(x));
    rt_printf("smsw r32 is all of cr0: %d\n", x == read_cr0());
    x = 0xffffffff;
    __asm__ volatile("smsw %w0" : "+r"(x));
    rt_printf("smsw r16 %x\n", x & ~0x26u);
    x = 0xffffffff;
    __asm__ volatile("smsw %0" : "+m"(x));
    rt_printf("smsw m16 %x\n", x & ~0x26u);
    __asm__ volatile("lmsw %w0" : : "r"(0xe));
    rt_printf("lmsw of 0xe %lx: PE stays\n", read_cr0() & 0xf);
    __asm__ volatile("lmsw %w0" : : "r"(0xfff1));
    rt_printf("lmsw of 0xfff1 %lx: four bits only\n", read_cr0() & 0xffc1);
    write_cr2(0x12345678);
    rt_printf("cr2 %lx\n", read_cr2());
    write_cr3(0xabcdefff);
    rt_printf("cr3 %lx\n", read_cr3());
    TRY("mod of mov cr is ignored", __asm__ volatile(".byte 0x0f, 0x20, 0x00" : : : "eax"));
    TRY("clts", write_cr0(read_cr0() | 8); __asm__ volatile("clts"));
    rt_printf("  %lx\n", read_cr0() & 8);
    TRY("wbinvd, invd, invlpg", __asm__ volatile("wbinvd\n invlpg 0"));
}

static void tables(void)
{
    struct {
        uint16_t limit;
        uint32_t base;
    } __attribute__((packed)) d, old;
    __asm__ volatile("sidt %0" : "=m"(old));
    static const struct {
        uint16_t limit;
        uint32_t base;
    } __attribute__((packed)) n = {0x1234, 0x89abcdef};
    __asm__ volatile("lidt %1\n sidt %0\n lidt %2" : "=m"(d) : "m"(n), "m"(old));
    rt_printf("lidt, sidt %x %x\n", d.limit, d.base);
    __asm__ volatile(".byte 0x66\n lidt %1\n sidt %0\n lidt %2" : "=m"(d) : "m"(n), "m"(old));
    rt_printf("16-bit lidt takes 24 bits: %x %x\n", d.limit, d.base);
    uint32_t flags = 0;
    __asm__ volatile("pushfl\n popl %0\n xorl $0x200000, %0\n pushl %0\n popfl\n pushfl\n popl %0\n pushl $2\n popfl"
                     : "=r"(flags));
    rt_printf("ID can be set %x\n", flags & 0x200000);
    __asm__ volatile("pushl $0xffffffff & ~0x24300\n popfl\n pushfl\n popl %0\n pushl $2\n popfl\n cld" : "=r"(flags));
    rt_printf("popf of ones %x\n", flags & ~0x200u);
}

int main(void)
{
    cpuids();
    msrs();
    control();
    tables();
    return 0;
}
