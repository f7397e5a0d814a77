; Where the other CPUs start: copied to a page below 1 MiB, patched by smp_hw.c, and mapped there read-execute while
; they come up (SDM volume 3, "MP initialization protocol requirements and restrictions"). Position-independent: EBX holds the page's address.

section .rodata
align 16
global trampoline_start, trampoline_end, trampoline_gdtr, trampoline_gdt, trampoline_jump32, trampoline_jump64
global trampoline_cr3, trampoline_entry, trampoline_protected, trampoline_long

bits 16
trampoline_start:
    cli
    cld
    mov ax, cs
    mov ds, ax
    xor ebx, ebx
    mov bx, ax
    shl ebx, 4
    o32 lgdt [trampoline_gdtr - trampoline_start]
    mov eax, 0x00000011         ; CR0.PE, ET; caches on (INIT leaves CD and NW set)
    mov cr0, eax
    jmp dword far [trampoline_jump32 - trampoline_start]

bits 32
trampoline_protected:
    mov ax, 0x10
    mov ds, ax
    mov ss, ax
    mov eax, 0x20               ; CR4.PAE
    mov cr4, eax
    mov eax, [ebx + (trampoline_cr3 - trampoline_start)]
    mov cr3, eax
    mov ecx, 0xc0000080         ; IA32_EFER
    rdmsr
    or eax, 0x900               ; LME, NXE
    wrmsr
    mov eax, 0x80010033         ; PG, WP, NE, ET, MP, PE
    mov cr0, eax
    jmp far [ebx + (trampoline_jump64 - trampoline_start)]

bits 64
trampoline_long:
    mov rax, [rbx + (trampoline_entry - trampoline_start)]
    jmp rax

align 8
trampoline_gdt:
    dq 0
    dq 0x00cf9b000000ffff       ; 0x08: 32-bit code
    dq 0x00cf93000000ffff       ; 0x10: data
    dq 0x00af9b000000ffff       ; 0x18: 64-bit code
trampoline_gdtr:
    dw 31
    dd 0                        ; patched
    dw 0
trampoline_jump32:
    dd 0                        ; patched
    dw 0x08
    dw 0
trampoline_jump64:
    dd 0                        ; patched
    dw 0x18
    dw 0
trampoline_cr3:
    dq 0                        ; patched; below 4 GiB
trampoline_entry:
    dq 0                        ; patched
trampoline_end:

; The 64-bit entry in the high half: finds this CPU's row in smp_rows by its APIC ID, takes its stack, goes on in C.
section .text
bits 64
extern smp_rows, smp_row_count, smp_ap_main
global smp_ap_entry
smp_ap_entry:
    xor eax, eax
    cpuid
    cmp eax, 0x0b
    jb .leaf1
    mov eax, 0x0b               ; x2APIC ID in EDX when the leaf exists (EBX != 0)
    xor ecx, ecx
    cpuid
    test ebx, ebx
    jz .leaf1
    mov r8d, edx
    jmp .search
.leaf1:
    mov eax, 1
    cpuid
    shr ebx, 24
    mov r8d, ebx
.search:
    lea r9, [rel smp_rows]
    mov ecx, [rel smp_row_count]
.next:
    test ecx, ecx
    jz .unknown
    cmp [r9], r8d
    je .found
    add r9, 16
    dec ecx
    jmp .next
.found:                         ; struct smp_row { uint32_t apic_id, index; uint64_t stack_top; }
    mov edi, [r9 + 4]
    mov rsp, [r9 + 8]
    xor ebp, ebp
    call smp_ap_main
.unknown:
    cli
    hlt
    jmp .unknown
