/* "Did you mean": was a word meant for another? */
#pragma once

#include "hv/lib/types.h"

/* True when `word` is `name` but for a slip: one edit, two in a name of more than four letters; neighbours
 * swapped count as one. Words of more than 16 letters never are. */
bool near_miss(struct span word, const char *name);
