/* Which instructions there are: what CPUID does not offer is #UD, what it does is not refused. */
#include "tests/unit/translator/xl_env.h"
#include <criterion/criterion.h>

static struct xl_cpu cpu;
static void setup_all(void)
{
    cpu = env_everything();
    env_open(&cpu);
}
static void setup_none(void)
{
    cpu = (struct xl_cpu){0};
    env_open(&cpu);
}
TestSuite(xl_classify, .init = setup_all, .fini = env_close);
TestSuite(xl_classify_bare, .init = setup_none, .fini = env_close);

#define UD(key, ...) env_is_ud(key, (const uint8_t[]){__VA_ARGS__}, sizeof(const uint8_t[]){__VA_ARGS__})

Test(xl_classify, string_compares_of_sse42_are_known)
{
    cr_expect(!UD(ENV_KEY64, 0xc4, 0xe3, 0x79, 0x61, 0x02, 0x3f)); /* vpcmpestri xmm0, [rdx], 3fh */
    cr_expect(!UD(ENV_KEY64, 0x66, 0x0f, 0x3a, 0x62, 0xca, 0x0c)); /* pcmpistrm xmm1, xmm2, 0ch */
}

Test(xl_classify, xop_is_offered_when_the_cpu_has_it)
{
    cr_expect(!UD(ENV_KEY64, 0x8f, 0xe9, 0x78, 0xc1, 0xc8));
} /* vphaddbw */

Test(xl_classify, knights_corner_is_never_offered)
{
    cr_expect(UD(ENV_KEY64, 0xc5, 0xf8, 0x74, 0x05));
} /* jkzd k0, rel8 */

Test(xl_classify, three_d_now_is_never_offered)
{
    cr_expect(UD(ENV_KEY64, 0x0f, 0x0f, 0x03, 0xb4));
} /* pfmul mm0, [rbx] */

Test(xl_classify, what_a_hypervisor_would_see_is_refused)
{
    cr_expect(UD(ENV_KEY64, 0x0f, 0x01, 0xc2));  /* vmlaunch */
    cr_expect(UD(ENV_KEY64, 0x0f, 0x01, 0xd4));  /* vmfunc */
    cr_expect(UD(ENV_KEY64, 0x0f, 0x01, 0xd5));  /* xend */
    cr_expect(!UD(ENV_KEY64, 0x0f, 0x01, 0xc1)); /* vmcall: a hypercall */
}

Test(xl_classify_bare, nothing_is_there_without_its_feature)
{
    cr_expect(UD(ENV_KEY64, 0x8f, 0xe9, 0x78, 0xc1, 0xc8));       /* vphaddbw: XOP */
    cr_expect(UD(ENV_KEY64, 0x66, 0x0f, 0x3a, 0x62, 0xca, 0x0c)); /* pcmpistrm: SSE4.2 */
    cr_expect(UD(ENV_KEY64, 0xc5, 0xf0, 0x58, 0xc2));             /* vaddps: AVX */
    cr_expect(UD(ENV_KEY64, 0x62, 0xf1, 0x74, 0x48, 0x58, 0xc2)); /* vaddps zmm: AVX512F */
    cr_expect(UD(ENV_KEY64, 0xf3, 0x0f, 0xb8, 0xc1));             /* popcnt */
    cr_expect(UD(ENV_KEY64, 0x0f, 0x38, 0xf0, 0x01));             /* movbe */
    cr_expect(UD(ENV_KEY64, 0x0f, 0xc7, 0xf0));                   /* rdrand */
    cr_expect(UD(ENV_KEY64, 0xf3, 0x0f, 0xae, 0xc0));             /* rdfsbase */
    cr_expect(UD(ENV_KEY64, 0x0f, 0x01, 0xc8));                   /* monitor */
}

Test(xl_classify_bare, the_base_set_and_hints_are_there)
{
    cr_expect(!UD(ENV_KEY64, 0x01, 0xc8));                         /* add eax, ecx */
    cr_expect(!UD(ENV_KEY64, 0xf3, 0x90));                         /* pause */
    cr_expect(!UD(ENV_KEY64, 0xf3, 0x0f, 0x1e, 0xfa));             /* endbr64 */
    cr_expect(!UD(ENV_KEY64, 0x0f, 0x1c, 0x07));                   /* cldemote: a NOP */
    cr_expect(!UD(ENV_KEY64, 0x0f, 0x0d, 0x17));                   /* prefetchwt1: a NOP */
    cr_expect(!UD(ENV_KEY64, 0x66, 0x0f, 0x1a, 0x86, 1, 2, 3, 4)); /* bndmov: a NOP without MPX */
}

/* An F3 prefix means LZCNT only to a CPU that has it; the host has, so the prefix must not get there. */
Test(xl_classify_bare, lzcnt_is_bsr_without_abm)
{
    struct env_host h;
    cr_assert_eq(env_translate(ENV_KEY64, (const uint8_t[]){0xf3, 0x0f, 0xbd, 0xc1}, 4), XL_OK);
    cr_expect(env_host(ZYDIS_MNEMONIC_BSR, 0, &h));
    cr_expect(!env_host(ZYDIS_MNEMONIC_LZCNT, 0, &h));
}

Test(xl_classify, lzcnt_is_lzcnt_with_abm)
{
    struct env_host h;
    cr_assert_eq(env_translate(ENV_KEY64, (const uint8_t[]){0xf3, 0x0f, 0xbd, 0xc1}, 4), XL_OK);
    cr_expect(env_host(ZYDIS_MNEMONIC_LZCNT, 0, &h));
}

Test(xl_classify, a_conversion_from_memory_uses_vector_state_though_it_names_no_register_of_it)
{
    static const uint8_t cvttss2si[] = {0xf3, 0x0f, 0x2c, 0x01}, vcvtsd2si[] = {0xc5, 0xfb, 0x2d, 0x01};
    cr_assert_eq(env_translate(ENV_KEY64 | CPU_KEY_TS, cvttss2si, sizeof cvttss2si), XL_OK);
    cr_assert_eq(env_run(), ENV_CALLOUT);
    cr_expect_eq(env_op().op, SYS_OP_NM);
    cr_assert_eq(env_translate(ENV_KEY64 | CPU_KEY_TS, vcvtsd2si, sizeof vcvtsd2si), XL_OK);
    cr_assert_eq(env_run(), ENV_CALLOUT);
    cr_expect_eq(env_op().op, SYS_OP_NM);
}

Test(xl_classify, vector_state_that_is_switched_off_is_an_exception)
{
    const uint8_t vaddps[] = {0xc5, 0xf0, 0x58, 0xc2};
    cr_expect(env_is_ud(ENV_KEY64 & ~CPU_KEY_AVX, vaddps, sizeof vaddps));
    cr_assert_eq(env_translate(ENV_KEY64 | CPU_KEY_TS, vaddps, sizeof vaddps), XL_OK);
    cr_assert_eq(env_run(), ENV_CALLOUT);
    cr_expect_eq(env_op().op, SYS_OP_NM);
}
