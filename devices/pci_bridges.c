/* devices/pci_bridges.c - i440FX host bridge, PIIX3 ISA bridge, and the set-up that a BIOS would do. See pci.h. */
#include "base/log.h"
#include "devices/pci_int.h"
#include <string.h>

#define PAM0 0x59u
#define PAM_REGS 7u
#define SMRAM 0x72u
#define ROUTE_REGS 0x60u
#define IO_FIRST 0xc000u /* above what legacy devices use */

static void host_config_changed(void *opaque, unsigned offset, unsigned bytes)
{
    struct i440fx *h = opaque;
    if (h->pam_changed && offset < PAM0 + PAM_REGS && offset + bytes > PAM0)
        h->pam_changed(h->opaque);
}

int i440fx_init(struct i440fx *h, struct pci_bus *b)
{
    static const struct pci_id id = {.vendor = 0x8086, .device = 0x1237, .revision = 2, .class_code = 0x060000};
    memset(h, 0, sizeof(*h));
    pci_dev_init(&h->pci, "i440fx", &id);
    h->pci.config_changed = host_config_changed;
    h->pci.opaque = h;
    pci_set16(h->pci.cfg, PCI_COMMAND, PCI_COMMAND_MEM | PCI_COMMAND_MASTER);
    pci_set16(h->pci.wmask, PCI_COMMAND, 0);
    memset(h->pci.wmask + PAM0, 0x33, PAM_REGS);
    h->pci.wmask[PAM0] = 0x30;
    h->pci.cfg[SMRAM] = 0x02;
    h->pci.wmask[SMRAM] = 0x7f;
    return pci_add(b, &h->pci, PCI_DEVFN(PCI_SLOT_HOST, 0));
}

unsigned i440fx_pam(const struct i440fx *h, unsigned i)
{
    if (i == 12)
        return h->pci.cfg[PAM0] >> 4 & 3;
    return i < 12 ? h->pci.cfg[PAM0 + 1 + i / 2] >> (i & 1 ? 4 : 0) & 3 : 0;
}

static void isa_config_changed(void *opaque, unsigned offset, unsigned bytes)
{
    struct piix3 *p = opaque;
    if (offset < ROUTE_REGS + 4 && offset + bytes > ROUTE_REGS && bytes < 256)
        pci_update_irqs(p->pci.bus);
}

int piix3_init(struct piix3 *p, struct pci_bus *b)
{
    static const struct pci_id id = {.vendor = 0x8086, .device = 0x7000, .class_code = 0x060100};
    memset(p, 0, sizeof(*p));
    pci_dev_init(&p->pci, "piix3", &id);
    p->pci.config_changed = isa_config_changed;
    p->pci.opaque = p;
    pci_set16(p->pci.cfg, PCI_COMMAND, PCI_COMMAND_IO | PCI_COMMAND_MEM | PCI_COMMAND_MASTER);
    pci_set16(p->pci.wmask, PCI_COMMAND, 0);
    pci_set16(p->pci.cfg, PCI_STATUS, 0x0200); /* medium decode */
    p->pci.cfg[PCI_HEADER] = 0x80;             /* always a multi-function part */
    memset(p->pci.wmask + 0x40, 0xff,
           0xc0); /* board set-up registers: kept for the guest, without effect but the routing */
    memset(p->pci.wmask + ROUTE_REGS, 0x8f, 4);
    memset(p->pci.cfg + ROUTE_REGS, 0x80, 4);
    b->router = &p->pci;
    return pci_add(b, &p->pci, PCI_DEVFN(PCI_SLOT_ISA, 0));
}

/* -- firmware's part -- */
struct space {
    uint64_t next, last;
};

static bool place(struct pci_dev *d, unsigned i, struct space *s)
{
    const struct pci_bar *bar = &d->bar[i];
    uint64_t at = (s->next + bar->size - 1) & ~(bar->size - 1);
    if (at + bar->size - 1 > s->last || at < s->next)
        return false;
    s->next = at + bar->size;
    pci_config_write(d->bus, d->devfn, PCI_BAR0 + 4 * i, 4, (uint32_t)at);
    if (bar->type == PCI_BAR_MEM64)
        pci_config_write(d->bus, d->devfn, PCI_BAR0 + 4 * i + 4, 4, (uint32_t)(at >> 32));
    return true;
}

static void place_bars(struct pci_dev *d, struct space *io, struct space *mem)
{
    bool placed = false;
    for (unsigned i = 0; i < PCI_BARS; i++) {
        if (!d->bar[i].type)
            continue;
        bool ok = place(d, i, d->bar[i].type == PCI_BAR_IO ? io : mem);
        placed |= ok;
        if (!ok)
            LOGF(BOOT, "no room for BAR %u of %s (%llu bytes)", i, d->name, (unsigned long long)d->bar[i].size);
    }
    if (placed)
        pci_config_write(d->bus, d->devfn, PCI_COMMAND, 2,
                         pci_get16(d, PCI_COMMAND) | PCI_COMMAND_IO | PCI_COMMAND_MEM);
}

void pci_firmware_setup(struct pci_bus *b, uint32_t mem_first, uint32_t mem_last)
{
    static const uint8_t route[4] = {10, 10, 11, 11};
    struct space io = {IO_FIRST, 0xffff}, mem = {mem_first, mem_last};
    for (unsigned i = 0; b->router && i < 4; i++)
        pci_config_write(b, b->router->devfn, ROUTE_REGS + i, 1, route[i]);
    for (unsigned devfn = 0; devfn < 256; devfn++) {
        struct pci_dev *d = b->dev[devfn];
        if (!d)
            continue;
        place_bars(d, &io, &mem);
        if (d->cfg[PCI_INT_PIN])
            pci_config_write(b, (uint8_t)devfn, PCI_INT_LINE, 1, route[pci_pirq(devfn >> 3, d->cfg[PCI_INT_PIN] - 1u)]);
    }
}
