/* base/bits.h - small arithmetic on bits and alignments that the language lacks. nofpu. */
#ifndef BASE_BITS_H
#define BASE_BITS_H
#include <stdbool.h>
#include <stdint.h>

static inline bool bits_is_pow2(uint64_t x) { return x && !(x & (x - 1)); }
/* Rounding to a multiple of align, a power of two. bits_align_up wraps to 0 above the last multiple. */
static inline uint64_t bits_align_down(uint64_t x, uint64_t align) { return x & ~(align - 1); }
static inline uint64_t bits_align_up(uint64_t x, uint64_t align) { return (x + align - 1) & ~(align - 1); }
static inline bool bits_is_aligned(uint64_t x, uint64_t align) { return !(x & (align - 1)); }
/* n low bits set, n <= 64. */
static inline uint64_t bits_mask(unsigned n) { return n >= 64 ? ~0ull : (1ull << n) - 1; }
/* Bits hi..lo of x, as the manuals count them. */
static inline uint64_t bits_field(uint64_t x, unsigned hi, unsigned lo) { return x >> lo & bits_mask(hi - lo + 1); }
/* The low n bits as a signed number, 1 <= n <= 64. */
static inline int64_t bits_sign_extend(uint64_t x, unsigned n) { return (int64_t)(x << (64 - n)) >> (64 - n); }
static inline bool bits_fits_s32(int64_t x) { return x == (int32_t)x; }
static inline bool bits_fits_s8(int64_t x) { return x == (int8_t)x; }
/* [a, a + an) and [b, b + bn) share a byte; empty ranges share none; neither range wraps. */
static inline bool bits_ranges_overlap(uint64_t a, uint64_t an, uint64_t b, uint64_t bn)
{
    return a < b ? b - a < an && bn : a - b < bn && an;
}
#endif
