#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "hv/lib/log.h"
#include "hv/lib/types.h"

static struct {
    unsigned count;
    enum log_level level;
    char line[512];
} seen;

static void sink(void *ctx, enum log_level level, const char *line)
{
    assert_ptr_equal(ctx, &seen);
    seen.count++;
    seen.level = level;
    snprintf(seen.line, sizeof(seen.line), "%s", line);
}

static uint64_t now;

static uint64_t clock_us(void)
{
    return now;
}

static int setup(void **state)
{
    memset(&seen, 0, sizeof(seen));
    log_set_sink(sink, &seen);
    log_set_level(LOG_INFO);
    log_set_clock(NULL);
    now = 12000345;
    return 0;
}

static void test_lines(void **state)
{
    log_line(LOG_INFO, "core", "%u CPUs", 2u);
    assert_string_equal(seen.line, "core: 2 CPUs");
    log_set_clock(clock_us);
    log_line(LOG_WARN, "web", "x");
    assert_string_equal(seen.line, "[   12.000345] web: warning: x");
    assert_int_equal(seen.level, LOG_WARN);
    log_line(LOG_ERROR, "web", "y");
    assert_string_equal(seen.line, "[   12.000345] web: ERROR: y");
}

static void test_levels(void **state)
{
    char tail[64];
    log_set_level(LOG_ERROR);
    log_line(LOG_ALWAYS, "web", "stopped");
    assert_string_equal(seen.line, "web: stopped");
    log_line(LOG_WARN, "web", "hidden");
    assert_string_equal(seen.line, "web: stopped");
    setup(state);
    log_line(LOG_DEBUG, "core", "quiet one");
    assert_int_equal(seen.count, 0);
    size_t n = log_tail(tail, sizeof(tail)); /* kept all the same */
    assert_true(n >= 23 && memcmp(tail + n - 23, "core: debug: quiet one\n", 23) == 0);
    log_set_level(LOG_DEBUG);
    log_line(LOG_DEBUG, "core", "loud");
    assert_int_equal(seen.count, 1);
    log_set_level(LOG_ERROR);
    log_line(LOG_WARN, "core", "no");
    assert_int_equal(seen.count, 1);
    log_set_sink(NULL, NULL);
    log_line(LOG_ERROR, "core", "nobody listens");
    assert_int_equal(seen.count, 1);
}

static void test_long_lines_are_cut(void **state)
{
    char text[600], name[600];
    memset(text, 'a', sizeof(text) - 1);
    text[sizeof(text) - 1] = 0;
    log_line(LOG_INFO, "core", "%s", text);
    assert_int_equal(strlen(seen.line), 240);
    memcpy(name, text, sizeof(name));
    name[250] = 0; /* a fault writes just behind the line, where the sanitizer watches */
    log_line(LOG_INFO, name, "x");
    assert_int_equal(strlen(seen.line), 240);
}

static void test_tail_is_whole_lines(void **state)
{
    char tail[4096];
    log_line(LOG_INFO, "a", "one");
    log_line(LOG_INFO, "b", "two");
    assert_int_equal(log_tail(tail, 7), 7);
    assert_memory_equal(tail, "b: two\n", 7);
    assert_int_equal(log_tail(tail, 13), 7); /* half of the line before is dropped */
    assert_memory_equal(tail, "b: two\n", 7);
    assert_int_equal(log_tail(tail, 14), 14);
    assert_memory_equal(tail, "a: one\nb: two\n", 14);
    assert_int_equal(log_tail(tail, 6), 0);
    assert_int_equal(log_tail(tail, 0), 0);
}

static void test_ring_wraps(void **state)
{
    static char tail[2 * LOG_RING];
    for (unsigned i = 0; i < 9000; i++)
        log_line(LOG_INFO, "n", "%05u", i);
    size_t n = log_tail(tail, sizeof(tail));
    assert_true(n > LOG_RING - 250 && n <= LOG_RING);
    assert_int_equal(n % 9, 0); /* "n: 00000\n"; 9 does not divide the ring */
    assert_memory_equal(tail + n - 9, "n: 08999\n", 9);
    unsigned first = 9000 - (unsigned)(n / 9);
    for (size_t at = 0; at < n; at += 9) {
        char want[10];
        snprintf(want, sizeof(want), "n: %05u\n", first++);
        assert_memory_equal(tail + at, want, 9);
    }
}

/* ---- lines from a guest's doing ---- */

static struct log_source web;

static void start_source(enum log_level level)
{
    log_set_clock(clock_us);
    log_source_init(&web, "web", level);
}

static unsigned shown(unsigned lines, enum log_level level)
{
    unsigned before = seen.count;
    for (unsigned i = 0; i < lines; i++)
        log_from(&web, 1, level, "line %u", i);
    return seen.count - before;
}

static void test_source_lines(void **state)
{
    start_source(LOG_INFO);
    log_from(&web, LOG_NO_VCPU, LOG_INFO, "%u vCPUs", 2u);
    assert_string_equal(seen.line, "[   12.000345] web: 2 vCPUs");
    log_from(&web, 0, LOG_WARN, "x");
    assert_string_equal(seen.line, "[   12.000345] web/0: warning: x");
    log_from(&web, 15, LOG_ERROR, "y");
    assert_string_equal(seen.line, "[   12.000345] web/15: ERROR: y");
}

/* The VM's level decides, not the machine's; the ring has what is not shown. */
static void test_source_level(void **state)
{
    char line[LOG_LINE_MAX];
    log_set_level(LOG_ERROR);
    start_source(LOG_INFO);
    assert_int_equal(shown(1, LOG_INFO), 1);
    assert_int_equal(shown(1, LOG_DEBUG), 0);
    uint64_t at = log_position(1);
    assert_true(log_next(&at, line, sizeof(line)));
    assert_string_equal(line, "[   12.000345] web/1: debug: line 0");
}

static void test_burst_and_rate(void **state)
{
    start_source(LOG_DEBUG);
    assert_int_equal(shown(1000, LOG_INFO), LOG_BURST);
    assert_int_equal(web.dropped, 1000 - LOG_BURST);
    now += 99999;
    assert_int_equal(shown(10, LOG_INFO), 0);
    now += 1;
    assert_int_equal(shown(10, LOG_INFO), 1);
    now += 500000;
    assert_int_equal(shown(10, LOG_INFO), 5);
    now += 3600000000ull;
    assert_int_equal(shown(1000, LOG_INFO), LOG_BURST + 1); /* and the summary */
}

/* Whatever a guest does, it gets ten lines a second and one that counts the others. */
static void test_flood(void **state)
{
    start_source(LOG_DEBUG);
    shown(1000, LOG_WARN);
    unsigned before = seen.count;
    for (unsigned ms = 0; ms < 10000; ms++) {
        now += 1000;
        for (unsigned i = 0; i < 20; i++)
            log_from(&web, 0, LOG_WARN, "again");
    }
    assert_in_range(seen.count - before, 108, 112);
}

static void test_summary(void **state)
{
    start_source(LOG_INFO);
    shown(LOG_BURST + 7, LOG_INFO);
    log_settle(&web);
    assert_string_equal(seen.line, "[   12.000345] web/1: line 39");
    now += 999999;
    log_settle(&web); /* not yet: more may come */
    assert_string_equal(seen.line, "[   12.000345] web/1: line 39");
    now += 1;
    log_settle(&web);
    assert_string_equal(seen.line, "[   13.000345] web: warning: 7 lines dropped");
    unsigned count = seen.count;
    now += 5000000;
    log_settle(&web);
    assert_int_equal(seen.count, count);
    shown(LOG_BURST + 1, LOG_INFO);
    now += 1000000;
    shown(1, LOG_INFO); /* the next line brings it */
    assert_string_equal(seen.line, "[   19.000345] web/1: line 0");
    log_settle(&web);
    assert_string_equal(seen.line, "[   19.000345] web/1: line 0");
    shown(20, LOG_INFO);
    now += 1000000;
    log_settle(&web);
    assert_string_equal(seen.line, "[   20.000345] web: warning: 11 lines dropped");
}

/* A flood of notes leaves room for what matters; errors are always heard. */
static void test_reserve(void **state)
{
    start_source(LOG_DEBUG);
    assert_int_equal(shown(100, LOG_DEBUG), LOG_BURST - LOG_RESERVE);
    assert_int_equal(shown(100, LOG_INFO), LOG_RESERVE);
    assert_int_equal(shown(100, LOG_ERROR), 100);
    now -= 1000; /* another CPU's clock */
    assert_int_equal(shown(1, LOG_INFO), 0);
}

/* ---- reading the ring ---- */

static void test_reading(void **state)
{
    char line[LOG_LINE_MAX];
    log_line(LOG_INFO, "a", "one");
    log_line(LOG_INFO, "a", "two");
    log_line(LOG_INFO, "a", "three");
    uint64_t at = log_position(2);
    assert_true(log_next(&at, line, sizeof(line)));
    assert_string_equal(line, "a: two");
    assert_true(log_next(&at, line, 6));
    assert_string_equal(line, "a: th");
    assert_false(log_next(&at, line, sizeof(line)));
    assert_string_equal(line, "");
    log_line(LOG_INFO, "a", "four");
    assert_true(log_next(&at, line, sizeof(line))); /* goes on where it was */
    assert_string_equal(line, "a: four");
    at = log_position(0);
    assert_false(log_next(&at, line, sizeof(line)));
}

static void test_reading_what_was_overwritten(void **state)
{
    char line[LOG_LINE_MAX];
    uint64_t first = log_position(1);
    for (unsigned i = 0; i < 9000; i++)
        log_line(LOG_INFO, "n", "%05u", i);
    uint64_t at = first, count = 1;
    assert_true(log_next(&at, line, sizeof(line)));
    unsigned number = (unsigned)strtoul(line + 3, NULL, 10);
    assert_in_range(9000 - number, LOG_RING / 9 - 1, LOG_RING / 9);
    while (log_next(&at, line, sizeof(line)))
        assert_int_equal(strtoul(line + 3, NULL, 10), number + count++);
    assert_int_equal(number + count, 9000);
    at = log_position(UINT32_MAX); /* as many as the index holds */
    for (count = 0; log_next(&at, line, sizeof(line)); count++)
        assert_int_equal(strtoul(line + 3, NULL, 10), 9000 - LOG_INDEX + count);
    assert_int_equal(count, LOG_INDEX);
}

static void log_from_sink(void *ctx, enum log_level level, const char *line)
{
    if (seen.count++ == 0) {
        log_break_lock(); /* the panic path: would spin for ever otherwise */
        log_line(LOG_ERROR, "panic", "again");
        web.lock.next++; /* somebody holds it for ever */
        log_from(&web, 0, LOG_ERROR, "again");
        web.dropped = 1;
        log_settle(&web);
    }
    snprintf(seen.line, sizeof(seen.line), "%s", line);
}

/* Last, because it cannot be undone. */
static void test_broken_lock(void **state)
{
    start_source(LOG_INFO);
    log_set_clock(NULL);
    log_set_sink(log_from_sink, &seen);
    log_line(LOG_INFO, "core", "first");
    assert_int_equal(seen.count, 4);
    assert_string_equal(seen.line, "core: first");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_lines, setup),
        cmocka_unit_test_setup(test_levels, setup),
        cmocka_unit_test_setup(test_long_lines_are_cut, setup),
        cmocka_unit_test_setup(test_tail_is_whole_lines, setup),
        cmocka_unit_test_setup(test_ring_wraps, setup),
        cmocka_unit_test_setup(test_source_lines, setup),
        cmocka_unit_test_setup(test_source_level, setup),
        cmocka_unit_test_setup(test_burst_and_rate, setup),
        cmocka_unit_test_setup(test_flood, setup),
        cmocka_unit_test_setup(test_summary, setup),
        cmocka_unit_test_setup(test_reserve, setup),
        cmocka_unit_test_setup(test_reading, setup),
        cmocka_unit_test_setup(test_reading_what_was_overwritten, setup),
        cmocka_unit_test_setup(test_broken_lock, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
