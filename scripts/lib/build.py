"""Building what the other commands need, in the build directory of the tree. One builder at a time in a directory,
whichever command or thread it belongs to: ninja itself does not look."""
import contextlib
import fcntl
import os
import shlex

import ui

BUILD = os.path.join(ui.ROOT, "build")
LOADER = os.path.join(BUILD, "BOOTX64.EFI")
CORE = os.path.join(BUILD, "core.elf")


@contextlib.contextmanager
def alone(directory):
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, ".builder.lock"), "w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def configure(directory=BUILD, options=(), env=None):
    """Runs cmake when the directory is new or its options changed."""
    with alone(directory):
        _configure(directory, options, env)


def _configure(directory, options, env):
    stamp = os.path.join(directory, ".configured-with")
    wanted = shlex.join(options)
    if os.path.exists(os.path.join(directory, "build.ninja")) and os.path.exists(stamp):
        with open(stamp, encoding="utf-8") as file:
            if file.read() == wanted:
                return
    ui.command(["cmake", "-S", ui.ROOT, "-B", directory, "-G", "Ninja", *options], env=env,
               what="configuring the build")
    with open(stamp, "w", encoding="utf-8") as file:
        file.write(wanted)


def ninja(targets=(), directory=BUILD, what="the build"):
    """Builds; every target that can be is built, even when another one fails."""
    with alone(directory):
        return ui.command(["ninja", "--quiet", "-k", "0", "-C", directory, *targets], what=what)


def loader():
    """Builds and returns BOOTX64.EFI."""
    with ui.step("building Bulkhead"):
        configure()
        ninja([os.path.basename(LOADER)])
    return LOADER


def checker():
    """Builds and returns the offline configuration checker: the loader's own parser, for this machine."""
    configure()
    ninja(["check_config"], what="building the configuration checker")
    return os.path.join(BUILD, "tests", "check_config")
