#include "devices/port92.h"
#include "devices/ps2.h"
#include "tests/unit/devices/fixture.h"

static struct evloop *loop;
static struct ps2 ps2;
static struct probe irq1, irq12, a20, reset_line;

static void cmd(uint8_t v) { out8(&ps2_command_ops, &ps2, 0, v); }
static void dat(uint8_t v) { out8(&ps2_data_ops, &ps2, 0, v); }
static uint8_t st(void) { return in8(&ps2_command_ops, &ps2, 0); }
static uint8_t rd(void) { return in8(&ps2_data_ops, &ps2, 0); }
/* Waits as a driver does; -1 if nothing comes. */
static int get(void)
{
    for (unsigned i = 0; i < 3 && !(st() & 1); i++) /* a byte may be a prefix that translation swallows */
        vtime_test_advance(loop, 300000);
    return st() & 1 ? rd() : -1;
}
static void expect(unsigned n, const uint8_t *want)
{
    for (unsigned i = 0; i < n; i++) {
        int v = get();
        cr_assert_eq(v, want[i], "byte %u is %x, not %x", i, v, want[i]);
    }
    cr_assert_eq(get(), -1);
}
#define EXPECT(...) expect(sizeof(uint8_t[]){__VA_ARGS__}, (const uint8_t[]){__VA_ARGS__})
static void mode(uint8_t v) { cmd(0x60), dat(v); }
static void aux(uint8_t v) { cmd(0xd4), dat(v); }

static void setup(void)
{
    loop = test_loop();
    irq1 = irq12 = a20 = reset_line = (struct probe){0};
    ps2_init(&ps2, loop,
             &(struct ps2_wiring){probe_line(&irq1), probe_line(&irq12), probe_line(&a20), probe_line(&reset_line)});
}
static void teardown(void) { evloop_destroy(loop); }
TestSuite(ps2, .init = setup, .fini = teardown);

Test(ps2, self_tests)
{
    cmd(0xaa);
    cr_assert_eq(rd(), 0x55);
    cr_assert(st() & 4);
    cmd(0xab);
    cr_assert_eq(rd(), 0);
    cmd(0xa9);
    cr_assert_eq(rd(), 0);
    cmd(0xa4);
    cr_assert_eq(rd(), 0xf1);
    cmd(0xc0);
    cr_assert_eq(rd(), 0x80);
    cr_assert_eq(st() & 0x13, 0x10);
}

Test(ps2, command_byte_and_ram)
{
    mode(0x47);
    cmd(0x20);
    cr_assert_eq(rd(), 0x47);
    cmd(0xad), cmd(0xa7);
    cmd(0x20);
    cr_assert_eq(rd(), 0x77);
    cmd(0xae), cmd(0xa8);
    cmd(0x20);
    cr_assert_eq(rd(), 0x47);
    cmd(0x65), dat(0x99), cmd(0x25);
    cr_assert_eq(rd(), 0x99);
    dat(0xf4);
    cr_assert_not(st() & 8, "last write was data");
    cmd(0xae);
    cr_assert(st() & 8);
}

Test(ps2, key_is_translated_to_set_1)
{
    ps2_key(&ps2, 0x1e, true);
    cr_assert_not(st() & 1, "takes its time on the wire");
    vtime_test_advance(loop, 300000);
    cr_assert(irq1.level);
    cr_assert_eq(rd(), 0x1e);
    cr_assert_not(irq1.level);
    cr_assert_eq(rd(), 0x1e, "a second read finds the same byte");
    ps2_key(&ps2, 0x1e, false);
    EXPECT(0x9e);
    ps2_key(&ps2, 0xe048, true), ps2_key(&ps2, 0xe048, false);
    EXPECT(0xe0, 0x48, 0xe0, 0xc8);
    ps2_key(&ps2, PS2_KEY_PAUSE, true), ps2_key(&ps2, PS2_KEY_PAUSE, false);
    EXPECT(0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5);
    ps2_key(&ps2, 0x41, true); /* F7, the odd one */
    EXPECT(0x41);
    cr_assert_eq(irq1.rises, 1 + 1 + 4 + 6 + 1);
}

Test(ps2, every_key_comes_back_as_the_code_it_was)
{
    for (uint8_t code = 1; code < 0x59; code++) {
        if (code == 0x55)
            continue; /* not on any keyboard of set 1 */
        ps2_key(&ps2, code, true);
        int v = get();
        cr_assert_eq(v, code, "%x became %x", code, v);
    }
}

Test(ps2, untranslated_keys_are_set_2)
{
    mode(0x01);
    ps2_key(&ps2, 0x1e, true), ps2_key(&ps2, 0x1e, false), ps2_key(&ps2, 0xe01d, false);
    EXPECT(0x1c, 0xf0, 0x1c, 0xe0, 0xf0, 0x14);
    dat(0xf0), dat(0x01);
    EXPECT(0xfa);
    ps2_key(&ps2, 0x1e, false);
    EXPECT(0x9e);
    dat(0xf0), dat(0x00);
    EXPECT(0xfa, 0x01);
    dat(0xf0), dat(0x03);
    EXPECT(0xfe);
}

Test(ps2, keyboard_commands)
{
    mode(0x01);
    dat(0xff);
    EXPECT(0xfa, 0xaa);
    dat(0xf2);
    EXPECT(0xfa, 0xab, 0x83);
    dat(0xee);
    EXPECT(0xee);
    dat(0xed);
    EXPECT(0xfa);
    dat(0x05);
    EXPECT(0xfa);
    cr_assert_eq(ps2_leds(&ps2), 5);
    dat(0xf3);
    EXPECT(0xfa);
    dat(0x00);
    EXPECT(0xfa);
    dat(0xf5);
    EXPECT(0xfa);
    ps2_key(&ps2, 0x1e, true);
    cr_assert_eq(get(), -1, "scanning is off");
    dat(0xf4);
    EXPECT(0xfa);
    ps2_key(&ps2, 0x1e, true);
    EXPECT(0x1c);
    dat(0xfe);
    EXPECT(0x1c);
    dat(0x00);
    EXPECT(0xfe);
    dat(0xed), dat(0xf4);
    EXPECT(0xfa);
}

Test(ps2, identification_is_translated_too)
{
    dat(0xf2);
    EXPECT(0xfa, 0xab, 0x41);
}

Test(ps2, disabled_keyboard_keeps_its_bytes)
{
    cmd(0xad);
    ps2_key(&ps2, 0x1e, true);
    cr_assert_eq(get(), -1);
    cmd(0xae);
    EXPECT(0x1e);
    cmd(0xad);
    dat(0xee); /* writing to it turns the clock on */
    EXPECT(0xee);
    cmd(0x20);
    cr_assert_not(rd() & 0x10);
}

Test(ps2, interrupts_obey_the_command_byte)
{
    mode(0x40);
    ps2_key(&ps2, 0x1e, true);
    cr_assert_eq(get(), 0x1e);
    cr_assert_eq(irq1.rises, 0);
    mode(0x43);
    aux(0xf4);
    cr_assert_eq(get(), 0xfa);
    cr_assert_eq(irq12.rises, 1);
    cr_assert_eq(irq1.rises, 0);
}

Test(ps2, overflowing_keyboard_drops_keys_whole)
{
    for (unsigned i = 0; i < 100; i++)
        ps2_key(&ps2, 0xe048, i & 1);
    unsigned n = 0;
    for (int v; (v = get()) >= 0; n++)
        cr_assert(n % 2 ? (v & 0x7f) == 0x48 : v == 0xe0);
    cr_assert_gt(n, 20);
}

Test(ps2, mouse_commands)
{
    mode(0x03);
    aux(0xff);
    EXPECT(0xfa, 0xaa, 0x00);
    aux(0xf2);
    EXPECT(0xfa, 0x00);
    aux(0xe9);
    EXPECT(0xfa, 0x00, 0x02, 100);
    aux(0xe8), get(), aux(3), get(), aux(0xf3), get(), aux(40), get(), aux(0xe7), get(), aux(0xf4), get();
    aux(0xe9);
    EXPECT(0xfa, 0x30, 0x03, 40);
    aux(0xee);
    EXPECT(0xfa);
    aux(0x42);
    EXPECT(0x42);
    aux(0xec);
    EXPECT(0xfa);
    aux(0x99);
    EXPECT(0xfe);
    aux(0xf6);
    EXPECT(0xfa);
}

Test(ps2, mouse_packets)
{
    mode(0x03);
    ps2_mouse_event(&ps2, 9, 9, 0, 0);
    cr_assert_eq(get(), -1, "reporting is off after reset");
    aux(0xf4);
    EXPECT(0xfa);
    ps2_mouse_event(&ps2, 5, -3, 0, 1);
    EXPECT(0x29, 5, 0xfd);
    cr_assert_eq(irq12.rises, 4);
    ps2_mouse_event(&ps2, 0, 0, 0, 1);
    cr_assert_eq(get(), -1, "nothing new to say");
    ps2_mouse_event(&ps2, -300, 0, 0, 0);
    EXPECT(0x18, 0x81, 0, 0x18, 0x81, 0, 0x18, 0xd2, 0);
    aux(0xf0);
    EXPECT(0xfa);
    ps2_mouse_event(&ps2, 1, 2, 0, 2);
    cr_assert_eq(get(), -1);
    aux(0xeb);
    EXPECT(0xfa, 0x0a, 1, 2);
}

static void rates(uint8_t a, uint8_t b, uint8_t c)
{
    const uint8_t seq[] = {0xf3, a, 0xf3, b, 0xf3, c};
    for (unsigned i = 0; i < sizeof seq; i++) {
        aux(seq[i]);
        cr_assert_eq(get(), 0xfa);
    }
}

Test(ps2, wheel_and_side_buttons_appear_after_the_knock)
{
    mode(0x03);
    rates(200, 100, 80);
    aux(0xf2);
    EXPECT(0xfa, 0x03);
    aux(0xf4);
    EXPECT(0xfa);
    ps2_mouse_event(&ps2, 0, 0, 1, 0);
    EXPECT(0x08, 0, 0, 0xff);
    rates(200, 200, 80);
    aux(0xf2);
    EXPECT(0xfa, 0x04);
    ps2_mouse_event(&ps2, 0, 0, -1, 0x18);
    EXPECT(0x08, 0, 0, 0x31);
    aux(0xff);
    EXPECT(0xfa, 0xaa, 0x00);
    aux(0xf2);
    EXPECT(0xfa, 0x00);
}

Test(ps2, loopback_commands_look_like_device_data)
{
    mode(0x03);
    cmd(0xd2), dat(0x12);
    cr_assert_eq(st() & 0x21, 0x01);
    cr_assert(irq1.level);
    cr_assert_eq(rd(), 0x12);
    cmd(0xd3), dat(0x34);
    cr_assert_eq(st() & 0x21, 0x21);
    cr_assert(irq12.level);
    cr_assert_eq(rd(), 0x34);
}

Test(ps2, a20_and_reset)
{
    cr_assert(a20.level);
    cmd(0xd1), dat(0xdd);
    cr_assert_not(a20.level);
    cmd(0xd0);
    cr_assert_eq(rd() & 0x03, 0x01);
    cmd(0xd1), dat(0xdf);
    cr_assert(a20.level);
    cmd(0xdd);
    cr_assert_not(a20.level);
    cmd(0xdf);
    cr_assert(a20.level);
    cr_assert_eq(reset_line.rises, 0);
    cmd(0xff);
    cr_assert_eq(reset_line.rises, 0);
    cmd(0xfe);
    cr_assert_eq(reset_line.rises, 1);
    cmd(0xd1), dat(0x02);
    cr_assert_eq(reset_line.rises, 2);
}

Test(ps2, any_bytes_are_survived)
{
    uint32_t x = 12345;
    for (unsigned i = 0; i < 200000; i++) {
        x = x * 1664525 + 1013904223;
        switch (x >> 28) {
        case 0:
        case 1:
        case 2: cmd((uint8_t)(x >> 8)); break;
        case 3:
        case 4:
        case 5: dat((uint8_t)(x >> 8)); break;
        case 6:
        case 7: aux((uint8_t)(x >> 8)); break;
        case 8:
        case 9: rd(); break;
        case 10: ps2_key(&ps2, (uint16_t)(x >> 8), x & 1); break;
        case 11: ps2_mouse_event(&ps2, (int)x, (int)~x, (int8_t)(x >> 8), (uint8_t)(x >> 4)); break;
        default: vtime_test_advance(loop, x % 400000); break;
        }
    }
}

Test(ps2, state_survives_save_and_restore)
{
    struct ps2 p2;
    struct probe i2 = {0};
    ps2_key(&ps2, 0x1e, true), ps2_key(&ps2, 0x1e, false), ps2_key(&ps2, 0xe048, true);
    vtime_test_advance(loop, 300000);
    rd();
    vtime_test_advance(loop, 300000); /* F0 was swallowed */
    ps2_init(&p2, loop, &(struct ps2_wiring){.irq1 = probe_line(&i2)});
    round_trip(&ps2_dev_ops, &ps2, &p2);
    vtime_test_advance(loop, 300000);
    cr_assert_eq(in8(&ps2_data_ops, &p2, 0), 0x9e);
    cr_assert(i2.rises);
    cr_assert_gt(forge(&ps2_dev_ops, &ps2, &p2), 8);
}

Test(port92, a20_and_fast_reset)
{
    struct port92 p, p2;
    struct probe a = {0}, r = {0};
    port92_init(&p, probe_line(&a), probe_line(&r));
    cr_assert(a.level);
    cr_assert_eq(in8(&port92_ops, &p, 0), 0x02);
    out8(&port92_ops, &p, 0, 0x00);
    cr_assert_not(a.level);
    out8(&port92_ops, &p, 0, 0x03);
    cr_assert(a.level);
    cr_assert_eq(r.rises, 1);
    out8(&port92_ops, &p, 0, 0x03);
    cr_assert_eq(r.rises, 1, "the bit must rise");
    port92_init(&p2, (struct irq_line){0}, (struct irq_line){0});
    round_trip(&port92_dev_ops, &p, &p2);
    cr_assert_eq(p2.val, 3);
    port92_dev_ops.reset(&p);
    cr_assert_eq(p.val, 2);
}
