"""Checks that run nothing: every header alone, the direction of includes, what pure objects may call, the linked
core's segments and size, and the analysers."""
import concurrent.futures
import glob
import os
import re
import shutil
import struct
import subprocess

import build
import guests
import symbols as core_symbols
import ui
import unit

ROOMS = ("hv", "arch", "drivers", "boot")
# Bytes of text, data and read-only data, with either compiler. Issue 2, section 5 gave 256 KiB to a core without drivers
# of the host's devices; the rest is for those of issue 4: VT-d, PCI and SR-IOV, the PF drivers of NICs and NVMe.
CORE_LIMIT = 384 * 1024
MEMORY_FUNCTIONS = {"memcpy", "memset", "memmove", "memcmp"}
LINKER_SYMBOLS = {"core_start", "core_end", "_GLOBAL_OFFSET_TABLE_"}
FLAGS = ["-std=gnu17", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", "-ffreestanding", "-mno-red-zone",
         "-mgeneral-regs-only"]
GNU_EFI = ["-I/usr/include/efi", "-I/usr/include/efi/x86_64", "-DGNU_EFI_USE_MS_ABI", "-fshort-wchar"]


WIRING = "hv/main.c"  # brings all rooms together, and does nothing else
# The seam between the core and the machine: declared in neutral headers, defined in hardware files.
SEAM_HEADERS = ("arch/x86/virt.h", "arch/x86/host.h", "hv/cpu.h")


def sources(*endings):
    """All source files of the product, as paths relative to the root."""
    found = []
    for room in ROOMS:
        for base, _, names in os.walk(os.path.join(ui.ROOT, room)):
            found += [os.path.relpath(os.path.join(base, name), ui.ROOT) for name in names if name.endswith(endings)]
    return sorted(found)


def is_hardware(path):
    return path.endswith(("_hw.c", "_hw.h", ".asm")) or os.path.basename(path).startswith("efi_")


def _run(argv, text=b""):
    done = subprocess.run(argv, cwd=ui.ROOT, input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          check=False)
    return done.returncode, done.stdout.decode("utf-8", "replace")


def includes(path):
    """(line number, quoted or angled, name) of every include of a file."""
    with open(os.path.join(ui.ROOT, path), encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            match = re.match(r'\s*#\s*include\s*(["<])([^">]+)[">]', line)
            if match:
                yield number, match.group(1) == '"', match.group(2)


def _headers(results, jobs):
    def alone(path):
        efi = GNU_EFI if os.path.basename(path).startswith("efi_") else []
        # Twice: it must also stand being included again.
        unit_text = '#include "%s"\n#include "%s"\n' % (path, path)
        status, output = _run(["gcc", *FLAGS, *efi, "-I.", "-x", "c", "-fsyntax-only", "-"], unit_text.encode())
        return path, status == 0, output

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        bad = [(path, output) for path, good, output in pool.map(alone, sources(".h")) if not good]
    results.check(not bad, "every header compiles alone", "".join("\n%s\n%s" % each for each in bad))


def layer_fault(path, name):
    """Why a file may not include a header, or None. DESIGN section 2:
    hv/lib <- arch builders and drivers codecs <- hv core <- hv/main.c; gnu-efi only in boot/."""
    if name.startswith("boot/efi_") and not os.path.basename(path).startswith("efi_"):
        return "only boot/efi_* knows gnu-efi"
    if path.startswith("hv/lib/") and not name.startswith("hv/lib/"):
        return "hv/lib includes nothing above itself"
    if path.startswith("drivers/vdev/"):
        if name.startswith("arch/"):
            return "drivers/vdev does not include arch/"
        if name.startswith("hv/") and not name.startswith("hv/lib/"):
            return "drivers/vdev gets its world as a struct vdev_env: of hv/ only hv/lib"
    if name.startswith("boot/") and not path.startswith("boot/") and name != "boot/boot_info.h":
        return "of boot/ only boot/boot_info.h is for others"
    if not is_hardware(path) and name.endswith("_hw.h") and path != WIRING:
        return "pure code does not include hardware headers"
    return None


def _layers(results):
    faults = []
    for path in sources(".c", ".h"):
        for number, quoted, name in includes(path):
            if not quoted:
                if name.startswith("efi") and not os.path.basename(path).startswith("efi_"):
                    faults.append("%s:%d: includes <%s>: only boot/efi_* knows gnu-efi" % (path, number, name))
                continue
            if not os.path.exists(os.path.join(ui.ROOT, name)):
                faults.append('%s:%d: "%s" is not a path from the root' % (path, number, name))
                continue
            why = layer_fault(path, name)
            if why:
                faults.append("%s:%d: includes %s: %s" % (path, number, name, why))
    results.check(not faults, "includes follow the layers", "".join("\n" + fault for fault in faults))


def _objects():
    """Objects of the freestanding build by source path."""
    found = {}
    for path in glob.glob(os.path.join(build.BUILD, "CMakeFiles", "core.dir", "**", "*.o"), recursive=True):
        relative = os.path.relpath(path, os.path.join(build.BUILD, "CMakeFiles", "core.dir"))[:-2]
        if os.path.exists(os.path.join(ui.ROOT, relative)):
            found[relative] = path
    return found


def symbols(path, undefined):
    """Names that an object defines for others, or needs from them."""
    output = ui.command(["nm", "-P", "-u" if undefined else "--defined-only", *([] if undefined else ["-g"]), path])
    return {line.split()[0] for line in output.splitlines() if line.strip()}


def seam():
    """The functions that the core may call although hardware files define them."""
    names = set()
    for header in SEAM_HEADERS:
        path = os.path.join(ui.ROOT, header)
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                names |= set(re.findall(r"\b((?:virt|host)_\w+)\s*[(\[;]", file.read()))
    return names


def _purity(results):
    """Pure objects need each other and mem*, nothing else; only the core itself (hv/*.c) also the seam."""
    pure = {source: path for source, path in _objects().items() if source.endswith(".c") and not is_hardware(source)}
    if not pure:
        results.check(False, "pure objects call only each other", "there are no objects of the core")
        return
    defined = set().union(*(symbols(path, False) for path in pure.values()))
    allowed = defined | MEMORY_FUNCTIONS | LINKER_SYMBOLS
    faults = []
    for source, path in sorted(pure.items()):
        if source == WIRING:
            continue
        core = source.startswith("hv/") and not source.startswith("hv/lib/")
        extra = symbols(path, True) - allowed - (seam() if core else set())
        if extra:
            faults.append("%s: %s" % (source, ", ".join(sorted(extra))))
    results.check(not faults, "pure objects call only each other", "%d objects" % len(pure) if not faults else
                  "".join("\n" + fault for fault in faults))


def segments(path):
    """(flags, size in the file, size in memory) of every PT_LOAD of an ELF64."""
    with open(path, "rb") as file:
        data = file.read()
    if data[:5] != b"\x7fELF\x02":
        raise ui.Failure("%s is not an ELF64" % path)
    offset, = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    for index in range(count):
        kind, flags, _, _, _, filesz, memsz, _ = struct.unpack_from("<IIQQQQQQ", data, offset + index * size)
        if kind == 1:
            yield flags, filesz, memsz


def _size(results, name, core):
    loads = list(segments(core))
    size = sum(filesz for _, filesz, _ in loads)
    results.check(0 < size <= CORE_LIMIT, name, "%.1f KiB of %d KiB; %.1f KiB in memory with .bss" % (
        size / 1024, CORE_LIMIT / 1024, sum(memsz for _, _, memsz in loads) / 1024))


def _clang(results):
    """The same core from the other compiler: without warnings, and no larger than it may be."""
    name = "the core's size with Clang"
    if not shutil.which("clang"):
        results.skip(name, "there is no clang")
        return
    where = os.path.join(build.BUILD, "core-clang")
    try:
        build.configure(where, ["-DBULKHEAD_TESTS=OFF", "-DCMAKE_C_COMPILER=clang"])
        build.ninja(["core"], where, what="building the core with Clang")
    except ui.Failure as failure:
        results.check(False, name, str(failure))
        return
    _size(results, name, os.path.join(where, "core.elf"))


def _stray(results):
    """What tools leave behind is not part of the source, even when somebody once added it in spite of .gitignore."""
    name = "nothing is tracked that .gitignore names"
    status, output = _run(["git", "ls-files", "--cached", "--ignored", "--exclude-standard"])
    if status != 0:
        results.skip(name, "this is not a git tree")
        return
    results.check(not output, name, output.strip())


def _core(results):
    executable, writable = 1, 2
    loads = list(segments(build.CORE))
    both = [flags for flags, _, _ in loads if flags & executable and flags & writable]
    results.check(bool(loads) and not both, "the core's segments are W^X", "%d segments" % len(loads))
    _size(results, "the core's size", build.CORE)
    table = core_symbols.written(build.CORE)
    results.check(table == core_symbols.table(build.CORE), "the core's table of symbols is its own",
                  "%d functions" % len(core_symbols.functions(build.CORE)))


def _tidy(results, jobs):
    where = unit.configure("clang")
    files = [path for path in sources(".c") if not is_hardware(path) and not path.endswith("hv/lib/mem.c")]

    def one(path):
        return path, *_run(["clang-tidy", "--quiet", "-p", where, path])

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        outcomes = list(pool.map(one, files))
    bad = [(path, output) for path, status, output in outcomes if status != 0]
    results.check(not bad, "clang-tidy", "%d files" % len(files) if not bad else
                  "".join("\n%s\n%s" % (path, "\n".join(output.splitlines()[:20])) for path, output in bad))


def _cppcheck(results, jobs):
    status, output = _run(["cppcheck", "-j", str(jobs), "--quiet", "--enable=warning,portability", "--std=c11",
                           "--inline-suppr", "--error-exitcode=1", "--suppressions-list=scripts/cppcheck.suppress",
                           "-I.", "-D__x86_64__", "--platform=unix64", *ROOMS])
    results.check(status == 0, "cppcheck", "" if status == 0 else "\n" + output)


def _scripts(results):
    bad = []
    for name in ("setup", "run", "image", "check-config", "test", "bench"):
        status, output = _run(["bash", "-n", os.path.join("scripts", name)])
        if status != 0:
            bad.append(output)
    results.check(not bad, "shell scripts parse", "\n".join(bad))


def _examples(results):
    checker = build.checker()
    for path in sorted(glob.glob(os.path.join(ui.ROOT, "examples", "*.conf"))):
        # As scripts/run does it: a copy of the example with the guest's files beside it.
        status, output = _run([checker, guests.place(os.path.join(build.BUILD, "static-examples"), path)])
        results.check(status == 0, "examples/%s passes the checker" % os.path.basename(path), output.strip())


def run(results, jobs):
    _headers(results, jobs)
    _layers(results)
    build.loader()
    _stray(results)
    _purity(results)
    _core(results)
    _clang(results)
    _cppcheck(results, jobs)
    _tidy(results, jobs)
    _scripts(results)
    _examples(results)
