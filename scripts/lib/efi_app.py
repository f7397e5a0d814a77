"""Small UEFI applications of the rigs' own."""
import os

import ui


def build(where, name, sources):
    """Builds a UEFI application in the directory `where` from C files (paths below the tree's root); answers its path."""
    stem = os.path.join(where, name)
    objects = []
    lib = next(path for path in ("/usr/lib", "/usr/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu/gnuefi")
               if os.path.exists(os.path.join(path, "crt0-efi-x86_64.o")))
    for source in sources:
        objects.append(os.path.join(where, os.path.basename(source)[:-2] + ".o"))
        ui.command(["gcc", "-std=gnu17", "-O2", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Werror",
                    "-I", ui.ROOT, "-isystem", "/usr/include/efi", "-isystem", "/usr/include/efi/x86_64",
                    "-DGNU_EFI_USE_MS_ABI", "-fpic", "-ffreestanding", "-fno-stack-protector", "-fno-strict-aliasing",
                    "-fshort-wchar", "-mno-red-zone", "-maccumulate-outgoing-args",
                    "-c", os.path.join(ui.ROOT, source), "-o", objects[-1]])
    ui.command(["ld", "-nostdlib", "-znocombreloc", "-znoexecstack", "--no-warn-rwx-segments", "-shared", "-Bsymbolic",
                "-T", os.path.join(lib, "elf_x86_64_efi.lds"), "-L", lib, os.path.join(lib, "crt0-efi-x86_64.o"),
                *objects, "-o", stem + ".so", "-lefi", "-lgnuefi"])
    ui.command(["objcopy", "-j", ".text", "-j", ".sdata", "-j", ".data", "-j", ".dynamic", "-j", ".dynsym", "-j",
                ".rel*", "-j", ".rela*", "-j", ".reloc", "--target", "efi-app-x86_64", stem + ".so", stem + ".efi"])
    return stem + ".efi"
