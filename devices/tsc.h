/* devices/tsc.h - the guest's time-stamp counter as devices see it, and the host TSC's frequency.
 *
 * Role:     guest TSC = host TSC + offset. The board owns one struct guest_tsc per vCPU and keeps the offset equal to the
 *           engine's (WRMSR to TSC, TSC_ADJUST, restored snapshot); after a change it calls lapic_time_changed() and
 *           kvmclock_time_changed().
 */
#ifndef DEVICES_TSC_H
#define DEVICES_TSC_H
#include <stdint.h>

struct guest_tsc {
    uint64_t hz; /* from tsc_calibrate; never 0 */
    uint64_t offset;
    uint64_t (*read_host)(void *opaque); /* NULL = RDTSC; tests supply a clock of their own */
    void *opaque;
};
uint64_t guest_tsc_read(const struct guest_tsc *t);
/* Ticks to ns, rounded up, saturating; hz must not be 0. */
uint64_t tsc_ticks_to_ns(uint64_t ticks, uint64_t hz);
uint64_t tsc_ns_to_ticks(uint64_t ns, uint64_t hz);

enum tsc_source { TSC_FROM_HYPERVISOR_LEAF, TSC_FROM_CPUID_15, TSC_MEASURED };
struct tsc_calibration {
    uint64_t hz;
    enum tsc_source source;
    uint32_t error_ppm; /* of the measurement, estimated from the spread of its reads */
};
/* The host TSC's frequency: CPUID leaf 0x40000010 (hypervisors that have it) or 0x15 with a crystal frequency, if a 2 ms look
 * at CLOCK_MONOTONIC_RAW does not contradict it by more than 0.5 %; else measured over 50 ms (longer while the host disturbs it). */
void tsc_calibrate(struct tsc_calibration *out);
#endif
