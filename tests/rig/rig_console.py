"""The console as a person uses it: scripts/run on a terminal, two VMs, Ctrl-A and every command of the prompt."""
import os
import re
import time

import pexpect

import build
import guests
import rig
import ui

BOOT_SECONDS = 300  # wall time, on a busy machine
SECONDS = 60
PROMPT = r"bulkhead> "
SHELL = r"guest# "
CONFIG = """[machine]
on_idle = stay

[vm web]
cpus = 0
memory = 128M
kernel = vmlinuz
initrd = initrd.img
cmdline = console=ttyS0 quiet

[vm db]
cpus = 1
memory = 128M
kernel = vmlinuz
initrd = initrd.img
cmdline = console=ttyS0 quiet
console = 5
"""
ESCAPES = re.compile(r"\x1b\[[0-9;?=]*[A-Za-z]|\r")


class Session:
    """A terminal with scripts/run in it. What it shows is kept in build/rig-logs/NAME.log."""

    def __init__(self, name):
        self.calls = 0
        os.makedirs(rig.LOGS, exist_ok=True)
        self.log = open(os.path.join(rig.LOGS, name + ".log"), "wb")
        self.child = pexpect.spawn(os.path.join(ui.ROOT, "scripts", "run"),
                                   ["--rig", "bochs", "--efi", build.LOADER, "--config", _config(name)], timeout=SECONDS,
                                   dimensions=(40, 200), encoding="utf-8", codec_errors="replace")
        self.child.logfile_read = _Writer(self.log)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        self.child.close(force=True)
        self.log.close()

    def expect(self, pattern, timeout=SECONDS):
        """Waits for the pattern and answers what was shown before it, without escape sequences."""
        try:
            self.child.expect(pattern, timeout=timeout)
        except (pexpect.TIMEOUT, pexpect.EOF) as problem:
            raise rig.Timeout("no %r; the last lines:\n%s" % (
                pattern, "\n".join("    | " + line for line in _plain(self.child.before).splitlines()[-12:]))) from problem
        return _plain(self.child.before)

    def keys(self, keys, pattern, timeout=SECONDS):
        self.child.send(keys)
        return self.expect(pattern, timeout)

    def switch(self, digit):
        """Ctrl-A and a digit; answers the banner's line."""
        self.keys("\x01%d" % digit, r"--- \w+ \(%d\), " % digit)
        return self.expect("shows the keys ---")

    def prompt(self):
        self.keys("\x01h", "Bulkhead's prompt")
        self.expect(PROMPT)

    def command(self, line, timeout=SECONDS):
        """A command's answer, between its echo and the next prompt."""
        self.child.send(line)
        self.expect(re.escape(line))
        return self.keys("\r", r"\n" + PROMPT, timeout).strip()

    def shell(self, line):
        """A shell command's output in the VM in front; not one that is shown again because the VM came to the front."""
        self.calls += 1
        self.keys("echo be''gin%d; %s; echo en''d%d\r" % (self.calls, line, self.calls), r"\nbegin%d\r?\n" % self.calls)
        return self.expect(r"\bend%d\r?\n" % self.calls).strip()


class _Writer:
    """Bytes for the log, whatever the terminal's text could not be decoded to."""

    def __init__(self, file):
        self.file = file

    def write(self, text):
        self.file.write(text.encode("utf-8", "replace"))

    def flush(self):
        self.file.flush()


def _plain(text):
    return ESCAPES.sub("", text) if isinstance(text, str) else ""


def _config(name):
    where = rig.directory(name)
    rig.link(guests.kernel(guests.DEMO_KERNEL), os.path.join(where, "vmlinuz"))
    rig.link(rig.initramfs(), os.path.join(where, "initrd.img"))
    path = os.path.join(where, "bulkhead.conf")
    with open(path, "w", encoding="ascii") as file:
        file.write(CONFIG)
    return path


def _switching(t, s):
    """Two VMs, one wire."""
    s.expect(r"--- web \(1\), ", BOOT_SECONDS)
    s.expect(SHELL, BOOT_SECONDS)
    t.check(True, "console: the VM with the lowest digit is in front")
    s.switch(5)
    before = s.expect(SHELL, BOOT_SECONDS)
    t.check("bulkhead-guest: ready" in before, "console: what a VM printed in the background is shown on switching")
    s.shell("hostname db")
    s.keys("(sleep 2; echo la''te) &\r", SHELL)
    s.switch(1)
    t.check(s.shell("hostname") != "db", "console: the keyboard goes to the VM in front")
    s.shell("sleep 4")
    s.switch(5)
    s.expect("late")
    s.switch(1)
    s.switch(5)
    t.check("late" in s.keys("\x01?", "Ctrl-A 1..9: that VM"), "console: a VM that has been quiet shows its last lines")
    t.check(s.shell("hostname") == "db", "console: and back, with the output of meanwhile")
    s.keys("\x019", "no VM has the digit 9")
    s.keys("\x01?", "Ctrl-A 1..9: that VM")
    s.keys("cat -v\r", "cat -v")
    s.child.send("\x01\x01x\x01ay\r")
    s.expect(r"\^Ax\^Ay")
    t.check(True, "console: Ctrl-A Ctrl-A and Ctrl-A a give the guest a Ctrl-A")
    s.keys("\x03", SHELL)
    s.switch(1)


def _editing(t, s):
    s.prompt()
    for keys in ("vmx\x7fs", "junk\x15vms", "\x1b[A"):
        t.check("restarts" in s.keys(keys + "\r", r"\n" + PROMPT), "prompt: editing: %r runs vms" % keys)
    t.check("did you mean 'vms'" in s.command("vmss"), "prompt: a misspelt command gets a suggestion")
    t.check("`help` lists them" in s.command("nonsense"), "prompt: an unknown command")
    t.check("can be stats" in s.command("st"), "prompt: an ambiguous prefix", s.command("st"))
    t.check("which VM?" in s.command("trace"), "prompt: a missing word")
    t.check("there is no VM 'nobody'" in s.command("trace nobody"), "prompt: an unknown VM")


def _looking(t, s):
    """The commands that show something."""
    text = s.command("help")
    names = ("help", "vms", "stats", "log", "trace", "dump", "stop", "start", "reset", "attach", "exit", "reboot",
             "poweroff", "crash")
    missing = [name for name in names if not re.search(r"^\s*%s " % name, text, re.M)]
    t.check(not missing, "prompt: help lists every command", " ".join(missing))
    text = s.command("vms")
    t.check(re.search(r"\* 1\s+web\s+running\s+0\s+128 MiB\s+0\s+0:\d\d:\d\d", text) is not None and
            re.search(r"^\s+5\s+db\s+running\s+1\s+128 MiB", text, re.M) is not None, "prompt: vms", text)
    text = s.command("stats web")
    t.check(re.search(r"vCPU 0 on CPU 0: in the guest .*\d+ exits, \d+ interrupts injected", text) is not None and
            "CPUID" in text.upper() and "db" not in text, "prompt: stats VM", text[:300])
    text = s.command("stats")
    t.check("web: " in text and "db: " in text, "prompt: stats of all VMs")
    text = s.command("log 200")
    t.check(re.search(r"^\[ +\d+\.\d+\] web/0: debug: RDMSR of MSR 0x[0-9a-f]+ .*refused with #GP", text, re.M) is not None
            and "at port 0x" in text and "Bulkhead's core is running" in text,
            "prompt: log has the default-deny notes that the console did not show")
    t.check(len(s.command("log 3").splitlines()) == 3, "prompt: log N")
    text = s.command("trace db 0 10")
    t.check("db/0: the last 10 of" in text and len(text.splitlines()) == 11, "prompt: trace VM vCPU N", text[:300])
    t.check("web/0: the last 20 of" in s.command("trace 1"), "prompt: trace by digit")
    text = s.command("dump db", BOOT_SECONDS)
    t.check("=dump db 0: bulkhead-dump" in text and re.search(r"=dump db \d+: end lines \d+", text) is not None,
            "prompt: dump VM", "%d lines" % len(text.splitlines()))
    s.log.flush()
    rig.check_replay(t, "prompt: the dump of a running VM replays", s.log.name, "db")
    s.child.send("dump web\r")
    s.expect("=dump web 9: ")
    s.keys("\x03", r"\^C")
    s.expect(PROMPT)
    t.check(True, "prompt: Ctrl-C ends a long answer")


def _orders(t, s):
    """The commands that do something."""
    s.child.send("stop db\r")
    s.expect(r"db: .*stopped")
    t.check(re.search(r"5\s+db\s+stopped", _settled(s, "stopped")) is not None, "prompt: stop VM")
    s.keys("\x015", "shows the keys")
    s.keys("x", r"db does not run: Ctrl-A h, then `start db`")
    t.check(True, "console: who types for a stopped VM is told")
    s.prompt()
    s.child.send("start db\r")
    t.check(re.search(r"5\s+db\s+running", _settled(s, "running")) is not None, "prompt: start VM")
    s.keys("attach db\r", "shows the keys")
    s.expect(SHELL, BOOT_SECONDS)
    t.check(s.shell("hostname") != "db", "prompt: the started VM is pristine")
    s.shell("hostname left-over")
    s.prompt()
    s.child.send("reset db\r")
    _settled(s, "running")
    s.keys("exit\r", "shows the keys")
    s.expect(SHELL, BOOT_SECONDS)
    t.check(s.shell("hostname") != "left-over", "prompt: reset VM, and exit")
    s.switch(1)
    t.check("up" in s.shell("uptime"), "console: the other VM has not noticed")


def _settled(s, state):
    """What `vms` says once db is in this state."""
    end = time.monotonic() + SECONDS
    while True:
        text = s.command("vms")
        if re.search(r"db\s+" + state, text) or time.monotonic() > end:
            return text
        time.sleep(1)


def _flood(t, s):
    """A VM that prints without end does not keep the operator from the prompt, nor the other VM from its work."""
    s.switch(5)
    s.child.send("yes flood\r")
    s.expect("flood\r?\nflood")
    s.prompt()
    t.check("restarts" in s.command("vms"), "console: the prompt answers while the VM in front floods")
    s.switch(1)
    t.check(s.shell("echo alive") == "alive", "console: another VM answers meanwhile")
    s.switch(5)
    s.expect("flood\r?\nflood")
    s.keys("\x03", SHELL)
    t.check(True, "console: Ctrl-C ends the flood")


def run(t):
    with Session("console") as s:
        _switching(t, s)
        _editing(t, s)
        _looking(t, s)
        _orders(t, s)
        _flood(t, s)
        s.prompt()
        t.check("crash yes" in s.command("crash"), "prompt: crash asks back")
        t.check("poweroff yes" in s.command("poweroff"), "prompt: poweroff asks back while VMs run")
        s.keys("poweroff yes\r", pexpect.EOF)
        s.child.close()
        t.check(s.child.exitstatus == 0, "prompt: poweroff", str(s.child.exitstatus))


def reboot(t):
    """`reboot` asks back, and then resets the machine: the loader starts it again."""
    with Session("console-reboot") as s:
        s.expect(r"--- web \(1\), ", BOOT_SECONDS)
        s.prompt()
        t.check("reboot yes" in s.command("reboot"), "prompt: reboot asks back while VMs run")
        s.keys("reboot yes\r", "the operator reboots the machine")
        s.expect("Bulkhead loader", BOOT_SECONDS)
        s.expect(r"--- web \(1\), ", BOOT_SECONDS)
        t.check(True, "prompt: reboot")
