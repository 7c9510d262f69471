/* devices/acpi_dsdt.c - the DSDT: what a PC's operating system cannot find out by itself.
 *
 * PCI root bus with its windows and interrupt routing, PIRQ links, the ISA devices, S5, processors. Fixed hardware (power button,
 * PM timer) is described by the FADT and needs nothing here. See aml.h for the encoder.
 */
#include "devices/acpi_int.h"
#include "devices/acpi_pm.h"
#include "devices/hpet.h"
#include "devices/pci.h"
#include <stdio.h>

#define STA_PRESENT 0x0f

/* LNKx: an interrupt line of the PIIX3's router, register PRQx at configuration offset 0x60+x of the ISA bridge. */
static void link_device(struct aml *a, unsigned i)
{
    char dev[5] = {'L', 'N', 'K', (char)('A' + i), 0}, reg[5] = {'P', 'R', 'Q', (char)('A' + i), 0};
    struct aml_res none = {.len = 0}, possible = {.len = 0};
    aml_res_irq(&possible, PCI_PIRQ_CHOICES, true);
    aml_res_irq(&none, 0, true);

    aml_open_device(a, dev);
    aml_name_eisaid(a, "_HID", "PNP0C0F");
    aml_name_int(a, "_UID", i + 1);
    aml_name_res(a, "_PRS", &possible);

    aml_open_method(a, "_STA", 0, false); /* register bit 7: not routed */
    aml_open_if(a);
    aml_op(a, AML_AND), aml_ref(a, reg), aml_int(a, 0x80), aml_op(a, AML_ZERO);
    aml_op(a, AML_RETURN), aml_int(a, 0x09);
    aml_close(a);
    aml_op(a, AML_RETURN), aml_int(a, 0x0b);
    aml_close(a);

    aml_open_method(a, "_DIS", 0, false);
    aml_op(a, AML_OR), aml_ref(a, reg), aml_int(a, 0x80), aml_ref(a, reg);
    aml_close(a);

    aml_open_method(a, "_CRS", 0, true);
    aml_name_res(a, "BUFR", &none);
    aml_op(a, AML_CREATE_WORD_FIELD), aml_ref(a, "BUFR"), aml_int(a, 1), aml_ref(a, "IRQM");
    aml_op(a, AML_AND), aml_ref(a, reg), aml_int(a, 0x80), aml_op(a, AML_LOCAL0);
    aml_open_if(a);
    aml_op(a, 0x92 /* LNot */), aml_op(a, AML_LOCAL0);
    aml_op(a, AML_AND), aml_ref(a, reg), aml_int(a, 0x0f), aml_op(a, AML_LOCAL0);
    aml_op(a, AML_SHIFT_LEFT), aml_op(a, AML_ONE), aml_op(a, AML_LOCAL0), aml_ref(a, "IRQM");
    aml_close(a);
    aml_op(a, AML_RETURN), aml_ref(a, "BUFR");
    aml_close(a);

    aml_open_method(a, "_SRS", 1, true);
    aml_op(a, AML_CREATE_WORD_FIELD), aml_op(a, AML_ARG0), aml_int(a, 1), aml_ref(a, "IRQS");
    aml_op(a, AML_FIND_RIGHT), aml_ref(a, "IRQS"), aml_op(a, AML_LOCAL0);
    aml_op(a, AML_DECREMENT), aml_op(a, AML_LOCAL0);
    aml_op(a, AML_STORE), aml_op(a, AML_LOCAL0), aml_ref(a, reg);
    aml_close(a);
    aml_close(a);
}

/* One routing table: every slot and pin of bus 0. */
static void routing_table(struct aml *a, const char *name, bool apic)
{
    aml_name(a, name);
    aml_open_package(a, PCI_SLOTS * 4);
    for (unsigned slot = 0; slot < PCI_SLOTS; slot++) {
        for (unsigned pin = 0; pin < 4; pin++) {
            unsigned pirq = pci_pirq(slot, pin);
            char link[5] = {'L', 'N', 'K', (char)('A' + pirq), 0};
            aml_open_package(a, 4);
            aml_int(a, (uint64_t)slot << 16 | 0xffff);
            aml_int(a, pin);
            if (apic) {
                aml_int(a, 0);
                aml_int(a, PCI_GSI_FIRST + pirq);
            } else {
                aml_ref(a, link);
                aml_int(a, 0);
            }
            aml_close(a);
        }
    }
    aml_close(a);
}

static void root_windows(struct aml *a, const struct acpi_cfg *cfg)
{
    struct aml_res r = {.len = 0};
    aml_res_window(&r, AML_RANGE_BUS, 16, 0, 0xff);
    aml_res_io(&r, 0xcf8, 8);
    aml_res_window(&r, AML_RANGE_IO, 16, 0x0000, 0x0cf7);
    aml_res_window(&r, AML_RANGE_IO, 16, 0x0d00, 0xffff);
    aml_res_window(&r, AML_RANGE_MEM, 32, 0xa0000, 0xbffff);
    aml_res_window(&r, AML_RANGE_MEM, 32, cfg->hole32_first, cfg->hole32_last);
    if (cfg->hole64_last)
        aml_res_window(&r, AML_RANGE_MEM, 64, cfg->hole64_first, cfg->hole64_last);
    aml_name_res(a, "_CRS", &r);
}

struct isa_dev {
    const char *name, *hid;
    unsigned uid;
    uint16_t io[2];
    uint8_t io_len[2];
    uint16_t irq_mask;
};

static void isa_device(struct aml *a, const struct isa_dev *d)
{
    struct aml_res r = {.len = 0};
    aml_open_device(a, d->name);
    aml_name_eisaid(a, "_HID", d->hid);
    if (d->uid)
        aml_name_int(a, "_UID", d->uid);
    aml_name_int(a, "_STA", STA_PRESENT);
    for (unsigned i = 0; i < 2; i++) {
        if (d->io_len[i])
            aml_res_io(&r, d->io[i], d->io_len[i]);
    }
    if (d->irq_mask)
        aml_res_irq(&r, d->irq_mask, false);
    aml_name_res(a, "_CRS", &r);
    aml_close(a);
}

static void isa_devices(struct aml *a, const struct acpi_cfg *cfg)
{
    static const struct isa_dev com[4] = {
        {"COM1", "PNP0501", 1, {0x3f8}, {8}, 1 << 4},
        {"COM2", "PNP0501", 2, {0x2f8}, {8}, 1 << 3},
        {"COM3", "PNP0501", 3, {0x3e8}, {8}, 1 << 4},
        {"COM4", "PNP0501", 4, {0x2e8}, {8}, 1 << 3},
    };
    static const struct isa_dev kbd = {"KBD", "PNP0303", 0, {0x60, 0x64}, {1, 1}, 1 << 1};
    static const struct isa_dev mouse = {"MOU", "PNP0F13", 0, {0}, {0}, 1 << 12};
    static const struct isa_dev rtc = {"RTC", "PNP0B00", 0, {0x70}, {2}, 1 << 8};
    for (unsigned i = 0; i < 4; i++) {
        if (cfg->com_mask >> i & 1)
            isa_device(a, &com[i]);
    }
    if (cfg->ps2) {
        isa_device(a, &kbd);
        isa_device(a, &mouse);
    }
    if (cfg->rtc)
        isa_device(a, &rtc);
}

/* Ports that belong to the board itself: PM block, SMBus base, APM, ELCR, fast A20. */
static void board_resources(struct aml *a, const struct acpi_cfg *cfg)
{
    struct aml_res r = {.len = 0};
    aml_open_device(a, "SYSR");
    aml_name_eisaid(a, "_HID", "PNP0C02");
    aml_name_int(a, "_UID", 1);
    aml_res_io(&r, cfg->pm_base, ACPI_PM_BYTES);
    aml_res_io(&r, 0x92, 1);
    aml_res_io(&r, 0xb2, 2);
    aml_res_io(&r, 0x4d0, 2);
    aml_name_res(a, "_CRS", &r);
    aml_close(a);
}

static void isa_bridge(struct aml *a, const struct acpi_cfg *cfg)
{
    static const char *const regs[4] = {"PRQA", "PRQB", "PRQC", "PRQD"};
    aml_open_device(a, "ISA");
    aml_name_int(a, "_ADR", (uint64_t)PCI_SLOT_ISA << 16);
    aml_region(a, "PIRQ", AML_PCI_CONFIG, 0x60, 4);
    aml_byte_fields(a, "PIRQ", regs, 4);
    isa_devices(a, cfg);
    for (unsigned i = 0; i < 4; i++)
        link_device(a, i);
    aml_close(a);
}

static void pci_root(struct aml *a, const struct acpi_cfg *cfg)
{
    aml_open_device(a, "PCI0");
    aml_name_eisaid(a, "_HID", "PNP0A03");
    aml_name_int(a, "_UID", 0);
    aml_name_int(a, "_BBN", 0);
    root_windows(a, cfg);
    isa_bridge(a, cfg);
    aml_close(a);
    /* The links are known only now: the tables that name them come after, in a scope that finds them. */
    aml_open_scope(a, "\\_SB.PCI0.ISA");
    routing_table(a, "PRTP", false);
    aml_close(a);
    aml_open_scope(a, "\\_SB.PCI0");
    routing_table(a, "PRTA", true);
    aml_open_method(a, "_PRT", 0, false);
    aml_open_if(a);
    aml_ref(a, "\\PICF");
    aml_op(a, AML_RETURN), aml_ref(a, "PRTA");
    aml_close(a);
    aml_op(a, AML_RETURN), aml_ref(a, "\\_SB.PCI0.ISA.PRTP");
    aml_close(a);
    aml_close(a);
}

static void hpet_device(struct aml *a)
{
    struct aml_res r = {.len = 0};
    aml_open_device(a, "HPET");
    aml_name_eisaid(a, "_HID", "PNP0103");
    aml_name_int(a, "_UID", 0);
    aml_res_fixed_mem32(&r, HPET_BASE, HPET_BYTES, false);
    aml_name_res(a, "_CRS", &r);
    aml_close(a);
}

static void fwcfg_device(struct aml *a)
{
    struct aml_res r = {.len = 0};
    aml_open_device(a, "FWCF");
    aml_name(a, "_HID");
    aml_string(a, "QEMU0002"); /* the id that guest drivers bind to */
    aml_name_int(a, "_STA", 0x0b);
    aml_res_io(&r, 0x510, 0x0c);
    aml_name_res(a, "_CRS", &r);
    aml_close(a);
}

static void processors(struct aml *a, unsigned cpus)
{
    for (unsigned i = 0; i < cpus; i++) {
        char name[8];
        snprintf(name, sizeof(name), "C%03X", i & 0xfff);
        aml_open_device(a, name);
        aml_name(a, "_HID");
        aml_string(a, "ACPI0007");
        aml_name_int(a, "_UID", i);
        aml_close(a);
    }
}

void acpi_dsdt_body(struct aml *a, const struct acpi_cfg *cfg)
{
    aml_name_int(a, "\\PICF", 0);
    aml_open_method(a, "\\_PIC", 1, false);
    aml_op(a, AML_STORE), aml_op(a, AML_ARG0), aml_ref(a, "PICF");
    aml_close(a);

    aml_name(a, "\\_S5");
    aml_open_package(a, 4);
    aml_int(a, ACPI_PM_SLP_TYP_S5), aml_int(a, ACPI_PM_SLP_TYP_S5), aml_int(a, 0), aml_int(a, 0);
    aml_close(a);

    aml_open_scope(a, "\\_SB");
    pci_root(a, cfg);
    board_resources(a, cfg);
    processors(a, cfg->cpus);
    if (cfg->hpet)
        hpet_device(a);
    if (cfg->fwcfg)
        fwcfg_device(a);
    aml_close(a);
}
