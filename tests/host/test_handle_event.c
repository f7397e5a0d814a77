/* Exits that are events: which go to the host, which to the guest, and which end the VM. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "arch/x86/cpu.h"
#include "tests/host/run_path.h"

static struct vcpu *v;
static struct fake_vcpu *f;

static int setup(void **state)
{
    (void)state;
    run_path_init(2);
    v = VCPU(0);
    f = fake_vcpu(v);
    return 0;
}

static struct exit exception(uint8_t type, uint8_t vector)
{
    return (struct exit){.kind = EXIT_EXCEPTION,
                         .u.exception = {.valid = true, .type = type, .vector = vector}};
}

/* ---- exceptions that are given back ---- */

static void test_alignment_check(void **state)
{
    (void)state;
    struct exit exit = exception(EVENT_EXCEPTION, VECTOR_AC);
    exit.u.exception.has_error = true;
    exit.u.exception.error = 0;
    assert_injects_error(run_path_handle(v, &exit), VECTOR_AC, 0);
    assert_true(run_path_exit(v, &exit));
    struct event event = fake_vcpu_take_event(v);
    assert_true(event.valid && event.has_error);
    assert_int_equal(event.type, EVENT_EXCEPTION);
    assert_int_equal(event.vector, VECTOR_AC);
    assert_int_equal(f->debug_calls, 0);
}

/* The processor did not touch DR6 and DR7 before the exit (SDM volume 3, 28.1): that is done for it. */
static void test_debug_exception(void **state)
{
    (void)state;
    struct exit exit = exception(EVENT_EXCEPTION, VECTOR_DB);
    exit.exception_info = DR6_BS | 2;
    virt_set(v, VIRT_DR6, DR6_RESET | 1);
    virt_set(v, VIRT_DR7, DR7_RESET | DR7_GD | 8);
    assert_true(run_path_exit(v, &exit));
    struct event event = fake_vcpu_take_event(v);
    assert_int_equal(event.vector, VECTOR_DB);
    assert_false(event.has_error);
    assert_int_equal(f->debug_calls, 1);
    assert_int_equal(virt_get(v, VIRT_DR6), DR6_RESET | DR6_BS | 2);
    assert_int_equal(virt_get(v, VIRT_DR7), DR7_RESET | 8);
}

/* INT1 goes on as what it was, with its length: RIP steps over it when it is delivered. */
static void test_int1(void **state)
{
    (void)state;
    struct exit exit = exception(EVENT_PRIV_SOFT_EXCEPTION, VECTOR_DB);
    exit.u.exception.insn_len = 1;
    assert_true(run_path_exit(v, &exit));
    struct event event = fake_vcpu_take_event(v);
    assert_int_equal(event.type, EVENT_PRIV_SOFT_EXCEPTION);
    assert_int_equal(event.insn_len, 1);
}

static void test_machine_check_is_the_hosts(void **state)
{
    (void)state;
    struct exit exit = exception(EVENT_EXCEPTION, VECTOR_MC);
    assert_int_equal(fake_host_catch(run_path_handle(v, &exit)), FAKE_END_PANIC);
    assert_non_null(strstr(fake_host.panic, "machine check while test vCPU 0 ran"));
}

/* ---- the host's own ---- */

static void test_host_interrupt(void **state)
{
    (void)state;
    struct exit exit = {.kind = EXIT_INTERRUPT, .u.interrupt = 0xf1};
    assert_int_equal(run_path_handle(v, &exit).action, ACTION_RETRY);
    assert_int_equal(fake_host.interrupts, 1);
    assert_int_equal(fake_host.last_interrupt, 0xf1);
    assert_int_equal(f->writes, 0);
}

static void test_host_nmi(void **state)
{
    (void)state;
    struct exit exit = {.kind = EXIT_NMI};
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(run_path_handle(v, &exit).action, ACTION_RETRY);
    assert_int_equal(fake_host.nmis, 100);
    assert_int_equal(f->injections, 0); /* not the guest's */
    assert_true(fake_host_logged("host NMI 1 ignored"));
    assert_int_equal(fake_host.log_lines, 8); /* and no flood */
}

static void test_signals_of_the_host(void **state)
{
    (void)state;
    struct exit init = {.kind = EXIT_INIT}, sipi = {.kind = EXIT_SIPI, .u.sipi = 0x9a};
    assert_int_equal(run_path_handle(v, &init).action, ACTION_RETRY);
    assert_int_equal(run_path_handle(v, &sipi).action, ACTION_RETRY);
    assert_true(fake_host_logged("host INIT signal ignored"));
    assert_true(fake_host_logged("host SIPI 9a ignored"));
    assert_int_equal(v->requests, 0);
}

static void test_plain_returns(void **state)
{
    (void)state;
    static const enum exit_kind kinds[] = {EXIT_TIMER, EXIT_BUS_LOCK, EXIT_NOTIFY};
    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++) {
        struct exit exit = {.kind = kinds[i]};
        assert_int_equal(run_path_handle(v, &exit).action, ACTION_RETRY);
    }
    assert_int_equal(f->writes, 0);
}

static void test_windows_make_it_look(void **state)
{
    (void)state;
    static const enum exit_kind kinds[] = {EXIT_INTR_WINDOW, EXIT_NMI_WINDOW};
    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++) {
        struct exit exit = {.kind = kinds[i]};
        v->requests = 0;
        assert_int_equal(run_path_handle(v, &exit).action, ACTION_RETRY);
        assert_int_equal(v->requests, VCPU_REQ_EVENT);
    }
    assert_int_equal(fake_host.kicks, 0);
}

/* ---- ends of the VM ---- */

static void test_triple_fault(void **state)
{
    (void)state;
    struct exit exit = {.kind = EXIT_TRIPLE_FAULT};
    assert_stops(run_path_handle(v, &exit), STOP_TRIPLE_FAULT);
}

static void test_entry_failure(void **state)
{
    (void)state;
    struct exit exit = {
        .kind = EXIT_ENTRY_FAILURE, .reason = 0x80000021, .u.entry_failure = {.qualification = 4}};
    assert_stops(run_path_handle(v, &exit), STOP_ENTRY_FAILED);
    assert_int_equal(f->explained, 1);
    assert_true(fake_host_logged("VM entry failed, reason 33, qualification 4"));
}

static void test_misconfiguration(void **state)
{
    (void)state;
    struct exit exit = {.kind = EXIT_NESTED_MISCONFIG, .u.nested = {.address = gpa(0x12345000)}};
    assert_stops(run_path_handle(v, &exit), STOP_GUEST_MEMORY);
    assert_true(fake_host_logged("EPT misconfiguration at guest-physical 12345000"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_alignment_check, setup),
        cmocka_unit_test_setup(test_debug_exception, setup),
        cmocka_unit_test_setup(test_int1, setup),
        cmocka_unit_test_setup(test_machine_check_is_the_hosts, setup),
        cmocka_unit_test_setup(test_host_interrupt, setup),
        cmocka_unit_test_setup(test_host_nmi, setup),
        cmocka_unit_test_setup(test_signals_of_the_host, setup),
        cmocka_unit_test_setup(test_plain_returns, setup),
        cmocka_unit_test_setup(test_windows_make_it_look, setup),
        cmocka_unit_test_setup(test_triple_fault, setup),
        cmocka_unit_test_setup(test_entry_failure, setup),
        cmocka_unit_test_setup(test_misconfiguration, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
