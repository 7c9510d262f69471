/* tests/guest/seg_loads.c - loading segment registers, LDTR and TR at ring 0: each check, its error code, the accessed bit. */
#include "rt.h"

enum {
    F_RO = SEL_FREE,     /* read-only data */
    F_XO = F_RO + 8,     /* execute-only code */
    F_XR = F_XO + 8,     /* readable code */
    F_XC = F_XR + 8,     /* conforming execute-only code */
    F_XRC = F_XC + 8,    /* conforming readable code */
    F_NP = F_XRC + 8,    /* data, not present */
    F_D3 = F_NP + 8,     /* data of ring 3 */
    F_DOWN = F_D3 + 8,   /* expand-down */
    F_LDT = F_DOWN + 8,  /* an LDT of 3 entries */
    F_LDTNP = F_LDT + 8, /* the same, not present */
    F_TSSNP = F_LDTNP + 8,
    F_GATE = F_TSSNP + 8, /* call gate */
    F_BYTE = F_GATE + 8,  /* byte-granular, limit 0xabcde */
    F_PAGE = F_BYTE + 8,  /* page-granular, limit 0x12 */
    F_CNP = F_PAGE + 8,   /* code, not present */
    F_TSS16 = F_CNP + 8,
    F_RES0 = F_TSS16 + 8, /* system type 0 */
};
static uint64_t ldt[3];

static void build(void)
{
    rt_gdt[F_RO / 8] = rt_desc(0, 0xfffff, 0xc090);
    rt_gdt[F_XO / 8] = rt_desc(0, 0xfffff, 0xc098);
    rt_gdt[F_XR / 8] = rt_desc(0, 0xfffff, 0xc09a);
    rt_gdt[F_XC / 8] = rt_desc(0, 0xfffff, 0xc09c);
    rt_gdt[F_XRC / 8] = rt_desc(0, 0xfffff, 0xc09e);
    rt_gdt[F_NP / 8] = rt_desc(0, 0xfffff, 0xc012);
    rt_gdt[F_D3 / 8] = rt_desc(0, 0xfffff, 0xc0f2);
    rt_gdt[F_DOWN / 8] = rt_desc(0, 0xfff, 0x4096);
    rt_gdt[F_LDT / 8] = rt_desc((uint32_t)ldt, sizeof ldt - 1, 0x82);
    rt_gdt[F_LDTNP / 8] = rt_desc((uint32_t)ldt, sizeof ldt - 1, 0x02);
    rt_gdt[F_TSSNP / 8] = rt_desc((uint32_t)&rt_tss, 0x67, 0x09);
    rt_gdt[F_GATE / 8] = 0x0000ec0000080000ull;
    rt_gdt[F_BYTE / 8] = rt_desc(0, 0xabcde, 0x4092);
    rt_gdt[F_PAGE / 8] = rt_desc(0, 0x12, 0xc092);
    rt_gdt[F_CNP / 8] = rt_desc(0, 0xfffff, 0xc01a);
    rt_gdt[F_TSS16 / 8] = rt_desc((uint32_t)&rt_tss, 0x2b, 0x81);
    rt_gdt[F_RES0 / 8] = rt_desc(0, 0xfff, 0x80);
    ldt[0] = rt_desc(0, 0xfffff, 0xc092);
    ldt[1] = rt_desc(0, 0xfffff, 0xc012);
    ldt[2] = rt_desc(0, 0xfffff, 0xc09a);
}

static const struct {
    const char *name;
    uint16_t sel;
} rows[] = {
    {"null", 0},
    {"null with RPL 3", 3},
    {"flat data", SEL_KDATA},
    {"flat data with RPL 1", SEL_KDATA | 1},
    {"flat data with RPL 3", SEL_KDATA | 3},
    {"read-only", F_RO},
    {"execute-only", F_XO},
    {"readable code", F_XR},
    {"readable code with RPL 3", F_XR | 3},
    {"conforming execute-only", F_XC},
    {"conforming readable", F_XRC},
    {"conforming readable with RPL 3", F_XRC | 3},
    {"not present", F_NP},
    {"not present code", F_CNP},
    {"ring 3 data", F_D3},
    {"ring 3 data with RPL 3", F_D3 | 3},
    {"expand-down", F_DOWN},
    {"LDT descriptor", F_LDT},
    {"call gate", F_GATE},
    {"type 0", F_RES0},
    {"beyond the GDT", RT_GDT_SLOTS * 8},
    {"beyond the GDT with RPL 2", RT_GDT_SLOTS * 8 + 0x802},
    {"LDT entry 0", 4},
    {"LDT entry 1, not present", 12},
    {"LDT entry 2, code", 20},
    {"beyond the LDT", 28},
};

static void load_all(const char *seg, unsigned which)
{
    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        rt_printf("%s <- ", seg);
        switch (which) {
        case 0: TRY_ASM(rows[i].name, "movw %%ax, %%ds\n pushl $0x10\n popl %%ds", "a"(rows[i].sel)); break;
        case 1: TRY_ASM(rows[i].name, "movw %%ax, %%es", "a"(rows[i].sel)); break;
        case 2: TRY_ASM(rows[i].name, "movw %%ax, %%fs", "a"(rows[i].sel)); break;
        case 3: TRY_ASM(rows[i].name, "movw %%ax, %%gs", "a"(rows[i].sel)); break;
        case 4:
            TRY_ASM(rows[i].name, "movw %%ax, %%ss\n movl $0x10, %%eax\n movl %%eax, %%ss", "a"(rows[i].sel));
            break;
        }
    }
    __asm__ volatile("movl %0, %%es; movl %0, %%fs; movl %0, %%gs" : : "r"(SEL_KDATA));
}

/* POP and the LxS forms take the same way. */
static void other_forms(void)
{
    static struct {
        uint32_t off;
        uint16_t sel;
    } __attribute__((packed)) far = {0x12345678, F_NP};
    TRY("push/pop fs not present", __asm__ volatile("pushl %0\n" AT "popl %%fs\n" : : "i"(F_NP) : "memory"));
    TRY_ASM("lfs not present", "lfs (%%ecx), %%eax", "c"(&far));
    far.sel = SEL_KDATA;
    TRY("lgs", uint32_t x = 0; __asm__ volatile("lgs (%1), %0" : "=a"(x) : "c"(&far)); rt_printf("%08x ", x));
    TRY("pop ss not present", __asm__ volatile("pushl %0\n" AT "popl %%ss" : : "i"(F_NP) : "memory"));
}

static void accessed_bit(void)
{
    rt_gdt[F_BYTE / 8] = rt_desc(0, 0xabcde, 0x4092);
    __asm__ volatile("movl %0, %%gs" : : "r"(F_BYTE) : "memory");
    rt_printf("accessed after the load: %d\n", (unsigned)(rt_gdt[F_BYTE / 8] >> 40) & 1);
    rt_gdt[F_NP / 8] = rt_desc(0, 0xfffff, 0xc012);
    TRY_ASM("load of an absent one", "movl %%eax, %%gs", "a"(F_NP));
    rt_printf("accessed after the fault: %d\n", (unsigned)(rt_gdt[F_NP / 8] >> 40) & 1);
    /* The hidden part stays when the descriptor changes. */
    rt_gdt[F_BYTE / 8] = rt_desc(0x300000, 0xffff, 0x4092);
    *(volatile uint32_t *)0x300000 = 0x11111111;
    *(volatile uint32_t *)0x310000 = 0x22222222;
    uint32_t a, b;
    __asm__ volatile("movl %2, %%gs\n movw $0, 2(%3)\n movb $0x31, 4(%3)\n movl %%gs:0, %0\n"
                     "movl %2, %%gs\n movl %%gs:0, %1"
                     : "=&r"(a), "=&r"(b)
                     : "r"(F_BYTE), "r"(&rt_gdt[F_BYTE / 8])
                     : "memory");
    rt_printf("stale hidden part: %08x, reloaded: %08x\n", a, b);
}

static void tables(void)
{
    TRY_ASM("lldt null", "lldt %%ax", "a"(0));
    TRY_ASM("ldt entry through a null LDT", "movw %%ax, %%es", "a"(4));
    TRY_ASM("lldt data", "lldt %%ax", "a"(SEL_KDATA));
    TRY_ASM("lldt not present", "lldt %%ax", "a"(F_LDTNP));
    TRY_ASM("lldt in the LDT", "lldt %%ax", "a"(F_LDT | 4));
    TRY_ASM("lldt beyond", "lldt %%ax", "a"(0x1000));
    TRY_ASM("ltr null", "ltr %%ax", "a"(0));
    TRY_ASM("ltr busy", "ltr %%ax", "a"(SEL_TSS));
    TRY_ASM("ltr not present", "ltr %%ax", "a"(F_TSSNP));
    TRY_ASM("ltr data", "ltr %%ax", "a"(SEL_KDATA));
    TRY_ASM("ltr in the LDT", "ltr %%ax", "a"(4));
    uint32_t x = ~0u;
    __asm__ volatile("str %%eax" : "+a"(x));
    rt_printf("str %08x\n", x);
    x = ~0u;
    __asm__ volatile("str %%ax" : "+a"(x));
    rt_printf("str 16-bit %08x\n", x);
    __asm__ volatile("sldt %%eax" : "+a"(x));
    rt_printf("sldt %08x\n", x);
    TRY_ASM("lldt", "lldt %%ax", "a"(F_LDT));
    __asm__ volatile("sldt %%eax" : "+a"(x));
    rt_printf("sldt %08x\n", x);
}

static void inspect(const char *name, unsigned sel)
{
    uint32_t ar = 0xdeadbeef, lim = 0xdeadbeef;
    uint8_t lar, lsl, verr, verw;
    __asm__ volatile("larl %2, %0\n setz %1" : "+r"(ar), "=qm"(lar) : "r"(sel) : "cc");
    __asm__ volatile("lsll %2, %0\n setz %1" : "+r"(lim), "=qm"(lsl) : "r"(sel) : "cc");
    __asm__ volatile("verr %w1\n setz %0" : "=qm"(verr) : "r"(sel) : "cc");
    __asm__ volatile("verw %w1\n setz %0" : "=qm"(verw) : "r"(sel) : "cc");
    /* Bits 19:16 of what LAR returns are undefined (SDM 2A LAR). */
    rt_printf("%s: lar %d %08x lsl %d %08x verr %d verw %d\n", name, lar, lar ? ar & 0xf0ff00 : ar, lsl, lim, verr,
              verw);
}

static void arpl(void)
{
    static const uint16_t t[][2] = {{0x10, 0x13}, {0x13, 0x10}, {0x11, 0x11}, {0xfff0, 2}, {0x12, 3}};
    for (unsigned i = 0; i < 5; i++) {
        uint16_t d = t[i][0];
        uint8_t z;
        __asm__ volatile("arpl %2, %0\n setz %1" : "+r"(d), "=qm"(z) : "r"(t[i][1]) : "cc");
        rt_printf("arpl %04x, %04x: %04x zf=%d\n", t[i][0], t[i][1], d, z);
    }
}

int main(void)
{
    build();
    tables();
    load_all("ds", 0);
    load_all("es", 1);
    load_all("fs", 2);
    load_all("gs", 3);
    load_all("ss", 4);
    other_forms();
    accessed_bit();
    build();
    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++)
        inspect(rows[i].name, rows[i].sel);
    inspect("byte limit", F_BYTE);
    inspect("page limit", F_PAGE);
    inspect("tss", SEL_TSS);
    inspect("tss 16", F_TSS16);
    inspect("tss not present", F_TSSNP);
    arpl();
    return 0;
}
