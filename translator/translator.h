/* translator/translator.h - guest code in, host code and a block description out.
 *
 * Role:     translates one TU (a guest basic block) of any mode into 64-bit host code. Strategy of each memory operand (site)
 *           is a parameter. Knows the guest's state block by address (struct xl_layout), never by type; keeps no global
 *           state, never allocates or changes page protection.
 * Owner:    xl_create/xl_destroy; results point into the struct xl until the next xl_translate.
 * Threads:  one struct xl per vCPU thread. Not nofpu (Zydis).
 * Registers: at every instruction boundary guest registers are in the host registers of the same name, except those in the
 *           spill mask of the point, whose values are in cpu.spill[]. 16/32-bit code leaves r8-r15 to the translator.
 */
#ifndef TRANSLATOR_TRANSLATOR_H
#define TRANSLATOR_TRANSLATOR_H
#include "codecache/ccf.h"
#include "translator/emit.h"
#include <stdbool.h>
#include <stdio.h>
#include <stddef.h>
#include <stdint.h>

/* Glue routines in the TC, one set for 64-bit guest code and one for 16/32-bit code. Those of the second group are reached
 * with a call on the host stack. */
struct xl_glue {
    uint64_t exit_link;     /* leaves through a direct exit: link_pc is set */
    uint64_t exit_indirect; /* leaves at rip (set), the jump cache had nothing */
    uint64_t exit_dispatch; /* leaves at rip (set) */
    uint64_t callout;       /* op, op_imm, ea, rip set: carries out one system instruction */
    uint64_t site_miss;     /* site set: inline TLB missed */
    uint64_t site_pre;      /* site, ea set: callout strategy, before the access */
    uint64_t site_post;     /* callout strategy, after a write */
};
struct xl_tlb_layout {
    uint64_t tag_r, tag_w, addend;
    uint64_t stack_r, stack_w; /* tag and addend of the page of the stack */
};
struct xl_jc_layout {
    uint64_t tag, pc;
};
/* Counters of xl_input.count, and a place to keep a register. */
struct xl_count_layout {
    uint64_t blocks, insns, indirect, jc_direct, save;
};
/* Where generated code finds things; all addresses are in the low 2 GiB. */
struct xl_layout {
    uint64_t cpu; /* struct cpu */
    uint64_t host_sp, ea, op, op_imm, site, link_pc, event_pending;
    uint64_t keep;                                  /* of a register over a few instructions */
    uint64_t gs_base, gs_base_neg;                  /* of the window in use: host = linear + gs_base; and minus that */
    unsigned stack_span;                            /* bytes that a look-up of the page of the stack may cover */
    uint64_t const_stack, const_window, stack_from; /* shadowmmu/softtlb.h: masks and table of its window */
    uint64_t const_page, const_sign, const_jc, const_63, const_31, const_15;
    uint64_t
        fpu_live; /* byte: the FPU state is in the registers, else code below CPL 3 has to ask for it; 0: it always is */
    uint64_t cr8_slow,
        const_cr8; /* cr8_slow 0: MOV to and from CR8 are callouts; else where it is (monitor/engine.h) */
    struct xl_tlb_layout tlb[2];
    struct xl_jc_layout jc[2];
    struct xl_count_layout count;
    struct xl_glue glue64, glue32;
};

/* Descriptor of a memory site, passed to C in `site`. */
#define XL_SITE_SIZE(d) ((d)&0x7fu)   /* 0: a group of sites (xl_group.c); op_imm has the bytes it covers */
#define XL_SITE_HOW(d) ((d) >> 7 & 3) /* 0 read, 1 write, 2 both */
#define XL_SITE_SEG(d) ((d) >> 9 & 7)
#define XL_SITE_S1(d) ((d) >> 12 & 15) /* register that holds the address, then the pointer ... */
#define XL_SITE_S2(d) ((d) >> 16 & 15) /* ... or part of it: the access goes to [s1 + s2] */
#define XL_SITE_ALIGN 0x00100000u      /* misaligned is #GP(0) */
#define XL_SITE_OFFSET 0x00200000u     /* the address is an offset into the segment, not linear */
#define XL_SITE_64 0x00400000u
#define XL_SITE_DIRECT 0x01000000u /* the access itself goes through the window: a miss can only fault or be careful */
#define XL_SITE_MASKED 0x00800000u /* elements may be masked off: the mask is described in op_imm (XL_MASK_*) */
#define XL_SITE_X87 0x02000000u    /* a pending x87 exception comes before any fault of the operand */
/* A store whose faults come after everything else the instruction does; with XL_SITE_X87: which is then undone. */
#define XL_SITE_LATE 0x04000000u
#define XL_SITE_FLUSH 0x08000000u     /* may be in an execute-only segment */
#define XL_SITE_MMX 0x10000000u       /* a store of an MMX register */
#define XL_SITE_UNALIGNED 0x20000000u /* never #AC */
#define XL_SITE_X87ENV 0x40000000u /* x87 environment or registers, accessed word by word: aligned as its words are */
#define XL_SITE_WRAP 0x80000000u   /* ... and each of them wraps by itself: at 64 KiB, in 64-bit code at 4 GiB */
/* Description of a mask: element i of the operand, of 1 << SHIFT bytes, is accessed if one of the mask's first BITS bits whose
 * number is i modulo ELEMENTS is set; PACKED: the first elements are, as many as bits are set. */
enum { XL_MASK_NONE, XL_MASK_K, XL_MASK_PACKED, XL_MASK_SIGNS /* of a vector register's elements */ };
#define XL_MASK_KIND(m) ((m)&15u)
#define XL_MASK_REG(m) ((m) >> 4 & 31)
#define XL_MASK_SHIFT(m) ((m) >> 12 & 15)
#define XL_MASK_BITS(m) ((m) >> 16 & 0xff)
#define XL_MASK_ELEMENTS(m) ((m) >> 24 & 0xff)
enum { XL_READ, XL_WRITE, XL_RW };
/* FNSTENV, FNSAVE: the instruction pointer in what they store has to become the guest's, so always a callout. */
static inline bool xl_site_stores_env(uint64_t flags, unsigned size, unsigned how)
{
    return (flags & XL_SITE_X87ENV) && size != 10 && how == XL_WRITE;
}

/* Instruction classes, for statistics and listings. */
#define XL_CLASSES(X)                                                                                                  \
    X(IDENT) X(MEM) X(JCC) X(JMP) X(CALL) X(RET) X(JMP_IND) X(CALL_IND) X(STACK) X(INLINE) X(CALLOUT) X(UD)
enum xl_class {
#define X(n) XL_##n,
    XL_CLASSES(X)
#undef X
        XL_CLASS_COUNT
};
const char *xl_class_name(enum xl_class c);

struct xl_insn_info { /* for listings */
    uint16_t guest_off;
    uint8_t len, cls;
    uint32_t hot_off;
};
#define XL_MAX_INSNS 64
#define XL_MAX_POINTS (XL_MAX_INSNS * 5)
/* Room a translation may need. */
#define XL_HOT_BYTES 16384
#define XL_COLD_BYTES 16384

/* How a memory operand is reached. A block of 16/32-bit code, or of 64-bit code in the upper half, may use the window. */
enum xl_strategy { XL_SITE_WINDOW, XL_SITE_SOFT, XL_SITE_CALLOUT };
struct xl_input {
    const uint8_t *code; /* bytes at rip ... */
    unsigned code_bytes; /* ... up to the end of the page (or of the CS limit, if nearer) */
    const uint8_t *next; /* bytes at the start of the next page, or NULL: not accessible or not to be crossed */
    unsigned next_bytes;
    uint64_t rip; /* offset in CS */
    uint64_t cs_base;
    uint32_t cs_limit; /* 16/32-bit code only */
    uint32_t key;      /* CPU_KEY_* */
    unsigned max_insns;
    uint8_t in_place; /* ccf_desc.in_place: then hot_pc must be where the buffer starts */
    bool count;       /* emit code that counts what runs */
    bool window;      /* sites may go through the window (GS base is set) unless strategy() says otherwise */
    bool trap;        /* sensitive instructions begin with XL_TRAP_BYTE, nothing is inlined (xl_trap.c) */
    /* Strategy of the sites of the instruction at code + off. May be NULL: window if allowed, else soft. *alone: do not look its
     * page up for other accesses too. */
    enum xl_strategy (*strategy)(void *opaque, unsigned off, bool *alone);
    void *opaque;
};
/* HLT: raises #GP; whoever catches it steps over it. No other generated instruction starts with it. */
#define XL_TRAP_BYTE 0xf4
enum xl_status {
    XL_OK,
    XL_NEED_NEXT, /* the first instruction runs into the next page and input.next is NULL */
    XL_TOO_LONG,  /* the first instruction is longer than 15 bytes: #GP(0) */
    XL_OVERFLOW   /* buffers full: give more room */
};
struct xl_result {
    struct ccf_desc d;
    struct ccf_point point[XL_MAX_POINTS];
    struct xl_insn_info insn[XL_MAX_INSNS];
    uint32_t class_count[XL_CLASS_COUNT];
    bool crosses; /* one instruction that runs into the next page */
};

/* What the guest's CPU is: the instructions of features it does not offer are #UD. */
enum xl_feature {
    XL_FEAT_NEVER,
    XL_FEAT_ALWAYS,
#define XL_FEAT(id) XL_FEAT_##id,
#include "translator/xl_feature.def"
#undef XL_FEAT
    XL_FEAT_COUNT
};
struct xl_cpu {
    bool amd; /* AMD's branches: 66h truncates RIP */
    uint64_t has[2];
};
static inline void xl_cpu_offer(struct xl_cpu *c, unsigned f) { c->has[f / 64] |= 1ull << f % 64; }
static inline bool xl_cpu_has(const struct xl_cpu *c, unsigned f) { return c->has[f / 64] >> f % 64 & 1; }

struct xl;
/* layout stays the caller's and must live as long; cpu is copied. */
int xl_create(struct xl **out, const struct xl_layout *layout, const struct xl_cpu *cpu);
void xl_destroy(struct xl *x);
/* Writes code into hot and cold (p..end); on XL_OK fills *r. */
enum xl_status xl_translate(struct xl *x, const struct xl_input *in, struct emit *hot, struct emit *cold,
                            struct xl_result *r);
/* Writes the glue into e; fills *g. helpers: C functions (see xl_glue.c). */
struct xl_helpers {
    uint64_t callout, site_miss, site_pre,
        site_post;                   /* int f(struct vcpu *, uint64_t ret_pc): 0 = go on, else exit code */
    uint64_t code_jump;              /* ... this one: not an exit, go on at the indirect entry in jump_target */
    uint64_t vcpu;                   /* first argument */
    uint64_t exit_code, jump_target; /* places in the vcpu block */
    uint64_t code_link, code_indirect, code_dispatch, code_hostfault;
};
struct xl_entry {
    uint64_t enter, exit_hostfault, end;
};
void xl_emit_glue(struct emit *e, struct xl_layout *layout, const struct xl_helpers *h, struct xl_entry *enter64,
                  struct xl_entry *enter32);
/* Prints the TU and its CCF side by side. */
void xl_dump(FILE *f, const struct xl_input *in, const struct xl_result *r, const uint8_t *hot, const uint8_t *cold);
#endif
