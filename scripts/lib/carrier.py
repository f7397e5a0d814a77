"""The carrier: a small Linux with KVM and QEMU that runs inside Bochs, where a machine has no VT-x of its own. Made of
Debian's packages only, and kept in the cache: a root file system (read-only at run time, so that it serves any number of
runs), and a disk from which the firmware boots the kernel."""
import hashlib
import os
import re
import shutil
import stat
import subprocess
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
                "transparent_hugepage=always random.trust_cpu=on audit=0 panic=1")


def _digest(*parts):
    digest = hashlib.sha256()
    for part in parts:
        digest.update(repr(part).encode() + b"\0")
    return digest.hexdigest()[:12]


def _file(path):
    with open(path, "rb") as file:
        return file.read()


def _unpack(package, target, *patterns):
    unpack = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE)
    done = subprocess.run(["tar", "-x", "-C", target, "--keep-directory-symlink", "--no-same-owner", "--no-same-permissions",
                           *(["--wildcards", *patterns] if patterns else [])],
                          stdin=unpack.stdout, stderr=subprocess.PIPE, check=False)
    unpack.stdout.close()
    if unpack.wait() != 0 or done.returncode != 0:
        raise ui.Failure("%s cannot be unpacked: %s" % (package, done.stderr.decode("utf-8", "replace")[-300:]))


def _publish(staging, target):
    shutil.rmtree(target, ignore_errors=True)
    os.rename(staging, target)


def root():
    """Path of the root file system's image: Debian's packages unpacked, without running anything of them."""
    target = cache.directory("carrier-root-" + _digest(SUITE, PACKAGES, UNWANTED, 1))
    path = os.path.join(target, "root.img")
    if os.path.exists(path):
        return path
    with cache.lock("carrier"):
        if not os.path.exists(path):
            with ui.step("preparing the nested rig's carrier (QEMU and what it needs from Debian), once"), \
                    tempfile.TemporaryDirectory(dir=cache.directory(), prefix="carrier-") as work:
                _make_root(work, target)
    return path


def _make_root(work, target):
    tree, staging = os.path.join(work, "tree"), os.path.join(work, "result")
    os.makedirs(staging)
    for name in ("dev", "proc", "sys", "run", "tmp", "etc", "root", "mnt", "var", *("usr/" + d for d in ("bin", "sbin", "lib", "lib64"))):
        os.makedirs(os.path.join(tree, name))
    for name in ("bin", "sbin", "lib", "lib64"):
        os.symlink("usr/" + name, os.path.join(tree, name))
    packages = debian.closure(PACKAGES, SUITE, work)
    for package in packages:
        _unpack(package, tree)
    for name in UNWANTED:
        shutil.rmtree(os.path.join(tree, name), ignore_errors=True)
    out = os.path.join(staging, "root.img")
    size = int(ui.command(["du", "-sm", tree]).split()[0])
    ui.command(["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-E", "root_owner=0:0", "-d", tree, out,
                "%dM" % (size * 5 // 4 + 16)], env=dict(os.environ, PATH=os.environ.get("PATH", "") + ":/usr/sbin:/sbin"),
               what="making the carrier's root file system")
    with open(os.path.join(staging, "packages"), "w", encoding="ascii") as file:
        file.writelines(os.path.basename(package) + "\n" for package in packages)
    _publish(staging, target)


def _modules():
    """Directory with the kernel modules that are loaded, each as 'NN-NAME.ko' in the order of loading."""
    kernel = guests.kernel(KERNEL)
    name, version = _file(os.path.join(os.path.dirname(kernel), "package")).decode().split()
    target = cache.directory("carrier-modules-" + _digest(name, version, MODULES))
    if os.path.exists(target):
        return target
    with cache.lock("carrier"):
        if not os.path.exists(target):
            with tempfile.TemporaryDirectory(dir=cache.directory(), prefix="carrier-") as work:
                _unpack(debian.download(name, version, work), work, "*.ko", "*/modules.builtin")
                _pick_modules(work, target)
    return target


def _pick_modules(work, target):
    found, order = {}, []
    for directory, _, names in os.walk(work):
        for name in names:
            if name.endswith(".ko"):
                found[name[:-3].replace("_", "-")] = os.path.join(directory, name)
            elif name == "modules.builtin":
                for line in _file(os.path.join(directory, name)).decode().split():
                    found[os.path.basename(line)[:-3].replace("_", "-")] = None

    def need(name):
        if name.replace("_", "-") not in found:
            raise ui.Failure("the kernel %s has no module %s" % (KERNEL, name))
        path = found[name.replace("_", "-")]
        if not path:
            return
        depends = re.search(rb"\0depends=([^\0]*)\0", _file(path))
        for other in depends.group(1).decode().split(",") if depends and depends.group(1) else ():
            need(other)
        if path not in order:
            order.append(path)

    for name in MODULES:
        need(name)
    staging = os.path.join(work, "result")
    os.mkdir(staging)
    for index, path in enumerate(order):
        shutil.copyfile(path, os.path.join(staging, "%02d-%s" % (index, os.path.basename(path))))
    _publish(staging, target)


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


def boot_disk(khz):
    """Path of the disk that the firmware boots: kernel, initramfs, command line. khz: the TSC's frequency in Bochs."""
    modules = _modules()
    initrd = _initrd(modules)
    command_line = COMMAND_LINE % {"khz": khz}
    target = cache.directory("carrier-boot-" + _digest(guests.kernel(KERNEL), initrd, command_line,
                                                       _file(os.path.join(ui.ROOT, LOADER)), 1))
    path = os.path.join(target, "boot.img")
    with cache.lock("carrier"):
        if os.path.exists(path):
            return path
        with tempfile.TemporaryDirectory(dir=cache.directory(), prefix="carrier-") as work:
            staging = os.path.join(work, "result")
            os.mkdir(staging)
            files = {"initrd.img": initrd, "cmdline": command_line.encode() + b"\n"}
            for name, content in files.items():
                with open(os.path.join(work, name), "wb") as file:
                    file.write(content)
            loader = efi_app.build(work, "native_boot", [LOADER])
            image.write(os.path.join(staging, "boot.img"), [
                ("EFI/BOOT/BOOTX64.EFI", loader), ("vmlinuz", guests.kernel(KERNEL)),
                *((name, os.path.join(work, name)) for name in files)])
            _publish(staging, target)
    return path
