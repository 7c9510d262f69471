/* monitor/bench.c - see bench.h. The runner is in the tree that the program was built in: above the program, or where that tree was. */
#define _GNU_SOURCE
#include "monitor/bench.h"
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RUNNER "/bench/run"

static bool found(char *path, size_t size, const char *folder)
{
    int n = snprintf(path, size, "%s" RUNNER, folder);
    return n > 0 && (size_t)n < size && access(path, X_OK) == 0;
}

static bool find_runner(char *path, size_t size, const char *program)
{
    char folder[PATH_MAX];
    strcpy(folder, program);
    for (char *end; (end = strrchr(folder, '/'));) {
        *end = 0;
        if (found(path, size, folder))
            return true;
    }
    return found(path, size, RD_SOURCE_DIR);
}

int bench_main(int argc, char **argv)
{
    static char option[] = "--ringdown"; /* a later one among the arguments counts */
    char program[PATH_MAX], path[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    if (n <= 0) {
        fprintf(stderr, "ringdown: cannot tell where this program is: %s\n", strerror(errno));
        return 1;
    }
    program[n] = 0;
    if (!find_runner(path, sizeof path, program)) {
        fprintf(stderr, "ringdown: bench runs in the source tree, and there is none above %s nor at %s\n", program,
                RD_SOURCE_DIR);
        return 1;
    }
    char **args = calloc((size_t)argc + 3, sizeof *args);
    if (args) {
        args[0] = path;
        args[1] = option;
        args[2] = program;
        memcpy(args + 3, argv + 1, (size_t)(argc - 1) * sizeof *args);
        execv(path, args);
    }
    fprintf(stderr, "ringdown: cannot run %s: %s\n", path, strerror(errno));
    free(args);
    return 1;
}
