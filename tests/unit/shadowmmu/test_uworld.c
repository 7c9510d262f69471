/* User worlds: registers, FPU state, every kind of event, mappings, kicks, 32-bit code, recycling, processes left over. */
#define _GNU_SOURCE
#include "base/clock.h"
#include "arch/x86_arch.h"
#include "base/err.h"
#include "shadowmmu/uworld.h"
#include "shadowmmu/uworld_int.h"
#include <criterion/criterion.h>
#include <asm/prctl.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MEM_BYTES (64ull << 20)
#define CODE 0x400000ull
#define DATA 0x600000ull
#define HIGH 0x7fff00000000ull

static int fd = -1;
static uint8_t *mem; /* guest memory: the code page is page 0, data pages follow */
static struct uw_pool *pool;
static struct uworld *w;
static struct uw_state s;
static struct uw_event ev;

#define SNIPPET(name) extern const uint8_t uwg_##name[], uwg_##name##_end[];
SNIPPET(regs)
SNIPPET(syscall_loop)
SNIPPET(int80)
SNIPPET(sysenter)
SNIPPET(spin)
SNIPPET(load)
SNIPPET(store)
SNIPPET(jump)
SNIPPET(jump_rsi)
SNIPPET(divide)
SNIPPET(ud2)
SNIPPET(int3)
SNIPPET(cpuid)
SNIPPET(unaligned)
SNIPPET(x87_fault)
SNIPPET(sse_fault)
SNIPPET(bases)
SNIPPET(vectors)
SNIPPET(vectors512)
SNIPPET(toggle_id)
SNIPPET(numbers)
SNIPPET(fill)
SNIPPET(smc)
SNIPPET(forge)
SNIPPET(feign)
SNIPPET(c32)
SNIPPET(c32_sysenter)
SNIPPET(c32_far)
SNIPPET(c32_into)

static void make_pool(struct uw_config c)
{
    const char *why;
    fd = memfd_create("guest", MFD_CLOEXEC);
    cr_assert_eq(ftruncate(fd, (off_t)MEM_BYTES), 0);
    mem = mmap(NULL, MEM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    cr_assert_neq(mem, MAP_FAILED);
    c.mem_fd = fd;
    int err = uw_pool_create(&pool, &c, &why);
    cr_assert_eq(err, 0, "no user worlds here: %s", why);
}
static void setup(void)
{
    make_pool((struct uw_config){0});
    w = uw_get(pool);
    cr_assert_not_null(w);
    memset(&s, 0, sizeof s);
}
static void teardown(void) { uw_pool_destroy(pool); }
TestSuite(uw, .init = setup, .fini = teardown, .timeout = 60);

static void load_at(uint64_t gva, uint64_t page, const uint8_t *code, const uint8_t *end)
{
    memcpy(mem + page, code, (size_t)(end - code));
    cr_assert_eq(uw_map(w, gva, page, 0x1000, UW_R | UW_X), 0);
    s.rip = gva;
    s.cs = UW_CS64;
}
#define LOAD(name) load_at(CODE, 0, uwg_##name, uwg_##name##_end)
static void run(void) { cr_assert_eq(uw_run(w, &s, &ev), 0); }
static void expect_fault(unsigned vector, uint32_t error)
{
    cr_expect_eq(ev.kind, UW_EXCEPTION, "kind %u", ev.kind);
    cr_expect_eq(ev.vector, vector, "vector %u", ev.vector);
    /* P depends on whether the host has filled its own page table yet. */
    cr_expect_eq(vector == EXC_PF ? ev.error & ~PF_P : ev.error, error, "error %x", ev.error);
}

/* ---- registers ---- */

Test(uw, all_registers_go_in_and_come_back)
{
    LOAD(regs);
    for (unsigned i = 0; i < 16; i++)
        s.gpr[i] = 0x1111111111111111ull * i;
    s.gpr[R_R15] = -(uint64_t)15;
    s.rflags = EFLAGS_CF | EFLAGS_DF;
    run();
    expect_fault(EXC_GP, 0);
    for (unsigned i = 0; i < 15; i++)
        cr_expect_eq(s.gpr[i], 0x1111111111111111ull * i + i + 1, "register %u is %lx", i, s.gpr[i]);
    cr_expect_eq(s.gpr[R_R15], 1);
    cr_expect_eq(s.rflags & (EFLAGS_ARITH | EFLAGS_DF), EFLAGS_ZF | EFLAGS_PF | EFLAGS_DF);
    cr_expect_eq(s.rip, CODE + (uint64_t)(uwg_regs_end - uwg_regs) - 1);
    cr_expect_eq(s.cs, UW_CS64);
}

Test(uw, segment_bases_go_in_and_come_back)
{
    LOAD(bases);
    cr_assert_eq(uw_map(w, DATA, 0x1000, 0x2000, UW_R), 0);
    memset(mem + 0x1008, 0x11, 8);
    memset(mem + 0x2008, 0x22, 8);
    s.fs_base = DATA;
    s.gs_base = DATA + 0x1000;
    run();
    cr_expect_eq(s.gpr[R_RAX], DATA);
    cr_expect_eq(s.gpr[R_RBX], DATA + 0x1000);
    cr_expect_eq(s.gpr[R_RCX], 0x1111111111111111ull);
    cr_expect_eq(s.gpr[R_RDX], 0x2222222222222222ull);
    cr_expect_eq(s.fs_base, DATA);
    cr_expect_eq(s.gs_base, DATA + 0x1000);
}

Test(uw, id_flag_survives_events)
{
    LOAD(toggle_id);
    cr_assert_eq(uw_map(w, DATA, 0x1000, 0x1000, UW_R | UW_W), 0);
    s.gpr[R_RSP] = DATA + 0x1000;
    run();
    cr_expect(s.rflags & EFLAGS_ID);
    s.rip++;
    run();
    cr_expect(s.gpr[R_RAX] & EFLAGS_ID);
    s.rip = CODE;
    run();
    cr_expect_not(s.rflags & EFLAGS_ID);
}

/* XSAVE image, standard format (SDM 1 13.4). */
#define IMG_BYTES 4096
static uint8_t img[IMG_BYTES] __attribute__((aligned(64)));

Test(uw, vector_and_x87_state_goes_in_and_comes_back)
{
    cr_assert(uw_fpu_features(pool) & XCR0_AVX, "needs AVX");
    LOAD(vectors);
    size_t n = uw_fpu_save(w, img, sizeof img);
    cr_assert_geq(n, 576 + 256);
    uint64_t bv = 7;
    memcpy(img + 512, &bv, 8);
    for (unsigned i = 0; i < 16; i++) {
        img[160 + i] = (uint8_t)i;       /* xmm0 */
        img[176 + i] = (uint8_t)(2 * i); /* xmm1 */
        img[576 + i] = 0x40;             /* ymm0 high */
        img[592 + i] = (uint8_t)i;
    }
    static const uint8_t three[10] = {0, 0, 0, 0, 0, 0, 0, 0xc0, 0x00, 0x40};
    memcpy(img + 32, three, sizeof three);
    img[4] = 0x01; /* abridged tag word: register 0 in use; top of stack 0 */
    cr_assert_eq(uw_fpu_load(w, img, n), n);
    run();
    expect_fault(EXC_GP, 0);
    memset(img, 0, sizeof img);
    uw_fpu_save(w, img, sizeof img);
    for (unsigned i = 0; i < 16; i++) {
        cr_expect_eq(img[192 + i], (uint8_t)(3 * i));
        cr_expect_eq(img[608 + i], (uint8_t)(0x40 + i));
    }
    static const uint8_t six[10] = {0, 0, 0, 0, 0, 0, 0, 0xc0, 0x01, 0x40};
    cr_expect_arr_eq(img + 32, six, sizeof six);
}

Test(uw, wide_vector_state_goes_in_and_comes_back)
{
    if ((uw_fpu_features(pool) & XCR0_AVX512) != XCR0_AVX512)
        cr_skip_test("the host has no AVX-512");
    unsigned zmm_hi, hi16, kregs, b, c, d;
    __asm__("cpuid" : "=b"(kregs), "=a"(b), "=c"(c), "=d"(d) : "a"(13), "c"(5));
    __asm__("cpuid" : "=b"(zmm_hi), "=a"(b), "=c"(c), "=d"(d) : "a"(13), "c"(6));
    __asm__("cpuid" : "=b"(hi16), "=a"(b), "=c"(c), "=d"(d) : "a"(13), "c"(7));
    LOAD(vectors512);
    size_t n = uw_fpu_save(w, img, sizeof img);
    uint64_t bv = 0xe7;
    memcpy(img + 512, &bv, 8);
    memset(img + zmm_hi, 0x01, 32);    /* zmm0, upper half */
    memset(img + hi16 + 64, 0x03, 64); /* zmm17 */
    cr_assert_eq(uw_fpu_load(w, img, n), n);
    run();
    expect_fault(EXC_GP, 0);
    uw_fpu_save(w, img, sizeof img);
    for (unsigned i = 0; i < 64; i++)
        cr_expect_eq(img[hi16 + 128 + i], i < 32 ? 3 : 4, "byte %u", i);
    uint64_t k2;
    memcpy(&k2, img + kregs + 16, 8);
    cr_expect_eq(k2, 0xffff);
}

Test(uw, reserved_bits_of_an_image_do_no_harm)
{
    LOAD(ud2);
    memset(img, 0xff, sizeof img);
    uw_fpu_load(w, img, sizeof img);
    run();
    expect_fault(EXC_UD, 0);
}

/* ---- events ---- */

Test(uw, syscall_is_an_event_at_the_instruction)
{
    LOAD(syscall_loop);
    s.gpr[R_RAX] = 0xfedcba9876543210ull;
    s.gpr[R_RDX] = 77;
    s.rflags = EFLAGS_CF;
    run();
    cr_expect_eq(ev.kind, UW_SYSCALL);
    cr_expect_eq(ev.insn_len, 2);
    cr_expect_eq(s.rip, CODE);
    cr_expect_eq(s.gpr[R_RAX], 0xfedcba9876543210ull);
    cr_expect_eq(s.gpr[R_RDX], 77);
    cr_expect_eq(s.gpr[R_RCX], CODE + 2);
    cr_expect_eq(s.gpr[R_R11] & (EFLAGS_CF | EFLAGS_IF), EFLAGS_CF | EFLAGS_IF);
}

Test(uw, no_system_call_reaches_the_host)
{
    LOAD(numbers);
    s.gpr[R_RSI] = 600;
    for (unsigned i = 0; i < 600; i++) {
        run();
        cr_assert_eq(ev.kind, UW_SYSCALL, "number %u", i);
        cr_assert_eq(s.gpr[R_RAX], i);
        s.rip += 2;
    }
    /* x32 numbers, and the two that the stub may use. */
    static const uint64_t odd[] = {0x40000000, 0x40000001, 0x400000ca, 0xca, 15, UINT64_MAX, 0x8000000000000000ull};
    LOAD(syscall_loop);
    for (unsigned i = 0; i < sizeof odd / sizeof odd[0]; i++) {
        s.rip = CODE;
        s.gpr[R_RAX] = odd[i];
        s.gpr[R_RDI] = UW_DEFAULT_BASE + UW_M_TURN;
        run();
        cr_assert_eq(ev.kind, UW_SYSCALL);
        cr_assert_eq(s.gpr[R_RAX], odd[i]);
    }
}

Test(uw, int80_is_an_event_at_the_instruction)
{
    LOAD(int80);
    s.gpr[R_RAX] = 20;
    s.gpr[R_RCX] = 5;
    run();
    cr_expect_eq(ev.kind, UW_INT80);
    cr_expect_eq(s.rip, CODE);
    cr_expect_eq(s.gpr[R_RAX], 20);
    cr_expect_eq(s.gpr[R_RCX], 5);
}

Test(uw, page_faults_have_the_cpus_error_code)
{
    LOAD(load);
    s.gpr[R_RDI] = DATA + 0x123;
    run();
    expect_fault(EXC_PF, PF_U);
    cr_expect_eq(ev.cr2, DATA + 0x123);
    cr_expect_eq(s.rip, CODE);

    LOAD(store);
    cr_assert_eq(uw_map(w, DATA, 0x1000, 0x1000, UW_R), 0);
    run();
    expect_fault(EXC_PF, PF_U | PF_W);

    LOAD(jump);
    s.gpr[R_RDI] = DATA;
    run();
    expect_fault(EXC_PF, PF_U | PF_I);
    cr_expect_eq(s.rip, DATA);
    LOAD(jump);
    s.gpr[R_RDI] = HIGH;
    run();
    expect_fault(EXC_PF, PF_U | PF_I);
    cr_expect_eq(ev.cr2, HIGH);
}

Test(uw, kernel_half_and_non_canonical_addresses_fault)
{
    LOAD(load);
    s.gpr[R_RDI] = 0xffff888000000000ull;
    run();
    expect_fault(EXC_PF, PF_U);
    cr_expect_eq(ev.cr2, 0xffff888000000000ull);
    s.gpr[R_RDI] = 0x8000000000000000ull;
    run();
    expect_fault(EXC_GP, 0);
}

Test(uw, vsyscall_page_is_an_instruction_fetch)
{
    LOAD(jump_rsi);
    cr_assert_eq(uw_map(w, DATA, 0x1000, 0x1000, UW_R | UW_W), 0);
    s.gpr[R_RSI] = 0xffffffffff600400ull;
    s.gpr[R_RSP] = DATA + 0x800;
    run();
    cr_expect_eq(ev.kind, UW_EXCEPTION);
    cr_expect_eq(ev.vector, EXC_PF);
    cr_expect(ev.error & PF_I);
    cr_expect_eq(ev.cr2, 0xffffffffff600400ull);
    cr_expect_eq(s.rip, 0xffffffffff600400ull);
    cr_expect_eq(s.gpr[R_RSP], DATA + 0x800);
}

Test(uw, divide_error)
{
    LOAD(divide);
    run();
    expect_fault(EXC_DE, 0);
    cr_expect_eq(s.rip, CODE + 2);
}
Test(uw, invalid_opcode)
{
    LOAD(ud2);
    run();
    expect_fault(EXC_UD, 0);
    cr_expect_eq(s.rip, CODE);
}
Test(uw, breakpoint_is_a_trap)
{
    LOAD(int3);
    run();
    expect_fault(EXC_BP, 0);
    cr_expect_eq(s.rip, CODE + 2);
}

Test(uw, single_step)
{
    LOAD(int3);
    s.rflags = EFLAGS_TF;
    run();
    expect_fault(EXC_DB, 0);
    cr_expect_eq(s.rip, CODE + 1);
    cr_expect(s.rflags & EFLAGS_TF);
}

Test(uw, alignment_check)
{
    LOAD(unaligned);
    cr_assert_eq(uw_map(w, DATA, 0x1000, 0x1000, UW_R), 0);
    s.gpr[R_RDI] = DATA;
    s.rflags = EFLAGS_AC;
    run();
    expect_fault(EXC_AC, 0);
    cr_expect_eq(s.rip, CODE);
    s.rflags = 0;
    run();
    expect_fault(EXC_GP, 0);
}

Test(uw, floating_point_exceptions)
{
    LOAD(x87_fault);
    uw_fpu_save(w, img, sizeof img);
    uint64_t bv = 3;
    memcpy(img + 512, &bv, 8);
    img[0] = 0x7b; /* FCW: zero divide unmasked */
    img[1] = 0x03;
    uint32_t mxcsr = 0x1d80;
    memcpy(img + 24, &mxcsr, 4);
    uw_fpu_load(w, img, sizeof img);
    run();
    expect_fault(EXC_MF, 0);

    LOAD(sse_fault);
    uw_fpu_save(w, img, sizeof img);
    memcpy(img + 512, &bv, 8);
    memcpy(img + 24, &mxcsr, 4);
    static const float one = 1;
    memcpy(img + 160, &one, 4);
    uw_fpu_load(w, img, sizeof img);
    run();
    expect_fault(EXC_XM, 0);
    cr_expect_eq(s.rip, CODE);
}

/* ---- mappings ---- */

Test(uw, mappings_are_coherent)
{
    LOAD(store);
    s.gpr[R_RDI] = DATA;
    s.gpr[R_RAX] = 0x1234;
    cr_assert_eq(uw_map(w, DATA, 0x1000, 0x1000, UW_R | UW_W), 0);
    run();
    expect_fault(EXC_GP, 0);
    cr_expect_eq(*(uint64_t *)(mem + 0x1000), 0x1234);

    /* remapped elsewhere */
    s.rip = CODE;
    cr_assert_eq(uw_map(w, DATA, 0x2000, 0x1000, UW_R | UW_W), 0);
    s.gpr[R_RAX] = 0x5678;
    run();
    cr_expect_eq(*(uint64_t *)(mem + 0x1000), 0x1234);
    cr_expect_eq(*(uint64_t *)(mem + 0x2000), 0x5678);

    /* made read-only, then gone */
    s.rip = CODE;
    cr_assert_eq(uw_protect(w, DATA, 0x1000, UW_R), 0);
    run();
    expect_fault(EXC_PF, PF_U | PF_W);
    cr_assert_eq(uw_unmap(w, DATA, 0x1000), 0);
    run();
    expect_fault(EXC_PF, PF_U | PF_W);
    cr_assert_eq(uw_unmap_all(w), 0);
    run();
    expect_fault(EXC_PF, PF_U | PF_I);
}

Test(uw, adjacent_commands_become_one)
{
    for (unsigned i = 0; i < 64; i++)
        cr_assert_eq(uw_map(w, DATA + i * 0x1000, 0x10000 + i * 0x1000, 0x1000, UW_R | UW_W), 0);
    uint64_t before = uw_counts(pool)->commands;
    cr_assert_eq(uw_flush(w), 0);
    cr_expect_eq(uw_counts(pool)->commands, before + 1);
    LOAD(fill);
    s.gpr[R_RDI] = DATA;
    s.gpr[R_RCX] = 64 * 512;
    s.gpr[R_RAX] = 0x5a5a5a5a5a5a5a5aull;
    run();
    expect_fault(EXC_GP, 0);
    for (unsigned i = 0; i < 64 * 4096; i++)
        cr_assert_eq(mem[0x10000 + i], 0x5a);
}

static uint64_t scattered(unsigned i) { return (1 + i * 7 % 4095) * 0x1000; }

Test(uw, more_commands_than_the_queue_holds)
{
    for (unsigned i = 0; i < 2000; i++)
        cr_assert_eq(uw_map(w, DATA + i * 0x2000, scattered(i), 0x1000, UW_R | UW_POPULATE), 0);
    cr_assert_eq(uw_flush(w), 0);
    LOAD(load);
    for (unsigned i = 0; i < 2000; i += 97) {
        s.rip = CODE;
        s.gpr[R_RDI] = DATA + i * 0x2000;
        *(uint64_t *)(mem + scattered(i)) = i;
        run();
        expect_fault(EXC_GP, 0);
        cr_expect_eq(s.gpr[R_RAX], i);
    }
}

Test(uw, a_full_host_empties_the_world)
{
    LOAD(ud2);
    int err = 0;
    for (uint64_t i = 0; !err && i < 200000; i++)
        err = uw_map(w, DATA + i * 0x2000, 0x1000, 0x1000, UW_R);
    cr_assert_eq(err, -RD_E_NOMEM, "vm.max_map_count is not what it usually is");
    cr_expect_eq(uw_counts(pool)->emptied, 1);
    run();
    expect_fault(EXC_PF, PF_U | PF_I);
    LOAD(ud2);
    run();
    expect_fault(EXC_UD, 0);
}

Test(uw, bad_ranges_are_refused)
{
    cr_expect_eq(uw_map(w, DATA + 1, 0, 0x1000, UW_R), -RD_E_INVAL);
    cr_expect_eq(uw_map(w, DATA, 1, 0x1000, UW_R), -RD_E_INVAL);
    cr_expect_eq(uw_map(w, DATA, 0, 0, UW_R), -RD_E_INVAL);
    cr_expect_eq(uw_map(w, DATA, UINT64_MAX & ~0xfffull, 0x1000, UW_R), -RD_E_INVAL);
    cr_expect_eq(uw_map(w, UW_DEFAULT_BASE, 0, 0x1000, UW_R), -RD_E_INVAL);
    cr_expect_eq(uw_unmap(w, UW_DEFAULT_BASE - 0x1000, 0x2000), -RD_E_INVAL);
    cr_expect_eq(uw_protect(w, UW_DEFAULT_BASE + UW_RO, 0x1000, UW_R | UW_W), -RD_E_INVAL);
    cr_expect_eq(uw_map(w, UW_TASK_END, 0, 0x1000, UW_R), -RD_E_INVAL);
    cr_expect_eq(uw_map(w, 0xffff800000000000ull, 0, 0x1000, UW_R), -RD_E_INVAL);
    cr_expect(uw_conflicts(pool, UW_DEFAULT_BASE + UW_SPAN - 1, 1));
    cr_expect_not(uw_conflicts(pool, UW_DEFAULT_BASE + UW_SPAN, 0x1000));
}

Test(uw, code_that_rewrites_itself)
{
    LOAD(smc);
    cr_assert_eq(uw_map(w, CODE, 0, 0x1000, UW_R | UW_W | UW_X), 0);
    run();
    expect_fault(EXC_GP, 0);
    cr_expect_eq(s.gpr[R_RAX], 2);
}

Test(uw, last_page_and_low_pages)
{
    LOAD(load);
    cr_assert_eq(uw_map(w, UW_TASK_END - 0x1000, 0x3000, 0x1000, UW_R), 0);
    s.gpr[R_RDI] = UW_TASK_END - 8;
    run();
    expect_fault(EXC_GP, 0);
    /* Page 0 is below vm.mmap_min_addr: the host refuses, the world is emptied, and goes on. */
    cr_assert_eq(uw_map(w, 0, 0, 0x1000, UW_R), 0);
    cr_expect_eq(uw_flush(w), -RD_E_NOMEM);
    LOAD(ud2);
    run();
    expect_fault(EXC_UD, 0);
}

/* ---- kicks ---- */

static uint64_t kicked_at;
static void on_alarm(int sig)
{
    kicked_at = clock_now_ns();
    uw_kick(w);
}

Test(uw, kick_ends_an_endless_loop_soon)
{
    uint64_t best = UINT64_MAX, progress = 0;
    signal(SIGALRM, on_alarm);
    LOAD(spin);
    for (unsigned i = 0; i < 20; i++) {
        s.rip = CODE;
        uint64_t before = s.gpr[R_RAX];
        ualarm(5000, 0);
        run();
        uint64_t took = clock_now_ns() - kicked_at;
        best = took < best ? took : best;
        cr_assert_eq(ev.kind, UW_KICK);
        progress += s.gpr[R_RAX] - before;
    }
    cr_expect_gt(progress, 0);
    /* The best of many: the machine may be busy with something else. */
    cr_expect_lt(best, 5000000, "took %lu ns", best);
}

Test(uw, kick_before_running_counts_once)
{
    LOAD(ud2);
    uw_kick(w);
    uw_kick(w);
    run();
    cr_expect_eq(ev.kind, UW_KICK);
    cr_expect_eq(s.rip, CODE);
    run();
    expect_fault(EXC_UD, 0);
}

Test(uw, kicks_at_any_time_lose_nothing)
{
    LOAD(syscall_loop);
    struct itimerval every = {{0, 300}, {0, 300}};
    struct sigaction act = {.sa_handler = on_alarm};
    sigaction(SIGALRM, &act, NULL);
    setitimer(ITIMER_REAL, &every, NULL);
    unsigned calls = 0, kicks = 0;
    while (calls < 3000) {
        uint64_t rip = s.rip, count = s.gpr[R_RDX];
        s.gpr[R_RDX] = count + 1;
        run();
        cr_assert(ev.kind == UW_SYSCALL || ev.kind == UW_KICK, "kind %u vector %u", ev.kind, ev.vector);
        if (ev.kind == UW_SYSCALL) {
            calls++;
            cr_assert_eq(s.rip, CODE);
            s.rip += 2;
        } else {
            kicks++;
            cr_assert(s.rip == rip || s.rip == CODE);
        }
        cr_assert_eq(s.gpr[R_RDX], count + 1);
    }
    setitimer(ITIMER_REAL, &(struct itimerval){0}, NULL);
    cr_expect_gt(kicks, 0);
}

/* ---- hand-off ---- */

static bool several_cpus(void)
{
    cpu_set_t cpus;
    return sched_getaffinity(0, sizeof cpus, &cpus) == 0 && CPU_COUNT(&cpus) > 1;
}
static void short_turn(void)
{
    s.rip = CODE;
    run();
    cr_assert_eq(ev.kind, UW_SYSCALL);
}

/* Two sides that spin for each other need two CPUs; that the host has them is not enough, the guest's thread must get there. Of several
 * tries one will find the machine idle. */
Test(uw, short_turns_come_to_be_spun_for)
{
    if (!several_cpus())
        cr_skip_test("one CPU");
    const uint64_t *spun = &uw_counts(pool)->events_spun;
    uint64_t before = 0;
    LOAD(syscall_loop);
    for (unsigned try = 0; try < 50 && (try == 0 || *spun - before < 1500); try++) {
        before = *spun;
        for (unsigned i = 0; i < 2000; i++)
            short_turn();
    }
    cr_expect_geq(*spun - before, 1500);
    cr_expect(!w->shares);
}

/* Their threads would spin where the other one's is to run. */
Test(uw, worlds_that_take_turns_share_the_cpu)
{
    struct uworld *one = w, *other = uw_get(pool);
    cr_assert_not_null(other);
    LOAD(syscall_loop);
    w = other;
    LOAD(syscall_loop);
    uint64_t parted = uw_counts(pool)->parted;
    for (unsigned i = 0; i < 1000; i++) {
        w = i % 2 ? one : other;
        short_turn();
    }
    cr_expect_eq(uw_counts(pool)->parted, parted);
    uw_put(other);
    w = one;
}

/* A world that is told of turns that took so many ticks. */
static void told(unsigned turns, uint64_t ticks, bool follows)
{
    for (unsigned i = 0; i < turns; i++) {
        w->follows = follows;
        w->pause = 0;
        uw_cpu_after(w, ticks);
    }
}

Test(uw, worlds_part_and_meet_for_what_it_saves)
{
    if (!several_cpus())
        cr_skip_test("one CPU");
    uint64_t longer = 2 * pool->spin_max;
    told(1000, longer, true);
    cr_expect(w->shares, "nobody spins for long turns");
    told(1000, 0, false);
    cr_expect(w->shares, "others run in between");
    told(31, 0, true);
    cr_expect(w->shares);
    told(1, 0, true);
    cr_expect(!w->shares, "short turns one after the other");
    told(4, longer, true);
    cr_expect(!w->shares, "CPUs wake up");
    for (unsigned i = 0; i < 20; i++) {
        told(1, longer, true);
        told(40, 0, true);
    }
    cr_expect(!w->shares, "few long turns are paid for by many short ones");
    told(3, longer, true);
    cr_expect(w->shares);
    told(40, 0, true);
    cr_expect(!w->shares, "it had been right to part");
    told(4 + 3, longer, true);
    told(32, 0, true);
    cr_expect(w->shares, "it had not: twice as many");
    told(96, 0, true);
    cr_expect(!w->shares);
    told(4 + 12, 0, false);
    cr_expect(w->shares, "others run in between");
}

/* ---- 32-bit code ---- */

static void load32(const uint8_t *code, const uint8_t *end)
{
    load_at(CODE, 0, code, end);
    cr_assert_eq(uw_map(w, DATA, 0x1000, 0x2000, UW_R | UW_W), 0);
    s.cs = UW_CS32;
    s.ds = s.es = UW_DATA;
    s.gpr[R_RSP] = DATA + 0x1000;
}
#define LOAD32(name) load32(uwg_##name, uwg_##name##_end)

Test(uw, compatibility_mode_with_thread_areas)
{
    bool wrapped;
    uint16_t again;
    LOAD32(c32);
    cr_assert_eq(uw_ldt(w, DATA + 0x1000, &s.gs, &wrapped), 0);
    cr_assert_eq(uw_ldt(w, DATA + 0x1100, &s.fs, &wrapped), 0);
    cr_assert_eq(uw_ldt(w, DATA + 0x1000, &again, &wrapped), 0);
    cr_expect_eq(again, s.gs);
    *(uint32_t *)(mem + 0x2004) = 0x11111111;
    *(uint32_t *)(mem + 0x2008) = 0x33333333;
    *(uint32_t *)(mem + 0x2104) = 0x22222222;
    s.gpr[R_RAX] = 41;
    run();
    cr_assert_eq(ev.kind, UW_INT80, "kind %u vector %u", ev.kind, ev.vector);
    cr_expect_eq(s.cs, UW_CS32);
    cr_expect_eq(s.gpr[R_RAX], 42);
    cr_expect_eq(s.gpr[R_RBX], 0x11111111);
    cr_expect_eq(s.gpr[R_RCX], 0x22222222);
    cr_expect_eq(s.gpr[R_RDX], 0x33333333);
    cr_expect_eq(s.ds, UW_DATA);
    cr_expect_eq(s.gs, again);
}

Test(uw, sysenter_from_32_bit_code)
{
    LOAD32(c32_sysenter);
    s.gpr[R_RAX] = 20;
    s.gpr[R_RBX] = 1;
    s.gpr[R_RBP] = 0x66;
    run();
    cr_assert_eq(ev.kind, UW_SYSENTER, "kind %u vector %u", ev.kind, ev.vector);
    cr_expect_eq(s.gpr[R_RAX], 20);
    cr_expect_eq(s.gpr[R_RBX], 1);
    cr_expect_eq(s.gpr[R_RBP], DATA + 0x1000 - 12);
    cr_expect_not(ev.lost);
}

Test(uw, sysenter_without_a_stack_is_told_apart)
{
    LOAD32(sysenter);
    s.gpr[R_RAX] = 20;
    s.gpr[R_RBX] = 1;
    s.gpr[R_RBP] = DATA + 0x100000;
    run();
    cr_assert_eq(ev.kind, UW_SYSENTER, "kind %u vector %u", ev.kind, ev.vector);
    cr_expect(ev.lost);
    cr_expect_eq(s.gpr[R_RBX], 1);
    cr_expect_eq(s.gpr[R_RBP], DATA + 0x100000);
}

Test(uw, overflow_trap_in_32_bit_code)
{
    LOAD32(c32_into);
    run();
    cr_expect_eq(ev.kind, UW_EXCEPTION);
    cr_expect_eq(ev.vector, EXC_OF);
}

Test(uw, far_jump_from_32_to_64_bit_code)
{
    LOAD32(c32_far);
    memcpy(mem + 0x5000, uwg_ud2, 2);
    cr_assert_eq(uw_map(w, 0x500000, 0x5000, 0x1000, UW_R | UW_X), 0);
    run();
    expect_fault(EXC_UD, 0);
    cr_expect_eq(s.cs, UW_CS64);
    cr_expect_eq(s.rip, 0x500000);
}

Test(uw, more_thread_areas_than_descriptors)
{
    bool wrapped = false;
    unsigned wraps = 0;
    for (unsigned i = 0; i < 2000; i++) {
        uint16_t sel;
        cr_assert_eq(uw_ldt(w, i * 0x1000, &sel, &wrapped), 0);
        wraps += wrapped;
    }
    cr_expect_eq(wraps, 3);
    cr_expect_eq(uw_flush(w), 0);
}

/* ---- hostile guests ---- */

static void expect_survivor(void)
{
    /* Whatever happened to it, the pool can still give out a world that works. */
    uw_put(w);
    w = uw_get(pool);
    cr_assert_not_null(w);
    memset(&s, 0, sizeof s);
    LOAD(regs);
    s.gpr[R_RBX] = 5;
    run();
    expect_fault(EXC_GP, 0);
    cr_expect_eq(s.gpr[R_RBX], 9);
}

Test(uw, stub_and_command_page_cannot_be_written)
{
    LOAD(store);
    for (uint64_t at = 0; at < UW_RW; at += 0x800) {
        s.gpr[R_RDI] = UW_DEFAULT_BASE + at;
        s.rip = CODE;
        run();
        expect_fault(EXC_PF, PF_U | PF_W);
    }
    s.gpr[R_RDI] = UW_DEFAULT_BASE + UW_SLOT_BYTES + UW_RO + 0x8000;
    run();
    cr_expect_eq(ev.vector, EXC_PF);
}

Test(uw, read_write_pages_cannot_be_executed)
{
    LOAD(jump);
    s.gpr[R_RDI] = UW_DEFAULT_BASE + UW_RW + 0x800;
    run();
    expect_fault(EXC_PF, PF_U | PF_I);
}

Test(uw, commands_cannot_be_read_after_the_fact)
{
    cr_assert_eq(uw_map(w, DATA, 0x1000, 0x1000, UW_R), 0);
    LOAD(load);
    cr_assert_eq(uw_flush(w), 0);
    for (unsigned i = 0; i < 16; i++) {
        s.gpr[R_RDI] = UW_DEFAULT_BASE + UW_H_RING + 8 * i;
        s.rip = CODE;
        run();
        expect_fault(EXC_GP, 0);
        cr_expect_eq(s.gpr[R_RAX], 0);
    }
}

/* Jumps to one offset of the stub with registers that would do harm if the host listened. */
static void jump_into_stub(uint64_t offset, uint64_t rax)
{
    LOAD(jump);
    cr_assert_eq(uw_map(w, DATA, 0x1000, 0x4000, UW_R | UW_W), 0);
    for (unsigned i = 0; i < 16; i++)
        s.gpr[i] = DATA + 0x2000;
    s.gpr[R_RDI] = UW_DEFAULT_BASE + offset;
    s.gpr[R_RAX] = rax;
    uw_run(w, &s, &ev);
}

/* Lines of /proc/PID/NAME. */
static unsigned lines(int pid, const char *name, char *text, size_t bytes)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
    FILE *f = fopen(path, "r");
    cr_assert_not_null(f);
    size_t n = fread(text, 1, bytes - 1, f);
    fclose(f);
    text[n] = 0;
    unsigned count = 0;
    for (size_t i = 0; i < n; i++)
        count += text[i] == '\n';
    return count;
}

static unsigned children(void)
{
    char path[64], text[4096];
    snprintf(path, sizeof path, "/proc/self/task/%d/children", getpid());
    FILE *f = fopen(path, "r");
    cr_assert_not_null(f);
    size_t n = fread(text, 1, sizeof text, f);
    fclose(f);
    unsigned count = 0;
    for (size_t i = 0; i < n; i++)
        count += text[i] == ' ';
    return count;
}

/* The world may be dead, or have reported anything; but what is mapped in it and which processes there are has not changed. */
static void check_unharmed(uint64_t offset, uint64_t nr)
{
    char text[8192];
    if (ev.kind == UW_DEAD) {
        uw_put(w);
        w = uw_get(pool);
        cr_assert_not_null(w);
    } else {
        /* code, data, the stub's three, [vsyscall] */
        cr_assert_eq(lines(uw_pid(w), "maps", text, sizeof text), 6, "offset %lx number %lu:\n%s", offset, nr, text);
    }
    cr_assert_leq(children(), 2 + 2 * 2, "offset %lx number %lu", offset, nr);
}

static void jump_everywhere(uint64_t nr)
{
    uint64_t end = (uint64_t)(uw_stub_end - uw_stub);
    for (uint64_t at = 0; at < end; at++) {
        jump_into_stub(at, nr);
        check_unharmed(at, nr);
    }
}

Test(uw, jumps_to_every_offset_of_the_stub, .timeout = 600)
{
    static const uint64_t numbers[] = {SYS_mmap, SYS_mprotect, SYS_clone, SYS_pwrite64, SYS_rt_sigreturn, SYS_futex};
    struct itimerval every = {{0, 3000}, {0, 3000}};
    signal(SIGALRM, on_alarm); /* some offsets wait for ever */
    setitimer(ITIMER_REAL, &every, NULL);
    for (unsigned i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        jump_everywhere(numbers[i]);
    setitimer(ITIMER_REAL, &(struct itimerval){0}, NULL);
    expect_survivor();
}

/* A forged signal frame: rt_sigreturn through the stub's instruction. */
static void forge(uint64_t sigmask, uint64_t ss_sp, uint64_t rip)
{
    LOAD(forge);
    cr_assert_eq(uw_map(w, DATA, 0x1000, 0x4000, UW_R | UW_W), 0);
    struct uw_frame *f = (struct uw_frame *)(mem + 0x2000);
    memset(f, 0, sizeof *f);
    f->uc_flags = 6; /* UC_SIGCONTEXT_SS, UC_STRICT_RESTORE_SS */
    f->ss_sp = ss_sp;
    f->ss_size = UW_ALT_BYTES;
    f->sc.ip = rip;
    f->sc.sp = DATA + 0x3000;
    f->sc.cs = UW_CS64;
    f->sc.ss = UW_DATA;
    f->sc.flags = EFLAGS_IF;
    f->sigmask = sigmask;
    s.gpr[R_RSP] = DATA + 0x1000 + 8;
    s.gpr[R_RDI] = UW_DEFAULT_BASE + (uint64_t)(uw_ip_return - uw_stub) - 2;
}

Test(uw, forged_frame_with_a_moved_signal_stack_ends_the_world)
{
    forge(0, DATA, CODE + 0x100);
    memcpy(mem + 0x100, uwg_ud2, 2);
    run();
    cr_expect_eq(ev.kind, UW_DEAD);
    expect_survivor();
}

Test(uw, forged_frame_that_blocks_faults_ends_the_world)
{
    forge(~0ull, UW_DEFAULT_BASE + UW_ALT, CODE + 0x100);
    memcpy(mem + 0x100, uwg_ud2, 2);
    run();
    cr_expect_eq(ev.kind, UW_DEAD);
    expect_survivor();
}

Test(uw, forged_frame_that_blocks_the_kick_ends_the_world)
{
    forge(~0ull, UW_DEFAULT_BASE + UW_ALT, CODE + 0x100);
    memcpy(mem + 0x100, uwg_spin, (size_t)(uwg_spin_end - uwg_spin));
    signal(SIGALRM, on_alarm);
    ualarm(10000, 0);
    run();
    cr_expect_eq(ev.kind, UW_DEAD);
    expect_survivor();
}

Test(uw, scribbled_shared_pages_harm_only_their_world)
{
    static const uint64_t value[] = {0, 1, UINT64_MAX, UW_DEFAULT_BASE, 0x4141414141414141ull};
    signal(SIGALRM, on_alarm);
    struct itimerval every = {{0, 20000}, {0, 20000}};
    setitimer(ITIMER_REAL, &every, NULL);
    for (unsigned i = 0; i < sizeof value / sizeof value[0]; i++) {
        LOAD(fill);
        s.gpr[R_RDI] = UW_DEFAULT_BASE + UW_RW;
        s.gpr[R_RCX] = UW_RW_BYTES / 8;
        s.gpr[R_RAX] = value[i];
        uw_run(w, &s, &ev);
        uw_run(w, &s, &ev);
        uw_put(w);
        w = uw_get(pool);
        cr_assert_not_null(w);
        memset(&s, 0, sizeof s);
    }
    setitimer(ITIMER_REAL, &(struct itimerval){0}, NULL);
    expect_survivor();
}

/* ---- passing on ---- */

/* The thread of a program that has ended is on its way to sleep. */
static void await_sleep(void)
{
    for (unsigned i = 0; i < 1000 && !w->mb->asleep; i++)
        usleep(100);
    usleep(5000);
}

Test(uw, a_world_passed_on_keeps_mappings_and_forgets_the_rest)
{
    LOAD(bases);
    cr_assert_eq(uw_map(w, DATA, 0x1000, 0x2000, UW_R), 0);
    memset(img, 0x55, sizeof img);
    uw_fpu_load(w, img, sizeof img);
    s.fs_base = DATA;
    s.gs_base = DATA + 0x1000;
    run();
    await_sleep();
    cr_assert_eq(uw_renew(w), 0);
    cr_expect_eq(uw_counts(pool)->renewed, 1);
    memset(img, 0x55, sizeof img);
    uw_fpu_save(w, img, sizeof img);
    for (unsigned i = 160; i < 416; i++)
        cr_assert_eq(img[i], 0);
    memset(&s, 0, sizeof s);
    s.rip = CODE;
    s.cs = UW_CS64;
    s.fs_base = s.gs_base = DATA;
    uint64_t commands = uw_counts(pool)->commands;
    run();
    cr_expect_eq(s.gpr[R_RBX], DATA);
    cr_expect_eq(uw_counts(pool)->commands, commands);
    /* What was queued for the last program is performed, though it never ran again. */
    await_sleep();
    cr_assert_eq(uw_unmap(w, CODE, 0x1000), 0);
    cr_assert_eq(uw_renew(w), 0);
    s.rip = CODE;
    run();
    expect_fault(EXC_PF, PF_U | PF_I);
    expect_survivor();
}

static void feign(uint64_t then)
{
    s.rip = CODE + 0x200;
    memcpy(mem + 0x200, uwg_feign, (size_t)(uwg_feign_end - uwg_feign));
    s.gpr[R_RDI] = then;
    s.gpr[R_RSI] = UW_DEFAULT_BASE + UW_RW;
    s.gpr[R_RDX] = pool->frame_addr;
    run();
    await_sleep();
}

Test(uw, a_thread_that_feigns_its_end_is_found_out)
{
    LOAD(spin);
    feign(CODE);
    cr_expect_eq(uw_renew(w), -RD_E_HOST);
    expect_survivor();
}

Test(uw, a_thread_that_feigns_a_stop_and_runs_on_is_killed)
{
    LOAD(spin);
    feign(CODE);
    cr_expect(!uw_stop(w));
    cr_expect(uw_stop(w), "it is not asked again");
    run();
    cr_expect_eq(ev.kind, UW_DEAD);
    expect_survivor();
}

Test(uw, a_thread_that_spins_for_its_turn_stops_when_it_is_told_to)
{
    LOAD(syscall_loop);
    for (unsigned i = 0; i < 300; i++) {
        short_turn();
        if (i % 10 == 0) {
            cr_assert(uw_stop(w));
            cr_assert(uw_is_waiting(w));
        }
    }
    short_turn();
    cr_expect_eq(ev.kind, UW_SYSCALL);
    cr_expect(uw_alive(w));
}

/* It does wait where the stub does, but is to trap there: what it has in its registers must not come back as the next program's. */
Test(uw, a_thread_that_waits_with_a_trap_set_is_found_out)
{
    uint64_t ip = UW_DEFAULT_BASE + (uint64_t)(uw_ip_wait - uw_stub) - 2;
    forge(0, UW_DEFAULT_BASE + UW_ALT, ip);
    struct uw_frame *f = (struct uw_frame *)(mem + 0x2000);
    f->sc.flags |= EFLAGS_TF;
    f->sc.ax = SYS_futex;
    f->sc.di = UW_DEFAULT_BASE + UW_M_TURN;
    f->sc.bx = 0x6666;
    feign(s.gpr[R_RDI]);
    cr_assert_eq(uw_renew(w), 0);
    memset(&s, 0, sizeof s);
    memcpy(mem, uwg_ud2, 2);
    s.rip = CODE;
    s.cs = UW_CS64;
    uw_fpu_save(w, img, sizeof img);
    memset(img + 160, 0x5a, 256);
    img[512] |= XCR0_SSE;
    uw_fpu_load(w, img, sizeof img);
    cr_expect_eq(uw_run(w, &s, &ev), -RD_E_HOST);
    cr_expect_eq(s.rip, CODE);
    cr_expect_eq(s.gpr[R_RBX], 0);
    /* Nor may the next program's vector registers be lost with the world. */
    memset(img, 0, sizeof img);
    uw_fpu_save(w, img, sizeof img);
    for (unsigned i = 160; i < 416; i++)
        cr_assert_eq(img[i], 0x5a, "byte %u", i);
    expect_survivor();
}

Test(uw, a_killed_world_is_noticed)
{
    LOAD(spin);
    cr_assert_eq(uw_flush(w), 0);
    kill(uw_pid(w), SIGKILL);
    run();
    cr_expect_eq(ev.kind, UW_DEAD);
    cr_expect_eq(uw_flush(w), -RD_E_HOST);
    expect_survivor();
}

Test(uw, nothing_but_the_stub_is_mapped)
{
    char text[8192];
    LOAD(ud2);
    run();
    cr_expect_eq(lines(uw_pid(w), "maps", text, sizeof text), 5, "%s",
                 text); /* the guest's page, code, RO, RW; [vsyscall] */
    cr_expect_null(strstr(text, "stack"));
    cr_expect_null(strstr(text, "vdso"));
    lines(uw_pid(w), "status", text, sizeof text);
    cr_expect_not_null(strstr(text, "NoNewPrivs:\t1"));
    cr_expect_not_null(strstr(text, "CapEff:\t0000000000000000"));
    cr_expect_not_null(strstr(text, "Seccomp:\t2"));
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd", uw_pid(w));
    DIR *d = opendir(path);
    cr_assert_not_null(d);
    unsigned n = 0;
    while (readdir(d))
        n++;
    closedir(d);
    cr_expect_eq(n, 2 + 2);
}

/* ---- life ---- */

Test(uw, a_recycled_world_remembers_nothing)
{
    LOAD(vectors);
    cr_assert_eq(uw_map(w, DATA, 0x1000, 0x1000, UW_R), 0);
    memset(img, 0x55, sizeof img);
    uw_fpu_load(w, img, sizeof img);
    s.fs_base = DATA;
    run();
    struct uworld *old = w;
    uint64_t recycled = uw_counts(pool)->recycled;
    uw_put(w);
    cr_expect_eq(uw_counts(pool)->recycled, recycled + 1);
    do
        w = uw_get(pool);
    while (w && w != old);
    cr_assert_eq(w, old);
    memset(&s, 0, sizeof s);
    s.rip = CODE;
    s.cs = UW_CS64;
    run();
    expect_fault(EXC_PF, PF_U | PF_I);
    cr_expect_eq(s.fs_base, 0);
    uw_fpu_save(w, img, sizeof img);
    for (unsigned i = 160; i < 416; i++)
        cr_assert_eq(img[i], 0);
}

Test(uw, a_thousand_worlds_leave_nothing_behind, .timeout = 600)
{
    uw_put(w);
    for (unsigned i = 0; i < 1000; i++) {
        w = uw_get(pool);
        cr_assert_not_null(w, "world %u", i);
        memset(&s, 0, sizeof s);
        LOAD(ud2);
        run();
        expect_fault(EXC_UD, 0);
        if (i % 3)
            uw_kill(w); /* so that new ones must be made as well */
        uw_put(w);
    }
    cr_expect_geq(uw_counts(pool)->created, 600);
    uw_pool_destroy(pool);
    pool = NULL;
    cr_expect_eq(children(), 0);
}

Test(uw, many_worlds_at_once)
{
    enum { N = 60 };
    struct uworld *many[N];
    struct uw_state state[N];
    for (unsigned i = 0; i < N; i++) {
        many[i] = w = uw_get(pool);
        cr_assert_not_null(w);
        LOAD(syscall_loop);
        s.gpr[R_RBX] = i;
        state[i] = s;
    }
    for (unsigned k = 0; k < 3; k++)
        for (unsigned i = 0; i < N; i++) {
            cr_assert_eq(uw_run(many[i], &state[i], &ev), 0);
            cr_assert_eq(ev.kind, UW_SYSCALL);
            cr_assert_eq(state[i].gpr[R_RBX], i + 1000 * k);
            state[i].gpr[R_RBX] += 1000;
        }
}

Test(uw_pool, no_more_than_max_worlds, .timeout = 60)
{
    make_pool((struct uw_config){.max_worlds = 3, .spare = 1});
    struct uworld *a = uw_get(pool), *b = uw_get(pool), *c = uw_get(pool);
    cr_expect(a && b && c);
    cr_expect_null(uw_get(pool));
    uw_put(b);
    cr_expect_not_null(uw_get(pool));
    uw_pool_destroy(pool);
}

Test(uw_pool, worlds_end_with_their_monitor, .timeout = 60)
{
    int pipefd[2], pids[2];
    cr_assert_eq(pipe(pipefd), 0);
    pid_t child = fork();
    if (child == 0) {
        make_pool((struct uw_config){0});
        w = uw_get(pool);
        int both[2] = {uw_pid(w), pool->zygote};
        _exit(write(pipefd[1], both, sizeof both) == sizeof both ? 0 : 1);
    }
    cr_assert_eq(read(pipefd[0], pids, sizeof pids), sizeof pids);
    waitpid(child, NULL, 0);
    for (unsigned i = 0; i < 2; i++)
        for (unsigned k = 0; k < 200 && kill(pids[i], 0) == 0; k++)
            usleep(10000);
    /* Whoever adopted them may be slow to reap: a zombie counts as ended. */
    for (unsigned i = 0; i < 2; i++) {
        char path[64], text[512] = "";
        snprintf(path, sizeof path, "/proc/%d/stat", pids[i]);
        FILE *f = fopen(path, "r");
        if (f) {
            cr_expect_not_null(fgets(text, sizeof text, f));
            fclose(f);
        }
        cr_expect(!f || strstr(text, ") Z"), "%s", text);
    }
}

Test(uw_pool, bad_parameters_are_refused)
{
    const char *why;
    struct uw_config c = {.mem_fd = 0, .base = 0x1234};
    cr_expect_eq(uw_pool_create(&pool, &c, &why), -RD_E_INVAL);
    c.base = UW_TASK_END & ~0xffffull;
    cr_expect_eq(uw_pool_create(&pool, &c, &why), -RD_E_INVAL);
}

Test(uw_pool, bad_descriptor_is_reported, .timeout = 60)
{
    const char *why;
    struct uw_config c = {.mem_fd = 999};
    cr_expect_eq(uw_pool_create(&pool, &c, &why), -RD_E_HOST);
    cr_expect_str_eq(why, "descriptors could not be arranged");
    cr_expect_eq(children(), 0);
}

static void install(struct sock_filter *f, unsigned short n)
{
    struct sock_fprog prog = {n, f};
    cr_assert_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    cr_assert_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog), 0);
}
/* A host policy that refuses one system call, as container run-times do. */
static void refuse(uint32_t nr, uint32_t action)
{
    struct sock_filter f[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, action),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    install(f, sizeof f / sizeof f[0]);
}
static void expect_refusal(const char *reason)
{
    const char *why;
    struct uw_config c = {.mem_fd = memfd_create("guest", MFD_CLOEXEC)};
    cr_expect_eq(uw_pool_create(&pool, &c, &why), -RD_E_HOST);
    cr_expect_str_eq(why, reason);
    cr_expect_eq(children(), 0);
}
#define EPERM_ACTION (SECCOMP_RET_ERRNO | EPERM)
/* ... or one function of prctl. */
static void refuse_prctl(uint32_t function)
{
    struct sock_filter f[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_prctl, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, function, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    install(f, sizeof f / sizeof f[0]);
}
/* A pool comes about all the same. */
static void expect_lack(const char *text)
{
    const char *why;
    fd = memfd_create("guest", MFD_CLOEXEC);
    cr_assert_eq(ftruncate(fd, MEM_BYTES), 0);
    mem = mmap(NULL, MEM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    struct uw_config c = {.mem_fd = fd};
    cr_assert_eq(uw_pool_create(&pool, &c, &why), 0);
    cr_expect_str_eq(why, text);
}

Test(uw_pool, refused_filters_are_reported, .timeout = 60)
{
    refuse(SYS_seccomp, EPERM_ACTION);
    expect_refusal("seccomp filters were refused");
}
Test(uw_pool, refused_processes_are_reported, .timeout = 60)
{
    refuse(SYS_clone, EPERM_ACTION);
    expect_refusal("the host would not start a helper process");
}
Test(uw_pool, refused_process_groups_are_reported, .timeout = 60)
{
    refuse(SYS_setpgid, EPERM_ACTION);
    expect_refusal("its own process group was refused");
}
/* Recent kernels let this number pass every seccomp filter: it must be an event all the same. */
Test(uw_pool, without_user_dispatch_every_system_call_is_an_event, .timeout = 60)
{
    refuse_prctl(59);
    expect_lack("by seccomp alone, the host has no Syscall User Dispatch");
    w = uw_get(pool);
    cr_assert_not_null(w);
    for (unsigned i = 0; i < 20; i++) {
        LOAD(syscall_loop);
        s.rip = CODE;
        s.gpr[R_RAX] = i % 2 ? 335 : SYS_getpid;
        uint64_t rax = s.gpr[R_RAX];
        run();
        cr_assert_eq(ev.kind, UW_SYSCALL, "kind %u vector %u", ev.kind, ev.vector);
        cr_expect_eq(s.rip, CODE);
        cr_expect_eq(s.gpr[R_RAX], rax);
    }
    uw_pool_destroy(pool);
}
Test(uw_pool, a_host_without_descriptor_tables_is_reported, .timeout = 60)
{
    refuse(SYS_modify_ldt, SECCOMP_RET_ERRNO | ENOSYS);
    expect_lack("32-bit code with thread-local storage translated, the host has no modify_ldt");
    cr_expect(!uw_has_ldt(pool));
    uw_pool_destroy(pool);
}
Test(uw_pool, worlds_are_made_ahead_of_need, .timeout = 60)
{
    make_pool((struct uw_config){.spare = 2});
    for (unsigned used = 0; used < 4; used++) {
        for (unsigned ms = 0; children() < 1 + used + 1 && ms < 5000; ms++)
            usleep(1000);
        cr_expect_geq(children(), 1 + used + 1, "%u worlds in use and none ahead", used);
        cr_assert_not_null(uw_get(pool));
    }
    uw_pool_destroy(pool);
    cr_expect_eq(children(), 0);
}
Test(uw_pool, a_policy_that_kills_is_reported, .timeout = 60)
{
    refuse(SYS_rt_sigreturn, SECCOMP_RET_KILL_PROCESS);
    expect_refusal("a system call is forbidden here");
}

Test(uw_pool, cpuid_faults_on_request, .timeout = 60)
{
    make_pool((struct uw_config){.fault_cpuid = true});
    if (!uw_faults_cpuid(pool))
        cr_skip_test("the host cannot");
    w = uw_get(pool);
    LOAD(cpuid);
    run();
    expect_fault(EXC_GP, 0);
    cr_expect_eq(s.rip, CODE);
    uw_pool_destroy(pool);
}

/* As switching to a thread that is otherwise costs the host's kernel a write to an MSR each time. */
Test(uw_pool, cpuid_faults_in_the_own_thread_while_there_are_worlds, .timeout = 60)
{
    make_pool((struct uw_config){.fault_cpuid = true});
    if (!uw_faults_cpuid(pool))
        cr_skip_test("the host cannot");
    cr_expect_eq(syscall(SYS_arch_prctl, ARCH_GET_CPUID), 1);
    w = uw_get(pool);
    struct uworld *second = uw_get(pool);
    cr_expect_eq(syscall(SYS_arch_prctl, ARCH_GET_CPUID), 0);
    uw_put(w);
    cr_expect_eq(syscall(SYS_arch_prctl, ARCH_GET_CPUID), 0);
    uw_put(second);
    cr_expect_eq(syscall(SYS_arch_prctl, ARCH_GET_CPUID), 1);
    w = uw_get(pool);
    uw_pool_destroy(pool);
    cr_expect_eq(syscall(SYS_arch_prctl, ARCH_GET_CPUID), 1);
}
