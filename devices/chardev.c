#define _GNU_SOURCE
#include "devices/chardev.h"
#include "base/check.h"
#include "devices/chardev_int.h"
#include "devices/term.h"
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static const uint64_t FLUSH_NS = 200000; /* well below what a person or a prompt-waiting script notices */
enum { FLUSH_BYTES = 1024, CLOSE_FLUSH_MS = 1000, READ_CHUNK = 4096, BLOCKING_CHUNK = 256 };

void chardev_send_event(struct chardev_user *u, enum chardev_event ev)
{
    if (u->ops && u->ops->event)
        u->ops->event(u->opaque, ev);
}

static void event_to_all(struct chardev *c, enum chardev_event ev)
{
    for (unsigned i = 0; i < c->users; i++)
        chardev_send_event(&c->user[i], ev);
}

/* -- output ---- */

/* write() that neither blocks nor raises SIGPIPE: -1 with EAGAIN, or another error = the other side is gone. */
static ssize_t write_some(struct chardev *c, const uint8_t *p, size_t n)
{
    if (c->is_socket)
        return send(c->out_fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (c->poll_before_write) { /* a descriptor shared with others, whose O_NONBLOCK is not ours to set */
        struct pollfd pf = {.fd = c->out_fd, .events = POLLOUT};
        if (poll(&pf, 1, 0) == 0) {
            errno = EAGAIN;
            return -1;
        }
        n = n > BLOCKING_CHUNK ? BLOCKING_CHUNK : n;
    }
    return write(c->out_fd, p, n);
}

static bool somebody_waits(const struct chardev *c)
{
    for (unsigned i = 0; i < c->users; i++)
        if (c->user[i].short_write)
            return true;
    return false;
}

static void output_gone(struct chardev *c)
{
    if (c->kind != CHARDEV_STDIO) {
        chardev_disconnect(c);
        return;
    }
    evfd_remove(&c->out); /* the reader of our stdout left; stdin may still steer us */
    c->out_fd = -1;
    c->out_len = 0;
}

void chardev_flush(struct chardev *c)
{
    size_t done = 0;
    bool gone = false;
    c->blocked = false;
    while (done < c->out_len) {
        ssize_t n = write_some(c, c->outbuf + done, c->out_len - done);
        if (n > 0) {
            done += (size_t)n;
        } else if (n < 0 && errno != EINTR) {
            c->blocked = errno == EAGAIN || errno == EWOULDBLOCK;
            gone = !c->blocked;
            break;
        }
    }
    memmove(c->outbuf, c->outbuf + done, c->out_len - done);
    c->out_len -= done;
    if (gone)
        output_gone(c);
    else
        chardev_update_interest(c);
    /* A writer that was left short is told from the event loop, not from within somebody else's call. */
    if (!c->blocked && somebody_waits(c))
        vtimer_arm(&c->flush_timer, vtime_now(c->loop));
}

static void call_writers_back(struct chardev *c)
{
    for (unsigned i = 0; i < c->users && c->out_len < CHARDEV_OUT; i++) {
        struct chardev_user *u = &c->user[i];
        if (!u->short_write)
            continue;
        u->short_write = false;
        if (u->ops->writable)
            u->ops->writable(u->opaque);
    }
}

static void flush_due(void *opaque)
{
    struct chardev *c = opaque;
    if (!c->blocked)
        chardev_flush(c);
    call_writers_back(c);
}

static size_t append(struct chardev *c, const uint8_t *p, size_t n)
{
    size_t room = CHARDEV_OUT - c->out_len;
    n = n < room ? n : room;
    memcpy(c->outbuf + c->out_len, p, n);
    c->out_len += n;
    return n;
}

/* Time since timestamps were switched on, at the start of each line. */
static size_t append_stamped(struct chardev *c, const uint8_t *p, size_t n)
{
    size_t done = 0;
    while (done < n) {
        if (c->line_start) {
            char stamp[40];
            uint64_t ms = (vtime_now(c->loop) - c->stamp_base) / 1000000;
            int len = snprintf(stamp, sizeof stamp, "[%02llu:%02llu:%02llu.%03llu] ",
                               (unsigned long long)(ms / 3600000), (unsigned long long)(ms / 60000 % 60),
                               (unsigned long long)(ms / 1000 % 60), (unsigned long long)(ms % 1000));
            if (CHARDEV_OUT - c->out_len < (size_t)len + 1)
                break;
            append(c, (const uint8_t *)stamp, (size_t)len);
            c->line_start = false;
        }
        if (!append(c, p + done, 1))
            break;
        c->line_start = p[done++] == '\n';
    }
    return done;
}

static void write_log(struct chardev *c, const uint8_t *p, size_t n)
{
    while (n) {
        ssize_t k = write(c->log_fd, p, n);
        if (k <= 0 && errno != EINTR)
            return; /* a full disk must not stop the guest's console */
        p += k > 0 ? k : 0;
        n -= k > 0 ? (size_t)k : 0;
    }
}

void chardev_start(struct chardev *c)
{
    for (unsigned i = 0; i < 2; i++) {
        struct chardev_file *f = &c->file[i];
        struct stat st;
        if (f->fd && !f->append && !fstat(f->fd, &st) && S_ISREG(st.st_mode) && st.st_size && ftruncate(f->fd, 0))
            errno = 0; /* one that cannot be emptied is written over, from its start */
        f->fd = 0;
    }
}

size_t chardev_write(struct chardev_user *u, const void *buf, size_t n)
{
    struct chardev *c = u->c;
    chardev_start(c);
    const uint8_t *p = buf;
    size_t done = 0;
    if (!c->connected || c->out_fd < 0)
        done = n;
    while (done < n) {
        size_t k = c->timestamps ? append_stamped(c, p + done, n - done) : append(c, p + done, n - done);
        bool now = c->out_len >= FLUSH_BYTES || memchr(p + done, '\n', k) || vtime_is_paused(c->loop);
        done += k;
        if (c->blocked)
            break;
        if (now)
            chardev_flush(c);
        else if (!vtimer_is_armed(&c->flush_timer))
            vtimer_arm(&c->flush_timer, vtime_now(c->loop) + FLUSH_NS);
        if (!c->connected || c->out_fd < 0) /* found out while flushing */
            done = n;
    }
    if (c->log_fd >= 0)
        write_log(c, p, done);
    u->short_write = done < n;
    return done;
}

void chardev_print(struct chardev *c, const char *text)
{
    if (!c->connected || c->out_fd < 0)
        return;
    if (c->out_len + strlen(text) > CHARDEV_OUT)
        chardev_flush(c);
    append(c, (const uint8_t *)text, strlen(text));
    if (!c->blocked)
        chardev_flush(c);
}

/* -- input ---- */

static size_t user_room(const struct chardev_user *u)
{
    return u->ops && u->ops->can_receive && u->ops->receive ? u->ops->can_receive(u->opaque) : 0;
}

static size_t input_room(const struct chardev *c)
{
    if (c->mux)
        return chardev_mux_room(c);
    return c->users ? user_room(&c->user[0]) : 0;
}

void chardev_update_interest(struct chardev *c)
{
    unsigned rd = c->connected && c->in_fd >= 0 && !c->in_eof && input_room(c) ? EVFD_READ : 0;
    unsigned wr = c->connected && c->blocked ? EVFD_WRITE : 0;
    if (c->in_fd == c->out_fd) {
        evfd_want(&c->in, rd | wr);
    } else {
        evfd_want(&c->in, rd);
        evfd_want(&c->out, wr);
    }
}

static void end_of_input(struct chardev *c)
{
    c->in_eof = true;
    if (c->kind == CHARDEV_SOCKET || c->kind == CHARDEV_PTY) {
        chardev_disconnect(c);
    } else { /* stdin has ended; stdout goes on */
        event_to_all(c, CHARDEV_CLOSED);
        chardev_update_interest(c);
    }
}

static void read_input(struct chardev *c)
{
    uint8_t buf[READ_CHUNK];
    size_t room = input_room(c);
    if (!room) {
        chardev_update_interest(c);
        return;
    }
    ssize_t n = read(c->in_fd, buf, room < sizeof buf ? room : sizeof buf);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return;
    if (n <= 0) {
        end_of_input(c);
        return;
    }
    if (c->mux)
        chardev_mux_input(c, buf, (size_t)n);
    else
        c->user[0].ops->receive(c->user[0].opaque, buf, (size_t)n);
    chardev_update_interest(c);
}

static void on_ready(void *opaque, unsigned ready)
{
    struct chardev *c = opaque;
    if (ready & EVFD_WRITE) {
        chardev_flush(c);
        call_writers_back(c);
    }
    if ((ready & EVFD_READ) && c->connected)
        read_input(c);
    else if ((ready & EVFD_HUP) && c->kind == CHARDEV_PTY)
        chardev_disconnect(c); /* the slave was closed; writes would only fill its buffer */
}

void chardev_accept_input(struct chardev_user *u)
{
    if (u->c->mux)
        chardev_mux_drain(u);
    chardev_update_interest(u->c);
}

/* -- connections ---- */

void chardev_set_fds(struct chardev *c, int in_fd, int out_fd)
{
    c->in_fd = in_fd;
    c->out_fd = out_fd;
    c->connected = true;
    c->in_eof = c->blocked = false;
    c->out_len = 0;
    c->in_tty = in_fd >= 0 && isatty(in_fd);
    if (in_fd >= 0 && evfd_add(&c->in, c->loop, in_fd, on_ready, c))
        c->in_eof = true;
    if (out_fd >= 0 && out_fd != in_fd && !c->regular_out && evfd_add(&c->out, c->loop, out_fd, on_ready, c))
        c->poll_before_write = true;
    chardev_update_interest(c);
    event_to_all(c, CHARDEV_OPENED);
}

void chardev_disconnect(struct chardev *c)
{
    if (!c->connected)
        return;
    c->connected = c->blocked = false;
    c->out_len = 0;
    vtimer_cancel(&c->flush_timer);
    evfd_remove(&c->in);
    evfd_remove(&c->out);
    chardev_backend_disconnected(c);
    event_to_all(c, CHARDEV_CLOSED);
    call_writers_back(c);
}

/* -- users ---- */

void chardev_init(struct chardev *c, const struct chardev_env *env)
{
    *c = (struct chardev){
        .loop = env->loop, .env = *env, .in_fd = -1, .out_fd = -1, .listen_fd = -1, .keep_fd = -1, .log_fd = -1};
    snprintf(c->label, sizeof c->label, "%s", env->label ? env->label : "chardev");
    vtimer_init(&c->flush_timer, c->loop, flush_due, c);
}

struct chardev_user *chardev_attach(struct chardev *c, const struct chardev_ops *ops, void *opaque)
{
    if (c->users == (c->mux ? CHARDEV_USERS : 1))
        return NULL;
    struct chardev_user *u = &c->user[c->users];
    *u = (struct chardev_user){.c = c, .ops = ops, .opaque = opaque};
    if (c->mux && !(u->queue = malloc(CHARDEV_MUX_QUEUE)))
        return NULL;
    c->users++;
    chardev_update_interest(c);
    return u;
}

static void flush_before_close(struct chardev *c)
{
    for (int waited = 0; c->connected && c->out_len && waited < CLOSE_FLUSH_MS; waited += 10) {
        struct pollfd pf = {.fd = c->out_fd, .events = POLLOUT};
        chardev_flush(c);
        if (c->connected && c->out_len)
            poll(&pf, 1, 10);
    }
}

void chardev_close(struct chardev *c)
{
    if (!c)
        return;
    flush_before_close(c);
    vtimer_cancel(&c->flush_timer);
    vtimer_cancel(&c->pty_timer);
    evfd_remove(&c->in);
    evfd_remove(&c->out);
    evfd_remove(&c->listener);
    if (c->raw_tty)
        term_restore();
    int fds[] = {c->in_fd, c->out_fd != c->in_fd ? c->out_fd : -1, c->listen_fd, c->keep_fd, c->log_fd};
    for (unsigned i = 0; i < sizeof fds / sizeof fds[0]; i++)
        if (fds[i] > STDERR_FILENO)
            close(fds[i]);
    if (c->unlink_path[0])
        unlink(c->unlink_path);
    for (unsigned i = 0; i < 2; i++)
        if (c->file[i].fd && c->file[i].created)
            unlink(c->file[i].path);
    for (unsigned i = 0; i < c->users; i++)
        free(c->user[i].queue);
    free(c);
}

bool chardev_is_connected(const struct chardev *c) { return c->connected; }
bool chardev_is_mux(const struct chardev *c) { return c->mux; }
const char *chardev_name(const struct chardev *c) { return c->name; }
