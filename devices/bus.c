#include "devices/bus.h"
#include "base/check.h"
#include "base/err.h"
#include "base/log.h"
#include <stdlib.h>
#include <string.h>

enum { PORTS = 0x10000, MAX_RANGES = 1024, MMIO_LOG_LIMIT = 1000 };

struct bus {
    uint16_t port[PORTS];              /* 1 + slot, 0 = nobody */
    struct bus_range slot[MAX_RANGES]; /* free: ops == NULL */
    uint16_t mmio[MAX_RANGES];         /* slots of the MMIO ranges by ascending base */
    unsigned mmio_count;
    unsigned mmio_logged;
    uint8_t port_logged[2][PORTS / 8]; /* [is_write]: a guest must not fill the log by probing in a loop */
};

int bus_create(struct bus **out)
{
    *out = calloc(1, sizeof **out);
    return *out ? 0 : -RD_E_NOMEM;
}

void bus_destroy(struct bus *b) { free(b); }

/* Position in b->mmio of the first range that ends above addr. */
static unsigned mmio_lower(const struct bus *b, uint64_t addr)
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
        return addr < PORTS && b->port[addr] ? &b->slot[b->port[addr] - 1] : NULL;
    unsigned i = mmio_lower(b, addr);
    if (i == b->mmio_count || b->slot[b->mmio[i]].base > addr)
        return NULL;
    return &b->slot[b->mmio[i]];
}

static int check_range(const struct bus *b, const struct bus_range *r)
{
    unsigned width = r->ops->max_size;
    if (!r->len || r->base + (r->len - 1) < r->base)
        return -RD_E_INVAL;
    if ((width & (width - 1)) || width > (r->space == BUS_PIO ? 4 : 8))
        return -RD_E_INVAL;
    if (r->space == BUS_MMIO) {
        unsigned i = mmio_lower(b, r->base);
        bool hit = i < b->mmio_count && b->slot[b->mmio[i]].base <= r->base + (r->len - 1);
        return hit ? -RD_E_BUSY : 0;
    }
    if (r->base + (r->len - 1) >= PORTS)
        return -RD_E_INVAL;
    for (uint64_t p = r->base; p < r->base + r->len; p++)
        if (b->port[p])
            return -RD_E_BUSY;
    return 0;
}

int bus_add(struct bus *b, const struct bus_range *r)
{
    unsigned s = 0;
    int err = check_range(b, r);
    if (err)
        return err;
    while (s < MAX_RANGES && b->slot[s].ops)
        s++;
    if (s == MAX_RANGES)
        return -RD_E_NOMEM;
    b->slot[s] = *r;
    if (r->space == BUS_PIO) {
        for (uint64_t p = r->base; p < r->base + r->len; p++)
            b->port[p] = (uint16_t)(s + 1);
    } else {
        unsigned i = mmio_lower(b, r->base);
        memmove(&b->mmio[i + 1], &b->mmio[i], (b->mmio_count - i) * sizeof b->mmio[0]);
        b->mmio[i] = (uint16_t)s;
        b->mmio_count++;
    }
    return (int)s;
}

void bus_remove(struct bus *b, int handle)
{
    CHECK(handle >= 0 && handle < MAX_RANGES && b->slot[handle].ops);
    struct bus_range *r = &b->slot[handle];
    if (r->space == BUS_PIO) {
        memset(&b->port[r->base], 0, r->len * sizeof b->port[0]);
    } else {
        unsigned i = mmio_lower(b, r->base);
        CHECK(i < b->mmio_count && b->mmio[i] == handle);
        b->mmio_count--;
        memmove(&b->mmio[i], &b->mmio[i + 1], (b->mmio_count - i) * sizeof b->mmio[0]);
    }
    r->ops = NULL;
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
    if (log_on(UNIMP) && b->mmio_logged < MMIO_LOG_LIMIT) {
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
        else if (r->ops->read)
            part &= r->ops->read(r->opaque, p - r->base, n);
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
        else if (r->ops->write)
            r->ops->write(r->opaque, p - r->base, n, val >> 8 * done & ones(n));
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
        else if (r->ops->read)
            val = r->ops->read(r->opaque, gpa + done - r->base, size);
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
        else if (r->ops->write)
            r->ops->write(r->opaque, gpa + done - r->base, size, val);
        done += size;
    }
}

static void dump_one(const struct bus_range *r, FILE *f)
{
    fprintf(f, "  %0*llx-%0*llx  %s\n", r->space == BUS_PIO ? 4 : 16, (unsigned long long)r->base,
            r->space == BUS_PIO ? 4 : 16, (unsigned long long)(r->base + (r->len - 1)), r->name);
}

void bus_dump(const struct bus *b, FILE *f)
{
    fprintf(f, "memory\n");
    for (unsigned i = 0; i < b->mmio_count; i++)
        dump_one(&b->slot[b->mmio[i]], f);
    fprintf(f, "I/O ports\n");
    for (uint32_t p = 0; p < PORTS; p++)
        if (b->port[p] && (!p || b->port[p] != b->port[p - 1]))
            dump_one(&b->slot[b->port[p] - 1], f);
}
