/* Whatever lies where a black box may be: it is found only when it is text, and inside the memory. The first
 * byte chooses between raw memory and a box that is written, sealed and then damaged. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "hv/record/blackbox.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *memory = malloc(BLACKBOX_SIZE); /* on the heap: reads beyond it are seen */
    struct blackbox box;
    struct span text;
    if (size < 4 || !memory) {
        free(memory);
        return 0;
    }
    memset(memory, data[1], BLACKBOX_SIZE);
    if (data[0] & 1) {
        size_t n = size - 2 < BLACKBOX_SIZE ? size - 2 : BLACKBOX_SIZE;
        memcpy(memory, data + 2, n);
    } else {
        blackbox_begin(&box, memory);
        blackbox_write(&box, (const char *)data + 4, size - 4);
        blackbox_seal(&box);
        bool whole = blackbox_find(memory, &text);
        if (whole != (size > 4) ||
            (whole && text.size != (size - 4 < BLACKBOX_SIZE - 24 ? size - 4 : BLACKBOX_SIZE - 24)))
            abort();
        if (data[0] & 2)
            memory[(data[2] | data[3] << 8) % BLACKBOX_SIZE] ^= data[1];
    }
    if (blackbox_find(memory, &text)) {
        if (text.data < memory || text.size == 0 || text.size > (size_t)(memory + BLACKBOX_SIZE - text.data))
            abort();
        for (size_t i = 0; i < text.size; i++)
            if (text.data[i] != '\n' && (text.data[i] < ' ' || text.data[i] > '~'))
                abort();
    }
    free(memory);
    return 0;
}
