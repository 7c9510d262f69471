/* tests/user/guest/u_jit.c - programs that write code and run it: the ways of just-in-time compilers. */
#include "ut.h"
#include <pthread.h>

typedef uint32_t (*func)(uint32_t);
/* f(x) = x * a + b, calling convention of the mode. */
static size_t emit_linear(uint8_t *p, uint32_t a, uint32_t b)
{
    uint8_t *start = p;
#ifdef __x86_64__
    *p++ = 0x69; /* imul eax, edi, a */
    *p++ = 0xc7;
#else
    *p++ = 0x69; /* imul eax, [esp+4], a */
    *p++ = 0x44;
    *p++ = 0x24;
    *p++ = 4;
#endif
    memcpy(p, &a, 4);
    p += 4;
    *p++ = 0x05; /* add eax, b */
    memcpy(p, &b, 4);
    p += 4;
    *p++ = 0xc3;
    return (size_t)(p - start);
}
static void run_checked(uint8_t *code, uint32_t a, uint32_t b, uint32_t x)
{
    uint32_t got = ((func)(uintptr_t)code)(x);
    REQUIRE_MSG(got == x * a + b, "%u * %u + %u gave %u", x, a, b, got);
}

static void rwx(void)
{
    uint8_t *p = ut_anon(2 * UT_PAGE, PROT_READ | PROT_WRITE | PROT_EXEC);
    for (uint32_t i = 0; i < 4000; i++) {
        uint8_t *at = p + (i % 3 == 0 ? 100 : i % 3 == 1 ? UT_PAGE - 6 : UT_PAGE + 200); /* also across the pages */
        emit_linear(at, i + 1, ~i);
        run_checked(at, i + 1, ~i, i ^ 0x5555);
    }
}

static void w_xor_x(void)
{
    uint8_t *p = ut_anon(UT_PAGE, PROT_READ | PROT_WRITE);
    for (uint32_t i = 0; i < 600; i++) {
        REQUIRE(mprotect(p, UT_PAGE, PROT_READ | PROT_WRITE) == 0);
        emit_linear(p + i % 64, i, i * 3);
        REQUIRE(mprotect(p, UT_PAGE, PROT_READ | PROT_EXEC) == 0);
        run_checked(p + i % 64, i, i * 3, 1000 + i);
    }
}

static void double_mapping(void)
{
    int fd = (int)syscall(SYS_memfd_create, "u-jit", 0);
    REQUIRE(fd >= 0 && ftruncate(fd, 2 * UT_PAGE) == 0);
    uint8_t *w = mmap(NULL, 2 * UT_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    uint8_t *x = mmap(NULL, 2 * UT_PAGE, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    REQUIRE(w != MAP_FAILED && x != MAP_FAILED);
    for (uint32_t i = 0; i < 4000; i++) {
        emit_linear(w + i % 5 * 1000, i, 5 - i);
        run_checked(x + i % 5 * 1000, i, 5 - i, i * 77);
    }
    /* Another process writes, this one runs. */
    volatile uint32_t *turn = bt_shared(UT_PAGE);
    pid_t child = fork();
    for (uint32_t i = 0; i < 200; i++) {
        while (turn[0] != 2 * i + (child == 0))
            usleep(0);
        if (child) {
            emit_linear(w, i, 9);
            turn[0] = 2 * i + 1;
            while (turn[0] != 2 * i + 2)
                usleep(0);
        } else {
            run_checked(x, i, 9, i);
            turn[0] = 2 * i + 2;
        }
    }
    if (child == 0)
        _exit(0);
    bt_wait(child);
}

/* A loop whose body changes its own constant, and one that patches the instruction just ahead behind a jump. */
static void changes_itself(void)
{
#ifdef __x86_64__
    static const uint8_t loop[] = {
        0x31, 0xc0,                         /* xor eax, eax */
        0xb9, 0xe8, 3,    0,    0,          /* mov ecx, 1000 */
        0x05, 1,    0,    0,    0,          /* again: add eax, 1 (the constant is patched) */
        0xff, 0x05, 0xf6, 0xff, 0xff, 0xff, /* inc dword [rip-10]: the constant */
        0xff, 0xc9,                         /* dec ecx */
        0x75, 0xf1,                         /* jnz again */
        0xc3,
    };
    uint8_t *p = ut_anon(UT_PAGE, PROT_READ | PROT_WRITE | PROT_EXEC);
    memcpy(p, loop, sizeof loop);
#else
    uint8_t *p = ut_anon(UT_PAGE, PROT_READ | PROT_WRITE | PROT_EXEC), *q = p;
    uint32_t cell = (uint32_t)(uintptr_t)p + 8;
    static const uint8_t head[] = {0x31, 0xc0, 0xb9, 0xe8, 3, 0, 0, 0x05, 1, 0, 0, 0, 0xff, 0x05};
    memcpy(q, head, sizeof head);
    q += sizeof head;
    memcpy(q, &cell, 4);
    q += 4;
    static const uint8_t tail[] = {0x49, 0x75, 0xf2, 0xc3}; /* dec ecx; jnz again */
    memcpy(q, tail, sizeof tail);
#endif
    for (uint32_t round = 0; round < 20; round++) {
        uint32_t first = 1;
        memcpy(p + 8, &first, 4);
        uint32_t sum = ((func)(uintptr_t)p)(0);
        REQUIRE_MSG(sum == 1000 * 1001 / 2, "round %u: %u", round, sum);
    }
}

/* Code and data side by side on one page, as small JIT compilers have it. */
static void data_beside_code(void)
{
    uint8_t *p = ut_anon(UT_PAGE, PROT_READ | PROT_WRITE | PROT_EXEC);
    emit_linear(p, 3, 4);
    volatile uint32_t *counter = (volatile uint32_t *)(p + 2048);
    for (uint32_t i = 0; i < 20000; i++) {
        run_checked(p, 3, 4, i);
        *counter += 1;
    }
    REQUIRE(*counter == 20000);
}

/* Functions come and go: the place is unmapped, mapped again, and holds another one. */
static void replaced(void)
{
    for (uint32_t i = 0; i < 300; i++) {
        uint8_t *p = ut_anon(UT_PAGE, PROT_READ | PROT_WRITE | PROT_EXEC);
        emit_linear(p, i, i);
        run_checked(p, i, i, 12345);
        munmap(p, UT_PAGE);
    }
}

/* After fork each process patches its own copy. */
static void after_fork(void)
{
    uint8_t *p = ut_anon(UT_PAGE, PROT_READ | PROT_WRITE | PROT_EXEC);
    emit_linear(p, 5, 6);
    for (uint32_t i = 0; i < 30; i++) {
        run_checked(p, 5 + i, 6, i);
        pid_t child = fork();
        if (child == 0) {
            run_checked(p, 5 + i, 6, 77);
            emit_linear(p, 1000 + i, 2);
            run_checked(p, 1000 + i, 2, 77);
            _exit(0);
        }
        run_checked(p, 5 + i, 6, 78);
        emit_linear(p, 6 + i, 6);
        run_checked(p, 6 + i, 6, 79);
        bt_wait(child);
    }
}

/* One thread compiles, others run what it published. */
static uint8_t *pool;
static _Atomic uint32_t published, seen_by[3];
static void *runner(void *arg)
{
    uint32_t me = (uint32_t)(uintptr_t)arg;
    for (uint32_t seen = 0; seen < 300;) {
        uint32_t now = published;
        if (now == seen) {
            sched_yield();
            continue;
        }
        seen = now;
        run_checked(pool + (now % 128) * 32, now, 7, 99);
        seen_by[me] = now;
    }
    return NULL;
}
static void threads(void)
{
    pthread_t t[3];
    pool = ut_anon(UT_PAGE, PROT_READ | PROT_WRITE | PROT_EXEC);
    for (uintptr_t i = 0; i < 3; i++)
        REQUIRE(pthread_create(&t[i], NULL, runner, (void *)i) == 0);
    for (uint32_t i = 1; i <= 300; i++) {
        for (int k = 0; k < 3; k++)
            while (seen_by[k] + 100 < i) /* what somebody may still run is not overwritten */
                sched_yield();
        emit_linear(pool + (i % 128) * 32, i, 7);
        published = i;
        if (i % 8 == 0)
            usleep(100);
    }
    for (int i = 0; i < 3; i++)
        REQUIRE(pthread_join(t[i], NULL) == 0);
}

const struct bt_test u_jit[] = {
    {"u-jit-rwx", rwx},
    {"u-jit-w-xor-x", w_xor_x},
    {"u-jit-double-mapping", double_mapping},
    {"u-jit-changes-itself", changes_itself},
    {"u-jit-data-beside", data_beside_code},
    {"u-jit-replaced", replaced},
    {"u-jit-after-fork", after_fork},
    {"u-jit-threads", threads},
    {NULL, NULL},
};
