#include "hv/config/config_assign.h"
#include "hv/config/config_internal.h"
#include "hv/lib/bdf.h"
#include "hv/lib/bits.h"
#include "hv/lib/fmt.h"
#include "hv/lib/near.h"
#include "hv/lib/scan.h"
#include "hv/lib/string.h"

#define VLAN_MAX      4094u /* IEEE 802.1Q: 0 and 4095 are not VLANs */
#define RATE_MAX      100000u
#define NAMESPACE_MAX 0xfffffffdull /* NVMe: ffffffff means all, fffffffe is reserved */
#define MAC_MULTICAST 1u            /* in its first byte */

/* One `name=value` of the text; `whole` for messages. */
struct option {
    struct span whole, value;
};

struct parse {
    struct span name; /* the key */
    struct config_assign *out;
    struct config_assign_error *error;
    uint32_t seen; /* bit n: options[n] was given */
};

static bool fail(struct config_assign_error *error, enum config_rule rule, const uint8_t *at,
                 const char *format, ...) __attribute__((format(printf, 4, 5)));

static bool fail(struct config_assign_error *error, enum config_rule rule, const uint8_t *at,
                 const char *format, ...)
{
    va_list args;

    error->rule = rule;
    error->at = at;
    va_start(args, format);
    fmt_vformat(error->message, sizeof(error->message), format, args);
    va_end(args);
    return false;
}

/* ---- numbers ---- */

/* All of `s` is a decimal number in [min, max]. */
static bool whole_number(struct span s, uint64_t min, uint64_t max, uint64_t *out)
{
    return scan_number(&s, out) && !s.size && *out >= min && *out <= max;
}

/* ---- which function ---- */

/* 01:00.0, or as lspci -D writes it, 0000:01:00.0. */
static bool parse_address(struct span s, uint16_t *bdf)
{
    uint64_t segment = 0, bus, device, function;
    struct span with_segment = s;

    if (scan_hex(&with_segment, 4, 4, &segment) && scan_char(&with_segment, ':'))
        s = with_segment;
    else
        segment = 0;
    if (segment || !scan_hex(&s, 2, 2, &bus) || !scan_char(&s, ':') || !scan_hex(&s, 2, 2, &device) ||
        !scan_char(&s, '.') || !scan_hex(&s, 1, 1, &function) || s.size || device > 31 || function > 7)
        return false;
    *bdf = PCI_BDF(bus, device, function);
    return true;
}

/* 8086:10c9, or 8086:10c9/1 for the second of them. */
static bool parse_id(struct span s, struct config_assign *out)
{
    uint64_t vendor, device;
    uint64_t nth = 0;

    if (!scan_hex(&s, 4, 4, &vendor) || !scan_char(&s, ':') || !scan_hex(&s, 4, 4, &device))
        return false;
    if (s.size && !(scan_char(&s, '/') && whole_number(s, 0, UINT8_MAX, &nth)))
        return false;
    out->vendor = (uint16_t)vendor;
    out->device = (uint16_t)device;
    out->nth = (uint8_t)nth;
    out->by_id = true;
    return true;
}

static bool parse_function(struct parse *p, struct span s)
{
    if (parse_address(s, &p->out->bdf) || parse_id(s, p->out))
        return true;
    return fail(p->error, CONFIG_BAD_FUNCTION, s.data,
                "'%s' is not a PCI function: write its address as in 01:00.0, or vendor and device as in "
                "8086:10c9, with /1 for the second of them",
                config_text_quote(s).text);
}

/* ---- options ---- */

static bool parse_pf(struct parse *p, const struct option *o)
{
    return parse_function(p, o->value);
}

static bool parse_index(struct parse *p, const struct option *o)
{
    uint64_t n;
    uint64_t last = p->out->kind == ASSIGN_NET_VF ? CONFIG_NET_VFS_MAX - 1 : CONFIG_VFS_MAX - 1;

    if (span_equals(o->value, "auto"))
        return true;
    if (!whole_number(o->value, 0, last, &n))
        return fail(p->error, CONFIG_BAD_INDEX, o->value.data,
                    "index cannot be '%s': use auto, or a number from 0 to %u",
                    config_text_quote(o->value).text, (unsigned)last);
    p->out->index = (int16_t)n;
    return true;
}

static bool parse_mac(struct parse *p, const struct option *o)
{
    struct span s = o->value;
    uint64_t byte, all = 0;
    bool good = true;

    for (unsigned i = 0; i < 6 && good; i++) {
        good = (i == 0 || scan_char(&s, ':')) && scan_hex(&s, 2, 2, &byte);
        if (good) {
            p->out->mac[i] = (uint8_t)byte;
            all |= byte;
        }
    }
    if (!good || s.size)
        return fail(p->error, CONFIG_BAD_MAC, o->value.data,
                    "'%s' is not a MAC address: write six bytes as in mac=52:54:00:aa:00:01",
                    config_text_quote(o->value).text);
    if (!all || (p->out->mac[0] & MAC_MULTICAST))
        return fail(p->error, CONFIG_BAD_MAC, o->value.data,
                    "the MAC address '%s' is %s: a card's own address has an even first byte, as in "
                    "52:54:00:aa:00:01",
                    config_text_quote(o->value).text, all ? "a group's" : "nobody's");
    p->out->has_mac = true;
    return true;
}

static bool parse_vlan(struct parse *p, const struct option *o)
{
    uint64_t n;

    if (!whole_number(o->value, 1, VLAN_MAX, &n))
        return fail(p->error, CONFIG_BAD_VLAN, o->value.data,
                    "vlan cannot be '%s': use a number from 1 to %u, or leave it out: then the guest may "
                    "choose",
                    config_text_quote(o->value).text, VLAN_MAX);
    p->out->vlan = (uint16_t)n;
    return true;
}

static bool parse_rate(struct parse *p, const struct option *o)
{
    uint64_t n;

    if (!whole_number(o->value, 1, RATE_MAX, &n))
        return fail(p->error, CONFIG_BAD_RATE, o->value.data,
                    "rate cannot be '%s': use Mbit/s, a number from 1 to %u, or leave it out: then there is "
                    "no limit",
                    config_text_quote(o->value).text, RATE_MAX);
    p->out->rate = (uint32_t)n;
    return true;
}

static bool parse_switch(struct parse *p, const struct option *o, const char *name, bool *out)
{
    if (!span_equals(o->value, "on") && !span_equals(o->value, "off"))
        return fail(p->error, CONFIG_BAD_CHOICE, o->value.data, "%s cannot be '%s': use on or off", name,
                    config_text_quote(o->value).text);
    *out = span_equals(o->value, "on");
    return true;
}

static bool parse_spoofcheck(struct parse *p, const struct option *o)
{
    return parse_switch(p, o, "spoofcheck", &p->out->spoofcheck);
}

static bool parse_trust(struct parse *p, const struct option *o)
{
    return parse_switch(p, o, "trust", &p->out->trust);
}

static bool parse_namespace(struct parse *p, const struct option *o)
{
    uint64_t n;

    if (!whole_number(o->value, 1, NAMESPACE_MAX, &n))
        return fail(p->error, CONFIG_BAD_NAMESPACE, o->value.data,
                    "namespace cannot be '%s': use the number of one of the controller's, from 1",
                    config_text_quote(o->value).text);
    p->out->namespace = (uint32_t)n;
    return true;
}

#define OF_NET  BIT(ASSIGN_NET_VF)
#define OF_NVME BIT(ASSIGN_NVME_VF)

static const struct option_rule {
    const char *name;
    uint8_t kinds;    /* that may have it */
    uint8_t required; /* that must */
    bool (*parse)(struct parse *p, const struct option *o);
} options[] = {
    {"pf", OF_NET | OF_NVME, OF_NET | OF_NVME, parse_pf},
    {"namespace", OF_NVME, OF_NVME, parse_namespace},
    {"index", OF_NET | OF_NVME, 0, parse_index},
    {"mac", OF_NET, 0, parse_mac},
    {"vlan", OF_NET, 0, parse_vlan},
    {"rate", OF_NET, 0, parse_rate},
    {"spoofcheck", OF_NET, 0, parse_spoofcheck},
    {"trust", OF_NET | OF_NVME, 0, parse_trust},
};

static const char *option_list(enum config_assign_kind kind)
{
    return kind == ASSIGN_NET_VF ? "pf, index, mac, vlan, rate, spoofcheck and trust"
                                 : "pf, namespace, index and trust";
}

static bool parse_option(struct parse *p, struct span word)
{
    struct span name = config_text_before(word, '=');

    for (unsigned i = 0; i < ARRAY_SIZE(options); i++) {
        if (!(options[i].kinds & BIT(p->out->kind)) || !span_equals(name, options[i].name))
            continue;
        struct option o = {.whole = word, .value = config_text_skip(word, name.size)};
        if (!scan_char(&o.value, '=') || !o.value.size)
            return fail(p->error, CONFIG_BAD_OPTION, word.data,
                        "'%s' has no value: write %s=... without blanks", options[i].name, options[i].name);
        if (p->seen & BIT(i))
            return fail(p->error, CONFIG_BAD_OPTION, word.data, "'%s' is in this line already",
                        options[i].name);
        p->seen |= (uint32_t)BIT(i);
        return options[i].parse(p, &o);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(options); i++)
        if ((options[i].kinds & BIT(p->out->kind)) && near_miss(name, options[i].name))
            return fail(p->error, CONFIG_BAD_OPTION, word.data, "there is no '%s' here: did you mean '%s'?",
                        config_text_quote(name).text, options[i].name);
    return fail(p->error, CONFIG_BAD_OPTION, word.data, "there is no '%s' here: there are %s",
                config_text_quote(name).text, option_list(p->out->kind));
}

static struct span next_word(struct span *rest)
{
    while (rest->size && config_text_is_blank(rest->data[0]))
        *rest = config_text_skip(*rest, 1);
    struct span word = config_text_word(*rest);
    *rest = config_text_skip(*rest, word.size);
    return word;
}

static bool parse_vf(struct parse *p, struct span text)
{
    const char *type = p->out->kind == ASSIGN_NET_VF ? "vf" : "nvme-vf";
    struct span first = next_word(&text);

    if (!span_equals(first, type))
        return fail(p->error, CONFIG_BAD_CHOICE, first.data,
                    "%s cannot be '%s': use %s, as in %s = %s pf=01:00.0%s", config_text_quote(p->name).text,
                    config_text_quote(first).text, type, config_text_quote(p->name).text, type,
                    p->out->kind == ASSIGN_NET_VF ? "" : " namespace=1");
    for (struct span word = next_word(&text); word.size; word = next_word(&text))
        if (!parse_option(p, word))
            return false;
    for (unsigned i = 0; i < ARRAY_SIZE(options); i++)
        if ((options[i].required & BIT(p->out->kind)) && !(p->seen & BIT(i)))
            return fail(p->error, CONFIG_MISSING_OPTION, first.data,
                        "%s needs %s=, as in %s = %s pf=01:00.0%s", config_text_quote(p->name).text,
                        options[i].name, config_text_quote(p->name).text, type,
                        p->out->kind == ASSIGN_NET_VF ? "" : " namespace=1");
    return true;
}

enum status config_assign_parse(struct span name, struct span text, struct config_assign *out,
                                struct config_assign_error *error)
{
    struct parse p = {.name = name, .out = out, .error = error};

    *out = (struct config_assign){.kind = out->kind, .number = out->number, .index = -1, .spoofcheck = true};
    if (out->kind == ASSIGN_PCI)
        return parse_function(&p, text) ? STATUS_OK : ERR_INVALID;
    return parse_vf(&p, text) ? STATUS_OK : ERR_INVALID;
}

/* ---- against the others ---- */

static bool same_function(const struct config_assign *a, const struct config_assign *b)
{
    if (a->by_id != b->by_id)
        return false; /* the machine will tell */
    return a->by_id ? a->vendor == b->vendor && a->device == b->device && a->nth == b->nth : a->bdf == b->bdf;
}

static bool check_pair(const struct config_assign *one, const struct config_vm *vm,
                       const struct config_assign *other, struct config_assign_error *error)
{
    if (one->has_mac && other->has_mac && memcmp(one->mac, other->mac, sizeof(one->mac)) == 0)
        return fail(error, CONFIG_MAC_TAKEN, NULL,
                    "this MAC address belongs to VM '%s' already (line %u): give each its own", vm->name,
                    other->line);
    if (!same_function(one, other))
        return true;
    if (one->kind != other->kind || one->kind == ASSIGN_PCI)
        return fail(error, CONFIG_FUNCTION_TAKEN, NULL, "this function is %s VM '%s' already (line %u)",
                    other->kind == ASSIGN_PCI ? "given to" : "the PF of a VF of", vm->name, other->line);
    if (one->index >= 0 && one->index == other->index)
        return fail(error, CONFIG_INDEX_TAKEN, NULL,
                    "VF %d of this PF belongs to VM '%s' already (line %u): use index=auto or another",
                    one->index, vm->name, other->line);
    if (one->kind == ASSIGN_NVME_VF && one->namespace == other->namespace)
        return fail(
            error, CONFIG_NAMESPACE_TAKEN, NULL,
            "namespace %u of this controller belongs to VM '%s' already (line %u): a namespace is one "
            "VM's",
            one->namespace, vm->name, other->line);
    return true;
}

enum status config_assign_check(const struct config *config, const struct config_vm *vm,
                                const struct config_assign *one, struct config_assign_error *error)
{
    unsigned vfs = 1;

    for (uint32_t i = 0; i < config->vm_count; i++) {
        const struct config_vm *owner = &config->vms[i];
        for (uint32_t j = 0; j < owner->assigned_count; j++) {
            const struct config_assign *other = &owner->assigned[j];
            if (other == one)
                continue;
            if (owner == vm && other->kind != ASSIGN_PCI && other->kind == one->kind &&
                other->number == one->number) {
                (void)fail(error, CONFIG_DUPLICATE_KEY, NULL, "'%s%u' was given already in this section",
                           one->kind == ASSIGN_NET_VF ? "net" : "disk", one->number);
                return ERR_EXISTS;
            }
            if (!check_pair(one, owner, other, error))
                return ERR_EXISTS;
            vfs += one->kind == ASSIGN_NET_VF && same_function(one, other);
        }
    }
    if (vfs > CONFIG_NET_VFS_MAX) {
        (void)fail(error, CONFIG_TOO_MANY_VFS, NULL, "a card can give %u VFs to VMs, this is number %u of it",
                   CONFIG_NET_VFS_MAX, vfs);
        return ERR_EXISTS;
    }
    return STATUS_OK;
}
