/* tests/user/guest/churn.c - processes come and go: churn N MS. Each of N children uses memory, computes for MS milliseconds, and
 * every other one runs itself again by exec. Up to four at a time. Exit status 0 if all did what they should. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int work(unsigned ms)
{
    enum { BYTES = 1 << 20 };
    volatile uint8_t *p = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return 1;
    volatile uint64_t x = 1;
    for (uint64_t end = now_ns() + ms * 1000000ull; now_ns() < end;)
        for (int i = 0; i < 200000; i++)
            x = x * 6364136223846793005ull + 1;
    for (size_t i = 0; i < BYTES; i += 8192)
        p[i] = (uint8_t)i;
    for (size_t i = 0; i < BYTES; i += 4096)
        if (p[i] != (i % 8192 ? 0 : (uint8_t)i))
            return 1;
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "work"))
        return work((unsigned)atoi(argv[2]));
    if (argc != 3)
        return 2;
    int n = atoi(argv[1]), running = 0, bad = 0;
    for (int i = 0; i < n || running; i++) {
        int status;
        if (i < n) {
            pid_t child = fork();
            if (child == 0 && i % 2)
                execl("/proc/self/exe", "churn", "work", argv[2], NULL);
            if (child == 0)
                _exit(work((unsigned)atoi(argv[2])));
            running += child > 0;
            bad += child < 0;
        }
        if (running == 4 || i >= n) {
            if (wait(&status) > 0)
                running--;
            bad += status != 0;
        }
    }
    if (bad)
        printf("churn: %d of %d went wrong\n", bad, n);
    return bad != 0;
}
