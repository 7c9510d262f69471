/* base/check.h - our own bugs. CHECK always, ASSERT in debug builds: print the expression and place, run the crash-report
 * hook, abort. Never for guest input or host errors. */
#ifndef BASE_CHECK_H
#define BASE_CHECK_H
_Noreturn void check_failed(const char *expr, const char *file, int line);
/* Called once by check_failed before abort: the monitor prints guest state, log ring, seed. */
extern void (*check_report_hook)(void);
#define CHECK(e) ((e) ? (void)0 : check_failed(#e, __FILE__, __LINE__))
#ifdef NDEBUG
#define ASSERT(e) ((void)sizeof((e) ? 1 : 0)) /* not evaluated, but compiled: what it names stays used */
#else
#define ASSERT(e) CHECK(e)
#endif
#endif
