/* Any code, registers, page tables and exits into the emulation of device accesses. What must hold: it comes
 * back after a bounded number of accesses; only the guest's RAM is touched, and only where the instruction
 * writes (the map of the fake aborts on anything else); an answer is one of the four, with the length of the
 * instruction that stood there; and an instruction that faults has changed nothing and read no device, but
 * for the elements of a string that came before. */
#include <stdlib.h>
#include <string.h>

#include "arch/x86/cpu.h"
#include "arch/x86/guest_walk.h"
#include "arch/x86/msr.h"
#include "hv/exits/exit_table.h"
#include "hv/guest/layout.h"
#include "tests/fuzz/fuzz_memory.h"
#include "tests/host/fake_host.h"
#include "tests/host/fake_vdev_env.h"
#include "tests/host/fake_virt.h"
#include "tests/host/machine.h"

#define DEV       0xd1000000ull
#define DEV_SIZE  0x2000ull
#define DEV_PORT  0x3000u
#define DEV_PORTS 8u
#define CODE      0x1000ull
#define DATA      0x20000ull
#define STEPS     4u
#define BATCH     1024u /* elements of a string in one exit, at most */

#define CROSS 0x30000ull /* linear: devices beside pages that fault */

#define ENTRY_ALL      7u /* present, writable, user */
#define ENTRY_WRITABLE 2u

static unsigned dev_reads, dev_writes;

/* ---- a device that checks what it is asked ---- */

static void dev_none(struct vdev *dev)
{
}

static void dev_access(struct vdev *dev, struct io_req *req)
{
    bool port = req->addr < BUS_PORTS;
    FAKE_REQUIRE(req->size == 1 || req->size == 2 || req->size == 4 || (req->size == 8 && !port));
    FAKE_REQUIRE(port ? req->addr >= DEV_PORT && req->addr + req->size <= DEV_PORT + DEV_PORTS
                      : req->addr >= DEV && req->addr + req->size <= DEV + DEV_SIZE);
    if (req->write) {
        FAKE_REQUIRE(req->value <= vdev_all_ones(req->size));
        dev_writes++;
    } else {
        req->value = 0x8182838485868788ull & vdev_all_ones(req->size);
        dev_reads++;
    }
}

static const struct vdev_ops dev_ops = {
    .name = "test", .init = dev_none, .reset = dev_none, .access = dev_access};
static struct vdev dev = {.ops = &dev_ops, .deadline_ns = VDEV_NEVER};

static void init_once(void)
{
    static bool done;
    if (done)
        return;
    done = true;
    machine_init(1);
    FAKE_REQUIRE(bus_add_mmio(&machine.vm.bus, DEV, DEV_SIZE, &dev) == STATUS_OK);
    FAKE_REQUIRE(bus_add_ports(&machine.vm.bus, DEV_PORT, DEV_PORTS, &dev) == STATUS_OK);
    /* Places where a device and a fault meet. */
    *machine_pte(CROSS) = DEV | ENTRY_ALL;
    *machine_pte(CROSS + 0x1000) = 0;
    *machine_pte(CROSS + 0x2000) = (DEV + 0x1000) | ENTRY_ALL;
    *machine_pte(CROSS + 0x3000) = DATA | (ENTRY_ALL & ~ENTRY_WRITABLE);
    *machine_pte(CROSS + 0x4000) = DEV | ENTRY_ALL;
    *machine_pte(CROSS + 0x5000) = MACHINE_NOTHING | ENTRY_ALL;
    memory_watch();
}

static void restore(void)
{
    memory_restore();
    struct vcpu *v = &machine.vcpus[0];
    platform_reset(&machine.vm);
    lapic_reset(&v->lapic);
    memset(&v->last_insn, 0, sizeof(v->last_insn));
    memset(&machine.vm.bus.mmio_seen, 0, sizeof(machine.vm.bus.mmio_seen));
    machine.vm.state = VM_RUNNING;
    v->requests = 0;
    fake_host.log_size = fake_host.tx_size = 0;
}

/* ---- the world of one step ---- */

static uint64_t address(struct fake_input *in)
{
    static const uint64_t places[] = {
        DEV,
        DEV + 0x1000,
        DEV + DEV_SIZE,
        MACHINE_NOTHING,
        GUEST_LAPIC,
        GUEST_IOAPIC,
        GUEST_ECAM,
        DATA,
        0xa0000,
        MACHINE_HOLE_END,
        MACHINE_TABLES,
        CROSS + 0x1000,
        CROSS + 0x3000,
        CROSS + 0x5000,
        0x100000000,
        0x800000000000,
        0xffff800000000000,
        CODE,
        0x8000,
        0,
        0x40000000,
        CROSS + 0x1000,
        CROSS + 0x3000,
    };
    uint8_t kind = fake_input_u8(in);
    if (kind >= 240)
        return fake_input_u64(in);
    return places[kind % ARRAY_SIZE(places)] + (uint64_t)(int64_t)(int8_t)fake_input_u8(in);
}

static void choose_mode(struct fake_input *in, struct vcpu *v)
{
    uint8_t flags = fake_input_u8(in);
    uint64_t cr4 = 0;
    switch (fake_input_u8(in) % 6) {
    case 0:
        machine_real_mode(v);
        break;
    case 1:
        machine_protected_mode(v);
        break;
    case 2: /* PAE paging */
        machine_protected_mode(v);
        virt_set(v, VIRT_CR0, CR0_PE | CR0_PG | CR0_WP);
        cr4 = CR4_PAE;
        for (unsigned i = 0; i < 4; i++)
            virt_set(v, (enum virt_reg)(VIRT_PDPTE0 + i),
                     (MACHINE_TABLES + 0x2000 + i * 0x1000) | (flags >> i & 1));
        break;
    default:
        machine_long_mode(v);
        cr4 = CR4_PAE;
        break;
    }
    cr4 |= (flags & 0x08 ? CR4_OSFXSR : 0) | (flags & 0x10 ? CR4_SMAP : 0) | (flags & 0x20 ? CR4_SMEP : 0) |
           (flags & 0x40 ? CR4_PKE : 0);
    virt_set(v, VIRT_CR4, cr4);
    virt_set(v, VIRT_PKRU, fake_input_u8(in));
    if (flags & 0x80)
        machine_user(v);
    uint8_t segment = fake_input_u8(in);
    if (segment & 0x80) { /* one segment is special */
        enum seg_name name = (enum seg_name)(segment % 6);
        struct seg seg = virt_get_seg(v, name);
        seg.base = name == SEG_CS ? 0 : address(in);
        seg.limit = (uint32_t)address(in);
        seg.access ^= (uint32_t)fake_input_u8(in) & 0x0f;
        virt_set_seg(v, name, &seg);
    }
}

static void choose_tables(struct fake_input *in)
{
    uint8_t n = fake_input_u8(in) % 4;
    for (unsigned i = 0; i < n; i++) {
        uint64_t entry = (address(in) & ~PAGE_MASK) | fake_input_u8(in);
        uint64_t linear = address(in), at;
        if (fake_input_u8(in) & 1)
            entry |= (uint64_t)fake_input_u8(in) << 56;
        switch (fake_input_u8(in) % 3) {
        case 0:
            at = MACHINE_TABLES + 0x6000 + 8 * (linear >> PAGE_SHIFT & 511);
            break;
        case 1:
            at = MACHINE_TABLES + 0x2000 + 8 * (linear / SIZE_2M & 2047);
            break;
        default:
            at = MACHINE_TABLES + 8 * (linear & 0x3ff); /* anywhere in the upper levels */
            break;
        }
        memory_poke(at, &entry, sizeof(entry));
    }
}

static struct exit choose_exit(struct fake_input *in, const struct vcpu *v)
{
    uint8_t flags = fake_input_u8(in);
    struct exit exit = {.kind = EXIT_NESTED_FAULT};
    exit.u.nested.address = gpa(address(in));
    exit.u.nested.linear = gva(address(in));
    exit.u.nested.linear_valid = flags & 1;
    if (flags & 1) /* one place has one offset in its page */
        exit.u.nested.address.v =
            (exit.u.nested.address.v & ~PAGE_MASK) | (exit.u.nested.linear.v & PAGE_MASK);
    exit.u.nested.write = flags & 2;
    exit.u.nested.read = !(flags & 2);
    if (flags & 0x80) {
        exit = (struct exit){.kind = EXIT_IO};
        exit.u.io = (struct exit_io){.port = flags & 0x40 ? (uint16_t)v->gpr[RDX] : DEV_PORT,
                                     .size = (uint8_t)(1u << (flags % 3)),
                                     .write = flags & 4,
                                     .string = true};
    }
    return exit;
}

/* ---- what must hold ---- */

struct shot {
    uint64_t gpr[16];
    uint64_t rip, rsp, rflags, cr2;
};

static struct shot take_shot(struct vcpu *v)
{
    struct shot s = {.rip = virt_get(v, VIRT_RIP),
                     .rsp = virt_get(v, VIRT_RSP),
                     .rflags = virt_get(v, VIRT_RFLAGS),
                     .cr2 = virt_get(v, VIRT_CR2)};
    memcpy(s.gpr, v->gpr, sizeof(s.gpr));
    s.gpr[RSP] = s.rsp;
    return s;
}

/* The instruction at RIP, or length 0 when there is none that is emulated. The test puts code into RAM that
 * is mapped one to one, or changes the mapping: then the emulation's own copy is believed. */
static struct insn decode(struct vcpu *v)
{
    struct insn none = {0};
    return v->last_insn.decoded ? v->last_insn.insn : none;
}

/* Elements of a string instruction still to do. */
static uint64_t elements(const struct insn *in, const struct shot *shot)
{
    struct insn_regs regs = {.rflags = 0};
    memcpy(regs.gpr, shot->gpr, sizeof(regs.gpr));
    return insn_string_count(in, &regs);
}

static void check_kept_instruction(struct vcpu *v)
{
    const struct guest_insn *kept = &v->last_insn;
    struct insn again;
    FAKE_REQUIRE(kept->count <= INSN_MAX_LEN);
    if (!kept->decoded)
        return;
    FAKE_REQUIRE(insn_decode((struct span){kept->bytes, kept->count}, (enum insn_mode)kept->mode, &again) ==
                 STATUS_OK);
    /* TZCNT and LZCNT are BSF and BSR to a processor that lacks them. */
    bool scan = again.op == INSN_TZCNT || again.op == INSN_LZCNT;
    FAKE_REQUIRE(again.length == kept->insn.length && again.opsize == kept->insn.opsize);
    FAKE_REQUIRE(again.op == kept->insn.op || (scan && kept->insn.op == again.op - INSN_TZCNT + INSN_BSF));
}

/* May it find only in what it has read that it cannot be completed? */
static bool reads_first(const struct insn *in)
{
    return in->length && (in->op == INSN_DIV || in->op == INSN_IDIV || in->op >= INSN_PUSH);
}

static void check_unchanged(const struct shot *was, const struct shot *now, const struct insn *in)
{
    FAKE_REQUIRE(memcmp(was->gpr, now->gpr, sizeof(was->gpr)) == 0 && was->rflags == now->rflags);
    FAKE_REQUIRE((dev_reads == 0 || reads_first(in)) && dev_writes == 0);
    FAKE_REQUIRE(memory_changed() == 0);
}

static bool is_branch(const struct insn *in)
{
    return in->length && in->op >= INSN_CALL && in->op <= INSN_JMP_FAR && in->op != INSN_ENTER &&
           in->op != INSN_LEAVE;
}

static void check_fault(const struct insn *in, struct exit_result r)
{
    static const uint32_t errors =
        1u << VECTOR_NP | 1u << VECTOR_SS | 1u << VECTOR_GP | 1u << VECTOR_PF | 1u << VECTOR_TS;
    static const uint32_t rare = 1u << VECTOR_DE | 1u << VECTOR_NM | 1u << VECTOR_NP | 1u << VECTOR_MF;
    uint32_t plain = 1u << VECTOR_PF | 1u << VECTOR_GP | 1u << VECTOR_SS | 1u << VECTOR_UD;
    FAKE_REQUIRE(r.event_type == EVENT_EXCEPTION && r.event_vector < 32);
    FAKE_REQUIRE(1u << r.event_vector & (reads_first(in) ? plain | rare : plain));
    FAKE_REQUIRE(r.event_has_error == !!(1u << r.event_vector & errors));
    if (r.event_vector == VECTOR_PF)
        FAKE_REQUIRE(r.event_error < 0x40);
    else if (!reads_first(in))
        FAKE_REQUIRE(r.event_error == 0);
}

static void check_step(struct vcpu *v, const struct shot *was, struct exit_result r)
{
    struct shot now = take_shot(v);
    struct insn in = decode(v);
    bool string = in.length && insn_is_string(&in);
    bool same_registers = memcmp(was->gpr, now.gpr, sizeof(was->gpr)) == 0;
    bool loads_ss = in.length && in.op == INSN_LOAD_SEG && in.dst.reg == INSN_SS && r.action == ACTION_RETRY;
    FAKE_REQUIRE(now.rip == was->rip || loads_ss); /* only vcpu_apply_result() moves it */
    FAKE_REQUIRE(v->rip == was->rip || (is_branch(&in) && r.action == ACTION_ADVANCE));
    FAKE_REQUIRE(((was->rflags ^ now.rflags) & ~(uint64_t)0x8d5) == 0); /* the status flags */
    FAKE_REQUIRE(dev_reads + dev_writes <= (string ? BATCH * 16 : reads_first(&in) ? 64 : 16));
    FAKE_REQUIRE(!string || elements(&in, was) - elements(&in, &now) <= BATCH);
    switch (r.action) {
    case ACTION_ADVANCE:
        FAKE_REQUIRE(in.length && r.length == in.length);
        FAKE_REQUIRE(string || memory_changed() <= (reads_first(&in) ? 17 : 8));
        FAKE_REQUIRE(now.cr2 == was->cr2);
        break;
    case ACTION_RETRY:
        FAKE_REQUIRE(now.cr2 == was->cr2);
        if (loads_ss)
            break;
        if (!string || same_registers)
            check_unchanged(was, &now, &in);
        else /* it comes on */
            FAKE_REQUIRE(elements(&in, &now) < elements(&in, was));
        break;
    case ACTION_INJECT:
        check_fault(&in, r);
        FAKE_REQUIRE(r.event_vector == VECTOR_PF || now.cr2 == was->cr2);
        if (!string || same_registers)
            check_unchanged(was, &now, &in);
        break;
    default:
        FAKE_REQUIRE(r.action == ACTION_STOP && r.stop == STOP_BAD_INSTRUCTION);
        FAKE_REQUIRE(fake_host.log_size > 0);
        if (!string || same_registers)
            check_unchanged(was, &now, &in);
        break;
    }
}

static void step(struct fake_input *in, struct vcpu *v)
{
    uint8_t code[16];
    uint8_t changes = fake_input_u8(in);
    if (changes & 1)
        choose_mode(in, v);
    if (changes & 2)
        choose_tables(in);
    for (unsigned i = 0; i < 16; i++) {
        if (i == RBX || i == RSI || i == RDI || i == RBP || i == R8)
            v->gpr[i] = address(in);
        else
            v->gpr[i] = i == RCX   ? fake_input_u8(in) << (changes >> 5)
                        : i == RDX ? DEV_PORT + (changes >> 2 & 3)
                                   : i * 17;
    }
    virt_set(v, VIRT_RSP, changes & 4 ? address(in) : 0x8000);
    uint64_t flags = fake_input_u64(in) & (RFLAGS_CF | RFLAGS_ZF | RFLAGS_DF | RFLAGS_AC | RFLAGS_OF);
    virt_set(v, VIRT_RFLAGS, RFLAGS_FIXED_1 | flags);
    v->rip = changes & 8 ? 0x2000 - (fake_input_u8(in) & 15) : CODE;
    if (changes & 16 && v->cpu)
        v->rip = address(in);
    virt_set(v, VIRT_RIP, v->rip);
    for (unsigned i = 0; i < sizeof(code); i++)
        code[i] = fake_input_u8(in);
    memory_poke(v->rip, code, sizeof(code));
    struct exit exit = choose_exit(in, v);

    fake_host.log_size = 0;
    dev_reads = dev_writes = 0;
    memory_remember();
    struct shot was = take_shot(v);
    struct exit_result r = exit.kind == EXIT_IO ? handle_io(v, &exit) : handle_nested_fault(v, &exit);
    check_kept_instruction(v);
    check_step(v, &was, r);
    memory_remember();
    dev_reads = dev_writes = 0;
    was = take_shot(v);
    uint8_t shown[16];
    FAKE_REQUIRE(emulate_peek_code(v, shown, sizeof(shown)) <= sizeof(shown));
    struct shot now = take_shot(v);
    check_unchanged(&was, &now, &(struct insn){0});
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fake_input in = {.data = data, .size = size};
    struct vcpu *v = &machine.vcpus[0];
    init_once();
    restore();
    machine_long_mode(v);
    for (unsigned i = 0; i < STEPS && fake_input_left(&in); i++)
        step(&in, v);
    FAKE_REQUIRE(machine_guards_intact());
    FAKE_REQUIRE(machine.vm.devices.next == machine.vm.devices.serving);
    return 0;
}
