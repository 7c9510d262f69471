/* monitor/vcpu.h - one virtual CPU inside the monitor: architectural state, soft TLB, pending events, callout contract.
 *
 * Role:    the structure that the run loop, the callouts and the system-instruction code share.
 * Owner:   vm.c creates it in the low 2 GiB, together with the translation cache.  Threads: the vCPU's own thread only, but
 *          for kick (any thread, through vcpu_kick).
 * nofpu:   code reached from the TC by a fast callout must not touch x87/SSE registers (they hold guest values). Files built
 *          with the nofpu flags may call only each other. fpu_leave() saves the guest's FPU state and makes any C safe;
 *          it is cheap when already left.
 */
#ifndef MONITOR_VCPU_H
#define MONITOR_VCPU_H
#include "arch/cpu.h"
#include "arch/sysop.h"
#include "base/stat.h"
#include "codecache/jumpcache.h"
#include "monitor/msr.h"
#include "shadowmmu/gpmem.h"
#include "shadowmmu/softtlb.h"
#include <stdbool.h>
#include <stdint.h>

struct audit;
struct vm;
struct vm_ops;   /* monitor/engine.h */
struct cpumodel; /* monitor/cpumodel.h */

/* A guest event to be delivered. Filled by whoever finds it; nothing else has been changed then. */
struct guest_fault {
    uint8_t vector;
    bool has_error;
    uint32_t error;
    uint64_t cr2; /* #PF only: written to CR2 at delivery */
    uint64_t dr6; /* #DB only: bits to be ored into DR6 at delivery */
};

/* What a system-instruction function or callout tells its caller. */
enum sys_result {
    SYS_NEXT = 0, /* done; continue at rip + len (the caller advances rip) */
    SYS_JUMP,     /* done; c.rip (and perhaps the mode) was set */
    SYS_FAULT,    /* v->fault is filled, no other state changed; rip is the instruction's */
    SYS_EXIT, /* leave the run loop to the embedder: v->exit is filled; rip already advanced unless the exit says otherwise */
    SYS_RESTART, /* string instruction interrupted between iterations: registers updated, rip stays */
};

/* Why vcpu_run returned: monitor/engine.h documents each. */
struct vcpu_exit {
    uint32_t reason; /* enum vm_exit_reason */
    uint8_t size, is_write;
    uint16_t port;
    uint32_t count;
    uint64_t addr; /* MMIO: gpa; DEBUG: rip; INTERNAL: host pc */
    uint8_t data[64];
    char text[160]; /* INTERNAL, SHUTDOWN: one line for people */
};

struct vcpu {
    struct cpu c; /* must be first: generated code addresses it */
    /* -- reached by generated code and glue; offsets in monitor/vcpu_layout.h -- */
    uint64_t host_sp; /* host stack while the TC runs */
    uint64_t ea;      /* effective address handed to a callout: an offset for system instructions, linear for sites */
    uint64_t op_imm;
    uint64_t site;                 /* descriptor of the memory site in a slow path */
    uint64_t op;                   /* struct sys_op of a callout */
    uint64_t jump_target;          /* host pc to continue at */
    uint64_t link_pc;              /* exit taken: its name in the code cache; of an indirect one, the host pc */
    uint64_t exit_code;            /* enum tc_exit */
    uint64_t keep;                 /* generated code parks a register here over a few instructions */
    uint64_t gs_base, gs_base_neg; /* GS base of the window that blocks of the current mode use, and minus it */
    uint64_t const_page, const_sign, const_jc, const_63, const_31, const_15; /* PEXT masks, see xl_layout */
    uint64_t const_cr8, const_stack, const_window;
    int64_t stack_from[8];
    uint32_t cr8_slow;       /* see vcpu_share_cr8 */
    uint32_t event_pending;  /* something the run loop must look at: interrupt, NMI, kick. STI tests it. */
    uint32_t in_tc;          /* between tc_enter and tc_exit */
    struct softtlb tlb[2];   /* [0] supervisor accesses, [1] user accesses */
    struct jump_cache jc[2]; /* [0] CPL 0-2, [1] CPL 3: indirect targets */
    /* -accel bt,count=on: blocks and instructions begun, entries through a jump cache, those of them by direct jumps */
    uint64_t count_blocks, count_insns, count_indirect, count_jc_direct, count_save;
    /* -- C only -- */
    struct vm *vm;
    struct gpmem *mem;
    struct guest_fault fault;
    struct vcpu_exit exit;
    bool nmi_blocked, nmi_pending, halted, shutdown;
    bool fpu_live; /* guest FPU state is in the host registers; generated code below CPL 3 looks here (xl_layout) */
    int intr_line; /* level of the INTR pin: ask vm->ops.intr_ack for the vector */
    uint32_t dr6_pending;
    struct stats *stats;
    uint8_t *xsave; /* 64-byte aligned image of the guest's FPU state when neither live nor away, standard format */
    void *fpu_away; /* NULL, or who has the state instead: fpu_fetch copies it from there to *xsave */
    struct vcpu_priv *priv;  /* run loop, codecache, ... */
    struct pttrace *pttrace; /* page tables that are traced; NULL unless -accel trap */
    struct audit *audit;     /* -check shadow: monitor/selfcheck.h; NULL: off */
    /* -- system instructions -- */
    const struct vm_ops *ops;   /* the embedder's callbacks; may be NULL in tests */
    void *opaque;               /* ... and their first argument */
    const struct cpumodel *cpu; /* what CPUID offers */
    struct msr_store msr;
    uint64_t fpu_mask;   /* XSAVE components kept in *xsave; 0: the host has FXSAVE only */
    uint32_t mxcsr_mask; /* MXCSR bits that the host's CPU has */
    bool fpu_opt;        /* the host has XSAVEOPT */
    /* An x87 state with the host's last instruction and operand addresses is about to be shown to the guest: put the guest's
     * in, or 0 where unknown. Values that are no host addresses stay. NULL: nothing is translated. nofpu. */
    void (*fpu_pointers)(struct vcpu *v, uint64_t *fip, uint64_t *fdp);
    void (*fpu_fetch)(struct vcpu *v);
};

/* The guest's FPU state is in one place: the host's registers (fpu_live), else where fpu_away says, else *xsave.
 * fpu_leave ends guest use of the host FPU: saves the state into v->xsave, loads the host's defaults. Idempotent. */
void fpu_leave(struct vcpu *v);
/* As fpu_leave, but what has happened to the state since the last fpu_leave is lost. */
void fpu_discard(struct vcpu *v);
/* Reloads the guest's state. The run loop and callout returns do this themselves, for those who need it. */
void fpu_enter(struct vcpu *v);
/* Into *xsave with it, if it is away. */
static inline void fpu_bring(struct vcpu *v)
{
    if (!v->fpu_away)
        return;
    v->fpu_fetch(v);
    v->fpu_away = NULL;
}

static inline int sys_fault(struct vcpu *v, uint8_t vector)
{
    v->fault = (struct guest_fault){.vector = vector};
    return SYS_FAULT;
}
static inline int sys_fault_err(struct vcpu *v, uint8_t vector, uint32_t error)
{
    v->fault = (struct guest_fault){.vector = vector, .has_error = true, .error = error};
    return SYS_FAULT;
}
#endif
