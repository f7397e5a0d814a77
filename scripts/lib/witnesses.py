"""Guests that nobody here wrote, beside Debian's kernels (guests.py): out of Debian's packages, unpacked once into the
cache, nothing of them installed or run on this machine. What they are seen to do: docs/witnesses.md."""
import gzip
import os
import tempfile

import cache
import debian
import guests
import ui

# name: (package, its version begins with, the file in it)
FILES = {
    "xen": ("xen-hypervisor-4.17-amd64", "4.17.", "boot/xen-4.17-amd64.gz"),
    "gnumach": ("gnumach-image-1.8-486", "2:1.8+git2022", "boot/gnumach-1.8-486.gz"),
    "memtest": ("memtest86+", "6.", "boot/memtest86+x64.bin"),
    "grub": ("grub-rescue-pc", "2.06-13", "usr/lib/grub-rescue/grub-rescue-cdrom.iso"),
    "ipxe": ("ipxe", "1.0.0+git-2019", "usr/lib/ipxe/ipxe.iso"),
    "seabios": ("seabios", "1.16.", "usr/share/seabios/bios-256k.bin"),
    "uboot-x86_64": ("u-boot-qemu", "2023.01", "usr/lib/u-boot/qemu-x86_64/u-boot.rom"),
    "uboot-x86": ("u-boot-qemu", "2023.01", "usr/lib/u-boot/qemu-x86/u-boot.rom"),
}


def path(name):
    """Path of a witness' file, uncompressed; downloads its package once."""
    package, version, inside = FILES[name]
    target = cache.directory("witnesses", cache.key(name, FILES[name]))
    file = os.path.join(target, name)
    with cache.lock("witnesses"):
        if not os.path.exists(file):
            with ui.step("downloading %s from Debian, once" % package):
                _fetch(name, package, version, inside, target)
    return file


def _fetch(name, package, version, inside, target):
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache.directory(), prefix="witness-") as work:
        newest = debian.newest(package, version)
        guests.unpack(debian.download(package, newest, work), work, "./" + inside)
        staging = os.path.join(work, "result")
        os.mkdir(staging)
        with open(os.path.join(work, inside), "rb") as file:
            content = file.read()
        with open(os.path.join(staging, name), "wb") as file:
            file.write(gzip.decompress(content) if inside.endswith(".gz") else content)
        with open(os.path.join(staging, "package"), "w", encoding="ascii") as file:
            file.write("%s %s\n" % (package, newest))
        guests.publish(staging, target)
