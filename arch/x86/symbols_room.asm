; Room for the table of the core's symbols (arch/x86/symbols.h), which scripts/lib/symbols.py fills in after the link.
; SYMBOLS_ROOM is core.cmake's. In assembly, so that no compiler believes that it is zero.
section .rodata
global symbols_core:data (symbols_core.end - symbols_core)
align 8
symbols_core:
    times SYMBOLS_ROOM db 0
.end:
