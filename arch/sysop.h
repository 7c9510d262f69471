/* arch/sysop.h - instructions that are carried out in C: their numbers and the decoded form passed to them.
 *
 * Role:    the contract between translator (which classifies) and monitor (which carries out).
 */
#ifndef ARCH_SYSOP_H
#define ARCH_SYSOP_H
#include <stdint.h>

/* One decoded system instruction, 8 bytes so that generated code can pass it as an immediate. */
struct sys_op {
    uint8_t op;     /* SYS_OP_*, arch/sysop.def */
    uint8_t opsize; /* bytes: 1, 2, 4, 8: the effective operand size */
    uint8_t reg;    /* register number from ModRM.reg: GPR, CRn, DRn, segment register, by op */
    uint8_t rm;     /* GPR number of a register operand, or SYS_RM_MEM: memory at seg:c_ea */
    uint8_t seg;    /* segment of the memory operand (override applied; FS/GS bases count in 64-bit mode) */
    uint8_t len;    /* instruction length */
    uint8_t asize;  /* address size in bytes: 2, 4, 8 */
    uint8_t flags;  /* SYS_F_* */
};
_Static_assert(sizeof(struct sys_op) == 8, "passed in a register");
#define SYS_RM_MEM 0xffu
#define SYS_F_REP 0x01u   /* F3: REP / REPE */
#define SYS_F_REPNE 0x02u /* F2 */
#define SYS_F_IMM 0x04u   /* v->op_imm holds an immediate (port, far pointer sel<<32... see sysop.def) */
#define SYS_F_REX 0x08u   /* register bytes 4-7 are SPL..DIL, not AH..BH */
#define SYS_F_LOCK 0x10u
#define SYS_F_END 0x80u /* the block ends here: the run loop takes over after it whatever happens */

enum sys_opcode {
#define SYSOP(name, comment) SYS_OP_##name,
#include "arch/sysop.def"
#undef SYSOP
    SYS_OP_COUNT
};

#endif
