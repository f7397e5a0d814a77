/* Port accesses: what IN and OUT move between RAX and the device, and what is where nothing is. String forms
 * are in test_emulate.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "arch/x86/cpu.h"
#include "tests/host/run_path.h"

#define PORT  0x5000u
#define COUNT 8u
#define EMPTY 0x6000u

static struct vcpu *v;
static struct io_req last;
static unsigned accesses;
static uint64_t answer;

static void device_nothing(struct vdev *dev)
{
    (void)dev;
}

static void device_access(struct vdev *dev, struct io_req *req)
{
    (void)dev;
    last = *req;
    accesses++;
    if (!req->write)
        req->value = answer;
}

static const struct vdev_ops ops = {
    .name = "test", .init = device_nothing, .reset = device_nothing, .access = device_access};
static struct vdev device = {.ops = &ops};

static int setup(void **state)
{
    (void)state;
    run_path_init(1);
    v = VCPU(0);
    accesses = 0;
    assert_int_equal(bus_add_ports(&machine.vm.bus, PORT, COUNT, &device), STATUS_OK);
    return 0;
}

static void port(uint16_t number, uint8_t size, bool write)
{
    struct exit exit = {
        .kind = EXIT_IO, .insn_len = 1, .u.io = {.port = number, .size = size, .write = write}};
    assert_advances(run_path_handle(v, &exit));
    assert_int_equal(machine.vm.devices.next, machine.vm.devices.serving); /* the lock is free again */
}

static void test_out(void **state)
{
    (void)state;
    static const struct {
        uint8_t size;
        uint64_t value;
    } rows[] = {{1, 0x88}, {2, 0x7788}, {4, 0x55667788}};
    v->gpr[RAX] = 0x1122334455667788;
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        port(PORT + 2, rows[i].size, true);
        assert_int_equal(accesses, i + 1);
        assert_true(last.write);
        assert_int_equal(last.addr, PORT + 2);
        assert_int_equal(last.size, rows[i].size);
        assert_int_equal(last.value, rows[i].value);
        assert_int_equal(v->gpr[RAX], 0x1122334455667788);
    }
}

static void test_in(void **state)
{
    (void)state;
    static const struct {
        uint8_t size;
        uint64_t rax;
    } rows[] = {{1, 0x11223344556677ab}, {2, 0x11223344556689ab}, {4, 0x456789ab}};
    answer = 0xfedcba98456789ab; /* more than was asked for: a device's slip must not reach the guest */
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        v->gpr[RAX] = 0x1122334455667788;
        port(PORT, rows[i].size, false);
        assert_false(last.write);
        assert_int_equal(v->gpr[RAX], rows[i].rax);
    }
}

static void test_nothing_there(void **state)
{
    (void)state;
    static const struct {
        uint8_t size;
        uint64_t rax;
    } rows[] = {{1, 0xff}, {2, 0xffff}, {4, 0xffffffff}};
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        v->gpr[RAX] = 0;
        port(EMPTY, rows[i].size, false);
        assert_int_equal(v->gpr[RAX], rows[i].rax);
        port(EMPTY, rows[i].size, true);
    }
    assert_int_equal(accesses, 0);
    assert_int_equal(fake_host.log_lines, 1); /* logged once */
    assert_true(fake_host_logged("read of 1 bytes at port 0x6000: nothing there"));
}

/* At the end of a device's ports, and at the end of all ports. */
static void test_half_there(void **state)
{
    (void)state;
    answer = 0x5a;
    v->gpr[RAX] = 0;
    port(PORT + COUNT - 1, 2, false);
    assert_int_equal(v->gpr[RAX], 0xff5a);
    assert_int_equal(last.size, 1);
    v->gpr[RAX] = 0;
    port(0xffff, 4, false);
    assert_int_equal(v->gpr[RAX], 0xffffffff);
    assert_int_equal(accesses, 1);
}

/* A device that stops the VM: the instruction is done, the loop is left before the next entry. */
static void test_power_off_leaves_the_loop(void **state)
{
    (void)state;
    struct exit exit = {
        .kind = EXIT_IO, .insn_len = 1, .u.io = {.port = SYSCTL_RESET_PORT, .size = 1, .write = true}};
    v->gpr[RAX] = 6;
    assert_false(run_path_exit(v, &exit));
    assert_int_equal(machine.vm.state, VM_STOPPING);
    assert_int_equal(machine.vm.stop, STOP_REBOOT);
    assert_int_equal(v->stop, STOP_NONE); /* it did not crash */
    assert_int_equal(virt_get(v, VIRT_RIP), 0x1001);
}

/* Breakpoints on ports: SDM volume 3, 17.2.4; the address has no more bits than LEN leaves. */
static void test_breakpoints(void **state)
{
    (void)state;
    static const struct {
        const char *what;
        uint64_t dr7, cr4;
        uint16_t address, port;
        uint8_t size;
        bool met;
    } rows[] = {
        {"one byte, locally enabled", 0x20001, CR4_DE, PORT, PORT, 1, true},
        {"globally enabled", 0x20002, CR4_DE, PORT, PORT, 1, true},
        {"not enabled", 0x20000, CR4_DE, PORT, PORT, 1, false},
        {"another one is enabled", 0x20004, CR4_DE, PORT, PORT, 1, false},
        {"without CR4.DE", 0x20001, 0, PORT, PORT, 1, false},
        {"on data", 0x30001, CR4_DE, PORT, PORT, 1, false},
        {"on code", 0x00001, CR4_DE, PORT, PORT, 1, false},
        {"the byte behind", 0x20001, CR4_DE, PORT, PORT + 1, 1, false},
        {"the byte before", 0x20001, CR4_DE, PORT + 1, PORT, 1, false},
        {"in a word", 0x20001, CR4_DE, PORT + 1, PORT, 2, true},
        {"behind a word", 0x20001, CR4_DE, PORT + 2, PORT, 2, false},
        {"two bytes, the second", 0x60001, CR4_DE, PORT, PORT + 1, 1, true},
        {"two bytes, aligned down", 0x60001, CR4_DE, PORT + 3, PORT + 2, 1, true},
        {"two bytes, behind", 0x60001, CR4_DE, PORT, PORT + 2, 1, false},
        {"four bytes, the last", 0xe0001, CR4_DE, PORT, PORT + 3, 1, true},
        {"four bytes, behind", 0xe0001, CR4_DE, PORT, PORT + 4, 1, false},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        virt_set(v, VIRT_DR7, rows[i].dr7);
        virt_set(v, VIRT_CR4, rows[i].cr4);
        virt_set(v, VIRT_DR0, rows[i].address);
        virt_set(v, VIRT_PENDING_DEBUG, 0);
        port(rows[i].port, rows[i].size, true);
        if (virt_get(v, VIRT_PENDING_DEBUG) != (rows[i].met ? 0x1001u : 0))
            fail_msg("%s: %llx", rows[i].what, (unsigned long long)virt_get(v, VIRT_PENDING_DEBUG));
    }
    /* The third of them; what was pending stays. */
    virt_set(v, VIRT_DR7, 2u << 24 | 1u << 4);
    virt_set(v, VIRT_CR4, CR4_DE);
    virt_set(v, VIRT_DR0 + 2, PORT);
    virt_set(v, VIRT_PENDING_DEBUG, 8);
    port(PORT, 1, false);
    assert_int_equal(virt_get(v, VIRT_PENDING_DEBUG), 0x100c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_out, setup),
        cmocka_unit_test_setup(test_breakpoints, setup),
        cmocka_unit_test_setup(test_in, setup),
        cmocka_unit_test_setup(test_nothing_there, setup),
        cmocka_unit_test_setup(test_half_there, setup),
        cmocka_unit_test_setup(test_power_off_leaves_the_loop, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
