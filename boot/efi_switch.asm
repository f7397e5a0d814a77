; From the firmware's address space to the core's. This page is mapped at the same address in both, so that execution goes on
; when CR3 changes. It gets the CPU into a known state; the core loads its own GDT and IDT before anything else.
bits 64
default rel

%define MSR_EFER    0xc0000080
%define EFER_NXE    (1 << 11)
%define CR0_MP      (1 << 1)
%define CR0_EM      (1 << 2)
%define CR0_TS      (1 << 3)
%define CR0_NE      (1 << 5)
%define CR0_WP      (1 << 16)
%define CR4_PAE     (1 << 5)
%define CR4_MCE     (1 << 6)
%define CR4_OSFXSR  (1 << 9)
%define CR4_OSXMM   (1 << 10)

section .text
global efi_switch:hidden
global efi_switch_page:hidden

; void efi_switch(cr3 in rdi, entry in rsi, stack_top in rdx, info_va in rcx)
align 4096
efi_switch_page:
efi_switch:
    cli
    cld
    mov r8, rcx
    mov r9, rdx

    ; The new tables have no-execute bits.
    mov ecx, MSR_EFER
    rdmsr
    or eax, EFER_NXE
    wrmsr

    ; Only what long mode needs: PGE and PCIDE off flushes every translation of the firmware, global ones too; CET, SMAP
    ; and the like are the core's to switch on. CET must go before anything changes WP (SDM volume 3, "Control Registers").
    mov rax, cr4
    and eax, CR4_MCE | CR4_OSFXSR | CR4_OSXMM
    or eax, CR4_PAE
    mov cr4, rax
    mov rax, cr0
    and eax, ~(CR0_EM | CR0_TS)
    or eax, CR0_WP | CR0_NE | CR0_MP
    mov cr0, rax

    ; The firmware's handlers vanish with its mappings: a fault before the core's IDT is there shall reset, not run wild.
    lidt [no_idt]
    mov cr3, rdi
    mov rsp, r9
    xor ebp, ebp
    mov rdi, r8
    jmp rsi

align 16
no_idt:
    dw 0
    dq 0

    times 4096 - ($ - efi_switch_page) db 0xcc
