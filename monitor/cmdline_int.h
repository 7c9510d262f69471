/* monitor/cmdline_int.h - inside the command-line parser: where we are, how to complain, who does which option. */
#ifndef MONITOR_CMDLINE_INT_H
#define MONITOR_CMDLINE_INT_H
#include "monitor/cmdline.h"
#include <stddef.h>

struct parse {
    struct cmdline *c;
    FILE *err;
    const char *opt, *arg; /* being parsed; arg may be NULL */
};
/* One line "prog: -opt arg: message"; returns the exit status 2. */
int parse_fail(struct parse *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Memory that lives as long as the struct cmdline, zeroed; NULL if there is none. */
void *parse_alloc(struct parse *p, size_t bytes);
/* Makes room for one more element at the end of an array. Returns the new element, zeroed, or NULL. */
void *parse_grow(struct parse *p, void *array_ptr, unsigned *n, size_t element_bytes);
/* As props_parse, with the complaint. The result lives as long as the struct cmdline. */
int parse_props(struct parse *p, const char *text, const char *implied, struct props *out);
/* Appends the current option to a list; the properties are empty until parse_props fills them. NULL: no memory. */
struct cmdline_item *parse_item(struct parse *p, struct cmdline_list *list);
/* Remembers that the current option is not done as asked. */
int parse_note(struct parse *p, enum cmdline_status status, const char *why);

/* cmdline_chr.c: character backends. */
int parse_chr(struct parse *p, struct chr_list *list, const char *text);
/* After the last option: -chardev names become what they name, ports that were not given get QEMU's defaults. */
int parse_resolve_consoles(struct parse *p);

#define OWN(name, status, function, argument, help) int function(struct parse *p, const char *arg);
#define FLAG(name, status, field, help)
#define STRING(name, status, field, argument, help)
#define LIST(name, status, field, implied, argument, help)
#define RAW(name, status, field, argument, help)
#define CHR(name, status, field, argument, help)
#include "monitor/options.def"

/* The options as a table, ended by name = NULL. */
enum option_kind { KIND_FLAG, KIND_STRING, KIND_LIST, KIND_RAW, KIND_CHR, KIND_OWN };
struct option_desc {
    const char *name;
    enum cmdline_status status;
    enum option_kind kind;
    size_t field; /* offset in struct cmdline */
    const char *implied;
    int (*own)(struct parse *p, const char *arg);
    const char *argument, *help;
};
extern const struct option_desc cmdline_options[];
#endif
