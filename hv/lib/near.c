#include "hv/lib/near.h"
#include "hv/lib/string.h"

#define WORD_MAX 16u /* longer words are not compared */

static unsigned min3(unsigned a, unsigned b, unsigned c)
{
    unsigned m = a < b ? a : b;
    return m < c ? m : c;
}

/* Edit distance of two short words; neighbours swapped count as one edit. */
static unsigned distance(struct span a, const char *b)
{
    unsigned d[WORD_MAX + 1][WORD_MAX + 1];
    size_t nb = str_length(b);

    if (a.size > WORD_MAX || nb > WORD_MAX)
        return WORD_MAX;
    for (unsigned i = 0; i <= a.size; i++) {
        for (unsigned j = 0; j <= nb; j++) {
            if (!i || !j) {
                d[i][j] = i + j;
                continue;
            }
            unsigned cost = a.data[i - 1] != (uint8_t)b[j - 1];
            d[i][j] = min3(d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + cost);
            if (i > 1 && j > 1 && a.data[i - 1] == (uint8_t)b[j - 2] && a.data[i - 2] == (uint8_t)b[j - 1])
                d[i][j] = min3(d[i][j], d[i][j], d[i - 2][j - 2] + 1);
        }
    }
    return d[a.size][nb];
}

bool near_miss(struct span word, const char *name)
{
    return distance(word, name) <= (str_length(name) > 4 ? 2u : 1u);
}
