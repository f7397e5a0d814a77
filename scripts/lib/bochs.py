"""The emulator: obtaining an optimised Bochs, describing a machine to it, and running it."""
import ctypes
import glob
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile

import cache
import debian
import screen as rfb
import ui

VERSION = "3.0"
DEBIAN_VERSION = "3.0+dfsg-1"
PATCHES = sorted(glob.glob(os.path.join(ui.ROOT, "tests", "rig", "bochs-patches", "*.patch")))
MSRS = os.path.join(ui.ROOT, "tests", "rig", "bochs-msrs.def")
FIRMWARE = ("/usr/share/ovmf/OVMF.fd", "/usr/share/qemu/OVMF.fd")
CONFIGURE = """--enable-smp --enable-cpu-level=6 --enable-all-optimizations --disable-handlers-chaining
    --enable-x86-64 --enable-vmx=2 --enable-svm --enable-avx --enable-evex --enable-pci --enable-usb
    --enable-e1000 --enable-ne2000 --enable-clgd54xx --with-rfb --with-nogui --without-x11 --without-sdl2
    --disable-docbook --enable-iodebug --enable-monitor-mwait --enable-repeat-speedups
    --enable-fast-function-calls --enable-protection-keys""".split()
CPU_MODEL = "corei7_skylake_x"
NEWER_CPU_MODEL = "corei7_icelake_u"  # has protection keys and UMIP
# Emulated instructions in one emulated second, and so the TSC's frequency (CPUID says 3.5 GHz all the same).
IPS = 200_000_000
ATA = ("ata0-master", "ata0-slave", "ata1-master", "ata1-slave")
SHUTDOWN_NOTE = "Shutdown port: shutdown requested"


def _key():
    digest = hashlib.sha256((DEBIAN_VERSION + " ".join(CONFIGURE)).encode())
    for path in PATCHES:
        with open(path, "rb") as file:
            digest.update(file.read())
    return "bochs-%s-%s" % (VERSION, digest.hexdigest()[:12])


def built_path():
    return cache.directory(_key(), "bochs")


def build():
    """Builds the rig's Bochs into the cache unless it is there. Raises Failure with the reason."""
    if os.path.exists(built_path()):
        return
    with cache.lock("bochs"):
        if os.path.exists(built_path()):
            return
        with ui.step("building Bochs %s, once (about two minutes; %s)" % (VERSION, cache.directory())):
            with tempfile.TemporaryDirectory(dir=cache.directory(), prefix="bochs-build-") as work:
                _build_in(work)


def _build_in(work):
    log = cache.directory("bochs-build.log")
    if os.path.exists(log):
        os.unlink(log)
    tarball = debian.source_tarball("bochs", DEBIAN_VERSION, work)
    tree = os.path.join(work, "tree")
    os.mkdir(tree)
    ui.command(["tar", "-xf", tarball, "-C", tree, "--strip-components=1"])
    for patch in PATCHES:
        ui.command(["patch", "-d", tree, "-p1", "--fuzz=0", "-i", patch], log, what="patching Bochs")
    ui.say("  configuring")
    ui.command(["./configure", *CONFIGURE], log, cwd=tree, what="configuring Bochs")
    ui.say("  compiling")
    ui.command(["make", "-j%d" % (os.cpu_count() or 1)], log, cwd=tree, what="compiling Bochs")
    target = os.path.dirname(built_path())
    staging = os.path.join(work, "result")
    os.mkdir(staging)
    binary = os.path.join(staging, "bochs")
    ui.command(["strip", "-o", binary, os.path.join(tree, "bochs")])
    shutil.rmtree(target, ignore_errors=True)
    os.rename(staging, target)


def find():
    """(path, has_debugger) of the emulator to use, or None. BULKHEAD_BOCHS names another one, built without the
    debugger: for instance one without the rig's patches."""
    other = os.environ.get("BULKHEAD_BOCHS")
    if other:
        if not os.access(other, os.X_OK):
            raise ui.Failure("BULKHEAD_BOCHS=%s is not a program" % other)
        return other, False
    if os.path.exists(built_path()):
        return built_path(), False
    packaged = shutil.which("bochs")
    return (packaged, True) if packaged else None


def firmware():
    for path in FIRMWARE:
        if os.path.exists(path):
            return path
    raise ui.Failure("no UEFI firmware at %s: run scripts/setup (package ovmf)" % FIRMWARE[0])


def end_with_parent():
    """In a child, before it runs its program: if the parent is killed, this ends too."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


class Machine:
    """One run of Bochs. Its first serial port is `console`, a connected socket (bytes both ways).

    The console is lossless: Bochs connects to us, waits when we do not read, and takes input only when the
    guest's receiver is empty."""

    def __init__(self, image, cpus=1, memory=1024, cpu_model=CPU_MODEL, log=None, verbose=False, ips=IPS,
                 pace=False, msrs=MSRS, screen=False, disks=(), control=False, kernel_log=None):
        """memory in MiB; `log` is Bochs' own log; verbose: also why a VM entry failed (slower); pace: emulated
        time does not run ahead of real time while the machine is idle; msrs: a file of MSRs that Bochs lacks;
        screen: the machine has a graphics adapter, and self.screen.picture() is what it shows; disks: up to three more
        images; control: there is a second serial port, self.control; kernel_log: a file that gets what is sent to a
        third one."""
        found = find()
        if not found:
            raise ui.Failure("there is no Bochs: run scripts/setup")
        binary, has_debugger = found
        self.screen = None
        self.images = [os.path.abspath(path) for path in (image, *disks)]
        self.directory = tempfile.mkdtemp(prefix="bulkhead-bochs-")
        self.log = log or os.path.join(self.directory, "bochs.log")
        listeners = [self._listen() for _ in range(2 if control else 1)]
        rc_path = os.path.join(self.directory, "bochsrc")
        with open(rc_path, "w", encoding="utf-8") as file:
            file.write(self._rc([listener.getsockname()[1] for listener in listeners], kernel_log, cpus, memory,
                               cpu_model, verbose, ips, pace, msrs, screen))
        argv = [binary, "-q", "-f", rc_path]
        if has_debugger:  # Debian's build stops at a prompt: this script continues it
            start = os.path.join(self.directory, "start")
            with open(start, "w", encoding="ascii") as file:
                file.write("c\n")
            argv += ["-rc", start]
        for path in self.images:
            self._remove_stale_lock(path)
        self.output = open(os.path.join(self.directory, "stdout"), "w+b")
        self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=self.output,
                                        stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=end_with_parent)
        try:
            self.screen = rfb.Screen(self.process) if screen else None
        except ui.Failure:
            pass  # _accept() says why it did not start
        connections = [self._accept(listener) for listener in listeners]
        self.console, self.control = connections[0], connections[1] if control else None

    @staticmethod
    def _listen():
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        return listener

    def _rc(self, ports, kernel_log, cpus, memory, cpu_model, verbose, ips, pace, msrs, screen):
        lines = [
            "config_interface: textconfig",
            "display_library: " + ("rfb, options=\"timeout=20, no_gui_console\"" if screen else "nogui"),
            "romimage: file=%s" % firmware(),
            # Host memory is taken block by block as the guest touches it; 2 GiB of it is the most Bochs can use.
            "memory: guest=%d, host=%d, block_size=512" % (memory, min(memory, 2048)),
            "cpu: model=%s, count=%d, ips=%d, reset_on_triple_fault=0, ignore_bad_msrs=0, msrs=\"%s\""
            % (cpu_model, cpus, ips, msrs),
            "pci: enabled=1, chipset=i440fx" + (", slot1=pcivga" if screen else ""),
            "vgaromimage: file=\"%s\"" % self._vga_rom(),
            "vga: extension=vbe, vbe_memsize=16, update_freq=5" if screen else "vga: extension=none, update_freq=1",
            "clock: sync=%s, time0=utc" % ("slowdown" if pace else "none"),
            *("com%d: enabled=1, mode=socket-client, dev=127.0.0.1:%d" % (index + 1, port) for index, port in enumerate(ports)),
            *(["com3: enabled=1, mode=file, dev=\"%s\"" % kernel_log] if kernel_log else []),
            "ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14",
            *(["ata1: enabled=1, ioaddr1=0x170, ioaddr2=0x370, irq=15"] if len(self.images) > 2 else []),
            *("%s: type=disk, mode=flat, path=\"%s\"" % (where, path) for where, path in zip(ATA, self.images)),
            "boot: disk",
            "port_e9_hack: enabled=1",
            "private_colormap: enabled=0",
            "log: \"%s\"" % self.log,
            "panic: action=fatal",
            "error: action=%s" % ("report" if verbose else "ignore"),
            "info: action=ignore",
            "debug: action=ignore",
        ]
        return "\n".join(lines) + "\n"

    def _vga_rom(self):
        """Bochs insists on a video BIOS; the UEFI firmware has no use for one. An option ROM that returns."""
        rom = bytearray(b"\x55\xaa\x01\xcb".ljust(512, b"\0"))
        rom[511] = -sum(rom) & 0xFF
        path = os.path.join(self.directory, "vga.rom")
        with open(path, "wb") as file:
            file.write(rom)
        return path

    @staticmethod
    def _remove_stale_lock(image):
        """A killed run leaves its lock. It is stale unless a living process has the image open."""
        path = image + ".lock"
        if not os.path.exists(path):
            return
        for link in glob.glob("/proc/[0-9]*/fd/*"):
            try:
                if os.path.realpath(link) == image:
                    raise ui.Failure("%s is in use by another emulator (process %s)"
                                     % (image, link.split("/")[2]))
            except OSError:
                continue
        os.unlink(path)

    def _accept(self, listener):
        listener.settimeout(0.2)
        for _ in range(100):
            try:
                connection = listener.accept()[0]
                listener.close()
                connection.settimeout(None)
                return connection
            except socket.timeout:
                if self.process.poll() is not None:
                    break
        listener.close()
        reason = self.tail()
        self.close()
        raise ui.Failure("Bochs did not start:\n" + reason)

    def tail(self, lines=12):
        """The end of what Bochs itself said."""
        text = ""
        for path in (os.path.join(self.directory, "stdout"), self.log):
            try:
                with open(path, encoding="utf-8", errors="replace") as file:
                    text += "".join(file.readlines()[-lines:])
            except OSError:
                pass
        return text

    def powered_off(self):
        """True when the guest asked for the end (the machine stopped by itself and not by a fault)."""
        if self.process.poll() is None:
            return False
        return SHUTDOWN_NOTE in self.tail(40)

    def close(self):
        """Ends the emulator and removes what it left."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for connection in (getattr(self, "console", None), getattr(self, "control", None)):
            if connection:
                connection.close()
        if self.screen:
            self.screen.close()
        self.output.close()
        for path in self.images:
            if os.path.exists(path + ".lock"):
                os.unlink(path + ".lock")
        shutil.rmtree(self.directory, ignore_errors=True)
