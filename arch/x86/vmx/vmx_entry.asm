; Into the guest and back: the path whose every instruction counts. SDM volume 3, chapters "VM entries", "VM exits".
bits 64
section .text

extern vmx_handle_exit
extern vmx_entry_failed

VMCS_HOST_RSP equ 0x6c14

; vmx_exit_flags, as in vmx_hw.h.
EXIT_FILL_RSB  equ 1
EXIT_CLEAR_BHB equ 2

; Thirty-two calls that never return: every entry of the return stack buffer now leads into a trap of ours (Intel,
; "Retpoline: A Branch Target Injection Mitigation", section "RSB stuffing"). No register changes.
%macro CALL_PAST_TRAP 0
    call %%next
%%trap:
    pause
    lfence
    jmp %%trap
%%next:
%endmacro
%macro FILL_RSB 0
%rep 32
    CALL_PAST_TRAP
%endrep
    add rsp, 32 * 8
%endmacro

; Overwrites the branch history by taken branches (Intel, "Branch History Injection and Intra-mode Branch Target
; Injection", section "Software BHB-clearing sequence"): an outer loop of calls, an inner one of jumps. Changes RAX, RCX.
%macro CLEAR_BHB 0
    mov ecx, 5
    call %%outer
    jmp %%done
align 64
%%outer:
    call %%inner
    ret
align 64
%%inner:
    mov eax, 5
%%again:
    jmp %%jumped
    nop
%%jumped:
    dec eax
    jnz %%again
    dec ecx
    jnz %%outer
    ret
%%done:
%endmacro

; Offsets of general registers in struct vcpu: gpr[n] at 8n, ModRM order. Behind them, where the flight recorder's next
; slot is; RECORD(n) is register n (0..3) in that slot.
%define GPR(n)      [rdi + 8 * n]
%define NEXT_RECORD [rdi + 0x80]
%define RECORD(n)   [rsi + 0x48 + 8 * n]

%macro LOAD_GUEST 0
    cmp byte [rel vmx_entry_verw], 0
    je %%loaded
    verw [rel data_selector]
%%loaded:
    mov rax, GPR(0)
    mov rcx, GPR(1)
    mov rdx, GPR(2)
    mov rbx, GPR(3)
    mov rbp, GPR(5)
    mov rsi, GPR(6)
    mov r8,  GPR(8)
    mov r9,  GPR(9)
    mov r10, GPR(10)
    mov r11, GPR(11)
    mov r12, GPR(12)
    mov r13, GPR(13)
    mov r14, GPR(14)
    mov r15, GPR(15)
    mov rdi, GPR(7)
%endmacro

; void vmx_enter(struct vcpu *vcpu, bool launched): runs the guest, exit after exit, until vmx_handle_exit() says no.
; The stack stays as it is throughout, so HOST_RSP is written once.
global vmx_enter
align 16
vmx_enter:
    push rbp
    push rbx
    push r12
    push r13
    push r14
    push r15
    push rdi                    ; struct vcpu; RSP is 16-byte aligned now
    mov eax, VMCS_HOST_RSP
    vmwrite rax, rsp
    test sil, sil
    jnz .resume
    LOAD_GUEST
    vmlaunch
    jmp .failed
.resume:
    LOAD_GUEST
    vmresume
.failed:                        ; VMfailInvalid or VMfailValid: no guest code has run
    mov rdi, [rsp]
    call vmx_entry_failed
.leave:
    pop rdi
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret

; HOST_RIP: every VM exit arrives here, with RSP as vmx_enter left it.
global vmx_exit
align 16
vmx_exit:
    push rdi
    mov rdi, [rsp + 8]
    mov GPR(0), rax
    mov GPR(1), rcx
    mov GPR(2), rdx
    mov GPR(3), rbx
    mov GPR(5), rbp
    mov GPR(6), rsi
    mov GPR(8), r8
    mov GPR(9), r9
    mov GPR(10), r10
    mov GPR(11), r11
    mov GPR(12), r12
    mov GPR(13), r13
    mov GPR(14), r14
    mov GPR(15), r15
    pop qword GPR(7)
    mov rsi, NEXT_RECORD        ; vmx_handle_exit's second argument
    mov RECORD(0), rax
    mov RECORD(1), rcx
    mov RECORD(2), rdx
    mov RECORD(3), rbx
    ; What the guest had in registers must not be an address in code that runs speculatively.
    xor eax, eax
    xor ecx, ecx
    xor edx, edx
    xor ebx, ebx
    xor ebp, ebp
    xor r8d, r8d
    xor r9d, r9d
    xor r10d, r10d
    xor r11d, r11d
    xor r12d, r12d
    xor r13d, r13d
    xor r14d, r14d
    xor r15d, r15d
    cmp byte [rel vmx_exit_flags], EXIT_FILL_RSB
    jne .less_or_more
    FILL_RSB
.cleared:
    lfence                      ; a branch above may have been mispredicted: nothing goes on before it is decided
    call vmx_handle_exit
    mov rdi, [rsp]
    test al, al
    jnz vmx_enter.resume
    jmp vmx_enter.leave
.less_or_more:                  ; than what most processors call for
    test byte [rel vmx_exit_flags], EXIT_FILL_RSB
    jz .filled
    FILL_RSB
.filled:
    test byte [rel vmx_exit_flags], EXIT_CLEAR_BHB
    jz .cleared
    CLEAR_BHB
    jmp .cleared

section .data
global vmx_exit_flags, vmx_entry_verw
vmx_exit_flags: db 0
vmx_entry_verw: db 0
align 2
data_selector: dw 0x10              ; VERW wants a writable data segment
