/* The mem* functions that compilers emit calls to (freestanding builds only; the host has its own). They are
 * string instructions and not C loops, because a compiler recognises such loops and turns them into calls to
 * themselves. SDM volume 1, section "Fast-string operation": REP MOVSB/STOSB are the fast forms on every CPU
 * with VT-x and EPT. */
#include "hv/lib/string.h"

void *memcpy(void *restrict dest, const void *restrict src, size_t n)
{
    void *d = dest;
    size_t words = n / 8;

    n %= 8;
    __asm__ volatile("rep movsq" : "+D"(d), "+S"(src), "+c"(words) : : "memory");
    __asm__ volatile("rep movsb" : "+D"(d), "+S"(src), "+c"(n) : : "memory");
    return dest;
}

void *memmove(void *dest, const void *src, size_t n)
{
    /* Unsigned distance: also true when dest lies below src. Then a forward copy never overtakes its source.
     */
    if ((uintptr_t)dest - (uintptr_t)src >= n)
        return memcpy(dest, src, n);
    uint8_t *d = (uint8_t *)dest + n - 1;
    const uint8_t *s = (const uint8_t *)src + n - 1;
    __asm__ volatile("std; rep movsb; cld" : "+D"(d), "+S"(s), "+c"(n) : : "memory", "cc");
    return dest;
}

void *memset(void *dest, int byte, size_t n)
{
    void *d = dest;
    size_t words = n / 8;
    uint64_t pattern = (uint8_t)byte * 0x0101010101010101ull;

    n %= 8;
    __asm__ volatile("rep stosq" : "+D"(d), "+c"(words) : "a"(pattern) : "memory");
    __asm__ volatile("rep stosb" : "+D"(d), "+c"(n) : "a"(pattern) : "memory");
    return dest;
}

int memcmp(const void *a, const void *b, size_t n)
{
    const uint8_t *x = a, *y = b;
    for (size_t i = 0; i < n; i++)
        if (x[i] != y[i])
            return x[i] < y[i] ? -1 : 1;
    return 0;
}
