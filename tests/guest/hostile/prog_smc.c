/* Self-modifying code under emulation: one processor executes an instruction that accesses a device, the
 * other changes its bytes all the time, so that they differ between the exit and the decoding. */
#include "hostile.h"

#define ROUNDS       20000u
#define CHANGE_PAUSE 130u /* of PAUSEs, which take their time */

/* Three bytes and a RET; what begins in the middle of a change may be longer, and ends at one of the RETs
 * behind. */
static uint32_t code[8] __attribute__((aligned(4096)));
static volatile uint64_t changes;

struct changer {
    const uint32_t *forms;
    uint32_t count;
};

/* Little-endian: the first byte is the lowest. Each uses RBX, which points to a device. */
static const uint32_t known[] = {
    0xc390038b, /* mov eax, [rbx]; nop; ret */
    0xc3900389, /* mov [rbx], eax */
    0xc3900384, /* test [rbx], al */
    0xc3038b90, /* nop; mov eax, [rbx] */
    0xc303b60f, /* movzx eax, byte [rbx] */
    0xc3900301, /* add [rbx], eax */
    0xc390a20f, /* cpuid */
    0xc390ee90, /* nop; out dx, al */
    0xc390906c, /* insb */
    0xc390a4f3, /* rep movsb */
    0xc3900b0f, /* ud2 */
    0xc390310f, /* rdtsc */
    0xc3c3c3c3,
};

static const uint32_t unknown[] = {
    0xc390038b, /* mov eax, [rbx] */
    0xc303580f, /* addps xmm0, [rbx]: not emulated */
    0xc303ef0f, /* pxor mm0, [rbx] */
};

static void change(void *argument)
{
    const struct changer *c = argument;
    struct chance by = {7};
    for (;;) {
        *(volatile uint32_t *)code = c->forms[chance_below(&by, c->count)];
        changes++;
        for (unsigned i = chance_below(&by, CHANGE_PAUSE); i; i--)
            relax();
    }
}

static void execute(void *argument)
{
    (void)argument;
    __asm__ volatile("mov %%rsp, %%r12\n\t" /* a PUSH may have come between */
                     "lea 1f(%%rip), %%rax\n\t"
                     "push %%rax\n\t"
                     "xor %%eax, %%eax\n\t"
                     "jmp *%3\n"
                     "1: mov %%r12, %%rsp"
                     :
                     : "b"(IOAPIC_PAGE), "d"(0x80), "c"(3), "r"((uint64_t)(uintptr_t)code), "S"(0x500000ull),
                       "D"(0x501000ull)
                     : "rax", "r12", "cc", "memory");
}

static void run(const struct changer *c, uint64_t rounds, uint64_t *faults)
{
    memset(code, 0xc3, sizeof(code));
    code[0] = c->forms[0];
    if (!cpu_start(1, change, (void *)(uintptr_t)c))
        print("hostile: smc: the other processor did not start\n");
    for (uint64_t i = 0; i < rounds; i++)
        *faults += guarded(execute, NULL) != NO_FAULT;
}

void program_smc(unsigned step)
{
    static const struct changer c = {known, sizeof(known) / sizeof(known[0])};
    uint64_t faults = 0;
    (void)step;
    run(&c, ROUNDS, &faults);
    apic_send(1, ICR_INIT | ICR_ASSERT);
    verdict("smc", changes > 1000, "%u rounds, %u faults, the code changed %u times", (uint64_t)ROUNDS,
            faults, changes);
}

void program_smc_unknown(unsigned step)
{
    static const struct changer c = {unknown, sizeof(unknown) / sizeof(unknown[0])};
    uint64_t faults = 0;
    (void)step;
    print("hostile: smc_unknown: begins\n");
    write_cr0(read_cr0() & ~0xcull); /* no EM, no TS: SSE faults for no other reason */
    write_cr4(read_cr4() | 0x200);
    run(&c, 100 * ROUNDS, &faults);
}
