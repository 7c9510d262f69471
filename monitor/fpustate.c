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
    if (!v->fpu_mask) {
        fpu_image_own(v, XCR0_X87 | XCR0_SSE);
        __asm__ volatile("fxrstor64 (%0)" : : "r"(v->xsave));
    } else
        XINSN("xrstor64", v->xsave, v->fpu_mask);
    v->fpu_live = true;
}

void fpu_image_own(struct vcpu *v, uint64_t components)
{
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

/* Segment and alignment of an area. */
static int area_open(struct vcpu *v, struct sys_op op, unsigned n, unsigned align, unsigned how, uint64_t *lin)
{
    int err = mem_linear(v, op.seg, v->ea, n, how, lin);
    if (err)
        return err;
    return *lin & (align - 1) ? fault_gp0(v) : 0;
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

static int fx_check(struct vcpu *v, struct sys_op op, unsigned how, uint64_t *lin)
{
    if (v->c.cr0 & (CR0_TS | CR0_EM))
        return sys_fault(v, EXC_NM);
    return area_open(v, op, FX_BYTES, 16, how, lin);
}

static void host_fxsave(uint8_t *p, bool wide)
{
    if (wide)
        __asm__ volatile("fxsave64 (%0)" : : "r"(p) : "memory");
    else
        __asm__ volatile("fxsave (%0)" : : "r"(p) : "memory");
}

static int fxsave_live(struct vcpu *v, uint64_t lin, bool wide)
{
    bool all = cpu_code64(&v->c);
    uint8_t *p = all ? area_direct(v, lin, FX_BYTES, MEM_W) : NULL;
    if (p) {
        host_fxsave(p, wide);
        fix_pointers(v, p, wide);
        return 0;
    }
    p = store_buf(v);
    int err = mem_probe(v, lin, FX_BYTES, MEM_W);
    if (!err)
        err = mem_read(v, lin, p, FX_BYTES, MEM_R);
    if (err)
        return err;
    host_fxsave(p, wide);
    fix_pointers(v, p, wide);
    return mem_write(v, lin, p, all ? FX_END64 : FX_END32, MEM_W);
}

int sys_fxsave(struct vcpu *v, struct sys_op op)
{
    uint64_t lin;
    int err = fx_check(v, op, MEM_W, &lin);
    if (err)
        return err;
    bool was_live = v->fpu_live;
    fpu_enter(v);
    err = fxsave_live(v, lin, op.opsize == 8);
    if (!was_live)
        fpu_leave(v);
    return err;
}

int sys_fxrstor(struct vcpu *v, struct sys_op op)
{
    uint64_t lin;
    uint8_t *p = load_buf(v);
    int err = fx_check(v, op, MEM_R, &lin);
    if (!err)
        err = mem_read(v, lin, p, FX_BYTES, MEM_R);
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
    if (!was_live)
        fpu_leave(v);
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

static int xsave_live(struct vcpu *v, struct sys_op op, uint64_t lin, uint64_t rfbm, uint32_t n)
{
    const struct cpumodel *m = v->cpu;
    bool all = cpu_code64(&v->c), wide = op.opsize == 8;
    uint64_t xcomp = op.op == SYS_OP_XSAVEC ? rfbm | XCOMP_COMPACT : 0;
    uint8_t *p = all ? area_direct(v, lin, n, MEM_W) : NULL;
    if (p) {
        host_xsave(p, op.op, wide, rfbm);
        if (rfbm & get64(p + FPU_BV) & XCR0_X87)
            fix_pointers(v, p, wide);
        return 0;
    }
    p = store_buf(v);
    int err = mem_probe(v, lin, n, MEM_W);
    if (!err)
        err = mem_read(v, lin, p, n, MEM_R);
    if (err)
        return err;
    if (!all)
        copy(load_buf(v), p, n);
    host_xsave(p, op.op, wide, rfbm);
    for (unsigned i = 1; i < 8 && !all; i++) {
        uint32_t off, k = rfbm >> i & 1 ? high_part(m, i, xcomp, &off) : 0;
        if (k)
            copy(p + off, load_buf(v) + off, k);
    }
    if (rfbm & get64(p + FPU_BV) & XCR0_X87)
        fix_pointers(v, p, wide);
    return mem_write(v, lin, p, n, MEM_W);
}

int sys_xsave(struct vcpu *v, struct sys_op op)
{
    uint64_t lin, rfbm = read_edx_eax(&v->c) & v->c.xcr0;
    if ((op.op == SYS_OP_XSAVEC && !cpumodel_has(v->cpu, CPU_FEAT_XSAVEC)) ||
        (op.op == SYS_OP_XSAVEOPT && !cpumodel_has(v->cpu, CPU_FEAT_XSAVEOPT)))
        return sys_fault(v, EXC_UD);
    int err = x_check(v);
    if (err)
        return err;
    uint32_t n = area_bytes(v->cpu, rfbm, op.op == SYS_OP_XSAVEC ? rfbm | XCOMP_COMPACT : 0);
    err = area_open(v, op, n, 64, MEM_W, &lin);
    if (err)
        return err;
    bool was_live = v->fpu_live;
    fpu_enter(v);
    err = xsave_live(v, op, lin, rfbm, n);
    if (!was_live)
        fpu_leave(v);
    return err;
}

/* SDM 1 13.8: what makes XRSTOR raise #GP(0). hdr = the area's first 576 bytes. */
static bool xrstor_header_ok(const struct vcpu *v, const uint8_t *area, uint64_t rfbm)
{
    uint64_t bv = get64(area + FPU_BV), xcomp = get64(area + FPU_XCOMP), rest = 0;
    bool compact = xcomp & XCOMP_COMPACT;
    for (unsigned i = FPU_XCOMP + 8; i < (compact ? (unsigned)FPU_AREA : FPU_XCOMP + 16u); i += 8)
        rest |= get64(area + i);
    bool loads_mxcsr = compact ? rfbm & bv & XCR0_SSE : rfbm & (XCR0_SSE | XCR0_AVX);
    if (loads_mxcsr && (get32(area + FPU_MXCSR) & ~v->mxcsr_mask))
        return false;
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

int sys_xrstor(struct vcpu *v, struct sys_op op)
{
    uint64_t lin, rfbm = read_edx_eax(&v->c) & v->c.xcr0;
    uint8_t *p = load_buf(v);
    int err = x_check(v);
    if (!err)
        err = area_open(v, op, FPU_AREA, 64, MEM_R, &lin);
    if (!err)
        err = mem_read(v, lin, p, FPU_AREA, MEM_R);
    if (err)
        return err;
    if (!xrstor_header_ok(v, p, rfbm))
        return fault_gp0(v);
    uint32_t n = area_bytes(v->cpu, rfbm & get64(p + FPU_BV), get64(p + FPU_XCOMP));
    if (n > FPU_AREA) {
        err = area_open(v, op, n, 64, MEM_R, &lin);
        if (!err)
            err = mem_read(v, lin + FPU_AREA, p + FPU_AREA, n - FPU_AREA, MEM_R);
        if (err)
            return err;
    }
    bool was_live = v->fpu_live;
    fpu_enter(v);
    if (!cpu_code64(&v->c))
        xrstor_merge(v, rfbm);
    if (op.opsize == 8)
        XINSN("xrstor64", p, rfbm);
    else
        XINSN("xrstor", p, rfbm);
    if (!was_live)
        fpu_leave(v);
    return SYS_NEXT;
}
