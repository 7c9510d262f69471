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

static int leave(struct vcpu *v, uint64_t ret_pc, int code)
{
    tc_recover(v, ret_pc);
    return code;
}

/* Linear address of the access, with every segment check. */
static int site_linear(struct vcpu *v, uint64_t desc, uint64_t addr, unsigned size, uint64_t *lin)
{
    unsigned seg = XL_SITE_SEG(desc), how = how_flags(desc);
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

static int align_fault(struct vcpu *v, uint64_t desc, uint64_t lin, unsigned size)
{
    if ((desc & XL_SITE_ALIGN) && (lin & (size - 1)))
        return sys_fault_err(v, EXC_GP, 0);
    return 0;
}

int tc_site_miss(struct vcpu *v, uint64_t ret_pc)
{
    uint64_t desc = v->site, lin, gpa;
    unsigned size = XL_SITE_SIZE(desc), how = how_flags(desc);
    uint64_t *s1 = saved_reg(v, XL_SITE_S1(desc), desc);
    uint8_t *host;
    v->stats->site_slow++;
    if (site_linear(v, desc, *s1, size, &lin) || align_fault(v, desc, lin, size))
        return leave(v, ret_pc, TC_EXIT_FAULT);
    if ((lin & 0xfff) + size > PAGE_SIZE || (desc & XL_SITE_MASKED))
        return leave(v, ret_pc, TC_EXIT_CAREFUL);
    if (mem_translate(v, lin, how, &gpa, &host))
        return leave(v, ret_pc, TC_EXIT_FAULT);
    uint8_t *flags = gpmem_page_flags(v->mem, gpa);
    if (!host || ((how & (MEM_W | MEM_RW)) && (*flags & GP_TRACED_MASK)) || mem_page_watched(v, lin))
        return leave(v, ret_pc, TC_EXIT_CAREFUL);
    v->stats->site_fill++;
    *saved_reg(v, XL_SITE_S2(desc), desc) = (uint64_t)(uintptr_t)host - *s1;
    return 0;
}

/* ---- callout strategy ---- */

static int bounce_in(struct vcpu *v, struct bounce *b)
{
    unsigned how = b->how & MEM_RW ? MEM_RW : MEM_R;
    uint8_t *buf = b->buf + (b->lin & 63);
    /* A pure write only has to be allowed; reading a device first would be wrong. */
    if (b->how & MEM_W)
        return mem_probe(v, b->lin, b->size, MEM_W);
    return mem_read(v, b->lin, buf, b->size, how);
}

int tc_site_pre(struct vcpu *v, uint64_t ret_pc)
{
    uint64_t desc = v->site, lin;
    unsigned size = XL_SITE_SIZE(desc), how = how_flags(desc);
    struct bounce *b = &v->priv->bounce;
    uint64_t *s1 = saved_reg(v, XL_SITE_S1(desc), desc), *s2 = saved_reg(v, XL_SITE_S2(desc), desc);
    b->write = false;
    v->stats->site_bounce++;
    if (site_linear(v, desc, *s1, size, &lin) || align_fault(v, desc, lin, size) || mem_check_align(v, lin, size, how))
        return leave(v, ret_pc, TC_EXIT_FAULT);
    if ((lin & 0xfff) + size <= PAGE_SIZE && !(v->c.key & CPU_KEY_AC)) {
        int fault;
        uint8_t *host = mem_direct(v, lin, how, &fault);
        if (fault)
            return leave(v, ret_pc, TC_EXIT_FAULT);
        if (host) {
            *s1 = (uint64_t)(uintptr_t)host;
            *s2 = 0;
            return 0;
        }
    }
    b->lin = lin;
    b->size = size;
    b->how = how;
    int err = bounce_in(v, b);
    if (err)
        return leave(v, ret_pc, err == SYS_FAULT ? TC_EXIT_FAULT : TC_EXIT_OUT);
    b->write = how & (MEM_W | MEM_RW);
    *s1 = (uint64_t)(uintptr_t)(b->buf + (lin & 63));
    *s2 = 0;
    fpu_enter(v);
    return 0;
}

/* The instruction is done. Leaving is possible only in front of the next one, whose rip the recovery point has; a careful
 * block ends here anyway, and branches have not set rip yet: then the run loop looks at deferred_out. */
int tc_site_post(struct vcpu *v, uint64_t ret_pc)
{
    struct bounce *b = &v->priv->bounce;
    if (!b->write)
        return 0;
    b->write = false;
    int err = mem_write(v, b->lin, b->buf + (b->lin & 63), b->size, b->how & MEM_RW ? MEM_RW : MEM_W);
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
