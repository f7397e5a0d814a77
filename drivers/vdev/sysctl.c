#include "drivers/vdev/sysctl.h"

/* System control port A (PS/2 Technical Reference; ICH data sheet, "PORT92"). */
#define PORT_A_INIT 0x01u
#define PORT_A_A20  0x02u

/* Reset control register (PIIX3/ICH data sheets, "RST_CNT"): a rising edge of RST_CPU resets the machine, or
 * without SYS_RST only the processors. */
#define RESET_SYSTEM 0x02u
#define RESET_CPU    0x04u
#define RESET_FULL   0x08u
#define RESET_KEPT   (RESET_SYSTEM | RESET_CPU | RESET_FULL)

static struct sysctl *sysctl_of(struct vdev *dev)
{
    return container_of(dev, struct sysctl, dev);
}

static void reset_vm(struct sysctl *s, enum vdev_power how)
{
    s->dev.env->power(s->dev.env->ctx, how);
}

static void write_port(struct sysctl *s, uint64_t port, uint8_t value)
{
    uint8_t old;
    switch (port) {
    case SYSCTL_POST_PORT:
        s->post = value;
        break;
    case SYSCTL_PORT_A:
        /* Bit A20 can be written and read, but address line 20 is never masked: no guest starts without it.
         */
        old = s->port_a;
        s->port_a = value & (PORT_A_INIT | PORT_A_A20);
        if ((value & PORT_A_INIT) && !(old & PORT_A_INIT))
            reset_vm(s, VDEV_INIT);
        break;
    case SYSCTL_RESET_PORT:
        old = s->reset_control;
        s->reset_control = value & RESET_KEPT;
        if ((value & RESET_CPU) && !(old & RESET_CPU))
            reset_vm(s, value & RESET_SYSTEM ? VDEV_RESET : VDEV_INIT);
        break;
    default: /* SYSCTL_DELAY_PORT: only takes its time */
        break;
    }
}

static uint8_t read_port(const struct sysctl *s, uint64_t port)
{
    switch (port) {
    case SYSCTL_POST_PORT: /* a scratch register of the DMA page registers */
        return s->post;
    case SYSCTL_PORT_A:
        return s->port_a;
    case SYSCTL_RESET_PORT:
        return s->reset_control;
    default:
        return 0xff;
    }
}

static void sysctl_access(struct vdev *dev, struct io_req *req)
{
    struct sysctl *s = sysctl_of(dev);
    if (req->size != 1)
        vdev_split_bytes(dev, req);
    else if (req->write)
        write_port(s, req->addr, (uint8_t)req->value);
    else
        req->value = read_port(s, req->addr);
}

static void sysctl_reset(struct vdev *dev)
{
    struct sysctl *s = sysctl_of(dev);
    s->port_a = PORT_A_A20;
    s->reset_control = 0;
    s->post = 0;
}

const struct vdev_ops sysctl_ops = {
    .name = "sysctl",
    .init = sysctl_reset,
    .reset = sysctl_reset,
    .access = sysctl_access,
};
