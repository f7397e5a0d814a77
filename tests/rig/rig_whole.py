"""A whole function of the machine in a Linux VM with two vCPUs, beside a virtual function, both named by their ids: their
interrupts move from vCPU to vCPU while packets flow, and the VF is in a VLAN."""
import re

import nested
import rig
import rig_nested
import rig_vf

WHOLE = "8086:10d3"              # the e1000e, which has no FLR: its port resets it
PF = "8086:10c9"
WHOLE_CARD = ("e1000e", "10.77.0.21", nested.PF_MACS[1])
VF_CARD = ("igbvf", "10.77.0.22", "52:54:00:aa:00:01")
LIVES = 2
MOVES = 40
FEWEST_INTERRUPTS = 20           # of one that was busy
LEAST_SHARE = 6                  # each vCPU had at least a sixth of it: each had it half of the time
FEWEST_PINGS = 10
VLAN = 10
# The wire's end is then in the VLAN, whose tag is on the wire and not in the world outside; and back.
VLAN_WORLD = ("ip link set br0 type bridge vlan_filtering 1 && bridge vlan add dev tap0 vid {0} && "
              "bridge vlan add dev br0 vid {0} self pvid untagged").format(VLAN)
PLAIN_WORLD = ("bridge vlan del dev br0 vid {0} self; bridge vlan del dev tap0 vid {0}; bridge vlan add dev br0 vid 1 self pvid untagged; "
               "ip link set br0 type bridge vlan_filtering 0").format(VLAN)
# All interrupts of a card to vCPU 1, to vCPU 0, and so on: not in step with the pings.
MOVE = "for n in $(seq %d); do for i in $(grep '%s' /proc/interrupts | sed 's/:.*//'); do echo $((1 + n %% 2)) > " \
       "/proc/irq/$i/smp_affinity; done; usleep 70000; done"


def _counts(boot, name):
    """{number of an interrupt of the card's: what each vCPU had of it}."""
    rows = re.findall(r"^ *(\d+): +(\d+) +(\d+) .*\b%s" % name, boot.output("cat /proc/interrupts"), re.M)
    return {number: (int(first), int(second)) for number, first, second in rows}


def _up(world, driver, address, mac):
    """The name of the driver's interface, which has its address then."""
    boot = world.boot
    name = boot.output("for i in /sys/class/net/*; do readlink $i/device/driver | grep -q /%s$ && echo ${i##*/}; done" % driver)
    boot.run("ip addr add %s/%d dev %s; ip link set %s up; "
             "for i in $(seq 60); do grep -q 1 /sys/class/net/%s/carrier && break; sleep 1; done" % (address, nested.PREFIX, name, name, name), 120)
    found = boot.output("cat /sys/class/net/%s/address" % name)
    world.check(name and found == mac, "whole: %s drives its card, with the card's own MAC" % driver, "%s %s" % (name, found))
    return name


def _moves(world, driver, name):
    """The card's interrupts change their vCPU while the VM pings."""
    boot, first = world.boot, _counts(world.boot, name)
    rig_vf.start_pings(world, "linux", nested.OUTSIDE)
    boot.run(MOVE % (MOVES, name), 300)
    sent, received, slowest = rig_vf.end_pings(world, "linux")
    world.check(sent >= FEWEST_PINGS and received == sent, "whole: %s: its interrupts move %d times, and no ping is lost" % (driver, MOVES),
                "%d sent, %d lost, slowest %.0f ms" % (sent, sent - received, slowest))
    last = _counts(boot, name)
    rose = {number: [new - old for old, new in zip(first[number], last[number])] for number in first}
    busy = [counts for counts in rose.values() if sum(counts) >= FEWEST_INTERRUPTS]
    world.check(busy and all(min(counts) * LEAST_SHARE >= sum(counts) for counts in busy),
                "whole: %s: each busy interrupt came to both vCPUs" % driver, str(rose))


def _down(world, name):
    world.boot.run("ip link set %s down; ip addr flush dev %s" % (name, name))


def _whole_card(world):
    name = _up(world, *WHOLE_CARD)
    _moves(world, WHOLE_CARD[0], name)
    _down(world, name)


def _vlan_card(world):
    name = _up(world, *VF_CARD)
    out = world.boot.output("ping -q -c 3 " + nested.OUTSIDE, 60)
    world.check(" 100% packet loss" in out, "whole: a VF in a VLAN does not reach who is not in it", out.splitlines()[-1])
    said, status = world.carrier.run(VLAN_WORLD)
    if status and "not supported" in said:  # a computer's own kernel need not have VLANs; the carrier's in Bochs does
        world.t.skip("nested: whole: the VF reaches who is in its VLAN", said.strip())
    else:
        try:
            world.check(status == 0, "whole: the world outside takes the VLAN's tag", said.strip())
            _moves(world, VF_CARD[0], name)
        finally:
            world.carrier.output(PLAIN_WORLD)
    _down(world, name)


def _alone(world):
    """What a Linux on two CPUs has anyhow."""
    boot = world.boot
    world.check(boot.seen(r"^  ok +CPUs +2 found \(MP Services\)"), "the firmware's two CPUs are found")
    world.check(boot.output("nproc") == "2", "Linux has two CPUs")
    clock = boot.output("cat /sys/devices/system/clocksource/clocksource0/current_clocksource")
    world.check(clock == "tsc", "its clock source is the TSC", clock)
    world.check(boot.output("seq 2000", 120).split() == [str(n) for n in range(1, 2001)], "the console loses no byte")


def whole(t, carrier):
    """A life with both cards, and one more with the one that has no FLR."""
    out = rig_nested.disk("whole", rig_nested.vm(
        "linux", "0-1", "192M", "kernel = k61", "initrd = k61.img", "cmdline = console=ttyS0,115200 quiet", "pci = " + WHOLE,
        "net0 = vf pf=%s mac=%s vlan=%d" % (PF, VF_CARD[2], VLAN)), {"k61": "6.1"}, modules=("e1000e", "igbvf"))
    with rig_nested.Boot(carrier, "whole", out, cpus=2, memory=448) as boot:
        world = rig_vf.World(t, boot, carrier, {"linux": "1"})
        boot.ready(rig_vf.BOOT_SECONDS)
        boot.expect(rig.PROMPT, 60)
        world.check(True, "Linux boots to a shell", "%.0f s" % boot.seconds())
        _alone(world)
        boot.run(rig_nested.LOAD_MODULES, 120)
        _whole_card(world)
        _vlan_card(world)
        boot.send("reboot")
        boot.ready(rig_vf.BOOT_SECONDS)
        boot.run(rig_nested.LOAD_MODULES, 120)
        _whole_card(world)
        resets = len(re.findall(r"function 03:00\.0: given: .*reset by its port", boot.text))
        world.check(resets == LIVES, "whole: the function without FLR was reset by its port before each life", "%d times" % resets)
        world.check(not boot.seen("PANIC|blocked: |quarantine"), "whole: nothing was blocked, nothing is in quarantine")
        boot.send("poweroff")
        world.check(boot.wait_off(120), "Linux powers off, and the machine", "%.0f s" % boot.seconds())
