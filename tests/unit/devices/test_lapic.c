/* Local APIC by the manual: SDM vol. 3A chapter 11; PV EOI by its ABI. */
#include "tests/unit/devices/dev_ram.h"
#include "devices/bus.h"
#include "devices/lapic.h"
#include "devices/tsc.h"

#define BASE LAPIC_DEFAULT_BASE
#define TSC_HZ 2000000000ull
#define PV_WORD 0x1000u
enum { INTR, NMI };

struct rig {
    struct evloop *loop;
    struct bus *bus;
    struct apic_bus ab;
    struct lapic l[2];
    struct dev_ram ram;
    struct dev_wires wires[2];
    struct guest_tsc tsc;
    int pic_vector;
    unsigned eois[256], events[3];
};
static struct rig *g; /* one per test process */

static uint64_t fake_tsc(void *opaque) { return vtime_now(g->loop) * (TSC_HZ / 1000000000ull); }
static int fake_pic(void *opaque)
{
    int v = g->pic_vector;
    g->pic_vector = -1;
    return v;
}
static void fake_eoi(void *opaque, uint8_t vector) { g->eois[vector]++; }
static void fake_event(void *opaque, enum lapic_event e, uint8_t vector) { g->events[e]++; }

static void start(unsigned cpus, bool x2apic)
{
    struct evloop_config ec = {.test_clock = true};
    g = calloc(1, sizeof(*g));
    cr_assert_eq(evloop_create(&g->loop, &ec), 0);
    cr_assert_eq(bus_create(&g->bus), 0);
    g->tsc = (struct guest_tsc){.hz = TSC_HZ, .read_host = fake_tsc};
    apic_bus_init(&g->ab, g->bus);
    apic_bus_set_eoi(&g->ab, fake_eoi, NULL);
    for (unsigned i = 0; i < cpus; i++) {
        struct lapic_cfg c = {
            .id = i,
            .bsp = i == 0,
            .x2apic = true,
            .tsc_deadline = true,
            .pv_eoi = true,
            .maxphyaddr = 40,
            .loop = g->loop,
            .tsc = &g->tsc,
            .mem = dev_ram_mem(&g->ram),
            .intr = dev_wire(&g->wires[i], INTR),
            .nmi = dev_wire(&g->wires[i], NMI),
            .pic_ack = fake_pic,
            .event = fake_event,
        };
        lapic_init(&g->l[i], &g->ab, &c);
        if (x2apic)
            cr_assert_eq(lapic_wrmsr(&g->l[i], 0x1b, BASE | APIC_BASE_EN | APIC_BASE_EXTD), 0);
    }
    g->pic_vector = -1;
}
static uint32_t rd(unsigned off)
{
    uint32_t v;
    bus_mmio_read(g->bus, BASE + off, &v, 4);
    return v;
}
static void wr(unsigned off, uint32_t v) { bus_mmio_write(g->bus, BASE + off, &v, 4); }
static void enable(void) { wr(0xf0, 0x1ff); }
static void fire(unsigned vector)
{
    struct apic_msg m = {.dest = UINT32_MAX, .vector = (uint8_t)vector};
    apic_bus_deliver(&g->ab, &m);
}
static bool intr(unsigned cpu) { return g->wires[cpu].level & 1; }

Test(lapic, reset_state_is_the_manuals)
{
    start(1, false);
    cr_assert_eq(rd(0x20), 0);
    cr_assert_eq(rd(0x30), LAPIC_VERSION);
    cr_assert_eq(rd(0x80), 0);
    cr_assert_eq(rd(0xd0), 0);
    cr_assert_eq(rd(0xe0), 0xffffffff);
    cr_assert_eq(rd(0xf0), 0xff);
    for (unsigned off = 0x320; off <= 0x370; off += 0x10)
        cr_assert_eq(rd(off), off == 0x350 ? 0x700u : 0x10000u, "LVT %#x", off);
    uint64_t base;
    cr_assert_eq(lapic_rdmsr(&g->l[0], 0x1b, &base), 0);
    cr_assert_eq(base, 0xfee00900);
}

Test(lapic, software_disabled_refuses_interrupts_and_keeps_lvts_masked)
{
    start(1, false);
    struct apic_msg m = {.dest = 0, .vector = 0x40};
    cr_assert_eq(apic_bus_deliver(&g->ab, &m), 0);
    wr(0x320, 0x31);
    cr_assert_eq(rd(0x320), 0x10031);
    enable();
    wr(0x320, 0x31);
    cr_assert_eq(rd(0x320), 0x31);
    wr(0xf0, 0xff);
    cr_assert_eq(rd(0x320), 0x10031);
}

Test(lapic, highest_priority_first_and_lower_waits_for_eoi)
{
    start(1, false);
    enable();
    fire(0x41);
    fire(0x83);
    cr_assert(intr(0));
    cr_assert_eq(lapic_ack(&g->l[0]), 0x83);
    cr_assert_not(intr(0));
    cr_assert_eq(rd(0xa0), 0x80); /* PPR */
    cr_assert_eq(rd(0x100 + 0x40), 1u << 3);
    cr_assert_eq(rd(0x200 + 0x20), 1u << 1);
    cr_assert_eq(lapic_ack(&g->l[0]), -1);
    wr(0xb0, 0);
    cr_assert(intr(0));
    cr_assert_eq(lapic_ack(&g->l[0]), 0x41);
    wr(0xb0, 0);
    cr_assert_eq(rd(0xa0), 0);
}

Test(lapic, higher_class_preempts_same_class_does_not)
{
    start(1, false);
    enable();
    fire(0x50);
    cr_assert_eq(lapic_ack(&g->l[0]), 0x50);
    fire(0x5f);
    cr_assert_not(intr(0));
    fire(0x60);
    cr_assert_eq(lapic_ack(&g->l[0]), 0x60);
}

Test(lapic, tpr_and_cr8_are_one_register_and_hold_back_their_class)
{
    start(1, false);
    enable();
    lapic_write_cr8(&g->l[0], 5);
    cr_assert_eq(rd(0x80), 0x50);
    fire(0x5f);
    cr_assert_not(intr(0));
    wr(0x80, 0x4f);
    cr_assert_eq(lapic_read_cr8(&g->l[0]), 4);
    cr_assert(intr(0));
}

Test(lapic, level_interrupt_sets_tmr_and_broadcasts_eoi)
{
    start(1, false);
    enable();
    struct apic_msg m = {.dest = 0, .vector = 0x61, .level = true};
    cr_assert_eq(apic_bus_deliver(&g->ab, &m), 1);
    cr_assert_eq(rd(0x180 + 0x30), 1u << 1);
    lapic_ack(&g->l[0]);
    wr(0xb0, 0);
    cr_assert_eq(g->eois[0x61], 1);
    fire(0x61); /* the same vector as an edge */
    lapic_ack(&g->l[0]);
    wr(0xb0, 0);
    cr_assert_eq(g->eois[0x61], 1);
}

Test(lapic, eoi_with_nothing_in_service_does_nothing)
{
    start(1, false);
    enable();
    wr(0xb0, 0);
    cr_assert_eq(g->eois[0], 0);
    cr_assert_not(intr(0));
}

Test(lapic, illegal_vector_is_refused_and_reported_once_esr_is_written)
{
    start(1, false);
    enable();
    wr(0x370, 0xfe);
    fire(0x0f);
    cr_assert_eq(rd(0x280), 0);
    wr(0x280, 0);
    cr_assert_eq(rd(0x280), 0x40);
    cr_assert_eq(lapic_ack(&g->l[0]), 0xfe);
    wr(0x280, 0);
    cr_assert_eq(rd(0x280), 0);
}

Test(lapic, illegal_error_vector_does_not_recurse)
{
    start(1, false);
    enable();
    wr(0x370, 0x05);
    fire(0x03);
    wr(0x280, 0);
    cr_assert_eq(rd(0x280), 0x40);
}

Test(lapic, reserved_register_sets_esr)
{
    start(1, false);
    enable();
    cr_assert_eq(rd(0x40), 0);
    wr(0x280, 0);
    cr_assert_eq(rd(0x280), 0x80);
}

Test(lapic, virtual_wire_passes_the_8259_through_lint0)
{
    start(1, false);
    g->pic_vector = 0x08;
    lapic_set_lint(&g->l[0], 0, true);
    cr_assert(intr(0));
    cr_assert_eq(lapic_ack(&g->l[0]), 0x08);
    lapic_set_lint(&g->l[0], 0, false);
    cr_assert_not(intr(0));
    wr(0x350, 0x10700);
    lapic_set_lint(&g->l[0], 0, true);
    cr_assert_not(intr(0));
    cr_assert_eq(lapic_wrmsr(&g->l[0], 0x1b, BASE), 0); /* globally off: LINT0 is INTR */
    cr_assert(intr(0));
}

Test(lapic, lint0_fixed_level_has_remote_irr_and_comes_again_after_eoi)
{
    start(1, false);
    enable();
    wr(0x350, 0x8042);
    lapic_set_lint(&g->l[0], 0, true);
    cr_assert_eq(rd(0x350), 0xc042);
    cr_assert_eq(lapic_ack(&g->l[0]), 0x42);
    cr_assert_eq(lapic_ack(&g->l[0]), -1);
    wr(0xb0, 0);
    cr_assert_eq(lapic_ack(&g->l[0]), 0x42);
    lapic_set_lint(&g->l[0], 0, false);
    wr(0xb0, 0);
    cr_assert_eq(rd(0x350), 0x8042);
    cr_assert_eq(lapic_ack(&g->l[0]), -1);
}

Test(lapic, lint1_delivers_nmi_on_the_edge_when_unmasked)
{
    start(1, false);
    enable();
    lapic_set_lint(&g->l[0], 1, true);
    lapic_set_lint(&g->l[0], 1, false);
    cr_assert_eq(g->wires[0].edges[NMI], 0);
    wr(0x360, 0x400);
    lapic_set_lint(&g->l[0], 1, true);
    lapic_set_lint(&g->l[0], 1, true);
    cr_assert_eq(g->wires[0].edges[NMI], 1);
}

/* -- timer -- */
static unsigned handled; /* interrupts taken by a guest that EOIs at once */
static void drain(void)
{
    while (lapic_has_intr(&g->l[0])) {
        cr_assert_geq(lapic_ack(&g->l[0]), 0);
        handled++;
        wr(0xb0, 0);
    }
}

Test(lapic, one_shot_counts_at_the_divided_bus_clock_and_stops)
{
    start(1, false);
    enable();
    wr(0x320, 0x30);
    wr(0x3e0, 0x3); /* by 16 */
    wr(0x380, 1000);
    vtime_test_advance(g->loop, 15999);
    cr_assert_not(intr(0));
    cr_assert_eq(rd(0x390), 1);
    vtime_test_advance(g->loop, 1);
    cr_assert_eq(lapic_ack(&g->l[0]), 0x30);
    cr_assert_eq(rd(0x390), 0);
    cr_assert_eq(vtime_next_deadline(g->loop), VTIME_NEVER);
}

Test(lapic, every_divider_code)
{
    static const struct {
        uint32_t code, by;
    } t[] = {{0, 2}, {1, 4}, {2, 8}, {3, 16}, {8, 32}, {9, 64}, {10, 128}, {11, 1}};
    start(1, false);
    enable();
    for (unsigned i = 0; i < 8; i++) {
        wr(0x3e0, t[i].code);
        wr(0x380, 1000000);
        vtime_test_advance(g->loop, 128000);
        cr_assert_eq(rd(0x390), 1000000 - 128000 / t[i].by, "code %u", t[i].code);
    }
}

Test(lapic, changing_the_divider_keeps_the_count)
{
    start(1, false);
    enable();
    wr(0x3e0, 0xb);
    wr(0x380, 1000000);
    vtime_test_advance(g->loop, 400000);
    wr(0x3e0, 0x0);
    cr_assert_eq(rd(0x390), 600000);
    vtime_test_advance(g->loop, 200000);
    cr_assert_eq(rd(0x390), 500000);
}

Test(lapic, periodic_keeps_its_phase)
{
    start(1, false);
    enable();
    wr(0x3e0, 0xb);
    wr(0x320, 0x20031);
    wr(0x380, 4000000);
    for (int i = 0; i < 100; i++) {
        vtime_test_advance(g->loop, 1234567);
        drain();
    }
    cr_assert_eq(handled, 123456700 / 4000000);
}

Test(lapic, periodic_ticks_lost_to_a_busy_host_are_owed_and_handed_in_after_each_eoi)
{
    start(1, false);
    enable();
    wr(0x3e0, 0xb);
    wr(0x320, 0x20031);
    wr(0x380, 4000000);
    vtime_test_starve(g->loop, 250 * 4000000ull);
    evloop_run(g->loop);
    cr_assert_eq(lapic_ack(&g->l[0]), 0x31);
    cr_assert_eq(lapic_ack(&g->l[0]), -1); /* only after the EOI */
    wr(0xb0, 0);
    handled = 1;
    drain();
    cr_assert_eq(handled, 250);
}

Test(lapic, owed_ticks_are_bounded)
{
    start(1, false);
    enable();
    wr(0x3e0, 0xb);
    wr(0x320, 0x20031);
    wr(0x380, 1000000);
    vtime_test_starve(g->loop, 3600 * 1000000000ull);
    evloop_run(g->loop);
    drain();
    cr_assert_eq(handled, LAPIC_MAX_OWED + 1);
}

Test(lapic, absurdly_fast_periodic_timer_coalesces)
{
    start(1, false);
    enable();
    wr(0x3e0, 0xb);
    wr(0x320, 0x20031);
    wr(0x380, 1);
    vtime_test_advance(g->loop, 1000000);
    drain();
    cr_assert_leq(handled, 1);
    vtime_test_advance(g->loop, vtime_next_deadline(g->loop) - vtime_now(g->loop));
    cr_assert_geq(vtime_next_deadline(g->loop),
                  vtime_now(g->loop) + 50000); /* the host is not made to run that often */
}

Test(lapic, masked_periodic_timer_owes_nothing)
{
    start(1, false);
    enable();
    wr(0x3e0, 0xb);
    wr(0x320, 0x30031);
    wr(0x380, 1000000);
    vtime_test_advance(g->loop, 50000000);
    wr(0x320, 0x20031);
    drain();
    cr_assert_eq(handled, 0);
}

Test(lapic, tsc_deadline_fires_when_the_guest_tsc_is_reached_and_disarms)
{
    uint64_t v;
    start(1, false);
    enable();
    g->tsc.offset = 1000000;
    cr_assert_eq(lapic_wrmsr(&g->l[0], 0x6e0, 5000), 0); /* not in this mode: no effect */
    lapic_rdmsr(&g->l[0], 0x6e0, &v);
    cr_assert_eq(v, 0);
    wr(0x320, 0x40032);
    lapic_wrmsr(&g->l[0], 0x6e0, 1000000 + 2 * 5000);
    wr(0x380, 77); /* ignored */
    cr_assert_eq(rd(0x380), 0);
    vtime_test_advance(g->loop, 4999);
    cr_assert_not(intr(0));
    vtime_test_advance(g->loop, 1);
    cr_assert_eq(lapic_ack(&g->l[0]), 0x32);
    lapic_rdmsr(&g->l[0], 0x6e0, &v);
    cr_assert_eq(v, 0);
}

Test(lapic, tsc_deadline_in_the_past_fires_at_once)
{
    start(1, false);
    enable();
    vtime_test_advance(g->loop, 1000);
    wr(0x320, 0x40032);
    lapic_wrmsr(&g->l[0], 0x6e0, 1);
    cr_assert(intr(0));
}

Test(lapic, far_tsc_deadline_does_not_overflow_and_moves_with_the_offset)
{
    start(1, false);
    enable();
    wr(0x320, 0x40032);
    lapic_wrmsr(&g->l[0], 0x6e0, UINT64_MAX);
    vtime_test_advance(g->loop, 1000000);
    cr_assert_not(intr(0));
    g->tsc.offset = UINT64_MAX - 10000000;
    lapic_time_changed(&g->l[0]);
    vtime_test_advance(g->loop, 10000000);
    cr_assert(intr(0));
}

Test(lapic, leaving_deadline_mode_disarms)
{
    start(1, false);
    enable();
    wr(0x320, 0x40032);
    lapic_wrmsr(&g->l[0], 0x6e0, 100000);
    wr(0x320, 0x32);
    vtime_test_advance(g->loop, 1000000);
    cr_assert_not(intr(0));
}

/* -- IPIs -- */
Test(lapic, self_ipi_by_shorthand_and_destination)
{
    start(1, false);
    enable();
    wr(0x300, 0x40045);
    cr_assert_eq(lapic_ack(&g->l[0]), 0x45);
    wr(0xb0, 0);
    wr(0x310, 0);
    wr(0x300, 0x46);
    cr_assert_eq(lapic_ack(&g->l[0]), 0x46);
    cr_assert_eq(rd(0x300), 0x46);
}

Test(lapic, ipi_destinations_reach_whom_they_name)
{
    start(2, true);
    for (unsigned i = 0; i < 2; i++)
        cr_assert_eq(lapic_wrmsr(&g->l[i], 0x80f, 0x1ff), 0);
    lapic_wrmsr(&g->l[0], 0x830, 0x1000000cc); /* physical, id 1 */
    cr_assert(!intr(0) && intr(1));
    cr_assert_eq(lapic_ack(&g->l[1]), 0xcc);
    lapic_wrmsr(&g->l[1], 0x80b, 0);
    lapic_wrmsr(&g->l[0], 0x830, 0x3000008dd); /* logical, both */
    cr_assert(intr(0) && intr(1));
    lapic_ack(&g->l[0]), lapic_ack(&g->l[1]);
    lapic_wrmsr(&g->l[0], 0x80b, 0), lapic_wrmsr(&g->l[1], 0x80b, 0);
    lapic_wrmsr(&g->l[0], 0x830, 0xc00ee); /* all but self */
    cr_assert(!intr(0) && intr(1));
    lapic_ack(&g->l[1]), lapic_wrmsr(&g->l[1], 0x80b, 0);
    lapic_wrmsr(&g->l[0], 0x830, 0xffffffff000000efull); /* broadcast */
    cr_assert(intr(0) && intr(1));
}

Test(lapic, init_and_startup_reach_the_other_cpu_as_events)
{
    start(2, true);
    lapic_wrmsr(&g->l[0], 0x830, 0x100004500);
    lapic_wrmsr(&g->l[0], 0x830, 0x100004608);
    lapic_wrmsr(&g->l[0], 0x830, 0x100008500); /* INIT level de-assert: nothing */
    cr_assert_eq(g->events[LAPIC_EVENT_INIT], 1);
    cr_assert_eq(g->events[LAPIC_EVENT_SIPI], 1);
}

Test(lapic, lowest_priority_goes_to_the_cpu_with_the_lower_ppr)
{
    start(2, true);
    for (unsigned i = 0; i < 2; i++)
        lapic_wrmsr(&g->l[i], 0x80f, 0x1ff);
    struct apic_msg m = {.dest = 3, .logical = true, .vector = 0x91, .mode = APIC_LOWEST};
    lapic_write_cr8(&g->l[0], 3);
    cr_assert_eq(apic_bus_deliver(&g->ab, &m), 1);
    cr_assert(!intr(0) && intr(1));
}

Test(lapic, sending_an_illegal_vector_is_an_error_of_the_sender)
{
    start(1, false);
    enable();
    wr(0x300, 0x40003);
    wr(0x280, 0);
    cr_assert_eq(rd(0x280), 0x20);
}

Test(lapic, flat_and_cluster_logical_destinations)
{
    start(1, false);
    enable();
    wr(0xd0, 0x24000000);
    struct apic_msg m = {.dest = 0x04, .logical = true, .vector = 0x71};
    cr_assert_eq(apic_bus_deliver(&g->ab, &m), 1); /* flat: any common bit */
    wr(0xe0, 0x0fffffff);
    cr_assert_eq(apic_bus_deliver(&g->ab, &m), 0); /* cluster 0 is not cluster 2 */
    m.dest = 0x26;
    cr_assert_eq(apic_bus_deliver(&g->ab, &m), 1);
}

Test(lapic, msi_address_and_data_are_decoded)
{
    start(1, false);
    enable();
    apic_bus_msi(&g->ab, 0xfee00000, 0x4055);
    cr_assert_eq(lapic_ack(&g->l[0]), 0x55);
    wr(0xb0, 0);
    apic_bus_msi(&g->ab, 0xfee05000, 0x4056); /* APIC id 5: nobody */
    apic_bus_msi(&g->ab, 0x1000, 0x4057);     /* not an interrupt address */
    cr_assert_not(intr(0));
    apic_bus_msi(&g->ab, 0xfee00000, 0x400);
    cr_assert_eq(g->wires[0].edges[NMI], 1);
}

/* -- x2APIC -- */
Test(lapic, mode_transitions_follow_the_figure)
{
    start(1, false);
    const uint64_t x1 = BASE | APIC_BASE_EN | APIC_BASE_BSP, x2 = x1 | APIC_BASE_EXTD, off = BASE | APIC_BASE_BSP;
    struct lapic *l = &g->l[0];
    cr_assert_eq(lapic_wrmsr(l, 0x1b, off | APIC_BASE_EXTD), -1);
    cr_assert_eq(lapic_wrmsr(l, 0x1b, x2), 0);
    cr_assert_eq(lapic_wrmsr(l, 0x1b, x1), -1);
    cr_assert_eq(lapic_wrmsr(l, 0x1b, off), 0);
    cr_assert_eq(lapic_wrmsr(l, 0x1b, x2), -1);
    cr_assert_eq(lapic_wrmsr(l, 0x1b, x1), 0);
    cr_assert_eq(lapic_wrmsr(l, 0x1b, x1 | 1), -1);
    cr_assert_eq(lapic_wrmsr(l, 0x1b, x1 | 1ull << 40), -1);
}

Test(lapic, x2apic_msrs_fault_on_reserved_bits_and_wrong_directions)
{
    uint64_t v;
    start(1, true);
    struct lapic *l = &g->l[0];
    cr_assert_eq(lapic_rdmsr(l, 0x802, &v), 0);
    cr_assert_eq(v, 0);
    cr_assert_eq(lapic_rdmsr(l, 0x80d, &v), 0);
    cr_assert_eq(v, 1); /* cluster 0, bit 0 */
    static const uint32_t no_read[] = {0x800, 0x80b, 0x80e, 0x831, 0x83f, 0x8ff};
    for (unsigned i = 0; i < 6; i++)
        cr_assert_eq(lapic_rdmsr(l, no_read[i], &v), -1, "read of %#x", no_read[i]);
    static const struct {
        uint32_t msr;
        uint64_t val;
    } no_write[] = {{0x802, 1}, {0x803, 0}, {0x808, 0x100},      {0x80b, 1}, {0x80d, 1},
                    {0x80e, 0}, {0x828, 1}, {0x830, 1ull << 20}, {0x831, 0}, {0x832, 1u << 24},
                    {0x839, 0}, {0x83e, 4}, {0x83f, 0x100}};
    for (unsigned i = 0; i < sizeof(no_write) / sizeof(no_write[0]); i++)
        cr_assert_eq(lapic_wrmsr(l, no_write[i].msr, no_write[i].val), -1, "write of %#x", no_write[i].msr);
    cr_assert_eq(lapic_wrmsr(l, 0x80f, 0x1ff), 0);
    cr_assert_eq(lapic_wrmsr(l, 0x83f, 0x77), 0);
    cr_assert_eq(lapic_ack(l), 0x77);
    cr_assert_eq(lapic_wrmsr(l, 0x80b, 0), 0);
}

Test(lapic, x2apic_msrs_fault_in_xapic_mode_and_the_page_goes_in_x2apic_mode)
{
    uint64_t v;
    start(1, false);
    cr_assert_eq(lapic_rdmsr(&g->l[0], 0x802, &v), -1);
    cr_assert_not_null(bus_find(g->bus, BUS_MMIO, BASE));
    lapic_wrmsr(&g->l[0], 0x1b, BASE | APIC_BASE_EN | APIC_BASE_EXTD);
    cr_assert_null(bus_find(g->bus, BUS_MMIO, BASE));
}

Test(lapic, page_follows_its_base)
{
    start(1, false);
    cr_assert_eq(lapic_wrmsr(&g->l[0], 0x1b, 0xfed80000 | APIC_BASE_EN), 0);
    uint32_t v;
    bus_mmio_read(g->bus, 0xfed80030, &v, 4);
    cr_assert_eq(v, LAPIC_VERSION);
    cr_assert_null(bus_find(g->bus, BUS_MMIO, BASE));
}

Test(lapic, foreign_msrs_are_declined)
{
    uint64_t v;
    start(1, false);
    cr_assert_eq(lapic_rdmsr(&g->l[0], 0x10, &v), 1);
    cr_assert_eq(lapic_wrmsr(&g->l[0], 0xc0000080, 0), 1);
}

/* -- PV EOI -- */
static void pv_on(void)
{
    enable();
    cr_assert_eq(lapic_wrmsr(&g->l[0], MSR_KVM_PV_EOI, PV_WORD | 2), -1);
    cr_assert_eq(lapic_wrmsr(&g->l[0], MSR_KVM_PV_EOI, PV_WORD | 1), 0);
}

Test(lapic, pv_eoi_by_clearing_the_bit_ends_the_interrupt)
{
    start(1, false);
    pv_on();
    fire(0x50);
    cr_assert_eq(lapic_ack(&g->l[0]), 0x50);
    cr_assert_eq(g->ram.b[PV_WORD], 1);
    g->ram.b[PV_WORD] = 0; /* the guest's EOI */
    fire(0x50);
    cr_assert(intr(0));
    cr_assert_eq(rd(0x100 + 0x20), 0);
    cr_assert_eq(lapic_ack(&g->l[0]), 0x50);
}

Test(lapic, pv_eoi_is_withdrawn_when_another_interrupt_arrives_first)
{
    start(1, false);
    pv_on();
    fire(0x50);
    lapic_ack(&g->l[0]);
    fire(0x40);
    cr_assert_eq(g->ram.b[PV_WORD], 0);
    cr_assert_not(intr(0));
    wr(0xb0, 0); /* the guest saw 0 and writes EOI */
    cr_assert(intr(0));
}

Test(lapic, pv_eoi_is_not_offered_for_level_interrupts_or_with_more_pending)
{
    start(1, false);
    pv_on();
    struct apic_msg m = {.dest = 0, .vector = 0x61, .level = true};
    apic_bus_deliver(&g->ab, &m);
    lapic_ack(&g->l[0]);
    cr_assert_eq(g->ram.b[PV_WORD], 0);
    wr(0xb0, 0);
    fire(0x50), fire(0x51);
    lapic_ack(&g->l[0]);
    cr_assert_eq(g->ram.b[PV_WORD], 0);
}

Test(lapic, pv_eoi_nested_interrupts_end_in_order)
{
    start(1, false);
    pv_on();
    fire(0x50);
    lapic_ack(&g->l[0]);
    fire(0x90); /* preempts: the first will have to write EOI */
    cr_assert_eq(lapic_ack(&g->l[0]), 0x90);
    cr_assert_eq(g->ram.b[PV_WORD], 1);
    g->ram.b[PV_WORD] = 0;
    wr(0xb0, 0); /* ends 0x50, after 0x90 */
    cr_assert_eq(rd(0xa0), 0);
}

Test(lapic, pv_eoi_word_outside_ram_switches_it_off)
{
    start(1, false);
    enable();
    cr_assert_eq(lapic_wrmsr(&g->l[0], MSR_KVM_PV_EOI, 0xfffffffffff000ull | 1), 0);
    fire(0x50);
    lapic_ack(&g->l[0]);
    wr(0xb0, 0);
    cr_assert_eq(rd(0xa0), 0);
}

/* -- saved state -- */
Test(lapic, round_trip_keeps_timer_and_pending_interrupts)
{
    start(1, false);
    enable();
    wr(0x3e0, 0xb);
    wr(0x320, 0x20031);
    wr(0x380, 4000000);
    fire(0x50);
    fire(0x70);
    lapic_ack(&g->l[0]);
    const struct dev d = {&lapic_dev_ops, &g->l[0], 0};
    dev_refuses_truncation(&d);
    dev_round_trip(&d);
    wr(0xb0, 0);
    cr_assert_eq(lapic_ack(&g->l[0]), 0x50);
    wr(0xb0, 0);
    vtime_test_advance(g->loop, 4000000);
    cr_assert_eq(lapic_ack(&g->l[0]), 0x31);
}

Test(lapic, forged_state_is_refused)
{
    start(1, false);
    enable();
    wr(0x380, 4000000);
    struct lapic forged = g->l[0];
    struct dev_writer w = {0};
    const struct dev d = {&lapic_dev_ops, &g->l[0], 0}, f = {&lapic_dev_ops, &forged, 0};
    forged.s.period_ns = 0; /* would divide by zero */
    cr_assert_eq(dev_save(&w, &f), 0);
    struct dev_reader r = {.buf = w.buf, .len = w.len};
    cr_assert_eq(dev_restore(&r, &d), -RD_E_FORMAT);
    forged = g->l[0];
    forged.s.base = APIC_BASE_EXTD;
    w.len = 0;
    cr_assert_eq(dev_save(&w, &f), 0);
    r = (struct dev_reader){.buf = w.buf, .len = w.len};
    cr_assert_eq(dev_restore(&r, &d), -RD_E_FORMAT);
    dev_writer_free(&w);
}
