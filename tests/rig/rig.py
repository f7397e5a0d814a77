"""The rig: boots an image in the emulator and talks to its console. Test cases are functions in rig_*.py that take a
Report and a Boot; one boot serves many checks."""
import os
import re
import shutil
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts", "lib"))

# pylint: disable=wrong-import-position
import bochs
import build
import efi_app
import guests
import image
import make_image
import ui

NATIVE = os.path.join(ui.ROOT, "tests", "rig", "native")
NATIVE_MSRS = os.path.join(NATIVE, "msrs.def")
LOGS = os.path.join(build.BUILD, "rig-logs")
WORK = os.path.join(build.BUILD, "rig")
# RIG_VERBOSE=1: the emulator also logs why a VM entry failed, and every EPT violation (slow).
VERBOSE = bool(os.environ.get("RIG_VERBOSE"))
KEY = "\x01"                # Ctrl-A
PROMPT = r"^guest# "
OPERATOR = r"^bulkhead> "  # Bulkhead's own prompt
LEFT_TO_FIRMWARE = r"BdsDxe: failed to start|Shell>|BdsDxe: No bootable option"
# What is typed and what the shell prints of it: so the echo of a command is not taken for it, nor what is shown again
# because its VM came to the front.
TYPED_MARK, MARK = "rig:$((%d*7)):", "rig:%d:"


class Timeout(Exception):
    """The console did not show what was waited for, or the machine ended first."""


class Session:
    """One machine, from power-on to its end. Everything the console shows is kept in build/rig-logs/NAME.log."""

    def __init__(self, name, start):
        """start: makes the machine."""
        os.makedirs(LOGS, exist_ok=True)
        self.name = name
        self.transcript_path = os.path.join(LOGS, name + ".log")
        self.transcript = open(self.transcript_path, "wb")
        self.started = time.monotonic()
        self.text = ""       # all that was shown, without escape sequences and carriage returns
        self.at = 0          # up to here it was looked at by expect()
        self.runs = 0        # commands that were run
        self._raw = b""
        self.machine = start()
        self.machine.console.settimeout(0.5)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        self.close()

    def close(self):
        self.machine.close()
        self.transcript.close()

    def read(self):
        """Takes what the console has; False when the machine has ended."""
        try:
            data = self.machine.console.recv(65536)
        except TimeoutError:
            return True
        except OSError:
            data = b""
        if not data:
            return False
        self.transcript.write(data)
        self.transcript.flush()
        self._raw += data
        # An escape sequence may be cut in two by the reads: keep its beginning for the next time.
        keep = re.search(rb"\x1b[^A-Za-z]{0,12}\Z", self._raw)
        whole, self._raw = (self._raw[:keep.start()], self._raw[keep.start():]) if keep else (self._raw, b"")
        plain = re.sub(rb"\x1b\[[0-9;?=]*[A-Za-z]|\x1b[()][A-Z0-9]|\r", b"", whole)
        self.text += plain.decode("utf-8", "replace")
        return True

    def listen(self):
        """Takes what the console has, waiting for it at most half a second."""
        self.read()

    def seen(self, pattern):
        """True if the pattern was shown at any time so far."""
        return re.search(pattern, self.text, re.M) is not None

    def expect(self, pattern, timeout):
        """Waits (wall time) until the pattern appears after what was matched before; returns the match. A number at
        a line's end needs its newline in the pattern: the rest of it may not have arrived yet."""
        end = time.monotonic() + timeout
        while True:
            match = re.compile(pattern, re.M).search(self.text, self.at)
            if match:
                self.at = match.end()
                return match
            if time.monotonic() > end:
                raise Timeout("no %r within %d s; the last lines:\n%s" % (pattern, timeout, self.last_lines()))
            if not self.read():
                raise Timeout("the machine ended before %r; the last lines:\n%s\n%s"
                              % (pattern, self.last_lines(), self.machine.tail(4)))

    def ready(self, timeout):
        """Waits until the guest's /init is ready; does not wait on when the loader gave up."""
        if "ready" not in self.expect(r"^bulkhead-guest: ready|" + LEFT_TO_FIRMWARE, timeout).group(0):
            raise Timeout("Bulkhead did not start; the last lines:\n" + self.last_lines(12))

    def last_lines(self, count=8):
        return "\n".join("    | " + line for line in self.text.rstrip().splitlines()[-count:])

    def type(self, keys):
        self.machine.console.sendall(keys.encode())

    def send(self, line):
        self.type(line + "\n")

    def to_prompt(self, timeout=60):
        """To Bulkhead's own prompt."""
        self.type(KEY + "h")
        self.expect(OPERATOR, timeout)

    def run(self, command, timeout=30):
        """Runs a shell command in the guest and returns (its output, its exit status)."""
        self.runs += 1
        typed, mark = TYPED_MARK % self.runs, MARK % (7 * self.runs)
        self.send("echo %sbegin; %s; echo %s$?" % (typed, command, typed))
        match = self.expect(r"^%sbegin\n((?s:.*?))%s(\d+)\n" % (mark, mark), timeout)
        return match.group(1), int(match.group(2))

    def output(self, command, timeout=30):
        return self.run(command, timeout)[0].strip()

    def wait_off(self, timeout):
        """True if the machine powers off by itself within `timeout` seconds."""
        end = time.monotonic() + timeout
        while self.read():
            if time.monotonic() > end:
                return False
        try:
            self.machine.process.wait(10)
        except Exception:  # pylint: disable=broad-except
            return False
        return self.machine.powered_off()

    def seconds(self):
        return time.monotonic() - self.started


class Boot(Session):
    """A machine in Bochs."""

    def __init__(self, name, image_path, cpus=1, memory=640, cpu_model=bochs.CPU_MODEL, verbose=None, msrs=bochs.MSRS,
                 screen=False):
        self.emulator_log = os.path.join(LOGS, name + ".bochs.log")
        super().__init__(name, lambda: bochs.Machine(image_path, cpus, memory, cpu_model, log=self.emulator_log,
                                                     verbose=VERBOSE if verbose is None else verbose,
                                                     msrs=msrs, screen=screen))


def check_replay(t, name, transcript, vm):
    """The dump of a VM in a transcript, through the host build: today's code says of each exit what it said then."""
    done = subprocess.run([os.path.join(ui.ROOT, "scripts", "replay"), "--vm", vm, transcript], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=300, check=False)
    summaries = re.findall(r"^%s/\d+: (\d+) same, \d+ decoded only, 0 differ$" % vm, done.stdout, re.M)
    t.check(done.returncode == 0 and len(summaries) > 0 and any(int(n) > 0 for n in summaries), name,
            " / ".join(line for line in done.stdout.splitlines()[-3:] if line.startswith(vm + "/")) if done.returncode == 0
            else done.stdout[-400:])


def directory(name):
    """An empty directory for the files of one test."""
    path = os.path.join(WORK, name)
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    return path


CONFIG = """[machine]
console = serial
on_idle = poweroff

[vm linux]
cpus = %(cpus)s
memory = %(memory)s
kernel = vmlinuz
initrd = initrd.img
cmdline = %(cmdline)s
on_reboot = %(on_reboot)s
"""


def disk(name, config, files):
    """An image with this configuration and `files`: (path on it, path here)."""
    where = directory(name)
    path = os.path.join(where, "bulkhead.conf")
    with open(path, "w", encoding="ascii") as file:
        file.write(config)
    out = os.path.join(where, "disk.img")
    image.write(out, [("EFI/BOOT/BOOTX64.EFI", build.LOADER), ("bulkhead.conf", path), *files])
    return out


def initramfs():
    with build.alone(WORK):
        return guests.initramfs(os.path.join(WORK, "initrd.img"))


def linux_image(name, kernel, cpus=1, memory="256M", cmdline="console=ttyS0,115200", on_reboot="restart",
                screen=False, pvh=False):
    """An image with one VM that boots one of Debian's kernels to the busybox shell; screen: the console is there too;
    pvh: the ELF file inside it, by the PVH protocol."""
    where = directory(name)
    config = os.path.join(where, "bulkhead.conf")
    with open(config, "w", encoding="utf-8") as file:
        text = CONFIG.replace("console = serial\n", "") if screen else CONFIG
        file.write(text % {"cpus": "0-%d" % (cpus - 1) if cpus > 1 else "0", "memory": memory, "cmdline": cmdline,
                           "on_reboot": on_reboot})
    link(guests.vmlinux(kernel) if pvh else guests.kernel(kernel), os.path.join(where, "vmlinuz"))
    link(initramfs(), os.path.join(where, "initrd.img"))
    out = os.path.join(where, "disk.img")
    make_image.make(config, out, efi=build.LOADER, check=False)
    return out


def link(source, target):
    """The same file under another name, without a copy."""
    if os.path.lexists(target):
        os.unlink(target)
    os.symlink(source, target)


def ticks(boot, pattern, timeout):
    """The number that the pattern's group finds on the console."""
    return int(boot.expect(pattern, timeout).group(1))


def efi_application(name, sources):
    """Builds a UEFI application of the rig's from C files (paths below the tree's root) and answers its path."""
    with build.alone(WORK):
        return efi_app.build(directory("efi-" + name), name, sources)


def native_boot_ticks(kernel, cmdline, memory=640, timeout=180):
    """Emulated instructions from the kernel's entry to /init without a hypervisor, on one CPU. The firmware there has
    no ACPI tables and CPUID overstates the TSC's frequency, so the kernel is told."""
    where = directory("native-" + kernel)
    command_line = os.path.join(where, "cmdline")
    with open(command_line, "w", encoding="ascii") as file:
        file.write("%s tsc_early_khz=%d\n" % (cmdline, bochs.IPS // 1000))
    disk = os.path.join(where, "disk.img")
    loader = efi_application("native_boot", ["tests/rig/native/native_boot.c"])
    image.write(disk, [("EFI/BOOT/BOOTX64.EFI", loader), ("vmlinuz", guests.kernel(kernel)),
                       ("initrd.img", initramfs()), ("cmdline", command_line)])
    with Boot("native-" + kernel, disk, memory=memory, msrs=NATIVE_MSRS) as boot:
        start = ticks(boot, r"^bulkhead-native: start tsc=(\d+)\n", timeout)
        return ticks(boot, r"^bulkhead-guest: init tsc=(\d+)\n", timeout) - start
