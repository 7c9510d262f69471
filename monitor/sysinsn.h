/* monitor/sysinsn.h - system instructions, exceptions and control transfers, exactly as the manual has them.
 *
 * Role:    everything that changes modes, segments, descriptor tables or privilege; exception and interrupt delivery through
 *          every kind of gate; the CPUID and MSR model. Works on struct vcpu only; memory through monitor/mem.h.
 * State:   on entry all of v->c is up to date and c.rip is the instruction's own address; see enum sys_result for the way out.
 *          Everything is checked before anything is changed. Whoever changes mode-relevant state calls cpu_update_key().
 */
#ifndef MONITOR_SYSINSN_H
#define MONITOR_SYSINSN_H
#include "monitor/vcpu.h"

/* Carries out one instruction; dispatches on op.op. Returns enum sys_result. */
int sys_exec(struct vcpu *v, struct sys_op op);

enum exc_kind { EXC_FAULT, EXC_INTERRUPT, EXC_SOFT_INT, EXC_SOFT_INT3, EXC_INT1, EXC_TRAP };
/* Delivers a vector through IDT/IVT. rip must be the one to be pushed. Handles faults inside delivery: contributory and
 * page faults become #DF, then shutdown (SYS_EXIT with VM_EXIT_SHUTDOWN). Returns SYS_JUMP or SYS_EXIT; for software
 * interrupts (EXC_SOFT_INT*) a failing gate check is SYS_FAULT, to be delivered by the caller at the instruction. */
int exc_deliver(struct vcpu *v, enum exc_kind kind, const struct guest_fault *f);
/* INIT/RESET state (SDM 3A table 9-1). */
void sys_reset(struct vcpu *v);
/* CPUID as offered to the guest. out = eax, ebx, ecx, edx. */
void sys_cpuid(struct vcpu *v, uint32_t leaf, uint32_t sub, uint32_t out[4]);
int sys_rdmsr(struct vcpu *v, uint32_t msr, uint64_t *val); /* 0, or SYS_FAULT for unknown ones (logged) */
int sys_wrmsr(struct vcpu *v, uint32_t msr, uint64_t val);
/* Sets a segment register's hidden part in real/VM86 mode from a selector. */
void seg_load_real(struct vcpu *v, unsigned seg, uint16_t sel);
/* Loads a segment register with all checks of protected mode (null, type, DPL, present; sets the accessed bit). */
int seg_load(struct vcpu *v, unsigned seg, uint16_t sel);

/* -- provided by the rest of the monitor to this code -- */
/* Paging changed: flush what depends on it. */
enum mmu_flush { MMU_FLUSH_NONGLOBAL, MMU_FLUSH_ALL };
void vcpu_mmu_flush(struct vcpu *v, enum mmu_flush what);
void vcpu_mmu_invlpg(struct vcpu *v, uint64_t lin);
/* CR3 was loaded; keep: without a flush of what its PCID has (bit 63 of the source, SDM 3A 4.10.4.1). */
void vcpu_mmu_cr3(struct vcpu *v, bool keep);
/* INVPCID of all of one context; of all contexts, global translations apart. */
void vcpu_mmu_invpcid(struct vcpu *v, uint16_t pcid);
void vcpu_mmu_flush_pcids(struct vcpu *v);
/* Port access through the engine's ops. Fills *val; returns 0 or SYS_EXIT (embedder must complete; see engine.h). */
int vcpu_pio(struct vcpu *v, uint16_t port, unsigned size, bool is_write, uint32_t *val);
#endif
