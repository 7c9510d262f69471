/* devices/mptable.c - Intel MultiProcessor Specification 1.4 tables, for guests that run without ACPI. See acpi_tables.h. */
#include "base/err.h"
#include "devices/acpi_pm.h"
#include "devices/acpi_tables.h"
#include "devices/ioapic.h"
#include "devices/lapic.h"
#include "devices/pci.h"
#include <string.h>

#define FLOATING 16u
#define CFG_HEADER 44u
#define BUS_PCI_ID 0
#define BUS_ISA_ID 1
enum { INT_VECTORED = 0, INT_NMI = 1, INT_EXTINT = 3 };
enum { CONFORMS = 0x0, LEVEL_HIGH = 0xd, LEVEL_LOW = 0xf };

struct mp {
    uint8_t *p, *end; /* end is checked by mptable_build before anything is written */
    unsigned entries;
};

static void put(uint8_t *p, uint64_t v, unsigned n) { memcpy(p, &v, n); }

static void add_cpu(struct mp *m, unsigned id, const struct acpi_cfg *c)
{
    uint8_t *p = m->p;
    p[0] = 0, p[1] = (uint8_t)id, p[2] = LAPIC_VERSION & 0xff;
    p[3] = id == 0 ? 3 : 1; /* enabled; CPU 0 boots */
    put(p + 4, c->cpu_signature, 4);
    put(p + 8, c->cpu_features, 4);
    m->p += 20;
    m->entries++;
}

static void add_bus(struct mp *m, uint8_t id, const char *type)
{
    m->p[0] = 1, m->p[1] = id;
    memcpy(m->p + 2, type, 6);
    m->p += 8;
    m->entries++;
}

/* kind 3 = I/O interrupt (destination: IOAPIC id, pin), 4 = local interrupt (LAPIC id, LINT) */
static void add_int(struct mp *m, uint8_t kind, uint8_t type, uint8_t flags, uint16_t src, uint16_t dst)
{
    uint8_t *p = m->p;
    p[0] = kind, p[1] = type;
    put(p + 2, flags, 2);
    put(p + 4, src, 2); /* bus | source irq << 8 */
    put(p + 6, dst, 2); /* APIC id | pin << 8 */
    m->p += 8;
    m->entries++;
}

static void add_interrupts(struct mp *m, uint8_t ioapic)
{
    add_int(m, 3, INT_EXTINT, CONFORMS, BUS_ISA_ID, (uint16_t)(ioapic | 0 << 8));
    for (unsigned irq = 0; irq < 16; irq++) {
        unsigned pin = irq == 0 ? 2 : irq;
        if (irq == 2) /* the cascade */
            continue;
        add_int(m, 3, INT_VECTORED, irq == ACPI_SCI_IRQ ? LEVEL_HIGH : CONFORMS, (uint16_t)(BUS_ISA_ID | irq << 8),
                (uint16_t)(ioapic | pin << 8));
    }
    for (unsigned slot = 0; slot < PCI_SLOTS; slot++) {
        for (unsigned pin = 0; pin < 4; pin++)
            add_int(m, 3, INT_VECTORED, LEVEL_LOW, (uint16_t)(BUS_PCI_ID | (slot << 2 | pin) << 8),
                    (uint16_t)(ioapic | (PCI_GSI_FIRST + pci_pirq(slot, pin)) << 8));
    }
    add_int(m, 4, INT_EXTINT, CONFORMS, BUS_ISA_ID, 0xff | 0 << 8);
    add_int(m, 4, INT_NMI, CONFORMS, BUS_ISA_ID, 0xff | 1 << 8);
}

static void set_checksum(uint8_t *p, size_t n, size_t at)
{
    uint8_t sum = 0;
    p[at] = 0;
    for (size_t i = 0; i < n; i++)
        sum = (uint8_t)(sum + p[i]);
    p[at] = (uint8_t)-sum;
}

long mptable_build(const struct acpi_cfg *cfg, uint32_t gpa, uint8_t *out, size_t cap)
{
    size_t need = FLOATING + CFG_HEADER + 20 * (size_t)cfg->cpus + 2 * 8 + 8 + (16 + PCI_SLOTS * 4 + 2) * 8;
    if (cfg->cpus == 0 || cfg->cpus > ACPI_MAX_CPUS || gpa & 15 || cap < need)
        return -RD_E_INVAL;
    memset(out, 0, need);
    uint8_t ioapic = cfg->ioapic_id ? cfg->ioapic_id : (uint8_t)cfg->cpus, *head = out + FLOATING;
    struct mp m = {.p = head + CFG_HEADER};
    for (unsigned i = 0; i < cfg->cpus; i++)
        add_cpu(&m, i, cfg);
    add_bus(&m, BUS_PCI_ID, "PCI   ");
    add_bus(&m, BUS_ISA_ID, "ISA   ");
    m.p[0] = 2, m.p[1] = ioapic, m.p[2] = IOAPIC_VERSION & 0xff, m.p[3] = 1;
    put(m.p + 4, IOAPIC_DEFAULT_BASE, 4);
    m.p += 8;
    m.entries++;
    add_interrupts(&m, ioapic);

    memcpy(head, "PCMP", 4);
    put(head + 4, (uint64_t)(m.p - head), 2);
    head[6] = 4; /* specification 1.4 */
    memcpy(head + 8, "RINGDOWN", 8);
    memcpy(head + 16, "PC          ", 12);
    put(head + 34, m.entries, 2);
    put(head + 36, LAPIC_DEFAULT_BASE, 4);
    set_checksum(head, (size_t)(m.p - head), 7);
    memcpy(out, "_MP_", 4);
    put(out + 4, gpa + FLOATING, 4);
    out[8] = 1; /* in 16-byte units */
    out[9] = 4;
    set_checksum(out, FLOATING, 10);
    return (long)(m.p - out);
}
