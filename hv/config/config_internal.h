/* What the parts of the parser share.
 *
 *   config.c         the file: its lines, its sections, and what follows the last line
 *   config_keys.c    the table of keys, and what each does with its value
 *   config_value.c   kinds of values: choices, numbers, sizes, lists of CPUs, paths
 *   config_disk.c    the values of diskN and cdromN that are files in memory
 *   config_assign.c  the values of netN, diskN and pci that are devices of the machine
 *   config_check.c   what no value shows alone: between VMs, in a section, in the whole file, on a machine
 *   config_text.c    blanks, words, comments, UTF-8, quotations
 *   config_rule.c    the names of the rules
 *
 * Whatever answers bool and gets the parser has called config_fail() when it answers false. */
#pragma once

#include "hv/config/config.h"

enum config_section { SECTION_NONE, SECTION_MACHINE, SECTION_VM };

struct config_parser {
    struct config *config;
    struct config_error *error;
    struct span line; /* the current one, without its end */
    uint32_t line_number;
    enum config_section section;
    bool seen_machine;
    uint32_t seen_keys;   /* config_keys_bit() of those that were given in this section */
    struct config_vm *vm; /* in SECTION_VM */
};

/* A key's value, with comment and blanks removed; never empty. */
struct config_value {
    const char *key;  /* for people: net0 */
    struct span name; /* the key as it stands in the file: net1 */
    struct span text;
    uint32_t column;
};

/* ---- config.c ---- */

/* Fills the parser's error, at its current line. Always false. */
bool config_fail(struct config_parser *p, enum config_rule rule, uint32_t column, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* The column, from 1, of a byte of the current line. */
uint32_t config_column(const struct config_parser *p, const uint8_t *at);

/* ---- config_keys.c ---- */

/* A '#' at the end of a name stands for a digit. */
struct config_key {
    const char *name;
    enum config_section section;
    bool required;
    bool raw;  /* '#' and bytes that are not UTF-8 are part of the value */
    bool many; /* may be given several times */
    bool (*parse)(struct config_parser *p, const struct config_value *value);
};

/* NULL: a section of this kind has no such key. */
const struct config_key *config_keys_find(enum config_section section, struct span name);
/* A bit for each key. */
uint32_t config_keys_bit(const struct config_key *key);
/* As it is shown to people: net0. */
const char *config_keys_text(const struct config_key *key);
/* N of a name that ends with a digit: net1. */
uint8_t config_keys_number(struct span name);
/* A key of such a section that is required and not among the bits `seen`, or NULL. */
const struct config_key *config_keys_missing(enum config_section section, uint32_t seen);
/* Fails: config_keys_find() did not know `name`. Says what may have been meant. */
bool config_keys_unknown(struct config_parser *p, struct span name, uint32_t column);

/* ---- config_value.c ---- */

/* The value is one of `names`, whose index is *out; `listed` says them in a message. */
bool config_value_choice(struct config_parser *p, const struct config_value *v, const char *const *names,
                         unsigned count, const char *listed, unsigned *out);
/* All of `s` is a number, decimal or hexadecimal behind 0x. Leaves the message to the caller. */
bool config_value_number(struct span s, uint64_t *out);
/* Bytes: a number with K, M, G or nothing behind it. */
bool config_value_size(struct config_parser *p, const struct config_value *v, uint64_t *out);
/* 0-1,3: bit n of *out is CPU n. At least one, and none that a VM has. */
bool config_value_cpus(struct config_parser *p, const struct config_value *v, uint64_t *out);
/* A path that a boot partition can have, below the configuration's directory; with a NUL into
 * out[CONFIG_PATH_MAX]. */
bool config_value_path(struct config_parser *p, const struct config_value *v, char *out);

/* ---- config_disk.c ---- */

/* Is the value "ramdisk PATH"? *path is the value without its first word, whatever that is. */
bool config_disk_is_ramdisk(const struct config_value *v, struct config_value *path);
/* Adds a disk, or a CD-ROM drive. `path`: may be empty, which is an error. */
bool config_disk_parse(struct config_parser *p, const struct config_value *path, bool cdrom);

/* ---- config_check.c ---- */

/* No VM has this CPU. The VM whose list is being read has none yet. */
bool config_check_cpu(struct config_parser *p, unsigned cpu, uint32_t column);
/* No VM has this digit for its console. */
bool config_check_digit(struct config_parser *p, unsigned digit, uint32_t column);
/* The section that ends here has had what it must have, and nothing that excludes something else. Fails at a
 * line of the section, which p->line_number then is. */
bool config_check_section(struct config_parser *p);
/* Behind the last section. */
bool config_check_file(struct config_parser *p);

/* ---- config_text.c ---- */

bool config_text_is_blank(uint8_t c);
/* Without its first n bytes, which there are. */
struct span config_text_skip(struct span s, size_t n);
/* Without blanks at both ends. */
struct span config_text_trim(struct span s);
/* What stands before the first `c`: all of `s` when there is none. */
struct span config_text_before(struct span s, uint8_t c);
/* What stands before the first blank. */
struct span config_text_word(struct span s);
/* Trimmed, and without a comment: a '#' at the start or after a blank. */
struct span config_text_without_comment(struct span s);
/* Bytes (1 to 4) of the character that s, which is not empty, begins with; 0: not UTF-8. */
size_t config_text_utf8(struct span s);

/* The part of the user's text that a message repeats: cut, and safe for any terminal. */
#define CONFIG_QUOTE_MAX 40u
struct config_quote {
    char text[CONFIG_QUOTE_MAX + 4];
};
struct config_quote config_text_quote(struct span s);
