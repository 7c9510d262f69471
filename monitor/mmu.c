/* monitor/mmu.c - what hangs on guest translations in the monitor: fetch TLB, jump caches, page-crossing links, code pages.
 * nofpu. */
#include "monitor/vm_int.h"

static struct itlb_entry *itlb_slot(struct vcpu *v, uint64_t lin)
{
    return &v->priv->itlb[lin >> 12 & ((1u << ITLB_BITS) - 1)];
}

bool vcpu_itlb_holds(const struct vcpu *v, const struct itlb_entry *t)
{
    return t->generation == (t->global ? v->priv->global_generation : v->priv->generation);
}

static bool code_large_page(uint64_t tag, uint64_t lin) { return ((tag ^ lin) >> (tag & 63)) == 0; }

/* Is lin in a large page that code was fetched from? */
static bool in_code_large(const struct vcpu *v, uint64_t lin)
{
    const struct vcpu_priv *p = v->priv;
    for (unsigned i = 0; i < p->n_code_large && i < CODE_LARGE_MAX; i++)
        if (code_large_page(p->code_large[i], lin))
            return true;
    return p->n_code_large > CODE_LARGE_MAX;
}

static void note_code_large(struct vcpu *v, uint64_t lin, uint64_t bytes)
{
    struct vcpu_priv *p = v->priv;
    unsigned shift = (unsigned)__builtin_ctzll(bytes);
    if (in_code_large(v, lin))
        return;
    if (p->n_code_large < CODE_LARGE_MAX)
        p->code_large[p->n_code_large] = (lin >> shift << shift) | shift;
    p->n_code_large++;
}

/* Translates an instruction fetch; remembers it until the guest flushes. 0 or SYS_FAULT. */
int vcpu_fetch(struct vcpu *v, uint64_t lin, uint64_t *gpa, uint8_t **host, bool *global)
{
    struct itlb_entry *t = itlb_slot(v, lin);
    bool user = v->c.cpl == 3;
    if (t->lin != (lin & PAGE_MASK) || t->user != user || !vcpu_itlb_holds(v, t)) {
        uint64_t g;
        uint8_t *h;
        bool gl;
        uint64_t bytes;
        int err = mem_fetch_page(v, lin, &g, &h, &gl, &bytes);
        if (err)
            return err;
        if (bytes > PAGE_SIZE)
            note_code_large(v, lin, bytes);
        uint64_t generation = gl ? v->priv->global_generation : v->priv->generation;
        *t = (struct itlb_entry){lin & PAGE_MASK, g & PAGE_MASK, generation, h ? h - (g & 0xfff) : NULL, gl, user};
        struct audit_entry e = {.lin = t->lin, .gpa = t->gpa, .global = gl, .exec = true};
        if (v->audit)
            selfcheck_entered(v, AUDIT_FETCH, &e);
    }
    *gpa = t->gpa | (lin & 0xfff);
    *host = t->host ? t->host + (lin & 0xfff) : NULL;
    *global = t->global;
    return 0;
}

static void flush_jc(struct vcpu *v, unsigned i)
{
    if (v->priv->jc_used[i])
        jc_flush(&v->jc[i]);
    v->priv->jc_used[i] = v->priv->jc_fleeting[i] = v->priv->jc_lasting[i] = false;
    if (!v->priv->jc_used[!i])
        for (unsigned k = 0; k < 128; k++)
            v->priv->jc_pages[k] = 0;
}

/* Kernels and programs do not share notes: they lie in different halves of the address space. */
static unsigned note_of(uint64_t lin)
{
    unsigned upper = lin >> 63 || (!(lin >> 32) && lin >> 31);
    return 64 * upper + (lin >> 18 & 63);
}
static void note_page(struct vcpu *v, uint64_t lin) { v->priv->jc_pages[note_of(lin)] |= 1ull << (lin >> 12 & 63); }
static bool page_noted(const struct vcpu *v, uint64_t lin)
{
    return v->priv->jc_pages[note_of(lin)] >> (lin >> 12 & 63) & 1;
}

/* Blocks on this page, and those that begin on the one before and run into it. */
static void drop_page(struct vcpu *v, uint64_t lin)
{
    const uint64_t into = 15; /* bytes an instruction may have on the page before: XL_TOO_LONG */
    for (unsigned i = 0; i < 2; i++) {
        bool wide = v->priv->jc_key[i] & CPU_KEY_CODE64;
        uint64_t mask = wide ? ~0ull : 0xffffffffull, base = wide ? 0 : v->priv->jc_cs_base[i];
        uint64_t rip = ((lin & PAGE_MASK) - base - into) & mask;
        if (v->priv->jc_used[i])
            jc_drop_range(&v->jc[i], rip, PAGE_SIZE + into, mask);
    }
}

/* An indirect branch (or a direct one to a page that may be remapped) may go straight to b from now on. */
void vcpu_jc_enter(struct vcpu *v, const struct cc_block *b, bool global)
{
    unsigned i = v->c.cpl == 3;
    uint64_t lin = b->key.rip + b->key.cs_base;
    jc_fill(&v->jc[i], b->key.rip, b->d.entry_indirect_pc);
    v->priv->jc_used[i] = true;
    v->priv->jc_fleeting[i] |= !global;
    v->priv->jc_lasting[i] |= global;
    note_page(v, lin);
    if (b->phys2 != ~0ull)
        note_page(v, lin + PAGE_SIZE);
    v->stats->indirect_fills++;
}

/* The jump cache of the current privilege holds blocks of one mode and CS base only. */
void vcpu_jc_check(struct vcpu *v, uint32_t mode)
{
    unsigned i = v->c.cpl == 3;
    struct vcpu_priv *p = v->priv;
    const struct seg *cs = &v->c.seg[S_CS];
    uint32_t limit = mode & CPU_KEY_CODE64 ? 0 : cs->limit;
    if (p->jc_key[i] == mode && p->jc_cs_base[i] == cs->base && p->jc_cs_limit[i] == limit)
        return;
    flush_jc(v, i);
    p->jc_key[i] = mode;
    p->jc_cs_base[i] = cs->base;
    p->jc_cs_limit[i] = limit;
}

void vcpu_jc_park(struct vcpu *v, struct pcid_park *k)
{
    struct vcpu_priv *p = v->priv;
    k->jc.n = 0;
    k->jc_key = p->jc_key[1];
    k->jc_cs_base = p->jc_cs_base[1];
    k->jc_cs_limit = p->jc_cs_limit[1];
    if (p->jc_lasting[1]) /* INVLPG of a page that is global is for all address spaces */
        flush_jc(v, 1);
    if (p->jc_used[1])
        jc_park(&v->jc[1], &k->jc);
    p->jc_used[1] = p->jc_fleeting[1] = false;
}

/* The jump cache of user code is empty. */
void vcpu_jc_unpark(struct vcpu *v, struct pcid_park *k)
{
    struct vcpu_priv *p = v->priv;
    p->jc_key[1] = k->jc_key;
    p->jc_cs_base[1] = k->jc_cs_base;
    p->jc_cs_limit[1] = k->jc_cs_limit;
    p->jc_used[1] = p->jc_fleeting[1] = k->jc.n != 0;
    for (unsigned i = 0; i < k->jc.n; i++) { /* any may run on into the next page */
        uint64_t lin = (uint64_t)-k->jc.entry[i].tag + k->jc_cs_base;
        note_page(v, lin);
        note_page(v, lin + PAGE_SIZE);
    }
    jc_unpark(&v->jc[1], &k->jc);
}

/* What there is of the current address space goes; with all, of every one, and what is global too. */
static void flush_tlbs(struct vcpu *v, bool all)
{
    struct vcpu_priv *p = v->priv;
    for (unsigned i = 0; i < 2; i++) {
        if (all)
            softtlb_flush_all(&v->tlb[i]);
        else
            softtlb_flush_nonglobal(&v->tlb[i]);
        if (all || p->jc_fleeting[i])
            flush_jc(v, i);
    }
    p->generation = ++p->last_generation;
    if (!all)
        return;
    p->global_generation = ++p->last_generation;
    pcid_forget_all(v);
    pcid_take_cr3(v);
    cc_unlink_cross(p->cc, ~0ull);
    p->n_code_large = 0;
}

/* ... from what does not tell address spaces apart. */
static void flush_others(struct vcpu *v, bool all)
{
    struct vcpu_priv *p = v->priv;
    if (p->win64)
        window_flush(p->win64, all);
    if (p->win32)
        window_flush(p->win32, all);
    if (p->direct)
        direct_cr3_loaded(v);
    pttrace_flush(v, all);
    wintax_flush(v);
}

void vcpu_mmu_flush(struct vcpu *v, enum mmu_flush what)
{
    direct_stop(v);
    v->stats->tlb_flushes++;
    flush_tlbs(v, what == MMU_FLUSH_ALL);
    flush_others(v, what == MMU_FLUSH_ALL);
    if (v->audit)
        selfcheck_flushed(v, what == MMU_FLUSH_ALL ? AUDIT_FLUSH_ALL : AUDIT_FLUSH_NONGLOBAL, 0);
}

void vcpu_mmu_cr3(struct vcpu *v, bool keep)
{
    direct_stop(v);
    uint16_t from = v->priv->pcids.current, to = pcid_of_cr3(v);
    keep &= !v->pttrace; /* trap and emulate knows no address spaces but the current one */
    if (to == from) {
        if (!pcid_take_cr3(v) || !keep)
            vcpu_mmu_flush(v, MMU_FLUSH_NONGLOBAL);
        return;
    }
    pcid_leave(v);
    flush_tlbs(v, false); /* kernel code that is not global */
    pcid_enter(v, keep);
    v->stats->tlb_flushes += !keep;
    flush_others(v, false);
    if (v->audit)
        selfcheck_switched(v, to, keep);
}

void vcpu_mmu_invpcid(struct vcpu *v, uint16_t pcid)
{
    direct_stop(v);
    if (pcid == v->priv->pcids.current) {
        vcpu_mmu_flush(v, MMU_FLUSH_NONGLOBAL);
        return;
    }
    pcid_forget(v, pcid);
    if (v->audit)
        selfcheck_flushed_pcid(v, pcid);
}

void vcpu_mmu_flush_pcids(struct vcpu *v)
{
    pcid_forget_all(v);
    vcpu_mmu_flush(v, MMU_FLUSH_NONGLOBAL);
    if (v->audit)
        selfcheck_flushed_pcid(v, AUDIT_PCIDS);
}

static void invlpg(struct vcpu *v, uint64_t lin)
{
    direct_stop(v);
    softtlb_flush_page(&v->tlb[0], lin);
    softtlb_flush_page(&v->tlb[1], lin);
    /* A large page is one translation to the guest, many entries here, and INVLPG may name any address in it (SDM 3A 4.10.4.1). */
    bool large = in_code_large(v, lin);
    unsigned shift = large ? 30 : 12;
    for (unsigned i = 0; i < 1u << ITLB_BITS; i++)
        if ((v->priv->itlb[i].lin ^ lin) >> shift == 0)
            v->priv->itlb[i].generation = 0; /* never one */
    if (v->priv->direct)
        direct_invlpg(v, lin);
    if (v->priv->win64)
        window_invalidate(v->priv->win64, lin);
    if (v->priv->win32)
        window_invalidate(v->priv->win32, lin);
    if (large) {
        flush_jc(v, 0);
        flush_jc(v, 1);
    } else if (page_noted(v, lin)) {
        drop_page(v, lin);
    }
    cc_unlink_cross(v->priv->cc, large ? ~0ull : lin);
}

void vcpu_mmu_invlpg(struct vcpu *v, uint64_t lin)
{
    if (!v->audit || !selfcheck_sabotages(v, lin))
        invlpg(v, lin);
    if (v->audit)
        selfcheck_flushed(v, AUDIT_FLUSH_PAGE, lin);
}

/* Nobody may write to this page unnoticed from now on. */
void vcpu_trace_page(struct vcpu *v, uint64_t gpa, uint8_t why)
{
    uint8_t *f = gpmem_page_flags(v->mem, gpa);
    if (!f || (*f & why))
        return;
    *f |= why;
    if (*f & GP_WORLD) {
        direct_protect(v, gpa);
        *f &= (uint8_t)~GP_WORLD;
    }
    softtlb_protect(&v->tlb[0], gpmem_ptr(v->mem, gpa & PAGE_MASK));
    softtlb_protect(&v->tlb[1], gpmem_ptr(v->mem, gpa & PAGE_MASK));
    pcid_protect(v, gpmem_ptr(v->mem, gpa & PAGE_MASK));
    if (v->priv->win64)
        window_protect(v->priv->win64, gpa);
    if (v->priv->win32)
        window_protect(v->priv->win32, gpa);
}

void vcpu_mark_code(struct vcpu *v, uint64_t gpa) { vcpu_trace_page(v, gpa, GP_CODE); }

static void code_written(struct vcpu *v, uint64_t gpa, uint64_t bytes)
{
    uint8_t *f = gpmem_page_flags(v->mem, gpa);
    if (!f || !(*f & GP_CODE))
        return;
    v->priv->invalidated += cc_invalidate(v->priv->cc, gpa, bytes);
    if (!cc_page_has_code(v->priv->cc, gpa))
        *f &= (uint8_t)~GP_CODE;
}

void vcpu_trace_write_page(struct vcpu *v, uint64_t gpa) { code_written(v, gpa & PAGE_MASK, PAGE_SIZE); }
void vcpu_trace_write(struct vcpu *v, uint64_t gpa, unsigned bytes)
{
    code_written(v, gpa, bytes);
    pttrace_written(v, gpa, bytes);
}

void vcpu_dma_hook(void *opaque, uint64_t gpa, size_t bytes)
{
    struct vm *vm = opaque;
    if (vm->vcpu)
        code_written(vm->vcpu, gpa, bytes);
}

/* A block dies: the jump caches must not lead to it. */
void vcpu_drop_block(void *opaque, struct cc_block *b)
{
    struct vcpu *v = opaque;
    jc_drop(&v->jc[0], b->key.rip);
    jc_drop(&v->jc[1], b->key.rip);
    pcid_drop_blocks(v);
    if (v->priv->link_from == b)
        v->priv->link_from = NULL;
    if (v->priv->enter_block == b)
        v->priv->enter_block = NULL;
}
