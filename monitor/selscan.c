/* monitor/selscan.c - see selscan.h. Opcode maps: SDM 2D appendix A. */
#include "monitor/selscan.h"

/* What follows an opcode. M: ModRM; b, w, z: immediate of 1, 2, 2 or 4 bytes; B, Z: ModRM and such an immediate; o: offset of
 * address size; f: far pointer; r: RETF's word; e: ENTER's three bytes; T: ModRM, and an immediate if reg is TEST's; p: prefix; -: nothing.
 * Capital S, and s: as M, and as -, of an instruction on selectors, or SYSENTER. x: other maps. */
static const char one_byte[] = "MMMMbzssMMMMbzsx"
                               "MMMMbzssMMMMbzss"
                               "MMMMbzp-MMMMbzp-"
                               "MMMMbzp-MMMMbzp-"
                               "----------------"
                               "----------------"
                               "--xMppppzZbB----"
                               "bbbbbbbbbbbbbbbb"
                               "BZBBMMMMMMMMSMSM"
                               "----------f-----"
                               "oooo----bz------"
                               "bbbbbbbbzzzzzzzz"
                               "BBw-xxBZe-rs-b-s"
                               "MMMMbb--MMMMMMMM"
                               "bbbbbbbbzzfb----"
                               "p-pp--TT------Mx";
static const char two_byte[] = "SxSS---------M-x"
                               "MMMMMMMMMMMMMMMM"
                               "MMMMMMMMMMMMMMMM"
                               "----s---x-x-----"
                               "MMMMMMMMMMMMMMMM"
                               "MMMMMMMMMMMMMMMM"
                               "MMMMMMMMMMMMMMMM"
                               "BBBBMMM-MMMMMMMM"
                               "zzzzzzzzzzzzzzzz"
                               "MMMMMMMMMMMMMMMM"
                               "ss-MBMMMss-MBMMM"
                               "MMSMSSMMMMBMMMMM"
                               "MMBMBBBM--------"
                               "MMMMMMMMMMMMMMMM"
                               "MMMMMMMMMMMMMMMM"
                               "MMMMMMMMMMMMMMMM";
_Static_assert(sizeof one_byte == 257 && sizeof two_byte == 257, "one letter for each opcode");

struct in {
    const uint8_t *p;
    size_t n, at;
    bool short_operand, short_address, selectors;
};

/* The byte at an offset from where we are; beyond the end 0, and the length will say so. */
static unsigned peek(const struct in *s, size_t ahead) { return s->at + ahead < s->n ? s->p[s->at + ahead] : 0; }
static unsigned reg_field(const struct in *s) { return peek(s, 0) >> 3 & 7; }
static bool is_register(const struct in *s) { return peek(s, 0) >> 6 == 3; }

static void modrm(struct in *s)
{
    unsigned m = peek(s, 0), mod = m >> 6, rm = m & 7;
    if (mod == 3) {
        s->at += 1;
    } else if (s->short_address) {
        s->at += 1 + (mod == 0 ? (rm == 6 ? 2 : 0) : mod);
    } else {
        unsigned base = rm == 4 ? peek(s, 1) & 7 : rm;
        s->at += 1 + (rm == 4) + (mod == 0 ? (base == 5 ? 4 : 0) : mod == 1 ? 1 : 4);
    }
}

static void operands(struct in *s, char form)
{
    unsigned z = s->short_operand ? 2 : 4;
    switch (form) {
    case 'S': s->selectors = true; /* fall through */
    case 'M': modrm(s); break;
    case 'B': modrm(s), s->at += 1; break;
    case 'Z': modrm(s), s->at += z; break;
    case 'T': {
        unsigned extra = reg_field(s) > 1 ? 0 : peek(s, (size_t)-1) & 1 ? z : 1;
        modrm(s), s->at += extra;
        break;
    }
    case 'b': s->at += 1; break;
    case 'w': s->at += 2; break;
    case 'e': s->at += 3; break;
    case 'z': s->at += z; break;
    case 'o': s->at += s->short_address ? 2 : 4; break;
    case 'f': s->at += 2 + z, s->selectors = true; break;
    case 'r': s->at += 2, s->selectors = true; break;
    case 's': s->selectors = true; break;
    default: break;
    }
}

/* The map that a VEX or EVEX prefix names. */
static void vector_map(struct in *s, unsigned map)
{
    unsigned opcode = peek(s, 0);
    s->at += 1;
    if (map == 1 && opcode == 0x77) /* VZEROUPPER */
        return;
    operands(s, map == 3 || (map == 1 && two_byte[opcode] == 'B') ? 'B' : 'M');
}

static void map_0f(struct in *s)
{
    unsigned opcode = peek(s, 0);
    if (s->at >= s->n)
        s->selectors = true; /* who knows */
    s->at += 1;
    if (opcode == 0x01) { /* SGDT SIDT SMSW; SMSW with a register */
        unsigned reg = reg_field(s);
        bool truncated = s->at >= s->n;
        s->selectors |= truncated || reg == 4 || (reg < 2 && !is_register(s));
        modrm(s);
    } else if (opcode == 0x0f) { /* 3DNow!: the opcode comes last */
        operands(s, 'B');
    } else if (opcode == 0x38 || opcode == 0x3a) {
        s->at += 1;
        operands(s, opcode == 0x38 ? 'M' : 'B');
    } else if (opcode >= 0x20 && opcode <= 0x23) { /* MOV CR, DR: always registers */
        s->at += 1;
    } else {
        operands(s, two_byte[opcode]);
    }
}

static void other_map(struct in *s, unsigned opcode)
{
    bool truncated = s->at >= s->n;
    switch (opcode) {
    case 0x0f: map_0f(s); break;
    case 0x62: /* BOUND or EVEX */
        if (is_register(s)) {
            unsigned map = peek(s, 0) & 7;
            s->at += 3;
            vector_map(s, map);
        } else {
            modrm(s);
        }
        break;
    case 0xc4: /* LES or VEX */
    case 0xc5: /* LDS or VEX */
        if (truncated || !is_register(s)) {
            operands(s, 'S');
        } else {
            unsigned map = opcode == 0xc5 ? 1 : peek(s, 0) & 31;
            s->at += opcode == 0xc5 ? 1 : 2;
            vector_map(s, map);
        }
        break;
    default: { /* 0xff */
        unsigned reg = reg_field(s);
        s->selectors |= truncated || reg == 3 || reg == 5;
        modrm(s);
    }
    }
}

unsigned selscan_insn(const uint8_t *p, size_t n, bool *selectors)
{
    struct in s = {.p = p, .n = n};
    unsigned opcode;
    while (one_byte[opcode = peek(&s, 0)] == 'p' && s.at < n && s.at < 15) {
        s.short_operand |= opcode == 0x66;
        s.short_address |= opcode == 0x67;
        s.at++;
    }
    if (s.at >= n) {
        *selectors = true;
        return 0;
    }
    s.at++;
    if (one_byte[opcode] == 'x')
        other_map(&s, opcode);
    else
        operands(&s, one_byte[opcode]);
    *selectors = s.selectors;
    return s.at <= n ? (unsigned)s.at : 0;
}

bool selscan_range(const uint8_t *code, size_t n, size_t start, size_t from, size_t to)
{
    for (size_t at = start; at < to;) {
        bool selectors;
        unsigned len = selscan_insn(code + at, n - at, &selectors);
        if (selectors && at >= from)
            return true;
        if (!len)
            return false;
        at += len;
    }
    return false;
}
