/* The life of a VM, from the configuration to its end, and the loop that runs its vCPUs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "arch/x86/cpu.h"
#include "arch/x86/msr.h"
#include "hv/clock.h"
#include "hv/console/console.h"
#include "hv/core.h"
#include "hv/sched.h"
#include "tests/host/fake_host.h"
#include "tests/host/fake_virt.h"

#define MIB (1ull << 20)

/* Physical memory: what guests can have, and behind it the pristine files. */
#define FREE_BASE  (2 * MIB)
#define FREE_SIZE  (70 * MIB)
#define KERNEL_HPA (80 * MIB)
#define INITRD_HPA (81 * MIB)
#define MEMORY     (82 * MIB)
#define POOL_PAGES 512u

#define SETUP_SIZE   0x400u /* two sectors */
#define PAYLOAD_SIZE 0x3000u
#define KERNEL_AT    0x1000000u /* where it wants to be */
#define INITRD_SIZE  5000u

static struct boot_info info;
static struct vm vm;
static uint8_t pool[POOL_PAGES * 4096] __attribute__((aligned(4096)));
static uint8_t *memory;
static char why[200];

static void put(uint64_t at, uint64_t value, unsigned size)
{
    memcpy(memory + KERNEL_HPA + at, &value, size);
}

/* A bzImage: the header of a current kernel (Documentation/arch/x86/boot.rst), and numbered bytes. */
static void make_files(void)
{
    for (unsigned i = 0; i < SETUP_SIZE + PAYLOAD_SIZE; i++)
        put(i, i < SETUP_SIZE ? 0 : (i * 7 + (i >> 8)) & 0xff, 1);
    put(0x1f1, 1, 1);                 /* setup_sects */
    put(0x1f4, PAYLOAD_SIZE / 16, 4); /* syssize */
    put(0x1fe, 0xaa55, 2);
    put(0x200, 0x6aeb, 2);
    put(0x202, 0x53726448, 4); /* HdrS */
    put(0x206, 0x020f, 2);
    put(0x211, 1, 1);          /* loaded high */
    put(0x22c, 0x7fffffff, 4); /* initrd_addr_max */
    put(0x230, 0x200000, 4);   /* kernel_alignment */
    put(0x234, 1, 1);          /* relocatable */
    put(0x236, 0x7f, 2);       /* xloadflags */
    put(0x238, 2047, 4);       /* cmdline_size */
    put(0x258, KERNEL_AT, 8);  /* pref_address */
    put(0x260, 0x800000, 4);   /* init_size */
    for (unsigned i = 0; i < INITRD_SIZE; i++)
        memory[INITRD_HPA + i] = (uint8_t)(i * 13);
    info.kernels[0] = (struct boot_file){KERNEL_HPA, SETUP_SIZE + PAYLOAD_SIZE};
    info.initrds[0] = (struct boot_file){INITRD_HPA, INITRD_SIZE};
}

static void make_pool(unsigned pages_left)
{
    memset(pool, 0, sizeof(pool));
    fake_host_pool(pool, sizeof(pool), (POOL_PAGES - pages_left) * PAGE_SIZE);
}

static int setup(void **state)
{
    static const struct boot_region region = {FREE_BASE, FREE_SIZE, BOOT_REGION_FREE, 0};
    fake_host_with_vm(&info, &vm, &region, 4);
    if (!memory)
        memory = fake_host_memory(MEMORY);
    make_pool(POOL_PAGES);
    make_files();
    struct config_vm *c = &info.config.vms[0];
    strcpy(c->name, "one");
    strcpy(c->cmdline, "console=ttyS0 quiet");
    c->memory = 64 * MIB;
    c->cpus = 0xb; /* CPUs 0, 1 and 3 */
    c->on_reboot = ON_STOP_RESTART;
    c->on_crash = ON_STOP_STOP;
    c->log = LOG_DEBUG;
    c->console = 1;
    why[0] = 0;
    return 0;
}

static struct config_vm *config(void)
{
    return &info.config.vms[0];
}

static void create(void)
{
    assert_int_equal(vm_create(&vm, 0, why, sizeof(why)), STATUS_OK);
}

/* The VM's CPUs do the work of starting that they were given. */
static void prepare(void)
{
    for (unsigned i = 0; i < vm.vcpu_count; i++) {
        struct cpu *cpu = vm.vcpus[i]->cpu;
        if (vm_is_starting(&vm) && __atomic_exchange_n(&cpu->assigned, NULL, __ATOMIC_ACQUIRE)) {
            struct cpu *before = fake_host.cpu;
            fake_host.cpu = cpu;
            vm_prepare(vm.vcpus[i]);
            fake_host.cpu = before;
        }
    }
}

static bool order(enum vm_order what)
{
    return vm_order(&vm, what, why, sizeof(why));
}

static void start(void)
{
    create();
    assert_true(order(VM_ORDER_START));
    prepare();
    assert_int_equal(vm.state, VM_RUNNING);
}

static void assert_says(const char *text)
{
    if (!strstr(why, text))
        fail_msg("\"%s\" is not in \"%s\"", text, why);
}

/* Guest memory, through the VM's own eyes. */
static uint8_t guest_byte(uint64_t at)
{
    uint8_t byte;
    assert_int_equal(gmem_read(&vm.gmem, gpa(at), &byte, 1), STATUS_OK);
    return byte;
}

/* ---- creating ---- */

static void test_create(void **state)
{
    create();
    assert_string_equal(vm.name, "one");
    assert_int_equal(vm.vcpu_count, 3);
    static const unsigned cpus[] = {0, 1, 3};
    for (unsigned i = 0; i < 3; i++) {
        struct vcpu *v = vm.vcpus[i];
        assert_int_equal(v->id, i);
        assert_ptr_equal(v->vm, &vm);
        assert_ptr_equal(v->cpu, &core.cpus[cpus[i]]);
        assert_int_equal(v->lapic.id, i);
        assert_int_equal(v->lapic.is_bsp, i == 0);
        assert_int_equal(fake_vcpu(v)->creates, 1);
    }
    assert_int_equal(gmem_check(&vm.gmem, gpa(0xc0000), 64 * MIB - 0xc0000), STATUS_OK);
    assert_int_equal(gmem_check(&vm.gmem, gpa(64 * MIB), 1), ERR_RANGE);
    assert_int_equal(gmem_check(&vm.gmem, gpa(0xa0000), 1), ERR_RANGE);
    assert_int_equal(vm.state, VM_CREATED);
    assert_non_null(bus_find_port(&vm.bus, 0x3f8, 1));
    assert_int_equal(vm.cpuid.tsc_hz, FAKE_TSC_HZ);
}

/* Creation fails: all that was taken is back, and the VM never starts. */
static void create_fails(enum status expected)
{
    uint64_t pages = pool_pages_free(&core.pool), bytes = pmem_free_bytes(&core.pmem);
    assert_int_equal(vm_create(&vm, 0, why, sizeof(why)), expected);
    assert_int_equal(pool_pages_free(&core.pool), pages);
    assert_int_equal(pmem_free_bytes(&core.pmem), bytes);
    assert_int_equal(vm.state, VM_FAILED);
    char refusal[80];
    assert_false(vm_order(&vm, VM_ORDER_START, refusal, sizeof(refusal)));
    assert_string_equal(refusal, "one could not be created: see the log");
}

static void test_create_without_memory(void **state)
{
    config()->memory = 72 * MIB;
    create_fails(ERR_NO_MEMORY);
    assert_says("no 72 MiB of memory for it");
    assert_says("70 MiB are free");
    config()->memory = 6 * MIB;
    create_fails(ERR_RANGE);
    config()->memory = 65 * MIB;
    create_fails(ERR_INVALID);
    assert_int_equal(pmem_free_bytes(&core.pmem), FREE_SIZE);
}

static void test_create_without_pool(void **state)
{
    uint32_t before, after;
    make_pool(1);
    create_fails(ERR_NO_MEMORY);
    assert_says("its memory cannot be mapped: out of memory");
    /* With pages for the tables and for one vCPU. */
    setup(NULL);
    before = core.pool.free_pages;
    config()->cpus = 1;
    create();
    after = core.pool.free_pages;
    setup(NULL);
    make_pool(before - after);
    create_fails(ERR_NO_MEMORY);
    assert_says("vCPU 1 cannot be made: out of memory");
    /* For want of the pages that compat = qemu takes more, or of the one behind them. */
    for (uint32_t less = 1; less <= 18; less++) {
        setup(NULL);
        config()->compat = COMPAT_QEMU;
        config()->cpus = 1;
        make_pool(before - after + 17 - less);
        create_fails(ERR_NO_MEMORY);
    }
}

static void test_create_without_cpus(void **state)
{
    core.cpus[3].online = 0;
    create_fails(ERR_NOT_FOUND);
    assert_says("CPU 3 did not start");
    setup(NULL);
    config()->cpus = 1ull << 4 | 1;
    create_fails(ERR_NOT_FOUND);
    assert_says("CPU 4"); /* this machine has four: 0 to 3 */
    setup(NULL);
    config()->cpus = 0;
    assert_int_not_equal(vm_create(&vm, 0, why, sizeof(why)), STATUS_OK);
    setup(NULL);
    core.cpu_count = VM_MAX_VCPUS + 1;
    for (unsigned i = 0; i <= VM_MAX_VCPUS; i++)
        core.cpus[i].online = 1;
    config()->cpus = (1ull << (VM_MAX_VCPUS + 1)) - 1;
    create_fails(ERR_RANGE);
    assert_says("vCPU 16 cannot be made: out of range");
}

static void test_create_without_backend(void **state)
{
    fake_virt.create_status = ERR_UNSUPPORTED;
    create_fails(ERR_UNSUPPORTED);
    assert_says("vCPU 0 cannot be made: unsupported");
}

static void test_create_with_places_taken(void **state)
{
    static struct vdev other;
    assert_int_equal(bus_add_ports(&vm.bus, 0x70, 1, &other), STATUS_OK);
    create_fails(ERR_EXISTS);
    assert_says("its devices cannot be placed: exists");
    for (unsigned i = 0; i < 3; i++)
        assert_null(vm.vcpus[i]);
}

/* ---- disks ---- */

#define DISK_HPA (INITRD_HPA + 0x80800u) /* sectors beside a page's end */

static void add_disk(uint32_t index, uint8_t position, bool cdrom, uint64_t hpa, uint64_t size)
{
    config()->disks[index] = (struct config_disk){.position = position, .cdrom = cdrom};
    config()->disk_count = index + 1;
    info.disks[0][index] = (struct boot_file){hpa, size};
}

static uint64_t port(uint16_t at, unsigned size, bool write, uint64_t value)
{
    struct io_req req = {.addr = at, .size = (uint8_t)size, .write = write, .value = value};
    struct vdev *dev = bus_find_port(&vm.bus, at, size);
    assert_non_null(dev);
    dev->ops->access(dev, &req);
    return req.value;
}

static void disk_command(uint32_t lba, uint8_t count, uint8_t command)
{
    port(0x1f6, 1, true, 0xe0);
    port(0x1f2, 1, true, count);
    port(0x1f3, 1, true, lba);
    port(0x1f4, 1, true, 0);
    port(0x1f5, 1, true, 0);
    port(0x1f7, 1, true, command);
}

/* What is written is in the file's memory, and there after the next start. */
static void test_disks(void **state)
{
    for (unsigned i = 0; i < 16 * 512; i++)
        memory[DISK_HPA + i] = (uint8_t)(i * 7 + (i >> 8));
    add_disk(0, 0, false, DISK_HPA, 16 * 512);
    add_disk(1, 2, true, INITRD_HPA, 4096);
    create();
    assert_int_equal(port(0x177, 1, false, 0), 0); /* the CD-ROM drive's signature */
    assert_int_equal(port(0x175, 1, false, 0), 0xeb);
    disk_command(2, 10, 0x20);
    for (unsigned i = 0; i < 10 * 512; i += 2)
        assert_int_equal(port(0x1f0, 2, false, 0),
                         memory[DISK_HPA + 1024 + i] | memory[DISK_HPA + 1025 + i] << 8);
    disk_command(15, 1, 0x30);
    for (unsigned i = 0; i < 256; i++)
        port(0x1f0, 2, true, 0x1234);
    assert_int_equal(memory[DISK_HPA + 16 * 512 - 1], 0x12);
    assert_int_equal(memory[DISK_HPA + 15 * 512 - 1], (uint8_t)((15 * 512 - 1) * 7 + 29));
    assert_int_equal(port(0x1f7, 1, false, 0), 0x50);
    platform_reset(&vm);
    disk_command(15, 1, 0x20);
    assert_int_equal(port(0x1f0, 2, false, 0), 0x1234);
}

/* The guest moves the bus-master ports by PCI configuration. */
static void test_disk_ports_move(void **state)
{
    add_disk(0, 0, false, DISK_HPA, 512);
    create();
    port(0xcf8, 4, true, 0x80000900); /* 00:01.1 */
    assert_int_equal(port(0xcfc, 4, false, 0), 0x70108086);
    port(0xc004, 4, true, 0x5000);
    port(0xcf8, 4, true, 0x80000920);
    port(0xcfc, 4, true, 0xc420);
    assert_null(bus_find_port(&vm.bus, 0xc004, 4));
    assert_int_equal(port(0xc424, 4, false, 0), 0x5000);
    port(0xcfc, 4, true, 0x1f0); /* its own legacy ports stay what they are */
    assert_int_equal(port(0x1f7, 1, false, 0), 0x50);
    port(0xcfc, 4, true, 0xd000);
    assert_int_equal(port(0x1f7, 1, false, 0), 0x50);
    assert_int_equal(port(0xd004, 4, false, 0), 0x5000);
}

static void test_disks_without_room(void **state)
{
    uint32_t before = core.pool.free_pages;
    create();
    uint32_t used = before - core.pool.free_pages;
    setup(NULL);
    add_disk(0, 0, false, DISK_HPA, 512);
    make_pool(used);
    create_fails(ERR_NO_MEMORY);
    assert_says("Bulkhead's own memory is used up");
    assert_null(vm.platform.ata);
    setup(NULL);
    static struct vdev other;
    add_disk(0, 0, false, DISK_HPA, 512);
    assert_int_equal(bus_add_ports(&vm.bus, 0x376, 1, &other), STATUS_OK);
    create_fails(ERR_EXISTS);
    assert_says("its IDE controller cannot be placed: exists");
}

/* ---- starting ---- */

static void assert_pristine(void)
{
    for (unsigned i = 0; i < PAYLOAD_SIZE; i++)
        assert_int_equal(guest_byte(KERNEL_AT + i), memory[KERNEL_HPA + SETUP_SIZE + i]);
    for (unsigned i = 0; i < INITRD_SIZE; i++)
        assert_int_equal(guest_byte(vm.image.bzimage.plan.initrd + i), memory[INITRD_HPA + i]);
    const char *cmdline = config()->cmdline;
    for (unsigned i = 0; i <= strlen(cmdline); i++)
        assert_int_equal(guest_byte(vm.image.bzimage.plan.cmdline + i), (uint8_t)cmdline[i]);
    char rsdp[9] = "";
    assert_int_equal(gmem_read(&vm.gmem, gpa(GUEST_ACPI), rsdp, 8), STATUS_OK);
    assert_string_equal(rsdp, "RSD PTR ");
}

static void test_start(void **state)
{
    create();
    vm.vcpus[1]->requests = VCPU_REQ_STOP | VCPU_REQ_NMI; /* of an earlier life */
    fake_host.tsc = 5000000;
    fake_host.wall_seconds = 1700000000;
    assert_true(order(VM_ORDER_START));
    assert_int_equal(vm.state, VM_STARTING);
    bool kicked[4] = {false};
    for (unsigned i = 0; i < fake_host.kicks; i++)
        kicked[fake_host.kicked[i]->index] = true;
    assert_true(kicked[1] && kicked[3] && !kicked[0] && !kicked[2]);
    prepare();
    assert_pristine();
    assert_int_equal(fake_host.vms_started, 1);
    assert_int_equal(vm.state, VM_RUNNING);
    assert_int_equal(vm.stop, STOP_NONE);
    assert_int_equal(vm.vcpus_in_loop, 3);
    assert_int_equal(vm.start_wall, 1700000000);
    assert_int_equal(vm_now_ns(&vm), 0);
    for (unsigned i = 0; i < 3; i++) {
        assert_ptr_equal(vm.vcpus[i]->cpu->assigned, vm.vcpus[i]);
        assert_int_equal(vm.vcpus[i]->requests & ~(uint32_t)(VCPU_REQ_EVENT | VCPU_REQ_TIMER), 0);
    }
    assert_null(core.cpus[2].assigned);
}

static void test_entry_state(void **state)
{
    start();
    struct vcpu *v = vm.vcpus[0];
    vm_begin_vcpu(v);
    assert_int_equal(virt_get(v, VIRT_RIP), vm.entry.rip);
    assert_int_equal(virt_get(v, VIRT_RIP), KERNEL_AT + 0x200);
    assert_int_equal(v->gpr[RSI], vm.image.bzimage.plan.boot_params);
    assert_int_equal(virt_get(v, VIRT_CR3), vm.entry.cr3);
    assert_true(virt_get(v, VIRT_CR0) & CR0_PG);
    assert_true(virt_get(v, VIRT_EFER) & EFER_LMA);
    assert_false(virt_get(v, VIRT_RFLAGS) & RFLAGS_IF);
    assert_int_equal(virt_get_seg(v, SEG_CS).selector, 0x10);
    assert_true(virt_get_seg(v, SEG_CS).access & SEG_ACCESS_L);
    assert_int_equal(virt_get_seg(v, SEG_SS).selector, 0x18);
    assert_int_equal(virt_get(v, VIRT_GDTR_BASE), vm.entry.gdt_base);
    assert_int_equal(virt_get(v, VIRT_TSC_OFFSET),
                     (uint64_t)0 - vm.start_tsc); /* the guest's TSC starts at 0 */
    assert_int_equal(v->events.activity, VIRT_ACTIVE);
    v = vm.vcpus[1];
    vm_begin_vcpu(v);
    assert_int_equal(v->events.activity, VIRT_WAIT_SIPI);
    assert_int_equal(virt_get(v, VIRT_CR0) & (CR0_PG | CR0_PE), 0);
}

static void test_start_with_bad_files(void **state)
{
    create();
    put(0x202, 0, 4);
    assert_true(order(VM_ORDER_START)); /* the work fails later */
    prepare();
    assert_true(fake_host_logged("cannot be started: the kernel is "));
    assert_int_equal(vm.state, VM_STOPPED);
    assert_int_equal(vm.stop, STOP_NOT_LOADED);
    assert_int_equal(fake_host.vms_stopped, 1);
    assert_int_equal(fake_host.vms_started, 1);
    assert_null(core.cpus[0].assigned);
    make_files();
    info.initrds[0].size = 60 * MIB;
    assert_true(order(VM_ORDER_START));
    prepare();
    assert_int_equal(vm.state, VM_STOPPED);
    make_files();
    info.initrds[0].size = 0; /* none is fine */
    assert_true(order(VM_ORDER_START));
    prepare();
    assert_int_equal(vm.state, VM_RUNNING);
    assert_int_equal(fake_host.vms_started, 1);
}

/* All memory is zeroed before the first start, whoever has left something there, by all of the VM's CPUs. */
static void test_memory_is_zeroed(void **state)
{
    memset(memory + FREE_BASE, 0xcc, FREE_SIZE);
    create();
    assert_true(order(VM_ORDER_START));
    for (unsigned i = 0; i < 3; i++)
        assert_ptr_equal(vm.vcpus[i]->cpu->assigned, vm.vcpus[i]);
    prepare();
    for (uint64_t at = GUEST_ONE_MIB; at < KERNEL_AT; at += 509)
        assert_int_equal(guest_byte(at), 0);
    for (uint64_t at = KERNEL_AT + 8 * MIB; at < 60 * MIB; at += 4093)
        assert_int_equal(guest_byte(at), 0);
    for (uint64_t at = FREE_BASE + 64 * MIB; at < FREE_BASE + FREE_SIZE; at += 4093)
        assert_int_equal(memory[at], 0xcc); /* not the VM's */
}

/* An order to stop ends the zeroing; the next start goes on where it ended. */
static void test_stop_during_start(void **state)
{
    memset(memory + FREE_BASE, 0xcc, FREE_SIZE);
    create();
    assert_true(order(VM_ORDER_START));
    assert_true(order(VM_ORDER_STOP));
    assert_false(order(VM_ORDER_STOP));
    assert_says("one is stopping already");
    prepare();
    assert_int_equal(vm.state, VM_STOPPED);
    assert_int_equal(vm.stop, STOP_OPERATOR);
    assert_true(fake_host.by_operator);
    assert_int_equal(vm.zeroed, 0);
    assert_false(order(VM_ORDER_RESET));
    assert_true(order(VM_ORDER_START));
    assert_true(order(VM_ORDER_STOP));
    assert_true(order(VM_ORDER_START)); /* after all */
    assert_false(order(VM_ORDER_START));
    assert_says("one is starting already");
    prepare();
    assert_int_equal(vm.state, VM_RUNNING);
    assert_int_equal(guest_byte(2 * MIB), 0);
    assert_pristine();
}

/* ---- what local APICs get ---- */

static void test_lapic_environment(void **state)
{
    start();
    for (unsigned i = 0; i < 3; i++) {
        vm_begin_vcpu(vm.vcpus[i]);
        lapic_mmio_write(&vm.vcpus[i]->lapic, 0xf0, 4, 0x1ff);
        vm.vcpus[i]->requests = 0;
    }
    struct vcpu *v = vm.vcpus[0];
    lapic_mmio_write(&v->lapic, 0x310, 4, 2u << 24);
    lapic_mmio_write(&v->lapic, 0x300, 4, 1u << 14 | 0x55);
    assert_true(vm.vcpus[2]->requests & VCPU_REQ_EVENT);
    assert_int_equal(lapic_pending(&vm.vcpus[2]->lapic), 0x55);
    lapic_mmio_write(&v->lapic, 0x300, 4, 1u << 14 | 1u << 18 | 0x56); /* to itself */
    assert_true(v->requests & VCPU_REQ_EVENT);
    /* The timer: vector 0x60 in 1000 ticks of the APIC's clock. */
    uint64_t none = v->deadline_tsc;
    lapic_mmio_write(&v->lapic, 0x3e0, 4, 0xb); /* divide by one */
    lapic_mmio_write(&v->lapic, 0x320, 4, 0x60);
    lapic_mmio_write(&v->lapic, 0x380, 4, 1000);
    assert_true(v->deadline_tsc < none);
    uint64_t ticks = 1000 * vm.cpuid.tsc_hz / vm.cpuid.crystal_hz;
    assert_in_range(v->deadline_tsc, fake_host.tsc + ticks,
                    fake_host.tsc + ticks + 2 + vm.cpuid.tsc_hz / vm.cpuid.crystal_hz);
    /* The end of a level-triggered interrupt reaches the IOAPIC. */
    vm.platform.ioapic.redirection[9] = 1u << 15 | 0x70;
    irq_set_line(&vm, 9, true);
    assert_int_equal(vm.platform.ioapic.remote_irr, 1u << 9);
    lapic_take(&v->lapic, 0x70);
    irq_set_line(&vm, 9, false);
    lapic_mmio_write(&v->lapic, 0xb0, 4, 0);
    assert_int_equal(vm.platform.ioapic.remote_irr, 0);
    assert_int_equal(vm.devices.next, vm.devices.serving);
}

/* ---- stopping ---- */

static void leave(unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        vm.vcpus[i]->cpu->assigned = NULL; /* it had been picked */
    for (unsigned i = 0; i < count; i++)
        vm_vcpu_left(vm.vcpus[i]);
}

/* A reset of the processors only, which an order to stop overtakes: the next start is from power-up. */
static void test_stop_overtakes_init(void **state)
{
    start();
    assert_true(order(VM_ORDER_STOP));
    vm.platform.legacy_env.power(vm.platform.legacy_env.ctx, VDEV_INIT);
    vm.platform.sysctl.port_a = 0;
    leave(3);
    assert_int_equal(vm.state, VM_STOPPED);
    assert_true(order(VM_ORDER_START));
    prepare();
    assert_int_equal(vm.state, VM_RUNNING);
    assert_int_equal(vm.platform.sysctl.port_a, 2); /* as a BIOS leaves it */
}

/* All leave, and what is to be done then is done. */
static void end_life(void)
{
    leave(3);
    prepare();
}

/* The order to stop is taken back after it has ended the work, and before anybody has said so: in that moment
 * there is a line for the log. The VM starts all the same. */
static void start_after_all(void *ctx, enum log_level level, const char *line)
{
    (void)ctx;
    (void)level;
    if (strstr(line, "own memory") && vm.wish == WISH_STOP)
        assert_true(order(VM_ORDER_START));
}

static void test_start_after_the_work_has_ended(void **state)
{
    memset(memory + FREE_BASE, 0xcc, FREE_SIZE);
    create();
    assert_true(order(VM_ORDER_START));
    assert_true(order(VM_ORDER_STOP));
    log_set_sink(start_after_all, NULL);
    prepare();
    assert_int_equal(vm.state, VM_STARTING); /* begins again */
    assert_int_equal(fake_host.vms_started, 0);
    prepare();
    assert_int_equal(vm.state, VM_RUNNING);
    assert_int_equal(fake_host.vms_started, 1);
    assert_int_equal(guest_byte(2 * MIB), 0);
    assert_pristine();
}

/* A VM that reboots keeps its memory, as a machine does; one whose plug was pulled does not. */
static void test_memory_of_the_last_life(void **state)
{
    const uint8_t mark = 0x5a;
    start();
    assert_int_equal(gmem_write(&vm.gmem, gpa(40 * MIB), &mark, 1), STATUS_OK);
    vm_stop(&vm, STOP_REBOOT);
    end_life();
    assert_int_equal(vm.state, VM_RUNNING);
    assert_int_equal(guest_byte(40 * MIB), mark);
    assert_true(order(VM_ORDER_RESET));
    end_life();
    assert_int_equal(guest_byte(40 * MIB), mark);
    assert_true(order(VM_ORDER_STOP));
    end_life();
    assert_int_equal(vm.state, VM_STOPPED);
    assert_true(order(VM_ORDER_START));
    prepare();
    assert_int_equal(vm.state, VM_RUNNING);
    assert_int_equal(guest_byte(40 * MIB), 0);
    assert_pristine();
}

/* While a VM's vCPUs are asked to stop, its state is nobody else's: else it could be running again before the
 * last one was asked. */
static unsigned asked_unlocked;

static void see_lock(const struct cpu *target)
{
    (void)target;
    asked_unlocked += vm.life.next == vm.life.serving;
}

static void test_asked_under_the_lock(void **state)
{
    start();
    asked_unlocked = 0;
    fake_host.kicks = 0;
    fake_host.on_kick = see_lock;
    assert_true(order(VM_ORDER_RESET));
    assert_int_equal(fake_host.kicks, 2); /* the third is this CPU */
    end_life();
    fake_host.kicks = 0;
    vm_stop(&vm, STOP_POWEROFF);
    assert_int_equal(fake_host.kicks, 2);
    assert_int_equal(asked_unlocked, 0);
}

static void test_first_reason_wins(void **state)
{
    start();
    fake_host.kicks = 0;
    vm_stop(&vm, STOP_POWEROFF);
    vm_stop(&vm, STOP_TRIPLE_FAULT);
    assert_int_equal(vm.state, VM_STOPPING);
    assert_int_equal(vm.stop, STOP_POWEROFF);
    for (unsigned i = 0; i < 3; i++)
        assert_true(vm.vcpus[i]->requests & VCPU_REQ_STOP);
    vm.vcpus[1]->requests = 0;
    vm_stop(&vm, STOP_REBOOT); /* asks nobody again */
    assert_int_equal(vm.vcpus[1]->requests, 0);
    leave(2);
    assert_int_equal(vm.state, VM_STOPPING); /* one is still inside */
    assert_int_equal(fake_host.vms_stopped, 0);
    leave(1);
    assert_int_equal(vm.state, VM_STOPPED);
    assert_int_equal(fake_host.vms_stopped, 1);
    assert_true(fake_host_logged("stopped: "));
    assert_int_equal(vm.life.next, vm.life.serving);
}

static void test_guest_leaves(void **state)
{
    config()->compat = COMPAT_QEMU;
    config()->on_reboot = ON_STOP_RESTART;
    config()->on_crash = ON_STOP_RESTART;
    log_set_level(LOG_ERROR); /* scripts/run --exit-code wants the line all the same */
    start();
    assert_non_null(vm.platform.testdev.ram);
    vm_leave(&vm, 4000000000u);
    vm_leave(&vm, 2); /* too late */
    end_life();
    assert_int_equal(vm.state, VM_STOPPED);
    assert_true(fake_host_logged("one: stopped: the guest left with code 4000000000\n"));
}

/* A request to stop that arrives before a vCPU has begun is not forgotten by its reset. */
static void test_stop_before_begin(void **state)
{
    start();
    vm_stop(&vm, STOP_REQUESTED);
    vm_begin_vcpu(vm.vcpus[0]);
    assert_false(vcpu_prepare_entry(vm.vcpus[0]));
}

static void test_policies(void **state)
{
    static const struct {
        enum stop_reason why;
        bool on_reboot, on_crash, restarts;
    } cases[] = {
        {STOP_POWEROFF, true, true, false},       {STOP_REQUESTED, true, true, false},
        {STOP_REBOOT, true, false, true},         {STOP_REBOOT, false, true, false},
        {STOP_TRIPLE_FAULT, true, false, false},  {STOP_TRIPLE_FAULT, false, true, true},
        {STOP_UNHANDLED_EXIT, false, true, true}, {STOP_BAD_INSTRUCTION, false, true, true},
        {STOP_ENTRY_FAILED, false, true, true},   {STOP_GUEST_MEMORY, false, true, true},
        {STOP_GUEST_MEMORY, true, false, false},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        setup(NULL);
        config()->on_reboot = cases[i].on_reboot ? ON_STOP_RESTART : ON_STOP_STOP;
        config()->on_crash = cases[i].on_crash ? ON_STOP_RESTART : ON_STOP_STOP;
        start();
        vm_stop(&vm, cases[i].why);
        end_life();
        assert_int_equal(vm.state, cases[i].restarts ? VM_RUNNING : VM_STOPPED);
        assert_int_equal(vm.restarts, cases[i].restarts);
        assert_int_equal(fake_host.vms_stopped, !cases[i].restarts);
        assert_true(fake_host_logged(stop_reason_name(cases[i].why)));
    }
}

static void test_restart_is_pristine(void **state)
{
    start();
    uint8_t junk[64];
    memset(junk, 0xee, sizeof(junk));
    vm_begin_vcpu(vm.vcpus[0]);
    assert_int_equal(gmem_write(&vm.gmem, gpa(KERNEL_AT + 100), junk, sizeof(junk)), STATUS_OK);
    assert_int_equal(gmem_write(&vm.gmem, gpa(vm.image.bzimage.plan.cmdline), junk, sizeof(junk)), STATUS_OK);
    assert_int_equal(gmem_write(&vm.gmem, gpa(GUEST_ACPI), junk, sizeof(junk)), STATUS_OK);
    vm.console.kept = vm.console.head = vm.console.tail = 100;
    lapic_mmio_write(&vm.vcpus[0]->lapic, 0xf0, 4, 0x1ff);
    lapic_post(&vm.vcpus[0]->lapic, 0x77, false);
    vm.platform.ioapic.redirection[5] = 0x35;
    fake_host.tsc += 7000000000u;
    fake_host.wall_seconds += 7;
    vm_stop(&vm, STOP_REBOOT);
    leave(3);
    assert_int_equal(vm.state, VM_STARTING);
    assert_null(core.cpus[1].assigned); /* nothing to zero: one CPU loads */
    prepare();
    assert_pristine();
    assert_int_equal(vm.state, VM_RUNNING);
    assert_int_equal(vm.restarts, 1);
    assert_true(fake_host_logged("restarting from pristine images (restart 1)"));
    assert_int_equal(vm.vcpus_in_loop, 3);
    assert_ptr_equal(core.cpus[3].assigned, vm.vcpus[2]);
    assert_int_equal(vm_now_ns(&vm), 0);
    assert_int_equal(vm.console.kept, 0);
    assert_int_equal(vm.platform.ioapic.redirection[5], 1u << 16);
    for (unsigned i = 0; i < 3; i++)
        vm_begin_vcpu(vm.vcpus[i]);
    assert_int_equal(lapic_pending(&vm.vcpus[0]->lapic), -1);
    assert_int_equal(virt_get(vm.vcpus[0], VIRT_RIP), vm.entry.rip);
    for (unsigned i = 0; i < 3; i++)
        assert_false(vm.vcpus[i]->requests & VCPU_REQ_STOP);
}

static void test_restart_fails(void **state)
{
    start();
    vm_stop(&vm, STOP_REBOOT);
    put(0x206, 0x0100, 2); /* cannot happen: the files are ours alone. But if it does, the VM just stops */
    end_life();
    assert_int_equal(vm.state, VM_STOPPED);
    assert_true(fake_host_logged("cannot be started: too old a boot protocol"));
    assert_int_equal(fake_host.vms_stopped, 1);
}

static void test_crash_loop_ends(void **state)
{
    config()->on_crash = ON_STOP_RESTART;
    start();
    for (unsigned i = 0; i < 4; i++) {
        fake_host.tsc += 1000000000u;
        vm_stop(&vm, STOP_TRIPLE_FAULT);
        end_life();
        assert_int_equal(vm.state, VM_RUNNING);
    }
    fake_host.tsc += 11000000000u; /* this time it lived long enough: the count begins again */
    vm_stop(&vm, STOP_TRIPLE_FAULT);
    end_life();
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(vm.state, VM_RUNNING);
        fake_host.tsc += 1000000000u;
        vm_stop(&vm, STOP_TRIPLE_FAULT);
        end_life();
    }
    assert_int_equal(vm.state, VM_STOPPED);
    assert_true(fake_host_logged("not restarted any more"));
}

/* ---- the operator ---- */

static void test_operator_stops(void **state)
{
    start();
    assert_true(order(VM_ORDER_STOP));
    assert_int_equal(vm.state, VM_STOPPING);
    for (unsigned i = 0; i < 3; i++)
        assert_true(vm.vcpus[i]->requests & VCPU_REQ_STOP);
    assert_false(order(VM_ORDER_STOP));
    vm_stop(&vm, STOP_TRIPLE_FAULT); /* too late */
    end_life();
    assert_int_equal(vm.state, VM_STOPPED);
    assert_int_equal(vm.stop, STOP_OPERATOR);
    assert_true(fake_host_logged("stopped: stopped by the operator"));
    assert_int_equal(fake_host.vms_stopped, 1);
    assert_true(fake_host.by_operator);
    assert_true(order(VM_ORDER_START));
    prepare();
    assert_int_equal(vm.state, VM_RUNNING);
    assert_int_equal(vm.stop, STOP_NONE);
    vm_stop(&vm, STOP_POWEROFF);
    end_life();
    assert_false(fake_host.by_operator);
}

/* The operator's word counts more than the guest's, whichever came first. */
static void test_operator_and_guest(void **state)
{
    start();
    vm_stop(&vm, STOP_POWEROFF);
    leave(1); /* one vCPU is still inside */
    assert_true(order(VM_ORDER_RESET));
    for (unsigned i = 1; i < 3; i++) {
        vm.vcpus[i]->cpu->assigned = NULL;
        vm_vcpu_left(vm.vcpus[i]);
    }
    prepare();
    assert_int_equal(vm.state, VM_RUNNING);
    assert_int_equal(vm.restarts, 1);
    assert_true(order(VM_ORDER_RESET));
    vm_stop(&vm, STOP_POWEROFF);
    end_life();
    assert_int_equal(vm.restarts, 2);
    vm_stop(&vm, STOP_REBOOT);
    assert_true(order(VM_ORDER_STOP));
    end_life();
    assert_int_equal(vm.state, VM_STOPPED);
    assert_true(fake_host.by_operator);
}

/* An order ends the patience that a crash loop has used up. */
static void test_order_after_crash_loop(void **state)
{
    config()->on_crash = ON_STOP_RESTART;
    start();
    for (unsigned i = 0; i < 5; i++) {
        vm_stop(&vm, STOP_TRIPLE_FAULT);
        end_life();
    }
    assert_int_equal(vm.state, VM_STOPPED);
    assert_true(order(VM_ORDER_START));
    prepare();
    vm_stop(&vm, STOP_TRIPLE_FAULT);
    end_life();
    assert_int_equal(vm.state, VM_RUNNING);
}

static void test_fifty_restarts_cost_nothing(void **state)
{
    start();
    uint64_t pages = pool_pages_free(&core.pool), bytes = pmem_free_bytes(&core.pmem);
    for (unsigned i = 0; i < 50; i++) {
        assert_true(order(VM_ORDER_RESET));
        end_life();
        assert_int_equal(vm.state, VM_RUNNING);
    }
    assert_int_equal(vm.restarts, 50);
    assert_int_equal(pool_pages_free(&core.pool), pages);
    assert_int_equal(pmem_free_bytes(&core.pmem), bytes);
}

/* ---- the scheduler ---- */

static jmp_buf slept;
static unsigned rounds;
static enum stop_reason guest_end;

static void sleeps(uint64_t until)
{
    longjmp(slept, 1);
}

static void guest(struct vcpu *vcpu)
{
    rounds++;
    if (guest_end == STOP_NONE)
        return;
    vcpu->stop = guest_end;
    vm_stop(vcpu->vm, guest_end);
}

/* Runs a CPU until it has nothing to do. */
static void run_cpu(unsigned index)
{
    fake_host.cpu = &core.cpus[index];
    fake_host.on_idle = sleeps;
    if (setjmp(slept) == 0)
        sched_run(&core.cpus[index]);
}

static void test_sched_runs_and_reports(void **state)
{
    rounds = 0;
    guest_end = STOP_TRIPLE_FAULT;
    fake_virt.run = guest;
    start();
    run_cpu(1);
    assert_int_equal(rounds, 1);
    assert_int_equal(fake_vcpu(vm.vcpus[1])->loads, 1);
    assert_int_equal(fake_vcpu(vm.vcpus[1])->puts, 1);
    assert_true(fake_host_logged("/1: ERROR: "));
    assert_true(fake_host_logged("code at rip"));
    assert_int_equal(vm.stop, STOP_TRIPLE_FAULT);
    assert_int_equal(vm.vcpus_in_loop, 2);
    fake_virt.run = NULL; /* the others leave because they are asked to */
    run_cpu(0);
    run_cpu(3);
    assert_int_equal(vm.state, VM_STOPPED);
    assert_int_equal(fake_host.vms_stopped, 1);
    assert_false(fake_host_logged("/0: ERROR: "));
    run_cpu(2); /* has never had anything to do */
    assert_int_equal(fake_host.idle_until[fake_host.idles - 1], UINT64_MAX);
}

/* Reboots twice, then powers off. */
static void restless_guest(struct vcpu *vcpu)
{
    vm_stop(vcpu->vm, ++rounds < 3 ? STOP_REBOOT : STOP_POWEROFF);
}

static void test_sched_restarts(void **state)
{
    rounds = 0;
    config()->cpus = 1;
    fake_virt.run = restless_guest;
    start();
    run_cpu(0); /* all three lives: after each the CPU finds its vCPU assigned again */
    assert_int_equal(rounds, 3);
    assert_int_equal(vm.restarts, 2);
    assert_int_equal(vm.state, VM_STOPPED);
    assert_false(fake_host_logged("code at rip")); /* none of it was a crash */
}

static void test_sched_polls_the_console(void **state)
{
    create();
    core.cpus[0].polls_console = true;
    console_write("$");
    run_cpu(0);
    assert_int_equal(fake_host.tx[fake_host.tx_size - 1], '$');
    assert_int_equal(fake_host.idle_until[0], fake_host.tsc + FAKE_TSC_HZ / 1000);
}

#define T(f) cmocka_unit_test_setup(f, setup)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_create),
        T(test_create_without_memory),
        T(test_create_without_pool),
        T(test_create_without_cpus),
        T(test_create_without_backend),
        T(test_create_with_places_taken),
        T(test_disks),
        T(test_disk_ports_move),
        T(test_disks_without_room),
        T(test_start),
        T(test_entry_state),
        T(test_start_with_bad_files),
        T(test_stop_overtakes_init),
        T(test_memory_is_zeroed),
        T(test_stop_during_start),
        T(test_lapic_environment),
        T(test_start_after_the_work_has_ended),
        T(test_memory_of_the_last_life),
        T(test_asked_under_the_lock),
        T(test_first_reason_wins),
        T(test_guest_leaves),
        T(test_stop_before_begin),
        T(test_policies),
        T(test_restart_is_pristine),
        T(test_restart_fails),
        T(test_crash_loop_ends),
        T(test_operator_stops),
        T(test_operator_and_guest),
        T(test_order_after_crash_loop),
        T(test_fifty_restarts_cost_nothing),
        T(test_sched_runs_and_reports),
        T(test_sched_restarts),
        T(test_sched_polls_the_console),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
