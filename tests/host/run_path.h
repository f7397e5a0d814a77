/* For the tests between an exit and the next entry: the machine of machine.h with a CPUID table, its local
 * APICs wired as hv/vm.c does it, and a clean record. */
#pragma once

#include "hv/exits/exit_table.h"
#include "tests/host/fake_host.h"
#include "tests/host/fake_virt.h"
#include "tests/host/machine.h"

/* vCPU `n` of the machine. */
#define VCPU(n) (&machine.vcpus[n])

/* `vcpus` vCPUs in 64-bit mode, interrupts off, nothing pending, deadlines up to date. */
void run_path_init(unsigned vcpus);
/* What the exit path does with this exit: recorded RIP, handler, result, next entry. True: the guest is
 * entered. */
bool run_path_exit(struct vcpu *vcpu, const struct exit *exit);
/* The same for an instruction of `length` bytes that exits by itself. */
bool run_path_insn(struct vcpu *vcpu, enum exit_kind kind, uint8_t length);
/* The handler alone: its answer. */
struct exit_result run_path_handle(struct vcpu *vcpu, const struct exit *exit);
/* Entry without an exit: the event the guest takes, valid = false: none. Fails when the loop is left. */
struct event run_path_enter(struct vcpu *vcpu);
/* A software-enabled local APIC with this vector pending, as if another CPU had sent it. */
void run_path_post(struct vcpu *vcpu, uint8_t vector);

/* Checks of a handler's answer. */
void assert_advances(struct exit_result result);
void assert_injects(struct exit_result result, uint8_t vector);
void assert_injects_error(struct exit_result result, uint8_t vector, uint32_t error);
void assert_stops(struct exit_result result, enum stop_reason why);
