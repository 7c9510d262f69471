/* tests/unit/translator/xl_env.c - see xl_env.h. */
#include "tests/unit/translator/xl_env.h"
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define RIP 0x1000
#define CODE_BYTES 0x20000
struct env_low *env;
struct xl *env_xl;
struct xl_result env_result;
int (*env_on_miss)(uint64_t ret_pc);
static uint8_t *tc;
static struct xl_layout layout;
static struct xl_entry enter64, enter32;
static uint32_t glue_end, last_key;

static void *low_memory(size_t bytes, int prot)
{
    void *p = mmap(NULL, bytes, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    cr_assert(p != MAP_FAILED, "no memory in the low 2 GiB");
    return p;
}

static uint64_t *site_register(unsigned r)
{
    return r < 8 || (env->site & XL_SITE_64) ? &env->c.gpr[r] : &env->c.hscratch[r - 8];
}

/* Guest memory lies at its own address: the operand is [s1 + 0]. */
static int on_miss(void *v, uint64_t ret_pc)
{
    int code = env_on_miss ? env_on_miss(ret_pc) : 0;
    *site_register(XL_SITE_S2(env->site)) = 0;
    return code;
}
static int on_callout(void *v, uint64_t ret_pc) { return ENV_CALLOUT; }
static int on_pre(void *v, uint64_t ret_pc) { return ENV_FAULT; }
static int on_post(void *v, uint64_t ret_pc) { return 0; }

static void fill_layout(void)
{
#define ADDR(f) ((uint64_t)(uintptr_t)&env->f)
    layout = (struct xl_layout){.cpu = ADDR(c),
                                .host_sp = ADDR(host_sp),
                                .ea = ADDR(ea),
                                .op = ADDR(op),
                                .op_imm = ADDR(op_imm),
                                .site = ADDR(site),
                                .link_pc = ADDR(link_pc),
                                .event_pending = ADDR(event_pending),
                                .keep = ADDR(keep),
                                .const_stack = ADDR(const_stack),
                                .const_window = ADDR(const_window),
                                .stack_from = ADDR(stack_from),
                                .stack_span = 128,
                                .gs_base = ADDR(gs_base),
                                .gs_base_neg = ADDR(gs_base_neg),
                                .const_page = ADDR(const_page),
                                .const_sign = ADDR(const_sign),
                                .const_jc = ADDR(const_jc),
                                .const_63 = ADDR(const_63),
                                .const_31 = ADDR(const_31),
                                .const_15 = ADDR(const_15)};
    for (unsigned i = 0; i < 2; i++) {
        layout.tlb[i] = (struct xl_tlb_layout){ADDR(tag_r), ADDR(tag_w), ADDR(addend), ADDR(stack_r), ADDR(stack_w)};
        layout.jc[i] = (struct xl_jc_layout){ADDR(jc_tag), ADDR(jc_pc)};
    }
    env->const_page = ~0xfffull;
    env->const_stack = -2048ull;
    env->const_window = 7ull << 9;
    env->const_sign = 1ull << 63;
    env->const_jc = 4095ull << 1;
    env->const_63 = 63, env->const_31 = 31, env->const_15 = 15;
    for (unsigned i = 0; i < ENV_TLB; i++) /* minus a page of another index: never matches */
        env->tag_r[i] = env->tag_w[i] = 0 - ((uint64_t)(i ^ ENV_TLB / 2) << 12);
    env->stack_r[0] = env->stack_w[0] = 1ull << 63;
    env->jc_tag[0] = (uint64_t)-2;
}

void env_open(const struct xl_cpu *cpu)
{
    env = low_memory(sizeof *env, PROT_READ | PROT_WRITE);
    tc = low_memory(CODE_BYTES, PROT_READ | PROT_WRITE | PROT_EXEC);
    env_on_miss = NULL;
    fill_layout();
    cr_assert_eq(xl_create(&env_xl, &layout, cpu), 0);
    struct emit e = {.p = tc, .start = tc, .end = tc + 8192, .pc = (uint64_t)(uintptr_t)tc};
    struct xl_helpers h = {.callout = (uint64_t)(uintptr_t)on_callout,
                           .site_miss = (uint64_t)(uintptr_t)on_miss,
                           .site_pre = (uint64_t)(uintptr_t)on_pre,
                           .site_post = (uint64_t)(uintptr_t)on_post,
                           .exit_code = ADDR(exit_code),
                           .jump_target = ADDR(jump_target),
                           .code_link = ENV_LINK,
                           .code_indirect = ENV_INDIRECT,
                           .code_dispatch = ENV_DISPATCH,
                           .code_hostfault = ENV_HOSTFAULT};
    xl_emit_glue(&e, &layout, &h, &enter64, &enter32);
    cr_assert(!e.overflow);
    glue_end = (uint32_t)(e.p - tc);
    for (unsigned s = 0; s < S_COUNT; s++) {
        env->c.seg[s] = (struct seg){.limit = 0xffffffffu, .attr = SEG_P | SEG_S | SEG_RW | SEG_DB | SEG_G};
        cpu_seg_cache(&env->c.seg[s]);
    }
}

void env_close(void)
{
    xl_destroy(env_xl);
    munmap(env, sizeof *env);
    munmap(tc, CODE_BYTES);
}

struct xl_cpu env_everything(void)
{
    struct xl_cpu c = {0};
    for (unsigned f = XL_FEAT_ALWAYS + 1; f < XL_FEAT_COUNT; f++)
        xl_cpu_offer(&c, f);
    return c;
}

enum xl_status env_translate_in(struct xl_input *in)
{
    uint8_t *h = tc + glue_end, *c = tc + CODE_BYTES / 2;
    struct emit hot = {.p = h, .start = h, .end = c, .pc = (uint64_t)(uintptr_t)h};
    struct emit cold = {.p = c, .start = c, .end = tc + CODE_BYTES, .pc = (uint64_t)(uintptr_t)c};
    last_key = in->key;
    return xl_translate(env_xl, in, &hot, &cold, &env_result);
}

enum xl_status env_translate(uint32_t key, const void *code, unsigned bytes)
{
    static uint8_t page[64];
    memset(page, 0xcc, sizeof page);
    memcpy(page, code, bytes);
    struct xl_input in = {.code = page, .code_bytes = sizeof page, .rip = RIP, .cs_limit = 0xffffffffu, .key = key};
    return env_translate_in(&in);
}

uint64_t env_run_at(uint32_t pc)
{
    const struct xl_entry *e = last_key & CPU_KEY_CODE64 ? &enter64 : &enter32;
    uint64_t (*go)(uint64_t) = (uint64_t(*)(uint64_t))(uintptr_t)e->enter;
    return go(pc);
}
uint64_t env_run(void) { return env_run_at(env_result.d.hot_pc + (uint32_t)env_result.d.entry[CCF_ENTRY]); }

bool env_recover(uint64_t ret_pc, unsigned *guest_off)
{
    for (unsigned i = 0; i < env_result.d.n_points; i++) {
        const struct ccf_point *p = &env_result.point[i];
        if (p->pc != ret_pc)
            continue;
        for (unsigned r = 0; r < 16; r++)
            if (p->spilled >> r & 1)
                env->c.gpr[r] = env->c.spill[r];
        *guest_off = p->guest_off;
        return true;
    }
    return false;
}

bool env_host(ZydisMnemonic m, unsigned n, struct env_host *h)
{
    ZydisDecoder d;
    ZydisDecoderInit(&d, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    const uint8_t *p = (uint8_t *)(uintptr_t)env_result.d.hot_pc, *end = p + env_result.d.hot_bytes;
    for (; p < end; p += h->i.length) {
        if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&d, p, (ZyanUSize)(end - p), &h->i, h->op)))
            return false;
        h->bytes = p;
        if (h->i.mnemonic == m && !n--)
            return true;
    }
    return false;
}

enum xl_class env_class(unsigned k) { return env_result.insn[k].cls; }

bool env_is_ud(uint32_t key, const void *code, unsigned bytes)
{
    cr_assert_eq(env_translate(key, code, bytes), XL_OK);
    return env_class(0) == XL_UD;
}

struct sys_op env_op(void)
{
    struct sys_op s;
    memcpy(&s, &env->op, sizeof s);
    return s;
}
