/* tests/boot/guest/t_io.c - pipes, sockets, event descriptors, files on tmpfs. */
#include "bt.h"
#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>

static void pipe_stream(void)
{
    int fd[2];
    REQUIRE(pipe(fd) == 0);
    pid_t child = fork();
    uint32_t s = 5, t = 5;
    static uint32_t buf[5000];
    if (child == 0) {
        close(fd[0]);
        for (int i = 0; i < 100; i++) {
            for (int j = 0; j < 5000; j++)
                buf[j] = bt_random(&s);
            for (size_t done = 0; done < sizeof buf;) {
                ssize_t n = write(fd[1], (char *)buf + done, sizeof buf - done);
                REQUIRE(n > 0);
                done += (size_t)n;
            }
        }
        _exit(0);
    }
    close(fd[1]);
    for (int i = 0; i < 100; i++) {
        for (size_t done = 0; done < sizeof buf;) {
            ssize_t n = read(fd[0], (char *)buf + done, sizeof buf - done);
            REQUIRE(n > 0);
            done += (size_t)n;
        }
        for (int j = 0; j < 5000; j++)
            REQUIRE(buf[j] == bt_random(&t));
    }
    bt_wait(child);
}

static void files(void)
{
    char name[64], data[3000], back[3000];
    REQUIRE(mkdir("/tmp/bt-files", 0700) == 0);
    for (int i = 0; i < 200; i++) {
        snprintf(name, sizeof name, "/tmp/bt-files/%d", i);
        int fd = open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
        REQUIRE(fd >= 0);
        memset(data, i, sizeof data);
        REQUIRE(write(fd, data, sizeof data) == sizeof data && lseek(fd, 0, SEEK_SET) == 0);
        REQUIRE(read(fd, back, sizeof back) == sizeof back && !memcmp(data, back, sizeof data));
        close(fd);
    }
    DIR *d = opendir("/tmp/bt-files");
    int seen = 0;
    while (d && readdir(d))
        seen++;
    REQUIRE_MSG(seen == 202, "%d entries", seen);
    closedir(d);
    for (int i = 0; i < 200; i++) {
        snprintf(name, sizeof name, "/tmp/bt-files/%d", i);
        REQUIRE(unlink(name) == 0);
    }
    REQUIRE(rmdir("/tmp/bt-files") == 0);
}

static void sockets(void)
{
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof a;
    REQUIRE(listener >= 0 && bind(listener, (void *)&a, sizeof a) == 0 && listen(listener, 5) == 0);
    REQUIRE(getsockname(listener, (void *)&a, &len) == 0);
    pid_t child = fork();
    char buf[512];
    if (child == 0) {
        int c = socket(AF_INET, SOCK_STREAM, 0);
        REQUIRE(connect(c, (void *)&a, sizeof a) == 0);
        for (int i = 0; i < 200; i++) {
            memset(buf, i, sizeof buf);
            REQUIRE(send(c, buf, sizeof buf, 0) == sizeof buf);
            REQUIRE(recv(c, buf, sizeof buf, MSG_WAITALL) == sizeof buf && (uint8_t)buf[7] == (uint8_t)(i + 1));
        }
        _exit(0);
    }
    int c = accept(listener, NULL, NULL);
    REQUIRE(c >= 0);
    for (int i = 0; i < 200; i++) {
        REQUIRE(recv(c, buf, sizeof buf, MSG_WAITALL) == sizeof buf);
        for (size_t j = 0; j < sizeof buf; j++)
            buf[j]++;
        REQUIRE(send(c, buf, sizeof buf, 0) == sizeof buf);
    }
    bt_wait(child);
}

static void events(void)
{
    int ep = epoll_create1(0), ev = eventfd(0, 0);
    struct epoll_event e = {.events = EPOLLIN, .data.fd = ev}, got;
    REQUIRE(ep >= 0 && ev >= 0 && epoll_ctl(ep, EPOLL_CTL_ADD, ev, &e) == 0);
    REQUIRE(epoll_wait(ep, &got, 1, 0) == 0);
    pid_t child = fork();
    if (child == 0) {
        for (uint64_t i = 1; i <= 200; i++)
            REQUIRE(write(ev, &i, sizeof i) == sizeof i);
        _exit(0);
    }
    uint64_t sum = 0;
    while (sum < 200 * 201 / 2) {
        uint64_t n;
        REQUIRE(epoll_wait(ep, &got, 1, 20000) == 1 && got.data.fd == ev);
        REQUIRE(read(ev, &n, sizeof n) == sizeof n);
        sum += n;
    }
    REQUIRE(sum == 200 * 201 / 2);
    bt_wait(child);
}

static void devices(void)
{
    static uint8_t a[65536], b[65536];
    int zero = open("/dev/zero", O_RDONLY), rnd = open("/dev/urandom", O_RDONLY), full = open("/dev/full", O_WRONLY);
    memset(a, 1, sizeof a);
    REQUIRE(zero >= 0 && read(zero, a, sizeof a) == sizeof a && a[0] == 0 && a[65535] == 0);
    REQUIRE(rnd >= 0 && read(rnd, a, sizeof a) == sizeof a && read(rnd, b, sizeof b) == sizeof b &&
            memcmp(a, b, sizeof a));
    unsigned ones = 0;
    for (size_t i = 0; i < sizeof a; i++)
        ones += (unsigned)__builtin_popcount(a[i]);
    REQUIRE_MSG(ones > 260000 && ones < 264300, "%u ones of 524288 bits", ones);
    REQUIRE(full >= 0 && write(full, a, 1) == -1 && errno == ENOSPC);
}

const struct bt_test bt_io[] = {
    {"io-pipe", pipe_stream}, {"io-files", files},     {"io-sockets", sockets},
    {"io-events", events},    {"io-devices", devices}, {NULL, NULL},
};
