/* bench/linux/work_mem.c - bandwidth of memory, as lmbench's bw_mem and bw_mmap_rd: one operation = 64 KiB, all over 8 MiB. */
#include "work.h"
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { CHUNK = 65536, CHUNKS = 128, WORDS = CHUNK / sizeof(uint64_t) };

static uint64_t *from, *to;
static unsigned at;
static volatile uint64_t sink;

static uint64_t *map(int flags, int fd)
{
    uint64_t *p = mmap(NULL, (size_t)CHUNKS * CHUNK, PROT_READ | PROT_WRITE, flags, fd, 0);
    if (p == MAP_FAILED)
        work_die("mmap");
    for (size_t i = 0; i < (size_t)CHUNKS * WORDS; i++)
        p[i] = i * 0x9e3779b97f4a7c15u;
    return p;
}
static void memory_open(void)
{
    from = map(MAP_PRIVATE | MAP_ANONYMOUS, -1);
    to = map(MAP_PRIVATE | MAP_ANONYMOUS, -1);
}
static void file_open(void)
{
    char path[256];
    snprintf(path, sizeof path, "%s/bench-mapped", work_dir);
    int fd = open(path, O_CREAT | O_TRUNC | O_RDWR, 0600);
    if (fd < 0 || ftruncate(fd, (off_t)CHUNKS * CHUNK))
        work_die(path);
    unlink(path);
    from = map(MAP_SHARED, fd);
    close(fd);
}
static void memory_close(void)
{
    munmap(from, (size_t)CHUNKS * CHUNK);
    if (to)
        munmap(to, (size_t)CHUNKS * CHUNK);
    to = NULL;
}

static size_t next_chunk(void) { return (size_t)(at++ % CHUNKS) * WORDS; }
static uint64_t sum_of(const uint64_t *p)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < WORDS; i++)
        sum += p[i];
    return sum;
}
static void read_words(uint64_t n)
{
    while (n--)
        sink += sum_of(from + next_chunk());
}
static void write_words(uint64_t n)
{
    for (; n; n--) {
        volatile uint64_t *p = to + next_chunk();
        for (size_t i = 0; i < WORDS; i++)
            p[i] = n;
    }
}
/* The compiler is not to make a memcpy of it. */
static void copy_by_hand(uint64_t n)
{
    while (n--) {
        size_t where = next_chunk();
        volatile uint64_t *d = to + where;
        for (size_t i = 0; i < WORDS; i++)
            d[i] = from[where + i];
    }
}
static void copy_by_libc(uint64_t n)
{
    while (n--) {
        size_t where = next_chunk();
        memcpy(to + where, from + where, CHUNK);
    }
}
static void clear(uint64_t n)
{
    while (n--)
        memset(to + next_chunk(), 0, CHUNK);
}
static uint64_t read_check(void)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < CHUNKS; i++)
        sum = sum * 31 + sum_of(from + i * WORDS);
    return sum;
}
static uint64_t copy_check(void)
{
    at = 0;
    copy_by_libc(CHUNKS / 2);
    copy_by_hand(CHUNKS / 2);
    return memcmp(from, to, (size_t)CHUNKS * CHUNK) == 0;
}

const struct work memory_works[] = {
    {"mem-read-64k", read_words, memory_open, memory_close, read_check},
    {"mem-write-64k", write_words, memory_open, memory_close, NULL},
    {"mem-copy-64k", copy_by_hand, memory_open, memory_close, copy_check},
    {"memcpy-64k", copy_by_libc, memory_open, memory_close, copy_check},
    {"memset-64k", clear, memory_open, memory_close, NULL},
    {"mapped-read-64k", read_words, file_open, memory_close, read_check},
    {NULL, NULL, NULL, NULL, NULL},
};
