#include "devices/chardev_int.h"
#include "devices/term.h"
#include <ctype.h>
#include <stdio.h>

enum { CTRL_A = 1 };

static uint8_t escape_key(const struct chardev *c) { return c->env.escape ? c->env.escape : CTRL_A; }

size_t chardev_mux_room(const struct chardev *c)
{
    size_t room = CHARDEV_MUX_QUEUE;
    for (unsigned i = 0; i < c->users;
         i++) /* any of them may have the focus before the next read is parsed to its end */
        if (CHARDEV_MUX_QUEUE - c->user[i].len < room)
            room = CHARDEV_MUX_QUEUE - c->user[i].len;
    /* Typed input is read even when it has to be dropped, so that escape x ends a guest that is stuck. */
    return !c->users ? 0 : room || !c->in_tty ? room : CHARDEV_MUX_QUEUE;
}

static void enqueue(struct chardev *c, uint8_t byte)
{
    struct chardev_user *u = &c->user[c->focus];
    if (u->len < CHARDEV_MUX_QUEUE)
        u->queue[(u->head + u->len++) % CHARDEV_MUX_QUEUE] = byte;
}

void chardev_mux_drain(struct chardev_user *u)
{
    if (!u->ops->can_receive || !u->ops->receive) {
        u->len = 0;
        return;
    }
    while (u->len) {
        size_t room = u->ops->can_receive(u->opaque), run = CHARDEV_MUX_QUEUE - u->head;
        size_t n = room < u->len ? room : u->len;
        n = n < run ? n : run;
        if (!n)
            return;
        const uint8_t *p = u->queue + u->head;
        u->head = (u->head + n) % CHARDEV_MUX_QUEUE;
        u->len -= n;
        u->ops->receive(u->opaque, p, n); /* may come back here; the bytes at p stay until new input arrives */
    }
}

static void print_help(struct chardev *c)
{
    static const struct {
        char key;
        const char *text;
    } keys[] = {
        {'h', "this list"},
        {'x', "quit"},
        {'s', "write disk changes back to their files (with -snapshot)"},
        {'t', "time stamps at line starts, on or off"},
        {'b', "send a break (magic SysRq)"},
        {'c', "go to the monitor, or back to the console"},
    };
    char name[16], line[96];
    uint8_t k = escape_key(c);
    snprintf(name, sizeof name, k < 0x20 ? "C-%c" : "%c", k < 0x20 ? tolower(k + 0x40) : k);
    chardev_print(c, "\r\n");
    for (unsigned i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        snprintf(line, sizeof line, "%s %-4c %s\r\n", name, keys[i].key, keys[i].text);
        chardev_print(c, line);
    }
    snprintf(line, sizeof line, "%s %-4s sends %s\r\n", name, name, name);
    chardev_print(c, line);
}

static void switch_focus(struct chardev *c)
{
    chardev_send_event(&c->user[c->focus], CHARDEV_FOCUS_OUT);
    c->focus = (c->focus + 1) % c->users;
    chardev_send_event(&c->user[c->focus], CHARDEV_FOCUS_IN);
}

static void quit(struct chardev *c)
{
    chardev_print(c, "\r\nringdown: terminated\r\n");
    chardev_flush(c);
    if (c->raw_tty)
        term_restore();
    if (c->env.quit)
        c->env.quit(c->env.opaque);
}

static void command(struct chardev *c, uint8_t key)
{
    if (key == escape_key(c)) {
        enqueue(c, key);
        return;
    }
    switch (tolower(key)) {
    case 'h':
    case '?': print_help(c); break;
    case 'x': quit(c); break;
    case 's':
        if (c->env.save_disks)
            c->env.save_disks(c->env.opaque);
        break;
    case 't':
        c->timestamps = !c->timestamps;
        c->stamp_base = vtime_now(c->loop);
        c->line_start = false;
        break;
    case 'b': chardev_send_event(&c->user[c->focus], CHARDEV_BREAK); break;
    case 'c': switch_focus(c); break;
    default: break; /* an unknown command is swallowed */
    }
}

void chardev_mux_input(struct chardev *c, const uint8_t *buf, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (c->escaped) {
            c->escaped = false;
            command(c, buf[i]);
        } else if (buf[i] == escape_key(c)) {
            c->escaped = true;
        } else {
            enqueue(c, buf[i]);
        }
    }
    for (unsigned i = 0; i < c->users; i++)
        chardev_mux_drain(&c->user[i]);
}
