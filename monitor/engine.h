/* monitor/engine.h - the embedding API of the engine: create a VM, give it memory, run it until it needs the outside.
 *
 * Role:     kvm_run-shaped. The engine knows no devices: port I/O, MMIO, interrupt acknowledge and device MSRs go to the
 *           callbacks in struct vm_ops; a callback may decline (return VM_IO_EXIT), then vcpu_run returns with the exit and
 *           the embedder completes it before it calls vcpu_run again.
 * Owner:    vm_create/vm_destroy. One thread runs a vCPU; vcpu_kick may be called from any thread or signal handler.
 * Errors:   0 or -RD_E_*.
 */
#ifndef MONITOR_ENGINE_H
#define MONITOR_ENGINE_H
#include "arch/cpu.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct vm;
struct vcpu;
struct gpmem;
struct stats;

enum { VM_IO_DONE = 0, VM_IO_EXIT = 1 };
/* All callbacks run on the vCPU's thread, outside generated code, FPU free for use (but see nofpu). Any may be NULL. */
struct vm_ops {
    int (*pio)(void *opaque, uint16_t port, unsigned size, bool is_write, uint32_t *val);
    int (*mmio)(void *opaque, uint64_t gpa, unsigned size, bool is_write,
                uint8_t *data);    /* size 1..64, within a page */
    int (*intr_ack)(void *opaque); /* vector of the pending interrupt, or -1 if it has gone (spurious) */
    int (*rdmsr)(void *opaque, uint32_t msr,
                 uint64_t *val); /* MSRs of devices (APIC base, x2APIC, TSC deadline, kvm-clock) ... */
    int (*wrmsr)(void *opaque, uint32_t msr, uint64_t val); /* ... 0 = done, 1 = not mine, -1 = raise #GP(0) */
    int (*hypercall)(void *opaque, uint64_t nr, const uint64_t args[4], uint64_t *ret); /* 0 = done, 1 = unknown */
    uint64_t (*read_cr8)(void *opaque);
    void (*write_cr8)(void *opaque, uint64_t val);
    uint8_t (*apic_id)(void *opaque); /* for CPUID */
    /* pio, mmio, intr_ack, rdmsr, wrmsr and the two of CR8 are called with the guest's FPU state in the host's registers: they
     * are built without vector registers and call fpu_leave (monitor/vcpu.h) before anything that is not. */
    bool nofpu;
};
enum vm_user_mode { VM_USER_AUTO, VM_USER_DIRECT, VM_USER_TRANSLATED };
struct vm_config {
    enum vm_user_mode user; /* how guest user code runs */
    uint64_t tc_bytes;      /* translation cache size, 0 = default */
    bool no_window;         /* -accel bt,window=off: kernel code reaches memory through the soft TLB */
    const char *window_why; /* the embedder's reason why there can be no window, or NULL */
    bool no_adapt;          /* -accel bt,adapt=off: memory sites keep their first strategy */
    bool no_chain;          /* -accel bt,chain=off */
    bool trap;              /* -accel trap: sensitive instructions and page-table writes trap, nothing adapts */
    unsigned max_insns;     /* instructions per block, 0 = default; 1 = one-instruction blocks */
    unsigned evict_random;  /* flush at random, once in this many translations; 0 = never */
    unsigned force_exit;    /* leave the TC at random, once in this many block entries; 0 = never */
    bool count;             /* -accel bt,count=on: translated code counts what runs (slower) */
    uint64_t seed;
    const char *cpu_model; /* "host", "max", "qemu64", or NULL */
    bool no_tsc_scaling;
    unsigned check_shadow;   /* -check shadow: a full audit once in this many flushes on average; 0 = off */
    unsigned check_tc;       /* -check tc: cc_verify once in this many turns of the run loop; 0 = off */
    unsigned check_sabotage; /* leave out this INVLPG, for the test of the audit; 0 = none */
};

#define VM_EXITS(X)                                                                                                    \
    X(NONE)                                                                                                            \
    X(IO)   /* port I/O a callback declined: exit.port/size/is_write/data; for IN put the value into data */           \
    X(MMIO) /* MMIO a callback declined: addr/size/is_write/data; for reads fill data, the access is repeated */       \
    X(HLT)                                                                                                             \
    X(SHUTDOWN)    /* triple fault */                                                                                  \
    X(INTR_WINDOW) /* asked for with vcpu_request_intr_window and open now */                                          \
    X(KICK)        /* vcpu_kick */                                                                                     \
    X(DEBUG)       /* breakpoint or step asked for by vcpu_set_debug */                                                \
    X(INTERNAL)    /* the engine cannot go on: exit.text says why; a report was written */
enum vm_exit_reason {
#define X(n) VM_EXIT_##n,
    VM_EXITS(X)
#undef X
};

int vm_create(struct vm **out, const struct vm_config *cfg, const struct vm_ops *ops, void *opaque);
void vm_destroy(struct vm *vm);
int vm_add_memory(struct vm *vm, uint64_t gpa, uint64_t bytes, bool rom);
struct gpmem *vm_memory(struct vm *vm);
struct stats *vm_stats(struct vm *vm);
/* Keeps an account of where the time of the calling thread goes from now on (base/acct.h); the run itself began at start_ns of
 * CLOCK_MONOTONIC. 0 or -RD_E_HOST. vm_account_stop completes it in the statistics; vm_destroy does so as well. */
int vm_account_start(struct vm *vm, uint64_t start_ns);
void vm_account_stop(struct vm *vm);
struct vcpu *vm_vcpu(struct vm *vm, unsigned index);
/* Fills the shadow_* counters: what host memory the shadow takes now. */
void vm_measure_shadow(struct vm *vm);

/* Runs until an exit; the reason is in vcpu_exit_info(v)->reason and returned. */
enum vm_exit_reason vcpu_run(struct vcpu *v);
struct vcpu_exit *vcpu_exit_info(struct vcpu *v);
/* Makes a running vCPU return with VM_EXIT_KICK at the next instruction boundary. Async-signal-safe, any thread. */
void vcpu_kick(struct vcpu *v);
/* The INTR pin (level) and NMI (edge). vCPU thread only, or followed by vcpu_kick. */
void vcpu_set_intr(struct vcpu *v, bool level);
void vcpu_inject_nmi(struct vcpu *v);
/* vcpu_set_intr in the shape of the devices' wires (irq_fn). nofpu. */
void vcpu_intr_pin(void *vcpu, int n, bool level);
/* KVM_INTERRUPT-shaped: queue one vector; only when vcpu_can_inject(). */
bool vcpu_can_inject(const struct vcpu *v);
void vcpu_inject(struct vcpu *v, uint8_t vector);
/* MOV to and from CR8 without callbacks. The embedder keeps *cr8 equal to the task priority class whenever that changes otherwise, and
 * sets *slow while a write of CR8 could change anything else than itself: an interrupt waits, or the register holds more. A guest's
 * write is then found in *cr8. Call before the first run. */
void vcpu_share_cr8(struct vcpu *v, uint64_t **cr8, uint32_t **slow);
void vcpu_request_intr_window(struct vcpu *v, bool on);
void vcpu_reset(struct vcpu *v);

/* Does kernel code run through a window? If not, *why (may be NULL) says what stands in the way; NULL = not wanted. */
bool vm_has_window(const struct vm *vm, const char **why);
/* Does user code run directly when that pays? If not, *why (may be NULL) says what the host lacks; NULL = not wanted. */
bool vm_has_direct(const struct vm *vm, const char **why);
/* The signal that vcpu_kick sends to the vCPU's thread; a timer may send it itself (timer_create, SIGEV_THREAD_ID). */
int vcpu_kick_signal(void);
/* The CPU model, to be completed (hypervisor leaves, TSC frequency) before the first run: monitor/cpumodel.h. */
struct cpumodel *vm_cpumodel(struct vm *vm);

/* State. Reads and writes are of the whole; writing recomputes what depends on it and flushes what must be. PAE paging goes by
 * pdpte[], registers that the guest's tables may have left behind: they are not loaded again. -RD_E_INVAL if they cannot be. */
void vcpu_get_state(struct vcpu *v, struct cpu *out);
int vcpu_set_state(struct vcpu *v, const struct cpu *in);
/* For people. */
void vcpu_dump_state(const struct vcpu *v, FILE *f);
/* FPU state in XSAVE standard format; bytes = area size for the offered XCR0. */
size_t vcpu_fpu_bytes(const struct vcpu *v);
int vcpu_get_fpu(struct vcpu *v, void *buf, size_t bytes);
int vcpu_set_fpu(struct vcpu *v, const void *buf, size_t bytes);
/* Linear -> physical without side effects, for debuggers. Returns 0 or 1 (not mapped). */
int vcpu_translate(struct vcpu *v, uint64_t lin, uint64_t *gpa);
/* Guest code changed behind the engine's back (loader, debugger): drop translations of the range. */
void vm_invalidate_code(struct vm *vm, uint64_t gpa, uint64_t bytes);
#endif
