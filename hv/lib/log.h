/* The log: levelled lines into a ring, and to a sink (the console) when one is set.
 *
 * The core's own lines come from log_line(). Lines about a VM come through the VM's struct log_source: they
 * carry the VM's name and vCPU, the VM's level decides which are shown, and what a guest can provoke is
 * limited in rate, with a count of what was dropped. The ring keeps every line that was not dropped, whatever
 * its level. */
#pragma once

#include <stdarg.h>
#include "hv/lib/lock.h"
#include "hv/lib/types.h"

enum log_level {
    LOG_ALWAYS = -1, /* whatever the level is: how VMs and the machine end. Without a mark, as LOG_INFO */
    LOG_ERROR,
    LOG_WARN,
    LOG_INFO,
    LOG_DEBUG
};

#define LOG_LINE_MAX 241u   /* 240 bytes and a NUL */
#define LOG_RING     65536u /* bytes; a power of two */

/* Where finished lines go (without a newline). Called with the log lock held; it must not log. */
typedef void (*log_sink_fn)(void *ctx, enum log_level level, const char *line);

void log_set_sink(log_sink_fn sink, void *ctx);
void log_set_level(
    enum log_level max); /* log_line()s above `max` are kept in the ring, not sent to the sink */
void
    log_set_clock(uint64_t (*now_us)(void)); /* time since start in microseconds; NULL: lines carry no time */

/* One line; `who` names the speaker ("core"). Lines are cut at 240 bytes. Safe on every CPU. */
void log_line(enum log_level level, const char *who, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* ---- lines from a guest's doing ---- */

/* A bucket of tokens, one for each line: it holds LOG_BURST, and LOG_PER_SECOND come in. LOG_DEBUG lines
 * leave LOG_RESERVE of them, so that a flood of default-deny notes does not hide what matters more; LOG_ERROR
 * lines are free, because each ends its VM. */
#define LOG_BURST      40u
#define LOG_PER_SECOND 10u
#define LOG_RESERVE    10u

struct log_source {
    const char *name;     /* constant after log_source_init() */
    enum log_level level; /* shown up to here. Constant */
    struct spinlock lock; /* guards the rest; held for a few instructions */
    uint32_t tokens;
    uint64_t filled_us;  /* up to here tokens have come in */
    uint64_t dropped;    /* lines since the last summary */
    uint64_t summary_us; /* when to say how many; meaningful while dropped > 0 */
};

#define LOG_NO_VCPU UINT32_MAX

void log_source_init(struct log_source *source, const char *name, enum log_level level);
/* One line: "[    1.234567] web/0: warning: text"; without "/0" when `vcpu` is LOG_NO_VCPU. Any CPU. */
void log_from(struct log_source *source, uint32_t vcpu, enum log_level level, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* Says how many lines were dropped, when that is due; for somebody who comes by now and then. */
void log_settle(struct log_source *source);

/* ---- reading the ring ---- */

/* Copies the newest bytes of the ring (whole lines, '\n' separated) into buf; returns the length. */
size_t log_tail(char *buf, size_t size);
/* Where the newest `lines` lines begin (at most LOG_INDEX; fewer when fewer are kept), for log_next(). */
#define LOG_INDEX 1024u
uint64_t log_position(uint32_t lines);
/* Copies the line at *at, NUL-terminated and cut at size - 1, and moves *at behind it; false: there are no
 * more yet. Lines that were overwritten meanwhile are passed over. */
bool log_next(uint64_t *at, char *line, size_t size);

/* For a panic: from now on lines are written without the lock, which a CPU that will never run again may
 * hold. */
void log_break_lock(void);
