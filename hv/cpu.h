/* A physical CPU. Each CPU finds its own through GS:0. */
#pragma once

#include "hv/lib/addr.h"

struct msi_cpu;
struct vcpu;

struct cpu {
    struct cpu *self;         /* GS:0. Constant */
    uint32_t index;           /* into cpus[] and boot_info.cpus. Constant */
    uint32_t apic_id;         /* Constant */
    struct vcpu *vcpu;        /* the vCPU loaded here, NULL when none. This CPU only */
    struct vcpu *assigned;    /* the scheduler's: the vCPU this CPU is to run. Atomic */
    bool polls_console;       /* this CPU looks at the host's serial port. Constant */
    uint64_t poll_tsc;        /* when it looks next. This CPU only */
    uint64_t windows_changed; /* windows of this CPU that were moved, ever. This CPU only */
    uint32_t online;          /* set when the CPU is in VMX root operation. Atomic */
    uint32_t nmis;            /* host NMIs seen. Atomic */
    struct msi_cpu *msi;      /* vectors of devices (hv/assign/msi.h); NULL: none. Constant once VMs run */
    void *hw; /* arch/x86's part: descriptor tables, stacks, windows, VMXON region. Constant */
};

/* What hv/ asks of the host's processor; arch/x86/host_hw.c answers, tests/host fakes it. */
uint64_t host_tsc(void);
/* The CPU we are on. */
struct cpu *host_cpu(void);
/* Makes `target` leave its guest, or wake from idle. Cheap, asynchronous, callable from any CPU. */
void host_kick(const struct cpu *target);
/* Has an interrupt arrive at this CPU when its guest goes on. */
void host_raise(uint8_t vector);
/* Is its local APIC, and so every other, in x2APIC mode? */
bool host_x2apic(void);
/* The vector of the host's serial port, at the CPU that polls the console. */
#define HOST_VECTOR_CONSOLE 0xf2u
/* Sleeps until a kick, or until the TSC reaches `until` (UINT64_MAX: no limit). May return early. */
void host_idle(uint64_t until);
/* A host interrupt or NMI arrived while a guest ran (already acknowledged): ends it at the APIC. */
void host_handle_interrupt(uint8_t vector);
void host_handle_nmi(void);
/* Ends everything: powers the machine off or resets it by every means known. Does not return. */
void host_poweroff(void) __attribute__((noreturn));
void host_reboot(void) __attribute__((noreturn));
/* A pointer through which this CPU reaches one page of physical memory until its next call with this slot. */
#define HOST_WINDOWS       65u
#define HOST_WINDOW_FILE   0u /* pristine images and firmware tables */
#define HOST_WINDOW_GUEST  1u /* .. 64: guest memory (hv/gmem.c), one by the page's number */
#define HOST_WINDOW_GUESTS 64u
void *host_window(hpa_t page, unsigned slot);
/* Fills whole pages with zeros. Uses vector registers: only while no vCPU is loaded on this CPU. */
void host_zero_pages(hpa_t first, uint64_t count);
/* The host found itself broken: prints everything it knows and stops the machine. */
void host_panic(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

#define HOST_ASSERT(cond)                                                                                    \
    do {                                                                                                     \
        if (!(cond))                                                                                         \
            host_panic("%s:%d: broken promise: %s", __FILE__, __LINE__, #cond);                              \
    } while (0)
