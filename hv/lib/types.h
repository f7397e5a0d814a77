/* Basic types shared by every room: fixed-width integers, the status code, spans. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a fallible function answers. OK is zero; every other value is a failure that has not changed state. */
enum status {
    STATUS_OK = 0,
    ERR_INVALID,     /* the input breaks a rule */
    ERR_RANGE,       /* a value or access lies outside its bounds */
    ERR_NO_MEMORY,   /* an allocator or a fixed table is full */
    ERR_NOT_FOUND,   /* nothing there */
    ERR_UNSUPPORTED, /* legal, but not implemented by us or not offered by the hardware */
    ERR_EXISTS,      /* already there */
};

/* Name of a status for messages, never NULL. */
static inline const char *status_name(enum status s)
{
    static const char *const names[] = {"ok",        "invalid",     "out of range", "out of memory",
                                        "not found", "unsupported", "exists"};
    return (unsigned)s < sizeof(names) / sizeof(names[0]) ? names[s] : "?";
}

/* Read-only bytes that carry their bounds. */
struct span {
    const uint8_t *data;
    size_t size;
};

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define STATIC_ASSERT(cond, why) _Static_assert(cond, why)
#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))
