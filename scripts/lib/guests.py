"""Guest artefacts: Debian's kernels (into the cache) and the busybox initramfs (into the build directory)."""
import gzip
import os
import re
import shutil
import stat
import struct
import subprocess
import tempfile

import cache
import debian
import ui

# name: (package that stands for the newest one, its version)
KERNELS = {
    "6.1-cloud": ("linux-image-cloud-amd64", "6.1."),
    "6.1": ("linux-image-amd64", "6.1."),
    "6.12-cloud": ("linux-image-cloud-amd64", "6.12."),
    "6.12": ("linux-image-amd64", "6.12."),
}
DEMO_KERNEL = "6.1-cloud"
SOURCE = os.path.join(ui.ROOT, "tests", "guest", "initramfs")
DEMO = os.path.join(ui.ROOT, "build", "demo")


def kernel(name):
    """Path of an unmodified Debian kernel; downloads its package once."""
    target = cache.directory("kernels", name)
    path = os.path.join(target, "vmlinuz")
    if os.path.exists(path):
        return path
    with cache.lock("kernels"):
        if not os.path.exists(path):
            with ui.step("downloading Debian's kernel %s, once" % name):
                _fetch(name, target)
    return path


# How a bzImage's payload is compressed: its first bytes, and what undoes it.
COMPRESSIONS = ((b"\x28\xb5\x2f\xfd", ["zstd", "-dc"]), (b"\xfd7zXZ", ["xz", "-dc", "--single-stream"]),
                (b"\x02!L\x18", ["lz4", "-dc"]))


def vmlinux(name):
    """Path of the ELF file inside a kernel's bzImage, unpacked once: what the kernel's own boot code unpacks. The
    setup header says where it is (Linux: Documentation/arch/x86/boot.rst): payload_offset and payload_length, counted
    from the protected-mode code behind setup_sects + 1 sectors. Its last four bytes are the unpacked size; behind the
    ELF file are relocations, which are of no harm."""
    packed = kernel(name)
    path = os.path.join(os.path.dirname(packed), "vmlinux")
    with cache.lock("kernels"):
        if os.path.exists(path):
            return path
        with open(packed, "rb") as file:
            data = file.read()
        offset, length = struct.unpack_from("<II", data, 0x248)
        start = ((data[0x1f1] or 4) + 1) * 512 + offset
        payload = data[start:start + length]
        for magic, command in COMPRESSIONS:
            if payload.startswith(magic):
                break
        else:
            raise ui.Failure("%s: no known compression: %s" % (packed, payload[:6].hex()))
        whole = payload if command[0] == "xz" else payload[:-4]
        unpacked = subprocess.run(command, input=whole, stdout=subprocess.PIPE, check=True).stdout
        if not unpacked.startswith(b"\x7fELF") or len(unpacked) != struct.unpack("<I", payload[-4:])[0]:
            raise ui.Failure("%s: its payload is no vmlinux" % packed)
        with open(path + ".new", "wb") as file:
            file.write(unpacked)
        os.rename(path + ".new", path)
    return path


def unpack(package, target, *patterns):
    """Takes the files out of a Debian package, all or those that match."""
    stream = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE)
    done = subprocess.run(["tar", "-x", "-C", target, "--keep-directory-symlink", "--no-same-owner", "--no-same-permissions",
                           *(["--wildcards", *patterns] if patterns else [])],
                          stdin=stream.stdout, stderr=subprocess.PIPE, check=False)
    stream.stdout.close()
    if stream.wait() != 0 or done.returncode != 0:
        raise ui.Failure("%s cannot be unpacked: %s" % (package, done.stderr.decode("utf-8", "replace")[-300:]))


def publish(staging, target):
    """Puts a complete directory in its place in the cache."""
    shutil.rmtree(target, ignore_errors=True)
    os.rename(staging, target)


def _fetch(name, target):
    package, version = debian.dependency_of(*KERNELS[name])
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache.directory(), prefix="kernel-") as work:
        unpack(debian.download(package, version, work), work, "./boot/vmlinuz-*", "./boot/config-*")
        staging = os.path.join(work, "boot")
        for entry in os.listdir(staging):
            os.rename(os.path.join(staging, entry), os.path.join(staging, entry.split("-")[0]))
        with open(os.path.join(staging, "package"), "w", encoding="ascii") as file:
            file.write("%s %s\n" % (package, version))
        publish(staging, target)


def _modules_of(work):
    """{name with dashes: path, or None when it is built in} of an unpacked kernel package."""
    found = {}
    for directory, _, names in os.walk(work):
        for name in names:
            if name.endswith((".ko", ".ko.xz")):
                found[name.split(".ko")[0].replace("_", "-")] = os.path.join(directory, name)
            elif name == "modules.builtin":
                with open(os.path.join(directory, name), encoding="ascii") as file:
                    for line in file.read().split():
                        found.setdefault(os.path.basename(line)[:-3].replace("_", "-"), None)
    return found


def _in_order(found, wanted, kernel_name):
    """Paths of the modules and of what they need, each after what it needs."""
    order = []

    def need(name):
        if name.replace("_", "-") not in found:
            raise ui.Failure("the kernel %s has no module %s" % (kernel_name, name))
        path = found[name.replace("_", "-")]
        if not path:
            return
        if path.endswith(".xz"):
            ui.command(["xz", "-d", path])
            path = found[name.replace("_", "-")] = path[:-3]
        with open(path, "rb") as file:
            depends = re.search(rb"\0depends=([^\0]*)\0", file.read())
        for other in depends.group(1).decode().split(",") if depends and depends.group(1) else ():
            need(other)
        if path not in order:
            order.append(path)

    for name in wanted:
        need(name)
    return order


def modules(kernel_name, wanted):
    """Directory, in the cache, with modules of a kernel and what they need, each as NN-NAME.ko in the order of loading."""
    path = kernel(kernel_name)
    with open(os.path.join(os.path.dirname(path), "package"), encoding="ascii") as file:
        package, version = file.read().split()
    target = cache.directory("modules", cache.key(package, version, tuple(wanted)))
    if os.path.exists(target):
        return target
    with cache.lock("modules"):
        if os.path.exists(target):
            return target
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache.directory(), prefix="modules-") as work:
            unpack(debian.download(package, version, work), work, "*.ko*", "*/modules.builtin")
            staging = os.path.join(work, "result")
            os.mkdir(staging)
            for index, module in enumerate(_in_order(_modules_of(work), wanted, kernel_name)):
                # Type information is most of a module, and checking it, and the signature, is most of the time to load it.
                ui.command(["objcopy", "--strip-debug", "--remove-section=.BTF", module,
                            os.path.join(staging, "%02d-%s" % (index, os.path.basename(module)))])
            publish(staging, target)
    return target


def modules_archive(kernel_name, wanted):
    """Modules as a second archive behind an initramfs: /modules/NN-NAME.ko, for `insmod` in this order."""
    archive, where = Cpio(), modules(kernel_name, wanted)
    archive.add("modules", stat.S_IFDIR | 0o755)
    for name in sorted(os.listdir(where)):
        with open(os.path.join(where, name), "rb") as file:
            archive.add("modules/" + name, stat.S_IFREG | 0o644, file.read())
    return gzip.compress(archive.finish(), 6, mtime=0)


class Cpio:
    """The "newc" archive (Linux: Documentation/driver-api/early-userspace/buffer-format.rst). Made here and not by
    cpio, so that device nodes need no root and the same files give the same bytes."""

    def __init__(self):
        self.data = bytearray()
        self.inode = 0

    def add(self, name, mode, content=b"", major=0, minor=0):
        self.inode += 1
        name_bytes = name.encode() + b"\0"
        fields = (self.inode if name != "TRAILER!!!" else 0, mode, 0, 0, 1, 0, len(content), 0, 0, major, minor,
                  len(name_bytes), 0)
        self.data += b"070701" + b"".join(b"%08X" % field for field in fields) + name_bytes
        self._pad()
        self.data += content
        self._pad()

    def _pad(self):
        self.data += bytes(-len(self.data) % 4)

    def finish(self):
        self.add("TRAILER!!!", 0)
        return bytes(self.data)


def busybox():
    for path in ("/bin/busybox", "/usr/bin/busybox"):
        if os.path.exists(path):
            with open(path, "rb") as file:
                content = file.read()
            if b"/ld-linux-x86-64.so.2\0" in content:
                raise ui.Failure("%s is not static: install busybox-static (scripts/setup)" % path)
            return path, content
    raise ui.Failure("there is no busybox: run scripts/setup (package busybox-static)")


def helper(work, name):
    """Compiles one of our own small programs, in the directory `work`: static, without a C library. Answers its bytes."""
    binary = os.path.join(work, name)
    ui.command(["gcc", "-std=gnu17", "-Os", "-Wall", "-Wextra", "-Werror", "-ffreestanding", "-nostdlib", "-static",
                "-fno-pie", "-no-pie", "-fno-stack-protector", "-Wl,--build-id=none,-z,noexecstack", "-s", "-o",
                binary, os.path.join(SOURCE, name + ".c")])
    with open(binary, "rb") as file:
        return file.read()


def initramfs(out):
    """Writes the initramfs `out`; leaves it untouched when it is right already."""
    archive = Cpio()
    for directory in ("bin", "dev", "etc", "proc", "root", "sbin", "sys", "tmp", "run"):
        archive.add(directory, stat.S_IFDIR | 0o755)
    archive.add("dev/console", stat.S_IFCHR | 0o600, major=5, minor=1)
    archive.add("dev/null", stat.S_IFCHR | 0o666, major=1, minor=3)
    path, content = busybox()
    archive.add("bin/busybox", stat.S_IFREG | 0o755, content)
    own = {}
    with tempfile.TemporaryDirectory(prefix="bulkhead-initramfs-") as work:
        for entry in sorted(os.listdir(SOURCE)):
            if entry.endswith(".c"):
                own["bin/" + entry[:-2]] = helper(work, entry[:-2])
            elif not entry.startswith("."):
                with open(os.path.join(SOURCE, entry), "rb") as file:
                    own["init" if entry == "init" else "sbin/" + entry] = file.read()
    for name, content in sorted(own.items()):
        archive.add(name, stat.S_IFREG | 0o755, content)
    applets = subprocess.run([path, "--list"], stdout=subprocess.PIPE, check=True).stdout.decode().split()
    for applet in sorted(set(applets) - {"busybox"}):
        if "sbin/" + applet not in own and "bin/" + applet not in own:
            archive.add("bin/" + applet, stat.S_IFLNK | 0o777, b"busybox")
    content = gzip.compress(archive.finish(), 9, mtime=0)
    os.makedirs(os.path.dirname(os.path.abspath(out)), exist_ok=True)
    if os.path.exists(out):
        with open(out, "rb") as file:
            if file.read() == content:
                return out
    with open(out + ".part", "wb") as file:
        file.write(content)
    os.replace(out + ".part", out)
    return out


def place(target, config, kernel_name=DEMO_KERNEL):
    """Makes a directory with `config` (a path) as bulkhead.conf, and the kernel and initramfs it names."""
    os.makedirs(target, exist_ok=True)
    shutil.copyfile(kernel(kernel_name), os.path.join(target, "vmlinuz"))
    initramfs(os.path.join(target, "initrd.img"))
    placed = os.path.join(target, os.path.basename(config))
    shutil.copyfile(config, placed)
    return placed
