#include "base/log.h"
#include "monitor/cmdline_int.h"
#include <string.h>

/* The version of QEMU whose command line this is: tools read it from the first line and decide by it what to pass. */
#define QEMU_VERSION "7.2.0"

static void print_version(FILE *out)
{
    fprintf(out, "QEMU emulator version " QEMU_VERSION " (ringdown " RD_VERSION ")\n");
    fprintf(out, "This is Ringdown, a virtual machine monitor of its own that takes QEMU's command line.\n");
}

static void print_options(FILE *out)
{
    for (const struct option_desc *o = cmdline_options; o->name; o++) {
        char left[120];
        const char *none = o->status == CMDLINE_WARN ? " (no effect yet)" : "";
        if (o->status == CMDLINE_REFUSED)
            continue;
        int n = snprintf(left, sizeof left, "-%s%s%s", o->name, o->argument ? " " : "", o->argument ? o->argument : "");
        /* QEMU's layout: text from column 17, on a line of its own if the option is long. */
        if (n > 15)
            fprintf(out, "%s\n%16s%s%s\n", left, "", o->help, none);
        else
            fprintf(out, "%-16s%s%s\n", left, o->help, none);
    }
}

static void print_refused(FILE *out)
{
    unsigned column = 80;
    fprintf(out, "\nNot supported in this version, and refused by name:");
    for (const struct option_desc *o = cmdline_options; o->name; o++) {
        if (o->status != CMDLINE_REFUSED)
            continue;
        if (column + strlen(o->name) > 72)
            column = (unsigned)fprintf(out, "\n ") - 1;
        column += (unsigned)fprintf(out, " -%s", o->name);
    }
    fputc('\n', out);
}

static void print_help(const struct cmdline *c, FILE *out)
{
    print_version(out);
    fprintf(out, "usage: %s [options] -kernel FILE\n\nStandard options:\n", c->prog);
    print_options(out);
    print_refused(out);
}

static void print_machines(FILE *out)
{
    fprintf(out, "Supported machines are:\n");
#define MACHINE(name, status, help) fprintf(out, "%-20s %s\n", name, help);
#include "monitor/options.def"
    fprintf(out, "Properties that matter:\n"
                 "kernel-entry=auto|16|32|64  at which of its entry points the kernel is started\n"
                 "hpet=on|off                 whether there is an HPET\n");
}

static void print_cpus(FILE *out)
{
    fprintf(out, "Available CPUs:\n");
#define CPU_MODEL(name, status, help)                                                                                  \
    if (CMDLINE_##status == CMDLINE_OK)                                                                                \
        fprintf(out, "x86 %-21s %s\n", name, help ? help : "");
#include "monitor/options.def"
    fprintf(out, "Other model names of QEMU's are taken for 'host', with a warning.\n");
}

static void print_engines(FILE *out)
{
    fprintf(out, "Accelerators supported:\n");
#define ENGINE(name, status, engine, help)                                                                             \
    if (CMDLINE_##status != CMDLINE_REFUSED)                                                                           \
        fprintf(out, "%s\n", name);
#include "monitor/options.def"
    fprintf(out, "\nWhat they are:\n");
#define ENGINE(name, status, engine, help)                                                                             \
    if (CMDLINE_##status != CMDLINE_REFUSED)                                                                           \
        fprintf(out, "  %-14s %s\n", name, help);
#include "monitor/options.def"
    fprintf(out, "\nProperties:\n");
#define ENGINE_PROP(name, kind, field, now, help) fprintf(out, "  %-14s %s\n", name, help);
#include "monitor/options.def"
}

static void print_devices(FILE *out)
{
#define DEVICE(name, status, bus, props, help)                                                                         \
    if (CMDLINE_##status == CMDLINE_OK)                                                                                \
        fprintf(out, "name \"%s\", bus %s, desc \"%s\"\n", name, bus, help);
#include "monitor/options.def"
}

static void print_device_props(const char *topic, FILE *out)
{
    const char *names = "";
#define DEVICE(name, status, bus, props, help)                                                                         \
    if (!strcmp(name, topic) && props)                                                                                 \
        names = props;
#include "monitor/options.def"
    fprintf(out, "%s options:\n", topic);
    for (size_t n; *names; names += n + (names[n] == ' ')) {
        n = strcspn(names, " ");
        fprintf(out, "  %.*s=\n", (int)n, names);
    }
}

void cmdline_print_info(const struct cmdline *c, FILE *out)
{
    switch (c->action) {
    case CMDLINE_RUN: break;
    case CMDLINE_HELP: print_help(c, out); break;
    case CMDLINE_VERSION: print_version(out); break;
    case CMDLINE_MACHINE_HELP: print_machines(out); break;
    case CMDLINE_CPU_HELP: print_cpus(out); break;
    case CMDLINE_ACCEL_HELP: print_engines(out); break;
    case CMDLINE_DEVICE_HELP: c->topic ? print_device_props(c->topic, out) : print_devices(out); break;
    case CMDLINE_LOG_HELP: log_list(out); break;
    case CMDLINE_CHECK_HELP:
        fprintf(out, "What can be checked:\n"
                     "  shadow[=N]   window, soft TLB and user worlds against the guest's page tables; a full walk\n"
                     "               once in N flushes (64)\n"
                     "  tc[=N]       the translation cache, once in N turns of the run loop (20000)\n"
                     "  sabotage=N   with shadow: leave out the Nth INVLPG that matters, to see it found\n");
        break;
    }
}
