"""Multiboot guests: what tests/guest/multiboot_hello finds when it starts, and files that are no kernels."""
import os
import re
import struct
import subprocess

import bochs
import build
import image
import rig
import run as run_command
import ui

MODULES = (("one.bin", b"first module", "one.bin first -x"), ("dir/two.bin", bytes(n * n >> 5 & 255 for n in range(76800)), "dir/two.bin"))
CHECKS = 15          # lines of the guest's own checks: 13, and one for each module
MEMORY = 16 << 20
REFUSED_BY = r"bulkhead\.conf:\d+:\d+: "


def guest(name):
    """Builds tests/guest/multiboot_hello and answers one of its files."""
    build.configure()
    build.ninja(["multiboot_hello"], what="building the Multiboot guest")
    return os.path.join(build.BUILD, "guest", name)


def _files(name, kernels, cmdline, more="", machine="", kernel_key="kernel"):
    """The files of a medium, (path on it, path here), with one VM for each of `kernels`, (its name, a path or the file's bytes);
    the first is the configuration."""
    where = rig.directory("multiboot-" + name)
    lines, contents, files = ["[machine]", machine], [(path, data) for path, data, _ in MODULES], []
    for cpu, (vm, kernel) in enumerate(kernels):
        path = "kernel" if cpu == 0 else "kernel%d" % (cpu + 1)
        lines += ["[vm %s]" % vm, "cpus = %d" % cpu, "memory = %dM" % (MEMORY >> 20), "%s = %s" % (kernel_key, path),
                  "cmdline = " + cmdline if cmdline else "", more]
        if isinstance(kernel, bytes):
            contents.append((path, kernel))
        else:
            rig.link(kernel, os.path.join(where, path))
            files.append((path, kernel))
    for path, data in [("bulkhead.conf", "\n".join(lines).encode() + b"\n")] + contents:
        host = os.path.join(where, path)
        os.makedirs(os.path.dirname(host), exist_ok=True)
        with open(host, "wb") as file:
            file.write(data)
        files.insert(0 if path == "bulkhead.conf" else len(files), (path, host))
    return files


def _image(name, *arguments, **more):
    """A disk with what _files() makes."""
    files = _files(name, *arguments, **more)
    disk = os.path.join(os.path.dirname(files[0][1]), "disk.img")
    image.write(disk, [("EFI/BOOT/BOOTX64.EFI", build.LOADER), *files])
    return disk


def _hello(kernel):
    return [("hello", kernel)]


def _sum(data):
    """As the guest does it."""
    total = 0
    for byte in data:
        total = ((total << 1 | total >> 31) & 0xffffffff) ^ byte
    return total


def _module_lines():
    return "\n".join("module = %s" % string for _, _, string in MODULES)


def sessions(t, files):
    """The kernel in each of its formats, (name, file), in VMs of one machine."""
    cmdline = "a command line, # and all, poweroff"
    disk = _image("formats", files, cmdline, _module_lines(), "on_idle = stay")
    with rig.Boot("multiboot-formats", disk, len(files), memory=256) as boot:
        for digit, (kind, _) in enumerate(files, 1):
            begin = boot.at
            if digit > 1:
                boot.type(rig.KEY + str(digit))
                boot.expect(r"--- %s \(%d\)" % (kind, digit), 60)
            boot.expect(r"^bye", 120)
            _session(t, "multiboot " + kind, cmdline, boot.text[begin:boot.at])
            t.check(boot.seen(r"%s: stopped: the guest powered off" % kind) or boot.expect("stopped: the guest powered off", 30),
                    "multiboot %s: powers off" % kind)


def _session(t, name, cmdline, text):
    good, bad = re.findall(r"check ok: (.*)", text), re.findall(r"check FAILED: (.*)", text)
    t.check(len(good) == CHECKS and not bad, name + ": state, memory and map are right, seen from inside",
            "%d of %d checks; failed: %s" % (len(good), CHECKS, ", ".join(bad)))
    t.check("cmdline '%s'" % cmdline in text, name + ": the command line")
    memory = re.search(r"^memory 0x([0-9a-f]+)$", text, re.M)
    t.check(memory and MEMORY - 0x61000 == int(memory.group(1), 16), name + ": all memory is in the map",
            memory.group(0) if memory else "")
    for path, data, string in MODULES:
        wanted = "size 0x%x sum 0x%x string '%s'" % (len(data), _sum(data), string)
        t.check(wanted in text, "%s: module %s" % (name, path), wanted)


def restart(t, file):
    """A triple fault, twice: the third life finds its memory as the first did. on_crash = restart stops after five."""
    with rig.Boot("multiboot-restart", _image("restart", _hello(file), "triple", "on_crash = restart"), memory=256) as boot:
        off = boot.wait_off(120)
        text = boot.text
    lives = text.count("hello\n")
    good = len(re.findall(r"check ok: bss is zero, data is loaded", text))
    t.check(lives == 5 and good == lives and "FAILED" not in text, "multiboot: each restart begins with a pristine image",
            "%d lives, %d good" % (lives, good))
    t.check(off, "multiboot: crashes in a row end")


def state(t, file):
    """A VM that reboots begins with the processor's state after power-up, whatever it left there; its memory it keeps."""
    with rig.Boot("multiboot-state", _image("state", _hello(file), "state"), memory=256, cpu_model=bochs.NEWER_CPU_MODEL) as boot:
        off = boot.wait_off(120)
        text = boot.text
    lives = re.split(r"^life 0x", text, flags=re.M)[1:]
    for number, life in enumerate(lives, 1):
        good = re.findall(r"^check ok: (.*)", life, re.M)
        bad = re.findall(r"^check FAILED: (.*)", life, re.M)
        t.check(len(good) >= 20 and "PKRU" in good and not bad, "multiboot: life %d begins as after power-up" % number,
                "%d checks; failed: %s" % (len(good), ", ".join(bad)))
    t.check(off and len(lives) == 2 and lives[1].startswith("2\n") and "both lives" in text,
            "multiboot: a VM that reboots keeps its memory", "%d lives" % len(lives))


def leaves(t, file):
    """compat = qemu: the debug port, and an end with a code, which is the status of scripts/run; without it, neither is there."""
    config = _files("exit", _hello(file), "exit", "compat = qemu", "log = error")[0][1]
    done = subprocess.run([os.path.join(ui.ROOT, "scripts", "run"), "--rig", "bochs", "--exit-code", "--timeout", "120", "--efi",
                           build.LOADER, "--config", config], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=300, check=False)
    with open(os.path.join(rig.LOGS, "multiboot-exit.log"), "wb") as log:
        log.write(done.stdout)
    text = done.stdout.decode("utf-8", "replace")
    t.check("check ok: the debug port is there" in text and "by the debug port" in text, "multiboot: the debug port")
    t.check("hello: stopped: the guest left with code 21" in text, "multiboot: the guest leaves with its code")
    t.check(done.returncode == 43, "multiboot: scripts/run --exit-code ends with QEMU's status of it", "status %d" % done.returncode)
    forged = text.replace("left with code 21", "powered off").encode()
    t.check(run_command.exit_status(forged) == 0, "multiboot: no code, no status")


def _version2_file():
    build.ninja(["multiboot2_hello"], what="building the Multiboot 2 guest")
    return os.path.join(build.BUILD, "guest", "multiboot2_hello.elf")


def version2(t):
    """A Multiboot 2 kernel: what it is told, tag by tag."""
    file = _version2_file()
    with rig.Boot("multiboot2", _image("2", _hello(file), "some words", _module_lines()), memory=256) as boot:
        off = boot.wait_off(120)
        text = boot.text
    t.check(re.search(r"^hello, version 2; tags: 0f 01 02 04 06( 03){%d} 00$" % len(MODULES), text, re.M), "multiboot 2: the list of tags")
    t.check("words: some words" in text, "multiboot 2: the command line")
    for _, data, string in MODULES:
        t.check("module of %08x bytes: %s" % (len(data), string) in text, "multiboot 2: module " + string)
    t.check("rsdp: RSD PTR" in text, "multiboot 2: a copy of the RSDP")
    t.check(off, "multiboot 2: powers off, and then the machine")


def raw(t):
    """A raw real-mode image: its beginning, a warm reset, and a jump to the reset vector."""
    build.ninja(["raw_guest"], what="building the raw guest")
    image_path = _image("raw", _hello(os.path.join(build.BUILD, "guest", "raw.bin")), "", "load = 0x7c00")
    with rig.Boot("multiboot-raw", image_path, memory=256) as boot:
        off = boot.wait_off(120)
        text = boot.text
    for line in ("began at 0000:7c00", "the timer interrupts", "a vector works", "resumed after a warm reset", "rebooted, memory kept"):
        t.check("raw: " + line in text, "raw image: " + line)
    t.check(off and "raw: FAILED" not in text, "raw image: powers off, and then the machine")


def refused(t, file):
    with open(file, "rb") as opened:
        whole = opened.read()
    bad_flags = bytearray(whole)
    at = bad_flags.index(struct.pack("<I", 0x1badb002))
    flags, = struct.unpack_from("<I", bad_flags, at + 4)
    struct.pack_into("<II", bad_flags, at + 4, flags | 0x40, -(0x1badb002 + (flags | 0x40)) & 0xffffffff)
    bad_sum = bytearray(whole)
    bad_sum[at + 8] ^= 1
    cases = [
        ("an ELF file that is no kernel", whole.replace(struct.pack("<I", 0x1badb002), bytes(4)), "",
         r"kernel 'kernel': the kernel is an ELF file without a Multiboot header in its first 8192 bytes"),
        ("a gzip file", b"\x1f\x8b\x08" + bytes(5000), "", r"the kernel is a gzip file"),
        ("an EFI application", b"MZ" + bytes(5000), "", r"a PE/EFI application without a Linux header"),
        ("a flag nobody knows", bytes(bad_flags), "", r"demands what Bulkhead does not know \(flags 0x40\)"),
        ("a wrong checksum", bytes(bad_sum), "", r"has a wrong checksum"),
        ("a truncated one", whole[:at + 64], "", r"the kernel file is truncated"),
        ("an initrd", whole, "initrd = one.bin", r"takes no initrd: write module ="),
        ("a module that is missing", whole, "module = nothing here", r"module 'nothing': there is no such file"),
    ]
    _refused(t, "multiboot", cases)


def _refused(t, protocol, cases, kernel_key="kernel", cmdline="poweroff"):
    """Kernels and lines of the configuration that the loader refuses, each with the sentence it says."""
    for what, kernel, more, pattern in cases:
        name = "%s-refused-%s" % (protocol, re.sub(r"[^a-z]+", "-", what.lower()))
        with rig.Boot(name, _image(name, _hello(kernel), cmdline, more, kernel_key=kernel_key), memory=256) as boot:
            try:
                boot.expect("Back to the firmware in|hello", 120)
                boot.type(" ")
                boot.expect(rig.LEFT_TO_FIRMWARE, 60)
                back = True
            except rig.Timeout:
                back = False
            said = re.search(REFUSED_BY + ".*" + pattern, boot.text)
            t.check(said and back, "%s, %s: the message says so, and back to the firmware" % (protocol, what),
                    said.group(0)[:110] if said else "no %r in:\n%s" % (pattern, boot.last_lines()))


def _version2_refused(t):
    with open(_version2_file(), "rb") as opened:
        whole = opened.read()
    header = whole.index(struct.pack("<I", 0xe85250d6))
    request = header + 16  # the first tag: 8 bytes of head, then the types
    unknown = whole[:request + 8] + struct.pack("<I", 9) + whole[request + 12:]
    endless = whole[:request + 4] + struct.pack("<I", 7) + whole[request + 8:]
    _refused(t, "multiboot 2", [
        ("a truncated header", whole[:header + 20], "", r"truncated within its Multiboot 2 header"),
        ("truncated segments", whole[:header + 0x100], "", r"the kernel file is truncated: a segment has"),
        ("information nobody has", unknown, "", r"demands boot information of type 9, which Bulkhead does not have"),
        ("a tag without a size", endless, "", r"Multiboot 2 header is damaged: tag 1 has 7 bytes"),
        ("an initrd", whole, "initrd = one.bin", r"takes no initrd: write module ="),
    ])


def _raw_refused(t):
    _refused(t, "raw image", [
        ("too big", bytes(0xa0000), "load = 0x7c00", r"a raw image of 655360 bytes at 0x7c00 does not end below 0x"),
        ("of no bytes", b"", "load = 0x7c00", r"kernel 'kernel': the file is empty"),
    ], cmdline="")


def _firmware_refused(t):
    _refused(t, "firmware", [
        ("too small", bytes(0xf000), "", r"a file of 61440 bytes is too small for a firmware: at least 64 KiB are needed"),
        ("of no whole pages", bytes(0x20010), "", r"a file of 131088 bytes is no flash image: its size is not a multiple of 4 KiB"),
        ("too big", bytes((16 << 20) + 4096), "", r"a file of 16781312 bytes does not fit below 4 GiB: 16 MiB are the limit"),
        ("with a load address", bytes(0x20000), "load = 0x7c00", r"a firmware takes no load address"),
    ], kernel_key="firmware", cmdline="")


def _pvh_kernel(entry=0x100000, value_bytes=4, kind=2, memory=0x1000):
    """An ELF32 file of one segment at 1 MiB, with Xen's note that names the entry."""
    note = struct.pack("<III", 4, value_bytes, 18) + b"Xen\0" + struct.pack("<Q", entry)
    header = b"\x7fELF\1\1\1" + bytes(9) + struct.pack("<HHIIIIIHHHHHH", kind, 3, 1, 0x100000, 52, 0, 0, 52, 32, 2, 0, 0, 0)
    load = struct.pack("<8I", 1, 0x1000, 0x100000, 0x100000, 64, memory, 7, 4096)
    notes = struct.pack("<8I", 4, 116, 0, 0, len(note), len(note), 4, 4)
    return (header + load + notes + note).ljust(0x1000, b"\0") + bytes(64)


def pvh_refused(t):
    _refused(t, "pvh", [
        ("an entry nowhere", _pvh_kernel(entry=0x200000), "", r"PVH entry point 0x200000 lies in none of its segments"),
        ("a note of five bytes", _pvh_kernel(value_bytes=5), "", r"PVH entry note is damaged: its value has 5 bytes"),
        ("no fixed address", _pvh_kernel(kind=3), "", r"not linked at a fixed address \(ELF type 3\)"),
        ("a module beside an initrd", _pvh_kernel(), "initrd = one.bin\nmodule = kernel", r"write initrd = or module ="),
        ("no room", _pvh_kernel(memory=MEMORY), "", r"the kernel does not fit: it ends at 0x1100000"),
    ])


def others_refused(t):
    build.configure()
    _version2_refused(t)
    _raw_refused(t)
    _firmware_refused(t)


def run(t):
    narrow = guest("multiboot_hello.elf")
    sessions(t, [("elf32", narrow), ("elf64", guest("multiboot_hello64.elf")), ("flat", guest("multiboot_hello.bin"))])
    restart(t, narrow)
    leaves(t, narrow)
    version2(t)
    raw(t)
    refused(t, narrow)
