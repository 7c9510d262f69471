/* monitor/direct.h - direct execution of guest user code in user worlds, and the choice between that and translation.
 *
 * Role:    one `space` per guest address space (CR3 value) that has run user code: how much time it spent, and, once promoted,
 *          its world and what is mapped there. Keeps worlds coherent with the guest's tables by TLB rules: INVLPG drops a
 *          page, a CR3 load has the space compared with its page tables before it runs again.
 * Threads: the vCPU's. Not nofpu: callers have done fpu_leave. Signals: direct_kick only.
 */
#ifndef MONITOR_DIRECT_H
#define MONITOR_DIRECT_H
#include "monitor/engine.h"
#include "monitor/tier.h"
#include "monitor/vcpu.h"

struct direct;

/* 0 with *out = NULL and *why if the host cannot (or the configuration does not want to) run user code directly. */
int direct_create(struct direct **out, struct vcpu *v, enum vm_user_mode mode, const char **why);
void direct_destroy(struct direct *d);

/* What a turn in user mode came to. */
enum direct_result {
    DIRECT_NO,    /* not now: run translated code */
    DIRECT_GO_ON, /* state is up to date; the run loop goes on */
    DIRECT_STEP,  /* carry out one instruction at rip with translated code, then come back */
    DIRECT_FAULT, /* v->fault */
    DIRECT_TRAP,  /* a single step: TF was set by the code itself */
    DIRECT_SYS,   /* carry out SYSCALL, SYSENTER, INT 80h or CPUID at rip: v->op is filled */
};
/* May the current state run directly, and is its space promoted? nofpu. */
bool direct_wanted(struct vcpu *v);
/* Is rip in a page of a promoted space that must not run directly, but what comes behind it may? nofpu. */
bool direct_careful(struct vcpu *v);
enum direct_result direct_run(struct vcpu *v);
/* At the end of vcpu_run: takes back what ended processes have left. */
void direct_rest(struct vcpu *v);
/* Translated user code ran for this many TSC ticks and then entered the kernel, for this reason. nofpu. */
void direct_account(struct vcpu *v, uint64_t ticks, enum tier_end how);
/* TLB events. nofpu. */
void direct_cr3_loaded(struct vcpu *v);
/* Before any of them: what the guest's kernel flushes may be somebody else's afterwards, so the world that ran last must have stopped. */
void direct_stop(struct vcpu *v);
void direct_invlpg(struct vcpu *v, uint64_t lin);
/* A frame has become traced: no world may have it writable. */
void direct_protect(struct vcpu *v, uint64_t gpa);
void direct_kick(struct vcpu *v);
/* Host processes of the worlds in use. Returns how many, at most max. */
unsigned direct_worlds(const struct direct *d, int *pid, unsigned max);
#endif
