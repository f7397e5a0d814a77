/* How much memory Bulkhead keeps for itself: what a creation takes must be there, and small machines must not
 * pay for large ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "arch/x86/ept.h"
#include "arch/x86/layout.h"
#include "boot/pool_plan.h"
#include "drivers/vdev/ata.h"
#include "hv/lib/bits.h"
#include "hv/pc/flash.h"
#include "hv/pool.h"

#define MIB ((uint64_t)1 << 20)
#define GIB ((uint64_t)1 << 30)

static struct config config;

static int setup(void **state)
{
    memset(&config, 0, sizeof(config));
    return 0;
}

static struct config_vm *vm(uint64_t memory, uint64_t cpus)
{
    struct config_vm *v = &config.vms[config.vm_count++];
    v->memory = memory;
    v->cpus = cpus;
    return v;
}

static uint64_t mib(uint32_t cpus, bool small_pages)
{
    uint64_t size =
        pool_plan(&(struct pool_plan_in){.config = &config, .cpus = cpus, .small_pages = small_pages});
    assert_int_equal(size % MIB, 0);
    return size / MIB;
}

static void test_usual_machines(void **state)
{
    assert_int_equal(mib(1, false), LAYOUT_POOL_MIN / MIB); /* without a configuration */
    vm(64 * MIB, 1);
    assert_int_equal(mib(1, false), LAYOUT_POOL_MIN / MIB);
    for (unsigned i = 1; i < 8; i++)
        vm(2 * GIB, 3ull << (2 * i));
    assert_int_equal(mib(16, false), LAYOUT_POOL_MIN / MIB);
}

static void test_large_vms(void **state)
{
    vm(64 * GIB, 0xf);
    uint64_t alone = mib(4, false);
    assert_int_equal(alone, LAYOUT_POOL_MIN / MIB); /* tables of 264 KiB */
    config.vms[0].assigned_count = 1;
    assert_in_range(mib(4, false), alone, alone + 1);
    config.vms[0].assigned_count = 0;
    assert_in_range(mib(4, true), 128, 136); /* an entry of 8 bytes for 4 KiB */
    for (unsigned i = 0; i < 3; i++)
        vm(64 * GIB, 0x10 << i);
    assert_true(mib(8, true) * MIB > LAYOUT_POOL_MAX); /* the loader refuses */
    assert_true(mib(8, false) * MIB < LAYOUT_POOL_MAX);
}

static void test_many_vcpus(void **state)
{
    for (unsigned i = 0; i < CONFIG_MAX_VMS; i++)
        vm(GIB, 3ull << (2 * i))->compat = COMPAT_QEMU;
    uint64_t without = mib(64, false);
    config.vms[0].assigned_count = CONFIG_MAX_ASSIGNED;
    assert_true(without > LAYOUT_POOL_MIN / MIB && without < 16);
    assert_in_range(mib(64, false), without, without + 1);
}

/* What a firmware takes is less than the plan's steps: seen over machines that differ by their CPUs' share.
 */
static void test_firmware(void **state)
{
    const unsigned per_cpu = 16 * 4096, steps = MIB / per_cpu;
    uint64_t more = 0;
    for (unsigned i = 0; i < CONFIG_MAX_VMS; i++)
        vm(GIB, 3ull << (2 * i))->compat = COMPAT_QEMU;
    for (unsigned cpus = 1; cpus <= steps; cpus++) {
        for (unsigned i = 0; i < CONFIG_MAX_VMS; i++)
            config.vms[i].firmware = false;
        uint64_t without = mib(64 + cpus, false);
        for (unsigned i = 0; i < CONFIG_MAX_VMS; i++)
            config.vms[i].firmware = true;
        more += (mib(64 + cpus, false) - without) * per_cpu;
    }
    uint64_t each =
        sizeof(struct ata) + (8 + 2 + FLASH_COPIES) * 4096; /* tables for 16 MiB and the ROM area */
    assert_in_range(more, CONFIG_MAX_VMS * each - per_cpu, CONFIG_MAX_VMS * (each + 4096) + per_cpu);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_usual_machines, setup),
        cmocka_unit_test_setup(test_large_vms, setup),
        cmocka_unit_test_setup(test_many_vcpus, setup),
        cmocka_unit_test_setup(test_firmware, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
