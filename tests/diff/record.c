/* tests/diff/record.c - see record.h. Memory (the pages that exist) is kept as its differences from the golden image. */
#include "tests/diff/record.h"
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAGIC 0x3143455244545244ull /* DRTDREC1 */
struct header {
    uint64_t magic, seed, xcr0;
    uint32_t mode, fpu_bytes;
};
struct entry {
    uint64_t number, cr2;
    uint32_t vector, error, changed; /* bytes of memory that follow, 4 each: offset << 8 | value */
    uint32_t pad;
    struct dt_regs regs;
};
struct dt_record {
    FILE *f;
    bool bad;
    const uint8_t *golden;
    struct dt_result result[DT_BATCH];
};

static struct header header_of(enum dt_mode mode, uint64_t seed)
{
    const struct dt_xsave *x = dt_xsave();
    struct header h;
    memset(&h, 0, sizeof h);
    h.magic = MAGIC;
    h.seed = seed;
    h.xcr0 = x->xcr0;
    h.mode = mode;
    h.fpu_bytes = x->bytes;
    return h;
}

static struct dt_record *open_file(const char *path, const char *how, const uint8_t *golden)
{
    struct dt_record *w = calloc(1, sizeof *w);
    if (!w)
        return NULL;
    w->golden = golden;
    w->f = fopen(path, how);
    if (w->f)
        return w;
    perror(path);
    free(w);
    return NULL;
}

struct dt_record *dt_record_create(const char *path, enum dt_mode mode, uint64_t seed, const uint8_t *golden)
{
    struct dt_record *w = open_file(path, "wb", golden);
    struct header h = header_of(mode, seed);
    if (w)
        w->bad = fwrite(&h, sizeof h, 1, w->f) != 1;
    return w;
}

void dt_record_put(struct dt_record *w, const struct dt_case *c, const struct dt_result *r)
{
    static uint32_t change[DT_DATA_BYTES];
    struct entry e;
    memset(&e, 0, sizeof e);
    e.number = c->number;
    e.cr2 = r->cr2;
    e.vector = r->vector;
    e.error = r->error;
    e.regs = r->regs;
    for (uint32_t i = 0; i < DT_DATA_BYTES; i++)
        if (DT_DATA_KINDS[i / DT_PAGE] != '.' && r->mem[i] != w->golden[i])
            change[e.changed++] = i << 8 | r->mem[i];
    w->bad |= fwrite(&e, sizeof e, 1, w->f) != 1 || fwrite(r->fpu, dt_xsave()->bytes, 1, w->f) != 1 ||
              fwrite(change, sizeof change[0], e.changed, w->f) != e.changed;
}

int dt_record_close(struct dt_record *w)
{
    bool bad = fclose(w->f) != 0 || w->bad;
    free(w);
    if (bad)
        fputs("diff: the record could not be written\n", stderr);
    return bad ? -1 : 0;
}

static bool take(struct dt_record *w, const struct dt_case *c, struct dt_result *r)
{
    static uint32_t change[DT_DATA_BYTES];
    struct entry e;
    if (fread(&e, sizeof e, 1, w->f) != 1 || e.number != c->number || e.changed > DT_DATA_BYTES ||
        fread(r->fpu, dt_xsave()->bytes, 1, w->f) != 1 || fread(change, sizeof change[0], e.changed, w->f) != e.changed)
        return false;
    r->vector = e.vector;
    r->error = e.error;
    r->cr2 = e.cr2;
    r->regs = e.regs;
    memcpy(r->mem, w->golden, DT_DATA_BYTES);
    for (uint32_t i = 0; i < e.changed; i++)
        r->mem[change[i] >> 8 & (DT_DATA_BYTES - 1)] = (uint8_t)change[i];
    return true;
}
_Static_assert((DT_DATA_BYTES & (DT_DATA_BYTES - 1)) == 0, "a mask");

static void recorded_start(void *self, const struct dt_case *cases, unsigned n)
{
    struct dt_record *w = self;
    for (unsigned i = 0; i < n; i++) {
        if (!w->bad && take(w, &cases[i], &w->result[i]))
            continue;
        w->bad = true; /* out of step: nothing that follows means anything */
        w->result[i].vector = DT_VEC_DIED;
    }
}
static const struct dt_result *recorded_finish(void *self) { return ((struct dt_record *)self)->result; }
static void recorded_close(void *self)
{
    struct dt_record *w = self;
    fclose(w->f);
    free(w);
}

int dt_recorded_open(struct dt_backend *b, const char *path, enum dt_mode mode, uint64_t seed, const uint8_t *golden)
{
    struct dt_record *w = open_file(path, "rb", golden);
    struct header h, want = header_of(mode, seed);
    if (!w)
        return -1;
    if (fread(&h, sizeof h, 1, w->f) != 1 || memcmp(&h, &want, sizeof h)) {
        fprintf(stderr, "diff: %s is of another mode, seed or kind of CPU\n", path);
        recorded_close(w);
        return -1;
    }
    *b = (struct dt_backend){"recorded", w, recorded_start, recorded_finish, recorded_close};
    return 0;
}
