"""Hostile guests (tests/guest/hostile) next to a victim: what each program may do to itself is in one table, what it may do to
its neighbour and to the host is: nothing."""
import collections
import os
import random
import re
import time

import bochs
import build
import make_image
import rig
import ui

GUESTS = os.path.join(build.BUILD, "guest")
BOOT_SECONDS = 300          # wall time until the guests run
SUITE_SECONDS = 500         # wall time for a boot's programs on a busy machine
# The victim's tick is a millisecond: one that is later than this was lost. (What copies with REP on another CPU does not make it
# late: bochs-patches/0010 lets the emulator's processors take turns there, too. Without it gaps of 2.2 ms were seen.)
WORST_GAP_US = 2000
PANIC = r"HOST PANIC|PANIC|host exception|assertion"

# What is expected of a program. `end`: None, it survives and says ok; otherwise what the log calls each end of its VM, and how
# many there are. `log`: what the log has to say of it, after the VM's name; None where the processor itself refuses, and
# nothing has to be contained.
Program = collections.namedtuple("Program", "name vm end times log does")
BAD_ACCESS = "an access to a device with an instruction that is not emulated"
REBOOT = "the guest asked for a reboot"
TABLE = (
    Program("vmx", "calls", None, 0, r"virtualization instruction .* is not offered: answered with #UD", "every VMX, SVM, SMX, SGX, TDX instruction in 13 modes"),
    Program("hypercall", "calls", None, 0, r"is not offered: answered with RAX = -1", "VMCALL with 70,000 numbers and random arguments"),
    Program("monitor", "calls", None, 0, r"MONITOR.* is not offered: answered with #UD", "MONITOR, MWAIT and their kin in 13 modes"),
    Program("halt", "calls", None, 0, None, "HLT with interrupts off, woken by NMI and INIT only"),
    Program("debug", "calls", None, 0, None, "MOV to every DR, each bit, in 13 modes; single steps and breakpoints on what exits"),
    Program("xcr0", "calls", None, 0, None, "XSETBV: every bit and combination, every index"),
    Program("control", "registers", None, 0, None, "CR0, CR4, EFER, each bit and pair of bits; in legacy modes too; LMSW, CR8"),
    Program("msr", "registers", None, 0, r"MSR 0x[0-9a-f]+ .*refused with #GP", "every MSR number read and written, 4 values"),
    Program("port", "ports", None, 0, r"at port 0x[0-9a-f]+: nothing there", "every port, each width, IN and OUT"),
    Program("port_string", "ports", None, 0, None, "INS, OUTS, REP, all overrides and sizes, across pages, 13 modes"),
    Program("physical", "memory", None, 0, r"guest-physical [0-9a-f]+: nothing there",
            "reads and writes each 2 MiB, up to the address width, around device pages"),
    Program("paging", "memory", None, 0, None, "page tables: each bit of each level, loops, leaves anywhere"),
    Program("smc", "memory", None, 0, None, "code that changes between the exit and the decoding"),
    Program("rep", "memory", None, 0, None, "REP counts up to 2^64 on devices, holes and ports"),
    Program("ipi", "signals", None, 0, None, "IPIs: every destination, mode and vector, xAPIC"),
    Program("ipi_x2", "signals", None, 0, None, "the same in x2APIC mode"),
    Program("ipi_storm", "signals", None, 0, None, "NMI and INIT storms"),
    Program("storm", "signals", None, 0, None, "PIT, RTC, UART, APIC timer, PIC at their fastest, alone and together"),
    Program("flood", "flood", None, 0, None, "260 KB to the serial port without waiting"),
    Program("task", "task", "triple fault", 4, None, "task gates, far jumps and calls, IRET with NT, to a task that is all zeros"),
    Program("fetch", "fetch", BAD_ACCESS, 4, r"code was fetched at guest-physical [0-9a-f]+, where no memory is",
            "code in holes and device pages"),
    Program("paging_lost", "tables", BAD_ACCESS, 4, r"a page table was looked for at guest-physical [0-9a-f]+",
            "page tables and CR3 in devices and holes"),
    Program("delivery", "delivery", BAD_ACCESS, 2, r"delivery of vector 6 reached guest-physical", "IDT and stack in a hole"),
    Program("smc_unknown", "unknown", BAD_ACCESS, 1, r"cannot emulate the instruction at", "MMIO that becomes an SSE access"),
    Program("reset", "reset", REBOOT, 6, None, "0xCF9, 0x64, 0x92, INIT to the first processor"),
    Program("triple", "triple", "triple fault", 5, r"5 crashes in a row", "triple faults until it is not restarted any more"),
)
LEFT_STOPPED = ("triple",)  # what has no last word
TWO_CPUS = ("calls", "memory", "signals", "unknown", "fuzz")
VM_LOG = "warn"


def programs(vm):
    return [row for row in TABLE if row.vm == vm]


def _config(vms, seed):
    """The configuration of a machine with the victim on the boot CPU, which polls the console, and the VMs of `vms`."""
    text = "[machine]\non_idle = stay\n\n[vm victim]\ncpus = 0\nmemory = 8M\nkernel = victim.elf\ncmdline = seed=%d\n" % seed
    cpu = 1
    for vm, arguments in vms:
        count = 2 if vm in TWO_CPUS else 1
        text += "\n[vm %s]\ncpus = %d%s\nmemory = 8M\nkernel = hostile.elf\ncmdline = %s seed=%d\non_crash = restart\nlog = %s\n" \
            % (vm, cpu, "-%d" % (cpu + 1) if count == 2 else "", arguments, seed, VM_LOG)
        cpu += count
    return text, cpu

TICK = r"^victim: tick (\d+) clock (\w+) sum (\w+) worst-gap (\d+) us at (\d+) ms lost (\d+)\n"


class Session:
    """A boot with the victim in front."""

    def __init__(self, name, vms, seed):
        build.ninja(["hostile_guests"], what="building the hostile guests")
        where = rig.directory(name)
        text, self.cpus = _config(vms, seed)
        config = os.path.join(where, "bulkhead.conf")
        with open(config, "w", encoding="utf-8") as file:
            file.write(text)
        for guest in ("hostile.elf", "victim.elf"):
            rig.link(os.path.join(GUESTS, guest), os.path.join(where, guest))
        disk = os.path.join(where, "disk.img")
        make_image.make(config, disk, efi=build.LOADER, check=False)
        self.vms = [vm for vm, _ in vms]
        self.boot = rig.Boot(name, disk, self.cpus, memory=512)

    def __enter__(self):
        self.boot.expect(r"^victim: up", BOOT_SECONDS)
        return self

    def __exit__(self, kind, value, trace):
        self.boot.close()

    def wait_quiet(self, seconds, limit):
        """Reads until nothing has come for `seconds` (wall time)."""
        end, quiet = time.monotonic() + limit, time.monotonic() + seconds
        while time.monotonic() < min(end, quiet):
            size = len(self.boot.text)
            if not self.boot.read():
                raise rig.Timeout("the machine ended; the last lines:\n" + self.boot.last_lines())
            if len(self.boot.text) > size:
                quiet = time.monotonic() + seconds

    def prompt(self, command, seconds=1.5):
        """What a command prints; the prompt is in front afterwards."""
        at = len(self.boot.text)
        self.boot.type(command + "\r")
        self.wait_quiet(seconds, 120)
        return self.boot.text[at:]

    def states(self):
        """The VMs' states, by name."""
        rows = re.findall(r"^[ *] \d  (\S+) +(\w+) ", self.prompt("vms"), re.M)
        return dict(rows)

    def wait_stopped(self, timeout):
        """Until every VM but the victim has stopped, at the prompt; the names of those that have not."""
        end = time.monotonic() + timeout
        self.boot.to_prompt()
        left = self.vms
        while left and time.monotonic() < end:
            states = self.states()
            left = [vm for vm in self.vms if states.get(vm) != "stopped"]
        return left

    def show(self, digit):
        """What a VM has printed and the console kept."""
        at = len(self.boot.text)
        self.boot.type(rig.KEY + str(digit))
        self.boot.expect(r"^--- .*\(%d\)" % digit, 60)
        self.wait_quiet(1, 60)
        return self.boot.text[at:]

    def show_victim(self):
        """All that the victim has said, up to now. From the prompt."""
        up = re.findall(r"^[ *] 1  victim .* (\d+):(\d\d):(\d\d)\s*$", self.prompt("vms"), re.M)
        hours, minutes, seconds = (int(part) for part in up[-1])
        self.boot.type(rig.KEY + "1")
        self.boot.expect(r"^--- .*\(1\)", 60)
        while int(self.boot.expect(TICK, 120).group(1)) < ((hours * 60 + minutes) * 60 + seconds - 1) * 1000:
            pass




def victim_checks(t, name, text):
    """The neighbour counted every tick, its clock and its memory were right."""
    lines = [tuple(match.groups()) for match in re.finditer(TICK, text, re.M)]
    bad = [line for line in lines if line[1:3] != ("ok", "ok") or int(line[3]) > WORST_GAP_US or int(line[5])]
    last = lines[-1] if lines else ("0", "", "", "0", "0", "0")
    t.check(len(lines) >= 3 and not bad, name + ": the victim lost no tick, its clock and memory are right",
            "%s ticks, worst gap %s us, %s ms after its start%s" % (last[0], last[3], last[4],
            "; first bad: tick %s, clock %s, sum %s, gap %s us at %s ms, lost %s" % bad[0] if bad else ""))
    # What it has printed may be shown again: the number of its starts tells.
    t.check(not set(re.findall(r"^victim: up,.* boot (\d+)\n", text, re.M)) - {"1"} and
            not re.search(r"victim: (?:stopped|.*restarting)", text), name + ": the victim was not restarted")
    t.check(not re.search(PANIC, text), name + ": the host did not panic",
            (re.search(r".*(?:%s).*" % PANIC, text) or [""])[0])


def _program_checks(t, name, row, shown, text):
    said = re.search(r"^hostile: %s: (.*): (ok|BAD)\n" % row.name, shown, re.M)
    if row.name not in LEFT_STOPPED:
        t.check(said is not None and said.group(2) == "ok", "%s: %s" % (name, row.does), said.group(1) if said else "no verdict")
    lines = [line for line in text.splitlines() if re.search(r"\] %s(/\d+)?: " % row.vm, line)]
    if row.end:
        ends = [line for line in lines if re.search(r"%s: (restarting|stopped)|stopped: .*%s" % (row.end, row.end), line)]
        t.check(len(ends) >= row.times, "%s: %s ended '%s' %d times: %s" % (name, row.name, row.vm, row.times, row.end),
                "%d times" % len(ends))
    if row.log:
        found = [line for line in lines if re.search(row.log, line)]
        t.check(bool(found), "%s: the log shows the containment of %s" % (name, row.name), found[0] if found else "no line")


def suite(t, name, vms, delay=0, again=0):
    """Boots the VMs that run the programs of the table, waits for their end, and looks at everybody."""
    arguments = [(vm, "test=%s delay=%d again=%d" % (",".join(row.name for row in programs(vm)), delay * i, again))
                 for i, vm in enumerate(vms)]
    with Session(name, arguments, 1) as session:
        left = session.wait_stopped(SUITE_SECONDS)
        t.check(not left, name + ": every program came to its end", "still running: " + ", ".join(left) if left else
                "%.0f s" % session.boot.seconds())
        session.prompt("log 1000", 3)
        session.show_victim()
        shown = {vm: session.show(digit) for digit, vm in enumerate(session.vms, 2)}
        text = session.boot.text
        for vm in vms:
            for row in programs(vm):
                _program_checks(t, name, row, shown[vm], text)
        victim_checks(t, name, text)


def survivors(t):
    suite(t, "hostile survivors", ["calls", "registers", "ports", "memory", "signals"])


def ends(t):
    suite(t, "hostile ends", ["task", "fetch", "tables", "delivery", "unknown", "reset", "triple", "flood"], 1200, 200)


# ---- random instructions ----

def _number(name, default):
    text = os.environ.get(name, str(default))
    if not text.isdigit() or int(text) == 0:
        raise ui.Failure("%s=%s is not a positive number" % (name, text))
    return int(text)


def _seed():
    """HOSTILE_SEED; without it CI always takes the same way, and everybody else a new one, as the other fuzzers do."""
    return _number("HOSTILE_SEED", 1 if os.environ.get("CI") else random.randrange(1, 1 << 31))


CASES_OF_A_LIFE = 10 ** 9
CASES = r"^fuzz: seed (\d+) cases (\d+) faulted (\d+) passed (\d+) timer (\d+) stuck (\d+) odd (\d+) bytes (\d+) starts (\d+)\n"


class FuzzLives:
    """The lives of the VM from one power-up to the next. Nothing is left of a life that ended with the power off, so
    each is told at which case it begins: far behind all that the one before can have come to."""

    def __init__(self, session, seed):
        self.session, self.seed = session, seed
        self.reports = []  # the last one of each life
        self.tell()

    def tell(self):
        self.session.boot.type(rig.KEY + "2")
        self.session.boot.expect(r"^fuzz: first case\?", 120)
        self.session.boot.type("%d\r" % (len(self.reports) * CASES_OF_A_LIFE))
        self.session.boot.to_prompt()

    def take_report(self):
        # A case without paging may have written over these numbers: the seed tells.
        rows = [[int(number) for number in row] for row in re.findall(CASES, self.session.show(2), re.M)]
        self.reports.append(([row for row in rows if row[0] == self.seed] or [[self.seed] + [0] * 8])[-1])

    def start_again(self):
        self.take_report()
        self.session.boot.to_prompt()
        self.session.prompt("start fuzz", 0.5)
        while self.session.states().get("fuzz") == "starting":
            pass
        self.tell()

    def total(self, column):
        return sum(report[column] for report in self.reports)


def fuzz(t):
    """A VM that executes random instructions for HOSTILE_SECONDS of wall time. When it has switched itself off, or crashed
    too often in a row for Bulkhead to restart it, the operator starts it again."""
    seconds, seed = _number("HOSTILE_SECONDS", 300), _seed()
    name = "random instructions"
    ui.say("%s: %d s, HOSTILE_SEED=%d repeats them" % (name, seconds, seed))
    with Session("hostile fuzz", [("fuzz", "test=fuzz case=ask")], seed) as session:
        end = time.monotonic() + seconds
        lives = FuzzLives(session, seed)
        while time.monotonic() < end:
            if session.states().get("fuzz") == "stopped":
                lives.start_again()
        operator_starts = len(lives.reports)
        exits = session.prompt("stats fuzz", 3)
        session.show_victim()
        lives.take_report()
        text = session.boot.text
    cases = sum(lives.total(column) for column in (2, 3, 4, 6))
    t.check(cases > 1000, name + ": they were run, and again after each crash",
            "seed %d: %d cases, %d bytes of code: %d faulted, %d passed, %d left by the timer, %d stuck, %d odd; %d starts, %d by the "
            "operator" % (seed, cases, *(lives.total(column) for column in (7, 2, 3, 4, 5, 6, 8)), operator_starts))
    ended = re.findall(r"\] fuzz(?:/\d+)?: ERROR: (?!  )(.*)", text)
    t.check(bool(ended), name + ": the log shows what ended the VM, with its name", ended[0] if ended else "no line")
    counts = [int(count) for count in re.findall(r" (\d+) exits,", exits)]
    t.check(len(counts) == 2 and min(counts) > 1000, name + ": both vCPUs were kept busy", "%s exits since the last start" % counts)
    victim_checks(t, name, text)
