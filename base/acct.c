/* base/acct.c - see acct.h. */
#define _GNU_SOURCE
#include "base/acct.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/rng.h"
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>

#define PERIOD_NS 4000000u /* on average */
#define SIGNAL_ROUNDS 200

static const char *const names[] = {
#define ACCT(name, how, text) #name,
#include "base/acct.def"
#undef ACCT
};
enum how { TIMED, SAMPLED };
static const enum how hows[] = {
#define ACCT(name, how, text) how,
#include "base/acct.def"
#undef ACCT
};

/* ---- the sampler ---- */

/* Whatever passed since the last sample counts for what is seen now, also when the host let this thread wait. The interval varies,
 * lest it fall into step with a guest's timer. */
static void *sampler(void *arg)
{
    struct acct *a = arg;
    uint64_t last = a->start_ns, lcg = last | 1;
    while (!a->quit) {
        struct timespec t = {0, PERIOD_NS / 2 + (long)(rng_small(&lcg) % PERIOD_NS)};
        clock_nanosleep(CLOCK_MONOTONIC, 0, &t, NULL);
        uint32_t state = a->state, kind = state >> 8;
        uint64_t now = clock_now_ns();
        a->sampled_ns[(state & 0xff) % ACCT_CLASSES] += now - last;
        if ((state & 0xff) == ACCT_callout && kind < ACCT_KINDS)
            a->kind_ns[kind] += now - last;
        last = now;
        a->samples++;
    }
    return NULL;
}

int acct_start(struct acct *a, uint64_t start_ns)
{
    sigset_t all, old;
    uint64_t now = clock_now_ns();
    a->start_ns = now;
    a->start_tsc = __builtin_ia32_rdtsc();
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old); /* signals are for the watched thread */
    int failed = pthread_create(&a->thread, NULL, sampler, a);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (failed)
        return -RD_E_HOST;
    a->sampled_ns[a->state & 0xff] += now - start_ns; /* before there was a sampler */
    a->wall_ns = now - start_ns;
    a->on = true;
    return 0;
}

/* ---- what a signal costs ---- */

static volatile uint64_t resume_at;

static void skip(int sig, siginfo_t *si, void *ctx)
{
    ((ucontext_t *)ctx)->uc_mcontext.gregs[REG_RIP] = (greg_t)resume_at;
}

static uint64_t fault_once(const void *page)
{
    uint64_t start = __builtin_ia32_rdtsc();
    __asm__ volatile("lea 1f(%%rip), %%rax; mov %%rax, %0; movb (%1), %%al; 1:"
                     : "=m"(resume_at)
                     : "r"(page)
                     : "rax", "memory");
    return __builtin_ia32_rdtsc() - start;
}

/* Ticks of a page fault that becomes a signal whose handler does nothing: the best of many. The time before a handler runs and after it
 * cannot be stamped. */
static uint64_t signal_ticks(void)
{
    struct sigaction old, sa = {.sa_sigaction = skip, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    void *page = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t best = ~0ull;
    if (page == MAP_FAILED)
        return 0;
    sigfillset(&sa.sa_mask);
    if (!sigaction(SIGSEGV, &sa, &old)) {
        for (unsigned i = 0; i < SIGNAL_ROUNDS; i++) {
            uint64_t t = fault_once(page);
            best = t < best ? t : best;
        }
        sigaction(SIGSEGV, &old, NULL);
    }
    munmap(page, 4096);
    return best == ~0ull ? 0 : best;
}

static uint64_t to_ns(const struct acct *a, uint64_t ticks)
{
    uint64_t ns = a->wall_ns; /* of ticks_total */
    return a->ticks_total ? (uint64_t)((double)ticks * (double)ns / (double)a->ticks_total) : 0;
}

void acct_stop(struct acct *a)
{
    if (!a->on)
        return;
    a->quit = true;
    pthread_join(a->thread, NULL);
    a->on = false;
    uint64_t before = a->wall_ns, during = clock_now_ns() - a->start_ns;
    uint64_t ticks = __builtin_ia32_rdtsc() - a->start_tsc;
    a->ticks[ACCT_setup] += (uint64_t)((double)before * (double)ticks / (double)during);
    a->wall_ns = before + during;
    a->ticks_total = (uint64_t)((double)a->wall_ns * (double)ticks / (double)during);
    a->cpu_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    a->signal_ns = to_ns(a, signal_ticks());
}

/* ---- the account ---- */

static uint64_t plain_ns(const struct acct *a, enum acct_class class)
{
    return hows[class] == TIMED ? to_ns(a, a->ticks[class]) : a->sampled_ns[class];
}

static uint64_t at_most(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* Signals of our own interrupt the TC, those of a user world its code: as seen by the sampler. */
static uint64_t own_signals(const struct acct *a)
{
    uint64_t n = 0;
    for (unsigned c = ACCT_fault_hidden; c <= ACCT_fault_other; c++)
        n += a->count[c];
    return n;
}

static uint64_t moved(const struct acct *a, enum acct_class from)
{
    switch (from) {
    case ACCT_tc_window: return at_most(plain_ns(a, from), own_signals(a) * a->signal_ns);
    case ACCT_direct_user: return at_most(plain_ns(a, from), a->count[ACCT_world_switch] * a->signal_ns);
    default: return 0;
    }
}

uint64_t acct_ns(const struct acct *a, enum acct_class class)
{
    uint64_t ns = plain_ns(a, class), signals = own_signals(a);
    if (class >= ACCT_fault_hidden && class <= ACCT_fault_other && signals)
        return ns + (uint64_t)((double)moved(a, ACCT_tc_window) * (double)a->count[class] / (double)signals);
    if (class == ACCT_world_switch)
        return ns + moved(a, ACCT_direct_user);
    return ns - moved(a, class);
}

void acct_write_json(const struct acct *a, FILE *f, const char *(*kind_name)(unsigned))
{
    uint64_t sum = 0;
    for (unsigned c = 0; c < ACCT_CLASSES; c++)
        sum += acct_ns(a, c);
    fprintf(f, "  \"time\": {\n    \"wall_ns\": %" PRIu64 ", \"sum_ns\": %" PRIu64 ", \"cpu_ns\": %" PRIu64, a->wall_ns,
            sum, a->cpu_ns);
    fprintf(f, ", \"samples\": %" PRIu64 ", \"signal_ns\": %" PRIu64 ",\n    \"classes\": {", a->samples, a->signal_ns);
    for (unsigned c = 0; c < ACCT_CLASSES; c++)
        fprintf(f, "%s\"%s\": %" PRIu64, c ? ", " : "", names[c], acct_ns(a, c));
    fprintf(f, "},\n    \"timed_as_sampled\": {");
    const char *sep = "";
    for (unsigned c = 0; c < ACCT_CLASSES; c++)
        if (hows[c] == TIMED) {
            fprintf(f, "%s\"%s\": %" PRIu64, sep, names[c], a->sampled_ns[c]);
            sep = ", ";
        }
    fprintf(f, "},\n    \"callouts_by_kind\": {");
    sep = "";
    for (unsigned i = 0; kind_name && i < ACCT_KINDS; i++)
        if (a->kind_ns[i]) {
            fprintf(f, "%s\"%s\": %" PRIu64, sep, kind_name(i), a->kind_ns[i]);
            sep = ", ";
        }
    fprintf(f, "}\n  }");
}
