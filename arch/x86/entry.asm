; Entry from the loader, switching stacks, and the stubs behind the IDT.
bits 64
section .text

extern core_main
extern traps_handle

; The loader jumps here: RDI = struct boot_info, RSP = top of the boot stack, interrupts off, paging as in layout.h.
global core_entry
core_entry:
    xor ebp, ebp
    cld
    call core_main
.stop:                          ; core_main does not return
    cli
    hlt
    jmp .stop

; void entry_switch_stack(uint64_t stack_top, void (*function)(void *), void *argument): does not return.
global entry_switch_stack
entry_switch_stack:
    mov rsp, rdi
    xor ebp, ebp
    mov rdi, rdx
    push rbp                    ; a return address of 0 ends a stack walk
    jmp rsi

; void entry_load_segments(const void *gdtr, uint16_t code, uint16_t data, uint16_t tss)
global entry_load_segments
entry_load_segments:
    lgdt [rdi]
    mov ds, edx
    mov es, edx
    mov ss, edx
    xor eax, eax
    mov fs, eax
    mov gs, eax
    ltr cx
    pop rax
    movzx esi, si
    push rsi
    push rax
    o64 retf

; bool traps_rdmsr_safe(uint32_t msr, uint64_t *value): false when the MSR does not exist (#GP).
global traps_rdmsr_safe, traps_rdmsr_at, traps_msr_failed
traps_rdmsr_safe:
    mov ecx, edi
traps_rdmsr_at:
    rdmsr
    shl rdx, 32
    or rax, rdx
    mov [rsi], rax
    mov eax, 1
    ret
traps_msr_failed:
    xor eax, eax
    ret

; bool traps_wrmsr_safe(uint32_t msr, uint64_t value)
global traps_wrmsr_safe, traps_wrmsr_at
traps_wrmsr_safe:
    mov ecx, edi
    mov eax, esi
    mov rdx, rsi
    shr rdx, 32
traps_wrmsr_at:
    wrmsr
    mov eax, 1
    ret

; void entry_zero_page(void *page), and with 32 bytes a store where XCR0 has AVX
%macro ZERO_PAGE 3 ; store, register, its bytes
    lea rax, [rdi + 4096]
%%next:
%assign offset 0
%rep 256 / %3
    %1 [rdi + offset], %2
%assign offset offset + %3
%endrep
    add rdi, 256
    cmp rdi, rax
    jb %%next
%endmacro

global entry_zero_page
entry_zero_page:
    pxor xmm0, xmm0
    ZERO_PAGE movntdq, xmm0, 16
    ret

global entry_zero_page_avx
entry_zero_page_avx:
    vpxor xmm0, xmm0, xmm0 ; the upper half too
    ZERO_PAGE vmovntdq, ymm0, 32
    vzeroupper
    ret

; One stub a vector. The CPU pushes an error code for the vectors in the mask (SDM volume 3, "Error Code").
%assign ERROR_VECTORS (1<<8)|(1<<10)|(1<<11)|(1<<12)|(1<<13)|(1<<14)|(1<<17)|(1<<21)|(1<<29)|(1<<30)
%macro STUB 1
align 16
%if %1 < 32 && ((ERROR_VECTORS >> %1) & 1)
    push strict dword %1
%else
    push strict dword 0
    push strict dword %1
%endif
    jmp strict near traps_common
%endmacro

align 16
global traps_stubs
traps_stubs:
%assign v 0
%rep 256
    STUB v
%assign v v+1
%endrep

; struct trap_frame: see traps_hw.c. RSP is 16-byte aligned at the call: the CPU aligns it, then pushes five words, the stub two,
; and we fifteen (22 in all).
align 16
traps_common:
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
    cld
    mov rdi, rsp
    call traps_handle
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
