#include "devices/pit.h"
#include "tests/unit/devices/fixture.h"

static struct evloop *loop;
static struct pit pit;
static struct probe irq;

static uint64_t ns_of(uint64_t ticks)
{
    return (uint64_t)(((unsigned __int128)ticks * NS_PER_SEC + PIT_HZ - 1) / PIT_HZ);
}
/* To the middle of a PIT clock, so that rounding does not matter. */
static void to_tick(uint64_t tick)
{
    uint64_t at = ns_of(tick) + 400;
    cr_assert_leq(vtime_now(loop), at);
    vtime_test_advance(loop, at - vtime_now(loop));
}
static void ctl(uint8_t v) { out8(&pit_ops, &pit, 3, v); }
static void dat(unsigned n, uint8_t v) { out8(&pit_ops, &pit, n, v); }
static void count16(unsigned n, uint16_t v) { dat(n, v & 0xff), dat(n, v >> 8); }
static uint16_t latched(unsigned n)
{
    ctl((uint8_t)(n << 6));
    uint16_t lo = in8(&pit_ops, &pit, n);
    return (uint16_t)(lo | in8(&pit_ops, &pit, n) << 8);
}
static uint8_t status(unsigned n)
{
    ctl((uint8_t)(0xe0 | 2u << n));
    return in8(&pit_ops, &pit, n);
}
static bool out(unsigned n) { return status(n) & 0x80; }
static void gate2(bool on) { out8(&pit_port61_ops, &pit, 0, on); }

static void setup(void)
{
    loop = test_loop();
    irq = (struct probe){0};
    pit_init(&pit, loop, probe_line(&irq), false);
    to_tick(100);
}
static void teardown(void) { evloop_destroy(loop); }
TestSuite(pit, .init = setup, .fini = teardown);

Test(pit, mode0_counts_down_and_output_rises_after_n_plus_1_clocks)
{
    ctl(0x30);
    cr_assert_not(out(0));
    count16(0, 10); /* loaded at 101 */
    cr_assert_eq(status(0), 0x40 | 0x30, "null count until loaded");
    to_tick(101);
    cr_assert_eq(status(0), 0x30);
    to_tick(104);
    cr_assert_eq(latched(0), 7);
    to_tick(110);
    cr_assert_not(out(0));
    cr_assert_eq(irq.rises, 0);
    to_tick(111);
    cr_assert(out(0));
    cr_assert_eq(irq.rises, 1);
    to_tick(114);
    cr_assert_eq(latched(0), 0xfffd, "goes on counting");
    to_tick(300000);
    cr_assert_eq(irq.rises, 1, "but the output stays");
    count16(0, 5);
    cr_assert_not(irq.level);
    to_tick(300007);
    cr_assert_eq(irq.rises, 2);
}

Test(pit, mode0_gate_stops_the_count_and_first_byte_stops_it_too)
{
    gate2(true);
    ctl(0xb0);
    count16(2, 100);
    to_tick(111);
    gate2(false);
    to_tick(500);
    cr_assert_eq(latched(2), 90);
    gate2(true);
    to_tick(510);
    cr_assert_eq(latched(2), 80);
    dat(2, 4);
    to_tick(600);
    cr_assert_eq(latched(2), 80);
    dat(2, 0);
    to_tick(603);
    cr_assert_eq(latched(2), 2);
    to_tick(605);
    cr_assert(out(2));
}

Test(pit, mode1_is_a_retriggerable_one_shot)
{
    ctl(0xb2);
    cr_assert(out(2));
    count16(2, 20);
    to_tick(200);
    cr_assert(out(2), "waits for the gate");
    gate2(true); /* loaded at 201 */
    to_tick(202);
    cr_assert_not(out(2));
    cr_assert_eq(latched(2), 19);
    to_tick(210);
    gate2(false), gate2(true); /* again, at 211 */
    to_tick(230);
    cr_assert_not(out(2));
    to_tick(231);
    cr_assert(out(2));
    count16(2, 3); /* for the next trigger only */
    to_tick(300);
    gate2(false), gate2(true);
    to_tick(303);
    cr_assert_not(out(2));
    to_tick(304);
    cr_assert(out(2));
}

Test(pit, mode2_is_low_for_the_last_clock_of_each_period)
{
    ctl(0x34);
    count16(0, 10);
    to_tick(101);
    cr_assert_eq(latched(0), 10);
    to_tick(110);
    cr_assert_eq(latched(0), 1);
    cr_assert_not(out(0));
    to_tick(111);
    cr_assert_eq(latched(0), 10);
    cr_assert(out(0));
}

Test(pit, mode2_new_count_waits_for_the_end_of_the_period)
{
    ctl(0x34);
    count16(0, 100);
    to_tick(150);
    count16(0, 10);
    cr_assert(status(0) & 0x40);
    cr_assert_eq(latched(0), 51);
    to_tick(201);
    cr_assert_eq(latched(0), 10);
    cr_assert_eq(irq.rises, 2); /* control word, then the end of the period */
    to_tick(211);
    cr_assert_eq(irq.rises, 3);
    cr_assert_not(status(0) & 0x40);
}

Test(pit, mode2_gate_holds_output_high_and_reloads)
{
    gate2(true);
    ctl(0xb4);
    count16(2, 10);
    to_tick(110);
    cr_assert_not(out(2));
    gate2(false);
    cr_assert(out(2));
    to_tick(200);
    gate2(true);
    to_tick(201);
    cr_assert_eq(latched(2), 10);
}

Test(pit, mode3_even_count_goes_down_by_two)
{
    static const uint8_t value[] = {6, 4, 2, 6, 4, 2, 6}, high[] = {1, 1, 1, 0, 0, 0, 1};
    gate2(true);
    ctl(0xb6);
    count16(2, 6);
    for (unsigned i = 0; i < 7; i++) {
        to_tick(101 + i);
        cr_assert_eq(latched(2), value[i], "clock %u", i);
        cr_assert_eq(out(2), high[i], "clock %u", i);
    }
}

Test(pit, mode3_odd_count_is_high_one_clock_longer)
{
    static const uint8_t value[] = {4, 2, 0, 4, 2, 4, 2}, high[] = {1, 1, 1, 0, 0, 1, 1};
    gate2(true);
    ctl(0xb6);
    count16(2, 5);
    for (unsigned i = 0; i < 7; i++) {
        to_tick(101 + i);
        cr_assert_eq(latched(2), value[i], "clock %u", i);
        cr_assert_eq(out(2), high[i], "clock %u", i);
    }
}

Test(pit, mode3_new_count_waits_for_the_half_period)
{
    gate2(true);
    ctl(0xb6);
    count16(2, 100);
    to_tick(110);
    count16(2, 20);
    to_tick(150);
    cr_assert(out(2));
    to_tick(151); /* low half of the new count */
    cr_assert_not(out(2));
    to_tick(160);
    cr_assert_not(out(2));
    to_tick(161);
    cr_assert(out(2));
    to_tick(171);
    cr_assert_not(out(2));
}

Test(pit, mode4_strobes_once)
{
    ctl(0x38);
    cr_assert(out(0));
    count16(0, 10);
    to_tick(110);
    cr_assert(out(0));
    to_tick(111);
    cr_assert_not(out(0));
    unsigned before = irq.rises;
    to_tick(112);
    cr_assert(out(0));
    cr_assert_eq(irq.rises, before + 1);
    to_tick(200000);
    cr_assert_eq(irq.rises, before + 1);
    count16(0, 3);
    to_tick(200010);
    cr_assert_eq(irq.rises, before + 2);
}

Test(pit, mode5_strobes_after_a_trigger)
{
    ctl(0xba);
    count16(2, 4);
    to_tick(150);
    gate2(true);
    to_tick(154);
    cr_assert(out(2));
    to_tick(155);
    cr_assert_not(out(2));
    to_tick(156);
    cr_assert(out(2));
}

Test(pit, bcd_counts_in_decimal)
{
    ctl(0x31);
    count16(0, 0x1000);
    to_tick(102);
    cr_assert_eq(latched(0), 0x0999);
    ctl(0x31);
    count16(0, 0); /* 10000 */
    to_tick(104);
    cr_assert_eq(latched(0), 0x9999);
}

Test(pit, zero_means_65536)
{
    ctl(0x34);
    count16(0, 0);
    to_tick(101 + 65535);
    cr_assert_eq(latched(0), 1);
    cr_assert_eq(irq.rises, 1);
    to_tick(101 + 65536);
    cr_assert_eq(irq.rises, 2);
}

Test(pit, single_byte_access)
{
    ctl(0x10 | 0x04);
    dat(0, 50);
    to_tick(111);
    cr_assert_eq(in8(&pit_ops, &pit, 0), 40);
    cr_assert_eq(in8(&pit_ops, &pit, 0), 40, "no flip-flop");
    ctl(0x20);
    dat(0, 2);
    to_tick(120);
    cr_assert_eq(in8(&pit_ops, &pit, 0), 1);
}

Test(pit, latch_holds_until_read_and_reads_alternate_bytes)
{
    ctl(0x34);
    count16(0, 0x1234);
    to_tick(101);
    ctl(0x00);
    to_tick(150);
    ctl(0x00); /* ignored: already latched */
    cr_assert_eq(in8(&pit_ops, &pit, 0), 0x34);
    cr_assert_eq(in8(&pit_ops, &pit, 0), 0x12);
    cr_assert_eq(in8(&pit_ops, &pit, 0), 0x34 - 49);
}

Test(pit, read_back_gives_status_then_count_of_all_selected)
{
    ctl(0x34), count16(0, 0x1111);
    ctl(0xb6), count16(2, 0x2222);
    to_tick(101);
    ctl(0xc0 | 0x02 | 0x08); /* both latches of 0 and 2 */
    to_tick(200);
    cr_assert_eq(in8(&pit_ops, &pit, 0), 0x80 | 0x34);
    cr_assert_eq(in8(&pit_ops, &pit, 0), 0x11);
    cr_assert_eq(in8(&pit_ops, &pit, 0), 0x11);
    cr_assert_eq(in8(&pit_ops, &pit, 2) & 0x3f, 0x36);
    cr_assert_eq(in8(&pit_ops, &pit, 2), 0x22);
    cr_assert_eq(in8(&pit_ops, &pit, 2), 0x22);
}

Test(pit, status_shows_the_mode_as_written)
{
    ctl(0x3c); /* mode 2 with the don't-care bit */
    cr_assert_eq(status(0) & 0x3f, 0x3c);
    cr_assert_eq(in8(&pit_ops, &pit, 3), 0xff);
}

Test(pit, port61_shows_gate_refresh_and_output)
{
    cr_assert_eq(in8(&pit_port61_ops, &pit, 0) & 0x0f, 0);
    out8(&pit_port61_ops, &pit, 0, 0xf3);
    cr_assert_eq(in8(&pit_port61_ops, &pit, 0) & 0xcf, 0x03);
    ctl(0xb0);
    cr_assert_not(in8(&pit_port61_ops, &pit, 0) & 0x20);
    count16(2, 100);
    to_tick(300);
    cr_assert(in8(&pit_port61_ops, &pit, 0) & 0x20);
    cr_assert(pit_speaker_level(&pit));
    unsigned toggles = 0;
    for (uint64_t t = 300, last = 2; t < 300 + 1800; t++) {
        to_tick(t);
        uint64_t bit = in8(&pit_port61_ops, &pit, 0) >> 4 & 1;
        toggles += bit != last;
        last = bit;
    }
    cr_assert(toggles >= 100 && toggles <= 101, "about every 15 us, was %u", toggles);
}

Test(pit, ticks_do_not_drift_over_an_hour)
{
    ctl(0x34);
    count16(0, 11932); /* 100 Hz */
    irq.rises = 0;
    vtime_test_advance(loop, 3600 * NS_PER_SEC);
    uint64_t want = (uint64_t)PIT_HZ * 3600 / 11932;
    cr_assert_eq(irq.rises, want);
}

Test(pit, starvation_is_made_up_for)
{
    ctl(0x34);
    count16(0, 11932);
    vtime_test_advance(loop, NS_PER_SEC);
    vtime_test_starve(loop, NS_PER_SEC / 2);
    evloop_run(loop);
    unsigned after = irq.rises;
    cr_assert_lt(after, 110, "not all at once");
    vtime_test_advance(loop, NS_PER_SEC);
    cr_assert(irq.rises >= 249 && irq.rises <= 251, "%u", irq.rises);
}

Test(pit, debt_is_bounded)
{
    ctl(0x34);
    count16(0, 1194); /* 1 kHz */
    vtime_test_starve(loop, 3600 * NS_PER_SEC);
    evloop_run(loop);
    cr_assert_leq(pit.s.owed, PIT_OWED_MAX);
    vtime_test_advance(loop, NS_PER_SEC);
    cr_assert_leq(irq.rises, 2 + PIT_OWED_MAX + 1000);
}

Test(pit, tick_merged_in_an_unacknowledged_one_is_delivered_later)
{
    pit_init(&pit, loop, probe_line(&irq), true);
    ctl(0x34);
    count16(0, 11932);
    pit_irq_acked(&pit);
    irq.rises = 0;
    vtime_test_advance(loop, 35000000); /* three ticks, no acknowledge */
    cr_assert_eq(pit.s.owed, 2);
    for (unsigned i = 0; i < 10; i++) {
        pit_irq_acked(&pit);
        vtime_test_advance(loop, 3000000);
    }
    cr_assert_eq(pit.s.owed, 0);
    cr_assert_eq(irq.rises, 6 + 2, "the two lost edges were pulses on the line as well");
}

/* The 8259 forgets an edge whose line falls before the acknowledge: it is not owed either. */
Test(pit, edge_forgotten_by_reprogramming_is_not_delivered_later)
{
    pit_init(&pit, loop, probe_line(&irq), true);
    ctl(0x30);
    count16(0, 1193);
    vtime_test_advance(loop, 2000000); /* fires, nobody takes it */
    ctl(0x30);
    count16(0, 1193);
    vtime_test_advance(loop, 2000000);
    irq.rises = 0;
    pit_irq_acked(&pit);
    vtime_test_advance(loop, NS_PER_SEC);
    cr_assert_eq(irq.rises, 0);
}

Test(pit, masked_interrupt_builds_up_no_debt)
{
    pit_init(&pit, loop, probe_line(&irq), true);
    ctl(0x34);
    count16(0, 11932);
    vtime_test_advance(loop, 60 * NS_PER_SEC);
    cr_assert_eq(pit.s.owed, 0);
    pit_irq_acked(&pit);
    irq.rises = 0;
    for (unsigned i = 0; i < 100; i++) {
        vtime_test_advance(loop, 10000000);
        pit_irq_acked(&pit);
    }
    cr_assert(irq.rises >= 99 && irq.rises <= 101, "%u", irq.rises);
}

Test(pit, absurd_rate_does_not_hang)
{
    ctl(0x14);
    dat(0, 1);
    vtime_test_starve(loop, NS_PER_SEC);
    evloop_run(loop);
    ctl(0x16);
    dat(0, 1);
    cr_assert_leq(latched(0), 1);
    vtime_test_starve(loop, NS_PER_SEC);
    evloop_run(loop);
}

Test(pit, nothing_programmed_arms_no_timer)
{
    cr_assert_eq(vtime_next_deadline(loop), VTIME_NEVER);
    ctl(0xb6), count16(2, 1000), gate2(true);
    cr_assert_eq(vtime_next_deadline(loop), VTIME_NEVER, "only channel 0 interrupts");
}

Test(pit, state_survives_save_and_restore)
{
    struct pit p2;
    struct probe i2 = {0};
    ctl(0x34), count16(0, 1000);
    ctl(0xb6), dat(2, 0x12), gate2(true);
    to_tick(500);
    count16(0, 500);
    ctl(0x00);
    pit_init(&p2, loop, probe_line(&i2), false);
    round_trip(&pit_dev_ops, &pit, &p2);
    to_tick(1101);
    cr_assert_eq(i2.rises, 1);
    to_tick(1601);
    cr_assert_eq(i2.rises, 2);
    forge(&pit_dev_ops, &pit, &p2);
    vtime_test_advance(loop, 1000000);
}
