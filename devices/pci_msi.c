/* devices/pci_msi.c - message-signalled interrupts of a PCI function: MSI and MSI-X (PCI 3.0 section 6.8). */
#include "base/check.h"
#include "devices/pci_int.h"
#include <string.h>

enum { CONTROL = 0x02, ADDRESS = 0x04, ADDRESS_HIGH = 0x08, DATA = 0x0c, MASK = 0x10 };
#define MSI_ENABLE 0x0001u
#define MSI_64BIT 0x0080u
#define MSI_MASKABLE 0x0100u
#define MSI_CAP_BYTES 0x18u
#define MSIX_ENABLE 0x8000u
#define MSIX_MASK_ALL 0x4000u
#define MSIX_CAP_BYTES 0x0cu
#define MSIX_BAR_BYTES 0x1000u
#define MSIX_PBA_OFFSET 0x800u
#define ENTRY_BYTES 16u
#define ENTRY_MASKED 1u

static void send(struct pci_dev *d, uint64_t addr, uint32_t data)
{
    const struct pci_bus_cfg *c = &d->bus->cfg;
    if (c->msi)
        c->msi(c->msi_opaque, addr, data);
}

/* -- MSI -- */
void pci_add_msi(struct pci_dev *d, unsigned vectors)
{
    CHECK(vectors && vectors <= 32 && !(vectors & (vectors - 1)) && !d->msi_cap);
    unsigned at = pci_add_cap(d, PCI_CAP_MSI, MSI_CAP_BYTES), log2 = (unsigned)__builtin_ctz(vectors);
    d->msi_cap = (uint8_t)at;
    pci_set16(d->cfg, at + CONTROL, (uint16_t)(MSI_64BIT | MSI_MASKABLE | log2 << 1));
    pci_set16(d->wmask, at + CONTROL, MSI_ENABLE | 0x70);
    pci_set32(d->wmask, at + ADDRESS, 0xfffffffc);
    pci_set32(d->wmask, at + ADDRESS_HIGH, UINT32_MAX);
    pci_set16(d->wmask, at + DATA, 0xffff);
    pci_set32(d->wmask, at + MASK, vectors == 32 ? UINT32_MAX : (1u << vectors) - 1);
}

bool pci_msi_enabled(const struct pci_dev *d)
{
    return d->msi_cap && (pci_get16(d, d->msi_cap + CONTROL) & MSI_ENABLE);
}

/* Vectors that the guest allowed: the field may hold more than the function asked for. */
static unsigned msi_allocated(const struct pci_dev *d)
{
    uint16_t control = pci_get16(d, d->msi_cap + CONTROL);
    unsigned asked = control >> 1 & 7, given = control >> 4 & 7;
    return 1u << (given < asked ? given : asked);
}

void pci_msi_notify(struct pci_dev *d, unsigned vector)
{
    unsigned at = d->msi_cap;
    if (!pci_msi_enabled(d))
        return;
    unsigned n = msi_allocated(d), v = vector & (n - 1);
    uint32_t bit = 1u << v, pending = pci_get32(d, at + PCI_MSI_PENDING);
    if (pci_get32(d, at + MASK) & bit) {
        pci_set32(d->cfg, at + PCI_MSI_PENDING, pending | bit);
        return;
    }
    pci_set32(d->cfg, at + PCI_MSI_PENDING, pending & ~bit);
    uint64_t addr = pci_get32(d, at + ADDRESS) | (uint64_t)pci_get32(d, at + ADDRESS_HIGH) << 32;
    send(d, addr, (pci_get16(d, at + DATA) & ~(n - 1)) | v);
}

/* -- MSI-X -- */
static uint32_t entry_word(const struct pci_dev *d, unsigned vector, unsigned word)
{
    uint32_t v;
    memcpy(&v, d->msix_table + vector * ENTRY_BYTES + word * 4, 4);
    return v;
}

bool pci_msix_enabled(const struct pci_dev *d)
{
    return d->msix_cap && (pci_get16(d, d->msix_cap + CONTROL) & MSIX_ENABLE);
}

void pci_msix_notify(struct pci_dev *d, unsigned vector)
{
    if (!pci_msix_enabled(d) || vector >= d->msix_vectors)
        return;
    if ((pci_get16(d, d->msix_cap + CONTROL) & MSIX_MASK_ALL) || (entry_word(d, vector, 3) & ENTRY_MASKED)) {
        d->msix_pending |= 1ull << vector;
        return;
    }
    d->msix_pending &= ~(1ull << vector);
    send(d, entry_word(d, vector, 0) | (uint64_t)entry_word(d, vector, 1) << 32, entry_word(d, vector, 2));
}

/* Sends what became deliverable. Pending bits that stay blocked are set again by notify. */
static void msix_send_pending(struct pci_dev *d)
{
    uint64_t pending = pci_msix_enabled(d) ? d->msix_pending : 0;
    for (unsigned v = 0; pending; v++, pending >>= 1) {
        if (pending & 1)
            pci_msix_notify(d, v);
    }
}

static uint64_t msix_read(void *opaque, uint64_t offset, unsigned size)
{
    const struct pci_dev *d = opaque;
    uint64_t v = 0;
    if (offset + size <= ENTRY_BYTES * d->msix_vectors)
        memcpy(&v, d->msix_table + offset, size);
    else if (offset >= MSIX_PBA_OFFSET && offset + size <= MSIX_PBA_OFFSET + 8)
        memcpy(&v, (const uint8_t *)&d->msix_pending + (offset - MSIX_PBA_OFFSET), size);
    return v;
}

static void msix_write(void *opaque, uint64_t offset, unsigned size, uint64_t val)
{
    struct pci_dev *d = opaque;
    if (size < 4 || offset + size > ENTRY_BYTES * d->msix_vectors)
        return; /* narrower accesses are undefined (6.8.2), the pending bits read-only */
    memcpy(d->msix_table + offset, &val, size);
    uint8_t *control = d->msix_table + (offset & ~(ENTRY_BYTES - 1ull)) + 12;
    control[0] &= ENTRY_MASKED;
    control[1] = control[2] = control[3] = 0;
    msix_send_pending(d);
}

static const struct bus_ops msix_ops = {.read = msix_read, .write = msix_write, .max_size = 8};

void pci_msix_reset(struct pci_dev *d)
{
    memset(d->msix_table, 0, sizeof(d->msix_table));
    for (unsigned i = 0; i < d->msix_vectors; i++)
        d->msix_table[i * ENTRY_BYTES + 12] = ENTRY_MASKED;
    d->msix_pending = 0;
}

void pci_add_msix(struct pci_dev *d, unsigned bar, unsigned vectors)
{
    CHECK(vectors && vectors <= PCI_MSIX_MAX && !d->msix_cap);
    pci_add_bar(d, bar, PCI_BAR_MEM32, MSIX_BAR_BYTES, &msix_ops, d);
    unsigned at = pci_add_cap(d, PCI_CAP_MSIX, MSIX_CAP_BYTES);
    d->msix_cap = (uint8_t)at;
    d->msix_vectors = (uint16_t)vectors;
    pci_set16(d->cfg, at + CONTROL, (uint16_t)(vectors - 1));
    pci_set16(d->wmask, at + CONTROL, MSIX_ENABLE | MSIX_MASK_ALL);
    pci_set32(d->cfg, at + 4, bar);
    pci_set32(d->cfg, at + 8, MSIX_PBA_OFFSET | bar);
    pci_msix_reset(d);
}

void pci_msi_config_written(struct pci_dev *d, unsigned offset, unsigned size)
{
    if (d->msix_cap && offset < d->msix_cap + 4u && offset + size > d->msix_cap)
        msix_send_pending(d);
    if (d->msi_cap && offset < d->msi_cap + MSI_CAP_BYTES && offset + size > d->msi_cap) {
        uint32_t ready = pci_get32(d, d->msi_cap + PCI_MSI_PENDING) & ~pci_get32(d, d->msi_cap + MASK);
        for (unsigned v = 0; ready; v++, ready >>= 1) {
            if (ready & 1)
                pci_msi_notify(d, v);
        }
    }
}
