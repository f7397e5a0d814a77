"""This terminal as the machine's console."""
import os
import re
import select
import sys
import termios
import time
import tty

import ui

LEAVE = 0x1D  # Ctrl-]
LEAVE_NAME = "Ctrl-]"


def _input_fd():
    """Standard input if there is one that may be read: not closed, and not a terminal in whose background we run."""
    try:
        fd = sys.stdin.fileno() if sys.stdin else -1
        os.fstat(fd)
        if os.isatty(fd) and os.tcgetpgrp(fd) != os.getpgrp():
            return None
        return fd
    except (OSError, ValueError):
        return None


class _Raw:
    """The terminal in raw mode, given back as it was whatever happens."""

    def __init__(self, fd):
        self.fd = fd if fd is not None and os.isatty(fd) else None

    def __enter__(self):
        if self.fd is not None:
            self.saved = termios.tcgetattr(self.fd)
            tty.setraw(self.fd)
        return self.fd is not None

    def __exit__(self, kind, value, trace):
        if self.fd is not None:
            termios.tcsetattr(self.fd, termios.TCSADRAIN, self.saved)


class _FirmwareFilter:
    """Before our loader speaks, the firmware clears the screen several times, and with it what was told to the user.
    Takes that out; from the loader's first line on, every byte passes."""

    CLEARING = re.compile(rb"\x1b\[(?:2J|0?1;0?1H|=3h)")

    def __init__(self):
        self.loader_seen = False

    def __call__(self, data):
        if self.loader_seen:
            return data
        self.loader_seen = b"Bulkhead" in data
        return self.CLEARING.sub(b"", data)


def _write_all(fd, data):
    while data:
        data = data[os.write(fd, data):]


TAIL = 16384  # bytes of output that are kept for who looks at how it ended


def bridge(machine, timeout=None, log=None, tail=None):
    """Copies between the terminal and machine.console until the machine ends. Returns "off", "timeout" or "left".

    `timeout` in seconds of wall time; `log`: a file that gets a copy of the output; `tail`: a
    bytearray that holds the newest of it at the end."""
    fd = _input_fd()
    end = time.monotonic() + timeout if timeout else None
    copy = open(log, "wb") if log else None
    try:
        with _Raw(fd) as raw:
            return _loop(machine, fd, raw, end, copy, tail)
    finally:
        if copy:
            copy.close()


def _loop(machine, fd, raw, end, copy, tail):
    console = machine.console
    inputs = [console] + ([fd] if fd is not None else [])
    visible = _FirmwareFilter()
    while True:
        left = None if end is None else end - time.monotonic()
        if left is not None and left <= 0:
            return "timeout"
        ready = select.select(inputs, [], [], min(1.0, left) if left is not None else 1.0)[0]
        if console in ready:
            data = _receive(console)
            if not data:
                return "off"
            _write_all(1, visible(data))
            if tail is not None:
                tail += data
                del tail[:-TAIL]
            if copy:
                copy.write(data)
                copy.flush()
        if fd in ready:
            data = os.read(fd, 256)
            if not data:
                inputs.remove(fd)
            elif raw and LEAVE in data:
                return "left"
            else:
                console.sendall(data)
        if not ready and machine.process.poll() is not None:
            return "off"


def _receive(console):
    try:
        return console.recv(65536)
    except OSError:
        return b""
