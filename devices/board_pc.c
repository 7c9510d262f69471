/* devices/board_pc.c - the table of the machine's parts, their wires, reset and saved state. See board_pc.h. */
#include "devices/board_pc.h"
#include "base/check.h"
#include "base/err.h"
#include "base/log.h"
#include "devices/board_pc_int.h"
#include <stddef.h>
#include <string.h>
#include <unistd.h>

/* Does nothing at all: ports that software writes to pass the time (80h, post codes) and expects to be there. */
static const struct bus_ops silent_ops = {.max_size = 1, .nofpu = true};

/* ---- the machine on one page ----
 *
 * ORDER board_parts: what drives comes after what is driven, so that a reset ends with every input at its reset level; saved
 * state is in the same order. Interrupts of PCI functions are routed by the PIIX3 (pci.h); the IOAPIC has them on pins 16-19.
 */
#define AT(field) offsetof(struct board_pc, field)
const struct board_part board_parts[] = {
    /* part       state            reset, save           there if        IRQ    ports, or (registering itself) where */
    {"pic",
     AT(pic),
     &pic_dev_ops,
     PART_ALWAYS,
     {-1, -1},
     {{0x20, 2, &pic_master_ops}, {0xa0, 2, &pic_slave_ops}, {0x4d0, 2, &pic_elcr_ops}},
     NULL},
    {"lapic", AT(lapic), &lapic_dev_ops, PART_ALWAYS, {-1, -1}, {{0}}, "fee00000-fee00fff, MSRs 800-8ff"},
    {"ioapic", AT(ioapic), &ioapic_dev_ops, PART_ALWAYS, {-1, -1}, {{0}}, "fec00000-fec00fff"},
    {"a20", AT(a20), &irq_or_dev_ops, PART_ALWAYS, {-1, -1}, {{0}}, "gate"},
    {"port92", AT(port92), &port92_dev_ops, PART_ALWAYS, {-1, -1}, {{0x92, 1, &port92_ops}}, NULL},
    {"ps2", AT(ps2), &ps2_dev_ops, PART_ALWAYS, {1, 12}, {{0x60, 1, &ps2_data_ops}, {0x64, 1, &ps2_command_ops}}, NULL},
    {"hpet", AT(hpet), &hpet_dev_ops, PART_HPET, {-1, -1}, {{0}}, "fed00000-fed003ff, IOAPIC pins 20-23"},
    {"pit", AT(pit), &pit_dev_ops, PART_ALWAYS, {0, -1}, {{0x40, 4, &pit_ops}, {0x61, 1, &pit_port61_ops}}, NULL},
    {"rtc", AT(rtc), &rtc_dev_ops, PART_ALWAYS, {8, -1}, {{0x70, 2, &rtc_ops}}, NULL},
    {"com1", AT(uart[0]), &uart_dev_ops, PART_COM1, {4, -1}, {{0x3f8, 8, &uart_ops}}, NULL},
    {"com2", AT(uart[1]), &uart_dev_ops, PART_COM2, {3, -1}, {{0x2f8, 8, &uart_ops}}, NULL},
    {"com3", AT(uart[2]), &uart_dev_ops, PART_COM3, {4, -1}, {{0x3e8, 8, &uart_ops}}, NULL},
    {"com4", AT(uart[3]), &uart_dev_ops, PART_COM4, {3, -1}, {{0x2e8, 8, &uart_ops}}, NULL},
    {"post", AT(bus), NULL, PART_ALWAYS, {-1, -1}, {{0x80, 1, &silent_ops}, {0xed, 1, &silent_ops}}, NULL},
    {"debug-exit", AT(debugexit), NULL, PART_DEBUGEXIT, {-1, -1}, {{0}}, "-device isa-debug-exit,iobase="},
    {"debugcon", AT(debugcon), NULL, PART_DEBUGCON, {-1, -1}, {{0}}, "-debugcon (e9), -device isa-debugcon,iobase="},
    {"pci", AT(pci), &pci_bus_dev_ops, PART_ALWAYS, {-1, -1}, {{0}}, "0cf8-0cff"},
    {"i440fx", AT(host_bridge.pci), &pci_dev_dev_ops, PART_ALWAYS, {-1, -1}, {{0}}, "PCI 00:00.0"},
    {"piix3", AT(isa_bridge.pci), &pci_dev_dev_ops, PART_ALWAYS, {-1, -1}, {{0}}, "PCI 00:01.0"},
    {"acpi-pm", AT(acpi), &acpi_pm_dev_ops, PART_ALWAYS, {ACPI_SCI_IRQ, -1}, {{0}}, "00b2-00b3, 0cf9"},
    {"piix4-pm", AT(pm_function.pci), &pci_dev_dev_ops, PART_ALWAYS, {-1, -1}, {{0}}, "PCI 00:01.3, 0600-063f"},
    {"fw_cfg", AT(fwcfg), &fwcfg_dev_ops, PART_ALWAYS, {-1, -1}, {{0}}, "0510-051b"},
    {"kvmclock", AT(kvmclock), &kvmclock_dev_ops, PART_KVM, {-1, -1}, {{0}}, "MSRs 4b564d00-4b564d03"},
};
const unsigned board_parts_count = sizeof board_parts / sizeof board_parts[0];

bool board_has(const struct board_pc *b, const struct board_part *p)
{
    switch (p->needs) {
    case PART_ALWAYS: return true;
    case PART_HPET: return b->cfg.hpet;
    case PART_KVM: return b->cfg.kvm;
    case PART_COM1:
    case PART_COM2:
    case PART_COM3:
    case PART_COM4: return b->cfg.serial[p->needs - PART_COM1].present;
    case PART_DEBUGEXIT: return b->cfg.debugexit_size != 0;
    case PART_DEBUGCON: return b->cfg.n_debugcon != 0;
    }
    return false;
}

/* ---- wires ---- */

static const struct board_part *part(const char *name)
{
    for (unsigned i = 0; i < board_parts_count; i++)
        if (!strcmp(board_parts[i].name, name))
            return &board_parts[i];
    CHECK(!"a part of this name");
    return NULL;
}

/* One more source of an ISA IRQ. */
static struct irq_line isa_line(struct board_pc *b, int irq)
{
    CHECK(irq >= 0 && irq < BOARD_IRQS);
    return irq_or_input(&b->isa_irq[irq], b->isa_sources[irq]++);
}

static struct irq_line irq_of(struct board_pc *b, const char *name, unsigned which)
{
    return isa_line(b, part(name)->irq[which]);
}

static void set_lint0(void *opaque, int n, bool level)
{
    struct board_pc *b = opaque;
    lapic_set_lint(&b->lapic, 0, level);
}

/* The engine has no address line to pull down: 8086 wrap-around at 1 MiB is not there. */
static void set_a20(void *opaque, int n, bool level)
{
    const struct board_pc *b = opaque;
    if (!level && !b->in_reset)
        LOGF(UNIMP, "A20 gate closed: addresses do not wrap at 1 MiB here");
}

static void reset_wanted(void *opaque, int cause, bool level)
{
    struct board_pc *b = opaque;
    if (level)
        b->cfg.event(b->cfg.opaque, BOARD_RESET, cause);
}

static struct irq_line reset_line(struct board_pc *b, enum board_reset_cause cause)
{
    return (struct irq_line){.fn = reset_wanted, .opaque = b, .n = (int)cause};
}

static void acpi_reset(void *opaque) { reset_wanted(opaque, BOARD_RESET_CF9, true); }

static void acpi_power_off(void *opaque)
{
    struct board_pc *b = opaque;
    b->cfg.event(b->cfg.opaque, BOARD_POWER_OFF, 0);
}

static void debug_exit(void *opaque, int status)
{
    struct board_pc *b = opaque;
    b->cfg.event(b->cfg.opaque, BOARD_DEBUG_EXIT, status);
}

/* There is one CPU, and it runs: a start-up message finds nobody waiting. INIT restarts it, which without firmware to start
 * from is a reset of the machine. */
static void lapic_said(void *opaque, enum lapic_event e, uint8_t vector)
{
    if (e == LAPIC_EVENT_INIT)
        reset_wanted(opaque, BOARD_RESET_INIT, true);
    else
        LOGF(UNIMP, "%s sent to the only CPU: ignored", e == LAPIC_EVENT_SMI ? "SMI" : "start-up message");
}

static void msi(void *opaque, uint64_t addr, uint32_t data)
{
    struct board_pc *b = opaque;
    apic_bus_msi(&b->apics, addr, data);
}

static int pic_inta(void *opaque)
{
    struct board_pc *b = opaque;
    return pic_ack(&b->pic);
}

static void pic_acked(void *opaque, int irq)
{
    struct board_pc *b = opaque;
    if (irq == 0)
        pit_irq_acked(&b->pit);
}

static uint64_t run_delay(void *opaque, unsigned cpu)
{
    const struct board_pc *b = opaque;
    return host_run_delay_read(b->run_delay_fd);
}

/* ---- putting it together ---- */

static int init_interrupts(struct board_pc *b)
{
    pic_init(&b->pic, (struct irq_line){.fn = set_lint0, .opaque = b});
    b->pic.acked = pic_acked;
    b->pic.acked_opaque = b;
    apic_bus_init(&b->apics, b->bus);
    struct lapic_cfg lc = {
        .bsp = true,
        .x2apic = b->cfg.x2apic,
        .tsc_deadline = b->cfg.tsc_deadline,
        .pv_eoi = b->cfg.kvm,
        .maxphyaddr = b->cfg.maxphyaddr,
        .loop = b->cfg.loop,
        .tsc = &b->tsc,
        .mem = b->cfg.mem,
        .intr = {.fn = board_set_intr, .opaque = b},
        .nmi = b->cfg.nmi,
        .fpu = b->cfg.fpu,
        .cr8 = b->cfg.cr8,
        .cr8_slow = b->cfg.cr8_slow,
        .pic_ack = pic_inta,
        .pic_opaque = b,
        .event = lapic_said,
        .event_opaque = b,
    };
    lapic_init(&b->lapic, &b->apics, &lc);
    int rc = ioapic_init(&b->ioapic, b->bus, IOAPIC_DEFAULT_BASE, &b->apics);
    for (unsigned i = 0; i < BOARD_IRQS && !rc; i++) {
        if (i != 2) /* the cascade: no wire on the board */
            irq_fanout_add(&b->isa_sinks[i], pic_input(&b->pic, (int)i));
        if (i != 2)
            irq_fanout_add(&b->isa_sinks[i], ioapic_line(&b->ioapic, ioapic_isa_pin(i)));
        irq_or_init(&b->isa_irq[i], irq_fanout_line(&b->isa_sinks[i]));
    }
    return rc;
}

static int init_time(struct board_pc *b)
{
    struct irq_line tick[2] = {irq_of(b, "pit", 0), irq_of(b, "rtc", 0)}, pin[HPET_PINS];
    for (unsigned i = 0; i < HPET_PINS; i++)
        pin[i] = ioapic_line(&b->ioapic, HPET_PIN_FIRST + i);
    if (b->cfg.hpet) {
        int rc = hpet_init(&b->hpet, b->bus, b->cfg.loop, tick, pin);
        if (rc)
            return rc;
        tick[0] = hpet_legacy_in(&b->hpet, 0);
        tick[1] = hpet_legacy_in(&b->hpet, 1);
    }
    pit_init(&b->pit, b->cfg.loop, tick[0], true);
    rtc_init(&b->rtc, b->cfg.loop, tick[1], b->cfg.rtc_offset_s);
    if (!b->cfg.kvm)
        return 0;
    b->run_delay_fd = host_run_delay_open();
    struct kvmclock_cfg kc = {.cpus = 1, .mem = b->cfg.mem, .loop = b->cfg.loop, .tsc = &b->tsc, .pv_eoi = true};
    if (b->run_delay_fd >= 0) {
        kc.run_delay_ns = run_delay;
        kc.opaque = b;
    }
    kvmclock_init(&b->kvmclock, &kc);
    return 0;
}

static int init_pci(struct board_pc *b)
{
    struct pci_bus_cfg pc = {.bus = b->bus, .msi = msi, .msi_opaque = b};
    for (int i = 0; i < BOARD_IRQS; i++)
        if (i != 0 && i != 2 && i != 8)
            pc.isa[i] = isa_line(b, i);
    for (unsigned i = 0; i < 4; i++)
        pc.gsi[i] = ioapic_line(&b->ioapic, PCI_GSI_FIRST + i);
    int rc = pci_bus_init(&b->pci, &pc);
    if (!rc)
        rc = i440fx_init(&b->host_bridge, &b->pci);
    if (!rc)
        rc = piix3_init(&b->isa_bridge, &b->pci);
    struct acpi_pm_cfg ac = {.loop = b->cfg.loop,
                             .sci = irq_of(b, "acpi-pm", 0),
                             .power_off = acpi_power_off,
                             .reset = acpi_reset,
                             .opaque = b};
    if (!rc)
        rc = acpi_pm_init(&b->acpi, b->bus, &ac);
    if (!rc)
        rc = piix4_pm_init(&b->pm_function, &b->pci, &b->acpi);
    pci_bus_set_reset_port(&b->pci, acpi_reset_read, acpi_reset_write, &b->acpi);
    return rc;
}

static void init_serial(struct board_pc *b)
{
    static const char *const names[BOARD_SERIALS] = {"com1", "com2", "com3", "com4"};
    for (unsigned i = 0; i < BOARD_SERIALS; i++)
        if (b->cfg.serial[i].present)
            uart_init(&b->uart[i], b->cfg.loop, irq_of(b, names[i], 0), b->cfg.serial[i].chr);
}

static void init_legacy(struct board_pc *b)
{
    irq_or_init(&b->a20, (struct irq_line){.fn = set_a20, .opaque = b});
    port92_init(&b->port92, irq_or_input(&b->a20, 0), reset_line(b, BOARD_RESET_PORT92));
    struct ps2_wiring w = {.irq1 = irq_of(b, "ps2", 0),
                           .irq12 = irq_of(b, "ps2", 1),
                           .a20 = irq_or_input(&b->a20, 1),
                           .reset = reset_line(b, BOARD_RESET_KEYBOARD)};
    ps2_init(&b->ps2, b->cfg.loop, &w);
    b->debugexit = (struct debugexit){.exit_fn = debug_exit, .opaque = b};
    for (unsigned i = 0; i < b->cfg.n_debugcon; i++) {
        debugcon_init(&b->debugcon[i], b->cfg.debugcon[i].chr);
        b->debugcon[i].readback = b->cfg.debugcon[i].readback;
    }
}

static int add_ports(struct board_pc *b, const struct bus_range *r, char *err, size_t errsz)
{
    int h = bus_add(b->bus, r);
    if (h >= 0)
        return 0;
    const struct bus_range *other = bus_find(b->bus, r->space, r->base);
    if (h == -RD_E_BUSY && other)
        snprintf(err, errsz, "%s: port 0x%llx belongs to %s", r->name, (unsigned long long)r->base, other->name);
    else
        snprintf(err, errsz, "%s: ports 0x%llx-0x%llx: %s", r->name, (unsigned long long)r->base,
                 (unsigned long long)(r->base + r->len - 1), err_text(h));
    return h;
}

/* The ports of the table; then those that options place. */
static int map_ports(struct board_pc *b, char *err, size_t errsz)
{
    for (unsigned i = 0; i < board_parts_count; i++) {
        const struct board_part *p = &board_parts[i];
        for (unsigned k = 0; board_has(b, p) && k < BOARD_PART_PORTS && p->port[k].ops; k++) {
            struct bus_range r = {p->name,        BUS_PIO,        p->port[k].base,
                                  p->port[k].len, p->port[k].ops, (char *)b + p->state};
            int rc = add_ports(b, &r, err, errsz);
            if (rc)
                return rc;
        }
    }
    for (unsigned i = 0; i < b->cfg.n_debugcon; i++) {
        struct bus_range r = {"debugcon", BUS_PIO, b->cfg.debugcon[i].base, 1, &debugcon_ops, &b->debugcon[i]};
        int rc = add_ports(b, &r, err, errsz);
        if (rc)
            return rc;
    }
    struct bus_range r = {"isa-debug-exit",      BUS_PIO,        b->cfg.debugexit_base,
                          b->cfg.debugexit_size, &debugexit_ops, &b->debugexit};
    return b->cfg.debugexit_size ? add_ports(b, &r, err, errsz) : 0;
}

static uint64_t read_guest_tsc_offset(const struct board_pc *b) { return b->cfg.tsc_offset ? *b->cfg.tsc_offset : 0; }

int board_pc_init(struct board_pc *b, const struct board_pc_cfg *cfg, char *err, size_t errsz)
{
    b->cfg = *cfg;
    b->run_delay_fd = -1;
    b->tsc = (struct guest_tsc){.hz = cfg->tsc_hz, .offset = read_guest_tsc_offset(b)};
    snprintf(err, errsz, "out of memory");
    int rc = bus_create(&b->bus);
    if (!rc) {
        bus_set_fpu(b->bus, b->cfg.fpu);
        rc = init_interrupts(b);
    }
    if (!rc)
        rc = init_time(b);
    if (!rc)
        rc = init_pci(b);
    if (!rc)
        rc = fwcfg_init(&b->fwcfg, b->bus, &b->cfg.mem);
    if (!rc)
        rc = board_fw_init(b);
    if (rc)
        return rc;
    init_legacy(b);
    init_serial(b);
    return map_ports(b, err, errsz);
}

void board_pc_fini(struct board_pc *b)
{
    fwcfg_fini(&b->fwcfg);
    if (b->run_delay_fd >= 0)
        close(b->run_delay_fd);
    if (b->bus)
        bus_destroy(b->bus);
    memset(b, 0, sizeof *b);
}

/* ---- reset, saved state ---- */

void board_pc_reset(struct board_pc *b)
{
    b->in_reset = true;
    for (unsigned i = 0; i < BOARD_IRQS; i++)
        irq_or_dev_ops.reset(&b->isa_irq[i]);
    for (unsigned i = 0; i < board_parts_count; i++) {
        const struct board_part *p = &board_parts[i];
        if (p->dev && board_has(b, p))
            p->dev->reset((char *)b + p->state);
    }
    b->in_reset = false;
}

/* The row as a device; instances count parts of the same kind, in the table's order. */
static struct dev dev_of(struct board_pc *b, unsigned row)
{
    struct dev d = {board_parts[row].dev, (char *)b + board_parts[row].state, 0};
    for (unsigned i = 0; i < row; i++)
        d.instance += board_parts[i].dev == d.ops;
    if (d.ops == &irq_or_dev_ops) /* the ISA IRQs come first */
        d.instance += BOARD_IRQS;
    return d;
}

int board_pc_save(struct board_pc *b, struct dev_writer *w)
{
    int rc = 0;
    for (uint32_t i = 0; i < BOARD_IRQS && !rc; i++)
        rc = dev_save(w, &(struct dev){&irq_or_dev_ops, &b->isa_irq[i], i});
    for (unsigned i = 0; i < board_parts_count && !rc; i++) {
        struct dev d = dev_of(b, i);
        if (d.ops && board_has(b, &board_parts[i]))
            rc = dev_save(w, &d);
    }
    return rc;
}

int board_pc_restore(struct board_pc *b, struct dev_reader *r)
{
    int rc = 0;
    b->tsc.offset = read_guest_tsc_offset(b);
    for (uint32_t i = 0; i < BOARD_IRQS && !rc; i++)
        rc = dev_restore(r, &(struct dev){&irq_or_dev_ops, &b->isa_irq[i], i});
    for (unsigned i = 0; i < board_parts_count && !rc; i++) {
        struct dev d = dev_of(b, i);
        if (d.ops && board_has(b, &board_parts[i]))
            rc = dev_restore(r, &d);
    }
    if (rc)
        return rc;
    board_set_intr(b, 0,
                   lapic_has_intr(&b->lapic)); /* the CPU's pin is the engine's, and has no device to restore it */
    if (b->cfg.kvm)
        kvmclock_resume(&b->kvmclock, true);
    return 0;
}

void board_pc_dump(const struct board_pc *b, FILE *f)
{
    for (unsigned i = 0; i < board_parts_count; i++) {
        const struct board_part *p = &board_parts[i];
        if (!board_has(b, p))
            continue;
        fprintf(f, "%-11s", p->name);
        for (unsigned k = 0; k < BOARD_PART_PORTS && p->port[k].ops; k++)
            fprintf(f, "%s%04x-%04x", k ? ", " : "", p->port[k].base, p->port[k].base + p->port[k].len - 1);
        fprintf(f, "%s", p->where ? p->where : "");
        for (unsigned k = 0; k < 2 && p->irq[k] >= 0; k++)
            fprintf(f, "%s%d", k ? ", " : "; IRQ ", p->irq[k]);
        fputc('\n', f);
    }
    bus_dump(b->bus, f);
}
