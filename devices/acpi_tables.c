/* devices/acpi_tables.c - see acpi_tables.h. */
#include "devices/acpi_int.h"
#include "base/err.h"
#include "devices/acpi_pm.h"
#include "devices/fwcfg.h"
#include "devices/hpet.h"
#include "devices/ioapic.h"
#include "devices/lapic.h"
#include <stdlib.h>
#include <string.h>

#define TABLES_CAP (64u << 10)
#define HEADER 36u
#define FADT_BYTES 244u /* revision 4 */
#define SMI_PORT 0xb2u

struct build {
    struct acpi_blob *b;
    const struct acpi_cfg *cfg;
    bool bad;
    uint32_t table[8]; /* offsets listed in RSDT and XSDT */
    unsigned tables;
};

static void put(uint8_t *p, uint64_t v, unsigned n) { memcpy(p, &v, n); }

static void add_pointer(struct build *x, bool in_rsdp, uint32_t at, uint8_t size, uint32_t target)
{
    struct acpi_blob *b = x->b;
    if (b->ptrs == ACPI_MAX_FIXUPS) {
        x->bad = true;
        return;
    }
    put((in_rsdp ? b->rsdp : b->tables) + at, target, size);
    b->ptr[b->ptrs++] = (struct acpi_pointer){in_rsdp, at, size};
}

static void add_sum(struct build *x, bool in_rsdp, uint32_t at, uint32_t start, uint32_t len)
{
    if (x->b->sums == ACPI_MAX_FIXUPS) {
        x->bad = true;
        return;
    }
    x->b->sum[x->b->sums++] = (struct acpi_sum){in_rsdp, at, start, len};
}

/* Reserves a table of n bytes (8-byte aligned) with its header; lists it in the root tables if asked. Returns its offset. */
static uint32_t open_table(struct build *x, const char *sig, uint8_t rev, uint32_t n, bool listed)
{
    struct acpi_blob *b = x->b;
    uint32_t at = (uint32_t)(b->len + 7) & ~7u;
    if (at + n > TABLES_CAP) {
        x->bad = true;
        return 0;
    }
    b->len = at + n;
    uint8_t *h = b->tables + at;
    memcpy(h, sig, 4);
    put(h + 4, n, 4);
    h[8] = rev;
    memcpy(h + 10, ACPI_OEM_ID, 6);
    memcpy(h + 16, ACPI_OEM_TABLE, 8);
    put(h + 24, 1, 4);
    memcpy(h + 28, "RDWN", 4);
    put(h + 32, 1, 4);
    add_sum(x, false, at + 9, at, n);
    if (listed)
        x->table[x->tables++] = at;
    return at;
}

/* FACS (ACPI 5.2.10): no checksum, 64-byte aligned; it starts the blob. */
static uint32_t build_facs(struct build *x)
{
    uint8_t *p = x->b->tables;
    memcpy(p, "FACS", 4);
    put(p + 4, 64, 4);
    p[32] = 1; /* version */
    x->b->len = 64;
    return 0;
}

static uint32_t build_dsdt(struct build *x)
{
    struct acpi_blob *b = x->b;
    uint32_t at = open_table(x, "DSDT", 2, HEADER, false);
    struct aml a;
    aml_init(&a, b->tables + at + HEADER, TABLES_CAP - at - HEADER);
    acpi_dsdt_body(&a, x->cfg);
    if (a.bad || a.depth) {
        x->bad = true;
        return at;
    }
    b->len += a.len;
    put(b->tables + at + 4, HEADER + a.len, 4);
    b->sum[b->sums - 1].len = (uint32_t)(HEADER + a.len);
    return at;
}

/* Generic address structure for an I/O port block (ACPI 5.2.3.2). */
static void put_gas_io(uint8_t *p, uint8_t bits, uint8_t access, uint64_t addr)
{
    p[0] = 1;
    p[1] = bits;
    p[2] = 0;
    p[3] = access;
    put(p + 4, addr, 8);
}

static void build_fadt(struct build *x, uint32_t facs, uint32_t dsdt)
{
    enum { ACCESS_BYTE = 1, ACCESS_WORD = 2, ACCESS_DWORD = 3 };
    uint32_t at = open_table(x, "FACP", 4, FADT_BYTES, true);
    uint8_t *f = x->b->tables + at;
    uint16_t pm = x->cfg->pm_base;
    if (x->bad)
        return;
    put(f + 46, ACPI_SCI_IRQ, 2);
    put(f + 48, SMI_PORT, 4);
    f[52] = ACPI_PM_CMD_ENABLE;
    f[53] = ACPI_PM_CMD_DISABLE;
    put(f + 56, pm + ACPI_PM_EVT, 4);
    put(f + 64, pm + ACPI_PM_CNT, 4);
    put(f + 76, pm + ACPI_PM_TMR, 4);
    put(f + 80, pm + ACPI_PM_GPE0, 4);
    f[88] = 4;
    f[89] = 2;
    f[91] = 4;
    f[92] = ACPI_PM_GPE0_BYTES;
    put(f + 96, 0xfff, 2);                                /* C2 not supported */
    put(f + 98, 0xfff, 2);                                /* C3 not supported */
    f[108] = 0x32;                                        /* century byte in CMOS */
    put(f + 109, 0x0001 | (x->cfg->ps2 ? 0x0002 : 0), 2); /* legacy devices, 8042 */
    /* WBINVD works, C1 on all CPUs, no sleep button, RTC wake not fixed, 32-bit PM timer, reset register */
    put(f + 112, 1u << 0 | 1u << 2 | 1u << 5 | 1u << 6 | 1u << 8 | 1u << 10, 4);
    put_gas_io(f + 116, 8, ACCESS_BYTE, ACPI_RESET_PORT);
    f[128] = ACPI_RESET_VALUE;
    put_gas_io(f + 148, 32, ACCESS_WORD, pm + ACPI_PM_EVT);
    put_gas_io(f + 172, 16, ACCESS_WORD, pm + ACPI_PM_CNT);
    put_gas_io(f + 208, 32, ACCESS_DWORD, pm + ACPI_PM_TMR);
    put_gas_io(f + 220, 8 * ACPI_PM_GPE0_BYTES, ACCESS_BYTE, pm + ACPI_PM_GPE0);
    add_pointer(x, false, at + 36, 4, facs); /* X_FIRMWARE_CTRL stays 0: only one of the two may be used (5.2.9) */
    add_pointer(x, false, at + 40, 4, dsdt);
    add_pointer(x, false, at + 140, 8, dsdt);
}

static void build_madt(struct build *x)
{
    const struct acpi_cfg *c = x->cfg;
    uint32_t n = HEADER + 8 + 8 * c->cpus + 12 + 2 * 10 + 6;
    uint32_t at = open_table(x, "APIC", 3, n, true);
    if (x->bad)
        return;
    uint8_t *p = x->b->tables + at + HEADER;
    put(p, LAPIC_DEFAULT_BASE, 4);
    put(p + 4, 1, 4); /* PCAT_COMPAT: there are 8259s too */
    p += 8;
    for (unsigned i = 0; i < c->cpus; i++, p += 8) {
        p[0] = 0, p[1] = 8, p[2] = (uint8_t)i, p[3] = (uint8_t)i;
        put(p + 4, 1, 4);
    }
    p[0] = 1, p[1] = 12, p[2] = c->ioapic_id;
    put(p + 4, IOAPIC_DEFAULT_BASE, 4);
    p += 12;
    /* ISA overrides: the PIT is on pin 2; the SCI is level, active high, unlike ISA's default */
    static const struct {
        uint8_t src, gsi, flags;
    } iso[2] = {{0, 2, 0}, {ACPI_SCI_IRQ, ACPI_SCI_IRQ, 0x0d}};
    for (unsigned i = 0; i < 2; i++, p += 10) {
        p[0] = 2, p[1] = 10, p[3] = iso[i].src;
        put(p + 4, iso[i].gsi, 4);
        put(p + 8, iso[i].flags, 2);
    }
    p[0] = 4, p[1] = 6, p[2] = 0xff, p[5] = 1; /* NMI on LINT1 of all CPUs */
}

static void build_hpet(struct build *x)
{
    uint32_t at = open_table(x, "HPET", 1, 56, true);
    if (x->bad)
        return;
    uint8_t *p = x->b->tables + at + HEADER;
    put(p, HPET_BLOCK_ID, 4);
    put(p + 8, HPET_BASE, 8); /* address structure: space 0 = memory */
}

static void build_waet(struct build *x)
{
    uint32_t at = open_table(x, "WAET", 1, 40, true);
    if (!x->bad)
        put(x->b->tables + at + HEADER, 3, 4); /* RTC needs no extra acknowledge; PM timer reads are reliable */
}

static uint32_t build_root(struct build *x, const char *sig, uint8_t entry_bytes)
{
    uint32_t at = open_table(x, sig, 1, HEADER + entry_bytes * x->tables, false);
    for (unsigned i = 0; i < x->tables && !x->bad; i++)
        add_pointer(x, false, at + HEADER + i * entry_bytes, entry_bytes, x->table[i]);
    return at;
}

static void build_rsdp(struct build *x, uint32_t rsdt, uint32_t xsdt)
{
    uint8_t *r = x->b->rsdp;
    memcpy(r, "RSD PTR ", 8);
    memcpy(r + 9, ACPI_OEM_ID, 6);
    r[15] = 2;
    put(r + 20, sizeof(x->b->rsdp), 4);
    add_pointer(x, true, 16, 4, rsdt);
    add_pointer(x, true, 24, 8, xsdt);
    add_sum(x, true, 8, 0, 20);
    add_sum(x, true, 32, 0, 36);
}

int acpi_build(struct acpi_blob *b, const struct acpi_cfg *cfg)
{
    struct acpi_cfg c = *cfg;
    memset(b, 0, sizeof(*b));
    if (c.cpus == 0 || c.cpus > ACPI_MAX_CPUS || c.hole32_last <= c.hole32_first ||
        (c.hole64_last && c.hole64_last <= c.hole64_first))
        return -RD_E_INVAL;
    if (!c.ioapic_id)
        c.ioapic_id = (uint8_t)c.cpus;
    if (!c.pm_base)
        c.pm_base = ACPI_PM_BASE_DEFAULT;
    b->tables = calloc(1, TABLES_CAP);
    if (!b->tables)
        return -RD_E_NOMEM;
    struct build x = {.b = b, .cfg = &c};
    uint32_t facs = build_facs(&x);
    uint32_t dsdt = build_dsdt(&x);
    build_fadt(&x, facs, dsdt);
    build_madt(&x);
    if (c.hpet)
        build_hpet(&x);
    build_waet(&x);
    uint32_t rsdt = build_root(&x, "RSDT", 4), xsdt = build_root(&x, "XSDT", 8);
    build_rsdp(&x, rsdt, xsdt);
    if (x.bad) { /* the configuration is bounded, so the room is known to do */
        acpi_free(b);
        return -RD_E_NOMEM;
    }
    return 0;
}

void acpi_free(struct acpi_blob *b)
{
    free(b->tables);
    b->tables = NULL;
    b->len = 0;
}

/* -- finished image -- */
#define RSDP_ROOM 64u /* keeps the tables 64-byte aligned behind the RSDP */

size_t acpi_image_bytes(const struct acpi_blob *b) { return RSDP_ROOM + b->len; }

int acpi_place(const struct acpi_blob *b, uint32_t gpa, uint8_t *out, size_t cap)
{
    if (gpa & 63 || cap < acpi_image_bytes(b) || gpa + acpi_image_bytes(b) > UINT32_MAX)
        return -RD_E_INVAL;
    memset(out, 0, RSDP_ROOM);
    memcpy(out, b->rsdp, sizeof(b->rsdp));
    uint8_t *tables = out + RSDP_ROOM;
    memcpy(tables, b->tables, b->len);
    for (unsigned i = 0; i < b->ptrs; i++) {
        uint8_t *p = (b->ptr[i].in_rsdp ? out : tables) + b->ptr[i].at;
        uint64_t v = 0;
        memcpy(&v, p, b->ptr[i].size);
        put(p, v + gpa + RSDP_ROOM, b->ptr[i].size);
    }
    for (unsigned i = 0; i < b->sums; i++) {
        const struct acpi_sum *s = &b->sum[i];
        uint8_t *p = s->in_rsdp ? out : tables, sum = 0;
        p[s->at] = 0;
        for (uint32_t k = 0; k < s->len; k++)
            sum = (uint8_t)(sum + p[s->start + k]);
        p[s->at] = (uint8_t)-sum;
    }
    return 0;
}

/* -- etc/table-loader: 128-byte commands, little endian -- */
#define LOADER_CMD 128u
#define LOADER_FILE 56u
enum { LOADER_ALLOCATE = 1, LOADER_ADD_POINTER = 2, LOADER_ADD_CHECKSUM = 3 };
enum { ZONE_HIGH = 1, ZONE_FSEG = 2 };
#define TABLES_FILE "etc/acpi/tables"
#define RSDP_FILE "etc/acpi/rsdp"

static const char *file_of(bool in_rsdp) { return in_rsdp ? RSDP_FILE : TABLES_FILE; }

static uint8_t *loader_alloc(uint8_t *p, const char *file, uint32_t align, uint8_t zone)
{
    put(p, LOADER_ALLOCATE, 4);
    strncpy((char *)p + 4, file, LOADER_FILE - 1);
    put(p + 60, align, 4);
    p[64] = zone;
    return p + LOADER_CMD;
}

int acpi_export(const struct acpi_blob *b, struct fwcfg *fw)
{
    size_t n = (2 + b->ptrs + b->sums) * LOADER_CMD;
    uint8_t *script = calloc(1, n), *p = script;
    if (!script)
        return -RD_E_NOMEM;
    p = loader_alloc(p, RSDP_FILE, 16, ZONE_FSEG);
    p = loader_alloc(p, TABLES_FILE, 64, ZONE_HIGH);
    for (unsigned i = 0; i < b->ptrs; i++, p += LOADER_CMD) {
        put(p, LOADER_ADD_POINTER, 4);
        strncpy((char *)p + 4, file_of(b->ptr[i].in_rsdp), LOADER_FILE - 1);
        strncpy((char *)p + 60, TABLES_FILE, LOADER_FILE - 1);
        put(p + 116, b->ptr[i].at, 4);
        p[120] = b->ptr[i].size;
    }
    for (unsigned i = 0; i < b->sums; i++, p += LOADER_CMD) {
        put(p, LOADER_ADD_CHECKSUM, 4);
        strncpy((char *)p + 4, file_of(b->sum[i].in_rsdp), LOADER_FILE - 1);
        put(p + 60, b->sum[i].at, 4);
        put(p + 64, b->sum[i].start, 4);
        put(p + 68, b->sum[i].len, 4);
    }
    int e = fwcfg_add_file(fw, TABLES_FILE, b->tables, b->len);
    if (!e)
        e = fwcfg_add_file(fw, RSDP_FILE, b->rsdp, sizeof(b->rsdp));
    if (!e)
        e = fwcfg_add_file(fw, "etc/table-loader", script, n);
    free(script);
    return e;
}
