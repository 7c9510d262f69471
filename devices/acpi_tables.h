/* devices/acpi_tables.h - the ACPI tables of the PC: RSDP, RSDT, XSDT, FADT, FACS, DSDT, MADT, HPET, WAET.
 *
 * Role:     builds them once, position-independent, with the list of pointers and checksums to be fixed up. Then either
 *           acpi_place() makes the image for a kernel started without firmware, or acpi_export() hands them to SeaBIOS/OVMF
 *           in the etc/table-loader format, and the firmware places them.
 * Routing:  the DSDT's _PRT follows _PIC: in APIC mode INTx goes to GSI 16..19 directly, in PIC mode through the PIIX3's
 *           PIRQ registers (LNKA..LNKD). The same function pci.h documents decides both.
 * Sources:  ACPI 6.4, 5.2 (tables), 6.2.13 (_PRT); QEMU's bios-linker-loader for the loader commands.
 */
#ifndef DEVICES_ACPI_TABLES_H
#define DEVICES_ACPI_TABLES_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fwcfg;
struct acpi_cfg {
    unsigned cpus;                        /* APIC ids 0..cpus-1 */
    uint8_t ioapic_id;                    /* 0 = one past the last CPU */
    uint32_t cpu_signature, cpu_features; /* CPUID leaf 1 EAX and EDX, for the MP table */
    uint8_t com_mask;                     /* bit n: COMn+1 is there */
    bool ps2, rtc, hpet, fwcfg;
    uint16_t pm_base;                   /* 0 = ACPI_PM_BASE_DEFAULT */
    uint32_t hole32_first, hole32_last; /* PCI memory window below 4 GiB, inclusive */
    uint64_t hole64_first, hole64_last; /* above RAM; both 0 = none */
};
#define ACPI_MAX_CPUS 64
#define ACPI_MAX_FIXUPS 32
struct acpi_blob {
    uint8_t *tables; /* offset 0 is where the loader puts them, 64-byte aligned */
    size_t len;
    uint8_t rsdp[36];
    struct acpi_pointer {
        bool in_rsdp; /* else in tables */
        uint32_t at;
        uint8_t size; /* 4 or 8 bytes; the value there is an offset into tables */
    } ptr[ACPI_MAX_FIXUPS];
    unsigned ptrs;
    struct acpi_sum {
        bool in_rsdp;
        uint32_t at, start, len; /* byte `at` makes the sum of [start, start+len) zero */
    } sum[ACPI_MAX_FIXUPS];
    unsigned sums;
};
/* 0, -RD_E_INVAL (too many CPUs, empty window), -RD_E_NOMEM. */
int acpi_build(struct acpi_blob *b, const struct acpi_cfg *cfg);
void acpi_free(struct acpi_blob *b);
/* Bytes that acpi_place needs. */
size_t acpi_image_bytes(const struct acpi_blob *b);
/* Writes the finished image for guest physical address gpa (64-byte aligned, below 4 GiB) into out: the RSDP first, so it is
 * found at gpa by a scan of 0xe0000-0xfffff. 0 or -RD_E_INVAL. */
int acpi_place(const struct acpi_blob *b, uint32_t gpa, uint8_t *out, size_t cap);
/* Adds etc/acpi/tables, etc/acpi/rsdp and etc/table-loader. */
int acpi_export(const struct acpi_blob *b, struct fwcfg *fw);

/* Intel MultiProcessor Specification 1.4 tables (floating pointer first) for guests that run without ACPI: same routing as APIC
 * mode. gpa must be in 0xf0000-0xfffff or the last KiB of base memory, 16-byte aligned. Returns the bytes used, or -RD_E_*. */
long mptable_build(const struct acpi_cfg *cfg, uint32_t gpa, uint8_t *out, size_t cap);
#endif
