/* tests/diff/gen_int.h - the generator's working state, shared by its files. */
#ifndef TESTS_DIFF_GEN_INT_H
#define TESTS_DIFF_GEN_INT_H
#include "tests/diff/gen.h"

#define GEN_ARITH 0x8d5u /* CF PF AF ZF SF OF */
struct gen_fix {
    uint8_t insn, imm; /* which immediate of which instruction is a relative target */
    uint8_t off, size; /* place of it in code[], in bytes */
};
struct gen {
    const struct catalog *cat;
    enum dt_mode mode;
    struct dice r;
    struct dt_case *c;
    uint16_t pinned;    /* registers whose initial value an earlier instruction depends on */
    uint16_t clobbered; /* registers that an earlier instruction has written */
    uint32_t vec_clobbered;
    bool stack_moved; /* RSP or the stack may differ from the start */
    bool inuse_unknown, pointers_stored, branched;
    bool last; /* the sequence cannot go on after this instruction */
    uint32_t undef, undef_sticky;
    struct gen_fix fix[DT_MAX_INSNS];
    unsigned n_fix;
};

/* gen_state.c */
void gen_segments(struct gen *g);
void gen_registers(struct gen *g);
void gen_fpu(struct gen *g);
/* A linear data address for an operand of so many bytes. */
uint64_t gen_target(struct gen *g, unsigned bytes);
/* A selector as a guest might load it: often valid, often not. */
uint16_t gen_selector(struct gen *g);
uint16_t gen_code_selector(struct gen *g);
uint64_t gen_value(struct gen *g);
void gen_fill(struct dice *r, uint8_t *p, unsigned bytes);
uint64_t gen_seg_base(const struct gen *g, unsigned seg);
uint32_t gen_mxcsr(struct gen *g);
/* Puts bytes at a linear address of the data window, if it is one and there is room for another patch. */
void gen_patch(struct gen *g, uint64_t lin, const void *bytes, unsigned n);

/* gen_torn.c */
/* Makes the case one of bytes that are no whole instruction, at the end of the code pages. False: try something else. */
bool gen_torn(struct gen *g);

/* gen_operand.c */
/* Gives an instruction just appended (at code[] offset off) operands that work. */
void gen_operands(struct gen *g, struct cat_insn *in, unsigned off);
/* Would a memory operand of this instruction use a register that is not what it was at the start? */
bool gen_address_lost(const struct gen *g, const struct cat_insn *in);
#endif
