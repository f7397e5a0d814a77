# BOOTX64.EFI: a gnu-efi application with the stripped core inside. Pure modules come out of a library, so that the linker takes
# exactly those which the loader calls.
find_file(EFI_CRT0 crt0-efi-x86_64.o PATHS /usr/lib /usr/lib64 /usr/lib64/gnuefi /usr/lib/x86_64-linux-gnu REQUIRED)
find_file(EFI_LDS elf_x86_64_efi.lds PATHS /usr/lib /usr/lib64 /usr/lib64/gnuefi /usr/lib/x86_64-linux-gnu REQUIRED)
find_library(EFI_LIB gnuefi REQUIRED)
find_program(EFI_OBJCOPY NAMES x86_64-linux-gnu-objcopy objcopy REQUIRED) # GNU's: LLVM's makes no PE out of ELF
find_path(EFI_INCLUDE efi.h PATH_SUFFIXES efi REQUIRED)

set(LOADER_FLAGS ${BULKHEAD_WARNINGS} -O2 -ffreestanding -fpic -fshort-wchar -fvisibility=hidden -mno-red-zone
    -mgeneral-regs-only -fno-stack-protector -fno-asynchronous-unwind-tables -fno-strict-aliasing
    -fcf-protection=none -ffunction-sections -I${CMAKE_SOURCE_DIR})

file(GLOB LOADER_EFI CONFIGURE_DEPENDS boot/efi_*.c)
set(LOADER_PURE ${PURE_SOURCES})
list(FILTER LOADER_PURE INCLUDE REGEX "/(hv/lib/[^/]*|hv/record/blackbox|hv/config/[^/]*|hv/gmem|hv/pmem|hv/guest/[^/]*|drivers/acpi/[^/]*|drivers/pci/[^/]*|arch/x86/hostpt|arch/x86/vmx/vmx_mitigate)\\.c$")
add_library(loader_pure STATIC ${LOADER_PURE} ${BOOT_PURE})
target_compile_options(loader_pure PRIVATE ${LOADER_FLAGS})

add_custom_command(OUTPUT ${CMAKE_BINARY_DIR}/core.stripped.elf DEPENDS core
                   COMMAND ${CMAKE_STRIP} -o ${CMAKE_BINARY_DIR}/core.stripped.elf $<TARGET_FILE:core>)
set_source_files_properties(boot/efi_core.asm PROPERTIES
    COMPILE_OPTIONS "-DCORE_ELF=\"${CMAKE_BINARY_DIR}/core.stripped.elf\""
    OBJECT_DEPENDS ${CMAKE_BINARY_DIR}/core.stripped.elf)

# gnu-efi: an ELF shared object that relocates itself, then converted to PE.
add_executable(loader ${LOADER_EFI} boot/efi_switch.asm boot/efi_core.asm)
target_compile_options(loader PRIVATE $<$<COMPILE_LANGUAGE:C>:${LOADER_FLAGS} -DGNU_EFI_USE_MS_ABI>)
target_include_directories(loader SYSTEM PRIVATE ${EFI_INCLUDE} ${EFI_INCLUDE}/x86_64)
target_link_options(loader PRIVATE -nostdlib -shared -Wl,-Bsymbolic -Wl,-T,${EFI_LDS} -Wl,--no-undefined
                                   -Wl,--build-id=none -Wl,-z,noexecstack -Wl,-z,nocombreloc -Wl,--no-warn-rwx-segments
                                   ${EFI_CRT0})
target_link_libraries(loader PRIVATE loader_pure ${EFI_LIB})
set_target_properties(loader PROPERTIES OUTPUT_NAME loader.so)
add_custom_command(OUTPUT ${CMAKE_BINARY_DIR}/BOOTX64.EFI DEPENDS loader
    COMMAND ${EFI_OBJCOPY} -j .text -j .sdata -j .data -j .dynamic -j .dynsym -j ".rel*" -j ".rela*" -j .reloc
            --target efi-app-x86_64 --subsystem=10 $<TARGET_FILE:loader> ${CMAKE_BINARY_DIR}/BOOTX64.EFI)
add_custom_target(bootx64 ALL DEPENDS ${CMAKE_BINARY_DIR}/BOOTX64.EFI)
