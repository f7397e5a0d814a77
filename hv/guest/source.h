/* A file kept outside guest memory, and the way from it into a guest. Header and source are pure. */
#pragma once

#include "hv/gmem.h"

/* A file that is not permanently mapped. */
struct guest_source {
    void *ctx;
    uint64_t size;
    /* Bytes from `offset` (< size): a pointer to at least one of them, *length how many can be read there;
     * valid until the next call. It must survive gmem's window moving. NULL: failure. */
    const void *(*map)(void *ctx, uint64_t offset, size_t *length);
};

/* Copies [offset, offset+size). False: not all of it is in the file, or it cannot be read. */
bool source_read(const struct guest_source *source, uint64_t offset, void *buf, size_t size);

/* Writes to guest memory. All chain through `status`: after a failure they do nothing. */
struct guest_writer {
    const struct gmem *g;
    enum status status;
};

void writer_put(struct guest_writer *w, uint64_t at, const void *data, uint64_t size);
/* The low `bytes` bytes, little-endian. */
void writer_put_value(struct guest_writer *w, uint64_t at, uint64_t value, unsigned bytes);
void writer_put_zeros(struct guest_writer *w, uint64_t at, uint64_t size);
void writer_put_source(struct guest_writer *w, uint64_t at, const struct guest_source *from, uint64_t offset,
                       uint64_t size);
