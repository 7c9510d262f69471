/* translator/xl_classify.c - which way each instruction is translated.
 *
 * Everything is refused (#UD) unless it is known to behave at host CPL 3 as it does in the guest: either its category is on
 * the list of harmless ones, or its mnemonic has an entry of its own.
 */
#include "translator/xl_int.h"

static void set(struct xl_insn *n, enum xl_class cls, enum xl_act act, bool ends)
{
    n->cls = (uint8_t)cls;
    n->act = (uint8_t)act;
    n->ends = ends;
}
static void sys(struct xl_insn *n, enum sys_opcode op, bool ends)
{
    set(n, XL_CALLOUT, XL_ACT_SYS, ends);
    n->sys = (uint8_t)op;
}
static void refuse(struct xl_insn *n)
{
    set(n, XL_UD, XL_ACT_SYS, true);
    n->sys = SYS_OP_UD;
}

/* -- x87/MMX/SSE/AVX state: is it switched on? (SDM 3A 2.5, 13.1) -- */
enum { USES_X87 = 1, USES_MMX = 2, USES_SSE = 4, USES_AVX = 8, USES_AVX512 = 16 };

/* Instructions that need not name a register of these. */
static unsigned vector_use_unnamed(ZydisMnemonic m)
{
    switch (m) {
    case ZYDIS_MNEMONIC_EMMS:
    case ZYDIS_MNEMONIC_FEMMS: return USES_MMX;
    case ZYDIS_MNEMONIC_CVTSD2SI: /* from memory: MXCSR alone */
    case ZYDIS_MNEMONIC_CVTSS2SI:
    case ZYDIS_MNEMONIC_CVTTSD2SI:
    case ZYDIS_MNEMONIC_CVTTSS2SI: return USES_SSE;
    case ZYDIS_MNEMONIC_VCVTSD2SI:
    case ZYDIS_MNEMONIC_VCVTSS2SI:
    case ZYDIS_MNEMONIC_VCVTTSD2SI:
    case ZYDIS_MNEMONIC_VCVTTSS2SI:
    case ZYDIS_MNEMONIC_VZEROALL:
    case ZYDIS_MNEMONIC_VZEROUPPER: return USES_AVX;
    default: return 0;
    }
}

static unsigned vector_use(const struct xl_insn *n)
{
    unsigned u = 0;
    bool vex = n->i.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY;
    for (unsigned k = 0; k < n->i.operand_count; k++) {
        const ZydisDecodedOperand *o = &n->op[k];
        if (o->type == ZYDIS_OPERAND_TYPE_MEMORY && o->mem.type == ZYDIS_MEMOP_TYPE_VSIB)
            u |= USES_AVX;
        if (o->type != ZYDIS_OPERAND_TYPE_REGISTER)
            continue;
        switch (ZydisRegisterGetClass(o->reg.value)) {
        case ZYDIS_REGCLASS_X87: u |= USES_X87; break;
        case ZYDIS_REGCLASS_MMX: u |= USES_MMX; break;
        case ZYDIS_REGCLASS_XMM:
        case ZYDIS_REGCLASS_YMM:
        case ZYDIS_REGCLASS_ZMM: u |= vex ? USES_AVX : USES_SSE; break;
        case ZYDIS_REGCLASS_MASK: u |= USES_AVX512; break;
        default:
            if (o->reg.value == ZYDIS_REGISTER_MXCSR)
                u |= vex ? USES_AVX : USES_SSE;
            else if (o->reg.value == ZYDIS_REGISTER_X87CONTROL || o->reg.value == ZYDIS_REGISTER_X87STATUS ||
                     o->reg.value == ZYDIS_REGISTER_X87TAG)
                u |= USES_X87;
        }
    }
    if (n->i.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX)
        u |= USES_AVX512;
    if (n->i.meta.isa_ext == ZYDIS_ISA_EXT_X87)
        u |= USES_X87;
    return u | vector_use_unnamed(n->i.mnemonic);
}

/* Returns true if the state of CR0/CR4/XCR0 makes the instruction an exception, and turns it into that. */
static bool vector_off(const struct xl *x, struct xl_insn *n)
{
    uint32_t k = x->in->key;
    unsigned u = vector_use(n);
    bool ud = false, nm = false;
    n->fpu = u || n->i.mnemonic == ZYDIS_MNEMONIC_FWAIT;
    if (n->i.mnemonic == ZYDIS_MNEMONIC_FWAIT) {
        nm = (k & CPU_KEY_TS) && (k & CPU_KEY_MP);
    } else if (u & (USES_AVX | USES_AVX512)) {
        ud = !(k & CPU_KEY_AVX) || ((u & USES_AVX512) && !(k & CPU_KEY_AVX512));
        nm = k & CPU_KEY_TS;
    } else if (u & USES_SSE) {
        ud = (k & CPU_KEY_EM) || !(k & CPU_KEY_OSFXSR);
        nm = k & CPU_KEY_TS;
    } else if (u & USES_MMX) {
        ud = k & CPU_KEY_EM;
        nm = k & CPU_KEY_TS;
    } else if (u & USES_X87) {
        nm = k & (CPU_KEY_TS | CPU_KEY_EM);
    }
    /* VEX, EVEX and XOP do not exist in real and virtual-8086 mode (SDM 2A 2.3.5). */
    if (n->i.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY && n->i.encoding != ZYDIS_INSTRUCTION_ENCODING_3DNOW &&
        (k & CPU_KEY_REAL))
        ud = true;
    if (ud)
        refuse(n);
    else if (nm)
        sys(n, SYS_OP_NM, true);
    return ud || nm;
}

/* Categories whose instructions do at CPL 3 exactly what they do at CPL 0. */
static bool harmless_category(ZydisInstructionCategory c)
{
    switch (c) {
    case ZYDIS_CATEGORY_ADOX_ADCX:
    case ZYDIS_CATEGORY_AES:
    case ZYDIS_CATEGORY_AMD3DNOW:
    case ZYDIS_CATEGORY_AVX:
    case ZYDIS_CATEGORY_AVX2:
    case ZYDIS_CATEGORY_AVX2GATHER:
    case ZYDIS_CATEGORY_AVX512:
    case ZYDIS_CATEGORY_AVX512_4FMAPS:
    case ZYDIS_CATEGORY_AVX512_4VNNIW:
    case ZYDIS_CATEGORY_AVX512_BITALG:
    case ZYDIS_CATEGORY_AVX512_VBMI:
    case ZYDIS_CATEGORY_AVX512_VP2INTERSECT:
    case ZYDIS_CATEGORY_BINARY:
    case ZYDIS_CATEGORY_BITBYTE:
    case ZYDIS_CATEGORY_BLEND:
    case ZYDIS_CATEGORY_BMI1:
    case ZYDIS_CATEGORY_BMI2:
    case ZYDIS_CATEGORY_BROADCAST:
    case ZYDIS_CATEGORY_CLDEMOTE:
    case ZYDIS_CATEGORY_CLFLUSHOPT:
    case ZYDIS_CATEGORY_CLWB:
    case ZYDIS_CATEGORY_CMOV:
    case ZYDIS_CATEGORY_COMPRESS:
    case ZYDIS_CATEGORY_CONFLICT:
    case ZYDIS_CATEGORY_CONVERT:
    case ZYDIS_CATEGORY_DATAXFER:
    case ZYDIS_CATEGORY_DECIMAL:
    case ZYDIS_CATEGORY_EXPAND:
    case ZYDIS_CATEGORY_FCMOV:
    case ZYDIS_CATEGORY_FLAGOP:
    case ZYDIS_CATEGORY_FMA4:
    case ZYDIS_CATEGORY_FP16:
    case ZYDIS_CATEGORY_GATHER:
    case ZYDIS_CATEGORY_GFNI:
    case ZYDIS_CATEGORY_IFMA:
    case ZYDIS_CATEGORY_KMASK:
    case ZYDIS_CATEGORY_LOGICAL:
    case ZYDIS_CATEGORY_LOGICAL_FP:
    case ZYDIS_CATEGORY_LZCNT:
    case ZYDIS_CATEGORY_MMX:
    case ZYDIS_CATEGORY_MOVDIR:
    case ZYDIS_CATEGORY_NOP:
    case ZYDIS_CATEGORY_PCLMULQDQ:
    case ZYDIS_CATEGORY_PREFETCH:
    case ZYDIS_CATEGORY_PREFETCHWT1:
    case ZYDIS_CATEGORY_RDRAND:
    case ZYDIS_CATEGORY_RDSEED:
    case ZYDIS_CATEGORY_ROTATE:
    case ZYDIS_CATEGORY_SCATTER:
    case ZYDIS_CATEGORY_SEMAPHORE:
    case ZYDIS_CATEGORY_SERIALIZE:
    case ZYDIS_CATEGORY_SETCC:
    case ZYDIS_CATEGORY_SHA:
    case ZYDIS_CATEGORY_SHIFT:
    case ZYDIS_CATEGORY_SSE:
    case ZYDIS_CATEGORY_STTNI:
    case ZYDIS_CATEGORY_TBM:
    case ZYDIS_CATEGORY_VAES:
    case ZYDIS_CATEGORY_VBMI2:
    case ZYDIS_CATEGORY_VEX:
    case ZYDIS_CATEGORY_VFMA:
    case ZYDIS_CATEGORY_VPCLMULQDQ:
    case ZYDIS_CATEGORY_WIDENOP:
    case ZYDIS_CATEGORY_X87_ALU:
    case ZYDIS_CATEGORY_XOP: return true;
    default: return false;
    }
}

static void classify_default(struct xl_insn *n)
{
    if ((n->i.attributes & ZYDIS_ATTRIB_IS_PRIVILEGED) || !harmless_category(n->i.meta.category)) {
        refuse(n);
        return;
    }
    for (unsigned k = 0; k < n->i.operand_count_visible; k++)
        if (n->op[k].type == ZYDIS_OPERAND_TYPE_MEMORY && n->op[k].mem.type == ZYDIS_MEMOP_TYPE_VSIB) {
            sys(n, SYS_OP_VSIB, false);
            return;
        }
    if (n->mem >= 0)
        set(n, XL_MEM, XL_ACT_MEM, false);
    else
        set(n, XL_IDENT, XL_ACT_IDENT, false);
}

static bool is_moffs(const struct xl_insn *n)
{
    return n->i.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && n->i.opcode >= 0xa0 && n->i.opcode <= 0xa3;
}

static void classify_cr(struct xl *x, struct xl_insn *n, bool to)
{
    ZydisRegister cr = n->op[to ? 0 : 1].reg.value;
    bool cr8 = cr == ZYDIS_REGISTER_CR8 && x->m64 && x->l->cr8_slow;
    sys(n, to ? SYS_OP_MOV_TO_CR : SYS_OP_MOV_FROM_CR, to && !cr8);
    if (xl_cpl(x) != 0)
        return;
    if (to && cr8)
        set(n, XL_INLINE, XL_ACT_MOV_TO_CR8, false);
    else if (!to && (cr8 || cr == ZYDIS_REGISTER_CR0 || (cr >= ZYDIS_REGISTER_CR2 && cr <= ZYDIS_REGISTER_CR4)))
        set(n, XL_INLINE, XL_ACT_MOV_FROM_CR, false);
}

static void classify_mov(struct xl *x, struct xl_insn *n)
{
    for (unsigned k = 0; k < 2; k++) {
        if (n->op[k].type != ZYDIS_OPERAND_TYPE_REGISTER)
            continue;
        switch (ZydisRegisterGetClass(n->op[k].reg.value)) {
        case ZYDIS_REGCLASS_SEGMENT:
            if (k == 0)
                sys(n, SYS_OP_MOV_TO_SREG, false);
            else if (n->op[0].type == ZYDIS_OPERAND_TYPE_REGISTER)
                set(n, XL_INLINE, XL_ACT_MOV_FROM_SREG, false);
            else
                sys(n, SYS_OP_MOV_FROM_SREG, false);
            return;
        case ZYDIS_REGCLASS_CONTROL: classify_cr(x, n, k == 0); return;
        case ZYDIS_REGCLASS_DEBUG: sys(n, k == 0 ? SYS_OP_MOV_TO_DR : SYS_OP_MOV_FROM_DR, k == 0); return;
        case ZYDIS_REGCLASS_TEST: refuse(n); return;
        default: break;
        }
    }
    if (is_moffs(n))
        set(n, XL_MEM, XL_ACT_MOFFS, false);
    else
        classify_default(n);
}

static bool first_operand_is(const struct xl_insn *n, ZydisOperandType t) { return n->op[0].type == t; }

static void classify_branch(struct xl_insn *n, bool call)
{
    if (n->i.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
        sys(n, call ? SYS_OP_CALL_FAR : SYS_OP_JMP_FAR, true);
    else if (first_operand_is(n, ZYDIS_OPERAND_TYPE_IMMEDIATE))
        set(n, call ? XL_CALL : XL_JMP, call ? XL_ACT_CALL : XL_ACT_JMP, true);
    else
        set(n, call ? XL_CALL_IND : XL_JMP_IND, call ? XL_ACT_CALL_IND : XL_ACT_JMP_IND, true);
}

static bool is_sreg(const ZydisDecodedOperand *o)
{
    return o->type == ZYDIS_OPERAND_TYPE_REGISTER && ZydisRegisterGetClass(o->reg.value) == ZYDIS_REGCLASS_SEGMENT;
}

static void classify_push_pop(struct xl_insn *n, bool push)
{
    if (is_sreg(&n->op[0]))
        sys(n, push ? SYS_OP_PUSH_SREG : SYS_OP_POP_SREG, false);
    else if (first_operand_is(n, ZYDIS_OPERAND_TYPE_MEMORY)) {
        if (push)
            set(n, XL_STACK, XL_ACT_PUSH_M, false);
        else
            sys(n, SYS_OP_POP_MEM, false);
    } else if (first_operand_is(n, ZYDIS_OPERAND_TYPE_IMMEDIATE))
        set(n, XL_STACK, XL_ACT_PUSH_I, false);
    else
        set(n, XL_STACK, push ? XL_ACT_PUSH_R : XL_ACT_POP_R, false);
}

void xl_classify(struct xl *x, struct xl_insn *n)
{
    bool ring0 = xl_cpl(x) == 0, plain = !(x->in->key & CPU_KEY_STEP);
    n->fpu = false;
    if (!xl_offered(x, n)) {
        refuse(n);
        return;
    }
    switch (n->i.mnemonic) {
    /* -- harmless, but in categories that are not -- */
    case ZYDIS_MNEMONIC_LEA: set(n, XL_IDENT, XL_ACT_LEA, false); return;
    case ZYDIS_MNEMONIC_NOP:
    case ZYDIS_MNEMONIC_PREFETCH:
    case ZYDIS_MNEMONIC_PREFETCHNTA:
    case ZYDIS_MNEMONIC_PREFETCHT0:
    case ZYDIS_MNEMONIC_PREFETCHT1:
    case ZYDIS_MNEMONIC_PREFETCHT2:
    case ZYDIS_MNEMONIC_PREFETCHW:
    case ZYDIS_MNEMONIC_PREFETCHWT1:
    case ZYDIS_MNEMONIC_CLDEMOTE: set(n, XL_IDENT, XL_ACT_DROP, false); return;
    case ZYDIS_MNEMONIC_PAUSE:
    case ZYDIS_MNEMONIC_LFENCE:
    case ZYDIS_MNEMONIC_MFENCE:
    case ZYDIS_MNEMONIC_SFENCE:
    case ZYDIS_MNEMONIC_LAHF:
    case ZYDIS_MNEMONIC_SAHF: set(n, XL_IDENT, XL_ACT_IDENT, false); return;
    case ZYDIS_MNEMONIC_CLFLUSH: set(n, XL_MEM, XL_ACT_MEM, false); return;
    case ZYDIS_MNEMONIC_EMMS:
    case ZYDIS_MNEMONIC_FEMMS:
        if (!vector_off(x, n))
            set(n, XL_IDENT, XL_ACT_IDENT, false);
        return;
    case ZYDIS_MNEMONIC_LDMXCSR:
    case ZYDIS_MNEMONIC_STMXCSR:
    case ZYDIS_MNEMONIC_VLDMXCSR:
    case ZYDIS_MNEMONIC_VSTMXCSR:
        if (!vector_off(x, n))
            set(n, XL_MEM, XL_ACT_MEM, false);
        return;

    /* -- control flow -- */
    case ZYDIS_MNEMONIC_JMP: classify_branch(n, false); return;
    case ZYDIS_MNEMONIC_CALL: classify_branch(n, true); return;
    case ZYDIS_MNEMONIC_RET:
        if (n->i.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR || (n->i.opcode & 0xfe) == 0xca)
            sys(n, SYS_OP_RET_FAR, true);
        else
            set(n, XL_RET, XL_ACT_RET, true);
        return;
    case ZYDIS_MNEMONIC_LOOP:
    case ZYDIS_MNEMONIC_LOOPE:
    case ZYDIS_MNEMONIC_LOOPNE:
    case ZYDIS_MNEMONIC_JCXZ:
    case ZYDIS_MNEMONIC_JECXZ:
    case ZYDIS_MNEMONIC_JRCXZ: set(n, XL_JCC, XL_ACT_LOOP, true); return;

    /* -- stack -- */
    case ZYDIS_MNEMONIC_PUSH: classify_push_pop(n, true); return;
    case ZYDIS_MNEMONIC_POP: classify_push_pop(n, false); return;
    case ZYDIS_MNEMONIC_LEAVE: set(n, XL_STACK, XL_ACT_LEAVE, false); return;
    case ZYDIS_MNEMONIC_ENTER: sys(n, SYS_OP_ENTER, false); return;
    case ZYDIS_MNEMONIC_PUSHA:
    case ZYDIS_MNEMONIC_PUSHAD: sys(n, SYS_OP_PUSHA, false); return;
    case ZYDIS_MNEMONIC_POPA:
    case ZYDIS_MNEMONIC_POPAD: sys(n, SYS_OP_POPA, false); return;
    case ZYDIS_MNEMONIC_PUSHF:
    case ZYDIS_MNEMONIC_PUSHFD:
    case ZYDIS_MNEMONIC_PUSHFQ: sys(n, SYS_OP_PUSHF, false); return;
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ: sys(n, SYS_OP_POPF, false); return;

    /* -- flags -- */
    case ZYDIS_MNEMONIC_CLI:
        if (ring0)
            set(n, XL_INLINE, XL_ACT_CLI, false);
        else
            sys(n, SYS_OP_CLI, false);
        return;
    case ZYDIS_MNEMONIC_STI:
        if (ring0 && plain)
            set(n, XL_INLINE, XL_ACT_STI, false);
        else
            sys(n, SYS_OP_STI, false);
        return;
    case ZYDIS_MNEMONIC_CLD: set(n, XL_INLINE, XL_ACT_CLD, false); return;
    case ZYDIS_MNEMONIC_STD: set(n, XL_INLINE, XL_ACT_STD, false); return;

    /* -- segments, interrupts, far transfers -- */
    case ZYDIS_MNEMONIC_MOV: classify_mov(x, n); return;
    case ZYDIS_MNEMONIC_LDS:
    case ZYDIS_MNEMONIC_LES:
    case ZYDIS_MNEMONIC_LFS:
    case ZYDIS_MNEMONIC_LGS:
    case ZYDIS_MNEMONIC_LSS: sys(n, SYS_OP_LXS, false); return;
    case ZYDIS_MNEMONIC_IRET:
    case ZYDIS_MNEMONIC_IRETD:
    case ZYDIS_MNEMONIC_IRETQ: sys(n, SYS_OP_IRET, true); return;
    case ZYDIS_MNEMONIC_INT: sys(n, SYS_OP_INT, true); return;
    case ZYDIS_MNEMONIC_INT3: sys(n, SYS_OP_INT3, true); return;
    case ZYDIS_MNEMONIC_INT1: sys(n, SYS_OP_INT1, true); return;
    case ZYDIS_MNEMONIC_INTO: sys(n, SYS_OP_INTO, false); return;
    case ZYDIS_MNEMONIC_BOUND: sys(n, SYS_OP_BOUND, false); return;
    case ZYDIS_MNEMONIC_SYSCALL: sys(n, SYS_OP_SYSCALL, true); return;
    case ZYDIS_MNEMONIC_SYSRET: sys(n, SYS_OP_SYSRET, true); return;
    case ZYDIS_MNEMONIC_SYSENTER: sys(n, SYS_OP_SYSENTER, true); return;
    case ZYDIS_MNEMONIC_SYSEXIT: sys(n, SYS_OP_SYSEXIT, true); return;

    /* -- system registers -- */
    case ZYDIS_MNEMONIC_CLTS: sys(n, SYS_OP_CLTS, true); return;
    case ZYDIS_MNEMONIC_LMSW: sys(n, SYS_OP_LMSW, true); return;
    case ZYDIS_MNEMONIC_SMSW: sys(n, SYS_OP_SMSW, false); return;
    case ZYDIS_MNEMONIC_LGDT: sys(n, SYS_OP_LGDT, false); return;
    case ZYDIS_MNEMONIC_SGDT: sys(n, SYS_OP_SGDT, false); return;
    case ZYDIS_MNEMONIC_LIDT: sys(n, SYS_OP_LIDT, false); return;
    case ZYDIS_MNEMONIC_SIDT: sys(n, SYS_OP_SIDT, false); return;
    case ZYDIS_MNEMONIC_LLDT: sys(n, SYS_OP_LLDT, false); return;
    case ZYDIS_MNEMONIC_SLDT: sys(n, SYS_OP_SLDT, false); return;
    case ZYDIS_MNEMONIC_LTR: sys(n, SYS_OP_LTR, false); return;
    case ZYDIS_MNEMONIC_STR: sys(n, SYS_OP_STR, false); return;
    case ZYDIS_MNEMONIC_LAR: sys(n, SYS_OP_LAR, false); return;
    case ZYDIS_MNEMONIC_LSL: sys(n, SYS_OP_LSL, false); return;
    case ZYDIS_MNEMONIC_VERR: sys(n, SYS_OP_VERR, false); return;
    case ZYDIS_MNEMONIC_VERW: sys(n, SYS_OP_VERW, false); return;
    case ZYDIS_MNEMONIC_ARPL: sys(n, SYS_OP_ARPL, false); return;
    case ZYDIS_MNEMONIC_INVLPG: sys(n, SYS_OP_INVLPG, true); return;
    case ZYDIS_MNEMONIC_INVPCID: sys(n, SYS_OP_INVPCID, true); return;
    case ZYDIS_MNEMONIC_INVD: sys(n, SYS_OP_INVD, false); return;
    case ZYDIS_MNEMONIC_WBINVD: sys(n, SYS_OP_WBINVD, false); return;
    case ZYDIS_MNEMONIC_HLT: sys(n, SYS_OP_HLT, true); return;
    case ZYDIS_MNEMONIC_CPUID: sys(n, SYS_OP_CPUID, false); return;
    case ZYDIS_MNEMONIC_RDTSC:
        if (x->in->key & CPU_KEY_SLOWTSC)
            sys(n, SYS_OP_RDTSC, false);
        else
            set(n, XL_INLINE, XL_ACT_RDTSC, false);
        return;
    case ZYDIS_MNEMONIC_RDTSCP: sys(n, SYS_OP_RDTSCP, false); return;
    case ZYDIS_MNEMONIC_RDPMC: sys(n, SYS_OP_RDPMC, false); return;
    case ZYDIS_MNEMONIC_RDPID: sys(n, SYS_OP_RDPID, false); return;
    case ZYDIS_MNEMONIC_RDMSR: sys(n, SYS_OP_RDMSR, false); return;
    case ZYDIS_MNEMONIC_WRMSR: sys(n, SYS_OP_WRMSR, true); return;
    case ZYDIS_MNEMONIC_XGETBV: sys(n, SYS_OP_XGETBV, false); return;
    case ZYDIS_MNEMONIC_XSETBV: sys(n, SYS_OP_XSETBV, true); return;
    case ZYDIS_MNEMONIC_RDFSBASE: sys(n, SYS_OP_RDFSBASE, false); return;
    case ZYDIS_MNEMONIC_RDGSBASE: sys(n, SYS_OP_RDGSBASE, false); return;
    case ZYDIS_MNEMONIC_WRFSBASE: sys(n, SYS_OP_WRFSBASE, false); return;
    case ZYDIS_MNEMONIC_WRGSBASE: sys(n, SYS_OP_WRGSBASE, false); return;
    case ZYDIS_MNEMONIC_SWAPGS: sys(n, SYS_OP_SWAPGS, false); return;
    case ZYDIS_MNEMONIC_MONITOR: sys(n, SYS_OP_MONITOR, false); return;
    case ZYDIS_MNEMONIC_MWAIT: sys(n, SYS_OP_MWAIT, true); return;
    case ZYDIS_MNEMONIC_VMCALL:
    case ZYDIS_MNEMONIC_VMMCALL: sys(n, SYS_OP_HYPERCALL, false); return;
    case ZYDIS_MNEMONIC_RSM: sys(n, SYS_OP_RSM, true); return;

    /* -- ports and strings -- */
    case ZYDIS_MNEMONIC_IN: sys(n, SYS_OP_IN, false); return;
    case ZYDIS_MNEMONIC_OUT: sys(n, SYS_OP_OUT, false); return;
    case ZYDIS_MNEMONIC_INSB:
    case ZYDIS_MNEMONIC_INSW:
    case ZYDIS_MNEMONIC_INSD: sys(n, SYS_OP_INS, false); return;
    case ZYDIS_MNEMONIC_OUTSB:
    case ZYDIS_MNEMONIC_OUTSW:
    case ZYDIS_MNEMONIC_OUTSD: sys(n, SYS_OP_OUTS, false); return;
    case ZYDIS_MNEMONIC_MOVSB:
    case ZYDIS_MNEMONIC_MOVSW:
    case ZYDIS_MNEMONIC_MOVSQ: sys(n, SYS_OP_MOVS, false); return;
    case ZYDIS_MNEMONIC_STOSB:
    case ZYDIS_MNEMONIC_STOSW:
    case ZYDIS_MNEMONIC_STOSD:
    case ZYDIS_MNEMONIC_STOSQ: sys(n, SYS_OP_STOS, false); return;
    case ZYDIS_MNEMONIC_LODSB:
    case ZYDIS_MNEMONIC_LODSW:
    case ZYDIS_MNEMONIC_LODSD:
    case ZYDIS_MNEMONIC_LODSQ: sys(n, SYS_OP_LODS, false); return;
    case ZYDIS_MNEMONIC_CMPSB:
    case ZYDIS_MNEMONIC_CMPSW:
    case ZYDIS_MNEMONIC_CMPSQ: sys(n, SYS_OP_CMPS, false); return;
    case ZYDIS_MNEMONIC_SCASB:
    case ZYDIS_MNEMONIC_SCASW:
    case ZYDIS_MNEMONIC_SCASD:
    case ZYDIS_MNEMONIC_SCASQ: sys(n, SYS_OP_SCAS, false); return;
    case ZYDIS_MNEMONIC_MOVSD: /* the string instruction and the SSE2 one share the name */
        if (n->i.meta.category == ZYDIS_CATEGORY_STRINGOP) {
            sys(n, SYS_OP_MOVS, false);
            return;
        }
        break;
    case ZYDIS_MNEMONIC_CMPSD:
        if (n->i.meta.category == ZYDIS_CATEGORY_STRINGOP) {
            sys(n, SYS_OP_CMPS, false);
            return;
        }
        break;

    /* -- legacy -- */
    case ZYDIS_MNEMONIC_XLAT: sys(n, SYS_OP_XLAT, false); return;
    case ZYDIS_MNEMONIC_AAA: sys(n, SYS_OP_AAA, false); return;
    case ZYDIS_MNEMONIC_AAS: sys(n, SYS_OP_AAS, false); return;
    case ZYDIS_MNEMONIC_DAA: sys(n, SYS_OP_DAA, false); return;
    case ZYDIS_MNEMONIC_DAS: sys(n, SYS_OP_DAS, false); return;
    case ZYDIS_MNEMONIC_AAM: sys(n, SYS_OP_AAM, false); return;
    case ZYDIS_MNEMONIC_AAD: sys(n, SYS_OP_AAD, false); return;
    case ZYDIS_MNEMONIC_SALC: set(n, XL_INLINE, XL_ACT_SALC, false); return;
    case ZYDIS_MNEMONIC_MOVDIR64B: sys(n, SYS_OP_MOVDIR64B, false); return;
    case ZYDIS_MNEMONIC_MASKMOVQ:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
        if (!vector_off(x, n))
            sys(n, SYS_OP_MASKMOV, false);
        return;
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTC:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTS:
        if (n->mem >= 0 && n->op[1].type == ZYDIS_OPERAND_TYPE_REGISTER) {
            set(n, XL_MEM, XL_ACT_BITSTR, false);
            return;
        }
        break;

    /* -- extended state -- */
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64: sys(n, SYS_OP_FXSAVE, false); return;
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64: sys(n, SYS_OP_FXRSTOR, false); return;
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVE64: sys(n, SYS_OP_XSAVE, false); return;
    case ZYDIS_MNEMONIC_XSAVEOPT:
    case ZYDIS_MNEMONIC_XSAVEOPT64: sys(n, SYS_OP_XSAVEOPT, false); return;
    case ZYDIS_MNEMONIC_XSAVEC:
    case ZYDIS_MNEMONIC_XSAVEC64: sys(n, SYS_OP_XSAVEC, false); return;
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64: sys(n, SYS_OP_XRSTOR, false); return;

    /* -- harmless by category, but not what they seem -- */
    case ZYDIS_MNEMONIC_STAC: /* SMAP is not offered */
    case ZYDIS_MNEMONIC_CLAC:
    case ZYDIS_MNEMONIC_CLUI:
    case ZYDIS_MNEMONIC_STUI:
    case ZYDIS_MNEMONIC_UD0:
    case ZYDIS_MNEMONIC_UD1:
    case ZYDIS_MNEMONIC_UD2: refuse(n); return;
    default: break;
    }
    if (n->i.meta.category == ZYDIS_CATEGORY_COND_BR) {
        set(n, XL_JCC, XL_ACT_JCC, true);
        return;
    }
    if (vector_off(x, n))
        return;
    classify_default(n);
}
