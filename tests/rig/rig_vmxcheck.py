"""arch/x86/vmx/vmx_check.c against the processor: thousands of VMCSs, good and broken, and who says what of them."""
import re

import image
import rig

SOURCES = ["tests/rig/vmxcheck/vmxcheck.c", "tests/rig/vmxcheck/states.c", "arch/x86/vmx/vmx_check.c",
           "arch/x86/vmx/vmx_check_guest.c", "arch/x86/vmx/vmx_caps.c", "hv/lib/fmt.c"]
STATES = 20000
BASES = 6        # the first states, which nothing was done to
RULES = 150      # pairs of field and rule that the states break


def run(t):
    where = rig.directory("vmxcheck")
    disk = where + "/disk.img"
    image.write(disk, [("EFI/BOOT/BOOTX64.EFI", rig.efi_application("vmxcheck", SOURCES))])
    with rig.Boot("vmxcheck", disk, memory=256) as boot:
        boot.expect(r"^vmxcheck: done\n", 120)
        text = boot.text
    counts = re.search(r"vmxcheck: (\d+) states: (\d+) accepted, (\d+) bad controls, (\d+) bad host state, "
                       r"(\d+) bad guest state, (\d+) other", text)
    result = re.search(r"vmxcheck: (\d+) rules were broken; (\d+) known faults of the emulator; (\d+) differences", text)
    t.check(counts is not None and result is not None, "vmx_check: the processor was asked")
    if not counts or not result:
        return
    states, accepted, controls, host, guest, other = (int(n) for n in counts.groups())
    t.check(states == STATES and min(controls, host, guest) > 100 and accepted > BASES and other == 0,
            "vmx_check: the states are of every kind", counts.group(0))
    t.check(int(result.group(1)) >= RULES, "vmx_check: most rules are broken once", result.group(0))
    differences = re.findall(r"^vmxcheck: (?:difference|  ).*", text, re.M)
    t.check(int(result.group(3)) == 0, "vmx_check: its verdict equals the processor's",
            "%d states" % states if not differences else "\n    ".join(differences))
