/* The ways into a block: whatever state its registers are in when it is entered, and wherever its entries lie, it does the same. */
#include "tests/unit/translator/xl_env.h"
#include <criterion/criterion.h>
#include <string.h>

static struct xl_cpu cpu;
static void setup(void)
{
    cpu = env_everything();
    env_open(&cpu);
}
TestSuite(xl_entry, .init = setup, .fini = env_close);

enum { INDIRECT = CCF_ENTRIES };

static uint32_t entry_pc(unsigned way)
{
    const struct ccf_desc *d = &env_result.d;
    return way == INDIRECT ? d->entry_indirect_pc : d->hot_pc + (uint32_t)d->entry[way];
}

static void park(unsigned r)
{
    env->c.spill[r] = env->c.gpr[r];
    env->c.gpr[r] = 0xdeadbeefull << r;
}

/* Registers at the end, for a block entered in the given way. */
static void run(unsigned way, uint64_t gpr[16])
{
    for (unsigned r = 0; r < 16; r++) {
        env->c.gpr[r] = (uint64_t)(uintptr_t)env->data + 2048 + 64 * r;
        env->c.spill[r] = 0;
        memcpy(env->data + 2048 + 64 * r, &(uint64_t){0x1111 * r}, 8);
    }
    env->c.flags = EFLAGS_CF;
    if (way != CCF_ENTRY)
        park(R_RCX);
    if (way == CCF_ENTRY_BOTH || way == INDIRECT)
        park(R_RDX);
    env_run_at(entry_pc(way));
    cr_expect_eq(env->c.flags, EFLAGS_CF);
    memcpy(gpr, env->c.gpr, 16 * 8);
}

static void check(const uint8_t *code, unsigned bytes)
{
    uint64_t want[16], got[16];
    for (unsigned place = 0; place <= CCF_ENTRIES; place++)
        for (unsigned way = 0; way <= INDIRECT; way++) {
            struct xl_input in = {.code = code,
                                  .code_bytes = bytes,
                                  .rip = 0x1000,
                                  .cs_limit = ~0u,
                                  .key = ENV_KEY64,
                                  .in_place = (uint8_t)place};
            cr_assert_eq(env_translate_in(&in), XL_OK);
            if (place) /* where the jump was, the entry that its exit has */
                cr_expect_eq(entry_pc(place - 1), env_result.d.start_pc);
            run(way, place || way ? got : want);
            if (place || way)
                cr_expect_eq(memcmp(got, want, sizeof got), 0, "in place %u, way %u", place, way);
        }
}

Test(xl_entry, a_block_that_reads_rcx_and_rdx)
{
    const uint8_t code[] = {0x48, 0x8d, 0x04, 0x0a,  /* lea rax, [rdx+rcx] */
                            0x48, 0x8b, 0x3e,        /* mov rdi, [rsi] */
                            0x48, 0x8d, 0x49, 0x01}; /* lea rcx, [rcx+1] */
    check(code, sizeof code);
}

Test(xl_entry, a_block_that_wants_rcx_as_scratch_and_leaves_it_so)
{
    const uint8_t code[] = {0x48, 0x8b, 0x3e,        /* mov rdi, [rsi] */
                            0x48, 0x8d, 0x52, 0x01}; /* lea rdx, [rdx+1] */
    check(code, sizeof code);
    cr_expect_eq(env_result.d.exit[0].entry, CCF_ENTRY_RCX);
}

Test(xl_entry, a_block_that_wants_rcx_and_rdx_as_scratch)
{
    const uint8_t code[] = {0x48, 0x8b, 0x3e, /* mov rdi, [rsi] */
                            0x48, 0x8b, 0x03, /* mov rax, [rbx] */
                            0x5d};            /* pop rbp */
    check(code, sizeof code);
    cr_expect_eq(env_result.d.exit[0].entry, CCF_ENTRY_BOTH);
}

Test(xl_entry, a_block_that_returns)
{
    const uint8_t code[] = {0x48, 0x8d, 0x47, 0x01, /* lea rax, [rdi+1] */
                            0x5d,                   /* pop rbp */
                            0xc3};                  /* ret */
    check(code, sizeof code);
    cr_expect_eq(entry_pc(INDIRECT), env_result.d.start_pc, "nothing is loaded to be stored again");
}
