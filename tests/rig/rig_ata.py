"""The IDE controller: a Linux with its stock drivers makes a file system on a ramdisk, reboots, and finds it again; it
reads a CD; files that are no disks are refused."""
import hashlib
import os
import struct

import guests
import image
import build
import rig

KERNEL = "6.1"
MODULES = ("ata-piix", "sd-mod", "sr-mod", "isofs", "crc32c-generic", "ext4")
LOAD_MODULES = "for m in /modules/*.ko; do insmod $m || echo $m: cannot be loaded; done"
DISK_MIB = 8
CD_FILE = bytes(n * n >> 7 & 255 for n in range(150000))

CONFIG = """[machine]
console = serial
[vm ide]
cpus = 0
memory = 256M
kernel = vmlinuz
initrd = vm.img
cmdline = console=ttyS0,115200 quiet
disk0 = ramdisk disk.img
cdrom0 = ramdisk cd.iso
"""

SECTOR = 2048


def _both(number, code):
    """ISO 9660, 7.2.3 and 7.3.3: both byte orders."""
    return struct.pack("<" + code, number) + struct.pack(">" + code, number)


def _record(name, block, size, flags):
    """ISO 9660, 9.1."""
    length = 33 + len(name) + (1 - len(name) % 2)
    return (bytes((length, 0)) + _both(block, "I") + _both(size, "I") + bytes(7) + bytes((flags, 0, 0)) + _both(1, "H") +
            bytes((len(name),)) + name).ljust(length, b"\0")


def iso(name, content):
    """The smallest ISO 9660 image with one file: descriptors, two path tables, the root directory, the file."""
    blocks = -(-len(content) // SECTOR)
    total = 22 + blocks
    root = _record(b"\0", 20, SECTOR, 2)
    directory = root + _record(b"\1", 20, SECTOR, 2) + _record(name, 22, len(content), 0)
    primary = (b"\1CD001\1\0" + b" " * 32 + b"BULKHEAD".ljust(32) + bytes(8) + _both(total, "I") + bytes(32) + _both(1, "H") * 2 +
               _both(SECTOR, "H") + _both(10, "I") + struct.pack("<II", 18, 0) + struct.pack(">II", 19, 0) + root +
               b" " * (128 * 4 + 37 * 3) + (b"0" * 16 + b"\0") * 4 + b"\1\0")
    path = b"\1\0%s\1\0\0\0"
    sectors = [primary, b"\xffCD001\1", path.replace(b"%s", struct.pack("<I", 20)), path.replace(b"%s", struct.pack(">I", 20)),
               directory, b""]
    return bytes(16 * SECTOR) + b"".join(s.ljust(SECTOR, b"\0") for s in sectors) + content.ljust(blocks * SECTOR, b"\0")


def _disk(name, config, contents):
    """An image with this configuration and these files besides the kernel and its initrd."""
    where = rig.directory("ata-" + name)
    files = [("EFI/BOOT/BOOTX64.EFI", build.LOADER), ("vmlinuz", guests.kernel(KERNEL))]
    initrd = os.path.join(where, "vm.img")
    with open(initrd, "wb") as file, open(rig.initramfs(), "rb") as source:
        content = source.read()
        file.write(content + bytes(-len(content) % 4))  # Linux finds the next archive on a multiple of 4
        file.write(guests.modules_archive(KERNEL, MODULES))
    files.append(("vm.img", initrd))
    for path, data in {"bulkhead.conf": config.encode(), **contents}.items():
        host = os.path.join(where, path)
        with open(host, "wb") as file:
            file.write(data)
        files.append((path, host))
    out = os.path.join(where, "disk.img.boot")
    image.write(out, files)
    return out


def session(t):
    """Two lives of one VM, in one machine."""
    disk = _disk("linux", CONFIG, {"disk.img": bytes(DISK_MIB << 20), "cd.iso": iso(b"DATA.BIN;1", CD_FILE)})
    with rig.Boot("ata-linux", disk, memory=640) as boot:
        boot.ready(180)
        boot.run(LOAD_MODULES, 120)
        t.check(boot.output("cat /sys/block/sda/size") == str(DISK_MIB * 2048), "ata: the disk has its size")
        log = boot.output("dmesg | grep -E 'ata|sr0|scsi|piix'", 60)
        t.check("ata1.00: ATA-6: Bulkhead RAM disk, 1.0, max MWDMA2" in log, "ata: libata drives the disk by DMA", log)
        t.check("ATAPI: Bulkhead RAM CD-ROM" in log, "ata: and the CD-ROM drive")
        boot.run("mkdir -p /mnt /cd && mke2fs /dev/sda && mount /dev/sda /mnt", 120)
        boot.run("dd if=/dev/urandom of=/mnt/file bs=64k count=16 && umount /mnt && mount /dev/sda /mnt", 120)
        first = boot.output("md5sum < /mnt/file", 120)
        boot.run("umount /mnt")
        boot.run("mount -t iso9660 /dev/sr0 /cd", 60)
        cd = boot.output("md5sum < /cd/data.bin", 60)
        t.check(hashlib.md5(CD_FILE).hexdigest() in cd, "ata: a CD's file is read", cd)
        complaints = boot.output("dmesg | grep -E 'ata.*(exception|failed|timeout|reset)|I/O error'", 60)
        t.check(not complaints.strip(), "ata: no complaints of the driver", complaints)
        boot.send("reboot")
        boot.ready(180)
        boot.run(LOAD_MODULES, 120)
        boot.run("mkdir -p /mnt && mount /dev/sda /mnt", 60)
        second = boot.output("md5sum < /mnt/file", 120)
        t.check(len(first) > 30 and first == second, "ata: the disk keeps its content over a reboot", "%s, %s" % (first, second))
        boot.send("poweroff")
        t.check(boot.wait_off(60), "ata: powers off", "%.0f s" % boot.seconds())


def refusals(t):
    """What the loader says of files that are no disks."""
    disk = _disk("refused", CONFIG, {"disk.img": bytes(1000), "cd.iso": bytes(SECTOR)})
    with rig.Boot("ata-refused", disk, memory=640) as boot:
        boot.expect(r"bulkhead\.conf:9:17: disk 'disk\.img': a disk's size must be a multiple of 512 bytes", 120)
        t.check(True, "ata: a disk of 1000 bytes is refused")
