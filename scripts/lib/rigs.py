"""Which machine Bulkhead can run on here."""
import functools
import os
import subprocess

import bochs
import nested
import ui

PROBE_SECONDS = 20
# What the local carrier does before it starts QEMU (nested.NETWORK), each tried in namespaces that end with the try:
# what a container denies is seen nowhere else. The last column: what is missing, and what helps.
NEEDS = (
    ("true", "user and network namespaces cannot be made (unshare -Urn: sysctl kernel.unprivileged_userns_clone=1, user.max_user_namespaces; "
     "a container must be allowed to)"),
    ("ip link set lo up", "a namespace's network cannot be set up (ip, of iproute2)"),
    ("ip link add br0 type bridge", "a bridge cannot be made in a namespace (modprobe bridge)"),
    ("ip tuntap add tap0 mode tap", "tap devices cannot be made in a namespace (modprobe tun; a container needs the device /dev/net/tun)"),
)


def _try(argv):
    """None when the command works, otherwise the last that it said."""
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PROBE_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as failure:
        return str(failure)
    said = done.stdout.decode("utf-8", "replace").strip().splitlines() or ["exit status %d" % done.returncode]
    return said[-1] if done.returncode else None


def _local_problem():
    """None when a user's own namespaces can have what nested.LocalCarrier puts into them, or the first thing that is missing."""
    for command, missing in NEEDS:
        said = _try(["unshare", "-Urn", "sh", "-c", command])
        if said is not None:
            return "%s: %s" % (missing, said)
    return None


def host_problem():
    """None when there is nested VT-x that this user may have, or the reason why not."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            if " vmx" not in file.read():
                return "this machine's CPUs have no VT-x (or it is switched off in the firmware setup)"
    except OSError:
        return "/proc/cpuinfo cannot be read"
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return "there is no /dev/kvm (modprobe kvm_intel)"
    except OSError as failure:  # a container may show a device that nobody in it can open
        return "/dev/kvm cannot be opened by this user (add it to the group kvm): %s" % failure.strerror
    try:
        with open("/sys/module/kvm_intel/parameters/nested", encoding="ascii") as file:
            if file.read().strip() not in ("Y", "1"):
                return "nested VT-x is off (modprobe kvm_intel nested=1)"
    except OSError:
        return "the module kvm_intel is not loaded"
    return None


@functools.lru_cache(maxsize=1)
def kvm_problem():
    """None when this machine itself can run QEMU's machine for Bulkhead, or the reason why it cannot."""
    return host_problem() or _local_problem()


def choose(wanted):
    """The rig's name: `wanted` if it works, the best one if `wanted` is None. Raises Failure with what to do."""
    problem = kvm_problem()
    if wanted in (None, "nested") and not problem:
        return "nested"
    if not bochs.find():
        raise ui.Failure("there is no rig to run on.\n  bochs: not there; run scripts/setup\n  nested, without Bochs: %s" % problem)
    return wanted or "bochs"


def nested_carrier(memory, log=None, pace=False, kernel_log=None):
    """What nested machines of up to `memory` MiB run on: this computer, or a Linux inside Bochs."""
    if kvm_problem() is None:
        return nested.LocalCarrier()
    return nested.BochsCarrier(memory, log=log, verbose=bool(log), pace=pace, kernel_log=kernel_log)


def nested_machine(image, cpus, memory, log=None, pace=False):
    """A machine on the nested rig with a carrier of its own."""
    owner = nested_carrier(memory, log, pace)
    try:
        machine = owner.start(image, cpus, memory)
    except BaseException:
        owner.close()
        raise
    machine.own = True
    return machine
