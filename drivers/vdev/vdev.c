#include "drivers/vdev/vdev.h"

void vdev_split_bytes(struct vdev *dev, struct io_req *req)
{
    unsigned size = req->size <= sizeof(req->value) ? req->size : sizeof(req->value);
    uint64_t value = 0;
    for (unsigned i = 0; i < size; i++) {
        /* The port number wraps at 64 Ki, as the 16 address lines do. */
        struct io_req byte = {.addr = (req->addr + i) & 0xffff, .size = 1, .write = req->write};
        byte.value = req->write ? (req->value >> (8 * i)) & 0xff : 0xff;
        dev->ops->access(dev, &byte);
        value |= (byte.value & 0xff) << (8 * i);
    }
    if (!req->write)
        req->value = value;
}

void vdev_keep(struct vdev *dev)
{
}
