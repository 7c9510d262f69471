/* bench/linux/work_sys.c - system calls, signals, memory and files. */
#define _GNU_SOURCE
#include "work.h"
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { BUF = 65536, PAGES = 512 };
static uint8_t buf[BUF];
static char path[256];
static int fd = -1, null_fd = -1;

static void must(int ok, const char *what)
{
    if (!ok)
        work_die(what);
}

static void getppid_loop(uint64_t n)
{
    while (n--)
        syscall(SYS_getppid);
}
static void clock_loop(uint64_t n)
{
    struct timespec t;
    while (n--)
        clock_gettime(CLOCK_MONOTONIC, &t);
}

static void open_zero(void) { must((fd = open("/dev/zero", O_RDONLY)) >= 0, "/dev/zero"); }
static void open_null(void) { must((null_fd = open("/dev/null", O_WRONLY)) >= 0, "/dev/null"); }
static void close_fd(void) { close(fd); }
static void close_null(void) { close(null_fd); }
static void read_byte(uint64_t n)
{
    while (n--)
        must(read(fd, buf, 1) == 1, "read");
}
static void read_zero(uint64_t n)
{
    while (n--)
        must(read(fd, buf, BUF) == BUF, "read");
}
static void write_byte(uint64_t n)
{
    while (n--)
        must(write(null_fd, buf, 1) == 1, "write");
}
static void stat_loop(uint64_t n)
{
    struct stat st;
    while (n--)
        must(stat("/dev/null", &st) == 0, "stat");
}
static void fstat_loop(uint64_t n)
{
    struct stat st;
    while (n--)
        must(fstat(null_fd, &st) == 0, "fstat");
}
static void open_close(uint64_t n)
{
    while (n--) {
        int f = open("/dev/null", O_RDONLY);
        must(f >= 0, "open");
        close(f);
    }
}

static void handler(int sig) {}
static void sig_install(uint64_t n)
{
    struct sigaction sa = {.sa_handler = handler};
    while (n--)
        sigaction(SIGUSR1, &sa, NULL);
}
static void sig_catch(uint64_t n)
{
    signal(SIGUSR1, handler);
    pid_t self = getpid();
    while (n--)
        kill(self, SIGUSR1);
}
static sigjmp_buf back;
static void on_fault(int sig) { siglongjmp(back, 1); }
static void prot_fault(uint64_t n)
{
    struct sigaction sa = {.sa_handler = on_fault, .sa_flags = SA_NODEFER}, old;
    volatile uint8_t *p = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    must(p != MAP_FAILED, "mmap");
    sigaction(SIGSEGV, &sa, &old);
    for (volatile uint64_t left = n; left; left--)
        if (sigsetjmp(back, 0) == 0)
            *p = 1;
    sigaction(SIGSEGV, &old, NULL);
    munmap((void *)p, 4096);
}

/* One operation = the first touch of one page. */
static void page_faults(uint64_t n)
{
    while (n) {
        volatile uint8_t *p = mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        must(p != MAP_FAILED, "mmap");
        madvise((void *)p, PAGES * 4096, MADV_NOHUGEPAGE);
        for (size_t i = 0; i < PAGES && n; i++, n--)
            p[i * 4096] = 1;
        munmap((void *)p, PAGES * 4096);
    }
}
/* One operation = mapping, touching and unmapping 64 KiB. */
static void map_unmap(uint64_t n)
{
    while (n--) {
        volatile uint8_t *p = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        must(p != MAP_FAILED, "mmap");
        for (size_t i = 0; i < 65536; i += 4096)
            p[i] = 1;
        munmap((void *)p, 65536);
    }
}
/* One operation = taking away and giving back the right to write 16 touched pages. */
static void protect(uint64_t n)
{
    static uint8_t *p;
    if (!p) {
        p = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        must(p != MAP_FAILED, "mmap");
        madvise(p, 65536, MADV_NOHUGEPAGE);
    }
    while (n--) {
        memset(p, 1, 65536);
        mprotect(p, 65536, PROT_READ);
        mprotect(p, 65536, PROT_READ | PROT_WRITE);
    }
}
/* Same file mapped, read page by page: faults that map many pages around. */
static void file_open(void)
{
    snprintf(path, sizeof path, "%s/bench-data", work_dir);
    fd = open(path, O_CREAT | O_TRUNC | O_RDWR, 0600);
    must(fd >= 0, path);
    for (int i = 0; i < 16; i++)
        must(write(fd, buf, BUF) == BUF, path);
}
static void file_close(void)
{
    close(fd);
    unlink(path);
}
static void map_file(uint64_t n)
{
    while (n--) {
        volatile uint8_t *p = mmap(NULL, 16 * BUF, PROT_READ, MAP_SHARED, fd, 0);
        must(p != MAP_FAILED, "mmap");
        uint8_t sum = 0;
        for (size_t i = 0; i < 16 * BUF; i += 4096)
            sum += p[i];
        buf[0] = sum;
        munmap((void *)p, 16 * BUF);
    }
}
static void file_write(uint64_t n)
{
    while (n--)
        must(pwrite(fd, buf, BUF, (off_t)(n & 15) * BUF) == BUF, "pwrite");
}
static void file_read(uint64_t n)
{
    while (n--)
        must(pread(fd, buf, BUF, (off_t)(n & 15) * BUF) == BUF, "pread");
}
/* One operation = the first read of one page of a mapped file, without the pages around it. */
static void file_faults(uint64_t n)
{
    while (n) {
        volatile uint8_t *p = mmap(NULL, 16 * BUF, PROT_READ, MAP_SHARED, fd, 0);
        must(p != MAP_FAILED, "mmap");
        must(madvise((void *)p, 16 * BUF, MADV_RANDOM) == 0, "madvise");
        for (size_t i = 0; i < 16 * BUF && n; i += 4096, n--)
            buf[0] = p[i];
        munmap((void *)p, 16 * BUF);
    }
}
static void create_files(uint64_t n, size_t bytes)
{
    char name[256];
    snprintf(name, sizeof name, "%s/bench-file", work_dir);
    while (n--) {
        int f = open(name, O_CREAT | O_EXCL | O_RDWR, 0600);
        must(f >= 0, name);
        if (bytes)
            must(write(f, buf, bytes) == (ssize_t)bytes, name);
        close(f);
        unlink(name);
    }
}
static void create_unlink(uint64_t n) { create_files(n, 0); }
static void create_unlink_10k(uint64_t n) { create_files(n, 10240); }

const struct work system_works[] = {
    {"getppid", getppid_loop, NULL, NULL, NULL},
    {"clock_gettime", clock_loop, NULL, NULL, NULL},
    {"read-1", read_byte, open_zero, close_fd, NULL},
    {"write-1", write_byte, open_null, close_null, NULL},
    {"stat", stat_loop, NULL, NULL, NULL},
    {"fstat", fstat_loop, open_null, close_null, NULL},
    {"open-close", open_close, NULL, NULL, NULL},
    {"sig-install", sig_install, NULL, NULL, NULL},
    {"sig-catch", sig_catch, NULL, NULL, NULL},
    {"prot-fault", prot_fault, NULL, NULL, NULL},
    {"page-fault", page_faults, NULL, NULL, NULL},
    {"mmap-64k", map_unmap, NULL, NULL, NULL},
    {"mprotect-64k", protect, NULL, NULL, NULL},
    {"map-file-1m", map_file, file_open, file_close, NULL},
    {"file-fault", file_faults, file_open, file_close, NULL},
    {"write-tmpfs-64k", file_write, file_open, file_close, NULL},
    {"read-tmpfs-64k", file_read, file_open, file_close, NULL},
    {"read-zero-64k", read_zero, open_zero, close_fd, NULL},
    {"create-unlink", create_unlink, NULL, NULL, NULL},
    {"create-unlink-10k", create_unlink_10k, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
