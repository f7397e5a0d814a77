#include "tests/host/machine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arch/x86/cpu.h"
#include "arch/x86/msr.h"
#include "hv/guest/layout.h"
#include "tests/host/fake_host.h"
#include "tests/host/fake_virt.h"

/* Host-physical: guard, RAM below the hole, guard, RAM above it, guard. */
#define GUARD    0x5au
#define LOW_HPA  PAGE_SIZE
#define HIGH_HPA (LOW_HPA + MACHINE_HOLE + PAGE_SIZE)
#define HOST_END (HIGH_HPA + (MACHINE_RAM_END - MACHINE_HOLE_END) + PAGE_SIZE)

#define PTE_ALL    (1u << 0 | 1u << 1 | 1u << 2) /* present, writable, user */
#define PTE_PS     (1u << 7)
#define TABLE_PML4 MACHINE_TABLES
#define TABLE_PDPT (MACHINE_TABLES + 0x1000)
#define TABLE_PD   (MACHINE_TABLES + 0x2000) /* four of them */
#define TABLE_PT   (MACHINE_TABLES + 0x6000)

struct machine machine;
static struct recorder_entry recorded[MACHINE_VCPUS][RECORDER_KEEPS + 1];
static uint8_t host[HOST_END] __attribute__((aligned(4096)));

static void *map(void *ctx, hpa_t page)
{
    bool low = page.v >= LOW_HPA && page.v < LOW_HPA + MACHINE_HOLE;
    bool high = page.v >= HIGH_HPA && page.v < HOST_END - PAGE_SIZE;
    if ((page.v & PAGE_MASK) || !(low || high)) {
        fprintf(stderr, "a window on host-physical %llx, which is not the guest's\n",
                (unsigned long long)page.v);
        abort();
    }
    return host + page.v;
}

static bool is_guard(const uint8_t *page)
{
    for (unsigned i = 0; i < PAGE_SIZE; i++)
        if (page[i] != GUARD)
            return false;
    return true;
}

bool machine_guards_intact(void)
{
    return is_guard(host) && is_guard(host + HIGH_HPA - PAGE_SIZE) && is_guard(host + HOST_END - PAGE_SIZE);
}

uint8_t *machine_ram(uint64_t at)
{
    if (at < MACHINE_HOLE)
        return host + LOW_HPA + at;
    if (at >= MACHINE_HOLE_END && at < MACHINE_RAM_END)
        return host + HIGH_HPA + (at - MACHINE_HOLE_END);
    return NULL;
}

void machine_write(uint64_t at, const void *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++)
        *machine_ram(at + i) = ((const uint8_t *)bytes)[i];
}

void machine_code(struct vcpu *vcpu, const void *bytes, size_t size)
{
    machine_write(vcpu->rip, bytes, size);
}

static void put_entry(uint64_t at, uint64_t entry)
{
    machine_write(at, &entry, sizeof(entry));
}

void machine_paging(void)
{
    put_entry(TABLE_PML4, TABLE_PDPT | PTE_ALL);
    for (uint64_t i = 0; i < 4; i++)
        put_entry(TABLE_PDPT + 8 * i, (TABLE_PD + i * PAGE_SIZE) | PTE_ALL);
    for (uint64_t i = 0; i < 2048; i++)
        put_entry(TABLE_PD + 8 * i, i * SIZE_2M | PTE_ALL | PTE_PS);
    put_entry(TABLE_PD, TABLE_PT | PTE_ALL);
    for (uint64_t i = 0; i < 512; i++)
        put_entry(TABLE_PT + 8 * i, i * PAGE_SIZE | PTE_ALL);
}

uint64_t *machine_pte(uint64_t linear)
{
    return (uint64_t *)machine_ram(TABLE_PT + 8 * (linear >> PAGE_SHIFT));
}

uint64_t *machine_pde(uint64_t linear)
{
    return (uint64_t *)machine_ram(TABLE_PD + 8 * (linear / SIZE_2M));
}

static void flat(struct vcpu *vcpu, uint32_t code, uint32_t data, uint32_t limit)
{
    static const enum seg_name names[] = {SEG_ES, SEG_SS, SEG_DS, SEG_FS, SEG_GS};
    struct seg seg = {.limit = limit, .access = data};
    for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
        virt_set_seg(vcpu, names[i], &seg);
    seg.access = code;
    virt_set_seg(vcpu, SEG_CS, &seg);
}

void machine_long_mode(struct vcpu *vcpu)
{
    flat(vcpu, 0xa09b, 0xc093, UINT32_MAX);
    virt_set(vcpu, VIRT_CR0, CR0_PG | CR0_PE | CR0_WP | CR0_ET | CR0_NE);
    virt_set(vcpu, VIRT_CR3, TABLE_PML4);
    virt_set(vcpu, VIRT_CR4, CR4_PAE);
    virt_set(vcpu, VIRT_EFER, EFER_LME | EFER_LMA | EFER_NXE);
}

void machine_protected_mode(struct vcpu *vcpu)
{
    flat(vcpu, 0xc09b, 0xc093, UINT32_MAX);
    virt_set(vcpu, VIRT_CR0, CR0_PE | CR0_ET | CR0_NE);
    virt_set(vcpu, VIRT_CR4, 0);
    virt_set(vcpu, VIRT_EFER, 0);
}

void machine_real_mode(struct vcpu *vcpu)
{
    flat(vcpu, 0x9b, 0x93, UINT16_MAX);
    virt_set(vcpu, VIRT_CR0, CR0_ET | CR0_NE);
    virt_set(vcpu, VIRT_CR4, 0);
    virt_set(vcpu, VIRT_EFER, 0);
}

void machine_user(struct vcpu *vcpu)
{
    for (unsigned i = SEG_ES; i <= SEG_GS; i++) {
        struct seg seg = virt_get_seg(vcpu, (enum seg_name)i);
        seg.access |= 3u << 5;
        virt_set_seg(vcpu, (enum seg_name)i, &seg);
    }
}

static uint64_t apic_now(void *ctx)
{
    return host_tsc();
}

static void apic_timer_changed(void *ctx)
{
    vcpu_update_deadline(ctx);
}

static void apic_send(void *ctx, const struct lapic_ipi *ipi)
{
    irq_send_ipi(ctx, ipi);
}

static void apic_ended(void *ctx, uint8_t vector)
{
    struct vcpu *vcpu = ctx;
    ioapic_eoi(&vcpu->vm->platform.ioapic, vector);
}

static void add_vcpu(unsigned id)
{
    struct vcpu *vcpu = &machine.vcpus[id];
    vcpu->vm = &machine.vm;
    vcpu->id = id;
    vcpu->cpu = &core.cpus[id];
    vcpu->deadline_tsc = UINT64_MAX;
    vcpu->lapic_env = (struct lapic_env){.ctx = vcpu,
                                         .now_tsc = apic_now,
                                         .timer_changed = apic_timer_changed,
                                         .send_ipi = apic_send,
                                         .eoi = apic_ended};
    lapic_init(&vcpu->lapic, &vcpu->lapic_env, id, id == 0, FAKE_TSC_HZ, FAKE_TSC_HZ);
    memset(recorded[id], 0, sizeof(recorded[id]));
    recorder_init(&vcpu->recorder, recorded[id], RECORDER_KEEPS + 1);
    machine.vm.vcpus[id] = vcpu;
    machine.vm.vcpu_count = id + 1;
    machine_long_mode(vcpu);
    virt_set(vcpu, VIRT_RFLAGS, RFLAGS_FIXED_1);
    virt_set(vcpu, VIRT_RSP, 0x8000);
    vcpu->rip = 0x1000;
}

void machine_init(unsigned vcpus)
{
    struct vm *vm = &machine.vm;
    fake_host_init();
    fake_virt_init();
    memset(&machine, 0, sizeof(machine));
    memset(host, GUARD, sizeof(host));
    memset(host + LOW_HPA, 0, MACHINE_HOLE);
    memset(host + HIGH_HPA, 0, MACHINE_RAM_END - MACHINE_HOLE_END);
    strcpy(machine.config.name, "test");
    core.vms[0] = vm;
    vm->config = &machine.config;
    vm->name = machine.config.name;
    log_source_init(&vm->log, vm->name, LOG_DEBUG);
    vm->cpuid.phys_bits = 40;
    vm->cpuid.ext[1].edx = 1u << 26; /* 1 GiB pages */
    vm->layout = (struct guest_layout){MACHINE_RAM_END, MACHINE_RAM_END, GUEST_FOUR_GIB};
    gmem_init(&vm->gmem, map, NULL);
    if (gmem_add(&vm->gmem, gpa(0), hpa(LOW_HPA), MACHINE_HOLE) != STATUS_OK ||
        gmem_add(&vm->gmem, gpa(MACHINE_HOLE_END), hpa(HIGH_HPA), MACHINE_RAM_END - MACHINE_HOLE_END) !=
            STATUS_OK)
        abort();
    for (unsigned i = 0; i < vcpus; i++)
        add_vcpu(i);
    if (platform_init(vm) != STATUS_OK)
        abort();
    platform_reset(vm);
    machine_paging();
    for (unsigned i = 0; i < vcpus; i++)
        vm->vcpus[i]->requests = 0;
    vm->start_tsc = fake_host.tsc;
    vm->state = VM_RUNNING;
}
