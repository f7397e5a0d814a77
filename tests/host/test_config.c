#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "hv/config/config.h"

static struct config config;
static struct config_error error;

/* Parses a copy of exactly the right size, so that the address sanitizer sees one byte too far. */
static enum status parse_bytes(const char *text, size_t size)
{
    uint8_t *copy = malloc(size ? size : 1);
    memcpy(copy, text, size);
    enum status s = config_parse((struct span){copy, size}, &config, &error);
    free(copy);
    return s;
}

static enum status parse(const char *text)
{
    return parse_bytes(text, strlen(text));
}

#define VM "[vm web]\ncpus = 0\nmemory = 64M\nkernel = vmlinuz\n"

static void test_full_example(void **state)
{
    const char *text = "# a comment\n"
                       "\n"
                       "[machine]\n"
                       "console = serial        # the screen is for panics\n"
                       "log = debug\n"
                       "report = yes\n"
                       "on_idle = stay\n"
                       "on_panic = reboot\n"
                       "[vm web]\n"
                       "cpus = 0-1,3\n"
                       "memory = 384M\n"
                       "kernel = boot/vmlinuz\n"
                       "initrd = initrd.img\n"
                       "cmdline = console=ttyS0 root=#1 # not a comment\n"
                       "on_reboot = stop     # restart | stop\n"
                       "on_crash = dump\n"
                       "module = a/one.bin first -x  # and only\n"
                       "console = 7\n"
                       "module = two\n"
                       "log = warn\n"
                       "disk1 = ramdisk  d/x.img # the slave\n"
                       "cdrom1 = ramdisk y.iso\n"
                       "compat = qemu\n"
                       "x2apic = off\n";
    assert_int_equal(parse(text), STATUS_OK);
    assert_int_equal(error.rule, CONFIG_OK);
    assert_int_equal(config.console, CONSOLE_SERIAL);
    assert_int_equal(config.on_idle, ON_IDLE_STAY);
    assert_int_equal(config.on_panic, ON_PANIC_REBOOT);
    assert_int_equal(config.log, LOG_DEBUG);
    assert_true(config.report);
    assert_int_equal(config.vm_count, 1);
    const struct config_vm *vm = &config.vms[0];
    assert_string_equal(vm->name, "web");
    assert_int_equal(vm->cpus, 0xb);
    assert_int_equal(vm->memory, 384ull << 20);
    assert_string_equal(vm->kernel, "boot/vmlinuz");
    assert_int_equal(vm->disk_count, 2);
    assert_string_equal(vm->disks[0].path, "d/x.img");
    assert_false(vm->disks[0].cdrom);
    assert_int_equal(vm->disks[0].position, 1);
    assert_int_equal(vm->disks[0].line, 21);
    assert_int_equal(vm->disks[0].column, 18);
    assert_true(vm->disks[1].cdrom);
    assert_int_equal(vm->disks[1].position, 3);
    assert_null(config_disk_fault(&vm->disks[0], 512));
    assert_non_null(strstr(config_disk_fault(&vm->disks[0], 513), "512"));
    assert_null(config_disk_fault(&vm->disks[1], 2048));
    assert_non_null(strstr(config_disk_fault(&vm->disks[1], 512), "2048"));
    assert_string_equal(vm->initrd, "initrd.img");
    assert_string_equal(vm->cmdline, "console=ttyS0 root=#1 # not a comment");
    assert_int_equal(vm->on_reboot, ON_STOP_STOP);
    assert_int_equal(vm->on_crash, ON_STOP_DUMP);
    assert_int_equal(vm->console, 7);
    assert_int_equal(vm->console_line, 18);
    assert_int_equal(vm->log, LOG_WARN);
    assert_int_equal(vm->compat, COMPAT_QEMU);
    assert_true(vm->no_x2apic);
    assert_int_equal(vm->module_count, 2);
    assert_string_equal(vm->modules[0].path, "a/one.bin");
    assert_string_equal(vm->modules[0].args, "first -x");
    assert_int_equal(vm->modules[0].line, 17);
    assert_int_equal(vm->modules[0].column, 10);
    assert_string_equal(vm->modules[1].path, "two");
    assert_string_equal(vm->modules[1].args, "");
    assert_int_equal(vm->line, 9);
    assert_int_equal(vm->cpus_line, 10);
    assert_int_equal(vm->cpus_column, 8);
    assert_int_equal(vm->memory_line, 11);
    assert_int_equal(vm->memory_column, 10);
    assert_int_equal(vm->kernel_line, 12);
    assert_int_equal(vm->kernel_column, 10);
    assert_int_equal(vm->initrd_line, 13);
    assert_int_equal(vm->initrd_column, 10);
}

static void test_defaults(void **state)
{
    assert_int_equal(parse(VM), STATUS_OK);
    assert_int_equal(config.console, CONSOLE_AUTO);
    assert_int_equal(config.on_idle, ON_IDLE_POWEROFF);
    assert_int_equal(config.on_panic, ON_PANIC_STAY);
    assert_int_equal(config.log, LOG_INFO);
    assert_false(config.report);
    assert_int_equal(config.vms[0].console, 1);
    assert_int_equal(config.vms[0].console_line, 0);
    assert_int_equal(config.vms[0].log, LOG_INFO);
    assert_int_equal(config.vms[0].module_count, 0);
    assert_string_equal(config.vms[0].initrd, "");
    assert_string_equal(config.vms[0].cmdline, "");
    assert_int_equal(config.vms[0].initrd_line, 0);
    assert_int_equal(config.vms[0].on_reboot, ON_STOP_RESTART);
    assert_int_equal(config.vms[0].on_crash, ON_STOP_STOP);
    assert_int_equal(config.vms[0].compat, COMPAT_NONE);
    assert_false(config.vms[0].no_x2apic);
    assert_int_equal(parse(VM "compat = none\nx2apic = on\n"), STATUS_OK);
    assert_int_equal(config.vms[0].compat, COMPAT_NONE);
    assert_false(config.vms[0].no_x2apic);
}

#define NET  "net0 = vf pf=01:00.0"
#define DISK "disk0 = nvme-vf pf=03:00.0 namespace="
#define VM_B "[vm b]\ncpus = 1\nmemory = 64M\nkernel = vmlinuz\n"

static void test_assigned(void **state)
{
    static const uint8_t mac[] = {0x52, 0x54, 0, 0xaa, 0, 1};
    assert_int_equal(parse(VM "net0 = vf pf=01:00.0 index=3 mac=52:54:00:aa:00:01 vlan=10 rate=1000 "
                              "spoofcheck=off trust=on  # fast\n"
                              "disk1 = nvme-vf namespace=2 trust=on pf=0000:03:1f.7\n"
                              "pci = 8086:10D3/2\npci = 00:1b.0\n" VM_B "net9 = vf pf=8086:10c9 index=auto\n"
                              "disk1 = nvme-vf pf=03:1f.7 namespace=1\n"),
                     STATUS_OK);
    const struct config_vm *vm = &config.vms[0];
    assert_int_equal(vm->assigned_count, 4);
    const struct config_assign *a = vm->assigned;
    assert_int_equal(a[0].kind, ASSIGN_NET_VF);
    assert_int_equal(a[0].number, 0);
    assert_false(a[0].by_id);
    assert_int_equal(a[0].bdf, 0x0100);
    assert_int_equal(a[0].index, 3);
    assert_true(a[0].has_mac);
    assert_memory_equal(a[0].mac, mac, 6);
    assert_int_equal(a[0].vlan, 10);
    assert_int_equal(a[0].rate, 1000);
    assert_false(a[0].spoofcheck);
    assert_true(a[0].trust);
    assert_int_equal(a[0].line, 5);
    assert_int_equal(a[0].column, 8);
    assert_int_equal(a[1].kind, ASSIGN_NVME_VF);
    assert_int_equal(a[1].number, 1);
    assert_int_equal(a[1].bdf, 0x03ff);
    assert_int_equal(a[1].namespace, 2);
    assert_true(a[1].trust);
    assert_int_equal(a[1].index, -1);
    assert_int_equal(a[2].kind, ASSIGN_PCI);
    assert_true(a[2].by_id);
    assert_int_equal(a[2].vendor, 0x8086);
    assert_int_equal(a[2].device, 0x10d3);
    assert_int_equal(a[2].nth, 2);
    assert_int_equal(a[3].bdf, 0x00d8);
    a = config.vms[1].assigned;
    assert_int_equal(config.vms[1].assigned_count, 2);
    assert_int_equal(a[0].number, 9);
    assert_int_equal(a[0].nth, 0);
    assert_int_equal(a[0].index, -1);
    assert_false(a[0].has_mac);
    assert_int_equal(a[0].vlan | a[0].rate, 0);
    assert_true(a[0].spoofcheck);
    assert_false(a[0].trust);
    assert_int_equal(a[1].namespace, 1);
    assert_int_equal(parse(VM), STATUS_OK);
    assert_int_equal(config.vms[0].assigned_count, 0);
}

#define VM_REST "memory = 8M\nkernel = k\n"

/* Who says nothing gets the lowest digit that nobody asks for, also when it is asked for further down; the
 * machine's log level counts wherever its section stands. */
static void test_defaults_across_sections(void **state)
{
    static const uint8_t digits[] = {2, 4, 1, 3};
    static const enum log_level levels[] = {LOG_ERROR, LOG_INFO, LOG_ERROR, LOG_ERROR};

    assert_int_equal(parse("[vm a]\ncpus = 0\n" VM_REST "[vm b]\ncpus = 1\n" VM_REST "log = info\n"
                           "[vm c]\ncpus = 2\nconsole = 1\n" VM_REST "[vm d]\ncpus = 3\nconsole = 3\n" VM_REST
                           "[machine]\nlog = error\n"),
                     STATUS_OK);
    assert_int_equal(config.log, LOG_ERROR);
    for (size_t i = 0; i < ARRAY_SIZE(digits); i++) {
        assert_int_equal(config.vms[i].console, digits[i]);
        assert_int_equal(config.vms[i].log, levels[i]);
        assert_int_equal(config.vms[i].memory, 8u << 20);
    }
}

static void test_choices(void **state)
{
    assert_int_equal(parse(VM "on_crash = restart\n[machine]\nconsole = screen\nreport = no\n"), STATUS_OK);
    assert_int_equal(config.console, CONSOLE_SCREEN);
    assert_int_equal(config.vms[0].on_crash, ON_STOP_RESTART);
    assert_false(config.report);
    assert_int_equal(parse(VM "on_crash = stop\n[machine]\non_panic = stay\nlog = info\n"), STATUS_OK);
    assert_int_equal(config.vms[0].on_crash, ON_STOP_STOP);
    assert_int_equal(config.on_panic, ON_PANIC_STAY);
}

static void test_longest_module(void **state)
{
    static char text[1024];
    int n = sprintf(text, VM "module = m ");

    memset(text + n, 'x', CONFIG_ARGS_MAX - 1);
    assert_int_equal(parse(text), STATUS_OK);
    assert_int_equal(strlen(config.vms[0].modules[0].args), CONFIG_ARGS_MAX - 1);
    text[n + (int)CONFIG_ARGS_MAX - 1] = 'x';
    assert_int_equal(parse(text), ERR_INVALID);
    assert_int_equal(error.rule, CONFIG_VALUE_TOO_LONG);
    assert_int_equal(error.column, 12);
    assert_non_null(strstr(error.message, "256 bytes, at most 255"));
}

static void test_accepted_forms(void **state)
{
    static const char *const good[] = {
        "\xef\xbb\xbf" VM,                                                               /* byte order mark */
        "[vm web]\r\ncpus = 0\r\nmemory = 64M\r\nkernel = vmlinuz\r\n",                  /* CRLF */
        "[vm web]\ncpus=0\nmemory=64M\nkernel=vmlinuz",                                  /* no last newline */
        "\t[ vm  web ]\t# x\n  cpus\t=\t0 \n memory = 65536K\n kernel = a b.c#d\t# e\n", /* blanks */
        "[vm web]\ncpus = 0\nmemory = 65536k\nkernel = vmlinuz\n#\n   #x\n",
        VM "cmdline = \xff\xfe latin \xe4\n",            /* any bytes in cmdline */
        VM "# \xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80\n", /* UTF-8 */
        VM "[machine]\n",
        VM "[vm b]\ncpus = 1 , 2-3\nmemory = 67108864\nkernel = vmlinuz\n",
        VM "[vm b]\ncpus = 48-63\nmemory = 1024G\nkernel = vmlinuz\n",
    };
    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        if (parse(good[i]) != STATUS_OK)
            fail_msg("case %zu: %s", i, error.message);
        assert_int_equal(config.vms[0].cpus, 1);
        assert_int_equal(config.vms[0].memory, 64ull << 20);
    }
}

static void test_comments(void **state)
{
    assert_int_equal(parse("[vm a] # x\n#kernel = y\ncpus = 0 #1\nmemory = 64M\t# z\nkernel = a b#c # d\n"
                           " cmdline = a #b # c \n"),
                     STATUS_OK);
    assert_int_equal(config.vms[0].cpus, 1);
    assert_string_equal(config.vms[0].kernel, "a b#c");
    assert_string_equal(config.vms[0].cmdline, "a #b # c");
}

/* Every rule, with position and the part of the message that helps. */
static const struct bad {
    enum config_rule rule;
    uint32_t line, column;
    const char *text, *message;
} bad[] = {
    {CONFIG_BAD_BYTE, 1, 3, "# \x01\n", "control character (0x01)"},
    {CONFIG_BAD_BYTE, 1, 2, "a\rb = 1\n", "control character"},
    {CONFIG_BAD_BYTE, 5, 12, VM "cmdline = a\x7f\n", "control character"},
    {CONFIG_BAD_BYTE, 1, 3, "# \xff\n", "not UTF-8"},
    {CONFIG_BAD_BYTE, 1, 3, "# \xc0\x80\n", "not UTF-8"},     /* overlong */
    {CONFIG_BAD_BYTE, 1, 3, "# \xe0\x80\x80\n", "not UTF-8"}, /* overlong */
    {CONFIG_BAD_BYTE, 1, 3, "# \xed\xa0\x80\n", "not UTF-8"}, /* surrogate */
    {CONFIG_BAD_BYTE, 1, 3, "# \xf0\x80\x80\x80\n", "not UTF-8"},
    {CONFIG_BAD_BYTE, 1, 3, "# \xf4\x90\x80\x80\n", "not UTF-8"},
    {CONFIG_BAD_BYTE, 1, 3, "# \xe2\x82", "not UTF-8"}, /* cut */
    {CONFIG_BAD_BYTE, 1, 3, "# \xe2\x82x\n", "not UTF-8"},
    {CONFIG_BAD_SECTION, 1, 1, "[vm web\n", "one line in brackets"},
    {CONFIG_BAD_SECTION, 1, 1, "[vm web] x\n", "one line in brackets"},
    {CONFIG_BAD_SECTION, 1, 1, "[", "one line in brackets"},
    {CONFIG_BAD_SECTION, 1, 10, "[machine x]\n", "takes no name"},
    {CONFIG_UNKNOWN_SECTION, 2, 3, "\n  [machin]\n", "did you mean [machine]?"},
    {CONFIG_UNKNOWN_SECTION, 1, 1, "[disk a]\n", "[machine] and [vm NAME]"},
    {CONFIG_UNKNOWN_SECTION, 1, 1, "[]\n", "there is no section []"},
    {CONFIG_UNKNOWN_SECTION, 1, 1, "[averyveryverylongname]\n", "there is no section"},
    {CONFIG_DUPLICATE_SECTION, 2, 1, "[machine]\n[machine]\n", "only one [machine]"},
    {CONFIG_DUPLICATE_SECTION, 5, 5, VM "[vm web]\n", "'web' was described already (line 1)"},
    {CONFIG_BAD_VM_NAME, 1, 1, "[vm]\n", "as in [vm web]"},
    {CONFIG_BAD_VM_NAME, 1, 5, "[vm Web]\n", "'Web' cannot name a VM"},
    {CONFIG_BAD_VM_NAME, 1, 5, "[vm a b]\n", "a-z, 0-9 and -"},
    {CONFIG_BAD_VM_NAME, 1, 5, "[vm a2345678901234567890123456789012]\n", "1 to 31"},
    {CONFIG_KEY_OUTSIDE_SECTION, 1, 1, "cpus = 1\n", "'cpus' stands before any section"},
    {CONFIG_NO_EQUALS, 2, 1, "[machine]\nconsole serial\n", "neither a [section] nor 'key = value'"},
    {CONFIG_UNKNOWN_KEY, 2, 1, "[vm a]\nmemmory = 1G\n", "did you mean 'memory'?"},
    {CONFIG_UNKNOWN_KEY, 2, 1, "[vm a]\nmeomry = 1G\n", "did you mean 'memory'?"},
    {CONFIG_UNKNOWN_KEY, 2, 1, "[vm a]\ncpsu = 1\n", "did you mean 'cpus'?"},
    {CONFIG_UNKNOWN_KEY, 2, 2, "[vm a]\n cpu = 1\n", "did you mean 'cpus'?"},
    {CONFIG_UNKNOWN_KEY, 2, 1, "[vm a]\nKernel = 1\n", "did you mean 'kernel'?"},
    {CONFIG_UNKNOWN_KEY, 2, 1, "[vm a]\nvcpus_of_the_machine = 1\n", "it takes cpus, memory"},
    {CONFIG_UNKNOWN_KEY, 2, 1, "[machine]\nx = 1\n", "it takes console, log, report, on_idle and on_panic"},
    {CONFIG_UNKNOWN_KEY, 2, 1, "[machine]\nmemory = 1G\n", "'memory' belongs in a [vm NAME] section"},
    {CONFIG_UNKNOWN_KEY, 2, 1, "[vm a]\non_idle = stay\n", "'on_idle' belongs in a [machine] section"},
    {CONFIG_UNKNOWN_KEY, 2, 1, "[machine]\n= 1\n", "there is no ''"},
    {CONFIG_DUPLICATE_KEY, 5, 1, VM "memory = 64M\n", "'memory' was given already"},
    {CONFIG_EMPTY_VALUE, 2, 7, "[vm a]\ncpus =\n", "'cpus' has no value"},
    {CONFIG_EMPTY_VALUE, 2, 7, "[vm a]\ncpus = # 1\n", "'cpus' has no value"},
    {CONFIG_EMPTY_VALUE, 5, 10, VM "cmdline = \n", "leave the line out"},
    {CONFIG_BAD_CHOICE, 2, 11, "[machine]\non_idle = halt\n", "use poweroff, reboot or stay"},
    {CONFIG_BAD_CHOICE, 2, 11, "[machine]\nconsole = both\n", "leave the line out for both"},
    {CONFIG_BAD_CHOICE, 2, 11, "[machine]\nconsole = Serial\n", "use serial or screen"},
    {CONFIG_BAD_CHOICE, 2, 11, "[machine]\nconsole = 1\n", "use serial or screen"},
    {CONFIG_BAD_CHOICE, 2, 7, "[machine]\nlog = all\n", "use error, warn, info or debug"},
    {CONFIG_BAD_CHOICE, 2, 10, "[machine]\nreport = true\n", "use yes or no"},
    {CONFIG_BAD_CHOICE, 2, 12, "[machine]\non_panic = restart\n", "use stay or reboot"},
    {CONFIG_BAD_CHOICE, 5, 7, VM "log = 3\n", "use error, warn, info or debug"},
    {CONFIG_BAD_CHOICE, 5, 13, VM "on_reboot = dump\n", "use stop or restart"},
    {CONFIG_BAD_LOAD, 5, 8, VM "load = 0x4ff\n", "0x7c00 for a boot sector"},
    {CONFIG_BAD_LOAD, 5, 8, VM "load = 0x9f000\n", "'0x9f000' is not an address"},
    {CONFIG_BAD_LOAD, 5, 8, VM "load = 0x\n", "'0x' is not"},
    {CONFIG_BAD_LOAD, 5, 8, VM "load = 7c00h\n", "'7c00h' is not"},
    {CONFIG_BAD_LOAD, 5, 8, VM "load = 0x100000000000007c00\n", "is not an address"},
    {CONFIG_BAD_DIGIT, 5, 11, VM "console = 0\n", "use a digit from 1 to 9"},
    {CONFIG_BAD_DIGIT, 5, 11, VM "console = 10\n", "use a digit from 1 to 9"},
    {CONFIG_BAD_DIGIT, 5, 11, VM "console = serial\n", "cannot be 'serial'"},
    {CONFIG_DIGIT_TAKEN, 7, 11, VM "console = 2\n[vm b]\nconsole = 2\n", "VM 'web' already (line 5)"},
    {CONFIG_TOO_MANY_MODULES, 9, 10, VM "module = a\nmodule = b\nmodule = c\nmodule = d\nmodule = e\n",
     "at most 4 modules"},
    {CONFIG_BAD_DISK, 5, 9, VM "disk4 = ramdisk a\n",
     "'disk4' cannot be a ramdisk: their numbers are 0 to 3"},
    {CONFIG_DUPLICATE_KEY, 6, 9, VM "disk1 = ramdisk a\ndisk1 = ramdisk b\n", "'disk1' was given already"},
    {CONFIG_DUPLICATE_KEY, 6, 9, VM "disk0 = ramdisk a\ndisk0 = nvme-vf pf=01:00.0 namespace=1\n",
     "'disk0' was given already"},
    {CONFIG_DUPLICATE_KEY, 6, 9, VM "disk0 = nvme-vf pf=01:00.0 namespace=1\ndisk0 = ramdisk a\n",
     "'disk0' was given already"},
    {CONFIG_DISK_TAKEN, 6, 10, VM "disk2 = ramdisk a\ncdrom0 = ramdisk b\n",
     "disk2 (line 5) is the secondary master already"},
    {CONFIG_DISK_TAKEN, 6, 9, VM "cdrom3 = ramdisk a\ndisk1 = ramdisk b\n",
     "cdrom3 (line 5) is the primary slave already"},
    {CONFIG_EMPTY_VALUE, 5, 9, VM "disk0 = ramdisk\n", "as in disk0 = ramdisk disk.img"},
    {CONFIG_BAD_PATH, 5, 17, VM "disk0 = ramdisk /a\n", "absolute"},
    {CONFIG_BAD_CHOICE, 5, 10, VM "cdrom0 = a.iso\n", "as in cdrom0 = ramdisk cd.iso"},
    {CONFIG_BAD_PATH, 5, 10, VM "module = ../a b\n", "'.' or '..'"},
    {CONFIG_EMPTY_VALUE, 5, 9, VM "module = # a\n", "'module' has no value"},
    {CONFIG_UNKNOWN_KEY, 5, 1, VM "modules = a\n", "did you mean 'module'?"},
    {CONFIG_BAD_CHOICE, 5, 13, VM "on_reboot = poweroff\n", "use stop or restart"},
    {CONFIG_BAD_CHOICE, 5, 10, VM "compat = QEMU\n", "use qemu, or leave the line out"},
    {CONFIG_BAD_CHOICE, 5, 10, VM "x2apic = no\n", "use on or off"},
    {CONFIG_BAD_CHOICE, 5, 12, VM "on_crash = stopp\n", "use stop, restart or dump"},
    {CONFIG_BAD_SIZE, 2, 10, "[vm a]\nmemory = 512MB\n", "'512MB' is not a size"},
    {CONFIG_BAD_SIZE, 2, 10, "[vm a]\nmemory = M\n", "as in memory = 512M"},
    {CONFIG_BAD_SIZE, 2, 10, "[vm a]\nmemory = -1\n", "not a size"},
    {CONFIG_BAD_SIZE, 2, 10, "[vm a]\nmemory = 1.5G\n", "whole number"},
    {CONFIG_BAD_SIZE, 2, 10, "[vm a]\nmemory = 0x40M\n", "not a size"},
    {CONFIG_BAD_SIZE, 2, 10, "[vm a]\nmemory = 64 M\n", "not a size"},
    {CONFIG_BAD_SIZE, 2, 10, "[vm a]\nmemory = 18446744073709551616\n", "not a size"}, /* 2^64 */
    {CONFIG_BAD_SIZE, 2, 10, "[vm a]\nmemory = 17179869184G\n", "not a size"},         /* 2^34 G = 2^64 */
    {CONFIG_MEMORY_TOO_SMALL, 2, 10, "[vm a]\nmemory = 512\n", "is an M missing?"},
    {CONFIG_MEMORY_TOO_SMALL, 2, 10, "[vm a]\nmemory = 6M\n", "at least 8M"},
    {CONFIG_MEMORY_TOO_LARGE, 2, 10, "[vm a]\nmemory = 1025G\n", "at most 1024G"},
    {CONFIG_MEMORY_TOO_LARGE, 2, 10, "[vm a]\nmemory = 17179869183G\n", "at most 1024G"},
    {CONFIG_MEMORY_UNALIGNED, 2, 10, "[vm a]\nmemory = 65M\n", "'65M' is not one, 64M is"},
    {CONFIG_BAD_CPU_LIST, 2, 8, "[vm a]\ncpus = all\n", "'all' is not a CPU"},
    {CONFIG_BAD_CPU_LIST, 2, 10, "[vm a]\ncpus = 0,,1\n", "as in cpus = 0-1,3"},
    {CONFIG_BAD_CPU_LIST, 2, 10, "[vm a]\ncpus = 0,\n", "not a CPU"},
    {CONFIG_BAD_CPU_LIST, 2, 8, "[vm a]\ncpus = 3-1\n", "runs backwards"},
    {CONFIG_BAD_CPU_LIST, 2, 8, "[vm a]\ncpus = 1-\n", "not a CPU"},
    {CONFIG_BAD_CPU_LIST, 2, 8, "[vm a]\ncpus = 0 - 1\n", "not a CPU"},
    {CONFIG_BAD_CPU_LIST, 2, 8, "[vm a]\ncpus = 1 2\n", "not a CPU"},
    {CONFIG_BAD_CPU_LIST, 2, 8, "[vm a]\ncpus = 99999999999999999999\n", "not a CPU"},
    {CONFIG_CPU_OUT_OF_RANGE, 2, 8, "[vm a]\ncpus = 64\n", "from 0 to 63"},
    {CONFIG_CPU_OUT_OF_RANGE, 2, 8, "[vm a]\ncpus = 0-18446744073709551615\n", "from 0 to 63"},
    {CONFIG_CPU_TWICE_IN_LIST, 2, 12, "[vm a]\ncpus = 0-2,1\n", "CPU 1 is in this list already"},
    {CONFIG_TOO_MANY_CPUS, 2, 8, "[vm a]\ncpus = 0-16\n", "at most 16 CPUs, these are 17"},
    {CONFIG_CPU_TAKEN, 6, 10, VM "[vm b]\ncpus = 1,0\n", "CPU 0 belongs to VM 'web' already (line 2)"},
    {CONFIG_BAD_PATH, 2, 10, "[vm a]\nkernel = /boot/vmlinuz\n", "absolute path"},
    {CONFIG_BAD_PATH, 2, 10, "[vm a]\nkernel = ../vmlinuz\n", "'.' or '..'"},
    {CONFIG_BAD_PATH, 2, 10, "[vm a]\nkernel = ./vmlinuz\n", "'.' or '..'"},
    {CONFIG_BAD_PATH, 2, 10, "[vm a]\nkernel = a/../b\n", "'.' or '..'"},
    {CONFIG_BAD_PATH, 2, 10, "[vm a]\nkernel = boot\\vmlinuz\n", "backslash"},
    {CONFIG_BAD_PATH, 2, 10, "[vm a]\nkernel = a//b\n", "empty part"},
    {CONFIG_BAD_PATH, 2, 10, "[vm a]\nkernel = a/\n", "empty part"},
    {CONFIG_BAD_PATH, 2, 10, "[vm a]\nkernel = \"vmlinuz\"\n", "cannot store"},
    {CONFIG_BAD_PATH, 2, 10, "[vm a]\nkernel = c:vmlinuz\n", "cannot store"},
    {CONFIG_BAD_PATH, 2, 10, "[vm a]\nkernel = k\xc3\xa4se\n", "not printable ASCII"},
    {CONFIG_BAD_PATH, 5, 10, VM "initrd = a\tb\n", "not printable ASCII"},
    {CONFIG_BAD_CHOICE, 5, 8, VM "net0 = virtio\n", "use vf, as in net0 = vf pf=01:00.0"},
    {CONFIG_BAD_CHOICE, 5, 9, VM "disk3 = vf pf=1:0.0\n",
     "use nvme-vf, as in disk3 = nvme-vf pf=01:00.0 namespace=1"},
    {CONFIG_BAD_CHOICE, 5, 33, VM "net0 = vf pf=01:00.0 spoofcheck=yes\n",
     "spoofcheck cannot be 'yes': use on or off"},
    {CONFIG_BAD_CHOICE, 5, 28, VM "net0 = vf pf=01:00.0 trust=1\n", "use on or off"},
    {CONFIG_UNKNOWN_KEY, 5, 1, VM "net = vf pf=01:00.0\n", "did you mean 'net0'"},
    {CONFIG_UNKNOWN_KEY, 5, 1, VM "net10 = vf pf=01:00.0\n", "did you mean 'net0'"},
    {CONFIG_UNKNOWN_KEY, 2, 1, "[machine]\nnet3 = vf\n", "'net0' belongs in a [vm NAME] section"},
    {CONFIG_DUPLICATE_KEY, 6, 8, VM NET "\n" NET "\n", "'net0' was given already"},
    {CONFIG_DUPLICATE_KEY, 6, 9, VM DISK "1\n" DISK "2\n", "'disk0' was given already"},
    {CONFIG_TOO_MANY_ASSIGNED, 13, 7,
     VM "pci = 00:01.0\npci = 00:02.0\npci = 00:03.0\npci = 00:04.0\npci = 00:05.0\npci = 00:06.0\n"
        "pci = 00:07.0\npci = 00:08.0\npci = 00:09.0\n",
     "at most 8 devices"},
    {CONFIG_BAD_FUNCTION, 5, 7, VM "pci = 00:20.0\n", "'00:20.0' is not a PCI function"},
    {CONFIG_BAD_FUNCTION, 5, 7, VM "pci = 00:1f.8\n", "as in 01:00.0"},
    {CONFIG_BAD_FUNCTION, 5, 7, VM "pci = 00:1f.0x\n", "as in 01:00.0"},
    {CONFIG_BAD_FUNCTION, 5, 7, VM "pci = 0001:00:1f.0\n", "as in 01:00.0"},
    {CONFIG_BAD_FUNCTION, 5, 7, VM "pci = 0:1f.0\n", "as in 01:00.0"},
    {CONFIG_BAD_FUNCTION, 5, 7, VM "pci = 8086:10c\n", "8086:10c9"},
    {CONFIG_BAD_FUNCTION, 5, 7, VM "pci = 8086:10c9/\n", "with /1 for the second"},
    {CONFIG_BAD_FUNCTION, 5, 7, VM "pci = 8086:10c9/256\n", "with /1 for the second"},
    {CONFIG_BAD_FUNCTION, 5, 14, VM "net0 = vf pf=01:00\n", "is not a PCI function"},
    {CONFIG_FUNCTION_TAKEN, 6, 7, VM "pci = 00:1b.0\npci = 00:1b.0\n",
     "is given to VM 'web' already (line 5)"},
    {CONFIG_FUNCTION_TAKEN, 10, 7, VM NET "\n" VM_B "pci = 01:00.0\n",
     "is the PF of a VF of VM 'web' already (line 5)"},
    {CONFIG_FUNCTION_TAKEN, 6, 8, VM "pci = 01:00.0\n" NET "\n", "is given to VM 'web' already"},
    {CONFIG_FUNCTION_TAKEN, 6, 9, VM NET "\ndisk0 = nvme-vf pf=01:00.0 namespace=1\n", "is the PF of a VF"},
    {CONFIG_BAD_OPTION, 5, 22, VM NET " mak=52:54:00:aa:00:01\n", "did you mean 'mac'"},
    {CONFIG_BAD_OPTION, 5, 22, VM NET " namespace=1\n",
     "there are pf, index, mac, vlan, rate, spoofcheck and trust"},
    {CONFIG_BAD_OPTION, 5, 40, VM DISK "1 mac=52:54:00:aa:00:01\n",
     "there are pf, namespace, index and trust"},
    {CONFIG_BAD_OPTION, 5, 22, VM NET " mac\n", "'mac' has no value: write mac=... without blanks"},
    {CONFIG_BAD_OPTION, 5, 22, VM NET " mac= 52:54:00:aa:00:01\n", "without blanks"},
    {CONFIG_BAD_OPTION, 5, 29, VM NET " vlan=1 vlan=2\n", "'vlan' is in this line already"},
    {CONFIG_MISSING_OPTION, 5, 8, VM "net0 = vf vlan=1\n", "net0 needs pf=, as in net0 = vf pf=01:00.0"},
    {CONFIG_MISSING_OPTION, 5, 9, VM "disk0 = nvme-vf pf=01:00.0\n", "disk0 needs namespace="},
    {CONFIG_BAD_INDEX, 5, 28, VM NET " index=7\n", "use auto, or a number from 0 to 6"},
    {CONFIG_BAD_INDEX, 5, 28, VM NET " index=-1\n", "index cannot be '-1'"},
    {CONFIG_BAD_INDEX, 5, 46, VM DISK "1 index=128\n", "from 0 to 127"},
    {CONFIG_INDEX_TAKEN, 10, 8, VM NET " index=3\n" VM_B NET " index=3\n",
     "VF 3 of this PF belongs to VM 'web' already (line 5)"},
    {CONFIG_TOO_MANY_VFS, 12, 8,
     VM "net0 = vf pf=8086:10c9\nnet1 = vf pf=8086:10c9\nnet2 = vf pf=8086:10c9\nnet3 = vf pf=8086:10c9\n"
        "net4 = vf pf=8086:10c9\nnet5 = vf pf=8086:10c9\nnet6 = vf pf=8086:10c9\nnet7 = vf pf=8086:10c9\n",
     "can give 7 VFs to VMs, this is number 8"},
    {CONFIG_BAD_MAC, 5, 26, VM NET " mac=52:54:00:aa:00\n", "is not a MAC address"},
    {CONFIG_BAD_MAC, 5, 26, VM NET " mac=52:54:00:aa:00:01:02\n", "is not a MAC address"},
    {CONFIG_BAD_MAC, 5, 26, VM NET " mac=52-54-00-aa-00-01\n", "as in mac=52:54:00:aa:00:01"},
    {CONFIG_BAD_MAC, 5, 26, VM NET " mac=53:54:00:aa:00:01\n", "is a group's"},
    {CONFIG_BAD_MAC, 5, 26, VM NET " mac=00:00:00:00:00:00\n", "is nobody's"},
    {CONFIG_MAC_TAKEN, 10, 8,
     VM NET " mac=52:54:00:aa:00:01\n" VM_B "net0 = vf pf=02:00.0 mac=52:54:00:AA:00:01\n",
     "belongs to VM 'web' already (line 5)"},
    {CONFIG_BAD_VLAN, 5, 27, VM NET " vlan=0\n", "from 1 to 4094"},
    {CONFIG_BAD_VLAN, 5, 27, VM NET " vlan=4095\n", "from 1 to 4094"},
    {CONFIG_BAD_VLAN, 5, 27, VM NET " vlan=1,2\n", "vlan cannot be '1,2'"},
    {CONFIG_BAD_RATE, 5, 27, VM NET " rate=0\n", "Mbit/s"},
    {CONFIG_BAD_RATE, 5, 27, VM NET " rate=1G\n", "rate cannot be '1G'"},
    {CONFIG_BAD_RATE, 5, 27, VM NET " rate=99999999999999999999999\n", "1 to 100000"},
    {CONFIG_BAD_NAMESPACE, 5, 38, VM DISK "0\n", "from 1"},
    {CONFIG_BAD_NAMESPACE, 5, 38, VM DISK "4294967295\n", "from 1"},
    {CONFIG_NAMESPACE_TAKEN, 10, 9, VM DISK "1\n" VM_B DISK "1\n",
     "namespace 1 of this controller belongs to VM 'web'"},
    {CONFIG_MISSING_KEY, 1, 1, "[vm a]\n", "VM 'a' has no 'cpus' line"},
    {CONFIG_MISSING_KEY, 1, 1, "[vm a]\ncpus = 1\n[vm b]\n", "VM 'a' has no 'memory' line"},
    {CONFIG_MISSING_KEY, 1, 1, "[vm a]\ncpus = 1\nmemory = 64M\n[machine]\n",
     "VM 'a' has no 'kernel' line (and no 'firmware')"},
    {CONFIG_KERNEL_AND_FIRMWARE, 5, 12, VM "firmware = b\n", "VM 'web' has a kernel already (line 4)"},
    {CONFIG_KERNEL_AND_FIRMWARE, 3, 10, "[vm a]\nfirmware = b\nkernel = c\n",
     "VM 'a' has a firmware already (line 2)"},
    {CONFIG_DUPLICATE_KEY, 3, 1, "[vm a]\nfirmware = b\nfirmware = c\n", "'firmware' was given already"},
    {CONFIG_BAD_PATH, 2, 12, "[vm a]\nfirmware = /b\n", "absolute"},
    {CONFIG_FIRMWARE_DEVICES, 5, 7, "[vm a]\ncpus = 1\nmemory = 64M\nfirmware = b\npci = 00:1b.0\n",
     "VM 'a' has a firmware"},
    {CONFIG_NO_VM, 0, 0, "", "add a [vm NAME] section"},
    {CONFIG_NO_VM, 0, 0, "[machine]\n", "add a [vm NAME] section"},
};

static void expect_bad(const char *text, size_t size, const struct bad *b)
{
    enum status s = parse_bytes(text, size);
    if (s != ERR_INVALID || error.rule != b->rule || error.line != b->line || error.column != b->column ||
        !strstr(error.message, b->message))
        fail_msg("wanted %s at %u:%u with \"%s\", got %s at %u:%u: %s", config_rule_name(b->rule), b->line,
                 b->column, b->message, config_rule_name(error.rule), error.line, error.column,
                 error.message);
}

static void test_each_rule(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        expect_bad(bad[i].text, strlen(bad[i].text), &bad[i]);
}

static void test_nul_byte(void **state)
{
    const struct bad b = {CONFIG_BAD_BYTE, 1, 3, NULL, "control character (0x00)"};
    expect_bad("# \0\n", 4, &b);
}

static void test_sizes_of_things(void **state)
{
    static char text[CONFIG_MAX_SIZE + 1];
    const struct bad too_big = {CONFIG_TOO_BIG, 0, 0, NULL, "larger than 64 KiB"};
    memset(text, '\n', sizeof(text));
    expect_bad(text, sizeof(text), &too_big);
    const struct bad no_vm = {CONFIG_NO_VM, 0, 0, NULL, ""};
    expect_bad(text, sizeof(text) - 1, &no_vm);

    const struct bad too_long = {CONFIG_LINE_TOO_LONG, 1, CONFIG_LINE_MAX + 1, NULL, "longer than 2048"};
    memset(text, '#', CONFIG_LINE_MAX + 1);
    expect_bad(text, CONFIG_LINE_MAX + 1, &too_long);
    expect_bad(text, CONFIG_LINE_MAX, &no_vm);

    int n = sprintf(text, VM "cmdline = ");
    memset(text + n, 'x', CONFIG_CMDLINE_MAX);
    const struct bad cmdline = {CONFIG_VALUE_TOO_LONG, 5, 11, NULL, "1024 bytes, at most 1023"};
    expect_bad(text, (size_t)n + CONFIG_CMDLINE_MAX, &cmdline);
    assert_int_equal(parse_bytes(text, (size_t)n + CONFIG_CMDLINE_MAX - 1), STATUS_OK);
    assert_int_equal(strlen(config.vms[0].cmdline), CONFIG_CMDLINE_MAX - 1);

    n = sprintf(text, VM "initrd = ");
    memset(text + n, 'x', CONFIG_PATH_MAX);
    const struct bad path = {CONFIG_VALUE_TOO_LONG, 5, 10, NULL, "128 characters, at most 127"};
    expect_bad(text, (size_t)n + CONFIG_PATH_MAX, &path);
    assert_int_equal(parse_bytes(text, (size_t)n + CONFIG_PATH_MAX - 1), STATUS_OK);
    assert_int_equal(strlen(config.vms[0].initrd), CONFIG_PATH_MAX - 1);
}

static void test_many_vms(void **state)
{
    static char text[4096];
    size_t n = 0;
    for (int i = 0; i <= CONFIG_MAX_VMS; i++)
        n += (size_t)sprintf(text + n, "[vm v%d]\ncpus = %d\nmemory = 64M\nkernel = k\n", i, i);
    const struct bad b = {CONFIG_TOO_MANY_VMS, 4 * CONFIG_MAX_VMS + 1, 5, NULL, "at most 9 VMs"};
    expect_bad(text, n, &b);
    *strstr(text, "[vm v9]") = 0;
    assert_int_equal(parse(text), STATUS_OK);
    assert_int_equal(config.vm_count, CONFIG_MAX_VMS);
    assert_string_equal(config.vms[8].name, "v8");
    assert_int_equal(config.vms[8].cpus, 1 << 8);
}

static void test_long_quotes_are_cut(void **state)
{
    assert_int_equal(parse("[vm a]\nmemory = aaaaaaaaaabbbbbbbbbbccccccccccdddddddddde\n"), ERR_INVALID);
    assert_non_null(strstr(error.message, "'aaaaaaaaaabbbbbbbbbbccccccccccdddddddddd...'"));
    assert_int_equal(parse("[vm a]\nmemory = aaaaaaaaaabbbbbbbbbbccccccccccdddddddddd\n"), ERR_INVALID);
    assert_non_null(strstr(error.message, "'aaaaaaaaaabbbbbbbbbbccccccccccdddddddddd'"));
    assert_int_equal(parse("[vm a]\nmemory = \xc3\xa4\n"), ERR_INVALID);
    assert_non_null(strstr(error.message, "'?"
                                          "?'"));
}

static void test_machine(void **state)
{
    assert_int_equal(parse(VM "[vm b]\ncpus = 1,3\nmemory = 128M\nkernel = k\n"), STATUS_OK);
    assert_int_equal(config_check_machine(&config, 4, 192ull << 20, &error), STATUS_OK);
    assert_int_equal(config_check_machine(&config, 64, UINT64_MAX, &error), STATUS_OK);
    assert_int_equal(config_check_machine(&config, 100, UINT64_MAX, &error), STATUS_OK);
    assert_int_equal(error.rule, CONFIG_OK);

    assert_int_equal(config_check_machine(&config, 3, 192ull << 20, &error), ERR_INVALID);
    assert_int_equal(error.rule, CONFIG_CPU_ABSENT);
    assert_int_equal(error.line, 6);
    assert_int_equal(error.column, 8);
    assert_non_null(strstr(error.message, "VM 'b' wants CPU 3, but this machine has 3 CPUs"));
    assert_int_equal(config_check_machine(&config, 1, 192ull << 20, &error), ERR_INVALID);
    assert_non_null(strstr(error.message, "has 1 CPU, "));

    assert_int_equal(config_check_machine(&config, 4, (192ull << 20) - 1, &error), ERR_INVALID);
    assert_int_equal(error.rule, CONFIG_MEMORY_ABSENT);
    assert_int_equal(error.line, 7);
    assert_int_equal(error.column, 10);
    assert_non_null(
        strstr(error.message, "VM 'b' wants 128 MiB of memory, but this machine has only 127 MiB"));
}

static void test_rule_names(void **state)
{
    for (int i = 0; i < CONFIG_RULE_COUNT; i++) {
        assert_non_null(config_rule_name((enum config_rule)i));
        for (int j = 0; j < i; j++)
            assert_string_not_equal(config_rule_name((enum config_rule)i),
                                    config_rule_name((enum config_rule)j));
    }
    assert_string_equal(config_rule_name(CONFIG_CPU_TAKEN), "CPU_TAKEN");
    assert_string_equal(config_rule_name(CONFIG_RULE_COUNT), "?");
}

/* Each rule of the enumeration is raised by some test above. */
static void test_every_rule_has_a_case(void **state)
{
    uint64_t elsewhere = 1ull << CONFIG_OK | 1ull << CONFIG_TOO_BIG | 1ull << CONFIG_LINE_TOO_LONG |
                         1ull << CONFIG_VALUE_TOO_LONG | 1ull << CONFIG_TOO_MANY_VMS |
                         1ull << CONFIG_CPU_ABSENT | 1ull << CONFIG_MEMORY_ABSENT;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        elsewhere |= 1ull << bad[i].rule;
    assert_int_equal(elsewhere, (1ull << CONFIG_RULE_COUNT) - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full_example),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_defaults_across_sections),
        cmocka_unit_test(test_assigned),
        cmocka_unit_test(test_choices),
        cmocka_unit_test(test_longest_module),
        cmocka_unit_test(test_accepted_forms),
        cmocka_unit_test(test_comments),
        cmocka_unit_test(test_each_rule),
        cmocka_unit_test(test_nul_byte),
        cmocka_unit_test(test_sizes_of_things),
        cmocka_unit_test(test_many_vms),
        cmocka_unit_test(test_long_quotes_are_cut),
        cmocka_unit_test(test_machine),
        cmocka_unit_test(test_rule_names),
        cmocka_unit_test(test_every_rule_has_a_case),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
