/* tests/diff/catalog.c - the walk over the opcode space, and the making of instructions from its templates. */
#include "tests/diff/catalog.h"
#include <stdlib.h>
#include <string.h>

enum enc { ENC_LEGACY, ENC_3DNOW, ENC_VEX, ENC_XOP, ENC_EVEX };
#define ANY 0xffu
struct tmpl {
    uint16_t mnemonic;
    uint8_t enc, pp, map, opcode, w, l, b;
    uint8_t is_mem, reg, rm; /* is_mem: 0 register form, 1 memory form; reg, rm: fixed value or ANY */
};
struct catalog {
    enum dt_mode mode;
    ZydisDecoder dec;
    struct tmpl *tmpl;
    unsigned count, room;
    unsigned first[ZYDIS_MNEMONIC_MAX_VALUE + 2]; /* index of the first template of a mnemonic, after sorting */
    uint16_t known[ZYDIS_MNEMONIC_MAX_VALUE + 1], n_known;
    unsigned *basic, n_basic; /* templates of the integer instructions of maps 0 and 1 */
};

static const char *const reasons[ZYDIS_MNEMONIC_MAX_VALUE + 1] = {
#define EXCLUDE(m, why) [ZYDIS_MNEMONIC_##m] = why,
#include "tests/diff/exclude.def"
#undef EXCLUDE
};
const char *cat_excluded(unsigned mnemonic) { return reasons[mnemonic]; }

static unsigned put_prefix(uint8_t *p, unsigned n, unsigned pp)
{
    static const uint8_t byte[4] = {0, 0x66, 0xf3, 0xf2};
    if (pp)
        p[n++] = byte[pp];
    return n;
}

/* The variable parts of a prefix block, as random as the mode allows; all zero during the walk. */
struct vary {
    uint8_t rex, x, b, r, r2, v, v2, aaa, z, vvvv;
};

static unsigned put_legacy(const struct catalog *c, const struct tmpl *t, const struct vary *v, uint8_t *p, unsigned n)
{
    n = put_prefix(p, n, t->pp);
    if (c->mode == DT_64 && (t->w || v->rex))
        p[n++] = (uint8_t)(0x40 | t->w << 3 | v->r << 2 | v->x << 1 | v->b);
    if (t->map)
        p[n++] = 0x0f;
    if (t->map == 2)
        p[n++] = 0x38;
    if (t->map == 3)
        p[n++] = 0x3a;
    if (t->enc == ENC_3DNOW)
        p[n++] = 0x0f;
    else
        p[n++] = t->opcode;
    return n;
}

/* VEX and XOP, three-byte form, or two-byte where it will do and the dice say so. Outside 64-bit mode the inverted R and X
 * bits are what tells VEX from LES/LDS, and registers are eight. */
static unsigned put_vex(const struct catalog *c, const struct tmpl *t, const struct vary *v, uint8_t *p, unsigned n)
{
    bool wide = c->mode == DT_64;
    unsigned r = wide ? v->r : 0, x = wide ? v->x : 0, b = wide ? v->b : 0;
    uint8_t tail = (uint8_t)((~v->vvvv & 15) << 3 | (t->l & 1) << 2 | t->pp);
    if (!wide)
        tail |= 0x40;
    if (t->enc == ENC_VEX && t->map == 1 && !t->w && !x && !b && v->rex) {
        p[n++] = 0xc5;
        p[n++] = (uint8_t)(!r << 7 | tail);
    } else {
        p[n++] = t->enc == ENC_XOP ? 0x8f : 0xc4;
        p[n++] = (uint8_t)(!r << 7 | !x << 6 | !b << 5 | t->map);
        p[n++] = (uint8_t)(t->w << 7 | tail);
    }
    p[n++] = t->opcode;
    return n;
}

static unsigned put_evex(const struct catalog *c, const struct tmpl *t, const struct vary *v, uint8_t *p, unsigned n)
{
    bool wide = c->mode == DT_64;
    unsigned r = wide ? v->r : 0, x = wide ? v->x : 0, b = wide ? v->b : 0, r2 = wide ? v->r2 : 0,
             v2 = wide ? v->v2 : 0;
    unsigned vvvv = ~v->vvvv & 15u;
    if (!wide)
        vvvv |= 8;
    p[n++] = 0x62;
    p[n++] = (uint8_t)(!r << 7 | !x << 6 | !b << 5 | !r2 << 4 | t->map);
    p[n++] = (uint8_t)(t->w << 7 | vvvv << 3 | 4 | t->pp);
    p[n++] = (uint8_t)(v->z << 7 | t->l << 5 | t->b << 4 | !v2 << 3 | v->aaa);
    p[n++] = t->opcode;
    return n;
}

static unsigned put_opcode(const struct catalog *c, const struct tmpl *t, const struct vary *v, uint8_t *p, unsigned n)
{
    switch (t->enc) {
    case ENC_LEGACY:
    case ENC_3DNOW: return put_legacy(c, t, v, p, n);
    case ENC_VEX:
    case ENC_XOP: return put_vex(c, t, v, p, n);
    default: return put_evex(c, t, v, p, n);
    }
}

/* -- the walk -- */

/* Mnemonic of a template with given reg and rm, or 0. *has_modrm tells whether a ModRM byte was part of it. */
static unsigned probe(const struct catalog *c, const struct tmpl *t, unsigned reg, unsigned rm, bool *has_modrm)
{
    /* Gathers want a mask, and some EVEX forms want none; vvvv is a register in some and must be 1111b in others. */
    static const struct vary tries[4] = {{0}, {.aaa = 1}, {.vvvv = 1}, {.aaa = 1, .vvvv = 1}};
    unsigned n_tries = t->enc == ENC_EVEX ? 4 : t->enc >= ENC_VEX ? 4 : 1;
    for (unsigned k = 0; k < n_tries; k++) {
        uint8_t buf[32] = {0};
        unsigned n = 0;
        if (t->is_mem && rm == 4 && c->mode == DT_16)
            buf[n++] = 0x67;
        n = put_opcode(c, t, &tries[k], buf, n);
        buf[n] = (uint8_t)((t->is_mem ? 0 : 0xc0) | reg << 3 | rm);
        if (t->enc == ENC_3DNOW)
            buf[n + 1 + (t->is_mem && rm == 4)] = t->opcode;
        ZydisDecoderContext ctx;
        ZydisDecodedInstruction d;
        if (!ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&c->dec, &ctx, buf, 15, &d)))
            continue;
        *has_modrm = d.attributes & ZYDIS_ATTRIB_HAS_MODRM;
        return reasons[d.mnemonic] ? 0 : d.mnemonic;
    }
    return 0;
}

static void add(struct catalog *c, struct tmpl t, unsigned mnemonic, unsigned reg, unsigned rm)
{
    if (!mnemonic)
        return;
    if (c->count == c->room) {
        c->room = c->room ? c->room * 2 : 4096;
        c->tmpl = realloc(c->tmpl, c->room * sizeof *c->tmpl);
    }
    t.mnemonic = (uint16_t)mnemonic;
    t.reg = (uint8_t)reg;
    t.rm = (uint8_t)rm;
    c->tmpl[c->count++] = t;
}

/* One opcode, memory or register form: a single template if ModRM.reg (and rm) do not choose the instruction, else one for
 * each value that decodes. */
static void walk_form(struct catalog *c, struct tmpl t)
{
    unsigned m[8][8];
    bool modrm = false, same_reg = true, same_rm = true, any = false;
    for (unsigned reg = 0; reg < 8; reg++)
        for (unsigned rm = 0; rm < 8; rm++) {
            /* Memory forms depend on rm only through SIB (vector index); 4 stands for those that need it. EVEX register
             * forms never depend on rm. */
            if (t.is_mem ? rm != 0 && rm != 4 : t.enc == ENC_EVEX && rm) {
                m[reg][rm] = m[reg][0];
                continue;
            }
            m[reg][rm] = probe(c, &t, reg, rm, &modrm);
            any |= m[reg][rm] != 0;
            if (any && !modrm) {
                add(c, t, m[reg][rm], ANY, ANY);
                return;
            }
        }
    if (!any)
        return;
    for (unsigned reg = 0; reg < 8; reg++)
        for (unsigned rm = 0; rm < 8; rm++) {
            same_reg &= m[reg][rm] == m[0][rm];
            same_rm &= m[reg][rm] == m[reg][0];
        }
    if (t.is_mem) { /* rm 4 only: vector SIB */
        for (unsigned reg = 0; reg < (same_reg ? 1 : 8); reg++)
            add(c, t, m[reg][4], same_reg ? ANY : reg, m[reg][0] ? ANY : 4);
        return;
    }
    for (unsigned reg = 0; reg < (same_reg ? 1 : 8); reg++)
        for (unsigned rm = 0; rm < (same_rm ? 1 : 8); rm++)
            add(c, t, m[reg][rm], same_reg ? ANY : reg, same_rm ? ANY : rm);
}

static void walk_opcodes(struct catalog *c, struct tmpl t)
{
    for (unsigned op = 0; op < 256; op++) {
        t.opcode = (uint8_t)op;
        unsigned before = c->count;
        t.is_mem = 0;
        walk_form(c, t);
        if (c->count == before + 1 && t.enc == ENC_LEGACY && c->tmpl[before].reg == ANY && t.map == 0) {
            /* No ModRM at all looks the same in both forms: do not book it twice. */
            bool modrm = false;
            probe(c, &t, 0, 0, &modrm);
            if (!modrm)
                continue;
        }
        t.is_mem = 1;
        walk_form(c, t);
    }
}

static void walk_enc(struct catalog *c, unsigned enc, const uint8_t *maps, unsigned n_maps, unsigned n_l, unsigned n_b)
{
    bool legacy = enc == ENC_LEGACY || enc == ENC_3DNOW;
    for (unsigned m = 0; m < n_maps; m++)
        for (unsigned pp = 0; pp < (enc == ENC_3DNOW ? 1 : 4); pp++)
            for (unsigned w = 0; w < (legacy && c->mode != DT_64 ? 1 : 2); w++)
                for (unsigned l = 0; l < n_l; l++)
                    for (unsigned b = 0; b < n_b; b++)
                        walk_opcodes(c, (struct tmpl){.enc = (uint8_t)enc,
                                                      .pp = (uint8_t)pp,
                                                      .map = maps[m],
                                                      .w = (uint8_t)w,
                                                      .l = (uint8_t)l,
                                                      .b = (uint8_t)b});
}

static int by_mnemonic(const void *a, const void *b)
{
    const struct tmpl *x = a, *y = b;
    return x->mnemonic != y->mnemonic ? (x->mnemonic < y->mnemonic ? -1 : 1) : memcmp(x, y, sizeof *x);
}

static void index_templates(struct catalog *c)
{
    qsort(c->tmpl, c->count, sizeof *c->tmpl, by_mnemonic);
    unsigned i = 0;
    for (unsigned m = 0; m <= ZYDIS_MNEMONIC_MAX_VALUE + 1; m++) {
        while (i < c->count && c->tmpl[i].mnemonic < m)
            i++;
        c->first[m] = i;
        if (m && c->first[m] > c->first[m - 1])
            c->known[c->n_known++] = (uint16_t)(m - 1);
    }
    c->basic = malloc(c->count * sizeof *c->basic);
    for (i = 0; i < c->count; i++) {
        const struct tmpl *t = &c->tmpl[i];
        /* Map 1's SIMD rows are 1x (but hint NOPs), 2x 28-2f, 5x-7x, c2-c6, d0-ff. */
        bool simd =
            t->map == 1 &&
            ((t->opcode >= 0x10 && t->opcode < 0x18) || (t->opcode >= 0x28 && t->opcode < 0x30) ||
             (t->opcode >= 0x50 && t->opcode < 0x80) || (t->opcode >= 0xc2 && t->opcode < 0xc7) || t->opcode >= 0xd0);
        if (t->enc == ENC_LEGACY && t->map < 2 && !simd && !(t->map == 0 && (t->opcode & 0xf8) == 0xd8))
            c->basic[c->n_basic++] = i;
    }
}

struct catalog *cat_open(enum dt_mode mode)
{
    static const uint8_t legacy[] = {0, 1, 2, 3}, now[] = {1}, vex[] = {1, 2, 3}, xop[] = {8, 9, 10},
                         evex[] = {1, 2, 3, 5, 6};
    static const ZydisMachineMode machine[] = {ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_MACHINE_MODE_LONG_COMPAT_32,
                                               ZYDIS_MACHINE_MODE_LONG_COMPAT_16};
    static const ZydisStackWidth stack[] = {ZYDIS_STACK_WIDTH_64, ZYDIS_STACK_WIDTH_32, ZYDIS_STACK_WIDTH_16};
    struct catalog *c = calloc(1, sizeof *c);
    c->mode = mode;
    ZydisDecoderInit(&c->dec, machine[mode], stack[mode]);
    walk_enc(c, ENC_LEGACY, legacy, 4, 1, 1);
    walk_enc(c, ENC_3DNOW, now, 1, 1, 1);
    walk_enc(c, ENC_VEX, vex, 3, 2, 1);
    walk_enc(c, ENC_XOP, xop, 3, 2, 1);
    walk_enc(c, ENC_EVEX, evex, 5, 4, 2);
    index_templates(c);
    return c;
}

void cat_close(struct catalog *c)
{
    free(c->tmpl);
    free(c->basic);
    free(c);
}

const ZydisDecoder *cat_decoder(const struct catalog *c) { return &c->dec; }
bool cat_has(const struct catalog *c, unsigned m) { return c->first[m + 1] > c->first[m]; }

/* -- instances -- */

static struct vary random_vary(struct dice *r, const struct tmpl *t)
{
    uint64_t x = dice_u64(r);
    struct vary v = {.rex = x & 1, .x = x >> 1 & 1, .b = x >> 2 & 1, .r = x >> 3 & 1, .r2 = x >> 4 & 1};
    if (t->enc == ENC_EVEX) {
        v.v2 = x >> 5 & 1 & x >> 6;
        v.aaa = (x >> 8 & 1) ? x >> 9 & 7 : 0;
        v.z = x >> 12 & x >> 13 & 1;
    }
    if (x >> 16 & 1)
        v.vvvv = x >> 17 & 15;
    return v;
}

/* Prefixes that change the addressing or nothing: segment overrides, 67h, LOCK, and now and then a meaningless one. */
static unsigned put_extra(const struct catalog *c, struct dice *r, const struct tmpl *t, uint8_t *p)
{
    static const uint8_t seg[] = {0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65};
    unsigned n = 0;
    bool vsib = t->is_mem && t->rm == 4;
    if (dice_chance(r, c->mode == DT_16 ? 25 : 6) || (vsib && c->mode == DT_16))
        p[n++] = 0x67;
    if (dice_chance(r, 8))
        p[n++] = seg[dice_below(r, 6)];
    if (t->enc == ENC_LEGACY && t->is_mem && !t->pp && dice_chance(r, 12))
        p[n++] = 0xf0;
    if (t->enc == ENC_LEGACY && t->pp >= 2 && dice_chance(r, 15))
        p[n++] = 0x66;
    return n;
}

/* Immediates: the values where flags and widths change matter more than the many others. */
static void random_imm(struct dice *r, const ZydisDecodedInstruction *d, uint8_t *bytes)
{
    for (unsigned i = 0; i < 2; i++) {
        unsigned size = d->raw.imm[i].size / 8;
        uint8_t *p = bytes + d->raw.imm[i].offset;
        if (!size || dice_chance(r, 50))
            continue;
        static const uint64_t nice[] = {0,  1,  2,    3,    7,    8,      15,     16,         31,         32,   33,
                                        63, 64, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0x7fffffff, 0x80000000, ~0ull};
        uint64_t v = nice[dice_below(r, sizeof nice / sizeof *nice)];
        memcpy(p, &v, size);
    }
}

static bool instance(const struct catalog *c, struct dice *r, const struct tmpl *t, struct cat_insn *out)
{
    struct vary v = random_vary(r, t);
    uint8_t buf[48];
    unsigned n = put_opcode(c, t, &v, buf, put_extra(c, r, t, buf));
    unsigned reg = t->reg == ANY ? dice_below(r, 8) : t->reg, rm = t->rm == ANY ? dice_below(r, 8) : t->rm;
    unsigned modrm_at = n;
    buf[n++] = (uint8_t)((t->is_mem ? dice_below(r, 3) : 3) << 6 | reg << 3 | rm);
    for (unsigned i = 0; i < 16; i += 8) {
        uint64_t x = dice_u64(r);
        memcpy(buf + n + i, &x, 8);
    }
    if (t->is_mem && (buf[modrm_at] & 7) == 4 && dice_chance(r, 30))
        buf[n] = (uint8_t)((buf[n] & 7) | 0x20); /* SIB without index */
    ZydisDecodedInstruction *d = &out->d;
    if (t->enc == ENC_3DNOW) {
        /* The opcode comes last: find out how long the address is with any opcode, then put it there. */
        for (unsigned len = modrm_at + 2; len < 15; len++) {
            uint8_t keep = buf[len - 1];
            buf[len - 1] = t->opcode;
            if (ZYAN_SUCCESS(ZydisDecoderDecodeFull(&c->dec, buf, 15, d, out->op)) && d->length == len)
                break;
            buf[len - 1] = keep;
        }
    }
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&c->dec, buf, 15, d, out->op)) || d->mnemonic != t->mnemonic)
        return false;
    if (t->enc != ENC_3DNOW)
        random_imm(r, d, buf);
    memcpy(out->bytes, buf, sizeof out->bytes - 1);
    return ZYAN_SUCCESS(ZydisDecoderDecodeFull(&c->dec, out->bytes, 15, d, out->op));
}

/* Mixture: every mnemonic alike in half of the draws (thus the many vector forms), the integer core in the other half. */
static const struct tmpl *choose(const struct catalog *c, struct dice *r, int pick)
{
    if (pick < 0 && dice_chance(r, 50))
        return &c->tmpl[c->basic[dice_below(r, c->n_basic)]];
    unsigned m = pick < 0 ? c->known[dice_below(r, c->n_known)] : (unsigned)pick;
    unsigned n = c->first[m + 1] - c->first[m];
    return n ? &c->tmpl[c->first[m] + dice_below(r, n)] : NULL;
}

bool cat_random(const struct catalog *c, struct dice *r, int pick, struct cat_insn *out)
{
    const struct tmpl *t = choose(c, r, pick);
    for (unsigned i = 0; t && i < 60; i++)
        if (instance(c, r, t, out))
            return true;
    return false;
}
