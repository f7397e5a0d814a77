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

static uint64_t clock_us(void)
{
    return 12000345;
}

static int setup(void **state)
{
    memset(&seen, 0, sizeof(seen));
    log_set_sink(sink, &seen);
    log_set_level(LOG_INFO);
    log_set_clock(NULL);
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
    log_line(LOG_DEBUG, "core", "quiet one");
    assert_int_equal(seen.count, 0);
    size_t n = log_tail(tail, sizeof(tail)); /* kept all the same */
    assert_true(n >= 16 && memcmp(tail + n - 16, "core: quiet one\n", 16) == 0);
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
    static char tail[32768];
    for (unsigned i = 0; i < 5000; i++)
        log_line(LOG_INFO, "n", "%05u", i);
    size_t n = log_tail(tail, sizeof(tail));
    assert_true(n > 16000 && n <= 16384);
    assert_int_equal(n % 9, 0); /* "n: 00000\n"; 9 does not divide the ring */
    assert_memory_equal(tail + n - 9, "n: 04999\n", 9);
    unsigned first = 5000 - (unsigned)(n / 9);
    for (size_t at = 0; at < n; at += 9) {
        char want[10];
        snprintf(want, sizeof(want), "n: %05u\n", first++);
        assert_memory_equal(tail + at, want, 9);
    }
}

static void log_from_sink(void *ctx, enum log_level level, const char *line)
{
    if (seen.count++ == 0) {
        log_break_lock(); /* the panic path: would spin for ever otherwise */
        log_line(LOG_ERROR, "panic", "again");
    }
    snprintf(seen.line, sizeof(seen.line), "%s", line);
}

/* Last, because it cannot be undone. */
static void test_broken_lock(void **state)
{
    log_set_sink(log_from_sink, &seen);
    log_line(LOG_INFO, "core", "first");
    assert_int_equal(seen.count, 2);
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
        cmocka_unit_test_setup(test_broken_lock, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
