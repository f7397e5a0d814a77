/* What ends a VM: faults without a way out, resets, task switches, code and tables where no memory is. Each
 * step comes after a restart of the VM. */
#include "hostile.h"

static const struct {
    uint16_t limit;
    uint64_t base;
} __attribute__((packed)) no_idt = {0, 0}, idt_in_hole = {4095, 0xd0000000};

void triple_fault(void)
{
    __asm__ volatile("lidt %0; int3" ::"m"(no_idt));
}

void program_triple(unsigned step)
{
    print("hostile: triple: fault %u\n", (uint64_t)step);
    triple_fault();
}

void program_fetch(unsigned step)
{
    static const uint64_t low[] = {0xd0000000, APIC_PAGE, ECAM_PAGE};
    uint64_t at = step < 3 ? low[step] : (uintptr_t)map_physical((1ull << physical_bits) - LARGE_PAGE);
    print("hostile: fetch: from %x\n", at);
    ((void (*)(void))at)();
}

void program_reset(unsigned step)
{
    print("hostile: reset: way %u\n", (uint64_t)step);
    switch (step) {
    case 0:
        out8(0xcf9, 0x06);
        break;
    case 1:
        out8(0xcf9, 0x0e);
        break;
    case 2:
        out8(0x64, 0xfe);
        break;
    case 3:
        out8(0x92, 0x01);
        break;
    case 4:
        out8(0x92, 0); /* it is still as step 3 left it, and only a rising edge resets */
        out16(0x91, 0x0300);
        break;
    default:
        apic_send(0, ICR_INIT | ICR_ASSERT);
    }
    spin_us(1000);
}

/* A hardware task switch: a far jump to a TSS, a far call through a task gate, one in the IDT, IRET with NT.
 */
void program_task(unsigned step)
{
    static uint8_t other_tss[104];
    struct cpu *cpu = this_cpu();
    uint64_t base = (uintptr_t)other_tss;
    cpu->gdt[SEL_OTHER_TSS / 8] =
        (sizeof(other_tss) - 1) | (base & 0xffffff) << 16 | 0x89ull << 40 | (base >> 24) << 56;
    cpu->gdt[SEL_TASK_GATE / 8] = (uint64_t)SEL_OTHER_TSS << 16 | 0x85ull << 40;
    uint32_t gate = (uint32_t)(uintptr_t)lab_idt32 + 8 * 32;
    uint8_t jump[] = {0xea, 0, 0, 0, 0, SEL_OTHER_TSS, 0};
    uint8_t call[] = {0x9a, 0, 0, 0, 0, SEL_TASK_GATE, 0};
    uint8_t vector[] = {0xc7, 0x03, 0, 0, SEL_OTHER_TSS, 0,    /* mov dword [ebx], selector << 16 */
                        0xc7, 0x43, 4, 0, 0x85,          0, 0, /* mov dword [ebx + 4], type */
                        0xcd, 32};
    uint8_t iret[] = {0x9c, 0x80, 0x4c, 0x24,
                      0x01, 0x40, 0x9d, 0xcf}; /* pushf; or byte [esp + 1], NT; popf; iret */
    const struct {
        const uint8_t *code;
        size_t size;
    } ways[] = {{jump, sizeof(jump)}, {call, sizeof(call)}, {vector, sizeof(vector)}, {iret, sizeof(iret)}};
    if (step == 3) { /* the way back from a task that called */
        cpu->gdt[SEL_OTHER_TSS / 8] |= 2ull << 40;
        lab_tss32[0] = SEL_OTHER_TSS;
    }
    print("hostile: task: way %u\n", (uint64_t)step);
    lab_clear();
    lab.gpr[3] = gate;
    unsigned ended = lab_execute(MODE_PROTECTED, ways[step].code, ways[step].size);
    print("hostile: task: ended with vector %u, error %x\n", (uint64_t)ended, (uint64_t)lab.error);
}

/* The delivery of an event that finds no memory: the IDT, and the stack. */
void program_delivery(unsigned step)
{
    print("hostile: delivery: way %u\n", (uint64_t)step);
    if (step == 0) {
        __asm__ volatile("lidt %0; ud2" ::"m"(idt_in_hole));
    } else {
        struct cpu *cpu = this_cpu();
        cpu->tss.ist[0] = 0xd0001000;
        __asm__ volatile("ud2");
    }
}
