/* devices/board_pc_fw.c - what a BIOS would have left behind, for kernels started without one; and what a BIOS would read. */
#include "base/check.h"
#include "base/err.h"
#include "devices/acpi_tables.h"
#include "devices/board_pc_int.h"
#include <stdlib.h>
#include <string.h>

#define PCI_HOLE_LAST 0xfebfffffu /* below the IOAPIC */
#define ACPI_ROOM (BOARD_MPTABLE_GPA - BOARD_ACPI_GPA)
#define MPTABLE_ROOM 0x4000u
/* BIOS data area (IBM PC AT technical reference) */
#define BDA 0x400u
#define BDA_COM 0x00u
#define BDA_EBDA_SEGMENT 0x0eu
#define BDA_EQUIPMENT 0x10u
#define BDA_BASE_KIB 0x13u
#define EBDA 0x9fc00u
#define CMOS_EQUIPMENT 0x14u

uint32_t board_pc_pci_hole(const struct board_pc *b)
{
    return b->cfg.ram_bytes < BOARD_RAM_HOLE ? (uint32_t)b->cfg.ram_bytes : BOARD_RAM_HOLE;
}

static uint64_t ram_above_4g(const struct board_pc *b)
{
    return b->cfg.ram_bytes > BOARD_RAM_HOLE ? b->cfg.ram_bytes - BOARD_RAM_HOLE : 0;
}

/* PCI windows begin on a round address above RAM: kernels round up what they find after RAM, too. */
uint32_t board_pc_pci_first(const struct board_pc *b)
{
    uint32_t end = board_pc_pci_hole(b), unit = 0x10000000;
    return end < 0x80000000u ? 0x80000000u : (end + unit - 1) & ~(unit - 1);
}

static struct acpi_cfg table_cfg(const struct board_pc *b)
{
    struct acpi_cfg c = {
        .cpus = 1,
        .cpu_signature = b->cfg.cpu_signature,
        .cpu_features = b->cfg.cpu_features,
        .ps2 = true,
        .rtc = true,
        .hpet = b->cfg.hpet,
        .fwcfg = true,
        .hole32_first = board_pc_pci_first(b),
        .hole32_last = PCI_HOLE_LAST,
    };
    for (unsigned i = 0; i < BOARD_SERIALS; i++)
        c.com_mask |= (uint8_t)(b->cfg.serial[i].present << i);
    return c;
}

/* ---- firmware's view of the machine: fw_cfg, CMOS ---- */

static int add_e820(struct board_pc *b)
{
    struct __attribute__((packed)) {
        uint64_t base, len;
        uint32_t type;
    } e[2] = {{0, board_pc_pci_hole(b), 1}, {1ull << 32, ram_above_4g(b), 1}};
    return fwcfg_add_file(&b->fwcfg, "etc/e820", e, sizeof e[0] * (e[1].len ? 2 : 1));
}

static int add_acpi(struct board_pc *b)
{
    struct acpi_blob blob;
    struct acpi_cfg c = table_cfg(b);
    int rc = acpi_build(&blob, &c);
    if (rc)
        return rc;
    rc = acpi_export(&blob, &b->fwcfg);
    acpi_free(&blob);
    return rc;
}

int board_fw_init(struct board_pc *b)
{
    struct fwcfg *f = &b->fwcfg;
    int rc = fwcfg_add_u64(f, FWCFG_RAM_SIZE, b->cfg.ram_bytes);
    if (!rc)
        rc = fwcfg_add_u16(f, FWCFG_NB_CPUS, 1);
    if (!rc)
        rc = fwcfg_add_u16(f, FWCFG_MAX_CPUS, 1);
    if (!rc)
        rc = fwcfg_add_u16(f, FWCFG_NOGRAPHIC, 1);
    if (!rc)
        rc = fwcfg_add_u16(f, FWCFG_BOOT_MENU, 0);
    if (!rc)
        rc = add_e820(b);
    if (!rc)
        rc = add_acpi(b);
    rtc_set_ram(&b->rtc, CMOS_EQUIPMENT, 0x06); /* FPU, mouse; no floppy, no display */
    rtc_set_memory_size(&b->rtc, board_pc_pci_hole(b), ram_above_4g(b));
    return rc;
}

/* ---- what it leaves ---- */

static int put(struct board_pc *b, uint64_t gpa, const void *data, size_t bytes)
{
    return gmem_write(&b->cfg.mem, gpa, data, bytes);
}

static int put16(struct board_pc *b, uint64_t gpa, uint16_t v) { return put(b, gpa, &v, sizeof v); }

static int put_bios_data(struct board_pc *b)
{
    static const uint16_t com[BOARD_SERIALS] = {0x3f8, 0x2f8, 0x3e8, 0x2e8};
    uint8_t zero[0x100] = {0}, ebda_kib = 1;
    unsigned n = 0;
    int rc = put(b, BDA, zero, sizeof zero);
    for (unsigned i = 0; i < BOARD_SERIALS && !rc; i++)
        if (b->cfg.serial[i].present)
            rc = put16(b, BDA + BDA_COM + 2 * n++, com[i]);
    if (!rc)
        rc = put16(b, BDA + BDA_EBDA_SEGMENT, EBDA >> 4);
    if (!rc)
        rc = put16(b, BDA + BDA_EQUIPMENT, (uint16_t)(0x06 | n << 9));
    if (!rc)
        rc = put16(b, BDA + BDA_BASE_KIB, EBDA >> 10);
    return rc ? rc : put(b, EBDA, &ebda_kib, 1);
}

static int put_acpi(struct board_pc *b)
{
    struct acpi_blob blob;
    struct acpi_cfg c = table_cfg(b);
    int rc = acpi_build(&blob, &c);
    if (rc)
        return rc;
    size_t n = acpi_image_bytes(&blob);
    uint8_t *image = malloc(n);
    rc = !image ? -RD_E_NOMEM : n > ACPI_ROOM ? -RD_E_RANGE : acpi_place(&blob, BOARD_ACPI_GPA, image, n);
    if (!rc)
        rc = put(b, BOARD_ACPI_GPA, image, n);
    free(image);
    acpi_free(&blob);
    return rc;
}

static int put_mptable(struct board_pc *b)
{
    struct acpi_cfg c = table_cfg(b);
    uint8_t table[MPTABLE_ROOM];
    long n = mptable_build(&c, BOARD_MPTABLE_GPA, table, sizeof table);
    return n < 0 ? (int)n : put(b, BOARD_MPTABLE_GPA, table, (size_t)n);
}

/* Interrupt controllers as an AT BIOS programs them: vectors 08h and 70h, everything masked but the cascade. */
static void set_up_pics(struct board_pc *b)
{
    static const struct {
        uint16_t port;
        uint8_t val;
    } seq[] = {{0x20, 0x11}, {0x21, 0x08}, {0x21, 0x04}, {0x21, 0x01}, {0x21, 0xfb},
               {0xa0, 0x11}, {0xa1, 0x70}, {0xa1, 0x02}, {0xa1, 0x01}, {0xa1, 0xff}};
    for (unsigned i = 0; i < sizeof seq / sizeof seq[0]; i++)
        bus_pio_write(b->bus, seq[i].port, 1, seq[i].val);
    pic_set_elcr(&b->pic, 1u << ACPI_SCI_IRQ | 1u << 10 | 1u << 11);
}

int board_pc_firmware_setup(struct board_pc *b)
{
    set_up_pics(b);
    pci_firmware_setup(&b->pci, board_pc_pci_first(b), PCI_HOLE_LAST);
    piix4_pm_firmware_setup(&b->pm_function);
    int rc = put_bios_data(b);
    if (!rc)
        rc = put_acpi(b);
    return rc ? rc : put_mptable(b);
}
