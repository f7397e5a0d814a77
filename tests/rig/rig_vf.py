"""Devices of the machine in VMs, on the nested rig: two Linux VMs, each with a virtual function of the igb and the stock
igbvf driver, one of them with a virtual NVMe controller as its disk, and a small VM that is restarted beside them."""
import base64
import gzip
import os
import re
import time

import build
import guests
import nested
import rig
import rig_life
import rig_multiboot
import rig_nested

PF, NVME = "01:00.0", "02:00.0"
VMS = {"web": ("1", "k61", "10.77.0.11", "52:54:00:aa:00:01"), "db": ("2", "k612", "10.77.0.12", "52:54:00:aa:00:02")}
SMALL_KEY, SMALL_MAC = "3", "52:54:00:aa:00:03"
DISK = "/dev/nvme0n1"
DISK_BLOCKS = 8192               # of 1 KiB
BOOT_SECONDS = 900               # two kernels at once, on one emulated processor
COPY_MIB = int(os.environ.get("VF_COPY_MIB", "64"))   # in each direction
COPY_SECONDS = 900
STILL_SECONDS = 6                # without a packet: a copy has ended
IDLE_SECONDS = 10
POLL_PERCENT = 0.5               # of a CPU, for looking at an idle card
MTU = 9000                       # in an emulator packets cost, and bytes do not
COALESCE_US = 10000              # the longest that igbvf takes: fewer interrupts, each of which is many exits down there
FEWEST_PACKETS = 16              # of a MiB: the card cuts segments of 64 KiB itself
OUTSIDE_STREAM = "/tmp/stream"   # on the carrier
RESTARTS = 50
ENDS = (  # how a VM ends whose card is at work: what does it, what is said of it
    ("a triple fault", lambda world: (world.front("small"), world.boot.type("\r")), "small: ERROR: stopped: triple fault"),
    ("the operator's order", lambda world: world.operator("stop small"), "small: stopped: stopped by the operator"),
)
TAKEN = r"small: net0, VF \S+ taken back: DMA quiet, interrupts torn down, .*, IOTLB flushed; memory will be scrubbed before reuse"
GIVEN = r"small: net0, VF \S+ given: isolation group checked, DMA quiet, .*, memory scrubbed, translations set"
WIRE_SHARE = 16                  # VM to VM: at most one packet on the card's wire, of so many by the VFs; of other copies more
PING_END = "touch /tmp/enough; wait; cat /tmp/pings"
PING_END_SECONDS = 120
PING_ROUND = r"^(\d+) packets transmitted, (\d+) packets received"
PING_TIMES = r"^round-trip min/avg/max = [0-9.]+/[0-9.]+/([0-9.]+) ms"
EXITS_PER_INTERRUPT = 4          # by EPT violation: a Linux that uses the APIC by memory ends interrupts so, and sets its timer


def _config():
    text = "[machine]\nconsole = serial\n"
    for cpu, (name, (_, kernel, _, mac)) in enumerate(VMS.items()):
        disk = ["disk0 = nvme-vf pf=%s namespace=1" % NVME] if name == "web" else []
        text += rig_nested.vm(name, str(cpu), "160M", "kernel = " + kernel, "initrd = %s.img" % kernel,
                              "cmdline = console=ttyS0,115200 quiet", "net0 = vf pf=%s mac=%s" % (PF, mac), *disk)
    return text + rig_nested.vm("small", "2", "8M", "kernel = busy.elf", "cmdline = seed=1 test=vf_busy", "net0 = vf pf=%s mac=%s" % (PF, SMALL_MAC),
                                "log = debug")


class World:
    """The boot and who is in front. keys: {VM: the key that brings it there}."""

    def __init__(self, t, boot, carrier, keys):
        self.t, self.boot, self.carrier, self.keys = t, boot, carrier, keys

    def front(self, name):
        self.boot.type(rig.KEY + self.keys[name])
        self.boot.expect(r"^--- %s \(%s\)" % (name, self.keys[name]), 60)

    def run(self, name, command, timeout=60):
        self.front(name)
        return self.boot.output(command, timeout)

    def operator(self, command, timeout=60):
        """What a command at Bulkhead's prompt prints. The prompt is drawn anew when somebody's line came between, so
        the answer begins behind the command itself."""
        return self.boot.ask(command, r"(?s)%s\n(.*?)^bulkhead> " % re.escape(command), timeout).group(1)

    def check(self, good, what, detail=""):
        self.t.check(good, "nested: " + what, detail)


def up(world, name, address, mac):
    """Loads the drivers and gives the card its address, in the VM in front."""
    world.boot.run("true", BOOT_SECONDS)
    world.boot.run(rig_nested.LOAD_MODULES + "; ip addr add %s/%d dev eth0; ip link set eth0 mtu %d up; stream coalesce eth0 %d"
                   % (address, nested.PREFIX, MTU, COALESCE_US), 120)
    state = world.boot.output("for i in $(seq 60); do grep -q 1 /sys/class/net/eth0/carrier && break; sleep 1; done; "
                              "cat /sys/class/net/eth0/carrier /sys/class/net/eth0/address", 120).split()
    driver = world.boot.output("readlink /sys/class/net/eth0/device/driver")
    world.check(state == ["1", mac] and driver.endswith("igbvf"), "%s: igbvf, its own MAC, link up" % name, " ".join(state))


def start_pings(world, name, target):
    """A VM pings until end_pings(). A ping that is interrupted does not wait for its last answer, and one lost of some hundreds
    is "0% packet loss" to busybox: so it is one after the other, of a few packets each, and all of them are counted."""
    world.run(name, "rm -f /tmp/enough; (while [ ! -e /tmp/enough ]; do ping -q -i 0.1 -c 10 %s; done) > /tmp/pings 2>&1 & true" % target)


def end_pings(world, name):
    """(sent, received, the slowest in ms) since start_pings()."""
    text = world.run(name, PING_END, PING_END_SECONDS)
    rounds = re.findall(PING_ROUND, text, re.M)
    return (sum(int(sent) for sent, _ in rounds), sum(int(received) for _, received in rounds),
            max(map(float, re.findall(PING_TIMES, text, re.M)), default=0))


def _pings(world):
    for name, target in (("web", VMS["db"][2]), ("db", VMS["web"][2]), ("web", nested.OUTSIDE), ("db", nested.OUTSIDE)):
        out = world.run(name, "ping -q -c 4 " + target, 60)
        world.check(" 0% packet loss" in out, "%s reaches %s" % (name, target), out.splitlines()[-1])
    out = world.carrier.output("ping -q -c 4 " + VMS["web"][2])
    world.check(" 0% packet loss" in out, "the world outside reaches web", out.splitlines()[-1])


def _exits(world, name):
    """{kind: count} of a VM's one vCPU, and "injected": its interrupts."""
    text = world.operator("stats " + name)
    found = {kind: int(count) for kind, count in re.findall(r"^  (\S.*?) +(\d+) +\d+\.\d %$", text, re.M)}
    found["injected"] = int(re.search(r"(\d+) interrupts injected", text).group(1))
    return found


def _packets(world):
    """{VM: packets of its card, in and out}, as Bulkhead counts them: nothing is asked of the guests."""
    rows = re.findall(r"^  \d+ +\S+ +(\w+) +(?:[0-9a-f]{2}:){5}\S+ +\d+ \S+ +\S+ +(\d+) +(\d+) ", world.operator("vfs"), re.M)
    return {name: int(received) + int(sent) for name, received, sent in rows}


def _run(world, who, command, timeout=60):
    """In a VM, or in the world outside (None)."""
    return world.run(who, command, timeout) if who else world.carrier.output(command, timeout)


def _stream(who):
    return "stream" if who else OUTSIDE_STREAM


def _copy(world, source, target):
    """COPY_MIB through TCP from one to the other, checked by their sums. Answers {VM: (exits by kind, packets)} of it: the
    consoles are silent meanwhile."""
    _run(world, target, "%s receive 5001 > /tmp/got 2>&1 & true" % _stream(target))
    _run(world, source, "(sleep 2; %s send %s 5001 %d > /tmp/sent 2>&1) & true"
         % (_stream(source), VMS[target][2] if target else nested.OUTSIDE, COPY_MIB))
    wire = sum(world.carrier.counters("tap0"))
    start, first, before = time.monotonic(), _packets(world), {name: _exits(world, name) for name in VMS}
    last, still = first, 0
    while still < 2 and time.monotonic() - start < COPY_SECONDS:
        time.sleep(STILL_SECONDS)
        now = _packets(world)
        moved = sum(now.values()) - sum(first.values())
        still = still + 1 if now == last and moved >= COPY_MIB * FEWEST_PACKETS else 0
        last = now
    seconds = time.monotonic() - start - 2 * STILL_SECONDS
    after = {name: _exits(world, name) for name in VMS}
    wire = sum(world.carrier.counters("tap0")) - wire
    sent, got = (_run(world, who, "cat /tmp/%s" % what, 120).split() for who, what in ((source, "sent"), (target, "got")))
    world.check(len(sent) == 2 and sent == got and int(sent[1]) == COPY_MIB << 20, "%d MiB by TCP from %s to %s, the same checksum"
                % (COPY_MIB, source or "outside", target or "outside"), "%s, %s; %.0f s, %d KiB/s"
                % (" ".join(sent), " ".join(got), seconds, COPY_MIB * 1024 / seconds))
    moved, local = sum(last.values()) - sum(first.values()), source and target
    world.check((wire * WIRE_SHARE <= moved) == bool(local), "%s to %s: %s" % (source or "outside", target or "outside",
                "it stays in the card's own switch" if local else "it passes the card's wire"),
                "%d packets on the wire, %d by the VFs" % (wire, moved))
    return {name: ({kind: after[name][kind] - before[name].get(kind, 0) for kind in after[name]}, last[name] - first[name])
            for name in VMS}


def _table(world, name, exits, packets):
    """Exits by reason per 1,000 packets. Data is moved without one: what is left are interrupts, and time."""
    detail = ", ".join("%s %.1f" % (kind, count * 1000 / packets)
                       for kind, count in sorted(exits.items(), key=lambda row: -row[1]) if count)
    quiet = exits.get("port access", 0) * 100 < packets and exits.get("EPT violation", 0) <= EXITS_PER_INTERRUPT * exits["injected"]
    world.check(packets > FEWEST_PACKETS * COPY_MIB and quiet, "%s: no exits but for interrupts and time; per 1,000 packets" % name, detail)


def _traffic(world):
    """The world outside takes large packets as well, and has the same program."""
    packed = base64.b64encode(gzip.compress(guests.helper(rig.WORK, "stream"), 9)).decode()
    world.carrier.output("echo %s | base64 -d | gunzip > %s; chmod +x %s; for i in tap0 br0; do ip link set $i mtu %d; done"
                         % (packed, OUTSIDE_STREAM, OUTSIDE_STREAM, MTU))
    for source, target in (("web", "db"), ("db", "web"), ("web", None), (None, "web")):
        measured = _copy(world, source, target)
        if (source, target) == ("web", "db"):
            for name in VMS:
                _table(world, name, *measured[name])


def _disk(world):
    """A file system on the NVMe VF outlives a reboot of its VM."""
    made = world.run("web", "mke2fs %s %d > /dev/null && mkdir -p /mnt && mount -t ext4 %s /mnt && "
                     "dd if=/dev/urandom of=/mnt/file bs=1M count=4 2>/dev/null; md5sum < /mnt/file; umount /mnt"
                     % (DISK, DISK_BLOCKS, DISK), 120)
    world.boot.send("reboot")
    world.boot.expect(r"^bulkhead-guest: ready", BOOT_SECONDS)
    up(world, "web", *VMS["web"][2:])
    found = world.run("web", "mkdir -p /mnt && mount -t ext4 %s /mnt && md5sum < /mnt/file; umount /mnt" % DISK, 120)
    world.check(len(made) > 30 and found.split()[:1] == made.split()[:1], "web: its disk, a VF of the NVMe controller, keeps its data over a reboot",
                found)


def _said(world, pattern, since):
    """Waits until the console has shown it since then; questions to the prompt meanwhile may have read it already."""
    start = time.monotonic()
    while not re.search(pattern, world.boot.text[since:]):
        if time.monotonic() - start > BOOT_SECONDS:
            raise rig.Timeout("nothing says: " + pattern)
        world.boot.listen()


def _owners(world):
    """What the prompt says of who has which function."""
    rows = re.findall(r"^\S+:\S+ .*: given to (\w+)", world.operator("pci"), re.M)
    world.check(sorted(rows) == ["db", "small", "web", "web"], "`pci` says who has each function", " ".join(rows))


def _books(world):
    """What a leak in the IOMMU would change: domains, interrupts and pages."""
    counts = re.search(r"^(\d+) of \d+ domains .*, (\d+) interrupts .*, (\d+) pages", world.operator("iommu"), re.M)
    return counts.groups() if counts else None


def _wait_for_small(world):
    """Until the small VM's card sends; how many packets it had when that was seen."""
    start, first = time.monotonic(), _packets(world).get("small", 0)
    while time.monotonic() - start < BOOT_SECONDS:
        now = _packets(world).get("small", 0)
        if now > first:
            return now
        first = min(first, now)      # a new life may count anew
    raise rig.Timeout("small does not send")


def _end(world, what, order, said):
    """The small VM ends while its card sends and receives; started again, it has a card that works."""
    since, start = len(world.boot.text), time.monotonic()
    order(world)
    _said(world, said, since)
    taken = re.search(TAKEN, world.boot.text[since:])
    since = len(world.boot.text)
    world.operator("start small")
    _said(world, GIVEN, since)
    packets = _wait_for_small(world)
    world.check(taken, "%s ends a VM whose VF was sending: taken back with a receipt; given anew, it sends" % what,
                "%d packets; %.0f s" % (packets, time.monotonic() - start))


def _restarts(world):
    """The small VM, whose VF sends without end and takes what comes, is killed and started again and again, beside a ping
    that loses nothing."""
    begin = len(world.boot.text)
    world.operator("start small")
    _wait_for_small(world)
    before = _books(world)
    start_pings(world, "web", VMS["db"][2])
    start = time.monotonic()
    for _ in range(RESTARTS):
        shown = len(world.boot.text)
        world.operator("reset small")
        _said(world, GIVEN, shown)
        _wait_for_small(world)
    seconds = time.monotonic() - start
    for end in ENDS:
        _end(world, *end)
    sent, received, slowest = end_pings(world, "web")
    world.check(sent >= RESTARTS and received == sent, "%d restarts of a VM whose VF was sending, a crash and a stop: no ping beside it is lost" % RESTARTS,
                "%d sent, %d lost, slowest %.0f ms" % (sent, sent - received, slowest))
    after = _books(world)
    world.check(before is not None and before == after, "and no domain, interrupt or table page", "%s, %s; %.0f s" % (before, after, seconds))
    # From the second life on: where code runs, large pages are split in the first, and stay so (struct ept, nx_large).
    free = rig_life.free(world.boot.text[begin:], "small")[1:]
    world.check(len(free) >= RESTARTS + len(ENDS) - 1 and len(set(free)) == 1, "nor a page of Bulkhead's or of the guests'",
                "%d starts; KiB and MiB free: %s" % (len(free), "; ".join(" ".join(row) for row in sorted(set(free)))))


def _polling(world):
    """Nobody wants anything of the card: Bulkhead looks at it all the same, and says what that takes."""
    pattern = r"polled (\d+) times in (\d+) ms, for (\d+) us in all"
    first = [int(figure) for figure in re.search(pattern, world.operator("vfs")).groups()]
    time.sleep(IDLE_SECONDS)
    polls, ms, us = (int(new) - old for old, new in zip(first, re.search(pattern, world.operator("vfs")).groups()))
    share = us / (10 * ms)
    world.check(polls > 0 and share <= POLL_PERCENT, "looking at the idle card takes at most %.1f %% of a CPU" % POLL_PERCENT,
                "%.2f %%: %d times in %.1f s, %d us each, though each register is an exit to an emulator" % (share, polls, ms / 1000, us / max(polls, 1)))


def _resets(world):
    """Linux resets the VF by itself, as it does for whoever gives it to another driver, and finds it fresh."""
    for name, (_, _, address, _) in VMS.items():
        out = world.run(name, "D=$(readlink /sys/class/net/eth0/device); D=${D##*/}; cd /sys/bus/pci; echo $D > drivers/igbvf/unbind; "
                        "cat devices/$D/reset_method; echo 1 > devices/$D/reset; echo status $?; echo $D > drivers/igbvf/bind; cd /; "
                        "ip addr add %s/%d dev eth0; ip link set eth0 up; for i in $(seq 60); do grep -q 1 /sys/class/net/eth0/carrier && "
                        "break; sleep 1; done; ping -q -c 4 %s" % (address, nested.PREFIX, nested.OUTSIDE), 180)
        world.check("flr" in out and "status 0" in out and " 0% packet loss" in out, "%s: a function level reset by Linux; igbvf works again" % name,
                    " ".join(out.split()))


def functions(t, carrier):
    """Everything about VFs on one boot."""
    build.ninja(["hostile_guests"], what="building the hostile guests")
    out = rig_nested.disk("vf", _config(), {"k61": "6.1", "k612": "6.12", "busy.elf": rig_multiboot.guest("hostile.elf")},
                          modules=("igbvf", "nvme", "crc32c-generic", "ext4"))
    with rig_nested.Boot(carrier, "vf", out, cpus=3, memory=512) as boot:
        world = World(t, boot, carrier, {"small": SMALL_KEY, **{name: row[0] for name, row in VMS.items()}})
        boot.expect(r"core: ready after", BOOT_SECONDS)
        world.operator("stop small")  # until it is wanted: it never rests
        world.front("web")
        boot.ready(BOOT_SECONDS)
        up(world, "web", *VMS["web"][2:])
        world.front("db")
        up(world, "db", *VMS["db"][2:])
        _owners(world)
        _pings(world)
        _polling(world)
        _traffic(world)
        _restarts(world)
        _disk(world)
        _resets(world)
        world.check(not boot.seen("PANIC|blocked: |quarantine"), "nothing was blocked, nothing is in quarantine")
