/* Preloaded into the program by run_cli.py: SIGTERM arrives while the C library's heap is locked, the worst moment for a handler.
 *
 * An allocation later than a second after the first one raises it once, from inside. An allocation by the handler would then wait
 * for ever for the lock that the interrupted one holds: here it ends the program with status 99, so that the test is quick.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stddef.h>
#include <time.h>
#include <unistd.h>

extern void *__libc_malloc(size_t);

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

void *malloc(size_t bytes)
{
    static double first;
    static volatile int raising, done;
    if (raising)
        _exit(99);
    if (!first)
        first = now();
    if (!done && now() - first > 1) {
        done = 1;
        raising = 1;
        raise(SIGTERM);
        raising = 0;
    }
    return __libc_malloc(bytes);
}
