; A Multiboot guest's beginning: the header, and the entry in 32-bit protected mode.
bits 32

MAGIC equ 0x1badb002

extern hello_main
extern header_flags, header_sum     ; hello.ld: modules on pages, memory information; of a flat binary, addresses
extern data_end, guest_end

section .multiboot progbits alloc noexec nowrite align=4
header:
    dd MAGIC, header_flags, header_sum
    dd header, header, data_end, guest_end, entry   ; where the header, the file's beginning, its end and .bss's go

section .text progbits alloc exec nowrite align=16
global entry
entry:
    mov esp, stack_top              ; the specification gives none
    pushfd                          ; as the loader left them
    push ebx
    push eax
    cld
    call hello_main
.stop:
    cli
    hlt
    jmp .stop

section .bss nobits alloc noexec write align=16
    resb 0x4000
stack_top:

section .note.GNU-stack noalloc noexec nowrite progbits
