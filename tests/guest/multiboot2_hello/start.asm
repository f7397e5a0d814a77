; A Multiboot 2 guest: prints the types of the tags it was given, its command line, its modules' sizes and strings and
; the RSDP's signature on COM1, then powers off.
bits 32

MAGIC      equ 0xe85250d6
BOOT_MAGIC equ 0x36d76289
COM1       equ 0x3f8

section .multiboot progbits alloc noexec nowrite align=8
header:
    dd MAGIC, 0, header_end - header, -(MAGIC + header_end - header)
    dw 1, 0                         ; what it cannot do without
    dd request_end - $ + 4
    dd 1, 2, 3, 4, 6, 15
request_end:
    align 8
    dw 6, 0                         ; modules on pages
    dd 8
    dw 5, 1                         ; a framebuffer, if there is one
    dd 20, 1024, 768, 32
    align 8
    dw 0, 0
    dd 8
header_end:

section .text progbits alloc exec nowrite align=16
global entry
entry:
    mov esp, stack_top
    cmp eax, BOOT_MAGIC
    jne bad
    test ebx, 7
    jnz bad
    mov esi, hello
    call print
    lea edi, [ebx + 8]
types:                              ; all tags, on one line
    mov al, ' '
    call put
    mov eax, [edi]
    call put_byte
    mov eax, [edi]
    call next
    test eax, eax
    jnz types
    lea edi, [ebx + 8]
tags:
    mov esi, newline
    call print
    mov eax, [edi]
    test eax, eax
    jz off
    cmp eax, 1
    je words
    cmp eax, 3
    je module
    cmp eax, 15
    je rsdp
more:
    call next
    jmp tags

words:
    mov esi, words_text
    call print
    lea esi, [edi + 8]
    call print
    jmp more

module:
    mov esi, module_text
    call print
    mov eax, [edi + 12]
    sub eax, [edi + 8]
    mov ecx, 4
.digits:
    rol eax, 8
    call put_byte
    loop .digits
    mov esi, bytes_text
    call print
    lea esi, [edi + 16]
    call print
    jmp more

rsdp:
    mov esi, rsdp_text
    call print
    mov ecx, 7
    lea esi, [edi + 8]
.letter:
    lodsb
    call put
    loop .letter
    jmp more

bad:
    mov esi, bad_text
    call print
off:
    mov esi, newline
    call print
    mov dx, 0x604                   ; ACPI: S5
    mov ax, 0x3c00
    out dx, ax
stop:
    hlt
    jmp stop

; EDI: the tag behind this one. EAX and flags of others stay.
next:
    push eax
    mov eax, [edi + 4]
    add eax, 7
    and eax, ~7
    add edi, eax
    pop eax
    ret

; AL in hexadecimal.
put_byte:
    push eax
    push eax
    shr al, 4
    call .digit
    pop eax
    call .digit
    pop eax
    ret
.digit:
    and al, 15
    cmp al, 10
    sbb al, 0x69
    das
    or al, 0x20
    jmp put

print:
    lodsb
    test al, al
    jz .done
    call put
    jmp print
.done:
    ret

put:
    push edx
    push eax
    mov dx, COM1 + 5
.wait:
    in al, dx
    test al, 0x20
    jz .wait
    mov dx, COM1
    pop eax
    out dx, al
    pop edx
    ret

section .rodata progbits alloc noexec nowrite
hello:       db 'hello, version 2; tags:', 0
words_text:  db 'words: ', 0
module_text: db 'module of ', 0
bytes_text:  db ' bytes: ', 0
rsdp_text:   db 'rsdp: ', 0
bad_text:    db 'not as Multiboot 2 says', 0
newline:     db 13, 10, 0

section .bss nobits alloc noexec write align=16
    resb 0x1000
stack_top:

section .note.GNU-stack noalloc noexec nowrite progbits
