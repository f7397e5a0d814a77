; How such a guest begins: the Multiboot header, the way to 64-bit mode on the first and on every other processor,
; the stubs of all 256 vectors, and calls that survive a fault. The selectors are those of runtime.h.
CODE32 equ 0x08
DATA32 equ 0x10
CODE64 equ 0x18

MULTIBOOT_MAGIC equ 0x1badb002
MULTIBOOT_FLAGS equ 3               ; modules on page boundaries; tell the memory
CR0_PE_MP_ET_NE_WP_PG equ 0x80010033
CR4_PAE equ 0x20
MSR_EFER equ 0xc0000080
EFER_LME_NXE equ 0x900
NO_FAULT equ 256                    ; runtime.h
STACK_SIZE equ 0x4000               ; runtime.h

extern bss_start
extern bss_end
extern low_image
extern low_image_end
extern page_pml4
extern page_pdpt
extern page_pds
extern start_c
extern ap_c
extern exception_c
extern stacks

section .multiboot progbits alloc exec
bits 32
align 4
    dd MULTIBOOT_MAGIC, MULTIBOOT_FLAGS, -(MULTIBOOT_MAGIC + MULTIBOOT_FLAGS)

section .text
global entry
entry:
    cli
    cld
    mov ebp, eax                    ; the loader's magic
    mov esi, ebx                    ; its information
    mov edi, bss_start
    xor eax, eax
.clear:                             ; without REP, as in copy_low
    mov [edi], eax
    add edi, 4
    cmp edi, bss_end
    jb .clear
    ; 4 GiB one to one in pages of 2 MiB, for the user too but for the image and what is behind 6 MiB
    mov eax, page_pdpt
    or eax, 7
    mov [page_pml4], eax
    mov eax, page_pds
    or eax, 7
    mov edi, page_pdpt
    mov ecx, 4
.pdpt:
    mov [edi], eax
    add eax, 0x1000
    add edi, 8
    loop .pdpt
    mov eax, 0x87
    mov edi, page_pds
    mov ecx, 4 * 512
.pd:
    mov [edi], eax
    add eax, 0x200000
    add edi, 8
    loop .pd
    mov byte [page_pds + 8], 0x83
    mov byte [page_pds + 24], 0x83
    lgdt [boot_gdt_pointer_high]
    call enter_long_mode
    jmp CODE64:.long
bits 64
.long:
    mov rsp, stacks + STACK_SIZE
    mov edi, ebp
    ; The loader's information may lie where .low goes, so start_c copies it before it calls copy_low.
    call start_c
    ud2

global copy_low
copy_low:
    mov rsi, low_image
    mov rcx, low_image_end
    sub rcx, rsi
    shr rcx, 3                      ; its end is in a page of its own
    mov edi, ap_start
.next:                              ; no REP: the emulator does thousands of its rounds as one instruction, and a
    mov rax, [rsi]                  ; neighbour's clock goes on meanwhile
    mov [rdi], rax
    add rsi, 8
    add rdi, 8
    dec rcx
    jnz .next
    ret

bits 32
enter_long_mode:
    mov eax, CR4_PAE
    mov cr4, eax
    mov eax, page_pml4
    mov cr3, eax
    mov ecx, MSR_EFER
    rdmsr
    or eax, EFER_LME_NXE
    wrmsr
    mov eax, CR0_PE_MP_ET_NE_WP_PG
    mov cr0, eax
    ret

align 8
boot_gdt_pointer_high:
    dw boot_gdt_end - boot_gdt - 1
    dd boot_gdt
align 8
boot_gdt:
    dq 0
    dq 0x00cf9b000000ffff
    dq 0x00cf93000000ffff
    dq 0x00af9b000000ffff
boot_gdt_end:

; ---- other processors ----
section .low progbits alloc exec write
bits 16
global ap_start
ap_start:                           ; at 0x1000: start-up vector 1
    cli
    xor ax, ax
    mov ds, ax
    o32 lgdt [ap_gdt_pointer]
    mov eax, 0x11
    mov cr0, eax
    jmp dword CODE32:ap_32
bits 32
ap_32:
    mov ax, DATA32
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov esp, ap_stack_top
    mov eax, enter_long_mode
    call eax
    jmp CODE64:ap_64
bits 64
ap_64:
    mov rsp, [abs ap_stack]
    mov rax, ap_c
    call rax
    ud2
bits 16
global ap_nmi
ap_nmi:                             ; an NMI that waited for the start
    iret
align 8
ap_gdt_pointer:
    dw 4 * 8 - 1
    dd boot_gdt
align 8
global ap_stack
ap_stack: dq 0
    times 64 db 0
ap_stack_top:

; ---- vectors ----
section .text
bits 64
%macro HAS_ERROR 1
    %if %1 == 8 || (%1 >= 10 && %1 <= 14) || %1 == 17 || %1 == 21
        %define WITH_ERROR 1
    %else
        %define WITH_ERROR 0
    %endif
%endmacro

global vector_stubs
align 16
vector_stubs:
%assign number 0
%rep 256
    align 16
    HAS_ERROR number
    %if !WITH_ERROR
    push qword 0
    %endif
    push qword number
    jmp near vector_common
%assign number number + 1
%endrep

; Interrupts may have an exception's vector, from 16 on: they push no error code. See low_vectors().
global interrupt_stubs
align 16
interrupt_stubs:
%assign number 0
%rep 32
    align 16
    push qword 0
    push qword number + 256
    jmp near vector_common
%assign number number + 1
%endrep

vector_common:
    push rax
    push rcx
    push rdx
    push rbx
    push rbp
    push rsi
    push rdi
    push r8
    push r9
    push r10
    push r11
    push r12
    push r13
    push r14
    push r15
    mov eax, page_pml4              ; the lab's code may have run under other tables
    mov cr3, rax
    cld
    mov rdi, rsp
    call exception_c
    pop r15
    pop r14
    pop r13
    pop r12
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
    pop rbp
    pop rbx
    pop rdx
    pop rcx
    pop rax
    add rsp, 16
    iretq

; unsigned call_guarded(void (*function)(void *), void *argument, uint64_t *save): NO_FAULT, or the vector of the
; fault that ended the function. `save` gets the stack pointer that resume_at() wants.
global call_guarded
call_guarded:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    pushfq
    mov [rdx], rsp
    mov rax, rdi
    mov rdi, rsi
    sub rsp, 8
    call rax
    add rsp, 8
    mov eax, NO_FAULT
resume_tail:
    popfq
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret

; void resume_at(uint64_t stack, unsigned result): the call_guarded() of that stack returns.
global resume_at
resume_at:
    mov rsp, rdi
    mov eax, esi
    cld
    jmp resume_tail
