/* bench/linux/work_proc.c - processes: creation, switches, pipes, shells. */
#define _GNU_SOURCE
#include "work.h"
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static void reap(pid_t child)
{
    int status;
    if (child < 0 || waitpid(child, &status, 0) != child || status)
        work_die("child");
}

static void fork_wait(uint64_t n)
{
    while (n--) {
        pid_t child = fork();
        if (child == 0)
            _exit(0);
        reap(child);
    }
}
static void fork_exec(uint64_t n)
{
    while (n--) {
        pid_t child = fork();
        if (child == 0) {
            execl("/proc/self/exe", "work", "-x", NULL);
            _exit(1);
        }
        reap(child);
    }
}
static void shell(const char *script)
{
    pid_t child = fork();
    if (child == 0) {
        execl(work_busybox, "sh", "-c", script, NULL);
        _exit(1);
    }
    reap(child);
}
static void fork_sh(uint64_t n)
{
    while (n--)
        shell(":");
}
/* As configure scripts do: subshells, pipes, substitution. */
static void script(uint64_t n)
{
    setenv("BB", work_busybox, 1);
    while (n--)
        shell("i=0; while [ $i -lt 5 ]; do x=$(echo $i | $BB tr 0-4 a-e); [ -n \"$x\" ] || exit 1; i=$((i+1)); done");
}

/* A fork, after which the child writes to 64 pages that it shares with its parent. */
static void cow(uint64_t n)
{
    enum { PAGES = 64 };
    static volatile uint8_t *p;
    if (!p) {
        p = mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED)
            work_die("mmap");
        madvise((void *)p, PAGES * 4096, MADV_NOHUGEPAGE);
    }
    for (size_t i = 0; i < PAGES; i++)
        p[i * 4096] = 2;
    while (n--) {
        pid_t child = fork();
        if (child == 0) {
            for (size_t i = 0; i < PAGES; i++)
                p[i * 4096] = 1;
            _exit(0);
        }
        reap(child);
    }
}

static int there[2], back[2];
static pid_t echo;
static void serve(void)
{
    char c;
    close(there[1]);
    close(back[0]);
    while (read(there[0], &c, 1) == 1)
        if (write(back[1], &c, 1) != 1)
            break;
    _exit(0);
}
static void pipe_open(void)
{
    if (pipe(there) || pipe(back))
        work_die("pipe");
    echo = fork();
    if (echo == 0)
        serve();
    close(there[0]);
    close(back[1]);
}
static void pipe_close(void)
{
    close(there[1]);
    close(back[0]);
    reap(echo);
}
static void unix_open(void)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
        work_die("socketpair");
    there[1] = back[0] = pair[0];
    there[0] = back[1] = pair[1];
    echo = fork();
    if (echo == 0) {
        char c;
        close(pair[0]);
        while (read(pair[1], &c, 1) == 1)
            if (write(pair[1], &c, 1) != 1)
                break;
        _exit(0);
    }
    close(pair[1]);
}
static void unix_close(void)
{
    close(there[1]);
    reap(echo);
}
/* One operation = a byte there and a byte back. */
static void ping_pong(uint64_t n)
{
    char c = 0;
    while (n--)
        if (write(there[1], &c, 1) != 1 || read(back[0], &c, 1) != 1)
            work_die("ping");
}

const struct work process_works[] = {
    {"fork-wait", fork_wait, NULL, NULL, NULL},
    {"fork-exec", fork_exec, NULL, NULL, NULL},
    {"fork-sh", fork_sh, NULL, NULL, NULL},
    {"script", script, NULL, NULL, NULL},
    {"fork-cow64", cow, NULL, NULL, NULL},
    {"pipe-pingpong", ping_pong, pipe_open, pipe_close, NULL},
    {"unix-pingpong", ping_pong, unix_open, unix_close, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
