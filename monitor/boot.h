/* monitor/boot.h - puts a kernel into guest memory and the CPU into the state that its boot protocol promises.
 *
 * Role:     does a boot loader's work without firmware: Linux bzImage (16-, 32- and 64-bit entry; for the first it brings
 *           real-mode services along), Linux vmlinux ELF, PVH ELF, multiboot 1 and 2. Knows no devices: the board says where RAM is.
 * Errors:   0, or -RD_E_* and one line in err that names the file. Files are hostile input: anything may be in them. After a
 *           failure guest memory may hold parts of the images, the CPU is unchanged.
 * Threads:  before the first vCPU runs, or between runs (reset).
 */
#ifndef MONITOR_BOOT_H
#define MONITOR_BOOT_H
#include "arch/cpu.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct gpmem;

/* The guest's memory map, as E820 and multiboot number the types. */
enum boot_mem_type { BOOT_MEM_RAM = 1, BOOT_MEM_RESERVED = 2, BOOT_MEM_ACPI = 3, BOOT_MEM_NVS = 4 };
struct boot_range {
    uint64_t gpa, bytes;
    uint32_t type;
};
#define BOOT_MAX_RANGES 32
#define BOOT_LOW_RAM_TOP 0x9fc00u /* end of conventional memory; the extended BIOS data area follows */
#define BOOT_RAM_HOLE 0xc0000000u /* RAM below 4 GiB ends here at the latest: PCI, APICs and ROM follow */
#define BOOT_RSDP_AREA 0xe0000u   /* 0xe0000-0xfffff: where a guest without other word searches the RSDP */

enum boot_entry {
    BOOT_ENTRY_AUTO, /* bzImage: 32-bit; ELF: multiboot, PVH, then Linux's own, what is there first */
    BOOT_ENTRY_16,   /* bzImage only; without bios_services its setup code is given our own */
    BOOT_ENTRY_32,   /* bzImage */
    BOOT_ENTRY_64,   /* bzImage with XLF_KERNEL_64, 64-bit vmlinux */
};
#define BOOT_SEED_BYTES 32
struct boot_config {
    const char *kernel;           /* file name */
    const char *initrd;           /* file name; multiboot: "file args,file args" (",," is a comma). NULL: none */
    const char *append;           /* kernel command line. NULL: empty */
    const struct boot_range *map; /* ascending, no overlap; RAM ranges must be backed by gpmem */
    unsigned n_map;
    uint64_t
        rsdp_gpa; /* ACPI root pointer, 0: none. Its bytes must be in guest memory already (multiboot 2 copies them) */
    enum boot_entry entry;
    bool bios_services; /* firmware has set up interrupt vectors and the BIOS data area: both are left alone */
    bool vga_text;      /* an 80x25 text screen is at 0xb8000 */
    /* Opens a file for reading, for those who cannot at a reset; NULL: open(). The descriptor is the loader's to close. */
    int (*open_file)(void *opaque, const char *name);
    void *opaque;
    const uint8_t *rng_seed; /* BOOT_SEED_BYTES for the guest's random pool; NULL: the host's getrandom */
};
/* What was done, for logs and tests. */
struct boot_info {
    const char *protocol; /* "Linux 32-bit", "Linux 64-bit", "Linux 16-bit", "PVH", "multiboot", "multiboot 2" */
    uint64_t entry;       /* linear address of the first instruction */
    uint64_t info_gpa;    /* boot_params, hvm_start_info or multiboot information */
    uint64_t initrd_gpa, initrd_bytes; /* first module for multiboot */
};

/* cpu must be in its reset state; every field that the protocol defines is set, and the key. info may be NULL. */
int boot_load(const struct boot_config *cfg, struct gpmem *mem, struct cpu *cpu, struct boot_info *info, char *err,
              size_t errsz) __attribute__((warn_unused_result));

/* The PC's usual map for this much RAM: conventional memory, reserved 0x9fc00-0xfffff, RAM up to BOOT_RAM_HOLE with the last
 * acpi_bytes of it for ACPI tables, the rest from 4 GiB. ram_bytes and acpi_bytes are multiples of 4 KiB. Returns the number
 * of entries (at most 5). */
unsigned boot_default_map(uint64_t ram_bytes, uint64_t acpi_bytes, struct boot_range out[5]);
#endif
