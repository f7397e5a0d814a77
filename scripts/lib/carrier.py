"""The carrier: a small Linux with KVM and QEMU that runs inside Bochs, where a machine has no VT-x of its own. Made of
Debian's packages only, and kept in the cache: a root file system (read-only at run time, so that it serves any number of
runs), and a disk from which the firmware boots the kernel. Where there is VT-x, its QEMU serves alone: Debian 12's has no igb."""
import os
import shutil
import stat
import struct
import tempfile

import cache
import debian
import efi_app
import guests
import image
import ui

SOURCE = os.path.join(ui.ROOT, "tests", "rig", "carrier")
MSRS = os.path.join(ui.ROOT, "tests", "rig", "native", "msrs.def")  # Linux reads some that Bochs lacks, without a guard
LOADER = "tests/rig/native/native_boot.c"
# The oldest release whose QEMU has an igb with working VFs (10.0.6 repaired BARs above 4 GiB).
SUITE = "trixie"
PACKAGES = ("qemu-system-x86", "ovmf", "iproute2", "busybox-static", "dash", "ethtool")
# Not needed to run programs, and half of the size.
UNWANTED = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/icons", "usr/share/bash-completion",
            "usr/share/lintian", "usr/share/applications", "usr/share/perl", "usr/lib/x86_64-linux-gnu/perl-base", "usr/share/zoneinfo")
# What an exit costs counts three times here: 6.1 is cheaper than 6.12, and its cloud flavour has all that is needed.
KERNEL = "6.1-cloud"
# crc32c_generic: ext4 asks for it by name when it mounts.
MODULES = ("crc32c_generic", "ata_piix", "sd_mod", "ext4", "tun", "bridge", "kvm-intel")
MODULE_OPTIONS = {
    # Bochs wants the posted-interrupt descriptor page-aligned, and the rig may run on a Bochs without our patch.
    "kvm-intel": "enable_apicv=0 nested=1",
    # One CPU carries it all: waiting in a loop for a vCPU's next interrupt takes time from the others.
    "kvm": "halt_poll_ns=0",
}
# The firmware in Bochs has no ACPI tables, and CPUID overstates the TSC's frequency. Kernel messages go to the third
# serial port: the first is the console of the machine inside, the second takes commands.
COMMAND_LINE = ("console=ttyS2,115200 tsc=reliable tsc_early_khz=%(khz)d mitigations=off nokaslr "
                "cryptomgr.notests intel_pstate=disable transparent_hugepage=always random.trust_cpu=on audit=0 panic=1")


def _file(path):
    with open(path, "rb") as file:
        return file.read()


def tree():
    """Directory with Debian's packages unpacked, nothing of them run: a root file system, and QEMU for this machine too."""
    target = cache.directory("carrier-" + cache.key(SUITE, PACKAGES, UNWANTED))
    with cache.lock("carrier"):
        if not os.path.exists(target):
            with ui.step("preparing the nested rig: QEMU and what it needs from Debian, once"), \
                    tempfile.TemporaryDirectory(dir=cache.directory(), prefix="carrier-") as work:
                _unpack_all(work, target)
    return os.path.join(target, "tree")


def _unpack_all(work, target):
    staging = os.path.join(work, "result")
    unpacked = os.path.join(staging, "tree")
    for name in ("dev", "proc", "sys", "run", "tmp", "etc", "root", "mnt", "var", *("usr/" + d for d in ("bin", "sbin", "lib", "lib64"))):
        os.makedirs(os.path.join(unpacked, name))
    for name in ("bin", "sbin", "lib", "lib64"):
        os.symlink("usr/" + name, os.path.join(unpacked, name))
    packages = debian.closure(PACKAGES, SUITE, work)
    for package in packages:
        guests.unpack(package, unpacked)
    for name in UNWANTED:
        shutil.rmtree(os.path.join(unpacked, name), ignore_errors=True)
    with open(os.path.join(staging, "packages"), "w", encoding="ascii") as file:
        file.writelines(os.path.basename(package) + "\n" for package in packages)
    guests.publish(staging, target)


def root():
    """Path of the root file system as the image of a disk."""
    source = tree()
    path = os.path.join(os.path.dirname(source), "root.img")
    with cache.lock("carrier"):
        if not os.path.exists(path):
            size = int(ui.command(["du", "-sm", source]).split()[0])
            ui.command(["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-E", "root_owner=0:0", "-d", source, path + ".part",
                        "%dM" % (size * 5 // 4 + 16)], env=dict(os.environ, PATH=os.environ.get("PATH", "") + ":/usr/sbin:/sbin"),
                       what="making the carrier's root file system")
            os.rename(path + ".part", path)
    return path


def _initrd(modules):
    archive = guests.Cpio()
    for directory in ("bin", "dev", "modules", "proc", "sys", "root"):
        archive.add(directory, stat.S_IFDIR | 0o755)
    archive.add("dev/console", stat.S_IFCHR | 0o600, major=5, minor=1)
    archive.add("bin/busybox", stat.S_IFREG | 0o755, guests.busybox()[1])
    archive.add("init", stat.S_IFREG | 0o755, _file(os.path.join(SOURCE, "init")))
    for name in sorted(os.listdir(modules)):
        archive.add("modules/" + name, stat.S_IFREG | 0o644, _file(os.path.join(modules, name)))
    options = "".join("%s %s\n" % pair for pair in sorted(MODULE_OPTIONS.items()))
    archive.add("modules/options", stat.S_IFREG | 0o644, options.encode())
    return archive.finish()


def _madt():
    """ACPI's table of interrupt controllers (specification 6.5, 5.2.12) for Bochs: one local APIC, an IOAPIC (its id is the
    number of CPUs), the timer at its input 2."""
    body = struct.pack("<II", 0xFEE00000, 1)                      # flags: there is a PIC as well
    body += struct.pack("<BBBBI", 0, 8, 0, 0, 1)                  # local APIC, enabled
    body += struct.pack("<BBBBII", 1, 12, 1, 0, 0xFEC00000, 0)
    body += struct.pack("<BBBBIH", 2, 10, 0, 0, 2, 0)             # interrupt source override: IRQ 0 is input 2
    header = struct.pack("<4sIBB6s8sI4sI", b"APIC", 36 + len(body), 3, 0, b"BLKHD ", b"CARRIER ", 1, b"BLKH", 1)
    return header[:9] + bytes([-sum(header + body) & 0xFF]) + header[10:] + body


def boot_disk(khz):
    """Path of the disk that the firmware boots: kernel, initramfs, command line. khz: the TSC's frequency in Bochs."""
    modules = guests.modules(KERNEL, MODULES)
    initrd = _initrd(modules)
    command_line = COMMAND_LINE % {"khz": khz}
    files = {"initrd.img": initrd, "cmdline": command_line.encode() + b"\n", "madt": _madt()}
    target = cache.directory("carrier-boot-" + cache.key(guests.kernel(KERNEL), files, _file(os.path.join(ui.ROOT, LOADER))))
    path = os.path.join(target, "boot.img")
    with cache.lock("carrier"):
        if os.path.exists(path):
            return path
        with tempfile.TemporaryDirectory(dir=cache.directory(), prefix="carrier-") as work:
            staging = os.path.join(work, "result")
            os.mkdir(staging)
            for name, content in files.items():
                with open(os.path.join(work, name), "wb") as file:
                    file.write(content)
            loader = efi_app.build(work, "native_boot", [LOADER])
            image.write(os.path.join(staging, "boot.img"), [
                ("EFI/BOOT/BOOTX64.EFI", loader), ("vmlinuz", guests.kernel(KERNEL)),
                *((name, os.path.join(work, name)) for name in files)])
            guests.publish(staging, target)
    return path
