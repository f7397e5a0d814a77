# The core: all pure code and the hardware files, freestanding, linked in the high half.
set(CORE_FLAGS ${BULKHEAD_WARNINGS} -Oz -g -ffreestanding -fno-pic -mno-red-zone -mgeneral-regs-only -mcmodel=kernel
    -fno-stack-protector -fno-asynchronous-unwind-tables -fno-strict-aliasing -fcf-protection=none
    -fno-jump-tables -fomit-frame-pointer -I${CMAKE_SOURCE_DIR})
# How the files of CORE_FAST are compiled; and bytes of the image for the symbols that a panic prints, of which Clang makes more.
# The budgets of exits are those of GCC's build. Clang's has no link-time optimisation and is large without it.
if(CMAKE_C_COMPILER_ID MATCHES Clang)
  set(CORE_FAST_FLAGS -Os)
  set(CORE_SYMBOLS_ROOM 19456)
else()
  set(CORE_FAST_FLAGS -O2)
  set(CORE_SYMBOLS_ROOM 14336)
endif()
# Retpolines: no indirect branch of the host can be steered by a guest's predictions.
if(CMAKE_C_COMPILER_ID MATCHES Clang)
  list(APPEND CORE_FLAGS -mretpoline -ffunction-sections -fdata-sections)
else()
  list(APPEND CORE_FLAGS -mindirect-branch=thunk -mindirect-branch-register)
endif()
# The exit path crosses rooms; link-time optimisation makes it one. (Clang would need its own linker for that.)
if(CMAKE_C_COMPILER_ID STREQUAL GNU)
  list(APPEND CORE_FLAGS -flto=2 -flto-partition=one)
  set(CORE_LINK_FLAGS ${CORE_FLAGS} -no-pie)
endif()
# Which build a panic comes from: the commit, and whether something was changed. Looked up again after each commit.
execute_process(COMMAND git -C ${CMAKE_SOURCE_DIR} describe --always --long --dirty --abbrev=12
                OUTPUT_VARIABLE BULKHEAD_BUILD OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
execute_process(COMMAND git -C ${CMAKE_SOURCE_DIR} rev-parse --path-format=absolute --git-path logs/HEAD
                OUTPUT_VARIABLE BULKHEAD_COMMITS OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
if(BULKHEAD_COMMITS AND EXISTS ${BULKHEAD_COMMITS})
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${BULKHEAD_COMMITS})
endif()
if(NOT BULKHEAD_BUILD)
  set(BULKHEAD_BUILD "without a version")
endif()
set_source_files_properties(${CMAKE_SOURCE_DIR}/arch/x86/panic_hw.c PROPERTIES
                            COMPILE_DEFINITIONS "BULKHEAD_BUILD=\"${BULKHEAD_BUILD}\"")
# What exits run through all the time is made fast; everything else is made small, so that the image stays small.
set(CORE_FAST
    arch/x86/apic_hw.c         # the end of each interrupt of the host
    arch/x86/guest_walk.c      # an MMIO access: page tables, instruction, operands, result
    arch/x86/insn_decode.c
    arch/x86/insn_execute.c
    arch/x86/insn_operands.c
    arch/x86/traps_hw.c
    arch/x86/vmx/vmx_decode.c
    arch/x86/vmx/vmx_run_hw.c
    arch/x86/vmx/vmx_state_hw.c
    drivers/vdev/acpi_pm.c     # the PM timer
    drivers/vdev/lapic.c
    drivers/vdev/uart.c
    hv/pc/bus.c
    hv/clock.c
    hv/policy/cpuid_policy.c
    hv/exits/emulate.c
    hv/events.c
    hv/exits/exit_table.c
    hv/exits/fetch_memo.c
    hv/gmem.c
    hv/exits/handle_apic.c
    hv/exits/handle_cpu.c
    hv/exits/handle_cr.c
    hv/exits/handle_event.c
    hv/exits/handle_io.c
    hv/exits/handle_memory.c
    hv/exits/handle_msr.c
    hv/pc/irq.c
    hv/lib/mem.c
    hv/lib/near.c
    hv/lib/plain.c
    hv/assign/msi.c
    hv/sched.c
    hv/vcpu.c
    hv/xstate.c)
foreach(source ${CORE_FAST})
  if(NOT EXISTS ${CMAKE_SOURCE_DIR}/${source})
    message(FATAL_ERROR "CORE_FAST in arch/core.cmake names ${source}, which does not exist")
  endif()
  set_property(SOURCE ${CMAKE_SOURCE_DIR}/${source} APPEND PROPERTY COMPILE_OPTIONS ${CORE_FAST_FLAGS} -falign-functions=16)
endforeach()
add_executable(core ${PURE_SOURCES} ${HW_SOURCES} ${CMAKE_SOURCE_DIR}/boot/boot_info.c ${CORE_ASM})
target_compile_options(core PRIVATE $<$<COMPILE_LANGUAGE:C>:${CORE_FLAGS}>
                                    $<$<COMPILE_LANGUAGE:ASM_NASM>:-I${CMAKE_SOURCE_DIR}/ -g -F dwarf -w+all>)
target_compile_definitions(core PRIVATE SYMBOLS_ROOM=${CORE_SYMBOLS_ROOM})
target_link_options(core PRIVATE ${CORE_LINK_FLAGS} -nostdlib -static
                                 -Wl,-T,${CMAKE_SOURCE_DIR}/linker.ld -Wl,--build-id=none
                                 -Wl,-z,max-page-size=4096 -Wl,-z,noexecstack -Wl,--gc-sections -Wl,--no-warn-rwx-segments)
set_target_properties(core PROPERTIES OUTPUT_NAME core.elf RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}
                                      LINK_DEPENDS ${CMAKE_SOURCE_DIR}/linker.ld)
set(CMAKE_ASM_NASM_OBJECT_FORMAT elf64)
add_custom_command(TARGET core POST_BUILD
                   COMMAND /usr/bin/python3 -B ${CMAKE_SOURCE_DIR}/scripts/lib/symbols.py $<TARGET_FILE:core>
                   COMMENT "Writing the core's symbol table into it")
