#include "hv/lib/fmt.h"
#include "hv/lib/string.h"

struct out {
    char *buf;
    size_t size;
    size_t length; /* of the full text, stored or not */
};

struct spec {
    bool left, zero;
    size_t width;
    size_t precision; /* of %s: the most bytes to take */
    unsigned size;    /* bytes of an integer argument */
    char conversion;
};

static void put(struct out *out, char c)
{
    if (out->length + 1 < out->size)
        out->buf[out->length] = c;
    out->length++;
}

static void put_repeated(struct out *out, char c, size_t count)
{
    while (count--)
        put(out, c);
}

static void put_padded(struct out *out, const struct spec *spec, const char *text, size_t n)
{
    size_t pad = spec->width > n ? spec->width - n : 0;

    if (!spec->left)
        put_repeated(out, ' ', pad);
    for (size_t i = 0; i < n; i++)
        put(out, text[i]);
    if (spec->left)
        put_repeated(out, ' ', pad);
}

static void put_number(struct out *out, const struct spec *spec, uint64_t value, bool negative)
{
    const char *digits = spec->conversion == 'X' ? "0123456789ABCDEF" : "0123456789abcdef";
    bool hex = spec->conversion == 'x' || spec->conversion == 'X' || spec->conversion == 'p';
    unsigned base = hex ? 16 : 10;
    char text[24]; /* 20 decimal digits, or 0x and 16 hexadecimal ones, or a sign */
    size_t at = sizeof(text);

    do {
        text[--at] = digits[value % base];
        value /= base;
    } while (value);
    if (spec->conversion == 'p') {
        text[--at] = 'x';
        text[--at] = '0';
    }
    size_t length = sizeof(text) - at + negative;
    if (spec->zero && !spec->left && spec->width > length) {
        if (negative)
            put(out, '-');
        put_repeated(out, '0', spec->width - length);
        for (; at < sizeof(text); at++)
            put(out, text[at]);
        return;
    }
    if (negative)
        text[--at] = '-';
    put_padded(out, spec, text + at, sizeof(text) - at);
}

static size_t parse_number(const char **p)
{
    size_t n = 0;
    for (; **p >= '0' && **p <= '9'; (*p)++)
        n = n < 100000 ? n * 10 + (size_t)(**p - '0') : n; /* a silly width must not wrap */
    return n;
}

/* Flags, width and precision; `args` travels as a pointer because '*' takes from it. */
static const char *parse_layout(const char *p, struct spec *spec, va_list *args)
{
    for (;; p++) {
        if (*p == '-')
            spec->left = true;
        else if (*p == '0')
            spec->zero = true;
        else
            break;
    }
    if (*p == '*') {
        int width = va_arg(*args, int);
        spec->left = spec->left || width < 0;
        spec->width = width < 0 ? 0u - (unsigned)width : (unsigned)width;
        p++;
    } else {
        spec->width = parse_number(&p);
    }
    spec->precision = SIZE_MAX;
    if (*p == '.') {
        p++;
        if (*p == '*') {
            int precision = va_arg(*args, int);
            spec->precision = precision < 0 ? SIZE_MAX : (size_t)precision;
            p++;
        } else {
            spec->precision = parse_number(&p);
        }
    }
    return p;
}

static const char *parse_length(const char *p, struct spec *spec)
{
    spec->size = sizeof(int);
    if (*p == 'h') {
        spec->size = p[1] == 'h' ? sizeof(char) : sizeof(short);
        p += spec->size == sizeof(char) ? 2 : 1;
    } else if (*p == 'l') {
        spec->size = sizeof(long);
        p += p[1] == 'l' ? 2 : 1;
    } else if (*p == 'z') {
        spec->size = sizeof(size_t);
        p++;
    }
    return p;
}

static void put_signed(struct out *out, const struct spec *spec, va_list *args)
{
    int64_t v = spec->size > sizeof(int) ? va_arg(*args, long) : va_arg(*args, int);

    if (spec->size == sizeof(char))
        v = (signed char)v;
    else if (spec->size == sizeof(short))
        v = (short)v;
    put_number(out, spec, v < 0 ? 0 - (uint64_t)v : (uint64_t)v, v < 0);
}

static void put_unsigned(struct out *out, const struct spec *spec, va_list *args)
{
    uint64_t v = spec->size > sizeof(int) ? va_arg(*args, unsigned long) : va_arg(*args, unsigned);

    if (spec->size == sizeof(char))
        v = (unsigned char)v;
    else if (spec->size == sizeof(short))
        v = (unsigned short)v;
    put_number(out, spec, v, false);
}

static void put_string(struct out *out, const struct spec *spec, const char *s)
{
    size_t n = 0;

    if (!s)
        s = "(null)";
    while (n < spec->precision && s[n])
        n++;
    put_padded(out, spec, s, n);
}

/* False: not a conversion we know. */
static bool put_conversion(struct out *out, const struct spec *spec, va_list *args)
{
    switch (spec->conversion) {
    case 'd':
    case 'i':
        put_signed(out, spec, args);
        return true;
    case 'u':
    case 'x':
    case 'X':
        put_unsigned(out, spec, args);
        return true;
    case 'p':
        put_number(out, spec, (uintptr_t)va_arg(*args, void *), false);
        return true;
    case 'c': {
        char c = (char)va_arg(*args, int);
        put_padded(out, spec, &c, 1);
        return true;
    }
    case 's':
        put_string(out, spec, va_arg(*args, const char *));
        return true;
    case '%':
        put(out, '%');
        return true;
    default:
        return false;
    }
}

size_t fmt_vformat(char *buf, size_t size, const char *format, va_list args)
{
    struct out out = {.buf = buf, .size = size};
    va_list copy; /* va_list may be an array type: only a copy of our own has a portable address */

    va_copy(copy, args);
    for (const char *p = format; *p; p++) {
        if (*p != '%') {
            put(&out, *p);
            continue;
        }
        const char *start = p;
        struct spec spec = {0};
        p = parse_length(parse_layout(p + 1, &spec, &copy), &spec);
        spec.conversion = *p;
        if (put_conversion(&out, &spec, &copy))
            continue;
        for (; start <= p && *start; start++)
            put(&out, *start);
        if (!*p)
            break;
    }
    va_end(copy);
    if (size)
        buf[out.length < size ? out.length : size - 1] = 0;
    return out.length;
}

size_t fmt_format(char *buf, size_t size, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    size_t n = fmt_vformat(buf, size, format, args);
    va_end(args);
    return n;
}

enum status fmt_refuse(char *why, size_t size, enum status status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fmt_vformat(why, size, format, args);
    va_end(args);
    return status;
}
