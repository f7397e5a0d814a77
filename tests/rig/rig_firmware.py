"""Guests with a firmware of their own: Debian's SeaBIOS with and without a disk, and U-Boot's images for QEMU, all in one
machine."""
import os

import rig
import ui
import witnesses

BOOT_SECTOR = os.path.join(ui.ROOT, "tests", "guest", "bootsector", "bootsector.asm")
STARTS = 3    # of the disk's VM, as the boot sector counts them
CONFIG = """[vm disk]
cpus = 0
memory = 32M
firmware = seabios
disk0 = ramdisk disk.img

[vm none]
cpus = 1,4
memory = 16M
firmware = seabios
compat = qemu

[vm uboot]
cpus = 2
memory = 64M
firmware = uboot-x86_64

[vm uboot32]
cpus = 3
memory = 64M
firmware = uboot-x86
"""


def _disk_image():
    disk = os.path.join(rig.directory("firmware-guest"), "disk.img")
    ui.command(["nasm", "-f", "bin", "-o", disk, BOOT_SECTOR])
    with open(disk, "ab") as file:
        file.truncate(1 << 20)
    return rig.disk("firmware", CONFIG, [("disk.img", disk), *((name, witnesses.path(name))
                                                             for name in ("seabios", "uboot-x86_64", "uboot-x86"))])


def _front(boot, digit, name):
    boot.type(rig.KEY + digit)
    boot.expect(r"--- %s \(%s\)" % (name, digit), 60)


def _seabios_disk(t, boot):
    # Bulkhead's own lines may come before what the VM said earlier.
    for start in range(1, STARTS + 1):
        boot.expect(r"SeaBIOS \(version 1\.16", 240)
        boot.expect(r"Booting from Hard Disk", 120)
        match = boot.expect(r"drive 80 start (\d+) acpi BULKH", 60)
        t.check(int(match.group(1)) == start, "SeaBIOS: start %d boots the disk, which keeps what was written" % start, match.group(0))
    boot.expect(r"disk: stopped: the guest powered off", 60)
    t.check(boot.seen(r"disk: the guest asked for a reboot: restarting from pristine images \(restart %d\)" % (STARTS - 1)),
            "SeaBIOS: ACPI's tables are in memory, and a reboot begins at the reset vector")


def _seabios_none(t, boot):
    _front(boot, "2", "none")
    boot.expect(r"No bootable device\.", 120)
    t.check(True, "SeaBIOS: without a disk it says so, and stays")
    for what, pattern in (("its own messages, in whole lines", r"^Running on QEMU \(i440fx\)$"),
                          ("two processors", r"^Found 2 cpu\(s\) max supported 2 cpu\(s\)$"),
                          ("the memory map", r"^ +\d: 0000000000100000 - 0000000000f[0-9a-f]+ = 1 RAM$"),
                          ("the FADT, through the XSDT", r"^table\(50434146\)=0x[0-9a-f]+ \(via xsdt\)$"),
                          ("the serial port as its screen", r"^sercon: using ioport 0x3f8$")):
        t.check(boot.seen(pattern), "SeaBIOS, compat = qemu: " + what)


def _uboot(t, boot, digit, name, title):
    _front(boot, digit, name)
    for life in ("starts", "starts again after its reset command"):
        if "again" in life:
            boot.send("reset")
        boot.expect(r"^U-Boot 20\d\d", 120)
        boot.expect(r"Hit any key to stop autoboot", 180)
        boot.send("")
        boot.expect(r"^=> ", 60)
        t.check(True, "U-Boot, %s: %s" % (title, life))
    t.check(boot.seen(r"%s: the guest asked for a reboot: restarting" % name), "U-Boot, %s: its reset is a reboot" % title)
    boot.send("version")
    boot.expect(r"^U-Boot 20\d\d", 60)
    boot.send("pci")
    match = boot.expect(r"00\.01\.01 +0x8086 +0x7010", 60)
    t.check(boot.seen(r"00\.00\.00 +0x8086 +0x1237"), "U-Boot, %s: the chipset" % title, match.group(0))
    t.check(boot.seen(r"^DRAM: +64 MiB$"), "U-Boot, %s: the memory" % title)


def firmwares(t):
    with rig.Boot("firmware", _disk_image(), cpus=5, memory=400) as boot:
        _seabios_disk(t, boot)
        _seabios_none(t, boot)
        _uboot(t, boot, "3", "uboot", "64 bits")
        _uboot(t, boot, "4", "uboot32", "32 bits")
        t.check(not boot.seen(r"ERROR"), "firmware: no VM was stopped against its will")
