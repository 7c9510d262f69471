#include "devices/uart.h"
#include "tests/unit/devices/stream.h"

static struct evloop *loop;
static struct uart uart;
static struct probe irq;
static struct chardev *chr;
static int peer;
#define MS 1000000ull

static void wr(unsigned reg, uint8_t v) { out8(&uart_ops, &uart, reg, v); }
static uint8_t rd(unsigned reg) { return in8(&uart_ops, &uart, reg); }
static void host_sends(const char *s)
{
    cr_assert_eq(write(peer, s, strlen(s)), (ssize_t)strlen(s));
    settle(loop, 20 * MS);
}

static void setup(void)
{
    loop = test_loop();
    irq = (struct probe){0};
    chr = stream_open(&(struct chardev_env){.loop = loop, .label = "serial0"}, false, &peer);
    uart_init(&uart, loop, probe_line(&irq), chr);
    wr(3, 0x80), wr(0, 1), wr(1, 0), wr(3, 0x03); /* 115200 8N1 */
}
static void teardown(void)
{
    chardev_close(chr);
    close(peer);
    evloop_destroy(loop);
}
TestSuite(uart, .init = setup, .fini = teardown);

Test(uart, divisor_latch_and_scratch)
{
    wr(3, 0x83);
    cr_assert_eq(rd(0), 1);
    wr(1, 0x12);
    cr_assert_eq(rd(1), 0x12);
    wr(3, 0x03);
    cr_assert_eq(rd(1), 0);
    wr(7, 0x5a);
    cr_assert_eq(rd(7), 0x5a);
    wr(1, 0xff);
    cr_assert_eq(rd(1), 0x0f);
}

Test(uart, fifo_bits_tell_a_16550a)
{
    cr_assert_eq(rd(2), 0x01);
    wr(2, 0x01);
    cr_assert_eq(rd(2), 0xc1);
    wr(2, 0x00);
    cr_assert_eq(rd(2), 0x01);
}

Test(uart, transmitted_bytes_reach_the_stream_in_order)
{
    for (const char *p = "hello\n"; *p; p++) {
        cr_assert_eq(rd(5) & 0x60, 0x60);
        wr(0, (uint8_t)*p);
    }
    cr_assert_str_eq(peer_got(peer), "hello\n");
    wr(0, 'x'); /* no newline: leaves a little later */
    cr_assert_str_eq(peer_got(peer), "");
    settle(loop, MS);
    cr_assert_str_eq(peer_got(peer), "x");
}

Test(uart, thre_interrupt_on_enable_cleared_by_iir_set_again_by_sending)
{
    wr(1, 2);
    cr_assert(irq.level);
    cr_assert_eq(rd(2) & 0x0f, 2);
    cr_assert_not(irq.level);
    cr_assert_eq(rd(2) & 0x0f, 1);
    wr(0, 'a');
    cr_assert(irq.level);
    wr(1, 0);
    cr_assert_not(irq.level);
    wr(1, 2); /* the driver's THRE test: enabling again raises again */
    cr_assert_eq(rd(2) & 0x0f, 2);
}

Test(uart, loopback_as_drivers_probe_it)
{
    wr(4, 0x1a);
    cr_assert_eq(rd(6) & 0xf0, 0x90);
    wr(4, 0x15);
    cr_assert_eq(rd(6) & 0xf0, 0x60);
    wr(0, 'q');
    cr_assert_eq(rd(5) & 0x61, 0x61);
    cr_assert_eq(rd(0), 'q');
    settle(loop, MS);
    cr_assert_str_eq(peer_got(peer), "", "nothing leaves");
}

Test(uart, modem_deltas_and_interrupt)
{
    cr_assert_eq(rd(6), 0xb0);
    wr(1, 8);
    wr(4, 0x10); /* loop-back with all outputs off: every input falls */
    cr_assert(irq.level);
    cr_assert_eq(rd(2) & 0x0f, 0);
    cr_assert_eq(rd(6), 0x0b);
    cr_assert_not(irq.level);
    wr(4, 0x14);
    cr_assert_eq(rd(6), 0x40, "ring: no delta on the leading edge");
    wr(4, 0x10);
    cr_assert_eq(rd(6), 0x04);
}

Test(uart, received_byte_without_fifo)
{
    wr(1, 1);
    host_sends("ab");
    cr_assert(irq.level);
    cr_assert_eq(rd(2), 0x04);
    cr_assert_eq(rd(5) & 0x61, 0x61);
    cr_assert_eq(rd(0), 'a');
    cr_assert_not(irq.level);
    settle(loop, MS);
    cr_assert_eq(rd(0), 'b');
    cr_assert_eq(rd(5) & 0x03, 0, "no overrun: the stream waits for room");
}

Test(uart, fifo_trigger_level_and_timeout)
{
    wr(2, 0x81); /* trigger at 8 */
    wr(1, 1);
    settle(loop, MS);
    cr_assert_eq(write(peer, "1234567", 7), 7);
    evloop_wait(loop, 0);
    cr_assert_not(irq.level);
    vtime_test_advance(loop, 300000);
    cr_assert_not(irq.level, "four characters at 115200 take 347 us");
    vtime_test_advance(loop, 100000);
    cr_assert(irq.level);
    cr_assert_eq(rd(2), 0xcc);
    cr_assert_eq(rd(0), '1');
    cr_assert_not(irq.level, "a read starts the time-out anew");
    vtime_test_advance(loop, 400000);
    cr_assert(irq.level);
    for (unsigned i = 0; i < 6; i++)
        rd(0);
    cr_assert_not(irq.level);
    host_sends("12345678");
    cr_assert_eq(rd(2), 0xc4);
}

Test(uart, long_input_arrives_whole_through_the_fifo)
{
    char in[3000], out[3000];
    unsigned n = 0;
    for (unsigned i = 0; i < sizeof in; i++)
        in[i] = (char)('a' + i % 26);
    wr(2, 0xc1);
    cr_assert_eq(write(peer, in, sizeof in), (ssize_t)sizeof in);
    for (unsigned i = 0; i < 2000 && n < sizeof out; i++) {
        evloop_wait(loop, 0);
        vtime_test_advance(loop, MS);
        unsigned burst = 0;
        for (; rd(5) & 1; burst++)
            out[n++] = (char)rd(0);
        cr_assert_leq(burst, 16, "the FIFO is not refilled while it is being read");
    }
    cr_assert_eq(n, sizeof in);
    cr_assert_arr_eq(in, out, sizeof in);
}

Test(uart, dropped_rts_holds_input_back)
{
    wr(2, 0x01);
    wr(4, 0x03);
    host_sends("a");
    cr_assert_eq(rd(0), 'a');
    wr(4, 0x01);
    settle(loop, MS);
    host_sends("b");
    cr_assert_not(rd(5) & 1);
    wr(4, 0x03);
    settle(loop, MS);
    cr_assert_eq(rd(0), 'b');
}

Test(uart, blocked_stream_keeps_thre_clear_and_loses_nothing)
{
    char buf[65536];
    size_t sent = 0, got = 0;
    wr(2, 0x01);
    while ((rd(5) & 0x20) && sent < 4u << 20)
        wr(0, (uint8_t)('a' + sent++ % 26));
    cr_assert_lt(sent, 4u << 20, "back-pressure at last");
    settle(loop, 10 * MS);
    cr_assert_not(rd(5) & 0x60);
    wr(1, 2);
    cr_assert_not(irq.level);
    for (unsigned i = 0; i < 10000 && got < sent; i++) {
        ssize_t n = read(peer, buf, sizeof buf);
        for (ssize_t k = 0; k < n; k++)
            cr_assert_eq(buf[k], (char)('a' + (got + (size_t)k) % 26));
        got += n > 0 ? (size_t)n : 0;
        settle(loop, MS);
    }
    cr_assert_eq(got, sent);
    cr_assert(rd(5) & 0x20);
    cr_assert(irq.level, "THRE interrupt once it has drained");
}

Test(uart, overrun_and_line_status_interrupt)
{
    wr(4, 0x10);
    wr(1, 4);
    wr(0, 'a'), wr(0, 'b');
    cr_assert(irq.level);
    cr_assert_eq(rd(2), 0x06);
    cr_assert_eq(rd(5) & 0x03, 0x03);
    cr_assert_not(irq.level);
    cr_assert_eq(rd(5) & 0x02, 0);
    cr_assert_eq(rd(0), 'b');
    wr(2, 0x01);
    for (unsigned i = 0; i < 20; i++)
        wr(0, (uint8_t)i);
    cr_assert_eq(rd(5) & 0x02, 0x02);
    for (unsigned i = 0; i < 16; i++)
        cr_assert_eq(rd(0), i, "the FIFO keeps the first sixteen");
    cr_assert_not(rd(5) & 1);
}

Test(uart, break_is_a_zero_with_bi)
{
    wr(2, 0x01);
    chardev_send_event(&chr->user[0], CHARDEV_BREAK);
    uint8_t lsr = rd(5);
    cr_assert_eq(lsr & 0x91, 0x91);
    cr_assert_eq(rd(0), 0);
    cr_assert_eq(rd(5) & 0x91, 0);
}

Test(uart, fifo_reset_bits)
{
    wr(2, 0x01);
    host_sends("abc");
    wr(2, 0x03);
    cr_assert_not(rd(5) & 1);
    host_sends("d");
    cr_assert_eq(rd(0), 'd');
}

Test(uart, unplugged_port_works_and_is_quiet)
{
    struct uart u;
    uart_init(&u, loop, (struct irq_line){0}, NULL);
    out8(&uart_ops, &u, 0, 'x');
    cr_assert_eq(in8(&uart_ops, &u, 5), 0x60);
    cr_assert_eq(in8(&uart_ops, &u, 0), 0);
    vtime_test_advance(loop, NS_PER_SEC);
}

Test(uart, reset_gives_power_on_state)
{
    wr(2, 0x01), wr(1, 0x0f), wr(4, 0x1f);
    uart_dev_ops.reset(&uart);
    cr_assert_not(irq.level);
    cr_assert_eq(rd(1), 0);
    cr_assert_eq(rd(2), 1);
    cr_assert_eq(rd(3), 0);
    cr_assert_eq(rd(4), 0);
    cr_assert_eq(rd(5), 0x60);
}

Test(uart, state_survives_save_and_restore)
{
    struct uart u2;
    struct probe i2 = {0};
    wr(2, 0x81), wr(1, 1);
    settle(loop, MS);
    cr_assert_eq(write(peer, "xyz", 3), 3);
    evloop_wait(loop, 0);
    uart_init(&u2, loop, probe_line(&i2), NULL);
    round_trip(&uart_dev_ops, &uart, &u2);
    vtime_test_advance(loop, MS);
    cr_assert(i2.level, "the time-out was running");
    cr_assert_eq(in8(&uart_ops, &u2, 0), 'x');
    cr_assert_gt(forge(&uart_dev_ops, &uart, &u2), 3);
}
