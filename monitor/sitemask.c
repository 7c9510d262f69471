/* monitor/sitemask.c - the value of the mask of a masked memory operand. nofpu.
 *
 * The guest's opmask registers are in the host's while the TC runs; KMOV is the one instruction on them that touches nothing
 * else. Vector registers need the image, hence fpu_leave.
 */
#include "monitor/site_int.h"

/* __builtin_popcountll is a library call without POPCNT. */
static unsigned ones(uint64_t v)
{
    unsigned n = 0;
    for (; v; v &= v - 1)
        n++;
    return n;
}

static uint64_t read_k16(unsigned k)
{
    uint32_t x;
    switch (k) {
    case 1: __asm__ volatile("kmovw %%k1, %0" : "=r"(x)); break;
    case 2: __asm__ volatile("kmovw %%k2, %0" : "=r"(x)); break;
    case 3: __asm__ volatile("kmovw %%k3, %0" : "=r"(x)); break;
    case 4: __asm__ volatile("kmovw %%k4, %0" : "=r"(x)); break;
    case 5: __asm__ volatile("kmovw %%k5, %0" : "=r"(x)); break;
    case 6: __asm__ volatile("kmovw %%k6, %0" : "=r"(x)); break;
    default: __asm__ volatile("kmovw %%k7, %0" : "=r"(x)); break;
    }
    return x;
}

static uint64_t read_k64(unsigned k)
{
    uint64_t x;
    switch (k) {
    case 1: __asm__ volatile("kmovq %%k1, %0" : "=r"(x)); break;
    case 2: __asm__ volatile("kmovq %%k2, %0" : "=r"(x)); break;
    case 3: __asm__ volatile("kmovq %%k3, %0" : "=r"(x)); break;
    case 4: __asm__ volatile("kmovq %%k4, %0" : "=r"(x)); break;
    case 5: __asm__ volatile("kmovq %%k5, %0" : "=r"(x)); break;
    case 6: __asm__ volatile("kmovq %%k6, %0" : "=r"(x)); break;
    default: __asm__ volatile("kmovq %%k7, %0" : "=r"(x)); break;
    }
    return x;
}

static uint64_t read_k(struct vcpu *v, unsigned k)
{
    CHECK(v->fpu_live);
    /* Without AVX512BW there is no KMOVQ, and no instruction with more than 16 elements. */
    return cpumodel_has(v->cpu, CPU_FEAT_AVX512BW) ? read_k64(k) : read_k16(k);
}

/* The sign bits of a vector register's elements. Looking at a component does not make it one in use (XSAVE shows that). */
static uint64_t read_signs(struct vcpu *v, unsigned reg, unsigned shift, unsigned count)
{
    uint64_t bits = 0, *bv = (uint64_t *)(v->xsave + FPU_BV);
    unsigned per_half = 16u >> shift;
    fpu_leave(v);
    fpu_bring(v);
    uint64_t in_use = *bv;
    for (unsigned i = 0; i < count; i++) {
        const uint8_t *p = fpu_image_part(v, i < per_half ? FPU_PART_XMM : FPU_PART_YMM, reg);
        bits |= (uint64_t)(p[((i % per_half + 1) << shift) - 1] >> 7) << i;
    }
    *bv = in_use; /* fpu_image_part has made them explicit: all zeros, if not in use */
    return bits;
}

static inline uint64_t low_bits(unsigned n) { return n >= 64 ? ~0ull : (1ull << n) - 1; }

uint64_t site_mask_bytes(struct vcpu *v, uint32_t mask)
{
    unsigned shift = XL_MASK_SHIFT(mask), bits = XL_MASK_BITS(mask), elements = XL_MASK_ELEMENTS(mask);
    uint64_t set = XL_MASK_KIND(mask) == XL_MASK_SIGNS ? read_signs(v, XL_MASK_REG(mask), shift, elements)
                                                       : read_k(v, XL_MASK_REG(mask)) & low_bits(bits);
    uint64_t bytes = 0;
    if (XL_MASK_KIND(mask) == XL_MASK_PACKED)
        return low_bits(ones(set) << shift);
    for (unsigned i = 0; i < bits; i++)
        if (set >> i & 1)
            bytes |= low_bits(1u << shift) << (i % elements << shift);
    return bytes;
}
