/* Lists of resource descriptors as firmware makes them, and broken ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "boot/boot_pci.h"

static uint8_t list[256];
static size_t used;

static void address(uint8_t type, uint64_t min, uint64_t max)
{
    uint8_t *d = list + used;
    memset(d, 0, 46);
    d[0] = 0x8a;
    d[1] = 0x2b;
    d[3] = type;
    memcpy(d + 14, &min, 8);
    memcpy(d + 22, &max, 8);
    used += 46;
}

static int setup(void **state)
{
    memset(list, 0xcc, sizeof(list));
    used = 0;
    return 0;
}

static bool find(uint8_t *first, uint8_t *last)
{
    /* No byte behind the limit may be touched. */
    uint8_t *copy = malloc(used ? used : 1);
    memcpy(copy, list, used);
    bool found = boot_pci_buses(copy, used, first, last);
    free(copy);
    return found;
}

static void test_good(void **state)
{
    uint8_t first, last;
    address(1, 0x6000, 0xffff);
    address(0, 0x80000000, 0xdfffffff);
    address(2, 0x40, 0x7f);
    list[used++] = 0x79;
    list[used++] = 0;
    assert_true(find(&first, &last));
    assert_int_equal(first, 0x40);
    assert_int_equal(last, 0x7f);
}

static void test_bad(void **state)
{
    uint8_t first, last;
    assert_false(find(&first, &last));
    address(1, 0, 255);
    assert_false(find(&first, &last)); /* no buses, and no end */
    list[used++] = 0x79;
    list[used++] = 0;
    address(2, 0, 255); /* behind the end */
    assert_false(find(&first, &last));
    setup(NULL);
    address(2, 0, 256);
    assert_false(find(&first, &last));
    setup(NULL);
    address(2, 5, 4);
    assert_false(find(&first, &last));
    setup(NULL);
    address(2, 0, 255);
    for (used = 0; used < 46; used++)
        assert_false(find(&first, &last));
    used = 46;
    assert_true(find(&first, &last));
    list[1] = 0x2a; /* too short for what it says it is */
    assert_false(find(&first, &last));
    list[1] = 0xff; /* longer than the list */
    list[2] = 0xff;
    assert_false(find(&first, &last));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_good, setup),
        cmocka_unit_test_setup(test_bad, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
