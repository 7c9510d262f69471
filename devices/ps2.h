/* devices/ps2.h - 8042 keyboard controller with an AT keyboard and a PS/2 wheel mouse.
 *
 * Role:     ports 60 and 64 as on an AT/PS/2: output buffer, command byte, set 2 to set 1 translation, self tests, A20 and reset by
 *           the output port. The keyboard speaks sets 1 and 2; the mouse is an IntelliMouse (ids 0, 3, 4 by the usual knock).
 *           Bytes from the devices take a quarter of a millisecond on their wire, so a second read of port 60 finds the same
 *           byte, as old drivers expect. Replies of the controller itself are there at once.
 * Start:    as firmware leaves it: keyboard on, translated, IRQ 1 enabled; mouse off.
 * Ports:    60 and 64: ps2_data_ops, ps2_command_ops.
 */
#ifndef DEVICES_PS2_H
#define DEVICES_PS2_H
#include "devices/bus.h"
#include "devices/dev.h"
#include "devices/irq.h"
#include "devices/vtime.h"

enum { PS2_QUEUE = 64, PS2_REPLIES = 8 };
/* Bytes on their way from a device: replies go before scan codes and packets. */
struct ps2_wire {
    uint8_t reply[PS2_REPLIES], reply_len;
    uint8_t data[PS2_QUEUE], data_head, data_len;
    uint8_t last; /* for the resend command */
};
struct ps2_keyboard {
    struct ps2_wire wire;
    uint8_t command; /* awaiting its parameter; 0 = none */
    uint8_t set, leds, typematic;
    bool scanning;
};
struct ps2_mouse {
    struct ps2_wire wire;
    uint8_t command;
    uint8_t id, knock; /* knock: how much of a magic sequence of sample rates was seen */
    uint8_t rate, resolution;
    bool reporting, remote, wrap, scale2;
    uint8_t buttons, sent_buttons;
    int32_t dx, dy, dz; /* not yet reported */
};
struct ps2 {
    struct ps2_state {
        uint8_t status, mode, outport;
        uint8_t command; /* waits for a byte at port 60; 0 = none */
        uint8_t obuf;
        uint8_t ram[32];      /* byte 0 is the mode */
        bool break_seen;      /* translation: F0 was swallowed */
        uint64_t transfer_at; /* virtual ns at which the next device byte arrives, VTIME_NEVER */
        struct ps2_keyboard kbd;
        struct ps2_mouse aux;
    } s;
    struct evloop *loop;
    struct irq_line irq1, irq12, a20, reset;
    struct vtimer timer;
};
struct ps2_wiring {
    struct irq_line irq1, irq12, a20, reset; /* reset is pulsed */
};
void ps2_init(struct ps2 *p, struct evloop *loop, const struct ps2_wiring *w);

/* From the host's keyboard: set 1 make code; 0xe0xx for extended keys; PS2_KEY_PAUSE. Typematic repeat is the caller's. */
enum { PS2_KEY_PAUSE = 0xe11d };
void ps2_key(struct ps2 *p, uint16_t set1, bool down);
/* Relative movement (dy > 0 is up), wheel, buttons: 1 left, 2 right, 4 middle, 8 and 16 side. */
void ps2_mouse_event(struct ps2 *p, int dx, int dy, int dz, uint8_t buttons);
/* Bits as in command ED: 1 scroll, 2 num, 4 caps. */
uint8_t ps2_leds(const struct ps2 *p);
extern const struct bus_ops ps2_data_ops, ps2_command_ops;
extern const struct dev_ops ps2_dev_ops;
#endif
