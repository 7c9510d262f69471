#include "base/log.h"
#include "base/err.h"
#include <errno.h>
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
    char *slot = ring[ring_next++ % RING];
    va_list ap;
    va_start(ap, fmt);
    int n = snprintf(slot, sizeof ring[0], "%s: ", cats[cat].name);
    vsnprintf(slot + n, sizeof ring[0] - (size_t)n, fmt, ap);
    va_end(ap);
    fprintf(log_file ? log_file : stderr, "%s\n", slot);
}

int log_set_mask(const char *list, const char **bad)
{
    static char name[64];
    for (const char *p = list; *p;) {
        size_t n = strcspn(p, ",");
        unsigned i;
        snprintf(name, sizeof name, "%.*s", (int)n, p);
        for (i = 0; i < LOG_COUNT; i++)
            if (!strcmp(cats[i].name, name))
                break;
        if (!strcmp(name, "help")) {
            for (unsigned k = 0; k < LOG_COUNT; k++)
                printf("%-14s %s\n", cats[k].name, cats[k].help);
        } else if (!strcmp(name, "all"))
            log_mask = ~0u;
        else if (i == LOG_COUNT) {
            *bad = name;
            return -RD_E_INVAL;
        } else
            log_mask |= 1u << i;
        p += n + (p[n] == ',');
    }
    return 0;
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
