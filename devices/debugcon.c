#include "devices/debugcon.h"
#include <string.h>

static void drain(struct debugcon *d)
{
    size_t n = d->chr ? chardev_write(d->chr, d->backlog, d->len) : d->len;
    d->len -= n;
    memmove(d->backlog, d->backlog + n, d->len);
}

static void writable(void *opaque) { drain(opaque); }

static uint64_t port_read(void *opaque, uint64_t offset, unsigned size)
{
    return ((struct debugcon *)opaque)->readback;
}

static void port_write(void *opaque, uint64_t offset, unsigned size, uint64_t val)
{
    struct debugcon *d = opaque;
    bool waiting = d->len != 0;
    if (d->len < sizeof d->backlog)
        d->backlog[d->len++] = (uint8_t)val;
    if (!waiting)
        drain(d);
}

const struct bus_ops debugcon_ops = {.read = port_read, .write = port_write, .max_size = 1};

void debugcon_init(struct debugcon *d, struct chardev *chr)
{
    static const struct chardev_ops stream = {.writable = writable};
    *d = (struct debugcon){.readback = 0xe9};
    d->chr = chr ? chardev_attach(chr, &stream, d) : NULL;
}
