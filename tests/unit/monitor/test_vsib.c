/* Gathers, scatters and masked accesses against the host's CPU: the same instruction runs natively, with the operand at the
 * edge of an inaccessible page, and on the vCPU. Hosts without AVX-512 (or AVX2) pass what they cannot run. */
#include "monitor/fpu.h"
#include "monitor/sysfn_int.h"
#include "tests/unit/monitor/test_segment_env.h"
#include <Zydis/Zydis.h>
#include <criterion/criterion.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

static struct cpumodel *cpu;
static uint8_t *code, *page; /* page: three pages, the middle one usable */
static uint8_t before[FPU_BYTES] __attribute__((aligned(64))), after[FPU_BYTES] __attribute__((aligned(64)));
static sigjmp_buf back;
static volatile uint64_t fault_at;

static void on_fault(int sig, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    memcpy(after, uc->uc_mcontext.fpregs, cpu->xsave_bytes);
    fault_at = (uint64_t)info->si_addr;
    siglongjmp(back, sig);
}

static void setup(void)
{
    char bad[32];
    struct sigaction sa = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
    env_long(0);
    cr_assert_eq(cpumodel_create(&cpu, "host", cpumodel_host_cpuid, bad, sizeof bad), 0);
    v->cpu = cpu;
    v->c.xcr0 = cpu->xcr0;
    cr_assert_eq(fpu_create(v), 0);
    code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    page = mmap(NULL, 3 * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(page + 4096, 4096, PROT_READ | PROT_WRITE);
    sigaction(SIGSEGV, &sa, NULL);
    sigaction(SIGILL, &sa, NULL);
    sigaction(SIGFPE, &sa, NULL);
}
static void teardown(void)
{
    if (v)
        fpu_destroy(v);
    cpumodel_destroy(cpu);
    env_free();
}
TestSuite(vsib, .init = setup, .fini = teardown);

/* Runs code with registers from `before` and RAX = base; registers end up in `after`. Returns the signal, or 0. */
static int native(uint64_t base)
{
    int sig = sigsetjmp(back, 1);
    if (sig)
        return sig;
    uint64_t mask = cpu->xcr0;
    memset(after + FPU_BV, 0, 64);
    __asm__ volatile("xrstor64 (%[in])\n\t"
                     "mov %[base], %%rax\n\t"
                     "call *%[code]\n\t"
                     "mov %[mask], %%eax\n\t"
                     "xor %%edx, %%edx\n\t"
                     "xsave64 (%[out])\n\t"
                     "fninit\n\t"
                     "vzeroupper"
                     :
                     : [in] "r"(before), [out] "r"(after), [base] "r"(base), [code] "r"(code), [mask] "m"(mask),
                       "a"((uint32_t)mask), "d"(0)
                     : "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7");
    return 0;
}

static void random_registers(void)
{
    fpu_image_own(v, cpu->xcr0);
    for (unsigned i = FPU_XMM; i < 416; i++)
        v->xsave[i] = (uint8_t)rand();
    for (unsigned c = 2; c < 8; c++)
        for (unsigned i = 0; i < (cpu->xcr0 >> c & 1 ? cpu->xsize[c] : 0); i++)
            v->xsave[cpu->xoffset[c] + i] = (uint8_t)rand();
    memcpy(before, v->xsave, FPU_BYTES);
}
static void put_code(const uint8_t *bytes, unsigned len)
{
    memcpy(code, bytes, len);
    code[len] = 0xc3;
}

/* ---- masked operands ---- */

static struct {
    ZydisDecodedInstruction i;
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
} dec;
static bool decodes(const uint8_t *bytes)
{
    ZydisDecoder d;
    ZydisDecoderInit(&d, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    return ZYAN_SUCCESS(ZydisDecoderDecodeFull(&d, bytes, 15, &dec.i, dec.op));
}
static unsigned plain_memory_bytes(void)
{
    for (unsigned k = 0; k < dec.i.operand_count_visible; k++)
        if (dec.op[k].type == ZYDIS_OPERAND_TYPE_MEMORY)
            return dec.op[k].mem.type == ZYDIS_MEMOP_TYPE_MEM ? dec.op[k].size / 8 : 0;
    return 0;
}

/* Which signal, with the operand `edge` bytes before the end of the good page (or, negative, before its start)? */
static bool faults_at(int edge)
{
    uint8_t *at = edge >= 0 ? page + 8192 - edge : page + 4096 + edge;
    memcpy(before, v->xsave, FPU_BYTES);
    return native((uint64_t)at) == SIGSEGV;
}

static unsigned forms_tried;
static void check_form(const uint8_t *bytes)
{
    unsigned size = plain_memory_bytes();
    uint64_t touched = 0;
    bool aligned = dec.i.meta.exception_class == ZYDIS_EXCEPTION_CLASS_E1 ||
                   dec.i.meta.exception_class == ZYDIS_EXCEPTION_CLASS_E1NF;
    put_code(bytes, dec.i.length);
    memcpy(before, v->xsave, FPU_BYTES);
    if (!size || size > 64 || native((uint64_t)page + 4096) == SIGILL)
        return;
    forms_tried++;
    for (unsigned t = 0; t < 6; t++) {
        random_registers();
        if (t == 0)
            memset(fpu_image_part(v, FPU_PART_K, 1), 0, 8);
        if (t > 2) /* sparse */
            for (unsigned i = 0; i < 8; i++)
                *(fpu_image_part(v, FPU_PART_K, 1) + i) &= (uint8_t)(rand() & rand());
        cr_assert(sys_masked_bytes(v, bytes, dec.i.length, &touched));
        int edge = aligned ? 0 : (int)(rand() % (2 * (int)size)) - (int)size;
        uint64_t out = edge == 64 ? 0 : edge == -64 ? ~0ull : edge >= 0 ? ~0ull << edge : (1ull << -edge) - 1;
        if (size < 64)
            out &= (1ull << size) - 1;
        bool want = touched & out;
        if (faults_at(edge) != want) {
            char text[96];
            ZydisFormatter f;
            ZydisFormatterInit(&f, ZYDIS_FORMATTER_STYLE_INTEL);
            ZydisFormatterFormatInstruction(&f, &dec.i, dec.op, dec.i.operand_count_visible, text, sizeof text, 0,
                                            NULL);
            uint64_t k;
            memcpy(&k, fpu_image_part(v, FPU_PART_K, 1), 8);
            cr_expect(false, "%s (class %d): k1 %lx, %u bytes, edge %d: touched %lx, should %sfault", text,
                      dec.i.meta.exception_class, k, size, edge, touched, want ? "" : "not ");
            return;
        }
    }
}

Test(vsib, masked_operands_touch_what_the_host_touches)
{
    if (!cpumodel_has(cpu, CPU_FEAT_AVX512F))
        return;
    srand(1);
    random_registers();
    for (unsigned form = 0; form < 1u << 18; form++) {
        unsigned opcode = form & 255, pp = form >> 8 & 3, w = form >> 10 & 1, ll = form >> 11 & 3, b = form >> 13 & 1;
        static const uint8_t maps[] = {1, 2, 3, 5, 6, 0, 0, 0};
        unsigned map = maps[form >> 14 & 7];
        /* reg = 2, rm = [rax], vvvv = 3, V' R' X B R all plain, mask k1; imm8 follows */
        uint8_t bytes[15] = {0x62,
                             (uint8_t)(0xf0 | map),
                             (uint8_t)(w << 7 | (~3u & 15) << 3 | 4 | pp),
                             (uint8_t)(ll << 5 | b << 4 | 8 | 1),
                             (uint8_t)opcode,
                             0x10,
                             0x55};
        if (form >> 17 || !map || ll == 3)
            continue;
        bool ok = decodes(bytes);
        if (!ok) { /* forms without a second source */
            bytes[2] |= 0x78;
            ok = decodes(bytes);
        }
        if (ok && dec.i.avx.mask.mode != ZYDIS_MASK_MODE_DISABLED && dec.i.avx.mask.mode != ZYDIS_MASK_MODE_INVALID)
            check_form(bytes);
    }
    cr_expect_gt(forms_tried, 1000, "only %u forms", forms_tried);
}

Test(vsib, vmaskmov_touches_elements_with_the_sign_bit)
{
    static const uint8_t insns[][6] = {
        {0xc4, 0xe2, 0x65, 0x2c, 0x10}, /* vmaskmovps ymm2, ymm3, [rax] */
        {0xc4, 0xe2, 0x65, 0x2f, 0x10}, /* vmaskmovpd [rax], ymm3, ymm2 */
        {0xc4, 0xe2, 0xe5, 0x8c, 0x10}, /* vpmaskmovq ymm2, ymm3, [rax] */
        {0xc4, 0xe2, 0x61, 0x8e, 0x10}, /* vpmaskmovd [rax], xmm3, xmm2 */
    };
    uint64_t touched;
    if (!cpumodel_has(cpu, CPU_FEAT_AVX2))
        return;
    srand(2);
    for (unsigned t = 0; t < 400; t++) {
        const uint8_t *bytes = insns[t & 3];
        cr_assert(decodes(bytes));
        put_code(bytes, dec.i.length);
        random_registers();
        cr_assert(sys_masked_bytes(v, bytes, dec.i.length, &touched));
        unsigned edge = (unsigned)rand() % 33;
        uint64_t out = (edge == 32 ? 0 : ~0ull << edge) & 0xffffffff;
        cr_assert_eq(faults_at((int)edge), (touched & out) != 0, "case %u: touched %lx, edge %u", t, touched, edge);
    }
}

/* ---- gathers and scatters ---- */

#define GUEST 0x210000ull
static const uint8_t gather_ops[] = {0x90, 0x91, 0x92, 0x93, 0xa0, 0xa1, 0xa2, 0xa3};

/* The guest page GUEST + 0x1000 holds what page + 4096 holds; its neighbours are missing. */
static void mirror(void)
{
    uint64_t pt = TABLES + 0x3000;
    for (unsigned i = 0; i < 512; i++)
        put(pt + 8 * i, 8, (0x200000 + i * 0x1000ull) | (i == 0x10 || i == 0x12 ? 0 : 7));
    put(TABLES + 0x2008, 8, pt | 7);
    for (unsigned i = 0; i < 4096; i++)
        page[4096 + i] = (uint8_t)rand();
    memcpy(gpmem_ptr(v->mem, GUEST + 0x1000), page + 4096, 4096);
}

/* Indexes for register 4: most inside the page, now and then outside. */
static void put_indexes(unsigned is, unsigned scale)
{
    uint8_t *parts[] = {fpu_image_part(v, FPU_PART_XMM, 4), fpu_image_part(v, FPU_PART_YMM, 4),
                        fpu_image_part(v, FPU_PART_ZMM, 4)};
    unsigned bytes[] = {16, 16, 32};
    for (unsigned p = 0; p < 3; p++)
        for (unsigned i = 0; parts[p] && i < bytes[p]; i += is) {
            int64_t x = rand() % 12 ? (rand() % 4080 - 2048) / (int)scale : rand() % 6000 / (int)scale;
            memcpy(parts[p] + i, &x, is);
        }
}

static void same_part(const char *what, unsigned t, enum fpu_part part, unsigned n)
{
    uint8_t *p = fpu_image_part(v, part, n);
    if (!p)
        return;
    uint64_t bv, off = (uint64_t)(p - v->xsave);
    unsigned bytes = part == FPU_PART_K     ? 8
                     : part == FPU_PART_ZMM ? 32
                                            : 16,
             comp = part == FPU_PART_XMM   ? 1
                    : part == FPU_PART_YMM ? 2
                    : part == FPU_PART_ZMM ? 6
                                           : 5;
    static const uint8_t zero[64];
    memcpy(&bv, after + FPU_BV, 8);
    cr_assert_eq(memcmp(p, bv >> comp & 1 ? after + off : zero, bytes), 0, "%s: case %u, part %d of register %u", what,
                 t, part, n);
}

static unsigned faulted;
static void gather_case(const char *what, const uint8_t *bytes, unsigned t, unsigned is)
{
    if (!decodes(bytes))
        return;
    struct sys_op op = {.op = SYS_OP_VSIB, .len = dec.i.length};
    put_code(bytes, dec.i.length);
    mirror();
    random_registers();
    put_indexes(is, 1u << (bytes[dec.i.length - 1] >> 6));
    memcpy(before, v->xsave, FPU_BYTES);
    int sig = native((uint64_t)page + 4096 + 2048);
    if (sig == SIGILL)
        return;
    v->c.gpr[R_RAX] = GUEST + 0x1000 + 2048;
    v->op_imm = (uint64_t)(uintptr_t)bytes;
    int rc = sys_exec(v, op);
    cr_assert_eq(rc, sig ? SYS_FAULT : SYS_NEXT, "%s: case %u: result %d, host's signal %d", what, t, rc, sig);
    if (sig) {
        cr_assert_eq(v->fault.cr2 - GUEST, fault_at - (uint64_t)page, "%s: case %u: cr2 %lx", what, t, v->fault.cr2);
        faulted++;
    }
    for (unsigned r = 2; r < 5; r++) {
        same_part(what, t, FPU_PART_XMM, r);
        same_part(what, t, FPU_PART_YMM, r);
        same_part(what, t, FPU_PART_ZMM, r);
    }
    same_part(what, t, FPU_PART_K, 1);
    cr_assert_eq(memcmp(gpmem_ptr(v->mem, GUEST + 0x1000), page + 4096, 4096), 0, "%s: case %u: memory", what, t);
}

Test(vsib, vex_gathers_equal_the_hosts)
{
    if (!cpumodel_has(cpu, CPU_FEAT_AVX2))
        return;
    srand(3);
    for (unsigned t = 0; t < 2000; t++) {
        unsigned k = (unsigned)rand() % 4, w = (unsigned)rand() & 1, l = (unsigned)rand() & 1,
                 scale = (unsigned)rand() & 3;
        /* reg 2, mask vvvv 3, [rax + xmm4 << scale] */
        uint8_t bytes[15] = {0xc4,          0xe2, (uint8_t)(w << 7 | (~3u & 15) << 3 | l << 2 | 1),
                             gather_ops[k], 0x14, (uint8_t)(scale << 6 | 4 << 3)};
        gather_case("vex", bytes, t, k & 1 ? 8 : 4);
    }
    cr_expect_gt(faulted, 100);
}

Test(vsib, evex_gathers_and_scatters_equal_the_hosts)
{
    if (!cpumodel_has(cpu, CPU_FEAT_AVX512F))
        return;
    srand(4);
    for (unsigned t = 0; t < 4000; t++) {
        unsigned k = (unsigned)rand() % 8, w = (unsigned)rand() & 1, ll = (unsigned)rand() % 3,
                 scale = (unsigned)rand() & 3;
        uint8_t bytes[15] = {0x62,          0xf2, (uint8_t)(w << 7 | 0x7d),      (uint8_t)(ll << 5 | 8 | 1),
                             gather_ops[k], 0x14, (uint8_t)(scale << 6 | 4 << 3)};
        gather_case("evex", bytes, t, k & 1 ? 8 : 4);
    }
    cr_expect_gt(faulted, 200);
}

Test(vsib, gather_outside_64_bit_mode_honours_the_segment_limit)
{
    /* vpgatherdd xmm2, [eax + xmm4], xmm3 */
    static const uint8_t bytes[] = {0xc4, 0xe2, 0x61, 0x90, 0x14, 0x20};
    struct sys_op op = {.op = SYS_OP_VSIB, .len = sizeof bytes};
    uint32_t idx[4] = {0, 4, 0x100000, 8}, mask[4] = {~0u, 0, 0x80000000u, ~0u}, data[4] = {1, 2, 3, 4};
    if (!cpumodel_has(cpu, CPU_FEAT_AVX2))
        return;
    env_prot(0);
    v->cpu = cpu;
    cr_assert_eq(fpu_create(v), 0);
    memcpy(fpu_image_part(v, FPU_PART_XMM, 4), idx, 16);
    memcpy(fpu_image_part(v, FPU_PART_XMM, 3), mask, 16);
    memcpy(fpu_image_part(v, FPU_PART_XMM, 2), data, 16);
    put(0x30000, 4, 0x77);
    v->c.gpr[R_RAX] = 0x30000;
    v->c.seg[S_DS].limit = 0x30fff;
    v->op_imm = (uint64_t)(uintptr_t)bytes;
    v->c.eflags_sys |= EFLAGS_TF;
    cr_expect_eq(sys_exec(v, op), SYS_RESTART, "the first element has earned a single-step trap");
    v->c.eflags_sys &= ~EFLAGS_TF;
    expect_fault("third element", sys_exec(v, op), EXC_GP, 0);
    memcpy(data, fpu_image_part(v, FPU_PART_XMM, 2), 16);
    memcpy(mask, fpu_image_part(v, FPU_PART_XMM, 3), 16);
    cr_expect(data[0] == 0x77 && data[1] == 2 && data[2] == 3 && data[3] == 4);
    cr_expect(mask[0] == 0 && mask[1] == 0 && mask[2] == ~0u && mask[3] == ~0u);
    v->c.seg[S_DS].limit = ~0u;
    put(0x130000, 4, 0x88);
    put(0x30008, 4, 0x99);
    cr_expect_eq(sys_exec(v, op), SYS_NEXT);
    memcpy(data, fpu_image_part(v, FPU_PART_XMM, 2), 16);
    cr_expect(data[0] == 0x77 && data[1] == 2 && data[2] == 0x88 && data[3] == 0x99);
}
