"""Fuzzing: every fuzzer of tests/fuzz for a while, from its seeds and from what earlier runs found."""
import functools
import os
import random
import re
import shutil
import subprocess

import build
import ui
import unit

SEEDS = os.path.join(ui.ROOT, "tests", "fuzz", "seeds")
CRASHES = os.path.join(build.BUILD, "fuzz-crashes")


def _seconds():
    text = os.environ.get("FUZZ_SECONDS", "60")
    if not text.isdigit() or int(text) == 0:
        raise ui.Failure("FUZZ_SECONDS=%s is not a positive number" % text)
    return int(text)


def _seed():
    """FUZZ_SEED; without it CI always takes the same way, so that a submission is judged by what it changed and a refusal
    can be repeated, and everybody else takes a new one."""
    text = os.environ.get("FUZZ_SEED", "1" if os.environ.get("CI") else str(random.randrange(1, 1 << 31)))
    if not text.isdigit() or int(text) == 0:
        raise ui.Failure("FUZZ_SEED=%s is not a positive number" % text)
    return int(text)


def _fixed_addresses():
    """What to run a fuzzer with so that a seed names its way: libFuzzer learns from the values that are compared, and
    with random addresses two runs with one seed soon differ. Nothing, where the kernel refuses it (some containers)."""
    prefix = ["setarch", "--addr-no-randomize"]
    if subprocess.run(prefix + ["true"], stderr=subprocess.DEVNULL, check=False).returncode == 0:
        return prefix
    ui.say("addresses stay random here: a seed does not repeat a run")
    return []


def _seeds(short):
    """Every seed by name and in order: a folder's own order differs from machine to machine."""
    folder = os.path.join(SEEDS, short)
    return [os.path.join(folder, seed) for seed in sorted(os.listdir(folder))] if os.path.isdir(folder) else []


def _one(results, prefix, binary, seconds, seed):
    short = os.path.basename(binary).removeprefix("fuzz_")
    if not os.path.exists(binary):
        results.check(False, "fuzz " + short, "it cannot be built")
        return
    corpus = os.path.join(build.BUILD, "fuzz-corpus", short)
    os.makedirs(corpus, exist_ok=True)
    options = ["-max_total_time=%d" % seconds, "-seed=%d" % seed, "-timeout=20", "-rss_limit_mb=2048",
               "-reload=0",  # what it finds is looked up by time, else
               "-print_final_stats=1", "-artifact_prefix=" + os.path.join(CRASHES, short + "-")]
    inputs = _seeds(short)
    if inputs:
        options.append("-seed_inputs=" + ",".join(inputs))
    try:
        done = subprocess.run([*prefix, binary, *options, corpus],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=3 * seconds + 120, check=False)
        output, status = done.stdout.decode("utf-8", "replace"), done.returncode
    except subprocess.TimeoutExpired:
        output, status = "it did not stop when its time was up", -1
    runs = re.search(r"number_of_executed_units: (\d+)", output)
    coverage = re.findall(r"cov: (\d+)", output)
    if status == 0:
        # Nothing executed would pass for ever: count it as a failure.
        results.check(bool(runs and int(runs.group(1)) > 1), "fuzz " + short, "%d s, %s runs, %s edges" % (
            seconds, runs.group(1) if runs else "no", coverage[-1] if coverage else "no"))
        return
    kept = re.search(r"Test unit written to (\S+)", output)
    lines = "\n".join(output.splitlines()[-40:])
    results.check(False, "fuzz " + short, "input kept in %s\n%s" % (kept.group(1) if kept else "no file", lines))


def tasks(results):
    """Builds the fuzzers; answers a function for each that runs it."""
    seconds, seed = _seconds(), _seed()
    fuzzers = unit.names("fuzz/fuzz_*.c")
    if not fuzzers:
        results.skip("fuzz", "there are no fuzzers")
        return []
    where = unit.configure("clang")
    binaries = [os.path.join(where, "tests", name) for name in fuzzers]
    for binary in binaries:
        if os.path.exists(binary):
            os.unlink(binary)  # one that cannot be built any more must not pass as it was
    try:
        with ui.step("building the fuzzers"):
            build.ninja(fuzzers, where, what="building the fuzzers")
    except ui.Failure as failure:
        ui.say(str(failure))
    shutil.rmtree(CRASHES, ignore_errors=True)
    os.makedirs(CRASHES)
    ui.say("%d fuzzers, %d s each, seed %d" % (len(binaries), seconds, seed))
    prefix = _fixed_addresses()
    return [functools.partial(_one, results, prefix, binary, seconds, seed) for binary in binaries]
