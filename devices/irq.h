/* devices/irq.h - a wire from one chip's output to another chip's input.
 *
 * Role:     level signalling (also used for A20, RESET#, the speaker gate). The wire keeps no state: the source calls irq_set with the
 *           level whenever it may have changed, the sink compares with the level it knows; setting the same level again is
 *           never an edge. So a source need not remember, and sinks save their input levels.
 * Owner:    struct irq_line is a value: copy it at init. fn == NULL is an unconnected pin.
 * Threads:  machine thread. A handler may be entered again from within itself through a chain of chips: change state
 *           first, drive outputs last.
 */
#ifndef DEVICES_IRQ_H
#define DEVICES_IRQ_H
#include <stdbool.h>
#include <stdint.h>

struct dev_ops;
typedef void irq_fn(void *opaque, int n, bool level);
struct irq_line {
    irq_fn *fn;
    void *opaque;
    int n; /* input number at the sink */
};

static inline void irq_set(const struct irq_line *l, bool level)
{
    if (l->fn)
        l->fn(l->opaque, l->n, level);
}
/* A rising edge. The line stays high, as a PC's timer outputs do: the 8259 forgets an edge-triggered request whose line falls
 * before the acknowledge. Not for sinks that may be level-triggered. */
static inline void irq_pulse(const struct irq_line *l)
{
    irq_set(l, false);
    irq_set(l, true);
}

/* One source, several sinks, driven in the order of irq_fanout_add: an ISA IRQ goes to the 8259 and to the IOAPIC. */
enum { IRQ_FANOUT_MAX = 4 };
struct irq_fanout {
    unsigned count;
    struct irq_line to[IRQ_FANOUT_MAX];
};
void irq_fanout_add(struct irq_fanout *f, struct irq_line to); /* CHECKs that there is room */
struct irq_line irq_fanout_line(struct irq_fanout *f);

/* Up to 32 sources ored onto one sink (shared, level-triggered). Saved with irq_or_dev_ops. */
struct irq_or {
    uint32_t in;
    struct irq_line out;
};
void irq_or_init(struct irq_or *o, struct irq_line out);
struct irq_line irq_or_input(struct irq_or *o, int n);
extern const struct dev_ops irq_or_dev_ops;
#endif
