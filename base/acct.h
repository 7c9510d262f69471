/* base/acct.h - where the time of a run goes.
 *
 * Role:    a state word says what the vCPU's thread is doing (acct_enter: one store). A sampler thread reads it about 250
 *          times a second; what begins and ends rarely is timed by the TSC as well (acct_begin, acct_end), less what was timed
 *          inside of it. Classes: acct.def. Each counts as timed or as sampled and none is scaled, so that their sum against
 *          the wall time says how good the account is.
 * Owner:   part of struct stats.  Threads: the vCPU's thread; the sampler only reads the state word and has its own counts.
 * Signals: all inline functions, on the vCPU's thread, properly nested. They are nofpu.
 */
#ifndef BASE_ACCT_H
#define BASE_ACCT_H
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum acct_class {
#define ACCT(name, how, text) ACCT_##name,
#include "base/acct.def"
#undef ACCT
    ACCT_CLASSES
};
#define ACCT_KINDS 160u
/* A callout's kind stands above its class in the state word. */
#define ACCT_CALLOUT(kind) ((uint32_t)ACCT_callout | (uint32_t)(kind) << 8)

struct acct {
    volatile uint32_t state;
    bool on;
    uint64_t inner; /* ticks of timed spans inside the current one */
    uint64_t ticks[ACCT_CLASSES], count[ACCT_CLASSES];
    uint64_t start_ns, start_tsc;
    uint64_t wall_ns, cpu_ns, ticks_total, signal_ns; /* at the end; cpu: of the vCPU's thread */
    /* -- the sampler's -- */
    uint64_t sampled_ns[ACCT_CLASSES], kind_ns[ACCT_KINDS], samples;
    pthread_t thread;
    volatile bool quit;
};

static inline uint32_t acct_enter(struct acct *a, uint32_t state)
{
    uint32_t before = a->state;
    a->state = state;
    return before;
}

struct acct_span {
    uint64_t start, inner;
    uint32_t before;
};
static inline struct acct_span acct_begin(struct acct *a, uint32_t state)
{
    struct acct_span s = {0, a->inner, acct_enter(a, state)};
    if (a->on) {
        s.start = __builtin_ia32_rdtsc();
        a->inner = 0;
    }
    return s;
}
/* The class may be known only now. */
static inline void acct_end(struct acct *a, const struct acct_span *s, enum acct_class class)
{
    a->state = s->before;
    a->count[class]++;
    if (!a->on || !s->start)
        return;
    uint64_t all = __builtin_ia32_rdtsc() - s->start;
    a->ticks[class] += all - a->inner;
    a->inner = s->inner + all;
}

/* Ends the first class, setup. */
static inline void acct_setup_done(struct acct *a, uint32_t state)
{
    if (a->on)
        a->ticks[ACCT_setup] += __builtin_ia32_rdtsc() - a->start_tsc - a->inner;
    a->inner = 0;
    a->state = state;
}

/* Starts the sampler, called by the thread to be watched; the run began at start_ns. 0 or -RD_E_HOST. */
int acct_start(struct acct *a, uint64_t start_ns);
/* Ends it, and measures what delivering a signal costs here. Idempotent. */
void acct_stop(struct acct *a);
/* Nanoseconds of a class: timed or sampled as acct.def says, and with signals where they belong. After acct_stop. */
uint64_t acct_ns(const struct acct *a, enum acct_class class);
/* The member "time" of the statistics, without a comma behind it. After acct_stop. */
void acct_write_json(const struct acct *a, FILE *f, const char *(*kind_name)(unsigned));
#endif
