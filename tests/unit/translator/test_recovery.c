/* State recovery: at every soft TLB miss of a block, the registers put back from their spill slots are those between two guest
 * instructions. The reference runs the same instructions as blocks of one, where nothing is in flight. */
#include "tests/unit/translator/xl_env.h"
#include <criterion/criterion.h>
#include <string.h>

#define STEPS 64
struct state {
    uint64_t gpr[16];
    uint32_t flags;
};
static struct xl_cpu cpu;
static struct state at[STEPS]; /* by guest offset: state in front of the instruction there */
static bool code64;            /* elsewhere r8 to r15 are scratch */
static bool known[STEPS];
static unsigned seen, wrong;
static struct state start;

static void setup(void)
{
    cpu = env_everything();
    env_open(&cpu);
    memset(known, 0, sizeof known);
    seen = wrong = 0;
}
TestSuite(xl_recovery, .init = setup, .fini = env_close);

static void put(const struct state *s)
{
    memcpy(env->c.gpr, s->gpr, sizeof s->gpr);
    env->c.flags = s->flags;
}
static struct state get(void)
{
    struct state s;
    memcpy(s.gpr, env->c.gpr, sizeof s.gpr);
    s.flags = env->c.flags;
    return s;
}

/* Registers all different, those that are used as addresses inside data. */
static void begin(void)
{
    for (unsigned r = 0; r < 16; r++)
        start.gpr[r] = (uint64_t)(uintptr_t)env->data + 4096 + 64 * r;
    start.flags = EFLAGS_CF | EFLAGS_OF;
    for (unsigned i = 0; i < sizeof env->data; i++)
        env->data[i] = (uint8_t)(i * 7);
}

static int compare(uint64_t ret_pc)
{
    struct state raw = get();
    unsigned off = 0;
    seen++;
    if (!env_recover(ret_pc, &off) || !known[off]) {
        wrong++;
        return 0;
    }
    struct state now = get();
    for (unsigned r = 0; r < (code64 ? 16 : 8); r++)
        if (now.gpr[r] != at[off].gpr[r] && r != R_RSP) /* glue keeps the stack pointer aside */
            wrong++, cr_log_error("at +%u: register %u is %llx, not %llx", off, r, (unsigned long long)now.gpr[r],
                                  (unsigned long long)at[off].gpr[r]);
    if (now.flags != at[off].flags)
        wrong++, cr_log_error("at +%u: flags %x, not %x", off, now.flags, at[off].flags);
    put(&raw); /* the block goes on with its own scratch values */
    return 0;
}

static void check(uint32_t key, const uint8_t *code, unsigned bytes)
{
    code64 = key & CPU_KEY_CODE64;
    uint8_t keep[sizeof env->data];
    struct state s;
    begin();
    memcpy(keep, env->data, sizeof keep);
    s = start;
    for (unsigned off = 0; off < bytes;) {
        struct xl_input in = {.code = code + off,
                              .code_bytes = bytes - off,
                              .rip = 0x1000 + off,
                              .cs_limit = ~0u,
                              .key = key,
                              .max_insns = 1};
        at[off] = s;
        known[off] = true;
        cr_assert_eq(env_translate_in(&in), XL_OK);
        put(&s);
        cr_assert_eq(env_run(), ENV_LINK);
        s = get();
        off += env_result.d.tu_bytes;
    }
    memcpy(env->data, keep, sizeof keep);
    struct xl_input in = {.code = code, .code_bytes = bytes, .rip = 0x1000, .cs_limit = ~0u, .key = key};
    cr_assert_eq(env_translate_in(&in), XL_OK);
    env_on_miss = compare;
    put(&start);
    cr_assert_eq(env_run(), ENV_LINK);
    struct state end = get();
    cr_expect_eq(memcmp(end.gpr, s.gpr, key & CPU_KEY_CODE64 ? 128 : 64), 0, "the whole block ends elsewhere");
    cr_expect_eq(end.flags, s.flags);
    cr_expect_gt(seen, 3);
    cr_expect_eq(wrong, 0);
}

Test(xl_recovery, loads_stores_and_arithmetic_in_64_bit_code)
{
    const uint8_t code[] = {0x48, 0x8b, 0x43, 0x10,       /* mov rax, [rbx+10h] */
                            0x4c, 0x11, 0x06,             /* adc [rsi], r8 */
                            0x48, 0x03, 0x4c, 0xbd, 0x08, /* add rcx, [rbp+rdi*4+8] ... rdi = 0 below */
                            0x0f, 0xb6, 0x12,             /* movzx edx, byte [rdx] */
                            0x41, 0x55,                   /* push r13 */
                            0x8f, 0xc0,                   /* pop rax */
                            0x4d, 0x8b, 0x7f, 0x20,       /* mov r15, [r15+20h] */
                            0x41, 0x88, 0x66, 0x03};      /* (rex) mov [r14+3], spl */
    uint8_t fixed[sizeof code + 2];
    fixed[0] = 0x31, fixed[1] = 0xff; /* xor edi, edi */
    memcpy(fixed + 2, code, sizeof code);
    check(ENV_KEY64, fixed, sizeof fixed);
}

Test(xl_recovery, high_byte_registers_and_bit_strings)
{
    const uint8_t code[] = {0x88, 0x66, 0x05,          /* mov [rsi+5], ah */
                            0x02, 0x77, 0x09,          /* add dh, [rdi+9] */
                            0xb9, 0x45, 0,    0,    0, /* mov ecx, 45h */
                            0x48, 0x0f, 0xab, 0x0e,    /* bts [rsi], rcx */
                            0x0f, 0xb3, 0x0f,          /* btr [rdi], ecx */
                            0x48, 0x87, 0x0b};         /* xchg [rbx], rcx */
    check(ENV_KEY64, code, sizeof code);
}

Test(xl_recovery, stack_frame_in_32_bit_code)
{
    const uint8_t code[] = {0x55,             /* push ebp */
                            0x89, 0xe5,       /* mov ebp, esp */
                            0x53,             /* push ebx */
                            0xff, 0x76, 0x04, /* push [esi+4] */
                            0x8b, 0x45, 0x04, /* mov eax, [ebp+4] */
                            0x01, 0x07,       /* add [edi], eax */
                            0x5b,             /* pop ebx */
                            0xc9};            /* leave */
    check(ENV_KEY32, code, sizeof code);
}
