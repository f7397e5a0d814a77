/* The report of a vCPU that stopped: every register, the code at RIP, the last exits in words. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "hv/record/report.h"
#include "tests/host/fake_host.h"
#include "tests/host/machine.h"

static struct vcpu *v;

static int setup(void **state)
{
    machine_init(2);
    v = &machine.vcpus[1];
    v->stop = STOP_TRIPLE_FAULT;
    return 0;
}

static void assert_logged(const char *text)
{
    if (!fake_host_logged(text))
        fail_msg("\"%s\" is not in:\n%s", text, fake_host.log);
}

static void test_registers(void **state)
{
    static const char *const names[] = {"rax", "rcx", "rdx", "rbx", NULL,  "rbp", "rsi", "rdi",
                                        "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
    char text[64];
    for (unsigned i = 0; i < 16; i++)
        v->gpr[i] = 0xabc0000000000000ull + i;
    virt_set(v, VIRT_RSP, 0x1234567890abcdefull);
    virt_set(v, VIRT_CR2, 0xdead0000beefull);
    virt_set(v, VIRT_CR3, 0x77000);
    struct seg gs = {.base = 0xffff888000000000ull, .limit = 0xfffff, .access = 0xc093, .selector = 0x2b};
    virt_set_seg(v, SEG_GS, &gs);
    report_vcpu(v);
    assert_logged("/1: ERROR: ");
    assert_logged(stop_reason_name(STOP_TRIPLE_FAULT));
    for (unsigned i = 0; i < 16; i++) {
        if (!names[i])
            continue;
        snprintf(text, sizeof(text), "%-3s abc000000000000%x", names[i], i);
        assert_logged(text);
    }
    assert_logged("rip 0000000000001000  rsp 1234567890abcdef");
    assert_logged("cr2 0000dead0000beef");
    assert_logged("cr3 77000");
    assert_logged("gs   002b  base ffff888000000000  limit 000fffff  access 0c093");
    assert_logged("cs   ");
    assert_logged("ldtr ");
    assert_logged("tr   ");
}

static void test_code(void **state)
{
    machine_write(0x1000, "\x0f\x0b\xeb\xfe", 4);
    report_vcpu(v);
    assert_logged("code at rip: 0f 0b eb fe 00 00 00 00 00 00 00 00 00 00 00 00");
    assert_int_equal(*machine_pte(0x1000) & 0x20, 0); /* no trace in the guest */
    setup(NULL);
    v->rip = 0x1ffd;
    *machine_pte(0x2000) = 0;
    report_vcpu(v);
    assert_logged("code at rip: 00 00 00 \n");
    setup(NULL);
    *machine_pte(0x1000) = 0;
    report_vcpu(v);
    assert_logged("code at rip: not readable");
}

static void record(unsigned reason, uint64_t rip)
{
    struct recorder_entry *entry = v->recorder.next;
    recorder_take(&v->recorder, entry);
    *entry = (struct recorder_entry){.raw = {.reason = reason, .rip = rip, .insn_len = 2}};
}

static unsigned exits_shown(void)
{
    unsigned lines = 0;
    const char *at = strstr(fake_host.log, "newest first");
    assert_non_null(at);
    for (at = strchr(at, '\n'); at && at[1]; at = strchr(at + 1, '\n'))
        lines++;
    return lines;
}

static void test_crash_loop(void **state)
{
    for (unsigned i = 0; i < 3; i++)
        report_vcpu(v);
    memset(fake_host.log, 0, sizeof(fake_host.log));
    fake_host.log_size = 0;
    v->rip = 0x4711;
    report_vcpu(v);
    assert_logged("at rip 4711; no report: there were 3 within a minute");
    assert_false(fake_host_logged("cr3"));
    assert_int_equal(v->vm->life.next, v->vm->life.serving);
    fake_host.tsc += 61ull * FAKE_TSC_HZ;
    report_vcpu(v);
    assert_logged("cr3");
}

static void test_exits(void **state)
{
    report_vcpu(v);
    assert_int_equal(exits_shown(), 0);
    setup(NULL);
    record(10, 0xaaa);
    record(12, 0xbbb);
    report_vcpu(v);
    assert_int_equal(exits_shown(), 2);
    const char *newest = strstr(fake_host.log, "(12) rip 0000000000000bbb");
    const char *older = strstr(fake_host.log, "(10) rip 0000000000000aaa");
    assert_true(newest && older && newest < older);
    setup(NULL);
    for (unsigned i = 0; i < 1000; i++)
        record(10, i);
    report_vcpu(v);
    assert_int_equal(exits_shown(), 16);
    assert_logged("rip 00000000000003e7");
    assert_logged("rip 00000000000003d8");
    assert_false(fake_host_logged("rip 00000000000003d7"));
}

#define T(f) cmocka_unit_test_setup(f, setup)

int main(void)
{
    const struct CMUnitTest tests[] = {T(test_registers), T(test_code), T(test_crash_loop), T(test_exits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
