/* monitor/boot_cpu.c - the CPU as the boot protocols want it at the first instruction of the kernel.
 *
 * Nothing here changes what reset set and no protocol names: MSRs, debug registers, XCR0.
 */
#include "monitor/boot_int.h"

#define SEL_CODE 0x10 /* Linux's boot protocol asks for these two (__BOOT_CS, __BOOT_DS); the others leave the choice */
#define SEL_DATA 0x18
#define ATTR_CODE32 (SEG_P | SEG_S | SEG_CODE | SEG_RW | SEG_A | SEG_DB | SEG_G)
#define ATTR_CODE64 (SEG_P | SEG_S | SEG_CODE | SEG_RW | SEG_A | SEG_L | SEG_G)
#define ATTR_DATA32 (SEG_P | SEG_S | SEG_RW | SEG_A | SEG_DB | SEG_G)
#define ATTR_REAL (SEG_P | SEG_S | SEG_RW | SEG_A)

static void set_seg(struct cpu *c, unsigned s, uint16_t sel, uint64_t base, uint32_t limit, uint32_t attr)
{
    c->seg[s] = (struct seg){.sel = sel, .base = base, .limit = limit, .attr = attr};
    cpu_seg_cache(&c->seg[s]);
}

/* A descriptor with base 0 and limit 0xfffff pages (SDM 3A 3.4.5). attr is bytes 5 and 6 of it. */
static uint64_t flat_descriptor(uint32_t attr) { return 0x000f00000000ffffull | (uint64_t)attr << 40; }

static void clear_registers(struct cpu *c, uint64_t rip)
{
    memset(c->gpr, 0, sizeof c->gpr);
    c->rip = rip;
    cpu_set_eflags(c, EFLAGS_R1);
    c->shadow = 0;
    c->cpl = 0;
    c->cr2 = 0;
    c->cr8 = 0;
    /* No IDT: an exception before the kernel has its own is a shutdown, not a jump into nowhere. */
    c->idtr = (struct dtable){0};
    set_seg(c, S_LDTR, 0, 0, 0, SEG_UNUSABLE);
    /* PVH: a 32-bit TSS with base 0 and limit 0x67. */
    set_seg(c, S_TR, 0, 0, 0x67, SEG_P | DT_TSS_BUSY);
}

static int load_flat(struct boot *b, uint32_t code_attr)
{
    struct cpu *c = b->cpu;
    uint64_t gdt[4] = {0, 0, flat_descriptor(code_attr), flat_descriptor(ATTR_DATA32)}, gpa;
    int r = boot_put_low(b, "the descriptor table", gdt, sizeof gdt, &gpa);
    if (r)
        return r;
    c->gdtr = (struct dtable){.base = gpa, .limit = sizeof gdt - 1};
    set_seg(c, S_CS, SEL_CODE, 0, 0xffffffff, code_attr);
    static const uint8_t data[] = {S_ES, S_SS, S_DS, S_FS, S_GS};
    for (unsigned i = 0; i < sizeof data; i++)
        set_seg(c, data[i], SEL_DATA, 0, 0xffffffff, ATTR_DATA32);
    return 0;
}

int boot_cpu_flat32(struct boot *b, uint64_t rip)
{
    struct cpu *c = b->cpu;
    int r = load_flat(b, ATTR_CODE32);
    if (r)
        return r;
    clear_registers(c, rip);
    c->cr0 = CR0_PE | CR0_ET;
    c->cr3 = c->cr4 = c->efer = 0;
    return 0;
}

/* One root, one directory pointer table, four directories of 512 pages of 2 MiB: the first 4 GiB, where everything that the
 * protocol wants mapped has been put. */
static int build_identity_map(struct boot *b, uint64_t *root)
{
    uint64_t table[512] = {0}, gpa;
    struct boot_want w = {.bytes = 6 * PAGE_SIZE, .align = PAGE_SIZE, .min = BOOT_LOW_START, .max = BOOT_LOW_LIMIT};
    if (!boot_place(b, &w, &gpa))
        return boot_fail(b, RD_E_RANGE, "'%s': no room for page tables in the guest's first MiB", b->kernel.name);
    table[0] = (gpa + PAGE_SIZE) | PTE_P | PTE_W;
    int r = boot_write(b, gpa, table, sizeof table);
    for (unsigned i = 0; i < 4; i++)
        table[i] = (gpa + (2 + i) * PAGE_SIZE) | PTE_P | PTE_W;
    r = r ? r : boot_write(b, gpa + PAGE_SIZE, table, sizeof table);
    for (unsigned dir = 0; dir < 4; dir++) {
        for (unsigned i = 0; i < 512; i++)
            table[i] = ((uint64_t)(dir * 512 + i) << 21) | PTE_P | PTE_W | PTE_PS;
        r = r ? r : boot_write(b, gpa + (2 + dir) * PAGE_SIZE, table, sizeof table);
    }
    *root = gpa;
    return r;
}

int boot_cpu_long(struct boot *b, uint64_t rip)
{
    struct cpu *c = b->cpu;
    uint64_t root;
    int r = build_identity_map(b, &root);
    if (!r)
        r = load_flat(b, ATTR_CODE64);
    if (r)
        return r;
    clear_registers(c, rip);
    c->cr0 = CR0_PE | CR0_ET | CR0_PG;
    c->cr3 = root;
    c->cr4 = CR4_PAE;
    c->efer = EFER_LME | EFER_LMA;
    return 0;
}

void boot_cpu_real(struct boot *b, uint16_t cs, uint16_t ip, uint16_t ds, uint16_t sp)
{
    struct cpu *c = b->cpu;
    clear_registers(c, ip);
    c->gpr[R_RSP] = sp;
    c->gdtr = (struct dtable){.base = 0, .limit = 0xffff};
    c->idtr = (struct dtable){.base = 0, .limit = 0x3ff};
    c->cr0 = CR0_ET;
    c->cr3 = c->cr4 = c->efer = 0;
    for (unsigned s = S_ES; s <= S_GS; s++)
        set_seg(c, s, s == S_CS ? cs : ds, (uint64_t)(s == S_CS ? cs : ds) << 4, 0xffff, ATTR_REAL);
}
