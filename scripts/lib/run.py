"""scripts/run: image, boot, and this terminal becomes the console."""
import argparse
import os
import re
import sys

import bochs
import build
import config
import console
import guests
import make_image
import rigs
import ui

EXIT_TIMEOUT = 124
EXIT_FAULT = 3
EXIT_LEFT = 130
DEMO_CONFIG = os.path.join(ui.ROOT, "examples", "two-linux.conf")
SPARE_MEMORY = 128  # MiB for the firmware, the loader and Bulkhead itself, beside guests and their images


def parse_size(text):
    """"512" (MiB), "512M" or "2G" as MiB."""
    match = re.fullmatch(r"(\d+)([MG]?)", text.upper())
    if not match or int(match.group(1)) == 0:
        raise argparse.ArgumentTypeError("%r is not a size: give MiB, or 512M, or 2G" % text)
    return int(match.group(1)) * (1024 if match.group(2) == "G" else 1)


def positive(text):
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError("%r is not a positive number" % text)
    return int(text)


def _parser():
    parser = argparse.ArgumentParser(
        prog="scripts/run", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Sets up, builds, makes an image, boots it, and makes this terminal the console.\n"
        "Without options: a Linux shell in each of two VMs (examples/two-linux.conf) on the best rig this machine has.",
        epilog="Exit status: 0 the machine powered off, %d time is up, %d left with %s,\n%d the machine stopped by "
        "a fault, 1 it never started, 2 wrong usage; see --exit-code." % (EXIT_TIMEOUT, EXIT_LEFT, console.LEAVE_NAME, EXIT_FAULT))
    parser.add_argument("--config", metavar="FILE", help="the bulkhead.conf (default: the demo)")
    parser.add_argument("--rig", choices=("bochs", "nested"), help="what to run on: nested is QEMU's machine with VT-d "
                        "and virtual functions, under KVM; where nested VT-x does not work, in a Linux inside Bochs (default: nested "
                        "where it needs no Bochs, otherwise bochs)")
    parser.add_argument("--cpus", type=positive, metavar="N", help="physical CPUs of the machine (default: as many "
                        "as the configuration names)")
    parser.add_argument("--memory", type=parse_size, metavar="M", help="memory of the machine in MiB, or 2G "
                        "(default: what the configuration needs)")
    parser.add_argument("--timeout", type=positive, metavar="S", help="end after S seconds")
    parser.add_argument("--log", metavar="FILE", help="also write the console's output to FILE")
    parser.add_argument("--efi", metavar="BOOTX64.EFI", help="boot this loader instead of building one")
    parser.add_argument("--cpu-model", metavar="MODEL", default=bochs.CPU_MODEL, help="bochs: the CPU to emulate "
                        "(default: %(default)s)")
    parser.add_argument("--screenshot", metavar="PNG", help="bochs: give the machine a screen, and write what it shows "
                        "at the end to PNG")
    parser.add_argument("--emulator-log", metavar="FILE", help="bochs: keep the emulator's own log, with the reason "
                        "of every failed VM entry (slower)")
    parser.add_argument("--exit-code", action="store_true", help="when the last VM left with code N (compat = qemu, "
                        "port 0xf4) and the machine then powered off, the exit status is (N << 1) | 1, as QEMU's")
    return parser


def exit_status(output):
    """What QEMU's isa-debug-exit would make of the end of the console's output: 0 when the last VM to stop gave no code.

    A guest can print such lines too, but not behind Bulkhead's own: the last one before the end counts."""
    lines = re.findall(rb"^\[ *\d+\.\d+\] ([a-z0-9-]+): (?:ERROR: )?((?:stopped|every VM has stopped): .*?)\r?$", output, re.M)
    if len(lines) < 2 or lines[-1] != (b"core", b"every VM has stopped: powering off"):
        return 0
    match = re.fullmatch(rb"stopped: the guest left with code (\d+)", lines[-2][1])
    return (int(match.group(1)) << 1 | 1) & 0xFF if match else 0


def needs(path):
    """(CPUs, MiB) of a machine that has what the configuration names. Errors are the checker's business."""
    highest, memory = 0, 0
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            key, _, value = (part.strip() for part in line.partition("="))
            if key == "cpus":
                highest = max([highest, *(int(number) for number in re.findall(r"\d+", value)[:64])])
            elif key == "memory":
                match = re.match(r"(\d+)\s*([KMG]?)", value)
                if match:
                    memory += int(match.group(1)) * {"K": 1 / 1024, "M": 1, "G": 1024, "": 1 / 1048576}[match.group(2)]
    images = sum(os.path.getsize(host) for _, host, _ in config.files(path) if os.path.isfile(host)) / 1048576
    total = memory + 2 * images + SPARE_MEMORY
    if total > 2900:  # the hole below 4 GiB where PCI devices are: its memory is lost
        total += 1024
    return min(highest, 63) + 1, max(256, -(-int(total) // 64) * 64)


def _prepare(options):
    """(image, config): the demo's files are made when no configuration is given."""
    path = options.config
    if not path:
        with ui.step("preparing the demo's guest"):
            path = guests.place(guests.DEMO, DEMO_CONFIG)
    out = os.path.join(build.BUILD, "run-%s.img" % re.sub(r"[^A-Za-z0-9.-]", "_", os.path.abspath(path))[-80:])
    make_image.make(path, out, options.efi)
    return out, path


def _start(options, rig, out, cpus, memory):
    # With a person at the console an idle machine should wait as real ones do, and its clock keep to the real one.
    pace = bool(sys.stdin and sys.stdin.isatty())
    if rig == "nested":
        return rigs.nested_machine(out, cpus, memory, options.emulator_log, pace)
    return bochs.Machine(out, cpus, memory, options.cpu_model, log=options.emulator_log,
                         verbose=bool(options.emulator_log), pace=pace, screen=bool(options.screenshot))


def main(arguments):
    options = _parser().parse_args(arguments)
    if options.screenshot and options.rig == "nested":
        raise ui.Failure("--screenshot needs --rig bochs: the nested rig's machine has no screen", 2)
    rig = rigs.choose("bochs" if options.screenshot else options.rig)
    out, path = _prepare(options)
    cpus, memory = needs(path)
    cpus, memory = options.cpus or cpus, options.memory or memory
    ui.say("booting %s on %s: %d CPU%s, %d MiB%s" % (
        os.path.relpath(path), rig, cpus, "" if cpus == 1 else "s", memory,
        "; the firmware takes a few seconds" if rig == "bochs" else "; Linux and QEMU come first, half a minute"
        if rigs.kvm_problem() else ""))
    if sys.stdin and sys.stdin.isatty():
        ui.say("this terminal is the console; %s leaves" % console.LEAVE_NAME)
    machine = _start(options, rig, out, cpus, memory)
    try:
        tail = bytearray()
        result = console.bridge(machine, options.timeout, options.log, tail)
        if result == "off":
            machine.process.wait(10)
        print(flush=True)
        if options.screenshot:
            machine.screen.picture().save(options.screenshot)
        status = _report(result, machine, options)
        return exit_status(bytes(tail)) if options.exit_code and result == "off" else status
    finally:
        machine.close()


def _report(result, machine, options):
    if result == "timeout":
        ui.say("time is up (%d s)" % options.timeout)
        return EXIT_TIMEOUT
    if result == "left":
        ui.say("left; the machine is off")
        return EXIT_LEFT
    if machine.powered_off():
        ui.say("the machine powered off")
        return 0
    raise ui.Failure("the machine stopped by a fault of the emulated hardware:\n" + machine.tail(), EXIT_FAULT)


if __name__ == "__main__":
    ui.main(main)
