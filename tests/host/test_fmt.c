#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "hv/lib/fmt.h"
#include "hv/lib/string.h"

/* Both formatters get the same arguments; the C library is the oracle. */
#define SAME(...)                                                                                            \
    do {                                                                                                     \
        char ours[128], theirs[128];                                                                         \
        size_t n = fmt_format(ours, sizeof(ours), __VA_ARGS__);                                              \
        int m = snprintf(theirs, sizeof(theirs), __VA_ARGS__);                                               \
        assert_string_equal(ours, theirs);                                                                   \
        assert_int_equal(n, m);                                                                              \
    } while (0)

static void test_integers(void **state)
{
    SAME("%d %i %d", 0, -1, 2147483647);
    SAME("%d", (int)0x80000000);
    SAME("%ld %lld", (long)INT64_MIN, (long long)INT64_MAX);
    SAME("%u %lu %llu %zu", 4294967295u, (unsigned long)UINT64_MAX, 1ull, (size_t)7);
    SAME("%x %X %lx", 0xdeadbeefu, 0xdeadbeefu, 0x123456789abcdefUL);
    SAME("%hhx %hx %hhd %hd", (unsigned char)0xff, (unsigned short)0xffff, (signed char)-1, (short)-2);
    SAME("%hhu %hu", (unsigned char)255, (unsigned short)65535);
    SAME("[%5d][%-5d][%05d][%1d]", -42, -42, -42, -42);
    SAME("[%8x][%-8x][%08x]", 0xabcu, 0xabcu, 0xabcu);
    SAME("[%*d][%*d]", 6, 1, -6, 1);
    SAME("[%020lu]", (unsigned long)UINT64_MAX);
    SAME("[%30ld]", (long)INT64_MIN);
}

/* int arguments are truncated by hh and h as C says. */
static void test_truncation(void **state)
{
    char buf[64];
    int big = 0x12345;
    fmt_format(buf, sizeof(buf), "%hhx %hx %hhd", (unsigned char)big, (unsigned short)big, (signed char)big);
    assert_string_equal(buf, "45 2345 69");
}

static void test_text(void **state)
{
    SAME("%s|%5s|%-5s|%.2s|%.*s", "abc", "abc", "abc", "abc", 1, "abc");
    SAME("%c%3c%-3c|", 'a', 'b', 'c');
    SAME("100%% %s", "");
    SAME("%p", (void *)0x1234abcd);
    char buf[32];
    const char *volatile null = NULL;
    fmt_format(buf, sizeof(buf), "%s", null);
    assert_string_equal(buf, "(null)");
    /* A precision makes text without a NUL safe. */
    const char raw[2] = {'x', 'y'};
    fmt_format(buf, sizeof(buf), "%.2s", raw);
    assert_string_equal(buf, "xy");
    fmt_format(buf, sizeof(buf), "%.*s", -1, "all");
    assert_string_equal(buf, "all");
}

static void test_bounds(void **state)
{
    char buf[4] = "???";
    assert_int_equal(fmt_format(buf, 4, "%s", "abcdef"), 6);
    assert_string_equal(buf, "abc");
    assert_int_equal(fmt_format(buf, 1, "%d", 12345), 5);
    assert_string_equal(buf, "");
    assert_int_equal(fmt_format(NULL, 0, "%d", 12345), 5);
    char *exact = malloc(4); /* the sanitizer sees byte five */
    assert_int_equal(fmt_format(exact, 4, "%s", "abc"), 3);
    assert_string_equal(exact, "abc");
    free(exact);
}

/* Goes around the compiler's check of format strings. */
static void unchecked(char *buf, size_t size, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fmt_vformat(buf, size, format, args);
    va_end(args);
}

static void test_unknown_conversions(void **state)
{
    char buf[64];
    unchecked(buf, sizeof(buf), "a%qb%-3", 1);
    assert_string_equal(buf, "a%qb%-3");
    unchecked(buf, sizeof(buf), "%", 1);
    assert_string_equal(buf, "%");
    unchecked(buf, sizeof(buf), "%f", 1);
    assert_string_equal(buf, "%f");
    unchecked(buf, sizeof(buf), "%999999999999d", 1);
    assert_string_equal(buf, "                                                               ");
}

static void test_string_helpers(void **state)
{
    char buf[4];
    assert_true(str_copy(buf, sizeof(buf), "abc"));
    assert_string_equal(buf, "abc");
    assert_false(str_copy(buf, sizeof(buf), "abcd"));
    assert_string_equal(buf, "abc");
    assert_true(str_equal("", ""));
    assert_true(str_equal("ab", "ab"));
    assert_false(str_equal("ab", "abc"));
    assert_false(str_equal("abc", "ab"));
    assert_int_equal(str_length("four"), 4);
    assert_true(span_equals((struct span){(const uint8_t *)"abc", 2}, "ab"));
    assert_false(span_equals((struct span){(const uint8_t *)"abc", 3}, "ab"));
    assert_false(span_equals((struct span){(const uint8_t *)"abc", 2}, "ax"));
}

/* The freestanding mem* functions under other names, against the C library's. */
#define memcpy  fs_memcpy
#define memmove fs_memmove
#define memset  fs_memset
#define memcmp  fs_memcmp
void *fs_memcpy(void *restrict dest, const void *restrict src, size_t n);
void *fs_memmove(void *dest, const void *src, size_t n);
void *fs_memset(void *dest, int byte, size_t n);
int fs_memcmp(const void *a, const void *b, size_t n);
#include "hv/lib/mem.c"
#undef memcpy
#undef memmove
#undef memset
#undef memcmp

static void test_mem(void **state)
{
    uint8_t original[64], ours[64], theirs[64];
    for (unsigned i = 0; i < sizeof(original); i++)
        original[i] = (uint8_t)(i * 7);
    for (unsigned n = 0; n <= 24; n++) {
        for (unsigned from = 0; from < 40; from++) {
            for (unsigned to = 0; to < 40; to++) {
                memcpy(ours, original, sizeof(ours));
                memcpy(theirs, original, sizeof(theirs));
                assert_ptr_equal(fs_memmove(ours + to, ours + from, n), ours + to);
                memmove(theirs + to, theirs + from, n);
                assert_memory_equal(ours, theirs, sizeof(ours));
            }
        }
        memcpy(ours, original, sizeof(ours));
        memcpy(theirs, original, sizeof(theirs));
        assert_ptr_equal(fs_memset(ours + 3, 0x1a5, n), ours + 3);
        memset(theirs + 3, 0x1a5, n);
        assert_memory_equal(ours, theirs, sizeof(ours));
        assert_ptr_equal(fs_memcpy(ours + 5, original, n), ours + 5);
        memcpy(theirs + 5, original, n);
        assert_memory_equal(ours, theirs, sizeof(ours));
    }
    assert_int_equal(fs_memcmp("abc", "abd", 2), 0);
    assert_true(fs_memcmp("abc", "abd", 3) < 0);
    assert_true(fs_memcmp("\xff", "\x01", 1) > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_integers),
        cmocka_unit_test(test_truncation),
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_unknown_conversions),
        cmocka_unit_test(test_string_helpers),
        cmocka_unit_test(test_mem),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
