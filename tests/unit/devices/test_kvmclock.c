/* kvm-clock, steal time and the hypervisor CPUID leaves, by the guest ABI; and the calibration of the host's TSC. */
#include "tests/unit/devices/dev_ram.h"
#include "devices/kvmclock.h"
#include "devices/lapic.h"
#include "devices/tsc.h"
#include "devices/vtime.h"
#include <stdlib.h>
#include <time.h>
#include <x86intrin.h>

static struct evloop *loop;
static struct dev_ram ram;
static struct guest_tsc tsc;
static struct kvmclock k;
static uint64_t run_delay;
static uint32_t odd_seen; /* version words that were odd when the body was written */

static uint64_t fake_tsc(void *opaque) { return (uint64_t)((unsigned __int128)vtime_now(loop) * tsc.hz / 1000000000); }
static uint64_t fake_delay(void *opaque, unsigned cpu) { return run_delay; }
static int watching_write(void *opaque, uint64_t gpa, const void *buf, size_t n)
{
    if (n > 4)
        odd_seen += ram.b[gpa - 4] & 1;
    return dev_ram_write(opaque, gpa, buf, n);
}

static void start(uint64_t hz)
{
    struct evloop_config ec = {.test_clock = true};
    cr_assert_eq(evloop_create(&loop, &ec), 0);
    tsc = (struct guest_tsc){.hz = hz, .read_host = fake_tsc};
    struct kvmclock_cfg c = {
        .cpus = 1, .mem = dev_ram_mem(&ram), .loop = loop, .tsc = &tsc, .pv_eoi = true, .run_delay_ns = fake_delay};
    c.mem.write = watching_write;
    kvmclock_init(&k, &c);
}

struct page {
    uint32_t version, pad;
    uint64_t tsc, ns;
    uint32_t mul;
    int8_t shift;
    uint8_t flags, pad2[2];
};
/* What a guest computes, as the ABI says. */
static uint64_t guest_ns(uint64_t gpa, uint64_t now_tsc)
{
    struct page p;
    memcpy(&p, ram.b + gpa, sizeof(p));
    cr_assert_not(p.version & 1);
    uint64_t delta = now_tsc - p.tsc;
    delta = p.shift < 0 ? delta >> -p.shift : delta << p.shift;
    return p.ns + (uint64_t)(((unsigned __int128)delta * p.mul) >> 32);
}

Test(kvmclock, cpuid_leaves)
{
    uint32_t o[4];
    start(2300000000);
    cr_assert(kvmclock_cpuid(&k, 0x40000000, o));
    cr_assert_eq(o[0], 0x40000010);
    cr_assert_eq(memcmp(&o[1], "KVMKVMKVM\0\0\0", 12), 0);
    cr_assert(kvmclock_cpuid(&k, 0x40000001, o));
    cr_assert_eq(o[0], 0x0100006b);
    cr_assert(kvmclock_cpuid(&k, 0x40000010, o));
    cr_assert_eq(o[0], 2300000);
    cr_assert_eq(o[1], LAPIC_BUS_HZ / 1000);
    cr_assert(kvmclock_cpuid(&k, 0x40000002, o));
    cr_assert_eq(o[0] | o[1] | o[2] | o[3], 0);
    cr_assert_not(kvmclock_cpuid(&k, 0x40000100, o));
    cr_assert_not(kvmclock_cpuid(&k, 1, o));
}

Test(kvmclock, scale_is_exact_over_a_month_for_every_frequency)
{
    static const uint64_t hz[] = {1000000,    999999999,  1000000000, 1000000001, 1499999000,
                                  2299998000, 2500000000, 3999999999, 5000000000, 63999999999};
    for (unsigned i = 0; i < sizeof(hz) / sizeof(hz[0]); i++) {
        start(hz[i]);
        cr_assert_eq(kvmclock_wrmsr(&k, 0, MSR_KVM_SYSTEM_TIME, 0x1001), 0);
        const uint64_t month = 30ull * 86400 * 1000000000;
        vtime_test_starve(loop, month);
        int64_t off = (int64_t)(guest_ns(0x1000, fake_tsc(NULL)) - month);
        cr_assert_lt(llabs(off), 2000000, "%llu Hz: %lld ns off", (unsigned long long)hz[i], (long long)off);
        cr_assert_lt(llabs((int64_t)(kvmclock_now(&k) - guest_ns(0x1000, fake_tsc(NULL)))), 3);
    }
}

Test(kvmclock, page_is_published_with_an_odd_version_and_stable_flag)
{
    start(2000000000);
    ram.b[0x1000] = 7; /* left there by the guest */
    vtime_test_starve(loop, 5000000000);
    cr_assert_eq(kvmclock_wrmsr(&k, 0, MSR_KVM_SYSTEM_TIME_OLD, 0x1001), 0);
    struct page p;
    memcpy(&p, ram.b + 0x1000, sizeof(p));
    cr_assert_eq(odd_seen, 1);
    cr_assert_eq(p.version, 8);
    cr_assert_eq(p.flags, 1);
    cr_assert_eq(guest_ns(0x1000, fake_tsc(NULL)), 5000000000);
    uint64_t v;
    cr_assert_eq(kvmclock_rdmsr(&k, 0, MSR_KVM_SYSTEM_TIME, &v), 0);
    cr_assert_eq(v, 0x1001);
}

Test(kvmclock, disabling_stops_the_writes)
{
    start(2000000000);
    kvmclock_wrmsr(&k, 0, MSR_KVM_SYSTEM_TIME, 0x1001);
    unsigned writes = ram.writes;
    kvmclock_wrmsr(&k, 0, MSR_KVM_SYSTEM_TIME, 0x1000);
    kvmclock_pause(&k);
    kvmclock_resume(&k, true);
    cr_assert_eq(ram.writes, writes);
}

Test(kvmclock, pages_outside_ram_are_survived)
{
    start(2000000000);
    cr_assert_eq(kvmclock_wrmsr(&k, 0, MSR_KVM_SYSTEM_TIME, UINT64_MAX), 0);
    cr_assert_eq(kvmclock_wrmsr(&k, 0, MSR_KVM_SYSTEM_TIME, (RAM_BYTES - 8) | 1), 0);
    cr_assert_eq(kvmclock_wrmsr(&k, 0, MSR_KVM_WALL_CLOCK, UINT64_MAX), 0);
    cr_assert_eq(kvmclock_wrmsr(&k, 0, MSR_KVM_STEAL_TIME, (1ull << 50) | 1), 0);
    uint64_t v;
    kvmclock_rdmsr(&k, 0, MSR_KVM_SYSTEM_TIME, &v);
    cr_assert_eq(v, 0);
}

Test(kvmclock, wall_clock_plus_system_time_is_now)
{
    start(2000000000);
    vtime_test_set_wall(loop, 1700000000123456789);
    vtime_test_starve(loop, 7000000000);
    kvmclock_wrmsr(&k, 0, MSR_KVM_SYSTEM_TIME, 0x1001);
    kvmclock_wrmsr(&k, 0, MSR_KVM_WALL_CLOCK_OLD, 0x2000);
    uint32_t w[3];
    memcpy(w, ram.b + 0x2000, 12);
    uint64_t now = w[1] * 1000000000ull + w[2] + guest_ns(0x1000, fake_tsc(NULL));
    cr_assert_eq((int64_t)now, vtime_wall_offset(loop) + (int64_t)vtime_now(loop));
    cr_assert_eq(w[0] & 1, 0);
    cr_assert_neq(w[0], 0);
}

Test(kvmclock, pause_stops_the_clock_while_the_tsc_runs_on)
{
    start(2000000000);
    kvmclock_wrmsr(&k, 0, MSR_KVM_SYSTEM_TIME, 0x1001);
    vtime_test_starve(loop, 1000000000);
    kvmclock_pause(&k);
    tsc.offset += 50000000000; /* 25 s of TSC while virtual time stands */
    cr_assert_eq(kvmclock_now(&k), 1000000000);
    kvmclock_resume(&k, true);
    cr_assert_eq(guest_ns(0x1000, fake_tsc(NULL) + tsc.offset), 1000000000);
    struct page p;
    memcpy(&p, ram.b + 0x1000, sizeof(p));
    cr_assert_eq(p.flags, 3);
}

Test(kvmclock, clock_never_goes_backwards_over_a_pause)
{
    start(2000000000);
    vtime_test_starve(loop, 1000000000);
    kvmclock_pause(&k);
    k.paused_ns += 500; /* the TSC had run a little faster than the clock */
    kvmclock_resume(&k, false);
    cr_assert_geq(kvmclock_now(&k), 1000000500);
}

Test(kvmclock, steal_time_adds_the_run_delay)
{
    uint64_t steal;
    start(2000000000);
    run_delay = 1000;
    cr_assert_eq(kvmclock_wrmsr(&k, 0, MSR_KVM_STEAL_TIME, 0x3003), -1);
    cr_assert_eq(kvmclock_wrmsr(&k, 0, MSR_KVM_STEAL_TIME, 0x3001), 0);
    run_delay = 6000;
    kvmclock_update_steal(&k, 0); /* too soon */
    memcpy(&steal, ram.b + 0x3000, 8);
    cr_assert_eq(steal, 0);
    vtime_test_starve(loop, 2000000);
    kvmclock_update_steal(&k, 0);
    memcpy(&steal, ram.b + 0x3000, 8);
    cr_assert_eq(steal, 5000);
    cr_assert_eq(ram.b[0x3008] & 1, 0);
}

Test(kvmclock, without_a_source_steal_time_is_not_there)
{
    uint64_t v;
    uint32_t o[4];
    start(2000000000);
    struct kvmclock_cfg c = k.cfg;
    c.run_delay_ns = NULL;
    kvmclock_init(&k, &c);
    kvmclock_cpuid(&k, 0x40000001, o);
    cr_assert_not(o[0] & 0x20);
    cr_assert_eq(kvmclock_rdmsr(&k, 0, MSR_KVM_STEAL_TIME, &v), -1);
    cr_assert_eq(kvmclock_wrmsr(&k, 0, MSR_KVM_STEAL_TIME, 0x3001), -1);
    cr_assert_eq(kvmclock_wrmsr(&k, 0, 0x4b564d02, 0), 1);
}

Test(kvmclock, restored_clock_continues_on_another_tsc)
{
    start(2000000000);
    kvmclock_wrmsr(&k, 0, MSR_KVM_SYSTEM_TIME, 0x1001);
    vtime_test_starve(loop, 3000000000);
    const struct dev d = {&kvmclock_dev_ops, &k, 0};
    dev_refuses_truncation(&d);
    struct dev_writer w = {0};
    cr_assert_eq(dev_save(&w, &d), 0);
    start(3000000000); /* the new host; its clock was set */
    vtime_set(loop, 3000000000);
    struct dev_reader r = {.buf = w.buf, .len = w.len};
    cr_assert_eq(dev_restore(&r, &d), 0);
    kvmclock_resume(&k, true);
    cr_assert_eq(guest_ns(0x1000, fake_tsc(NULL)), 3000000000);
    vtime_test_starve(loop, 1000000000);
    cr_assert_lt(llabs((int64_t)(guest_ns(0x1000, fake_tsc(NULL)) - 4000000000)), 3);
    dev_writer_free(&w);
}

Test(tsc, calibration_agrees_with_the_clock_to_a_thousandth)
{
    struct tsc_calibration c;
    struct timespec a, b, nap = {.tv_nsec = 100000000};
    tsc_calibrate(&c);
    clock_gettime(CLOCK_MONOTONIC, &a);
    uint64_t t0 = __rdtsc();
    nanosleep(&nap, NULL);
    uint64_t t1 = __rdtsc();
    clock_gettime(CLOCK_MONOTONIC, &b);
    double ns = (double)(b.tv_sec - a.tv_sec) * 1e9 + (double)(b.tv_nsec - a.tv_nsec);
    double by_tsc = (double)(t1 - t0) * 1e9 / (double)c.hz;
    cr_assert(by_tsc > ns * 0.999 && by_tsc < ns * 1.001, "%.0f ns by the TSC, %.0f by the clock", by_tsc, ns);
}

Test(tsc, conversions_round_up_and_saturate)
{
    cr_assert_eq(tsc_ticks_to_ns(1, 3000000000), 1);
    cr_assert_eq(tsc_ticks_to_ns(3000000000, 3000000000), 1000000000);
    cr_assert_eq(tsc_ticks_to_ns(UINT64_MAX, 1000000), UINT64_MAX);
    cr_assert_eq(tsc_ns_to_ticks(1000000000, 2299998000), 2299998000);
}

Test(kvmclock, host_run_delay_is_readable_where_proc_is)
{
    int fd = host_run_delay_open();
    cr_assert_geq(fd, 0);
    uint64_t a = host_run_delay_read(fd);
    cr_assert_leq(a, host_run_delay_read(fd));
}
