/* devices/fwcfg.h - QEMU's firmware configuration device: keyed blobs for SeaBIOS, OVMF and option ROMs.
 *
 * Role:     selector port 0x510, data port 0x511, DMA address register 0x514 (INTERFACES.md C.5; QEMU docs/specs/fw_cfg).
 *           Items are read-only for the guest. Data is either owned here (copied) or made by a callback when the guest
 *           selects the item from its start.
 * Owner:    the board; all items are added before the guest runs (fwcfg_seal checks nothing is added later by accident).
 * State:    selector, offset and the DMA register are saved; items are configuration, rebuilt by the board.
 */
#ifndef DEVICES_FWCFG_H
#define DEVICES_FWCFG_H
#include "devices/dev.h"
#include "devices/gmem.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bus;
enum {
    FWCFG_SIGNATURE = 0x00,
    FWCFG_ID = 0x01,
    FWCFG_UUID = 0x02,
    FWCFG_RAM_SIZE = 0x03,
    FWCFG_NOGRAPHIC = 0x04,
    FWCFG_NB_CPUS = 0x05,
    FWCFG_KERNEL_ADDR = 0x07,
    FWCFG_KERNEL_SIZE = 0x08,
    FWCFG_INITRD_ADDR = 0x0a,
    FWCFG_INITRD_SIZE = 0x0b,
    FWCFG_BOOT_DEVICE = 0x0c,
    FWCFG_BOOT_MENU = 0x0e,
    FWCFG_MAX_CPUS = 0x0f,
    FWCFG_KERNEL_ENTRY = 0x10,
    FWCFG_KERNEL_DATA = 0x11,
    FWCFG_INITRD_DATA = 0x12,
    FWCFG_CMDLINE_ADDR = 0x13,
    FWCFG_CMDLINE_SIZE = 0x14,
    FWCFG_CMDLINE_DATA = 0x15,
    FWCFG_SETUP_ADDR = 0x16,
    FWCFG_SETUP_SIZE = 0x17,
    FWCFG_SETUP_DATA = 0x18,
    FWCFG_FILE_DIR = 0x19,
    FWCFG_FILE_FIRST = 0x20,
    FWCFG_ACPI_TABLES = 0x8000,
    FWCFG_SMBIOS_ENTRIES = 0x8001,
    FWCFG_IRQ0_OVERRIDE = 0x8002,
    FWCFG_E820_TABLE = 0x8003,
    FWCFG_HPET = 0x8004,
};
#define FWCFG_MAX_ITEMS 160
#define FWCFG_NAME_MAX 56 /* with the terminating zero */

/* Called when the guest selects the item: may replace *data (still owned by the callee) before the first byte is read. */
typedef void fwcfg_select_fn(void *opaque, const uint8_t **data, size_t *len);
struct fwcfg_item {
    uint16_t key;
    char name[FWCFG_NAME_MAX]; /* "" = known by key only */
    const uint8_t *data;
    uint8_t *owned; /* freed by fwcfg_fini, or NULL */
    size_t len;
    fwcfg_select_fn *on_select;
    void *opaque;
};
struct fwcfg {
    struct bus *bus;
    struct gmem mem;
    struct fwcfg_item items[FWCFG_MAX_ITEMS];
    unsigned count;
    uint16_t next_file;
    uint8_t *dir; /* file directory, rebuilt when a file is added */
    size_t dir_len;
    struct {
        uint16_t selector;
        uint32_t offset;
        uint64_t dma_addr;
    } s;
};
extern const struct dev_ops fwcfg_dev_ops;

/* Registers the ports and adds signature and id (DMA offered if mem->read is set). 0 or -RD_E_*. */
int fwcfg_init(struct fwcfg *f, struct bus *b, const struct gmem *mem);
void fwcfg_fini(struct fwcfg *f);
/* All return 0, -RD_E_INVAL (name too long or empty), -RD_E_BUSY (key or name taken), -RD_E_NOMEM (memory, or table full).
 * The data is copied, but for the _ref form, where it must outlive the device. */
int fwcfg_add_bytes(struct fwcfg *f, uint16_t key, const void *data, size_t len);
int fwcfg_add_ref(struct fwcfg *f, uint16_t key, const void *data, size_t len);
int fwcfg_add_string(struct fwcfg *f, uint16_t key, const char *s); /* with its zero */
int fwcfg_add_u16(struct fwcfg *f, uint16_t key, uint16_t v);
int fwcfg_add_u32(struct fwcfg *f, uint16_t key, uint32_t v);
int fwcfg_add_u64(struct fwcfg *f, uint16_t key, uint64_t v);
int fwcfg_add_file(struct fwcfg *f, const char *name, const void *data, size_t len);
int fwcfg_add_file_cb(struct fwcfg *f, const char *name, fwcfg_select_fn *fn, void *opaque, size_t len);
/* -fw_cfg [name=]NAME,file=PATH | [name=]NAME,string=TEXT ("opt/..." by convention). err: text for the user, for -RD_E_INVAL
 * and -RD_E_IO. */
int fwcfg_add_option(struct fwcfg *f, const char *arg, char *err, size_t err_len);
/* Finds a file by name: NULL, or the item (valid until the next add). */
const struct fwcfg_item *fwcfg_find_file(const struct fwcfg *f, const char *name);
#endif
