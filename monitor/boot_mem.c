/* monitor/boot_mem.c - who gets which part of guest RAM while a kernel is loaded. */
#include "monitor/boot_int.h"
#include "shadowmmu/gpmem.h"
#include <unistd.h>

/* BIOS data area: what a kernel may read there without calling the BIOS. */
#define BDA 0x400u
#define BDA_BYTES 0x100u
#define KEY_BUFFER 0x1eu /* both from the area's start */
#define KEY_BUFFER_BYTES 32u
enum {
    BDA_EBDA_SEGMENT = 0x0e,
    BDA_BASE_KIB = 0x13,
    BDA_KEY_HEAD = 0x1a,
    BDA_KEY_TAIL = 0x1c,
    BDA_VIDEO_MODE = 0x49,
    BDA_COLUMNS = 0x4a,
    BDA_CURSOR_SHAPE = 0x60,
    BDA_CRTC_PORT = 0x63,
    BDA_KEY_START = 0x80,
    BDA_KEY_END = 0x82,
    BDA_LAST_ROW = 0x84,
    BDA_CHAR_LINES = 0x85
};

unsigned boot_default_map(uint64_t ram_bytes, uint64_t acpi_bytes, struct boot_range out[5])
{
    unsigned n = 0;
    uint64_t below = ram_bytes < BOOT_RAM_HOLE ? ram_bytes : BOOT_RAM_HOLE;
    uint64_t low = below < BOOT_LOW_RAM_TOP ? below : BOOT_LOW_RAM_TOP;
    out[n++] = (struct boot_range){0, low, BOOT_MEM_RAM};
    out[n++] = (struct boot_range){BOOT_LOW_RAM_TOP, 0x100000 - BOOT_LOW_RAM_TOP, BOOT_MEM_RESERVED};
    if (below > 0x100000 + acpi_bytes) {
        out[n++] = (struct boot_range){0x100000, below - 0x100000 - acpi_bytes, BOOT_MEM_RAM};
        if (acpi_bytes)
            out[n++] = (struct boot_range){below - acpi_bytes, acpi_bytes, BOOT_MEM_ACPI};
    }
    if (ram_bytes > below)
        out[n++] = (struct boot_range){BOOT_4G, ram_bytes - below, BOOT_MEM_RAM};
    return n;
}

int boot_map_check(struct boot *b)
{
    uint64_t at = 0;
    if (b->cfg->n_map == 0 || b->cfg->n_map > BOOT_MAX_RANGES)
        return boot_fail(b, RD_E_INVAL, "the memory map has %u entries, not 1 to %u", b->cfg->n_map, BOOT_MAX_RANGES);
    for (unsigned i = 0; i < b->cfg->n_map; i++) {
        const struct boot_range *r = &b->cfg->map[i];
        if (r->gpa < at || r->bytes == 0 || r->gpa + r->bytes < r->gpa)
            return boot_fail(b, RD_E_INVAL, "entry %u of the memory map is empty or out of order", i);
        at = r->gpa + r->bytes;
    }
    return 0;
}

uint64_t boot_ram_bytes(const struct boot *b)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < b->cfg->n_map; i++)
        if (b->cfg->map[i].type == BOOT_MEM_RAM)
            sum += b->cfg->map[i].bytes;
    return sum;
}

uint64_t boot_ram_end(const struct boot *b, uint64_t gpa)
{
    for (unsigned i = 0; i < b->cfg->n_map; i++) {
        const struct boot_range *r = &b->cfg->map[i];
        if (r->type == BOOT_MEM_RAM && gpa >= r->gpa && gpa - r->gpa < r->bytes)
            return r->gpa + r->bytes;
    }
    return 0;
}

/* First claim that ends above gpa: the only one that a range starting there can meet first. */
static unsigned claim_after(const struct boot *b, uint64_t gpa)
{
    unsigned i = 0;
    while (i < b->n_claims && b->claim[i].end <= gpa)
        i++;
    return i;
}

bool boot_is_free(const struct boot *b, uint64_t gpa, uint64_t bytes)
{
    uint64_t end = boot_ram_end(b, gpa);
    if (!end || bytes > end - gpa)
        return false;
    unsigned i = claim_after(b, gpa);
    return i == b->n_claims || b->claim[i].gpa >= gpa + bytes;
}

/* The range is free and not empty. Touching neighbours merge, so a boot needs few entries. */
static bool claim_insert(struct boot *b, uint64_t gpa, uint64_t bytes)
{
    unsigned i = claim_after(b, gpa);
    uint64_t end = gpa + bytes;
    if (i > 0 && b->claim[i - 1].end == gpa) {
        b->claim[i - 1].end = end;
        return true;
    }
    if (i < b->n_claims && b->claim[i].gpa == end) {
        b->claim[i].gpa = gpa;
        return true;
    }
    if (b->n_claims == BOOT_MAX_CLAIMS)
        return false;
    memmove(&b->claim[i + 1], &b->claim[i], (b->n_claims - i) * sizeof b->claim[0]);
    b->claim[i] = (struct boot_span){gpa, end};
    b->n_claims++;
    return true;
}

int boot_claim(struct boot *b, const char *what, uint64_t gpa, uint64_t bytes)
{
    if (bytes == 0)
        return 0;
    uint64_t end = boot_ram_end(b, gpa);
    if (!end || bytes > end - gpa)
        return boot_fail(b, RD_E_RANGE, "'%s': %s needs 0x%llx bytes at 0x%llx, where the guest has no such memory",
                         b->kernel.name, what, (unsigned long long)bytes, (unsigned long long)gpa);
    if (!boot_is_free(b, gpa, bytes))
        return boot_fail(b, RD_E_FORMAT, "'%s': %s at 0x%llx overlaps another part", b->kernel.name, what,
                         (unsigned long long)gpa);
    if (!claim_insert(b, gpa, bytes))
        return boot_fail(b, RD_E_FORMAT, "'%s': too many parts to load", b->kernel.name);
    return 0;
}

/* Lowest place inside [lo, hi), a piece of one RAM range. */
static bool fit_low(const struct boot *b, const struct boot_want *w, uint64_t lo, uint64_t hi, uint64_t *gpa)
{
    uint64_t at = boot_align(lo, w->align);
    for (unsigned i = claim_after(b, at);; i++) {
        if (at < lo || at > hi || w->bytes > hi - at)
            return false;
        if (i == b->n_claims || b->claim[i].gpa >= at + w->bytes)
            break;
        at = boot_align(b->claim[i].end, w->align);
    }
    *gpa = at;
    return true;
}

static bool fit_high(const struct boot *b, const struct boot_want *w, uint64_t lo, uint64_t hi, uint64_t *gpa)
{
    unsigned i = b->n_claims;
    for (;;) {
        if (hi < lo || w->bytes > hi - lo)
            return false;
        uint64_t at = (hi - w->bytes) & ~(w->align - 1);
        if (at < lo)
            return false;
        while (i > 0 && b->claim[i - 1].gpa >= at + w->bytes)
            i--;
        if (i == 0 || b->claim[i - 1].end <= at) {
            *gpa = at;
            return true;
        }
        hi = b->claim[i - 1].gpa;
    }
}

bool boot_place(struct boot *b, const struct boot_want *w, uint64_t *gpa)
{
    unsigned n = b->cfg->n_map;
    for (unsigned k = 0; k < n && w->bytes; k++) {
        const struct boot_range *r = &b->cfg->map[w->highest ? n - 1 - k : k];
        uint64_t lo = r->gpa > w->min ? r->gpa : w->min, end = r->gpa + r->bytes, hi = end < w->max ? end : w->max;
        if (r->type != BOOT_MEM_RAM || lo >= hi)
            continue;
        if (w->highest ? fit_high(b, w, lo, hi, gpa) : fit_low(b, w, lo, hi, gpa))
            return claim_insert(b, *gpa, w->bytes);
    }
    return false;
}

int boot_write(struct boot *b, uint64_t gpa, const void *data, uint64_t bytes)
{
    if (bytes && gpmem_write(b->mem, gpa, data, bytes))
        return boot_fail(b, RD_E_RANGE, "'%s': guest memory 0x%llx-0x%llx is not RAM", b->kernel.name,
                         (unsigned long long)gpa, (unsigned long long)(gpa + bytes));
    return 0;
}

int boot_zero(struct boot *b, uint64_t gpa, uint64_t bytes)
{
    static const uint8_t zeros[PAGE_SIZE];
    int r = 0;
    while (!r && bytes) {
        uint64_t n = bytes < sizeof zeros ? bytes : sizeof zeros;
        r = boot_write(b, gpa, zeros, n);
        gpa += n;
        bytes -= n;
    }
    return r;
}

int boot_put_low(struct boot *b, const char *what, const void *data, uint64_t bytes, uint64_t *gpa)
{
    /* Page alignment is more than anything here needs, but page tables do, and the first megabyte is large enough. */
    struct boot_want w = {.bytes = bytes, .align = PAGE_SIZE, .min = BOOT_LOW_START, .max = BOOT_LOW_LIMIT};
    if (bytes < PAGE_SIZE / 2)
        w.align = 16;
    if (!boot_place(b, &w, gpa))
        return boot_fail(b, RD_E_RANGE, "'%s': no room for %s (%llu bytes) in the guest's first MiB", b->kernel.name,
                         what, (unsigned long long)bytes);
    return boot_write(b, *gpa, data, bytes);
}

int boot_put_initrd(struct boot *b, const char *name, uint64_t max, uint64_t *gpa, uint64_t *bytes)
{
    int fd = boot_file_open(b, "initrd", name, bytes);
    if (fd < 0)
        return fd;
    /* Whole pages: Linux frees the last one with the rest. */
    struct boot_want w = {
        .bytes = boot_align(*bytes, PAGE_SIZE), .align = PAGE_SIZE, .min = BOOT_LOW_LIMIT, .max = max, .highest = true};
    if (!boot_place(b, &w, gpa)) {
        close(fd);
        return boot_fail(b, RD_E_RANGE,
                         "initrd '%s' (%llu KiB) does not fit into the guest's memory below 0x%llx beside the kernel",
                         name, (unsigned long long)*bytes >> 10, (unsigned long long)max);
    }
    return boot_file_copy(b, name, fd, *gpa, *bytes);
}

void boot_e820_entry(const struct boot_range *range, uint8_t *out)
{
    put64(out, range->gpa);
    put64(out + 8, range->bytes);
    put32(out + 16, range->type);
}

void boot_basic_mem(const struct boot *b, uint32_t *lower_kib, uint32_t *upper_kib)
{
    uint64_t low = boot_ram_end(b, 0), high = boot_ram_end(b, 0x100000);
    *lower_kib = low > 0xa0000 ? 640 : (uint32_t)(low >> 10);
    *upper_kib = high > BOOT_4G ? (BOOT_4G - 0x100000) >> 10 : high ? (uint32_t)((high - 0x100000) >> 10) : 0;
}

/* What real-mode code looks up itself, or has the services look up: an empty keyboard buffer, the screen's characters. */
static void put_service_data(const struct boot *b, uint8_t *bda)
{
    put16(bda + BDA_KEY_HEAD, KEY_BUFFER);
    put16(bda + BDA_KEY_TAIL, KEY_BUFFER);
    put16(bda + BDA_KEY_START, KEY_BUFFER);
    put16(bda + BDA_KEY_END, KEY_BUFFER + KEY_BUFFER_BYTES);
    bda[BDA_VIDEO_MODE] = 3;
    put16(bda + BDA_CURSOR_SHAPE, 0x0d0e);
    if (b->cfg->vga_text)
        put16(bda + BDA_CHAR_LINES, 16);
}

/* Kernels look into the BIOS data area for the end of low memory even when nothing else of a BIOS is used (Linux to reserve
 * it, Xen to put its trampoline there). Not an error if there is no memory there. */
int boot_put_bda(struct boot *b)
{
    uint64_t low = boot_ram_end(b, 0);
    if (b->cfg->bios_services || low > BOOT_LOW_RAM_TOP || !boot_is_free(b, BDA, BDA_BYTES))
        return 0;
    uint8_t bda[BDA_BYTES], ebda_kib = 1;
    /* What the board has put there stays: serial ports, equipment. */
    if (gpmem_read(b->mem, BDA, bda, sizeof bda))
        memset(bda, 0, sizeof bda);
    put16(bda + BDA_EBDA_SEGMENT, (uint16_t)(low >> 4));
    put16(bda + BDA_BASE_KIB, (uint16_t)(low >> 10));
    if (b->cfg->vga_text) {
        bda[BDA_VIDEO_MODE] = 3;
        put16(bda + BDA_COLUMNS, 80);
        put16(bda + BDA_CRTC_PORT, 0x3d4);
        bda[BDA_LAST_ROW] = 24;
    }
    if (b->own_services)
        put_service_data(b, bda);
    int r = boot_claim(b, "the BIOS data area", BDA, BDA_BYTES);
    if (!r)
        r = boot_write(b, BDA, bda, sizeof bda);
    /* Its first byte is the area's size; the reserved range need not be backed by memory. */
    (void)gpmem_write(b->mem, low, &ebda_kib, 1);
    return r;
}
