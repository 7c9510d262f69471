/* devices/lapic.h - local APIC: xAPIC page, x2APIC MSRs, timer, IPIs, and the way of the 8259's interrupts to the CPU.
 *
 * Role:     one struct lapic per vCPU, joined by a struct apic_bus, over which IPIs, MSIs and IOAPIC messages travel. The LAPIC's
 *           output is the level of the vCPU's INTR pin (cfg.intr); the run loop's intr_ack calls lapic_ack.
 * Reset:    as the manual (SDM 3A 11.4.7), with one difference that firmware makes on every PC: the boot CPU's LINT0 comes up as
 *           ExtINT, unmasked, so that 8259 interrupts reach kernels that never touch the APIC (and were not started by a BIOS).
 * Timer:    counts at LAPIC_BUS_HZ. Ticks of a periodic timer that could not be delivered (the host was busy) are owed, at
 *           most LAPIC_MAX_OWED, and handed in one by one, each after the guest's EOI of the one before, so that guests that
 *           count ticks keep time; timers faster than LAPIC_OWED_MIN_PERIOD_NS coalesce as hardware does.
 * PV EOI:   when an interrupt is acknowledged and nothing else needs its EOI (edge-triggered, nothing pending, no tick owed), bit
 *           0 of the guest's word is set; the guest clears it instead of writing EOI. Looked at before anything that
 *           depends on ISR.
 * Threads:  machine thread (DESIGN: several vCPU threads would take the machine lock).
 * nofpu:    registers, MSRs, acknowledge and CR8 may be reached with the guest's FPU state live (cfg.fpu); cfg.intr's handler too.
 * Hostile:  nothing a guest writes can loop or overflow; vectors below 16 are refused as the manual says (ESR).
 */
#ifndef DEVICES_LAPIC_H
#define DEVICES_LAPIC_H
#include "devices/dev.h"
#include "devices/fpu_hook.h"
#include "devices/gmem.h"
#include "devices/irq.h"
#include "devices/vtime.h"
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct bus;
struct guest_tsc;
#define LAPIC_DEFAULT_BASE 0xfee00000u
#define LAPIC_VERSION 0x00050014u /* six LVT entries */
#define LAPIC_BUS_HZ 1000000000ull
#define LAPIC_MAX_OWED 1000u
#define LAPIC_OWED_MIN_PERIOD_NS 100000u
#define LAPIC_MAX_CPUS 64
#define MSR_KVM_PV_EOI 0x4b564d04u
#define APIC_BASE_BSP 0x100ull
#define APIC_BASE_EXTD 0x400ull
#define APIC_BASE_EN 0x800ull

enum apic_delivery { APIC_FIXED, APIC_LOWEST, APIC_SMI, APIC_RESERVED3, APIC_NMI, APIC_INIT, APIC_SIPI, APIC_EXTINT };
struct apic_msg {
    uint32_t dest; /* APIC id, or logical destination; all-ones = broadcast */
    bool logical;  /* destination mode */
    bool level;    /* trigger mode: sets TMR, EOI is broadcast */
    uint8_t vector;
    enum apic_delivery mode;
};
struct lapic;
struct apic_bus {
    struct lapic *cpu[LAPIC_MAX_CPUS];
    unsigned count;
    unsigned current; /* whose page an MMIO access means; the run loop sets it when it changes vCPU */
    struct bus *bus;
    int page; /* bus handle of the xAPIC page, -1 = not mapped */
    uint64_t page_base;
    void (*eoi)(void *opaque, uint8_t vector); /* level-triggered EOI, to all IOAPICs */
    void *eoi_opaque;
    unsigned lowest_next; /* arbitration among equals, round robin */
};
enum lapic_event { LAPIC_EVENT_INIT, LAPIC_EVENT_SIPI, LAPIC_EVENT_SMI };
struct lapic_cfg {
    uint32_t id;
    bool bsp, x2apic, tsc_deadline, pv_eoi; /* features offered */
    uint8_t maxphyaddr;
    struct evloop *loop;
    const struct guest_tsc *tsc;
    struct gmem mem;              /* PV EOI */
    struct irq_line intr;         /* INTR pin of the vCPU */
    struct irq_line nmi;          /* pulsed */
    int (*pic_ack)(void *opaque); /* INTA cycle to the 8259: vector, or -1 */
    void *pic_opaque;
    struct fpu_hook fpu;
    /* The CPU's CR8, or NULL. It is kept equal to the TPR's class; *cr8_slow is set while a change of it must be told
     * (lapic_write_cr8). Otherwise the CPU just changes it. */
    uint64_t *cr8;
    uint32_t *cr8_slow;
    void (*event)(void *opaque, enum lapic_event e, uint8_t vector); /* INIT, start-up, SMI; may be NULL */
    void *event_opaque;
};
enum { LVT_TIMER, LVT_THERMAL, LVT_PERF, LVT_LINT0, LVT_LINT1, LVT_ERROR, LVT_COUNT };
struct lapic {
    struct lapic_cfg cfg;
    struct apic_bus *bus;
    struct vtimer timer;
    struct { /* saved */
        uint64_t base, tsc_deadline, pv_eoi_msr;
        uint32_t id, tpr, ldr, dfr, svr, esr, esr_pending, icr_high, icr_low, divide, lvt[LVT_COUNT];
        uint32_t isr[8], tmr[8], irr[8];
        uint32_t initial_count;
        uint64_t period_ns, next_ns; /* timer: period of a full count, time of the next expiry (0 = stopped) */
        uint32_t owed;
        bool lint[2];        /* pin levels; an edge while masked is lost, as in hardware */
        bool extint_message; /* an IOAPIC pin in ExtINT mode asked for an INTA cycle */
        bool pv_eoi_pending;
    } s;
    uint64_t eois, pv_eois; /* for lapic_dump: interrupts that the guest has ended; of which by its word */
};
extern const struct dev_ops lapic_dev_ops;

void apic_bus_init(struct apic_bus *ab, struct bus *bus);
void apic_bus_set_eoi(struct apic_bus *ab, void (*eoi)(void *opaque, uint8_t vector), void *opaque);
/* Delivers to every CPU that the destination names (to one of them for lowest priority). Returns how many accepted. */
unsigned apic_bus_deliver(struct apic_bus *ab, const struct apic_msg *m);
/* A message-signalled interrupt: a write of data to 0xfeexxxxx by a device (SDM 3A 11.11). */
void apic_bus_msi(struct apic_bus *ab, uint64_t addr, uint32_t data);

void lapic_init(struct lapic *l, struct apic_bus *ab, const struct lapic_cfg *cfg);
/* LINT0 (the 8259's INTR) and LINT1 (NMI#); level as on the pin. */
void lapic_set_lint(struct lapic *l, unsigned pin, bool level);
struct irq_line lapic_lint_line(struct lapic *l, unsigned pin);

/* Is there something that the CPU would take with IF set? The same as the level last sent to cfg.intr. */
bool lapic_has_intr(struct lapic *l);
/* INTA: the vector, moved from IRR to ISR (or the 8259's); -1 when it has gone. */
int lapic_ack(struct lapic *l);
uint64_t lapic_read_cr8(struct lapic *l);
void lapic_write_cr8(struct lapic *l, uint64_t val);
/* MSRs 1Bh, 6E0h, 800h-8FFh, PV EOI. 0 = done, 1 = not mine, -1 = #GP(0). */
int lapic_rdmsr(struct lapic *l, uint32_t msr, uint64_t *val);
int lapic_wrmsr(struct lapic *l, uint32_t msr, uint64_t val);
/* The xAPIC page, for a board that bypasses the bus (hot path). offset is within the page. */
uint32_t lapic_mmio_read(struct lapic *l, uint32_t offset);
void lapic_mmio_write(struct lapic *l, uint32_t offset, uint32_t val);
/* INIT: everything but the id and APIC_BASE is reset (SDM 3A 11.4.7.3). */
void lapic_init_reset(struct lapic *l);
/* The guest TSC's offset, or the virtual clock, was changed. */
void lapic_time_changed(struct lapic *l);
/* For people. */
void lapic_dump(const struct lapic *l, FILE *f);
static inline uint32_t lapic_id(const struct lapic *l) { return l->cfg.id; }
#endif
