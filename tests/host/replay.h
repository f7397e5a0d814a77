/* Runs the exits of a dump again: through the decoder, and through the real handlers where what was recorded
 * says all that the handler looks at. */
#pragma once

#include <stdio.h>
#include "tests/host/dump_reader.h"

struct replay {
    uint32_t same;    /* decoded and answered as recorded */
    uint32_t decoded; /* decoded as recorded; the answer depends on what a dump does not hold */
    uint32_t differ;
};

/* All exits of one vCPU, oldest first, a line each into `out` (NULL: none). */
struct replay replay_vcpu(const struct dump *dump, const struct dump_vcpu *vcpu, FILE *out);
