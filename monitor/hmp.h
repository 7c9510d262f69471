/* monitor/hmp.h - a small human monitor: the prompt behind Ctrl-a c, or on a -monitor of its own.
 *
 * Role:     reads lines from a character stream, answers them on it. Everything that changes the machine goes through machine.h's
 *           requests. Words and layout are QEMU's where a script may look for them ("(qemu) ", "VM status: running", "RIP=").
 * Owner:    hmp_create/hmp_destroy; the stream is the caller's and is closed before hmp_destroy.
 * Threads:  machine thread, from the event loop.
 */
#ifndef MONITOR_HMP_H
#define MONITOR_HMP_H

struct chardev;
struct hmp;
struct machine;

/* 0, -RD_E_NOMEM, or -RD_E_BUSY: the stream has no room for another user. */
int hmp_create(struct hmp **out, struct chardev *chr, struct machine *m);
void hmp_destroy(struct hmp *h);
#endif
