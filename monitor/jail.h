/* monitor/jail.h - -sandbox on: what this process may still ask of the host once the guest runs.
 *
 * Role:    a seccomp filter for all threads: memory without execution rights, time, threads, signals to itself, and reading and
 *          writing what is open already. No files, programs, processes, connections, debugging. For guests whose kernel is not
 *          trusted: one that gets hold of the monitor through the 64-bit window (docs/WINDOW.md) is held here.
 * Threads: jail_enter catches all threads that are there; new ones inherit. It cannot be undone.
 */
#ifndef MONITOR_JAIL_H
#define MONITOR_JAIL_H

/* 0, or -RD_E_UNSUPPORTED: the host's kernel will not have it. */
int jail_enter(void);
#endif
