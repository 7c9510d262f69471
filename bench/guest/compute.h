/* bench/guest/compute.h - the computing work that is timed natively and in a bare guest.
 *
 * compute.c is compiled once, position independent and freestanding; the native runner and the guest link the same object,
 * so all engines run the same bytes. Each piece of work is deterministic: its result must be the same everywhere.
 */
#ifndef BENCH_GUEST_COMPUTE_H
#define BENCH_GUEST_COMPUTE_H
#include <stdint.h>

#define WORK_AREA_BYTES (48u << 20) /* memory that compute_init() is given */

#define WORK_SCALES 1u /* cost is proportional to n: samples may have another n than the run that gives the result */
#define WORK_LONG 2u   /* one sample only, which the runner times by the CPU time it took */

struct work {
    const char *name;
    uint64_t (*run)(uint64_t n);
    void (*prepare)(uint64_t n); /* before every run, not timed; may be null */
    uint64_t n;                  /* operations of the run that gives the result */
    unsigned flags;
};
extern const struct work compute_works[];

/* area: WORK_AREA_BYTES, page aligned. To be called where the work will run (see drive.c on addresses). */
uint64_t compute_init(uint64_t area);

/* gencode.c: writes about n instructions in many small functions to "code" and returns the number of those that one call
 * of the code executes, the calls that lead there included. *bytes: how much was written. seed picks one of many codes. */
uint64_t gencode(uint8_t *code, uint64_t n, uint32_t seed, uint64_t *bytes);
/* Calls generated code with its data area in rbx; returns what it computed. */
uint64_t gencode_call(const uint8_t *code, uint64_t *data);
#endif
