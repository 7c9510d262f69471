/* devices/apic_bus.c - messages between APICs: destinations, lowest priority, MSIs; and the xAPIC page. SDM 3A 11.6.2. nofpu. */
#include "base/log.h"
#include "devices/bus.h"
#include "devices/lapic_int.h"
#include <string.h>

#define PAGE_BYTES 0x1000u

static bool is_dest(const struct lapic *l, const struct apic_msg *m)
{
    bool x2 = l->s.base & APIC_BASE_EXTD;
    if (!lapic_hw_enabled(l))
        return false;
    if (m->dest == UINT32_MAX)
        return true;
    if (!m->logical)
        return m->dest == (x2 ? l->cfg.id : l->s.id >> 24);
    uint32_t ldr = lapic_ldr(l);
    if (x2)
        return m->dest >> 16 == ldr >> 16 && (m->dest & ldr & 0xffff);
    if (m->dest > 0xff)
        return false;
    uint32_t id = ldr >> 24;
    switch (l->s.dfr >> 28) {
    case 0xf: return m->dest & id;                                             /* flat */
    case 0x0: return (m->dest & 0xf0) == (id & 0xf0) && (m->dest & id & 0x0f); /* cluster */
    default: return false;
    }
}

/* The addressed CPU with the lowest processor priority; among equals the next in turn. */
static unsigned deliver_lowest(struct apic_bus *ab, const struct apic_msg *m)
{
    struct lapic *best = NULL;
    unsigned best_index = 0;
    for (unsigned k = 0; k < ab->count; k++) {
        unsigned i = (ab->lowest_next + k) % ab->count;
        struct lapic *l = ab->cpu[i];
        if (lapic_sw_enabled(l) && is_dest(l, m) && (!best || lapic_ppr(l) >> 4 < lapic_ppr(best) >> 4)) {
            best = l;
            best_index = i;
        }
    }
    if (!best)
        return 0;
    ab->lowest_next = best_index + 1;
    return lapic_receive(best, m->mode, m->vector, m->level);
}

unsigned apic_bus_deliver(struct apic_bus *ab, const struct apic_msg *m)
{
    unsigned accepted = 0;
    if (m->mode == APIC_LOWEST)
        accepted = deliver_lowest(ab, m);
    for (unsigned i = 0; m->mode != APIC_LOWEST && i < ab->count; i++) {
        if (is_dest(ab->cpu[i], m))
            accepted += lapic_receive(ab->cpu[i], m->mode, m->vector, m->level);
    }
    if (!accepted)
        LOGF(IRQ, "interrupt message mode %d vector %#x to %s %#x: nobody accepted it", m->mode, m->vector,
             m->logical ? "logical" : "physical", m->dest);
    return accepted;
}

void apic_bus_msi(struct apic_bus *ab, uint64_t addr, uint32_t data)
{
    uint32_t dest = addr >> 12 & 0xff;
    if (addr >> 20 != LAPIC_DEFAULT_BASE >> 20) {
        LOGF(GUEST_ERRORS, "MSI to %#llx, which is not an interrupt address", (unsigned long long)addr);
        return;
    }
    struct apic_msg m = {
        .dest = dest == 0xff ? UINT32_MAX : dest,
        .logical = addr >> 2 & 1,
        .vector = (uint8_t)data,
        .mode = data >> 8 & 7,
        .level = (data & 0xc000) == 0xc000,
    };
    if (m.mode == APIC_FIXED && (addr & 8)) /* redirection hint */
        m.mode = APIC_LOWEST;
    if ((data & 0xc000) == 0x8000)
        return; /* level de-assert */
    apic_bus_deliver(ab, &m);
}

static uint64_t page_read(void *opaque, uint64_t offset, unsigned size)
{
    struct apic_bus *ab = opaque;
    return lapic_mmio_read(ab->cpu[ab->current], (uint32_t)offset);
}

static void page_write(void *opaque, uint64_t offset, unsigned size, uint64_t val)
{
    struct apic_bus *ab = opaque;
    if (size == 4) /* narrower writes are undefined (SDM 11.4.1) and dropped */
        lapic_mmio_write(ab->cpu[ab->current], (uint32_t)offset, (uint32_t)val);
}

static const struct bus_ops page_ops = {.read = page_read, .write = page_write, .max_size = 4, .nofpu = true};

/* Follows APIC_BASE of the current CPU: the page exists in xAPIC mode only. */
void apic_bus_map_page(struct apic_bus *ab)
{
    const struct lapic *l = ab->cpu[ab->current];
    uint64_t base = l->s.base & ~0xfffull;
    bool want = (l->s.base & (APIC_BASE_EN | APIC_BASE_EXTD)) == APIC_BASE_EN;
    if (!ab->bus || (ab->page >= 0 && want && base == ab->page_base))
        return;
    if (ab->page >= 0)
        bus_remove(ab->bus, ab->page);
    ab->page = -1;
    if (!want)
        return;
    struct bus_range r = {"lapic", BUS_MMIO, base, PAGE_BYTES, &page_ops, ab};
    ab->page = bus_add(ab->bus, &r);
    ab->page_base = base;
    if (ab->page < 0)
        LOGF(GUEST_ERRORS, "APIC page moved to %#llx, where something else is", (unsigned long long)base);
}

void apic_bus_init(struct apic_bus *ab, struct bus *bus)
{
    memset(ab, 0, sizeof(*ab));
    ab->bus = bus;
    ab->page = -1;
}

void apic_bus_set_eoi(struct apic_bus *ab, void (*eoi)(void *opaque, uint8_t vector), void *opaque)
{
    ab->eoi = eoi;
    ab->eoi_opaque = opaque;
}
