/* translator/xl_trap.c - the policy of -accel trap: what a deprivileged guest would trap on traps here too.
 *
 * A sensitive instruction of kernel code becomes a privileged one of the host's (HLT: #GP, a signal) in front of the callout that
 * carries it out; the handler steps over it. Nothing is inlined. User code traps where the CPU itself would at CPL 3.
 * HLT rather than INT3 (as fast) or UD2 (6 times as slow, docs/PERFORMANCE.md): no guest instruction is ever copied with that first byte.
 */
#include "translator/xl_int.h"

static bool is_kernel(const struct xl *x) { return xl_cpl(x) != 3; }

void xl_trap_class(struct xl *x, struct xl_insn *n)
{
    if (!is_kernel(x))
        return;
    switch (n->act) {
    case XL_ACT_CLI: n->sys = SYS_OP_CLI; break;
    case XL_ACT_STI: n->sys = SYS_OP_STI; break;
    case XL_ACT_RDTSC: n->sys = SYS_OP_RDTSC; break;
    case XL_ACT_MOV_FROM_CR:
    case XL_ACT_MOV_TO_CR8: break;
    case XL_ACT_MOV_FROM_SREG: n->sys = SYS_OP_MOV_FROM_SREG; break;
    default: return;
    }
    n->cls = XL_CALLOUT;
    n->act = XL_ACT_SYS;
}

/* Carried out in C for other reasons than privilege: 64-bit mode has lost them, or they access memory several times. */
static bool is_harmless(uint8_t op)
{
    return (op >= SYS_OP_MOVS && op <= SYS_OP_SCAS) || (op >= SYS_OP_PUSHA && op <= SYS_OP_VSIB) ||
           op == SYS_OP_BOUND || op == SYS_OP_INTO;
}

/* Sensitive but not privileged: at CPL 3 the CPU carries them out (Popek and Goldberg's complaint about this architecture). */
static bool is_unprivileged(uint8_t op)
{
    switch (op) {
    case SYS_OP_MOV_TO_SREG:
    case SYS_OP_MOV_FROM_SREG:
    case SYS_OP_PUSH_SREG:
    case SYS_OP_POP_SREG:
    case SYS_OP_LXS:
    case SYS_OP_JMP_FAR:
    case SYS_OP_CALL_FAR:
    case SYS_OP_RET_FAR:
    case SYS_OP_IRET:
    case SYS_OP_SGDT:
    case SYS_OP_SIDT:
    case SYS_OP_SLDT:
    case SYS_OP_STR:
    case SYS_OP_SMSW:
    case SYS_OP_LAR:
    case SYS_OP_LSL:
    case SYS_OP_VERR:
    case SYS_OP_VERW:
    case SYS_OP_ARPL:
    case SYS_OP_CPUID:
    case SYS_OP_RDTSC:
    case SYS_OP_RDTSCP:
    case SYS_OP_RDPID:
    case SYS_OP_XGETBV:
    case SYS_OP_RDFSBASE:
    case SYS_OP_RDGSBASE:
    case SYS_OP_WRFSBASE:
    case SYS_OP_WRGSBASE:
    case SYS_OP_PUSHF:
    case SYS_OP_POPF: return true;
    default: return false;
    }
}

void xl_trap_emit(struct xl *x, const struct xl_insn *n)
{
    if (!is_harmless(n->sys) && (is_kernel(x) || !is_unprivileged(n->sys)))
        em8(x->hot, XL_TRAP_BYTE);
}
