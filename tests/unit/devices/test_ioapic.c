/* I/O APIC: 82093AA data sheet. */
#include "tests/unit/devices/dev_ram.h"
#include "devices/bus.h"
#include "devices/ioapic.h"
#include "devices/lapic.h"
#include "devices/tsc.h"

static struct evloop *loop;
static struct bus *bus;
static struct apic_bus ab;
static struct lapic l;
static struct ioapic io;
static struct dev_wires wires;
static struct dev_ram ram;
static struct guest_tsc tsc = {.hz = 1000000000};

static int pic_vector(void *opaque) { return 0x08; }

static void setup(void)
{
    struct evloop_config ec = {.test_clock = true};
    evloop_create(&loop, &ec);
    bus_create(&bus);
    apic_bus_init(&ab, bus);
    struct lapic_cfg c = {.bsp = true,
                          .maxphyaddr = 36,
                          .loop = loop,
                          .tsc = &tsc,
                          .mem = dev_ram_mem(&ram),
                          .intr = dev_wire(&wires, 0),
                          .nmi = dev_wire(&wires, 1),
                          .pic_ack = pic_vector};
    lapic_init(&l, &ab, &c);
    cr_assert_eq(ioapic_init(&io, bus, IOAPIC_DEFAULT_BASE, &ab), 0);
    lapic_mmio_write(&l, 0xf0, 0x1ff);
    lapic_mmio_write(&l, 0x350, 0x10000);
}
TestSuite(ioapic, .init = setup);

static uint32_t rd(uint32_t reg)
{
    uint32_t v;
    bus_mmio_write(bus, IOAPIC_DEFAULT_BASE, &reg, 4);
    bus_mmio_read(bus, IOAPIC_DEFAULT_BASE + 0x10, &v, 4);
    return v;
}
static void wr(uint32_t reg, uint32_t v)
{
    bus_mmio_write(bus, IOAPIC_DEFAULT_BASE, &reg, 4);
    bus_mmio_write(bus, IOAPIC_DEFAULT_BASE + 0x10, &v, 4);
}
static void route(unsigned pin, uint32_t low) { wr(0x10 + 2 * pin, low); }
static uint32_t entry(unsigned pin) { return rd(0x10 + 2 * pin); }
static void eoi(void) { lapic_mmio_write(&l, 0xb0, 0); }

Test(ioapic, registers_after_reset)
{
    cr_assert_eq(rd(0), 0);
    cr_assert_eq(rd(1), 0x00170020);
    for (unsigned i = 0; i < 24; i++)
        cr_assert_eq(entry(i), 0x10000);
    wr(0, 0xffffffff);
    cr_assert_eq(rd(0), 0x0f000000);
    cr_assert_eq(rd(2), 0x0f000000);
    wr(1, 0);
    cr_assert_eq(rd(1), 0x00170020);
}

Test(ioapic, status_bits_are_read_only)
{
    route(3, 0xffffffff);
    wr(0x17, 0xffffffff);
    cr_assert_eq(entry(3), 0x1afff);
    cr_assert_eq(rd(0x17), 0xff000000);
}

Test(ioapic, edge_is_sent_once_per_rise)
{
    route(4, 0x44);
    ioapic_set_pin(&io, 4, true);
    cr_assert_eq(lapic_ack(&l), 0x44);
    eoi();
    ioapic_set_pin(&io, 4, true);
    cr_assert_eq(lapic_ack(&l), -1);
    ioapic_set_pin(&io, 4, false);
    ioapic_set_pin(&io, 4, true);
    cr_assert_eq(lapic_ack(&l), 0x44);
}

Test(ioapic, masked_edge_is_lost_masked_level_is_not)
{
    route(4, 0x10044);
    ioapic_set_pin(&io, 4, true);
    route(4, 0x44);
    cr_assert_eq(lapic_ack(&l), -1);
    route(5, 0x18055);
    ioapic_set_pin(&io, 5, true);
    cr_assert_eq(lapic_ack(&l), -1);
    route(5, 0x8055);
    cr_assert_eq(lapic_ack(&l), 0x55);
}

Test(ioapic, level_waits_for_eoi_and_comes_again_while_asserted)
{
    route(9, 0xa061);
    ioapic_set_pin(&io, 9, true);
    cr_assert(entry(9) & 0x4000);
    cr_assert_eq(lapic_ack(&l), 0x61);
    ioapic_set_pin(&io, 9, false);
    ioapic_set_pin(&io, 9, true);
    cr_assert_eq(lapic_ack(&l), -1);
    eoi();
    cr_assert_eq(lapic_ack(&l), 0x61);
    ioapic_set_pin(&io, 9, false);
    eoi();
    cr_assert_eq(lapic_ack(&l), -1);
    cr_assert_not(entry(9) & 0x4000);
}

Test(ioapic, eoi_register_works_as_the_broadcast)
{
    route(9, 0x8061);
    ioapic_set_pin(&io, 9, true);
    ioapic_set_pin(&io, 9, false);
    uint32_t v = 0x61;
    bus_mmio_write(bus, IOAPIC_DEFAULT_BASE + 0x40, &v, 4);
    cr_assert_not(entry(9) & 0x4000);
}

Test(ioapic, switching_to_edge_clears_remote_irr)
{
    route(9, 0x8061);
    ioapic_set_pin(&io, 9, true);
    ioapic_set_pin(&io, 9, false);
    cr_assert(entry(9) & 0x4000);
    route(9, 0x10061);
    cr_assert_not(entry(9) & 0x4000);
}

Test(ioapic, refused_level_message_does_not_block_the_pin)
{
    lapic_mmio_write(&l, 0xf0, 0xff); /* software-disabled */
    route(9, 0x8061);
    ioapic_set_pin(&io, 9, true);
    cr_assert_not(entry(9) & 0x4000);
    lapic_mmio_write(&l, 0xf0, 0x1ff);
    ioapic_set_pin(&io, 9, true);
    cr_assert_eq(lapic_ack(&l), 0x61);
}

Test(ioapic, nmi_and_extint_modes)
{
    route(2, 0x400);
    ioapic_set_pin(&io, 2, true);
    cr_assert_eq(wires.edges[1], 1);
    route(0, 0x700);
    lapic_set_lint(&l, 0, true); /* the 8259's INTR, on both wires */
    cr_assert_eq(lapic_ack(&l), -1);
    ioapic_set_pin(&io, 0, true);
    cr_assert_eq(lapic_ack(&l), 0x08);
    cr_assert_eq(lapic_ack(&l), -1);
}

Test(ioapic, destination_selects)
{
    wr(0x10 + 2 * 6 + 1, 0x07000000);
    route(6, 0x66);
    ioapic_set_pin(&io, 6, true);
    cr_assert_eq(lapic_ack(&l), -1);
    wr(0x10 + 2 * 7 + 1, 0xff000000);
    route(7, 0x67);
    ioapic_set_pin(&io, 7, true);
    cr_assert_eq(lapic_ack(&l), 0x67);
}

Test(ioapic, two_pins_with_one_vector)
{
    route(10, 0x8071);
    route(11, 0x8071);
    ioapic_set_pin(&io, 10, true);
    ioapic_set_pin(&io, 11, true);
    cr_assert_eq(lapic_ack(&l), 0x71);
    ioapic_set_pin(&io, 10, false);
    eoi();
    cr_assert_eq(lapic_ack(&l), 0x71);
}

Test(ioapic, registers_that_are_not_there)
{
    cr_assert_eq(rd(0x40), 0);
    wr(0x40, 0xffffffff);
    wr(0xff, 0xffffffff);
    cr_assert_eq(rd(0xff), 0);
}

Test(ioapic, round_trip)
{
    route(9, 0x8061);
    ioapic_set_pin(&io, 9, true);
    wr(0, 0x02000000);
    const struct dev d = {&ioapic_dev_ops, &io, 0};
    dev_refuses_truncation(&d);
    dev_round_trip(&d);
    cr_assert(entry(9) & 0x4000);
}

Test(ioapic, forged_state_is_refused)
{
    struct ioapic forged = io;
    struct dev_writer w = {0};
    const struct dev d = {&ioapic_dev_ops, &io, 0}, f = {&ioapic_dev_ops, &forged, 0};
    forged.s.level = 1u << 24;
    dev_save(&w, &f);
    struct dev_reader r = {.buf = w.buf, .len = w.len};
    cr_assert_eq(dev_restore(&r, &d), -RD_E_FORMAT);
    dev_writer_free(&w);
}
