#include "devices/uart.h"
#include "base/check.h"
#include "base/err.h"
#include <string.h>

/* Registers, by offset; [r] read, [w] write, [d] with the divisor latch access bit. */
enum { RBR_THR_DLL = 0, IER_DLM = 1, IIR_FCR = 2, LCR = 3, MCR = 4, LSR = 5, MSR = 6, SCR = 7 };
enum { IER_RX = 1, IER_THRE = 2, IER_LINE = 4, IER_MODEM = 8 };
enum { IIR_MODEM = 0, IIR_NONE = 1, IIR_THRE = 2, IIR_RX = 4, IIR_LINE = 6, IIR_TIMEOUT = 12, IIR_FIFO = 0xc0 };
enum { FCR_ENABLE = 1, FCR_CLEAR_RX = 2, FCR_CLEAR_TX = 4, FCR_DMA = 8, FCR_TRIGGER = 0xc0 };
enum { LCR_BREAK = 0x40, LCR_DLAB = 0x80 };
enum { MCR_DTR = 1, MCR_RTS = 2, MCR_OUT1 = 4, MCR_OUT2 = 8, MCR_LOOP = 0x10 };
enum {
    LSR_DR = 1,
    LSR_OE = 2,
    LSR_PE = 4,
    LSR_FE = 8,
    LSR_BI = 0x10,
    LSR_THRE = 0x20,
    LSR_TEMT = 0x40,
    LSR_FIFO_ERR = 0x80
};
enum { LSR_CHAR = LSR_PE | LSR_FE | LSR_BI, LSR_ERRORS = LSR_OE | LSR_CHAR };
enum { MSR_DELTA = 0x0f, MSR_CTS = 0x10, MSR_DSR = 0x20, MSR_RI = 0x40, MSR_DCD = 0x80 };
enum { BASE_BAUD = 115200, PACE_SPEEDUP = 8, TIMEOUT_CHARS = 4 };

static bool fifo_on(const struct uart *u) { return u->s.fcr & FCR_ENABLE; }

static unsigned depth(const struct uart *u) { return fifo_on(u) ? UART_FIFO : 1; }

static unsigned trigger(const struct uart *u)
{
    static const uint8_t level[] = {1, 4, 8, 14};
    return fifo_on(u) ? level[u->s.fcr >> 6] : 1;
}

/* Start, data, parity and stop bits at the programmed rate. */
static uint64_t char_ns(const struct uart *u)
{
    unsigned bits = 1 + 5 + (u->s.lcr & 3) + (u->s.lcr >> 3 & 1) + 1 + (u->s.lcr >> 2 & 1);
    unsigned divisor = u->s.divisor ? u->s.divisor : 1;
    return NS_PER_SEC * bits * divisor / BASE_BAUD;
}

/* -- interrupts ---- */

/* Highest-priority source that is enabled (data sheet, interrupt control functions). */
static uint8_t interrupt_id(const struct uart *u)
{
    const struct uart_state *s = &u->s;
    if ((s->ier & IER_LINE) && (s->lsr & LSR_ERRORS))
        return IIR_LINE;
    if ((s->ier & IER_RX) && s->rx_len >= trigger(u))
        return IIR_RX;
    if ((s->ier & IER_RX) && s->timeout_pending)
        return IIR_TIMEOUT;
    if ((s->ier & IER_THRE) && s->thre_pending)
        return IIR_THRE;
    if ((s->ier & IER_MODEM) && (s->msr & MSR_DELTA))
        return IIR_MODEM;
    return IIR_NONE;
}

static void update_irq(struct uart *u) { irq_set(&u->irq, interrupt_id(u) != IIR_NONE); }

/* Any access to the receive FIFO starts the time-out anew. */
static void restart_timeout(struct uart *u)
{
    u->s.timeout_pending = false;
    u->s.timeout_at = VTIME_NEVER;
    if (fifo_on(u) && u->s.rx_len && u->s.rx_len < trigger(u))
        u->s.timeout_at = vtime_now(u->loop) + TIMEOUT_CHARS * char_ns(u);
    vtimer_arm(&u->timeout, u->s.timeout_at);
}

static void on_timeout(void *opaque)
{
    struct uart *u = opaque;
    u->s.timeout_at = VTIME_NEVER;
    u->s.timeout_pending = u->s.rx_len != 0;
    update_irq(u);
}

/* -- receiver ---- */

static void top_of_fifo(struct uart *u)
{
    if (u->s.rx_len)
        u->s.lsr |= u->s.rx_flags[u->s.rx_head];
}

static void push(struct uart *u, uint8_t byte, uint8_t flags)
{
    struct uart_state *s = &u->s;
    if (s->rx_len >= depth(u)) {
        s->lsr |= LSR_OE;
        if (fifo_on(u))
            return; /* the FIFO stays, the shift register is overwritten */
        s->rx_len = 0;
    }
    unsigned i = (s->rx_head + s->rx_len++) % UART_FIFO;
    s->rx[i] = byte;
    s->rx_flags[i] = flags;
    if (s->rx_len == 1)
        top_of_fifo(u);
}

static uint8_t pop(struct uart *u)
{
    struct uart_state *s = &u->s;
    uint8_t byte = s->rx[s->rx_head];
    if (s->rx_len) {
        s->rx_head = (uint8_t)((s->rx_head + 1) % UART_FIFO);
        s->rx_len--;
        top_of_fifo(u);
    }
    restart_timeout(u);
    return byte;
}

/* Whether characters may arrive from the line. */
static bool listening(const struct uart *u)
{
    bool held_off = u->s.rts_seen && !(u->s.mcr & MCR_RTS);
    return !held_off && !(u->s.mcr & MCR_LOOP) && u->s.rx_len < depth(u);
}

static size_t can_receive(void *opaque)
{
    struct uart *u = opaque;
    return listening(u) && !vtimer_is_armed(&u->pace) ? depth(u) - u->s.rx_len : 0;
}

static void receive(void *opaque, const uint8_t *buf, size_t n)
{
    struct uart *u = opaque;
    for (size_t i = 0; i < n; i++)
        push(u, buf[i], 0);
    vtimer_arm(&u->pace, vtime_now(u->loop) + n * char_ns(u) / PACE_SPEEDUP);
    restart_timeout(u);
    update_irq(u);
}

/* The guest made room, or the pace allows more. Deferred to the event loop, so that a guest that empties the FIFO in a loop sees
 * it empty, as at a finite line speed. */
static void want_input(struct uart *u)
{
    if (u->chr && listening(u) && !vtimer_is_armed(&u->pace))
        vtimer_arm(&u->pace, vtime_now(u->loop) + char_ns(u) / PACE_SPEEDUP);
}

static void on_pace(void *opaque)
{
    struct uart *u = opaque;
    chardev_accept_input(u->chr);
}

static void on_event(void *opaque, enum chardev_event ev)
{
    struct uart *u = opaque;
    if (ev != CHARDEV_BREAK || u->s.mcr & MCR_LOOP)
        return;
    push(u, 0, LSR_BI);
    restart_timeout(u);
    update_irq(u);
}

/* -- transmitter ---- */

static void sent(struct uart *u)
{
    u->s.tx_len = 0;
    u->s.thre_pending = true;
    update_irq(u);
}

static void send(struct uart *u)
{
    if (u->sending || !u->s.tx_len)
        return;
    u->sending = true; /* writable() may be called from within */
    size_t n = u->chr ? chardev_write(u->chr, u->s.tx, u->s.tx_len) : u->s.tx_len;
    u->sending = false;
    u->s.tx_len -= (uint8_t)n;
    memmove(u->s.tx, u->s.tx + n, u->s.tx_len);
    if (!u->s.tx_len)
        sent(u);
}

static void writable(void *opaque) { send(opaque); }

static void transmit(struct uart *u, uint8_t byte)
{
    struct uart_state *s = &u->s;
    s->thre_pending = false;
    if (s->mcr & MCR_LOOP) {
        push(u, byte, 0);
        restart_timeout(u);
        sent(u);
        return;
    }
    if (s->tx_len < depth(u))
        s->tx[s->tx_len++] = byte;
    else /* written without looking at THRE: the last one is overwritten, as in the chip */
        s->tx[s->tx_len - 1] = byte;
    update_irq(u);
    send(u);
}

/* -- modem lines ---- */

static uint8_t modem_lines(const struct uart *u)
{
    uint8_t mcr = u->s.mcr;
    if (!(mcr & MCR_LOOP))
        return MSR_CTS | MSR_DSR | MSR_DCD; /* a null modem that is always ready */
    return (mcr & MCR_DTR ? MSR_DSR : 0) | (mcr & MCR_RTS ? MSR_CTS : 0) | (mcr & MCR_OUT1 ? MSR_RI : 0) |
           (mcr & MCR_OUT2 ? MSR_DCD : 0);
}

static void update_modem(struct uart *u)
{
    uint8_t was = u->s.msr & (uint8_t)~MSR_DELTA, is = modem_lines(u), changed = was ^ is;
    uint8_t delta = (changed & MSR_CTS ? 1 : 0) | (changed & MSR_DSR ? 2 : 0) | (changed & MSR_DCD ? 8 : 0) |
                    (was & ~is & MSR_RI ? 4 : 0); /* ring: trailing edge only */
    u->s.msr = is | (u->s.msr & MSR_DELTA) | delta;
    update_irq(u);
}

/* -- registers ---- */

static uint8_t read_lsr(struct uart *u)
{
    struct uart_state *s = &u->s;
    uint8_t val = s->lsr | (s->rx_len ? LSR_DR : 0) | (s->tx_len ? 0 : LSR_THRE | LSR_TEMT);
    for (unsigned i = 0; fifo_on(u) && i < s->rx_len; i++)
        if (s->rx_flags[(s->rx_head + i) % UART_FIFO])
            val |= LSR_FIFO_ERR;
    s->lsr = 0;
    if (s->rx_len)
        s->rx_flags[s->rx_head] = 0; /* reported */
    update_irq(u);
    return val;
}

static uint8_t read_iir(struct uart *u)
{
    uint8_t id = interrupt_id(u);
    if (id == IIR_THRE) {
        u->s.thre_pending = false;
        update_irq(u);
    }
    return id | (fifo_on(u) ? IIR_FIFO : 0);
}

static uint8_t read_rbr(struct uart *u)
{
    uint8_t byte = pop(u);
    update_irq(u);
    want_input(u);
    return byte;
}

static uint64_t uart_read(void *opaque, uint64_t offset, unsigned size)
{
    struct uart *u = opaque;
    struct uart_state *s = &u->s;
    uint8_t val;
    switch (offset) {
    case RBR_THR_DLL: return s->lcr & LCR_DLAB ? s->divisor & 0xff : read_rbr(u);
    case IER_DLM: return s->lcr & LCR_DLAB ? s->divisor >> 8 : s->ier;
    case IIR_FCR: return read_iir(u);
    case LCR: return s->lcr;
    case MCR: return s->mcr;
    case LSR: return read_lsr(u);
    case MSR:
        val = s->msr;
        s->msr &= (uint8_t)~MSR_DELTA;
        update_irq(u);
        return val;
    default: return s->scr;
    }
}

static void write_ier(struct uart *u, uint8_t val)
{
    uint8_t was = u->s.ier;
    u->s.ier = val & 0x0f;
    /* Enabling the interrupt while the transmitter is empty raises it at once: drivers start and probe with that. */
    if ((u->s.ier & ~was & IER_THRE) && !u->s.tx_len)
        u->s.thre_pending = true;
    update_irq(u);
}

static void clear_rx(struct uart *u)
{
    u->s.rx_head = u->s.rx_len = 0;
    u->s.lsr &= (uint8_t)~LSR_CHAR;
    restart_timeout(u);
}

static void write_fcr(struct uart *u, uint8_t val)
{
    if ((val ^ u->s.fcr) & FCR_ENABLE)
        val |= FCR_CLEAR_RX | FCR_CLEAR_TX; /* changing the mode clears both */
    u->s.fcr = val & FCR_ENABLE ? val & (FCR_ENABLE | FCR_DMA | FCR_TRIGGER) : 0;
    if (val & FCR_CLEAR_RX)
        clear_rx(u);
    if ((val & FCR_CLEAR_TX) && u->s.tx_len)
        sent(u);
    restart_timeout(u);
    update_irq(u);
    want_input(u);
}

static void write_mcr(struct uart *u, uint8_t val)
{
    u->s.mcr = val & 0x1f;
    u->s.rts_seen |= val & MCR_RTS && !(val & MCR_LOOP);
    update_modem(u);
    want_input(u);
}

static void uart_write(void *opaque, uint64_t offset, unsigned size, uint64_t v)
{
    struct uart *u = opaque;
    struct uart_state *s = &u->s;
    uint8_t val = (uint8_t)v;
    switch (offset) {
    case RBR_THR_DLL:
        if (s->lcr & LCR_DLAB)
            s->divisor = (s->divisor & 0xff00) | val;
        else
            transmit(u, val);
        break;
    case IER_DLM:
        if (s->lcr & LCR_DLAB)
            s->divisor = (uint16_t)((s->divisor & 0xff) | val << 8);
        else
            write_ier(u, val);
        break;
    case IIR_FCR: write_fcr(u, val); break;
    case LCR: s->lcr = val; break;
    case MCR: write_mcr(u, val); break;
    case LSR: break; /* factory test only */
    case MSR: break;
    default: s->scr = val; break;
    }
}

const struct bus_ops uart_ops = {.read = uart_read, .write = uart_write, .max_size = 1};

/* -- life ---- */

static void reset(void *dev)
{
    struct uart *u = dev;
    u->s = (struct uart_state){.divisor = 12, .timeout_at = VTIME_NEVER};
    u->s.msr = modem_lines(u);
    vtimer_cancel(&u->timeout);
    update_irq(u);
    want_input(u);
}

static const struct chardev_ops stream = {
    .can_receive = can_receive, .receive = receive, .writable = writable, .event = on_event};

void uart_init(struct uart *u, struct evloop *loop, struct irq_line irq, struct chardev *chr)
{
    *u = (struct uart){.loop = loop, .irq = irq};
    vtimer_init(&u->timeout, loop, on_timeout, u);
    vtimer_init(&u->pace, loop, on_pace, u);
    reset(u);
    if (chr)
        u->chr = chardev_attach(chr, &stream, u);
}

#define S(m) DEV_FIELD(struct uart_state, m)
#define A(m) DEV_ARRAY(struct uart_state, m)
static const struct dev_field fields[] = {
    S(divisor),  S(ier),        S(fcr),     S(lcr),    S(mcr), S(msr),    S(scr),          S(lsr),
    A(rx),       A(rx_flags),   S(rx_head), S(rx_len), A(tx),  S(tx_len), S(thre_pending), S(timeout_pending),
    S(rts_seen), S(timeout_at),
};
#undef S
#undef A

static void save(const void *dev, struct dev_writer *w)
{
    dev_put_fields(w, &((const struct uart *)dev)->s, fields, DEV_COUNT(fields));
}

static int restore(void *dev, struct dev_reader *r, uint16_t version)
{
    struct uart *u = dev;
    struct uart_state s = {0};
    dev_get_fields(r, &s, fields, DEV_COUNT(fields));
    unsigned room = s.fcr & FCR_ENABLE ? UART_FIFO : 1;
    if (r->failed || s.rx_head >= UART_FIFO || s.rx_len > room || s.tx_len > room || s.ier > 0x0f || s.mcr > 0x1f)
        return -RD_E_FORMAT;
    u->s = s;
    vtimer_arm(&u->timeout, s.timeout_at);
    send(u); /* what had not got out */
    want_input(u);
    return 0;
}

const struct dev_ops uart_dev_ops = {.type = "uart", .version = 1, .reset = reset, .save = save, .restore = restore};
