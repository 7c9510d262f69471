/* translator/translator.c - one translation from start to end. */
#include "base/err.h"
#include "translator/xl_int.h"
#include <stdlib.h>
#include <string.h>

const char *xl_class_name(enum xl_class c)
{
    static const char *const names[] = {
#define X(n) #n,
        XL_CLASSES(X)
#undef X
    };
    return c < XL_CLASS_COUNT ? names[c] : "?";
}

static void init_decoder(ZydisDecoder *d, ZydisMachineMode mode, ZydisStackWidth width, const struct xl_cpu *cpu)
{
    ZydisDecoderInit(d, mode, width);
    /* Without MPX and CET their instructions are the NOPs they were made from. */
    ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
    ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
    ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_KNC, ZYAN_FALSE);
    ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_AMD_BRANCHES, cpu->amd);
    /* These ignore an F3 prefix where the feature is missing. */
    ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_LZCNT, xl_cpu_has(cpu, XL_FEAT_ABM));
    ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_TZCNT, xl_cpu_has(cpu, XL_FEAT_BMI1));
    ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_CLDEMOTE, ZYAN_FALSE);
}

int xl_create(struct xl **out, const struct xl_layout *layout, const struct xl_cpu *cpu)
{
    struct xl *x = calloc(1, sizeof *x);
    if (!x)
        return -RD_E_NOMEM;
    x->memo = xl_memo_create();
    if (!x->memo) {
        free(x);
        return -RD_E_NOMEM;
    }
    x->l = layout;
    x->cpu = *cpu;
    init_decoder(&x->dec64, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64, cpu);
    init_decoder(&x->dec32, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32, cpu);
    init_decoder(&x->dec16, ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16, cpu);
    init_decoder(&x->dec_real, ZYDIS_MACHINE_MODE_REAL_16, ZYDIS_STACK_WIDTH_16, cpu);
    *out = x;
    return 0;
}

void xl_destroy(struct xl *x)
{
    if (x)
        xl_memo_destroy(x->memo);
    free(x);
}

static void emit_one(struct xl *x, struct xl_insn *n)
{
    switch (n->act) {
    case XL_ACT_IDENT:
    case XL_ACT_RDTSC: xl_emit_ident(x, n); break;
    case XL_ACT_DROP: break;
    case XL_ACT_MEM: xl_emit_mem(x, n); break;
    case XL_ACT_LEA: xl_emit_lea(x, n); break;
    case XL_ACT_MOFFS: xl_emit_moffs(x, n); break;
    case XL_ACT_BITSTR: xl_emit_bitstr(x, n); break;
    case XL_ACT_PUSH_R:
    case XL_ACT_PUSH_I:
    case XL_ACT_PUSH_M: xl_emit_push(x, n); break;
    case XL_ACT_POP_R: xl_emit_pop(x, n); break;
    case XL_ACT_LEAVE: xl_emit_leave(x, n); break;
    case XL_ACT_CLI:
    case XL_ACT_STI:
    case XL_ACT_CLD:
    case XL_ACT_STD:
    case XL_ACT_SALC:
    case XL_ACT_MOV_FROM_CR:
    case XL_ACT_MOV_TO_CR8:
    case XL_ACT_MOV_FROM_SREG: xl_emit_priv(x, n); break;
    case XL_ACT_SYS:
        if (xl_string_direct(x, n))
            xl_emit_string(x, n);
        else
            xl_emit_sys(x, n);
        break;
    default: xl_emit_ctl(x, n); break;
    }
}

/* One more in the counter at address at; r is scratch, and the flags stay as they are. Returns where the byte that is added lies. */
static uint8_t *count_one(struct emit *e, uint64_t at, unsigned r)
{
    em_ld64(e, r, at);
    em_lea(e, 1, r, (int)r, NO_REG, 0, 1);
    uint8_t *one = e->p - 1;
    em_st64(e, r, at);
    return one;
}

/* Nothing here can fault, so that no point is needed. */
static uint8_t *emit_block_count(struct xl *x)
{
    struct emit *e = x->hot;
    const struct xl_count_layout *c = &x->l->count;
    em_st64(e, R_RCX, c->save);
    count_one(e, c->blocks, R_RCX);
    uint8_t *insns = count_one(e, c->insns, R_RCX);
    em_ld64(e, R_RCX, c->save);
    return insns;
}

void xl_count_rcx(struct xl *x, struct emit *e, uint64_t at)
{
    if (x->in->count)
        count_one(e, at, R_RCX);
}

static bool uses_fpu(const struct xl *x)
{
    for (unsigned k = 0; k < x->n; k++)
        if (x->insn[k].fpu && x->insn[k].act != XL_ACT_SYS)
            return true;
    return false;
}

static bool wants_fpu_check(const struct xl *x) { return x->l->fpu_live && !xl_user(x) && uses_fpu(x); }

/* Kernels hardly ever use the FPU: they run without the guest's state in it, and a block that does wants it first: it leaves for the run
 * loop if it is not there. User code always has it. A block of this kind that is linked to another need not ask again: hot_skip. */
static void emit_fpu_check(struct xl *x)
{
    struct emit *e = x->hot, *c = x->cold;
    uint64_t leave = em_pc(c), start = em_pc(e);
    em_ld64(c, R_RCX, xl_slot(x, R_RCX));
    xl_set_rip(x, c, x->in->rip);
    em_jmp(c, x->g->exit_dispatch);
    em_st64(e, R_RCX, xl_slot(x, R_RCX));
    em_movzx8_abs(e, R_RCX, x->l->fpu_live);
    em_lea(e, 1, R_RCX, R_RCX, NO_REG, 0, -1);
    em_jmp_unless_rcx0(e, leave);
    em_ld64(e, R_RCX, xl_slot(x, R_RCX));
    x->r->d.hot_skip = (uint8_t)(em_pc(e) - start);
}

/* The last exit's jump ends the hot code. */
static void find_fall_exit(struct xl_result *r)
{
    unsigned last = r->d.n_exits - 1u;
    r->d.fall_exit = 2;
    if (r->d.n_exits && r->d.exit[last].rel_at == 1 && r->d.exit[last].jmp_pc + 5 == r->d.hot_pc + r->d.hot_bytes)
        r->d.fall_exit = last;
}

static void emit_all(struct xl *x)
{
    struct xl_result *r = x->r;
    x->stop = false;
    for (x->cur = 0; x->cur < x->n && !em_full(x->hot) && !em_full(x->cold); x->cur++) {
        struct xl_insn *n = &x->insn[x->cur];
        r->insn[x->cur] =
            (struct xl_insn_info){n->off, n->i.length, n->cls, x->cur ? (uint32_t)(em_pc(x->hot) - r->d.hot_pc) : 0};
        r->class_count[n->cls]++;
        r->d.last_off = n->off;
        xl_group_pin(x);
        emit_one(x, n);
        xl_changed(x, n);
        xl_group_release(x);
    }
    if (!x->stop) {
        xl_settle_sp(x); /* the buffer was full */
        const struct xl_insn *last = &x->insn[x->cur - 1];
        xl_exit_to(x, xl_next_rip(x, last));
        r->d.tu_bytes = last->off + last->i.length;
    }
    r->d.n_insns = x->cur;
}

enum xl_status xl_translate(struct xl *x, const struct xl_input *in, struct emit *hot, struct emit *cold,
                            struct xl_result *r)
{
    x->in = in;
    x->r = r;
    x->hot = hot;
    x->cold = cold;
    x->m64 = in->key & CPU_KEY_CODE64;
    x->careful = in->key & CPU_KEY_CAREFUL;
    x->g = x->m64 ? &x->l->glue64 : &x->l->glue32;
    x->spilled = 0;
    x->clean = 0;
    x->sp_ahead = 0;
    x->post_pending = false;
    r->d.n_exits = r->d.n_points = 0;
    r->d.ij_pc = r->d.ij_end = r->d.ij_miss_pc = 0;
    r->d.rsp_undo = 0;
    memset(r->class_count, 0, sizeof r->class_count);
    enum xl_status s = xl_scan(x);
    if (s != XL_OK)
        return s;
    xl_group_sites(x);
    r->d.cold_pc = (uint32_t)em_pc(cold);
    bool check = wants_fpu_check(x);
    xl_emit_entries(x, !check);
    r->d.hot_skip = 0;
    if (check)
        emit_fpu_check(x);
    uint8_t *insns = in->count ? emit_block_count(x) : NULL;
    emit_all(x);
    if (insns && !hot->overflow)
        *insns = (uint8_t)r->d.n_insns;
    r->d.hot_bytes = (uint32_t)em_pc(hot) - r->d.hot_pc;
    r->d.cold_bytes = (uint32_t)em_pc(cold) - r->d.cold_pc;
    find_fall_exit(r);
    return hot->overflow || cold->overflow || r->d.n_insns == 0 ? XL_OVERFLOW : XL_OK;
}
