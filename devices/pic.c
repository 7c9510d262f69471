#include "devices/pic.h"
#include "base/check.h"
#include "base/err.h"
#include "base/log.h"

enum { MASTER, SLAVE, CASCADE = 2 };
static const uint8_t elcr_writable[2] = {0xf8, 0xde}; /* IRQ 0, 1, 2, 8, 13 are wired as edge-triggered */

/* Distance of the most important set bit from the top priority; 8 if none. */
static unsigned rank(const struct pic_chip *c, uint8_t bits)
{
    unsigned r = 0;
    while (r < 8 && !(bits >> ((c->top + r) & 7) & 1))
        r++;
    return r;
}

/* Input whose request may interrupt now, or -1. What is in service holds back its own level and those below. */
static int request(const struct pic_chip *c, bool master)
{
    uint8_t in_service = c->isr;
    if (c->special_mask)
        in_service &= (uint8_t)~c->imr;
    if (c->sfnm && master)
        in_service &= (uint8_t) ~(1u << CASCADE); /* the slave sorts out its own requests */
    unsigned r = rank(c, c->irr & (uint8_t)~c->imr);
    return r < rank(c, in_service) ? (int)((c->top + r) & 7) : -1;
}

static void chip_set(struct pic_chip *c, int n, bool level)
{
    uint8_t bit = (uint8_t)(1u << n);
    bool was = c->lines & bit;
    c->lines = level ? c->lines | bit : c->lines & (uint8_t)~bit;
    if (!level)
        c->irr &= (uint8_t)~bit;
    else if ((c->elcr & bit) || !was)
        c->irr |= bit;
}

static void update(struct pic *p)
{
    chip_set(&p->chip[MASTER], CASCADE, request(&p->chip[SLAVE], false) >= 0);
    irq_set(&p->intr, pic_pending(p));
}

bool pic_pending(const struct pic *p) { return request(&p->chip[MASTER], true) >= 0; }

static void input(void *opaque, int n, bool level)
{
    struct pic *p = opaque;
    struct pic_chip *c = &p->chip[n >= 8];
    if (!!(c->lines >> (n & 7) & 1) == level)
        return;
    LOGF(IRQ, "pic: IRQ %d %s", n, level ? "high" : "low");
    chip_set(c, n & 7, level);
    update(p);
}

struct irq_line pic_input(struct pic *p, int irq)
{
    CHECK(irq >= 0 && irq < 16 && irq != CASCADE);
    return (struct irq_line){.fn = input, .opaque = p, .n = irq};
}

/* Both INTA pulses, for one chip. */
static void acknowledge(struct pic_chip *c, int n)
{
    uint8_t bit = (uint8_t)(1u << n);
    if (!(c->elcr & bit))
        c->irr &= (uint8_t)~bit;
    if (!c->auto_eoi)
        c->isr |= bit;
    else if (c->rotate_auto_eoi)
        c->top = (uint8_t)((n + 1) & 7);
}

static uint8_t ack_slave(struct pic *p, int *irq)
{
    struct pic_chip *s = &p->chip[SLAVE];
    int n = request(s, false);
    if (n >= 0) {
        acknowledge(s, n);
        *irq = 8 + n;
    }
    /* INT falls with INTA: if more is pending the master sees a new edge. */
    chip_set(&p->chip[MASTER], CASCADE, false);
    return (uint8_t)(s->base + (n >= 0 ? n : 7));
}

uint8_t pic_ack(struct pic *p)
{
    struct pic_chip *m = &p->chip[MASTER];
    int n = request(m, true), irq = n;
    uint8_t vector = (uint8_t)(m->base + (n >= 0 ? n : 7)); /* gone: a default IR7, without in-service bit */
    if (n >= 0)
        acknowledge(m, n);
    if (n == CASCADE && !m->single) {
        irq = -1;
        vector = ack_slave(p, &irq);
    }
    LOGF(IRQ, "pic: acknowledge IRQ %d, vector %#x", irq, vector);
    update(p);
    if (irq >= 0 && p->acked)
        p->acked(p->acked_opaque, irq);
    return vector;
}

/* -- registers ---- */

static void write_icw1(struct pic_chip *c, uint8_t val)
{
    /* "edge sense circuit is reset": lines stays, so an input that is high needs a new rise */
    c->irr = c->lines & c->elcr;
    c->imr = c->isr = 0;
    c->top = 0;
    c->special_mask = c->read_isr = c->poll = false;
    c->single = val & 2;
    c->want_icw4 = val & 1;
    if (!c->want_icw4)
        c->auto_eoi = c->sfnm = false;
    c->rotate_auto_eoi = false;
    c->icw_next = 2;
}

static void write_icw(struct pic_chip *c, uint8_t val)
{
    switch (c->icw_next) {
    case 2:
        c->base = val & 0xf8;
        c->icw_next = !c->single ? 3 : c->want_icw4 ? 4 : 0;
        break;
    case 3: /* which input the slave is on: wired */ c->icw_next = c->want_icw4 ? 4 : 0; break;
    default:
        c->sfnm = val & 0x10;
        c->auto_eoi = val & 2;
        c->icw_next = 0;
        break;
    }
}

static void write_ocw2(struct pic_chip *c, uint8_t val)
{
    bool rotate = val & 0x80, specific = val & 0x40, eoi = val & 0x20;
    int n = val & 7;
    if (!eoi) {
        if (rotate && specific)
            c->top = (uint8_t)((n + 1) & 7);
        else if (!specific)
            c->rotate_auto_eoi = rotate;
        return;
    }
    if (!specific) {
        /* in special mask mode a masked level is not the one that ends */
        unsigned r = rank(c, c->special_mask ? c->isr & (uint8_t)~c->imr : c->isr);
        if (r == 8)
            return;
        n = (int)((c->top + r) & 7);
    }
    c->isr &= (uint8_t) ~(1u << n);
    if (rotate)
        c->top = (uint8_t)((n + 1) & 7);
}

static void write_ocw3(struct pic_chip *c, uint8_t val)
{
    if (val & 0x40)
        c->special_mask = val & 0x20;
    if (val & 4)
        c->poll = true;
    else if (val & 2)
        c->read_isr = val & 1;
}

static void chip_write(struct pic *p, unsigned which, uint64_t offset, uint8_t val)
{
    struct pic_chip *c = &p->chip[which];
    if (offset) {
        if (c->icw_next)
            write_icw(c, val);
        else
            c->imr = val;
    } else if (val & 0x10) {
        write_icw1(c, val);
    } else if (val & 8) {
        write_ocw3(c, val);
    } else {
        write_ocw2(c, val);
    }
    update(p);
}

/* Poll command: the read takes the place of INTA. */
static uint8_t poll(struct pic *p, unsigned which)
{
    struct pic_chip *c = &p->chip[which];
    int n = request(c, which == MASTER);
    c->poll = false;
    if (n < 0)
        return 0;
    acknowledge(c, n);
    if (which == SLAVE)
        chip_set(&p->chip[MASTER], CASCADE, false);
    update(p);
    if (p->acked && !(which == MASTER && n == CASCADE))
        p->acked(p->acked_opaque, (int)which * 8 + n);
    return (uint8_t)(0x80 | n);
}

static uint8_t chip_read(struct pic *p, unsigned which, uint64_t offset)
{
    struct pic_chip *c = &p->chip[which];
    if (c->poll)
        return poll(p, which);
    return offset ? c->imr : c->read_isr ? c->isr : c->irr;
}

static uint64_t master_read(void *opaque, uint64_t offset, unsigned size) { return chip_read(opaque, MASTER, offset); }
static uint64_t slave_read(void *opaque, uint64_t offset, unsigned size) { return chip_read(opaque, SLAVE, offset); }
static void master_write(void *opaque, uint64_t offset, unsigned size, uint64_t val)
{
    chip_write(opaque, MASTER, offset, (uint8_t)val);
}
static void slave_write(void *opaque, uint64_t offset, unsigned size, uint64_t val)
{
    chip_write(opaque, SLAVE, offset, (uint8_t)val);
}

static uint64_t elcr_read(void *opaque, uint64_t offset, unsigned size)
{
    return ((struct pic *)opaque)->chip[offset & 1].elcr;
}

static void elcr_write(void *opaque, uint64_t offset, unsigned size, uint64_t val)
{
    struct pic *p = opaque;
    struct pic_chip *c = &p->chip[offset & 1];
    uint8_t was = c->elcr;
    c->elcr = (uint8_t)val & elcr_writable[offset & 1];
    c->irr |= c->lines & c->elcr & (uint8_t)~was; /* a level that was there becomes a request */
    update(p);
}

void pic_set_elcr(struct pic *p, uint16_t level_irqs)
{
    elcr_write(p, 0, 1, level_irqs & 0xff);
    elcr_write(p, 1, 1, level_irqs >> 8);
}

const struct bus_ops pic_master_ops = {.read = master_read, .write = master_write, .max_size = 1};
const struct bus_ops pic_slave_ops = {.read = slave_read, .write = slave_write, .max_size = 1};
const struct bus_ops pic_elcr_ops = {.read = elcr_read, .write = elcr_write, .max_size = 1};

/* -- life ---- */

static void reset(void *dev)
{
    struct pic *p = dev;
    for (unsigned i = 0; i < 2; i++) {
        uint8_t lines = p->chip[i].lines;
        /* Undefined until ICW1 on the real chip; masked is what does no harm. */
        p->chip[i] = (struct pic_chip){.lines = lines, .imr = 0xff};
    }
    update(p);
}

void pic_init(struct pic *p, struct irq_line intr)
{
    *p = (struct pic){.intr = intr};
    reset(p);
}

#define F(m) DEV_FIELD(struct pic_chip, m)
static const struct dev_field fields[] = {
    F(irr),      F(isr),  F(imr),          F(lines),    F(elcr),
    F(base),     F(top),  F(icw_next),     F(single),   F(want_icw4),
    F(read_isr), F(poll), F(special_mask), F(auto_eoi), F(rotate_auto_eoi),
    F(sfnm),
};
#undef F

static void save(const void *dev, struct dev_writer *w)
{
    const struct pic *p = dev;
    for (unsigned i = 0; i < 2; i++)
        dev_put_fields(w, &p->chip[i], fields, DEV_COUNT(fields));
}

static int restore(void *dev, struct dev_reader *r, uint16_t version)
{
    struct pic *p = dev;
    struct pic_chip chip[2] = {0};
    for (unsigned i = 0; i < 2; i++) {
        dev_get_fields(r, &chip[i], fields, DEV_COUNT(fields));
        if (chip[i].top > 7 || chip[i].icw_next > 4 || chip[i].icw_next == 1 || (chip[i].base & 7))
            return -RD_E_FORMAT;
    }
    if (r->failed)
        return -RD_E_FORMAT;
    p->chip[MASTER] = chip[MASTER];
    p->chip[SLAVE] = chip[SLAVE];
    return 0;
}

const struct dev_ops pic_dev_ops = {.type = "pic", .version = 1, .reset = reset, .save = save, .restore = restore};

void pic_dump(const struct pic *p, FILE *f)
{
    for (unsigned i = 0; i < 2; i++) {
        const struct pic_chip *c = &p->chip[i];
        fprintf(f, "pic%u: irr=%02x imr=%02x isr=%02x lines=%02x elcr=%02x base=%02x top=%u%s%s%s\n", i, c->irr, c->imr,
                c->isr, c->lines, c->elcr, c->base, c->top, c->auto_eoi ? " aeoi" : "", c->sfnm ? " sfnm" : "",
                c->special_mask ? " smm" : "");
    }
}
