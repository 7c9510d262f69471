/* bench/linux/ring.h - processes in a ring of pipes, for a token to go round. */
#ifndef BENCH_LINUX_RING_H
#define BENCH_LINUX_RING_H
#include <stdbool.h>
#include <sys/types.h>
#include <unistd.h>

struct ring {
    int in, out; /* the caller's ends */
};

/* The caller and n - 1 children, which start() forks and member() runs in. False if there is no pipe. */
static inline bool ring_make(struct ring *r, unsigned n, pid_t (*start)(void), void (*member)(int in, int out))
{
    int pipes[2];
    if (pipe(pipes))
        return false;
    r->in = pipes[0];
    r->out = pipes[1];
    for (unsigned i = 1; i < n; i++) {
        if (pipe(pipes))
            return false;
        if (start() == 0) {
            close(r->out);
            close(pipes[0]);
            member(r->in, pipes[1]);
        }
        close(r->in);
        close(pipes[1]);
        r->in = pipes[0];
    }
    return true;
}
#endif
