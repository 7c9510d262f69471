/* The board as the engine sees it: wires from chip to chip to CPU, events, what firmware leaves, state, hostile accesses. */
#include "base/err.h"
#include "base/rng.h"
#include "devices/acpi_tables.h"
#include "devices/board_pc.h"
#include "monitor/engine.h"
#include "tests/unit/devices/fixture.h"
#include <stdlib.h>

#define RAM (1u << 20)
static struct evloop *loop;
static struct board_pc *b;
static uint8_t *ram;
static struct probe intr, nmi;
static unsigned resets, offs, exits;
static int last_arg;
static uint64_t tsc_offset;

static int ram_read(void *opaque, uint64_t gpa, void *buf, size_t n)
{
    if (gpa > RAM || n > RAM - gpa)
        return -RD_E_RANGE;
    memcpy(buf, ram + gpa, n);
    return 0;
}
static int ram_write(void *opaque, uint64_t gpa, const void *buf, size_t n)
{
    if (gpa > RAM || n > RAM - gpa)
        return -RD_E_RANGE;
    memcpy(ram + gpa, buf, n);
    return 0;
}
static void on_event(void *opaque, enum board_event e, int arg)
{
    resets += e == BOARD_RESET;
    offs += e == BOARD_POWER_OFF;
    exits += e == BOARD_DEBUG_EXIT;
    last_arg = arg;
}

static struct board_pc_cfg config(void)
{
    return (struct board_pc_cfg){
        .ram_bytes = 256u << 20,
        .loop = loop,
        .mem = {ram_read, ram_write, NULL},
        .intr = probe_line(&intr),
        .nmi = probe_line(&nmi),
        .tsc_hz = 2000000000,
        .tsc_offset = &tsc_offset,
        .x2apic = true,
        .tsc_deadline = true,
        .maxphyaddr = 40,
        .kvm = true,
        .serial = {{.present = true}, {.present = false}, {.present = true}},
        .debugexit_base = 0xf4,
        .debugexit_size = 4,
        .event = on_event,
    };
}

static int make(const struct board_pc_cfg *cfg, char *err, size_t n)
{
    b = calloc(1, sizeof *b);
    return board_pc_init(b, cfg, err, n);
}

static void start(void)
{
    char err[128];
    struct board_pc_cfg cfg;
    loop = test_loop();
    ram = calloc(1, RAM);
    cfg = config();
    cr_assert_eq(make(&cfg, err, sizeof err), 0, "%s", err);
}
static void stop(void)
{
    board_pc_fini(b);
    free(b);
    free(ram);
    evloop_destroy(loop);
}
TestSuite(board, .init = start, .fini = stop);

static void out(uint16_t port, unsigned size, uint32_t v)
{
    cr_assert_eq(board_pc_vm_ops.pio(b, port, size, true, &v), VM_IO_DONE);
}
static uint32_t in(uint16_t port, unsigned size)
{
    uint32_t v = 0;
    cr_assert_eq(board_pc_vm_ops.pio(b, port, size, false, &v), VM_IO_DONE);
    return v & (size == 4 ? ~0u : (1u << 8 * size) - 1);
}
static void poke(uint64_t gpa, uint32_t v)
{
    cr_assert_eq(board_pc_vm_ops.mmio(b, gpa, 4, true, (uint8_t *)&v), VM_IO_DONE);
}
static int ack(void) { return board_pc_vm_ops.intr_ack(b); }

static void set_up_pics(uint8_t mask)
{
    static const uint16_t port[] = {0x20, 0x21, 0x21, 0x21, 0xa0, 0xa1, 0xa1, 0xa1};
    static const uint8_t val[] = {0x11, 0x20, 0x04, 0x01, 0x11, 0x28, 0x02, 0x01};
    for (unsigned i = 0; i < 8; i++)
        out(port[i], 1, val[i]);
    out(0x21, 1, mask);
    out(0xa1, 1, 0xff);
}
static void start_pit(uint16_t count)
{
    out(0x43, 1, 0x34);
    out(0x40, 1, count & 0xff);
    out(0x40, 1, count >> 8);
}

/* ---- interrupts ---- */

Test(board, pit_tick_reaches_the_cpu_through_the_8259)
{
    set_up_pics(0xfe);
    start_pit(1193);
    vtime_test_advance(loop, 1100000);
    cr_assert(intr.level);
    cr_assert_eq(ack(), 0x20);
    cr_assert(!intr.level);
    out(0x20, 1, 0x20);
    vtime_test_advance(loop, 1000000);
    cr_assert(intr.level);
}

Test(board, masked_pit_tick_does_not)
{
    set_up_pics(0xff);
    start_pit(1193);
    vtime_test_advance(loop, 5000000);
    cr_assert(!intr.level);
}

Test(board, pit_tick_reaches_the_cpu_through_ioapic_pin_2)
{
    set_up_pics(0xff);
    poke(LAPIC_DEFAULT_BASE + 0xf0, 0x1ff);
    poke(IOAPIC_DEFAULT_BASE, 0x10 + 2 * 2);
    poke(IOAPIC_DEFAULT_BASE + 0x10, 0x40);
    start_pit(1193);
    vtime_test_advance(loop, 1100000);
    cr_assert(intr.level);
    cr_assert_eq(ack(), 0x40);
    cr_assert(!intr.level);
    cr_assert_eq(b->pit.s.unanswered, 0, "the PIT was not told that its tick was taken");
}

Test(board, rtc_reaches_the_cpu_by_irq_8)
{
    set_up_pics(0xfb);
    out(0xa1, 1, 0xfe);
    out(0x70, 1, 0x0b);
    out(0x71, 1, 0x42); /* periodic */
    vtime_test_advance(loop, 2000000);
    cr_assert(intr.level);
    cr_assert_eq(ack(), 0x28);
}

Test(board, com1_and_com3_share_irq_4_until_both_are_quiet)
{
    set_up_pics(0xef);
    out(0x4d0, 1, 0x10); /* level: what is shared can be seen */
    out(0x3f9, 1, 0x02);
    out(0x3e9, 1, 0x02);
    cr_assert(intr.level);
    cr_assert_eq(in(0x3fa, 1) & 0xf, 0x02);
    cr_assert(intr.level, "COM3 still wants service");
    cr_assert_eq(in(0x3ea, 1) & 0xf, 0x02);
    cr_assert(!intr.level);
}

Test(board, absent_serial_port_reads_all_ones)
{
    cr_assert_eq(in(0x2fd, 1), 0xff);
    cr_assert_neq(in(0x3fd, 1), 0xff);
}

Test(board, keyboard_byte_raises_irq_1)
{
    set_up_pics(0xfd);
    ps2_key(&b->ps2, 0x1e, true);
    vtime_test_advance(loop, 1000000);
    cr_assert(intr.level);
    cr_assert_eq(ack(), 0x21);
    cr_assert_eq(in(0x60, 1), 0x1e);
}

Test(board, nmi_button_reaches_the_cpu_if_lint1_is_nmi)
{
    poke(LAPIC_DEFAULT_BASE + 0xf0, 0x1ff);
    poke(LAPIC_DEFAULT_BASE + 0x360, 0x400);
    board_pc_nmi(b);
    cr_assert_eq(nmi.rises, 1);
}

/* ---- events ---- */

Test(board, port_92_asks_for_a_reset)
{
    out(0x92, 1, 0x03);
    cr_assert_eq(resets, 1);
    cr_assert_eq(last_arg, BOARD_RESET_PORT92);
}

Test(board, keyboard_controller_asks_for_a_reset)
{
    out(0x64, 1, 0xfe);
    cr_assert_eq(resets, 1);
    cr_assert_eq(last_arg, BOARD_RESET_KEYBOARD);
}

Test(board, reset_register_asks_for_a_reset)
{
    out(0xcf9, 1, 0x02);
    cr_assert_eq(resets, 0);
    out(0xcf9, 1, 0x06);
    cr_assert_eq(resets, 1);
    cr_assert_eq(last_arg, BOARD_RESET_CF9);
}

Test(board, s5_powers_off)
{
    cr_assert_eq(board_pc_firmware_setup(b), 0);
    out(ACPI_PM_BASE_DEFAULT + ACPI_PM_CNT, 2, 0x2000 | ACPI_PM_SLP_TYP_S5 << 10 | 1);
    cr_assert_eq(offs, 1);
}

Test(board, debug_exit_gives_twice_the_value_plus_one)
{
    out(0xf4, 4, 21);
    cr_assert_eq(exits, 1);
    cr_assert_eq(last_arg, 43);
}

Test(board, init_sent_by_the_guest_to_itself_is_a_reset)
{
    poke(LAPIC_DEFAULT_BASE + 0xf0, 0x1ff);
    poke(LAPIC_DEFAULT_BASE + 0x310, 0);
    poke(LAPIC_DEFAULT_BASE + 0x300, 0x4500);
    cr_assert_eq(resets, 1);
    cr_assert_eq(last_arg, BOARD_RESET_INIT);
}

Test(board, power_button_is_heard_only_when_enabled)
{
    cr_assert_eq(board_pc_firmware_setup(b), 0);
    cr_assert(!board_pc_power_button(b));
    out(ACPI_PM_BASE_DEFAULT + ACPI_PM_EVT, 2, 0xffff);
    out(ACPI_PM_BASE_DEFAULT + ACPI_PM_EVT + 2, 2, 0x100);
    cr_assert(board_pc_power_button(b));
}

/* ---- firmware's leavings ---- */

static uint8_t sum(const uint8_t *p, size_t n)
{
    uint8_t s = 0;
    while (n--)
        s = (uint8_t)(s + *p++);
    return s;
}

Test(board, acpi_root_pointer_and_mp_table_are_where_guests_search)
{
    cr_assert_eq(board_pc_firmware_setup(b), 0);
    const uint8_t *rsdp = ram + board_pc_rsdp(b), *mp = ram + BOARD_MPTABLE_GPA;
    cr_assert_arr_eq(rsdp, "RSD PTR ", 8);
    cr_assert_eq(sum(rsdp, 20), 0);
    cr_assert_eq(sum(rsdp, 36), 0);
    cr_assert_arr_eq(mp, "_MP_", 4);
    cr_assert_eq(sum(mp, 16), 0);
    uint32_t table;
    memcpy(&table, mp + 4, 4);
    cr_assert_arr_eq(ram + table, "PCMP", 4);
}

Test(board, bios_data_area_names_the_serial_ports_and_base_memory)
{
    cr_assert_eq(board_pc_firmware_setup(b), 0);
    uint16_t w[3];
    memcpy(w, ram + 0x400, 6);
    cr_assert_eq(w[0], 0x3f8);
    cr_assert_eq(w[1], 0x3e8, "ports that are there, without gaps");
    cr_assert_eq(w[2], 0);
    memcpy(w, ram + 0x40e, 2);
    cr_assert_eq(w[0] << 4, 0x9fc00);
    memcpy(w, ram + 0x413, 2);
    cr_assert_eq(w[0], 639);
}

Test(board, pci_interrupts_are_level_triggered_and_pm_is_at_its_place)
{
    cr_assert_eq(board_pc_firmware_setup(b), 0);
    cr_assert_eq(in(0x4d1, 1), 1u << (9 - 8) | 1u << (10 - 8) | 1u << (11 - 8));
    uint32_t t = in(ACPI_PM_BASE_DEFAULT + ACPI_PM_TMR, 4);
    vtime_test_advance(loop, NS_PER_SEC);
    cr_assert_eq(in(ACPI_PM_BASE_DEFAULT + ACPI_PM_TMR, 4) - t, ACPI_PM_HZ);
}

Test(board, host_bridge_answers_configuration_mechanism_1)
{
    out(0xcf8, 4, 0x80000000);
    cr_assert_eq(in(0xcfc, 4), 0x12378086);
    out(0xcf8, 4, 0x80000b00); /* 00:01.3 */
    cr_assert_eq(in(0xcfc, 4), 0x71138086);
}

Test(board, cmos_and_fw_cfg_know_the_memory_size)
{
    out(0x70, 1, 0x34);
    uint32_t low = in(0x71, 1);
    out(0x70, 1, 0x35);
    cr_assert_eq((low | in(0x71, 1) << 8) * 65536ull, (256u << 20) - (16u << 20));
    out(0x510, 2, FWCFG_RAM_SIZE);
    uint64_t size = 0;
    for (unsigned i = 0; i < 8; i++)
        size |= (uint64_t)in(0x511, 1) << 8 * i;
    cr_assert_eq(size, 256u << 20);
}

/* ---- MSRs, TSC, KVM ---- */

Test(board, device_msrs_reach_their_chips_and_others_are_declined)
{
    uint64_t v;
    cr_assert_eq(board_pc_vm_ops.rdmsr(b, 0x1b, &v), 0);
    cr_assert_eq(v, LAPIC_DEFAULT_BASE | APIC_BASE_BSP | APIC_BASE_EN);
    cr_assert_eq(board_pc_vm_ops.wrmsr(b, MSR_KVM_WALL_CLOCK, 0x5000), 0);
    cr_assert_eq(board_pc_vm_ops.rdmsr(b, 0xc0011029, &v), 1);
    cr_assert_eq(board_pc_vm_ops.wrmsr(b, 0x1b, 1), -1);
}

Test(board, change_of_the_tsc_does_not_move_kvm_clock)
{
    uint64_t page = 0x6000, before, after, tsc;
    cr_assert_eq(board_pc_vm_ops.wrmsr(b, MSR_KVM_SYSTEM_TIME, page | 1), 0);
    before = kvmclock_now(&b->kvmclock);
    tsc_offset = 1ull << 40;
    in(0x61, 1);
    after = kvmclock_now(&b->kvmclock);
    cr_assert_eq(b->tsc.offset, 1ull << 40);
    cr_assert_lt(after - before, NS_PER_SEC);
    memcpy(&tsc, ram + page + 8, 8);
    cr_assert_gt(tsc, 1ull << 40, "the guest's page was not brought up to date");
}

Test(board, reset_of_a_kvm_guest_that_said_no_good_bye_is_unclean)
{
    cr_assert(!board_pc_reset_is_unclean(b));
    cr_assert_eq(board_pc_vm_ops.wrmsr(b, MSR_KVM_PV_EOI, 0x7000 | 1), 0);
    cr_assert(board_pc_reset_is_unclean(b));
    cr_assert_eq(board_pc_vm_ops.wrmsr(b, MSR_KVM_PV_EOI, 0), 0);
    cr_assert(!board_pc_reset_is_unclean(b));
}

Test(board, unknown_hypercall_is_answered_as_kvm_answers_it)
{
    uint64_t args[4] = {0}, ret = 0;
    cr_assert_eq(board_pc_vm_ops.hypercall(b, 99, args, &ret), 0);
    cr_assert_eq((int64_t)ret, -1000);
}

/* ---- building ---- */

Test(board, port_that_is_taken_is_refused_by_name)
{
    char err[128];
    struct board_pc *first = b;
    struct board_pc_cfg cfg = config();
    cfg.debugexit_base = 0x60;
    cr_assert_eq(make(&cfg, err, sizeof err), -RD_E_BUSY);
    cr_assert(strstr(err, "isa-debug-exit") && strstr(err, "ps2"), "%s", err);
    stop();
    loop = test_loop();
    ram = calloc(1, RAM);
    b = first;
}

Test(board, pci_hole_begins_where_low_memory_ends)
{
    cr_assert_eq(board_pc_pci_hole(b), 256u << 20);
    b->cfg.ram_bytes = 8ull << 30;
    cr_assert_eq(board_pc_pci_hole(b), 0xc0000000u);
}

/* ---- reset and state ---- */

static void disturb(void)
{
    set_up_pics(0xfe);
    poke(LAPIC_DEFAULT_BASE + 0xf0, 0x1ff);
    start_pit(1193);
    out(0x3fb, 1, 0x83);
    out(0x3f8, 1, 3);
    out(0x70, 1, 0x0b);
    out(0xcf8, 4, 0x80000860);
    out(0xcfc, 4, 0x05050505);
    vtime_test_advance(loop, 3300000);
    cr_assert(intr.level);
}

Test(board, reset_silences_everything)
{
    disturb();
    board_pc_reset(b);
    cr_assert(!intr.level);
    vtime_test_advance(loop, NS_PER_SEC);
    cr_assert(!intr.level);
    cr_assert_eq(in(0x3fb, 1), 0);
    out(0xcf8, 4, 0x80000860);
    cr_assert_eq(in(0xcfc, 4), 0x80808080);
}

static struct dev_writer save(void)
{
    struct dev_writer w = {0};
    cr_assert_eq(board_pc_save(b, &w), 0);
    return w;
}

Test(board, state_survives_a_round_trip_with_a_pending_interrupt)
{
    disturb();
    struct dev_writer w = save();
    struct dev_reader r = {.buf = w.buf, .len = w.len};
    board_pc_reset(b);
    cr_assert(!intr.level);
    cr_assert_eq(board_pc_restore(b, &r), 0);
    cr_assert_eq(r.pos, w.len);
    cr_assert(intr.level);
    cr_assert_eq(ack(), 0x20);
    cr_assert_eq(in(0x3fb, 1), 0x83);
    dev_writer_free(&w);
}

Test(board, truncated_state_is_refused)
{
    struct dev_writer w = save();
    for (size_t n = 0; n < w.len; n += 7) {
        struct dev_reader r = {.buf = w.buf, .len = n};
        cr_assert_neq(board_pc_restore(b, &r), 0, "%zu of %zu", n, w.len);
    }
    dev_writer_free(&w);
}

/* ---- hostile guest ---- */

static void hammer_msr(struct rng *r)
{
    static const uint32_t first[] = {0x1b, 0x6e0, 0x800, 0x11, 0x12, 0x4b564d00};
    uint32_t msr = first[rng_below(r, 6)] + (uint32_t)rng_below(r, 64);
    uint64_t v = rng_next(r) >> rng_below(r, 64);
    if (msr == 0x1b) /* moving the page is tried, switching the APIC off would leave nothing to hammer */
        v |= APIC_BASE_EN;
    if (rng_below(r, 2))
        board_pc_vm_ops.wrmsr(b, msr, v);
    else
        board_pc_vm_ops.rdmsr(b, msr, &v);
}

Test(board, random_accesses_leave_it_working, .timeout = 100)
{
    static const uint64_t pages[] = {LAPIC_DEFAULT_BASE, IOAPIC_DEFAULT_BASE, 0xfed00000, 0x80000000, 0xa0000};
    struct rng r;
    uint64_t seed = rng_pick_seed();
    cr_log_info("seed %llu", (unsigned long long)seed);
    rng_init(&r, seed);
    for (unsigned i = 0; i < 200000; i++) {
        uint32_t v = (uint32_t)rng_next(&r);
        uint8_t data[64];
        unsigned what = (unsigned)rng_below(&r, 8), size = 1u << rng_below(&r, 3);
        if (what < 4)
            board_pc_vm_ops.pio(b, (uint16_t)rng_below(&r, what ? 0x1000 : 0x10000), size, rng_below(&r, 2), &v);
        else if (what < 6) {
            memset(data, (int)v, sizeof data);
            unsigned n = 1 + (unsigned)rng_below(&r, 64);
            board_pc_vm_ops.mmio(b, pages[rng_below(&r, 5)] + rng_below(&r, 0x1000 - 64), n, rng_below(&r, 2), data);
        } else if (what == 6)
            hammer_msr(&r);
        else
            vtime_test_advance(loop, rng_below(&r, 20000));
        if (intr.level && rng_below(&r, 4) == 0)
            ack();
    }
    board_pc_reset(b);
    cr_assert_eq(board_pc_firmware_setup(b), 0);
    set_up_pics(0xfe);
    start_pit(1193);
    vtime_test_advance(loop, 1100000);
    cr_assert(intr.level, "seed %llu", (unsigned long long)seed);
    cr_assert_eq(ack(), 0x20, "seed %llu", (unsigned long long)seed);
}
