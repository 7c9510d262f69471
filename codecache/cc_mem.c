/* codecache/cc_mem.c - memory for what a sector holds: the descriptions of its blocks, and the pages of its code.
 *
 * Descriptions of one sector end together, so they lie one behind the other in chunks that stay the sector's. Pages are asked for in
 * batches: one fault each would be a tenth of the time that a translation takes. */
#define _GNU_SOURCE
#include "codecache/cc_int.h"
#include <sanitizer/asan_interface.h>
#include <sys/mman.h>

#define CHUNK_BYTES 0x20000u
#define AHEAD_BYTES 0x10000u /* more than one translation */
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22 /* Linux 5.14; older ones refuse, and pages come one by one */
#define MADV_POPULATE_WRITE 23
#endif

struct cc_chunk {
    struct cc_chunk *next;
    uint32_t used; /* with this head */
};

static struct cc_chunk *new_chunk(void)
{
    struct cc_chunk *c =
        mmap(NULL, CHUNK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    return c == MAP_FAILED ? NULL : c;
}

/* The chunk with room for bytes: the current one, the next one that is there, or a new one. */
static struct cc_chunk *room(struct cc_sector *s, uint32_t bytes)
{
    if (s->chunk && s->chunk->used + bytes <= CHUNK_BYTES)
        return s->chunk;
    struct cc_chunk **link = s->chunk ? &s->chunk->next : &s->first_chunk;
    if (!*link)
        *link = new_chunk();
    if (!*link)
        return NULL;
    s->chunk = *link;
    s->chunk->used = sizeof(struct cc_chunk);
    return s->chunk;
}

void *cc_describe(struct cc_sector *s, size_t bytes)
{
    bytes = (bytes + 15) & ~(size_t)15;
    CHECK(bytes <= CHUNK_BYTES - sizeof(struct cc_chunk));
    struct cc_chunk *c = room(s, (uint32_t)bytes);
    if (!c)
        return NULL;
    uint8_t *p = (uint8_t *)c + c->used;
    c->used += (uint32_t)bytes;
    ASAN_UNPOISON_MEMORY_REGION(p, bytes);
    return p;
}

void cc_forget_all(struct cc_sector *s)
{
    for (struct cc_chunk *c = s->first_chunk; c; c = c->next)
        ASAN_POISON_MEMORY_REGION(c + 1, CHUNK_BYTES - sizeof *c);
    s->chunk = NULL;
}

void cc_free_chunks(struct cc_sector *s)
{
    for (struct cc_chunk *c = s->first_chunk, *next; c; c = next) {
        next = c->next;
        ASAN_UNPOISON_MEMORY_REGION(c, CHUNK_BYTES);
        munmap(c, CHUNK_BYTES);
    }
    s->first_chunk = s->chunk = NULL;
}

static void touch(const struct codecache *cc, uint64_t pc, uint32_t bytes)
{
    madvise(cc_writable(cc, pc), bytes, MADV_POPULATE_WRITE);
    madvise((void *)(uintptr_t)pc, bytes, MADV_POPULATE_READ);
}

/* One half of a sector, at pc: sees to it that the bytes up to end have pages. */
void cc_touch(const struct codecache *cc, uint64_t pc, uint32_t end, uint32_t *touched)
{
    uint32_t half = cc->sector_bytes / 2, n = half - *touched < AHEAD_BYTES ? half - *touched : AHEAD_BYTES;
    if (end <= *touched)
        return;
    touch(cc, pc + *touched, n);
    *touched += n;
}
