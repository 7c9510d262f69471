/* tests/guest/paging_pcid64.c - process-context identifiers (SDM 3A 4.10.1, 4.10.4.1; 2A INVPCID): which translations of an address
 * space a CR3 load leaves, which it takes away; data, code reached by indirect jumps, and pages that are global.
 *
 * A translation that was not flushed may be gone all the same, so each page has the same contents in all that it may legally lead to: where
 * the manual demands the new translation the line printed is "new", where it allows either, what was read must be one of both. */
#include "rt.h"

extern volatile uint64_t rt_pml4[512];
#define PML4B ((volatile uint64_t *)0x406000) /* the root of the second address space */
#define PDPT(s) ((volatile uint64_t *)(0x400000ul + (s)*0x3000ul))
#define PD(s) ((volatile uint64_t *)(0x401000ul + (s)*0x3000ul))
#define PT(s) ((volatile uint64_t *)(0x410000ul + (s)*0x1000ul))
#define FRAME(n) (0x500000ul + (n)*0x1000ul)
#define LIN(n) (0xffff800000000000ul + (n)*0x1000ul)
#define KEEP (1ull << 63)
enum { P = 1, W = 2, A = 0x20, D = 0x40, G = 0x100 };
#define ALL (P | W | A | D)

static uint64_t root[2];
static void load(unsigned space, uint64_t pcid, uint64_t keep) { write_cr3(root[space] | pcid | keep); }
static void invlpg(uint64_t lin) { __asm__ volatile("invlpg (%0)" : : "r"(lin) : "memory"); }
static void invpcid(uint64_t type, uint64_t pcid, uint64_t lin)
{
    uint64_t desc[2] = {pcid, lin};
    __asm__ volatile("invpcid (%1), %0" : : "r"(type), "r"(desc) : "memory");
}
/* mov eax, n; ret, and n as data in the second half of the page */
static void put(uint64_t at, int n)
{
    *(volatile uint8_t *)at = 0xb8;
    *(volatile int *)(at + 1) = n;
    *(volatile uint8_t *)(at + 5) = 0xc3;
    *(volatile int *)(at + 0x800) = n;
}
/* What the page is now: as data, and as code. */
static int look(uint64_t lin)
{
    int n, data = *(volatile int *)(lin + 0x800);
    __asm__ volatile("call *%1" : "=a"(n) : "r"(lin) : "memory", "cc");
    return 10 * data + n;
}
/* Often enough for whatever is remembered. */
static int fix(uint64_t lin)
{
    int n = 0;
    for (int i = 0; i < 5; i++)
        n = look(lin);
    return n;
}
static void must(const char *what, int is, int want) { rt_printf("%s: %s\n", what, is == want ? "new" : "STALE"); }
static void may(const char *what, int is, int old, int now)
{
    int d = is / 10, c = is % 10;
    bool fine = (d == old || d == now) && (c == old || c == now);
    rt_printf("%s: %s\n", what, fine ? "one of both" : "WRONG");
}

static void make_spaces(void)
{
    for (unsigned n = 1; n < 8; n++)
        put(FRAME(n), (int)n);
    for (unsigned i = 0; i < 512; i++)
        PML4B[i] = rt_pml4[i];
    for (unsigned s = 0; s < 2; s++) {
        (s ? PML4B : rt_pml4)[256] = (uint64_t)PDPT(s) | ALL;
        PDPT(s)[0] = (uint64_t)PD(s) | ALL;
        PD(s)[0] = (uint64_t)PT(s) | ALL;
        PT(s)[0] = FRAME(1 + s) | ALL; /* 1 and 2 */
        PT(s)[1] = FRAME(7) | ALL | G;
    }
    root[0] = read_cr3() & ~0xfffull;
    root[1] = (uint64_t)PML4B;
}

static void switches(void)
{
    load(0, 1, 0);
    int a = fix(LIN(0));
    load(1, 2, 0);
    int b = fix(LIN(0));
    rt_printf("two spaces: %d %d\n", a, b);
    for (int i = 0; i < 3; i++) {
        load(0, 1, KEEP);
        a = look(LIN(0));
        load(1, 2, KEEP);
        b = look(LIN(0));
        rt_printf("and again: %d %d\n", a, b);
    }
    PT(0)[0] = FRAME(3) | ALL; /* of the one that is not current */
    load(0, 1, KEEP);
    may("changed while away, kept", look(LIN(0)), 1, 3);
    load(0, 1, 0);
    must("the same, flushed", look(LIN(0)), 33);
    PT(0)[0] = FRAME(1) | ALL;
    load(1, 2, KEEP);
    load(0, 1, 0);
    must("changed, left, loaded with a flush", look(LIN(0)), 11);
    PT(0)[0] = FRAME(3) | ALL;
    invlpg(LIN(0));
    must("INVLPG", look(LIN(0)), 33);
    load(1, 2, KEEP);
    load(0, 1, KEEP);
    must("INVLPG, away and back", look(LIN(0)), 33);
    load(1, 2, KEEP);
    rt_printf("the other one: %d\n", look(LIN(0)));
    load(1, 3, KEEP);
    rt_printf("its table under a new number: %d\n", fix(LIN(0)));
    load(0, 3, KEEP);
    may("that number with another table, kept", look(LIN(0)), 2, 3);
    load(0, 3, 0);
    must("and flushed", look(LIN(0)), 33);
}

static void many(void)
{
    PT(0)[0] = FRAME(4) | ALL;
    for (unsigned pcid = 1; pcid < 40; pcid++) {
        load(pcid & 1, pcid, 0);
        fix(LIN(0));
    }
    int wrong = 0;
    for (unsigned pcid = 1; pcid < 40; pcid++) {
        load(pcid & 1, pcid, KEEP);
        wrong += look(LIN(0)) != (pcid & 1 ? 22 : 44);
    }
    rt_printf("39 of them: %d wrong\n", wrong);
}

static void invpcids(void)
{
    static const char *const name[] = {"one address", "one context", "everything", "everything but global pages"};
    for (unsigned type = 0; type < 4; type++) {
        PT(0)[0] = FRAME(1) | ALL;
        load(0, 1, 0);
        fix(LIN(0));
        load(1, 2, 0);
        fix(LIN(0));
        PT(0)[0] = FRAME(5) | ALL;
        invpcid(type, type < 2 ? 1 : 0, type ? 0 : LIN(0));
        rt_printf("INVPCID %s, there: %d\n", name[type], look(LIN(0)));
        load(0, 1, KEEP);
        must("here", look(LIN(0)), 55);
        PT(0)[0] = FRAME(1) | ALL;
        invpcid(type, type < 2 ? 1 : 0, type ? 0 : LIN(0));
        must("of the current one", look(LIN(0)), 11);
    }
}

static void globals(void)
{
    load(0, 1, 0);
    fix(LIN(1));
    PT(0)[1] = PT(1)[1] = FRAME(6) | ALL | G;
    load(1, 2, 0);
    may("global, CR3 load", look(LIN(1)), 7, 6);
    invpcid(3, 0, 0);
    may("global, INVPCID of all but those", look(LIN(1)), 7, 6);
    invpcid(2, 0, 0);
    must("global, INVPCID of all", look(LIN(1)), 66);
    load(0, 1, KEEP);
    must("in the other one", look(LIN(1)), 66);
    PT(0)[1] = PT(1)[1] = FRAME(7) | ALL | G;
    invlpg(LIN(1));
    must("global, INVLPG", look(LIN(1)), 77);
    load(1, 2, KEEP);
    must("in the other one", look(LIN(1)), 77);
}

/* Code that is written to while an address space that has run it is away; and right to write that was taken away. */
static void while_away(void)
{
    PT(0)[0] = FRAME(1) | ALL;
    load(0, 1, 0);
    fix(LIN(0));
    load(1, 2, 0);
    put(FRAME(1), 9);
    load(0, 1, KEEP);
    must("code written while away", look(LIN(0)), 99);
    *(volatile int *)(LIN(0) + 0x800) = 8; /* a page of code, through a translation that was there before it was one */
    load(1, 2, KEEP);
    load(0, 1, KEEP);
    *(volatile int *)(LIN(0) + 1) = 8;
    must("code written through it", look(LIN(0)), 88);
}

static void faults(void)
{
    uint64_t desc[2] = {1, LIN(0)}, bad[2] = {0x1000, 0}, far[2] = {1, 1ull << 62};
    TRY("INVPCID type 4", __asm__ volatile(AT "invpcid (%1), %0" : : "r"(4ul), "r"(desc) : "memory"));
    TRY("INVPCID type 2^32", __asm__ volatile(AT "invpcid (%1), %0" : : "r"(1ul << 32), "r"(desc) : "memory"));
    TRY("INVPCID reserved bits", __asm__ volatile(AT "invpcid (%1), %0" : : "r"(2ul), "r"(bad) : "memory"));
    TRY("INVPCID address not canonical", __asm__ volatile(AT "invpcid (%1), %0" : : "r"(0ul), "r"(far) : "memory"));
    TRY("INVPCID context, address not looked at", __asm__ volatile(AT "invpcid (%1), %0"
                                                                   :
                                                                   : "r"(1ul), "r"(far)
                                                                   : "memory"));
    TRY("INVPCID descriptor not there", __asm__ volatile(AT "invpcid (%1), %0" : : "r"(2ul), "r"(LIN(9)) : "memory"));
    TRY("PCIDE off", __asm__ volatile(AT "mov %0, %%cr4" : : "r"(read_cr4() & ~0x20000ull) : "memory"));
    TRY("CR3 bit 63 without PCIDE", __asm__ volatile(AT "mov %0, %%cr3" : : "r"(root[0] | KEEP) : "memory"));
    TRY("INVPCID of 1 without PCIDE", __asm__ volatile(AT "invpcid (%1), %0" : : "r"(1ul), "r"(desc) : "memory"));
    TRY("INVPCID of everything without PCIDE", __asm__ volatile(AT "invpcid (%1), %0"
                                                                :
                                                                : "r"(2ul), "r"(desc)
                                                                : "memory"));
    write_cr3(root[0] | 0x18);
    TRY("PCIDE with low bits in CR3", __asm__ volatile(AT "mov %0, %%cr4" : : "r"(read_cr4() | 0x20000ull) : "memory"));
}

int main(void)
{
    uint32_t eax = 1, ebx, ecx, edx;
    __asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "=c"(ecx), "=d"(edx));
    if (!(ecx >> 17 & 1)) {
        rt_printf("[skip] PCIDs are not offered\n");
        return 0;
    }
    make_spaces();
    write_cr4(read_cr4() | 0x80); /* PGE */
    write_cr3(root[0]);
    write_cr4(read_cr4() | 0x20000);
    switches();
    many();
    invpcids();
    globals();
    while_away();
    faults();
    return 0;
}
