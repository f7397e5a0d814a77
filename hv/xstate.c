#include "hv/xstate.h"

uint64_t xstate_allowed(uint64_t host_xcr0)
{
    uint64_t allowed = host_xcr0 & XSTATE_KNOWN;
    if (!host_xcr0)
        return 0;
    allowed |= XSTATE_X87 | XSTATE_SSE;
    if ((allowed & XSTATE_AVX512) != XSTATE_AVX512 || !(allowed & XSTATE_AVX))
        allowed &= ~XSTATE_AVX512;
    return allowed;
}

bool xstate_xcr0_valid(uint64_t value, uint64_t allowed)
{
    if (value & ~allowed)
        return false;
    if (!(value & XSTATE_X87))
        return false;
    if ((value & XSTATE_AVX) && !(value & XSTATE_SSE))
        return false;
    uint64_t avx512 = value & XSTATE_AVX512;
    return avx512 == 0 || (avx512 == XSTATE_AVX512 && (value & XSTATE_AVX));
}

uint32_t xstate_size(const struct xstate_layout *layout, uint64_t components)
{
    uint32_t end = XSTATE_LEGACY;
    for (unsigned i = 2; i < XSTATE_COMPONENTS; i++)
        if ((components >> i & 1) && layout->size[i] && layout->offset[i] + layout->size[i] > end)
            end = layout->offset[i] + layout->size[i];
    return end;
}

uint32_t xstate_compact_size(const struct xstate_layout *layout, uint64_t components)
{
    uint32_t end = XSTATE_LEGACY;
    for (unsigned i = 2; i < XSTATE_COMPONENTS; i++) {
        if (!(components >> i & 1) || !layout->size[i])
            continue;
        if (layout->align64[i])
            end = (end + 63) & ~63u;
        end += layout->size[i];
    }
    return end;
}
