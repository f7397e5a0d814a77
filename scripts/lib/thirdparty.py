"""What the core contains that others wrote and Debian packages: a font and a QR code generator. Prints the directory
that has them, in the form that drivers/fb includes; downloads them first when they are not in the cache."""
import hashlib
import os
import shutil
import sys
import tempfile

import cache
import debian
import font
import ui

# name, version, licence of each; the versions are pinned, Debian's signed index says what they contain.
FONT = ("xfonts-terminus", "4.48-3.1", "SIL Open Font License 1.1")
FONT_FILE = "usr/share/fonts/X11/misc/ter-u16n_unicode.pcf.gz"
QR = ("qr-code-generator", "1.8.0-1.2", "MIT")
QR_FILES = ("qrcodegen.c", "qrcodegen.h")
FONT_DATA = "fb_font_data.inc"


def directory():
    digest = hashlib.sha256(repr((FONT, QR)).encode())
    for source in (font.__file__, __file__):
        with open(source, "rb") as file:
            digest.update(file.read())
    return cache.directory("thirdparty-" + digest.hexdigest()[:12])


def font_file():
    """The font as it was downloaded."""
    return os.path.join(obtain(), os.path.basename(FONT_FILE))


def _fill(work, result):
    ui.command(["dpkg-deb", "-x", debian.download(*FONT[:2], work), work], what="unpacking " + FONT[0])
    shutil.copy(os.path.join(work, FONT_FILE), result)
    font.write(os.path.join(work, FONT_FILE), os.path.join(result, FONT_DATA))
    ui.command(["tar", "-xf", debian.source_tarball(*QR[:2], work), "-C", work, "--strip-components=1"],
               what="unpacking " + QR[0])
    for name in QR_FILES:
        shutil.copy(os.path.join(work, "c", name), result)


def obtain():
    target = directory()
    if os.path.isdir(target):
        return target
    with cache.lock("thirdparty"):
        if not os.path.isdir(target):
            with tempfile.TemporaryDirectory(dir=cache.directory(), prefix="thirdparty-build-") as work:
                result = os.path.join(work, "result")
                os.mkdir(result)
                _fill(work, result)
                os.rename(result, target)
    return target


def main(_):
    print(obtain())
    return 0


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    ui.main(main)
