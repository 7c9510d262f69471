/* devices/fwcfg.c - see fwcfg.h. */
#include "devices/fwcfg.h"
#include "base/err.h"
#include "base/log.h"
#include "devices/bus.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define PORT 0x510u
#define PORTS 12u
enum { OFF_SELECTOR = 0, OFF_DATA = 1, OFF_DMA = 4 };
#define SELECTOR_WRITE 0x4000u /* channel bits of the selector: ignored, nothing is writable */
#define ID_TRADITIONAL 1u
#define ID_DMA 2u
#define DMA_ERROR 1u
#define DMA_READ 2u
#define DMA_SKIP 4u
#define DMA_SELECT 8u
#define DMA_WRITE 16u
#define DMA_CHUNK 4096u
#define DIR_ENTRY 64u
#define OPTION_FILE_MAX (64u << 20)

/* -- items -- */
static struct fwcfg_item *find(const struct fwcfg *f, uint16_t key)
{
    for (unsigned i = 0; i < f->count; i++) {
        if (f->items[i].key == key)
            return (struct fwcfg_item *)&f->items[i];
    }
    return NULL;
}

const struct fwcfg_item *fwcfg_find_file(const struct fwcfg *f, const char *name)
{
    for (unsigned i = 0; i < f->count; i++) {
        if (f->items[i].name[0] && !strcmp(f->items[i].name, name))
            return &f->items[i];
    }
    return NULL;
}

static int new_item(struct fwcfg *f, uint16_t key, struct fwcfg_item **out)
{
    if (find(f, key))
        return -RD_E_BUSY;
    if (f->count == FWCFG_MAX_ITEMS)
        return -RD_E_NOMEM;
    *out = &f->items[f->count];
    **out = (struct fwcfg_item){.key = key};
    return 0;
}

int fwcfg_add_ref(struct fwcfg *f, uint16_t key, const void *data, size_t len)
{
    struct fwcfg_item *it;
    int e = new_item(f, key, &it);
    if (e)
        return e;
    it->data = data;
    it->len = len;
    f->count++;
    return 0;
}

int fwcfg_add_bytes(struct fwcfg *f, uint16_t key, const void *data, size_t len)
{
    uint8_t *copy = malloc(len ? len : 1);
    if (!copy)
        return -RD_E_NOMEM;
    if (len)
        memcpy(copy, data, len);
    int e = fwcfg_add_ref(f, key, copy, len);
    if (e)
        free(copy);
    else
        f->items[f->count - 1].owned = copy;
    return e;
}

int fwcfg_add_string(struct fwcfg *f, uint16_t key, const char *s) { return fwcfg_add_bytes(f, key, s, strlen(s) + 1); }
int fwcfg_add_u16(struct fwcfg *f, uint16_t key, uint16_t v) { return fwcfg_add_bytes(f, key, &v, sizeof(v)); }
int fwcfg_add_u32(struct fwcfg *f, uint16_t key, uint32_t v) { return fwcfg_add_bytes(f, key, &v, sizeof(v)); }
int fwcfg_add_u64(struct fwcfg *f, uint16_t key, uint64_t v) { return fwcfg_add_bytes(f, key, &v, sizeof(v)); }

/* -- files: a directory of name, size and key, all big-endian -- */
static void put_be(uint8_t *p, uint64_t v, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        p[i] = (uint8_t)(v >> (8 * (n - 1 - i)));
}

static void rebuild_dir(struct fwcfg *f)
{
    uint32_t files = 0;
    for (unsigned i = 0; i < f->count; i++) {
        const struct fwcfg_item *it = &f->items[i];
        if (!it->name[0])
            continue;
        uint8_t *e = f->dir + 4 + files++ * DIR_ENTRY;
        memset(e, 0, DIR_ENTRY);
        put_be(e, it->len, 4);
        put_be(e + 4, it->key, 2);
        memcpy(e + 8, it->name, strlen(it->name));
    }
    put_be(f->dir, files, 4);
    struct fwcfg_item *dir = find(f, FWCFG_FILE_DIR);
    dir->len = f->dir_len = 4 + files * DIR_ENTRY;
}

static int check_name(const struct fwcfg *f, const char *name)
{
    if (!*name || strlen(name) >= FWCFG_NAME_MAX)
        return -RD_E_INVAL;
    return fwcfg_find_file(f, name) ? -RD_E_BUSY : 0;
}

static void name_last(struct fwcfg *f, const char *name)
{
    struct fwcfg_item *it = &f->items[f->count - 1];
    memcpy(it->name, name, strlen(name) + 1);
    f->next_file++;
    rebuild_dir(f);
}

int fwcfg_add_file(struct fwcfg *f, const char *name, const void *data, size_t len)
{
    int e = check_name(f, name);
    if (!e)
        e = fwcfg_add_bytes(f, f->next_file, data, len);
    if (!e)
        name_last(f, name);
    return e;
}

int fwcfg_add_file_cb(struct fwcfg *f, const char *name, fwcfg_select_fn *fn, void *opaque, size_t len)
{
    int e = check_name(f, name);
    if (!e)
        e = fwcfg_add_ref(f, f->next_file, NULL, len);
    if (e)
        return e;
    f->items[f->count - 1].on_select = fn;
    f->items[f->count - 1].opaque = opaque;
    name_last(f, name);
    return 0;
}

/* -- -fw_cfg option -- */
static int add_host_file(struct fwcfg *f, const char *name, const char *path, char *err, size_t err_len)
{
    struct stat st;
    FILE *in = fopen(path, "rb");
    uint8_t *data = NULL;
    int e = -RD_E_IO;
    if (!in || fstat(fileno(in), &st) || !S_ISREG(st.st_mode)) {
        snprintf(err, err_len, "cannot read file '%s'", path);
    } else if (st.st_size > (off_t)OPTION_FILE_MAX) {
        snprintf(err, err_len, "file '%s' is larger than 64 MiB", path);
    } else if (!(data = malloc((size_t)st.st_size + 1)) ||
               fread(data, 1, (size_t)st.st_size, in) != (size_t)st.st_size) {
        snprintf(err, err_len, "cannot read file '%s'", path);
    } else {
        e = fwcfg_add_file(f, name, data, (size_t)st.st_size);
    }
    free(data);
    if (in)
        fclose(in);
    return e;
}

int fwcfg_add_option(struct fwcfg *f, const char *arg, char *err, size_t err_len)
{
    char name[FWCFG_NAME_MAX + 1];
    const char *value = strchr(arg, ',');
    if (!strncmp(arg, "name=", 5))
        arg += 5;
    size_t n = value && value > arg ? (size_t)(value - arg) : 0;
    *err = 0;
    if (n == 0 || n >= FWCFG_NAME_MAX) {
        snprintf(err, err_len, "a name of 1 to %d characters and file= or string= is needed", FWCFG_NAME_MAX - 1);
        return -RD_E_INVAL;
    }
    memcpy(name, arg, n);
    name[n] = 0;
    int e = -RD_E_INVAL;
    value++;
    if (!strncmp(value, "string=", 7))
        e = fwcfg_add_file(f, name, value + 7, strlen(value + 7)); /* without the zero, as in QEMU */
    else if (!strncmp(value, "file=", 5))
        e = add_host_file(f, name, value + 5, err, err_len);
    else
        snprintf(err, err_len, "'%s' is neither file= nor string=", value);
    if (e && !*err)
        snprintf(err, err_len, "cannot add '%s': %s", name, err_text(e));
    return e;
}

/* -- the guest's side -- */
static void select_item(struct fwcfg *f, uint16_t selector)
{
    f->s.selector = selector & (uint16_t)~SELECTOR_WRITE;
    f->s.offset = 0;
    struct fwcfg_item *it = find(f, f->s.selector);
    if (it && it->on_select)
        it->on_select(it->opaque, &it->data, &it->len);
}

/* Up to n bytes of the selected item; what lies beyond its end is zero. Advances. */
static void read_item(struct fwcfg *f, uint8_t *out, uint32_t n)
{
    const struct fwcfg_item *it = find(f, f->s.selector);
    size_t left = it && it->data && f->s.offset < it->len ? it->len - f->s.offset : 0;
    uint32_t have = left < n ? (uint32_t)left : n;
    if (have)
        memcpy(out, it->data + f->s.offset, have);
    memset(out + have, 0, n - have);
    f->s.offset = f->s.offset > UINT32_MAX - n ? UINT32_MAX : f->s.offset + n;
}

static uint32_t dma_read(struct fwcfg *f, uint64_t addr, uint32_t len)
{
    uint8_t chunk[DMA_CHUNK];
    while (len) {
        uint32_t n = len < DMA_CHUNK ? len : DMA_CHUNK;
        read_item(f, chunk, n);
        if (gmem_write(&f->mem, addr, chunk, n))
            return DMA_ERROR; /* outside RAM: also what ends a transfer of absurd length */
        addr += n;
        len -= n;
    }
    return 0;
}

static void dma_run(struct fwcfg *f, uint64_t gpa)
{
    struct {
        uint32_t control, length;
        uint64_t address;
    } cmd;
    if (gmem_read(&f->mem, gpa, &cmd, sizeof(cmd))) {
        LOGF(GUEST_ERRORS, "fw_cfg DMA descriptor at %#llx is not in RAM", (unsigned long long)gpa);
        return;
    }
    uint32_t control = __builtin_bswap32(cmd.control), len = __builtin_bswap32(cmd.length), result = 0;
    if (control & DMA_SELECT)
        select_item(f, (uint16_t)(control >> 16));
    if (control & DMA_READ)
        result = dma_read(f, __builtin_bswap64(cmd.address), len);
    else if (control & DMA_WRITE)
        result = DMA_ERROR;
    else if (control & DMA_SKIP)
        f->s.offset = f->s.offset > UINT32_MAX - len ? UINT32_MAX : f->s.offset + len;
    result = __builtin_bswap32(result);
    gmem_write(&f->mem, gpa, &result, sizeof(result));
}

static uint64_t ports_read(void *opaque, uint64_t offset, unsigned size)
{
    struct fwcfg *f = opaque;
    uint8_t byte = 0;
    if (offset == OFF_DATA && size == 1) {
        read_item(f, &byte, 1);
        return byte;
    }
    if (offset >= OFF_DMA && f->mem.read) { /* reads as a signature, big-endian like all of the DMA interface */
        uint64_t v = 0;
        memcpy(&v, "QEMU CFG" + (offset - OFF_DMA), size);
        return v;
    }
    return offset == OFF_SELECTOR ? 0 : UINT32_MAX;
}

static void ports_write(void *opaque, uint64_t offset, unsigned size, uint64_t val)
{
    struct fwcfg *f = opaque;
    if (offset == OFF_SELECTOR && size == 2) {
        select_item(f, (uint16_t)val);
    } else if (offset == OFF_DMA && size == 4) {
        f->s.dma_addr = (uint64_t)__builtin_bswap32((uint32_t)val) << 32;
    } else if (offset == OFF_DMA + 4 && size == 4 && f->mem.read) {
        uint64_t gpa = f->s.dma_addr | __builtin_bswap32((uint32_t)val); /* the low half starts it */
        f->s.dma_addr = 0;
        dma_run(f, gpa);
    }
}

static const struct bus_ops port_ops = {.read = ports_read, .write = ports_write, .max_size = 4};

/* -- life and saved state -- */
static void fwcfg_reset(void *dev)
{
    struct fwcfg *f = dev;
    memset(&f->s, 0, sizeof(f->s));
}

int fwcfg_init(struct fwcfg *f, struct bus *b, const struct gmem *mem)
{
    memset(f, 0, sizeof(*f));
    f->bus = b;
    if (mem)
        f->mem = *mem;
    f->next_file = FWCFG_FILE_FIRST;
    f->dir = calloc(1, 4 + FWCFG_MAX_ITEMS * DIR_ENTRY);
    if (!f->dir)
        return -RD_E_NOMEM;
    f->dir_len = 4;
    int e = fwcfg_add_bytes(f, FWCFG_SIGNATURE, "QEMU", 4);
    if (!e)
        e = fwcfg_add_u32(f, FWCFG_ID, ID_TRADITIONAL | (f->mem.read ? ID_DMA : 0));
    if (!e)
        e = fwcfg_add_ref(f, FWCFG_FILE_DIR, f->dir, f->dir_len);
    if (!e) {
        struct bus_range r = {"fw_cfg", BUS_PIO, PORT, PORTS, &port_ops, f};
        int h = bus_add(b, &r);
        e = h < 0 ? h : 0;
    }
    if (e)
        fwcfg_fini(f);
    return e;
}

void fwcfg_fini(struct fwcfg *f)
{
    for (unsigned i = 0; i < f->count; i++)
        free(f->items[i].owned);
    free(f->dir);
    f->dir = NULL;
    f->count = 0;
}

static void fwcfg_save(const void *dev, struct dev_writer *w)
{
    const struct fwcfg *f = dev;
    dev_put(w, f->s.selector, 2);
    dev_put(w, f->s.offset, 4);
    dev_put(w, f->s.dma_addr, 8);
}

static int fwcfg_restore(void *dev, struct dev_reader *r, uint16_t version)
{
    struct fwcfg *f = dev;
    __typeof__(f->s) in;
    in.selector = (uint16_t)dev_get(r, 2);
    in.offset = (uint32_t)dev_get(r, 4);
    in.dma_addr = dev_get(r, 8);
    if (r->failed)
        return -RD_E_FORMAT;
    f->s = in;
    return 0;
}

const struct dev_ops fwcfg_dev_ops = {
    .type = "fw_cfg",
    .version = 1,
    .reset = fwcfg_reset,
    .save = fwcfg_save,
    .restore = fwcfg_restore,
};
