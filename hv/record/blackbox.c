#include "hv/record/blackbox.h"
#include "hv/lib/fmt.h"
#include "hv/lib/string.h"

#define MAGIC       0x786f626b63616c62ull /* "blackbox" */
#define VERSION     1u
#define PRINT_MAX   256u
#define CRC32_POLY  0xedb88320u /* of IEEE 802.3, bits reversed */
#define TEXT_OFFSET sizeof(struct header)
#define TEXT_MAX    (BLACKBOX_SIZE - TEXT_OFFSET)

struct header {
    uint64_t magic;
    uint32_t version, length;
    uint32_t crc; /* of the text */
    uint32_t pad;
};

static uint32_t crc32(const uint8_t *data, size_t size)
{
    uint32_t crc = ~0u;
    for (size_t i = 0; i < size; i++) {
        crc ^= data[i];
        for (unsigned bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? CRC32_POLY : 0);
    }
    return ~crc;
}

void blackbox_begin(struct blackbox *b, void *memory)
{
    b->memory = memory;
    b->length = 0;
    blackbox_clear(memory);
}

/* What a terminal, a file and a screen can show. */
static bool is_text(uint8_t c)
{
    return c == '\n' || (c >= ' ' && c < 0x7f);
}

void blackbox_write(struct blackbox *b, const char *text, size_t size)
{
    for (size_t i = 0; i < size && b->length < TEXT_MAX; i++)
        b->memory[TEXT_OFFSET + b->length++] = is_text((uint8_t)text[i]) ? (uint8_t)text[i] : '?';
}

void blackbox_vprint(struct blackbox *b, const char *format, va_list args)
{
    char line[PRINT_MAX];
    size_t n = fmt_vformat(line, sizeof(line), format, args);
    blackbox_write(b, line, n < sizeof(line) ? n : sizeof(line) - 1);
}

void blackbox_print(struct blackbox *b, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    blackbox_vprint(b, format, args);
    va_end(args);
}

const char *blackbox_text(const struct blackbox *b)
{
    return (const char *)b->memory + TEXT_OFFSET;
}

void blackbox_seal(struct blackbox *b)
{
    struct header header = {.magic = MAGIC, .version = VERSION, .length = (uint32_t)b->length};
    header.crc = crc32(b->memory + TEXT_OFFSET, b->length);
    memcpy(b->memory, &header, sizeof(header));
}

bool blackbox_find(const void *memory, struct span *text)
{
    const uint8_t *bytes = memory;
    struct header header;
    memcpy(&header, bytes, sizeof(header));
    if (header.magic != MAGIC || header.version != VERSION || header.length == 0 ||
        header.length > TEXT_MAX || header.crc != crc32(bytes + TEXT_OFFSET, header.length))
        return false;
    for (uint32_t i = 0; i < header.length; i++) {
        if (!is_text(bytes[TEXT_OFFSET + i]))
            return false;
    }
    *text = (struct span){bytes + TEXT_OFFSET, header.length};
    return true;
}

void blackbox_clear(void *memory)
{
    memset(memory, 0, sizeof(struct header));
}
