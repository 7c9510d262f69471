#include "devices/port92.h"
#include "base/err.h"

enum { FAST_RESET = 1, A20_ENABLE = 2 };

static uint64_t port_read(void *opaque, uint64_t offset, unsigned size) { return ((struct port92 *)opaque)->val; }

static void port_write(void *opaque, uint64_t offset, unsigned size, uint64_t val)
{
    struct port92 *p = opaque;
    bool rising = val & FAST_RESET & ~p->val;
    p->val = (uint8_t)val;
    irq_set(&p->a20, val & A20_ENABLE);
    if (rising)
        irq_pulse(&p->reset);
}

const struct bus_ops port92_ops = {.read = port_read, .write = port_write, .max_size = 1};

static void reset(void *dev)
{
    struct port92 *p = dev;
    p->val = A20_ENABLE;
    irq_set(&p->a20, true);
}

void port92_init(struct port92 *p, struct irq_line a20, struct irq_line reset_line)
{
    *p = (struct port92){.a20 = a20, .reset = reset_line};
    reset(p);
}

static void save(const void *dev, struct dev_writer *w) { dev_put(w, ((const struct port92 *)dev)->val, 1); }

static int restore(void *dev, struct dev_reader *r, uint16_t version)
{
    uint8_t val = (uint8_t)dev_get(r, 1);
    if (r->failed)
        return -RD_E_FORMAT;
    ((struct port92 *)dev)->val = val;
    return 0;
}

const struct dev_ops port92_dev_ops = {
    .type = "port92", .version = 1, .reset = reset, .save = save, .restore = restore};
