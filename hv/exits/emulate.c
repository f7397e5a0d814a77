#include "hv/exits/emulation.h"
#include "arch/x86/cpu.h"
#include "arch/x86/msr.h"
#include "arch/x86/virt.h"
#include "hv/lib/bits.h"
#include "hv/lib/log.h"
#include "hv/lib/string.h"
#include "hv/pc/flash.h"
#include "hv/vm.h"

/* Elements of a string instruction done per exit; then the guest re-enters, so that interrupts get their
 * turn. */
#define STRING_BATCH 1024u
/* Bytes of a string instruction's port accesses that are done as one: a disk's sector. */
#define PORT_RUN 512u

/* An instruction that is not known stops the VM when it is refused for this time in a row ... */
#define REFUSALS 8u
/* ... with at most so many exits from one to the next. */
#define REFUSALS_APART 4u

#define CPUID_EXT1_EDX_1G_PAGES (1u << 26)

static bool read_entry(void *ctx, gpa_t at, void *entry, size_t size)
{
    struct emulation *e = ctx;
    const void *window = gmem_window(&e->vcpu->vm->gmem, at, size);
    if (!window)
        return false;
    if (size == sizeof(uint64_t)) {
        *(uint64_t *)entry = *(const volatile uint64_t *)window;
        if (e->memo)
            fetch_memo_entry(e->memo, window, *(uint64_t *)entry);
    } else
        *(uint32_t *)entry = *(const volatile uint32_t *)window;
    return true;
}

static enum status swap_entry(void *ctx, gpa_t at, uint64_t old, uint64_t new_value, size_t size)
{
    struct emulation *e = ctx;
    uint64_t found;
    enum status s = gmem_cmpxchg(&e->vcpu->vm->gmem, at, (unsigned)size, old, new_value, &found);
    if (s != STATUS_OK)
        return s;
    return found == old ? STATUS_OK : ERR_EXISTS;
}

/* Linear to guest-physical. False: e->failure says what to do. */
static bool translate(struct emulation *e, gva_t linear, enum walk_access access, gpa_t *out)
{
    struct walk_env env = {.ctx = e, .read = read_entry, .cmpxchg = swap_entry};
    struct walk_request request = {.linear = linear, .access = (uint8_t)access, .user = e->user};
    struct walk_result result;
    switch (guest_walk(&env, &e->paging, &request, &result)) {
    case WALK_OK:
        *out = result.address;
        return true;
    case WALK_FAULT:
        virt_set(e->vcpu, VIRT_CR2, result.cr2.v);
        e->failure = exit_inject_error(VECTOR_PF, result.error);
        return false;
    case WALK_NONCANONICAL:
        e->failure = exit_inject_error(VECTOR_GP, 0);
        return false;
    case WALK_RETRY:
        e->failure = exit_retry();
        return false;
    default:
        log_vcpu(LOG_ERROR, e->vcpu, "page table outside memory, entry at %llx, for linear %llx",
                 (unsigned long long)result.table.v, (unsigned long long)linear.v);
        e->failure = exit_stop(STOP_BAD_INSTRUCTION);
        return false;
    }
}

static bool fetch_bytes(void *ctx, gva_t linear, void *bytes, size_t size)
{
    struct emulation *e = ctx;
    gpa_t at;
    const struct cpu *cpu = e->vcpu->cpu;
    e->memo = &e->vcpu->fetched;
    fetch_memo_begin(e->memo, cpu);
    bool found = translate(e, linear, WALK_FETCH, &at);
    const uint8_t *window = found ? gmem_window(&e->vcpu->vm->gmem, at, size) : NULL;
    if (window)
        fetch_memo_end(e->memo, cpu, linear.v, window, &e->paging, e->user);
    else
        e->memo->levels = 0;
    e->memo = NULL;
    if (!found)
        return false;
    if (window && size >= 8 && size <= 16) { /* two loads that overlap: nearly always */
        uint64_t first, last;
        memcpy(&first, window, sizeof(first));
        memcpy(&last, window + size - sizeof(last), sizeof(last));
        memcpy(bytes, &first, sizeof(first));
        memcpy((uint8_t *)bytes + size - sizeof(last), &last, sizeof(last));
        return true;
    }
    if (gmem_read(&e->vcpu->vm->gmem, at, bytes, size) == STATUS_OK)
        return true;
    log_vcpu(LOG_ERROR, e->vcpu, "code outside memory, at guest-physical %llx", (unsigned long long)at.v);
    e->failure = exit_stop(STOP_BAD_INSTRUCTION);
    return false;
}

void emulation_stop(struct emulation *e, const char *why)
{
    char text[3 * INSN_MAX_LEN + 1] = "";
    for (unsigned i = 0; i < e->code->count; i++) {
        static const char digits[] = "0123456789abcdef";
        text[3 * i] = digits[e->code->bytes[i] >> 4];
        text[3 * i + 1] = digits[e->code->bytes[i] & 15];
        text[3 * i + 2] = ' ';
        text[3 * i + 3] = 0;
    }
    log_vcpu(LOG_ERROR, e->vcpu, "cannot emulate the instruction at %llx: %s: %s",
             (unsigned long long)e->vcpu->rip, why, text);
    e->failure = exit_stop(STOP_BAD_INSTRUCTION);
}

void emulation_begin(struct emulation *e, struct vcpu *vcpu)
{
    uint64_t cr0 = virt_get(vcpu, VIRT_CR0);
    uint64_t cr4 = virt_get(vcpu, VIRT_CR4);
    uint64_t efer = virt_get(vcpu, VIRT_EFER);
    uint64_t rflags = virt_get(vcpu, VIRT_RFLAGS);
    e->vcpu = vcpu;
    e->cs = (struct seg){.access = virt_get_seg_access(vcpu, SEG_CS)};
    e->mode = guest_mode(cr0, efer, rflags, e->cs.access);
    /* In 64-bit mode neither base nor limit counts, and each field costs a VMREAD. */
    if (e->mode != GUEST_MODE_LONG)
        e->cs = virt_get_seg(vcpu, SEG_CS);
    e->user = (virt_get_seg_access(vcpu, SEG_SS) >> 5 & 3) == 3;
    e->code = &vcpu->last_insn;
    e->fault = NULL;
    e->memo = NULL;
    e->paging.cr0 = cr0;
    e->paging.cr3 = virt_get(vcpu, VIRT_CR3);
    e->paging.cr4 = cr4;
    e->paging.efer = efer;
    e->paging.rflags = rflags;
    e->paging.pkru = cr4 & CR4_PKE ? (uint32_t)virt_get(vcpu, VIRT_PKRU) : 0;
    e->paging.maxphyaddr = vcpu->vm->cpuid.phys_bits;
    e->paging.has_1g = vcpu->vm->cpuid.ext[1].edx & CPUID_EXT1_EDX_1G_PAGES;
    if ((cr4 & CR4_PAE) && !(efer & EFER_LMA)) {
        for (unsigned i = 0; i < 4; i++)
            e->paging.pdpte[i] = virt_get(vcpu, (enum virt_reg)(VIRT_PDPTE0 + i));
    }
    memcpy(e->regs.gpr, vcpu->gpr, sizeof(e->regs.gpr));
    e->regs.gpr[RSP] = virt_get(vcpu, VIRT_RSP);
    e->regs.rip = vcpu->rip;
    e->regs.rflags = rflags;
}

/* The common case: the same instruction as last time in the same place, all of it on one page. */
static bool is_fetched(struct emulation *e)
{
    uint64_t rip = e->vcpu->rip;
    if (e->mode != GUEST_MODE_LONG || (rip & PAGE_MASK) > PAGE_SIZE - sizeof(e->code->bytes))
        return false;
    const uint8_t *page = fetch_memo_find(&e->vcpu->fetched, e->vcpu->cpu, rip, &e->paging, e->user);
    return page && guest_same_insn(e->code, INSN_MODE_64, page + (rip & PAGE_MASK));
}

/* Another CPU may just have patched the code (a breakpoint in the place of a MOV, say), and may do so again
 * and again: only what exits at the same place many times, with nothing but an interrupt's handler in
 * between, is really unknown. */
static bool may_be_changing(struct vcpu *vcpu)
{
    uint64_t now = vcpu->exits[EXIT_NESTED_FAULT] + vcpu->exits[EXIT_IO];
    bool again = vcpu->refused_rip == vcpu->rip && now - vcpu->refused_at <= REFUSALS_APART;
    vcpu->refusals = again ? vcpu->refusals + 1 : 1;
    vcpu->refused_rip = vcpu->rip;
    vcpu->refused_at = now;
    return vcpu->refusals < REFUSALS;
}

/* A processor without TZCNT and LZCNT takes them for BSF and BSR (SDM volume 2). */
static void settle_scan(struct emulation *e)
{
    const struct cpuid_table *cpuid = &e->vcpu->vm->cpuid;
    struct insn *in = &e->code->insn;
    if (in->op == INSN_TZCNT && !(cpuid->features[0].ebx & CPUID_07_EBX_BMI1))
        in->op = INSN_BSF;
    else if (in->op == INSN_LZCNT && !(cpuid->ext[1].ecx & CPUID_80000001_ECX_LZCNT))
        in->op = INSN_BSR;
}

/* Fetches and decodes the instruction at RIP. False: e->failure says what to do. */
static bool fetch(struct emulation *e)
{
    if (__builtin_expect(is_fetched(e), 1))
        return true;
    struct guest_fetch env = {.ctx = e, .read = fetch_bytes};
    uint64_t rip = e->vcpu->rip;
    gva_t linear = gva(e->mode == GUEST_MODE_LONG ? rip : (uint32_t)(e->cs.base + rip));
    uint64_t room = guest_code_room(e->mode, &e->cs, rip, INSN_MAX_LEN);
    switch (guest_fetch_insn(&env, e->mode, guest_insn_mode(e->mode, e->cs.access), linear, room, e->code)) {
    case STATUS_OK:
        if (e->code->insn.op == INSN_TZCNT || e->code->insn.op == INSN_LZCNT)
            settle_scan(e);
        return true;
    case ERR_NOT_FOUND: /* fetch_bytes has set e->failure */
        return false;
    case ERR_RANGE:
        e->failure = exit_inject_error(VECTOR_GP, 0);
        return false;
    case ERR_INVALID:
        e->failure = exit_inject(VECTOR_UD);
        return false;
    default:
        if (e->fault && e->fault->write && flash_take_write(e->vcpu->vm, e->fault->address)) {
            e->failure = exit_retry();
            return false;
        }
        if (may_be_changing(e->vcpu)) {
            e->failure = exit_retry();
            return false;
        }
        emulation_stop(e, "not an instruction that Bulkhead emulates");
        return false;
    }
}

/* Puts the registers back and steps over the instruction, or only puts them back. */
struct exit_result emulation_finish(struct emulation *e, bool done)
{
    struct vcpu *vcpu = e->vcpu;
    if (e->regs.gpr[RSP] != virt_get(vcpu, VIRT_RSP))
        virt_set(vcpu, VIRT_RSP, e->regs.gpr[RSP]);
    memcpy(vcpu->gpr, e->regs.gpr, sizeof(vcpu->gpr));
    if (e->regs.rflags != e->paging.rflags)
        virt_set(vcpu, VIRT_RFLAGS, e->regs.rflags);
    return done ? exit_advance_by(e->code->insn.length) : exit_retry();
}

void emulate_mmio_access(struct vcpu *vcpu, struct io_req *req)
{
    struct vm *vm = vcpu->vm;
    uint64_t apic = req->addr - lapic_mmio_base(&vcpu->lapic).v;
    if (apic < LAPIC_PAGE_SIZE && lapic_mmio_enabled(&vcpu->lapic)) {
        if (req->write)
            lapic_mmio_write(&vcpu->lapic, (uint32_t)apic, req->size, (uint32_t)req->value);
        else
            req->value = lapic_mmio_read(&vcpu->lapic, (uint32_t)apic, req->size);
        return;
    }
    struct vdev *dev = bus_find_mmio(&vm->bus, req->addr);
    if (dev) {
        vm_lock_devices(vm);
        dev->ops->access(dev, req);
        spin_unlock(&vm->devices);
        return;
    }
    if (!req->write)
        req->value = vdev_all_ones(req->size);
    if (bus_mmio_first(&vm->bus, req->addr))
        log_vcpu(LOG_DEBUG, vcpu, "%s of %u bytes at guest-physical %llx: nothing there",
                 req->write ? "write" : "read", req->size, (unsigned long long)req->addr);
}

/* What is never RAM to a guest. */
static bool is_in_hole(gpa_t at)
{
    return at.v - GUEST_PCI_HOLE < GUEST_FOUR_GIB - GUEST_PCI_HOLE;
}

/* Data between the instruction and one place in guest-physical memory: RAM or a device. */
static void access_physical(struct emulation *e, gpa_t at, unsigned size, bool write, uint64_t *value)
{
    const struct gmem *g = &e->vcpu->vm->gmem;
    if (!is_in_hole(at) &&
        (write ? gmem_write(g, at, value, size) : gmem_read(g, at, value, size)) == STATUS_OK)
        return;
    struct io_req req = {
        .addr = at.v, .size = (uint8_t)size, .write = write, .value = bits_low_bytes(*value, size)};
    emulate_mmio_access(e->vcpu, &req);
    if (!write)
        *value = bits_low_bytes(req.value, size);
}

bool emulation_find(struct emulation *e, gva_t linear, unsigned size, bool write, struct emulation_place *out)
{
    enum walk_access kind = write ? WALK_WRITE : WALK_READ;
    out->in_page = PAGE_SIZE - (linear.v & PAGE_MASK);
    return translate(e, linear, kind, &out->first) &&
           (out->in_page >= size ||
            translate(e, guest_linear_add(e->mode, linear, out->in_page), kind, &out->second));
}

static gpa_t byte_of(const struct emulation_place *place, uint64_t offset)
{
    return offset < place->in_page ? gpa(place->first.v + offset)
                                   : gpa(place->second.v + (offset - place->in_page));
}

void emulation_move(struct emulation *e, const struct emulation_place *place, unsigned offset, unsigned size,
                    bool write, uint64_t *value)
{
    if (offset >= place->in_page || offset + size <= place->in_page) {
        if (!write)
            *value = 0;
        access_physical(e, byte_of(place, offset), size, write, value);
        return;
    }
    uint64_t result = 0;
    for (unsigned i = 0; i < size; i++) {
        uint64_t byte = *value >> (8 * i) & 0xff;
        access_physical(e, byte_of(place, offset + i), 1, write, &byte);
        result |= (byte & 0xff) << (8 * i);
    }
    if (!write)
        *value = result;
}

bool emulation_access(struct emulation *e, gva_t linear, unsigned size, bool write, uint64_t *value)
{
    struct emulation_place place;
    if (!emulation_find(e, linear, size, write, &place))
        return false;
    emulation_move(e, &place, 0, size, write, value);
    return true;
}

bool emulation_probe(struct emulation *e, gva_t linear, unsigned size, bool write)
{
    struct emulation_place place;
    return emulation_find(e, linear, size, write, &place);
}

/* Segmentation of a memory operand. */
bool emulation_linear(struct emulation *e, enum seg_name name, uint64_t offset, unsigned size, bool write,
                      gva_t *linear)
{
    struct seg seg = {0}; /* SDM vol. 3, 3.4.4: in 64-bit mode only FS and GS have a base, and none a limit */
    if (e->mode != GUEST_MODE_LONG || name == SEG_FS || name == SEG_GS)
        seg = virt_get_seg(e->vcpu, name);
    uint8_t vector = guest_linear(e->mode, name, &seg, offset, size, write ? WALK_WRITE : WALK_READ, linear);
    if (vector)
        e->failure = exit_inject_error(vector, 0);
    return vector == 0;
}

/* MOVS, STOS, LODS, CMPS, SCAS: one element. */
static bool string_element(struct emulation *e)
{
    const struct insn *in = &e->code->insn;
    uint64_t value = bits_low_bytes(e->regs.gpr[RAX], in->opsize), other = 0;
    bool has_source = in->op == INSN_MOVS || in->op == INSN_LODS || in->op == INSN_CMPS;
    bool stores = in->op == INSN_MOVS || in->op == INSN_STOS;
    gva_t source = gva(0), target = gva(0);
    if (has_source && !emulation_linear(e, (enum seg_name)in->segment, insn_effective_offset(in, &e->regs),
                                        in->opsize, false, &source))
        return false;
    if (in->op != INSN_LODS &&
        !emulation_linear(e, SEG_ES, insn_string_di(in, &e->regs), in->opsize, stores, &target))
        return false;
    if (has_source && in->op != INSN_LODS && !emulation_probe(e, target, in->opsize, stores))
        return false;
    if (has_source && !emulation_access(e, source, in->opsize, false, &value))
        return false;
    if (stores && !emulation_access(e, target, in->opsize, true, &value))
        return false;
    if (in->op == INSN_CMPS || in->op == INSN_SCAS) {
        if (!emulation_access(e, target, in->opsize, false, &other))
            return false;
        insn_string_compare(in, &e->regs, value, other);
    }
    if (in->op == INSN_LODS) {
        struct insn_operand accumulator = {.kind = INSN_REG, .size = in->opsize, .reg = RAX};
        insn_reg_write(&accumulator, &e->regs, value);
    }
    return true;
}

static bool port_element(struct emulation *e, uint16_t port)
{
    const struct insn *in = &e->code->insn;
    struct io_req req = {.addr = port, .size = in->opsize > 4 ? 4 : in->opsize, .write = in->op == INSN_OUTS};
    gva_t linear;
    if (req.write) {
        if (!emulation_linear(e, (enum seg_name)in->segment, insn_effective_offset(in, &e->regs), req.size,
                              false, &linear) ||
            !emulation_access(e, linear, req.size, false, &req.value))
            return false;
        emulate_port_access(e->vcpu, &req);
        return true;
    }
    if (!emulation_linear(e, SEG_ES, insn_string_di(in, &e->regs), req.size, true, &linear) ||
        !emulation_probe(e, linear, req.size, true))
        return false;
    emulate_port_access(e->vcpu, &req);
    return emulation_access(e, linear, req.size, true, &req.value);
}

/* Elements that lie upwards in one page of RAM, at once: how a BIOS reads its disks. Answers how many; 0: the
 * next one is to be done alone, and says itself what is wrong. */
static unsigned port_run(struct emulation *e, uint16_t port, unsigned most)
{
    const struct insn *in = &e->code->insn;
    bool out = in->op == INSN_OUTS;
    unsigned size = in->opsize > 4 ? 4 : in->opsize;
    enum seg_name name = out ? (enum seg_name)in->segment : SEG_ES;
    uint64_t offset = out ? insn_effective_offset(in, &e->regs) : insn_string_di(in, &e->regs);
    uint64_t count = insn_string_count(in, &e->regs);
    const struct gmem *g = &e->vcpu->vm->gmem;
    uint8_t bytes[PORT_RUN];
    gva_t linear;
    gpa_t at;
    if ((e->regs.rflags & RFLAGS_DF) || !emulation_linear(e, name, offset, size, !out, &linear))
        return 0;
    uint64_t room = PAGE_SIZE - (linear.v & PAGE_MASK);
    room = room < sizeof(bytes) ? room : sizeof(bytes);
    count = count < room / size ? count : room / size;
    count = count < most ? count : most;
    size_t all = (size_t)count * size;
    if (count < 2 || bits_low_bytes(offset + all, in->addrsize) < offset ||
        !emulation_linear(e, name, offset, (unsigned)all, !out, &linear) ||
        !translate(e, linear, out ? WALK_READ : WALK_WRITE, &at) || is_in_hole(at) ||
        (out ? gmem_read(g, at, bytes, all) : gmem_check_write(g, at, all)) != STATUS_OK)
        return 0;
    unsigned done = emulate_port_run(
        e->vcpu, &(struct io_req){.addr = port, .size = (uint8_t)size, .write = out}, bytes, (unsigned)count);
    if (!out) /* fails only when another vCPU made ROM of it meanwhile, which ignores writes */
        (void)gmem_write(g, at, bytes, (uint64_t)done * size);
    return done;
}

/* Runs a string instruction for a batch, or until somebody wants something of the vCPU: an element may be the
 * reset of a device. What was done before a fault stays done, as on the CPU. */
static struct exit_result run_string(struct emulation *e, bool io)
{
    const struct insn *in = &e->code->insn;
    uint16_t port = (uint16_t)e->regs.gpr[RDX];
    if (insn_string_count(in, &e->regs) == 0)
        return emulation_finish(e, true);
    for (unsigned i = 0, n; i < STRING_BATCH; i += n) {
        n = io ? port_run(e, port, STRING_BATCH - i) : 0;
        if (!n && !(io ? port_element(e, port) : string_element(e))) {
            struct exit_result failure = e->failure;
            emulation_finish(e, false);
            return failure;
        }
        n = n ? n : 1;
        insn_string_advance(in, &e->regs, n);
        if (!insn_string_continues(in, &e->regs))
            return emulation_finish(e, true);
        if (vcpu_is_wanted(e->vcpu))
            break;
    }
    return emulation_finish(e, false);
}

/* Everything with one memory operand. */
static struct exit_result run_plain(struct emulation *e, const struct exit *exit, gva_t linear)
{
    const struct insn *in = &e->code->insn;
    unsigned size = insn_memory_size(in);
    bool reads = insn_reads_memory(in), writes = insn_writes_memory(in);
    uint64_t in_value = 0, out_value = 0;
    const struct exit_nested *n = &exit->u.nested;

    /* The exit already translated the address when it is the very access that faulted, with the same right.
     * Otherwise (a second page, a changed instruction, read-modify-write) the tables are walked again. */
    bool same = n->linear_valid && !n->during_walk && n->linear.v == linear.v &&
                (linear.v & PAGE_MASK) + size <= PAGE_SIZE && reads != writes && writes == n->write;
    if (reads && writes && !emulation_probe(e, linear, size, true))
        return e->failure;
    if (reads) {
        if (same)
            access_physical(e, n->address, size, false, &in_value);
        else if (!emulation_access(e, linear, size, false, &in_value))
            return e->failure;
    }
    enum status s = insn_execute(in, &e->regs, in_value, &out_value);
    if (s == ERR_RANGE)
        return exit_inject(VECTOR_DE);
    if (s != STATUS_OK) {
        emulation_stop(e, insn_op_name((enum insn_op)in->op));
        return e->failure;
    }
    if (writes) {
        if (same)
            access_physical(e, n->address, size, true, &out_value);
        else if (!emulation_access(e, linear, size, true, &out_value))
            return e->failure;
    }
    return emulation_finish(e, true);
}

struct exit_result emulate_mmio(struct vcpu *vcpu, const struct exit *exit)
{
    struct emulation e;
    emulation_begin(&e, vcpu);
    e.fault = &exit->u.nested;
    if (!fetch(&e))
        return e.failure;
    const struct insn *in = &e.code->insn;
    if (in->op == INSN_INS || in->op == INSN_OUTS)
        return exit_retry(); /* they exit as port accesses, where the guest's right to the port is checked:
                                changed code */
    if (insn_is_string(in))
        return run_string(&e, false);
    if (in->op >= INSN_PUSH)
        return emulation_run_rare(&e);
    gva_t linear;
    if (!insn_memory_size(in)) /* the code changed under us: let the guest run what is there now */
        return exit_retry();
    if (!emulation_linear(&e, (enum seg_name)in->segment, insn_effective_offset(in, &e.regs),
                          insn_memory_size(in), insn_writes_memory(in), &linear))
        return e.failure;
    return run_plain(&e, exit, linear);
}

struct exit_result emulate_string_io(struct vcpu *vcpu, const struct exit_io *io)
{
    struct emulation e;
    emulation_begin(&e, vcpu);
    if (!fetch(&e))
        return e.failure;
    /* The processor checked the guest's right to this very access; anything else is code that changed under
     * us. */
    const struct insn *in = &e.code->insn;
    unsigned size = in->opsize > 4 ? 4 : in->opsize;
    if (in->op != (io->write ? INSN_OUTS : INSN_INS) || size != io->size ||
        (uint16_t)e.regs.gpr[RDX] != io->port)
        return exit_retry();
    return run_string(&e, true);
}

size_t emulate_peek_code(struct vcpu *vcpu, uint8_t *bytes, size_t size)
{
    struct emulation e;
    struct walk_env env = {.ctx = &e, .read = read_entry};
    size_t count = 0;
    emulation_begin(&e, vcpu);
    e.paging.cr4 &= ~(CR4_SMAP | CR4_PKE); /* the report is ours: user code is shown too */
    for (; count < size; count++) {
        uint64_t at = vcpu->rip + count;
        struct walk_request request = {
            .linear = gva(e.mode == GUEST_MODE_LONG ? at : (uint32_t)(e.cs.base + at)), .access = WALK_READ};
        struct walk_result result;
        if (guest_walk(&env, &e.paging, &request, &result) != WALK_OK ||
            gmem_read(&vcpu->vm->gmem, result.address, bytes + count, 1) != STATUS_OK)
            break;
    }
    return count;
}
