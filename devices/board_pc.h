/* devices/board_pc.h - the PC: which chips it has, where they answer, what they interrupt, in which order they are reset and
 * saved. The table in board_pc.c is the machine on one page.
 *
 * Role:     owns every chip of the machine and the wires between them, and answers the engine's callbacks (board_pc_vm_ops). Knows
 *           neither the command line nor files, and does not run anything: the machine's loop does.
 * Wires:    an ISA IRQ goes to the 8259s and to the IOAPIC (IRQ 0 to pin 2); the 8259s' INTR goes through LINT0 of the LAPIC,
 *           whose output is the CPU's INTR pin (cfg.intr). PIT and RTC pass the HPET, which takes their place in legacy mode.
 * Firmware: there is none. board_pc_firmware_setup leaves what a BIOS would have left: PCI and power management set up, ACPI and
 *           MP tables below 1 MiB, the BIOS data area, CMOS. The memory map for the guest is the loader's (monitor/boot.h).
 * Owner:    the machine: one struct board_pc, at rest in memory (callbacks point into it), zeroed before vm_create, which
 *           is given board_pc_vm_ops and its address; board_pc_init afterwards and before the first run.
 * Threads:  machine thread. Events are reported from within engine callbacks: note them, kick, act when vcpu_run returns.
 */
#ifndef DEVICES_BOARD_PC_H
#define DEVICES_BOARD_PC_H
#include "devices/acpi_pm.h"
#include "devices/debugcon.h"
#include "devices/debugexit.h"
#include "devices/fwcfg.h"
#include "devices/gmem.h"
#include "devices/hpet.h"
#include "devices/ioapic.h"
#include "devices/irq.h"
#include "devices/kvmclock.h"
#include "devices/lapic.h"
#include "devices/pci.h"
#include "devices/pic.h"
#include "devices/pit.h"
#include "devices/port92.h"
#include "devices/ps2.h"
#include "devices/rtc.h"
#include "devices/tsc.h"
#include "devices/uart.h"
#include <stdio.h>

struct vm_ops;
enum { BOARD_SERIALS = 4, BOARD_DEBUGCONS = 4, BOARD_IRQS = 16 };
/* Where guest memory lies: [0, 640 KiB), [768 KiB, hole), and the rest from 4 GiB. */
#define BOARD_VGA_HOLE 0xa0000u
#define BOARD_VGA_HOLE_END 0xc0000u
#define BOARD_RAM_HOLE 0xc0000000u
#define BOARD_ACPI_GPA 0xe0000u
#define BOARD_MPTABLE_GPA 0xf0000u

enum board_event {
    BOARD_RESET,      /* the guest wants RESET#; arg: enum board_reset_cause */
    BOARD_POWER_OFF,  /* ACPI S5 */
    BOARD_DEBUG_EXIT, /* arg: exit status */
};
enum board_reset_cause { BOARD_RESET_KEYBOARD, BOARD_RESET_PORT92, BOARD_RESET_CF9, BOARD_RESET_INIT };

struct board_serial_cfg {
    bool present;
    struct chardev *chr; /* NULL: nothing is plugged in */
};
struct board_debugcon_cfg {
    uint16_t base;
    uint8_t readback;
    struct chardev *chr;
};
struct board_pc_cfg {
    uint64_t ram_bytes; /* multiple of 4 KiB */
    struct evloop *loop;
    struct gmem mem;
    struct irq_line intr, nmi; /* the CPU's pins; nmi is pulsed. intr's handler is nofpu */
    struct fpu_hook fpu;       /* gives the FPU up */
    uint64_t *cr8;             /* the CPU's, and whether it must tell of changes (lapic.h); may be NULL */
    uint32_t *cr8_slow;
    uint64_t tsc_hz;
    const uint64_t *tsc_offset; /* the vCPU's: changes are noticed at the next callback. NULL: always 0 */
    bool x2apic, tsc_deadline;  /* as CPUID says */
    uint8_t maxphyaddr;
    uint32_t cpu_signature, cpu_features; /* CPUID leaf 1 EAX and EDX, for the MP table */
    bool hpet, kvm;                       /* kvm: kvm-clock, steal time, PV EOI */
    struct board_serial_cfg serial[BOARD_SERIALS];
    struct board_debugcon_cfg debugcon[BOARD_DEBUGCONS];
    unsigned n_debugcon;
    uint16_t debugexit_base, debugexit_size; /* size 0: not there */
    int64_t rtc_offset_s;
    void (*event)(void *opaque, enum board_event e, int arg);
    void *opaque;
};
struct board_pc {
    struct board_pc_cfg cfg;
    struct bus *bus;
    struct guest_tsc tsc;
    /* interrupt controllers */
    struct pic pic;
    struct apic_bus apics;
    struct lapic lapic;
    struct ioapic ioapic;
    struct irq_fanout isa_sinks[BOARD_IRQS];
    struct irq_or isa_irq[BOARD_IRQS];
    uint8_t isa_sources[BOARD_IRQS];
    /* time */
    struct pit pit;
    struct rtc rtc;
    struct hpet hpet;
    struct kvmclock kvmclock;
    int run_delay_fd;
    /* PCI */
    struct pci_bus pci;
    struct i440fx host_bridge;
    struct piix3 isa_bridge;
    struct acpi_pm acpi;
    struct piix4_pm pm_function;
    /* the rest */
    struct ps2 ps2;
    struct port92 port92;
    struct irq_or a20;
    struct uart uart[BOARD_SERIALS];
    struct debugcon debugcon[BOARD_DEBUGCONS];
    struct debugexit debugexit;
    struct fwcfg fwcfg;
    bool intr_level;
    bool in_reset; /* lines fall for a moment that nobody asked to fall */
};
/* opaque: the struct board_pc. */
extern const struct vm_ops board_pc_vm_ops;

/* 0, or -RD_E_* and one line in err. */
int board_pc_init(struct board_pc *b, const struct board_pc_cfg *cfg, char *err, size_t errsz);
void board_pc_fini(struct board_pc *b);
/* RESET# on every chip. */
void board_pc_reset(struct board_pc *b);
/* After every reset, before the kernel is loaded. Writes guest memory. 0 or -RD_E_*. */
int board_pc_firmware_setup(struct board_pc *b);
/* Guest physical address of the ACPI root pointer that firmware_setup placed. */
static inline uint32_t board_pc_rsdp(const struct board_pc *b) { return BOARD_ACPI_GPA; }
/* End of RAM below 4 GiB, and the round address above it from which PCI's memory begins. */
uint32_t board_pc_pci_hole(const struct board_pc *b);
uint32_t board_pc_pci_first(const struct board_pc *b);

/* To be called when the run loop has left the guest anyway. */
void board_pc_tick(struct board_pc *b);
/* Virtual time is about to stand still (vtime_pause) or has just resumed. */
void board_pc_pause(struct board_pc *b);
void board_pc_resume(struct board_pc *b);
bool board_pc_power_button(struct board_pc *b); /* false: the guest does not listen */
void board_pc_nmi(struct board_pc *b);          /* the NMI button: LINT1 */
/* A reset by a guest that has promised KVM to say good-bye first, and has not: it crashed (panic=, sysrq-b). */
bool board_pc_reset_is_unclean(const struct board_pc *b);

/* State of all devices, in the table's order. 0 or -RD_E_*; after a failed restore the machine must not run. */
int board_pc_save(struct board_pc *b, struct dev_writer *w);
int board_pc_restore(struct board_pc *b, struct dev_reader *r);
/* The table and who decodes what, for people. */
void board_pc_dump(const struct board_pc *b, FILE *f);
#endif
