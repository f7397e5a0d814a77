"""Terminus Font, from the form X11 keeps it in (PCF) to what drivers/fb/fb_font.c includes."""
import gzip
import struct

WIDTH, HEIGHT = 8, 16
ASCII = range(0x20, 0x7F)
REPLACEMENT = 0xFFFD
JOINING = range(0x2500, 0x25A0)  # box drawing and blocks
SYMBOLS = sorted({ord(c) for c in "\u00a7\u00a9\u00ab\u00b0\u00b1\u00b2\u00b3\u00b5\u00b7\u00bb\u00d7\u00f7"
                  "\u00c4\u00c5\u00c6\u00c7\u00c9\u00d1\u00d6\u00d8\u00dc\u00df\u00e0\u00e1\u00e4\u00e5\u00e6\u00e7\u00e8"
                  "\u00e9\u00ea\u00ed\u00f1\u00f3\u00f4\u00f6\u00f8\u00fa\u00fc"
                  "\u2013\u2014\u2018\u2019\u201c\u201d\u2022\u2026\u20ac\u2190\u2191\u2192\u2193\u2264\u2265"
                  "\u2500\u2502\u250c\u2510\u2514\u2518\u251c\u2524\u252c\u2534\u253c"
                  "\u2550\u2551\u2554\u2557\u255a\u255d\u2580\u2584\u2588\u258c\u2590\u2591\u2592\u2593"
                  "\u25a0\u25b6\u25cf\u2713"} | {REPLACEMENT})

# The Portable Compiled Format: its tables' types, and the flags of a table's format.
ENCODINGS, BITMAPS = 1 << 5, 1 << 3
BIG_ENDIAN, BIG_BITS = 1 << 2, 1 << 3


def _tables(data):
    if data[:4] != b"\x01fcp":
        raise ValueError("not a PCF font")
    count, = struct.unpack_from("<I", data, 4)
    return {kind: offset for kind, _, _, offset in struct.iter_unpack("<IIII", data[8:8 + 16 * count])}


def read(path):
    """{code point: 16 bytes, the top row first, the leftmost pixel in bit 7} of all characters of 8 x 16 pixels."""
    with gzip.open(path) as file:
        data = file.read()
    tables = _tables(data)
    at = tables[BITMAPS]
    form, = struct.unpack_from("<I", data, at)
    if not form & BIG_BITS:
        raise ValueError("the font's bits are in the wrong order")
    order, step = (">" if form & BIG_ENDIAN else "<"), 1 << (form & 3)
    count, = struct.unpack_from(order + "I", data, at + 4)
    offsets = struct.unpack_from(order + "%dI" % count, data, at + 8)
    bits = at + 8 + 4 * count + 16
    bitmaps = [data[bits + start:bits + start + step * HEIGHT:step] for start in offsets]
    at = tables[ENCODINGS]
    order = ">" if struct.unpack_from("<I", data, at)[0] & BIG_ENDIAN else "<"
    low2, high2, low1, high1, _ = struct.unpack_from(order + "5h", data, at + 4)
    columns = high2 - low2 + 1
    indices = struct.unpack_from(order + "%dH" % (columns * (high1 - low1 + 1)), data, at + 14)
    return {(low1 + i // columns) << 8 | (low2 + i % columns): bitmaps[index]
            for i, index in enumerate(indices) if index != 0xFFFF}


def characters(path):
    """The glyphs in the order of their numbers, as (code point, rows)."""
    font = read(path)
    return [(code, font[code]) for code in (*ASCII, *(code for code in SYMBOLS if code in font))]


def write(path, out):
    """Writes fb_font_data.inc."""
    glyphs = characters(path)
    symbols = [code for code, _ in glyphs[len(ASCII):]]
    joining = [i for i, code in enumerate(symbols) if code in JOINING]
    lines = ["/* Made by scripts/lib/font.py from Terminus Font (SIL Open Font License 1.1). */",
             "#define FONT_SYMBOLS %du" % len(symbols),
             "#define FONT_JOIN_FIRST %du" % joining[0],
             "#define FONT_JOIN_END %du" % (joining[-1] + 1),
             "#define FONT_REPLACEMENT %du" % symbols.index(REPLACEMENT),
             "#define FONT_CODE_POINTS \\", "    " + ", ".join("0x%04x" % code for code in symbols),
             "#define FONT_GLYPHS \\"]
    lines += ["    {%s}, \\" % ", ".join("0x%02x" % row for row in rows) for _, rows in glyphs]
    with open(out, "w", encoding="ascii") as file:
        file.write("\n".join(lines)[:-2].rstrip(",") + "\n")
