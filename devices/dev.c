#include "devices/dev.h"
#include "base/check.h"
#include "base/err.h"
#include <stdlib.h>
#include <string.h>

static bool reserve(struct dev_writer *w, size_t n)
{
    if (w->failed)
        return false;
    if (w->cap - w->len >= n)
        return true;
    size_t cap = (w->len + n) * 2;
    uint8_t *p = realloc(w->buf, cap);
    if (!p) {
        w->failed = true;
        return false;
    }
    w->buf = p;
    w->cap = cap;
    return true;
}

void dev_put(struct dev_writer *w, uint64_t val, unsigned bytes)
{
    CHECK(bytes <= 8);
    if (!reserve(w, bytes))
        return;
    for (unsigned i = 0; i < bytes; i++)
        w->buf[w->len++] = (uint8_t)(val >> 8 * i);
}

void dev_put_bytes(struct dev_writer *w, const void *p, size_t n)
{
    if (!n || !reserve(w, n))
        return;
    memcpy(w->buf + w->len, p, n);
    w->len += n;
}

void dev_writer_free(struct dev_writer *w)
{
    free(w->buf);
    *w = (struct dev_writer){0};
}

static bool take(struct dev_reader *r, size_t n)
{
    if (r->failed || r->len - r->pos < n) {
        r->failed = true;
        return false;
    }
    return true;
}

uint64_t dev_get(struct dev_reader *r, unsigned bytes)
{
    uint64_t val = 0;
    CHECK(bytes <= 8);
    if (!take(r, bytes))
        return 0;
    for (unsigned i = 0; i < bytes; i++)
        val |= (uint64_t)r->buf[r->pos++] << 8 * i;
    return val;
}

void dev_get_bytes(struct dev_reader *r, void *p, size_t n)
{
    if (!take(r, n)) {
        memset(p, 0, n);
        return;
    }
    memcpy(p, r->buf + r->pos, n);
    r->pos += n;
}

/* The host may be of either byte order as far as the format is concerned; members are loaded by their own type. */
static uint64_t load(const uint8_t *p, unsigned size)
{
    uint16_t h;
    uint32_t w;
    uint64_t d;
    switch (size) {
    case 1: return *p;
    case 2: memcpy(&h, p, 2); return h;
    case 4: memcpy(&w, p, 4); return w;
    default:
        CHECK(size == 8);
        memcpy(&d, p, 8);
        return d;
    }
}

static void store(uint8_t *p, unsigned size, uint64_t val)
{
    uint8_t b = (uint8_t)val;
    uint16_t h = (uint16_t)val;
    uint32_t w = (uint32_t)val;
    switch (size) {
    case 1: *p = b; break;
    case 2: memcpy(p, &h, 2); break;
    case 4: memcpy(p, &w, 4); break;
    default:
        CHECK(size == 8);
        memcpy(p, &val, 8);
        break;
    }
}

void dev_put_fields(struct dev_writer *w, const void *base, const struct dev_field *f, size_t n)
{
    for (; n--; f++)
        for (uint32_t i = 0; i < f->count; i++)
            dev_put(w, load((const uint8_t *)base + f->offset + (size_t)i * f->size, f->size), f->size);
}

void dev_get_fields(struct dev_reader *r, void *base, const struct dev_field *f, size_t n)
{
    for (; n--; f++)
        for (uint32_t i = 0; i < f->count; i++) {
            uint64_t val = dev_get(r, f->size);
            if (f->is_bool && val > 1)
                r->failed = true; /* any other byte would be undefined behaviour in a bool */
            store((uint8_t *)base + f->offset + (size_t)i * f->size, f->size, f->is_bool ? val == 1 : val);
        }
}

int dev_save(struct dev_writer *w, const struct dev *d)
{
    size_t n = strlen(d->ops->type);
    CHECK(n < 256);
    dev_put(w, n, 1);
    dev_put_bytes(w, d->ops->type, n);
    dev_put(w, d->instance, 4);
    dev_put(w, d->ops->version, 2);
    dev_put(w, 0, 4);
    size_t start = w->len;
    d->ops->save(d->state, w);
    if (w->failed)
        return -RD_E_NOMEM;
    for (unsigned i = 0; i < 4; i++)
        w->buf[start - 4 + i] = (uint8_t)((w->len - start) >> 8 * i);
    return 0;
}

int dev_restore(struct dev_reader *r, const struct dev *d)
{
    char name[256];
    size_t n = dev_get(r, 1);
    dev_get_bytes(r, name, n);
    name[n] = 0;
    uint32_t instance = (uint32_t)dev_get(r, 4);
    uint16_t version = (uint16_t)dev_get(r, 2);
    uint32_t len = (uint32_t)dev_get(r, 4);
    if (r->failed || len > r->len - r->pos || strcmp(name, d->ops->type) || instance != d->instance)
        return -RD_E_FORMAT;
    if (version > d->ops->version)
        return -RD_E_UNSUPPORTED;
    struct dev_reader body = {.buf = r->buf + r->pos, .len = len};
    int err = d->ops->restore(d->state, &body, version);
    if (err)
        return err;
    if (body.failed || body.pos != body.len)
        return -RD_E_FORMAT;
    r->pos += len;
    return 0;
}
