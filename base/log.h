/* base/log.h - logging by category. The mask is process-wide and set once at start (-d); lines go to stderr or -D FILE and
 * always to a ring of the last 64, which crash reports print. Not async-signal-safe; not nofpu. */
#ifndef BASE_LOG_H
#define BASE_LOG_H
#include <stdint.h>
#include <stdio.h>
enum log_cat {
#define LOGCAT(id, name, help) LOG_##id,
#include "base/log.def"
#undef LOGCAT
    LOG_COUNT
};
_Static_assert(LOG_COUNT <= 32, "log_mask has a bit for each");
extern uint32_t log_mask;
#define log_on(cat) (__builtin_expect(log_mask >> LOG_##cat & 1, 0))
#define LOGF(cat, ...) (log_on(cat) ? log_line(LOG_##cat, __VA_ARGS__) : (void)0)
void log_line(enum log_cat cat, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* "in_asm,int" or "all" -> mask. Returns 0, or -RD_E_INVAL with *bad = the unknown name (until the thread's next call). */
int log_parse_mask(const char *list, uint32_t *mask, const char **bad);
/* Adds the categories of such a list to log_mask; all of them or, on an error, none. */
int log_set_mask(const char *list, const char **bad);
/* The categories, one a line with its meaning. */
void log_list(FILE *f);
/* Sends the lines to a new file. 0 or -RD_E_IO. */
int log_open(const char *path);
/* Where the lines go, for listings of several lines; and sends them to a stream of the caller's (NULL: stderr). */
FILE *log_stream(void);
void log_to(FILE *f);
/* Writes the ring, oldest line first. */
void log_dump_ring(int fd);
#endif
