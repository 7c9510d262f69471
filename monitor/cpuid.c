/* monitor/cpuid.c - see cpumodel.h. Not nofpu.
 *
 * A feature is a row of cpufeat.def. Creation decides each row (host, engine, option, dependencies), then writes the
 * leaves that follow from the rows; descriptive leaves (caches, brand, XSAVE layout) are the host's with every count of
 * sharers reduced to one package of one core of one thread.
 */
#include "monitor/cpumodel.h"
#include "base/err.h"
#include "monitor/engine.h"
#include "monitor/sysinsn.h"
#include "shadowmmu/ptwalk.h"
#include <cpuid.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>

enum how { HOST, OWN, OPT, NO, DYN };
struct feat {
    const char *name;
    uint32_t leaf, sub;
    uint8_t reg, bit, how;
};
static const struct feat feats[CPU_FEAT_COUNT] = {
#define FEAT(id, name, leaf, sub, reg, bit, how, text) [CPU_FEAT_##id] = {name, leaf, sub, reg, bit, how},
#include "monitor/cpufeat.def"
#undef FEAT
};
enum { EAX, EBX, ECX, EDX };
#define HWCAP2_FSGSBASE 2u
#define HYGON_EBX 0x6f677948u /* "HygonGenuine" */

/* ---- host ---- */

static uint64_t host_xcr0(void)
{
    uint32_t lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return lo | (uint64_t)hi << 32;
}

/* CPUID that is asked once per thread: under a hypervisor it traps (8 us), and a model asks some 400 times. What differs between
 * the CPUs of a host (APIC ids) no model takes over. */
static void host_cpuid_once(uint32_t leaf, uint32_t sub, uint32_t out[4])
{
    static _Thread_local struct {
        uint32_t leaf, sub, out[4];
    } seen[64];
    static _Thread_local unsigned n;
    for (unsigned i = 0; i < n; i++)
        if (seen[i].leaf == leaf && seen[i].sub == sub) {
            memcpy(out, seen[i].out, 16);
            return;
        }
    __cpuid_count(leaf, sub, out[EAX], out[EBX], out[ECX], out[EDX]);
    if (n == sizeof seen / sizeof seen[0])
        return;
    seen[n].leaf = leaf;
    seen[n].sub = sub;
    memcpy(seen[n++].out, out, 16);
}

/* CPUID less what the host's kernel has not switched on for its processes. */
void cpumodel_host_cpuid(uint32_t leaf, uint32_t sub, uint32_t out[4])
{
    uint32_t one[4];
    host_cpuid_once(leaf, sub, out);
    if (leaf != 1 && (leaf != 7 || sub != 0))
        return;
    host_cpuid_once(1, 0, one);
    uint64_t xcr0 = one[ECX] & bit_OSXSAVE ? host_xcr0() : 0;
    if (leaf == 1) {
        if (!(one[ECX] & bit_OSXSAVE))
            out[ECX] &= ~(uint32_t)bit_XSAVE;
        if ((xcr0 & 6) != 6)
            out[ECX] &= ~(uint32_t)bit_AVX;
    } else {
        if ((xcr0 & 0xe6) != 0xe6)
            out[EBX] &= ~(uint32_t)bit_AVX512F;
        if (!(getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE))
            out[EBX] &= ~1u;
    }
}

/* ---- which features ---- */

static void set_feat(struct cpumodel *m, enum cpu_feat f, bool on)
{
    uint64_t bit = 1ull << (f % 64);
    m->has[f / 64] = on ? m->has[f / 64] | bit : m->has[f / 64] & ~bit;
}

/* Leaves that a CPU does not have must not be asked: it answers with those of its highest one. */
static void host_leaf(const struct cpumodel *m, cpuid_fn *host, uint32_t leaf, uint32_t sub, uint32_t out[4])
{
    uint32_t top[4];
    memset(out, 0, 16);
    host(leaf & 0x80000000u, 0, top);
    if (leaf > top[EAX] || (leaf == 0xd && sub > 1 && !cpumodel_has(m, CPU_FEAT_XSAVE)))
        return;
    host(leaf, sub, out);
    if (leaf == 7 && sub) {
        host(7, 0, top);
        if (sub > top[EAX])
            memset(out, 0, 16);
    }
}

static bool amd_only(unsigned f) { return f == CPU_FEAT_AMD_SSB_NO || f == CPU_FEAT_BTC_NO || f == CPU_FEAT_SRSO_NO; }

/* Could it be offered at all? */
static bool available(const struct cpumodel *m, cpuid_fn *host, unsigned f)
{
    uint32_t out[4];
    if (amd_only(f))
        return m->amd;
    if (feats[f].how != HOST)
        return feats[f].how == OWN || feats[f].how == OPT;
    host_leaf(m, host, feats[f].leaf, feats[f].sub, out);
    return out[feats[f].reg] >> feats[f].bit & 1;
}

static const struct {
    uint16_t feat, needs;
} needs[] = {
#define N(f, n)                                                                                                        \
    {                                                                                                                  \
        CPU_FEAT_##f, CPU_FEAT_##n                                                                                     \
    }
    N(AVX, XSAVE),
    N(XSAVEOPT, XSAVE),
    N(XSAVEC, XSAVE),
    N(XGETBV1, XSAVE),
    N(FMA, AVX),
    N(F16C, AVX),
    N(AVX2, AVX),
    N(XOP, AVX),
    N(FMA4, AVX),
    N(VAES, AVX),
    N(VAES, AES),
    N(VPCLMULQDQ, AVX),
    N(VPCLMULQDQ, PCLMULQDQ),
    N(AVX_VNNI, AVX2),
    N(AVX512F, AVX2),
    N(AVX512DQ, AVX512F),
    N(AVX512IFMA, AVX512F),
    N(AVX512CD, AVX512F),
    N(AVX512BW, AVX512F),
    N(AVX512VL, AVX512F),
    N(AVX512VBMI, AVX512F),
    N(AVX512VBMI2, AVX512F),
    N(AVX512VNNI, AVX512F),
    N(AVX512BITALG, AVX512F),
    N(AVX512VPOPCNTDQ, AVX512F),
    N(AVX512VP2INTERSECT, AVX512F),
    N(AVX512_FP16, AVX512BW),
    N(AVX512_BF16, AVX512BW),
    N(X2APIC, APIC),
    N(TSC_DEADLINE, APIC),
    N(LM, PAE),
    N(NX, PAE),
    N(SYSCALL, LM),
    N(FSGSBASE, LM),
    N(PDPE1GB, LM),
    N(LAHF_LM, LM),
    N(SSE2, SSE),
    N(SSE3, SSE2),
    N(SSSE3, SSE3),
    N(SSE4_1, SSSE3),
    N(SSE4_2, SSE4_1),
    N(SSE, FXSR),
    N(MMXEXT, MMX),
#undef N
};

static void drop_dependants(struct cpumodel *m)
{
    for (bool again = true; again;) {
        again = false;
        for (unsigned i = 0; i < sizeof(needs) / sizeof(needs[0]); i++)
            if (cpumodel_has(m, needs[i].feat) && !cpumodel_has(m, needs[i].needs)) {
                set_feat(m, needs[i].feat, false);
                again = true;
            }
    }
}

/* The PC that every x86-64 system can count on, plus what the engine's own devices need. */
static const uint16_t baseline[] = {
#define B(f) CPU_FEAT_##f
    B(FPU),
    B(DE),
    B(PSE),
    B(TSC),
    B(MSR),
    B(PAE),
    B(MCE),
    B(CX8),
    B(APIC),
    B(SEP),
    B(MTRR),
    B(PGE),
    B(MCA),
    B(CMOV),
    B(PAT),
    B(PSE36),
    B(CLFLUSH),
    B(MMX),
    B(FXSR),
    B(SSE),
    B(SSE2),
    B(SSE3),
    B(CX16),
    B(X2APIC),
    B(TSC_DEADLINE),
    B(HYPERVISOR),
    B(ARAT),
    B(TSC_ADJUST),
    B(ARCH_CAPABILITIES),
    B(LAHF_LM),
    B(SYSCALL),
    B(NX),
    B(LM),
    B(INVTSC),
    B(AMD_SSB_NO),
    B(BTC_NO),
    B(SRSO_NO),
    B(ZERO_FCS_FDS),
    B(FDP_EXCPTN_ONLY),
    B(XSAVEERPTR),
    B(LFENCE_RDTSC),
    B(SS),
#undef B
};

static bool in_baseline(unsigned f)
{
    for (unsigned i = 0; i < sizeof(baseline) / sizeof(baseline[0]); i++)
        if (baseline[i] == f)
            return true;
    return false;
}

/* ---- the -cpu option ---- */

static char fold(char c)
{
    if (c >= 'A' && c <= 'Z')
        return (char)(c + 32);
    return c == '_' || c == '.' ? '-' : c;
}
static bool same_name(const char *a, const char *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!b[i] || fold(a[i]) != fold(b[i]))
            return false;
    return !b[n];
}

static int find_feat(const char *name, size_t n)
{
    static const struct {
        const char *alias;
        uint16_t feat;
    } aliases[] = {
        {"sse3", CPU_FEAT_SSE3},
        {"lzcnt", CPU_FEAT_ABM},
        {"cmpxchg16b", CPU_FEAT_CX16},
        {"sha", CPU_FEAT_SHA_NI},
        {"pclmuldq", CPU_FEAT_PCLMULQDQ},
        {"sep", CPU_FEAT_SEP},
        {"xd", CPU_FEAT_NX},
        {"i64", CPU_FEAT_LM},
    };
    for (unsigned f = 0; f < CPU_FEAT_COUNT; f++)
        if (same_name(name, feats[f].name, n))
            return (int)f;
    for (unsigned i = 0; i < sizeof(aliases) / sizeof(aliases[0]); i++)
        if (same_name(name, aliases[i].alias, n))
            return aliases[i].feat;
    return -1;
}

static int apply_word(struct cpumodel *m, cpuid_fn *host, const char *word, size_t n)
{
    bool on = true;
    if (n && (*word == '+' || *word == '-')) {
        on = *word++ == '+';
        n--;
    } else {
        const char *eq = memchr(word, '=', n);
        if (eq) {
            size_t rest = n - (size_t)(eq + 1 - word);
            on = same_name(eq + 1, "on", rest);
            if (!on && !same_name(eq + 1, "off", rest))
                return -RD_E_INVAL;
            n = (size_t)(eq - word);
        }
    }
    int f = find_feat(word, n);
    if (f < 0)
        return -RD_E_INVAL;
    if (on && !available(m, host, (unsigned)f))
        return -RD_E_UNSUPPORTED;
    set_feat(m, (enum cpu_feat)f, on);
    return 0;
}

static int apply_spec(struct cpumodel *m, cpuid_fn *host, const char *spec, bool *named, char *bad, unsigned bad_bytes)
{
    static const char *const all[] = {"host", "max"}, *const base[] = {"qemu64", "kvm64"};
    size_t n = strcspn(spec, ",");
    bool full = same_name(spec, all[0], n) || same_name(spec, all[1], n);
    int err = full || same_name(spec, base[0], n) || same_name(spec, base[1], n) ? 0 : -RD_E_INVAL;
    *named = full;
    for (unsigned f = 0; f < CPU_FEAT_COUNT; f++)
        set_feat(m, (enum cpu_feat)f, (full || in_baseline(f)) && feats[f].how != OPT && available(m, host, f));
    while (!err && spec[n]) {
        spec += n + 1;
        n = strcspn(spec, ",");
        err = apply_word(m, host, spec, n);
    }
    if (err && bad_bytes)
        snprintf(bad, bad_bytes, "%.*s", (int)n, spec);
    drop_dependants(m);
    return err;
}

/* ---- leaves ---- */

static uint32_t *leaf_at(struct cpumodel *m, uint32_t leaf, uint32_t sub)
{
    for (unsigned i = 0; i < m->n; i++)
        if (m->leaf[i].leaf == leaf && m->leaf[i].sub == sub)
            return m->leaf[i].out;
    if (m->n == CPUMODEL_LEAVES)
        return m->leaf[CPUMODEL_LEAVES - 1].out;
    m->leaf[m->n] = (struct cpuid_leaf){.leaf = leaf, .sub = sub};
    return m->leaf[m->n++].out;
}

static void copy_leaf(struct cpumodel *m, cpuid_fn *host, uint32_t leaf, uint32_t sub)
{
    host_leaf(m, host, leaf, sub, leaf_at(m, leaf, sub));
}

/* Caches as the host's, each shared by nobody: bits 25:14 threads - 1, Intel's 31:26 cores - 1. */
static void build_caches(struct cpumodel *m, cpuid_fn *host, uint32_t leaf)
{
    for (uint32_t sub = 0; sub < 8; sub++) {
        uint32_t *o = leaf_at(m, leaf, sub);
        host_leaf(m, host, leaf, sub, o);
        o[EAX] &= 0x3fff;
        if (!(o[EAX] & 0x1f))
            break;
    }
}

static void build_xsave(struct cpumodel *m, cpuid_fn *host)
{
    static const uint8_t comps[] = {2, 5, 6, 7};
    m->xcr0 = !cpumodel_has(m, CPU_FEAT_XSAVE)    ? 0
              : cpumodel_has(m, CPU_FEAT_AVX512F) ? 0xe7
              : cpumodel_has(m, CPU_FEAT_AVX)     ? 7
                                                  : 3;
    m->xsave_bytes = 576;
    for (unsigned i = 0; i < sizeof(comps); i++) {
        uint32_t o[4];
        if (!(m->xcr0 >> comps[i] & 1))
            continue;
        host_leaf(m, host, 0xd, comps[i], o);
        m->xsize[comps[i]] = o[EAX];
        m->xoffset[comps[i]] = o[EBX];
        m->xaligned |= (o[ECX] >> 1 & 1) << comps[i];
        if (o[EAX] + o[EBX] > m->xsave_bytes)
            m->xsave_bytes = o[EAX] + o[EBX];
        o[ECX] &= 2; /* alignment in the compacted format; user state */
        memcpy(leaf_at(m, 0xd, comps[i]), o, 16);
    }
    uint32_t *o = leaf_at(m, 0xd, 0);
    o[EAX] = (uint32_t)m->xcr0;
    o[ECX] = m->xcr0 ? m->xsave_bytes : 0;
    leaf_at(m, 0xd, 1);
}

static void build_topology(struct cpumodel *m)
{
    /* One thread in one core: no APIC ID bits for either level. */
    for (unsigned i = 0; i < 2; i++) {
        uint32_t leaf = i ? 0x1f : 0xb, *o = leaf_at(m, leaf, 0);
        o[EBX] = 1;
        o[ECX] = 1 << 8;
        o = leaf_at(m, leaf, 1);
        o[EBX] = 1;
        o[ECX] = 2 << 8 | 1;
    }
}

static void build_brand(struct cpumodel *m, cpuid_fn *host, bool named)
{
    char brand[48] = "Ringdown 64-bit virtual CPU";
    for (uint32_t i = 0; i < 3; i++) {
        uint32_t *o = leaf_at(m, 0x80000002u + i, 0);
        host_leaf(m, host, 0x80000002u + i, 0, o);
        if (!named)
            memcpy(o, brand + 16 * i, 16);
    }
}

static void build_basic(struct cpumodel *m, cpuid_fn *host)
{
    uint32_t o[4], *p;
    host(0, 0, o);
    /* 0x1f on Intel's (topology), 0xd on AMD's: what lies above belongs to things that are not offered. */
    uint32_t top = m->intel ? 0x1f : 0xd;
    m->max_basic = top;
    o[EAX] = top;
    memcpy(leaf_at(m, 0, 0), o, 16);
    host(1, 0, o);
    p = leaf_at(m, 1, 0);
    p[EAX] = o[EAX];
    p[EBX] = (o[EBX] & 0xff00) | 1u << 16;
    if (m->intel) {
        copy_leaf(m, host, 2, 0);
        build_caches(m, host, 4);
    }
    leaf_at(m, 7, 0)[EAX] = 1; /* highest subleaf */
    build_topology(m);
    build_xsave(m, host);
}

static void build_extended(struct cpumodel *m, cpuid_fn *host, bool named)
{
    static const uint32_t same[] = {0x80000005u, 0x80000006u, 0x80000019u, 0x8000001au};
    uint32_t o[4];
    host(0x80000000u, 0, o);
    m->max_ext = m->amd ? 0x80000021u : 0x80000008u;
    o[EAX] = m->max_ext;
    memcpy(leaf_at(m, 0x80000000u, 0), o, 16);
    host_leaf(m, host, 0x80000001u, 0, o);
    leaf_at(m, 0x80000001u, 0)[EAX] = o[EAX];
    leaf_at(m, 0x80000001u, 0)[EBX] = o[EBX];
    build_brand(m, host, named);
    for (unsigned i = 0; i < sizeof(same) / sizeof(same[0]); i++)
        if (same[i] <= m->max_ext)
            copy_leaf(m, host, same[i], 0);
    leaf_at(m, 0x80000008u, 0)[EAX] = 48u << 8 | GUEST_MAXPHYADDR;
    if (m->amd && cpumodel_has(m, CPU_FEAT_TOPOEXT)) {
        build_caches(m, host, 0x8000001du);
        leaf_at(m, 0x8000001eu, 0); /* one thread per core, core 0, node 0 of 1 */
    }
}

static void build_feature_bits(struct cpumodel *m)
{
    for (unsigned f = 0; f < CPU_FEAT_COUNT; f++)
        if (cpumodel_has(m, (enum cpu_feat)f))
            leaf_at(m, feats[f].leaf, feats[f].sub)[feats[f].reg] |= 1u << feats[f].bit;
    /* AMD64 APM vol. 3 appendix E.4.2: the same bits in the extended leaf. */
    if (m->amd)
        leaf_at(m, 0x80000001u, 0)[EDX] |= leaf_at(m, 1, 0)[EDX] & 0x0183f3ffu;
}

int cpumodel_create(struct cpumodel **out, const char *spec, cpuid_fn *host, char *bad, unsigned bad_bytes)
{
    uint32_t o[4];
    bool named;
    if (bad_bytes)
        bad[0] = 0;
    struct cpumodel *m = calloc(1, sizeof(*m));
    if (!m)
        return -RD_E_NOMEM;
    host(0, 0, o);
    m->intel = o[EBX] == signature_INTEL_ebx;
    m->amd = o[EBX] == signature_AMD_ebx || o[EBX] == HYGON_EBX;
    int err = apply_spec(m, host, spec ? spec : "host", &named, bad, bad_bytes);
    if (err) {
        free(m);
        return err;
    }
    build_basic(m, host);
    build_extended(m, host, named);
    build_feature_bits(m);
    *out = m;
    return 0;
}

void cpumodel_destroy(struct cpumodel *m) { free(m); }

int cpumodel_set_hv(struct cpumodel *m, const uint32_t (*leaves)[5], unsigned n)
{
    if (n > CPUMODEL_HV_LEAVES)
        return -RD_E_RANGE;
    for (unsigned i = 0; i < n; i++) {
        m->hv[i] = (struct cpuid_leaf){.leaf = leaves[i][0]};
        memcpy(m->hv[i].out, &leaves[i][1], 16);
    }
    m->n_hv = n;
    return 0;
}

/* A num/den near a/b with num <= max: the last convergent of the continued fraction, or the intermediate one after it if that
 * is nearer. a and b are not 0. */
static void approximate(uint32_t a, uint32_t b, uint32_t max, uint32_t *num, uint32_t *den)
{
    uint64_t n0 = 0, d0 = 1, n1 = 1, d1 = 0, x = a, y = b, k = 0;
    while (y) {
        uint64_t q = x / y, rest = x % y;
        k = n1 ? (max - n0) / n1 : q;
        if (q * n1 + n0 > max)
            break;
        uint64_t n = q * n1 + n0, d = q * d1 + d0;
        n0 = n1, d0 = d1;
        n1 = n, d1 = d;
        x = y;
        y = rest;
        k = 0;
    }
    uint64_t n = k * n1 + n0, d = k * d1 + d0;
    double want = (double)a / b, err = d1 ? (double)n1 / (double)d1 - want : want,
           other = d ? (double)n / (double)d - want : want;
    bool nearer = k && (other < 0 ? -other : other) < (err < 0 ? -err : err);
    *num = (uint32_t)(nearer ? n : n1);
    *den = (uint32_t)(nearer ? d : d1);
}

void cpumodel_set_tsc(struct cpumodel *m, uint32_t tsc_khz, uint32_t crystal_hz)
{
    uint32_t crystal_khz = crystal_hz / 1000;
    m->tsc_khz = tsc_khz;
    if (!tsc_khz || !crystal_khz || !m->intel)
        return;
    /* Stock kernels multiply the crystal's kHz with EBX in 32 bits, so the exact fraction will not do. What does is
     * within 50 parts in a million (near a simple ratio), mostly within one. */
    uint32_t *o = leaf_at(m, 0x15, 0), num, den;
    approximate(tsc_khz, crystal_khz, UINT32_MAX / crystal_khz, &num, &den);
    o[EAX] = den;
    o[EBX] = num;
    o[ECX] = den ? crystal_hz : 0; /* a ratio that cannot be given: zeros, as of CPUs that do not know it */
    o = leaf_at(m, 0x16, 0);
    o[EAX] = o[EBX] = (tsc_khz + 500) / 1000;
    o[ECX] = 100;
}

const char *cpumodel_feature(const struct cpumodel *m, unsigned i, bool *on)
{
    if (i >= CPU_FEAT_COUNT)
        return NULL;
    *on = cpumodel_has(m, (enum cpu_feat)i);
    return feats[i].name;
}
