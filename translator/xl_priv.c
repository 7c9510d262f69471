/* translator/xl_priv.c - sensitive and privileged instructions: inlined against the vCPU block, or callouts. */
#include "translator/xl_int.h"
#include <string.h>

/* STI: the next instruction runs before an interrupt is taken (SDM 2B STI). If something is pending, leave with the shadow
 * set; otherwise go on - what becomes pending later unlinks this block. */
static void emit_sti(struct xl *x, struct xl_insn *n)
{
    struct emit *e = x->hot, *c = x->cold;
    xl_spill(x, R_RCX);
    em_ld32(e, R_RCX, x->l->event_pending);
    em_sti8(e, xl_cpu(x, offsetof(struct cpu, if_flag)), 1);
    em_jmp_unless_rcx0(e, em_pc(c));
    xl_bring_back(x, c);
    em_sti8(c, xl_cpu(x, offsetof(struct cpu, shadow)), 1);
    xl_set_rip(x, c, xl_next_rip(x, n));
    em_jmp(c, x->g->exit_dispatch);
}

static void emit_mov_from_sreg(struct xl *x, struct xl_insn *n)
{
    unsigned dst = (unsigned)xl_gpr(n->op[0].reg.value), seg = (unsigned)(n->op[1].reg.value - ZYDIS_REGISTER_ES);
    uint64_t sel = xl_cpu(x, offsetof(struct cpu, seg) + seg * sizeof(struct seg) + offsetof(struct seg, sel));
    if (n->i.operand_width == 16) {
        xl_unspill(x, BIT(dst));
        em8(x->hot, 0x66);
        em_op_abs(x->hot, 0, 0x8b, dst, sel);
    } else {
        em_movzx16_abs(x->hot, dst, sel);
        x->spilled &= (uint16_t)~BIT(dst);
    }
}

static uint64_t cr_slot(const struct xl *x, ZydisRegister cr)
{
    switch (cr) {
    case ZYDIS_REGISTER_CR0: return xl_cpu(x, offsetof(struct cpu, cr0));
    case ZYDIS_REGISTER_CR2: return xl_cpu(x, offsetof(struct cpu, cr2));
    case ZYDIS_REGISTER_CR3: return xl_cpu(x, offsetof(struct cpu, cr3));
    case ZYDIS_REGISTER_CR4: return xl_cpu(x, offsetof(struct cpu, cr4));
    default: return xl_cpu(x, offsetof(struct cpu, cr8));
    }
}

static void emit_mov_from_cr(struct xl *x, struct xl_insn *n)
{
    unsigned dst = (unsigned)xl_gpr(n->op[0].reg.value);
    if (x->m64)
        em_ld64(x->hot, dst, cr_slot(x, n->op[1].reg.value));
    else
        em_ld32(x->hot, dst, cr_slot(x, n->op[1].reg.value));
    x->spilled &= (uint16_t)~BIT(dst);
}

/* A store, unless the value is too large or an interrupt waits that the new priority may let through. */
static void emit_to_cr8(struct xl *x, struct xl_insn *n)
{
    struct emit *e = x->hot;
    unsigned src = (unsigned)xl_gpr(n->op[1].reg.value);
    uint64_t slot = xl_slot(x, R_RCX);
    xl_unspill(x, x->spilled); /* both ways go on alike */
    em_st64(e, R_RCX, slot);
    em_pext_abs(e, R_RCX, src, x->l->const_cr8);
    uint8_t *small = em_jrcxz(e);
    em8(e, 0xeb), em8(e, 0); /* jmp slow */
    uint8_t *slow = e->p - 1;
    em_here8(e, small);
    em_ld32(e, R_RCX, x->l->cr8_slow);
    uint8_t *store = em_jrcxz(e);
    em_here8(e, slow);
    em_ld64(e, R_RCX, slot);
    xl_emit_sys(x, n);
    em8(e, 0xeb), em8(e, 0); /* jmp done */
    uint8_t *done = e->p - 1;
    em_here8(e, store);
    em_ld64(e, R_RCX, slot);
    em_st64(e, src, cr_slot(x, ZYDIS_REGISTER_CR8));
    em_here8(e, done);
}

/* AL = CF ? FFh : 0, without touching the flags. Outside 64-bit mode only. */
static void emit_salc(struct xl *x)
{
    struct emit *e = x->hot;
    xl_unspill(x, BIT(R_RAX));
    em8(e, 0x41), em8(e, 0x0f), em8(e, 0x93), em8(e, 0xc0); /* setnc r8b */
    em_lea(e, 0, R_R8, R_R8, NO_REG, 0, -1);
    em8(e, 0x44), em8(e, 0x88), em8(e, 0xc0); /* mov al, r8b */
}

void xl_emit_priv(struct xl *x, struct xl_insn *n)
{
    switch (n->act) {
    case XL_ACT_CLI: em_sti8(x->hot, xl_cpu(x, offsetof(struct cpu, if_flag)), 0); break;
    case XL_ACT_STI: emit_sti(x, n); break;
    case XL_ACT_CLD: em_sti8(x->hot, xl_cpu(x, offsetof(struct cpu, df_flag)), 0); break;
    case XL_ACT_SALC: emit_salc(x); break;
    case XL_ACT_MOV_FROM_CR: emit_mov_from_cr(x, n); break;
    case XL_ACT_MOV_TO_CR8: emit_to_cr8(x, n); break;
    case XL_ACT_STD: em_sti8(x->hot, xl_cpu(x, offsetof(struct cpu, df_flag)), 1); break;
    default: emit_mov_from_sreg(x, n); break;
    }
}

static const ZydisDecodedOperand *visible_memory(const struct xl_insn *n)
{
    for (unsigned k = 0; k < n->i.operand_count; k++)
        if (n->op[k].type == ZYDIS_OPERAND_TYPE_MEMORY && n->op[k].visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN)
            return &n->op[k];
    return NULL;
}

static unsigned seg_number(ZydisRegister r)
{
    return r >= ZYDIS_REGISTER_ES && r <= ZYDIS_REGISTER_GS ? (unsigned)(r - ZYDIS_REGISTER_ES) : S_DS;
}

static unsigned reg_number(const ZydisDecodedOperand *o)
{
    int g = xl_gpr(o->reg.value);
    if (g >= 0)
        return (unsigned)g;
    switch (ZydisRegisterGetClass(o->reg.value)) {
    case ZYDIS_REGCLASS_SEGMENT: return seg_number(o->reg.value);
    case ZYDIS_REGCLASS_CONTROL: return (unsigned)(o->reg.value - ZYDIS_REGISTER_CR0);
    case ZYDIS_REGCLASS_DEBUG: return (unsigned)(o->reg.value - ZYDIS_REGISTER_DR0);
    default: return (unsigned)(uint8_t)ZydisRegisterGetId(o->reg.value);
    }
}

/* Which operand is sys_op.reg: 0 or 1 by the instruction's form; -1 = none. The other register operand is rm. */
static int reg_operand(uint8_t op)
{
    switch (op) {
    case SYS_OP_MOV_TO_SREG:
    case SYS_OP_MOV_TO_CR:
    case SYS_OP_MOV_TO_DR:
    case SYS_OP_PUSH_SREG:
    case SYS_OP_POP_SREG:
    case SYS_OP_LXS:
    case SYS_OP_BOUND:
    case SYS_OP_LAR:
    case SYS_OP_LSL:
    case SYS_OP_INVPCID:
    case SYS_OP_MOVDIR64B: return 0;
    case SYS_OP_MOV_FROM_SREG:
    case SYS_OP_MOV_FROM_CR:
    case SYS_OP_MOV_FROM_DR:
    case SYS_OP_ARPL: return 1;
    default: return -1;
    }
}

/* Element size of a string instruction, from its hidden memory operand. */
static unsigned element_bytes(const struct xl_insn *n)
{
    for (unsigned k = 0; k < n->i.operand_count; k++)
        if (n->op[k].type == ZYDIS_OPERAND_TYPE_MEMORY)
            return xl_operand_bytes(&n->op[k]);
    return 1;
}

static bool is_string(uint8_t op) { return op >= SYS_OP_INS && op <= SYS_OP_SCAS; }

/* Source segment of a string instruction or XLAT: the override or DS; of anything else: its memory operand's. */
static unsigned source_segment(const struct xl_insn *n)
{
    const ZydisDecodedOperand *o = visible_memory(n);
    if (o && !is_string(n->sys))
        return seg_number(o->mem.segment);
    for (unsigned k = 0; k < n->i.operand_count; k++)
        if (n->op[k].type == ZYDIS_OPERAND_TYPE_MEMORY && n->op[k].mem.segment != ZYDIS_REGISTER_ES)
            return seg_number(n->op[k].mem.segment);
    if (n->i.attributes & ZYDIS_ATTRIB_HAS_SEGMENT_ES)
        return S_ES;
    return S_DS;
}

/* The immediate that goes with the instruction. */
static bool immediate(const struct xl_insn *n, uint64_t *imm)
{
    if (n->sys == SYS_OP_LXS) {
        switch (n->i.mnemonic) {
        case ZYDIS_MNEMONIC_LES: *imm = S_ES; break;
        case ZYDIS_MNEMONIC_LDS: *imm = S_DS; break;
        case ZYDIS_MNEMONIC_LSS: *imm = S_SS; break;
        case ZYDIS_MNEMONIC_LFS: *imm = S_FS; break;
        default: *imm = S_GS; break;
        }
        return true;
    }
    if (n->sys == SYS_OP_RET_FAR) { /* without an immediate: releases nothing */
        *imm = n->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? n->op[0].imm.value.u : 0;
        return true;
    }
    for (unsigned k = 0; k < n->i.operand_count; k++) {
        const ZydisDecodedOperand *o = &n->op[k];
        if (o->type == ZYDIS_OPERAND_TYPE_POINTER) {
            *imm = (uint64_t)o->ptr.segment << 32 | o->ptr.offset;
            return true;
        }
        if (o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
            *imm = o->imm.value.u;
            if (n->sys == SYS_OP_ENTER)
                *imm = (n->op[1].imm.value.u & 0xff) << 16 | (o->imm.value.u & 0xffff);
            return true;
        }
    }
    return false;
}

static unsigned op_bytes(const struct xl_insn *n)
{
    if (is_string(n->sys))
        return element_bytes(n);
    switch (n->sys) {
    case SYS_OP_IN: return xl_operand_bytes(&n->op[0]);
    case SYS_OP_OUT: return xl_operand_bytes(&n->op[1]);
    case SYS_OP_PUSH_SREG:
    case SYS_OP_POP_SREG:
    case SYS_OP_POP_MEM: return xl_stack_bytes(n);
    case SYS_OP_MASKMOV: return n->i.mnemonic == ZYDIS_MNEMONIC_MASKMOVQ ? 8 : 16;
    case SYS_OP_RDFSBASE: /* 66h has no meaning here */
    case SYS_OP_RDGSBASE:
    case SYS_OP_WRFSBASE:
    case SYS_OP_WRGSBASE:
    case SYS_OP_FXSAVE:
    case SYS_OP_FXRSTOR:
    case SYS_OP_XSAVE:
    case SYS_OP_XSAVEOPT:
    case SYS_OP_XSAVEC:
    case SYS_OP_XRSTOR: return n->i.raw.rex.W ? 8 : 4;
    case SYS_OP_LGDT:
    case SYS_OP_LIDT:
    case SYS_OP_SGDT:
    case SYS_OP_SIDT: return n->i.machine_mode == ZYDIS_MACHINE_MODE_LONG_64 ? 8 : n->i.operand_width / 8u;
    default: return n->i.operand_width / 8u;
    }
}

static struct sys_op describe(const struct xl_insn *n, bool mem)
{
    struct sys_op s = {.op = n->sys,
                       .opsize = (uint8_t)op_bytes(n),
                       .rm = mem ? SYS_RM_MEM : 0,
                       .len = n->i.length,
                       .asize = (uint8_t)(n->i.address_width / 8u),
                       .seg = (uint8_t)source_segment(n)};
    int ro = reg_operand(n->sys);
    if (n->sys == SYS_OP_MASKMOV) {
        s.reg = (uint8_t)ZydisRegisterGetId(n->op[0].reg.value);
        s.rm = (uint8_t)ZydisRegisterGetId(n->op[1].reg.value);
    } else {
        for (int k = 0; k < n->i.operand_count_visible && k < 2; k++) {
            if (n->op[k].type != ZYDIS_OPERAND_TYPE_REGISTER)
                continue;
            if (k == ro)
                s.reg = (uint8_t)reg_number(&n->op[k]);
            else
                s.rm = (uint8_t)reg_number(&n->op[k]);
        }
    }
    if (n->i.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE))
        s.flags |= SYS_F_REP;
    if (n->i.attributes & ZYDIS_ATTRIB_HAS_REPNE)
        s.flags |= SYS_F_REPNE;
    if (n->i.attributes & ZYDIS_ATTRIB_HAS_REX)
        s.flags |= SYS_F_REX;
    if (n->i.attributes & ZYDIS_ATTRIB_HAS_LOCK)
        s.flags |= SYS_F_LOCK;
    if (n->ends)
        s.flags |= SYS_F_END;
    return s;
}

static void pass_address(struct xl *x, struct xl_insn *n)
{
    struct xl_ea ea;
    unsigned t = xl_pick(x, n->use, false);
    xl_ea_of(x, n, &ea);
    if (n->sys == SYS_OP_POP_MEM && ea.base == R_RSP) /* the address is made with the stack pointer already increased */
        ea.disp += (int32_t)op_bytes(n);
    xl_emit_ea(x, &ea, t);
    em_st64(x->hot, t, x->l->ea);
}

uint64_t xl_fault_stub(struct xl *x, const struct xl_insn *n, unsigned sys)
{
    struct emit *c = x->cold;
    struct sys_op s = {.op = (uint8_t)sys, .len = n->i.length, .flags = SYS_F_END};
    uint64_t packed, pc = em_pc(c);
    memcpy(&packed, &s, sizeof packed);
    em_sti64(c, x->l->op, packed);
    xl_set_rip(x, c, xl_rip(x, n));
    xl_call_glue(x, c, x->g->callout, n->off);
    em8(c, 0x0f), em8(c, 0x0b); /* never comes back */
    return pc;
}

/* The instruction itself, for a decoder that makes a base of VEX.B or EVEX.B where the SIB byte says that there is none. */
static void emit_copy(struct xl *x, const struct xl_insn *n)
{
    unsigned at = n->i.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX ? n->i.raw.evex.offset : n->i.raw.vex.offset;
    bool no_base = n->i.raw.modrm.mod == 0 && n->i.raw.sib.base == 5;
    for (unsigned k = 0; k < n->i.length; k++)
        em8(x->cold, n->bytes[k] | (no_base && k == at + 1 ? 0x20 : 0));
}

void xl_emit_sys(struct xl *x, struct xl_insn *n)
{
    struct emit *e = x->hot;
    const ZydisDecodedOperand *mem = n->cls == XL_UD ? NULL : visible_memory(n);
    bool vsib = n->sys == SYS_OP_VSIB;
    if (n->sys == SYS_OP_UD || n->sys == SYS_OP_NM || n->sys == SYS_OP_GP0)
        mem = NULL;
    struct sys_op s = describe(n, mem && !is_string(n->sys) && n->sys != SYS_OP_XLAT && n->sys != SYS_OP_MASKMOV);
    uint64_t imm, packed;
    xl_unspill(x, x->spilled);
    if (x->in->trap)
        xl_trap_emit(x, n);
    if (s.rm == SYS_RM_MEM && !vsib)
        pass_address(x, n);
    xl_unspill(x, x->spilled);
    if (vsib) { /* decoded again in C: leave a copy of the instruction out of line */
        imm = em_pc(x->cold);
        emit_copy(x, n);
        s.flags |= SYS_F_IMM;
        em_sti64(e, x->l->op_imm, imm);
    } else if (immediate(n, &imm)) {
        s.flags |= SYS_F_IMM;
        em_sti64(e, x->l->op_imm, imm);
    }
    memcpy(&packed, &s, sizeof packed);
    em_sti64(e, x->l->op, packed);
    xl_set_rip(x, e, xl_rip(x, n));
    xl_call_glue(x, e, x->g->callout, n->off);
    if (n->ends) {
        em8(e, 0x0f), em8(e, 0x0b); /* never comes back */
        x->stop = true;
    }
}
