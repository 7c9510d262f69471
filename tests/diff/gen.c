/* tests/diff/gen.c - assembles a case: draws instructions, keeps the account of undefined flags, sets jump targets. */
#include "tests/diff/compare.h"
#include "tests/diff/gen_int.h"
#include <string.h>

/* Extensions that this or that CPU answers with #UD alone: one such instruction ends its case, so they come seldom. */
static bool mostly_undefined(const ZydisDecodedInstruction *d)
{
    switch (d->meta.isa_ext) {
    case ZYDIS_ISA_EXT_AMD3DNOW:
    case ZYDIS_ISA_EXT_XOP:
    case ZYDIS_ISA_EXT_FMA4:
    case ZYDIS_ISA_EXT_TBM:
    case ZYDIS_ISA_EXT_PADLOCK:
    case ZYDIS_ISA_EXT_VTX:
    case ZYDIS_ISA_EXT_SVM:
    case ZYDIS_ISA_EXT_SNP:
    case ZYDIS_ISA_EXT_KNC:
    case ZYDIS_ISA_EXT_KNCE:
    case ZYDIS_ISA_EXT_KNCV:
    case ZYDIS_ISA_EXT_SSE4A: return true;
    default: return d->attributes & ZYDIS_ATTRIB_IS_PRIVILEGED;
    }
}

static bool reports_inuse(ZydisMnemonic m)
{
    switch (m) {
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVE64:
    case ZYDIS_MNEMONIC_XSAVEC:
    case ZYDIS_MNEMONIC_XSAVEC64:
    case ZYDIS_MNEMONIC_XSAVEOPT:
    case ZYDIS_MNEMONIC_XSAVEOPT64: return true;
    default: return false;
    }
}

static bool reads_memory(const struct cat_insn *in)
{
    for (unsigned i = 0; i < in->d.operand_count; i++)
        if (in->op[i].type == ZYDIS_OPERAND_TYPE_MEMORY && (in->op[i].actions & ZYDIS_OPERAND_ACTION_MASK_READ))
            return true;
    return false;
}

static bool names_segment(const struct cat_insn *in)
{
    for (unsigned i = 0; i < in->d.operand_count_visible; i++)
        if (in->op[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            ZydisRegisterGetClass(in->op[i].reg.value) == ZYDIS_REGCLASS_SEGMENT)
            return true;
    return false;
}

/* Does the instruction do at CPL 0 what it does at CPL 3? */
static bool ignores_cpl(const struct cat_insn *in)
{
    const ZydisDecodedInstruction *d = &in->d;
    if ((d->attributes & ZYDIS_ATTRIB_IS_PRIVILEGED) || d->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR ||
        names_segment(in))
        return false;
    switch (d->meta.category) {
    case ZYDIS_CATEGORY_SYSTEM:
    case ZYDIS_CATEGORY_SEGOP:
    case ZYDIS_CATEGORY_INTERRUPT:
    case ZYDIS_CATEGORY_IO:
    case ZYDIS_CATEGORY_IOSTRINGOP:
    case ZYDIS_CATEGORY_SYSCALL:
    case ZYDIS_CATEGORY_SYSRET:
    case ZYDIS_CATEGORY_VTX: return false;
    default: break;
    }
    switch (d->mnemonic) {
    case ZYDIS_MNEMONIC_CLI:
    case ZYDIS_MNEMONIC_STI:
    case ZYDIS_MNEMONIC_CLAC:
    case ZYDIS_MNEMONIC_STAC:
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ:
    case ZYDIS_MNEMONIC_IRET:
    case ZYDIS_MNEMONIC_IRETD:
    case ZYDIS_MNEMONIC_IRETQ:
    case ZYDIS_MNEMONIC_XSETBV:
    case ZYDIS_MNEMONIC_ARPL:
    case ZYDIS_MNEMONIC_LAR:
    case ZYDIS_MNEMONIC_LSL:
    case ZYDIS_MNEMONIC_VERR:
    case ZYDIS_MNEMONIC_VERW:
    case ZYDIS_MNEMONIC_MONITOR:
    case ZYDIS_MNEMONIC_MWAIT: return false;
    default: return true;
    }
}

static uint32_t tested(const ZydisDecodedInstruction *d) { return d->cpu_flags ? d->cpu_flags->tested & GEN_ARITH : 0; }

static bool acceptable(struct gen *g, const struct cat_insn *in)
{
    const ZydisDecodedInstruction *d = &in->d;
    if ((tested(d) & (g->undef | g->undef_sticky)) || (g->c->ring0 && !ignores_cpl(in)))
        return false;
    if (d->mnemonic == ZYDIS_MNEMONIC_INT && d->raw.imm[0].value.u == 0x80)
        return false; /* enters the host kernel */
    if (d->mnemonic == ZYDIS_MNEMONIC_XGETBV && (((g->clobbered | g->pinned) & 2) || g->branched))
        return false; /* ECX = 1 reports hidden state */
    if ((g->inuse_unknown && reports_inuse(d->mnemonic)) || (g->pointers_stored && reads_memory(in)))
        return false;
    if (g->c->n_insns == 0)
        return true;
    if (mostly_undefined(d) && !dice_chance(&g->r, 8))
        return false;
    return !gen_address_lost(g, in) || dice_chance(&g->r, 25);
}

/* A shift by a count of zero and a string loop of none leave the flags alone, so what was undefined stays so. */
static bool flags_conditional(const ZydisDecodedInstruction *d)
{
    const uint64_t rep = ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE;
    return d->meta.category == ZYDIS_CATEGORY_SHIFT || d->meta.category == ZYDIS_CATEGORY_ROTATE ||
           (d->attributes & rep);
}

static void account_flags(struct gen *g, const ZydisDecodedInstruction *d)
{
    if (d->cpu_flags) {
        uint32_t set = (d->cpu_flags->modified | d->cpu_flags->set_0 | d->cpu_flags->set_1) & GEN_ARITH;
        uint32_t undef = d->cpu_flags->undefined & GEN_ARITH;
        if (!flags_conditional(d))
            g->undef &= ~set;
        g->undef |= undef;
    }
    if (d->meta.branch_type != ZYDIS_BRANCH_TYPE_NONE) { /* what follows may be reached from here or from before */
        g->branched = true;
        g->undef_sticky |= g->undef;
    }
}

/* Outside 64-bit mode VZEROUPPER and VZEROALL put upper halves into their initial state, but not those of registers 8-15. Whether
 * XSAVE then takes the component for one in use is the processor's business (SDM 1 13.6). */
static void note_inuse(struct gen *g, const ZydisDecodedInstruction *d)
{
    if (g->mode != DT_64 && (d->mnemonic == ZYDIS_MNEMONIC_VZEROUPPER || d->mnemonic == ZYDIS_MNEMONIC_VZEROALL))
        g->inuse_unknown = true;
}

/* Relative targets are set when all instructions are there. */
static void note_branch(struct gen *g, const struct cat_insn *in, unsigned off)
{
    for (unsigned i = 0; i < 2; i++)
        if (in->d.raw.imm[i].is_relative && g->n_fix < DT_MAX_INSNS)
            g->fix[g->n_fix++] = (struct gen_fix){.insn = g->c->n_insns,
                                                  .imm = (uint8_t)i,
                                                  .off = (uint8_t)(off + in->d.raw.imm[i].offset),
                                                  .size = in->d.raw.imm[i].size / 8u};
}

static bool add_insn(struct gen *g, int pick)
{
    struct dt_case *c = g->c;
    struct cat_insn in;
    unsigned tries = 0, off = c->code_len;
    do {
        if (tries++ == 40 || !cat_random(g->cat, &g->r, pick, &in))
            return false;
    } while (!acceptable(g, &in));
    if (off + in.d.length + 1 > DT_MAX_CODE)
        return false;
    memcpy(c->code + off, in.bytes, in.d.length);
    note_branch(g, &in, off);
    gen_operands(g, &in, off);
    c->insn[c->n_insns++] = (struct dt_insn){.off = (uint8_t)off,
                                             .len = in.d.length,
                                             .mnemonic = (uint16_t)in.d.mnemonic,
                                             .undef_before = g->undef | g->undef_sticky};
    c->code_len = (uint16_t)(c->code_len + in.d.length);
    account_flags(g, &in.d);
    note_inuse(g, &in.d);
    g->pointers_stored |= dt_stores_pointers(in.d.mnemonic);
    g->last = mostly_undefined(&in.d);
    return true;
}

/* Forward, to the start of a later instruction or the end; now and then anywhere. */
static void set_targets(struct gen *g)
{
    struct dt_case *c = g->c;
    for (unsigned i = 0; i < g->n_fix; i++) {
        const struct gen_fix *f = &g->fix[i];
        unsigned left = c->n_insns - f->insn, to = f->insn + 1 + dice_below(&g->r, left < 3 ? left : 3);
        unsigned here = c->insn[f->insn].off + c->insn[f->insn].len;
        int64_t rel = (to < c->n_insns ? c->insn[to].off : c->code_len) - (int64_t)here;
        if (c->ring0 || !dice_chance(&g->r, 3))
            memcpy(c->code + f->off, &rel, f->size);
    }
}

static unsigned sequence_length(struct gen *g, unsigned max)
{
    unsigned dice = dice_below(&g->r, 100);
    unsigned n = dice < 30 ? 1 : dice < 70 ? 2 + dice_below(&g->r, 3) : 5 + dice_below(&g->r, 12);
    return n < max ? n : max;
}

/* Inside the first page; across the two pages; or running into the end of the second, where the fetch faults. */
static unsigned code_place(struct gen *g)
{
    unsigned dice = dice_below(&g->r, 100);
    if (dice < 80)
        return dice_below(&g->r, 0xe00);
    return dice < 90 ? DT_PAGE - 1 - dice_below(&g->r, 60) : DT_CODE_BYTES - 1 - dice_below(&g->r, 50);
}

void gen_case(const struct catalog *cat, const struct gen_options *o, enum dt_mode mode, uint64_t number,
              struct dt_case *c)
{
    struct gen g = {.cat = cat, .mode = mode, .c = c};
    g.r.s = o->seed * 0x9e3779b97f4a7c15ull ^ (number * DT_MODES + mode) * 0xd1342543de82ef95ull;
    dice_u64(&g.r);
    memset(c, 0, offsetof(struct dt_case, fpu));
    c->number = number;
    c->mode = (uint8_t)mode;
    c->ring0 = o->ring0;
    g.inuse_unknown = o->ring0; /* the signal of a fault in the window puts x87 and SSE into use (Linux does) */
    bool torn = o->pick < 0 && dice_chance(&g.r, 2) && gen_torn(&g);
    if (!torn)
        c->code_off = (uint16_t)code_place(&g);
    gen_segments(&g);
    gen_registers(&g);
    if (c->ring0)
        c->regs.rflags &= ~0x40000ull; /* #AC is CPL 3's */
    gen_fpu(&g);
    unsigned n = sequence_length(&g, o->max_insns);
    for (unsigned i = 0; i < n && !torn && !g.last; i++)
        if (!add_insn(&g, i ? -1 : o->pick))
            break;
    set_targets(&g);
    c->undef_end = g.undef | g.undef_sticky;
    c->code[c->code_len++] = 0xcc;
    if (c->code_off + c->code_len > DT_CODE_BYTES)
        c->code_len = (uint16_t)(DT_CODE_BYTES - c->code_off);
}
