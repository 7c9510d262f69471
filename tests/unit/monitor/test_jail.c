/* -sandbox on: what is forbidden fails, what the machine lives of works. Each test is a process of its own. */
#define _GNU_SOURCE
#include "monitor/jail.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static int is_forbidden(long r) { return r == -1 && errno == EPERM; }

static void setup(void) { cr_assert_eq(jail_enter(), 0); }
TestSuite(jail, .init = setup);

Test(jail, no_files)
{
    cr_expect(is_forbidden(open("/dev/null", O_RDONLY)));
    cr_expect(is_forbidden(syscall(SYS_open, "/dev/null", O_RDONLY)));
    cr_expect(is_forbidden(syscall(SYS_openat2, AT_FDCWD, "/dev/null", NULL, 0)));
    cr_expect(is_forbidden(unlink("/nonexistent")));
    cr_expect(is_forbidden(mkdir("/nonexistent/x", 0700)));
    cr_expect(is_forbidden(syscall(SYS_memfd_create, "x", 0)));
}
Test(jail, no_programs_and_processes)
{
    char path[] = "/bin/true", *argv[] = {path, NULL};
    cr_expect(is_forbidden(execve(path, argv, argv)));
    cr_expect(is_forbidden(syscall(SYS_fork)));
    cr_expect(is_forbidden(syscall(SYS_vfork)));
    cr_expect(is_forbidden(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0)));
    cr_expect(is_forbidden(ptrace(PTRACE_TRACEME, 0, NULL, NULL)));
}
Test(jail, no_other_processes)
{
    struct iovec v = {&v, 1};
    cr_expect(is_forbidden(kill(getppid(), SIGTERM)));
    cr_expect(is_forbidden(kill(getpid(), 0)));
    cr_expect(is_forbidden(syscall(SYS_tgkill, getppid(), getppid(), SIGTERM)));
    cr_expect(is_forbidden(syscall(SYS_tgkill, getppid(), getppid(), 0)));
    cr_expect(is_forbidden(syscall(SYS_process_vm_readv, getppid(), &v, 1, &v, 1, 0)));
    cr_expect(is_forbidden(syscall(SYS_pidfd_open, getppid(), 0)));
}
Test(jail, no_connections)
{
    cr_expect(is_forbidden(socket(AF_INET, SOCK_STREAM, 0)));
    cr_expect(is_forbidden(socket(AF_UNIX, SOCK_DGRAM, 0)));
    cr_expect(is_forbidden(connect(0, NULL, 0)));
}
Test(jail, no_new_code)
{
    void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(p, MAP_FAILED);
    cr_expect(is_forbidden(mprotect(p, 4096, PROT_READ | PROT_EXEC)));
    cr_expect(is_forbidden((long)mmap(NULL, 4096, PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)));
    cr_expect(is_forbidden(syscall(SYS_pkey_mprotect, p, 4096, PROT_EXEC, -1)));
    cr_expect_eq(mprotect(p, 4096, PROT_READ), 0);
    cr_expect_eq(munmap(p, 4096), 0);
}
Test(jail, no_typing_into_the_terminal) { cr_expect(is_forbidden(ioctl(0, TIOCSTI, "x"))); }
Test(jail, nothing_of_the_32_bit_kind)
{
    long r;
    __asm__ volatile("int $0x80" : "=a"(r) : "a"(20) : "memory"); /* getpid */
    cr_expect_eq(r, -EPERM);
    cr_expect(is_forbidden(syscall(0x40000000 | SYS_getpid)));
}

static void *thread(void *arg)
{
    *(int *)arg = is_forbidden(open("/dev/null", O_RDONLY));
    return NULL;
}
Test(jail, threads_pipes_memory_and_signals_work)
{
    pthread_t t;
    int caught = 0, fd[2];
    char c = 0;
    cr_assert_eq(pthread_create(&t, NULL, thread, &caught), 0);
    pthread_join(t, NULL);
    cr_expect(caught, "a new thread is not confined");
    cr_assert_eq(pipe2(fd, O_CLOEXEC), 0);
    cr_expect_eq(write(fd[1], "x", 1), 1);
    cr_expect_eq(read(fd[0], &c, 1), 1);
    signal(SIGUSR1, SIG_IGN);
    cr_expect_eq(pthread_kill(pthread_self(), SIGUSR1), 0);
    void *big = malloc(64 << 20);
    cr_expect(big);
    free(big);
}
