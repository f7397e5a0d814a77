/* bulkhead.conf: the parser and every rule of the configuration. One pure module, used by the loader and by
 * the offline checker (scripts/check-config), so that both say the same. Which of its files does what is in
 * hv/config/config_internal.h.
 *
 * The file is UTF-8 text (a byte order mark and CRLF are fine) of sections with `key = value` lines. `#`
 * begins a comment at the start of a line or after a blank; in a `cmdline` value it is an ordinary character.
 * Names are case-sensitive.
 *
 *   [machine]   once, may be left out
 *     console    serial | screen; not given: both, where there is a framebuffer
 *     log        error | warn | info (default) | debug: what the console shows
 *     report     yes | no (default): the preflight report is also written to \bulkhead.report
 *     on_idle    poweroff (default) | reboot | stay
 *     on_panic   stay (default) | reboot
 *   [vm NAME]   one for each VM; NAME of a-z 0-9 -
 *     cpus       CPU numbers, 0-1,3                          required
 *     memory     size with K, M or G, a multiple of 2M       required
 *     kernel     path, relative, with / between directories  required, or:
 *     firmware   path of a flash image, which is begun at the reset vector
 *     load       address: the kernel is a raw image, begun there in real mode
 *     initrd     path                                        Linux only
 *     module     path, then its arguments after a blank      Multiboot only; may be given several times
 *     cmdline    text
 *     on_reboot  restart (default) | stop
 *     on_crash   stop (default) | restart | dump
 *     console    1..9; not given: the lowest digit that no VM asks for, in the order of the file
 *     log        as in [machine], which is the default
 *     netN       vf pf=FUNCTION [index=auto|n] [mac=..] [vlan=1..4094] [rate=Mbit/s] [spoofcheck=on|off]
 *                [trust=on|off]: a virtual function of a network card; N is 0..9
 *     diskN      nvme-vf pf=FUNCTION namespace=n [index=auto|n]: a virtual function of an NVMe controller
 *     diskN      ramdisk path: an IDE disk whose content is the file's; N is 0..3, its position: primary
 *                master, primary slave, secondary master, secondary slave
 *     cdromN     ramdisk path: an IDE CD-ROM drive; N is 0..3: secondary master, secondary slave, primary
 *                master, primary slave
 *     pci        FUNCTION: a whole function of the machine; may be given several times
 *     compat     none (default) | qemu: also the devices that test kernels know from QEMU
 *     x2apic     on (default) | off: the VM's processors have only the memory-mapped local APIC
 * FUNCTION is an address, 01:00.0, or vendor and device, 8086:10c9, with /n for the nth (from 0). */
#pragma once

#include "hv/lib/log.h"
#include "hv/lib/types.h"

#define CONFIG_MAX_VMS     9   /* as many as one digit can name */
#define CONFIG_MAX_CPUS    64  /* host CPUs that can be named in `cpus =` */
#define CONFIG_NAME_MAX    32  /* with NUL */
#define CONFIG_PATH_MAX    128 /* with NUL */
#define CONFIG_CMDLINE_MAX 1024
#define CONFIG_MAX_SIZE    (64u * 1024u) /* bytes of a configuration file */
#define CONFIG_LINE_MAX    2048u         /* bytes of a line, without its end */
#define CONFIG_MAX_VCPUS   16u           /* CPUs of one VM */
#define CONFIG_MEMORY_MIN  (8ull << 20)  /* bytes of one VM; Linux wants more, which linux_plan() says */
#define CONFIG_MEMORY_MAX  (1ull << 40)
#define CONFIG_MEMORY_UNIT (2ull << 20)
#define CONFIG_MAX_MODULES 4u       /* of one VM */
#define CONFIG_MAX_DISKS   4u       /* ramdisks of one VM: the positions of two IDE channels */
#define CONFIG_ARGS_MAX    256u     /* of a module, with NUL */
#define CONFIG_LOAD_FIRST  0x500u   /* of `load`: above interrupt vectors and BIOS data */
#define CONFIG_LOAD_END    0x9f000u /* and below the EBDA */
#define CONFIG_DIGITS      9u       /* `console = 1` .. 9 */

#define CONFIG_MAX_ASSIGNED 8u /* devices of one VM */
#define CONFIG_NET_VFS_MAX  7u /* of one card: an 82576's or I350's pool 7 is the card's own */
#define CONFIG_VFS_MAX      128u

enum config_console {
    CONSOLE_AUTO,   /* serial, and the framebuffer when there is one */
    CONSOLE_SERIAL, /* the framebuffer shows panics only */
    CONSOLE_SCREEN, /* serial and framebuffer */
};
enum config_on_panic { ON_PANIC_STAY, ON_PANIC_REBOOT };
enum config_on_idle { ON_IDLE_POWEROFF, ON_IDLE_REBOOT, ON_IDLE_STAY };
enum config_on_stop {
    ON_STOP_STOP,
    ON_STOP_RESTART,
    ON_STOP_DUMP, /* on_crash only: the full dump goes to the console, then as ON_STOP_STOP */
};
enum config_compat { COMPAT_NONE, COMPAT_QEMU };

struct config_module {
    char path[CONFIG_PATH_MAX];
    char args[CONFIG_ARGS_MAX]; /* "" = none */
    uint32_t line, column;      /* where the path stands, 1-based */
};

enum config_assign_kind { ASSIGN_NET_VF, ASSIGN_NVME_VF, ASSIGN_PCI };

/* One device for a VM: a VF of the function that is named, or that function itself. */
struct config_assign {
    enum config_assign_kind kind;
    uint8_t number; /* N of netN, diskN */
    bool by_id;     /* vendor, device, nth (from 0), and not bdf */
    uint16_t bdf, vendor, device;
    uint8_t nth;
    int16_t index; /* of the VF, from 0; -1: any */
    uint8_t mac[6];
    bool has_mac;
    uint16_t vlan;          /* 1..4094; 0: the guest may choose */
    uint32_t rate;          /* Mbit/s; 0: no limit */
    bool spoofcheck, trust; /* default on, off */
    uint32_t namespace;     /* diskN: from 1 */
    uint32_t line, column;  /* where its value begins */
};

/* A file in memory that the VM has as a disk, or as a CD. */
struct config_disk {
    char path[CONFIG_PATH_MAX];
    bool cdrom;
    uint8_t number;        /* N of diskN, cdromN */
    uint8_t position;      /* 0..3, see above; each taken once */
    uint32_t line, column; /* where the path stands */
};

struct config_vm {
    char name[CONFIG_NAME_MAX];
    uint64_t cpus;   /* bit n: host CPU n (index into boot_info.cpus) */
    uint64_t memory; /* bytes, multiple of 2 MiB, >= CONFIG_MEMORY_MIN */
    char kernel[CONFIG_PATH_MAX];
    bool firmware; /* `kernel` is a flash image that starts at the reset vector, from a `firmware` line */
    char initrd[CONFIG_PATH_MAX]; /* "" = none */
    char cmdline[CONFIG_CMDLINE_MAX];
    uint32_t load;                 /* 0: not given; else where a raw real-mode image goes, 0x500 .. 0x9efff */
    enum config_on_stop on_reboot; /* default restart */
    enum config_on_stop on_crash;  /* default stop */
    uint8_t console;               /* the digit that brings it to the front, 1..9, no two VMs have the same */
    enum log_level log;            /* what the console shows of its lines */
    enum config_compat compat;     /* default none */
    bool no_x2apic;
    uint32_t module_count;
    struct config_module modules[CONFIG_MAX_MODULES];
    uint32_t disk_count;
    struct config_disk disks[CONFIG_MAX_DISKS];
    uint32_t assigned_count;
    struct config_assign assigned[CONFIG_MAX_ASSIGNED];
    uint32_t line; /* where its section starts, for later messages */
    uint32_t cpus_line, memory_line, kernel_line, initrd_line;         /* 1-based; 0: not given */
    uint32_t cpus_column, memory_column, kernel_column, initrd_column; /* where the values begin */
    uint32_t console_line, log_line;                                   /* 0: not given */
};

struct config {
    enum config_console console;
    enum config_on_idle on_idle;   /* default poweroff */
    enum config_on_panic on_panic; /* default stay */
    enum log_level log;            /* default info */
    bool report;                   /* default no */
    uint32_t vm_count;
    struct config_vm vms[CONFIG_MAX_VMS];
};

/* One enum value for each rule, so that each has a test. */
enum config_rule {
    CONFIG_OK = 0,
    CONFIG_TOO_BIG,
    CONFIG_BAD_BYTE, /* NUL or control byte, bad UTF-8 is allowed only in cmdline */
    CONFIG_LINE_TOO_LONG,
    CONFIG_BAD_SECTION,
    CONFIG_UNKNOWN_SECTION,
    CONFIG_DUPLICATE_SECTION,
    CONFIG_BAD_VM_NAME,
    CONFIG_TOO_MANY_VMS,
    CONFIG_KEY_OUTSIDE_SECTION,
    CONFIG_NO_EQUALS,
    CONFIG_UNKNOWN_KEY,
    CONFIG_DUPLICATE_KEY,
    CONFIG_EMPTY_VALUE,
    CONFIG_VALUE_TOO_LONG,
    CONFIG_BAD_CHOICE,
    CONFIG_BAD_SIZE,
    CONFIG_MEMORY_TOO_SMALL,
    CONFIG_MEMORY_TOO_LARGE,
    CONFIG_MEMORY_UNALIGNED,
    CONFIG_BAD_CPU_LIST,
    CONFIG_CPU_OUT_OF_RANGE,
    CONFIG_CPU_TWICE_IN_LIST,
    CONFIG_TOO_MANY_CPUS, /* for one VM */
    CONFIG_CPU_TAKEN,     /* given to two VMs */
    CONFIG_BAD_PATH,      /* absolute, "..", backslash, or not printable ASCII */
    CONFIG_TOO_MANY_MODULES,
    CONFIG_BAD_DISK,    /* no such position for a ramdisk */
    CONFIG_DISK_TAKEN,  /* two at one position */
    CONFIG_BAD_LOAD,    /* `load` is not an address where an image can be */
    CONFIG_BAD_DIGIT,   /* `console` of a VM is not 1..9 */
    CONFIG_DIGIT_TAKEN, /* given to two VMs */
    CONFIG_TOO_MANY_ASSIGNED,
    CONFIG_BAD_FUNCTION,   /* neither an address nor ids */
    CONFIG_FUNCTION_TAKEN, /* given twice, or given while its VFs are */
    CONFIG_BAD_OPTION,     /* unknown, twice, or without a value */
    CONFIG_MISSING_OPTION,
    CONFIG_BAD_INDEX,
    CONFIG_INDEX_TAKEN,
    CONFIG_TOO_MANY_VFS, /* of one card */
    CONFIG_BAD_MAC,      /* malformed, zero, or a group's */
    CONFIG_MAC_TAKEN,
    CONFIG_BAD_VLAN,
    CONFIG_BAD_RATE,
    CONFIG_BAD_NAMESPACE,
    CONFIG_NAMESPACE_TAKEN,
    CONFIG_KERNEL_AND_FIRMWARE,
    CONFIG_FIRMWARE_DEVICES, /* of the machine, which a VM with firmware cannot have */
    CONFIG_MISSING_KEY,
    CONFIG_NO_VM,
    CONFIG_CPU_ABSENT,    /* config_check_machine: this machine has no such CPU */
    CONFIG_MEMORY_ABSENT, /* config_check_machine: more memory than there is */
    CONFIG_RULE_COUNT
};

struct config_error {
    enum config_rule rule;
    uint32_t line, column; /* 1-based, in bytes; 0 when the whole file is meant */
    char message[240];     /* says what is wrong and what to do; without file name and position */
};

/* Parses and checks `text`. On failure returns ERR_INVALID with `error` filled (the first error found); `out`
 * is then unspecified. Does not need NUL termination. Never reads beyond text.size. */
enum status config_parse(struct span text, struct config *out, struct config_error *error);

/* The rules that need the machine: `cpu_count` CPUs present, `free_memory` bytes that VMs can have together.
 */
enum status config_check_machine(const struct config *config, uint32_t cpu_count, uint64_t free_memory,
                                 struct config_error *error);

/* What is wrong with the size of a ramdisk's file, or NULL. */
const char *config_disk_fault(const struct config_disk *disk, uint64_t size);

/* Name of a rule for tests and logs, e.g. "CPU_TAKEN". */
const char *config_rule_name(enum config_rule rule);
