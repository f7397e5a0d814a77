#define _GNU_SOURCE /* memfd_create */
#include "tests/host/fake_host.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hv/clock.h"
#include "hv/console/console.h"
#include "hv/lib/log.h"
#include "tests/host/fake_vdev_env.h"
#include "tests/host/fake_virt.h"

struct core core;
struct fake_host fake_host;

static void fail(const char *what)
{
    fprintf(stderr, "fake_host: %s\n", what);
    abort();
}

/* ---- time, kicks, sleep ---- */

uint64_t host_tsc(void)
{
    uint64_t now = fake_host.tsc;
    fake_host.tsc += fake_host.tsc_step;
    fake_host.tsc_reads++;
    return now;
}

struct cpu *host_cpu(void)
{
    return fake_host.cpu;
}

void host_kick(const struct cpu *target)
{
    if (fake_host.kicks < FAKE_KICKS)
        fake_host.kicked[fake_host.kicks] = target;
    fake_host.kicks++;
    if (fake_host.on_kick)
        fake_host.on_kick(target);
}

void host_raise(uint8_t vector)
{
    fake_host.raised++;
    fake_host.last_raised = vector;
}

bool host_x2apic(void)
{
    return true;
}

void host_idle(uint64_t until)
{
    if (fake_host.idles < FAKE_IDLES)
        fake_host.idle_until[fake_host.idles] = until;
    fake_host.idles++;
    if (fake_host.on_idle)
        fake_host.on_idle(until);
    else if (until == UINT64_MAX)
        fail("host_idle() for ever, and nobody to wake it");
    else if (fake_host.tsc < until)
        fake_host.tsc = until;
}

void host_handle_interrupt(uint8_t vector)
{
    fake_host.last_interrupt = vector;
    fake_host.interrupts++;
}

void host_handle_nmi(void)
{
    fake_host.nmis++;
    fake_host.cpu->nmis++;
}

/* ---- ends ---- */

static void __attribute__((noreturn)) end(enum fake_end how)
{
    fake_host.end = how;
    if (!fake_host.catching) {
        fprintf(stderr, "fake_host: the machine ended unexpectedly (%d): %s\n", how, fake_host.panic);
        abort();
    }
    longjmp(fake_host.caught, 1);
}

void host_poweroff(void)
{
    end(FAKE_END_POWEROFF);
}

void host_reboot(void)
{
    end(FAKE_END_REBOOT);
}

void host_panic(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(fake_host.panic, sizeof(fake_host.panic), format, args);
    va_end(args);
    end(FAKE_END_PANIC);
}

int64_t core_wall_seconds(void)
{
    return fake_host.wall_seconds;
}

void core_vm_started(void)
{
    fake_host.vms_started++;
}

void core_vm_stopped(bool by_operator)
{
    fake_host.vms_stopped++;
    fake_host.by_operator = by_operator;
}

/* ---- physical memory and windows on it ---- */

static int memory_fd = -1;
static uint8_t *memory;
static uint64_t memory_size;
static uint8_t *windows;                               /* FAKE_CPUS * HOST_WINDOWS pages */
static uint64_t window_page[FAKE_CPUS * HOST_WINDOWS]; /* page number + 1 */

static void forget_windows(void)
{
    size_t size = sizeof(window_page) / sizeof(window_page[0]) * PAGE_SIZE;
    windows = mmap(windows, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | (windows ? MAP_FIXED : 0), -1, 0);
    if (windows == MAP_FAILED)
        fail("mmap of the windows");
    memset(window_page, 0, sizeof(window_page));
}

uint8_t *fake_host_memory(uint64_t size)
{
    if (memory)
        munmap(memory, memory_size);
    if (memory_fd >= 0)
        close(memory_fd);
    memory_fd = memfd_create("physical", MFD_CLOEXEC);
    if (memory_fd < 0 || ftruncate(memory_fd, (off_t)size) != 0)
        fail("memfd of the physical memory");
    memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, memory_fd, 0);
    if (memory == MAP_FAILED)
        fail("mmap of the physical memory");
    memory_size = size;
    forget_windows();
    return memory;
}

void host_zero_pages(hpa_t first, uint64_t count)
{
    if ((first.v & PAGE_MASK) || first.v > memory_size || count > (memory_size - first.v) / PAGE_SIZE)
        fail("zeroing of pages that are not physical memory");
    memset(memory + first.v, 0, count * PAGE_SIZE);
}

void *host_window(hpa_t page, unsigned slot)
{
    if ((page.v & PAGE_MASK) || page.v >= memory_size)
        fail("a window on an address that is not a page of physical memory");
    if (slot >= HOST_WINDOWS || fake_host.cpu->index >= FAKE_CPUS)
        fail("a window slot that there is not");
    unsigned n = fake_host.cpu->index * HOST_WINDOWS + slot;
    uint8_t *at = windows + n * PAGE_SIZE;
    if (window_page[n] == (page.v >> PAGE_SHIFT) + 1)
        return at;
    if (mmap(at, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, memory_fd, (off_t)page.v) ==
        MAP_FAILED)
        fail("mmap of a window");
    window_page[n] = (page.v >> PAGE_SHIFT) + 1;
    fake_host.window_moves++;
    fake_host.cpu->windows_changed++;
    return at;
}

/* ---- console and log ---- */

static unsigned port_room(void)
{
    return (unsigned)(FAKE_TX - fake_host.tx_size);
}

static void port_tx(uint8_t byte)
{
    if (fake_host.tx_size == FAKE_TX)
        fail("console output without room");
    fake_host.tx[fake_host.tx_size++] = byte;
}

static bool port_idle(void)
{
    return true;
}

static int port_rx(void)
{
    return fake_host.rx_at < fake_host.rx_size ? fake_host.rx[fake_host.rx_at++] : -1;
}

void fake_host_type(const char *text)
{
    for (; *text && fake_host.rx_size < FAKE_RX; text++)
        fake_host.rx[fake_host.rx_size++] = (uint8_t)*text;
}

static void log_sink(void *ctx, enum log_level level, const char *line)
{
    (void)ctx;
    (void)level;
    size_t length = strlen(line);
    fake_host.log_lines++;
    if (fake_host.log_size + length + 2 > FAKE_LOG)
        return;
    memcpy(fake_host.log + fake_host.log_size, line, length);
    fake_host.log_size += length;
    fake_host.log[fake_host.log_size++] = '\n';
}

bool fake_host_logged(const char *text)
{
    return strstr(fake_host.log, text) != NULL;
}

void fake_host_init(void)
{
    static const struct console_port port = {
        .tx_room = port_room, .tx = port_tx, .tx_idle = port_idle, .rx = port_rx};
    memset(&fake_host, 0, sizeof(fake_host));
    memset(&core, 0, sizeof(core));
    for (unsigned i = 0; i < BOOT_MAX_CPUS; i++) {
        core.cpus[i].self = &core.cpus[i];
        core.cpus[i].index = i;
        core.cpus[i].apic_id = i;
    }
    fake_host.tsc = FAKE_TSC_NOW;
    fake_host.cpu = &core.cpus[0];
    clock_init(FAKE_TSC_HZ);
    console_init(&port);
    console_attach(NULL);
    log_set_sink(log_sink, NULL);
    log_set_clock(NULL);
    log_set_level(LOG_DEBUG);
}

void fake_host_with_vm(struct boot_info *info, struct vm *vm, const struct boot_region *free, uint32_t cpus)
{
    fake_host_init();
    fake_virt_init();
    memset(vm, 0, sizeof(*vm));
    memset(info, 0, sizeof(*info));
    info->config.vm_count = 1;
    core.info = info;
    core.vms[0] = vm;
    core.cpu_count = cpus;
    for (uint32_t i = 0; i < cpus; i++)
        core.cpus[i].online = 1;
    pmem_init(&core.pmem, free, 1);
}

void fake_host_pool(void *pool, uint64_t size, uint64_t used)
{
    FAKE_REQUIRE(pool_init(&core.pool, pool, hpa(FAKE_POOL_HPA), size, used) == STATUS_OK);
    pool_pt_env(&core.pool, &core.pt_env);
}
