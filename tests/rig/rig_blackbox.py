"""A panic of the host: what is said, what the next start shows, and what is in the files of the boot volume."""
import os
import re
import subprocess

import build
import guests
import image
import rig

CONFIG = """[machine]
report = yes
on_panic = reboot
on_idle = stay

[vm linux]
cpus = 0-1
memory = 128M
kernel = vmlinuz
initrd = initrd.img
cmdline = console=ttyS0,115200 quiet
"""
SECONDS = 300


def _disk():
    where = rig.directory("blackbox")
    config = os.path.join(where, "bulkhead.conf")
    with open(config, "w", encoding="utf-8") as file:
        file.write(CONFIG)
    rig.link(guests.kernel(guests.DEMO_KERNEL), os.path.join(where, "vmlinuz"))
    rig.link(rig.initramfs(), os.path.join(where, "initrd.img"))
    disk = os.path.join(where, "disk.img")
    rig.make_image.make(config, disk, efi=rig.build.LOADER, check=False)
    return disk


def _file(disk, name):
    """The contents of a file on the image's EFI system partition; None: it is not there."""
    done = subprocess.run(["mtype", "-i", "%s@@%d" % (disk, image.ALIGNMENT * image.SECTOR), "::" + name], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, check=False)
    return done.stdout.decode("ascii", "replace") if done.returncode == 0 else None


def _panic(boot):
    boot.ready(SECONDS)
    boot.expect(rig.PROMPT, 60)
    boot.to_prompt(30)
    boot.send("crash yes")
    boot.expect(r"bulkhead: PANIC: ", 30)
    start = boot.at
    boot.expect(r"The machine restarts", 60)
    return boot.text[start:boot.at]


def panic(t):
    disk = _disk()
    with rig.Boot("blackbox", disk, 2, 384) as boot:
        said = _panic(boot)
        names = re.findall(r"^  [0-9a-f]{16} (\w+)\+0x[0-9a-f]+$", said, re.M)
        t.check("run_crash" in names and "vmx_handle_exit" in names, "panic: the stack is told by names",
                " ".join(names))
        t.check(re.search(r"^CPU 1: (was running a guest|[0-9a-f]{16} \w+\+0x)", said, re.M) is not None,
                "panic: where the other CPU was")
        exits = re.findall(r"^VM linux, 2 vCPUs|^the last exits of vCPU \d|^  [A-Z_]+ +\( *\d+\) rip", said, re.M)
        t.check(len(exits) >= 3 + 8, "panic: the last exits of both vCPUs", "%d lines" % len(exits))
        t.check("core: Bulkhead's core is running" in said or "core: ready" in said, "panic: the end of the log")
        boot.expect(r"The last run ended in a panic", SECONDS)
        boot.expect(r"bulkhead: PANIC: the operator asked", 30)
        boot.expect(r"It is in the file \\bulkhead\.crash", 60)
        t.check(True, "black box: shown by the next start, after a warm reset")
        again = _panic(boot) # a second one, so that the first file is kept beside the new one
        boot.expect(r"It is in the file \\bulkhead\.crash", SECONDS)
        boot.ready(SECONDS)
        boot.expect(rig.PROMPT, 60)
        boot.to_prompt(30)
        boot.send("reboot yes")
        boot.expect(r"^Bulkhead loader\n", SECONDS)
        start = boot.at
        boot.ready(SECONDS)
        t.check("ended in a panic" not in boot.text[start:], "black box: not shown a second time")
        boot.to_prompt()
        boot.send("poweroff yes")
        t.check(boot.wait_off(120), "black box: the machine goes on afterwards", "%.0f s in all" % boot.seconds())
    crash, old, report = (_file(disk, name) for name in ("bulkhead.crash", "bulkhead.crash.old", "bulkhead.report"))
    t.check(crash is not None and crash.startswith("bulkhead: PANIC: the operator asked") and
            all(line in again for line in re.findall(r"^the last exits of vCPU.*", crash, re.M)),
            "black box: \\bulkhead.crash has the text", "" if crash else "no such file")
    t.check(old is not None and old.startswith("bulkhead: PANIC"), "black box: the one before is kept", "" if old else "no such file")
    t.check(report is not None and "Preflight:" in report and "EPT, 4 levels" in report and "Starting the core" in report,
            "\\bulkhead.report has the preflight report", "" if report else "no such file")


def forged(t):
    """A guest fills its memory with black boxes. The machine's next start does not believe them."""
    build.configure()
    build.ninja(["multiboot_hello"], what="building the Multiboot guest")
    where = rig.directory("forged")
    config, disk = os.path.join(where, "bulkhead.conf"), os.path.join(where, "disk.img")
    with open(config, "w", encoding="ascii") as file:
        file.write("[machine]\non_idle = reboot\n[vm liar]\ncpus = 0\nmemory = 160M\nkernel = hello.elf\ncmdline = forge\n")
    image.write(disk, [("EFI/BOOT/BOOTX64.EFI", build.LOADER), ("bulkhead.conf", config),
                           ("hello.elf", os.path.join(build.BUILD, "guest", "multiboot_hello.elf"))])
    with rig.Boot("forged", disk, memory=320) as boot:
        boot.expect(r"^forged\n", SECONDS)
        boot.expect(r"every VM has stopped: rebooting the machine", 60)
        boot.expect(r"^Bulkhead loader\n", SECONDS)
        start = boot.at
        boot.expect(r"^hello\n", SECONDS)
        said = boot.text[start:boot.at]
    t.check("ended in a panic" not in said and "forged by" not in said, "black box: a guest cannot leave one",
            "" if "forged by" not in said else "the guest's text was shown as the host's")
