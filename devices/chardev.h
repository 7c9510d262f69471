/* devices/chardev.h - byte streams to the outside: what a UART, a console or the monitor is connected to.
 *
 * Role:     opens what users name (QEMU's spellings), moves bytes both ways without ever blocking the machine thread and without
 *           losing any while the other side is connected; "mon:" multiplexes several users of one stream with an escape key.
 * Input:    pulled only as fast as the user takes it: can_receive() bytes at a time; a user that had no room calls
 *           chardev_accept_input when it has. A multiplexed stream is read always, so that the escape works when the guest hangs.
 * Output:   buffered for a fraction of a millisecond or until a newline. When the other side does not take it the buffer fills, and
 *           chardev_write takes less than it was given: keep the rest until writable() is called. With nobody connected to a server
 *           socket or pty, output goes nowhere, as from an unplugged cable.
 * Threads:  machine thread. Callbacks come from evloop_run/evloop_wait, or from within chardev_accept_input.
 */
#ifndef DEVICES_CHARDEV_H
#define DEVICES_CHARDEV_H
#include "devices/vtime.h"
#include <stddef.h>
#include <stdint.h>

struct chardev;
struct chardev_user;

enum chardev_event {
    CHARDEV_OPENED, /* somebody connected */
    CHARDEV_CLOSED, /* ... and went, or end of file */
    CHARDEV_BREAK,
    CHARDEV_FOCUS_IN, /* multiplexer: input now goes to this user */
    CHARDEV_FOCUS_OUT,
};
struct chardev_ops { /* any may be NULL: no input wanted, events ignored */
    size_t (*can_receive)(void *opaque);
    void (*receive)(void *opaque, const uint8_t *buf, size_t n); /* n <= what can_receive said */
    void (*writable)(void *opaque);
    void (*event)(void *opaque, enum chardev_event ev);
};
/* What opening and the escape commands need of the program. */
struct chardev_env {
    struct evloop *loop;
    const char *label;                /* for messages: "serial0" */
    uint8_t escape;                   /* -echr; 0 means Ctrl-A */
    void (*quit)(void *opaque);       /* escape x. The message is already out, the terminal restored. */
    void (*save_disks)(void *opaque); /* escape s; may be NULL */
    void *opaque;
};

/* As after -serial, -monitor, -parallel: stdio, mon:SPEC, null, none, file:PATH, pipe:PATH, pty, unix:PATH[,server][,nowait],
 * tcp:[HOST]:PORT[,server][,nowait][,nodelay]. "none": returns 0 with *out = NULL. Returns 0 or -RD_E_*, with one line in err. */
int chardev_open(const struct chardev_env *env, const char *spec, struct chardev **out, char *err, size_t errsz);
/* As after -chardev: BACKEND[,key=value...], comma doubled inside values; id= is the caller's and is skipped. Backends stdio, null,
 * file, pipe, pty, socket; keys path host port server wait nodelay mux signal append logfile logappend. */
int chardev_open_backend(const struct chardev_env *env, const char *spec, struct chardev **out, char *err,
                         size_t errsz);
/* The machine runs: files that it writes to are its own now, what was in them goes. Before, or before the first byte, they are
 * as they were: a machine that cannot start leaves no file behind and takes nothing away. */
void chardev_start(struct chardev *c);
/* Flushes for up to a second, closes, removes socket files, restores the terminal. NULL is allowed. */
void chardev_close(struct chardev *c);

/* Returns NULL if another user has it and it is not multiplexed, or 4 have. The first user of a multiplexer gets the input.
 * Freed with the chardev. */
struct chardev_user *chardev_attach(struct chardev *c, const struct chardev_ops *ops, void *opaque);
/* Takes up to n bytes, returns how many. */
size_t chardev_write(struct chardev_user *u, const void *buf, size_t n);
void chardev_accept_input(struct chardev_user *u);
/* Pushes buffered output to the host now, as far as that is possible without blocking. */
void chardev_flush(struct chardev *c);
bool chardev_is_connected(const struct chardev *c);
bool chardev_is_mux(const struct chardev *c);
/* "pty:/dev/pts/3", "unix:/tmp/s,server", ... */
const char *chardev_name(const struct chardev *c);
#endif
