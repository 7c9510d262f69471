/* devices/kvmclock.h - the paravirtual clock of KVM guests: CPUID signature, kvm-clock, wall clock, steal time.
 *
 * Role:     lets stock kernels skip every calibration. The guest computes ns = base + (tsc - base_tsc) * mul >> shift from a
 *           page that this writes; one (tsc, ns) reference serves all vCPUs and all updates, so the clock is monotonic across
 *           CPUs and TSC_STABLE may be promised. The reference changes only in kvmclock_resume. PV EOI's MSR is the LAPIC's.
 * Time:     runs at the rate of the host's TSC as calibrated, starting from vtime_now(); stands still between pause and resume.
 * Threads:  machine thread.
 * Sources:  Linux Documentation/virt/kvm/x86/{msr,cpuid}.rst (the ABI: formats and numbers only).
 */
#ifndef DEVICES_KVMCLOCK_H
#define DEVICES_KVMCLOCK_H
#include "devices/dev.h"
#include "devices/gmem.h"
#include <stdbool.h>
#include <stdint.h>

struct evloop;
struct guest_tsc;
#define MSR_KVM_WALL_CLOCK_OLD 0x11u
#define MSR_KVM_SYSTEM_TIME_OLD 0x12u
#define MSR_KVM_WALL_CLOCK 0x4b564d00u
#define MSR_KVM_SYSTEM_TIME 0x4b564d01u
#define MSR_KVM_STEAL_TIME 0x4b564d03u
#define KVM_CPUID_BASE 0x40000000u
#define KVM_CPUID_LAST 0x40000010u
#define KVMCLOCK_MAX_CPUS 64

struct kvmclock_cfg {
    unsigned cpus;
    struct gmem mem;
    struct evloop *loop;
    const struct guest_tsc *tsc; /* all vCPUs see the same TSC */
    bool pv_eoi;                 /* the LAPICs offer it */
    /* ns that the vCPU's thread was runnable but not running, or NULL: then steal time is not offered */
    uint64_t (*run_delay_ns)(void *opaque, unsigned cpu);
    void *opaque;
};
struct kvmclock {
    struct kvmclock_cfg cfg;
    uint32_t mul; /* ns = (ticks shifted left by shift) * mul >> 32 */
    int8_t shift;
    uint64_t ref_tsc, ref_ns;
    bool paused;
    uint64_t paused_ns;
    uint64_t steal_base[KVMCLOCK_MAX_CPUS], steal_next[KVMCLOCK_MAX_CPUS];
    struct {
        uint64_t wall, system[KVMCLOCK_MAX_CPUS], steal[KVMCLOCK_MAX_CPUS];
    } s;
};
extern const struct dev_ops kvmclock_dev_ops; /* restore leaves the clock paused: call kvmclock_resume */

void kvmclock_init(struct kvmclock *k, const struct kvmclock_cfg *cfg);
/* Answers leaves 0x40000000-0x400000ff; false for others. out = eax, ebx, ecx, edx. */
bool kvmclock_cpuid(const struct kvmclock *k, uint32_t leaf, uint32_t out[4]);
/* 0 = done, 1 = not mine, -1 = #GP(0) (engine.h's convention). */
int kvmclock_rdmsr(struct kvmclock *k, unsigned cpu, uint32_t msr, uint64_t *val);
int kvmclock_wrmsr(struct kvmclock *k, unsigned cpu, uint32_t msr, uint64_t val);
/* The guest's clock now, in ns. */
uint64_t kvmclock_now(const struct kvmclock *k);
/* Around every vtime_pause/vtime_resume and every change of the guest TSC's offset: the clock does not jump, and guests are told
 * that they were stopped (so that watchdogs stay quiet) when told is set. */
void kvmclock_pause(struct kvmclock *k);
void kvmclock_resume(struct kvmclock *k, bool told);
/* Publishes steal time; cheap, at most once a millisecond. The run loop calls it when it has left the guest anyway. */
void kvmclock_update_steal(struct kvmclock *k, unsigned cpu);

/* Run delay of the calling thread from /proc: open once on the vCPU's thread (fd or -RD_E_HOST), then read. */
int host_run_delay_open(void);
uint64_t host_run_delay_read(int fd);
#endif
