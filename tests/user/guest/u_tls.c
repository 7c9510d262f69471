/* tests/user/guest/u_tls.c - segments of 32-bit programs: TLS entries of the GDT, LDT entries, limits, far calls. */
#include "ut.h"
#ifdef __i386__
#include <asm/ldt.h>
#include <sched.h>
#include <sys/syscall.h>

static int set_thread_area(struct user_desc *d) { return (int)syscall(SYS_set_thread_area, d); }
static uint32_t read_fs(uint32_t offset)
{
    uint32_t v;
    __asm__ volatile("movl %%fs:(%1), %0" : "=r"(v) : "r"(offset));
    return v;
}
static void load_fs(unsigned sel) { __asm__ volatile("mov %0, %%fs" ::"r"(sel)); }

static uint32_t words[2][64];
/* Two TLS entries beside the C library's, each with a base of its own; switched thousands of times, kept across everything. */
static void tls_entries(void)
{
    unsigned sel[2];
    for (unsigned i = 0; i < 2; i++) {
        struct user_desc d = {.entry_number = (unsigned)-1,
                              .base_addr = (unsigned)(uintptr_t)words[i],
                              .limit = 0xfffff,
                              .seg_32bit = 1,
                              .limit_in_pages = 1,
                              .useable = 1};
        REQUIRE(set_thread_area(&d) == 0);
        sel[i] = d.entry_number * 8 + 3;
        for (unsigned k = 0; k < 64; k++)
            words[i][k] = i * 1000 + k;
    }
    REQUIRE(sel[0] != sel[1]);
    for (unsigned n = 0; n < 5000; n++) {
        unsigned i = n & 1, k = n % 64, got;
        load_fs(sel[i]);
        if (n % 10 == 0)
            sched_yield();
        __asm__ volatile("mov %%fs, %0" : "=r"(got));
        REQUIRE_MSG((got & 0xffff) == sel[i], "FS is 0x%x", got);
        REQUIRE_MSG(read_fs(k * 4) == i * 1000 + k, "round %u", n);
        if (n % 100 == 0) {
            pid_t child = fork();
            if (child == 0) {
                REQUIRE(read_fs(k * 4) == i * 1000 + k);
                _exit(0);
            }
            bt_wait(child);
        }
    }
    /* Changing the entry counts at the next load (the kernel reloads it on return, too). */
    struct user_desc d = {.entry_number = sel[0] / 8,
                          .base_addr = (unsigned)(uintptr_t)words[1],
                          .limit = 0xfffff,
                          .seg_32bit = 1,
                          .limit_in_pages = 1,
                          .useable = 1};
    REQUIRE(set_thread_area(&d) == 0);
    load_fs(sel[0]);
    REQUIRE(read_fs(8) == 1002);
    load_fs(0);
}

static void read_at(void *arg) { read_fs((uint32_t)(uintptr_t)arg); }
static void write_byte(void *arg) { __asm__ volatile("movb $1, %%fs:(%0)" ::"r"(arg) : "memory"); }
static void load_any(void *arg) { load_fs((unsigned)(uintptr_t)arg); }
/* Segments with limits: expand-up, expand-down, read-only, not present. */
static void ldt_limits(void)
{
    struct user_desc d = {
        .entry_number = 2, .base_addr = (unsigned)(uintptr_t)words[0], .limit = 31, .seg_32bit = 1, .useable = 1};
    if (syscall(SYS_modify_ldt, 1, &d, sizeof d) && errno == ENOSYS)
        bt_skip("no modify_ldt");
    unsigned sel = 2 * 8 + 7;
    for (int i = 0; i < 50; i++) {
        words[0][7] = 77;
        load_fs(sel);
        REQUIRE(read_fs(28) == 77);
        REQUIRE(bt_catch(read_at, (void *)29, NULL) == SIGSEGV); /* the last byte is beyond */
        load_fs(sel);
        REQUIRE(bt_catch(read_at, (void *)0x10000, NULL) == SIGSEGV);
        load_fs(sel);
        REQUIRE(bt_catch(write_byte, (void *)31, NULL) == 0);
    }
    d.contents = MODIFY_LDT_CONTENTS_STACK; /* expand-down: beyond the limit is inside */
    d.base_addr = (unsigned)(uintptr_t)words[0];
    REQUIRE(syscall(SYS_modify_ldt, 1, &d, sizeof d) == 0);
    load_fs(sel);
    words[0][8] = 88;
    REQUIRE(read_fs(32) == 88);
    REQUIRE(bt_catch(read_at, (void *)28, NULL) == SIGSEGV);
    d.contents = 0;
    d.read_exec_only = 1;
    REQUIRE(syscall(SYS_modify_ldt, 1, &d, sizeof d) == 0);
    load_fs(sel);
    REQUIRE(bt_catch(write_byte, (void *)3, NULL) == SIGSEGV);
    d.read_exec_only = 0;
    d.seg_not_present = 1;
    load_fs(0);
    REQUIRE(syscall(SYS_modify_ldt, 1, &d, sizeof d) == 0);
    int sig = bt_catch(load_any, (void *)(uintptr_t)sel, NULL);
    REQUIRE_MSG(sig == SIGBUS || sig == SIGSEGV, "not present: signal %d", sig);
}

/* Selectors that Linux does not have, or not for user code. */
static void bad_selectors(void)
{
    static const unsigned bad[] = {0x8, 0x10, 0x18, 0x3fff, 0x7ff7, 0xfffc, 0x4b, 0x5003};
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (bad[i] != 0x4b)
            for (int n = 0; n < 10; n++) {
                int sig = bt_catch(load_any, (void *)(uintptr_t)bad[i], NULL);
                REQUIRE_MSG(sig == SIGSEGV, "selector 0x%x: signal %d", bad[i], sig);
            }
    load_fs(0);
    REQUIRE(bt_catch(read_at, (void *)words, NULL) == SIGSEGV); /* the null selector */
    for (unsigned i = 0; i < 4; i++) {
        load_fs(i); /* null with any RPL */
        REQUIRE(bt_catch(read_at, (void *)words, NULL) == SIGSEGV);
    }
}

/* A far call into a code segment of the LDT with a base. */
static void ldt_code(void)
{
    static const uint8_t code[] = {0xb8, 0x21, 0x43, 0x65, 0x07, 0xcb}; /* mov eax, 7654321h; retf */
    uint8_t *p = ut_anon(UT_PAGE, PROT_READ | PROT_WRITE | PROT_EXEC);
    memcpy(p + 16, code, sizeof code);
    struct user_desc d = {.entry_number = 4,
                          .base_addr = (unsigned)(uintptr_t)p,
                          .limit = 4095,
                          .seg_32bit = 1,
                          .useable = 1,
                          .contents = MODIFY_LDT_CONTENTS_CODE};
    if (syscall(SYS_modify_ldt, 1, &d, sizeof d) && errno == ENOSYS)
        bt_skip("no modify_ldt");
    struct {
        uint32_t offset;
        uint16_t sel;
    } __attribute__((packed)) target = {16, 4 * 8 + 7};
    for (int i = 0; i < 300; i++) {
        uint32_t v;
        __asm__ volatile("lcall *%1" : "=a"(v) : "m"(target) : "memory");
        REQUIRE_MSG(v == 0x7654321, "0x%x", v);
        if (i % 30 == 0)
            sched_yield();
    }
}

/* Thread-local variables of the compiler, by GS, in processes that compete. */
static __thread uint32_t local[16];
static void compiler_tls(void)
{
    for (int i = 0; i < 16; i++)
        local[i] = (uint32_t)i;
    for (int n = 0; n < 8; n++) {
        pid_t child = fork();
        for (int k = 0; k < 200; k++) {
            for (int i = 0; i < 16; i++)
                local[i] += child ? 1 : 2;
            sched_yield();
        }
        for (int i = 0; i < 16; i++)
            REQUIRE(local[i] == (uint32_t)(i + n * 200 + (child ? 200 : 400)));
        if (child == 0)
            _exit(0);
        bt_wait(child);
    }
}

const struct bt_test u_tls[] = {
    {"u-tls-gdt-entries", tls_entries}, {"u-tls-ldt-limits", ldt_limits}, {"u-tls-bad-selectors", bad_selectors},
    {"u-tls-ldt-code", ldt_code},       {"u-tls-compiler", compiler_tls}, {NULL, NULL},
};
#else
const struct bt_test u_tls[] = {{NULL, NULL}};
#endif
