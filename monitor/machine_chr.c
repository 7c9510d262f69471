/* monitor/machine_chr.c - the consoles that a command line names: opens each once, shares the multiplexed ones. */
#include "base/err.h"
#include "monitor/machine_int.h"
#include <string.h>

/* A backend description as devices/chardev.h reads it, of at most this length. */
#define SPEC_BYTES 1024
struct text {
    char buf[SPEC_BYTES];
    size_t len;
    bool cut;
};

static void add_char(struct text *t, char c)
{
    if (t->len + 1 >= sizeof t->buf) {
        t->cut = true;
        return;
    }
    t->buf[t->len++] = c;
    t->buf[t->len] = 0;
}

static void add(struct text *t, const char *s)
{
    while (*s)
        add_char(t, *s++);
}

/* ",key=value", commas in the value doubled. */
static void add_value(struct text *t, const char *key, const char *val)
{
    if (!val)
        return;
    add(t, ",");
    add(t, key);
    add(t, "=");
    for (; *val; val++) {
        add_char(t, *val);
        if (*val == ',')
            add_char(t, ',');
    }
}

static void add_flag(struct text *t, const char *key, bool on) { add_value(t, key, on ? "on" : "off"); }

/* The backend as text; false: there is nothing to open. */
static bool describe(const struct chr_spec *s, struct text *t)
{
    static const char *const names[] = {
        [CHR_NULL] = "null", [CHR_VC] = "null",     [CHR_STDIO] = "stdio", [CHR_PTY] = "pty", [CHR_FILE] = "file",
        [CHR_PIPE] = "pipe", [CHR_UNIX] = "socket", [CHR_TCP] = "socket",  [CHR_TTY] = "tty",
    };
    if (s->kind == CHR_NONE || s->kind == CHR_REF)
        return false;
    add(t, names[s->kind]);
    if (s->mux)
        add_flag(t, "mux", true);
    if (s->kind == CHR_STDIO)
        add_flag(t, "signal", s->signal);
    if (s->kind == CHR_FILE && s->append)
        add_flag(t, "append", true);
    if (s->kind == CHR_UNIX || s->kind == CHR_TCP) {
        add_flag(t, "server", s->server);
        add_flag(t, "wait", s->wait);
    }
    if (s->kind != CHR_PTY)
        add_value(t, "path", s->path);
    add_value(t, "host", s->host);
    add_value(t, "port", s->port);
    add_value(t, "logfile", s->logfile);
    if (s->logfile && s->logappend)
        add_flag(t, "logappend", true);
    return true;
}

static void user_quit(void *opaque) { machine_quit(opaque, 0); }

static int reuse(struct machine *m, struct machine_chardev *e, const struct chr_spec *s, struct chardev **out)
{
    if (!chardev_is_mux(e->chr))
        return machine_fail(m, "%s %s: chardev '%s' is already in use (mux=on lets several share it)", s->opt, s->text,
                            s->id);
    e->users++;
    *out = e->chr;
    return 0;
}

int machine_open_chr(struct machine *m, const struct chr_spec *s, const char *label, struct chardev **out)
{
    struct text t = {.len = 0};
    char err[512];
    *out = NULL;
    for (unsigned i = 0; s->id && i < m->n_chardevs; i++)
        if (m->chardev[i].id && !strcmp(m->chardev[i].id, s->id))
            return reuse(m, &m->chardev[i], s, out);
    if (!describe(s, &t))
        return 0;
    if (t.cut)
        return machine_fail(m, "%s: a name is too long", label);
    if (s->kind == CHR_TTY)
        return machine_fail(m, "%s: '%s': serial lines of the host are not supported in this version", label, s->path);
    if (m->n_chardevs == MACHINE_MAX_CHARDEVS)
        return machine_fail(m, "%s: more than %d character backends", label, MACHINE_MAX_CHARDEVS);
    struct chardev_env env = {
        .loop = m->loop, .label = label, .escape = (uint8_t)m->c->echr, .quit = user_quit, .opaque = m};
    if (chardev_open_backend(&env, t.buf, out, err, sizeof err))
        return machine_fail(m, "%s", err);
    m->chardev[m->n_chardevs++] = (struct machine_chardev){s->id, *out, 1};
    return 0;
}

static int add_hmp(struct machine *m, struct chardev *chr)
{
    if (m->n_hmps == MACHINE_MAX_HMPS)
        return machine_fail(m, "more than %d monitors", MACHINE_MAX_HMPS);
    int rc = hmp_create(&m->hmp[m->n_hmps], chr, m);
    if (rc)
        return machine_fail(m, "monitor: %s: %s", chardev_name(chr),
                            rc == -RD_E_BUSY ? "has too many users" : err_text(rc));
    m->n_hmps++;
    return 0;
}

int machine_open_monitors(struct machine *m)
{
    /* "mon:" on a port: the monitor is behind the escape key. */
    unsigned have = m->n_chardevs;
    for (unsigned i = 0; i < have; i++)
        if (!m->chardev[i].id && chardev_is_mux(m->chardev[i].chr)) {
            int status = add_hmp(m, m->chardev[i].chr);
            if (status)
                return status;
        }
    for (unsigned i = 0; i < m->c->monitor.n; i++) {
        char label[24];
        struct chardev *chr;
        snprintf(label, sizeof label, "monitor%u", i);
        int status = machine_open_chr(m, &m->c->monitor.v[i], label, &chr);
        /* Nobody can type into null. */
        if (!status && chr && m->c->monitor.v[i].kind != CHR_NULL && m->c->monitor.v[i].kind != CHR_VC)
            status = add_hmp(m, chr);
        if (status)
            return status;
    }
    return 0;
}

void machine_start_chrs(struct machine *m)
{
    for (unsigned i = 0; i < m->n_chardevs; i++)
        chardev_start(m->chardev[i].chr);
}

void machine_close_chrs(struct machine *m)
{
    for (unsigned i = 0; i < m->n_chardevs; i++)
        chardev_close(m->chardev[i].chr);
    m->n_chardevs = 0;
    for (unsigned i = 0; i < m->n_hmps; i++)
        hmp_destroy(m->hmp[i]);
    m->n_hmps = 0;
}
