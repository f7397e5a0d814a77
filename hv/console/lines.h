/* Text that is made line by line, as the console has room for it: whoever prints much (the log, a trace, a
 * dump) is a struct lines, so that the CPU that polls the console, and runs a guest too, is never held up. */
#pragma once

#include "hv/lib/types.h"

struct vm;

#define LINES_MAX 256u /* bytes of a line with its NUL */

struct lines {
    /* Puts the next line (without a newline) into `line` and answers true; false: there are no more. An empty
     * line says "nothing yet, ask again in a millisecond"; for a blank line give " ". One call costs
     * microseconds: it runs on a CPU that a guest waits for. */
    bool (*next)(struct lines *self, char *line, size_t size);
    struct vm *vm; /* whom it is about; NULL: all, or nobody */
    uint32_t vcpu; /* index in the VM */
    uint32_t step; /* the producer's own, 0 at the start */
    uint64_t at,
        count; /* the producer's own; `count` may be set by who starts it: how many at most, 0 = default */
};
