#include "devices/rtc.h"
#include "tests/unit/devices/fixture.h"

static struct evloop *loop;
static struct rtc rtc;
static struct probe irq;
#define MS 1000000ull

static void wr(uint8_t reg, uint8_t val) { out8(&rtc_ops, &rtc, 0, reg), out8(&rtc_ops, &rtc, 1, val); }
static uint8_t rd(uint8_t reg)
{
    out8(&rtc_ops, &rtc, 0, reg);
    return in8(&rtc_ops, &rtc, 1);
}
static void set_time(uint8_t h, uint8_t m, uint8_t s)
{
    wr(0x0b, rd(0x0b) | 0x80);
    wr(4, h), wr(2, m), wr(0, s);
    wr(0x0b, rd(0x0b) & 0x7f);
}

static void setup(void)
{
    loop = test_loop();
    irq = (struct probe){0};
    vtime_test_set_wall(loop, 951826496ll * (int64_t)NS_PER_SEC); /* Tue 2000-02-29 12:14:56 UTC */
    rtc_init(&rtc, loop, probe_line(&irq), 0);
}
static void teardown(void) { evloop_destroy(loop); }
TestSuite(rtc, .init = setup, .fini = teardown);

static void expect_date(uint8_t century, uint8_t y, uint8_t mo, uint8_t d, uint8_t wd)
{
    cr_assert_eq(rd(0x32), century);
    cr_assert_eq(rd(9), y);
    cr_assert_eq(rd(8), mo);
    cr_assert_eq(rd(7), d);
    cr_assert_eq(rd(6), wd);
}
static void expect_time(uint8_t h, uint8_t m, uint8_t s)
{
    cr_assert_eq(rd(4), h, "%x", rd(4));
    cr_assert_eq(rd(2), m, "%x", rd(2));
    cr_assert_eq(rd(0), s, "%x", rd(0));
}

Test(rtc, shows_the_hosts_time_in_bcd_24h)
{
    expect_time(0x12, 0x14, 0x56);
    expect_date(0x20, 0x00, 0x02, 0x29, 3);
    cr_assert_eq(rd(0x0d), 0x80);
    vtime_test_advance(loop, 12 * 3600 * NS_PER_SEC);
    expect_time(0x00, 0x14, 0x56);
    expect_date(0x20, 0x00, 0x03, 0x01, 4);
}

Test(rtc, binary_and_12_hour_modes)
{
    wr(0x0b, 0x06);
    expect_time(12, 14, 56);
    wr(0x0b, 0x00);
    expect_time(0x92, 0x14, 0x56); /* 12 PM */
    vtime_test_advance(loop, 12 * 3600 * NS_PER_SEC);
    cr_assert_eq(rd(4), 0x12); /* 12 AM */
    vtime_test_advance(loop, 3600 * NS_PER_SEC);
    cr_assert_eq(rd(4), 0x01);
    wr(0x0b, 0x04);
    vtime_test_advance(loop, 12 * 3600 * NS_PER_SEC);
    cr_assert_eq(rd(4), 0x81);
}

Test(rtc, set_time_runs_on_and_keeps_the_phase_of_seconds)
{
    vtime_test_advance(loop, 300 * MS);
    set_time(0x23, 0x59, 0x59);
    expect_time(0x23, 0x59, 0x59);
    vtime_test_advance(loop, 699 * MS);
    expect_time(0x23, 0x59, 0x59);
    vtime_test_advance(loop, 2 * MS);
    expect_time(0x00, 0x00, 0x00);
    cr_assert_eq(rd(7), 0x01, "the date carries");
    cr_assert_eq(rd(8), 0x03);
}

Test(rtc, stands_still_while_set)
{
    wr(0x0b, 0x82);
    vtime_test_advance(loop, 10 * NS_PER_SEC);
    expect_time(0x12, 0x14, 0x56);
    wr(0, 0x30);
    cr_assert_eq(rd(0), 0x30);
    cr_assert_not(rd(0x0a) & 0x80);
    wr(0x0b, 0x02);
    expect_time(0x12, 0x14, 0x30);
}

Test(rtc, released_divider_updates_after_half_a_second)
{
    wr(0x0a, 0x76);
    set_time(0x01, 0x00, 0x00);
    vtime_test_advance(loop, 5 * NS_PER_SEC);
    expect_time(0x01, 0x00, 0x00);
    wr(0x0a, 0x26);
    vtime_test_advance(loop, 499 * MS);
    expect_time(0x01, 0x00, 0x00);
    vtime_test_advance(loop, 2 * MS);
    expect_time(0x01, 0x00, 0x01);
}

Test(rtc, any_date_a_guest_sets_is_taken)
{
    wr(0x0b, 0x86);
    for (unsigned reg = 0; reg < 10; reg++)
        wr((uint8_t)reg, 0xff);
    wr(0x32, 0xff);
    wr(0x0b, 0x06);
    rd(0), rd(0x32), rd(0x0c);
    wr(0x0b, 0x86);
    wr(9, 0), wr(8, 0), wr(7, 0), wr(0x32, 0), wr(6, 0);
    wr(0x0b, 0x76);
    vtime_test_advance(loop, NS_PER_SEC);
    rd(0x0c);
    wr(0x0b, 0x86);
    wr(0x32, 99), wr(9, 99), wr(8, 12), wr(7, 31), wr(4, 23), wr(2, 59), wr(0, 58), wr(6, 7);
    wr(0x0b, 0x06);
    vtime_test_advance(loop, NS_PER_SEC);
    expect_date(99, 99, 12, 31, 7);
    expect_time(23, 59, 59);
}

Test(rtc, uip_is_up_shortly_before_the_update)
{
    vtime_test_advance(loop, 999 * MS);
    cr_assert(rd(0x0a) & 0x80 ? false : true);
    vtime_test_advance(loop, 800000);
    cr_assert(rd(0x0a) & 0x80);
    vtime_test_advance(loop, 200000);
    cr_assert_not(rd(0x0a) & 0x80);
}

Test(rtc, update_ended_interrupt_each_second_until_register_c_is_read)
{
    wr(0x0b, 0x12);
    rd(0x0c);
    vtime_test_advance(loop, 1001 * MS);
    cr_assert_eq(irq.rises, 1);
    vtime_test_advance(loop, NS_PER_SEC);
    cr_assert_eq(irq.rises, 1);
    cr_assert_eq(rd(0x0c) & 0xb0, 0x90);
    cr_assert_not(irq.level);
    cr_assert_eq(rd(0x0c), 0);
    vtime_test_advance(loop, NS_PER_SEC);
    cr_assert_eq(irq.rises, 2);
    wr(0x0b, 0x92);
    cr_assert_eq(rd(0x0b), 0x82, "SET clears UIE");
}

Test(rtc, flags_are_set_without_interrupts_and_cost_no_timer)
{
    wr(0x0a, 0x20);
    rd(0x0c);
    cr_assert_eq(vtime_next_deadline(loop), VTIME_NEVER);
    vtime_test_advance(loop, 2 * NS_PER_SEC);
    cr_assert_eq(rd(0x0c), 0x10);
    cr_assert_eq(irq.rises, 0);
}

Test(rtc, alarm_at_an_exact_time)
{
    wr(5, 0x12), wr(3, 0x15), wr(1, 0x10);
    wr(0x0b, 0x22);
    rd(0x0c);
    vtime_test_advance(loop, 13 * NS_PER_SEC);
    cr_assert_eq(irq.rises, 0);
    vtime_test_advance(loop, 1001 * MS);
    cr_assert_eq(irq.rises, 1);
    cr_assert_eq(rd(0x0c) & 0xa0, 0xa0);
    vtime_test_advance(loop, 86400 * NS_PER_SEC);
    cr_assert_eq(irq.rises, 2, "once a day");
}

Test(rtc, alarm_wildcards)
{
    wr(5, 0xff), wr(3, 0xc0), wr(1, 0x05); /* every minute at :05 */
    wr(0x0b, 0x22);
    for (unsigned i = 0; i < 5; i++) {
        rd(0x0c);
        vtime_test_advance(loop, 60 * NS_PER_SEC);
    }
    cr_assert_eq(irq.rises, 5);
    wr(1, 0xff); /* every second */
    rd(0x0c);
    vtime_test_advance(loop, NS_PER_SEC);
    cr_assert(irq.level);
}

Test(rtc, alarm_that_never_matches_arms_nothing)
{
    wr(5, 0x55);
    wr(0x0b, 0x22);
    cr_assert_eq(vtime_next_deadline(loop), VTIME_NEVER);
}

Test(rtc, alarm_in_12_hour_mode)
{
    wr(0x0b, 0x00);
    wr(5, 0x81), wr(3, 0x00), wr(1, 0x00); /* 1 PM */
    wr(0x0b, 0x20);
    vtime_test_advance(loop, 45 * 60 * NS_PER_SEC);
    cr_assert_eq(irq.rises, 0);
    vtime_test_advance(loop, 10 * NS_PER_SEC);
    cr_assert_eq(irq.rises, 1);
}

Test(rtc, periodic_rates)
{
    static const unsigned hz[16] = {0, 256, 128, 8192, 4096, 2048, 1024, 512, 256, 128, 64, 32, 16, 8, 4, 2};
    for (unsigned rate = 0; rate < 16; rate++) {
        wr(0x0a, (uint8_t)(0x20 | rate));
        wr(0x0b, 0x42);
        rd(0x0c);
        unsigned n = 0;
        for (uint64_t end = vtime_now(loop) + NS_PER_SEC; vtime_now(loop) < end; vtime_test_advance(loop, 10000))
            if (irq.level) {
                cr_assert_eq(rd(0x0c) & 0xc0, 0xc0);
                n++;
            }
        cr_assert(n + 1 >= hz[rate] && n <= hz[rate] + 1, "rate %u: %u", rate, n);
        wr(0x0b, 0x02);
    }
}

Test(rtc, periodic_ticks_lost_to_starvation_are_made_up_for)
{
    wr(0x0a, 0x26); /* 1024 Hz */
    wr(0x0b, 0x42);
    rd(0x0c);
    unsigned n = 0;
    vtime_test_starve(loop, 100 * MS);
    evloop_run(loop);
    for (uint64_t end = vtime_now(loop) + 900 * MS; vtime_now(loop) < end; vtime_test_advance(loop, 10000))
        if (irq.level) {
            rd(0x0c);
            n++;
        }
    cr_assert(n >= 1022 && n <= 1026, "%u", n);
    rd(0x0c);
    wr(0x0b, 0x42);
    vtime_test_advance(loop, 30 * NS_PER_SEC); /* nobody reads register C */
    cr_assert_eq(rtc.s.owed, 0);
}

Test(rtc, ram_checksum_and_memory_size)
{
    rtc_set_memory_size(&rtc, 512ull << 20, 0);
    cr_assert_eq(rd(0x15) | rd(0x16) << 8, 640);
    cr_assert_eq(rd(0x17) | rd(0x18) << 8, 0xffff);
    cr_assert_eq(rd(0x34) | rd(0x35) << 8, (512 - 16) * 16);
    rtc_set_memory_size(&rtc, 8ull << 20, 4ull << 30);
    cr_assert_eq(rd(0x30) | rd(0x31) << 8, 7 * 1024);
    cr_assert_eq(rd(0x34) | rd(0x35) << 8, 0);
    cr_assert_eq(rd(0x5b) | rd(0x5c) << 8 | rd(0x5d) << 16, 65536);
    rtc_set_ram(&rtc, 0x10, 0x40);
    rtc_update_checksum(&rtc);
    unsigned sum = 0;
    for (uint8_t i = 0x10; i <= 0x2d; i++)
        sum += rd(i);
    cr_assert_eq(rd(0x2e) << 8 | rd(0x2f), sum);
    cr_assert_eq(rtc_get_ram(&rtc, 0x10), 0x40);
    wr(0x80 | 0x40, 0x77);
    cr_assert(rtc.s.nmi_masked);
    cr_assert_eq(rd(0x40), 0x77);
    cr_assert_eq(in8(&rtc_ops, &rtc, 0), 0xff);
}

Test(rtc, reset_keeps_time_and_ram_but_no_interrupts)
{
    wr(0x40, 0x99);
    set_time(0x05, 0x06, 0x07);
    wr(0x0b, 0x72);
    vtime_test_advance(loop, 2 * NS_PER_SEC);
    cr_assert(irq.level);
    rtc_dev_ops.reset(&rtc);
    cr_assert_not(irq.level);
    cr_assert_eq(rd(0x0b), 0x02);
    cr_assert_eq(rd(0x40), 0x99);
    expect_time(0x05, 0x06, 0x09);
}

Test(rtc, state_survives_save_and_restore)
{
    struct rtc r2;
    struct probe i2 = {0};
    set_time(0x05, 0x06, 0x07);
    wr(0x0b, 0x12);
    vtime_test_advance(loop, 1500 * MS);
    rd(0x0c);
    rtc_init(&r2, loop, probe_line(&i2), 0);
    round_trip(&rtc_dev_ops, &rtc, &r2);
    vtime_test_advance(loop, 600 * MS);
    cr_assert_eq(i2.rises, 1);
    out8(&rtc_ops, &r2, 0, 2);
    cr_assert_eq(in8(&rtc_ops, &r2, 1), 0x06);
    cr_assert_gt(forge(&rtc_dev_ops, &rtc, &r2), 3);
}
