/* Guest physical memory: slots, placement, bulk copies, trace hook. */
#define _GNU_SOURCE
#include "base/err.h"
#include "shadowmmu/gpmem.h"
#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MIB (1ull << 20)
static struct gpmem *m;

static void setup(void) { cr_assert_eq(gpmem_create(&m, 64 * MIB), 0); }
static void teardown(void) { gpmem_destroy(m); }
TestSuite(gpmem, .init = setup, .fini = teardown);

Test(gpmem, slots_are_ascending_and_zeroed)
{
    cr_assert_eq(gpmem_add(m, 4 * MIB, MIB, false), 0);
    cr_assert_eq(gpmem_add(m, 0xfffc0000, 0x40000, true), 0);
    cr_assert_eq(gpmem_add(m, 0, 0xa0000, false), 0);
    unsigned n;
    const struct gpmem_slot *s = gpmem_slots(m, &n);
    cr_assert_eq(n, 3);
    cr_expect_eq(s[0].gpa, 0);
    cr_expect_eq(s[1].gpa, 4 * MIB);
    cr_expect_eq(s[2].gpa, 0xfffc0000);
    cr_expect(s[2].rom);
    cr_expect_eq(gpmem_ram_bytes(m), MIB + 0xa0000);
    cr_expect_eq(*gpmem_ptr(m, 4 * MIB + 12345), 0);
}

Test(gpmem, lookups_at_the_edges)
{
    cr_assert_eq(gpmem_add(m, MIB, MIB, false), 0);
    cr_expect_null(gpmem_ptr(m, MIB - 1));
    cr_expect_not_null(gpmem_ptr(m, MIB));
    cr_expect_eq(gpmem_ptr(m, 2 * MIB - 1), gpmem_ptr(m, MIB) + MIB - 1);
    cr_expect_null(gpmem_ptr(m, 2 * MIB));
    cr_expect_null(gpmem_ptr(m, UINT64_MAX));
    cr_expect_null(gpmem_page_flags(m, 2 * MIB));
    cr_expect_eq(gpmem_page_flags(m, MIB + 0x5fff), gpmem_page_flags(m, MIB) + 5);
}

Test(gpmem, bad_slots_are_refused)
{
    cr_assert_eq(gpmem_add(m, MIB, MIB, false), 0);
    cr_expect_eq(gpmem_add(m, MIB + 0x1000, 0x1000, false), -RD_E_INVAL); /* inside */
    cr_expect_eq(gpmem_add(m, 0, MIB + 0x1000, false), -RD_E_INVAL);      /* overlaps its start */
    cr_expect_eq(gpmem_add(m, 0, 8 * MIB, false), -RD_E_INVAL);           /* around it */
    cr_expect_eq(gpmem_add(m, 0x800, 0x1000, false), -RD_E_INVAL);        /* unaligned */
    cr_expect_eq(gpmem_add(m, 0, 0x800, false), -RD_E_INVAL);
    cr_expect_eq(gpmem_add(m, 8 * MIB, 0, false), -RD_E_INVAL);
    cr_expect_eq(gpmem_add(m, -(uint64_t)0x1000, 0x1000, false), -RD_E_INVAL); /* beyond physical memory */
    cr_expect_eq(gpmem_add(m, 0x1000, -(uint64_t)0x1000, false), -RD_E_INVAL); /* wraps */
    cr_expect_eq(gpmem_add(m, 8 * MIB, 64 * MIB, false), -RD_E_NOMEM);         /* more than was promised */
    unsigned n;
    gpmem_slots(m, &n);
    cr_expect_eq(n, 1);
}

Test(gpmem, no_more_than_max_slots)
{
    for (unsigned i = 0; i < GPMEM_MAX_SLOTS; i++)
        cr_assert_eq(gpmem_add(m, i * MIB, 0x1000, false), 0);
    cr_expect_eq(gpmem_add(m, 100 * MIB, 0x1000, false), -RD_E_NOMEM);
}

Test(gpmem, bad_sizes_are_refused)
{
    struct gpmem *x = NULL;
    cr_expect_eq(gpmem_create(&x, 0), -RD_E_INVAL);
    cr_expect_eq(gpmem_create(&x, 4095), -RD_E_INVAL);
    cr_expect_eq(gpmem_create(&x, UINT64_MAX & ~0xfffull), -RD_E_INVAL);
    cr_expect_null(x);
}

Test(gpmem, mapping_is_congruent_and_out_of_the_guests_way)
{
    cr_assert_eq(gpmem_add(m, 0x123000, 0x5000, false), 0);
    const struct gpmem_slot *s = gpmem_find(m, 0x124000);
    cr_expect_eq(((uintptr_t)s->host ^ 0x123000) & (2 * MIB - 1), 0);
    cr_expect_eq((s->memfd_offset ^ 0x123000) & (2 * MIB - 1), 0);
#ifndef __SANITIZE_ADDRESS__
    cr_expect_geq((uintptr_t)s->host, 4ull << 30);
    cr_expect_leq((uintptr_t)s->host + s->bytes, 8ull << 40);
#endif
}

Test(gpmem, guard_follows_the_slot, .signal = SIGSEGV)
{
    cr_assert_eq(gpmem_add(m, 0, 0x1000, false), 0);
    *(volatile uint8_t *)(gpmem_ptr(m, 0) + 0x1000) = 1;
}

Test(gpmem, guard_precedes_the_slot, .signal = SIGSEGV)
{
    cr_assert_eq(gpmem_add(m, 0, 0x1000, false), 0);
    *(volatile uint8_t *)(gpmem_ptr(m, 0) - 1) = 1;
}

Test(gpmem, file_is_sealed_and_shared)
{
    cr_assert_eq(gpmem_add(m, 0x4000, 0x2000, false), 0);
    const struct gpmem_slot *s = gpmem_find(m, 0x4000);
    cr_expect_neq(ftruncate(gpmem_fd(m), 0), 0);
    cr_expect_eq(fcntl(gpmem_fd(m), F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    uint8_t *alias = mmap(NULL, 0x1000, PROT_READ, MAP_SHARED, gpmem_fd(m), (off_t)s->memfd_offset);
    cr_assert_neq(alias, MAP_FAILED);
    gpmem_ptr(m, 0x4000)[7] = 0x5a;
    cr_expect_eq(alias[7], 0x5a);
    munmap(alias, 0x1000);
}

Test(gpmem, copies_cross_adjacent_slots)
{
    cr_assert_eq(gpmem_add(m, 0x1000, 0x1000, false), 0);
    cr_assert_eq(gpmem_add(m, 0x2000, 0x1000, true), 0);
    cr_assert_eq(gpmem_write(m, 0x1ffd, "abcdef", 6), 0);
    char back[6];
    cr_assert_eq(gpmem_read(m, 0x1ffd, back, 6), 0);
    cr_expect_arr_eq(back, "abcdef", 6);
    cr_expect_eq(*gpmem_ptr(m, 0x1fff), 'c');
    cr_expect_eq(*gpmem_ptr(m, 0x2000), 'd');
}

Test(gpmem, copies_outside_slots_touch_nothing)
{
    cr_assert_eq(gpmem_add(m, 0x1000, 0x1000, false), 0);
    char buf[16] = "unchanged";
    cr_expect_eq(gpmem_write(m, 0x1ff8, "0123456789abcdef", 16), -RD_E_RANGE);
    cr_expect_eq(*gpmem_ptr(m, 0x1ff8), 0);
    cr_expect_eq(gpmem_read(m, 0xff8, buf, 16), -RD_E_RANGE);
    cr_expect_str_eq(buf, "unchanged");
    cr_expect_eq(gpmem_read(m, UINT64_MAX, buf, 16), -RD_E_RANGE);
    cr_expect_eq(gpmem_write(m, 0x5000, buf, 0), 0);
}

static struct {
    uint64_t gpa;
    size_t bytes;
    uint8_t before;
} calls[8];
static unsigned n_calls;
static void record(void *opaque, uint64_t gpa, size_t bytes)
{
    calls[n_calls].gpa = gpa;
    calls[n_calls].bytes = bytes;
    calls[n_calls++].before = *gpmem_ptr(opaque, gpa);
}

Test(gpmem, dma_into_traced_pages_calls_the_hook_first)
{
    cr_assert_eq(gpmem_add(m, 0, 0x4000, false), 0);
    gpmem_set_trace_hook(m, record, m);
    *gpmem_page_flags(m, 0x1000) = GP_CODE;
    *gpmem_page_flags(m, 0x2000) = GP_DIRTYLOG;
    uint8_t buf[0x3000];
    memset(buf, 0xee, sizeof buf);
    cr_assert_eq(gpmem_write(m, 0x800, buf, 0x2000), 0);
    cr_assert_eq(n_calls, 2);
    cr_expect_eq(calls[0].gpa, 0x1000);
    cr_expect_eq(calls[0].bytes, 0x1000);
    cr_expect_eq(calls[0].before, 0);
    cr_expect_eq(calls[1].gpa, 0x2000);
    cr_expect_eq(calls[1].bytes, 0x800);
    cr_expect_eq(*gpmem_ptr(m, 0x27ff), 0xee);
    cr_expect_eq(*gpmem_ptr(m, 0x2800), 0);
}
