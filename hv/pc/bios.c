#include "hv/pc/bios.h"
#include "hv/exits/emulate.h"
#include "hv/vm.h"

#define ROM_SEGMENT 0xf000u
#define ROM_VECTORS 0xff53u /* where every BIOS since the first has its IRET */
#define VECTORS     256u
/* The vectors of IRQ 0..7 and 8..15, as the BIOS of the PC AT sets them. */
#define MASTER_FIRST 0x08u
#define SLAVE_FIRST  0x70u
#define CHIP_IRQS    8u

/* The local APIC as MP specification 1.4, 3.6.2.2 "Virtual Wire Mode" has it: LINT0 passes on the PIC, LINT1
 * is NMI. */
#define APIC_SVR     0x0f0u
#define APIC_LINT0   0x350u
#define APIC_LINT1   0x360u
#define SVR_ON       0x1ffu
#define LINT0_EXTINT 0x700u
#define LINT1_NMI    0x400u

static const uint8_t handlers[] = {
    0xcf,       /* iret */
    0x50,       /* push ax     IRQ 8..15 */
    0xb0, 0x20, /* mov al, 0x20: end of interrupt */
    0xe6, 0xa0, /* out 0xa0, al */
    0xeb, 0x01, /* jmp to the master: it has an interrupt, too */
    0x50,       /* push ax     IRQ 0..7 */
    0xb0, 0x20, /* mov al, 0x20 */
    0xe6, 0x20, /* out 0x20, al */
    0x58,       /* pop ax */
    0xcf,       /* iret */
};
#define HANDLER_SLAVE  1u
#define HANDLER_MASTER 8u

bool bios_was_there(const struct guest_image *image)
{
    return image->format == GUEST_MULTIBOOT || image->format == GUEST_MULTIBOOT2 ||
           image->format == GUEST_RAW;
}

enum status bios_write_vectors(const struct vm *vm)
{
    uint16_t table[VECTORS][2];
    for (unsigned i = 0; i < VECTORS; i++) {
        unsigned handler = i - MASTER_FIRST < CHIP_IRQS  ? HANDLER_MASTER
                           : i - SLAVE_FIRST < CHIP_IRQS ? HANDLER_SLAVE
                                                         : 0;
        table[i][0] = (uint16_t)(ROM_VECTORS + handler);
        table[i][1] = ROM_SEGMENT;
    }
    enum status s = gmem_write(&vm->gmem, gpa(0), table, sizeof(table));
    return s == STATUS_OK
               ? gmem_write(&vm->gmem, gpa((ROM_SEGMENT << 4) + ROM_VECTORS), handlers, sizeof(handlers))
               : s;
}

void bios_set_devices(struct vm *vm)
{
    static const struct {
        uint16_t port;
        uint8_t value;
    } writes[] = {
        /* Both PICs: ICW1 to ICW4; then IRQ 0, 1 and the slave are open. */
        {0x20, 0x11},
        {0x21, MASTER_FIRST},
        {0x21, 0x04},
        {0x21, 0x01},
        {0xa0, 0x11},
        {0xa1, SLAVE_FIRST},
        {0xa1, 0x02},
        {0xa1, 0x01},
        {0x21, 0xf8},
        {0xa1, 0xff},
        /* The PIT's channel 0: mode 3, 65536: 18.2 times a second. */
        {0x43, 0x36},
        {0x40, 0},
        {0x40, 0},
    };
    struct vcpu *boot = vm->vcpus[0];
    for (unsigned i = 0; i < ARRAY_SIZE(writes); i++) {
        struct io_req req = {.addr = writes[i].port, .size = 1, .write = true, .value = writes[i].value};
        emulate_port_access(boot, &req);
    }
    lapic_mmio_write(&boot->lapic, APIC_SVR, 4, SVR_ON);
    lapic_mmio_write(&boot->lapic, APIC_LINT0, 4, LINT0_EXTINT);
    lapic_mmio_write(&boot->lapic, APIC_LINT1, 4, LINT1_NMI);
}
