/* Extended processor state (SDM volume 1, chapter "Managing state using the XSAVE feature set"): which
 * components a guest may enable, and how large its save area is. */
#pragma once

#include "hv/lib/types.h"

#define XSTATE_X87       (1ull << 0)
#define XSTATE_SSE       (1ull << 1)
#define XSTATE_AVX       (1ull << 2)
#define XSTATE_OPMASK    (1ull << 5)
#define XSTATE_ZMM_HI256 (1ull << 6)
#define XSTATE_HI16_ZMM  (1ull << 7)
#define XSTATE_PKRU      (1ull << 9)
#define XSTATE_AVX512    (XSTATE_OPMASK | XSTATE_ZMM_HI256 | XSTATE_HI16_ZMM)
/* Everything Bulkhead knows how to keep apart. MPX, AMX and the supervisor states are not among it. */
#define XSTATE_KNOWN (XSTATE_X87 | XSTATE_SSE | XSTATE_AVX | XSTATE_AVX512 | XSTATE_PKRU)

#define XSTATE_COMPONENTS 20u  /* 0..19 */
#define XSTATE_LEGACY     576u /* bytes: the FXSAVE image and the XSAVE header */

/* Where each component lives in the standard format, from CPUID leaf 0xD. size 0: not there. */
struct xstate_layout {
    uint32_t offset[XSTATE_COMPONENTS];
    uint32_t size[XSTATE_COMPONENTS];
    bool align64[XSTATE_COMPONENTS]; /* compacted format: starts at a multiple of 64 */
};

/* What a guest may set in XCR0 on a host whose CPUID.(0xD,0):EDX:EAX is `host_xcr0`: known components, with
 * their dependencies. At least X87|SSE when the host has XSAVE (host_xcr0 != 0), else 0. */
uint64_t xstate_allowed(uint64_t host_xcr0);
/* Would XSETBV accept this value (SDM volume 1, 13.3)? false: #GP(0). */
bool xstate_xcr0_valid(uint64_t value, uint64_t allowed);
/* Bytes of the save area for these components: standard and compacted format. Components that the layout
 * lacks count nothing. */
uint32_t xstate_size(const struct xstate_layout *layout, uint64_t components);
uint32_t xstate_compact_size(const struct xstate_layout *layout, uint64_t components);
