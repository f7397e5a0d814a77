/* Reading numbers out of text. Each takes what it reads off the start of *s; when it fails, *s is as before.
 */
#pragma once

#include "hv/lib/types.h"

bool scan_is_digit(uint8_t c);
/* Decimal. False: no digit, or more than 64 bits. */
bool scan_number(struct span *s, uint64_t *out);
/* Hexadecimal: as many digits as there are, but at most `most` (1..16). False: fewer than `least`. */
bool scan_hex(struct span *s, unsigned least, unsigned most, uint64_t *out);
/* This very character. */
bool scan_char(struct span *s, char c);
