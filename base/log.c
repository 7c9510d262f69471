#include "base/log.h"
#include "base/err.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define RING 64
uint32_t log_mask;
static FILE *log_file;
static char ring[RING][200];
static unsigned ring_next;

static const struct {
    const char *name, *help;
} cats[] = {
#define LOGCAT(id, name, help) {name, help},
#include "base/log.def"
#undef LOGCAT
};

void log_line(enum log_cat cat, const char *fmt, ...)
{
    char *slot = ring[__atomic_fetch_add(&ring_next, 1, __ATOMIC_RELAXED) % RING];
    va_list ap;
    va_start(ap, fmt);
    int n = snprintf(slot, sizeof ring[0], "%s: ", cats[cat].name);
    vsnprintf(slot + n, sizeof ring[0] - (size_t)n, fmt, ap);
    va_end(ap);
    fprintf(log_stream(), "%s\n", slot);
}

FILE *log_stream(void) { return log_file ? log_file : stderr; }
void log_to(FILE *f) { log_file = f; }

void log_list(FILE *f)
{
    for (unsigned i = 0; i < LOG_COUNT; i++)
        fprintf(f, "%-14s %s\n", cats[i].name, cats[i].help);
}

/* The bits of one name of n characters, 0 if there is no such. */
static uint32_t mask_of(const char *name, size_t n)
{
    if (n == 3 && !strncmp(name, "all", n))
        return ~0u;
    for (unsigned i = 0; i < LOG_COUNT; i++)
        if (strlen(cats[i].name) == n && !strncmp(cats[i].name, name, n))
            return 1u << i;
    return 0;
}

int log_parse_mask(const char *list, uint32_t *mask, const char **bad)
{
    static _Thread_local char unknown[64];
    uint32_t sum = 0;
    for (const char *p = list; *p;) {
        size_t n = strcspn(p, ",");
        uint32_t bits = mask_of(p, n);
        if (!bits) {
            snprintf(unknown, sizeof unknown, "%.*s", (int)n, p);
            *bad = unknown;
            return -RD_E_INVAL;
        }
        sum |= bits;
        p += n + (p[n] == ',');
    }
    *mask = sum;
    return 0;
}

int log_set_mask(const char *list, const char **bad)
{
    uint32_t mask;
    int err = log_parse_mask(list, &mask, bad);
    if (!err)
        log_mask |= mask;
    return err;
}

int log_open(const char *path)
{
    FILE *f = fopen(path, "w");
    if (!f)
        return -RD_E_IO;
    setvbuf(f, NULL, _IOLBF, 0);
    log_file = f;
    return 0;
}

void log_dump_ring(int fd)
{
    for (unsigned i = ring_next > RING ? ring_next - RING : 0; i < ring_next; i++)
        dprintf(fd, "  %s\n", ring[i % RING]);
}
