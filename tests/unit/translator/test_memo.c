/* What the translator remembers of an instruction's form is what it would find by decoding. Every opcode of the one-byte and two-byte
 * maps with every ModRM, prefixes and random bytes behind; the memo is asked with other bytes behind the form than it was taught with.
 * The decoder is asked at the end of what can be fetched, where nothing is remembered. */
#include "base/rng.h"
#include "tests/unit/translator/xl_env.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#define TAIL 12 /* random bytes behind the opcode's ModRM */
#define ENDS 14 /* too few for the memo, enough for nearly all instructions */

static struct rng rng;
static struct xl *xl;
static struct xl_layout layout;
static struct xl_input in;
static unsigned long recalled, wrong;

static void setup(void)
{
    struct xl_cpu cpu = env_everything();
    rng_init(&rng, rng_pick_seed());
    cr_assert_eq(xl_create(&xl, &layout, &cpu), 0);
    xl->in = &in;
    recalled = wrong = 0;
}
static void teardown(void) { xl_destroy(xl); }
TestSuite(xl_memo, .init = setup, .fini = teardown);

static bool decode(struct xl_insn *n, const uint8_t *code, unsigned bytes)
{
    in.code = code;
    in.code_bytes = bytes;
    memset(n, 0x5a, sizeof *n);
    return xl_decode(xl, n, 0) == XL_OK;
}

static bool same(const struct xl_insn *a, const struct xl_insn *b)
{
    unsigned ops = b->i.operand_count < XL_LOOKED_AT ? XL_LOOKED_AT : b->i.operand_count;
    return !memcmp(a, b, offsetof(struct xl_insn, i)) && !memcmp(&a->i, &b->i, sizeof a->i) &&
           !memcmp(a->op, b->op, ops * sizeof *a->op);
}

static void report(const uint8_t *code)
{
    char text[64] = "";
    for (unsigned k = 0; k < 15; k++)
        snprintf(text + 3 * k, 4, "%02x ", code[k]);
    if (wrong++ < 10)
        cr_log_error("seed %#llx, key %#x: remembered otherwise than decoded: %s", (unsigned long long)rng.seed, in.key,
                     text);
}

/* head: the first bytes, with ModRM if the opcode has one. */
static void check(const uint8_t *head, unsigned bytes)
{
    static struct xl_insn got, want;
    uint8_t code[32];
    struct xl_form f;
    memcpy(code, head, bytes);
    uint8_t sib = (uint8_t)rng_next(&rng);
    for (unsigned round = 0; round < 2; round++) {
        code[bytes] = sib;
        for (unsigned k = 1; k < 16; k++)
            code[bytes + k] = (uint8_t)rng_next(&rng);
        if (round == 0 && !decode(&got, code, sizeof code))
            return;
    }
    memset(&got, 0xa5, sizeof got);
    got.bytes = code;
    if (!xl_recall(xl, &got, &f))
        return;
    recalled++;
    if (!decode(&want, code, ENDS))
        cr_assert_eq(got.i.length, 15);
    else if (!same(&got, &want))
        report(code);
}

static void check_opcodes(uint32_t key, const char *prefixes)
{
    uint8_t head[16];
    unsigned at = (unsigned)strlen(prefixes);
    memcpy(head, prefixes, at);
    in.key = key;
    xl->m64 = key & CPU_KEY_CODE64;
    for (unsigned op = 0; op < 0x200; op++)
        for (unsigned modrm = 0; modrm < 0x100; modrm++) {
            unsigned k = at;
            if (op >= 0x100)
                head[k++] = 0x0f;
            head[k++] = (uint8_t)op;
            head[k++] = (uint8_t)modrm;
            check(head, k);
        }
}

static const char *const prefixes[] = {"",         "\x66",     "\x67",         "\xf2",    "\xf3", "\xf0",
                                       "\x64",     "\x2e",     "\x66\x67",     "\x48",    "\x4d", "\x66\x41",
                                       "\xf3\x48", "\x66\xf2", "\x67\x65\x44", "\xf0\x4f"};

static void check_mode(uint32_t key)
{
    for (unsigned k = 0; k < sizeof prefixes / sizeof *prefixes; k++)
        check_opcodes(key, prefixes[k]);
    cr_expect_eq(wrong, 0, "%lu of %lu", wrong, recalled);
    cr_expect_gt(recalled, 800000, "remembered: %lu", recalled);
}

Test(xl_memo, is_what_decoding_finds_in_64_bit_code) { check_mode(ENV_KEY64); }
Test(xl_memo, is_what_decoding_finds_in_32_bit_code) { check_mode(ENV_KEY32); }
Test(xl_memo, is_what_decoding_finds_in_16_bit_code) { check_mode(ENV_KEY16); }
Test(xl_memo, is_what_decoding_finds_in_real_mode) { check_mode(ENV_KEY16 | CPU_KEY_REAL); }

/* The same bytes in another mode, or with the FPU switched off, are another form. */
Test(xl_memo, does_not_take_one_mode_for_another)
{
    static const uint8_t code[32] = {0x0f, 0x58, 0x48, 0x10}; /* addps xmm1, [rax + 16] */
    static const uint32_t keys[] = {ENV_KEY64, ENV_KEY64 | CPU_KEY_TS, ENV_KEY64 & ~CPU_KEY_OSFXSR, ENV_KEY32,
                                    ENV_KEY16};
    static struct xl_insn n;
    for (unsigned round = 0; round < 2; round++)
        for (unsigned k = 0; k < 5; k++) {
            in.key = keys[k];
            xl->m64 = in.key & CPU_KEY_CODE64;
            cr_assert(decode(&n, code, sizeof code));
            cr_expect_eq(n.act, k == 0 || k > 2 ? XL_ACT_MEM : XL_ACT_SYS, "key %#x", keys[k]);
            cr_expect_eq(n.i.length, 4);
            if (k != 1 && k != 2)
                cr_expect_eq(n.i.address_width, k == 0 ? 64 : k == 3 ? 32 : 16);
        }
}
