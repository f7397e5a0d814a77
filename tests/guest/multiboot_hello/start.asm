; A Multiboot guest's beginning: the header, and the entry in 32-bit protected mode.
bits 32

MAGIC equ 0x1badb002
FLAGS equ 0x00000003                ; modules on pages, memory information

extern hello_main

section .multiboot progbits alloc noexec nowrite align=4
    dd MAGIC, FLAGS, -(MAGIC + FLAGS)

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
