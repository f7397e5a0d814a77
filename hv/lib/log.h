/* The log: levelled lines into a ring, and to a sink (the console) when one is set. */
#pragma once

#include <stdarg.h>
#include "hv/lib/types.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* Where finished lines go (without a newline). Called with the log lock held; it must not log. */
typedef void (*log_sink_fn)(void *ctx, enum log_level level, const char *line);

void log_set_sink(log_sink_fn sink, void *ctx);
void log_set_level(enum log_level max); /* lines above `max` are kept in the ring, not sent to the sink */
void log_set_clock(uint64_t (*now_us)(void)); /* time since start in microseconds; NULL: lines carry no time */

/* One line; `who` names the speaker ("core", a VM's name). Lines are cut at 240 bytes. Safe on every CPU. */
void log_line(enum log_level level, const char *who, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Copies the newest bytes of the ring (whole lines, '\n' separated) into buf; returns the length. */
size_t log_tail(char *buf, size_t size);

/* For a panic: from now on lines are written without the lock, which a CPU that will never run again may hold. */
void log_break_lock(void);
