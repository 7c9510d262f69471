#include "base/check.h"
#include "devices/ps2_int.h"
#include <string.h>

/* -- the wire ---- */

void ps2_wire_clear(struct ps2_wire *w) { w->reply_len = w->data_len = w->data_head = 0; }

void ps2_wire_reply(struct ps2_wire *w, uint8_t byte)
{
    CHECK(w->reply_len < PS2_REPLIES);
    w->reply[w->reply_len++] = byte;
}

bool ps2_wire_room(const struct ps2_wire *w, unsigned n) { return PS2_QUEUE - w->data_len >= (int)n; }

void ps2_wire_data(struct ps2_wire *w, uint8_t byte)
{
    CHECK(w->data_len < PS2_QUEUE);
    w->data[(w->data_head + w->data_len++) % PS2_QUEUE] = byte;
}

bool ps2_wire_busy(const struct ps2_wire *w) { return w->reply_len || w->data_len; }

uint8_t ps2_wire_take(struct ps2_wire *w)
{
    CHECK(ps2_wire_busy(w));
    if (w->reply_len) {
        w->last = w->reply[0];
        memmove(w->reply, w->reply + 1, --w->reply_len);
    } else {
        w->last = w->data[w->data_head];
        w->data_head = (uint8_t)((w->data_head + 1) % PS2_QUEUE);
        w->data_len--;
    }
    return w->last;
}

bool ps2_wire_ok(const struct ps2_wire *w)
{
    return w->reply_len <= PS2_REPLIES && w->data_len <= PS2_QUEUE && w->data_head < PS2_QUEUE;
}

/* -- scan codes ---- */

/* IBM PS/2 technical reference, keyboard controller: codes of set 2 by what the controller makes of them. Above 7F only two change. */
static const uint8_t set1_of[128] = {
    0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29, 0x59, /* 00 */
    0x65, 0x38, 0x2a, 0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11, 0x03, 0x5b, /* 10 */
    0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05, 0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14, 0x13, 0x06, 0x5d, /* 20 */
    0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5f, /* 30 */
    0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0c, 0x61, /* 40 */
    0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36, 0x1c, 0x1b, 0x75, 0x2b, 0x63, 0x76, /* 50 */
    0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c, 0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f, /* 60 */
    0x52, 0x53, 0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45, 0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46, 0x54, /* 70 */
};

uint8_t ps2_set2_to_set1(uint8_t code)
{
    return code < sizeof set1_of ? set1_of[code] : code == 0x83 ? 0x41 : code == 0x84 ? 0x54 : code;
}

/* F7 is 83 in set 2, which the table also reaches from 02; 54 (SysRq) is 84. */
static uint8_t set1_to_set2(uint8_t code)
{
    if (code == 0x41)
        return 0x83;
    if (code == 0x54)
        return 0x84;
    const uint8_t *p = memchr(set1_of, code, sizeof set1_of);
    return p ? (uint8_t)(p - set1_of) : 0;
}

static void pause_key(struct ps2_keyboard *k)
{
    static const uint8_t set1[] = {0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5};
    static const uint8_t set2[] = {0xe1, 0x14, 0x77, 0xe1, 0xf0, 0x14, 0xf0, 0x77};
    const uint8_t *seq = k->set == 1 ? set1 : set2;
    unsigned n = k->set == 1 ? sizeof set1 : sizeof set2;
    for (unsigned i = 0; ps2_wire_room(&k->wire, n - i) && i < n; i++)
        ps2_wire_data(&k->wire, seq[i]);
}

void ps2_kbd_key(struct ps2_keyboard *k, uint16_t code, bool down)
{
    uint8_t key = code & 0x7f;
    if (!k->scanning || !ps2_wire_room(&k->wire, 3)) /* E0 F0 xx */
        return;
    if (code == PS2_KEY_PAUSE) { /* sends all of it when pressed */
        if (down)
            pause_key(k);
        return;
    }
    if (!key || (k->set != 1 && !set1_to_set2(key)))
        return;
    if (code >> 8 == 0xe0)
        ps2_wire_data(&k->wire, 0xe0);
    if (k->set == 1) {
        ps2_wire_data(&k->wire, key | (down ? 0 : 0x80));
        return;
    }
    if (!down)
        ps2_wire_data(&k->wire, 0xf0);
    ps2_wire_data(&k->wire, set1_to_set2(key));
}

/* -- commands ---- */

static void defaults(struct ps2_keyboard *k)
{
    k->set = 2;
    k->leds = 0;
    k->typematic = 0x2b; /* 10.9 per second after 500 ms */
    k->command = 0;
    k->wire.data_len = 0;
}

void ps2_kbd_reset(struct ps2_keyboard *k)
{
    *k = (struct ps2_keyboard){.scanning = true};
    defaults(k);
}

static void parameter(struct ps2_keyboard *k, uint8_t byte)
{
    uint8_t command = k->command;
    k->command = 0;
    if (command == 0xf0 && byte > 2) {
        ps2_wire_reply(&k->wire, PS2_RESEND); /* this keyboard has no set 3 */
        return;
    }
    ps2_wire_reply(&k->wire, PS2_ACK);
    if (command == 0xed)
        k->leds = byte & 7;
    else if (command == 0xf3)
        k->typematic = byte & 0x7f;
    else if (byte == 0)
        ps2_wire_reply(&k->wire, k->set);
    else
        k->set = byte;
}

void ps2_kbd_write(struct ps2_keyboard *k, uint8_t byte)
{
    struct ps2_wire *w = &k->wire;
    w->reply_len = 0; /* a command ends the answer to the one before */
    if (k->command && byte < 0xed) {
        parameter(k, byte);
        return;
    }
    k->command = 0;
    switch (byte) {
    case 0xed:
    case 0xf0:
    case 0xf3:
        k->command = byte;
        ps2_wire_reply(w, PS2_ACK);
        break;
    case 0xee: ps2_wire_reply(w, 0xee); break;
    case 0xf2:
        ps2_wire_reply(w, PS2_ACK);
        ps2_wire_reply(w, 0xab);
        ps2_wire_reply(w, 0x83);
        break;
    case 0xf4:
        k->scanning = true;
        ps2_wire_reply(w, PS2_ACK);
        break;
    case 0xf5:
    case 0xf6:
        defaults(k);
        k->scanning = byte == 0xf6;
        ps2_wire_reply(w, PS2_ACK);
        break;
    case 0xfe: ps2_wire_reply(w, w->last); break;
    case 0xff:
        defaults(k);
        k->scanning = true;
        ps2_wire_reply(w, PS2_ACK);
        ps2_wire_reply(w, PS2_BAT_OK);
        break;
    default:
        /* F7-FD set key types of set 3: taken and of no effect; the rest does not exist */
        ps2_wire_reply(w, byte >= 0xf7 && byte <= 0xfd ? PS2_ACK : PS2_RESEND);
        break;
    }
}

bool ps2_kbd_ok(const struct ps2_keyboard *k)
{
    return ps2_wire_ok(&k->wire) && (k->set == 1 || k->set == 2) &&
           (!k->command || k->command == 0xed || k->command == 0xf0 || k->command == 0xf3);
}
