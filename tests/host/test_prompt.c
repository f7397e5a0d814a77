/* Bulkhead's prompt: the line editor, finding commands, and what each of them answers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "hv/assign/devices.h"
#include "hv/assign/vm_assign.h"
#include "hv/console/console.h"
#include "hv/console/prompt.h"
#include "hv/lib/bits.h"
#include "hv/lib/fmt.h"
#include "tests/host/fake_host.h"
#include "tests/host/fake_pci.h"
#include "tests/host/fake_vtd.h"
#include "tests/host/machine.h"

#define PROMPT "bulkhead> "

static unsigned room;
static char wire[65536];
static size_t sent;
static const char *typed;
static struct boot_info info;
static struct config_vm other_config;
static struct vm other;

static unsigned wire_room(void)
{
    return room;
}

static void wire_tx(uint8_t byte)
{
    assert_true(sent < sizeof(wire) - 1);
    wire[sent++] = (char)byte;
    wire[sent] = 0;
}

static bool wire_idle(void)
{
    return true;
}

static int wire_rx(void)
{
    return *typed ? (uint8_t)*typed++ : -1;
}

static const struct console_port port = {
    .tx_room = wire_room, .tx = wire_tx, .tx_idle = wire_idle, .rx = wire_rx};

static void clear_wire(void)
{
    sent = 0;
    wire[0] = 0;
}

static void poll(unsigned times)
{
    for (unsigned i = 0; i < times; i++)
        console_poll();
}

static void type(const char *text)
{
    typed = text;
    while (*typed)
        console_poll();
    poll(3);
}

static int setup(void **state)
{
    machine_init(2);
    console_init(&port);
    room = UINT32_MAX;
    typed = "";
    memset(&other, 0, sizeof(other));
    memset(&info, 0, sizeof(info));
    strcpy(other_config.name, "db-2");
    other_config.console = 7;
    other_config.cpus = 0x1d;
    other_config.memory = 64ull << 20;
    machine.config.console = 1;
    machine.config.cpus = 2;
    machine.config.memory = 4ull << 30;
    other.id = 1;
    other.config = &other_config;
    other.name = other_config.name;
    other.state = VM_STOPPED;
    other.stop = STOP_TRIPLE_FAULT;
    other.restarts = 12;
    log_source_init(&other.log, other.name, LOG_DEBUG);
    core.info = &info;
    info.config.vm_count = 2;
    core.vms[0] = &machine.vm;
    core.vms[1] = &other;
    console_attach(&machine.vm);
    type("\001h");
    clear_wire();
    return 0;
}

static void assert_sent(const char *text)
{
    assert_string_equal(wire, text);
    clear_wire();
}

/* Types a line and answers what came between its echo and the next prompt. */
static const char *answer(const char *line)
{
    static char text[sizeof(wire)];
    clear_wire();
    type(line);
    clear_wire();
    type("\r");
    poll(3000);
    size_t n = strlen(PROMPT);
    assert_true(sent >= n + 2 && strcmp(wire + sent - n, PROMPT) == 0);
    memcpy(text, wire + 2, sent - n - 2);
    text[sent - n - 2] = 0;
    clear_wire();
    return text;
}

static void assert_answer(const char *line, const char *text)
{
    const char *got = answer(line);
    size_t n = strlen(text);
    if (strlen(got) != n + 2 || memcmp(got, text, n) || strcmp(got + n, "\r\n"))
        assert_string_equal(got, text);
}

static void assert_has(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("no \"%s\" in:\n%s", part, text);
}

/* ---- editing ---- */

static void test_echo_and_erase(void **state)
{
    type("helq");
    assert_sent("helq");
    type("\177\b");
    assert_sent("\b \b\b \b");
    type("x\025\177");
    assert_sent("x\b \b\b \b\b \b");
    type("vms");
    assert_sent("vms");
    type("\003");
    assert_sent("^C\r\n" PROMPT);
    assert_answer("nothing", "there is no command 'nothing': `help` lists them"); /* all of it was gone */
}

static void test_line_ends(void **state)
{
    type("\r");
    assert_sent("\r\n" PROMPT);
    type("\r\n\r\n\n");
    assert_sent("\r\n" PROMPT "\r\n" PROMPT "\r\n" PROMPT); /* CR LF is one */
    type("\r");
    type("\n"); /* in another poll */
    assert_sent("\r\n" PROMPT);
    type("   \r");
    assert_sent("   \r\n" PROMPT);
}

static void test_what_is_not_text(void **state)
{
    type("v\001\001\t\303\244\377\002ms");
    assert_non_null(strstr(wire, "ms"));
    clear_wire();
    type("\r");
    poll(10);
    assert_has(wire, "name ");
}

static void test_line_is_bounded(void **state)
{
    char line[PROMPT_LINE_MAX + 11];
    memset(line, 'x', sizeof(line) - 1);
    line[sizeof(line) - 1] = 0;
    type(line);
    assert_int_equal(sent, sizeof(line) - 1);
    assert_memory_equal(wire + PROMPT_LINE_MAX - 1, "x\a\a\a\a\a\a\a\a\a\a", 11);
}

static void test_history(void **state)
{
    answer("one");
    answer("two");
    answer("two"); /* kept once */
    answer("three");
    clear_wire();
    type("\033[A");
    assert_sent("three");
    type("\033OA\033[A");
    assert_sent("\b \b\b \b\b \b\b \b\b \b"
                "two"
                "\b \b\b \b\b \b"
                "one");
    type("\033[A"); /* there is no older one */
    assert_sent("");
    type("\033[B");
    assert_sent("\b \b\b \b\b \b"
                "two");
    type("\033[B\033[B");
    assert_sent("\b \b\b \b\b \b"
                "three"
                "\b \b\b \b\b \b\b \b\b \b");
    type("\033[B");
    assert_sent("");
    type("\033[A\177\177\177\177\177vms\r");
    poll(10);
    assert_has(wire, "name ");
}

static void test_history_is_bounded(void **state)
{
    char line[16];
    for (unsigned i = 0; i < 20; i++) {
        snprintf(line, sizeof(line), "n%u", i);
        answer(line);
    }
    clear_wire();
    for (unsigned i = 0; i < 20; i++)
        type("\033[A");
    assert_has(wire, "n19");
    assert_has(wire, "n12");
    assert_null(strstr(wire, "n11"));
}

/* Sequences that come in pieces, or are cut off, or mean nothing here. */
static void test_escape_sequences(void **state)
{
    answer("one");
    clear_wire();
    type("\033");
    type("[");
    type("A");
    assert_sent("one");
    type("\025");
    clear_wire();
    type("\033[12;34R"); /* a terminal's answer to "where is the cursor" */
    type("\033[C\033[D\033[3~\033[1;5C");
    assert_sent("");
    type("\033x"); /* Alt-x, or Escape and x */
    assert_sent("x");
    type("\025");
    clear_wire();
    type("\033\r");
    assert_sent("\r\n" PROMPT);
    type("\033[1\r");
    assert_sent("\r\n" PROMPT);
    type("\033\033[A");
    assert_sent("one");
}

/* ---- finding commands ---- */

static void test_names(void **state)
{
    assert_has(answer("vm"), "name "); /* a unique prefix */
    assert_has(answer("  vms   "), "name ");
    assert_answer("vmz", "there is no command 'vmz': did you mean 'vms'?");
    assert_answer("hepl", "there is no command 'hepl': did you mean 'help'?");
    assert_answer("gibberish", "there is no command 'gibberish': `help` lists them");
    assert_answer("re", "'re' can be reset, reboot");
    assert_has(answer("st"), "'st' can be ");
    for (uint32_t i = 0; i < prompt_command_count; i++) { /* no name hides another */
        assert_true(strlen(prompt_commands[i].name) < 10 && prompt_commands[i].run);
        assert_has(answer("help"), prompt_commands[i].help);
    }
}

static void test_many_words(void **state)
{
    const char *got = answer("vms 1 2 3 4 5 6 7 8 9");
    assert_has(got, "name ");
}

/* ---- commands ---- */

static void test_help(void **state)
{
    const char *got = answer("help");
    assert_has(got, CONSOLE_KEYS);
    assert_has(got, "  vms  ");
}

static void test_vms(void **state)
{
    machine.vm.start_tsc = 0;
    fake_host.tsc = (3 * 3600 + 25 * 60 + 9) * 1000000000ull;
    const char *got = answer("vms");
    assert_has(got, "* 1  test             running   1           4096 MiB         0  3:25:09\r\n");
    assert_has(got, "  7  db-2             stopped   0,2-4         64 MiB        12  triple fault\r\n");
    core.vms[0] = NULL; /* could not be created */
    got = answer("vms");
    assert_null(strstr(got, "test"));
    assert_has(got, "db-2");
}

static void test_iommu(void **state)
{
    static struct fake_vtd vtd;
    static struct iommu iommu;
    static struct acpi_dmar dmar;
    char why[100];
    fmt_format(host_devices.iommu_why, sizeof(host_devices.iommu_why), "it is off");
    assert_has(answer("iommu"), "no device can be given to a VM: it is off");
    fake_vtd_init(&vtd, 1, FAKE_VTD_CAP, FAKE_VTD_ECAP);
    fake_vtd_dmar(&vtd, &dmar);
    assert_int_equal(iommu_init(&iommu, &dmar, &vtd.config, &vtd.env, why, sizeof(why)), STATUS_OK);
    core.iommu = &iommu;
    const char *got = answer("iommu");
    core.iommu = NULL;
    assert_has(got, "unit 0 at fed90000, segment 0, all that others do not have: 0 faults");
    assert_has(got, "0 of 255 domains");
    fake_vtd_free(&vtd);
}

static void test_pci(void **state)
{
    static struct fake_pci pci;
    static struct pci_device devices[32];
    assert_string_equal(answer("pci"), "");
    assert_true(fake_pci_load(&pci, TEST_SOURCE_DIR "/tests/vectors/pci/qemu-q35-ovmf.txt"));
    core.pci = (struct pci_inventory){.capacity = 32, .devices = devices, .roots = {1}};
    assert_int_equal(pci_scan(&core.pci, &pci.cfg), STATUS_OK);
    const char *got = answer("pci");
    assert_has(got, "00:00.0  8086:29c0  Host bridge              group 0   stays with Bulkhead\r\n");
    assert_has(got, "05:02.0  10ec:8139  Ethernet controller");
    assert_string_equal(answer("pci 01:00.0"),
                        "01:00.0  8086:10c9  Ethernet controller      group 9   assignable; 8 VFs\r\n"
                        "  BAR 0: 0x80820000, 128 KiB, memory\r\n"
                        "  BAR 1: 0x80800000, 128 KiB, memory\r\n"
                        "  BAR 2: 0x9000, 32 bytes, I/O ports\r\n"
                        "  BAR 3: 0x80840000, 16 KiB, memory, 64-bit\r\n"
                        "  MSI-X: 10 vectors, table in BAR 3 at 0x0\r\n"
                        "  reset: by itself (FLR)\r\n"
                        "  SR-IOV: 0 of 8 VFs on, device 10ca, offset 0x80, stride 2\r\n"
                        "  VF BAR 0: 0xc040020000, 16 KiB, memory, 64-bit, prefetchable\r\n"
                        "  VF BAR 3: 0xc040000000, 16 KiB, memory, 64-bit, prefetchable\r\n");
    got = answer("pci 0:1f.2");
    assert_has(got, "  MSI\r\n");
    assert_has(got, "  reset: not without its neighbours\r\n  in the same group: 00:1f.0 00:1f.3\r\n");
    assert_has(answer("pci 02:00.0"), "  reset: by its port, behind which it is alone\r\n");
    assert_has(answer("pci 00:02.0"), "  window: 0x80800000 to 0x809fffff, memory\r\n");
    assert_answer("pci 01:00.1", "there is nothing at 01:00.1: `pci` lists all");
    static const char *const bad[] = {"x",        "01:00",    "01:00.8", "01:20.0",
                                      "001:00.0", "01:00.0x", "01.00.0", ":0.0"};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        char line[40], reply[80];
        snprintf(line, sizeof(line), "pci %s", bad[i]);
        snprintf(reply, sizeof(reply), "'%s' is not a PCI address like 01:00.0", bad[i]);
        assert_answer(line, reply);
    }
    struct vm_assign *assign = calloc(1, sizeof(*assign) + sizeof(assign->devices[0]));
    assert_non_null(assign);
    assign->count = 1;
    assign->devices[0].vm = &other;
    assign->devices[0].bdf = PCI_BDF(1, 0, 0);
    other.assign = assign; /* it is stopped, and has it all the same */
    got = answer("pci");
    assert_has(got, "01:00.0  8086:10c9  Ethernet controller      group 9   given to db-2\r\n");
    assert_has(got, "02:00.0  8086:10d3  Ethernet controller      group 10  assignable\r\n");
    assert_has(answer("pci 01:00.0"), " given to db-2\r\n  BAR 0:");
    other.assign = NULL;
    free(assign);
    assert_has(answer("pci 01:00.0"), " assignable; 8 VFs\r\n  BAR 0:");
    devices[9].msix_count = 0;
    assert_has(answer("pci 01:00.0"), "  MSI-X: not usable, its table is not in a memory BAR\r\n");
    core.pci = (struct pci_inventory){0};
}

static void test_log(void **state)
{
    char line[64];
    for (unsigned i = 0; i < 100; i++)
        log_line(LOG_DEBUG, "core", "number %02u", i);
    const char *got = answer("log 3");
    assert_string_equal(got,
                        "core: debug: number 97\r\ncore: debug: number 98\r\ncore: debug: number 99\r\n");
    got = answer("log");
    assert_null(strstr(got, "number 59"));
    for (unsigned i = 60; i < 100; i++) {
        snprintf(line, sizeof(line), "number %02u\r\n", i);
        assert_has(got, line);
    }
    assert_answer("log x", "'x' is not a number of lines");
    assert_answer("log 12345678901234567890", "'12345678901234567890' is not a number of lines");
    assert_string_equal(answer("log 0"), "");
}

/* Lines that are logged meanwhile do not keep `log` running. */
static void test_log_ends(void **state)
{
    for (unsigned i = 0; i < 50; i++)
        log_line(LOG_INFO, "core", "before");
    clear_wire();
    typed = "log 5\r";
    for (unsigned i = 0; i < 100; i++) {
        log_line(LOG_INFO, "core", "after");
        console_poll();
    }
    unsigned lines = 0;
    for (const char *at = wire; (at = strstr(at, "before")); at++)
        lines++;
    assert_in_range(lines, 4, 5); /* one was logged before the command was read */
    assert_int_equal(strcmp(wire + sent - strlen(PROMPT), PROMPT), 0);
}

static void test_attach_and_exit(void **state)
{
    assert_answer("attach", "which VM? `attach NAME`; `vms` lists them");
    assert_answer("attach nobody", "there is no VM 'nobody': `vms` lists them");
    assert_answer("attach 5", "there is no VM '5': `vms` lists them");
    clear_wire();
    type("attach db-2\r");
    assert_ptr_equal(console_front(), &other);
    assert_has(wire, "--- db-2 (7), stopped: ");
    assert_null(strstr(wire, PROMPT));
    type("\001hattach 1\r");
    assert_ptr_equal(console_front(), &machine.vm);
    type("\001h");
    clear_wire();
    type("exit\rvms\r"); /* what was typed behind it is the VM's */
    poll(10);
    assert_has(wire, "--- test (1), running: ");
    assert_null(strstr(wire, PROMPT));
    assert_null(strstr(wire, "name "));
}

static void test_stats(void **state)
{
    const char *got = answer("stats test");
    assert_has(got, "test: 2 vCPUs");
    assert_has(got, "vCPU 1 on CPU 1");
    assert_null(strstr(got, "db-2"));
    got = answer("stats"); /* all */
    assert_has(got, "test: 2 vCPUs");
    assert_has(got, "db-2: 0 vCPUs");
    core.vms[0] = NULL;
    got = answer("stats");
    assert_null(strstr(got, "test: "));
    assert_answer("stats nobody", "there is no VM 'nobody': `vms` lists them");
}

static void test_trace(void **state)
{
    const char *got = answer("trace test");
    assert_has(got, "test/0: the last ");
    assert_has(got, "test/1: the last ");
    got = answer("trace 1 1 5");
    assert_null(strstr(got, "test/0"));
    assert_has(got, "test/1: the last ");
    assert_answer("trace", "which VM? `trace NAME`; `vms` lists them");
    assert_answer("trace test 2", "test has 2 vCPUs, the first is 0");
    assert_answer("trace test x", "'x' is not the number of a vCPU");
    assert_answer("trace test 0 -1", "'-1' is not a number of exits");
    assert_answer("trace db-2", "db-2 has 0 vCPUs, the first is 0");
}

static void test_dump(void **state)
{
    assert_answer("dump", "which VM? `dump NAME`; `vms` lists them");
    machine.vm.state = VM_STOPPED;
    const char *got = answer("dump test");
    assert_has(got, "=dump test 0: bulkhead-dump ");
    assert_has(got, ": end lines ");
}

static void run_line(const char *line)
{
    typed = line;
    poll(10);
}

static void test_ends(void **state)
{
    machine.vm.state = VM_STOPPED; /* as the other: nobody loses anything */
    assert_int_equal(fake_host_catch(run_line("reboot\r")), FAKE_END_REBOOT);
    assert_true(fake_host_logged("the operator reboots the machine"));
    setup(state);
    machine.vm.state = VM_STOPPED;
    assert_int_equal(fake_host_catch(run_line("poweroff\r")), FAKE_END_POWEROFF);
    assert_true(fake_host_logged("the operator powers the machine off"));
    setup(state);
    assert_int_equal(fake_host_catch(run_line("crash\r")), FAKE_END_NONE);
    assert_has(wire, "`crash yes`");
    assert_int_equal(fake_host_catch(run_line("crash no\r")), FAKE_END_NONE);
    assert_int_equal(fake_host_catch(run_line("crash yes\r")), FAKE_END_PANIC);
    assert_has(fake_host.panic, "the operator asked for it");
}

/* While VMs run, or are about to, the machine does not end by a slip of the finger. */
static void ask_back(enum vm_state state)
{
    static const char question[] = "1 VM is running and would end at once: if that is what you want, say "
                                   "`poweroff yes`";
    machine.vm.state = state;
    assert_answer("poweroff", question);
    assert_answer("powe no", question);
    assert_answer("poweroff yes no", question);
    assert_has(answer("reboot"), "say `reboot yes`");
    assert_false(fake_host_logged("the operator"));
    assert_int_equal(fake_host_catch(run_line("poweroff yes\r")), FAKE_END_POWEROFF);
    setup(NULL);
    machine.vm.state = other.state = state;
    assert_has(answer("reboot"), "2 VMs are running and");
    assert_int_equal(fake_host_catch(run_line("reboot yes\r")), FAKE_END_REBOOT);
}

static void test_ends_ask_back(void **state)
{
    ask_back(VM_RUNNING);
    setup(state);
    ask_back(VM_STARTING);
    setup(state);
    ask_back(VM_STOPPING);
}

/* ---- while a command runs ---- */

/* A slow wire: the text comes as it takes it, what is typed waits, Ctrl-C ends it. */
static void test_slow_wire(void **state)
{
    for (unsigned i = 0; i < 300; i++)
        log_line(LOG_INFO, "core", "a line of forty characters or so: %04u", i);
    typed = "log 300\r";
    room = 16;
    poll(100);
    assert_in_range(console_backlog(), 0, 600);
    assert_has(wire, "0000");
    type("vms\r");
    poll(50);
    assert_null(strstr(wire, "name "));
    type("\003");
    poll(100);
    assert_has(wire, "^C\r\n" PROMPT);
    assert_null(strstr(wire, "name ")); /* what was typed ahead is gone too */
    assert_null(strstr(wire, "so: 0299"));
}

static void test_typed_ahead(void **state)
{
    type("log 0\rvms\rlog x\r");
    poll(20);
    assert_has(wire, "restarts");
    assert_has(wire, "'x' is not");
    assert_int_equal(strcmp(wire + sent - strlen(PROMPT), PROMPT), 0);
}

/* What ran when the prompt was left does not go on. */
static void test_leaving_cancels(void **state)
{
    for (unsigned i = 0; i < 100; i++)
        log_line(LOG_INFO, "core", "a line");
    typed = "log 100\r";
    poll(3);
    type("\001"
         "1");
    clear_wire();
    poll(200);
    assert_sent("");
    type("\001h");
    clear_wire();
    poll(200);
    assert_sent("");
    assert_has(answer("vms"), "restarts");
}

static void test_another_line_comes_between(void **state)
{
    type("vm");
    clear_wire();
    console_line("[1.0] core: hello");
    poll(3);
    assert_sent("\r\n[1.0] core: hello\r\n" PROMPT "vm");
    type("s\r");
    poll(10);
    assert_has(wire, "restarts");
}

#define T(f) cmocka_unit_test_setup(f, setup)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_echo_and_erase),
        T(test_line_ends),
        T(test_what_is_not_text),
        T(test_line_is_bounded),
        T(test_history),
        T(test_history_is_bounded),
        T(test_escape_sequences),
        T(test_names),
        T(test_many_words),
        T(test_help),
        T(test_vms),
        T(test_iommu),
        T(test_pci),
        T(test_log),
        T(test_log_ends),
        T(test_attach_and_exit),
        T(test_stats),
        T(test_trace),
        T(test_dump),
        T(test_ends),
        T(test_ends_ask_back),
        T(test_slow_wire),
        T(test_typed_ahead),
        T(test_leaving_cancels),
        T(test_another_line_comes_between),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
