/* Runs the rules that the command line names, test=a,b,c, or all of them; then the VM is switched off. */
#include "rules.h"

const char guest_name[] = "rules";

#define ROW(name) {#name, rule_##name},
static const struct {
    const char *name;
    void (*run)(void);
} rules[] = {RULES(ROW)};
#define RULE_COUNT (sizeof(rules) / sizeof(rules[0]))

static const char *current;
static uint64_t checks, failed;

static void print_failure(const char *format, va_list list)
{
    print("rules: FAIL %s: ", current);
    print_list(format, list);
    print("\n");
}

bool check(bool good, const char *format, ...)
{
    checks++;
    if (good)
        return true;
    failed++;
    va_list list;
    va_start(list, format);
    print_failure(format, list);
    va_end(list);
    return false;
}

bool check_equal(uint64_t found, uint64_t expected, const char *what)
{
    return check(found == expected, "%s: %x, expected %x", what, found, expected);
}

void skipped(const char *what)
{
    print("rules: %s: not offered here: %s\n", current, what);
}

bool cpu_has(uint32_t leaf, uint32_t subleaf, unsigned reg, unsigned bit)
{
    uint32_t r[4];
    cpuid(leaf & 0x80000000, 0, r);
    if (r[0] < leaf)
        return false;
    cpuid(leaf, subleaf, r);
    return r[reg] >> bit & 1;
}

struct one {
    uint32_t number;
    uint64_t value;
};

static void one_wrmsr(void *argument)
{
    const struct one *o = argument;
    wrmsr(o->number, o->value);
}

static void one_rdmsr(void *argument)
{
    struct one *o = argument;
    o->value = rdmsr(o->number);
}

static void one_cr4(void *argument)
{
    write_cr4(((const struct one *)argument)->value);
}

unsigned try_wrmsr(uint32_t msr, uint64_t v)
{
    struct one o = {msr, v};
    return guarded(one_wrmsr, &o);
}

unsigned try_rdmsr(uint32_t msr, uint64_t *v)
{
    struct one o = {msr, 0};
    unsigned vector = guarded(one_rdmsr, &o);
    *v = o.value;
    return vector;
}

unsigned try_write_cr4(uint64_t v)
{
    struct one o = {0, v};
    return guarded(one_cr4, &o);
}

static bool chosen(const char *names, const char *name)
{
    while (*names) {
        size_t i = 0;
        while (name[i] && names[i] == name[i])
            i++;
        if (!name[i] && (names[i] == ',' || !names[i]))
            return true;
        while (*names && *names++ != ',')
            ;
    }
    return false;
}

void guest_main(void)
{
    char names[256];
    bool all = !option_text("test", names, sizeof(names));
    for (unsigned i = 0; i < RULE_COUNT; i++) {
        if (!all && !chosen(names, rules[i].name))
            continue;
        current = rules[i].name;
        checks = failed = 0;
        rules[i].run();
        interrupts_off();
        print("rules: %s: %u checks, %u failed\n", current, checks, failed);
    }
    print("rules: done\n");
}
