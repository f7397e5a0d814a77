/* The programs: one for each hostile property. The rig's table (tests/rig/rig_hostile.py) says what is
 * expected of each. */
#pragma once

#include "tests/guest/runtime/lab.h"
#include "tests/guest/runtime/runtime.h"

struct program {
    const char *name;
    /* Steps 0 .. steps - 1. A step that ends the VM goes on with the next one after the restart; one that may
     * not return and does is a defect. */
    void (*run)(unsigned step);
    unsigned steps;
    bool fatal;
};

#define PROGRAM(name) void program_##name(unsigned step)
PROGRAM(vmx);
PROGRAM(msr);
PROGRAM(port);
PROGRAM(port_string);
PROGRAM(physical);
PROGRAM(control);
PROGRAM(xcr0);
PROGRAM(ipi);
PROGRAM(ipi_x2);
PROGRAM(ipi_storm);
PROGRAM(smc);
PROGRAM(smc_unknown);
PROGRAM(paging);
PROGRAM(paging_lost);
PROGRAM(fetch);
PROGRAM(triple);
PROGRAM(task);
PROGRAM(reset);
PROGRAM(delivery);
PROGRAM(storm);
PROGRAM(hypercall);
PROGRAM(flood);
PROGRAM(halt);
PROGRAM(debug);
PROGRAM(monitor);
PROGRAM(rep);
PROGRAM(vf_dma);
PROGRAM(vf_storm);
PROGRAM(vf_msi);
PROGRAM(vf_mail);
PROGRAM(vf_config);
PROGRAM(vf_bars);
PROGRAM(vf_msix);
PROGRAM(vf_flr);
PROGRAM(vf_busy);
PROGRAM(vf_spoof);
PROGRAM(fuzz);
#undef PROGRAM

#define LSR_DATA 0x01u /* COM1 + 5: a key has come */

/* Ends this VM. */
void triple_fault(void);
