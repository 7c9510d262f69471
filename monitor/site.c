/* monitor/site.c - the slow half of a memory site: soft TLB misses, and what the callout strategy (bounce.c) shares. nofpu.
 *
 * Called by glue on the host stack with all guest registers saved; registers that are scratch at this point hold translator
 * values, the guest's are in c.spill[] (tc_recover puts them back, and is needed only on the ways out).
 */
#include "monitor/site_int.h"

struct cc_block *tc_recover(struct vcpu *v, uint64_t pc)
{
    struct cc_block *b = cc_find(v->priv->cc, pc);
    const struct ccf_point *p = b ? cc_find_point(b, pc) : NULL;
    if (!p)
        return NULL;
    bool host = p->spilled & CCF_STRING;
    for (unsigned m = p->spilled & ~CCF_STRING; m; m &= m - 1) {
        unsigned r = (unsigned)__builtin_ctz(m);
        if (host && (r == R_RDI || r == R_RSI))
            v->c.gpr[r] =
                b->key.mode & CPU_KEY_CODE64 ? v->c.gpr[r] - v->gs_base : (uint32_t)(v->c.gpr[r] - v->gs_base);
        else
            v->c.gpr[r] = v->c.spill[r];
    }
    v->c.rip = b->key.rip + p->guest_off;
    if (!(b->key.mode & CPU_KEY_CODE64))
        v->c.rip = (uint32_t)v->c.rip;
    return b;
}

uint16_t site_fsw(struct vcpu *v)
{
    uint16_t fsw;
    if (v->fpu_live)
        __asm__ volatile("fnstsw %0" : "=m"(fsw));
    else {
        fpu_bring(v);
        fsw = (uint16_t)(v->xsave[FPU_FSW] | v->xsave[FPU_FSW + 1] << 8);
    }
    return fsw;
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

int site_leave(struct vcpu *v, uint64_t ret_pc, int code)
{
    tc_recover(v, ret_pc);
    if (code != TC_EXIT_FAULT)
        return code;
    if ((v->site & XL_SITE_X87) && (site_fsw(v) & 0x80)) /* ES: a pending exception comes first */
        sys_fault(v, EXC_MF);
    else if (v->site & XL_SITE_MMX)
        reset_x87_top(v);
    return code;
}

int site_linear(struct vcpu *v, uint64_t desc, uint64_t addr, unsigned size, uint64_t *lin)
{
    unsigned seg = XL_SITE_SEG(desc), how = site_how(desc);
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

int site_align(struct vcpu *v, uint64_t desc, uint64_t addr, unsigned size)
{
    unsigned seg = XL_SITE_SEG(desc);
    if (!(desc & XL_SITE_ALIGN))
        return 0;
    if ((desc & XL_SITE_OFFSET) && (!(desc & XL_SITE_64) || seg == S_FS || seg == S_GS))
        addr += v->c.seg[seg].base;
    return addr & (size - 1) ? sys_fault_err(v, EXC_GP, 0) : 0;
}

/* The page is translated: fills s2. False: not a page that generated code may access by itself. */
static bool fill_site(struct vcpu *v, uint64_t desc, uint64_t lin, uint64_t gpa, const uint8_t *host)
{
    bool write = site_how(desc) & (MEM_W | MEM_RW);
    if (!host || (write && (*gpmem_page_flags(v->mem, gpa) & GP_TRACED_MASK)) || mem_page_watched(v, lin))
        return false;
    v->stats->site_fill++;
    *site_reg(v, XL_SITE_S2(desc), desc) = (uint64_t)(uintptr_t)host - *site_reg(v, XL_SITE_S1(desc), desc);
    return true;
}

/* A group of sites (translator/xl_group.c): the whole range or nothing. */
static int group_miss(struct vcpu *v, uint64_t ret_pc, uint64_t desc)
{
    uint64_t lin, gpa, addr = *site_reg(v, XL_SITE_S1(desc), desc);
    unsigned size = (unsigned)v->op_imm;
    uint8_t *host;
    bool there = !site_linear(v, desc, addr, size, &lin) && (lin & 0xfff) + size <= PAGE_SIZE &&
                 !mem_translate(v, lin, site_how(desc), &gpa, &host);
    return there && fill_site(v, desc, lin, gpa, host) ? 0 : site_leave(v, ret_pc, TC_EXIT_ALONE);
}

static int site_miss(struct vcpu *v, uint64_t ret_pc)
{
    uint64_t desc = v->site, lin, gpa, addr = *site_reg(v, XL_SITE_S1(desc), desc);
    unsigned size = XL_SITE_SIZE(desc);
    uint8_t *host;
    v->stats->site_slow++;
    if (!size)
        return group_miss(v, ret_pc, desc);
    /* A masked access that is not possible as a whole may be so without what is masked off, some instructions do something
     * before they fault, and some access memory word by word: the careful path knows. */
    int on_fault = desc & (XL_SITE_MASKED | XL_SITE_LATE | XL_SITE_X87ENV) ? TC_EXIT_CAREFUL : TC_EXIT_FAULT;
    if (site_align(v, desc, addr, size) || site_linear(v, desc, addr, size, &lin))
        return site_leave(v, ret_pc, on_fault);
    /* The window site itself goes no further when its segment check fails: expand-down segments come here. */
    if ((desc & XL_SITE_DIRECT) || (lin & 0xfff) + size > PAGE_SIZE)
        return site_leave(v, ret_pc, TC_EXIT_CAREFUL);
    if (mem_translate(v, lin, site_how(desc), &gpa, &host))
        return site_leave(v, ret_pc, on_fault);
    return fill_site(v, desc, lin, gpa, host) ? 0 : site_leave(v, ret_pc, TC_EXIT_CAREFUL);
}

int tc_site_miss(struct vcpu *v, uint64_t ret_pc)
{
    acct_enter(&v->stats->acct, ACCT_site);
    int code = site_miss(v, ret_pc);
    code = code == TC_EXIT_FAULT ? tc_raise(v, v->c.key) : code;
    tc_account(v, code);
    return code;
}
