"""Counting what passed: one line for each test, and a closing line that other programs read."""
import sys
import threading

import ui


class Report:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0
        self.failures = []
        self._lock = threading.Lock()

    def _print(self, word, name, detail):
        print("%s %s%s" % (word, name, " (%s)" % detail if detail else ""), flush=True)

    def check(self, ok, name, detail=""):
        """One test; returns whether it passed. The detail of a failure says why."""
        with self._lock:
            if ok:
                self.passed += 1
            else:
                self.failed += 1
                self.failures.append(name)
            self._print("ok  " if ok else "FAIL", name, detail)
        return bool(ok)

    def skip(self, name, why):
        with self._lock:
            self.skipped += 1
            self._print("skip", name, why)

    def note(self, text):
        with self._lock:
            print(text, flush=True)

    def close(self):
        """Prints the closing line and returns the exit status."""
        if self.failures:
            print("\nfailed:", file=sys.stdout)
            for name in self.failures:
                print("  " + name)
        line = "%d passed, %d failed" % (self.passed, self.failed)
        if self.skipped:
            line += ", %d skipped" % self.skipped
        sys.stdout.flush()
        print(line, flush=True)
        if not self.passed and not self.failed:
            ui.warn("nothing was tested")
        return 1 if self.failed or not self.passed else 0
