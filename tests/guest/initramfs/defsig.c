/* defsig PROGRAM ARGUMENT...: runs a program with SIGINT and SIGQUIT as they are by default. A shell without job control
 * starts background commands with both ignored, and what is ignored stays so in all descendants: Ctrl-C on the console
 * would do nothing. PROGRAM is a path. Without a C library, like tsc. */
struct kernel_sigaction {
    void (*handler)(int);
    unsigned long flags;
    void (*restorer)(void);
    unsigned long mask;
};

enum { SYS_RT_SIGACTION = 13, SYS_EXECVE = 59, SYS_EXIT = 60, SIGINT = 2, SIGQUIT = 3, NOT_FOUND = 127 };

static long system_call(long number, long a, long b, long c, long d)
{
    long result;
    register long r10 __asm__("r10") = d;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10)
                     : "rcx", "r11", "memory");
    return result;
}

/* `stack` is what the kernel left there: argc, the arguments, NULL, the environment (System V ABI, 3.4.1). */
__attribute__((used)) static void start(long *stack)
{
    static const struct kernel_sigaction by_default;
    char **arguments = (char **)(stack + 1);

    system_call(SYS_RT_SIGACTION, SIGINT, (long)&by_default, 0, sizeof(by_default.mask));
    system_call(SYS_RT_SIGACTION, SIGQUIT, (long)&by_default, 0, sizeof(by_default.mask));
    if (stack[0] > 1)
        system_call(SYS_EXECVE, (long)arguments[1], (long)(arguments + 1), (long)(arguments + stack[0] + 1), 0);
    system_call(SYS_EXIT, NOT_FOUND, 0, 0, 0);
}

__attribute__((naked)) void _start(void)
{
    __asm__("mov %rsp, %rdi\n\tand $-16, %rsp\n\tcall start\n\tud2");
}
