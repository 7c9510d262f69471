/* tests/boot/guest/bt.h - the frame of the tests that run inside a guest.
 *
 * Each test runs in a child process of its own with a time limit, and prints one line: "ok NAME", "skip NAME why" or
 * "FAIL NAME why". The same binary runs natively, which tells a broken test from a broken machine.
 */
#ifndef BT_H
#define BT_H
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

struct bt_test {
    const char *name;
    void (*run)(void);
};
/* Ends the test. */
_Noreturn void bt_fail(const char *file, int line, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
_Noreturn void bt_skip(const char *why);
/* Every test uses these, from any of its child processes too: the first failure ends the process and is reported. */
#define REQUIRE(cond) ((cond) ? (void)0 : bt_fail(__FILE__, __LINE__, "%s (errno %d)", #cond, errno))
#define REQUIRE_MSG(cond, ...) ((cond) ? (void)0 : bt_fail(__FILE__, __LINE__, __VA_ARGS__))

/* Waits for a child, which must have exited with 0. */
void bt_wait(pid_t child);
/* Pages of memory that children share. */
void *bt_shared(size_t bytes);
uint64_t bt_now_ns(void);
/* Runs f and returns the signal that it raised (0: none); *info is the first one's. */
int bt_catch(void (*f)(void *), void *arg, siginfo_t *info);
/* Is CPUID's word in /proc/cpuinfo? */
bool bt_cpu_has(const char *flag);
uint32_t bt_random(uint32_t *state);

/* The program's tests: each table ends with an empty name, the list with NULL. */
extern const struct bt_test *const bt_tables[];
#define BT_TABLE(name) extern const struct bt_test name[]
#endif
