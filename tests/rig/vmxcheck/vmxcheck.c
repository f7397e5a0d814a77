/* A UEFI application that asks the processor about VMCSs and compares its verdict with vmx_check()'s. It
 * enters VMX root operation under the firmware, tries one VMCS after another, and says on COM1 where they
 * differ. No guest instruction is executed: the EPT maps nothing. */
#include <efi.h>
#include <efilib.h>

#include "arch/x86/cpu.h"
#include "arch/x86/msr.h"
#include "hv/exits/exit.h"
#include "hv/lib/fmt.h"
#include "hv/lib/string.h"
#include "states.h"

#define COM1               0x3f8
#define LSR_THR_EMPTY      0x20
#define STATES_TRIED       20000u
#define SEED               0x42756c6b68656164ull
#define DIFFERENCES_SHOWN  40u
#define FEATURE_LOCK       1u
#define FEATURE_VMX        4u
#define ERROR_CONTROLS     7u
#define ERROR_HOST         8u
#define REASON_GUEST_STATE 33u
#define RULES_MAX          512u

/* ---- the processor ---- */

static inline uint64_t rdmsr(uint32_t msr)
{
    uint32_t low, high;
    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
    return (uint64_t)high << 32 | low;
}

static inline void wrmsr(uint32_t msr, uint64_t value)
{
    __asm__ volatile("wrmsr" : : "a"((uint32_t)value), "d"((uint32_t)(value >> 32)), "c"(msr));
}

static void cpuid(uint32_t leaf, uint32_t out[4])
{
    __asm__ volatile("cpuid" : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3]) : "a"(leaf), "c"(0));
}

static uint64_t read_cr0(void)
{
    uint64_t value;
    __asm__ volatile("mov %%cr0, %0" : "=r"(value));
    return value;
}

static uint64_t read_cr3(void)
{
    uint64_t value;
    __asm__ volatile("mov %%cr3, %0" : "=r"(value));
    return value;
}

static uint64_t read_cr4(void)
{
    uint64_t value;
    __asm__ volatile("mov %%cr4, %0" : "=r"(value));
    return value;
}

static uint64_t vmread(void *ctx, vmcs_field_t field)
{
    uint64_t value = 0;
    (void)ctx;
    __asm__ volatile("vmread %1, %0" : "+r"(value) : "r"((uint64_t)field.encoding) : "cc");
    return value;
}

/* Fields that this processor lacks are refused and stay without effect. */
static void vmwrite(vmcs_field_t field, uint64_t value)
{
    __asm__ volatile("vmwrite %1, %0" : : "r"((uint64_t)field.encoding), "r"(value) : "cc");
}

/* Tries to enter: 0 there was an exit or a failed entry that counts as one, 1 VMfailInvalid, 2 VMfailValid.
 */
int vmx_try(void);
extern char vmx_landing[];
__asm__(".text\n"
        ".global vmx_try, vmx_landing\n"
        "vmx_try:\n"
        "  push %rbx\n  push %rbp\n  push %r12\n  push %r13\n  push %r14\n  push %r15\n"
        "  mov $0x6c14, %eax\n" /* HOST_RSP */
        "  vmwrite %rsp, %rax\n"
        "  vmlaunch\n"
        "  mov $1, %eax\n"
        "  jc 1f\n"
        "  mov $2, %eax\n"
        "  jmp 1f\n"
        "vmx_landing:\n"
        "  xor %eax, %eax\n"
        "1: pop %r15\n  pop %r14\n  pop %r13\n  pop %r12\n  pop %rbp\n  pop %rbx\n"
        "  ret\n");

/* ---- output ---- */

static void print(const char *text)
{
    for (; *text; text++) {
        uint8_t status;
        do
            __asm__ volatile("inb %w1, %0" : "=a"(status) : "Nd"(COM1 + 5));
        while (!(status & LSR_THR_EMPTY));
        __asm__ volatile("outb %b0, %w1" : : "a"(*text), "Nd"(COM1));
    }
}

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *format, ...)
{
    char line[320];
    va_list args;
    va_start(args, format);
    fmt_vformat(line, sizeof(line), format, args);
    va_end(args);
    print("vmxcheck: ");
    print(line);
    print("\r\n");
}

/* ---- set-up ---- */

static struct states_world world;
static struct vmx_caps_msrs msrs;
static void *vmcs;
static uint64_t saved_pat;
struct table_register {
    uint16_t limit;
    uint64_t base;
} __attribute__((packed));
static struct table_register saved_gdtr, saved_idtr;
static uint8_t gdt[512] __attribute__((aligned(16)));
static uint32_t tss[26];

static void *zero_page(void)
{
    EFI_PHYSICAL_ADDRESS at = 0;
    if (EFI_ERROR(uefi_call_wrapper(BS->AllocatePages, 4, AllocateAnyPages, EfiLoaderData, 1, &at)))
        return NULL;
    memset((void *)(uintptr_t)at, 0, 4096);
    return (void *)(uintptr_t)at;
}

static uint64_t read_msr(void *ctx, uint32_t msr)
{
    (void)ctx;
    return rdmsr(msr);
}

/* The firmware has no task, and an exit needs one: its descriptor table with a TSS at the end. */
static void load_task(void)
{
    __asm__ volatile("sgdt %0" : "=m"(saved_gdtr));
    __asm__ volatile("sidt %0" : "=m"(saved_idtr));
    unsigned at = (saved_gdtr.limit + 1u + 15u) & ~15u;
    uint64_t base = (uint64_t)(uintptr_t)tss, limit = sizeof(tss) - 1;
    memcpy(gdt, (void *)(uintptr_t)saved_gdtr.base, saved_gdtr.limit + 1u);
    uint64_t low = limit | (base & 0xffffff) << 16 | (uint64_t)0x89 << 40 | (base >> 24 & 0xff) << 56;
    uint64_t high = base >> 32;
    memcpy(gdt + at, &low, sizeof(low));
    memcpy(gdt + at + 8, &high, sizeof(high));
    struct table_register ours = {.limit = sizeof(gdt) - 1, .base = (uint64_t)(uintptr_t)gdt};
    uint16_t selector = (uint16_t)at;
    __asm__ volatile("lgdt %0" : : "m"(ours));
    __asm__ volatile("ltr %0" : : "r"(selector));
    world.host_tr = selector;
    world.host_tr_base = base;
    world.host_gdtr_base = ours.base;
    world.host_idtr_base = saved_idtr.base;
}

static bool enter_root_operation(void)
{
    uint32_t *region = zero_page();
    vmcs = zero_page();
    if (!region || !vmcs)
        return false;
    *region = *(uint32_t *)vmcs = VMX_BASIC_REVISION(msrs.basic);
    if (!(rdmsr(MSR_IA32_FEATURE_CONTROL) & FEATURE_LOCK))
        wrmsr(MSR_IA32_FEATURE_CONTROL, FEATURE_LOCK | FEATURE_VMX);
    __asm__ volatile("mov %0, %%cr0" : : "r"(vmx_cr0_for_root(&msrs, read_cr0())));
    __asm__ volatile("mov %0, %%cr4" : : "r"(vmx_cr4_for_root(&msrs, read_cr4())));
    bool failed;
    __asm__ volatile("vmxon %1"
                     : "=@ccbe"(failed)
                     : "m"(*(uint64_t[]){(uint64_t)(uintptr_t)region})
                     : "memory");
    return !failed;
}

static bool describe_world(void)
{
    uint32_t r[4];
    uint64_t *area = zero_page();
    void *page = zero_page();
    if (!area || !page)
        return false;
    for (unsigned i = 0; i < 512; i += 2)
        area[i] = MSR_IA32_SYSENTER_CS;
    cpuid(0x80000008, r);
    world.machine = (struct vmx_check_machine){
        .msrs = &msrs, .physical_bits = r[0] & 0xff, .linear_bits = r[0] >> 8 & 0xff};
    cpuid(7, r);
    world.machine.cpuid_7_ebx = r[1];
    world.machine.cpuid_7_ecx = r[2];
    world.page = (uint64_t)(uintptr_t)page;
    world.msr_area = (uint64_t)(uintptr_t)area;
    world.host_rip = (uint64_t)(uintptr_t)vmx_landing;
    world.host_cr0 = read_cr0();
    world.host_cr3 = read_cr3();
    world.host_cr4 = read_cr4();
    world.host_efer = rdmsr(MSR_IA32_EFER);
    world.host_pat = saved_pat = rdmsr(MSR_IA32_PAT);
    __asm__ volatile("mov %%cs, %0" : "=r"(world.host_cs));
    __asm__ volatile("mov %%ss, %0" : "=r"(world.host_ss));
    return true;
}

/* ---- comparing ---- */

enum verdict { ACCEPTED, BAD_CONTROLS, BAD_HOST, BAD_GUEST, OTHER, VERDICTS };
static const char *const verdict_names[VERDICTS] = {"accepted", "bad controls", "bad host state",
                                                    "bad guest state", "something else"};

static enum verdict ask_processor(const struct vmx_check_state *state, struct vmx_check_state *seen,
                                  uint64_t *detail)
{
    uint64_t address = (uint64_t)(uintptr_t)vmcs;
    __asm__ volatile("vmclear %0" : : "m"(address) : "memory", "cc");
    __asm__ volatile("vmptrld %0" : : "m"(address) : "memory", "cc");
    for (unsigned i = 0; i < VMX_F_COUNT; i++)
        vmwrite(vmx_check_field_encoding((enum vmx_check_field)i), state->value[i]);
    vmwrite(VMCS_EXCEPTION_BITMAP, UINT32_MAX); /* a fault in an event's delivery ends the attempt, too */
    vmwrite(VMCS_PREEMPTION_TIMER, 0);
    vmx_check_read(seen, &msrs, vmread, NULL);
    int failed = vmx_try();
    __asm__ volatile("lgdt %0" : : "m"((struct table_register){sizeof(gdt) - 1, (uint64_t)(uintptr_t)gdt}));
    __asm__ volatile("lidt %0" : : "m"(saved_idtr));
    wrmsr(MSR_IA32_PAT, saved_pat);
    if (failed) {
        *detail = vmread(NULL, VMCS_INSTRUCTION_ERROR);
        return failed == 2 && *detail == ERROR_CONTROLS ? BAD_CONTROLS
               : failed == 2 && *detail == ERROR_HOST   ? BAD_HOST
                                                        : OTHER;
    }
    *detail = vmread(NULL, VMCS_EXIT_REASON);
    if (!(*detail & EXIT_REASON_ENTRY_FAILURE))
        return ACCEPTED;
    return (*detail & EXIT_REASON_BASIC) == REASON_GUEST_STATE ? BAD_GUEST : OTHER;
}

static bool starts_with(const char *text, const char *start)
{
    while (*start && *text == *start)
        text++, start++;
    return *start == '\0';
}

/* The findings' sections tell what the processor answers: 27.2.1 error 7, 27.2.2 to 27.2.4 error 8, 27.3 an
 * exit. */
static enum verdict ask_vmx_check(const struct vmx_check_state *seen, struct vmx_check_finding *finding)
{
    if (vmx_check(&world.machine, seen, finding) == STATUS_OK)
        return ACCEPTED;
    if (starts_with(finding->section, "27.3"))
        return BAD_GUEST;
    return starts_with(finding->section, "27.2.1") ? BAD_CONTROLS : BAD_HOST;
}

/* SDM 27.2: controls and host state may be checked in any order, so with both broken either answer is right.
 */
static bool agree(enum verdict ours, enum verdict theirs)
{
    bool both_before_guest =
        (ours == BAD_CONTROLS || ours == BAD_HOST) && (theirs == BAD_CONTROLS || theirs == BAD_HOST);
    return ours == theirs || both_before_guest;
}

/* Where Bochs 3.0 departs from the SDM. Each is a fault of the emulator's, seen in its source; a real
 * processor must show none of them. `null_ss`: only with a null SS selector in a 64-bit guest. */
static const struct known_fault {
    const char *field, *rule;
    enum verdict theirs;
    bool null_ss;
} known_faults[] = {
    /* 27.2.1.3: it is left to the checks of the guest state, which then miss the blocking by SMI */
    {"ENTRY_CONTROLS", "entry to SMM", BAD_GUEST, false},
    {"GUEST_DEBUGCTL", "reserved bits", ACCEPTED, false}, /* loaded unchecked */
    {"GUEST_RIP", "bits above", ACCEPTED, false},         /* not checked for 64-bit code */
    {"GUEST_SS_ACCESS", "", ACCEPTED, true},              /* a null SS counts as unusable */
    {"GUEST_SS_BASE", "", ACCEPTED, true},
    {"GUEST_CR0", "an IA-32e mode guest needs PG", ACCEPTED,
     false}, /* not checked in an unrestricted guest */
    {"GUEST_PENDING_DEBUG", "in an interrupt shadow or HLT", ACCEPTED, false}, /* not checked in HLT */
    {"GUEST_ACTIVITY", "the injected event", ACCEPTED, false}, /* HLT: any event; shutdown: any vector 18 */
};

static bool is_known_fault(const struct vmx_check_state *seen, const struct vmx_check_finding *finding,
                           enum verdict ours, enum verdict theirs)
{
    bool code64 = (seen->value[VMX_F_ENTRY_CONTROLS] & ENTRY_CTL_IA32E_GUEST) &&
                  (seen->value[VMX_F_GUEST_CS_ACCESS] & ACCESS_L);
    uint64_t info = seen->value[VMX_F_ENTRY_INTR_INFO];
    bool sti = seen->value[VMX_F_GUEST_INTERRUPTIBILITY] & INTERRUPTIBILITY_STI;
    /* Not even a fault: SDM 27.3.1.5 lets a processor refuse an NMI in the shadow of STI. */
    if (ours == ACCEPTED && theirs == BAD_GUEST && sti && (info & INTR_INFO_VALID) &&
        INTR_INFO_TYPE(info) == EVENT_NMI)
        return true;
    bool null_ss = code64 && !(seen->value[VMX_F_GUEST_SS_SELECTOR] & ~(uint64_t)3);
    for (unsigned i = 0; ours != ACCEPTED && i < sizeof(known_faults) / sizeof(known_faults[0]); i++) {
        const struct known_fault *k = &known_faults[i];
        if (starts_with(finding->field, k->field) && starts_with(finding->rule, k->rule) &&
            theirs == k->theirs && (null_ss || !k->null_ss))
            return true;
    }
    return false;
}

static struct vmx_check_finding rules_met[RULES_MAX];
static unsigned rules_count;

static void note_rule(const struct vmx_check_finding *finding)
{
    for (unsigned i = 0; i < rules_count; i++)
        if (rules_met[i].rule == finding->rule && rules_met[i].field == finding->field)
            return;
    if (rules_count < RULES_MAX)
        rules_met[rules_count++] = *finding;
}

static void compare_all(void)
{
    static struct vmx_check_state state, seen;
    uint64_t random = SEED;
    unsigned counts[VERDICTS] = {0}, differences = 0, known = 0;
    for (unsigned i = 0; i < STATES_TRIED; i++) {
        enum states_base base = (enum states_base)(i % STATES);
        struct vmx_check_finding finding = {0};
        enum vmx_check_field changed[3] = {0};
        uint64_t detail = 0;
        states_good(&world, base, &state);
        unsigned changes = i % 3 == 0 ? 2 + i / 3 % 2 : 1;
        if (i < STATES)
            changes = 0; /* the good states come first, as they are */
        for (unsigned c = 0; c < changes; c++)
            changed[c] = states_change(&world, &state, &random);
        states_make_safe(&world, &state);
        enum verdict theirs = ask_processor(&state, &seen, &detail);
        enum verdict ours = ask_vmx_check(&seen, &finding);
        counts[theirs]++;
        if (ours != ACCEPTED)
            note_rule(&finding);
        if (agree(ours, theirs))
            continue;
        if (is_known_fault(&seen, &finding, ours, theirs)) {
            known++;
            continue;
        }
        if (differences++ >= DIFFERENCES_SHOWN)
            continue;
        say("difference: state %u (%s): processor: %s (%llu); vmx_check: %s (%s %s)", i,
            states_base_name(base), verdict_names[theirs], (unsigned long long)detail & 0xffff,
            verdict_names[ours], ours == ACCEPTED ? "" : finding.field, ours == ACCEPTED ? "" : finding.rule);
        for (unsigned c = 0; c < changes; c++)
            say("  %s = %llx", vmx_check_field_name(changed[c]), (unsigned long long)seen.value[changed[c]]);
    }
    say("%u states: %u accepted, %u bad controls, %u bad host state, %u bad guest state, %u other",
        STATES_TRIED, counts[ACCEPTED], counts[BAD_CONTROLS], counts[BAD_HOST], counts[BAD_GUEST],
        counts[OTHER]);
    say("%u rules were broken; %u known faults of the emulator; %u differences", rules_count, known,
        differences);
}

EFI_STATUS efi_main(EFI_HANDLE image, EFI_SYSTEM_TABLE *table)
{
    InitializeLib(image, table);
    vmx_caps_read(&msrs, read_msr, NULL);
    __asm__ volatile("cli");
    if (!enter_root_operation() || !describe_world()) {
        say("cannot enter VMX operation");
    } else {
        load_task();
        compare_all();
    }
    say("done");
    for (;;)
        __asm__ volatile("hlt");
}
