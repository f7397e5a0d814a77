"""What the commands say, and how: progress lines, errors that tell what to do, colours only on a terminal."""
import os
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Failure(Exception):
    """Something the user should read; no traceback. `status` becomes the exit status."""

    def __init__(self, message, status=1):
        super().__init__(message)
        self.status = status


def _paint(code, text):
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not sys.stderr.isatty()
    return text if plain else "\033[%sm%s\033[0m" % (code, text)


def say(message):
    print(_paint("1;34", "bulkhead:") + " " + message, file=sys.stderr, flush=True)


def warn(message):
    print(_paint("1;33", "bulkhead: warning:") + " " + message, file=sys.stderr, flush=True)


def good(text):
    return _paint("32", text)


def bad(text):
    return _paint("31", text)


class step:
    """A slow piece of work: says what begins, and how long it took."""

    def __init__(self, what):
        self.what = what

    def __enter__(self):
        self.start = time.monotonic()
        say(self.what + " ...")
        return self

    def __exit__(self, kind, value, trace):
        if kind is None and time.monotonic() - self.start > 5:
            say("  done in %.0f s" % (time.monotonic() - self.start))


def command(argv, log=None, cwd=None, env=None, what=None):
    """Runs a command quietly. On failure shows the end of its output and raises Failure."""
    try:
        done = subprocess.run(argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, check=False)
    except FileNotFoundError:
        raise Failure("%s: command not found (scripts/setup installs what is needed)" % argv[0]) from None
    output = done.stdout.decode("utf-8", "replace")
    if log:
        os.makedirs(os.path.dirname(log), exist_ok=True)
        with open(log, "a", encoding="utf-8") as file:
            file.write("$ " + " ".join(argv) + "\n" + output)
    if done.returncode != 0:
        sys.stderr.write("".join(line + "\n" for line in output.splitlines()[-40:]))
        where = "\n  the whole output: " + log if log else ""
        raise Failure("%s failed (exit status %d): %s%s"
                      % (what or argv[0], done.returncode, " ".join(argv), where))
    return output


def main(function):
    """Runs a command's main function; failures become one message and an exit status."""
    try:
        status = function(sys.argv[1:])
    except Failure as failure:
        print(_paint("1;31", "bulkhead: error:") + " " + str(failure), file=sys.stderr, flush=True)
        status = failure.status
    except KeyboardInterrupt:
        print(file=sys.stderr)
        status = 130
    except BrokenPipeError:
        status = 141
    sys.exit(status)
