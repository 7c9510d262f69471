/* devices/bus_access.c - accesses on their way to the chips. nofpu: a port access costs less than saving the guest's vector
 * registers does. Whoever has logging on has given the FPU up before it comes here. */
#include "base/log.h"
#include "devices/bus_int.h"

unsigned bus_mmio_lower(const struct bus *b, uint64_t addr)
{
    unsigned lo = 0, hi = b->mmio_count;
    while (lo < hi) {
        unsigned mid = (lo + hi) / 2;
        const struct bus_range *r = &b->slot[b->mmio[mid]];
        if (r->base + (r->len - 1) < addr)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

const struct bus_range *bus_find(const struct bus *b, enum bus_space space, uint64_t addr)
{
    if (space == BUS_PIO)
        return addr < BUS_PORTS && b->port[addr] ? &b->slot[b->port[addr] - 1] : NULL;
    unsigned i = bus_mmio_lower(b, addr);
    if (i == b->mmio_count || b->slot[b->mmio[i]].base > addr)
        return NULL;
    return &b->slot[b->mmio[i]];
}

/* Size of the piece that starts at addr: what the access still wants, what the chip takes, what the alignment allows, and what
 * lies inside the range; always a power of two. */
static unsigned piece(const struct bus_range *r, uint64_t addr, unsigned left)
{
    unsigned size = r->ops->max_size ? r->ops->max_size : 1;
    uint64_t room = r->len - (addr - r->base);
    while (size > left || (addr & (size - 1)) || size > room)
        size >>= 1;
    return size;
}

static uint64_t ones(unsigned size) { return size >= 8 ? ~0ull : (1ull << 8 * size) - 1; }

/* A chip's callback may use the FPU unless its ops say otherwise. */
static void before(const struct bus *b, const struct bus_range *r)
{
    if (!r->ops->nofpu)
        fpu_hook_leave(&b->fpu);
}

static void log_port(struct bus *b, bool is_write, uint32_t port)
{
    uint8_t *byte = &b->port_logged[is_write][(port & 0xffff) / 8], bit = (uint8_t)(1u << port % 8);
    if (!log_on(UNIMP) || (*byte & bit))
        return;
    *byte |= bit;
    LOGF(UNIMP, "%s port %#x, which nobody decodes", is_write ? "write to" : "read of", port);
}

static void log_mmio(struct bus *b, bool is_write, uint64_t gpa)
{
    if (log_on(UNIMP) && b->mmio_logged < BUS_MMIO_LOG_LIMIT) {
        b->mmio_logged++;
        LOGF(UNIMP, "%s %#llx, which nobody decodes", is_write ? "write to" : "read of", (unsigned long long)gpa);
    }
}

uint32_t bus_pio_read(struct bus *b, uint16_t port, unsigned size)
{
    uint32_t val = 0;
    for (unsigned done = 0; done < size;) {
        uint32_t p = port + done;
        const struct bus_range *r = bus_find(b, BUS_PIO, p);
        unsigned n = r ? piece(r, p, size - done) : 1;
        uint64_t part = ones(n);
        if (!r)
            log_port(b, false, p);
        else if (r->ops->read) {
            before(b, r);
            part &= r->ops->read(r->opaque, p - r->base, n);
        }
        val |= (uint32_t)(part << 8 * done);
        done += n;
    }
    LOGF(PIO, "in  %#06x/%u -> %#x", port, size, val);
    return val;
}

void bus_pio_write(struct bus *b, uint16_t port, unsigned size, uint32_t val)
{
    LOGF(PIO, "out %#06x/%u <- %#x", port, size, val);
    for (unsigned done = 0; done < size;) {
        uint32_t p = port + done;
        const struct bus_range *r = bus_find(b, BUS_PIO, p);
        unsigned n = r ? piece(r, p, size - done) : 1;
        if (!r)
            log_port(b, true, p);
        else if (r->ops->write) {
            before(b, r);
            r->ops->write(r->opaque, p - r->base, n, val >> 8 * done & ones(n));
        }
        done += n;
    }
}

void bus_mmio_read(struct bus *b, uint64_t gpa, void *data, unsigned n)
{
    uint8_t *out = data;
    for (unsigned done = 0; done < n;) {
        const struct bus_range *r = bus_find(b, BUS_MMIO, gpa + done);
        unsigned size = r ? piece(r, gpa + done, n - done) : 1;
        uint64_t val = ~0ull;
        if (!r)
            log_mmio(b, false, gpa + done);
        else if (r->ops->read) {
            before(b, r);
            val = r->ops->read(r->opaque, gpa + done - r->base, size);
        }
        LOGF(MMIO, "load  %#llx/%u -> %#llx", (unsigned long long)gpa + done, size,
             (unsigned long long)(val & ones(size)));
        for (unsigned i = 0; i < size; i++)
            out[done + i] = (uint8_t)(val >> 8 * i);
        done += size;
    }
}

void bus_mmio_write(struct bus *b, uint64_t gpa, const void *data, unsigned n)
{
    const uint8_t *in = data;
    for (unsigned done = 0; done < n;) {
        const struct bus_range *r = bus_find(b, BUS_MMIO, gpa + done);
        unsigned size = r ? piece(r, gpa + done, n - done) : 1;
        uint64_t val = 0;
        for (unsigned i = 0; i < size; i++)
            val |= (uint64_t)in[done + i] << 8 * i;
        LOGF(MMIO, "store %#llx/%u <- %#llx", (unsigned long long)gpa + done, size, (unsigned long long)val);
        if (!r)
            log_mmio(b, true, gpa + done);
        else if (r->ops->write) {
            before(b, r);
            r->ops->write(r->opaque, gpa + done - r->base, size, val);
        }
        done += size;
    }
}
