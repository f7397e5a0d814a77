/* What an assigned function's configuration space shows, and which bits of it a guest may write: one table
 * per structure. What no table names reads as 0 and cannot be written. */
#pragma once

#include "drivers/vdev/vpci.h"

/* Checks v->setup and builds v->space from it and from the real function. ERR_INVALID: see vpci_init(). */
enum status vpci_policy_build(struct vpci *v);
/* Power-on values of all that can be written; BARs keep theirs with `keep_bars`. */
void vpci_policy_reset(struct vpci *v, bool keep_bars);
/* The bits of a dword that are the real function's at the time of reading. */
uint32_t vpci_policy_live(const struct vpci *v, uint32_t offset);
/* Does this dword belong to the header or a capability that is shown? */
bool vpci_policy_shown(const struct vpci *v, uint32_t offset);
/* Where in the single MSI's capability data is, and the mask bits; v->msi != 0. mask 0: it has none. */
unsigned vpci_policy_msi_data(const struct vpci *v);
unsigned vpci_policy_msi_mask(const struct vpci *v);
