# The bare-metal guest that scripts/bench boots: a flat binary in the bzImage format.
set(GUEST_BENCH ${CMAKE_SOURCE_DIR}/tests/guest/bench)
add_executable(bench_guest EXCLUDE_FROM_ALL ${GUEST_BENCH}/start.asm ${GUEST_BENCH}/bench.c)
target_compile_options(bench_guest PRIVATE $<$<COMPILE_LANGUAGE:C>:${BULKHEAD_WARNINGS} -O2 -ffreestanding -fno-pic
    -mno-red-zone -mgeneral-regs-only -fno-stack-protector -fno-asynchronous-unwind-tables -fcf-protection=none>)
target_link_options(bench_guest PRIVATE -nostdlib -static -no-pie -Wl,-T,${GUEST_BENCH}/bench.ld -Wl,--build-id=none
    -Wl,-z,noexecstack -Wl,--no-warn-rwx-segments)
set_target_properties(bench_guest PROPERTIES OUTPUT_NAME bench.elf RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/guest
    LINK_DEPENDS ${GUEST_BENCH}/bench.ld)
add_custom_command(OUTPUT ${CMAKE_BINARY_DIR}/guest/bench.bin DEPENDS bench_guest
    COMMAND ${CMAKE_OBJCOPY} -O binary $<TARGET_FILE:bench_guest> ${CMAKE_BINARY_DIR}/guest/bench.bin)
add_custom_target(bench_bin ALL DEPENDS ${CMAKE_BINARY_DIR}/guest/bench.bin)

# Bare-metal guests in the Multiboot format: the hostile programs as ELF32 (made from ELF64, which is the only format that
# NASM and GCC share here), their victim as ELF64.
set(GUEST_HOSTILE ${CMAKE_SOURCE_DIR}/tests/guest/hostile)
file(GLOB HOSTILE_PROGRAMS CONFIGURE_DEPENDS ${GUEST_HOSTILE}/prog_*.c)
set(HOSTILE_RUNTIME ${GUEST_HOSTILE}/start.asm ${GUEST_HOSTILE}/lab.asm ${GUEST_HOSTILE}/lab.c ${GUEST_HOSTILE}/runtime.c)
function(add_multiboot_guest name)
  add_executable(${name} EXCLUDE_FROM_ALL ${HOSTILE_RUNTIME} ${ARGN})
  target_compile_options(${name} PRIVATE $<$<COMPILE_LANGUAGE:C>:${BULKHEAD_WARNINGS} -O2 -ffreestanding -fno-pic
      -mno-red-zone -mgeneral-regs-only -fno-stack-protector -fno-asynchronous-unwind-tables -fcf-protection=none>)
  target_link_options(${name} PRIVATE -nostdlib -static -no-pie -Wl,-T,${GUEST_HOSTILE}/hostile.ld -Wl,--build-id=none
      -Wl,-z,noexecstack -Wl,--no-warn-rwx-segments)
  set_target_properties(${name} PROPERTIES OUTPUT_NAME ${name}.elf RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/guest
      LINK_DEPENDS ${GUEST_HOSTILE}/hostile.ld)
endfunction()
add_multiboot_guest(hostile64 ${GUEST_HOSTILE}/hostile.c ${GUEST_HOSTILE}/fuzz.c ${HOSTILE_PROGRAMS})
add_multiboot_guest(victim ${GUEST_HOSTILE}/victim.c)
add_custom_command(OUTPUT ${CMAKE_BINARY_DIR}/guest/hostile.elf DEPENDS hostile64
    COMMAND ${CMAKE_OBJCOPY} -O elf32-i386 $<TARGET_FILE:hostile64> ${CMAKE_BINARY_DIR}/guest/hostile.elf)
add_custom_target(hostile_guests ALL DEPENDS ${CMAKE_BINARY_DIR}/guest/hostile.elf victim)
