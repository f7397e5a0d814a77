/* SYSCALL, SYSRET, SYSENTER and SYSEXIT: SDM volume 2; selectors and flags on both sides. */
#include "rules.h"

#define MSR_STAR           0xc0000081u
#define MSR_LSTAR          0xc0000082u
#define MSR_FMASK          0xc0000084u
#define MSR_SYSENTER_CS    0x174u
#define MSR_SYSENTER_ESP   0x175u
#define MSR_SYSENTER_EIP   0x176u
#define EFER_SCE           1ull
#define FLAG_DF            0x400ull
#define FLAG_CF            1ull
#define TARGET             64u /* offset of the kernel's side in the snippets */
#define KERNEL_SELECTOR    SEL_CODE64
#define USER_BASE_SELECTOR 0x33ull /* SS is 8 further, CS 16 */

/* The user's side: bytes up to TARGET; then the kernel's: CS and SS to EBX and EDX. */
SNIPPET(call64, 64,
        "std; stc; syscall; nop; .org call64 + 64, 0x90; mov %cs, %ebx; mov %ss, %edx; mov %rsp, %rbp");
SNIPPET(return64, 64, "lea 1f(%rip), %rcx; mov $0x403, %r11d; sysretq; 1: mov %cs, %ebx; mov %ss, %edx");
SNIPPET(return_far, 64, "movabs $0x800000000000, %rcx; mov $2, %r11d; sysretq");
SNIPPET(enter, 64, "stc; sysenter; .org enter + 64, 0x90; mov %cs, %ebx; mov %ss, %edx; mov %rsp, %rbp");
SNIPPET(leave64, 64, "lea 1f(%rip), %rdx; mov %rsp, %rcx; rex.w sysexit; 1: mov %cs, %ebx; mov %ss, %eax");

static void call(void)
{
    wrmsr(MSR_STAR, USER_BASE_SELECTOR << 48 | (uint64_t)KERNEL_SELECTOR << 32);
    wrmsr(MSR_LSTAR, (uintptr_t)lab_code + TARGET);
    wrmsr(MSR_FMASK, FLAG_DF);
    lab_clear();
    uint64_t stack = lab.gpr[4];
    check_equal(RUN(MODE_LONG_USER, call64), VECTOR_BP, "SYSCALL");
    check(lab.ip > (uintptr_t)lab_code + TARGET, "SYSCALL goes to LSTAR: %x", lab.ip);
    check_equal(lab.gpr[1], (uintptr_t)lab_code + 4, "RCX is where to go on");
    check_equal(lab.gpr[11] & 0xfff & ~0x10ull, 0x3403 & 0xfff, "R11 has the flags");
    check_equal(lab.flags & (FLAG_DF | FLAG_CF), FLAG_CF, "FMASK clears");
    check_equal(lab.gpr[3] & 0xffff, KERNEL_SELECTOR, "CS");
    check_equal(lab.gpr[2] & 0xffff, KERNEL_SELECTOR + 8, "SS");
    check_equal(lab.gpr[5], stack, "RSP stays");
    lab_clear();
    check_equal(RUN(MODE_LONG, return64), VECTOR_BP, "SYSRET");
    check_equal(lab.gpr[3] & 0xffff, USER_BASE_SELECTOR + 16, "SYSRET: CS");
    check_equal(lab.gpr[2] & 0xffff, USER_BASE_SELECTOR + 8, "SYSRET: SS");
    check_equal(lab.flags & (FLAG_DF | FLAG_CF), FLAG_DF | FLAG_CF, "SYSRET: flags from R11");
    lab_clear();
    check_equal(RUN(MODE_LONG, return_far), VECTOR_GP, "SYSRET to an address that is not canonical");
    check_equal(lab.ip, (uintptr_t)lab_code + 16, "is refused where it stands");
    lab_clear();
    check_equal(RUN(MODE_LONG_USER, return64), VECTOR_GP, "SYSRET of a user");
    uint64_t efer = rdmsr(MSR_EFER);
    wrmsr(MSR_EFER, efer & ~EFER_SCE);
    lab_clear();
    check_equal(RUN(MODE_LONG_USER, call64), VECTOR_UD, "SYSCALL without EFER.SCE");
    wrmsr(MSR_EFER, efer);
    lab_clear();
    check_equal(RUN(MODE_COMPAT_USER, call64), VECTOR_UD, "SYSCALL in compatibility mode");
}

static void enter_leave(void)
{
    wrmsr(MSR_SYSENTER_CS, 0);
    lab_clear();
    check_equal(RUN(MODE_LONG_USER, enter), VECTOR_GP, "SYSENTER without a selector");
    wrmsr(MSR_SYSENTER_CS, KERNEL_SELECTOR);
    wrmsr(MSR_SYSENTER_EIP, (uintptr_t)lab_code + TARGET);
    lab_clear();
    wrmsr(MSR_SYSENTER_ESP, lab.gpr[4] - 64);
    uint64_t stack = lab.gpr[4] - 64;
    check_equal(lab_execute_flags(MODE_LONG_USER, enter, SNIPPET_SIZE(enter), 0x200), VECTOR_BP, "SYSENTER");
    check_equal(lab.gpr[3] & 0xffff, KERNEL_SELECTOR, "SYSENTER: CS");
    check_equal(lab.gpr[2] & 0xffff, KERNEL_SELECTOR + 8, "SYSENTER: SS");
    check_equal(lab.gpr[5], stack, "SYSENTER: RSP");
    check_equal(lab.flags & 0x201, 1, "SYSENTER clears IF");
    lab_clear();
    check_equal(RUN(MODE_LONG, leave64), VECTOR_BP, "SYSEXIT");
    check_equal(lab.gpr[3] & 0xffff, (KERNEL_SELECTOR + 32) | 3, "SYSEXIT: CS");
    check_equal(lab.gpr[0] & 0xffff, (KERNEL_SELECTOR + 40) | 3, "SYSEXIT: SS");
    lab_clear();
    check_equal(RUN(MODE_LONG_USER, leave64), VECTOR_GP, "SYSEXIT of a user");
    wrmsr(MSR_SYSENTER_CS, 0);
}

void rule_syscall(void)
{
    uint64_t efer = rdmsr(MSR_EFER);
    wrmsr(MSR_EFER, efer | EFER_SCE);
    call();
    enter_leave();
    wrmsr(MSR_EFER, efer);
}
