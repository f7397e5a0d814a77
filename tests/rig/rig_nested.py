"""What scripts/test nested boots: cases on QEMU's machine with VT-d and virtual functions (scripts/lib/nested.py), on two
carriers at the same time. A case is a function that takes a Report and the carrier."""
import functools
import os
import re
import time
import traceback

import build
import guests
import nested
import rig
import rig_demo
import rig_multiboot
import rig_probe
import rigs
import ui

MEMORY = 640                     # MiB of the largest machine of a case
BOOT_SECONDS = 300
KEYS_APART = 2                   # s; then the serial port has long been quiet
LOAD_MODULES = "for m in /modules/*.ko; do insmod $m || echo $m: cannot be loaded; done"


class Boot(rig.Session):
    """A machine on the carrier: send() and expect() are Bulkhead's console, self.carrier the world around the machine."""

    def __init__(self, carrier, name, image_path, cpus=1, memory=384, iommu=nested.IOMMU):
        self.carrier = carrier
        super().__init__("nested-" + name, lambda: carrier.start(image_path, cpus, memory, iommu))

    def ask(self, command, pattern, timeout=60):
        """A command at Bulkhead's prompt; answers the match of what it prints."""
        self.to_prompt(timeout)
        self.type(command + "\r")
        return self.expect(pattern, timeout)

    def operator(self, command, pattern, timeout=60):
        """The same, and back to the VM in front."""
        match = self.ask(command, pattern, timeout)
        self.type(rig.KEY + "1")
        return match


def vm(name, cpus, memory, *lines):
    return "[vm %s]\ncpus = %s\nmemory = %s\n%s\n" % (name, cpus, memory, "\n".join(lines))


def disk(name, config, kernels=None, modules=()):
    """An image: the configuration, the initramfs as initrd.img, and kernels: {file name: name in guests.KERNELS, or a path}.
    With modules (names), there is KERNEL.img for each of Debian's kernels: the initramfs, and what LOAD_MODULES loads."""
    where = rig.directory("nested-%s-files" % name)
    files = []
    for target, kernel in (kernels or {}).items():
        files.append((target, guests.kernel(kernel) if kernel in guests.KERNELS else kernel))
        if modules and kernel in guests.KERNELS:
            files.append((target + ".img", _with_modules(where, target, kernel, modules)))
    if "initrd.img" in config:
        files.append(("initrd.img", rig.initramfs()))
    return rig.disk("nested-" + name, config, files)


def _with_modules(where, target, kernel, modules):
    path = os.path.join(where, target + ".img")
    with open(path, "wb") as file, open(rig.initramfs(), "rb") as source:
        content = source.read()
        file.write(content + bytes(-len(content) % 4))  # Linux finds the next archive on a multiple of 4
        file.write(guests.modules_archive(kernel, modules))
    return path


def preflight(t, carrier):
    """The smallest machine: what the preflight says of it, a guest that checks itself, the power goes off."""
    out = disk("small", "[machine]\nconsole = serial\n" + vm("hello", "0", "16M", "kernel = hello.elf", "cmdline = poweroff"),
               {"hello.elf": rig_multiboot.guest("multiboot_hello.elf")})
    with Boot(carrier, "small", out, memory=256) as boot:
        boot.expect(r"^Bulkhead loader", 120)
        boot.expect(r"^Starting the core", 60)
        for what in ("VT-x", "EPT, 4 levels, write-back", "unrestricted guest", "VPID", "ACPI tables", r"VT-d \(DMAR table\)"):
            t.check(boot.seen(r"^  ok  +%s  " % what), "nested: preflight: %s" % what.replace("\\", ""))
        t.check(boot.seen(r"^  ok +CPUs +1 found \(MP Services\)"), "nested: preflight: one CPU")
        t.check(boot.seen(r"^  ok +PCI functions +\d+, of which 3 assignable; 2 with SR-IOV \(10 VFs\)"), "nested: preflight: PCI functions")
        for device in (r"01:00\.0  8086:10c9  Ethernet controller +group \d+ +assignable; 8 VFs",
                       r"02:00\.0  1b36:0010  NVMe controller +group \d+ +assignable; 2 VFs",
                       r"03:00\.0  8086:10d3  Ethernet controller +group \d+ +assignable$",
                       r"00:1f\.2  8086:2922  SATA controller +group \d+ +cannot be reset alone"):
            t.check(boot.seen("^  " + device), "nested: preflight: " + device.split()[0].replace("\\", ""))
        off = boot.wait_off(60)
        t.check(boot.seen(r"core: \d+ PCI functions; bus mastering taken from [1-9]"), "nested: the core finds PCI functions, and takes bus mastering")
        t.check(off and boot.seen("^bye") and not boot.seen("check FAILED|PANIC"), "nested: a small guest runs, and the machine powers off",
                "%.0f s" % boot.seconds())


REFUSED = (  # (VM, what it asks for, why it does not get it)
    ("index", "disk0 = nvme-vf pf=02:00.0 namespace=1 index=5", r"02:00\.0 has no VF 5 for it: its VFs are 0 to 1"),
    ("absent", "net0 = vf pf=05:00.0", r"this machine has no PCI function 05:00\.0"),
    ("plain", "net0 = vf pf=03:00.0", r"03:00\.0 has no SR-IOV"),
    ("group", "pci = 00:1f.2", r"00:1f\.2 (is not isolated|cannot be reset)"),
)


def refused(t, carrier):
    """VMs that ask for what there is not, each with its sentence, beside one that starts all the same."""
    hello = ("kernel = hello.elf", "cmdline = poweroff")
    config = "".join(vm(name, str(cpu), "8M", *hello, asks) for cpu, (name, asks, _) in enumerate(REFUSED))
    out = disk("refused", config + vm("calm", str(len(REFUSED)), "8M", *hello), {"hello.elf": rig_multiboot.guest("multiboot_hello.elf")})
    with Boot(carrier, "refused", out, cpus=len(REFUSED) + 1, memory=256) as boot:
        off = boot.wait_off(BOOT_SECONDS)
        for name, asks, why in REFUSED:
            t.check(boot.seen(r"\] %s: ERROR: .*%s" % (name, why)), "nested: refused: " + asks)
        t.check(off and boot.seen(r"calm: stopped: the guest powered off"), "nested: refused: the other VM starts, and ends the machine",
                "%.0f s" % boot.seconds())


def _slow_keys(t, boot):
    """Keys with pauses between them come by the serial port's interrupt, through the IOAPIC and the IOMMU; when eight in turn did
    not, Bulkhead says so and polls. At its prompt."""
    for _ in range(12):
        time.sleep(KEYS_APART)
        boot.type("\r")
        boot.expect(rig.OPERATOR, 60)
    boot.type("log 400\r")
    boot.expect(r"log 400\r?\n(?s:.*?)\nbulkhead> ", 60)
    said = set(re.findall(r"core: (?:\w+: )?(the serial port.*)", boot.text))
    t.check(len(said) == 1 and "interrupts arrive" in min(said), "nested: keys come by the serial port's interrupt", " / ".join(said))


def panic(t, carrier):
    """A panic restarts the machine, and the next start shows what the first one said: memory outlives QEMU's reset too."""
    out = disk("panic", "[machine]\nconsole = serial\non_idle = stay\non_panic = reboot\n" +
               vm("hello", "0", "16M", "kernel = hello.elf", "cmdline = poweroff"),
               {"hello.elf": rig_multiboot.guest("multiboot_hello.elf")})
    with Boot(carrier, "panic", out, cpus=2, memory=256) as boot:
        boot.expect(r"hello: stopped: the guest powered off", 180)
        boot.to_prompt()
        _slow_keys(t, boot)
        boot.type("crash yes\r")
        boot.expect(r"bulkhead: PANIC: ", 60)
        boot.expect(r"^Bulkhead loader", 180)
        t.check(True, "nested: after a panic the machine starts again", "%.0f s" % boot.seconds())
        boot.expect(r"hello: stopped: the guest powered off", 180)
        t.check(boot.seen(r"(?s)PANIC: .*Bulkhead loader.*PANIC: "), "nested: the next start shows the black box")


def hostile_vf(t, carrier):
    """A VM that has a VF and means no good: tests/rig/rig_hostile_vf.py."""
    import rig_hostile_vf  # pylint: disable=import-outside-toplevel,cyclic-import
    rig_hostile_vf.hostile_vf(t, carrier)


def functions(t, carrier):
    """Linux VMs with virtual functions: tests/rig/rig_vf.py."""
    import rig_vf  # pylint: disable=import-outside-toplevel,cyclic-import
    rig_vf.functions(t, carrier)


def whole(t, carrier):
    """A whole function in a Linux VM with two vCPUs: tests/rig/rig_whole.py."""
    import rig_whole  # pylint: disable=import-outside-toplevel,cyclic-import
    rig_whole.whole(t, carrier)


def variants(t, carrier):
    """Other VT-d units: tests/rig/rig_variants.py."""
    import rig_variants  # pylint: disable=import-outside-toplevel,cyclic-import
    rig_variants.variants(t, carrier)


# In this order. Those that share a carrier run on it one at a time; the carriers, at the same time.
CASES = [
    ("A", "functions", functions),
    ("B", "preflight", preflight),
    ("B", "refused", refused),
    ("B", "whole", whole),
    ("B", "panic", panic),
    ("B", "variants", variants),
    ("B", "hostile VF", hostile_vf),
]
# What has a carrier of its own, or none.
ALONE = [("demo", rig_demo.demo), ("probe", rig_probe.probe)]


def _guarded(t, name, function):
    """Runs a case; what it raises is a failure of the report. Says how long it took."""
    start = time.monotonic()
    try:
        function()
    except rig.Timeout as failure:
        t.check(False, "nested: " + name, str(failure))
    except Exception:  # pylint: disable=broad-except
        t.check(False, "nested: " + name, traceback.format_exc(limit=4))
    ui.say("nested: %s: %.0f s" % (name, time.monotonic() - start))


def _carrier(t, name, chosen):
    """A carrier's life."""
    start = time.monotonic()
    carrier = rigs.nested_carrier(MEMORY, kernel_log=os.path.join(rig.LOGS, "nested-carrier-%s.log" % name))
    try:
        t.check(True, "nested: carrier %s is up" % name, "%s, %.0f s" % (type(carrier).__name__, time.monotonic() - start))
        for case, function in chosen:
            try:
                _guarded(t, case, functools.partial(function, t, carrier))
            finally:
                carrier.stop()
    finally:
        carrier.close()


def tasks(t, only=None):
    """A function for each carrier, the one that works longest first."""
    groups = {}
    for name, case, function in CASES:
        if not only or only in case:
            groups.setdefault(name, []).append((case, function))
    os.makedirs(rig.LOGS, exist_ok=True)
    alone = [functools.partial(_guarded, t, case, functools.partial(function, t)) for case, function in ALONE if not only or only in case]
    return [functools.partial(_carrier, t, name, chosen) for name, chosen in groups.items()] + alone
