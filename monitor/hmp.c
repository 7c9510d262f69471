#include "monitor/hmp.h"
#include "arch/x86_arch.h"
#include "base/err.h"
#include "devices/board_pc.h"
#include "devices/bus.h"
#include "monitor/engine.h"
#include "monitor/machine.h"
#include "monitor/vcpu.h"
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_BYTES = 256, OUT_BYTES = 64 * 1024 };
struct hmp {
    struct machine *m;
    struct chardev_user *chr;
    bool greeted, multiplexed;
    char line[LINE_BYTES];
    unsigned len;
    bool skip_lf; /* the carriage return of a CR LF pair has been taken */
    /* what the stream has not taken yet */
    char out[OUT_BYTES];
    size_t out_len;
};

/* ---- output ---- */

static void drain(struct hmp *h)
{
    size_t n = chardev_write(h->chr, h->out, h->out_len);
    h->out_len -= n;
    memmove(h->out, h->out + n, h->out_len);
}

static void emit(struct hmp *h, const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (h->out_len + 2 > sizeof h->out)
            return; /* a reader that has stopped reading gets no more than this */
        if (text[i] == '\n')
            h->out[h->out_len++] = '\r';
        h->out[h->out_len++] = text[i];
    }
}

static void say(struct hmp *h, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(struct hmp *h, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (n > 0)
        emit(h, text, (size_t)n < sizeof text ? (size_t)n : sizeof text - 1);
}

static void prompt(struct hmp *h) { say(h, "(qemu) "); }

static void greet(struct hmp *h)
{
    if (!h->greeted)
        say(h, "Ringdown %s monitor - type 'help' for more information\n", RD_VERSION);
    h->greeted = true;
    h->len = 0;
    prompt(h);
    drain(h);
}

/* ---- info ---- */

static void show_segment(struct hmp *h, const char *name, const struct seg *s)
{
    say(h, "%-3s=%04x %016" PRIx64 " %08x %05x\n", name, s->sel, s->base, s->limit, s->attr);
}

static void info_registers(struct hmp *h, const char *arg)
{
    static const char *const gpr[16] = {"RAX", "RBX", "RCX", "RDX", "RSI", "RDI", "RBP", "RSP",
                                        "R8 ", "R9 ", "R10", "R11", "R12", "R13", "R14", "R15"};
    static const uint8_t number[16] = {R_RAX, R_RBX, R_RCX, R_RDX, R_RSI, R_RDI, R_RBP, R_RSP,
                                       8,     9,     10,    11,    12,    13,    14,    15};
    static const char *const segs[] = {"ES", "CS", "SS", "DS", "FS", "GS", "LDT", "TR"};
    struct cpu c;
    vcpu_get_state(machine_vcpu(h->m), &c);
    uint32_t f = cpu_get_eflags(&c);
    for (unsigned i = 0; i < 16; i++)
        say(h, "%s=%016" PRIx64 "%s", gpr[i], c.gpr[number[i]], i % 4 == 3 ? "\n" : " ");
    say(h, "RIP=%016" PRIx64 " RFL=%08x [%c%c%c%c%c%c%c] CPL=%d HLT=%d\n", c.rip, f, f & EFLAGS_DF ? 'D' : '-',
        f & EFLAGS_OF ? 'O' : '-', f & EFLAGS_SF ? 'S' : '-', f & EFLAGS_ZF ? 'Z' : '-', f & EFLAGS_AF ? 'A' : '-',
        f & EFLAGS_PF ? 'P' : '-', f & EFLAGS_CF ? 'C' : '-', c.cpl, machine_vcpu(h->m)->halted);
    for (unsigned i = 0; i < S_COUNT; i++)
        show_segment(h, segs[i], &c.seg[i]);
    say(h, "GDT=     %016" PRIx64 " %08x\nIDT=     %016" PRIx64 " %08x\n", c.gdtr.base, c.gdtr.limit, c.idtr.base,
        c.idtr.limit);
    say(h, "CR0=%08x CR2=%016" PRIx64 " CR3=%016" PRIx64 " CR4=%08x\n", (uint32_t)c.cr0, c.cr2, c.cr3, (uint32_t)c.cr4);
    say(h, "DR0=%016" PRIx64 " DR1=%016" PRIx64 " DR2=%016" PRIx64 " DR3=%016" PRIx64 "\n", c.dr[0], c.dr[1], c.dr[2],
        c.dr[3]);
    say(h, "DR6=%016" PRIx64 " DR7=%016" PRIx64 "\nEFER=%016" PRIx64 "\n", c.dr[6], c.dr[7], c.efer);
}

static void info_status(struct hmp *h, const char *arg) { say(h, "VM status: %s\n", machine_status(h->m)); }
static void info_version(struct hmp *h, const char *arg) { say(h, "7.2.0 (Ringdown %s)\n", RD_VERSION); }

/* Prints what a function writes to a FILE. */
static void show_file(struct hmp *h, void (*dump)(struct hmp *h, FILE *f))
{
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    if (!f)
        return;
    dump(h, f);
    if (!fclose(f))
        emit(h, text, n);
    free(text);
}

static void dump_pic(struct hmp *h, FILE *f) { pic_dump(&machine_board(h->m)->pic, f); }
static void dump_lapic(struct hmp *h, FILE *f) { lapic_dump(&machine_board(h->m)->lapic, f); }
static void dump_board(struct hmp *h, FILE *f) { board_pc_dump(machine_board(h->m), f); }
static void info_pic(struct hmp *h, const char *arg) { show_file(h, dump_pic); }
static void info_lapic(struct hmp *h, const char *arg) { show_file(h, dump_lapic); }
static void info_mtree(struct hmp *h, const char *arg) { show_file(h, dump_board); }

/* ---- commands ---- */

struct command {
    const char *name, *help;
    void (*fn)(struct hmp *h, const char *arg);
};
static const struct command infos[] = {
    {"lapic", "the local interrupt controller and its timer", info_lapic},
    {"mtree", "the machine's parts, and who decodes which ports and addresses", info_mtree},
    {"pic", "the 8259 interrupt controllers", info_pic},
    {"registers", "the CPU's registers", info_registers},
    {"status", "whether the guest runs", info_status},
    {"version", "the version of this program", info_version},
};

static void list(struct hmp *h, const char *prefix, const struct command *c, size_t n)
{
    for (size_t i = 0; i < n; i++)
        say(h, "%s%-18s -- %s\n", prefix, c[i].name, c[i].help);
}

static bool dispatch(struct hmp *h, const struct command *table, size_t n, const char *line)
{
    size_t word = strcspn(line, " ");
    for (size_t i = 0; i < n; i++)
        for (const char *name = table[i].name; *name; name += strcspn(name, "|") + (name[strcspn(name, "|")] == '|')) {
            if (strcspn(name, "|") != word || memcmp(name, line, word))
                continue;
            const char *arg = line + word;
            table[i].fn(h, arg + strspn(arg, " "));
            return true;
        }
    return false;
}

static void cmd_info(struct hmp *h, const char *arg)
{
    size_t n = sizeof infos / sizeof infos[0];
    if (!*arg)
        list(h, "info ", infos, n);
    else if (!dispatch(h, infos, n, arg))
        say(h, "info: there is nothing known about '%s'\n", arg);
}

static void cmd_quit(struct hmp *h, const char *arg) { machine_quit(h->m, 0); }
static void cmd_reset(struct hmp *h, const char *arg) { machine_request_reset(h->m); }
static void cmd_powerdown(struct hmp *h, const char *arg) { machine_power_button(h->m); }
static void cmd_nmi(struct hmp *h, const char *arg) { machine_nmi(h->m); }
static void cmd_stop(struct hmp *h, const char *arg) { machine_stop(h->m); }
static void cmd_cont(struct hmp *h, const char *arg) { machine_continue(h->m); }
static void cmd_help(struct hmp *h, const char *arg);

static const struct command commands[] = {
    {"c|cont", "lets the guest go on", cmd_cont},
    {"help|?", "this list", cmd_help},
    {"info", "shows something ('info' alone lists what)", cmd_info},
    {"nmi", "presses the NMI button", cmd_nmi},
    {"q|quit", "ends the program", cmd_quit},
    {"stop|s", "halts the guest", cmd_stop},
    {"system_powerdown", "presses the power button", cmd_powerdown},
    {"system_reset", "presses the reset button", cmd_reset},
};

static void cmd_help(struct hmp *h, const char *arg) { list(h, "", commands, sizeof commands / sizeof commands[0]); }

static void execute(struct hmp *h)
{
    h->line[h->len] = 0;
    char *line = h->line + strspn(h->line, " ");
    for (size_t n = strlen(line); n && line[n - 1] == ' ';)
        line[--n] = 0;
    say(h, "\n");
    if (*line && !dispatch(h, commands, sizeof commands / sizeof commands[0], line))
        say(h, "unknown command: '%s'\n", line);
    h->len = 0;
    prompt(h);
}

/* ---- input: as a terminal in raw mode sends it, or a script ---- */

static void erase(struct hmp *h, unsigned n)
{
    while (n-- && h->len) {
        h->len--;
        say(h, "\b \b");
    }
}

static void take(struct hmp *h, char c)
{
    bool lf = h->skip_lf && c == '\n';
    h->skip_lf = c == '\r';
    if (lf)
        return;
    switch (c) {
    case '\r':
    case '\n': execute(h); return;
    case '\b':
    case 0x7f: erase(h, 1); return;
    case 'U' - 0x40: erase(h, h->len); return;
    default: break;
    }
    if ((unsigned char)c < 0x20 || h->len + 1 >= sizeof h->line)
        return;
    h->line[h->len++] = c;
    emit(h, &c, 1);
}

static size_t can_receive(void *opaque) { return LINE_BYTES; }

static void receive(void *opaque, const uint8_t *buf, size_t n)
{
    struct hmp *h = opaque;
    for (size_t i = 0; i < n; i++)
        take(h, (char)buf[i]);
    drain(h);
}

static void writable(void *opaque) { drain(opaque); }

static void event(void *opaque, enum chardev_event ev)
{
    struct hmp *h = opaque;
    if (ev == CHARDEV_FOCUS_IN || (ev == CHARDEV_OPENED && !h->multiplexed))
        greet(h);
}

int hmp_create(struct hmp **out, struct chardev *chr, struct machine *m)
{
    static const struct chardev_ops ops = {
        .can_receive = can_receive, .receive = receive, .writable = writable, .event = event};
    struct hmp *h = calloc(1, sizeof *h);
    if (!h)
        return -RD_E_NOMEM;
    h->m = m;
    h->multiplexed = chardev_is_mux(chr);
    h->chr = chardev_attach(chr, &ops, h);
    if (!h->chr) {
        free(h);
        return -RD_E_BUSY;
    }
    if (!h->multiplexed && chardev_is_connected(chr) && !h->greeted)
        greet(h);
    *out = h;
    return 0;
}

void hmp_destroy(struct hmp *h) { free(h); }
