/* Page walks against results worked out by hand from SDM 3A chapter 4. Each row: the entries, the access, the outcome. */
#include "shadowmmu/gpmem.h"
#include "shadowmmu/ptwalk.h"
#include <criterion/criterion.h>
#include <string.h>

#define P PTE_P
#define W PTE_W
#define U PTE_U
#define A PTE_A
#define D PTE_D
#define PS PTE_PS
#define G PTE_G
#define NX PTE_NX
#define ALL (P | W | U)
/* Tables of the examples, root first, and the pages they lead to. */
#define T0 0x1000ull
#define T1 0x2000ull
#define T2 0x3000ull
#define T3 0x4000ull
#define LEAF 0x5000ull
#define RD PT_READ
#define WR PT_WRITE
#define EX PT_EXEC
#define US PT_USER
#define NONE 0xffffffffu /* no fault */

static struct gpmem *m;
static struct cpu c;
static struct pt_result r;
static uint32_t err;

static void setup(void)
{
    cr_assert_eq(gpmem_create(&m, 1 << 20), 0);
    cr_assert_eq(gpmem_add(m, 0, 0x80000, false), 0);
    memset(&c, 0, sizeof c);
    c.cr0 = CR0_PE | CR0_PG;
    c.cr3 = T0;
}
static void teardown(void) { gpmem_destroy(m); }
TestSuite(ptwalk, .init = setup, .fini = teardown);

static void put32(uint64_t gpa, uint64_t e) { *(uint32_t *)gpmem_ptr(m, gpa) = (uint32_t)e; }
static void put64(uint64_t gpa, uint64_t e) { *(uint64_t *)gpmem_ptr(m, gpa) = e; }
static uint64_t get32(uint64_t gpa) { return *(uint32_t *)gpmem_ptr(m, gpa); }
static uint64_t get64(uint64_t gpa) { return *(uint64_t *)gpmem_ptr(m, gpa); }

struct row {
    const char *what;
    uint64_t e[4]; /* entries, root first, without the addresses of the next tables */
    uint64_t cr0, cr4, efer;
    uint32_t eflags;
    unsigned access;
    uint32_t error; /* or NONE */
    uint64_t gpa, bytes;
    uint64_t after[4]; /* A and D bits expected afterwards */
};

static void expect_row(const struct row *t, int got)
{
    cr_expect_eq(got, t->error != NONE, "%s: fault %d", t->what, got);
    if (got) {
        cr_expect_eq(err, t->error, "%s: error %#x, not %#x", t->what, err, t->error);
        return;
    }
    cr_expect_eq(r.gpa, t->gpa, "%s: gpa %#lx", t->what, r.gpa);
    cr_expect_eq(r.page_bytes, t->bytes, "%s: page of %#lx", t->what, r.page_bytes);
}

#define LIN32 0x00401abcull /* directory entry 1, table entry 1 */
static const struct row rows_2level[] = {
    {"read", {ALL, ALL}, .access = RD, .error = NONE, .gpa = LEAF | 0xabc, .bytes = 4096, .after = {A, A}},
    {"write sets D", {ALL, ALL}, .access = WR, .error = NONE, .gpa = LEAF | 0xabc, .bytes = 4096, .after = {A, A | D}},
    {"user read", {ALL, ALL}, .access = RD | US, .error = NONE, .gpa = LEAF | 0xabc, .bytes = 4096, .after = {A, A}},
    {"directory entry not present", {W | U, ALL}, .access = RD, .error = 0},
    {"table entry not present", {ALL, W | U}, .access = WR | US, .error = PF_W | PF_U},
    {"user read of supervisor page", {ALL, P | W}, .access = RD | US, .error = PF_P | PF_U},
    {"user read, supervisor directory", {P | W, ALL}, .access = RD | US, .error = PF_P | PF_U},
    {"user write of read-only page", {ALL, P | U}, .access = WR | US, .error = PF_P | PF_W | PF_U},
    {"user write, read-only directory", {P | U, ALL}, .access = WR | US, .error = PF_P | PF_W | PF_U},
    {"supervisor write of read-only page, WP=0",
     {P | U, P},
     .access = WR,
     .error = NONE,
     .gpa = LEAF | 0xabc,
     .bytes = 4096,
     .after = {A, A | D}},
    {"supervisor write of read-only page, WP=1", {ALL, P | U}, .cr0 = CR0_WP, .access = WR, .error = PF_P | PF_W},
    {"fetch without NX has no I bit", {ALL, P | W}, .access = EX | US, .error = PF_P | PF_U},
    {"PS ignored without PSE",
     {ALL | PS, ALL},
     .access = RD,
     .error = NONE,
     .gpa = LEAF | 0xabc,
     .bytes = 4096,
     .after = {A, A}},
    {"SMEP: supervisor fetch from user page", {ALL, ALL}, .cr4 = CR4_SMEP, .access = EX, .error = PF_P | PF_I},
    {"SMEP: user fetch",
     {ALL, ALL},
     .cr4 = CR4_SMEP,
     .access = EX | US,
     .error = NONE,
     .gpa = LEAF | 0xabc,
     .bytes = 4096,
     .after = {A, A}},
    {"SMEP: fetch from supervisor page",
     {ALL, P},
     .cr4 = CR4_SMEP,
     .access = EX,
     .error = NONE,
     .gpa = LEAF | 0xabc,
     .bytes = 4096,
     .after = {A, A}},
    {"SMAP: supervisor read of user page", {ALL, ALL}, .cr4 = CR4_SMAP, .access = RD, .error = PF_P},
    {"SMAP with AC",
     {ALL, ALL},
     .cr4 = CR4_SMAP,
     .eflags = EFLAGS_AC,
     .access = WR,
     .error = NONE,
     .gpa = LEAF | 0xabc,
     .bytes = 4096,
     .after = {A, A | D}},
    {"SMAP: AC does not help implicit accesses",
     {ALL, ALL},
     .cr4 = CR4_SMAP,
     .eflags = EFLAGS_AC,
     .access = RD | PT_IMPLICIT,
     .error = PF_P},
    {"SMAP: supervisor page",
     {ALL, P | W},
     .cr4 = CR4_SMAP,
     .access = RD,
     .error = NONE,
     .gpa = LEAF | 0xabc,
     .bytes = 4096,
     .after = {A, A}},
    {"probe changes nothing", {ALL, ALL}, .access = WR | PT_PROBE, .error = NONE, .gpa = LEAF | 0xabc, .bytes = 4096},
};

Test(ptwalk, two_level_tables)
{
    for (size_t i = 0; i < sizeof rows_2level / sizeof rows_2level[0]; i++) {
        const struct row *t = &rows_2level[i];
        put32(T0 + 4, T1 | t->e[0]);
        put32(T1 + 4, LEAF | t->e[1]);
        c.cr0 = CR0_PE | CR0_PG | t->cr0;
        c.cr4 = t->cr4;
        c.eflags_sys = t->eflags;
        expect_row(t, pt_walk(m, &c, LIN32, t->access, &r, &err));
        cr_expect_eq(get32(T0 + 4), T1 | t->e[0] | t->after[0], "%s: directory entry %#lx", t->what, get32(T0 + 4));
        cr_expect_eq(get32(T1 + 4), LEAF | t->e[1] | t->after[1], "%s: table entry %#lx", t->what, get32(T1 + 4));
    }
}

Test(ptwalk, pse_4m_page_and_pse36_address)
{
    c.cr4 = CR4_PSE | CR4_PGE;
    put32(T0 + 4, 0x0ac00000 | 0x5a << 13 | ALL | PS | G);
    cr_assert_eq(pt_walk(m, &c, 0x00654321, WR | US, &r, &err), 0);
    cr_expect_eq(r.gpa, 0x5a0ae54321);
    cr_expect_eq(r.page_bytes, 4 << 20);
    cr_expect(r.writable && r.dirty && r.user && r.global && !r.nx);
    cr_expect_eq(r.n_tables, 1);
    cr_expect_eq(r.table_gpa[0], T0);
    cr_expect_eq(get32(T0 + 4) & (A | D), A | D);
}

Test(ptwalk, pse_reserved_bit_21)
{
    c.cr4 = CR4_PSE;
    put32(T0 + 4, 0x200000 | ALL | PS);
    cr_expect_eq(pt_walk(m, &c, 0x400000, WR, &r, &err), 1);
    cr_expect_eq(err, PF_P | PF_RSVD | PF_W);
    cr_expect_eq(get32(T0 + 4) & (A | D), 0);
}

Test(ptwalk, without_paging_all_is_allowed_and_32_bits_wide)
{
    c.cr0 = CR0_PE;
    cr_expect_eq(pt_walk(m, &c, 0x123456789abcull, WR | US, &r, &err), 0);
    cr_expect_eq(r.gpa, 0x56789abc);
    cr_expect(r.writable && r.dirty && r.user && r.global && !r.nx);
    cr_expect_eq(r.n_tables, 0);
}

#define LINPAE 0x40201abcull /* PDPTE 1, directory entry 1, table entry 1 */
static const struct row rows_pae[] = {
    {"read", {ALL, ALL}, .access = RD, .error = NONE, .gpa = LEAF | 0xabc, .bytes = 4096, .after = {A, A}},
    {"user write sets D",
     {ALL, ALL},
     .access = WR | US,
     .error = NONE,
     .gpa = LEAF | 0xabc,
     .bytes = 4096,
     .after = {A, A | D}},
    {"2 MiB page", {ALL | PS}, .access = WR, .error = NONE, .gpa = 0x1abc, .bytes = 2 << 20, .after = {A | D}},
    {"2 MiB page, reserved bit 13", {ALL | PS | 1 << 13}, .access = RD, .error = PF_P | PF_RSVD},
    {"2 MiB page, reserved bit 20", {ALL | PS | 1 << 20}, .access = RD | US, .error = PF_P | PF_RSVD | PF_U},
    {"reserved bit 62 in the directory", {ALL | 1ull << 62, ALL}, .access = RD, .error = PF_P | PF_RSVD},
    {"reserved bit 52 in the table", {ALL, ALL | 1ull << 52}, .access = WR, .error = PF_P | PF_RSVD | PF_W},
    {"reserved address bit 40", {ALL, ALL | 1ull << 40}, .access = RD, .error = PF_P | PF_RSVD},
    {"reserved bits of an absent entry do not matter", {ALL, 1ull << 52}, .access = RD, .error = 0},
    {"bit 63 reserved without NXE", {ALL, ALL | NX}, .access = RD, .error = PF_P | PF_RSVD},
    {"NX: read is fine",
     {ALL, ALL | NX},
     .efer = EFER_NXE,
     .access = RD,
     .error = NONE,
     .gpa = LEAF | 0xabc,
     .bytes = 4096,
     .after = {A, A}},
    {"NX: fetch", {ALL, ALL | NX}, .efer = EFER_NXE, .access = EX, .error = PF_P | PF_I},
    {"NX in the directory", {ALL | NX, ALL}, .efer = EFER_NXE, .access = EX | US, .error = PF_P | PF_I | PF_U},
    {"fetch from an absent page has the I bit with NXE", {ALL, 0}, .efer = EFER_NXE, .access = EX, .error = PF_I},
    {"fetch fault without NXE has not", {ALL, 0}, .access = EX, .error = 0},
    {"WP=1", {ALL, P | U}, .cr0 = CR0_WP, .access = WR, .error = PF_P | PF_W},
};

Test(ptwalk, pae_tables)
{
    for (size_t i = 0; i < sizeof rows_pae / sizeof rows_pae[0]; i++) {
        const struct row *t = &rows_pae[i];
        uint64_t e0 = (t->e[0] & PS ? 0 : T1) | t->e[0], e1 = LEAF | t->e[1];
        c.pdpte[1] = T0 | P;
        put64(T0 + 8, e0);
        put64(T1 + 8, e1);
        c.cr0 = CR0_PE | CR0_PG | t->cr0;
        c.cr4 = CR4_PAE;
        c.efer = t->efer;
        expect_row(t, pt_walk(m, &c, LINPAE, t->access, &r, &err));
        cr_expect_eq(get64(T0 + 8), e0 | t->after[0], "%s: directory entry %#lx", t->what, get64(T0 + 8));
        cr_expect_eq(get64(T1 + 8), e1 | t->after[1], "%s: table entry %#lx", t->what, get64(T1 + 8));
    }
}

Test(ptwalk, pae_absent_pdpte)
{
    c.cr4 = CR4_PAE;
    c.pdpte[1] = T0;
    cr_expect_eq(pt_walk(m, &c, LINPAE, WR | US, &r, &err), 1);
    cr_expect_eq(err, PF_W | PF_U);
}

Test(ptwalk, pae_walk_reports_tables_and_ignores_high_linear_bits)
{
    c.cr4 = CR4_PAE;
    c.pdpte[1] = T0 | P;
    put64(T0 + 8, T1 | ALL);
    put64(T1 + 8, LEAF | ALL);
    cr_assert_eq(pt_walk(m, &c, LINPAE | 0xdead00000000ull, RD, &r, &err), 0);
    cr_expect_eq(r.n_tables, 2);
    cr_expect_eq(r.table_gpa[0], T0);
    cr_expect_eq(r.table_gpa[1], T1);
    cr_expect(r.writable && !r.dirty && !r.global);
}

Test(ptwalk, pdptes_load_from_any_32_byte_boundary)
{
    put64(0x6fe0, T0 | P);
    put64(0x6fe8, 0);
    put64(0x6ff0, T1 | P | PTE_PWT | PTE_PCD | 0xe00);
    put64(0x6ff8, ~1ull); /* not present: reserved bits are not looked at */
    cr_assert_eq(pt_load_pdptes(m, &c, 0x6fe0 | 0x1f), 0);
    cr_expect_eq(c.pdpte[0], T0 | P);
    cr_expect_eq(c.pdpte[3], ~1ull);
}

Test(ptwalk, pdptes_with_reserved_bits_load_nothing)
{
    static const uint64_t bad[] = {P | W, P | U, P | 0x20, P | 0x100, P | 1ull << 40, P | NX};
    c.pdpte[0] = 0x1234;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        put64(0x7000, T0 | P);
        put64(0x7018, bad[i]);
        cr_expect_eq(pt_load_pdptes(m, &c, 0x7000), 1, "entry %#lx", bad[i]);
        cr_expect_eq(c.pdpte[0], 0x1234);
    }
}

Test(ptwalk, pdptes_are_valid_without_reserved_bits_or_absent)
{
    uint64_t good[4] = {T0 | P, 0xfff0000000001ffe, 0, T0 | P | 0xe18}, bad[4] = {0, 0, 0, T0 | P | 0x20};
    cr_expect(pt_pdptes_valid(good));
    cr_expect(!pt_pdptes_valid(bad));
}

Test(ptwalk, pdptes_outside_ram_read_as_ones_and_fail) { cr_expect_eq(pt_load_pdptes(m, &c, 0xe0000000), 1); }

/* PML4 256, PDPT 1, directory 1, table 1 */
#define LIN64 0xffff800040201abcull
static const struct row rows_4level[] = {
    {"read",
     {ALL, ALL, ALL, ALL},
     .access = RD,
     .error = NONE,
     .gpa = LEAF | 0xabc,
     .bytes = 4096,
     .after = {A, A, A, A}},
    {"user write",
     {ALL, ALL, ALL, ALL},
     .access = WR | US,
     .error = NONE,
     .gpa = LEAF | 0xabc,
     .bytes = 4096,
     .after = {A, A, A, A | D}},
    {"2 MiB page",
     {ALL, ALL, ALL | PS},
     .access = WR,
     .error = NONE,
     .gpa = 0x1abc,
     .bytes = 2 << 20,
     .after = {A, A, A | D}},
    {"1 GiB page",
     {ALL, ALL | PS},
     .access = WR,
     .error = NONE,
     .gpa = 0x201abc,
     .bytes = 1 << 30,
     .after = {A, A | D}},
    {"1 GiB page, PAT bit is no address bit",
     {ALL, ALL | PS | 0x1000},
     .access = RD,
     .error = NONE,
     .gpa = 0x201abc,
     .bytes = 1 << 30,
     .after = {A, A}},
    {"1 GiB page, reserved bit 29", {ALL, ALL | PS | 1 << 29}, .access = RD, .error = PF_P | PF_RSVD},
    {"2 MiB page, reserved bit 13", {ALL, ALL, ALL | PS | 1 << 13}, .access = RD, .error = PF_P | PF_RSVD},
    {"PS in the PML4 entry is reserved", {ALL | PS, ALL, ALL, ALL}, .access = RD, .error = PF_P | PF_RSVD},
    {"bits 62:52 are ignored",
     {ALL | 0x7ffull << 52, ALL, ALL, ALL | 0x7ffull << 52},
     .access = RD,
     .error = NONE,
     .gpa = LEAF | 0xabc,
     .bytes = 4096,
     .after = {A, A, A, A}},
    {"address bit 40 is reserved",
     {ALL, ALL | 1ull << 40, ALL, ALL},
     .access = RD | US,
     .error = PF_P | PF_RSVD | PF_U},
    {"address bit 51 is reserved", {ALL, ALL, ALL, ALL | 1ull << 51}, .access = RD, .error = PF_P | PF_RSVD},
    {"NX without NXE", {ALL | NX, ALL, ALL, ALL}, .access = RD, .error = PF_P | PF_RSVD},
    {"NX at the top", {ALL | NX, ALL, ALL, ALL}, .efer = EFER_NXE, .access = EX, .error = PF_P | PF_I},
    {"absent PML4 entry", {0, ALL, ALL, ALL}, .access = RD | US, .error = PF_U},
    {"absent PDPT entry", {ALL, W, ALL, ALL}, .access = RD, .error = 0},
    {"absent directory entry", {ALL, ALL, W, ALL}, .access = WR, .error = PF_W},
    {"absent table entry", {ALL, ALL, ALL, W}, .access = WR, .error = PF_W},
    {"supervisor PML4 entry", {P | W, ALL, ALL, ALL}, .access = RD | US, .error = PF_P | PF_U},
    {"supervisor directory entry", {ALL, ALL, P | W, ALL}, .access = RD | US, .error = PF_P | PF_U},
    {"read-only PDPT entry, WP", {ALL, P | U, ALL, ALL}, .cr0 = CR0_WP, .access = WR, .error = PF_P | PF_W},
    {"read-only PDPT entry, WP=0",
     {ALL, P | U, ALL, ALL},
     .access = WR,
     .error = NONE,
     .gpa = LEAF | 0xabc,
     .bytes = 4096,
     .after = {A, A, A, A | D}},
    {"read-only 1 GiB page, user", {ALL, P | U | PS}, .access = WR | US, .error = PF_P | PF_W | PF_U},
    {"probe", {ALL, ALL, ALL, ALL}, .access = WR | PT_PROBE, .error = NONE, .gpa = LEAF | 0xabc, .bytes = 4096},
};

Test(ptwalk, four_level_tables)
{
    static const uint64_t next[4] = {T1, T2, T3, LEAF};
    static const uint64_t at[4] = {T0 + 8 * 256, T1 + 8, T2 + 8, T3 + 8};
    for (size_t i = 0; i < sizeof rows_4level / sizeof rows_4level[0]; i++) {
        const struct row *t = &rows_4level[i];
        uint64_t e[4];
        for (int l = 0; l < 4; l++) {
            e[l] = t->e[l] | ((t->e[l] & PS) && l ? 0 : next[l]);
            put64(at[l], e[l]);
        }
        c.cr0 = CR0_PE | CR0_PG | t->cr0;
        c.cr4 = CR4_PAE;
        c.efer = EFER_LME | EFER_LMA | t->efer;
        expect_row(t, pt_walk(m, &c, LIN64, t->access, &r, &err));
        for (int l = 0; l < 4; l++)
            cr_expect_eq(get64(at[l]), e[l] | t->after[l], "%s: level %d is %#lx", t->what, l, get64(at[l]));
    }
}

static void map64(void)
{
    c.cr4 = CR4_PAE | CR4_PGE;
    c.efer = EFER_LME | EFER_LMA;
    put64(T0 + 8 * 256, T1 | ALL);
    put64(T1 + 8, T2 | ALL);
    put64(T2 + 8, T3 | ALL);
    put64(T3 + 8, LEAF | ALL | G);
}

Test(ptwalk, result_says_what_a_tlb_may_keep)
{
    map64();
    put64(T3 + 8, LEAF | P | U | G);
    cr_assert_eq(pt_walk(m, &c, LIN64, RD | US, &r, &err), 0);
    cr_expect(!r.writable && !r.dirty && r.user && r.global);
    cr_assert_eq(pt_walk(m, &c, LIN64, RD, &r, &err), 0);
    cr_expect(r.writable && !r.dirty, "a supervisor may write with WP=0");
    c.cr0 |= CR0_WP;
    cr_assert_eq(pt_walk(m, &c, LIN64, RD, &r, &err), 0);
    cr_expect(!r.writable);
    c.cr4 &= ~(uint64_t)CR4_PGE;
    cr_assert_eq(pt_walk(m, &c, LIN64, RD, &r, &err), 0);
    cr_expect(!r.global);
    cr_expect_eq(r.n_tables, 4);
    cr_expect_eq(r.table_gpa[0], T0);
    cr_expect_eq(r.table_gpa[3], T3);
}

Test(ptwalk, low_bits_of_cr3_are_not_address)
{
    map64();
    c.cr3 = T0 | 0xfff;
    cr_expect_eq(pt_walk(m, &c, LIN64, RD, &r, &err), 0);
    c.cr4 = 0;
    c.efer = 0;
    put32(T0 + 4, T1 | ALL);
    put32(T1 + 4, LEAF | ALL);
    cr_expect_eq(pt_walk(m, &c, LIN32, RD, &r, &err), 0);
}

Test(ptwalk, tables_outside_ram_are_ones)
{
    map64();
    c.cr3 = 0xe0000000;
    cr_expect_eq(pt_walk(m, &c, LIN64, RD, &r, &err), 1);
    cr_expect_eq(err, PF_P | PF_RSVD);
    c.cr4 = c.efer = 0; /* two levels of all-ones map everything to the last page below 4 GiB */
    cr_expect_eq(pt_walk(m, &c, LIN32, RD, &r, &err), 0);
    cr_expect_eq(r.gpa, 0xfffffabc);
}

Test(ptwalk, tables_in_rom_keep_their_bits)
{
    cr_assert_eq(gpmem_add(m, 0xc0000, 0x2000, true), 0);
    c.cr3 = 0xc0000;
    put32(0xc0004, 0xc1000 | ALL);
    put32(0xc1004, LEAF | ALL);
    cr_expect_eq(pt_walk(m, &c, LIN32, WR, &r, &err), 0);
    cr_expect_eq(get32(0xc0004), 0xc1000 | ALL);
    cr_expect_eq(get32(0xc1004), LEAF | ALL);
}

static uint64_t traced_gpa;
static unsigned n_traced;
static void count_trace(void *opaque, uint64_t gpa, size_t bytes)
{
    n_traced++;
    traced_gpa = gpa;
    cr_expect_eq(bytes, 8);
    cr_expect_eq(get64(gpa) & A, 0, "the hook runs before the change");
}

Test(ptwalk, accessed_bit_in_a_code_page_calls_the_trace_hook)
{
    map64();
    gpmem_set_trace_hook(m, count_trace, NULL);
    *gpmem_page_flags(m, T3) = GP_CODE;
    *gpmem_page_flags(m, T2) = GP_PT; /* A bits are no news for a page-table trace */
    cr_assert_eq(pt_walk(m, &c, LIN64, RD, &r, &err), 0);
    cr_expect_eq(n_traced, 1);
    cr_expect_eq(traced_gpa, T3 + 8);
    cr_assert_eq(pt_walk(m, &c, LIN64, RD, &r, &err), 0);
    cr_expect_eq(n_traced, 1, "nothing to set, nothing to trace");
}

Test(ptwalk, self_map_reads_the_tables_themselves)
{
    c.cr4 = CR4_PAE;
    c.efer = EFER_LME | EFER_LMA;
    put64(T0 + 8 * 511, T0 | P | W);
    cr_assert_eq(pt_walk(m, &c, 0xffffffffffffff80ull, WR, &r, &err), 0);
    cr_expect_eq(r.gpa, T0 + 0xf80);
    cr_expect_eq(get64(T0 + 8 * 511) & (A | D), A | D);
}
