/* Prints the time stamp counter. Alone: no C library, so that it costs next to nothing to start. */
static long system_call(long number, long a, long b, long c)
{
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}

void _start(void)
{
    enum { SYS_WRITE = 1, SYS_EXIT = 60, STDOUT = 1 };
    char text[24];
    char *at = text + sizeof(text);
    unsigned low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    unsigned long ticks = (unsigned long)high << 32 | low;

    *--at = '\n';
    do
        *--at = (char)('0' + ticks % 10);
    while ((ticks /= 10) != 0);
    system_call(SYS_WRITE, STDOUT, (long)at, text + sizeof(text) - at);
    system_call(SYS_EXIT, 0, 0, 0);
}
