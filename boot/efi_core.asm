; The core, embedded: one file to copy, sign and measure. CORE_ELF is its path, from boot/loader.cmake.
section .data
global efi_core_begin:hidden
global efi_core_end:hidden

align 16
efi_core_begin:
    incbin CORE_ELF
efi_core_end:
