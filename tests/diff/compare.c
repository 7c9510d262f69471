/* tests/diff/compare.c - comparison of results under the masks of masks.def and the account of undefined flags. */
#include "tests/diff/compare.h"
#include "tests/diff/catalog.h"
#include <Zydis/Zydis.h>
#include <string.h>

enum { FPU_ENV = 1, PARTIAL = 2, ALIGN = 4, LOAD = 8 };
static const uint8_t masks[ZYDIS_MNEMONIC_MAX_VALUE + 1] = {
#define MASK(m, kind) [ZYDIS_MNEMONIC_##m] = kind,
#include "tests/diff/masks.def"
#undef MASK
};
#define ENV_SPAN 18u
#define PF_USER 4u /* bit of the error code */
#define FLAGS_ARITH 0x8d5u
#define VECTORS_WITH_ERROR (1u << 8 | 1u << 10 | 1u << 11 | 1u << 12 | 1u << 13 | 1u << 14 | 1u << 17 | 1u << 21)
#define VECTORS_OF_ACCESS (1u << 12 | 1u << 13 | 1u << 14)
/* CF PF AF ZF SF TF IF DF OF IOPL NT RF VM AC VIF VIP ID */
#define FLAGS_ALL 0x3f7fd5u

static uint64_t stop_offset(const struct dt_case *c, const struct dt_result *r)
{
    uint64_t base =
        (r->regs.sel[DT_CS] & 4) && r->regs.sel[DT_CS] >> 3 < DT_LDT_COUNT ? dt_ldt[r->regs.sel[DT_CS] >> 3].base : 0;
    return r->regs.rip + base - DT_CODE_BASE - c->code_off;
}

int dt_stopped_at(const struct dt_case *c, const struct dt_result *r)
{
    uint64_t off = stop_offset(c, r);
    for (int i = 0; i < c->n_insns; i++)
        if (off == c->insn[i].off)
            return i;
    unsigned end = c->n_insns ? c->insn[c->n_insns - 1].off + c->insn[c->n_insns - 1].len : 0;
    return off == end || off == end + 1 ? c->n_insns : -1;
}

static uint32_t undefined_flags(const struct dt_case *c, const struct dt_result *r)
{
    int at = dt_stopped_at(c, r);
    uint32_t all = c->undef_end;
    if (at >= 0 && at < c->n_insns)
        return c->insn[at].undef_before;
    for (int i = 0; at < 0 && i < c->n_insns; i++)
        all |= c->insn[i].undef_before;
    return all;
}

static void open_decoder(ZydisDecoder *d, uint16_t cs)
{
    if (cs == DT_SEL_CODE64)
        ZydisDecoderInit(d, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    else if (!(cs & 4) || (cs >> 3 < DT_LDT_COUNT && dt_ldt[cs >> 3].db))
        ZydisDecoderInit(d, ZYDIS_MACHINE_MODE_LONG_COMPAT_32, ZYDIS_STACK_WIDTH_32);
    else
        ZydisDecoderInit(d, ZYDIS_MACHINE_MODE_LONG_COMPAT_16, ZYDIS_STACK_WIDTH_16);
}

static bool decode_at(const struct dt_case *c, const struct dt_result *r, ZydisDecodedInstruction *insn)
{
    uint64_t off = stop_offset(c, r);
    uint8_t bytes[15];
    ZydisDecoder d;
    if (off >= c->code_len)
        return false;
    for (unsigned i = 0; i < sizeof bytes; i++) /* behind the code there is INT3 */
        bytes[i] = off + i < c->code_len ? c->code[off + i] : 0xcc;
    open_decoder(&d, r->regs.sel[DT_CS]);
    return ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&d, NULL, bytes, sizeof bytes, insn));
}

bool dt_usable(const struct dt_case *c, const struct dt_result *r)
{
    ZydisDecodedInstruction insn;
    return r->vector != DT_VEC_TIMEOUT && r->vector != DT_VEC_SYSCALL &&
           !(decode_at(c, r, &insn) && cat_excluded(insn.mnemonic)) && !(c->ring0 && dt_stopped_at(c, r) < 0);
}

static bool is_transfer(const ZydisDecodedInstruction *insn)
{
    switch (insn->meta.category) {
    case ZYDIS_CATEGORY_COND_BR:
    case ZYDIS_CATEGORY_UNCOND_BR:
    case ZYDIS_CATEGORY_CALL:
    case ZYDIS_CATEGORY_RET: return true;
    default: return false;
    }
}

/* Could execution have left the instructions that were generated, and with them the account of undefined flags? By a transfer to
 * the middle of one, or to another mode, in which the same bytes are others. */
static bool may_have_strayed(const struct dt_case *c, const struct dt_result *r)
{
    int at = dt_stopped_at(c, r), n = at >= 0 && at < c->n_insns ? at : c->n_insns;
    ZydisDecoder d;
    open_decoder(&d, c->regs.sel[DT_CS]);
    for (int i = 0; i < n; i++) {
        ZydisDecodedInstruction insn;
        const struct dt_insn *k = &c->insn[i];
        if (!ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&d, NULL, c->code + k->off, k->len, &insn)))
            return true;
        if (!is_transfer(&insn))
            continue;
        bool listed = false;
        int64_t to = k->off + k->len + (insn.raw.imm[0].is_relative ? insn.raw.imm[0].value.s : INT32_MIN);
        for (int j = 0; j < c->n_insns; j++)
            listed |= to == c->insn[j].off;
        if (!listed && to != c->insn[c->n_insns - 1].off + c->insn[c->n_insns - 1].len)
            return true;
    }
    return false;
}

/* What may differ because of the instruction that the case stopped at, and what may differ only if an access of it has faulted.
 * It need not be one of those that were generated: after a change of mode or a jump into one the same bytes are others. */
struct stop {
    unsigned mask;
    uint64_t loading; /* state components that may be loaded in part */
};

static struct stop stop_of(const struct dt_case *c, const struct dt_result *r)
{
    ZydisDecodedInstruction insn;
    if (!decode_at(c, r, &insn))
        return (struct stop){0, 0};
    struct stop s = {masks[insn.mnemonic], 0};
    if (r->vector > 31 || !(VECTORS_OF_ACCESS >> r->vector & 1))
        s.mask &= ~(unsigned)(PARTIAL | LOAD);
    if (!(s.mask & LOAD))
        return s;
    switch (insn.mnemonic) {
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64: s.loading = (r->regs.gpr[2] << 32 | (uint32_t)r->regs.gpr[0]) & DT_COMPS_ALL; break;
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64: s.loading = DT_COMP_X87 | DT_COMP_SSE; break;
    default: s.loading = DT_COMP_X87;
    }
    return s;
}

struct cmp {
    FILE *out;
    bool same;
};

static void field(struct cmp *k, const char *name, uint64_t a, uint64_t b)
{
    if (a == b)
        return;
    k->same = false;
    if (k->out)
        fprintf(k->out, "  %-10s %16llx  %16llx\n", name, (unsigned long long)a, (unsigned long long)b);
}

/* Linux reports faults above what a process may have as protection violations, whatever was mapped there; so do we. */
static uint32_t error_code(const struct dt_case *c, const struct dt_result *r)
{
    if (r->vector == 14)
        return r->error | (r->cr2 >= 0x7ffffffff000ull) | (c->ring0 ? PF_USER : 0);
    return r->vector < 32 && (VECTORS_WITH_ERROR >> r->vector & 1) ? r->error : 0;
}

static uint32_t compared_flags(const struct dt_case *c, const struct dt_result *r)
{
    return FLAGS_ALL & ~(may_have_strayed(c, r) ? FLAGS_ARITH : undefined_flags(c, r));
}

static void compare_regs(struct cmp *k, const struct dt_case *c, const struct dt_result *a, const struct dt_result *b)
{
    static const char *const name[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                       "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
    static const char *const seg[] = {"es", "cs", "ss", "ds", "fs", "gs"};
    /* Outside 64-bit mode the upper halves are undefined. */
    bool wide = c->mode == DT_64 && a->regs.sel[DT_CS] == DT_SEL_CODE64 && b->regs.sel[DT_CS] == DT_SEL_CODE64;
    uint64_t mask = wide ? ~0ull : 0xffffffffu;
    for (unsigned i = 0; i < (wide ? 16 : 8); i++)
        field(k, name[i], a->regs.gpr[i] & mask, b->regs.gpr[i] & mask);
    field(k, "rip", a->regs.rip, b->regs.rip);
    uint32_t flags = FLAGS_ALL;
    if ((a->regs.rflags ^ b->regs.rflags) & FLAGS_ARITH)
        flags = compared_flags(c, a);
    field(k, "rflags", a->regs.rflags & flags, b->regs.rflags & flags);
    /* A return to an outer ring turns every null selector into 0 (SDM 2A, IRET): the child's kernel has made one. */
    for (unsigned i = 0; i < DT_SEGS; i++)
        field(k, seg[i], a->regs.sel[i] & ~3u ? a->regs.sel[i] : 0, b->regs.sel[i] & ~3u ? b->regs.sel[i] : 0);
    field(k, "fsbase", a->regs.fsbase, b->regs.fsbase);
    field(k, "gsbase", a->regs.gsbase, b->regs.gsbase);
}

static void compare_bytes(struct cmp *k, const char *name, unsigned index, const uint8_t *a, const uint8_t *b,
                          unsigned n)
{
    if (!memcmp(a, b, n))
        return;
    k->same = false;
    if (!k->out)
        return;
    fprintf(k->out, "  %s%u\n", name, index);
    for (int side = 0; side < 2; side++) {
        fprintf(k->out, "    ");
        for (unsigned i = n; i-- > 0;)
            fprintf(k->out, "%02x%s", (side ? b : a)[i], i % 8 == 0 && i ? "_" : "");
        fprintf(k->out, "\n");
    }
}

/* Brings an XSAVE image to one form: components in their initial state are written out, pointers and reserved bytes zero. */
static void normalise(const uint8_t *in, uint8_t *f)
{
    const struct dt_xsave *x = dt_xsave();
    uint64_t bv;
    memcpy(&bv, in + 512, 8);
    memcpy(f, in, x->bytes);
    if (!(bv & 1)) {
        static const uint8_t init[24] = {0x7f, 3};
        memcpy(f, init, 24);
        memset(f + 32, 0, 128);
    }
    if (!(bv & 2))
        memset(f + 160, 0, 256);
    for (unsigned i = 2; i < 8; i++)
        if (x->off[i] && !(bv >> i & 1))
            memset(f + x->off[i], 0, x->size[i]);
    memset(f + 5, 0, 19); /* reserved, FOP, FIP, FDP */
    for (unsigned i = 0; i < 8; i++)
        memset(f + 32 + 16 * i + 10, 0, 6);
}

static void compare_fpu(struct cmp *k, const struct dt_result *ra, const struct dt_result *rb, uint64_t comps)
{
    static uint8_t a[DT_FPU_MAX], b[DT_FPU_MAX];
    const struct dt_xsave *x = dt_xsave();
    normalise(ra->fpu, a);
    normalise(rb->fpu, b);
    if (comps & DT_COMP_X87) {
        field(k, "fcw", a[0] | a[1] << 8, b[0] | b[1] << 8);
        field(k, "fsw", a[2] | a[3] << 8, b[2] | b[3] << 8);
        field(k, "ftw", a[4], b[4]);
        for (unsigned i = 0; i < 8; i++)
            compare_bytes(k, "st", i, a + 32 + 16 * i, b + 32 + 16 * i, 10);
    }
    if ((comps & (DT_COMP_SSE | DT_COMP_AVX)) == (DT_COMP_SSE | DT_COMP_AVX)) /* a load of either loads it */
        compare_bytes(k, "mxcsr", 0, a + 24, b + 24, 4);
    for (unsigned i = 0; i < 16; i++) {
        if (comps & DT_COMP_SSE)
            compare_bytes(k, "xmm", i, a + 160 + 16 * i, b + 160 + 16 * i, 16);
        if (x->off[2] && (comps & DT_COMP_AVX))
            compare_bytes(k, "ymm-high", i, a + x->off[2] + 16 * i, b + x->off[2] + 16 * i, 16);
        if (x->off[6] && (comps & DT_COMP_ZMM_HIGH))
            compare_bytes(k, "zmm-high", i, a + x->off[6] + 32 * i, b + x->off[6] + 32 * i, 32);
        if (x->off[7] && (comps & DT_COMP_ZMM16))
            compare_bytes(k, "zmm", 16 + i, a + x->off[7] + 64 * i, b + x->off[7] + 64 * i, 64);
    }
    for (unsigned i = 0; x->off[5] && (comps & DT_COMP_K) && i < 8; i++)
        compare_bytes(k, "k", i, a + x->off[5] + 8 * i, b + x->off[5] + 8 * i, 8);
}

/* REP MOVS between the two views of the data: a processor notices that operands overlap by their linear addresses and so copies
 * aliases in larger pieces than bytes. */
static bool copies_alias(const struct dt_case *c, const struct dt_result *r)
{
    for (int i = 0; i < c->n_insns; i++)
        switch (c->insn[i].mnemonic) {
        case ZYDIS_MNEMONIC_MOVSB:
        case ZYDIS_MNEMONIC_MOVSW:
        case ZYDIS_MNEMONIC_MOVSD:
        case ZYDIS_MNEMONIC_MOVSQ:
            if ((c->regs.gpr[6] ^ c->regs.gpr[7]) >> 32 || (r->regs.gpr[6] ^ r->regs.gpr[7]) >> 32)
                return true;
        }
    return false;
}

bool dt_may_have_left(const struct dt_case *c, const struct dt_result *r)
{
    static const uint16_t cs[] = {DT_SEL_CODE64, DT_SEL_CODE32, DT_SEL_LDT(3)};
    if (!may_have_strayed(c, r))
        return false;
    for (unsigned k = 0; k < 3; k++) {
        ZydisDecoder d;
        ZydisDecodedInstruction insn;
        open_decoder(&d, cs[k]);
        for (unsigned off = 0; off < c->code_len; off++)
            if (ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&d, NULL, c->code + off, c->code_len - off, &insn)) &&
                (cat_excluded(insn.mnemonic) || insn.mnemonic == ZYDIS_MNEMONIC_XGETBV))
                return true;
    }
    return false;
}

bool dt_stores_pointers(unsigned mnemonic) { return masks[mnemonic] & FPU_ENV; }

/* How many spans of the x87's pointers may stand in memory. */
static unsigned env_spans(const struct dt_case *c)
{
    unsigned spans = 0;
    for (int i = 0; i < c->n_insns; i++)
        spans += dt_stores_pointers(c->insn[i].mnemonic);
    return spans;
}

struct dt_compared dt_compared(const struct dt_case *c, const struct dt_result *r)
{
    struct stop at = stop_of(c, r);
    return (struct dt_compared){.memory = !(at.mask & PARTIAL) && !copies_alias(c, r),
                                .memory_exact = !env_spans(c),
                                .comps = DT_COMPS_ALL & ~at.loading,
                                .flags = compared_flags(c, r)};
}

static void compare_memory(struct cmp *k, const struct dt_case *c, const struct dt_result *a, const struct dt_result *b)
{
    unsigned spans = env_spans(c), lines = 0, masked_to = 0;
    for (unsigned p = 0; p < DT_DATA_PAGES; p++) {
        if (DT_DATA_KINDS[p] == '.' || !memcmp(a->mem + p * DT_PAGE, b->mem + p * DT_PAGE, DT_PAGE))
            continue;
        for (unsigned i = p * DT_PAGE; i < (p + 1) * DT_PAGE; i++) {
            if (a->mem[i] == b->mem[i] || i < masked_to)
                continue;
            if (spans) {
                spans--;
                masked_to = i + ENV_SPAN;
                continue;
            }
            k->same = false;
            if (k->out && lines++ < 40)
                fprintf(k->out, "  [%08llx] %16x  %16x\n", (unsigned long long)DT_DATA_BASE + i, a->mem[i], b->mem[i]);
        }
    }
}

bool dt_compare(const struct dt_case *c, const struct dt_result *a, const struct dt_result *b, FILE *out)
{
    struct cmp k = {out, true};
    struct stop at = stop_of(c, a);
    bool ac = (a->vector == 17 && b->vector == 13) || (a->vector == 13 && b->vector == 17);
    if (!(ac && (at.mask & ALIGN)))
        field(&k, "vector", a->vector, b->vector);
    if (a->vector == DT_VEC_DIED || b->vector == DT_VEC_DIED)
        return false;
    field(&k, "error", error_code(c, a), error_code(c, b));
    if (a->vector == 14 || b->vector == 14)
        field(&k, "cr2", a->cr2, b->cr2);
    compare_regs(&k, c, a, b);
    compare_fpu(&k, a, b, DT_COMPS_ALL & ~at.loading);
    if (!(at.mask & PARTIAL) && !copies_alias(c, a))
        compare_memory(&k, c, a, b);
    return k.same || dt_may_have_left(c, a);
}
