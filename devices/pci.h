/* devices/pci.h - PCI bus 0: configuration mechanism 1, BARs, INTx routing, MSI and MSI-X; i440FX host bridge and PIIX3.
 *
 * Role:     struct pci_dev is the configuration space of one function; a chip embeds it, fills it in (pci_dev_init, pci_add_*)
 *           and plugs it in with pci_add; from then on that image is its reset state. BARs are mapped on the bus, moved and
 *           unmapped as the guest writes them; a BAR that overlaps something is not decoded until there is room.
 * Routing:  INTx of a slot goes to PIRQ (slot + pin - 1) & 3 (as the PIIX boards have it), and a PIRQ drives two wires at once:
 *           the ISA IRQ in the PIIX3's register 60h+PIRQ (8259, and the IOAPIC pin of that IRQ), and IOAPIC pin 16+PIRQ. ACPI's _PRT
 *           and the MP table name the latter, PIC-mode guests and SeaBIOS's tables the former; guests mask the one they do not use.
 * MSI:      a memory write to 0xfeexxxxx, handed to cfg.msi (apic_bus_msi).
 * Hostile:  every register byte has a write mask; sizes, addresses and vectors are checked where they are used.
 * Threads:  machine thread. Sources: PCI 2.3, PCI-X addendum for MSI-X (PCI 3.0 6.8), 82441FX and 82371SB data sheets.
 */
#ifndef DEVICES_PCI_H
#define DEVICES_PCI_H
#include "devices/bus.h"
#include "devices/dev.h"
#include "devices/irq.h"
#include <stdbool.h>
#include <stdint.h>

#define PCI_SLOTS 32
#define PCI_SLOT_HOST 0
#define PCI_SLOT_ISA 1
#define PCI_DEVFN(slot, fn) ((uint8_t)((slot) << 3 | (fn)))
#define PCI_GSI_FIRST 16
#define PCI_PIRQ_CHOICES (1u << 5 | 1u << 10 | 1u << 11) /* ISA IRQs that the links offer */
/* pin: 0 = INTA. */
static inline unsigned pci_pirq(unsigned slot, unsigned pin) { return (slot + pin + 3) & 3; }

enum {
    PCI_VENDOR = 0x00,
    PCI_DEVICE = 0x02,
    PCI_COMMAND = 0x04,
    PCI_STATUS = 0x06,
    PCI_REVISION = 0x08,
    PCI_CLASS = 0x09,
    PCI_CACHE_LINE = 0x0c,
    PCI_LATENCY = 0x0d,
    PCI_HEADER = 0x0e,
    PCI_BAR0 = 0x10,
    PCI_SUBSYSTEM_VENDOR = 0x2c,
    PCI_SUBSYSTEM = 0x2e,
    PCI_CAPABILITIES = 0x34,
    PCI_INT_LINE = 0x3c,
    PCI_INT_PIN = 0x3d,
};
#define PCI_COMMAND_IO 0x0001u
#define PCI_COMMAND_MEM 0x0002u
#define PCI_COMMAND_MASTER 0x0004u
#define PCI_COMMAND_INTX_OFF 0x0400u
#define PCI_STATUS_INTX 0x0008u
#define PCI_STATUS_CAPS 0x0010u
#define PCI_CAP_MSI 0x05
#define PCI_CAP_VENDOR 0x09
#define PCI_CAP_MSIX 0x11
#define PCI_BARS 6
#define PCI_MSIX_MAX 64

enum pci_bar_type { PCI_BAR_NONE, PCI_BAR_IO, PCI_BAR_MEM32, PCI_BAR_MEM64 /* uses two, prefetchable */ };
struct pci_bar {
    enum pci_bar_type type;
    uint64_t size;
    const struct bus_ops *ops;
    void *opaque;
    int handle; /* on the bus, -1 = not mapped */
    uint64_t mapped_at;
};
struct pci_id {
    uint16_t vendor, device, subsystem_vendor, subsystem;
    uint32_t class_code; /* 24 bits: class, subclass, interface */
    uint8_t revision, int_pin /* 0 = none, 1 = INTA */;
};
struct pci_bus;
struct pci_dev {
    const char *name;
    struct pci_bus *bus; /* set by pci_add */
    uint8_t devfn;
    uint8_t cfg[256], reset_cfg[256], wmask[256], w1c[256];
    struct pci_bar bar[PCI_BARS];
    /* The guest wrote configuration bytes [offset, offset + bytes); also called after reset and restore with (0, 256). */
    void (*config_changed)(void *opaque, unsigned offset, unsigned bytes);
    void *opaque;
    uint8_t cap_next, msi_cap, msix_cap; /* offsets; 0 = none */
    uint16_t msix_vectors;
    bool intx; /* level the device drives */
    uint8_t msix_table[PCI_MSIX_MAX * 16];
    uint64_t msix_pending;
};
extern const struct dev_ops pci_dev_dev_ops; /* one row per function; reset and state of the configuration space */

struct pci_bus_cfg {
    struct bus *bus;
    struct irq_line
        isa[16]; /* to both the 8259s and the IOAPIC pins of the ISA IRQs (shared with ISA devices: use irq_or) */
    struct irq_line gsi[4]; /* IOAPIC pins 16-19 */
    void (*msi)(void *opaque, uint64_t addr, uint32_t data);
    void *msi_opaque;
};
struct pci_bus {
    struct bus *bus;
    struct pci_bus_cfg cfg;
    struct pci_dev *dev[256];
    struct pci_dev *router; /* the PIIX3: routing registers at 60h */
    uint16_t isa_driven;    /* IRQs that were raised here */
    uint8_t (*reset_read)(void *opaque);
    void (*reset_write)(void *opaque, uint8_t val);
    void *reset_opaque;
    struct {
        uint32_t address;
    } s;
};
extern const struct dev_ops pci_bus_dev_ops;

/* Registers ports CF8h-CFFh. 0 or -RD_E_*. */
int pci_bus_init(struct pci_bus *b, const struct pci_bus_cfg *cfg);
/* Byte accesses to CF9h go here: the reset control register lies in between (acpi_pm.h has it). */
void pci_bus_set_reset_port(struct pci_bus *b, uint8_t (*read)(void *), void (*write)(void *, uint8_t), void *opaque);

/* -- building a function: in this order, before pci_add -- */
void pci_dev_init(struct pci_dev *d, const char *name, const struct pci_id *id);
/* size: a power of two, at least 4 (I/O, at most 256) or 16; ops and opaque as for bus_add. */
void pci_add_bar(struct pci_dev *d, unsigned index, enum pci_bar_type type, uint64_t size, const struct bus_ops *ops,
                 void *opaque);
/* Appends a capability of len bytes to the list (contents zero, read-only until wmask is set). Returns its offset. */
unsigned pci_add_cap(struct pci_dev *d, uint8_t id, unsigned len);
/* MSI with 64-bit address and per-vector masks; vectors = 1, 2, 4, .. 32. */
void pci_add_msi(struct pci_dev *d, unsigned vectors);
/* MSI-X; table and pending bits in a 4 KiB memory BAR of their own. At most PCI_MSIX_MAX vectors. */
void pci_add_msix(struct pci_dev *d, unsigned bar, unsigned vectors);
/* Plugs in: 0 or -RD_E_BUSY. */
int pci_add(struct pci_bus *b, struct pci_dev *d, uint8_t devfn);

/* -- running -- */
void pci_set_intx(struct pci_dev *d, bool level);
bool pci_msi_enabled(const struct pci_dev *d);
bool pci_msix_enabled(const struct pci_dev *d);
void pci_msi_notify(struct pci_dev *d, unsigned vector);
void pci_msix_notify(struct pci_dev *d, unsigned vector);
static inline bool pci_can_dma(const struct pci_dev *d) { return d->cfg[PCI_COMMAND] & PCI_COMMAND_MASTER; }
/* Configuration accesses as the guest makes them; size 1, 2, 4, inside one dword. Absent functions read all-ones. */
uint32_t pci_config_read(struct pci_bus *b, uint8_t devfn, unsigned offset, unsigned size);
void pci_config_write(struct pci_bus *b, uint8_t devfn, unsigned offset, unsigned size, uint32_t val);
/* What a BIOS does: PIRQs to IRQ 10, 10, 11, 11 (set those level-triggered in ELCR), BARs placed, decoding on, interrupt lines
 * filled in. For kernels started without firmware. */
void pci_firmware_setup(struct pci_bus *b, uint32_t mem_first, uint32_t mem_last);

/* Little-endian fields of cfg, wmask. */
uint16_t pci_get16(const struct pci_dev *d, unsigned at);
uint32_t pci_get32(const struct pci_dev *d, unsigned at);
void pci_set16(uint8_t *space, unsigned at, uint16_t v);
void pci_set32(uint8_t *space, unsigned at, uint32_t v);

/* -- the two bridges -- */
struct i440fx {
    struct pci_dev pci;
    void (*pam_changed)(void *opaque); /* shadow RAM attributes, registers 59h-5Fh; may be NULL */
    void *opaque;
};
int i440fx_init(struct i440fx *h, struct pci_bus *b);
/* Bit 0 readable, bit 1 writable: RAM behind [0xc0000 + 16 KiB * i) for i < 12, and 0xf0000-0xfffff for i = 12. */
unsigned i440fx_pam(const struct i440fx *h, unsigned i);
struct piix3 {
    struct pci_dev pci;
};
int piix3_init(struct piix3 *p, struct pci_bus *b);
#endif
