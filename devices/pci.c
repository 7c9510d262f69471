/* devices/pci.c - configuration space, BAR mapping and interrupt routing of PCI bus 0. See pci.h. */
#include "devices/pci.h"
#include "base/check.h"
#include "base/err.h"
#include "base/log.h"
#include "devices/pci_int.h"
#include <string.h>

#define PORT_ADDRESS 0xcf8u
#define ADDRESS_ENABLE 0x80000000u
#define ADDRESS_WRITABLE 0x80fffffcu
#define COMMAND_WRITABLE 0x0547u
#define STATUS_W1C 0xf900u
#define BAR_NOWHERE UINT64_MAX
#define PHYS_LIMIT (1ull << 52)
#define ROUTE_OFF 0x80u
#define ROUTE_REGS 0x60u
/* ISA IRQs that the PIIX3 can route to (82371SB, PIRQRC): not 0, 1, 2, 8, 13 */
#define ROUTABLE 0xdef8u

uint16_t pci_get16(const struct pci_dev *d, unsigned at) { return (uint16_t)(d->cfg[at] | d->cfg[at + 1] << 8); }

uint32_t pci_get32(const struct pci_dev *d, unsigned at)
{
    uint32_t v;
    memcpy(&v, d->cfg + at, 4);
    return v;
}

void pci_set16(uint8_t *space, unsigned at, uint16_t v) { memcpy(space + at, &v, 2); }
void pci_set32(uint8_t *space, unsigned at, uint32_t v) { memcpy(space + at, &v, 4); }

/* -- building -- */
void pci_dev_init(struct pci_dev *d, const char *name, const struct pci_id *id)
{
    memset(d, 0, sizeof(*d));
    d->name = name;
    d->cap_next = 0x40;
    pci_set16(d->cfg, PCI_VENDOR, id->vendor);
    pci_set16(d->cfg, PCI_DEVICE, id->device);
    pci_set32(d->cfg, PCI_REVISION, id->class_code << 8 | id->revision);
    pci_set16(d->cfg, PCI_SUBSYSTEM_VENDOR, id->subsystem_vendor);
    pci_set16(d->cfg, PCI_SUBSYSTEM, id->subsystem);
    d->cfg[PCI_INT_PIN] = id->int_pin;
    pci_set16(d->wmask, PCI_COMMAND, COMMAND_WRITABLE);
    pci_set16(d->w1c, PCI_STATUS, STATUS_W1C);
    d->wmask[PCI_CACHE_LINE] = d->wmask[PCI_LATENCY] = d->wmask[PCI_INT_LINE] = 0xff;
    for (unsigned i = 0; i < PCI_BARS; i++)
        d->bar[i].handle = -1;
}

void pci_add_bar(struct pci_dev *d, unsigned index, enum pci_bar_type type, uint64_t size, const struct bus_ops *ops,
                 void *opaque)
{
    bool io = type == PCI_BAR_IO, wide = type == PCI_BAR_MEM64;
    unsigned at = PCI_BAR0 + 4 * index;
    CHECK(!d->bus && index + wide < PCI_BARS && !d->bar[index].type && size && !(size & (size - 1)));
    CHECK(io ? size >= 4 && size <= 256 : size >= 16 && (wide || size <= 0x80000000u));
    d->bar[index] = (struct pci_bar){.type = type, .size = size, .ops = ops, .opaque = opaque, .handle = -1};
    uint64_t mask = ~(size - 1);
    pci_set32(d->wmask, at, (uint32_t)mask);
    pci_set32(d->cfg, at, io ? 1 : wide ? 0xc : 0);
    if (wide)
        pci_set32(d->wmask, at + 4, (uint32_t)(mask >> 32));
}

unsigned pci_add_cap(struct pci_dev *d, uint8_t id, unsigned len)
{
    unsigned at = d->cap_next, room = (len + 3) & ~3u;
    CHECK(!d->bus && len >= 2 && at + room <= 0x100);
    d->cap_next = (uint8_t)(at + room);
    CHECK(d->cap_next); /* a list that ends exactly at 256 would wrap */
    d->cfg[at] = id;
    unsigned link = PCI_CAPABILITIES;
    while (d->cfg[link])
        link = d->cfg[link] + 1u;
    d->cfg[link] = (uint8_t)at;
    d->cfg[PCI_STATUS] |= PCI_STATUS_CAPS;
    return at;
}

int pci_add(struct pci_bus *b, struct pci_dev *d, uint8_t devfn)
{
    unsigned first = devfn & ~7u;
    if (b->dev[devfn])
        return -RD_E_BUSY;
    d->bus = b;
    d->devfn = devfn;
    b->dev[devfn] = d;
    memcpy(d->reset_cfg, d->cfg, sizeof(d->cfg));
    /* a slot with more than function 0 must say so in the header type of each */
    bool multi = false;
    for (unsigned i = first + 1; i < first + 8; i++)
        multi |= b->dev[i] != NULL;
    for (unsigned i = first; multi && i < first + 8; i++) {
        if (b->dev[i])
            b->dev[i]->cfg[PCI_HEADER] |= 0x80, b->dev[i]->reset_cfg[PCI_HEADER] |= 0x80;
    }
    pci_remap(b);
    return 0;
}

/* -- BARs -- */
static uint64_t bar_wanted(const struct pci_dev *d, unsigned i)
{
    const struct pci_bar *bar = &d->bar[i];
    unsigned at = PCI_BAR0 + 4 * i;
    uint16_t command = pci_get16(d, PCI_COMMAND);
    uint64_t addr = pci_get32(d, at) & ~(uint64_t)(bar->size - 1), last, limit = 1ull << 32;
    if (!bar->type || !(command & (bar->type == PCI_BAR_IO ? PCI_COMMAND_IO : PCI_COMMAND_MEM)))
        return BAR_NOWHERE;
    if (bar->type == PCI_BAR_IO)
        limit = 0x10000;
    if (bar->type == PCI_BAR_MEM64) {
        addr |= (uint64_t)pci_get32(d, at + 4) << 32;
        limit = PHYS_LIMIT;
    }
    last = addr + bar->size;
    /* zero means unassigned, and the top is what a BAR holds while it is being sized */
    return addr == 0 || last < addr || last >= limit ? BAR_NOWHERE : addr;
}

static void map_bar(struct pci_dev *d, unsigned i, uint64_t addr)
{
    struct pci_bar *bar = &d->bar[i];
    struct bus_range r = {d->name,    bar->type == PCI_BAR_IO ? BUS_PIO : BUS_MMIO, addr, bar->size, bar->ops,
                          bar->opaque};
    bar->handle = bus_add(d->bus->bus, &r);
    bar->mapped_at = addr;
    if (bar->handle < 0) {
        bar->handle = -1;
        LOGF(GUEST_ERRORS, "BAR %u of %s at %#llx overlaps something: not decoded", i, d->name,
             (unsigned long long)addr);
    }
}

/* Brings the bus in line with the configuration of every function: first all that moved goes, so that the rest finds room. */
void pci_remap(struct pci_bus *b)
{
    for (int pass = 0; pass < 2; pass++) {
        for (unsigned k = 0; k < 256 * PCI_BARS; k++) {
            struct pci_dev *d = b->dev[k / PCI_BARS];
            if (!d) {
                k += PCI_BARS - 1;
                continue;
            }
            struct pci_bar *bar = &d->bar[k % PCI_BARS];
            uint64_t want = bar_wanted(d, k % PCI_BARS);
            if (pass == 0 && bar->handle >= 0 && want != bar->mapped_at) {
                bus_remove(b->bus, bar->handle);
                bar->handle = -1;
            } else if (pass == 1 && bar->handle < 0 && want != BAR_NOWHERE) {
                map_bar(d, k % PCI_BARS, want);
            }
        }
    }
}

/* -- INTx -- */
static bool intx_asserted(const struct pci_dev *d)
{
    return d->intx && d->cfg[PCI_INT_PIN] && !(pci_get16(d, PCI_COMMAND) & PCI_COMMAND_INTX_OFF);
}

/* PIRQ levels are recomputed from the devices each time: there are few, and nothing can get out of step. */
static unsigned pirq_levels(const struct pci_bus *b)
{
    unsigned levels = 0;
    for (unsigned i = 0; i < 256; i++) {
        const struct pci_dev *d = b->dev[i];
        if (d && intx_asserted(d))
            levels |= 1u << pci_pirq(i >> 3, d->cfg[PCI_INT_PIN] - 1u);
    }
    return levels;
}

static uint16_t routed_isa(const struct pci_bus *b, unsigned levels)
{
    uint16_t isa = 0;
    for (unsigned i = 0; b->router && i < 4; i++) {
        uint8_t route = b->router->cfg[ROUTE_REGS + i];
        if ((levels >> i & 1) && !(route & ROUTE_OFF) && (ROUTABLE >> (route & 15) & 1))
            isa |= (uint16_t)(1u << (route & 15));
    }
    return isa;
}

void pci_update_irqs(struct pci_bus *b)
{
    unsigned levels = pirq_levels(b);
    uint16_t isa = routed_isa(b, levels), touched = isa | b->isa_driven;
    b->isa_driven = isa;
    for (unsigned i = 0; i < 4; i++)
        irq_set(&b->cfg.gsi[i], levels >> i & 1);
    for (unsigned i = 0; i < 16; i++) {
        if (touched >> i & 1)
            irq_set(&b->cfg.isa[i], isa >> i & 1);
    }
}

void pci_set_intx(struct pci_dev *d, bool level)
{
    if (d->intx == level)
        return;
    d->intx = level;
    d->cfg[PCI_STATUS] = (uint8_t)((d->cfg[PCI_STATUS] & ~PCI_STATUS_INTX) | (level ? PCI_STATUS_INTX : 0));
    pci_update_irqs(d->bus);
}

/* -- configuration accesses -- */
uint32_t pci_config_read(struct pci_bus *b, uint8_t devfn, unsigned offset, unsigned size)
{
    const struct pci_dev *d = b->dev[devfn];
    uint32_t v = 0;
    if (!d || offset + size > sizeof(d->cfg))
        return UINT32_MAX >> (32 - 8 * size);
    memcpy(&v, d->cfg + offset, size);
    return v;
}

static bool touches(unsigned offset, unsigned size, unsigned first, unsigned last)
{
    return offset <= last && offset + size > first;
}

static void after_write(struct pci_dev *d, unsigned offset, unsigned size)
{
    if (touches(offset, size, PCI_COMMAND, PCI_COMMAND + 1)) {
        pci_remap(d->bus);
        pci_update_irqs(d->bus);
    } else if (touches(offset, size, PCI_BAR0, PCI_BAR0 + 4 * PCI_BARS - 1)) {
        pci_remap(d->bus);
    }
    pci_msi_config_written(d, offset, size);
    if (d->config_changed)
        d->config_changed(d->opaque, offset, size);
}

void pci_config_write(struct pci_bus *b, uint8_t devfn, unsigned offset, unsigned size, uint32_t val)
{
    struct pci_dev *d = b->dev[devfn];
    if (!d || offset + size > sizeof(d->cfg))
        return;
    for (unsigned i = 0; i < size; i++) {
        uint8_t v = (uint8_t)(val >> 8 * i), *c = &d->cfg[offset + i], mask = d->wmask[offset + i];
        *c = (uint8_t)((*c & ~mask) | (v & mask));
        *c &= (uint8_t) ~(v & d->w1c[offset + i]);
    }
    after_write(d, offset, size);
}

static uint64_t ports_read(void *opaque, uint64_t offset, unsigned size)
{
    struct pci_bus *b = opaque;
    if (offset < 4) {
        if (offset == 0 && size == 4)
            return b->s.address;
        return offset == 1 && size == 1 && b->reset_read ? b->reset_read(b->reset_opaque) : UINT32_MAX;
    }
    uint32_t a = b->s.address;
    if (!(a & ADDRESS_ENABLE) || (a >> 16 & 0xff))
        return UINT32_MAX;
    return pci_config_read(b, (uint8_t)(a >> 8), (a & 0xfc) + (unsigned)(offset & 3), size);
}

static void ports_write(void *opaque, uint64_t offset, unsigned size, uint64_t val)
{
    struct pci_bus *b = opaque;
    uint32_t a = b->s.address;
    if (offset == 0 && size == 4)
        b->s.address = (uint32_t)val & ADDRESS_WRITABLE;
    else if (offset == 1 && size == 1 && b->reset_write)
        b->reset_write(b->reset_opaque, (uint8_t)val);
    else if (offset >= 4 && (a & ADDRESS_ENABLE) && !(a >> 16 & 0xff))
        pci_config_write(b, (uint8_t)(a >> 8), (a & 0xfc) + (unsigned)(offset & 3), size, (uint32_t)val);
}

static const struct bus_ops port_ops = {.read = ports_read, .write = ports_write, .max_size = 4};

int pci_bus_init(struct pci_bus *b, const struct pci_bus_cfg *cfg)
{
    memset(b, 0, sizeof(*b));
    b->cfg = *cfg;
    b->bus = cfg->bus;
    struct bus_range r = {"pci-config", BUS_PIO, PORT_ADDRESS, 8, &port_ops, b};
    int h = bus_add(cfg->bus, &r);
    return h < 0 ? h : 0;
}

void pci_bus_set_reset_port(struct pci_bus *b, uint8_t (*read)(void *), void (*write)(void *, uint8_t), void *opaque)
{
    b->reset_read = read;
    b->reset_write = write;
    b->reset_opaque = opaque;
}

/* -- reset and saved state -- */
static void pci_bus_reset(void *dev) { ((struct pci_bus *)dev)->s.address = 0; }

static void pci_bus_save(const void *dev, struct dev_writer *w)
{
    const struct pci_bus *b = dev;
    dev_put(w, b->s.address, 4);
}

static int pci_bus_restore(void *dev, struct dev_reader *r, uint16_t version)
{
    struct pci_bus *b = dev;
    uint32_t address = (uint32_t)dev_get(r, 4);
    if (r->failed || address & ~ADDRESS_WRITABLE)
        return -RD_E_FORMAT;
    b->s.address = address;
    return 0;
}

const struct dev_ops pci_bus_dev_ops = {
    .type = "pci-bus",
    .version = 1,
    .reset = pci_bus_reset,
    .save = pci_bus_save,
    .restore = pci_bus_restore,
};

static void pci_dev_reset(void *dev)
{
    struct pci_dev *d = dev;
    memcpy(d->cfg, d->reset_cfg, sizeof(d->cfg));
    d->intx = false;
    pci_msix_reset(d);
    pci_remap(d->bus);
    pci_update_irqs(d->bus);
    if (d->config_changed)
        d->config_changed(d->opaque, 0, sizeof(d->cfg));
}

static void pci_dev_save(const void *dev, struct dev_writer *w)
{
    const struct pci_dev *d = dev;
    dev_put_bytes(w, d->cfg, sizeof(d->cfg));
    dev_put(w, d->intx, 1);
    dev_put(w, d->msix_vectors, 2);
    dev_put_bytes(w, d->msix_table, 16u * d->msix_vectors);
    dev_put(w, d->msix_pending, 8);
}

/* Only bits that the guest could have changed are taken; any other difference means another machine's image. */
static bool valid_config(const struct pci_dev *d, const uint8_t in[256])
{
    for (unsigned i = 0; i < 256; i++) {
        uint8_t may = d->wmask[i] | d->w1c[i];
        if (i == PCI_STATUS)
            may |= PCI_STATUS_INTX;
        if (d->msi_cap && i >= d->msi_cap + PCI_MSI_PENDING && i < d->msi_cap + PCI_MSI_PENDING + 4u)
            may = 0xff;
        if ((in[i] ^ d->reset_cfg[i]) & ~may)
            return false;
    }
    return true;
}

static int pci_dev_restore(void *dev, struct dev_reader *r, uint16_t version)
{
    struct pci_dev *d = dev;
    uint8_t cfg[256], table[sizeof(d->msix_table)] = {0};
    dev_get_bytes(r, cfg, sizeof(cfg));
    uint64_t intx = dev_get(r, 1);
    if (dev_get(r, 2) != d->msix_vectors || r->failed || intx > 1 || !valid_config(d, cfg))
        return -RD_E_FORMAT;
    dev_get_bytes(r, table, 16u * d->msix_vectors);
    uint64_t pending = dev_get(r, 8);
    if (r->failed || (d->msix_vectors < 64 && pending >> d->msix_vectors))
        return -RD_E_FORMAT;
    memcpy(d->cfg, cfg, sizeof(cfg));
    memcpy(d->msix_table, table, sizeof(table));
    d->intx = intx;
    d->msix_pending = pending;
    d->bus->isa_driven = routed_isa(d->bus, pirq_levels(d->bus));
    pci_remap(d->bus);
    if (d->config_changed)
        d->config_changed(d->opaque, 0, sizeof(d->cfg));
    return 0;
}

const struct dev_ops pci_dev_dev_ops = {
    .type = "pci-dev",
    .version = 1,
    .reset = pci_dev_reset,
    .save = pci_dev_save,
    .restore = pci_dev_restore,
};
