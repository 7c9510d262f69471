/* tests/diff/native.c - the native backend, parent's side: makes the child, hands it batches, watches it. */
#define _GNU_SOURCE
#include "tests/diff/native_ctl.h"
#include <asm/ldt.h>
#include <cpuid.h>
#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern const uint8_t __start_stub_text[], __stop_stub_text[];
#define WATCH_MS 50
#define RESTART_MAX 100

struct native {
    struct nat_ctl *ctl;
    int ctl_fd, backing_fd;
    pid_t pid;
    unsigned restarts;
    bool busy;
};

static int make_memfd(const char *name, size_t bytes)
{
    int fd = memfd_create(name, MFD_CLOEXEC);
    if (fd >= 0 && ftruncate(fd, (off_t)bytes)) {
        close(fd);
        return -1;
    }
    return fd;
}

static void fill_ldt(struct nat_ctl *t)
{
    for (unsigned i = 0; i < DT_LDT_COUNT; i++) {
        const struct dt_desc *d = &dt_ldt[i];
        struct user_desc u = {.entry_number = i,
                              .base_addr = d->base,
                              .limit = d->limit,
                              .seg_32bit = d->db,
                              .contents = d->contents,
                              .read_exec_only = d->read_exec_only,
                              .limit_in_pages = d->gran,
                              .seg_not_present = !d->present,
                              .useable = 0};
        if (d->limit)
            memcpy(t->ldt_arg[i], &u, sizeof u);
    }
    _Static_assert(sizeof(struct user_desc) == 16, "kernel ABI");
}

/* glibc registered an rseq area, which the child unmaps; the kernel would kill it at the next preemption. */
static void drop_rseq(void)
{
#ifdef SYS_rseq
    extern const ptrdiff_t __rseq_offset __attribute__((weak));
    extern const unsigned __rseq_size __attribute__((weak));
    if (&__rseq_offset && &__rseq_size) {
        char *tp;
        __asm__("mov %%fs:0, %0" : "=r"(tp));
        /* The size that was registered is 32 in every glibc so far; __rseq_size may tell only the used part. */
        if (syscall(SYS_rseq, tp + __rseq_offset, 32, 1, 0x53053053) && __rseq_size)
            syscall(SYS_rseq, tp + __rseq_offset, __rseq_size, 1, 0x53053053);
    }
#endif
}

static void *map_at(uint64_t lin, size_t bytes, int prot, int fd)
{
    int flags = MAP_FIXED_NOREPLACE | (fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED);
    void *p = mmap((void *)lin, bytes, prot, flags, fd, 0);
    return p == (void *)lin ? p : NULL;
}

static void child(struct native *n)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    size_t text = (size_t)(__stop_stub_text - __start_stub_text);
    void *code = map_at(STUB_TEXT, STUB_TEXT_BYTES, PROT_READ | PROT_WRITE | PROT_EXEC, -1);
    if (!code || text > STUB_TEXT_BYTES || !map_at(STUB_STACK, STUB_STACK_BYTES, PROT_READ | PROT_WRITE, -1) ||
        !map_at(STUB_ALIAS, DT_BACKING_BYTES, PROT_READ | PROT_WRITE, n->backing_fd) ||
        !map_at(STUB_CTL, sizeof *n->ctl, PROT_READ | PROT_WRITE, n->ctl_fd)) {
        n->ctl->setup_error = 100;
        _exit(1);
    }
    memcpy(code, __start_stub_text, text);
    drop_rseq();
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    void (*entry)(void) = (void (*)(void))(STUB_TEXT + (uint64_t)((const uint8_t *)stub_main - __start_stub_text));
    entry();
}

/* The limit of the segment that Linux has for RDPID and the like tells the CPU: on the first one it is 0, as in the VM. */
static void go_to_first_cpu(void)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(0, &set);
    sched_setaffinity(0, sizeof set, &set); /* where that is not allowed, LSL may show it */
}

static int spawn(struct native *n)
{
    n->ctl->go = n->ctl->done = 0;
    n->ctl->current = -1;
    n->ctl->setup_error = 0;
    fflush(NULL);
    n->pid = fork();
    if (n->pid == 0) {
        go_to_first_cpu();
        child(n);
        _exit(1);
    }
    return n->pid < 0 ? -1 : 0;
}

static bool child_died(struct native *n)
{
    int status;
    if (n->pid > 0 && waitpid(n->pid, &status, WNOHANG) != n->pid)
        return false;
    if (n->pid > 0)
        fprintf(stderr, "diff: native child ended (status %#x, setup step %u) in case %d of its batch\n", status,
                n->ctl->setup_error, n->ctl->current);
    n->pid = 0;
    return true;
}

/* Waits for the batch; a case that makes no progress over two looks gets SIGALRM, which the child books as a timeout. */
static bool wait_done(struct native *n)
{
    struct nat_ctl *t = n->ctl;
    int32_t last = -2;
    for (;;) {
        uint32_t done = __atomic_load_n(&t->done, __ATOMIC_ACQUIRE);
        if (done == t->go)
            return true;
        struct timespec ts = {.tv_nsec = WATCH_MS * 1000000};
        if (syscall(SYS_futex, &t->done, FUTEX_WAIT, done, &ts, NULL, 0) == 0 || errno != ETIMEDOUT)
            continue;
        if (child_died(n))
            return false;
        int32_t now = __atomic_load_n(&t->current, __ATOMIC_RELAXED);
        if (now == last && now >= 0)
            kill(n->pid, SIGALRM);
        last = now;
    }
}

static void native_start(void *self, const struct dt_case *cases, unsigned count)
{
    struct native *n = self;
    struct nat_ctl *t = n->ctl;
    memcpy(t->cases, cases, count * sizeof *cases);
    t->n = count;
    n->busy = true;
    if (!n->pid && (n->restarts++ >= RESTART_MAX || spawn(n)))
        return;
    __atomic_add_fetch(&t->go, 1, __ATOMIC_RELEASE);
    syscall(SYS_futex, &t->go, FUTEX_WAKE, 1, NULL, NULL, 0);
}

/* A dead child has finished some cases; the one it died in is reported as such, the rest run in a new child. */
static const struct dt_result *native_finish(void *self)
{
    struct native *n = self;
    struct nat_ctl *t = n->ctl;
    unsigned base = 0, total = t->n;
    static struct dt_result saved[DT_BATCH];
    bool died = false;
    while (n->busy && base < total && (!n->pid || !wait_done(n))) {
        died = true;
        unsigned bad = t->current < 0 ? 0 : (unsigned)t->current;
        memcpy(saved + base, t->results, bad * sizeof *saved);
        base += bad;
        saved[base++].vector = DT_VEC_DIED;
        static struct dt_case rest[DT_BATCH];
        memcpy(rest, t->cases + bad + 1, (total - base) * sizeof *rest);
        if (base < total)
            native_start(n, rest, total - base);
        if (n->restarts > RESTART_MAX) {
            while (base < total)
                saved[base++].vector = DT_VEC_DIED;
        }
    }
    n->busy = false;
    if (!died)
        return t->results;
    memcpy(saved + base, t->results, (total - base) * sizeof *saved);
    return saved;
}

static void native_close(void *self)
{
    struct native *n = self;
    if (n->pid > 0) {
        kill(n->pid, SIGKILL);
        waitpid(n->pid, NULL, 0);
    }
    munmap(n->ctl, sizeof *n->ctl);
    close(n->ctl_fd);
    close(n->backing_fd);
    free(n);
}

int dt_native_open(struct dt_backend *b, const uint8_t *golden)
{
    struct native *n = calloc(1, sizeof *n);
    n->ctl_fd = make_memfd("diff-ctl", sizeof *n->ctl);
    n->backing_fd = make_memfd("diff-mem", DT_BACKING_BYTES);
    n->ctl = mmap(NULL, sizeof *n->ctl, PROT_READ | PROT_WRITE, MAP_SHARED, n->ctl_fd, 0);
    if (n->ctl_fd < 0 || n->backing_fd < 0 || n->ctl == MAP_FAILED) {
        fprintf(stderr, "diff: no shared memory: %s\n", strerror(errno));
        free(n);
        return -1;
    }
    struct nat_ctl *t = n->ctl;
    t->backing_fd = n->backing_fd;
    t->fpu_bytes = dt_xsave()->bytes;
    t->has_fsgsbase = getauxval(AT_HWCAP2) >> 1 & 1; /* HWCAP2_FSGSBASE */
    memcpy(t->golden, golden, DT_DATA_BYTES);
    for (unsigned i = 0; dt_maps()[i].count; i++)
        t->maps[i] = dt_maps()[i];
    for (unsigned i = 0; i < DT_DATA_PAGES; i++)
        t->data_mask |= (uint32_t)(DT_DATA_KINDS[i] != '.') << i;
    fill_ldt(t);
    if (spawn(n)) {
        fprintf(stderr, "diff: fork: %s\n", strerror(errno));
        return -1;
    }
    *b = (struct dt_backend){"native", n, native_start, native_finish, native_close};
    return 0;
}
