/* devices/vtime_int.h - insides of the event loop, shared by vtime.c (clock, timers) and evloop.c (descriptors, sleeping).
 *
 * Invariants:
 *   EV-1  heap[i]->pos == i + 1 for all i < count, and no child is due before its parent.
 *   EV-2  outside evloop_run, unless paused: armed <= deadline of heap[0] (a kick comes in time; it may come for nothing).
 *   EV-3  an evfd is in the epoll set if and only if it wants something and is not "always".
 *   EV-4  the helper is either in poll(), or fired is set and it sleeps until the machine thread has looked at every ready
 *         descriptor. It kicks only while the machine thread is not in evloop_wait, which looks anyway when it leaves.
 */
#ifndef DEVICES_VTIME_INT_H
#define DEVICES_VTIME_INT_H
#include "devices/vtime.h"
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <time.h>

enum { EVLOOP_BATCH = 32 };

struct evloop {
    struct evloop_config cfg;
    /* clock: virtual = CLOCK_MONOTONIC + offset, or frozen when paused or under test */
    int64_t offset, test_wall;
    uint64_t frozen;
    bool paused;
    /* timers */
    struct vtimer **heap;
    uint32_t count, cap;
    timer_t host_timer;
    bool has_host_timer, in_run;
    uint64_t armed; /* virtual time the host timer is set to; VTIME_NEVER once it has passed */
    /* descriptors */
    int ep, wakefd, alwaysfd;
    struct evfd *fds, *iter; /* iter: next to visit in a walk over "always" descriptors */
    unsigned always_wanted;
    struct epoll_event batch[EVLOOP_BATCH];
    int batch_count;
    /* helper thread */
    pthread_t helper;
    bool has_helper;
    sem_t rearm;
    atomic_bool fired, waiting, quit;
};

int vtime_setup(struct evloop *l);
void vtime_teardown(struct evloop *l);
void vtime_run_due(struct evloop *l);
/* Sets the host timer if the next deadline is earlier than what it is set to. */
void vtime_sync_host_timer(struct evloop *l);
#endif
