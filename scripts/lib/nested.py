"""The nested rig: QEMU's q35 machine with VT-d, an igb and an NVMe controller with virtual functions, under KVM with
nested VT-x; Bulkhead runs in it. QEMU runs on a carrier: a Linux with KVM that is this machine where it has VT-x, and a
small one inside Bochs (carrier.py) where it has not. The carrier is also the outside world: a bridge with an address on
the network cards' wire. A carrier lives for many machines, one after the other."""
import os
import re
import select
import shlex
import shutil
import socket
import subprocess
import tempfile
import threading
import time

import bochs
import carrier
import ui

FIRMWARE = "usr/share/ovmf/OVMF.fd"
OUTSIDE = "10.77.0.1"             # the carrier's address on the wire
PREFIX = 24
PF_MACS = ("52:54:00:82:57:60", "52:54:00:82:57:61")
NAMESPACES = 2
NAMESPACE_MIB = 64
RUN_DISK_MIB = 1024               # Bulkhead's images are written to the beginning of a disk of this size
CARRIER_MIB = 352                 # what the carrier needs beside its machine's memory
MOST_MIB = 2048 - CARRIER_MIB     # Bochs has no more than 2 GiB
START_SECONDS = 300
IOMMU = "intremap=on,eim=on,aw-bits=48,caching-mode=off,snoop-control=off"
MOST_UNREAD = 16 << 20            # bytes of console output kept for who does not read
END_MARK = "\x01qemu ended "      # on the control channel, at any time


def qemu_command(disk, console, cpus, memory, directory, iommu=IOMMU, root="/", accel="kvm,kernel-irqchip=split", cpu="host,migratable=off"):
    """QEMU's arguments, the same on every carrier. disk: path of a device or file; console: a chardev without its id; iommu: the
    VT-d unit's properties; root: where QEMU and its firmware are; directory: where it finds namespaces (nvme0, ...). igb at 01:00.0, NVMe at 02:00.0, an e1000e
    at 03:00.0 (which has no FLR, so it needs a port that can reset it), each network card on a tap device of its own (tap0, tap1)."""
    argv = [*_program(root), "-nodefaults", "-no-user-config", "-display", "none", "-monitor", "none",
            "-accel", accel, "-cpu", cpu, "-machine", "q35", "-smp", str(cpus), "-m", str(memory), "-bios", os.path.join(root, FIRMWARE),
            "-chardev", console + ",id=console", "-serial", "chardev:console",
            "-drive", "if=none,id=disk,format=raw,cache=none,file=" + disk, "-device", "ide-hd,drive=disk,bootindex=1",
            "-device", "intel-iommu," + iommu,
            "-device", "pcie-root-port,id=rp1,bus=pcie.0,addr=2.0,chassis=1,slot=1,pref64-reserve=16M",
            "-device", "pcie-root-port,id=rp2,bus=pcie.0,addr=3.0,chassis=2,slot=2,pref64-reserve=16M",
            "-device", "igb,bus=rp1,netdev=wire0,romfile=,mac=" + PF_MACS[0],
            "-device", "pcie-root-port,id=rp3,bus=pcie.0,addr=1b.0,chassis=3,slot=3",
            "-device", "e1000e,bus=rp3,netdev=wire1,romfile=,mac=" + PF_MACS[1],
            "-device", "nvme-subsys,id=subsystem",
            "-device", "nvme,id=nvme,bus=rp2,serial=bulkhead,subsys=subsystem,max_ioqpairs=10,msix_qsize=11,"
            "sriov_max_vfs=2,sriov_vq_flexible=6,sriov_vi_flexible=4"]
    for index in range(2):
        argv += ["-netdev", "tap,id=wire%d,ifname=tap%d,script=no,downscript=no" % (index, index)]
    for index in range(NAMESPACES):
        argv += ["-drive", "if=none,id=n%d,format=raw,file=%s/nvme%d" % (index, directory, index),
                 "-device", "nvme-ns,drive=n%d,bus=nvme,nsid=%d,shared=off,detached=on" % (index, index + 1)]
    return argv


def _program(root):
    """QEMU below a directory that is not this system's root: with its own libraries and files."""
    if root == "/":
        return ["qemu-system-x86_64"]
    libraries = os.path.join(root, "usr/lib/x86_64-linux-gnu")
    return ["env", "QEMU_MODULE_DIR=" + os.path.join(libraries, "qemu"), os.path.join(root, "usr/lib64/ld-linux-x86-64.so.2"),
            "--library-path", libraries, os.path.join(root, "usr/bin/qemu-system-x86_64"), "-L", os.path.join(root, "usr/share/qemu"),
            "-L", os.path.join(root, "usr/share/seabios")]


NETWORK = "\n".join([
    "ip link set lo up", "ip link add br0 type bridge", "ip addr add %s/%d dev br0" % (OUTSIDE, PREFIX), "ip link set br0 up",
    *("ip tuntap add tap%d mode tap && ip link set tap%d master br0 up" % (n, n) for n in range(2))])


def _last_of(path, lines):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return "".join(file.readlines()[-lines:])
    except OSError:
        return ""


class Carrier:
    """A Linux with KVM whose shell takes commands, and on which one machine at a time runs. The parts below this class
    differ in how the shell and the console are reached. Not for several threads."""

    def __init__(self):
        self.machine = None
        self._replies = self._to_peer = self._to_console = b""
        self._news = threading.Condition()
        self._closed = False
        self._serial = 0
        self._wake = socket.socketpair()
        self._shell = self._console = self._pump_thread = None

    def _begin(self, shell, console):
        self._shell, self._console = shell, console
        self._pump_thread = threading.Thread(target=self._pump, daemon=True)
        self._pump_thread.start()

    def _pump(self):
        """Moves bytes: shell -> replies, console <-> machine. Nothing here waits for anybody: who owns the machine may ask
        the shell something and not look at the console meanwhile."""
        while not self._closed:
            machine, console = self.machine, self._console
            peer = machine.peer if machine else None
            reading = [s for s in (self._wake[1], self._shell, console if len(self._to_peer) < MOST_UNREAD else None,
                                   peer if not self._to_console else None) if s]
            writing = [s for s, data in ((console, self._to_console), (peer, self._to_peer)) if s and data]
            ready, writable, _ = select.select(reading, writing, [], 1.0)
            if self._wake[1] in ready:
                self._wake[1].recv(64)
            if console in ready:
                self._take_console()
            if peer in ready:
                self._to_console = self._take(peer)
                if not self._to_console:
                    machine.ended(None)  # who owned the machine has closed it
            if console in writable:
                self._to_console = self._give(console, self._to_console)
            if peer in writable:
                self._to_peer = self._give(peer, self._to_peer)
            if self._shell in ready and not self._hear(machine):
                break
        with self._news:
            self._closed = True
            self._news.notify_all()
        if self.machine:
            self.machine.ended(None)

    @staticmethod
    def _take(source):
        try:
            return source.recv(65536)
        except OSError:
            return b""

    @staticmethod
    def _give(target, data):
        try:
            return data[target.send(data):]
        except BlockingIOError:
            return data
        except OSError:
            return b""

    def _take_console(self):
        data = self._take(self._console)
        if not data:
            self._console = None
        elif self.machine and self.machine.peer:
            self._to_peer += data

    def _hear(self, machine):
        data = self._take(self._shell)
        if not data:
            return False
        with self._news:
            self._replies += data
            end = re.search(END_MARK.encode() + rb"(\d+)\r?\n", self._replies)
            if end:
                self._replies = self._replies[:end.start()] + self._replies[end.end():]
            self._news.notify_all()
        if end and machine:
            # All that the machine said was sent before this, so it has arrived.
            while self._console and select.select([self._console], [], [], 0)[0]:
                self._take_console()
            machine.ended(int(end.group(1)), self._to_peer)
        return True

    def _wait(self, pattern, timeout, what):
        end = time.monotonic() + timeout
        with self._news:
            while True:
                match = re.search(pattern, self._replies)
                if match:
                    self._replies = self._replies[match.end():]
                    return match
                left = end - time.monotonic()
                if self._closed or left <= 0:
                    raise ui.Failure("the nested rig's carrier %s %s; it said last:\n%s\n%s" % (
                        "ended before" if self._closed else "did not answer in %d s:" % timeout, what,
                        self._replies[-800:].decode("utf-8", "replace"), self.tail()))
                self._news.wait(left)

    def run(self, command, timeout=60):
        """Runs a shell command on the carrier; answers (its output, its exit status). Wall seconds."""
        self._serial += 1
        mark = "carrier-%d" % self._serial
        # The shell's input is the channel: a command that reads gets nothing. The marks are split in what is sent.
        self._shell.sendall(("echo '%s''<'; { %s\n} </dev/null 2>&1; echo '%s''>'$?\n" % (mark, command, mark)).encode())
        match = self._wait(rb"(?s)%s<\r?\n(.*?)%s>(\d+)\r?\n" % (mark.encode(), mark.encode()), timeout, command[:80])
        return match.group(1).decode("utf-8", "replace").replace("\r", ""), int(match.group(2))

    def output(self, command, timeout=60):
        """The command's output; raises Failure when it failed."""
        text, status = self.run(command, timeout)
        if status != 0:
            raise ui.Failure("on the carrier, status %d: %s\n%s" % (status, command, text[-800:]))
        return text.strip()

    def counters(self, interface):
        """(packets received, packets sent) by an interface of the carrier: br0, tap0 (the igb), tap1 (the e1000e)."""
        row = re.search(r"^ *%s:(.*)$" % re.escape(interface), self.output("cat /proc/net/dev"), re.M)
        if not row:
            raise ui.Failure("the carrier has no interface %s" % interface)
        numbers = row.group(1).split()
        return int(numbers[1]), int(numbers[9])

    def start(self, image, cpus=1, memory=512, iommu=IOMMU):
        """Starts the machine with an image as its disk; the one before must have ended. iommu: as in qemu_command()."""
        if self.machine and self.machine.peer:
            raise ui.Failure("the carrier has a machine already")
        command = self._prepare(image, cpus, memory, iommu)
        self._to_peer = self._to_console = b""
        self.machine = Machine(self)
        self._wake[0].send(b"w")
        self.output("{ %s >%s/qemu.log 2>&1; echo '\x01qemu'\" ended $?\"; } & qemu=$!"
                    % (shlex.join(command), self.directory), 30)
        return self.machine

    def stop(self, timeout=60):
        """Takes the machine's power away."""
        machine = self.machine
        if machine and machine.peer and not self._closed:
            self.run("kill $(cat %s/pid)" % self.directory)
            machine.wait(timeout)

    def close(self):
        self._closed = True
        try:
            self._wake[0].send(b"w")
        except OSError:
            pass
        if self._pump_thread:
            self._pump_thread.join(10)
        for thing in (self._shell, self._console):
            if thing:
                thing.close()


class Machine:
    """Bulkhead's machine, as bochs.Machine is one: console, process (poll() and wait() only), powered_off(), tail()."""

    def __init__(self, owner, own=False):
        self.owner, self.own = owner, own
        self.console, self.peer = socket.socketpair()
        self.peer.setblocking(False)
        self.status = None
        self.process = self
        self._over = threading.Event()

    def ended(self, status, last=b""):
        """last: what the console has not taken yet."""
        self.status = status
        peer, self.peer = self.peer, None
        if peer:
            threading.Thread(target=self._finish, args=(peer, last), daemon=True).start()
        self._over.set()

    @staticmethod
    def _finish(peer, last):
        try:
            peer.setblocking(True)
            peer.sendall(last)
        except OSError:
            pass
        peer.close()

    def poll(self):
        return self.status if self._over.is_set() and self.status is not None else -1 if self._over.is_set() else None

    def wait(self, timeout=None):
        if not self._over.wait(timeout):
            raise subprocess.TimeoutExpired("qemu-system-x86_64", timeout)
        return self.poll()

    def powered_off(self):
        return self.poll() == 0

    def tail(self, lines=12):
        """The end of what QEMU said."""
        return self.owner.tail(lines)

    def close(self):
        if not self._over.is_set() and not self.own:
            self.owner.stop()
        self.console.close()
        if self.own:
            self.owner.close()


class BochsCarrier(Carrier):
    """The carrier inside Bochs."""

    directory = "/tmp"

    def __init__(self, memory, log=None, verbose=False, pace=False, kernel_log=None):
        """memory: MiB of the largest machine it will have."""
        super().__init__()
        if memory > MOST_MIB:
            raise ui.Failure("the nested rig can give a machine at most %d MiB here, and the configuration needs %d"
                             % (MOST_MIB, memory))
        self._mute = False
        self.work = tempfile.mkdtemp(prefix="bulkhead-carrier-")
        self.kernel_log = kernel_log or os.path.join(self.work, "kernel.log")
        self.disk = os.path.join(self.work, "run.img")
        with open(self.disk, "wb") as file:
            file.truncate(RUN_DISK_MIB << 20)
        boot, root = os.path.join(self.work, "boot.img"), os.path.join(self.work, "root.img")
        shutil.copyfile(carrier.boot_disk(bochs.IPS // 1000), boot)  # the firmware keeps its variables on it
        os.symlink(carrier.root(), root)                            # another name, so another lock: never written
        try:
            self.bochs = bochs.Machine(boot, 1, memory + CARRIER_MIB, log=log, verbose=verbose, pace=pace, msrs=carrier.MSRS,
                                       disks=[root, self.disk], control=True, kernel_log=self.kernel_log)
        except BaseException:
            shutil.rmtree(self.work, ignore_errors=True)
            raise
        self._begin(self.bochs.control, self.bochs.console)
        try:
            self._wait(rb"carrier: ready\r?\n", START_SECONDS, "it was ready")
            self.output(NETWORK)
        except BaseException:
            self.close()
            raise

    def _prepare(self, image, cpus, memory, iommu):
        size = os.path.getsize(image)
        if size > RUN_DISK_MIB << 20:
            raise ui.Failure("the nested rig takes images of at most %d MiB" % RUN_DISK_MIB)
        with open(self.disk, "r+b") as disk, open(image, "rb") as source:
            while chunk := source.read(1 << 20):
                disk.write(chunk)
        self.output("blockdev --flushbufs /dev/sdc")
        self.output(" && ".join("rm -f {0} && truncate -s {1}M {0}".format("/tmp/nvme%d" % n, NAMESPACE_MIB) for n in range(NAMESPACES)))
        return qemu_command("/dev/sdc", "serial,path=/dev/ttyS0", cpus, memory, "/tmp", iommu) + ["-pidfile", "/tmp/pid"]

    def tail(self, lines=12):
        return self._last_of_qemu(lines) + _last_of(self.kernel_log, lines)

    def _last_of_qemu(self, lines):
        if self._closed or self._mute:
            return ""
        self._mute = True  # when the shell does not answer, its failure ends here as well
        try:
            return self.run("tail -n %d /tmp/qemu.log" % lines, 20)[0]
        except ui.Failure:
            return ""
        finally:
            self._mute = False

    def close(self):
        super().close()
        self.bochs.close()
        shutil.rmtree(self.work, ignore_errors=True)


class LocalCarrier(Carrier):
    """This machine as the carrier: a shell in network and user namespaces of its own, which needs no root."""

    def __init__(self, accel=None):
        super().__init__()
        self.directory = tempfile.mkdtemp(prefix="bulkhead-nested-")
        self.accel = accel or {}
        here, there = socket.socketpair()
        self.shell = subprocess.Popen(["unshare", "-Urn", "sh"], stdin=there, stdout=there, stderr=there,
                                      preexec_fn=bochs.end_with_parent)
        there.close()
        self._begin(here, None)
        try:
            self.output(NETWORK)
        except BaseException:
            self.close()
            raise

    def _prepare(self, image, cpus, memory, iommu):
        disk = os.path.join(self.directory, "run.img")
        shutil.copyfile(image, disk)
        for index in range(NAMESPACES):
            with open(os.path.join(self.directory, "nvme%d" % index), "wb") as file:
                file.truncate(NAMESPACE_MIB << 20)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        path = os.path.join(self.directory, "console")
        if os.path.exists(path):
            os.unlink(path)
        listener.bind(path)
        listener.listen(1)
        threading.Thread(target=self._connect, args=(listener,), daemon=True).start()
        return qemu_command(disk, "socket,path=" + path, cpus, memory, self.directory, iommu, carrier.tree(), **self.accel) + \
            ["-pidfile", os.path.join(self.directory, "pid")]

    def _connect(self, listener):
        listener.settimeout(30)
        try:
            self._console = listener.accept()[0]
            self._wake[0].send(b"w")
        except OSError:
            pass
        finally:
            listener.close()

    def tail(self, lines=12):
        return _last_of(os.path.join(self.directory, "qemu.log"), lines)

    def close(self):
        super().close()
        for path in ("pid",):
            try:
                with open(os.path.join(self.directory, path), encoding="ascii") as file:
                    os.kill(int(file.read()), 15)
            except (OSError, ValueError):
                pass
        self.shell.terminate()
        self.shell.wait()
        shutil.rmtree(self.directory, ignore_errors=True)
