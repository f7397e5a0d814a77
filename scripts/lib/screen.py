"""The emulator's screen: a client of its RFB server (RFC 6143), pictures as PNG files, and the reading of Bulkhead's own
text from them, exactly, as the font is known."""
import glob
import os
import re
import socket
import struct
import threading
import time
import zlib

import font
import thirdparty
import ui

# Bochs draws its tool bar above the machine's screen and a status bar below it.
TOOLBAR, STATUSBAR = 32, 18
DESKTOP_SIZE = -223  # the pseudo-encoding that lets the server change the size
FRAMEBUFFER_UPDATE, SET_ENCODINGS, UPDATE_REQUEST = 0, 2, 3

CELL_WIDTH, CELL_HEIGHT, MARGIN = 8, 18, 16
UNKNOWN = "\ufffd"


def eight_bits(colour):
    """0xRRGGBB as the emulator's server sends it: three bits of red and green, two of blue."""
    return colour >> 21 & 7 | (colour >> 13 & 7) << 3 | (colour >> 6 & 3) << 6


def colours():
    """All colours that Bulkhead draws with, by the byte that the server makes of them."""
    found = {}
    for name in ("fb_draw.c", "fb_draw.h"):
        with open(os.path.join(ui.ROOT, "drivers", "fb", name), encoding="utf-8") as file:
            for text in re.findall(r"\b0x([0-9a-f]{6})u?\b", file.read()):
                colour = int(text, 16)
                if found.setdefault(eight_bits(colour), colour) != colour:
                    raise ui.Failure("drivers/fb: 0x%06x and 0x%06x cannot be told apart in pictures of the emulator"
                                     % (colour, found[eight_bits(colour)]))
    return found


class Picture:
    """What the screen showed: one byte for a pixel."""

    def __init__(self, width, height, pixels):
        self.width, self.height, self.pixels = width, height, pixels

    def save(self, path):
        """Writes a PNG. The server's eight bits become the colours that Bulkhead draws with, where they are those."""
        known = colours()
        palette = bytearray()
        for value in range(256):
            colour = known.get(value, (value & 7) * 255 // 7 << 16 | (value >> 3 & 7) * 255 // 7 << 8
                               | (value >> 6) * 255 // 3)
            palette += colour.to_bytes(3, "big")
        rows = b"".join(b"\0" + self.pixels[y * self.width:(y + 1) * self.width] for y in range(self.height))
        with open(path, "wb") as file:
            file.write(b"\x89PNG\r\n\x1a\n")
            for kind, data in ((b"IHDR", struct.pack(">IIBBBBB", self.width, self.height, 8, 3, 0, 0, 0)),
                               (b"PLTE", bytes(palette)), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")):
                file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))

    def scale(self):
        """As fb_scale() in drivers/fb/fb_draw.c."""
        return min(max(min(self.width // 1024, self.height // 640), 1), 4)

    def read(self, left, top):
        """The text of the cells from there on (in pixels of the font), as a list of lines. What is not a character of
        the font is U+FFFD."""
        scale, glyphs = self.scale(), _glyphs()
        width, height = CELL_WIDTH * scale, CELL_HEIGHT * scale
        lines = []
        for y in range(top * scale, self.height - height + 1, height):
            cells = range(left * scale, self.width - MARGIN * scale - width + 1, width)
            lines.append("".join(self._character(x, y, scale, glyphs) for x in cells).rstrip())
        return lines

    def _character(self, x, y, scale, glyphs):
        rows = [self.pixels[(y + r * scale) * self.width + x:(y + r * scale) * self.width + x + CELL_WIDTH * scale:scale]
                for r in range(CELL_HEIGHT)]
        values = set().union(*rows)
        if len(values) == 1:
            return " "
        if len(values) > 2:
            return UNKNOWN
        ink = max(values)
        bits = bytes(sum(0x80 >> i for i in range(CELL_WIDTH) if row[i] == ink) for row in rows)
        # Which of the two colours is the ink is not known: a character may be written inversely.
        return glyphs.get(bits) or glyphs.get(bytes(byte ^ 0xFF for byte in bits)) or UNKNOWN

    def console(self):
        """The lines of the text console (drivers/fb/fb_text.c)."""
        return self.read(MARGIN, CELL_HEIGHT + 12 + 1 + 8)


def _glyphs():
    """Character by the rows of its cell."""
    found = {}
    for code, rows in font.characters(thirdparty.font_file()):
        joins = code in font.JOINING
        cell = bytes([rows[0] if joins else 0]) + rows + bytes([rows[-1] if joins else 0])
        found.setdefault(cell, chr(code))  # ASCII first: the dash looks like the hyphen
    return found


class Screen:
    """The connection to the RFB server of an emulator that has just been started. The emulator waits for it, and
    whenever it draws, until we have read: a thread does nothing else."""

    def __init__(self, process, timeout=20):
        self.socket = _connect(process, timeout)
        self.stream = self.socket.makefile("rb")
        self.lock = threading.Lock()
        self.width = self.height = 0
        self.pixels = bytearray()
        self._greet()
        threading.Thread(target=self._run, daemon=True).start()

    def _greet(self):
        """RFC 6143, 7.1 to 7.3, version 3.3; then the two messages that make the server send."""
        self.stream.read(12)
        self.socket.sendall(b"RFB 003.003\n")
        self.stream.read(4)  # the security type: none
        self.socket.sendall(b"\1")
        self._resize(*struct.unpack(">HH16x", self.stream.read(20)))
        self.stream.read(struct.unpack(">I", self.stream.read(4))[0])  # its name
        self.socket.sendall(struct.pack(">BxHii", SET_ENCODINGS, 2, 0, DESKTOP_SIZE))
        self.socket.sendall(struct.pack(">BBHHHH", UPDATE_REQUEST, 0, 0, 0, self.width, self.height))

    def _resize(self, width, height):
        with self.lock:
            self.width, self.height, self.pixels = width, height, bytearray(width * height)

    def _run(self):
        try:
            while self.stream.read(1) == bytes([FRAMEBUFFER_UPDATE]):
                for _ in range(struct.unpack(">xH", self.stream.read(3))[0]):
                    self._rectangle(*struct.unpack(">HHHHi", self.stream.read(12)))
        except (OSError, struct.error, ValueError):
            pass  # the emulator has ended; the last picture stays

    def _rectangle(self, x, y, width, height, encoding):
        if encoding == DESKTOP_SIZE:
            self._resize(width, height)
            return
        data = self.stream.read(width * height)
        with self.lock:
            for row in range(height):
                at = (y + row) * self.width + x
                self.pixels[at:at + width] = data[row * width:(row + 1) * width]

    def picture(self):
        with self.lock:
            return Picture(self.width, self.height - TOOLBAR - STATUSBAR,
                           bytes(self.pixels[TOOLBAR * self.width:(self.height - STATUSBAR) * self.width]))

    def close(self):
        self.socket.close()


def _listening(process):
    """The TCP ports at which a process listens on this machine."""
    sockets = set()
    for link in glob.glob("/proc/%d/fd/*" % process.pid):
        try:
            match = re.match(r"socket:\[(\d+)\]", os.readlink(link))
        except OSError:
            continue
        if match:
            sockets.add(match.group(1))
    with open("/proc/net/tcp", encoding="ascii") as file:
        for line in list(file)[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in sockets:
                yield int(fields[1].split(":")[1], 16)


def _connect(process, timeout):
    end = time.monotonic() + timeout
    while process.poll() is None and time.monotonic() < end:
        for port in _listening(process):
            connection = socket.create_connection(("127.0.0.1", port), timeout)
            connection.settimeout(None)
            return connection
        time.sleep(0.05)
    raise ui.Failure("the emulator's screen cannot be reached")
