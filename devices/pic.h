/* devices/pic.h - the pair of 8259A interrupt controllers of a PC, with the ELCR of the PCI chipsets.
 *
 * Role:     16 interrupt inputs (n = ISA IRQ; 2 is the cascade) to one INTR output, by the data sheet: ICW1-4, OCW1-3, rotation,
 *           special mask, special fully nested, AEOI, poll, spurious IRQ 7 and 15. Trigger mode is per line in the ELCR; ICW1's
 *           LTIM is ignored, as Intel's chipsets do. An edge-triggered input must stay high until the acknowledge.
 * Ports:    20-21 pic_master_ops, a0-a1 pic_slave_ops, 4d0-4d1 pic_elcr_ops; opaque is the struct pic for all.
 */
#ifndef DEVICES_PIC_H
#define DEVICES_PIC_H
#include "devices/bus.h"
#include "devices/dev.h"
#include "devices/irq.h"

struct pic_chip {
    uint8_t irr, isr, imr;
    uint8_t lines;    /* input levels */
    uint8_t elcr;     /* 1 = level-triggered */
    uint8_t base;     /* ICW2: vector of input 0 */
    uint8_t top;      /* input with the highest priority (rotation) */
    uint8_t icw_next; /* 0 = initialised, else number of the ICW awaited */
    bool single, want_icw4;
    bool read_isr, poll, special_mask;
    bool auto_eoi, rotate_auto_eoi, sfnm;
};
struct pic {
    struct pic_chip chip[2]; /* master, slave */
    struct irq_line intr;
    void (*acked)(void *opaque,
                  int irq); /* may be NULL: ISA IRQ irq was acknowledged (timers that re-inject lost ticks) */
    void *acked_opaque;
};
void pic_init(struct pic *p, struct irq_line intr);
struct irq_line pic_input(struct pic *p, int irq);
/* INTA cycles: vector of the highest request; with no request left, the spurious one. Never fails. */
uint8_t pic_ack(struct pic *p);
bool pic_pending(const struct pic *p);
/* What firmware would write; for direct kernel boots. */
void pic_set_elcr(struct pic *p, uint16_t level_irqs);
void pic_dump(const struct pic *p, FILE *f);

extern const struct bus_ops pic_master_ops, pic_slave_ops, pic_elcr_ops;
extern const struct dev_ops pic_dev_ops;
#endif
