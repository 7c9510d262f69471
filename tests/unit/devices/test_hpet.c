/* HPET: IA-PC HPET specification 1.0a. */
#include "tests/unit/devices/dev_ram.h"
#include "devices/bus.h"
#include "devices/hpet.h"

static struct evloop *loop;
static struct bus *bus;
static struct hpet h;
static struct dev_wires w; /* 0, 1: IRQ 0 and 8; 2-5: pins 20-23 */

static void setup(void)
{
    struct evloop_config ec = {.test_clock = true};
    evloop_create(&loop, &ec);
    bus_create(&bus);
    struct irq_line legacy[2] = {dev_wire(&w, 0), dev_wire(&w, 1)}, pin[4];
    for (int i = 0; i < 4; i++)
        pin[i] = dev_wire(&w, 2 + i);
    cr_assert_eq(hpet_init(&h, bus, loop, legacy, pin), 0);
}
TestSuite(hpet, .init = setup);

static uint64_t rd(unsigned off, unsigned n)
{
    uint64_t v = 0;
    bus_mmio_read(bus, HPET_BASE + off, &v, n);
    return v;
}
static void wr(unsigned off, uint64_t v, unsigned n) { bus_mmio_write(bus, HPET_BASE + off, &v, n); }
static void tick(uint64_t n) { vtime_test_advance(loop, n * HPET_TICK_NS); }

Test(hpet, identity_and_capabilities)
{
    cr_assert_eq(rd(0, 8), 10000000ull << 32 | HPET_BLOCK_ID);
    cr_assert_eq(rd(4, 4), 10000000);
    for (unsigned n = 0; n < 3; n++) {
        cr_assert_eq(rd(0x100 + 0x20 * n, 8), 0x00f0000000000030ull);
        cr_assert_eq(rd(0x108 + 0x20 * n, 8), UINT64_MAX);
    }
    cr_assert_eq(rd(0x160, 8), 0); /* no fourth timer */
}

Test(hpet, counter_runs_only_while_enabled_and_is_writable_while_stopped)
{
    tick(100);
    cr_assert_eq(rd(0xf0, 8), 0);
    wr(0xf0, 0x1fffffff0, 8);
    wr(0x10, 1, 4);
    tick(0x20);
    cr_assert_eq(rd(0xf0, 8), 0x200000010);
    cr_assert_eq(rd(0xf4, 4), 2);
    wr(0xf0, 0, 8); /* undefined while running: kept */
    cr_assert_eq(rd(0xf0, 8), 0x200000010);
    wr(0x10, 0, 4);
    tick(5);
    cr_assert_eq(rd(0xf0, 8), 0x200000010);
}

Test(hpet, one_shot_edge_on_its_pin)
{
    wr(0x100, 21 << 9 | 4, 4);
    wr(0x108, 1000, 8);
    wr(0x10, 1, 4);
    tick(999);
    cr_assert_eq(w.edges[3], 0);
    tick(1);
    cr_assert_eq(w.edges[3], 1);
    tick(1000000);
    cr_assert_eq(w.edges[3], 1);
    cr_assert_eq(rd(0x20, 4), 0);
}

Test(hpet, level_interrupt_stays_until_status_is_cleared)
{
    wr(0x120, 22 << 9 | 4 | 2, 4);
    wr(0x128, 10, 8);
    wr(0x10, 1, 4);
    tick(10);
    cr_assert_eq(rd(0x20, 4), 2);
    cr_assert(w.level >> 4 & 1);
    wr(0x20, 2, 4);
    cr_assert_not(w.level >> 4 & 1);
}

Test(hpet, periodic_by_value_set_keeps_phase_and_coalesces)
{
    wr(0x140, 20 << 9 | 4 | 8 | 0x40, 4);
    wr(0x148, 5000, 8);
    wr(0x148, 20000, 8);
    wr(0x10, 1, 4);
    tick(5000);
    cr_assert_eq(w.edges[2], 1);
    tick(20000 * 10);
    cr_assert_eq(w.edges[2], 11);
    vtime_test_starve(loop, 20000ull * 100 * HPET_TICK_NS);
    evloop_run(loop);
    cr_assert_eq(w.edges[2], 12);
    cr_assert_eq((rd(0x148, 8) - 5000) % 20000, 0);
    tick(20000);
    cr_assert_eq(w.edges[2], 13);
}

Test(hpet, thirty_two_bit_timer_wraps)
{
    wr(0xf0, 0xfffffff0, 8);
    wr(0x100, 20 << 9 | 4 | 0x100, 4);
    wr(0x108, 0x10, 8);
    wr(0x10, 1, 4);
    tick(0x20);
    cr_assert_eq(w.edges[2], 1);
}

Test(hpet, legacy_mode_takes_irq0_and_irq8_from_the_old_chips)
{
    struct irq_line pit = hpet_legacy_in(&h, 0);
    irq_pulse(&pit);
    cr_assert_eq(w.edges[0], 1);
    wr(0x100, 4, 4);
    wr(0x108, 100, 8);
    wr(0x10, 3, 4);
    irq_set(&pit, true);
    cr_assert_eq(w.edges[0], 1);
    tick(100);
    cr_assert_eq(w.edges[0], 2);
    wr(0x10, 1, 4);
    cr_assert(w.level & 1); /* the PIT's level shows again */
}

Test(hpet, match_that_the_host_was_late_for_survives_a_register_write)
{
    wr(0x100, 20 << 9 | 4, 4);
    wr(0x108, 1000, 8);
    wr(0x10, 1, 4);
    vtime_test_starve(loop, 1500 * HPET_TICK_NS);
    wr(0x10, 1, 4);
    cr_assert_eq(w.edges[2], 1);
}

Test(hpet, absurd_period_does_not_occupy_the_host)
{
    wr(0x100, 20 << 9 | 4 | 8 | 0x40, 4);
    wr(0x108, 1, 8);
    wr(0x108, 1, 8);
    wr(0x10, 1, 4);
    vtime_test_advance(loop, 1000000);
    cr_assert_leq(w.edges[2], 22);
    wr(0x100, 20 << 9 | 4 | 8, 4);
    wr(0x108, 0, 4); /* period zero */
    vtime_test_advance(loop, 1000000);
}

Test(hpet, round_trip_keeps_the_match)
{
    wr(0x100, 20 << 9 | 4, 4);
    wr(0x108, 1000, 8);
    wr(0x10, 1, 4);
    tick(400);
    const struct dev d = {&hpet_dev_ops, &h, 0};
    dev_refuses_truncation(&d);
    dev_round_trip(&d);
    cr_assert_eq(rd(0xf0, 8), 400);
    tick(600);
    cr_assert_eq(w.edges[2], 1);
}
