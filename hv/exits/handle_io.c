/* Port accesses. */
#include "arch/x86/cpu.h"
#include "hv/exits/emulate.h"
#include "hv/exits/exit_table.h"
#include "hv/lib/bits.h"
#include "hv/lib/log.h"
#include "hv/lib/string.h"
#include "hv/vm.h"

#define DR_ADDRESSES   4u
#define DR7_ENABLES    0xffull
#define DR7_CONTROL(n) (16 + 4 * (n))
#define DR7_KIND_IO    2u
/* Of the pending debug exceptions: a breakpoint that was met is enabled. */
#define PENDING_DEBUG_ENABLED BIT(12)

static void __attribute__((noinline)) access_several(struct vcpu *vcpu, struct io_req *req)
{
    struct vm *vm = vcpu->vm;
    vm_lock_devices(vm);
    bool found = bus_split_ports(&vm->bus, req);
    spin_unlock(&vm->devices);
    if (!found && bus_port_first(&vm->bus, (uint16_t)req->addr))
        log_vcpu(LOG_DEBUG, vcpu, "%s of %u bytes at port 0x%x: nothing there", req->write ? "write" : "read",
                 req->size, (unsigned)req->addr);
}

unsigned emulate_port_run(struct vcpu *vcpu, const struct io_req *req, uint8_t *bytes, unsigned count)
{
    unsigned done = 0;
    struct vm *vm = vcpu->vm;
    struct vdev *dev = bus_find_port(&vm->bus, (uint16_t)req->addr, req->size);
    if (dev)
        vm_lock_devices(vm);
    do {
        struct io_req one = *req;
        if (req->write)
            memcpy(&one.value, bytes, req->size); /* both little-endian */
        if (dev)
            dev->ops->access(dev, &one);
        else
            emulate_port_access(vcpu, &one);
        if (!req->write)
            memcpy(bytes, &one.value, req->size);
        bytes += req->size;
    } while (++done < count && !vcpu_is_wanted(vcpu));
    if (dev)
        spin_unlock(&vm->devices);
    return done;
}

void emulate_port_access(struct vcpu *vcpu, struct io_req *req)
{
    struct vm *vm = vcpu->vm;
    struct vdev *dev = bus_find_port(&vm->bus, (uint16_t)req->addr, req->size);
    if (__builtin_expect(!dev, 0)) {
        access_several(vcpu, req);
        return;
    }
    vm_lock_devices(vm);
    dev->ops->access(dev, req);
    spin_unlock(&vm->devices);
}

/* I/O breakpoints of what exits are the hypervisor's to find: a trap behind the instruction (SDM volume
 * 3, 17.2.4 "Debug Control Register (DR7)", 17.3.1.2 "Data Memory and I/O Breakpoint Exception Conditions").
 */
static void __attribute__((noinline))
find_breakpoints(struct vcpu *vcpu, const struct exit_io *io, uint64_t dr7)
{
    if (!(virt_get(vcpu, VIRT_CR4) & CR4_DE))
        return;
    uint64_t met = 0;
    for (unsigned n = 0; n < DR_ADDRESSES; n++) {
        unsigned control = (unsigned)(dr7 >> DR7_CONTROL(n)), length = control >> 2 & 3;
        if (!(dr7 >> 2 * n & 3) || (control & 3) != DR7_KIND_IO)
            continue;
        uint64_t mask = length; /* of LEN: 0 is one byte, 1 two, 3 four */
        uint64_t first = virt_get(vcpu, (enum virt_reg)(VIRT_DR0 + n)) & ~mask;
        if (io->port <= first + mask && first < (uint64_t)io->port + io->size)
            met |= BIT(n);
    }
    if (met)
        virt_set(vcpu, VIRT_PENDING_DEBUG, virt_get(vcpu, VIRT_PENDING_DEBUG) | met | PENDING_DEBUG_ENABLED);
}

static inline void access_once(struct vcpu *vcpu, const struct exit_io *io)
{
    struct io_req req = {.addr = io->port, .size = io->size, .write = io->write};
    if (req.write)
        req.value = bits_low_bytes(vcpu->gpr[RAX], req.size);
    emulate_port_access(vcpu, &req);
    if (req.write)
        return;
    /* IN to EAX clears the upper half of RAX, the narrower forms leave it. */
    if (req.size == 1)
        vcpu->gpr[RAX] = (vcpu->gpr[RAX] & ~0xffull) | (uint8_t)req.value;
    else if (req.size == 2)
        vcpu->gpr[RAX] = (vcpu->gpr[RAX] & ~0xffffull) | (uint16_t)req.value;
    else
        vcpu->gpr[RAX] = (uint32_t)req.value;
}

struct exit_result handle_io(struct vcpu *vcpu, const struct exit *exit)
{
    const struct exit_io *io = &exit->u.io;
    struct exit_result result = exit_advance();
    if (__builtin_expect(io->string, 0))
        result = emulate_string_io(vcpu, io);
    else
        access_once(vcpu, io);
    uint64_t dr7 = virt_get(vcpu, VIRT_DR7);
    if (__builtin_expect(dr7 & DR7_ENABLES, 0) && result.action == ACTION_ADVANCE)
        find_breakpoints(vcpu, io, dr7);
    return result;
}
