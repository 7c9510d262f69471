/* devices/pci_int.h - private to pci*.c. */
#ifndef DEVICES_PCI_INT_H
#define DEVICES_PCI_INT_H
#include "devices/pci.h"

#define PCI_MSI_PENDING 0x14u /* offset in the MSI capability */
/* pci.c */
void pci_remap(struct pci_bus *b);
void pci_update_irqs(struct pci_bus *b);
/* pci_msi.c */
void pci_msi_config_written(struct pci_dev *d, unsigned offset, unsigned size);
void pci_msix_reset(struct pci_dev *d);
#endif
