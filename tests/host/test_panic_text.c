#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "hv/core.h"
#include "hv/lib/log.h"
#include "hv/record/panic_text.h"
#include "tests/host/machine.h"

static uint8_t memory[BLACKBOX_SIZE];
static struct blackbox box;
static struct symbols_table table;
static uint8_t code[256];
static struct panic_code where = {.begin = code, .size = sizeof(code), .symbols = &table};

/* Four functions: first at 0x10, second at 0x40, seconds at 0x80, far at 0x1234. */
static void fill_table(void)
{
    static const char rest[] = "\x10\0first\0" /* 16 bytes on, no character as before */
                               "\x30\0second\0"
                               "\x40\6s\0"
                               "\xb4\x23\0far";
    memset(&table, 0, sizeof(table));
    table.magic = SYMBOLS_MAGIC;
    table.count = 4;
    memcpy(table.rest, rest, sizeof(rest));
}

static int setup(void **state)
{
    fill_table();
    memset(code, 0x90, sizeof(code));
    where.base = (uint64_t)(uintptr_t)code;
    blackbox_begin(&box, memory);
    return 0;
}

static const char *said(void)
{
    memory[sizeof(memory) - 1] = 0;
    ((char *)memory)[(size_t)(blackbox_text(&box) - (const char *)memory) + box.length] = 0;
    return blackbox_text(&box);
}

static bool says(const char *what)
{
    return strstr(said(), what) != NULL;
}

static void test_symbols(void **state)
{
    char text[64];
    assert_false(symbols_describe(&table, 0xf, text, sizeof(text)));
    assert_true(symbols_describe(&table, 0x10, text, sizeof(text)));
    assert_string_equal(text, "first+0x0");
    assert_true(symbols_describe(&table, 0x3f, text, sizeof(text)));
    assert_string_equal(text, "first+0x2f");
    assert_true(symbols_describe(&table, 0x41, text, sizeof(text)));
    assert_string_equal(text, "second+0x1");
    assert_true(symbols_describe(&table, 0x1233, text, sizeof(text)));
    assert_string_equal(text, "seconds+0x11b3");
    assert_true(symbols_describe(&table, 0x1234, text, sizeof(text)));
    assert_string_equal(text, "far+0x0");
    assert_true(symbols_describe(&table, 0xffff, text, sizeof(text)));
    assert_string_equal(text, "far+0xedcb");
}

static void test_damaged_symbols(void **state)
{
    char text[64];
    table.magic++;
    assert_false(symbols_describe(&table, 0x41, text, sizeof(text)));
    fill_table();
    table.count = 0;
    assert_false(symbols_describe(&table, 0x41, text, sizeof(text)));
    table.count = UINT32_MAX; /* names are missing */
    assert_false(symbols_describe(&table, 0x4000, text, sizeof(text)));
    fill_table();
    memset(table.rest + 2, 'x', sizeof(table.rest) - 2); /* a name that never ends */
    assert_false(symbols_describe(&table, 0x41, text, sizeof(text)));
    fill_table();
    table.rest[9] = 0xff; /* as much of a name as none has */
    assert_false(symbols_describe(&table, 0x41, text, sizeof(text)));
    memset(table.rest, 0xff, sizeof(table.rest)); /* distances */
    assert_false(symbols_describe(&table, UINT64_MAX, text, sizeof(text)));
}

/* A call at `at` over `distance`; answers its return address. */
static uint64_t put_call(unsigned at, int32_t distance)
{
    code[at] = 0xe8;
    memcpy(code + at + 1, &distance, sizeof(distance));
    return where.base + at + 5;
}

static void test_head(void **state)
{
    const uint64_t stack[] = {
        put_call(0x20, 0x30),   /* a call of ours */
        where.base + 0x70,      /* code, but no call before it */
        put_call(0x50, 0x7),    /* fills the return stack buffer */
        put_call(0x60, 0x1000), /* leads out of the code */
        where.base + 2,         /* too near to the beginning */
        1234,
        put_call(0x90, -0x60),
    };
    uint64_t registers[PANIC_REGISTERS];
    for (unsigned i = 0; i < PANIC_REGISTERS; i++)
        registers[i] = 0x1000 + i;
    registers[PANIC_RIP] = where.base + 0x48;
    const struct panic_facts facts = {.reason = "a reason",
                                      .build = "b1234",
                                      .now_us = 12345678,
                                      .cpu = 3,
                                      .registers = registers,
                                      .stack = stack,
                                      .stack_words = ARRAY_SIZE(stack),
                                      .code = where};
    panic_text_head(&box, &facts);
    assert_true(says("bulkhead: PANIC: a reason\nbuild b1234, CPU 3, 12.345678 s after the start\nat "));
    assert_true(says(" second+0x8\n"));
    assert_true(says("rax    0000000000001000  rbx    0000000000001001"));
    assert_true(says("first+0x15\n  "));
    assert_true(says("seconds+0x15\n"));
    assert_false(says("second+0x30")); /* where.base + 0x70 */
    assert_false(says("second+0x15"));
    assert_false(says("second+0x25"));
    assert_false(says("4d2"));
}

static void test_exceptions_have_names(void **state)
{
    char reason[112];
    panic_text_exception(14, reason, sizeof(reason));
    assert_string_equal(reason, "host exception 14 (#PF, page fault): a bug in Bulkhead, not in a guest");
    panic_text_exception(18, reason, sizeof(reason));
    assert_string_equal(reason, "host exception 18 (#MC, machine check: the hardware reports an error)");
    panic_text_exception(8, reason, sizeof(reason)); /* the longest one */
    assert_string_equal(reason + strlen(reason) - 5, "guest");
    static const uint64_t nameless[] = {9, 22, UINT64_MAX};
    for (unsigned i = 0; i < ARRAY_SIZE(nameless); i++) {
        panic_text_exception(nameless[i], reason, sizeof(reason));
        assert_non_null(strstr(reason, "(no name)"));
    }
}

static void test_exception_while_telling(void **state)
{
    panic_text_again(&box, &where, "host exception 14", where.base + 0x48);
    assert_true(says("\n(while this was written: host exception 14, at "));
    assert_true(says(" second+0x8\n"));
    assert_true(says("is missing.)\n"));
}

static void test_without_registers(void **state)
{
    const struct panic_facts facts = {.reason = "broken promise", .build = "b", .code = where};
    panic_text_head(&box, &facts);
    assert_true(says("PANIC: broken promise\n"));
    assert_false(says("rax"));
}

static void test_cpus(void **state)
{
    const struct panic_stopped stopped[4] = {[1] = {true, 0}, [2] = {true, where.base + 0x41}};
    panic_text_cpus(&box, &where, stopped, 4, 0);
    assert_false(says("CPU 0"));
    assert_true(says("CPU 1: was running a guest\n"));
    assert_true(says(" second+0x1\n"));
    assert_true(says("CPU 3: did not answer\n"));
}

static const void *unreadable;
static bool can_read(const void *at, size_t size)
{
    return at != unreadable;
}

static void test_exits(void **state)
{
    machine_init(2);
    memset(core.vms, 0, sizeof(core.vms));
    core.vms[1] = &machine.vm;
    struct recorder_entry *entry = machine.vcpus[0].recorder.next;
    entry->raw.reason = VMX_REASON_CPUID;
    entry->raw.rip = 0x4321;
    recorder_take(&machine.vcpus[0].recorder, entry);
    unreadable = NULL;
    panic_text_exits(&box, can_read);
    assert_true(says("VM test, 2 vCPUs\n"));
    assert_true(says("the last exits of vCPU 0, newest first (1 in all):\n  CPUID"));
    assert_true(says("the last exits of vCPU 1, newest first (0 in all):\n"));
    blackbox_begin(&box, memory);
    unreadable = machine.vcpus[0].recorder.first;
    panic_text_exits(&box, can_read);
    assert_true(says("the recorder is damaged"));
    blackbox_begin(&box, memory);
    unreadable = &machine.vm;
    panic_text_exits(&box, can_read);
    assert_true(says("VM 1: its structure is damaged\n"));
    blackbox_begin(&box, memory);
    unreadable = machine.vm.vcpus[1];
    panic_text_exits(&box, can_read);
    assert_false(says("vCPU 1"));
    blackbox_begin(&box, memory);
    char name[CONFIG_NAME_MAX + 4]; /* one that lost its end */
    memset(name, 'n', sizeof(name));
    name[sizeof(name) - 1] = 0;
    machine.vm.name = name;
    panic_text_exits(&box, can_read);
    assert_true(says("VM nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn, 2 vCPUs\n"));
    core.vms[1] = NULL;
}

static void test_log(void **state)
{
    log_line(LOG_DEBUG, "core", "a line of the log");
    panic_text_log(&box);
    assert_true(says("the end of the log:\n"));
    assert_true(says("core: debug: a line of the log") || says("core: a line of the log"));
}

#define T(f) cmocka_unit_test_setup(f, setup)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_symbols),
        T(test_damaged_symbols),
        T(test_head),
        T(test_without_registers),
        T(test_exceptions_have_names),
        T(test_exception_while_telling),
        T(test_cpus),
        T(test_exits),
        T(test_log),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
