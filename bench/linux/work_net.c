/* bench/linux/work_net.c - what is left of lmbench's set: select, bandwidth of pipes and sockets, TCP and UDP over the loopback. */
#define _GNU_SOURCE
#include "work.h"
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHUNK 65536

static int fd = -1, listener = -1;
static struct sockaddr_in address;
static pid_t peer;
static char buffer[CHUNK];

/* ---- select on 100 descriptors, pipes or TCP connections, of which none is ready ---- */

static int watched[100][2];
static void select_open(void)
{
    for (unsigned i = 0; i < 100; i++)
        if (pipe(watched[i]))
            work_die("pipe");
}
static int bound(int type);
static int connected(int type);
static void select_tcp_open(void)
{
    int s = bound(SOCK_STREAM);
    if (listen(s, 8))
        work_die("listen");
    for (unsigned i = 0; i < 100; i++) {
        watched[i][0] = connected(SOCK_STREAM);
        watched[i][1] = accept(s, NULL, NULL);
        if (watched[i][1] < 0)
            work_die("accept");
    }
    close(s);
}
static void select_close(void)
{
    for (unsigned i = 0; i < 100; i++) {
        close(watched[i][0]);
        close(watched[i][1]);
    }
}
static void select_100(uint64_t n)
{
    while (n--) {
        fd_set set;
        struct timeval now = {0, 0};
        FD_ZERO(&set);
        for (unsigned i = 0; i < 100; i++)
            FD_SET(watched[i][0], &set);
        if (select(watched[99][0] + 1, &set, NULL, NULL, &now) != 0)
            work_die("select");
    }
}

/* ---- bandwidth: a child sends without end ---- */

static _Noreturn void send_for_ever(int to)
{
    signal(SIGPIPE, SIG_DFL);
    while (write(to, buffer, sizeof buffer) > 0)
        ;
    _exit(0);
}
static void stream_open(int ends[2])
{
    peer = fork();
    if (peer == 0) {
        close(ends[0]);
        send_for_ever(ends[1]);
    }
    close(ends[1]);
    fd = ends[0];
}
static void pipe_open(void)
{
    int ends[2];
    if (pipe(ends))
        work_die("pipe");
    stream_open(ends);
}
static void unix_open(void)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends))
        work_die("socketpair");
    stream_open(ends);
}
static void peer_close(void)
{
    close(fd);
    kill(peer, SIGKILL);
    waitpid(peer, NULL, 0);
}
/* One operation = 64 KiB received. */
static void receive_64k(uint64_t n)
{
    for (uint64_t left = n * CHUNK; left;) {
        ssize_t got = read(fd, buffer, left < CHUNK ? left : CHUNK);
        if (got <= 0)
            work_die("read");
        left -= (uint64_t)got;
    }
}

/* ---- loopback ---- */

static int bound(int type)
{
    socklen_t size = sizeof address;
    int s = socket(AF_INET, type, 0);
    address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (s < 0 || bind(s, (struct sockaddr *)&address, sizeof address) ||
        getsockname(s, (struct sockaddr *)&address, &size))
        work_die("bind");
    return s;
}
static void no_delay(int s)
{
    int on = 1;
    setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}
static int connected(int type)
{
    int s = socket(AF_INET, type, 0);
    if (s < 0 || connect(s, (struct sockaddr *)&address, sizeof address))
        work_die("connect");
    return s;
}
static void echo_stream(int s)
{
    char c;
    while (read(s, &c, 1) == 1)
        if (write(s, &c, 1) != 1)
            break;
}
static void tcp_server(bool stream)
{
    listener = bound(SOCK_STREAM);
    if (listen(listener, 8))
        work_die("listen");
    peer = fork();
    if (peer)
        return;
    for (;;) {
        int s = accept(listener, NULL, NULL);
        no_delay(s);
        if (stream)
            send_for_ever(s);
        echo_stream(s);
        close(s);
    }
}
static void tcp_open(void)
{
    tcp_server(false);
    fd = connected(SOCK_STREAM);
    no_delay(fd);
}
static void tcp_stream_open(void)
{
    tcp_server(true);
    fd = connected(SOCK_STREAM);
}
static void tcp_connect_open(void) { tcp_server(false); }
static void tcp_close(void)
{
    close(listener);
    peer_close();
}
static void udp_open(void)
{
    listener = bound(SOCK_DGRAM);
    peer = fork();
    if (peer == 0) {
        struct sockaddr_in from;
        socklen_t size = sizeof from;
        char c;
        while (recvfrom(listener, &c, 1, 0, (struct sockaddr *)&from, &size) == 1)
            sendto(listener, &c, 1, 0, (struct sockaddr *)&from, size);
        _exit(0);
    }
    fd = connected(SOCK_DGRAM);
}
static void ping_pong(uint64_t n)
{
    char c = 0;
    while (n--)
        if (write(fd, &c, 1) != 1 || read(fd, &c, 1) != 1)
            work_die("ping");
}
/* A connection, ended by a reset so that none is left waiting. */
static void tcp_connect(uint64_t n)
{
    const struct linger reset = {1, 0};
    while (n--) {
        int s = connected(SOCK_STREAM);
        setsockopt(s, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        close(s);
    }
}
static void connect_close(void)
{
    fd = -1;
    tcp_close();
}

const struct work network_works[] = {
    {"select-100", select_100, select_open, select_close, NULL},
    {"select-tcp-100", select_100, select_tcp_open, select_close, NULL},
    {"pipe-bw-64k", receive_64k, pipe_open, peer_close, NULL},
    {"unix-bw-64k", receive_64k, unix_open, peer_close, NULL},
    {"tcp-bw-64k", receive_64k, tcp_stream_open, tcp_close, NULL},
    {"tcp-pingpong", ping_pong, tcp_open, tcp_close, NULL},
    {"udp-pingpong", ping_pong, udp_open, tcp_close, NULL},
    {"tcp-connect", tcp_connect, tcp_connect_open, connect_close, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
