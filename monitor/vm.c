/* monitor/vm.c - the embedding API but for the run loop: creation, memory, state, events. Not nofpu. */
#define _GNU_SOURCE
#include "base/check.h"
#include "base/err.h"
#include "monitor/vm_int.h"
#include "shadowmmu/ptwalk.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <unistd.h>

#define DEFAULT_TC_BYTES (128u << 20)
#define MAX_RAM (1ull << GUEST_MAXPHYADDR)

_Static_assert(offsetof(struct vcpu, c) == 0, "generated code addresses struct cpu at the block's start");

/* The vCPU block lives where a disp32 reaches it, away from the TC's range. */
static struct vcpu *map_vcpu(void)
{
    size_t bytes = (sizeof(struct vcpu) + 4095) & ~4095ul;
    uint64_t seed = 0;
    if (getentropy(&seed, sizeof seed))
        seed = (uint64_t)getpid();
    for (unsigned tries = 0; tries < 64; tries++) {
        uint64_t a = 0x1000000 + (seed + tries * 0x101000) % 0x6000000;
        void *want = (void *)(uintptr_t)(0x70000000 + (a & ~0xfffull));
        void *p = mmap(want, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
        if (p == want)
            return p;
        if (p != MAP_FAILED)
            munmap(p, bytes);
    }
    return NULL;
}

static void fill_layout(struct vcpu *v, struct xl_layout *l)
{
#define ADDR(field) ((uint64_t)(uintptr_t)&v->field)
    l->cpu = ADDR(c);
    l->host_sp = ADDR(host_sp);
    l->ea = ADDR(ea);
    l->op = ADDR(op);
    l->op_imm = ADDR(op_imm);
    l->site = ADDR(site);
    l->link_pc = ADDR(link_pc);
    l->event_pending = ADDR(event_pending);
    l->keep = ADDR(keep);
    l->const_stack = ADDR(const_stack);
    l->const_window = ADDR(const_window);
    l->stack_from = ADDR(stack_from);
    l->stack_span = STLB_STACK_SPAN;
    v->const_stack = -(uint64_t)STLB_STACK_WINDOW;
    v->const_window = 7ull << 9;
    for (unsigned i = 0; i < 8; i++)
        v->stack_from[i] = stlb_stack_from(i);
    l->gs_base = ADDR(gs_base);
    l->gs_base_neg = ADDR(gs_base_neg);
    l->const_page = ADDR(const_page);
    l->const_sign = ADDR(const_sign);
    l->const_jc = ADDR(const_jc);
    l->const_63 = ADDR(const_63);
    l->const_31 = ADDR(const_31);
    l->const_15 = ADDR(const_15);
    for (unsigned i = 0; i < 2; i++) {
        l->tlb[i] = (struct xl_tlb_layout){ADDR(tlb[i].tag_r), ADDR(tlb[i].tag_w), ADDR(tlb[i].addend),
                                           ADDR(tlb[i].stack_r), ADDR(tlb[i].stack_w)};
        l->jc[i] = (struct xl_jc_layout){ADDR(jc[i].tag), ADDR(jc[i].pc)};
    }
    l->count = (struct xl_count_layout){ADDR(count_blocks), ADDR(count_insns), ADDR(count_indirect),
                                        ADDR(count_jc_direct), ADDR(count_save)};
    l->fpu_live = ADDR(fpu_live);
    l->const_cr8 = ADDR(const_cr8);
    v->const_cr8 = ~15ull;
    v->const_page = PAGE_MASK;
    v->const_sign = 1ull << 63;
    v->const_jc = JC_MASK;
    v->const_63 = 63;
    v->const_31 = 31;
    v->const_15 = 15;
}

static int make_glue(struct vcpu *v)
{
    struct vcpu_priv *p = v->priv;
    struct cc_space sp;
    struct xl_helpers h = {
        .callout = (uint64_t)(uintptr_t)tc_callout,
        .site_miss = (uint64_t)(uintptr_t)tc_site_miss,
        .site_pre = (uint64_t)(uintptr_t)tc_site_pre,
        .site_post = (uint64_t)(uintptr_t)tc_site_post,
        .vcpu = (uint64_t)(uintptr_t)v,
        .exit_code = ADDR(exit_code),
        .jump_target = ADDR(jump_target),
        .code_jump = TC_EXIT_JUMP,
        .code_link = TC_EXIT_LINK,
        .code_indirect = TC_EXIT_INDIRECT,
        .code_dispatch = TC_EXIT_DISPATCH,
        .code_hostfault = TC_EXIT_HOSTFAULT,
    };
    cc_glue_space(p->cc, &sp);
    struct emit e = {.p = sp.hot, .start = sp.hot, .end = sp.hot_end, .pc = sp.hot_pc};
    xl_emit_glue(&e, &p->layout, &h, &p->enter64, &p->enter32);
    return e.overflow ? -RD_E_HOST : 0;
}

/* An x87 instruction pointer inside the TC becomes the guest's; operand addresses there are not known. */
static void fpu_pointers(struct vcpu *v, uint64_t *fip, uint64_t *fdp)
{
    struct cc_block *b = cc_find(v->priv->cc, *fip);
    if (!b)
        return;
    uint64_t best = 0;
    for (unsigned i = 0; i < b->d.n_points; i++)
        if (b->point[i].pc == *fip)
            best = b->key.rip + b->point[i].guest_off;
    *fip = best;
    *fdp = 0;
}

static void evicting(void *opaque) { fpu_own_pointers(opaque); }

static struct xl_cpu translator_cpu(const struct cpumodel *m)
{
    struct xl_cpu c = {.amd = m->amd};
#define XL_FEAT(id)                                                                                                    \
    if (cpumodel_has(m, CPU_FEAT_##id))                                                                                \
        xl_cpu_offer(&c, XL_FEAT_##id);
#include "translator/xl_feature.def"
#undef XL_FEAT
    return c;
}

/* What keeps us from having windows, or NULL. They need WRGSBASE at CPL 3. */
static const char *window_lacks(const struct vm_config *cfg)
{
#ifdef __SANITIZE_ADDRESS__
    return "AddressSanitizer's shadow lies where 64-bit guests have their memory";
#else
    return getauxval(AT_HWCAP2) & 2 ? cfg->window_why : "the host has no FSGSBASE";
#endif
}

static int make_windows(struct vcpu *v)
{
    struct vcpu_priv *p = v->priv;
    if (v->vm->cfg.no_window)
        return 0;
    p->window_why = window_lacks(&v->vm->cfg);
    if (p->window_why)
        return 0;
    int rc = window_create(&p->win64, v->mem, true, v->stats);
    return rc ? rc : window_create(&p->win32, v->mem, false, v->stats);
}

static int init_vcpu(struct vm *vm, struct vcpu *v)
{
    struct vcpu_priv *p = v->priv;
    v->vm = vm;
    v->mem = vm->mem;
    v->stats = &vm->stats;
    vm->stats.counted = vm->cfg.count;
    v->ops = &vm->ops;
    v->opaque = vm->opaque;
    v->cpu = vm->cpu;
    v->fpu_pointers = fpu_pointers;
    p->inject_vector = -1;
    rng_init(&p->rng, vm->cfg.seed ? vm->cfg.seed : 1);
    for (unsigned i = 0; i < 2; i++) {
        softtlb_init(&v->tlb[i]);
        jc_create(&v->jc[i]);
    }
    fill_layout(v, &p->layout);
    int rc = direct_create(&p->direct, v, vm->cfg.user, &p->direct_why); /* forks: before there is much to copy */
    if (!rc)
        rc = make_windows(v);
    if (!rc && vm->cfg.trap)
        rc = pttrace_create(&v->pttrace);
    if (!rc)
        rc = selfcheck_create(v);
    if (rc)
        return rc;
    rc = cc_create(&p->cc, vm->cfg.tc_bytes ? vm->cfg.tc_bytes : DEFAULT_TC_BYTES, &vm->stats);
    if (rc)
        return rc;
    cc_set_hooks(p->cc, vcpu_drop_block, evicting, v);
    rc = make_glue(v);
    struct xl_cpu cpu = translator_cpu(vm->cpu);
    if (!rc)
        rc = xl_create(&p->xl, &p->layout, &cpu);
    if (!rc)
        rc = fpu_create(v);
    if (!rc)
        vcpu_reset(v);
    return rc;
}

int vm_create(struct vm **out, const struct vm_config *cfg, const struct vm_ops *ops, void *opaque)
{
    char bad[64], spec[1024];
    struct vm *vm = calloc(1, sizeof *vm);
    int rc = -RD_E_NOMEM;
    if (!vm)
        return rc;
    if (cfg)
        vm->cfg = *cfg;
    if (ops)
        vm->ops = *ops;
    vm->opaque = opaque;
    rc = gpmem_create(&vm->mem, MAX_RAM);
    if (rc)
        goto fail;
    /* User code that runs directly would read the host's TSC_AUX. */
    snprintf(spec, sizeof spec, "%s%s", vm->cfg.cpu_model ? vm->cfg.cpu_model : "host",
             vm->cfg.user == VM_USER_TRANSLATED ? "" : ",rdtscp=off,rdpid=off");
    rc = cpumodel_create(&vm->cpu, spec, cpumodel_host_cpuid, bad, sizeof bad);
    if (rc)
        goto fail;
    rc = -RD_E_HOST;
    vm->vcpu = map_vcpu();
    if (!vm->vcpu)
        goto fail;
    rc = -RD_E_NOMEM;
    vm->vcpu->priv = aligned_alloc(64, (sizeof(struct vcpu_priv) + 63) & ~63ul);
    if (!vm->vcpu->priv)
        goto fail;
    memset(vm->vcpu->priv, 0, sizeof(struct vcpu_priv));
    rc = init_vcpu(vm, vm->vcpu);
    if (rc)
        goto fail;
    gpmem_set_trace_hook(vm->mem, vcpu_dma_hook, vm);
    rc = hostsig_install();
    if (rc)
        goto fail;
    *out = vm;
    return 0;
fail:
    vm_destroy(vm);
    return rc;
}

void vm_destroy(struct vm *vm)
{
    if (!vm)
        return;
    struct vcpu *v = vm->vcpu;
    acct_stop(&vm->stats.acct);
    if (v && v->priv) {
        hostsig_forget(v);
        selfcheck_destroy(v);
        direct_destroy(v->priv->direct);
        pttrace_destroy(v->pttrace);
        v->pttrace = NULL;
        window_destroy(v->priv->win64);
        window_destroy(v->priv->win32);
        cc_destroy(v->priv->cc);
        xl_destroy(v->priv->xl);
        fpu_destroy(v);
        free(v->priv);
    }
    if (v)
        munmap(v, (sizeof *v + 4095) & ~4095ul);
    if (vm->mem)
        gpmem_destroy(vm->mem);
    cpumodel_destroy(vm->cpu);
    free(vm);
}

int vm_add_memory(struct vm *vm, uint64_t gpa, uint64_t bytes, bool rom) { return gpmem_add(vm->mem, gpa, bytes, rom); }
struct gpmem *vm_memory(struct vm *vm) { return vm->mem; }
/* A block is begun from the run loop, through a jump cache (by a direct or an indirect jump, or by C: jumps), or from the block before it. */
static void take_counts(struct vm *vm)
{
    const struct vcpu *v = vm->vcpu;
    struct stats *s = &vm->stats;
    s->blocks_executed = v->count_blocks;
    s->insns_executed = v->count_insns;
    s->indirect_hits = v->count_indirect - v->count_jc_direct - s->jumps;
    s->chain_hits = v->count_blocks - s->tc_entries - s->jumps - s->indirect_hits;
}
struct stats *vm_stats(struct vm *vm)
{
    if (vm->cfg.count)
        take_counts(vm);
    return &vm->stats;
}
int vm_account_start(struct vm *vm, uint64_t start_ns) { return acct_start(&vm->stats.acct, start_ns); }
void vm_account_stop(struct vm *vm) { acct_stop(&vm->stats.acct); }
struct vcpu *vm_vcpu(struct vm *vm, unsigned index) { return index == 0 ? vm->vcpu : NULL; }
bool vm_has_window(const struct vm *vm, const char **why)
{
    if (why)
        *why = vm->vcpu->priv->window_why;
    return vm->vcpu->priv->win64 != NULL;
}
bool vm_has_direct(const struct vm *vm, const char **why)
{
    if (why)
        *why = vm->vcpu->priv->direct_why && *vm->vcpu->priv->direct_why ? vm->vcpu->priv->direct_why : NULL;
    return vm->vcpu->priv->direct != NULL;
}
struct cpumodel *vm_cpumodel(struct vm *vm) { return vm->cpu; }
struct vcpu_exit *vcpu_exit_info(struct vcpu *v) { return &v->exit; }

bool vcpu_can_inject(const struct vcpu *v) { return v->c.if_flag && !v->c.shadow && v->priv->inject_vector < 0; }

void vcpu_inject(struct vcpu *v, uint8_t vector)
{
    v->priv->inject_vector = vector;
    vcpu_set_event(v, EV_INJECT);
}

void vcpu_share_cr8(struct vcpu *v, uint64_t **cr8, uint32_t **slow)
{
    v->priv->layout.cr8_slow = ADDR(cr8_slow);
    *cr8 = &v->c.cr8;
    *slow = &v->cr8_slow;
}

void vcpu_request_intr_window(struct vcpu *v, bool on)
{
    if (on)
        vcpu_set_event(v, EV_WINDOW);
    else
        vcpu_clear_event(v, EV_WINDOW);
}

static void forget_everything(struct vcpu *v)
{
    vcpu_mmu_flush(v, MMU_FLUSH_ALL);
    v->priv->link_from = NULL;
    v->priv->io_have = false;
    v->priv->inject_vector = -1;
    /* Another thread may be kicking. */
    __atomic_and_fetch(&v->event_pending, EV_KICK | (v->intr_line ? EV_INTR : 0), __ATOMIC_SEQ_CST);
    v->nmi_pending = v->nmi_blocked = v->halted = v->shutdown = false;
}

void vcpu_reset(struct vcpu *v)
{
    sys_reset(v);
    fpu_reset(v);
    wintax_reset(v);
    forget_everything(v);
}

void vcpu_get_state(struct vcpu *v, struct cpu *out) { *out = v->c; }

int vcpu_set_state(struct vcpu *v, const struct cpu *in)
{
    v->c = *in;
    for (unsigned i = 0; i < S_COUNT; i++)
        cpu_seg_cache(&v->c.seg[i]);
    cpu_update_key(&v->c);
    if ((v->c.cr0 & CR0_PG) && (v->c.cr4 & CR4_PAE) && !(v->c.efer & EFER_LMA) && !pt_pdptes_valid(v->c.pdpte))
        return -RD_E_INVAL;
    forget_everything(v);
    return 0;
}

int vcpu_translate(struct vcpu *v, uint64_t lin, uint64_t *gpa)
{
    struct pt_result r;
    uint32_t err;
    if (pt_walk(v->mem, &v->c, lin, PT_READ | PT_PROBE, &r, &err))
        return 1;
    *gpa = r.gpa;
    return 0;
}

void vm_invalidate_code(struct vm *vm, uint64_t gpa, uint64_t bytes)
{
    vm->vcpu->priv->invalidated += cc_invalidate(vm->vcpu->priv->cc, gpa, bytes);
}

size_t vcpu_fpu_bytes(const struct vcpu *v) { return fpu_image_get((struct vcpu *)v, NULL, 0); }

int vcpu_get_fpu(struct vcpu *v, void *buf, size_t bytes)
{
    return fpu_image_get(v, buf, bytes) <= bytes ? 0 : -RD_E_RANGE;
}

int vcpu_set_fpu(struct vcpu *v, const void *buf, size_t bytes) { return fpu_image_set(v, buf, bytes); }
