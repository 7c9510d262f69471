/* monitor/boot_module.c - multiboot modules from the -initrd list "file args,file args"; two commas stand for one. */
#include "monitor/boot_int.h"
#include <stdlib.h>
#include <unistd.h>

/* Cuts the list at single commas, in place; returns the number of items, at most max + 1. */
static unsigned split(char *list, char **item, unsigned max)
{
    unsigned n = 0;
    char *to = list;
    item[n++] = list;
    for (char *p = list; *p; p++) {
        if (*p != ',') {
            *to++ = *p;
        } else if (p[1] == ',') {
            *to++ = *p++;
        } else {
            *to++ = 0;
            if (n > max)
                break;
            item[n++] = to;
        }
    }
    *to = 0;
    return n;
}

static int load_one(struct boot *b, uint64_t min, struct boot_module *m)
{
    /* The file's name ends at the first blank; the module's string is all of it, name included. */
    char *name = strndup(m->args, strcspn(m->args, " "));
    if (!name)
        return boot_fail(b, RD_E_NOMEM, "no memory for module '%s'", m->args);
    int fd = boot_file_open(b, "module", name, &m->bytes);
    int r = fd < 0 ? fd : 0;
    if (!r) {
        /* Behind the kernel, where kernels look for them first; before it if it sits at the end of memory. */
        struct boot_want w = {.bytes = boot_align(m->bytes, PAGE_SIZE), .align = PAGE_SIZE, .min = min, .max = BOOT_4G};
        struct boot_want below = {.bytes = w.bytes, .align = PAGE_SIZE, .min = BOOT_LOW_LIMIT, .max = min};
        if (boot_place(b, &w, &m->gpa) || boot_place(b, &below, &m->gpa)) {
            r = boot_file_copy(b, name, fd, m->gpa, m->bytes);
        } else {
            close(fd);
            r = boot_fail(b, RD_E_RANGE, "module '%s' (%llu KiB) does not fit into the guest's memory", name,
                          (unsigned long long)m->bytes >> 10);
        }
    }
    free(name);
    return r;
}

int boot_load_modules(struct boot *b, uint64_t min, struct boot_module *mods, unsigned *n, char **list)
{
    char *item[BOOT_MAX_MODULES + 1];
    *n = 0;
    *list = NULL;
    if (!b->cfg->initrd)
        return 0;
    *list = strdup(b->cfg->initrd);
    if (!*list)
        return boot_fail(b, RD_E_NOMEM, "no memory for the list of modules");
    unsigned count = split(*list, item, BOOT_MAX_MODULES);
    if (count > BOOT_MAX_MODULES)
        return boot_fail(b, RD_E_INVAL, "more than %u modules", BOOT_MAX_MODULES);
    int r = 0;
    for (unsigned i = 0; !r && i < count; i++) {
        mods[i].args = item[i];
        r = load_one(b, min, &mods[i]);
    }
    if (r)
        return r;
    *n = count;
    b->info.initrd_gpa = mods[0].gpa;
    b->info.initrd_bytes = mods[0].bytes;
    return 0;
}
