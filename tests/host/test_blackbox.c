#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "hv/record/blackbox.h"

static uint8_t memory[BLACKBOX_SIZE];
static struct blackbox box;
static struct span text;

static int setup(void **state)
{
    memset(memory, 0x5a, sizeof(memory));
    blackbox_begin(&box, memory);
    return 0;
}

static bool found(const char *expected)
{
    return blackbox_find(memory, &text) && text.size == strlen(expected) &&
           memcmp(text.data, expected, text.size) == 0;
}

static void test_round_trip(void **state)
{
    assert_false(blackbox_find(memory, &text));
    blackbox_print(&box, "panic on CPU %u\n", 3u);
    assert_false(blackbox_find(memory, &text)); /* not sealed */
    blackbox_seal(&box);
    assert_true(found("panic on CPU 3\n"));
    blackbox_write(&box, "more", 4);
    assert_true(found("panic on CPU 3\n")); /* as it was sealed */
    blackbox_seal(&box);
    assert_true(found("panic on CPU 3\nmore"));
    blackbox_clear(memory);
    assert_false(blackbox_find(memory, &text));
}

static void test_only_text(void **state)
{
    blackbox_write(&box, "a\tb\033[2J\xc3\0c\n", 11);
    blackbox_seal(&box);
    assert_true(found("a?b?[2J??c\n"));
}

static void test_cut_when_full(void **state)
{
    for (unsigned i = 0; i < BLACKBOX_SIZE; i++)
        blackbox_write(&box, "x", 1);
    blackbox_print(&box, "not any more");
    blackbox_seal(&box);
    assert_true(blackbox_find(memory, &text));
    assert_int_equal(text.data + text.size - memory, BLACKBOX_SIZE);
    assert_int_equal(text.data[text.size - 1], 'x');
}

static void test_long_print_is_cut(void **state)
{
    char longer[600];
    memset(longer, 'y', sizeof(longer));
    longer[sizeof(longer) - 1] = 0;
    blackbox_print(&box, "%s", longer);
    assert_true(box.length > 100 && box.length < sizeof(longer));
}

/* Every single bit that differs is noticed. */
static void test_damage(void **state)
{
    blackbox_print(&box, "a short text\n");
    blackbox_seal(&box);
    for (unsigned bit = 0; bit < 8 * (24 + 13); bit++) {
        if (bit / 8 >= 20 && bit / 8 < 24)
            continue; /* padding of the header */
        memory[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_false(blackbox_find(memory, &text));
        memory[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    assert_true(blackbox_find(memory, &text));
}

static void test_empty_is_none(void **state)
{
    blackbox_seal(&box);
    assert_false(blackbox_find(memory, &text));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_round_trip, setup),
        cmocka_unit_test_setup(test_only_text, setup),
        cmocka_unit_test_setup(test_cut_when_full, setup),
        cmocka_unit_test_setup(test_long_print_is_cut, setup),
        cmocka_unit_test_setup(test_damage, setup),
        cmocka_unit_test_setup(test_empty_is_none, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
