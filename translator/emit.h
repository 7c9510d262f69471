/* translator/emit.h - the host encoder: appends x86-64 machine code to a bounded buffer.
 *
 * Role:    byte-level emission only; knows instruction forms, not guests. Every function appends one host instruction.
 * Limits:  the owner keeps a red zone (EMIT_RED_ZONE) in front of the end and checks emit_full() between guest instructions;
 *          a write past the end is dropped and sets overflow, never lands outside the buffer.
 * Addresses: pc is where the byte will execute; all data that code refers to absolutely lies in the low 2 GiB, as does the
 *          code, so RIP-relative or disp32 reach everything.
 * None of the instructions emitted here changes EFLAGS but those whose name says so.
 */
#ifndef TRANSLATOR_EMIT_H
#define TRANSLATOR_EMIT_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define EMIT_INSN_BYTES 16 /* no instruction is longer */
struct emit {
    uint8_t *p, *start, *end; /* where bytes are written */
    uint64_t pc;              /* host pc of start */
    bool overflow;
    uint8_t sink[EMIT_INSN_BYTES]; /* where an instruction goes that finds no room */
};
#define EMIT_RED_ZONE 512

static inline uint64_t em_pc(const struct emit *e) { return e->pc + (uint64_t)(e->p - e->start); }
static inline bool em_full(const struct emit *e) { return e->overflow || e->end - e->p < EMIT_RED_ZONE; }
static inline void em8(struct emit *e, unsigned b)
{
    if (e->p < e->end)
        *e->p++ = (uint8_t)b;
    else
        e->overflow = true;
}
static inline void em_bytes(struct emit *e, const void *v, unsigned n)
{
    if (e->end - e->p < (ptrdiff_t)n) {
        e->overflow = true;
        return;
    }
    memcpy(e->p, v, n);
    e->p += n;
}
static inline void em16(struct emit *e, unsigned v) { em_bytes(e, &(uint16_t){(uint16_t)v}, 2); }
static inline void em32(struct emit *e, uint32_t v) { em_bytes(e, &v, 4); }
static inline void em64(struct emit *e, uint64_t v) { em_bytes(e, &v, 8); }

/* ---- parts of an instruction, at p; they return where it goes on. One check of the room does for them all. ---- */

static inline uint8_t *em_begin(struct emit *e)
{
    if (e->end - e->p >= EMIT_INSN_BYTES)
        return e->p;
    e->overflow = true;
    return e->sink;
}
static inline void em_end(struct emit *e, uint8_t *p)
{
    if (!e->overflow)
        e->p = p;
}
static inline uint8_t *em_put8(uint8_t *p, unsigned b)
{
    *p = (uint8_t)b;
    return p + 1;
}
static inline uint8_t *em_put32(uint8_t *p, uint32_t v)
{
    memcpy(p, &v, 4);
    return p + 4;
}
/* REX if needed. w,r,x,b: bits; force: SPL.. byte registers. */
static inline uint8_t *em_put_rex(uint8_t *p, unsigned w, unsigned reg, unsigned index, unsigned base, bool force)
{
    unsigned rex = w << 3 | (reg >> 3 & 1) << 2 | (index >> 3 & 1) << 1 | (base >> 3 & 1);
    *p = (uint8_t)(0x40 | rex);
    return p + (rex || force);
}
/* ModRM for [rip + x] = absolute low address; imm_bytes follow the displacement; the instruction begins at first. */
static inline uint8_t *em_put_abs(const struct emit *e, const uint8_t *first, uint8_t *p, unsigned reg, uint64_t addr,
                                  unsigned imm_bytes)
{
    p = em_put8(p, (reg & 7) << 3 | 5);
    return em_put32(p, (uint32_t)(addr - (em_pc(e) + (uint64_t)(p - first) + 4 + imm_bytes)));
}
static inline uint8_t *em_put_sib(uint8_t *p, int base, int index, unsigned scale)
{
    return em_put8(p, scale << 6 | (index < 0 ? 4u : (unsigned)index & 7) << 3 | (base < 0 ? 5u : (unsigned)base & 7));
}
/* ModRM (+SIB, disp) for [base + index*2^scale + disp]; index 4 = none (RSP cannot be one); base -1 = none. */
static inline uint8_t *em_put_mem(uint8_t *p, unsigned reg, int base, int index, unsigned scale, int32_t disp)
{
    bool sib = index >= 0 || base < 0 || (base & 7) == 4;
    unsigned mod = base < 0 ? 0 : (disp == 0 && (base & 7) != 5) ? 0 : (disp >= -128 && disp < 128) ? 1 : 2;
    p = em_put8(p, mod << 6 | (reg & 7) << 3 | (sib ? 4u : (unsigned)base & 7));
    if (sib)
        p = em_put_sib(p, base, index, scale);
    em_put32(p, (uint32_t)disp);
    return p + (base < 0 || mod == 2 ? 4 : mod);
}
/* Three-byte VEX prefix for the flag-free BMI2 instructions. pp: 0 none 1 66 2 F3 3 F2; map 2 = 0F38 3 = 0F3A. */
static inline uint8_t *em_put_vex(uint8_t *p, unsigned map, unsigned pp, unsigned w, unsigned reg, unsigned vvvv,
                                  unsigned rm)
{
    p = em_put8(p, 0xc4);
    p = em_put8(p, (reg & 8 ? 0 : 0x80) | 0x40 | (rm & 8 ? 0 : 0x20) | map);
    return em_put8(p, w << 7 | (~vvvv & 15) << 3 | pp);
}

static inline void em_rex(struct emit *e, unsigned w, unsigned reg, unsigned index, unsigned base, bool force)
{
    em_end(e, em_put_rex(em_begin(e), w, reg, index, base, force));
}
static inline void em_modrm_abs(struct emit *e, unsigned reg, uint64_t addr, unsigned imm_bytes)
{
    uint8_t *p = em_begin(e);
    em_end(e, em_put_abs(e, p, p, reg, addr, imm_bytes));
}
static inline void em_modrm_mem(struct emit *e, unsigned reg, int base, int index, unsigned scale, int32_t disp)
{
    em_end(e, em_put_mem(em_begin(e), reg, base, index, scale, disp));
}
/* The same, always with a 32-bit displacement. */
static inline void em_modrm_mem32(struct emit *e, unsigned reg, int base, int index, unsigned scale, int32_t disp)
{
    bool sib = index >= 0 || base < 0 || (base & 7) == 4;
    uint8_t *p = em_put8(em_begin(e), (base < 0 ? 0u : 0x80u) | (reg & 7) << 3 | (sib ? 4u : (unsigned)base & 7));
    if (sib)
        p = em_put_sib(p, base, index, scale);
    em_end(e, em_put32(p, (uint32_t)disp));
}
static inline unsigned em_x(int r) { return r < 0 ? 0 : (unsigned)r; }

/* ---- whole instructions ---- */

/* op reg, [abs] / op [abs], reg with W */
static inline void em_op_abs(struct emit *e, unsigned w, unsigned op, unsigned reg, uint64_t addr)
{
    uint8_t *first = em_begin(e), *p = em_put8(em_put_rex(first, w, reg, 0, 0, false), op);
    em_end(e, em_put_abs(e, first, p, reg, addr, 0));
}
static inline void em_ld64(struct emit *e, unsigned r, uint64_t a) { em_op_abs(e, 1, 0x8b, r, a); }
static inline void em_ld32(struct emit *e, unsigned r, uint64_t a) { em_op_abs(e, 0, 0x8b, r, a); }
static inline void em_st64(struct emit *e, unsigned r, uint64_t a) { em_op_abs(e, 1, 0x89, r, a); }
static inline void em_st32(struct emit *e, unsigned r, uint64_t a) { em_op_abs(e, 0, 0x89, r, a); }
static inline void em_movzx8_abs(struct emit *e, unsigned r, uint64_t a)
{
    em_rex(e, 0, r, 0, 0, false);
    em8(e, 0x0f), em8(e, 0xb6);
    em_modrm_abs(e, r, a, 0);
}
static inline void em_movzx16_abs(struct emit *e, unsigned r, uint64_t a)
{
    em_rex(e, 0, r, 0, 0, false);
    em8(e, 0x0f), em8(e, 0xb7);
    em_modrm_abs(e, r, a, 0);
}
static inline void em_sti8(struct emit *e, uint64_t a, unsigned imm)
{
    em8(e, 0xc6);
    em_modrm_abs(e, 0, a, 1);
    em8(e, imm);
}
static inline void em_sti32(struct emit *e, uint64_t a, uint32_t imm)
{
    uint8_t *first = em_begin(e), *p = em_put8(first, 0xc7);
    em_end(e, em_put32(em_put_abs(e, first, p, 0, a, 4), imm));
}
/* 64-bit constant to memory: one or two stores. */
static inline void em_sti64(struct emit *e, uint64_t a, uint64_t imm)
{
    if ((int64_t)(int32_t)imm == (int64_t)imm) {
        em8(e, 0x48), em8(e, 0xc7);
        em_modrm_abs(e, 0, a, 4);
        em32(e, (uint32_t)imm);
    } else {
        em_sti32(e, a, (uint32_t)imm);
        em_sti32(e, a + 4, (uint32_t)(imm >> 32));
    }
}
static inline void em_movi(struct emit *e, unsigned r, uint64_t imm)
{
    if (imm <= 0xffffffffu) {
        em_rex(e, 0, 0, 0, r, false);
        em8(e, 0xb8 | (r & 7)), em32(e, (uint32_t)imm);
    } else if ((int64_t)(int32_t)imm == (int64_t)imm) {
        em_rex(e, 1, 0, 0, r, false);
        em8(e, 0xc7), em8(e, 0xc0 | (r & 7)), em32(e, (uint32_t)imm);
    } else {
        em_rex(e, 1, 0, 0, r, false);
        em8(e, 0xb8 | (r & 7)), em64(e, imm);
    }
}
static inline void em_mov_rr(struct emit *e, unsigned w, unsigned dst, unsigned src)
{
    uint8_t *p = em_put8(em_put_rex(em_begin(e), w, dst, 0, src, false), 0x8b);
    em_end(e, em_put8(p, 0xc0 | (dst & 7) << 3 | (src & 7)));
}
/* mov dst16, src16 (upper bits kept) */
static inline void em_mov16_rr(struct emit *e, unsigned dst, unsigned src)
{
    em8(e, 0x66);
    em_mov_rr(e, 0, dst, src);
}
static inline void em_movzx16_rr(struct emit *e, unsigned dst, unsigned src)
{
    uint8_t *p = em_put8(em_put8(em_put_rex(em_begin(e), 0, dst, 0, src, false), 0x0f), 0xb7);
    em_end(e, em_put8(p, 0xc0 | (dst & 7) << 3 | (src & 7)));
}
/* lea dst, [base + index*2^scale + disp], w: 64- or 32-bit result (32: zero-extended) */
static inline void em_lea(struct emit *e, unsigned w, unsigned dst, int base, int index, unsigned scale, int32_t disp)
{
    uint8_t *p = em_put8(em_put_rex(em_begin(e), w, dst, em_x(index), em_x(base), false), 0x8d);
    em_end(e, em_put_mem(p, dst, base, index, scale, disp));
}
/* mov dst, [base + index*2^scale + disp] */
static inline void em_ldm(struct emit *e, unsigned w, unsigned dst, int base, int index, unsigned scale, int32_t disp)
{
    uint8_t *p = em_put8(em_put_rex(em_begin(e), w, dst, em_x(index), em_x(base), false), 0x8b);
    em_end(e, em_put_mem(p, dst, base, index, scale, disp));
}
/* pext dst, src, [mask] */
static inline void em_pext_abs(struct emit *e, unsigned dst, unsigned src, uint64_t mask)
{
    uint8_t *first = em_begin(e), *p = em_put8(em_put_vex(first, 2, 2, 1, dst, src, 0), 0xf5);
    em_end(e, em_put_abs(e, first, p, dst, mask, 0));
}
/* rorx dst, src, count */
static inline void em_rorx(struct emit *e, unsigned dst, unsigned src, unsigned count)
{
    uint8_t *p = em_put8(em_put_vex(em_begin(e), 3, 3, 1, dst, 0, src), 0xf0);
    em_end(e, em_put8(em_put8(p, 0xc0 | (dst & 7) << 3 | (src & 7)), count));
}
/* sarx dst, src, count */
static inline void em_sarx(struct emit *e, unsigned dst, unsigned src, unsigned count)
{
    uint8_t *p = em_put8(em_put_vex(em_begin(e), 2, 2, 1, dst, count, src), 0xf7);
    em_end(e, em_put8(p, 0xc0 | (dst & 7) << 3 | (src & 7)));
}
static inline void em_jmp(struct emit *e, uint64_t target)
{
    uint8_t *p = em_put8(em_begin(e), 0xe9);
    em_end(e, em_put32(p, (uint32_t)(target - (em_pc(e) + 5))));
}
static inline void em_jcc(struct emit *e, unsigned cc, uint64_t target)
{
    em8(e, 0x0f), em8(e, 0x80 | cc);
    em32(e, (uint32_t)(target - (em_pc(e) + 4)));
}
static inline void em_call(struct emit *e, uint64_t target)
{
    uint8_t *p = em_put8(em_begin(e), 0xe8);
    em_end(e, em_put32(p, (uint32_t)(target - (em_pc(e) + 5))));
}
/* jrcxz forward; returns where the rel8 is, for em_here8(). */
static inline uint8_t *em_jrcxz(struct emit *e)
{
    em8(e, 0xe3), em8(e, 0);
    return e->p - 1;
}
static inline void em_here8(struct emit *e, uint8_t *at)
{
    if (!e->overflow)
        *at = (uint8_t)(e->p - at - 1);
}
/* To a place that rel8 does not reach. */
static inline void em_jmp_unless_rcx0(struct emit *e, uint64_t target)
{
    uint8_t *zero = em_jrcxz(e);
    em_jmp(e, target);
    em_here8(e, zero);
}
#endif
