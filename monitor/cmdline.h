/* monitor/cmdline.h - the command line, in QEMU's spelling, as one plain struct.
 *
 * Role:    knows every option of options.def: parses all of them, and refuses by name what the machine does not have yet.
 *          Opens, creates and starts nothing; resolves QEMU's defaults (what -nographic means for the serial port).
 * Owner:   the caller: cmdline_free, also after an error. Strings point into argv or live until then.
 * Errors:  0, or the exit status 2 after one line on err that names the culprit.
 */
#ifndef MONITOR_CMDLINE_H
#define MONITOR_CMDLINE_H
#include "base/props.h"
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* What main has to do; all but RUN: cmdline_print_info, then end with status 0. */
enum cmdline_action {
    CMDLINE_RUN,
    CMDLINE_HELP,
    CMDLINE_VERSION,
    CMDLINE_MACHINE_HELP,
    CMDLINE_CPU_HELP,
    CMDLINE_ACCEL_HELP,
    CMDLINE_DEVICE_HELP, /* topic = NULL, or the device whose properties are asked for */
    CMDLINE_LOG_HELP,
    CMDLINE_CHECK_HELP
};
enum engine { ENGINE_BT, ENGINE_TRAP };
enum user_mode { USER_AUTO, USER_DIRECT, USER_TRANSLATED };

struct cmdline_engine {
    enum engine engine;
    const char *asked; /* the name that was taken: "bt", "kvm" ...; NULL if none was given */
    int window;        /* 0, 1, or -1: not said */
    enum user_mode user;
    bool adapt, chain;
    uint64_t tc_bytes;  /* 0 = default */
    uint64_t max_insns; /* the rest as in struct vm_config (monitor/engine.h) */
    uint64_t evict_random;
    uint64_t force_exit;
    bool account, count;
    uint64_t seed;
    uint64_t check_shadow, check_tc, check_sabotage; /* -check; 0: off */
};

/* Where a serial port or the like is connected. */
enum chr_kind {
    CHR_NONE, /* the port itself is not there */
    CHR_NULL,
    CHR_STDIO,
    CHR_VC, /* a text window; there is no display: as null */
    CHR_PTY,
    CHR_FILE, /* path */
    CHR_PIPE, /* path.in and path.out, or path */
    CHR_TTY,  /* path of a terminal device */
    CHR_UNIX, /* path */
    CHR_TCP,  /* host (NULL: any), port */
    CHR_REF   /* id of a -chardev; the parser has resolved it, users do not see this */
};
struct chr_spec {
    enum chr_kind kind;
    bool mux;    /* shares the terminal with the monitor: Ctrl-a keys */
    bool server; /* sockets: listen */
    bool wait;   /* ... and wait for the peer before the guest starts */
    bool signal; /* stdio: Ctrl-c ends the program */
    bool append; /* files: do not truncate */
    bool logappend;
    const char *id; /* of the -chardev, or NULL */
    const char *path, *host, *port;
    const char *logfile;
    const char *opt, *text; /* as written, for messages; opt is NULL for a default */
};
struct chr_list {
    struct chr_spec *v;
    unsigned n;
};

/* One option with an argument that makes a thing. */
struct cmdline_item {
    const char *opt, *text; /* "-drive", and its argument as written */
    struct props props;
};
struct cmdline_list {
    struct cmdline_item *v;
    unsigned n;
};

/* What was asked for and is not done as asked: the status column of options.def. */
enum cmdline_status { CMDLINE_OK, CMDLINE_WARN, CMDLINE_STRICT, CMDLINE_REFUSED };
struct cmdline_note {
    enum cmdline_status status;
    const char *what, *why;
};

struct cmdline {
    enum cmdline_action action;
    const char *topic;
    const char *prog; /* name of the program, for messages */

    uint64_t mem_bytes;
    unsigned cpus;
    const char *machine;
    struct cmdline_list machine_opts, globals, smbios, numa, fw_cfg, objects, overcommit;
    const char *cpu_model;  /* "host", "max", "qemu64", "kvm64", or another of QEMU's */
    const char *cpu_spec;   /* the same as cpumodel_create takes it: what can be had of it; NULL: host */
    struct props cpu_props; /* every feature asked for: key = name without + or -, value "on", "off" or as written */
    struct cmdline_engine engine;
    const char *uuid, *name, *mem_path, *keymap, *firmware_dir, *watchdog;
    struct cmdline_list rtc, watchdog_action, tpmdevs, usbdevices, audiodevs;
    bool nodefaults, no_user_config, strict, mem_prealloc, no_hpet, no_acpi, no_fd_bootchk, usb;
    struct cmdline_list devices; /* props "driver" and those of the device */

    unsigned kernel_entry; /* 16, 32 or 64 bits; 0: the loader chooses */
    const char *kernel, *append, *initrd, *dtb, *bios;
    struct cmdline_list option_roms, boot;

    struct cmdline_list drives, blockdevs, drive_paths, fsdevs, virtfs, netdevs;
    bool snapshot;

    struct chr_list chardevs, serial, monitor, debugcon, qmp, gdb;
    bool nographic, curses, full_screen;
    const char *vnc, *spice;
    const char *display; /* "none" or NULL */
    unsigned echr;       /* terminal escape character, 1 = Ctrl-a */

    bool no_reboot, no_shutdown; /* also from -action */
    const char *action_panic, *action_watchdog;
    bool start_stopped, gdb_default, daemonize;
    const char *pidfile, *runas, *chroot_dir, *incoming, *loadvm, *icount, *readconfig, *plugin;
    struct cmdline_list msg;
    bool confine; /* -sandbox on */

    uint32_t log_mask;
    const char *log_file, *stats_file, *trace_file;

    struct cmdline_note *notes;
    unsigned n_notes;
    struct cmdline_mem *mem; /* what cmdline_free gives back */
};

/* Parses and checks: cmdline_scan, then cmdline_check. */
int cmdline_parse(struct cmdline *out, int argc, char **argv, FILE *err);
/* Only parses: a well-formed line of any known options gives 0, and notes[] says what is not there. */
int cmdline_scan(struct cmdline *out, int argc, char **argv, FILE *err);
/* Refuses what is not there (first such note), warns of what has no effect. */
int cmdline_check(const struct cmdline *c, FILE *err);
void cmdline_free(struct cmdline *c);
/* The -chardev of that id (a device's property may name one), or NULL. */
const struct chr_spec *cmdline_chardev(const struct cmdline *c, const char *id);
/* The text of -help, -version, -device help ... */
void cmdline_print_info(const struct cmdline *c, FILE *out);
#endif
