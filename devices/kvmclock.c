/* devices/kvmclock.c - see kvmclock.h. */
#include "devices/kvmclock.h"
#include "base/check.h"
#include "base/err.h"
#include "base/log.h"
#include "devices/lapic.h"
#include "devices/tsc.h"
#include "devices/vtime.h"
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FEATURE_CLOCKSOURCE (1u << 0)
#define FEATURE_NOP_IO_DELAY (1u << 1)
#define FEATURE_CLOCKSOURCE2 (1u << 3)
#define FEATURE_STEAL_TIME (1u << 5)
#define FEATURE_PV_EOI (1u << 6)
#define FEATURE_CLOCKSOURCE_STABLE (1u << 24)
#define PAGE_TSC_STABLE 1u
#define PAGE_GUEST_STOPPED 2u
#define MSR_ENABLE 1ull
#define STEAL_RESERVED 0x3eull
#define STEAL_PERIOD_NS 1000000ull

struct pvclock_page {
    uint32_t version; /* odd while being changed */
    uint32_t pad0;
    uint64_t tsc_timestamp, system_time;
    uint32_t tsc_to_system_mul;
    int8_t tsc_shift;
    uint8_t flags, pad[2];
};
_Static_assert(sizeof(struct pvclock_page) == 32, "guest ABI");
struct steal_page {
    uint64_t steal;
    uint32_t version, flags;
    uint8_t preempted, pad8[3];
    uint32_t pad[11];
};
_Static_assert(sizeof(struct steal_page) == 64, "guest ABI");

/* mul and shift with mul in [2^31, 2^32): the relative error is below 2^-32. */
static void compute_scale(struct kvmclock *k, uint64_t hz)
{
    uint64_t num = NS_PER_SEC, den = hz;
    int shift = 0;
    while (num >= den) {
        den <<= 1;
        shift++;
    }
    while (2 * num < den) {
        num <<= 1;
        shift--;
    }
    unsigned __int128 q = (((unsigned __int128)num << 33) / den + 1) / 2;
    k->mul = q > UINT32_MAX ? UINT32_MAX : (uint32_t)q;
    k->shift = (int8_t)shift;
}

static uint64_t scale(const struct kvmclock *k, uint64_t ticks)
{
    unsigned __int128 t = ticks;
    t = k->shift < 0 ? t >> -k->shift : t << k->shift;
    return (uint64_t)((t * k->mul) >> 32);
}

uint64_t kvmclock_now(const struct kvmclock *k)
{
    if (k->paused)
        return k->paused_ns;
    return k->ref_ns + scale(k, guest_tsc_read(k->cfg.tsc) - k->ref_tsc);
}

void kvmclock_init(struct kvmclock *k, const struct kvmclock_cfg *cfg)
{
    CHECK(cfg->cpus >= 1 && cfg->cpus <= KVMCLOCK_MAX_CPUS && cfg->tsc->hz);
    memset(k, 0, sizeof(*k));
    k->cfg = *cfg;
    compute_scale(k, cfg->tsc->hz);
    k->ref_tsc = guest_tsc_read(cfg->tsc);
    k->ref_ns = vtime_now(cfg->loop);
}

bool kvmclock_cpuid(const struct kvmclock *k, uint32_t leaf, uint32_t out[4])
{
    if (leaf < KVM_CPUID_BASE || leaf > KVM_CPUID_BASE + 0xff)
        return false;
    memset(out, 0, 4 * sizeof(out[0]));
    if (leaf == KVM_CPUID_BASE) {
        out[0] = KVM_CPUID_LAST;
        memcpy(&out[1], "KVMKVMKVM\0\0\0", 12);
    } else if (leaf == KVM_CPUID_BASE + 1) {
        out[0] = FEATURE_CLOCKSOURCE | FEATURE_NOP_IO_DELAY | FEATURE_CLOCKSOURCE2 | FEATURE_CLOCKSOURCE_STABLE;
        out[0] |= k->cfg.run_delay_ns ? FEATURE_STEAL_TIME : 0;
        out[0] |= k->cfg.pv_eoi ? FEATURE_PV_EOI : 0;
    } else if (leaf == KVM_CPUID_BASE + 0x10) {
        out[0] = (uint32_t)((k->cfg.tsc->hz + 500) / 1000); /* kHz */
        out[1] = (uint32_t)(LAPIC_BUS_HZ / 1000);
    }
    return true;
}

/* Sequence-locked update of a page whose first word is the version: odd, body, even. False: not in RAM. */
static bool publish(struct kvmclock *k, uint64_t gpa, const void *body, size_t bytes)
{
    uint32_t v;
    if (gmem_read(&k->cfg.mem, gpa, &v, sizeof(v)))
        return false;
    v = (v & ~1u) + 1;
    bool ok = !gmem_write(&k->cfg.mem, gpa, &v, sizeof(v));
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    ok = ok && !gmem_write(&k->cfg.mem, gpa + sizeof(v), body, bytes);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    v++;
    return ok && !gmem_write(&k->cfg.mem, gpa, &v, sizeof(v));
}

static void write_system_page(struct kvmclock *k, unsigned cpu, uint8_t extra_flags)
{
    uint64_t gpa = k->s.system[cpu] & ~MSR_ENABLE;
    struct pvclock_page p = {
        .tsc_timestamp = k->ref_tsc,
        .system_time = k->ref_ns,
        .tsc_to_system_mul = k->mul,
        .tsc_shift = k->shift,
        .flags = PAGE_TSC_STABLE | extra_flags,
    };
    if (!(k->s.system[cpu] & MSR_ENABLE))
        return;
    if (!publish(k, gpa, &p.pad0, sizeof(p) - offsetof(struct pvclock_page, pad0))) {
        LOGF(GUEST_ERRORS, "kvm-clock page at %#llx is not in RAM", (unsigned long long)gpa);
        k->s.system[cpu] = 0;
    }
}

/* Time of day at which the guest's clock was 0, so that wall + system time is now. */
static void write_wall_page(struct kvmclock *k)
{
    int64_t wall = vtime_wall_offset(k->cfg.loop) + (int64_t)(vtime_now(k->cfg.loop) - kvmclock_now(k));
    uint64_t ns = wall < 0 ? 0 : (uint64_t)wall;
    uint32_t body[2] = {(uint32_t)(ns / NS_PER_SEC), (uint32_t)(ns % NS_PER_SEC)};
    if (!publish(k, k->s.wall, body, sizeof(body)))
        LOGF(GUEST_ERRORS, "kvm wall clock at %#llx is not in RAM", (unsigned long long)k->s.wall);
}

static int write_steal_msr(struct kvmclock *k, unsigned cpu, uint64_t val)
{
    if (!k->cfg.run_delay_ns || val & STEAL_RESERVED)
        return -1;
    k->s.steal[cpu] = val;
    k->steal_next[cpu] = 0;
    if (val & MSR_ENABLE) {
        k->steal_base[cpu] = k->cfg.run_delay_ns(k->cfg.opaque, cpu);
        kvmclock_update_steal(k, cpu);
    }
    return 0;
}

void kvmclock_update_steal(struct kvmclock *k, unsigned cpu)
{
    struct steal_page p;
    uint64_t gpa = k->s.steal[cpu] & ~(MSR_ENABLE | STEAL_RESERVED), now;
    if (!(k->s.steal[cpu] & MSR_ENABLE) || (now = vtime_now(k->cfg.loop)) < k->steal_next[cpu])
        return;
    k->steal_next[cpu] = now + STEAL_PERIOD_NS;
    if (gmem_read(&k->cfg.mem, gpa, &p, sizeof(p))) {
        LOGF(GUEST_ERRORS, "steal time page at %#llx is not in RAM", (unsigned long long)gpa);
        k->s.steal[cpu] = 0;
        return;
    }
    uint64_t delay = k->cfg.run_delay_ns(k->cfg.opaque, cpu);
    uint64_t steal = p.steal + (delay - k->steal_base[cpu]);
    uint32_t odd = (p.version & ~1u) + 1, even = odd + 1;
    const struct gmem *m = &k->cfg.mem;
    k->steal_base[cpu] = delay;
    p.preempted = 0;
    int bad = gmem_write(m, gpa + offsetof(struct steal_page, version), &odd, 4);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    bad |= gmem_write(m, gpa, &steal, 8);
    bad |= gmem_write(m, gpa + offsetof(struct steal_page, preempted), &p.preempted, 1);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    bad |= gmem_write(m, gpa + offsetof(struct steal_page, version), &even, 4);
    if (bad)
        k->s.steal[cpu] = 0;
}

int kvmclock_rdmsr(struct kvmclock *k, unsigned cpu, uint32_t msr, uint64_t *val)
{
    CHECK(cpu < k->cfg.cpus);
    switch (msr) {
    case MSR_KVM_WALL_CLOCK_OLD:
    case MSR_KVM_WALL_CLOCK: *val = k->s.wall; return 0;
    case MSR_KVM_SYSTEM_TIME_OLD:
    case MSR_KVM_SYSTEM_TIME: *val = k->s.system[cpu]; return 0;
    case MSR_KVM_STEAL_TIME:
        if (!k->cfg.run_delay_ns)
            return -1;
        *val = k->s.steal[cpu];
        return 0;
    default: return 1;
    }
}

int kvmclock_wrmsr(struct kvmclock *k, unsigned cpu, uint32_t msr, uint64_t val)
{
    CHECK(cpu < k->cfg.cpus);
    switch (msr) {
    case MSR_KVM_WALL_CLOCK_OLD:
    case MSR_KVM_WALL_CLOCK:
        k->s.wall = val;
        write_wall_page(k);
        return 0;
    case MSR_KVM_SYSTEM_TIME_OLD:
    case MSR_KVM_SYSTEM_TIME:
        k->s.system[cpu] = val;
        write_system_page(k, cpu, 0);
        return 0;
    case MSR_KVM_STEAL_TIME: return write_steal_msr(k, cpu, val);
    default: return 1;
    }
}

void kvmclock_pause(struct kvmclock *k)
{
    k->paused_ns = kvmclock_now(k);
    k->paused = true;
}

void kvmclock_resume(struct kvmclock *k, bool told)
{
    if (!k->paused)
        return;
    /* Never backwards: the TSC's rate and CLOCK_MONOTONIC's differ by parts in a million, which adds up over days. */
    uint64_t now = vtime_now(k->cfg.loop);
    k->ref_ns = now > k->paused_ns ? now : k->paused_ns;
    k->ref_tsc = guest_tsc_read(k->cfg.tsc);
    k->paused = false;
    for (unsigned i = 0; i < k->cfg.cpus; i++) {
        write_system_page(k, i, told ? PAGE_GUEST_STOPPED : 0);
        if (k->cfg.run_delay_ns)
            k->steal_base[i] = k->cfg.run_delay_ns(k->cfg.opaque, i);
        k->steal_next[i] = 0;
    }
}

int host_run_delay_open(void)
{
    int fd = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
    return fd < 0 ? -RD_E_HOST : fd;
}

uint64_t host_run_delay_read(int fd)
{
    char text[96];
    ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
    if (n <= 0)
        return 0;
    text[n] = 0;
    char *second = strchr(text, ' '); /* "ns-on-cpu ns-runnable slices" */
    return second ? strtoull(second + 1, NULL, 10) : 0;
}

/* -- saved state -- */
static void kvmclock_reset(void *dev)
{
    struct kvmclock *k = dev;
    memset(&k->s, 0, sizeof(k->s));
    memset(k->steal_next, 0, sizeof(k->steal_next));
}

static void kvmclock_save(const void *dev, struct dev_writer *w)
{
    const struct kvmclock *k = dev;
    dev_put(w, k->cfg.cpus, 4);
    dev_put(w, kvmclock_now(k), 8);
    dev_put(w, k->s.wall, 8);
    for (unsigned i = 0; i < k->cfg.cpus; i++) {
        dev_put(w, k->s.system[i], 8);
        dev_put(w, k->s.steal[i], 8);
    }
}

static int kvmclock_restore(void *dev, struct dev_reader *r, uint16_t version)
{
    struct kvmclock *k = dev;
    struct kvmclock in = *k;
    if (dev_get(r, 4) != k->cfg.cpus)
        return -RD_E_FORMAT;
    in.paused_ns = dev_get(r, 8);
    in.s.wall = dev_get(r, 8);
    for (unsigned i = 0; i < k->cfg.cpus; i++) {
        in.s.system[i] = dev_get(r, 8);
        in.s.steal[i] = dev_get(r, 8);
        if (in.s.steal[i] & STEAL_RESERVED || (in.s.steal[i] && !k->cfg.run_delay_ns))
            return -RD_E_FORMAT;
    }
    if (r->failed)
        return -RD_E_FORMAT;
    in.paused = true;
    *k = in;
    return 0;
}

const struct dev_ops kvmclock_dev_ops = {
    .type = "kvmclock",
    .version = 1,
    .reset = kvmclock_reset,
    .save = kvmclock_save,
    .restore = kvmclock_restore,
};
