; A raw real-mode image (load = 0x7c00): says where it began, tests that vectors work, resets the processor with a
; shutdown code to go on elsewhere, resets it again by the ROM's reset vector, and counts its lives in memory.
        bits 16
        org 0x7c00

COM1    equ 0x3f8
LIVES   equ 0x600               ; memory survives a reset of the processor, and is zero at the first start
MARK    equ 0x5a

start:
        cli
        mov [cs:drive], dl
        mov [cs:stack], sp
        mov ax, cs
        test ax, ax
        jnz failed
        call where
where:  pop ax
        cmp ax, where
        jne failed
        xor ax, ax
        mov ds, ax
        mov ss, ax
        cmp byte [drive], 0x80
        jne failed
        cmp word [stack], 0x7c00
        jne failed
        mov al, [LIVES]
        inc byte [LIVES]
        test al, al
        jz first
        cmp al, MARK + 1
        je third
failed: mov si, bad
        call print
        jmp end

first:  mov si, began
        call print
        sti                                 ; the BIOS's timer, and a handler that ends its interrupt: twice
        hlt
        hlt
        cli
        mov si, ticked
        call print
        mov word [0x80 * 4], handler        ; an interrupt through the vector table
        mov word [0x80 * 4 + 2], cs
        int 0x80
        mov word [0x467], resumed           ; 0040:0067
        mov word [0x469], 0
        mov al, 0x0f
        out 0x70, al
        mov al, 0x0a
        out 0x71, al
        mov al, 0xfe                        ; the keyboard controller resets the processor
        out 0x64, al
stop:   hlt
        jmp stop

handler:
        mov si, vector
        call print
        iret

; After a warm reset: CS is 0, interrupts are off, memory is as it was.
resumed:
        xor ax, ax
        mov ds, ax
        mov ss, ax
        mov sp, 0x7c00
        cmp byte [LIVES], 1
        jne failed
        mov byte [LIVES], MARK + 1
        mov si, again
        call print
        jmp 0xffff:0                        ; what a BIOS takes for a reboot

third:  mov si, rebooted
        call print
end:    mov dx, 0x604                       ; ACPI: S5
        mov ax, 0x3c00
        out dx, ax
        jmp stop

print:  lodsb
        test al, al
        jz .done
        mov ah, al
        mov dx, COM1 + 5
.wait:  in al, dx
        test al, 0x20
        jz .wait
        mov dx, COM1
        mov al, ah
        out dx, al
        jmp print
.done:  ret

drive:    db 0
stack:    dw 0
began:    db 'raw: began at 0000:7c00', 13, 10, 0
ticked:   db 'raw: the timer interrupts', 13, 10, 0
vector:   db 'raw: a vector works', 13, 10, 0
again:    db 'raw: resumed after a warm reset', 13, 10, 0
rebooted: db 'raw: rebooted, memory kept', 13, 10, 0
bad:      db 'raw: FAILED', 13, 10, 0
        times 510 - ($ - $$) db 0
        dw 0xaa55
