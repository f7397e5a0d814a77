"""What the machine's screen shows: read from pictures of it character by character, as the font is known."""
import os
import re
import shutil
import subprocess
import time

import rig
import screen

PICTURES = rig.LOGS  # SCREEN-*.png, to look at
PANIC_TOP = 3 * screen.CELL_HEIGHT + 5 * 8  # of the text, in pixels of the font: fb_panic.c
ALARM = 0xC02F38
SETTLE_SECONDS = 60  # wall time until all that was printed is drawn, on a busy machine


def _save(picture, name):
    picture.save(os.path.join(PICTURES, "screen-%s.png" % name))


def _settled(boot, good):
    """Pictures until one is as wanted, or the last one."""
    end = time.monotonic() + SETTLE_SECONDS
    while True:
        boot.listen()
        picture = boot.machine.screen.picture()
        if good(picture) or time.monotonic() > end:
            return picture


def _still(boot):
    """A picture that does not change for a while."""
    last = b""
    end = time.monotonic() + SETTLE_SECONDS
    while True:
        boot.listen()
        picture = boot.machine.screen.picture()
        if picture.pixels == last or time.monotonic() > end:
            return picture
        last = picture.pixels
        time.sleep(2)


def _mirrors(boot, picture, marker):
    """How many lines before the marker are on the screen: 0 unless they are the serial console's, wrapped."""
    shown = [line for line in picture.console() if line]
    columns = (picture.width - 2 * screen.MARGIN) // screen.CELL_WIDTH
    serial = [line[i:i + columns].rstrip() for line in boot.text.splitlines()
              for i in range(0, max(1, len(line)), columns)]
    serial = [line for line in serial if line]
    if marker not in shown or marker not in serial:
        return 0
    count, at = shown.index(marker), serial.index(marker)
    return count if serial[at - count:at] == shown[:count] else 0


def _console_checks(t, boot):
    marker = "screen 0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ!#%&()*+,-./:;<=>?@[]^_{|}~"
    boot.run("echo '%s'" % marker)
    picture = _settled(boot, lambda picture: _mirrors(boot, picture, marker) > 20)
    _save(picture, "console")
    lines = picture.console()
    t.check(marker in lines, "screen: ASCII is read back from the picture", "" if marker in lines else "\n".join(lines))
    t.check(not any(screen.UNKNOWN in line for line in lines), "screen: every cell is a character of the font")
    t.check(_mirrors(boot, picture, marker) > 20, "screen: it shows what the serial port got",
            "%d lines" % _mirrors(boot, picture, marker))


def _log_check(t, boot):
    """The prompt's `log` shows the core's lines from the start."""
    boot.to_prompt(30)
    boot.type("log\r")
    wanted = r"core: screen: \d+ x \d+ pixels"
    picture = _settled(boot, lambda picture: any(re.search(wanted, line) for line in picture.console()))
    _save(picture, "prompt")
    t.check(any(re.search(wanted, line) for line in picture.console()), "screen: the log is on it")


def _panic_checks(t, boot):
    boot.type("crash yes\r")
    boot.expect(r"PANIC: .*", 60)
    alarm = screen.eight_bits(ALARM)
    _settled(boot, lambda picture: picture.pixels[0] == alarm)
    picture = _still(boot)
    _save(picture, "panic")
    lines = picture.read(screen.MARGIN, PANIC_TOP)
    first = boot.text[boot.text.index("bulkhead: PANIC:"):].splitlines()[0]
    t.check(lines[0].startswith(first.strip()), "screen: a panic is readable", first)
    if not shutil.which("zbarimg"):
        t.skip("screen: the QR code", "there is no zbarimg (package zbar-tools)")
        return
    done = subprocess.run(["zbarimg", "--quiet", "--raw", "-Sdisable", "-Sqrcode.enable",
                           os.path.join(PICTURES, "screen-panic.png")], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, check=False)
    code = done.stdout.decode("ascii", "replace").rstrip("\n").splitlines()
    start = boot.text.rindex("bulkhead: PANIC:")
    serial = [line.rstrip() for line in boot.text[start:].splitlines()]
    t.check(len(code) > 3 and [line.rstrip() for line in code[:-1]] == serial[:len(code) - 1]
            and serial[len(code) - 1].startswith(code[-1].rstrip()),
            "screen: its QR code says the same", "%d bytes" % len(done.stdout))


def run(t):
    image = rig.linux_image("screen", "6.1-cloud", cmdline="console=ttyS0,115200", screen=True)
    with rig.Boot("screen", image, cpus=1, screen=True) as boot:
        boot.ready(300)
        _console_checks(t, boot)
        _log_check(t, boot)
        _panic_checks(t, boot)
