/* FXSAVE and XSAVE families: formats, what 64-bit mode alone reaches, checks, faults; the image's own functions. */
#include "base/err.h"
#include "monitor/fpu.h"
#include "monitor/sysfn_int.h"
#include "tests/unit/monitor/test_segment_env.h"
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define AREA 0x30000ull
static struct cpumodel *cpu;
static uint64_t comps;

static void done(void)
{
    if (v)
        fpu_destroy(v);
    cpumodel_destroy(cpu);
    cpu = NULL;
    env_free();
}
TestSuite(fpustate, .fini = done);

/* A different byte in every register; both legacy and extended state in use. */
static void fill_image(unsigned salt)
{
    fpu_image_own(v, comps);
    for (unsigned i = FPU_ST; i < FPU_XMM; i++)
        v->xsave[i] = (i & 15) < 10 ? (uint8_t)(i * 7 + salt) : 0;
    for (unsigned i = FPU_XMM; i < 416; i++)
        v->xsave[i] = (uint8_t)(i * 3 + salt);
    for (unsigned c = 2; c < 8; c++)
        for (unsigned i = 0; i < (comps >> c & 1 ? cpu->xsize[c] : 0); i++)
            v->xsave[cpu->xoffset[c] + i] = (uint8_t)(i * 5 + c + salt);
    uint32_t mxcsr = 0x1fa0;
    memcpy(v->xsave + FPU_MXCSR, &mxcsr, 4);
}
static void setup(void)
{
    char bad[32];
    cr_assert_eq(cpumodel_create(&cpu, "host", cpumodel_host_cpuid, bad, sizeof bad), 0);
    v->cpu = cpu;
    cr_assert_eq(fpu_create(v), 0);
    comps = v->c.xcr0 = cpu->xcr0 ? cpu->xcr0 : 3;
    v->c.cr4 |= CR4_OSFXSR | (cpu->xcr0 ? CR4_OSXSAVE : 0);
    cpu_update_key(&v->c);
    v->ea = AREA;
    fill_image(1);
}
static void start64(void)
{
    env_long(0);
    setup();
}
static void start32(void)
{
    env_prot(0);
    setup();
}
static bool have(enum cpu_feat f) { return cpumodel_has(cpu, f); }

static int run(unsigned code, unsigned opsize, uint64_t mask)
{
    struct sys_op op = mk_op(opsize, 3);
    op.op = (uint8_t)code;
    v->c.gpr[R_RAX] = mask & 0xffffffff;
    v->c.gpr[R_RDX] = mask >> 32;
    return sys_exec(v, op);
}
static uint8_t *mem(uint64_t at) { return gpmem_ptr(v->mem, at); }
static void paint(uint8_t byte) { memset(mem(AREA), byte, 0x2000); }
static uint64_t bv(void) { return get(AREA + FPU_BV, 8); }

/* ---- FXSAVE, FXRSTOR ---- */

Test(fpustate, fxsave_stores_all_registers_in_64_bit_mode)
{
    start64();
    paint(0xcc);
    cr_expect_eq(run(SYS_OP_FXSAVE, 8, 0), SYS_NEXT);
    cr_expect_eq(memcmp(mem(AREA + FPU_ST), v->xsave + FPU_ST, 128), 0);
    cr_expect_eq(memcmp(mem(AREA + FPU_XMM), v->xsave + FPU_XMM, 256), 0);
    cr_expect_eq(get(AREA + FPU_MXCSR, 4), 0x1fa0);
    cr_expect_eq(get(AREA + 416, 8), 0xccccccccccccccccull, "reserved bytes stay");
    cr_expect_not(v->fpu_live, "the host keeps its state");
}

Test(fpustate, fxsave_outside_64_bit_mode_leaves_xmm8_up)
{
    start32();
    paint(0xcc);
    cr_expect_eq(run(SYS_OP_FXSAVE, 4, 0), SYS_NEXT);
    cr_expect_eq(memcmp(mem(AREA + FPU_XMM), v->xsave + FPU_XMM, 128), 0);
    cr_expect_eq(get(AREA + 288, 8), 0xccccccccccccccccull);
}

Test(fpustate, fxrstor_outside_64_bit_mode_keeps_xmm8_up)
{
    start32();
    cr_expect_eq(run(SYS_OP_FXSAVE, 4, 0), SYS_NEXT);
    memset(mem(AREA + FPU_XMM), 0x99, 256);
    cr_expect_eq(run(SYS_OP_FXRSTOR, 4, 0), SYS_NEXT);
    cr_expect_eq(v->xsave[FPU_XMM + 127], 0x99);
    cr_expect_eq(v->xsave[FPU_XMM + 128], (uint8_t)(288 * 3 + 1));
}

Test(fpustate, fxrstor_checks_mxcsr_alignment_and_ts)
{
    start64();
    cr_expect_eq(run(SYS_OP_FXSAVE, 8, 0), SYS_NEXT);
    put(AREA + FPU_MXCSR, 4, 0x10000);
    expect_fault("mxcsr", run(SYS_OP_FXRSTOR, 8, 0), EXC_GP, 0);
    v->ea = AREA + 8;
    expect_fault("alignment", run(SYS_OP_FXSAVE, 8, 0), EXC_GP, 0);
    v->c.cr0 |= CR0_TS;
    expect_fault("ts", run(SYS_OP_FXSAVE, 8, 0), EXC_NM, 0);
    v->c.cr0 = (v->c.cr0 & ~(uint64_t)CR0_TS) | CR0_EM;
    expect_fault("em", run(SYS_OP_FXSAVE, 8, 0), EXC_NM, 0);
}

Test(fpustate, fxsave_into_a_missing_page_faults_and_writes_nothing)
{
    start64();
    uint64_t pt = TABLES + 0x3000;
    for (unsigned i = 0; i < 512; i++)
        put(pt + 8 * i, 8, (0x200000 + i * 0x1000ull) | (i == 1 ? 0 : 7));
    put(TABLES + 0x2008, 8, pt | 7);
    v->ea = 0x200f00;
    cr_expect_eq(run(SYS_OP_FXSAVE, 8, 0), SYS_FAULT);
    cr_expect_eq(v->fault.vector, EXC_PF);
    cr_expect_eq(v->fault.cr2, 0x2010ff, "the last byte is probed first");
    cr_expect_eq(get(0x200f00, 8), 0);
}

static void missing_page(unsigned missing)
{
    uint64_t pt = TABLES + 0x3000;
    for (unsigned i = 0; i < 512; i++)
        put(pt + 8 * i, 8, (0x200000 + i * 0x1000ull) | (i == missing ? 0 : 7));
    put(TABLES + 0x2008, 8, pt | 7);
}

/* An area whose legacy region lies in a missing page. */
Test(fpustate, parts_that_the_mask_leaves_out_are_not_touched)
{
    start64();
    missing_page(1);
    v->ea = 0x202000 - FPU_BV;
    put(0x202000, 8, 0);
    put(0x202008, 8, 0);
    put(0x202010, 8, 0);
    uint64_t mask = v->c.xcr0 & ~(uint64_t)(XCR0_X87 | XCR0_SSE | XCR0_AVX);
    if (!mask)
        return;
    cr_expect_eq(run(SYS_OP_XSAVE, 8, mask), SYS_NEXT);
    cr_expect_eq(run(SYS_OP_XRSTOR, 8, mask), SYS_NEXT);
    cr_expect_eq(run(SYS_OP_XRSTOR, 8, mask | XCR0_SSE), SYS_FAULT, "not in use, but in the mask");
    cr_expect(v->fault.vector == EXC_PF && v->fault.cr2 == v->ea + FPU_MXCSR);
}

/* Not in use: XSAVEOPT leaves its part of the area alone, also where the area is not contiguous in memory. */
Test(fpustate, xsaveopt_leaves_initial_components_alone_in_a_split_area)
{
    start64();
    if (!have(CPU_FEAT_XSAVEOPT))
        return;
    missing_page(~0u);
    put(TABLES + 0x3000 + 8, 8, 0x203007); /* page 1 is elsewhere */
    v->ea = 0x200fc0;
    fpu_leave(v);
    memset(gpmem_ptr(v->mem, 0x203000), 0x5a, 0x1000);
    put(0x203000 + FPU_BV - 0x40, 8, 0);
    memset(v->xsave + FPU_BV, 0, 8);
    cr_expect_eq(run(SYS_OP_XSAVEOPT, 8, XCR0_SSE), SYS_NEXT);
    cr_expect_eq(get(0x203000 + FPU_XMM - 0x40, 8), 0x5a5a5a5a5a5a5a5aull);
    cr_expect_eq(get(0x203000 + FPU_BV - 0x40, 8), 0);
}

/* ---- XSAVE, XRSTOR ---- */

Test(fpustate, xsave_needs_osxsave_and_alignment)
{
    start64();
    v->c.cr4 &= ~(uint64_t)CR4_OSXSAVE;
    expect_fault("osxsave", run(SYS_OP_XSAVE, 8, 7), EXC_UD, 0);
    if (!cpu->xcr0)
        return;
    v->c.cr4 |= CR4_OSXSAVE;
    v->ea = AREA + 32;
    expect_fault("alignment", run(SYS_OP_XSAVE, 8, 7), EXC_GP, 0);
    v->c.cr0 |= CR0_TS;
    expect_fault("ts", run(SYS_OP_XSAVE, 8, 7), EXC_NM, 0);
}

static void round_trip(unsigned save, uint64_t at)
{
    uint8_t want[FPU_BYTES];
    v->ea = at;
    fill_image(9);
    memcpy(want, v->xsave, sizeof want);
    cr_assert_eq(run(save, 8, ~0ull), SYS_NEXT);
    fill_image(77);
    cr_assert_eq(run(SYS_OP_XRSTOR, 8, ~0ull), SYS_NEXT);
    fpu_image_own(v, comps);
    cr_expect_eq(memcmp(v->xsave + FPU_ST, want + FPU_ST, 384), 0, "legacy registers, op %u", save);
    for (unsigned c = 2; c < 8; c++)
        if (comps >> c & 1)
            cr_expect_eq(memcmp(v->xsave + cpu->xoffset[c], want + cpu->xoffset[c], cpu->xsize[c]), 0, "component %u",
                         c);
    cr_expect_eq(v->xsave[FPU_MXCSR], 0xa0);
}

/* Two pages that are neighbours in linear memory only: the bounce buffer. */
static uint64_t scattered(void)
{
    uint64_t pt = TABLES + 0x3000;
    for (unsigned i = 0; i < 512; i++)
        put(pt + 8 * i, 8, (0x200000 + (i ^ 1) * 0x1000ull) | 7);
    put(TABLES + 0x2008, 8, pt | 7);
    return 0x200fc0;
}

Test(fpustate, every_save_is_undone_by_xrstor)
{
    start64();
    if (!cpu->xcr0)
        return;
    round_trip(SYS_OP_XSAVE, AREA);
    if (have(CPU_FEAT_XSAVEOPT))
        round_trip(SYS_OP_XSAVEOPT, AREA);
    if (have(CPU_FEAT_XSAVEC))
        round_trip(SYS_OP_XSAVEC, AREA);
    uint64_t at = scattered();
    round_trip(SYS_OP_XSAVE, at);
    if (have(CPU_FEAT_XSAVEOPT))
        round_trip(SYS_OP_XSAVEOPT, at);
    if (have(CPU_FEAT_XSAVEC))
        round_trip(SYS_OP_XSAVEC, at);
}

Test(fpustate, xsave_writes_only_what_was_asked_for)
{
    start64();
    if (!cpu->xcr0)
        return;
    paint(0xcc);
    put(AREA + FPU_BV, 8, 0);
    cr_expect_eq(run(SYS_OP_XSAVE, 8, 2), SYS_NEXT);
    cr_expect_eq(bv(), 2);
    cr_expect_eq(get(AREA, 8), 0xccccccccccccccccull, "no x87");
    cr_expect_eq(get(AREA + FPU_XMM, 1), v->xsave[FPU_XMM]);
    cr_expect_eq(get(AREA + FPU_AREA, 8), 0xccccccccccccccccull);
}

/* XSAVEOPT may skip what did not change since XRSTOR from the same place; nothing like that may show. */
Test(fpustate, xsaveopt_never_leaves_stale_bytes)
{
    start64();
    if (!have(CPU_FEAT_XSAVEOPT))
        return;
    cr_expect_eq(run(SYS_OP_XSAVE, 8, ~0ull), SYS_NEXT);
    for (unsigned i = 0; i < 4; i++) {
        cr_expect_eq(run(SYS_OP_XRSTOR, 8, ~0ull), SYS_NEXT);
        memset(mem(AREA + FPU_XMM), 0x11, 256);
        cr_expect_eq(run(SYS_OP_XSAVEOPT, 8, ~0ull), SYS_NEXT);
        cr_expect_eq(get(AREA + FPU_XMM, 1), (uint8_t)(FPU_XMM * 3 + 1), "round %u", i);
    }
}

Test(fpustate, components_outside_xcr0_are_not_touched)
{
    start64();
    if (!(comps & XCR0_AVX))
        return;
    v->c.xcr0 = 3;
    paint(0);
    cr_expect_eq(run(SYS_OP_XSAVE, 8, ~0ull), SYS_NEXT);
    cr_expect_eq(bv(), 3);
    put(AREA + FPU_BV, 8, 7);
    expect_fault("bit outside XCR0", run(SYS_OP_XRSTOR, 8, ~0ull), EXC_GP, 0);
    put(AREA + FPU_BV, 8, 0);
    cr_expect_eq(run(SYS_OP_XRSTOR, 8, ~0ull), SYS_NEXT);
    cr_expect_eq(v->xsave[FPU_BV] & 3, 0, "initial");
    cr_expect_eq(v->xsave[cpu->xoffset[2] + 1], (uint8_t)(5 + 2 + 1), "AVX kept");
}

Test(fpustate, xrstor_refuses_bad_headers)
{
    start64();
    if (!cpu->xcr0)
        return;
    paint(0);
    put(AREA + FPU_MXCSR, 4, 0x1f80);
    cr_expect_eq(run(SYS_OP_XRSTOR, 8, ~0ull), SYS_NEXT);
    put(AREA + FPU_BV, 8, 1ull << 62);
    expect_fault("unknown component", run(SYS_OP_XRSTOR, 8, ~0ull), EXC_GP, 0);
    put(AREA + FPU_BV, 8, 0);
    put(AREA + 520, 8, 1);
    expect_fault("xcomp", run(SYS_OP_XRSTOR, 8, ~0ull), EXC_GP, 0);
    put(AREA + 520, 8, 0);
    put(AREA + 528, 8, 1);
    expect_fault("reserved", run(SYS_OP_XRSTOR, 8, ~0ull), EXC_GP, 0);
    put(AREA + 528, 8, 0);
    put(AREA + 568, 8, 1);
    cr_expect_eq(run(SYS_OP_XRSTOR, 8, ~0ull), SYS_NEXT, "bytes 63:24 are not looked at in the standard form");
    put(AREA + FPU_MXCSR, 4, 1u << 30);
    expect_fault("mxcsr though SSE is initial", run(SYS_OP_XRSTOR, 8, 4), EXC_GP, 0);
    cr_expect_eq(run(SYS_OP_XRSTOR, 8, 1), SYS_NEXT, "x87 alone does not load it");
}

Test(fpustate, xrstor_refuses_bad_compacted_headers)
{
    start64();
    if (!have(CPU_FEAT_XSAVEC))
        return;
    paint(0);
    put(AREA + 520, 8, 1ull << 63 | 3);
    put(AREA + FPU_BV, 8, 4);
    expect_fault("component not in the area", run(SYS_OP_XRSTOR, 8, ~0ull), EXC_GP, 0);
    put(AREA + FPU_BV, 8, 0);
    put(AREA + 520, 8, 1ull << 63 | 1ull << 9);
    expect_fault("component outside XCR0", run(SYS_OP_XRSTOR, 8, ~0ull), EXC_GP, 0);
    put(AREA + 520, 8, 1ull << 63 | 3);
    put(AREA + 568, 8, 1);
    expect_fault("reserved", run(SYS_OP_XRSTOR, 8, ~0ull), EXC_GP, 0);
    put(AREA + 568, 8, 0);
    put(AREA + FPU_MXCSR, 4, 1u << 30);
    cr_expect_eq(run(SYS_OP_XRSTOR, 8, ~0ull), SYS_NEXT, "MXCSR is not loaded without SSE");
    cr_expect_eq(v->xsave[FPU_MXCSR], 0x80, "but set to its initial value");
}

Test(fpustate, xsave_family_outside_64_bit_mode_reaches_8_registers)
{
    start32();
    if (!(comps & XCR0_AVX))
        return;
    paint(0xcc);
    memset(mem(AREA + FPU_BV), 0, 64);
    cr_expect_eq(run(SYS_OP_XSAVE, 4, 7), SYS_NEXT);
    uint64_t ymm = AREA + cpu->xoffset[2];
    cr_expect_eq(get(AREA + 288, 4), 0xcccccccc);
    cr_expect_eq(get(ymm + 127, 2), 0xcc00u | (uint8_t)(127 * 5 + 3));
    memset(mem(AREA + FPU_XMM), 0x22, 256);
    memset(mem(ymm), 0x33, 256);
    cr_expect_eq(run(SYS_OP_XRSTOR, 4, 7), SYS_NEXT);
    fpu_image_own(v, comps);
    cr_expect_eq(v->xsave[FPU_XMM + 127], 0x22);
    cr_expect_eq(v->xsave[FPU_XMM + 128], (uint8_t)(288 * 3 + 1));
    cr_expect_eq(v->xsave[cpu->xoffset[2] + 127], 0x33);
    cr_expect_eq(v->xsave[cpu->xoffset[2] + 128], (uint8_t)(128 * 5 + 3));
    put(AREA + FPU_BV, 8, 0);
    cr_expect_eq(run(SYS_OP_XRSTOR, 4, 7), SYS_NEXT);
    fpu_image_own(v, comps);
    cr_expect_eq(v->xsave[FPU_XMM + 127], 0, "initial below");
    cr_expect_eq(v->xsave[FPU_XMM + 128], (uint8_t)(288 * 3 + 1), "kept above");
}

Test(fpustate, compacted_area_outside_64_bit_mode)
{
    start32();
    if (!have(CPU_FEAT_XSAVEC) || !(comps & XCR0_AVX))
        return;
    paint(0xcc);
    cr_expect_eq(run(SYS_OP_XSAVEC, 4, 6), SYS_NEXT);
    cr_expect_eq(get(AREA + 520, 8), 1ull << 63 | 6);
    cr_expect_eq(get(AREA + 576 + 128, 4), 0xcccccccc);
    memset(mem(AREA + 528), 0, 48);
    fill_image(50);
    cr_expect_eq(run(SYS_OP_XRSTOR, 4, 6), SYS_NEXT);
    cr_expect_eq(v->xsave[cpu->xoffset[2]], (uint8_t)(2 + 1));
    cr_expect_eq(v->xsave[cpu->xoffset[2] + 128], (uint8_t)(128 * 5 + 2 + 50));
}

Test(fpustate, xgetbv_1_shows_what_is_in_use)
{
    start64();
    if (!have(CPU_FEAT_XGETBV1))
        return;
    uint64_t in_use = 1;
    memcpy(v->xsave + FPU_BV, &in_use, 8);
    v->c.gpr[R_RCX] = 1;
    cr_expect_eq(sys_exec(v, (struct sys_op){.op = SYS_OP_XGETBV, .len = 3}), SYS_NEXT);
    cr_expect_eq(v->c.gpr[R_RAX], 1);
}

/* ---- changing hands ---- */

Test(fpustate, enter_and_leave_keep_every_byte)
{
    uint8_t want[FPU_BYTES];
    start64();
    memcpy(want, v->xsave, sizeof want);
    fpu_enter(v);
    cr_expect(v->fpu_live);
    fpu_leave(v);
    cr_expect_not(v->fpu_live);
    fpu_image_own(v, comps);
    cr_expect_eq(memcmp(v->xsave + FPU_ST, want + FPU_ST, 384), 0);
    for (unsigned c = 2; c < 8; c++)
        if (comps >> c & 1)
            cr_expect_eq(memcmp(v->xsave + cpu->xoffset[c], want + cpu->xoffset[c], cpu->xsize[c]), 0);
    uint32_t mxcsr;
    __asm__ volatile("stmxcsr %0" : "=m"(mxcsr));
    cr_expect_eq(mxcsr, 0x1f80, "C has the default");
}

/* Alternating registers and image: XSAVEOPT must notice changes on both sides. */
Test(fpustate, image_changes_survive_entering_and_leaving)
{
    start64();
    for (unsigned i = 1; i < 50; i++) {
        memset(fpu_image_part(v, FPU_PART_XMM, i & 7), (int)i, 16);
        fpu_enter(v);
        if (i & 1)
            __asm__ volatile("pxor %%xmm9, %%xmm9" : : : "memory", "xmm9");
        fpu_leave(v);
        cr_assert_eq(v->xsave[FPU_XMM + 16 * (i & 7) + 15], i);
    }
    cr_expect_eq(*fpu_image_part(v, FPU_PART_XMM, 9), 0);
}

Test(fpustate, reset_state_is_the_manuals)
{
    start64();
    fpu_reset(v);
    fpu_enter(v);
    fpu_leave(v);
    cr_expect_eq(v->xsave[FPU_FCW], 0x40);
    cr_expect_eq(v->xsave[FPU_FTW], 0xff);
    cr_expect_eq(v->xsave[FPU_MXCSR], 0x80);
}

Test(fpustate, saved_image_comes_back_and_bad_ones_do_not)
{
    uint8_t buf[FPU_BYTES];
    start64();
    size_t n = fpu_image_get(v, NULL, 0);
    cr_assert_leq(n, sizeof buf);
    cr_expect_eq(fpu_image_get(v, buf, sizeof buf), n);
    fill_image(200);
    cr_expect_eq(fpu_image_set(v, buf, n), 0);
    cr_expect_eq(memcmp(v->xsave + FPU_ST, buf + FPU_ST, 384), 0);
    cr_expect_eq(fpu_image_set(v, buf, n - 1), -RD_E_FORMAT);
    buf[FPU_MXCSR + 3] = 0x80;
    cr_expect_eq(fpu_image_set(v, buf, n), -RD_E_FORMAT);
    buf[FPU_MXCSR + 3] = 0;
    buf[FPU_BV + 7] = 1;
    cr_expect_eq(fpu_image_set(v, buf, n), -RD_E_FORMAT);
    buf[FPU_BV + 7] = 0;
    buf[FPU_XCOMP] = 1;
    cr_expect_eq(fpu_image_set(v, buf, n), -RD_E_FORMAT);
}

static void guest_pointers(struct vcpu *u, uint64_t *fip, uint64_t *fdp)
{
    *fip = 0x1111;
    *fdp = 0x2222;
}
Test(fpustate, stored_pointers_are_the_guests)
{
    start64();
    v->fpu_pointers = guest_pointers;
    cr_expect_eq(run(SYS_OP_FXSAVE, 8, 0), SYS_NEXT);
    cr_expect_eq(get(AREA + 8, 8), 0x1111);
    cr_expect_eq(run(SYS_OP_FXSAVE, 4, 0), SYS_NEXT);
    cr_expect_eq(get(AREA + 16, 4), 0x2222);
}

/* ---- the state is away (in a user world) ---- */

static uint8_t elsewhere[FPU_BYTES];
static unsigned fetched;
static void fetch(struct vcpu *vcpu)
{
    memcpy(vcpu->xsave, vcpu->fpu_away, FPU_BYTES);
    fetched++;
}
/* What *xsave had goes away, and something else is left in its place. */
static void send_away(void)
{
    memcpy(elsewhere, v->xsave, sizeof elsewhere);
    fill_image(77);
    v->fpu_away = elsewhere;
    v->fpu_fetch = fetch;
    fetched = 0;
}

Test(fpustate, a_state_that_is_away_is_stored_and_stays_there)
{
    start64();
    send_away();
    cr_expect_eq(run(SYS_OP_FXSAVE, 8, 0), SYS_NEXT);
    cr_expect_eq(memcmp(mem(AREA + FPU_ST), elsewhere + FPU_ST, 384), 0);
    cr_expect(v->fpu_away == elsewhere && !v->fpu_live && fetched == 1);
}

Test(fpustate, a_state_that_is_away_is_back_once_part_of_it_is_loaded)
{
    start64();
    cr_expect_eq(run(SYS_OP_FXSAVE, 8, 0), SYS_NEXT);
    memset(mem(AREA + FPU_XMM), 0x99, 256);
    send_away();
    cr_expect_eq(run(SYS_OP_FXRSTOR, 8, 0), SYS_NEXT);
    cr_expect(!v->fpu_away && fetched == 1);
    cr_expect_eq(v->xsave[FPU_XMM], 0x99);
    for (unsigned c = 2; c < 8; c++)
        if (comps >> c & 1)
            cr_expect_eq(memcmp(v->xsave + cpu->xoffset[c], elsewhere + cpu->xoffset[c], cpu->xsize[c]), 0, "%u", c);
}

Test(fpustate, a_state_that_is_away_is_what_others_read_and_not_what_they_set)
{
    static uint8_t buf[FPU_BYTES];
    start64();
    send_away();
    cr_expect_eq(fpu_image_get(v, buf, sizeof buf), v->cpu->xsave_bytes);
    cr_expect_eq(memcmp(buf + FPU_ST, elsewhere + FPU_ST, 384), 0);
    cr_expect_not(v->fpu_away);
    send_away();
    buf[FPU_XMM] ^= 0xff;
    cr_expect_eq(fpu_image_set(v, buf, sizeof buf), 0);
    fpu_enter(v);
    fpu_leave(v);
    cr_expect(!v->fpu_away && fetched == 0);
    cr_expect_eq(v->xsave[FPU_XMM], buf[FPU_XMM]);
}
