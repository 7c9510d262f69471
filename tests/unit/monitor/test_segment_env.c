/* See test_segment_env.h. The monitor's hooks are weak, so that the real ones win once they are linked. */
#include "tests/unit/monitor/test_segment_env.h"
#include "monitor/vm_int.h"
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

struct vcpu *v;
struct cpumodel env_model;
static struct stats stats;

__attribute__((weak)) void fpu_leave(struct vcpu *u) {}
__attribute__((weak)) void vcpu_trace_write(struct vcpu *u, uint64_t gpa, unsigned bytes) {}
__attribute__((weak)) void vcpu_mmu_flush(struct vcpu *u, enum mmu_flush what) {}
__attribute__((weak)) int vcpu_mmio(struct vcpu *u, uint64_t gpa, unsigned size, bool is_write, uint8_t *data)
{
    memset(data, 0xff, is_write ? 0 : size);
    return 0;
}

void put(uint64_t lin, unsigned n, uint64_t val) { memcpy(gpmem_ptr(v->mem, lin), &val, n); }
uint64_t get(uint64_t lin, unsigned n)
{
    uint64_t val = 0;
    memcpy(&val, gpmem_ptr(v->mem, lin), n);
    return val;
}

void set_desc(uint64_t lin, uint64_t base, uint32_t limit, uint32_t attr)
{
    uint64_t l = attr & SEG_G ? limit >> 12 : limit;
    put(lin, 8,
        (l & 0xffff) | (base & 0xffffff) << 16 | (uint64_t)attr << 40 | (l & 0xf0000) << 32 |
            (base >> 24 & 0xff) << 56);
}
void set_gdt(unsigned sel, uint64_t base, uint32_t limit, uint32_t attr)
{
    set_desc(GDT + (sel & ~7u), base, limit, attr);
}
uint32_t gdt_attr(unsigned sel) { return get(GDT + (sel & ~7u) + 5, 1); }

static uint64_t gate(unsigned type, unsigned dpl, unsigned target, uint64_t off, unsigned low)
{
    uint64_t attr = SEG_P | dpl << SEG_DPL_SHIFT | type;
    return (off & 0xffff) | (uint64_t)target << 16 | (uint64_t)low << 32 | attr << 40 | (off >> 16 & 0xffff) << 48;
}
void set_call_gate(unsigned sel, unsigned type, unsigned dpl, unsigned target, uint64_t off, unsigned low)
{
    put(GDT + (sel & ~7u), 8, gate(type, dpl, target, off, low));
    if (cpu_long_mode(&v->c))
        put(GDT + (sel & ~7u) + 8, 8, off >> 32);
}
void set_idt(unsigned vector, unsigned type, unsigned dpl, unsigned target, uint64_t off, unsigned low)
{
    bool wide = cpu_long_mode(&v->c);
    put(IDT + vector * (wide ? 16 : 8), 8, gate(type, dpl, target, off, low));
    if (wide)
        put(IDT + vector * 16 + 8, 8, off >> 32);
}

static void clear(void)
{
    env_free();
    v = calloc(1, sizeof *v);
    v->priv = calloc(1, sizeof *v->priv); /* the real vcpu_mmu_flush looks into it */
    cr_assert_eq(gpmem_create(&v->mem, 0x400000), 0);
    cr_assert_eq(gpmem_add(v->mem, 0, 0x400000, false), 0);
    softtlb_init(&v->tlb[0]);
    softtlb_init(&v->tlb[1]);
    memset(&stats, 0, sizeof stats);
    memset(&env_model, 0, sizeof env_model);
    env_model.intel = true;
    v->stats = &stats;
    v->cpu = &env_model;
    v->c.cr0 = CR0_ET;
    v->c.dr[6] = 0xffff0ff0;
    v->c.dr[7] = 0x400;
    v->c.rip = 0x100;
    v->c.idtr.limit = 0x3ff;
    for (unsigned i = 0; i < S_COUNT; i++) {
        v->c.seg[i].attr = SEG_P | SEG_S | SEG_RW | SEG_A;
        v->c.seg[i].limit = 0xffff;
        cpu_seg_cache(&v->c.seg[i]);
    }
}
void env_free(void)
{
    if (v) {
        gpmem_destroy(v->mem);
        free(v->priv);
    }
    free(v);
    v = NULL;
}

void env_real(void)
{
    clear();
    seg_load_real(v, S_CS, 0x2000);
    seg_load_real(v, S_SS, 0x1000);
    v->c.gpr[R_RSP] = 0x800;
    cpu_update_key(&v->c);
}

static void fill_gdt(void)
{
    static const struct {
        uint16_t sel;
        uint64_t base;
        uint32_t limit, attr;
    } d[] = {
        {SEL_C0, 0, ~0u, A_CODE},
        {SEL_D0, 0, ~0u, A_DATA},
        {SEL_C3, 0, ~0u, A_CODE | A_DPL(3)},
        {SEL_D3, 0, ~0u, A_DATA | A_DPL(3)},
        {SEL_C1, 0, ~0u, A_CODE | A_DPL(1)},
        {SEL_D1, 0, ~0u, A_DATA | A_DPL(1)},
        {SEL_CONF0, 0, ~0u, A_CONF},
        {SEL_C16, CODE, 0xffff, A_CODE & ~(SEG_DB | SEG_G)},
        {SEL_S16, STACK0, 0xffff, A_DATA & ~(SEG_DB | SEG_G)},
        {SEL_TSS, TSS, 0x67, SEG_P | DT_TSS_BUSY},
        {SEL_TSS2, TSS2, 0x67, SEG_P | DT_TSS},
        {SEL_LDT, LDT, 0x3f, SEG_P | DT_LDT},
        {SEL_C64, 0, ~0u, (A_CODE & ~SEG_DB) | SEG_L},
        {SEL_C64U, 0, ~0u, (A_CODE & ~SEG_DB) | SEG_L | A_DPL(3)},
    };
    for (unsigned i = 0; i < sizeof d / sizeof d[0]; i++)
        set_gdt(d[i].sel, d[i].base, d[i].limit, d[i].attr);
    v->c.gdtr = (struct dtable){.base = GDT, .limit = GDT_BYTES - 1};
    v->c.idtr = (struct dtable){.base = IDT, .limit = 0x7ff};
}

static void load(unsigned seg, unsigned sel)
{
    struct desc d;
    cr_assert_eq(desc_read(v, (uint16_t)sel, EXC_GP, 0, &d), 0);
    d.attr |= d.attr & SEG_S ? SEG_A : 0;
    seg_set(&v->c, seg, (uint16_t)sel, &d);
}

static void load_ring(unsigned cs, unsigned ss, unsigned cpl)
{
    static const uint8_t data[] = {S_SS, S_DS, S_ES, S_FS, S_GS};
    load(S_CS, cs + cpl);
    for (unsigned i = 0; i < sizeof data; i++)
        load(data[i], ss + cpl);
    load(S_TR, SEL_TSS);
    load(S_LDTR, SEL_LDT);
    v->c.cpl = (uint8_t)cpl;
    v->c.rip = CODE;
    v->c.gpr[R_RSP] = cpl == 3 ? STACK3 : cpl == 1 ? STACK1 : STACK0;
    cpu_update_key(&v->c);
}

void env_prot(unsigned cpl)
{
    static const uint16_t code[] = {SEL_C0, SEL_C1, 0, SEL_C3}, data[] = {SEL_D0, SEL_D1, 0, SEL_D3};
    clear();
    v->c.cr0 |= CR0_PE;
    fill_gdt();
    put(TSS + 4, 4, STACK0);
    put(TSS + 8, 2, SEL_D0);
    put(TSS + 12, 4, STACK1);
    put(TSS + 16, 2, SEL_D1 + 1);
    load_ring(code[cpl], data[cpl], cpl);
}

void env_vm86(unsigned iopl)
{
    env_prot(0);
    v->c.eflags_sys = EFLAGS_VM | iopl << EFLAGS_IOPL_SHIFT;
    v->c.cpl = 3;
    seg_load_real(v, S_CS, 0x2000);
    seg_load_real(v, S_SS, 0x1800);
    seg_load_real(v, S_DS, 0x0123);
    seg_load_real(v, S_ES, 0x0456);
    seg_load_real(v, S_FS, 0x0789);
    seg_load_real(v, S_GS, 0x0abc);
    v->c.gpr[R_RSP] = 0x800;
    v->c.rip = 0x100;
    cpu_update_key(&v->c);
}

/* Identity map of the first 4 MiB, user and supervisor, and of the same at the start of the upper half. */
static void map_long(void)
{
    put(TABLES, 8, (TABLES + 0x1000) | 7);
    put(TABLES + 256 * 8, 8, (TABLES + 0x1000) | 7);
    put(TABLES + 0x1000, 8, (TABLES + 0x2000) | 7);
    put(TABLES + 0x2000, 8, 0 | 0xe7);
    put(TABLES + 0x2008, 8, 0x200000 | 0xe7);
    v->c.cr3 = TABLES;
}

void env_long(unsigned cpl)
{
    clear();
    v->c.cr0 |= CR0_PE;
    fill_gdt();
    map_long();
    v->c.cr0 |= CR0_PG;
    v->c.cr4 = CR4_PAE;
    v->c.efer = EFER_LME | EFER_LMA | EFER_SCE;
    v->c.idtr.limit = 0xfff;
    put(TSS + 4, 8, STACK0);
    put(TSS + 12, 8, STACK1);
    put(TSS + 36, 8, STACK0 - 0x800); /* IST1 */
    load_ring(cpl ? SEL_C64U : SEL_C64, cpl ? SEL_D3 : SEL_D0, cpl);
}

void env_compat(unsigned cpl)
{
    env_long(cpl);
    load(S_CS, (cpl ? SEL_C3 : SEL_C0) + cpl);
    cpu_update_key(&v->c);
}

void expect_stack(const char *what, uint64_t lin, unsigned n, const uint64_t *val, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        cr_expect_eq(get(lin + i * n, n), val[i], "%s: element %u is %lx, wanted %lx", what, i, get(lin + i * n, n),
                     val[i]);
}
void expect_fault(const char *what, int rc, unsigned vector, uint32_t error)
{
    cr_expect_eq(rc, SYS_FAULT, "%s: result %d instead of a fault", what, rc);
    cr_expect_eq(v->fault.vector, vector, "%s: vector %u, wanted %u", what, v->fault.vector, vector);
    cr_expect_eq(v->fault.error, error, "%s: error %x, wanted %x", what, v->fault.error, error);
}

struct sys_op mk_op(unsigned opsize, unsigned len)
{
    return (struct sys_op){.opsize = (uint8_t)opsize, .len = (uint8_t)len, .rm = SYS_RM_MEM, .seg = S_DS, .asize = 4};
}
static int far_go(bool call, struct sys_op op) { return call ? sys_xfer_call_far(v, op) : sys_xfer_jmp_far(v, op); }
int far_imm(bool call, unsigned opsize, unsigned sel, uint64_t off)
{
    struct sys_op op = mk_op(opsize, 7);
    op.flags = SYS_F_IMM;
    v->op_imm = (uint64_t)sel << 32 | off;
    return far_go(call, op);
}
int far_mem(bool call, unsigned opsize, unsigned sel, uint64_t off)
{
    v->ea = 0x7000;
    put(v->ea, opsize, off);
    put(v->ea + opsize, 2, sel);
    return far_go(call, mk_op(opsize, 7));
}
int do_iret(unsigned opsize) { return sys_xfer_iret(v, mk_op(opsize, 1)); }
int do_retf(unsigned opsize, unsigned release)
{
    v->op_imm = release;
    return sys_xfer_ret_far(v, mk_op(opsize, 3));
}
int do_int(unsigned vector)
{
    v->op_imm = vector;
    return sys_exc_int(v, mk_op(4, 2));
}
int deliver_fault(unsigned vector, bool has_error, uint32_t error)
{
    struct guest_fault f = {.vector = (uint8_t)vector, .has_error = has_error, .error = error};
    return exc_deliver(v, EXC_FAULT, &f);
}
