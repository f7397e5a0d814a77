"""scripts/check-config: runs the offline checker, which is the loader's own parser built for this machine."""
import argparse
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
    parser.add_argument("file", metavar="FILE")
    options = parser.parse_args(arguments)
    return subprocess.run([build.checker(), options.file], check=False).returncode


if __name__ == "__main__":
    sys.exit(ui.main(main))
