/* The name of a PCI function, which is also its requester id: bus << 8 | device << 3 | function. Segment 0.
 */
#pragma once

#include "hv/lib/types.h"

#define PCI_BDF(bus, device, function) ((uint16_t)((bus) << 8 | (device) << 3 | (function)))

#define BDF_BUS(bdf)      ((unsigned)(bdf) >> 8 & 0xffu)
#define BDF_DEVICE(bdf)   ((unsigned)(bdf) >> 3 & 0x1fu)
#define BDF_FUNCTION(bdf) ((unsigned)(bdf)&7u)

/* For messages: log_line(..., "device " BDF_FMT " is gone", BDF_ARGS(bdf)). */
#define BDF_FMT       "%02x:%02x.%x"
#define BDF_ARGS(bdf) BDF_BUS(bdf), BDF_DEVICE(bdf), BDF_FUNCTION(bdf)
