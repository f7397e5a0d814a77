/* Port accesses. */
#include "hv/emulate.h"
#include "hv/exit_table.h"
#include "hv/lib/bits.h"
#include "hv/lib/log.h"
#include "hv/vm.h"

void emulate_port_access(struct vcpu *vcpu, struct io_req *req)
{
    struct vm *vm = vcpu->vm;
    struct vdev *dev = bus_find_port(&vm->bus, (uint16_t)req->addr, req->size);
    bool found = dev != NULL;
    vm_lock_devices(vm);
    if (__builtin_expect(found, 1))
        dev->ops->access(dev, req);
    else
        found = bus_split_ports(&vm->bus, req);
    spin_unlock(&vm->devices);
    if (__builtin_expect(!found, 0) && bus_port_first(&vm->bus, (uint16_t)req->addr))
        log_vcpu(LOG_DEBUG, vcpu, "%s of %u bytes at port 0x%x: nothing there", req->write ? "write" : "read",
                 req->size, (unsigned)req->addr);
}

struct exit_result handle_io(struct vcpu *vcpu, const struct exit *exit)
{
    const struct exit_io *io = &exit->u.io;
    if (__builtin_expect(io->string, 0))
        return emulate_string_io(vcpu, io);
    struct io_req req = {.addr = io->port, .size = io->size, .write = io->write};
    if (req.write)
        req.value = bits_low_bytes(vcpu->gpr[RAX], req.size);
    emulate_port_access(vcpu, &req);
    if (!req.write) {
        /* IN to EAX clears the upper half of RAX, the narrower forms leave it. */
        uint64_t kept = req.size == 4 ? 0 : vcpu->gpr[RAX] & ~vdev_all_ones(req.size);
        vcpu->gpr[RAX] = kept | bits_low_bytes(req.value, req.size);
    }
    return exit_advance();
}
