"""scripts/test: unit tests, fuzzers, static checks, emulator boots. The closing line is "N passed, N failed"."""
import argparse
import concurrent.futures
import contextlib
import os
import sys
import time

import build
import fuzz
import report
import static
import ui
import unit

sys.path.insert(0, os.path.join(ui.ROOT, "tests", "rig"))

KINDS = ("unit", "static", "nested", "bochs", "fuzz")  # in this order: what takes longest at a time is begun first


def _unit(results, options):
    unit.run(results, options.jobs)
    return []


def _static(results, options):
    static.run(results, options.jobs)
    return []


def _fuzz(results, _):
    return fuzz.tasks(results)


def _bochs(results, options):
    build.loader()
    import rig_cases  # pylint: disable=import-outside-toplevel
    return rig_cases.tasks(results, options.only)


def _nested(results, options):
    build.loader()
    import rig_nested  # pylint: disable=import-outside-toplevel
    return rig_nested.tasks(results, options.only)


# What is done at once, and what is left to run side by side: each answers a list of functions.
BEGIN = {"unit": _unit, "static": _static, "nested": _nested, "bochs": _bochs, "fuzz": _fuzz}


@contextlib.contextmanager
def _failing(results, kind):
    """What cannot even be built has failed; the other kinds still run."""
    try:
        yield
    except ui.Failure as failure:
        results.check(False, kind, str(failure))


def _begin(results, options, kinds):
    tasks = []
    for kind in kinds:
        start = time.monotonic()
        ui.say("%s tests" % kind)
        with _failing(results, kind):
            tasks += [(kind, task) for task in BEGIN[kind](results, options)]
        if kind in ("unit", "static"):
            ui.say("%s tests: %.0f s" % (kind, time.monotonic() - start))
    return tasks


def _run(results, tasks, jobs):
    """Boots and fuzzers use one CPU each: all of them share the machine's, so that none waits for the last of a kind."""
    start = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(max(1, jobs)) as pool:
        for kind, future in [(kind, pool.submit(task)) for kind, task in tasks]:
            with _failing(results, kind):
                future.result()
    if tasks:
        ui.say("%s tests: %.0f s" % (", ".join(dict(tasks)), time.monotonic() - start))


def main(arguments):
    parser = argparse.ArgumentParser(
        prog="scripts/test", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="unit    host builds with GCC and Clang, ASan and UBSan; line coverage of pure code\n"
        "fuzz    every fuzzer, FUZZ_SECONDS (default 60) each\n"
        "static  headers alone, layers, clang-tidy, cppcheck, the core's segments and size\n"
        "bochs   boots in the emulator: kernels, consoles, bad input, budgets\n"
        "nested  boots in QEMU's machine with VT-d and virtual functions, under KVM (in a Linux inside Bochs where there is none)\n"
        "all     all of these (default)")
    parser.add_argument("kinds", nargs="*", metavar="unit|fuzz|static|bochs|nested|all", choices=(*KINDS, "all", []),
                        default=[])
    parser.add_argument("--only", metavar="TEXT", help="bochs, nested: only boots whose name contains TEXT")
    parser.add_argument("--jobs", type=int, metavar="N", default=os.cpu_count() or 1, help="at a time (default: "
                        "one for each CPU)")
    options = parser.parse_args(arguments)
    chosen = [kind for kind in KINDS if kind in options.kinds or not options.kinds or "all" in options.kinds]
    results = report.Report()
    _run(results, _begin(results, options, chosen), options.jobs)
    return results.close()


if __name__ == "__main__":
    ui.main(main)
