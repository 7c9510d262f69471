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

/* ---- DS, ES and SS; loads of far pointers; what LAR, LSL and VERR say ---- */

static uint32_t one_entry(unsigned n)
{
    struct user_desc d = {.entry_number = (unsigned)-1,
                          .base_addr = (unsigned)(uintptr_t)words[n],
                          .limit = 0xfffff,
                          .seg_32bit = 1,
                          .limit_in_pages = 1,
                          .useable = 1};
    REQUIRE(set_thread_area(&d) == 0);
    for (unsigned k = 0; k < 64; k++)
        words[n][k] = n * 1000 + k;
    return d.entry_number * 8 + 3;
}
static volatile int ds_in_handler, es_in_handler;
static void skip_ud2(int sig, siginfo_t *info, void *context)
{
    unsigned v;
    __asm__ volatile("mov %%ds, %0" : "=r"(v));
    ds_in_handler = (int)(v & 0xffff);
    __asm__ volatile("mov %%es, %0" : "=r"(v));
    es_in_handler = (int)(v & 0xffff);
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_EIP] += 2;
}
static void data_segments(void)
{
    unsigned sel = one_entry(0), flat, es, got, after, k, di;
    __asm__ volatile("mov %%ds, %0" : "=r"(flat));
    ut_handle(SIGILL, skip_ud2, 0);
    for (unsigned n = 0; n < 400; n++) {
        k = n % 64;
        di = k * 4;
        /* ES with a base: string instructions, and a signal in the middle that has the usual segments. */
        __asm__ volatile("push %%es; mov %4, %%es; ud2; movl %%es:(%3), %0; mov %%es, %1; stosl; pop %%es; mov %%es, %2"
                         : "=&r"(got), "=&r"(es), "=&r"(after), "+D"(di)
                         : "r"(sel), "a"(k)
                         : "memory");
        REQUIRE_MSG(got == k && (es & 0xffff) == sel && (after & 0xffff) == (flat & 0xffff), "ES: 0x%x, selector 0x%x",
                    got, es);
        REQUIRE_MSG(ds_in_handler == (int)(flat & 0xffff) && es_in_handler == (int)(flat & 0xffff),
                    "handler: DS 0x%x, ES 0x%x", ds_in_handler, es_in_handler);
        /* DS: nothing but registers until it is back. */
        __asm__ volatile("push %%ds; mov %1, %%ds; movl (%2), %0; mov $20, %%eax; int $0x80; addl (%2), %0; pop %%ds"
                         : "=&b"(got)
                         : "r"(sel), "S"(k * 4)
                         : "eax", "memory");
        REQUIRE_MSG(got == 2 * k, "DS: 0x%x", got);
        static struct {
            uint32_t offset;
            uint16_t sel;
        } __attribute__((packed)) far; /* static: not to be addressed by ESP */
        far.offset = k * 4;
        far.sel = (uint16_t)sel;
        __asm__ volatile("lfs %1, %%ecx; movl %%fs:(%%ecx), %0; push $0; pop %%fs" : "=&r"(got) : "m"(far) : "ecx");
        REQUIRE_MSG(got == k, "LFS: 0x%x", got);
        __asm__ volatile("push %%es; les %1, %%ecx; movl %%es:(%%ecx), %0; pop %%es" : "=&r"(got) : "m"(far) : "ecx");
        REQUIRE_MSG(got == k, "LES: 0x%x", got);
        unsigned limit = 0, rights = 0;
        uint8_t lsl, lar, readable, writable;
        __asm__ volatile("lsl %4, %0; setz %1; lar %4, %2; setz %3"
                         : "=&r"(limit), "=&q"(lsl), "=&r"(rights), "=&q"(lar)
                         : "r"(sel)
                         : "cc");
        __asm__ volatile("verr %w2; setz %0; verw %w2; setz %1" : "=&q"(readable), "=&q"(writable) : "r"(sel) : "cc");
        REQUIRE_MSG(lsl && limit == 0xffffffff && lar && (rights & 0xfe00) == 0xf200 && readable && writable,
                    "LSL 0x%x, LAR 0x%x, %u %u", limit, rights, readable, writable);
        if (n % 20 == 0)
            sched_yield();
    }
}

/* Stacks in segments of the LDT: with a base, and 16 bits wide. Interrupts and faults come while SS is one of these. */
static uint8_t low_stack[4096] __attribute__((aligned(4096)));
static void stack_segments(void)
{
    struct user_desc d = {
        .entry_number = 6, .base_addr = (unsigned)(uintptr_t)low_stack, .limit = 4095, .seg_32bit = 1, .useable = 1};
    if (syscall(SYS_modify_ldt, 1, &d, sizeof d) && errno == ENOSYS)
        bt_skip("no modify_ldt");
    for (unsigned n = 0; n < 200; n++) {
        unsigned got, count = n % 50 ? 10 : 3000000, sp = 0x800;
        d.seg_32bit = n / 10 % 2 == 0;
        if (n % 10 == 0)
            REQUIRE(syscall(SYS_modify_ldt, 1, &d, sizeof d) == 0);
        __asm__ volatile(
            "mov %%esp, %%edi; mov %%ss, %%esi; mov %3, %%ss; mov %4, %%esp; push $0x1234567; 1: dec %1; jnz 1b;"
            "pop %0; mov %%esi, %%ss; mov %%edi, %%esp"
            : "=&a"(got), "+c"(count), "=m"(low_stack)
            : "r"(6 * 8 + 7), "r"(sp)
            : "esi", "edi", "memory", "cc");
        REQUIRE_MSG(got == 0x1234567 && *(uint32_t *)(low_stack + 0x7fc) == 0x1234567, "0x%x, [0x%x]", got,
                    *(uint32_t *)(low_stack + 0x7fc));
        memset(low_stack, 0, sizeof low_stack);
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
    {"u-tls-gdt-entries", tls_entries},       {"u-tls-ldt-limits", ldt_limits},
    {"u-tls-bad-selectors", bad_selectors},   {"u-tls-ldt-code", ldt_code},
    {"u-tls-compiler", compiler_tls},         {"u-tls-data-segments", data_segments},
    {"u-tls-stack-segments", stack_segments}, {NULL, NULL},
};
#else
const struct bt_test u_tls[] = {{NULL, NULL}};
#endif
