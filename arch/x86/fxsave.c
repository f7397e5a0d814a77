#include "arch/x86/fxsave.h"
#include "hv/lib/string.h"

#define AT_FSW     2u
#define AT_FTW     4u
#define AT_ST      32u
#define AT_XMM     160u
#define SLOT       16u /* bytes between registers */
#define ST_COUNT   8u
#define MMX_SIZE   8u
#define FSW_ES     0x80u /* in its first byte */
#define FSW_TOP    0x38u /* in its second byte */
#define TOP_SHIFT  3
#define ALL_IN_USE 0xffu /* abridged tag word */

static unsigned top_of(const uint8_t *image)
{
    return (image[AT_FSW + 1] & FSW_TOP) >> TOP_SHIFT;
}

/* The image has the x87 registers in stack order, MM0 is the first physical one. */
static size_t slot_of(const uint8_t *image, bool mmx, unsigned number)
{
    if (!mmx)
        return AT_XMM + number * SLOT;
    return AT_ST + ((number - top_of(image)) & (ST_COUNT - 1)) * SLOT;
}

bool fxsave_x87_error(const uint8_t *image)
{
    return image[AT_FSW] & FSW_ES;
}

void fxsave_get(const uint8_t *image, bool mmx, unsigned number, enum insn_vector part, uint64_t value[2])
{
    const uint8_t *slot = image + slot_of(image, mmx, number);
    memcpy(value, slot, mmx ? MMX_SIZE : SLOT);
    if (part == INSN_VECTOR_HIGH_HALF)
        value[0] = value[1];
}

void fxsave_set(uint8_t *image, bool mmx, unsigned number, enum insn_vector part, const uint64_t value[2])
{
    uint8_t *slot = image + slot_of(image, mmx, number);
    if (mmx) {
        memcpy(slot, value, MMX_SIZE);
        slot[MMX_SIZE] = slot[MMX_SIZE + 1] = 0xff; /* sign and exponent */
    } else if (part == INSN_VECTOR_HIGH_HALF)
        memcpy(slot + 8, value, 8);
    else
        memcpy(slot, value, part == INSN_VECTOR_LOW_HALF ? 8 : SLOT);
}

void fxsave_enter_mmx(uint8_t *image)
{
    uint8_t physical[ST_COUNT * SLOT];
    for (unsigned i = 0; i < ST_COUNT; i++)
        memcpy(physical + i * SLOT, image + slot_of(image, true, i), SLOT);
    memcpy(image + AT_ST, physical, sizeof(physical));
    image[AT_FSW + 1] &= (uint8_t)~FSW_TOP;
    image[AT_FTW] = ALL_IN_USE;
}
