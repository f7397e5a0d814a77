#include "hv/lib/log.h"
#include "hv/lib/fmt.h"
#include "hv/lib/lock.h"
#include "hv/lib/string.h"

#define LINE_SIZE 241u /* 240 bytes and a NUL */
#define RING_SIZE 16384u
STATIC_ASSERT((RING_SIZE & (RING_SIZE - 1)) == 0, "positions in the ring are masked");

static struct {
    struct spinlock lock; /* guards all below but `level` and `broken` */
    log_sink_fn sink;
    void *sink_ctx;
    uint64_t (*now_us)(void);
    enum log_level level;
    bool broken;  /* log_break_lock(): the machine is going down, nobody takes the lock any more */
    uint64_t end; /* bytes ever written; the ring holds the last RING_SIZE of them */
    char ring[RING_SIZE];
} state = {.level = LOG_INFO};

static bool lock(void)
{
    if (__atomic_load_n(&state.broken, __ATOMIC_RELAXED))
        return false;
    spin_lock(&state.lock);
    return true;
}

static void unlock(bool held)
{
    if (held)
        spin_unlock(&state.lock);
}

void log_set_sink(log_sink_fn sink, void *ctx)
{
    bool held = lock();
    state.sink = sink;
    state.sink_ctx = ctx;
    unlock(held);
}

void log_set_level(enum log_level max)
{
    __atomic_store_n(&state.level, max, __ATOMIC_RELAXED);
}

void log_set_clock(uint64_t (*now_us)(void))
{
    bool held = lock();
    state.now_us = now_us;
    unlock(held);
}

void log_break_lock(void)
{
    __atomic_store_n(&state.broken, true, __ATOMIC_RELAXED);
}

static const char *level_mark(enum log_level level)
{
    switch (level) {
    case LOG_ERROR:
        return "ERROR: ";
    case LOG_WARN:
        return "warning: ";
    default:
        return "";
    }
}

static void ring_append(const char *line)
{
    for (; *line; line++)
        state.ring[state.end++ & (RING_SIZE - 1)] = *line;
    state.ring[state.end++ & (RING_SIZE - 1)] = '\n';
}

/* "[    1.234567] core: warning: text"; answers the length used, below size. */
static size_t format_prefix(char *line, size_t size, enum log_level level, const char *who)
{
    size_t n = 0;

    if (state.now_us) {
        uint64_t us = state.now_us();
        n = fmt_format(line, size, "[%5lu.%06lu] ", (unsigned long)(us / 1000000),
                       (unsigned long)(us % 1000000));
    }
    n += fmt_format(line + n, size - n, "%s: %s", who, level_mark(level));
    return n < size ? n : size - 1;
}

void log_line(enum log_level level, const char *who, const char *format, ...)
{
    char line[LINE_SIZE];
    va_list args;

    /* The clock is read under the lock, so that the times in the log never go backwards. */
    bool held = lock();
    size_t n = format_prefix(line, sizeof(line), level, who);
    va_start(args, format);
    fmt_vformat(line + n, sizeof(line) - n, format, args);
    va_end(args);
    ring_append(line);
    if (state.sink && level <= __atomic_load_n(&state.level, __ATOMIC_RELAXED))
        state.sink(state.sink_ctx, level, line);
    unlock(held);
}

size_t log_tail(char *buf, size_t size)
{
    bool held = lock();
    uint64_t keep = state.end < RING_SIZE ? state.end : RING_SIZE;
    if (keep > size)
        keep = size;
    uint64_t from = state.end - keep;
    /* Unless the text starts with the first byte of a line, its first line is cut off: drop it. */
    bool whole = from == 0 || (keep < RING_SIZE && state.ring[(from - 1) & (RING_SIZE - 1)] == '\n');
    while (!whole && from < state.end)
        whole = state.ring[from++ & (RING_SIZE - 1)] == '\n';
    size_t n = (size_t)(state.end - from);
    for (size_t i = 0; i < n; i++)
        buf[i] = state.ring[(from + i) & (RING_SIZE - 1)];
    unlock(held);
    return n;
}
