/* devices/ioapic.c - see ioapic.h. */
#include "devices/ioapic.h"
#include "base/check.h"
#include "base/err.h"
#include "base/log.h"
#include "devices/bus.h"
#include "devices/lapic.h"
#include <string.h>

#define RTE_LOGICAL 0x800u
#define RTE_REMOTE_IRR 0x4000u
#define RTE_LEVEL 0x8000u
#define RTE_MASKED 0x10000u
#define RTE_WRITABLE 0xff0000000001afffull
#define ID_WRITABLE 0x0f000000u
#define PAGE_BYTES 0x1000u
enum { OFF_SELECT = 0x00, OFF_WINDOW = 0x10, OFF_EOI = 0x40 };
enum { REG_ID = 0, REG_VERSION = 1, REG_ARBITRATION = 2, REG_REDIR = 0x10 };

static bool is_level(uint64_t rte)
{
    /* trigger mode counts for fixed and lowest priority only; the others are edges by nature */
    return (rte & RTE_LEVEL) && (rte >> 8 & 7) <= APIC_LOWEST;
}

static void send(struct ioapic *io, unsigned pin)
{
    uint64_t rte = io->s.redir[pin];
    uint32_t dest = (uint32_t)(rte >> 56);
    struct apic_msg m = {
        .dest = dest == 0xff ? UINT32_MAX : dest,
        .logical = rte & RTE_LOGICAL,
        .level = is_level(rte),
        .vector = (uint8_t)rte,
        .mode = rte >> 8 & 7,
    };
    /* In service before it is sent: the LAPIC may answer with an EOI at once. Refused messages must not block the pin. */
    if (m.level)
        io->s.redir[pin] |= RTE_REMOTE_IRR;
    if (!apic_bus_deliver(io->apics, &m))
        io->s.redir[pin] &= ~(uint64_t)RTE_REMOTE_IRR;
}

static void serve_level(struct ioapic *io, unsigned pin)
{
    uint64_t rte = io->s.redir[pin];
    if ((io->s.level >> pin & 1) && is_level(rte) && !(rte & (RTE_MASKED | RTE_REMOTE_IRR)))
        send(io, pin);
}

void ioapic_set_pin(struct ioapic *io, unsigned pin, bool level)
{
    CHECK(pin < IOAPIC_PINS);
    bool rising = level && !(io->s.level >> pin & 1);
    io->s.level = (io->s.level & ~(1u << pin)) | (uint32_t)level << pin;
    if (is_level(io->s.redir[pin]))
        serve_level(io, pin);
    else if (rising && !(io->s.redir[pin] & RTE_MASKED))
        send(io, pin);
}

static void pin_irq(void *opaque, int n, bool level) { ioapic_set_pin(opaque, (unsigned)n, level); }

struct irq_line ioapic_line(struct ioapic *io, unsigned pin)
{
    return (struct irq_line){.fn = pin_irq, .opaque = io, .n = (int)pin};
}

void ioapic_eoi(struct ioapic *io, uint8_t vector)
{
    uint32_t done = 0;
    for (unsigned i = 0; i < IOAPIC_PINS; i++) {
        uint64_t rte = io->s.redir[i];
        if ((rte & RTE_REMOTE_IRR) && (uint8_t)rte == vector) {
            io->s.redir[i] &= ~(uint64_t)RTE_REMOTE_IRR;
            done |= 1u << i;
        }
    }
    for (unsigned i = 0; i < IOAPIC_PINS; i++) {
        if (done >> i & 1)
            serve_level(io, i);
    }
}

static void eoi_hook(void *opaque, uint8_t vector) { ioapic_eoi(opaque, vector); }

static uint32_t read_window(const struct ioapic *io)
{
    unsigned reg = io->s.select;
    switch (reg) {
    case REG_ID:
    case REG_ARBITRATION: return io->s.id; /* the arbitration id is loaded from the id */
    case REG_VERSION: return IOAPIC_VERSION;
    default: break;
    }
    if (reg < REG_REDIR || reg >= REG_REDIR + 2 * IOAPIC_PINS)
        return 0;
    return (uint32_t)(io->s.redir[(reg - REG_REDIR) / 2] >> (reg & 1 ? 32 : 0));
}

static void write_redir(struct ioapic *io, unsigned reg, uint32_t val)
{
    unsigned pin = (reg - REG_REDIR) / 2, shift = reg & 1 ? 32 : 0;
    uint64_t writable = RTE_WRITABLE & (0xffffffffull << shift), old = io->s.redir[pin];
    uint64_t rte = (old & ~writable) | ((uint64_t)val << shift & writable);
    if (!is_level(rte))
        rte &= ~(uint64_t)RTE_REMOTE_IRR; /* switching to edge and back is how guests clear a stuck pin */
    io->s.redir[pin] = rte;
    serve_level(io, pin);
}

static void write_window(struct ioapic *io, uint32_t val)
{
    unsigned reg = io->s.select;
    if (reg == REG_ID)
        io->s.id = val & ID_WRITABLE;
    else if (reg >= REG_REDIR && reg < REG_REDIR + 2 * IOAPIC_PINS)
        write_redir(io, reg, val);
}

static uint64_t page_read(void *opaque, uint64_t offset, unsigned size)
{
    struct ioapic *io = opaque;
    uint32_t val = 0;
    if ((offset & ~3ull) == OFF_SELECT)
        val = io->s.select;
    else if ((offset & ~3ull) == OFF_WINDOW)
        val = read_window(io);
    return val >> 8 * (offset & 3);
}

static void page_write(void *opaque, uint64_t offset, unsigned size, uint64_t val)
{
    struct ioapic *io = opaque;
    if (offset == OFF_SELECT)
        io->s.select = (uint8_t)val;
    else if (offset == OFF_WINDOW && size == 4)
        write_window(io, (uint32_t)val);
    else if (offset == OFF_EOI)
        ioapic_eoi(io, (uint8_t)val);
}

static const struct bus_ops page_ops = {.read = page_read, .write = page_write, .max_size = 4};

static void ioapic_reset(void *dev)
{
    struct ioapic *io = dev;
    io->s.select = 0;
    io->s.id = 0;
    for (unsigned i = 0; i < IOAPIC_PINS; i++)
        io->s.redir[i] = RTE_MASKED; /* the pins' levels are their sources' business */
}

int ioapic_init(struct ioapic *io, struct bus *b, uint64_t base, struct apic_bus *apics)
{
    memset(io, 0, sizeof(*io));
    io->apics = apics;
    ioapic_reset(io);
    apic_bus_set_eoi(apics, eoi_hook, io);
    struct bus_range r = {"ioapic", BUS_MMIO, base, PAGE_BYTES, &page_ops, io};
    int h = bus_add(b, &r);
    return h < 0 ? h : 0;
}

#define F(m) DEV_FIELD(__typeof__(((struct ioapic *)0)->s), m)
static const struct dev_field fields[] = {
    F(select),
    F(id),
    F(level),
    DEV_ARRAY(__typeof__(((struct ioapic *)0)->s), redir),
};

static void ioapic_save(const void *dev, struct dev_writer *w)
{
    const struct ioapic *io = dev;
    dev_put_fields(w, &io->s, fields, DEV_COUNT(fields));
}

static int ioapic_restore(void *dev, struct dev_reader *r, uint16_t version)
{
    struct ioapic *io = dev;
    __typeof__(io->s) in = io->s;
    dev_get_fields(r, &in, fields, DEV_COUNT(fields));
    if (r->failed || in.id & ~ID_WRITABLE || in.level >> IOAPIC_PINS)
        return -RD_E_FORMAT;
    for (unsigned i = 0; i < IOAPIC_PINS; i++) {
        if (in.redir[i] & ~(RTE_WRITABLE | RTE_REMOTE_IRR))
            return -RD_E_FORMAT;
    }
    io->s = in;
    return 0;
}

const struct dev_ops ioapic_dev_ops = {
    .type = "ioapic",
    .version = 1,
    .reset = ioapic_reset,
    .save = ioapic_save,
    .restore = ioapic_restore,
};
