/* monitor/boot_multiboot.c - multiboot 1 (GNU Multiboot specification 0.6.96): 32-bit ELF or addresses in the header. */
#include "monitor/boot_int.h"
#include <stdlib.h>

#define HEADER_MAGIC 0x1badb002u
#define ENTRY_MAGIC 0x2badb002u
#define SEARCH_BYTES 8192
/* Header flags. Bits 0-15 are demands: an unknown one must be refused. */
#define NEED_VIDEO 0x00000004u
#define NEED_UNKNOWN 0x0000fff8u
#define HAVE_ADDRESSES 0x00010000u
/* Information flags and offsets (section 3.3). */
enum {
    MI_MEMORY = 0x1,
    MI_BOOT_DEVICE = 0x2,
    MI_CMDLINE = 0x4,
    MI_MODULES = 0x8,
    MI_MAP = 0x40,
    MI_LOADER_NAME = 0x200,
    MI_FRAMEBUFFER = 0x1000,
    MI_BYTES = 116
};
#define MODULE_BYTES 16
#define MAP_ENTRY_BYTES 24

long boot_find_multiboot(const struct boot_file *f)
{
    size_t end = f->bytes < SEARCH_BYTES ? f->bytes : SEARCH_BYTES;
    for (size_t at = 0; at + 12 <= end; at += 4)
        if (le32(f->data + at) == HEADER_MAGIC && HEADER_MAGIC + le32(f->data + at + 4) + le32(f->data + at + 8) == 0)
            return (long)at;
    return -1;
}

static int bad(struct boot *b, const char *why)
{
    return boot_fail(b, RD_E_FORMAT, "'%s': bad multiboot kernel: %s", b->kernel.name, why);
}

/* Loads by the addresses in the header. *hi becomes the end of what was loaded. */
static int load_by_addresses(struct boot *b, size_t header, uint64_t *entry, uint64_t *hi)
{
    const struct boot_file *f = &b->kernel;
    if (f->bytes - header < 32)
        return bad(b, "truncated header");
    const uint8_t *h = f->data + header;
    uint64_t header_addr = le32(h + 12), load = le32(h + 16), load_end = le32(h + 20), bss_end = le32(h + 24);
    *entry = le32(h + 28);
    if (load > header_addr || header_addr - load > header)
        return bad(b, "load_addr does not fit header_addr");
    uint64_t offset = header - (header_addr - load), bytes = f->bytes - offset;
    if (load_end) {
        if (load_end < load || load_end - load > bytes)
            return bad(b, "truncated: load_end_addr is not in the file");
        bytes = load_end - load;
    }
    *hi = bss_end > load + bytes ? bss_end : load + bytes;
    if (*entry < load || *entry >= *hi)
        return bad(b, "the entry point is outside of the image");
    int r = boot_claim(b, "the kernel", load, *hi - load);
    if (!r)
        r = boot_write(b, load, f->data + offset, bytes);
    return r ? r : boot_zero(b, load + bytes, *hi - load - bytes);
}

static int load_elf32(struct boot *b, uint64_t *entry, uint64_t *hi)
{
    struct boot_elf elf;
    if (!boot_is_elf(&b->kernel))
        return bad(b, "neither an ELF file nor load addresses in the header");
    int r = boot_elf_parse(b, &elf);
    if (r)
        return r;
    if (elf.is64)
        return boot_fail(b, RD_E_UNSUPPORTED, "'%s' is a 64-bit ELF file: multiboot 1 loads 32-bit ones only",
                         b->kernel.name);
    if (elf.entry_paddr < elf.lo || elf.entry_paddr >= elf.hi)
        return bad(b, "the entry point is in no segment");
    *entry = elf.entry_paddr;
    *hi = elf.hi;
    return boot_elf_load(b, &elf, 0);
}

static int put_modules(struct boot *b, uint64_t min, uint8_t *info)
{
    struct boot_module mods[BOOT_MAX_MODULES];
    uint8_t table[BOOT_MAX_MODULES * MODULE_BYTES] = {0};
    unsigned n;
    char *list;
    int r = boot_load_modules(b, min, mods, &n, &list);
    for (unsigned i = 0; !r && i < n; i++) {
        uint64_t string;
        r = boot_put_low(b, "a module's arguments", mods[i].args, strlen(mods[i].args) + 1, &string);
        put32(table + i * MODULE_BYTES, (uint32_t)mods[i].gpa);
        put32(table + i * MODULE_BYTES + 4, (uint32_t)(mods[i].gpa + mods[i].bytes));
        put32(table + i * MODULE_BYTES + 8, (uint32_t)string);
    }
    free(list);
    uint64_t gpa = 0;
    if (!r && n)
        r = boot_put_low(b, "the module table", table, n * MODULE_BYTES, &gpa);
    put32(info + 20, n);
    put32(info + 24, (uint32_t)gpa);
    return r;
}

static int put_strings(struct boot *b, uint8_t *info)
{
    static const char loader[] = "ringdown";
    const char *append = b->cfg->append ? b->cfg->append : "";
    /* The first word is the kernel's file name, as GRUB Legacy has it and kernels expect that skip a word. */
    size_t bytes = strlen(b->kernel.name) + strlen(append) + 2;
    char *line = malloc(bytes);
    if (!line)
        return boot_fail(b, RD_E_NOMEM, "no memory for the command line");
    size_t n = strlen(b->kernel.name);
    memcpy(line, b->kernel.name, n);
    line[n] = ' ';
    strcpy(line + n + 1, append);
    uint64_t gpa = 0;
    int r = boot_put_low(b, "the command line", line, bytes, &gpa);
    free(line);
    put32(info + 16, (uint32_t)gpa);
    if (!r)
        r = boot_put_low(b, "the loader's name", loader, sizeof loader, &gpa);
    put32(info + 64, (uint32_t)gpa);
    return r;
}

static int put_map(struct boot *b, uint8_t *info)
{
    uint8_t map[BOOT_MAX_RANGES * MAP_ENTRY_BYTES];
    for (unsigned i = 0; i < b->cfg->n_map; i++) {
        uint8_t *e = map + i * MAP_ENTRY_BYTES;
        put32(e, MAP_ENTRY_BYTES - 4); /* the size field does not count itself */
        put64(e + 4, b->cfg->map[i].gpa);
        put64(e + 12, b->cfg->map[i].bytes);
        put32(e + 20, b->cfg->map[i].type);
    }
    uint64_t gpa = 0;
    int r = boot_put_low(b, "the memory map", map, b->cfg->n_map * MAP_ENTRY_BYTES, &gpa);
    put32(info + 44, b->cfg->n_map * MAP_ENTRY_BYTES);
    put32(info + 48, (uint32_t)gpa);
    return r;
}

/* The text screen as a framebuffer of type 2, 80x25 characters of 16 bits. */
static void put_screen(uint8_t *info)
{
    put64(info + 88, 0xb8000);
    put32(info + 96, 160);
    put32(info + 100, 80);
    put32(info + 104, 25);
    info[108] = 16;
    info[109] = 2;
}

int boot_load_multiboot(struct boot *b, long header)
{
    const uint8_t *h = b->kernel.data + header;
    uint32_t need = le32(h + 4), flags = MI_MEMORY | MI_BOOT_DEVICE | MI_CMDLINE | MI_MODULES | MI_MAP | MI_LOADER_NAME;
    if (need & NEED_UNKNOWN)
        return boot_fail(b, RD_E_UNSUPPORTED, "'%s' demands unknown multiboot features (flags 0x%x)", b->kernel.name,
                         need);
    uint64_t entry, hi;
    int r = (need & HAVE_ADDRESSES) ? load_by_addresses(b, (size_t)header, &entry, &hi) : load_elf32(b, &entry, &hi);
    uint8_t info[MI_BYTES] = {0};
    if (!r)
        r = put_modules(b, hi > BOOT_LOW_LIMIT ? hi : BOOT_LOW_LIMIT, info);
    if (!r)
        r = put_strings(b, info);
    if (!r)
        r = put_map(b, info);
    if (r)
        return r;
    /* A wish for a graphics mode is met with what there is, as the specification allows: the text screen or nothing. */
    if ((need & NEED_VIDEO) && b->cfg->vga_text) {
        flags |= MI_FRAMEBUFFER;
        put_screen(info);
    }
    uint32_t lower, upper;
    boot_basic_mem(b, &lower, &upper);
    put32(info, flags);
    put32(info + 4, lower);
    put32(info + 8, upper);
    put32(info + 12, 0x8000ffff); /* first hard disk, no partition: there is no better answer */
    r = boot_put_low(b, "the multiboot information", info, sizeof info, &b->info.info_gpa);
    if (!r)
        r = boot_cpu_flat32(b, entry);
    b->cpu->gpr[R_RAX] = ENTRY_MAGIC;
    b->cpu->gpr[R_RBX] = b->info.info_gpa;
    b->info.entry = entry;
    b->info.protocol = "multiboot";
    return r;
}
