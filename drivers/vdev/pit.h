/* The 8254 interval timer of a PC (Intel 8254 data sheet) and system control port B at 0x61. Counters are not
 * stepped but computed from env->now_ns(); counter 0 drives IRQ 0. */
#pragma once

#include "drivers/vdev/vdev.h"

#define PIT_HZ           1193182u
#define PIT_PORT         0x40u /* .. 0x43 */
#define PIT_PORT_COUNT   4u
#define PIT_CONTROL_PORT 0x43u
#define PIT_PORT_B       0x61u
#define PIT_IRQ          0u

struct pit_counter {
    uint8_t control; /* bits 5:0 of the last control word: RW, mode, BCD */
    uint8_t mode;    /* 0..5 */
    bool gate;
    bool has_count;           /* a count was written since the control word */
    bool null_count;          /* ... and is not yet in the counting element */
    bool armed;               /* counts, or would if the gate let it; otherwise OUT rests */
    bool held;                /* does not count: `elapsed` is frozen */
    bool reload_waits;        /* modes 2 and 3: `reload` comes into force at tick `reload_at` ... */
    bool reload_low_half;     /* ... with the low half of mode 3's period */
    bool write_msb, read_msb; /* the next byte of a two-byte access is the high one */
    bool status_latched;
    uint8_t latch_bytes; /* bytes of `latch` still to be read; 0 = not latched */
    uint8_t status;
    uint8_t write_low; /* first byte of a two-byte count */
    uint16_t latch;
    uint32_t reload; /* count register, 1..65536 (BCD: ..16665 with digits beyond 9) */
    uint32_t count;  /* initial count in force */
    uint64_t start;  /* tick at which `count` was or will be loaded; may lie "before" 0, modulo 2^64 */
    uint64_t reload_at;
    uint64_t elapsed; /* ticks counted when `held` */
};

struct pit {
    struct vdev dev;
    struct pit_counter counter[3];
    uint8_t port_b;       /* bits 3:0 of port 0x61 */
    bool line;            /* level of IRQ 0 */
    uint64_t next_edge;   /* tick of OUT0's next rising edge, VDEV_NEVER = none */
    uint64_t quiet_until; /* tick before which no periodic edge is signalled, see pit.c */
};

extern const struct vdev_ops pit_ops;
