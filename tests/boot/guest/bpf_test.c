/* tests/boot/guest/bpf_test.c - eBPF and classic BPF programs, compiled to machine code by the guest's kernel, at work on a socket.
 *
 * Programs come and go by the hundred, so that code of one lies where another's was. Each computes a length from constants that are
 * part of its instructions; a packet is cut to that length, which tells what ran. */
#include <errno.h>
#include <linux/bpf.h>
#include <linux/filter.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static int failed;
static void result(const char *name, const char *why)
{
    if (why)
        printf("FAIL %s %s (%s)\n", name, why, strerror(errno));
    else
        printf("ok %s\n", name);
    failed += why != NULL;
}

static int bpf(int cmd, union bpf_attr *a) { return (int)syscall(__NR_bpf, cmd, a, sizeof *a); }

static int load(const struct bpf_insn *insns, unsigned n)
{
    static char log[4096];
    union bpf_attr a = {.prog_type = BPF_PROG_TYPE_SOCKET_FILTER};
    a.insns = (uintptr_t)insns;
    a.insn_cnt = n;
    a.license = (uintptr_t) "GPL";
    a.log_buf = (uintptr_t)log;
    a.log_size = sizeof log;
    a.log_level = 1;
    return bpf(BPF_PROG_LOAD, &a);
}

#define INSN(c, d, s, o, i)                                                                                            \
    ((struct bpf_insn){.code = (c), .dst_reg = (d), .src_reg = (s), .off = (o), .imm = (int)(i)})
#define MOV(d, i) INSN(BPF_ALU64 | BPF_MOV | BPF_K, d, 0, 0, i)
#define ALU(op, d, s) INSN(BPF_ALU64 | (op) | BPF_X, d, s, 0, 0)
#define ALUK(op, d, i) INSN(BPF_ALU64 | (op) | BPF_K, d, 0, 0, i)
#define EXIT INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)

/* How long a packet of 200 bytes is after the filter of socket 0 has seen it. */
static int passed(int s[2])
{
    char buf[256];
    memset(buf, 'x', sizeof buf);
    if (send(s[1], buf, 200, 0) != 200)
        return -1;
    return (int)recv(s[0], buf, sizeof buf, MSG_DONTWAIT);
}

/* An arithmetic program with constants of its own: its result is computed here, too. */
static const char *arithmetic(int s[2])
{
    for (unsigned k = 1; k <= 300; k++) {
        uint64_t x = k * 2654435761u, y = k * 40503u + 7;
        struct bpf_insn p[] = {
            INSN(BPF_LD | BPF_DW | BPF_IMM, 2, 0, 0, (uint32_t)x),
            INSN(0, 0, 0, 0, (uint32_t)(x >> 32)),
            MOV(3, (int)y),
            ALU(BPF_MUL, 2, 3),
            ALUK(BPF_RSH, 2, 3),
            ALU(BPF_XOR, 2, 3),
            ALUK(BPF_LSH, 3, 5),
            ALU(BPF_ADD, 2, 3),
            MOV(4, 97),
            INSN(BPF_ALU | BPF_MOD | BPF_X, 2, 4, 0, 0),
            INSN(BPF_JMP | BPF_JGT | BPF_K, 2, 0, 1, 50),
            ALUK(BPF_ADD, 2, 60),
            INSN(BPF_ALU64 | BPF_MOV | BPF_X, 0, 2, 0, 0),
            EXIT,
        };
        uint64_t r = x * (uint64_t)(int64_t)(int)y >> 3;
        r ^= (uint64_t)(int64_t)(int)y;
        r += (uint64_t)(int64_t)(int)y << 5;
        r = (uint32_t)r % 97;
        if (r <= 50)
            r += 60;
        int fd = load(p, sizeof p / sizeof *p);
        if (fd < 0 || setsockopt(s[0], SOL_SOCKET, SO_ATTACH_BPF, &fd, sizeof fd))
            return "a program cannot be loaded";
        close(fd); /* the socket keeps it until the next one comes */
        for (int again = 0; again < 3; again++)
            if (passed(s) != (int)r)
                return "wrong length";
    }
    return NULL;
}

/* A map: the program counts packets by itself. */
static const char *map_counter(int s[2])
{
    union bpf_attr a = {.map_type = BPF_MAP_TYPE_ARRAY};
    a.key_size = 4, a.value_size = 8, a.max_entries = 4;
    int map = bpf(BPF_MAP_CREATE, &a);
    struct bpf_insn p[] = {
        INSN(BPF_ST | BPF_W | BPF_MEM, 10, 0, -4, 2),
        INSN(BPF_ALU64 | BPF_MOV | BPF_X, 2, 10, 0, 0),
        ALUK(BPF_ADD, 2, -4),
        INSN(BPF_LD | BPF_DW | BPF_IMM, 1, BPF_PSEUDO_MAP_FD, 0, map),
        INSN(0, 0, 0, 0, 0),
        INSN(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_map_lookup_elem),
        INSN(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 3, 0),
        INSN(BPF_LDX | BPF_DW | BPF_MEM, 1, 0, 0, 0),
        ALUK(BPF_ADD, 1, 1),
        INSN(BPF_STX | BPF_DW | BPF_MEM, 0, 1, 0, 0),
        MOV(0, 100),
        EXIT,
    };
    int fd = map < 0 ? -1 : load(p, sizeof p / sizeof *p);
    if (fd < 0 || setsockopt(s[0], SOL_SOCKET, SO_ATTACH_BPF, &fd, sizeof fd))
        return "cannot load";
    for (int i = 0; i < 1000; i++)
        if (passed(s) != 100)
            return "wrong length";
    uint32_t key = 2;
    uint64_t value = 0;
    union bpf_attr l = {.map_fd = (uint32_t)map};
    l.key = (uintptr_t)&key;
    l.value = (uintptr_t)&value;
    if (bpf(BPF_MAP_LOOKUP_ELEM, &l) || value != 1000)
        return "wrong count";
    close(map);
    close(fd);
    return NULL;
}

static const char *classic(int s[2])
{
    for (unsigned k = 1; k <= 200; k++) {
        struct sock_filter f[] = {BPF_STMT(BPF_LD | BPF_W | BPF_LEN, 0), BPF_STMT(BPF_ALU | BPF_SUB | BPF_K, k % 150),
                                  BPF_STMT(BPF_ALU | BPF_XOR | BPF_K, 1), BPF_STMT(BPF_RET | BPF_A, 0)};
        struct sock_fprog p = {sizeof f / sizeof *f, f};
        if (setsockopt(s[0], SOL_SOCKET, SO_ATTACH_FILTER, &p, sizeof p))
            return "cannot attach";
        int want = (int)((200 - k % 150) ^ 1);
        if (passed(s) != (want > 200 ? 200 : want))
            return "wrong length";
    }
    return NULL;
}

int main(void)
{
    int s[2];
    if (socketpair(AF_UNIX, SOCK_DGRAM, 0, s)) {
        result("bpf", "no sockets");
        return 1;
    }
    result("bpf-arithmetic", arithmetic(s));
    result("bpf-map", map_counter(s));
    result("bpf-classic", classic(s));
    return failed != 0;
}
