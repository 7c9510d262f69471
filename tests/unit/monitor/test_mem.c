/* Guest memory accesses: segments, alignment, paging, soft TLB, traces, ROM, MMIO, data breakpoints.
 *
 * This file compiles its own copy of mem.c (under other names) so that the monitor's two hooks can be replaced by ones that
 * record. */
#define mem_linear t_linear
#define mem_read t_read
#define mem_write t_write
#define mem_probe t_probe
#define mem_read_u t_read_u
#define mem_write_u t_write_u
#define mem_direct t_direct
#define mem_direct_over_code t_direct_over_code
#define mem_translate t_translate
#define mem_fetch_page t_fetch_page
#define mem_check_align t_check_align
#define mem_check_watch t_check_watch
#define mem_page_watched t_page_watched
#define vcpu_trace_write t_trace_write
#define vcpu_mmio t_mmio
#include "monitor/mem.c"
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

/* Guest physical map: RAM [0, 1 MiB) less VGA's hole, ROM at 0xc0000, nothing else. */
#define HOLE 0xa0000ull
#define ROM 0xc0000ull
#define PD 0x1000ull
#define PT 0x2000ull

static struct vcpu *v;
static uint64_t lin, val;

static struct {
    uint64_t gpa;
    unsigned bytes;
    uint8_t before;
} traces[8];
static unsigned n_traces;
void vcpu_trace_write(struct vcpu *u, uint64_t gpa, unsigned bytes)
{
    traces[n_traces].gpa = gpa;
    traces[n_traces].bytes = bytes;
    traces[n_traces++].before = *gpmem_ptr(u->mem, gpa);
}

static struct {
    uint64_t gpa;
    unsigned size;
    bool write;
    uint64_t data;
} ios[16];
static unsigned n_ios;
static int mmio_result;
int vcpu_mmio(struct vcpu *u, uint64_t gpa, unsigned size, bool is_write, uint8_t *data)
{
    uint64_t d = 0;
    if (is_write)
        memcpy(&d, data, size);
    else
        memset(data, 0x40 + (int)n_ios, size);
    ios[n_ios].gpa = gpa;
    ios[n_ios].size = size;
    ios[n_ios].write = is_write;
    ios[n_ios++].data = d;
    return mmio_result;
}

static void set_seg(unsigned s, uint64_t base, uint32_t limit, uint32_t attr)
{
    v->c.seg[s] = (struct seg){.base = base, .limit = limit, .attr = attr, .sel = 8};
    cpu_seg_cache(&v->c.seg[s]);
    cpu_update_key(&v->c);
}

#define DATA (SEG_P | SEG_S | SEG_RW | SEG_DB)
#define CODE (SEG_P | SEG_S | SEG_CODE | SEG_RW | SEG_DB)

static void setup(void)
{
    v = calloc(1, sizeof *v);
    cr_assert_eq(gpmem_create(&v->mem, 2 << 20), 0);
    cr_assert_eq(gpmem_add(v->mem, 0, HOLE, false), 0);
    cr_assert_eq(gpmem_add(v->mem, ROM, 0x2000, true), 0);
    softtlb_init(&v->tlb[0]);
    softtlb_init(&v->tlb[1]);
    v->c.cr0 = CR0_PE;
    for (unsigned s = S_ES; s <= S_GS; s++)
        set_seg(s, 0, 0xffffffff, s == S_CS ? CODE : DATA);
    n_traces = n_ios = 0;
    mmio_result = 0;
}
static void teardown(void)
{
    gpmem_destroy(v->mem);
    free(v);
}
TestSuite(mem, .init = setup, .fini = teardown);

static uint8_t *ram(uint64_t gpa) { return gpmem_ptr(v->mem, gpa); }

static void expect_fault(int got, unsigned vector, uint32_t error)
{
    cr_expect_eq(got, SYS_FAULT);
    cr_expect_eq(v->fault.vector, vector, "vector %u", v->fault.vector);
    cr_expect(v->fault.has_error);
    cr_expect_eq(v->fault.error, error, "error %#x", v->fault.error);
}
static void expect_pf(int got, uint64_t cr2, uint32_t error)
{
    expect_fault(got, EXC_PF, error);
    cr_expect_eq(v->fault.cr2, cr2, "cr2 %#lx", v->fault.cr2);
}

/* 2-level paging that maps linear page n of the first 4 MiB to entries[n]; the rest is absent. */
static void page(unsigned n, uint32_t pte)
{
    *(uint32_t *)ram(PD) = PT | PTE_P | PTE_W | PTE_U;
    ((uint32_t *)ram(PT))[n] = pte;
    v->c.cr3 = PD;
    v->c.cr0 |= CR0_PG | CR0_WP;
}
static uint32_t pte(unsigned n) { return ((uint32_t *)ram(PT))[n]; }

static void long_mode(void)
{
    v->c.cr4 |= CR4_PAE;
    v->c.efer = EFER_LME | EFER_LMA;
    v->c.cr0 |= CR0_PG;
    v->c.cr3 = 0x3000;
    *(uint64_t *)ram(0x3000) = 0x4000 | PTE_P | PTE_W | PTE_U;
    *(uint64_t *)ram(0x4000) = PTE_PS | PTE_P | PTE_W | PTE_U;
    set_seg(S_CS, 0, 0, (CODE & ~SEG_DB) | SEG_L);
}

/* ---- segments ---- */

static const struct {
    const char *what;
    uint32_t limit, attr;
    uint64_t off;
    unsigned n, how;
    bool fault;
} seg_rows[] = {
    {"last byte", 0xfff, DATA, 0xfff, 1, MEM_R, false},
    {"one beyond", 0xfff, DATA, 0x1000, 1, MEM_R, true},
    {"across the limit", 0xfff, DATA, 0xffd, 4, MEM_W, true},
    {"up to the limit", 0xfff, DATA, 0xffc, 4, MEM_W, false},
    {"read-only, read", 0xfff, DATA & ~SEG_RW, 0, 4, MEM_R, false},
    {"read-only, write", 0xfff, DATA & ~SEG_RW, 0, 4, MEM_W, true},
    {"read-only, read for write", 0xfff, DATA & ~SEG_RW, 0, 4, MEM_RW, true},
    {"readable code, read", 0xfff, CODE, 0, 4, MEM_R, false},
    {"readable code, write", 0xfff, CODE, 0, 4, MEM_W, true},
    {"execute-only, read", 0xfff, CODE & ~SEG_RW, 0, 4, MEM_R, true},
    {"execute-only, fetch", 0xfff, CODE & ~SEG_RW, 0, 4, MEM_X, false},
    {"conforming code has no expand-down", 0xfff, CODE | SEG_EC, 0, 4, MEM_R, false},
    {"fetch from data", 0xfff, DATA, 0, 4, MEM_X, true},
    {"expand-down, at the limit", 0xfff, DATA | SEG_EC, 0xfff, 1, MEM_R, true},
    {"expand-down, above", 0xfff, DATA | SEG_EC, 0x1000, 4, MEM_W, false},
    {"expand-down, last bytes of 4 GiB", 0xfff, DATA | SEG_EC, 0xfffffffc, 4, MEM_W, false},
    {"expand-down, wraps", 0xfff, DATA | SEG_EC, 0xfffffffd, 4, MEM_W, true},
    {"expand-down 16-bit, last bytes", 0xfff, (DATA | SEG_EC) & ~SEG_DB, 0xfffe, 2, MEM_W, false},
    {"expand-down 16-bit, beyond 64 KiB", 0xfff, (DATA | SEG_EC) & ~SEG_DB, 0xffff, 2, MEM_W, true},
    {"expand-down with the largest limit holds nothing", 0xffffffff, DATA | SEG_EC, 0xffffffff, 1, MEM_R, true},
    {"null selector", 0xfff, DATA | SEG_UNUSABLE, 0, 1, MEM_R, true},
    {"not present", 0xfff, DATA & ~SEG_P, 0, 1, MEM_R, true},
    {"system segment", 0xfff, DATA & ~SEG_S, 0, 1, MEM_R, true},
    {"4 GiB segment, wrap", 0xffffffff, DATA, 0xffffffff, 4, MEM_R, true},
};

Test(mem, segment_limits_and_types)
{
    for (size_t i = 0; i < sizeof seg_rows / sizeof seg_rows[0]; i++) {
        for (unsigned s = S_SS; s <= S_DS; s++) { /* SS and DS differ in the vector */
            set_seg(s, 0x10000, seg_rows[i].limit, seg_rows[i].attr);
            memset(&v->fault, 0, sizeof v->fault);
            int got = mem_linear(v, s, seg_rows[i].off, seg_rows[i].n, seg_rows[i].how, &lin);
            cr_expect_eq(got, seg_rows[i].fault ? SYS_FAULT : 0, "%s", seg_rows[i].what);
            cr_expect_eq(v->fault.vector, !seg_rows[i].fault ? 0 : s == S_SS ? EXC_SS : EXC_GP, "%s", seg_rows[i].what);
            if (!got)
                cr_expect_eq(lin, (0x10000 + seg_rows[i].off) & 0xffffffff, "%s", seg_rows[i].what);
        }
    }
}

Test(mem, only_a_flat_segment_wraps_at_4_gib)
{
    set_seg(S_DS, 0, 0xffffffff, DATA);
    cr_expect_eq(mem_linear(v, S_DS, 0xffffffff, 4, MEM_R, &lin), 0);
    cr_expect_eq(lin, 0xffffffff);
    set_seg(S_DS, 0x1000, 0xffffffff, DATA);
    cr_expect_eq(mem_linear(v, S_DS, 0xffffffff, 4, MEM_R, &lin), SYS_FAULT);
}

Test(mem, real_mode_has_limits_but_no_types)
{
    v->c.cr0 = 0;
    set_seg(S_CS, 0xffff0, 0xffff, CODE & ~SEG_DB);
    cr_expect_eq(mem_linear(v, S_CS, 0x10, 2, MEM_W, &lin), 0);
    cr_expect_eq(lin, 0x100000, "no wrap at 1 MiB: that is A20's business");
    expect_fault(mem_linear(v, S_CS, 0xffff, 2, MEM_R, &lin), EXC_GP, 0);
    set_seg(S_SS, 0, 0xffff, DATA & ~SEG_DB);
    expect_fault(mem_linear(v, S_SS, 0xffff, 2, MEM_R, &lin), EXC_SS, 0);
}

Test(mem, vm86_has_limits_but_no_types)
{
    v->c.eflags_sys = EFLAGS_VM;
    set_seg(S_DS, 0x12340, 0xffff, CODE & ~SEG_RW);
    cr_expect_eq(mem_linear(v, S_DS, 0xffff, 1, MEM_W, &lin), 0);
    expect_fault(mem_linear(v, S_DS, 0x10000, 1, MEM_W, &lin), EXC_GP, 0);
}

Test(mem, long_mode_uses_fs_and_gs_bases_only)
{
    long_mode();
    set_seg(S_DS, 0x5000, 0, DATA | SEG_UNUSABLE);
    set_seg(S_FS, 0xffff900000000000, 0, DATA | SEG_UNUSABLE);
    cr_expect_eq(mem_linear(v, S_DS, 0x1234, 8, MEM_W, &lin), 0);
    cr_expect_eq(lin, 0x1234);
    cr_expect_eq(mem_linear(v, S_FS, 0x10, 8, MEM_W, &lin), 0);
    cr_expect_eq(lin, 0xffff900000000010);
}

Test(mem, long_mode_canonical_to_the_last_byte)
{
    long_mode();
    cr_expect_eq(mem_linear(v, S_DS, 0x7ffffffffff8, 8, MEM_R, &lin), 0);
    expect_fault(mem_linear(v, S_DS, 0x7ffffffffff9, 8, MEM_R, &lin), EXC_GP, 0);
    expect_fault(mem_linear(v, S_SS, 0x800000000000, 1, MEM_R, &lin), EXC_SS, 0);
    expect_fault(mem_linear(v, S_DS, 0xffff7fffffffffff, 8, MEM_R, &lin), EXC_GP, 0);
    cr_expect_eq(mem_linear(v, S_DS, 0xffff800000000000, 8, MEM_R, &lin), 0);
    expect_fault(mem_read_u(v, 0x1000000000000, 4, MEM_R, &val), EXC_GP, 0);
}

/* ---- paging ---- */

Test(mem, unpaged_read_and_write)
{
    cr_assert_eq(mem_write_u(v, 0x5003, 4, MEM_W, 0x11223344), 0);
    cr_assert_eq(mem_read_u(v, 0x5003, 2, MEM_R, &val), 0);
    cr_expect_eq(val, 0x3344);
    cr_expect_eq(ram(0x5006)[0], 0x11);
}

Test(mem, crossing_write_checks_both_pages_first)
{
    page(5, 0x5000 | PTE_P | PTE_W);
    page(6, 0x7000 | PTE_P);
    expect_pf(mem_write_u(v, 0x5ffe, 4, MEM_W, ~0ull), 0x6000, PF_P | PF_W);
    cr_expect_eq(ram(0x5ffe)[0], 0, "nothing written");
    page(6, 0x7000 | PTE_P | PTE_W);
    cr_expect_eq(mem_write_u(v, 0x5ffe, 4, MEM_W, 0x44332211), 0);
    cr_expect_eq(ram(0x5fff)[0], 0x22);
    cr_expect_eq(ram(0x7000)[0], 0x33);
}

Test(mem, crossing_read_faults_at_the_first_bad_byte)
{
    page(5, 0x5000 | PTE_P);
    expect_pf(mem_read_u(v, 0x5ffd, 8, MEM_R, &val), 0x6000, 0);
    page(5, 0);
    softtlb_flush_all(&v->tlb[0]);
    expect_pf(mem_read_u(v, 0x5ffd, 8, MEM_R, &val), 0x5ffd, 0);
}

Test(mem, user_and_implicit_supervisor_accesses)
{
    v->c.cpl = 3;
    page(5, 0x5000 | PTE_P | PTE_W);
    expect_pf(mem_read_u(v, 0x5000, 4, MEM_R, &val), 0x5000, PF_P | PF_U);
    cr_expect_eq(mem_read_u(v, 0x5000, 4, MEM_SUPER, &val), 0);
    expect_pf(mem_read_u(v, 0x5000, 4, MEM_R, &val), 0x5000, PF_P | PF_U);
}

Test(mem, read_for_write_is_checked_as_write)
{
    page(5, 0x5000 | PTE_P);
    cr_expect_eq(mem_read_u(v, 0x5000, 4, MEM_R, &val), 0);
    expect_pf(mem_read_u(v, 0x5000, 4, MEM_RW, &val), 0x5000, PF_P | PF_W);
    page(5, 0x5000 | PTE_P | PTE_W);
    cr_expect_eq(mem_read_u(v, 0x5000, 4, MEM_RW, &val), 0);
    cr_expect_eq(pte(5) & PTE_D, PTE_D);
}

Test(mem, write_tag_comes_with_the_dirty_bit)
{
    page(5, 0x5000 | PTE_P | PTE_W);
    unsigned i = stlb_index(0x5000);
    cr_assert_eq(mem_read_u(v, 0x5000, 4, MEM_R, &val), 0);
    cr_expect_eq(v->tlb[0].tag_r[i], -0x5000);
    cr_expect_neq(v->tlb[0].tag_w[i], -0x5000);
    cr_expect_neq(v->tlb[1].tag_r[i], -0x5000, "a supervisor access says nothing about users");
    cr_assert_eq(mem_write_u(v, 0x5000, 4, MEM_W, 1), 0);
    cr_expect_eq(v->tlb[0].tag_w[i], -0x5000);
    cr_expect_eq((uint8_t *)(v->tlb[0].addend[i] + 0x5123), ram(0x5123));
    cr_expect_eq(0x5000 + v->tlb[0].addend[i], (uintptr_t)gpmem_ptr(v->mem, 0x5000));
}

Test(mem, soft_tlb_is_used_until_flushed)
{
    page(5, 0x5000 | PTE_P | PTE_W);
    cr_assert_eq(mem_write_u(v, 0x5000, 4, MEM_W, 0x55), 0);
    page(5, 0x6000 | PTE_P | PTE_W);
    cr_assert_eq(mem_read_u(v, 0x5000, 4, MEM_R, &val), 0);
    cr_expect_eq(val, 0x55);
    softtlb_flush_page(&v->tlb[0], 0x5000);
    cr_assert_eq(mem_read_u(v, 0x5000, 4, MEM_R, &val), 0);
    cr_expect_eq(val, 0);
}

Test(mem, smap_pages_are_looked_up_each_time)
{
    page(5, 0x5000 | PTE_P | PTE_W | PTE_U);
    v->c.cr4 = CR4_SMAP;
    v->c.eflags_sys = EFLAGS_AC;
    cr_expect_eq(mem_read_u(v, 0x5000, 4, MEM_R, &val), 0);
    v->c.eflags_sys = 0;
    expect_pf(mem_read_u(v, 0x5000, 4, MEM_R, &val), 0x5000, PF_P);
}

Test(mem, linear_addresses_wrap_at_4_gib_outside_64_bit_code)
{
    cr_assert_eq(gpmem_add(v->mem, 0xfffff000, 0x1000, false), 0);
    cr_assert_eq(mem_write_u(v, 0xfffffffe, 4, MEM_W, 0x44332211), 0);
    cr_expect_eq(ram(0xffffffff)[0], 0x22);
    cr_expect_eq(ram(0)[0], 0x33);
}

Test(mem, sixty_four_bit_addresses_do_not_wrap_at_4_gib)
{
    long_mode(); /* maps 1 GiB */
    expect_pf(mem_write_u(v, 0xfffffffe, 4, MEM_W, 0), 0xfffffffe, PF_W);
    *(uint64_t *)ram(0x4018) = 0xc0000000 | PTE_PS | PTE_P | PTE_W;
    expect_pf(mem_write_u(v, 0xfffffffe, 4, MEM_W, 0), 0x100000000, PF_W);
}

Test(mem, probe_sets_bits_but_moves_nothing)
{
    page(5, 0x5000 | PTE_P | PTE_W);
    cr_expect_eq(mem_probe(v, 0x5ffc, 4, MEM_W), 0);
    cr_expect_eq(pte(5) & (PTE_A | PTE_D), PTE_A | PTE_D);
    expect_pf(mem_probe(v, 0x5ffc, 5, MEM_W), 0x6000, PF_W);
    cr_expect_eq(mem_probe(v, HOLE - 1, 1, MEM_R), SYS_FAULT);
}

Test(mem, bulk_over_three_pages)
{
    static uint8_t in[8192], out[8192];
    for (unsigned i = 0; i < sizeof in; i++)
        in[i] = (uint8_t)(i * 7 + (i >> 8));
    page(5, 0x9000 | PTE_P | PTE_W);
    page(6, 0x7000 | PTE_P | PTE_W);
    page(7, 0x8000 | PTE_P | PTE_W);
    cr_assert_eq(mem_write(v, 0x5801, in, 8192, MEM_W), 0);
    cr_assert_eq(mem_read(v, 0x5801, out, 8192, MEM_R), 0);
    cr_expect_arr_eq(in, out, 8192);
    cr_expect_eq(ram(0x7000)[0], in[0x7ff]);
    cr_expect_eq(ram(0x8800)[0], in[8191]);
}

/* ---- what is not plain RAM ---- */

Test(mem, traced_page_tells_before_each_store_and_gets_no_write_tag)
{
    *gpmem_page_flags(v->mem, 0x5000) = GP_CODE;
    cr_assert_eq(mem_write_u(v, 0x5ff0, 8, MEM_W, 0x77), 0);
    cr_assert_eq(mem_write_u(v, 0x4ffe, 4, MEM_W, 0x55555555), 0);
    cr_assert_eq(n_traces, 2);
    cr_expect_eq(traces[0].gpa, 0x5ff0);
    cr_expect_eq(traces[0].bytes, 8);
    cr_expect_eq(traces[0].before, 0);
    cr_expect_eq(traces[1].gpa, 0x5000);
    cr_expect_eq(traces[1].bytes, 2);
    cr_expect_neq(v->tlb[0].tag_w[stlb_index(0x5000)], -0x5000);
    cr_expect_eq(v->tlb[0].tag_w[stlb_index(0x4000)], -0x4000);
    cr_expect_eq(ram(0x5ff0)[0], 0x77);
}

Test(mem, rom_reads_but_drops_writes)
{
    ram(ROM)[0] = 0x99;
    cr_assert_eq(mem_write_u(v, ROM, 1, MEM_W, 0x11), 0);
    cr_assert_eq(mem_read_u(v, ROM, 1, MEM_R, &val), 0);
    cr_expect_eq(val, 0x99);
    cr_expect_neq(v->tlb[0].tag_w[stlb_index(ROM)], -(int64_t)ROM);
    cr_expect_eq(n_ios, 0);
}

Test(mem, mmio_is_one_access_of_the_operands_size)
{
    cr_assert_eq(mem_write_u(v, HOLE + 2, 4, MEM_W, 0x12345678), 0);
    cr_assert_eq(mem_read_u(v, HOLE + 8, 8, MEM_R, &val), 0);
    cr_assert_eq(n_ios, 2);
    cr_expect(ios[0].write && ios[0].gpa == HOLE + 2 && ios[0].size == 4 && ios[0].data == 0x12345678);
    cr_expect(!ios[1].write && ios[1].size == 8);
    cr_expect_eq(val, 0x4141414141414141);
    cr_expect_neq(v->tlb[0].tag_r[stlb_index(HOLE)], -(int64_t)HOLE, "never in the soft TLB");
}

Test(mem, access_from_ram_into_mmio_is_split)
{
    ram(HOLE - 1)[0] = 0x21;
    cr_assert_eq(mem_read_u(v, HOLE - 1, 8, MEM_R, &val), 0);
    cr_assert_eq(n_ios, 3);
    cr_expect(ios[0].gpa == HOLE && ios[0].size == 4);
    cr_expect(ios[1].gpa == HOLE + 4 && ios[1].size == 2);
    cr_expect(ios[2].gpa == HOLE + 6 && ios[2].size == 1);
    cr_expect_eq(val, 0x4241414040404021);
}

Test(mem, mmio_exit_is_passed_on)
{
    mmio_result = SYS_EXIT;
    cr_expect_eq(mem_read_u(v, HOLE, 4, MEM_R, &val), SYS_EXIT);
    cr_expect_eq(mem_write_u(v, HOLE, 4, MEM_W, 1), SYS_EXIT);
}

Test(mem, no_device_is_touched_when_a_later_page_faults)
{
    page(5, HOLE | PTE_P | PTE_W);
    expect_pf(mem_write_u(v, 0x5ffe, 4, MEM_W, 0), 0x6000, PF_W);
    cr_expect_eq(n_ios, 0);
}

/* ---- alignment and data breakpoints ---- */

Test(mem, alignment_is_checked_for_explicit_user_accesses_only)
{
    v->c.cpl = 3;
    v->c.cr0 |= CR0_AM;
    v->c.eflags_sys = EFLAGS_AC;
    cpu_update_key(&v->c);
    expect_fault(mem_read_u(v, 0x5001, 2, MEM_R, &val), EXC_AC, 0);
    expect_fault(mem_write_u(v, 0x5004, 8, MEM_W, 0), EXC_AC, 0);
    cr_expect_eq(mem_read_u(v, 0x5004, 4, MEM_R, &val), 0);
    cr_expect_eq(mem_read_u(v, 0x5001, 4, MEM_SUPER, &val), 0);
    cr_expect_eq(mem_read_u(v, 0x5001, 1, MEM_R, &val), 0);
}

Test(mem, alignment_comes_before_paging)
{
    v->c.cpl = 3;
    v->c.cr0 |= CR0_AM;
    v->c.eflags_sys = EFLAGS_AC;
    cpu_update_key(&v->c);
    page(5, 0);
    expect_fault(mem_read_u(v, 0x5001, 4, MEM_R, &val), EXC_AC, 0);
}

static const struct {
    unsigned rw, len; /* DR7 fields of DR1 */
    uint64_t dr, at;
    unsigned n;
    bool write, hit;
} watch_rows[] = {
    {1, 0, 0x5010, 0x5010, 1, true, true},   {1, 0, 0x5010, 0x5010, 1, false, false},
    {3, 0, 0x5010, 0x5010, 1, false, true},  {0, 0, 0x5010, 0x5010, 1, true, false},
    {2, 0, 0x5010, 0x5010, 1, true, false},  {3, 0, 0x5010, 0x500d, 4, false, true},
    {3, 0, 0x5010, 0x500c, 4, false, false}, {3, 3, 0x5010, 0x5013, 1, false, true},
    {3, 3, 0x5010, 0x5014, 1, false, false}, {3, 3, 0x5012, 0x5010, 1, false, true}, /* low bits are ignored */
    {3, 2, 0x5010, 0x5017, 1, false, true},  {3, 1, 0x5010, 0x5012, 1, false, false},
    {1, 3, 0x5000, 0x4fff, 2, true, true},   {1, 3, 0x5ffc, 0x5ffe, 4, true, true},
};

Test(mem, data_breakpoints)
{
    for (size_t i = 0; i < sizeof watch_rows / sizeof watch_rows[0]; i++) {
        v->dr6_pending = 0;
        v->c.dr[1] = watch_rows[i].dr;
        v->c.dr[7] = 0x400 | 1 << 2 | watch_rows[i].rw << 20 | watch_rows[i].len << 22;
        int got = watch_rows[i].write ? mem_write_u(v, watch_rows[i].at, watch_rows[i].n, MEM_W, 0)
                                      : mem_read_u(v, watch_rows[i].at, watch_rows[i].n, MEM_R, &val);
        cr_expect_eq(got, 0);
        cr_expect_eq(v->dr6_pending, watch_rows[i].hit ? 2 : 0, "row %zu", i);
        softtlb_flush_all(&v->tlb[0]); /* as MOV DR7 does */
    }
}

Test(mem, watched_pages_stay_out_of_the_soft_tlb)
{
    v->c.dr[0] = 0x5010;
    v->c.dr[7] = 0x402 | 3 << 16;
    cr_assert_eq(mem_read_u(v, 0x5800, 4, MEM_R, &val), 0);
    cr_expect_neq(v->tlb[0].tag_r[stlb_index(0x5000)], -0x5000);
    cr_assert_eq(mem_read_u(v, 0x6800, 4, MEM_R, &val), 0);
    cr_expect_eq(v->tlb[0].tag_r[stlb_index(0x6000)], -0x6000);
    cr_expect_eq(v->dr6_pending, 0);
}

Test(mem, breakpoint_is_not_noted_when_the_access_faults)
{
    page(5, 0x5000 | PTE_P);
    v->c.dr[0] = 0x5ffc;
    v->c.dr[7] = 0x402 | 3 << 16 | 3 << 18;
    expect_pf(mem_read_u(v, 0x5ffe, 4, MEM_R, &val), 0x6000, 0);
    cr_expect_eq(v->dr6_pending, 0);
}

/* ---- pointers ---- */

Test(mem, direct_pointer_only_to_plain_memory)
{
    int fault = 7;
    cr_expect_eq(mem_direct(v, 0x5123, MEM_W, &fault), ram(0x5123));
    cr_expect_eq(fault, 0);
    cr_expect_null(mem_direct(v, HOLE, MEM_R, &fault));
    cr_expect_eq(mem_direct(v, ROM, MEM_R, &fault), ram(ROM));
    cr_expect_null(mem_direct(v, ROM, MEM_W, &fault));
    *gpmem_page_flags(v->mem, 0x6000) = GP_DIRTYLOG;
    cr_expect_null(mem_direct(v, 0x6000, MEM_W, &fault));
    cr_expect_eq(mem_direct(v, 0x6000, MEM_R, &fault), ram(0x6000));
    cr_expect_eq(fault, 0);
    page(5, 0);
    softtlb_flush_all(&v->tlb[0]);
    cr_expect_null(mem_direct(v, 0x5123, MEM_R, &fault));
    expect_pf(fault, 0x5123, 0);
}

Test(mem, long_write_over_code_drops_it_once_and_other_traces_refuse)
{
    *gpmem_page_flags(v->mem, 0x6000) = GP_CODE;
    cr_expect_eq(mem_direct_over_code(v, 0x6123, 0x23, 0x80), ram(0x6123));
    cr_expect_eq(n_traces, 1);
    cr_expect_eq(traces[0].gpa, 0x6100);
    cr_expect_eq(traces[0].bytes, 0x80);
    *gpmem_page_flags(v->mem, 0x6000) = GP_CODE | GP_PT;
    cr_expect_null(mem_direct_over_code(v, 0x6123, 0, 0x80));
    cr_expect_null(mem_direct_over_code(v, ROM, 0, 0x80));
    cr_expect_null(mem_direct_over_code(v, HOLE, 0, 0x80));
    cr_expect_eq(n_traces, 1);
}

Test(mem, translate_gives_no_host_pointer_to_mmio_and_for_rom_writes)
{
    uint64_t gpa;
    uint8_t *host;
    page(5, ROM | PTE_P | PTE_W);
    cr_assert_eq(mem_translate(v, 0x5010, MEM_R, &gpa, &host), 0);
    cr_expect_eq(gpa, ROM + 0x10);
    cr_expect_eq(host, ram(ROM + 0x10));
    cr_assert_eq(mem_translate(v, 0x5010, MEM_W, &gpa, &host), 0);
    cr_expect_null(host);
    page(5, HOLE | PTE_P | PTE_W);
    cr_assert_eq(mem_translate(v, 0x5010, MEM_W, &gpa, &host), 0);
    cr_expect_eq(gpa, HOLE + 0x10);
    cr_expect_null(host);
}

Test(mem, fetch_checks_execute_permission)
{
    uint64_t gpa;
    uint8_t *host;
    bool global;
    uint64_t bytes;
    long_mode();
    v->c.efer |= EFER_NXE;
    v->c.cr4 |= CR4_PGE;
    *(uint64_t *)ram(0x4000) = PTE_PS | PTE_P | PTE_G;
    cr_assert_eq(mem_fetch_page(v, 0x5abc, &gpa, &host, &global, &bytes), 0);
    cr_expect_eq(gpa, 0x5abc);
    cr_expect_eq(host, ram(0x5abc));
    cr_expect(global);
    cr_expect_eq(bytes, 1u << 30);
    *(uint64_t *)ram(0x4000) |= PTE_NX;
    expect_pf(mem_fetch_page(v, 0x5abc, &gpa, &host, &global, &bytes), 0x5abc, PF_P | PF_I);
    v->c.cpl = 3;
    expect_pf(mem_fetch_page(v, 0x5abc, &gpa, &host, &global, &bytes), 0x5abc, PF_P | PF_I | PF_U);
    expect_fault(mem_fetch_page(v, 0x800000000000, &gpa, &host, &global, &bytes), EXC_GP, 0);
    cr_expect_neq(v->tlb[0].tag_r[stlb_index(0x5000)], -0x5000, "fetching does not fill the data TLB");
}
