/* monitor/memcost.c - what the shadow costs in memory beyond the guest's RAM, for -stats: the host's page tables and mappings of
 * this process and its user worlds, and our own tables, as far as they are resident. Not nofpu. */
#define _GNU_SOURCE
#include "monitor/vm_int.h"
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#define MAX_WORLDS 1024u
/* vm_area_struct and its share of the tree and of the reverse map, Linux 6: estimated from slabinfo's object sizes. */
#define BYTES_PER_MAPPING 256u

/* "VmPTE:  123 kB" of a process, in KiB. */
static uint64_t pte_kib(int pid)
{
    char path[32], line[128];
    unsigned long long kib = 0;
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    FILE *f = pid ? fopen(path, "re") : fopen("/proc/self/status", "re");
    if (!f)
        return 0;
    while (fgets(line, sizeof line, f) && sscanf(line, "VmPTE: %llu", &kib) != 1)
        ;
    fclose(f);
    return kib;
}

static uint64_t mappings(void)
{
    FILE *f = fopen("/proc/self/maps", "re");
    uint64_t n = 0;
    for (int c; f && (c = fgetc(f)) != EOF;)
        n += c == '\n';
    if (f)
        fclose(f);
    return n;
}

/* Pages of our own: not the host's one page of zeros, which is what reading untouched memory gives. */
#define PAGEMAP_PRESENT (1ull << 63)
#define PAGEMAP_EXCLUSIVE (1ull << 56)
static uint64_t resident_kib(const void *at, size_t bytes)
{
    uint64_t n = 0, e[512];
    uintptr_t page = (uintptr_t)at >> 12, end = ((uintptr_t)at + bytes + 0xfff) >> 12;
    int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    while (fd >= 0 && page < end) {
        size_t want = end - page < 512 ? end - page : 512;
        if (pread(fd, e, want * 8, (off_t)(page * 8)) != (ssize_t)(want * 8))
            break;
        for (size_t i = 0; i < want; i++)
            n += (e[i] & PAGEMAP_PRESENT) && (e[i] & PAGEMAP_EXCLUSIVE);
        page += want;
    }
    if (fd >= 0)
        close(fd);
    return n * 4;
}

static uint64_t window_kib(const struct window *w)
{
    const void *at[2];
    size_t bytes[2];
    uint64_t kib = 0;
    if (!w)
        return 0;
    window_tables(w, at, bytes);
    for (unsigned i = 0; i < 2; i++)
        kib += resident_kib(at[i], bytes[i]);
    return kib;
}

void vm_measure_shadow(struct vm *vm)
{
    struct vcpu *v = vm->vcpu;
    struct stats *s = &vm->stats;
    int pid[MAX_WORLDS];
    unsigned n = v->priv->direct ? direct_worlds(v->priv->direct, pid, MAX_WORLDS) : 0;
    s->shadow_pte_kib = pte_kib(0);
    s->shadow_world_pte_kib = 0;
    for (unsigned i = 0; i < n; i++)
        s->shadow_world_pte_kib += pte_kib(pid[i]);
    s->shadow_worlds = n;
    s->shadow_mappings = mappings();
    s->shadow_tlb_kib = resident_kib(v->tlb, sizeof v->tlb);
    s->shadow_tables_kib = window_kib(v->priv->win64) + window_kib(v->priv->win32);
    s->shadow_kib = s->shadow_pte_kib + s->shadow_world_pte_kib + s->shadow_tables_kib + s->shadow_tlb_kib +
                    s->shadow_mappings * BYTES_PER_MAPPING / 1024;
}
