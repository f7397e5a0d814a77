#include "hv/config/config_internal.h"
#include "hv/lib/bits.h"
#include "hv/lib/fmt.h"
#include "hv/lib/near.h"
#include "hv/lib/scan.h"
#include "hv/lib/string.h"

bool config_fail(struct config_parser *p, enum config_rule rule, uint32_t column, const char *format, ...)
{
    va_list args;

    *p->error = (struct config_error){.rule = rule, .line = p->line_number, .column = column};
    va_start(args, format);
    fmt_vformat(p->error->message, sizeof(p->error->message), format, args);
    va_end(args);
    return false;
}

uint32_t config_column(const struct config_parser *p, const uint8_t *at)
{
    return (uint32_t)(at - p->line.data) + 1;
}

/* ---- sections ---- */

static bool is_name_char(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || scan_is_digit(c) || c == '-';
}

static bool begin_vm(struct config_parser *p, struct span name, uint32_t column)
{
    struct config *config = p->config;
    bool good = name.size > 0 && name.size < CONFIG_NAME_MAX;

    for (size_t i = 0; good && i < name.size; i++)
        good = is_name_char(name.data[i]);
    if (!good)
        return config_fail(
            p, CONFIG_BAD_VM_NAME, column,
            "'%s' cannot name a VM: use 1 to %u of the characters a-z, 0-9 and -, as in [vm web]",
            config_text_quote(name).text, CONFIG_NAME_MAX - 1);
    for (uint32_t i = 0; i < config->vm_count; i++)
        if (span_equals(name, config->vms[i].name))
            return config_fail(p, CONFIG_DUPLICATE_SECTION, column, "VM '%s' was described already (line %u)",
                               config->vms[i].name, config->vms[i].line);
    if (config->vm_count == CONFIG_MAX_VMS)
        return config_fail(p, CONFIG_TOO_MANY_VMS, column, "there can be at most %u VMs", CONFIG_MAX_VMS);
    p->vm = &config->vms[config->vm_count++];
    memcpy(p->vm->name, name.data, name.size);
    p->vm->line = p->line_number;
    p->vm->on_reboot = ON_STOP_RESTART;
    p->vm->on_crash = ON_STOP_STOP;
    p->section = SECTION_VM;
    return true;
}

static bool parse_section(struct config_parser *p, struct span text)
{
    uint32_t column = config_column(p, text.data);

    if (text.data[text.size - 1] != ']')
        return config_fail(p, CONFIG_BAD_SECTION, column,
                           "a section is one line in brackets, as in [machine] or [vm web]");
    uint32_t number = p->line_number;
    if (!config_check_section(p))
        return false;
    p->line_number = number;
    p->seen_keys = 0;
    struct span inner = config_text_trim((struct span){text.data + 1, text.size - 2});
    struct span kind = config_text_word(inner), name = config_text_trim(config_text_skip(inner, kind.size));
    if (span_equals(kind, "vm"))
        return begin_vm(p, name, name.size ? config_column(p, name.data) : column);
    if (!span_equals(kind, "machine"))
        return config_fail(
            p, CONFIG_UNKNOWN_SECTION, column, "there is no section [%s]: %s", config_text_quote(inner).text,
            near_miss(kind, "machine") ? "did you mean [machine]?" : "there are [machine] and [vm NAME]");
    if (name.size)
        return config_fail(p, CONFIG_BAD_SECTION, config_column(p, name.data), "[machine] takes no name");
    if (p->seen_machine)
        return config_fail(p, CONFIG_DUPLICATE_SECTION, column, "there can be only one [machine] section");
    p->seen_machine = true;
    p->section = SECTION_MACHINE;
    return true;
}

/* ---- lines ---- */

static bool parse_assignment(struct config_parser *p, struct span text)
{
    uint32_t column = config_column(p, text.data);
    struct span left = config_text_before(text, '=');

    if (left.size == text.size)
        return config_fail(p, CONFIG_NO_EQUALS, column, "'%s' is neither a [section] nor 'key = value'",
                           config_text_quote(text).text);
    struct span name = config_text_trim(left);
    if (p->section == SECTION_NONE)
        return config_fail(p, CONFIG_KEY_OUTSIDE_SECTION, column,
                           "'%s' stands before any section: begin with [machine] or [vm NAME]",
                           config_text_quote(name).text);
    const struct config_key *key = config_keys_find(p->section, name);
    if (!key)
        return config_keys_unknown(p, name, column);
    uint32_t bit = config_keys_bit(key);
    if (!key->many && (p->seen_keys & bit))
        return config_fail(p, CONFIG_DUPLICATE_KEY, column, "'%s' was given already in this section",
                           key->name);
    p->seen_keys |= bit;
    struct span rest = config_text_skip(text, left.size + 1);
    struct config_value value = {.key = config_keys_text(key), .name = name};
    value.text = key->raw ? config_text_trim(rest) : config_text_without_comment(rest);
    value.column = config_column(p, value.text.size ? value.text.data : rest.data);
    if (!value.text.size)
        return config_fail(p, CONFIG_EMPTY_VALUE, value.column, "'%s' has no value%s", value.key,
                           key->required ? "" : ": give it one, or leave the line out");
    return key->parse(p, &value);
}

/* Is the line of the form "cmdline = ..."? Its value may hold bytes of any character set. */
static bool is_raw_line(const struct config_parser *p, struct span text)
{
    const struct config_key *key =
        config_keys_find(p->section, config_text_trim(config_text_before(text, '=')));

    return key && key->raw;
}

static bool check_bytes(struct config_parser *p)
{
    bool raw = is_raw_line(p, config_text_trim(p->line));
    size_t n;

    for (struct span s = p->line; s.size; s = config_text_skip(s, n)) {
        uint8_t c = s.data[0];
        n = config_text_utf8(s);
        if ((c < ' ' && c != '\t') || c == 0x7f)
            return config_fail(p, CONFIG_BAD_BYTE, config_column(p, s.data),
                               "a control character (0x%02x): is this a text file?", c);
        if (!n && !raw)
            return config_fail(p, CONFIG_BAD_BYTE, config_column(p, s.data),
                               "byte 0x%02x is not UTF-8: save the file as UTF-8", c);
        if (!n)
            n = 1;
    }
    return true;
}

static bool parse_line(struct config_parser *p)
{
    if (p->line.size > CONFIG_LINE_MAX)
        return config_fail(p, CONFIG_LINE_TOO_LONG, CONFIG_LINE_MAX + 1, "this line is longer than %u bytes",
                           CONFIG_LINE_MAX);
    if (!check_bytes(p))
        return false;
    struct span text = config_text_trim(p->line);
    if (!text.size || text.data[0] == '#')
        return true;
    if (text.data[0] == '[')
        return parse_section(p, config_text_without_comment(text));
    return parse_assignment(p, text);
}

static struct span next_line(struct span *rest)
{
    struct span line = config_text_before(*rest, '\n');

    *rest = config_text_skip(*rest, line.size < rest->size ? line.size + 1 : line.size);
    if (line.size && line.data[line.size - 1] == '\r')
        line.size--;
    return line;
}

/* ---- the file ---- */

/* What a VM did not say: depends on all sections, which come in any order. */
static void fill_defaults(struct config *config)
{
    uint32_t taken = 0;

    for (uint32_t i = 0; i < config->vm_count; i++)
        taken |= (uint32_t)BIT(config->vms[i].console);
    for (uint32_t i = 0; i < config->vm_count; i++) {
        struct config_vm *vm = &config->vms[i];
        if (!vm->log_line)
            vm->log = config->log;
        if (vm->console)
            continue;
        vm->console = 1;
        while (taken & BIT(vm->console)) /* there are as many digits as VMs */
            vm->console++;
        taken |= (uint32_t)BIT(vm->console);
    }
}
STATIC_ASSERT(CONFIG_DIGITS >= CONFIG_MAX_VMS, "each VM gets a digit");

enum status config_parse(struct span text, struct config *out, struct config_error *error)
{
    static const uint8_t bom[] = {0xef, 0xbb, 0xbf};
    struct config_parser p = {.config = out, .error = error};

    *out = (struct config){.console = CONSOLE_AUTO, .on_idle = ON_IDLE_POWEROFF, .log = LOG_INFO};
    *error = (struct config_error){.rule = CONFIG_OK};
    if (text.size > CONFIG_MAX_SIZE) {
        config_fail(&p, CONFIG_TOO_BIG, 0, "the file is larger than %u KiB: is it really the configuration?",
                    CONFIG_MAX_SIZE >> 10);
        return ERR_INVALID;
    }
    if (text.size >= sizeof(bom) && memcmp(text.data, bom, sizeof(bom)) == 0)
        text = config_text_skip(text, sizeof(bom));
    while (text.size) {
        p.line = next_line(&text);
        p.line_number++;
        if (!parse_line(&p))
            return ERR_INVALID;
    }
    if (!config_check_section(&p) || !config_check_file(&p))
        return ERR_INVALID;
    fill_defaults(out);
    return STATUS_OK;
}
