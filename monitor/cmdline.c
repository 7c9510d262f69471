#include "monitor/cmdline.h"
#include "base/err.h"
#include "monitor/cmdline_int.h"
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

const struct option_desc cmdline_options[] = {
#define FLAG(name, status, field, help)                                                                                \
    {name, CMDLINE_##status, KIND_FLAG, offsetof(struct cmdline, field), NULL, NULL, NULL, help},
#define STRING(name, status, field, argument, help)                                                                    \
    {name, CMDLINE_##status, KIND_STRING, offsetof(struct cmdline, field), NULL, NULL, argument, help},
#define LIST(name, status, field, implied, argument, help)                                                             \
    {name, CMDLINE_##status, KIND_LIST, offsetof(struct cmdline, field), implied, NULL, argument, help},
#define RAW(name, status, field, argument, help)                                                                       \
    {name, CMDLINE_##status, KIND_RAW, offsetof(struct cmdline, field), NULL, NULL, argument, help},
#define CHR(name, status, field, argument, help)                                                                       \
    {name, CMDLINE_##status, KIND_CHR, offsetof(struct cmdline, field), NULL, NULL, argument, help},
#define OWN(name, status, function, argument, help)                                                                    \
    {name, CMDLINE_##status, KIND_OWN, 0, NULL, function, argument, help},
#include "monitor/options.def"
    {NULL, CMDLINE_OK, KIND_FLAG, 0, NULL, NULL, NULL, NULL}};

/* -- memory, complaints -- */
struct cmdline_mem {
    struct cmdline_mem *next;
    void *ptr;
};

/* ptr will be freed with the struct cmdline (or now, on failure). */
static bool adopt(struct parse *p, void *ptr)
{
    struct cmdline_mem *m = ptr ? malloc(sizeof *m) : NULL;
    if (!m) {
        free(ptr);
        return false;
    }
    *m = (struct cmdline_mem){p->c->mem, ptr};
    p->c->mem = m;
    return true;
}

void *parse_alloc(struct parse *p, size_t bytes)
{
    void *ptr = calloc(1, bytes);
    return adopt(p, ptr) ? ptr : NULL;
}

void *parse_grow(struct parse *p, void *array_ptr, unsigned *n, size_t element_bytes)
{
    void **array = array_ptr;
    /* Full at every power of two, hence no capacity to keep. */
    if ((*n & (*n - 1)) == 0) {
        void *more = parse_alloc(p, (*n ? *n * 2 : 1) * element_bytes);
        if (!more)
            return NULL;
        if (*n)
            memcpy(more, *array, *n * element_bytes);
        *array = more;
    }
    return (char *)*array + (*n)++ * element_bytes;
}

/* Appends at most max characters of text to buf, as part of one line. */
static void add_text(char *buf, size_t bytes, const char *text, size_t max)
{
    size_t used = strlen(buf);
    for (; *text && used + 4 < bytes; text++) {
        if (!max--) {
            memcpy(buf + used, "...", 4);
            return;
        }
        unsigned char c = (unsigned char)*text;
        buf[used++] = c < 0x20 || c == 0x7f ? '?' : *text;
        buf[used] = 0;
    }
}

/* "-opt arg" */
static void name_option(const struct parse *p, char *buf, size_t bytes)
{
    buf[0] = 0;
    add_text(buf, bytes, p->opt, 100);
    if (p->arg) {
        add_text(buf, bytes, " ", 1);
        add_text(buf, bytes, p->arg, 100);
    }
}

int parse_fail(struct parse *p, const char *fmt, ...)
{
    char what[256], raw[512], why[512] = "";
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(raw, sizeof raw, fmt, ap);
    va_end(ap);
    name_option(p, what, sizeof what);
    add_text(why, sizeof why, raw, sizeof why);
    fprintf(p->err, "%s: %s: %s\n", p->c->prog, what, why);
    return 2;
}

int parse_note(struct parse *p, enum cmdline_status status, const char *why)
{
    char what[256];
    name_option(p, what, sizeof what);
    struct cmdline_note *note = parse_grow(p, &p->c->notes, &p->c->n_notes, sizeof *note);
    char *copy = parse_alloc(p, strlen(what) + 1);
    if (!note || !copy)
        return parse_fail(p, "out of memory");
    *note = (struct cmdline_note){status, strcpy(copy, what), why};
    return 0;
}

int parse_props(struct parse *p, const char *text, const char *implied, struct props *out)
{
    int err = props_parse(out, text, implied);
    if (err == 0) {
        bool kept = adopt(p, out->v);
        if (adopt(p, out->store) && kept)
            return 0;
        err = -RD_E_NOMEM;
    }
    *out = (struct props){0};
    return parse_fail(p, "%s", err == -RD_E_NOMEM ? "out of memory" : "an element of the list is empty");
}

struct cmdline_item *parse_item(struct parse *p, struct cmdline_list *list)
{
    struct cmdline_item *item = parse_grow(p, &list->v, &list->n, sizeof *item);
    if (item)
        *item = (struct cmdline_item){.opt = p->opt, .text = p->arg};
    return item;
}

/* -- the loop -- */
static const struct option_desc *find_option(const char *name)
{
    const struct option_desc *o = cmdline_options;
    while (o->name && strcmp(o->name, name))
        o++;
    return o->name ? o : NULL;
}

static bool takes_argument(const struct option_desc *o)
{
    return o->kind != KIND_FLAG && (o->argument || o->kind == KIND_STRING);
}

static int apply_list(struct parse *p, const struct option_desc *o, struct cmdline_list *list)
{
    struct cmdline_item *item = parse_item(p, list);
    if (!item)
        return parse_fail(p, "out of memory");
    return o->kind == KIND_RAW ? 0 : parse_props(p, p->arg, o->implied, &item->props);
}

static int apply(struct parse *p, const struct option_desc *o)
{
    void *field = (char *)p->c + o->field;
    switch (o->kind) {
    case KIND_FLAG: *(bool *)field = true; return 0;
    case KIND_STRING: *(const char **)field = p->arg; return 0;
    case KIND_LIST:
    case KIND_RAW: return apply_list(p, o, field);
    case KIND_CHR: return parse_chr(p, field, p->arg);
    case KIND_OWN: return o->own(p, p->arg);
    }
    return 0;
}

static const char *why_of(enum cmdline_status status)
{
    return status == CMDLINE_REFUSED ? "not supported in this version" : "has no effect in this version";
}

/* argv[*i] is an option or the image of a disk; *i moves on over an argument. */
static int scan_one(struct parse *p, int *i, int argc, char **argv)
{
    static const struct option_desc disk_image = {
        "", CMDLINE_REFUSED, KIND_RAW, offsetof(struct cmdline, drive_paths), NULL, NULL, NULL, NULL};
    const struct option_desc *o = &disk_image;
    p->opt = argv[*i];
    p->arg = NULL;
    if (argv[*i][0] != '-') {
        p->opt = "disk image";
        p->arg = argv[*i];
    } else {
        /* Both -opt and --opt, as QEMU has it. */
        o = find_option(argv[*i] + (argv[*i][1] == '-' ? 2 : 1));
        if (!o)
            return parse_fail(p, "invalid option");
        if (takes_argument(o)) {
            if (*i + 1 >= argc)
                return parse_fail(p, "requires an argument");
            p->arg = argv[++*i];
        }
    }
    int status = apply(p, o);
    return status || o->status == CMDLINE_OK ? status : parse_note(p, o->status, why_of(o->status));
}

/* Options that contradict one another, or that only make sense together. */
static int check_together(struct parse *p)
{
    struct cmdline *c = p->c;
    p->arg = NULL;
    if (c->append && !c->kernel) {
        p->opt = "-append";
        return parse_fail(p, "only with -kernel");
    }
    if (c->initrd && !c->kernel) {
        p->opt = "-initrd";
        return parse_fail(p, "only with -kernel");
    }
    for (unsigned i = 0; i < c->devices.n; i++) {
        const char *id = props_get(&c->devices.v[i].props, "chardev");
        if (id && !cmdline_chardev(c, id)) {
            p->opt = c->devices.v[i].opt;
            p->arg = c->devices.v[i].text;
            return parse_fail(p, "there is no -chardev with id '%s'", id);
        }
    }
    return 0;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

int cmdline_scan(struct cmdline *out, int argc, char **argv, FILE *err)
{
    *out = (struct cmdline){
        .prog = argc > 0 && *base_name(argv[0]) ? base_name(argv[0]) : "ringdown",
        .mem_bytes = 128ull << 20,
        .cpus = 1,
        .machine = "pc",
        .cpu_model = "host",
        .engine = {.window = -1, .adapt = true, .chain = true, .account = true},
        .echr = 1,
    };
    struct parse p = {.c = out, .err = err};
    for (int i = 1; i < argc && out->action == CMDLINE_RUN; i++) {
        int status = scan_one(&p, &i, argc, argv);
        if (status)
            return status;
    }
    if (out->action != CMDLINE_RUN)
        return 0;
    int status = parse_resolve_consoles(&p);
    return status ? status : check_together(&p);
}

/* The first word of "-opt arg" is the same as an earlier note's. */
static bool warned_before(const struct cmdline *c, unsigned at)
{
    size_t n = strcspn(c->notes[at].what, " ");
    for (unsigned i = 0; i < at; i++)
        if (c->notes[i].status == CMDLINE_WARN && c->notes[i].why == c->notes[at].why &&
            strcspn(c->notes[i].what, " ") == n && !memcmp(c->notes[i].what, c->notes[at].what, n))
            return true;
    return false;
}

int cmdline_check(const struct cmdline *c, FILE *err)
{
    for (unsigned i = 0; i < c->n_notes; i++)
        if (c->notes[i].status == CMDLINE_REFUSED || c->strict) {
            fprintf(err, "%s: %s: %s%s\n", c->prog, c->notes[i].what, c->notes[i].why,
                    c->notes[i].status == CMDLINE_REFUSED ? "" : " (-strict)");
            return 2;
        }
    if (c->action == CMDLINE_RUN && !c->kernel) {
        fprintf(err, "%s: nothing to boot: -kernel FILE is missing\n", c->prog);
        return 2;
    }
    for (unsigned i = 0; i < c->n_notes; i++)
        if (c->notes[i].status == CMDLINE_WARN && !warned_before(c, i))
            fprintf(err, "%s: warning: %s: %s\n", c->prog, c->notes[i].what, c->notes[i].why);
    return 0;
}

int cmdline_parse(struct cmdline *out, int argc, char **argv, FILE *err)
{
    int status = cmdline_scan(out, argc, argv, err);
    return status || out->action != CMDLINE_RUN ? status : cmdline_check(out, err);
}

void cmdline_free(struct cmdline *c)
{
    for (struct cmdline_mem *m = c->mem, *next; m; m = next) {
        next = m->next;
        free(m->ptr);
        free(m);
    }
    *c = (struct cmdline){0};
}
