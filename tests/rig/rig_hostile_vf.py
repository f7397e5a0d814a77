"""A hostile virtual function on the nested rig: tests/guest/hostile's programs for VFs in a VM that has one, beside a victim
that looks after its memory, and beside a Linux VM whose VF pings the world outside: it may lose nothing."""
import collections
import re
import time

import build
import nested
import rig
import rig_hostile
import rig_multiboot
import rig_nested
import rig_vf

ATTACKER_MAC = "52:54:00:aa:00:01"
PINGER = ("10.77.0.11", "52:54:00:aa:00:02")   # vf_spoof wants to have this MAC
KEYS = {"victim": "1", "attacker": "2", "pinger": "3"}
VICTIM_SECONDS = 180
VICTIM_HZ = 100                  # its memory is looked after here: its ticks are counted on the other rig
PROGRAM_SECONDS = 300
KEPT_SECONDS = 20                # wall time in which the console shows what it kept of a VM
FEWEST_PINGS = 10
DMA = r"VM attacker, VF 01:10\.0: DMA "
REFUSED = r"attacker: debug: net0, VF 01:10\.0: refused: "

# log: what the log says meanwhile. Bulkhead cannot tell whose a forged interrupt is: QEMU's come without a source.
Program = collections.namedtuple("Program", "name does log")
PROGRAMS = (
    Program("vf_spoof", "the mailbox: others' MACs, and others' frames",
            ("VM attacker, VF 0 asked for a MAC that it may not have: refused", "VM attacker, VF 0 asked to see others' packets.*: refused")),
    Program("vf_dma", "DMA to physical memory outside of the VM, to devices, BARs and beyond the address width",
            (DMA + "write to 0x[0-9a-f]+ blocked: no mapping", DMA + "read from 0x[0-9a-f]+ blocked: no mapping")),
    Program("vf_storm", "blocked DMA as fast as the card can",
            (r"VM attacker, VF 01:10\.0: more than \d+ blocked accesses in a second: its bus mastering is taken away",)),
    Program("vf_msi", "forged MSIs: each vector, and handles of the interrupt remapping table",
            (r"interrupt message, index \d+, blocked: interrupt that nobody gave it",)),
    Program("vf_mail", "a flood of random mailbox messages", ("VM attacker, VF 0 sent a message that means nothing: refused",)),
    Program("vf_bars", "BARs over memory, the APICs and other devices", (REFUSED + "a BAR outside the PCI windows",)),
    Program("vf_config", "configuration space: every offset and width, three values",
            (REFUSED + "write to a configuration register that is not shown", REFUSED + "write to extended configuration space")),
    Program("vf_msix", "the MSI-X table and its control, at random, while it fires",
            (r"attacker: warning: net0, VF 01:10\.0: interrupt \d stays off: it wants a message that is none",)),
    Program("vf_flr", "a storm of function level resets", (r"attacker: debug: net0, VF 01:10\.0: reset as the guest asks, 8 so far",)),
)


def _disk():
    programs = ",".join(program.name for program in PROGRAMS)
    text = "[machine]\nconsole = serial\non_idle = stay\n" + \
        rig_nested.vm("victim", "0", "8M", "kernel = victim.elf", "cmdline = seed=1 hz=%d" % VICTIM_HZ) + \
        rig_nested.vm("attacker", "1", "8M", "kernel = hostile.elf", "cmdline = seed=1 ask=1 test=" + programs,
                      "net0 = vf pf=%s mac=%s" % (rig_vf.PF, ATTACKER_MAC), "log = debug") + \
        rig_nested.vm("pinger", "2", "160M", "kernel = k61", "initrd = k61.img", "cmdline = console=ttyS0,115200 quiet",
                      "net0 = vf pf=%s mac=%s" % (rig_vf.PF, PINGER[1]))
    return rig_nested.disk("hostile-vf", text, {"k61": "6.1", **{name: rig_multiboot.guest(name) for name in ("victim.elf", "hostile.elf")}},
                           modules=("igbvf",))


def _attack(world, program):
    """One program, and the pings from before its first access until after its last."""
    begin = len(world.boot.text)
    rig_vf.start_pings(world, "pinger", nested.OUTSIDE)
    world.front("attacker")
    world.boot.type("\r")
    match = world.boot.expect(r"^hostile: %s: (.*): (ok|BAD)\n" % program.name, PROGRAM_SECONDS)
    world.check(match.group(2) == "ok", "hostile VF: " + program.does, match.group(1))
    sent, received, slowest = rig_vf.end_pings(world, "pinger")
    world.check(sent >= FEWEST_PINGS and received == sent, "hostile VF: %s: the ping beside it loses nothing" % program.name,
                "%d sent, %d lost, slowest %.0f ms" % (sent, sent - received, slowest))
    found = [re.search(".*%s.*" % line, world.boot.text[begin:]) for line in program.log]
    world.check(all(found), "hostile VF: %s: the log shows its containment" % program.name,
                found[0].group(0) if all(found) else "no " + ", no ".join(line for line, seen in zip(program.log, found) if not seen))


def _victim(world):
    boot = world.boot
    boot.type(rig.KEY + KEYS["victim"])
    end = time.monotonic() + KEPT_SECONDS
    while time.monotonic() < end:
        boot.listen()
    kept = re.findall(rig_hostile.TICK, boot.text, re.M)
    while int(boot.expect(rig_hostile.TICK, VICTIM_SECONDS).group(1)) <= int(kept[-1][0]):
        pass
    # Its clock is not judged here: the carrier's CPUs are those of an emulator, and shared by all that runs on it.
    lines = re.findall(rig_hostile.TICK, boot.text, re.M)
    world.check(all(line[2] == "ok" for line in lines), "hostile VF: the victim goes on, its memory is right",
                "%s ticks, worst gap %s us" % (lines[-1][0], lines[-1][3]))


def hostile_vf(t, carrier):
    """All programs on one boot, one after the other."""
    build.ninja(["hostile_guests"], what="building the hostile guests")
    with rig_nested.Boot(carrier, "hostile-vf", _disk(), cpus=3, memory=512) as boot:
        world = rig_vf.World(t, boot, carrier, KEYS)
        boot.expect("^victim: up", VICTIM_SECONDS)
        world.front("pinger")
        boot.ready(rig_vf.BOOT_SECONDS)
        rig_vf.up(world, "pinger", *PINGER)
        for program in PROGRAMS:
            _attack(world, program)
        world.front("attacker")
        boot.expect(r"^hostile: done", 60)
        _victim(world)
        world.check(not boot.seen(rig_hostile.PANIC) and len(re.findall("^victim: up", boot.text, re.M)) == 1,
                    "hostile VF: the host did not panic, the victim was not restarted")
