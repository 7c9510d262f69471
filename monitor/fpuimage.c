/* monitor/fpuimage.c - see fpu.h: the FPU image as a thing to create, look into, save and restore. Runs after fpu_leave. */
#include "monitor/fpu.h"
#include "base/err.h"
#include "monitor/cpumodel.h"
#include "monitor/vcpu.h"
#include <cpuid.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_MXCSR 0x1f80u
#define DEFAULT_MXCSR_MASK 0xffbfu /* of CPUs that store 0 (SDM 1 11.6.6) */

static uint64_t get64(const uint8_t *p)
{
    uint64_t x;
    memcpy(&x, p, 8);
    return x;
}
static uint32_t get32(const uint8_t *p)
{
    uint32_t x;
    memcpy(&x, p, 4);
    return x;
}

/* What the host's kernel lets its processes keep, less what the engine does not know (AMX, PKRU: never in use here). */
static uint64_t host_components(bool *opt)
{
    uint32_t a, b, c, d, lo, hi;
    *opt = false;
    __cpuid(1, a, b, c, d);
    if (!(c & bit_OSXSAVE))
        return 0;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    __cpuid_count(0xd, 1, a, b, c, d);
    *opt = a & 1;
    return (lo & XCR0_AVX512) == XCR0_AVX512 ? lo & 0xe7 : lo & 7;
}

int fpu_create(struct vcpu *v)
{
    v->xsave = aligned_alloc(4096, 3 * FPU_BYTES);
    if (!v->xsave)
        return -RD_E_NOMEM;
    memset(v->xsave, 0, 3 * FPU_BYTES);
    v->fpu_mask = host_components(&v->fpu_opt);
    __asm__ volatile("fxsave64 (%0)" : : "r"(v->xsave + FPU_BYTES) : "memory");
    uint32_t mask = get32(v->xsave + FPU_BYTES + FPU_MXCSR + 4);
    v->mxcsr_mask = mask ? mask : DEFAULT_MXCSR_MASK;
    v->fpu_live = false;
    fpu_reset(v);
    return 0;
}

void fpu_destroy(struct vcpu *v)
{
    free(v->xsave);
    v->xsave = NULL;
}

/* SDM 3A table 9-1: FCW 40H, FTW 5555H (zeros, none empty), MXCSR 1F80H. */
void fpu_reset(struct vcpu *v)
{
    uint16_t fcw = 0x40;
    uint32_t mxcsr = DEFAULT_MXCSR;
    uint64_t bv = XCR0_X87;
    fpu_leave(v);
    v->fpu_away = NULL;
    memset(v->xsave, 0, FPU_BYTES);
    memcpy(v->xsave + FPU_FCW, &fcw, 2);
    v->xsave[FPU_FTW] = 0xff;
    memcpy(v->xsave + FPU_MXCSR, &mxcsr, 4);
    memcpy(v->xsave + FPU_BV, &bv, 8);
}

uint8_t *fpu_image_part(struct vcpu *v, enum fpu_part part, unsigned n)
{
    static const struct {
        uint8_t comp, bytes, regs;
    } parts[] = {
        [FPU_PART_XMM] = {1, 16, 16},      [FPU_PART_YMM] = {2, 16, 16}, [FPU_PART_ZMM] = {6, 32, 16},
        [FPU_PART_ZMM_HIGH] = {7, 64, 16}, [FPU_PART_K] = {5, 8, 8},
    };
    unsigned i = parts[part].comp;
    if (n >= parts[part].regs)
        return NULL;
    if (i > 1 && !(v->cpu->xcr0 & v->fpu_mask & 1u << i))
        return NULL;
    fpu_image_own(v, 1u << i);
    return v->xsave + (i == 1 ? (uint32_t)FPU_XMM : v->cpu->xoffset[i]) + n * parts[part].bytes;
}

/* ---- saving and restoring ---- */

static uint64_t offered(const struct vcpu *v) { return v->cpu->xcr0 | XCR0_X87 | XCR0_SSE; }

size_t fpu_image_get(struct vcpu *v, void *buf, size_t bytes)
{
    uint64_t comps = offered(v);
    size_t n = v->cpu->xsave_bytes;
    if (bytes < n)
        return n;
    fpu_own_pointers(v);
    fpu_image_own(v, comps);
    memcpy(buf, v->xsave, n);
    /* The host may have components in use that this CPU model does not have. */
    memcpy((uint8_t *)buf + FPU_BV, &comps, 8);
    memset((uint8_t *)buf + 464, 0, 48);
    return n;
}

int fpu_image_set(struct vcpu *v, const void *buf, size_t bytes)
{
    static const uint8_t zero[56];
    const uint8_t *p = buf;
    if (bytes < v->cpu->xsave_bytes)
        return -RD_E_FORMAT;
    uint64_t bv = get64(p + FPU_BV);
    if ((bv & ~offered(v)) || memcmp(p + FPU_XCOMP, zero, 56) || (get32(p + FPU_MXCSR) & ~v->mxcsr_mask))
        return -RD_E_FORMAT;
    fpu_reset(v);
    memcpy(v->xsave, p, v->cpu->xsave_bytes);
    return 0;
}
