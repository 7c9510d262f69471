/* monitor/legacy.c - instructions that access memory more than once, decimal arithmetic, MASKMOV, MOVDIR64B. nofpu.
 *
 * Each but ENTER and POPA is atomic towards faults: all its accesses are checked before the first write, registers change
 * last.
 */
#include "monitor/cpumodel.h"
#include "monitor/fpu.h"
#include "monitor/sysfn_int.h"

/* ---- stack ---- */

int sys_pusha(struct vcpu *v, struct sys_op op)
{
    struct cpu *c = &v->c;
    struct stk s;
    int err = 0;
    stk_open(v, &s, op.opsize);
    for (unsigned r = 0; r < 8 && !err; r++) /* RAX RCX RDX RBX RSP RBP RSI RDI: encoding order; RSP as it was */
        err = stk_push(v, &s, gpr_read(c, r, op.opsize, 0));
    if (!err)
        err = stk_flush(v, &s);
    if (err)
        return err;
    stack_set(c, s.mask, s.sp);
    return SYS_NEXT;
}

/* Registers that were popped before a fault have changed (measured); the stack pointer has not, so POPA starts again. */
int sys_popa(struct vcpu *v, struct sys_op op)
{
    struct cpu *c = &v->c;
    struct stk s;
    stk_open(v, &s, op.opsize);
    for (unsigned i = 0; i < 8; i++) {
        int err = stk_peek(v, &s, i * op.opsize, 1);
        if (err)
            return err;
        if (i != 7 - R_RSP) /* the stored stack pointer is passed over */
            gpr_write(c, 7 - i, op.opsize, 0, s.val[0]);
    }
    stack_set(c, s.mask, s.sp + 8u * op.opsize);
    return SYS_NEXT;
}

/* One element of ENTER's frame. It goes to memory at once: the display that is read next may be an alias of it. */
static int enter_push(struct vcpu *v, struct stk *s, uint64_t val)
{
    uint64_t lin, sp = (s->sp - s->size) & s->mask;
    int err = mem_linear(v, S_SS, sp, s->size, MEM_W, &lin);
    if (!err)
        err = mem_write_u(v, lin, s->size, MEM_W, val);
    s->sp = sp;
    return err;
}

static int enter_copy(struct vcpu *v, struct stk *s, uint64_t from)
{
    uint64_t lin, val;
    int err = mem_linear(v, S_SS, from & s->mask, s->size, MEM_R, &lin);
    if (!err)
        err = mem_read_u(v, lin, s->size, MEM_R, &val);
    return err ? err : enter_push(v, s, val);
}

/* Is the stack pointer that ENTER leaves writable? (SDM 2A, ENTER: #SS, #PF; measured: the page is touched as by a write.) */
static int enter_probe(struct vcpu *v, uint64_t sp, unsigned size)
{
    uint64_t lin;
    int err = mem_linear(v, S_SS, sp, size, MEM_W, &lin);
    return err ? err : mem_probe(v, lin, size, MEM_W);
}

/* A fault leaves what was pushed before it below the stack pointer, as processors do; registers are as before. */
int sys_enter(struct vcpu *v, struct sys_op op)
{
    struct cpu *c = &v->c;
    struct stk s;
    unsigned level = v->op_imm >> 16 & 31, bytes = v->op_imm & 0xffff, size = op.opsize;
    stk_open(v, &s, size);
    /* The frame pointer is as wide as the operand even if the stack pointer is not (measured). */
    uint64_t rbp = c->gpr[R_RBP], frame = c->gpr[R_RSP] - size;
    int err = enter_push(v, &s, rbp);
    for (unsigned i = 1; i < level && !err; i++)
        err = enter_copy(v, &s, rbp - (uint64_t)i * size);
    if (level && !err)
        err = enter_push(v, &s, frame);
    uint64_t sp = (s.sp - bytes) & s.mask;
    if (!err)
        err = enter_probe(v, sp, size);
    if (err)
        return err;
    gpr_write(c, R_RBP, size, 0, frame);
    stack_set(c, s.mask, sp);
    return SYS_NEXT;
}

int sys_push_mem(struct vcpu *v, struct sys_op op)
{
    uint64_t val;
    int err = rm_read(v, op, op.opsize, &val);
    return err ? err : stack_push(v, op.opsize, val);
}

int sys_pop_mem(struct vcpu *v, struct sys_op op)
{
    struct stk s;
    stk_open(v, &s, op.opsize);
    int err = stk_peek(v, &s, 0, 1);
    if (!err)
        err = rm_write(v, op, op.opsize, s.val[0]);
    if (err)
        return err;
    stack_set(&v->c, s.mask, s.sp + op.opsize);
    return SYS_NEXT;
}

int sys_call_mem(struct vcpu *v, struct sys_op op)
{
    struct cpu *c = &v->c;
    uint64_t target;
    int err = rm_read(v, op, op.opsize, &target);
    if (err)
        return err;
    if (cpu_code64(c) ? !x86_is_canonical(target) : target > c->seg[S_CS].limit)
        return fault_gp0(v);
    err = stack_push(v, op.opsize, next_rip(c, op.len));
    if (err)
        return err;
    c->rip = target;
    return SYS_JUMP;
}

int sys_xlat(struct vcpu *v, struct sys_op op)
{
    struct cpu *c = &v->c;
    uint64_t mask = addr_mask(op.asize), lin, val;
    int err = mem_linear(v, op.seg, (c->gpr[R_RBX] + (uint8_t)c->gpr[R_RAX]) & mask, 1, MEM_R, &lin);
    if (!err)
        err = mem_read_u(v, lin, 1, MEM_R, &val);
    if (err)
        return err;
    gpr_write(c, R_RAX, 1, SYS_F_REX, val);
    return SYS_NEXT;
}

/* ---- decimal arithmetic (SDM 2A, operation sections); flags that the manual leaves undefined become 0 ---- */

static void set_al(struct cpu *c, unsigned al) { gpr_write(c, R_RAX, 1, SYS_F_REX, al & 0xff); }
static uint32_t szp(uint8_t al)
{
    uint32_t f = al & 0x80 ? EFLAGS_SF : 0;
    if (!al)
        f |= EFLAGS_ZF;
    return __builtin_parity(al) ? f : f | EFLAGS_PF;
}

int sys_ascii_adjust(struct vcpu *v, struct sys_op op)
{
    struct cpu *c = &v->c;
    uint16_t ax = (uint16_t)c->gpr[R_RAX];
    bool adjust = (ax & 0xf) > 9 || (c->flags & EFLAGS_AF);
    if (adjust) /* AX + 106H; AAS: AX - 6, AH - 1 */
        ax = op.op == SYS_OP_AAA ? (uint16_t)(ax + 0x106) : (uint16_t)(ax - 0x106);
    gpr_write(c, R_RAX, 2, 0, ax & 0xff0f);
    c->flags = szp(ax & 0xf) | (adjust ? EFLAGS_AF | EFLAGS_CF : 0);
    return SYS_NEXT;
}

int sys_decimal_adjust(struct vcpu *v, struct sys_op op)
{
    struct cpu *c = &v->c;
    unsigned old = (uint8_t)c->gpr[R_RAX], al = old;
    bool sub = op.op == SYS_OP_DAS, carry = c->flags & EFLAGS_CF, cf = false, af = false;
    if ((old & 0xf) > 9 || (c->flags & EFLAGS_AF)) {
        af = true;
        al = sub ? al - 6 : al + 6;
        /* DAA: the carry out of AL + 6 cannot matter, AL > 99H then. DAS: the borrow stays, as the manual has it. */
        cf = carry || al > 0xff;
    }
    if (old > 0x99 || carry) {
        al = sub ? al - 0x60 : al + 0x60;
        cf = true;
    } else if (!sub)
        cf = false;
    set_al(c, al);
    c->flags = szp((uint8_t)al) | (af ? EFLAGS_AF : 0) | (cf ? EFLAGS_CF : 0);
    return SYS_NEXT;
}

int sys_aam(struct vcpu *v, struct sys_op op)
{
    struct cpu *c = &v->c;
    unsigned al = (uint8_t)c->gpr[R_RAX], base = (uint8_t)v->op_imm;
    if (!base)
        return sys_fault(v, EXC_DE);
    gpr_write(c, R_RAX, 2, 0, (al / base) << 8 | al % base);
    c->flags = szp((uint8_t)(al % base));
    return SYS_NEXT;
}

int sys_aad(struct vcpu *v, struct sys_op op)
{
    struct cpu *c = &v->c;
    unsigned ax = (uint16_t)c->gpr[R_RAX], a = ax & 0xff, b = (ax >> 8) * (uint8_t)v->op_imm & 0xff, sum = a + b;
    uint8_t al = (uint8_t)sum;
    gpr_write(c, R_RAX, 2, 0, al);
    /* OF, AF and CF are undefined; on the CPU all flags are those of the addition. */
    c->flags =
        szp(al) | (sum >> 8 & EFLAGS_CF) | ((a ^ b ^ sum) & EFLAGS_AF) | (~(a ^ b) & (a ^ sum) & 0x80 ? EFLAGS_OF : 0);
    return SYS_NEXT;
}

/* ---- MASKMOVQ, MASKMOVDQU ---- */

/* #UD and #NM as of any MMX or SSE instruction, #MF of a pending x87 exception (SDM 3A table 2-3). */
static int maskmov_allowed(struct vcpu *v, bool mmx)
{
    const struct cpu *c = &v->c;
    uint16_t fsw;
    if ((c->cr0 & CR0_EM) || (!mmx && !(c->cr4 & CR4_OSFXSR)))
        return sys_fault(v, EXC_UD);
    if (c->cr0 & CR0_TS)
        return sys_fault(v, EXC_NM);
    __builtin_memcpy(&fsw, v->xsave + FPU_FSW, 2);
    return mmx && (fsw & 0x80) ? sys_fault(v, EXC_MF) : 0;
}

/* MMX registers are physical: MMn is ST(n - TOP). */
static const uint8_t *mmx_reg(const struct vcpu *v, unsigned n)
{
    unsigned top = v->xsave[FPU_FSW + 1] >> 3 & 7;
    return v->xsave + FPU_ST + 16 * ((n - top) & 7);
}

/* One 8-byte half of the destination: whatever the mask, all of it is checked (SDM 2B leaves that open; measured). */
static int maskmov_probe(struct vcpu *v, struct sys_op op, unsigned half, uint64_t *lin)
{
    uint64_t mask = addr_mask(op.asize);
    int err = mem_linear(v, op.seg, (v->c.gpr[R_RDI] + 8 * half) & mask, 8, MEM_W, lin);
    return err ? err : mem_probe(v, *lin, 8, MEM_W);
}

/* Any MMX instruction makes TOP 0 and every register valid; the image's stack order turns with TOP (SDM 1 9.5.2). */
static void mmx_enter(struct vcpu *v)
{
    uint64_t st[16];
    for (unsigned n = 0; n < 8; n++)
        __builtin_memcpy(&st[2 * n], mmx_reg(v, n), 16);
    __builtin_memcpy(v->xsave + FPU_ST, st, sizeof(st));
    v->xsave[FPU_FSW + 1] &= (uint8_t)~0x38;
    v->xsave[FPU_FTW] = 0xff;
}

/* Writes those of 8 bytes whose mask byte has its top bit set, run by run. */
static int write_masked(struct vcpu *v, uint64_t lin, const uint8_t *data, const uint8_t *mask)
{
    for (unsigned i = 0; i < 8;) {
        unsigned k = i;
        while (k < 8 && (mask[k] & 0x80))
            k++;
        int err = k > i ? mem_write(v, lin + i, data + i, k - i, MEM_W | MEM_UNALIGNED) : 0;
        if (err)
            return err;
        i = k > i ? k : i + 1;
    }
    return 0;
}

/* MASKMOVDQU is two stores, the upper one first (measured). */
int sys_maskmov(struct vcpu *v, struct sys_op op)
{
    bool mmx = op.opsize == 8;
    unsigned halves = mmx ? 1 : 2;
    uint64_t lin[2];
    fpu_leave(v);
    fpu_image_own(v, mmx ? XCR0_X87 : XCR0_SSE);
    int err = maskmov_allowed(v, mmx);
    if (err)
        return err;
    if (mmx)
        mmx_enter(v); /* a fault of the store finds it done (measured) */
    for (unsigned i = halves; i-- && !err;)
        err = maskmov_probe(v, op, i, &lin[i]);
    if (err)
        return err;
    const uint8_t *data = mmx ? mmx_reg(v, op.reg) : v->xsave + FPU_XMM + 16 * (op.reg & 15);
    const uint8_t *mask = mmx ? mmx_reg(v, op.rm) : v->xsave + FPU_XMM + 16 * (op.rm & 15);
    for (unsigned i = halves; i-- && !err;)
        err = write_masked(v, lin[i], data + 8 * i, mask + 8 * i);
    return err;
}

/* ---- MOVDIR64B: 64 bytes, destination ES:reg aligned ---- */

int sys_movdir64b(struct vcpu *v, struct sys_op op)
{
    uint64_t src, dst, buf[8];
    if (!cpumodel_has(v->cpu, CPU_FEAT_MOVDIR64B))
        return sys_fault(v, EXC_UD);
    int err = mem_linear(v, op.seg, v->ea, 64, MEM_R, &src);
    if (!err)
        err = mem_read(v, src, buf, 64, MEM_R);
    if (!err)
        err = mem_linear(v, S_ES, gpr_read(&v->c, op.reg, op.asize, 0), 64, MEM_W, &dst);
    if (err)
        return err;
    return dst & 63 ? fault_gp0(v) : mem_write(v, dst, buf, 64, MEM_W);
}
