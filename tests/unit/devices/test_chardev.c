#define _GNU_SOURCE
#include "base/err.h"
#include "devices/debugcon.h"
#include "devices/debugexit.h"
#include "tests/unit/devices/stream.h"
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>

static struct evloop *loop;
static struct chardev_env env;
static char dir[64], err[256];
static unsigned quits;

struct user {
    struct chardev_user *u;
    char in[65536];
    size_t len, room;
    unsigned opened, closed, breaks, focus_in, focus_out, writable;
};
static size_t can_receive(void *opaque) { return ((struct user *)opaque)->room; }
static void receive(void *opaque, const uint8_t *buf, size_t n)
{
    struct user *u = opaque;
    cr_assert_leq(n, u->room);
    cr_assert_leq(u->len + n, sizeof u->in - 1);
    memcpy(u->in + u->len, buf, n);
    u->len += n;
    u->in[u->len] = 0;
    u->room -= n;
}
static void writable(void *opaque) { ((struct user *)opaque)->writable++; }
static void event(void *opaque, enum chardev_event ev)
{
    struct user *u = opaque;
    u->opened += ev == CHARDEV_OPENED;
    u->closed += ev == CHARDEV_CLOSED;
    u->breaks += ev == CHARDEV_BREAK;
    u->focus_in += ev == CHARDEV_FOCUS_IN;
    u->focus_out += ev == CHARDEV_FOCUS_OUT;
}
static const struct chardev_ops ops = {can_receive, receive, writable, event};
static void quit(void *opaque) { quits++; }

static void setup(void)
{
    cr_assert_eq(evloop_create(&loop, &(struct evloop_config){0}), 0);
    env = (struct chardev_env){.loop = loop, .label = "serial0", .quit = quit};
    strcpy(dir, "/tmp/rd_chardev_XXXXXX");
    cr_assert_not_null(mkdtemp(dir));
}
static void teardown(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    cr_assert_eq(system(command), 0);
    evloop_destroy(loop);
}
TestSuite(chardev, .init = setup, .fini = teardown);

static const char *path(const char *name)
{
    static char p[128];
    snprintf(p, sizeof p, "%s/%s", dir, name);
    return p;
}
static struct chardev *open_spec(const char *fmt, const char *arg)
{
    struct chardev *c;
    char spec[256];
    snprintf(spec, sizeof spec, fmt, arg);
    int rc = chardev_open(&env, spec, &c, err, sizeof err);
    cr_assert_eq(rc, 0, "%s", err);
    return c;
}
static void attach(struct user *u, struct chardev *c, size_t room)
{
    *u = (struct user){.room = room};
    u->u = chardev_attach(c, &ops, u);
    cr_assert_not_null(u->u);
}
/* Lets the loop work until done() or 2 s. */
#define UNTIL(done)                                                                                                    \
    for (unsigned turn_ = 0; turn_ < 200 && !(done); turn_++)                                                          \
    evloop_wait(loop, 10000000)
static void put(struct user *u, const char *s) { cr_assert_eq(chardev_write(u->u, s, strlen(s)), strlen(s)); }

static int connect_unix(const char *p)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    strcpy(a.sun_path, p);
    cr_assert_eq(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

Test(chardev, bad_specs_are_refused_with_a_line_that_names_them)
{
    static const char *const bad[] = {"",
                                      "bogus",
                                      "file:",
                                      "file",
                                      "tcp:",
                                      "tcp:localhost",
                                      "tcp:x:99999,server",
                                      "tcp:1.2.3.4:",
                                      "tcp:no.such.host:1",
                                      "unix:/x,bogus",
                                      "unix:/x,server=maybe",
                                      "null:",
                                      "ptyx",
                                      "udp:1",
                                      "vc",
                                      "mon:",
                                      "mon:none",
                                      "stdio,x",
                                      "unix:/nonexistent/dir/s,server,nowait"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct chardev *c = (void *)1;
        err[0] = 0;
        cr_assert_lt(chardev_open(&env, bad[i], &c, err, sizeof err), 0, "%s", bad[i]);
        cr_assert_null(c);
        cr_assert_gt(strlen(err), 10, "%s", bad[i]);
        cr_assert_null(strchr(err, '\n'));
    }
    static const char *const bad2[] = {"file",    "socket",    "socket,path=/x,port=1",
                                       "unix:/x", "file,path", "null,wibble=1"};
    for (size_t i = 0; i < sizeof bad2 / sizeof bad2[0]; i++) {
        struct chardev *c;
        cr_assert_lt(chardev_open_backend(&env, bad2[i], &c, err, sizeof err), 0, "%s", bad2[i]);
    }
    char small[8];
    struct chardev *c;
    cr_assert_lt(chardev_open(&env, "bogus", &c, small, sizeof small), 0);
    cr_assert_lt(strlen(small), sizeof small);
}

Test(chardev, none_is_no_device_and_null_swallows)
{
    struct chardev *c = (void *)1;
    struct user u;
    cr_assert_eq(chardev_open(&env, "none", &c, err, sizeof err), 0);
    cr_assert_null(c);
    chardev_close(c);
    c = open_spec("null", "");
    attach(&u, c, 10);
    cr_assert_null(chardev_attach(c, &ops, &u), "one user only");
    put(&u, "abc\n");
    chardev_close(c);
}

Test(chardev, file_gets_every_byte)
{
    struct user u;
    char buf[32] = "";
    struct chardev *c = open_spec("file:%s", path("out"));
    attach(&u, c, 0);
    put(&u, "line\nrest");
    chardev_close(c);
    FILE *f = fopen(path("out"), "r");
    cr_assert_eq(fread(buf, 1, sizeof buf, f), 9);
    cr_assert_str_eq(buf, "line\nrest");
    fclose(f);
}

Test(chardev, doubled_comma_is_part_of_the_name)
{
    char spec[256];
    struct chardev *c;
    snprintf(spec, sizeof spec, "file,id=x,path=%s/a,,b,append=on", dir);
    cr_assert_eq(chardev_open_backend(&env, spec, &c, err, sizeof err), 0, "%s", err);
    chardev_start(c);
    chardev_close(c);
    cr_assert_eq(access(path("a,b"), F_OK), 0);
}

static long file_size(const char *name)
{
    struct stat st;
    return stat(path(name), &st) ? -1 : (long)st.st_size;
}

Test(chardev, files_are_as_they_were_until_the_machine_runs)
{
    for (unsigned started = 0; started < 2; started++) {
        FILE *f = fopen(path("old"), "w");
        fputs("contents", f);
        fclose(f);
        struct chardev *old = open_spec("file:%s", path("old")), *new = open_spec("file:%s", path("new"));
        cr_assert_eq(file_size("old"), 8);
        if (started) {
            chardev_start(old);
            chardev_start(new);
        }
        chardev_close(old);
        chardev_close(new);
        cr_assert_eq(file_size("old"), started ? 0 : 8);
        cr_assert_eq(file_size("new"), started ? 0 : -1);
    }
}

Test(chardev, unix_server_takes_clients_one_after_the_other)
{
    struct user u;
    struct chardev *c = open_spec("unix:%s,server,nowait", path("s"));
    attach(&u, c, 100);
    put(&u, "lost: nobody is connected\n");
    for (unsigned i = 1; i <= 2; i++) {
        int fd = connect_unix(path("s"));
        UNTIL(u.opened == i);
        cr_assert_eq(u.opened, i);
        put(&u, "hello\n");
        cr_assert_str_eq(peer_got(fd), "hello\n");
        cr_assert_eq(write(fd, "abc", 3), 3);
        UNTIL(u.len == 3 * i);
        close(fd);
        UNTIL(u.closed == i);
        cr_assert_eq(u.closed, i);
        cr_assert_not(chardev_is_connected(c));
    }
    cr_assert_str_eq(u.in, "abcabc");
    chardev_close(c);
    cr_assert_neq(access(path("s"), F_OK), 0, "socket file is removed");
}

Test(chardev, unix_client_connects_and_survives_the_server)
{
    struct user u;
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int l = socket(AF_UNIX, SOCK_STREAM, 0);
    strcpy(a.sun_path, path("l"));
    cr_assert_eq(bind(l, (struct sockaddr *)&a, sizeof a), 0);
    listen(l, 1);
    struct chardev *c = open_spec("unix:%s", path("l"));
    attach(&u, c, 100);
    int fd = accept(l, NULL, NULL);
    close(fd);
    close(l);
    for (unsigned i = 0; i < 20; i++) { /* no SIGPIPE */
        put(&u, "into the void\n");
        evloop_wait(loop, 1000000);
    }
    cr_assert_not(chardev_is_connected(c));
    chardev_close(c);
}

Test(chardev, tcp_server_on_localhost)
{
    struct user u;
    struct chardev *c = NULL;
    char spec[64];
    unsigned port = 20000 + (unsigned)getpid() % 20000;
    for (unsigned i = 0; i < 50 && !c; i++) {
        snprintf(spec, sizeof spec, "tcp:localhost:%u,server=on,wait=off,nodelay", ++port);
        chardev_open(&env, spec, &c, err, sizeof err);
    }
    cr_assert_not_null(c, "%s", err);
    attach(&u, c, 100);
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert_eq(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    UNTIL(u.opened);
    cr_assert_eq(write(fd, "x", 1), 1);
    UNTIL(u.len);
    cr_assert_str_eq(u.in, "x");
    snprintf(spec, sizeof spec, "tcp::%u,server,nowait", port);
    struct chardev *c2;
    cr_assert_eq(chardev_open(&env, spec, &c2, err, sizeof err), -RD_E_IO, "port is taken");
    close(fd);
    chardev_close(c);
}

Test(chardev, input_waits_for_room)
{
    int peer;
    struct user u;
    struct chardev *c = stream_open(&env, false, &peer);
    attach(&u, c, 3);
    cr_assert_eq(write(peer, "abcdefgh", 8), 8);
    for (unsigned i = 0; i < 5; i++)
        evloop_wait(loop, 1000000);
    cr_assert_str_eq(u.in, "abc");
    u.room = 2;
    chardev_accept_input(u.u);
    UNTIL(u.len == 5);
    cr_assert_str_eq(u.in, "abcde");
    chardev_close(c);
    close(peer);
}

Test(chardev, blocked_output_is_kept_and_the_writer_called_back)
{
    int peer;
    struct user u;
    struct chardev *c = stream_open(&env, false, &peer);
    attach(&u, c, 0);
    size_t sent = 0, got = 0, n;
    char block[1000], buf[65536];
    memset(block, 'x', sizeof block);
    while ((n = chardev_write(u.u, block, sizeof block)) == sizeof block)
        sent += n;
    sent += n;
    cr_assert_eq(chardev_write(u.u, block, 1), 0);
    for (unsigned i = 0; i < 2000 && got < sent; i++) {
        ssize_t k = read(peer, buf, sizeof buf);
        got += k > 0 ? (size_t)k : 0;
        evloop_wait(loop, 1000000);
    }
    cr_assert_eq(got, sent);
    cr_assert_eq(u.writable, 1);
    chardev_close(c);
    close(peer);
}

Test(chardev, output_without_newline_leaves_soon)
{
    int peer;
    struct user u;
    struct chardev *c = stream_open(&env, false, &peer);
    attach(&u, c, 0);
    put(&u, "prompt> ");
    struct pollfd p = {.fd = peer, .events = POLLIN};
    UNTIL(poll(&p, 1, 0));
    cr_assert_str_eq(peer_got(peer), "prompt> ");
    vtime_pause(loop); /* the monitor's prompt while the machine is stopped */
    put(&u, "(paused) ");
    cr_assert_str_eq(peer_got(peer), "(paused) ");
    chardev_close(c);
    close(peer);
}

Test(chardev, logfile_has_a_copy)
{
    char spec[256], buf[16] = "";
    struct chardev *c;
    struct user u;
    snprintf(spec, sizeof spec, "null,logfile=%s", path("log"));
    cr_assert_eq(chardev_open_backend(&env, spec, &c, err, sizeof err), 0, "%s", err);
    attach(&u, c, 0);
    put(&u, "copy\n");
    chardev_close(c);
    FILE *f = fopen(path("log"), "r");
    cr_assert_eq(fread(buf, 1, sizeof buf, f), 5);
    fclose(f);
}

/* -- multiplexer ---- */

static struct chardev *mux;
static struct user console, monitor;
static int peer_fd;
static void mux_setup(void)
{
    setup();
    mux = stream_open(&env, true, &peer_fd);
    attach(&console, mux, 1000);
    attach(&monitor, mux, 1000);
}
static void mux_teardown(void)
{
    chardev_close(mux);
    close(peer_fd);
    teardown();
}
TestSuite(chardev_mux, .init = mux_setup, .fini = mux_teardown);
static void type(const char *s, size_t n)
{
    cr_assert_eq(write(peer_fd, s, n), (ssize_t)n);
    for (unsigned i = 0; i < 5; i++)
        evloop_wait(loop, 2000000);
}
#define TYPE(s) type(s, sizeof(s) - 1)

Test(chardev_mux, first_user_has_the_input_and_escape_c_switches)
{
    TYPE("ab\001ccd\001c");
    TYPE("e");
    cr_assert_str_eq(console.in, "abe");
    cr_assert_str_eq(monitor.in, "cd");
    cr_assert_eq(monitor.focus_in, 1);
    cr_assert_eq(monitor.focus_out, 1);
    cr_assert_eq(console.focus_in, 1);
}

Test(chardev_mux, escape_twice_sends_it)
{
    TYPE("x\001\001y");
    cr_assert_str_eq(console.in, "x\001y");
}

Test(chardev_mux, escape_survives_a_split_read)
{
    TYPE("x\001");
    TYPE("b");
    TYPE("y");
    cr_assert_eq(console.breaks, 1);
    cr_assert_str_eq(console.in, "xy");
}

Test(chardev_mux, escape_h_lists_the_keys)
{
    TYPE("\001h");
    const char *text = peer_got(peer_fd);
    static const char *const keys[] = {"C-a h", "C-a x", "C-a s", "C-a t", "C-a b", "C-a c", "C-a C-a"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        cr_assert_not_null(strstr(text, keys[i]), "%s", keys[i]);
    cr_assert_eq(console.len, 0);
}

Test(chardev_mux, escape_x_quits_even_when_the_guest_takes_nothing)
{
    console.room = 0;
    for (unsigned i = 0; i < 10; i++)
        TYPE("typed at a guest that hangs\r");
    TYPE("\001x");
    cr_assert_eq(quits, 1);
}

Test(chardev_mux, queued_input_is_delivered_when_there_is_room)
{
    console.room = 2;
    TYPE("abcdef");
    cr_assert_str_eq(console.in, "ab");
    TYPE("\001cM");
    cr_assert_str_eq(monitor.in, "M");
    console.room = 100;
    chardev_accept_input(console.u);
    cr_assert_str_eq(console.in, "abcdef");
}

Test(chardev_mux, more_than_the_queue_is_left_in_the_pipe_not_lost)
{
    static char in[100000];
    size_t done = 0;
    for (size_t i = 0; i < sizeof in; i++)
        in[i] = (char)('a' + i % 26);
    console.room = 0;
    for (size_t checked = 0, turn = 0; checked < sizeof in && turn < 20000; turn++) {
        ssize_t n = write(peer_fd, in + done, sizeof in - done);
        done += n > 0 ? (size_t)n : 0;
        evloop_wait(loop, 0);
        console.room = turn % 3 ? 997 : 0;
        chardev_accept_input(console.u);
        cr_assert_arr_eq(console.in, in + checked, console.len);
        checked += console.len;
        console.len = 0;
        cr_assert(checked < sizeof in || done == sizeof in);
    }
    cr_assert_eq(done, sizeof in);
}

Test(chardev_mux, output_of_all_users_is_seen_and_timestamps_mark_lines)
{
    put(&console, "one\n");
    put(&monitor, "two\n");
    cr_assert_str_eq(peer_got(peer_fd), "one\ntwo\n");
    TYPE("\001t");
    put(&console, "tail\n");
    put(&console, "next\n");
    const char *text = peer_got(peer_fd);
    cr_assert(!strncmp(text, "tail\n[", 6), "%s", text);
    cr_assert_not_null(strstr(text, "] next\n"));
}

Test(chardev_mux, other_escape_key)
{
    mux->env.escape = 0x14;
    TYPE("\001\024b");
    cr_assert_str_eq(console.in, "\001");
    cr_assert_eq(console.breaks, 1);
}

Test(chardev_mux, has_four_users_at_most)
{
    struct user u;
    attach(&u, mux, 0);
    attach(&u, mux, 0);
    cr_assert_null(chardev_attach(mux, &ops, &u));
    cr_assert(chardev_is_mux(mux));
}

/* -- pty, pipe, stdio ---- */

Test(chardev, pty_connects_when_the_slave_is_opened)
{
    struct user u;
    struct chardev *c = open_spec("pty", "");
    attach(&u, c, 100);
    cr_assert(!strncmp(chardev_name(c), "pty:/dev/pts/", 13));
    put(&u, "nobody looks\n");
    int fd = open(chardev_name(c) + 4, O_RDWR | O_NOCTTY | O_NONBLOCK);
    cr_assert_geq(fd, 0);
    UNTIL(u.opened);
    cr_assert_eq(u.opened, 1);
    put(&u, "hello\n");
    UNTIL(false && fd);
    cr_assert_str_eq(peer_got(fd), "hello\n");
    cr_assert_eq(write(fd, "in", 2), 2);
    UNTIL(u.len == 2);
    cr_assert_str_eq(u.in, "in");
    close(fd);
    UNTIL(u.closed);
    cr_assert_eq(u.closed, 1);
    chardev_close(c);
}

Test(chardev, pipe_pair)
{
    struct user u;
    cr_assert_eq(mkfifo(path("p.in"), 0600), 0);
    cr_assert_eq(mkfifo(path("p.out"), 0600), 0);
    struct chardev *c = open_spec("pipe:%s", path("p"));
    attach(&u, c, 100);
    int in = open(path("p.in"), O_WRONLY | O_NONBLOCK), out = open(path("p.out"), O_RDONLY | O_NONBLOCK);
    cr_assert_eq(write(in, "abc", 3), 3);
    UNTIL(u.len == 3);
    put(&u, "def\n");
    cr_assert_str_eq(peer_got(out), "def\n");
    chardev_close(c);
}

static bool own_group; /* the process gets a foreground group of its own, as a shell would give it */

/* A process with stdio on the given descriptors that echoes input in capitals until 'q', then leaves by how(). */
static struct evloop *volatile parent_loop;
static pid_t echo_process(int in, int out, const char *spec, void (*how)(void))
{
    static struct evloop *child_loop;
    pid_t pid = fork();
    if (pid)
        return pid;
    dup2(in, 0);
    dup2(out, 1);
    close_range(3, ~0u, 0);
    if (own_group) {
        setpgid(0, 0);
        signal(SIGTTOU, SIG_IGN);
        tcsetpgrp(0, getpid());
        signal(SIGTTOU, SIG_DFL);
    }
    struct chardev *c;
    struct user u;
    if (evloop_create(&child_loop, &(struct evloop_config){0}))
        _exit(99);
    parent_loop = loop; /* stays reachable for leak checkers */
    loop = env.loop = child_loop;
    if (chardev_open(&env, spec, &c, err, sizeof err))
        _exit(98);
    attach(&u, c, 1000);
    put(&u, "ready\n");
    for (unsigned i = 0; i < 500 && !memchr(u.in, 'q', u.len) && !u.closed && !quits; i++)
        evloop_wait(loop, 10000000);
    for (size_t i = 0; i < u.len; i++)
        u.in[i] = (char)(u.in[i] & ~0x20);
    chardev_write(u.u, u.in, u.len);
    chardev_flush(c);
    if (how)
        how();
    chardev_close(c);
    _exit(quits ? 7 : u.closed ? 5 : 3);
}

static int exit_of(pid_t pid)
{
    int status;
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

Test(chardev, stdio_on_pipes_and_its_end_of_file)
{
    int in[2], out[2];
    char buf[64] = "";
    cr_assert_eq(pipe(in) | pipe(out), 0);
    pid_t pid = echo_process(in[0], out[1], "stdio", NULL);
    cr_assert_eq(write(in[1], "abc", 3), 3);
    usleep(50000);
    close(in[1]);
    close(in[0]);
    cr_assert_eq(exit_of(pid), 5);
    cr_assert_eq(read(out[0], buf, sizeof buf), 9);
    cr_assert_str_eq(buf, "ready\nABC");
}

Test(chardev, stdio_can_be_opened_once)
{
    struct chardev *a, *b;
    fflush(stdout);
    cr_assert_eq(chardev_open(&env, "stdio", &a, err, sizeof err), 0);
    cr_assert_eq(chardev_open(&env, "mon:stdio", &b, err, sizeof err), -RD_E_BUSY);
    chardev_close(a);
}

static int master, slave;
static struct termios before;
static void terminal(void)
{
    setup();
    master = posix_openpt(O_RDWR | O_NOCTTY);
    cr_assert(!grantpt(master) && !unlockpt(master));
    char name[64];
    cr_assert_eq(ptsname_r(master, name, sizeof name), 0);
    setsid(); /* the slave becomes our controlling terminal */
    slave = open(name, O_RDWR);
    cr_assert_geq(slave, 0);
    cr_assert_eq(tcgetattr(slave, &before), 0);
    signal(SIGHUP, SIG_IGN);
}
TestSuite(term, .init = terminal, .fini = teardown);

static void wait_for(const char *text)
{
    char buf[4096];
    size_t n = 0;
    buf[0] = 0;
    struct pollfd p = {.fd = master, .events = POLLIN};
    while (n < sizeof buf - 1 && !strstr(buf, text) && poll(&p, 1, 5000) > 0) {
        ssize_t k = read(master, buf + n, sizeof buf - 1 - n);
        if (k <= 0)
            break;
        n += (size_t)k;
        buf[n] = 0;
    }
    cr_assert_not_null(strstr(buf, text), "got '%s'", buf);
}
static void expect_raw(bool isig)
{
    struct termios now;
    cr_assert_eq(tcgetattr(slave, &now), 0);
    cr_assert_eq(now.c_lflag & (ICANON | ECHO), 0);
    cr_assert_eq(!!(now.c_lflag & ISIG), isig);
    cr_assert(now.c_oflag & OPOST);
}
static void expect_restored(void)
{
    struct termios now;
    cr_assert_eq(tcgetattr(slave, &now), 0);
    cr_assert_eq(now.c_lflag, before.c_lflag);
    cr_assert_eq(now.c_iflag, before.c_iflag);
    cr_assert_eq(now.c_oflag, before.c_oflag);
    cr_assert_eq(fcntl(slave, F_GETFL) & O_NONBLOCK, 0, "the terminal others share stays blocking");
}
static void by_exit(void) { exit(4); }
static void by_abort(void) { abort(); }

Test(term, restored_when_the_stream_is_closed)
{
    pid_t pid = echo_process(slave, slave, "stdio", NULL);
    wait_for("ready");
    expect_raw(true);
    cr_assert_eq(write(master, "q", 1), 1);
    cr_assert_eq(exit_of(pid), 3);
    expect_restored();
}

Test(term, restored_on_escape_x)
{
    pid_t pid = echo_process(slave, slave, "mon:stdio", NULL);
    wait_for("ready");
    expect_raw(false);
    cr_assert_eq(write(master, "\001x", 2), 2);
    cr_assert_eq(exit_of(pid), 7);
    expect_restored();
}

Test(term, restored_on_exit)
{
    pid_t pid = echo_process(slave, slave, "mon:stdio", by_exit);
    wait_for("ready");
    cr_assert_eq(write(master, "q", 1), 1);
    cr_assert_eq(exit_of(pid), 4);
    expect_restored();
}

Test(term, restored_on_abort)
{
    pid_t pid = echo_process(slave, slave, "mon:stdio", by_abort);
    wait_for("ready");
    cr_assert_eq(write(master, "q", 1), 1);
    cr_assert_eq(exit_of(pid), -SIGABRT);
    expect_restored();
}

Test(term, restored_on_fatal_signals)
{
    static const int sigs[] = {SIGTERM, SIGINT, SIGQUIT};
    for (unsigned i = 0; i < 3; i++) {
        pid_t pid = echo_process(slave, slave, "mon:stdio", NULL);
        wait_for("ready");
        expect_raw(false);
        kill(pid, sigs[i]);
        cr_assert_eq(exit_of(pid), -sigs[i]);
        expect_restored();
    }
}

Test(term, ctrl_c_kills_plain_stdio)
{
    pid_t pid = echo_process(slave, slave, "stdio", NULL);
    wait_for("ready");
    signal(SIGINT, SIG_IGN); /* it is for the whole group */
    cr_assert_eq(write(master, "\003", 1), 1);
    cr_assert_eq(exit_of(pid), -SIGINT);
    expect_restored();
}

Test(term, stop_gives_the_terminal_back_and_continue_takes_it)
{
    int status;
    own_group = true;
    pid_t pid = echo_process(slave, slave, "mon:stdio", NULL);
    wait_for("ready");
    kill(pid, SIGTSTP);
    cr_assert_eq(waitpid(pid, &status, WUNTRACED), pid);
    cr_assert(WIFSTOPPED(status));
    expect_restored();
    kill(pid, SIGCONT);
    usleep(100000);
    expect_raw(false);
    kill(pid, SIGTERM);
    cr_assert_eq(exit_of(pid), -SIGTERM);
    expect_restored();
}

/* -- debug ports ---- */

Test(chardev, debugcon_writes_the_stream_and_reads_e9)
{
    int peer;
    struct debugcon d;
    struct chardev *c = stream_open(&env, false, &peer);
    debugcon_init(&d, c);
    for (const char *p = "dbg\n"; *p; p++)
        out8(&debugcon_ops, &d, 0, (uint8_t)*p);
    cr_assert_str_eq(peer_got(peer), "dbg\n");
    cr_assert_eq(in8(&debugcon_ops, &d, 0), 0xe9);
    chardev_close(c);
    close(peer);
    debugcon_init(&d, NULL);
    for (unsigned i = 0; i < 10000; i++)
        out8(&debugcon_ops, &d, 0, 'x');
}

static int exit_status = -1;
static void on_exit_request(void *opaque, int status) { exit_status = status; }

Test(chardev, debugexit_maps_the_value_to_a_status)
{
    struct debugexit d = {.exit_fn = on_exit_request};
    debugexit_ops.write(&d, 0, 4, 0);
    cr_assert_eq(exit_status, 1);
    debugexit_ops.write(&d, 0, 1, 0x10);
    cr_assert_eq(exit_status, 0x21);
    debugexit_ops.write(&d, 0, 4, 0xffffffff);
    cr_assert_eq(exit_status, 0xff);
}
