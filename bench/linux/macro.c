/* bench/linux/macro.c - jobs of whole programs: the same binaries and inputs natively and in guests.
 *
 * usage: macro world=DIR dir=DIR [quick=1] [only=NAME,...]. root holds programs, libraries and inputs (bench/linux/macro-world puts them
 * there), dir is a directory on tmpfs. One line for each job, numbers hexadecimal, as of work.c:
 *     BENCH <name> <hash of all output> 1 <TSC ticks>
 * Programs run by way of root's own dynamic linker, with root as current directory: neither paths nor the host's libraries get
 * into the result.
 */
#define _GNU_SOURCE
#include "lines.h"
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_ARGS 24

static const char *root = "/w", *dir = "/tmp", *only;
static bool quick;

/* In args: "@NAME" stands for NAME in dir. output: where the result is, in dir; "out" is also standard output. */
struct way {
    const char *name;
    const char *const *args; /* NULL: forks */
    const char *input;
    unsigned forks;
};
struct job {
    const char *output;
    struct way full, quick;
};

#define PROGRAM(...)                                                                                                   \
    (const char *const[]) { "ld.so", "--library-path", "lib", __VA_ARGS__, NULL }
#define PLAIN(...)                                                                                                     \
    (const char *const[]) { __VA_ARGS__, NULL }
#define SQLITE PROGRAM("./sqlite3", "-batch", "-init", "/dev/null", "@db")
static const struct job jobs[] = {
    {.output = NULL, {.name = "forkwait-40000", .forks = 40000}, {.name = "forkwait-2000", .forks = 2000}},
    {.output = "out.s",
     {.name = "compile", .args = PROGRAM("./cc1", "-quiet", "-fpreprocessed", "-O2", "large.i", "-o", "@out.s")},
     {.name = "compile-small", .args = PROGRAM("./cc1", "-quiet", "-fpreprocessed", "-O1", "small.i", "-o", "@out.s")}},
    {.output = "out",
     {.name = "script", .args = PLAIN("busybox", "sh", "job.sh", "250", "@tools")},
     {.name = "script-small", .args = PLAIN("busybox", "sh", "job.sh", "25", "@tools")}},
    {.output = "out",
     {.name = "sqlite", .args = SQLITE, .input = "job-40000.sql"},
     {.name = "sqlite-small", .args = SQLITE, .input = "job-2000.sql"}},
    {.output = "out",
     {.name = "xz", .args = PROGRAM("./xz", "-6", "-T1", "-c", "lib/libsqlite3.so.0")},
     {.name = "xz-small", .args = PROGRAM("./xz", "-6", "-T1", "-c", "small.i")}},
    {.output = "out",
     {.name = "gzip", .args = PROGRAM("./gzip", "-6", "-n", "-c", "cc1")},
     {.name = "gzip-small", .args = PROGRAM("./gzip", "-6", "-n", "-c", "lib/libsqlite3.so.0")}},
    {.output = "out",
     {.name = "sha256sum", .args = PROGRAM("./sha256sum", "cc1")},
     {.name = "sha256sum-small", .args = PROGRAM("./sha256sum", "lib/libsqlite3.so.0")}},
};

static void place(char *path, size_t size, const char *name)
{
    if ((size_t)snprintf(path, size, "%s/%s", dir, name) >= size)
        fail("a path is too long");
}

static void point_at(int fd, const char *path, int flags)
{
    int f = open(path, flags, 0644);
    if (f < 0 || dup2(f, fd) != fd)
        _exit(126);
    close(f);
}

static void child(const struct way *w)
{
    const char *const *args = w->args;
    static char places[MAX_ARGS][256];
    char *argv[MAX_ARGS], out[256];
    unsigned n = 0;
    for (; args[n] && n < MAX_ARGS - 1; n++) {
        argv[n] = (char *)args[n];
        if (args[n][0] == '@') {
            place(places[n], sizeof places[n], args[n] + 1);
            argv[n] = places[n];
        }
    }
    argv[n] = NULL;
    place(out, sizeof out, "out");
    point_at(0, w->input ? w->input : "/dev/null", O_RDONLY);
    point_at(1, out, O_WRONLY | O_CREAT | O_TRUNC);
    char *const env[] = {"LC_ALL=C", NULL};
    execve(argv[0], argv, env);
    _exit(127);
}

static void run_program(const struct way *w)
{
    int status;
    pid_t pid = fork();
    if (pid == 0)
        child(w);
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        fail(w->name);
    if (status) {
        printf("FAILED %s: status %x\n", w->name, (unsigned)status);
        exit(1);
    }
}

static void run_forks(unsigned n)
{
    int status;
    while (n--) {
        pid_t pid = fork();
        if (pid == 0)
            _exit(n & 1);
        if (pid < 0 || waitpid(pid, &status, 0) != pid || (unsigned)status != (n & 1) << 8)
            fail("fork");
    }
}

/* FNV-1a, and removes the file. */
static uint64_t hash_of(const char *name)
{
    uint64_t h = 0xcbf29ce484222325ull;
    char path[256], buf[65536];
    place(path, sizeof path, name);
    int f = open(path, O_RDONLY);
    ssize_t n, all = 0;
    while (f >= 0 && (n = read(f, buf, sizeof buf)) > 0) {
        all += n;
        for (ssize_t i = 0; i < n; i++)
            h = (h ^ (uint8_t)buf[i]) * 0x100000001b3ull;
    }
    if (all == 0)
        fail(name);
    close(f);
    unlink(path);
    return h;
}

static void measure(const struct way *w, const char *output)
{
    char db[256];
    place(db, sizeof db, "db");
    unlink(db);
    uint64_t start = ticks();
    if (w->args)
        run_program(w);
    else
        run_forks(w->forks);
    uint64_t took = ticks() - start;
    printf("BENCH %s %llx 1 %llx\n", w->name, output ? (unsigned long long)hash_of(output) : 1ull,
           (unsigned long long)took);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (!strncmp(argv[i], "world=", 6))
            root = argv[i] + 6;
        else if (!strncmp(argv[i], "dir=", 4))
            dir = argv[i] + 4;
        else if (!strncmp(argv[i], "only=", 5))
            only = argv[i] + 5;
        else if (!strcmp(argv[i], "quick=1"))
            quick = true;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (chdir(root))
        fail(root);
    for (unsigned i = 0; i < sizeof jobs / sizeof jobs[0]; i++)
        if (in_list(only, jobs[i].full.name) || in_list(only, jobs[i].quick.name))
            measure(quick ? &jobs[i].quick : &jobs[i].full, jobs[i].output);
    printf("DONE\n");
    return 0;
}
