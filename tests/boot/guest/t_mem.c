/* tests/boot/guest/t_mem.c - memory as processes see it: demand zero, COW, protection, remapping, huge pages, changed code. */
#include "bt.h"
#include <fcntl.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/utsname.h>

#define PAGE 4096ul

static uint8_t *anon(size_t bytes, int prot)
{
    uint8_t *p = mmap(NULL, bytes, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(p != MAP_FAILED);
    return p;
}

static void demand_zero(void)
{
    enum { PAGES = 4096 };
    uint8_t *p = anon(PAGES * PAGE, PROT_READ | PROT_WRITE);
    for (size_t i = 0; i < PAGES; i++)
        REQUIRE(p[i * PAGE + i % PAGE] == 0);
    for (size_t i = 0; i < PAGES; i++)
        *(uint32_t *)(p + i * PAGE) = (uint32_t)i * 2654435761u;
    for (size_t i = 0; i < PAGES; i++)
        REQUIRE(*(uint32_t *)(p + i * PAGE) == (uint32_t)i * 2654435761u);
    REQUIRE(madvise(p, PAGES * PAGE, MADV_DONTNEED) == 0);
    for (size_t i = 0; i < PAGES; i += 7)
        REQUIRE(*(uint32_t *)(p + i * PAGE) == 0);
    munmap(p, PAGES * PAGE);
}

static void copy_on_write(void)
{
    enum { PAGES = 512 };
    uint8_t *p = anon(PAGES * PAGE, PROT_READ | PROT_WRITE);
    for (size_t i = 0; i < PAGES; i++)
        memset(p + i * PAGE, (int)i, PAGE);
    for (int round = 0; round < 4; round++) {
        pid_t child = fork();
        uint8_t mark = child ? 1 : 2;
        for (size_t i = 0; i < PAGES; i++)
            p[i * PAGE + 100] = (uint8_t)(i + mark);
        for (size_t i = 0; i < PAGES; i++)
            REQUIRE(p[i * PAGE + 100] == (uint8_t)(i + mark) && p[i * PAGE + 101] == (uint8_t)i);
        if (child == 0)
            _exit(0);
        bt_wait(child);
    }
}

static void do_write(void *p) { *(volatile uint8_t *)p = 1; }
static void do_write32(void *p) { *(volatile uint32_t *)p = 0; }
static void do_read(void *p) { (void)*(volatile uint8_t *)p; }
static void do_call(void *p) { ((void (*)(void))p)(); }

static void protection(void)
{
    uint8_t *p = anon(4 * PAGE, PROT_READ | PROT_WRITE);
    siginfo_t info;
    for (int i = 0; i < 200; i++) {
        p[PAGE] = 7;
        REQUIRE(mprotect(p + PAGE, PAGE, PROT_READ) == 0);
        REQUIRE(bt_catch(do_read, p + PAGE, NULL) == 0 && p[PAGE] == 7);
        REQUIRE(bt_catch(do_write, p + PAGE + 5, &info) == SIGSEGV);
        REQUIRE(info.si_code == SEGV_ACCERR && info.si_addr == p + PAGE + 5);
        REQUIRE(mprotect(p + PAGE, PAGE, PROT_NONE) == 0);
        REQUIRE(bt_catch(do_read, p + PAGE, &info) == SIGSEGV && info.si_code == SEGV_ACCERR);
        REQUIRE(mprotect(p + PAGE, PAGE, PROT_READ | PROT_WRITE) == 0);
        REQUIRE(bt_catch(do_write, p + PAGE, NULL) == 0 && p[PAGE] == 1);
    }
    munmap(p + 2 * PAGE, PAGE);
    REQUIRE(bt_catch(do_read, p + 2 * PAGE, &info) == SIGSEGV && info.si_code == SEGV_MAPERR);
}

static void no_execute(void)
{
    /* Linux 6.1 loses the bit on 32-bit kernels, with PAE too: vm_get_page_prot computes in unsigned long. */
    struct utsname uts;
    if (uname(&uts) || strcmp(uts.machine, "x86_64"))
        bt_skip("no NX in processes on 32-bit kernels");
    uint8_t *p = anon(PAGE, PROT_READ | PROT_WRITE);
    siginfo_t info;
    p[0] = 0xc3;
    REQUIRE(bt_catch(do_call, p, &info) == SIGSEGV && info.si_addr == p);
    REQUIRE(mprotect(p, PAGE, PROT_READ | PROT_EXEC) == 0);
    REQUIRE(bt_catch(do_call, p, NULL) == 0);
    REQUIRE(mprotect(p, PAGE, PROT_READ) == 0);
    REQUIRE(bt_catch(do_call, p, NULL) == SIGSEGV);
}

/* Code that is written, run, changed and run again: through the same mapping, and through another one. */
static void changed_code(void)
{
    int fd = (int)syscall(SYS_memfd_create, "code", 0);
    REQUIRE(fd >= 0 && ftruncate(fd, PAGE) == 0);
    uint8_t *rwx = mmap(NULL, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_SHARED, fd, 0);
    uint8_t *alias = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    REQUIRE(rwx != MAP_FAILED && alias != MAP_FAILED);
    for (uint32_t i = 0; i < 2000; i++) {
        uint8_t *w = (i & 1) ? alias : rwx;
        w[0] = 0xb8; /* mov eax, i */
        memcpy(w + 1, &i, 4);
        w[5] = 0xc3;
        uint32_t got = ((uint32_t(*)(void))rwx)();
        REQUIRE_MSG(got == i, "turn %u returned %u", i, got);
    }
    /* An instruction that changes the one right behind it: movb $0x41, 1f+1; 1: mov al, 0; ret (x86 sees it at once). */
    uint8_t *t = rwx + 64;
#ifdef __x86_64__
    static const uint8_t code[] = {0xc6, 0x05, 0x01, 0, 0, 0, 0x41, 0xb0, 0x00, 0xc3}; /* movb $0x41, 1(%rip) */
    memcpy(t, code, sizeof code);
#else
    static const uint8_t code[] = {0xc6, 0x05, 0, 0, 0, 0, 0x41, 0xb0, 0x00, 0xc3};
    uint32_t at = (uint32_t)(uintptr_t)(t + 8);
    memcpy(t, code, sizeof code);
    memcpy(t + 2, &at, 4);
#endif
    for (int i = 0; i < 50; i++) {
        t[8] = 0;
        REQUIRE((((uint32_t(*)(void))t)() & 0xff) == 0x41);
    }
}

static void remapping(void)
{
    uint8_t *p = anon(64 * PAGE, PROT_READ | PROT_WRITE);
    for (int i = 0; i < 64; i++)
        p[(size_t)i * PAGE] = (uint8_t)i;
    for (int n = 0; n < 30; n++) {
        uint8_t *q = mremap(p, 64 * PAGE, 128 * PAGE, MREMAP_MAYMOVE);
        REQUIRE(q != MAP_FAILED);
        for (int i = 0; i < 64; i++)
            REQUIRE(q[(size_t)i * PAGE] == (uint8_t)i && q[(size_t)(i + 64) * PAGE] == 0);
        p = mremap(q, 128 * PAGE, 64 * PAGE, 0);
        REQUIRE(p == q);
    }
}

static void shared_memory(void)
{
    volatile uint32_t *p = bt_shared(PAGE);
    pid_t child = fork();
    for (uint32_t i = 0; i < 300; i++) {
        /* Ping-pong by turns: even numbers are the parent's. */
        while (p[0] != i * 2 + (child == 0))
            sched_yield();
        p[1] = p[1] * 3 + (child == 0);
        __atomic_store_n(&p[0], i * 2 + 1 + (child == 0), __ATOMIC_SEQ_CST);
    }
    if (child == 0)
        _exit(0);
    bt_wait(child);
    uint32_t want = 0;
    for (int i = 0; i < 300; i++)
        want = want * 9 + 1;
    REQUIRE_MSG(p[1] == want, "0x%x, not 0x%x", p[1], want);
}

static void file_mapping(void)
{
    int fd = open("/tmp/bt-map", O_RDWR | O_CREAT | O_TRUNC, 0600);
    REQUIRE(fd >= 0 && ftruncate(fd, 16 * PAGE) == 0);
    uint8_t *shared = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), *priv;
    priv = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    REQUIRE(shared != MAP_FAILED && priv != MAP_FAILED);
    for (unsigned i = 0; i < 16; i++) {
        uint8_t c;
        shared[i * PAGE + i] = (uint8_t)(i + 1);
        REQUIRE(pread(fd, &c, 1, (off_t)(i * PAGE + i)) == 1 && c == i + 1);
        REQUIRE(priv[i * PAGE + i] == i + 1);
        priv[i * PAGE + i] = 0xee;
        REQUIRE(shared[i * PAGE + i] == i + 1);
    }
    REQUIRE(ftruncate(fd, PAGE) == 0);
    REQUIRE(bt_catch(do_read, shared + 8 * PAGE, NULL) == SIGBUS);
    close(fd);
    unlink("/tmp/bt-map");
}

static void page_crossing(void)
{
    uint8_t *p = anon(3 * PAGE, PROT_READ | PROT_WRITE);
    for (size_t off = PAGE - 8; off <= PAGE; off++) {
        uint64_t v = 0x0123456789abcdef + off, got;
        memcpy(p + off, &v, 8);
        __asm__ volatile("" ::: "memory");
        memcpy(&got, p + off, 8);
        REQUIRE(got == v);
    }
    /* A write that crosses into a page that forbids it must change nothing. */
    memset(p, 0xaa, 2 * PAGE);
    REQUIRE(mprotect(p + PAGE, PAGE, PROT_READ) == 0);
    siginfo_t info;
    REQUIRE(bt_catch(do_write32, p + PAGE - 2, &info) == SIGSEGV && info.si_addr == p + PAGE);
    REQUIRE(p[PAGE - 2] == 0xaa && p[PAGE - 1] == 0xaa && p[PAGE] == 0xaa);
}

static size_t huge_bytes(void)
{
    char line[256];
    unsigned long kib = 0;
    FILE *f = fopen("/proc/meminfo", "r");
    while (f && fgets(line, sizeof line, f))
        sscanf(line, "Hugepagesize: %lu kB", &kib);
    if (f)
        fclose(f);
    return kib << 10;
}
static unsigned long huge_count(unsigned long wanted, bool set)
{
    unsigned long old = 0;
    FILE *f = fopen("/proc/sys/vm/nr_hugepages", "r+");
    if (!f || fscanf(f, "%lu", &old) != 1)
        bt_skip("no huge pages");
    if (set) {
        rewind(f);
        fprintf(f, "%lu\n", wanted);
    }
    fclose(f);
    return old;
}
static void huge_pages(void)
{
    size_t size = huge_bytes();
    if (!size)
        bt_skip("no huge pages");
    unsigned long old = huge_count(0, false);
    huge_count(old + 4, true);
    uint8_t *p = mmap(NULL, 2 * size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
    REQUIRE(p != MAP_FAILED);
    for (size_t i = 0; i < 2 * size; i += 4096 + 4)
        *(uint32_t *)(p + i) = (uint32_t)i;
    pid_t child = fork();
    if (child == 0)
        for (size_t i = 0; i < 2 * size; i += 4096 + 4)
            *(uint32_t *)(p + i) += 1;
    for (size_t i = 0; i < 2 * size; i += 4096 + 4)
        REQUIRE(*(uint32_t *)(p + i) == (uint32_t)i + (child == 0));
    if (child == 0)
        _exit(0);
    bt_wait(child);
    munmap(p, 2 * size);
    huge_count(old, true);
}

static void transparent_huge(void)
{
    enum { BYTES = 16 << 20 };
    uint8_t *p = anon(BYTES, PROT_READ | PROT_WRITE);
    madvise(p, BYTES, MADV_HUGEPAGE);
    for (size_t i = 0; i < BYTES; i += 512)
        p[i] = (uint8_t)(i >> 9);
    /* Splitting: protect and drop single pages inside. */
    for (size_t i = 0; i < BYTES; i += 1 << 20) {
        REQUIRE(mprotect(p + i + PAGE, PAGE, PROT_READ) == 0);
        REQUIRE(madvise(p + i + 4 * PAGE, PAGE, MADV_DONTNEED) == 0);
    }
    for (size_t i = 0; i < BYTES; i += 512) {
        size_t page = (i & 0xfffff) >> 12;
        REQUIRE(p[i] == (page == 4 ? 0 : (uint8_t)(i >> 9)));
    }
    REQUIRE(bt_catch(do_write, p + PAGE, NULL) == SIGSEGV);
}

static int __attribute__((noinline)) grow(int depth)
{
    volatile char page[8192];
    page[0] = (char)depth;
    page[8191] = (char)depth;
    return depth ? grow(depth - 1) + page[0] - page[8191] : 0;
}
static void stack_growth(void) { REQUIRE(grow(500) == 0); }

static void heap(void)
{
    uint8_t *block[256] = {0};
    uint32_t s = 99, size[256] = {0};
    for (int i = 0; i < 8000; i++) {
        unsigned k = bt_random(&s) % 256;
        for (uint32_t j = 0; block[k] && j < size[k]; j += 97)
            REQUIRE(block[k][j] == (uint8_t)k);
        free(block[k]);
        size[k] = bt_random(&s) % 40000 + 1;
        block[k] = malloc(size[k]);
        REQUIRE(block[k]);
        memset(block[k], (int)k, size[k]);
    }
}

const struct bt_test bt_mem[] = {
    {"mem-demand-zero", demand_zero},
    {"mem-cow", copy_on_write},
    {"mem-protection", protection},
    {"mem-no-execute", no_execute},
    {"mem-changed-code", changed_code},
    {"mem-remap", remapping},
    {"mem-shared", shared_memory},
    {"mem-file-mapping", file_mapping},
    {"mem-page-crossing", page_crossing},
    {"mem-huge-pages", huge_pages},
    {"mem-transparent-huge", transparent_huge},
    {"mem-stack-growth", stack_growth},
    {"mem-heap", heap},
    {NULL, NULL},
};
