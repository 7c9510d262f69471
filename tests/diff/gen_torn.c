/* tests/diff/gen_torn.c - bytes that are no instruction, or the beginning of one, in front of a page that cannot be fetched: #UD or
 * the fault of the fetch? It depends on how far a processor looks before it finds that there is no such instruction. */
#include "tests/diff/gen_int.h"

#define TORN_MAX 14u

static unsigned add_prefixes(struct gen *g, uint8_t *p)
{
    static const uint8_t prefix[] = {0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x2e, 0x65, 0x48, 0x41};
    unsigned n = dice_below(&g->r, 3), count = sizeof prefix - (g->mode == DT_64 ? 0 : 2);
    for (unsigned i = 0; i < n; i++)
        p[i] = prefix[dice_below(&g->r, count)];
    return n;
}

/* An escape or a VEX, EVEX or XOP prefix, most bits of it random. */
static unsigned add_escape(struct gen *g, uint8_t *p)
{
    static const struct {
        uint8_t byte, more;
    } kind[] = {{0xc4, 2}, {0xc5, 1}, {0x62, 3}, {0x8f, 2}};
    unsigned k = dice_below(&g->r, 10), n = 0;
    if (k < 2)
        return 0;
    if (k < 6) {
        p[n++] = 0x0f;
        if (k > 3)
            p[n++] = (uint8_t)(0x38 | dice_below(&g->r, 8));
        return n;
    }
    p[n++] = kind[k - 6].byte;
    for (unsigned i = 0; i < kind[k - 6].more; i++)
        p[n++] = (uint8_t)(dice_u64(&g->r) | (i ? 0 : 0xc0));
    return n;
}

static unsigned draw(struct gen *g, uint8_t *p)
{
    unsigned n = add_prefixes(g, p), tail = dice_below(&g->r, 6);
    n += add_escape(g, p + n);
    for (unsigned i = 0; i <= tail; i++)
        p[n++] = (uint8_t)dice_u64(&g->r);
    return dice_chance(&g->r, 30) ? 1 + dice_below(&g->r, n) : n;
}

/* VMCALL and its like: with prefixes they should not have they are no instructions, but an outer hypervisor sees them all the same. */
static bool leaves(const uint8_t *p, unsigned n)
{
    for (unsigned i = 0; i + 2 < n; i++)
        if (p[i] == 0x0f && p[i + 1] == 0x01 && p[i + 2] >= 0xc0)
            return true;
    return false;
}

bool gen_torn(struct gen *g)
{
    struct dt_case *c = g->c;
    ZydisDecodedInstruction d;
    for (unsigned tries = 0; tries < 20; tries++) {
        unsigned n = draw(g, c->code);
        if (n > TORN_MAX || leaves(c->code, n) ||
            ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(cat_decoder(g->cat), NULL, c->code, n, &d)))
            continue;
        c->code_off = (uint16_t)(DT_CODE_BYTES - n);
        c->code_len = (uint16_t)n;
        c->insn[c->n_insns++] = (struct dt_insn){.len = (uint8_t)n};
        return true;
    }
    return false;
}
