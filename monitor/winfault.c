/* monitor/winfault.c - a host fault at a site of the window: hidden fault, true fault, or a site that must not use the window.
 *
 * Runs in the signal handler; generated code was interrupted at the access itself, so the tables it reads are at rest. It never
 * emulates: it maps and resumes, or says what the run loop shall do (enum fault_action).
 */
#include "monitor/vm_int.h"
#include "shadowmmu/ptwalk.h"

/* Several pages at once, where the guest's tables have them side by side. */
#define AROUND 8u

static enum fault_action soften(struct vcpu *v, uint64_t phys, enum xl_strategy s)
{
    v->stats->window_softened += !v->vm->cfg.no_adapt;
    v->priv->soften_phys = phys;
    v->priv->soften_strategy = s;
    return FA_SOFTEN;
}

static enum window_status enter(struct vcpu *v, struct window *w, uint64_t lin, const struct pt_result *r)
{
    enum window_status st = window_map(w, lin, r->gpa, r->page_bytes, r->writable && r->dirty, r->global);
    struct audit_entry e = {.lin = lin & PAGE_MASK, .global = r->global};
    if (v->audit && st == WINDOW_OK && window_lookup(w, lin, &e.gpa, &e.write))
        selfcheck_entered(v, w == v->priv->win64 ? AUDIT_WIN64 : AUDIT_WIN32, &e);
    return st;
}

/* Small pages behind the one that faulted are likely to be wanted too. */
static void map_around(struct vcpu *v, struct window *w, uint64_t lin)
{
    for (unsigned i = 1; i < AROUND; i++) {
        struct pt_result r;
        uint32_t err;
        uint64_t next = (lin & PAGE_MASK) + (uint64_t)i * PAGE_SIZE;
        if ((next ^ lin) >> 16 || window_has(w, next, false) || pt_walk(v->mem, &v->c, next, PT_READ, &r, &err))
            return;
        const struct gpmem_slot *s = gpmem_find(v->mem, r.gpa);
        if ((r.user && (v->c.cr0 & CR0_PG)) || !s || enter(v, w, next, &r) != WINDOW_OK)
            return;
    }
}

static enum fault_action map_page(struct vcpu *v, struct window *w, uint64_t lin, bool write, uint64_t phys)
{
    struct pt_result r;
    uint32_t err;
    if (pt_walk(v->mem, &v->c, lin, write ? PT_WRITE : PT_READ, &r, &err)) {
        v->stats->window_true++;
        v->fault = (struct guest_fault){.vector = EXC_PF, .has_error = true, .error = err, .cr2 = lin};
        return FA_RAISE;
    }
    const struct gpmem_slot *s = gpmem_find(v->mem, r.gpa);
    if (r.user && (v->c.cr0 & CR0_PG)) /* changes with every CR3 load; user worlds hold those */
        return soften(v, phys, XL_SITE_SOFT);
    if (!s || (s->rom && write)) {
        v->stats->trap_mmio += v->pttrace != NULL;
        return v->pttrace ? FA_CAREFUL : soften(v, phys, XL_SITE_CALLOUT);
    }
    if (v->priv->tax.too_high && !r.global)
        return soften(v, phys, XL_SITE_SOFT);
    pttrace_note(v, lin, &r);
    if (write && (s->flags[(r.gpa - s->gpa) >> 12] & GP_TRACED_MASK))
        return FA_CAREFUL;
    switch (enter(v, w, lin, &r)) {
    case WINDOW_OK: break;
    case WINDOW_CONFLICT: v->stats->window_conflicts++; return soften(v, phys, XL_SITE_SOFT);
    default: return soften(v, phys, XL_SITE_SOFT);
    }
    if (r.page_bytes == PAGE_SIZE && !v->pttrace)
        map_around(v, w, lin);
    v->stats->window_hidden++;
    if (!r.global)
        wintax_fault(v);
    return FA_RESUME;
}

/* 64-bit code in the upper half has the wide window; low 64-bit code has the 4 GiB one like 16/32-bit code, without truncation:
 * what is beyond is softened when it faults. */
static struct window *window_of(const struct vcpu *v, uint32_t mode)
{
    return (mode & CPU_KEY_CODE64) && !(mode & CPU_KEY_LOW) ? v->priv->win64 : v->priv->win32;
}

enum fault_action window_fault(struct vcpu *v, const struct cc_block *b, uint64_t pc, int trap, uint64_t addr,
                               bool write)
{
    struct window *w = window_of(v, b->key.mode);
    const struct ccf_point *at = cc_find_point(b, pc);
    uint64_t lin;
    bool alone;
    if (!w || !at || (b->key.mode & (CPU_KEY_CPL | CPU_KEY_STEP | CPU_KEY_CAREFUL)))
        return FA_GUEST;
    uint64_t phys = b->key.phys + at->guest_off;
    if (site_strategy(v, phys, &alone) != XL_SITE_WINDOW)
        return FA_GUEST;
    /* #GP: an address that is not canonical once GS is added (the guest's lower half), or the guest's own #GP, which comes
     * again without the window. */
    if (trap == EXC_GP || trap == EXC_SS || trap == EXC_UD) /* #UD: a string instruction that runs backwards */
        return soften(v, phys, XL_SITE_SOFT);
    if (trap != EXC_PF)
        return FA_GUEST;
    if (!window_linear(w, addr, &lin) || (w == v->priv->win32 && lin >> 32)) /* or runs over 4 GiB */
        return soften(v, phys, XL_SITE_SOFT);
    return map_page(v, w, lin, write, phys);
}

/* GS base for blocks of this mode. nofpu is not needed: one instruction. */
void window_switch(struct vcpu *v, uint32_t mode)
{
    const struct window *w = window_of(v, mode);
    uint64_t base = w ? window_base(w) : 0;
    if (!w || v->gs_base == base)
        return;
    __asm__ volatile("wrgsbase %0" : : "r"(base));
    v->gs_base = base;
    v->gs_base_neg = -base;
}

/* May blocks of this mode have window sites? */
bool window_usable(const struct vcpu *v, uint32_t mode)
{
    return !(mode & (CPU_KEY_CPL | CPU_KEY_STEP | CPU_KEY_CAREFUL | CPU_KEY_AC)) && window_of(v, mode) &&
           !v->priv->tax.too_high;
}
