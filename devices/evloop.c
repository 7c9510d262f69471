#define _GNU_SOURCE /* ppoll */
#include "base/check.h"
#include "base/err.h"
#include "devices/vtime_int.h"
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

static void drain(int fd)
{
    uint64_t n;
    while (read(fd, &n, sizeof n) < 0 && errno == EINTR)
        ;
}

static int ep_ctl(struct evloop *l, int op, int fd, uint32_t events, void *ptr)
{
    struct epoll_event ev = {.events = events, .data.ptr = ptr};
    return epoll_ctl(l->ep, op, fd, &ev);
}

int evloop_create(struct evloop **out, const struct evloop_config *cfg)
{
    struct evloop *l = calloc(1, sizeof *l);
    if (!l)
        return -RD_E_NOMEM;
    l->cfg = *cfg;
    sem_init(&l->rearm, 0, 0);
    l->ep = epoll_create1(EPOLL_CLOEXEC);
    l->wakefd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    l->alwaysfd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
    if (l->ep < 0 || l->wakefd < 0 || l->alwaysfd < 0 || ep_ctl(l, EPOLL_CTL_ADD, l->wakefd, EPOLLIN, &l->wakefd) ||
        vtime_setup(l)) {
        evloop_destroy(l);
        return -RD_E_HOST;
    }
    *out = l;
    return 0;
}

void evloop_destroy(struct evloop *l)
{
    uint64_t one = 1;
    if (l->has_helper) {
        atomic_store(&l->quit, true);
        CHECK(write(l->wakefd, &one, sizeof one) == sizeof one || errno == EAGAIN);
        sem_post(&l->rearm);
        pthread_join(l->helper, NULL);
    }
    vtime_teardown(l);
    int fds[] = {l->ep, l->wakefd, l->alwaysfd};
    for (unsigned i = 0; i < 3; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    sem_destroy(&l->rearm);
    free(l);
}

/* -- helper thread ---- */

static void *helper_main(void *arg)
{
    struct evloop *l = arg;
    while (!atomic_load(&l->quit)) {
        struct pollfd p = {.fd = l->ep, .events = POLLIN};
        if (poll(&p, 1, -1) <= 0 || atomic_load(&l->quit))
            continue;
        atomic_store(&l->fired, true);
        if (!atomic_load(&l->waiting) && l->cfg.kick)
            l->cfg.kick(l->cfg.opaque);
        while (sem_wait(&l->rearm) && errno == EINTR)
            ;
    }
    return NULL;
}

static int start_helper(struct evloop *l)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old); /* signals are for the machine thread */
    l->has_helper = !pthread_create(&l->helper, NULL, helper_main, l);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return l->has_helper ? 0 : -RD_E_HOST;
}

/* -- descriptors ---- */

static uint32_t ep_events(unsigned want)
{
    return (want & EVFD_READ ? EPOLLIN | EPOLLRDHUP : 0u) | (want & EVFD_WRITE ? EPOLLOUT : 0u);
}

int evfd_add(struct evfd *e, struct evloop *l, int fd, void (*fn)(void *opaque, unsigned ready), void *opaque)
{
    *e = (struct evfd){.loop = l, .fn = fn, .opaque = opaque, .fd = fd};
    /* Find out now whether epoll takes it; it leaves the set again, since nothing is wanted yet. */
    if (ep_ctl(l, EPOLL_CTL_ADD, fd, 0, e)) {
        if (errno != EPERM)
            goto fail;
        e->always = true;
    } else {
        ep_ctl(l, EPOLL_CTL_DEL, fd, 0, NULL);
    }
    if (!l->has_helper && start_helper(l))
        goto fail;
    e->next = l->fds;
    l->fds = e;
    return 0;
fail:
    e->loop = NULL;
    return -RD_E_HOST;
}

static void want_always(struct evfd *e, unsigned want)
{
    struct evloop *l = e->loop;
    unsigned before = l->always_wanted;
    l->always_wanted += (want != 0) - (e->want != 0);
    e->want = (uint8_t)want;
    if (!before && l->always_wanted)
        CHECK(!ep_ctl(l, EPOLL_CTL_ADD, l->alwaysfd, EPOLLIN, &l->alwaysfd));
    else if (before && !l->always_wanted)
        CHECK(!ep_ctl(l, EPOLL_CTL_DEL, l->alwaysfd, 0, NULL));
}

void evfd_want(struct evfd *e, unsigned want)
{
    if (!e->loop || want == e->want)
        return;
    if (e->always) {
        want_always(e, want);
        return;
    }
    e->want = (uint8_t)want;
    int op = !want ? EPOLL_CTL_DEL : e->kernel ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    if (!ep_ctl(e->loop, op, e->fd, ep_events(want), e))
        e->kernel = (uint8_t)want;
}

void evfd_remove(struct evfd *e)
{
    struct evloop *l = e->loop;
    if (!l)
        return;
    evfd_want(e, 0);
    for (struct evfd **p = &l->fds; *p; p = &(*p)->next)
        if (*p == e) {
            *p = e->next;
            break;
        }
    if (l->iter == e)
        l->iter = e->next;
    for (int i = 0; i < l->batch_count; i++)
        if (l->batch[i].data.ptr == e)
            l->batch[i].data.ptr = NULL;
    e->loop = NULL;
}

static void dispatch(struct evfd *e, uint32_t events)
{
    unsigned ready = 0;
    if (events & (EPOLLHUP | EPOLLERR | EPOLLRDHUP))
        ready |= EVFD_HUP;
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR | EPOLLRDHUP))
        ready |= EVFD_READ & e->want;
    if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
        ready |= EVFD_WRITE & e->want;
    if (ready & e->want)
        e->fn(e->opaque, ready);
}

static void dispatch_always(struct evloop *l)
{
    for (struct evfd *e = l->fds; e; e = l->iter) {
        l->iter = e->next;
        if (e->always && e->want)
            e->fn(e->opaque, e->want);
    }
    l->iter = NULL;
}

static void run_fds(struct evloop *l)
{
    l->batch_count = epoll_wait(l->ep, l->batch, EVLOOP_BATCH, 0);
    for (int i = 0; i < l->batch_count; i++) {
        void *ptr = l->batch[i].data.ptr;
        if (ptr == &l->wakefd)
            drain(l->wakefd);
        else if (ptr == &l->alwaysfd)
            dispatch_always(l);
        else if (ptr) /* NULL: removed by an earlier callback of this batch */
            dispatch(ptr, l->batch[i].events);
    }
    l->batch_count = 0;
    if (atomic_exchange(&l->fired, false))
        sem_post(&l->rearm);
}

/* -- running ---- */

void evloop_run(struct evloop *l)
{
    vtime_run_due(l);
    if (atomic_load(&l->fired))
        run_fds(l);
}

/* ns until the machine thread has something to do, -1 = for ever. */
static int64_t sleep_ns(const struct evloop *l, int64_t max_ns)
{
    uint64_t next = vtime_next_deadline(l), now = vtime_now(l);
    if (l->paused || next == VTIME_NEVER)
        return max_ns;
    if (next <= now)
        return 0;
    if (l->cfg.test_clock)
        return max_ns;
    int64_t ns = next - now > INT64_MAX ? INT64_MAX : (int64_t)(next - now);
    return max_ns < 0 || ns < max_ns ? ns : max_ns;
}

bool evloop_sleep(struct evloop *l, int64_t max_ns)
{
    struct pollfd p = {.fd = l->ep, .events = POLLIN};
    atomic_store(&l->waiting, true);
    int64_t ns = sleep_ns(l, max_ns);
    struct timespec ts = {ns / (int64_t)NS_PER_SEC, ns % (int64_t)NS_PER_SEC};
    int ready = ppoll(&p, 1, ns < 0 ? NULL : &ts, NULL);
    atomic_store(&l->waiting, false);
    return ready > 0;
}

void evloop_serve(struct evloop *l, bool ready)
{
    vtime_run_due(l);
    if (ready || atomic_load(&l->fired))
        run_fds(l);
}

bool evloop_await(struct evloop *l, int fd)
{
    struct pollfd p[2] = {{.fd = fd, .events = POLLIN}, {.fd = l->wakefd, .events = POLLIN}};
    while (poll(p, 2, -1) < 0)
        if (errno != EINTR)
            return true; /* whoever reads will see why */
    return p[0].revents;
}

void evloop_wait(struct evloop *l, int64_t max_ns) { evloop_serve(l, evloop_sleep(l, max_ns)); }

void evloop_wake(struct evloop *l)
{
    int saved = errno;
    uint64_t one = 1;
    if (write(l->wakefd, &one, sizeof one) < 0) {
        /* EAGAIN: the counter is full, so it is readable, which is all that is wanted */
    }
    if (l->cfg.kick)
        l->cfg.kick(l->cfg.opaque);
    errno = saved;
}
