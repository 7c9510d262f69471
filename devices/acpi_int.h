/* devices/acpi_int.h - private to the ACPI table builder: the DSDT's body is written by a file of its own. */
#ifndef DEVICES_ACPI_INT_H
#define DEVICES_ACPI_INT_H
#include "devices/acpi_tables.h"
#include "devices/aml.h"

#define ACPI_OEM_ID "RNGDWN"
#define ACPI_OEM_TABLE "RINGDOWN"
/* Appends the DSDT's term list (no header). */
void acpi_dsdt_body(struct aml *a, const struct acpi_cfg *cfg);
#endif
