#include "drivers/vdev/testdev.h"
#include "hv/lib/bits.h"
#include "hv/lib/string.h"

#define DEBUG_PRESENT 0xe9u /* how a guest finds the debug port: it reads its own number */

static struct testdev *testdev_of(struct vdev *dev)
{
    return container_of(dev, struct testdev, dev);
}

static bool within(const struct io_req *req, uint64_t base, uint64_t size)
{
    return req->addr >= base && req->addr - base < size && size - (req->addr - base) >= req->size;
}

/* An access to memory, or to a register made of bytes. */
static void access_bytes(uint8_t *bytes, struct io_req *req)
{
    if (req->write) {
        memcpy(bytes, &req->value, req->size); /* both little-endian */
        return;
    }
    req->value = 0;
    memcpy(&req->value, bytes, req->size);
}

/* Lines that others drive too are theirs again after their next change. */
static void set_line(struct testdev *t, unsigned line, bool level)
{
    t->lines = level ? t->lines | 1u << line : t->lines & ~(1u << line);
    vdev_set_irq(&t->dev, line, level);
}

static void access_line(struct testdev *t, struct io_req *req)
{
    if (req->size != 1) /* a line is one port wide */
        vdev_split_bytes(&t->dev, req);
    else if (req->write)
        set_line(t, (unsigned)(req->addr - TESTDEV_IRQ_PORT), req->value & 0xff);
    else
        req->value = 0;
}

static void access_debug(struct testdev *t, struct io_req *req)
{
    if (req->write)
        t->dev.env->console_put(t->dev.env->ctx, (uint8_t)req->value);
    else
        req->value = DEBUG_PRESENT;
}

static void access_bios(struct testdev *t, struct io_req *req)
{
    if (!req->write) {
        req->value = DEBUG_PRESENT;
        return;
    }
    t->line[t->line_length++] = (uint8_t)req->value;
    if ((uint8_t)req->value != '\n' && t->line_length < TESTDEV_LINE_MAX)
        return;
    for (unsigned i = 0; i < t->line_length; i++)
        t->dev.env->console_put(t->dev.env->ctx, t->line[i]);
    t->line_length = 0;
}

static void access_exit(struct testdev *t, struct io_req *req)
{
    if (req->write)
        t->leave(t->leave_ctx, (uint32_t)(req->value & vdev_all_ones(req->size)));
    else
        req->value = 0;
}

static void access_raise(struct testdev *t, struct io_req *req)
{
    uint32_t message[2]; /* address, data: little-endian as we are */
    if (!req->write) {
        req->value = 0;
        return;
    }
    memcpy(message, t->message, sizeof(message));
    t->send_msi(t->send_ctx, message[0], message[1], req->value & 1);
}

static void testdev_access(struct vdev *dev, struct io_req *req)
{
    struct testdev *t = testdev_of(dev);
    if (within(req, TESTDEV_RAM, TESTDEV_RAM_SIZE))
        access_bytes(t->ram + (req->addr - TESTDEV_RAM), req);
    else if (within(req, TESTDEV_ECHO_PORT, TESTDEV_WIDE_PORTS))
        access_bytes(t->echo + (req->addr - TESTDEV_ECHO_PORT), req);
    else if (within(req, TESTDEV_EXIT_PORT, TESTDEV_WIDE_PORTS))
        access_exit(t, req);
    else if (within(req, TESTDEV_DEBUG_PORT, 1))
        access_debug(t, req);
    else if (within(req, TESTDEV_BIOS_PORT, 1))
        access_bios(t, req);
    else if (within(req, TESTDEV_IRQ_PORT, TESTDEV_LINES))
        access_line(t, req);
    else if (within(req, TESTDEV_MSI_PORT, sizeof(t->message)))
        access_bytes(t->message + (req->addr - TESTDEV_MSI_PORT), req);
    else if (req->addr == TESTDEV_MSI_RAISE && req->size == 4)
        access_raise(t, req);
    else if (!req->write) /* and the flush port: nested translations are never stale, there is nothing to do
                           */
        req->value = vdev_all_ones(req->size);
}

static void testdev_reset(struct vdev *dev)
{
    struct testdev *t = testdev_of(dev);
    for (unsigned line = 0; line < TESTDEV_LINES; line++)
        if (t->lines >> line & 1)
            set_line(t, line, false);
    memset(t->echo, 0, sizeof(t->echo));
    memset(t->message, 0, sizeof(t->message));
    t->line_length = 0;
    memset(t->ram, 0, TESTDEV_RAM_SIZE);
}

static void testdev_init(struct vdev *dev)
{
    testdev_of(dev)->lines = 0;
    testdev_reset(dev);
}

const struct vdev_ops testdev_ops = {
    .name = "testdev",
    .init = testdev_init,
    .reset = testdev_reset,
    .access = testdev_access,
};
