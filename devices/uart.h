/* devices/uart.h - 16550A serial port.
 *
 * Role:     FIFOs with trigger levels and character time-out, THRE and modem-status interrupts, loop-back, divisor latch, scratch.
 *           Transmission takes no time, but a byte leaves the transmitter only when the character stream has taken it: a blocked
 *           stream keeps THRE clear, so nothing is ever lost. Reception is paced at eight times the programmed
 *           rate and only into free FIFO slots, and pauses while the guest has dropped RTS after having raised it.
 * IRQ:      the chip's INTR pin. OUT2, which gates it on PC boards, is not looked at: guests exist that never set it.
 * Ports:    8 at 3f8, 2f8, 3e8, 2e8: uart_ops.
 */
#ifndef DEVICES_UART_H
#define DEVICES_UART_H
#include "devices/bus.h"
#include "devices/chardev.h"
#include "devices/dev.h"
#include "devices/irq.h"
#include "devices/vtime.h"

enum { UART_FIFO = 16 };
struct uart {
    struct uart_state {
        uint16_t divisor;
        uint8_t ier, fcr, lcr, mcr, msr, scr;
        uint8_t lsr; /* error bits and break of the character on top; DR, THRE, TEMT are computed */
        uint8_t rx[UART_FIFO], rx_flags[UART_FIFO], rx_head, rx_len;
        uint8_t tx[UART_FIFO], tx_len;
        bool
            thre_pending; /* THRE interrupt: set when the transmitter empties or is enabled, reset by reading IIR or writing THR */
        bool timeout_pending; /* characters below the trigger level have waited for four character times */
        bool rts_seen;
        uint64_t timeout_at; /* virtual ns, VTIME_NEVER */
    } s;
    struct evloop *loop;
    struct irq_line irq;
    struct chardev_user *chr; /* NULL: nothing is plugged in */
    struct vtimer timeout, pace;
    bool sending;
};
/* chr may be NULL. */
void uart_init(struct uart *u, struct evloop *loop, struct irq_line irq, struct chardev *chr);
extern const struct bus_ops uart_ops;
extern const struct dev_ops uart_dev_ops;
#endif
