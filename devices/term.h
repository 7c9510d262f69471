/* devices/term.h - raw mode of the controlling terminal, and its restoration on every way out.
 *
 * Role:     the terminal is the process's, so this is the one module with process-wide state. While raw, exit() and the usual fatal
 *           signals restore it (handlers are installed only where the disposition was the default; they run on the
 *           alternate stack, restore, and let the signal do what it would have done). Stop and continue are handled.
 *           A program that installs its own handlers calls term_restore from them.
 * Background: a process that is not in the terminal's foreground group changes nothing; it does so when continued in it.
 * Signals:  term_restore is async-signal-safe.
 */
#ifndef DEVICES_TERM_H
#define DEVICES_TERM_H
#include <stdbool.h>

/* fd is not a terminal: nothing happens. keep_signals: Ctrl-C, Ctrl-\ and Ctrl-Z still act on this process. */
void term_raw(int fd, bool keep_signals);
/* Back to what it was before term_raw; raw mode is over. Idempotent. */
void term_restore(void);
#endif
