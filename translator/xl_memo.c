/* translator/xl_memo.c - remembers how instructions were decoded and classified.
 *
 * Decoding costs more than everything else that is done for an instruction, and few forms make up most of a program. A form is
 * what decides all but two numbers: prefixes, opcode, ModRM, SIB, and the bits of the key that decoder and classification look at.
 * What came out of them the first time (the decoder, the corrections of xl_decode.c, xl_classify.c) is copied; displacement and
 * immediate are read again. So there is no second decoder that could disagree: only where a form ends has to be known here, and
 * nothing is remembered of which the decoder thinks otherwise.
 *
 * Remembered are instructions of the one-byte and two-byte maps that are translated the same way at any privilege.
 */
#include "translator/xl_int.h"
#include <stdlib.h>
#include <string.h>

#define FORM_BYTES 8
#define OPERANDS 4 /* with hidden ones */
#define WAYS 4
#define SET_BITS 9
#define SETS (1u << SET_BITS)
/* Bits of the key that decoding and classification of what is remembered depend on. */
#define MODE_BITS                                                                                                      \
    (CPU_KEY_CODE16 | CPU_KEY_CODE32 | CPU_KEY_CODE64 | CPU_KEY_REAL | CPU_KEY_TS | CPU_KEY_EM | CPU_KEY_MP |          \
     CPU_KEY_OSFXSR | CPU_KEY_AVX | CPU_KEY_AVX512)

struct
    number { /* a displacement or an immediate: bytes of it behind the form (0: there is none), and the operand it is in */
    uint8_t bytes, op;
    bool is_signed;
};
struct entry {
    struct number disp, imm;
    size_t what_bytes;
    _Alignas(8) uint8_t what[offsetof(struct xl_insn, op) + OPERANDS * sizeof(ZydisDecodedOperand)];
};
struct xl_memo {
    struct xl_form tag[SETS][WAYS];
    struct entry entry[SETS][WAYS];
    unsigned turn; /* which way of a set is given up next */
};
_Static_assert(XL_LOOKED_AT <= OPERANDS, "operands that are not there are copied too");

struct xl_memo *xl_memo_create(void) { return calloc(1, sizeof(struct xl_memo)); }
void xl_memo_destroy(struct xl_memo *m) { free(m); }

/* ---- forms ---- */

enum { PLAIN, MODRM, PREFIX, OTHER /* escapes to other maps */ };

static const uint8_t one_byte[256] = {
    [0x00 ... 0x03] = MODRM, [0x08 ... 0x0b] = MODRM,  [0x10 ... 0x13] = MODRM,  [0x18 ... 0x1b] = MODRM,
    [0x20 ... 0x23] = MODRM, [0x28 ... 0x2b] = MODRM,  [0x30 ... 0x33] = MODRM,  [0x38 ... 0x3b] = MODRM,
    [0x26] = PREFIX,         [0x2e] = PREFIX,          [0x36] = PREFIX,          [0x3e] = PREFIX,
    [0x62] = OTHER,          [0x63] = MODRM,           [0x64 ... 0x67] = PREFIX, [0x69] = MODRM,
    [0x6b] = MODRM,          [0x80 ... 0x8e] = MODRM,  [0x8f] = OTHER,           [0xc0 ... 0xc1] = MODRM,
    [0xc4 ... 0xc5] = OTHER, [0xc6 ... 0xc7] = MODRM,  [0xd0 ... 0xd3] = MODRM,  [0xd8 ... 0xdf] = MODRM,
    [0xf0] = PREFIX,         [0xf2 ... 0xf3] = PREFIX, [0xf6 ... 0xf7] = MODRM,  [0xfe ... 0xff] = MODRM,
};
static const uint8_t two_bytes[256] = {
    [0x00 ... 0x03] = MODRM, [0x0d] = MODRM,          [0x0f] = OTHER,          [0x10 ... 0x1f] = MODRM,
    [0x28 ... 0x2f] = MODRM, [0x38 ... 0x3f] = OTHER, [0x40 ... 0x76] = MODRM, [0x78 ... 0x7f] = MODRM,
    [0x90 ... 0x9f] = MODRM, [0xa3 ... 0xa5] = MODRM, [0xab ... 0xc7] = MODRM, [0xd0 ... 0xff] = MODRM,
};

/* Prefixes, REX and opcode: how many bytes, and whether ModRM follows. 0: not a form that is looked at. */
static unsigned opcode_end(const struct xl *x, const uint8_t *b, bool *modrm, bool *asize67)
{
    unsigned k = 0;
    for (; one_byte[b[k]] == PREFIX; k++) {
        *asize67 |= b[k] == 0x67;
        if (k == 3)
            return 0;
    }
    k += x->m64 && (b[k] & 0xf0) == 0x40;
    unsigned kind = one_byte[b[k++]];
    if (b[k - 1] == 0x0f)
        kind = two_bytes[b[k++]];
    *modrm = kind == MODRM;
    return kind == PLAIN || kind == MODRM ? k : 0; /* a prefix behind REX is not looked at */
}

static bool form_of(const struct xl *x, const uint8_t *b, struct xl_form *f)
{
    f->mode = 0;
    bool modrm, asize67 = false;
    unsigned n = opcode_end(x, b, &modrm, &asize67);
    if (!n)
        return false;
    if (modrm) {
        uint8_t m = b[n++];
        bool a16 = !x->m64 && asize67 != !!(x->in->key & CPU_KEY_CODE16);
        n += !a16 && (m & 0xc0) != 0xc0 && (m & 7) == 4;
    }
    if (n > FORM_BYTES)
        return false;
    memcpy(&f->form, b, FORM_BYTES);
    f->form &= ~0ull >> (FORM_BYTES - n) * 8;
    f->mode = (uint64_t)n << 32 | (x->in->key & MODE_BITS);
    return true;
}

static unsigned set_of(const struct xl_form *f)
{
    return (unsigned)((f->form * 0x9e3779b97f4a7c15ull ^ f->mode * 0xd6e8feb86659fd93ull) >> (64 - SET_BITS));
}

/* ---- the numbers behind a form ---- */

static int64_t read_number(const uint8_t *p, const struct number *v)
{
    int64_t s = 0;
    memcpy(&s, p, v->bytes);
    unsigned above = 64 - 8u * v->bytes;
    return v->is_signed ? (int64_t)((uint64_t)s << above) >> above : s;
}

static void set_disp(struct xl_insn *n, const struct number *v, int64_t value)
{
    n->i.raw.disp.value = value;
    n->op[v->op].mem.disp.value = value;
}

static void set_imm(struct xl_insn *n, const struct number *v, int64_t value)
{
    n->i.raw.imm[0].value.s = value;
    n->op[v->op].imm.value.s = value;
}

/* Where do the decoder's numbers go? False: not to one operand each, just as they are. */
static bool find_numbers(const struct xl_insn *n, unsigned end, struct entry *e)
{
    const ZydisDecodedInstruction *i = &n->i;
    unsigned disps = 0, imms = 0;
    e->disp = (struct number){.bytes = i->raw.disp.size / 8, .is_signed = true};
    e->imm = (struct number){.bytes = i->raw.imm[0].size / 8, .is_signed = i->raw.imm[0].is_signed};
    for (unsigned k = 0; k < i->operand_count; k++) {
        const ZydisDecodedOperand *o = &n->op[k];
        if (o->type == ZYDIS_OPERAND_TYPE_MEMORY && o->mem.disp.has_displacement && e->disp.bytes) {
            e->disp.op = (uint8_t)k;
            disps += o->mem.disp.value == i->raw.disp.value ? 1 : 2;
        } else if (o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE && e->imm.bytes) { /* SHL r, 1 has one that is no byte */
            e->imm.op = (uint8_t)k;
            imms += o->imm.value.s == i->raw.imm[0].value.s ? 1 : 2;
        } else if (o->type == ZYDIS_OPERAND_TYPE_POINTER) {
            return false;
        }
    }
    return disps == (e->disp.bytes != 0) && imms == (e->imm.bytes != 0) && !i->raw.imm[1].size &&
           end + e->disp.bytes + e->imm.bytes == i->length;
}

/* ---- */

static size_t remembered_bytes(unsigned operands)
{
    return offsetof(struct xl_insn, op) +
           (operands < XL_LOOKED_AT ? XL_LOOKED_AT : operands) * sizeof(ZydisDecodedOperand);
}

/* Fills in n as xl_decode would, if an instruction of the form at n->bytes has been decoded before; 15 bytes are there. *f is for
 * xl_remember otherwise. */
bool xl_recall(struct xl *x, struct xl_insn *n, struct xl_form *f)
{
    if (!form_of(x, n->bytes, f))
        return false;
    unsigned set = set_of(f), way = 0;
    const struct xl_form *t = x->memo->tag[set];
    while (t[way].form != f->form || t[way].mode != f->mode)
        if (++way == WAYS)
            return false;
    const struct entry *e = &x->memo->entry[set][way];
    memcpy(n, e->what, e->what_bytes);
    const uint8_t *p = n->bytes + (f->mode >> 32);
    if (e->disp.bytes)
        set_disp(n, &e->disp, read_number(p, &e->disp));
    if (e->imm.bytes)
        set_imm(n, &e->imm, read_number(p + e->disp.bytes, &e->imm));
    return true;
}

void xl_remember(struct xl *x, const struct xl_insn *n, const struct xl_form *f)
{
    struct entry numbers;
    if (!f->mode || n->i.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY || n->i.operand_count > OPERANDS ||
        n->act > XL_ACT_LAST_ALIKE || !find_numbers(n, (unsigned)(f->mode >> 32), &numbers))
        return;
    unsigned set = set_of(f), way = x->memo->turn++ % WAYS;
    struct entry *e = &x->memo->entry[set][way];
    e->disp = numbers.disp;
    e->imm = numbers.imm;
    e->what_bytes = remembered_bytes(n->i.operand_count);
    memcpy(e->what, n, e->what_bytes);
    x->memo->tag[set][way] = *f;
}
