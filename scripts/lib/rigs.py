"""The machines Bulkhead can run on here, behind one interface: console, process, powered_off(), tail(), close()."""
import os
import shutil
import socket
import subprocess
import tempfile

import bochs
import ui


def kvm_problem():
    """None when this machine can run Bulkhead under KVM, or the reason why it cannot."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            if " vmx" not in file.read():
                return "this machine's CPUs have no VT-x (or it is switched off in the firmware setup)"
    except OSError:
        return "/proc/cpuinfo cannot be read"
    if not os.path.exists("/dev/kvm"):
        return "there is no /dev/kvm (modprobe kvm_intel)"
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "/dev/kvm may not be opened by this user (add it to the group kvm)"
    try:
        with open("/sys/module/kvm_intel/parameters/nested", encoding="ascii") as file:
            if file.read().strip() not in ("Y", "1"):
                return "nested VT-x is off (modprobe kvm_intel nested=1)"
    except OSError:
        return "the module kvm_intel is not loaded"
    if not shutil.which("qemu-system-x86_64"):
        return "there is no qemu-system-x86_64 (scripts/setup)"
    return None


def choose(wanted):
    """The rig's name: `wanted` if it works, the best one if `wanted` is None. Raises Failure with what to do."""
    problem = kvm_problem()
    if wanted == "kvm" and problem:
        raise ui.Failure("the kvm rig does not work here: " + problem)
    if wanted in (None, "kvm") and not problem:
        return "kvm"
    if not bochs.find():
        raise ui.Failure("there is no rig to run on.\n  bochs: not there; run scripts/setup\n  kvm: %s"
                         % (problem or "not asked for"))
    return "bochs"


class KvmMachine:
    """QEMU with KVM and nested VT-x, with the devices that the facts of docs describe: VT-d and a q35 board."""

    def __init__(self, image, cpus=1, memory=1024, log=None, firmware=None):
        self.directory = tempfile.mkdtemp(prefix="bulkhead-kvm-")
        self.log = log or os.path.join(self.directory, "qemu.log")
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        port = listener.getsockname()[1]
        self.output = open(self.log, "w+b")
        self.process = subprocess.Popen(
            ["qemu-system-x86_64", "-accel", "kvm,kernel-irqchip=split", "-cpu", "host,migratable=off",
             "-machine", "q35", "-smp", str(cpus), "-m", str(memory), "-display", "none", "-nodefaults",
             "-bios", firmware or bochs.firmware(),
             "-drive", "file=%s,format=raw,if=none,id=disk,snapshot=on" % os.path.abspath(image).replace(",", ",,"),
             "-device", "ide-hd,drive=disk", "-device", "intel-iommu,intremap=on,aw-bits=48",
             "-chardev", "socket,id=console,host=127.0.0.1,port=%d" % port, "-serial", "chardev:console",
             "-monitor", "none"],
            stdin=subprocess.DEVNULL, stdout=self.output, stderr=subprocess.STDOUT, start_new_session=True,
            preexec_fn=bochs.end_with_parent)
        self.console = self._accept(listener)

    def _accept(self, listener):
        listener.settimeout(10)
        try:
            connection = listener.accept()[0]
        except socket.timeout:
            reason = self.tail()
            self.close()
            raise ui.Failure("QEMU did not start:\n" + reason) from None
        finally:
            listener.close()
        connection.settimeout(None)
        return connection

    def tail(self, lines=12):
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return "".join(file.readlines()[-lines:])

    def powered_off(self):
        return self.process.poll() == 0

    def close(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if getattr(self, "console", None):
            self.console.close()
        self.output.close()
        shutil.rmtree(self.directory, ignore_errors=True)
