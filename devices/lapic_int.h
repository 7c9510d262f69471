/* devices/lapic_int.h - private to lapic*.c: LVT bits, and what the parts of the local APIC call of each other. */
#ifndef DEVICES_LAPIC_INT_H
#define DEVICES_LAPIC_INT_H
#include "arch/x86_arch.h"
#include "base/err.h"
#include "devices/lapic.h"

#define SVR_ENABLE 0x100u
#define LVT_REMOTE_IRR 0x4000u
#define LVT_LEVEL 0x8000u
#define LVT_MASKED 0x10000u
#define LVT_VECTOR(v) ((uint8_t)(v))
#define LVT_MODE(v) ((v) >> 8 & 7)
#define LVT_TIMER_MODE(v) ((v) >> 17 & 3)
enum { TIMER_ONE_SHOT, TIMER_PERIODIC, TIMER_TSC_DEADLINE, TIMER_RESERVED };

/* lapic.c */
bool lapic_hw_enabled(const struct lapic *l);
bool lapic_sw_enabled(const struct lapic *l);
uint32_t lapic_ppr(const struct lapic *l);
uint32_t lapic_ldr(const struct lapic *l);
bool lapic_has_irr(const struct lapic *l, uint8_t vector);
/* Sets a bit of IRR; false when refused (disabled, illegal vector). */
bool lapic_accept(struct lapic *l, uint8_t vector, bool level);
bool lapic_receive(struct lapic *l, enum apic_delivery mode, uint8_t vector, bool level);
void lapic_output(struct lapic *l);
void lapic_sync_pv_eoi(struct lapic *l);
void lapic_lint_level(struct lapic *l);
void lapic_reset_registers(struct lapic *l);
/* lapic_timer.c */
void lapic_timer_fired(void *opaque);
void lapic_timer_eoi(struct lapic *l, uint8_t vector);
uint32_t lapic_timer_current(struct lapic *l);
void lapic_timer_set_count(struct lapic *l, uint32_t count);
void lapic_timer_set_divide(struct lapic *l, uint32_t divide);
void lapic_timer_set_deadline(struct lapic *l, uint64_t deadline);
void lapic_timer_lvt_changed(struct lapic *l, uint32_t old);
void lapic_timer_rearm(struct lapic *l);
/* apic_bus.c */
void apic_bus_map_page(struct apic_bus *ab);
#endif
