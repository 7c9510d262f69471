/* The CPU model: what CPUID offers, the -cpu option, topology, XSAVE sizes, and that docs/CPUID.md tells the truth. */
#include "base/err.h"
#include "monitor/cpumodel.h"
#include "monitor/engine.h"
#include "monitor/sysinsn.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t out[4];
static char bad[64];

/* A made-up Intel host that has every feature bit there is, eight cores and AVX-512. */
static void intel_all(uint32_t leaf, uint32_t sub, uint32_t o[4])
{
    memset(o, 0, 16);
    switch (leaf) {
    case 0: o[0] = 0x20, o[1] = 0x756e6547, o[3] = 0x49656e69, o[2] = 0x6c65746e; break;
    case 1: o[0] = 0x806f8, o[1] = 0x07080800, o[2] = o[3] = ~0u; break;
    case 4: o[0] = sub < 2 ? 0xfc01c121u + sub : 0, o[1] = 0x2c0003f; break;
    case 7:
        o[0] = 2, o[1] = o[2] = o[3] = ~0u;
        if (sub)
            o[0] = ~0u;
        break;
    case 0xd:
        if (sub == 0)
            o[0] = 0x602e7, o[1] = 0xa88, o[2] = 0x2b00;
        else if (sub == 1)
            o[0] = ~0u;
        else if (sub == 2)
            o[0] = 256, o[1] = 576;
        else if (sub == 5)
            o[0] = 64, o[1] = 1088;
        else if (sub == 6)
            o[0] = 512, o[1] = 1152;
        else if (sub == 7)
            o[0] = 1024, o[1] = 1664, o[2] = 2;
        break;
    case 0x80000000u: o[0] = 0x80000008; break;
    case 0x80000001u: o[2] = o[3] = ~0u; break;
    case 0x80000002u: memcpy(o, "Pretend CPU", 12); break;
    case 0x80000007u: o[3] = ~0u; break;
    case 0x80000008u: o[0] = 0x3934, o[1] = ~0u; break;
    default: memset(o, 0xff, 16);
    }
}
/* The same as AMD would have it, with leaf 0x80000021 and topology extensions. */
static void amd_all(uint32_t leaf, uint32_t sub, uint32_t o[4])
{
    intel_all(leaf, sub, o);
    if (leaf == 0)
        o[0] = 0x10, o[1] = 0x68747541, o[3] = 0x69746e65, o[2] = 0x444d4163;
    if (leaf == 0x80000000u)
        o[0] = 0x80000028;
    if (leaf == 0x8000001du)
        o[0] = sub < 3 ? 0x3c121u : 0;
}
/* A first-generation x86-64. */
static void plain(uint32_t leaf, uint32_t sub, uint32_t o[4])
{
    intel_all(leaf, sub, o);
    if (leaf == 0)
        o[0] = 5;
    if (leaf == 1)
        o[2] = 1;
    if (leaf == 0x80000001u)
        o[2] = 1;
    if (leaf == 7 || leaf == 0xd)
        memset(o, 0, 16);
}

static struct cpumodel *model(const char *spec, cpuid_fn *host)
{
    struct cpumodel *m = NULL;
    int err = cpumodel_create(&m, spec, host, bad, sizeof bad);
    cr_assert_eq(err, 0, "%s refused: %s", spec, bad);
    return m;
}
static uint32_t reg(const struct cpumodel *m, uint32_t leaf, uint32_t sub, unsigned r)
{
    cpumodel_leaf(m, leaf, sub, out);
    return out[r];
}
static void expect_refused(const char *spec, int code, const char *word)
{
    struct cpumodel *m = NULL;
    int err = cpumodel_create(&m, spec, intel_all, bad, sizeof bad);
    cr_expect_eq(err, code, "%s: %d", spec, err);
    cr_expect_str_eq(bad, word);
    cr_expect_null(m);
}

Test(cpuid, host_with_everything_offers_no_reserved_feature)
{
    struct cpumodel *m = model("host", intel_all);
    cr_expect_eq(reg(m, 1, 0, 2) & (1u << 3 | 1u << 5 | 1u << 6 | 1u << 15), 0, "MONITOR VMX SMX PDCM");
    cr_expect_eq(out[2] >> 31, 1, "hypervisor");
    cr_expect_eq(out[2] >> 27 & 1, 0, "OSXSAVE is dynamic");
    uint32_t b = reg(m, 7, 0, 1);
    cr_expect_eq(b & (1u << 2 | 1u << 4 | 1u << 7 | 1u << 11 | 1u << 14 | 1u << 20 | 1u << 25), 0);
    cr_expect_eq(out[2] & (1u << 2 | 1u << 3 | 1u << 5 | 1u << 7 | 1u << 16 | 1u << 29), 0);
    cr_expect_eq(out[3] & (1u << 20 | 1u << 22 | 1u << 24 | 1u << 25 | 1u << 26 | 1u << 27 | 1u << 31), 0);
    cr_expect_eq(out[3] >> 29 & 1, 1, "ARCH_CAPABILITIES");
    cr_expect_eq(reg(m, 0xd, 1, 0), 7, "XSAVEOPT XSAVEC XGETBV1, no XSAVES");
    cr_expect_eq(reg(m, 0x80000001u, 0, 2) & 4, 0, "SVM");
    cpumodel_destroy(m);
}

Test(cpuid, bits_that_the_table_does_not_name_are_clear)
{
    struct cpumodel *m = model("host", intel_all);
    cr_expect_eq(reg(m, 1, 0, 3) & (1u << 10 | 1u << 18 | 1u << 20 | 1u << 30), 0);
    cr_expect_eq(reg(m, 7, 0, 3) & 0xf, 0);
    cr_expect_eq(reg(m, 0x14, 0, 1), 0, "processor trace leaf");
    cr_expect_eq(reg(m, 0xa, 0, 0), 0, "performance monitoring leaf");
    cr_expect_eq(reg(m, 0x1d, 0, 0), 0, "tile leaf");
    cpumodel_destroy(m);
}

Test(cpuid, topology_is_one_thread_everywhere)
{
    struct cpumodel *m = model("host", intel_all);
    cr_expect_eq(reg(m, 1, 0, 1) >> 16 & 0xff, 1);
    cr_expect_eq(out[3] >> 28 & 1, 0, "HTT");
    cr_expect_eq(reg(m, 4, 0, 0), 0x121, "cache shared by one thread of one core");
    cr_expect_eq(reg(m, 4, 2, 0) & 0x1f, 0, "end of list");
    static const uint32_t leaves[] = {0xb, 0x1f};
    for (unsigned i = 0; i < 2; i++) {
        cr_expect_eq(reg(m, leaves[i], 0, 0), 0);
        cr_expect_eq(out[1], 1);
        cr_expect_eq(out[2], 0x100);
        cr_expect_eq(reg(m, leaves[i], 1, 1), 1);
        cr_expect_eq(out[2], 0x201);
        cr_expect_eq(reg(m, leaves[i], 2, 1), 0);
        cr_expect_eq(out[2], 2, "invalid level echoes its number");
    }
    cr_expect_eq(reg(m, 0x80000008u, 0, 0), 0x3028);
    cr_expect_eq(out[2], 0);
    cpumodel_destroy(m);
}

Test(cpuid, amd_topology_and_feature_copies)
{
    struct cpumodel *m = model("host", amd_all);
    cr_expect(m->amd);
    cr_expect_eq(reg(m, 0x8000001du, 0, 0), 0x121);
    cr_expect_eq(reg(m, 0x8000001eu, 0, 1), 0);
    cr_expect_eq(reg(m, 0x80000001u, 0, 3) & 0x183f3ff, reg(m, 1, 0, 3) & 0x183f3ff);
    cr_expect_eq(reg(m, 0x80000008u, 0, 1) >> 26 & 1, 1, "SSB_NO");
    cr_expect_eq(reg(m, 0x12345678, 0, 0) | out[1] | out[2] | out[3], 0, "above the highest leaf: zeros");
    cpumodel_destroy(m);
}

Test(cpuid, intel_answers_leaves_too_high_with_the_highest_basic_one)
{
    struct cpumodel *m = model("host", intel_all);
    cr_expect_eq(reg(m, 0, 0, 0), 0x1f);
    cr_expect_eq(reg(m, 0x5000, 1, 2), 0x201);
    cr_expect_eq(reg(m, 0x80000009u, 1, 2), 0x201);
    cpumodel_destroy(m);
}

Test(cpuid, xsave_sizes_follow_xcr0)
{
    static struct vcpu v;
    struct cpumodel *m = model("host", intel_all);
    v.cpu = m;
    v.c.xcr0 = 1;
    sys_cpuid(&v, 0xd, 0, out);
    cr_expect_eq(out[0], 0xe7);
    cr_expect_eq(out[1], 576);
    cr_expect_eq(out[2], 1664 + 1024);
    v.c.xcr0 = 7;
    sys_cpuid(&v, 0xd, 0, out);
    cr_expect_eq(out[1], 832);
    v.c.xcr0 = 0xe7;
    sys_cpuid(&v, 0xd, 0, out);
    cr_expect_eq(out[1], 1664 + 1024);
    sys_cpuid(&v, 0xd, 1, out);
    cr_expect_eq(out[1], 576 + 256 + 64 + 512 + 1024);
    sys_cpuid(&v, 0xd, 9, out);
    cr_expect_eq(out[0] | out[1], 0, "no PKRU");
    cpumodel_destroy(m);
}

static int disabled_apic(void *opaque, uint32_t msr, uint64_t *val)
{
    *val = 0xfee00100;
    return msr == MSR_APIC_BASE ? 0 : 1;
}
static uint8_t id_five(void *opaque) { return 5; }
Test(cpuid, leaf_1_mirrors_osxsave_apic_enable_and_id)
{
    static const struct vm_ops ops = {.rdmsr = disabled_apic, .apic_id = id_five};
    static struct vcpu v;
    struct cpumodel *m = model("host", intel_all);
    v.cpu = m;
    sys_cpuid(&v, 1, 0, out);
    cr_expect_eq(out[3] >> 9 & 1, 1);
    v.ops = &ops;
    v.c.cr4 = CR4_OSXSAVE;
    sys_cpuid(&v, 1, 0, out);
    cr_expect_eq(out[3] >> 9 & 1, 0);
    cr_expect_eq(out[2] >> 27 & 1, 1);
    cr_expect_eq(out[1] >> 24, 5);
    sys_cpuid(&v, 0xb, 0, out);
    cr_expect_eq(out[3], 5);
    cpumodel_destroy(m);
}

Test(cpuid, dropping_avx_drops_what_needs_it)
{
    struct cpumodel *m = model("host,-avx", intel_all);
    cr_expect_not(cpumodel_has(m, CPU_FEAT_AVX2));
    cr_expect_not(cpumodel_has(m, CPU_FEAT_FMA));
    cr_expect_not(cpumodel_has(m, CPU_FEAT_AVX512BW));
    cr_expect(cpumodel_has(m, CPU_FEAT_SSE4_2));
    cr_expect_eq(m->xcr0, 3);
    cr_expect_eq(reg(m, 0xd, 2, 0), 0);
    cpumodel_destroy(m);
}

Test(cpuid, feature_words_of_every_spelling)
{
    struct cpumodel *m = model("host,avx512f=off,SSE4_2=off,+sse4.2,-x2apic", intel_all);
    cr_expect_not(cpumodel_has(m, CPU_FEAT_AVX512F));
    cr_expect(cpumodel_has(m, CPU_FEAT_SSE4_2));
    cr_expect_not(cpumodel_has(m, CPU_FEAT_X2APIC));
    cpumodel_destroy(m);
}

Test(cpuid, baseline_model_has_no_avx_until_asked)
{
    struct cpumodel *m = model("qemu64", intel_all);
    cr_expect_not(cpumodel_has(m, CPU_FEAT_XSAVE));
    cr_expect_not(cpumodel_has(m, CPU_FEAT_SSE4_1));
    cr_expect(cpumodel_has(m, CPU_FEAT_CX16));
    cr_expect_eq(reg(m, 0xd, 0, 0) | out[1] | out[2], 0);
    cpumodel_destroy(m);
    m = model("kvm64,+xsave,+avx", intel_all);
    cr_expect_eq(m->xcr0, 7);
    cpumodel_destroy(m);
}

Test(cpuid, wrong_words_are_refused_by_name)
{
    expect_refused("Skylake", -RD_E_INVAL, "Skylake");
    expect_refused("host,+warp", -RD_E_INVAL, "+warp");
    expect_refused("host,avx=maybe", -RD_E_INVAL, "avx=maybe");
    expect_refused("host,+vmx", -RD_E_UNSUPPORTED, "+vmx");
    expect_refused("host,", -RD_E_INVAL, "");
}

Test(cpuid, feature_that_the_host_lacks_is_refused)
{
    struct cpumodel *m = NULL;
    cr_expect_eq(cpumodel_create(&m, "host,+avx2", plain, bad, sizeof bad), -RD_E_UNSUPPORTED);
    m = model("host", plain);
    cr_expect_eq(m->xcr0, 0);
    cr_expect_not(cpumodel_has(m, CPU_FEAT_RDTSCP) && !(reg(m, 0x80000001u, 0, 3) >> 27 & 1));
    cpumodel_destroy(m);
}

Test(cpuid, hypervisor_leaves_and_their_end)
{
    static const uint32_t hv[][5] = {{0x40000000, 0x40000010, 1, 2, 3}, {0x40000010, 2000000, 1000000, 0, 0}};
    struct cpumodel *m = model("host", intel_all);
    cr_expect_eq(reg(m, 0x40000000, 0, 0), 0);
    cr_expect_eq(cpumodel_set_hv(m, hv, 2), 0);
    cr_expect_eq(reg(m, 0x40000000, 7, 3), 3);
    cr_expect_eq(reg(m, 0x40000010, 0, 0), 2000000);
    cr_expect_eq(reg(m, 0x40000011, 0, 0), 0);
    cr_expect_eq(cpumodel_set_hv(m, hv, CPUMODEL_HV_LEAVES + 1), -RD_E_RANGE);
    cpumodel_destroy(m);
}

Test(cpuid, tsc_leaves_give_back_the_frequency_in_32_bit_arithmetic)
{
    static const uint32_t khz[] = {1000000, 2299998, 2399997, 3000001, 4294967, 5812345, 999999, 133000};
    struct cpumodel *m = model("host", intel_all);
    for (unsigned i = 0; i < sizeof khz / sizeof khz[0]; i++) {
        cpumodel_set_tsc(m, khz[i], 1000000000);
        cpumodel_leaf(m, 0x15, 0, out);
        cr_assert_eq(out[2], 1000000000);
        cr_assert_leq(1000000ull * out[1], UINT32_MAX, "kernels compute this in 32 bits");
        double error = 1e6 * out[1] / out[0] / khz[i] - 1;
        cr_expect_leq(error < 0 ? -error : error, 50e-6, "%u kHz: %u/%u", khz[i], out[1], out[0]);
    }
    cr_expect_eq(reg(m, 0x16, 0, 0), 133);
    cpumodel_destroy(m);
}

Test(cpuid, real_host_makes_a_model_and_brand)
{
    struct cpumodel *m = model(NULL, cpumodel_host_cpuid);
    uint32_t host[4];
    cpumodel_host_cpuid(0x80000002u, 0, host);
    cr_expect_eq(reg(m, 0x80000002u, 0, 0), host[0]);
    cr_expect(cpumodel_has(m, CPU_FEAT_SSE2));
    cr_expect_lt(m->n, CPUMODEL_LEAVES);
    cpumodel_destroy(m);
}

Test(cpuid, arch_capabilities_promise_no_meltdown)
{
    struct cpumodel *m = model("host", intel_all), *n = model("host,+spec-ctrl", intel_all);
    cr_expect_eq(cpumodel_arch_capabilities(m) & 0x21, 0x21, "RDCL_NO, MDS_NO");
    cr_expect_eq(cpumodel_arch_capabilities(m) & 2, 0);
    cr_expect_eq(cpumodel_arch_capabilities(n) & 2, 2, "IBRS_ALL goes with SPEC_CTRL");
    cpumodel_destroy(m);
    cpumodel_destroy(n);
}

/* Rows "| name | leaf | sub | register | bit | how |" of the document, in the order of the list. */
Test(cpuid, document_has_every_feature_in_order)
{
    static const char *const rows[] = {
#define FEAT(id, name, leaf, sub, reg, bit, how, text)                                                                 \
    "| `" name "` | " #leaf " | " #sub " | " #reg " | " #bit " | " #how,
#include "monitor/cpufeat.def"
#undef FEAT
    };
    char line[512];
    unsigned i = 0, n = sizeof rows / sizeof rows[0];
    FILE *f = fopen("docs/CPUID.md", "r");
    cr_assert_not_null(f, "run from the source root");
    while (fgets(line, sizeof line, f)) {
        if (strncmp(line, "| `", 3) != 0)
            continue;
        cr_assert_lt(i, n, "extra row: %s", line);
        cr_assert_eq(strncmp(line, rows[i], strlen(rows[i])), 0, "row %u is %swanted %s", i, line, rows[i]);
        i++;
    }
    fclose(f);
    cr_expect_eq(i, n);
}

Test(cpuid, list_is_sorted_and_without_doubles)
{
    static const struct {
        uint32_t leaf, sub, reg, bit;
    } list[] = {
#define FEAT(id, name, leaf, sub, reg, bit, how, text) {leaf, sub, reg, bit},
#include "monitor/cpufeat.def"
#undef FEAT
    };
    for (unsigned i = 1; i < sizeof list / sizeof list[0]; i++) {
        uint64_t a = (uint64_t)list[i - 1].leaf << 32 | list[i - 1].sub << 16 | list[i - 1].reg << 8 | list[i - 1].bit;
        uint64_t b = (uint64_t)list[i].leaf << 32 | list[i].sub << 16 | list[i].reg << 8 | list[i].bit;
        cr_expect_lt(a, b, "row %u", i);
    }
}
