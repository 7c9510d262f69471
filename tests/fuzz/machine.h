/* tests/fuzz/machine.h - any bytes are a machine: mode, control registers, segments, tables, memory, code, events.
 *
 * Role:   builds a fresh VM from a fuzz input, runs it for a bounded time, and checks what must hold whatever the guest does:
 *         the engine returns, with an exit it documents, in a state that it accepts again. No crash, no hang.
 * Input:  read front to back; an input that ends early reads as zeros. The format is free to change, corpora are not kept.
 */
#ifndef TESTS_FUZZ_MACHINE_H
#define TESTS_FUZZ_MACHINE_H
#include "monitor/engine.h"

/* Kinds of machine, the first byte of the input modulo FUZZ_KINDS. */
enum {
    FUZZ_REAL,
    FUZZ_PM16,
    FUZZ_PM32,
    FUZZ_PAGED,
    FUZZ_PAE,
    FUZZ_VM86,
    FUZZ_LONG,
    FUZZ_COMPAT32,
    FUZZ_COMPAT16,
    FUZZ_KINDS
};

/* A small translation cache: quicker to make, and evicted now and then. */
#define FUZZ_TC_BYTES (1u << 20)

struct fuzz_result {
    unsigned exits[16]; /* how often each exit came */
    unsigned total;
    bool finished;       /* ended by itself (halt, shutdown), not by the clock */
    struct cpu cpu;      /* final state */
    uint64_t memory;     /* hash of guest memory */
    bool tables_changed; /* page tables, in more than A and D: what the TLB still held decides what came after */
    char broken[160];    /* what did not hold, "" = all well */
};
/* Runs the machine. ms: how long the guest may run; settings: NULL or the engine's. */
void fuzz_run(const uint8_t *in, size_t n, const struct vm_config *settings, unsigned ms, struct fuzz_result *r);
#endif
