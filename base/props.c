#include "base/props.h"
#include "base/err.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Copies one element from *in to *out, halving doubled commas; both are advanced. True if a single comma ended it. */
static bool take_element(const char **in, char **out)
{
    bool comma = false;
    while (**in && !comma) {
        char c = *(*in)++;
        comma = c == ',' && **in != ',';
        if (c == ',' && !comma)
            ++*in;
        if (!comma)
            *(*out)++ = c;
    }
    *(*out)++ = 0;
    return comma;
}

static struct prop split_element(char *element, const char *implied)
{
    char *eq = strchr(element, '=');
    if (!eq)
        return implied ? (struct prop){implied, element} : (struct prop){element, NULL};
    *eq = 0;
    return (struct prop){element, eq + 1};
}

int props_parse(struct props *p, const char *text, const char *implied)
{
    size_t elements = 1;
    for (const char *s = text; *s; s++)
        elements += *s == ',';
    /* Each element ends in a NUL where the text has its comma or its end. */
    *p = (struct props){.v = calloc(elements, sizeof *p->v), .store = malloc(strlen(text) + 1)};
    if (!p->v || !p->store) {
        props_free(p);
        return -RD_E_NOMEM;
    }
    char *out = p->store;
    for (bool more = *text != 0; more;) {
        char *element = out;
        more = take_element(&text, &out);
        p->v[p->n] = split_element(element, p->n ? NULL : implied);
        if (!*element || !*p->v[p->n++].key) {
            props_free(p);
            return -RD_E_INVAL;
        }
    }
    return 0;
}

void props_free(struct props *p)
{
    free(p->v);
    free(p->store);
    *p = (struct props){0};
}

const char *props_get(const struct props *p, const char *key)
{
    for (unsigned i = p->n; i-- > 0;)
        if (!strcmp(p->v[i].key, key))
            return p->v[i].val ? p->v[i].val : "";
    return NULL;
}

bool parse_is_word(const char *text, const char *words)
{
    size_t n = strlen(text);
    for (const char *s = words; n && (s = strstr(s, text)); s += n)
        if ((s == words || s[-1] == ' ') && (s[n] == ' ' || !s[n]))
            return true;
    return false;
}

static bool is_negated(const struct prop *prop) { return !prop->val && !strncmp(prop->key, "no", 2) && prop->key[2]; }

const char *props_unknown(const struct props *p, const char *names)
{
    for (unsigned i = 0; i < p->n; i++)
        if (!parse_is_word(p->v[i].key, names) && !(is_negated(&p->v[i]) && parse_is_word(p->v[i].key + 2, names)))
            return p->v[i].key;
    return NULL;
}

int props_bool(const struct props *p, const char *key, bool *val)
{
    for (unsigned i = p->n; i-- > 0;) {
        const struct prop *prop = &p->v[i];
        bool same = !strcmp(prop->key, key);
        if (same && prop->val)
            return parse_bool(prop->val, val);
        if (same || (is_negated(prop) && !strcmp(prop->key + 2, key))) {
            *val = same;
            return 0;
        }
    }
    return 0;
}

int props_u64(const struct props *p, const char *key, uint64_t max, uint64_t *val)
{
    const char *text = props_get(p, key);
    uint64_t x;
    if (!text)
        return 0;
    if (parse_u64(text, &x) || x > max)
        return -RD_E_INVAL;
    *val = x;
    return 0;
}

int parse_bool(const char *text, bool *val)
{
    static const char *const words[] = {"off", "on", "no", "yes", "false", "true", "n", "y"};
    for (unsigned i = 0; i < sizeof words / sizeof words[0]; i++)
        if (!strcmp(text, words[i])) {
            *val = i & 1;
            return 0;
        }
    return -RD_E_INVAL;
}

/* strtoull also takes blanks and signs, which no option means. */
static int leading_u64(const char *text, int base, uint64_t *val, const char **end)
{
    char *stop;
    if (*text < '0' || *text > '9')
        return -RD_E_INVAL;
    errno = 0;
    *val = strtoull(text, &stop, base);
    *end = stop;
    return errno ? -RD_E_INVAL : 0;
}

int parse_u64(const char *text, uint64_t *val)
{
    const char *end;
    uint64_t x;
    if (leading_u64(text, 0, &x, &end) || *end)
        return -RD_E_INVAL;
    *val = x;
    return 0;
}

/* The bytes a size suffix stands for, 0 if it is none. */
static uint64_t suffix_bytes(const char *s, uint64_t unit)
{
    static const char letters[] = "bkmgtpe";
    if (!*s)
        return unit;
    const char *at = strchr(letters, *s | 0x20);
    return at && !s[1] ? 1ull << (10 * (at - letters)) : 0;
}

int parse_size(const char *text, uint64_t unit, uint64_t *val)
{
    const char *end;
    uint64_t whole, part = 0, ten = 1, bytes;
    if (leading_u64(text, !strncmp(text, "0x", 2) ? 16 : 10, &whole, &end))
        return -RD_E_INVAL;
    if (*end == '.') {
        /* Nine digits say all that a fraction of a gibibyte can. */
        for (end++; *end >= '0' && *end <= '9'; end++)
            if (ten < 1000000000) {
                part = part * 10 + (uint64_t)(*end - '0');
                ten *= 10;
            }
        if (ten == 1)
            return -RD_E_INVAL;
    }
    unit = suffix_bytes(end, unit);
    if (!unit || __builtin_mul_overflow(whole, unit, &bytes))
        return -RD_E_INVAL;
    uint64_t fraction = (uint64_t)((unsigned __int128)part * unit / ten);
    if (__builtin_add_overflow(bytes, fraction, &bytes))
        return -RD_E_INVAL;
    *val = bytes;
    return 0;
}
