/* Real mode: SDM volume 3, chapter "8086 Emulation": segments, wrap-around, the vector table, strings, wide
 * operands; and what exits there. All segments are the lab's; the snippets leave their results in registers.
 */
#include "rules.h"

SNIPPET(far_jump, 16, "ljmp $0x600, $8; nop; nop; nop; mov $0x1234, %bx");
SNIPPET(far_call, 16, "jmp 1f; 2: mov $0x55, %bx; lret; 1: push %cs; call 2b; mov $0x66, %cx");
SNIPPET(vectors, 16,
        "xor %ax, %ax; mov %ax, %es; movw $0x80, %es:(4 * 0x60); mov %cs, %es:(4 * 0x60 + 2); mov $7, %bx; "
        "int $0x60; mov $9, %cx; "
        ".byte 0xf1; .org vectors + 0x80, 0x90; add $1, %bx; pushf; pop %dx; iret");
SNIPPET(wrap_offset, 16, "mov $0xfffe, %bx; movw $0x4321, (%bx); mov (%bx), %cx; mov $0, %bx; mov %cx, %ax");
SNIPPET(segment_math, 16,
        "mov $0x610, %ax; mov %ax, %es; movb $0x5a, %es:0x20; mov 0x120, %bl; mov %es, %cx");
SNIPPET(high_memory, 16, "mov $0xffff, %ax; mov %ax, %es; movw $0x1357, %es:0x7010; mov %es:0x7010, %bx");
SNIPPET(string_move, 16,
        "cld; movl $0x44332211, 0x200; mov $0x200, %si; mov $0x300, %di; mov $4, %cx; rep movsb; mov 0x300, "
        "%ebx; mov %di, %dx");
SNIPPET(string_down, 16,
        "std; mov $0x305, %di; mov $3, %cx; mov $0x77, %al; rep stosb; cld; mov 0x303, %ebx; mov %di, %dx");
SNIPPET(wide, 16, "mov $0x12345678, %ebx; rol $8, %ebx; mov $0x400, %esi; mov %ebx, (%esi); mov 0x400, %cx");
SNIPPET(
    port_out, 16,
    "movl $0x04030201, 0x200; mov $0x200, %si; mov $0x80, %dx; mov $4, %cx; cld; rep outsb; mov %si, %bx");
SNIPPET(port_in, 16, "mov $0x300, %di; mov $0x61, %dx; mov $2, %cx; cld; rep insb; mov %di, %bx");
SNIPPET(device, 16, "mov $1, %eax; cpuid; mov $0x1b, %ecx; rdmsr; movzwl %ax, %ebx");
SNIPPET(popf_iopl, 16, "pushw $0x3202; popf; pushf; pop %bx; cli");
SNIPPET(loops, 16,
        "xor %bx, %bx; mov $5, %cx; 1: inc %bx; loop 1b; mov $3, %ecx; 2: inc %bx; addr32 loop 2b");
SNIPPET(status_word, 16, "smsw %bx; mov %cr0, %ecx");
SNIPPET(push_all, 16,
        "mov $1, %ax; mov $2, %cx; mov $3, %dx; mov %sp, %bp; pusha; xor %ax, %ax; popa; mov %sp, %bx; sub "
        "%bp, %bx; add %dx, %bx");
SNIPPET(protected_once, 16,
        "cli; mov %cr0, %eax; or $1, %al; mov %eax, %cr0; mov $0x10, %bx; mov %bx, %fs; and $0xfe, %al; mov "
        "%eax, %cr0; "
        "mov $0x6000, %esi; movl $0x2468, 0x500; mov %fs:0x500(%esi), %ebx; mov %fs:0x100000(%esi), %ecx");
SNIPPET(enter_frame, 16, "mov %sp, %bx; enter $8, $0; sub %sp, %bx; leave");
SNIPPET(io_port, 16, "in $0x61, %al; mov $0x80, %dx; out %al, %dx; mov $0xbeef, %bx");

static void results(void)
{
    static const struct {
        const char *what;
        const uint8_t *code, *end;
        uint8_t vector, reg; /* BX = 3, CX = 1, DX = 2 */
        uint32_t value;
    } rows[] = {
        {"a far jump", far_jump, far_jump_end, VECTOR_BP, 3, 0x1234},
        {"a far return from a near call with CS pushed", far_call, far_call_end, VECTOR_BP, 3, 0x55},
        {"and behind the call", far_call, far_call_end, VECTOR_BP, 1, 0x66},
        {"INT n runs its handler", vectors, vectors_end, VECTOR_DB, 3, 8},
        {"and returns", vectors, vectors_end, VECTOR_DB, 1, 9},
        {"a word at FFFE", wrap_offset, wrap_offset_end, VECTOR_BP, 1, 0x4321},
        {"segments are times 16", segment_math, segment_math_end, VECTOR_BP, 3, 0x5a},
        {"above 1 MiB with A20", high_memory, high_memory_end, VECTOR_BP, 3, 0x1357},
        {"REP MOVSB", string_move, string_move_end, VECTOR_BP, 3, 0x44332211},
        {"REP MOVSB: DI", string_move, string_move_end, VECTOR_BP, 2, 0x304},
        {"REP STOSB downwards: DI", string_down, string_down_end, VECTOR_BP, 2, 0x302},
        {"32-bit operands and addresses", wide, wide_end, VECTOR_BP, 3, 0x34567812},
        {"through 32-bit addresses", wide, wide_end, VECTOR_BP, 1, 0x7812},
        {"REP OUTSB: SI", port_out, port_out_end, VECTOR_BP, 3, 0x204},
        {"REP INSB: DI", port_in, port_in_end, VECTOR_BP, 3, 0x302},
        {"CPUID and RDMSR", device, device_end, VECTOR_BP, 3, 0x900},
        {"POPF sets IOPL and IF", popf_iopl, popf_iopl_end, VECTOR_BP, 3, 0x3202},
        {"LOOP by CX and by ECX", loops, loops_end, VECTOR_BP, 3, 8},
        {"SMSW", status_word, status_word_end, VECTOR_BP, 3, 0x32},
        {"PUSHA, POPA", push_all, push_all_end, VECTOR_BP, 3, 3},
        {"a segment keeps its limit from protected mode", protected_once, protected_once_end, VECTOR_BP, 3,
         0x2468},
        {"ENTER", enter_frame, enter_frame_end, VECTOR_BP, 3, 10},
        {"IN and OUT", io_port, io_port_end, VECTOR_BP, 3, 0xbeef},
    };
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        lab_clear();
        unsigned vector = lab_execute(MODE_REAL, rows[i].code, (size_t)(rows[i].end - rows[i].code));
        check(vector == rows[i].vector, "%s: vector %u, expected %u", rows[i].what, (uint64_t)vector,
              (uint64_t)rows[i].vector);
        check(lab.gpr[rows[i].reg] == rows[i].value, "%s: %x, expected %x", rows[i].what,
              lab.gpr[rows[i].reg], (uint64_t)rows[i].value);
    }
}

void rule_real(void)
{
    results();
}
