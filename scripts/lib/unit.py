"""Unit tests: the host build with two compilers under ASan and UBSan, and the coverage of pure code."""
import glob
import json
import os
import subprocess
import xml.etree.ElementTree as ElementTree

import build
import ui

COMPILERS = ("gcc", "clang")
COVERAGE_MINIMUM = 90.0  # percent of lines
PURE = ("hv", "arch", "drivers", "boot")


def names(pattern):
    """The programs that CMake makes of tests/`pattern`: one of each source."""
    return [os.path.splitext(os.path.basename(path))[0]
            for path in sorted(glob.glob(os.path.join(ui.ROOT, "tests", pattern)))]


def directory(compiler):
    return os.path.join(build.BUILD, "host-" + compiler)


def configure(compiler):
    """The host build of one compiler; GCC's is instrumented for coverage, Clang's has the fuzzers."""
    where = directory(compiler)
    build.configure(where, ["-DBULKHEAD_CORE=OFF", "-DCMAKE_C_COMPILER=" + compiler,
                            "-DBULKHEAD_COVERAGE=" + ("ON" if compiler == "gcc" else "OFF")])
    return where


def _test(results, compiler, jobs):
    where = configure(compiler)
    with ui.step("building the unit tests with %s" % compiler):
        build.ninja(names("host/test_*.c") + names("tools/*.c"), where, what="the host build with " + compiler)
    junit = os.path.join(where, "unit.xml")
    if os.path.exists(junit):
        os.unlink(junit)
    if compiler == "gcc":
        _forget_counts(where)
    done = subprocess.run(["ctest", "--test-dir", where, "-j", str(jobs), "--timeout", "300", "--output-on-failure",
                           "--output-junit", junit], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, check=False)
    if not os.path.exists(junit):
        raise ui.Failure("ctest failed:\n" + done.stdout.decode("utf-8", "replace"))
    for case in ElementTree.parse(junit).getroot().iter("testcase"):
        name = "unit %s %s" % (compiler, case.get("name"))
        if case.get("status") == "run" and case.find("failure") is None:
            results.check(True, name, "%.1f s" % float(case.get("time", 0)))
        else:
            output = case.findtext("system-out") or ""
            results.check(False, name, "\n" + "\n".join(output.splitlines()[-30:]))


def _forget_counts(where):
    for base, _, names in os.walk(where):
        for name in names:
            if name.endswith(".gcda"):
                os.unlink(os.path.join(base, name))


def _coverage(results):
    filters = [option for room in PURE for option in ("--filter", os.path.join(ui.ROOT, room) + "/")]
    out = os.path.join(build.BUILD, "coverage.json")
    ui.command(["gcovr", "--root", ui.ROOT, "--object-directory", directory("gcc"), *filters,
                "--gcov-ignore-parse-errors", "--json-summary", out, directory("gcc")], what="gcovr")
    with open(out, encoding="utf-8") as file:
        summary = json.load(file)
    results.note("\nLine coverage of pure code\n%-40s %9s %9s %7s" % ("file", "lines", "covered", ""))
    for entry in sorted(summary["files"], key=lambda entry: entry["filename"]):
        if entry["line_total"]:
            results.note("%-40s %9d %9d %6.1f%%" % (entry["filename"], entry["line_total"], entry["line_covered"],
                                                  100.0 * entry["line_covered"] / entry["line_total"]))
    percent = 100.0 * summary["line_covered"] / max(1, summary["line_total"])
    results.note("%-40s %9d %9d %6.1f%%\n" % ("all", summary["line_total"], summary["line_covered"], percent))
    results.check(percent >= COVERAGE_MINIMUM, "coverage of pure code",
                  "%.1f %% of lines, at least %.0f %% wanted" % (percent, COVERAGE_MINIMUM))


def run(results, jobs):
    for compiler in COMPILERS:
        try:
            _test(results, compiler, jobs)
        except ui.Failure as failure:
            results.check(False, "unit " + compiler, str(failure))
    _coverage(results)
