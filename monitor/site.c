/* monitor/site.c - the slow half of a memory site: soft TLB misses and the callout strategy. nofpu.
 *
 * Called by glue on the host stack with all guest registers saved; registers that are scratch at this point hold translator
 * values, the guest's are in c.spill[] (tc_recover puts them back, and is needed only on the ways out).
 */
#include "monitor/vm_int.h"

static uint64_t *saved_reg(struct vcpu *v, unsigned r, uint64_t desc)
{
    return r < 8 || (desc & XL_SITE_64) ? &v->c.gpr[r] : &v->c.hscratch[r - 8];
}

struct cc_block *tc_recover(struct vcpu *v, uint64_t pc)
{
    struct cc_block *b = cc_find(v->priv->cc, pc);
    const struct ccf_point *p = b ? cc_find_point(b, pc) : NULL;
    if (!p)
        return NULL;
    for (unsigned m = p->spilled; m; m &= m - 1) {
        unsigned r = (unsigned)__builtin_ctz(m);
        v->c.gpr[r] = v->c.spill[r];
    }
    v->c.rip = b->key.rip + p->guest_off;
    if (!(b->key.mode & CPU_KEY_CODE64))
        v->c.rip = (uint32_t)v->c.rip;
    return b;
}

static unsigned how_flags(uint64_t desc)
{
    static const uint8_t how[] = {MEM_R, MEM_W, MEM_RW, MEM_R};
    return how[XL_SITE_HOW(desc)];
}

static bool x87_pending(struct vcpu *v)
{
    uint16_t fsw;
    if (v->fpu_live)
        __asm__ volatile("fnstsw %0" : "=m"(fsw));
    else
        fsw = (uint16_t)(v->xsave[FPU_FSW] | v->xsave[FPU_FSW + 1] << 8);
    return fsw & 0x80; /* ES */
}

/* A store of an MMX register that faults has made 0 the top of the x87 stack all the same (seen on the CPU). */
static void reset_x87_top(struct vcpu *v)
{
    uint8_t st[128];
    fpu_leave(v);
    fpu_image_own(v, XCR0_X87);
    uint8_t *x = v->xsave;
    unsigned top = x[FPU_FSW + 1] >> 3 & 7;
    for (unsigned i = 0; i < sizeof st; i++)
        st[(i + 16 * top) % sizeof st] = x[FPU_ST + i];
    for (unsigned i = 0; i < sizeof st; i++)
        x[FPU_ST + i] = st[i];
    x[FPU_FSW + 1] &= 0xc7;
}

static int leave(struct vcpu *v, uint64_t ret_pc, int code)
{
    tc_recover(v, ret_pc);
    if (code != TC_EXIT_FAULT)
        return code;
    if ((v->site & XL_SITE_X87) && x87_pending(v))
        sys_fault(v, EXC_MF);
    else if (v->site & XL_SITE_MMX)
        reset_x87_top(v);
    return code;
}

/* Linear address of the access, with every segment check. */
static int site_linear(struct vcpu *v, uint64_t desc, uint64_t addr, unsigned size, uint64_t *lin)
{
    unsigned seg = XL_SITE_SEG(desc), how = how_flags(desc);
    if ((desc & XL_SITE_FLUSH) && (v->c.seg[seg].attr & SEG_CODE))
        how = MEM_X;
    if (desc & XL_SITE_OFFSET)
        return mem_linear(v, seg, addr, size, how, lin);
    if (desc & XL_SITE_64) {
        *lin = addr;
        if (x86_is_canonical(addr) && x86_is_canonical(addr + size - 1))
            return 0;
        return sys_fault_err(v, seg == S_SS ? EXC_SS : EXC_GP, 0);
    }
    return mem_linear(v, seg, (uint32_t)(addr - v->c.seg[seg].base), size, how, lin);
}

/* A misaligned operand that must be aligned: #GP(0) before anything else is looked at, also #SS. */
static int align_fault(struct vcpu *v, uint64_t desc, uint64_t addr, unsigned size)
{
    unsigned seg = XL_SITE_SEG(desc);
    if (!(desc & XL_SITE_ALIGN))
        return 0;
    if ((desc & XL_SITE_OFFSET) && (!(desc & XL_SITE_64) || seg == S_FS || seg == S_GS))
        addr += v->c.seg[seg].base;
    return addr & (size - 1) ? sys_fault_err(v, EXC_GP, 0) : 0;
}

int tc_site_miss(struct vcpu *v, uint64_t ret_pc)
{
    uint64_t desc = v->site, lin, gpa;
    unsigned size = XL_SITE_SIZE(desc), how = how_flags(desc);
    uint64_t *s1 = saved_reg(v, XL_SITE_S1(desc), desc);
    uint8_t *host;
    v->stats->site_slow++;
    /* A masked access that is not possible as a whole may be so without what is masked off, and some instructions do
     * something before they fault: the careful path knows. */
    int on_fault = desc & (XL_SITE_MASKED | XL_SITE_LATE) ? TC_EXIT_CAREFUL : TC_EXIT_FAULT;
    if (align_fault(v, desc, *s1, size) || site_linear(v, desc, *s1, size, &lin))
        return leave(v, ret_pc, on_fault);
    /* The window site itself goes no further when its segment check fails: expand-down segments come here. */
    if ((desc & XL_SITE_DIRECT) || (lin & 0xfff) + size > PAGE_SIZE)
        return leave(v, ret_pc, TC_EXIT_CAREFUL);
    if (mem_translate(v, lin, how, &gpa, &host))
        return leave(v, ret_pc, on_fault);
    uint8_t *flags = gpmem_page_flags(v->mem, gpa);
    if (!host || ((how & (MEM_W | MEM_RW)) && (*flags & GP_TRACED_MASK)) || mem_page_watched(v, lin))
        return leave(v, ret_pc, TC_EXIT_CAREFUL);
    v->stats->site_fill++;
    *saved_reg(v, XL_SITE_S2(desc), desc) = (uint64_t)(uintptr_t)host - *s1;
    return 0;
}

/* ---- callout strategy ---- */

/* The next run of needed bytes at or after *at; false if there is none. */
static bool next_run(const struct bounce *b, unsigned *at, unsigned *bytes)
{
    if (b->need == ~0ull) {
        *bytes = b->size;
        return *at == 0;
    }
    if (*at >= 64 || !(b->need >> *at))
        return false;
    *at += (unsigned)__builtin_ctzll(b->need >> *at);
    uint64_t rest = ~(b->need >> *at);
    *bytes = (unsigned)__builtin_ctzll(rest); /* not 64: then need would be ~0 */
    return true;
}

/* Part of the operand is masked off: only the rest is checked and read. */
static int bounce_masked(struct vcpu *v, struct bounce *b)
{
    uint64_t lin, all = b->addr;
    if (b->need && align_fault(v, b->desc, b->addr, b->size))
        return SYS_FAULT;
    if (!(b->desc & XL_SITE_64) || XL_SITE_SEG(b->desc) >= S_FS)
        all += v->c.seg[XL_SITE_SEG(b->desc)].base;
    /* Does not depend on the mask, but for a broadcast that is not made. */
    bool none = !b->need && XL_MASK_ELEMENTS(v->op_imm) == 1 && XL_MASK_BITS(v->op_imm) > 1;
    if (!none && mem_check_align(v, all, b->size, b->how))
        return SYS_FAULT;
    for (unsigned at = 0, n; next_run(b, &at, &n); at += n) {
        int err = site_linear(v, b->desc, b->addr + at, n, &lin);
        if (!err && (b->how & MEM_W))
            err = mem_probe(v, lin, n, MEM_W | MEM_UNALIGNED);
        else if (!err)
            err = mem_read(v, lin, b->buf + at, n, b->how | MEM_UNALIGNED);
        if (err)
            return err;
    }
    return 0;
}

/* *at = where the instruction finds its operand. */
static int bounce_whole(struct vcpu *v, struct bounce *b, uint8_t **at)
{
    uint64_t lin;
    if (align_fault(v, b->desc, b->addr, b->size) || site_linear(v, b->desc, b->addr, b->size, &lin) ||
        mem_check_align(v, lin, b->size, b->how))
        return SYS_FAULT;
    if ((lin & 0xfff) + b->size <= PAGE_SIZE && !(v->c.key & CPU_KEY_AC)) {
        int fault;
        uint8_t *host = mem_direct(v, lin, b->how, &fault);
        if (fault)
            return fault;
        if (host) {
            b->write = false;
            *at = host;
            return 0;
        }
    }
    *at = b->buf + (lin & 63);
    /* A pure write only has to be allowed; reading a device first would be wrong. */
    if (b->how & MEM_W)
        return mem_probe(v, lin, b->size, MEM_W);
    return mem_read(v, lin, *at, b->size, b->how);
}

static int prepare(struct vcpu *v, uint64_t ret_pc, struct bounce *b, uint8_t **at)
{
    *at = b->buf;
    if (b->desc & XL_SITE_LATE) {
        const struct cc_block *blk = cc_find(v->priv->cc, ret_pc);
        b->rip = blk->key.rip + cc_find_point(blk, ret_pc)->guest_off;
        if (b->desc & XL_SITE_X87) /* the image is then what the x87 goes back to */
            fpu_leave(v);
        return 0;
    }
    return b->need == ~0ull ? bounce_whole(v, b, at) : bounce_masked(v, b);
}

int tc_site_pre(struct vcpu *v, uint64_t ret_pc)
{
    uint64_t desc = v->site, *s1 = saved_reg(v, XL_SITE_S1(desc), desc);
    struct bounce *b = &v->priv->bounce;
    uint8_t *at;
    v->stats->site_bounce++;
    b->desc = desc;
    b->addr = *s1;
    b->size = XL_SITE_SIZE(desc);
    b->how = how_flags(desc);
    b->write = b->how & (MEM_W | MEM_RW);
    b->need = ~0ull;
    if (desc & XL_SITE_MASKED) {
        uint64_t all = b->size < 64 ? (1ull << b->size) - 1 : ~0ull, need = site_mask_bytes(v, (uint32_t)v->op_imm);
        if (need != all)
            b->need = need;
    }
    int err = prepare(v, ret_pc, b, &at);
    if (err) {
        b->write = false;
        return leave(v, ret_pc, err == SYS_FAULT ? TC_EXIT_FAULT : TC_EXIT_OUT);
    }
    *s1 = (uint64_t)(uintptr_t)at;
    *saved_reg(v, XL_SITE_S2(desc), desc) = 0;
    fpu_enter(v);
    return 0;
}

/* The new contents go to the guest. */
static int bounce_out(struct vcpu *v, struct bounce *b)
{
    uint64_t lin;
    unsigned how = b->need == ~0ull ? b->how | MEM_W : MEM_W | MEM_UNALIGNED;
    int err = 0;
    for (unsigned at = 0, n; (b->desc & XL_SITE_LATE) && next_run(b, &at, &n); at += n)
        if (site_linear(v, b->desc, b->addr + at, n, &lin) || mem_probe(v, lin, n, how))
            return SYS_FAULT;
    for (unsigned at = 0, n; !err && next_run(b, &at, &n); at += n) {
        err = site_linear(v, b->desc, b->addr + at, n, &lin);
        bool moved = b->need == ~0ull && !(b->desc & XL_SITE_LATE);
        err = err ? err : mem_write(v, lin, b->buf + (moved ? lin & 63 : at), n, how);
    }
    return err;
}

/* The instruction is done. Leaving is possible only in front of the next one, whose rip the recovery point has; a careful
 * block ends here anyway, and branches have not set rip yet: then the run loop looks at deferred_out. */
int tc_site_post(struct vcpu *v, uint64_t ret_pc)
{
    struct bounce *b = &v->priv->bounce;
    if (!b->write)
        return 0;
    b->write = false;
    /* An unmasked exception: the x87 has not stored. */
    if ((b->desc & XL_SITE_LATE) && (b->desc & XL_SITE_X87) && x87_pending(v))
        return 0;
    int err = bounce_out(v, b);
    if (err == SYS_FAULT) { /* XL_SITE_LATE only: of the others everything has been checked before */
        tc_recover(v, ret_pc);
        v->c.rip = b->rip;
        if (b->desc & XL_SITE_X87)
            fpu_discard(v);
        return TC_EXIT_FAULT;
    }
    if (err) {
        v->priv->deferred_out = true;
        v->priv->io_restart = false; /* the instruction has happened */
    }
    struct cc_block *blk = cc_find(v->priv->cc, ret_pc);
    if (!(blk->key.mode & CPU_KEY_CAREFUL) && (err || v->priv->invalidated || vcpu_deliverable(v)))
        return leave(v, ret_pc, TC_EXIT_DISPATCH);
    fpu_enter(v);
    return 0;
}
