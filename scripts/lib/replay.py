"""scripts/replay: runs the exits of a VM's dump again, through the decoder and handlers built for this machine."""
import argparse
import os
import subprocess
import sys

import build
import ui


def main(arguments):
    parser = argparse.ArgumentParser(
        prog="scripts/replay", description="Finds the dumps (`dump VM` at Bulkhead's prompt, or on_crash = dump) in a "
        "console transcript, checks them, and runs every recorded exit again in the host build. Prints a line for each "
        "exit: what happened, what Bulkhead answered, and whether today's code says the same. Exits with 1 on a "
        "difference, or when a dump is missing or damaged.")
    parser.add_argument("file", metavar="FILE", help="the transcript; other lines in it do not matter")
    parser.add_argument("--vm", metavar="NAME", help="only dumps of this VM")
    parser.add_argument("--vcpu", metavar="N", type=int, help="only this vCPU")
    options = parser.parse_args(arguments)
    build.configure()
    build.ninja(["replay"], what="building the replayer")
    command = [os.path.join(build.BUILD, "tests", "replay"), options.file]
    if options.vm:
        command += ["--vm", options.vm]
    if options.vcpu is not None:
        command += ["--vcpu", str(options.vcpu)]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(ui.main(main))
