"""Witnesses: guests that nobody here wrote, from Debian's packages. Each is a VM with what it must say beside it;
docs/witnesses.md has the table."""
import os
import re

import guests
import image
import rig
import witnesses

MEMTEST_SECONDS = 900  # wall time on a busy machine


# ---- GNU Mach, and Xen with a Linux of its own ----

KERNELS = """[vm xen]
cpus = 0
memory = 448M
kernel = xen
cmdline = xen com1=115200,8n1 console=com1 loglvl=all dom0_mem=256M
module = vmlinuz console=hvc0 quiet
module = initrd.img

[vm mach]
cpus = 1
memory = 32M
kernel = gnumach
cmdline = gnumach console=com0
"""

# What each line says was got right.
XEN_LINES = (
    ("the memory map", r"\(XEN\) System RAM: 447MB"),
    ("ACPI's tables", r"\(XEN\) ACPI: HPET .* BULKHD"),
    ("the IOAPIC", r"\(XEN\) IOAPIC\[0\]: apic_id 0, version 32, address 0xfec00000, GSI 0-23"),
    ("configuration space by ECAM", r"\(XEN\) PCI: Using MCFG for segment 0000 bus 00-ff"),
    ("the HPET, as its clock", r"\(XEN\) Platform timer is 100\.000MHz HPET"),
    ("the timer's interrupt by the IOAPIC", r"\(XEN\) \.\.TIMER: vector=0xF0 apic1=0 pin1=2"),
    ("the TSC deadline timer", r"\(XEN\) TSC deadline timer enabled"),
    ("its dom0", r"\(XEN\) \*\*\* Building a PV Dom0 \*\*\*"),
)
MACH_LINES = (
    ("the memory map", r"biosmem: 000000000000100000:000000000002000000, available"),
    ("the clock of the date", r"RTC time is 20\d\d-\d\d-\d\d"),
    # There is no Hurd for this processor to give it: this is its last word.
    ("its way to the first program", r"bootstrap_create: No bootstrap code loaded with the kernel!"),
)


def _check_lines(t, boot, name, lines):
    for what, pattern in lines:
        match = re.search(pattern, boot.text)
        t.check(match is not None, "witness %s: %s" % (name, what), match.group(0) if match else "")


def _counts(rows):
    """The counts of the first CPU in rows of /proc/interrupts."""
    return [int(number) for number in re.findall(r"^ *\w+: +(\d+)", rows, re.M)]


def _dom0(t, boot):
    boot.ready(400)
    boot.expect(rig.PROMPT, 60)
    _check_lines(t, boot, "Xen", XEN_LINES)
    seen = boot.output("cat /sys/hypervisor/type /sys/hypervisor/version/major /sys/hypervisor/version/minor").split()
    t.check(seen == ["xen", "4", "17"], "witness Xen: Debian's 6.1 as dom0, to its shell", "%s, %.0f s" % (seen, boot.seconds()))
    events = sum(_counts(boot.output("grep xen-dyn /proc/interrupts")))
    t.check(events > 0, "witness Xen: dom0 gets events", "%d" % events)
    boot.send("poweroff")
    boot.expect(r"xen: stopped: the guest powered off", 120)
    t.check(True, "witness Xen: powers its machine off")


def kernels(t):
    """Xen with Debian's kernel as its dom0, next to GNU Mach."""
    disk = rig.disk("witness-kernels", KERNELS, [
        ("xen", witnesses.path("xen")), ("gnumach", witnesses.path("gnumach")), ("vmlinuz", guests.kernel("6.1")),
        ("initrd.img", rig.initramfs())])
    with rig.Boot("witness-kernels", disk, cpus=2, memory=832) as boot:
        _dom0(t, boot)
        boot.type(rig.KEY + "2")
        boot.expect(r"--- mach \(2\)", 30)
        boot.expect(MACH_LINES[-1][1], 60)
        t.check("GNU Mach 1.8" in boot.text, "witness GNU Mach: starts")
        _check_lines(t, boot, "GNU Mach", MACH_LINES)


# ---- memtest86+ ----

MEMTEST = """[vm memtest]
cpus = 0
memory = 32M
kernel = memtest
cmdline = console=ttyS0,115200 nobench
"""


def memtest(t):
    """A pass over 32 MiB. Its menu takes test 10 out: that one writes, waits for minutes in a loop, and reads again."""
    disk = rig.disk("witness-memtest", MEMTEST, [("memtest", witnesses.path("memtest"))])
    with rig.Boot("witness-memtest", disk, memory=256) as boot:
        boot.expect(r"Memtest86\+ v6", 120)
        for keys, answer in (("1", "Test selection"), ("1", "Remove one test"), ("2", "Enter test"), ("10\r", "Remove one test"),
                             ("0", "Test selection"), ("0", "Status: Testing")):
            boot.type(keys)
            boot.expect(answer, 120)
        t.check(True, "witness memtest86+: its menu by serial port")
        match = boot.expect(r"Pass: +1 +Errors: (\d+)", MEMTEST_SECONDS)
        # The screen is sent every two seconds: tests 1 and 2 are shorter than that.
        tests = sorted({int(number) for number in re.findall(r"#(\d+) +\[", boot.text)})
        t.check(match.group(1) == "0" and set(tests) >= {0, *range(3, 10)} and 10 not in tests,
                "witness memtest86+: a pass over 32 MiB without errors",
                "tests %s, %.0f s" % (tests, boot.seconds()))


# ---- what a BIOS boots: GRUB from a disk, iPXE from a CD ----

BIOS = """[vm grub]
cpus = 0
memory = 256M
firmware = seabios
disk0 = ramdisk grub.img
disk1 = ramdisk debian.img

[vm ipxe]
cpus = 1
memory = 64M
firmware = seabios
cdrom0 = ramdisk ipxe.iso
"""
MENU_ENTRY = "Debian from the second disk"
MENU = """set timeout=-1
set root=(hd1,gpt1)
menuentry '%s' {
    linux /vmlinuz console=ttyS0,115200 quiet
    initrd /initrd.img
}
""" % MENU_ENTRY
BIOS_KEYS = 8  # a BIOS keeps 15 keys that nobody has read yet, and drops what follows


def _type_line(boot, line):
    """To a program that echoes, and reads its keys from a BIOS."""
    for at in range(0, len(line), BIOS_KEYS):
        piece = line[at:at + BIOS_KEYS]
        boot.type(piece)
        boot.expect(re.escape(piece), 60)
    boot.type("\r")


def _debian_disk():
    """A disk with a kernel, and a menu for GRUB."""
    where = rig.directory("witness-debian")
    menu = os.path.join(where, "grub.cfg")
    with open(menu, "w", encoding="ascii") as file:
        file.write(MENU)
    disk = os.path.join(where, "debian.img")
    image.write(disk, [("vmlinuz", guests.kernel("6.1")), ("initrd.img", rig.initramfs()), ("grub.cfg", menu)])
    return disk


def _grub(t, boot):
    boot.expect(r"GNU GRUB  version 2\.06", 120)
    boot.expect(r"GNU/Linux +[^*]*Memtest86\+", 60)
    t.check(True, "witness GRUB: from its boot sector on a disk to its menu", "%.0f s" % boot.seconds())
    boot.type("c")
    boot.expect(r"grub> ", 60)
    _type_line(boot, "ls")
    match = boot.expect(r"\(hd0\).*\(hd1,gpt1\)", 60)
    t.check(True, "witness GRUB: both disks", match.group(0))
    _type_line(boot, "configfile (hd1,gpt1)/grub.cfg")
    boot.expect(r"\*" + MENU_ENTRY, 60)
    boot.type("\r")
    boot.ready(400)
    boot.expect(rig.PROMPT, 60)
    t.check("BOOT_IMAGE=/vmlinuz" in boot.output("cat /proc/cmdline"), "witness GRUB: Debian's 6.1 from a disk to its shell",
            "%.0f s" % boot.seconds())
    boot.send("poweroff")
    boot.expect(r"grub: stopped: the guest powered off", 120)


def _ipxe(t, boot):
    boot.expect(r"iPXE 1\.0\.0.* Open Source Network Boot Firmware", 200)
    t.check(True, "witness iPXE: from a CD, by ISOLINUX, to its banner", "%.0f s" % boot.seconds())
    # Its BIOS begins again after a minute when nothing could be booted: this is one of its lives.
    boot.expect(r"No more network devices", 200)
    t.check(True, "witness iPXE: sees that there is no network card")


def bios(t):
    """GRUB and iPXE, under SeaBIOS, from disks in memory."""
    disk = rig.disk("witness-bios", BIOS, [("seabios", witnesses.path("seabios")), ("grub.img", witnesses.path("grub")),
                     ("debian.img", _debian_disk()), ("ipxe.iso", witnesses.path("ipxe"))])
    with rig.Boot("witness-bios", disk, cpus=2, memory=704) as boot:
        _grub(t, boot)
        boot.type(rig.KEY + "2")
        boot.expect(r"--- ipxe \(2\)", 30)
        _ipxe(t, boot)
