/* Instructions that reach devices: what the guest's registers, memory and devices see, and what happens when
 * an access may not be made. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "arch/x86/cpu.h"
#include "arch/x86/msr.h"
#include "hv/exits/exit_table.h"
#include "hv/guest/layout.h"
#include "tests/host/ept_model.h"
#include "tests/host/fake_host.h"
#include "tests/host/fake_virt.h"
#include "tests/host/machine.h"

/* A device that remembers, on two pages and on eight ports. Its bytes read as their offset + 1. */
#define DEV       0xd1000000ull
#define DEV_SIZE  0x2000ull
#define DEV_PORT  0x3000u
#define DEV_PORTS 8u
#define CODE      0x1000ull /* RIP */
#define DATA      0x20000ull
#define STACK     0x8000ull

#define WP   (1u << 1) /* entry: writable */
#define USER (1u << 2)
#define A    (1u << 5)
#define D    (1u << 6)

struct access {
    uint64_t addr, value;
    uint8_t size;
    bool write;
};
static struct access seen[4096];
static unsigned count;
static struct vcpu *v;

static void dev_none(struct vdev *dev)
{
}

static void dev_access(struct vdev *dev, struct io_req *req)
{
    if (!req->write) {
        req->value = 0;
        for (unsigned i = 0; i < req->size; i++)
            req->value |= ((req->addr + i + 1) & 0xff) << (8 * i);
    }
    if (count < ARRAY_SIZE(seen))
        seen[count] = (struct access){req->addr, req->value, req->size, req->write};
    count++;
}

static const struct vdev_ops dev_ops = {
    .name = "test", .init = dev_none, .reset = dev_none, .access = dev_access};
static struct vdev dev = {.ops = &dev_ops, .deadline_ns = VDEV_NEVER};

static int setup(void **state)
{
    machine_init(2);
    v = &machine.vcpus[0];
    count = 0;
    assert_int_equal(bus_add_mmio(&machine.vm.bus, DEV, DEV_SIZE, &dev), STATUS_OK);
    assert_int_equal(bus_add_ports(&machine.vm.bus, DEV_PORT, DEV_PORTS, &dev), STATUS_OK);
    for (unsigned i = 0; i < 16; i++)
        v->gpr[i] = 0x1111111111111111ull * i;
    v->gpr[RBX] = DEV;
    return 0;
}

static int teardown(void **state)
{
    return machine_guards_intact() ? 0 : -1;
}

static struct exit fault(uint64_t linear, bool write)
{
    struct exit exit = {.kind = EXIT_NESTED_FAULT};
    exit.u.nested.address = gpa(linear);
    exit.u.nested.linear = gva(linear);
    exit.u.nested.linear_valid = true;
    exit.u.nested.read = !write;
    exit.u.nested.write = write;
    return exit;
}

static struct exit_result run(uint64_t linear, bool write, const uint8_t *bytes, size_t size)
{
    struct exit exit = fault(linear, write);
    machine_code(v, bytes, size);
    return emulate_mmio(v, &exit);
}
#define BYTES(...)         (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__})
#define LOAD(linear, ...)  run(linear, false, BYTES(__VA_ARGS__))
#define STORE(linear, ...) run(linear, true, BYTES(__VA_ARGS__))
#define STRING_IO(...)     string_io(BYTES(__VA_ARGS__))
#define assert_no_access() assert_int_equal(count, 0)

static struct exit io_exit(uint16_t port, unsigned size, bool write)
{
    struct exit exit = {.kind = EXIT_IO};
    exit.u.io.port = port;
    exit.u.io.size = (uint8_t)size;
    exit.u.io.write = write;
    exit.u.io.string = true;
    return exit;
}

/* INS or OUTS as it exits: the opcode is the last byte. */
static struct exit_result string_io(const uint8_t *bytes, size_t size)
{
    uint8_t opcode = bytes[size - 1];
    unsigned width = !(opcode & 1) ? 1 : memchr(bytes, 0x66, size) ? 2 : 4;
    struct exit exit = io_exit((uint16_t)v->gpr[RDX], width, opcode & 2);
    machine_code(v, bytes, size);
    return handle_io(v, &exit);
}

static void assert_advanced(struct exit_result r, unsigned length)
{
    assert_int_equal(r.action, ACTION_ADVANCE);
    assert_int_equal(r.length, length);
}

static void assert_access(unsigned i, bool write, uint64_t addr, unsigned size, uint64_t value)
{
    assert_true(i < count);
    assert_int_equal(seen[i].write, write);
    assert_int_equal(seen[i].addr, addr);
    assert_int_equal(seen[i].size, size);
    assert_int_equal(seen[i].value, value);
}

static void assert_fault(struct exit_result r, unsigned vector, unsigned error)
{
    assert_int_equal(r.action, ACTION_INJECT);
    assert_int_equal(r.event_type, EVENT_EXCEPTION);
    assert_int_equal(r.event_vector, vector);
    assert_true(r.event_has_error);
    assert_int_equal(r.event_error, error);
}

static void assert_page_fault(struct exit_result r, uint64_t cr2, unsigned error)
{
    assert_fault(r, VECTOR_PF, error);
    assert_int_equal(virt_get(v, VIRT_CR2), cr2);
}

static void assert_stop(struct exit_result r)
{
    assert_int_equal(r.action, ACTION_STOP);
    assert_int_equal(r.stop, STOP_BAD_INSTRUCTION);
}

/* Maps the linear page below 2 MiB to a guest-physical one. */
static void map_page(uint64_t linear, uint64_t at)
{
    *machine_pte(linear) = at | 7;
}

static uint64_t ram64(uint64_t at)
{
    uint64_t value;
    memcpy(&value, machine_ram(at), sizeof(value));
    return value;
}

/* ---- plain loads and stores ---- */

static void test_loads(void **state)
{
    v->gpr[RAX] = 0x8877665544332211ull;
    assert_advanced(LOAD(DEV, 0x8a, 0x03), 2); /* mov al, [rbx] */
    assert_int_equal(v->gpr[RAX], 0x8877665544332201ull);
    assert_access(0, false, DEV, 1, 0x01);
    assert_advanced(LOAD(DEV, 0x66, 0x8b, 0x03), 3); /* mov ax */
    assert_int_equal(v->gpr[RAX], 0x8877665544330201ull);
    assert_access(1, false, DEV, 2, 0x0201);
    assert_advanced(LOAD(DEV + 4, 0x8b, 0x43, 0x04), 3); /* mov eax, [rbx + 4] */
    assert_int_equal(v->gpr[RAX], 0x08070605);
    assert_access(2, false, DEV + 4, 4, 0x08070605);
    assert_advanced(LOAD(DEV, 0x4c, 0x8b, 0x0b), 3); /* mov r9, [rbx] */
    assert_int_equal(v->gpr[R9], 0x0807060504030201ull);
    assert_access(3, false, DEV, 8, 0x0807060504030201ull);
    assert_advanced(LOAD(DEV, 0x8a, 0x23), 2); /* mov ah */
    assert_int_equal(v->gpr[RAX], 0x08070105);
    assert_advanced(LOAD(DEV + 0xff, 0x0f, 0xb6, 0x83, 0xff, 0, 0, 0), 7); /* movzx eax, byte [rbx + 0xff] */
    assert_int_equal(v->gpr[RAX], 0);
    assert_advanced(LOAD(DEV + 0x9f, 0x48, 0x0f, 0xbe, 0x83, 0x9f, 0, 0, 0),
                    8); /* movsx rax, byte [rbx + 0x9f] */
    assert_int_equal(v->gpr[RAX], 0xffffffffffffffa0ull);
    assert_int_equal(count, 7);
}

static void test_stores(void **state)
{
    v->gpr[RAX] = 0x8877665544332211ull;
    assert_advanced(STORE(DEV, 0x88, 0x03), 2);
    assert_advanced(STORE(DEV, 0x66, 0x89, 0x03), 3);
    assert_advanced(STORE(DEV, 0x89, 0x03), 2);
    assert_advanced(STORE(DEV, 0x48, 0x89, 0x03), 3);
    assert_advanced(STORE(DEV, 0xc7, 0x03, 0x78, 0x56, 0x34, 0x92), 6);
    assert_advanced(STORE(DEV, 0x48, 0xc7, 0x03, 0x78, 0x56, 0x34, 0x92), 7);
    assert_access(0, true, DEV, 1, 0x11);
    assert_access(1, true, DEV, 2, 0x2211);
    assert_access(2, true, DEV, 4, 0x44332211);
    assert_access(3, true, DEV, 8, 0x8877665544332211ull);
    assert_access(4, true, DEV, 4, 0x92345678);
    assert_access(5, true, DEV, 8, 0xffffffff92345678ull);
    assert_int_equal(count, 6);
    assert_int_equal(v->gpr[RAX], 0x8877665544332211ull);
}

/* The exit's own translation is used for the very access that faulted, and for no other. */
static void test_translation_of_the_exit(void **state)
{
    static const uint8_t load[] = {0x8b, 0x03}, store[] = {0x89, 0x03}, both[] = {0x09, 0x03};
    struct exit exit = fault(DEV, false);
    exit.u.nested.address = gpa(DEV + 0x100);
    machine_code(v, load, sizeof(load));
    assert_advanced(emulate_mmio(v, &exit), 2);
    assert_access(0, false, DEV + 0x100, 4, 0x04030201);
    exit.u.nested.linear = gva(DEV + 1);
    assert_advanced(emulate_mmio(v, &exit), 2);
    assert_access(1, false, DEV, 4, 0x04030201);
    exit.u.nested.linear_valid = false;
    exit.u.nested.linear = gva(DEV);
    assert_advanced(emulate_mmio(v, &exit), 2);
    assert_access(2, false, DEV, 4, 0x04030201);
    exit.u.nested.linear_valid = true;
    exit.u.nested.during_walk = true;
    assert_advanced(emulate_mmio(v, &exit), 2);
    assert_access(3, false, DEV, 4, 0x04030201);
    exit.u.nested.during_walk = false;
    machine_code(v, store, sizeof(store)); /* it was a read that was allowed: a write has to ask */
    assert_advanced(emulate_mmio(v, &exit), 2);
    assert_access(4, true, DEV, 4, (uint32_t)v->gpr[RAX]);
    machine_code(v, both, sizeof(both));
    assert_advanced(emulate_mmio(v, &exit), 2);
    assert_access(5, false, DEV, 4, 0x04030201);
    assert_access(6, true, DEV, 4, 0x04030201 | (uint32_t)v->gpr[RAX]);
    exit = fault(DEV, true);
    exit.u.nested.address = gpa(DEV + 0x100);
    machine_code(v, store, sizeof(store));
    assert_advanced(emulate_mmio(v, &exit), 2);
    assert_access(7, true, DEV + 0x100, 4, (uint32_t)v->gpr[RAX]);
}

static void test_addressing(void **state)
{
    struct seg fs = virt_get_seg(v, SEG_FS);
    fs.base = DEV - 0x40;
    virt_set_seg(v, SEG_FS, &fs);
    v->gpr[RCX] = 2;
    assert_advanced(LOAD(DEV + 0x10, 0x8b, 0x44, 0x8b, 0x08), 4); /* mov eax, [rbx + rcx * 4 + 8] */
    assert_access(0, false, DEV + 0x10, 4, 0x14131211);
    assert_advanced(LOAD(DEV, 0x64, 0x8b, 0x04, 0x25, 0x40, 0, 0, 0), 8); /* mov eax, fs:[0x40] */
    assert_access(1, false, DEV, 4, 0x04030201);
    uint32_t disp = (uint32_t)(0xa0000 - (CODE + 6)); /* mov eax, [rip + disp]: the hole below 1 MiB */
    assert_advanced(LOAD(0xa0000, 0x8b, 0x05, (uint8_t)disp, (uint8_t)(disp >> 8), (uint8_t)(disp >> 16), 0),
                    6);
    assert_int_equal(v->gpr[RAX], UINT32_MAX);
    v->gpr[RBX] |= 0xabull << 32;
    assert_advanced(LOAD(DEV, 0x67, 0x8b, 0x03), 3); /* mov eax, [ebx] */
    assert_access(2, false, DEV, 4, 0x04030201);
    assert_int_equal(count, 3);
}

/* A field is a VMREAD, and under another hypervisor perhaps an exit: only what counts is read. */
static void test_segments_that_count(void **state)
{
    struct fake_vcpu *f = fake_vcpu(v);
    struct seg fs = virt_get_seg(v, SEG_FS);
    fs.base = DEV;
    virt_set_seg(v, SEG_FS, &fs);
    memset(f->seg_reads, 0, sizeof(f->seg_reads));
    assert_advanced(LOAD(DEV, 0x8b, 0x03), 2); /* mov eax, [rbx] */
    for (unsigned i = 0; i < SEG_COUNT; i++)
        assert_int_equal(f->seg_reads[i], 0);
    assert_advanced(LOAD(DEV, 0x64, 0x8b, 0x04, 0x25, 0, 0, 0, 0), 8); /* mov eax, fs:[0] */
    assert_int_equal(f->seg_reads[SEG_FS], 1);
    assert_int_equal(count, 2);
}

/* ---- the devices of the machine ---- */

static void test_local_apic(void **state)
{
    v->gpr[RBX] = GUEST_LAPIC;
    assert_advanced(LOAD(GUEST_LAPIC + 0x30, 0x8b, 0x43, 0x30), 3);
    assert_int_equal(v->gpr[RAX], lapic_mmio_read(&v->lapic, 0x30, 4));
    assert_int_not_equal(v->gpr[RAX], UINT32_MAX);
    v->gpr[RAX] = 0x50;
    assert_advanced(STORE(GUEST_LAPIC + 0x80, 0x89, 0x83, 0x80, 0, 0, 0), 6);
    assert_int_equal(v->lapic.tpr, 0x50);
    v->gpr[RAX] = 0x20;
    assert_advanced(STORE(GUEST_LAPIC + 0x80, 0x66, 0x89, 0x83, 0x80, 0, 0, 0), 7);
    assert_advanced(STORE(GUEST_LAPIC + 0x80, 0x48, 0x89, 0x83, 0x80, 0, 0, 0), 7);
    assert_int_equal(v->lapic.tpr, 0x50); /* only 32 bits wide */
    v->gpr[RAX] = UINT64_MAX;
    assert_advanced(LOAD(GUEST_LAPIC + 0x80, 0x48, 0x8b, 0x83, 0x80, 0, 0, 0), 7);
    assert_int_equal((uint32_t)v->gpr[RAX], 0x50);
    assert_advanced(LOAD(GUEST_LAPIC + 0x80, 0x0f, 0xb6, 0x83, 0x80, 0, 0, 0), 7);
    assert_int_equal(v->gpr[RAX], 0x50);
    assert_int_equal(fake_host.log_lines, 0);
}

static void test_local_apic_elsewhere(void **state)
{
    assert_int_equal(lapic_base_write(&v->lapic, 0xd8000000ull | APIC_BASE_BSP | APIC_BASE_ENABLE),
                     STATUS_OK);
    v->lapic.tpr = 0x70;
    v->gpr[RBX] = 0xd8000000;
    assert_advanced(LOAD(0xd8000080, 0x8b, 0x83, 0x80, 0, 0, 0), 6);
    assert_int_equal(v->gpr[RAX], 0x70);
    v->gpr[RBX] = GUEST_LAPIC;
    assert_advanced(LOAD(GUEST_LAPIC + 0x80, 0x8b, 0x83, 0x80, 0, 0, 0), 6);
    assert_int_equal(v->gpr[RAX], UINT32_MAX);
    assert_int_equal(lapic_base_write(&v->lapic, 0xd8000000ull | APIC_BASE_BSP), STATUS_OK); /* off */
    v->gpr[RBX] = 0xd8000000;
    assert_advanced(LOAD(0xd8000080, 0x8b, 0x83, 0x80, 0, 0, 0), 6);
    assert_int_equal(v->gpr[RAX], UINT32_MAX);
}

static void test_ioapic_and_ecam(void **state)
{
    v->gpr[RBX] = GUEST_IOAPIC;
    v->gpr[RAX] = 1;
    assert_advanced(STORE(GUEST_IOAPIC, 0x89, 0x03), 2);
    assert_advanced(LOAD(GUEST_IOAPIC + 0x10, 0x8b, 0x43, 0x10), 3);
    assert_int_equal(v->gpr[RAX], 0x00170020);
    v->gpr[RBX] = GUEST_ECAM;
    assert_advanced(LOAD(GUEST_ECAM, 0x8b, 0x03), 2);
    assert_int_not_equal((uint32_t)v->gpr[RAX], UINT32_MAX);
    assert_advanced(LOAD(GUEST_ECAM + 0x8000, 0x8b, 0x83, 0, 0x80, 0, 0), 6);
    assert_int_equal((uint32_t)v->gpr[RAX], UINT32_MAX);
    assert_int_equal(fake_host.log_lines, 0);
}

static void test_nothing_there(void **state)
{
    v->gpr[RBX] = MACHINE_NOTHING;
    v->gpr[RAX] = 0;
    assert_advanced(LOAD(MACHINE_NOTHING, 0x8a, 0x03), 2);
    assert_int_equal(v->gpr[RAX], 0xff);
    assert_true(fake_host_logged("read of 1 bytes at guest-physical d0000000: nothing there"));
    fake_host.log_lines = 0;
    assert_advanced(LOAD(MACHINE_NOTHING, 0x48, 0x8b, 0x03), 3);
    assert_int_equal(v->gpr[RAX], UINT64_MAX);
    assert_advanced(STORE(MACHINE_NOTHING, 0x48, 0x89, 0x03), 3);
    assert_int_equal(fake_host.log_lines, 0); /* once for a page */
    v->gpr[RBX] = MACHINE_NOTHING + 0x1000;
    assert_advanced(STORE(MACHINE_NOTHING + 0x1000, 0x89, 0x03), 2);
    assert_true(fake_host_logged("write of 4 bytes at guest-physical d0001000: nothing there"));
}

/* ---- read-modify-write ---- */

static void test_read_modify_write(void **state)
{
    v->gpr[RAX] = 0xf0;
    assert_advanced(STORE(DEV, 0x09, 0x03), 2); /* or [rbx], eax */
    assert_access(0, false, DEV, 4, 0x04030201);
    assert_access(1, true, DEV, 4, 0x040302f1);
    assert_advanced(STORE(DEV, 0xf0, 0x80, 0x23, 0x00), 4); /* lock and byte [rbx], 0 */
    assert_access(2, false, DEV, 1, 1);
    assert_access(3, true, DEV, 1, 0);
    assert_true(virt_get(v, VIRT_RFLAGS) & RFLAGS_ZF);
    assert_advanced(STORE(DEV, 0x87, 0x03), 2); /* xchg [rbx], eax */
    assert_access(5, true, DEV, 4, 0xf0);
    assert_int_equal(v->gpr[RAX], 0x04030201);
    assert_advanced(STORE(DEV, 0xff, 0x03), 2); /* inc dword [rbx] */
    assert_access(7, true, DEV, 4, 0x04030202);
    assert_false(virt_get(v, VIRT_RFLAGS) & RFLAGS_ZF);
    v->gpr[RAX] = 5;
    assert_advanced(STORE(DEV, 0x0f, 0xb1, 0x0b), 3); /* cmpxchg [rbx], ecx: not equal, written back */
    assert_access(9, true, DEV, 4, 0x04030201);
    assert_int_equal(v->gpr[RAX], 0x04030201);
    v->gpr[RAX] = 39;
    assert_advanced(STORE(DEV + 4, 0x0f, 0xab, 0x03), 3); /* bts [rbx], eax */
    assert_access(11, true, DEV + 4, 4, 0x08070685);
    assert_int_equal(count, 12);
    assert_advanced(LOAD(DEV, 0x3b, 0x03), 2);       /* cmp eax, [rbx] */
    assert_advanced(LOAD(DEV, 0xf6, 0x03, 0x01), 3); /* test byte [rbx], 1 */
    assert_int_equal(count, 14);
    assert_false(virt_get(v, VIRT_RFLAGS) & RFLAGS_ZF);
}

/* A read of a device may change it: nothing is read before the write is known to be allowed. */
static void test_read_modify_write_of_read_only_page(void **state)
{
    *machine_pde(DEV) &= ~(uint64_t)WP;
    assert_page_fault(STORE(DEV, 0x09, 0x03), DEV, 3);
    assert_no_access();
    map_page(0x30000, DEV);
    map_page(0x31000, DEV + 0x1000);
    *machine_pte(0x31000) &= ~(uint64_t)WP;
    v->gpr[RBX] = 0x30ffe;
    assert_page_fault(STORE(0x31000, 0x09, 0x03), 0x31000, 3);
    assert_no_access();
    v->gpr[RBX] = 0x30ffc;
    assert_advanced(STORE(0x30ffc, 0x09, 0x03), 2);
}

/* ---- accesses that cross a page ---- */

static void test_crossing_load(void **state)
{
    map_page(0x30000, DATA);
    map_page(0x31000, DEV + 0x1000);
    memcpy(machine_ram(DATA + 0xffd), "\xaa\xbb\xcc", 3);
    v->gpr[RBX] = 0x30ffd;
    assert_advanced(LOAD(0x31000, 0x48, 0x8b, 0x03), 3);
    assert_int_equal(v->gpr[RAX], 0x0504030201ccbbaaull);
    assert_int_equal(count, 5);
    for (unsigned i = 0; i < 5; i++)
        assert_access(i, false, DEV + 0x1000 + i, 1, i + 1);
    map_page(0x30000, DEV);
    map_page(0x31000, MACHINE_NOTHING);
    v->gpr[RBX] = 0x30fff;
    assert_advanced(LOAD(0x30fff, 0x66, 0x8b, 0x0b), 3);
    assert_int_equal(v->gpr[RCX] & 0xffff, 0xff00);
}

static void test_crossing_store(void **state)
{
    map_page(0x30000, DEV);
    map_page(0x31000, DATA);
    v->gpr[RBX] = 0x30ffd;
    v->gpr[RAX] = 0x8877665544332211ull;
    assert_advanced(STORE(0x30ffd, 0x48, 0x89, 0x03), 3);
    assert_access(0, true, DEV + 0xffd, 1, 0x11);
    assert_access(1, true, DEV + 0xffe, 1, 0x22);
    assert_access(2, true, DEV + 0xfff, 1, 0x33);
    assert_int_equal(count, 3);
    assert_int_equal(ram64(DATA), 0x8877665544);
    assert_int_equal(ram64(DATA + 0x1000), 0);
}

static void test_crossing_into_a_fault(void **state)
{
    map_page(0x30000, DEV);
    *machine_pte(0x31000) = 0;
    v->gpr[RBX] = 0x30ffe;
    v->gpr[RAX] = 7;
    assert_page_fault(LOAD(0x30ffe, 0x8b, 0x03), 0x31000, 0);
    assert_page_fault(STORE(0x30ffe, 0x89, 0x03), 0x31000, 2);
    *machine_pte(0x31000) = DATA | 5;
    virt_set(v, VIRT_CR2, 0);
    assert_page_fault(STORE(0x30ffe, 0x89, 0x03), 0x31000, 3);
    assert_no_access();
    assert_int_equal(v->gpr[RAX], 7);
    /* The first page is looked at first. */
    *machine_pte(0x30000) = 0;
    assert_page_fault(LOAD(0x30ffe, 0x8b, 0x03), 0x30ffe, 0);
}

/* ---- string instructions ---- */

static void string(uint64_t si, uint64_t di, uint64_t cx)
{
    v->gpr[RSI] = si;
    v->gpr[RDI] = di;
    v->gpr[RCX] = cx;
}

static void assert_string(uint64_t si, uint64_t di, uint64_t cx)
{
    assert_int_equal(v->gpr[RSI], si);
    assert_int_equal(v->gpr[RDI], di);
    assert_int_equal(v->gpr[RCX], cx);
}

static void test_movs_to_device(void **state)
{
    for (unsigned i = 0; i < 16; i++)
        *machine_ram(DATA + i) = (uint8_t)(0x40 + i);
    string(DATA, DEV, 3);
    assert_advanced(STORE(DEV, 0xf3, 0xa5), 2);
    assert_string(DATA + 12, DEV + 12, 0);
    assert_int_equal(count, 3);
    assert_access(0, true, DEV, 4, 0x43424140);
    assert_access(2, true, DEV + 8, 4, 0x4b4a4948);
    string(DATA, DEV, 7); /* without prefix: one */
    assert_advanced(STORE(DEV, 0xa4), 1);
    assert_string(DATA + 1, DEV + 1, 7);
    virt_set(v, VIRT_RFLAGS, RFLAGS_FIXED_1 | RFLAGS_DF);
    string(DATA + 2, DEV + 2, 2);
    assert_advanced(STORE(DEV + 2, 0xf3, 0x66, 0xa5), 3);
    assert_string(DATA - 2, DEV - 2, 0);
    assert_access(4, true, DEV + 2, 2, 0x4342);
    assert_access(5, true, DEV, 2, 0x4140);
}

static void test_movs_from_device(void **state)
{
    string(DEV, DATA, 2);
    assert_advanced(LOAD(DEV, 0xf3, 0x48, 0xa5), 3);
    assert_string(DEV + 16, DATA + 16, 0);
    assert_int_equal(ram64(DATA), 0x0807060504030201ull);
    assert_int_equal(ram64(DATA + 8), 0x100f0e0d0c0b0a09ull);
    string(DEV, DEV + 0x100, 2); /* and to another */
    assert_advanced(LOAD(DEV, 0xf3, 0xa4), 2);
    assert_access(2, false, DEV, 1, 1);
    assert_access(3, true, DEV + 0x100, 1, 1);
    assert_access(4, false, DEV + 1, 1, 2);
    assert_access(5, true, DEV + 0x101, 1, 2);
    string(1, 2, 0);
    assert_advanced(LOAD(DEV, 0xf3, 0xa4), 2); /* count 0 */
    assert_string(1, 2, 0);
    assert_int_equal(count, 6);
}

static void test_movs_faults_on_the_way(void **state)
{
    map_page(0x30000, DATA);
    *machine_pte(0x31000) = 0;
    string(DEV, 0x30ff8, 5);
    assert_page_fault(LOAD(DEV, 0xf3, 0xa5), 0x31000, 2);
    assert_string(DEV + 8, 0x31000, 3);
    assert_int_equal(count, 2); /* the third element was not read in vain */
    assert_int_equal(ram64(DATA + 0xff8), 0x0807060504030201ull);
    count = 0;
    string(DEV, 0x30ffe, 1); /* the element itself crosses into the fault */
    assert_page_fault(LOAD(DEV, 0xa5), 0x31000, 2);
    assert_string(DEV, 0x30ffe, 1);
    assert_no_access();
    string(0x30ffc, DEV, 2);
    assert_page_fault(STORE(DEV, 0xf3, 0xa5), 0x31000, 0);
    assert_string(0x31000, DEV + 4, 1);
    assert_int_equal(count, 1);
    /* Backwards. */
    *machine_pte(0x30000) = 0;
    map_page(0x31000, DATA);
    virt_set(v, VIRT_RFLAGS, RFLAGS_FIXED_1 | RFLAGS_DF);
    string(DEV + 4, 0x31004, 3);
    assert_page_fault(LOAD(DEV, 0xf3, 0xa5), 0x30ffc, 2);
    assert_string(DEV - 4, 0x30ffc, 1);
}

static void test_string_segments(void **state)
{
    struct seg seg = virt_get_seg(v, SEG_DS);
    machine_protected_mode(v);
    seg.base = 0x40;
    virt_set_seg(v, SEG_GS, &seg);
    string(DATA, (uint32_t)DEV, 1);
    *machine_ram(DATA + 0x40) = 0x99;
    assert_advanced(STORE(DEV, 0x65, 0xa4), 2);
    assert_access(0, true, DEV, 1, 0x99);
    seg.access = 0xc091; /* read-only */
    virt_set_seg(v, SEG_ES, &seg);
    assert_fault(STORE(DEV, 0xa4), VECTOR_GP, 0);
    assert_fault(STORE(DEV, 0xaa), VECTOR_GP, 0);
    seg.access = 1u << 16;
    virt_set_seg(v, SEG_GS, &seg);
    assert_fault(STORE(DEV, 0x65, 0xac), VECTOR_GP, 0);
    virt_set_seg(v, SEG_SS, &seg);
    assert_fault(STORE(DEV, 0x36, 0xac), VECTOR_SS, 0);
    assert_int_equal(count, 1);
}

static void test_stos_lods(void **state)
{
    v->gpr[RAX] = 0x8877665544332211ull;
    string(0, DEV, 3);
    assert_advanced(STORE(DEV, 0xf3, 0xab), 2);
    assert_string(0, DEV + 12, 0);
    assert_access(2, true, DEV + 8, 4, 0x44332211);
    string(DEV, 0, 0);
    assert_advanced(LOAD(DEV, 0xac), 1);
    assert_int_equal(v->gpr[RAX], 0x8877665544332201ull);
    assert_advanced(LOAD(DEV + 1, 0xad), 1);
    assert_int_equal(v->gpr[RAX], 0x05040302);
    assert_string(DEV + 5, 0, 0);
    assert_int_equal(count, 5);
    *machine_pde(DEV) = 0;
    assert_page_fault(LOAD(DEV + 5, 0xac), DEV + 5, 0);
    string(0, DEV, 3);
    assert_page_fault(STORE(DEV, 0xf3, 0xab), DEV, 2);
    assert_string(0, DEV, 3);
}

static void test_scas_cmps(void **state)
{
    v->gpr[RAX] = 5;
    string(0, DEV, 100);
    assert_advanced(LOAD(DEV, 0xf2, 0xae), 2); /* repne scasb */
    assert_string(0, DEV + 5, 95);
    assert_true(virt_get(v, VIRT_RFLAGS) & RFLAGS_ZF);
    memcpy(machine_ram(DATA), "\1\2\3\7", 4);
    string(DATA, DEV, 100);
    assert_advanced(LOAD(DEV, 0xf3, 0xa6), 2); /* repe cmpsb */
    assert_string(DATA + 4, DEV + 4, 96);
    assert_false(virt_get(v, VIRT_RFLAGS) & RFLAGS_ZF);
    /* A device at rSI is not read when rDI's page is missing. */
    count = 0;
    *machine_pte(0x30000) = 0;
    string(DEV, 0x30000, 1);
    assert_page_fault(LOAD(DEV, 0xa6), 0x30000, 0);
    assert_no_access();
    string(0, 0x30000, 1);
    assert_page_fault(LOAD(DEV, 0xae), 0x30000, 0);
}

/* Long ones are done in pieces, so that interrupts get their turn; the guest executes the rest. */
static void test_long_string(void **state)
{
    string(DATA, MACHINE_NOTHING, 3000);
    struct exit_result r = STORE(MACHINE_NOTHING, 0xf3, 0xa4);
    assert_int_equal(r.action, ACTION_RETRY);
    uint64_t done = v->gpr[RSI] - DATA;
    assert_in_range(done, 1, 2999);
    assert_string(DATA + done, MACHINE_NOTHING + done, 3000 - done);
    for (unsigned i = 0; i < 3000 && r.action == ACTION_RETRY; i++)
        r = STORE(MACHINE_NOTHING, 0xf3, 0xa4);
    assert_advanced(r, 2);
    assert_string(DATA + 3000, MACHINE_NOTHING + 3000, 0);
}

static void test_16_bit_string_wraps(void **state)
{
    machine_real_mode(v);
    struct seg es = virt_get_seg(v, SEG_ES);
    es.base = 0xa0000;
    virt_set_seg(v, SEG_ES, &es);
    v->gpr[RAX] = 0;
    string(0x12340000ull, 0xffff0000fffeull, 0xabcd00000003ull);
    assert_advanced(STORE(0xaffff, 0xf3, 0xaa), 2);
    assert_string(0x12340000ull, 0xffff00000001ull, 0xabcd00000000ull);
}

/* ---- string I/O ---- */

static void test_outs(void **state)
{
    memcpy(machine_ram(DATA), "abcdefgh", 8);
    v->gpr[RDX] = 0xffff0000 | DEV_PORT;
    string(DATA, 0, 2);
    assert_advanced(STRING_IO(0xf3, 0x6f), 2);
    assert_string(DATA + 8, 0, 0);
    assert_access(0, true, DEV_PORT, 4, 0x64636261);
    assert_access(1, true, DEV_PORT, 4, 0x68676665);
    string(DATA, 0, 0);
    assert_advanced(STRING_IO(0x6e), 1);
    assert_access(2, true, DEV_PORT, 1, 'a');
    assert_advanced(STRING_IO(0x66, 0x6f), 2);
    assert_access(3, true, DEV_PORT, 2, 0x6362);
    *machine_pte(DATA) = 0;
    assert_page_fault(STRING_IO(0x6e), DATA + 3, 0);
    assert_int_equal(count, 4);
}

static void test_ins(void **state)
{
    v->gpr[RDX] = DEV_PORT;
    string(0, DATA, 3);
    assert_advanced(STRING_IO(0xf3, 0x6c), 2);
    assert_string(0, DATA + 3, 0);
    assert_memory_equal(machine_ram(DATA), "\1\1\1\0", 4);
    map_page(0x30000, DATA);
    *machine_pte(0x31000) = 0;
    count = 0;
    string(0, 0x30ffc, 3);
    assert_page_fault(STRING_IO(0xf3, 0x6d), 0x31000, 2);
    assert_string(0, 0x31000, 2);
    assert_int_equal(count, 1);
    string(0, 0x30ffe, 1);
    assert_page_fault(STRING_IO(0x6d), 0x31000, 2);
    assert_int_equal(count, 1); /* the port was not read in vain */
    v->gpr[RDX] = 0x4000;
    string(0, DATA, 1);
    assert_advanced(STRING_IO(0x6d), 1);
    assert_int_equal((uint32_t)ram64(DATA), UINT32_MAX);
    string(0, 0x800000000000ull, 1);
    assert_fault(STRING_IO(0x6d), VECTOR_GP, 0);
}

/* A port that counts what is read, and what is written to it. */
#define FIFO_PORT 0x5000u
static uint16_t fifo;

static uint16_t fifo_asks_at; /* then somebody wants something of the vCPU; 0: never */

static void fifo_access(struct vdev *self, struct io_req *req)
{
    if (fifo == fifo_asks_at && fifo)
        v->requests = VCPU_REQ_EVENT;
    if (req->write)
        assert_int_equal(req->value, fifo);
    req->value = fifo++;
}

static const struct vdev_ops fifo_ops = {
    .name = "fifo", .init = dev_none, .reset = dev_none, .access = fifo_access};

/* Many elements, which may be done as one: over pages that are not neighbours, up to one that is missing,
 * down, around the end of 16 bits, and to a device. */
static void test_string_io_runs(void **state)
{
    static struct vdev fifo_dev = {.ops = &fifo_ops, .deadline_ns = VDEV_NEVER};
    assert_int_equal(bus_add_ports(&machine.vm.bus, FIFO_PORT, 2, &fifo_dev), STATUS_OK);
    const uint64_t first = 0x40000, second = 0x30000;
    map_page(0x50000, first);
    map_page(0x51000, second);
    *machine_pte(0x52000) = 0;
    v->gpr[RDX] = FIFO_PORT;
    fifo = 0;
    string(0, 0x50f01, 700);
    assert_advanced(STRING_IO(0x66, 0xf3, 0x6d), 3); /* one element crosses */
    assert_string(0, 0x50f01 + 1400, 0);
    for (unsigned i = 0; i < 1400; i++) {
        uint64_t at = 0xf01 + i < 0x1000 ? first + 0xf01 + i : second + 0xf01 + i - 0x1000;
        if (*(uint8_t *)machine_ram(at) != (uint8_t)(i / 2 >> (i % 2 ? 8 : 0)))
            fail_msg("byte %u", i);
    }
    fifo = 0;
    string(0x50f01, 0, 700);
    assert_advanced(STRING_IO(0x66, 0xf3, 0x6f), 3); /* and back */
    assert_int_equal(fifo, 700);
    fifo = 7;
    string(0, 0x51ff0, 300);
    assert_page_fault(STRING_IO(0x66, 0xf3, 0x6d), 0x52000, 2);
    assert_string(0, 0x52000, 292);
    assert_int_equal(fifo, 7 + 8);
    fifo = 0;
    virt_set(v, VIRT_RFLAGS, virt_get(v, VIRT_RFLAGS) | RFLAGS_DF);
    string(0, 0x50100, 50);
    assert_advanced(STRING_IO(0x66, 0xf3, 0x6d), 3);
    assert_string(0, 0x50100 - 100, 0);
    assert_int_equal(*(uint16_t *)machine_ram(first + 0x100 - 98), 49);
    virt_set(v, VIRT_RFLAGS, virt_get(v, VIRT_RFLAGS) & ~(uint64_t)RFLAGS_DF);
    count = 0;
    fifo = 0x21;
    string(0, DEV, 3); /* INSW to device registers */
    assert_advanced(STRING_IO(0x66, 0xf3, 0x6d), 3);
    assert_access(2, true, DEV + 4, 2, 0x23);
    machine_real_mode(v);
    fifo = 0;
    string(0, 0xfff0, 16);
    struct exit exit = io_exit(FIFO_PORT, 2, false);
    machine_code(v, (const uint8_t[]){0xf3, 0x6d}, 2);
    assert_advanced(handle_io(v, &exit), 2);
    assert_string(0, 0x10, 0);
    assert_int_equal(*(uint16_t *)machine_ram(0xfffe), 7);
    assert_int_equal(*(uint16_t *)machine_ram(0xe), 15);
    struct seg es = virt_get_seg(v, SEG_ES); /* no limit will stop it at the end of 16 bits */
    es.limit = UINT32_MAX;
    es.base = 0x20100;
    virt_set_seg(v, SEG_ES, &es);
    fifo = 0x30;
    string(0, 0xfff0, 16);
    assert_advanced(handle_io(v, &exit), 2);
    assert_int_equal(*(uint16_t *)machine_ram(es.base + 0xe), 0x3f);
}

/* An element may take long: nobody waits for more than one. */
static void test_string_io_is_broken_off(void **state)
{
    static struct vdev fifo_dev = {.ops = &fifo_ops, .deadline_ns = VDEV_NEVER};
    assert_int_equal(bus_add_ports(&machine.vm.bus, FIFO_PORT, 2, &fifo_dev), STATUS_OK);
    v->gpr[RDX] = FIFO_PORT;
    fifo = 1;
    fifo_asks_at = 10;
    string(0, 0x40000, 200);
    struct exit_result r = STRING_IO(0x66, 0xf3, 0x6d);
    assert_int_equal(r.action, ACTION_RETRY);
    assert_string(0, 0x40014, 190);
    assert_int_equal(*(uint16_t *)machine_ram(0x40012), 10);
    assert_int_equal(*(uint16_t *)machine_ram(0x40014), 0);
    r = STRING_IO(0x66, 0xf3, 0x6d); /* it was not heard yet: still, the guest goes on */
    assert_string(0, 0x40016, 189);
    v->requests = 0;
    fifo_asks_at = 0;
    string(0, 0x40000, 2);
    v->requests = VCPU_REQ_EVENT; /* the last element is the end all the same */
    fifo = 1;
    STRING_IO(0x66, 0xf3, 0x6d);
    assert_advanced(STRING_IO(0x66, 0xf3, 0x6d), 3);
    v->requests = 0;
}

/* Memory that can only be read: what is written goes to the device behind it, which knows better. */
static void test_string_io_to_rom(void **state)
{
    static struct vdev fifo_dev = {.ops = &fifo_ops, .deadline_ns = VDEV_NEVER};
    hpa_t at;
    uint64_t size;
    assert_int_equal(bus_add_ports(&machine.vm.bus, FIFO_PORT, 2, &fifo_dev), STATUS_OK);
    assert_int_equal(bus_add_mmio(&machine.vm.bus, 0x40000, 0x1000, &dev), STATUS_OK);
    assert_int_equal(gmem_translate(&machine.vm.gmem, gpa(0x40000), &at, &size), STATUS_OK);
    assert_int_equal(gmem_split(&machine.vm.gmem, gpa(0x40000), 0x1000), STATUS_OK);
    gmem_show(&machine.vm.gmem, gpa(0x40000), at, GMEM_ROM);
    v->gpr[RDX] = FIFO_PORT;
    fifo = 5;
    string(0, 0x40000, 4);
    assert_advanced(STRING_IO(0x66, 0xf3, 0x6d), 3);
    assert_int_equal(count, 4);
    assert_access(3, true, 0x40006, 2, 8);
    assert_int_equal(*(uint16_t *)machine_ram(0x40000), 0);
}

/* Another vCPU may change the code between the exit and our look at it. The CPU checked the port rights of
 * the instruction that exited; another one has to exit for itself. */
static void test_changed_string_io(void **state)
{
    struct exit exit = io_exit(DEV_PORT, 1, false);
    v->gpr[RDX] = DEV_PORT;
    string(DATA, DATA, 1);
    machine_code(v, BYTES(0x6c));
    assert_int_equal(handle_io(v, &exit).action, ACTION_ADVANCE);
    assert_int_equal(count, 1);
    machine_code(v, BYTES(0x6e)); /* OUTS */
    assert_int_equal(handle_io(v, &exit).action, ACTION_RETRY);
    machine_code(v, BYTES(0x6d)); /* INSD: the three ports behind were not checked */
    assert_int_equal(handle_io(v, &exit).action, ACTION_RETRY);
    machine_code(v, BYTES(0x88, 0x03));
    assert_int_equal(handle_io(v, &exit).action, ACTION_RETRY);
    assert_int_equal(count, 1);
    assert_int_equal(STORE(DEV, 0x6e).action,
                     ACTION_RETRY); /* a MOV that became OUTS: no right was checked at all */
    assert_int_equal(LOAD(DEV, 0x6c).action, ACTION_RETRY);
    assert_int_equal(count, 1);
}

/* ---- PUSH and POP ---- */

static void test_push(void **state)
{
    assert_advanced(LOAD(DEV, 0xff, 0x33), 2); /* push qword [rbx] */
    assert_int_equal(virt_get(v, VIRT_RSP), STACK - 8);
    assert_int_equal(ram64(STACK - 8), 0x0807060504030201ull);
    assert_access(0, false, DEV, 8, 0x0807060504030201ull);
    assert_advanced(LOAD(DEV, 0x66, 0xff, 0x33), 3);
    assert_int_equal(virt_get(v, VIRT_RSP), STACK - 10);
    assert_int_equal(count, 2);
    *machine_pte(STACK - 16) &= ~(uint64_t)WP;
    assert_page_fault(LOAD(DEV, 0xff, 0x33), STACK - 18, 3);
    assert_int_equal(virt_get(v, VIRT_RSP), STACK - 10);
    assert_int_equal(count, 2); /* the device was not read in vain */
}

static void test_pop(void **state)
{
    memcpy(machine_ram(STACK), "abcdefghABCDEFGH", 16);
    assert_advanced(STORE(DEV, 0x8f, 0x03), 2);
    assert_int_equal(virt_get(v, VIRT_RSP), STACK + 8);
    assert_access(0, true, DEV, 8, 0x6867666564636261ull);
    *machine_pde(DEV) &= ~(uint64_t)WP;
    assert_page_fault(STORE(DEV, 0x8f, 0x03), DEV, 3);
    assert_int_equal(virt_get(v, VIRT_RSP), STACK + 8);
    virt_set(v, VIRT_RSP, 0x800000000000ull);
    assert_fault(STORE(DEV, 0x8f, 0x03), VECTOR_SS, 0);
    assert_int_equal(count, 1);
}

static void test_stack_widths(void **state)
{
    machine_protected_mode(v);
    v->gpr[RBX] = (uint32_t)DEV;
    assert_advanced(LOAD(DEV, 0xff, 0x33), 2);
    assert_int_equal(virt_get(v, VIRT_RSP), STACK - 4);
    assert_int_equal((uint32_t)ram64(STACK - 4), 0x04030201);
    struct seg ss = virt_get_seg(v, SEG_SS);
    ss.access &= ~SEG_ACCESS_DB;
    ss.limit = UINT16_MAX;
    virt_set_seg(v, SEG_SS, &ss);
    virt_set(v, VIRT_RSP, 0x70000); /* SP = 0: wraps, and the upper half of ESP stays */
    assert_advanced(LOAD(DEV, 0xff, 0x33), 2);
    assert_int_equal(virt_get(v, VIRT_RSP), 0x7fffc);
    assert_int_equal((uint32_t)ram64(0xfffc), 0x04030201);
    assert_advanced(STORE(DEV, 0x8f, 0x03), 2);
    assert_int_equal(virt_get(v, VIRT_RSP), 0x70000);
    assert_access(2, true, DEV, 4, 0x04030201);
}

/* ---- faults, rights, modes ---- */

static void test_data_faults(void **state)
{
    *machine_pde(DEV) = 0;
    assert_page_fault(LOAD(DEV + 4, 0x8b, 0x4b, 0x07), DEV + 7, 0);
    assert_page_fault(STORE(DEV + 4, 0x89, 0x4b, 0x07), DEV + 7, 2);
    *machine_pde(DEV) = DEV | 7 | 1u << 7 | 1ull << 45; /* beyond the address width */
    assert_page_fault(LOAD(DEV + 1, 0x8b, 0x03), DEV, 9);
    v->gpr[RBX] = 0x800000000000ull;
    assert_fault(LOAD(0, 0x8b, 0x03), VECTOR_GP, 0);
    virt_set(v, VIRT_CR2, 77);
    v->gpr[RBP] = 0x800000000000ull;
    assert_fault(LOAD(0, 0x8b, 0x45, 0x00), VECTOR_SS, 0);
    assert_int_equal(virt_get(v, VIRT_CR2), 77);
    assert_no_access();
    assert_int_equal(v->gpr[RAX], 0);
}

static void test_user_rights(void **state)
{
    machine_user(v);
    assert_advanced(STORE(DEV, 0x09, 0x03), 2);
    count = 0;
    *machine_pde(DEV) &= ~(uint64_t)USER;
    assert_page_fault(STORE(DEV, 0x09, 0x03), DEV, 7);
    assert_page_fault(LOAD(DEV + 1, 0x8b, 0x03), DEV, 5);
    *machine_pde(DEV) |= USER;
    virt_set(v, VIRT_CR4, CR4_PAE | CR4_PKE);
    virt_set(v, VIRT_PKRU, 1);
    assert_page_fault(LOAD(DEV + 1, 0x8b, 0x03), DEV, 0x25);
    virt_set(v, VIRT_PKRU, 0);
    *machine_pte(CODE) &= ~(uint64_t)USER; /* the code itself: remapped since the exit */
    assert_page_fault(LOAD(DEV, 0x8b, 0x03), CODE, 0x15);
    assert_no_access();
}

static void test_supervisor_rights(void **state)
{
    virt_set(v, VIRT_CR4, CR4_PAE | CR4_SMAP);
    assert_page_fault(LOAD(DEV + 1, 0x8b, 0x03), DEV, 1);
    virt_set(v, VIRT_RFLAGS, RFLAGS_FIXED_1 | RFLAGS_AC);
    assert_advanced(LOAD(DEV + 1, 0x8b, 0x03), 2);
    virt_set(v, VIRT_CR4, CR4_PAE | CR4_SMEP);
    assert_page_fault(LOAD(DEV, 0x8b, 0x03), CODE, 0x11);
    virt_set(v, VIRT_CR4, CR4_PAE);
    *machine_pde(DEV) &= ~(uint64_t)WP;
    assert_page_fault(STORE(DEV + 1, 0x89, 0x03), DEV, 3);
    virt_set(v, VIRT_CR0, CR0_PG | CR0_PE);
    assert_advanced(STORE(DEV + 1, 0x89, 0x03), 2);
}

static void test_accessed_and_dirty(void **state)
{
    assert_advanced(LOAD(DEV + 1, 0x8b, 0x03), 2);
    assert_int_equal(*machine_pde(DEV) & (A | D), A);
    assert_int_equal(*machine_pte(CODE) & (A | D), A);
    assert_advanced(STORE(DEV + 1, 0x89, 0x03), 2);
    assert_int_equal(*machine_pde(DEV) & (A | D), A | D);
    assert_int_equal(*machine_pte(DATA) & (A | D), 0);
}

/* Another CPU changes the entry whenever its accessed flag is to be set: the guest has to try again, and we
 * do not loop. */
static void *(*real_map)(void *ctx, hpa_t page);
static void *restless_map(void *ctx, hpa_t page)
{
    *machine_pde(DEV) += 1ull << 52; /* ignored bits */
    return real_map(ctx, page);
}

static void test_restless_tables(void **state)
{
    real_map = machine.vm.gmem.map;
    machine.vm.gmem.map = restless_map;
    assert_int_equal(LOAD(DEV + 1, 0x8b, 0x03).action, ACTION_RETRY);
    assert_no_access();
    machine.vm.gmem.map = real_map;
    assert_advanced(LOAD(DEV + 1, 0x8b, 0x03), 2);
}

/* Two-level paging, 4 MiB pages. */
static void test_32_bit_paging(void **state)
{
    uint32_t entry = 0 | 0x83, device = (uint32_t)DEV / 0x400000 * 0x400000 | 0x83;
    machine_write(0x40000, &entry, 4);
    machine_write(0x40000 + 4 * (0x30000000 >> 22), &device, 4);
    machine_protected_mode(v);
    virt_set(v, VIRT_CR0, CR0_PE | CR0_PG | CR0_WP);
    virt_set(v, VIRT_CR4, CR4_PSE);
    virt_set(v, VIRT_CR3, 0x40000);
    v->gpr[RBX] = 0x30000000 + DEV % 0x400000;
    assert_advanced(LOAD(DEV + 1, 0x8b, 0x03), 2);
    assert_access(0, false, DEV, 4, 0x04030201);
    assert_int_equal(*machine_ram(0x40000 + 4 * (0x30000000 >> 22)), 0xa3);
    v->gpr[RBX] += 0x400000;
    assert_page_fault(LOAD(DEV + 1, 0x8b, 0x03), v->gpr[RBX], 0);
}

static void test_protected_mode(void **state)
{
    machine_protected_mode(v);
    v->gpr[RBX] = 0xdeadbeef00000000ull | DEV;
    assert_advanced(LOAD(DEV, 0x8b, 0x03), 2);
    assert_access(0, false, DEV, 4, 0x04030201);
    struct seg ds = virt_get_seg(v, SEG_DS);
    ds.limit = (uint32_t)DEV + 2;
    virt_set_seg(v, SEG_DS, &ds);
    assert_fault(LOAD(DEV, 0x8b, 0x03), VECTOR_GP, 0);
    assert_advanced(LOAD(DEV, 0x66, 0x8b, 0x03), 3);
    ds.limit = UINT32_MAX;
    ds.access = 0xc091;
    virt_set_seg(v, SEG_DS, &ds);
    assert_fault(STORE(DEV, 0x89, 0x03), VECTOR_GP, 0);
    assert_advanced(LOAD(DEV, 0x8b, 0x03), 2);
    struct seg cs = virt_get_seg(v, SEG_CS);
    cs.limit = CODE; /* the second byte is beyond the end */
    virt_set_seg(v, SEG_CS, &cs);
    assert_fault(LOAD(DEV, 0x8b, 0x03), VECTOR_GP, 0);
    cs.limit = CODE - 1;
    virt_set_seg(v, SEG_CS, &cs);
    assert_fault(LOAD(DEV, 0x8b, 0x03), VECTOR_GP, 0);
}

/* PAE paging uses the CPU's copies of the PDPTEs, not memory. */
static void test_pae_paging(void **state)
{
    machine_protected_mode(v);
    virt_set(v, VIRT_CR0, CR0_PE | CR0_PG);
    virt_set(v, VIRT_CR4, CR4_PAE);
    virt_set(v, VIRT_CR3, 0x99000);
    for (unsigned i = 0; i < 4; i++)
        virt_set(v, (enum virt_reg)(VIRT_PDPTE0 + i), (MACHINE_TABLES + 0x2000 + i * 0x1000) | 1);
    assert_advanced(LOAD(DEV + 1, 0x8b, 0x03), 2);
    assert_access(0, false, DEV, 4, 0x04030201);
    virt_set(v, VIRT_PDPTE3, 0);
    assert_page_fault(LOAD(DEV + 1, 0x8b, 0x03), DEV, 0);
}

static void test_real_mode(void **state)
{
    machine_real_mode(v);
    struct seg ds = virt_get_seg(v, SEG_DS);
    ds.base = 0xa0000;
    virt_set_seg(v, SEG_DS, &ds);
    v->gpr[RBX] = 0xfff0;
    v->gpr[RAX] = 0;
    assert_advanced(LOAD(0xafff0, 0x8b, 0x07), 2); /* mov ax, [bx] */
    assert_int_equal(v->gpr[RAX], 0xffff);
    v->gpr[RBX] = 0xffff;
    assert_fault(LOAD(0xaffff, 0x8b, 0x07), VECTOR_GP, 0);
}

/* ---- the code at RIP ---- */

static void test_code_faults(void **state)
{
    struct exit exit = fault(DEV, false);
    v->rip = 0x1ffe;
    *machine_pte(0x2000) = 0;
    memcpy(machine_ram(0x1ffe), "\x8b\x83", 2); /* mov eax, [rbx + disp32], and the displacement is missing */
    assert_page_fault(emulate_mmio(v, &exit), 0x2000, 0x10);
    memcpy(machine_ram(0x1ffe), "\x8b\x03", 2); /* complete: the next page is not touched */
    assert_advanced(emulate_mmio(v, &exit), 2);
    map_page(0x2000, DATA);
    memcpy(machine_ram(0x1ffe), "\x8b\x83", 2);
    memcpy(machine_ram(DATA), "\4\0\0\0", 4);
    assert_advanced(emulate_mmio(v, &exit), 6);
    assert_access(1, false, DEV + 4, 4, 0x08070605);
    *machine_pte(0x1000) |= 1ull << 63;
    assert_page_fault(emulate_mmio(v, &exit), 0x1ffe, 0x11);
    v->rip = 0x7fffffffffffull;
    exit = fault(DEV, false);
    assert_page_fault(emulate_mmio(v, &exit), 0x7fffffffffffull, 0x10);
    v->rip = 0x800000000000ull;
    assert_fault(emulate_mmio(v, &exit), VECTOR_GP, 0);
}

/* ---- the place of the last instruction is remembered, and never believed ---- */

/* A kernel's code: only such pages take the short walk that is remembered. */
static void supervisor_code(void)
{
    *machine_pte(v->rip) &= ~4ull;
}

static void test_fetched_again(void **state)
{
    supervisor_code();
    for (unsigned i = 0; i < 5; i++) /* the first marks the tables as accessed, the second remembers them */
        assert_advanced(LOAD(DEV, 0x8b, 0x03), 2);
    assert_int_equal(v->fetched.levels, 4);
    assert_int_equal(count, 5);
    assert_advanced(LOAD(DEV + 4, 0x8b, 0x43, 0x04), 3); /* other code in the same place */
    assert_access(5, false, DEV + 4, 4, 0x08070605);
    static uint8_t
        stale[PAGE_SIZE]; /* what a window of another time or CPU would show: the same instruction */
    memcpy(stale + (v->rip & PAGE_MASK), "\x8b\x43\x04", 3);
    machine_code(v, "\x8b\x03", 2);
    struct exit exit = fault(DEV, false);
    v->cpu->windows_changed++;
    v->fetched.code = stale;
    assert_advanced(emulate_mmio(v, &exit), 2);
    assert_int_equal(v->fetched.levels, 4);
    v->last_insn.decoded = false; /* nothing but the place is remembered */
    assert_advanced(emulate_mmio(v, &exit), 2);
    machine_code(v, "\x8b\x43\x04", 3);
    assert_advanced(emulate_mmio(v, &exit), 3);
    machine_code(v, "\x8b\x03", 2);
    v->fetched.cpu = NULL;
    v->fetched.code = stale;
    assert_advanced(emulate_mmio(v, &exit), 2);
    v->rip += PAGE_SIZE; /* the same offset on another page */
    machine_code(v, "\x8b\x43\x04", 3);
    assert_advanced(emulate_mmio(v, &exit), 3);
    v->rip -= PAGE_SIZE;
    assert_advanced(emulate_mmio(v, &exit), 2);
}

static void test_fetched_from_changed_tables(void **state)
{
    static const uint8_t other[] = {0x8b, 0x43, 0x04}; /* mov eax, [rbx + 4] */
    struct exit exit = fault(DEV, false);
    supervisor_code();
    machine_write(DATA, other, sizeof(other));
    assert_advanced(LOAD(DEV, 0x8b, 0x03), 2);
    assert_advanced(LOAD(DEV, 0x8b, 0x03), 2);
    assert_int_equal(v->fetched.levels, 4);
    map_page(v->rip, DATA);
    supervisor_code();
    assert_advanced(emulate_mmio(v, &exit), 3);
    *machine_pte(v->rip) &= ~0x20ull; /* not accessed: the walk marks it again, as the processor's would */
    assert_advanced(emulate_mmio(v, &exit), 3);
    assert_true(*machine_pte(v->rip) & 0x20);
    uint64_t directory = *machine_pde(v->rip);
    *machine_pde(v->rip) = 0;
    assert_page_fault(emulate_mmio(v, &exit), v->rip, 0x10);
    *machine_pde(v->rip) = directory;
    assert_advanced(emulate_mmio(v, &exit), 3);
    *machine_pte(v->rip) |= 1ull << 63;
    assert_page_fault(emulate_mmio(v, &exit), v->rip, 0x11);
}

static void test_fetched_with_changed_rights(void **state)
{
    struct exit exit = fault(DEV, false);
    struct seg ss = virt_get_seg(v, SEG_SS), kernel = ss;
    supervisor_code();
    assert_advanced(LOAD(DEV, 0x8b, 0x03), 2);
    assert_advanced(LOAD(DEV, 0x8b, 0x03), 2);
    ss.access |= 3 << 5;
    virt_set_seg(v, SEG_SS, &ss);
    assert_page_fault(emulate_mmio(v, &exit), v->rip, 0x15);
    virt_set_seg(v, SEG_SS, &kernel);
    assert_advanced(emulate_mmio(v, &exit), 2);
    assert_advanced(emulate_mmio(v, &exit), 2);
    virt_set(v, VIRT_CR4, virt_get(v, VIRT_CR4) | CR4_SMEP);
    assert_advanced(emulate_mmio(v, &exit), 2);
    assert_advanced(emulate_mmio(v, &exit), 2);
    *machine_pte(v->rip) |= 4; /* a user's page now */
    assert_page_fault(emulate_mmio(v, &exit), v->rip, 0x11);
    *machine_pte(v->rip) &= ~4ull;
    assert_advanced(emulate_mmio(v, &exit), 2);
    virt_set(v, VIRT_CR3, virt_get(v, VIRT_CR3) + 0x40000000); /* tables where there are none */
    assert_true(emulate_mmio(v, &exit).action != ACTION_ADVANCE);
}

static void test_fetched_near_the_end_of_a_page(void **state)
{
    struct exit exit = fault(DEV, false);
    v->rip = 0x1ffe;
    supervisor_code();
    machine_code(v, "\x8b\x03", 2);
    assert_advanced(emulate_mmio(v, &exit), 2);
    assert_advanced(emulate_mmio(v, &exit), 2);
    machine_code(v, "\x8b\x83\4\0\0\0", 6); /* runs into the next page */
    assert_advanced(emulate_mmio(v, &exit), 6);
    assert_access(2, false, DEV + 4, 4, 0x08070605);
}

static void test_unknown_instruction(void **state)
{
    for (unsigned i = 0; i < 7; i++) {
        assert_int_equal(LOAD(DEV, 0x0f, 0x58, 0x03, 0xf4).action, ACTION_RETRY); /* addps xmm0, [rbx] */
        v->exits[EXIT_NESTED_FAULT] += 4;                                         /* an interrupt's handler */
    }
    assert_int_equal(fake_host.log_lines, 0);
    assert_stop(LOAD(DEV, 0x0f, 0x58, 0x03, 0xf4)); /* it is still there */
    assert_true(fake_host_logged("test/0: ERROR: cannot emulate the instruction at 1000"));
    assert_true(fake_host_logged("0f 58 03 f4"));
    assert_no_access();
    struct exit exit = io_exit(DEV_PORT, 1, false);
    assert_stop(handle_io(v, &exit));
}

/* The guest's debugger puts a breakpoint where another CPU has just exited: the guest takes it itself. */
static void test_breakpoint_under_us(void **state)
{
    assert_int_equal(LOAD(DEV, 0xcc).action, ACTION_RETRY);
    assert_advanced(LOAD(DEV, 0x8b, 0x03), 2); /* removed again */
    v->rip = 0x1100;
    assert_int_equal(LOAD(DEV, 0xcc).action, ACTION_RETRY);
    assert_int_equal(fake_host.log_lines, 0);
}

/* Two CPUs that race for ever: an instruction that was in order in between starts the count anew. */
static void test_code_that_keeps_changing(void **state)
{
    for (unsigned i = 0; i < 100; i++) {
        v->rip = 0x1000;
        assert_int_equal(LOAD(DEV, 0x0f, 0xa2).action, ACTION_RETRY);
        v->exits[EXIT_NESTED_FAULT] += 3;
        v->exits[EXIT_IO] += 2;
    }
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(LOAD(DEV, 0x0f, 0xa2).action, ACTION_RETRY);
    v->rip = 0x1100; /* another place */
    for (unsigned i = 0; i < 7; i++)
        assert_int_equal(LOAD(DEV, 0x0f, 0xa2).action, ACTION_RETRY);
    assert_int_equal(fake_host.log_lines, 0);
    assert_stop(LOAD(DEV, 0x0f, 0xa2));
}

static void test_undefined_instruction(void **state)
{
    struct exit_result r = LOAD(DEV, 0xf0, 0x8b, 0x03); /* lock mov */
    assert_int_equal(r.action, ACTION_INJECT);
    assert_int_equal(r.event_vector, VECTOR_UD);
    assert_false(r.event_has_error);
    assert_no_access();
}

static void test_instruction_without_memory(void **state)
{
    assert_int_equal(LOAD(DEV, 0x8b, 0xc3).action, ACTION_RETRY); /* mov eax, ebx: changed under us */
    assert_int_equal(v->gpr[RAX], 0);
    assert_no_access();
}

static void test_lost_tables(void **state)
{
    virt_set(v, VIRT_CR3, 0x200000);
    assert_stop(LOAD(DEV, 0x8b, 0x03));
    assert_true(fake_host_logged("page table outside memory, entry at 200000, for linear 1000"));
    setup(NULL);
    *machine_pde(DEV) = MACHINE_NOTHING | 7;
    assert_stop(LOAD(DEV + 1, 0x8b, 0x03));
    setup(NULL);
    map_page(CODE, MACHINE_NOTHING);
    assert_stop(LOAD(DEV, 0x8b, 0x03));
    assert_true(fake_host_logged("code outside memory, at guest-physical d0000000"));
}

/* ---- reports ---- */

static void test_peek(void **state)
{
    uint8_t bytes[16];
    machine_code(v, BYTES(1, 2, 3, 4, 5));
    assert_int_equal(emulate_peek_code(v, bytes, sizeof(bytes)), 16);
    assert_memory_equal(bytes, "\1\2\3\4\5\0", 6);
    assert_int_equal(*machine_pte(CODE) & (A | D), 0);
    v->rip = 0x1ffe;
    *machine_pte(0x2000) = 0;
    assert_int_equal(emulate_peek_code(v, bytes, sizeof(bytes)), 2);
    map_page(0x2000, MACHINE_NOTHING);
    assert_int_equal(emulate_peek_code(v, bytes, sizeof(bytes)), 2);
    v->rip = 0x900000000000ull;
    assert_int_equal(emulate_peek_code(v, bytes, sizeof(bytes)), 0);
    assert_int_equal(virt_get(v, VIRT_CR2), 0);
    assert_int_equal(fake_host.log_lines, 0);
}

/* A report shows the code of user mode too, whatever protects the kernel from it. */
static void test_peek_user_code(void **state)
{
    uint8_t bytes[4];
    machine_user(v);
    virt_set(v, VIRT_CR4, CR4_PAE | CR4_SMAP | CR4_SMEP | CR4_PKE);
    virt_set(v, VIRT_PKRU, 3);
    assert_int_equal(emulate_peek_code(v, bytes, sizeof(bytes)), 4);
}

static void test_peek_real_mode(void **state)
{
    uint8_t bytes[2];
    machine_real_mode(v);
    struct seg cs = virt_get_seg(v, SEG_CS);
    cs.base = 0xffff0000;
    virt_set_seg(v, SEG_CS, &cs);
    v->rip = 0xfff0;
    assert_int_equal(emulate_peek_code(v, bytes, sizeof(bytes)), 0); /* the reset vector: no ROM there */
    v->rip = 0x11000;                                                /* linear wraps at 4 GiB */
    assert_int_equal(emulate_peek_code(v, bytes, sizeof(bytes)), 2);
}

/* ---- nested faults ---- */

static void test_nested_faults(void **state)
{
    static struct ept_model tables;
    assert_true(ept_model_init(&tables, true, false, 5));
    tables.env.store = NULL;
    struct ept *ept = &v->vm->ept;
    *ept = tables.ept;
    ept->nx_large = true;
    assert_int_equal(ept_map(ept, gpa(0), hpa(0), 2 * SIZE_2M, EPT_READ | EPT_WRITE | EPT_EXEC, EPT_WB),
                     STATUS_OK);
    struct exit exit = fault(DEV, false);
    machine_code(v, BYTES(0x8b, 0x03));
    assert_advanced(handle_nested_fault(v, &exit), 2);
    exit.u.nested.fetch = true;
    exit.u.nested.address = gpa(0x1234); /* in a large page, which is not executable yet */
    assert_int_equal(handle_nested_fault(v, &exit).action, ACTION_RETRY);
    exit.u.nested.address = gpa(SIZE_2M);
    tables.limit = tables.in_use;
    assert_int_equal(handle_nested_fault(v, &exit).stop, STOP_GUEST_MEMORY);
    assert_true(fake_host_logged("own memory is used up"));
    exit.u.nested.address = gpa(DEV);
    assert_stop(handle_nested_fault(v, &exit));
    assert_int_equal(v->vm->devices.next, v->vm->devices.serving);
    tables.ept = *ept;
    ept_model_free(&tables);
    assert_true(fake_host_logged("code was fetched at guest-physical d1000000, where no memory is"));
    exit = fault(DEV, false);
    exit.u.nested.during_walk = true;
    assert_stop(handle_nested_fault(v, &exit));
    assert_true(fake_host_logged("a page table was looked for at guest-physical d1000000"));
    assert_int_equal(count, 1);
    struct exit_result r = handle_nested_misconfig(v, &exit);
    assert_int_equal(r.action, ACTION_STOP);
    assert_int_equal(r.stop, STOP_GUEST_MEMORY);
    assert_true(fake_host_logged("EPT misconfiguration at guest-physical d1000000"));
}

/* The access was made by the delivery of an event, not by the instruction at RIP, which has not begun. */
static void test_nested_fault_while_delivering(void **state)
{
    struct exit exit = fault(DEV, true);
    exit.vectoring = (struct event){.valid = true, .type = EVENT_EXTERNAL_INTERRUPT, .vector = 0x30};
    machine_code(v, BYTES(0x89, 0x03));
    assert_stop(handle_nested_fault(v, &exit));
    assert_no_access();
    assert_true(fake_host_logged("vector 48"));
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_loads),
        T(test_stores),
        T(test_translation_of_the_exit),
        T(test_addressing),
        T(test_segments_that_count),
        T(test_local_apic),
        T(test_local_apic_elsewhere),
        T(test_ioapic_and_ecam),
        T(test_nothing_there),
        T(test_read_modify_write),
        T(test_read_modify_write_of_read_only_page),
        T(test_crossing_load),
        T(test_crossing_store),
        T(test_crossing_into_a_fault),
        T(test_movs_to_device),
        T(test_movs_from_device),
        T(test_movs_faults_on_the_way),
        T(test_string_segments),
        T(test_stos_lods),
        T(test_scas_cmps),
        T(test_long_string),
        T(test_16_bit_string_wraps),
        T(test_outs),
        T(test_ins),
        T(test_string_io_runs),
        T(test_string_io_is_broken_off),
        T(test_string_io_to_rom),
        T(test_changed_string_io),
        T(test_push),
        T(test_pop),
        T(test_stack_widths),
        T(test_data_faults),
        T(test_user_rights),
        T(test_supervisor_rights),
        T(test_accessed_and_dirty),
        T(test_restless_tables),
        T(test_32_bit_paging),
        T(test_protected_mode),
        T(test_pae_paging),
        T(test_real_mode),
        T(test_code_faults),
        T(test_fetched_again),
        T(test_fetched_from_changed_tables),
        T(test_fetched_with_changed_rights),
        T(test_fetched_near_the_end_of_a_page),
        T(test_unknown_instruction),
        T(test_breakpoint_under_us),
        T(test_code_that_keeps_changing),
        T(test_undefined_instruction),
        T(test_instruction_without_memory),
        T(test_lost_tables),
        T(test_peek),
        T(test_peek_user_code),
        T(test_peek_real_mode),
        T(test_nested_faults),
        T(test_nested_fault_while_delivering),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
