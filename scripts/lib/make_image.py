"""scripts/image: a configuration and the files it names, as a disk image."""
import argparse
import os

import build
import check_config
import config
import image
import ui


def files_of(config_path, efi):
    """What goes into the image: (path in the ESP, host path) for the loader, the configuration and its files."""
    files = [("EFI/BOOT/BOOTX64.EFI", efi), ("bulkhead.conf", config_path)]
    for relative, host, line in config.files(config_path):
        if not os.path.isfile(host):
            raise ui.Failure("%s:%d: %s is not there\n  Paths are relative to the configuration file: put the file "
                             "at %s" % (config_path, line, relative, host))
        files.append((os.path.normpath(relative), host))
    return files


def make(config_path, out, efi=None, check=True):
    if not os.path.isfile(config_path):
        raise ui.Failure("%s: no such file" % config_path)
    if check:
        check_config.check(config_path)
    image.write(out, files_of(config_path, efi or build.loader()))


def main(arguments):
    parser = argparse.ArgumentParser(
        prog="scripts/image", description="Writes a raw disk image (GPT, one EFI system partition) with Bulkhead, "
        "the configuration and every file it names. Copy it to a USB stick with dd, or boot it in an emulator.")
    parser.add_argument("--config", required=True, metavar="FILE", help="the bulkhead.conf; paths in it are "
                        "relative to it")
    parser.add_argument("--out", required=True, metavar="IMG", help="the image to write")
    parser.add_argument("--efi", metavar="BOOTX64.EFI", help="take this loader instead of building one")
    parser.add_argument("--no-check", action="store_true", help="do not check the configuration first")
    options = parser.parse_args(arguments)
    make(options.config, options.out, options.efi, not options.no_check)
    ui.say("%s: %.1f MiB" % (options.out, os.path.getsize(options.out) / 1048576))
    return 0


if __name__ == "__main__":
    ui.main(main)
