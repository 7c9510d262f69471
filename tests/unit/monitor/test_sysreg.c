/* Control, debug, table and extended control registers. Own copy of sysreg.c, so that flushes can be seen. */
#define cr0_write t_cr0_write
#define sys_mov_to_cr t_mov_to_cr
#define sys_mov_from_cr t_mov_from_cr
#define sys_mov_to_dr t_mov_to_dr
#define sys_mov_from_dr t_mov_from_dr
#define sys_clts t_clts
#define sys_lmsw t_lmsw
#define sys_smsw t_smsw
#define sys_load_table t_load_table
#define sys_store_table t_store_table
#define sys_xgetbv t_xgetbv
#define sys_xsetbv t_xsetbv
#define vcpu_mmu_flush t_sysreg_flush
#define vcpu_mmu_cr3 t_sysreg_cr3
#include "monitor/sysreg.c"
#include "tests/unit/monitor/test_segment_env.h"
#include <criterion/criterion.h>

#define CR3_KEPT 100
static int flushed = -1;
void vcpu_mmu_flush(struct vcpu *w, enum mmu_flush what) { flushed = what; }
void vcpu_mmu_cr3(struct vcpu *w, bool keep) { flushed = keep ? CR3_KEPT : MMU_FLUSH_NONGLOBAL; }

TestSuite(sysreg, .fini = env_free);

static void offer_all(void)
{
    for (unsigned i = 0; i < sizeof env_model.has / sizeof env_model.has[0]; i++)
        env_model.has[i] = ~0ull;
    static const uint16_t no[] = {CPU_FEAT_SMEP, CPU_FEAT_SMAP, CPU_FEAT_UMIP};
    for (unsigned i = 0; i < 3; i++)
        env_model.has[no[i] / 64] &= ~(1ull << (no[i] % 64));
    env_model.xcr0 = 0xe7;
    flushed = -1;
}
static int to_cr(unsigned n, uint64_t val)
{
    v->c.gpr[R_RAX] = val;
    return sys_mov_to_cr(v, (struct sys_op){.op = SYS_OP_MOV_TO_CR, .reg = (uint8_t)n, .rm = R_RAX, .len = 3});
}
static uint64_t from_cr(unsigned n)
{
    cr_expect_eq(sys_mov_from_cr(v, (struct sys_op){.op = SYS_OP_MOV_FROM_CR, .reg = (uint8_t)n, .rm = R_RDX}), 0);
    return v->c.gpr[R_RDX];
}
static int to_dr(unsigned n, uint64_t val)
{
    v->c.gpr[R_RAX] = val;
    return sys_mov_to_dr(v, (struct sys_op){.op = SYS_OP_MOV_TO_DR, .reg = (uint8_t)n, .rm = R_RAX, .len = 3});
}
static uint64_t from_dr(unsigned n)
{
    cr_expect_eq(sys_mov_from_dr(v, (struct sys_op){.op = SYS_OP_MOV_FROM_DR, .reg = (uint8_t)n, .rm = R_RDX}), 0);
    return v->c.gpr[R_RDX];
}
#define GP0(e) expect_fault(#e, e, EXC_GP, 0)

Test(sysreg, cr_access_needs_ring_0_and_an_existing_register)
{
    env_prot(3);
    offer_all();
    GP0(to_cr(0, 1));
    expect_fault("CR5", to_cr(5, 0), EXC_UD, 0);
    expect_fault("CR8 outside 64-bit mode", to_cr(8, 0), EXC_UD, 0);
    env_vm86(3);
    GP0(to_cr(3, 0));
}

Test(sysreg, cr0_refuses_contradictions)
{
    env_long(0);
    offer_all();
    uint64_t cr0 = v->c.cr0;
    GP0(to_cr(0, CR0_PG));
    GP0(to_cr(0, CR0_PG | CR0_PE | CR0_NW));
    GP0(to_cr(0, cr0 | 1ull << 32));
    GP0(to_cr(0, cr0 & ~(uint64_t)CR0_PG)); /* not from 64-bit code */
    cr_expect_eq(v->c.cr0, cr0);
    cr_expect_eq(to_cr(0, cr0 | 0x1ff8ffc0), SYS_NEXT, "reserved bits are ignored");
    cr_expect_eq(from_cr(0), cr0);
}

Test(sysreg, protected_mode_is_entered_and_left)
{
    env_real();
    offer_all();
    cr_expect_eq(to_cr(0, CR0_PE), SYS_NEXT);
    cr_expect_eq(v->c.key & CPU_KEY_REAL, 0);
    cr_expect_eq(from_cr(0), CR0_PE | CR0_ET);
    cr_expect_eq(to_cr(0, 0), SYS_NEXT);
    cr_expect_neq(v->c.key & CPU_KEY_REAL, 0);
}

Test(sysreg, long_mode_needs_pae_and_a_32_bit_tss)
{
    env_long(0);
    offer_all();
    v->c.seg[S_CS].attr &= ~SEG_L; /* compatibility code */
    cr_expect_eq(to_cr(0, CR0_PE), SYS_NEXT);
    cr_expect_eq(v->c.efer & EFER_LMA, 0);
    v->c.cr4 &= ~(uint64_t)CR4_PAE;
    GP0(to_cr(0, CR0_PE | CR0_PG));
    v->c.cr4 |= CR4_PAE;
    uint32_t attr = v->c.seg[S_TR].attr;
    v->c.seg[S_TR].attr = SEG_P | DT_TSS16_BUSY;
    GP0(to_cr(0, CR0_PE | CR0_PG));
    v->c.seg[S_TR].attr = attr;
    v->c.seg[S_CS].attr |= SEG_L;
    GP0(to_cr(0, CR0_PE | CR0_PG));
    v->c.seg[S_CS].attr &= ~SEG_L;
    flushed = -1;
    cr_expect_eq(to_cr(0, CR0_PE | CR0_PG), SYS_NEXT);
    cr_expect_neq(v->c.efer & EFER_LMA, 0);
    cr_expect_eq(flushed, MMU_FLUSH_ALL);
}

Test(sysreg, pae_paging_loads_pdptes_and_checks_them)
{
    env_prot(0);
    offer_all();
    put(0x5000, 8, 0x6001);
    put(0x5008, 8, 0x7001);
    put(0x5018, 8, 0x1e6); /* not present: anything goes */
    v->c.cr3 = 0x5000;
    v->c.cr4 = CR4_PAE;
    cr_expect_eq(to_cr(0, CR0_PE | CR0_PG), SYS_NEXT);
    cr_expect_eq(v->c.pdpte[1], 0x7001);
    put(0x5008, 8, 0x7007); /* R/W and U/S are reserved here */
    GP0(to_cr(3, 0x5000));
    cr_expect_eq(v->c.pdpte[1], 0x7001);
    GP0(to_cr(4, CR4_PAE | CR4_PGE));
    cr_expect_eq(v->c.cr4, CR4_PAE);
}

Test(sysreg, cr3_flushes_what_is_not_global)
{
    env_long(0);
    offer_all();
    cr_expect_eq(to_cr(3, TABLES | 0x18), SYS_NEXT);
    cr_expect_eq(from_cr(3), TABLES | 0x18);
    cr_expect_eq(flushed, MMU_FLUSH_NONGLOBAL);
    GP0(to_cr(3, 1ull << 40));
    GP0(to_cr(3, 1ull << 63));
}

Test(sysreg, pcide_needs_long_mode_and_pcid_0)
{
    env_long(0);
    offer_all();
    v->c.cr3 = TABLES | 0x18;
    GP0(to_cr(4, CR4_PAE | CR4_PCIDE));
    v->c.cr3 = TABLES;
    cr_expect_eq(to_cr(4, CR4_PAE | CR4_PCIDE), SYS_NEXT);
    cr_expect_eq(flushed, MMU_FLUSH_ALL);
    cr_expect_eq(to_cr(3, TABLES | 0x18), SYS_NEXT);
    cr_expect_eq(flushed, MMU_FLUSH_NONGLOBAL);
    cr_expect_eq(to_cr(3, TABLES | 0x19 | 1ull << 63), SYS_NEXT);
    cr_expect_eq(flushed, CR3_KEPT);
    cr_expect_eq(from_cr(3), TABLES | 0x19, "bit 63 is not kept");
    cr_expect_eq(to_cr(4, CR4_PAE | CR4_PCIDE | CR4_OSXSAVE), SYS_NEXT, "set already");
    GP0(to_cr(3, 1ull << 62));
    v->c.seg[S_CS].attr &= (uint16_t)~SEG_L; /* compatibility mode may switch paging off, but not with PCIDE */
    cpu_update_key(&v->c);
    GP0(to_cr(0, CR0_PE));
    env_long(0);
    v->c.cr4 |= CR4_PCIDE;
    offer_all();
    cr_expect_eq(to_cr(4, CR4_PAE), SYS_NEXT);
    cr_expect_eq(flushed, MMU_FLUSH_ALL);
    GP0(to_cr(3, TABLES | 1ull << 63));
}

Test(sysreg, pcide_is_for_long_mode_only)
{
    env_prot(0);
    offer_all();
    GP0(to_cr(4, CR4_PCIDE));
}

Test(sysreg, cr4_has_only_what_cpuid_offers)
{
    env_long(0);
    offer_all();
    GP0(to_cr(4, CR4_PAE | CR4_SMEP));
    GP0(to_cr(4, CR4_PAE | CR4_LA57));
    GP0(to_cr(4, 0)); /* PAE cannot go in long mode */
    cr_expect_eq(to_cr(4, CR4_PAE | CR4_OSXSAVE | CR4_FSGSBASE), SYS_NEXT);
    cr_expect_eq(flushed, -1);
    cr_expect_neq(v->c.key & CPU_KEY_OSXSAVE, 0);
    cr_expect_eq(to_cr(4, CR4_PAE | CR4_PGE), SYS_NEXT);
    cr_expect_eq(flushed, MMU_FLUSH_ALL);
}

static uint64_t tpr;
static uint64_t read_tpr(void *opaque) { return tpr; }
static void write_tpr(void *opaque, uint64_t val) { tpr = val; }
Test(sysreg, cr8_is_the_embedders)
{
    static const struct vm_ops ops = {.read_cr8 = read_tpr, .write_cr8 = write_tpr};
    env_long(0);
    offer_all();
    v->ops = &ops;
    GP0(to_cr(8, 16));
    cr_expect_eq(to_cr(8, 9), SYS_NEXT);
    cr_expect_eq(tpr, 9);
    tpr = 4;
    cr_expect_eq(from_cr(8), 4);
}

Test(sysreg, lmsw_sets_pe_but_does_not_clear_it)
{
    struct sys_op op = {.op = SYS_OP_LMSW, .rm = R_RCX};
    env_real();
    offer_all();
    v->c.gpr[R_RCX] = 0xfff9;
    cr_expect_eq(sys_lmsw(v, op), SYS_NEXT);
    cr_expect_eq(v->c.cr0, CR0_ET | CR0_PE | CR0_TS);
    v->c.gpr[R_RCX] = 0;
    cr_expect_eq(sys_lmsw(v, op), SYS_NEXT);
    cr_expect_eq(v->c.cr0, CR0_ET | CR0_PE);
}

Test(sysreg, smsw_works_in_ring_3_and_stores_a_word)
{
    env_prot(3);
    v->ea = 0x30000;
    put(0x30000, 4, 0x55555555);
    cr_expect_eq(sys_smsw(v, mk_op(4, 3)), SYS_NEXT);
    cr_expect_eq(get(0x30000, 4), 0x55550011);
    struct sys_op op = {.op = SYS_OP_SMSW, .rm = R_RCX, .opsize = 4};
    v->c.cr0 |= CR0_WP;
    cr_expect_eq(sys_smsw(v, op), SYS_NEXT);
    cr_expect_eq(v->c.gpr[R_RCX], CR0_WP | CR0_ET | CR0_PE);
}

Test(sysreg, clts_clears_ts)
{
    env_prot(0);
    v->c.cr0 |= CR0_TS;
    cr_expect_eq(sys_clts(v, mk_op(4, 2)), SYS_NEXT);
    cr_expect_eq(v->c.key & CPU_KEY_TS, 0);
    v->c.cpl = 3;
    GP0(sys_clts(v, mk_op(4, 2)));
}

Test(sysreg, debug_registers_fixed_bits_and_aliases)
{
    env_prot(0);
    offer_all();
    cr_expect_eq(to_dr(4, 0xffffffff), SYS_NEXT, "without CR4.DE DR4 is DR6");
    cr_expect_eq(from_dr(6), 0xffffefff);
    cr_expect_eq(to_dr(7, 0xffffd7ff), SYS_NEXT);
    cr_expect_eq(from_dr(5), 0xffff07ffu);
    v->c.cr4 = CR4_DE;
    expect_fault("DR4 with DE", to_dr(4, 0), EXC_UD, 0);
    env_long(0);
    GP0(to_dr(7, 1ull << 32));
    GP0(to_dr(6, 1ull << 32));
    cr_expect_eq(to_dr(0, ~0ull), SYS_NEXT);
    cr_expect_eq(from_dr(0), ~0ull);
}

Test(sysreg, breakpoints_flush_and_single_step)
{
    env_prot(0);
    flushed = -1;
    cr_expect_eq(to_dr(0, 0x1234), SYS_NEXT);
    cr_expect_eq(flushed, -1, "nothing enabled yet");
    cr_expect_eq(to_dr(7, 0x402), SYS_NEXT);
    cr_expect_eq(flushed, MMU_FLUSH_ALL);
    cr_expect_neq(v->c.key & CPU_KEY_STEP, 0);
}

Test(sysreg, general_detect_raises_debug_exception)
{
    env_prot(0);
    v->c.dr[7] = 0x2400;
    cr_expect_eq(to_dr(0, 0), SYS_FAULT);
    cr_expect_eq(v->fault.vector, EXC_DB);
    cr_expect_eq(v->fault.dr6, 0x2000);
    v->c.cpl = 3;
    GP0(to_dr(0, 0));
}

static int table(bool load, bool gdt, unsigned opsize)
{
    struct sys_op op = mk_op(opsize, 3);
    op.op = load ? (gdt ? SYS_OP_LGDT : SYS_OP_LIDT) : (gdt ? SYS_OP_SGDT : SYS_OP_SIDT);
    v->ea = 0x30000;
    return load ? sys_load_table(v, op) : sys_store_table(v, op);
}
Test(sysreg, tables_load_and_store_by_operand_size)
{
    env_prot(0);
    put(0x30000, 2, 0x1ff);
    put(0x30002, 4, 0x12345678);
    cr_expect_eq(table(true, true, 2), SYS_NEXT);
    cr_expect_eq(v->c.gdtr.base, 0x345678, "24 bits");
    cr_expect_eq(table(true, false, 4), SYS_NEXT);
    cr_expect_eq(v->c.idtr.base, 0x12345678);
    cr_expect_eq(v->c.idtr.limit, 0x1ff);
    put(0x30006, 2, 0xaaaa);
    cr_expect_eq(table(false, false, 4), SYS_NEXT);
    cr_expect_eq(get(0x30002, 4), 0x12345678);
    cr_expect_eq(get(0x30006, 2), 0xaaaa, "six bytes, not more");
}
Test(sysreg, tables_in_64_bit_mode_have_wide_canonical_bases)
{
    env_long(0);
    put(0x30000, 2, 0xfff);
    put(0x30002, 8, 0x0000900000000000ull);
    GP0(table(true, true, 8));
    put(0x30002, 8, 0xffffff0000001000ull);
    cr_expect_eq(table(true, true, 8), SYS_NEXT);
    cr_expect_eq(v->c.gdtr.base, 0xffffff0000001000ull);
    v->c.cpl = 3;
    GP0(table(true, true, 8));
    cr_expect_eq(table(false, true, 8), SYS_NEXT, "SGDT is not privileged");
    cr_expect_eq(get(0x30002, 8), 0xffffff0000001000ull);
}

static int xsetbv(uint64_t val)
{
    v->c.gpr[R_RAX] = val & 0xffffffff;
    v->c.gpr[R_RDX] = val >> 32;
    return sys_xsetbv(v, mk_op(4, 3));
}
Test(sysreg, xsetbv_knows_which_components_go_together)
{
    env_long(0);
    offer_all();
    v->c.gpr[R_RCX] = 0;
    expect_fault("without OSXSAVE", xsetbv(1), EXC_UD, 0);
    v->c.cr4 |= CR4_OSXSAVE;
    GP0(xsetbv(0));
    GP0(xsetbv(5));
    GP0(xsetbv(0x67));
    GP0(xsetbv(0xe3));
    GP0(xsetbv(0x207)); /* PKRU is not offered */
    cr_expect_eq(xsetbv(0xe7), SYS_NEXT);
    cr_expect_neq(v->c.key & CPU_KEY_AVX512, 0);
    v->c.gpr[R_RCX] = 1;
    GP0(xsetbv(1));
    v->c.gpr[R_RCX] = 0;
    cr_expect_eq(sys_xgetbv(v, mk_op(4, 3)), SYS_NEXT);
    cr_expect_eq(v->c.gpr[R_RAX], 0xe7);
    v->c.cpl = 3;
    GP0(xsetbv(1));
}
