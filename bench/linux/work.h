/* bench/linux/work.h - one piece of work in a Linux user process. */
#ifndef BENCH_LINUX_WORK_H
#define BENCH_LINUX_WORK_H
#include <stdint.h>

struct work {
    const char *name;
    void (*run)(uint64_t n); /* n operations */
    void (*open)(void);      /* before the first run; may be null */
    void (*close)(void);     /* after the last; may be null */
    uint64_t (*check)(void); /* a result that must be the same everywhere; may be null */
};
extern const struct work user_works[], memory_works[], system_works[], process_works[], switch_works[], network_works[];
extern const struct work avx_works[]; /* for CPUs with AVX2 and FMA */

extern const char *work_dir;     /* a directory on tmpfs */
extern const char *work_busybox; /* BusyBox, for shells */
_Noreturn void work_die(const char *what);
#endif
