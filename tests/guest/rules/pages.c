#include "pages.h"

#define TRAP_BYTE 0xccu

SNIPPET(read64, 64, "mov (%rbx), %al");
SNIPPET(write64, 64, "mov %al, (%rbx)");
SNIPPET(fetch64, 64, "jmp *%rbx");
SNIPPET(read32, 32, "mov (%ebx), %al");
SNIPPET(write32, 32, "mov %al, (%ebx)");
SNIPPET(fetch32, 32, "jmp *%ebx");

const char *const access_names[] = {"read", "write", "fetch"};
uint64_t pages_table[512] __attribute__((aligned(4096)));
uint8_t pages_target[4096] __attribute__((aligned(4096)));

uint32_t pages_run(enum lab_mode mode, const uint8_t *code, size_t size, uint64_t flags)
{
    pages_target[0] = *(volatile uint8_t *)FREE_LARGE = TRAP_BYTE;
    lab_clear();
    lab.gpr[0] = TRAP_BYTE;
    lab.gpr[3] = LINEAR;
    unsigned vector = lab_execute_flags(mode, code, size, flags);
    if (vector == VECTOR_BP)
        return DONE;
    /* CR2 is still what the fault left: nothing has faulted since. */
    return vector == VECTOR_PF && read_cr2() / 4096 == LINEAR / 4096 ? lab.error : ~1u;
}

uint32_t pages_attempt(enum lab_mode mode, enum access access, uint64_t flags)
{
    static const uint8_t *const codes[2][3][2] = {
        {{read32, read32_end}, {write32, write32_end}, {fetch32, fetch32_end}},
        {{read64, read64_end}, {write64, write64_end}, {fetch64, fetch64_end}}};
    const uint8_t *const *code = codes[mode == MODE_LONG || mode == MODE_LONG_USER][access];
    uint32_t result = pages_run(mode, code[0], (size_t)(code[1] - code[0]), flags);
    bool meant = result == DONE ? (lab.ip == LINEAR + 1) == (access == FETCH) : read_cr2() == LINEAR;
    return meant ? result : ~1u;
}
