#include "hv/guest/source.h"
#include "hv/lib/string.h"

bool source_read(const struct guest_source *source, uint64_t offset, void *buf, size_t size)
{
    uint8_t *to = buf;

    if (offset > source->size || size > source->size - offset)
        return false;
    while (size) {
        size_t n = 0;
        const void *data = source->map(source->ctx, offset, &n);
        if (!data || n == 0)
            return false;
        if (n > size)
            n = size;
        memcpy(to, data, n);
        to += n;
        offset += n;
        size -= n;
    }
    return true;
}

void writer_put(struct guest_writer *w, uint64_t at, const void *data, uint64_t size)
{
    if (w->status == STATUS_OK)
        w->status = gmem_write(w->g, gpa(at), data, size);
}

void writer_put_value(struct guest_writer *w, uint64_t at, uint64_t value, unsigned bytes)
{
    writer_put(w, at, &value, bytes); /* x86 is little-endian, as what guests are told is */
}

void writer_put_zeros(struct guest_writer *w, uint64_t at, uint64_t size)
{
    if (w->status == STATUS_OK)
        w->status = gmem_set(w->g, gpa(at), 0, size);
}

void writer_put_source(struct guest_writer *w, uint64_t at, const struct guest_source *from, uint64_t offset,
                       uint64_t size)
{
    while (size && w->status == STATUS_OK) {
        size_t n = 0;
        const void *data = offset < from->size ? from->map(from->ctx, offset, &n) : NULL;
        if (!data || n == 0) {
            w->status = ERR_RANGE;
            return;
        }
        if (n > size)
            n = size;
        writer_put(w, at, data, n);
        at += n;
        offset += n;
        size -= n;
    }
}
