/* devices/ps2_int.h - the two devices at the 8042's wires: ps2_kbd.c and ps2_mouse.c. */
#ifndef DEVICES_PS2_INT_H
#define DEVICES_PS2_INT_H
#include "devices/ps2.h"

enum { PS2_ACK = 0xfa, PS2_RESEND = 0xfe, PS2_BAT_OK = 0xaa };

void ps2_wire_clear(struct ps2_wire *w);
void ps2_wire_reply(struct ps2_wire *w, uint8_t byte); /* CHECKs: a command's replies always fit */
bool ps2_wire_room(const struct ps2_wire *w, unsigned n);
void ps2_wire_data(struct ps2_wire *w, uint8_t byte); /* after ps2_wire_room */
bool ps2_wire_busy(const struct ps2_wire *w);
uint8_t ps2_wire_take(struct ps2_wire *w);

void ps2_kbd_reset(struct ps2_keyboard *k);
void ps2_kbd_write(struct ps2_keyboard *k, uint8_t byte);
void ps2_kbd_key(struct ps2_keyboard *k, uint16_t set1, bool down);
uint8_t ps2_set2_to_set1(uint8_t code);
bool ps2_kbd_ok(const struct ps2_keyboard *k);

void ps2_aux_reset(struct ps2_mouse *m);
void ps2_aux_write(struct ps2_mouse *m, uint8_t byte);
void ps2_aux_report(struct ps2_mouse *m); /* queues a packet if there is something to say and room to say it */
bool ps2_aux_ok(const struct ps2_mouse *m);
bool ps2_wire_ok(const struct ps2_wire *w);
#endif
