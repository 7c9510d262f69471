/* devices/chardev_int.h - insides of character streams, shared by chardev.c (buffers, users), chardev_mux.c (escape key) and
 * chardev_open.c (names, descriptors).
 *
 * Invariants:
 *   CD-1  in and out are watched for reading only while a user (or the multiplexer's queues) has room, for writing only while
 *         output is pending and the kernel refused some.
 *   CD-2  connected implies in_fd >= 0 or out_fd >= 0; output is dropped, and out_len is 0, while not connected.
 *   CD-3  a user with short_write set is called back once there is room again.
 */
#ifndef DEVICES_CHARDEV_INT_H
#define DEVICES_CHARDEV_INT_H
#include "devices/chardev.h"
#include <sys/types.h>

enum { CHARDEV_USERS = 4, CHARDEV_OUT = 256 * 1024, CHARDEV_MUX_QUEUE = 16384, CHARDEV_NAME = 256 };

enum chardev_kind { CHARDEV_NULL, CHARDEV_STDIO, CHARDEV_FILE, CHARDEV_PIPE, CHARDEV_PTY, CHARDEV_SOCKET };

struct chardev_user {
    struct chardev *c;
    const struct chardev_ops *ops;
    void *opaque;
    bool short_write;
    /* multiplexer: input that the user had no room for */
    uint8_t *queue;
    size_t head, len;
};

/* A file that is written to. */
struct chardev_file {
    int fd; /* 0: no file, or started */
    bool created, append;
    char path[CHARDEV_NAME];
};

struct chardev {
    struct evloop *loop;
    struct chardev_env env;
    char label[64], name[CHARDEV_NAME];
    enum chardev_kind kind;
    /* descriptors */
    int in_fd, out_fd, listen_fd; /* -1: none; in_fd == out_fd for sockets and ptys */
    int keep_fd;                  /* closed at the end: the pty's slave while it is set up */
    struct evfd in, out, listener;
    bool connected, in_eof, in_tty, is_socket, nodelay, regular_out, poll_before_write;
    char unlink_path[CHARDEV_NAME]; /* socket file of a server */
    struct vtimer pty_timer;        /* looks once a second whether someone has opened an abandoned pty */
    /* output */
    uint8_t outbuf[CHARDEV_OUT];
    size_t out_len;
    bool blocked;
    struct vtimer flush_timer;
    int log_fd;
    struct chardev_file file[2]; /* output and log, until chardev_start */
    bool timestamps, line_start;
    uint64_t stamp_base;
    /* users */
    struct chardev_user user[CHARDEV_USERS];
    unsigned users, focus;
    bool mux, escaped, raw_tty;
};

/* chardev.c */
void chardev_init(struct chardev *c, const struct chardev_env *env);
void chardev_set_fds(struct chardev *c, int in_fd, int out_fd); /* starts a connection */
void chardev_disconnect(struct chardev *c);
void chardev_send_event(struct chardev_user *u, enum chardev_event ev);
void chardev_update_interest(struct chardev *c);
void chardev_print(struct chardev *c,
                   const char *text); /* straight to the output, for the multiplexer's own messages */
/* chardev_mux.c */
void chardev_mux_input(struct chardev *c, const uint8_t *buf, size_t n);
size_t chardev_mux_room(const struct chardev *c);
void chardev_mux_drain(struct chardev_user *u);
/* chardev_open.c: what follows a lost connection (listen again, watch the pty) */
void chardev_backend_disconnected(struct chardev *c);
#endif
