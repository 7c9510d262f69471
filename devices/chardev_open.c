#define _GNU_SOURCE
#include "base/err.h"
#include "devices/chardev_int.h"
#include "devices/term.h"
#include <errno.h>
#include <fcntl.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

struct params {
    enum chardev_kind kind;
    char path[CHARDEV_NAME], host[128], port[32], logfile[CHARDEV_NAME];
    bool server, wait, nodelay, mux, signal, append, logappend;
};
struct opener { /* what every step needs: where to complain */
    const struct chardev_env *env;
    char *err;
    size_t errsz;
};

static int fail(const struct opener *o, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static int fail(const struct opener *o, int code, const char *fmt, ...)
{
    va_list ap;
    int n = snprintf(o->err, o->errsz, "%s: ", o->env->label ? o->env->label : "chardev");
    va_start(ap, fmt);
    if (n >= 0 && (size_t)n < o->errsz)
        vsnprintf(o->err + n, o->errsz - (size_t)n, fmt, ap);
    va_end(ap);
    return -code;
}

/* -- names ---- */

/* Copies up to an unpaired comma; ",," stands for one. Returns what follows the comma (or the end), NULL if it does not fit. */
static const char *take_word(const char *p, char *out, size_t size)
{
    size_t n = 0;
    for (; *p && (*p != ',' || p[1] == ','); p++) {
        if (*p == ',')
            p++;
        if (n + 1 >= size)
            return NULL;
        out[n++] = *p;
    }
    out[n] = 0;
    return *p ? p + 1 : p;
}

static int parse_bool(const struct opener *o, const char *key, const char *val, bool *out)
{
    if (!val || !strcmp(val, "on") || !strcmp(val, "yes") || !strcmp(val, "true"))
        *out = true;
    else if (!strcmp(val, "off") || !strcmp(val, "no") || !strcmp(val, "false"))
        *out = false;
    else
        return fail(o, RD_E_INVAL, "%s=%s: expected on or off", key, val);
    return 0;
}

static int set_option(const struct opener *o, struct params *p, const char *key, const char *val)
{
    const struct {
        const char *key;
        bool *flag;
    } flags[] = {{"server", &p->server}, {"wait", &p->wait},     {"nodelay", &p->nodelay},    {"mux", &p->mux},
                 {"signal", &p->signal}, {"append", &p->append}, {"logappend", &p->logappend}};
    const struct {
        const char *key;
        char *text;
        size_t size;
    } texts[] = {{"path", p->path, sizeof p->path},
                 {"host", p->host, sizeof p->host},
                 {"port", p->port, sizeof p->port},
                 {"logfile", p->logfile, sizeof p->logfile}};
    if (!strcmp(key, "id"))
        return 0;
    if (!strcmp(key, "nowait") && !val) {
        p->wait = false;
        return 0;
    }
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++)
        if (!strcmp(key, flags[i].key))
            return parse_bool(o, key, val, flags[i].flag);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        if (!strcmp(key, texts[i].key)) {
            if (!val)
                return fail(o, RD_E_INVAL, "option '%s' needs a value", key);
            if (strlen(val) >= texts[i].size)
                return fail(o, RD_E_INVAL, "option '%s' is too long", key);
            strcpy(texts[i].text, val);
            return 0;
        }
    return fail(o, RD_E_UNSUPPORTED, "option '%s' is not supported", key);
}

static int parse_options(const struct opener *o, struct params *p, const char *s)
{
    char word[CHARDEV_NAME + 32];
    while (*s) {
        s = take_word(s, word, sizeof word);
        if (!s)
            return fail(o, RD_E_INVAL, "option too long");
        char *eq = strchr(word, '=');
        if (eq)
            *eq++ = 0;
        int err = set_option(o, p, word, eq);
        if (err)
            return err;
    }
    return 0;
}

/* [HOST]:PORT or [V6ADDR]:PORT */
static int parse_host_port(const struct opener *o, struct params *p, const char *s)
{
    const char *colon = strrchr(s, ':');
    if (!colon || !colon[1] || strlen(colon + 1) >= sizeof p->port || (size_t)(colon - s) >= sizeof p->host)
        return fail(o, RD_E_INVAL, "'%s': expected HOST:PORT", s);
    size_t n = (size_t)(colon - s);
    if (n >= 2 && s[0] == '[' && s[n - 1] == ']') {
        s++;
        n -= 2;
    }
    memcpy(p->host, s, n);
    p->host[n] = 0;
    strcpy(p->port, colon + 1);
    return 0;
}

static const struct {
    const char *name;
    enum chardev_kind kind;
    bool legacy_arg; /* after -serial: name:ARGUMENT */
} backends[] = {
    {"stdio", CHARDEV_STDIO, false}, {"null", CHARDEV_NULL, false},     {"pty", CHARDEV_PTY, false},
    {"file", CHARDEV_FILE, true},    {"pipe", CHARDEV_PIPE, true},      {"unix", CHARDEV_SOCKET, true},
    {"tcp", CHARDEV_SOCKET, true},   {"socket", CHARDEV_SOCKET, false},
};

static int parse_legacy(const struct opener *o, struct params *p, const char *spec)
{
    char arg[CHARDEV_NAME];
    if (!strncmp(spec, "mon:", 4)) {
        p->mux = true;
        p->signal = false; /* Ctrl-C is for the guest */
        spec += 4;
    }
    for (size_t i = 0; i < sizeof backends / sizeof backends[0]; i++) {
        size_t n = strlen(backends[i].name);
        if (strncmp(spec, backends[i].name, n) || !strcmp(backends[i].name, "socket"))
            continue;
        p->kind = backends[i].kind;
        if (!backends[i].legacy_arg && !spec[n])
            return 0;
        if (!backends[i].legacy_arg || spec[n] != ':')
            continue;
        const char *rest = take_word(spec + n + 1, arg, sizeof arg);
        if (!rest || !arg[0])
            return fail(o, RD_E_INVAL, "'%s': %s", spec, rest ? "name is missing" : "name is too long");
        int err = 0;
        if (!strcmp(backends[i].name, "tcp"))
            err = parse_host_port(o, p, arg);
        else
            strcpy(p->path, arg);
        return err ? err : parse_options(o, p, rest);
    }
    return fail(o, RD_E_UNSUPPORTED, "'%s' is not a supported character device", spec);
}

static int parse_backend(const struct opener *o, struct params *p, const char *spec)
{
    char name[32];
    const char *rest = take_word(spec, name, sizeof name);
    for (size_t i = 0; rest && i < sizeof backends / sizeof backends[0]; i++)
        if (!strcmp(name, backends[i].name) && strcmp(name, "unix") && strcmp(name, "tcp")) {
            p->kind = backends[i].kind;
            int err = parse_options(o, p, rest);
            if (err)
                return err;
            if ((p->kind == CHARDEV_FILE || p->kind == CHARDEV_PIPE) && !p->path[0])
                return fail(o, RD_E_INVAL, "%s needs path=", name);
            if (p->kind == CHARDEV_SOCKET && !p->path[0] == !p->port[0])
                return fail(o, RD_E_INVAL, "socket needs either path= or port=");
            return 0;
        }
    return fail(o, RD_E_UNSUPPORTED, "'%s' is not a supported character device", spec);
}

/* -- files, pipes, the terminal ---- */

/* An open file description of our own, so that O_NONBLOCK does not leak into the shell and our children, who share fds 0-2. */
static int reopen_nonblocking(int fd, int flags)
{
    char path[32];
    struct stat st;
    if (fstat(fd, &st) || !(S_ISCHR(st.st_mode) || S_ISFIFO(st.st_mode)))
        return -1;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return open(path, flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

static int open_stdio(const struct opener *o, struct chardev *c, const struct params *p)
{
    static bool taken; /* there is one stdin per process; it is never given back */
    struct stat st;
    if (taken)
        return fail(o, RD_E_BUSY, "stdio is already used by another character device");
    taken = true;
    if (isatty(STDIN_FILENO)) {
        term_raw(STDIN_FILENO, p->signal);
        c->raw_tty = true;
    }
    int in = reopen_nonblocking(STDIN_FILENO, O_RDONLY), out = reopen_nonblocking(STDOUT_FILENO, O_WRONLY);
    c->is_socket = !fstat(STDOUT_FILENO, &st) && S_ISSOCK(st.st_mode);
    c->regular_out = S_ISREG(st.st_mode);
    c->poll_before_write = out < 0 && !c->regular_out && !c->is_socket;
    chardev_set_fds(c, in >= 0 ? in : STDIN_FILENO, out >= 0 ? out : STDOUT_FILENO);
    return 0;
}

/* Existing contents stay until chardev_start. */
static int open_for_writing(const struct opener *o, struct chardev_file *f, const char *path, int flags, bool append)
{
    flags |= O_WRONLY | O_CREAT | O_CLOEXEC | (append ? O_APPEND : 0);
    int fd = open(path, flags | O_EXCL, 0666);
    f->created = fd >= 0;
    f->append = append;
    snprintf(f->path, sizeof f->path, "%s", path);
    if (fd < 0)
        fd = open(path, flags, 0666);
    if (fd < 0)
        return fail(o, RD_E_IO, "cannot open '%s': %s", path, strerror(errno));
    return f->fd = fd;
}

static int open_file(const struct opener *o, struct chardev *c, const struct params *p)
{
    int fd = open_for_writing(o, &c->file[0], p->path, O_NONBLOCK, p->append);
    struct stat st;
    if (fd < 0)
        return fd;
    c->regular_out = !fstat(fd, &st) && S_ISREG(st.st_mode);
    chardev_set_fds(c, -1, fd);
    return 0;
}

static int open_pipe(const struct opener *o, struct chardev *c, const struct params *p)
{
    char in_name[CHARDEV_NAME + 8], out_name[CHARDEV_NAME + 8];
    int flags = O_RDWR | O_NONBLOCK | O_CLOEXEC; /* read-write: no end of file when the other side reopens */
    snprintf(in_name, sizeof in_name, "%s.in", p->path);
    snprintf(out_name, sizeof out_name, "%s.out", p->path);
    int in = open(in_name, flags), out = open(out_name, flags);
    if (in < 0 || out < 0) {
        if (in >= 0)
            close(in);
        if (out >= 0)
            close(out);
        in = out = open(p->path, flags);
        if (in < 0)
            return fail(o, RD_E_IO, "cannot open '%s': %s", p->path, strerror(errno));
    }
    chardev_set_fds(c, in, out);
    return 0;
}

/* -- pty ---- */

static void pty_look(void *opaque)
{
    struct chardev *c = opaque;
    struct pollfd pf = {.fd = c->in_fd, .events = POLLIN};
    if (poll(&pf, 1, 0) >= 0 && !(pf.revents & POLLHUP))
        chardev_set_fds(c, c->in_fd, c->in_fd);
    else
        vtimer_arm(&c->pty_timer, vtime_now(c->loop) + NS_PER_SEC);
}

static int open_pty(const struct opener *o, struct chardev *c)
{
    struct termios t;
    char slave[128];
    int fd = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 || grantpt(fd) || unlockpt(fd) || ptsname_r(fd, slave, sizeof slave)) {
        int err = errno;
        if (fd >= 0)
            close(fd);
        return fail(o, RD_E_HOST, "cannot create a pseudo terminal: %s", strerror(err));
    }
    int sfd = open(slave, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (sfd >= 0 && !tcgetattr(sfd, &t)) {
        cfmakeraw(&t); /* no echo of the guest's output back as input */
        tcsetattr(sfd, TCSAFLUSH, &t);
    }
    if (sfd >= 0)
        close(sfd); /* from here on the master sees a hang-up until somebody opens the slave */
    snprintf(c->name, sizeof c->name, "pty:%s", slave);
    printf("char device redirected to %s (label %s)\n", slave, c->label);
    fflush(stdout);
    vtimer_init(&c->pty_timer, c->loop, pty_look, c);
    c->in_fd = c->out_fd = fd;
    vtimer_arm(&c->pty_timer, vtime_now(c->loop) + NS_PER_SEC);
    return 0;
}

/* -- sockets ---- */

static void adopt(struct chardev *c, int fd)
{
    int one = 1;
    if (c->nodelay)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    c->is_socket = true;
    evfd_want(&c->listener, 0); /* one client at a time */
    chardev_set_fds(c, fd, fd);
}

static void on_client(void *opaque, unsigned ready)
{
    struct chardev *c = opaque;
    int fd = accept4(c->listen_fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd >= 0)
        adopt(c, fd);
}

static int unix_socket(const struct opener *o, const struct params *p, int *out)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (strlen(p->path) >= sizeof a.sun_path)
        return fail(o, RD_E_INVAL, "socket path '%s' is too long", p->path);
    strcpy(a.sun_path, p->path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct stat st;
    if (p->server && !lstat(p->path, &st) && S_ISSOCK(st.st_mode))
        unlink(p->path); /* left over from an earlier run */
    if (fd < 0 || (p->server ? bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 1)
                             : connect(fd, (struct sockaddr *)&a, sizeof a))) {
        int err = errno;
        if (fd >= 0)
            close(fd);
        return fail(o, RD_E_IO, "cannot %s '%s': %s", p->server ? "listen on" : "connect to", p->path, strerror(err));
    }
    *out = fd;
    return 0;
}

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

/* Numeric addresses and "localhost" only: a resolver would load the host's shared libraries into this program. */
static int parse_address(const struct opener *o, const struct params *p, union address *a, socklen_t *len)
{
    char *end;
    unsigned long port = strtoul(p->port, &end, 10);
    const char *host = !p->host[0] ? (p->server ? "0.0.0.0" : "127.0.0.1") : p->host;
    if (*end || !p->port[0] || port > 65535)
        return fail(o, RD_E_INVAL, "'%s' is not a port number", p->port);
    if (!strcmp(host, "localhost"))
        host = "127.0.0.1";
    memset(a, 0, sizeof *a);
    if (inet_pton(AF_INET, host, &a->v4.sin_addr) == 1) {
        a->v4.sin_family = AF_INET;
        a->v4.sin_port = htons((uint16_t)port);
        *len = sizeof a->v4;
    } else if (inet_pton(AF_INET6, host, &a->v6.sin6_addr) == 1) {
        a->v6.sin6_family = AF_INET6;
        a->v6.sin6_port = htons((uint16_t)port);
        *len = sizeof a->v6;
    } else {
        return fail(o, RD_E_INVAL, "'%s': give a numeric address or localhost", host);
    }
    return 0;
}

static int tcp_socket(const struct opener *o, const struct params *p, int *out)
{
    union address a;
    socklen_t len = 0;
    int one = 1, err = parse_address(o, p, &a, &len);
    if (err)
        return err;
    int fd = socket(a.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && p->server)
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (fd < 0 || (p->server ? bind(fd, &a.any, len) || listen(fd, 1) : connect(fd, &a.any, len))) {
        err = errno;
        if (fd >= 0)
            close(fd);
        return fail(o, RD_E_IO, "cannot %s '%s:%s': %s", p->server ? "listen on" : "connect to", p->host, p->port,
                    strerror(err));
    }
    *out = fd;
    return 0;
}

static int open_server(const struct opener *o, struct chardev *c, const struct params *p, int fd)
{
    c->listen_fd = fd;
    snprintf(c->unlink_path, sizeof c->unlink_path, "%s", p->path);
    if (evfd_add(&c->listener, c->loop, fd, on_client, c))
        return fail(o, RD_E_HOST, "cannot watch the socket");
    if (p->wait) {
        int client;
        fprintf(stderr, "%s: waiting for a connection on %s\n", c->label, c->name);
        do {
            if (!evloop_await(c->loop, fd))
                return fail(o, RD_E_IO, "interrupted while waiting for a connection");
        } while ((client = accept4(fd, NULL, NULL, SOCK_CLOEXEC)) < 0 && errno == EINTR);
        if (client < 0)
            return fail(o, RD_E_IO, "accept: %s", strerror(errno));
        adopt(c, client);
    }
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    if (!c->connected)
        evfd_want(&c->listener, EVFD_READ);
    return 0;
}

static int open_socket(const struct opener *o, struct chardev *c, const struct params *p)
{
    int fd = -1, err = p->path[0] ? unix_socket(o, p, &fd) : tcp_socket(o, p, &fd);
    if (err)
        return err;
    c->nodelay = p->nodelay && !p->path[0];
    if (p->path[0])
        snprintf(c->name, sizeof c->name, "unix:%.200s%s", p->path, p->server ? ",server" : "");
    else
        snprintf(c->name, sizeof c->name, "tcp:%s:%s%s", p->host, p->port, p->server ? ",server" : "");
    if (p->server)
        return open_server(o, c, p, fd);
    adopt(c, fd);
    return 0;
}

void chardev_backend_disconnected(struct chardev *c)
{
    if (c->kind == CHARDEV_PTY) {
        vtimer_arm(&c->pty_timer, vtime_now(c->loop) + NS_PER_SEC);
        return;
    }
    if (c->in_fd > STDERR_FILENO)
        close(c->in_fd);
    if (c->out_fd > STDERR_FILENO && c->out_fd != c->in_fd)
        close(c->out_fd);
    c->in_fd = c->out_fd = -1;
    if (c->listen_fd >= 0)
        evfd_want(&c->listener, EVFD_READ);
}

/* -- opening ---- */

static int open_log(const struct opener *o, struct chardev *c, const struct params *p)
{
    if (!p->logfile[0])
        return 0;
    c->log_fd = open_for_writing(o, &c->file[1], p->logfile, 0, p->logappend);
    return c->log_fd < 0 ? c->log_fd : 0;
}

static int open_kind(const struct opener *o, struct chardev *c, const struct params *p)
{
    switch (p->kind) {
    case CHARDEV_STDIO: return open_stdio(o, c, p);
    case CHARDEV_FILE: return open_file(o, c, p);
    case CHARDEV_PIPE: return open_pipe(o, c, p);
    case CHARDEV_PTY: return open_pty(o, c);
    case CHARDEV_SOCKET: return open_socket(o, c, p);
    default: return 0; /* null: never connected, so output goes nowhere */
    }
}

static int open_params(const struct opener *o, const struct params *p, const char *spec, struct chardev **out)
{
    struct sigaction sa;
    struct chardev *c = malloc(sizeof *c);
    if (!c)
        return fail(o, RD_E_NOMEM, "out of memory");
    /* Readers of our pipes may go; that is an error code, not the end of the machine. */
    if (!sigaction(SIGPIPE, NULL, &sa) && sa.sa_handler == SIG_DFL)
        signal(SIGPIPE, SIG_IGN);
    chardev_init(c, o->env);
    c->kind = p->kind;
    c->mux = p->mux;
    snprintf(c->name, sizeof c->name, "%.*s", CHARDEV_NAME - 1, spec);
    int err = open_log(o, c, p);
    if (!err)
        err = open_kind(o, c, p);
    if (err) {
        chardev_close(c);
        return err;
    }
    *out = c;
    return 0;
}

int chardev_open(const struct chardev_env *env, const char *spec, struct chardev **out, char *err, size_t errsz)
{
    struct opener o = {env, err, errsz};
    struct params p = {.wait = true, .signal = true};
    *out = NULL;
    if (!strcmp(spec, "none"))
        return 0;
    int code = parse_legacy(&o, &p, spec);
    return code ? code : open_params(&o, &p, spec, out);
}

int chardev_open_backend(const struct chardev_env *env, const char *spec, struct chardev **out, char *err, size_t errsz)
{
    struct opener o = {env, err, errsz};
    struct params p = {.wait = true, .signal = true};
    *out = NULL;
    int code = parse_backend(&o, &p, spec);
    return code ? code : open_params(&o, &p, spec, out);
}
