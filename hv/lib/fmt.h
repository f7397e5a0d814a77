/* Formatting without a C library. */
#pragma once

#include <stdarg.h>
#include "hv/lib/types.h"

/* Formats into buf (always NUL-terminated when size > 0) and returns the length the full text needs, as
 * snprintf does. Conversions: %d %i %u %x %X %c %s %p %% with flags '-' '0', a width, '*' width, a
 * '.precision' for %s, and the length modifiers hh h l ll z. An unknown conversion is copied as it stands. */
size_t fmt_vformat(char *buf, size_t size, const char *format, va_list args);
size_t fmt_format(char *buf, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Says why something is refused, and answers `status`. */
enum status fmt_refuse(char *why, size_t size, enum status status, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
