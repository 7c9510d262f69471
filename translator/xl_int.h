/* translator/xl_int.h - private to translator/: the context of one translation and the emitters by class. */
#ifndef TRANSLATOR_XL_INT_H
#define TRANSLATOR_XL_INT_H
#include "arch/cpu.h"
#include "arch/sysop.h"
#include "base/check.h"
#include "translator/translator.h"
#include <Zydis/Zydis.h>

#define BIT(r) (1u << (r))
#define NO_REG (-1)

/* Operands that are looked at without asking how many there are. */
#define XL_LOOKED_AT 3u

struct xl_insn {
    /* -- the same wherever the instruction stands; xl_memo.c copies this, and as many operands as there are -- */
    uint16_t use;    /* general registers read or written */
    uint16_t wronly; /* ... of which completely overwritten and not read */
    uint16_t regs;   /* ... of which are operands themselves, not just parts of an address */
    uint16_t writes; /* ... and may be changed */
    int8_t mem;      /* index of the explicit memory operand that is accessed, or -1 */
    uint8_t how;     /* XL_READ.. of the memory operand */
    bool high_byte;  /* names AH, CH, DH or BH: no REX prefix possible */
    uint8_t cls;     /* enum xl_class */
    uint8_t act;     /* enum xl_act */
    uint8_t sys;     /* SYS_OP_* when act is XL_ACT_SYS */
    bool ends;       /* ends the TU */
    bool fpu;        /* runs on the x87, vector or mask registers themselves */
    ZydisDecodedInstruction i;
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
    /* -- of this one -- */
    const uint8_t *bytes;
    uint8_t raw[16];
    uint16_t off;     /* from the TU's start */
    uint8_t strategy; /* enum xl_strategy of its memory sites */
    bool alone;       /* must not lead a group of sites */
    uint8_t group;    /* number of its site's group + 1; 0 = none */
    int64_t at;       /* in a group: where its access is, relative to the others' */
};
/* What the emitter does with it; finer than the class. */
enum xl_act {
    XL_ACT_IDENT,
    XL_ACT_MEM,
    XL_ACT_DROP,
    XL_ACT_LEA,
    XL_ACT_MOFFS,
    XL_ACT_BITSTR,
    XL_ACT_JCC,
    XL_ACT_JMP,
    XL_ACT_CALL,
    XL_ACT_RET,
    XL_ACT_JMP_IND,
    XL_ACT_CALL_IND,
    XL_ACT_LOOP,
    XL_ACT_PUSH_R,
    XL_ACT_PUSH_I,
    XL_ACT_PUSH_M,
    XL_ACT_POP_R,
    XL_ACT_LEAVE,
    XL_ACT_LAST_ALIKE =
        XL_ACT_LEAVE, /* up to here classification does not ask for the privilege or the vCPU's layout */
    XL_ACT_PUSHF,
    XL_ACT_CLI,
    XL_ACT_STI,
    XL_ACT_CLD,
    XL_ACT_STD,
    XL_ACT_RDTSC,
    XL_ACT_SALC,
    XL_ACT_MOV_FROM_SREG,
    XL_ACT_MOV_FROM_CR,
    XL_ACT_MOV_TO_CR8,
    XL_ACT_SYS
};

/* Soft sites with one look-up (xl_group.c): instructions first to last, bytes [lo, hi), the addend is kept in reg. */
#define XL_MAX_GROUPS 8
struct xl_group {
    uint8_t first, last, how;
    bool stack; /* relative to RSP */
    int8_t reg; /* NO_REG: dissolved */
    int64_t lo, hi;
};

/* What xl_memo.c goes by: the bytes up to displacement or immediate, zeros behind them; their number << 32 | bits of the key. */
struct xl_form {
    uint64_t form, mode; /* mode 0: a form that is not remembered */
};
struct xl_memo;

struct xl {
    const struct xl_layout *l;
    struct xl_memo *memo;
    struct xl_cpu cpu;
    ZydisDecoder dec64, dec32, dec16, dec_real;
    struct emit *hot, *cold;
    const struct xl_input *in;
    struct xl_result *r;
    const struct xl_glue *g;
    bool m64, careful;
    unsigned n, cur;
    uint16_t spilled;
    uint16_t clean;   /* brought back and not changed since: spilling them again takes no store */
    int32_t sp_ahead; /* the guest's RSP is the host's and this: between pushes and pops that share a look-up */
    uint16_t pinned;  /* scratch registers that hold a group's addend */
    unsigned n_groups;
    struct xl_group group[XL_MAX_GROUPS];
    bool post_pending;
    bool stop;                  /* the instruction just emitted has closed the block */
    uint16_t use[XL_MAX_INSNS]; /* insn[].use, together */
    struct xl_insn insn[XL_MAX_INSNS];
};

/* Number 0-15 of a general register of any size (AH to BH are parts of 0 to 3), or NO_REG. The decoder's names are in order. */
static inline int xl_gpr(ZydisRegister reg)
{
    if (reg >= ZYDIS_REGISTER_AX && reg <= ZYDIS_REGISTER_R15)
        return (int)((unsigned)(reg - ZYDIS_REGISTER_AX) & 15);
    if (reg < ZYDIS_REGISTER_AL || reg > ZYDIS_REGISTER_R15B)
        return NO_REG;
    int k = reg - ZYDIS_REGISTER_AL; /* AL CL DL BL, AH CH DH BH, SPL ... */
    return k < 4 ? k : k - 4;
}

/* An effective address before segmentation. */
struct xl_ea {
    int base, index; /* GPR or NO_REG */
    unsigned scale;  /* log2 */
    int32_t disp;
    uint64_t abs; /* when abs_valid: the whole offset is constant */
    bool abs_valid;
    unsigned asize; /* 2, 4, 8 */
    unsigned seg;
};
/* A site ready for use: the access goes to [base + index * 2^scale + disp], through the window if gs is set. The soft
 * strategies leave the pointer in base + index. */
struct xl_site {
    int base, index; /* host registers or NO_REG */
    unsigned scale;
    int32_t disp;
    bool gs, a32; /* prefixes 65h, 67h */
};
static inline void xl_site_prefixes(struct emit *e, const struct xl_site *s)
{
    if (s->gs)
        em8(e, 0x65);
    if (s->a32)
        em8(e, 0x67);
}
static inline void xl_site_modrm(struct emit *e, unsigned reg, const struct xl_site *s)
{
    em_modrm_mem(e, reg, s->base, s->index, s->scale, s->disp);
}

/* xl_scan.c */
enum xl_status xl_scan(struct xl *x);
bool xl_x87_waits(const struct xl_insn *n);
unsigned xl_operand_bytes(const ZydisDecodedOperand *o);
void xl_note_operands(struct xl_insn *n);
/* xl_decode.c */
enum xl_status xl_decode(struct xl *x, struct xl_insn *n, unsigned off);
/* xl_memo.c */
struct xl_memo *xl_memo_create(void);
void xl_memo_destroy(struct xl_memo *m);
bool xl_recall(struct xl *x, struct xl_insn *n, struct xl_form *f);
void xl_remember(struct xl *x, const struct xl_insn *n, const struct xl_form *f);
/* xl_classify.c */
void xl_classify(struct xl *x, struct xl_insn *n);
/* xl_feature.c: does the guest's CPU have the instruction? */
bool xl_offered(const struct xl *x, const struct xl_insn *n);
/* xl_regs.c: scratch registers */
unsigned xl_pick(struct xl *x, unsigned avoid, bool legacy);
unsigned xl_needed_last(const struct xl *x, unsigned regs, unsigned k);
void xl_spill(struct xl *x, int r);
void xl_unspill(struct xl *x, unsigned mask);
/* On a way that leaves the block: registers that are spilled here get their values. Returns how many. */
unsigned xl_bring_back(struct xl *x, struct emit *e);
void xl_changed(struct xl *x, const struct xl_insn *n);
static inline uint64_t xl_slot(const struct xl *x, int r)
{
    return x->l->cpu + offsetof(struct cpu, spill) + 8u * (unsigned)r;
}
static inline uint64_t xl_cpu(const struct xl *x, size_t off) { return x->l->cpu + off; }
void xl_add_point(struct xl *x, uint64_t pc, unsigned guest_off);
void xl_set_rip(struct xl *x, struct emit *e, uint64_t rip);
void xl_call_glue(struct xl *x, struct emit *e, uint64_t glue, unsigned guest_off);
/* xl_site.c */
void xl_ea_of(struct xl *x, const struct xl_insn *n, struct xl_ea *ea);
void xl_ea_stack(struct xl *x, int32_t disp, struct xl_ea *ea);
void xl_emit_ea(struct xl *x, const struct xl_ea *ea, unsigned dst);
struct xl_site xl_site(struct xl *x, const struct xl_insn *n, const struct xl_ea *ea, unsigned size, unsigned how,
                       unsigned avoid, unsigned flags);
void xl_site_done(struct xl *x, const struct xl_insn *n);
/* xl_group.c: forms the groups of a block; before an instruction, reserves the registers of those it leads; after it, gives back
 * those of which it is the last */
void xl_group_sites(struct xl *x);
void xl_group_pin(struct xl *x);
void xl_group_release(struct xl *x);
/* xl_mask.c: description of the mask of the memory operand, 0 if it has none */
uint32_t xl_mask_of(const struct xl_insn *n, unsigned size);
/* xl_rewrite.c: the instruction again, with another memory operand (s1 + s2) or none */
void xl_rewrite(struct xl *x, const struct xl_insn *n, const struct xl_site *s);
void xl_rewrite_reg(struct xl *x, const struct xl_insn *n, const struct xl_site *s, int reg);
/* xl_data.c */
void xl_emit_ident(struct xl *x, struct xl_insn *n);
void xl_emit_mem(struct xl *x, struct xl_insn *n);
void xl_emit_lea(struct xl *x, struct xl_insn *n);
void xl_emit_moffs(struct xl *x, struct xl_insn *n);
void xl_emit_bitstr(struct xl *x, struct xl_insn *n);
/* XL_SITE_* flags of the memory operand, and how much of it is accessed */
unsigned xl_mem_access(const struct xl_insn *n, unsigned *size);
unsigned xl_align_flag(const struct xl_insn *n, unsigned size);
/* mov of size bytes between a register and [s1 + s2] */
void xl_load(struct xl *x, unsigned reg, const struct xl_site *s, unsigned size);
void xl_store(struct xl *x, unsigned reg, const struct xl_site *s, unsigned size);
/* xl_stack.c */
unsigned xl_stack_bytes(const struct xl_insn *n);
void xl_emit_push(struct xl *x, struct xl_insn *n);
void xl_emit_pop(struct xl *x, struct xl_insn *n);
void xl_emit_leave(struct xl *x, struct xl_insn *n);
void xl_adjust_sp(struct xl *x, int32_t by);
void xl_settle_sp(struct xl *x);
/* Stores register src (or, src < 0, the sign-extended immediate) below the stack pointer and moves it. */
void xl_push(struct xl *x, struct xl_insn *n, int src, uint64_t imm, unsigned size, unsigned avoid);
/* xl_entry.c: the ways into a block; sets what r->d has about them, and the registers that are spilled from there on, if there may be any */
void xl_emit_entries(struct xl *x, bool may_want_scratch);
/* xl_ctl.c */
void xl_emit_ctl(struct xl *x, struct xl_insn *n);
/* In counting mode: one more in a counter, through RCX, which is scratch. */
void xl_count_rcx(struct xl *x, struct emit *e, uint64_t at);
void xl_exit_to(struct xl *x, uint64_t target);
/* xl_string.c */
bool xl_string_direct(const struct xl *x, const struct xl_insn *n);
void xl_emit_string(struct xl *x, struct xl_insn *n);
/* xl_priv.c */
void xl_emit_priv(struct xl *x, struct xl_insn *n);
/* xl_trap.c, with in->trap: after the classification; in front of a callout. */
void xl_trap_class(struct xl *x, struct xl_insn *n);
void xl_trap_emit(struct xl *x, const struct xl_insn *n);
void xl_emit_sys(struct xl *x, struct xl_insn *n);
/* Out of line: raises the exception of sys (SYS_OP_UD, NM, GP0) at n; nothing may be spilled. Returns its host pc. */
uint64_t xl_fault_stub(struct xl *x, const struct xl_insn *n, unsigned sys);

static inline uint64_t xl_next_rip(const struct xl *x, const struct xl_insn *n)
{
    uint64_t rip = x->in->rip + n->off + n->i.length;
    return x->m64 ? rip : (uint32_t)rip;
}
static inline uint64_t xl_rip(const struct xl *x, const struct xl_insn *n)
{
    uint64_t rip = x->in->rip + n->off;
    return x->m64 ? rip : (uint32_t)rip;
}
static inline unsigned xl_cpl(const struct xl *x) { return (x->in->key & CPU_KEY_CPL) >> CPU_KEY_CPL_SHIFT; }
/* The soft TLB and jump cache that code of this privilege uses. */
static inline unsigned xl_user(const struct xl *x) { return xl_cpl(x) == 3; }
#endif
