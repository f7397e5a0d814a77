"""The demo on the nested rig as a user starts it: scripts/run --rig nested on a terminal, both Linuxes to their prompts."""
import os
import time

import pexpect

import build
import rig
import ui

DEMO_SECONDS = 300               # of one CPU, which is what it takes in time where nobody else wants it
MOST_SECONDS = 900               # of wall time, beside all else that the tests run
SECONDS = 120
TICKS = os.sysconf("SC_CLK_TCK")


def _proc(pid, name):
    """A file of a process; empty if it has ended meanwhile."""
    try:
        with open("/proc/%d/%s" % (pid, name), encoding="ascii", errors="replace") as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _cpu_seconds(pid):
    """What a process and its children have used of the CPUs (proc(5): user and system, own and of children that have ended)."""
    fields = _proc(pid, "stat").rpartition(")")[2].split()
    children = _proc(pid, "task/%d/children" % pid).split()
    return sum(int(ticks) for ticks in fields[11:15]) / TICKS + sum(_cpu_seconds(int(child)) for child in children)


def _expect(child, pattern, seconds):
    try:
        child.expect(pattern, timeout=max(1, seconds))
    except (pexpect.TIMEOUT, pexpect.EOF) as problem:
        raise rig.Timeout("no %r; the last of it: %r" % (pattern, (child.before or "")[-600:])) from problem


def demo(t):
    """Both prompts, whether they are two VMs, the time of it, and both power off."""
    os.makedirs(rig.LOGS, exist_ok=True)
    start = time.monotonic()
    with open(os.path.join(rig.LOGS, "nested-demo.log"), "w", encoding="utf-8", errors="replace") as log:
        child = pexpect.spawn(os.path.join(ui.ROOT, "scripts", "run"), ["--rig", "nested", "--efi", build.LOADER], timeout=SECONDS,
                              dimensions=(40, 200), encoding="utf-8", codec_errors="replace")
        child.logfile_read = log
        try:
            _expect(child, r"--- red \(1\), ", MOST_SECONDS)
            _expect(child, "guest# ", MOST_SECONDS - (time.monotonic() - start))
            child.send("\x012")
            _expect(child, r"--- blue \(2\), ", SECONDS)
            _expect(child, "guest# ", MOST_SECONDS - (time.monotonic() - start))
            cpu, wall = _cpu_seconds(child.pid), time.monotonic() - start
            t.check(cpu <= DEMO_SECONDS, "nested: the demo's two prompts are there after at most %d s of a CPU" % DEMO_SECONDS,
                    "%.0f s of a CPU, %.0f s by the clock" % (cpu, wall))
            for name in ("blue", "red"):
                child.send("poweroff\r")
                _expect(child, name + r": stopped: the guest powered off", SECONDS)
                if name == "blue":
                    child.send("\x011")
                    _expect(child, r"--- red \(1\), ", SECONDS)
            _expect(child, pexpect.EOF, SECONDS)
        finally:
            child.close(force=True)
    t.check(child.exitstatus == 0, "nested: the demo ends when both VMs have powered off", "%.0f s" % (time.monotonic() - start))
