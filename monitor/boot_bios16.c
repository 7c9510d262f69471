/* monitor/boot_bios16.c - puts the real-mode services (bios16.S) where a kernel's 16-bit entry finds them: interrupt vectors,
 * the ROM area, the memory sizes and the map they report. */
#include "monitor/boot_int.h"

#define ROM_END 0x100000u
#define N_VECTORS 256u
#define E820_BYTES 20u
#define MIB_16 0x1000000u

/* ORDER bios16.S. Handlers are offsets from BIOS16_GPA. */
struct bios16_header {
    uint16_t e820_count, low_kib, high_64k, extended_kib;
    uint16_t ignore, master_irq, slave_irq;
    uint16_t int10, int11, int12, int13, int15, int16, no_boot, int1a;
    uint16_t pad;
    uint8_t e820[BOOT_MAX_RANGES][E820_BYTES];
};
extern const uint8_t bios16_image[], bios16_image_end[];

static int put_vectors(struct boot *b, const struct bios16_header *h)
{
    uint32_t ivt[N_VECTORS];
    for (unsigned v = 0; v < N_VECTORS; v++)
        ivt[v] = v >= 0x08 && v < 0x10 ? h->master_irq : v >= 0x70 && v < 0x78 ? h->slave_irq : h->ignore;
    ivt[0x10] = h->int10;
    ivt[0x11] = h->int11;
    ivt[0x12] = h->int12;
    ivt[0x13] = h->int13;
    ivt[0x15] = h->int15;
    ivt[0x16] = h->int16;
    ivt[0x18] = ivt[0x19] = h->no_boot;
    ivt[0x1a] = h->int1a;
    for (unsigned v = 0; v < N_VECTORS; v++)
        ivt[v] |= BIOS16_GPA >> 4 << 16;
    int r = boot_claim(b, "the interrupt vectors", 0, sizeof ivt);
    return r ? r : boot_write(b, 0, ivt, sizeof ivt);
}

static void put_sizes(const struct boot *b, struct bios16_header *h)
{
    uint32_t lower, upper, low = (MIB_16 - 0x100000) >> 10;
    boot_basic_mem(b, &lower, &upper);
    h->low_kib = (uint16_t)(upper < low ? upper : low);
    h->high_64k = (uint16_t)(upper < low ? 0 : (upper - low) >> 6);
    h->extended_kib = (uint16_t)(upper < 0xffff ? upper : 0xffff);
}

int boot_put_bios16(struct boot *b)
{
    struct bios16_header h;
    size_t bytes = (size_t)(bios16_image_end - bios16_image);
    memcpy(&h, bios16_image, sizeof h);
    if (bytes > ROM_END - BIOS16_GPA) /* the sources' fault, not the file's */
        return boot_fail(b, RD_E_RANGE, "the real-mode services do not fit");
    h.e820_count = (uint16_t)b->cfg->n_map;
    for (unsigned i = 0; i < b->cfg->n_map; i++)
        boot_e820_entry(&b->cfg->map[i], h.e820[i]);
    put_sizes(b, &h);
    /* Where the map has RAM there it must not be given away a second time; normally it is reserved. */
    int r = boot_ram_end(b, BIOS16_GPA) ? boot_claim(b, "the real-mode services", BIOS16_GPA, bytes) : 0;
    if (!r)
        r = boot_write(b, BIOS16_GPA, bios16_image, bytes);
    if (!r)
        r = boot_write(b, BIOS16_GPA, &h, sizeof h);
    if (!r)
        r = put_vectors(b, &h);
    b->own_services = !r;
    return r;
}
