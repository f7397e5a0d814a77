/* A small virtual machine for the tests of the core: real devices, local APICs and gmem over memory of the
 * test's own, with nothing of the guest's in it yet. The hardware is fake_virt, the host fake_host. */
#pragma once

#include "hv/exits/emulate.h"
#include "hv/vm.h"

#define MACHINE_VCPUS 4u

/* Guest-physical RAM: [0, a0000) and [c0000, 100000), nothing between and nothing behind, as in
 * hv/guest/layout.h. In host memory the pages lie apart, between pages that nobody may touch. */
#define MACHINE_RAM_END  0x100000ull
#define MACHINE_HOLE     0xa0000ull
#define MACHINE_HOLE_END 0xc0000ull
#define MACHINE_NOTHING  0xd0000000ull /* neither RAM nor a device */

/* Where machine_paging() puts the tables, and what it maps: linear = guest-physical for the first 4 GiB in 2
 * MiB pages, but the first 2 MiB in 4 KiB pages. */
#define MACHINE_TABLES 0x10000ull

struct machine {
    struct config_vm config;
    struct vm vm;
    struct vcpu vcpus[MACHINE_VCPUS];
};
extern struct machine machine;

/* Zeroed RAM, `vcpus` vCPUs on CPUs 0.. of core.cpus, devices reset, the VM running, vCPU 0 at RIP 0x1000 in
 * flat 64-bit mode with paging on, the others likewise. */
void machine_init(unsigned vcpus);
/* Modes of vCPU 0: flat segments, RIP stays. */
void machine_long_mode(struct vcpu *vcpu);
void machine_protected_mode(struct vcpu *vcpu); /* 32 bits, no paging */
void machine_real_mode(struct vcpu *vcpu);
void machine_user(struct vcpu *vcpu); /* CPL 3 */

/* RAM of the guest: a pointer to a page's byte (the test's side), NULL where none is. */
uint8_t *machine_ram(uint64_t gpa);
void machine_write(uint64_t gpa, const void *bytes, size_t size);
/* Builds the tables described above at MACHINE_TABLES, all pages user and writable. */
void machine_paging(void);
/* The 4 KiB page's entry for a linear address below 2 MiB; change it as the test likes. */
uint64_t *machine_pte(uint64_t linear);
/* The 2 MiB entry for a linear address of 2 MiB .. 4 GiB. */
uint64_t *machine_pde(uint64_t linear);
/* Nobody wrote to host memory that is not the guest's. */
bool machine_guards_intact(void);

/* Code at RIP of vCPU 0 (identity-mapped). */
void machine_code(struct vcpu *vcpu, const void *bytes, size_t size);
