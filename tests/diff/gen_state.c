/* tests/diff/gen_state.c - initial states: segments, registers, flags, FPU contents, data values, target addresses. */
#include "tests/diff/gen_int.h"
#include <string.h>

#define COUNT(a) (sizeof(a) / sizeof *(a))

static const uint64_t nice[] = {0,
                                1,
                                2,
                                3,
                                0x7f,
                                0x80,
                                0xff,
                                0x7fff,
                                0x8000,
                                0xffff,
                                0x7fffffff,
                                0x80000000,
                                0xffffffff,
                                0x100000000,
                                0x7fffffffffffffff,
                                0x8000000000000000,
                                0xffffffffffffffff,
                                0xfffffffffffffffe,
                                0xffffffff80000000,
                                31,
                                32,
                                63,
                                64,
                                15,
                                16};

/* Floating-point bit patterns: 0, 1, infinity, quiet and signalling NaN, denormals, extremes. */
static const uint32_t f32[] = {0,          0x3f800000, 0x7f800000, 0x7fc00000, 0x7f800001,
                               1,          0x007fffff, 0x00800000, 0x7f7fffff, 0x40490fdb,
                               0x4f000000, 0x4effffff, 0x5f000000, 0x3effffff, 0x33800000};
static const uint64_t f64[] = {0,
                               0x3ff0000000000000,
                               0x7ff0000000000000,
                               0x7ff8000000000000,
                               0x7ff0000000000001,
                               1,
                               0x000fffffffffffff,
                               0x0010000000000000,
                               0x7fefffffffffffff,
                               0x400921fb54442d18,
                               0x41e0000000000000,
                               0x43e0000000000000,
                               0x3fdfffffffffffff,
                               0x3810000000000000};
static const uint16_t f16[] = {0, 0x3c00, 0x7c00, 0x7e00, 0x7c01, 1, 0x03ff, 0x0400, 0x7bff, 0x4248, 0x3555};

static uint32_t random_f32(struct dice *r)
{
    uint32_t sign = (uint32_t)dice_u64(r) & 0x80000000u;
    if (dice_chance(r, 40))
        return f32[dice_below(r, COUNT(f32))] | sign;
    return sign | (100 + dice_below(r, 56)) << 23 | (uint32_t)(dice_u64(r) & 0x7fffff);
}

static uint64_t random_f64(struct dice *r)
{
    uint64_t sign = dice_u64(r) & 0x8000000000000000u;
    if (dice_chance(r, 40))
        return f64[dice_below(r, COUNT(f64))] | sign;
    return sign | (uint64_t)(1000 + dice_below(r, 50)) << 52 | dice_u64(r) >> 12;
}

void gen_fill(struct dice *r, uint8_t *p, unsigned bytes)
{
    unsigned kind = dice_below(r, 10);
    for (unsigned i = 0; i < bytes; i += 8) {
        uint64_t v = dice_u64(r);
        switch (kind) {
        case 0: v = 0; break;
        case 1: v = ~0ull; break;
        case 2: v = nice[dice_below(r, COUNT(nice))]; break;
        case 3: v = v & 0x0000003f0000003full; break;
        case 4:
        case 5: v = random_f32(r) | (uint64_t)random_f32(r) << 32; break;
        case 6: v = random_f64(r); break;
        case 7:
            for (unsigned k = 0; k < 64; k += 16)
                v = (v & ~(0xffffull << k)) | (uint64_t)(f16[dice_below(r, COUNT(f16))] | (v >> k & 0x8000)) << k;
            break;
        default: break;
        }
        memcpy(p + i, &v, bytes - i < 8 ? bytes - i : 8);
    }
}

void gen_golden(uint64_t seed, uint8_t *golden)
{
    struct dice r = {seed ^ 0x60d1};
    for (unsigned i = 0; i < DT_DATA_BYTES; i += 32)
        gen_fill(&r, golden + i, 32);
}

uint64_t gen_target(struct gen *g, unsigned bytes)
{
    static const uint8_t mapped[] = {0, 1, 1, 2, 2, 3, 6, 7, 15, 4, 8}, holes[] = {5, 9, 14};
    unsigned page =
        dice_chance(&g->r, 96) ? mapped[dice_below(&g->r, COUNT(mapped))] : holes[dice_below(&g->r, COUNT(holes))];
    unsigned dice = dice_below(&g->r, 100), off;
    if (dice < (bytes >= 16 ? 60u : 30u))
        off = dice_below(&g->r, DT_PAGE / 64) * 64;
    else if (dice < 75)
        off = dice_below(&g->r, DT_PAGE);
    else /* around the end of the page, most of them across it */
        off = DT_PAGE - dice_below(&g->r, bytes > 1 ? bytes + bytes / 4 + 1 : 4);
    uint64_t base = DT_DATA_BASE;
    if (g->mode == DT_64 && dice_chance(&g->r, 20))
        base = DT_HIGH_BASE;
    else if (page == 15 && g->mode != DT_16 && dice_chance(&g->r, 30))
        return DT_TOP_PAGE + off;
    return base + page * DT_PAGE + off;
}

uint64_t gen_value(struct gen *g)
{
    switch (dice_below(&g->r, 5)) {
    case 0: return nice[dice_below(&g->r, COUNT(nice))];
    case 1: return dice_below(&g->r, 70);
    case 2: return gen_target(g, 8);
    case 3: return dice_u64(&g->r) >> dice_below(&g->r, 64);
    default: return dice_u64(&g->r);
    }
}

/* -- segments -- */

static uint16_t one_of(struct gen *g, const uint8_t *ldt, unsigned n)
{
    unsigned i = ldt[dice_below(&g->r, n)];
    return i ? DT_SEL_LDT(i) : DT_SEL_DATA;
}

uint16_t gen_selector(struct gen *g)
{
    static const uint8_t usual[] = {0, 0, 5, 6, 7, 8, 9, 10, 11, 12, 15, 16, 17, 19};
    unsigned dice = dice_below(&g->r, 100);
    if (dice < 60)
        return one_of(g, usual, COUNT(usual));
    if (dice < 70)
        return (uint16_t)dice_below(&g->r, 4); /* null */
    if (dice < 85)
        return (uint16_t)(dice_below(&g->r, DT_LDT_COUNT + 4) << 3 | 4 | dice_below(&g->r, 4));
    if (dice < 97) /* the host's GDT, but for the entry that holds the CPU number */
        return (uint16_t)(dice_below(&g->r, 15) << 3 | dice_below(&g->r, 4));
    return (uint16_t)(dice_u64(&g->r) | 0x1000);
}

uint16_t gen_code_selector(struct gen *g)
{
    static const uint16_t usual[] = {DT_SEL_CODE64, DT_SEL_CODE32, DT_SEL_LDT(1), DT_SEL_LDT(2),
                                     DT_SEL_LDT(3), DT_SEL_LDT(4), DT_SEL_LDT(18)};
    return dice_chance(&g->r, 85) ? usual[dice_below(&g->r, COUNT(usual))] : gen_selector(g);
}

uint64_t gen_seg_base(const struct gen *g, unsigned seg)
{
    const struct dt_regs *s = &g->c->regs;
    if (g->mode == DT_64)
        return seg == DT_FS ? s->fsbase : seg == DT_GS ? s->gsbase : 0;
    return dt_sel_base(s->sel[seg]);
}

void gen_segments(struct gen *g)
{
    static const uint8_t data[] = {0, 0, 5, 6, 6, 7, 7, 8, 9, 10, 11, 12, 15, 16, 17, 19},
                         ss32[] = {0, 0, 5, 6, 15, 7, 10}, ss16[] = {7, 7, 7, 16, 12, 6, 0, 9, 19},
                         cs16[] = {3, 3, 3, 4, 18};
    struct dt_regs *s = &g->c->regs;
    bool flat = dice_chance(&g->r, 60);
    for (unsigned i = 0; i < DT_SEGS; i++)
        s->sel[i] = flat || g->mode == DT_64 ? DT_SEL_DATA : one_of(g, data, COUNT(data));
    if (g->mode == DT_64) {
        s->sel[DT_CS] = DT_SEL_CODE64;
        s->sel[DT_DS] = s->sel[DT_ES] = dice_chance(&g->r, 50) ? 0 : DT_SEL_DATA;
        s->sel[DT_FS] = s->sel[DT_GS] = 0;
        s->fsbase = dice_chance(&g->r, 20) ? 0 : gen_target(g, 8);
        s->gsbase = dice_chance(&g->r, 20) ? 0 : gen_target(g, 8) - dice_below(&g->r, 0x20000);
    } else if (g->mode == DT_32) {
        static const uint16_t cs32[] = {DT_SEL_CODE32, DT_SEL_LDT(1), DT_SEL_LDT(2)};
        s->sel[DT_CS] = flat ? DT_SEL_CODE32 : cs32[dice_below(&g->r, 3)];
        if (!flat)
            s->sel[DT_SS] = one_of(g, ss32, COUNT(ss32));
    } else {
        s->sel[DT_CS] = one_of(g, cs16, COUNT(cs16));
        for (unsigned i = 0; flat && i < DT_SEGS; i++)
            if (i != DT_CS)
                s->sel[i] = DT_SEL_LDT(7);
        if (!flat)
            s->sel[DT_SS] = one_of(g, ss16, COUNT(ss16));
    }
    if (g->mode != DT_64 && dice_chance(&g->r, 5))
        s->sel[DT_FS + dice_below(&g->r, 2)] = 0;
}

/* -- registers -- */

static uint64_t stack_pointer(struct gen *g)
{
    uint64_t lin = DT_DATA_BASE + DT_PAGE + dice_below(&g->r, 2 * DT_PAGE);
    if (dice_chance(&g->r, 80))
        lin &= ~15ull;
    if (dice_chance(&g->r, 10))
        lin = gen_target(g, 8);
    return lin - gen_seg_base(g, DT_SS);
}

void gen_registers(struct gen *g)
{
    struct dt_regs *s = &g->c->regs;
    for (unsigned i = 0; i < 16; i++)
        s->gpr[i] = gen_value(g);
    s->gpr[4] = stack_pointer(g);
    if (dice_chance(&g->r, 70))
        s->gpr[5] = stack_pointer(g);
    s->gpr[6] = gen_target(g, 8) - gen_seg_base(g, DT_DS);
    s->gpr[7] = gen_target(g, 8) - gen_seg_base(g, DT_ES);
    if (g->mode != DT_64)
        for (unsigned i = 0; i < 16; i++)
            s->gpr[i] &= i < 8 ? 0xffffffffu : 0;
    /* IF is set, IOPL is 0: what a user process has. TF and AC seldom, for single step and alignment checks. */
    s->rflags = 0x202 | (dice_u64(&g->r) & GEN_ARITH) | (dice_chance(&g->r, 15) ? 0x400 : 0) |
                (dice_chance(&g->r, 2) ? 0x100 : 0) | (dice_chance(&g->r, 2) ? 0x40000 : 0);
    s->rip = DT_CODE_BASE + g->c->code_off - (g->mode == DT_64 ? 0 : dt_sel_base(s->sel[DT_CS]));
}

/* -- FPU -- */

uint32_t gen_mxcsr(struct gen *g)
{
    uint32_t v = 0x1f80;
    if (dice_chance(&g->r, 25))
        v = (v & ~0x6000u) | dice_below(&g->r, 4) << 13;
    if (dice_chance(&g->r, 10))
        v |= (uint32_t)dice_u64(&g->r) & 0x8040; /* FTZ, DAZ */
    if (dice_chance(&g->r, 8))
        v &= ~((uint32_t)dice_u64(&g->r) & 0x1f80);
    if (dice_chance(&g->r, 20))
        v |= (uint32_t)dice_u64(&g->r) & 0x3f;
    return v;
}

static void fpu_x87(struct gen *g, uint8_t *f)
{
    uint16_t fcw = 0x37f, fsw = 0;
    if (dice_chance(&g->r, 20))
        fcw = (uint16_t)((fcw & ~0xf00u) | dice_below(&g->r, 16) << 8);
    if (dice_chance(&g->r, 8))
        fcw &= (uint16_t) ~(dice_u64(&g->r) & 0x3f);
    if (dice_chance(&g->r, 60))
        fsw = (uint16_t)(dice_u64(&g->r) & 0x7f00);
    if (dice_chance(&g->r, 10))
        fsw |= (uint16_t)(dice_u64(&g->r) & 0x7f);
    if (fsw & ~fcw & 0x3f) /* a pending unmasked exception has ES and B set */
        fsw |= 0x8080;
    f[4] = dice_chance(&g->r, 60) ? (uint8_t)dice_u64(&g->r) : dice_chance(&g->r, 50) ? 0 : 0xff;
    memcpy(f, &fcw, 2);
    memcpy(f + 2, &fsw, 2);
    for (unsigned i = 0; i < 8; i++) {
        uint8_t *st = f + 32 + 16 * i;
        uint64_t man = dice_u64(&g->r);
        uint16_t exp = (uint16_t)(dice_u64(&g->r) & 0x8000);
        switch (dice_below(&g->r, 6)) {
        case 0: man = 0; break;
        case 1: exp |= 0x7fff; break;
        case 2: man &= dice_u64(&g->r) >> 8; break;                       /* denormal or unnormal */
        case 3: gen_fill(&g->r, (uint8_t *)&man, 8), exp = 0xffff; break; /* MMX */
        default: exp |= (uint16_t)(0x3fff - 40 + dice_below(&g->r, 80)), man |= 1ull << 63; break;
        }
        memcpy(st, &man, 8);
        memcpy(st + 8, &exp, 2);
    }
}

void gen_fpu(struct gen *g)
{
    const struct dt_xsave *x = dt_xsave();
    uint8_t *f = g->c->fpu;
    memset(f, 0, x->bytes);
    fpu_x87(g, f);
    uint32_t mxcsr = gen_mxcsr(g);
    memcpy(f + 24, &mxcsr, 4);
    unsigned n = g->mode == DT_64 ? 16 : 8;
    for (unsigned i = 0; i < n; i++) {
        gen_fill(&g->r, f + 160 + 16 * i, 16);
        if (x->off[2])
            gen_fill(&g->r, f + x->off[2] + 16 * i, 16);
        if (x->off[6])
            gen_fill(&g->r, f + x->off[6] + 32 * i, 32);
        if (x->off[7] && g->mode == DT_64)
            gen_fill(&g->r, f + x->off[7] + 64 * i, 64);
    }
    for (unsigned i = 0; x->off[5] && i < 8; i++) {
        uint64_t k = dice_chance(&g->r, 50) ? dice_u64(&g->r) : dice_chance(&g->r, 50) ? ~0ull : dice_below(&g->r, 256);
        memcpy(f + x->off[5] + 8 * i, &k, 8);
    }
    uint64_t bv = x->xcr0;
    if (dice_chance(&g->r, 5))
        bv &= dice_u64(&g->r);
    memcpy(f + 512, &bv, 8);
}

void gen_patch(struct gen *g, uint64_t lin, const void *bytes, unsigned n)
{
    uint64_t off = lin - DT_DATA_BASE;
    if (off >= DT_DATA_BYTES)
        off = lin - DT_HIGH_BASE;
    if (off >= DT_DATA_BYTES)
        off = lin - DT_TOP_PAGE < DT_PAGE ? lin - DT_TOP_PAGE + DT_DATA_BYTES - DT_PAGE : DT_DATA_BYTES;
    if (off >= DT_DATA_BYTES || g->c->n_patches == DT_MAX_PATCHES || n > sizeof g->c->patch[0].bytes)
        return;
    if (off + n > DT_DATA_BYTES)
        n = (unsigned)(DT_DATA_BYTES - off);
    struct dt_patch *p = &g->c->patch[g->c->n_patches++];
    p->off = (uint32_t)off;
    p->len = n;
    memcpy(p->bytes, bytes, n);
}
