/* stream send ADDRESS PORT MIB       sends that many MiB of numbers by TCP
 * stream receive PORT                takes one connection's until it ends
 * stream coalesce INTERFACE US       lets a network card wait that long before it interrupts for a packet
 * The first two print the sum and the number of bytes. They move more at a time than nc does, and take little
 * time of their own: what they measure is the network. Without a C library, like tsc. */
#include <linux/ethtool.h>
#include <linux/sockios.h>

enum { SYS_WRITE = 1, SYS_IOCTL = 16, SYS_SOCKET = 41, SYS_CONNECT = 42, SYS_ACCEPT = 43, SYS_RECVFROM = 45 };
enum { SYS_BIND = 49, SYS_LISTEN = 50, SYS_EXIT = 60 };
enum { AF_INET = 2, SOCK_STREAM = 1, SOCK_DGRAM = 2, MSG_WAITALL = 0x100, STDOUT = 1 };
enum { CHUNK = 256 * 1024, MIB = 1 << 20, NAME_SIZE = 16 };

struct address {
    unsigned short family, port; /* both parts that follow are big-endian */
    unsigned ip;
    unsigned long zero;
};
struct request { /* struct ifreq */
    char name[NAME_SIZE];
    void *data;
    char rest[16];
};

static unsigned long numbers[CHUNK / sizeof(unsigned long)], sum;

static long system_call(long number, long a, long b, long c, long d)
{
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = 0;
    register long r9 __asm__("r9") = 0;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

/* A call that must work; else its error is the status. */
static long must(long number, long a, long b, long c, long d)
{
    long result = system_call(number, a, b, c, d);
    if (result < 0)
        system_call(SYS_EXIT, -result, 0, 0, 0);
    return result;
}

static unsigned long number_at(const char **text)
{
    unsigned long n = 0;
    while (**text >= '0' && **text <= '9')
        n = n * 10 + (unsigned long)(*(*text)++ - '0');
    return n;
}

static unsigned short port_of(const char *text)
{
    unsigned long n = number_at(&text);
    return (unsigned short)(n >> 8 | n << 8);
}

static void add(unsigned long words)
{
    for (unsigned long i = 0; i < words; i++) {
        sum = (sum ^ numbers[i]) * 0x9e3779b97f4a7c15ul;
        sum ^= sum >> 29;
    }
}

static void report(unsigned long bytes)
{
    char text[48], digits[24];
    int n = 0, k = 0;
    for (int shift = 60; shift >= 0; shift -= 4)
        text[n++] = "0123456789abcdef"[sum >> shift & 15];
    text[n++] = ' ';
    do
        digits[k++] = (char)('0' + bytes % 10);
    while (bytes /= 10);
    while (k)
        text[n++] = digits[--k];
    text[n++] = '\n';
    system_call(SYS_WRITE, STDOUT, (long)text, n, 0);
}

static void send_all(int fd, const char *ip, const char *port, const char *mib)
{
    struct address to = {.family = AF_INET, .port = port_of(port)};
    unsigned long x = 88172645463325252ul, total = number_at(&mib) * MIB; /* any but 0 */
    for (int i = 0; i < 4; i++, ip++)
        to.ip |= (unsigned)number_at(&ip) << (8 * i);
    must(SYS_CONNECT, fd, (long)&to, sizeof(to), 0);
    for (unsigned long sent = 0; sent < total; sent += CHUNK) {
        for (unsigned long i = 0; i < CHUNK / sizeof(x); i++) { /* Marsaglia's xorshift */
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            numbers[i] = x;
        }
        add(CHUNK / sizeof(x));
        for (long at = 0; at < CHUNK;)
            at += must(SYS_WRITE, fd, (long)numbers + at, CHUNK - at, 0);
    }
    report(total);
}

static void receive_all(int fd, const char *port)
{
    struct address at = {.family = AF_INET, .port = port_of(port)};
    unsigned long total = 0;
    long n;
    must(SYS_BIND, fd, (long)&at, sizeof(at), 0);
    must(SYS_LISTEN, fd, 1, 0, 0);
    long peer = must(SYS_ACCEPT, fd, 0, 0, 0);
    while ((n = must(SYS_RECVFROM, peer, (long)numbers, CHUNK, MSG_WAITALL)) > 0) {
        add((unsigned long)n / sizeof(numbers[0]));
        total += (unsigned long)n;
    }
    report(total);
}

static void coalesce(int fd, const char *interface, const char *us)
{
    struct ethtool_coalesce how = {.cmd = ETHTOOL_GCOALESCE};
    struct request request = {.data = &how};
    for (int i = 0; interface[i] && i < NAME_SIZE - 1; i++)
        request.name[i] = interface[i];
    must(SYS_IOCTL, fd, SIOCETHTOOL, (long)&request, 0);
    how.cmd = ETHTOOL_SCOALESCE;
    how.rx_coalesce_usecs = (unsigned)number_at(&us);
    must(SYS_IOCTL, fd, SIOCETHTOOL, (long)&request, 0);
}

/* `stack` is what the kernel left there: argc, the arguments, NULL (System V ABI, 3.4.1). */
__attribute__((used)) static void start(long *stack)
{
    const char **arguments = (const char **)(stack + 1);
    char what = stack[0] > 2 ? arguments[1][0] : 0;
    int fd = (int)must(SYS_SOCKET, AF_INET, what == 'c' ? SOCK_DGRAM : SOCK_STREAM, 0, 0);
    if (what == 's' && stack[0] == 5)
        send_all(fd, arguments[2], arguments[3], arguments[4]);
    else if (what == 'r')
        receive_all(fd, arguments[2]);
    else if (what == 'c' && stack[0] == 4)
        coalesce(fd, arguments[2], arguments[3]);
    else
        system_call(SYS_EXIT, 1, 0, 0, 0);
    system_call(SYS_EXIT, 0, 0, 0, 0);
}

__attribute__((naked)) void _start(void)
{
    __asm__("mov %rsp, %rdi\n\tand $-16, %rsp\n\tcall start\n\tud2");
}
