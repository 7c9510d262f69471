/* base/props.h - option arguments in QEMU's spelling: "VALUE,key=value,flag,key=a,,b".
 *
 * Role:    splits such a text and reads the single values; a doubled comma stands for one inside a value. Which keys there may
 *          be is the caller's affair (props_unknown).
 * Owner:   the caller, props_free; strings handed out live until then.
 */
#ifndef BASE_PROPS_H
#define BASE_PROPS_H
#include <stdbool.h>
#include <stdint.h>

struct prop {
    const char *key;
    const char *val; /* NULL: the key stood alone */
};
struct props {
    struct prop *v;
    unsigned n;
    char *store;
};
/* implied: key of a first element without '=', or NULL. Returns 0, -RD_E_NOMEM, or -RD_E_INVAL (an empty element or key). */
int props_parse(struct props *p, const char *text, const char *implied);
void props_free(struct props *p);

/* The last value given for key ("" if it stood alone), or NULL. */
const char *props_get(const struct props *p, const char *key);
/* The first key that is not one of the blank-separated names, or NULL. A bare "noX" passes for the name X. */
const char *props_unknown(const struct props *p, const char *names);

/* These leave *val alone if the key is absent; -RD_E_INVAL if its value is malformed or out of range. A boolean may also stand
 * as a bare key ("server") or a bare negated one ("nowait"). */
int props_bool(const struct props *p, const char *key, bool *val);
int props_u64(const struct props *p, const char *key, uint64_t max, uint64_t *val);

/* Whether text is one of the blank-separated words. */
bool parse_is_word(const char *text, const char *words);
/* Single values; the whole text must be used up. */
int parse_bool(const char *text, bool *val);    /* on off yes no true false y n */
int parse_u64(const char *text, uint64_t *val); /* decimal, 0x hexadecimal, 0 octal */
int parse_size(const char *text, uint64_t unit,
               uint64_t *val); /* "512" (in units), "1.5G", "64k"; suffixes b k M G T P E */
#endif
