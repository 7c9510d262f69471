/* tests/user/guest/paging.c - memory that is touched for the first time, page by page: for paging.sh, which looks at the counters.
 *
 * usage: paging PAGES. Reads all pages of a new mapping (they are all the kernel's page of zeros), writes to all (each becomes one of its
 * own, and the old entry is taken out of the TLB), and looks at what they hold.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#define PAGE 4096

static int bad(const char *what, size_t page)
{
    printf("paging: %s (page %zu)\n", what, page);
    return 1;
}

int main(int argc, char **argv)
{
    size_t pages = argc > 1 ? strtoul(argv[1], NULL, 0) : 1000;
    volatile uint64_t *p = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED || madvise((void *)p, pages * PAGE, MADV_NOHUGEPAGE))
        return bad("no memory", 0);
    for (size_t i = 0; i < pages; i++)
        if (p[i * PAGE / 8] != 0)
            return bad("a new page is not zero", i);
    for (size_t i = 0; i < pages; i++)
        p[i * PAGE / 8 + 1] = ~i;
    for (size_t i = 0; i < pages; i++)
        if (p[i * PAGE / 8] != 0 || p[i * PAGE / 8 + 1] != ~i)
            return bad("a page does not hold what was written", i);
    printf("paging: %zu pages\n", pages);
    return 0;
}
