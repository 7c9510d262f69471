/* devices/hpet.h - High Precision Event Timer: three comparators, 64-bit counter at 100 MHz of virtual time, legacy routing.
 *
 * Role:     timers 0 and 1 replace the PIT and the RTC on IRQ 0 and 8 in legacy mode: the board wires those two chips to
 *           hpet_legacy_in(), which passes them on while legacy mode is off. Otherwise a timer raises the IOAPIC pin that
 *           its ROUTE field names, out of 20-23. No MSI (FSB) delivery.
 * Periodic: periods that passed while the host was busy are coalesced into one interrupt; the comparator keeps its phase.
 * Threads:  machine thread. Source: IA-PC HPET specification 1.0a.
 */
#ifndef DEVICES_HPET_H
#define DEVICES_HPET_H
#include "devices/dev.h"
#include "devices/irq.h"
#include "devices/vtime.h"
#include <stdbool.h>
#include <stdint.h>

struct bus;
#define HPET_BASE 0xfed00000u
#define HPET_BYTES 0x400u
#define HPET_BLOCK_ID 0x8086a201u
#define HPET_TIMERS 3
#define HPET_TICK_NS 10u
#define HPET_PIN_FIRST 20u
#define HPET_PINS 4u

struct hpet;
struct hpet_timer {
    struct hpet *hpet;
    struct vtimer vtimer;
};
struct hpet {
    struct evloop *loop;
    struct irq_line legacy[2];      /* IRQ 0, IRQ 8 */
    struct irq_line pin[HPET_PINS]; /* IOAPIC pins from HPET_PIN_FIRST */
    struct hpet_timer timer[HPET_TIMERS];
    struct {
        uint32_t config, status;
        uint64_t start_ns; /* virtual time at which the counter was started ... */
        uint64_t counter;  /* ... with this value; its value while stopped */
        uint32_t tconfig[HPET_TIMERS];
        uint64_t comparator[HPET_TIMERS], period[HPET_TIMERS];
        uint8_t set_accumulator; /* bit n: the next write goes to comparator n alone */
        bool legacy_in[2];
    } s;
};
extern const struct dev_ops hpet_dev_ops;

/* 0 or -RD_E_*. */
int hpet_init(struct hpet *h, struct bus *b, struct evloop *loop, const struct irq_line legacy[2],
              const struct irq_line pin[HPET_PINS]);
/* Where the PIT's (0) and the RTC's (1) outputs go. */
struct irq_line hpet_legacy_in(struct hpet *h, unsigned n);
#endif
