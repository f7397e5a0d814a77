"""scripts/bench: boots the bare-metal guest of tests/guest/bench in the emulator and shows what exits cost, in
emulated instructions, beside the reference of issue 2, section 5; and the sizes and times that have a budget there."""
import argparse
import collections
import os
import re
import sys
import time

import bochs
import build
import make_image
import static
import ui

WORK = os.path.join(build.BUILD, "bench")
PAYLOAD = os.path.join("guest", "bench.bin")
LINE = re.compile(r"^BENCH (\w+) (\d+)\n", re.M)
END = re.compile(r"^BENCH done\n|^BENCH-FAULT.*\n", re.M)
READY = re.compile(r"core: ready after (\d+) thousand TSC ticks; own memory: (\d+) KiB used, (\d+) KiB free")
MITIGATIONS = re.compile(r"core: speculation mitigations: (.*)")

Row = collections.namedtuple("Row", "name title kvm peer limit aim")
ROWS = (
    Row("cpuid", "CPUID", "1000", "440 BitVisor", 260, 150),
    Row("vmcall", "VMCALL, unknown number", "972", "331 BitVisor", 230, 120),
    Row("rdmsr_apic_base", "RDMSR IA32_APIC_BASE", "1116", "790 Xen", 240, 150),
    Row("xsetbv", "XSETBV", "985", "412 BitVisor", 260, 180),
    Row("in_61", "IN 0x61", "6405", "1281 Xen", 475, 250),
    Row("in_uart", "IN 0x3fd (UART)", "4861", "1287 Xen", 390, 250),
    Row("lapic_mmio", "LAPIC register read (MMIO)", "7221", "-", 945, 600),
    Row("self_ipi", "x2APIC self-IPI to its handler", "4136", "475 BitVisor", 475, 450),
    Row("tsc_deadline", "WRMSR TSC_DEADLINE", "1329", "-", 295, 200),
    Row("msi", "MSI of a device to its handler", "-", "-", 485, 300),
    Row("lookup_port", "finding a port's device, of 30", "-", "-", 40, 20),
    Row("lookup_mmio", "finding a register's device, of 30", "-", "-", 40, 30),
    Row("map_1g", "mapping 1 GiB for a VM's devices", "-", "-", 20000, 10000),
    Row("late_spin", "TSC-deadline lateness, spinning", "1285", "427 BitVisor", 640, 250),
    Row("late_halt", "TSC-deadline lateness, halted", "3109", "436 BitVisor", 640, 400),
)
# Without a budget, shown because an exit that grows there is worth knowing. (name, title, KVM, best peer)
MORE = (
    ("cpuid_1", "CPUID leaf 1", "", ""),
    ("cpuid_d_1", "CPUID leaf 0xD, subleaf 1", "", ""),
    ("cpuid_ext", "CPUID leaf 0x80000001", "", ""),
    ("rdmsr_efer", "RDMSR EFER", "1059", "no exit Xen"),
    ("rdmsr_misc_enable", "RDMSR IA32_MISC_ENABLE", "", ""),
    ("wbinvd", "WBINVD", "897", "737 Xen"),
    ("out_80", "OUT 0x80", "", ""),
    ("pm_timer", "IN PM timer", "", ""),
    ("pit_read", "IN 0x40 (PIT)", "", ""),
    ("rtc_read", "IN 0x71 (RTC)", "", ""),
    ("cf8", "IN 0xcf8 (PCI address)", "", ""),
    ("ioapic_write", "IOAPIC register select (MMIO)", "", ""),
    ("hpet_hole", "read where no device is (MMIO)", "", ""),
    ("lapic_tpr_write", "LAPIC TPR write (MMIO)", "", ""),
    ("xapic_self_ipi", "xAPIC self-IPI to its handler", "13935", "28 with APICv"),
    ("x2apic_version", "x2APIC version read", "1223", "4 with APICv"),
    ("x2apic_tpr_write", "x2APIC TPR write", "", ""),
    ("x2apic_eoi", "x2APIC EOI", "", ""),
    ("tsc_deadline_off", "WRMSR TSC_DEADLINE, off", "", ""),
    ("cr0_ts", "MOV to CR0, TS", "", ""),
    ("cr3", "MOV to CR3", "", ""),
    ("cr4_pge", "MOV to CR4, PGE", "", ""),
    ("cr8", "MOV to CR8", "", ""),
    ("invlpg", "INVLPG", "", ""),
    ("rdtsc", "RDTSC", "", ""),
    ("touch_page", "first touch of a page", "5000 to 12000", "5"),
)
CORE_LIMIT_KIB = static.CORE_LIMIT // 1024
MEMORY_LIMIT_KIB = 8 * 1024
START_LIMIT = 50_000_000  # instructions from the core's start to the first VM entry
BOOT_RATIO_LIMIT = 1.15   # a VM's boot to /init against the native one
BOOT_KERNEL = "6.1-cloud"
QUIET = "console=ttyS0,115200 quiet"
CONFIG = """[machine]
console = serial
on_idle = poweroff

[vm bench]
cpus = 0
memory = 64M
kernel = bench
compat = qemu
on_reboot = stop
"""

# What one run of the bench guest told: {name: instructions} and the console's text.
Run = collections.namedtuple("Run", "costs text")
# A figure other than an exit's cost: ours and the limit as text, and whether it is kept.
Figure = collections.namedtuple("Figure", "title ours limit ok")


def _disk():
    build.loader()
    build.ninja([PAYLOAD], what="building the bench guest")
    os.makedirs(WORK, exist_ok=True)
    config, kernel, disk = (os.path.join(WORK, name) for name in ("bulkhead.conf", "bench", "disk.img"))
    with open(config, "w", encoding="ascii") as file:
        file.write(CONFIG)
    if os.path.lexists(kernel):
        os.unlink(kernel)
    os.symlink(os.path.join(build.BUILD, PAYLOAD), kernel)
    make_image.make(config, disk, efi=build.LOADER, check=False)
    return disk


def run(cpu_model=bochs.CPU_MODEL, timeout=180, cpus=1):
    """Builds and boots the guest, of one vCPU, on a machine of `cpus`; returns a Run. Raises Failure when it does not
    reach its end, as it does when a check of its own fails. The costs are meaningful with one CPU."""
    machine = bochs.Machine(_disk(), cpus, 256, cpu_model)
    try:
        text = _collect(machine, timeout)
    finally:
        machine.close()
    with open(os.path.join(WORK, "console.log"), "w", encoding="utf-8") as file:
        file.write(text)
    end = END.search(text)
    if not end or "FAULT" in end.group(0):
        raise ui.Failure("the bench guest did not reach its end; the console's last lines:\n"
                         + "\n".join(text.splitlines()[-15:]))
    return Run({name: int(value) for name, value in LINE.findall(text)}, text)


def _collect(machine, timeout):
    """The console's text until the guest is done or the machine ends."""
    machine.console.settimeout(0.5)
    end = time.monotonic() + timeout
    text = ""
    while time.monotonic() < end and not END.search(text):
        try:
            piece = machine.console.recv(65536)
        except TimeoutError:
            continue
        except OSError:
            break
        if not piece:
            break
        text += piece.decode("utf-8", "replace").replace("\r", "")
    return text


def figures(text):
    """The sizes and times that the core says of itself on the console."""
    core = sum(size for _, size, _ in static.segments(build.CORE)) / 1024
    result = [Figure("core image", "%.0f KiB" % core, "%d KiB" % CORE_LIMIT_KIB, core <= CORE_LIMIT_KIB)]
    ready = READY.search(text)
    if not ready:
        return result + [Figure("core start to the first VM entry", "not said", "", False),
                         Figure("memory kept from guests", "not said", "", False)]
    start = int(ready.group(1)) * 1000
    used, free = int(ready.group(2)), int(ready.group(3))
    return result + [
        Figure("core start to the first VM entry", "%.1f M instructions" % (start / 1e6),
               "%.0f M" % (START_LIMIT / 1e6), start <= START_LIMIT),
        Figure("memory kept from guests", "%d KiB (%d used)" % (used + free, used), "%d KiB" % MEMORY_LIMIT_KIB,
               used + free <= MEMORY_LIMIT_KIB)]


def mitigations(text):
    found = MITIGATIONS.search(text)
    return found.group(1).strip() if found else "none that the core tells of"


def boot(kernel):
    """A kernel's way from its entry to /init, in a VM of one vCPU against the bare emulator, as a Figure."""
    sys.path.insert(0, os.path.join(ui.ROOT, "tests", "rig"))
    import rig  # pylint: disable=import-outside-toplevel,cyclic-import
    build.loader()
    native = rig.native_boot_ticks(kernel, QUIET)
    disk = rig.linux_image("cost-" + kernel, kernel, cmdline=QUIET)
    with rig.Boot("cost-" + kernel, disk) as machine:
        # A VM's TSC begins with 0 when the VM does, as after a power-on.
        ours = rig.ticks(machine, r"^bulkhead-guest: init tsc=(\d+)\n", 300)
    ratio = ours / native
    return Figure("boot of Linux %s to /init" % kernel, "%.0f M instructions, natively %.0f M: %.3f times"
                  % (ours / 1e6, native / 1e6, ratio), "%.2f times" % BOOT_RATIO_LIMIT, 0 < ratio <= BOOT_RATIO_LIMIT)


def table(costs):
    form = "%-34s %14s %14s %8s %6s %9s %s"
    lines = [form % ("instructions, exit to entry", "KVM 6.1 off", "best peer", "at most", "aim", "Bulkhead", "")]
    for row in ROWS:
        cost = costs.get(row.name)
        mark = "not measured" if cost is None else "OVER" if cost > row.limit else "aim" if cost <= row.aim else "ok"
        lines.append(form % (row.title, row.kvm, row.peer, row.limit, row.aim, "-" if cost is None else cost, mark))
    lines.append("")
    titles = {name: (title, kvm, peer) for name, title, kvm, peer in MORE}
    known = {row.name for row in ROWS}
    for name, cost in costs.items():
        if name not in known:
            lines.append(form % (*titles.get(name, (name, "", "")), "", "", cost, ""))
    return "\n".join(line.rstrip() for line in lines)


def figure_table(entries):
    return "\n".join("%-34s %s%s" % (entry.title, entry.ours, ", at most %s%s"
                                    % (entry.limit, "" if entry.ok else " OVER") if entry.limit else "")
                     for entry in entries)


def over(costs, entries):
    """The titles of what is over its limit or was not measured."""
    return [row.title for row in ROWS if costs.get(row.name) is None or costs[row.name] > row.limit] + \
           [entry.title for entry in entries if not entry.ok]


def main(arguments):
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description="Measures exits in the emulator, in instructions, one CPU, and shows them "
        "beside KVM 6.1 (mitigations off) and the best other hypervisor; also the core's size, memory and start.")
    parser.add_argument("--check", action="store_true", help="exit with 1 if something is over its limit or could "
                        "not be measured; includes --boot")
    parser.add_argument("--boot", nargs="?", metavar="KERNEL", const=BOOT_KERNEL, help="also boot a kernel of "
                        "Debian's in a VM and without a hypervisor (default: %(const)s; about a minute)")
    parser.add_argument("--cpu-model", metavar="MODEL", default=bochs.CPU_MODEL, help="the CPU to emulate (default: "
                        "%(default)s)")
    options = parser.parse_args(arguments)
    if not bochs.find():
        raise ui.Failure("there is no Bochs: run scripts/setup")
    with ui.step("measuring"):
        result = run(options.cpu_model)
    entries = figures(result.text)
    kernel = options.boot or (BOOT_KERNEL if options.check else None)
    if kernel:
        with ui.step("booting Linux %s, natively and in a VM" % kernel):
            entries.append(boot(kernel))
    print(table(result.costs))
    print()
    print(figure_table(entries))
    print("speculation mitigations, in these figures: " + mitigations(result.text))
    missed = over(result.costs, entries)
    if options.check and missed:
        ui.say("over the limit or missing: " + ", ".join(missed))
        return 1
    return 0


if __name__ == "__main__":
    ui.main(main)
