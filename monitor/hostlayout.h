/* monitor/hostlayout.h - keeps the program's own stack out of the addresses that the 64-bit kernel window needs most.
 *
 * The window puts the guest's last 2 GiB (a Linux kernel's image, modules and fixmap) on the host's last 2 GiB, and the host puts
 * stacks at a random place in its last 16 GiB: in one start of eight they meet, and what the guest's kernel then reads and writes
 * without a fault may be our stack.
 */
#ifndef MONITOR_HOSTLAYOUT_H
#define MONITOR_HOSTLAYOUT_H
#include <stdbool.h>

/* First thing in main: starts the program again, as often as needed, until the kernel has put the stack elsewhere. Returns then, or
 * when that cannot be had. */
void hostlayout_settle(char **argv);
/* Is the window's end of the address space free of what the kernel put there at start? */
bool hostlayout_ok(void);
#endif
