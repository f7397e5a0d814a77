/* The dump reader on any text; a dump that it takes for whole is run again. Properties: counts stay in their
 * bounds, the reader always gets further and ends, every exit of a whole dump gets exactly one verdict, and a
 * whole dump stays whole when other lines stand before it but not without its last line. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tests/host/replay.h"

static struct dump dump;
static struct dump again;

static void check(bool ok)
{
    if (!ok)
        abort();
}

static void check_whole(void)
{
    check(dump.vcpu_count == dump.promised && dump.vcpu_count >= 1 && dump.vcpu_count <= VM_MAX_VCPUS);
    for (uint32_t i = 0; i < dump.vcpu_count; i++) {
        const struct dump_vcpu *v = &dump.vcpus[i];
        check(v->id == i && v->count <= RECORDER_KEEPS && v->snapshot.code_size <= DUMP_CODE);
        struct replay r = replay_vcpu(&dump, v, NULL);
        check(r.same + r.decoded + r.differ == v->count);
    }
}

/* [from, to) is the text of the dump that `dump` holds. */
static void check_lines(const char *text, size_t from, size_t to)
{
    static const char noise[] = "noise\n=dump 1\n";
    char why[400];
    size_t size = to - from, at = 0;
    char *copy = malloc(size + sizeof(noise));
    memcpy(copy, noise, sizeof(noise) - 1);
    memcpy(copy + sizeof(noise) - 1, text + from, size);
    check(dump_read(copy, size + sizeof(noise) - 1, &at, dump.vm, &again, why, sizeof(why)) == DUMP_WHOLE);
    check(again.tsc == dump.tsc && again.vcpu_count == dump.vcpu_count);
    size--; /* the last newline, and then the last line */
    while (size && text[from + size - 1] != '\n')
        size--;
    at = 0;
    check(dump_read(text + from, size, &at, dump.vm, &again, why, sizeof(why)) != DUMP_WHOLE);
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    char why[400];
    size_t at = 0, before = 0;
    enum dump_found found;
    while ((found = dump_read(text, size, &at, NULL, &dump, why, sizeof(why))) != DUMP_NONE) {
        check(at > before && at <= size);
        if (found == DUMP_WHOLE) {
            check_whole();
            check_lines(text, before, at);
        } else {
            check(why[0] && strlen(why) < sizeof(why));
        }
        before = at;
    }
    return 0;
}
