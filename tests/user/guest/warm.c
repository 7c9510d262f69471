/* tests/user/guest/warm.c - children that follow one another closely: for warm.sh, which looks at the counters.
 *
 * usage: warm CHILDREN. Each child gets a world in which another one's pages may still be mapped. It must find its parent's memory as it was at
 * the fork and nothing of the children before it, must fault where its parent has no access any more, and its writes must not reach the parent.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096
#define PAGES 24

static sigjmp_buf back;
static volatile uint8_t *mem; /* page i: written by the parent before fork n if n % 3 == i % 3 */

static void on_fault(int sig) { siglongjmp(back, 1); }

static int faults(volatile uint8_t *p, int write)
{
    if (sigsetjmp(back, 1))
        return 1;
    if (write)
        *p = 0x77;
    else
        (void)*p;
    return 0;
}

static uint8_t value(unsigned page, unsigned n) { return (uint8_t)(page * 5 + n * 3 + 1); }

/* Protection of pages 20 to 23 at fork n: each comes and goes. */
static int protection(unsigned page, unsigned n)
{
    static const int all[] = {PROT_READ | PROT_WRITE, PROT_READ, PROT_NONE, PROT_READ | PROT_WRITE};
    return all[(page + n) % 4];
}

static int child(unsigned n, const uint8_t *expected)
{
    for (unsigned i = 0; i < PAGES; i++) {
        int prot = i < 20 ? PROT_READ | PROT_WRITE : protection(i, n);
        volatile uint8_t *p = mem + i * PAGE;
        if (faults(p, 0) != !(prot & PROT_READ))
            return 1;
        if ((prot & PROT_READ) && *p != expected[i])
            return 2;
        if (i % 2 && faults(p, 1) != !(prot & PROT_WRITE))
            return 3;
        if (i % 2 && (prot & PROT_WRITE) && *p != 0x77)
            return 4;
    }
    return 0;
}

int main(int argc, char **argv)
{
    unsigned children = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 0) : 100;
    static uint8_t expected[PAGES];
    signal(SIGSEGV, on_fault);
    mem = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mem == MAP_FAILED || madvise((void *)mem, PAGES * PAGE, MADV_NOHUGEPAGE))
        return 1;
    for (unsigned n = 0; n < children; n++) {
        mprotect((void *)mem, PAGES * PAGE, PROT_READ | PROT_WRITE);
        for (unsigned i = 0; i < PAGES; i++)
            if (i % 3 == n % 3)
                mem[i * PAGE] = expected[i] = value(i, n);
        for (unsigned i = 20; i < PAGES; i++)
            mprotect((void *)(mem + i * PAGE), PAGE, protection(i, n));
        int status;
        pid_t pid = fork();
        if (pid == 0)
            _exit(child(n, expected));
        if (pid < 0 || waitpid(pid, &status, 0) != pid || status) {
            printf("warm: child %u: status %x\n", n, (unsigned)status);
            return 1;
        }
        for (unsigned i = 0; i < 20; i++)
            if (mem[i * PAGE] != expected[i]) {
                printf("warm: a child's write reached its parent (page %u)\n", i);
                return 1;
            }
    }
    printf("warm: %u children\n", children);
    return 0;
}
