/* translator/xl_decode.c - one instruction from bytes to struct xl_insn. Zydis decodes; what it sees otherwise than the CPU is
 * corrected here (all of it seen on the CPU): fields that are ignored outside 64-bit mode, and how many bytes are fetched before an
 * instruction that does not exist turns out not to. */
#include "translator/xl_int.h"
#include <string.h>

static const ZydisDecoder *decoder(const struct xl *x)
{
    if (x->in->key & CPU_KEY_CODE64)
        return &x->dec64;
    if (x->in->key & CPU_KEY_CODE32)
        return &x->dec32;
    return x->in->key & CPU_KEY_REAL ? &x->dec_real : &x->dec16;
}

/* Bytes of the instruction at off: in place, or assembled from both pages. Returns how many there are. */
static unsigned fetch(const struct xl *x, struct xl_insn *n, unsigned off)
{
    unsigned here = x->in->code_bytes - off;
    if (here >= 15) {
        n->bytes = x->in->code + off;
        return 15;
    }
    memcpy(n->raw, x->in->code + off, here);
    unsigned more = x->in->next ? 15 - here : 0;
    if (more > x->in->next_bytes)
        more = x->in->next_bytes;
    if (more)
        memcpy(n->raw + here, x->in->next, more);
    n->bytes = n->raw;
    return here + more;
}

static void undecodable(struct xl_insn *n, uint8_t sys)
{
    memset(&n->i, 0, sizeof n->i);
    n->i.length = 1;
    n->use = n->wronly = n->regs = n->writes = 0;
    n->mem = -1;
    n->cls = XL_UD;
    n->act = XL_ACT_SYS;
    n->sys = sys;
    n->ends = true;
}

/* In 64-bit mode REX too, which counts only if it comes last. */
static unsigned after_prefixes(const struct xl *x, const struct xl_insn *n, unsigned have)
{
    unsigned k = 0;
    while (k < have && (memchr("\x66\x67\xf0\xf2\xf3\x26\x2e\x36\x3e\x64\x65", n->bytes[k], 11) ||
                        (x->m64 && (n->bytes[k] & 0xf0) == 0x40)))
        k++;
    return k;
}

/* Makes the bytes changeable. */
static void own_bytes(struct xl_insn *n, unsigned have)
{
    if (n->bytes != n->raw)
        memcpy(n->raw, n->bytes, have);
    n->bytes = n->raw;
}

/* Offset of an EVEX prefix that is there with the opcode, or -1. */
static int evex_at(const struct xl *x, const struct xl_insn *n, unsigned have)
{
    unsigned k = after_prefixes(x, n, have);
    return k + 4 < have && n->bytes[k] == 0x62 && (x->m64 || n->bytes[k + 1] >= 0xc0) ? (int)k : -1;
}

/* Outside 64-bit mode the CPU ignores EVEX.B and EVEX.R'; the decoder does not. */
static void ignore_extensions(const struct xl *x, struct xl_insn *n, unsigned have)
{
    int k = evex_at(x, n, have);
    if (k < 0 || (n->bytes[k + 1] & 0x30) == 0x30)
        return;
    own_bytes(n, have);
    n->raw[k + 1] |= 0x30;
}

/* ---- conversions between scalars and general registers ---- */

/* VCVT[T]Sx2[U]SI and VCVT[U]SI2Sx by opcode; their mandatory prefix is F3 or F2, EVEX.pp 2 or 3. */
static bool is_conversion(const uint8_t *evex)
{
    return (evex[2] & 2) && memchr("\x2a\x2c\x2d\x78\x79\x7b", evex[4], 6);
}

/* Outside 64-bit mode EVEX.W is ignored, and in all modes the rounding of what needs none: a 32-bit integer to double precision. The
 * decoder knows no such instructions. */
static ZyanStatus decode_conversion(const struct xl *x, ZydisDecoderContext *ctx, struct xl_insn *n, unsigned have)
{
    int k = evex_at(x, n, have);
    if (k < 0 || !is_conversion(n->bytes + k))
        return ZYDIS_STATUS_DECODING_ERROR;
    own_bytes(n, have);
    uint8_t *evex = n->raw + k;
    if (!x->m64)
        evex[2] &= 0x7f;
    ZyanStatus s = ZydisDecoderDecodeInstruction(decoder(x), ctx, n->bytes, have, &n->i);
    bool from_int = evex[4] == 0x2a || evex[4] == 0x7b, reg = (unsigned)k + 5 < have && evex[5] >= 0xc0;
    if (ZYAN_SUCCESS(s) || !from_int || !reg)
        return s;
    evex[3] &= 0x8f; /* EVEX.b and the rounding in EVEX.L'L */
    return ZydisDecoderDecodeInstruction(decoder(x), ctx, n->bytes, have, &n->i);
}

/* ---- instructions that do not exist, at the end of what can be fetched ---- */

/* Do the bytes end before ModRM at `at` and what belongs to it, with `imm` bytes behind? */
static bool modrm_is_cut(const struct xl *x, const struct xl_insn *n, unsigned have, unsigned at, unsigned imm)
{
    uint8_t mov[16];
    unsigned k = 0;
    ZydisDecodedInstruction i;
    if (at >= have)
        return true;
    if (memchr(n->bytes, 0x67, after_prefixes(x, n, have)))
        mov[k++] = 0x67;
    mov[k++] = 0x8b; /* MOV, for the same address */
    memcpy(mov + k, n->bytes + at, have - at);
    ZyanStatus s = ZydisDecoderDecodeInstruction(decoder(x), NULL, mov, k + have - at, &i);
    return s == ZYDIS_STATUS_NO_MORE_DATA || (ZYAN_SUCCESS(s) && at + (i.length - k) + imm > have);
}

/* The CPU finds the end of an instruction before it looks whether there is such an instruction, by opcode map and opcode alone
 * (seen on the CPU, which has these tables for legacy, VEX and EVEX encodings alike). */
enum { MAP_NONE, MAP_0F, MAP_0F38, MAP_0F3A }; /* as VEX.mmmmm & 3 and EVEX.mmm & 3 count them */

/* Two-byte opcodes with ModRM, a bit each. */
static bool has_modrm(uint8_t op)
{
    static const uint32_t bits[8] = {0xffff200f, 0x0000ff0f, 0xffffffff, 0xff7fffff,
                                     0xffff0000, 0xfffff8f8, 0xffff00ff, 0xffffffff};
    return bits[op >> 5] >> (op & 31) & 1;
}

static unsigned imm8_bytes(uint8_t op)
{
    return memchr("\x70\x71\x72\x73\xa4\xac\xba\xc2\xc4\xc5\xc6", op, 11) != NULL;
}

/* at: of the opcode; jcc: bytes of the immediate where the two-byte map has Jcc. */
static bool opcode_is_cut(const struct xl *x, const struct xl_insn *n, unsigned have, unsigned at, unsigned map,
                          unsigned jcc)
{
    if (at >= have)
        return true;
    uint8_t op = n->bytes[at];
    if (map != MAP_0F)
        return modrm_is_cut(x, n, have, at + 1, map == MAP_0F3A);
    if (op >> 4 == 8)
        return at + 1 + jcc > have;
    if (op >> 2 == 8) /* MOV to and from CR and DR: ModRM.mod is ignored */
        return at + 2 > have;
    return has_modrm(op) && modrm_is_cut(x, n, have, at + 1, imm8_bytes(op));
}

/* Bytes of an immediate as wide as the operand, but for 64-bit ones. */
static unsigned immz_bytes(const struct xl *x, const struct xl_insn *n, unsigned have, unsigned at)
{
    bool op66 = memchr(n->bytes, 0x66, after_prefixes(x, n, have)),
         op32 = x->in->key & (CPU_KEY_CODE32 | CPU_KEY_CODE64);
    bool w = x->m64 && at && (n->bytes[at - 1] & 0xf8) == 0x48;
    return w || op66 != op32 ? 4 : 2;
}

/* One-byte opcodes of which a part does not exist, or not in 64-bit mode. */
static bool group_is_cut(const struct xl *x, const struct xl_insn *n, unsigned have, unsigned at)
{
    uint8_t op = n->bytes[at];
    unsigned z = immz_bytes(x, n, have, at);
    switch (op) {
    case 0xc6:
    case 0x82: return modrm_is_cut(x, n, have, at + 1, 1);
    case 0xc7: return modrm_is_cut(x, n, have, at + 1, z);
    case 0x9a:
    case 0xea: return at + 1 + z + 2 > have;
    case 0xd4:
    case 0xd5: return at + 2 > have;
    case 0x8f: /* POP, also where XOP would be */
    case 0xfe:
    case 0xff: return modrm_is_cut(x, n, have, at + 1, 0);
    default: return op >= 0xd8 && op <= 0xdf && modrm_is_cut(x, n, have, at + 1, 0);
    }
}

/* Is b a VEX or EVEX prefix? Outside 64-bit mode LES, LDS and BOUND have no register operand. */
static bool is_vex(const struct xl *x, const uint8_t *b)
{
    return (b[0] == 0xc4 || b[0] == 0xc5 || b[0] == 0x62) && (x->m64 || b[1] >= 0xc0);
}

static bool is_cut(const struct xl *x, const struct xl_insn *n, unsigned have)
{
    unsigned k = after_prefixes(x, n, have);
    if (k + 1 >= have)
        return k < have && group_is_cut(x, n, have, k);
    const uint8_t *b = n->bytes + k;
    if (is_vex(x, b)) {
        unsigned prefix = b[0] == 0x62 ? 4 : b[0] == 0xc4 ? 3 : 2, map = b[0] == 0xc5 ? MAP_0F : b[1] & 3;
        if (map == MAP_NONE) /* then the byte counts as the ModRM that it is for LES and BOUND */
            return modrm_is_cut(x, n, have, k + 1, 0);
        return opcode_is_cut(x, n, have, k + prefix, map, x->in->key & (CPU_KEY_CODE32 | CPU_KEY_CODE64) ? 4 : 2);
    }
    if (b[0] != 0x0f)
        return group_is_cut(x, n, have, k);
    if (b[1] >> 3 == 7)
        return opcode_is_cut(x, n, have, k + 2, b[1] & 2 ? MAP_0F3A : MAP_0F38, 0);
    return b[1] != 0x0f && opcode_is_cut(x, n, have, k + 1, MAP_0F, x->m64 ? 4 : immz_bytes(x, n, have, k));
}

/* Is it something that the decoder knows, in a place where this CPU has nothing, or nothing as long? SSE4A's immediates are behind
 * an opcode that is VMREAD elsewhere; 3DNow!'s opcode is not waited for; nor anything in maps that are reserved. */
static bool reserved_place(const struct xl *x, const struct xl_insn *n, unsigned have)
{
    unsigned k = after_prefixes(x, n, have);
    bool mandatory = memchr(n->bytes, 0x66, k) || memchr(n->bytes, 0xf2, k);
    if (k + 2 > have)
        return false;
    const uint8_t *b = n->bytes + k;
    if (is_vex(x, b))
        return b[0] != 0xc5 && (b[1] & 3) == MAP_NONE;
    if (b[0] == 0x0f)
        return b[1] == 0x0f || (b[1] == 0x78 && mandatory && !xl_cpu_has(&x->cpu, XL_FEAT_SSE4A));
    return b[0] == 0x8f && (b[1] & 0x1f) >= 8 && !xl_cpu_has(&x->cpu, XL_FEAT_XOP);
}

/* ---- */

/* The decoder takes R13 for a base that a SIB byte with mod = 0 and base = 5 does not have when VEX.B or EVEX.B is set; there is
 * a disp32 instead (SDM 2A table 2-3). */
static void correct_sib(struct xl_insn *n)
{
    if (!(n->i.attributes & ZYDIS_ATTRIB_HAS_SIB) || n->i.raw.modrm.mod != 0 || n->i.raw.sib.base != 5)
        return;
    for (unsigned k = 0; k < n->i.operand_count; k++) {
        ZydisDecodedOperand *o = &n->op[k];
        if (o->type != ZYDIS_OPERAND_TYPE_MEMORY || o->visibility != ZYDIS_OPERAND_VISIBILITY_EXPLICIT)
            continue;
        o->mem.base = ZYDIS_REGISTER_NONE;
        o->mem.disp.has_displacement = true;
        o->mem.disp.value = n->i.raw.disp.value;
        if (o->mem.segment == ZYDIS_REGISTER_SS && !(n->i.attributes & ZYDIS_ATTRIB_HAS_SEGMENT))
            o->mem.segment = ZYDIS_REGISTER_DS;
    }
}

static ZyanStatus decode_bytes(const struct xl *x, ZydisDecoderContext *ctx, struct xl_insn *n, unsigned have)
{
    const ZydisDecoder *d = decoder(x);
    if (reserved_place(x, n, have))
        return is_cut(x, n, have) ? ZYDIS_STATUS_NO_MORE_DATA : ZYDIS_STATUS_DECODING_ERROR;
    if (!x->m64)
        ignore_extensions(x, n, have);
    ZyanStatus s = ZydisDecoderDecodeInstruction(d, ctx, n->bytes, have, &n->i);
    if (ZYAN_SUCCESS(s) || s == ZYDIS_STATUS_NO_MORE_DATA || s == ZYDIS_STATUS_INSTRUCTION_TOO_LONG)
        return s;
    s = decode_conversion(x, ctx, n, have);
    return ZYAN_FAILED(s) && have < 15 && is_cut(x, n, have) ? ZYDIS_STATUS_NO_MORE_DATA : s;
}

/* Decodes one instruction at off. XL_NEED_NEXT if its bytes are not all there. */
enum xl_status xl_decode(struct xl *x, struct xl_insn *n, unsigned off)
{
    unsigned have = fetch(x, n, off);
    ZydisDecoderContext ctx;
    n->off = (uint16_t)off;
    n->strategy = x->in->window ? XL_SITE_WINDOW : XL_SITE_SOFT;
    n->alone = false;
    n->group = 0;
    struct xl_form f = {0, 0};
    bool memo = have >= 15 && !x->in->trap;
    if (memo && xl_recall(x, n, &f))
        return XL_OK;
    ZyanStatus s = decode_bytes(x, &ctx, n, have);
    if (s == ZYDIS_STATUS_NO_MORE_DATA)
        return have >= 15 ? XL_TOO_LONG : XL_NEED_NEXT;
    if (s == ZYDIS_STATUS_INSTRUCTION_TOO_LONG)
        return XL_TOO_LONG;
    if (ZYAN_FAILED(s)) {
        /* Zydis has no SYSENTER in real mode, and knows no other 16-bit mode for virtual-8086 code: there it exists. */
        bool sysenter = decoder(x) == &x->dec_real && have >= 2 && n->bytes[0] == 0x0f && n->bytes[1] == 0x34;
        undecodable(n, sysenter ? SYS_OP_SYSENTER : SYS_OP_UD);
        if (sysenter)
            n->i.length = 2;
        return XL_OK;
    }
    ZydisDecoderDecodeOperands(decoder(x), &ctx, &n->i, n->op, n->i.operand_count);
    if (n->i.operand_count < XL_LOOKED_AT) /* the rest are none */
        memset(n->op + n->i.operand_count, 0, (XL_LOOKED_AT - n->i.operand_count) * sizeof *n->op);
    correct_sib(n);
    xl_note_operands(n);
    n->ends = false;
    n->sys = SYS_OP_NONE;
    xl_classify(x, n);
    if (x->in->trap)
        xl_trap_class(x, n);
    if (memo)
        xl_remember(x, n, &f);
    return XL_OK;
}
