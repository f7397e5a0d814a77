/* User-mode instruction prevention (SDM volume 3, section 2.5, CR4.UMIP): with it SGDT, SIDT, SLDT, STR and
 * SMSW are #GP(0) where CPL is above 0, in any mode; without it, and at CPL 0, they tell whoever asks. */
#include "rules.h"

#define CR4_UMIP (1ull << 11)
#define FORMS(X)                                                                                             \
    X(sgdt, true, "sgdt")                                                                                    \
    X(sidt, true, "sidt")                                                                                    \
    X(sldt, false, "sldt")                                                                                   \
    X(str, false, "str")                                                                                     \
    X(smsw, true, "smsw")
#define UNTOUCHED    0x5a5a5a5a5a5a5a5aull
#define TARGET       0x8000u /* every mode's DS reaches it, and nobody has it */
#define SEGMENT_BASE 0x6000u /* the lab's DS in real-address and virtual-8086 mode */

/* To memory: SI has the address. */
#define MEMORY_SNIPPETS(name, real, text)                                                                    \
    SNIPPET(name##_16, 16, text " (%si)");                                                                   \
    SNIPPET(name##_32, 32, text " (%esi)");                                                                  \
    SNIPPET(name##_64, 64, text " (%rsi)");
FORMS(MEMORY_SNIPPETS)

SNIPPET(sldt_register, 32, "sldt %eax");
SNIPPET(str_register, 32, "str %eax");
SNIPPET(smsw_register, 32, "smsw %eax");

/* What the five do not include: these go on as ever. */
SNIPPET(lar, 32, "xor %ecx, %ecx; lar %ecx, %eax");
SNIPPET(verr, 32, "xor %ecx, %ecx; verr %cx");

struct code {
    const uint8_t *start, *end;
};

static const struct {
    const char *name;
    bool real; /* exists in real-address and virtual-8086 mode */
    struct code by_width[3];
} instructions[] = {
#define ROW(name, real, text)                                                                                \
    {text, real, {{name##_16, name##_16_end}, {name##_32, name##_32_end}, {name##_64, name##_64_end}}},
    FORMS(ROW)
#undef ROW
};
#define INSTRUCTION_COUNT (sizeof(instructions) / sizeof(instructions[0]))

static const struct {
    enum lab_mode mode;
    uint8_t width; /* of its snippets: 0, 1, 2 for 16, 32, 64 bits */
} modes[] = {
    {MODE_LONG, 2},          {MODE_LONG_USER, 2},   {MODE_COMPAT, 1},
    {MODE_COMPAT_USER, 1},   {MODE_PROTECTED, 1},   {MODE_PROTECTED_USER, 1},
    {MODE_COMPAT16_USER, 0}, {MODE_PROTECTED16, 0}, {MODE_PAE_USER, 1},
    {MODE_V86, 0},           {MODE_REAL, 0},
};

/* CR4.UMIP while code of any mode runs: the long modes have the CR4 of now. */
static void set_umip(bool on)
{
    write_cr4(on ? read_cr4() | CR4_UMIP : read_cr4() & ~CR4_UMIP);
    lab_more_cr4 = on ? CR4_UMIP : 0;
}

static unsigned run_code(enum lab_mode mode, struct code code)
{
    return lab_execute(mode, code.start, (size_t)(code.end - code.start));
}

static void to_memory(enum lab_mode mode, unsigned width, unsigned i, bool on)
{
    bool segmented = mode == MODE_V86 || mode == MODE_REAL;
    uint64_t *target = (uint64_t *)(low_memory + TARGET);
    target[0] = target[1] = UNTOUCHED;
    lab_clear();
    lab.gpr[6] = segmented ? TARGET - SEGMENT_BASE : TARGET;
    unsigned vector = run_code(mode, instructions[i].by_width[width]);
    unsigned expected = segmented && !instructions[i].real ? VECTOR_UD
                        : on && lab_is_user(mode)          ? VECTOR_GP
                                                           : VECTOR_BP;
    check(vector == expected, "%s, %s, UMIP %u: vector %u, expected %u", lab_mode_names[mode],
          instructions[i].name, (uint64_t)on, (uint64_t)vector, (uint64_t)expected);
    check(expected != VECTOR_GP || lab.error == 0, "%s, %s: error code %x", lab_mode_names[mode],
          instructions[i].name, (uint64_t)lab.error);
    bool stored = target[0] != UNTOUCHED;
    check(stored == (expected == VECTOR_BP) && target[1] >> 16 == UNTOUCHED >> 16,
          "%s, %s, UMIP %u: memory has %x", lab_mode_names[mode], instructions[i].name, (uint64_t)on,
          target[0]);
}

static void to_register(bool on)
{
    static const struct code forms[] = {{sldt_register, sldt_register_end},
                                        {str_register, str_register_end},
                                        {smsw_register, smsw_register_end}};
    static const struct code others[] = {{lar, lar_end}, {verr, verr_end}};
    for (unsigned i = 0; i < 3; i++) {
        lab_clear();
        check(run_code(MODE_COMPAT_USER, forms[i]) == (on ? VECTOR_GP : VECTOR_BP), "user, form %u, UMIP %u",
              (uint64_t)i, (uint64_t)on);
        lab_clear();
        check(run_code(MODE_COMPAT, forms[i]) == VECTOR_BP, "supervisor, form %u, UMIP %u", (uint64_t)i,
              (uint64_t)on);
    }
    for (unsigned i = 0; i < 2; i++) {
        lab_clear();
        check(run_code(MODE_COMPAT_USER, others[i]) == VECTOR_BP, "LAR and VERR are not prevented");
    }
}

void rule_umip(void)
{
    bool has = cpu_has(7, 0, 2, 2);
    if (!has)
        skipped("UMIP");
    for (unsigned on = 0; on <= has; on++) {
        set_umip(on);
        for (unsigned m = 0; m < sizeof(modes) / sizeof(modes[0]); m++) {
            for (unsigned i = 0; i < INSTRUCTION_COUNT; i++)
                to_memory(modes[m].mode, modes[m].width, i, on);
        }
        to_register(on);
    }
    set_umip(false);
}
