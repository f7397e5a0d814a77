#include "hv/config/config_internal.h"
#include "hv/lib/bits.h"
#include "hv/lib/scan.h"
#include "hv/lib/string.h"

bool config_value_choice(struct config_parser *p, const struct config_value *v, const char *const *names,
                         unsigned count, const char *listed, unsigned *out)
{
    for (unsigned i = 0; i < count; i++) {
        if (span_equals(v->text, names[i])) {
            *out = i;
            return true;
        }
    }
    return config_fail(p, CONFIG_BAD_CHOICE, v->column, "%s cannot be '%s': use %s", v->key,
                       config_text_quote(v->text).text, listed);
}

bool config_value_number(struct span s, uint64_t *out)
{
    struct span hex = s;
    if (scan_char(&hex, '0') && (scan_char(&hex, 'x') || scan_char(&hex, 'X')))
        return scan_hex(&hex, 1, 16, out) && !hex.size;
    return scan_number(&s, out) && !s.size;
}

static bool size_shift(struct span suffix, unsigned *shift)
{
    static const char suffixes[] = "KMG";

    *shift = 0;
    if (!suffix.size)
        return true;
    for (unsigned i = 0; suffixes[i] && suffix.size == 1; i++) {
        if ((suffix.data[0] & ~0x20u) == (uint8_t)suffixes[i]) {
            *shift = 10 * (i + 1);
            return true;
        }
    }
    return false;
}

bool config_value_size(struct config_parser *p, const struct config_value *v, uint64_t *out)
{
    struct span rest = v->text;
    uint64_t n;
    unsigned shift;

    if (!scan_number(&rest, &n) || !size_shift(rest, &shift) || n > UINT64_MAX >> shift)
        return config_fail(p, CONFIG_BAD_SIZE, v->column,
                           "'%s' is not a size: write a whole number with K, M or G, as in %s = 512M",
                           config_text_quote(v->text).text, v->key);
    *out = n << shift;
    return true;
}

static bool add_cpu(struct config_parser *p, unsigned cpu, uint32_t column, uint64_t *set)
{
    if (*set & BIT(cpu))
        return config_fail(p, CONFIG_CPU_TWICE_IN_LIST, column, "CPU %u is in this list already", cpu);
    if (!config_check_cpu(p, cpu, column))
        return false;
    *set |= BIT(cpu);
    return true;
}

/* One element of a CPU list: "3" or "0-1". */
static bool parse_cpu_range(struct config_parser *p, struct span element, uint64_t *set)
{
    uint32_t column = config_column(p, element.data);
    struct span rest = element;
    uint64_t first, last;
    bool good = scan_number(&rest, &first);

    last = first;
    if (good && scan_char(&rest, '-'))
        good = scan_number(&rest, &last);
    if (!good || rest.size)
        return config_fail(p, CONFIG_BAD_CPU_LIST, column,
                           "'%s' is not a CPU or a range of CPUs: write a list as in cpus = 0-1,3",
                           config_text_quote(element).text);
    if (last < first)
        return config_fail(p, CONFIG_BAD_CPU_LIST, column, "the range '%s' runs backwards",
                           config_text_quote(element).text);
    if (last >= CONFIG_MAX_CPUS)
        return config_fail(p, CONFIG_CPU_OUT_OF_RANGE, column,
                           "there is no CPU %lu: CPUs are numbered from 0 to %u", (unsigned long)last,
                           CONFIG_MAX_CPUS - 1);
    for (uint64_t cpu = first; cpu <= last; cpu++)
        if (!add_cpu(p, (unsigned)cpu, column, set))
            return false;
    return true;
}

bool config_value_cpus(struct config_parser *p, const struct config_value *v, uint64_t *out)
{
    struct span rest = v->text;
    uint64_t set = 0;

    for (;;) {
        struct span element = config_text_before(rest, ',');
        if (!parse_cpu_range(p, config_text_trim(element), &set))
            return false;
        if (element.size == rest.size)
            break;
        rest = config_text_skip(rest, element.size + 1);
    }
    unsigned count = 0;
    for (uint64_t left = set; left; left &= left - 1)
        count++;
    if (count > CONFIG_MAX_VCPUS)
        return config_fail(p, CONFIG_TOO_MANY_CPUS, v->column, "a VM can have at most %u CPUs, these are %u",
                           CONFIG_MAX_VCPUS, count);
    *out = set;
    return true;
}

/* What is wrong with one part of a path between slashes, or NULL. */
static const char *path_part_fault(struct span part)
{
    /* What FAT cannot store in a name. */
    static const char forbidden[] = "\"*:<>?|";

    if (!part.size)
        return "has an empty part";
    if (span_equals(part, ".") || span_equals(part, ".."))
        return "has a '.' or '..' in it";
    for (size_t i = 0; i < part.size; i++) {
        if (part.data[i] == '\\')
            return "has a backslash: write / between directories";
        if (part.data[i] < ' ' || part.data[i] >= 0x7f)
            return "has a character that is not printable ASCII";
        for (const char *c = forbidden; *c; c++)
            if (part.data[i] == (uint8_t)*c)
                return "has a character that a boot partition cannot store (one of \" * : < > ? |)";
    }
    return NULL;
}

bool config_value_path(struct config_parser *p, const struct config_value *v, char *out)
{
    const char *fault = NULL;
    struct span rest = v->text;

    if (rest.data[0] == '/')
        return config_fail(p, CONFIG_BAD_PATH, v->column,
                           "'%s' is an absolute path: write it relative to this file",
                           config_text_quote(v->text).text);
    for (bool more = true; more && !fault;) {
        struct span part = config_text_before(rest, '/');
        fault = path_part_fault(part);
        more = part.size < rest.size;
        rest = config_text_skip(rest, more ? part.size + 1 : part.size);
    }
    if (fault)
        return config_fail(p, CONFIG_BAD_PATH, v->column, "the path '%s' %s", config_text_quote(v->text).text,
                           fault);
    if (v->text.size >= CONFIG_PATH_MAX)
        return config_fail(p, CONFIG_VALUE_TOO_LONG, v->column,
                           "this path has %u characters, at most %u are possible", (unsigned)v->text.size,
                           CONFIG_PATH_MAX - 1);
    memcpy(out, v->text.data, v->text.size);
    out[v->text.size] = 0;
    return true;
}
