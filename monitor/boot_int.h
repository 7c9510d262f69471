/* monitor/boot_int.h - what the loaders share: the file in memory, placement in guest RAM, entry states, ELF segments.
 *
 * Role:     private to monitor/boot_*.c and their tests. A loader claims every guest range before it writes there, so no two
 *           parts of a boot can overlap and nothing is ever written outside RAM.
 * Owner:    struct boot lives on boot_load's stack.
 */
#ifndef MONITOR_BOOT_INT_H
#define MONITOR_BOOT_INT_H
#include "base/err.h"
#include "monitor/boot.h"
#include <string.h>

#define BOOT_MAX_CLAIMS 256
#define BOOT_MAX_SEGMENTS 64
#define BOOT_LOW_LIMIT 0x100000ull /* small structures go below 1 MiB ... */
#define BOOT_LOW_START 0x1000ull   /* ... but not into the first page: interrupt vectors and BIOS data */
#define BOOT_4G 0x100000000ull

struct boot_span {
    uint64_t gpa, end;
};
struct boot_file {
    const char *name;
    uint8_t *data;
    size_t bytes;
};
struct boot {
    const struct boot_config *cfg;
    struct gpmem *mem;
    struct cpu *cpu;
    struct boot_info info;
    struct boot_file kernel;
    struct boot_span claim[BOOT_MAX_CLAIMS]; /* ascending, disjoint */
    unsigned n_claims;
    bool own_services; /* boot_put_bios16 has been here: the BIOS data area is kept for them */
    char *err;
    size_t errsz;
};

/* Writes the error line and returns -code. */
int boot_fail(struct boot *b, enum rd_err code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* -- files (boot_file.c) -- */
/* Opens a regular file; *bytes is its size. Returns a descriptor or -RD_E_*. what is "kernel", "initrd" ... */
int boot_file_open(struct boot *b, const char *what, const char *name, uint64_t *bytes);
/* Reads a whole file that must be smaller than guest RAM. Free data. */
int boot_file_read(struct boot *b, const char *what, const char *name, struct boot_file *out);
/* Copies exactly bytes from a descriptor into guest memory and closes it, also on failure. */
int boot_file_copy(struct boot *b, const char *name, int fd, uint64_t gpa, uint64_t bytes);

/* -- guest memory (boot_mem.c) -- */
int boot_map_check(struct boot *b);
uint64_t boot_ram_bytes(const struct boot *b);
/* End of the RAM range that holds gpa, or 0. */
uint64_t boot_ram_end(const struct boot *b, uint64_t gpa);
/* Is the whole range RAM and not claimed? */
bool boot_is_free(const struct boot *b, uint64_t gpa, uint64_t bytes);
/* Claims a range that must be free; what names it in the error line. */
int boot_claim(struct boot *b, const char *what, uint64_t gpa, uint64_t bytes);
/* Where to look for free RAM: [min, max), lowest first or highest first. */
struct boot_want {
    uint64_t bytes, align, min, max;
    bool highest;
};
/* Finds and claims. Returns false if there is no room. */
bool boot_place(struct boot *b, const struct boot_want *want, uint64_t *gpa);
int boot_write(struct boot *b, uint64_t gpa, const void *data, uint64_t bytes);
int boot_zero(struct boot *b, uint64_t gpa, uint64_t bytes);
/* Places a small structure below 1 MiB and writes it. */
int boot_put_low(struct boot *b, const char *what, const void *data, uint64_t bytes, uint64_t *gpa);
/* Loads a whole file as high as it fits in [0, max), page-aligned. */
int boot_put_initrd(struct boot *b, const char *name, uint64_t max, uint64_t *gpa, uint64_t *bytes);
/* Writes the few fields of the BIOS data area that kernels read on their own, unless firmware or the kernel owns the place. */
int boot_put_bda(struct boot *b);
/* One entry as INT 15h and boot_params have it: base, length, type; 20 bytes. */
void boot_e820_entry(const struct boot_range *range, uint8_t *out);
/* KiB of RAM below 1 MiB and from 1 MiB to the first hole, as basic memory information has it. */
void boot_basic_mem(const struct boot *b, uint32_t *lower_kib, uint32_t *upper_kib);

/* -- real-mode services (boot_bios16.c) -- */
#define BIOS16_GPA 0xf8000u /* behind the board's tables, before the reset vector */
/* Interrupt vectors, and the services behind them. */
int boot_put_bios16(struct boot *b);

/* -- entry states (boot_cpu.c) -- */
/* Protected mode, paging off, flat 4 GiB segments (CS 0x10, the others 0x18), a GDT to match, interrupts off. */
int boot_cpu_flat32(struct boot *b, uint64_t rip);
/* Long mode, 4 GiB identity-mapped with 2 MiB pages, the same selectors. */
int boot_cpu_long(struct boot *b, uint64_t rip);
/* Real mode, all data segments equal. */
void boot_cpu_real(struct boot *b, uint16_t cs, uint16_t ip, uint16_t ds, uint16_t sp);

/* -- ELF (boot_elf.c) -- */
struct boot_segment {
    uint64_t file_offset, file_bytes, vaddr, paddr, bytes;
};
struct boot_elf {
    bool is64;
    uint64_t entry;       /* as in the header */
    uint64_t entry_paddr; /* the same as a physical address */
    struct boot_segment seg[BOOT_MAX_SEGMENTS];
    unsigned n_segs;
    uint64_t lo, hi; /* hull of the segments' physical addresses */
    bool has_pvh;
    uint64_t pvh_entry;
};
bool boot_is_elf(const struct boot_file *f);
/* Checks everything, loads nothing. */
int boot_elf_parse(struct boot *b, struct boot_elf *elf);
/* Claims and writes the segments, delta added to their physical addresses. */
int boot_elf_load(struct boot *b, const struct boot_elf *elf, uint64_t delta);

/* -- protocols -- */
bool boot_is_bzimage(const struct boot_file *f);
int boot_load_bzimage(struct boot *b);                             /* boot_linux.c */
int boot_load_vmlinux(struct boot *b, const struct boot_elf *elf); /* boot_linux.c */
int boot_load_pvh(struct boot *b, const struct boot_elf *elf);     /* boot_pvh.c */
/* Offset of a multiboot 1 / 2 header, or -1. */
long boot_find_multiboot(const struct boot_file *f);
int boot_load_multiboot(struct boot *b, long header); /* boot_multiboot.c */
long boot_find_multiboot2(const struct boot_file *f);
int boot_load_multiboot2(struct boot *b, long header); /* boot_multiboot2.c */
struct boot_module {
    uint64_t gpa, bytes;
    const char *args; /* "file args", points into the list */
};
#define BOOT_MAX_MODULES 64
/* Modules of the -initrd list: loads each page-aligned above min. *list is the memory behind args; free it. */
int boot_load_modules(struct boot *b, uint64_t min, struct boot_module *mods, unsigned *n,
                      char **list); /* boot_module.c */

/* -- little-endian fields -- */
static inline uint16_t le16(const void *p)
{
    uint16_t v;
    memcpy(&v, p, 2);
    return v;
}
static inline uint32_t le32(const void *p)
{
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}
static inline uint64_t le64(const void *p)
{
    uint64_t v;
    memcpy(&v, p, 8);
    return v;
}
static inline void put16(void *p, uint16_t v) { memcpy(p, &v, 2); }
static inline void put32(void *p, uint32_t v) { memcpy(p, &v, 4); }
static inline void put64(void *p, uint64_t v) { memcpy(p, &v, 8); }
/* Rounds up; 0 if that wraps, which no placement accepts. align is a power of two. */
static inline uint64_t boot_align(uint64_t v, uint64_t align) { return (v + align - 1) & ~(align - 1); }
#endif
