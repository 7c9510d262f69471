/* shadowmmu/uworld_map.c - a world's mappings: commands for its mapper thread. */
#define _GNU_SOURCE
#include "shadowmmu/uworld_int.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/err.h"
#include <asm/ldt.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

/* When a mapper that does not answer is given up. The guest cannot hold it up, a busy host can. */
#define MAPPER_LIMIT_NS 60000000000ull

static bool performed(const struct uworld *w) { return w->hdr->done == w->hdr->seq; }

static bool wait_performed(struct uworld *w)
{
    struct uw_hdr *h = w->hdr;
    uint64_t end = 0;
    while (!performed(w)) {
        atomic_store(&h->mapper_wait, 1);
        uint32_t done = h->done;
        if (done != h->seq)
            uw_futex_wait(&h->done, done);
        atomic_store(&h->mapper_wait, 0);
        if (performed(w))
            break;
        uint64_t now = clock_now_ns();
        end = end ? end : now + MAPPER_LIMIT_NS;
        if (!uw_alive(w) || now > end)
            return false;
    }
    return true;
}

/* Hands out what is queued and waits. Returns 0, the failed command's errno, or -1: dead. */
static int perform(struct uworld *w)
{
    struct uw_hdr *h = w->hdr;
    unsigned n = w->n_cmds;
    w->n_cmds = 0;
    if (w->life == UW_GONE)
        return -1;
    h->count = n;
    h->err = 0;
    w->pool->counts.batches++;
    w->pool->counts.commands += n;
    /* Spinning for the mapper does not pay: an idle CPU takes far longer to wake up than two switches on this one, and the CPU that
     * the guest thread spins on is not free at all. So the mapper is kept on the CPU that the monitor is about to leave to it. */
    uw_cpu_mapper(w);
    atomic_fetch_add(&h->seq, 1);
    uw_futex_wake(&h->seq);
    if (!wait_performed(w)) {
        uw_kill(w);
        return -1;
    }
    /* They name places in guest memory, which is not the guest program's business. */
    memset(h->ring, 0, n * sizeof h->ring[0]);
    return (int)h->err;
}

static struct uw_cmd *last_cmd(struct uworld *w) { return w->n_cmds ? &w->hdr->ring[w->n_cmds - 1] : NULL; }

static int queue(struct uworld *w, const struct uw_cmd *c)
{
    if (w->n_cmds == UW_RING) {
        int err = uw_flush(w);
        if (err)
            return err;
    }
    w->hdr->ring[w->n_cmds++] = *c;
    return 0;
}

static bool range_allowed(const struct uworld *w, uint64_t gva, uint64_t bytes)
{
    return bytes && !((gva | bytes) & 0xfff) && bytes <= UW_TASK_END && gva <= UW_TASK_END - bytes &&
           !uw_conflicts(w->pool, gva, bytes);
}

static uint64_t host_prot(unsigned prot)
{
    return PROT_READ | (prot & UW_W ? PROT_WRITE : 0) | (prot & UW_X ? PROT_EXEC : 0);
}

int uw_map(struct uworld *w, uint64_t gva, uint64_t memfd_offset, uint64_t bytes, unsigned prot)
{
    if (!range_allowed(w, gva, bytes) || (memfd_offset & 0xfff) || memfd_offset > INT64_MAX - bytes)
        return -RD_E_INVAL;
    uint64_t flags = MAP_SHARED | MAP_FIXED | MAP_NORESERVE | (prot & UW_POPULATE ? MAP_POPULATE : 0);
    struct uw_cmd c = {SYS_mmap, {gva, bytes, host_prot(prot), flags, UW_FD_MEM, memfd_offset}, 0};
    struct uw_cmd *l = last_cmd(w);
    if (l && l->nr == SYS_mmap && l->arg[0] + l->arg[1] == gva && l->arg[5] + l->arg[1] == memfd_offset &&
        l->arg[2] == c.arg[2] && l->arg[3] == flags) {
        l->arg[1] += bytes;
        return 0;
    }
    return queue(w, &c);
}

int uw_unmap(struct uworld *w, uint64_t gva, uint64_t bytes)
{
    if (!range_allowed(w, gva, bytes))
        return -RD_E_INVAL;
    struct uw_cmd *l = last_cmd(w);
    if (l && l->nr == SYS_munmap && l->arg[0] + l->arg[1] == gva) {
        l->arg[1] += bytes;
        return 0;
    }
    struct uw_cmd c = {SYS_munmap, {gva, bytes}, 0};
    return queue(w, &c);
}

int uw_protect(struct uworld *w, uint64_t gva, uint64_t bytes, unsigned prot)
{
    if (!range_allowed(w, gva, bytes))
        return -RD_E_INVAL;
    struct uw_cmd *l = last_cmd(w);
    if (l && l->nr == SYS_mprotect && l->arg[0] + l->arg[1] == gva && l->arg[2] == host_prot(prot)) {
        l->arg[1] += bytes;
        return 0;
    }
    struct uw_cmd c = {SYS_mprotect, {gva, bytes, host_prot(prot)}, 0};
    return queue(w, &c);
}

int uw_unmap_all(struct uworld *w)
{
    uint64_t base = w->pool->cfg.base, end = base + UW_SPAN;
    struct uw_cmd low = {SYS_munmap, {0, base}, 0}, high = {SYS_munmap, {end, UW_TASK_END - end}, 0};
    int err = queue(w, &low);
    return err ? err : queue(w, &high);
}

int uw_flush(struct uworld *w)
{
    if (w->life == UW_GONE)
        return -RD_E_HOST;
    if (!w->n_cmds)
        return 0;
    int err = perform(w);
    if (err == 0)
        return 0;
    if (err < 0)
        return -RD_E_HOST;
    w->pool->counts.emptied++;
    w->n_ldt = 0; /* commands behind the failed one were not performed */
    /* Unmapping whole halves never splits a mapping, so it needs nothing that the host could be out of. */
    uw_unmap_all(w);
    if (perform(w) == 0)
        return -RD_E_NOMEM;
    uw_kill(w);
    return -RD_E_HOST;
}

/* ---- descriptors ---- */

int uw_ldt(struct uworld *w, uint32_t base, uint16_t *sel, bool *wrapped)
{
    *wrapped = false;
    unsigned i = 0;
    while (i < w->n_ldt && w->ldt_base[i] != base)
        i++;
    *sel = (uint16_t)(i << 3 | 7);
    if (i < w->n_ldt)
        return 0;
    if (i == UW_LDT_ENTRIES) {
        i = w->n_ldt = 0;
        *sel = 7;
        *wrapped = true;
    }
    /* The call's argument needs memory that the guest cannot write: the next ring entry, passed over by its own call. */
    if (w->n_cmds + 2 > UW_RING) {
        int err = uw_flush(w);
        if (err)
            return err;
    }
    struct user_desc d = {
        .entry_number = i, .base_addr = base, .limit = 0xfffff, .seg_32bit = 1, .limit_in_pages = 1, .useable = 1};
    _Static_assert(sizeof d <= 16, "fits behind two arguments");
    struct uw_cmd c = {SYS_modify_ldt, {0x11, 0, sizeof d}, 0};
    uint64_t entry = UW_H_RING + w->n_cmds * sizeof c;
    c.arg[1] = w->pool->cfg.base + entry + offsetof(struct uw_cmd, arg[3]);
    memcpy(&c.arg[3], &d, sizeof d);
    w->ldt_base[i] = base;
    w->n_ldt = i + 1;
    return queue(w, &c);
}
