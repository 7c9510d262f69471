/* base/log.h - logging by category. The mask is process-wide and set once at start (-d); lines go to stderr or -D FILE and
 * always to a ring of the last 64, which crash reports print. Not async-signal-safe; not nofpu. */
#ifndef BASE_LOG_H
#define BASE_LOG_H
#include <stdint.h>
enum log_cat {
#define LOGCAT(id, name, help) LOG_##id,
#include "base/log.def"
#undef LOGCAT
    LOG_COUNT
};
extern uint32_t log_mask;
#define log_on(cat) (__builtin_expect(log_mask >> LOG_##cat & 1, 0))
#define LOGF(cat, ...) (log_on(cat) ? log_line(LOG_##cat, __VA_ARGS__) : (void)0)
void log_line(enum log_cat cat, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Parses "in_asm,int"; "help" lists. Returns 0, or -RD_E_INVAL with *bad = the unknown name. */
int log_set_mask(const char *list, const char **bad);
int log_open(const char *path);
void log_dump_ring(int fd);
#endif
