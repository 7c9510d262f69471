/* monitor/sysfn_int.h - what sys_exec dispatches to besides sys_int.h's functions, and the helpers these files share.
 * Private to monitor/ and its unit tests. All nofpu; what needs C's vector registers calls fpu_leave first. */
#ifndef MONITOR_SYSFN_INT_H
#define MONITOR_SYSFN_INT_H
#include "monitor/sys_int.h"

/* #GP(0) unless CPL is 0. For the first line of a privileged instruction. */
static inline int need_cpl0(struct vcpu *v) { return v->c.cpl ? sys_fault_err(v, EXC_GP, 0) : 0; }
/* A page fault or #DB of our own making aside, the one fault that system instructions raise. */
static inline int fault_gp0(struct vcpu *v) { return sys_fault_err(v, EXC_GP, 0); }
static inline void set_zf(struct cpu *c, bool on) { c->flags = on ? c->flags | EFLAGS_ZF : c->flags & ~EFLAGS_ZF; }
static inline void write_edx_eax(struct cpu *c, uint64_t val)
{
    c->gpr[R_RAX] = (uint32_t)val;
    c->gpr[R_RDX] = val >> 32;
}
static inline uint64_t read_edx_eax(const struct cpu *c) { return (uint32_t)c->gpr[R_RAX] | c->gpr[R_RDX] << 32; }

/* CR0 with all checks and effects of MOV CR0 (sysreg.c); SYS_NEXT or SYS_FAULT. */
int cr0_write(struct vcpu *v, uint64_t val);

/* -- string.c -- */
/* May the current privilege reach these ports? CPL against IOPL, then the TSS's bitmap (SDM 1 19.5.2). 0 or SYS_FAULT. */
int sys_io_allowed(struct vcpu *v, uint16_t port, unsigned size);
int sys_in(struct vcpu *v, struct sys_op op);
int sys_out(struct vcpu *v, struct sys_op op);
int sys_string(struct vcpu *v, struct sys_op op); /* INS OUTS MOVS STOS LODS CMPS SCAS */

/* -- sysreg.c: control, debug and table registers -- */
int sys_mov_to_cr(struct vcpu *v, struct sys_op op);
int sys_mov_from_cr(struct vcpu *v, struct sys_op op);
int sys_mov_to_dr(struct vcpu *v, struct sys_op op);
int sys_mov_from_dr(struct vcpu *v, struct sys_op op);
int sys_clts(struct vcpu *v, struct sys_op op);
int sys_lmsw(struct vcpu *v, struct sys_op op);
int sys_smsw(struct vcpu *v, struct sys_op op);
int sys_load_table(struct vcpu *v, struct sys_op op);  /* LGDT LIDT */
int sys_store_table(struct vcpu *v, struct sys_op op); /* SGDT SIDT */
int sys_xgetbv(struct vcpu *v, struct sys_op op);
int sys_xsetbv(struct vcpu *v, struct sys_op op);
/* -- sysdesc.c: descriptors -- */
int sys_lldt(struct vcpu *v, struct sys_op op);
int sys_ltr(struct vcpu *v, struct sys_op op);
int sys_store_sel(struct vcpu *v, struct sys_op op); /* SLDT STR */
int sys_lar_lsl(struct vcpu *v, struct sys_op op);
int sys_verify(struct vcpu *v, struct sys_op op); /* VERR VERW */
int sys_arpl(struct vcpu *v, struct sys_op op);
/* -- sysmisc.c: flags, time, bases, caches, identification -- */
int sys_cli(struct vcpu *v, struct sys_op op);
int sys_sti(struct vcpu *v, struct sys_op op);
int sys_pushf(struct vcpu *v, struct sys_op op);
int sys_popf(struct vcpu *v, struct sys_op op);
int sys_invlpg(struct vcpu *v, struct sys_op op);
int sys_invpcid(struct vcpu *v, struct sys_op op);
int sys_cache(struct vcpu *v, struct sys_op op); /* INVD WBINVD */
int sys_hlt(struct vcpu *v, struct sys_op op);
int sys_cpuid_insn(struct vcpu *v, struct sys_op op);
int sys_rdtsc(struct vcpu *v, struct sys_op op); /* RDTSC RDTSCP */
int sys_rdpmc(struct vcpu *v, struct sys_op op);
int sys_rdpid(struct vcpu *v, struct sys_op op);
int sys_rdmsr_insn(struct vcpu *v, struct sys_op op);
int sys_wrmsr_insn(struct vcpu *v, struct sys_op op);
int sys_segbase(struct vcpu *v, struct sys_op op); /* RDFSBASE RDGSBASE WRFSBASE WRGSBASE */
int sys_swapgs(struct vcpu *v, struct sys_op op);
int sys_hypercall(struct vcpu *v, struct sys_op op);
/* -- legacy.c -- */
int sys_pusha(struct vcpu *v, struct sys_op op);
int sys_popa(struct vcpu *v, struct sys_op op);
int sys_enter(struct vcpu *v, struct sys_op op);
int sys_xlat(struct vcpu *v, struct sys_op op);
int sys_pop_mem(struct vcpu *v, struct sys_op op);
int sys_push_mem(struct vcpu *v, struct sys_op op);
int sys_call_mem(struct vcpu *v, struct sys_op op);
int sys_ascii_adjust(struct vcpu *v, struct sys_op op);   /* AAA AAS */
int sys_decimal_adjust(struct vcpu *v, struct sys_op op); /* DAA DAS */
int sys_aam(struct vcpu *v, struct sys_op op);
int sys_aad(struct vcpu *v, struct sys_op op);
int sys_maskmov(struct vcpu *v, struct sys_op op);
int sys_movdir64b(struct vcpu *v, struct sys_op op);
/* -- fpustate.c -- */
int sys_fxsave(struct vcpu *v, struct sys_op op);
int sys_fxrstor(struct vcpu *v, struct sys_op op);
int sys_xsave(struct vcpu *v, struct sys_op op); /* XSAVE XSAVEOPT XSAVEC */
int sys_xrstor(struct vcpu *v, struct sys_op op);
/* -- vsib.c -- */
int sys_vsib(struct vcpu *v, struct sys_op op);
/* Which bytes of its memory operand would the instruction (VMASKMOV, or EVEX with a mask) access with the registers as they
 * are? Bit i = byte i; faults of the others must not show. False: no memory operand. Not nofpu: calls fpu_leave. */
bool sys_masked_bytes(struct vcpu *v, const void *insn, unsigned len, uint64_t *bytes);
#endif
