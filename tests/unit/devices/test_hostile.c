/* A guest that writes at random to every register of the platform devices, with time passing at random: whatever it does, the host
 * neither crashes (build with sanitizers to see the small things) nor is kept busy, and every state can be saved and restored. */
#include "base/rng.h"
#include "devices/acpi_pm.h"
#include "devices/bus.h"
#include "devices/fwcfg.h"
#include "devices/hpet.h"
#include "devices/ioapic.h"
#include "devices/kvmclock.h"
#include "devices/lapic.h"
#include "devices/pci.h"
#include "devices/tsc.h"
#include "tests/unit/devices/dev_ram.h"
#include <stdlib.h>

#define STEPS 300000
struct machine {
    struct evloop *loop;
    struct bus *bus;
    struct dev_ram ram;
    struct guest_tsc tsc;
    struct apic_bus ab;
    struct lapic cpu[2];
    struct ioapic io;
    struct pci_bus pci;
    struct i440fx host;
    struct piix3 isa;
    struct acpi_pm pm;
    struct piix4_pm pmfn;
    struct pci_dev nic;
    struct fwcfg fw;
    struct hpet hpet;
    struct kvmclock clock;
    struct dev_wires wires;
};
static struct machine *m;

static uint64_t fake_tsc(void *opaque) { return vtime_now(m->loop) * 2; }
static int no_pic(void *opaque) { return -1; }
static uint64_t nothing(void *opaque, uint64_t off, unsigned size) { return off; }
static const struct bus_ops bar_ops = {.read = nothing, .max_size = 4};
static void msi(void *opaque, uint64_t addr, uint32_t data) { apic_bus_msi(&m->ab, addr, data); }

static void build_pci(void)
{
    static const struct pci_id id = {.vendor = 0x1af4, .device = 0x1000, .class_code = 0x020000, .int_pin = 1};
    struct pci_bus_cfg c = {.bus = m->bus, .msi = msi};
    for (unsigned i = 0; i < 16; i++)
        c.isa[i] = ioapic_line(&m->io, ioapic_isa_pin(i));
    for (unsigned i = 0; i < 4; i++)
        c.gsi[i] = ioapic_line(&m->io, PCI_GSI_FIRST + i);
    pci_bus_init(&m->pci, &c);
    i440fx_init(&m->host, &m->pci);
    piix3_init(&m->isa, &m->pci);
    struct acpi_pm_cfg pc = {.loop = m->loop, .sci = ioapic_line(&m->io, ACPI_SCI_IRQ)};
    acpi_pm_init(&m->pm, m->bus, &pc);
    piix4_pm_init(&m->pmfn, &m->pci, &m->pm);
    pci_bus_set_reset_port(&m->pci, acpi_reset_read, acpi_reset_write, &m->pm);
    pci_dev_init(&m->nic, "nic", &id);
    pci_add_bar(&m->nic, 0, PCI_BAR_IO, 64, &bar_ops, NULL);
    pci_add_bar(&m->nic, 2, PCI_BAR_MEM64, 0x4000, &bar_ops, NULL);
    pci_add_msix(&m->nic, 1, 5);
    pci_add_msi(&m->nic, 8);
    pci_add(&m->pci, &m->nic, PCI_DEVFN(4, 0));
}

static void build(void)
{
    struct evloop_config ec = {.test_clock = true};
    m = calloc(1, sizeof(*m));
    evloop_create(&m->loop, &ec);
    bus_create(&m->bus);
    m->tsc = (struct guest_tsc){.hz = 2000000000, .read_host = fake_tsc};
    apic_bus_init(&m->ab, m->bus);
    for (unsigned i = 0; i < 2; i++) {
        struct lapic_cfg c = {.id = i,
                              .bsp = i == 0,
                              .x2apic = true,
                              .tsc_deadline = true,
                              .pv_eoi = true,
                              .maxphyaddr = 40,
                              .loop = m->loop,
                              .tsc = &m->tsc,
                              .mem = dev_ram_mem(&m->ram),
                              .intr = dev_wire(&m->wires, (int)i),
                              .nmi = dev_wire(&m->wires, 2),
                              .pic_ack = no_pic};
        lapic_init(&m->cpu[i], &m->ab, &c);
    }
    ioapic_init(&m->io, m->bus, IOAPIC_DEFAULT_BASE, &m->ab);
    build_pci();
    struct gmem mem = dev_ram_mem(&m->ram);
    fwcfg_init(&m->fw, m->bus, &mem);
    fwcfg_add_file(&m->fw, "etc/file", "0123456789", 10);
    struct irq_line legacy[2] = {ioapic_line(&m->io, 2), ioapic_line(&m->io, 8)}, pin[4];
    for (unsigned i = 0; i < 4; i++)
        pin[i] = ioapic_line(&m->io, HPET_PIN_FIRST + i);
    hpet_init(&m->hpet, m->bus, m->loop, legacy, pin);
    struct kvmclock_cfg kc = {.cpus = 2, .mem = mem, .loop = m->loop, .tsc = &m->tsc, .pv_eoi = true};
    kvmclock_init(&m->clock, &kc);
}

/* Values that are likely to mean something: small, powers of two, addresses of the devices, all-ones, anything. */
static uint64_t value(struct rng *r)
{
    static const uint64_t known[] = {0xfee00000, 0xfec00000, 0xfed00000, 0xcf8, 0x600, 0x510, 0x1000, 0xe0000000};
    switch (rng_next(r) % 6) {
    case 0: return rng_next(r) % 256;
    case 1: return 1ull << rng_next(r) % 64;
    case 2: return known[rng_next(r) % 8] | rng_next(r) % 4096;
    case 3: return UINT64_MAX;
    case 4: return (uint32_t)rng_next(r);
    default: return rng_next(r);
    }
}

static void port_access(struct rng *r)
{
    static const uint16_t base[] = {0xcf8, 0xcfc, 0xcfc, 0xcfc, 0xb2, 0x600, 0x510, 0x514, 0xc000};
    uint16_t port = (uint16_t)(base[rng_next(r) % 9] + rng_next(r) % 8);
    unsigned size = 1u << rng_next(r) % 3;
    if (port >= 0xcf8 && port < 0xcfc && rng_next(r) % 8)
        bus_pio_write(m->bus, 0xcf8, 4, 0x80000000 | (uint32_t)(rng_next(r) % 0x2800));
    else if (rng_next(r) & 1)
        bus_pio_write(m->bus, port, size, (uint32_t)value(r));
    else
        bus_pio_read(m->bus, port, size);
}

static void memory_access(struct rng *r)
{
    static const uint64_t base[] = {0xfee00000, 0xfee00000, 0xfec00000, 0xfed00000, 0xe0000000};
    uint64_t gpa = base[rng_next(r) % 5] + rng_next(r) % 0x400, v = value(r);
    unsigned n = 1u << rng_next(r) % 4;
    gpa &= rng_next(r) % 8 ? ~15ull : ~0ull;
    if (rng_next(r) & 1)
        bus_mmio_write(m->bus, gpa, &v, n);
    else
        bus_mmio_read(m->bus, gpa, &v, n);
}

static void msr_access(struct rng *r)
{
    static const uint32_t base[] = {0x1b, 0x6e0, 0x800, 0x830, 0x11, 0x4b564d00};
    uint32_t msr = base[rng_next(r) % 6] + (uint32_t)(rng_next(r) % 64);
    unsigned cpu = rng_next(r) & 1;
    uint64_t v = value(r);
    if (rng_next(r) & 1) {
        lapic_wrmsr(&m->cpu[cpu], msr, v);
        kvmclock_wrmsr(&m->clock, cpu, msr, v);
    } else {
        lapic_rdmsr(&m->cpu[cpu], msr, &v);
        kvmclock_rdmsr(&m->clock, cpu, msr, &v);
    }
}

static void outside_event(struct rng *r)
{
    static const uint64_t span[] = {1, 1000, 50000, 1000000, 1000000000, 3600000000000};
    unsigned cpu = rng_next(r) & 1;
    switch (rng_next(r) % 8) {
    case 0:
        vtime_test_starve(m->loop, span[rng_next(r) % 6]);
        evloop_run(m->loop);
        break;
    case 1: vtime_test_advance(m->loop, span[rng_next(r) % 4]); break;
    case 2: ioapic_set_pin(&m->io, rng_next(r) % 24, rng_next(r) & 1); break;
    case 3: lapic_set_lint(&m->cpu[cpu], rng_next(r) & 1, rng_next(r) & 1); break;
    case 4: pci_set_intx(&m->nic, rng_next(r) & 1); break;
    case 5: pci_msix_notify(&m->nic, rng_next(r) % 8), pci_msi_notify(&m->nic, rng_next(r) % 40); break;
    case 6: lapic_write_cr8(&m->cpu[cpu], rng_next(r)); break;
    default:
        for (unsigned i = 0; i < 4 && lapic_has_intr(&m->cpu[cpu]); i++)
            lapic_ack(&m->cpu[cpu]);
    }
}

static void save_and_restore_all(void)
{
    const struct dev all[] = {
        {&lapic_dev_ops, &m->cpu[0], 0}, {&lapic_dev_ops, &m->cpu[1], 1},    {&ioapic_dev_ops, &m->io, 0},
        {&pci_bus_dev_ops, &m->pci, 0},  {&pci_dev_dev_ops, &m->nic, 0},     {&pci_dev_dev_ops, &m->pmfn.pci, 1},
        {&acpi_pm_dev_ops, &m->pm, 0},   {&pci_dev_dev_ops, &m->isa.pci, 2}, {&pci_dev_dev_ops, &m->host.pci, 3},
        {&fwcfg_dev_ops, &m->fw, 0},     {&hpet_dev_ops, &m->hpet, 0},
    };
    for (unsigned i = 0; i < DEV_COUNT(all); i++) {
        struct dev_writer w = {0};
        cr_assert_eq(dev_save(&w, &all[i]), 0);
        struct dev_reader r = {.buf = w.buf, .len = w.len};
        cr_assert_eq(dev_restore(&r, &all[i]), 0, "%s refuses its own state", all[i].ops->type);
        dev_writer_free(&w);
    }
}

static void run_seed(uint64_t seed)
{
    struct rng r;
    rng_init(&r, seed);
    build();
    for (unsigned i = 0; i < STEPS; i++) {
        switch (rng_next(&r) % 8) {
        case 0:
        case 1: port_access(&r); break;
        case 2:
        case 3: memory_access(&r); break;
        case 4:
        case 5: msr_access(&r); break;
        default: outside_event(&r);
        }
        if (i % 1000 == 0)
            save_and_restore_all();
    }
}

Test(hostile, random_accesses_with_a_fixed_seed) { run_seed(1); }

Test(hostile, random_accesses_with_a_new_seed)
{
    uint64_t seed = rng_pick_seed();
    cr_log_info("seed %llu", (unsigned long long)seed);
    run_seed(seed);
}
