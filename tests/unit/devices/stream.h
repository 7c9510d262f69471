/* tests/unit/devices/stream.h - a character stream whose other end the test holds. */
#ifndef TESTS_DEVICES_STREAM_H
#define TESTS_DEVICES_STREAM_H
#include "devices/chardev_int.h"
#include "tests/unit/devices/fixture.h"
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static inline struct chardev *stream_open(const struct chardev_env *env, bool mux, int *peer)
{
    int sv[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, sv), 0);
    struct chardev *c = malloc(sizeof *c);
    chardev_init(c, env);
    c->kind = CHARDEV_SOCKET;
    c->is_socket = true;
    c->mux = mux;
    chardev_set_fds(c, sv[0], sv[0]);
    *peer = sv[1];
    return c;
}

/* Serves ready descriptors, then lets virtual time pass, until nothing moves any more. */
static inline void settle(struct evloop *l, uint64_t ns)
{
    for (unsigned i = 0; i < 20; i++) {
        evloop_wait(l, 0);
        vtime_test_advance(l, ns / 20);
    }
}

/* What the peer can read now, as a string. */
static inline const char *peer_got(int fd)
{
    static char buf[8192];
    ssize_t n = read(fd, buf, sizeof buf - 1);
    buf[n > 0 ? n : 0] = 0;
    return buf;
}
#endif
