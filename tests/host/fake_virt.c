#include "tests/host/fake_virt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arch/x86/cpu.h"
#include "arch/x86/msr.h"
#include "hv/vcpu.h"

struct fake_virt fake_virt;
static struct fake_vcpu vcpus[FAKE_VCPUS];

static void fail(const char *what)
{
    fprintf(stderr, "fake_virt: %s\n", what);
    abort();
}

void fake_virt_init(void)
{
    memset(vcpus, 0, sizeof(vcpus));
    fake_virt = (struct fake_virt){
        .has_2m = true,
        .has_1g = true,
        .features = {.spec_ctrl = true, .rdtscp = true, .invpcid = true},
        .microcode = 0x42,
    };
}

struct fake_vcpu *fake_vcpu(const struct vcpu *vcpu)
{
    if (!vcpu)
        fail("no vCPU");
    for (unsigned i = 0; i < FAKE_VCPUS; i++) {
        struct fake_vcpu *f = &vcpus[i];
        if (!f->owner)
            f->owner = vcpu;
        if (f->owner == vcpu)
            return f;
    }
    fail("too many vCPUs: fake_virt_init() forgets the old ones");
    return NULL;
}

void fake_vcpu_forget(const struct vcpu *vcpu)
{
    struct fake_vcpu *f = fake_vcpu(vcpu), kept = *f;
    memset(f, 0, sizeof(*f));
    f->owner = kept.owner;
    memcpy(f->reg, kept.reg, sizeof(f->reg));
    memcpy(f->seg, kept.seg, sizeof(f->seg));
    memcpy(f->fx, kept.fx, sizeof(f->fx));
    f->intr_window = kept.intr_window;
    f->nmi_window = kept.nmi_window;
    f->loaded = kept.loaded;
    f->spec_value = kept.spec_value;
}

struct event fake_vcpu_take_event(const struct vcpu *vcpu)
{
    struct fake_vcpu *f = fake_vcpu(vcpu);
    struct event event = f->inject;
    f->inject = (struct event){.valid = false};
    return event;
}

/* ---- registers ---- */

uint64_t virt_get(struct vcpu *vcpu, enum virt_reg reg)
{
    if ((unsigned)reg >= VIRT_REG_COUNT)
        fail("virt_get: no such register");
    struct fake_vcpu *f = fake_vcpu(vcpu);
    f->reg_reads[reg]++;
    return f->reg[reg];
}

void virt_set(struct vcpu *vcpu, enum virt_reg reg, uint64_t value)
{
    if ((unsigned)reg >= VIRT_REG_COUNT)
        fail("virt_set: no such register");
    struct fake_vcpu *f = fake_vcpu(vcpu);
    f->reg_writes[reg]++;
    f->writes++;
    f->reg[reg] = value;
}

struct seg virt_get_seg(struct vcpu *vcpu, enum seg_name name)
{
    if ((unsigned)name >= SEG_COUNT)
        fail("virt_get_seg: no such segment");
    fake_vcpu(vcpu)->seg_reads[name]++;
    return fake_vcpu(vcpu)->seg[name];
}

uint32_t virt_get_seg_access(struct vcpu *vcpu, enum seg_name name)
{
    if ((unsigned)name >= SEG_COUNT)
        fail("virt_get_seg_access: no such segment");
    return fake_vcpu(vcpu)->seg[name].access;
}

void virt_set_seg(struct vcpu *vcpu, enum seg_name name, const struct seg *seg)
{
    if ((unsigned)name >= SEG_COUNT)
        fail("virt_set_seg: no such segment");
    struct fake_vcpu *f = fake_vcpu(vcpu);
    f->seg_writes[name]++;
    f->writes++;
    f->seg[name] = *seg;
}

/* ---- events ---- */

void virt_inject(struct vcpu *vcpu, const struct event *event)
{
    struct fake_vcpu *f = fake_vcpu(vcpu);
    if (f->inject.valid)
        f->replaced++;
    f->inject = *event;
    f->inject.valid = true;
    f->injections++;
}

void virt_set_intr_window(struct vcpu *vcpu, bool on)
{
    struct fake_vcpu *f = fake_vcpu(vcpu);
    f->intr_window = on;
    f->intr_window_calls++;
}

void virt_set_nmi_window(struct vcpu *vcpu, bool on)
{
    struct fake_vcpu *f = fake_vcpu(vcpu);
    f->nmi_window = on;
    f->nmi_window_calls++;
}

void virt_fxsave(struct vcpu *vcpu, void *image)
{
    memcpy(image, fake_vcpu(vcpu)->fx, sizeof(fake_vcpu(vcpu)->fx));
}

void virt_fxrstor(struct vcpu *vcpu, const void *image)
{
    memcpy(fake_vcpu(vcpu)->fx, image, sizeof(fake_vcpu(vcpu)->fx));
}

void virt_debug_status(struct vcpu *vcpu, uint64_t bits)
{
    struct fake_vcpu *f = fake_vcpu(vcpu);
    f->debug_status |= bits;
    f->debug_calls++;
    f->reg[VIRT_DR6] = (f->reg[VIRT_DR6] & ~(uint64_t)0xf) | (bits & (0xf | DR6_BD | DR6_BS));
    f->reg[VIRT_DR7] &= ~DR7_GD;
}

/* ---- MSRs, extended state, translations ---- */

void virt_pass_msr(struct vcpu *vcpu, uint32_t msr, bool read, bool write)
{
    struct fake_vcpu *f = fake_vcpu(vcpu);
    if (f->passed_count == FAKE_PASS)
        fail("too many MSRs passed through");
    f->passed[f->passed_count++] = (struct fake_msr_pass){.msr = msr, .read = read, .write = write};
}

void virt_flush_linear(struct vcpu *vcpu)
{
    fake_vcpu(vcpu)->linear_flushes++;
}

void virt_flush_nested(struct vcpu *vcpu)
{
    fake_vcpu(vcpu)->nested_flushes++;
}

void virt_set_xcr0(struct vcpu *vcpu, uint64_t value)
{
    vcpu->xcr0 = value;
    fake_vcpu(vcpu)->xcr0_writes++;
}

void virt_spec_write(struct vcpu *vcpu, uint32_t msr, uint64_t value)
{
    struct fake_vcpu *f = fake_vcpu(vcpu);
    if (f->spec_writes < FAKE_SPEC)
        f->spec[f->spec_writes] = (struct fake_spec){.msr = msr, .value = value};
    f->spec_writes++;
    if (msr == MSR_IA32_SPEC_CTRL)
        f->spec_value = value;
}

uint64_t virt_spec_read(struct vcpu *vcpu, uint32_t msr)
{
    struct fake_vcpu *f = fake_vcpu(vcpu);
    f->spec_reads++;
    return msr == MSR_IA32_SPEC_CTRL ? f->spec_value : 0;
}

/* ---- life ---- */

enum status virt_init(struct pool *pool, char *why, size_t why_size)
{
    (void)pool;
    if (fake_virt.init_status != STATUS_OK && why_size)
        snprintf(why, why_size, "the fake says no");
    return fake_virt.init_status;
}

enum status virt_cpu_start(struct cpu *cpu)
{
    (void)cpu;
    fake_virt.cpu_starts++;
    return fake_virt.start_status;
}

void virt_cpu_stop(struct cpu *cpu)
{
    (void)cpu;
    fake_virt.cpu_stops++;
}

void virt_page_sizes(bool *has_2m, bool *has_1g)
{
    *has_2m = fake_virt.has_2m;
    *has_1g = fake_virt.has_1g;
}

enum status virt_vcpu_create(struct vcpu *vcpu)
{
    struct fake_vcpu *f = fake_vcpu(vcpu);
    f->creates++;
    vcpu->backend = f;
    return fake_virt.create_status;
}

void virt_vcpu_destroy(struct vcpu *vcpu)
{
    if (vcpu->backend)
        fake_vcpu(vcpu)->destroys++;
    vcpu->backend = NULL;
}

void virt_vcpu_load(struct vcpu *vcpu, struct cpu *cpu)
{
    struct fake_vcpu *f = fake_vcpu(vcpu);
    if (f->loaded)
        fail("virt_vcpu_load: it is loaded already");
    f->loaded = true;
    f->loads++;
    cpu->vcpu = vcpu;
}

void virt_vcpu_put(struct vcpu *vcpu)
{
    struct fake_vcpu *f = fake_vcpu(vcpu);
    if (!f->loaded)
        fail("virt_vcpu_put: it is not loaded");
    f->loaded = false;
    f->puts++;
    vcpu->cpu->vcpu = NULL;
}

void virt_vcpu_clear(struct vcpu *vcpu)
{
    struct fake_vcpu *f = fake_vcpu(vcpu);
    f->clears++;
    for (unsigned i = VIRT_DR0; i <= VIRT_DR3; i++)
        f->reg[i] = 0;
    f->reg[VIRT_DR6] = DR6_RESET;
    f->reg[VIRT_CR2] = 0;
    f->spec_value = 0;
    f->inject = (struct event){.valid = false};
}

void virt_run(struct vcpu *vcpu)
{
    fake_vcpu(vcpu)->runs++;
    if (fake_virt.run)
        fake_virt.run(vcpu);
    else
        vcpu_prepare_entry(vcpu);
}

void virt_explain_entry_failure(struct vcpu *vcpu)
{
    fake_vcpu(vcpu)->explained++;
}

/* ---- the host ---- */

/* A processor with what Bulkhead asks for, and AVX. Leaf, subleaf, EAX, EBX, ECX, EDX. */
static const uint32_t leaves[][6] = {
    {0x0, 0, 0x16, 0x756e6547, 0x6c65746e, 0x49656e69},
    {0x1, 0, 0x000506e3, 0x00100800,
     CPUID_01_ECX_SSE3 | CPUID_01_ECX_VMX | CPUID_01_ECX_SSSE3 | CPUID_01_ECX_CMPXCHG16B | CPUID_01_ECX_PCID |
         CPUID_01_ECX_SSE4_1 | CPUID_01_ECX_SSE4_2 | CPUID_01_ECX_X2APIC | CPUID_01_ECX_POPCNT |
         CPUID_01_ECX_TSC_DEADLINE | CPUID_01_ECX_AES | CPUID_01_ECX_XSAVE | CPUID_01_ECX_AVX,
     0x1f8bfbff},
    {0x4, 0, 0x1c004121, 0x01c0003f, 0x3f, 0},
    {0x6, 0, CPUID_06_EAX_ARAT, 0, 0, 0},
    {0x7, 0, 0,
     CPUID_07_EBX_FSGSBASE | CPUID_07_EBX_TSC_ADJUST | CPUID_07_EBX_BMI1 | CPUID_07_EBX_AVX2 |
         CPUID_07_EBX_SMEP | CPUID_07_EBX_BMI2 | CPUID_07_EBX_ERMS | CPUID_07_EBX_INVPCID | CPUID_07_EBX_SMAP,
     CPUID_07_ECX_UMIP, CPUID_07_EDX_IBRS_IBPB | CPUID_07_EDX_STIBP | CPUID_07_EDX_SSBD},
    {0xd, 0, 0x7, 0x340, 0x340, 0},
    {0xd, 1, CPUID_0D_1_EAX_XSAVEOPT, 0x340, 0, 0},
    {0xd, 2, 0x100, 0x240, 0, 0},
    {0x15, 0, 2, 84, 24000000, 0},
    {0x80000000, 0, 0x80000008, 0, 0, 0},
    {0x80000001, 0, 0, 0, CPUID_80000001_ECX_LAHF64,
     CPUID_80000001_EDX_SYSCALL | CPUID_80000001_EDX_NX | CPUID_80000001_EDX_1G | CPUID_80000001_EDX_RDTSCP |
         CPUID_80000001_EDX_LM},
    {0x80000007, 0, 0, 0, 0, CPUID_80000007_EDX_INVARIANT_TSC},
    {0x80000008, 0, 0x3027, 0, 0, 0},
};

void virt_host_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    memset(out, 0, 4 * sizeof(out[0]));
    if (fake_virt.cpuid) {
        fake_virt.cpuid(leaf, subleaf, out);
        return;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(leaves); i++) {
        if (leaves[i][0] == leaf && leaves[i][1] == subleaf)
            memcpy(out, &leaves[i][2], 4 * sizeof(out[0]));
    }
}

uint64_t virt_host_arch_capabilities(void)
{
    return fake_virt.arch_capabilities;
}

uint32_t virt_host_microcode(void)
{
    return fake_virt.microcode;
}

struct virt_features virt_features(void)
{
    return fake_virt.features;
}
