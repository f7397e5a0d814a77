#include "hv/config/config_internal.h"
#include "hv/lib/string.h"

bool config_text_is_blank(uint8_t c)
{
    return c == ' ' || c == '\t';
}

struct span config_text_skip(struct span s, size_t n)
{
    return (struct span){s.data + n, s.size - n};
}

struct span config_text_trim(struct span s)
{
    while (s.size && config_text_is_blank(s.data[0]))
        s = config_text_skip(s, 1);
    while (s.size && config_text_is_blank(s.data[s.size - 1]))
        s.size--;
    return s;
}

struct span config_text_before(struct span s, uint8_t c)
{
    size_t n = 0;

    while (n < s.size && s.data[n] != c)
        n++;
    return (struct span){s.data, n};
}

struct span config_text_word(struct span s)
{
    size_t n = 0;

    while (n < s.size && !config_text_is_blank(s.data[n]))
        n++;
    return (struct span){s.data, n};
}

struct span config_text_without_comment(struct span s)
{
    for (size_t i = 0; i < s.size; i++) {
        if (s.data[i] == '#' && (i == 0 || config_text_is_blank(s.data[i - 1]))) {
            s.size = i;
            break;
        }
    }
    return config_text_trim(s);
}

/* Overlong forms and surrogates are not UTF-8 (RFC 3629). */
size_t config_text_utf8(struct span s)
{
    uint8_t c = s.data[0];
    size_t n = c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;

    if (n > s.size)
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((s.data[i] & 0xc0) != 0x80)
            return 0;
    if ((c == 0xe0 && s.data[1] < 0xa0) || (c == 0xed && s.data[1] > 0x9f) ||
        (c == 0xf0 && s.data[1] < 0x90) || (c == 0xf4 && s.data[1] > 0x8f))
        return 0;
    return n;
}

struct config_quote config_text_quote(struct span s)
{
    struct config_quote q = {0};
    size_t n = s.size < CONFIG_QUOTE_MAX ? s.size : CONFIG_QUOTE_MAX;

    for (size_t i = 0; i < n; i++)
        q.text[i] = s.data[i] >= ' ' && s.data[i] < 0x7f ? (char)s.data[i] : '?';
    if (s.size > CONFIG_QUOTE_MAX)
        memcpy(q.text + n, "...", 3);
    return q;
}
