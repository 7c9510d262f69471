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
#include "base/stat.h"
#include "shadowmmu/gpmem.h"
#include "shadowmmu/softtlb.h"
#include <stdbool.h>
#include <stdint.h>

struct vm;

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
    SYS_EXIT,     /* leave the run loop to the embedder: v->exit is filled; rip already advanced unless the exit says otherwise */
    SYS_RESTART,  /* string instruction interrupted between iterations: registers updated, rip stays */
};

/* One decoded system instruction, 8 bytes so that generated code can pass it as an immediate. */
struct sys_op {
    uint8_t op;    /* SYS_OP_*, monitor/sysop.def */
    uint8_t opsize; /* bytes: 1, 2, 4, 8: the effective operand size */
    uint8_t reg;   /* register number from ModRM.reg: GPR, CRn, DRn, segment register, by op */
    uint8_t rm;    /* GPR number of a register operand, or SYS_RM_MEM: memory at seg:c_ea */
    uint8_t seg;   /* segment of the memory operand (override applied; FS/GS bases count in 64-bit mode) */
    uint8_t len;   /* instruction length */
    uint8_t asize; /* address size in bytes: 2, 4, 8 */
    uint8_t flags; /* SYS_F_* */
};
_Static_assert(sizeof(struct sys_op) == 8, "passed in a register");
#define SYS_RM_MEM 0xffu
#define SYS_F_REP 0x01u   /* F3: REP / REPE */
#define SYS_F_REPNE 0x02u /* F2 */
#define SYS_F_IMM 0x04u   /* v->op_imm holds an immediate (port, far pointer sel<<32... see sysop.def) */
#define SYS_F_REX 0x08u   /* register bytes 4-7 are SPL..DIL, not AH..BH */
#define SYS_F_LOCK 0x10u

enum sys_opcode {
#define SYSOP(name, comment) SYS_OP_##name,
#include "monitor/sysop.def"
#undef SYSOP
    SYS_OP_COUNT
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
    uint64_t host_sp;  /* host stack while the TC runs */
    uint64_t ea;       /* effective address handed to a callout: an offset for system instructions, linear for sites */
    uint64_t op_imm;
    uint64_t site;     /* descriptor of the memory site in a slow path */
    uint64_t jump_target; /* host pc to continue at */
    uint32_t event_pending; /* something the run loop must look at: interrupt, NMI, kick. STI tests it. */
    uint32_t in_tc;    /* between tc_enter and tc_exit */
    struct softtlb tlb[2]; /* [0] supervisor accesses, [1] user accesses */
    /* -- C only -- */
    struct vm *vm;
    struct gpmem *mem;
    struct guest_fault fault;
    struct vcpu_exit exit;
    bool nmi_blocked, nmi_pending, halted, shutdown;
    bool fpu_live; /* guest FPU state is in the host registers */
    int intr_line; /* level of the INTR pin: ask vm->ops.intr_ack for the vector */
    uint32_t dr6_pending;
    struct stats *stats;
    uint8_t *xsave; /* 64-byte aligned image of the guest's FPU state when !fpu_live, standard format */
    struct vcpu_priv *priv; /* run loop, codecache, ... */
};

/* Ends guest use of the host FPU: saves the state into v->xsave, loads the host's defaults. Idempotent. */
void fpu_leave(struct vcpu *v);
/* Reloads the guest's state. The run loop and callout returns do this themselves. */
void fpu_enter(struct vcpu *v);

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
