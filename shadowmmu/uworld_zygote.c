/* shadowmmu/uworld_zygote.c - the zygote: a fork of the monitor that throws everything away but the stub, and then clones worlds.
 *
 * What it sets up here, every world inherits: descriptors, limits, signal handlers, the signal stack, no_new_privs. It runs a
 * copy of the monitor's code and memory until it jumps into the stub, and touches nothing that other threads of the monitor may
 * have held a lock of.
 */
#define _GNU_SOURCE
#include "shadowmmu/uworld_int.h"
#include <asm/prctl.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1u << 31)
#endif
#define SA_KERNEL_RESTORER 0x04000000ul

/* The kernel's struct sigaction. */
struct ksigaction {
    uint64_t handler, flags, restorer, mask;
};

_Noreturn static void give_up(enum uw_step step)
{
    for (;;)
        syscall(SYS_exit_group, UW_EXIT + (int)step);
}

/* Moves the two descriptors to where the stub expects them, closes the rest. */
static void arrange_fds(int mem_fd, int ctl_fd)
{
    int mem = fcntl(mem_fd, F_DUPFD, 10), ctl = fcntl(ctl_fd, F_DUPFD, 10);
    if (mem < 0 || ctl < 0 || dup2(mem, UW_FD_MEM) < 0 || dup2(ctl, UW_FD_CTL) < 0)
        give_up(UW_STEP_FDS);
    if (syscall(SYS_close_range, 2u, ~0u, 0u)) {
        struct rlimit lim;
        if (getrlimit(RLIMIT_NOFILE, &lim) || lim.rlim_cur > 1u << 20)
            give_up(UW_STEP_FDS);
        for (int fd = 2; fd < (int)lim.rlim_cur; fd++)
            close(fd);
    }
}

/* The C library registered an area for restartable sequences, which is about to be unmapped; the kernel would fault on it. */
static void drop_rseq(void)
{
    char *area = (char *)__builtin_thread_pointer() + __rseq_offset;
    if (!__rseq_size)
        return;
    if (syscall(SYS_rseq, area, 32, RSEQ_FLAG_UNREGISTER, RSEQ_SIG) &&
        syscall(SYS_rseq, area, __rseq_size, RSEQ_FLAG_UNREGISTER, RSEQ_SIG))
        give_up(UW_STEP_RSEQ);
}

static void lower_limits(void)
{
    struct rlimit none = {0, 0};
    if (setrlimit(RLIMIT_CORE, &none) || prctl(PR_SET_DUMPABLE, 0))
        give_up(UW_STEP_LIMITS);
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    memset(data, 0, sizeof data);
    if (syscall(SYS_capset, &head, data))
        give_up(UW_STEP_LIMITS);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        give_up(UW_STEP_NEWPRIVS);
}

/* Every signal that guest code can cause goes to the stub; whatever the monitor had installed is forgotten. */
static void install_handlers(uint64_t base)
{
    static const int ours[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS, UW_SIG_KICK};
    struct ksigaction dfl = {0}, act = {
                                     .handler = base + (uint64_t)(uw_stub_handler - uw_stub),
                                     .flags = SA_SIGINFO | SA_ONSTACK | SA_KERNEL_RESTORER,
                                     .restorer = base, /* never returned to; the kernel wants one */
                                     .mask = ~0ull,
                                 };
    for (int sig = 1; sig <= 64; sig++)
        syscall(SYS_rt_sigaction, sig, &dfl, NULL, 8); /* SIGKILL, SIGSTOP: refused */
    for (unsigned i = 0; i < sizeof ours / sizeof ours[0]; i++)
        if (syscall(SYS_rt_sigaction, ours[i], &act, NULL, 8))
            give_up(UW_STEP_SIGNALS);
    /* AUTODISARM: the frame always starts at the top, even if the guest's stack pointer points into the signal stack. */
    stack_t ss = {.ss_sp = (void *)(uintptr_t)(base + UW_ALT), .ss_size = UW_ALT_BYTES, .ss_flags = (int)SS_AUTODISARM};
    if (syscall(SYS_sigaltstack, &ss, NULL))
        give_up(UW_STEP_SIGNALS);
}

static void *map_at(uint64_t at, size_t bytes, int prot, int flags, int fd, uint64_t pos)
{
    void *p = mmap((void *)(uintptr_t)at, bytes, prot, flags, fd, (off_t)pos);
    if (p != (void *)(uintptr_t)at)
        give_up(UW_STEP_STUB);
    return p;
}

static void map_stub(uint64_t base)
{
    /* Whatever the monitor had there is no use to this process. */
    uint8_t *stub = map_at(base, UW_SPAN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    memcpy(stub, uw_stub, (size_t)(uw_stub_end - uw_stub));
    uw_const_init((struct uw_const *)(stub + UW_CONST), base);
    if (mprotect(stub, UW_RO, PROT_READ | PROT_EXEC) || munmap(stub + UW_RO, UW_SPAN - UW_RO))
        give_up(UW_STEP_STUB);
    map_at(base + UW_RO, UW_RO_BYTES, PROT_READ, MAP_SHARED | MAP_FIXED, UW_FD_CTL, 0);
    map_at(base + UW_RW, UW_RW_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, UW_FD_CTL, UW_RO_BYTES);
}

/* Start and size of the vDSO. */
static uint64_t find_vdso(size_t *bytes)
{
    char line[256];
    unsigned long from = 0, to = 0;
    FILE *f = fopen("/proc/self/maps", "r");
    while (f && fgets(line, sizeof line, f))
        if (strstr(line, "[vdso]") && sscanf(line, "%lx-%lx", &from, &to) == 2)
            break;
    if (f)
        fclose(f);
    *bytes = to - from;
    return from;
}

/* 32-bit SYSENTER returns to where the kernel believes the vDSO to be, though it is unmapped, cut to 32 bits. That must be a place
 * where no guest has code: page 0 (uworld_run.c, is_landing_pad). The kernel's belief follows mremap. */
static void move_vdso(struct uw_pool *p)
{
    uint64_t to = (p->cfg.base & ~0xffffffffull) - 0x100000000ull;
    if (p->vdso && mremap((void *)(uintptr_t)p->vdso, p->vdso_bytes, p->vdso_bytes, MREMAP_MAYMOVE | MREMAP_FIXED,
                          (void *)(uintptr_t)to) == MAP_FAILED)
        give_up(UW_STEP_STUB);
}

/* AddressSanitizer would find the copied stub's addresses unknown to it. */
__attribute__((noreturn, no_sanitize("address", "undefined"))) static void zygote_main(struct uw_pool *p, pid_t monitor)
{
    uint64_t base = p->cfg.base, all = ~0ull;
    int mem_fd = p->cfg.mem_fd, ctl_fd = p->ctl_fd;
    bool fault_cpuid = p->cfg.fault_cpuid;
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, NULL, 8);
    /* A process group of its own keeps the terminal's signals away. Not a session: the host's scheduler may share CPUs out by session
     * (autogroup), and a hand-off within one does not give the CPU to somebody else. */
    if (setpgid(0, 0) < 0)
        give_up(UW_STEP_GROUP);
    arrange_fds(mem_fd, ctl_fd);
    drop_rseq();
    lower_limits();
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != monitor)
        give_up(UW_STEP_PARENT);
    install_handlers(base);
    if (fault_cpuid)
        syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0);
    map_stub(base);
    move_vdso(p);
    uint64_t entry = base + (uint64_t)(uw_stub_zygote - uw_stub);
    __asm__ volatile("jmp *%0" : : "r"(entry) : "memory");
    __builtin_unreachable();
}

pid_t uw_zygote_start(struct uw_pool *p)
{
    pid_t monitor = getpid();
    p->vdso = find_vdso(&p->vdso_bytes); /* here: the child must not call the C library's stdio */
    /* Not fork(): no handlers of other code, and no SIGCHLD when it or a world (clones with its parent) ends. */
    long pid = syscall(SYS_clone, 0ul, NULL, NULL, NULL, 0ul);
    if (pid == 0)
        zygote_main(p, monitor);
    return pid < 0 ? -errno : (pid_t)pid;
}
