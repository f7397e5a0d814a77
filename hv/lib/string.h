/* Memory and string helpers. The four mem* functions are the only undefined symbols pure code may have: the
 * core and the loader take them from hv/lib/mem.c, the host build from its C library. */
#pragma once

#include "hv/lib/types.h"

void *memcpy(void *restrict dest, const void *restrict src, size_t n);
void *memmove(void *dest, const void *src, size_t n);
void *memset(void *dest, int byte, size_t n);
int memcmp(const void *a, const void *b, size_t n);

/* Bytes before the NUL. */
static inline size_t str_length(const char *s)
{
    size_t n = 0;
    while (s[n])
        n++;
    return n;
}

static inline bool str_equal(const char *a, const char *b)
{
    while (*a && *a == *b) {
        a++;
        b++;
    }
    return *a == *b;
}

/* Copies as much of src as fits, always terminating it (size > 0). False: it was cut. */
static inline bool str_copy(char *dest, size_t size, const char *src)
{
    size_t n = str_length(src);
    bool fits = n < size;
    if (!fits)
        n = size - 1;
    memcpy(dest, src, n);
    dest[n] = 0;
    return fits;
}

/* Do the bytes of `s` read exactly `text`? */
static inline bool span_equals(struct span s, const char *text)
{
    size_t n = str_length(text);
    return s.size == n && memcmp(s.data, text, n) == 0;
}
