; The first sector of a disk, for a VM with a PC's firmware. It counts its starts in the disk's second sector,
; looks whether the firmware has put Bulkhead's ACPI tables into memory, and resets the processor by the
; keyboard controller until it was started three times; then it switches the machine off.
;
; It prints, by INT 10:  drive 80 start N acpi BULKHD
bits 16
org 0x7c00

SECTOR  equ 0x8000              ; the second sector
TABLE   equ 0x9000              ; the head of the XSDT
STARTS  equ 3
PM1_CNT equ 0x604
S5      equ 1 << 13 | 7 << 10

        xor ax, ax
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov sp, 0x7c00
        cld
        mov [drive], dl
        mov si, drive_text
        call print
        mov al, [drive]
        call hex
        mov ah, 0x42            ; extended read
        call transfer
        mov si, start_text
        call print
        inc byte [SECTOR]
        mov al, [SECTOR]
        call hex
        mov ax, 0x4300          ; extended write
        call transfer
        call acpi
        mov si, line_end
        call print
        cmp byte [SECTOR], STARTS
        jae off
        mov al, 0xfe
        out 0x64, al
        jmp halt
off:    mov dx, PM1_CNT
        mov ax, S5
        out dx, ax
halt:   cli
        hlt
        jmp halt

transfer:
        mov dl, [drive]
        mov si, packet
        int 0x13
        jnc done
fail:   mov si, fail_text
        call print
        jmp halt

; The RSDP is on a paragraph of F0000..FFFFF (ACPI 6.5, 5.2.5.1), and its 36 bytes sum to 0.
acpi:   mov ax, 0xf000
.next:  mov es, ax
        xor di, di
        mov si, rsdp_text
        mov cx, 8
        repe cmpsb
        je .found
        inc ax
        jnz .next
        jmp fail
.found: xor bx, bx
        mov cx, 36
        xor al, al
.sum:   add al, [es:bx]
        inc bx
        loop .sum
        or al, al
        jnz fail
        mov eax, [es:24]        ; the XSDT, above 1 MiB: the BIOS fetches it
        push ds
        pop es
        mov [source + 2], ax
        shr eax, 16
        mov [source + 4], al
        mov [source + 7], ah
        mov si, descriptors
        mov cx, 36 / 2
        mov ah, 0x87
        int 0x15
        jc fail
        cmp dword [TABLE], 'XSDT'
        jne fail
        mov si, acpi_text
        call print
        mov byte [TABLE + 16], 0
        mov si, TABLE + 10      ; OEMID
print:  lodsb
        or al, al
        jz done
        mov ah, 0x0e
        mov bx, 7
        int 0x10
        jmp print
done:   ret

hex:    push ax
        shr al, 4
        call .digit
        pop ax
        and al, 15
.digit: add al, '0'
        cmp al, '9'
        jbe .put
        add al, 'a' - '9' - 1
.put:   mov ah, 0x0e
        mov bx, 7
        int 0x10
        ret

drive:       db 0
drive_text:  db "drive ", 0
start_text:  db " start ", 0
acpi_text:   db " acpi ", 0
fail_text:   db " failed", 13, 10, 0
line_end:    db 13, 10, 0
rsdp_text:   db "RSD PTR "
packet:      db 16, 0
             dw 1, SECTOR, 0
             dq 1
descriptors: dq 0, 0            ; INT 15h, AH=87h: null, the table itself
source:      dw 0xffff, 0
             db 0, 0x93
             dw 0
             dw 0xffff, TABLE
             db 0, 0x93
             dw 0
             dq 0, 0            ; the BIOS's own

        times 510 - ($ - $$) db 0
        dw 0xaa55
