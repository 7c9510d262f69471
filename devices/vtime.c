#define _GNU_SOURCE /* gettid */
#include "devices/vtime.h"
#include "base/check.h"
#include "base/err.h"
#include "devices/vtime_int.h"
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { RUN_MAX = 256 };                        /* timer callbacks in one evloop_run */
static const uint64_t FAR_FUTURE = 1ull << 62; /* 146 years: not worth a host timer, and safe to add to */
static const int64_t TEST_WALL = 946684800ll * (int64_t)NS_PER_SEC; /* 2000-01-01 */

static int64_t host_ns(clockid_t id)
{
    struct timespec ts;
    clock_gettime(id, &ts);
    return ts.tv_sec * (int64_t)NS_PER_SEC + ts.tv_nsec;
}

static bool stands_still(const struct evloop *l) { return l->paused || l->cfg.test_clock; }

uint64_t vtime_now(const struct evloop *l)
{
    return stands_still(l) ? l->frozen : (uint64_t)(host_ns(CLOCK_MONOTONIC) + l->offset);
}

bool vtime_is_paused(const struct evloop *l) { return l->paused; }

void vtime_pause(struct evloop *l)
{
    l->frozen = vtime_now(l);
    l->paused = true;
}

/* What the host timer was set to means another time now. */
static void clock_changed(struct evloop *l)
{
    l->armed = VTIME_NEVER;
    vtime_sync_host_timer(l);
}

void vtime_resume(struct evloop *l)
{
    l->paused = false;
    if (!l->cfg.test_clock)
        l->offset = (int64_t)l->frozen - host_ns(CLOCK_MONOTONIC);
    clock_changed(l);
}

void vtime_set(struct evloop *l, uint64_t now)
{
    l->frozen = now;
    l->offset = (int64_t)now - host_ns(CLOCK_MONOTONIC);
    clock_changed(l);
}

int64_t vtime_wall_offset(const struct evloop *l)
{
    return l->cfg.test_clock ? l->test_wall : host_ns(CLOCK_REALTIME) - (int64_t)vtime_now(l);
}

int vtime_setup(struct evloop *l)
{
    l->armed = VTIME_NEVER;
    l->test_wall = TEST_WALL;
    l->offset = -host_ns(CLOCK_MONOTONIC);
    if (!l->cfg.timer_signal)
        return 0;
    struct sigevent ev = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = l->cfg.timer_signal};
    ev._sigev_un._tid = gettid();
    if (timer_create(CLOCK_MONOTONIC, &ev, &l->host_timer))
        return -RD_E_HOST;
    l->has_host_timer = true;
    return 0;
}

void vtime_teardown(struct evloop *l)
{
    if (l->has_host_timer)
        timer_delete(l->host_timer);
    free(l->heap);
}

void vtime_sync_host_timer(struct evloop *l)
{
    uint64_t next = vtime_next_deadline(l);
    if (!l->has_host_timer || l->in_run || stands_still(l) || next >= l->armed || next >= FAR_FUTURE)
        return;
    int64_t at = (int64_t)next - l->offset;
    if (at < 1)
        at = 1; /* 0 would disarm; the past fires at once */
    struct itimerspec ts = {.it_value = {at / (int64_t)NS_PER_SEC, at % (int64_t)NS_PER_SEC}};
    CHECK(!timer_settime(l->host_timer, TIMER_ABSTIME, &ts, NULL));
    l->armed = next;
}

/* -- heap ---- */

static void put_at(struct evloop *l, uint32_t i, struct vtimer *t)
{
    l->heap[i] = t;
    t->pos = i + 1;
}

static void sift_up(struct evloop *l, uint32_t i)
{
    struct vtimer *t = l->heap[i];
    for (; i && t->deadline < l->heap[(i - 1) / 2]->deadline; i = (i - 1) / 2)
        put_at(l, i, l->heap[(i - 1) / 2]);
    put_at(l, i, t);
}

static void sift_down(struct evloop *l, uint32_t i)
{
    struct vtimer *t = l->heap[i];
    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child >= l->count)
            break;
        if (child + 1 < l->count && l->heap[child + 1]->deadline < l->heap[child]->deadline)
            child++;
        if (l->heap[child]->deadline >= t->deadline)
            break;
        put_at(l, i, l->heap[child]);
        i = child;
    }
    put_at(l, i, t);
}

static void heap_remove(struct evloop *l, struct vtimer *t)
{
    uint32_t i = t->pos - 1;
    ASSERT(i < l->count && l->heap[i] == t);
    struct vtimer *last = l->heap[--l->count];
    t->pos = 0;
    if (last == t)
        return;
    put_at(l, i, last);
    sift_up(l, i);
    sift_down(l, last->pos - 1);
}

static void heap_insert(struct evloop *l, struct vtimer *t)
{
    if (l->count == l->cap) {
        l->cap = l->cap ? l->cap * 2 : 32;
        l->heap = realloc(l->heap, l->cap * sizeof l->heap[0]);
        CHECK(l->heap);
    }
    put_at(l, l->count++, t);
    sift_up(l, l->count - 1);
}

void vtimer_init(struct vtimer *t, struct evloop *l, void (*fn)(void *opaque), void *opaque)
{
    *t = (struct vtimer){.loop = l, .fn = fn, .opaque = opaque};
}

void vtimer_arm(struct vtimer *t, uint64_t deadline)
{
    vtimer_cancel(t);
    if (deadline == VTIME_NEVER)
        return;
    t->deadline = deadline;
    heap_insert(t->loop, t);
    vtime_sync_host_timer(t->loop);
}

void vtimer_cancel(struct vtimer *t)
{
    if (t->pos)
        heap_remove(t->loop, t);
}

uint64_t vtime_next_deadline(const struct evloop *l) { return l->count ? l->heap[0]->deadline : VTIME_NEVER; }

void vtime_run_due(struct evloop *l)
{
    CHECK(!l->in_run);
    if (!l->paused) {
        uint64_t now = vtime_now(l);
        if (now >= l->armed)
            l->armed = VTIME_NEVER;
        l->in_run = true;
        for (unsigned n = 0; n < RUN_MAX && vtime_next_deadline(l) <= now; n++) {
            struct vtimer *t = l->heap[0];
            heap_remove(l, t);
            t->fn(t->opaque);
        }
        l->in_run = false;
    }
    vtime_sync_host_timer(l);
}

/* -- test clock ---- */

void vtime_test_advance(struct evloop *l, uint64_t ns)
{
    CHECK(l->cfg.test_clock);
    uint64_t end = l->frozen + ns;
    while (!l->paused && vtime_next_deadline(l) <= end) {
        if (vtime_next_deadline(l) > l->frozen)
            l->frozen = vtime_next_deadline(l);
        vtime_run_due(l);
    }
    l->frozen = end;
}

void vtime_test_starve(struct evloop *l, uint64_t ns)
{
    CHECK(l->cfg.test_clock);
    l->frozen += ns;
}

void vtime_test_set_wall(struct evloop *l, int64_t realtime_ns)
{
    CHECK(l->cfg.test_clock);
    l->test_wall = realtime_ns - (int64_t)l->frozen;
}
