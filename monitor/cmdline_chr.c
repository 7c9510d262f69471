#include "base/props.h"
#include "monitor/cmdline_int.h"
#include <string.h>

#define SOCKET_KEYS "server wait nodelay reconnect telnet logfile logappend to ipv4 ipv6"

/* "HOST:PORT", host perhaps empty (any address) or in brackets. */
static int parse_address(struct parse *p, struct chr_spec *s, const char *text)
{
    char *host = parse_alloc(p, strlen(text) + 1);
    if (!host)
        return parse_fail(p, "out of memory");
    char *colon = strrchr(strcpy(host, text), ':');
    uint64_t port;
    if (!colon || parse_u64(colon + 1, &port) || port > 65535)
        return parse_fail(p, "'%s' is not HOST:PORT", text);
    *colon = 0;
    if (host[0] == '[' && colon[-1] == ']') {
        colon[-1] = 0;
        host++;
    }
    s->host = *host ? host : NULL;
    s->port = colon + 1;
    return 0;
}

/* What every socket and file may say, in both ways of writing a backend. */
static int parse_common(struct parse *p, struct chr_spec *s, const struct props *props, const char *keys)
{
    const char *bad = props_unknown(props, keys);
    if (bad)
        return parse_fail(p, "parameter '%s' is unexpected", bad);
    bool telnet = false;
    if (props_bool(props, "server", &s->server) || props_bool(props, "wait", &s->wait) ||
        props_bool(props, "mux", &s->mux) || props_bool(props, "signal", &s->signal) ||
        props_bool(props, "append", &s->append) || props_bool(props, "logappend", &s->logappend) ||
        props_bool(props, "telnet", &telnet))
        return parse_fail(p, "a parameter that is on or off has another value");
    s->logfile = props_get(props, "logfile");
    return telnet ? parse_note(p, CMDLINE_REFUSED, "telnet is not supported in this version") : 0;
}

/* unix:PATH[,server][,nowait] and tcp:HOST:PORT[,...]: text is what follows the colon. */
static int parse_socket(struct parse *p, struct chr_spec *s, const char *text)
{
    struct props props;
    int status = parse_props(p, text, "address", &props);
    if (status)
        return status;
    const char *address = props_get(&props, "address");
    if (!address)
        return parse_fail(p, "the address is missing");
    s->wait = true;
    status = parse_common(p, s, &props, "address " SOCKET_KEYS);
    s->wait = s->wait && s->server;
    if (status || s->kind == CHR_TCP)
        return status ? status : parse_address(p, s, address);
    s->path = address;
    return 0;
}

static const char *after(const char *text, const char *prefix)
{
    size_t n = strlen(prefix);
    return strncmp(text, prefix, n) ? NULL : text + n;
}

static const struct {
    const char *name;
    enum chr_kind kind;
} simple[] = {{"none", CHR_NONE}, {"null", CHR_NULL}, {"stdio", CHR_STDIO}, {"vc", CHR_VC}, {"pty", CHR_PTY}},
  with_path[] = {{"file:", CHR_FILE}, {"pipe:", CHR_PIPE}, {"chardev:", CHR_REF}};

static int parse_chr_text(struct parse *p, struct chr_spec *s, const char *text)
{
    const char *rest;
    for (unsigned i = 0; i < sizeof simple / sizeof simple[0]; i++)
        if (!strcmp(text, simple[i].name)) {
            s->kind = simple[i].kind;
            return 0;
        }
    for (unsigned i = 0; i < sizeof with_path / sizeof with_path[0]; i++)
        if ((rest = after(text, with_path[i].name))) {
            s->kind = with_path[i].kind;
            *(s->kind == CHR_REF ? &s->id : &s->path) = rest;
            return *rest ? 0 : parse_fail(p, "nothing follows '%s'", with_path[i].name);
        }
    if (after(text, "vc:")) {
        s->kind = CHR_VC;
        return 0;
    }
    if (after(text, "/dev/")) {
        s->kind = CHR_TTY;
        s->path = text;
        return 0;
    }
    if ((rest = after(text, "unix:"))) {
        s->kind = CHR_UNIX;
        return parse_socket(p, s, rest);
    }
    if ((rest = after(text, "tcp:"))) {
        s->kind = CHR_TCP;
        return parse_socket(p, s, rest);
    }
    if (after(text, "telnet:") || after(text, "udp:") || after(text, "websocket:") || !strcmp(text, "msmouse"))
        return parse_note(p, CMDLINE_REFUSED, "this kind of backend is not supported in this version");
    return parse_fail(p, "'%s' is not a character backend", text);
}

int parse_chr(struct parse *p, struct chr_list *list, const char *text)
{
    struct chr_spec *s = parse_grow(p, &list->v, &list->n, sizeof *s);
    if (!s)
        return parse_fail(p, "out of memory");
    *s = (struct chr_spec){.opt = p->opt, .text = text, .signal = true};
    const char *rest = after(text, "mon:");
    /* Ctrl-c belongs to the guest where the escape keys are there to end the program. */
    s->mux = rest != NULL;
    s->signal = !rest;
    return parse_chr_text(p, s, rest ? rest : text);
}

/* -- -chardev TYPE,id=ID,... -- */
static const struct chardev_type {
    const char *name;
    enum chr_kind kind;
    const char *keys;
} chardev_types[] = {
    {"null", CHR_NULL, ""},
    {"stdio", CHR_STDIO, "signal"},
    {"vc", CHR_VC, "width height cols rows"},
    {"pty", CHR_PTY, "path"},
    {"file", CHR_FILE, "path append"},
    {"pipe", CHR_PIPE, "path"},
    {"tty", CHR_TTY, "path"},
    {"serial", CHR_TTY, "path"},
    {"socket", CHR_UNIX, "path host port delay nodelay server wait reconnect telnet ipv4 ipv6 to"},
};

const struct chr_spec *cmdline_chardev(const struct cmdline *c, const char *id)
{
    for (unsigned i = 0; i < c->chardevs.n; i++)
        if (c->chardevs.v[i].id && !strcmp(c->chardevs.v[i].id, id))
            return &c->chardevs.v[i];
    return NULL;
}

static int parse_chardev_place(struct parse *p, struct chr_spec *s, const struct props *props)
{
    s->path = props_get(props, "path");
    s->host = props_get(props, "host");
    s->port = props_get(props, "port");
    if (s->kind == CHR_UNIX && !s->path) {
        uint64_t port;
        s->kind = CHR_TCP;
        if (!s->port)
            return parse_fail(p, "a socket needs path=, or host= and port=");
        if (parse_u64(s->port, &port) || port > 65535)
            return parse_fail(p, "'%s' is not a port number", s->port);
        if (s->host && !*s->host)
            s->host = NULL;
    } else if (s->kind == CHR_UNIX && (s->host || s->port))
        return parse_fail(p, "a socket has either path= or host= and port=");
    if ((s->kind == CHR_FILE || s->kind == CHR_PIPE || s->kind == CHR_TTY) && (!s->path || !*s->path))
        return parse_fail(p, "path= is missing");
    return 0;
}

int opt_chardev(struct parse *p, const char *arg)
{
    struct props props;
    int status = parse_props(p, arg, "backend", &props);
    if (status)
        return status;
    const char *name = props_get(&props, "backend"), *id = props_get(&props, "id");
    const struct chardev_type *type = NULL;
    for (unsigned i = 0; name && i < sizeof chardev_types / sizeof chardev_types[0]; i++)
        if (!strcmp(chardev_types[i].name, name))
            type = &chardev_types[i];
    if (!name || !id || !*id)
        return parse_fail(p, "%s is missing", name ? "id=" : "the type");
    if (cmdline_chardev(p->c, id))
        return parse_fail(p, "there is another -chardev with id '%s'", id);
    if (!type && parse_is_word(name, "udp ringbuf memory msmouse braille console parallel parport testdev hub spicevmc "
                                     "spiceport wctablet qemu-vdagent dbus"))
        return parse_note(p, CMDLINE_REFUSED, "this kind of backend is not supported in this version");
    if (!type)
        return parse_fail(p, "'%s' is not a valid character backend", name);
    struct chr_spec *s = parse_grow(p, &p->c->chardevs.v, &p->c->chardevs.n, sizeof *s);
    char keys[256];
    if (!s)
        return parse_fail(p, "out of memory");
    *s = (struct chr_spec){.kind = type->kind, .opt = p->opt, .text = arg, .id = id, .signal = true, .wait = true};
    snprintf(keys, sizeof keys, "backend id mux logfile logappend %s", type->keys);
    status = parse_common(p, s, &props, keys);
    if (!status)
        status = parse_chardev_place(p, s, &props);
    s->wait = s->wait && s->server;
    return status;
}

int opt_mon(struct parse *p, const char *arg)
{
    struct props props;
    int status = parse_props(p, arg, "chardev", &props);
    if (status)
        return status;
    const char *id = props_get(&props, "chardev"), *mode = props_get(&props, "mode");
    const char *bad = props_unknown(&props, "chardev mode pretty default id");
    bool control = mode && !strcmp(mode, "control");
    if (!id || bad)
        return bad ? parse_fail(p, "parameter '%s' is unexpected", bad) : parse_fail(p, "chardev= is missing");
    if (mode && !control && strcmp(mode, "readline"))
        return parse_fail(p, "'%s' is not a monitor mode", mode);
    struct chr_list *list = control ? &p->c->qmp : &p->c->monitor;
    struct chr_spec *s = parse_grow(p, &list->v, &list->n, sizeof *s);
    if (!s)
        return parse_fail(p, "out of memory");
    *s = (struct chr_spec){.kind = CHR_REF, .id = id, .opt = p->opt, .text = arg};
    return control ? parse_note(p, CMDLINE_REFUSED, "mode=control is not supported in this version") : 0;
}

/* -- after the last option -- */
/* Replaces a reference by what it names; sees to it that the terminal has one user, or several through one multiplexer. */
static int resolve(struct parse *p, struct chr_spec *s, const struct chr_spec **terminal)
{
    p->opt = s->opt;
    p->arg = s->text;
    if (s->kind == CHR_REF) {
        const struct chr_spec *target = cmdline_chardev(p->c, s->id);
        if (!target)
            return parse_fail(p, "there is no -chardev with id '%s'", s->id);
        const char *opt = s->opt, *text = s->text;
        bool mux = s->mux;
        *s = *target;
        s->opt = opt;
        s->text = text;
        s->mux |= mux;
    }
    if (s->kind != CHR_STDIO)
        return 0;
    const struct chr_spec *other = *terminal;
    bool shared = other && other->mux && s->mux && s->id && other->id == s->id;
    if (other && !shared)
        return parse_fail(p, "the terminal is already used by %s %s", other->opt, other->text);
    *terminal = s;
    return 0;
}

static int add_default(struct parse *p, struct chr_list *list, enum chr_kind kind, bool mux)
{
    struct chr_spec *s = parse_grow(p, &list->v, &list->n, sizeof *s);
    if (!s)
        return parse_fail(p, "out of memory");
    *s = (struct chr_spec){.kind = kind, .mux = mux, .signal = !mux, .text = "default"};
    return 0;
}

/* QEMU: -nographic puts the serial port and the monitor on the terminal, whichever of them was not given. Without a display
 * of our own, a line that asks for none by name leaves the ports in windows nobody sees, and any other line means -nographic. */
static int add_default_ports(struct parse *p, bool terminal_free)
{
    struct cmdline *c = p->c;
    bool terminal = (c->nographic || !c->display) && terminal_free;
    if (c->nodefaults)
        return 0;
    if (!c->serial.n && !c->monitor.n)
        return add_default(p, &c->serial, terminal ? CHR_STDIO : CHR_NULL, terminal);
    if (!c->serial.n)
        return add_default(p, &c->serial, terminal ? CHR_STDIO : CHR_NULL, false);
    if (!c->monitor.n && c->nographic && terminal)
        return add_default(p, &c->monitor, CHR_STDIO, false);
    return 0;
}

int parse_resolve_consoles(struct parse *p)
{
    struct cmdline *c = p->c;
    struct chr_list *all[] = {&c->serial, &c->monitor, &c->debugcon, &c->qmp, &c->gdb};
    const struct chr_spec *terminal = NULL;
    for (unsigned k = 0; k < sizeof all / sizeof all[0]; k++)
        for (unsigned i = 0; i < all[k]->n; i++) {
            int status = resolve(p, &all[k]->v[i], &terminal);
            if (status)
                return status;
        }
    return add_default_ports(p, !terminal);
}
