/* The exit table: nothing is forgotten, and the words agree with docs/exits.md and the VMX decoder's table.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "arch/x86/vmx/vmx_raw.h"
#include "hv/exits/exit_table.h"
#include "tests/host/fake_host.h"
#include "tests/host/fake_virt.h"

/* Linked so that every handler of the table has its world. */
static int setup(void **state)
{
    (void)state;
    fake_host_init();
    fake_virt_init();
    return 0;
}

static void test_every_kind_has_a_row(void **state)
{
    (void)state;
    for (unsigned kind = 0; kind < EXIT_KIND_COUNT; kind++) {
        assert_non_null(exit_table[kind].name);
        assert_true(exit_table[kind].name[0] != 0);
        assert_non_null(exit_table[kind].handle);
    }
}

static void test_names(void **state)
{
    (void)state;
    for (unsigned kind = 0; kind < EXIT_KIND_COUNT; kind++) {
        assert_string_equal(exit_kind_name((enum exit_kind)kind), exit_table[kind].name);
        for (unsigned other = 0; other < kind; other++)
            assert_string_not_equal(exit_table[kind].name, exit_table[other].name);
    }
    assert_string_equal(exit_kind_name(EXIT_KIND_COUNT), "?");
    assert_string_equal(exit_kind_name((enum exit_kind) - 1), "?");
    assert_string_equal(exit_kind_name(EXIT_NESTED_FAULT), "EPT violation");
}

static void test_stop_reasons(void **state)
{
    (void)state;
    for (unsigned why = 0; why < STOP_REASON_COUNT; why++) {
        const char *name = stop_reason_name((enum stop_reason)why);
        assert_non_null(name);
        assert_true(strlen(name) > 4);
        for (unsigned other = 0; other < why; other++)
            assert_string_not_equal(name, stop_reason_name((enum stop_reason)other));
    }
    assert_string_equal(stop_reason_name(STOP_REASON_COUNT), "?");
    assert_string_equal(stop_reason_name(STOP_TRIPLE_FAULT), "triple fault");
}

/* What docs/exits.md promises for each reason is what the row of its kind does. */
static void test_rows_do_what_the_documentation_says(void **state)
{
    (void)state;
    static const struct {
        const char *words;
        exit_handler handle;
    } promises[] = {
        {"#UD", handle_undefined},
        {"#GP(0): guests are offered no performance counters", handle_rdpmc},
        {"Cannot occur: ", handle_unexpected},
    };
    for (uint32_t reason = 0; reason < VMX_REASON_COUNT; reason++) {
        const struct vmx_reason_row *row = vmx_reason_row(reason);
        if (!row)
            continue;
        const struct exit_row *handled = &exit_table[vmx_reason_shapes[reason].kind];
        for (unsigned i = 0; i < ARRAY_SIZE(promises); i++) {
            size_t length = strlen(promises[i].words);
            if (strncmp(row->handling, promises[i].words, length) != 0)
                continue;
            if (handled->handle != promises[i].handle)
                fail_msg("%s (%u) promises %s, but goes to \"%s\"", row->name, reason, promises[i].words,
                         handled->name);
        }
    }
}

static void test_documentation_names_every_reason(void **state)
{
    (void)state;
    static char text[65536];
    FILE *f = fopen(TEST_SOURCE_DIR "/docs/exits.md", "r");
    assert_non_null(f);
    size_t size = fread(text, 1, sizeof(text) - 1, f);
    fclose(f);
    text[size] = 0;
    unsigned named = 0;
    for (uint32_t reason = 0; reason < VMX_REASON_COUNT; reason++) {
        const struct vmx_reason_row *row = vmx_reason_row(reason);
        char line[80];
        if (!row) {
            assert_int_equal(vmx_reason_shapes[reason].kind, EXIT_UNEXPECTED);
            continue;
        }
        snprintf(line, sizeof(line), "\n| %u | %s |", reason, row->name);
        if (!strstr(text, line))
            fail_msg("docs/exits.md has no row for %s (%u)", row->name, reason);
        named++;
    }
    assert_true(named >= 70);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_kind_has_a_row),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_stop_reasons),
        cmocka_unit_test(test_rows_do_what_the_documentation_says),
        cmocka_unit_test(test_documentation_names_every_reason),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
