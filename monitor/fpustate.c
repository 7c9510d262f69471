/* monitor/fpustate.c - who holds the guest's x87/SSE/AVX state, and the FXSAVE and XSAVE family (SDM 1 chapter 13, 10.5).
 *
 * nofpu in the sense that the compiler uses no vector register here; the assembly statements do, on purpose.
 * The guest's state lives in the host's registers, so FXSAVE and XSAVE of the guest are FXSAVE and XSAVE of the host with the
 * guest's XCR0 applied. Stores go straight to guest RAM if the area is contiguous there, else through a bounce buffer. Loads
 * always go through a buffer: it is checked as the manual says, so the host's instruction cannot fault, and nobody
 * else can change it in between.
 * Outside 64-bit mode registers 8 to 15 (16 to 31) are neither stored nor loaded (SDM 1 13.5): their parts of the area are
 * kept (HIGH_PART).
 * FPU-1  XRSTOR's address decides what XSAVEOPT may leave out (SDM 1 13.6). XSAVEOPT is used on v->xsave, which is
 *        written only while the state is in it, and on guest RAM and store_buf, which XRSTOR never reads. Never on load_buf.
 */
#include "monitor/fpu.h"
#include "monitor/cpumodel.h"
#include "monitor/sysfn_int.h"

#define HOST_MXCSR 0x1f80u
#define XCOMP_COMPACT (1ull << 63)

static uint8_t *load_buf(const struct vcpu *v) { return v->xsave + FPU_BYTES; }
static uint8_t *store_buf(const struct vcpu *v) { return v->xsave + 2 * FPU_BYTES; }

static inline void copy(void *to, const void *from, size_t n)
{
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
}
static inline void clear(void *to, size_t n) { __asm__ volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(0) : "memory"); }
static inline uint64_t get64(const uint8_t *p) { return *(const uint64_t *)p; }
static inline uint32_t get32(const uint8_t *p) { return *(const uint32_t *)p; }
static inline void put64(uint8_t *p, uint64_t val) { *(uint64_t *)p = val; }

#define XINSN(insn, p, mask)                                                                                           \
    __asm__ volatile(insn " (%0)" : : "r"(p), "a"((uint32_t)(mask)), "d"((uint32_t)((mask) >> 32)) : "memory")

/* ---- changing hands ---- */

static void host_defaults(const struct vcpu *v)
{
    static const uint32_t mxcsr = HOST_MXCSR;
    __asm__ volatile("fninit; ldmxcsr %0" : : "m"(mxcsr));
    if (v->fpu_mask & XCR0_AVX)
        __asm__ volatile("vzeroupper");
}

void fpu_leave(struct vcpu *v)
{
    if (!v->fpu_live)
        return;
    v->fpu_live = false;
    if (!v->fpu_mask) {
        __asm__ volatile("fxsave64 (%0)" : : "r"(v->xsave) : "memory");
        put64(v->xsave + FPU_BV, XCR0_X87 | XCR0_SSE);
    } else if (v->fpu_opt)
        XINSN("xsaveopt64", v->xsave, v->fpu_mask);
    else
        XINSN("xsave64", v->xsave, v->fpu_mask);
    host_defaults(v);
}

void fpu_discard(struct vcpu *v)
{
    if (!v->fpu_live)
        return;
    v->fpu_live = false;
    host_defaults(v);
}

void fpu_enter(struct vcpu *v)
{
    if (v->fpu_live)
        return;
    fpu_bring(v);
    if (!v->fpu_mask) {
        fpu_image_own(v, XCR0_X87 | XCR0_SSE);
        __asm__ volatile("fxrstor64 (%0)" : : "r"(v->xsave));
    } else
        XINSN("xrstor64", v->xsave, v->fpu_mask);
    v->fpu_live = true;
}

/* For instructions that store the state: ends what fpu_enter began, and the state is where it was. */
static void put_back(struct vcpu *v, bool was_live, void *was_away)
{
    if (was_live)
        return;
    if (!was_away) {
        fpu_leave(v);
        return;
    }
    fpu_discard(v);
    v->fpu_away = was_away;
}

/* For those that load it: the TC and its callouts are where it may stay live; it is about to be wanted. */
static void keep_if_in_tc(struct vcpu *v, bool was_live)
{
    if (!was_live && !v->in_tc)
        fpu_leave(v);
}

void fpu_image_own(struct vcpu *v, uint64_t components)
{
    fpu_bring(v);
    uint64_t bv = get64(v->xsave + FPU_BV), missing = components & ~bv;
    if (missing & XCR0_X87) {
        clear(v->xsave, FPU_MXCSR);
        clear(v->xsave + FPU_ST, 128);
        *(uint16_t *)(v->xsave + FPU_FCW) = 0x37f;
    }
    if (missing & XCR0_SSE)
        clear(v->xsave + FPU_XMM, 256);
    for (unsigned i = 2; i < 8; i++)
        if (missing >> i & 1)
            clear(v->xsave + v->cpu->xoffset[i], v->cpu->xsize[i]);
    put64(v->xsave + FPU_BV, bv | components);
}

void fpu_own_pointers(struct vcpu *v)
{
    fpu_leave(v);
    if ((get64(v->xsave + FPU_BV) & XCR0_X87) && v->fpu_pointers)
        v->fpu_pointers(v, (uint64_t *)(v->xsave + FPU_FIP), (uint64_t *)(v->xsave + FPU_FDP));
}

/* ---- the guest's memory ---- */

/* Host pointer if all n bytes are plain RAM and contiguous there. Faults are left to the slow way. */
static uint8_t *area_direct(struct vcpu *v, uint64_t lin, unsigned n, unsigned how)
{
    int fault;
    uint8_t *host = mem_direct(v, lin, how, &fault);
    for (unsigned done = PAGE_SIZE - (lin & 0xfff); host && done < n; done += PAGE_SIZE)
        if (mem_direct(v, lin + done, how, &fault) != host + done)
            return NULL;
    return host;
}

/* First 4 bytes inside the segment, then alignment: both before the rest of the area and before paging (measured). */
static int area_open(struct vcpu *v, struct sys_op op, unsigned align, unsigned how, uint64_t *lin)
{
    int err = mem_linear(v, op.seg, v->ea, 4, how, lin);
    if (err)
        return err;
    return *lin & (align - 1) ? fault_gp0(v) : 0;
}

/* Parts of an area are accesses of their own: each has to lie inside the segment and may wrap at the end of the address size,
 * and parts that an instruction does not use are not touched (measured). */
struct span {
    uint32_t off, n;
};
#define SPANS 12
enum span_op { SPAN_PROBE, SPAN_PROBE_W, SPAN_READ, SPAN_READ_RW, SPAN_WRITE };

static unsigned span_how(enum span_op what)
{
    static const uint8_t how[] = {MEM_R, MEM_W, MEM_R, MEM_RW, MEM_W};
    return how[what] | MEM_UNALIGNED;
}

static int span_access(struct vcpu *v, struct sys_op op, uint32_t off, uint32_t n, enum span_op what, uint8_t *buf)
{
    uint64_t lin, mask = addr_mask(op.asize);
    int err = mem_linear(v, op.seg, (v->ea + off) & mask, n, span_how(what), &lin);
    if (err)
        return err;
    switch (what) {
    case SPAN_PROBE:
    case SPAN_PROBE_W: return mem_probe(v, lin, n, span_how(what));
    case SPAN_WRITE: return mem_write(v, lin, buf, n, span_how(what));
    default: return mem_read(v, lin, buf, n, span_how(what));
    }
}

/* In one piece if that is possible. */
static int span_do(struct vcpu *v, struct sys_op op, struct span s, enum span_op what, uint8_t *area)
{
    uint64_t lin, mask = addr_mask(op.asize), at = (v->ea + s.off) & mask;
    bool whole = at + s.n - 1 <= mask && at + s.n > at;
    if (whole && !mem_linear(v, op.seg, at, s.n, span_how(what), &lin))
        return span_access(v, op, s.off, s.n, what, area + s.off);
    int err = 0;
    for (uint32_t i = 0; i < s.n && !err; i += 16)
        err = span_access(v, op, s.off + i, s.n - i < 16 ? s.n - i : 16, what, area + s.off + i);
    return err;
}

static int spans_do(struct vcpu *v, struct sys_op op, const struct span *s, unsigned count, enum span_op what,
                    uint8_t *area)
{
    int err = 0;
    for (unsigned i = 0; i < count && !err; i++)
        err = span_do(v, op, s[i], what, area);
    return err;
}

/* The last of n bytes, then the one at first, before anything else is accessed (measured). first = NONE: only the last. */
#define NONE ~0u
static int area_ends(struct vcpu *v, struct sys_op op, uint32_t n, uint32_t first, enum span_op what)
{
    int err = span_access(v, op, n - 1, 1, what, NULL);
    return err || first == NONE ? err : span_access(v, op, first, 1, what, NULL);
}

/* An x87 state was stored at p: the instruction and operand pointers are the host's, unless FXRSTOR put them there. */
static void fix_pointers(struct vcpu *v, uint8_t *p, bool wide)
{
    if (!v->fpu_pointers)
        return;
    uint64_t fip = wide ? get64(p + 8) : get32(p + 8), fdp = wide ? get64(p + 16) : get32(p + 16);
    v->fpu_pointers(v, &fip, &fdp);
    if (wide) {
        put64(p + 8, fip);
        put64(p + 16, fdp);
    } else {
        *(uint32_t *)(p + 8) = (uint32_t)fip;
        *(uint32_t *)(p + 16) = (uint32_t)fdp;
    }
}

/* ---- FXSAVE, FXRSTOR ---- */

#define FX_BYTES 512
#define FX_END64 416 /* end of XMM15 */
#define FX_END32 288 /* end of XMM7 */

static int fx_check(struct vcpu *v, struct sys_op op, bool write, uint64_t *lin)
{
    if (v->c.cr0 & (CR0_TS | CR0_EM))
        return sys_fault(v, EXC_NM);
    int err = area_open(v, op, 16, write ? MEM_W : MEM_R, lin);
    return err ? err : area_ends(v, op, FX_BYTES, 0, write ? SPAN_PROBE_W : SPAN_PROBE);
}

static struct span fx_span(const struct vcpu *v) { return (struct span){0, cpu_code64(&v->c) ? FX_END64 : FX_END32}; }

static void host_fxsave(uint8_t *p, bool wide)
{
    if (wide)
        __asm__ volatile("fxsave64 (%0)" : : "r"(p) : "memory");
    else
        __asm__ volatile("fxsave (%0)" : : "r"(p) : "memory");
}

static int fxsave_live(struct vcpu *v, struct sys_op op, uint64_t lin)
{
    struct span all = fx_span(v);
    uint8_t *p = all.n == FX_END64 ? area_direct(v, lin, FX_BYTES, MEM_W) : NULL;
    if (p) {
        host_fxsave(p, op.opsize == 8);
        fix_pointers(v, p, op.opsize == 8);
        return 0;
    }
    p = store_buf(v);
    int err = span_do(v, op, all, SPAN_PROBE_W, p);
    if (err)
        return err;
    host_fxsave(p, op.opsize == 8);
    fix_pointers(v, p, op.opsize == 8);
    return span_do(v, op, all, SPAN_WRITE, p);
}

int sys_fxsave(struct vcpu *v, struct sys_op op)
{
    uint64_t lin;
    int err = fx_check(v, op, true, &lin);
    if (err)
        return err;
    bool was_live = v->fpu_live;
    void *was_away = v->fpu_away;
    fpu_enter(v);
    err = fxsave_live(v, op, lin);
    put_back(v, was_live, was_away);
    return err;
}

int sys_fxrstor(struct vcpu *v, struct sys_op op)
{
    uint64_t lin;
    uint8_t *p = load_buf(v);
    int err = fx_check(v, op, false, &lin);
    if (!err)
        err = span_do(v, op, fx_span(v), SPAN_READ, p);
    if (err)
        return err;
    if (get32(p + FPU_MXCSR) & ~v->mxcsr_mask)
        return fault_gp0(v);
    bool was_live = v->fpu_live;
    fpu_enter(v);
    if (!cpu_code64(&v->c)) {
        host_fxsave(store_buf(v), true);
        copy(p + FX_END32, store_buf(v) + FX_END32, FX_END64 - FX_END32);
    }
    if (op.opsize == 8)
        __asm__ volatile("fxrstor64 (%0)" : : "r"(p) : "memory");
    else
        __asm__ volatile("fxrstor (%0)" : : "r"(p) : "memory");
    keep_if_in_tc(v, was_live);
    return SYS_NEXT;
}

/* ---- XSAVE family ---- */

/* Where component i (>= 2) lies: standard format, or compacted for the components of xcomp. */
static uint32_t comp_offset(const struct cpumodel *m, unsigned i, uint64_t xcomp)
{
    if (!(xcomp & XCOMP_COMPACT))
        return m->xoffset[i];
    uint32_t off = FPU_AREA;
    for (unsigned k = 2; k <= i; k++) {
        if (!(xcomp >> k & 1))
            continue;
        if (m->xaligned >> k & 1)
            off = (off + 63) & ~63u;
        if (k < i)
            off += m->xsize[k];
    }
    return off;
}

static uint32_t area_bytes(const struct cpumodel *m, uint64_t comps, uint64_t xcomp)
{
    uint32_t end = FPU_AREA;
    for (unsigned i = 2; i < 8; i++)
        if (comps >> i & 1) {
            uint32_t e = comp_offset(m, i, xcomp) + m->xsize[i];
            end = e > end ? e : end;
        }
    return end;
}

/* The part of component i that 64-bit mode alone reaches. Returns its size, 0 if none; for SSE the offset is absolute. */
static uint32_t high_part(const struct cpumodel *m, unsigned i, uint64_t xcomp, uint32_t *off)
{
    if (i == 1) {
        *off = FX_END32;
        return FX_END64 - FX_END32;
    }
    if (i < 2)
        return 0;
    uint32_t base = comp_offset(m, i, xcomp);
    *off = i == 7 ? base : base + m->xsize[i] / 2;
    return i == 2 || i == 6 ? m->xsize[i] / 2 : i == 7 ? m->xsize[i] : 0;
}

static void host_xsave(uint8_t *p, unsigned op, bool wide, uint64_t rfbm)
{
    switch (op << 1 | wide) {
    case SYS_OP_XSAVE << 1: XINSN("xsave", p, rfbm); break;
    case SYS_OP_XSAVE << 1 | 1: XINSN("xsave64", p, rfbm); break;
    case SYS_OP_XSAVEOPT << 1: XINSN("xsaveopt", p, rfbm); break;
    case SYS_OP_XSAVEOPT << 1 | 1: XINSN("xsaveopt64", p, rfbm); break;
    case SYS_OP_XSAVEC << 1: XINSN("xsavec", p, rfbm); break;
    case SYS_OP_XSAVEC << 1 | 1: XINSN("xsavec64", p, rfbm); break;
    }
}

static int x_check(struct vcpu *v)
{
    if (!(v->c.cr4 & CR4_OSXSAVE) || !v->fpu_mask)
        return sys_fault(v, EXC_UD);
    return v->c.cr0 & CR0_TS ? sys_fault(v, EXC_NM) : 0;
}

/* What of an area belongs to components comps; mxcsr: MXCSR and its mask too. Registers that this mode does not reach are left
 * out. */
static unsigned area_spans(const struct vcpu *v, uint64_t comps, bool mxcsr, uint64_t xcomp, struct span *s)
{
    const struct cpumodel *m = v->cpu;
    bool all = cpu_code64(&v->c);
    unsigned n = 0;
    if (comps & XCR0_X87) {
        s[n++] = (struct span){0, FPU_MXCSR};
        s[n++] = (struct span){FPU_ST, 128};
    }
    if (mxcsr)
        s[n++] = (struct span){FPU_MXCSR, 8};
    if (comps & XCR0_SSE)
        s[n++] = (struct span){FPU_XMM, all ? FX_END64 - FPU_XMM : FX_END32 - FPU_XMM};
    for (unsigned i = 2; i < 8; i++) {
        uint32_t off, high = all ? 0 : high_part(m, i, xcomp, &off);
        if ((comps >> i & 1) && high < m->xsize[i])
            s[n++] = (struct span){comp_offset(m, i, xcomp), m->xsize[i] - high};
    }
    return n;
}

static int xsave_live(struct vcpu *v, struct sys_op op, uint64_t lin, uint64_t rfbm, uint32_t n)
{
    bool wide = op.opsize == 8, compact = op.op == SYS_OP_XSAVEC;
    uint64_t xcomp = compact ? rfbm | XCOMP_COMPACT : 0;
    struct span s[SPANS];
    uint8_t *p = cpu_code64(&v->c) ? area_direct(v, lin, n, MEM_W) : NULL;
    if (p) {
        host_xsave(p, op.op, wide, rfbm);
        if (rfbm & get64(p + FPU_BV) & XCR0_X87)
            fix_pointers(v, p, wide);
        return 0;
    }
    p = store_buf(v);
    struct span header = {FPU_BV, compact ? 16 : 8};
    int err = span_do(v, op, header, SPAN_READ_RW, p);
    if (err)
        return err;
    host_xsave(p, op.op, wide, rfbm);
    uint64_t used = rfbm & (op.op == SYS_OP_XSAVE ? ~0ull : get64(p + FPU_BV));
    if (used & XCR0_X87)
        fix_pointers(v, p, wide);
    unsigned count = area_spans(v, used, compact ? used & XCR0_SSE : rfbm & (XCR0_SSE | XCR0_AVX), xcomp, s);
    s[count++] = header;
    err = spans_do(v, op, s, count, SPAN_PROBE_W, p);
    return err ? err : spans_do(v, op, s, count, SPAN_WRITE, p);
}

/* What XSAVE and XRSTOR with these components touch first in the legacy region. */
static uint32_t first_touch(uint64_t comps, bool compact)
{
    if (comps & XCR0_X87)
        return 0;
    return comps & (compact ? XCR0_SSE : XCR0_SSE | XCR0_AVX) ? FPU_MXCSR : NONE;
}

int sys_xsave(struct vcpu *v, struct sys_op op)
{
    uint64_t lin, rfbm = read_edx_eax(&v->c) & v->c.xcr0;
    if ((op.op == SYS_OP_XSAVEC && !cpumodel_has(v->cpu, CPU_FEAT_XSAVEC)) ||
        (op.op == SYS_OP_XSAVEOPT && !cpumodel_has(v->cpu, CPU_FEAT_XSAVEOPT)))
        return sys_fault(v, EXC_UD);
    int err = x_check(v);
    if (!err)
        err = area_open(v, op, 64, MEM_W, &lin);
    if (err)
        return err;
    bool compact = op.op == SYS_OP_XSAVEC;
    uint32_t n = area_bytes(v->cpu, rfbm, compact ? rfbm | XCOMP_COMPACT : 0);
    err = area_ends(v, op, n, first_touch(rfbm, compact), SPAN_PROBE_W);
    if (err)
        return err;
    bool was_live = v->fpu_live;
    void *was_away = v->fpu_away;
    fpu_enter(v);
    err = xsave_live(v, op, lin, rfbm, n);
    put_back(v, was_live, was_away);
    return err;
}

/* SDM 1 13.8: what in the header makes XRSTOR raise #GP(0). */
static bool xrstor_header_ok(const struct vcpu *v, const uint8_t *area)
{
    uint64_t bv = get64(area + FPU_BV), xcomp = get64(area + FPU_XCOMP), rest = 0;
    bool compact = xcomp & XCOMP_COMPACT;
    for (unsigned i = FPU_XCOMP + 8; i < (compact ? (unsigned)FPU_AREA : FPU_XCOMP + 16u); i += 8)
        rest |= get64(area + i);
    if (compact)
        return cpumodel_has(v->cpu, CPU_FEAT_XSAVEC) && !((xcomp & ~XCOMP_COMPACT) & ~v->c.xcr0) && !(bv & ~xcomp) &&
               !rest;
    return !(bv & ~v->c.xcr0) && !xcomp && !rest;
}

static bool all_zero(const uint8_t *p, uint32_t n)
{
    uint64_t any = 0;
    for (uint32_t i = 0; i < n; i += 8)
        any |= get64(p + i);
    return !any;
}

/* One component of a load outside 64-bit mode: low part the area's (or initial), high part as it is in the register. */
static void merge_component(const struct vcpu *v, unsigned i, const uint8_t *area, uint8_t *now, uint64_t *bv)
{
    const struct cpumodel *m = v->cpu;
    uint64_t bit = 1ull << i, xcomp = get64(area + FPU_XCOMP);
    uint32_t hi = 0, n_hi = high_part(m, i, 0, &hi);
    uint32_t from = i == 1 ? (uint32_t)FPU_XMM : comp_offset(m, i, xcomp);
    uint32_t to = i == 1 ? (uint32_t)FPU_XMM : m->xoffset[i];
    uint32_t n_low = n_hi ? hi - to : m->xsize[i];
    if (get64(area + FPU_BV) & bit)
        copy(now + to, area + from, n_low);
    else
        clear(now + to, n_low);
    if ((get64(area + FPU_BV) & bit) || !all_zero(now + hi, n_hi))
        *bv |= bit;
}

/* Turns load_buf into an equivalent area in standard format whose high parts are the registers' own. */
static void xrstor_merge(struct vcpu *v, uint64_t rfbm)
{
    uint8_t *area = load_buf(v), *now = store_buf(v);
    uint64_t bv = get64(area + FPU_BV), merged = bv & XCR0_X87;
    bool compact = get64(area + FPU_XCOMP) & XCOMP_COMPACT;
    uint32_t mxcsr = compact && !(bv & XCR0_SSE) ? HOST_MXCSR : get32(area + FPU_MXCSR);
    clear(now + FPU_BV, 64);
    XINSN("xsave64", now, rfbm);
    copy(now, area, FPU_MXCSR);
    copy(now + FPU_ST, area + FPU_ST, 128);
    for (unsigned i = 1; i < 8; i++)
        if (rfbm >> i & 1)
            merge_component(v, i, area, now, &merged);
    /* Compacted loads of AVX without SSE leave MXCSR; standard ones load it (SDM 1 13.8). */
    if (!compact || (rfbm & XCR0_SSE))
        *(uint32_t *)(now + FPU_MXCSR) = mxcsr;
    put64(now + FPU_BV, merged);
    copy(area, now, FPU_BYTES);
    put64(area + FPU_XCOMP, 0);
}

/* Reads what XRSTOR with this mask needs of the area into load_buf. The order of checks is as measured: what the layout depends
 * on, the area's ends, the rest of the header, the components in use. */
static int xrstor_read(struct vcpu *v, struct sys_op op, uint64_t rfbm)
{
    uint8_t *p = load_buf(v);
    struct span s[SPANS];
    int err = span_access(v, op, FPU_XCOMP, 8, SPAN_READ, p + FPU_XCOMP);
    if (err)
        return err;
    uint64_t xcomp = get64(p + FPU_XCOMP);
    bool compact = xcomp & XCOMP_COMPACT;
    if (compact && ((xcomp & ~XCOMP_COMPACT) & ~v->c.xcr0))
        return fault_gp0(v);
    uint64_t comps = compact ? rfbm & xcomp : rfbm;
    err = area_ends(v, op, area_bytes(v->cpu, comps, xcomp), first_touch(comps, compact), SPAN_PROBE);
    if (!err)
        err = span_do(v, op, (struct span){FPU_BV, FPU_AREA - FPU_BV}, SPAN_READ, p);
    if (err)
        return err;
    put64(p + FPU_XCOMP, xcomp); /* as read first: others may write to the area meanwhile */
    uint64_t used = rfbm & get64(p + FPU_BV);
    if (!xrstor_header_ok(v, p))
        return fault_gp0(v);
    bool mxcsr = compact ? used & XCR0_SSE : rfbm & (XCR0_SSE | XCR0_AVX);
    err = spans_do(v, op, s, area_spans(v, used, mxcsr, xcomp, s), SPAN_READ, p);
    if (!err && mxcsr && (get32(p + FPU_MXCSR) & ~v->mxcsr_mask))
        return fault_gp0(v);
    return err;
}

int sys_xrstor(struct vcpu *v, struct sys_op op)
{
    uint64_t lin, rfbm = read_edx_eax(&v->c) & v->c.xcr0;
    uint8_t *p = load_buf(v);
    int err = x_check(v);
    if (!err)
        err = area_open(v, op, 64, MEM_R, &lin);
    if (!err)
        err = xrstor_read(v, op, rfbm);
    if (err)
        return err;
    bool was_live = v->fpu_live;
    fpu_enter(v);
    if (!cpu_code64(&v->c))
        xrstor_merge(v, rfbm);
    if (op.opsize == 8)
        XINSN("xrstor64", p, rfbm);
    else
        XINSN("xrstor", p, rfbm);
    keep_if_in_tc(v, was_live);
    return SYS_NEXT;
}
