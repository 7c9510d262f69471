#include "devices/irq.h"
#include "base/check.h"
#include "base/err.h"
#include "devices/dev.h"

static void fanout_set(void *opaque, int n, bool level)
{
    const struct irq_fanout *f = opaque;
    for (unsigned i = 0; i < f->count; i++)
        irq_set(&f->to[i], level);
}

void irq_fanout_add(struct irq_fanout *f, struct irq_line to)
{
    CHECK(f->count < IRQ_FANOUT_MAX);
    f->to[f->count++] = to;
}

struct irq_line irq_fanout_line(struct irq_fanout *f) { return (struct irq_line){.fn = fanout_set, .opaque = f}; }

static void or_set(void *opaque, int n, bool level)
{
    struct irq_or *o = opaque;
    o->in = (o->in & ~(1u << n)) | (uint32_t)level << n;
    irq_set(&o->out, o->in != 0);
}

void irq_or_init(struct irq_or *o, struct irq_line out) { *o = (struct irq_or){.out = out}; }

struct irq_line irq_or_input(struct irq_or *o, int n)
{
    CHECK(n >= 0 && n < 32);
    return (struct irq_line){.fn = or_set, .opaque = o, .n = n};
}

static void or_reset(void *dev)
{
    struct irq_or *o = dev;
    o->in = 0;
    irq_set(&o->out, false);
}

static void or_save(const void *dev, struct dev_writer *w) { dev_put(w, ((const struct irq_or *)dev)->in, 4); }

static int or_restore(void *dev, struct dev_reader *r, uint16_t version)
{
    uint32_t in = (uint32_t)dev_get(r, 4);
    if (r->failed)
        return -RD_E_FORMAT;
    ((struct irq_or *)dev)->in = in;
    return 0;
}

const struct dev_ops irq_or_dev_ops = {
    .type = "irq-or", .version = 1, .reset = or_reset, .save = or_save, .restore = or_restore};
