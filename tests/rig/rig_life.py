"""The lives of several VMs: two Linuxes side by side, what follows a crash, and fifty restarts next to a VM that counts."""
import os
import re

import build
import guests
import rig

RESTARTS = 50


def _small_guests():
    build.configure()
    build.ninja(["multiboot_hello", "hostile_guests"], what="building the small guests")
    return os.path.join(build.BUILD, "guest")


def _vm(name, cpus, memory, more):
    return "[vm %s]\ncpus = %s\nmemory = %s\n%s\n" % (name, cpus, memory, "\n".join(more))


def two_linux(t):
    """Two VMs with two vCPUs each come up together; one powers off while the other goes on."""
    linux = ["kernel = vmlinuz", "initrd = initrd.img", "cmdline = console=ttyS0,115200 quiet"]
    disk = rig.disk("life-two", _vm("red", "0-1", "192M", linux) + _vm("blue", "2-3", "192M", linux),
                    [("vmlinuz", guests.kernel(guests.DEMO_KERNEL)), ("initrd.img", rig.initramfs())])
    with rig.Boot("life-two", disk, cpus=4, memory=640) as boot:
        boot.ready(300)
        boot.expect(rig.PROMPT, 120)
        t.check(boot.output("nproc") == "2", "life: red is up with two CPUs", "%.0f s" % boot.seconds())
        boot.type(rig.KEY + "2")
        boot.expect(r"--- blue \(2\), running", 30)
        boot.expect(rig.PROMPT, 300)
        t.check(boot.output("nproc") == "2", "life: blue is up beside it", "%.0f s" % boot.seconds())
        boot.type(rig.KEY + "1")
        boot.expect(r"--- red \(1\)", 30)
        boot.send("poweroff")
        boot.expect(r"red: stopped: the guest powered off", 120)
        boot.type(rig.KEY + "2")
        boot.expect(r"--- blue \(2\), running", 30)
        t.check(boot.output("echo alive", 60) == "alive", "life: blue goes on when red has powered off")
        boot.send("poweroff")
        t.check(boot.wait_off(120), "life: the machine goes off with the last one", "%.0f s in all" % boot.seconds())


def crashes(t):
    """A triple fault under each value of on_crash, all at once, beside a VM that powers off by itself."""
    where = _small_guests()
    kernel = "kernel = hello.elf"
    config = "".join(_vm(name, str(cpu), "8M", [kernel, "cmdline = triple", "on_crash = " + name])
                     for cpu, name in enumerate(("stop", "dump", "restart")))
    config += _vm("calm", "3", "8M", [kernel, "cmdline = poweroff"])
    disk = rig.disk("life-crashes", config, [("hello.elf", os.path.join(where, "multiboot_hello.elf"))])
    with rig.Boot("life-crashes", disk, cpus=4, memory=256) as boot:
        off = boot.wait_off(150)
    for name in ("stop", "dump", "restart"):
        t.check(boot.seen(r"%s: ERROR: stopped: triple fault" % name), "life: on_crash = %s ends stopped" % name)
        t.check(boot.seen(r"%s/0: ERROR: triple fault" % name), "life: on_crash = %s reports first" % name)
    t.check(boot.seen(r"=dump dump 0: bulkhead-dump 1 vcpus 1") and boot.seen(r"=dump dump \d+: end lines \d+ checksum")
            and not boot.seen(r"=dump (stop|restart) "), "life: on_crash = dump, and only that, dumps; the dump is whole")
    rig.check_replay(t, "life: the dump of the crashed VM replays", boot.transcript_path, "dump")
    restarts = len(re.findall(r"restart: triple fault: restarting from pristine images", boot.text))
    t.check(restarts == 4 and boot.seen(r"restart: ERROR: 5 crashes in a row"),
            "life: on_crash = restart restarts, and gives up after five quick crashes", "%d restarts" % restarts)
    t.check(boot.seen(r"calm: stopped: the guest powered off") and off, "life: then the machine goes off",
            "%.0f s" % boot.seconds())


def no_iommu(t):
    """A VM that asks for a device on a machine without VT-d, beside one that does not."""
    where = _small_guests()
    hello = ["kernel = hello.elf", "cmdline = poweroff"]
    config = _vm("wants", "0", "8M", hello + ["net0 = vf pf=01:00.0"]) + _vm("calm", "1", "8M", hello)
    disk = rig.disk("life-no-iommu", config, [("hello.elf", os.path.join(where, "multiboot_hello.elf"))])
    with rig.Boot("life-no-iommu", disk, cpus=2, memory=256) as boot:
        off = boot.wait_off(120)
    t.check(boot.seen(r"\] wants: ERROR: .*no VT-d"), "life: without VT-d no VM gets a device, and the reason is said")
    t.check(off and boot.seen(r"calm: stopped: the guest powered off") and not boot.seen(r"wants: stopped"),
            "life: the other VM starts, and ends the machine", "%.0f s" % boot.seconds())


def free(text, name):
    """[(KiB of Bulkhead's own memory, MiB of the guests') that are free at each start of the VM], as text. Its log has to show
    debug lines."""
    return re.findall(name + r": debug: own memory: (\d+) KiB free, guest memory: (\d+) MiB free\n", text)


def _restart_count(boot):
    boot.send("vms")
    return int(boot.expect(r"^..2  again +\S+ +\d+ +\d+ MiB +(\d+)  .*\n", 60).group(1))


def restarts(t):
    """One VM reboots for ever; the operator stops and starts it. Another counts its timer's ticks meanwhile."""
    where = _small_guests()
    config = "[machine]\nlog = debug\n"
    config += _vm("counter", "0", "8M", ["kernel = victim.elf"])
    config += _vm("again", "1", "8M", ["kernel = hello.elf", "cmdline = reboot"])
    disk = rig.disk("life-restarts", config, [("victim.elf", os.path.join(where, "victim.elf")),
                    ("hello.elf", os.path.join(where, "multiboot_hello.elf"))])
    with rig.Boot("life-restarts", disk, cpus=2, memory=256) as boot:
        boot.expect(r"victim: tick", 120)
        boot.to_prompt(30)
        count = _restart_count(boot)
        while count < RESTARTS and boot.seconds() < 100:
            count = _restart_count(boot)
        boot.send("stop again")
        boot.expect(r"again: stopped: stopped by the operator", 60)
        boot.type(rig.KEY + "1")
        boot.expect(r"victim: tick", 60)  # and the limit in rate for `again` has recovered
        boot.expect(r"victim: tick", 60)
        stopped_at = len(boot.text)
        boot.to_prompt(30)
        boot.send("start again")
        boot.expect(r"again: debug: own memory: .*\n", 60)
        before, after = free(boot.text[:stopped_at], "again"), free(boot.text[stopped_at:], "again")
        boot.send("stop again")
        boot.expect(r"again: stopped: stopped by the operator", 60)
        boot.type(rig.KEY + "1")
        tick = boot.expect(r"victim: tick \d+ clock (\w+) sum (\w+) worst-gap \d+ us at \d+ ms lost (\d+)\n", 60)
        seconds = boot.seconds()
    t.check(count >= RESTARTS, "life: a VM restarts %d times and more" % RESTARTS, "%d restarts, %.0f s" % (count, seconds))
    # From the second life on: where code runs, large pages are split in the first, and stay so (struct ept, nx_large).
    t.check(before[1:] and after and before[1] == after[0], "life: all memory is there again, Bulkhead's own and the guests'",
            "%s, then %s (KiB, MiB)" % (before[1:2], after[:1]))
    t.check(tick.groups() == ("ok", "ok", "0"), "life: the VM beside it lost no tick", " ".join(tick.group(0).split()))
