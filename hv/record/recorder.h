/* The flight recorder: each vCPU's last exits, always on. The exit path fills the slot in place; any CPU may
 * read while it does, and notices when a slot was taken again meanwhile. */
#pragma once

#include "arch/x86/vmx/vmx_raw.h"

#define RECORDER_KEEPS 1024u /* exits of a vCPU */
/* What the recorders of all vCPUs together take from Bulkhead's own memory at most: with more than 36 vCPUs
 * each keeps fewer exits. */
#define RECORDER_BUDGET (4u << 20)

/* The entry code in vmx_entry.asm knows where the four registers are. */
struct recorder_entry {
    struct vmx_raw raw;
    uint64_t tsc;                /* host TSC at the exit */
    uint64_t rax, rcx, rdx, rbx; /* of the guest, at the exit */
    struct exit_result result;   /* the handler's; ACTION_PENDING until it has answered */
};

/* One slot more than exits are kept: the one that the next exit fills, from its first instruction on. */
struct recorder {
    struct recorder_entry *next;         /* that slot. First: the entry code knows the offset */
    struct recorder_entry *first, *last; /* constant */
    uint64_t count; /* exits ever; exit number n (from 0) is in slot n modulo the number of slots */
};

/* How many slots each of `vcpus` (1..) vCPUs gets, and how many pages they take. */
static inline uint32_t recorder_slots(uint32_t vcpus)
{
    uint32_t slots = RECORDER_BUDGET / (vcpus * (uint32_t)sizeof(struct recorder_entry));
    return slots > RECORDER_KEEPS ? RECORDER_KEEPS + 1 : slots;
}

static inline uint32_t recorder_pages(uint32_t slots)
{
    return (uint32_t)(((uint64_t)slots * sizeof(struct recorder_entry) + PAGE_SIZE - 1) / PAGE_SIZE);
}

/* `slots` (2..) zeroed entries. */
void recorder_init(struct recorder *r, struct recorder_entry *entries, uint32_t slots);

static inline uint64_t recorder_kept(const struct recorder *r)
{
    return (uint64_t)(r->last - r->first);
}

/* Takes the next slot, `entry`, for an exit that has just happened. Readers rely on the order: the answer of
 * the exit that was there before is gone before the count tells of the new one. x86 keeps the order of writes
 * (SDM volume 3, 9.2.2) when the compiler does. */
static inline void recorder_take(struct recorder *r, struct recorder_entry *entry)
{
    entry->result = (struct exit_result){.action = ACTION_PENDING};
    r->next = entry == r->last ? r->first : entry + 1;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    r->count++; /* only this CPU writes it */
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

/* The entry `back` exits ago (0 = the newest), or NULL when there is none: for the CPU that records, or when
 * it has stopped. */
const struct recorder_entry *recorder_at(const struct recorder *r, uint64_t back);

/* From any CPU: exits ever, and a copy of exit number `number`. False: not kept any more, or not yet there.
 * Fields of the snapshot that its reason does not need are 0 in the copy. */
uint64_t recorder_count(const struct recorder *r);
bool recorder_copy(const struct recorder *r, uint64_t number, struct recorder_entry *out);

/* In words; all answer the length the text needs, as fmt_format() does. */
/* What happened: "EPT_VIOLATION (48) rip 0x...  write at guest-physical fee000b0". */
size_t recorder_describe(const struct recorder_entry *entry, char *buf, size_t size);
/* What Bulkhead answered: "done", "resumed", "#GP(0), vector 0d", "stopped: triple fault". */
size_t recorder_describe_result(const struct recorder_entry *entry, char *buf, size_t size);
/* Both, with an arrow between them. */
size_t recorder_describe_all(const struct recorder_entry *entry, char *buf, size_t size);

struct lines;
/* `trace VM`: the last self->count exits (0: RECORDER_TRACE_DEFAULT) of vCPU self->vcpu, oldest first. */
#define RECORDER_TRACE_DEFAULT 20u
bool trace_next(struct lines *self, char *line, size_t size);
