#include "hv/recorder.h"
#include "hv/lib/fmt.h"

const struct recorder_entry *recorder_at(const struct recorder *r, uint64_t back)
{
    uint64_t kept = r->count < RECORDER_SLOTS ? r->count : RECORDER_SLOTS;
    return back < kept ? &r->entries[(r->count - 1 - back) & (RECORDER_SLOTS - 1)] : NULL;
}

size_t recorder_describe(const struct recorder_entry *entry, char *buf, size_t size)
{
    const struct vmx_raw *raw = &entry->raw;
    uint32_t basic = raw->reason & EXIT_REASON_BASIC;
    unsigned needs = vmx_needs(basic);
    size_t n = fmt_format(buf, size, "%-22s (%2u) rip %016llx", vmx_reason_name(basic), basic,
                          (unsigned long long)raw->rip);
#define MORE(...)                                                                                            \
    do {                                                                                                     \
        if (n < size)                                                                                        \
            n += fmt_format(buf + n, size - n, __VA_ARGS__);                                                 \
    } while (0)
    if (needs & VMX_NEED_QUALIFICATION)
        MORE("  qualification %llx", (unsigned long long)raw->qualification);
    if (needs & VMX_NEED_GPA)
        MORE("  guest-physical %llx", (unsigned long long)raw->gpa);
    if ((needs & VMX_NEED_INTR_INFO) && (raw->intr_info & INTR_INFO_VALID))
        MORE("  vector %02x", raw->intr_info & INTR_INFO_VECTOR);
    if ((needs & VMX_NEED_IDT_INFO) && (raw->idt_info & INTR_INFO_VALID))
        MORE("  while delivering vector %02x", raw->idt_info & INTR_INFO_VECTOR);
#undef MORE
    return n;
}
