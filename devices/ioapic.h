/* devices/ioapic.h - 82093AA-style I/O APIC with 24 pins, version 20h (with EOI register).
 *
 * Role:     turns levels and edges on its pins into messages on the APIC bus by its redirection table.
 * Polarity: stored, not applied: a wire says "asserted" or "not asserted", and every source on the board does so, whatever voltage
 *           a real board would use; a guest that programs the wrong polarity works here.
 * Edges:    an edge on a masked pin is lost, as on the chip. A level pin stays in service (remote IRR) until EOI.
 * Threads:  machine thread. Source: Intel 82093AA data sheet, ICH I/O APIC for the EOI register.
 */
#ifndef DEVICES_IOAPIC_H
#define DEVICES_IOAPIC_H
#include "devices/dev.h"
#include "devices/irq.h"
#include <stdint.h>

struct apic_bus;
struct bus;
#define IOAPIC_DEFAULT_BASE 0xfec00000u
#define IOAPIC_VERSION 0x00170020u
#define IOAPIC_PINS 24

struct ioapic {
    struct apic_bus *apics;
    struct {
        uint8_t select;
        uint32_t id;
        uint32_t level; /* pins asserted */
        uint64_t redir[IOAPIC_PINS];
    } s;
};
extern const struct dev_ops ioapic_dev_ops;

/* Registers the page and takes the APIC bus's EOI hook. 0 or -RD_E_*. */
int ioapic_init(struct ioapic *io, struct bus *b, uint64_t base, struct apic_bus *apics);
void ioapic_set_pin(struct ioapic *io, unsigned pin, bool level);
struct irq_line ioapic_line(struct ioapic *io, unsigned pin);
/* Pin of an ISA interrupt: IRQ 0 is on pin 2 (and ExtINT on pin 0), the others one to one. */
static inline unsigned ioapic_isa_pin(unsigned irq) { return irq == 0 ? 2 : irq; }
void ioapic_eoi(struct ioapic *io, uint8_t vector);
#endif
