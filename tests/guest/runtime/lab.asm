; Running a few bytes of code in any mode of the processor, and coming back. See lab.h. Everything here is linked below
; 64 KiB, where real mode can reach it.
CODE32 equ 0x08
DATA32 equ 0x10
CODE64 equ 0x18
CODE16 equ 0x20
DATA16 equ 0x28
TSS32  equ 0x58
TSS64  equ 0x60
MSR_EFER equ 0xc0000080
EFER_LME equ 1 << 8
CR0_PG   equ 1 << 31
FLAGS_VM equ 1 << 17

; struct lab
struc lab_s
    .gpr:       resq 16             ; in and out, in the order of ModRM
    .ip:        resq 1              ; in: where to begin; out: where it ended
    .flags:     resq 1
    .cr0:       resq 1              ; legacy modes: what is loaded
    .cr3:       resq 1
    .cr4:       resq 1
    .cs:        resw 1
    .ss:        resw 1
    .ds:        resw 1
    .es:        resw 1
    .kind:      resd 1              ; enum lab_kind
    .vector:    resd 1              ; out
    .error:     resd 1
    .active:    resd 1
    .gdt:       resq 1              ; this processor's
    .save_rsp:  resq 1
    .save_cr0:  resq 1
    .save_cr3:  resq 1
    .save_cr4:  resq 1
    .save_efer: resq 1
    .idt64:     resb 16
    .gdtr:      resb 16
    .ivt:       resb 8
    .idt32:     resb 8
endstruc
KIND_LONG equ 0
KIND_PROTECTED equ 1
KIND_REAL equ 2

section .low progbits alloc exec write
align 16
global lab
lab: times lab_s_size db 0

global lab_idt32
align 16
lab_idt32: times 256 * 8 db 0
    times 512 db 0
lab_stack_top:

bits 64
global lab_run
lab_run:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    pushfq
    cli
    mov [abs lab + lab_s.save_rsp], rsp
    mov rax, cr0
    mov [abs lab + lab_s.save_cr0], rax
    mov rax, cr3
    mov [abs lab + lab_s.save_cr3], rax
    mov rax, cr4
    mov [abs lab + lab_s.save_cr4], rax
    mov ecx, MSR_EFER
    rdmsr
    mov [abs lab + lab_s.save_efer], rax
    mov dword [abs lab + lab_s.active], 1
    cmp dword [abs lab + lab_s.kind], KIND_LONG
    jne .legacy
    mov ax, [abs lab + lab_s.ds]
    mov ds, ax
    mov ax, [abs lab + lab_s.es]
    mov es, ax
    mov rbx, [abs lab + lab_s.cr3]
    movzx eax, word [abs lab + lab_s.ss]
    push rax
    push qword [abs lab + lab_s.gpr + 4 * 8]
    push qword [abs lab + lab_s.flags]
    movzx eax, word [abs lab + lab_s.cs]
    push rax
    push qword [abs lab + lab_s.ip]
    mov cr3, rbx
    mov rcx, [abs lab + lab_s.gpr + 1 * 8]
    mov rdx, [abs lab + lab_s.gpr + 2 * 8]
    mov rbx, [abs lab + lab_s.gpr + 3 * 8]
    mov rbp, [abs lab + lab_s.gpr + 5 * 8]
    mov rsi, [abs lab + lab_s.gpr + 6 * 8]
    mov rdi, [abs lab + lab_s.gpr + 7 * 8]
    mov r8, [abs lab + lab_s.gpr + 8 * 8]
    mov r9, [abs lab + lab_s.gpr + 9 * 8]
    mov r10, [abs lab + lab_s.gpr + 10 * 8]
    mov r11, [abs lab + lab_s.gpr + 11 * 8]
    mov r12, [abs lab + lab_s.gpr + 12 * 8]
    mov r13, [abs lab + lab_s.gpr + 13 * 8]
    mov r14, [abs lab + lab_s.gpr + 14 * 8]
    mov r15, [abs lab + lab_s.gpr + 15 * 8]
    mov rax, [abs lab + lab_s.gpr + 0 * 8]
    iretq
.legacy:
    push qword CODE32
    push qword lab_legacy
    retfq

; exception_c() comes here when the code of a long mode has ended.
global lab_resume
lab_resume:
    mov rsp, [abs lab + lab_s.save_rsp]
    cld
    mov ax, DATA32
    mov ds, ax
    mov es, ax
    mov ss, ax
    xor eax, eax
    mov fs, ax
    mov gs, ax
    lgdt [abs lab + lab_s.gdtr]
    mov rbx, [abs lab + lab_s.gdt]
    lidt [abs lab + lab_s.idt64]
    mov byte [rbx + TSS64 + 5], 0x89
    mov ax, TSS64
    ltr ax
    mov dword [abs lab + lab_s.active], 0
    popfq
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret

; ---- the way down ----
bits 32
lab_legacy:
    mov ax, DATA32
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov esp, lab_stack_top
    mov eax, cr0
    and eax, ~CR0_PG
    mov cr0, eax
    mov ecx, MSR_EFER
    rdmsr
    and eax, ~EFER_LME
    wrmsr
    lidt [lab + lab_s.idt32]
    mov ebx, [lab + lab_s.gdt]
    mov byte [ebx + TSS32 + 5], 0x89
    mov ax, TSS32
    ltr ax
    cmp dword [lab + lab_s.kind], KIND_REAL
    je lab_to_real
    mov eax, [lab + lab_s.cr3]
    mov cr3, eax
    mov eax, [lab + lab_s.cr4]
    mov cr4, eax
    mov eax, [lab + lab_s.cr0]
    mov cr0, eax
    movzx eax, word [lab + lab_s.ss]
    test dword [lab + lab_s.flags], FLAGS_VM
    jnz .v86
    test byte [lab + lab_s.cs], 3
    jnz .outer
    mov ss, ax
    mov esp, [lab + lab_s.gpr + 4 * 8]
    jmp .frame
.v86:
    push dword 0                    ; GS and FS
    push dword 0
    movzx ecx, word [lab + lab_s.ds]
    push ecx
    movzx ecx, word [lab + lab_s.es]
    push ecx
.outer:
    push eax
    push dword [lab + lab_s.gpr + 4 * 8]
.frame:
    push dword [lab + lab_s.flags]
    movzx eax, word [lab + lab_s.cs]
    push eax
    push dword [lab + lab_s.ip]
    test dword [lab + lab_s.flags], FLAGS_VM
    jnz .registers
    mov ax, [lab + lab_s.es]
    mov es, ax
    mov ax, [lab + lab_s.ds]
    mov ds, ax
.registers:
    mov eax, [cs:lab + lab_s.gpr + 0 * 8]
    mov ecx, [cs:lab + lab_s.gpr + 1 * 8]
    mov edx, [cs:lab + lab_s.gpr + 2 * 8]
    mov ebx, [cs:lab + lab_s.gpr + 3 * 8]
    mov ebp, [cs:lab + lab_s.gpr + 5 * 8]
    mov esi, [cs:lab + lab_s.gpr + 6 * 8]
    mov edi, [cs:lab + lab_s.gpr + 7 * 8]
    iretd

lab_to_real:
    jmp CODE16:lab_protected16
bits 16
lab_protected16:
    mov ax, DATA16
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov fs, ax
    mov gs, ax
    o32 lidt [lab + lab_s.ivt]
    mov eax, [lab + lab_s.cr4]
    mov cr4, eax
    mov eax, [lab + lab_s.cr0]
    mov cr0, eax
    jmp 0:lab_real
lab_real:
    xor ax, ax
    mov ds, ax
    mov ss, [lab + lab_s.ss]
    mov esp, [lab + lab_s.gpr + 4 * 8]
    push word [lab + lab_s.flags]
    push word [lab + lab_s.cs]
    push word [lab + lab_s.ip]
    mov es, [lab + lab_s.es]
    mov eax, [lab + lab_s.gpr + 0 * 8]
    mov ecx, [lab + lab_s.gpr + 1 * 8]
    mov edx, [lab + lab_s.gpr + 2 * 8]
    mov ebx, [lab + lab_s.gpr + 3 * 8]
    mov ebp, [lab + lab_s.gpr + 5 * 8]
    mov esi, [lab + lab_s.gpr + 6 * 8]
    mov edi, [lab + lab_s.gpr + 7 * 8]
    mov ds, [lab + lab_s.ds]
    iret

; ---- the way back ----
%macro STUB16 1
    align 8
    push word %1
    jmp near lab_fault16
%endmacro
global lab_stubs16
align 8
lab_stubs16:
%assign number 0
%rep 256
    STUB16 number
%assign number number + 1
%endrep

lab_fault16:
    pushad
    mov bp, sp
    xor ax, ax
    mov ds, ax
    o32 lgdt [lab + lab_s.gdtr]
    cld
%assign reg 0
%rep 8
    mov eax, [bp + 28 - 4 * reg]
    mov [lab + lab_s.gpr + 8 * reg], eax
%assign reg reg + 1
%endrep
    movzx eax, word [bp + 32]
    mov [lab + lab_s.vector], eax
    movzx eax, word [bp + 34]
    mov [lab + lab_s.ip], eax
    movzx eax, word [bp + 38]
    mov [lab + lab_s.flags], eax
    mov dword [lab + lab_s.error], 0
    mov eax, cr0
    or al, 1
    mov cr0, eax
    jmp dword CODE32:lab_back

bits 32
global lab_stubs32
align 16
lab_stubs32:
%assign number 0
%rep 256
    align 16
    %if !(number == 8 || (number >= 10 && number <= 14) || number == 17 || number == 21)
    push dword 0
    %endif
    push dword number
    jmp near lab_fault32
%assign number number + 1
%endrep

lab_fault32:
    pushad
    lgdt [cs:lab + lab_s.gdtr]
    mov ax, DATA32
    mov ds, ax
    cld
    mov ebp, esp
    mov ax, ss
    lar eax, eax
    test eax, 1 << 22               ; a stack of 16 bits: what is above SP means nothing
    jnz .wide
    movzx ebp, bp
.wide:
%assign reg 0
%rep 8
    mov eax, [ss:ebp + 28 - 4 * reg]
    mov [lab + lab_s.gpr + 8 * reg], eax
%assign reg reg + 1
%endrep
    mov eax, [ss:ebp + 32]
    mov [lab + lab_s.vector], eax
    mov eax, [ss:ebp + 36]
    mov [lab + lab_s.error], eax
    mov eax, [ss:ebp + 40]
    mov [lab + lab_s.ip], eax
    mov eax, [ss:ebp + 48]
    mov [lab + lab_s.flags], eax
lab_back:
    mov ax, DATA32
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov esp, lab_stack_top
    mov eax, cr0
    and eax, ~CR0_PG
    mov cr0, eax
    mov eax, [lab + lab_s.save_cr4]
    mov cr4, eax
    mov eax, [lab + lab_s.save_cr3]
    mov cr3, eax
    mov eax, [lab + lab_s.save_efer]
    and eax, ~(1 << 10)             ; LMA is the processor's
    xor edx, edx
    mov ecx, MSR_EFER
    wrmsr
    mov eax, [lab + lab_s.save_cr0]
    mov cr0, eax
    jmp CODE64:lab_back64
bits 64
lab_back64:
    jmp lab_resume

; ---- what the code under test may write: pages of their own ----
align 4096
global lab_code
lab_code: times 256 db 0            ; the code to run is put here
    times 2048 db 0
global lab_stack16_top              ; for code of 16 bits and for what runs with a stack of its own
lab_stack16_top:
align 4096
