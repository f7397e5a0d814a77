/* Every port: each width, IN and OUT, and the string forms with REP, segment overrides, page crossings, in
 * the modes that have them. The ports that end the VM are asked by program_reset. */
#include "hostile.h"

#define SPARE       0x500000ull /* memory for string forms: two pages */
#define LOW_SPARE   0x7000u     /* the same for real mode */
#define PM1_CONTROL 0x604u

struct port_access {
    uint16_t port;
    uint8_t width;
    bool write;
    uint32_t value;
};

static void access(void *argument)
{
    struct port_access *a = argument;
    switch (a->width) {
    case 1:
        a->write ? out8(a->port, (uint8_t)a->value) : (void)in8(a->port);
        break;
    case 2:
        a->write ? out16(a->port, (uint16_t)a->value) : (void)in16(a->port);
        break;
    default:
        a->write ? out32(a->port, a->value) : (void)in32(a->port);
    }
}

/* Does a write of `width` bytes touch a port that can end the VM, or this text's way out? */
static bool is_final(unsigned port, unsigned width)
{
    static const struct {
        uint16_t first, last;
    } finals[] = {{0x64, 0x64}, {0x92, 0x92}, {0xcf9, 0xcf9}, {PM1_CONTROL, PM1_CONTROL + 1}, {0x3f8, 0x3ff}};
    for (unsigned i = 0; i < sizeof(finals) / sizeof(finals[0]); i++) {
        if (port + width > finals[i].first && port <= finals[i].last)
            return true;
    }
    return false;
}

static void quiet(void)
{
    out8(0x21, 0xff);
    out8(0xa1, 0xff);
}

void program_port(unsigned step)
{
    struct chance c = {option_number("seed", 1)};
    uint64_t accesses = 0, faults = 0;
    (void)step;
    for (unsigned port = 0; port < 0x10000; port++) {
        for (unsigned width = 1; width <= 4; width *= 2) {
            struct port_access a = {(uint16_t)port, (uint8_t)width, false, 0};
            faults += guarded(access, &a) != NO_FAULT;
            accesses++;
            if (is_final(port, width))
                continue;
            a.write = true;
            a.value = (uint32_t)chance_next(&c);
            faults += guarded(access, &a) != NO_FAULT;
            accesses++;
        }
        if (port % 256 == 0)
            quiet();
    }
    quiet();
    verdict("port", faults == 0, "%u accesses, %u faults", accesses, faults);
}

/* String forms in one mode: prefix bytes, opcode, the vector seen. */
static uint64_t strings_in(enum lab_mode mode, struct chance *c, uint64_t *ended)
{
    static const uint8_t overrides[] = {0, 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65};
    static const uint8_t ops[] = {0x6c, 0x6d, 0x6e, 0x6f};
    static const uint16_t ports[] = {0x80, 0x3fd, 0x71, 0x40, 0xcfc, 0x1234, 0xfffd, 0x608};
    bool low =
        mode == MODE_REAL || mode == MODE_V86 || mode == MODE_PROTECTED16 || mode == MODE_COMPAT16_USER;
    uint64_t count = 0;
    for (unsigned i = 0; i < 7 * 4 * 2 * 2 * 2; i++) {
        uint8_t code[8], n = 0;
        if (overrides[i % 7])
            code[n++] = overrides[i % 7];
        if (i / 7 / 4 & 1)
            code[n++] = 0x66;
        if (i / 7 / 4 & 2)
            code[n++] = 0x67;
        if (i / 7 / 4 & 4)
            code[n++] = chance_next(c) & 1 ? 0xf3 : 0xf2;
        code[n++] = ops[i / 7 % 4];
        lab_clear();
        uint64_t base = low ? LOW_SPARE : SPARE;
        lab.gpr[6] = lab.gpr[7] = base + PAGE - 1 - chance_below(c, 6); /* across a page */
        lab.gpr[1] = chance_below(c, 40);
        lab.gpr[2] = ports[chance_below(c, sizeof(ports) / sizeof(ports[0]))];
        unsigned vector = lab_execute(mode, code, n);
        *ended += vector == VECTOR_BP;
        count++;
        if (vector != VECTOR_BP && vector != VECTOR_GP && vector != VECTOR_PF)
            print("hostile: port_string: mode %s, case %u: vector %u\n", lab_mode_names[mode], (uint64_t)i,
                  (uint64_t)vector);
    }
    return count;
}

/* REP INS and OUTS from and to places where a page is missing, or a device is. */
static uint64_t strings_at_holes(void)
{
    static const uint8_t rep_ins[] = {0xf3, 0x6c}, rep_outs[] = {0xf3, 0x6f};
    static const uint64_t places[] = {APIC_PAGE,         APIC_PAGE + PAGE - 2, IOAPIC_PAGE,        0xd0000000,
                                      ECAM_PAGE + 0xffd, 0x7ffffffffffff000,   0xffffffffffffffff, 0x9ffff};
    uint64_t faults = 0;
    for (unsigned i = 0; i < 2 * sizeof(places) / sizeof(places[0]); i++) {
        lab_clear();
        lab.gpr[6] = lab.gpr[7] = places[i / 2];
        lab.gpr[1] = 5000;
        lab.gpr[2] = i & 1 ? 0x71 : 0x80;
        faults += lab_execute(MODE_LONG, i & 1 ? rep_ins : rep_outs, 2) != VECTOR_BP;
    }
    return faults;
}

void program_port_string(unsigned step)
{
    struct chance c = {option_number("seed", 1)};
    uint64_t count = 0, ended = 0;
    (void)step;
    for (unsigned mode = 0; mode < MODE_COUNT; mode++)
        count += strings_in(mode, &c, &ended);
    uint64_t faults = strings_at_holes();
    apic_write(APIC_SVR, 0x1ff);
    quiet();
    verdict("port_string", ended > count / 2, "%u forms in %u modes, %u done; %u of 16 at holes faulted",
            count, (uint64_t)MODE_COUNT, ended, faults);
}
