/* monitor/sys_int.h - what the files that carry out system instructions share. Private to monitor/ and its unit tests.
 *
 * Role:    operand access (registers, ModRM operand, stack), descriptors, and the functions that sys_exec dispatches to.
 * Rule:    every function returns enum sys_result, or 0 for "go on" where it is only a step of an instruction. Nothing is
 *          changed before everything has been checked (accessed bits of descriptors excepted, as in hardware).
 * nofpu:   all of it.
 */
#ifndef MONITOR_SYS_INT_H
#define MONITOR_SYS_INT_H
#include "monitor/mem.h"
#include "monitor/sysinsn.h"
#include "monitor/vcpu.h"

/* -- general registers -- */
/* size 1, 2, 4, 8; flags = sys_op.flags: without SYS_F_REX the byte registers 4..7 are AH CH DH BH (SDM 2A table 2-2). */
static inline uint64_t gpr_read(const struct cpu *c, unsigned r, unsigned size, unsigned flags)
{
    if (size == 8)
        return c->gpr[r & 15];
    if (size == 4)
        return (uint32_t)c->gpr[r & 15];
    if (size == 2)
        return (uint16_t)c->gpr[r & 15];
    if (!(flags & SYS_F_REX) && (r & 15) >= 4 && (r & 15) < 8)
        return (uint8_t)(c->gpr[(r & 15) - 4] >> 8);
    return (uint8_t)c->gpr[r & 15];
}
/* 4-byte writes clear the upper half, smaller ones keep the rest. */
static inline void gpr_write(struct cpu *c, unsigned r, unsigned size, unsigned flags, uint64_t val)
{
    uint64_t *g = &c->gpr[r & 15];
    if (size == 8)
        *g = val;
    else if (size == 4)
        *g = (uint32_t)val;
    else if (size == 2)
        *g = (*g & ~0xffffull) | (val & 0xffff);
    else if (!(flags & SYS_F_REX) && (r & 15) >= 4 && (r & 15) < 8) {
        g -= 4;
        *g = (*g & ~0xff00ull) | (val & 0xff) << 8;
    } else
        *g = (*g & ~0xffull) | (val & 0xff);
}

/* What an address of so many bytes (2, 4, 8) keeps of a sum. */
static inline uint64_t addr_mask(unsigned asize) { return asize == 8 ? ~0ull : asize == 4 ? 0xffffffffull : 0xffffull; }

/* -- the ModRM operand: register op.rm, or n bytes of memory at op.seg : v->ea -- */
int rm_read(struct vcpu *v, struct sys_op op, unsigned n, uint64_t *val);
int rm_write(struct vcpu *v, struct sys_op op, unsigned n, uint64_t val);

/* A far pointer at op.seg : v->ea, offset first: two accesses, the second wraps with the address size (measured). */
int far_pointer(struct vcpu *v, struct sys_op op, uint16_t *sel, uint64_t *off);

/* -- instruction pointer -- */
/* Address of the next instruction; EIP wraps at 4 GiB outside 64-bit mode. */
static inline uint64_t next_rip(const struct cpu *c, unsigned len)
{
    return cpu_code64(c) ? c->rip + len : (uint32_t)(c->rip + len);
}
/* A linear address as the mode has it: 32 bits unless in long mode. */
static inline uint64_t lin_wrap(const struct cpu *c, uint64_t lin) { return cpu_long_mode(c) ? lin : (uint32_t)lin; }

/* -- current stack -- */
static inline uint64_t stack_mask(const struct cpu *c)
{
    return cpu_code64(c) ? ~0ull : (c->seg[S_SS].attr & SEG_DB) ? 0xffffffffull : 0xffffull;
}
/* Writes RSP, ESP (upper half cleared) or SP (rest kept) as the mask says. */
static inline void stack_set(struct cpu *c, uint64_t mask, uint64_t sp)
{
    c->gpr[R_RSP] = mask == 0xffff ? (c->gpr[R_RSP] & ~0xffffull) | (sp & 0xffff) : sp & mask;
}
/* One element of n = 2, 4, 8 bytes with all checks, #SS(0). RSP changes only on success. */
int stack_push(struct vcpu *v, unsigned n, uint64_t val);
int stack_pop(struct vcpu *v, unsigned n, uint64_t *val);

/* Several elements at once: checks are made as they are pushed, memory is written by stk_flush in one go, RSP by the caller
 * (stack_set). All elements have the same size. */
#define STK_MAX 40 /* call gate: 31 parameters, SS, ESP, CS, EIP */
struct stk {
    const struct seg *ss; /* NULL: 64-bit mode, no limits, canonical */
    uint64_t sp, mask;
    uint32_t err; /* error code of a stack fault */
    unsigned how; /* MEM_SUPER or 0 */
    unsigned size, n;
    uint64_t val[STK_MAX];
};
void stk_open(const struct vcpu *v, struct stk *s, unsigned size);
/* The same as 64-bit code sees the stack, or other code: a far CALL pushes as its target would (measured). */
void stk_open_in(const struct vcpu *v, struct stk *s, unsigned size, bool code64);
int stk_push(struct vcpu *v, struct stk *s, uint64_t val);
int stk_flush(struct vcpu *v, struct stk *s);
/* Reads n elements upwards from skip bytes above sp, into s->val; sp stays. */
int stk_peek(struct vcpu *v, struct stk *s, unsigned skip, unsigned n);

/* -- descriptors (SDM 3A 3.4.5) -- */
#define SEL_TI 4u
#define SEL_RPL(sel) ((sel)&3u)
#define SEL_NULL(sel) (!((sel) & ~3u))
#define ERR_EXT 1u
#define ERR_IDT 2u
struct desc {
    uint64_t lo, hi; /* hi: upper half of the 16-byte system descriptors of long mode */
    uint64_t lin;    /* where it is */
    uint32_t attr;   /* SEG_* */
};
static inline unsigned desc_type(const struct desc *d) { return d->attr & SEG_TYPE; }
static inline unsigned desc_dpl(const struct desc *d) { return (d->attr & SEG_DPL) >> SEG_DPL_SHIFT; }
static inline unsigned seg_dpl(const struct seg *s) { return (s->attr & SEG_DPL) >> SEG_DPL_SHIFT; }
static inline bool desc_is_sys(const struct desc *d, unsigned type) { return (d->attr & (SEG_S | SEG_TYPE)) == type; }
static inline bool desc_is_code(const struct desc *d) { return (d->attr & (SEG_S | SEG_CODE)) == (SEG_S | SEG_CODE); }
static inline bool desc_is_conforming(const struct desc *d)
{
    return (d->attr & (SEG_S | SEG_CODE | SEG_EC)) == (SEG_S | SEG_CODE | SEG_EC);
}
static inline bool desc_is_writable(const struct desc *d)
{
    return (d->attr & (SEG_S | SEG_CODE | SEG_RW)) == (SEG_S | SEG_RW);
}
static inline uint64_t desc_base(const struct desc *d) { return (d->lo >> 16 & 0xffffff) | (d->lo >> 32 & 0xff000000); }
static inline uint32_t desc_limit(const struct desc *d)
{
    uint32_t l = (uint32_t)((d->lo & 0xffff) | (d->lo >> 32 & 0xf0000));
    return d->attr & SEG_G ? l << 12 | 0xfff : l;
}
/* Linear address of a descriptor of n = 8 or 16 bytes; false: outside its table, or no LDT. Does not look for null. */
bool desc_locate(const struct cpu *c, uint16_t sel, unsigned n, uint64_t *lin);
/* Reads 8 bytes. Outside the table: fault `vector` with (sel & ~3) | ext. */
int desc_read(struct vcpu *v, uint16_t sel, uint8_t vector, uint32_t ext, struct desc *d);
/* Reads the upper half of a 16-byte descriptor already read; limit fault as above. */
int desc_read_hi(struct vcpu *v, uint16_t sel, uint8_t vector, uint32_t ext, struct desc *d);
/* Writes the type byte back: accessed bit of code and data, busy bit of a TSS. */
int desc_set_type(struct vcpu *v, struct desc *d, unsigned type);
int desc_set_accessed(struct vcpu *v, struct desc *d);
/* Checks a descriptor for DS ES FS GS: `vector` (#GP, or #TS in a task switch) or #NP, with selector | ext. */
int desc_check_data(struct vcpu *v, uint16_t sel, const struct desc *d, uint8_t vector, uint32_t ext);
/* Fills a segment register, nlim_* included. base of long mode's LDT and TSS takes d->hi. */
void seg_from_desc(struct seg *s, uint16_t sel, const struct desc *d);
void seg_set(struct cpu *c, unsigned seg, uint16_t sel, const struct desc *d);
/* Null selector: unusable, DPL = RPL. base becomes 0. */
void seg_null(struct seg *s, uint16_t sel);
void seg_set_null(struct cpu *c, unsigned seg, uint16_t sel);
/* base 0, limit 4 GiB: what SYSCALL and its kin load. */
void seg_set_flat(struct seg *s, uint16_t sel, uint32_t attr);
static inline int fault_sel(struct vcpu *v, uint8_t vector, uint16_t sel, uint32_t ext)
{
    return sys_fault_err(v, vector, (sel & ~3u) | ext);
}
/* True if the guest was told that its CPU is Intel's; docs/PROTECTION.md lists what depends on it. */
bool sys_vendor_intel(const struct vcpu *v);

/* -- hardware task switch (taskswitch.c) -- */
enum task_reason { TASK_JMP, TASK_CALL, TASK_INT, TASK_IRET };
struct task_switch {
    enum task_reason reason;
    uint16_t sel; /* of the new TSS; d was read and checked for type, privilege and presence */
    struct desc d;
    uint64_t rip;    /* to be saved in the old TSS */
    uint32_t eflags; /* likewise */
    uint32_t ext;    /* ERR_EXT or 0 for the error codes of faults */
    bool has_error;  /* TASK_INT: push this on the new stack */
    uint32_t error;
};
/* A fault in the new task's context: v->fault is filled, c.rip is the new task's. Only inside monitor's system files; whoever
 * returns to sys_exec delivers it with exc_deliver. */
#define SYS_LATE_FAULT 100
/* Done, and the new TSS has its T bit set: #DB before the first instruction of the task (SDM 3B 17.3.1.5). Likewise. */
#define SYS_TASK_TRAP 101
#define TASK_TRAP_DR6 0x8000u /* DR6.BT */
/* SYS_JUMP, SYS_FAULT (old context, nothing changed), SYS_LATE_FAULT, SYS_TASK_TRAP, SYS_EXIT. */
int task_switch(struct vcpu *v, struct task_switch *t);
/* Reads and checks the TSS descriptor of a far JMP/CALL, task gate or interrupt task gate: #GP(sel) or #NP(sel). */
int task_find(struct vcpu *v, uint16_t sel, uint32_t ext, struct desc *d);
/* IRET with NT set. */
int task_return(struct vcpu *v, uint64_t rip);

/* -- steps shared by far transfers and exception delivery (transfer.c) -- */
/* Stack of privilege dpl out of the current TSS (SDM 3A 6.12.1): fills *ss, *sp. #TS, #SS with selector | ext. */
int tss_stack(struct vcpu *v, unsigned dpl, uint32_t ext, struct seg *ss, uint64_t *sp);
/* Prepares a frame on such a stack. */
void stk_open_new(const struct vcpu *v, struct stk *s, const struct seg *ss, uint64_t sp, unsigned size, uint32_t ext);
/* #GP(ext) unless rip may be executed in code segment d: limit, or canonical in 64-bit code. */
int code_check_rip(struct vcpu *v, const struct desc *d, uint64_t rip, uint32_t ext);
/* Enters code segment d at privilege cpl: CS, CPL, RIP and nothing else. */
void code_enter(struct cpu *c, uint16_t sel, const struct desc *d, unsigned cpl, uint64_t rip);
/* True if code segment d holds 64-bit code. */
static inline bool desc_is_code64(const struct cpu *c, const struct desc *d)
{
    return cpu_long_mode(c) && (d->attr & SEG_L);
}
/* Data segments that CPL may no longer see become null (RETF, IRET to an outer ring). */
void seg_drop_privileged(struct cpu *c);

/* -- segment.c -- */
int sys_seg_mov_to(struct vcpu *v, struct sys_op op);   /* MOV_TO_SREG */
int sys_seg_mov_from(struct vcpu *v, struct sys_op op); /* MOV_FROM_SREG */
int sys_seg_push(struct vcpu *v, struct sys_op op);     /* PUSH_SREG */
int sys_seg_pop(struct vcpu *v, struct sys_op op);      /* POP_SREG */
int sys_seg_lxs(struct vcpu *v, struct sys_op op);      /* LXS */
/* -- transfer.c -- */
int sys_xfer_jmp_far(struct vcpu *v, struct sys_op op);  /* JMP_FAR */
int sys_xfer_call_far(struct vcpu *v, struct sys_op op); /* CALL_FAR */
int sys_xfer_ret_far(struct vcpu *v, struct sys_op op);  /* RET_FAR */
int sys_xfer_iret(struct vcpu *v, struct sys_op op);     /* IRET */
int sys_xfer_syscall(struct vcpu *v, struct sys_op op);  /* SYSCALL */
int sys_xfer_sysret(struct vcpu *v, struct sys_op op);   /* SYSRET */
int sys_xfer_sysenter(struct vcpu *v, struct sys_op op); /* SYSENTER */
int sys_xfer_sysexit(struct vcpu *v, struct sys_op op);  /* SYSEXIT */
/* -- exception.c -- */
int sys_exc_int(struct vcpu *v, struct sys_op op);   /* INT */
int sys_exc_int3(struct vcpu *v, struct sys_op op);  /* INT3 */
int sys_exc_int1(struct vcpu *v, struct sys_op op);  /* INT1 */
int sys_exc_into(struct vcpu *v, struct sys_op op);  /* INTO */
int sys_exc_bound(struct vcpu *v, struct sys_op op); /* BOUND */
#endif
