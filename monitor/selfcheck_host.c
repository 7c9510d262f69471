/* monitor/selfcheck_host.c - the part of -check that needs the C library: what the host has mapped, the translation cache, reports.
 * Not nofpu. */
#define _GNU_SOURCE
#include "base/err.h"
#include "monitor/selfcheck.h"
#include "monitor/vm_int.h"
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

int selfcheck_create(struct vcpu *v)
{
    struct vm_config *cfg = &v->vm->cfg;
    struct vcpu_priv *p = v->priv;
    p->check.on = cfg->check_shadow || cfg->check_tc;
    p->check.seed = cfg->seed;
    if (!p->check.seed && getrandom(&p->check.seed, 4, 0) != 4)
        p->check.seed = (uint64_t)getpid();
    p->check.lcg = p->check.seed;
    p->check.sabotage = cfg->check_sabotage;
    return cfg->check_shadow ? audit_create(&v->audit, v->mem) : 0;
}

void selfcheck_destroy(struct vcpu *v)
{
    audit_destroy(v->audit);
    v->audit = NULL;
}

/* ---- the host's mappings ---- */

/* One line of /proc/self/maps that is a piece of guest memory. */
struct piece {
    uint64_t start, end, offset;
    bool write;
};

static bool parse(const char *line, struct piece *m)
{
    char r, w;
    int at = 0;
    return sscanf(line, "%" SCNx64 "-%" SCNx64 " %c%c%*c%*c %" SCNx64 " %*s %*u %n", &m->start, &m->end, &r, &w,
                  &m->offset, &at) == 5 &&
           at && (m->write = w == 'w', strstr(line + at, "memfd:guest-ram"));
}

static bool is_linear_map(const struct vcpu *v, const struct piece *m)
{
    unsigned n;
    const struct gpmem_slot *s = gpmem_slots(v->mem, &n);
    for (unsigned i = 0; i < n; i++)
        if (m->start >= (uintptr_t)s[i].host && m->end <= (uintptr_t)s[i].host + s[i].bytes)
            return true;
    return false;
}

static const struct gpmem_slot *slot_of_offset(const struct vcpu *v, uint64_t offset)
{
    unsigned n;
    const struct gpmem_slot *s = gpmem_slots(v->mem, &n);
    for (unsigned i = 0; i < n; i++)
        if (offset >= s[i].memfd_offset && offset - s[i].memfd_offset < s[i].bytes)
            return &s[i];
    return NULL;
}

/* Is each page of the piece one that its window has entered so? Returns how many are. */
static uint64_t compare_piece(struct vcpu *v, const struct piece *m)
{
    struct vcpu_priv *p = v->priv;
    uint64_t n = 0, lin, first, gpa;
    bool write, narrow = p->win32 && window_linear(p->win32, m->start, &first);
    struct window *w = narrow ? p->win32 : p->win64;
    enum audit_where where = narrow ? AUDIT_WIN32 : AUDIT_WIN64;
    const struct gpmem_slot *s = slot_of_offset(v, m->offset);
    for (uint64_t at = m->start; at < m->end; at += PAGE_SIZE, n++) {
        uint64_t want = s ? s->gpa + (m->offset - s->memfd_offset) + (at - m->start) : ~0ull;
        struct audit_entry e = {.lin = at, .gpa = want, .write = m->write};
        bool known = w && window_linear(w, at, &lin);
        if (known)
            e.lin = lin;
        if (known && window_lookup(w, lin, &gpa, &write) && gpa == want && write == m->write)
            continue;
        audit_blame(v->audit, &v->c, where, AUDIT_HOST, &e);
        return n;
    }
    return n;
}

static void count_page(void *opaque, uint64_t lin, uint64_t gpa, bool write, bool global) { ++*(uint64_t *)opaque; }

/* The books of the windows against /proc/self/maps, both ways. */
static void compare_host(struct vcpu *v)
{
    struct vcpu_priv *p = v->priv;
    FILE *f = fopen("/proc/self/maps", "re");
    char *line = NULL;
    size_t room = 0;
    struct piece m;
    uint64_t have = 0, want = 0;
    if (!f)
        return;
    while (getline(&line, &room, f) > 0)
        if (parse(line, &m) && !is_linear_map(v, &m))
            have += compare_piece(v, &m);
    free(line);
    fclose(f);
    if (p->win64)
        window_each(p->win64, count_page, &want);
    if (p->win32)
        window_each(p->win32, count_page, &want);
    struct audit_entry e = {.lin = want, .gpa = have};
    if (have != want)
        audit_blame(v->audit, &v->c, AUDIT_WIN64, AUDIT_HOST, &e);
    v->stats->audit_host++;
}

/* ---- the translation cache ---- */

static void verify_tc(struct vcpu *v)
{
    struct vcpu_priv *p = v->priv;
    cc_verify(p->cc);
    for (unsigned i = 0; i < 2 * JC_SIZE; i++) {
        const struct jump_cache *jc = &v->jc[i / JC_SIZE];
        uint64_t rip = (uint64_t)-jc->tag[i % JC_SIZE], pc = jc->pc[i % JC_SIZE];
        if (jc_index(rip) != i % JC_SIZE || !rip)
            continue;
        CHECK(cc_is_entry(p->cc, pc, rip));
    }
    for (unsigned i = 0; i < PCID_PARKS; i++) {
        const struct pcid_park *k = &p->pcids.park[i];
        for (unsigned j = 0; j < k->jc.n && k->used; j++)
            CHECK(cc_is_entry(p->cc, k->jc.entry[j].pc, (uint64_t)-k->jc.entry[j].tag));
    }
    v->stats->tc_verified++;
}

/* ---- reports ---- */

static const char *flush_text(enum audit_flush f)
{
    static const char *const text[] = {"none", "INVLPG of", "CR3 load,", "global flush,"};
    return text[f];
}

static void report(struct vcpu *v)
{
    const struct audit_violation *a = audit_violation(v->audit);
    char text[160];
    snprintf(text, sizeof text, "shadow audit: %s, %#" PRIx64 " -> frame %#" PRIx64 " %s: %s",
             audit_where_text(a->where), a->entry.lin, a->entry.gpa >> 12, a->entry.write ? "rw" : "ro",
             audit_rule_text(a->rule));
    vcpu_report(v, text);
    fprintf(stderr, "entered after flush %" PRIu64 " (0: never); last flush: %s %#" PRIx64 ", number %" PRIu64 "\n",
            a->entered, flush_text(a->flush), a->flush_lin, a->serial);
    for (unsigned i = 0; i < a->levels; i++)
        fprintf(stderr, "guest's entry at %#" PRIx64 ": %016" PRIx64 "\n", a->pte_gpa[i], a->pte[i]);
    fprintf(stderr, "seed of this run: %" PRIu64 " (-accel bt,seed=%" PRIu64 ")\n", v->priv->check.seed,
            v->priv->check.seed);
}

bool selfcheck_run(struct vcpu *v)
{
    struct vcpu_priv *p = v->priv;
    if (p->check.tc_due)
        verify_tc(v);
    if (p->check.host_due && v->audit)
        compare_host(v);
    p->check.tc_due = p->check.host_due = false;
    if (!v->audit || !audit_violation(v->audit))
        return true;
    p->check.reported = true;
    report(v);
    return false;
}
