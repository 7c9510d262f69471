#include "devices/pic.h"
#include "tests/unit/devices/fixture.h"

static struct pic pic;
static struct probe intr;
static struct irq_line in[16];

static void m(unsigned a0, uint8_t v) { out8(&pic_master_ops, &pic, a0, v); }
static void s(unsigned a0, uint8_t v) { out8(&pic_slave_ops, &pic, a0, v); }
static uint8_t mr(unsigned a0) { return in8(&pic_master_ops, &pic, a0); }

static void program(uint8_t icw4_master, uint8_t icw4_slave)
{
    m(0, 0x11), m(1, 0x20), m(1, 0x04), m(1, icw4_master);
    s(0, 0x11), s(1, 0x28), s(1, 0x02), s(1, icw4_slave);
    m(1, 0), s(1, 0);
}

static void setup(void)
{
    intr = (struct probe){0};
    pic_init(&pic, probe_line(&intr));
    for (int i = 0; i < 16; i++)
        if (i != 2)
            in[i] = pic_input(&pic, i);
    program(1, 1);
}
TestSuite(pic, .init = setup);

static void raise(int n) { irq_set(&in[n], true); }
static void lower(int n) { irq_set(&in[n], false); }

Test(pic, silent_until_initialised)
{
    struct pic p;
    struct probe i = {0};
    pic_init(&p, probe_line(&i));
    struct irq_line l = pic_input(&p, 1);
    irq_set(&l, true);
    cr_assert_not(i.level);
}

Test(pic, edge_gives_vector_and_one_interrupt_only)
{
    raise(1);
    cr_assert(intr.level);
    cr_assert_eq(pic_ack(&pic), 0x21);
    cr_assert_not(intr.level);
    m(0, 0x20);
    cr_assert_not(intr.level, "an edge-triggered line that stays high asks once");
    lower(1), raise(1);
    cr_assert(intr.level);
}

Test(pic, slave_interrupt_goes_through_the_cascade)
{
    raise(12);
    cr_assert_eq(pic_ack(&pic), 0x2c);
    m(0, 0x0b);
    cr_assert_eq(mr(0), 0x04);
    s(0, 0x0b);
    cr_assert_eq(in8(&pic_slave_ops, &pic, 0), 0x10);
    s(0, 0x20), m(0, 0x20);
    cr_assert_eq(mr(0), 0);
}

Test(pic, priority_is_fixed_with_irq0_first)
{
    raise(7), raise(3), raise(8), raise(0);
    cr_assert_eq(pic_ack(&pic), 0x20);
    cr_assert_not(intr.level);
    m(0, 0x20);
    cr_assert_eq(pic_ack(&pic), 0x28);
    s(0, 0x20), m(0, 0x20);
    cr_assert_eq(pic_ack(&pic), 0x23);
    m(0, 0x20);
    cr_assert_eq(pic_ack(&pic), 0x27);
}

Test(pic, higher_request_nests_lower_waits)
{
    raise(4);
    pic_ack(&pic);
    raise(5);
    cr_assert_not(intr.level);
    raise(3);
    cr_assert(intr.level);
    cr_assert_eq(pic_ack(&pic), 0x23);
    m(0, 0x20); /* non-specific: ends 3, the highest in service */
    m(0, 0x0b);
    cr_assert_eq(mr(0), 0x10);
    m(0, 0x64); /* specific EOI of 4 */
    cr_assert_eq(pic_ack(&pic), 0x25);
}

Test(pic, mask_holds_a_request_back_until_unmasked)
{
    m(1, 0x02);
    raise(1);
    cr_assert_not(intr.level);
    cr_assert_eq(mr(0), 0x02, "IRR shows masked requests");
    m(1, 0);
    cr_assert(intr.level);
    cr_assert_eq(mr(1), 0);
}

Test(pic, edge_that_falls_before_the_acknowledge_is_spurious_irq7)
{
    raise(3);
    lower(3);
    cr_assert_not(intr.level);
    cr_assert_eq(pic_ack(&pic), 0x27);
    m(0, 0x0b);
    cr_assert_eq(mr(0), 0, "spurious: no in-service bit");
}

Test(pic, slave_request_lost_on_the_way_is_spurious_irq15_with_the_cascade_in_service)
{
    raise(10);
    pic.chip[1].imr = 0xff; /* gone between the master's decision and the slave's */
    cr_assert_eq(pic_ack(&pic), 0x2f);
    m(0, 0x0b);
    cr_assert_eq(mr(0), 0x04);
}

Test(pic, level_triggered_line_asks_again_after_eoi)
{
    out8(&pic_elcr_ops, &pic, 1, 0xff);
    cr_assert_eq(in8(&pic_elcr_ops, &pic, 1), 0xde, "IRQ 8 and 13 stay edge-triggered");
    out8(&pic_elcr_ops, &pic, 0, 0xff);
    cr_assert_eq(in8(&pic_elcr_ops, &pic, 0), 0xf8);
    raise(11);
    cr_assert_eq(pic_ack(&pic), 0x2b);
    cr_assert_not(intr.level);
    s(0, 0x20), m(0, 0x20);
    cr_assert(intr.level);
    lower(11);
    cr_assert_not(intr.level);
}

Test(pic, auto_eoi_leaves_nothing_in_service)
{
    program(3, 3);
    raise(5), raise(6);
    cr_assert_eq(pic_ack(&pic), 0x25);
    cr_assert_eq(pic_ack(&pic), 0x26);
    m(0, 0x0b);
    cr_assert_eq(mr(0), 0);
}

Test(pic, rotation_on_auto_eoi_moves_the_served_input_to_the_bottom)
{
    program(3, 3);
    m(0, 0x80);
    raise(1);
    cr_assert_eq(pic_ack(&pic), 0x21);
    lower(1);
    raise(1), raise(5);
    cr_assert_eq(pic_ack(&pic), 0x25);
    m(0, 0x00); /* rotation off */
    cr_assert_eq(pic_ack(&pic), 0x21);
    lower(1), raise(1);
    raise(6); /* top stays after 5 */
    cr_assert_eq(pic_ack(&pic), 0x26);
}

Test(pic, rotate_on_non_specific_eoi)
{
    raise(0);
    pic_ack(&pic);
    m(0, 0xa0);
    lower(0);
    raise(0), raise(1);
    cr_assert_eq(pic_ack(&pic), 0x21);
}

Test(pic, rotate_on_specific_eoi_and_set_priority)
{
    raise(4);
    pic_ack(&pic);
    m(0, 0xe4); /* 4 becomes the lowest: 5 is the highest */
    raise(5), raise(3);
    cr_assert_eq(pic_ack(&pic), 0x25);
    m(0, 0x65);
    m(0, 0xc2); /* set priority: 2 lowest, 3 highest */
    lower(5), raise(5);
    cr_assert_eq(pic_ack(&pic), 0x23);
}

Test(pic, special_mask_mode_lets_lower_levels_in)
{
    raise(2 + 1);
    pic_ack(&pic);
    raise(6);
    cr_assert_not(intr.level);
    m(0, 0x68); /* set special mask mode */
    m(1, 0x08); /* mask the level in service */
    cr_assert(intr.level);
    cr_assert_eq(pic_ack(&pic), 0x26);
    m(0, 0x20); /* a masked level is not ended by a non-specific EOI */
    m(0, 0x0b);
    cr_assert_eq(mr(0), 0x08);
    m(0, 0x48);
    m(1, 0);
    raise(4);
    cr_assert_not(intr.level);
}

Test(pic, special_fully_nested_lets_a_better_slave_request_through)
{
    raise(12);
    pic_ack(&pic);
    raise(9);
    cr_assert_not(intr.level, "without SFNM the cascade in service holds the slave back");
    setup();
    program(0x11, 1);
    lower(12), lower(9);
    raise(12);
    pic_ack(&pic);
    raise(9);
    cr_assert(intr.level);
    cr_assert_eq(pic_ack(&pic), 0x29);
}

Test(pic, poll_command_acknowledges_by_a_read)
{
    m(0, 0x0c);
    cr_assert_eq(mr(0), 0, "nothing pending");
    raise(4);
    m(0, 0x0c);
    cr_assert_eq(mr(1), 0x84);
    cr_assert_not(intr.level);
    m(0, 0x0b);
    cr_assert_eq(mr(0), 0x10);
}

Test(pic, icw1_clears_masks_and_needs_a_new_edge)
{
    raise(1);
    m(1, 0xff);
    m(0, 0x11), m(1, 0x30), m(1, 4), m(1, 1);
    cr_assert_eq(mr(1), 0);
    cr_assert_not(intr.level);
    lower(1), raise(1);
    cr_assert_eq(pic_ack(&pic), 0x31);
}

Test(pic, icw_sequence_without_icw3_and_icw4)
{
    m(0, 0x12), m(1, 0x40); /* single, no ICW4 */
    m(1, 0xaa);
    cr_assert_eq(mr(1), 0xaa, "the next byte is a mask already");
}

Test(pic, second_slave_request_makes_a_new_cascade_edge)
{
    program(1, 3); /* slave in AEOI: still asks right after the acknowledge */
    raise(9), raise(10);
    cr_assert_eq(pic_ack(&pic), 0x29);
    m(0, 0x20);
    cr_assert(intr.level);
    cr_assert_eq(pic_ack(&pic), 0x2a);
}

static int acked_irq = -1;
static void acked(void *opaque, int irq) { acked_irq = irq; }

Test(pic, acknowledge_is_reported_with_the_isa_number)
{
    pic.acked = acked;
    raise(8);
    pic_ack(&pic);
    cr_assert_eq(acked_irq, 8);
}

Test(pic, state_survives_save_and_restore)
{
    struct pic p2;
    struct probe i2 = {0};
    raise(3), pic_ack(&pic), raise(12), raise(1);
    m(0, 0x68), m(0, 0x11), m(1, 0x40); /* in the middle of initialisation */
    pic_init(&p2, probe_line(&i2));
    round_trip(&pic_dev_ops, &pic, &p2);
    cr_assert_not(i2.level, "restore drives no line");
    cr_assert_gt(forge(&pic_dev_ops, &pic, &p2), 10);
}
