/* monitor/machine.h - the machine of the command line: engine, board, consoles and loader put together, and run.
 *
 * Role:     makes everything that a struct cmdline asks for, runs the guest, and decides how it all ends. The board says what the
 *           guest did (reset, power-off ...), the monitor's prompt and signals say what the user wants; both only leave a request
 *           here, which the run loop serves when the vCPU has come back.
 * Threads:  the calling thread becomes the machine thread. machine_quit, and nothing else, may be called from a signal handler.
 * Errors:   one line on stderr and the exit status (docs: 1 the machine cannot be made or failed; 2 usage is cmdline's).
 */
#ifndef MONITOR_MACHINE_H
#define MONITOR_MACHINE_H
#include <stdbool.h>
#include <stdint.h>

struct board_pc;
struct chr_spec;
struct cmdline;
struct machine;
struct vcpu;

/* Returns the program's exit status. */
int machine_main(const struct cmdline *c);

/* -- requests; served by the run loop -- */
/* Ends the program with this status. Async-signal-safe. */
void machine_quit(struct machine *m, int status);
void machine_request_reset(struct machine *m);
void machine_power_button(struct machine *m);
void machine_nmi(struct machine *m);
void machine_stop(struct machine *m);
void machine_continue(struct machine *m);

/* -- what the monitor's prompt shows -- */
bool machine_is_running(const struct machine *m);
const char *machine_status(const struct machine *m); /* "running", "paused", "paused (shutdown)" ... */
struct vcpu *machine_vcpu(struct machine *m);
struct board_pc *machine_board(struct machine *m);
#endif
