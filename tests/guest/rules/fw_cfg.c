/* QEMU's firmware configuration device as a kernel without firmware finds it (compat = qemu): QEMU's
 * docs/specs/fw_cfg.rst. The selector is 16 bits at 0x510, the data byte by byte at 0x511. The command line
 * says what the VM has: cpus=, memory= (bytes). */
#include "rules.h"

#define SELECTOR 0x510u
#define DATA     0x511u
#define DMA      0x514u /* 64 bits, big-endian: "QEMU CFG", were it there */

#define KEY_SIGNATURE 0x00u
#define KEY_ID        0x01u
#define KEY_RAM_SIZE  0x03u
#define KEY_CPUS      0x05u
#define KEY_MAX_CPUS  0x0fu
#define KEY_DIRECTORY 0x19u
#define KEY_FILES     0x20u
#define KEY_WRITE     0x4000u /* no effect since QEMU 2.4 */
#define KEY_ABSENT    0x18u
#define KEY_NOWHERE   0x3fffu

#define ID_TRADITIONAL 1u
#define FILES_MAX      0x100u
#define NAME_SIZE      56u
#define SIGNATURE      0x554d4551u /* "QEMU", the first letter in the lowest byte */

static uint8_t next(void)
{
    return in8(DATA);
}

/* `bytes` of the selected item, the lowest first. */
static uint64_t little(unsigned bytes)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < bytes; i++)
        v |= (uint64_t)next() << 8 * i;
    return v;
}

/* The same, the highest first. */
static uint32_t big(unsigned bytes)
{
    uint32_t v = 0;
    for (unsigned i = 0; i < bytes; i++)
        v = v << 8 | next();
    return v;
}

static uint64_t item(uint16_t key, unsigned bytes)
{
    out16(SELECTOR, key);
    return little(bytes);
}

static void numbers(void)
{
    check_equal(item(KEY_SIGNATURE, 4), SIGNATURE, "the signature");
    check_equal(little(4), 0, "zeros behind an item's end");
    check_equal(item(KEY_SIGNATURE, 4), SIGNATURE, "selected again, it begins again");
    check_equal(item(KEY_SIGNATURE | KEY_WRITE, 4), SIGNATURE, "the write bit has no effect");
    uint8_t text[4];
    uint8_t *to = text;
    uint64_t count = sizeof(text);
    out16(SELECTOR, KEY_SIGNATURE);
    __asm__ volatile("rep insb" : "+D"(to), "+c"(count) : "d"(DATA) : "memory");
    check(text[0] == 'Q' && text[1] == 'E' && text[2] == 'M' && text[3] == 'U',
          "the signature, as a string instruction reads it");
    check_equal(item(KEY_ID, 4), ID_TRADITIONAL, "the traditional interface, no DMA");
    check_equal(in32(DMA), UINT32_MAX, "and no register of it");
    check_equal(item(KEY_RAM_SIZE, 8), option_number("memory", 0), "the size of RAM");
    check_equal(item(KEY_CPUS, 2), option_number("cpus", 0), "the number of CPUs");
    check_equal(item(KEY_MAX_CPUS, 2), option_number("cpus", 0), "the most CPUs there can be");
}

/* One entry: size, key, two bytes of nothing, name. */
static void entry(uint32_t index)
{
    uint32_t size = big(4), key = big(2), reserved = big(2);
    uint8_t first = next(), last = first;
    for (unsigned i = 1; i < NAME_SIZE; i++)
        last = next();
    check(size != 0 && key == KEY_FILES + index && !reserved, "file %u: size %x, key %x, reserved %x",
          (uint64_t)index, (uint64_t)size, (uint64_t)key, (uint64_t)reserved);
    check(first && !last, "file %u has a name, which ends", (uint64_t)index);
}

static void directory(void)
{
    out16(SELECTOR, KEY_DIRECTORY);
    uint32_t count = big(4);
    if (!check(count <= FILES_MAX, "the number of files, highest byte first: %x", (uint64_t)count))
        return;
    for (uint32_t i = 0; i < count; i++)
        entry(i);
    check_equal(little(8), 0, "the directory has no more entries than it says");
    check_equal(item((uint16_t)(KEY_FILES + count), 8), 0, "the key behind the last file's has nothing");
}

static void nothing(void)
{
    check_equal(item(KEY_ABSENT, 8), 0, "a key that is not there: zeros");
    check_equal(item(KEY_NOWHERE, 8), 0, "nor is the last one");
    out16(SELECTOR, KEY_SIGNATURE);
    check_equal(next(), 'Q', "a first byte");
    out8(DATA, 'x');
    check_equal(next(), 'E', "data cannot be written, nor does that count");
    check_equal(item(KEY_SIGNATURE, 4), SIGNATURE, "nothing was changed");
    out16(SELECTOR, KEY_ID);
    out8(SELECTOR, KEY_SIGNATURE);
    check_equal(next(), ID_TRADITIONAL, "eight bits select nothing");
    check_equal(in16(SELECTOR), UINT16_MAX, "the selector cannot be read");
}

void rule_fw_cfg(void)
{
    numbers();
    directory();
    nothing();
}
