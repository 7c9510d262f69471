/* tests/user/degrade.c - runs a program on a host that has less: degrade LACK PROGRAM ARGUMENT...
 *
 * Most lacks are a seccomp filter that answers a system call with an error, as container policies and old kernels do. fsgsbase
 * is taken out of the auxiliary vector; processes and few-processes are RLIMIT_NPROC for a user of its own (needs root: exit status 77).
 */
#define _GNU_SOURCE
#include <asm/prctl.h>
#include <elf.h>
#include <errno.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define HWCAP2_FSGSBASE 2u
#define UNPRIVILEGED 54321
#define USER_DISPATCH 59 /* PR_SET_SYSCALL_USER_DISPATCH */
#define ANY 0xffffffffu

/* If the call is nr and (argument & mask) == value: the error. */
struct rule {
    const char *lack;
    int nr, arg;
    uint32_t mask, value;
    int error;
    int arg2; /* a second condition, if mask2 */
    uint32_t mask2, value2;
};
static const struct rule rules[] = {
    {"none", -1, 0, 0, 0, 0, 0, 0, 0},
    {"user-dispatch", SYS_prctl, 0, ANY, USER_DISPATCH, EINVAL, 0, 0, 0},
    {"seccomp-eperm", SYS_seccomp, 0, 0, 0, EPERM, 0, 0, 0},
    {"seccomp-enosys", SYS_seccomp, 0, 0, 0, ENOSYS, 0, 0, 0},
    {"fork", SYS_clone, 0, CLONE_VM, 0, EAGAIN, 0, 0, 0},
    {"fork-eperm", SYS_clone, 0, CLONE_VM, 0, EPERM, 0, 0, 0},
    {"no-new-privs", SYS_prctl, 0, ANY, PR_SET_NO_NEW_PRIVS, EINVAL, 0, 0, 0},
    {"cpuid-faults", SYS_arch_prctl, 0, ANY, ARCH_SET_CPUID, ENODEV, 0, 0, 0},
    {"group", SYS_setpgid, 0, 0, 0, EPERM, 0, 0, 0},
    {"capset", SYS_capset, 0, 0, 0, EPERM, 0, 0, 0},
    {"personality", SYS_personality, 0, ANY, ANY, EPERM, 0, 0, 0},
    /* A world's mapper maps descriptor 0; every fourth page fails, as when there are too many mappings already. */
    {"mappings", SYS_mmap, 4, ANY, 0, ENOMEM, 0, 0x3000, 0x3000},
    {"modify-ldt", SYS_modify_ldt, 0, 0, 0, ENOSYS, 0, 0, 0},
};

static int install(const struct rule *r)
{
    struct sock_filter f[16];
    unsigned n = 0, back[4], jumps = 0;
#define PUT(...) (f[n++] = (struct sock_filter)__VA_ARGS__)
#define WANT(k) (back[jumps++] = n, PUT({BPF_JMP | BPF_JEQ | BPF_K, 0, 0, (k)}))
    PUT({BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(struct seccomp_data, arch)});
    WANT(AUDIT_ARCH_X86_64);
    PUT({BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(struct seccomp_data, nr)});
    WANT((uint32_t)r->nr);
    if (r->mask) {
        PUT({BPF_LD | BPF_W | BPF_ABS, 0, 0, (uint32_t)(offsetof(struct seccomp_data, args) + 8u * (unsigned)r->arg)});
        PUT({BPF_ALU | BPF_AND | BPF_K, 0, 0, r->mask});
        WANT(r->value);
    }
    if (r->mask2) {
        PUT({BPF_LD | BPF_W | BPF_ABS, 0, 0, (uint32_t)(offsetof(struct seccomp_data, args) + 8u * (unsigned)r->arg2)});
        PUT({BPF_ALU | BPF_AND | BPF_K, 0, 0, r->mask2});
        WANT(r->value2);
    }
    PUT({BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | (uint32_t)r->error});
    PUT({BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW});
    for (unsigned i = 0; i < jumps; i++)
        f[back[i]].jf = (uint8_t)(n - 1 - back[i] - 1);
    struct sock_fprog prog = {(unsigned short)n, f};
    if (geteuid() != 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        return -1;
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog);
}

/* Clears FSGSBASE in the auxiliary vector of a process that has just been through exec. */
static void edit_auxv(pid_t pid)
{
    struct user_regs_struct r;
    ptrace(PTRACE_GETREGS, pid, NULL, &r);
    uint64_t at = r.rsp;
    long argc = ptrace(PTRACE_PEEKDATA, pid, at, NULL);
    at += 8 * (uint64_t)(argc + 2);
    while (ptrace(PTRACE_PEEKDATA, pid, at, NULL))
        at += 8;
    for (at += 8;; at += 16) {
        long type = ptrace(PTRACE_PEEKDATA, pid, at, NULL);
        if (type == AT_NULL)
            return;
        if (type == AT_HWCAP2)
            ptrace(PTRACE_POKEDATA, pid, at + 8,
                   (void *)(ptrace(PTRACE_PEEKDATA, pid, at + 8, NULL) & ~(long)HWCAP2_FSGSBASE));
    }
}
/* The program starts itself again once (monitor/hostlayout.c): both times count. */
static int without_fsgsbase(char **argv)
{
    pid_t pid = fork();
    if (pid == 0) {
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        execv(argv[0], argv);
        _exit(127);
    }
    int status, execs = 0;
    while (waitpid(pid, &status, 0) == pid && WIFSTOPPED(status)) {
        long sig = 0;
        if (WSTOPSIG(status) == SIGTRAP) {
            edit_auxv(pid);
            if (++execs == 2) {
                ptrace(PTRACE_DETACH, pid, NULL, NULL);
                waitpid(pid, &status, 0);
                break;
            }
        } else {
            sig = WSTOPSIG(status);
        }
        ptrace(PTRACE_CONT, pid, NULL, (void *)sig);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

static int with_few_processes(char **argv, rlim_t n)
{
    struct rlimit limit = {n, n};
    if (geteuid() != 0) {
        fputs("degrade: needs root\n", stderr);
        return 77;
    }
    if (setgroups(0, NULL) || setgid(UNPRIVILEGED) || setuid(UNPRIVILEGED) || setrlimit(RLIMIT_NPROC, &limit)) {
        perror("degrade");
        return 77;
    }
    execv(argv[0], argv);
    return 127;
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fputs("usage: degrade LACK PROGRAM ARGUMENT...\n", stderr);
        return 2;
    }
    if (!strcmp(argv[1], "fsgsbase"))
        return without_fsgsbase(argv + 2);
    if (!strcmp(argv[1], "processes"))
        return with_few_processes(argv + 2, 1);
    if (!strcmp(argv[1], "few-processes")) /* the engine's threads, the zygote, and two worlds or three */
        return with_few_processes(argv + 2, 9);
    for (unsigned i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        if (strcmp(argv[1], rules[i].lack))
            continue;
        if (rules[i].nr >= 0 && install(&rules[i])) {
            perror("degrade: seccomp");
            return 77;
        }
        execv(argv[2], argv + 2);
        perror(argv[2]);
        return 127;
    }
    fprintf(stderr, "degrade: unknown '%s'\n", argv[1]);
    return 2;
}
