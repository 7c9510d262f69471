/* -accel trap: what traps, and in which world. */
#include "tests/unit/translator/xl_env.h"
#include <criterion/criterion.h>

static void setup(void)
{
    struct xl_cpu cpu = env_everything();
    env_open(&cpu);
}
TestSuite(xl_trap, .init = setup, .fini = env_close);

static bool traps_in(uint32_t key, bool trap, const uint8_t *code, unsigned bytes)
{
    struct env_host h;
    struct xl_input in = {.code = code, .code_bytes = bytes, .rip = 0x1000, .key = key, .max_insns = 1, .trap = trap};
    cr_assert_eq(env_translate_in(&in), XL_OK);
    return env_host(ZYDIS_MNEMONIC_HLT, 0, &h);
}
#define TRAPS(key, ...) traps_in(key, true, (const uint8_t[]){__VA_ARGS__}, sizeof(const uint8_t[]){__VA_ARGS__})
#define PLAIN(key, ...) traps_in(key, false, (const uint8_t[]){__VA_ARGS__}, sizeof(const uint8_t[]){__VA_ARGS__})
#define USER64 (ENV_KEY64 | 3u << CPU_KEY_CPL_SHIFT)

Test(xl_trap, what_is_inlined_otherwise_traps_in_kernel_code)
{
    cr_expect(TRAPS(ENV_KEY64, 0xfa));       /* cli */
    cr_expect(TRAPS(ENV_KEY64, 0xfb));       /* sti */
    cr_expect(TRAPS(ENV_KEY64, 0x0f, 0x31)); /* rdtsc */
    cr_expect(TRAPS(ENV_KEY64, 0x8c, 0xd8)); /* mov eax, ds */
    cr_expect(!PLAIN(ENV_KEY64, 0xfa));
    cr_expect(!PLAIN(ENV_KEY64, 0x0f, 0x31));
}

Test(xl_trap, callouts_for_sensitive_instructions_trap)
{
    cr_expect(TRAPS(ENV_KEY64, 0x0f, 0x22, 0xd8)); /* mov cr3, rax */
    cr_expect(TRAPS(ENV_KEY64, 0x9d));             /* popf */
    cr_expect(TRAPS(ENV_KEY64, 0xe4, 0x80));       /* in al, 80h */
    cr_expect(TRAPS(ENV_KEY64, 0x0f, 0xa2));       /* cpuid */
    cr_expect(TRAPS(ENV_KEY64, 0x48, 0xcf));       /* iretq */
    cr_expect(TRAPS(ENV_KEY32, 0x9d));
    cr_expect(!PLAIN(ENV_KEY64, 0x9d));
}

Test(xl_trap, user_code_traps_only_where_the_cpu_would)
{
    cr_expect(TRAPS(USER64, 0x0f, 0x05));  /* syscall */
    cr_expect(TRAPS(USER64, 0xcd, 0x80));  /* int 80h */
    cr_expect(TRAPS(USER64, 0xfa));        /* cli */
    cr_expect(!TRAPS(USER64, 0x0f, 0x31)); /* rdtsc */
    cr_expect(!TRAPS(USER64, 0x9d));       /* popf */
    cr_expect(!TRAPS(USER64, 0x0f, 0xa2)); /* cpuid */
}

Test(xl_trap, what_is_done_in_c_for_other_reasons_does_not_trap)
{
    cr_expect(!TRAPS(ENV_KEY64, 0xf3, 0xa4));       /* rep movsb */
    cr_expect(!TRAPS(ENV_KEY64, 0x0f, 0xae, 0x00)); /* fxsave [rax] */
    cr_expect(!TRAPS(ENV_KEY32, 0x60));             /* pusha */
    cr_expect(!TRAPS(ENV_KEY64, 0x01, 0x18));       /* add [rax], ebx */
}
