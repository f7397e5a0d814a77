/* The full dump of a VM as text, for a console transcript: what each vCPU was doing, its registers, and all
 * that its flight recorder keeps. scripts/replay finds it between other lines and runs the exits again.
 *
 * Version 1. Every line is
 *
 *     =dump NAME SEQ: CONTENT
 *
 * NAME is the VM's, SEQ counts the lines from 0. What stands before "=dump " on the line does not belong to
 * it. Numbers in CONTENT are hexadecimal without prefix unless said otherwise. In this order:
 *
 *     bulkhead-dump 1 vcpus N tsc T khz K state WORDS      N and K decimal; always SEQ 0
 *     vcpu I cpu C exits N kept N                  decimal; for each vCPU
 *     nosnapshot WORDS                             either this, or the lines up to apic
 *     snapshot tsc T
 *     reg NAME=VALUE ...                           several lines
 *     seg NAME=SELECTOR,BASE,LIMIT,ACCESS          one line each
 *     code BYTE...                                 at RIP; as many as were readable
 *     apic base=.. tpr=.. svr=.. irr=.. isr=..     irr and isr: 64 digits, highest vector first
 *     x NUMBER tTSC rREASON iRIP aRAX cRCX dRDX bRBX =RESULT KIND      one exit, oldest first; NUMBER decimal
 *     + KEYVALUE ...                               the rest of the exit before it, when there is any
 *     end lines N checksum C                       N decimal, this one not counted
 *
 * Keys of an exit: t TSC, r reason field, i RIP, a c d b the guest's RAX, RCX, RDX, RBX at the exit; l
 * instruction length, n instruction information, v and w interruption information and its error code, y and
 * z the same of IDT vectoring, q qualification, p guest-physical and g guest-linear address. A key that is
 * not there is 0. RESULT is struct exit_result as a number, action in its lowest byte; KIND
 * is exit_kind_name() of what the core's vmx_decode() makes of it. The checksum is
 * FNV-1a, 64 bits, over every CONTENT before it with a newline (0x0a) after each. */
#pragma once

#include "arch/x86/virt.h"

struct lines;
struct vcpu;

#define DUMP_VERSION 1u
#define DUMP_TAG     "=dump "
#define DUMP_CODE    16u /* bytes at RIP */
#define DUMP_WAIT_MS 100u

#define DUMP_CHECKSUM_START 0xcbf29ce484222325ull
uint64_t dump_checksum(uint64_t sum, const char *content);

/* A vCPU's registers, copied by the CPU that runs it: on request, and when it leaves the run loop. */
struct vcpu_snapshot {
    uint32_t taken;  /* A. snapshots ever: odd while one is being written */
    uint32_t wanted; /* A. requests ever made */
    uint32_t served; /* A. of which this one answers so many */
    uint64_t tsc;    /* host TSC when it was taken */
    uint64_t gpr[16];
    uint64_t reg[VIRT_REG_COUNT];
    struct seg seg[SEG_COUNT];
    uint8_t code[DUMP_CODE];
    uint32_t code_size;
    uint64_t apic_base;
    uint32_t apic_tpr, apic_svr, apic_irr[8], apic_isr[8];
};

/* On the CPU where the vCPU is loaded. */
void dump_take_snapshot(struct vcpu *vcpu);

/* `dump VM`, and on_crash = dump: a struct lines (vm set). While the VM runs, each vCPU is asked for its
 * registers when its turn comes; one that does not answer within DUMP_WAIT_MS is dumped without them. There
 * is one dump at a time: a second one gets empty lines ("nothing yet") until the first is done, or until
 * nobody has asked for the first one's next line for DUMP_ABANDONED_MS. */
#define DUMP_ABANDONED_MS 2000u
bool dump_next(struct lines *self, char *line, size_t size);
