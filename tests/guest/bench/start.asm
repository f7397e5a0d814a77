; The bench guest's beginning: the header of Linux' boot protocol, the 64-bit entry, the interrupt handlers that
; take times. "The Linux/x86 Boot Protocol" names the header's fields.
bits 64

SETUP_BYTES equ 0x400               ; the boot sector and one sector of setup code
PREFERRED   equ 0x1000000
INIT_SIZE   equ 0x100000            ; room that the payload wants, with its .bss

extern payload_paragraphs
extern bss_start
extern bss_end
extern bench_main
extern bench_fault
extern bench_tsc                    ; what a handler saw: bits 31:0 of the TSC
extern bench_eoi_cost
extern bench_xapic_eoi              ; the EOI register, mapped
extern bench_ud_rsp                 ; where the frame of a #UD must be

section .header progbits alloc exec
header:
    times 0x1f1 - ($ - header) db 0
    db 1                            ; setup_sects
    dw 0                            ; root_flags
    dd payload_paragraphs           ; syssize
    dw 0, 0xffff, 0                 ; ram_size, vid_mode, root_dev
    dw 0xaa55                       ; boot_flag
    db 0xeb, header_end - magic     ; a jump over the header: its length
magic:
    db "HdrS"
    dw 0x020f                       ; version
    dd 0                            ; realmode_swtch
    dw 0, 0                         ; start_sys_seg, kernel_version
    db 0                            ; type_of_loader
    db 1                            ; loadflags: LOADED_HIGH
    dw 0                            ; setup_move_size
    dd PREFERRED                    ; code32_start
    dd 0, 0                         ; ramdisk_image, ramdisk_size
    dd 0                            ; bootsect_kludge
    dw 0                            ; heap_end_ptr
    db 0, 0                         ; ext_loader_ver, ext_loader_type
    dd 0                            ; cmd_line_ptr
    dd 0x7fffffff                   ; initrd_addr_max
    dd 0x200000                     ; kernel_alignment
    db 0, 21                        ; relocatable_kernel, min_alignment
    dw 1                            ; xloadflags: XLF_KERNEL_64
    dd 255                          ; cmdline_size
    dd 0                            ; hardware_subarch
    dq 0                            ; hardware_subarch_data
    dd 0, 0                         ; payload_offset, payload_length
    dq 0                            ; setup_data
    dq PREFERRED                    ; pref_address
    dd INIT_SIZE                    ; init_size
    dd 0                            ; handover_offset
header_end:
    times SETUP_BYTES - ($ - header) db 0

global entry_32
entry_32:                           ; the protocol's 32-bit entry: not used
    times 0x200 db 0xf4
entry_64:
    cld
    cli
    lea rsp, [rel stack_top]
    lea rdi, [rel bss_start]
    lea rcx, [rel bss_end]
    sub rcx, rdi
    xor eax, eax
    rep stosb
    call bench_main
.stop:
    hlt
    jmp .stop

; The code that waits for these handlers expects RAX, RCX and RDX to change: so reading the TSC comes first.
%macro TAKE_TIME 0
    rdtsc
    mov [rel bench_tsc], eax
%endmacro

global handler_x2apic
handler_x2apic:
    TAKE_TIME
    mov ecx, 0x80b
    xor eax, eax
    xor edx, edx
    wrmsr
    iretq

; Also takes the time of the end of interrupt itself.
global handler_x2apic_eoi
handler_x2apic_eoi:
    TAKE_TIME
    mov ecx, 0x80b
    rdtsc
    mov r8d, eax
    xor eax, eax
    xor edx, edx
    wrmsr
    rdtsc
    sub eax, r8d
    mov [rel bench_eoi_cost], eax
    iretq

global handler_xapic
handler_xapic:
    TAKE_TIME
    mov rcx, [rel bench_xapic_eoi]
    mov dword [rcx], 0
    iretq

; Skips a UD2. A frame in another place is one too many.
global handler_ud
handler_ud:
    cmp rsp, [rel bench_ud_rsp]
    jne fault_stubs + 16 * 6
    add qword [rsp], 2
    iretq

; Exceptions 0 to 31 end the run: stubs of 16 bytes each.
global fault_stubs
align 16
fault_stubs:
%assign vector 0
%rep 32
    align 16
    push qword vector
    jmp fault
%assign vector vector + 1
%endrep
fault:
    pop rdi
    mov rsi, [rsp]                  ; an error code, or RIP
    mov rdx, [rsp + 8]
    and rsp, -16
    call bench_fault

section .bss
align 16
    resb 16384
stack_top:
