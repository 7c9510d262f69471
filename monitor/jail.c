/* monitor/jail.c - see jail.h. Not nofpu.
 *
 * The filter names what is allowed; everything else fails with EPERM, so that what merely tried (an error message's strerror, a
 * library's look around) goes on. Arguments are looked at only where they are numbers: a filter cannot follow pointers, so nothing
 * that takes a path is allowed at all, and no descriptor can be made that was not accepted from a listening socket.
 */
#define _GNU_SOURCE
#include "monitor/jail.h"
#include "base/err.h"
#include <asm/prctl.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

static const uint16_t allowed[] = {
    /* what is open */
    SYS_read, SYS_write, SYS_readv, SYS_writev, SYS_pread64, SYS_pwrite64, SYS_preadv, SYS_pwritev, SYS_preadv2,
    SYS_pwritev2, SYS_lseek, SYS_close, SYS_fstat, SYS_ftruncate, SYS_fallocate, SYS_fsync, SYS_fdatasync,
    SYS_sync_file_range, SYS_fcntl, SYS_dup, SYS_dup2, SYS_dup3, SYS_pipe2, SYS_eventfd2, SYS_accept, SYS_accept4,
    SYS_recvfrom, SYS_recvmsg, SYS_sendto, SYS_sendmsg, SYS_shutdown, SYS_getsockname, SYS_getpeername, SYS_getsockopt,
    SYS_setsockopt,
    /* waiting and time */
    SYS_poll, SYS_ppoll, SYS_select, SYS_pselect6, SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_wait, SYS_epoll_pwait,
    SYS_timerfd_create, SYS_timerfd_settime, SYS_timerfd_gettime, SYS_timer_create, SYS_timer_settime,
    SYS_timer_gettime, SYS_timer_getoverrun, SYS_timer_delete, SYS_nanosleep, SYS_clock_nanosleep, SYS_clock_gettime,
    SYS_clock_getres, SYS_gettimeofday, SYS_time, SYS_restart_syscall,
    /* memory */
    SYS_munmap, SYS_mremap, SYS_madvise, SYS_brk, SYS_mincore, SYS_msync,
    /* threads, signals, processes that are there */
    SYS_futex, SYS_sched_yield, SYS_sched_getaffinity, SYS_sched_setaffinity, SYS_getcpu, SYS_set_robust_list, SYS_rseq,
    SYS_exit, SYS_exit_group, SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_rt_sigpending,
    SYS_rt_sigtimedwait, SYS_sigaltstack, SYS_gettid, SYS_getpid, SYS_getppid, SYS_getuid, SYS_geteuid, SYS_getgid,
    SYS_getegid, SYS_wait4, SYS_waitid, SYS_getrandom, SYS_uname, SYS_sysinfo};
/* Of terminals: attributes, size, what waits. Not TIOCSTI, which types for the user. */
static const uint32_t ioctls[] = {TCGETS, TCSETS, TCSETSW, TCSETSF, TIOCGWINSZ, TIOCSWINSZ, FIONREAD, FIONBIO};

#define COUNT(a) (sizeof(a) / sizeof(a)[0])
#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define RET(what) BPF_STMT(BPF_RET | BPF_K, what)
#define ALLOW RET(SECCOMP_RET_ALLOW)
#define DENY RET(SECCOMP_RET_ERRNO | EPERM)
/* The next n statements only if the word loaded is k. */
#define IF(k, n) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, k, 0, n)
#define ARG(i) LOAD(args[i]) /* its lower half: little endian */

struct prog {
    struct sock_filter f[256];
    unsigned n;
};
static void add(struct prog *p, const struct sock_filter *f, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        p->f[p->n++] = f[i];
}
#define ADD(p, ...)                                                                                                    \
    add(p, (const struct sock_filter[]){__VA_ARGS__}, COUNT(((const struct sock_filter[]){__VA_ARGS__})))

static void write_filter(struct prog *p, uint32_t self)
{
    ADD(p, LOAD(arch), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0), DENY, LOAD(nr));
    for (unsigned i = 0; i < COUNT(allowed); i++)
        ADD(p, IF(allowed[i], 1), ALLOW);
    /* No code but what the translator writes into the memory it has had since the start. */
    const uint32_t with_prot[] = {SYS_mmap, SYS_mprotect};
    for (unsigned i = 0; i < 2; i++)
        ADD(p, IF(with_prot[i], 4), ARG(2), BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 0, 1), DENY, ALLOW);
    ADD(p, IF(SYS_clone, 4), ARG(0), BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, CLONE_THREAD, 1, 0), DENY, ALLOW);
    ADD(p, IF(SYS_clone3, 1), RET(SECCOMP_RET_ERRNO | ENOSYS)); /* the C library then takes clone */
    /* User worlds are kicked with SIGUSR1 (UW_SIG_KICK) and ended with SIGKILL. A pid cannot be told from another: these signals it is,
     * and nothing else. */
    ADD(p, IF(SYS_tgkill, 6), ARG(0), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, self, 3, 0), ARG(2),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SIGUSR1, 1, 0), DENY, ALLOW);
    ADD(p, IF(SYS_kill, 4), ARG(1), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SIGKILL, 1, 0), DENY, ALLOW);
    /* shadowmmu/uworld_pool.c, be_like_worlds */
    ADD(p, IF(SYS_arch_prctl, 4), ARG(0), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCH_SET_CPUID, 1, 0), DENY, ALLOW);
    /* fstat, as newer C libraries spell it: an empty path is not checked, so this tells of any file's size, no more. */
    ADD(p, IF(SYS_newfstatat, 1), ALLOW);
    ADD(p, IF(SYS_ioctl, 2 * COUNT(ioctls) + 2), ARG(1));
    for (unsigned i = 0; i < COUNT(ioctls); i++)
        ADD(p, IF(ioctls[i], 1), ALLOW);
    ADD(p, DENY, DENY);
}

int jail_enter(void)
{
    struct prog p = {.n = 0};
    write_filter(&p, (uint32_t)getpid());
    struct sock_fprog prog = {(unsigned short)p.n, p.f};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
        syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &prog))
        return -RD_E_UNSUPPORTED;
    return 0;
}
