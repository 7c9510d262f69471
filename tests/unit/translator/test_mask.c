/* Descriptions of masked memory operands: which bytes of the operand a mask bit stands for. */
#include "tests/unit/translator/xl_env.h"
#include <criterion/criterion.h>
#include <string.h>

static uint32_t mask_of(const uint8_t *code, unsigned bytes)
{
    struct xl_insn n;
    ZydisDecoder d;
    memset(&n, 0, sizeof n);
    ZydisDecoderInit(&d, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    cr_assert(ZYAN_SUCCESS(ZydisDecoderDecodeFull(&d, code, bytes, &n.i, n.op)));
    for (unsigned k = 0; k < n.i.operand_count; k++)
        if (n.op[k].type == ZYDIS_OPERAND_TYPE_MEMORY)
            n.mem = (int8_t)k;
    return xl_mask_of(&n, xl_operand_bytes(&n.op[n.mem]));
}
static uint32_t desc(unsigned kind, unsigned reg, unsigned shift, unsigned bits, unsigned elements)
{
    return kind | reg << 4 | shift << 12 | bits << 16 | elements << 24;
}
#define MASK(...) mask_of((const uint8_t[]){__VA_ARGS__}, sizeof(const uint8_t[]){__VA_ARGS__})

Test(xl_mask, whole_vector)
{
    cr_expect_eq(MASK(0x62, 0xf1, 0x7c, 0x49, 0x10, 0x00), desc(XL_MASK_K, 1, 2, 16, 16)); /* vmovups zmm0{k1}, [rax] */
    cr_expect_eq(MASK(0x62, 0xf1, 0xfd, 0x0a, 0x11, 0x00), desc(XL_MASK_K, 2, 3, 2, 2));   /* vmovupd [rax]{k2}, xmm0 */
    cr_expect_eq(MASK(0x62, 0xf1, 0x7f, 0x4f, 0x6f, 0x00),
                 desc(XL_MASK_K, 7, 0, 64, 64)); /* vmovdqu8 zmm0{k7}, [rax] */
}

Test(xl_mask, no_mask_is_none) { cr_expect_eq(MASK(0x62, 0xf1, 0x7c, 0x48, 0x10, 0x00), 0); }

Test(xl_mask, scalar_looks_at_bit_0)
{
    cr_expect_eq(MASK(0x62, 0xf1, 0x76, 0x0b, 0x58, 0x00),
                 desc(XL_MASK_K, 3, 2, 1, 1)); /* vaddss xmm0{k3}, xmm1, [rax] */
    cr_expect_eq(MASK(0x62, 0xf1, 0xff, 0x0b, 0x11, 0x00), desc(XL_MASK_K, 3, 3, 1, 1)); /* vmovsd [rax]{k3}, xmm0 */
}

Test(xl_mask, broadcast_is_one_element_for_all)
{
    cr_expect_eq(MASK(0x62, 0xf1, 0x74, 0x59, 0x58, 0x00),
                 desc(XL_MASK_K, 1, 2, 16, 1)); /* vaddps zmm0{k1}, zmm1, [rax]{1to16} */
    cr_expect_eq(MASK(0x62, 0xf2, 0x7d, 0x29, 0x59, 0x00),
                 desc(XL_MASK_K, 1, 2, 8, 2)); /* vbroadcasti32x2 ymm0{k1}, [rax] */
    cr_expect_eq(MASK(0x62, 0xf2, 0x7d, 0x49, 0x1a, 0x00),
                 desc(XL_MASK_K, 1, 2, 16, 4)); /* vbroadcastf32x4 zmm0{k1}, [rax] */
}

Test(xl_mask, conversions_count_the_smaller_side)
{
    cr_expect_eq(MASK(0x62, 0xf1, 0x7c, 0x49, 0x5a, 0x00), desc(XL_MASK_K, 1, 2, 8, 8)); /* vcvtps2pd zmm0{k1}, [rax] */
    cr_expect_eq(MASK(0x62, 0xf1, 0xfd, 0x09, 0x5a, 0x00), desc(XL_MASK_K, 1, 3, 2, 2)); /* vcvtpd2ps xmm0{k1}, [rax] */
    cr_expect_eq(MASK(0x62, 0xf2, 0x7e, 0x49, 0x35, 0x00), desc(XL_MASK_K, 1, 2, 8, 8)); /* vpmovqd [rax]{k1}, zmm0 */
}

Test(xl_mask, compress_and_expand_are_packed)
{
    cr_expect_eq(MASK(0x62, 0xf2, 0x7d, 0x49, 0x8a, 0x00),
                 desc(XL_MASK_PACKED, 1, 2, 16, 16)); /* vcompressps [rax]{k1}, zmm0 */
    cr_expect_eq(MASK(0x62, 0xf2, 0xfd, 0x29, 0x88, 0x00),
                 desc(XL_MASK_PACKED, 1, 3, 4, 4)); /* vexpandpd ymm0{k1}, [rax] */
}

/* Exception classes without fault suppression, two of which the decoder's tables do not know. */
Test(xl_mask, classes_without_suppression_access_everything)
{
    cr_expect_eq(MASK(0x62, 0xf1, 0x75, 0x49, 0x61, 0x00), 0);       /* vpunpcklwd zmm0{k1}, zmm1, [rax] */
    cr_expect_eq(MASK(0x62, 0xf3, 0xf5, 0x49, 0xce, 0x00, 0x01), 0); /* vgf2p8affineqb zmm0{k1}, zmm1, [rax], 1 */
    cr_expect_eq(MASK(0x62, 0xf3, 0x75, 0x49, 0x42, 0x00, 0x01), 0); /* vdbpsadbw zmm0{k1}, zmm1, [rax], 1 */
}

Test(xl_mask, indexes_of_vpshufbitqmb_are_bytes)
{
    cr_expect_eq(MASK(0x62, 0xf2, 0x65, 0x4a, 0x8f, 0x20), desc(XL_MASK_K, 2, 0, 64, 64));
}

Test(xl_mask, vmaskmov_goes_by_signs)
{
    cr_expect_eq(MASK(0xc4, 0xe2, 0x75, 0x2e, 0x10),
                 desc(XL_MASK_SIGNS, 1, 2, 8, 8)); /* vmaskmovps [rax], ymm1, ymm2 */
    cr_expect_eq(MASK(0xc4, 0xe2, 0xe1, 0x8c, 0x10),
                 desc(XL_MASK_SIGNS, 3, 3, 2, 2)); /* vpmaskmovq xmm2, xmm3, [rax] */
}
