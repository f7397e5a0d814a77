"""The part of scripts/setup that is not Debian packages: the emulator and the guest kernels, in the cache."""
import shutil
import sys

import bochs
import carrier
import guests
import rigs
import thirdparty
import ui
import witnesses


def _packaged_bochs(reason):
    """The fallback when the optimised build cannot be had."""
    if shutil.which("bochs"):
        ui.warn("the optimised Bochs could not be built, so Debian's package is used: several times slower, and "
                "without the rig's corrections\n  " + reason)
        return
    raise ui.Failure("Bochs could not be built (%s)\nand the package bochs is not installed: "
                     "apt-get install bochs gives a slow replacement" % reason)


def main(arguments):
    try:
        bochs.build()
    except ui.Failure as failure:
        if rigs.kvm_problem() is not None:
            _packaged_bochs(str(failure))
    thirdparty.obtain()
    names = guests.KERNELS if "--all" in arguments else [guests.DEMO_KERNEL]
    for name in names:
        guests.kernel(name)
    if "--all" in arguments:
        carrier.root()
        for name in witnesses.FILES:
            witnesses.path(name)
    return 0


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    ui.main(main)
