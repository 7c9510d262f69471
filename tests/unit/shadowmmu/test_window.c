/* The kernel window by itself: what it maps is what was entered, what is flushed is gone from the host's tables - also when the host
 * refuses to map, unmap or protect because the process has as many mappings as it may have. */
#define _GNU_SOURCE
#include "base/stat.h"
#include "shadowmmu/gpmem.h"
#include "shadowmmu/window.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef __SANITIZE_ADDRESS__ /* its shadow lies where the window's pages go */
#define LIN 0xffff888000000000ull
#define PAGES 16384u
#define RAM (64ull << 20)

static struct gpmem *m;
static struct stats stats;
static struct window *w, *narrow;

static void setup(void)
{
    cr_assert_eq(gpmem_create(&m, RAM), 0);
    cr_assert_eq(gpmem_add(m, 0, RAM, false), 0);
    for (unsigned i = 0; i < PAGES; i++)
        *(uint64_t *)gpmem_ptr(m, i * 4096ull) = i;
    cr_assert_eq(window_create(&w, m, true, &stats), 0);
    cr_assert_eq(window_create(&narrow, m, false, &stats), 0);
}
static void teardown(void)
{
    window_destroy(w);
    window_destroy(narrow);
    gpmem_destroy(m);
}
TestSuite(window, .init = setup, .fini = teardown);

static void *host(const struct window *x, uint64_t lin) { return (void *)(uintptr_t)(window_base(x) + lin); }
/* The page's first word through the window as any process would read it, or -1 if nothing is mapped. */
static int64_t peek(const struct window *x, uint64_t lin)
{
    int64_t val = -1;
    struct iovec to = {&val, sizeof val}, from = {host(x, lin), sizeof val};
    return process_vm_readv(getpid(), &to, 1, &from, 1, 0) == sizeof val ? val : -1;
}
static bool can_write(const struct window *x, uint64_t lin, int64_t val)
{
    struct iovec from = {&val, sizeof val}, to = {host(x, lin), sizeof val};
    return process_vm_writev(getpid(), &from, 1, &to, 1, 0) == sizeof val;
}
static enum window_status map(struct window *x, uint64_t lin, uint64_t gpa, bool write)
{
    return window_map(x, lin, gpa, 4096, write, true);
}

/* Mappings of single pages until the host refuses more. */
#define HOG_PAGES 300000ull
#define HOG_MORE 16
static char *hog_at, *hog_more[HOG_MORE];
static bool hog(void)
{
    bool full = false;
    hog_at = mmap(NULL, HOG_PAGES * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (hog_at == MAP_FAILED)
        return false;
    for (unsigned i = 1; i < HOG_PAGES && !full; i += 2)
        full = mprotect(hog_at + i * 4096ull, 4096, PROT_READ);
    /* mmap may have one more than mprotect. Shared ones are not merged. */
    for (unsigned i = 0; full && i < HOG_MORE; i++)
        hog_more[i] = mmap(NULL, 4096, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return full; /* false: this host knows no limit near the usual one */
}
static void unhog(void)
{
    munmap(hog_at, HOG_PAGES * 4096);
    for (unsigned i = 0; i < HOG_MORE; i++)
        if (hog_more[i] != MAP_FAILED)
            munmap(hog_more[i], 4096);
}

Test(window, shows_what_was_entered)
{
    cr_assert_eq(map(w, LIN, 0x5000, false), WINDOW_OK);
    cr_assert_eq(peek(w, LIN), 5);
    cr_assert(!can_write(w, LIN, 1));
    cr_assert_eq(map(w, LIN, 0x5000, true), WINDOW_OK);
    cr_assert(can_write(w, LIN, 77));
    cr_assert_eq(*(int64_t *)gpmem_ptr(m, 0x5000), 77);
    cr_assert_eq(map(w, LIN, 0x6000, false), WINDOW_OK);
    cr_assert_eq(peek(w, LIN), 6);
    window_invalidate(w, LIN + 0x123);
    cr_assert_eq(peek(w, LIN), -1);
}

Test(window, never_maps_over_what_is_not_its_own)
{
    void *mine =
        mmap(host(w, LIN), 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    cr_assert_eq(mine, host(w, LIN));
    *(int64_t *)mine = 4711;
    cr_assert_eq(map(w, LIN, 0x5000, true), WINDOW_CONFLICT);
    cr_assert(!window_has(w, LIN, false));
    /* A large page around it is entered page by page. */
    cr_assert_eq(window_map(w, LIN + 0x3000, 0x203000, 2u << 20, true, true), WINDOW_OK);
    cr_assert_eq(peek(w, LIN + 0x3000), 0x203);
    cr_assert_eq(window_map(w, LIN, 0x200000, 2u << 20, true, true), WINDOW_CONFLICT);
    window_flush(w, true);
    cr_assert_eq(peek(w, LIN), 4711);
    munmap(mine, 4096);
}

Test(window, traced_page_of_a_large_one_is_read_only)
{
    *gpmem_page_flags(m, 0x203000) |= GP_CODE;
    cr_assert_eq(window_map(w, LIN, 0x200000, 2u << 20, true, true), WINDOW_OK);
    cr_assert(can_write(w, LIN + 0x2000, 1) && can_write(w, LIN + 0x4000, 1));
    cr_assert(!can_write(w, LIN + 0x3000, 1));
}

/* One host mapping of many pages; INVLPG in its middle would need one more. */
static void invalidate_at_the_limit(struct window *x, uint64_t lin)
{
    for (unsigned i = 0; i < 64; i++)
        cr_assert_eq(map(x, lin + i * 4096ull, 0x10000 + i * 4096ull, true), WINDOW_OK);
    cr_assert_eq(peek(x, lin + 0x20000), 0x30);
    bool limited = hog();
    window_invalidate(x, lin + 0x20000);
    int64_t left = peek(x, lin + 0x20000);
    bool has = window_has(x, lin + 0x20000, false);
    unhog();
    cr_assert(limited);
    cr_assert_eq(left, -1, "the page is still there");
    cr_assert(!has);
}
Test(window, invlpg_works_when_the_host_refuses_to_split_a_mapping) { invalidate_at_the_limit(w, LIN); }
Test(window, invlpg_works_when_the_host_refuses_in_the_4_gib_window) { invalidate_at_the_limit(narrow, 0x400000); }

Test(window, nonglobal_flush_works_when_the_host_refuses_to_split_a_mapping)
{
    for (unsigned i = 0; i < 64; i++)
        cr_assert_eq(window_map(w, LIN + i * 4096ull, 0x10000 + i * 4096ull, 4096, true, i != 32), WINDOW_OK);
    bool limited = hog();
    window_flush(w, false);
    int64_t left = peek(w, LIN + 0x20000);
    unhog();
    cr_assert(limited);
    cr_assert_eq(left, -1, "the page is still there");
}

static void protect_at_the_limit(struct window *x, uint64_t lin)
{
    for (unsigned i = 0; i < 64; i++)
        cr_assert_eq(map(x, lin + i * 4096ull, 0x10000 + i * 4096ull, true), WINDOW_OK);
    bool limited = hog();
    *gpmem_page_flags(m, 0x30000) |= GP_CODE;
    window_protect(x, 0x30000);
    bool wrote = can_write(x, lin + 0x20000, 1);
    unhog();
    cr_assert(limited);
    cr_assert(!wrote, "a traced page can be written");
    cr_assert(!window_has(x, lin + 0x20000, true));
}
Test(window, traced_page_is_not_writable_when_the_host_refuses_to_protect) { protect_at_the_limit(w, LIN); }
Test(window, traced_page_is_not_writable_when_the_host_refuses_in_the_4_gib_window)
{
    protect_at_the_limit(narrow, 0x400000);
}

Test(window, large_page_with_a_traced_one_is_safe_when_the_host_refuses_to_protect)
{
    for (unsigned i = 0; i < 512; i += 8)
        *gpmem_page_flags(m, 0x200000 + i * 4096ull) |= GP_CODE;
    bool limited = hog();
    munmap(hog_at, 16 * 4096); /* enough for the mapping itself and a few more */
    enum window_status st = window_map(w, LIN, 0x200000, 2u << 20, true, true);
    bool wrote = false;
    for (unsigned i = 0; i < 512; i += 8)
        wrote |= can_write(w, LIN + i * 4096ull, 1);
    unhog();
    cr_assert(limited);
    cr_assert(!wrote, "a traced page can be written");
    cr_assert(st == WINDOW_REFUSED || !window_has(w, LIN, true));
}

Test(window, map_is_refused_and_nothing_is_left_when_the_host_is_full)
{
    bool limited = hog();
    enum window_status st = map(w, LIN, 0x5000, true), st2 = map(narrow, 0x400000, 0x5000, true);
    int64_t left = peek(w, LIN), left2 = peek(narrow, 0x400000);
    unhog();
    cr_assert(limited);
    cr_assert_eq(st, WINDOW_REFUSED);
    cr_assert_eq(st2, WINDOW_REFUSED);
    cr_assert(left == -1 && left2 == -1);
    cr_assert_eq(map(w, LIN, 0x5000, true), WINDOW_OK);
    cr_assert_eq(peek(w, LIN), 5);
}

Test(window, fifty_thousand_scattered_pages)
{
    uint64_t x = 1;
    for (unsigned i = 0; i < 50000; i++) {
        x = x * 6364136223846793005ull + 1442695040888963407ull;
        uint64_t lin = LIN + ((x >> 20) % (1ull << 33)) / 4096 * 4096, gpa = (x >> 44) % PAGES * 4096;
        enum window_status st = map(w, lin, gpa, false);
        cr_assert_eq(st, WINDOW_OK, "page %u: %d", i, st);
        if (i % 1000 == 0)
            cr_assert_eq(peek(w, lin), (int64_t)(gpa / 4096));
    }
}
#endif

/* More pages than the window takes, each wanted again and again: emptied once, then what is not in stays out. */
Test(window, full_again_soon_after_it_was_emptied_refuses_what_is_not_in)
{
    unsigned n = 0;
    uint64_t flushes = stats.window_flushes;
    for (; n < 120000 && stats.window_flushes == flushes; n++)
        cr_assert_eq(map(w, LIN + n * 8192ull, n % PAGES * 4096ull, true), WINDOW_OK);
    cr_assert_eq(stats.window_flushes, flushes + 1, "never full");
    unsigned first = n - 1;
    for (; n < 240000; n++)
        if (map(w, LIN + n * 8192ull, n % PAGES * 4096ull, true) == WINDOW_REFUSED)
            break;
    cr_expect_eq(stats.window_flushes, flushes + 1);
    cr_expect(!window_has(w, LIN + n * 8192ull, false));
    cr_expect(window_has(w, LIN + first * 8192ull, true));
    cr_expect_eq(map(w, LIN + first * 8192ull, first % PAGES * 4096ull, true), WINDOW_OK, "what is in may change");
    for (unsigned i = first; i < n; i++)
        window_invalidate(w, LIN + i * 8192ull);
    cr_expect_eq(map(w, LIN + n * 8192ull, n % PAGES * 4096ull, true), WINDOW_OK, "there is room again");
}
