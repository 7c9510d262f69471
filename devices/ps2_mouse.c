#include "devices/ps2_int.h"

enum { ID_PLAIN = 0, ID_WHEEL = 3, ID_5BUTTON = 4, DEFAULT_RATE = 100 };

static void defaults(struct ps2_mouse *m)
{
    m->rate = DEFAULT_RATE;
    m->resolution = 2;
    m->scale2 = m->remote = m->wrap = m->reporting = false;
    m->dx = m->dy = m->dz = 0;
    m->command = 0;
    m->wire.data_len = 0;
}

void ps2_aux_reset(struct ps2_mouse *m)
{
    *m = (struct ps2_mouse){.buttons = m->buttons};
    defaults(m);
}

static int32_t clamp(int32_t v, int32_t lo, int32_t hi) { return v < lo ? lo : v > hi ? hi : v; }

/* 2:1 scaling of small movements (PS/2 mouse, command E7). */
static int32_t scaled(const struct ps2_mouse *m, int32_t v)
{
    static const int8_t small[] = {0, 1, 1, 3, 6, 9};
    int32_t a = v < 0 ? -v : v;
    if (!m->scale2 || m->remote)
        return v;
    a = a < 6 ? small[a] : clamp(2 * a, 0, 255);
    return v < 0 ? -a : a;
}

typedef void put_fn(struct ps2_wire *w, uint8_t byte);

/* Takes at most what one packet can say; the rest stays for the next. */
static void packet(struct ps2_mouse *m, put_fn *put)
{
    int32_t dx = clamp(m->dx, -127, 127), dy = clamp(m->dy, -127, 127), dz = clamp(m->dz, -7, 7);
    m->dx -= dx;
    m->dy -= dy;
    m->dz -= dz;
    dx = scaled(m, dx);
    dy = scaled(m, dy);
    put(&m->wire, (uint8_t)((m->buttons & 7) | 8 | (dx < 0) << 4 | (dy < 0) << 5));
    put(&m->wire, (uint8_t)dx);
    put(&m->wire, (uint8_t)dy);
    if (m->id == ID_WHEEL)
        put(&m->wire, (uint8_t)-dz); /* towards the user is positive on the wire */
    else if (m->id == ID_5BUTTON)
        put(&m->wire, (uint8_t)((-dz & 15) | (m->buttons & 0x18) << 1));
    m->sent_buttons = m->buttons;
}

void ps2_aux_report(struct ps2_mouse *m)
{
    if (m->id == ID_PLAIN)
        m->dz = 0;
    if (m->reporting && !m->remote && !m->wrap && (m->dx || m->dy || m->dz || m->buttons != m->sent_buttons) &&
        !m->wire.data_len)
        packet(m, ps2_wire_data);
}

static void status(struct ps2_mouse *m)
{
    uint8_t buttons = (m->buttons & 1) << 2 | (m->buttons & 4) >> 1 | (m->buttons & 2) >> 1;
    ps2_wire_reply(&m->wire, (uint8_t)(m->remote << 6 | m->reporting << 5 | m->scale2 << 4 | buttons));
    ps2_wire_reply(&m->wire, m->resolution);
    ps2_wire_reply(&m->wire, m->rate);
}

/* Sample rates 200, 100, 80 turn on the wheel; 200, 200, 80 the side buttons. */
static void knock(struct ps2_mouse *m, uint8_t rate)
{
    enum { NOTHING, R200, R200_100, R200_200 };
    if (rate == 200)
        m->knock = m->knock == R200 || m->knock == R200_200 ? R200_200 : R200;
    else if (rate == 100 && m->knock == R200)
        m->knock = R200_100;
    else if (rate == 80 && m->knock == R200_100)
        m->id = ID_WHEEL, m->knock = NOTHING;
    else if (rate == 80 && m->knock == R200_200)
        m->id = ID_5BUTTON, m->knock = NOTHING;
    else
        m->knock = NOTHING;
}

static void parameter(struct ps2_mouse *m, uint8_t byte)
{
    if (m->command == 0xe8) {
        m->resolution = byte & 3;
    } else {
        m->rate = byte;
        knock(m, byte);
    }
    m->command = 0;
    ps2_wire_reply(&m->wire, PS2_ACK);
}

static void command(struct ps2_mouse *m, uint8_t byte)
{
    struct ps2_wire *w = &m->wire;
    if (byte == 0xfe) {
        ps2_wire_reply(w, w->last);
        return;
    }
    ps2_wire_reply(w, PS2_ACK);
    switch (byte) {
    case 0xe6: m->scale2 = false; break;
    case 0xe7: m->scale2 = true; break;
    case 0xe8:
    case 0xf3: m->command = byte; break;
    case 0xe9: status(m); break;
    case 0xea: m->remote = false; break;
    case 0xeb: packet(m, ps2_wire_reply); break;
    case 0xec: m->wrap = false; break;
    case 0xee: m->wrap = true; break;
    case 0xf0: m->remote = true; break;
    case 0xf2: ps2_wire_reply(w, m->id); break;
    case 0xf4: m->reporting = true; break;
    case 0xf5:
        m->reporting = false;
        w->data_len = 0;
        break;
    case 0xf6: defaults(m); break;
    case 0xff:
        defaults(m);
        m->id = ID_PLAIN;
        m->knock = 0;
        ps2_wire_reply(w, PS2_BAT_OK);
        ps2_wire_reply(w, ID_PLAIN);
        break;
    default: w->reply[w->reply_len - 1] = PS2_RESEND; break;
    }
}

void ps2_aux_write(struct ps2_mouse *m, uint8_t byte)
{
    m->wire.reply_len = 0;
    if (m->wrap && byte != 0xff && byte != 0xec)
        ps2_wire_reply(&m->wire, byte);
    else if (m->command)
        parameter(m, byte);
    else
        command(m, byte);
    ps2_aux_report(m);
}

bool ps2_aux_ok(const struct ps2_mouse *m)
{
    bool id = m->id == ID_PLAIN || m->id == ID_WHEEL || m->id == ID_5BUTTON;
    bool moves = clamp(m->dx, -65536, 65536) == m->dx && clamp(m->dy, -65536, 65536) == m->dy &&
                 clamp(m->dz, -65536, 65536) == m->dz;
    return ps2_wire_ok(&m->wire) && id && m->knock <= 3 && moves && m->resolution <= 3 &&
           (!m->command || m->command == 0xe8 || m->command == 0xf3);
}
