/* devices/acpi_pm.h - ACPI fixed hardware in the PIIX4's power-management function: PM1 events, PM timer, SCI, sleep, reset.
 *
 * Role:     struct acpi_pm is the register block (PM1, timer, GPE0), the APM ports B2h/B3h and the reset port; struct piix4_pm puts
 *           it behind PCI function 8086:7113 (PMBA at 40h, enable at 80h), where SeaBIOS and kernels look for it.
 * Time:     the PM timer counts 3579545 Hz of virtual time, 32 bits; nothing is armed while TMR_EN is off.
 * Sleep:    only S5 exists (SLP_TYP 0, as the DSDT says). Threads: machine thread. Source: ACPI 6.4 section 4.8, 82371AB.
 */
#ifndef DEVICES_ACPI_PM_H
#define DEVICES_ACPI_PM_H
#include "devices/dev.h"
#include "devices/irq.h"
#include "devices/pci.h"
#include "devices/vtime.h"
#include <stdbool.h>
#include <stdint.h>

struct bus;
#define ACPI_PM_BASE_DEFAULT 0x600u /* where SeaBIOS puts it too */
#define ACPI_PM_BYTES 0x40u
enum { ACPI_PM_EVT = 0x00, ACPI_PM_CNT = 0x04, ACPI_PM_TMR = 0x08, ACPI_PM_GPE0 = 0x0c, ACPI_PM_GPE0_BYTES = 4 };
#define ACPI_PM_HZ 3579545u
#define ACPI_PM_SLP_TYP_S5 0u
#define ACPI_PM_CMD_ENABLE 0xf1u /* to port B2h: SCI_EN on ... */
#define ACPI_PM_CMD_DISABLE 0xf0u
#define ACPI_SCI_IRQ 9u
#define ACPI_RESET_PORT 0xcf9u
#define ACPI_RESET_VALUE 0x06u

struct acpi_pm_cfg {
    struct evloop *loop;
    struct irq_line sci;
    void (*power_off)(void *opaque);
    void (*reset)(void *opaque);
    void *opaque;
};
struct acpi_pm {
    struct acpi_pm_cfg cfg;
    struct vtimer timer;
    struct {
        uint16_t sts, en, cnt, gpe_sts, gpe_en;
        uint64_t next_toggle; /* PM timer tick at which TMR_STS is set next */
        uint8_t apm_control, apm_status, reset_control;
    } s;
};
extern const struct dev_ops acpi_pm_dev_ops;
extern const struct bus_ops acpi_pm_bus_ops; /* the register block; opaque = struct acpi_pm */

/* Registers the APM ports. The block is mapped by piix4_pm, or by a board without PCI. 0 or -RD_E_*. */
int acpi_pm_init(struct acpi_pm *pm, struct bus *b, const struct acpi_pm_cfg *cfg);
/* system_powerdown: presses the button. False if the guest does not listen (SCI or button event disabled). */
bool acpi_pm_power_button(struct acpi_pm *pm);
/* Latches a general-purpose event (bit 0..15). */
void acpi_pm_gpe(struct acpi_pm *pm, unsigned bit);
/* Port CF9h; it lies among PCI's ports: give these to pci_bus_set_reset_port. */
uint8_t acpi_reset_read(void *pm);
void acpi_reset_write(void *pm, uint8_t val);

struct piix4_pm {
    struct pci_dev pci;
    struct acpi_pm *pm;
    int handle; /* of the mapped block, -1 = none */
    uint16_t base;
};
/* Adds function 3 of the ISA bridge's slot. */
int piix4_pm_init(struct piix4_pm *p, struct pci_bus *bus, struct acpi_pm *pm);
/* What firmware does: block at ACPI_PM_BASE_DEFAULT, ACPI mode on. For kernels started without a BIOS; after every reset. */
void piix4_pm_firmware_setup(struct piix4_pm *p);
#endif
