/* tests/user/guest/u_mem.c - address spaces that change all the time: mappings against a model, copies after fork, sharing. */
#define _GNU_SOURCE
#include "ut.h"
#include <sys/uio.h>

/* A region of pages, each absent, or with a known first word and protection. Random calls; now and then everything is checked. */
enum { PAGES = 96, STEPS = 1500 };
static struct model {
    bool there, writable, readable;
    uint32_t word;
} model[PAGES];
static uint8_t *region;

static bool reads(const volatile void *p, uint32_t *value)
{
    /* The kernel's own access: false for what user code could not read either. */
    struct iovec to = {value, 4}, from = {(void *)p, 4};
    return process_vm_readv(getpid(), &to, 1, &from, 1, 0) == 4;
}
static void do_read(void *p) { (void)*(volatile uint32_t *)p; }
static void do_write(void *p) { *(volatile uint32_t *)p = 0xbad; }

static void check_page(unsigned i, bool by_fault)
{
    volatile uint32_t *p = (volatile uint32_t *)(region + i * UT_PAGE);
    const struct model *m = &model[i];
    if (m->there && m->readable) {
        REQUIRE_MSG(*p == m->word, "page %u holds 0x%x, not 0x%x", i, *p, m->word);
        if (by_fault && !m->writable)
            REQUIRE_MSG(bt_catch(do_write, (void *)p, NULL) == SIGSEGV, "page %u is writable", i);
    } else if (by_fault) {
        REQUIRE_MSG(bt_catch(do_read, (void *)p, NULL) == SIGSEGV, "page %u is readable", i);
    }
    uint32_t word = 0;
    if (m->there && m->readable)
        REQUIRE_MSG(reads(p, &word) && word == m->word, "the kernel reads 0x%x in page %u, not 0x%x", word, i, m->word);
}

static void write_page(unsigned i, uint32_t word)
{
    volatile uint32_t *p = (volatile uint32_t *)(region + i * UT_PAGE);
    if (model[i].there && model[i].writable)
        *p = model[i].word = word;
}

static void step(uint32_t *s)
{
    unsigned i = bt_random(s) % PAGES, n = bt_random(s) % 12 + 1;
    n = i + n > PAGES ? PAGES - i : n;
    uint8_t *p = region + i * UT_PAGE;
    size_t bytes = n * UT_PAGE;
    bool all = true;
    for (unsigned k = i; k < i + n; k++)
        all = all && model[k].there;
    switch (bt_random(s) % 8) {
    case 0:
        REQUIRE(mmap(p, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == p);
        for (unsigned k = i; k < i + n; k++)
            model[k] = (struct model){true, true, true, 0};
        break;
    case 1:
        REQUIRE(munmap(p, bytes) == 0);
        memset(&model[i], 0, n * sizeof model[0]);
        break;
    case 2:
    case 3: {
        static const int prot[] = {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE};
        int which = (int)(bt_random(s) % 3);
        int rc = mprotect(p, bytes, prot[which]);
        REQUIRE_MSG((rc == 0) == all, "mprotect of %u pages at %u: %d", n, i, rc);
        for (unsigned k = i; k < i + n && model[k].there; k++) {
            model[k].readable = which > 0; /* up to the first hole even if it failed */
            model[k].writable = which > 1;
        }
        break;
    }
    case 4:
        if (all && madvise(p, bytes, MADV_DONTNEED) == 0)
            for (unsigned k = i; k < i + n; k++)
                model[k].word = 0;
        break;
    case 5: { /* move one page onto another place */
        unsigned to = bt_random(s) % PAGES;
        if (!model[i].there || to == i)
            break;
        uint8_t *target = region + to * UT_PAGE;
        REQUIRE(mremap(p, UT_PAGE, UT_PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, target) == target);
        model[to] = model[i];
        model[i] = (struct model){0};
        break;
    }
    default:
        for (unsigned k = i; k < i + n; k++)
            write_page(k, bt_random(s));
        break;
    }
    for (unsigned k = i; k < i + n; k++)
        check_page(k, bt_random(s) % 16 == 0);
}

static void churn(void)
{
    uint32_t s = 4711;
    region = ut_anon(PAGES * UT_PAGE, PROT_NONE);
    munmap(region, PAGES * UT_PAGE);
    for (unsigned i = 0; i < STEPS; i++) {
        step(&s);
        if (i % 100 == 0)
            for (unsigned k = 0; k < PAGES; k++)
                check_page(k, false);
    }
    for (unsigned k = 0; k < PAGES; k++)
        check_page(k, true);
}

/* Map, touch, unmap at the same place: what was there before must never be seen again. */
static void reuse(void)
{
    uint8_t *at = ut_anon(16 * UT_PAGE, PROT_READ | PROT_WRITE);
    for (uint32_t i = 1; i <= 400; i++) {
        size_t bytes = (i % 16 + 1) * UT_PAGE;
        for (size_t k = 0; k < bytes; k += UT_PAGE) {
            REQUIRE_MSG(*(uint32_t *)(at + k) == 0, "round %u: old contents", i);
            *(uint32_t *)(at + k) = i;
        }
        REQUIRE(munmap(at, 16 * UT_PAGE) == 0);
        REQUIRE(mmap(at, 16 * UT_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == at);
    }
}

/* Three generations write the same pages; each keeps its own. */
static void fork_copies(void)
{
    enum { N = 200 };
    uint32_t *p = ut_anon(N * UT_PAGE, PROT_READ | PROT_WRITE);
    enum { WORDS = UT_PAGE / 4 };
    for (unsigned round = 0; round < 6; round++) {
        for (unsigned i = 0; i < N; i++)
            p[i * WORDS + round] = i + round;
        pid_t child = fork();
        if (child == 0) {
            for (unsigned i = 0; i < N; i += 2)
                p[i * WORDS + round] += 1000;
            pid_t grandchild = fork();
            for (unsigned i = 0; i < N; i += 3)
                p[i * WORDS + round] += grandchild ? 10000 : 20000;
            for (unsigned i = 0; i < N; i++)
                REQUIRE(p[i * WORDS + round] == i + round + (i % 2 ? 0 : 1000) +
                                                    (i % 3        ? 0
                                                     : grandchild ? 10000
                                                                  : 20000));
            if (grandchild)
                bt_wait(grandchild);
            _exit(0);
        }
        for (unsigned i = 0; i < N; i += 5)
            p[i * WORDS + round] += 7;
        bt_wait(child);
        for (unsigned i = 0; i < N; i++)
            REQUIRE(p[i * WORDS + round] == i + round + (i % 5 ? 0 : 7));
    }
}

/* One page of memory in two processes and at two addresses in each, with different rights. */
static void shared_aliases(void)
{
    int fd = (int)syscall(SYS_memfd_create, "u-shared", 0);
    REQUIRE(fd >= 0 && ftruncate(fd, 4 * UT_PAGE) == 0);
    volatile uint32_t *w = mmap(NULL, 4 * UT_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    volatile uint32_t *r = mmap(NULL, 4 * UT_PAGE, PROT_READ, MAP_SHARED, fd, 0);
    volatile uint32_t *c = mmap(NULL, 4 * UT_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    REQUIRE(w != MAP_FAILED && r != MAP_FAILED && c != MAP_FAILED);
    c[1] = 5; /* the private mapping's first page is its own now */
    pid_t child = fork();
    for (uint32_t i = 0; i < 300; i++) {
        if (child == 0) {
            while (r[0] != 2 * i + 1)
                usleep(0);
            w[1024] = i;
            w[0] = 2 * i + 2;
        } else {
            w[0] = 2 * i + 1;
            while (r[0] != 2 * i + 2)
                usleep(0);
            REQUIRE(r[1024] == i && c[1024] == i && c[1] == 5 && c[0] == 0);
        }
    }
    if (child == 0)
        _exit(0);
    bt_wait(child);
    REQUIRE(bt_catch(do_write, (void *)r, NULL) == SIGSEGV);
}

/* The first page below the stack comes by itself; beyond the limit there is nothing. */
static int __attribute__((noinline)) deeper(unsigned n)
{
    volatile char room[20000];
    room[0] = (char)n;
    return n ? deeper(n - 1) + room[0] - (char)n : 0;
}
static void stack_grows(void)
{
    REQUIRE(deeper(350) == 0); /* 7 MB of the usual 8 */
    uint8_t *p = mmap(NULL, UT_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN, -1, 0);
    REQUIRE(p != MAP_FAILED);
    *(volatile uint8_t *)p = 1;
}

/* Huge pages, cut and joined again. */
static void huge_pages_cut(void)
{
    enum { BYTES = 8 << 20, HUGE = 2 << 20 };
    uint8_t *all = ut_anon(BYTES + HUGE, PROT_READ | PROT_WRITE);
    uint8_t *p = (uint8_t *)(((uintptr_t)all + HUGE - 1) & -(uintptr_t)HUGE);
    madvise(p, BYTES, MADV_HUGEPAGE);
    for (size_t i = 0; i < BYTES; i += UT_PAGE)
        *(uint32_t *)(p + i) = (uint32_t)i;
    for (unsigned round = 0; round < 8; round++) {
        size_t hole = (round * 37 + 5) * (size_t)UT_PAGE;
        REQUIRE(munmap(p + hole, UT_PAGE) == 0);
        REQUIRE(bt_catch(do_read, p + hole, NULL) == SIGSEGV);
        REQUIRE(mprotect(p + hole + UT_PAGE, UT_PAGE, PROT_READ) == 0);
        REQUIRE(bt_catch(do_write, p + hole + UT_PAGE, NULL) == SIGSEGV);
        pid_t child = fork();
        if (child == 0) {
            memset(p + HUGE, round, HUGE);
            _exit(0);
        }
        bt_wait(child);
        REQUIRE(mmap(p + hole, UT_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
                p + hole);
        REQUIRE(*(uint32_t *)(p + hole) == 0);
        *(uint32_t *)(p + hole) = (uint32_t)hole;
        REQUIRE(mprotect(p, BYTES, PROT_READ | PROT_WRITE) == 0);
        for (size_t i = 0; i < BYTES; i += UT_PAGE)
            REQUIRE_MSG(*(uint32_t *)(p + i) == (uint32_t)i, "round %u, offset 0x%zx", round, i);
    }
}

/* Writes of the kernel (read, pipes) into pages that user code has mapped in every state. */
static void kernel_writes(void)
{
    int fd[2];
    REQUIRE(pipe(fd) == 0);
    uint8_t *p = ut_anon(8 * UT_PAGE, PROT_READ | PROT_WRITE);
    for (unsigned i = 0; i < 400; i++) {
        uint8_t *at = p + (i % 8) * UT_PAGE + i * 7 % 4000, byte = (uint8_t)i;
        if (i % 3 == 0)
            REQUIRE(madvise(p, 8 * UT_PAGE, MADV_DONTNEED) == 0);
        if (i % 5 == 0)
            (void)*(volatile uint8_t *)at; /* the zero page, read-only */
        REQUIRE(write(fd[1], &byte, 1) == 1 && read(fd[0], at, 1) == 1);
        REQUIRE_MSG(*(volatile uint8_t *)at == byte, "round %u", i);
        *(volatile uint8_t *)at = 0xee;
        uint8_t back = 0;
        REQUIRE(write(fd[1], at, 1) == 1 && read(fd[0], &back, 1) == 1 && back == 0xee);
    }
    REQUIRE(mprotect(p, UT_PAGE, PROT_READ) == 0 && write(fd[1], p, 1) == 1);
    REQUIRE(read(fd[0], p, 1) == -1 && errno == EFAULT);
}

/* Many small mappings with gaps between: more of them than the host may hold scattered pages in one call. */
static void scattered(void)
{
    enum { N = 3000 };
    uint8_t *p = mmap(NULL, (size_t)N * 2 * UT_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    REQUIRE(p != MAP_FAILED);
    for (size_t i = 0; i < N; i++)
        REQUIRE(mprotect(p + i * 2 * UT_PAGE, UT_PAGE, PROT_READ | PROT_WRITE) == 0);
    for (unsigned round = 0; round < 3; round++)
        for (size_t i = 0; i < N; i++) {
            volatile uint32_t *w = (volatile uint32_t *)(p + i * 2 * UT_PAGE);
            REQUIRE(*w == (round ? round * 7 + i - 7 : 0));
            *w = (uint32_t)(round * 7 + i);
        }
    REQUIRE(bt_catch(do_read, p + UT_PAGE, NULL) == SIGSEGV);
    REQUIRE(munmap(p, (size_t)N * 2 * UT_PAGE) == 0);
}

const struct bt_test u_mem[] = {
    {"u-mem-churn", churn},
    {"u-mem-reuse", reuse},
    {"u-mem-fork-copies", fork_copies},
    {"u-mem-shared-aliases", shared_aliases},
    {"u-mem-stack", stack_grows},
    {"u-mem-huge", huge_pages_cut},
    {"u-mem-kernel-writes", kernel_writes},
    {"u-mem-scattered", scattered},
    {NULL, NULL},
};
