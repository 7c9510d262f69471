/* shadowmmu/hostcall.h - the few host system calls that nofpu code and signal handlers make: bare, without the C library, which
 * may use vector registers and errno. Results as the kernel gives them: an address, 0, or minus an errno. */
#ifndef SHADOWMMU_HOSTCALL_H
#define SHADOWMMU_HOSTCALL_H
#include <stdint.h>
#include <sys/syscall.h>

static inline int64_t hostcall6(int64_t nr, int64_t a, int64_t b, int64_t c, int64_t d, int64_t e, int64_t f)
{
    register int64_t r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
    int64_t ret;
    __asm__ volatile("syscall"
                     : "=a"(ret)
                     : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return ret;
}
static inline int64_t host_mmap(uint64_t at, uint64_t bytes, int prot, int flags, int fd, uint64_t offset)
{
    return hostcall6(SYS_mmap, (int64_t)at, (int64_t)bytes, prot, flags, fd, (int64_t)offset);
}
static inline int64_t host_munmap(uint64_t at, uint64_t bytes)
{
    return hostcall6(SYS_munmap, (int64_t)at, (int64_t)bytes, 0, 0, 0, 0);
}
static inline int64_t host_mprotect(uint64_t at, uint64_t bytes, int prot)
{
    return hostcall6(SYS_mprotect, (int64_t)at, (int64_t)bytes, prot, 0, 0, 0);
}
static inline int64_t host_madvise(uint64_t at, uint64_t bytes, int advice)
{
    return hostcall6(SYS_madvise, (int64_t)at, (int64_t)bytes, advice, 0, 0, 0);
}
static inline int host_mmap_failed(int64_t r) { return r < 0 && r > -4096; }
#endif
