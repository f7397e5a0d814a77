#include "hv/lib/log.h"
#include "hv/lib/fmt.h"
#include "hv/lib/lock.h"
#include "hv/lib/string.h"

#define RING_SIZE  LOG_RING
#define US_PER_S   1000000u
#define SUMMARY_US US_PER_S /* at most one count of dropped lines a second */
STATIC_ASSERT((RING_SIZE & (RING_SIZE - 1)) == 0, "positions in the ring are masked");
STATIC_ASSERT((LOG_INDEX & (LOG_INDEX - 1)) == 0, "line numbers in the index are masked");

static struct {
    struct spinlock lock; /* guards all below but `level` and `broken` */
    log_sink_fn sink;
    void *sink_ctx;
    uint64_t (*now_us)(void);
    enum log_level level;
    bool broken;    /* log_break_lock(): the machine is going down, nobody takes the lock any more */
    uint64_t end;   /* bytes ever written; the ring holds the last RING_SIZE of them */
    uint64_t lines; /* lines ever written; the index holds where the last LOG_INDEX of them begin */
} state = {.level = LOG_INFO};
/* Beside the rest, so that they are zeros and take no place in the image. */
static uint64_t line_index[LOG_INDEX];
static char ring[RING_SIZE];

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
    case LOG_DEBUG:
        return "debug: ";
    default:
        return "";
    }
}

static void ring_append(const char *line)
{
    line_index[state.lines++ & (LOG_INDEX - 1)] = state.end;
    for (; *line; line++)
        ring[state.end++ & (RING_SIZE - 1)] = *line;
    ring[state.end++ & (RING_SIZE - 1)] = '\n';
}

static uint64_t now_us(void)
{
    return state.now_us ? state.now_us() : 0;
}

/* "[    1.234567] web/0: warning: text"; answers the length used, below size. */
static size_t format_prefix(char *line, size_t size, enum log_level level, const char *who, uint32_t vcpu)
{
    size_t n = 0;

    if (state.now_us) {
        uint64_t us = now_us();
        n = fmt_format(line, size, "[%5lu.%06lu] ", (unsigned long)(us / US_PER_S),
                       (unsigned long)(us % US_PER_S));
    }
    n += fmt_format(line + n, size - n, "%s", who);
    if (vcpu != LOG_NO_VCPU && n < size)
        n += fmt_format(line + n, size - n, "/%u", vcpu);
    if (n < size)
        n += fmt_format(line + n, size - n, ": %s", level_mark(level));
    return n < size ? n : size - 1;
}

static void write_line(enum log_level level, bool shown, const char *who, uint32_t vcpu, const char *format,
                       va_list args)
{
    char line[LOG_LINE_MAX];

    /* The clock is read under the lock, so that the times in the log never go backwards. */
    bool held = lock();
    size_t n = format_prefix(line, sizeof(line), level, who, vcpu);
    fmt_vformat(line + n, sizeof(line) - n, format, args);
    ring_append(line);
    if (state.sink && shown)
        state.sink(state.sink_ctx, level, line);
    unlock(held);
}

void log_line(enum log_level level, const char *who, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    write_line(level, level <= __atomic_load_n(&state.level, __ATOMIC_RELAXED), who, LOG_NO_VCPU, format,
               args);
    va_end(args);
}

/* ---- lines from a guest's doing ---- */

void log_source_init(struct log_source *source, const char *name, enum log_level level)
{
    *source = (struct log_source){.name = name, .level = level, .tokens = LOG_BURST, .filled_us = now_us()};
}

static void refill(struct log_source *source, uint64_t now)
{
    const uint64_t each = US_PER_S / LOG_PER_SECOND;
    if (now < source->filled_us) /* CPUs whose clocks differ by a little */
        return;
    uint64_t came = (now - source->filled_us) / each;
    source->filled_us += came * each;
    source->tokens = came < LOG_BURST - source->tokens ? source->tokens + (uint32_t)came : LOG_BURST;
}

/* How many dropped lines to report now; the count begins anew. */
static uint64_t take_summary(struct log_source *source, uint64_t now)
{
    uint64_t dropped = source->dropped;
    if (dropped == 0 || now < source->summary_us)
        return 0;
    source->dropped = 0;
    return dropped;
}

/* A token for one line; false: the line is dropped. */
static bool admit(struct log_source *source, enum log_level level, uint64_t now)
{
    if (level == LOG_ERROR)
        return true;
    refill(source, now);
    if (source->tokens > (level == LOG_DEBUG ? LOG_RESERVE : 0)) {
        source->tokens--;
        return true;
    }
    if (source->dropped++ == 0)
        source->summary_us = now + SUMMARY_US;
    return false;
}

/* The bucket has its own lock: a guest that floods keeps its own CPUs busy with it, and not the log. In a
 * panic nobody waits for it. */
static bool lock_source(struct log_source *source)
{
    if (__atomic_load_n(&state.broken, __ATOMIC_RELAXED))
        return false;
    spin_lock(&source->lock);
    return true;
}

static void __attribute__((format(printf, 4, 5)))
write_from(struct log_source *source, uint32_t vcpu, enum log_level level, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    write_line(level, level <= source->level, source->name, vcpu, format, args);
    va_end(args);
}

static void say_dropped(struct log_source *source, uint64_t dropped)
{
    if (dropped)
        write_from(source, LOG_NO_VCPU, LOG_WARN, "%llu line%s dropped", (unsigned long long)dropped,
                   dropped == 1 ? "" : "s");
}

void log_from(struct log_source *source, uint32_t vcpu, enum log_level level, const char *format, ...)
{
    va_list args;
    uint64_t now = now_us();
    bool held = lock_source(source);
    bool admitted = admit(source, level, now);
    uint64_t dropped = take_summary(source, now);
    if (held)
        spin_unlock(&source->lock);
    say_dropped(source, dropped);
    if (!admitted)
        return;
    va_start(args, format);
    write_line(level, level <= source->level, source->name, vcpu, format, args);
    va_end(args);
}

void log_settle(struct log_source *source)
{
    if (__atomic_load_n(&source->dropped, __ATOMIC_RELAXED) == 0)
        return;
    bool held = lock_source(source);
    uint64_t dropped = take_summary(source, now_us());
    if (held)
        spin_unlock(&source->lock);
    say_dropped(source, dropped);
}

/* ---- reading the ring ---- */

size_t log_tail(char *buf, size_t size)
{
    bool held = lock();
    uint64_t keep = state.end < RING_SIZE ? state.end : RING_SIZE;
    if (keep > size)
        keep = size;
    uint64_t from = state.end - keep;
    /* Unless the text starts with the first byte of a line, its first line is cut off: drop it. */
    bool whole = from == 0 || (keep < RING_SIZE && ring[(from - 1) & (RING_SIZE - 1)] == '\n');
    while (!whole && from < state.end)
        whole = ring[from++ & (RING_SIZE - 1)] == '\n';
    size_t n = (size_t)(state.end - from);
    for (size_t i = 0; i < n; i++)
        buf[i] = ring[(from + i) & (RING_SIZE - 1)];
    unlock(held);
    return n;
}

uint64_t log_position(uint32_t lines)
{
    bool held = lock();
    uint64_t kept = state.lines < LOG_INDEX ? state.lines : LOG_INDEX;
    if (lines > kept)
        lines = (uint32_t)kept;
    uint64_t at = lines ? line_index[(state.lines - lines) & (LOG_INDEX - 1)] : state.end;
    unlock(held);
    return at;
}

/* The position of the oldest line that is whole. */
static uint64_t oldest(void)
{
    uint64_t at = state.end < RING_SIZE ? 0 : state.end - RING_SIZE;
    if (at == 0)
        return 0;
    while (ring[at++ & (RING_SIZE - 1)] != '\n')
        ;
    return at;
}

bool log_next(uint64_t *at, char *line, size_t size)
{
    size_t n = 0;
    bool held = lock();
    if (state.end - *at > RING_SIZE)
        *at = oldest();
    bool more = *at != state.end;
    while (*at != state.end) {
        char c = ring[(*at)++ & (RING_SIZE - 1)];
        if (c == '\n')
            break;
        if (n + 1 < size)
            line[n++] = c;
    }
    unlock(held);
    line[n] = 0;
    return more;
}
