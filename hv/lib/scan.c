#include "hv/lib/scan.h"

bool scan_is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

static int hex_digit(uint8_t c)
{
    if (scan_is_digit(c))
        return c - '0';
    c |= 0x20; /* to lower case */
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static void advance(struct span *s, size_t n)
{
    *s = (struct span){s->data + n, s->size - n};
}

bool scan_number(struct span *s, uint64_t *out)
{
    uint64_t value = 0;
    size_t n = 0;

    for (; n < s->size && scan_is_digit(s->data[n]); n++) {
        unsigned digit = s->data[n] - '0';
        if (value > (UINT64_MAX - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    if (n == 0)
        return false;
    advance(s, n);
    *out = value;
    return true;
}

bool scan_hex(struct span *s, unsigned least, unsigned most, uint64_t *out)
{
    uint64_t value = 0;
    size_t n = 0;

    for (; n < s->size && n < most && hex_digit(s->data[n]) >= 0; n++)
        value = value << 4 | (unsigned)hex_digit(s->data[n]);
    if (n < least)
        return false;
    advance(s, n);
    *out = value;
    return true;
}

bool scan_char(struct span *s, char c)
{
    if (!s->size || s->data[0] != (uint8_t)c)
        return false;
    advance(s, 1);
    return true;
}
