/* devices/rtc.h - MC146818 real-time clock with 128 bytes of CMOS RAM.
 *
 * Role:     calendar from the host's clock plus what the guest set; BCD or binary, 12 or 24 hours, century in byte 32h; alarm,
 *           update-ended and periodic interrupts on IRQ 8. Flags that nobody asked to be interrupted for are worked out
 *           when register C is read, so an unused clock costs no wake-up. Periodic ticks lost to a busy host are made up for.
 * Ports:    70-71 rtc_ops.
 */
#ifndef DEVICES_RTC_H
#define DEVICES_RTC_H
#include "devices/bus.h"
#include "devices/dev.h"
#include "devices/irq.h"
#include "devices/vtime.h"

enum { RTC_RAM_BYTES = 128 };
enum { /* CMOS bytes with a meaning to PC firmware */
       RTC_CENTURY = 0x32,
       RTC_CHECKSUM_FIRST = 0x10,
       RTC_CHECKSUM_LAST = 0x2d,
       RTC_CHECKSUM_HIGH = 0x2e,
       RTC_CHECKSUM_LOW = 0x2f,
};
struct rtc {
    struct rtc_state {
        uint8_t ram[RTC_RAM_BYTES]; /* time bytes: valid only while the calendar stands still */
        uint8_t index;
        bool nmi_masked;      /* bit 7 of port 70 */
        int64_t offset_s;     /* calendar seconds - seconds of the divider chain */
        uint32_t phase_ns;    /* the chain's shift against the host's wall clock, below one second */
        int8_t weekday_shift; /* the guest's day of week is a counter of its own */
        uint64_t seen;        /* virtual time up to which flags have been worked out */
        uint32_t owed;        /* periodic interrupts lost, to be made up for */
        uint32_t unanswered;  /* periodic interrupts since register C was read */
        uint64_t repay_at;
    } s;
    struct evloop *loop;
    struct irq_line irq;
    int64_t
        wall_base; /* CLOCK_REALTIME ns at virtual time 0, sampled once: steps of the host's clock must not disturb the phase */
    struct vtimer timer;
};
/* offset_s: what the calendar is ahead of UTC at the start (local time, -rtc base=). */
void rtc_init(struct rtc *r, struct evloop *loop, struct irq_line irq8, int64_t offset_s);
/* The board's and the firmware's view of the RAM, bytes 0Eh-7Fh. */
void rtc_set_ram(struct rtc *r, uint8_t index, uint8_t val);
uint8_t rtc_get_ram(const struct rtc *r, uint8_t index);
/* Base memory, extended memory below 16 MiB / 4 GiB and above, in the bytes where BIOSes look. */
void rtc_set_memory_size(struct rtc *r, uint64_t below_4g_bytes, uint64_t above_4g_bytes);
void rtc_update_checksum(struct rtc *r);
extern const struct bus_ops rtc_ops;
extern const struct dev_ops rtc_dev_ops;
#endif
