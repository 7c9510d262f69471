/* base/check.h - our own bugs. CHECK always, ASSERT in debug builds: print the expression, the place and the seed of this run,
 * run the crash-report hook, abort. Never for guest input or host errors. */
#ifndef BASE_CHECK_H
#define BASE_CHECK_H
#include <stdint.h>

_Noreturn void check_failed(const char *expr, const char *file, int line);
/* Called once by check_failed before abort: the monitor prints guest state and the log ring. */
extern void (*check_report_hook)(void);
/* The seed to print, so that the run can be repeated. */
void check_note_seed(uint64_t seed);
/* A line on stderr from a signal handler: needs no lock and no memory. At most 255 characters. */
void check_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#define CHECK(e) ((e) ? (void)0 : check_failed(#e, __FILE__, __LINE__))
#ifdef NDEBUG
/* Not evaluated, but compiled, so that what it names stays used. */
#define ASSERT(e) ((void)sizeof((e) ? 1 : 0))
#else
#define ASSERT(e) CHECK(e)
#endif
#endif
