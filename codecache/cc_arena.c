/* codecache/cc_arena.c - executable memory and its sectors: reserve, commit, evict, flush. */
#define _GNU_SOURCE
#include "base/err.h"
#include "codecache/cc_int.h"
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define LOW_START 0x10000000ull
#define LOW_END 0x70000000ull
#define MIN_SECTOR 0x20000u /* room for the largest translation in each half */

uint8_t *cc_writable(const struct codecache *cc, uint64_t pc) { return cc->w + (pc - cc->x); }

/* Maps the memfd executable somewhere in the low 2 GiB. */
static int map_low(int fd, size_t bytes, uint64_t *at)
{
    uint64_t span = LOW_END - LOW_START - bytes, seed = 0;
    if (getentropy(&seed, sizeof seed))
        seed = (uint64_t)getpid();
    for (unsigned tries = 0; tries < 64; tries++) {
        uint64_t a = LOW_START + (seed + tries * 0x3000000ull) % span;
        a &= ~0x1fffffull;
        void *p = mmap((void *)(uintptr_t)a, bytes, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0);
        if (p == (void *)(uintptr_t)a) {
            *at = a;
            return 0;
        }
        if (p != MAP_FAILED)
            munmap(p, bytes);
    }
    return -RD_E_HOST;
}

int cc_create(struct codecache **out, size_t bytes, struct stats *stats)
{
    struct codecache *cc = calloc(1, sizeof *cc);
    if (!cc)
        return -RD_E_NOMEM;
    cc->stats = stats;
    cc->sector_bytes = (uint32_t)(bytes / 16 + 0xffff) & ~0xffffu;
    if (cc->sector_bytes < MIN_SECTOR)
        cc->sector_bytes = MIN_SECTOR;
    cc->n_sectors = (unsigned)(bytes / cc->sector_bytes);
    if (cc->n_sectors < 2)
        cc->n_sectors = 2;
    CHECK(cc->n_sectors <= CC_MAX_SECTORS);
    cc->bytes = CC_GLUE_BYTES + (size_t)cc->n_sectors * cc->sector_bytes;
    int rc = -RD_E_HOST, fd = memfd_create("ringdown-tc", MFD_CLOEXEC);
    if (fd < 0)
        goto out_free;
    if (ftruncate(fd, (off_t)cc->bytes) || map_low(fd, cc->bytes, &cc->x))
        goto out_close;
    cc->w = mmap(NULL, cc->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (cc->w == MAP_FAILED)
        goto out_unmap;
    rc = -RD_E_NOMEM;
    cc->sector = calloc(cc->n_sectors, sizeof *cc->sector);
    if (!cc->sector)
        goto out_unmap_w;
    for (unsigned i = 0; i < cc->n_sectors; i++)
        cc->sector[i].pc = cc->x + CC_GLUE_BYTES + (uint64_t)i * cc->sector_bytes;
    close(fd);
    *out = cc;
    return 0;
out_unmap_w:
    munmap(cc->w, cc->bytes);
out_unmap:
    munmap((void *)(uintptr_t)cc->x, cc->bytes);
out_close:
    close(fd);
out_free:
    free(cc);
    return rc;
}

static void empty_sector(struct codecache *cc, struct cc_sector *s)
{
    if (s->n && cc->evicting)
        cc->evicting(cc->opaque);
    for (unsigned i = 0; i < s->n; i++) {
        if (!s->block[i]->dead)
            cc->stats->evicted++;
        cc_kill(cc, s->block[i]);
    }
    cc_forget_all(s);
    s->n = 0;
    s->hot = s->cold = 0;
}

void cc_destroy(struct codecache *cc)
{
    if (!cc)
        return;
    cc->dropped = NULL;
    for (unsigned i = 0; i < cc->n_sectors; i++) {
        cc_free_chunks(&cc->sector[i]);
        free(cc->sector[i].block);
    }
    munmap(cc->w, cc->bytes);
    munmap((void *)(uintptr_t)cc->x, cc->bytes);
    free(cc->sector);
    free(cc);
}

void cc_glue_space(struct codecache *cc, struct cc_space *s)
{
    s->hot = cc->w;
    s->hot_end = cc->w + CC_GLUE_BYTES;
    s->hot_pc = cc->x;
    s->cold = s->cold_end = NULL;
    s->cold_pc = 0;
}

void cc_reserve(struct codecache *cc, uint32_t hot_bytes, uint32_t cold_bytes, struct cc_space *s)
{
    uint32_t half = cc->sector_bytes / 2;
    CHECK(hot_bytes <= half && cold_bytes <= half && cc->n_kicked == 0);
    struct cc_sector *c = &cc->sector[cc->cur];
    if (half - c->hot < hot_bytes || half - c->cold < cold_bytes) {
        cc->cur = (cc->cur + 1) % cc->n_sectors;
        c = &cc->sector[cc->cur];
        empty_sector(cc, c);
    }
    s->hot_pc = c->pc + c->hot;
    s->cold_pc = c->pc + half + c->cold;
    s->hot = cc_writable(cc, s->hot_pc);
    s->cold = cc_writable(cc, s->cold_pc);
    s->hot_end = s->hot + hot_bytes;
    s->cold_end = s->cold + cold_bytes;
    cc_touch(cc, c->pc, c->hot + hot_bytes, &c->hot_touched);
    cc_touch(cc, c->pc + half, c->cold + cold_bytes, &c->cold_touched);
}

bool cc_reserve_in_place(struct codecache *cc, const struct cc_block *from, uint32_t hot_bytes, uint32_t cold_bytes,
                         struct cc_space *s)
{
    uint32_t half = cc->sector_bytes / 2;
    const struct cc_sector *c = &cc->sector[cc->cur];
    if (from->dead || !c->n || c->block[c->n - 1] != from || from->d.fall_exit > 1)
        return false;
    if (half - c->hot < hot_bytes || half - c->cold < cold_bytes)
        return false;
    cc_reserve(cc, hot_bytes, cold_bytes, s);
    uint32_t back = (uint32_t)(s->hot_pc - from->d.exit[from->d.fall_exit].jmp_pc);
    s->hot_pc -= back;
    s->hot -= back;
    return true;
}

/* The jump may have to be written back over the first bytes: nothing in them may be patched for another reason. */
bool cc_fits_in_place(const struct ccf_desc *d)
{
    for (unsigned i = 0; i < d->n_exits; i++)
        if (d->exit[i].jmp_pc < d->hot_pc + 5)
            return false;
    return d->hot_bytes >= 5 && (!d->ij_pc || d->ij_pc >= d->hot_pc + 5);
}

static void page_in(struct codecache *cc, struct cc_block *b, unsigned slot, uint64_t phys)
{
    struct cc_block **head = &cc->page[cc_page_hash(phys)];
    b->page_next[slot] = *head;
    *head = b;
}

struct cc_block *cc_commit(struct codecache *cc, const struct cc_key *k, uint64_t phys2, const struct ccf_desc *d,
                           const struct ccf_point *points)
{
    struct cc_sector *c = &cc->sector[cc->cur];
    size_t pbytes = d->n_points * sizeof *points;
    if (c->n == c->cap) {
        unsigned cap = c->cap ? c->cap * 2 : 256;
        struct cc_block **n = realloc(c->block, cap * sizeof(struct cc_block *));
        if (!n)
            return NULL;
        c->block = n;
        c->cap = cap;
    }
    struct cc_block *b = cc_describe(c, sizeof *b + sizeof(struct cc_links) + pbytes);
    if (!b)
        return NULL;
    *b = (struct cc_block){.key = *k, .phys2 = phys2, .d = *d};
    b->links = (struct cc_links *)(b + 1);
    *b->links = (struct cc_links){.in = NULL};
    b->point = (struct ccf_point *)(b->links + 1);
    if (pbytes)
        memcpy(b->links + 1, points, pbytes);
    ASSERT(d->start_pc <= c->pc + c->hot && d->cold_pc == c->pc + cc->sector_bytes / 2 + c->cold);
    c->hot = (uint32_t)((d->hot_pc + d->hot_bytes - c->pc + 15) & ~15u);
    c->cold = (uint32_t)(d->cold_pc + d->cold_bytes - c->pc - cc->sector_bytes / 2);
    for (unsigned i = 0; i < d->n_exits; i++) {
        uint32_t name = cc_exit_name(cc->cur, c->n, i);
        memcpy(cc_writable(cc, d->exit[i].name_pc), &name, sizeof name);
    }
    c->block[c->n++] = b;
    unsigned h = cc_hash(k);
    b->hash_next = cc->hash[h];
    cc->hash[h] = b;
    page_in(cc, b, 0, k->phys);
    /* Two pages that share a bucket would put the block into one list twice. */
    if (phys2 != ~0ull && cc_page_hash(phys2) == cc_page_hash(k->phys))
        b->page_next[1] = NULL;
    else if (phys2 != ~0ull)
        page_in(cc, b, 1, phys2);
    return b;
}

void cc_flush(struct codecache *cc)
{
    for (unsigned i = 0; i < cc->n_sectors; i++)
        empty_sector(cc, &cc->sector[i]);
    cc->cur = 0;
    cc->stats->tc_flushes++;
}

void cc_set_hooks(struct codecache *cc, void (*dropped)(void *opaque, struct cc_block *b),
                  void (*evicting)(void *opaque), void *opaque)
{
    cc->dropped = dropped;
    cc->evicting = evicting;
    cc->opaque = opaque;
}

unsigned cc_block_count(const struct codecache *cc)
{
    unsigned n = 0;
    for (unsigned i = 0; i < cc->n_sectors; i++)
        n += cc->sector[i].n;
    return n;
}

size_t cc_bytes_used(const struct codecache *cc)
{
    size_t n = 0;
    for (unsigned i = 0; i < cc->n_sectors; i++)
        n += cc->sector[i].hot + cc->sector[i].cold;
    return n;
}
