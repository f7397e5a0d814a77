"""scripts/check-config: runs the offline checker, which is the loader's own parser built for this machine."""
import argparse
import re
import subprocess
import sys

import build
import ui


def check(path):
    """Raises Failure when the configuration is not right; the messages have been printed then."""
    done = subprocess.run([build.checker(), path], stdout=sys.stderr, check=False)
    if done.returncode != 0:
        raise ui.Failure("%s is not right (see above)" % path)


def main(arguments):
    parser = argparse.ArgumentParser(
        prog="scripts/check-config", description="Checks a bulkhead.conf with the parser and the rules of the "
        "loader. Prints each error as file:line:col: message and exits with 1, or exits with 0.")
    parser.add_argument("--cpus", metavar="N", type=int, help="also check against a machine with N CPUs")
    parser.add_argument("--memory", metavar="SIZE", help="also check that the VMs fit into SIZE (4G, 512M) together; "
                        "the loader's report shows what a machine has as \"memory for VMs\"")
    parser.add_argument("file", metavar="FILE")
    options = parser.parse_args(arguments)
    command = [build.checker()]
    if options.cpus is not None:
        command += ["--cpus", str(options.cpus)]
    if options.memory is not None:
        match = re.fullmatch(r"(\d+)([MG])", options.memory)
        if not match:
            raise ui.Failure("--memory wants a number with M or G, like 512M, and not '%s'" % options.memory, 2)
        command += ["--mib", str(int(match.group(1)) * (1024 if match.group(2) == "G" else 1))]
    return subprocess.run(command + [options.file], check=False).returncode


if __name__ == "__main__":
    sys.exit(ui.main(main))
