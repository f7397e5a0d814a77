#include "hv/pc/warm_reset.h"
#include "hv/vm.h"

#define VECTOR 0x467ull /* 0040:0067 */
/* Shutdown codes of the PC AT's BIOS (IBM Technical Reference, "Shutdown"). */
#define JUMP_AFTER_EOI 0x05u /* the interrupt controllers are told that IRQ 0 and 1 are done, then: */
#define JUMP           0x0au /* straight to the vector */

static bool wanted(const struct vm *vm)
{
    uint8_t code = __atomic_load_n(&vm->platform.rtc.cmos[RTC_SHUTDOWN], __ATOMIC_ACQUIRE);
    return code == JUMP || code == JUMP_AFTER_EOI;
}

bool warm_reset(struct vm *vm)
{
    if (!wanted(vm))
        return false;
    for (uint32_t i = 0; i < vm->vcpu_count; i++)
        vcpu_request(vm->vcpus[i], VCPU_REQ_INIT);
    return true;
}

bool warm_reset_take(struct vm *vm, uint16_t *segment, uint16_t *offset)
{
    uint16_t vector[2];
    if (!wanted(vm))
        return false;
    if (vm_has_firmware(vm))
        return true;
    if (gmem_read(&vm->gmem, gpa(VECTOR), vector, sizeof(vector)) != STATUS_OK)
        return false;
    __atomic_store_n(&vm->platform.rtc.cmos[RTC_SHUTDOWN], 0, __ATOMIC_RELEASE);
    *offset = vector[0];
    *segment = vector[1];
    return true;
}

#define ROM_START  0xfe05bull /* F000:E05B, where every BIOS since the first has it */
#define ROM_VECTOR 0xffff0ull

enum status warm_reset_write_rom(const struct vm *vm)
{
    static const uint8_t start[] = {
        0xfa,       /* cli */
        0xb0, 0x0f, /* mov al, 0x0f   no shutdown code: */
        0xe6, 0x70, /* out 0x70, al */
        0x30, 0xc0, /* xor al, al */
        0xe6, 0x71, /* out 0x71, al */
        0xb0, 0xfe, /* mov al, 0xfe   the keyboard controller pulses the processor's reset */
        0xe6, 0x64, /* out 0x64, al */
        0xf4,       /* hlt */
    };
    static const uint8_t vector[] = {
        0xea, 0x5b, 0xe0, 0x00, 0xf0,                         /* jmp 0xf000:0xe05b */
        '0',  '1',  '/',  '0',  '1',  '/', '2', '6', 0, 0xfc, /* model: AT */
        0,
    };
    STATIC_ASSERT(sizeof(vector) == GUEST_ONE_MIB - ROM_VECTOR, "up to the end of the ROM");
    enum status s = gmem_write(&vm->gmem, gpa(ROM_START), start, sizeof(start));
    return s == STATUS_OK ? gmem_write(&vm->gmem, gpa(ROM_VECTOR), vector, sizeof(vector)) : s;
}
