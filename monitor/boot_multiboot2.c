/* monitor/boot_multiboot2.c - multiboot 2 (GNU Multiboot2 specification 2.0): tagged header, tagged information. */
#include "monitor/boot_int.h"
#include "shadowmmu/gpmem.h"
#include <stdlib.h>

#define HEADER_MAGIC 0xe85250d6u
#define ENTRY_MAGIC 0x36d76289u
#define SEARCH_BYTES 32768
#define HEADER_BYTES 16
#define OPTIONAL 1 /* header tag flag: a loader that does not know the tag may go on */
enum header_tag {
    HT_END,
    HT_INFO_REQUEST,
    HT_ADDRESS,
    HT_ENTRY,
    HT_CONSOLE,
    HT_FRAMEBUFFER,
    HT_MODULE_ALIGN,
    HT_EFI_BS,
    HT_ENTRY_EFI32,
    HT_ENTRY_EFI64,
    HT_RELOCATABLE
};
enum info_tag {
    IT_END = 0,
    IT_CMDLINE = 1,
    IT_LOADER = 2,
    IT_MODULE = 3,
    IT_MEMORY = 4,
    IT_MAP = 6,
    IT_FRAMEBUFFER = 8,
    IT_RSDP1 = 14,
    IT_RSDP2 = 15,
    IT_LOAD_BASE = 21
};

/* What the header says. */
struct mb2 {
    size_t header;
    bool has_address, has_entry, relocatable;
    uint64_t header_addr, load, load_end, bss_end, entry;
    uint64_t min, max, align;
    uint32_t preference; /* 1: lowest, 2: highest */
};

/* Information under construction; tags are appended with 8-byte alignment. */
struct tags {
    uint8_t *data;
    size_t bytes, room;
    bool failed; /* out of memory */
};

long boot_find_multiboot2(const struct boot_file *f)
{
    size_t end = f->bytes < SEARCH_BYTES ? f->bytes : SEARCH_BYTES;
    for (size_t at = 0; at + HEADER_BYTES <= end; at += 8) {
        const uint8_t *h = f->data + at;
        if (le32(h) == HEADER_MAGIC && le32(h) + le32(h + 4) + le32(h + 8) + le32(h + 12) == 0)
            return (long)at;
    }
    return -1;
}

static int bad(struct boot *b, const char *why)
{
    return boot_fail(b, RD_E_FORMAT, "'%s': bad multiboot 2 kernel: %s", b->kernel.name, why);
}

/* The header may list information that the kernel cannot do without. */
static int check_requests(struct boot *b, const uint8_t *tag, uint32_t bytes)
{
    if (le16(tag + 2) & OPTIONAL)
        return 0;
    for (uint32_t at = 8; at + 4 <= bytes; at += 4) {
        switch (le32(tag + at)) {
        case IT_CMDLINE:
        case IT_LOADER:
        case IT_MODULE:
        case IT_MEMORY:
        case IT_MAP:
        case IT_FRAMEBUFFER:
        case IT_RSDP1:
        case IT_RSDP2:
        case IT_LOAD_BASE: break;
        default:
            return boot_fail(b, RD_E_UNSUPPORTED,
                             "'%s' demands multiboot 2 information of type %u, which is not available", b->kernel.name,
                             le32(tag + at));
        }
    }
    return 0;
}

static int read_tag(struct boot *b, struct mb2 *m, const uint8_t *tag, uint32_t bytes)
{
    unsigned type = le16(tag);
    static const uint8_t least[] = {[HT_ADDRESS] = 24, [HT_ENTRY] = 12, [HT_RELOCATABLE] = 24};
    if (type < sizeof least && bytes < least[type])
        return bad(b, "a header tag is too short");
    switch (type) {
    case HT_INFO_REQUEST: return check_requests(b, tag, bytes);
    case HT_ADDRESS:
        m->has_address = true;
        m->header_addr = le32(tag + 8);
        m->load = le32(tag + 12);
        m->load_end = le32(tag + 16);
        m->bss_end = le32(tag + 20);
        return 0;
    case HT_ENTRY:
        m->has_entry = true;
        m->entry = le32(tag + 8);
        return 0;
    case HT_RELOCATABLE:
        m->relocatable = true;
        m->min = le32(tag + 8);
        m->max = le32(tag + 12);
        m->align = le32(tag + 16);
        m->preference = le32(tag + 20);
        if (m->align == 0 || (m->align & (m->align - 1)))
            return bad(b, "the alignment of a relocatable image is not a power of two");
        return 0;
    case HT_CONSOLE:
    case HT_FRAMEBUFFER:  /* the text screen, or none: no other mode can be set */
    case HT_MODULE_ALIGN: /* they always are */
    case HT_EFI_BS:
    case HT_ENTRY_EFI32:
    case HT_ENTRY_EFI64: return 0; /* not for a machine without EFI */
    default:
        if (le16(tag + 2) & OPTIONAL)
            return 0;
        return boot_fail(b, RD_E_UNSUPPORTED, "'%s' demands multiboot 2 feature %u, which is not known", b->kernel.name,
                         type);
    }
}

static int read_header(struct boot *b, struct mb2 *m)
{
    const struct boot_file *f = &b->kernel;
    const uint8_t *h = f->data + m->header;
    uint64_t length = le32(h + 8);
    if (le32(h + 4) != 0)
        return bad(b, "not for the i386 architecture");
    if (length < HEADER_BYTES || length > f->bytes - m->header)
        return bad(b, "truncated header");
    for (uint64_t at = HEADER_BYTES; at + 8 <= length;) {
        uint32_t bytes = le32(h + at + 4);
        if (bytes < 8 || bytes > length - at)
            return bad(b, "a header tag runs over the header's end");
        if (le16(h + at) == HT_END)
            return 0;
        int r = read_tag(b, m, h + at, bytes);
        if (r)
            return r;
        at += boot_align(bytes, 8);
    }
    return bad(b, "the header has no end tag");
}

/* Turns the address tag into one segment, so that both ways of loading share the rest. */
static int image_by_address(struct boot *b, const struct mb2 *m, struct boot_elf *e)
{
    const struct boot_file *f = &b->kernel;
    if (!m->has_entry)
        return bad(b, "an address tag without an entry tag");
    /* load_addr -1: the image starts with the file. */
    uint64_t load = m->load == UINT32_MAX ? m->header_addr - m->header : m->load;
    if (load > m->header_addr || m->header_addr - load > m->header)
        return bad(b, "load_addr does not fit header_addr");
    uint64_t offset = m->header - (m->header_addr - load), bytes = f->bytes - offset;
    if (m->load_end) {
        if (m->load_end < load || m->load_end - load > bytes)
            return bad(b, "truncated: load_end_addr is not in the file");
        bytes = m->load_end - load;
    }
    uint64_t hi = m->bss_end > load + bytes ? m->bss_end : load + bytes;
    *e = (struct boot_elf){.lo = load, .hi = hi, .n_segs = 1, .entry_paddr = m->entry};
    e->seg[0] = (struct boot_segment){offset, bytes, load, load, hi - load};
    return 0;
}

/* How far from its link address the image goes: 0 if it can have that. */
static int choose_delta(struct boot *b, const struct mb2 *m, const struct boot_elf *e, uint64_t *delta)
{
    *delta = 0;
    if (!m->relocatable)
        return 0;
    bool in_place = m->preference == 0 && e->lo >= m->min && e->hi - 1 <= m->max;
    for (unsigned i = 0; in_place && i < e->n_segs; i++)
        in_place = boot_is_free(b, e->seg[i].paddr, e->seg[i].bytes);
    if (in_place)
        return 0;
    struct boot_want w = {
        .bytes = e->hi - e->lo, .align = m->align, .min = m->min, .max = m->max + 1, .highest = m->preference == 2};
    struct boot *probe =
        malloc(sizeof *probe); /* the claim is for the hull; the segments are claimed when they are loaded */
    uint64_t gpa;
    if (!probe)
        return boot_fail(b, RD_E_NOMEM, "no memory to place '%s'", b->kernel.name);
    *probe = *b;
    bool placed = boot_place(probe, &w, &gpa);
    free(probe);
    if (!placed)
        return boot_fail(b, RD_E_RANGE, "'%s': no room for 0x%llx bytes between 0x%llx and 0x%llx", b->kernel.name,
                         (unsigned long long)w.bytes, (unsigned long long)m->min, (unsigned long long)m->max);
    *delta = gpa - e->lo;
    return 0;
}

static int load_image(struct boot *b, const struct mb2 *m, struct boot_elf *e, uint64_t *delta)
{
    int r;
    if (m->has_address)
        r = image_by_address(b, m, e);
    else if (boot_is_elf(&b->kernel))
        r = boot_elf_parse(b, e);
    else
        r = bad(b, "neither an ELF file nor an address tag");
    if (r)
        return r;
    if (m->has_entry)
        e->entry_paddr = m->entry;
    if (e->hi > BOOT_4G || e->entry_paddr < e->lo || e->entry_paddr >= e->hi)
        return bad(b, "the entry point is in no segment below 4 GiB");
    r = choose_delta(b, m, e, delta);
    return r ? r : boot_elf_load(b, e, *delta);
}

/* Room for a tag of this type with bytes of contents; NULL when memory is out (checked once, at the end). */
static uint8_t *add_tag(struct tags *t, uint32_t type, size_t bytes)
{
    size_t size = 8 + bytes, padded = boot_align(size, 8);
    if (t->failed)
        return NULL;
    if (t->bytes + padded > t->room) {
        size_t room = (t->bytes + padded) * 2;
        uint8_t *grown = realloc(t->data, room);
        if (!grown) {
            t->failed = true;
            return NULL;
        }
        t->data = grown;
        t->room = room;
    }
    uint8_t *tag = t->data + t->bytes;
    memset(tag, 0, padded);
    put32(tag, type);
    put32(tag + 4, (uint32_t)size);
    t->bytes += padded;
    return tag + 8;
}

static void add_string(struct tags *t, uint32_t type, const char *first, const char *second)
{
    size_t n = strlen(first), blank = second ? 1 : 0, m = second ? strlen(second) : 0;
    uint8_t *p = add_tag(t, type, n + blank + m + 1);
    if (!p)
        return;
    memcpy(p, first, n);
    if (second) {
        p[n] = ' ';
        memcpy(p + n + 1, second, m);
    }
}

static void add_memory(const struct boot *b, struct tags *t)
{
    uint32_t lower, upper;
    uint8_t *p = add_tag(t, IT_MEMORY, 8);
    boot_basic_mem(b, &lower, &upper);
    if (p) {
        put32(p, lower);
        put32(p + 4, upper);
    }
    p = add_tag(t, IT_MAP, 8 + b->cfg->n_map * 24ull);
    if (!p)
        return;
    put32(p, 24); /* entry size; entry version 0 follows */
    for (unsigned i = 0; i < b->cfg->n_map; i++) {
        uint8_t *e = p + 8 + i * 24ull;
        put64(e, b->cfg->map[i].gpa);
        put64(e + 8, b->cfg->map[i].bytes);
        put32(e + 16, b->cfg->map[i].type);
    }
}

/* A copy of the root pointer that the board has put into guest memory (ACPI 5.2.5.3: 20 bytes, 36 from revision 2 on). */
static void add_rsdp(const struct boot *b, struct tags *t)
{
    uint8_t rsdp[36];
    if (!b->cfg->rsdp_gpa || gpmem_read(b->mem, b->cfg->rsdp_gpa, rsdp, sizeof rsdp))
        return;
    size_t bytes = rsdp[15] >= 2 ? 36 : 20;
    uint8_t *p = add_tag(t, bytes == 36 ? IT_RSDP2 : IT_RSDP1, bytes);
    if (p)
        memcpy(p, rsdp, bytes);
}

static void add_screen(struct tags *t)
{
    uint8_t *p = add_tag(t, IT_FRAMEBUFFER, 24);
    if (!p)
        return;
    put64(p, 0xb8000);
    put32(p + 8, 160); /* pitch */
    put32(p + 12, 80);
    put32(p + 16, 25);
    p[20] = 16;
    p[21] = 2; /* text */
}

static int add_modules(struct boot *b, struct tags *t, uint64_t min)
{
    struct boot_module mods[BOOT_MAX_MODULES];
    unsigned n;
    char *list;
    int r = boot_load_modules(b, min, mods, &n, &list);
    for (unsigned i = 0; !r && i < n; i++) {
        size_t len = strlen(mods[i].args) + 1;
        uint8_t *p = add_tag(t, IT_MODULE, 8 + len);
        if (!p)
            break;
        put32(p, (uint32_t)mods[i].gpa);
        put32(p + 4, (uint32_t)(mods[i].gpa + mods[i].bytes));
        memcpy(p + 8, mods[i].args, len);
    }
    free(list);
    return r;
}

static int put_info(struct boot *b, const struct mb2 *m, const struct boot_elf *e, uint64_t delta)
{
    /* The fixed part (total size, reserved) is as large as a tag's head and comes first. */
    struct tags t = {0};
    uint64_t hi = e->hi + delta;
    add_tag(&t, 0, 0);
    add_string(&t, IT_CMDLINE, b->kernel.name, b->cfg->append ? b->cfg->append : "");
    add_string(&t, IT_LOADER, "ringdown", NULL);
    int r = add_modules(b, &t, hi > BOOT_LOW_LIMIT ? hi : BOOT_LOW_LIMIT);
    add_memory(b, &t);
    add_rsdp(b, &t);
    if (b->cfg->vga_text)
        add_screen(&t);
    if (m->relocatable) {
        uint8_t *p = add_tag(&t, IT_LOAD_BASE, 4);
        if (p)
            put32(p, (uint32_t)(e->lo + delta));
    }
    add_tag(&t, IT_END, 0);
    if (!r && t.failed)
        r = boot_fail(b, RD_E_NOMEM, "no memory for the multiboot information");
    if (!r) {
        put32(t.data, (uint32_t)t.bytes);
        put32(t.data + 4, 0);
        r = boot_put_low(b, "the multiboot information", t.data, t.bytes, &b->info.info_gpa);
    }
    free(t.data);
    return r;
}

int boot_load_multiboot2(struct boot *b, long header)
{
    struct mb2 m = {.header = (size_t)header};
    struct boot_elf image;
    uint64_t delta = 0;
    int r = read_header(b, &m);
    if (!r)
        r = load_image(b, &m, &image, &delta);
    if (!r)
        r = put_info(b, &m, &image, delta);
    if (!r)
        r = boot_cpu_flat32(b, image.entry_paddr + delta);
    if (r)
        return r;
    b->cpu->gpr[R_RAX] = ENTRY_MAGIC;
    b->cpu->gpr[R_RBX] = b->info.info_gpa;
    b->info.entry = image.entry_paddr + delta;
    b->info.protocol = "multiboot 2";
    return 0;
}
