/* Between hv/exits/emulate.c, hv/exits/emulate_rare.c, hv/exits/segment.c and hv/exits/task_switch.c: an
 * instruction, or a task switch, on its way. Nobody else includes this. */
#pragma once

#include "arch/x86/guest_walk.h"
#include "hv/exits/emulate.h"

/* One instruction on its way. */
struct emulation {
    struct vcpu *vcpu;
    struct walk_paging paging;
    enum guest_mode mode;
    bool user;
    struct seg cs;
    struct guest_insn *code;         /* the vCPU's, kept between instructions */
    const struct exit_nested *fault; /* the access that led here; NULL: none */
    struct fetch_memo *memo;         /* while code is being fetched: the vCPU's; else NULL */
    struct insn_regs regs;
    /* Set when a step failed: what to answer. */
    struct exit_result failure;
};

/* Takes the guest's registers, as they were at the exit. */
void emulation_begin(struct emulation *e, struct vcpu *vcpu);
/* Segmentation of a memory operand of 1 to 4096 bytes. False: e->failure says what to do; so with the next
 * two. */
bool emulation_linear(struct emulation *e, enum seg_name name, uint64_t offset, unsigned size, bool write,
                      gva_t *linear);
/* An access of 1, 2, 4 or 8 bytes by linear address, checked and translated first, byte by byte where it
 * crosses a page. */
bool emulation_access(struct emulation *e, gva_t linear, unsigned size, bool write, uint64_t *value);
/* Asks for every page of an access of at most a page that is made later: reading a device is not repeatable,
 * so nothing is read while the instruction can still fault. */
bool emulation_probe(struct emulation *e, gva_t linear, unsigned size, bool write);
/* Where at most a page of linear addresses is in guest-physical memory: `in_page` bytes from `first` on, then
 * from `second` on. */
struct emulation_place {
    gpa_t first, second;
    uint64_t in_page;
};
/* For an access in several parts, of which none may fail once one was made: a store may change the page
 * tables that the next part would be found with. */
bool emulation_find(struct emulation *e, gva_t linear, unsigned size, bool write,
                    struct emulation_place *out);
/* 1, 2, 4 or 8 bytes of it, `offset` bytes from its beginning, byte by byte where they cross a page. */
void emulation_move(struct emulation *e, const struct emulation_place *place, unsigned offset, unsigned size,
                    bool write, uint64_t *value);
/* Pushes `size` bytes onto the guest's stack, whose pointer moves in e->regs. False: e->failure. */
bool emulation_push(struct emulation *e, unsigned size, uint64_t value);
/* Puts the registers back and steps over the instruction, or only puts them back. */
struct exit_result emulation_finish(struct emulation *e, bool done);

/* An instruction that cannot be completed: says so in the log, and e->failure stops the VM. */
void emulation_stop(struct emulation *e, const char *why);

/* Completes an instruction from INSN_PUSH on (hv/exits/emulate_rare.c). */
struct exit_result emulation_run_rare(struct emulation *e);
