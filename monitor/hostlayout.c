/* monitor/hostlayout.c - see hostlayout.h. */
#include "monitor/hostlayout.h"
#include "shadowmmu/window.h"
#include <stdint.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <unistd.h>

#define TRIES_VARIABLE "RINGDOWN_LAYOUT_TRIES"
#define MAX_TRIES 20 /* leaves one start in 8^20 without a window */
#define STACK_BYTES (8u << 20)
#define HOST(guest) (WINDOW64_BASE + (guest)) /* wraps: the guest's upper half is the host's lower half */

/* What Linux has in its last 2 GiB: image, then modules from the bottom up; at the end the fixmap and the vsyscall page. */
static const struct {
    uint64_t first, end;
} needed[] = {
    {HOST(0xffffffff80000000ull), HOST(0xfffffffff0000000ull)},
    {HOST(0xffffffffff000000ull), HOST(0xffffffffff700000ull)},
};

static bool is_clear(uint64_t first, uint64_t end)
{
    for (unsigned i = 0; i < sizeof needed / sizeof needed[0]; i++)
        if (first < needed[i].end && end > needed[i].first)
            return false;
    return true;
}

bool hostlayout_ok(void)
{
    uint64_t stack = getauxval(AT_EXECFN); /* its highest string */
    uint64_t vdso = getauxval(AT_SYSINFO_EHDR);
    return is_clear(stack - STACK_BYTES, stack + 4096) && is_clear(vdso - 65536, vdso + 65536);
}

void hostlayout_settle(char **argv)
{
    const char *before = getenv(TRIES_VARIABLE);
    long tries = before ? strtol(before, NULL, 10) : 0;
    if (!hostlayout_ok() && tries >= 0 && tries < MAX_TRIES) {
        char count[8] = {(char)('0' + (tries + 1) / 10), (char)('0' + (tries + 1) % 10)};
        setenv(TRIES_VARIABLE, count, 1);
        execv("/proc/self/exe", argv);
        execv((const char *)getauxval(AT_EXECFN), argv); /* without /proc; what fails is no worse than before */
    }
    unsetenv(TRIES_VARIABLE);
}
