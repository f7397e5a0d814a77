"""Writes the core's symbol table into the core: symbols.py CORE.ELF. The room for it is in arch/x86/symbols_room.asm; its
layout is described in arch/x86/symbols.h."""
import os
import re
import struct
import subprocess
import sys

import ui

MAGIC = 0x6D797342
NAME = 64  # SYMBOLS_NAME


def room(elf):
    """(address, bytes) of what the core has for the table."""
    lines = subprocess.run(["nm", "-S", elf], check=True, capture_output=True, text=True).stdout
    match = re.search(r"^([0-9a-f]+) ([0-9a-f]+) \S symbols_core$", lines, re.M)
    if not match:
        raise ui.Failure("%s has no room for its symbols (arch/x86/symbols_room.asm)" % elf)
    return int(match.group(1), 16), int(match.group(2), 16)


def functions(elf):
    """[(address, name)] of the text, ascending; the first name of an address counts. Suffixes that the compiler's
    optimisers add (.lto_priv.0, .constprop.1) are left out."""
    lines = subprocess.run(["nm", "-n", "--defined-only", elf], check=True, capture_output=True, text=True).stdout
    found = {}
    for line in lines.splitlines():
        address, kind, name = line.split(maxsplit=2)
        plain = name.split(".")[0]
        if kind in "tT" and plain:  # labels of the assembly's macros begin with dots
            found.setdefault(int(address, 16), plain)
    return sorted(found.items())


def start_of(elf):
    lines = subprocess.run(["nm", elf], check=True, capture_output=True, text=True).stdout
    return int(re.search(r"^([0-9a-f]+) \S core_start$", lines, re.M).group(1), 16)


def table(elf):
    """The bytes of struct symbols_table."""
    last, previous, symbols = start_of(elf), b"", functions(elf)
    content = struct.pack("<II", MAGIC, len(symbols))
    for address, text in symbols:
        name = text.encode()[:NAME - 1]
        distance = address - last
        while distance > 0x7f:
            content += bytes([0x80 | distance & 0x7f])
            distance >>= 7
        common = len(os.path.commonprefix([previous, name]))
        content += bytes([distance, common]) + name[common:] + b"\0"
        last, previous = address, name
    _, size = room(elf)
    if len(content) > size:
        raise ui.Failure("the core's symbols need %d bytes, CORE_SYMBOLS_ROOM in arch/core.cmake is %d"
                         % (len(content), size))
    return content + bytes(size - len(content))


def place(elf):
    """Where the table lies in the file."""
    address, _ = room(elf)
    headers = subprocess.run(["readelf", "-lW", elf], check=True, capture_output=True, text=True).stdout
    for offset, start, size in re.findall(r"^\s+LOAD\s+0x([0-9a-f]+)\s+0x([0-9a-f]+)\s+0x[0-9a-f]+\s+0x([0-9a-f]+)",
                                          headers, re.M):
        if int(start, 16) <= address < int(start, 16) + int(size, 16):
            return int(offset, 16) + address - int(start, 16)
    raise ui.Failure("the symbols of %s lie in no segment of the file" % elf)


def written(elf):
    """The table as it stands in the file."""
    at = place(elf)
    with open(elf, "rb") as file:
        file.seek(at)
        return file.read(room(elf)[1])


def main(arguments):
    elf = arguments[0]
    content, at = table(elf), place(elf)
    with open(elf, "r+b") as file:
        file.seek(at)
        file.write(content)


if __name__ == "__main__":
    ui.main(main)
