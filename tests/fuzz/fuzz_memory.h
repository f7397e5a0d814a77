/* The tests' machine under a fuzzer: which pages of its guest were reached, what changed in them, and back to
 * the beginning. Any page beyond those of the fake aborts. */
#pragma once

#include <string.h>

#include "tests/host/fake_vdev_env.h"
#include "tests/host/machine.h"

#define MEMORY_PAGES 512u  /* host pages that the machine has at most */
#define MEMORY_USED  0x60u /* accessed and dirty: what a walk may set in an entry */

static struct {
    void *(*map)(void *ctx, hpa_t page);
    uint8_t pristine[MEMORY_PAGES][PAGE_SIZE], before[MEMORY_PAGES][PAGE_SIZE];
    uint8_t *at[MEMORY_PAGES];
    bool touched[MEMORY_PAGES];
    unsigned list[MEMORY_PAGES], count; /* those that were touched */
    unsigned maps;                      /* how often a page was asked for */
} memory;

static void *memory_map(void *ctx, hpa_t page)
{
    uint8_t *at = memory.map(ctx, page);
    uint64_t number = page.v >> PAGE_SHIFT;
    FAKE_REQUIRE(number < MEMORY_PAGES);
    memory.maps++;
    if (!memory.touched[number]) {
        memory.touched[number] = true;
        memory.list[memory.count++] = (unsigned)number;
        memory.at[number] = at;
        memcpy(memory.before[number], at, PAGE_SIZE);
    }
    return at;
}

/* From here on, and what memory_restore() comes back to. Once. */
static inline void memory_watch(void)
{
    uint8_t byte;
    memory.map = machine.vm.gmem.map;
    machine.vm.gmem.map = memory_map;
    for (uint64_t at = 0; at < MACHINE_RAM_END; at += PAGE_SIZE)
        (void)gmem_read(&machine.vm.gmem, gpa(at), &byte, 1);
    for (unsigned i = 0; i < memory.count; i++)
        memcpy(memory.pristine[memory.list[i]], memory.at[memory.list[i]], PAGE_SIZE);
}

static inline void memory_restore(void)
{
    for (unsigned i = 0; i < memory.count; i++) {
        memcpy(memory.at[memory.list[i]], memory.pristine[memory.list[i]], PAGE_SIZE);
        memory.touched[memory.list[i]] = false;
    }
    memory.count = 0;
}

/* A fuzzer's own writes go through the guest's memory, so that they are undone too. */
static inline void memory_poke(uint64_t at, const void *bytes, size_t size)
{
    (void)gmem_write(&machine.vm.gmem, gpa(at), bytes, size);
}

static inline void memory_remember(void)
{
    for (unsigned i = 0; i < memory.count; i++)
        memcpy(memory.before[memory.list[i]], memory.at[memory.list[i]], PAGE_SIZE);
}

/* Bytes that differ from memory_remember(), accessed and dirty flags aside. */
static inline unsigned memory_changed(void)
{
    unsigned n = 0;
    for (unsigned i = 0; i < memory.count; i++) {
        const uint8_t *now = memory.at[memory.list[i]], *was = memory.before[memory.list[i]];
        if (memcmp(now, was, PAGE_SIZE) == 0)
            continue;
        for (unsigned b = 0; b < PAGE_SIZE; b++)
            n += ((now[b] ^ was[b]) & ~MEMORY_USED) != 0;
    }
    return n;
}
