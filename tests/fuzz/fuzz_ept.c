/* Random map, unmap, protect and fetches against the array model (tests/host/ept_model.c), which judges every
 * single store. */
#include <string.h>

#include "tests/host/ept_model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define OP_BYTES 8u
#define OPS_MAX  16u

/* Pages from the start of the window: near multiples of 2 MiB or 1 GiB, where sizes meet, or anywhere. */
static uint64_t position(uint8_t where, uint16_t value)
{
    uint64_t page;
    switch (where & 3) {
    case 0:
        page = (uint64_t)(value & 1023) * 512;
        break;
    case 1:
        page = (uint64_t)(value & 1023) * 512 + (value >> 10) - 32;
        break;
    case 2:
        page = (uint64_t)(value & 3) * 262144 + (value >> 8) - 128;
        break;
    default:
        page = (uint64_t)value * 8;
        break;
    }
    return page % (EPT_MODEL_PAGES + 1);
}

static void run_op(struct ept_model *m, const uint8_t *op)
{
    static const enum ept_memory_type types[] = {EPT_UC, EPT_WC, EPT_WT, EPT_WP, EPT_WB, EPT_WB, EPT_WB, 2};
    uint16_t values[2];
    memcpy(values, &op[4], sizeof(values));
    uint64_t first = position(op[1], values[0]), last = position(op[2], values[1]);
    if (op[2] & 0x1c) { /* mostly short ranges: long ones make the model slow */
        last = first + (values[1] & 2047);
        last = last < EPT_MODEL_PAGES ? last : EPT_MODEL_PAGES;
    }
    if (first > last) {
        uint64_t swap = first;
        first = last;
        last = swap;
    }
    unsigned flags = op[3] & 15 ? (op[3] & 6) | EPT_READ : op[3] >> 4; /* rarely illegal */
    if ((op[0] & 7) == 7 && first < EPT_MODEL_PAGES) {
        ept_model_allow_exec(m, first);
        return;
    }
    /* The host address is as well aligned as the guest's, or off by one page. */
    uint64_t ha = (4ull << 30) + ((first + (op[3] >> 7 && op[0] & 8)) << 12);
    switch (op[0] & 3) {
    case 0:
    case 1:
        ept_model_map(m, first, last - first, ha, flags, types[op[0] >> 4 & 7]);
        break;
    case 2:
        ept_model_unmap(m, first, last - first);
        break;
    case 3:
        ept_model_protect(m, first, last - first, flags);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct ept_model model;
    if (size < 2)
        return 0;
    /* Without 2 MiB pages only with few tables: a page for each 2 MiB makes the runs slow. */
    bool has_2m = data[0] & 7;
    uint64_t limit = data[0] & 0x80 ? EPT_MODEL_TABLES : data[1] % 32u;
    if (!ept_model_init(&model, has_2m, data[0] & 8, limit))
        return 0;
    model.ept.nx_large = data[0] & 0x10;
    for (size_t i = 0; i < OPS_MAX && 2 + (i + 1) * OP_BYTES <= size; i++)
        run_op(&model, &data[2 + i * OP_BYTES]);
    ept_model_check(&model);
    ept_model_free(&model);
    return 0;
}
