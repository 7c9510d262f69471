/* tests/user/guest/hostile32.c - attackers that are 32-bit programs: their instructions on selectors hide from who looks for them (in the
 * middle of others), so that on a user world's CPU they meet the host's descriptors: 64-bit code, the stub, segments that this kernel does
 * not have. Hardware has one answer to most of it, which is required.
 */
#include "hostile.h"
#include <sys/utsname.h>

static uint8_t *page, *at, *scratch;
static bool wide; /* a 64-bit kernel: 33h is 64-bit code there as well */

static void put(const void *p, size_t n)
{
    memcpy(at, p, n);
    at += n;
}
static void put32(uint32_t v) { put(&v, 4); }
static void put64(uint64_t v) { put(&v, 8); }
#define PUT(...) put((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))
static void fresh_page(void)
{
    struct utsname u;
    page = at = mmap(NULL, 4 * 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    scratch = page + 8192;
    REQUIRE(uname(&u) == 0);
    wide = !strcmp(u.machine, "x86_64");
}
/* jmp +2; mov dword [disp32], imm32, whose eight bytes are what runs. */
static void hide(const uint8_t *insn, size_t n)
{
    PUT(0xeb, 2, 0xc7, 0x05);
    memset(at, 0x90, 8);
    memcpy(at, insn, n);
    at += 8;
}
static void hidden_far_jump(unsigned sel, uintptr_t to)
{
    uint8_t insn[7] = {0xea};
    uint32_t offset = (uint32_t)to;
    uint16_t s = (uint16_t)sel;
    memcpy(insn + 1, &offset, 4);
    memcpy(insn + 5, &s, 2);
    hide(insn, 7);
}
static void run(void) { ((void (*)(void))(uintptr_t)page)(); }

/* ---- 64-bit code ---- */

enum { SPIN, TRAP, CALL, WIDE_CALL };
static void into_64(uint64_t what)
{
    fresh_page();
    hidden_far_jump(0x33, (uintptr_t)page + 256);
    at = page + 256;
    switch (what) {
    case SPIN: PUT(0xeb, 0xfe); break;
    case TRAP: PUT(0x49, 0xff, 0xc7, 0x0f, 0x0b); break; /* inc r15; ud2 */
    case CALL: PUT(0xb8, 20, 0, 0, 0, 0xcd, 0x80, 0xeb, 0xfe); break;
    default: PUT(0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xfe); break; /* getpid */
    }
    run();
}
static void long_mode(void)
{
    fresh_page();
    for (unsigned round = 0; round < 3; round++)
        for (uint64_t what = SPIN; what <= WIDE_CALL; what++) {
            int status = attempt_ms(into_64, what, 300), want = !wide ? SIGSEGV : what == TRAP ? SIGILL : SIGKILL;
            REQUIRE_MSG(died_of(status, want), "64-bit code %u: status 0x%x, not signal %d", (unsigned)what, status,
                        want);
        }
    sane();
}

/* All registers chosen, then the stub. */
static void load_64(uint32_t seed, uint64_t rax)
{
    static const uint64_t addresses[] = {0, STUB, STUB + STUB_RO, STUB + STUB_RW, STUB + STUB_ALT, ~0ull};
    for (unsigned r = 0; r < 16; r++) {
        uint32_t v = bt_random(&seed);
        PUT(r < 8 ? 0x48 : 0x49, 0xb8 | (r & 7));
        put64(r == 0   ? rax
              : r == 4 ? (uint64_t)(uintptr_t)scratch + 4096
              : v % 2  ? (uint64_t)(uintptr_t)scratch + v % 4096
                       : addresses[v / 2 % 6]);
    }
}
static void stub_jump(uint64_t n)
{
    /* mmap mprotect clone pwrite sigreturn open uretprobe */
    static const unsigned numbers[] = {9, 10, 56, 18, 15, 2, 335};
    fresh_page();
    hidden_far_jump(0x33, (uintptr_t)page + 256);
    at = page + 256;
    load_64((uint32_t)n * 2654435761u + 1, numbers[n % 7]);
    PUT(0xff, 0x25);
    put32(0);
    put64(STUB + (n & 0xffff));
    run();
}
static void stub_every_offset(void)
{
    for (uint64_t i = 0; i < 0x300; i++)
        attempt_ms(stub_jump, i, 60);
    for (uint64_t i = 0x1000; i < STUB_END; i += 0x377)
        attempt_ms(stub_jump, i, 60);
    sane();
}
static void write_64(uint64_t where)
{
    fresh_page();
    hidden_far_jump(0x33, (uintptr_t)page + 256);
    at = page + 256;
    PUT(0x48, 0xb8);
    put64(where);
    PUT(0xc7, 0x00);
    put32(1);
    PUT(0x0f, 0x0b);
    run();
}
static void beyond_4g(void)
{
    static const uint64_t where[] = {STUB,          STUB + STUB_CONST,  STUB + STUB_RO,     STUB + STUB_RO + 64,
                                     0x10000000000, 0xffff888000000000, 0xffffffff81000000, 0x7fffffffe000};
    for (unsigned i = 0; i < sizeof where / sizeof where[0]; i++)
        must_die("write to", write_64, where[i], SIGSEGV);
    sane();
}

/* ---- selectors ---- */

/* Far jumps to every selector there could be: 32-bit code behind those that exist, SIGSEGV behind the others. */
static void far_jump(uint64_t sel)
{
    fresh_page();
    hidden_far_jump((unsigned)sel, (uintptr_t)page + 256);
    at = page + 256;
    PUT(0xb8, 1, 0, 0, 0, 0xbb, 7, 0, 0, 0, 0xcd, 0x80); /* exit(7) by INT 80h: the same in either mode */
    PUT(0x0f, 0x0b);
    run();
}
static void far_jumps(void)
{
    fresh_page();
    for (unsigned sel = 0; sel < 0x100; sel += sel & 4 ? 4 : 1) {
        unsigned entry = sel & ~7u;
        /* The host's own 32-bit code segment, which nobody can tell from the one that this code had: DIRECT.md. */
        if (!wide && entry == 0x20)
            continue;
        bool code = !(sel & 4) && (wide ? entry == 0x20 || entry == 0x30 : entry == 0x70);
        int status = attempt_ms(far_jump, sel, 300);
        if (code)
            REQUIRE_MSG(WIFEXITED(status) && WEXITSTATUS(status) == 7, "selector 0x%x: status 0x%x", sel, status);
        else
            REQUIRE_MSG(died_of(status, SIGSEGV), "selector 0x%x: status 0x%x", sel, status);
    }
    sane();
}

/* Loads of data segment registers, hidden; then a system call, after which nothing that the kernel does not have may be left. */
static uint16_t left_over[4];
static void hidden_load(uint64_t arg)
{
    unsigned sel = arg & 0xffff, reg = arg >> 16 & 7; /* 0 ES, 3 DS, 4 FS, 5 GS, 2 SS */
    fresh_page();
    PUT(0xb8);
    put32(sel);
    hide((const uint8_t[]){0x8e, (uint8_t)(0xc0 | reg << 3)}, 2);
    if (reg != 2)
        PUT(0xb8, 20, 0, 0, 0, 0xcd, 0x80); /* getpid */
    /* Back to what a program needs, in a page of its own: whoever looks for such instructions finds these. */
    PUT(0xe9);
    put32((uint32_t)(page + 4096 - (at + 4)));
    at = page + 4096;
    PUT(0x66, 0x8c, 0xd0, 0x66, 0x8e, 0xd8, 0x66, 0x8e, 0xc0, 0xc3); /* mov ax, ss; mov ds, ax; mov es, ax; ret */
    unsigned gs;
    __asm__ volatile("mov %%gs, %0" : "=r"(gs));
    __asm__ volatile("call *%0" ::"r"(page) : "eax", "ecx", "edx", "memory");
    if (reg == 5)
        __asm__ volatile("mov %0, %%gs" ::"r"(gs));
    __asm__ volatile("movw %%ds, %0; movw %%es, %1; movw %%fs, %2; movw %%gs, %3"
                     : "=m"(left_over[0]), "=m"(left_over[1]), "=m"(left_over[2]), "=m"(left_over[3]));
    for (unsigned i = 0; i < 1000; i++)
        scratch[i] = (uint8_t)i;
    _exit(scratch[999] == (uint8_t)999 ? 0 : 1);
}
static void hidden_loads(void)
{
    static const uint8_t regs[] = {0, 2, 3, 4, 5};
    fresh_page();
    for (unsigned i = 0; i < sizeof regs; i++)
        for (unsigned sel = 8; sel < 0xc0; sel += 8) {
            /* What both kinds of kernel, or neither, let user code load; TLS entries may be there or not. */
            if (!wide && sel == 0x28 && (regs[i] == 0 || regs[i] == 2 || regs[i] == 3))
                continue; /* the host's number of the segment that is there already: DIRECT.md */
            bool tls = wide ? sel >= 0x60 && sel <= 0x70 : sel >= 0x30 && sel <= 0x40;
            bool data = wide ? sel == 0x28 : sel == 0x78, cpu = sel == 0x78 && wide;
            bool code = wide ? sel == 0x20 || sel == 0x30 : sel == 0x70;
            int status = attempt_ms(hidden_load, (sel | 3) | (uint64_t)regs[i] << 16, 300);
            if (tls || cpu || code)
                continue; /* readable or not, or with a base: dies or not */
            REQUIRE_MSG(data ? status == 0 : died_of(status, SIGSEGV), "selector 0x%x in register %u: status 0x%x",
                        sel | 3, regs[i], status);
        }
    sane();
}

/* What shows or uses descriptor tables, hidden. */
static void hidden_insn(uint64_t n)
{
    static const uint8_t insn[][8] = {
        {0x0f, 0x01, 0x06},       /* sgdt [esi] */
        {0x0f, 0x01, 0x0e},       /* sidt */
        {0x0f, 0x00, 0xc0},       /* sldt eax */
        {0x0f, 0x00, 0xc8},       /* str eax */
        {0x0f, 0x01, 0xe0},       /* smsw eax */
        {0x0f, 0x02, 0xc1},       /* lar eax, ecx */
        {0x0f, 0x03, 0xc1},       /* lsl eax, ecx */
        {0x0f, 0x00, 0xe1},       /* verr cx */
        {0xc5, 0x06},             /* lds eax, [esi] */
        {0xc4, 0x06},             /* les */
        {0x0f, 0xb2, 0x06},       /* lss */
        {0xcf},                   /* iret */
        {0xca, 0x10, 0x00},       /* retf 16 */
        {0xff, 0x1e},             /* call far [esi] */
        {0xff, 0x2e},             /* jmp far [esi] */
        {0x0f, 0x34},             /* sysenter */
        {0x0f, 0x05},             /* syscall */
        {0x0f, 0x35},             /* sysexit */
        {0x0f, 0x07},             /* sysret */
        {0x0f, 0xae, 0x2e},       /* xrstor [esi] */
        {0x0f, 0xc7, 0x1e},       /* xrstors */
        {0xf1},                   /* int1 */
        {0xce},                   /* into */
        {0xcd, 0x80},             /* int 80h */
        {0xcd, 0x03},             /* int 3 */
        {0xcd, 0xff},             /* int ffh */
        {0x9d},                   /* popf */
        {0xc8, 0xff, 0xff, 0x1f}, /* enter */
        {0x62, 0x06},             /* bound */
    };
    fresh_page();
    uint32_t seed = (uint32_t)n * 77 + 3;
    for (unsigned i = 0; i < 1024; i++)
        ((uint32_t *)scratch)[i] = n % 2 ? bt_random(&seed) : 0x00330000u | (bt_random(&seed) & 0xffff);
    PUT(0xbe);
    put32((uint32_t)(uintptr_t)scratch);
    PUT(0xbd);
    put32(n % 3 ? (uint32_t)(uintptr_t)scratch + 64 : 0);
    PUT(0xbc);
    put32((uint32_t)(uintptr_t)scratch + 512);
    PUT(0xb9);
    put32((uint32_t)n & 0xff);
    PUT(0xb8);
    put32((uint32_t)n % 512);
    hide(insn[n % (sizeof insn / 8)], 8);
    PUT(0xb8, 20, 0, 0, 0, 0xcd, 0x80, 0x0f, 0x0b);
    run();
}
static void hidden_insns(void)
{
    for (uint64_t n = 0; n < 29 * 8; n++)
        attempt_ms(hidden_insn, n, 200);
    unlink(CANARY);
    sane();
}

static const struct bt_test hostile32[] = {
    {"hostile32-long-mode", long_mode},
    {"hostile32-stub-offsets", stub_every_offset},
    {"hostile32-beyond-4g", beyond_4g},
    {"hostile32-far-jumps", far_jumps},
    {"hostile32-hidden-loads", hidden_loads},
    {"hostile32-hidden-insns", hidden_insns},
    {NULL, NULL},
};
const struct bt_test *const bt_tables[] = {hostile32, NULL};
