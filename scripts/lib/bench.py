"""scripts/bench: boots the bare-metal guest of tests/guest/bench in the emulator and shows what exits cost, in
emulated instructions, beside the reference of issue 2, section 5 (measured as ../shared/facts/emulators.md says)."""
import argparse
import collections
import glob
import os
import re
import time

import bochs
import build
import make_image
import ui

SOURCE = os.path.join(ui.ROOT, "tests", "guest", "bench")
WORK = os.path.join(build.BUILD, "bench")
LINE = re.compile(r"^BENCH (\S+) (\d+)\s*$", re.M)
END = re.compile(r"^BENCH-END\b", re.M)

Row = collections.namedtuple("Row", "name title kvm peer limit aim")
ROWS = (
    Row("cpuid", "CPUID", "1000", "440 BitVisor", 300, 150),
    Row("vmcall", "VMCALL, unknown number", "972", "331 BitVisor", 250, 120),
    Row("rdmsr_apic_base", "RDMSR IA32_APIC_BASE", "1116", "790 Xen", 300, 150),
    Row("xsetbv", "XSETBV", "985", "412 BitVisor", 350, 180),
    Row("in_61", "IN 0x61", "6405", "1281 Xen", 600, 250),
    Row("in_uart", "IN 0x3fd (UART)", "4861", "1287 Xen", 600, 250),
    Row("lapic_mmio", "LAPIC register read (MMIO)", "7221", "-", 1500, 600),
    Row("self_ipi", "x2APIC self-IPI to its handler", "4136", "475 BitVisor", 900, 450),
    Row("tsc_deadline", "WRMSR TSC_DEADLINE", "1329", "-", 400, 200),
    Row("late_spin", "TSC-deadline lateness, spinning", "1285", "427 BitVisor", 700, 250),
    Row("late_halt", "TSC-deadline lateness, halted", "3109", "436 BitVisor", 1500, 400),
)
CONFIG = """[machine]
console = serial
on_idle = poweroff

[vm bench]
cpus = 0
memory = 64M
kernel = bench
on_reboot = stop
"""


def available():
    return bool(glob.glob(os.path.join(SOURCE, "*.asm")) + glob.glob(os.path.join(SOURCE, "*.c")))


def payload():
    """Builds the guest: all of its C and NASM files, linked by its bench.ld, as a flat binary that has the header of
    Linux' boot protocol in it. Returns its path."""
    if not available():
        raise ui.Failure("the bench guest is not there: " + SOURCE)
    os.makedirs(WORK, exist_ok=True)
    objects = []
    for source in sorted(glob.glob(os.path.join(SOURCE, "*.asm")) + glob.glob(os.path.join(SOURCE, "*.c"))):
        objects.append(os.path.join(WORK, os.path.basename(source) + ".o"))
        if source.endswith(".asm"):
            ui.command(["nasm", "-f", "elf64", "-I", SOURCE + "/", "-o", objects[-1], source])
        else:
            ui.command(["gcc", "-std=gnu17", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter",
                        "-ffreestanding", "-fno-pic", "-fno-pie", "-mno-red-zone", "-mgeneral-regs-only",
                        "-fno-stack-protector", "-fno-asynchronous-unwind-tables", "-fcf-protection=none", "-I",
                        ui.ROOT, "-c", source, "-o", objects[-1]])
    elf = os.path.join(WORK, "bench.elf")
    ui.command(["ld", "-nostdlib", "-static", "-no-pie", "-znoexecstack", "--build-id=none", "--no-warn-rwx-segments",
                "-T", os.path.join(SOURCE, "bench.ld"), "-o", elf, *objects])
    ui.command(["objcopy", "-O", "binary", elf, os.path.join(WORK, "bench")])
    return os.path.join(WORK, "bench")


def measure(cpu_model=bochs.CPU_MODEL, timeout=180):
    """Boots the guest; returns {name: instructions}."""
    payload()
    config = os.path.join(WORK, "bulkhead.conf")
    with open(config, "w", encoding="ascii") as file:
        file.write(CONFIG)
    disk = os.path.join(WORK, "disk.img")
    make_image.make(config, disk)
    machine = bochs.Machine(disk, 1, 256, cpu_model)
    try:
        text = _collect(machine, timeout)
    finally:
        machine.close()
    with open(os.path.join(WORK, "console.log"), "w", encoding="utf-8") as file:
        file.write(text)
    costs = {name: int(value) for name, value in LINE.findall(text)}
    if not costs:
        raise ui.Failure("the bench guest reported nothing; the console's end:\n" + "\n".join(text.splitlines()[-15:]))
    return costs


def _collect(machine, timeout):
    """The console's text until the guest is done or the machine ends."""
    machine.console.settimeout(0.5)
    end = time.monotonic() + timeout
    data = b""
    while time.monotonic() < end:
        try:
            piece = machine.console.recv(65536)
        except TimeoutError:
            continue
        except OSError:
            break
        if not piece:
            break
        data += piece
        if END.search(data.decode("utf-8", "replace").replace("\r", "")):
            break
    return data.decode("utf-8", "replace").replace("\r", "")


def table(costs):
    lines = ["%-34s %9s %14s %9s %9s %9s" % ("operation, exit to entry", "KVM 6.1", "best peer", "limit", "aim", "ours")]
    for row in ROWS:
        cost = costs.get(row.name)
        mark = "not measured" if cost is None else "OVER" if cost > row.limit else "aim" if cost <= row.aim else ""
        lines.append("%-34s %9s %14s %9d %9d %9s %s" % (row.title, row.kvm, row.peer, row.limit, row.aim,
                                                      "-" if cost is None else cost, mark))
    known = {row.name for row in ROWS}
    for name in sorted(set(costs) - known):
        lines.append("%-34s %9s %14s %9s %9s %9d" % (name, "", "", "", "", costs[name]))
    return "\n".join(line.rstrip() for line in lines)


def main(arguments):
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description="Measures exits in the emulator, in instructions, one CPU, and shows them "
        "beside KVM 6.1 (mitigations off) and the best other hypervisor.")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a cost is over its limit or missing")
    parser.add_argument("--cpu-model", metavar="MODEL", default=bochs.CPU_MODEL, help="the CPU to emulate (default: "
                        "%(default)s)")
    options = parser.parse_args(arguments)
    if not bochs.find():
        raise ui.Failure("there is no Bochs: run scripts/setup")
    with ui.step("measuring"):
        costs = measure(options.cpu_model)
    print(table(costs))
    over = [row.title for row in ROWS if costs.get(row.name) is None or costs[row.name] > row.limit]
    if options.check and over:
        ui.say("over the limit or missing: " + ", ".join(over))
        return 1
    return 0


if __name__ == "__main__":
    ui.main(main)
