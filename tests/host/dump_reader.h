/* Reads the dumps of hv/record/dump.h out of a console transcript. */
#pragma once

#include "hv/config/config.h"
#include "hv/record/dump.h"
#include "hv/vm.h"

struct dump_exit {
    uint64_t number;
    struct recorder_entry entry;
    char kind[40]; /* exit_kind_name() as the core saw it */
};

struct dump_vcpu {
    uint32_t id, cpu;
    uint64_t exits; /* ever */
    uint32_t count; /* of those below, oldest first */
    struct dump_exit kept[RECORDER_KEEPS];
    bool has_snapshot;
    struct vcpu_snapshot snapshot; /* without taken, wanted and served */
    char why_not[80];              /* why there is none */
};

struct dump {
    char vm[CONFIG_NAME_MAX];
    char state[80];
    uint64_t tsc, khz;
    uint32_t promised; /* vCPUs, as the first line says */
    uint32_t vcpu_count;
    struct dump_vcpu vcpus[VM_MAX_VCPUS];
};

enum dump_found {
    DUMP_NONE,   /* no (other) dump begins in the text */
    DUMP_WHOLE,  /* *out is a dump whose checksum is right */
    DUMP_BROKEN, /* one begins, but it is not whole: `why` */
};

/* Looks for the next dump from *at on and moves *at behind it (or behind what was wrong). `vm` names whose;
 * NULL: any. A broken dump leaves *out with what there was before the fault. */
enum dump_found dump_read(const char *text, size_t size, size_t *at, const char *vm, struct dump *out,
                          char *why, size_t why_size);
