#include "devices/ps2.h"
#include "base/err.h"
#include "base/log.h"
#include "devices/ps2_int.h"

enum { ST_OBF = 1, ST_COMMAND = 8, ST_UNLOCKED = 0x10, ST_AUX = 0x20, ST_SYS = 4 };
enum { MODE_IRQ1 = 1, MODE_IRQ12 = 2, MODE_SYS = 4, MODE_KBD_OFF = 0x10, MODE_AUX_OFF = 0x20, MODE_TRANSLATE = 0x40 };
enum { OUT_NO_RESET = 1, OUT_A20 = 2, OUT_IRQ1 = 0x10, OUT_IRQ12 = 0x20, OUT_FIXED = 0xcc };
enum { MOVE_LIMIT = 65536 };
static const uint64_t WIRE_NS = 250000;

/* -- output buffer ---- */

static void drive(struct ps2 *p)
{
    const struct ps2_state *s = &p->s;
    bool full = s->status & ST_OBF, aux = s->status & ST_AUX;
    irq_set(&p->irq1, full && !aux && (s->mode & MODE_IRQ1) && !(s->mode & MODE_KBD_OFF));
    irq_set(&p->irq12, full && aux && (s->mode & MODE_IRQ12));
}

static bool kbd_waiting(const struct ps2 *p) { return !(p->s.mode & MODE_KBD_OFF) && ps2_wire_busy(&p->s.kbd.wire); }
static bool aux_waiting(const struct ps2 *p) { return !(p->s.mode & MODE_AUX_OFF) && ps2_wire_busy(&p->s.aux.wire); }

/* A device that is clocked out starts sending when the buffer is empty. */
static void start_transfer(struct ps2 *p)
{
    bool wanted = !(p->s.status & ST_OBF) && (kbd_waiting(p) || aux_waiting(p));
    if (!wanted)
        p->s.transfer_at = VTIME_NEVER;
    else if (p->s.transfer_at == VTIME_NEVER)
        p->s.transfer_at = vtime_now(p->loop) + WIRE_NS;
    vtimer_arm(&p->timer, p->s.transfer_at);
}

static void fill(struct ps2 *p, uint8_t byte, bool aux)
{
    p->s.obuf = byte;
    p->s.status = (uint8_t)((p->s.status & ~ST_AUX) | ST_OBF | (aux ? ST_AUX : 0));
    drive(p);
    start_transfer(p);
}

/* Set 2 to set 1: F0 disappears and becomes bit 7 of what follows. Returns false if there is nothing to show yet. */
static bool translate(struct ps2_state *s, uint8_t *byte)
{
    if (!(s->mode & MODE_TRANSLATE))
        return true;
    if (*byte == 0xf0) {
        s->break_seen = true;
        return false;
    }
    *byte = ps2_set2_to_set1(*byte);
    if (s->break_seen)
        *byte |= 0x80;
    s->break_seen = false;
    return true;
}

static void on_timer(void *opaque)
{
    struct ps2 *p = opaque;
    struct ps2_state *s = &p->s;
    s->transfer_at = VTIME_NEVER;
    if (s->status & ST_OBF)
        return;
    if (kbd_waiting(p)) {
        uint8_t byte = ps2_wire_take(&s->kbd.wire);
        if (translate(s, &byte))
            fill(p, byte, false);
    } else if (aux_waiting(p)) {
        uint8_t byte = ps2_wire_take(&s->aux.wire);
        ps2_aux_report(&s->aux);
        fill(p, byte, true);
    }
    start_transfer(p);
}

/* -- output port ---- */

static void write_outport(struct ps2 *p, uint8_t val)
{
    p->s.outport = val | OUT_FIXED | OUT_NO_RESET;
    irq_set(&p->a20, val & OUT_A20);
    if (!(val & OUT_NO_RESET))
        irq_pulse(&p->reset);
}

static uint8_t read_outport(const struct ps2 *p)
{
    bool full = p->s.status & ST_OBF, aux = p->s.status & ST_AUX;
    return (p->s.outport & (uint8_t) ~(OUT_IRQ1 | OUT_IRQ12)) | (full ? (aux ? OUT_IRQ12 : OUT_IRQ1) : 0);
}

/* -- controller commands ---- */

static void set_mode(struct ps2 *p, uint8_t val)
{
    p->s.mode = val;
    p->s.ram[0] = val;
    p->s.status = (uint8_t)((p->s.status & ~ST_SYS) | (val & MODE_SYS));
    drive(p);
    start_transfer(p);
}

static void write_command(struct ps2 *p, uint8_t cmd)
{
    struct ps2_state *s = &p->s;
    s->status |= ST_COMMAND;
    s->command = 0;
    if (cmd < 0x20)
        return;
    if (cmd < 0x40) {
        fill(p, s->ram[cmd & 0x1f], false);
        return;
    }
    if (cmd >= 0x60 && cmd < 0x80) {
        s->command = cmd;
        return;
    }
    if (cmd >= 0xf0) { /* pulse the output port's low bits that are 0 in the command; bit 0 is RESET# */
        if (!(cmd & OUT_NO_RESET))
            irq_pulse(&p->reset);
        return;
    }
    switch (cmd) {
    case 0xa4: fill(p, 0xf1, false); break; /* no password */
    case 0xa7: set_mode(p, s->mode | MODE_AUX_OFF); break;
    case 0xa8: set_mode(p, s->mode & (uint8_t)~MODE_AUX_OFF); break;
    case 0xa9: fill(p, 0x00, false); break; /* wires are fine */
    case 0xaa:
        set_mode(p, s->mode | MODE_SYS);
        fill(p, 0x55, false);
        break;
    case 0xab: fill(p, 0x00, false); break;
    case 0xad: set_mode(p, s->mode | MODE_KBD_OFF); break;
    case 0xae: set_mode(p, s->mode & (uint8_t)~MODE_KBD_OFF); break;
    case 0xc0: fill(p, 0x80, false); break; /* keyboard not locked */
    case 0xd0: fill(p, read_outport(p), false); break;
    case 0xd1:
    case 0xd2:
    case 0xd3:
    case 0xd4: s->command = cmd; break;
    case 0xdd: write_outport(p, s->outport & (uint8_t)~OUT_A20); break;
    case 0xdf: write_outport(p, s->outport | OUT_A20); break;
    case 0xe0: fill(p, 0x00, false); break;
    default: LOGF(UNIMP, "ps2: controller command %#x", cmd); break;
    }
}

static void write_data(struct ps2 *p, uint8_t val)
{
    struct ps2_state *s = &p->s;
    uint8_t cmd = s->command;
    s->status &= (uint8_t)~ST_COMMAND;
    s->command = 0;
    if (cmd == 0x60) {
        set_mode(p, val);
    } else if (cmd > 0x60 && cmd < 0x80) {
        s->ram[cmd & 0x1f] = val;
    } else if (cmd == 0xd1) {
        write_outport(p, val);
    } else if (cmd == 0xd2 || cmd == 0xd3) {
        fill(p, val, cmd == 0xd3);
    } else if (cmd == 0xd4) {
        ps2_aux_write(&s->aux, val);
        set_mode(p, s->mode & (uint8_t)~MODE_AUX_OFF); /* the clock must run to carry it */
    } else {
        ps2_kbd_write(&s->kbd, val);
        set_mode(p, s->mode & (uint8_t)~MODE_KBD_OFF);
    }
}

/* -- ports ---- */

static uint64_t data_read(void *opaque, uint64_t offset, unsigned size)
{
    struct ps2 *p = opaque;
    uint8_t val = p->s.obuf;
    p->s.status &= (uint8_t) ~(ST_OBF | ST_AUX);
    drive(p);
    start_transfer(p);
    return val;
}

static void data_write(void *opaque, uint64_t offset, unsigned size, uint64_t val) { write_data(opaque, (uint8_t)val); }
static uint64_t status_read(void *opaque, uint64_t offset, unsigned size) { return ((struct ps2 *)opaque)->s.status; }
static void command_write(void *opaque, uint64_t offset, unsigned size, uint64_t val)
{
    write_command(opaque, (uint8_t)val);
}

const struct bus_ops ps2_data_ops = {.read = data_read, .write = data_write, .max_size = 1};
const struct bus_ops ps2_command_ops = {.read = status_read, .write = command_write, .max_size = 1};

/* -- the host's side ---- */

void ps2_key(struct ps2 *p, uint16_t set1, bool down)
{
    ps2_kbd_key(&p->s.kbd, set1, down);
    start_transfer(p);
}

static int32_t add(int32_t sum, int d)
{
    int64_t v = (int64_t)sum + d;
    return v > MOVE_LIMIT ? MOVE_LIMIT : v < -MOVE_LIMIT ? -MOVE_LIMIT : (int32_t)v;
}

void ps2_mouse_event(struct ps2 *p, int dx, int dy, int dz, uint8_t buttons)
{
    struct ps2_mouse *m = &p->s.aux;
    m->buttons = buttons & 0x1f;
    if (m->reporting || m->remote) {
        m->dx = add(m->dx, dx);
        m->dy = add(m->dy, dy);
        m->dz = add(m->dz, dz);
    }
    ps2_aux_report(m);
    start_transfer(p);
}

uint8_t ps2_leds(const struct ps2 *p) { return p->s.kbd.leds; }

/* -- life ---- */

static void reset(void *dev)
{
    struct ps2 *p = dev;
    uint8_t buttons = p->s.aux.buttons;
    p->s = (struct ps2_state){
        .status = ST_UNLOCKED, .transfer_at = VTIME_NEVER, .outport = OUT_FIXED | OUT_NO_RESET | OUT_A20};
    p->s.aux.buttons = buttons;
    ps2_kbd_reset(&p->s.kbd);
    ps2_aux_reset(&p->s.aux);
    set_mode(p, MODE_TRANSLATE | MODE_AUX_OFF | MODE_SYS | MODE_IRQ1);
    irq_set(&p->a20, true);
}

void ps2_init(struct ps2 *p, struct evloop *loop, const struct ps2_wiring *w)
{
    *p = (struct ps2){.loop = loop, .irq1 = w->irq1, .irq12 = w->irq12, .a20 = w->a20, .reset = w->reset};
    vtimer_init(&p->timer, loop, on_timer, p);
    reset(p);
}

#define S(m) DEV_FIELD(struct ps2_state, m)
#define A(m) DEV_ARRAY(struct ps2_state, m)
#define WIRE(d)                                                                                                        \
    A(d.wire.reply), S(d.wire.reply_len), A(d.wire.data), S(d.wire.data_head), S(d.wire.data_len), S(d.wire.last)
static const struct dev_field fields[] = {
    S(status),        S(mode),
    S(outport),       S(command),
    S(obuf),          A(ram),
    S(break_seen),    S(transfer_at),
    WIRE(kbd),        S(kbd.command),
    S(kbd.set),       S(kbd.leds),
    S(kbd.typematic), S(kbd.scanning),
    WIRE(aux),        S(aux.command),
    S(aux.id),        S(aux.knock),
    S(aux.rate),      S(aux.resolution),
    S(aux.reporting), S(aux.remote),
    S(aux.wrap),      S(aux.scale2),
    S(aux.buttons),   S(aux.sent_buttons),
    S(aux.dx),        S(aux.dy),
    S(aux.dz),
};
#undef S
#undef A
#undef WIRE

static void save(const void *dev, struct dev_writer *w)
{
    dev_put_fields(w, &((const struct ps2 *)dev)->s, fields, DEV_COUNT(fields));
}

static int restore(void *dev, struct dev_reader *r, uint16_t version)
{
    struct ps2 *p = dev;
    struct ps2_state s = {0};
    dev_get_fields(r, &s, fields, DEV_COUNT(fields));
    if (r->failed || !ps2_kbd_ok(&s.kbd) || !ps2_aux_ok(&s.aux) || s.mode != s.ram[0])
        return -RD_E_FORMAT;
    p->s = s;
    vtimer_arm(&p->timer, s.transfer_at);
    return 0;
}

const struct dev_ops ps2_dev_ops = {.type = "ps2", .version = 1, .reset = reset, .save = save, .restore = restore};
