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
