/* The values of `netN`, `diskN` and `pci`: which of the machine's devices a VM gets. A part of the parser
 * (hv/config/config_internal.h). */
#pragma once

#include "hv/config/config.h"

struct config_assign_error {
    enum config_rule rule;
    const uint8_t *at; /* within the text that was given */
    char message[240];
};

/* Parses one value; `name` is the key as it stands in the file, and out->kind what the key asks for. On
 * failure ERR_INVALID and *error. Line and column are the caller's. */
enum status config_assign_parse(struct span name, struct span text, struct config_assign *out,
                                struct config_assign_error *error);

/* Does `one` of VM `vm` contradict anything that the configuration has so far? ERR_EXISTS and *error, whose
 * `at` is not set. `one` itself may be in the configuration. */
enum status config_assign_check(const struct config *config, const struct config_vm *vm,
                                const struct config_assign *one, struct config_assign_error *error);
