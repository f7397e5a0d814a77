"""Which machine Bulkhead can run on here."""
import os

import bochs
import nested
import ui


def kvm_problem():
    """None when this machine itself can run QEMU's machine for Bulkhead, or the reason why it cannot."""
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
    return None


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
