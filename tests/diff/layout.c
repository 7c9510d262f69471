/* tests/diff/layout.c - address space, descriptors and XSAVE layout shared by both backends. */
#include "tests/diff/dcase.h"
#include <cpuid.h>
#include <string.h>

static struct dt_map maps[2 * DT_DATA_PAGES + 8];

static unsigned add_data_view(unsigned n, uint64_t base)
{
    for (unsigned i = 0; i < DT_DATA_PAGES; i++)
        if (DT_DATA_KINDS[i] != '.')
            maps[n++] = (struct dt_map){base + i * DT_PAGE, i, 1, DT_DATA_KINDS[i]};
    return n;
}

const struct dt_map *dt_maps(void)
{
    if (!maps[0].count) {
        unsigned n = add_data_view(0, DT_DATA_BASE);
        n = add_data_view(n, DT_HIGH_BASE);
        maps[n++] = (struct dt_map){DT_TOP_PAGE, DT_DATA_PAGES - 1, 1, 'W'};
        maps[n++] = (struct dt_map){DT_CODE_BASE, DT_DATA_PAGES, DT_CODE_PAGES, 'X'};
    }
    return maps;
}

#define DATA(base, limit, db, gran)                                                                                    \
    {                                                                                                                  \
        base, limit, 0, db, gran, 1, 0                                                                                 \
    }
const struct dt_desc dt_ldt[DT_LDT_COUNT] = {
    [1] = {0, 0xfffff, 2, 1, 1, 1, 0},                       /* 32-bit code, flat */
    [2] = {DT_CODE_BASE, 0x1fff, 2, 1, 0, 1, 0},             /* 32-bit code, ends with its pages */
    [3] = {DT_CODE_BASE, 0xffff, 2, 0, 0, 1, 0},             /* 16-bit code */
    [4] = {DT_CODE_BASE - 0x8000, 0xffff, 2, 0, 0, 1, 1},    /* 16-bit code, execute-only, IP in the upper half */
    [5] = DATA(0, 0xfffff, 1, 1),                            /* flat data */
    [6] = DATA(DT_DATA_BASE, 0xffff, 1, 0),                  /* the window, 32-bit stack */
    [7] = DATA(DT_DATA_BASE, 0xffff, 0, 0),                  /* the window, 16-bit stack */
    [8] = {0, 0xfffff, 0, 1, 1, 1, 1},                       /* flat, read-only */
    [9] = {DT_DATA_BASE, 0x0fff, 1, 0, 0, 1, 0},             /* expand-down, 16-bit: offsets 1000..ffff */
    [10] = {DT_DATA_BASE - 0x10000, 0x10fff, 1, 1, 0, 1, 0}, /* expand-down, 32-bit */
    [11] = DATA(DT_DATA_BASE + 0x123, 0x1234, 1, 0),         /* small, odd base and limit */
    [12] = DATA(DT_DATA_BASE - 0x8000, 0xffff, 0, 0),        /* half of the window, seen from the middle */
    [13] = {DT_DATA_BASE, 0xffff, 0, 1, 0, 0, 0},            /* not present */
    [14] = {0, 0xfffff, 3, 1, 1, 0, 0},               /* conforming code, not present (the kernel allows no other) */
    [15] = DATA(0x80000000u, 0xfffff, 1, 1),          /* wraps at 4 GiB to reach the data */
    [16] = DATA(DT_DATA_BASE + 0x2000, 0x1fff, 0, 0), /* 16-bit stack that ends at read-only memory */
    [17] = {DT_DATA_BASE, 0xffff, 0, 0, 0, 1, 1},     /* read-only window */
    [18] = {DT_CODE_BASE, 0x1fff, 2, 0, 0, 1, 0},     /* 16-bit code, short */
    [19] = DATA(DT_DATA_BASE + 1, 0xfffe, 0, 0),      /* odd base: every access is misaligned in linear space */
};

uint64_t dt_desc_bits(const struct dt_desc *d)
{
    uint64_t type = 0x11u | (d->contents & 3u) << 2 | (d->read_exec_only ? 0 : 2); /* S, accessed */
    uint64_t hi = (d->base & 0xff000000u) | (d->gran ? 0x800000u : 0) | (d->db ? 0x400000u : 0) |
                  (d->limit & 0xf0000u) | (d->present ? 0x8000u : 0) | 0x6000u | type << 8 | (d->base >> 16 & 0xff);
    return hi << 32 | (uint64_t)(d->base & 0xffff) << 16 | (d->limit & 0xffff);
}

uint64_t dt_sel_base(uint16_t sel) { return (sel & 4) && sel >> 3 < DT_LDT_COUNT ? dt_ldt[sel >> 3].base : 0; }

uint32_t dt_sel_limit(uint16_t sel)
{
    if (!(sel & 4) || sel >> 3 >= DT_LDT_COUNT)
        return 0xffffffffu;
    const struct dt_desc *d = &dt_ldt[sel >> 3];
    return d->gran ? d->limit << 12 | 0xfff : d->limit;
}

static uint64_t read_xcr0(void)
{
    uint32_t a, b, c, d;
    __cpuid(1, a, b, c, d);
    if (!(c & bit_OSXSAVE))
        return 3;
    __asm__("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    return a;
}

const struct dt_xsave *dt_xsave(void)
{
    static struct dt_xsave x;
    if (x.bytes)
        return &x;
    uint32_t a, b, c, d;
    uint64_t xcr0 = read_xcr0() & 0xe7;
    if ((xcr0 & 0xe0) != 0xe0)
        xcr0 &= 7;
    uint32_t bytes = 576;
    for (unsigned i = 2; i < 8; i++) {
        if (!(xcr0 >> i & 1))
            continue;
        __cpuid_count(0xd, i, a, b, c, d);
        if (b + a > DT_FPU_MAX) {
            xcr0 &= ~(1ull << i);
            continue;
        }
        x.off[i] = b;
        x.size[i] = a;
        bytes = b + a > bytes ? b + a : bytes;
    }
    x.xcr0 = xcr0;
    x.bytes = bytes;
    return &x;
}
