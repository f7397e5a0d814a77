set(GUEST_FLAGS ${BULKHEAD_WARNINGS} -O2 -ffreestanding -fno-pic -mgeneral-regs-only -fno-stack-protector
    -fno-asynchronous-unwind-tables -fcf-protection=none)

# A bare-metal guest in 64-bit code: target, file below guest/, linker script, sources.
function(add_guest64 name file script)
  add_executable(${name} EXCLUDE_FROM_ALL ${ARGN})
  target_compile_options(${name} PRIVATE $<$<COMPILE_LANGUAGE:C>:${GUEST_FLAGS} -mno-red-zone>)
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR})
  target_link_options(${name} PRIVATE -nostdlib -static -no-pie -Wl,-T,${script} -Wl,--build-id=none
      -Wl,-z,noexecstack -Wl,--no-warn-rwx-segments)
  set_target_properties(${name} PROPERTIES OUTPUT_NAME ${file} RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/guest
      LINK_DEPENDS ${script})
endfunction()

# What scripts/bench boots: a flat binary in the bzImage format.
set(GUEST_BENCH ${CMAKE_SOURCE_DIR}/tests/guest/bench)
add_guest64(bench_guest bench.elf ${GUEST_BENCH}/bench.ld ${GUEST_BENCH}/start.asm ${GUEST_BENCH}/bench.c
    ${GUEST_BENCH}/lookup.c ${GUEST_BENCH}/mapping.c ${CMAKE_SOURCE_DIR}/drivers/iommu/vtd_tables.c
    ${CMAKE_SOURCE_DIR}/hv/pc/bus.c ${CMAKE_SOURCE_DIR}/hv/once.c ${CMAKE_SOURCE_DIR}/hv/lib/mem.c)
add_custom_command(OUTPUT ${CMAKE_BINARY_DIR}/guest/bench.bin DEPENDS bench_guest
    COMMAND ${CMAKE_OBJCOPY} -O binary $<TARGET_FILE:bench_guest> ${CMAKE_BINARY_DIR}/guest/bench.bin)
add_custom_target(bench_bin ALL DEPENDS ${CMAKE_BINARY_DIR}/guest/bench.bin)

# In the Multiboot format: the hostile programs as ELF32 (made from ELF64, which is the only format that NASM and GCC
# share here), their victim and the rules as ELF64.
set(GUEST_HOSTILE ${CMAKE_SOURCE_DIR}/tests/guest/hostile)
set(GUEST_RULES ${CMAKE_SOURCE_DIR}/tests/guest/rules)
set(GUEST_RUNTIME ${CMAKE_SOURCE_DIR}/tests/guest/runtime)
file(GLOB HOSTILE_PROGRAMS CONFIGURE_DEPENDS ${GUEST_HOSTILE}/prog_*.c)
file(GLOB RULES CONFIGURE_DEPENDS ${GUEST_RULES}/*.c)
set(RUNTIME ${GUEST_RUNTIME}/start.asm ${GUEST_RUNTIME}/lab.asm ${GUEST_RUNTIME}/lab.c ${GUEST_RUNTIME}/runtime.c)
add_guest64(hostile64 hostile64.elf ${GUEST_RUNTIME}/guest.ld ${RUNTIME} ${GUEST_HOSTILE}/hostile.c
    ${GUEST_HOSTILE}/fuzz.c ${GUEST_HOSTILE}/vf.c ${HOSTILE_PROGRAMS})
add_guest64(victim victim.elf ${GUEST_RUNTIME}/guest.ld ${RUNTIME} ${GUEST_HOSTILE}/victim.c)
add_guest64(rules_guest rules.elf ${GUEST_RUNTIME}/guest.ld ${RUNTIME} ${RULES})
add_custom_command(OUTPUT ${CMAKE_BINARY_DIR}/guest/hostile.elf DEPENDS hostile64
    COMMAND ${CMAKE_OBJCOPY} -O elf32-i386 $<TARGET_FILE:hostile64> ${CMAKE_BINARY_DIR}/guest/hostile.elf)
add_custom_target(hostile_guests ALL DEPENDS ${CMAKE_BINARY_DIR}/guest/hostile.elf victim)

# Multiboot guests in 32-bit code: NAME, linker script, sources. They become guest/NAME.elf (ELF32),
# guest/NAME64.elf (the same as ELF64) and guest/NAME.bin (a flat binary).
function(add_multiboot_guest32 name script)
  set(where ${CMAKE_BINARY_DIR}/guest)
  set(objects)
  foreach(source ${ARGN})
    get_filename_component(stem ${source} NAME)
    set(object ${where}/${name}.${stem}.o)
    if(source MATCHES "\\.asm$")
      set(compile ${CMAKE_ASM_NASM_COMPILER} -f elf32 ${source} -o ${object})
      set(dependencies)
    else()
      set(compile ${CMAKE_C_COMPILER} -m32 -march=i686 -std=gnu17 ${GUEST_FLAGS} -Wno-int-to-pointer-cast -MD
          -MF ${object}.d -I${CMAKE_SOURCE_DIR} -c ${source} -o ${object})
      set(dependencies DEPFILE ${object}.d)
    endif()
    add_custom_command(OUTPUT ${object} COMMAND ${CMAKE_COMMAND} -E make_directory ${where} COMMAND ${compile}
        DEPENDS ${source} ${dependencies})
    list(APPEND objects ${object})
  endforeach()
  add_custom_command(OUTPUT ${where}/${name}.elf ${where}/${name}64.elf DEPENDS ${objects} ${script}
      COMMAND ${CMAKE_LINKER} -m elf_i386 -static -nostdlib -z noexecstack --build-id=none -T ${script} ${objects}
          -o ${where}/${name}.elf
      COMMAND ${CMAKE_OBJCOPY} -O elf64-x86-64 ${where}/${name}.elf ${where}/${name}64.elf)
  add_custom_command(OUTPUT ${where}/${name}.bin DEPENDS ${objects} ${script}
      COMMAND ${CMAKE_LINKER} -m elf_i386 -static -nostdlib --build-id=none --defsym=flat=1 --oformat binary -T ${script}
          ${objects} -o ${where}/${name}.bin)
  add_custom_target(${name} ALL DEPENDS ${where}/${name}.elf ${where}/${name}64.elf ${where}/${name}.bin)
endfunction()

set(MULTIBOOT_HELLO ${CMAKE_SOURCE_DIR}/tests/guest/multiboot_hello)
add_multiboot_guest32(multiboot_hello ${MULTIBOOT_HELLO}/hello.ld ${MULTIBOOT_HELLO}/start.asm
    ${MULTIBOOT_HELLO}/hello.c)
add_multiboot_guest32(multiboot2_hello ${MULTIBOOT_HELLO}/hello.ld ${CMAKE_SOURCE_DIR}/tests/guest/multiboot2_hello/start.asm)

add_multiboot_guest32(tasks ${MULTIBOOT_HELLO}/hello.ld ${MULTIBOOT_HELLO}/start.asm
    ${CMAKE_SOURCE_DIR}/tests/guest/tasks/tasks.c)

# A raw real-mode image.
add_custom_command(OUTPUT ${CMAKE_BINARY_DIR}/guest/raw.bin DEPENDS ${CMAKE_SOURCE_DIR}/tests/guest/raw/raw.asm
    COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_BINARY_DIR}/guest
    COMMAND ${CMAKE_ASM_NASM_COMPILER} -f bin ${CMAKE_SOURCE_DIR}/tests/guest/raw/raw.asm -o ${CMAKE_BINARY_DIR}/guest/raw.bin)
add_custom_target(raw_guest ALL DEPENDS ${CMAKE_BINARY_DIR}/guest/raw.bin)
