#include "base/err.h"
#include "base/log.h"
#include "tests/unit/devices/fixture.h"

struct chip {
    unsigned reads, writes, sizes[16];
    uint64_t offsets[16], vals[16];
    struct bus *bus;
    int remove;
};

static uint64_t chip_read(void *opaque, uint64_t offset, unsigned size)
{
    struct chip *c = opaque;
    c->sizes[c->reads] = size;
    c->offsets[c->reads++] = offset;
    return 0x8877665544332211ull >> 8 * (offset & 7);
}

static void chip_write(void *opaque, uint64_t offset, unsigned size, uint64_t val)
{
    struct chip *c = opaque;
    c->sizes[c->writes] = size;
    c->offsets[c->writes] = offset;
    c->vals[c->writes++] = val;
    if (c->bus) {
        bus_remove(c->bus, c->remove);
        c->bus = NULL;
    }
}

static const struct bus_ops ops8 = {.read = chip_read, .write = chip_write, .max_size = 1};
static const struct bus_ops ops32 = {.read = chip_read, .write = chip_write, .max_size = 4};
static const struct bus_ops ops64 = {.read = chip_read, .write = chip_write, .max_size = 8};

static struct bus *bus;
static void setup(void) { cr_assert_eq(bus_create(&bus), 0); }
static void teardown(void) { bus_destroy(bus); }
TestSuite(bus, .init = setup, .fini = teardown);

static int add(enum bus_space space, uint64_t base, uint64_t len, const struct bus_ops *ops, void *opaque)
{
    return bus_add(bus, &(struct bus_range){"chip", space, base, len, ops, opaque});
}

Test(bus, unknown_ports_read_all_ones)
{
    cr_assert_eq(bus_pio_read(bus, 0x1234, 1), 0xff);
    cr_assert_eq(bus_pio_read(bus, 0x1234, 2), 0xffff);
    cr_assert_eq(bus_pio_read(bus, 0x1234, 4), 0xffffffff);
    bus_pio_write(bus, 0x1234, 4, 1);
}

Test(bus, unknown_memory_reads_all_ones)
{
    uint8_t buf[64] = {0};
    bus_mmio_read(bus, 0xfee00000, buf, sizeof buf);
    for (unsigned i = 0; i < sizeof buf; i++)
        cr_assert_eq(buf[i], 0xff);
    bus_mmio_write(bus, UINT64_MAX - 3, buf, 4);
}

Test(bus, overlap_zero_length_and_wrap_are_refused)
{
    struct chip c = {0};
    cr_assert_geq(add(BUS_PIO, 0x60, 4, &ops8, &c), 0);
    cr_assert_eq(add(BUS_PIO, 0x63, 1, &ops8, &c), -RD_E_BUSY);
    cr_assert_eq(add(BUS_PIO, 0x5f, 2, &ops8, &c), -RD_E_BUSY);
    cr_assert_eq(add(BUS_PIO, 0x70, 0, &ops8, &c), -RD_E_INVAL);
    cr_assert_eq(add(BUS_PIO, 0xffff, 2, &ops8, &c), -RD_E_INVAL);
    cr_assert_eq(add(BUS_PIO, UINT64_MAX, 2, &ops8, &c), -RD_E_INVAL);
    cr_assert_eq(add(BUS_PIO, 0x80, 8, &ops64, &c), -RD_E_INVAL);
    cr_assert_geq(add(BUS_MMIO, 0x1000, 0x1000, &ops32, &c), 0);
    cr_assert_eq(add(BUS_MMIO, 0x1fff, 1, &ops32, &c), -RD_E_BUSY);
    cr_assert_eq(add(BUS_MMIO, 0, UINT64_MAX, &ops32, &c), -RD_E_BUSY);
    cr_assert_eq(add(BUS_MMIO, UINT64_MAX, 2, &ops32, &c), -RD_E_INVAL);
    cr_assert_geq(add(BUS_MMIO, UINT64_MAX - 0xfff, 0x1000, &ops32, &c), 0);
    cr_assert_geq(add(BUS_MMIO, 0x2000, 1, &ops32, &c), 0);
    cr_assert_geq(add(BUS_MMIO, 0xfff, 1, &ops32, &c), 0);
}

Test(bus, word_access_to_byte_ports_splits_low_first)
{
    struct chip c = {0};
    add(BUS_PIO, 0x40, 4, &ops8, &c);
    cr_assert_eq(bus_pio_read(bus, 0x40, 2), 0x2211);
    cr_assert_eq(c.reads, 2);
    cr_assert_eq(c.offsets[1], 1);
    bus_pio_write(bus, 0x41, 2, 0xbeef);
    cr_assert_eq(c.vals[0], 0xef);
    cr_assert_eq(c.vals[1], 0xbe);
    cr_assert_eq(c.offsets[1], 2);
}

Test(bus, access_across_a_range_end_is_shared_with_the_neighbour)
{
    struct chip a = {0}, b = {0};
    add(BUS_PIO, 0x40, 2, &ops32, &a);
    add(BUS_PIO, 0x43, 1, &ops32, &b);
    cr_assert_eq(bus_pio_read(bus, 0x40, 4), 0x11ff2211);
    cr_assert_eq(a.reads, 1);
    cr_assert_eq(a.sizes[0], 2);
    cr_assert_eq(b.reads, 1);
}

Test(bus, misaligned_access_is_cut_into_aligned_pieces)
{
    struct chip c = {0};
    add(BUS_PIO, 0xcfc, 4, &ops32, &c);
    cr_assert_eq(bus_pio_read(bus, 0xcfd, 2), 0x3322);
    cr_assert_eq(c.reads, 2);
    bus_pio_read(bus, 0xcfe, 4); /* the upper half is beyond the range */
    cr_assert_eq(c.reads, 3);
    cr_assert_eq(c.sizes[2], 2);
}

Test(bus, last_port_does_not_wrap_to_the_first)
{
    struct chip c = {0};
    add(BUS_PIO, 0, 1, &ops8, &c);
    cr_assert_eq(bus_pio_read(bus, 0xffff, 4), 0xffffffff);
    bus_pio_write(bus, 0xffff, 2, 0);
    cr_assert_eq(c.reads + c.writes, 0);
}

Test(bus, wide_mmio_arrives_in_pieces_of_the_chips_width)
{
    struct chip c = {0};
    uint8_t buf[16];
    add(BUS_MMIO, 0x1000, 0x10, &ops64, &c);
    bus_mmio_read(bus, 0x1000, buf, 16);
    cr_assert_eq(c.reads, 2);
    cr_assert_eq(c.sizes[0], 8);
    cr_assert_eq(buf[0], 0x11);
    cr_assert_eq(buf[7], 0x88);
    bus_mmio_write(bus, 0x1004, buf, 8);
    cr_assert_eq(c.writes, 2);
    cr_assert_eq(c.sizes[0], 4);
    cr_assert_eq(c.vals[0], 0x44332211);
}

Test(bus, removed_range_answers_no_more_and_its_place_is_free)
{
    struct chip c = {0};
    int h = add(BUS_MMIO, 0x1000, 0x1000, &ops32, &c), p = add(BUS_PIO, 0x100, 8, &ops8, &c);
    bus_remove(bus, h);
    bus_remove(bus, p);
    cr_assert_null(bus_find(bus, BUS_MMIO, 0x1000));
    cr_assert_eq(bus_pio_read(bus, 0x100, 1), 0xff);
    cr_assert_geq(add(BUS_MMIO, 0x1800, 0x1000, &ops32, &c), 0);
    cr_assert_geq(add(BUS_PIO, 0x104, 8, &ops8, &c), 0);
    cr_assert_not_null(bus_find(bus, BUS_MMIO, 0x27ff));
    cr_assert_null(bus_find(bus, BUS_MMIO, 0x2800));
}

Test(bus, callback_may_remove_its_own_range)
{
    struct chip c = {.bus = bus};
    c.remove = add(BUS_PIO, 0x100, 4, &ops8, &c);
    bus_pio_write(bus, 0x100, 4, 0x04030201);
    cr_assert_eq(c.writes, 1);
}

Test(bus, many_ranges_are_found_by_address)
{
    struct chip c = {0};
    for (uint64_t i = 0; i < 200; i++) /* in an order that is not sorted */
        cr_assert_geq(add(BUS_MMIO, (i * 37 % 200) * 0x1000, 0x800, &ops32, &c), 0);
    for (uint64_t i = 0; i < 200; i++) {
        cr_assert_eq(bus_find(bus, BUS_MMIO, i * 0x1000 + 0x7ff)->base, i * 0x1000);
        cr_assert_null(bus_find(bus, BUS_MMIO, i * 0x1000 + 0x800));
    }
}

Test(irq, fanout_drives_all_and_or_waits_for_the_last)
{
    struct probe a = {0}, b = {0}, c = {0};
    struct irq_fanout f = {0};
    irq_fanout_add(&f, probe_line(&a));
    irq_fanout_add(&f, probe_line(&b));
    struct irq_line in = irq_fanout_line(&f);
    irq_pulse(&in);
    cr_assert(a.level && b.level);
    struct irq_or o;
    irq_or_init(&o, probe_line(&c));
    struct irq_line x = irq_or_input(&o, 0), y = irq_or_input(&o, 31);
    irq_set(&x, true);
    irq_set(&y, true);
    irq_set(&x, false);
    cr_assert(c.level);
    struct irq_or o2;
    irq_or_init(&o2, probe_line(&c));
    round_trip(&irq_or_dev_ops, &o, &o2);
    irq_set(&y, false);
    cr_assert_not(c.level);
    cr_assert_eq(c.rises, 1);
}

struct sample {
    uint8_t a;
    bool flag[2];
    uint16_t b;
    int32_t c;
    uint64_t d[2];
};
static const struct dev_field sample_fields[] = {DEV_FIELD(struct sample, a), DEV_ARRAY(struct sample, flag),
                                                 DEV_FIELD(struct sample, b), DEV_FIELD(struct sample, c),
                                                 DEV_ARRAY(struct sample, d)};

Test(dev, fields_are_little_endian_and_come_back)
{
    struct sample s = {1, {false, true}, 0x2345, -2, {3, UINT64_MAX}}, t = {0};
    struct dev_writer w = {0};
    dev_put_fields(&w, &s, sample_fields, DEV_COUNT(sample_fields));
    cr_assert_eq(w.len, 1 + 2 + 2 + 4 + 16);
    cr_assert_eq(w.buf[3], 0x45);
    cr_assert_eq(w.buf[4], 0x23);
    struct dev_reader r = {.buf = w.buf, .len = w.len};
    dev_get_fields(&r, &t, sample_fields, DEV_COUNT(sample_fields));
    cr_assert_not(r.failed);
    cr_assert(t.a == 1 && !t.flag[0] && t.flag[1] && t.b == 0x2345 && t.c == -2 && t.d[0] == 3 && t.d[1] == UINT64_MAX);
    w.buf[1] = 2; /* not a bool */
    r = (struct dev_reader){.buf = w.buf, .len = w.len};
    dev_get_fields(&r, &t, sample_fields, DEV_COUNT(sample_fields));
    cr_assert(r.failed);
    dev_writer_free(&w);
}

static void count_call(void *opaque) { ++*(unsigned *)opaque; }

/* The guest's vector registers are the host's while nofpu chips run; all others find them given up. */
Test(bus, only_chips_that_may_use_the_fpu_have_it_given_up)
{
    static const struct bus_ops plain = {.read = chip_read, .write = chip_write, .max_size = 4};
    static const struct bus_ops nofpu = {.read = chip_read, .write = chip_write, .max_size = 4, .nofpu = true};
    struct chip c = {0};
    unsigned left = 0;
    uint32_t word = 0;
    bus_set_fpu(bus, (struct fpu_hook){.leave = count_call, .opaque = &left});
    add(BUS_PIO, 0x10, 4, &nofpu, &c);
    add(BUS_MMIO, 0x1000, 4, &nofpu, &c);
    bus_pio_read(bus, 0x10, 1);
    bus_pio_write(bus, 0x10, 1, 0);
    bus_mmio_read(bus, 0x1000, &word, 4);
    bus_mmio_write(bus, 0x1000, &word, 4);
    cr_expect_eq(left, 0);
    add(BUS_PIO, 0x20, 4, &plain, &c);
    add(BUS_MMIO, 0x2000, 4, &plain, &c);
    bus_pio_read(bus, 0x20, 1);
    cr_expect_eq(left, 1);
    bus_pio_write(bus, 0x20, 1, 0);
    cr_expect_eq(left, 2);
    bus_mmio_read(bus, 0x2000, &word, 4);
    cr_expect_eq(left, 3);
    bus_mmio_write(bus, 0x2000, &word, 4);
    cr_expect_eq(left, 4);
}
