/* devices/pit.h - 8254 interval timer and port 61h (speaker gate, refresh toggle).
 *
 * Role:     three counters, modes 0-5, binary and BCD, latch and read-back commands. Nothing is counted step by step: counters
 *           are computed from virtual time in exact ticks of 1193182 Hz, so they cannot drift. Only channel 0's rising
 *           edges cost a host timer.
 * Lost ticks: when the machine thread comes late by several periods, or channel 0's last edge has not been acknowledged yet, the
 *           ticks are owed and delivered afterwards at up to four times the rate, so that guests that count ticks keep time.
 *           At most PIT_OWED_MAX; a guest that acknowledges nothing for a second is owed nothing (IRQ 0 is masked).
 *           For this the board calls pit_irq_acked when the CPU takes IRQ 0, by whichever controller.
 * Ports:    40-43 pit_ops, 61 pit_port61_ops.
 */
#ifndef DEVICES_PIT_H
#define DEVICES_PIT_H
#include "devices/bus.h"
#include "devices/dev.h"
#include "devices/irq.h"
#include "devices/vtime.h"

#define PIT_HZ 1193182u
enum { PIT_OWED_MAX = 1000 };

struct pit_channel {
    /* as programmed */
    uint8_t mode;    /* 0-5 */
    uint8_t control; /* low six bits of the control word, for the status byte */
    bool bcd;
    uint8_t access; /* 1 = LSB, 2 = MSB, 3 = both */
    bool gate;
    /* byte flip-flops and latches */
    bool write_msb, read_msb; /* with access 3: the second byte is next */
    uint8_t write_lsb;
    bool status_latched;
    uint8_t latched; /* bytes of the latch still to be read: 0, 1, 2 */
    uint8_t status;
    uint16_t latch;
    /* counting; times are PIT ticks since virtual time 0 */
    bool loaded;    /* the counting element was loaded since the control word */
    bool halted;    /* not counting (gate low, or a half-written count): held is the progress */
    uint32_t count; /* 1..65536, or 10000 in BCD: what the present cycle started with */
    uint32_t next;  /* 0, or a count that takes effect at switch_at, or at the trigger (modes 1, 5) */
    int64_t start;  /* when count was loaded */
    int64_t held;
    int64_t switch_at;
    uint16_t idle; /* what the counter shows before it is loaded */
};
struct pit {
    struct pit_state {
        struct pit_channel ch[3];
        uint8_t port61;      /* bits 0-3 as written */
        int64_t counted;     /* channel 0: rising edges up to this tick have been counted */
        uint32_t owed;       /* lost ticks to be made up for */
        uint32_t unanswered; /* edges since the last acknowledge */
        uint64_t repay_at;   /* virtual ns, VTIME_NEVER */
    } s;
    struct evloop *loop;
    struct irq_line irq;
    bool ack_known; /* the board reports acknowledges */
    struct vtimer timer;
};
void pit_init(struct pit *p, struct evloop *loop, struct irq_line irq0, bool ack_known);
void pit_irq_acked(struct pit *p);
/* Speaker input: gate 2 and data enable set, and the output of channel 2 (tests; a future sound back end). */
bool pit_speaker_level(const struct pit *p);
extern const struct bus_ops pit_ops, pit_port61_ops;
extern const struct dev_ops pit_dev_ops;
#endif
