#include "devices/bus.h"
#include "base/check.h"
#include "base/err.h"
#include "devices/bus_int.h"
#include <stdlib.h>
#include <string.h>

int bus_create(struct bus **out)
{
    *out = calloc(1, sizeof **out);
    return *out ? 0 : -RD_E_NOMEM;
}

void bus_destroy(struct bus *b) { free(b); }
void bus_set_fpu(struct bus *b, struct fpu_hook hook) { b->fpu = hook; }

static int check_range(const struct bus *b, const struct bus_range *r)
{
    unsigned width = r->ops->max_size;
    if (!r->len || r->base + (r->len - 1) < r->base)
        return -RD_E_INVAL;
    if ((width & (width - 1)) || width > (r->space == BUS_PIO ? 4 : 8))
        return -RD_E_INVAL;
    if (r->space == BUS_MMIO) {
        unsigned i = bus_mmio_lower(b, r->base);
        bool hit = i < b->mmio_count && b->slot[b->mmio[i]].base <= r->base + (r->len - 1);
        return hit ? -RD_E_BUSY : 0;
    }
    if (r->base + (r->len - 1) >= BUS_PORTS)
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
    while (s < BUS_MAX_RANGES && b->slot[s].ops)
        s++;
    if (s == BUS_MAX_RANGES)
        return -RD_E_NOMEM;
    b->slot[s] = *r;
    if (r->space == BUS_PIO) {
        for (uint64_t p = r->base; p < r->base + r->len; p++)
            b->port[p] = (uint16_t)(s + 1);
    } else {
        unsigned i = bus_mmio_lower(b, r->base);
        memmove(&b->mmio[i + 1], &b->mmio[i], (b->mmio_count - i) * sizeof b->mmio[0]);
        b->mmio[i] = (uint16_t)s;
        b->mmio_count++;
    }
    return (int)s;
}

void bus_remove(struct bus *b, int handle)
{
    CHECK(handle >= 0 && handle < BUS_MAX_RANGES && b->slot[handle].ops);
    struct bus_range *r = &b->slot[handle];
    if (r->space == BUS_PIO) {
        memset(&b->port[r->base], 0, r->len * sizeof b->port[0]);
    } else {
        unsigned i = bus_mmio_lower(b, r->base);
        CHECK(i < b->mmio_count && b->mmio[i] == handle);
        b->mmio_count--;
        memmove(&b->mmio[i], &b->mmio[i + 1], (b->mmio_count - i) * sizeof b->mmio[0]);
    }
    r->ops = NULL;
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
    for (uint32_t p = 0; p < BUS_PORTS; p++)
        if (b->port[p] && (!p || b->port[p] != b->port[p - 1]))
            dump_one(&b->slot[b->port[p] - 1], f);
}
