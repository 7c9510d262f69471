#define _GNU_SOURCE /* timegm */
#include "devices/rtc.h"
#include "base/check.h"
#include "base/err.h"
#include <string.h>
#include <time.h>

enum {
    SECONDS,
    SECONDS_ALARM,
    MINUTES,
    MINUTES_ALARM,
    HOURS,
    HOURS_ALARM,
    WEEKDAY,
    DAY,
    MONTH,
    YEAR,
    REG_A,
    REG_B,
    REG_C,
    REG_D
};
enum { A_UIP = 0x80, A_DIVIDER = 0x70, A_DIVIDER_RUN = 0x20, A_DIVIDER_RESET = 0x60, A_RATE = 0x0f };
enum { B_SET = 0x80, B_PIE = 0x40, B_AIE = 0x20, B_UIE = 0x10, B_SQWE = 0x08, B_BINARY = 0x04, B_24H = 0x02 };
enum { C_IRQ = 0x80, C_PF = 0x40, C_AF = 0x20, C_UF = 0x10, D_VALID = 0x80 };
enum { PM = 0x80, ALARM_ANY = 0xc0, OWED_MAX = 1000, CHAIN_HZ = 32768 };

static const int64_t SEC = (int64_t)NS_PER_SEC;
static const int64_t UIP_NS = 244140; /* data sheet: UIP is high 244 us before an update, which is instantaneous here */
static const int64_t OFFSET_LIMIT = INT64_C(1) << 40; /* seconds: 35,000 years */
static const uint64_t REPAY_MIN_NS = 50000;

static int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b < 0); }

/* -- calendar ---- */

static bool stands_still(const struct rtc *r)
{
    return (r->s.ram[REG_B] & B_SET) || (r->s.ram[REG_A] & A_DIVIDER_RESET) == A_DIVIDER_RESET;
}

/* The divider chain: ns since 1970 by the host, shifted by less than a second. Calendar time is the chain's seconds plus
 * offset_s; kept apart so that no year a guest can set overflows. */
static int64_t chain_ns(const struct rtc *r, uint64_t at) { return (int64_t)at + r->wall_base + r->s.phase_ns; }

static uint64_t virtual_of(const struct rtc *r, int64_t chain)
{
    return (uint64_t)(chain - r->wall_base - r->s.phase_ns);
}

static int64_t chain_second(const struct rtc *r, uint64_t at) { return floor_div(chain_ns(r, at), SEC); }

static int64_t sub_second(const struct rtc *r, uint64_t at) { return chain_ns(r, at) - chain_second(r, at) * SEC; }

static uint8_t encode(const struct rtc *r, unsigned v)
{
    return (uint8_t)(r->s.ram[REG_B] & B_BINARY ? v : (v / 10 % 10) << 4 | v % 10);
}

static unsigned decode(const struct rtc *r, uint8_t v)
{
    return r->s.ram[REG_B] & B_BINARY ? v : (v >> 4) * 10u + (v & 15);
}

static uint8_t encode_hour(const struct rtc *r, unsigned h)
{
    if (r->s.ram[REG_B] & B_24H)
        return encode(r, h);
    return encode(r, h % 12 ? h % 12 : 12) | (h >= 12 ? PM : 0);
}

static unsigned decode_hour(const struct rtc *r, uint8_t v)
{
    if (r->s.ram[REG_B] & B_24H)
        return decode(r, v);
    return decode(r, v & (uint8_t)~PM) % 12 + (v & PM ? 12 : 0);
}

/* Writes the calendar's time bytes for a second into ram[]. */
static void time_to_ram(const struct rtc *r, int64_t seconds, uint8_t *ram)
{
    time_t t = seconds;
    struct tm tm;
    if (!gmtime_r(&t, &tm))
        memset(&tm, 0, sizeof tm);
    unsigned year = (unsigned)(tm.tm_year + 1900) % 10000;
    ram[SECONDS] = encode(r, (unsigned)tm.tm_sec);
    ram[MINUTES] = encode(r, (unsigned)tm.tm_min);
    ram[HOURS] = encode_hour(r, (unsigned)tm.tm_hour);
    ram[WEEKDAY] = encode(r, (unsigned)(tm.tm_wday + r->s.weekday_shift + 7) % 7 + 1);
    ram[DAY] = encode(r, (unsigned)tm.tm_mday);
    ram[MONTH] = encode(r, (unsigned)tm.tm_mon + 1);
    ram[YEAR] = encode(r, year % 100);
    ram[RTC_CENTURY] = encode(r, year / 100);
}

/* The guest may have written anything: out-of-range fields carry over, as timegm has it. */
static int64_t ram_to_time(struct rtc *r)
{
    const uint8_t *ram = r->s.ram;
    struct tm tm = {
        .tm_sec = (int)decode(r, ram[SECONDS]),
        .tm_min = (int)decode(r, ram[MINUTES]),
        .tm_hour = (int)decode_hour(r, ram[HOURS]),
        .tm_mday = (int)decode(r, ram[DAY]),
        .tm_mon = (int)decode(r, ram[MONTH]) - 1,
        .tm_year = (int)(decode(r, ram[RTC_CENTURY]) * 100 + decode(r, ram[YEAR])) - 1900,
    };
    int64_t t = timegm(&tm);
    int wday = (int)((decode(r, ram[WEEKDAY]) + 6) % 7);
    r->s.weekday_shift = (int8_t)((wday - tm.tm_wday + 7) % 7);
    return t;
}

/* The calendar stops: its bytes become plain memory. The time is that of the last catch_up. */
static void freeze(struct rtc *r) { time_to_ram(r, chain_second(r, r->s.seen) + r->s.offset_s, r->s.ram); }

/* The calendar goes on from the bytes in RAM; the chain's phase is not touched. */
static void thaw(struct rtc *r) { r->s.offset_s = ram_to_time(r) - chain_second(r, r->s.seen); }

static void set_phase(struct rtc *r, int64_t sub_ns)
{
    int64_t shift = r->s.phase_ns + sub_ns - sub_second(r, r->s.seen);
    r->s.phase_ns = (uint32_t)(shift - floor_div(shift, SEC) * SEC);
}

/* -- events ---- */

/* Periodic rate in ticks of the 32768 Hz chain; 0 = none. The chain shares its phase with the calendar's seconds. */
static unsigned period_ticks(const struct rtc *r)
{
    unsigned rate = r->s.ram[REG_A] & A_RATE;
    if (!rate || (r->s.ram[REG_A] & A_DIVIDER) != A_DIVIDER_RUN)
        return 0;
    return rate <= 2 ? 1u << (rate + 6) : 1u << (rate - 1);
}

static uint64_t period_ns(const struct rtc *r) { return (uint64_t)period_ticks(r) * NS_PER_SEC / CHAIN_HZ; }

/* Number of the period that a time of the chain lies in. Seconds and fraction apart, so that nothing overflows. */
static int64_t period_index(const struct rtc *r, int64_t chain)
{
    int64_t sec = floor_div(chain, SEC), sub = chain - sec * SEC;
    return (sec * CHAIN_HZ + sub * CHAIN_HZ / SEC) / (int64_t)period_ticks(r);
}

static int64_t period_start(const struct rtc *r, int64_t index)
{
    int64_t ticks = index * (int64_t)period_ticks(r);
    int64_t sec = floor_div(ticks, CHAIN_HZ), sub = ticks - sec * CHAIN_HZ;
    return sec * SEC + (sub * SEC + CHAIN_HZ - 1) / CHAIN_HZ;
}

static int alarm_field(const struct rtc *r, unsigned reg)
{
    uint8_t v = r->s.ram[reg];
    if (v >= ALARM_ANY)
        return -1;
    return (int)(reg == HOURS_ALARM ? decode_hour(r, v) : decode(r, v));
}

/* First chain second after `after` at which the alarm matches, or INT64_MAX: field by field, so at most some 150 steps. */
static int64_t next_alarm(const struct rtc *r, int64_t after)
{
    int hour = alarm_field(r, HOURS_ALARM), min = alarm_field(r, MINUTES_ALARM), sec = alarm_field(r, SECONDS_ALARM);
    int64_t t = after + 1 + r->s.offset_s, limit = t + 86400;
    while (t < limit) {
        int64_t day = t - floor_div(t, 86400) * 86400;
        if (hour >= 0 && day / 3600 != hour)
            t += 3600 - day % 3600;
        else if (min >= 0 && day / 60 % 60 != min)
            t += 60 - day % 60;
        else if (sec >= 0 && day % 60 != sec)
            t++;
        else
            return t - r->s.offset_s;
    }
    return INT64_MAX;
}

static void drive_irq(struct rtc *r)
{
    uint8_t *ram = r->s.ram;
    bool on = ram[REG_C] & ram[REG_B] & (C_PF | C_AF | C_UF);
    ram[REG_C] = (uint8_t)((ram[REG_C] & ~C_IRQ) | (on ? C_IRQ : 0));
    irq_set(&r->irq, on);
}

/* Ticks that the guest could not have seen one by one are owed to it, unless it has not looked for a second. */
static void periodic_ticks(struct rtc *r, int64_t n)
{
    uint32_t second = CHAIN_HZ / period_ticks(r);
    bool wanted = r->s.ram[REG_B] & B_PIE;
    uint64_t owed = r->s.owed + (uint64_t)(n - 1) + (r->s.unanswered != 0);
    r->s.owed = !wanted || r->s.unanswered > second ? 0 : owed > OWED_MAX ? OWED_MAX : (uint32_t)owed;
    if (r->s.unanswered < UINT32_MAX)
        r->s.unanswered++;
    r->s.ram[REG_C] |= C_PF;
}

/* Sets the flags for everything that happened up to now. */
static void catch_up(struct rtc *r)
{
    uint64_t now = vtime_now(r->loop);
    int64_t from = chain_ns(r, r->s.seen), to = chain_ns(r, now);
    if (period_ticks(r)) {
        int64_t n = period_index(r, to) - period_index(r, from);
        if (n > 0)
            periodic_ticks(r, n);
    }
    int64_t last = floor_div(from, SEC), sec = floor_div(to, SEC);
    if (!stands_still(r) && sec > last)
        r->s.ram[REG_C] |= C_UF | (next_alarm(r, last) <= sec ? C_AF : 0);
    r->s.seen = now;
    if (now >= r->s.repay_at) {
        r->s.repay_at = VTIME_NEVER;
        if (r->s.owed && !(r->s.ram[REG_C] & C_PF)) {
            r->s.owed--;
            r->s.unanswered = 1;
            r->s.ram[REG_C] |= C_PF;
        }
    }
}

static uint64_t earlier(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* The host timer runs only for what would interrupt. */
static void rearm(struct rtc *r)
{
    const uint8_t *ram = r->s.ram;
    uint64_t at = r->s.repay_at;
    int64_t now = chain_ns(r, r->s.seen), sec = floor_div(now, SEC);
    if ((ram[REG_B] & B_PIE) && period_ticks(r))
        at = earlier(at, virtual_of(r, period_start(r, period_index(r, now) + 1)));
    if (!stands_still(r)) {
        int64_t alarm = ram[REG_B] & B_AIE & ~ram[REG_C] ? next_alarm(r, sec) : INT64_MAX;
        if (ram[REG_B] & B_UIE & ~ram[REG_C])
            at = earlier(at, virtual_of(r, (sec + 1) * SEC));
        if (alarm != INT64_MAX)
            at = earlier(at, virtual_of(r, alarm * SEC));
    }
    vtimer_arm(&r->timer, at);
}

static void on_timer(void *opaque)
{
    struct rtc *r = opaque;
    catch_up(r);
    drive_irq(r);
    rearm(r);
}

/* -- registers ---- */

static bool is_time(unsigned reg)
{
    return reg == RTC_CENTURY || reg == SECONDS || reg == MINUTES || reg == HOURS || (reg >= WEEKDAY && reg <= YEAR);
}

static void write_a(struct rtc *r, uint8_t val)
{
    bool was_still = stands_still(r), was_reset = (r->s.ram[REG_A] & A_DIVIDER_RESET) == A_DIVIDER_RESET;
    bool is_reset = (val & A_DIVIDER_RESET) == A_DIVIDER_RESET;
    if (!was_still && is_reset)
        freeze(r);
    r->s.ram[REG_A] = val & (uint8_t)~A_UIP;
    if (was_reset && !is_reset)
        set_phase(r, SEC / 2); /* a released divider makes its first update half a second later */
    if (was_still && !stands_still(r))
        thaw(r);
}

static void write_b(struct rtc *r, uint8_t val)
{
    bool was_still = stands_still(r);
    if (!was_still && (val & B_SET))
        freeze(r);
    if (val & B_SET)
        val &= (uint8_t)~B_UIE;
    r->s.ram[REG_B] = val;
    if (was_still && !stands_still(r))
        thaw(r);
    if (!(val & B_PIE))
        r->s.owed = r->s.unanswered = 0;
}

static void write_time(struct rtc *r, unsigned reg, uint8_t val)
{
    bool still = stands_still(r);
    if (!still)
        freeze(r);
    r->s.ram[reg] = val;
    if (!still)
        thaw(r);
}

static void write_reg(struct rtc *r, unsigned reg, uint8_t val)
{
    catch_up(r);
    if (is_time(reg))
        write_time(r, reg, val);
    else if (reg == REG_A)
        write_a(r, val);
    else if (reg == REG_B)
        write_b(r, val);
    else if (reg != REG_C && reg != REG_D)
        r->s.ram[reg] = val;
    drive_irq(r);
    rearm(r);
}

static uint8_t read_c(struct rtc *r)
{
    catch_up(r);
    drive_irq(r);
    uint8_t val = r->s.ram[REG_C];
    r->s.ram[REG_C] = 0;
    r->s.unanswered = 0;
    if (r->s.owed && r->s.repay_at == VTIME_NEVER) {
        uint64_t gap = period_ns(r) / 4;
        r->s.repay_at = r->s.seen + (gap > REPAY_MIN_NS ? gap : REPAY_MIN_NS);
    }
    drive_irq(r);
    rearm(r);
    return val;
}

static uint8_t read_reg(struct rtc *r, unsigned reg)
{
    uint8_t ram[RTC_RAM_BYTES];
    if (reg == REG_C)
        return read_c(r);
    if (reg == REG_D)
        return D_VALID;
    if (reg == REG_A)
        return r->s.ram[REG_A] | (!stands_still(r) && sub_second(r, vtime_now(r->loop)) >= SEC - UIP_NS ? A_UIP : 0);
    if (!is_time(reg) || stands_still(r))
        return r->s.ram[reg];
    time_to_ram(r, chain_second(r, vtime_now(r->loop)) + r->s.offset_s, ram);
    return ram[reg];
}

static uint64_t port_read(void *opaque, uint64_t offset, unsigned size)
{
    struct rtc *r = opaque;
    return offset ? read_reg(r, r->s.index) : 0xff; /* the index port is write-only */
}

static void port_write(void *opaque, uint64_t offset, unsigned size, uint64_t val)
{
    struct rtc *r = opaque;
    if (offset) {
        write_reg(r, r->s.index, (uint8_t)val);
    } else {
        r->s.index = val & 0x7f;
        r->s.nmi_masked = val & 0x80;
    }
}

const struct bus_ops rtc_ops = {.read = port_read, .write = port_write, .max_size = 1};

/* -- the board's side ---- */

void rtc_set_ram(struct rtc *r, uint8_t index, uint8_t val)
{
    CHECK(index > REG_D && index < RTC_RAM_BYTES);
    write_reg(r, index, val);
}

uint8_t rtc_get_ram(const struct rtc *r, uint8_t index)
{
    CHECK(index > REG_D && index < RTC_RAM_BYTES);
    return r->s.ram[index];
}

static void put_le(struct rtc *r, uint8_t index, unsigned bytes, uint64_t val, uint64_t max)
{
    val = val > max ? max : val;
    for (unsigned i = 0; i < bytes; i++)
        r->s.ram[index + i] = (uint8_t)(val >> 8 * i);
}

void rtc_set_memory_size(struct rtc *r, uint64_t below_4g_bytes, uint64_t above_4g_bytes)
{
    uint64_t mib = 1 << 20, below = below_4g_bytes;
    put_le(r, 0x15, 2, below / 1024, 640);
    put_le(r, 0x17, 2, below > mib ? (below - mib) / 1024 : 0, 0xffff);
    put_le(r, 0x30, 2, below > mib ? (below - mib) / 1024 : 0, 0xffff);
    put_le(r, 0x34, 2, below > 16 * mib ? (below - 16 * mib) / 65536 : 0, 0xffff);
    put_le(r, 0x5b, 3, above_4g_bytes / 65536, 0xffffff);
    rtc_update_checksum(r);
}

void rtc_update_checksum(struct rtc *r)
{
    unsigned sum = 0;
    for (unsigned i = RTC_CHECKSUM_FIRST; i <= RTC_CHECKSUM_LAST; i++)
        sum += r->s.ram[i];
    r->s.ram[RTC_CHECKSUM_HIGH] = (uint8_t)(sum >> 8);
    r->s.ram[RTC_CHECKSUM_LOW] = (uint8_t)sum;
}

/* -- life ---- */

/* RESET#: interrupts off; the calendar, the alarm and the RAM live on the battery. */
static void reset(void *dev)
{
    struct rtc *r = dev;
    catch_up(r);
    r->s.ram[REG_B] &= (uint8_t) ~(B_PIE | B_AIE | B_UIE | B_SQWE);
    r->s.ram[REG_C] = 0;
    r->s.owed = r->s.unanswered = 0;
    r->s.repay_at = VTIME_NEVER;
    r->s.index = 0;
    r->s.nmi_masked = false;
    drive_irq(r);
    rearm(r);
}

void rtc_init(struct rtc *r, struct evloop *loop, struct irq_line irq8, int64_t offset_s)
{
    *r = (struct rtc){.loop = loop, .irq = irq8, .wall_base = vtime_wall_offset(loop)};
    CHECK(offset_s > -OFFSET_LIMIT && offset_s < OFFSET_LIMIT);
    r->s.offset_s = offset_s;
    r->s.ram[REG_A] = A_DIVIDER_RUN | 6; /* 32768 Hz crystal, 1024 Hz: what every BIOS sets */
    r->s.ram[REG_B] = B_24H;
    r->s.seen = vtime_now(loop);
    r->s.repay_at = VTIME_NEVER;
    vtimer_init(&r->timer, loop, on_timer, r);
    reset(r);
}

#define S(m) DEV_FIELD(struct rtc_state, m)
static const struct dev_field fields[] = {
    DEV_ARRAY(struct rtc_state, ram),
    S(index),
    S(nmi_masked),
    S(offset_s),
    S(phase_ns),
    S(weekday_shift),
    S(seen),
    S(owed),
    S(unanswered),
    S(repay_at),
};
#undef S

static void save(const void *dev, struct dev_writer *w)
{
    dev_put_fields(w, &((const struct rtc *)dev)->s, fields, DEV_COUNT(fields));
}

static int restore(void *dev, struct dev_reader *rd, uint16_t version)
{
    struct rtc *r = dev;
    struct rtc_state s = {0};
    dev_get_fields(rd, &s, fields, DEV_COUNT(fields));
    if (rd->failed || s.index >= RTC_RAM_BYTES || s.offset_s > OFFSET_LIMIT || s.offset_s < -OFFSET_LIMIT ||
        s.phase_ns >= NS_PER_SEC || s.weekday_shift < 0 || s.weekday_shift > 6 || s.owed > OWED_MAX ||
        s.seen > vtime_now(r->loop))
        return -RD_E_FORMAT;
    r->s = s;
    r->wall_base = vtime_wall_offset(r->loop); /* the restored machine shows the present time */
    rearm(r);
    return 0;
}

const struct dev_ops rtc_dev_ops = {.type = "rtc", .version = 1, .reset = reset, .save = save, .restore = restore};
