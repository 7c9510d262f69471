/* monitor/machine_int.h - private to machine.c (life), machine_make.c (construction) and machine_chr.c (consoles). */
#ifndef MONITOR_MACHINE_INT_H
#define MONITOR_MACHINE_INT_H
#include "devices/board_pc.h"
#include "monitor/boot.h"
#include "monitor/cmdline.h"
#include "monitor/engine.h"
#include "monitor/hmp.h"
#include "monitor/machine.h"
#include "monitor/vcpu.h"

#define MACHINE_MAX_CHARDEVS 16
#define MACHINE_MAX_HMPS 8
#define MACHINE_MAX_FILES 64

struct machine_chardev {
    const char *id; /* of the -chardev, or NULL */
    struct chardev *chr;
    unsigned users;
};
struct machine {
    const struct cmdline *c;
    struct evloop *loop;
    struct vm *vm;
    struct vcpu *v;
    struct board_pc board;
    bool board_made;
    struct boot_range map[5];
    unsigned n_map;
    struct machine_chardev chardev[MACHINE_MAX_CHARDEVS];
    unsigned n_chardevs;
    struct hmp *hmp[MACHINE_MAX_HMPS];
    unsigned n_hmps;
    FILE *stats;
    uint64_t start_ns;    /* CLOCK_MONOTONIC */
    struct machine_file { /* -sandbox on: what was booted, for the next reset */
        char *name;
        int fd;
    } file[MACHINE_MAX_FILES];
    unsigned n_files;
    bool pidfile_written;
    /* -- requests -- */
    volatile bool quit; /* also from signal handlers */
    volatile int quit_status, quit_signal;
    bool guest_reset, guest_off, user_reset, ended;
    enum board_reset_cause reset_cause;
    int status; /* once ended */
    /* -- state -- */
    bool paused;
    const char *paused_why; /* NULL: by the user */
    bool told_triple_fault;
};

/* "ringdown: ..." on stderr. Returns the exit status 1. */
int machine_fail(const struct machine *m, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* machine_make.c: 0, or the exit status after the line on stderr. What was made is machine_unmake's also then. */
int machine_make(struct machine *m);
void machine_unmake(struct machine *m);
/* Power-on or reset: chips, CPU, firmware's leavings, kernel. */
int machine_start(struct machine *m);

/* machine_jail.c: -sandbox */
/* Opens a boot file; in a sandbox it stays open for later resets. */
int machine_open_file(void *machine, const char *name);
/* Everything is made: shuts the door if it was asked for. As machine_make. */
int machine_confine(struct machine *m);
void machine_close_files(struct machine *m);

/* machine_chr.c */
/* Opens what a spec names, or finds it open. *out = NULL for none and null. Returns as machine_make. */
int machine_open_chr(struct machine *m, const struct chr_spec *s, const char *label, struct chardev **out);
int machine_open_monitors(struct machine *m);
void machine_start_chrs(struct machine *m);
void machine_close_chrs(struct machine *m);
#endif
