"""bulkhead.conf, as far as the scripts need it: the files it names. Whether it is right, the checker says."""
import os
import re

import ui

FILE_KEYS = ("kernel", "firmware", "initrd", "module")


def files(path):
    """The files a configuration names, as a list of (relative path, host path, line), each once."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError as error:
        raise ui.Failure("%s: %s" % (path, error.strerror)) from None
    base = os.path.dirname(os.path.abspath(path))
    found = {}
    for number, line in enumerate(lines, 1):
        match = re.match(r"\s*(\w+)\s*=\s*(.*?)\s*(?:(?<=[\s=])#.*)?$", line)
        if match and re.fullmatch(r"(disk|cdrom)\d", match.group(1)):
            words = match.group(2).split()
            if len(words) == 2 and words[0] == "ramdisk":
                found.setdefault(words[1], (words[1], os.path.join(base, words[1]), number))
        elif match and match.group(1) in FILE_KEYS and match.group(2):
            name = match.group(2).split()[0] if match.group(1) == "module" else match.group(2)
        elif match and re.match(r"(disk|cdrom)\d$", match.group(1)) and re.match(r"ramdisk\s", match.group(2)):
            name = match.group(2).split(None, 1)[1]
        else:
            continue
        found.setdefault(name, (name, os.path.join(base, name), number))
    return list(found.values())
