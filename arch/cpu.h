/* arch/cpu.h - the architectural state of one virtual CPU, laid out for generated code.
 *
 * Role:    the contract between translator (which emits fixed-offset accesses to it), shadowmmu (which reads the paging
 *          registers), and monitor (which owns it and implements everything that changes modes).
 * Owner:   monitor/vcpu.h embeds it as the first member of struct vcpu. Only the vCPU's own thread touches it.
 * Layout:  the block lies in the low 2 GiB of the host address space, so that a sign-extended disp32 reaches it.
 * While the TC runs, general registers, arithmetic flags, x87/MMX/SSE/AVX state and MXCSR are in the host's own registers
 * and the copies here are stale; every callout and every exit brings gpr[], flags and rip up to date first.
 */
#ifndef ARCH_CPU_H
#define ARCH_CPU_H
#include "arch/x86_arch.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A segment register with its hidden part. base and limit are the effective ones (granularity applied).
 * nlim_r / nlim_w = -(limit + 1) if a read / a write inside the limit is allowed, else 0: generated code adds the offset of
 * an access's last byte and takes the fast way only if the sum is negative. Expand-down, unusable, execute-only and (for
 * nlim_w) read-only segments therefore hold 0 and every access goes to the exact check in C. */
struct seg {
    uint64_t base;
    int64_t nlim_r, nlim_w;
    uint32_t limit;
    uint32_t attr; /* SEG_* */
    uint16_t sel;
    uint16_t pad[3];
};
struct dtable {
    uint64_t base;
    uint32_t limit;
    uint32_t pad;
};

struct cpu {
    uint64_t gpr[16];
    uint64_t rip;
    uint64_t spill[16];   /* guest value of register r while generated code uses r as scratch */
    uint64_t hscratch[8]; /* host r8-r15 saved over a callout from 16/32-bit code */
    uint32_t flags;       /* EFLAGS_ARITH bits only */
    uint32_t eflags_sys;  /* TF IOPL NT RF VM AC VIF VIP ID; never the arithmetic bits, IF or DF */
    uint8_t if_flag;      /* EFLAGS.IF, a byte so that CLI is one store */
    uint8_t df_flag;      /* EFLAGS.DF */
    uint8_t cpl;
    uint8_t
        shadow; /* interrupt shadow: 1 after STI, 2 after MOV SS/POP SS (also holds #DB), until one more instruction ran */
    uint32_t key; /* translation mode, CPU_KEY_*; cpu_update_key() */

    struct seg seg[S_COUNT];
    struct dtable gdtr, idtr;
    uint64_t cr0, cr2, cr3, cr4, cr8, efer, xcr0;
    uint64_t pdpte[4]; /* PAE without long mode: loaded at MOV CR3 (SDM 3A 4.4.1) */
    uint64_t dr[8];    /* dr[4], dr[5] unused */
    uint64_t kernel_gs_base, star, lstar, cstar, sfmask;
    uint64_t sysenter_cs, sysenter_esp, sysenter_eip, tsc_aux, pat, misc_enable, tsc_offset;
};

/* Translation key: everything besides the address that the code of a block depends on. */
#define CPU_KEY_CODE16 0x0001u
#define CPU_KEY_CODE32 0x0002u
#define CPU_KEY_CODE64 0x0004u
#define CPU_KEY_SS32 0x0008u /* 16/32-bit code: stack pointer is ESP, not SP */
#define CPU_KEY_FLAT 0x0010u /* 16/32-bit code: DS, ES, SS flat, 4 GiB, read/write */
#define CPU_KEY_CPL 0x0060u  /* CPL << 5 */
#define CPU_KEY_CPL_SHIFT 5
#define CPU_KEY_TS 0x0080u /* CR0.TS */
#define CPU_KEY_EM 0x0100u /* CR0.EM */
#define CPU_KEY_MP 0x0200u /* CR0.MP, with TS: WAIT raises #NM */
#define CPU_KEY_OSFXSR 0x0400u
#define CPU_KEY_OSXSAVE 0x0800u
#define CPU_KEY_AVX 0x1000u /* XCR0 has SSE and AVX */
#define CPU_KEY_AVX512 0x2000u
#define CPU_KEY_STEP 0x4000u  /* one instruction per block, no chaining (TF, DR7 execution breakpoints, debugger) */
#define CPU_KEY_AC 0x8000u    /* alignment checks are live: every site goes through a callout */
#define CPU_KEY_REAL 0x10000u /* real or virtual-8086 mode */
#define CPU_KEY_CAREFUL                                                                                                \
    0x20000u /* one instruction whose memory sites use callouts (bounce buffers); internal to the run loop */
#define CPU_KEY_SLOWTSC 0x40000u /* RDTSC must be a callout (offset or CR4.TSD at CPL > 0) */

#define CPU_KEY_LOW                                                                                                    \
    0x80000u /* 64-bit code at CPL 0 in the lower half (early boot): its window is another one; from rip, not state */

/* User code in a page that must not run directly while what is around it does: such blocks are linked with their like only, so control
 * comes back to the run loop where the page is left. From the run loop, not state. */
#define CPU_KEY_APART 0x100000u
#define CPU_KEY_ALONE 0x200000u /* every soft site has its own look-up; internal to the run loop */

/* The key that a block at c->rip has in normal running. */
static inline uint32_t cpu_block_mode(uint32_t key, uint64_t rip)
{
    return (key & (CPU_KEY_CODE64 | CPU_KEY_CPL)) == CPU_KEY_CODE64 && (int64_t)rip >= 0 ? key | CPU_KEY_LOW : key;
}
static inline bool cpu_long_mode(const struct cpu *c) { return c->efer & EFER_LMA; }
static inline bool cpu_code64(const struct cpu *c) { return (c->efer & EFER_LMA) && (c->seg[S_CS].attr & SEG_L); }
/* Bytes of an entry of the page tables in use (SDM 3A 4.3, 4.4). */
static inline unsigned cpu_pte_bytes(const struct cpu *c) { return c->cr4 & CR4_PAE ? 8 : 4; }
static inline bool cpu_protected(const struct cpu *c) { return c->cr0 & CR0_PE; }
static inline bool cpu_vm86(const struct cpu *c) { return c->eflags_sys & EFLAGS_VM; }
/* Real-address or virtual-8086 mode: selectors are paragraph numbers. */
static inline bool cpu_real_selectors(const struct cpu *c) { return !(c->cr0 & CR0_PE) || cpu_vm86(c); }
static inline unsigned cpu_iopl(const struct cpu *c) { return (c->eflags_sys & EFLAGS_IOPL) >> EFLAGS_IOPL_SHIFT; }

static inline uint32_t cpu_get_eflags(const struct cpu *c)
{
    return c->flags | c->eflags_sys | EFLAGS_R1 | (c->if_flag ? EFLAGS_IF : 0) | (c->df_flag ? EFLAGS_DF : 0);
}
/* Sets all of EFLAGS; the caller recomputes the key (TF, VM and AC are in it). */
static inline void cpu_set_eflags(struct cpu *c, uint32_t f)
{
    c->flags = f & EFLAGS_ARITH;
    c->if_flag = (f & EFLAGS_IF) != 0;
    c->df_flag = (f & EFLAGS_DF) != 0;
    c->eflags_sys = f & EFLAGS_ALL & ~(EFLAGS_ARITH | EFLAGS_IF | EFLAGS_DF);
}

/* Recomputes seg.nlim_* of one segment after base, limit or attr changed. */
static inline void cpu_seg_cache(struct seg *s)
{
    bool code = s->attr & SEG_CODE, usable = (s->attr & SEG_P) && (s->attr & SEG_S) && !(s->attr & SEG_UNUSABLE);
    bool down = !code && (s->attr & SEG_EC);
    bool rd = usable && !down && (!code || (s->attr & SEG_RW)), wr = usable && !down && !code && (s->attr & SEG_RW);
    s->nlim_r = rd ? -((int64_t)s->limit + 1) : 0;
    s->nlim_w = wr ? -((int64_t)s->limit + 1) : 0;
}
static inline bool cpu_seg_is_flat(const struct seg *s)
{
    return s->base == 0 && s->nlim_r == -0x100000000ll && s->nlim_w == -0x100000000ll;
}

/* Recomputes c->key from the state. Call after any change of CR0, CR4, EFER, XCR0, CPL, EFLAGS.TF/VM/AC, DR7, tsc_offset or
 * a segment register (SS, DS, ES, CS). Cheap; idempotent. */
static inline void cpu_update_key(struct cpu *c)
{
    uint32_t k = 0;
    const struct seg *cs = &c->seg[S_CS];
    if (cpu_code64(c))
        k |= CPU_KEY_CODE64;
    else {
        k |= (cs->attr & SEG_DB) ? CPU_KEY_CODE32 : CPU_KEY_CODE16;
        if (c->seg[S_SS].attr & SEG_DB)
            k |= CPU_KEY_SS32;
        if (cpu_seg_is_flat(&c->seg[S_DS]) && cpu_seg_is_flat(&c->seg[S_ES]) && cpu_seg_is_flat(&c->seg[S_SS]))
            k |= CPU_KEY_FLAT;
    }
    if (cpu_real_selectors(c))
        k |= CPU_KEY_REAL;
    k |= (uint32_t)c->cpl << CPU_KEY_CPL_SHIFT;
    if (c->cr0 & CR0_TS)
        k |= CPU_KEY_TS;
    if (c->cr0 & CR0_EM)
        k |= CPU_KEY_EM;
    if (c->cr0 & CR0_MP)
        k |= CPU_KEY_MP;
    if (c->cr4 & CR4_OSFXSR)
        k |= CPU_KEY_OSFXSR;
    if (c->cr4 & CR4_OSXSAVE) {
        k |= CPU_KEY_OSXSAVE;
        if ((c->xcr0 & 6) == 6)
            k |= CPU_KEY_AVX;
        if ((c->xcr0 & 0xe6) == 0xe6)
            k |= CPU_KEY_AVX512;
    }
    if ((c->eflags_sys & EFLAGS_TF) || (c->dr[7] & 0xff))
        k |= CPU_KEY_STEP;
    if ((c->eflags_sys & EFLAGS_AC) && (c->cr0 & CR0_AM) && c->cpl == 3)
        k |= CPU_KEY_AC;
    if (c->tsc_offset || ((c->cr4 & CR4_TSD) && c->cpl))
        k |= CPU_KEY_SLOWTSC;
    c->key = k;
}

/* Pinned: generated code and glue assembly use these. */
_Static_assert(offsetof(struct cpu, gpr) == 0, "gpr first");
_Static_assert(offsetof(struct cpu, rip) == 128, "rip");
_Static_assert(offsetof(struct cpu, spill) == 136, "spill");
#endif
