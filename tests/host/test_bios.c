/* What a program finds that begins after a BIOS: vectors of real mode that lead to handlers, interrupt
 * controllers that reach them, a timer that ticks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "hv/pc/bios.h"
#include "tests/host/fake_host.h"
#include "tests/host/machine.h"

#define ROM 0xf0000ull

static struct vm *vm;

static int setup(void **state)
{
    (void)state;
    machine_init(2);
    vm = &machine.vm;
    return 0;
}

static uint8_t in(uint16_t port)
{
    struct io_req req = {.addr = port, .size = 1};
    emulate_port_access(&machine.vcpus[0], &req);
    return (uint8_t)req.value;
}

static void test_who(void **state)
{
    (void)state;
    static const bool expected[] = {
        [GUEST_LINUX] = false, [GUEST_MULTIBOOT] = true, [GUEST_MULTIBOOT2] = true,
        [GUEST_PVH] = false,   [GUEST_RAW] = true,       [GUEST_FIRMWARE] = false};
    for (unsigned i = 0; i < ARRAY_SIZE(expected); i++) {
        struct guest_image image = {.format = (enum guest_format)i};
        assert_int_equal(bios_was_there(&image), expected[i]);
    }
}

/* The few instructions that handlers have, run on a real PIC: the bytes of the code are what is tested. */
static void run_handler(unsigned vector)
{
    uint16_t far[2];
    memcpy(far, machine_ram(0) + 4 * vector, sizeof(far));
    assert_int_equal(far[1], 0xf000);
    uint8_t al = 0x77, saved = 0;
    unsigned depth = 0;
    for (unsigned at = far[0], steps = 0; steps < 10; steps++) {
        const uint8_t *code = machine_ram(ROM + at);
        switch (code[0]) {
        case 0x50:
            saved = al;
            depth++;
            at += 1;
            break;
        case 0x58:
            al = saved;
            depth--;
            at += 1;
            break;
        case 0xb0:
            al = code[1];
            at += 2;
            break;
        case 0xe6: {
            struct io_req req = {.addr = code[1], .size = 1, .value = al, .write = true};
            emulate_port_access(&machine.vcpus[0], &req);
            at += 2;
            break;
        }
        case 0xeb:
            at += 2u + code[1];
            break;
        case 0xcf:
            assert_int_equal(depth, 0);
            assert_int_equal(al, 0x77);
            return;
        default:
            fail_msg("vector %x: byte %x at %x", vector, code[0], at);
        }
    }
    fail_msg("vector %x does not end", vector);
}

static void test_interrupts(void **state)
{
    (void)state;
    assert_int_equal(bios_write_vectors(vm), STATUS_OK);
    bios_set_devices(vm);
    assert_int_equal(in(0x21), 0xf8);
    assert_int_equal(in(0xa1), 0xff);
    assert_true(lapic_accepts_extint(&machine.vcpus[0].lapic));
    assert_true(lapic_accepts_nmi_lint1(&machine.vcpus[0].lapic));
    assert_false(lapic_accepts_extint(&machine.vcpus[1].lapic));
    struct io_req open = {
        .addr = 0xa1, .size = 1, .write = true}; /* as a program does that wants the others, too */
    emulate_port_access(&machine.vcpus[0], &open);
    open.addr = 0x21;
    emulate_port_access(&machine.vcpus[0], &open);
    for (unsigned irq = 0; irq < 16; irq++) {
        if (irq == 2)
            continue;
        pic_set_irq(&vm->platform.pic, irq, false);
        pic_set_irq(&vm->platform.pic, irq, true);
        assert_true(pic_output(&vm->platform.pic));
        unsigned vector = irq < 8 ? 0x08 + irq : 0x70 + irq - 8;
        assert_int_equal(pic_acknowledge(&vm->platform.pic), vector);
        run_handler(vector);
        struct io_req isr = {.addr = 0x20, .size = 1, .value = 0x0b, .write = true}; /* OCW3: read ISR next */
        emulate_port_access(&machine.vcpus[0], &isr);
        assert_int_equal(in(0x20), 0);
        isr.addr = 0xa0;
        emulate_port_access(&machine.vcpus[0], &isr);
        assert_int_equal(in(0xa0), 0);
    }
    for (unsigned vector = 0; vector < 256; vector++)
        run_handler(vector);
}

/* 65536 of its ticks, about 55 ms, and then IRQ 0 is there. */
static void test_timer(void **state)
{
    (void)state;
    bios_set_devices(vm);
    uint64_t at = vm->platform.pit.dev.deadline_ns;
    assert_in_range(at, 1, 60000000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_who),
        cmocka_unit_test_setup(test_interrupts, setup),
        cmocka_unit_test_setup(test_timer, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
