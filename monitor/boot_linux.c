/* monitor/boot_linux.c - Linux: bzImage by its boot protocol, and the uncompressed vmlinux ELF with a header made up for it.
 *
 * Facts: Documentation/arch/x86/boot.rst (setup header, entry points) and zero-page.rst (boot_params).
 */
#include "monitor/boot_int.h"
#include <sys/random.h>

/* Offsets in boot_params; those from 0x1f1 on are the setup header's and the same in the file. */
enum {
    BP_SCREEN_INFO = 0x000,
    BP_ACPI_RSDP_ADDR = 0x070,
    BP_ALT_MEM_K = 0x1e0,
    BP_E820_ENTRIES = 0x1e8,
    BP_SETUP_SECTS = 0x1f1,
    BP_SYSSIZE = 0x1f4,
    BP_VID_MODE = 0x1fa,
    BP_BOOT_FLAG = 0x1fe,
    BP_JUMP_OFFSET = 0x201, /* the setup header ends at 0x202 + this byte */
    BP_MAGIC = 0x202,
    BP_VERSION = 0x206,
    BP_TYPE_OF_LOADER = 0x210,
    BP_LOADFLAGS = 0x211,
    BP_CODE32_START = 0x214,
    BP_RAMDISK_IMAGE = 0x218,
    BP_RAMDISK_SIZE = 0x21c,
    BP_HEAP_END_PTR = 0x224,
    BP_CMD_LINE_PTR = 0x228,
    BP_INITRD_ADDR_MAX = 0x22c,
    BP_KERNEL_ALIGNMENT = 0x230,
    BP_RELOCATABLE = 0x234,
    BP_XLOADFLAGS = 0x236,
    BP_CMDLINE_SIZE = 0x238,
    BP_SETUP_DATA = 0x250,
    BP_PREF_ADDRESS = 0x258,
    BP_INIT_SIZE = 0x260,
    BP_HEADER_END = 0x290, /* the next field of boot_params */
    BP_E820_TABLE = 0x2d0,
    BP_BYTES = 4096,
};
#define BP_E820_MAX 128
#define E820_BYTES 20
#define LOADED_HIGH 0x01
#define CAN_USE_HEAP 0x80
#define XLF_KERNEL_64 0x0001
#define LOADER_UNDEFINED 0xff
#define SETUP_RNG_SEED 9
#define OLD_INITRD_MAX 0x37ffffffu /* before protocol 2.03 said otherwise */
#define SETUP_SEG 0x1000u          /* 16-bit entry: where the real-mode part goes ... */
#define SETUP_HEAP_END 0xe000u     /* ... and the end of its heap and stack, in the same segment */
#define ENTRY64_OFFSET 0x200

struct linux_image {
    uint8_t params[BP_BYTES];
    unsigned version;
    uint64_t setup_bytes; /* real-mode part of the file */
    const uint8_t *code;  /* protected-mode part */
    uint64_t code_bytes;
    uint64_t load; /* where it goes */
    uint64_t initrd_max, cmdline_max;
};

bool boot_is_bzimage(const struct boot_file *f)
{
    return f->bytes >= BP_MAGIC + 4 && le16(f->data + BP_BOOT_FLAG) == 0xaa55 && !memcmp(f->data + BP_MAGIC, "HdrS", 4);
}

static int bad(struct boot *b, enum rd_err code, const char *why)
{
    return boot_fail(b, code, "'%s': %s", b->kernel.name, why);
}

/* Takes the setup header over into params and cuts the file into its two parts. */
static int read_header(struct boot *b, struct linux_image *im)
{
    const struct boot_file *f = &b->kernel;
    unsigned end = BP_MAGIC + f->data[BP_JUMP_OFFSET];
    if (f->bytes < BP_HEADER_END || end <= BP_LOADFLAGS)
        return bad(b, RD_E_FORMAT, "truncated bzImage");
    im->version = le16(f->data + BP_VERSION);
    if (im->version < 0x206)
        return boot_fail(b, RD_E_UNSUPPORTED, "'%s': boot protocol %u.%02u is too old (2.06 or later is needed)",
                         f->name, im->version >> 8, im->version & 0xff);
    memcpy(im->params + BP_SETUP_SECTS, f->data + BP_SETUP_SECTS,
           (end < BP_HEADER_END ? end : BP_HEADER_END) - BP_SETUP_SECTS);
    if (!(im->params[BP_LOADFLAGS] & LOADED_HIGH))
        return bad(b, RD_E_UNSUPPORTED, "is a zImage (loaded low); only bzImage can be booted");
    unsigned sects = f->data[BP_SETUP_SECTS];
    im->setup_bytes = ((sects ? sects : 4) + 1) * 512ull;
    uint64_t want = le32(f->data + BP_SYSSIZE) * 16ull;
    /* syssize counts paragraphs, rounded up. */
    if (f->bytes <= im->setup_bytes || f->bytes - im->setup_bytes + 15 < want)
        return boot_fail(b, RD_E_FORMAT, "'%s': truncated bzImage: %zu bytes of %llu", f->name, f->bytes,
                         (unsigned long long)(im->setup_bytes + want));
    im->code = f->data + im->setup_bytes;
    im->code_bytes = f->bytes - im->setup_bytes;
    im->initrd_max = le32(im->params + BP_INITRD_ADDR_MAX);
    im->cmdline_max = le32(im->params + BP_CMDLINE_SIZE);
    return 0;
}

/* Where the kernel will run once it has unpacked itself, were it loaded at load (boot.rst, "init_size"). */
static uint64_t run_address(const struct linux_image *im, uint64_t load)
{
    uint64_t pref = le64(im->params + BP_PREF_ADDRESS), align = le32(im->params + BP_KERNEL_ALIGNMENT);
    if (!im->params[BP_RELOCATABLE])
        return pref;
    load = boot_align(load, align);
    return load < pref ? pref : load;
}

/* Chooses the load address, and claims all that the kernel overwrites before it can read the memory map. */
static int place_code(struct boot *b, struct linux_image *im)
{
    uint64_t pref = le64(im->params + BP_PREF_ADDRESS), init = le32(im->params + BP_INIT_SIZE);
    uint64_t align = le32(im->params + BP_KERNEL_ALIGNMENT);
    im->load = 0x100000;
    if (im->version < 0x20a)
        return boot_claim(b, "the kernel", im->load, im->code_bytes);
    if (im->params[BP_RELOCATABLE] && (align == 0 || (align & (align - 1)) || align > 0x40000000))
        return bad(b, RD_E_FORMAT, "kernel_alignment is not a power of two");
    if (init < im->code_bytes)
        init = im->code_bytes;
    if (im->params[BP_RELOCATABLE] && boot_is_free(b, pref, init))
        im->load = pref;
    uint64_t run = run_address(im, im->load), end = boot_ram_end(b, run);
    if (!end || init > end - run || run >= BOOT_4G || init > BOOT_4G - run)
        return boot_fail(b, RD_E_RANGE, "'%s': the kernel needs memory 0x%llx-0x%llx, and the guest has not that much",
                         b->kernel.name, (unsigned long long)run, (unsigned long long)(run + init));
    int r = boot_claim(b, "the kernel", run, init);
    /* Loaded elsewhere: the rest of the image lies before the place where it will run. */
    if (!r && im->load < run)
        r = boot_claim(b, "the kernel", im->load, run - im->load < im->code_bytes ? run - im->load : im->code_bytes);
    return r;
}

static int put_cmdline(struct boot *b, struct linux_image *im)
{
    const char *s = b->cfg->append ? b->cfg->append : "";
    size_t len = strlen(s);
    uint64_t gpa;
    if (len > im->cmdline_max)
        return boot_fail(b, RD_E_INVAL, "the kernel command line has %zu characters; '%s' takes %llu", len,
                         b->kernel.name, (unsigned long long)im->cmdline_max);
    int r = boot_put_low(b, "the command line", s, len + 1, &gpa);
    put32(im->params + BP_CMD_LINE_PTR, (uint32_t)gpa);
    return r;
}

static int put_initrd(struct boot *b, struct linux_image *im)
{
    if (!b->cfg->initrd)
        return 0;
    uint64_t max = im->initrd_max + 1;
    int r =
        boot_put_initrd(b, b->cfg->initrd, max < BOOT_4G ? max : BOOT_4G, &b->info.initrd_gpa, &b->info.initrd_bytes);
    put32(im->params + BP_RAMDISK_IMAGE, (uint32_t)b->info.initrd_gpa);
    put32(im->params + BP_RAMDISK_SIZE, (uint32_t)b->info.initrd_bytes);
    return r;
}

static void put_e820(const struct boot *b, uint8_t *params)
{
    _Static_assert(BOOT_MAX_RANGES <= BP_E820_MAX, "all entries fit");
    for (unsigned i = 0; i < b->cfg->n_map; i++)
        boot_e820_entry(&b->cfg->map[i], params + BP_E820_TABLE + i * E820_BYTES);
    params[BP_E820_ENTRIES] = (uint8_t)b->cfg->n_map;
    uint32_t lower, upper;
    boot_basic_mem(b, &lower, &upper);
    put32(params + BP_ALT_MEM_K, upper);
}

/* struct screen_info for an 80x25 text screen with 16-line characters: what the real-mode code would have asked the BIOS. */
static void put_screen(uint8_t *params)
{
    uint8_t *s = params + BP_SCREEN_INFO;
    s[0x06] = 3;  /* video mode */
    s[0x07] = 80; /* columns */
    s[0x0e] = 25; /* lines */
    s[0x0f] = 1;  /* VGA */
    put16(s + 0x10, 16);
}

/* struct setup_data { u64 next; u32 type, len; u8 data[]; } with random bytes. */
static int put_seed(struct boot *b, uint8_t *params)
{
    uint8_t item[16 + BOOT_SEED_BYTES] = {0};
    put32(item + 8, SETUP_RNG_SEED);
    put32(item + 12, BOOT_SEED_BYTES);
    if (b->cfg->rng_seed)
        memcpy(item + 16, b->cfg->rng_seed, BOOT_SEED_BYTES);
    else if (getrandom(item + 16, BOOT_SEED_BYTES, GRND_NONBLOCK) != BOOT_SEED_BYTES)
        return 0; /* no seed is better than a known one */
    uint64_t gpa;
    int r = boot_put_low(b, "the random seed", item, sizeof item, &gpa);
    put64(params + BP_SETUP_DATA, gpa);
    return r;
}

static int put_params(struct boot *b, struct linux_image *im)
{
    uint8_t *p = im->params;
    int r = put_cmdline(b, im);
    if (!r)
        r = put_initrd(b, im);
    if (!r && im->version >= 0x209)
        r = put_seed(b, p);
    if (r)
        return r;
    p[BP_TYPE_OF_LOADER] = LOADER_UNDEFINED;
    p[BP_LOADFLAGS] |= CAN_USE_HEAP;
    put16(p + BP_HEAP_END_PTR, SETUP_HEAP_END - 0x200);
    put32(p + BP_CODE32_START, (uint32_t)im->load);
    put_e820(b, p);
    if (b->cfg->vga_text)
        put_screen(p);
    if (im->version >= 0x20e)
        put64(p + BP_ACPI_RSDP_ADDR, b->cfg->rsdp_gpa);
    return boot_put_low(b, "boot_params", p, BP_BYTES, &b->info.info_gpa);
}

static int enter(struct boot *b, uint64_t rip, bool long_mode)
{
    int r = long_mode ? boot_cpu_long(b, rip) : boot_cpu_flat32(b, rip);
    b->cpu->gpr[R_RSI] = b->info.info_gpa;
    b->info.entry = rip;
    b->info.protocol = long_mode ? "Linux 64-bit" : "Linux 32-bit";
    return r;
}

/* The real-mode part, at the customary place, runs first; it asks the BIOS for the memory map and the screen itself. */
static int load_16bit(struct boot *b, struct linux_image *im)
{
    uint64_t base = SETUP_SEG << 4;
    if (im->setup_bytes > 0x8000)
        return bad(b, RD_E_FORMAT, "the real-mode part is larger than 32 KiB");
    int r = boot_claim(b, "the real-mode part", base, 0x10000);
    if (!r && !b->cfg->bios_services)
        r = boot_put_bios16(b);
    if (!r)
        r = put_cmdline(b, im);
    if (!r)
        r = put_initrd(b, im);
    if (!r && im->version >= 0x209)
        r = put_seed(b, im->params);
    if (r)
        return r;
    im->params[BP_TYPE_OF_LOADER] = LOADER_UNDEFINED;
    im->params[BP_LOADFLAGS] |= CAN_USE_HEAP;
    put16(im->params + BP_HEAP_END_PTR, SETUP_HEAP_END - 0x200);
    put32(im->params + BP_CODE32_START, (uint32_t)im->load);
    unsigned end = BP_MAGIC + b->kernel.data[BP_JUMP_OFFSET];
    r = boot_write(b, base, b->kernel.data, im->setup_bytes);
    if (!r)
        r = boot_write(b, base + BP_SETUP_SECTS, im->params + BP_SETUP_SECTS,
                       (end < BP_HEADER_END ? end : BP_HEADER_END) - BP_SETUP_SECTS);
    boot_cpu_real(b, SETUP_SEG + 0x20, 0, SETUP_SEG, SETUP_HEAP_END);
    b->info.info_gpa = base;
    b->info.entry = base + 0x200;
    b->info.protocol = "Linux 16-bit";
    return r;
}

int boot_load_bzimage(struct boot *b)
{
    struct linux_image im = {0};
    int r = read_header(b, &im);
    if (r)
        return r;
    bool has64 = im.version >= 0x20c && (le16(im.params + BP_XLOADFLAGS) & XLF_KERNEL_64);
    if (b->cfg->entry == BOOT_ENTRY_64 && !has64)
        return bad(b, RD_E_UNSUPPORTED, "has no 64-bit entry (XLF_KERNEL_64 is not set)");
    r = place_code(b, &im);
    if (!r)
        r = boot_write(b, im.load, im.code, im.code_bytes);
    if (r)
        return r;
    if (b->cfg->entry == BOOT_ENTRY_16)
        return load_16bit(b, &im);
    r = put_params(b, &im);
    if (r)
        return r;
    bool long_mode = b->cfg->entry == BOOT_ENTRY_64;
    return enter(b, im.load + (long_mode ? ENTRY64_OFFSET : 0), long_mode);
}

int boot_load_vmlinux(struct boot *b, const struct boot_elf *elf)
{
    struct linux_image im = {.version = 0x20f, .load = elf->entry_paddr, .cmdline_max = 2047};
    /* 32-bit kernels reach only their low memory while they are young. */
    im.initrd_max = elf->is64 ? 0x7fffffff : OLD_INITRD_MAX;
    if (b->cfg->entry == BOOT_ENTRY_64 && !elf->is64)
        return bad(b, RD_E_UNSUPPORTED, "is a 32-bit kernel: it has no 64-bit entry");
    if (b->cfg->entry == BOOT_ENTRY_32 && elf->is64)
        return bad(b, RD_E_UNSUPPORTED, "is a 64-bit kernel without a PVH note: it has no 32-bit entry");
    if (elf->entry_paddr < elf->lo || elf->entry_paddr >= elf->hi)
        return bad(b, RD_E_FORMAT, "the entry point is in no segment");
    int r = boot_elf_load(b, elf, 0);
    if (r)
        return r;
    put16(im.params + BP_BOOT_FLAG, 0xaa55);
    memcpy(im.params + BP_MAGIC, "HdrS", 4);
    put16(im.params + BP_VERSION, (uint16_t)im.version);
    im.params[BP_LOADFLAGS] = LOADED_HIGH;
    put16(im.params + BP_VID_MODE, 0xffff);
    put32(im.params + BP_KERNEL_ALIGNMENT, 0x1000000);
    r = put_params(b, &im);
    if (r)
        return r;
    return enter(b, elf->entry_paddr, elf->is64);
}
