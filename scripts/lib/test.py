"""scripts/test: unit tests, fuzzers, static checks, emulator boots. The closing line is "N passed, N failed"."""
import argparse
import os
import sys
import time

import build
import fuzz
import report
import static
import ui
import unit

KINDS = ("unit", "static", "fuzz", "bochs", "nested")


def _boots(results, options):
    sys.path.insert(0, os.path.join(ui.ROOT, "tests", "rig"))
    import rig_cases  # pylint: disable=import-outside-toplevel
    build.loader()
    rig_cases.run(results, options.only, options.jobs)


def _nested(results, options):
    sys.path.insert(0, os.path.join(ui.ROOT, "tests", "rig"))
    import rig_nested  # pylint: disable=import-outside-toplevel
    build.loader()
    rig_nested.run(results, options.only, options.jobs)


def main(arguments):
    parser = argparse.ArgumentParser(
        prog="scripts/test", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="unit    host builds with GCC and Clang, ASan and UBSan; line coverage of pure code\n"
        "fuzz    every fuzzer, FUZZ_SECONDS (default 40) each\n"
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
    kinds = KINDS if not options.kinds or "all" in options.kinds else options.kinds
    results = report.Report()
    runners = {"unit": unit.run, "static": static.run, "fuzz": fuzz.run}
    for kind in kinds:
        start = time.monotonic()
        ui.say("%s tests" % kind)
        try:
            if kind in ("bochs", "nested"):
                (_boots if kind == "bochs" else _nested)(results, options)
            else:
                runners[kind](results, options.jobs)
        except ui.Failure as failure:  # what cannot even be built has failed; the other kinds still run
            results.check(False, kind, str(failure))
        ui.say("%s tests: %.0f s" % (kind, time.monotonic() - start))
    return results.close()


if __name__ == "__main__":
    ui.main(main)
