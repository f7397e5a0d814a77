"""The rules of the processor and of the PC (tests/guest/rules), each checked from inside a VM: several VMs of one machine, so
that one boot does for all that one model of processor has."""
import os
import re

import bochs
import build
import make_image
import rig

SECONDS = 300        # wall time for all of them, on a busy machine
MEMORY_MIB = 8
KERNEL = "rules.elf"
KERNELS = {"tasks": "tasks.elf"}  # hardware task switches: there are none in 64-bit mode, where the rules run
# Machine, its model of processor, and its VMs. VM: its CPUs, more of its configuration, the rules it checks one after the other, and
# how many checks each has at least: a rule that was cut short fails.
VMS = (
    ("cpu", 1, "", {"exceptions": 300, "debug": 100, "paging": 45000, "nmi": 9, "events": 18, "tsc": 17, "msr": 2000, "syscall": 27,
                    "pcid": 30, "umip": 170, "features": 190, "real": 46}),
    ("lines", 1, "compat = qemu\n", {"pic": 50, "pit": 34, "hpet": 23, "ioapic": 86, "mmio": 1600, "kbd": 70, "ports": 13, "fw_cfg": 20,
                                     "testdev": 27}),
    ("clock", 1, "", {"rtc": 34}),
    ("tasks", 1, "", {"tasks": 146}),
    ("apic", 2, "", {"apic": 50, "apic_modes": 550, "apic_ipi": 37, "fairness": 300}),
)
# What the other model lacks: protection keys, UMIP, more components of XSAVE.
NEWER_VMS = (("newer", 1, "", {"pku": 4900, "umip": 340, "features": 200}),)
MACHINES = (("rules", bochs.CPU_MODEL, VMS), ("rules-newer", bochs.NEWER_CPU_MODEL, NEWER_VMS))


def _disk(machine, vms):
    where = rig.directory(machine)
    text, cpu = "[machine]\non_idle = stay\n", 0
    for name, cpus, more, rules in vms:
        text += "\n[vm %s]\ncpus = %d%s\nmemory = %dM\nkernel = %s\ncmdline = cpus=%d memory=%d test=%s\nlog = error\n%s" \
            % (name, cpu, "-%d" % (cpu + cpus - 1) if cpus > 1 else "", MEMORY_MIB, KERNELS.get(name, KERNEL), cpus, MEMORY_MIB << 20,
               ",".join(rules), more)
        cpu += cpus
    config = os.path.join(where, "bulkhead.conf")
    with open(config, "w", encoding="utf-8") as file:
        file.write(text)
    for kernel in (KERNEL, *KERNELS.values()):
        rig.link(os.path.join(build.BUILD, "guest", kernel), os.path.join(where, kernel))
    disk = os.path.join(where, "disk.img")
    make_image.make(config, disk, efi=build.LOADER, check=False)
    return disk, cpu


def _run(t, machine, model, vms):
    disk, cpus = _disk(machine, vms)
    with rig.Boot(machine, disk, cpus, memory=256, cpu_model=model) as boot:
        boot.expect(r"core: ready", 120)
        for digit in range(1, len(vms) + 1):  # in the front there is room for every failure
            if digit > 1:
                boot.type(rig.KEY + str(digit))
            boot.expect(r"^rules: done", SECONDS)
        text, seconds = boot.text, boot.seconds()
    for name, _, _, rules in vms:
        for rule, least in rules.items():
            said = re.search(r"rules: %s: (\d+) checks, (\d+) failed$" % rule, text, re.M)
            failures = re.findall(r"rules: FAIL %s: (.*)" % rule, text)
            t.check(said and int(said.group(1)) >= least and said.group(2) == "0", "%s: %s" % (machine, rule),
                    "%s checks, %s failed: %s" % (said.group(1), said.group(2), "; ".join(failures[:5])) if said
                    else "VM '%s' did not finish it" % name)
    t.check(text.count("rules: done") == len(vms), "%s: every VM came to its end" % machine, "%.0f s" % seconds)


def run(t):
    build.configure()
    build.ninja(["rules_guest", "tasks"], what="building the rules")
    for machine in MACHINES:
        _run(t, *machine)
