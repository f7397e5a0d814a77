"""The boots that scripts/test bochs makes, each with many checks. The order is by cost: the longest begin first, so
that two at a time end together."""
import functools
import os
import re
import struct
import subprocess
import time
import traceback

import pexpect

import bench
import bochs
import build
import guests
import image
import rig
import rig_ata
import rig_console
import rig_firmware
import rig_hostile
import rig_life
import rig_multiboot
import rig_rules
import rig_screen
import rig_blackbox
import rig_vmxcheck
import rig_witness
import ui

BOOT_SECONDS = 300               # wall time for a kernel to come up on a busy machine
QUIET = "console=ttyS0,115200 quiet"
# What a kernel says of a machine it does not like.
COMPLAINTS = r"Firmware Bug|FW_BUG|unchecked MSR|WARNING:|Call Trace|BUG:|lost.*timer|timer doesn't work|TSC.*unstable|" \
             r"Marking clocksource|spurious.*interrupt|nobody cared|MADT.*not|APIC error|Unknown NMI|hung|stall|Oops"
# Not complaints about the machine: the CPU's own flaws, which the kernel names when it has no new microcode.
EXPECTED = r"RETBleed: WARNING|MDS CPU bug|MMIO Stale Data CPU bug|Spectre|Vulnerable"


def complaints(dmesg):
    return [line for line in dmesg.splitlines() if re.search(COMPLAINTS, line, re.I) and not re.search(EXPECTED, line)]


def interrupts(text, name):
    """The counts of one row of /proc/interrupts, one for each CPU."""
    match = re.search(r"^\s*%s:((?:\s+\d+)+)" % re.escape(name), text, re.M)
    return [int(number) for number in match.group(1).split()] if match else []


def _machine_checks(t, boot, name, cpus):
    info = boot.output("cat /proc/cpuinfo")
    t.check(len(re.findall(r"^processor\s*:", info, re.M)) == cpus, name + ": /proc/cpuinfo shows %d CPUs" % cpus)
    flags = (re.search(r"^flags\s*:(.*)$", info, re.M) or [""])[0].split()
    t.check("hypervisor" in flags and "vmx" not in flags, name + ": CPUID shows a hypervisor and no VMX")
    dmesg = boot.output("dmesg", 60)
    bad = complaints(dmesg)
    t.check(len(dmesg) > 2000 and not bad, name + ": the kernel has no complaints", " / ".join(bad[:5]))
    clock = boot.output("cat /sys/devices/system/clocksource/clocksource0/current_clocksource")
    t.check(clock == "tsc", name + ": the clock source is the TSC", clock)


def _life_checks(t, boot, name, cpus):
    """Time passes, interrupts arrive on every CPU, every CPU can be used."""
    first = boot.output("cat /proc/interrupts")
    dates = []
    for _ in range(2):
        dates.append(int(boot.output("date +%s", 60)))
        if len(dates) == 1:
            boot.run("sleep 2", 90)
    t.check(1 <= dates[1] - dates[0] <= 10, name + ": the date advances", "%d s in sleep 2" % (dates[1] - dates[0]))
    t.check(abs(dates[0] - time.time()) < 86400, name + ": the date is today's", time.ctime(dates[0]))
    ran = [boot.output("taskset -c %d sh -c 'grep -q . /proc/self/stat && echo on%d'" % (cpu, cpu), 60)
           for cpu in range(cpus)]
    t.check(ran == ["on%d" % cpu for cpu in range(cpus)], name + ": every CPU runs programs", " ".join(ran))
    second = boot.output("cat /proc/interrupts")
    before, after = interrupts(first, "LOC"), interrupts(second, "LOC")
    t.check(len(after) == cpus and all(b > a for a, b in zip(before, after)),
            name + ": the local timer ticks on every CPU", "%s -> %s" % (before, after))
    serial = interrupts(second, "4")
    t.check(sum(serial) > 0, name + ": the serial port interrupts", str(serial))


def linux_session(t, kernel, cpus, reboot):
    name = "linux %s, %d CPU%s" % (kernel, cpus, "" if cpus == 1 else "s")
    log = "linux-%s-%dcpu" % (kernel, cpus)
    disk = rig.linux_image(log, kernel, cpus)
    with rig.Boot(log, disk, cpus) as boot:
        boot.ready(BOOT_SECONDS)
        boot.expect(rig.PROMPT, 60)
        t.check(True, name + ": boots to a shell", "%.0f s" % boot.seconds())
        _machine_checks(t, boot, name, cpus)
        _life_checks(t, boot, name, cpus)
        if reboot:
            boot.run("echo left-over > /tmp/left-over")
            boot.send("reboot")
            boot.ready(BOOT_SECONDS)
            boot.expect(rig.PROMPT, 60)
            t.check(boot.output("ls /tmp") == "", name + ": reboots from pristine images")
        boot.send("poweroff")
        t.check(boot.wait_off(120), name + ": powers off, and then the machine",
                "%.0f s in all" % boot.seconds())


def linux_pvh(t, kernel):
    name = "PVH: vmlinux of %s" % kernel
    with rig.Boot("pvh", rig.linux_image("pvh", kernel, pvh=True)) as boot:
        boot.ready(BOOT_SECONDS)
        boot.expect(rig.PROMPT, 60)
        t.check(True, name + ": boots to a shell with its initrd", "%.0f s" % boot.seconds())
        t.check("Booting paravirtualized kernel" in boot.text and "ACPI: RSDP 0x" in boot.text, name + ": the RSDP is found")
        t.check("console=ttyS0" in boot.output("cat /proc/cmdline"), name + ": the command line")
        boot.send("poweroff")
        t.check(boot.wait_off(120), name + ": powers off, and then the machine")


def boot_cost(t, kernel):
    """A VM's boot to /init against the same kernel's without a hypervisor."""
    figure = bench.boot(kernel)
    t.check(figure.ok, figure.title, "%s, at most %s" % (figure.ours, figure.limit))


def no_stop(t):
    """on_reboot = stop: a reboot ends the VM, and then the machine."""
    disk = rig.linux_image("reboot-stop", guests.DEMO_KERNEL, on_reboot="stop", cmdline=QUIET)
    with rig.Boot("reboot-stop", disk) as boot:
        boot.ready(BOOT_SECONDS)
        boot.expect(rig.PROMPT, 60)
        boot.send("reboot")
        t.check(boot.wait_off(120), "on_reboot = stop: a reboot stops the VM")


def large_memory(t):
    """A VM with memory around the PCI hole."""
    disk = rig.linux_image("large", guests.DEMO_KERNEL, memory="4608M", cmdline=QUIET)
    with rig.Boot("large", disk, memory=6144) as boot:
        boot.ready(BOOT_SECONDS)
        boot.expect(rig.PROMPT, 60)
        total = int(boot.output("grep MemTotal /proc/meminfo").split()[1]) // 1024
        t.check(total > 4300, "more than 4 GiB of memory", "%d MiB seen" % total)
        boot.send("poweroff")
        boot.wait_off(120)


def smallest_memory(t):
    disk = rig.linux_image("small", guests.DEMO_KERNEL, memory="128M", cmdline=QUIET)
    with rig.Boot("small", disk) as boot:
        boot.ready(BOOT_SECONDS)
        t.check(True, "a VM of 128 MiB boots")


def budgets(t):
    """The costs of exits, the core's size, memory and start, against issue 2, section 5."""
    result = bench.run()
    for row in bench.ROWS:
        cost = result.costs.get(row.name)
        t.check(cost is not None and cost <= row.limit, "cost of " + row.title,
                "%s instructions, at most %d" % (cost if cost is not None else "no", row.limit))
    for figure in bench.figures(result.text):
        t.check(figure.ok, figure.title, "%s, at most %s" % (figure.ours, figure.limit))
    bench.run(cpus=2)  # the guest itself checks; Bochs has another loop for several CPUs
    t.check(True, "an exit between an exception and its handler keeps the guest's state")


# ---- the command itself ----

def run_command(t):
    """scripts/run as a person uses it, and as a script does."""
    script = os.path.join(ui.ROOT, "scripts", "run")
    with open(os.path.join(rig.LOGS, "run-command.log"), "wb") as log:
        child = pexpect.spawn(script, ["--rig", "bochs"], timeout=BOOT_SECONDS, logfile=log, dimensions=(40, 120))
        child.expect("Ctrl-]")
        child.expect("guest# ")
        child.send("sleep 100000\r")
        child.expect("sleep 100000")
        time.sleep(1)
        child.send("\x03")
        child.expect("guest# ")
        t.check(True, "scripts/run: Ctrl-C reaches the guest's program")
        child.send("poweroff\r")
        child.expect("red: stopped: the guest powered off")
        child.send("\x012")
        child.expect(r"--- blue \(2\), running")
        child.expect("guest# ")
        t.check(True, "scripts/run: the other VM of the demo goes on after a power-off")
        child.send("poweroff\r")
        child.expect(pexpect.EOF)
        child.close()
    t.check(child.exitstatus == 0, "scripts/run: status 0 after a power-off", str(child.exitstatus))
    done = subprocess.run(["bash", "-c", "exec 0<&-; exec \"$0\" --rig bochs --timeout 30", script],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=BOOT_SECONDS, check=False)
    t.check(done.returncode == 124 and b"Preflight" in done.stdout,
            "scripts/run: with standard input closed it shows the output; status 124 when time is up",
            str(done.returncode))


# ---- bad input: a message that says what, where and what to do, and back to the firmware ----

def _bad_boot(t, name, disk, pattern, cpus=1, cpu_model=bochs.CPU_MODEL, memory=384):
    log = "bad-" + re.sub(r"[^a-z0-9]+", "-", name.lower())
    with rig.Boot(log, disk, cpus, memory, cpu_model) as boot:
        try:
            boot.expect(rig.LEFT_TO_FIRMWARE, 120)
            back = True
        except rig.Timeout:
            back = False
        said = re.search(pattern, boot.text, re.M | re.I)
        t.check(said is not None, "bad input, %s: the message says so" % name,
                "no %r in:\n%s" % (pattern, boot.last_lines()) if not said else said.group(0).strip()[:110])
        t.check(back, "bad input, %s: back to the firmware" % name, "" if back else boot.last_lines(3))


def _image(name, config=None, kernel=None, initrd=None):
    """A disk with the given contents (bytes, or a path); None: the file is missing."""
    where = rig.directory("bad-" + name)
    files = [("EFI/BOOT/BOOTX64.EFI", build.LOADER)]
    for path, content in (("bulkhead.conf", config), ("vmlinuz", kernel), ("initrd.img", initrd)):
        if isinstance(content, (bytes, bytearray)):
            host = os.path.join(where, path)
            with open(host, "wb") as file:
                file.write(content)
            files.append((path, host))
        elif content:
            files.append((path, content))
    disk = os.path.join(where, "disk.img")
    image.write(disk, files)
    return disk


def _config(**changes):
    values = {"cpus": "0", "memory": "128M", "cmdline": "console=ttyS0", "on_reboot": "restart", **changes}
    return (rig.CONFIG % values).encode()


def bad_input(t):
    kernel = guests.kernel(guests.DEMO_KERNEL)
    initrd = rig.initramfs()
    with open(kernel, "rb") as file:
        whole = file.read()
    old = bytearray(whole[:65536])
    struct.pack_into("<H", old, 0x206, 0x0203)  # version of the boot protocol
    typo = _config().replace(b"memory =", b"memroy =")
    twice = _config() + b"\n[vm other]\ncpus = 0\nmemory = 64M\nkernel = vmlinuz\n"
    cases = [
        ("a typo", _image("typo", typo, kernel, initrd), r"bulkhead\.conf:7:1: .*memroy.*memory"),
        ("a CPU given twice", _image("twice", twice, kernel, initrd), r"bulkhead\.conf:14:8: CPU 0 belongs to VM .linux."),
        ("a CPU that is not there", _image("cpu", _config(cpus="0-3"), kernel, initrd),
         r"bulkhead\.conf:6:\d+: .*wants CPU 3.*1 CPU"),
        ("more memory than there is", _image("memory", _config(memory="8G"), kernel, initrd),
         r"bulkhead\.conf:7:\d+: .*wants 8192 MiB.*only \d+ MiB"),
        ("no configuration", _image("config", None, kernel, initrd), r"no .*bulkhead\.conf"),
        ("no kernel", _image("kernel", _config(), None, initrd), r"vmlinuz.*no such file"),
        ("no initrd", _image("initrd", _config(), kernel, None), r"initrd\.img.*no such file"),
        ("a truncated kernel", _image("short", _config(), whole[:300000], initrd), r"truncated"),
        ("a kernel that is none", _image("text", _config(), b"hello\n" * 2000, initrd), r"bzImage"),
        ("an old boot protocol", _image("old", _config(), bytes(old), initrd), r"boot protocol.*2\.03"),
        ("an initrd that does not fit", _image("fit", _config(memory="96M"), kernel, bytes(60 << 20)),
         r"initrd.*does not fit"),
        ("an empty initrd", _image("empty", _config(), kernel, b""), r"initrd.*empty"),
    ]
    for name, disk, pattern in cases:
        _bad_boot(t, name, disk, pattern)


def no_vmx(t):
    """Processors without what is needed: the preflight names what is missing."""
    disk = _image("vmx", _config(), guests.kernel(guests.DEMO_KERNEL), rig.initramfs())
    _bad_boot(t, "a CPU without VT-x", disk, r"MISSING +VT-x", cpu_model="p4_prescott_celeron_336")
    _bad_boot(t, "a CPU without EPT", disk, r"MISSING +EPT", cpu_model="core2_penryn_t9600")
    _bad_boot(t, "an AMD CPU", disk, r"MISSING +VT-x", cpu_model="athlon64_venice")


CASES = [
    ("hostile random instructions", rig_hostile.fuzz),
    ("witness memtest86+", rig_witness.memtest),
    ("firmware: SeaBIOS, U-Boot", rig_firmware.firmwares),
    ("witness Xen, GNU Mach", rig_witness.kernels),
    ("witness GRUB, iPXE", rig_witness.bios),
    ("hostile survivors", rig_hostile.survivors),
    ("hostile ends", rig_hostile.ends),
    ("PVH vmlinux 6.12-cloud", lambda t: linux_pvh(t, "6.12-cloud")),
    ("linux 6.1-cloud 4", lambda t: linux_session(t, "6.1-cloud", 4, False)),
    ("linux 6.12-cloud 4", lambda t: linux_session(t, "6.12-cloud", 4, False)),
    ("linux 6.12-cloud 2", lambda t: linux_session(t, "6.12-cloud", 2, True)),
    ("linux 6.1-cloud 2", lambda t: linux_session(t, "6.1-cloud", 2, True)),
    ("linux 6.12 2", lambda t: linux_session(t, "6.12", 2, False)),
    ("linux 6.1 2", lambda t: linux_session(t, "6.1", 2, False)),
    ("linux 6.12-cloud 1", lambda t: linux_session(t, "6.12-cloud", 1, True)),
    ("linux 6.1-cloud 1", lambda t: linux_session(t, "6.1-cloud", 1, True)),
    ("bad input", bad_input),
    ("boot cost 6.12-cloud", lambda t: boot_cost(t, "6.12-cloud")),
    ("boot cost 6.1-cloud", lambda t: boot_cost(t, "6.1-cloud")),
    ("console", rig_console.run),
    ("console reboot", rig_console.reboot),
    ("life: two linux", rig_life.two_linux),
    ("scripts/run", run_command),
    ("life: restarts", rig_life.restarts),
    ("life: crashes", rig_life.crashes),
    ("life: no VT-d", rig_life.no_iommu),
    ("large memory", large_memory),
    ("reboot stop", no_stop),
    ("small memory", smallest_memory),
    ("no VT-x", no_vmx),
    ("multiboot", rig_multiboot.run),
    ("ata", rig_ata.session),
    ("ata refused", rig_ata.refusals),
    ("rules", rig_rules.run),
    ("kernels refused", rig_multiboot.others_refused),
    ("PVH refused", rig_multiboot.pvh_refused),
    ("state after a restart", lambda t: rig_multiboot.state(t, rig_multiboot.guest("multiboot_hello.elf"))),
    ("screen", rig_screen.run),
    ("black box", rig_blackbox.panic),
    ("black box forged", rig_blackbox.forged),
    ("vmx_check", rig_vmxcheck.run),
    ("exit costs", budgets),
]


def _one(results, name, function):
    try:
        function(results)
    except (rig.Timeout, ui.Failure) as problem:
        results.check(False, name, "%s\n  transcripts: %s" % (problem, rig.LOGS))
    except Exception:  # pylint: disable=broad-except
        results.check(False, name, "the test itself broke:\n" + traceback.format_exc())


def tasks(results, only=None):
    """A function for each boot, the longest first."""
    if not bochs.find():
        raise ui.Failure("there is no Bochs: run scripts/setup")
    chosen = [case for case in CASES if not only or only in case[0]]
    return [functools.partial(_one, results, name, function) for name, function in chosen]
