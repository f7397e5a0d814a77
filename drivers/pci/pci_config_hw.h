/* The machine's configuration space: ECAM where the firmware describes it, else ports CF8 and CFC. */
#pragma once

#include "arch/x86/pt_env.h"
#include "drivers/acpi/acpi.h"
#include "drivers/pci/pci.h"

/* Fills *out, which then serves every CPU. mcfg: NULL, or what ACPI says; of each range the first function
 * must answer as through the ports, else the range is not used. Boot CPU, before VMs start. True: there is
 * ECAM, at least for some buses; without it no offset from 256 on can be reached, and so no SR-IOV. */
bool pci_config_hw_init(const struct acpi_mcfg *mcfg, const struct pt_env *env, struct pci_config *out);
