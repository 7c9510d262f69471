/* The shadow audit against hand-made page tables: each rule is broken once and must be noticed, and what the architecture lets be
 * stale must not be. */
#include "shadowmmu/audit.h"
#include "shadowmmu/ptwalk.h"
#include "shadowmmu/softtlb.h"
#include "shadowmmu/window.h"
#include <criterion/criterion.h>
#include <string.h>

#define LIN 0xffff888000003000ull /* slots 273, 0, 0, 3 */
#define BIG 0xffff888000200000ull /* a 2 MiB page */
#define ALL (PTE_P | PTE_W | PTE_A | PTE_D)

static struct gpmem *m;
static struct cpu c;
static struct audit *a;

static void put(uint64_t gpa, uint64_t e) { *(uint64_t *)gpmem_ptr(m, gpa) = e; }

static void setup(void)
{
    cr_assert_eq(gpmem_create(&m, 16 << 20), 0);
    cr_assert_eq(gpmem_add(m, 0, 8 << 20, false), 0);
    memset(&c, 0, sizeof c);
    c.cr0 = CR0_PE | CR0_PG | CR0_WP;
    c.cr4 = CR4_PAE | CR4_PGE;
    c.efer = EFER_LME | EFER_LMA | EFER_NXE;
    c.cr3 = 0x1000;
    put(0x1000 + 273 * 8, 0x2000 | ALL);
    put(0x2000, 0x3000 | ALL);
    put(0x3000, 0x4000 | ALL);
    put(0x3008, 0x400000 | ALL | PTE_PS);
    put(0x4018, 0x9000 | ALL);
    cr_assert_eq(audit_create(&a, m), 0);
}
static void teardown(void)
{
    audit_destroy(a);
    gpmem_destroy(m);
}
TestSuite(audit, .init = setup, .fini = teardown);

static struct audit_entry entry(uint64_t lin, uint64_t gpa, bool write)
{
    return (struct audit_entry){.lin = lin, .gpa = gpa, .write = write};
}
static bool fill(uint64_t lin, uint64_t gpa, bool write)
{
    struct audit_entry e = entry(lin, gpa, write);
    return audit_fill(a, &c, AUDIT_WIN64, &e);
}
static bool check(uint64_t lin, uint64_t gpa, bool write)
{
    struct audit_entry e = entry(lin, gpa, write);
    return audit_check(a, &c, AUDIT_WIN64, &e);
}
static void expect(enum audit_rule rule)
{
    const struct audit_violation *v = audit_violation(a);
    cr_assert(v, "nothing was found");
    cr_assert_eq(v->rule, rule, "found: %s", audit_rule_text(v->rule));
}

Test(audit, what_the_tables_allow_passes)
{
    cr_assert(fill(LIN, 0x9000, true) && fill(BIG, 0x400000, true));
    cr_assert(check(LIN, 0x9000, true) && check(LIN, 0x9000, false));
    cr_assert(check(BIG + 0x5000, 0x405000, true));
    cr_assert_null(audit_violation(a));
}
Test(audit, changed_tables_without_a_flush_are_no_error)
{
    fill(LIN, 0x9000, true);
    put(0x4018, 0);
    cr_assert(check(LIN, 0x9000, true));
}
Test(audit, wrong_frame_is_found_when_entered)
{
    cr_assert(!fill(LIN, 0xa000, false));
    expect(AUDIT_FILL_FRAME);
    cr_assert_eq(audit_violation(a)->levels, 4);
    cr_assert_eq(audit_violation(a)->pte[3], 0x9000 | ALL);
}
Test(audit, absent_page_is_found_when_entered)
{
    put(0x4018, 0);
    cr_assert(!fill(LIN, 0x9000, false));
    expect(AUDIT_FILL_ABSENT);
}
Test(audit, reserved_bit_makes_a_page_absent)
{
    put(0x3008, 0x402000 | ALL | PTE_PS);
    cr_assert(!fill(BIG, 0x402000, false));
    expect(AUDIT_FILL_ABSENT);
}
Test(audit, write_to_a_clean_page_is_found_when_entered)
{
    put(0x4018, (0x9000 | ALL) & ~PTE_D);
    cr_assert(fill(LIN, 0x9000, false));
    cr_assert(!fill(LIN, 0x9000, true));
    expect(AUDIT_FILL_WRITE);
}
Test(audit, write_against_wp_is_found_when_entered)
{
    put(0x3000, (0x4000 | ALL) & ~PTE_W);
    c.cr0 &= ~(uint64_t)CR0_WP;
    cr_assert(fill(LIN, 0x9000, true));
    c.cr0 |= CR0_WP;
    cr_assert(!fill(LIN, 0x9000, true));
    expect(AUDIT_FILL_WRITE);
}
Test(audit, user_page_in_the_window_is_found_when_entered)
{
    put(0x1000 + 273 * 8, 0x2000 | ALL | PTE_U);
    put(0x2000, 0x3000 | ALL | PTE_U);
    put(0x3000, 0x4000 | ALL | PTE_U);
    put(0x4018, 0x9000 | ALL | PTE_U);
    cr_assert(!fill(LIN, 0x9000, false));
    expect(AUDIT_FILL_USER);
}
Test(audit, clear_accessed_bit_above_is_found_when_entered)
{
    put(0x2000, (0x3000 | ALL) & ~PTE_A);
    cr_assert(!fill(LIN, 0x9000, false));
    expect(AUDIT_FILL_ACCESSED);
}
Test(audit, global_without_g_is_found_when_entered)
{
    struct audit_entry e = {.lin = LIN, .gpa = 0x9000, .global = true};
    cr_assert(!audit_fill(a, &c, AUDIT_WIN64, &e));
    expect(AUDIT_FILL_GLOBAL);
}
Test(audit, entry_that_was_never_entered_is_found)
{
    cr_assert(!check(LIN, 0x9000, false));
    expect(AUDIT_UNKNOWN);
}
Test(audit, entry_of_another_structure_does_not_count)
{
    struct audit_entry e = entry(LIN, 0x9000, false);
    audit_fill(a, &c, AUDIT_TLB_SUPER, &e);
    cr_assert(!check(LIN, 0x9000, false));
    expect(AUDIT_UNKNOWN);
}
Test(audit, survivor_of_invlpg_is_found)
{
    fill(LIN, 0x9000, false);
    audit_flush(a, AUDIT_FLUSH_PAGE, LIN + 0x7ff);
    cr_assert(!check(LIN, 0x9000, false));
    expect(AUDIT_FLUSHED);
    cr_assert_eq(audit_violation(a)->flush, AUDIT_FLUSH_PAGE);
    cr_assert_eq(audit_violation(a)->flush_lin, LIN + 0x7ff);
}
Test(audit, other_part_of_a_large_page_must_go_with_invlpg)
{
    fill(BIG, 0x400000, false);
    audit_flush(a, AUDIT_FLUSH_PAGE, BIG + 0x123456);
    cr_assert(!check(BIG, 0x400000, false));
    expect(AUDIT_FLUSHED);
}
Test(audit, neighbour_of_invlpg_may_stay)
{
    fill(LIN, 0x9000, false);
    audit_flush(a, AUDIT_FLUSH_PAGE, LIN + 0x1000);
    cr_assert(check(LIN, 0x9000, false));
}
Test(audit, cr3_load_leaves_global_pages_only)
{
    put(0x3008, 0x400000 | ALL | PTE_PS | PTE_G);
    fill(LIN, 0x9000, false);
    fill(BIG, 0x400000, false);
    audit_flush(a, AUDIT_FLUSH_NONGLOBAL, 0);
    cr_assert(check(BIG, 0x400000, false));
    cr_assert(!check(LIN, 0x9000, false));
    expect(AUDIT_FLUSHED);
}
Test(audit, entered_again_after_a_flush_may_be_there)
{
    fill(LIN, 0x9000, false);
    audit_flush(a, AUDIT_FLUSH_ALL, 0);
    put(0x4018, 0xb000 | ALL);
    cr_assert(fill(LIN, 0xb000, true));
    cr_assert(check(LIN, 0xb000, true));
}
Test(audit, survivor_of_a_global_flush_is_found)
{
    put(0x3008, 0x400000 | ALL | PTE_PS | PTE_G);
    fill(BIG, 0x400000, false);
    audit_flush(a, AUDIT_FLUSH_ALL, 0);
    cr_assert(!check(BIG, 0x400000, false));
    expect(AUDIT_FLUSHED);
}
Test(audit, more_rights_than_entered_are_found)
{
    fill(LIN, 0x9000, false);
    cr_assert(!check(LIN, 0x9000, true));
    expect(AUDIT_WRITE);
}
Test(audit, another_frame_than_entered_is_found)
{
    fill(LIN, 0x9000, false);
    cr_assert(!check(LIN, 0xa000, false));
    expect(AUDIT_FRAME);
}
Test(audit, changed_wp_without_a_flush_is_found)
{
    fill(LIN, 0x9000, false);
    c.cr0 &= ~(uint64_t)CR0_WP;
    cr_assert(!check(LIN, 0x9000, false));
    expect(AUDIT_MODE);
}
Test(audit, writable_traced_page_is_found)
{
    fill(LIN, 0x9000, true);
    *gpmem_page_flags(m, 0x9000) |= GP_CODE;
    cr_assert(check(LIN, 0x9000, false));
    cr_assert(!check(LIN, 0x9000, true));
    expect(AUDIT_TRACED);
}
Test(audit, compaction_forgets_only_what_is_gone)
{
    fill(LIN, 0x9000, false);
    fill(BIG, 0x400000, false);
    audit_flush(a, AUDIT_FLUSH_PAGE, 0xffff888000900000ull);
    audit_compact_begin(a);
    cr_assert(check(BIG, 0x400000, false));
    audit_compact_end(a);
    cr_assert(check(BIG + 0x1000, 0x401000, false));
    audit_flush(a, AUDIT_FLUSH_PAGE, BIG);
    cr_assert(!check(BIG, 0x400000, false));
    expect(AUDIT_FLUSHED);
}
Test(audit, compaction_drops_what_was_not_seen)
{
    fill(LIN, 0x9000, false);
    audit_compact_begin(a);
    audit_compact_end(a);
    cr_assert(!check(LIN, 0x9000, false));
    expect(AUDIT_UNKNOWN);
}
Test(audit, survives_more_entries_than_it_has_room_for)
{
    for (uint64_t i = 0; i < 300000; i++) {
        put(0x4018, 0x9000 | ALL);
        struct audit_entry e = entry(LIN, 0x9000, false);
        audit_fill(a, &c, AUDIT_TLB_SUPER, &e);
        audit_flush(a, AUDIT_FLUSH_PAGE, LIN + (i << 12));
        if (audit_is_full(a)) {
            audit_compact_begin(a);
            audit_compact_end(a);
        }
    }
    cr_assert_null(audit_violation(a));
}

/* The real structures, falsified behind the model's back. */
static void visit(void *opaque, uint64_t lin, const uint8_t *host, bool write, bool global)
{
    struct audit_entry e = {.lin = lin, .gpa = (uint64_t)(host - gpmem_ptr(m, 0)), .write = write, .global = global};
    audit_check(a, &c, AUDIT_TLB_SUPER, &e);
    ++*(unsigned *)opaque;
}
Test(audit, soft_tlb_entry_that_an_invlpg_missed_is_found)
{
    static struct softtlb t;
    unsigned n = 0;
    struct audit_entry e = entry(LIN, 0x9000, true);
    softtlb_init(&t);
    softtlb_fill(&t, LIN, gpmem_ptr(m, 0x9000), 4096, true, false);
    audit_fill(a, &c, AUDIT_TLB_SUPER, &e);
    softtlb_each(&t, visit, &n);
    cr_assert_eq(n, 1);
    cr_assert_null(audit_violation(a));
    audit_flush(a, AUDIT_FLUSH_PAGE, LIN);
    softtlb_each(&t, visit, &n);
    expect(AUDIT_FLUSHED);
}
Test(audit, soft_tlb_write_tag_of_another_page_is_found)
{
    static struct softtlb t;
    unsigned n = 0;
    struct audit_entry e = entry(LIN, 0x9000, false);
    softtlb_init(&t);
    softtlb_fill(&t, LIN, gpmem_ptr(m, 0x9000), 4096, false, false);
    audit_fill(a, &c, AUDIT_TLB_SUPER, &e);
    t.tag_w[stlb_index(LIN)] = -(int64_t)(LIN + ((uint64_t)STLB_SIZE << 12));
    softtlb_each(&t, visit, &n);
    cr_assert_eq(n, 2);
    expect(AUDIT_UNKNOWN);
}
