/* shadowmmu/uworld_pool.c - the life of worlds: start-up and trial, creation ahead of need, recycling, end. */
#define _GNU_SOURCE
#include "shadowmmu/uworld_int.h"
#include "arch/x86_arch.h"
#include "base/clock.h"
#include "base/err.h"
#include <asm/prctl.h>
#include <cpuid.h>
#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef AT_MINSIGSTKSZ
#define AT_MINSIGSTKSZ 51
#endif
#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#endif
#define HWCAP2_USER_FSGSBASE 2u
#define FRAME_ROOM 4096 /* of the signal stack: what is not the FPU image, generously */
#define DEFAULT_WORLDS 256u
#define DEFAULT_SPARE 2u
#define DEFAULT_SPIN_US 50u
#define POLL_NS 20000
#define POLL_LIMIT_NS 5000000000ull

/* The kernel's note at the end of the FXSAVE area (struct _fpx_sw_bytes). */
struct fpx_sw {
    uint32_t magic, extended_bytes;
    uint64_t xfeatures;
    uint32_t xstate_bytes;
};
#define FPX_SW_OFFSET 464
#define FPX_MAGIC1 0x46505853u
#define MXCSR_OFFSET 24
#define MXCSR_MASK_OFFSET 28
#define MXCSR_MASK_DEFAULT 0xffbfu

static void doze(void)
{
    struct timespec t = {0, POLL_NS};
    nanosleep(&t, NULL);
}

const struct uw_counts *uw_counts(const struct uw_pool *p) { return &p->counts; }
int uw_pid(const struct uworld *w) { return w->pid; }
bool uw_faults_cpuid(const struct uw_pool *p) { return p->cpuid_faults; }
bool uw_has_ldt(const struct uw_pool *p) { return p->has_ldt; }
bool uw_conflicts(const struct uw_pool *p, uint64_t gva, uint64_t bytes)
{
    return bits_ranges_overlap(gva, bytes, p->cfg.base, UW_SPAN);
}

/* ---- processes ---- */

/* Notes an end, without waiting for one. */
static bool has_ended(struct uw_pool *p, pid_t pid)
{
    int status;
    pid_t got = waitpid(pid, &status, WNOHANG | __WALL);
    if (got == pid && !p->fail_status)
        p->fail_status = status;
    return got == pid || (got < 0 && errno == ECHILD);
}

bool uw_alive(struct uworld *w)
{
    if (w->life == UW_GONE || w->life == UW_FREE)
        return false;
    if (w->pid <= 0 || has_ended(w->pool, w->pid)) {
        w->life = UW_GONE;
        w->pid = 0;
        return false;
    }
    return true;
}

static void end_process(pid_t pid)
{
    if (pid <= 0)
        return;
    kill(pid, SIGKILL);
    while (waitpid(pid, NULL, __WALL) < 0 && errno == EINTR)
        ;
}

/* Also makes sure that no thread of the world runs any more. */
void uw_kill(struct uworld *w)
{
    if (!uw_alive(w))
        return;
    pid_t pid = w->pid;
    w->life = UW_GONE;
    w->pid = 0;
    end_process(pid);
    w->pool->counts.killed++;
}

static const char *why_ended(const struct uw_pool *p)
{
    static const char *const text[UW_STEP_COUNT] = {[UW_STEP_NONE] = "a helper process ended",
#define STEP(name, text) [UW_STEP_##name] = text,
                                                    UW_STEPS(STEP)
#undef STEP
    };
    int s = p->fail_status;
    if (s && WIFSIGNALED(s))
        return WTERMSIG(s) == SIGSYS ? "a system call is forbidden here" : "a helper process was killed";
    int step = s && WIFEXITED(s) ? WEXITSTATUS(s) - UW_EXIT : 0;
    return text[step > 0 && step < UW_STEP_COUNT ? step : 0];
}

/* ---- creation ---- */

/* Asks the zygote for a world in slot w. One at a time. */
static void request(struct uw_pool *p, struct uworld *w)
{
    memset(w->hdr, 0, sizeof *w->hdr);
    memset(w->mb, 0, UW_RW_BYTES);
    w->hdr->done_pos = w->slot_pos + offsetof(struct uw_hdr, done);
    w->hdr->frame_sp = p->frame_addr + 8;
    w->life = UW_STARTING;
    w->pid = 0;
    w->n_cmds = w->n_ldt = 0;
    w->guest_cpu = -1;
    w->away = w->renewed = false;
    w->retries = 0;
    uw_cpu_share(w);
    memset(w->sel, 0xff, sizeof w->sel);
    p->starting = w;
    p->zhdr->slot_pos = w->slot_pos;
    atomic_fetch_add(&p->zhdr->seq, 1);
    uw_futex_wake(&p->zhdr->seq);
}

/* Waits for a word of a starting process to become non-zero, or equal to want if that is given. */
static bool poll_word(struct uw_pool *p, _Atomic uint32_t *word, uint32_t want, pid_t pid)
{
    uint64_t end = clock_now_ns() + POLL_LIMIT_NS;
    while (*word != want) {
        if (has_ended(p, pid) || clock_now_ns() > end)
            return false;
        doze();
    }
    return true;
}

/* The zygote's answer to the request: the pid. */
static bool take_pid(struct uw_pool *p)
{
    struct uworld *w = p->starting;
    if (w->pid)
        return w->pid > 0;
    if (!poll_word(p, &p->zmb->turn, p->zhdr->seq, p->zygote))
        return false;
    w->pid = p->zmb->pid;
    return w->pid > 0;
}

/* Loads the state of a thread that has done nothing yet. */
static void freshen(struct uworld *w)
{
    struct uw_pool *p = w->pool;
    memcpy(uw_frame_of(w), p->fresh, p->frame_bytes);
    memset(w->sel, 0xff, sizeof w->sel);
}

/* The FPU state after INIT. What the kernel saved is the monitor's at the time of the fork, not for guests to see. */
static void clean_image(uint8_t *image, size_t bytes)
{
    static const uint16_t fcw = 0x37f;
    static const uint32_t mxcsr = 0x1f80;
    memset(image, 0, MXCSR_MASK_OFFSET);
    memcpy(image, &fcw, sizeof fcw);
    memcpy(image + MXCSR_OFFSET, &mxcsr, sizeof mxcsr);
    memset(image + 32, 0, FPX_SW_OFFSET - 32);
    if (bytes > 512)
        memset(image + 512, 0, bytes - 512); /* no component in use (XSTATE_BV) */
}

static void learn_components(struct uw_pool *p)
{
    uint32_t a, b, c, d;
    for (unsigned i = 2; i < UW_COMPONENTS; i++) {
        if (!(p->xfeatures >> i & 1))
            continue;
        __cpuid_count(0xd, i, a, b, c, d);
        p->xoffset[i] = b;
        p->xsize[i] = a;
    }
}

/* The first signal frame shows where this host's kernel puts frames and what is in them. */
static int learn_frame(struct uw_pool *p, struct uworld *w)
{
    uint64_t at = w->mb->frame, top = p->cfg.base + UW_ALT + UW_ALT_BYTES;
    if (at < p->cfg.base + UW_ALT || at > top - sizeof(struct uw_frame) - 576)
        return -RD_E_UNSUPPORTED;
    p->frame_addr = at;
    p->frame_bytes = top - at;
    const struct uw_frame *f = uw_frame_of(w);
    uint64_t fp = f->sc.fpstate;
    if (fp < at || fp > top - 576 || !(p->fresh = malloc(p->frame_bytes)) || !(p->given = malloc(p->frame_bytes)))
        return -RD_E_UNSUPPORTED;
    memcpy(p->fresh, f, p->frame_bytes);
    const uint8_t *image = p->fresh + (fp - at);
    struct fpx_sw sw;
    memcpy(&sw, image + FPX_SW_OFFSET, sizeof sw);
    if (sw.magic == FPX_MAGIC1 && sw.xstate_bytes <= top - fp) {
        p->xfeatures = sw.xfeatures;
        p->xstate_bytes = sw.xstate_bytes;
    } else {
        p->xfeatures = XCR0_X87 | XCR0_SSE;
        p->xstate_bytes = 512;
    }
    learn_components(p);
    memcpy(&p->mxcsr_mask, image + MXCSR_MASK_OFFSET, 4);
    if (!p->mxcsr_mask)
        p->mxcsr_mask = MXCSR_MASK_DEFAULT;
    clean_image(p->fresh + (fp - at), p->xstate_bytes);
    return 0;
}

/* A system call instruction in the stub that no filter knows, with a value in a register: if the event comes back as it should,
 * the guest thread is in its handler, came there through a frame of ours, and nothing that it did before counts. */
static bool prove(struct uworld *w)
{
    struct uw_pool *p = w->pool;
    uint64_t ip = p->cfg.base + (uint64_t)(uw_stub_probe - uw_stub);
    for (unsigned i = 0; i < 4 && w->life != UW_GONE; i++) {
        struct uw_state s = {.gpr[R_RAX] = 0x7e57, .gpr[R_RBX] = uw_tsc(), .rip = ip, .cs = UW_CS64};
        uint64_t nonce = s.gpr[R_RBX];
        struct uw_event ev;
        freshen(w);
        w->renewed = false;
        if (uw_run(w, &s, &ev))
            return false;
        if (ev.kind == UW_SYSCALL && s.rip == ip && s.gpr[R_RBX] == nonce && s.gpr[R_RAX] == 0x7e57)
            return true;
    }
    return false;
}

static bool pass_on(struct uworld *w)
{
    if (!uw_is_waiting(w))
        return false;
    freshen(w);
    w->mb->asleep = 1; /* which it need not have said */
    w->renewed = true;
    return true;
}

int uw_renew(struct uworld *w)
{
    if (w->life == UW_GONE || !pass_on(w))
        return -RD_E_HOST;
    w->n_ldt = 0; /* what is queued stays: the caller counts on it */
    w->retries = 0;
    uw_cpu_share(w);
    atomic_store(&w->kick, 0);
    w->pool->counts.renewed++;
    return 0;
}

/* Brings the world being started to its first stop. */
static int finish_start(struct uw_pool *p)
{
    struct uworld *w = p->starting;
    p->starting = NULL;
    if (!poll_word(p, &w->mb->ready, 1, w->pid) || !poll_word(p, &w->mb->mready, 1, w->pid))
        goto fail;
    w->mapper = w->mb->mapper;
    w->mapper_cpu = -1;
    if (!p->frame_addr) {
        /* Out of its sleep, into the handler. */
        syscall(SYS_tgkill, w->pid, w->pid, UW_SIG_KICK);
        uint64_t end = clock_now_ns() + POLL_LIMIT_NS;
        while (!w->mb->frame) {
            if (!uw_alive(w) || clock_now_ns() > end)
                goto fail;
            doze();
        }
        int err = learn_frame(p, w);
        if (err) {
            uw_kill(w);
            return err;
        }
        w->hdr->frame_sp = p->frame_addr + 8;
    }
    if (!prove(w))
        goto fail;
    w->life = UW_SPARE;
    p->counts.created++;
    return 0;
fail:
    uw_kill(w);
    return -RD_E_HOST;
}

/* Starts one more world if there is a free slot and none is being started. */
static void start_one(struct uw_pool *p)
{
    for (unsigned i = 0; !p->starting && i < p->cfg.max_worlds; i++)
        if (p->world[i].life == UW_FREE || p->world[i].life == UW_GONE)
            request(p, &p->world[i]);
}

static unsigned spares(const struct uw_pool *p)
{
    unsigned n = p->starting != NULL;
    for (unsigned i = 0; i < p->cfg.max_worlds; i++)
        n += p->world[i].life == UW_SPARE;
    return n;
}

/* Whether CPUID faults is a model-specific register that the host's kernel writes whenever it switches between a thread that wants it
 * so and one that does not: under a hypervisor that is an exit, 8 us where we have measured. So while there are worlds in use, the
 * thread that runs them is like them. CPUID of its own must then be seen to by its handler for SIGSEGV. */
static void be_like_worlds(const struct uw_pool *p, bool yes)
{
    if (p->cpuid_faults)
        syscall(SYS_arch_prctl, ARCH_SET_CPUID, !yes);
}

static void take(struct uw_pool *p, struct uworld *w)
{
    w->life = UW_USED;
    w->retries = 0;
    uw_cpu_share(w);
    if (p->n_used++ == 0)
        be_like_worlds(p, true);
}

static void give_back(struct uw_pool *p)
{
    if (--p->n_used == 0)
        be_like_worlds(p, false);
}

struct uworld *uw_get(struct uw_pool *p)
{
    struct uworld *w = NULL;
    for (unsigned i = 0; !w && i < p->cfg.max_worlds; i++)
        if (p->world[i].life == UW_SPARE)
            w = &p->world[i];
    if (!w) {
        start_one(p);
        w = p->starting;
        if (!w)
            return NULL;
        if (!take_pid(p)) {
            p->starting = NULL;
            w->life = UW_FREE;
            return NULL;
        }
        if (finish_start(p))
            return NULL;
    }
    take(p, w);
    if (spares(p) < p->cfg.spare)
        start_one(p);
    return w;
}

void uw_put(struct uworld *w)
{
    struct uw_pool *p = w->pool;
    w->n_cmds = 0;
    w->n_ldt = 0;
    atomic_store(&w->kick, 0);
    give_back(p);
    if (w->life == UW_GONE)
        return;
    /* Once nothing of the old guest is mapped, its thread can do no more than take faults, and prove() outlasts those. */
    if (spares(p) >= 2 * p->cfg.spare || uw_unmap_all(w) || uw_flush(w) || (!pass_on(w) && !prove(w))) {
        uw_kill(w);
        return;
    }
    w->life = UW_SPARE;
    p->counts.recycled++;
}

/* ---- the pool ---- */

static int check_host(const char **why)
{
    if (!(getauxval(AT_HWCAP2) & HWCAP2_USER_FSGSBASE)) {
        *why = "the host has no FSGSBASE";
        return -RD_E_UNSUPPORTED;
    }
    if (getauxval(AT_MINSIGSTKSZ) + FRAME_ROOM > UW_ALT_BYTES) {
        *why = "the host's signal frames are too large";
        return -RD_E_UNSUPPORTED;
    }
    return 0;
}

/* The control memfd goes where the kernel window cannot want a page: below 8 TiB (DESIGN.md). */
static int make_control(struct uw_pool *p)
{
    p->ctl_bytes = (size_t)(1 + p->cfg.max_worlds) * UW_SLOT_BYTES;
    p->ctl_fd = memfd_create("user-worlds", MFD_CLOEXEC);
    if (p->ctl_fd < 0)
        return -RD_E_HOST;
    uint64_t r = 0;
    if (getrandom(&r, sizeof r, 0) != sizeof r || ftruncate(p->ctl_fd, (off_t)p->ctl_bytes))
        return -RD_E_HOST;
    uintptr_t hint = (1ull << 40) + (r % (6ull << 19) << 21);
    p->ctl = mmap((void *)hint, p->ctl_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, p->ctl_fd, 0);
    if (p->ctl == MAP_FAILED) {
        p->ctl = NULL;
        return -RD_E_NOMEM;
    }
    for (unsigned i = 0; i < p->cfg.max_worlds; i++) {
        struct uworld *w = &p->world[i];
        w->pool = p;
        w->slot_pos = (uint64_t)(i + 1) * UW_SLOT_BYTES;
        w->hdr = (struct uw_hdr *)(p->ctl + w->slot_pos);
        w->mb = (struct uw_mailbox *)(p->ctl + w->slot_pos + UW_RO_BYTES);
    }
    p->zhdr = (struct uw_hdr *)p->ctl;
    p->zmb = (struct uw_mailbox *)(p->ctl + UW_RO_BYTES);
    p->zhdr->parent = (uint32_t)getpid();
    return 0;
}

static void set_spin(struct uw_pool *p, uint64_t tsc_per_us)
{
    p->tsc_per_us = tsc_per_us ? tsc_per_us : 1;
    p->spin_max = p->several_cpus ? p->cfg.spin_us * p->tsc_per_us : 0;
}

/* Whether CPUID faults in the worlds, found out by looking: CPUID is not in the stub, but the setting is the zygote's. */
static bool cpuid_can_fault(const struct uw_config *cfg)
{
    if (!cfg->fault_cpuid)
        return false;
    /* Setting it to what it is fails where it cannot be changed. */
    return syscall(SYS_arch_prctl, ARCH_SET_CPUID, 1) == 0;
}

/* What can be done without, and how things are then. */
static void find_lacks(struct uw_pool *p, bool want_cpuid)
{
    char none;
    p->dispatches = prctl(PR_SET_SYSCALL_USER_DISPATCH, 0, 0, 0, 0) == 0; /* off, as it is */
    p->has_ldt = syscall(SYS_modify_ldt, 0, &none, 0ul) >= 0;
    const char *const text[] = {
        p->dispatches ? NULL : "by seccomp alone, the host has no Syscall User Dispatch",
        p->has_ldt ? NULL : "32-bit code with thread-local storage translated, the host has no modify_ldt",
        p->cpuid_faults || !want_cpuid ? NULL : "CPUID as the host's, it cannot be made to fault",
    };
    size_t n = 0;
    for (unsigned i = 0; i < 3; i++)
        if (text[i] && n < sizeof p->lacks)
            n += (size_t)snprintf(p->lacks + n, sizeof p->lacks - n, "%s%s", n ? "; " : "", text[i]);
}

/* Zygote, first world, trial. */
static int bring_up(struct uw_pool *p, const char **why)
{
    uint64_t ns = clock_now_ns(), tsc = uw_tsc();
    uw_cpu_init(p);
    set_spin(p, 2000);
    p->cpuid_faults = cpuid_can_fault(&p->cfg);
    find_lacks(p, p->cfg.fault_cpuid);
    p->cfg.fault_cpuid = p->cpuid_faults;
    p->zygote = uw_zygote_start(p);
    if (p->zygote < 0) {
        *why = "the host would not start a helper process";
        return -RD_E_HOST;
    }
    start_one(p);
    struct uworld *w = p->starting;
    if (!take_pid(p)) {
        p->starting = NULL;
        w->life = UW_FREE;
        *why = p->zmb->pid < 0 ? "the host would not clone a helper process" : why_ended(p);
        return -RD_E_HOST;
    }
    int err = finish_start(p);
    if (err) {
        *why = why_ended(p);
        return err;
    }
    ns = clock_now_ns() - ns;
    set_spin(p, (uw_tsc() - tsc) * 1000 / (ns ? ns : 1));
    while (spares(p) < p->cfg.spare && !p->starting)
        start_one(p);
    uw_rest(p);
    return 0;
}

int uw_pool_create(struct uw_pool **out, const struct uw_config *cfg, const char **why)
{
    struct uw_config c = *cfg;
    c.base = c.base ? c.base : UW_DEFAULT_BASE;
    c.max_worlds = c.max_worlds ? c.max_worlds : DEFAULT_WORLDS;
    c.spare = c.spare ? c.spare : DEFAULT_SPARE;
    c.spin_us = c.spin_us ? c.spin_us : DEFAULT_SPIN_US;
    *why = "bad parameters";
    if ((c.base & (UW_SPAN - 1)) || c.base < UW_SPAN || c.base > UW_TASK_END - 2 * UW_SPAN || c.max_worlds > 65536 ||
        c.spin_us > 100000)
        return -RD_E_INVAL;
    int err = check_host(why);
    if (err)
        return err;
    *why = "out of memory";
    struct uw_pool *p = calloc(1, sizeof *p + c.max_worlds * sizeof p->world[0]);
    if (!p)
        return -RD_E_NOMEM;
    p->cfg = c;
    p->ctl_fd = -1;
    err = make_control(p);
    if (!err)
        err = bring_up(p, why);
    if (err) {
        uw_pool_destroy(p);
        return err;
    }
    *why = p->lacks;
    *out = p;
    return 0;
}

void uw_pool_destroy(struct uw_pool *p)
{
    if (!p)
        return;
    uw_rest(p);
    if (p->n_used)
        be_like_worlds(p, false);
    if (p->starting && take_pid(p))
        uw_kill(p->starting);
    for (unsigned i = 0; i < p->cfg.max_worlds; i++)
        if (p->world[i].life != UW_FREE)
            uw_kill(&p->world[i]);
    if (p->zygote > 0 && !has_ended(p, p->zygote))
        end_process(p->zygote);
    if (p->ctl)
        munmap(p->ctl, p->ctl_bytes);
    if (p->ctl_fd >= 0)
        close(p->ctl_fd);
    free(p->fresh);
    free(p->given);
    free(p);
}
