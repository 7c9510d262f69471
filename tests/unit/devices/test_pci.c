/* PCI bus 0: PCI 2.3, MSI-X; 82441FX and 82371SB for the bridges. */
#include "tests/unit/devices/dev_ram.h"
#include "devices/acpi_pm.h"
#include "devices/bus.h"
#include "devices/pci.h"

static struct evloop *loop;
static struct bus *bus;
static struct pci_bus pci;
static struct i440fx host;
static struct piix3 isa;
static struct acpi_pm pm;
static struct piix4_pm pmfn;
static struct pci_dev dev, dev2;
static struct dev_wires w; /* 0-15 ISA, 16-19 GSI, 20 SCI */
static uint64_t bar_write_off, bar_write_val;
static unsigned msis;
static uint64_t msi_addr;
static uint32_t msi_data;
static unsigned resets, power_offs;

static uint64_t bar_read(void *opaque, uint64_t off, unsigned size) { return 0x1234 + off; }
static void bar_write(void *opaque, uint64_t off, unsigned size, uint64_t val)
{
    bar_write_off = off;
    bar_write_val = val;
}
static const struct bus_ops bar_ops = {.read = bar_read, .write = bar_write, .max_size = 4};
static void on_msi(void *opaque, uint64_t addr, uint32_t data)
{
    msis++;
    msi_addr = addr;
    msi_data = data;
}
static void on_reset(void *opaque) { resets++; }
static void on_power_off(void *opaque) { power_offs++; }

static void setup(void)
{
    static const struct pci_id id = {.vendor = 0x1af4, .device = 0x1000, .class_code = 0x020000, .int_pin = 1};
    struct evloop_config ec = {.test_clock = true};
    struct pci_bus_cfg c = {.msi = on_msi};
    evloop_create(&loop, &ec);
    bus_create(&bus);
    c.bus = bus;
    for (int i = 0; i < 16; i++)
        c.isa[i] = dev_wire(&w, i);
    for (int i = 0; i < 4; i++)
        c.gsi[i] = dev_wire(&w, 16 + i);
    cr_assert_eq(pci_bus_init(&pci, &c), 0);
    cr_assert_eq(i440fx_init(&host, &pci), 0);
    cr_assert_eq(piix3_init(&isa, &pci), 0);
    struct acpi_pm_cfg pc = {.loop = loop, .sci = dev_wire(&w, 20), .power_off = on_power_off, .reset = on_reset};
    cr_assert_eq(acpi_pm_init(&pm, bus, &pc), 0);
    cr_assert_eq(piix4_pm_init(&pmfn, &pci, &pm), 0);
    pci_bus_set_reset_port(&pci, acpi_reset_read, acpi_reset_write, &pm);
    pci_dev_init(&dev, "test", &id);
    pci_add_bar(&dev, 0, PCI_BAR_IO, 32, &bar_ops, NULL);
    pci_add_bar(&dev, 1, PCI_BAR_MEM32, 0x1000, &bar_ops, NULL);
    pci_add_bar(&dev, 2, PCI_BAR_MEM64, 0x100000, &bar_ops, NULL);
    pci_add_msix(&dev, 4, 3);
    pci_add_msi(&dev, 4);
    cr_assert_eq(pci_add(&pci, &dev, PCI_DEVFN(3, 0)), 0);
    pci_dev_init(&dev2, "test2", &id);
    pci_add_bar(&dev2, 0, PCI_BAR_IO, 32, &bar_ops, NULL);
    cr_assert_eq(pci_add(&pci, &dev2, PCI_DEVFN(7, 0)), 0);
}
TestSuite(pci, .init = setup);
TestSuite(acpi_pm, .init = setup);

static uint32_t rd(unsigned devfn, unsigned off, unsigned n)
{
    bus_pio_write(bus, 0xcf8, 4, 0x80000000 | devfn << 8 | (off & 0xfc));
    return bus_pio_read(bus, (uint16_t)(0xcfc + (off & 3)), n);
}
static void wr(unsigned devfn, unsigned off, unsigned n, uint32_t v)
{
    bus_pio_write(bus, 0xcf8, 4, 0x80000000 | devfn << 8 | (off & 0xfc));
    bus_pio_write(bus, (uint16_t)(0xcfc + (off & 3)), n, v);
}
#define DEV PCI_DEVFN(3, 0)
#define DEV2 PCI_DEVFN(7, 0)

Test(pci, mechanism_1_address_and_data_widths)
{
    bus_pio_write(bus, 0xcf8, 4, 0xffffffff);
    cr_assert_eq(bus_pio_read(bus, 0xcf8, 4), 0x80fffffc);
    bus_pio_write(bus, 0xcf8, 1, 0);
    cr_assert_eq(bus_pio_read(bus, 0xcf8, 4), 0x80fffffc);
    cr_assert_eq(rd(0, 0, 4), 0x12378086);
    cr_assert_eq(rd(0, 2, 2), 0x1237);
    cr_assert_eq(rd(0, 1, 1), 0x80);
    cr_assert_eq(rd(PCI_DEVFN(1, 0), 0, 4), 0x70008086);
    cr_assert_eq(rd(PCI_DEVFN(1, 3), 0, 4), 0x71138086);
    cr_assert_eq(rd(PCI_DEVFN(5, 0), 0, 4), 0xffffffff);
    cr_assert_eq(rd(PCI_DEVFN(5, 0), 0, 2), 0xffff);
    bus_pio_write(bus, 0xcf8, 4, 0x80010000);
    cr_assert_eq(bus_pio_read(bus, 0xcfc, 4), 0xffffffff); /* bus 1 */
    bus_pio_write(bus, 0xcf8, 4, 0);
    cr_assert_eq(bus_pio_read(bus, 0xcfc, 4), 0xffffffff); /* not enabled */
}

Test(pci, class_codes_and_header_types)
{
    cr_assert_eq(rd(0, 8, 4), 0x06000002);
    cr_assert_eq(rd(PCI_DEVFN(1, 0), 8, 4), 0x06010000);
    cr_assert_eq(rd(PCI_DEVFN(1, 0), 0x0e, 1), 0x80);
    cr_assert_eq(rd(0, 0x0e, 1), 0);
    cr_assert_eq(rd(PCI_DEVFN(1, 3), 0x0e, 1), 0x80);
}

Test(pci, read_only_bytes_stay)
{
    wr(DEV, 0, 4, 0);
    wr(DEV, 8, 4, 0);
    wr(DEV, 0x34, 1, 0);
    wr(DEV, 0x3c, 4, 0xffffffff);
    cr_assert_eq(rd(DEV, 0, 4), 0x10001af4);
    cr_assert_eq(rd(DEV, 8, 4), 0x02000000);
    cr_assert_eq(rd(DEV, 0x3c, 4), 0x000001ff);
}

Test(pci, bars_report_their_size)
{
    for (unsigned i = 0; i < 6; i++)
        wr(DEV, 0x10 + 4 * i, 4, 0xffffffff);
    cr_assert_eq(rd(DEV, 0x10, 4), 0xffffffe1);
    cr_assert_eq(rd(DEV, 0x14, 4), 0xfffff000);
    cr_assert_eq(rd(DEV, 0x18, 4), 0xfff0000c);
    cr_assert_eq(rd(DEV, 0x1c, 4), 0xffffffff);
    cr_assert_eq(rd(DEV, 0x20, 4), 0xfffff000);
    cr_assert_eq(rd(DEV, 0x24, 4), 0);
}

Test(pci, sizing_with_decoding_on_maps_nothing)
{
    wr(DEV, 4, 2, 3);
    for (unsigned i = 0; i < 6; i++)
        wr(DEV, 0x10 + 4 * i, 4, 0xffffffff);
    cr_assert_null(bus_find(bus, BUS_PIO, 0xffe0));
    cr_assert_null(bus_find(bus, BUS_MMIO, 0xfffff000));
    cr_assert_null(bus_find(bus, BUS_MMIO, 0xfffffffffff00000));
}

Test(pci, bar_is_mapped_moved_and_unmapped)
{
    wr(DEV, 0x10, 4, 0xc000);
    cr_assert_null(bus_find(bus, BUS_PIO, 0xc000));
    wr(DEV, 4, 2, 1);
    cr_assert_eq(bus_pio_read(bus, 0xc004, 4), 0x1238);
    wr(DEV, 0x10, 4, 0xd000);
    cr_assert_null(bus_find(bus, BUS_PIO, 0xc000));
    bus_pio_write(bus, 0xd008, 2, 0xabcd);
    cr_assert_eq(bar_write_off, 8);
    cr_assert_eq(bar_write_val, 0xabcd);
    wr(DEV, 4, 2, 0);
    cr_assert_null(bus_find(bus, BUS_PIO, 0xd000));
}

Test(pci, sixty_four_bit_bar_above_4_gib)
{
    wr(DEV, 0x18, 4, 0x00100000);
    wr(DEV, 0x1c, 4, 0x8);
    wr(DEV, 4, 2, 2);
    uint32_t v;
    bus_mmio_read(bus, 0x800100010, &v, 4);
    cr_assert_eq(v, 0x1244);
}

Test(pci, overlapping_bar_is_decoded_once_there_is_room)
{
    wr(DEV, 0x10, 4, 0xc000);
    wr(DEV, 4, 2, 1);
    wr(DEV2, 0x10, 4, 0xc000);
    wr(DEV2, 4, 2, 1);
    wr(DEV, 0x10, 4, 0xc100);
    cr_assert_not_null(bus_find(bus, BUS_PIO, 0xc000));
    cr_assert_not_null(bus_find(bus, BUS_PIO, 0xc100));
}

Test(pci, bar_over_a_legacy_device_is_not_decoded)
{
    wr(DEV, 0x10, 4, 0xce0); /* would cover CF8h */
    wr(DEV, 4, 2, 1);
    cr_assert_eq(rd(0, 0, 4), 0x12378086);
}

Test(pci, intx_drives_gsi_and_the_routed_isa_irq)
{
    cr_assert_eq(pci_pirq(3, 0), 2);
    wr(PCI_DEVFN(1, 0), 0x62, 1, 11);
    pci_set_intx(&dev, true);
    cr_assert_eq(w.level, 1u << 18 | 1u << 11);
    cr_assert_eq(rd(DEV, 6, 2) & 8, 8);
    wr(PCI_DEVFN(1, 0), 0x62, 1, 10);
    cr_assert_eq(w.level, 1u << 18 | 1u << 10);
    wr(PCI_DEVFN(1, 0), 0x62, 1, 0x80 | 10);
    cr_assert_eq(w.level, 1u << 18);
    wr(PCI_DEVFN(1, 0), 0x62, 1, 8); /* IRQ 8 cannot be routed to */
    cr_assert_eq(w.level, 1u << 18);
    wr(DEV, 4, 2, 0x400);
    cr_assert_eq(w.level, 0);
    wr(DEV, 4, 2, 0);
    cr_assert_eq(w.level, 1u << 18);
    pci_set_intx(&dev, false);
    cr_assert_eq(w.level, 0);
}

Test(pci, shared_pirq_stays_up_until_both_are_down)
{
    wr(PCI_DEVFN(1, 0), 0x62, 1, 11);
    pci_set_intx(&dev, true);
    pci_set_intx(&dev2, true); /* slot 7: PIRQ (7 + 0 - 1) & 3 = 2 as well */
    pci_set_intx(&dev, false);
    cr_assert_eq(w.level, 1u << 18 | 1u << 11);
    pci_set_intx(&dev2, false);
    cr_assert_eq(w.level, 0);
}

/* -- MSI-X: capability first in the list, table in BAR 4 -- */
static void msix_on(uint16_t control)
{
    wr(DEV, 0x20, 4, 0xe0000000);
    wr(DEV, 4, 2, 6);
    wr(DEV, dev.msix_cap + 2, 2, control);
}
static void table(unsigned word, uint32_t v) { bus_mmio_write(bus, 0xe0000000 + 4 * word, &v, 4); }
static uint32_t table_rd(unsigned off)
{
    uint32_t v;
    bus_mmio_read(bus, 0xe0000000 + off, &v, 4);
    return v;
}

Test(pci, capability_list)
{
    cr_assert_eq(rd(DEV, 6, 2) & 0x10, 0x10);
    unsigned at = rd(DEV, 0x34, 1);
    cr_assert_eq(rd(DEV, at, 1), PCI_CAP_MSIX);
    cr_assert_eq(rd(DEV, at + 2, 2), 2); /* three vectors */
    cr_assert_eq(rd(DEV, at + 4, 4), 4); /* BAR 4, offset 0 */
    at = rd(DEV, at + 1, 1);
    cr_assert_eq(rd(DEV, at, 1), PCI_CAP_MSI);
    cr_assert_eq(rd(DEV, at + 1, 1), 0);
}

Test(pci, msix_delivers_masks_and_sends_what_was_pending)
{
    pci_msix_notify(&dev, 1);
    cr_assert_eq(msis, 0); /* disabled */
    msix_on(0x8000);
    table(4, 0xfee01000), table(5, 0), table(6, 0x41);
    pci_msix_notify(&dev, 1); /* masked by the entry */
    cr_assert_eq(msis, 0);
    cr_assert_eq(table_rd(0x800), 2);
    table(7, 0);
    cr_assert_eq(msis, 1);
    cr_assert_eq(msi_addr, 0xfee01000);
    cr_assert_eq(msi_data, 0x41);
    cr_assert_eq(table_rd(0x800), 0);
    wr(DEV, dev.msix_cap + 2, 2, 0xc000);
    pci_msix_notify(&dev, 1);
    cr_assert_eq(msis, 1);
    wr(DEV, dev.msix_cap + 2, 2, 0x8000);
    cr_assert_eq(msis, 2);
    pci_msix_notify(&dev, 3); /* no such vector */
    cr_assert_eq(msis, 2);
}

Test(pci, msix_table_edges)
{
    msix_on(0x8000);
    table(11, 0xffffffff);
    cr_assert_eq(table_rd(44), 1); /* reserved bits of vector control */
    table(12, 0x1234);             /* behind the last entry */
    cr_assert_eq(table_rd(48), 0);
    table(0x200, 0xffffffff); /* pending bits are read-only */
    cr_assert_eq(table_rd(0x800), 0);
    cr_assert_eq(table_rd(0xffc), 0);
}

Test(pci, msi_with_several_vectors_and_masks)
{
    unsigned at = dev.msi_cap;
    wr(DEV, at + 4, 4, 0xfee00000);
    wr(DEV, at + 0xc, 2, 0x4060);
    wr(DEV, at + 2, 2, 0x7 << 4 | 1); /* the guest grants more than the four asked for */
    cr_assert(pci_msi_enabled(&dev));
    pci_msi_notify(&dev, 3);
    cr_assert_eq(msi_data, 0x4063);
    wr(DEV, at + 0x10, 4, 1u << 2);
    pci_msi_notify(&dev, 2);
    cr_assert_eq(msis, 1);
    cr_assert_eq(rd(DEV, at + 0x14, 4), 4);
    wr(DEV, at + 0x10, 4, 0);
    cr_assert_eq(msis, 2);
    cr_assert_eq(msi_data, 0x4062);
    cr_assert_eq(rd(DEV, at + 0x14, 4), 0);
}

Test(pci, firmware_setup_places_everything)
{
    pci_firmware_setup(&pci, 0xc0000000, 0xfebfffff);
    for (unsigned i = 0; i < 5; i++) {
        if (dev.bar[i].type)
            cr_assert_geq(dev.bar[i].handle, 0, "BAR %u", i);
    }
    cr_assert_geq(dev2.bar[0].handle, 0);
    cr_assert_eq(rd(DEV, 0x3c, 1), 11);
    cr_assert_eq(rd(PCI_DEVFN(1, 0), 0x60, 4), 0x0b0b0a0a);
}

Test(pci, firmware_setup_without_room_leaves_bars_unplaced)
{
    pci_firmware_setup(&pci, 0xfebff000, 0xfebfffff);
    cr_assert_geq(dev.bar[1].handle, 0);
    cr_assert_lt(dev.bar[2].handle, 0);
}

Test(pci, shadow_attributes)
{
    wr(0, 0x59, 1, 0xff);
    cr_assert_eq(rd(0, 0x59, 1), 0x30);
    wr(0, 0x5a, 1, 0x12);
    cr_assert_eq(i440fx_pam(&host, 12), 3);
    cr_assert_eq(i440fx_pam(&host, 0), 2);
    cr_assert_eq(i440fx_pam(&host, 1), 1);
    cr_assert_eq(i440fx_pam(&host, 99), 0);
}

Test(pci, reset_returns_to_the_built_image)
{
    wr(DEV, 0x10, 4, 0xc000);
    wr(DEV, 4, 2, 7);
    pci_set_intx(&dev, true);
    pci_dev_dev_ops.reset(&dev);
    cr_assert_eq(rd(DEV, 4, 2), 0);
    cr_assert_eq(rd(DEV, 0x10, 4), 1);
    cr_assert_null(bus_find(bus, BUS_PIO, 0xc000));
    cr_assert_eq(w.level, 0);
}

Test(pci, round_trip_restores_mappings_and_pending_vectors)
{
    msix_on(0x8000);
    wr(DEV, 0x10, 4, 0xc000);
    wr(DEV, 4, 2, 7);
    pci_msix_notify(&dev, 2);
    const struct dev d = {&pci_dev_dev_ops, &dev, DEV}, b = {&pci_bus_dev_ops, &pci, 0};
    dev_refuses_truncation(&d);
    dev_round_trip(&d);
    dev_round_trip(&b);
    cr_assert_not_null(bus_find(bus, BUS_PIO, 0xc000));
    table(8, 0xfee00000), table(10, 0x33);
    table(11, 0);
    cr_assert_eq(msi_data, 0x33);
}

Test(pci, image_of_another_device_is_refused)
{
    struct dev_writer wtr = {0};
    const struct dev d = {&pci_dev_dev_ops, &dev, 1}, h = {&pci_dev_dev_ops, &host.pci, 1};
    cr_assert_eq(dev_save(&wtr, &h), 0);
    struct dev_reader r = {.buf = wtr.buf, .len = wtr.len};
    cr_assert_eq(dev_restore(&r, &d), -RD_E_FORMAT);
    dev_writer_free(&wtr);
}

/* -- ACPI fixed hardware -- */
#define PM 0x600u
static uint32_t pmr(unsigned off, unsigned n) { return bus_pio_read(bus, (uint16_t)(PM + off), n); }
static void pmw(unsigned off, unsigned n, uint32_t v) { bus_pio_write(bus, (uint16_t)(PM + off), n, v); }
static bool sci(void) { return w.level >> 20 & 1; }

Test(acpi_pm, block_appears_where_pmba_says)
{
    cr_assert_null(bus_find(bus, BUS_PIO, 0x600));
    wr(PCI_DEVFN(1, 3), 0x40, 4, 0xb001);
    wr(PCI_DEVFN(1, 3), 0x80, 1, 1);
    cr_assert_not_null(bus_find(bus, BUS_PIO, 0xb000));
    piix4_pm_firmware_setup(&pmfn);
    cr_assert_null(bus_find(bus, BUS_PIO, 0xb000));
    cr_assert_eq(pmr(ACPI_PM_CNT, 2), 1);
    cr_assert_eq(rd(PCI_DEVFN(1, 3), 0x3c, 1), 9);
    cr_assert_eq(rd(PCI_DEVFN(1, 3), 0x5b, 1) & 2, 2);
}

Test(acpi_pm, timer_counts_3579545_hz)
{
    piix4_pm_firmware_setup(&pmfn);
    uint32_t a = pmr(ACPI_PM_TMR, 4);
    vtime_test_starve(loop, 10 * NS_PER_SEC);
    cr_assert_eq(pmr(ACPI_PM_TMR, 4) - a, 35795450);
    vtime_test_starve(loop, 86400 * NS_PER_SEC);
    cr_assert_eq(pmr(ACPI_PM_TMR, 4) - a, (uint32_t)(3579545ull * 86410));
}

Test(acpi_pm, timer_overflow_raises_sci_when_enabled)
{
    piix4_pm_firmware_setup(&pmfn);
    pmw(2, 2, 1);
    vtime_test_advance(loop, 599 * NS_PER_SEC);
    cr_assert_not(sci());
    vtime_test_advance(loop, 2 * NS_PER_SEC);
    cr_assert(sci());
    cr_assert_eq(pmr(0, 2), 1);
    pmw(0, 2, 1);
    cr_assert_not(sci());
    vtime_test_advance(loop, 600 * NS_PER_SEC);
    cr_assert(sci());
}

Test(acpi_pm, disabled_timer_status_is_seen_without_a_host_timer)
{
    piix4_pm_firmware_setup(&pmfn);
    cr_assert_eq(vtime_next_deadline(loop), VTIME_NEVER);
    vtime_test_starve(loop, 601 * NS_PER_SEC);
    cr_assert_eq(pmr(0, 2), 1);
}

Test(acpi_pm, power_button)
{
    piix4_pm_firmware_setup(&pmfn);
    cr_assert_not(acpi_pm_power_button(&pm)); /* nobody listens */
    cr_assert_not(sci());
    pmw(0, 2, 0x100);
    pmw(2, 2, 0x100);
    cr_assert(acpi_pm_power_button(&pm));
    cr_assert(sci());
    pmw(1, 1, 1); /* byte access clears it too */
    cr_assert_not(sci());
}

Test(acpi_pm, apm_port_switches_acpi_mode)
{
    piix4_pm_firmware_setup(&pmfn);
    bus_pio_write(bus, 0xb2, 1, 0xf0);
    cr_assert_eq(pmr(ACPI_PM_CNT, 2), 0);
    bus_pio_write(bus, 0xb2, 1, 0xf1);
    cr_assert_eq(pmr(ACPI_PM_CNT, 2), 1);
    bus_pio_write(bus, 0xb3, 1, 0x5a);
    cr_assert_eq(bus_pio_read(bus, 0xb2, 2), 0x5af1);
}

Test(acpi_pm, s5_powers_off_other_sleeps_do_not)
{
    piix4_pm_firmware_setup(&pmfn);
    pmw(ACPI_PM_CNT, 2, 0x0001);
    cr_assert_eq(power_offs, 0);
    pmw(ACPI_PM_CNT, 2, 0x2401);
    cr_assert_eq(power_offs, 0);
    pmw(ACPI_PM_CNT, 2, 0x2001);
    cr_assert_eq(power_offs, 1);
    cr_assert_eq(pmr(ACPI_PM_CNT, 2), 1); /* SLP_EN reads as zero */
    pmw(ACPI_PM_CNT + 1, 1, 0x20);
    cr_assert_eq(power_offs, 2);
}

Test(acpi_pm, reset_register_between_the_pci_ports)
{
    bus_pio_write(bus, 0xcf8, 4, 0x80000008);
    bus_pio_write(bus, 0xcf9, 1, 0x02);
    cr_assert_eq(resets, 0);
    cr_assert_eq(bus_pio_read(bus, 0xcf9, 1), 0x02);
    bus_pio_write(bus, 0xcf9, 1, 0x06);
    cr_assert_eq(resets, 1);
    cr_assert_eq(bus_pio_read(bus, 0xcf8, 4), 0x80000008);
}

Test(acpi_pm, gpe_block)
{
    piix4_pm_firmware_setup(&pmfn);
    acpi_pm_gpe(&pm, 3);
    cr_assert_not(sci());
    pmw(ACPI_PM_GPE0 + 2, 2, 8);
    cr_assert(sci());
    cr_assert_eq(pmr(ACPI_PM_GPE0, 4), 0x00080008);
    pmw(ACPI_PM_GPE0, 1, 8);
    cr_assert_not(sci());
}

Test(acpi_pm, round_trip_keeps_the_overflow)
{
    piix4_pm_firmware_setup(&pmfn);
    pmw(2, 2, 0x101);
    const struct dev d = {&acpi_pm_dev_ops, &pm, 0}, f = {&pci_dev_dev_ops, &pmfn.pci, 11};
    dev_refuses_truncation(&d);
    dev_round_trip(&d);
    dev_round_trip(&f);
    cr_assert_eq(pmr(2, 2), 0x101);
    vtime_test_advance(loop, 601 * NS_PER_SEC);
    cr_assert(sci());
}
