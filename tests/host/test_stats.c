/* What VMs did with their time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "hv/console/lines.h"
#include "tests/host/run_path.h"

static int setup(void **state)
{
    run_path_init(2);
    return 0;
}

static void assert_split(const struct vcpu_times *t, uint64_t now, uint64_t guest, uint64_t host,
                         uint64_t waited)
{
    struct vcpu_split s = stats_split(t, now);
    assert_int_equal(s.guest, guest);
    assert_int_equal(s.host, host);
    assert_int_equal(s.waited, waited);
}

static void test_split(void **state)
{
    struct vcpu_times t = {0};
    assert_split(&t, 5000, 0, 0, 0);
    stats_enter_loop(&t, 1000);
    assert_split(&t, 1500, 500, 0, 0);
    t.host = 200;
    assert_split(&t, 2000, 800, 200, 0);
    t.waiting_since = 1900; /* not in `host` before it ends */
    assert_split(&t, 2000, 700, 200, 100);
    t.waiting_since = 0;
    t.host += 150;
    t.waited = 150;
    assert_split(&t, 2100, 750, 200, 150);
    stats_leave_loop(&t, 2200);
    assert_split(&t, 99999, 850, 200, 150);
    stats_enter_loop(&t, 100000); /* a restart: it adds up */
    assert_split(&t, 100010, 860, 200, 150);
}

/* Another CPU's TSC may be behind, and fields change while they are read. */
static void test_never_negative(void **state)
{
    struct vcpu_times t = {.loop_since = 1000, .host = 50, .waited = 60, .waiting_since = 2000};
    assert_split(&t, 900, 0, 0, 60);
}

/* A vCPU that waits for its start-up IPI is neither in the guest nor at work in the host. */
static struct vcpu *sleeper;

static void wake_by_sipi(uint64_t until)
{
    fake_host.tsc += 5000;
    assert_int_not_equal(sleeper->times.waiting_since, 0);
    assert_int_equal(stats_split(&sleeper->times, fake_host.tsc).waited, 5000);
    sleeper->sipi_vector = 0x10;
    sleeper->requests |= VCPU_REQ_SIPI;
}

static void test_waited(void **state)
{
    sleeper = VCPU(1);
    fake_host.cpu = sleeper->cpu;
    stats_enter_loop(&sleeper->times, fake_host.tsc);
    sleeper->events.activity = VIRT_WAIT_SIPI;
    sleeper->requests = VCPU_REQ_EVENT;
    fake_host.on_idle = wake_by_sipi;
    assert_true(vcpu_prepare_entry(sleeper));
    assert_int_equal(sleeper->times.waiting_since, 0);
    assert_int_equal(sleeper->times.waited, 5000);
}

/* ---- the lines ---- */

static char text[8192];

static unsigned collect(void)
{
    struct lines lines = {.vm = &machine.vm};
    char line[LINES_MAX];
    unsigned count = 0;
    text[0] = 0;
    while (stats_next(&lines, line, sizeof(line)) && count < 1000) {
        strcat(strcat(text, line), "\n");
        count++;
    }
    assert_false(stats_next(&lines, line, sizeof(line)));
    return count;
}

static void assert_line(const char *line)
{
    char whole[300];
    snprintf(whole, sizeof(whole), "%s\n", line);
    if (!strstr(text, whole))
        fail_msg("no \"%s\" in:\n%s", line, text);
}

static void test_lines(void **state)
{
    struct vcpu *v = VCPU(0);
    machine.vm.restarts = 3;
    assert_int_equal(collect(), 3); /* no exits: the VM and its two vCPUs */
    assert_line("test: 2 vCPUs, 3 restarts");
    v->exits[EXIT_CPUID] = 1;
    v->exits[EXIT_IO] = 2;
    v->exits[EXIT_KIND_COUNT - 1] = 5;
    v->injected = 42;
    /* FAKE_TSC_HZ: one tick is one nanosecond; clock_ticks_to_ns() may be two low */
    v->times = (struct vcpu_times){.loop_done = 4000000100, .host = 1500000050, .waited = 500000020};
    VCPU(1)->exits[EXIT_HLT] = 7;
    assert_int_equal(collect(), 3 + 3 + 1);
    assert_line(
        "vCPU 0 on CPU 0: in the guest 2.500000 s (62.5 %), in the host 1.000000 s (25.0 %), waiting to be "
        "started 0.500000 s (12.5 %); 8 exits, 42 interrupts injected");
    assert_line("  CPUID                                   1   12.5 %");
    assert_line("  port access                             2   25.0 %");
    assert_line("  unexpected exit                         5   62.5 %");
    assert_line("  HLT                                     7  100.0 %");
    assert_true(strstr(text, "CPUID") < strstr(text, "vCPU 1"));
    assert_true(strstr(text, "HLT") > strstr(text, "vCPU 1"));
}

#define T(f) cmocka_unit_test_setup(f, setup)

int main(void)
{
    const struct CMUnitTest tests[] = {T(test_split), T(test_never_negative), T(test_waited), T(test_lines)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
