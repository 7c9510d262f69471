/* shadowmmu/gpmem.c - guest physical memory: creation, slots, bulk copies. Look-ups are in gpmem_nofpu.c. */
#define _GNU_SOURCE
#include "shadowmmu/gpmem_int.h"
#include "base/err.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#define MIB2 (2ull << 20)
#define PLACE_LOW (1ull << 40) /* slots are placed at random in [1 TiB, 7 TiB) */
#define PLACE_SPAN (6ull << 40)
#define PLACE_TRIES 64

int gpmem_create(struct gpmem **out, uint64_t max_bytes)
{
    int err = -RD_E_HOST;
    if (max_bytes == 0 || (max_bytes & 0xfff) || max_bytes > PLACE_SPAN / 2)
        return -RD_E_INVAL;
    struct gpmem *m = calloc(1, sizeof *m);
    if (!m)
        return -RD_E_NOMEM;
    m->max_bytes = max_bytes;
    /* Slack for invariant GP-2; the file is sparse, so it costs nothing. */
    m->file_bytes = max_bytes + (GPMEM_MAX_SLOTS + 1) * MIB2;
    m->fd = memfd_create("guest-ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (m->fd < 0)
        goto out_free;
    if (ftruncate(m->fd, (off_t)m->file_bytes))
        goto out_close;
    /* Sealed size: nobody who gets the descriptor (user worlds, a device process) can shrink it under our mapping. */
    if (fcntl(m->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
        goto out_close;
    *out = m;
    return 0;
out_close:
    close(m->fd);
out_free:
    free(m);
    return err;
}

static void unmap_slot(struct gpmem_slot *s)
{
    uint8_t *base = s->host - (s->gpa & (MIB2 - 1)) - GPMEM_GUARD_BYTES;
    munmap(base, (s->gpa & (MIB2 - 1)) + s->bytes + 2 * GPMEM_GUARD_BYTES);
    free(s->flags);
}

void gpmem_destroy(struct gpmem *m)
{
    if (!m)
        return;
    for (unsigned i = 0; i < m->n_slots; i++)
        unmap_slot(&m->slots[i]);
    close(m->fd);
    free(m);
}

/* Reserves inaccessible addresses at a random 2 MiB boundary. NULL if the host has no room there. */
static uint8_t *reserve(uint64_t bytes)
{
    for (int i = 0; i < PLACE_TRIES; i++) {
        uint64_t r;
        if (getrandom(&r, sizeof r, 0) != sizeof r)
            return NULL;
        uintptr_t at = PLACE_LOW + (r % ((PLACE_SPAN - bytes) / MIB2)) * MIB2;
        void *p = mmap((void *)at, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE,
                       -1, 0);
        if (p == (void *)at)
            return p;
        /* A kernel older than the flag treats the address as a hint. */
        if (p != MAP_FAILED)
            munmap(p, bytes);
    }
#if defined(__SANITIZE_ADDRESS__)
    /* AddressSanitizer's shadow owns everything below 16 TiB; GP-4 matters to the kernel window only. */
    uint8_t *p = mmap(NULL, bytes + MIB2, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p != MAP_FAILED) {
        size_t head = -(uintptr_t)p & (MIB2 - 1);
        if (head)
            munmap(p, head);
        munmap(p + head + bytes, MIB2 - head);
        return p + head;
    }
#endif
    return NULL;
}

/* Maps a slot's piece of the file between two guards. */
static uint8_t *map_slot(int fd, uint64_t gpa, uint64_t bytes, uint64_t offset)
{
    uint64_t skew = gpa & (MIB2 - 1), span = skew + bytes + 2 * GPMEM_GUARD_BYTES;
    uint8_t *base = reserve(span);
    if (!base)
        return NULL;
    uint8_t *host = base + GPMEM_GUARD_BYTES + skew;
    if (mmap(host, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE | MAP_FIXED, fd, (off_t)offset) != host) {
        munmap(base, span);
        return NULL;
    }
    return host;
}

static bool slot_allowed(const struct gpmem *m, uint64_t gpa, uint64_t bytes)
{
    if (!bytes || ((gpa | bytes) & 0xfff) || bytes > GPMEM_GPA_END || gpa > GPMEM_GPA_END - bytes)
        return false;
    for (unsigned i = 0; i < m->n_slots; i++) {
        const struct gpmem_slot *s = &m->slots[i];
        if (gpa < s->gpa + s->bytes && s->gpa < gpa + bytes)
            return false;
    }
    return true;
}

int gpmem_add(struct gpmem *m, uint64_t gpa, uint64_t bytes, bool rom)
{
    if (!slot_allowed(m, gpa, bytes))
        return -RD_E_INVAL;
    if (m->n_slots == GPMEM_MAX_SLOTS || bytes > m->max_bytes - m->used_bytes)
        return -RD_E_NOMEM;
    uint64_t offset = m->next_offset + ((gpa - m->next_offset) & (MIB2 - 1));
    struct gpmem_slot s = {.gpa = gpa, .bytes = bytes, .memfd_offset = offset, .rom = rom};
    s.flags = calloc(bytes >> 12, 1);
    if (!s.flags)
        return -RD_E_NOMEM;
    s.host = map_slot(m->fd, gpa, bytes, offset);
    if (!s.host) {
        free(s.flags);
        return -RD_E_HOST;
    }
    unsigned i = m->n_slots++;
    for (; i > 0 && m->slots[i - 1].gpa > gpa; i--)
        m->slots[i] = m->slots[i - 1];
    m->slots[i] = s;
    m->used_bytes += bytes;
    m->next_offset = offset + bytes;
    return 0;
}

const struct gpmem_slot *gpmem_slots(const struct gpmem *m, unsigned *count)
{
    *count = m->n_slots;
    return m->slots;
}

int gpmem_fd(const struct gpmem *m) { return m->fd; }

uint64_t gpmem_ram_bytes(const struct gpmem *m)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < m->n_slots; i++)
        sum += m->slots[i].rom ? 0 : m->slots[i].bytes;
    return sum;
}

void gpmem_set_trace_hook(struct gpmem *m, void (*hook)(void *opaque, uint64_t gpa, size_t bytes), void *opaque)
{
    m->trace_hook = hook;
    m->trace_opaque = opaque;
}

/* Adjacent slots are not adjacent in the host, so a range may consist of several pieces. */
static size_t piece_bytes(const struct gpmem_slot *s, uint64_t gpa, size_t bytes)
{
    uint64_t left = s->bytes - (gpa - s->gpa);
    return left < bytes ? (size_t)left : bytes;
}

static bool range_in_slots(const struct gpmem *m, uint64_t gpa, size_t bytes)
{
    while (bytes) {
        const struct gpmem_slot *s = gpmem_find(m, gpa);
        if (!s)
            return false;
        size_t n = piece_bytes(s, gpa, bytes);
        gpa += n;
        bytes -= n;
    }
    return true;
}

int gpmem_read(const struct gpmem *m, uint64_t gpa, void *buf, size_t bytes)
{
    if (!range_in_slots(m, gpa, bytes))
        return -RD_E_RANGE;
    for (uint8_t *to = buf; bytes;) {
        const struct gpmem_slot *s = gpmem_find(m, gpa);
        size_t n = piece_bytes(s, gpa, bytes);
        memcpy(to, s->host + (gpa - s->gpa), n);
        to += n;
        gpa += n;
        bytes -= n;
    }
    return 0;
}

static void trace_range(const struct gpmem *m, uint64_t gpa, size_t bytes)
{
    while (bytes) {
        size_t n = 0x1000 - (gpa & 0xfff);
        n = n < bytes ? n : bytes;
        gpmem_trace(m, gpa, n, GP_TRACED_MASK);
        gpa += n;
        bytes -= n;
    }
}

int gpmem_write(struct gpmem *m, uint64_t gpa, const void *buf, size_t bytes)
{
    if (!range_in_slots(m, gpa, bytes))
        return -RD_E_RANGE;
    for (const uint8_t *from = buf; bytes;) {
        const struct gpmem_slot *s = gpmem_find(m, gpa);
        size_t n = piece_bytes(s, gpa, bytes);
        trace_range(m, gpa, n);
        memcpy(s->host + (gpa - s->gpa), from, n);
        from += n;
        gpa += n;
        bytes -= n;
    }
    return 0;
}
