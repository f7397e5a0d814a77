#include "tests/host/native_insn.h"

#include <cpuid.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>

#define CODE_SIZE       4096u
#define FLAG_RESERVED_1 2u
#define FLAG_ZF         0x40u
#define FLAG_IF         0x200u

/* Read and written by the assembly below, which has no register to spare for pointers. */
static __attribute__((used)) uint64_t native_regs[17]; /* ModRM order, then RFLAGS */
static __attribute__((used)) uint64_t native_code;

void native_enter(void);
extern const char native_return[];

/* GCC does not know which section this leaves behind: it must be the one before. */
__asm__(".pushsection .text\n"
        "native_enter:\n"
        "    push %rbx\n    push %rbp\n    push %r12\n    push %r13\n    push %r14\n    push %r15\n"
        "    push native_regs+128(%rip)\n    popfq\n"
        "    mov native_regs+0(%rip), %rax\n    mov native_regs+8(%rip), %rcx\n"
        "    mov native_regs+16(%rip), %rdx\n    mov native_regs+24(%rip), %rbx\n"
        "    mov native_regs+40(%rip), %rbp\n    mov native_regs+48(%rip), %rsi\n"
        "    mov native_regs+56(%rip), %rdi\n    mov native_regs+64(%rip), %r8\n"
        "    mov native_regs+72(%rip), %r9\n    mov native_regs+80(%rip), %r10\n"
        "    mov native_regs+88(%rip), %r11\n    mov native_regs+96(%rip), %r12\n"
        "    mov native_regs+104(%rip), %r13\n    mov native_regs+112(%rip), %r14\n"
        "    mov native_regs+120(%rip), %r15\n"
        "    jmp *native_code(%rip)\n"
        "native_return:\n"
        "    mov %rax, native_regs+0(%rip)\n    mov %rcx, native_regs+8(%rip)\n"
        "    mov %rdx, native_regs+16(%rip)\n    mov %rbx, native_regs+24(%rip)\n"
        "    mov %rbp, native_regs+40(%rip)\n    mov %rsi, native_regs+48(%rip)\n"
        "    mov %rdi, native_regs+56(%rip)\n    mov %r8, native_regs+64(%rip)\n"
        "    mov %r9, native_regs+72(%rip)\n    mov %r10, native_regs+80(%rip)\n"
        "    mov %r11, native_regs+88(%rip)\n    mov %r12, native_regs+96(%rip)\n"
        "    mov %r13, native_regs+104(%rip)\n    mov %r14, native_regs+112(%rip)\n"
        "    mov %r15, native_regs+120(%rip)\n"
        "    pushfq\n    pop native_regs+128(%rip)\n    cld\n"
        "    pop %r15\n    pop %r14\n    pop %r13\n    pop %r12\n    pop %rbp\n    pop %rbx\n"
        "    ret\n"
        "    .popsection\n");

static sigjmp_buf divide_error;

static void on_divide_error(int number)
{
    (void)number;
    siglongjmp(divide_error, 1);
}

enum native_result native_insn_run(struct span bytes, struct insn_regs *regs)
{
    static const uint8_t jump_back[6] = {0xff, 0x25, 0, 0, 0, 0}; /* jmp *0(%rip), the target follows */
    static uint8_t *code;
    uint64_t target = (uint64_t)(uintptr_t)native_return;

    if (!code) {
        void *p =
            mmap(NULL, CODE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED)
            return NATIVE_FORBIDDEN;
        code = p;
        struct sigaction action = {.sa_handler = on_divide_error};
        sigaction(SIGFPE, &action, NULL);
    }
    memcpy(code, bytes.data, bytes.size);
    memcpy(code + bytes.size, jump_back, sizeof(jump_back));
    memcpy(code + bytes.size + sizeof(jump_back), &target, sizeof(target));
    native_code = (uint64_t)(uintptr_t)code;
    memcpy(native_regs, regs->gpr, sizeof(regs->gpr));
    native_regs[16] = (regs->rflags & (NATIVE_STATUS_FLAGS | 0x400u)) | FLAG_RESERVED_1 | FLAG_IF;
    if (sigsetjmp(divide_error, 1))
        return NATIVE_DIVIDE_ERROR;
    native_enter();
    memcpy(regs->gpr, native_regs, sizeof(regs->gpr));
    regs->rflags = (regs->rflags & ~(uint64_t)NATIVE_STATUS_FLAGS) | (native_regs[16] & NATIVE_STATUS_FLAGS);
    return NATIVE_DONE;
}

bool native_insn_supported(const struct insn *insn)
{
    unsigned eax, ebx = 0, ecx = 0, edx;
    if (insn->op == INSN_TZCNT)
        return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && ebx & bit_BMI;
    if (insn->op == INSN_LZCNT)
        return __get_cpuid(0x80000001, &eax, &ebx, &ecx, &edx) && ecx & bit_LZCNT;
    unsigned needs = insn->op == INSN_MOVBE    ? bit_MOVBE
                     : insn->op == INSN_POPCNT ? bit_POPCNT
                     : insn->op == INSN_CRC32  ? bit_SSE4_2
                                               : 0;
    return !needs || (__get_cpuid(1, &eax, &ebx, &ecx, &edx) && ecx & needs);
}

/* How far a shift goes. */
static unsigned shift_count(const struct insn *insn, const struct insn_regs *regs)
{
    const struct insn_operand *by = insn->op >= INSN_SHLD ? &insn->third : &insn->src;
    uint64_t count = by->kind == INSN_REG ? insn_reg_read(by, regs) : by->imm;
    return count & (insn->opsize == 8 ? 63 : 31);
}

bool native_insn_defined_result(const struct insn *insn, const struct insn_regs *regs)
{
    bool twofold = insn->op == INSN_SHLD || insn->op == INSN_SHRD;
    return !twofold || shift_count(insn, regs) <= insn->opsize * 8u;
}

static uint64_t flags_of_shift(const struct insn *insn, const struct insn_regs *regs)
{
    unsigned count = shift_count(insn, regs);
    uint64_t flags = NATIVE_STATUS_FLAGS;
    if (count == 0)
        return flags; /* all as they were */
    if (count != 1)
        flags &= ~0x800u;
    if (insn->op >= INSN_SHL)
        flags &= ~0x10u;
    bool shifts = insn->op == INSN_SHL || insn->op == INSN_SHR;
    return shifts && count >= insn->opsize * 8u ? flags & ~1u : flags;
}

uint64_t native_insn_defined_flags(const struct insn *insn, const struct insn_regs *regs)
{
    if (insn->op >= INSN_ROL && insn->op <= INSN_SHRD)
        return flags_of_shift(insn, regs);
    switch (insn->op) {
    case INSN_AND:
    case INSN_OR:
    case INSN_XOR:
    case INSN_TEST:
        return NATIVE_STATUS_FLAGS & ~0x10u;
    case INSN_BT:
    case INSN_BTS:
    case INSN_BTR:
    case INSN_BTC:
        return 0x41u; /* CF is set, ZF is kept */
    case INSN_IMUL:
    case INSN_MUL:
    case INSN_IMUL_WIDE:
        return 0x801u;
    case INSN_DIV:
    case INSN_IDIV:
        return 0;
    case INSN_BSF:
    case INSN_BSR:
        return 0x40u;
    case INSN_TZCNT:
    case INSN_LZCNT:
        return 0x41u;
    default:
        return NATIVE_STATUS_FLAGS;
    }
}

void native_insn_settle(const struct insn *insn, const struct insn_regs *before, struct insn_regs *after)
{
    if (insn->opsize != 4 || insn->dst.kind != INSN_REG)
        return;
    uint64_t *dst = &after->gpr[insn->dst.reg], old = before->gpr[insn->dst.reg];
    bool zero = after->rflags & FLAG_ZF;
    /* A failing CMPXCHG writes its destination back on Intel's processors (SDM volume 2, "CMPXCHG"), which
     * clears the upper half, and leaves it alone on AMD's. */
    if (insn->op == INSN_CMPXCHG && !zero)
        *dst = (uint32_t)*dst;
    /* BSF and BSR of 0 leave it alone, but "some older processors" clear the upper half (SDM volume 2, "BSF",
     * footnote), as some emulators do. */
    if ((insn->op == INSN_BSF || insn->op == INSN_BSR) && zero && *dst == (uint32_t)old)
        *dst = old;
}
