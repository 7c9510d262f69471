/* bench/linux/work_ctx.c - switches between processes: lmbench's lat_ctx, lat_fifo and lat_fcntl. */
#define _GNU_SOURCE
#include "ring.h"
#include "work.h"
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static pid_t peers[16];
static unsigned peer_count;

static pid_t spawned(pid_t pid)
{
    if (pid < 0)
        work_die("fork");
    if (pid > 0)
        peers[peer_count++] = pid;
    return pid;
}
static pid_t start_peer(void) { return spawned(fork()); }
static void end_peers(void)
{
    for (unsigned i = 0; i < peer_count; i++)
        kill(peers[i], SIGKILL);
    for (unsigned i = 0; i < peer_count; i++)
        waitpid(peers[i], NULL, 0);
    peer_count = 0;
}

/* ---- a token goes round through pipes; who has it reads all of its own memory ---- */

static struct ring ring;
static size_t own_bytes;
static volatile uint64_t sink;

static void *own_memory(void)
{
    if (!own_bytes)
        return NULL;
    uint8_t *p = mmap(NULL, own_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        work_die("mmap");
    for (size_t i = 0; i < own_bytes; i += 4096)
        p[i] = 1;
    return p;
}
static void read_own(const uint64_t *p)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < own_bytes / sizeof *p; i++)
        sum += p[i];
    sink += sum;
}
static _Noreturn void pass_on(int in, int out)
{
    char c;
    const uint64_t *p = own_memory();
    while (read(in, &c, 1) == 1) {
        read_own(p);
        if (write(out, &c, 1) != 1)
            break;
    }
    _exit(0);
}
static const uint64_t *first_memory;
static void ring_open(unsigned processes, unsigned kib)
{
    own_bytes = kib * 1024ul;
    if (!ring_make(&ring, processes, start_peer, pass_on))
        work_die("pipe");
    first_memory = own_memory();
}
static void ring_2_0(void) { ring_open(2, 0); }
static void ring_2_16(void) { ring_open(2, 16); }
static void ring_2_64(void) { ring_open(2, 64); }
static void ring_8_16(void) { ring_open(8, 16); }
static void ring_8_64(void) { ring_open(8, 64); }
static void ring_16_16(void) { ring_open(16, 16); }
static void ring_16_64(void) { ring_open(16, 64); }
/* One operation = once round. */
static void rounds(uint64_t n)
{
    char c = 0;
    while (n--) {
        if (write(ring.out, &c, 1) != 1 || read(ring.in, &c, 1) != 1)
            work_die("ring");
        read_own(first_memory);
    }
}
static void ring_close(void)
{
    close(ring.out);
    close(ring.in);
    end_peers();
    if (own_bytes)
        munmap((void *)first_memory, own_bytes);
}

/* ---- named pipes ---- */

static void fifo_path(char *path, size_t size, unsigned i) { snprintf(path, size, "%s/bench-fifo%u", work_dir, i); }
static void fifo_open(void)
{
    char path[2][256];
    for (unsigned i = 0; i < 2; i++) {
        fifo_path(path[i], sizeof path[i], i);
        unlink(path[i]);
        if (mkfifo(path[i], 0600))
            work_die(path[i]);
    }
    own_bytes = 0;
    first_memory = NULL;
    if (spawned(fork()) == 0) {
        int in = open(path[0], O_RDONLY);
        pass_on(in, open(path[1], O_WRONLY));
    }
    ring.out = open(path[0], O_WRONLY);
    ring.in = open(path[1], O_RDONLY);
    if (ring.out < 0 || ring.in < 0)
        work_die("fifo");
    for (unsigned i = 0; i < 2; i++)
        unlink(path[i]);
}

/* ---- record locks: two processes that move on through three bytes, each to the one that the other has left ---- */

static int locks = -1;
static unsigned place;
static void lock(short type, unsigned byte)
{
    struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    if (fcntl(locks, F_SETLKW, &l))
        work_die("fcntl");
}
static void move_on(void)
{
    unsigned next = (place + 1) % 3;
    lock(F_WRLCK, next);
    lock(F_UNLCK, place);
    place = next;
}
static void lock_open(void)
{
    char path[256], c;
    int ready[2];
    snprintf(path, sizeof path, "%s/bench-locks", work_dir);
    locks = open(path, O_CREAT | O_TRUNC | O_RDWR, 0600);
    if (locks < 0 || pipe(ready))
        work_die(path);
    unlink(path);
    place = 0;
    lock(F_WRLCK, 0);
    if (spawned(fork()) == 0) {
        place = 1;
        lock(F_WRLCK, 1);
        if (write(ready[1], "", 1) != 1)
            _exit(1);
        for (;;)
            move_on();
    }
    if (read(ready[0], &c, 1) != 1)
        work_die("locks");
    close(ready[0]);
    close(ready[1]);
}
/* One operation = each of the two takes a lock that the other has let go. */
static void hand_over(uint64_t n)
{
    while (n--)
        move_on();
}
static void lock_close(void)
{
    end_peers();
    close(locks);
}

const struct work switch_works[] = {
    {"ctx-2x0k", rounds, ring_2_0, ring_close, NULL},       {"ctx-2x16k", rounds, ring_2_16, ring_close, NULL},
    {"ctx-2x64k", rounds, ring_2_64, ring_close, NULL},     {"ctx-8x16k", rounds, ring_8_16, ring_close, NULL},
    {"ctx-8x64k", rounds, ring_8_64, ring_close, NULL},     {"ctx-16x16k", rounds, ring_16_16, ring_close, NULL},
    {"ctx-16x64k", rounds, ring_16_64, ring_close, NULL},   {"fifo-pingpong", rounds, fifo_open, ring_close, NULL},
    {"fcntl-lock", hand_over, lock_open, lock_close, NULL}, {NULL, NULL, NULL, NULL, NULL},
};
