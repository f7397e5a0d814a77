; Room for the table of the core's symbols (arch/x86/symbols.h), which scripts/lib/symbols.py fills in after the link.
; In assembly, so that no compiler believes that it is zero.
SYMBOLS_ROOM equ 18 * 1024

section .rodata
global symbols_core:data (symbols_core.end - symbols_core)
align 8
symbols_core:
    times SYMBOLS_ROOM db 0
.end:
